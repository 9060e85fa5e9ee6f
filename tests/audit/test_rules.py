"""The rules over events: what each finds and what it lets pass; and what holds of all of them, whatever the events."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audit.events import EVENT_TYPES
from audit.rules import (
    CONSIDERED,
    DAY_MS,
    HOUR_MS,
    LONDON,
    LOOKBACK_MS,
    LOOKS,
    REGISTER,
    Act,
    Actor,
    CaseFacts,
    Change,
    Finding,
    Past,
    Thresholds,
    UnknownThreshold,
    evaluate,
)
from audit.taxonomy import KINDS

NINE = int(datetime(2026, 11, 17, 9, 0, tzinfo=LONDON).timestamp() * 1000)  # a Tuesday
MIDNIGHT = NINE - 9 * HOUR_MS
ANNA = Actor("northshire-council", "p-1")
DEFAULTS = Thresholds.of()


def an_act(number: int = 0, *, minutes: float = 0, **changes: Any) -> Act:
    """A look that no rule minds, so many minutes after nine."""
    given: dict[str, Any] = {
        "event_id": f"event-{number:04}", "t_ms": NINE + int(minutes * 60_000), "type": "disclosure.authorised",
        "organisation": ANNA.organisation, "person": ANNA.person, "role": "SOCIAL_WORKER", "purpose": "S47",
        "case": "c" * 64, "subjects": frozenset({"child-1"}),
    }  # fmt: skip
    return Act(**(given | changes))


def found(
    acts: Iterable[Act], past: Past | None = None, thresholds: Thresholds = DEFAULTS, *, since: int = MIDNIGHT
) -> list[Finding]:
    return list(evaluate(acts, past or Past(), thresholds, since_ms=since, until_ms=since + DAY_MS))


def rules_of(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(one.event_id, one.rule) for one in findings]


def only(rule: str, findings: Iterable[Finding]) -> list[Finding]:
    return [one for one in findings if one.rule == rule]


def test_a_look_in_working_hours_under_a_case_is_no_finding() -> None:
    assert found([an_act()]) == []


def test_a_look_without_a_case_is_found_and_a_refusal_without_one_is_not() -> None:
    refused = an_act(1, case="", type="search.refused", subjects=frozenset())
    assert rules_of(found([an_act(case=""), refused])) == [("event-0000", "no_case")]


def test_an_unknown_case_another_teams_and_a_closed_one_are_found_where_somebody_tells_of_cases() -> None:
    acts = [an_act(n, case=case) for n, case in enumerate(("open", "theirs", "closed", "nowhere"))]
    assert found(acts) == []
    cases = {
        "open": CaseFacts(teams=frozenset({"north"})),
        "theirs": CaseFacts(teams=frozenset({"south"})),
        "closed": CaseFacts(teams=frozenset({"north"}), closed_ms=NINE - 3 * DAY_MS),
    }
    known = Past(cases=cases, teams={ANNA: frozenset({"north"})})
    assert rules_of(found(acts, known)) == [
        ("event-0001", "case_of_another_team"), ("event-0002", "after_closure"), ("event-0003", "unknown_case"),
    ]  # fmt: skip
    (closed,) = only("after_closure", found(acts, known))
    assert closed.figures == {"days": 3}


@pytest.mark.parametrize(
    ("at", "outside"),
    [("2026-11-17T06:59", True), ("2026-11-17T07:00", False), ("2026-11-17T19:59", False), ("2026-11-17T20:00", True),
     ("2026-11-21T11:00", True), ("2026-07-14T06:30", True), ("2026-07-14T07:30", False)],
)  # fmt: skip
def test_hours_are_londons_and_a_role_may_have_others(at: str, outside: bool) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=LONDON)
    t_ms = int(moment.timestamp() * 1000)
    since = t_ms - 12 * HOUR_MS
    assert bool(found([an_act(t_ms=t_ms)], since=since)) is outside
    assert found([an_act(t_ms=t_ms, role="UNSCHED_CLINICIAN")], since=since) == []
    late = Thresholds.of([Change(rule="out_of_hours", name="SOCIAL_WORKER.to_hour", value=24)])
    assert bool(found([an_act(t_ms=t_ms)], thresholds=late, since=since)) is (outside and moment.hour < 20)


def test_a_burst_is_more_than_is_usual_for_the_person_once_an_hour_and_on_the_act_that_passes_it() -> None:
    acts = [an_act(n, minutes=n, subjects=frozenset({f"child-{n}"})) for n in range(12)]
    quiet = Past(hours={(ANNA, "disclosure.authorised"): [1, 2, 1, 2] * 10})
    busy = Past(hours={(ANNA, "disclosure.authorised"): [4, 14] * 20})
    burst = only("burst", found(acts, quiet))
    assert [(one.event_id, one.figures) for one in burst] == [
        ("event-0007", {"persons": 8, "hours": 40, "total": 60})  # least 8, far above a mean of 1.5
    ]
    assert only("burst", found(acts, busy)) == []
    assert only("burst", found(acts)) == []  # nothing is usual yet, and twelve are not sixty
    many = [an_act(n, minutes=n / 2, subjects=frozenset({f"child-{n}"})) for n in range(70)]
    assert [one.event_id for one in only("burst", found(many))] == ["event-0060"]


@given(hours=st.lists(st.integers(0, 30), min_size=20, max_size=60), count=st.integers(8, 59))
def test_three_standard_deviations_are_told_exactly(hours: list[int], count: int) -> None:
    from fractions import Fraction

    mean = Fraction(sum(hours), len(hours))
    variance = Fraction(sum(each * each for each in hours), len(hours)) - mean * mean
    acts = [an_act(n, minutes=n, subjects=frozenset({f"child-{n}"})) for n in range(count)]
    crossed = [n for n in range(8, count + 1) if n > mean and (n - mean) ** 2 > 9 * variance]
    burst = only("burst", found(acts, Past(hours={(ANNA, "disclosure.authorised"): hours})))
    assert [one.figures["persons"] for one in burst] == crossed[:1]


def test_a_first_look_at_a_child_counts_only_for_a_purpose_one_hardly_has() -> None:
    usual = Past(purposes={ANNA: {"S47": 99, "EARLY_HELP": 1}})
    acts = [an_act(0), an_act(1, purpose="EARLY_HELP", subjects=frozenset({"child-2"}))]
    assert rules_of(found(acts, usual)) == [("event-0001", "first_pair")]
    again = Past(purposes=usual.purposes, seen={(ANNA, "child-2")})
    assert found(acts, again) == []
    assert found(acts, Past(purposes={ANNA: {"S47": 3}})) == []  # too few to be usual


def test_break_glass_after_refusals_is_found_and_without_them_not() -> None:
    refused = [
        an_act(n, minutes=n - 20 * 60, type="search.refused", subjects=frozenset()) for n in range(3)
    ]  # the evening before
    opened = an_act(9, type="breakglass.opened")
    closed = an_act(10, minutes=30, type="breakglass.closed", concerns="event-0009", subjects=frozenset())
    assert rules_of(found([*refused, opened, closed])) == [("event-0009", "refused_then_break_glass")]
    assert found([*refused[:2], opened, closed]) == []


def test_break_glass_that_nobody_closes_is_found_when_its_day_is_over_and_once() -> None:
    opened = an_act(type="breakglass.opened")
    closed = an_act(1, type="breakglass.closed", concerns="event-0000", subjects=frozenset(), minutes=60)
    late = an_act(1, type="breakglass.closed", concerns="event-0000", subjects=frozenset(), minutes=25 * 60)
    assert found([opened]) == []
    next_day = MIDNIGHT + DAY_MS
    assert rules_of(found([opened], since=next_day)) == [("event-0000", "break_glass_not_closed")]
    assert rules_of(found([opened, late], since=next_day)) == [("event-0000", "break_glass_not_closed")]
    assert found([opened, closed], since=next_day) == found([opened], since=next_day + DAY_MS) == []


def test_fishing_is_nearly_the_same_question_again_and_again() -> None:
    def search(number: int, *parts: str) -> Act:
        return an_act(number, minutes=number, type="search.authorised", query=frozenset(parts), listed=1)

    varied = [search(n, "family smith", "postcode a", f"given {n}", f"born {n}") for n in range(4)]
    assert rules_of(found(varied)) == [("event-0003", "fishing")]
    assert found([search(n, "family smith", "postcode a") for n in range(6)]) == []  # the same, asked again
    others = [search(n, f"family {n}", f"postcode {n}", f"given {n}", "sex F") for n in range(6)]
    assert found(others) == []


def test_a_wider_search_after_several_that_listed_nobody_is_found() -> None:
    def search(number: int, listed: int, *fields: str) -> Act:
        return an_act(
            number, minutes=number, type="search.authorised", fields=frozenset(fields), listed=listed,
            subjects=frozenset(),
        )  # fmt: skip

    empty = [search(n, 0, "name", "born", "postcode") for n in range(3)]
    assert rules_of(found([*empty, search(3, 1, "name")])) == [("event-0003", "widened")]
    assert found([*empty[:2], search(3, 1, "name")]) == []
    assert found([*empty, search(3, 1, "name", "born", "postcode", "nhs")]) == []  # it asks more


def test_an_account_that_slept_is_found_at_its_first_act_and_a_new_one_is_not() -> None:
    acts = [an_act(0), an_act(1, minutes=5)]
    slept = Past(last_ms={ANNA: NINE - 91 * DAY_MS})
    assert [(one.event_id, one.figures) for one in only("dormant", found(acts, slept))] == [
        ("event-0000", {"days": 91})
    ]
    assert found(acts) == found(acts, Past(last_ms={ANNA: NINE - DAY_MS})) == []


def test_a_reviewer_of_one_colleague_alone_is_found_and_one_of_many_is_not() -> None:
    reviewer = Actor("northshire", "ig-1")

    def review(number: int, reviewed: str) -> Act:
        return an_act(
            number, minutes=number, type="audit.reviewed", organisation=reviewer.organisation, person=reviewer.person,
            subjects=frozenset(), reviewed=reviewed,
        )  # fmt: skip

    before = Past(reviews={reviewer: ["p-7"] * 9})
    assert rules_of(found([review(0, "p-7"), review(1, "p-7")], before)) == [("event-0000", "same_colleague")]
    assert found([review(n, f"p-{n}") for n in range(12)]) == []


def test_many_files_in_an_hour_are_found_once() -> None:
    files = [an_act(n, minutes=n, type="audit.exported", subjects=frozenset()) for n in range(20)]
    assert rules_of(found(files)) == [("event-0010", "taken_out")]
    assert found(files[:10]) == []


def test_purposes_that_are_not_what_they_were_are_found_on_the_last_look() -> None:
    usual = Past(purposes={ANNA: {"S47": 80, "CIN_S17": 20}}, seen={(ANNA, "child-1")})
    moved = [an_act(n, minutes=n, purpose="PLAN") for n in range(20)]
    (one,) = only("purposes_moved", found(moved, usual))
    assert (one.event_id, one.figures) == ("event-0019", {"moved_percent": 100, "looks": 20, "before": 100})
    assert only("purposes_moved", found([an_act(n, minutes=n) for n in range(20)], usual)) == []


# --- Thresholds and the register ------------------------------------------------------------------------------------


def test_a_rule_that_is_off_finds_nothing_and_a_threshold_that_is_none_is_refused() -> None:
    off = Thresholds.of([Change(rule="no_case", name="on", value=0)])
    assert found([an_act(case="")], thresholds=off) == []
    for rule, name, value in (
        ("no_rule", "on", 1), ("burst", "speed", 3), ("burst", "an_hour", 0), ("burst", "an_hour", 10**6),
        ("burst", "SOCIAL_WORKER.an_hour", 3), ("out_of_hours", "to_hour", 25), ("out_of_hours", "x.to_hour", 5),
        ("out_of_hours", "SOCIAL_WORKER.on", 1), ("refused_then_break_glass", "hours", 49), ("own_record", "on", 1),
        ("fishing", "percent", 101), ("no_case", "on", 2),
    ):  # fmt: skip
        with pytest.raises(UnknownThreshold):
            Thresholds.of([Change(rule=rule, name=name, value=value)])


GLASS = {"refused_then_break_glass", "break_glass_not_closed"}


def test_every_rule_that_is_not_measured_here_says_why_and_finds_nothing() -> None:
    silent = {rule.id for rule in REGISTER.values() if rule.unmeasured}
    assert silent >= {"own_record", "own_family", "same_surname", "own_address", "unknown_case", "after_closure"}
    assert not (silent - GLASS) & {one.rule for seed in range(20) for one in found(some_acts(random.Random(seed)))}
    assert {name for name in CONSIDERED if not name.startswith("breakglass")} <= set(EVENT_TYPES)
    assert not CONSIDERED & {"audit.flagged", "audit.searched", "audit.signed_off"}  # a look leads to no look


def test_rules_of_break_glass_are_measured_as_soon_as_something_can_break_it() -> None:
    waits = bool(KINDS["breakglass.opened"].reserved)
    assert {rule for rule in GLASS if REGISTER[rule].unmeasured} == (GLASS if waits else set())


# --- What holds whatever the events -----------------------------------------------------------------------------------

TYPES = sorted(CONSIDERED)


def some_acts(dice: random.Random, days: int = 3) -> list[Act]:
    """Acts of a few people over some days, of which some are surely odd."""
    acts = []
    for number in range(dice.randrange(120)):
        type_ = dice.choice(TYPES)
        acts.append(
            an_act(
                number, type=type_, t_ms=MIDNIGHT + dice.randrange(days * DAY_MS), person=f"p-{dice.randrange(3)}",
                case=dice.choice(("", "c1", "c2")), purpose=dice.choice(("S47", "PLAN")),
                subjects=frozenset(f"child-{dice.randrange(40)}" for _ in range(dice.randrange(4))),
                query=frozenset(f"f{dice.randrange(6)}" for _ in range(4)) if type_.startswith("search") else frozenset(),
                fields=frozenset(f"n{dice.randrange(4)}" for _ in range(dice.randrange(4))),
                listed=dice.randrange(2) if type_.startswith("search") else None,
                concerns=f"event-{dice.randrange(120):04}", reviewed=f"p-{dice.randrange(2)}",
            )
        )  # fmt: skip
    return acts


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_same_events_in_any_order_and_twice_give_the_same_findings(seed: int) -> None:
    dice = random.Random(seed)
    acts = some_acts(dice)
    whole = found(acts)
    shuffled = [*acts, *acts[: len(acts) // 2]]
    dice.shuffle(shuffled)
    assert found(shuffled) == whole
    assert len({(one.event_id, one.rule) for one in whole}) == len(whole)
    assert {one.event_id for one in whole} <= {act.event_id for act in acts}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), at=st.integers(1, 71))
@example(seed=291, at=50)
def test_windows_that_end_on_the_hour_find_together_what_one_window_finds(seed: int, at: int) -> None:
    """But for the two rules that compare a whole window with what was before."""
    acts = some_acts(random.Random(seed))
    off = Thresholds.of(
        Change(rule=rule, name="on", value=0) for rule in ("purposes_moved", "same_colleague")
    )  # fmt: skip
    begin, middle, end = MIDNIGHT, MIDNIGHT + at * HOUR_MS, MIDNIGHT + 4 * DAY_MS

    def window(since: int, until: int) -> set[tuple[str, str, tuple[tuple[str, int], ...]]]:
        near = [act for act in acts if since - LOOKBACK_MS <= act.t_ms < until]
        return {
            (one.event_id, one.rule, tuple(sorted(one.figures.items())))
            for one in evaluate(near, known(acts, since - LOOKBACK_MS), off, since_ms=since, until_ms=until)
        }

    assert window(begin, middle) | window(middle, end) == window(begin, end)
    assert not window(begin, middle) & window(middle, end)


def known(acts: Iterable[Act], before_ms: int) -> Past:
    """What is known of those before an instant, as a broker keeps it."""
    seen = {
        (act.actor, one) for act in acts if act.t_ms < before_ms and act.type in LOOKS for one in act.subjects
    }  # fmt: skip
    last: Mapping[Actor, int] = {
        act.actor: act.t_ms for act in sorted(acts, key=lambda a: a.t_ms) if act.t_ms < before_ms
    }
    return Past(seen=seen, last_ms=last)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), hours=st.integers(1, 60))
def test_a_stricter_burst_finds_no_less(seed: int, hours: int) -> None:
    acts = some_acts(random.Random(seed))
    loose, strict = (Thresholds.of([Change(rule="burst", name="an_hour", value=value)]) for value in (hours + 1, hours))
    passed = [
        {(one.event_id, one.t_ms // HOUR_MS) for one in only("burst", found(acts, thresholds=each))}
        for each in (loose, strict)
    ]
    assert {hour for _, hour in passed[0]} <= {hour for _, hour in passed[1]}


def test_an_event_of_a_day_ago_is_no_finding_of_today() -> None:
    yesterday = an_act(case="", t_ms=NINE - int(timedelta(days=1).total_seconds() * 1000))
    assert found([yesterday]) == []
