"""A report's file: what a spreadsheet, a FHIR server, a SIEM and a log collector read is what the log says, and no more."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.events import EVENT_TYPES, OPS
from broker.errors import Malformed
from broker.reports import FORMATS, Cell, LoggedEvent, OpenedEvent, Period, Report, cef, fhir, ocsf
from broker.reports.formats import csv_row, guarded, write

AT: Final = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
ORIGIN: Final = "broker.example/audit/2026"
CHILD, SIBLING = "3b86a628-b8e2-4ccd-8d76-3988c53787e9", "9fe4e60e-2e56-4eb4-b027-a85b93444770"
FORMULAS: Final = "=+-@\t\r＝＋－＠﹢﹣﹦﹫−"


def an_opened_event(type_: str = "disclosure.authorised", **changes: Any) -> OpenedEvent:
    """A disclosure of two children to an analyst, from two organisations."""
    columns = {
        "event_id": "e" * 32, "at": AT, "type": type_, "op": OPS[type_].value, "organisation": "northshire-council",
        "person": "p-81", "role": "MASH_ANALYST", "purpose": "S47", "case": "c" * 64, "outcome": "disclosed",
        "break_glass": False,
    }  # fmt: skip
    sections = {
        "who": {"organisation": "northshire-council", "person": "p-81"},
        "what": {"categories": {"northshire-icb": {"health.registration": "status"},
                                "northshire-police": {"police.missing_episode": "summary"}}},
        "why": {"purpose": "S47", "clauses": ["northshire-mash@3.0.0#attendance-s47"]},
        "subjects": [CHILD, SIBLING, f"northshire-icb/health/{'a' * 64}"],
        "recipients": [{"organisation": "northshire-council", "person": "p-81"}],
    }  # fmt: skip
    for name in list(changes):
        if name in sections:
            sections[name] = changes.pop(name)
    return OpenedEvent(event=LoggedEvent(**columns | changes), log=ORIGIN, index=7, sections=sections)


def a_report(*rows: tuple[Cell, ...], events: tuple[OpenedEvent, ...] | None = ()) -> Report:
    return Report(
        code="R1", title="Disclosure register", period=Period(AT, AT.replace(hour=10)), made_at=AT,
        columns=("one", "two"), rows=lambda: iter(rows), events=None if events is None else lambda: iter(events),
    )  # fmt: skip


def file_of(report: Report, fmt: str) -> bytes:
    return b"".join(write(report, fmt, origin=ORIGIN).pieces)


# --- CSV ------------------------------------------------------------------------------------------------------------


@given(st.sampled_from(FORMULAS), st.text(), st.text(alphabet=" \u00a0\u200b\ufeff\u200e\x00", max_size=3))
def test_no_cell_of_a_csv_begins_a_formula_however_it_is_typed(sign: str, rest: str, before: str) -> None:
    """Attack 39."""
    assert guarded(before + sign + rest) == f"'{before}{sign}{rest}"


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00")), min_size=1, max_size=4))
def test_a_csv_row_is_read_back_as_it_was_written_but_for_the_guard(cells: list[str]) -> None:
    written = csv_row(tuple(cells))
    assert written.endswith(b"\r\n")
    (read,) = csv.reader(io.StringIO(written.decode(), newline=""), strict=True)
    assert read == [guarded(cell) for cell in cells]
    assert [cell.removeprefix("'") if cell not in cells else cell for cell in read] == cells


def test_a_csv_has_its_columns_first_crlf_and_instants_in_utc() -> None:
    written = file_of(a_report((AT, ("b", "a")), (None, True), ('say "no", twice', "=1+1")), "csv").decode()
    assert written == (
        "one,two\r\n2026-11-22T09:00:00.000Z,b; a\r\n,yes\r\n\"say \"\"no\"\", twice\",'=1+1\r\n"
    )  # fmt: skip


def test_json_carries_what_a_page_to_print_needs() -> None:
    written = json.loads(file_of(a_report((AT, ("b", "a")), (None, 3)), "json"))
    assert written["rows"] == [["2026-11-22T09:00:00.000Z", ["b", "a"]], [None, 3]]
    assert (written["report"], written["title"], written["columns"]) == ("R1", "Disclosure register", ["one", "two"])
    assert (written["since"], written["until"]) == ("2026-11-22T09:00:00.000Z", "2026-11-22T10:00:00.000Z")
    assert json.loads(file_of(a_report(), "json"))["rows"] == []


def test_a_file_counts_what_it_holds_and_is_written_piece_by_piece() -> None:
    read = 0

    def rows() -> Iterator[tuple[Cell, ...]]:
        nonlocal read
        for number in range(1_000):
            read += 1
            yield (number, "x")

    written = write(
        Report(code="R1", title="", period=Period(AT, AT.replace(hour=10)), made_at=AT, columns=("n", "x"), rows=rows),
        "csv", origin=ORIGIN,
    )  # fmt: skip
    for number, _ in enumerate(written.pieces):
        assert read <= number + 1
    assert written.rows == 1_000


@pytest.mark.parametrize("fmt", ["fhir", "ocsf", "cef"])
def test_what_is_made_of_no_events_has_no_format_of_events(fmt: str) -> None:
    with pytest.raises(Malformed, match="made of no events"):
        write(a_report(events=None), fmt, origin=ORIGIN)


def test_another_format_is_none() -> None:
    with pytest.raises(Malformed, match=", ".join(FORMATS)):
        write(a_report(), "xlsx", origin=ORIGIN)


# --- FHIR -----------------------------------------------------------------------------------------------------------


def test_every_type_of_event_is_an_audit_event_that_fhirs_own_classes_take() -> None:
    from fhir.resources.R4B.bundle import Bundle

    events = tuple(an_opened_event(type_) for type_ in EVENT_TYPES)
    bare = tuple(
        an_opened_event(type_, person="", role="", purpose="", case="", outcome="", subjects=[], recipients=[], what={},
                        why={})
        for type_ in EVENT_TYPES
    )  # fmt: skip
    for some in (events, bare):
        bundle = Bundle.model_validate_json(file_of(a_report(events=some), "fhir"))
        assert len(bundle.entry) >= len(some)
    erased = OpenedEvent(event=events[0].event, log=ORIGIN, index=7, sections={})
    Bundle.model_validate_json(file_of(a_report(events=(erased,)), "fhir"))
    Bundle.model_validate_json(file_of(a_report(events=()), "fhir"))


def test_a_disclosure_is_ihes_privacy_disclosure_at_its_source_once_for_each_person() -> None:
    """What BALP 1.1.4 demands of PrivacyDisclosure.Source, rule by rule."""
    found = list(fhir.resources(an_opened_event(), origin=ORIGIN))
    assert [one["entity"][0]["what"]["identifier"]["value"] for one in found] == [CHILD, SIBLING]
    assert len({one["id"] for one in found}) == 2
    for one in found:
        assert one["meta"]["profile"] == [fhir.DISCLOSURE]
        assert (one["type"]["system"], one["type"]["code"]) == (fhir.DCM, "110106")
        assert sum((kind["system"], kind["code"]) == (fhir.LIFECYCLE, "disclose") for kind in one["subtype"]) == 1
        assert (one["action"], one["outcome"]) == ("R", "0")
        by_type = {
            coding["code"]: agent
            for agent in one["agent"]
            for coding in agent.get("type", {}).get("coding", [])
        }  # fmt: skip
        source, recipient = by_type["110153"], by_type["110152"]
        assert source["who"] == one["source"]["observer"]
        assert source["network"]["address"] == "broker.example"
        assert recipient["who"]["identifier"]["value"] == "northshire-council"
        assert recipient["network"]["type"] == "5"
        patients = [each for each in one["entity"] if each["type"]["code"] == "1"]
        assert [each["role"]["code"] for each in patients] == ["1"]
        data = {each["what"]["identifier"]["value"]: each for each in one["entity"] if "detail" in each}
        assert data["northshire-icb"]["detail"] == [{"type": "health.registration", "valueString": "status"}]
        (asker,) = [agent for agent in one["agent"] if agent["requestor"]]
        assert asker["policy"] == [f"{fhir.OURS}:agreement:northshire-mash@3.0.0#attendance-s47"]


def test_one_organisation_that_released_something_is_its_custodian() -> None:
    one = an_opened_event(what={"categories": {"northshire-icb": {"health.registration": "status"}}})
    (custodian,) = [
        agent
        for agent in next(fhir.resources(one, origin=ORIGIN))["agent"]
        for coding in agent.get("type", {}).get("coding", [])
        if (coding["system"], coding["code"]) == (fhir.SNOMED, "159541003")
    ]
    assert custodian["who"]["identifier"]["value"] == "northshire-icb"


@pytest.mark.parametrize(
    ("type_", "outcome"),
    [("search.refused", "4"), ("auth.denied", "4"), ("linkage.run_failed", "8"), ("search.completed", "0")],
)
def test_a_refusal_is_a_minor_failure_and_a_fault_a_serious_one(type_: str, outcome: str) -> None:
    assert next(fhir.resources(an_opened_event(type_), origin=ORIGIN))["outcome"] == outcome
    assert type_ in fhir.types_of_outcome(outcome)


# --- OCSF -----------------------------------------------------------------------------------------------------------

_UID: Final = {"type": "string", "minLength": 1}
OCSF_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid", "actor",
                 "src_endpoint"],
    "properties": {
        "activity_id": {"type": "integer"}, "category_uid": {"enum": [3, 6]}, "class_uid": {"enum": [3002, 6003]},
        "severity_id": {"enum": [0, 1, 2, 3, 4, 5, 6, 99]}, "status_id": {"enum": [0, 1, 2, 99]},
        "time": {"type": "integer", "minimum": 10**12}, "type_uid": {"type": "integer"},
        "metadata": {
            "type": "object", "required": ["product", "version"],
            "properties": {"version": {"pattern": r"^\d+\.\d+\.\d+$"}, "product": {"type": "object", "anyOf": [
                {"required": ["name"]}, {"required": ["uid"]}]}},
        },
        "actor": {
            "type": "object", "minProperties": 1,
            "properties": {"user": {"type": "object", "properties": {"uid": _UID, "type_id": {"enum": [0, 1, 2, 3, 99]}},
                                    "anyOf": [{"required": ["name"]}, {"required": ["uid"]}]}},
        },
        "src_endpoint": {"type": "object", "anyOf": [{"required": [name]} for name in ("ip", "uid", "name", "hostname")],
                         "properties": {"uid": _UID}},
        "unmapped": {"type": "object"},
        "resources": {"type": "array", "items": {"type": "object", "anyOf": [{"required": ["name"]}, {"required": ["uid"]}]}},
    },
    "oneOf": [
        {
            "properties": {"class_uid": {"const": 6003}, "category_uid": {"const": 6},
                           "activity_id": {"enum": [0, 1, 2, 3, 4, 99]},
                           "api": {"type": "object", "required": ["operation"], "properties": {"operation": _UID}}},
            "required": ["api"],
        },
        {
            "properties": {"class_uid": {"const": 3002}, "category_uid": {"const": 3},
                           "activity_id": {"enum": [0, 1, 2, 3, 4, 5, 6, 99]}, "user": {"type": "object"}},
            "required": ["user", "service"],
        },
    ],
}  # fmt: skip
"""What OCSF 1.3.0 demands of API Activity (6003) and Authentication (3002), written down from its published schema."""


def test_every_type_of_event_is_an_ocsf_event_of_its_class() -> None:
    events = tuple(an_opened_event(type_) for type_ in EVENT_TYPES)
    bare = tuple(an_opened_event(type_, person="", role="", organisation="") for type_ in EVENT_TYPES)
    lines = file_of(a_report(events=(*events, *bare)), "ocsf").decode().splitlines()
    assert len(lines) == 2 * len(EVENT_TYPES)
    checker = jsonschema.Draft202012Validator(OCSF_SCHEMA)
    for line in lines:
        one = json.loads(line)
        checker.validate(one)
        assert one["type_uid"] == one["class_uid"] * 100 + one["activity_id"]
        assert one["category_uid"] == one["class_uid"] // 1000


def test_break_glass_and_refusals_stand_out_in_ocsf() -> None:
    assert ocsf.activity(an_opened_event(), origin=ORIGIN)["severity"] == "Informational"
    assert ocsf.activity(an_opened_event("search.refused"), origin=ORIGIN)["status"] == "Failure"
    assert ocsf.activity(an_opened_event(break_glass=True), origin=ORIGIN)["severity"] == "High"


# --- CEF ------------------------------------------------------------------------------------------------------------


def test_nothing_that_was_typed_adds_a_line_or_a_field_to_cef() -> None:
    """Attack 39: a line break in a note, an em dash in a name, a separator of either part."""
    hostile = "x\r\nCEF:0|evil|x|1|y|z|9|act=erasure\u2028suser=root\u2014|\\"
    one = an_opened_event(
        person=hostile, outcome=hostile, recipients=[{"organisation": hostile}], why={"clauses": [hostile]}
    )
    line = file_of(a_report(events=(one,)), "cef").decode()
    assert line.count("\n") == 1
    assert len(line.splitlines()) == 1
    head, pairs = parsed(line.rstrip("\n"))
    assert head[:4] == ["CEF:0", "Safeguarding broker", "broker", "1"]
    assert pairs["act"] == "disclosure"
    assert pairs["suser"] == "x  CEF:0|evil|x|1|y|z|9|act=erasure suser=root\u2014|\\"
    assert set(pairs) == {
        "rt", "externalId", "act", "suser", "sourceServiceName", "reason", "outcome", "cs1Label", "cs1", "cs2Label",
        "cs2", "cs3Label", "cs3", "cs4Label", "cs4", "cs5Label", "cs5", "cs6Label", "cs6", "cn1Label", "cn1",
    }  # fmt: skip


@given(st.text(), st.text())
def test_a_line_of_cef_is_read_back_as_its_event(person: str, outcome: str) -> None:
    _, pairs = parsed(cef.line(an_opened_event(person=person, outcome=outcome), origin=ORIGIN))
    for name, value in (("suser", person), ("outcome", outcome)):
        assert pairs.get(name, "") == "".join(one if one.isprintable() else " " for one in value)


def parsed(line: str) -> tuple[list[str], dict[str, str]]:
    """A line as a collector reads it: by the escapes of CEF alone."""
    fields: list[str] = []
    current, at = "", 0
    while len(fields) < 7:
        if line[at] == "\\":
            current, at = current + line[at + 1], at + 2
        elif line[at] == "|":
            fields, current, at = [*fields, current], "", at + 1
        else:
            current, at = current + line[at], at + 1
    told = line[at:]
    equals = [n for n, one in enumerate(told) if one == "=" and _backslashes(told, n) % 2 == 0]
    pairs = {}
    for number, place in enumerate(equals):
        key = told[:place].rpartition(" ")[2]
        ends = told.rindex(" ", 0, equals[number + 1]) if number + 1 < len(equals) else len(told)
        raw = told[place + 1 : ends]
        pairs[key] = raw.replace("\\=", "=").replace("\\\\", "\\")
    return fields, pairs


def _backslashes(text: str, before: int) -> int:
    return before - len(text[:before].rstrip("\\"))
