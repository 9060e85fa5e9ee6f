"""The family view and the results: given what the broker answers, this is what the page says."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest

from agreements import VOCABULARY
from linkage.agency.gateway import words
from linkage.agency.gateway.answers import Event, FamilyView, Person, Refusal, Relative, SearchAnswer, reasons
from linkage.agency.gateway.family import Gap, with_gaps
from linkage.agency.gateway.network import BOX_HEIGHT, BOX_WIDTH, LIMIT, draw
from linkage.matching.families import DISAGREEMENTS
from tests.linkage.agency.gateway.builders import (
    ANALYST,
    DESK,
    LATE,
    POLICE_DESK,
    Running,
    a_candidate,
    a_category,
    a_contact,
    a_gateway,
    a_kept_search,
    a_kept_view,
    a_search_answer,
    a_tile,
    a_view,
    an_event,
    something_typed,
)

NEVER_SAID = (
    "score", "risk level", "flagged", "no concerns", "safe", "no record", "troubled", "consent", "denied", "invalid",
    "oops",
)  # fmt: skip


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return a_gateway(tmp_path)


def words_of(page: str) -> str:
    """What a reader reads: the main part, without markup."""
    main = re.search(r"<main.*?</main>", page, re.S)
    assert main
    return (
        re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", main[0])))
        .replace(" .", ".")
        .replace(" ,", ",")
        .replace(" :", ":")
        .strip()
    )


def shown(running: Running, view: dict[str, Any], contact: str = "") -> str:
    return words_of(running.client(ANALYST).get(f"/views/{a_kept_view(running, view, contact=contact)}").text)


def listed(running: Running, answer: dict[str, Any]) -> str:
    return words_of(running.client(ANALYST).get(f"/searches/{a_kept_search(running, answer)}").text)


def test_who_is_working_with_the_child_and_whom_to_ring_stand_above_everything(running: Running) -> None:
    page = shown(running, a_view())
    first = page.index("Already open")
    assert page.index("Ring Assessment Team 2 01632 960 104") < page.index("Robin Samplewick")
    assert first < page.index("Ring Assessment Team 2") < page.index("Who knows this child")
    assert "Open since 12 Jun 2026" in page
    assert (
        "Robin Samplewick, as you typed it, born 2017. Match: NHS number and date of birth agree. Postcode differs."
        in page
    )


@pytest.mark.parametrize(
    ("first_call", "said"),
    [
        ({"kind": "none"}, "No open work that can be shown Ask or ring before you decide."),
        (
            {"kind": "lead_practitioner", "organisation": "northshire-council", "sector": "education", "contact": DESK},
            "Lead practitioner Ring Assessment Team 2",
        ),
        (
            {"kind": "stepped_down", "organisation": "northshire-icb", "since": "2026-02-01", "contact": DESK},
            "Stepped down on 1 Feb 2026. New lead: Northshire ICB",
        ),
    ],
)
def test_the_first_answer_has_its_own_heading_for_each_case(
    running: Running, first_call: dict[str, Any], said: str
) -> None:
    assert said in shown(running, a_view(first_call=first_call))


def test_a_late_feed_with_something_to_show_says_both_and_keeps_it(running: Running) -> None:
    page = shown(running, a_view())
    assert "Police Northshire Police Knows this child Out of date Missing episodes, last active Jun 2026" in page
    assert "Last sent information on 18 Nov 2026." in page


def test_an_organisation_with_nothing_to_show_is_listed_with_what_that_means(running: Running) -> None:
    page = shown(running, a_view())
    assert "Northshire ICB, health: Nothing to show. This does not mean that nothing is known." in page
    assert "does not send information to this service" in page


def test_a_possible_match_is_never_shown_as_a_fact(running: Running) -> None:
    tile = a_tile("northshire-icb", "health", a_category("health.not_brought", "Not brought", unconfirmed=True))
    page = shown(running, a_view(tiles=[tile], person={"band": "possible", "agreed": ["family_name"]}))
    assert "Possible match: check with the agency. Do not record this as fact until they confirm." in page
    assert "Knows this child" not in page


def test_what_is_withheld_is_said_once_with_what_would_unlock_it_and_a_link_to_start(running: Running) -> None:
    view = a_view()
    view["withheld"] = view["withheld"] * 2
    contact = a_contact(running)
    kept = a_kept_view(running, view, contact=contact)
    page = running.client(ANALYST).get(f"/views/{kept}").text
    assert words_of(page).count("Needs level 4, decided by a decision-maker. Ask them to decide.") == 1
    assert f'href="/contacts/{contact}/threshold">Ask for a threshold decision' in page


def test_the_clause_that_allows_each_kind_is_there_to_read(running: Running) -> None:
    page = shown(running, a_view())
    assert "“4.1 To screen a contact, every party shows the hub" in page
    assert "(northshire-mash@3.0.0, screen-index)" in page


@pytest.mark.parametrize("page", ["", "/paper"])
@pytest.mark.parametrize("emergency", [None, "0" * 32])
def test_while_nobody_can_say_what_is_in_force_no_view_is_shown_again(
    running: Running, page: str, emergency: str | None
) -> None:
    view = a_kept_view(running, a_view(emergency=emergency))
    box = running.store.get("view", ANALYST.id, view, now=running.clock())
    assert box is not None
    running.store.replace("view", ANALYST.id, view, box.content | {"in_force": "a-mark"}, now=running.clock())
    answer = running.client(ANALYST).get(f"/views/{view}{page}")  # no broker answers
    assert answer.status_code == 503
    assert "Attendance" not in answer.text


@pytest.mark.parametrize(
    ("narrowed", "left"),
    [
        ("category=education.attendance", ["Absent for a fifth"]),
        ("basis=opinion", ["Referral from a school"]),
        ("since=2026&until=2026&basis=fact", ["Child protection plan started", "Section 47 enquiry"]),
        ("organisation=northshire-police", []),
        ("since=9999999999999999999999", []),
        ("basis=%3Cscript%3E", []),
    ],
)
def test_a_chronology_can_be_narrowed_and_says_how_much_of_it_is_left(
    running: Running, narrowed: str, left: list[str]
) -> None:
    view = a_kept_view(running, a_view())
    page = running.client(ANALYST).get(f"/views/{view}?{narrowed}").text
    shown = page.split('id="chronology"')[1].split('id="not-shown"')[0]
    every = ["Child protection plan started", "Section 47 enquiry", "Referral from a school", "Absent for a fifth"]
    events = shown.split("Shows")[1].lower()
    assert [words for words in every if words.lower() in events] == left
    assert f"Shows {len(left)} of 4 events" in shown
    assert "Nothing shown from" not in shown  # a gap of a part is none
    assert ("None of the events is like that" in shown) == (not left)
    assert "<script>" not in page


def test_a_chronology_runs_newest_first_marks_opinion_and_shows_gaps(running: Running) -> None:
    page = shown(running, a_view())
    assert page.index("12 Jun 2026: Child protection plan started") < page.index("30 May 2026: ")
    assert "Nothing shown from March 2025 to May 2026. This does not mean that nothing happened." in page
    assert "“ Opinion" in page
    assert "role: subject" in page
    assert "Recorded on 1 Jun 2026" in page


def test_after_twenty_events_the_rest_is_one_step_away(running: Running) -> None:
    events = [an_event(f"2026-{month:02d}-{day:02d}", "Contact") for month in (4, 5, 6) for day in range(1, 12)]
    page = shown(running, a_view(chronology=events))
    assert "Show all 33" in page
    assert page.index("Show all 33") < page.index("1 Apr 2026")


def test_gaps_stand_only_between_events_more_than_six_months_apart() -> None:
    def on(date: str) -> Event:
        return Event.model_validate(an_event(date, "x"))

    near = [on("2026-06-30"), on("2025-12-01")]
    assert with_gaps(near) == near
    assert isinstance(with_gaps([on("2026-06-30"), on("2025-11-30")])[1], Gap)


def test_the_view_goes_out_with_its_receipt_and_says_when_it_ends(running: Running) -> None:
    page = shown(running, a_view())
    assert "What you see is recorded. Ends 11:27. Receipt 0192f0c1d2e3f4a5b6c7d8e9f0a1b2c3." in page


def test_results_say_what_fits_in_words_and_never_in_numbers(running: Running) -> None:
    page = listed(
        running, a_search_answer(a_candidate("c-2", "possible"), a_candidate("c-1"), a_candidate("c-3", "possible"))
    )
    assert page.startswith("1 match, 2 possible matches")
    assert page.index("NHS number and date of birth agree. Postcode differs.") < page.index(
        "Family name and date of birth agree"
    )
    assert not re.search(r"\d\.\d|\d ?%", page)


def test_no_match_is_never_reassurance_and_names_everyone_to_ring(running: Running) -> None:
    page = listed(running, a_search_answer())
    assert page.startswith("No match to show This does not mean that nothing is known.")
    assert "Northshire Police last sent information on 18 Nov 2026. We cannot say whether it knows this child." in page
    assert "Northshire ICB has paused its sharing since 18 Nov 2026." in page
    assert "Northshire Council does not send information to this service." in page
    assert page.count("Ring the police safeguarding desk 01632 960 150") == 1


def test_a_refusal_is_a_sentence_and_never_a_bare_code(running: Running) -> None:
    refusal = {"code": "RATE_LIMIT", "sentence": "You have searched a lot in a short time. Try again at 14:40."}
    page = listed(running, a_search_answer(refusals=[refusal]))
    assert page.startswith("We could not show this")
    assert "You have searched a lot in a short time." in page
    assert "RATE_LIMIT" not in page


def test_markup_in_an_answer_is_shown_as_text(running: Running) -> None:
    nasty = '<img src=x onerror="alert(1)">'
    tile = a_tile(
        "northshire-police",
        "police",
        a_category("police.x", nasty),
        contact=POLICE_DESK | {"phone": "javascript:alert(1)"},
    )
    view = a_view(tiles=[tile], chronology=[an_event("2026-05-01", nasty)], banner=nasty)
    page = running.client(ANALYST).get(f"/views/{a_kept_view(running, view)}").text
    assert "<img" not in page
    assert 'href="javascript' not in page


@pytest.mark.parametrize("view", [a_view(), a_view(tiles=[], others=[], family=[], chronology=[], withheld=[])])
def test_no_word_of_the_never_say_list_is_on_the_page(running: Running, view: dict[str, Any]) -> None:
    page = shown(running, view).lower().replace("safeguarding", "")
    assert [word for word in NEVER_SAID if re.search(rf"\b{word}\b", page)] == []


def relative(relation: str, **changes: Any) -> Relative:
    return Relative.model_validate({"relation": relation, "birth_year": 1990, "known_to": 1} | changes)


@pytest.mark.parametrize("count", [1, 8, LIMIT])
def test_no_two_boxes_of_the_drawing_touch_and_each_relative_has_one_line(count: int) -> None:
    kinds = ["birth_parent", "sibling", "step_parent", "sibling"]
    family = [relative(kinds[index % 4], to="2024-01-01" if index % 3 == 0 else None) for index in range(count)]
    drawing = draw(Person(band="match", birth_year=2017), family, this_year=2026)
    assert drawing
    boxes = [(node.x, node.y) for node in drawing.nodes]
    assert len(set(boxes)) == count + 1
    for index, (x, y) in enumerate(boxes):
        assert 0 <= x <= drawing.width - BOX_WIDTH
        assert 0 <= y <= drawing.height - BOX_HEIGHT
        for other_x, other_y in boxes[index + 1 :]:
            assert abs(x - other_x) >= BOX_WIDTH or abs(y - other_y) >= BOX_HEIGHT
    assert len(drawing.lines) == count
    assert sum(line.ended for line in drawing.lines) == sum(one.until is not None for one in family)


def test_beyond_the_limit_there_is_the_table_alone(running: Running) -> None:
    family = [{"relation": "sibling", "birth_year": 2010, "sources": ["northshire-icb"]}] * (LIMIT + 1)
    page = shown(running, a_view(family=family))
    assert "Drawing shows up to 24 people." in page


def test_where_organisations_disagree_on_a_relative_the_page_says_so_in_words(running: Running) -> None:
    assert set(words.FAMILY_CONFLICTS) == set(DISAGREEMENTS)
    family = [
        {"relation": "carer", "birth_year": 1980, "sources": ["northshire-icb"], "conflict": ["carer_or_parent", "new"]}
    ]
    page = shown(running, a_view(family=family))
    assert words.FAMILY_CONFLICTS["carer_or_parent"] in page
    assert "Organisations disagree on this." in page


def test_a_later_brokers_new_members_do_not_break_the_page() -> None:
    FamilyView.model_validate(a_view(something_new={"a": 1}))
    SearchAnswer.model_validate(a_search_answer(something_new=[]))


def test_the_export_is_a_request_of_its_own(running: Running) -> None:
    client = running.client(ANALYST)
    kept = a_kept_view(running, a_view(), typed=something_typed())
    page = client.get(f"/views/{kept}").text
    from tests.linkage.agency.gateway.builders import csrf_of

    answer = client.post(f"/views/{kept}/json", data={"csrf": csrf_of(page)})
    assert answer.status_code == 503  # nobody answers: what was shown before is not given out again
    assert LATE not in answer.text


def test_kinds_of_information_bear_the_labels_of_the_vocabulary() -> None:
    assert {code: one.label for code, one in VOCABULARY.categories.items()} == dict(words.KINDS)


def test_a_reason_that_holds_for_many_kinds_is_one_row() -> None:
    alike = [
        Refusal(organisation=source, category=kind, code="MODE_EXCEEDS", sentence="Less than you asked for.")
        for source in ("a", "b")
        for kind in ("x.one", "x.two", "x.one")
    ]
    assert [(one.organisations, one.categories) for one in reasons(alike)] == [
        (("a",), ("x.one", "x.two")), (("b",), ("x.one", "x.two")),
    ]  # fmt: skip
    assert [one.organisations for one in reasons(alike, across=True)] == [("a", "b")]
    part = a_search_answer() | {"refusals": [one.model_dump() for one in alike]}
    assert not SearchAnswer.model_validate(part).refused  # shown in part is no refusal of the search
