"""Clocks of contacts: how urgent a person has said that one is, when it is due, and how that is told.

A clock starts when the contact reached the organisation, not when somebody searches, and is never paused.  Red runs
through nights and holidays; amber and green count working days, Monday to Friday but for the bank holidays of England
and Wales and the partnership's own closures.  Urgency is a contact's, never a child's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any, Final

from linkage.agency.gateway.settings import Clocks
from linkage.agency.gateway.words import LONDON, counted

URGENCIES: Final = {"red": "Red", "amber": "Amber", "green": "Green"}
SHAPES: Final = {"red": "▲", "amber": "◆", "green": "●"}
COLOURS: Final = {"red": "red", "amber": "yellow", "green": "green"}
LATE: Final = "■"
CLOSES: Final = time(17)
SATURDAY: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A contact's clock now: when it is due, and in words that say all that shape and colour say."""

    due: datetime
    late: bool
    text: str
    shape: str
    colour: str


def of(contact: Mapping[str, Any], clocks: Clocks, *, now: datetime) -> Clock | None:
    """The clock of a contact as it is kept; None where nobody has said how urgent it is."""
    urgency = contact.get("urgency")
    if urgency not in URGENCIES:
        return None
    at = due(urgency, datetime.fromisoformat(contact["received_at"]), clocks)
    late = now >= at
    return Clock(
        due=at, late=late, text=f"{URGENCIES[urgency]}: {told(at, now, clocks, by_hours=urgency == 'red')}",
        shape=LATE if late else SHAPES[urgency], colour=COLOURS[urgency],
    )  # fmt: skip


def due(urgency: str, received: datetime, clocks: Clocks) -> datetime:
    """When a contact is due: red so many hours on, the others at 17:00 on so many working days after it came.

    >>> from datetime import UTC
    >>> friday = datetime(2026, 11, 20, 16, 0, tzinfo=UTC)
    >>> [due(urgency, friday, Clocks()).strftime("%a %H:%M") for urgency in URGENCIES]
    ['Fri 20:00', 'Mon 17:00', 'Wed 17:00']
    """
    if urgency == "red":
        return received.astimezone(UTC) + timedelta(hours=clocks.red_hours)
    day = received.astimezone(LONDON).date()
    for _ in range(clocks.amber_days if urgency == "amber" else clocks.green_days):
        day = next_working_day(day, clocks.closures)
    return datetime.combine(day, CLOSES, LONDON).astimezone(UTC)


def told(at: datetime, now: datetime, clocks: Clocks, *, by_hours: bool) -> str:
    """When something is due, the time first, and how long that is.

    >>> from datetime import UTC
    >>> now = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
    >>> told(datetime(2026, 11, 20, 14, 40, tzinfo=UTC), now, Clocks(), by_hours=True)
    'due 14:40 today, in 2 hours 10 minutes'
    >>> told(datetime(2026, 11, 23, 17, tzinfo=UTC), now, Clocks(), by_hours=False)
    'due Mon 23 Nov 17:00, 1 working day'
    >>> told(datetime(2026, 11, 20, 11, 55, tzinfo=UTC), now, Clocks(), by_hours=True)
    'overdue by 35 minutes, was due 11:55 today'
    """
    local, today = at.astimezone(LONDON), now.astimezone(LONDON).date()
    days = {today: "today", today + timedelta(days=1): "tomorrow", today - timedelta(days=1): "yesterday"}
    day = days.get(local.date())
    when = f"{local:%H:%M} {day}" if day else f"{local:%a} {local.day} {local:%b %H:%M}"
    if now >= at:
        return f"overdue by {spell(now - at)}, was due {when}"
    if by_hours or local.date() == today:
        return f"due {when}, in {spell(at - now)}"
    count = 0
    while today < local.date():
        today = next_working_day(today, clocks.closures)
        count += 1
    return f"due {when}, {counted(count, 'working day')}"


def spell(span: timedelta) -> str:
    """A span of time in its two largest units, minutes the least.

    >>> spell(timedelta(hours=2, minutes=10)), spell(timedelta(seconds=20)), spell(timedelta(hours=25, minutes=5))
    ('2 hours 10 minutes', 'less than a minute', '1 day 1 hour')
    """
    minutes = int(span.total_seconds()) // 60
    parts = [(minutes // 1440, "day"), (minutes // 60 % 24, "hour"), (minutes % 60, "minute")]
    first = next((n for n, (count, _) in enumerate(parts) if count), None)
    if first is None:
        return "less than a minute"
    return " ".join(counted(count, unit) for count, unit in parts[first : first + 2] if count)


def next_working_day(day: date, closures: tuple[date, ...] = ()) -> date:
    """The first day after this one that is no weekend, bank holiday of England and Wales, or closure.

    >>> next_working_day(date(2026, 12, 24))
    datetime.date(2026, 12, 29)
    """
    day += timedelta(days=1)
    while day.weekday() >= SATURDAY or day in _bank_holidays(day.year) or day in closures:
        day += timedelta(days=1)
    return day


@cache
def _bank_holidays(year: int) -> frozenset[date]:
    from holidays import country_holidays

    return frozenset(country_holidays("GB", subdiv="ENG", years=year))
