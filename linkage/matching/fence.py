"""Landlock: a process gives up, for good, every file but those of one folder and its own code, and the network.

It holds for this process and all that it starts, whatever code runs in it later, and needs no privilege.  What was open
before stays open.  Linux 5.13 or newer, where the kernel has it switched on; elsewhere nothing is given up, and `level`
says so.

Source: docs.kernel.org/userspace-api/landlock.html (the numbers are those of linux/landlock.h).
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_NO_NEW_PRIVS: Final = 38  # an option of prctl
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_OF_FILES: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many kinds of access to files a kernel's version knows: all are given up that it knows."""
_NEWEST: Final = 5
CODE: Final = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1])
"""Python, what is installed beside it, and this package: some of it is loaded when it is first used."""
SIZES: Final = (Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"), Path("/sys/devices/system/cpu"))
"""What says how much of the machine there is to use: DuckDB looks, and ends where it may not.  Nobody's data."""
_TCP: Final = 0b11  # bind and connect, from version 4
_OTHER_PROCESSES: Final = 0b11  # abstract sockets and signals, from version 6


def level() -> int:
    """The version of Landlock that the kernel has; 0 where it has none or it is switched off."""
    if sys.platform != "linux":
        return 0
    return max(int(_LIBC.syscall(_CREATE, None, ctypes.c_size_t(0), _ASK_VERSION)), 0)


def around(folder: Path) -> int:
    """From now on this process reads what lies in `folder`, `CODE` and `SIZES`; it opens and makes nothing else.

    Returns the version by which that holds, 0 where it does not.  Raises OSError if the kernel has it and refuses.
    """
    version = level()
    if not version:
        return 0
    files = (1 << _OF_FILES[min(version, _NEWEST)]) - 1
    given_up = struct.pack("=QQQ", files, _TCP, _OTHER_PROCESSES)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _done(_LIBC.syscall(_CREATE, given_up, ctypes.c_size_t(len(given_up)), 0))
    try:
        for path in (folder, *(one for one in (*CODE, *SIZES) if os.access(one, os.R_OK))):
            kept = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", _READ_FILE | (_READ_FOLDER if path.is_dir() else 0), kept)
                _done(_LIBC.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0))
            finally:
                os.close(kept)
        _done(_LIBC.prctl(_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0))
        _done(_LIBC.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)
    return version


def _done(returned: int) -> int:
    if returned < 0:
        raise OSError(ctypes.get_errno(), "landlock")
    return returned
