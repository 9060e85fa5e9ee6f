"""Category x mode: the only code that turns held items into shown ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from agreements.vocabulary import Mode

Reach = Callable[[str, date, str], Mode]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One coded item an agency holds, as its origin recorded it.  No text about people, no identifier, no place."""

    category: str
    code_system: str
    code: str | None
    number: float | None = None
    occurred_on: date
    recorded_on: date
    ended_on: date | None = None
    role: str | None = None
    regime: str = "GENERAL"
    opinion: bool = False
    outcome_code: str | None = None
    contact: str | None = None  # reference of one of the agency's registered contacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """Whom to ring: a desk and its telephone numbers, never a person's name."""

    name: str
    phone: str
    out_of_hours: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One code or band, and its words."""

    code: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownItem:
    """One dated coded item as shown at summary."""

    on: date
    ended_on: date | None
    recorded_on: date
    code_system: str
    code: str | None
    label: str
    number: float | None
    role: str | None
    opinion: bool
    outcome_code: str | None
    outcome_label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """What is shown of one category of one record.  `last_active` is a month, "2026-06"."""

    category: str
    label: str
    mode: Mode
    last_active: str
    contact: str | None  # reference of a registered contact; None: the agency's safeguarding desk
    status: Status | None
    items: tuple[ShownItem, ...]
    may_ask_holder: bool


def render(
    category: str, mode: Mode, items: Sequence[Item], *, on: date, shielded: bool = False, reach: Reach | None = None
) -> Rendering | None:
    """What `mode` shows of one category of one record on a London day, or None if nothing.

    `items` may hold more than the category's.  With `reach` (a decision's), an item counts only for the modes that it
    reaches itself.  `shielded`: drop whatever tells a place, and the contact is the agency's safeguarding desk.
    """
    raise NotImplementedError
