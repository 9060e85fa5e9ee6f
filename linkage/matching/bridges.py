"""What leads from one side of a severed pair to the other is taken out of the rows before anybody compares them.

Rows are never left out, only put otherwise: so every row keeps its place, and a night reads those alone that differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Ints
from linkage.matching.identifiers import LOCAL, SCHEMES
from linkage.matching.lazily import Lazy, Spliced, spliced
from linkage.matching.overrides import RecordKey, RecordPair, neighbours
from linkage.matching.texts import rows_at

_KEY: Final = ("agency", "flow", "record_ref")
_Row = Mapping[str, Any]
_Placed = Mapping[int, _Row]


@dataclass(frozen=True, kw_only=True)
class Altered:
    """Rows that are put otherwise: their places, in order, and what they say now."""

    rows: Ints
    table: pa.Table

    def of(self, persons: pa.Table | Lazy) -> Any:
        """All rows, these among them; the very same table if there are none."""
        if not len(self.rows):
            return persons
        if isinstance(persons, Lazy):
            return Spliced(persons, self.rows, self.table)
        columns = [spliced(persons[name], self.rows, self.table[name]) for name in persons.column_names]
        return pa.Table.from_arrays(columns, schema=persons.schema)


def without_bridges(persons: pa.Table, severed: AbstractSet[RecordPair]) -> pa.Table:
    """The rows of a table in memory as `bridges` puts them, for linking and for searching alike."""
    around = neighbours(severed)
    if not around:
        return persons
    refs = pa.array(sorted({ref for _, _, ref in around}), pa.string())
    places = pc.indices_nonzero(pc.is_in(persons["record_ref"], value_set=refs)).to_numpy().astype(np.int64)
    put: pa.Table = bridges(persons, severed, places).of(persons)
    return put


def bridges(persons: pa.Table | Lazy, severed: AbstractSet[RecordPair], places: Ints) -> Altered:
    """The rows that lead from one side of a severed pair to the other, as they lead nowhere.

    A number that one side has and the other gives as its former one, directly or along a chain of anybody's rows, is
    nobody's former number any more; a number that both sides give as theirs is nobody's.  Where a severed record has
    several rows, those that repeat a family name or an address of the other side say what the least of the others says;
    one row always stays.  Under `guarded` an address is compared only beside equal initials of both names, so
    under others it leads nowhere.  `places` are those of all rows of severed records, in order; others may be among
    them.  Of the same rows and pairs the result is the same, in whatever order they come.
    """
    around = neighbours(severed)
    names = list(persons.column_names)
    rows: dict[RecordKey, dict[int, _Row]] = defaultdict(dict)
    for place, row in zip(places.tolist(), rows_at(persons, places, names).to_pylist(), strict=True):
        if _key(row) in around:
            rows[_key(row)][place] = row
    pairs = [(rows[left], rows[right]) for left, right in severed if left in rows and right in rows]
    gone: dict[str, Ints] = {}
    for columns in (*SCHEMES.values(), (LOCAL,)):
        gone |= _numbers_gone(persons, [f"id_{name}" for name in columns], pairs)
    instead = {
        place: min(set(mine) - repeated, key=lambda other: [str(value) for value in mine[other].values()])
        for mine in rows.values() if (repeated := _repeated(mine, pairs)) for place in repeated
    }  # fmt: skip
    listed = np.unique(np.concatenate([np.array([*instead], np.int64), *gone.values()]))
    read = np.unique(np.concatenate([listed, np.array([*instead.values()], np.int64)]))
    table = rows_at(persons, read, names)
    for name, nobodys in gone.items():
        mask = pa.array(np.isin(read, nobodys))
        kept = pc.if_else(mask, pa.scalar(None, table.schema.field(name).type), table[name])
        table = table.set_column(table.column_names.index(name), table.schema.field(name), kept)
    source = np.array([instead.get(place, place) for place in listed.tolist()], np.int64)
    return Altered(rows=listed, table=table.take(pa.array(np.searchsorted(read, source))).combine_chunks())


def _key(row: _Row) -> RecordKey:
    return row["agency"], row["flow"], row["record_ref"]


def _numbers_gone(
    persons: pa.Table | Lazy, columns: list[str], pairs: Iterable[tuple[_Placed, _Placed]]
) -> dict[str, Ints]:
    """By column of one scheme (its current one first), the rows whose number leads from side to side."""
    current, *former = columns
    both = [tuple(_numbers(side, columns) for side in pair) for pair in pairs]
    sides = [(left, right) for left, right in both if left and right]
    gone: dict[str, Ints] = {}
    if not sides:
        return gone
    for name in former:
        at = np.flatnonzero(pc.is_valid(persons[name]).to_numpy())
        said = rows_at(persons, at, [current, name])
        held = said[name].to_pylist()
        chain = _chains(zip(said[current].to_pylist(), held, strict=True))
        named = [tuple({chain(number) for number in side} for side in pair) for pair in sides]
        leading = {least for left, right in named for least in left & right}
        gone[name] = at[np.array([chain(number) in leading for number in held], np.bool_)]
    shared = {number for pair in pairs for number in _numbers(pair[0], [current]) & _numbers(pair[1], [current])}
    if shared:
        held_now = pc.is_in(persons[current], value_set=pa.array(sorted(shared), pa.int64()))
        gone[current] = np.flatnonzero(held_now.to_numpy())
    return {name: rows.astype(np.int64) for name, rows in gone.items() if len(rows)}


def _numbers(side: _Placed, columns: Iterable[str]) -> set[int]:
    return {row[name] for row in side.values() for name in columns if row[name] is not None}


def _chains(pairs: Iterable[tuple[int | None, int]]) -> Callable[[int], int]:
    """For a number the name of the chain it is in; numbers that no row calls another's former one are by themselves."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while (above := parent.setdefault(number, number)) != number:
            parent[number] = number = parent[above]
        return number

    for one, other in pairs:
        if one is not None:
            low, high = sorted((root(one), root(other)))
            parent[high] = low
    return root


def _repeated(mine: _Placed, pairs: Iterable[tuple[_Placed, _Placed]]) -> set[int]:
    """Of a severed record's rows those that repeat a family name or an address of the other side; never all."""
    if len(mine) == 1:
        return set()
    others = [row for left, right in pairs if mine is left or mine is right
              for row in (right if mine is left else left).values()]  # fmt: skip
    name = {place for place, row in mine.items() if any(_same(row, other, "t_family_name") for other in others)}
    address = {place for place, row in mine.items() if any(_same(row, other, "t_postcode") for other in others)}
    for repeated in (name | address, name):
        if len(repeated) < len(mine):
            return repeated
    return set()


def _same(row: _Row, other: _Row, stem: str) -> bool:
    """Whether two rows have an equal token of this kind: of the value itself, or of the value with others."""
    named = (name for name in row if name == stem or name.startswith(f"{stem}_"))
    return any(row[name] is not None and row[name] == other[name] for name in named)
