"""Link review as pages: the queue, one masked pair, a decision, a second reviewer, whom to ring."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from broker.reviews.said import Step
from broker.store.reviews import ReviewRow
from broker.web.pairs import PAUSE_EVERY, WIDTH, bars
from tests.builders_area import MORNING, Area, the_time
from tests.builders_families import a_linked_area
from tests.builders_pages import Officer, text_of, written

SEES = {"decision": "different", "reason": "levels_differ", "evidence-agreement_levels": "yes"}
FITS = {"decision": "same", "reason": "levels_agree", "evidence-waterfall": "yes"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("pairs") / "northshire")
        yield made
        made.close()


@pytest.fixture
def area(shared: Area, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    made = shared.copied(tmp_path_factory.mktemp("pair") / "northshire")
    yield made
    made.close()


def reviewer(area: Area, person: str = "links-1") -> Officer:
    return Officer.of(area, "LINK_REVIEWER", person=person)


def the_pair(area: Area, reason: str) -> str:
    """A waiting pair of this reason, as the queue leads to it."""
    html = reviewer(area, "finder").get(f"/pairs?reason={reason}").text
    return re.findall(r'href="/pairs/([0-9a-f]{32})"', html)[0]


def test_the_queue_says_why_each_waits_since_when_and_between_whom_and_is_recorded(shared: Area) -> None:
    size = shared.size()
    said = reviewer(shared).page("/pairs?reason=conflict")
    assert "Two numbers of one kind differ. Northshire Council and Northshire Icb" in said
    assert "22 Nov 2026, 6 hours" in said
    assert written(shared, size) == ["review.listed"]
    assert "Nothing is waiting." in reviewer(shared).page("/pairs?state=second")
    assert reviewer(shared).get("/pairs?state=all").status_code == 404


def test_a_pair_shows_levels_and_weights_and_nothing_of_what_the_records_hold(shared: Area) -> None:
    pair, size = the_pair(shared, "conflict"), shared.size()
    html = reviewer(shared).get(f"/pairs/{pair}").text
    said = text_of(html)
    assert "Needs a second reviewer" in said
    assert "NHS number Different numbers" in said
    assert "At the start" in said and "Sum so far" in said
    assert html.count("<rect ") == said.split("Sum so far")[1].split("Same person?")[0].count(" Equal ") + 1
    assert written(shared, size) == ["review.opened"]
    with shared.broker.store.reading() as reading:
        row = reading.one(ReviewRow, id=pair)
    assert row is not None
    assert row.reference_l not in html and row.reference_r not in html


def test_a_decision_that_lacks_something_says_what_and_keeps_the_rest(shared: Area) -> None:
    pair = the_pair(shared, "conflict")
    answer = reviewer(shared).post(f"/pairs/{pair}/decision", decision="same", reason="levels_differ")
    assert answer.status_code == 422
    said = text_of(answer.text)
    assert "“What differs can’t be a slip” is no reason for “Same person”".replace("’", "'") in said.replace("’", "'")
    assert "Choose what you went by" in said
    assert re.search(r'value="same" checked', answer.text)
    assert "<title>" in answer.text and "Error: Same person?" in answer.text


def test_one_who_can_tell_decides_and_the_pair_is_done_with(area: Area) -> None:
    one, pair = reviewer(area), the_pair(area, "swapped")
    one.page(f"/pairs/{pair}")
    size = area.size()
    there = one.done(f"/pairs/{pair}/decision", **SEES)
    assert written(area, size) == ["override.must_not_link"]
    said = one.page(there)
    assert "Decided: Different people It takes effect with the next night’s run. 1 done today." in said
    assert pair not in one.get("/pairs").text
    assert reviewer(area, "links-2").get(there).status_code == 404  # what was done is told to who did it
    said = reviewer(area, "links-2").page(f"/pairs/{pair}")
    assert "Take back" in said
    assert "Decided Different people A colleague" in said


def test_two_numbers_are_joined_by_two_people_and_the_first_can_not_be_both(area: Area) -> None:
    one, two, pair = reviewer(area), reviewer(area, "links-2"), the_pair(area, "conflict")
    one.page(f"/pairs/{pair}")
    assert "waits for a second reviewer" in one.page(one.done(f"/pairs/{pair}/decision", **FITS))
    assert "You decided it; a colleague confirms" in one.page("/pairs?state=second")
    assert "You decided this pair, so a colleague confirms it." in one.page(f"/pairs/{pair}")
    assert one.post(f"/pairs/{pair}/confirm", agree="yes").status_code == 403
    assert "A colleague decided: Same person" in two.page(f"/pairs/{pair}")
    assert two.post(f"/pairs/{pair}/confirm").status_code == 422
    size = area.size()
    assert "takes effect" in two.page(two.done(f"/pairs/{pair}/confirm", agree="yes"))
    assert written(area, size) == ["link.confirmed"]
    assert two.post(f"/pairs/{pair}/confirm", agree="yes").status_code == 409  # it is decided by now
    assert two.post(f"/pairs/{pair}/withdraw").status_code == 422
    size = area.size()
    assert two.done(f"/pairs/{pair}/withdraw", taken_back="decided_in_error") == f"/pairs/{pair}"
    assert written(area, size) == ["override.withdrawn"]


def test_a_second_reviewer_who_does_not_agree_passes_it_on(area: Area) -> None:
    one, two, pair = reviewer(area), reviewer(area, "links-2"), the_pair(area, "conflict")
    one.page(f"/pairs/{pair}")
    size = area.size()
    one.done(f"/pairs/{pair}/decision", **FITS)
    assert written(area, size) == ["override.must_link"]
    two.page(f"/pairs/{pair}")
    size = area.size()
    assert "It waits for another reviewer" in two.page(two.done(f"/pairs/{pair}/confirm", agree="no"))
    assert written(area, size) == ["link.rejected"]


def test_who_can_not_tell_rings_the_agencies_and_passes_on(area: Area) -> None:
    one, pair = reviewer(area), the_pair(area, "swapped")
    one.page(f"/pairs/{pair}")
    size = area.size()
    answer = one.post(f"/pairs/{pair}/ask")
    assert written(area, size) == ["review.asked"]
    said = text_of(answer.text)
    assert "Is this record of one person, and are these of it right?" in said
    assert len(re.findall(r"[2-9A-Z]{4}-[2-9A-Z]{4}-[2-9A-Z]{4}", said)) == 2
    assert re.search(r"01632 960\d{3}", said)
    passed = {"decision": "cannot_tell", "reason": "not_enough", "evidence-history": "yes"}
    assert "It waits for another reviewer" in one.page(one.done(f"/pairs/{pair}/decision", **passed))
    assert pair in one.get("/pairs?state=passed_on").text


def test_after_twenty_pairs_a_pause_is_offered(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PAUSE_EVERY == 20
    monkeypatch.setattr("broker.web.pairs.PAUSE_EVERY", 1)
    one, pair = reviewer(area), the_pair(area, "swapped")
    one.page(f"/pairs/{pair}")
    assert "Take a break? 1 done." in one.page(one.done(f"/pairs/{pair}/decision", **SEES))


def test_each_bar_begins_where_the_sum_before_it_ended_and_all_fit_the_drawing() -> None:
    steps = [
        Step(field="prior", level="", weight=-8.0, total=-8.0),
        Step(field="given_name", level="equal", weight=12.0, total=4.0),
        Step(field="postcode", level="differ", weight=-2.0, total=2.0),
    ]
    first, second, third = bars(steps)
    assert (first.x, second.x) == (0.0, 0.0)
    assert second.x + second.width == WIDTH
    assert third.x + third.width == WIDTH
    assert third.width == pytest.approx(WIDTH * 2 / 12)


def test_an_hour_s_budget_is_told_as_one(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.reviews.pairs.PER_HOUR", {"listed": 1, "opened": 1})
    one = reviewer(area, "links-7")
    assert one.get("/pairs").status_code == 200
    refused = one.get("/pairs")
    assert refused.status_code == 429
    assert "You have done this a lot in a short time" in text_of(refused.text)
