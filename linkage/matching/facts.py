"""What a broker knows of each row beside its encodings: coarse, said by few combinations, and kept by their number.

A night reads these columns of the rows that came in; of the others it takes over which combination they have.  So the
standing report, the counts and the family network count combinations instead of reading a million rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Ints, Places
from linkage.matching.texts import rows_at, whole
from linkage.records import IDENTIFIERS, QUALITY_FLAGS

NUMBERED: Final = "numbered"
KINDS: Final = pa.schema(
    [
        ("birth_year", pa.int32()),
        ("sex", pa.string()),
        ("person_role", pa.string()),
        (NUMBERED, pa.bool_()),  # has any identifier
        *((flag, pa.bool_()) for flag in QUALITY_FLAGS),
    ]
)
"""One combination of what rows say."""
_READ: Final = tuple(name for name in KINDS.names if name != NUMBERED)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Each combination that a row has, once and in order (KINDS), and by row the place of its own."""

    kinds: pa.Table
    of: Places


def facts_of(persons: Any, carried: Ints | None = None, before: Facts | None = None) -> Facts:
    """What rows say: those of `persons` (a table, or lazily read), with the wire's columns.

    `carried` says which row of an earlier run's each is, unaltered, or -1, and `before` what those said.
    """
    usable = before is not None and carried is not None and len(carried) == persons.num_rows
    if before is None or carried is None or not usable or (len(carried) and carried.max() >= len(before.of)):
        return _in_order(*_read(persons, np.arange(persons.num_rows)))
    fresh = np.flatnonzero(carried < 0)
    kinds, of = _read(persons, fresh)
    every = np.append(before.of, np.int32(0))[carried]
    every[fresh] = of + len(before.kinds)
    return _in_order(pa.concat_tables([before.kinds, kinds]), every)


def _read(persons: Any, rows: Ints) -> tuple[pa.Table, Places]:
    """Of some rows the combinations, and which of them each has."""
    names = [f"id_{name}" for name in IDENTIFIERS]
    some = rows_at(persons, rows, (*_READ, *names)) if len(rows) < persons.num_rows else persons
    numbered = np.zeros(len(rows), np.bool_)
    for name in names:
        if some[name].null_count < len(rows):
            numbered |= pc.is_valid(some[name]).to_numpy()
    said = {name: some[name] for name in _READ} | {NUMBERED: pa.array(numbered)}
    return _combined(pa.table({field.name: whole(pa.chunked_array(_chunks(said[field.name]))).cast(field.type)
                               for field in KINDS}, schema=KINDS))  # fmt: skip


def _chunks(column: Any) -> list[pa.Array]:
    return column.chunks or [pa.array([], column.type)] if isinstance(column, pa.ChunkedArray) else [column]


def _combined(said: pa.Table) -> tuple[pa.Table, Places]:
    """Each row of a table once, and by row which of them it is."""
    codes = np.zeros(said.num_rows, np.int64)
    for column in said.columns:
        coded = pc.dictionary_encode(whole(column), null_encoding="encode")
        codes = codes * max(1, len(coded.dictionary)) + coded.indices.to_numpy()
    coded = pc.dictionary_encode(pa.array(codes))
    of = coded.indices.to_numpy()
    first = np.zeros(len(coded.dictionary), np.int64)
    first[of[::-1]] = np.arange(len(of) - 1, -1, -1)  # the last to be written is the first
    return said.take(pa.array(first)), of.astype(np.int32)


def _in_order(kinds: pa.Table, of: Places) -> Facts:
    """The same, each combination once, in order, and only those that a row has."""
    used = np.flatnonzero(np.bincount(of, minlength=len(kinds)))
    distinct, same = _combined(kinds.take(pa.array(used)))
    order = pc.sort_indices(distinct, [(name, "ascending") for name in distinct.column_names]).to_numpy()
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    place = np.zeros(len(kinds), np.int32)
    place[used] = rank[same]
    return Facts(kinds=distinct.take(pa.array(order)).combine_chunks(), of=place[of])
