"""A file that only takes up room: let go when the disk is full, so that the log can still say that it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

DEFAULT_BYTES: Final = 1024 * 1024


class Ballast:
    """So many bytes beside the database.  Made of noise, since a file system may store zeros as nothing."""

    def __init__(self, path: Path, size: int = DEFAULT_BYTES) -> None:
        self.path: Final = path
        self.size: Final = size

    def let_go(self) -> None:
        """Give the room back.  Twice does no harm."""
        self.path.unlink(missing_ok=True)

    def take(self) -> bool:
        """Whether the ballast is there now.  Where it was not, it is made only if as much again is free beside it."""
        try:
            if self.path.stat().st_size == self.size:
                return True
        except OSError:
            pass
        beside = self.path.with_name(self.path.name + ".new")
        try:
            with beside.open("wb") as file:
                for _ in range(2):
                    file.write(os.urandom(self.size))
                file.flush()
                os.fsync(file.fileno())
                file.truncate(self.size)
            beside.replace(self.path)
        except OSError:
            beside.unlink(missing_ok=True)
            return False
        return True
