"""Persons, relationships and household tokens to the family network: typed, dated, sourced edges between persons.

An edge is what an agency stated; nothing is inferred from names, and nobody decides here which of two agencies is
right.  What is not drawn is counted (FINDINGS): records that are not there, a person who would be their own relative,
households and families larger than any, and what a sever cuts.  What contradicts is drawn, and listed (CONFLICTS).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.facts import Facts
from linkage.matching.kin import (
    CODES,
    DECADE,
    EXCLUSIVE,
    FOR_GOOD,
    HOUSEHOLD_CAP,
    LEAST_GAP,
    LIMITS,
    MUTUAL,
    PARENTAL,
    TYPES,
    Rows,
    kin,
)
from linkage.matching.lazily import Lazy
from linkage.matching.members import Members, Placed, flows_of
from linkage.matching.numbering import Ends
from linkage.matching.overrides import Overrides, RecordPair
from linkage.matching.severing import cut_edges

__all__ = [
    "CONFLICTS", "DISAGREEMENTS", "FAMILY", "FINDINGS", "HOUSEHOLD_CAP", "LIMITS", "NOT_DRAWN", "Known", "Network",
    "Statement", "cut_edges", "disagreements", "families", "family_of", "neighbours_of", "network", "severed_persons",
]  # fmt: skip

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
CONFLICTS: Final = pa.schema([("code", pa.string()), *FAMILY])
"""A row for each statement and each way in which another, or a year of birth, contradicts it: see DISAGREEMENTS."""
FINDINGS: Final = pa.schema(
    [
        ("code", pa.string()),
        ("type", pa.string()),
        ("agency", pa.string()),
        ("flow", pa.string()),
        ("statements", pa.int64()),
    ]
)
"""Counts by what was found, kind of relationship and flow; nothing about one person."""

NOT_DRAWN: Final = {
    "record_unknown": "one of the two records is not held, or no longer",
    "same_person": "both records are one person",
    "household_too_large": f"more than {HOUSEHOLD_CAP} persons at one address",
    "too_many": "more relatives of this kind than one person has",
    "severed": "it would lead from one side of a severed pair to the other",
}
DISAGREEMENTS: Final = {
    "parents_differ": "different birth parents are named",
    "too_young": "by the years of birth one cannot be the parent of the other",
    "relation_differs": "two relationships are stated that cannot both be right",
    "carer_or_parent": "one calls the person a carer and another a birth parent",
    "ended_or_current": "by one this has ended and by another it goes on",
}
RECORD: Final = ("agency", "flow", "record_ref")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The family network of one run: tables of FAMILY, CONFLICTS and FINDINGS."""

    edges: pa.Table
    conflicts: pa.Table
    findings: pa.Table

    def counts(self) -> dict[str, int]:
        """Statements not drawn, by why, and statements that contradict, by how; only what there is any of."""
        found: dict[str, int] = defaultdict(int)
        for code, statements in zip(
            self.findings["code"].to_pylist(), self.findings["statements"].to_pylist(), strict=True
        ):
            found[code] += statements
        return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """That person `a` is the `type` of person `b`, by one source (agency and flow); a MUTUAL one may be either way."""

    a: str
    b: str
    type: str
    source: tuple[str, str]
    until: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a person beside: the least and the greatest year of birth of their records, and the sex if
    all say the same."""

    born: tuple[int, int] | None = None
    sex: str | None = None


def families(
    clusters: pa.Table, relationships: pa.Table, *, overrides: Overrides | None = None, persons: pa.Table | None = None
) -> pa.Table:
    """The edges of `network`: a table of FAMILY."""
    return network(clusters, relationships, overrides=overrides, persons=persons).edges


def network(
    clusters: pa.Table | None,
    relationships: pa.Table | Lazy,
    *,
    overrides: Overrides | None = None,
    persons: pa.Table | Lazy | None = None,
    placed: Placed | None = None,
    memory_limit: str = "3GB",
    threads: int = 2,
) -> Network:
    """Family edges between persons, as agencies stated them; `relationships` are the wire's with `agency` and `flow`.

    `household` joins those under one household token, of any agency, unless more than HOUSEHOLD_CAP persons are; such
    an edge has the agency and flow of both ends' statements, a row each, and lasts while both are there.  No path of
    edges leads from one side of a severed pair to the other: pass `Overrides.with_markers(persons)`.  Years of birth
    and sex for the conflicts are those of `persons` (agency, flow, record_ref, birth_year, sex); `placed` are its
    rows among `clusters`, where that is known already, and these are then not needed.
    A night makes the same of what it knows by number, and of what is new: see `kin`.
    """
    if placed is None:
        if clusters is None:
            raise ValueError("whose the records are: by clusters, or by where rows are placed")
        placed = Placed.of(clusters, (clusters if persons is None else persons).select(list(RECORD)))
    members = placed.members
    sources = tuple(sorted({*members.sources, *flows_of(relationships)}))
    rows = None
    if persons is not None:
        facts = Facts(kinds=persons.select(["birth_year", "sex"]), of=np.arange(persons.num_rows, dtype=np.int32))
        rows = Rows(record=placed.record, facts=facts)
    severed = severed_persons(members, (overrides or Overrides()).sever)
    found = kin(
        members.person, sources, relationships, _ends(members, relationships), rows, severed,
        memory_limit=memory_limit, threads=threads,
    )  # fmt: skip
    edges = found.edges.filter(pc.invert(found.edges["cut"]))
    return Network(
        edges=_sorted(family_of(edges, members.people, sources)),
        conflicts=_sorted(family_of(found.conflicts, members.people, sources)).select(CONFLICTS.names).cast(CONFLICTS),
        findings=pa.table(
            [[one[n] for one in found.findings] for n in (0, 1)]
            + [[sources[one[2]][n] for one in found.findings] for n in (0, 1)]
            + [[one[3] for one in found.findings]],
            schema=FINDINGS,
        ),
    )


def family_of(edges: pa.Table, people: pa.Array, sources: Sequence[tuple[str, str]]) -> pa.Table:
    """Edges by number (`kin.EDGES`, `kin.CONFLICTS_BY_NUMBER`) with the names of persons and flows: of FAMILY."""
    one, other = (people.take(edges[name].combine_chunks()) for name in "ab")
    mutual = pc.is_in(edges["type"], value_set=pa.array([TYPES.index(kind) for kind in MUTUAL], pa.int8()))
    turned = pc.and_(mutual, pc.greater(pa.chunked_array([one]), pa.chunked_array([other])))
    flows = [pa.array([source[n] for source in sources], pa.string()) for n in (0, 1)]
    columns = {
        "person_a": pc.if_else(turned, other, one), "person_b": pc.if_else(turned, one, other),
        "type": pa.array(TYPES).take(edges["type"].combine_chunks()),
        **{name: flow.take(edges["s"].combine_chunks()) for name, flow in zip(("agency", "flow"), flows, strict=True)},
        **{name: edges[name] for name in ("verified", "valid_from", "valid_to")},
    }  # fmt: skip
    if "code" in edges.column_names:
        return pa.table({"code": pa.array(CODES).take(edges["code"].combine_chunks()), **columns}, schema=CONFLICTS)
    return pa.table(columns, schema=FAMILY)


def severed_persons(members: Members, severed: Iterable[RecordPair]) -> list[tuple[int, int]]:
    """The persons of both sides of severed pairs, of which both records are held."""
    pairs = sorted(severed)
    if not pairs:
        return []
    left, right = (
        members.places(
            pa.table({name: pa.array([pair[side][n] for pair in pairs], pa.string()) for n, name in enumerate(RECORD)})
        )
        for side in (0, 1)
    )
    held = (left >= 0) & (right >= 0)
    return list(zip(members.person[left[held]].tolist(), members.person[right[held]].tolist(), strict=True))


def _ends(members: Members, relationships: pa.Table | Lazy) -> Ends:
    """The records that relationships name."""
    home = pc.and_(pc.equal(relationships["type"], "household"), pc.is_valid(relationships["household"]))
    lived = np.asarray(pc.fill_null(home, False).to_numpy(), np.bool_)
    b = members.places(relationships.select(["agency", "flow", "ref_b"]), "ref_b")
    return Ends(
        a=members.places(relationships.select(["agency", "flow", "ref_a"]), "ref_a").astype(np.int32),
        b=np.where(lived, -1, b).astype(np.int32),
        home=np.asarray(pc.fill_null(relationships["household"], 0).to_numpy(), np.int64),
        lived=lived,
    )


def _sorted(found: pa.Table) -> pa.Table:
    """In order of names."""
    order = [*(name for name in FAMILY.names if name not in ("agency", "flow", "type")), "code"]
    order = ["person_a", "person_b", "type", "agency", "flow", *order[2:]]
    return found.sort_by([(name, "ascending") for name in order if name in found.column_names])


def disagreements(statements: Sequence[Statement], known: Mapping[str, Known]) -> list[frozenset[str]]:
    """For each of these few statements the codes of what contradicts it (DISAGREEMENTS), by these statements alone.

    For a view, which may know no more than what is shown; over a whole run `network` finds the same.
    """
    statements = [
        replace(one, a=min(one.a, one.b), b=max(one.a, one.b)) if one.type in MUTUAL else one for one in statements
    ]
    said: dict[tuple[str, str, str], set[tuple[str, str]]] = defaultdict(set)  # a, b, type -> sources
    parents: dict[str, set[str]] = defaultdict(set)
    lasts: dict[tuple[str, str, str], dict[tuple[str, str], bool]] = defaultdict(dict)
    for one in statements:
        what = (one.a, one.b, one.type)
        said[what].add(one.source)
        lasts[what][one.source] = lasts[what].get(one.source, False) or one.until is None
        if one.type == "birth_parent":
            parents[one.b].add(one.a)
    return [
        frozenset(
            code
            for code, holds in (
                ("parents_differ", _other_parents(one, said, parents[one.b], known)),
                ("too_young", _too_young(one, known)),
                ("relation_differs", _exclusive(one, said)),
                ("carer_or_parent", _carer_or_parent(one, said)),
                ("ended_or_current", _ended_or_current(one, lasts[one.a, one.b, one.type])),
            )
            if holds
        )
        for one in statements
    ]


def neighbours_of(family: pa.Table) -> dict[str, Sequence[int]]:
    """For each person the row numbers of their edges."""
    rows: dict[str, list[int]] = defaultdict(list)
    for n, ends in enumerate(zip(family["person_a"].to_pylist(), family["person_b"].to_pylist(), strict=True)):
        for end in ends:
            rows[end].append(n)
    return dict(rows)


def _other_parents(
    one: Statement,
    said: Mapping[tuple[str, str, str], Collection[tuple[str, str]]],
    parents: Collection[str],
    known: Mapping[str, Known],
) -> bool:
    if one.type != "birth_parent":
        return False
    if len(parents) > 2:
        return True
    sex = known.get(one.a, Known()).sex
    named_by = set(said[one.a, one.b, one.type])
    return any(
        other != one.a
        and sex is not None
        and known.get(other, Known()).sex == sex
        and named_by.isdisjoint(said[other, one.b, one.type])  # who names both knows of both
        for other in parents
    )


def _too_young(one: Statement, known: Mapping[str, Known]) -> bool:
    older, younger = known.get(one.a, Known()).born, known.get(one.b, Known()).born
    gap = LEAST_GAP.get(one.type)
    return gap is not None and older is not None and younger is not None and _latest(younger[1]) - older[0] < gap


def _latest(year: int) -> int:
    """The last year that a told year of birth may stand for."""
    return year if year % DECADE else year + DECADE - 1


def _exclusive(one: Statement, said: Mapping[tuple[str, str, str], object]) -> bool:
    if one.type in PARENTAL and any((one.b, one.a, kind) in said for kind in PARENTAL):
        return True
    return any(
        (*ends, kind) in said
        for pair in EXCLUSIVE
        if one.type in pair
        for kind in pair - {one.type}
        for ends in ((one.a, one.b), (one.b, one.a))
    )


def _carer_or_parent(one: Statement, said: Mapping[tuple[str, str, str], Collection[tuple[str, str]]]) -> bool:
    other = {"carer": "birth_parent", "birth_parent": "carer"}.get(one.type)
    theirs = said.get((one.a, one.b, other), ()) if other else ()
    return bool(theirs) and set(theirs).isdisjoint(said[one.a, one.b, one.type])


def _ended_or_current(one: Statement, goes_on: Mapping[tuple[str, str], bool]) -> bool:
    return one.type not in (*FOR_GOOD, "household") and len(set(goes_on.values())) > 1
