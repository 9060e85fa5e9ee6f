"""Clusters as numbers: every row finds the record it names, and no other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.matching.members import Members, Placed, first_rows

KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y"]), st.sampled_from(["r1", "r2", "r3", "r1" * 30]))


def a_table(keys: list[tuple[str, str, str]], **columns: list[str]) -> pa.Table:
    named = {name: pa.array([key[n] for key in keys], pa.string()) for n, name in enumerate(("agency", "flow", "ref"))}
    return pa.table(named | columns)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(KEYS, st.sampled_from(["p1", "p2", "p3"])), st.lists(KEYS, max_size=12))
def test_rows_are_placed_as_a_dictionary_of_names_would_place_them(
    whose: dict[tuple[str, str, str], str], asked: list[tuple[str, str, str]]
) -> None:
    keys = list(whose)
    clusters = a_table(keys, person_id=list(whose.values())).rename_columns(
        ["agency", "flow", "record_ref", "person_id"]
    )
    if not keys:
        clusters = clusters.set_column(3, "person_id", pa.array([], pa.string()))
    members = Members.of(clusters)
    places = members.places(a_table(asked), "ref")
    assert places.tolist() == [keys.index(key) if key in whose else -1 for key in asked]
    assert members.people.to_pylist() == sorted(set(whose.values()))
    assert [members.people[code].as_py() for code in members.person.tolist()] == list(whose.values())
    assert [members.sources[code] for code in members.source.tolist()] == [key[:2] for key in keys]
    elsewhere = [any(whose[other] == whose[key] and other[:2] != key[:2] for other in keys) for key in keys]
    assert members.known_elsewhere().tolist() == elsewhere
    assert members.sharing() == sum(list(whose.values()).count(person) > 1 for person in whose.values())


def test_a_row_that_names_nobody_is_nowhere() -> None:
    clusters = a_table([("a", "x", "r1")], person_id=["p1"]).rename_columns(
        ["agency", "flow", "record_ref", "person_id"]
    )
    named = pa.table({"agency": ["a", "a"], "flow": ["x", "z"], "record_ref": pa.array([None, "r1"], pa.string())})
    assert Placed.of(clusters, named).record.tolist() == [-1, -1]


def test_the_first_row_of_each_record_is_found_in_the_order_of_records() -> None:
    assert first_rows(np.array([2, -1, 0, 2, 0]), 4).tolist() == [2, 0]
