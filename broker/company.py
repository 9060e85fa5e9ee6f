"""How long a batch waits for company: one fsync and one signature then do for all of it."""

from __future__ import annotations

import threading
from typing import Final


class Company:
    """Counts who comes, and lets a batch begin.

    At once if the last batch was of one entry alone; else when as many have come as were in it, or after `seconds`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds: Final = seconds
        self._came: Final = threading.Condition()
        self._count = 0
        self._due = 1

    def come(self) -> None:
        """One more waits."""
        with self._came:
            self._count += 1
            if self._count == 1 or self._count >= self._due:
                self._came.notify_all()

    def expect(self, count: int) -> None:
        """So many were in the last batch."""
        self._due = max(1, count)

    def wait(self, idle: float) -> None:
        """Until the next batch should begin; at most `idle` seconds where nobody comes."""
        with self._came:
            if not self._count:
                self._came.wait(idle)
            if self._count and self._due > 1:
                self._came.wait_for(lambda: self._count >= self._due, self._seconds)
            self._count = 0
