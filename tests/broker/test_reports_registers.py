"""The reports of information governance over a morning's work of a real partnership, and over events made by hand."""

from __future__ import annotations

import csv
import io
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

from audit.events import Event
from broker import clock, reports
from broker.callers import Caller
from broker.errors import LogUnavailable, Malformed, NotAllowed, NotFound
from broker.reports import REPORTS, About, Period
from broker.reports.formats import write
from broker.store import Store
from broker.store.agencies import AgencyRow
from broker.store.erasing import empty_subject
from broker.store.log import EventRow, ReviewRow
from broker.store.notices import NoticeRow
from broker.trail import Trail
from broker.wiring import Broker
from tests.builders import COUNCIL, ICB, POLICE
from tests.builders_area import ANALYST, DECIDER, MORNING, Area, the_time
from tests.builders_families import ROBIN, a_linked_area

OFFICER: Final = Caller(kind="officer", organisation="northshire", person="ig-1", role="IG_OFFICER", method="oidc")
AT: Final = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
LATER: Final = AT + timedelta(days=4)
ALL_DAY: Final = Period(AT - timedelta(hours=12), AT + timedelta(hours=12))
CHILD, SIBLING = "3b86a628-b8e2-4ccd-8d76-3988c53787e9", "9fe4e60e-2e56-4eb4-b027-a85b93444770"
ON_SQLITE = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

Row = Mapping[str, Any]


def rows_of(report: reports.Report) -> list[Row]:
    return [dict(zip(report.columns, row, strict=True)) for row in report.rows()]


def of(broker: Broker, code: str, **about: Any) -> list[Row]:
    made = reports.report(code, broker.store, broker.trail, ALL_DAY, about=About(**about), at=clock.now())
    return rows_of(made)


@pytest.fixture(scope="module")
def area(morning: tuple[Area, Row, Row]) -> Area:
    """The area after that morning."""
    return morning[0]


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Area, Row, Row]]:
    """One child, shown to an analyst and, under a threshold, to a decision-maker; one search that may list nobody.

    Beside the area: what that search was answered, and the analyst's view.
    """
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("reports") / "northshire")
        analyst, decider = made.asker(ANALYST), made.asker(DECIDER)
        view = analyst.open(analyst.search(ROBIN.typed(), case="R1"))
        answer = decider.search(ROBIN.typed(), case="R1")
        decider.threshold(answer, case="R1")
        decider.open(answer)
        analyst.threshold(analyst.search(ROBIN.typed(), case="R1"), case="R1")  # which an analyst may not
        refused = analyst.search(ROBIN.typed(), case="R2b", purpose="S47")
        made.broker.trail.advance_pending()
        yield made, refused, view
        made.close()


# --- R1 -------------------------------------------------------------------------------------------------------------


def test_the_disclosure_register_says_exactly_who_got_what_and_why(area: Area) -> None:
    rows = [row for row in of(area.broker, "R1") if row["categories"]]
    assert {row["role"] for row in rows} == {ANALYST, DECIDER}
    for row in rows:
        opened = area.broker.trail.opening(row["event_id"], show=("what", "why", "subjects"))
        what: Any = opened.body("what")
        for category in row["categories"]:
            assert what["categories"][row["source_org"]][category] == row["mode"]
        assert row["decision"] == "disclosed"
        assert row["recipient_org"] == (COUNCIL,)
        assert set(row["subject_token"]) <= set(opened.body("subjects"))  # type: ignore[arg-type]
        assert row["rule_id"] in opened.body("why")["clauses"]  # type: ignore[index,call-overload,operator]
        assert row["dsa_id@ver"] == (row["rule_id"].partition("#")[0],)
        assert row["basis"][0] == "public_task"
        assert row["link_id+band"] == f"{what['run']}+match"
    told = {(row["event_id"], row["source_org"], category) for row in rows for category in row["categories"]}
    for event in {row["event_id"] for row in rows}:
        what = area.broker.trail.opening(event, show=("what",)).body("what")
        assert told >= {(event, source, one) for source, modes in what["categories"].items() for one in modes}
    assert {row["threshold"] for row in rows if row["role"] == DECIDER} == {"L4"}


def test_a_search_that_listed_somebody_is_a_disclosure_that_they_are_known(area: Area) -> None:
    rows = [row for row in of(area.broker, "R1") if not row["categories"]]
    assert {row["source_org"] for row in rows} == {COUNCIL, ICB, POLICE}
    assert {(row["mode"], row["decision"]) for row in rows} == {("existence", "disclosed")}
    assert all(row["rule_id"].startswith("northshire-mash@3.0.0#") for row in rows)


def test_the_columns_of_the_register_are_those_information_governance_knows() -> None:
    assert ", ".join(REPORTS["R1"].columns) == (
        "event_id, utc, actor, org, role, case_ref, subject_token, purpose, threshold, dsa_id@ver, basis, categories, "
        "mode, source_org, recipient_org, decision, rule_id, link_id+band, notified_at"
    )
    assert REPORTS["R3"].columns == (*REPORTS["R1"].columns, "reviewer", "verdict", "hours")


@pytest.mark.parametrize("code", [code for code in REPORTS if code != "R7"])
def test_a_report_is_the_same_each_time_and_holds_no_name_or_number_in_clear(area: Area, code: str) -> None:
    made = reports.report(code, area.broker.store, area.broker.trail, ALL_DAY, at=AT + timedelta(hours=3))
    first, again = list(made.rows()), list(made.rows())
    assert first == again
    for name in (ROBIN.given, ROBIN.family, ROBIN.nhs, ROBIN.postcode):
        assert name not in str(first)


@ON_SQLITE
def test_an_answer_without_an_end_is_possibly_disclosed_and_one_nobody_took_is_aborted(
    store: Store, trail: Trail
) -> None:
    whole, cut, open_ = (logged(store, trail, at=AT + timedelta(minutes=n)) for n in range(3))
    ended(store, trail, "disclosure.aborted", cut, at=AT + timedelta(minutes=3))
    ended(store, trail, "disclosure.completed", whole, at=AT + timedelta(minutes=59))
    made = reports.report("R1", store, trail, Period(AT, AT + timedelta(minutes=30)), at=LATER)
    assert [(row["event_id"], row["decision"]) for row in rows_of(made)] == [
        (whole, "disclosed"), (cut, "aborted"), (open_, "possibly_disclosed"),
    ]  # fmt: skip


@ON_SQLITE
def test_the_register_says_when_each_holder_collected_its_notice(store: Store, trail: Trail) -> None:
    event = logged(store, trail)
    (row,) = rows_of(reports.report("R1", store, trail, ALL_DAY, at=LATER))
    assert (row["source_org"], row["notified_at"]) == (ICB, None)  # it has yet to ask for it
    with store.transaction() as tx:
        tx.add(AgencyRow(
            id=ICB, name="ICB", party_type="nhs", sector="health", partnership="northshire", key_epoch="2026-1",
            key_fingerprint="f" * 64, canaries=[], roles=[], contacts={}, enrolled_at=AT, changed_at=AT,
        ))  # fmt: skip
        tx.flush()
        tx.add(NoticeRow(id="n-1", agency=ICB, event_id=event, kind="view", at=AT, key_wrapped=b"x"))
    (row,) = rows_of(reports.report("R1", store, trail, ALL_DAY, at=LATER))
    assert row["notified_at"] is None  # it lies there, and nobody has collected it
    with store.transaction() as tx:
        notice = tx.one(NoticeRow, id="n-1")
        assert notice is not None
        notice.collected_at = LATER
        tx.add(notice)
    (row,) = rows_of(reports.report("R1", store, trail, ALL_DAY, at=LATER))
    assert (row["source_org"], row["notified_at"]) == (ICB, LATER)


@ON_SQLITE
def test_the_register_still_names_the_clauses_when_the_receipts_are_gone(store: Store, trail: Trail) -> None:
    logged(store, trail)
    (row,) = rows_of(reports.report("R1", store, trail, ALL_DAY, at=LATER))
    assert (row["rule_id"], row["mode"], row["categories"]) == (
        "northshire-mash@3.0.0#attendance-s47", "status", ("health.registration",),
    )  # fmt: skip


@ON_SQLITE
def test_an_erased_disclosure_stays_in_the_register_without_what_was_erased(store: Store, trail: Trail) -> None:
    event = logged(store, trail)
    with store.transaction() as tx:
        empty_subject(tx, trail.keys, frozenset({trail.keys.subject_index(CHILD)}), under="e" * 32, at=LATER)
    (row,) = rows_of(reports.report("R1", store, trail, ALL_DAY, at=LATER))
    assert (row["event_id"], row["decision"], row["org"]) == (event, "erased", COUNCIL)
    assert (row["subject_token"], row["categories"], row["rule_id"]) == ((), (), "")
    for fmt in reports.FORMATS:
        b"".join(write(reports.report("R1", store, trail, ALL_DAY, at=LATER), fmt, origin=trail.origin).pieces)


# --- R2, R3 ---------------------------------------------------------------------------------------------------------


def test_refusals_say_what_was_asked_and_what_the_asker_was_told(area: Area) -> None:
    (row,) = [row for row in of(area.broker, "R2") if row["step"] == "threshold"]
    assert (row["decision"], row["role"], row["extent"]) == ("THRESHOLD_UNAUTHORISED", ANALYST, "whole")
    assert row["subject_token"]


def test_a_search_and_a_view_that_the_agreements_refuse_are_refusals_whole_or_in_part(
    morning: tuple[Area, Row, Row],
) -> None:
    area, answer, view = morning
    assert answer["refusals"]
    assert not answer["candidates"]
    assert view["withheld"]
    rows = of(area.broker, "R2")
    for told, extent in ((answer, "refusals"), (view, "withheld")):
        event = told["receipt"]["event_id"]
        listed = {
            (row["decision"], *(row["source_org"] or ("",)), category)
            for row in rows
            if row["event_id"] == event
            for category in row["categories"] or ("",)
        }
        assert listed == {(one["code"], one["organisation"] or "", one["category"] or "") for one in told[extent]}
        assert {row["extent"] for row in rows if row["event_id"] == event} == {
            "whole" if extent == "refusals" else "part"
        }
    made = reports.report("R2", area.broker.store, area.broker.trail, ALL_DAY, at=clock.now())
    assert made.events is not None
    assert {one.event.event_id for one in made.events()} == {row["event_id"] for row in rows}


@ON_SQLITE
def test_break_glass_says_who_reviewed_it_how_and_how_many_hours_after(store: Store, trail: Trail) -> None:
    opened = logged(store, trail, "breakglass.opened", what={"outcome": "opened"}, at=AT)
    shown = logged(
        store, trail, what={"outcome": "disclosed", "break_glass": True, "categories": {ICB: {"health.plan": "summary"}}},
        at=AT + timedelta(minutes=5),
    )  # fmt: skip
    logged(store, trail, at=AT + timedelta(minutes=6))  # which broke no glass
    with store.transaction() as tx:
        tx.add(
            ReviewRow(
                id="r-1", event_id=shown, reviewer="ig-2", decision="justified", at=AT + timedelta(hours=4, minutes=35)
            )
        )
    for second, told in (
        ("", ("ig-2", "justified, waits for a second look", "4.5")),
        ("agreed", ("ig-2", "justified", "4.5")),
        ("sent_back", ("", "", "")),  # it is reviewed anew
    ):
        with store.transaction() as tx:
            review = tx.one(ReviewRow, id="r-1")
            assert review is not None
            review.second = second
            tx.add(review)
        rows = rows_of(reports.report("R3", store, trail, ALL_DAY, at=LATER))
        assert [(row["event_id"], row["reviewer"], row["verdict"], row["hours"]) for row in rows] == [
            (opened, "", "", ""), (shown, *told),
        ]  # fmt: skip


# --- R5, R6, R9, R10 ------------------------------------------------------------------------------------------------


def test_the_register_of_agreements_says_who_signed_what_flows_and_when_it_was_last_used(area: Area) -> None:
    rows = {row["dsa_id@ver"]: row for row in of(area.broker, "R5")}
    mash, planning = rows["northshire-mash@3.0.0"], rows["northshire-planning@1.0.0"]
    assert (mash["status"], mash["kind"], mash["unsigned"]) == ("active", "agreement", ())
    assert {f"{ICB}/health", f"{POLICE}/police"} <= set(mash["live_flows"])
    assert mash["last_used"] > MORNING
    assert planning["last_used"] is None
    assert mash["review_due"].isoformat() == "2027-03-31"


def test_the_record_of_processing_is_that_of_the_agreements_in_force(area: Area) -> None:
    rows = of(area.broker, "R6")
    assert {row["controller"] for row in rows} >= {"Northshire Council", "Chief Constable of Northshire Police"}
    assert {row["agreement"] for row in rows} >= {"northshire-mash@3.0.0"}


def test_link_quality_is_that_of_each_run_and_of_each_group_that_is_large_enough(area: Area) -> None:
    whole, *groups = of(area.broker, "R9")
    assert (whole["state"], whole["group"], whole["records"]) == ("published", "", 337)
    assert whole["linked_records"] <= whole["records"]
    assert groups
    assert {row["run"] for row in groups} == {whole["run"]}
    assert all(row["group_records"] is None or row["group_records"] >= 10 for row in groups)


def test_the_extract_for_police_holds_what_they_did_received_or_had_shown(area: Area) -> None:
    rows = of(area.broker, "R10")
    types = [row["type"] for row in rows]
    assert types.count("disclosure.authorised") == 2
    assert "linkage.published" in types
    assert not {"auth.login", "decision.made"} & set(types)
    for row in rows:
        with area.broker.store.reading() as reading:
            event = reading.one(EventRow, event_id=row["event_id"])
        assert event is not None
        assert (row["log"], row["log_index"]) == (event.log_id, event.seq)
        assert POLICE in (row["org"], *row["source_org"], *row["recipient_org"]) or row["op"] == "combination"
        if row["source_org"] and POLICE not in (row["org"], *row["recipient_org"]):  # who else knows whom is not told
            assert row["source_org"] == (POLICE,)
            assert {one.split("/")[0] for one in row["subject_token"]} == {POLICE}
    made = reports.report(
        "R10", area.broker.store, area.broker.trail, ALL_DAY, at=clock.now(), about=About(organisation=POLICE)
    )
    assert made.events is not None
    shown_to_others = [one for one in made.events() if one.event.type == "disclosure.authorised"]
    assert len(shown_to_others) == 2
    for other in (ICB, f"{COUNCIL}/", "#"):  # nor by another format
        assert not any(
            other in json.dumps([one.sections["subjects"], one.sections["why"], one.sections["what"].get("categories")])
            for one in shown_to_others
        )
    health = {row["event_id"] for row in of(area.broker, "R10", organisation=ICB)}
    assert health != {row["event_id"] for row in rows}


# --- R7, R8 ---------------------------------------------------------------------------------------------------------


@ON_SQLITE
def test_a_breach_pack_names_whoever_saw_a_person_and_what_contains_it(store: Store, trail: Trail) -> None:
    seen = logged(store, trail, subjects=[CHILD, SIBLING])
    logged(store, trail, subjects=[SIBLING])  # of somebody else
    logged(store, trail, subjects=[SIBLING], about=[CHILD, SIBLING])  # looked at, and hidden
    logged(store, trail, "disclosure.recalled", subjects=[], about=[CHILD], at=AT + timedelta(hours=5))
    made = reports.report(
        "R7", store, trail, ALL_DAY, at=AT + timedelta(hours=24),
        about=About(subject=CHILD, discovered=AT + timedelta(hours=2)),
    )  # fmt: skip
    rows = rows_of(made)
    assert [(row["subject_token"], row["note"]) for row in rows if row["part"] == "affected"] == [
        ((CHILD,), "shown 1 time, last 2026-11-22T09:00:00.000Z")
    ]
    (recipient,) = [row for row in rows if row["part"] == "recipient"]
    assert (recipient["event_id"], recipient["organisation"], recipient["person"]) == (seen, COUNCIL, "p-81")
    assert recipient["categories"] == ("health.registration",)
    discovered, due = [row for row in rows if row["part"] == "clock"]
    assert due["utc"] - discovered["utc"] == timedelta(hours=72)
    assert "50.0 hours left" in due["note"]
    steps = {row["note"]: row["state"] for row in rows if row["part"] == "containment"}
    assert steps["disclosures are recalled"] == "done"
    assert steps["the wrong link is split or severed"] == "not done"


@ON_SQLITE
def test_a_breach_pack_of_a_compromised_key_holds_all_that_was_shown_to_its_organisation(
    store: Store, trail: Trail
) -> None:
    seen = logged(store, trail, subjects=[CHILD, SIBLING])
    logged(store, trail, who={"organisation": ICB, "person": "p-7"})
    shared = logged(  # what a holder showed to it of its own accord, and what it showed to another
        store, trail, "consider_sharing.shared", who={"organisation": ICB, "person": "p-7"}, subjects=["person-9"],
        recipients=[{"organisation": COUNCIL}],
    )  # fmt: skip
    logged(
        store, trail, "consider_sharing.shared", who={"organisation": COUNCIL, "person": "p-81"}, subjects=["person-8"],
        recipients=[{"organisation": ICB}],
    )  # fmt: skip
    sent = logged(store, trail, "submission.accepted", what={"outcome": "accepted"}, subjects=[], recipients=[])
    revoked = logged(
        store, trail, "key.revoked", who={"organisation": "northshire"}, what={"key": f"{COUNCIL}/client-1"},
        subjects=[], recipients=[], at=AT + timedelta(days=3),
    )  # fmt: skip
    made = reports.report("R7", store, trail, ALL_DAY, at=AT + timedelta(hours=80), about=About(organisation=COUNCIL))
    rows = rows_of(made)
    assert {row["subject_token"] for row in rows if row["part"] == "affected"} == {(CHILD,), (SIBLING,), ("person-9",)}
    assert [row["event_id"] for row in rows if row["part"] in ("recipient", "sent")] == [seen, shared, sent]
    (clock_,) = [row for row in rows if row["part"] == "clock"]  # no 72 hours begin anew with each pack
    assert (clock_["utc"], clock_["state"]) == (None, "not told")
    assert [(row["event_id"], row["state"]) for row in rows if row["note"] == "the key is revoked"] == [
        (revoked, "done")
    ]


@ON_SQLITE
@pytest.mark.parametrize(
    ("code", "about"),
    [("R7", {}), ("R7", {"subject": CHILD, "organisation": COUNCIL}), ("R1", {"subject": CHILD}),
     ("R10", {"subject": CHILD})],
)  # fmt: skip
def test_a_report_is_about_what_it_can_be_about(store: Store, trail: Trail, code: str, about: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        reports.report(code, store, trail, ALL_DAY, about=About(**about), at=LATER)


@ON_SQLITE
def test_a_breach_pack_says_of_a_search_too_whose_information_it_showed(store: Store, trail: Trail) -> None:
    found = logged(
        store, trail, "search.authorised", subjects=[CHILD, f"{ICB}/health/r-1"], what={"outcome": "1_listed"}
    )
    rows = rows_of(reports.report("R7", store, trail, ALL_DAY, at=LATER, about=About(subject=CHILD)))
    assert [(row["event_id"], row["source_org"]) for row in rows if row["part"] == "recipient"] == [(found, (ICB,))]


@ON_SQLITE
def test_a_retention_certificate_has_a_row_for_each_count_and_digest(store: Store, trail: Trail) -> None:
    event = logged(
        store, trail, "retention.run", who={"organisation": "northshire"}, subjects=[], recipients=[],
        what={
            "by_type": {"search": 3, "disclosure": 2}, "sha256": "f" * 64, "terms": {"plain_years": 7},
            "outcome": "5_expired",
        },
    )  # fmt: skip
    rows = rows_of(reports.report("R8", store, trail, ALL_DAY, at=LATER))
    assert {row["event_id"] for row in rows} == {event}
    assert [(row["authority"], row["what"], row["count"], row["sha256"]) for row in rows] == [
        (("plain_years 7",), "events", 5, ""), (("plain_years 7",), "by_type.disclosure", 2, ""), (("plain_years 7",), "by_type.search", 3, ""),
        (("plain_years 7",), "sha256", None, "f" * 64),
    ]  # fmt: skip


# --- Exports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", reports.FORMATS)
def test_an_export_is_an_event_with_the_files_own_digest_before_it_leaves(area: Area, fmt: str) -> None:
    file = io.BytesIO()
    made = reports.export(
        area.broker.store, area.broker.trail, OFFICER, code="R1", period=ALL_DAY, fmt=fmt, reason="lawfulness",
        sink=file, at=clock.now(),
    )  # fmt: skip
    opened = area.broker.trail.opening(made.event_id, show=("who", "what", "why"))
    what: Any = opened.body("what")
    assert what["type"] == "audit.exported"
    assert what["sha256"] == sha256(file.getvalue()).hexdigest() == made.sha256
    assert (what["report"], what["format"], what["rows"], what["bytes"]) == ("R1", fmt, made.rows, len(file.getvalue()))
    assert opened.body("why") == {"reason": "lawfulness"}
    if fmt == "csv":
        assert len(list(csv.reader(io.StringIO(file.getvalue().decode(), newline="")))) == made.rows + 1
    if fmt == "json":
        assert len(json.loads(file.getvalue())["rows"]) == made.rows


@ON_SQLITE
def test_an_export_that_can_not_be_recorded_is_none(store: Store, trail: Trail, tmp_path: Path) -> None:
    logged(store, trail)
    (tmp_path / "signer").rename(tmp_path / "away")
    with pytest.raises(LogUnavailable):
        reports.export(
            store, trail, OFFICER, code="R1", period=ALL_DAY, fmt="csv", reason="integrity", sink=io.BytesIO(), at=LATER
        )


@ON_SQLITE
def test_only_information_governance_exports_and_only_about_those_the_log_knows(store: Store, trail: Trail) -> None:
    operator = Caller(kind="officer", organisation="northshire", person="o-1", role="OPERATOR", method="oidc")
    given: dict[str, Any] = {"period": ALL_DAY, "fmt": "csv", "sink": io.BytesIO(), "at": AT}
    with pytest.raises(NotAllowed):
        reports.export(store, trail, operator, code="R1", reason="integrity", **given)
    with pytest.raises(Malformed):
        reports.export(store, trail, OFFICER, code="R1", reason="curiosity", **given)
    for about in (About(subject="Wilhelmina"), About(organisation="Wilhelmina")):
        with pytest.raises(NotFound):
            reports.export(store, trail, OFFICER, code="R7", about=about, reason="integrity", **given)
    with pytest.raises(NotFound):
        reports.export(store, trail, OFFICER, code="R11", reason="integrity", **given)
    with store.reading() as reading:
        assert reading.all(EventRow) == []


def logged(
    store: Store,
    trail: Trail,
    type_: str = "disclosure.authorised",
    *,
    at: datetime = AT,
    about: Sequence[str] | None = None,
    **parts: Any,
) -> str:
    """An event of the log, by default a disclosure to the council's analyst."""
    given: dict[str, Any] = {
        "who": {"organisation": COUNCIL, "person": "p-81", "role": ANALYST},
        "what": {"outcome": "disclosed", "run": "run-1", "categories": {ICB: {"health.registration": "status"}}},
        "why": {"purpose": "S47", "case": "c" * 64, "clauses": ["northshire-mash@3.0.0#attendance-s47"]},
        "subjects": [CHILD],
        "recipients": [{"organisation": COUNCIL, "person": "p-81", "role": ANALYST}],
        "detail": {},
    } | parts
    event = Event(id=secrets.token_hex(16), type=type_, **given)
    with store.transaction() as tx:
        trail.record(tx, event, about=given["subjects"] if about is None else about, at=at)
    trail.advance_pending()
    return event.id


def ended(store: Store, trail: Trail, type_: str, event_id: str, *, at: datetime) -> None:
    logged(store, trail, type_, what={"authorised_by": event_id}, why={}, subjects=[], recipients=[], at=at)
