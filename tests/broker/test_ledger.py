"""Each holder is told who was shown what of its records, of what was hidden nothing, and it says what it has read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any, Final

import pytest
from typer.testing import CliRunner, Result

from broker import clock as broker_clock
from broker import considering, ledger, splits
from broker.api.searches import in_service
from broker.store.erasing import Body, empty_elsewhere, empty_events
from broker.store.log import EventRow
from broker.store.notices import NoticeRecordRow, NoticeRow
from broker.store.runs import LinkRunRow
from broker.store.searches import SearchCandidateRow, SearchRow, ViewRow
from linkage.agency import client
from linkage.agency import clock as agency_clock
from linkage.agency import ledger as at_agency
from linkage.agency.cli import app as agency_app
from linkage.agency.cli import ledger as cli_ledger
from linkage.agency.settings import Home
from linkage.matching.link import ClusterEvent
from tests.broker.test_considering import at_gateway, events
from tests.builders import COUNCIL, ICB, PARTNERSHIP, POLICE
from tests.builders_area import ANALYST, DECIDER, Area
from tests.builders_families import ELI, FAY, KIT, NOBODY, NOOR, ROBIN, SOLO, VIC

REP: Final = "AGENCY_REP"
NIGHTLY: Final = {"organisation": PARTNERSHIP, "method": "nightly"}


def by_machine(area: Area, agency: str, method: str, path: str, body: Any = None) -> Any:
    """What the broker answers an organisation's machine."""
    token = area.asker(agency=agency).broker._token()
    return area.http.request(method, f"/v1/ledger{path}", json=body, headers={"Authorization": f"Bearer {token}"})


def accesses(area: Area, agency: str, which: str = "all") -> list[dict[str, Any]]:
    """An organisation's ledger, all pages of it."""
    area.size()
    found, cursor = [], ""
    while True:
        answer = by_machine(area, agency, "GET", f"?which={which}{cursor}")
        assert answer.status_code == 200, answer.text
        found += answer.json()["accesses"]
        if answer.json()["next"] is None:
            return found
        cursor = f"&cursor={answer.json()['next']}"


def refs(found: list[dict[str, Any]]) -> set[str]:
    return {record["record_ref"] for one in found for record in one["records"]}


def test_every_view_is_told_once_to_each_organisation_whose_records_it_showed(area: Area) -> None:
    analyst = area.asker(ANALYST)
    view = analyst.view(ROBIN.typed(), case="L1")
    shown = {tile["organisation"]: tile for tile in view["tiles"]}
    assert {ICB, POLICE} <= shown.keys()
    for agency, tile in shown.items():
        found = accesses(area, agency)
        assert [one["kind"] for one in found] == ["search", "view"]
        searched, viewed = found
        assert searched["records"]
        assert all(record["categories"] == [] for record in searched["records"])
        assert viewed["event_id"] == view["receipt"]["event_id"]
        assert (viewed["organisation"], viewed["role"], viewed["person"]) == (COUNCIL, ANALYST, analyst.actor.person)
        assert (viewed["purpose"], viewed["ended"]) == ("MASH_SCREEN", "completed")
        assert viewed["collected_at"] is None is viewed["recalled_at"]
        told = {(each["category"], each["mode"]) for record in viewed["records"] for each in record["categories"]}
        assert told >= {(each["category"], each["mode"]) for each in tile["categories"] if each["mode"] != "none"}
        ours = {
            area.home(agency).record_ref(flow, ROBIN.id) for flow in ("education", "social_care", "health", "police")
        }
        assert refs([searched]) <= ours
        own = {(record["flow"], record["record_ref"]) for record in viewed["records"] if record["record_ref"]}
        assert (tile["flow"], area.home(agency).record_ref(tile["flow"], ROBIN.id)) in own
        assert all(record["clauses"] for record in viewed["records"])
    others = refs(accesses(area, ICB))
    assert not others & refs(accesses(area, POLICE)) | (others & refs(accesses(area, COUNCIL)))


@pytest.mark.parametrize("hidden", [FAY, NOOR])
def test_who_is_hidden_is_in_nobodys_ledger_and_the_log_is_as_for_nobody(area: Area, hidden: Any) -> None:
    decider = area.asker(DECIDER)
    by_place = hidden.typed(nhs_number="", day="", month="", year="") if hidden is NOOR else hidden.typed()
    sizes, statements = [], []
    for typed in (by_place, NOBODY.typed()):
        before = area.size()
        assert decider.search(typed, case="L2")["candidates"] == []
        statements.append([row.type for row in events_from(area, before)])
        sizes.append(area.size() - before)
    assert sizes[0] == sizes[1]
    assert statements[0] == statements[1] == ["search.authorised", "search.completed"]
    assert all(accesses(area, agency) == [] for agency in (COUNCIL, ICB, POLICE))
    before, at = area.size(), broker_clock.now()
    broker = area.broker
    considering.raise_due(
        broker.store, broker.trail, broker.keys, in_service(broker), partnership=PARTNERSHIP, slot=at, at=at
    )
    assert area.size() == before + 1  # the round, which there is anyway
    assert all(accesses(area, agency) == [] for agency in (COUNCIL, ICB, POLICE))  # it is told elsewhere


@pytest.mark.parametrize("child", [ROBIN, NOOR, KIT, ELI, VIC])
def test_a_view_is_told_of_exactly_the_records_that_it_showed(area: Area, child: Any) -> None:
    view = area.asker(ANALYST).view(child.typed(), case="L3")
    event = view["receipt"]["event_id"]
    area.size()
    subjects = area.broker.trail.opening(event, show=("subjects",)).body("subjects")
    assert isinstance(subjects, list)
    looked = json.loads(area.broker.trail.blob(event, "looked_at"))
    shown = {one for one in subjects if isinstance(one, str) and "/" in one}
    told = {
        "/".join((agency, record["flow"], record["record_ref"]))
        for agency in (COUNCIL, ICB, POLICE)
        for one in accesses(area, agency) if one["event_id"] == event
        for record in one["records"]
    }  # fmt: skip
    assert told == shown
    assert shown <= {"/".join((agency, flow, ref)) for _, ref, agency, flow, _ in looked}


def test_what_was_read_is_said_once_and_is_not_new_any_more(area: Area) -> None:
    area.asker(ANALYST).view(ROBIN.typed(), case="L4")
    new = accesses(area, ICB, "new")
    assert len(new) == 2
    ids = [one["notice"] for one in new]
    theirs = [one["notice"] for one in accesses(area, POLICE, "new")]
    answer = by_machine(area, ICB, "POST", "/read", {"notices": ids + theirs})
    assert (answer.status_code, answer.json()["notices"], answer.json()["recalls"]) == (201, 2, 0)
    again = by_machine(area, ICB, "POST", "/read", {"notices": ids})
    assert (again.status_code, again.json()["notices"]) == (201, 0)
    assert accesses(area, ICB, "new") == []
    assert [one["collected_by"] for one in accesses(area, ICB, "read")] == ["machine", "machine"]
    assert len(accesses(area, POLICE, "new")) == 2  # another's receipt counts for nothing
    assert len(events(area, "ledger.collected")) == 2


def test_the_latest_25_accesses_of_a_record_and_of_no_other_organisations(area: Area) -> None:
    analyst = area.asker(ANALYST)
    for n in range(27):
        analyst.search(ROBIN.typed(), case=f"L5-{n}")
    area.size()
    ref = area.home(ICB).record_ref("health", ROBIN.id)
    answer = at_gateway(area, ICB, "POST", "/ledger/accesses", {"record_ref": ref})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (len(told["accesses"]), told["more"]) == (25, True)
    assert [one["at"] for one in told["accesses"]] == sorted((one["at"] for one in told["accesses"]), reverse=True)
    assert refs(told["accesses"]) == {ref}
    for agency, asked in ((POLICE, ref), (ICB, "0" * 64)):
        nothing = at_gateway(area, agency, "POST", "/ledger/accesses", {"record_ref": asked}).json()
        assert (nothing["accesses"], nothing["more"]) == ([], False)


def test_reading_the_ledger_is_itself_in_the_log_whether_there_is_anything_or_not(area: Area) -> None:
    for searched in (False, True):
        if searched:
            area.asker(ANALYST).search(ROBIN.typed(), case="L6")
        before = area.size()
        accesses(area, POLICE)
        assert [row.type for row in events_from(area, before)] == ["ledger.listed"]


def test_an_analyst_does_not_read_the_ledger_nor_one_who_is_not_signed_in(area: Area) -> None:
    assert at_gateway(area, ICB, "GET", "/ledger", role=ANALYST).status_code == 403
    assert at_gateway(area, ICB, "GET", "/ledger", role=REP).status_code == 200
    assert area.http.get("/v1/ledger").status_code == 401


def test_nothing_of_a_notice_lies_in_clear(area: Area) -> None:
    area.asker(ANALYST).view(ROBIN.typed(), case="L7")
    ref = area.home(ICB).record_ref("health", ROBIN.id).encode()
    with area.broker.store.reading() as reading:
        notices, records = reading.all(NoticeRow), reading.all(NoticeRecordRow)
    assert len(notices) == len({(one.event_id, one.agency) for one in notices})
    assert records
    assert all(ref not in row.sealed and ref.decode() not in row.record_index for row in records)


def test_an_answer_that_nobody_took_is_told_as_such(area: Area) -> None:
    view = area.asker(ANALYST).view(ROBIN.typed(), case="L8")
    broker = area.broker
    with broker.store.transaction() as tx:
        ledger.ended(tx, event_id=view["receipt"]["event_id"], how="broken_off")
    assert [one["ended"] for one in accesses(area, ICB)] == ["completed", "broken_off"]


def events_from(area: Area, size: int) -> list[EventRow]:
    area.size()
    with area.broker.store.reading() as reading:
        return [row for row in reading.all(EventRow, order=("seq",)) if row.seq >= size]


def a_split(area: Area, person_id: str) -> None:
    """A run that splits a person goes into service."""
    broker, at = area.broker, broker_clock.now()
    with broker.store.transaction() as tx:
        splits.keep(
            broker.trail, tx, [ClusterEvent(kind="split", before=(person_id,), after=(person_id, "new"))],
            run=tx.all(LinkRunRow)[0].id, seq=99, who=NIGHTLY, at=at,
        )  # fmt: skip


def recall(area: Area) -> int:
    return ledger.recall_due(area.broker.store, area.broker.trail, who=NIGHTLY, at=broker_clock.now())


def test_everyone_who_was_shown_a_person_that_was_split_is_told_once_and_each_answer_is_recalled(area: Area) -> None:
    analyst, decider = area.asker(ANALYST), area.asker(DECIDER)
    view = analyst.view(ROBIN.typed(), case="R1")
    decider.search(ROBIN.typed(), case="R2")
    decider.search(KIT.typed(), case="R3")  # is another
    with area.broker.store.reading() as reading:
        person = reading.all(SearchCandidateRow, search=reading.all(SearchRow, case_hmac=case_of(area, view))[0].id)[0]
    a_split(area, person.person_id)
    assert by_machine(area, COUNCIL, "GET", "/recalls").json()["recalls"] == []  # not in the log yet
    assert (recall(area), recall(area)) == (3, 0)
    recalled = events(area, "disclosure.recalled")
    assert len(recalled) == 3
    told = by_machine(area, COUNCIL, "GET", "/recalls").json()
    assert sorted((one["kind"], one["person"]) for one in told["recalls"]) == [
        ("search", analyst.actor.person), ("search", decider.actor.person), ("view", analyst.actor.person),
    ]  # fmt: skip
    assert {one["recalled_by"] for one in told["recalls"]} == {row.event_id for row in recalled}
    assert view["receipt"]["event_id"] in {one["event_id"] for one in told["recalls"]}
    assert by_machine(area, ICB, "GET", "/recalls").json()["recalls"] == []  # its people have seen nothing
    assert all(one["recalled_at"] for one in accesses(area, ICB) if one["person"] == analyst.actor.person)
    heard = [one["recall"] for one in told["recalls"]]
    assert by_machine(area, ICB, "POST", "/read", {"recalls": heard}).json()["recalls"] == 0
    assert by_machine(area, COUNCIL, "POST", "/read", {"recalls": heard}).json()["recalls"] == 3
    assert by_machine(area, COUNCIL, "GET", "/recalls").json()["recalls"] == []


def case_of(area: Area, view: Mapping[str, Any]) -> str:
    with area.broker.store.reading() as reading:
        row = reading.one(ViewRow, id=view["view"])
        assert row is not None
        search = reading.one(SearchRow, id=row.search)
    assert search is not None
    return search.case_hmac


def test_who_is_erased_is_in_no_ledger_any_more(area: Area) -> None:
    area.asker(ANALYST).view(ROBIN.typed(), case="E1")
    ref = area.home(ICB).record_ref("health", ROBIN.id)
    assert ref in refs(accesses(area, ICB))
    record = f"{ICB}/health/{ref}"
    with area.broker.store.transaction() as tx:
        gone = empty_elsewhere(tx, [record], {area.broker.keys.subject_index(record)})
    assert gone["notices"] == 2
    assert ref not in refs(accesses(area, ICB))
    assert refs(accesses(area, POLICE))


def test_what_has_expired_of_the_log_is_in_no_ledger_any_more(area: Area) -> None:
    view = area.asker(ANALYST).view(ROBIN.typed(), case="E2")
    assert len(accesses(area, ICB)) == 2
    with area.broker.store.transaction() as tx:
        row = tx.one(EventRow, event_id=view["receipt"]["event_id"])
        assert row is not None
        gone = Body(row.event_id, row.log_id, row.seq, row.type, row.t_ms)
        empty_events(tx, [gone], under="e", at=broker_clock.now())
    assert [one["kind"] for one in accesses(area, ICB)] == ["search"]
    with area.broker.store.reading() as reading:
        kept = {one.id for one in reading.all(NoticeRow)}
        assert {one.notice for one in reading.all(NoticeRecordRow)} <= kept


# --- At the agency ----------------------------------------------------------------------------------------------------


@pytest.fixture
def agency(area: Area, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The `agency` command, with this broker for the one that the home names."""

    def asked(home: Home) -> client.Broker:
        return client.Broker(home, now=agency_clock.now, http=area.http, sleep=lambda _: None)

    monkeypatch.setattr(cli_ledger, "broker_of", asked)

    def run(*words: str, whose: str = ICB) -> Result:
        area.size()
        return CliRunner().invoke(agency_app, ["ledger", "--home", str(area.home(whose).folder), *words])

    return run


def test_an_agency_reads_its_own_numbers_and_what_was_new_is_read(area: Area, agency: Callable[..., Result]) -> None:
    area.asker(ANALYST).view(ROBIN.typed(), case="C1")
    kept = agency("--keep")
    assert kept.exit_code == 0, kept.output
    assert f"health {ROBIN.id}: " in kept.output
    assert "Northshire Council, MASH analyst (p-mash_analyst): " in kept.output
    found = json.loads(agency("--json").output)["accesses"]
    assert {record["local_id"] for one in found for record in one["records"] if record["record_ref"]} == {
        ROBIN.id,
        KIT.id,
    }
    assert agency().output == "Nothing is new.\n"
    assert len(json.loads(agency("--json", "--all").output)["accesses"]) == 2
    ref = area.home(ICB).record_ref("health", ROBIN.id)
    for asked in (("--record", ref), ("--record", ROBIN.id, "--case")):
        assert len(json.loads(agency("--json", *asked).output)["accesses"]) == 2
    assert agency("--record", "none", "--case").exit_code == 1
    rows = list(csv.DictReader(StringIO(agency("--csv", "--all").output)))
    assert {row["local_id"] for row in rows if row["record_ref"]} == {ROBIN.id, KIT.id}
    assert {row["category"] for row in rows} > {""}


def test_what_others_were_shown_of_a_person_reported_as_mixed_up_is_recalled_once_before_any_split(
    area: Area, agency: Callable[..., Result]
) -> None:
    mine = area.asker(ANALYST).view(ROBIN.typed(), case="W1")
    theirs = area.asker(DECIDER).view(ROBIN.typed(), case="W2")
    alone = area.asker(ANALYST).view(SOLO.typed(), case="W3")  # of whom one record is known: there is no link to doubt
    for view in (mine, mine, alone):
        body = {"view": view["view"], "what": "whole_child", "how": "knows_the_child"}
        asker = area.asker(ANALYST)
        asker.broker._post("/v1/wrong-person", body, asker.actor)
    assert recall(area) == 4  # two searches and two views, once, though reported twice
    told = by_machine(area, COUNCIL, "GET", "/recalls").json()["recalls"]
    assert {one["why"] for one in told} == {"reported"}
    heard = {one["event_id"] for one in told}
    assert {mine["receipt"]["event_id"], theirs["receipt"]["event_id"]} < heard
    assert alone["receipt"]["event_id"] not in heard
    assert [row.outcome for row in events(area, "disclosure.recalled")] == ["reported"] * 4
    listed = agency(whose=COUNCIL)
    assert listed.exit_code == 1
    assert "may mix people up: so it was reported, and a reviewer looks" in listed.output


def test_a_recalled_answer_is_a_finding_at_the_agency_that_asked(area: Area, agency: Callable[..., Result]) -> None:
    view = area.asker(ANALYST).view(ROBIN.typed(), case="C2")
    with area.broker.store.reading() as reading:
        (row,) = reading.all(SearchRow, case_hmac=case_of(area, view))
        person = reading.all(SearchCandidateRow, search=row.id)[0].person_id
    a_split(area, person)
    recall(area)
    told = agency(whose=COUNCIL)
    assert told.exit_code == 1
    assert told.output.count("RECALLED: ") == 2
    assert agency(whose=COUNCIL).exit_code == 0


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@a", "\t=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_marked_as_text(cell: str) -> None:
    access = {"at": "2026-11-22T09:00:00Z", "person": cell, "records": []}
    out = StringIO()
    at_agency.write_csv([access], out)
    assert next(csv.DictReader(StringIO(out.getvalue())))["person"] == f"'{cell}"
