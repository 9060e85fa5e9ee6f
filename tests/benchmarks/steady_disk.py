"""A PostgreSQL, and processes, whose every fsync takes the same time: so that a figure is of the code, not of the disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.postgres import binaries, wait_for

SOURCE = Path(__file__).with_name("slow_fsync.c")


def environment(microseconds: int) -> Mapping[str, str]:
    """What to start a process with, so that each of its fsyncs takes this long.  Needs a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("this benchmark needs a C compiler: apt-get install gcc libc6-dev")
    library = Path(tempfile.gettempdir()) / f"slow-fsync-{os.getuid()}" / "slow_fsync.so"
    library.parent.mkdir(mode=0o755, exist_ok=True)
    if not library.exists() or library.stat().st_mtime < SOURCE.stat().st_mtime:
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True)
    return os.environ | {"LD_PRELOAD": str(library), "FSYNC_MICROSECONDS": str(microseconds)}


@contextmanager
def postgres(microseconds: int) -> Iterator[str]:
    """The libpq address of a new server in a temporary folder, whose fsyncs take this long."""
    where = Path(tempfile.mkdtemp(prefix="pg-"))
    as_whom = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        if as_whom:
            shutil.chown(where, "postgres", "postgres")
        quiet = {"cwd": where, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_whom}
        made = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([binaries() / "initdb", "-D", where / "data", *made], check=True, **quiet)
        options = ["-c", "listen_addresses=", "-c", "max_connections=200", "-c", "wal_sync_method=fdatasync"]
        command = [binaries() / "postgres", "-D", where / "data", "-k", where, *options]
        server = subprocess.Popen(command, env=environment(microseconds), **quiet)
        try:
            address = f"host={where} user=postgres dbname=postgres"
            wait_for(address, server)
            yield address
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
    finally:
        shutil.rmtree(where, ignore_errors=True)
