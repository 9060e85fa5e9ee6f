"""A real PostgreSQL for tests: a URL from the environment, else Debian's own binaries, on a socket in a temporary folder.

The server refuses to run as root, so root starts it as the user `postgres`.  Every test gets a database of its own.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

URL = "BROKER_TEST_POSTGRES"
ROOM = 4 * 1024**3
INSTALL = "apt-get install -y --no-install-recommends postgresql"


def binaries() -> Path:
    """The newest server's folder.  Fails with the line to run if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.fail(f"PostgreSQL is not here; install it ({INSTALL}) or give a URL in {URL}", pytrace=False)
    return found[-1].parent


class Server:
    """A PostgreSQL of one's own in a temporary folder, to be started, crashed and started again.

    `environment` is that of the server's process; `disk`: on a real one, else where there is room in memory, in which an
    fsync costs nothing.  `made` false: the folder of its data is another's to make.
    """

    def __init__(self, *, disk: bool = False, environment: Mapping[str, str] | None = None, made: bool = True) -> None:
        self._where = Path(tempfile.mkdtemp(prefix="pg-", dir=None if disk else _memory()))
        as_whom = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if as_whom:
            shutil.chown(self._where, "postgres", "postgres")
        self._how: dict[str, Any] = {
            "cwd": self._where, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_whom,
        }  # fmt: skip
        self._environment = None if environment is None else dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        if made:
            how = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
            subprocess.run([binaries() / "initdb", "-D", self._where / "data", *how], check=True, **self._how)

    @property
    def address(self) -> str:
        """The libpq connection string of its `postgres` database."""
        return f"host={self._where} user=postgres dbname=postgres"

    def start(self) -> None:
        """Start it, and return once it answers."""
        settings = ("listen_addresses=", "max_connections=200", "wal_sync_method=fdatasync")
        options = [word for setting in settings for word in ("-c", setting)]
        command = [binaries() / "postgres", "-D", self._where / "data", "-k", self._where, *options]
        self._process = subprocess.Popen(command, env=self._environment, **self._how)
        _wait_for(self.address, self._process)

    @property
    def folder(self) -> Path:
        """Where its socket lies."""
        return self._where

    def tell(self, statement: str) -> None:
        """Run one statement as the owner, and have the server read its settings anew."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(statement)
            connection.execute("SELECT pg_reload_conf()")
            time.sleep(0.2)  # the server's processes take a signal

    def standby(self) -> "Server":
        """A server that follows this one, running, and for which each commit of this one waits."""
        other = self.copied("-R")
        other.start()
        self.tell("ALTER SYSTEM SET synchronous_standby_names = '*'")
        for _ in range(200):
            with psycopg.connect(self.address) as connection:
                if connection.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone():
                    return other
            time.sleep(0.05)
        pytest.fail("the standby does not follow", pytrace=False)

    def copied(self, *how: str) -> "Server":
        """A server with a base backup of this one's data, not running."""
        other = Server(made=False)
        command = [binaries() / "pg_basebackup", "-D", other._where / "data", "-c", "fast", "-h", self._where]
        subprocess.run([*command, "-U", "postgres", *how], check=True, **other._how)
        return other

    def archive(self) -> Path:
        """From now on (it is started anew) keep its log in a folder, which is told."""
        folder = self._where / "archive"
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        self.tell("ALTER SYSTEM SET archive_mode = on")
        self.tell(f"ALTER SYSTEM SET archive_command = 'cp %p {folder}/%f'")
        self.crash()
        self.start()
        return folder

    def recover(self, archive: Path, point: str) -> None:
        """Start it, a copy, as it was at a restore point: its log is another's archive."""
        with (self._where / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(
                f"archive_mode = off\nrestore_command = 'cp {archive}/%f %p'\n"
                f"recovery_target_name = '{point}'\nrecovery_target_action = 'promote'\n"
            )
        (self._where / "data" / "recovery.signal").touch()
        self.start()
        for _ in range(200):
            with psycopg.connect(self.address) as connection:
                if connection.execute("SELECT NOT pg_is_in_recovery()").fetchone() == (True,):
                    return
            time.sleep(0.05)
        pytest.fail("the server does not end its recovery", pytrace=False)

    def promote(self) -> None:
        """From a standby to a server that takes writes, and waits for nobody."""
        self.tell("SELECT pg_promote()")
        self.tell("ALTER SYSTEM RESET synchronous_standby_names")

    def kill(self) -> None:
        """SIGKILL: the server's own processes end as they find it gone."""
        self._stop(signal.SIGKILL)

    def crash(self) -> None:
        """An immediate shutdown: no checkpoint, every connection cut; the next start recovers from its log."""
        self._stop(signal.SIGQUIT)

    def remove(self) -> None:
        """Stop it and delete its folder."""
        try:
            if self._process is not None and self._process.poll() is None:
                self._stop(signal.SIGINT)  # fast: SIGTERM would wait for pooled connections
        finally:
            shutil.rmtree(self._where, ignore_errors=True)

    def _stop(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(timeout=30)


def _memory() -> Path | None:
    """A folder in memory with room for a server; in a container it may be tiny."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > ROOM else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The libpq connection string of a running server's `postgres` database."""
    if given := os.environ.get(URL):
        yield given
        return
    server = Server()
    try:
        server.start()
        yield server.address
    finally:
        server.remove()


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database, dropped afterwards."""
    with a_database(postgres_server) as url:
        yield url


@contextmanager
def a_database(server: str, *, template: str = "template1", keep: bool = False) -> Iterator[str]:
    """The SQLAlchemy URL of a new database, a copy of `template`; dropped on leaving unless kept."""
    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    parts = psycopg.conninfo.conninfo_to_dict(server)
    where = "&".join(f"{key}={parts[key]}" for key in ("host", "port") if parts.get(key))
    yield f"postgresql+psycopg://{parts['user']}@/{name}?{where}"
    if not keep:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Return once the server answers; fail if it ends, or does not in ten seconds."""
    for _ in range(200):
        if server.poll() is not None:
            pytest.fail("PostgreSQL did not start", pytrace=False)
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("PostgreSQL did not answer", pytrace=False)
