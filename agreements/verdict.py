"""The answer of a decision: a value that carries its reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from agreements.agreement import Duty, GrantRef
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
