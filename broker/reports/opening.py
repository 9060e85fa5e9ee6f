"""Open one event, or prove it: each look is recorded before anything of it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from audit.events import SectionName
from audit.receipts import LogReceipt
from broker.callers import Caller
from broker.errors import NotFound
from broker.reports.looking import OPEN_SECTIONS, LoggedEvent, bodies, check_looker, check_reader, listed, note
from broker.store import Store
from broker.store.log_search import head_of_event
from broker.trail import EntryRef, Trail, record_change


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """One event, as far as it is opened, and the receipt of having looked."""

    event: LoggedEvent
    sections: Mapping[str, Any]  # the body of each opened section
    detail_opened: bool


def event_page(
    store: Store, trail: Trail, caller: Caller, *, event_id: str, open_detail: bool = False, at: datetime
) -> EventPage:
    """One event, opened but for `detail`, which is opened only when asked for, and then recorded as that.

    Raises NotFound, NotAllowed, LogUnavailable; nothing is shown before the look itself is in the log.
    """
    check_looker(caller)
    if open_detail:
        check_reader(caller)
    with store.reading() as reading:
        head = head_of_event(reading, event_id)
    if head is None:
        raise NotFound("there is no such event")
    show: tuple[SectionName, ...] = (*OPEN_SECTIONS, "detail") if open_detail else OPEN_SECTIONS
    sections = bodies(trail, event_id, show)
    _note_opened(store, trail, caller, event_id, show, at=at)
    return EventPage(event=listed(head), sections=sections, detail_opened=open_detail)


def proof_of(trail: Trail, caller: Caller, event_id: str) -> LogReceipt:
    """An event's proof, with nothing opened: hashes alone.  Raises NotFound, NotAllowed, LogUnavailable."""
    check_looker(caller)
    trail.opening(event_id, show=())  # NotFound rather than a long wait
    return trail.receipt(EntryRef(event_id), show=())


def opening_of(store: Store, trail: Trail, caller: Caller, event_id: str, *, at: datetime) -> LogReceipt:
    """An event's proof, and its opening without `detail`: what `auditor inclusion` needs.

    Raises NotFound, NotAllowed, LogUnavailable; nothing is given before the look itself is in the log.
    """
    receipt = proof_of(trail, caller, event_id)
    _note_opened(store, trail, caller, event_id, OPEN_SECTIONS, at=at)
    return trail.receipt(EntryRef(receipt.event_id), show=OPEN_SECTIONS)


def note_sign_in(store: Store, trail: Trail, who: Mapping[str, str], *, at: datetime) -> None:
    """Record that somebody signed in at the broker itself."""
    _note_session(store, trail, "auth.login", who, at=at)


def note_sign_out(store: Store, trail: Trail, who: Mapping[str, str], *, at: datetime) -> None:
    """Record that somebody ended their session; one that ends by itself is no act of anybody's."""
    _note_session(store, trail, "auth.logout", who, at=at)


def note_denied(store: Store, trail: Trail, who: Mapping[str, str], *, outcome: str, at: datetime) -> None:
    """Record that their organisation vouches for somebody who has no role here."""
    _note_session(store, trail, "auth.denied", who, at=at, outcome=outcome)


def _note_session(store: Store, trail: Trail, type_: str, who: Mapping[str, str], *, at: datetime, **what: str) -> None:
    with store.transaction() as tx:
        record_change(tx, trail, type_, who, at, **what)
    trail.wake()


def _note_opened(
    store: Store, trail: Trail, caller: Caller, event_id: str, show: tuple[SectionName, ...], *, at: datetime
) -> None:
    note(store, trail, caller, "audit.searched", what={"opened": event_id, "sections": list(show)}, why={}, at=at)
