"""The agency's one reader of the clock; everything else takes the time as an argument."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo


def now() -> datetime:
    """This instant, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the place that may


def today(at: datetime) -> date:
    """The day it is in London at an instant: dates of birth and of items are London days."""
    return at.astimezone(ZoneInfo("Europe/London")).date()


def rfc3339(at: datetime) -> str:
    """An instant in UTC to the second, with a `Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
