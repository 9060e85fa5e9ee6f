"""The answer of a decision: a value that carries its reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from agreements.agreement import Agreement, Duty, Grant, GrantRef
from agreements.request import Facts, Request
from agreements.vocabulary import Mode


class Outcome(StrEnum):
    """What one record's answer amounts to; `refer`: the source agreed to be asked for a category it shows."""

    DISCLOSED = "disclosed"
    EXISTENCE = "existence"
    REFER = "refer"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One category that is shown, the one clause that allows it, and other clauses that would."""

    mode: Mode
    under: GrantRef
    also: tuple[GrantRef, ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The mode in which each category asked for may be shown.

    `shown` leaves out what is at none; `modes` has every category asked for.  `unknown` names the facts that were
    unknown.  `reach(category, recorded_on, regime)` is the mode one item reaches: pass it to `render`.
    `unconfirmed`: the link is only possible, so what is shown must be checked with the agency.
    """

    request: Request
    facts: Facts
    at: datetime
    modes: Mapping[str, Mode]
    shown: Mapping[str, Shown]
    duties: tuple[Duty, ...]
    restrictions: tuple[str, ...]
    warnings: tuple[str, ...]
    unknown: tuple[str, ...]
    unconfirmed: bool
    outcome: Outcome
    reach: Callable[[str, date, str], Mode] = field(compare=False, repr=False)

    def mode(self, category: str) -> Mode:
        """The mode of one category; one that wasn't asked for is at none."""
        return self.modes.get(category, Mode.NONE)


def outcome_of(modes: Mapping[str, Mode]) -> Outcome:
    """What the modes of one record amount to."""
    highest = max(modes.values(), default=Mode.NONE)
    if highest is Mode.DETAIL:
        return Outcome.REFER
    if highest > Mode.EXISTENCE:
        return Outcome.DISCLOSED
    return Outcome.EXISTENCE if highest else Outcome.SILENT


def owed(witnesses: Iterable[Grant]) -> tuple[Duty, ...]:
    """The duties of the clauses relied on, each once; of two times to delete the shorter, and both where it hangs on
    the day which is; of an emergency clause also whom it tells and by when it is reviewed."""
    duties: list[Duty] = []
    for duty in sorted({duty for grant in witnesses for duty in (*grant.duties, *_of_emergency(grant))}, key=_place):
        if not any(_no_later(known, duty) for known in duties):
            duties = [known for known in duties if not _no_later(duty, known)] + [duty]
    return tuple(sorted(duties, key=_place))


def review_warnings(witnesses: Iterable[Agreement], at: datetime) -> tuple[str, ...]:
    """The agreements relied on whose review is overdue, each as "review overdue: id@version"."""
    overdue = {agreement.ref for agreement in witnesses if agreement.review is not None and at >= agreement.review}
    return tuple(f"review overdue: {ref}" for ref in sorted(overdue))


def _of_emergency(grant: Grant) -> tuple[Duty, ...]:
    terms = grant.break_glass
    if terms is None:
        return ()
    review = Duty(do="REVIEW", working_days=terms.review_within_working_days)
    return (Duty(do="NOTIFY", notify=tuple(sorted(terms.notify))), review)


def _place(duty: Duty) -> tuple[str, str, tuple[str, ...], str, int]:
    return duty.do, duty.after or "", duty.notify, str(duty.within or ""), duty.working_days or 0


def _no_later(duty: Duty, other: Duty) -> bool:
    """Whether who does the one, in time, has done the other in time, from whichever day both run."""
    return (
        (duty.do, duty.after, duty.notify) == (other.do, other.after, other.notify)
        and (other.within is None or (duty.within is not None and duty.within.never_longer(other.within)))
        and (other.working_days is None or (duty.working_days or other.working_days + 1) <= other.working_days)
    )
