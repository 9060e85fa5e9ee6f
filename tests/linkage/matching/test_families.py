"""The family network: who is drawn as whose family, what is left out and counted, and what contradicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from itertools import chain, combinations
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linkage.matching.families import (
    CONFLICTS,
    DISAGREEMENTS,
    FAMILY,
    FINDINGS,
    HOUSEHOLD_CAP,
    LIMITS,
    NOT_DRAWN,
    Known,
    Network,
    Statement,
    cut_edges,
    disagreements,
    network,
)
from linkage.matching.link import CLUSTERS
from linkage.matching.overrides import Overrides
from linkage.records import RELATIONSHIP_TYPES, RELATIONSHIPS_SCHEMA
from tests.linkage.matching.people import EDUCATION, HEALTH, PERSONS, SOCIAL_CARE

Source = tuple[str, str]
Row = dict[str, object]
KNOWN = pa.schema([*CLUSTERS.remove(3), pa.field("birth_year", pa.int32()), pa.field("sex", pa.string())])


def clusters(*people: str, sources: Iterable[Source] = (SOCIAL_CARE, HEALTH, PERSONS)) -> pa.Table:
    """Persons of whom each source has one record, whose reference is the person's name."""
    rows = [(agency, flow, name, name) for name in people for agency, flow in sources]
    return pa.Table.from_pylist([dict(zip(CLUSTERS.names, row, strict=True)) for row in rows], schema=CLUSTERS)


def stated(*rows: Row) -> pa.Table:
    """Relationships as the wire has them, with agency and flow."""
    schema = pa.schema([*RELATIONSHIPS_SCHEMA, pa.field("agency", pa.string()), pa.field("flow", pa.string())])
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def tie(a: str, kind: str, b: str, source: Source = SOCIAL_CARE, **more: object) -> Row:
    return {"ref_a": a, "type": kind, "ref_b": b, "agency": source[0], "flow": source[1], "verified": False, **more}


def lives(who: str, household: int = 7, source: Source = SOCIAL_CARE, **more: object) -> Row:
    return {"ref_a": who, "type": "household", "household": household, "agency": source[0], "flow": source[1], **more}


def known(**people: tuple[int | None, str | None]) -> pa.Table:
    """Year of birth and sex of persons, as social care has them."""
    rows = [(*SOCIAL_CARE, name, year, sex) for name, (year, sex) in people.items()]
    return pa.Table.from_pylist([dict(zip(KNOWN.names, row, strict=True)) for row in rows], schema=KNOWN)


def drawn(found: Network) -> set[tuple[str, str, str]]:
    return {(row["person_a"], row["type"], row["person_b"]) for row in found.edges.to_pylist()}


def codes(found: Network) -> dict[tuple[str, str, str], set[str]]:
    """What contradicts each relationship, whoever states it."""
    said: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for row in found.conflicts.to_pylist():
        said[row["person_a"], row["type"], row["person_b"]].add(row["code"])
    return dict(said)


def test_an_edge_is_what_each_source_stated_once_with_its_dates_and_whether_it_was_verified() -> None:
    mother = tie("mum", "birth_parent", "kit", verified=True, valid_from=date(2019, 9, 21))
    found = network(clusters("mum", "kit"), stated(mother, mother, tie("mum", "birth_parent", "kit", HEALTH)))
    assert found.edges.schema == FAMILY
    assert found.edges.to_pylist() == [
        dict(zip(FAMILY.names, ("mum", "kit", "birth_parent", *SOCIAL_CARE, True, date(2019, 9, 21), None), strict=True)),
        dict(zip(FAMILY.names, ("mum", "kit", "birth_parent", *HEALTH, False, None, None), strict=True)),
    ]  # fmt: skip
    assert found.counts() == {}


def test_relationships_are_of_persons_whichever_record_states_them_and_mutual_ones_read_one_way() -> None:
    people = pa.concat_tables([clusters("kit", "robin"), clusters("robin", sources=[EDUCATION])])
    found = network(people, stated(tie("robin", "sibling", "kit"), tie("kit", "sibling", "robin", HEALTH)))
    assert drawn(found) == {("kit", "sibling", "robin")}
    assert found.edges["agency"].to_pylist() == sorted([SOCIAL_CARE[0], HEALTH[0]])


def test_those_of_one_household_are_joined_across_agencies_for_as_long_as_both_are_there() -> None:
    found = network(
        clusters("dad", "kit", "mum"),
        stated(
            lives("mum", valid_from=date(2015, 1, 1)),
            lives("kit", source=HEALTH, valid_from=date(2019, 9, 21)),
            lives("dad", valid_from=date(2015, 1, 1), valid_to=date(2020, 2, 2)),
            lives("dad", 8),
        ),
    )
    times = {
        (row["person_a"], row["person_b"]): (row["valid_from"], row["valid_to"]) for row in found.edges.to_pylist()
    }
    assert times == {
        ("dad", "kit"): (date(2019, 9, 21), date(2020, 2, 2)),
        ("dad", "mum"): (date(2015, 1, 1), date(2020, 2, 2)),
        ("kit", "mum"): (date(2019, 9, 21), None),
    }
    sources = {row["agency"] for row in found.edges.to_pylist() if row["person_b"] == "kit"}
    assert sources == {SOCIAL_CARE[0], HEALTH[0]}


def test_who_left_before_the_other_came_still_lived_there_and_does_no_more() -> None:
    """It is ended, so no view draws it; a shield of the one still lies over the other."""
    rows = stated(lives("dad", valid_to=date(2015, 2, 2)), lives("kit", valid_from=date(2019, 1, 1)))
    (edge,) = network(clusters("dad", "kit"), rows).edges.to_pylist()
    assert (edge["valid_from"], edge["valid_to"]) == (None, date(2015, 2, 2))


def test_a_household_of_one_person_more_than_the_cap_is_not_drawn_and_is_counted_by_who_stated_it() -> None:
    family = [f"p{n:02d}" for n in range(HOUSEHOLD_CAP)]
    for people, edges in ((family, 66), ([*family, "one more"], 0)):
        rows = [lives(name, source=SOCIAL_CARE if name < "p03" else HEALTH) for name in people]
        found = network(clusters(*people), stated(*rows))
        assert len(drawn(found)) == edges
    assert found.findings.schema == FINDINGS
    assert found.findings.to_pylist() == [
        dict(zip(FINDINGS.names, ("household_too_large", "household", *source, n), strict=True))
        for source, n in ((SOCIAL_CARE, 4), (HEALTH, 9))
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in LIMITS if kind != "household"])
def test_more_relatives_than_one_person_has_are_not_drawn_and_are_counted(kind: str) -> None:
    of, by = LIMITS[kind]
    for most, ties in (
        (of, lambda n: tie("x", kind, f"p{n:02d}")),
        (by, lambda n: tie(f"p{n:02d}", kind, "x")),
    ):
        for count in (most, most + 1):
            people = [f"p{n:02d}" for n in range(count)]
            found = network(clusters("x", "y", *people), stated(tie("y", kind, "p00"), *map(ties, range(count))))
            left = {edge for edge in drawn(found) if "x" in edge}
            assert len(left) == (count if count == most else 0)
            assert any("y" in edge for edge in drawn(found))
            assert found.counts().get("too_many", 0) == count - len(left)


def test_nothing_is_left_out_in_silence() -> None:
    people = pa.concat_tables([clusters("mum", "kit"), clusters("kit", sources=[EDUCATION])])
    one_person = pa.Table.from_pylist(
        [dict(zip(CLUSTERS.names, (*SOCIAL_CARE, "kit, again", "kit"), strict=True))], schema=CLUSTERS
    )
    rows = [
        tie("gone", "birth_parent", "kit"), tie("kit", "birth_parent", "gone"), lives("gone"),
        tie("kit, again", "sibling", "kit"), tie("mum", "birth_parent", "kit"),
    ]  # fmt: skip
    found = network(pa.concat_tables([people, one_person]), stated(*rows))
    assert drawn(found) == {("mum", "birth_parent", "kit")}
    assert found.counts() == {"record_unknown": 3, "same_person": 1}
    assert set(found.counts()) < set(NOT_DRAWN)


# --- Conflicts -------------------------------------------------------------------------------------------------------

ADULTS = known(ann=(1985, "F"), bea=(1986, "F"), carl=(1984, "M"), kit=(2015, "M"))


def test_two_agencies_that_name_two_birth_mothers_disagree_and_both_are_shown() -> None:
    rows = [tie("ann", "birth_parent", "kit"), tie("bea", "birth_parent", "kit", HEALTH),
            tie("carl", "birth_parent", "kit", HEALTH)]  # fmt: skip
    found = network(clusters("ann", "bea", "kit"), stated(*rows[:2]), persons=ADULTS)
    assert found.conflicts.schema == CONFLICTS
    assert [(row["code"], row["person_a"], row["agency"]) for row in found.conflicts.to_pylist()] == [
        ("parents_differ", "ann", SOCIAL_CARE[0]), ("parents_differ", "bea", HEALTH[0]),
    ]  # fmt: skip
    assert found.edges.num_rows == 2
    assert found.counts() == {"parents_differ": 2}
    with_father = network(clusters("ann", "bea", "carl", "kit"), stated(*rows), persons=ADULTS)
    assert len(codes(with_father)) == 3


def test_a_mother_and_a_father_by_two_agencies_or_two_mothers_by_one_are_no_conflict() -> None:
    people = clusters("ann", "bea", "carl", "kit")
    by_two = stated(tie("ann", "birth_parent", "kit"), tie("carl", "birth_parent", "kit", HEALTH))
    by_one = stated(tie("ann", "birth_parent", "kit"), tie("bea", "birth_parent", "kit"), tie("bea", "birth_parent", "kit", HEALTH))  # fmt: skip
    for rows in (by_two, by_one):
        assert network(people, rows, persons=ADULTS).conflicts.num_rows == 0


@pytest.mark.parametrize(("kind", "years", "contradicts"), [
    ("birth_parent", 12, False), ("birth_parent", 11, True), ("birth_parent", -20, True), ("step_parent", 8, False),
    ("step_parent", 0, True), ("parental_responsibility", -1, True), ("carer", -30, False), ("sibling", 30, False),
])  # fmt: skip
def test_a_parent_is_older_than_the_child_and_a_carer_may_be_a_child(kind: str, years: int, contradicts: bool) -> None:
    people = known(old=(2005 - years, None), young=(2005, None))
    found = network(clusters("old", "young"), stated(tie("old", kind, "young")), persons=people)
    assert codes(found) == ({("old", kind, "young"): {"too_young"}} if contradicts else {})


def test_a_parent_of_one_decade_before_may_be_old_enough() -> None:
    people = known(old=(1960, None), young=(1970, None))  # of grown-ups the decade is told: 1961 and 1979, perhaps
    assert codes(network(clusters("old", "young"), stated(tie("old", "birth_parent", "young")), persons=people)) == {}


def test_a_year_of_birth_that_one_of_several_records_has_wrong_contradicts_nothing() -> None:
    wrong = pa.Table.from_pylist([dict(zip(KNOWN.names, (*HEALTH, "ann", 2014, "F"), strict=True))], schema=KNOWN)
    rows = stated(tie("ann", "birth_parent", "kit"))
    assert not codes(network(clusters("ann", "kit"), rows, persons=pa.concat_tables([ADULTS, wrong])))


@pytest.mark.parametrize(("one", "other", "code"), [
    (tie("ann", "birth_parent", "kit"), tie("ann", "step_parent", "kit", HEALTH), "relation_differs"),
    (tie("ann", "birth_parent", "kit"), tie("kit", "sibling", "ann"), "relation_differs"),
    (tie("ann", "birth_parent", "kit"), tie("kit", "birth_parent", "ann", HEALTH), "relation_differs"),
    (tie("ann", "partner", "kit"), tie("kit", "birth_parent", "ann", HEALTH), "relation_differs"),
    (tie("ann", "birth_parent", "kit"), tie("ann", "carer", "kit", HEALTH), "carer_or_parent"),
    (tie("ann", "carer", "kit"), tie("ann", "carer", "kit", HEALTH, valid_to=date(2025, 1, 1)), "ended_or_current"),
    (tie("ann", "partner", "kit"), tie("kit", "partner", "ann", HEALTH, valid_to=date(2025, 1, 1)), "ended_or_current"),
])  # fmt: skip
def test_two_statements_that_cannot_both_be_right_are_both_drawn_and_marked(one: Row, other: Row, code: str) -> None:
    found = network(clusters("ann", "kit"), stated(one, other))
    assert found.edges.num_rows == 2
    assert found.conflicts["code"].to_pylist() == [code, code]
    assert code in DISAGREEMENTS


@pytest.mark.parametrize(("one", "other"), [
    (tie("ann", "birth_parent", "kit"), tie("ann", "carer", "kit")),
    (tie("ann", "birth_parent", "kit"), tie("ann", "birth_parent", "kit", HEALTH, valid_to=date(2025, 1, 1))),
    (tie("ann", "carer", "kit", valid_to=date(2025, 1, 1)), tie("ann", "carer", "kit")),
    (tie("ann", "carer", "kit"), tie("ann", "sibling", "kit", HEALTH)),
    (tie("ann", "birth_parent", "kit"), tie("ann", "parental_responsibility", "kit", HEALTH)),
])  # fmt: skip
def test_what_can_both_be_right_is_no_conflict(one: Row, other: Row) -> None:
    assert network(clusters("ann", "kit"), stated(one, other)).conflicts.num_rows == 0


FAMILIES = [[f"p{family}{n}" for n in range(5)] for family in range(12)]  # at once: a run takes longer than a family


def statements_of(names: list[str]) -> st.SearchStrategy[list[Row]]:
    one = st.builds(
        lambda ends, kind, source, until: tie(ends[0], kind, ends[1], source, valid_to=until),
        st.permutations(names),
        st.sampled_from([kind for kind in RELATIONSHIP_TYPES if kind != "household"]),
        st.sampled_from([SOCIAL_CARE, HEALTH, PERSONS]),
        st.sampled_from([None, None, date(2025, 1, 1)]),
    )
    return st.lists(one, max_size=8)


years = st.sampled_from([None, 1960, 1985, 1992, 2000, 2015])
attributes = st.fixed_dictionaries(
    {name: st.tuples(years, st.sampled_from([None, "F", "M"])) for names in FAMILIES for name in names}
)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.large_base_example, HealthCheck.data_too_large, HealthCheck.too_slow],
)
@given(st.tuples(*map(statements_of, FAMILIES)), attributes)
def test_property_a_view_of_a_family_finds_the_conflicts_that_the_run_finds(
    rows: tuple[list[Row], ...], people: Mapping[str, tuple[int | None, str | None]]
) -> None:
    found = network(clusters(*people), stated(*chain.from_iterable(rows)), persons=known(**people))
    due = []
    for names in FAMILIES:
        about = {name: Known(born=(year, year) if year else None, sex=sex)
                 for name in names for year, sex in [people[name]]}  # fmt: skip
        edges = [edge for edge in found.edges.to_pylist() if edge["person_a"] in about]
        said = [
            Statement(a=e["person_a"], b=e["person_b"], type=e["type"], source=(e["agency"], e["flow"]), until=e["valid_to"])
            for e in edges
        ]  # fmt: skip
        due += [
            (code, *(str(edge[name]) for name in FAMILY.names))
            for edge, found_codes in zip(edges, disagreements(said, about), strict=True)
            for code in found_codes
        ]
    assert sorted(tuple(map(str, row.values())) for row in found.conflicts.to_pylist()) == sorted(due)


# --- Sever -----------------------------------------------------------------------------------------------------------


T = TypeVar("T")


def reachable(pairs: Iterable[tuple[T, T]], start: T) -> set[T]:
    """By brute force: everyone a path of edges leads to."""
    reached, edges = {start}, [set(pair) for pair in pairs]
    while any(edge & reached and not edge <= reached for edge in edges):
        for edge in edges:
            if edge & reached:
                reached |= edge
    return reached


def kept(found: Network) -> set[tuple[str, str]]:
    return {(row["person_a"], row["person_b"]) for row in found.edges.to_pylist()}


CROWD = range(9)
links = st.lists(st.sampled_from(list(combinations(CROWD, 2))), max_size=18, unique=True)
severed_pairs = st.lists(st.sampled_from(list(combinations(CROWD, 2))), min_size=1, max_size=3, unique=True)


@given(links, severed_pairs)
def test_property_no_path_leads_across_a_sever_and_nothing_is_cut_that_need_not_be(
    edges: list[tuple[int, int]], apart: list[tuple[int, int]]
) -> None:
    left, right = (np.array([edge[side] for edge in edges], np.int64) for side in (0, 1))
    cut = set(cut_edges(left, right, apart))
    assert cut <= set(edges)
    for one, other in apart:
        assert other not in reachable(set(edges) - cut, one)
    ends = {end for pair in apart for end in pair}
    assert all(set(edge) & ends for edge in cut)
    if all(other not in reachable(edges, one) for one, other in apart):
        assert not cut


told = st.one_of(
    st.builds(
        lambda ends, kind, source: tie(f"p{ends[0]}", kind, f"p{ends[1]}", source),
        st.permutations(CROWD),
        st.sampled_from([kind for kind in RELATIONSHIP_TYPES if kind != "household"]),
        st.sampled_from([SOCIAL_CARE, HEALTH]),
    ),
    st.builds(
        lambda n, household, source: lives(f"p{n}", household, source),
        st.sampled_from(CROWD), st.integers(1, 3), st.sampled_from([SOCIAL_CARE, HEALTH]),
    ),
)  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(st.lists(told, min_size=6, max_size=18), severed_pairs)
def test_property_no_statement_of_any_kind_joins_a_severed_pair(rows: list[Row], apart: list[tuple[int, int]]) -> None:
    people = clusters(*(f"p{n}" for n in CROWD))
    severed = Overrides(sever=frozenset(((*HEALTH, f"p{one}"), (*SOCIAL_CARE, f"p{other}")) for one, other in apart))
    whole, cut = kept(network(people, stated(*rows))), kept(network(people, stated(*rows), overrides=severed))
    assert cut <= whole
    for one, other in apart:
        assert f"p{other}" not in reachable(cut, f"p{one}")
    if all(f"p{other}" not in reachable(whole, f"p{one}") for one, other in apart):
        assert cut == whole


def test_the_families_of_both_sides_stay_whole_where_nothing_leads_across() -> None:
    rows = [tie("mum", "birth_parent", "before"), tie("new mum", "birth_parent", "after"), tie("mum", "birth_parent", "sib"),
            tie("sib", "sibling", "after")]  # fmt: skip
    severed = Overrides(sever=frozenset({((*HEALTH, "before"), (*HEALTH, "after"))}))
    found = network(clusters("mum", "before", "new mum", "after", "sib"), stated(*rows), overrides=severed)
    assert drawn(found) == {("mum", "birth_parent", "sib"), ("new mum", "birth_parent", "after")}
    assert found.counts() == {"severed": 2}


def test_a_severed_pair_at_the_two_ends_of_a_network_of_thousands_is_found_and_cut() -> None:
    line = np.arange(20_000, dtype=np.int64)
    assert cut_edges(line, line + 1, [(0, 20_000)]) == [(0, 1), (19_999, 20_000)]
