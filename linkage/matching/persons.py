"""Match pairs to persons: the best links first, and never a cluster that breaks a rule; then ids that last."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import groupby

from linkage.matching.overrides import RecordKey

Record = int
Move = tuple[tuple[str, ...], tuple[str, ...]]
Strength = tuple[int, float]
"""Lower is stronger: 0 a person's must-link, 1 an identifier, 2 the model; then the match weight, negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Two records that are one person, if nothing forbids it."""

    left: Record
    right: Record
    strength: Strength


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What no cluster may break.  All are by record; a record that is not named is not bound.

    `source` is the flow of a record, left out where the flow may hold a person twice: a cluster has one record of each.
    `numbers` are a record's strong identifiers by scheme: two records that both have one must share one.
    `apart` are records that may never be one person (severed, must-not-link), `held` those that only a person may join.
    """

    source: Mapping[Record, int] = field(default_factory=dict)
    numbers: Mapping[Record, Mapping[str, frozenset[int]]] = field(default_factory=dict)
    apart: Mapping[Record, AbstractSet[Record]] = field(default_factory=dict)
    held: Mapping[Record, AbstractSet[Record]] = field(default_factory=dict)


@dataclass(slots=True)
class _Cluster:
    members: set[Record]
    sources: set[int]
    numbers: dict[str, set[frozenset[int]]]
    apart: set[Record]
    held: set[Record]

    def may_join(self, other: _Cluster, *, by_hand: bool) -> bool:
        """Whether the two break no rule as one; by a person's hand only what people have set apart counts."""
        if not self.apart.isdisjoint(other.members):
            return False
        if by_hand:
            return True
        return (
            self.sources.isdisjoint(other.sources)
            and self.held.isdisjoint(other.members)
            and all(
                not mine.isdisjoint(theirs)
                for scheme in self.numbers.keys() & other.numbers.keys()
                for mine in self.numbers[scheme]
                for theirs in other.numbers[scheme]
            )
        )

    def join(self, other: _Cluster) -> None:
        self.members |= other.members
        self.sources |= other.sources
        self.apart |= other.apart
        self.held |= other.held
        for scheme, sets in other.numbers.items():
            self.numbers.setdefault(scheme, set()).update(sets)


class Partition:
    """Clusters as they grow.  A record that no edge touches is a cluster by itself, and is not held here."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._of: dict[Record, _Cluster] = {}
        self.ties: list[Edge] = []
        """Edges dropped because others fitted equally well: for a person to look at."""

    def clusters(self) -> Iterator[frozenset[Record]]:
        """Each cluster that an edge has touched, once."""
        seen: set[int] = set()
        for cluster in self._of.values():
            if id(cluster) not in seen:
                seen.add(id(cluster))
                yield frozenset(cluster.members)

    def of(self, record: Record) -> AbstractSet[Record]:
        """The cluster a record is in."""
        cluster = self._of.get(record)
        return cluster.members if cluster else {record}

    def apart(self, left: Record, right: Record) -> bool:
        """Whether people have set the clusters of two records apart: there is nothing left to ask."""
        return not self._cluster(left).apart.isdisjoint(self._cluster(right).members)

    def may_join(self, left: Record, right: Record) -> bool:
        """Whether the clusters of two records could be one by the model."""
        return self._cluster(left).may_join(self._cluster(right), by_hand=False)

    def add(self, edges: Sequence[Edge]) -> None:
        """Add edges that are equally strong: all that can stand together, none of those that can't."""
        open_edges = [edge for edge in edges if self._cluster(edge.left) is not self._cluster(edge.right)]
        for component in self._components(open_edges):
            if self._stands(component):
                self._merge(component)
                continue
            unambiguous = self._without_ambiguous(component)
            for rest in self._components(unambiguous):
                if self._stands(rest):
                    self._merge(rest)
                else:
                    self.ties += rest

    def _cluster(self, record: Record) -> _Cluster:
        cluster = self._of.get(record)
        if cluster is None:
            rules = self._rules
            cluster = self._of[record] = _Cluster(
                members={record},
                sources={rules.source[record]} if record in rules.source else set(),
                numbers={scheme: {numbers} for scheme, numbers in rules.numbers.get(record, {}).items()},
                apart=set(rules.apart.get(record, ())),
                held=set(rules.held.get(record, ())),
            )
        return cluster

    def _components(self, edges: Sequence[Edge]) -> list[list[Edge]]:
        parent: dict[int, int] = {}

        def root(node: int) -> int:
            while (above := parent.setdefault(node, node)) != node:
                parent[node] = node = parent[above]
            return node

        ends = [(id(self._cluster(edge.left)), id(self._cluster(edge.right))) for edge in edges]
        for left, right in ends:
            parent[root(left)] = root(right)
        components: dict[int, list[Edge]] = defaultdict(list)
        for edge, (left, _) in zip(edges, ends, strict=True):
            components[root(left)].append(edge)
        return list(components.values())

    def _parts(self, edges: Iterable[Edge]) -> list[_Cluster]:
        parts: dict[int, _Cluster] = {}
        for edge in edges:
            for record in (edge.left, edge.right):
                cluster = self._cluster(record)
                parts[id(cluster)] = cluster
        return list(parts.values())

    def _stands(self, edges: Sequence[Edge]) -> bool:
        parts = self._parts(edges)
        by_hand = edges[0].strength[0] == 0
        return all(part.may_join(other, by_hand=by_hand) for n, part in enumerate(parts) for other in parts[n + 1 :])

    def _merge(self, edges: Sequence[Edge]) -> None:
        whole, *others = sorted(self._parts(edges), key=lambda cluster: -len(cluster.members))
        for other in others:
            whole.join(other)
            for record in other.members:
                self._of[record] = whole

    def _without_ambiguous(self, edges: Sequence[Edge]) -> list[Edge]:
        """The edges but those from a cluster to two others that it can't both join: they go to `ties`.

        An edge that can't stand even alone is not a tie; it is left out.
        """
        by_hand = edges[0].strength[0] == 0
        alone = [e for e in edges if self._cluster(e.left).may_join(self._cluster(e.right), by_hand=by_hand)]
        ends: dict[int, dict[int, _Cluster]] = defaultdict(dict)
        for edge in alone:
            left, right = self._cluster(edge.left), self._cluster(edge.right)
            ends[id(left)][id(right)] = right
            ends[id(right)][id(left)] = left
        torn: set[tuple[int, int]] = set()
        for centre, others in ends.items():
            around = list(others.values())
            for n, one in enumerate(around):
                for another in around[n + 1 :]:
                    if not one.may_join(another, by_hand=by_hand):
                        torn |= {(centre, id(one)), (centre, id(another))}
        kept: list[Edge] = []
        for edge in alone:
            left_id, right_id = id(self._cluster(edge.left)), id(self._cluster(edge.right))
            if (left_id, right_id) in torn or (right_id, left_id) in torn:
                self.ties.append(edge)
            else:
                kept.append(edge)
        return kept


def cluster(edges: Iterable[Edge], rules: Rules) -> Partition:
    """The partition by best links first; edges of one strength are taken together, so their order does not matter."""
    partition = Partition(rules)
    for _, group in groupby(sorted(edges, key=lambda edge: edge.strength), key=lambda edge: edge.strength):
        partition.add(list(group))
    return partition


def keep_ids(
    clusters: Sequence[Sequence[RecordKey]], previous: Mapping[RecordKey, str], new_id: Callable[[], str]
) -> list[str]:
    """An id for each cluster, in order: the old id with which it shares most records, each kept once.

    Ties go to the lowest id, then to the cluster with the lowest record; the rest get `new_id()`.
    """
    claims: list[tuple[int, str, RecordKey, int]] = []
    for n, records in enumerate(clusters):
        shared = Counter(previous[key] for key in records if key in previous)
        claims += [(-count, old, min(records), n) for old, count in shared.items()]
    given: dict[int, str] = {}
    taken: set[str] = set()
    for _, old, _, n in sorted(claims):
        if n not in given and old not in taken:
            given[n] = old
            taken.add(old)
    return [given[n] if n in given else new_id() for n in range(len(clusters))]


def changes(before: Mapping[RecordKey, str], after: Mapping[RecordKey, str]) -> tuple[list[Move], list[Move]]:
    """Merges and splits, each as the ids before and the ids after; a person that only gained a record is neither."""
    into: dict[str, set[str]] = defaultdict(set)
    out_of: dict[str, set[str]] = defaultdict(set)
    for key, now in after.items():
        if (old := before.get(key)) is not None:
            into[now].add(old)
            out_of[old].add(now)
    merges: list[Move] = [(tuple(sorted(olds)), (now,)) for now, olds in sorted(into.items()) if len(olds) > 1]
    splits: list[Move] = [((old,), tuple(sorted(now))) for old, now in sorted(out_of.items()) if len(now) > 1]
    return merges, splits
