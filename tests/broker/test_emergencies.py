"""Broken glass: what it opens and what it never does, what is kept of it, and who may not do it again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit.events import SectionName
from broker import reviewing
from broker.emergencies import OVERDUE
from broker.store.audit_reviews import CaseRow
from broker.store.log import EventRow
from linkage.agency.gateway.broker_client import BrokerRefused
from tests.builders_area import ANALYST, MORNING, Area, Asker, Clock, shown, the_time
from tests.builders_families import ADA, ROBIN, a_linked_area


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    with the_time(MORNING) as clock:
        yield clock


@pytest.fixture(scope="module")
def area(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    made = a_linked_area(tmp_path_factory.mktemp("emergencies") / "northshire")
    yield made
    made.close()


@pytest.fixture
def analyst(area: Area) -> Asker:
    return area.asker(ANALYST)


@pytest.fixture
def changed(area: Area, clock: Clock, tmp_path: Path) -> Iterator[Area]:
    made = area.copied(tmp_path / "northshire")
    yield made
    made.close()
    clock.put(MORNING)


def test_it_shows_what_sources_signed_for_an_emergency_and_the_same_search_does_not(analyst: Asker) -> None:
    answer = analyst.search(ROBIN.typed(), case="E1")
    usual, urgent = analyst.open(answer), analyst.break_glass(answer)
    assert urgent["purpose"] == "EMERGENCY"
    before, now = shown(usual), shown(urgent)
    more = {category for category in now if category not in before or now[category]["mode"] != before[category]["mode"]}
    assert more
    under = {clause["clause"] for category in more for clause in now[category]["under"]}
    assert under == {"emergency"}
    assert datetime.fromisoformat(urgent["ends_at"]) - datetime.fromisoformat(urgent["at"]) == timedelta(minutes=60)


def test_the_next_view_of_the_same_child_is_as_before(analyst: Asker) -> None:
    answer = analyst.search(ROBIN.typed(), case="E2")
    usual = shown(analyst.open(answer))
    analyst.break_glass(answer)
    assert shown(analyst.open(answer)) == usual


def test_what_a_shield_hides_stays_hidden(area: Area, analyst: Asker) -> None:
    answer = analyst.search(ADA.typed(), case="E3")  # her address is shielded
    if answer["candidates"]:
        view = analyst.break_glass(answer)
        for entry in shown(view).values():
            assert "postcode" not in str(entry)


def opened_by(area: Area, emergency: str) -> EventRow:
    area.size()
    with area.broker.store.reading() as reading:
        row = reading.one(EventRow, event_id=emergency)
    assert row is not None
    return row


def body_of(area: Area, event_id: str, section: SectionName) -> Any:
    return area.broker.trail.opening(event_id, show=(section,)).body(section)


def test_the_log_has_the_reason_before_the_answer_and_the_words_sealed(area: Area, analyst: Asker) -> None:
    view = analyst.break_glass(analyst.search(ROBIN.typed(), case="E4"), words="Left school with a stranger")
    row = opened_by(area, view["emergency"])
    assert (row.type, row.break_glass, row.actor_ref) == ("breakglass.opened", True, analyst.actor.person)
    assert body_of(area, row.event_id, "why")["reason"] == "MISSING_NOW"
    assert body_of(area, row.event_id, "detail") == {"words": "Left school with a stranger"}
    with area.broker.store.reading() as reading:
        answered = reading.one(EventRow, event_id=view["receipt"]["event_id"])
    assert answered is not None
    assert answered.seq == row.seq + 1
    assert body_of(area, answered.event_id, "why")["emergency"] == row.event_id
    for file in area.settings.data_dir.parent.rglob("*"):
        if file.is_file():
            assert b"Left school with a stranger" not in file.read_bytes(), file.name


@pytest.mark.parametrize(
    ("reason", "words"),
    [("CURIOUS", "Because"), ("MISSING_NOW", ""), ("MISSING_NOW", "  "), ("MISSING_NOW", "x" * 501)],
)
def test_without_a_reason_nothing_is_opened_and_nothing_is_written(
    area: Area, analyst: Asker, reason: str, words: str
) -> None:
    answer = analyst.search(ROBIN.typed(), case="E5")
    before = area.size()
    with pytest.raises(BrokerRefused) as refused:
        analyst.break_glass(answer, reason=reason, words=words)
    assert refused.value.status in (400, 422)
    assert area.size() == before


def test_each_use_waits_for_a_review_by_the_next_working_day(area: Area, analyst: Asker) -> None:
    view = analyst.break_glass(analyst.search(ROBIN.typed(), case="E6"))
    area.size()
    with area.broker.store.transaction() as tx:
        reviewing.admit(tx, at=MORNING)
        case = tx.one(CaseRow, event_id=view["emergency"])
    assert case is not None
    assert (case.kind, case.state) == ("break_glass", "open")
    assert case.due_at == reviewing.due(MORNING, "break_glass")


def test_whoever_s_last_was_not_reviewed_in_time_breaks_no_glass_until_it_is(changed: Area, clock: Clock) -> None:
    analyst, colleague = changed.asker(ANALYST), changed.asker(ANALYST, person="p-colleague")
    first = analyst.break_glass(analyst.search(ROBIN.typed(), case="E7"))
    clock.put(reviewing.due(MORNING, "break_glass") + timedelta(seconds=1))
    answer = analyst.search(ROBIN.typed(), case="E7")
    with pytest.raises(BrokerRefused) as refused:
        analyst.break_glass(answer)
    assert (refused.value.status, refused.value.detail) == (403, OVERDUE)
    assert analyst.open(answer)["tiles"]  # all else goes on
    assert colleague.break_glass(colleague.search(ROBIN.typed(), case="E8"))["emergency"]
    with changed.broker.store.transaction() as tx:
        reviewing.admit(tx, at=MORNING)
        cases = tx.all(CaseRow, kind="break_glass")
        assert first["emergency"] in {case.event_id for case in cases}
        for case in cases:
            case.state = "closed"
            tx.add(case)
    assert analyst.break_glass(answer)["emergency"]


def test_its_end_is_in_the_log_and_twice_does_no_harm(area: Area, analyst: Asker) -> None:
    view = analyst.break_glass(analyst.search(ROBIN.typed(), case="E9"))
    first, again = (analyst.end_emergency(view["emergency"]) for _ in range(2))
    assert first["emergency"] == again["emergency"] == view["emergency"]
    row = opened_by(area, again["receipt"]["event_id"])
    assert row.type == "breakglass.closed"
