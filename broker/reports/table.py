"""A report: columns with the names that information governance knows, and rows made as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from audit.events import Json
from broker.errors import Malformed
from broker.keys import Keys
from broker.reports.looking import LoggedEvent, listed
from broker.store import Reading
from broker.store.log_bodies import bodies_of
from broker.store.log_search import Head

LONDON: Final = ZoneInfo("Europe/London")
Cell: TypeAlias = "str | int | bool | datetime | date | tuple[str, ...] | None"
Row: TypeAlias = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Period:
    """Instants from `since` up to, and without, `until`."""

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        if self.since.tzinfo is None or self.until.tzinfo is None or self.since >= self.until:
            raise Malformed("period: it ends before it begins")

    @classmethod
    def of_days(cls, first: date, last: date) -> Period:
        """From the first moment of one day in London to the last of another."""
        begins, ends = (datetime.combine(day, time(), LONDON) for day in (first, last + timedelta(days=1)))
        return cls(begins.astimezone(UTC), ends.astimezone(UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a report is of, where it is of less than all: opaque ids alone.

    R7: a person (`subject`) who was wrongly shown or linked, or an organisation whose key was compromised, and since
    when the breach is known.  R10: the `organisation` whose extract it is; every police force unless told.
    """

    subject: str = ""
    organisation: str = ""
    discovered: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedEvent:
    """An event with the sections that a look opens; `sections` is empty where it was erased."""

    event: LoggedEvent
    log: str
    index: int
    sections: Mapping[str, Any]

    def body(self, section: str) -> Mapping[str, Any]:
        """A section that is a map; empty where it was erased."""
        found = self.sections.get(section)
        return found if isinstance(found, Mapping) else {}

    def texts(self, section: str) -> tuple[str, ...]:
        """The plain entries of a section that is a list."""
        found = self.sections.get(section)
        return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list | tuple) else ()

    @property
    def recipients(self) -> tuple[Mapping[str, Any], ...]:
        """Who received something."""
        found = self.sections.get("recipients")
        return tuple(one for one in found if isinstance(one, Mapping)) if isinstance(found, list | tuple) else ()


def open_events(reading: Reading, keys: Keys, heads: Sequence[Head]) -> list[OpenedEvent]:
    """Events, opened but for `detail`; of an erased one the columns alone."""
    bodies = bodies_of(reading, keys, [head.event_id for head in heads])
    return [
        OpenedEvent(event=listed(head), log=head.log_id, index=head.seq, sections=bodies.get(head.event_id, {}))
        for head in heads
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report over a period.  `rows` and `events` read anew each time they are called, in an order that never varies.

    `events` are those it is made of, for formats that are of events (FHIR, OCSF, CEF); None where it is of none.
    """

    code: str
    title: str
    period: Period
    made_at: datetime
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]
    events: Callable[[], Iterator[OpenedEvent]] | None = None


def text(cell: Cell) -> str:
    """A cell as words: instants in UTC to the millisecond, several terms after one another.

    >>> text(("a", "b")), text(None), text(True)
    ('a; b', '', 'yes')
    """
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, tuple):
        return "; ".join(cell)
    if isinstance(cell, datetime):
        return utc(cell)
    return cell.isoformat() if isinstance(cell, date) else str(cell)


def plain(cell: Cell) -> Json:
    """A cell as JSON."""
    if isinstance(cell, tuple):
        return list(cell)
    return text(cell) if isinstance(cell, date) else cell


def utc(at: datetime) -> str:
    """An instant in UTC, to the millisecond.

    >>> utc(datetime(2026, 11, 22, 9, 30, tzinfo=UTC))
    '2026-11-22T09:30:00.000Z'
    """
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
