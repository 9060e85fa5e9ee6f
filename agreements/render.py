"""Category x mode: the only code that turns held items into shown ones.

The renderings nest: existence is the category, the last active month and whom to ring; status is that and one code or
band; summary is that and dated coded items; detail is that and the offer to ask the holder.  Each step down takes
something away, so a lower mode can't show more than a higher one.  The rules by which a status follows from items are
named in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType
from typing import Final

from agreements.agreement import Duration
from agreements.vocabulary import RECORD, VOCABULARY, Category, Mode, Vocabulary

Reach = Callable[[str, date, str], Mode]

_A_YEAR: Final = Duration(12, "M")


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
    """One code or band, and its words; for police items with the child's role, which is never left out."""

    code: str
    label: str
    role: str | None = None


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
    last_active: str | None
    contact: str | None  # reference of a registered contact; None: the agency's safeguarding desk
    status: Status | None
    items: tuple[ShownItem, ...]
    may_ask_holder: bool


def render(
    category: str,
    mode: Mode,
    items: Sequence[Item],
    *,
    on: date,
    shielded: bool = False,
    reach: Reach | None = None,
    vocabulary: Vocabulary = VOCABULARY,
) -> Rendering | None:
    """What `mode` shows of one category of one record on a London day, or None if nothing.

    `items` may hold more than the category's.  With `reach` (a decision's), an item counts only for the modes that it
    reaches itself.  `shielded`: drop whatever tells a place, and the contact is the agency's safeguarding desk.
    """
    if mode in (Mode.NONE, Mode.AGGREGATE):
        return None
    if category == RECORD:
        return Rendering(
            category=RECORD,
            label="Holds a record",
            mode=Mode.EXISTENCE,
            last_active=None,
            contact=None,
            status=None,
            items=(),
            may_ask_holder=False,
        )
    body = vocabulary.categories[category]
    told = [item for item in items if item.category == category and (item.role or not body.role_required)]
    held = sorted(told, key=_oldest_first)
    reached = {item: reach(category, item.recorded_on, item.regime) if reach else Mode.DETAIL for item in held}

    def at_least(due: Mode) -> list[Item]:
        return [item for item in held if reached[item] >= due]

    known = at_least(Mode.EXISTENCE)
    if not known:
        return None
    shown = Rendering(
        category=category,
        label=body.label,
        mode=mode,
        last_active=_last_active(known, on),
        contact=None if shielded else next((item.contact for item in reversed(known) if item.contact), None),
        status=_status(body, at_least(Mode.STATUS), on),
        items=tuple(_shown(body, item, shielded=shielded) for item in at_least(Mode.SUMMARY)),
        may_ask_holder=True,
    )
    return lowered(shown, mode)


def lowered(shown: Rendering, mode: Mode) -> Rendering | None:
    """A rendering at a lower mode: the same with something taken away."""
    shown = replace(shown, mode=min(mode, shown.mode))
    if mode < Mode.DETAIL:
        shown = replace(shown, may_ask_holder=False)
    if mode < Mode.SUMMARY:
        shown = replace(shown, items=())
    if mode < Mode.STATUS:
        shown = replace(shown, status=None)
    return shown if mode else None


def _oldest_first(item: Item) -> tuple[object, ...]:
    end = item.ended_on or date.max
    rest = (item.role or "", item.outcome_code or "", item.contact or "", item.regime, item.opinion, item.number or 0)
    return (item.occurred_on, item.recorded_on, end, item.code_system, item.code or "", *rest)


def _last_active(items: Sequence[Item], on: date) -> str:
    """The month of the latest start or end; of something still open, too, when it began or was last recorded."""
    days = [day for item in items for day in (item.occurred_on, item.ended_on) if day is not None and day <= on]
    return max(days, default=min(item.occurred_on for item in items)).strftime("%Y-%m")


def _shown(body: Category, item: Item, *, shielded: bool) -> ShownItem:
    """One item at summary, without what may never be shown; where the address is shielded, without what tells a place:
    a school's number, the code of a practice or a site."""
    outcome = item.outcome_code
    telling = shielded and body.place
    if telling and body.outcome_pattern is not None:
        outcome = None
    return ShownItem(
        on=item.occurred_on,
        ended_on=item.ended_on,
        recorded_on=item.recorded_on,
        code_system=item.code_system,
        code=item.code,
        label=body.codes.get(item.code_system, {}).get(item.code or "", body.label),
        number=None if telling else item.number,
        role=item.role,
        opinion=item.opinion,
        outcome_code=outcome,
        outcome_label=body.outcomes.get(outcome) if outcome else None,
    )


# --- status: one rule a name in the vocabulary --------------------------------------------------------------------


def _status(body: Category, items: Sequence[Item], on: date) -> Status | None:
    rule = body.status
    if rule is None:
        return None
    told = [item for item in items if not rule.systems or item.code_system in rule.systems]
    if not told:
        return None
    code = _RULES[rule.rule](body, told, on)
    if code is None or code not in rule.labels:
        return None
    role = next((item.role for item in reversed(told) if item.role), None) if body.role_required else None
    return Status(code=code, label=rule.labels[code], role=role)


def _open(item: Item, on: date) -> bool:
    return item.occurred_on <= on and (item.ended_on is None or item.ended_on > on)


def _latest(_: Category, items: Sequence[Item], __: date) -> str | None:
    return items[-1].code


def _highest(body: Category, items: Sequence[Item], _: date) -> str | None:
    """The last in the order of the vocabulary's words."""
    found = {item.code for item in items}
    order = list(body.status.labels) if body.status else []
    return next((code for code in reversed(order) if code in found), None)


def _count(_: Category, items: Sequence[Item], on: date) -> str:
    since = _A_YEAR.before(on)
    count = sum(since < item.occurred_on <= on for item in items)
    return "0" if count == 0 else "1-2" if count < 3 else "3+"


def _open_or_closed(_: Category, items: Sequence[Item], on: date) -> str:
    return "OPEN" if any(_open(item, on) for item in items) else "CLOSED"


def _open_code(_: Category, items: Sequence[Item], on: date) -> str | None:
    return next((item.code for item in reversed(items) if _open(item, on)), "CLOSED")


def _open_with_role(_: Category, items: Sequence[Item], on: date) -> str:
    """A matter is open until its latest step says that it is over."""
    over = ("NFA", "OUT_OF_COURT", "COURT")
    return "OPEN" if items[-1].code not in over and _open(items[-1], on) else "CLOSED"


def _in_force(_: Category, items: Sequence[Item], on: date) -> str:
    return "YES" if any(_open(item, on) for item in items) else "NO"


def _reviews(_: Category, items: Sequence[Item], __: date) -> str:
    latest = {item.code: item.outcome_code for item in items}
    return "OVERDUE" if "OVERDUE" in latest.values() else "UP_TO_DATE"


def _cp_is(_: Category, items: Sequence[Item], on: date) -> str | None:
    for item in reversed(items):
        if _open(item, on):
            return item.code
    ended = [item.ended_on for item in items if item.ended_on is not None]
    return "ENDED" if ended and max(ended) > _A_YEAR.before(on) else None


def _missing(body: Category, items: Sequence[Item], on: date) -> str:
    return "MISSING_NOW" if any(_open(item, on) for item in items) else _count(body, items, on)


def _contact(_: Category, items: Sequence[Item], on: date) -> str:
    if any(item.outcome_code == "OPEN" and _open(item, on) for item in items):
        return "OPEN"
    last = next((item.outcome_code for item in reversed(items) if item.outcome_code not in (None, "OPEN")), None)
    return last or "CLOSED"


def _stepped(_: Category, items: Sequence[Item], on: date) -> str:
    if any(_open(item, on) for item in items):
        return "OPEN"
    return "STEPPED_DOWN" if items[-1].outcome_code in ("STEPPED_DOWN", "RC9") else "CLOSED"


def _child_protection(_: Category, items: Sequence[Item], on: date) -> str:
    if any(item.code_system == "cp_category" and _open(item, on) for item in items):
        return "PLAN"
    if any(item.code_system == "cp_enquiry" and _open(item, on) for item in items):
        return "S47_OPEN"
    return "STEPPED_DOWN" if items[-1].outcome_code == "STEPPED_DOWN" else "ENDED"


_RULES: Final[Mapping[str, Callable[[Category, Sequence[Item], date], str | None]]] = MappingProxyType(
    {
        "latest": _latest,
        "highest": _highest,
        "count": _count,
        "open": _open_or_closed,
        "open_code": _open_code,
        "open_with_role": _open_with_role,
        "in_force": _in_force,
        "reviews": _reviews,
        "cp_is": _cp_is,
        "missing": _missing,
        "contact": _contact,
        "open_or_stepped_down": _stepped,
        "child_protection": _child_protection,
    }
)
