"""What people have decided about pairs of records: sever, must-not-link, must-link; in this order, before any model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import pyarrow as pa

RecordKey = tuple[str, str, str]
"""A record is named by its agency, its flow and the agency's own `record_ref`."""
RecordPair = tuple[RecordKey, RecordKey]


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
        columns = (persons[name].to_pylist() for name in ("agency", "flow", "record_ref", "sever_ref"))
        for agency, flow, ref, marker in zip(*columns, strict=True):
            if marker:
                groups[agency, marker].add((agency, flow, ref))
        marked = {pair for group in groups.values() for pair in combinations(sorted(group), 2)}
        return replace(self, sever=self.sever | marked)

    def kept_apart(self) -> dict[RecordKey, set[RecordKey]]:
        """For each record, those it may share no person with."""
        return neighbours(self.sever | self.must_not_link)


def neighbours(pairs: Iterable[RecordPair]) -> dict[RecordKey, set[RecordKey]]:
    """For each record of a pair, those at the other end."""
    others: dict[RecordKey, set[RecordKey]] = defaultdict(set)
    for left, right in pairs:
        others[left].add(right)
        others[right].add(left)
    return dict(others)
