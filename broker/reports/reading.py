"""Events as reports read them: opened one after the other, oldest first, as many as there are, never all in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import merge
from typing import Any, Final

from audit.events import SectionName
from broker import clock
from broker.errors import NotFound
from broker.keys import Keys
from broker.reports.looking import OPEN_SECTIONS
from broker.reports.table import About, OpenedEvent, Period, open_event
from broker.store import Store
from broker.store.log_search import Head, Wanted, by_type, oldest
from broker.trail import Trail

CHUNK: Final = 500  # events of one question when all are read


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a report reads from, over which period, about whom, and when it is made."""

    store: Store
    trail: Trail
    period: Period
    about: About
    at: datetime

    @property
    def keys(self) -> Keys:
        """The broker's keys: for the index of subjects."""
        return self.trail.keys

    def wanted(self, types: Sequence[str] | None = None, **more: Any) -> Wanted:
        """Events of these types within the period, or within what `more` says."""
        bounds: dict[str, Any] = {
            "since_ms": clock.milliseconds(self.period.since), "until_ms": clock.milliseconds(self.period.until),
            "types": tuple(sorted(types)) if types is not None else None,
        }  # fmt: skip
        return Wanted(**(bounds | more))

    def heads(self, *wanted: Wanted) -> Iterator[Head]:
        """Heads of all events that fit one of these questions, oldest first; no two questions share an event.

        Each type is asked by itself, in the order of its index, some hundreds at a time, and all are merged: as many as
        there are, never all in memory.  No transaction is held open while rows are made.
        """
        streams = [self._stream(one) for each in wanted for one in by_type(each)]
        return merge(*streams, key=lambda head: head.place)

    def events(self, *wanted: Wanted, show: Sequence[SectionName] = OPEN_SECTIONS) -> Iterator[OpenedEvent]:
        """All events that fit, opened, oldest first."""
        return (self.opened(head, show) for head in self.heads(*wanted))

    def _stream(self, wanted: Wanted) -> Iterator[Head]:
        while True:
            with self.store.reading() as reading:
                chunk = oldest(reading, wanted, limit=CHUNK)
            yield from chunk
            if len(chunk) < CHUNK:
                return
            wanted = replace(wanted, after=chunk[-1].place)

    def opened(self, head: Head, show: Sequence[SectionName] = OPEN_SECTIONS) -> OpenedEvent:
        """One event, opened; of an erased one the columns alone."""
        return open_event(self.trail, head, show)

    def beside(self, event_id: str, name: str) -> Any:
        """The JSON that was sealed beside an event, or None if it was erased or never there."""
        try:
            return json.loads(self.trail.blob(event_id, name))
        except NotFound:
            return None

    def subjects(self, one: OpenedEvent) -> tuple[str, ...]:
        """All who were shown: those the event lists, or, where they are too many for it, those sealed beside it."""
        named = one.texts("subjects")
        listed_all = one.sections.get("subjects") or ()
        if len(named) == len(listed_all):
            return named
        beside = self.beside(one.event.event_id, "subjects")
        return tuple(beside) if isinstance(beside, list) else named


def persons(subjects: Sequence[str]) -> tuple[str, ...]:
    """The persons among those an event names; the others are their records (agency/flow/record_ref)."""
    return tuple(one for one in subjects if "/" not in one)


def holders(subjects: Sequence[str]) -> tuple[str, ...]:
    """The organisations whose records an event names."""
    return tuple(sorted({one.partition("/")[0] for one in subjects if "/" in one}))
