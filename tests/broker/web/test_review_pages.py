"""Reviews of the log as pages: a decision, a second look by somebody else, nobody's own, rules with their changes, samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from broker.store.log import EventRow
from tests.builders_area import ANALYST, MORNING, Area, Clock, the_time
from tests.builders_families import ROBIN, a_linked_area
from tests.builders_pages import Officer, text_of, written

NOTE = "The team manager confirms the allocation"


@pytest.fixture(scope="module")
def clock_() -> Iterator[Clock]:
    with the_time(MORNING) as made:
        yield made


@pytest.fixture(scope="module")
def asked(clock_: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    """An area in which an analyst has opened a family view."""
    made = a_linked_area(tmp_path_factory.mktemp("reviews") / "northshire")
    made.asker(ANALYST).view(ROBIN.typed(), case="D1")
    yield made
    made.close()


@pytest.fixture
def area(asked: Area, clock_: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    clock_.put(MORNING + timedelta(hours=1))
    made = asked.copied(tmp_path_factory.mktemp("review") / "northshire")
    yield made
    made.close()


def view_of(area: Area) -> EventRow:
    """The event of the family view."""
    area.size()
    with area.broker.store.reading() as reading:
        return reading.all(EventRow, type="disclosure.authorised")[-1]


def flagged(area: Area) -> str:
    """The address of the case that it is, once it is flagged by hand."""
    event = view_of(area).event_id
    assert Officer.of(area, person="ig-9").done(f"/log/{event}/flag", why="complaint") == "/reviews?kind=flag"
    return f"/reviews/{event}"


def test_what_is_flagged_waits_with_its_due_day_and_each_look_is_recorded(area: Area) -> None:
    officer = Officer.of(area)
    assert "None waiting." in officer.page("/reviews")
    case, size = flagged(area), area.size()
    said = officer.page("/reviews?kind=flag")
    assert "28 Nov 2026, 00:00 Family view disclosed" in said
    assert "Alert By hand: Somebody complained Waiting" in said
    assert written(area, size) == ["audit.searched"]
    size = area.size()
    said = officer.page(case)
    assert "MASH analyst" in said
    words = "4.1 To screen a contact, every party shows the hub which of its services know the child now"
    assert words in said and "northshire-mash@3.0.0#screen-current" in said
    assert words in officer.page(case.replace("reviews", "log"))
    assert written(area, size) == ["audit.searched"] * 3  # the case, the event on its page, and the event by itself
    assert officer.get("/reviews?kind=risk").status_code == 404


def test_one_decides_with_a_note_another_signs_it_off_and_then_it_is_closed(area: Area) -> None:
    one, two, case = Officer.of(area), Officer.of(area, person="ig-2"), flagged(area)
    one.page("/reviews")
    assert one.done(f"{case}/take") == case
    assert "ig-1 has taken it." in two.page(case)
    assert two.post(f"{case}/take").status_code == 409
    size = area.size()
    assert one.done(f"{case}/decision", decision="training", note=NOTE) == case
    assert written(area, size) == ["audit.reviewed"]
    assert "Waiting for a second reviewer. You decided it" in one.page(case)
    assert one.post(f"{case}/signoff", agrees="yes").status_code == 403
    said = two.page(case)
    assert "Training needed , decided by ig-1" in said and NOTE in said
    size = area.size()
    two.done(f"{case}/signoff", agrees="yes")
    assert written(area, size) == ["audit.signed_off"]
    assert "Closed: training needed." in one.page(case)
    assert "None waiting." in one.page("/reviews")
    assert "Family view disclosed" in one.page("/reviews?state=closed")


def test_a_second_reviewer_may_send_it_back_to_be_reviewed_anew(area: Area) -> None:
    one, two, case = Officer.of(area), Officer.of(area, person="ig-2"), flagged(area)
    one.page("/reviews")
    one.done(f"{case}/take")
    one.done(f"{case}/decision", decision="justified")
    two.done(f"{case}/signoff", agrees="no", note="Which case was it?")
    said = one.page(case)
    assert "Sent back to be reviewed anew, ig-2" in said and "Take it" in said


def test_a_form_that_lacks_something_says_what_and_keeps_what_was_typed(area: Area) -> None:
    one, case = Officer.of(area), flagged(area)
    one.page("/reviews")
    one.done(f"{case}/take")
    answer = one.post(f"{case}/decision", note=NOTE)
    assert answer.status_code == 422
    assert "Choose what it was" in answer.text and NOTE in answer.text
    assert "Say why, without naming anybody" in one.post(f"{case}/decision", decision="breach").text
    assert "at most 1,000 characters" in one.post(f"{case}/decision", decision="breach", note="x" * 1001).text
    one.done(f"{case}/decision", decision="breach", note="First line\r\nsecond")
    assert "Choose whether you agree" in Officer.of(area, person="ig-2").post(f"{case}/signoff").text


def test_nobody_reads_takes_or_is_given_their_own_event_and_the_attempt_is_recorded(area: Area) -> None:
    case, actor = flagged(area), view_of(area).actor_ref
    self_ = Officer.of(area, person=actor)
    assert "None waiting." in self_.page("/reviews")
    for answer in (
        self_.get(case),
        self_.post(f"{case}/take"),
        Officer.of(area).post(f"{case}/take", to=actor),
    ):
        assert answer.status_code == 403
        assert "You cannot review your own event" in text_of(answer.text)
    area.size()
    with area.broker.store.reading() as reading:
        denied = reading.all(EventRow, type="auth.denied")
    assert [one.outcome for one in denied] == ["own_event"] * 3
    assert Officer.of(area).done(f"{case}/take", to="ig-2") == case
    assert "ig-2 has taken it." in Officer.of(area).page(case)


def test_an_event_that_was_flagged_for_a_reason_is_not_flagged_for_it_again(area: Area) -> None:
    case = flagged(area)
    again = Officer.of(area).post(f"{case.replace('reviews', 'log')}/flag", why="complaint")
    assert again.status_code == 409
    assert "This event is flagged for this reason." in text_of(again.text)


def test_a_threshold_is_changed_with_a_reason_and_every_change_is_listed(area: Area) -> None:
    one = Officer.of(area)
    said = one.page("/reviews/rules")
    assert "An hour 60" in said and "No threshold has been changed." in said
    assert "No gateway tells the broker yet which cases are open" in said
    assert one.get("/reviews/rules/own_record").status_code == 404  # nothing of it can be changed
    answer = one.post("/reviews/rules/burst", value="many")
    assert answer.status_code == 422
    assert all(text in answer.text for text in ("Enter a whole number", "Choose why", "Choose what to change"))
    assert "from 1 to 100000" in one.post("/reviews/rules/burst", name="an_hour", value="0", why="trial").text
    size = area.size()
    assert one.done("/reviews/rules/burst", name="an_hour", value="40", why="trial") == "/reviews/rules"
    assert written(area, size) == ["config.changed"]
    one.done("/reviews/rules/fishing", name="on", value="0", why="too_many_false")
    said = one.page("/reviews/rules")
    assert "an_hour 60 40 For a trial ig-1" in said
    assert "Searches 4; Minutes 60; Percent 30 Off" in said


def test_a_sample_is_drawn_of_days_that_have_ended_and_comes_down_to_be_drawn_again(area: Area, clock_: Clock) -> None:
    one = Officer.of(area)
    days = {"first-day": "16", "first-month": "11", "first-year": "2026", "last-month": "11", "last-year": "2026"}
    early = one.post("/reviews/samples", **days, **{"last-day": "22"}, percent="100", least="1")
    assert early.status_code == 422
    assert "it has not ended" in text_of(early.text)
    assert "Enter the first and the last day" in one.post("/reviews/samples", percent="5", least="1").text
    clock_.put(MORNING + timedelta(days=2))
    one = Officer.of(area)
    one.page("/reviews")  # a look, so that the log has a checkpoint since
    size = area.size()
    one.done("/reviews/samples", **days, **{"last-day": "22"}, percent="100", least="1")
    assert written(area, size) == ["audit.flagged"]
    html = one.get("/reviews/samples").text
    assert "Not witnessed" in html
    sample = html.split('action="/reviews/samples/')[1].split('"')[0]
    size = area.size()
    file = one.post(f"/reviews/samples/{sample}")
    assert file.headers["content-disposition"] == f'attachment; filename="sample-{sample}.json"'
    assert set(json.loads(file.text)["drawn"]) >= {view_of(area).event_id}
    assert written(area, size) == ["audit.searched"]
    assert "Sample Waiting" in one.page("/reviews?kind=sample")
