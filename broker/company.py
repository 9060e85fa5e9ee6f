"""How long a batch waits for company: one fsync and one signature then do for all of it."""

from __future__ import annotations

import threading
import time
from typing import Final

PATIENCE: Final = 5  # how many times its usual wait a batch waits at most, where batches take long


class Company:
    """Counts who comes, and lets a batch begin.

    At once if the last batch was of one entry alone and nobody came meanwhile; else when as many have come as were in
    it and came meanwhile, or after `seconds`.  Where a batch takes long it waits half as long as the last took: those
    whom that one let go are on their way back, and would else travel in two groups, each waiting for the other's fsync.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds: Final = seconds
        self._came: Final = threading.Condition()
        self._count = 0
        self._due = 1
        self._began = self._took = 0.0

    def come(self) -> None:
        """One more waits."""
        with self._came:
            self._count += 1
            if self._count == 1 or self._count >= self._due:
                self._came.notify_all()

    def expect(self, count: int) -> None:
        """So many were in the batch that has ended."""
        with self._came:
            self._due = max(1, count + self._count)
            self._took = time.monotonic() - self._began

    def wait(self, idle: float) -> None:
        """Until the next batch should begin; at most `idle` seconds where nobody comes."""
        with self._came:
            if not self._count:
                self._came.wait(idle)
            if self._count and self._due > 1:
                patience = min(max(self._seconds, self._took / 2), PATIENCE * self._seconds)
                self._came.wait_for(lambda: self._count >= self._due, patience)
            self._count = 0
            self._began = time.monotonic()
