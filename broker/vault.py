"""Sealed segments, a table each: encodings, pair scores, clusters.  No plaintext touches the disk.

<folder>/<name>.<random>.seg    blocks of at most 8 MiB, each sealed to its place: segment, number, and whether it is
                                the last.  A column begins a block (an Arrow stream of it alone), and so does what says
                                which columns there are, in which blocks; the last block says where that begins.

Only the broker reads them, so they are as they lie in its memory: to open one is to decrypt what is asked for of it.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, NewType

from broker import folders
from broker.errors import NotFound, Undecipherable, unwritable
from broker.keys import DataKey

if TYPE_CHECKING:  # and where it is used: most commands open no segment
    import pyarrow as pa

SegmentId = NewType("SegmentId", str)
BLOCK: Final = 8 * 1024 * 1024
FORMAT: Final = "columns-1"
OTHERS: Final = (
    "is of another version of the broker: begin with an empty data folder, and have every agency send a full batch"
)
GONE: Final = "gone/"  # how a part is called that says which rows of the part count no more
PARTED: Final = 3  # words of a flow's part: `persons/<agency>/<flow>`; a delta's has its number beside
SAMPLE: Final = 4096  # values by which a column is known
_LENGTH: Final = struct.Struct(">I")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SEGMENT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\.[0-9a-f]{16}")


class Vault:
    """A folder of segments.  A segment is written once, whole, and never changed."""

    def __init__(self, folder: Path, key: DataKey) -> None:
        self.folder = folder
        self._key = key
        folders.make(folder)

    def write(self, name: str, table: pa.Table) -> SegmentId:
        """Seal a table; on return it is on disk, under a fresh id `<name>.<random>`.

        Raises StoreUnavailable, StoreFull if it can't be written; then no such segment is there.
        """
        if not _NAME.fullmatch(name):
            raise ValueError("a segment's name is lower-case letters, digits and hyphens")
        segment = SegmentId(f"{name}.{secrets.token_hex(8)}")
        fresh = self.folder / f"{segment}.tmp"
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb", buffering=0) as file:
                with _Sealing(file, self._key, segment) as sink:
                    columns = [[one, *_write_column(sink, table[one])] for one in table.column_names]
                    contents = sink.number
                    sink.write(
                        json.dumps({
                            "format": FORMAT, "rows": table.num_rows, "columns": columns,
                            "schema": base64.b64encode(table.schema.serialize()).decode(),
                        }).encode()
                    )  # fmt: skip
                    sink.end_block()
                    sink.write(_LENGTH.pack(contents))
                os.fsync(file.fileno())
            fresh.rename(self.folder / f"{segment}.seg")
            folders.sync(self.folder)
        except OSError as wrong:
            fresh.unlink(missing_ok=True)
            raise unwritable("the vault", wrong) from None
        return segment

    def open(self, segment: SegmentId | str) -> Segment:
        """A segment, of which nothing is read yet but what it holds.

        Raises NotFound if it is not there, Undecipherable if it was altered, cut short or swapped, or is of a version
        of the broker that wrote others.
        """
        import pyarrow as pa

        blocks = self._blocks(segment)
        try:
            (first,) = _LENGTH.unpack(self._plain(segment, blocks, len(blocks) - 1))
            said = json.loads(b"".join(self._plain(segment, blocks, n) for n in range(first, len(blocks) - 1)))
            if said["format"] != FORMAT:
                raise ValueError
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(said["schema"])))
            columns = {name: (first, count) for name, first, count in said["columns"]}
        except (ValueError, KeyError, TypeError, struct.error):
            raise Undecipherable(f"a segment of the vault {OTHERS}") from None
        return Segment(vault=self, id=SegmentId(segment), rows=said["rows"], schema=schema, blocks=blocks,
                       places=columns)  # fmt: skip

    def read(self, segment: SegmentId | str, columns: Sequence[str] | None = None) -> pa.Table:
        """A segment's table, or some of its columns.  Raises as `open` does."""
        import pyarrow as pa

        opened = self.open(segment)
        names = opened.schema.names if columns is None else list(columns)
        schema = opened.schema if columns is None else pa.schema([opened.schema.field(name) for name in names])
        return pa.Table.from_arrays([opened.column(name) for name in names], schema=schema)

    def read_parts(self, segments: Mapping[str, str], name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The table that the segments called `name` or `<name>/...` make up in order.  Raises NotFound if none is.

        Less the rows that `gone/<name>/<agency>/<flow>` numbers in all segments of that flow.
        """
        import numpy as np
        import pyarrow as pa

        flows: dict[str, list[pa.Table]] = {}
        for part, segment in sorted(segments.items()):
            if part.split("/")[0] == name:
                flows.setdefault("/".join(part.split("/")[:PARTED]), []).append(self.read(segment, columns))
        if not flows:
            raise NotFound("there is no such segment")
        for flow, tables in flows.items():
            if gone := segments.get(f"{GONE}{flow}"):
                whole = pa.concat_tables(tables)
                stay = np.ones(whole.num_rows, np.bool_)
                stay[self.read(gone)["row"].to_numpy()] = False
                flows[flow] = [whole.filter(pa.array(stay))]
        return pa.concat_tables([table for tables in flows.values() for table in tables])

    def check(self, segment: SegmentId | str, table: pa.Table) -> bool:
        """Whether every sealed block is on disk and opens, and the last names the rows and columns of `table`.

        A block that opens is bit for bit the one that was sealed; that what was written reads back equal is tested.
        """
        try:
            opened = self.open(segment)
            with self._open(segment) as file:
                sealed, plain = (_memory(max(size for _, size in opened.blocks)) for _ in range(2))
                for number in range(len(opened.blocks)):
                    self.unseal(file, opened, number, sealed, plain)
        except (NotFound, Undecipherable):
            return False
        return bool(opened.rows == table.num_rows and opened.schema.equals(table.schema))

    def unseal(self, file: BinaryIO, segment: Segment, number: int, sealed: memoryview, into: memoryview) -> int:
        """Decrypt a block of an open file `into` memory; how many bytes.  `sealed` is room for it as it lies there."""
        at, size = segment.blocks[number]
        file.seek(at)
        if file.readinto(sealed[:size]) != size:  # type: ignore[attr-defined]
            raise Undecipherable("a segment is torn")
        place = _place(segment.id, number, last=number == len(segment.blocks) - 1)
        return self._key.open_into(sealed[:size], into, bound_to=place)

    def _plain(self, segment: SegmentId | str, blocks: Sequence[tuple[int, int]], number: int) -> bytes:
        at, size = blocks[number]
        with self._open(segment) as file:
            file.seek(at)
            return self._key.open(file.read(size), bound_to=_place(segment, number, last=number == len(blocks) - 1))

    def _blocks(self, segment: SegmentId | str) -> list[tuple[int, int]]:
        """Where each sealed block begins, and its size, as their headers say: a wrong one does not open."""
        blocks: list[tuple[int, int]] = []
        with self._open(segment) as file:
            at = 0
            while head := file.read(_LENGTH.size):
                size = int.from_bytes(head, "big")
                if len(head) < _LENGTH.size or not DataKey.OVERHEAD < size <= BLOCK + DataKey.OVERHEAD:
                    raise Undecipherable("a segment is torn")
                blocks.append((at + _LENGTH.size, size))
                at = file.seek(size, os.SEEK_CUR)
        if not blocks:
            raise Undecipherable("a segment is torn")
        return blocks

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment whose columns are decrypted when they are asked for, each time anew."""

    vault: Vault
    id: SegmentId
    rows: int
    schema: pa.Schema
    blocks: Sequence[tuple[int, int]]  # where each begins, and its size
    places: Mapping[str, tuple[int, int]]  # by column: its first block, and how many

    def column(self, name: str, spare: Spare | None = None) -> pa.ChunkedArray:
        """A column.  In `spare` it lies until that is used again, its words as a dictionary's: both cost little.

        Raises NotFound, Undecipherable.
        """
        import pyarrow as pa

        first, count = self.places[name]
        sizes = [size - DataKey.OVERHEAD for _, size in self.blocks[first : first + count]]
        into = Spare().room(sum(sizes)) if spare is None else spare.room(sum(sizes))
        sealed = (spare or Spare()).sealed(max(sizes))
        start = 0
        with self.vault._open(self.id) as file:
            for number in range(first, first + count):
                start += self.vault.unseal(file, self, number, sealed, into[start:])
        table = pa.ipc.open_stream(pa.py_buffer(into)).read_all()
        column, type_ = table.column(0), self.schema.field(name).type
        if pa.types.is_null(column.type) and not pa.types.is_null(type_):
            column = pa.chunked_array([pa.nulls(len(column), type_)])
        if spare is None and pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(type_):
            column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], type_)
        return column

    def reader(self) -> Callable[[str, bool], pa.ChunkedArray]:
        """Reads a column, for good or (true) until the next one is read."""
        spare = Spare()
        return lambda name, passing: self.column(name, spare if passing else None)


class Spare:
    """Memory for one column at a time."""

    def __init__(self) -> None:
        self._plain = memoryview(b"")
        self._sealed = memoryview(b"")

    def room(self, size: int) -> memoryview:
        """Room for so many bytes, which the next call gives away again."""
        if len(self._plain) < size:
            self._plain = _memory(size)
        return self._plain[:size]

    def sealed(self, size: int) -> memoryview:
        """Room for a sealed block of so many bytes."""
        if len(self._sealed) < size + DataKey.OVERHEAD:
            self._sealed = _memory(size + DataKey.OVERHEAD)
        return self._sealed


def _memory(size: int) -> memoryview:
    """Memory that nobody has written to yet: as a bytearray it would be filled with nothing first."""
    import numpy as np

    return np.empty(size, np.uint8).data


def _write_column(sink: _Sealing, column: pa.ChunkedArray) -> tuple[int, int]:
    """Write a column from the beginning of a block to the end of one; the first of its blocks, and how many."""
    import pyarrow as pa

    first = sink.number
    if column.null_count == len(column):
        column = pa.chunked_array([pa.nulls(len(column))])
    elif _repeats(column):
        column = column.dictionary_encode()
    table = pa.table({"": column})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    sink.end_block()
    return first, sink.number - first


class _Sealing:
    """A file that `write` fills with sealed blocks; the last one says that it is, so none can be cut off."""

    def __init__(self, file: BinaryIO, key: DataKey, segment: str) -> None:
        self._file, self._key, self._segment = file, key, segment
        self._waiting, self._sealed = _memory(BLOCK), _memory(BLOCK + DataKey.OVERHEAD)
        self._filled = 0
        self.number = 0
        self._size = 0
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while self._filled + len(rest) > BLOCK:  # a block is full, and more is to come
            rest = self._take(rest)
            self.end_block()
        self._take(rest)
        self._size += size
        return size

    def _take(self, data: memoryview) -> memoryview:
        """Fill the block; what did not fit."""
        some = data[: BLOCK - self._filled]
        self._waiting[self._filled : self._filled + len(some)] = some
        self._filled += len(some)
        return data[len(some) :]

    def end_block(self) -> None:
        """Seal what waits: what is written next begins a block."""
        self._seal(self._waiting[: self._filled], last=False)
        self._filled = 0

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
        size = self._key.seal_into(block, self._sealed, bound_to=_place(self._segment, self.number, last=last))
        for part in (_LENGTH.pack(size), self._sealed[:size]):
            if self._file.write(part) != len(part):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.number += 1


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether a column is of words, and of few: a reference of its own in each row has no use for a dictionary."""
    import pyarrow as pa

    if not pa.types.is_string(column.type):
        return False
    some = column.slice(0, SAMPLE).drop_null()
    return len(some) > 0 and len(some.unique()) <= len(some) // 2


def _place(segment: str, number: int, *, last: bool) -> bytes:
    return f"{segment}|{number}|{'last' if last else 'more'}".encode()
