"""Clocks of contacts: when one is due, how it is told, and that it is kept until it is."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.agency.gateway.clocks import URGENCIES, due, next_working_day, told
from linkage.agency.gateway.settings import Clocks
from linkage.agency.gateway.words import LONDON
from tests.linkage.agency.gateway.builders import ANALYST, MANAGER, NOW, Running, a_contact, a_gateway, csrf_of

FROM, TO = (datetime(year, 1, 1, tzinfo=UTC) for year in (2024, 2030))
instants = st.integers(int(FROM.timestamp()), int(TO.timestamp())).map(lambda at: datetime.fromtimestamp(at, UTC))
unhurried = settings(deadline=None)


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return a_gateway(tmp_path)


@unhurried
@given(instants, st.integers(1, 72))
def test_red_is_so_many_hours_whatever_the_clocks_do(received: datetime, hours: int) -> None:
    assert due("red", received.astimezone(LONDON), Clocks(red_hours=hours)) - received == timedelta(hours=hours)


@unhurried
@given(instants, instants, st.sampled_from(["amber", "green"]), st.integers(1, 5))
def test_the_others_are_due_at_five_on_a_working_day_and_never_earlier_for_who_came_later(
    one: datetime, other: datetime, urgency: str, days: int
) -> None:
    clocks = Clocks(amber_days=days, green_days=days, closures=(date(2026, 12, 29),))
    first, second = (due(urgency, received, clocks) for received in sorted([one, other]))
    assert first <= second
    local = first.astimezone(LONDON)
    assert (local.hour, local.minute) == (17, 0)
    assert local.weekday() < 5
    assert next_working_day(local.date() - timedelta(days=1), clocks.closures) == local.date()
    assert local.date() > min(one, other).astimezone(LONDON).date()


@pytest.mark.parametrize(
    ("received", "urgency", "expected"),
    [
        ("2026-10-24T22:30+01:00", "red", "2026-10-25T01:30+00:00"),  # the clocks go back meanwhile
        ("2026-12-24T16:00+00:00", "red", "2026-12-24T20:00+00:00"),
        ("2026-12-24T09:00+00:00", "amber", "2026-12-29T17:00+00:00"),  # Christmas, a weekend, a substitute day
        ("2026-11-21T12:00+00:00", "amber", "2026-11-23T17:00+00:00"),  # a Saturday
        ("2026-04-01T18:00+01:00", "green", "2026-04-08T17:00+01:00"),  # over Easter
    ],
)
def test_when_a_contact_is_due(received: str, urgency: str, expected: str) -> None:
    assert due(urgency, datetime.fromisoformat(received), Clocks()) == datetime.fromisoformat(expected)


@unhurried
@given(instants, instants)
def test_what_is_said_of_a_clock_says_overdue_exactly_where_it_is(at: datetime, now: datetime) -> None:
    for by_hours in (True, False):
        assert told(at, now, Clocks(), by_hours=by_hours).startswith("overdue by ") == (now >= at)


def set_clock(running: Running, contact: str, *, urgency: str = "amber", **changes: str) -> tuple[int, str]:
    client = running.client(ANALYST)
    page = f"/contacts/{contact}/clock"
    form = {"received-day": "20", "received-month": "11", "received-year": "2026", "received-time": "16:30"}
    answer = client.post(page, data={"csrf": csrf_of(client.get(page).text), "urgency": urgency, **form, **changes})
    return answer.status_code, answer.text


def test_my_work_begins_with_what_is_due_first_and_says_it_in_words(running: Running) -> None:
    for case, urgency in (("SAMPLE-GREEN", "green"), ("SAMPLE-AMBER", "amber"), ("SAMPLE-RED", "red")):
        assert set_clock(running, a_contact(running, case_reference=case), urgency=urgency)[0] == 303
    a_contact(running, case_reference="SAMPLE-NONE")
    page = running.client(MANAGER).get("/work").text
    assert re.findall(r"SAMPLE-[A-Z]+(?=</th>)", page) == ["SAMPLE-RED", "SAMPLE-AMBER", "SAMPLE-GREEN", "SAMPLE-NONE"]
    assert "Red: overdue by 13 hours 57 minutes, was due 20:30 yesterday" in page
    assert "Amber: due Mon 23 Nov 17:00, 1 working day" in page
    assert "Green: due Wed 25 Nov 17:00, 3 working days" in page


def test_a_contact_is_kept_a_day_longer_than_it_is_due(running: Running) -> None:
    contact = a_contact(running, case_reference="SAMPLE-GREEN")
    assert set_clock(running, contact, urgency="green")[0] == 303
    running.clock.at = due("green", NOW - timedelta(days=1), Clocks()) + timedelta(hours=23)
    assert "Green: overdue by 23 hours" in running.client(ANALYST).get("/work").text
    running.clock.forward(hours=2)
    assert "SAMPLE-GREEN" not in running.client(ANALYST).get("/work").text


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"urgency": "purple"}, "Choose how urgent the contact is"),
        ({"received-day": "31"}, "Enter a real date, and a time such as 09:30"),
        ({"received-time": "noon"}, "Enter a real date, and a time such as 09:30"),
        ({"received-day": "22"}, "The contact came at a time in the past, and within 30 days"),
        ({"received-month": "9"}, "The contact came at a time in the past, and within 30 days"),
    ],
)
def test_a_clock_that_can_not_be_is_refused_with_what_to_do(running: Running, said: dict[str, str], fault: str) -> None:
    contact = a_contact(running)
    status, page = set_clock(running, contact, **{"urgency": "red", **said})
    assert status == 422
    assert fault in page
    assert "overdue" not in running.client(ANALYST).get("/work").text


def test_each_urgency_has_words_a_shape_and_a_colour(running: Running) -> None:
    shapes = set()
    for urgency in URGENCIES:
        contact = a_contact(running, urgency=urgency, received_at=NOW.isoformat())
        box = running.store.get("contact", "*", contact, now=NOW)
        assert box is not None
        clock = running.app.state.gateway.clock(box)
        assert clock.text.startswith(f"{URGENCIES[urgency]}: due ")
        shapes.add(clock.shape)
    assert len(shapes) == len(URGENCIES)
