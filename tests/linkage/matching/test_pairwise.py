"""Comparing in Python and in SQL: two texts, one answer; and many threads, one answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from linkage.matching.bands import banded
from linkage.matching.families import FAMILY
from linkage.matching.identifiers import ALL_SCHEMES, compare_numbers, number_records
from linkage.matching.model import default_model
from linkage.matching.pairwise import Comparer, band_of
from linkage.matching.scoring import scored
from linkage.matching.search import EncodedRow, Index
from linkage.matching.workspace import load_persons, open_workspace
from linkage.records import FILTER_WORDS, FILTERS, IDENTIFIERS, PROFILES, TOKENS, Profile, persons_schema

WIRE = ("agency", "flow")


def some_rows(profile: Profile, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of few values a field, some missing: every level, rule and missing value meets every other."""
    chance = random.Random(seed)

    def bits(base: int, flips: int) -> int:
        for _ in range(flips):
            base ^= 1 << chance.randrange(512)
        return base

    bases = {name: [chance.getrandbits(512) for _ in range(2)] for name in FILTERS[profile]}
    rows: list[dict[str, Any]] = []
    for n in range(count):
        row: dict[str, Any] = {"agency": f"agency-{n % 2}", "flow": "x", "record_ref": f"{n:04}"}
        for name in FILTERS[profile]:
            held = None if chance.random() < 0.12 else bits(chance.choice(bases[name]), chance.choice([0, 60, 95, 130]))
            row[name] = held
            for word in range(FILTER_WORDS):
                part = None if held is None else held >> 64 * word & (1 << 64) - 1
                row[f"{name}_w{word}"] = part if part is None or part < 1 << 63 else part - (1 << 64)
            row[f"{name}_n"] = None if held is None else held.bit_count()
        row |= {f"t_{name}": chance.choice([None, 1, 1, 1, 2, -3]) for name in TOKENS[profile]}
        row |= {f"id_{name}": chance.choice([None, None, None, n, n // 9]) for name in IDENTIFIERS}
        row |= {"birth_year": chance.choice([None, 1990, 2012, 2013, 2013]), "sex": chance.choice([None, "F", "M"])}
        rows.append(row)
    return rows


def table_of(rows: list[dict[str, Any]], profile: Profile) -> pa.Table:
    """The rows as the broker holds them."""
    schema = pa.schema([*((name, pa.string()) for name in WIRE), *persons_schema(profile)])
    return pa.Table.from_pylist([{k: v for k, v in row.items() if k in schema.names} for row in rows], schema=schema)


def as_asked(row: Mapping[str, Any], profile: Profile) -> EncodedRow:
    """A search for the person of a row."""
    words = {name: tuple(row[f"{name}_w{n}"] for n in range(FILTER_WORDS)) for name in FILTERS[profile]}
    return EncodedRow(
        filters={name: None if row[name] is None else held for name, held in words.items()},
        tokens={name: row[f"t_{name}"] for name in TOKENS[profile]},
        identifiers={name: row[f"id_{name}"] for name in IDENTIFIERS},
        birth_year=row["birth_year"],
        sex=row["sex"],
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_python_and_sql_say_the_same_of_every_pair(profile: Profile) -> None:
    model, rows = default_model(profile), some_rows(profile, 90, seed=7)
    with open_workspace() as db:
        load_persons(db, table_of(rows, profile), frozenset({("agency-0", "x"), ("agency-1", "x")}))
        number_records(db)
        db.execute("CREATE TABLE every AS SELECT l.unique_id AS id_l, r.unique_id AS id_r FROM rows l, rows r")
        compared = scored(model, "every", keep=("rec", "birth_year", "sex"))
        db.execute(f"CREATE TABLE scored AS FROM ({compared})")
        compare_numbers(db)
        said = db.execute(f"""
            SELECT rec_l, rec_r, weight, rule, band, upper, agreed, differs
            FROM ({banded("(SELECT *, false AS one_home FROM scored LEFT JOIN numbered USING (rec_l, rec_r))")})
        """).fetchall()
        refs = dict(db.execute("SELECT rec, record_ref FROM records").fetchall())
        numbers: dict[int, dict[str, set[int]]] = {rec: {} for rec in refs}
        for rec, scheme, number in db.execute("FROM numbers").fetchall():
            numbers[rec].setdefault(scheme, set()).add(number)
        named = [column for column in ("f_given_name", "f_family_name") if profile == "accurate-2"]
        rarity = db.execute(f"SELECT rec, [{', '.join(named) or 'NULL'}] FROM rows").fetchall()
    by_rec = {rec: next(row for row in rows if row["record_ref"] == ref) for rec, ref in refs.items()}
    for rec, frequencies in rarity:
        by_rec[rec] |= dict(zip(named, frequencies, strict=False))
    comparer, rules = Comparer(model), set()
    for rec_l, rec_r, weight, *rest in said:
        left, right = by_rec[rec_l], by_rec[rec_r]
        ours = comparer.compare(left, right)
        one = band_of(ours, left, right, numbers[rec_l], numbers[rec_r])
        assert ours.weight == pytest.approx(weight, abs=1e-12)
        assert [one.rule, one.band, one.upper, list(one.agreed), list(one.differs)] == rest
        rules.add(one.rule)
    assert len(said) == len(rows) ** 2
    assert len(rules) >= 9  # of eleven: the sample is no easy one
    assert {scheme for held in numbers.values() for scheme in held} == set(ALL_SCHEMES)


@pytest.mark.parametrize("profile", PROFILES)
def test_eight_threads_searching_at_once_find_what_one_finds(profile: Profile) -> None:
    rows = some_rows(profile, 200, seed=11)
    clusters = pa.table(
        {name: [row[name] for row in rows] for name in (*WIRE, "record_ref")}
        | {"person_id": [f"p{n // 2}" for n in range(len(rows))]}
    )
    index = Index(table_of(rows, profile), clusters, FAMILY.empty_table(), default_model(profile))
    searches = [as_asked(row, profile) for row in rows[:80]]
    alone = [index.candidates(search, limit=1_000) for search in searches]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda search: index.candidates(search, limit=1_000), searches * 3))
    assert found == alone * 3
    assert sum(map(len, alone)) > len(searches)
