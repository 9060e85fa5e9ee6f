"""Which of two lengths of time is the shorter: exactly, on every day that a calendar has."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random

import pytest

from agreements import VOCABULARY, Held, Mode, Snapshot
from agreements.agreement import BreakGlassTerms, Duration, Duty, InvalidAgreement
from agreements.analysis import Space
from agreements.analysis.boxes import Axis, askable
from agreements.verdict import owed
from tests.agreements.worlds import LONG, world

DAYS = [
    date(year, month, day)
    for year in (range(2000, 2400) if LONG else range(2092, 2106))  # the latter cross a leap year that is none
    for month in range(1, 13)
    for day in range(28, monthrange(year, month)[1] + 1)
]
"""The days of a calendar on which months, counted back, may be of another length than the day before."""
TURNS = (1, 1, 1, 2, 3, 6, 11, 12, 13, 24, 48, 49)
MONTH, DAYS_30 = Duration(1, "M"), Duration(30, "D")


def a_duration(draw: Random, months: int) -> Duration:
    """So many months, or years, or about as many days."""
    match draw.randrange(3):
        case 0 if months % 12 == 0:
            return Duration(months // 12, "Y")
        case 1:
            return Duration(months, "M")
        case _:
            return Duration(round(months * 30.44) + draw.randint(-4, 4), "D")


def test_one_length_is_never_longer_exactly_where_it_is_not_on_any_day() -> None:
    draw = Random(17)
    said = []
    for _ in range(400 if LONG else 200):
        months = draw.choice(TURNS)
        one, other = a_duration(draw, months), a_duration(draw, months)
        never = one.never_longer(other)
        assert never == all(one.before(day) >= other.before(day) for day in DAYS), (one, other)
        said.append((never, other.never_longer(one)))
    assert {(True, False), (False, False)} <= set(said)


def test_minutes_days_months_and_years_are_told_apart_only_where_they_surely_differ() -> None:
    assert Duration(12, "M").never_longer(Duration(1, "Y")) and Duration(1, "Y").never_longer(Duration(12, "M"))
    assert not MONTH.never_longer(DAYS_30) and not DAYS_30.never_longer(MONTH)
    assert Duration(28, "D").never_longer(MONTH) and not Duration(29, "D").never_longer(MONTH)
    assert MONTH.never_longer(Duration(31, "D"))
    assert Duration(60, "TM").never_longer(Duration(1, "D")) and not Duration(1, "D").never_longer(Duration(60, "TM"))
    with pytest.raises(InvalidAgreement):
        BreakGlassTerms(ends_after=Duration(1, "D"), notify=("ig",), review_within_working_days=1)


def test_of_times_to_delete_those_are_owed_of_which_any_may_come_first() -> None:
    draw = Random(30)
    grant = next(agreement for agreement in world(0).snapshot.agreements if agreement.grants).grants[0]
    several = []
    for _ in range(200 if LONG else 60):
        months = draw.choice(TURNS)
        grants = [
            replace(
                grant, id=str(number), duties=(Duty(do="DELETE", after="case_closed", within=a_duration(draw, months)),)
            )
            for number in range(draw.choice((2, 2, 3, 4)))
        ]
        every = [duty.within for one in grants for duty in one.duties if duty.within]
        kept = [duty.within for duty in owed(grants) if duty.within]
        assert kept == [duty.within for duty in owed(reversed(grants))]
        for day in DAYS:
            assert max(one.before(day) for one in kept) == max(one.before(day) for one in every)
        assert not any(one.never_longer(other) for one in kept for other in kept if one is not other)
        several.append(len(kept))
    assert set(several) >= {1, 2}


def test_a_window_of_years_and_one_of_days_have_an_age_in_every_year_that_is_decided_on() -> None:
    """Four years are 1,461 days, but across the year 2100 they are a day fewer."""
    w = world(0)
    agreement = next(one for one in w.snapshot.agreements if one.grants)
    windows = (Duration(4, "Y"), Duration(1461, "D"))
    grants = tuple(replace(agreement.grants[0], id=str(window), recorded_within=window) for window in windows)
    space = Space.of(VOCABULARY, Snapshot.of([replace(agreement, grants=grants)]))
    found = set()
    for year in (2026, 2099, 2101, 2103, 2199):
        at = datetime(year, 1, 1, 12, tzinfo=UTC)
        for back in (0, 1459, 1460, 1461, 1462):
            facts = replace(w.facts, held={"health.cp_is": (Held(at.date() - timedelta(days=back)),)})
            ((age, _),) = space.of_items(replace(w.request, asked={"health.cp_is": Mode.STATUS}), facts, at)
            found.add(age)
    assert len(found) == len(space.ages) == 3
    days_alone = space.ages.index(frozenset({windows[1]}))
    box = space.box(w.facts.source, {Axis.AGES: 1 << days_alone})
    early = replace(box, start=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2096, 1, 1, tzinfo=UTC))
    late = replace(box, start=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2102, 1, 1, tzinfo=UTC))
    assert (askable(space, early), askable(space, late)) == (False, True)
