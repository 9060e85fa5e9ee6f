"""What nobody was shown is put before its holder, on a schedule, and before the asker never."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
import rfc8785

from broker import clock as broker_clock
from broker import considering
from broker.api.searches import in_service
from broker.considering import Schedule, slot_of
from broker.store.considerations import ConsiderationRow, RoundRow
from broker.store.log import BlobRow, EventRow
from broker.trail import EntryRef
from tests.builders import COUNCIL, ICB, PARTNERSHIP, POLICE
from tests.builders_area import DECIDER, MORNING, Area, Clock
from tests.builders_families import ELI, FAY, NOBODY, NOOR, ROBIN

REP = "AGENCY_REP"


def a_round(area: Area, minutes: int = 0) -> EntryRef | None:
    """Hold the round that is due so many minutes from now."""
    area.size()
    broker, at = area.broker, broker_clock.now() + timedelta(minutes=minutes)
    return considering.raise_due(
        broker.store, broker.trail, broker.keys, in_service(broker), partnership=PARTNERSHIP, slot=at, at=at
    )


def at_gateway(
    area: Area, agency: str, method: str, path: str, body: Any = None, *, role: str = REP, query: str = ""
) -> Any:
    """What the broker answers to somebody at a gateway."""
    asker = area.asker(role, agency=agency, person="p-rep")
    content = b"" if body is None else json.dumps(body).encode()
    headers = {
        "Authorization": f"Bearer {asker.broker._token()}", "Content-Type": "application/json",
        "Gateway-Assertion": asker.broker.assertion(asker.actor, method, f"/v1{path}{query}", content),
    }  # fmt: skip
    return area.http.request(method, f"/v1{path}{query}", content=content, headers=headers)


def items(area: Area, agency: str, *, person: str = "p-rep") -> list[dict[str, Any]]:
    """What an agency's representative reads."""
    rep = area.asker(REP, agency=agency, person=person)
    listed: list[dict[str, Any]] = rep.broker.considerations(rep.actor)["considerations"]
    return listed


def events(area: Area, type_: str) -> list[EventRow]:
    area.size()
    with area.broker.store.reading() as reading:
        return reading.all(EventRow, type=type_, order=("seq",))


def test_a_refusal_one_test_from_yes_that_would_betray_a_record_is_put_before_the_holder_alone(area: Area) -> None:
    decider = area.asker(DECIDER)
    decider.view(ROBIN.typed(), case="A1")
    answer = decider.search(ELI.typed(), case="A1")  # under another child's case
    nobody = decider.search(NOBODY.typed(), case="A1")
    assert answer["candidates"] == nobody["candidates"] == []
    assert answer["refusals"] == nobody["refusals"]
    assert items(area, COUNCIL) == []  # nothing in the request itself
    a_round(area)
    found = [one for one in items(area, COUNCIL) if one["kind"] == "sharing"]
    ref = area.home(COUNCIL).record_ref("education", ELI.id)
    (eli,) = [one for one in found if one["record_ref"] == ref]
    assert eli["kind"] == "sharing"
    assert eli["nearest"]["agreement"] == "northshire-mash@3.0.0"
    assert len(eli["nearest"]["lacks"]) == 1
    assert eli["nearest"]["text"]
    assert (eli["asker"]["organisation"], eli["asker"]["role"], eli["asker"]["purpose"]) == (
        COUNCIL, DECIDER, "MASH_SCREEN",
    )  # fmt: skip
    assert eli["asker"]["contact"]["phone"].startswith("01632")
    assert eli["state"] == "open"
    assert "p-mash" not in json.dumps(found)
    assert items(area, COUNCIL, person=decider.actor.person) == []  # were the asker its own agency's representative


def test_a_threshold_that_is_not_met_is_put_before_each_holder_with_what_it_lacks(area: Area) -> None:
    area.asker(DECIDER).search(ROBIN.typed(), case="A2", purpose="S47")
    a_round(area)
    for agency, category in ((ICB, "health.not_brought"), (POLICE, "police.missing_episode")):
        (item,) = items(area, agency)
        assert category in item["categories"]
        assert item["times"] == 1
        assert "threshold" in " ".join(item["nearest"]["lacks"]).lower()
        assert "Nothing was shown." in item["sentence"]
        home = area.home(agency)
        assert item["record_ref"] == home.record_ref(item["flow"], ROBIN.id)


def test_asked_again_in_the_same_case_it_is_the_same_item(area: Area) -> None:
    decider = area.asker(DECIDER)
    for _ in range(2):
        decider.search(ROBIN.typed(), case="A3", purpose="S47")
    a_round(area)
    decider.search(ROBIN.typed(), case="A3", purpose="S47")
    decider.search(ROBIN.typed(), case="A3-other", purpose="S47")
    a_round(area, 1)
    assert sorted(item["times"] for item in items(area, ICB)) == [1, 3]


def test_a_full_shield_alerts_its_owner_once_and_nobody_else(area: Area) -> None:
    decider = area.asker(DECIDER)
    for _ in range(2):
        assert decider.search(FAY.typed(), case="A4")["candidates"] == []
    a_round(area)
    (alert,) = items(area, COUNCIL)
    assert (alert["kind"], alert["flow"], alert["times"], alert["nearest"]) == ("shield", "social_care", 2, None)
    assert alert["record_ref"] == area.home(COUNCIL).record_ref("social_care", FAY.id)
    assert alert["categories"] == []
    assert "Ring their desk" in alert["sentence"]
    assert items(area, ICB) == items(area, POLICE) == []


def test_a_shielded_address_that_is_searched_for_alerts_whoever_shields_it(area: Area) -> None:
    by_place = NOOR.typed(nhs_number="", day="", month="", year="")
    assert area.asker().search(by_place, case="A5")["candidates"] == []
    a_round(area)
    alerts = [item for item in items(area, COUNCIL) if item["kind"] == "shield"]
    assert {(one["flow"], one["record_ref"]) for one in alerts} <= {
        ("social_care", area.home(COUNCIL).record_ref("social_care", "a02"))
    }


def test_a_round_is_one_leaf_whether_or_not_it_raises_anything_and_is_held_once(area: Area) -> None:
    before = area.size()
    assert a_round(area) is not None
    assert area.size() == before + 1
    area.asker(DECIDER).search(ROBIN.typed(), case="A6", purpose="S47")
    size = area.size()
    assert a_round(area, 1) is not None
    assert area.size() == size + 1
    assert a_round(area, 1) is not None
    assert a_round(area, 0) is None  # a later one has been held
    bodies = [
        area.broker.trail.opening(row.event_id, show=("what", "subjects", "recipients"))
        for row in events(area, "notice.batch")
    ]
    assert len({tuple(sorted(body.body("what"))) for body in bodies}) == 1  # type: ignore[arg-type]
    assert all(body.body("subjects") == [] == body.body("recipients") for body in bodies)
    with area.broker.store.reading() as reading:
        assert [row.through for row in reading.all(RoundRow, order=("slot",))] == sorted(
            row.through for row in reading.all(RoundRow)
        )


def test_a_holder_decides_its_own_items_alone_and_each_reading_and_decision_is_recorded(area: Area) -> None:
    area.asker(DECIDER).search(ROBIN.typed(), case="A7", purpose="S47")
    a_round(area)
    (item,) = items(area, ICB)
    path = f"/considerations/{item['consideration']}/decision"
    declined = {"decision": "declined", "reason": "detriment"}
    for agency, role, body, status in (
        (POLICE, REP, declined, 404),
        (ICB, DECIDER, declined, 403),
        (ICB, REP, {"decision": "declined"}, 400),
        (ICB, REP, {"decision": "declined", "reason": "cannot_be_bothered"}, 400),
        (ICB, REP, {"decision": "disclosed", "reason": "legal"}, 400),
        (ICB, "DSL", declined, 201),
        (ICB, REP, {"decision": "disclosed"}, 409),
    ):
        answer = at_gateway(area, agency, "POST", path, body, role=role)
        assert answer.status_code == status, (agency, role, body, answer.text)
    assert items(area, ICB) == []
    done = at_gateway(area, ICB, "GET", "/considerations", role="DSL", query="?state=declined").json()["considerations"]
    assert [(one["consideration"], one["state"], one["reason"]) for one in done] == [
        (item["consideration"], "declined", "detriment")
    ]
    assert at_gateway(area, ICB, "GET", "/considerations", role=DECIDER).status_code == 403
    (row,) = events(area, "consider_sharing.declined")
    opened = area.broker.trail.opening(row.event_id, show=("why", "subjects", "recipients"))
    assert opened.body("why")["reason"] == "CUSTODIAN_DECLINED(detriment)"  # type: ignore[index,call-overload]
    assert opened.body("subjects") == [f"{ICB}/health/{item['record_ref']}"]
    assert opened.body("recipients") == []
    assert {row.org for row in events(area, "consider_sharing.listed")} == {ICB}
    (other,) = items(area, POLICE)
    police = area.asker(REP, agency=POLICE)
    shared = police.broker.consider(other["consideration"], "disclosed", None, police.actor)
    assert shared["state"] == "disclosed"
    assert [row.org for row in events(area, "consider_sharing.shared")] == [POLICE]


def test_an_item_is_sealed_where_it_is_kept(area: Area) -> None:
    area.asker(DECIDER).search(ROBIN.typed(), case="A8", purpose="S47")
    a_round(area)
    with area.broker.store.reading() as reading:
        (row,) = reading.all(ConsiderationRow, agency=ICB)
    ref = area.home(ICB).record_ref("health", ROBIN.id)
    assert ref not in str(row.model_dump())
    assert DECIDER not in str(row.model_dump())


def test_an_answer_that_can_not_be_looked_into_is_counted_and_holds_up_no_other(area: Area) -> None:
    decider = area.asker(DECIDER)
    broken = decider.search(ROBIN.typed(), case="A9", purpose="S47")["receipt"]["event_id"]
    decider.search(ROBIN.typed(), case="A9-other", purpose="S47")
    area.size()
    with area.broker.store.transaction() as tx:
        row = tx.one(BlobRow, event_id=broken, name="looked_at")
        assert row is not None
        row.sealed = bytes(len(row.sealed))
        tx.add(row)
    a_round(area)
    assert len(items(area, ICB)) == 1
    (held,) = events(area, "notice.batch")
    detail = area.broker.trail.opening(held.event_id, show=("detail",)).body("detail")
    assert detail["failed"] == 1  # type: ignore[index,call-overload]
    assert json.loads(area.broker.trail.blob(held.event_id, "failed")) == [broken]
    notices = json.loads(area.broker.trail.blob(held.event_id, "notices"))
    assert detail["count"] == len(notices) > 1  # type: ignore[index,call-overload]
    commitments = [sha256(b"sg-audit/notice/v1\x00" + rfc8785.dumps(one)).hexdigest() for one in notices]
    assert detail["notices"] == sha256(rfc8785.dumps(commitments)).hexdigest()  # type: ignore[index,call-overload]


def test_the_schedule_holds_a_round_when_its_time_has_come_and_outlives_a_fault(clock: Clock) -> None:
    clock.put(MORNING + timedelta(seconds=59.8))
    held: list[datetime] = []
    reached = threading.Event()

    def fail(slot: datetime, at: datetime) -> None:
        held.append(slot)
        reached.set()
        raise RuntimeError("a fault of ours")

    schedule = Schedule(fail, minutes=1)
    schedule.start()
    assert reached.wait(5)
    assert schedule._thread.is_alive()
    schedule.stop()
    clock.put(MORNING)
    assert held == [MORNING + timedelta(minutes=1)]


@pytest.mark.parametrize(
    ("at", "minutes", "slot"),
    [("09:14:59", 15, "09:00"), ("09:15:00", 15, "09:15"), ("00:00:00", 1440, "00:00"), ("23:59:59", 7, "23:55")],
)
def test_rounds_are_held_at_fixed_times_of_the_day(at: str, minutes: int, slot: str) -> None:
    given = datetime.fromisoformat(f"2026-11-22T{at}").replace(tzinfo=UTC)
    assert f"{slot_of(given, minutes):%H:%M}" == slot
