"""A PostgreSQL, and processes, whose every fsync takes the same time: so that a figure is of the code, not of the disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.postgres import Server

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
    server = Server(disk=True, environment=environment(microseconds))
    try:
        server.start()
        yield server.address
    finally:
        server.remove()
