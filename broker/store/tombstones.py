"""The file of tombstones: what was erased, outside the database, so that no old copy of it brings a subject back.

It holds lifts too: that what was erased may be linked again.  A lift takes no tombstone away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import rfc8785

from broker import folders
from broker.errors import Malformed, unwritable


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One erasure, as the file outside the database keeps it."""

    erasure: str
    at: datetime
    indexes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Lifted:
    """One lift, as the file keeps it."""

    lift: str
    at: datetime
    indexes: frozenset[str]


class Tombstones:
    """A file that is only added to: a line of JSON for each erasure, HMACs and no name.  Copied apart from backups."""

    def __init__(self, data_dir: Path) -> None:
        self.path: Final = data_dir / "erased" / "tombstones.ndjson"
        self._due: Final = self.path.with_name("purge.due")

    def read(self) -> tuple[Tombstone, ...]:
        """Every tombstone, in order.  A last line that a crash cut short is passed over: its erasure did not commit.

        Raises Malformed if any other line can't be read.
        """
        return tuple(one for one in self._lines() if isinstance(one, Tombstone))

    def lifts(self) -> tuple[Lifted, ...]:
        """Every lift, in order; else as `read`."""
        return tuple(one for one in self._lines() if isinstance(one, Lifted))

    def _lines(self) -> tuple[Tombstone | Lifted, ...]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return ()
        whole = [line for line in lines if line.endswith("\n")]
        try:
            return tuple(_read(json.loads(line)) for line in whole)
        except (ValueError, KeyError, TypeError):
            raise Malformed(f"{self.path.name}: a line is not a tombstone; restore the file from its copy") from None

    @property
    def purge_due(self) -> bool:
        """Whether something was erased since the database's files were last written anew."""
        return self._due.exists()

    def purged(self) -> None:
        """The files were written anew."""
        self._due.unlink(missing_ok=True)

    def erased(self) -> None:
        """Something was erased: the files are to be written anew."""
        folders.make(self.path.parent)
        self._due.touch(mode=0o600)

    def append(self, one: Tombstone | Lifted) -> None:
        """Add one, durably.  Raises StoreUnavailable if the file can't be written."""
        which = {"erasure": one.erasure} if isinstance(one, Tombstone) else {"lift": one.lift}
        line = {"at": one.at.isoformat(), "subjects": sorted(one.indexes), **which}
        try:
            if isinstance(one, Tombstone):
                self.erased()
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                there = os.pread(file, os.fstat(file).st_size, 0)
                os.ftruncate(file, there.rfind(b"\n") + 1)  # a line cut short is of no commit
                os.write(file, rfc8785.dumps(line) + b"\n")
                os.fsync(file)
            finally:
                os.close(file)
            folders.sync(self.path.parent)
        except OSError as wrong:
            raise unwritable("the file of tombstones", wrong) from None


def _read(line: Mapping[str, Any]) -> Tombstone | Lifted:
    at, indexes = datetime.fromisoformat(line["at"]).astimezone(UTC), frozenset(line["subjects"])
    return Lifted(str(line["lift"]), at, indexes) if "lift" in line else Tombstone(str(line["erasure"]), at, indexes)
