"""Tables of which a column is read when it is asked for: what a night does not look at is never brought to memory.

A table is made up of pieces, one after another, of each of which all rows count or some.  Where only few rows of a
column are wanted, the column lies in memory that the next one uses again: memory never used before is what costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BYTES: Final = 8  # in which the bits of a column's missing values are counted


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows of a table that lie together: `read` gives a column, for good or (true) until the next one is read.

    What is given until the next one may be of a dictionary.

    `live` are the rows that count, in order; None if all do.  `same` are the columns of which all values are one.
    """

    read: Callable[[str, bool], pa.ChunkedArray]
    rows: int
    live: Ints | None = None
    same: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, table: pa.Table) -> Piece:
        """All rows of a table in memory."""
        return cls(read=lambda name, _: table[name], rows=table.num_rows)

    def __len__(self) -> int:
        return self.rows if self.live is None else len(self.live)

    def places(self, rows: Ints) -> Ints:
        """Where these of the rows that count lie."""
        return rows if self.live is None else self.live[rows]


class Lazy:
    """Pieces as one table.  What is called as of a table in memory says the same; the whole table is made for no less
    than `whole`, and what needs it."""

    def __init__(self, schema: pa.Schema, pieces: Sequence[Piece]) -> None:
        self.schema = schema
        self.pieces = tuple(pieces)
        self._ends = np.cumsum([0, *map(len, self.pieces)])
        self._held: dict[str, pa.ChunkedArray] = {}

    @property
    def num_rows(self) -> int:
        return int(self._ends[-1])

    @property
    def column_names(self) -> list[str]:
        return list(self.schema.names)

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """A whole column, which is kept from then on."""
        if name not in self._held:
            type_ = self.schema.field(name).type
            chunks: list[pa.Array] = []
            for piece in self.pieces:
                if piece.live is None:
                    chunks += piece.read(name, False).chunks
                else:
                    chunks.append(_taken(piece.read(name, True), piece.live))
            self._held[name] = pa.chunked_array([chunk for chunk in chunks if len(chunk)], type_)
        return self._held[name]

    def select(self, names: Sequence[str]) -> pa.Table:
        """Some columns, as a table in memory."""
        return pa.Table.from_arrays([self[name] for name in names], names=list(names))

    def whole(self) -> pa.Table:
        """All columns, as a table in memory."""
        return pa.Table.from_arrays([self[name] for name in self.schema.names], schema=self.schema)

    def filter(self, mask: Any) -> pa.Table:
        """Some rows of the whole table."""
        return self.whole().filter(mask)

    def take(self, places: Any) -> pa.Table:
        """Some rows, in the order asked for."""
        wanted = np.asarray(places, np.int64)
        rows, back = np.unique(wanted, return_inverse=True)
        return self.rows_at(rows, self.schema.names).take(pa.array(back))

    def rows_at(self, rows: Ints, names: Sequence[str]) -> pa.Table:
        """Some columns of some rows, in order."""
        parts = [(piece, piece.places(mine - start)) for piece, start, mine in self._split(rows) if len(mine)]
        columns = []
        for name in names:
            type_ = self.schema.field(name).type
            chunks = [
                pa.repeat(pa.scalar(piece.same[name], type_), len(mine))
                if name in piece.same
                else _taken(piece.read(name, True), mine)
                for piece, mine in parts
            ]
            columns.append(pa.chunked_array(chunks, type_).combine_chunks())
        schema = pa.schema([self.schema.field(name) for name in names])
        return pa.Table.from_arrays(columns, schema=schema)

    def numbers_at(self, name: str, rows: Ints) -> tuple[npt.NDArray[Any], Flags | None]:
        """Values of a column of whole numbers in some rows, in order; and which of them are there, None if all are."""
        if name in self._held:
            return numbers_of(self._held[name], rows)
        found = [
            numbers_of(piece.read(name, True), piece.places(mine - start))
            for piece, start, mine in self._split(rows)
            if len(mine)
        ]
        if not found:
            return np.zeros(0, self.schema.field(name).type.to_pandas_dtype()), None
        valid = None
        if any(there is not None for _, there in found):
            valid = np.concatenate([np.ones(len(one), np.bool_) if there is None else there for one, there in found])
        return np.concatenate([one for one, _ in found]), valid

    def cheapest(self, rows: Ints) -> Flags:
        """Which of these rows (in order) lie in the piece that is the soonest read of those that have any."""
        at = np.searchsorted(rows, self._ends)
        mine = np.zeros(len(rows), np.bool_)
        _, least = min((piece.rows, n) for n, piece in enumerate(self.pieces) if at[n + 1] > at[n])
        mine[at[least] : at[least + 1]] = True
        return mine

    def _split(self, rows: Ints) -> list[tuple[Piece, int, Ints]]:
        """By piece, where its rows begin, and which of `rows` (in order) are its."""
        at = np.searchsorted(rows, self._ends)
        return [
            (piece, int(self._ends[n]), rows[at[n] : at[n + 1]].astype(np.int64)) for n, piece in enumerate(self.pieces)
        ]


class Spliced(Lazy):
    """A lazy table of which a few rows say something else."""

    def __init__(self, given: Lazy, rows: Ints, table: pa.Table) -> None:
        super().__init__(given.schema, given.pieces)
        self._given, self._rows, self._table = given, rows, table

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """A whole column, which is kept from then on."""
        if name not in self._held:
            self._held[name] = spliced(self._given[name], self._rows, self._table[name])
        return self._held[name]

    def rows_at(self, rows: Ints, names: Sequence[str]) -> pa.Table:
        """Some columns of some rows, in order."""
        found, (at, of) = self._given.rows_at(rows, names), self._among(rows)
        if not len(at):
            return found
        columns = [spliced(found[name], at, self._table[name].take(pa.array(of))) for name in names]
        return pa.Table.from_arrays([column.combine_chunks() for column in columns], schema=found.schema)

    def numbers_at(self, name: str, rows: Ints) -> tuple[npt.NDArray[Any], Flags | None]:
        """Values of a column of whole numbers in some rows, in order; and which of them are there, None if all are."""
        values, valid = self._given.numbers_at(name, rows)
        at, of = self._among(rows)
        mine, there = numbers_of(self._table[name], of)
        values[at] = mine
        if there is not None:
            valid = np.ones(len(values), np.bool_) if valid is None else valid
            valid[at] = there
        elif valid is not None:
            valid[at] = True
        return values, valid

    def _among(self, rows: Ints) -> tuple[Ints, Ints]:
        """Which of `rows` (in order) say something else, and which of those rows each is."""
        at = np.flatnonzero(np.isin(rows, self._rows))
        return at, np.searchsorted(self._rows, rows[at])


def spliced(column: pa.ChunkedArray, rows: Ints, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column with other values in some rows (in order): only those chunks are copied that hold one."""
    chunks, start = [], 0
    for chunk in column.chunks:
        low, high = np.searchsorted(rows, [start, start + len(chunk)])
        if high > low:
            mask = np.zeros(len(chunk), np.bool_)
            mask[rows[low:high] - start] = True
            some = values.slice(low, high - low).combine_chunks()
            chunks.append(pc.replace_with_mask(chunk, pa.array(mask), some))
        else:
            chunks.append(chunk)
        start += len(chunk)
    return pa.chunked_array(chunks, column.type)


def numbers_at(table: Any, name: str, rows: Ints) -> tuple[npt.NDArray[Any], Flags | None]:
    """Values of a column of whole numbers in some rows, in order; and which of them are there, None if all are."""
    return table.numbers_at(name, rows) if isinstance(table, Lazy) else numbers_of(table[name], rows)


def numbers_of(column: pa.ChunkedArray, places: Ints) -> tuple[npt.NDArray[Any], Flags | None]:
    """The same of a column in memory."""
    dtype = column.type.to_pandas_dtype()
    values, valid = np.empty(len(places), dtype), np.ones(len(places), np.bool_) if column.null_count else None
    start = done = 0
    for chunk in column.chunks:
        end = int(np.searchsorted(places, start + len(chunk)))
        mine = places[done:end] - start
        if len(mine):
            held = np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset : chunk.offset + len(chunk)]
            np.take(held, mine, out=values[done:end])
            if valid is not None and chunk.null_count:
                at = mine + chunk.offset
                valid[done:end] = np.frombuffer(chunk.buffers()[0], np.uint8)[at // BYTES] >> (at % BYTES) & 1
        start, done = start + len(chunk), end
    return values, valid


def values_at(column: pa.ChunkedArray, places: Ints) -> tuple[npt.NDArray[Any], Flags | None]:
    """The same of numbers of any kind and of truths, none of which is missing."""
    if pa.types.is_boolean(column.type):
        return column.to_numpy()[places], None
    return numbers_of(column, places)


def rows_where(table: Any, mask: Any, columns: Sequence[str]) -> pa.Table:
    """Some columns of the rows of a mask."""
    if isinstance(table, Lazy):
        return table.rows_at(np.flatnonzero(mask.to_numpy()), columns)
    return table.select(list(columns)).filter(mask)


def in_memory(table: Any) -> pa.Table:
    """A table, all of it in memory."""
    return table.whole() if isinstance(table, Lazy) else table


def _taken(column: pa.ChunkedArray, rows: Ints) -> pa.Array:
    """Some values, in order, as an array of their own; words of a dictionary are spelled out."""
    if len(column) and column.null_count == len(column):
        return pa.nulls(len(rows), column.type.value_type if pa.types.is_dictionary(column.type) else column.type)
    if pa.types.is_integer(column.type):
        values, valid = numbers_of(column, rows)
        return pa.array(values, column.type, mask=None if valid is None else ~valid)
    pieces, start = [], 0
    for chunk in column.chunks:
        low, high = np.searchsorted(rows, [start, start + len(chunk)])
        if high > low:
            some = chunk.take(pa.array(rows[low:high] - start))
            pieces.append(some.dictionary_decode() if pa.types.is_dictionary(some.type) else some)
        start += len(chunk)
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return pa.concat_arrays(pieces) if pieces else pa.array([], type_)
