"""What information governance asks of the log: search it, open one event, prove it.  Each look is itself an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agreements import VOCABULARY
from audit.events import OPS, Event, Op, Section, SectionName
from audit.receipts import LogReceipt
from broker.callers import Caller
from broker.errors import Malformed, NotAllowed, NotFound
from broker.store import Store
from broker.store.agencies import AgencyRow
from broker.store.log import EventRow
from broker.trail import EntryRef, Trail, new_event_id

READERS: Final = frozenset({"IG_OFFICER"})
LISTED: Final = 50
SEARCH_LASTS: Final = timedelta(minutes=15)
OPEN_SECTIONS: Final[tuple[SectionName, ...]] = ("who", "what", "why", "subjects", "recipients")

REASONS: Final[Mapping[str, str]] = {
    "lawfulness": "To check that processing was lawful",
    "self_monitoring": "Self-monitoring or discipline",
    "integrity": "Integrity or security of the information",
    "criminal_proceedings": "Criminal proceedings",
}
"""Why a log may be consulted: Data Protection Act 2018 s.62(4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which events; empty means any.  Closed codes and opaque ids alone."""

    organisation: str = ""
    op: str = ""
    person: str = ""
    purpose: str = ""

    def __post_init__(self) -> None:
        if self.op and self.op not in set(Op):
            raise Malformed("op: it is none of the operations of section 62")
        if self.purpose and self.purpose not in VOCABULARY.purposes:
            raise Malformed("purpose: it is not of the vocabulary")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """One event as a list shows it."""

    event_id: str
    at: datetime
    type: str
    op: str
    organisation: str
    role: str
    purpose: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSearch:
    """A search of the log that was recorded, and what fits."""

    reason: str
    filter: LogFilter
    events: tuple[LoggedEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """One event, as far as it is opened, and the receipt of having looked."""

    event: LoggedEvent
    sections: Mapping[str, Any]  # the body of each opened section
    detail_opened: bool


def organisations(store: Store) -> dict[str, str]:
    """Every enrolled organisation: id and name."""
    with store.reading() as reading:
        return {row.id: row.name for row in reading.all(AgencyRow, order=["id"])}


def search_log(store: Store, trail: Trail, caller: Caller, *, reason: str, wanted: LogFilter, at: datetime) -> str:
    """Record why and for what the log is searched; the id of the search, good for a quarter of an hour.

    Raises NotAllowed for a role that may not, Malformed for a reason off the list, LogUnavailable.
    """
    _may_read(caller)
    if reason not in REASONS:
        raise Malformed("reason: choose one of the list")
    filled = {name: value for name, value in asdict(wanted).items() if value}
    return _note(store, trail, caller, what={"searched": "log", "filter": filled}, why={"reason": reason}, at=at)


def found(store: Store, trail: Trail, caller: Caller, *, search: str, at: datetime) -> LogSearch:
    """The newest events that fit a recorded search of the caller's own.

    Raises NotFound alike for another's, an invented and an expired one.
    """
    _may_read(caller)
    with store.reading() as reading:
        row = reading.one(EventRow, event_id=search, type="audit.searched", actor_ref=caller.person)
    if row is None or _instant(row) + SEARCH_LASTS <= at:
        raise NotFound("there is no such search, or it has ended")
    bodies = _bodies(trail, search, ("what", "why"))
    if bodies["what"].get("searched") != "log":
        raise NotFound("there is no such search, or it has ended")
    wanted = LogFilter(**bodies["what"]["filter"])
    where = {"org": wanted.organisation, "op": wanted.op, "actor_ref": wanted.person, "purpose": wanted.purpose}
    with store.reading() as reading:
        rows = reading.all(
            EventRow,
            order=["-seq"],
            limit=LISTED,
            log_id=trail.origin,
            **{column: value for column, value in where.items() if value},
        )
        events = tuple(_listed(row) for row in rows)
    return LogSearch(reason=str(bodies["why"]["reason"]), filter=wanted, events=events)


def event_page(
    store: Store, trail: Trail, caller: Caller, *, event_id: str, open_detail: bool = False, at: datetime
) -> EventPage:
    """One event, opened but for `detail`, which is opened only when asked for, and then recorded as that.

    Raises NotFound, NotAllowed, LogUnavailable; nothing is shown before the look itself is in the log.
    """
    _may_read(caller)
    with store.reading() as reading:
        row = reading.one(EventRow, event_id=event_id)
        listed = _listed(row) if row is not None else None
    if listed is None:
        raise NotFound("there is no such event")
    show: tuple[SectionName, ...] = (*OPEN_SECTIONS, "detail") if open_detail else OPEN_SECTIONS
    bodies = _bodies(trail, event_id, show)
    _note_opened(store, trail, caller, event_id, show, at=at)
    return EventPage(event=listed, sections=bodies, detail_opened=open_detail)


def proof_of(trail: Trail, caller: Caller, event_id: str) -> LogReceipt:
    """An event's proof, with nothing opened: hashes alone.  Raises NotFound, NotAllowed, LogUnavailable."""
    _may_read(caller)
    trail.opening(event_id, show=())  # NotFound rather than a long wait
    return trail.receipt(EntryRef(event_id), show=())


def opening_of(store: Store, trail: Trail, caller: Caller, event_id: str, *, at: datetime) -> LogReceipt:
    """An event's proof, and its opening without `detail`: what `auditor inclusion` needs.

    Raises NotFound, NotAllowed, LogUnavailable; nothing is given before the look itself is in the log.
    """
    receipt = proof_of(trail, caller, event_id)
    _note_opened(store, trail, caller, event_id, OPEN_SECTIONS, at=at)
    return trail.receipt(EntryRef(receipt.event_id), show=OPEN_SECTIONS)


def note_sign_in(store: Store, trail: Trail, *, organisation: str, person: str, role: str, at: datetime) -> None:
    """Record that somebody signed in at the broker itself."""
    with store.transaction() as tx:
        trail.record(
            tx,
            Event(
                id=new_event_id(),
                type="auth.login",
                who={"organisation": organisation, "person": person, "role": role, "method": "demo"},
                what={},
                why={},
                detail={},
            ),
            at=at,
        )
    trail.wake()


def _may_read(caller: Caller) -> None:
    if caller.kind != "officer" or caller.role not in READERS:
        raise NotAllowed("the log is read by information governance")


def _note_opened(
    store: Store, trail: Trail, caller: Caller, event_id: str, show: tuple[SectionName, ...], *, at: datetime
) -> None:
    _note(store, trail, caller, what={"opened": event_id, "sections": list(show)}, why={}, at=at)


def _note(
    store: Store, trail: Trail, caller: Caller, *, what: dict[str, Any], why: dict[str, Any], at: datetime
) -> str:
    event_id = new_event_id()
    with store.transaction() as tx:
        entry = trail.record(
            tx,
            Event(
                id=event_id,
                type="audit.searched",
                who={
                    "organisation": caller.organisation,
                    "person": caller.person,
                    "role": caller.role,
                    "session": caller.session,
                    "method": caller.method,
                },
                what=what,
                why=why,
                detail={},
            ),
            at=at,
        )
    trail.receipt(entry)
    return event_id


def _bodies(trail: Trail, event_id: str, show: tuple[SectionName, ...]) -> dict[str, Any]:
    opened = trail.opening(event_id, show=show).sections
    return {name: section.body for name in show if isinstance(section := opened[name], Section)}


def _listed(row: EventRow) -> LoggedEvent:
    return LoggedEvent(
        event_id=row.event_id,
        at=_instant(row),
        type=row.type,
        op=OPS[row.type].value,
        organisation=row.org,
        role=row.role,
        purpose=row.purpose,
        outcome=row.outcome,
    )


def _instant(row: EventRow) -> datetime:
    return datetime.fromtimestamp(row.t_ms / 1000, UTC)
