"""Persons, relationships and household tokens to the family network: typed, dated, sourced edges between persons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from itertools import combinations
from typing import Any, Final

import pyarrow as pa

from linkage.matching.overrides import Overrides, RecordKey

HOUSEHOLD_CAP: Final = 12  # persons under one token: more are a hostel, a refuge or a mistake, and no family
MUTUAL: Final = ("sibling", "household", "partner")  # types that read the same from both ends: person_a < person_b

FAMILY: Final = pa.schema(
    [
        ("person_a", pa.string()),  # person_a is the <type> of person_b
        ("person_b", pa.string()),
        ("type", pa.string()),
        ("agency", pa.string()),
        ("flow", pa.string()),
        ("verified", pa.bool_()),
        ("valid_from", pa.date32()),
        ("valid_to", pa.date32()),
    ]
)

Edge = tuple[str, str, str, str, str, bool | None, date | None, date | None]


def families(clusters: pa.Table, relationships: pa.Table, *, overrides: Overrides | None = None) -> pa.Table:
    """Family edges between persons, as agencies stated them; `relationships` are the wire's with `agency` and `flow`.

    Nothing is inferred from names.  `household` joins those under one household token, of any agency, unless more
    than HOUSEHOLD_CAP persons are; such an edge has the agency and flow of both ends' statements, a row each.  No path
    of edges leads from one side of a severed pair to the other: pass `Overrides.with_markers(persons)`.
    """
    keys = zip(*(clusters[name].to_pylist() for name in ("agency", "flow", "record_ref")), strict=True)
    person: dict[RecordKey, str] = dict(zip(keys, clusters["person_id"].to_pylist(), strict=True))
    stated: set[Edge] = set()
    homes: dict[int, dict[str, set[tuple[str, str]]]] = defaultdict(lambda: defaultdict(set))
    for row in relationships.to_pylist():
        one = person.get((row["agency"], row["flow"], row["ref_a"]))
        if one is None:
            continue
        if row["type"] == "household" and row["household"] is not None:
            homes[row["household"]][one].add((row["agency"], row["flow"]))
            continue
        other = person.get((row["agency"], row["flow"], row["ref_b"]))
        if other is not None and other != one:
            stated.add(_edge(one, other, row))
    stated |= _living_together(homes)
    cut = _cut(stated, _severed_persons(overrides or Overrides(), person))
    rows = sorted((edge for edge in stated if (edge[0], edge[1]) not in cut), key=lambda edge: tuple(map(str, edge)))
    return pa.Table.from_pylist([dict(zip(FAMILY.names, edge, strict=True)) for edge in rows], schema=FAMILY)


def _edge(one: str, other: str, row: Mapping[str, Any]) -> Edge:
    if row["type"] in MUTUAL:
        one, other = sorted((one, other))
    return (
        one, other, row["type"], row["agency"], row["flow"], row["verified"], row["valid_from"], row["valid_to"],
    )  # fmt: skip


def _living_together(homes: Mapping[int, Mapping[str, AbstractSet[tuple[str, str]]]]) -> set[Edge]:
    return {
        (one, other, "household", agency, flow, None, None, None)
        for sources in homes.values()
        if len(sources) <= HOUSEHOLD_CAP
        for one, other in combinations(sorted(sources), 2)
        for agency, flow in sources[one] | sources[other]
    }


def _severed_persons(overrides: Overrides, person: Mapping[RecordKey, str]) -> set[tuple[str, str]]:
    pairs = ((person.get(left), person.get(right)) for left, right in overrides.sever)
    return {(one, other) for one, other in pairs if one is not None and other is not None and one != other}


def _cut(edges: Iterable[Edge], severed: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Pairs of persons whose edges must go, so that neither side of a severed pair can be reached from the other.

    Of both sides, the edges through which the other can be reached: which of them is the wrong one, nobody here knows.
    """
    around: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        around[edge[0]].add(edge[1])
        around[edge[1]].add(edge[0])
    cut: set[tuple[str, str]] = set()
    for one, other in sorted(severed):
        bridges = [
            (end, neighbour)
            for end, far in ((one, other), (other, one))
            for neighbour in around.get(end, ())
            if far in _reach(around, neighbour, without=end)
        ]
        for end, neighbour in bridges:
            around[end].discard(neighbour)
            around[neighbour].discard(end)
            cut |= {(end, neighbour), (neighbour, end)}
    return cut


def _reach(around: Mapping[str, AbstractSet[str]], start: str, *, without: str) -> set[str]:
    """All that can be reached from `start` and not through `without`."""
    seen = {start, without}
    queue: list[str] = [start]
    while queue:
        for neighbour in around.get(queue.pop(), ()):
            if neighbour not in seen:
                seen.add(neighbour)
                queue.append(neighbour)
    return seen - {without}


def neighbours_of(family: pa.Table) -> dict[str, Sequence[int]]:
    """For each person the row numbers of their edges."""
    rows: dict[str, list[int]] = defaultdict(list)
    for n, ends in enumerate(zip(family["person_a"].to_pylist(), family["person_b"].to_pylist(), strict=True)):
        for end in ends:
            rows[end].append(n)
    return dict(rows)
