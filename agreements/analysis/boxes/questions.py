"""A question inside a box, to be put to the evaluators."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from agreements.agreement import london_day, london_midnight
from agreements.analysis.boxes.algebra import Axis, Box, Pair
from agreements.analysis.boxes.sets import ages_of, first_day, lowest_of, members_of
from agreements.analysis.boxes.space import Space
from agreements.decision.cells import ones
from agreements.request import Basis, BreakGlass, Facts, Held, Request, Threshold
from agreements.vocabulary import RECORD, Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A question inside a box: deciding it shows what the box says of `category` at `mode`."""

    request: Request
    facts: Facts
    at: datetime
    category: str
    mode: Mode


def witness(space: Space, pair: Pair, box: Box) -> Witness | None:
    """A question inside a box; None if no day of it has an item of such an age, so that nobody can ever ask one."""
    source, organisation = pair

    def pick(axis: Axis) -> int:
        return lowest_of(box.axes[axis])

    category, mode = next(space.cells_of(box.axes[Axis.CELLS]))
    dated = _dated(space, box)
    if dated is None:
        return None
    at, recorded_on = dated
    session = pick(Axis.SESSIONS)
    began = (0, *space.sessions)[session - 1] if session else 0
    threshold = space.thresholds[pick(Axis.THRESHOLDS)]
    case = pick(Axis.CASES)
    item = Held(recorded_on, "GENERAL" if box.axes[Axis.REGIMES] & 1 else "LE")
    return Witness(
        request=Request(
            organisation=organisation,
            role=space.roles[pick(Axis.ROLES)],
            purpose=space.purposes[pick(Axis.PURPOSES)],
            basis=Basis(
                art6=space.art6[pick(Axis.ART6)],
                conditions=members_of(space.conditions, pick(Axis.CONDITIONS)),
                gateways=members_of(space.gateways, pick(Axis.GATEWAYS)),
            ),
            case="case" if case else None,
            threshold=None
            if threshold is None
            else Threshold(level=threshold, decided_by=space.vocabulary.thresholds[threshold].set_by[0]),
            break_glass=BreakGlass(
                reason=next(iter(space.vocabulary.emergencies)), started=at - timedelta(minutes=began)
            )
            if session
            else None,
            asked={category: mode},
        ),
        facts=Facts(
            source=source,
            record=space.records_of(source)[pick(Axis.RECORDS)],
            relation=space.relations[pick(Axis.RELATIONS)],
            case="case" if case else None,
            link=space.links[pick(Axis.LINKS)],
            tags=members_of(space.tags, pick(Axis.TAGS)),
            held={space.vocabulary.shareable[0] if category == RECORD else category: (item,)},
        ),
        at=at,
        category=category,
        mode=mode,
    )


def askable(space: Space, box: Box) -> bool:
    """Whether anybody can ever ask a question inside a box."""
    return _dated(space, box) is not None


def _dated(space: Space, box: Box) -> tuple[datetime, date] | None:
    """An instant in the box and the date of an item that then has an age of the box."""
    days = ages_of(space.windows)
    for inside in (space.ages[index] for index in ones(box.axes[Axis.AGES])):
        spans = days[inside]
        near = bisect_left(spans, london_day(box.start), key=lambda span: span[1])
        if near == len(spans) or (at := max(box.start, london_midnight(spans[near][0]))) >= box.end:
            continue
        day = london_day(at)
        first = max((first_day(window, day) for window in inside), default=None)
        beyond = min((first_day(window, day) for window in space.windows if window not in inside), default=None)
        return at, first or (beyond - timedelta(days=1) if beyond else day)
    return None
