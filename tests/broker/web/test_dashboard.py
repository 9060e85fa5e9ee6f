"""The first page of information governance, and of operators: the log in words, what waits, what is late."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from audit.checkpoint import SignedCheckpoint
from audit.witness import WitnessKey
from broker import anomalies, clock, witnesses
from broker.callers import Caller
from broker.store.log import EventRow
from broker.witnesses import AMBER
from tests.builders_area import ANALYST, MORNING, OPERATOR, Area, Clock, the_time
from tests.builders_families import ROBIN, a_linked_area
from tests.builders_log import a_key
from tests.builders_pages import Officer, written


@pytest.fixture
def clock_() -> Iterator[Clock]:
    with the_time(MORNING) as made:
        yield made


@pytest.fixture
def area(clock_: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    made = a_linked_area(tmp_path_factory.mktemp("dashboard") / "northshire")
    yield made
    made.close()


def test_nothing_waits_and_a_late_feed_and_missing_signatures_are_told_without_an_event(area: Area) -> None:
    officer = Officer.of(area)
    size = area.size()
    said = officer.page("/ig")
    assert "nobody witnesses it" in said
    assert said.count("None waiting") == 6
    assert "Northshire Council Housing Out of date 20 Nov 2026, 02:30" in said
    assert "northshire-tier1@2.1.0 waits for the signature of northshire-family-hubs" in said
    assert written(area, size) == []


def test_what_is_flagged_waits_for_everybody_but_whoever_acted_in_it(area: Area) -> None:
    area.asker(ANALYST).view(ROBIN.typed(), case="D1")
    area.size()
    with area.broker.store.reading() as reading:
        event = reading.all(EventRow, type="disclosure.authorised")[-1]
    one = Caller(kind="officer", organisation="northshire", person="ig-1", role="IG_OFFICER", method="demo")
    anomalies.flag(area.broker.store, area.broker.trail, one, event_id=event.event_id, why="pattern", at=clock.now())
    assert "Alerts: flagged by a rule or a person 1 – Due 28 Nov 2026, 00:00" in Officer.of(area).page("/ig")
    assert event.actor_ref
    assert Officer.of(area, person=event.actor_ref).page("/ig").count("None waiting") == 6


def test_the_log_is_whole_once_its_witnesses_agree_and_a_late_one_is_told_with_since_when(
    area: Area, clock_: Clock
) -> None:
    broker = area.broker
    key = WitnessKey("witness-0.example", a_key(100))
    witnesses.enrol(broker.store, broker.trail, str(key.verifier), "northshire-icb", who=OPERATOR, at=clock.now())
    area.size()
    note = SignedCheckpoint.parse(area.http.get(f"/audit/log/{clock.now().year}/checkpoint.witness").text)
    line = key.cosign(note.checkpoint, at_s=int(clock.now().timestamp()))
    handed = area.http.post(
        "/audit/cosignatures", content=note.with_signature(line).note.encode(), headers={"Content-Type": "text/plain"}
    )
    assert handed.status_code == 201, handed.text
    said = Officer.of(area).page("/ig")
    assert "The log is whole." in said
    assert "1 of 1 witnesses agree" in said
    area.asker(ANALYST).search(ROBIN.typed(), case="D2")
    area.size()
    clock_.put(clock.now() + AMBER * 2)
    assert "A witness is late since 22 Nov 2026, 09:" in Officer.of(area).page("/ig")
    assert "A witness is late" in Officer.of(area, "OPERATOR", person="op-1").page("/operations")


def test_an_operator_sees_runs_feeds_and_room_and_nothing_else(area: Area) -> None:
    said = Officer.of(area, "OPERATOR", person="op-1").page("/operations")
    assert "As this version wants it" in said
    assert "22 Nov 2026 Published" in said
    assert "Northshire Police Police Current" in said
