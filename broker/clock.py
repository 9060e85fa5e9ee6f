"""The broker's only reader of the clock."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """This instant, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 (here, and nowhere else)


def milliseconds(at: datetime) -> int:
    """Whole milliseconds since 1970 of an instant."""
    return int(at.timestamp() * 1000)
