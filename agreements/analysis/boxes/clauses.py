"""Clauses and ceilings as boxes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Final

from agreements.agreement import Agreement, Grant, Limit, Period, Restriction
from agreements.analysis.boxes.algebra import Axes, Axis, Cut, Pair
from agreements.analysis.boxes.sets import bits_of, plain, purposes_allowing, purposes_inside
from agreements.analysis.boxes.space import LONGEST, MODES, Space
from agreements.vocabulary import RECORD, Baseline, Mode


def clause(space: Space, agreement: Agreement, grant: Grant, pair: Pair, day: date) -> list[Axes]:
    """The axes of one clause between a pair under the law of a London day, in whichever estate it stands."""
    party = agreement.parties[pair[1]]
    law = space.vocabulary.in_force(grant.basis.gateways | grant.basis.le_authority, day)
    key = (id(grant), pair[0], agreement.parties[pair[0]].discloses, party.public_authority, law)
    known = space.clauses.get(key)
    if known is None or known[0] is not grant:
        known = space.clauses[key] = (grant, _clause(space, agreement, grant, pair, law))
    return known[1]


def _clause(space: Space, agreement: Agreement, grant: Grant, pair: Pair, law: frozenset[str]) -> list[Axes]:
    """The axes of one clause between a pair, taken apart where purpose, condition or link decide on the mode; `law`:
    those of its statutes that are in force."""
    source, organisation = pair
    vocabulary = space.vocabulary
    axes = list(space.whole(source))
    public = agreement.parties[organisation].public_authority
    art6 = [term for term in grant.basis.art6 if not (public and "not_public" in vocabulary.art6[term].flags)]
    axes[Axis.ROLES] = bits_of(space.roles, grant.roles)
    axes[Axis.ART6] = bits_of(space.art6, art6)
    axes[Axis.RELATIONS] = bits_of(space.relations, grant.about)
    if grant.basis.gateways:
        axes[Axis.GATEWAYS] = space.meeting(space.gateways, grant.basis.gateways & law)
    if grant.case_reference:
        axes[Axis.CASES] = 2
    if grant.threshold is not None:
        lower = (1 << space.thresholds.index(grant.threshold)) - 1
        axes[Axis.THRESHOLDS] &= ~lower
    if grant.recorded_within is not None:
        window = plain(grant.recorded_within)
        axes[Axis.AGES] = sum(1 << index for index, inside in enumerate(space.ages) if window in inside)
    if not grant.basis.le_authority & law:
        axes[Axis.REGIMES] = 1
    if grant.break_glass is not None:
        last = space.sessions.index(min(grant.break_glass.ends_after.minutes, LONGEST)) + 1
        axes[Axis.SESSIONS] = (1 << (last + 1)) - 2
    inside = purposes_inside(vocabulary, grant)
    link = {None: 0b11111, "possible": 0b11100, "match": 0b11000}[grant.link]
    claimed = space.meeting(space.conditions, grant.basis.conditions)
    grouped: dict[tuple[int, int, int], int] = {}
    for category, granted in grant.modes.items():
        body = None if category == RECORD else vocabulary.categories[category]
        if body is not None and body.sector not in agreement.parties[source].discloses:
            continue
        for mode in MODES:
            if mode > granted or (granted is Mode.AGGREGATE) is not (mode is Mode.AGGREGATE):
                continue
            purposes = inside & purposes_allowing(vocabulary, category, mode)
            conditions = claimed if body is not None and body.needs_condition(mode) else axes[Axis.CONDITIONS]
            links = link & _LINKS[mode]
            if purposes and conditions and links:
                key = (purposes, conditions, links)
                grouped[key] = grouped.get(key, 0) | space.cell(category, mode)
    found = []
    for (purposes, conditions, links), cells in grouped.items():
        axes[Axis.CELLS], axes[Axis.PURPOSES] = cells, purposes
        axes[Axis.CONDITIONS], axes[Axis.LINKS] = conditions, links
        found.append(tuple(axes))
    return [one for one in found if 0 not in one]


_LINKS: Final[Mapping[Mode, int]] = {
    Mode.EXISTENCE: 0b11100,
    Mode.STATUS: 0b11000,
    Mode.SUMMARY: 0b10000,
    Mode.DETAIL: 0b10000,
    Mode.AGGREGATE: 0b11000,
}
"""The links under which a mode is ever shown: unknown, none, possible, match, certain from the lowest bit."""


def limit_box(space: Space, limit: Limit, source: str) -> Cut:
    """A limit of an agreement, for the records of one source."""
    axes = _held_back(space, limit.categories, limit.at_most, limit.tag, liftable=limit.lift == "break_glass")
    axes[Axis.PURPOSES] = space.purposes_overlapping(limit.purposes)
    return Cut(limit.id, limit.text, space.box(source, axes))


def restriction_box(space: Space, rule: Restriction, period: Period) -> Cut:
    """A restriction, while it is in force."""
    axes = _held_back(space, rule.categories, rule.at_most, rule.tag, liftable=rule.lift == "break_glass")
    axes[Axis.PURPOSES] = space.purposes_overlapping(rule.purposes)
    if rule.record is not None:
        axes[Axis.RECORDS] = 2 | 1 << space.records_of(rule.owner).index(rule.record)
    return Cut(rule.ref, rule.text, space.box(rule.owner, axes, period))


def baseline_box(space: Space, rule: Baseline, source: str) -> Cut:
    """A rule that every partnership has, for the records of one source."""
    axes = _held_back(space, frozenset(rule.categories), rule.at_most, rule.tag, liftable=False)
    return Cut(rule.id, rule.text, space.box(source, axes))


def _held_back(
    space: Space, categories: frozenset[str], at_most: Mode, tag: str | None, *, liftable: bool
) -> dict[Axis, int]:
    named = space.categories if RECORD in categories else [one for one in space.categories if one in categories]
    cells = sum(
        space.cell(category, mode)
        for category in named
        for mode in MODES
        if (at_most is Mode.NONE if mode is Mode.AGGREGATE else mode > at_most)
    )
    axes = {Axis.CELLS: cells}
    if tag is not None:
        axes[Axis.TAGS] = space.meeting(space.tags, (tag,))
    if liftable:
        axes[Axis.SESSIONS] = 1
    return axes
