"""What people have decided about pairs of records: sever, must-not-link, must-link; in this order, before any model.

A sever (an adoption) must hold by every path.  Each has its own bar, and a run needs them all:

    one cluster, or a third record between   `apart` binds whole clusters (`persons.Rules`)
    a number that leads from one to the other `bridges`: former numbers and shared ones are taken out
    an old name or address as another row     `bridges`: rows that repeat the other side say something else
    family, household, anyone between         `families.families` cuts every path of edges
    a search that fits both                   `search.Index`: the better side alone, or neither
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

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
                groups[row["agency"], row["sever_ref"]].add((row["agency"], row["flow"], row["record_ref"]))
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
