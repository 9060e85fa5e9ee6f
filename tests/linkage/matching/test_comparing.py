"""Scoring by what two rows have gives the bytes that the SQL gives over both rows side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.matching.arrays import packed_pairs
from linkage.matching.comparing import SCORED, frequencies_of, scored_pairs
from linkage.matching.comparisons import FIELDS
from linkage.matching.lazily import numbers_of
from linkage.matching.model import default_model
from linkage.matching.numbering import numbered
from linkage.matching.overrides import RecordKey
from linkage.matching.scoring import scored
from linkage.matching.workspace import load_persons, open_workspace
from linkage.records import PROFILES, Profile
from tests.linkage.matching.people import HEALTH, PERSONS, Someone, encoded
from tests.linkage.matching.test_incremental import Night, nights, table


@pytest.mark.parametrize("profile", PROFILES)
@settings(deadline=None, max_examples=10)
@given(nights, st.integers(1, 5))
def test_levels_and_weights_are_those_of_the_sql(profile: Profile, night: Night, chunks: int) -> None:
    _same_as_sql(_in_chunks(table({key: record[:1] for key, record in night.items()}, profile), chunks), profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_so_are_those_of_real_encodings(profile: Profile) -> None:
    names = ["zoe", "zoey", "zara", "soe", "amelia", None, "agnieszka", "zo"]
    people = [
        Someone(given_name=name, ref=f"{n}").at(source, **change)
        for n, name in enumerate(names)
        for source, change in (
            (HEALTH, {}), (PERSONS, {"date_of_birth": "20150315", "family_name": "kowalska"}),
            (PERSONS, {"postcode": "nx12ac", "sex": None}), (HEALTH, {"postcode": None, "family_name": "nowak"}),
        )
    ]  # fmt: skip
    several = [someone.at((*someone.key[:2],), ref=f"r{n}") for n, someone in enumerate(people)]
    found = _same_as_sql(_in_chunks(encoded(several, profile), 3), profile)
    for field, least in zip(FIELDS, (5, 2, 2, 2, 2), strict=True):
        assert len(set(found[f"gamma_{field}"].to_pylist())) >= least


def _same_as_sql(persons: pa.Table, profile: Profile) -> pa.Table:
    model = default_model(profile)
    with open_workspace(threads=1) as db:
        rows = numbered(db, persons, profile, ())
        every = np.arange(len(rows.rec), dtype=np.int64)
        left, right = (side.ravel() for side in np.meshgrid(every, every))
        pairs = np.sort(packed_pairs(left[left < right], right[left < right]))
        found = scored_pairs(db, rows, pairs, model, frequencies_of(persons, model))
        load_persons(db, persons, ())
        sql = scored(model, "(SELECT l.unique_id AS id_l, r.unique_id AS id_r FROM rows l, rows r WHERE l.rec < r.rec)",
                     keep=("rec", "birth_year"))  # fmt: skip
        names = [name for name in SCORED.names if not name.startswith(("rec", "birth"))]
        keys = db.execute(
            "SELECT agency, flow, record_ref FROM records JOIN sources USING (src) ORDER BY rec"
        ).fetchall()
        said = db.sql(f"SELECT rec_l, rec_r, birth_year_l, birth_year_r, {', '.join(names)} FROM ({sql})").fetchall()
    mine = rows.keys(np.arange(rows.records))
    columns = [found[name].to_pylist() for name in ("rec_l", "rec_r", "birth_year_l", "birth_year_r", *names)]
    assert _by_key(zip(*columns, strict=True), mine) == _by_key(
        [(row[0] - 1, row[1] - 1, *row[2:]) for row in said], keys
    )
    return found


def _by_key(scored_rows: Iterable[tuple[Any, ...]], keys: list[RecordKey]) -> dict[frozenset[Any], tuple[Any, ...]]:
    """What is said of two records, whichever is on the left."""
    return {frozenset([(keys[one], year), (keys[other], year_too)]): tuple(said)
            for one, other, year, year_too, *said in scored_rows}  # fmt: skip


def _in_chunks(persons: pa.Table, count: int) -> pa.Table:
    """The same rows in so many pieces."""
    size = max(1, persons.num_rows // count)
    return pa.concat_tables([persons.slice(start, size) for start in range(0, persons.num_rows, size)] or [persons])


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=6), max_size=5), st.data())
def test_values_are_gathered_from_columns_in_pieces(pieces: list[list[int | None]], data: st.DataObject) -> None:
    column = pa.chunked_array([pa.array([0, *piece], pa.int64())[1:] for piece in pieces], pa.int64())
    listed = [value for piece in pieces for value in piece]
    places = [place for place in range(len(listed)) if data.draw(st.booleans())]
    values, valid = numbers_of(column, np.array(places, np.int64))
    there = [True] * len(places) if valid is None else valid.tolist()
    held = [value if known else None for value, known in zip(values.tolist(), there, strict=True)]
    assert held == [listed[place] for place in places]
