"""Reports, breach packs, subject access and erasure as pages: nothing leaves before the log has its SHA-256."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from hashlib import sha256

import pytest

from broker.store.log import EventRow
from tests.builders_area import ANALYST, DECIDER, MORNING, Area, the_time
from tests.builders_families import ROBIN, a_linked_area
from tests.builders_pages import Officer, text_of, written

DAYS = {
    "first-day": "1", "first-month": "11", "first-year": "2026", "last-day": "30", "last-month": "11",
    "last-year": "2026",
}  # fmt: skip
AWARE = {"aware-day": "22", "aware-month": "11", "aware-year": "2026", "aware-time": "08:30"}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    """An area in which an analyst and a decision-maker have opened one family."""
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("rights") / "northshire")
        for role in (ANALYST, DECIDER):
            made.asker(role).view(ROBIN.typed(), case="D1")
        yield made
        made.close()


@pytest.fixture
def area(asked: Area, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    made = asked.copied(tmp_path_factory.mktemp("right") / "northshire")
    yield made
    made.close()


def robin(area: Area) -> str:
    """The person id under which the log knows the child."""
    area.size()
    with area.broker.store.reading() as reading:
        event = reading.all(EventRow, type="disclosure.authorised")[-1]
    (person, *_) = [
        one for one in area.broker.trail.opening(event.event_id, show=("subjects",)).body("subjects") if "/" not in one
    ]
    return str(person)


def recorded(area: Area, event_id: str) -> dict[str, object]:
    return dict(area.broker.trail.opening(event_id, show=("what",)).body("what"))


# --- Reports ---------------------------------------------------------------------------------------------------------


def test_every_report_says_what_it_answers_and_the_fourth_is_the_subjects_own(asked: Area) -> None:
    html = Officer.of(asked).get("/reports").text
    assert [code for code in range(1, 11) if f">R{code}: " not in html] == []
    assert 'href="/rights">R4' in html and 'href="/breaches">R7' in html
    assert Officer.of(asked).get("/reports/R11").status_code == 404


def test_a_report_comes_down_once_its_digest_is_in_the_log(area: Area) -> None:
    size = area.size()
    answer = Officer.of(area).post("/reports/R1", **DAYS, format="csv", reason="lawfulness")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == f'attachment; filename="R1-{answer.headers["export-event"]}.csv"'
    assert len(list(csv.DictReader(io.StringIO(answer.text)))) > 2
    assert written(area, size) == ["audit.exported"]
    assert recorded(area, answer.headers["export-event"])["sha256"] == sha256(answer.content).hexdigest()


def test_a_report_to_print_says_what_it_is_and_how_it_is_recorded(area: Area) -> None:
    size = area.size()
    said = text_of(Officer.of(area).post("/reports/R1", **DAYS, format="print", reason="self_monitoring").text)
    assert "R1: Disclosure register" in said and "Self-monitoring or discipline" in said
    assert "event_id utc actor org role" in said and "do not pass on" in said
    assert written(area, size) == ["audit.exported"]
    empty = text_of(Officer.of(area).post("/reports/R8", **DAYS, format="print", reason="integrity").text)
    assert "No events in this period. The log had " in empty


def test_a_report_that_lacks_something_is_not_made_and_keeps_what_was_typed(area: Area) -> None:
    size, officer = area.size(), Officer.of(area)
    answer = officer.post("/reports/R5", **(DAYS | {"last-year": "2025"}), format="fhir")
    assert answer.status_code == 422
    said = text_of(answer.text)
    assert "The last day must not be before the first" in said
    assert "Choose in which form" in said  # it is made of no events
    assert "Choose why you take this from the log" in said
    assert 'value="2025"' in answer.text
    assert "Enter the first day" in officer.post("/reports/R1", reason="lawfulness", format="csv").text
    assert "FHIR" not in officer.get("/reports/R5").text
    assert written(area, size) == []


# --- Breaches --------------------------------------------------------------------------------------------------------


def test_a_breach_pack_is_of_one_person_or_one_organisation_with_its_clock(area: Area) -> None:
    officer, person = Officer.of(area), robin(area)
    given = DAYS | AWARE | {"format": "json", "reason": "lawfulness"}
    size = area.size()
    pack = json.loads(officer.post("/breaches", **given, subject=person).text)
    assert written(area, size) == ["audit.exported"]
    parts = [dict(zip(pack["columns"], row, strict=True)) for row in pack["rows"]]
    assert {one["part"] for one in parts} == {"clock", "affected", "recipient", "containment"}
    assert parts[0]["utc"] == "2026-11-22T08:30:00.000Z"
    both = officer.post("/breaches", **given, subject=person, organisation="northshire-icb")
    assert "one of the two" in text_of(both.text)
    assert "The log knows nobody by this reference" in text_of(officer.post("/breaches", **given, subject="x").text)
    late = officer.post("/breaches", **(given | {"aware-time": "half past"}), subject=person)
    assert "Enter when you became aware" in text_of(late.text)


def test_what_a_review_found_to_be_a_breach_stands_there_with_its_clock(area: Area) -> None:
    officer = Officer.of(area)
    assert "None." in officer.page("/breaches")
    with area.broker.store.reading() as reading:
        event = reading.all(EventRow, type="disclosure.authorised")[-1]
    officer.done(f"/log/{event.event_id}/flag", why="complaint")
    officer.page("/reviews")
    officer.done(f"/reviews/{event.event_id}/take")
    officer.done(f"/reviews/{event.event_id}/decision", decision="breach", note="No case was open")
    size = area.size()
    said = officer.page("/breaches")
    assert written(area, size) == ["audit.searched"]
    assert "25 Nov 2026, 09:0" in said and "in 2 days" in said
    assert "Waiting for a second reviewer" in said
    assert "None." in Officer.of(area, person=event.actor_ref).page("/breaches")


# --- Subject access --------------------------------------------------------------------------------------------------


def test_a_ledger_is_shown_with_what_is_withheld_and_the_look_is_in_the_subjects_own_ledger(area: Area) -> None:
    officer, person = Officer.of(area), robin(area)
    assert "Enter a subject reference" in officer.post("/rights/ledger").text
    assert "Choose who asks" in officer.post("/rights/ledger", subject=person).text
    assert "It must be a person id" in text_of(officer.post("/rights/ledger", subject="Robin Sample").text)
    size = area.size()
    said = text_of(officer.post("/rights/ledger", subject=person, relation="self").text)
    assert written(area, size) == ["audit.searched"]
    entries = int(said.split(" entries about this subject")[0].rsplit(" ", 1)[1])
    assert said.count("Family view disclosed") == 2
    assert "Detail: Serious harm" in said
    assert "Check orders, protection and the child’s views first." in said
    said = text_of(officer.post("/rights/ledger", subject=person, relation="parent").text)
    assert f"{entries + 1} entries about this subject" in said and "Log consulted" in said
    assert "What was shown: Child abuse data" in said


def test_a_pack_follows_the_rulings_and_is_recorded_with_its_digest(area: Area) -> None:
    officer, person = Officer.of(area), robin(area)
    with area.broker.store.reading() as reading:
        first, second = reading.all(EventRow, type="disclosure.authorised", order=["seq"])[-2:]
    rulings = {f"x-{first.event_id}": "crime", f"o-{second.event_id}": "what,why"}
    size = area.size()
    answer = officer.post("/rights/pack", subject=person, relation="self", **rulings)
    assert answer.headers["content-type"] == "application/zip"
    assert written(area, size) == ["subject.report_issued"]
    report = answer.headers["export-event"]
    assert recorded(area, report)["sha256"] == sha256(answer.content).hexdigest()
    with zipfile.ZipFile(io.BytesIO(answer.content)) as pack:
        entries = {one["event_id"]: one for one in json.loads(pack.read("ledger.json"))["entries"]}
    assert first.event_id not in entries
    assert entries[second.event_id]["shown"]
    printed = text_of(officer.post("/rights/pack", subject=person, relation="self", **{"as": "print"}).text)
    assert "Who looked at this record" in printed and "withheld" in printed
    wrong = officer.post("/rights/pack", subject=person, relation="self", **{f"x-{first.event_id}": "whim"})
    assert wrong.status_code == 400


# --- Holds and erasure -----------------------------------------------------------------------------------------------


def test_a_hold_stops_an_erasure_and_two_people_carry_it_out_once_it_is_released(area: Area) -> None:
    one, two, person = Officer.of(area), Officer.of(area, person="ig-2"), robin(area)
    assert "Choose why" in one.post("/rights/holds", **{"hold-subject": person}).text
    size = area.size()
    one.done("/rights/holds", **{"hold-subject": person, "hold-reason": "complaint"})
    assert written(area, size) == ["legal_hold.set"]
    refused = one.post("/rights/erasures", **{"erase-subject": person, "erase-reason": "court_order"})
    assert refused.status_code == 409
    hold = one.get("/rights").text.split('action="/rights/holds/')[1].split("/")[0]
    size = area.size()
    one.done(f"/rights/holds/{hold}/release")
    assert written(area, size) == ["legal_hold.lifted"]
    size = area.size()
    one.done("/rights/erasures", **{"erase-subject": person, "erase-reason": "court_order"})
    assert written(area, size) == ["subject.erasure_proposed"]
    assert "A colleague decides" in one.page("/rights")
    assert "Erasures that wait for a second person 1" in two.page("/ig")
    erasure = two.get("/rights").text.split('action="/rights/erasures/')[1].split("/")[0]
    assert "Choose whether to erase" in two.post(f"/rights/erasures/{erasure}/decision").text
    assert one.post(f"/rights/erasures/{erasure}/decision", decision="approve").status_code == 403
    size = area.size()
    two.done(f"/rights/erasures/{erasure}/decision", decision="wrong_subject")
    assert written(area, size) == ["subject.erasure_refused"]
    assert "Refused: This is not the subject that was meant" in one.page("/rights")
    one.done("/rights/erasures", **{"erase-subject": person, "erase-reason": "court_order"})
    erasure = two.get("/rights").text.split('action="/rights/erasures/')[1].split("/")[0]
    two.done(f"/rights/erasures/{erasure}/decision", decision="approve")
    assert "0 entries about this subject" in text_of(
        one.post("/rights/ledger", subject=person, relation="self", alone="yes").text
    )
    size = area.size()
    one.done("/rights/lifts", **{"lift-subject": person, "lift-reason": "court_order"})
    assert written(area, size) == ["subject.lift_proposed"]
    lift = two.get("/rights").text.split('action="/rights/lifts/')[1].split("/")[0]
    size = area.size()
    two.done(f"/rights/lifts/{lift}/decision", decision="not_needed")
    assert written(area, size) == ["subject.lift_refused"]
