"""What intake refuses, and where it says the fault lies."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.matching import intake
from linkage.matching.findings import DEFAULTS, Code, Finding, Limits, Verdict
from linkage.records import BadManifest, Manifest, Table, schema_of
from tests.builders import CODES, Batch, a_batch, a_person, a_ref, a_relationship, an_entry, an_item, parquet
from tests.sizes import LONG

ALICE = a_ref("alice")
BEN = a_ref("ben")


def checked(batch: Batch, folder: Path, *, limits: Limits = DEFAULTS) -> Verdict:
    for table, raw in batch.files.items():
        (folder / f"{table}.parquet").write_bytes(raw)
    return intake.check(folder, batch.manifest, CODES, limits=limits)


def only(verdict: Verdict) -> Finding:
    assert len(verdict.findings) == 1, verdict.findings
    return verdict.findings[0]


def test_a_good_batch_has_no_findings_and_is_counted(tmp_path: Path) -> None:
    verdict = checked(a_batch(), tmp_path)
    assert verdict.accepted
    assert verdict.findings == ()
    assert verdict.counts == {"persons": 2, "relationships": 1, "items": 2}
    assert verdict.deletes == {"persons": 0, "relationships": 0, "items": 0}


def test_what_was_accepted_is_read_back_row_for_row(tmp_path: Path) -> None:
    batch = a_batch()
    assert checked(batch, tmp_path).accepted
    for table in batch.manifest.tables:
        sent = pq.read_table(pa.BufferReader(batch.files[table]))
        assert intake.read(tmp_path, table, "guarded-3").equals(sent)  # type: ignore[arg-type]


def test_the_accurate_profile_has_its_own_columns(tmp_path: Path) -> None:
    assert checked(a_batch(profile="accurate-2"), tmp_path).accepted
    mixed = a_batch(profile="accurate-2").saying(profile="guarded-3")
    verdict = checked(mixed, tmp_path)
    assert ("persons", "given_d_w0", "missing_column") in verdict.totals


def test_a_batch_of_an_earlier_profile_is_refused_whole_and_told_which_is_due() -> None:
    """Before any of its rows is read: they are not comparable with those of this one."""
    raw = a_batch().manifest.canonical().replace(b'"guarded-3"', b'"guarded-2"')
    with pytest.raises(BadManifest, match=r"^profile: one of guarded-3, accurate-2 is due$"):
        Manifest.parse(raw)


BAD_PERSONS: list[tuple[dict[str, Any], str, Code]] = [
    ({"op": "replace"}, "op", "unknown_value"),
    ({"op": None}, "op", "unknown_value"),
    ({"op": "delete"}, "op", "delete_in_full"),
    ({"record_ref": "Alice Archer"}, "record_ref", "bad_ref"),
    ({"record_ref": None}, "record_ref", "bad_ref"),
    ({"person_role": "pet"}, "person_role", "unknown_value"),
    ({"shield": None}, "shield", "unknown_value"),
    ({"sex": "Alice"}, "sex", "unknown_value"),
    ({"sever_ref": "see file 12"}, "sever_ref", "bad_ref"),
    ({"q_baby_name": None}, "q_baby_name", "missing"),
    ({"dob_p_n": 7}, "dob_p_n", "wrong_popcount"),
    ({"dob_p_n": None}, "dob_p_n", "incomplete_filter"),
    ({"family_p_w3": None}, "family_p_n", "incomplete_filter"),
    ({**{f"dob_p_w{word}": 0 for word in range(8)}, "dob_p_n": 0}, "dob_p_n", "incomplete_filter"),
    ({"birth_year": 1015}, "birth_year", "bad_date"),
    ({"birth_year": 2028}, "birth_year", "bad_date"),
    ({"valid_from": date(2126, 1, 1)}, "valid_from", "bad_date"),
    ({"valid_from": date(2025, 1, 1), "valid_to": date(2024, 1, 1)}, "valid_to", "bad_period"),
]


def test_each_bad_person_is_named_by_row_column_and_code(tmp_path: Path) -> None:
    rows = [{**a_person(a_ref(at)), **changes} for at, (changes, _, _) in enumerate(BAD_PERSONS)]
    verdict = checked(a_batch(persons=[*rows, a_person(ALICE)]), tmp_path)
    assert not verdict.accepted
    due = [Finding("persons", row, column, code) for row, (_, column, code) in enumerate(BAD_PERSONS, 1)]
    assert list(verdict.findings) == due


BAD_RELATIONSHIPS: list[tuple[dict[str, Any], str, Code]] = [
    ({"type": "friend"}, "type", "unknown_value"),
    ({"type": None, "household": 5}, "type", "unknown_value"),
    ({"ref_b": None}, "household", "bad_endpoint"),
    ({"household": 12}, "household", "bad_endpoint"),
    ({"ref_b": ALICE}, "household", "bad_endpoint"),
    ({"ref_b": a_ref("nobody")}, "ref_b", "unresolved_ref"),
    ({"ref_a": a_ref("nobody")}, "ref_a", "unresolved_ref"),
    ({"verified": None}, "verified", "missing"),
    ({"valid_from": date(1015, 1, 1)}, "valid_from", "bad_date"),
]


def test_each_bad_relationship_is_named(tmp_path: Path) -> None:
    people = [a_person(ALICE), a_person(BEN, given="ben")]
    rows = [{**a_relationship(ALICE, BEN), **changes} for changes, _, _ in BAD_RELATIONSHIPS]
    household = a_relationship(ALICE, None, "household", household=77)
    verdict = checked(a_batch(persons=people, relationships=[*rows, household]), tmp_path)
    due = {Finding("relationships", row, column, code) for row, (_, column, code) in enumerate(BAD_RELATIONSHIPS, 1)}
    assert due <= set(verdict.findings)
    assert {finding.row for finding in verdict.findings} == set(range(1, len(rows) + 1))


BAD_ITEMS: list[tuple[dict[str, Any], str, Code]] = [
    ({"category": "education.gossip"}, "category", "unknown_category"),
    ({"category": None}, "category", "unknown_category"),
    ({"category": "health.sealed", "code": None, "code_system": None}, "category", "never_ingest"),
    ({"code": "expelled"}, "code", "unknown_code"),
    ({"code": None, "code_system": None}, "code", "missing"),
    ({"code_system": None}, "code_system", "missing"),
    ({"code_system": "attendance_band"}, "code", "unknown_code"),
    ({"code_system": "hiv", "code": "POS"}, "code", "never_ingest"),
    ({"category": "social_care.looked_after", "code_system": "placement", "code": "A3"}, "code", "never_ingest"),
    ({"category": "social_care.looked_after", "code_system": "placement", "code": "U1", "outcome_code": "E11"},
     "outcome_code", "never_ingest"),
    ({"category": "social_care.looked_after", "code_system": "placement", "code": "U1", "role": None},
     "role", "missing"),
    ({"category": "health.registration", "code_system": "trace", "code": "traced", "outcome_code": "Dr Archer"},
     "outcome_code", "unknown_code"),
    ({"outcome_code": "13"}, "outcome_code", "unknown_code"),
    ({"category": "education.attendance", "code": None, "code_system": None}, "code", "missing"),
    ({"code": None}, "code_system", "code_not_expected"),
    ({"category": "health.not_brought", "number": 2.0}, "code", "code_not_expected"),
    ({"category": "health.not_brought", "code": None, "code_system": None}, "number", "missing"),
    ({"number": 4.0}, "number", "number_not_expected"),
    ({"category": "education.attendance", "code_system": "attendance_band", "code": "SEVERE", "number": math.nan},
     "number", "bad_number"),
    ({"category": "education.attendance", "code_system": "attendance_band", "code": "SEVERE", "number": -1.0},
     "number", "bad_number"),
    ({"occurred_on": None}, "occurred_on", "missing"),
    ({"occurred_on": date(2205, 9, 2)}, "occurred_on", "bad_date"),
    ({"recorded_on": date(2026, 4, 1)}, "recorded_on", "bad_date"),
    ({"ended_on": date(2025, 9, 1)}, "ended_on", "bad_period"),
    ({"role": "hero"}, "role", "unknown_value"),
    ({"regime": "X"}, "regime", "unknown_value"),
    ({"opinion": None}, "opinion", "missing"),
    ({"outcome_code": "he said that she"}, "outcome_code", "unknown_code"),
    ({"contact_ref": "Ring Mrs Archer"}, "contact_ref", "unknown_value"),
    ({"origin": "Some School"}, "origin", "unknown_value"),
    ({"retain_until": date(2026, 3, 1)}, "retain_until", "retention_over"),
    ({"record_ref": a_ref("nobody")}, "record_ref", "unresolved_ref"),
    ({"item_ref": "1"}, "item_ref", "bad_ref"),
]  # fmt: skip


GOOD_ITEMS = [
    an_item(a_ref("good", 1), ALICE, outcome_code="R", role=None),
    an_item(a_ref("good", 2), ALICE, "health.registration", code_system="trace", code="traced", outcome_code="A12345"),
    an_item(a_ref("good", 3), ALICE, "education.attendance", code_system=None, code=None, number=91.5),
    an_item(a_ref("good", 4), ALICE, "education.attendance", code_system="attendance_band", code="SEVERE", number=45.0),
    an_item(a_ref("good", 5), ALICE, "social_care.looked_after", code_system="placement", code="U1", outcome_code="E4"),
]


def test_each_bad_item_is_named(tmp_path: Path) -> None:
    rows = [{**an_item(a_ref(at), ALICE), **changes} for at, (changes, _, _) in enumerate(BAD_ITEMS)]
    verdict = checked(a_batch(persons=[a_person(ALICE)], items=[*rows, *GOOD_ITEMS]), tmp_path)
    due = {Finding("items", row, column, code) for row, (_, column, code) in enumerate(BAD_ITEMS, 1)}
    assert due <= set(verdict.findings)
    assert {finding.row for finding in verdict.findings} == set(range(1, len(rows) + 1))


def test_two_items_under_one_ref_are_both_named(tmp_path: Path) -> None:
    items = [an_item(a_ref(at), ALICE) for at in (1, 2, 1)]
    verdict = checked(a_batch(persons=[a_person(ALICE)], items=items), tmp_path)
    assert verdict.findings == (
        Finding("items", 1, "item_ref", "duplicate_ref"),
        Finding("items", 3, "item_ref", "duplicate_ref"),
    )


def test_rows_of_one_record_are_alternatives_and_must_agree_on_its_role(tmp_path: Path) -> None:
    known_as = a_person(ALICE, given="ali")
    assert checked(a_batch(persons=[a_person(ALICE), known_as]), tmp_path).accepted
    verdict = checked(a_batch(persons=[a_person(ALICE), {**known_as, "person_role": "parent"}]), tmp_path)
    assert {finding.code for finding in verdict.findings} == {"inconsistent_record"}
    many = [a_person(ALICE, id_local=str(at), given=f"name{at}") for at in range(9)]
    assert {finding.code for finding in checked(a_batch(persons=many), tmp_path).findings} == {"too_many_identifiers"}


def test_a_delta_may_delete_and_says_how_much(tmp_path: Path) -> None:
    gone = {**dict.fromkeys(schema_of("persons", "guarded-3").names), "op": "delete", "record_ref": BEN}
    batch = a_batch(persons=[a_person(ALICE), gone], items=[an_item(a_ref(1), ALICE)], kind="delta", sequence=2)
    verdict = checked(batch, tmp_path)
    assert verdict.accepted
    assert verdict.deletes["persons"] == 1
    both = a_batch(persons=[a_person(BEN), gone], kind="delta", sequence=2)
    assert {finding.code for finding in checked(both, tmp_path).findings} == {"duplicate_ref"}


def test_an_item_of_a_deleted_record_leads_nowhere(tmp_path: Path) -> None:
    gone = {**dict.fromkeys(schema_of("persons", "guarded-3").names), "op": "delete", "record_ref": BEN}
    batch = a_batch(persons=[gone], items=[an_item(a_ref(1), BEN)], kind="delta", sequence=2)
    assert only(checked(batch, tmp_path)) == Finding("items", 1, "record_ref", "unresolved_ref")


def test_no_people_at_all_is_a_finding_in_a_full_batch_only(tmp_path: Path) -> None:
    assert only(checked(a_batch(persons=[]), tmp_path)) == Finding("persons", 0, "", "empty_table")
    assert checked(a_batch(persons=[], kind="delta", sequence=2), tmp_path).accepted


def test_fewer_rows_than_the_manifest_says_is_a_finding(tmp_path: Path) -> None:
    batch = a_batch()
    short = batch.with_files(items=parquet([], schema_of("items", "guarded-3")))
    assert only(checked(short, tmp_path)) == Finding("items", 0, "", "wrong_row_count")


def _table(batch: Batch, table: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(batch.files[table]))


@pytest.mark.parametrize(
    ("change", "column", "code"),
    [
        (lambda table: table.append_column("given_name", pa.array(["x", "y"])), "given_name", "unknown_column"),
        (lambda table: table.append_column("Mary O'Neil", pa.array(["x", "y"])), "column 18", "unknown_column"),
        (lambda table: table.drop_columns(["regime"]), "regime", "missing_column"),
        (lambda table: table.append_column("regime", pa.array(["x", "y"])), "regime", "repeated_column"),
        (lambda table: table.select(table.column_names[::-1]), "", "wrong_order"),
        (lambda table: table.set_column(6, "number", pa.array([1, 2])), "number", "wrong_type"),
        (
            lambda table: table.set_column(16, "retain_until", pa.array(["2030-01-01"] * 2)),
            "retain_until",
            "wrong_type",
        ),
        (lambda table: table.set_column(5, "code", pa.array([["a"], ["b"]])), "", None),
    ],
)
def test_columns_are_exactly_those_of_the_wire_format(
    change: Callable[[pa.Table], pa.Table], column: str, code: str | None, tmp_path: Path
) -> None:
    batch = a_batch()
    verdict = checked(batch.with_files(items=parquet(change(_table(batch, "items")))), tmp_path)
    assert not verdict.accepted
    if code:
        assert only(verdict) == Finding("items", 0, column, code)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: b"",
        lambda raw: raw[:-9],
        lambda raw: b"PAR1" + bytes(len(raw)),
        lambda raw: b"record_ref,given_name\n1,Alice\n",
        lambda raw: raw[:40] + bytes(200) + raw[240:],
    ],
)
def test_a_file_that_is_not_parquet_is_a_finding_and_no_error(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    batch = a_batch()
    verdict = checked(batch.with_files(persons=spoil(batch.files["persons"])), tmp_path)
    assert Finding("persons", 0, "", "unreadable") in verdict.findings


def test_text_that_is_not_utf_8_is_unreadable(tmp_path: Path) -> None:
    batch = a_batch()
    items = _table(batch, "items")
    broken = pa.array([b"\xff\xfe", b"\xff"], pa.binary()).view(pa.string())
    verdict = checked(batch.with_files(items=parquet(items.set_column(5, items.field("code"), broken))), tmp_path)
    assert Finding("items", 0, "", "unreadable") in verdict.findings


def _bomb(texts: pa.Array) -> Batch:
    schema = schema_of("items", "guarded-3")
    rows = [an_item(a_ref(at), a_ref("alice")) for at in range(len(texts))]
    table = pa.Table.from_pylist(rows, schema=schema).set_column(5, schema.field("code"), texts)
    batch = a_batch(persons=[a_person(a_ref("alice"))], items=[])
    raw = parquet(table)
    tables = {**batch.manifest.tables, "items": an_entry(raw, rows=len(texts))}
    return replace(batch.saying(tables=tables), files={**batch.files, "items": raw})


def test_a_parquet_bomb_is_refused_in_little_memory(tmp_path: Path) -> None:
    """256 MB in a few KB: lengths are measured before anything is copied, under a limit that can't be raised."""
    bomb = _bomb(pa.DictionaryArray.from_arrays([0] * 512, ["x" * 512 * 1024]).cast(pa.string()))
    assert len(bomb.files["items"]) < 60_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes = {finding.code for finding in checked(bomb, tmp_path).findings}
    assert codes <= {"row_too_large", "expands_too_much", "too_large"}
    assert codes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024  # KiB


def test_many_short_rows_from_a_few_bytes_expand_too_much(tmp_path: Path) -> None:
    bomb = _bomb(pa.array(["y" * 12_000] * 500))
    assert {finding.code for finding in checked(bomb, tmp_path).findings} == {"expands_too_much"}


def test_more_rows_than_the_limit_are_refused_before_they_are_read(tmp_path: Path) -> None:
    verdict = checked(a_batch(), tmp_path, limits=Limits(rows=1))
    assert Finding("persons", 0, "", "too_large") in verdict.findings


def test_the_listing_is_capped_and_the_totals_are_not(tmp_path: Path) -> None:
    people = [a_person(a_ref(at), sex="?") for at in range(40)]
    verdict = checked(a_batch(persons=people), tmp_path, limits=Limits(listed=10))
    assert [finding.row for finding in verdict.findings] == list(range(1, 11))
    assert verdict.totals == {("persons", "sex", "unknown_value"): 40}


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('/etc/hostname')",
        "select * from read_parquet('{folder}/../outside.parquet')",
        "select * from read_parquet('http://127.0.0.1:9/x.parquet')",
        "copy (select 1) to '{folder}/../out.csv'",
        "attach '{folder}/../other.duckdb'",
        "set memory_limit = '64GB'",
        "set enable_external_access = true",
        "install sqlite",
        "load sqlite",
    ],
)
def test_duckdb_is_locked_to_the_folder_of_the_batch(query: str, tmp_path: Path) -> None:
    folder = tmp_path / "batch"
    folder.mkdir()
    (tmp_path / "outside.parquet").write_bytes(a_batch().files["items"])
    (folder / "items.parquet").write_bytes(a_batch().files["items"])
    with intake._locked(folder, "100MB", DEFAULTS) as tables:
        assert tables.execute(f"select count(*) from '{folder}/items.parquet'").fetchall() == [(2,)]
        with pytest.raises(duckdb.Error):
            tables.execute(query.format(folder=folder)).fetchall()


@settings(max_examples=200 if LONG else 6, deadline=None)
@given(
    table=st.sampled_from(["persons", "relationships", "items"]),
    at=st.integers(0, 10_000),
    byte=st.integers(0, 255),
)
def test_whatever_byte_is_wrong_check_answers(
    table: Table, at: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    batch = a_batch()
    raw = bytearray(batch.files[table])
    raw[at % len(raw)] = byte
    spoilt = batch.with_files(**{table: bytes(raw)})
    assert isinstance(checked(spoilt, tmp_path_factory.mktemp("batch")), Verdict)
