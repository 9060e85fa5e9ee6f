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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

URL = "BROKER_TEST_POSTGRES"
INSTALL = "apt-get install -y --no-install-recommends postgresql"


def binaries() -> Path:
    """The newest server's folder.  Fails with the line to run if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.fail(f"PostgreSQL is not here; install it ({INSTALL}) or give a URL in {URL}", pytrace=False)
    return found[-1].parent


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The libpq connection string of a running server's `postgres` database."""
    if given := os.environ.get(URL):
        yield given
        return
    where = Path(tempfile.mkdtemp(prefix="pg-"))
    as_whom = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        if as_whom:
            shutil.chown(where, "postgres", "postgres")
        quiet = {"cwd": where, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_whom}
        subprocess.run(
            [binaries() / "initdb", "-D", where / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, **quiet,
        )  # fmt: skip
        options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"]
        server = subprocess.Popen([binaries() / "postgres", "-D", where / "data", "-k", where, *options], **quiet)
        try:
            address = f"host={where} user=postgres dbname=postgres"
            wait_for(address, server)
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # fast: SIGTERM would wait for pooled connections
            server.wait(timeout=30)
    finally:
        shutil.rmtree(where, ignore_errors=True)


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


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
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
