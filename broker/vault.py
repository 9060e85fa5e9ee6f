"""Sealed Parquet segments: encodings, pair scores, clusters.  No plaintext touches the disk."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final, NewType

from broker.errors import NotFound, unwritable
from broker.keys import DataKey

if TYPE_CHECKING:  # and where it is used: most commands open no segment
    import pyarrow as pa

SegmentId = NewType("SegmentId", str)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SEGMENT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\.[0-9a-f]{16}")


class Vault:
    """A folder of segments.  A segment is written once, whole, and never changed."""

    def __init__(self, folder: Path, key: DataKey) -> None:
        self.folder = folder
        self._key = key
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, name: str, table: pa.Table) -> SegmentId:
        """Seal a table; on return it is on disk, under a fresh id `<name>.<random>`.

        Raises StoreUnavailable, StoreFull if it can't be written; then no such segment is there.
        """
        if not _NAME.fullmatch(name):
            raise ValueError("a segment's name is lower-case letters, digits and hyphens")
        segment = SegmentId(f"{name}.{secrets.token_hex(8)}")
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        sealed = self._key.seal(sink.getvalue().to_pybytes(), bound_to=segment.encode())
        fresh = self.folder / f"{segment}.tmp"
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self.folder / f"{segment}.seg")
            _sync_folder(self.folder)
        except OSError as wrong:
            fresh.unlink(missing_ok=True)
            raise unwritable("the vault", wrong) from None
        return segment

    def read(self, segment: SegmentId | str) -> pa.Table:
        """A segment's table.  Raises NotFound if it is not there, Undecipherable if it was altered or swapped."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not _SEGMENT.fullmatch(segment):
            raise NotFound("there is no such segment")
        try:
            sealed = (self.folder / f"{segment}.seg").read_bytes()
        except FileNotFoundError:
            raise NotFound("there is no such segment") from None
        return pq.read_table(pa.BufferReader(self._key.open(sealed, bound_to=segment.encode())))

    def segments(self) -> frozenset[SegmentId]:
        """Every segment that is whole."""
        return frozenset(SegmentId(path.name.removesuffix(".seg")) for path in self.folder.glob("*.seg"))

    def sweep(self, keep: frozenset[SegmentId] | frozenset[str]) -> int:
        """Delete half-written files and every segment that is not in `keep`; how many went."""
        gone = list(self.folder.glob("*.tmp"))
        gone += [path for path in self.folder.glob("*.seg") if path.name.removesuffix(".seg") not in keep]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
