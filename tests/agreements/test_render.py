"""Renderings nest, tell no place under a shield, and never show police items without a role."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from random import Random

import pytest

from agreements import VOCABULARY, Item, Mode, render
from agreements.render import lowered
from tests.agreements.worlds import SCALE

ON = date(2026, 6, 1)
EXAMPLES = 1500 * SCALE
CASEWORK = (Mode.EXISTENCE, Mode.STATUS, Mode.SUMMARY, Mode.DETAIL)


def an_item(category: str, system: str, code: str | None, day: date, **more: object) -> Item:
    values: dict[str, object] = {"recorded_on": day} | more
    return Item(category=category, code_system=system, code=code, occurred_on=day, **values)  # type: ignore[arg-type]


def held(draw: Random) -> tuple[str, list[Item]]:
    """A category, and up to six items of it."""
    category = VOCABULARY.categories[draw.choice(VOCABULARY.shareable)]
    pairs = [(system, code) for system, codes in category.codes.items() for code in codes]
    items = []
    for system, code in draw.choices(pairs, k=draw.randint(0, 6)):
        day = ON - timedelta(days=draw.randint(0, 900))
        items.append(
            an_item(
                category.name,
                system,
                code,
                day,
                recorded_on=day + timedelta(days=draw.randint(0, 9)),
                ended_on=draw.choice((None, day + timedelta(days=draw.randint(0, 400)))),
                role=draw.choice(("subject", "victim", "witness")),
                regime=draw.choice(("GENERAL", "LE")),
                outcome_code=draw.choice((None, *category.outcomes)),
                contact=draw.choice((None, "desk")),
                number=draw.choice((None, 88.0)),
            )
        )
    return category.name, items


def test_p12_a_lower_mode_is_a_function_of_the_higher() -> None:
    rendered = Counter[Mode]()
    for seed in range(EXAMPLES):
        draw = Random(seed)
        category, items = held(draw)
        shielded = draw.random() < 0.5
        shown = {mode: render(category, mode, items, on=ON, shielded=shielded) for mode in CASEWORK}
        rendered.update(mode for mode, one in shown.items() if one is not None)
        for high in CASEWORK:
            for low in CASEWORK:
                higher = shown[high]
                if low <= high and higher is not None:
                    assert lowered(higher, low) == shown[low], seed
                    assert lowered(shown[low], low) == shown[low], seed  # type: ignore[arg-type]
            if not items:
                assert shown[high] is None, seed
    assert min(rendered[mode] for mode in CASEWORK) >= 1000 * SCALE, rendered


def test_p12_order_of_items_and_items_of_others_make_no_difference() -> None:
    rendered = Counter[bool]()
    for seed in range(EXAMPLES):
        category, items = held(Random(seed))
        stranger = an_item("health.cp_is", "cp_is", "CPP", ON)
        others = [] if category == "health.cp_is" else [stranger]
        shown = render(category, Mode.DETAIL, items, on=ON)
        rendered[shown is not None] += 1
        assert shown == render(category, Mode.DETAIL, [*others, *items[::-1]], on=ON), seed
    assert rendered[True] >= 1000 * SCALE, rendered


@pytest.mark.parametrize("mode", CASEWORK)
def test_each_step_up_adds_one_thing(mode: Mode) -> None:
    items = [an_item("health.not_brought", "health_service", "DENTAL", date(2026, 2, 3), contact="desk")]
    shown = render("health.not_brought", mode, items, on=ON)
    assert shown is not None
    assert (shown.last_active, shown.contact) == ("2026-02", "desk")
    assert (shown.status is not None) is (mode >= Mode.STATUS)
    assert bool(shown.items) is (mode >= Mode.SUMMARY)
    assert shown.may_ask_holder is (mode is Mode.DETAIL)


def test_nothing_is_rendered_at_none_at_aggregate_or_without_items() -> None:
    items = [an_item("health.cp_is", "cp_is", "CPP", ON)]
    assert render("health.cp_is", Mode.NONE, items, on=ON) is None
    assert render("health.cp_is", Mode.AGGREGATE, items, on=ON) is None
    assert render("health.registration", Mode.DETAIL, items, on=ON) is None


def test_an_item_that_reaches_less_than_the_category_stays_out_of_the_summary() -> None:
    old = an_item("health.not_brought", "health_service", "DENTAL", date(2025, 12, 1))
    new = an_item("health.not_brought", "health_service", "THERAPY", date(2026, 5, 1))
    older = an_item("health.not_brought", "health_service", "IMMUNISATION", date(2020, 1, 1))

    def reach(_: str, recorded_on: date, __: str) -> Mode:
        return Mode.SUMMARY if recorded_on.year == 2026 else Mode.STATUS if recorded_on.year == 2025 else Mode.NONE

    shown = render("health.not_brought", Mode.SUMMARY, [old, new, older], on=ON, reach=reach)
    assert shown is not None and shown.status is not None
    assert [item.code for item in shown.items] == ["THERAPY"]
    assert shown.status.code == "1-2"


def test_a_police_item_is_never_shown_without_its_role() -> None:
    item = an_item("police.custody", "custody", "ARREST", date(2026, 5, 1), role="victim", regime="LE")
    shown = render("police.custody", Mode.SUMMARY, [item], on=ON)
    assert shown is not None and shown.status is not None
    assert shown.items[0].role == "victim" and shown.status.role == "victim"


def test_an_item_without_a_role_is_not_shown_where_a_role_is_due() -> None:
    item = an_item("police.custody", "custody", "ARREST", date(2026, 5, 1), role=None, regime="LE")
    assert render("police.custody", Mode.SUMMARY, [item], on=ON) is None


def test_under_a_shield_no_school_practice_site_or_local_contact_is_told() -> None:
    school = an_item(
        "education.enrolment",
        "enrolment",
        "ENROLLED",
        date(2025, 9, 1),
        number=123456.0,
        outcome_code="4",
        contact="school",
    )
    practice = an_item(
        "health.registration",
        "nhs_trace",
        "TRACED_REGISTERED",
        date(2024, 1, 1),
        outcome_code="A81001",
        contact="surgery",
    )
    for item in (school, practice):
        shown = render(item.category, Mode.SUMMARY, [item], on=ON, shielded=True)
        assert shown is not None and shown.contact is None
        assert shown.items[0].number is None and shown.items[0].outcome_code in (None, "4")


@pytest.mark.parametrize(
    ("category", "items", "code"),
    [
        ("health.not_brought", [("health_service", "DENTAL", date(2025, 5, 31), {})], "0"),
        ("health.not_brought", [("health_service", "DENTAL", date(2026, month, 1), {}) for month in (1, 2, 3)], "3+"),
        (
            "police.domestic_abuse",
            [("dash_grade", grade, ON, {"role": "victim"}) for grade in ("HIGH", "STANDARD")],
            "HIGH",
        ),
        ("police.missing_episode", [("missing_risk", "LOW", ON, {"role": "subject"})], "MISSING_NOW"),
        (
            "police.protection_power",
            [("protection_power", "S46", date(2026, 1, 1), {"ended_on": date(2026, 1, 3), "role": "subject"})],
            "NO",
        ),
        ("health.cp_is", [("cp_is", "CPP", date(2025, 1, 1), {"ended_on": date(2026, 1, 1)})], "ENDED"),
        ("health.cp_is", [("cp_is", "LAC", date(2025, 1, 1), {})], "LAC"),
        (
            "health.developmental_review",
            [("hv_review", "C5", date(2025, 9, 1), {"outcome_code": "OVERDUE"})],
            "OVERDUE",
        ),
        ("social_care.contact", [("referral_source", "6", date(2026, 5, 1), {"outcome_code": "STRATEGY"})], "STRATEGY"),
        (
            "social_care.child_protection",
            [("cp_category", "NEG", date(2025, 9, 1), {"ended_on": date(2026, 3, 1), "outcome_code": "STEPPED_DOWN"})],
            "STEPPED_DOWN",
        ),
        ("social_care.child_protection", [("cp_enquiry", "S47", date(2026, 5, 20), {})], "S47_OPEN"),
        ("social_care.allocated_worker", [("team", "ASSESSMENT", date(2026, 5, 20), {})], "ASSESSMENT"),
        (
            "early_help.episode",
            [
                ("early_help_reason", "ROUTINES", date(2025, 9, 1), {}),
                ("lead_practitioner", "SCHOOL", date(2025, 9, 1), {}),
            ],
            "OPEN",
        ),
        (
            "education.attendance",
            [
                ("attendance_band", "PERSISTENT", date(2026, 4, 1), {}),
                ("attendance_sessions", "POSSIBLE", date(2026, 5, 1), {}),
            ],
            "PERSISTENT",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_status_follows_from_the_items(
    category: str, items: list[tuple[str, str, date, dict[str, object]]], code: str
) -> None:
    shown = render(category, Mode.STATUS, [an_item(category, *item[:3], **item[3]) for item in items], on=ON)
    assert shown is not None and shown.status is not None
    assert shown.status.code == code


def test_every_category_has_a_status_rule_that_is_known() -> None:
    for name in VOCABULARY.shareable:
        category = VOCABULARY.categories[name]
        system = next(iter(category.codes))
        if category.status and category.status.systems:
            system = category.status.systems[0]
        item = an_item(name, system, next(iter(category.codes[system])), ON, role="subject")
        shown = render(name, Mode.STATUS, [item, replace(item, ended_on=ON)], on=ON)
        assert shown is not None and shown.status is not None, name
