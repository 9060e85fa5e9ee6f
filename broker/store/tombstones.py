"""The file of tombstones: what was erased, outside the database, so that no old copy of it brings a subject back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import rfc8785

from broker.errors import Malformed, unwritable


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One erasure, as the file outside the database keeps it."""

    erasure: str
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
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return ()
        whole = [line for line in lines if line.endswith("\n")]
        try:
            return tuple(_tombstone(json.loads(line)) for line in whole)
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
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._due.touch(mode=0o600)

    def append(self, tombstone: Tombstone) -> None:
        """Add one, durably.  Raises StoreUnavailable if the file can't be written."""
        line = {"at": tombstone.at.isoformat(), "erasure": tombstone.erasure, "subjects": sorted(tombstone.indexes)}
        try:
            self.erased()
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                there = os.pread(file, os.fstat(file).st_size, 0)
                os.ftruncate(file, there.rfind(b"\n") + 1)  # a line cut short is of no commit
                os.write(file, rfc8785.dumps(line) + b"\n")
                os.fsync(file)
            finally:
                os.close(file)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as wrong:
            raise unwritable("the file of tombstones", wrong) from None


def _tombstone(line: Mapping[str, Any]) -> Tombstone:
    at = datetime.fromisoformat(line["at"]).astimezone(UTC)
    return Tombstone(str(line["erasure"]), at, frozenset(line["subjects"]))
