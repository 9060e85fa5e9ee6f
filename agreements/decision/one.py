"""One record decided on: the mode of each category, the clause it is shown under, duties, and what held back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final

from agreements.decision.cells import EVERY_MODE, HIGHEST, MODES, ones
from agreements.decision.compiled import REMEMBERED, Holder
from agreements.decision.standing import Opening, Source, Standing, asker_of
from agreements.request import Facts, Request, aware, check_held
from agreements.restrictions import unknown_facts
from agreements.snapshot import Snapshot
from agreements.verdict import Decision, Shown, outcome_of, owed, review_warnings
from agreements.vocabulary import RECORD, Mode, Vocabulary

_OUTCOMES: Final = tuple(outcome_of({RECORD: mode}) for mode in MODES)


def decide(snapshot: Snapshot, vocabulary: Vocabulary, request: Request, facts: Facts, at: datetime) -> Decision:
    """mode = min(best single covering grant, every applicable ceiling, mode asked for).

    Grants never add up: each was signed on its own terms.  Ceilings always do, and an unknown fact makes one apply.
    Raises RequestRefused for a request that can't be decided.  Pure: any order of the snapshot gives the same.
    """
    aware(at, "at")
    source = asker_of(snapshot, vocabulary, request).source(facts.source, at)
    standing = source.standing(facts)
    named = source.opening.named
    specific = (
        source.specific(facts, at) if named is not None and (facts.record is None or facts.record in named) else ()
    )
    if standing.open:
        inside, doubted = _inside(source.opening, facts)
        key: tuple[object, ...] = (*inside, *inside.values(), specific)
    else:
        inside, doubted, key = {}, _doubted(facts), (*facts.held, specific)
    if (answer := standing.answers.get(key)) is None:
        check_held(facts, vocabulary)  # the key names the categories: what is remembered was checked
        if len(standing.answers) >= REMEMBERED:
            standing.answers.clear()
        answer = standing.answers[key] = _weighed(source, standing, at, inside, specific)
    doubted = doubted or bool(facts.tags_unknown) or None in (facts.record, facts.relation, facts.case, facts.link)
    # As `Decision(...)`, which sets each field of a frozen object by itself, and that took half of a decision's time.
    decision = object.__new__(Decision)
    decision.__dict__.update(answer, facts=facts, unknown=tuple(unknown_facts(facts)) if doubted else ())
    return decision


def _inside(opening: Opening, facts: Facts) -> tuple[dict[str, int], bool]:
    """Of each category held, the clauses with a window and a regime for an item of it; and whether a date or regime is
    unknown.

    The bare record stands on any item; on none at all it still stands where no window asks for a date.
    """
    windows, general, other = opening.windows, opening.inside, opening.enforced
    found: dict[str, int] = {}
    every, doubted = 0, False
    for category, items in facts.held.items():
        marks = 0
        for held in items:
            recorded_on, regime = held.recorded_on, held.regime
            if recorded_on is None:
                doubted, several = True, 0
            else:
                several = bisect_right(windows, recorded_on)
            if regime == "GENERAL":
                marks |= general[several]
            else:
                marks |= other[several]
                doubted = doubted or regime is None
        found[category] = marks
        every |= marks
    found[RECORD] = every if every or any(facts.held.values()) else general[0]
    return found, doubted


def _doubted(facts: Facts) -> bool:
    """Whether a date or regime is unknown."""
    for items in facts.held.values():
        for held in items:
            if held.recorded_on is None or held.regime is None:
                return True
    return False


def _weighed(
    source: Source, standing: Standing, at: datetime, inside: Mapping[str, int], specific: tuple[Holder, ...]
) -> dict[str, Any]:
    """A decision but for the record's own facts, by the names of its fields."""
    opening, ceiling, open_ = source.opening, standing.ceiling, standing.open
    for holder in specific:
        ceiling &= holder.leaves
        if holder.seals:
            open_ = 0
    modes = dict(opening.wanted.nothing)
    shown: dict[str, Shown] = {}
    witnesses, highest = 0, Mode.NONE
    given = standing.given() if open_ else {}
    for category, (shift, clauses) in given.items():
        marks = inside.get(category, 0) & open_
        allowed = (ceiling >> shift & EVERY_MODE) if marks else 0
        while allowed:
            mode = allowed.bit_length()
            if able := clauses[mode] & marks:
                break
            allowed ^= 1 << (mode - 1)
        else:
            continue
        if (known := source.shown.get((mode, able))) is None:
            first, *others = [opening.clauses[position].ref for position in ones(able)]
            known = source.shown[mode, able] = Shown(mode=MODES[mode], under=first, also=tuple(others))
        witnesses |= able & -able
        shown[category] = known
        modes[category] = known.mode
        highest = max(highest, known.mode)
    if (consequences := source.owing.get(witnesses)) is None:
        relied_on = [opening.clauses[position] for position in ones(witnesses)]
        duties = owed(clause.grant for clause in relied_on)
        consequences = source.owing[witnesses] = duties, review_warnings((one.agreement for one in relied_on), at)

    def reach(category: str, recorded_on: date, regime: str) -> Mode:
        several = bisect_right(opening.windows, recorded_on)
        cells = 0
        for position in ones((opening.inside if regime == "GENERAL" else opening.enforced)[several] & open_):
            cells |= standing.gives[position]
        return HIGHEST[(cells & ceiling) >> opening.terms.shifts[category] & EVERY_MODE]

    return {
        "request": source.request,
        "at": at,
        "modes": MappingProxyType(modes),
        "shown": MappingProxyType(shown),
        "duties": consequences[0],
        "restrictions": tuple(sorted(holder.name for holder in (*standing.applied, *specific))),
        "warnings": consequences[1],
        "unconfirmed": standing.unconfirmed and bool(shown),
        "outcome": _OUTCOMES[highest],
        "reach": reach,
    }
