"""Match rates by group: they are the shares they say, and no small group can be read off them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.matching.facts import facts_of
from linkage.matching.members import Placed
from linkage.matching.rates import GAP, ROUNDED, SMALLEST, Cell, age_bands, groups_of, rates, rates_by_kind, table
from linkage.records import PROFILES, persons_schema

Record = tuple[str, str, str, str]  # flow, record_ref, person_id, colour


def clusters_of(records: list[Record]) -> pa.Table:
    flows, refs, persons, _ = zip(*records, strict=True)
    return pa.table({"agency": ["council"] * len(records), "flow": flows, "record_ref": refs, "person_id": persons})


def groups_in(records: list[Record]) -> pa.Table:
    flows, refs, _, colours = zip(*records, strict=True)
    return pa.table({"agency": ["council"] * len(records), "flow": flows, "record_ref": refs, "colour": colours})


def rates_in(groups: pa.Table, clusters: pa.Table) -> pa.Table:
    return rates(groups, Placed.of(clusters, groups))


def by_value(found: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["value"]: row for row in found.to_pylist()}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["health", "police"]), st.integers(0, 40), st.sampled_from(["red", "blue", "green"])),
        min_size=1,
        max_size=150,
    )
)
def test_a_rate_is_the_share_of_records_whose_person_another_flow_knows(drawn: list[tuple[str, int, str]]) -> None:
    records = [(flow, f"r{n}", f"p{person}", colour) for n, (flow, person, colour) in enumerate(drawn)]
    linked = [any(p == other and flow != f for f, _, other, _ in records) for flow, _, p, _ in records]
    for value, row in by_value(rates_in(groups_in(records), clusters_of(records))).items():
        mine = [is_linked for (*_, colour), is_linked in zip(records, linked, strict=True) if colour == value]
        rest = [is_linked for (*_, colour), is_linked in zip(records, linked, strict=True) if colour != value]
        if len(mine) < SMALLEST:
            assert row["records"] is row["rate"] is row["others"] is None
            assert not row["finding"]
            continue
        assert abs(row["records"] - len(mine)) <= ROUNDED / 2
        assert row["rate"] == pytest.approx(sum(mine) / len(mine), abs=0.0051)
        if len(rest) < SMALLEST:
            assert row["others"] is None
        else:
            assert row["others"] == pytest.approx(sum(rest) / len(rest), abs=0.0051)
            assert row["finding"] == (round(sum(rest) / len(rest) - sum(mine) / len(mine), 9) > GAP)


def test_a_group_of_under_ten_is_named_and_nothing_more_is_said_of_it() -> None:
    found = table(iter([("custom", {"a": Cell(size=9, chances=9, hits=0), "b": Cell(size=90, chances=90, hits=90)})]))
    assert by_value(found)["a"] == {
        "group": "custom", "value": "a", "records": None, "rate": None, "others": None, "finding": False,
    }  # fmt: skip
    assert by_value(found)["b"]["others"] is None  # which would be the hidden group's rate


def test_a_gap_of_over_five_points_is_a_finding_and_one_of_five_is_not() -> None:
    for hits, finding in ((94, True), (95, False)):
        cells = {"a": Cell(size=100, chances=100, hits=hits), "b": Cell(size=100, chances=100, hits=100)}
        assert by_value(table(iter([("custom", cells)])))["a"]["finding"] is finding


def test_a_null_is_a_value_of_its_own_and_a_record_of_no_run_is_left_out() -> None:
    records = [("health", f"r{n}", f"p{n}", "red") for n in range(12)]
    groups = groups_in(records).set_column(3, "colour", pa.nulls(12, pa.string()))
    found = rates_in(groups, clusters_of(records[:10]))
    assert [(row["value"], row["records"]) for row in found.to_pylist()] == [("not known", 10)]


def test_ages_fall_into_bands_and_the_unborn_into_the_first() -> None:
    years = pa.chunked_array([pa.array([2026, 2027, 2025, 2021, 2010, 2009, 2008, None], pa.int32())])
    assert age_bands(years, year=2026).to_pylist() == ["0", "0", "1-4", "5-10", "16-17", "16-17", "18 and over", None]


def test_of_the_rows_of_one_record_the_first_counts() -> None:
    records = [("health", f"r{n}", f"p{n}", "red") for n in range(12)]
    again = [(flow, ref, person, "blue") for flow, ref, person, _ in records]
    found = rates_in(groups_in([*records, *again]), clusters_of(records))
    assert [(row["value"], row["records"]) for row in found.to_pylist()] == [("red", 10)]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_broker_groups_by_is_read_from_each_row(profile: Any) -> None:
    rows: list[dict[str, Any]] = [
        {"record_ref": "r1", "birth_year": 2015, "sex": "F", "q_no_postcode": True, "id_upn": 7},
        {"record_ref": "r2", "birth_year": None, "sex": None, "q_no_postcode": True},
    ]
    schema = persons_schema(profile)
    blank: dict[str, Any] = dict.fromkeys(schema.names)
    persons = pa.Table.from_pylist([blank | row | {"q_default_dob": False} for row in rows], schema=schema)
    persons = persons.append_column("agency", pa.array(["icb"] * 2)).append_column("flow", pa.array(["health"] * 2))
    one, other = groups_of(persons, year=2026).to_pylist()
    assert one["source"] == "icb/health"
    assert (one["age_band"], one["missing"], one["identifier"]) == ("11-15", "postcode", "some")
    assert other["missing"] == "date of birth and postcode"
    assert (other["age_band"], other["identifier"], other["q_default_dob"]) == (None, "none", "no")


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["health", "police"]), st.integers(0, 20), st.sampled_from([None, 2010, 2024]),
            st.sampled_from(["F", "M", None]), st.booleans(), st.booleans(),
        ),
        min_size=1, max_size=80,
    )
)  # fmt: skip
def test_property_counting_combinations_says_what_counting_rows_says(drawn: list[Any]) -> None:
    schema = persons_schema(PROFILES[0])
    blank: dict[str, Any] = dict.fromkeys(schema.names)
    rows = [
        blank | {"record_ref": f"r{n}", "birth_year": year, "sex": sex, "q_no_postcode": home, "id_upn": 7 if upn else None}
        for n, (_, _, year, sex, home, upn) in enumerate(drawn)
    ]  # fmt: skip
    persons = pa.Table.from_pylist(rows, schema=schema)
    flows = pa.array([flow for flow, *_ in drawn])
    persons = persons.append_column("agency", pa.array(["council"] * len(drawn))).append_column("flow", flows)
    clusters = clusters_of([(flow, f"r{n}", f"p{person}", "") for n, (flow, person, *_) in enumerate(drawn)])
    placed = Placed.of(clusters, persons)
    marked = placed.record[::3]
    groups = groups_of(persons, year=2026)
    groups = groups.append_column("marked", pa.array(["yes" if n % 3 == 0 else "no" for n in range(len(drawn))]))
    counted = rates_by_kind(facts_of(persons), placed, {"marked": marked}, year=2026)
    assert counted.to_pylist() == rates(groups, placed).to_pylist()
