"""The broker's only reader of the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final


def now() -> datetime:
    """This instant, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 (here, and nowhere else)


def milliseconds(at: datetime) -> int:
    """Whole milliseconds since 1970 of an instant."""
    return int(at.timestamp() * 1000)


BACK_MS: Final = 1_000
FORWARD_MS: Final = 5_000


class Watch:
    """Holds the wall clock against one that nobody can set."""

    def __init__(self, wall: Callable[[], datetime] = now, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._seen = (wall(), steady())

    def step(self) -> int | None:
        """By how many milliseconds the clock was set since the last look; None up to a second back or five forward."""
        before, seen = self._seen
        self._seen = (self._wall(), self._steady())
        gone = (self._seen[0] - before).total_seconds() - (self._seen[1] - seen)
        step = round(gone * 1000)
        return step if step < -BACK_MS or step > FORWARD_MS else None
