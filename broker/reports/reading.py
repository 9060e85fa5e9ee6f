"""Events as reports read them: opened one after the other, oldest first, as many as there are, never all in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import merge
from itertools import chain, islice
from typing import Any, Final, TypeVar

from broker import clock
from broker.keys import Keys
from broker.reports.table import About, OpenedEvent, Period, open_events
from broker.store import Store
from broker.store.log_bodies import beside_of
from broker.store.log_search import Head, Place, Wanted, by_type, oldest
from broker.trail import Trail

T = TypeVar("T")
CHUNK: Final = 200  # events of one question when all are read


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
        """Events of these types within the period, or within what `more` says; none later than the report is made."""
        bounds: dict[str, Any] = {
            "since_ms": clock.milliseconds(self.period.since), "until_ms": clock.milliseconds(self.period.until),
            "types": tuple(sorted(types)) if types is not None else None,
        }  # fmt: skip
        asked = bounds | more
        asked["until_ms"] = min(asked["until_ms"], clock.milliseconds(self.at) + 1)
        return Wanted(**asked)

    def heads(self, *wanted: Wanted) -> Iterator[Head]:
        """Heads of all events that fit one of these questions, oldest first; no two questions share an event.

        Each type is asked by itself, in the order of its index, some hundreds at a time, and all are merged: as many as
        there are, never all in memory.  No transaction is held open while rows are made.
        """
        streams = [chain.from_iterable(self._chunks(one)) for each in wanted for one in by_type(each)]
        return merge(*streams, key=lambda head: head.place)

    def events(self, *wanted: Wanted) -> Iterator[OpenedEvent]:
        """As `heads`, each event opened but for `detail`."""
        streams = [self._opened(one) for each in wanted for one in by_type(each)]
        return (event for _, event in merge(*streams, key=lambda pair: pair[0]))

    def open(self, heads: Iterable[Head]) -> list[OpenedEvent]:
        """Some events, opened but for `detail`, in their order."""
        with self.store.reading() as reading:
            return open_events(reading, self.keys, list(heads))

    def _chunks(self, wanted: Wanted) -> Iterator[list[Head]]:
        while True:
            with self.store.reading() as reading:
                chunk = oldest(reading, wanted, limit=CHUNK)
            yield chunk
            if len(chunk) < CHUNK:
                return
            wanted = replace(wanted, after=chunk[-1].place)

    def _opened(self, wanted: Wanted) -> Iterator[tuple[Place, OpenedEvent]]:
        for chunk in self._chunks(wanted):
            yield from zip((head.place for head in chunk), self.open(chunk), strict=True)

    def all_beside(self, events: Iterable[OpenedEvent]) -> Mapping[str, Mapping[str, bytes]]:
        """What was sealed beside some events, by event and name."""
        with self.store.reading() as reading:
            return beside_of(reading, self.keys, {one.event.event_id for one in events})

    def subjects(self, one: OpenedEvent) -> tuple[str, ...]:
        """All who were shown: those the event lists, or, where they are too many for it, those sealed beside it."""
        named = one.texts("subjects")
        listed_all = one.sections.get("subjects") or ()
        if len(named) == len(listed_all):
            return named
        beside = self.all_beside([one]).get(one.event.event_id, {})
        return tuple(json.loads(beside["subjects"])) if "subjects" in beside else named


def in_parts(some: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """The same, so many at a time."""
    rest = iter(some)
    while part := list(islice(rest, size)):
        yield part


def persons(subjects: Sequence[str]) -> tuple[str, ...]:
    """The persons among those an event names; the others are their records (agency/flow/record_ref)."""
    return tuple(one for one in subjects if "/" not in one)


def holders(subjects: Sequence[str]) -> tuple[str, ...]:
    """The organisations whose records an event names."""
    return tuple(sorted({one.partition("/")[0] for one in subjects if "/" in one}))
