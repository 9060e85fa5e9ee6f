"""The clusters of a run as numbers: whose each record is, and which record a row names.

What counts or draws a million records (rates, families, gates) joins numbers here instead of names of a hundred
characters each.  Names are found by two digests of 64 bits and by their flow, as in `numbering`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Flags, Ints, contains, looked_up, order_of
from linkage.matching.digests import Digests
from linkage.matching.numbering import name_digests
from linkage.matching.texts import texts_at, texts_in_order, whole

if TYPE_CHECKING:
    from linkage.matching.link import Linkage

FEW: Final = 8  # times as many are searched for this many by a look at each
Flow = tuple[str, str]
"""Agency and flow."""


@dataclass(frozen=True, kw_only=True)
class Members:
    """Records by their rows in `clusters`, persons by their place in `people`, flows by theirs in `sources`, in order.

    `person` and `source` are by record.
    """

    people: pa.Array
    sources: tuple[Flow, ...]
    person: Ints
    source: Ints
    clusters: Callable[[], pa.Table]
    names: tuple[Digests, Digests] | None = None  # two digests of each name, where they are known

    @classmethod
    def of(cls, clusters: pa.Table) -> Members:
        """Those of a table of CLUSTERS."""
        sources = flows_of(clusters)
        coded = pc.dictionary_encode(whole(clusters["person_id"]))
        rank, people = _ranked(coded.dictionary)
        return cls(
            people=people, sources=sources, person=rank[coded.indices.to_numpy()],
            source=flow_codes(clusters, sources), clusters=lambda: clusters,
        )  # fmt: skip

    @classmethod
    def of_run(cls, linkage: Linkage) -> Members:
        """Those of a run, by its own numbers: no name is read."""
        return cls(
            people=linkage.people, sources=linkage.sources, person=linkage.person,
            source=linkage.source.astype(np.int64), clusters=lambda: linkage.clusters,
            names=linkage.names,
        )  # fmt: skip

    @cached_property
    def _names(self) -> tuple[Ints, Digests, Digests]:
        """Records in order of the first digest of their names, these digests, and by record the second."""
        first, second = self.names or _digests(self.clusters(), "record_ref")
        order = order_of(first)
        return order, first[order], second

    def places(self, named: pa.Table, ref: str = "record_ref") -> Ints:
        """The record that each row of a table names by `agency`, `flow` and the column `ref`; -1 if there is none."""
        if not len(self.person) or not named.num_rows:
            return np.full(named.num_rows, -1, np.int64)
        first, second = _digests(named, ref)
        if self.names is not None and len(first) * FEW < len(self.person):
            found, others = looked_up(self.names[0], first), self.names[1]
        else:
            order, known, others = self._names
            asked = order_of(first)  # in order, a search finds its neighbours in the cache
            there, at = contains(known, first[asked])
            found = np.full(len(first), -1, np.int64)
            found[asked[there]] = order[at[there]]
        wrong = (others[found] != second) | (self.source[found] != flow_codes(named, self.sources))
        if named[ref].null_count:
            wrong |= pc.is_null(named[ref]).to_numpy()
        found[wrong] = -1
        return found

    def sharing(self) -> int:
        """How many records share their person with another."""
        return int((np.bincount(self.person)[self.person] > 1).sum())

    def known_elsewhere(self) -> Flags:
        """By record: whether its person has a record of another flow too."""
        one = np.zeros(len(self.people), np.int64)
        one[self.person] = self.source  # any of its flows
        elsewhere = np.zeros(len(self.people), np.bool_)
        elsewhere[self.person[self.source != one[self.person]]] = True
        known: Flags = elsewhere[self.person]
        return known


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Rows that name records: by row the record it names (-1: none), as a place in `members`."""

    members: Members
    record: Ints

    @classmethod
    def of(cls, clusters: pa.Table, named: pa.Table) -> Placed:
        """The rows of `named` among the records of `clusters`."""
        members = Members.of(clusters)
        return cls(members=members, record=members.places(named))

    @classmethod
    def of_run(cls, linkage: Linkage) -> Placed:
        """The rows that a run was made of, among its records."""
        return cls(members=Members.of_run(linkage), record=linkage.placed.astype(np.int64))


def _ranked(ids: pa.Array) -> tuple[Ints, pa.Array]:
    """The place of each id in their order, and the ids in it."""
    order = texts_in_order(ids)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank, texts_at(ids, order)


def first_rows(places: Ints, records: int) -> Ints:
    """The first row of each record, in order of record; a record without a row is left out."""
    first = np.full(records, -1, np.int64)
    rows = np.flatnonzero(places >= 0)[::-1]
    first[places[rows]] = rows  # the last to be written is the first
    return first[first >= 0]


def flow_codes(table: pa.Table, sources: tuple[Flow, ...]) -> Ints:
    """The place of each row's flow in `sources`; -1 for another."""
    codes, pairs = _pairs(table)
    known: Mapping[Flow, int] = {source: place for place, source in enumerate(sources)}
    return np.array([known.get(pair, -1) for pair in pairs], np.int64)[codes]


def flows_of(table: pa.Table) -> tuple[Flow, ...]:
    """The flows that a table names in `agency` and `flow`, in order."""
    codes, pairs = _pairs(table)
    return tuple(sorted(pairs[code] for code in np.unique(codes).tolist()))


def _pairs(table: pa.Table) -> tuple[Ints, list[Flow]]:
    """By row, the place of its agency and flow in a list of all pairs that there could be."""
    agency, flow = (pc.dictionary_encode(whole(table[name])) for name in ("agency", "flow"))
    flows = flow.dictionary.to_pylist()
    codes = agency.indices.to_numpy().astype(np.int64) * len(flows) + flow.indices.to_numpy()
    return codes, [(one, other) for one in agency.dictionary.to_pylist() for other in flows]


def _digests(named: pa.Table, ref: str) -> tuple[Digests, Digests]:
    """Two digests of the name of each row's record: by both together no two names are taken for one."""
    return name_digests(named["agency"], named["flow"], named[ref])
