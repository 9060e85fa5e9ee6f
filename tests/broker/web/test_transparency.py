"""The public page: what the agreements in force say, two rounded counts, and nothing of anybody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from broker import clock, publishing, register
from broker.store.log import EventRow
from tests.builders_area import AFTER_EXPIRY, AGREEMENTS, ANALYST, MORNING, OPERATOR, Area, Clock, the_time
from tests.builders_families import ROBIN, a_linked_area
from tests.builders_pages import text_of, written


@pytest.fixture(scope="module")
def clock_() -> Iterator[Clock]:
    with the_time(MORNING) as made:
        yield made


@pytest.fixture
def area(clock_: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    clock_.put(MORNING)
    made = a_linked_area(tmp_path_factory.mktemp("public") / "northshire")
    yield made
    made.close()


def said(area: Area, path: str = "/transparency") -> str:
    answer = area.http.get(path)
    assert answer.status_code == 200
    return text_of(answer.text)


def test_anybody_reads_who_shares_what_with_whom_in_the_words_that_were_signed(area: Area) -> None:
    size = area.size()
    page = said(area)
    assert "Northshire MASH: screening, strategy discussions and section 47 enquiries" in page
    assert "Organisations Northshire Council, Northshire Icb, Northshire Police" in page
    assert "1 Apr 2026 to 31 Mar 2028" in page and "Broker copy: 7.1 24 months rolling." in page
    assert "https://northshire.example/privacy/mash" in page
    assert "Attendance (education) Status: band of the year to date" in page
    assert "immigration enforcement" in page
    assert "0800 1111" in said(area, "/transparency/children")
    assert written(area, size) == []


def test_a_draft_is_not_told_and_what_has_ended_is_no_longer(area: Area, clock_: Clock) -> None:
    draft = (AGREEMENTS / "northshire-mash.toml").read_text("utf-8").replace('version = "3.0.0"', 'version = "4.0.0"')
    draft = draft.replace("Northshire MASH:", "A draft:", 1)
    said(area)
    register.import_document(area.broker.store, area.broker.trail, draft.encode(), who=OPERATOR, at=clock.now())
    assert "A draft:" not in said(area)
    clock_.put(AFTER_EXPIRY)
    assert "No agreement is in force. Nothing can be shared." in said(area)


def test_counts_are_of_a_quarter_that_is_over_and_hidden_below_ten(area: Area, clock_: Clock) -> None:
    area.asker(ANALYST).view(ROBIN.typed(), case="T1")
    assert "July to September 2026 Times A family’s information was shown fewer than 10" in said(area)
    clock_.put(datetime(2027, 1, 4, 9, 0, tzinfo=UTC))
    assert "October to December 2026 Times A family’s information was shown fewer than 10" in said(area)
    with area.broker.store.reading() as reading:
        (row,) = reading.all(EventRow, type="disclosure.authorised")
    with area.broker.store.transaction() as tx:
        for number in range(13):
            same = row.model_dump() | {"event_id": f"{number:032}", "seq": 10_000 + number}
            tx.add(EventRow(**same))
    assert "fewer than 10 A question" in said(area)  # made once for a quarter: nobody sees it grow
    area.broker.parts.clear()
    assert "shown about 10 A question was refused fewer than 10" in said(area)


@pytest.mark.parametrize(
    ("at", "name"),
    [
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), "July to September 2026"),
        (datetime(2027, 1, 1, tzinfo=UTC), "October to December 2026"),
        (datetime(2026, 6, 30, 23, 30, tzinfo=UTC), "April to June 2026"),  # it is July in London
    ],
)
def test_a_quarter_is_over_when_it_is_in_london(at: datetime, name: str) -> None:
    first, last, told = publishing._last_quarter(at)
    assert told == name
    assert timedelta(milliseconds=last - first) > timedelta(days=89)
