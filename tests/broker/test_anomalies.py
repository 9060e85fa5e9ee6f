"""The rules at work on a log: what a night flags, once; what it knows of the usual; thresholds and their changes."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import rfc8785
from sqlalchemy import text

from audit.events import Event
from broker import anomalies
from broker.errors import Malformed
from broker.store import Store
from broker.store.audit_reviews import MarkRow, RollupRow, top_actors
from broker.store.log import EventRow, FlagRow
from broker.trail import Trail
from tests.broker.test_reviewing import COUNCIL, ON_SQLITE, ONE, logged, types
from tests.builders_area import ANALYST, DECIDER, MORNING, Area, the_time
from tests.builders_families import ROBIN, a_linked_area

WHO: Final = {"organisation": "northshire", "role": "OPERATOR", "method": "command"}
TUESDAY: Final = datetime(2026, 11, 17, 9, 0, tzinfo=UTC)


def look(store: Store, trail: Trail, at: datetime, child: str = "child-1", **parts: Any) -> str:
    return logged(store, trail, at=at, subjects=[child], flagged=False, **parts)


def looks(store: Store, trail: Trail, begin: datetime, hours: int, each: int) -> None:
    """So many children an hour, in the working hours of the days from one on; many events, in few transactions."""
    at, done = begin, 0
    while done < hours:
        if at.weekday() < 5 and 9 <= at.hour < 17:
            with store.transaction() as tx:
                for number in range(each):
                    event = Event(
                        id=secrets.token_hex(16), type="disclosure.authorised",
                        who={"organisation": COUNCIL, "person": "p-81", "role": "SOCIAL_WORKER"},
                        what={"outcome": "disclosed"}, why={"purpose": "S47", "case": "c" * 64},
                        subjects=[f"child-{at:%d%H}-{number}"], detail={},
                    )  # fmt: skip
                    trail.record(tx, event, about=event.subjects, at=at + timedelta(minutes=number))
            done += 1
        at += timedelta(hours=1)
    trail.advance_pending()


def night(store: Store, trail: Trail, at: datetime) -> anomalies.Ran:
    return anomalies.run(store, trail, who=WHO, at=at)


def flagged(store: Store) -> list[tuple[str, str]]:
    with store.reading() as reading:
        return [(row.event_id, row.rule) for row in reading.all(FlagRow, order=["event_id", "rule"])]


def test_a_night_flags_what_the_rules_find_once_with_figures_and_an_event(store: Store, trail: Trail) -> None:
    look(store, trail, TUESDAY)
    late = look(store, trail, TUESDAY + timedelta(hours=14))
    size = trail.advance_pending()
    done = night(store, trail, TUESDAY + timedelta(days=1))
    assert (done.flagged, dict(done.by_rule), done.events) == (1, {"out_of_hours": 1}, 2)
    assert done.until == TUESDAY + timedelta(days=1)
    assert flagged(store) == [(late, "out_of_hours")]
    assert types(store, trail, size) == ["audit.flagged"]
    with store.reading() as reading:
        (row,) = reading.all(FlagRow)
        what: Any = trail.opening(row.recorded, show=("what",)).body("what")
    assert (row.version, row.figures) == (1, {"hour": 23, "weekday": 2})
    assert what["rules"] == {"out_of_hours": {"version": 1, "figures": row.figures}}
    assert (what["flagged"], what["kind"]) == (late, "rule")
    for hours in (25, 40, 60):
        assert night(store, trail, TUESDAY + timedelta(hours=hours)).flagged == 0
    assert set(done.not_measured) >= {"own_family", "unknown_case"}


@ON_SQLITE
def test_a_night_that_is_run_in_parts_or_again_flags_the_same(store: Store, trail: Trail) -> None:
    late = [look(store, trail, TUESDAY + timedelta(hours=hours)) for hours in (12, 13, 36, 37)]
    for hours in range(1, 60, 7):
        night(store, trail, TUESDAY + timedelta(hours=hours, minutes=30))
    found = flagged(store)
    assert {event for event, _ in found} == set(late)
    with store.transaction() as tx:  # as if the mark had been lost with a run
        row = tx.one(MarkRow, name="rules")
        assert row is not None
        row.until_ms -= 3 * 24 * 3_600_000
        tx.add(row)
    assert night(store, trail, TUESDAY + timedelta(hours=60)).flagged == 0
    assert flagged(store) == found


@ON_SQLITE
def test_a_burst_is_against_ones_own_hours_and_an_account_that_slept_is_told(store: Store, trail: Trail) -> None:
    monday = TUESDAY - timedelta(days=8)
    looks(store, trail, monday, 30, 2)
    looks(store, trail, TUESDAY, 1, 9)
    done = night(store, trail, TUESDAY + timedelta(hours=3))
    assert dict(done.by_rule) == {"burst": 1}
    assert done.events == 69
    woken = look(store, trail, TUESDAY + timedelta(days=98))
    night(store, trail, TUESDAY + timedelta(days=99))
    assert (woken, "dormant") in flagged(store)
    with store.reading() as reading:
        hours = reading.all(RollupRow, type="disclosure.authorised", order=["hour"])
        top = top_actors(reading, first=0, last=10**7, types=["disclosure.authorised"], limit=3)
    assert [(row.count, row.subjects) for row in hours] == [(2, 2)] * 30 + [(9, 9), (1, 1)]
    assert top == [{"organisation": COUNCIL, "person": "p-81", "events": 70, "subjects": 70}]


@ON_SQLITE
def test_the_first_look_at_a_child_is_told_from_the_next_across_nights(store: Store, trail: Trail) -> None:
    looks(store, trail, TUESDAY - timedelta(days=7), 15, 2)
    early = {"why": {"purpose": "EARLY_HELP", "case": "c" * 64}}
    first = look(store, trail, TUESDAY, "child-9", **early)
    night(store, trail, TUESDAY + timedelta(hours=3))
    look(store, trail, TUESDAY + timedelta(days=3), "child-9", **early)
    night(store, trail, TUESDAY + timedelta(days=4))
    assert flagged(store) == [(first, "first_pair")]


@ON_SQLITE
def test_searches_that_fish_are_known_by_what_was_encoded(store: Store, trail: Trail) -> None:
    def search(minute: int, given: str) -> str:
        filters = {"family": ["1", "2"], "given": [given], "dob": [given + "9"], "postcode": None}
        row = {"filters": filters, "tokens": {"dob_family": given}, "identifiers": {}}
        event = Event(
            id=secrets.token_hex(16), type="search.authorised",
            who={"organisation": COUNCIL, "person": "p-81", "role": "MASH_ANALYST"}, what={"outcome": "0_listed"},
            why={"purpose": "MASH_SCREEN", "case": "c" * 64}, detail={},
        )  # fmt: skip
        with store.transaction() as tx:
            query = rfc8785.dumps({"profile": "guarded-2", "rows": [{"relation": "subject", **row}]})
            trail.record(tx, event, blobs={"query": query}, at=TUESDAY + timedelta(minutes=minute))
        trail.advance_pending()
        return event.id

    with_family = anomalies.change(store, trail, ONE, rule="fishing", name="percent", value=25, why="trial", at=TUESDAY)
    assert with_family.answer.before == 30
    found = [search(n, str(n)) for n in range(4)]
    night(store, trail, TUESDAY + timedelta(hours=3))
    assert flagged(store) == [(found[-1], "fishing")]


# --- Thresholds -----------------------------------------------------------------------------------------------------


def test_a_threshold_is_changed_with_a_reason_an_event_and_a_line_in_the_list(store: Store, trail: Trail) -> None:
    size = trail.advance_pending()
    done = anomalies.change(store, trail, ONE, rule="no_case", name="on", value=0, why="policy", at=TUESDAY).answer
    back = anomalies.change(store, trail, ONE, rule="no_case", name="on", value=1, why="trial", at=TUESDAY).answer
    assert [(one.before, one.value, one.by) for one in (done, back)] == [(1, 0, "ig-1"), (0, 1, "ig-1")]
    assert types(store, trail, size) == ["config.changed", "config.changed"]
    assert anomalies.changes(store) == (back, done)
    what: Any = trail.opening(done.event_id, show=("what",)).body("what")
    assert {name: what[name] for name in ("setting", "rule", "name", "before", "value", "reason")} == {
        "setting": "audit_rule", "rule": "no_case", "name": "on", "before": 1, "value": 0, "reason": "policy",
    }  # fmt: skip
    assert {rule.id: values for rule, values in anomalies.register(store)}["no_case"] == {"on": 1}
    for wrong in ({"rule": "own_family"}, {"name": "x"}, {"value": 7}, {"why": "because"}):
        given: dict[str, Any] = {"rule": "no_case", "name": "on", "value": 0, "why": "trial", **wrong}
        with pytest.raises(Malformed):
            anomalies.change(store, trail, ONE, at=TUESDAY, **given)


@ON_SQLITE
def test_a_changed_threshold_counts_from_the_next_run_on(store: Store, trail: Trail) -> None:
    look(store, trail, TUESDAY + timedelta(hours=12))
    anomalies.change(
        store,
        trail,
        ONE,
        rule="out_of_hours",
        name="SOCIAL_WORKER.to_hour",
        value=24,
        why="working_pattern",
        at=TUESDAY,
    )
    assert night(store, trail, TUESDAY + timedelta(days=1)).flagged == 0
    with store.reading() as reading:
        assert reading.all(EventRow, type="audit.flagged") == []


# --- A real partnership ---------------------------------------------------------------------------------------------


def test_real_searches_are_told_apart_by_what_was_encoded_and_no_name_is_held(tmp_path: Path) -> None:
    with the_time(MORNING):
        area: Area = a_linked_area(tmp_path / "northshire")
        analyst, decider = area.asker(ANALYST), area.asker(DECIDER)
        analyst.open(analyst.search(ROBIN.typed(), case="R1"))
        for given in ("Rowan", "Rhodri", "Rosa"):  # one child, guessed at
            guessed = analyst.search(replace(ROBIN.typed(), given_name=given), case="R1")
        for number, given in enumerate(("Ada", "Ben", "Cleo", "Dan", "Eve")):  # the children of one household
            sibling = replace(
                ROBIN.typed(), given_name=given, day=str(3 + number), year=str(2012 + number), nhs_number=""
            )
            decider.search(sibling, case="R2")
        broker = area.broker
        done = night(broker.store, broker.trail, MORNING + timedelta(hours=2))
        assert done.events == 10
        found = [(event, rule) for event, rule in flagged(broker.store) if rule != "out_of_hours"]
        assert found == [(guessed["receipt"]["event_id"], "fishing")]
        with broker.store.reading() as reading:
            rows = [row for row in reading.all(RollupRow) if row.type in ("search.authorised", "disclosure.authorised")]
        assert any(row.subjects for row in rows)
        assert {row.type for row in rows} == {"search.authorised", "disclosure.authorised"}
        with broker.store.engine.connect() as connection:
            told = str(connection.execute(text("SELECT * FROM audit_flag")).all())
            told += str(connection.execute(text("SELECT * FROM audit_rollup")).all())
        assert not {name for name in (ROBIN.given, ROBIN.family, ROBIN.nhs, ROBIN.postcode) if name in told}
        area.close()
