"""An inspector looks for some days, at what the site map gives them, and changes nothing; every look is in the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from broker import clock, signin
from broker.errors import NotAllowed, NotSignedIn
from broker.settings import Inspection
from tests.builders_area import ANALYST, MORNING, Area, Clock, the_time
from tests.builders_families import ROBIN, a_linked_area
from tests.builders_pages import Officer, written

BEGUN = Inspection(person="insp-1", first=MORNING.date(), last=MORNING.date() + timedelta(days=1))
BEFORE = Inspection(person="insp-2", first=MORNING.date() - timedelta(days=9), last=MORNING.date() - timedelta(days=1))


@pytest.fixture(scope="module")
def time() -> Iterator[Clock]:
    with the_time(MORNING) as made:
        yield made


@pytest.fixture(scope="module")
def area(time: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    made = a_linked_area(tmp_path_factory.mktemp("inspection") / "northshire")
    made.settings = made.settings.model_copy(update={"inspections": (BEGUN, BEFORE)})
    made.asker(ANALYST).view(ROBIN.typed(), case="I1")
    yield made
    made.close()


@pytest.fixture
def inspector(area: Area, time: Clock) -> Officer:
    time.put(MORNING + timedelta(hours=1))
    return Officer.of(area, "INSPECTOR", person="insp-1")


def events(inspector: Officer, kind: str) -> list[str]:
    """The events that a search of an inspector's finds."""
    place = inspector.done("/log", reason="lawfulness", type=kind)
    return re.findall(r'href="/log/([\w-]{8,64})"', inspector.get(place).text)


def test_an_inspector_finds_an_event_and_its_proof_and_each_look_is_in_the_log(area: Area, inspector: Officer) -> None:
    size = area.size()
    (event,) = events(inspector, "disclosure.authorised")
    page = inspector.page(f"/log/{event}")
    assert "Family view disclosed" in page
    assert "Open the detail" not in page and "Flag it" not in page
    assert inspector.get(f"/log/{event}/opening").json()["event_id"] == event
    assert written(area, size) == ["audit.searched", "audit.searched", "audit.searched"]


def test_every_page_of_theirs_says_until_when_and_that_it_is_recorded(inspector: Officer) -> None:
    for place in ("/ig", "/log", "/reports", "/agreements", "/help"):
        assert "Inspection access ends 24 Nov 2026, 00:00. All you open is recorded." in inspector.page(place), place
    page = inspector.get("/ig").text
    assert not re.findall(r'href="/(reviews|rights|breaches|pairs|statistics)', page)
    assert "What if" not in inspector.page("/agreements")


def test_a_report_is_taken_and_recorded_and_a_breach_pack_and_a_ledger_are_not_theirs(
    area: Area, inspector: Officer
) -> None:
    days = {f"{name}-{part}": value for name in ("first", "last")
            for part, value in (("day", "1" if name == "first" else "30"), ("month", "11"), ("year", "2026"))}  # fmt: skip
    size = area.size()
    form = {**days, "format": "csv", "reason": "lawfulness"}
    assert "disclosed" in inspector.post("/reports/R1", **form).text
    assert written(area, size) == ["audit.exported"]
    page = inspector.page("/reports")
    assert "R1:" in page and "R7:" not in page and "R4:" not in page
    assert inspector.post("/reports/R7", **form).status_code == 403
    assert inspector.get("/reports/R7").status_code == 403
    assert inspector.post("/rights/ledger", subject="x", relation="self").status_code == 403
    assert written(area, size) == ["audit.exported"]


def test_a_session_ends_with_the_inspection_and_at_once_if_the_settings_end_it(
    area: Area, inspector: Officer, time: Clock
) -> None:
    evening = datetime(2026, 11, 23, 20, tzinfo=UTC)
    time.put(evening)
    late = Officer.of(area, "INSPECTOR", person="insp-1")
    assert "Signed in until 00:00" in late.page("/log")  # not the eight hours of everybody's
    closed = area.settings.model_copy(update={"inspections": ()})
    with pytest.raises(NotSignedIn):
        signin.session_of(area.broker.store, closed, late.cookie, at=clock.now())
    assert late.get("/log").status_code == 200
    time.put(evening + timedelta(hours=4))
    assert late.get("/log").headers["location"] == "/"


@pytest.mark.parametrize(
    ("person", "at"),
    [
        ("insp-1", MORNING - timedelta(days=1)), ("insp-1", MORNING + timedelta(days=2)), ("insp-2", MORNING),
        ("somebody-else", MORNING),
    ],
)  # fmt: skip
def test_nobody_signs_in_as_an_inspector_outside_their_own_days(
    area: Area, time: Clock, person: str, at: datetime
) -> None:
    time.put(at)
    with pytest.raises(NotAllowed):
        Officer.of(area, "INSPECTOR", person=person)
    time.put(MORNING)


def test_an_inspection_that_ends_before_it_begins_or_lasts_for_ever_is_refused() -> None:
    day = MORNING.date()
    for last in (day - timedelta(days=1), day + timedelta(days=93)):
        with pytest.raises(ValidationError):
            Inspection(person="insp-3", first=day, last=last)
    assert Inspection(person="insp-3", first=day, last=day).last == day
