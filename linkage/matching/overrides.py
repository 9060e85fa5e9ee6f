"""What people have decided about pairs of records: sever, must-not-link, must-link; in this order, before any model.

A sever (an adoption) must hold by every path.  Each has its own bar, and a run needs them all:

    one cluster, or a third record between   `apart` binds whole clusters (`persons.Rules`)
    a number that leads from one to the other `without_bridges`: former numbers and shared ones are taken out
    an old name or address as another row     `without_bridges`: rows that repeat the other side are taken out
    family, household, anyone between         `families.families` cuts every path of edges
    a search that fits both                   `search.Index`: the better side alone, or neither
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.identifiers import LOCAL, SCHEMES
from linkage.matching.lazily import rows_where

RecordKey = tuple[str, str, str]
"""A record is named by its agency, its flow and the agency's own `record_ref`."""
RecordPair = tuple[RecordKey, RecordKey]

SEVERED: Final = pa.schema(
    [(f"{name}_{side}", pa.string()) for side in "lr" for name in ("agency", "flow", "record_ref")]
)
"""The severed pairs of a run, as `Overrides.severed_table` gives and `severed_pairs` reads them."""
_KEY: Final = ("agency", "flow", "record_ref")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Pairs that people have settled.  Who, when and why is the broker's to keep; the order in a pair does not matter.

    `sever` keeps two records apart by every path: link, family, household, shared identifier; `must_not_link` keeps
    them in two persons, who may still be one family.  Both bind whole clusters, not only the two records.
    """

    must_link: frozenset[RecordPair] = frozenset()
    must_not_link: frozenset[RecordPair] = frozenset()
    sever: frozenset[RecordPair] = frozenset()

    def with_markers(self, persons: pa.Table) -> Overrides:
        """These and one sever for each two records of an agency whose rows carry the same `sever_ref`."""
        groups: dict[tuple[str, str], set[RecordKey]] = defaultdict(set)
        marked = rows_where(persons, pc.is_valid(persons["sever_ref"]), [*_KEY, "sever_ref"])
        for row in marked.to_pylist():
            if row["sever_ref"]:
                groups[row["agency"], row["sever_ref"]].add(_key(row))
        pairs = {pair for group in groups.values() for pair in combinations(sorted(group), 2)}
        return replace(self, sever=self.sever | pairs)

    def kept_apart(self) -> dict[RecordKey, set[RecordKey]]:
        """For each record, those it may share no person with."""
        return neighbours(self.sever | self.must_not_link)

    def severed_table(self) -> pa.Table:
        """The severed pairs, each once, in order."""
        pairs = sorted({(min(pair), max(pair)) for pair in self.sever})
        columns = zip(*((*left, *right) for left, right in pairs), strict=True) if pairs else [()] * len(SEVERED)
        return pa.table([pa.array(column, pa.string()) for column in columns], schema=SEVERED)


def severed_pairs(table: pa.Table) -> frozenset[RecordPair]:
    """The pairs of a table of SEVERED."""
    left, right = ([table[f"{name}_{side}"].to_pylist() for name in _KEY] for side in "lr")
    return frozenset(zip(zip(*left, strict=True), zip(*right, strict=True), strict=True))


def neighbours(pairs: Iterable[RecordPair]) -> dict[RecordKey, set[RecordKey]]:
    """For each record of a pair, those at the other end."""
    others: dict[RecordKey, set[RecordKey]] = defaultdict(set)
    for left, right in pairs:
        others[left].add(right)
        others[right].add(left)
    return dict(others)


def without_bridges(persons: pa.Table, severed: AbstractSet[RecordPair]) -> pa.Table:
    """The rows less what leads from one side of a severed pair to the other, for linking and for searching alike.

    A number that one side has and the other gives as its former one, directly or along a chain of anybody's rows, is
    nobody's former number any more; a number that both sides give as theirs is nobody's.  Where a severed record has
    several rows, those are left out that repeat a family name or an address of the other side; one row always stays.
    Under `guarded` an address is compared only beside equal initials of both names, so under others it leads nowhere.
    Of the same rows and pairs the result is the same, in whatever order they come.
    """
    around = neighbours(severed)
    if not around:
        return persons
    refs = pa.array(sorted({ref for _, _, ref in around}), pa.string())
    places = pc.indices_nonzero(pc.is_in(persons["record_ref"], value_set=refs))
    rows: dict[RecordKey, dict[int, _Row]] = defaultdict(dict)
    for place, row in zip(places.to_pylist(), persons.take(places).to_pylist(), strict=True):
        if _key(row) in around:
            rows[_key(row)][place] = row
    pairs = [(rows[left], rows[right]) for left, right in severed if left in rows and right in rows]
    for columns in (*SCHEMES.values(), (LOCAL,)):
        persons = _without_numbers(persons, [f"id_{name}" for name in columns], pairs)
    repeated = {place for mine in rows.values() for place in _repeated(mine, pairs)}
    if not repeated:
        return persons
    return persons.take(pa.array([place for place in range(persons.num_rows) if place not in repeated], pa.int64()))


_Row = Mapping[str, Any]
_Placed = Mapping[int, _Row]


def _key(row: _Row) -> RecordKey:
    return row["agency"], row["flow"], row["record_ref"]


def _without_numbers(persons: pa.Table, columns: list[str], pairs: Iterable[tuple[_Placed, _Placed]]) -> pa.Table:
    """The rows less the numbers of one scheme (its current column first) that lead from side to side."""
    current, *former = columns
    sides = [tuple(_numbers(side, columns) for side in pair) for pair in pairs]
    sides = [(left, right) for left, right in sides if left and right]
    if not sides:
        return persons
    for name in former:
        chain = _chains(persons, current, name)
        named = [tuple({chain(number) for number in side} for side in pair) for pair in sides]
        leading = {least for left, right in named for least in left & right}
        if leading:
            held = persons[name].drop_null().unique().to_pylist()
            persons = _nulled(persons, name, {number for number in held if chain(number) in leading})
    shared = {number for pair in pairs for number in _numbers(pair[0], [current]) & _numbers(pair[1], [current])}
    return _nulled(persons, current, shared)


def _numbers(side: _Placed, columns: Iterable[str]) -> set[int]:
    return {row[name] for row in side.values() for name in columns if row[name] is not None}


def _chains(persons: pa.Table, current: str, former: str) -> Callable[[int], int]:
    """For a number the name of the chain it is in; numbers that no row calls another's former one are by themselves."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while (above := parent.setdefault(number, number)) != number:
            parent[number] = number = parent[above]
        return number

    both = persons.select([current, former]).filter(
        pc.and_(pc.is_valid(persons[current]), pc.is_valid(persons[former]))
    )
    for one, other in zip(both[current].to_pylist(), both[former].to_pylist(), strict=True):
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return root


def _nulled(persons: pa.Table, name: str, numbers: AbstractSet[int]) -> pa.Table:
    if not numbers:
        return persons
    gone = pc.fill_null(pc.is_in(persons[name], value_set=pa.array(sorted(numbers), pa.int64())), False)
    kept = pc.if_else(gone, pa.scalar(None, pa.int64()), persons[name])
    return persons.set_column(persons.column_names.index(name), name, kept)


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
