"""Sealed Parquet segments: encodings, pair scores, clusters.  No plaintext touches the disk.

<folder>/<name>.<random>.seg    blocks of 8 MiB, each sealed to its place: segment, number, and whether it is the last
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, NewType

from broker.errors import NotFound, Undecipherable, unwritable
from broker.keys import DataKey

if TYPE_CHECKING:  # and where it is used: most commands open no segment
    import pyarrow as pa

SegmentId = NewType("SegmentId", str)
BLOCK: Final = 8 * 1024 * 1024
SAMPLE: Final = 4096  # values by which a column is known
FOOTER: Final = 1024 * 1024  # more than a footer takes
_LENGTH: Final = struct.Struct(">I")
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

        lists = [f"{field.name}.list.element" for field in table.schema if pa.types.is_list(field.type)]
        words = [name for name in table.column_names if _repeats(table[name])]
        fresh = self.folder / f"{segment}.tmp"
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb", buffering=0) as file:
                with _Sealing(file, self._key, segment) as sink:
                    # What fills a segment are keyed encodings: there is nothing in them to compress, and nothing that
                    # a range of values would spare a reader.
                    pq.write_table(
                        table, sink, compression="none", use_dictionary=[*words, *lists] or False,
                        write_statistics=False,
                    )  # fmt: skip
                os.fsync(file.fileno())
            fresh.rename(self.folder / f"{segment}.seg")
            _sync_folder(self.folder)
        except OSError as wrong:
            fresh.unlink(missing_ok=True)
            raise unwritable("the vault", wrong) from None
        return segment

    def read(self, segment: SegmentId | str, columns: Sequence[str] | None = None) -> pa.Table:
        """A segment's table, or some of its columns.

        Raises NotFound if it is not there, Undecipherable if it was altered, cut short or swapped.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        plain = b"".join(self._blocks(segment))
        # one thread and no look-ahead: the file is in memory, and copying it about takes longer than to parse it
        file = pq.ParquetFile(pa.BufferReader(plain), pre_buffer=False)
        return file.read(columns and list(columns), use_threads=False)

    def read_parts(self, segments: Mapping[str, str], name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The table that the segments called `name` or `<name>/...` make up in order.  Raises NotFound if none is."""
        import pyarrow as pa

        parts = [segment for part, segment in sorted(segments.items()) if part.split("/")[0] == name]
        if not parts:
            raise NotFound("there is no such segment")
        return pa.concat_tables([self.read(segment, columns) for segment in parts])

    def check(self, segment: SegmentId | str, table: pa.Table) -> bool:
        """Whether every sealed block is on disk and opens, and its footer names the rows and columns of `table`.

        A block that opens is bit for bit the one that was sealed; that what Parquet writes reads back equal is tested.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        tail = b""
        try:
            for block in self._blocks(segment):
                tail = (tail + block)[-FOOTER:] if len(block) < FOOTER else block[-FOOTER:]
            length = int.from_bytes(tail[-8:-4], "little") + 8
            footer = pq.read_metadata(pa.BufferReader(b"PAR1" + tail[-length:]))
        except (NotFound, Undecipherable, pa.ArrowException):
            return False
        return bool(footer.num_rows == table.num_rows and footer.schema.to_arrow_schema().equals(table.schema))

    def _blocks(self, segment: SegmentId | str) -> Iterator[bytes]:
        sizes = self._sizes(segment)
        with self._open(segment) as file:
            for number, size in enumerate(sizes):
                file.seek(_LENGTH.size, os.SEEK_CUR)
                place = _place(segment, number, last=number == len(sizes) - 1)
                yield self._key.open(file.read(size), bound_to=place)

    def _sizes(self, segment: SegmentId | str) -> list[int]:
        """Of the sealed blocks, as their headers say: a wrong one does not open."""
        sizes: list[int] = []
        with self._open(segment) as file:
            while head := file.read(_LENGTH.size):
                sizes.append(int.from_bytes(head, "big"))
                if len(head) < _LENGTH.size or not DataKey.OVERHEAD < sizes[-1] <= BLOCK + DataKey.OVERHEAD:
                    raise Undecipherable("a segment is torn")
                file.seek(sizes[-1], os.SEEK_CUR)
        if not sizes:
            raise Undecipherable("a segment is torn")
        return sizes

    def _open(self, segment: SegmentId | str) -> BinaryIO:
        if not _SEGMENT.fullmatch(segment):
            raise NotFound("there is no such segment")
        try:
            return (self.folder / f"{segment}.seg").open("rb")
        except FileNotFoundError:
            raise NotFound("there is no such segment") from None

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


class _Sealing:
    """A file that `write` fills with sealed blocks; the last one says that it is, so none can be cut off."""

    def __init__(self, file: BinaryIO, key: DataKey, segment: str) -> None:
        self._file, self._key, self._segment = file, key, segment
        self._waiting = memoryview(bytearray(BLOCK))
        self._filled = 0
        self._number = 0
        self._size = 0
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while self._filled + len(rest) > BLOCK:  # a block is full, and more is to come
            rest = self._take(rest)
            self._seal(self._waiting, last=False)
            self._filled = 0
        self._take(rest)
        self._size += size
        return size

    def _take(self, data: memoryview) -> memoryview:
        """Fill the block; what did not fit."""
        some = data[: BLOCK - self._filled]
        self._waiting[self._filled : self._filled + len(some)] = some
        self._filled += len(some)
        return data[len(some) :]

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """A block is written when it is full."""

    def close(self) -> None:
        """Left to the end of the `with`: only what was written to the end is sealed as the end."""

    def __enter__(self) -> _Sealing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._seal(self._waiting[: self._filled], last=True)

    def _seal(self, block: memoryview, *, last: bool) -> None:
        sealed = self._key.seal(block, bound_to=_place(self._segment, self._number, last=last))
        for part in (_LENGTH.pack(len(sealed)), sealed):
            if self._file.write(part) != len(part):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._number += 1


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether a column is of words, and of few: a reference of its own in each row has no use for a dictionary."""
    import pyarrow as pa

    if not pa.types.is_string(column.type):
        return False
    some = column.slice(0, SAMPLE)
    return len(some.unique()) <= len(some) // 2


def _place(segment: str, number: int, *, last: bool) -> bytes:
    return f"{segment}|{number}|{'last' if last else 'more'}".encode()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
