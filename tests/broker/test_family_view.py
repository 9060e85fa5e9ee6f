"""The family view says no more than what was decided and rendered, and its first answer comes first."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agreements import Decision, Mode, Rendering, Snapshot
from agreements.agreement import GrantRef
from agreements.render import ShownItem, Status
from agreements.verdict import Shown
from broker.family_view import Contact, Feed, Header, Seen, build
from broker.linked import Relative, Stated

AT = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
COUNCIL, ICB, POLICE = "northshire-council", "northshire-icb", "northshire-police"
DESK = Contact(name="Duty desk", phone="01632 960 104", out_of_hours=None)
LEAD = Contact(name="Family hub", phone="01632 960 120", out_of_hours=None)
PAUSED_SINCE = datetime(2026, 7, 6, 23, 30, tzinfo=UTC)  # past midnight in London
NOBODY_SIGNED = cast("Snapshot", SimpleNamespace(agreements=()))


def a_feed(organisation: str, flow: str, state: str = "CURRENT") -> Feed:
    return Feed(
        organisation=organisation, name=organisation.title(), flow=flow, state=cast("Any", state), as_of=AT,
        paused_since=PAUSED_SINCE if state == "PAUSED" else None, contact=DESK, contacts={"hub": LEAD},
    )  # fmt: skip


def a_rendering(
    category: str,
    mode: Mode,
    *,
    status: str | None = None,
    items: tuple[ShownItem, ...] = (),
    contact: str | None = None,
) -> Rendering:
    return Rendering(
        category=category, label=category, mode=mode, last_active="2026-10", contact=contact, items=items,
        status=Status(code=status, label=status.title()) if status else None, may_ask_holder=False,
    )  # fmt: skip


def an_item(on: date) -> ShownItem:
    return ShownItem(
        on=on, ended_on=None, recorded_on=on, code_system="s", code="c", label="Something happened", number=None,
        role=None, opinion=False, outcome_code=None, outcome_label=None,
    )  # fmt: skip


def seen(
    organisation: str, flow: str, *renderings: Rendering, relation: str = "subject_child", person: str = "child"
) -> Seen:
    shown = {r.category: Shown(mode=r.mode, under=GrantRef("a@1", "g"), also=()) for r in renderings}
    decision = cast("Decision", SimpleNamespace(shown=shown, unconfirmed=False))
    record = (organisation, flow, f"r-{person}")
    return Seen(
        record=record, source=organisation, person_id=person, relation=relation, decision=decision,
        renderings=renderings,
    )  # fmt: skip


def a_view(
    *records: Seen, feeds: list[Feed], relatives: list[tuple[Relative, int | None, str]] | None = None,
    conflicts: dict[str, tuple[str, ...]] | None = None,
) -> Any:  # fmt: skip
    header = Header(birth_year=2015, sex="F", band="match", agreed=(), differs=())
    return build(
        view="v", at=AT, ends_at=AT + timedelta(hours=1), purpose="MASH_SCREEN", threshold=None, person=header,
        seen=records, relatives=relatives or [], conflicts=conflicts or {}, feeds=feeds, withheld=(), snapshot=NOBODY_SIGNED,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("category", "status"),
    [
        ("social_care.child_protection", "PLAN"),
        ("social_care.child_protection", "S47_OPEN"),
        ("social_care.child_in_need", "OPEN"),
        ("social_care.contact", "OPEN"),
    ],
)
def test_an_open_case_heads_the_view_with_its_team_to_ring(category: str, status: str) -> None:
    worker = a_rendering("social_care.allocated_worker", Mode.STATUS, status="ASSESSMENT", contact="hub")
    view = a_view(
        seen(COUNCIL, "social_care", a_rendering(category, Mode.STATUS, status=status), worker),
        seen(ICB, "health", a_rendering("health.not_brought", Mode.EXISTENCE)),
        feeds=[a_feed(ICB, "health"), a_feed(COUNCIL, "social_care")],
    )
    assert view.first_call.kind == "already_open"
    assert view.first_call.contact == LEAD
    assert view.tiles[0].flow == "social_care"


def test_with_no_social_worker_the_early_help_lead_heads_the_view() -> None:
    view = a_view(
        seen(COUNCIL, "early_help", a_rendering("early_help.episode", Mode.STATUS, status="OPEN", contact="hub")),
        feeds=[a_feed(COUNCIL, "early_help")],
    )
    assert (view.first_call.kind, view.first_call.contact) == ("lead_practitioner", LEAD)


def test_a_plan_that_ended_is_named_as_stepped_down_and_nothing_open_is_named_as_nothing_that_can_be_shown() -> None:
    ended = a_rendering("social_care.child_in_need", Mode.STATUS, status="STEPPED_DOWN")
    assert a_view(
        seen(COUNCIL, "social_care", ended), feeds=[a_feed(COUNCIL, "social_care")]
    ).first_call.kind == "stepped_down"  # fmt: skip
    nothing = a_view(feeds=[a_feed(COUNCIL, "social_care")]).first_call
    assert nothing.kind == "none"
    assert "can be shown" in nothing.sentence


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("CURRENT", "This does not mean that nothing is known"),
        ("STALE", "We cannot say whether it knows this child"),
        ("NOT_CONNECTED", "does not send information"),
        ("PAUSED", "has paused its sharing since 7 Jul 2026. Ring"),
    ],
)
def test_absence_is_never_reassurance_and_a_late_feed_never_reads_as_no_record(state: str, words: str) -> None:
    (other,) = a_view(feeds=[a_feed(POLICE, "police", state)]).others
    assert words in other.sentence
    if state != "CURRENT":
        assert "Nothing to show" not in other.sentence


def test_a_late_feed_that_knows_the_child_keeps_its_tile_and_says_it_is_stale() -> None:
    view = a_view(
        seen(POLICE, "police", a_rendering("police.missing_episode", Mode.EXISTENCE)),
        feeds=[a_feed(POLICE, "police", "STALE")],
    )
    assert [(tile.organisation, tile.state) for tile in view.tiles] == [(POLICE, "STALE")]


def test_a_hidden_relative_leaves_no_line_and_no_count() -> None:
    mother = Relative(
        person_id="mother", relation="parent",
        stated=(
            Stated(type="birth_parent", source=COUNCIL, flow="education", verified=True, since=None, until=None),
        ),
        flows=frozenset({(COUNCIL, "education")}),
    )  # fmt: skip
    hidden = Seen(
        record=(ICB, "health", "r"), source=ICB, person_id="mother", relation="parent",
        decision=cast("Decision", SimpleNamespace(shown={}, unconfirmed=False)), renderings=(),
    )  # fmt: skip
    child = seen(COUNCIL, "education", a_rendering("education.enrolment", Mode.EXISTENCE))
    feeds = [a_feed(COUNCIL, "education"), a_feed(ICB, "health")]
    without = a_view(child, feeds=feeds)
    assert a_view(child, hidden, feeds=feeds, relatives=[(mother, 1990, "parent")]) == without
    known = seen(
        COUNCIL, "education", a_rendering("education.enrolment", Mode.EXISTENCE), relation="parent", person="mother"
    )
    (member,) = a_view(child, known, hidden, feeds=feeds, relatives=[(mother, 1990, "parent")]).family
    assert (member.relation, member.known_to, member.sources, member.conflict) == ("birth_parent", 1, (COUNCIL,), ())


def test_where_organisations_disagree_on_a_relative_the_line_says_how() -> None:
    carer = Relative(
        person_id="carer", relation="carer",
        stated=(Stated(type="carer", source=COUNCIL, flow="education", verified=False, since=None, until=None),),
        flows=frozenset({(COUNCIL, "education")}),
    )  # fmt: skip
    known = seen(
        COUNCIL, "education", a_rendering("education.enrolment", Mode.EXISTENCE), relation="carer", person="carer"
    )
    (member,) = a_view(
        known, feeds=[a_feed(COUNCIL, "education")], relatives=[(carer, 1990, "carer")],
        conflicts={"carer": ("ended_or_current",)},
    ).family  # fmt: skip
    assert member.conflict == ("ended_or_current",)


def test_what_police_hold_on_a_father_is_in_the_chronology_but_does_not_make_police_know_the_child() -> None:
    incident = an_item(date(2026, 5, 1))
    father = seen(
        POLICE, "police", a_rendering("police.domestic_abuse", Mode.SUMMARY, items=(incident,)),
        relation="parent", person="father",
    )  # fmt: skip
    view = a_view(father, feeds=[a_feed(POLICE, "police")])
    assert view.tiles == ()
    assert [(entry.about, entry.date) for entry in view.chronology] == [("parent", incident.on)]


def test_the_chronology_holds_every_dated_item_that_is_shown_newest_first() -> None:
    early, late = an_item(date(2025, 3, 1)), an_item(date(2026, 3, 1))
    view = a_view(
        seen(ICB, "health", a_rendering("health.not_brought", Mode.SUMMARY, items=(early,))),
        seen(COUNCIL, "education", a_rendering("education.attendance", Mode.SUMMARY, items=(late,))),
        feeds=[a_feed(COUNCIL, "education"), a_feed(ICB, "health")],
    )
    assert [entry.date for entry in view.chronology] == [late.on, early.on]
