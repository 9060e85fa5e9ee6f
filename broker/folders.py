"""Folders that a power cut does not take: a name is on its disk once the folder that holds it was fsynced (POSIX)."""

from __future__ import annotations

import os
from pathlib import Path

from broker.errors import unwritable


def make(folder: Path) -> None:
    """The folder is there, mode 0700 where it is made, and so durably: each above it that was missing, too.

    One that was there already is fsynced into the one above: whoever made it may have died before that.
    Raises StoreUnavailable, StoreFull.
    """
    missing = [folder]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    try:
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            sync(each.parent)
    except OSError as wrong:
        raise unwritable(f"the folder {folder.name}", wrong) from None


def sync(folder: Path) -> None:
    """What was named, renamed and removed in a folder is so on its disk.  Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
