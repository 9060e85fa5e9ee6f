"""Reviews of what the log holds: a queue, a decision with a note, and a second look by somebody else.

What waits: every break-glass, whatever a rule or a person flagged, whatever a sample drew.  One officer takes an event
and decides; another signs that off, or sends it back.  Nobody reviews or signs off an event in which they acted, nor
does both; whoever tries is refused, and the refusal is an event.

A note is kept in the detail of the event that records the decision, under that event's own key, and names nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from audit.events import Event, Json
from broker.callers import Caller
from broker.deciding import Released
from broker.errors import Malformed, NotAllowed, NotFound, WrongState
from broker.reports.looking import LoggedEvent, bodies, check_reader, check_reason, instant, listed, note
from broker.reports.register import BREAK_GLASS
from broker.store import Reading, Store, Transaction
from broker.store.audit_reviews import CaseRow, flags_between, found_breaches, put_case, queued, top_actors, unqueued
from broker.store.log import FlagRow, ReviewRow
from broker.store.log_search import head_of_event
from broker.trail import EntryRef, Trail, new_event_id

LONDON: Final = ZoneInfo("Europe/London")
STATES: Final = ("open", "taken", "decided", "closed")
WAITING: Final = ("open", "taken", "decided")
KINDS: Final = ("break_glass", "flag", "sample")
DECISIONS: Final[Mapping[str, str]] = {
    "justified": "There was a reason, and it holds",
    "training": "No harm was meant: whoever acted needs to be told how",
    "breach": "There was no reason: treat it as a personal data breach",
}
WORKING_DAYS: Final[Mapping[str, int]] = {"break_glass": 1, "flag": 5, "sample": 5}
"""Within how many working days each kind is reviewed."""
MAX_NOTE: Final = 1_000
LISTED: Final = 50
SATURDAY: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Why an event was flagged, as listed.  `version`: of the rule; 0 where it was no rule."""

    flag: str
    event: LoggedEvent
    rule: str
    version: int
    figures: Mapping[str, int]
    raised_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A decision on an event.  `second`: agreed, sent_back, or empty while it waits."""

    review: str
    reviewer: str
    decision: str
    at: datetime
    signed_off_by: str
    signed_off_at: datetime | None
    second: str
    recorded: str
    note: str | None = None  # None where it was not opened, or has expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An event in the queue, with what brought it there."""

    event: LoggedEvent
    kind: str
    state: str
    opened_at: datetime
    due_at: datetime
    overdue: bool
    taken_by: str
    rules: tuple[str, ...]
    reviews: tuple[Reviewed, ...]


# --- Listing ---------------------------------------------------------------------------------------------------------


def queue(
    store: Store,
    trail: Trail,
    caller: Caller,
    *,
    reason: str,
    states: Sequence[str] = WAITING,
    kind: str = "",
    mine: bool = False,
    after: str = "",
    limit: int = LISTED,
    at: datetime,
) -> tuple[Case, ...]:
    """Cases, the soonest due first; none of an event that the caller acted in as its actor.  The look is recorded.

    Raises NotAllowed, Malformed for a state, kind or reason off the list, NotFound for a cursor that is no case.
    """
    check_reader(caller)
    check_reason(reason)
    if not set(states) <= set(STATES) or (kind and kind not in KINDS):
        raise Malformed(f"state: one of {', '.join(STATES)}; kind: one of {', '.join(KINDS)}")
    trail.advance_pending()
    with store.transaction() as tx:
        admit(tx, at=at)
        cursor = tx.one(CaseRow, event_id=after) if after else None
        if after and cursor is None:
            raise NotFound("the cursor is of no page")
    what: dict[str, Json] = {"searched": "reviews", "filter": {"states": list(states), "kind": kind, "mine": mine}}
    note(store, trail, caller, "audit.searched", what=what, why={"reason": reason}, at=at)
    with store.reading() as reading:
        rows = queued(
            reading, states=states, kind=kind, taken_by=caller.person if mine else "", after=cursor,
            not_by=caller.person, limit=limit,
        )  # fmt: skip
        return tuple(_case(reading, row, at) for row in rows)


def case_of(store: Store, trail: Trail, caller: Caller, *, event_id: str, reason: str, at: datetime) -> Case:
    """One case with the notes of its reviews; the look is recorded first.

    Raises NotAllowed also for whoever acted in the event, NotFound, LogUnavailable.
    """
    check_reader(caller)
    check_reason(reason)
    _stand_apart(store, trail, caller, event_id, "read", at=at)
    with store.reading() as reading:
        row = reading.one(CaseRow, event_id=event_id)
        if row is None:
            raise NotFound("this event is not in the queue")
        found = _case(reading, row, at)
    note(
        store, trail, caller, "audit.searched", what={"searched": "review", "of": event_id}, why={"reason": reason},
        at=at,
    )  # fmt: skip
    return replace(found, reviews=tuple(_with_note(trail, one) for one in found.reviews))


def flags(
    store: Store,
    trail: Trail,
    caller: Caller,
    *,
    since: datetime,
    until: datetime,
    rule: str = "",
    reason: str,
    limit: int = LISTED,
    at: datetime,
) -> tuple[Flag, ...]:
    """Flags raised in a period, newest first; none on an event of the caller's own.  The look is recorded."""
    check_reader(caller)
    check_reason(reason)
    what: dict[str, Json] = {
        "searched": "flags", "filter": {"since": since.isoformat(), "until": until.isoformat(), "rule": rule},
    }  # fmt: skip
    note(store, trail, caller, "audit.searched", what=what, why={"reason": reason}, at=at)
    with store.reading() as reading:
        rows = flags_between(reading, since=since, until=until, rule=rule, not_by=caller.person, limit=limit)
        heads = {row.event_id: head_of_event(reading, row.event_id) for row in rows}
    return tuple(
        Flag(
            flag=row.id, event=listed(head), rule=row.rule, version=row.version, figures=row.figures,
            raised_at=row.raised_at,
        )
        for row in rows
        if (head := heads[row.event_id]) is not None
    )  # fmt: skip


def breaches(
    store: Store, trail: Trail, caller: Caller, *, since: datetime, reason: str, at: datetime
) -> tuple[Case, ...]:
    """Cases that a review found to be a breach since an instant, the newest decision first; none of an event in which
    the caller acted.  The look is recorded."""
    check_reader(caller)
    check_reason(reason)
    what: dict[str, Json] = {"searched": "reviews", "filter": {"decision": "breach", "since": since.isoformat()}}
    note(store, trail, caller, "audit.searched", what=what, why={"reason": reason}, at=at)
    with store.reading() as reading:
        rows = found_breaches(reading, since=since, not_by=caller.person, limit=LISTED)
        return tuple(_case(reading, row, at) for row in rows)


def busiest(
    store: Store, trail: Trail, caller: Caller, *, since: datetime, until: datetime, types: Sequence[str], reason: str,
    limit: int = LISTED, at: datetime,
) -> list[dict[str, Any]]:  # fmt: skip
    """Who did most of some types in a period, by the counts of whole hours; the look is recorded."""
    check_reader(caller)
    check_reason(reason)
    what: dict[str, Json] = {
        "searched": "activity",
        "filter": {"since": since.isoformat(), "until": until.isoformat(), "types": list(types)},
    }
    note(store, trail, caller, "audit.searched", what=what, why={"reason": reason}, at=at)
    first, last = (int(bound.timestamp()) // 3600 for bound in (since, until))
    with store.reading() as reading:
        return top_actors(reading, first=first, last=last, types=types, limit=limit)


def admit(tx: Transaction, *, at: datetime) -> int:
    """Take into the queue what is flagged or broke glass and is not in it; how many."""
    waiting = unqueued(tx, BREAK_GLASS)
    kinds = (
        (event_id, kind, due(instant(t_ms) if kind == "break_glass" else at, kind)) for event_id, kind, t_ms in waiting
    )
    return sum(_put(tx, event_id, kind, due_at, at=at) for event_id, kind, due_at in kinds)


def queue_up(tx: Transaction, event_ids: Iterable[str], *, kind: str, at: datetime) -> int:
    """Put events into the queue that are not in it; how many were put.  What broke glass waits as that already."""
    admit(tx, at=at)
    return sum(_put(tx, one, kind, due(at, kind), at=at) for one in sorted(event_ids))


def _put(tx: Transaction, event_id: str, kind: str, due_at: datetime, *, at: datetime) -> bool:
    """Put an event into the queue; whether it was not there yet."""
    row = CaseRow(event_id=event_id, kind=kind, state="open", opened_at=at, due_at=due_at)
    return put_case(tx, row)


# --- Deciding --------------------------------------------------------------------------------------------------------


def take(store: Store, trail: Trail, caller: Caller, *, event_id: str, to: str = "", at: datetime) -> Case:
    """Take an event to review it, or give it to a colleague.  Whoever gets it must have had no part in it.

    What somebody has taken and left until it was overdue, another may take over.  Raises NotAllowed, NotFound,
    WrongState if somebody else has it or it is decided.
    """
    check_reader(caller)
    whom = to or caller.person
    _stand_apart(store, trail, caller, event_id, "take", at=at)
    if whom != caller.person and whom in _acted(store, trail, event_id):
        _refuse(store, trail, caller, event_id, "give", "own_event", at=at)
    with store.transaction() as tx:
        admit(tx, at=at)
        row = _in_state(tx, event_id, "open", "taken")
        if row.state == "taken" and caller.person != row.taken_by and at <= row.due_at:
            raise WrongState("somebody else has taken this event: once it is overdue, anybody may take it over")
        row.state, row.taken_by, row.taken_at = "taken", whom, at
        tx.add(row)
        tx.flush()
        return _case(tx, row, at)


def decide(
    store: Store, trail: Trail, caller: Caller, *, event_id: str, decision: str, words: str = "", at: datetime
) -> Released[Case]:
    """Decide what an event was, having taken it.  `words`: a note that names nobody; due unless it was justified.

    Raises NotAllowed for whoever acted in it or has not taken it, Malformed, NotFound, WrongState, LogUnavailable.
    """
    check_reader(caller)
    if decision not in DECISIONS:
        raise Malformed(f"decision: one of {', '.join(DECISIONS)}")
    if len(words) > MAX_NOTE or any(ord(char) < 0x20 and char != "\n" for char in words):
        raise Malformed(f"note: at most {MAX_NOTE} characters, and none of control but the end of a line")
    if decision != "justified" and not words.strip():
        raise Malformed("note: say why, without naming anybody")
    _stand_apart(store, trail, caller, event_id, "review", at=at)
    with store.transaction() as tx:
        row = _in_state(tx, event_id, "taken")
        if row.taken_by != caller.person:
            raise NotAllowed("take the event first: somebody else has it")
        head = head_of_event(tx, event_id)
        review = ReviewRow(id=new_event_id(), event_id=event_id, reviewer=caller.person, decision=decision, at=at)
        type_ = "breakglass.reviewed" if row.kind == "break_glass" else "audit.reviewed"
        what: dict[str, Json] = {
            "reviewed": event_id, "acted": head.actor_ref if head else "", "review": review.id, "kind": row.kind,
            "outcome": decision, "rules": list(_rules(tx, event_id)), "in_time": at <= row.due_at,
        }  # fmt: skip
        entry = _record(tx, trail, caller, type_, what, {"note": words} if words else {}, at=at)
        review.recorded = entry.event_id
        row.state, row.review = "decided", review.id
        tx.add(review, row)
        tx.flush()
        done = _case(tx, row, at)
    return Released(done, trail.receipt(entry))


def sign_off(
    store: Store, trail: Trail, caller: Caller, *, event_id: str, agrees: bool, words: str = "", at: datetime
) -> Released[Case]:
    """Look at a decision as a second person: agree, which closes it, or send it back to be reviewed anew.

    Raises NotAllowed for whoever acted in the event or decided on it, Malformed, NotFound, WrongState, LogUnavailable.
    """
    check_reader(caller)
    if len(words) > MAX_NOTE or any(ord(char) < 0x20 and char != "\n" for char in words):
        raise Malformed(f"note: at most {MAX_NOTE} characters, and none of control but the end of a line")
    _stand_apart(store, trail, caller, event_id, "sign_off", at=at)
    with store.reading() as reading:
        held = _in_state(reading, event_id, "decided")
        review = reading.one(ReviewRow, id=held.review)
    if review is None:
        raise NotFound("there is no decision")
    if review.reviewer == caller.person:
        _refuse(store, trail, caller, event_id, "sign_off", "own_review", at=at)
    with store.transaction() as tx:
        row = _in_state(tx, event_id, "decided")
        review = tx.one(ReviewRow, id=row.review)
        if review is None or review.reviewer == caller.person:
            raise WrongState("the decision has changed: look again")
        second = "agreed" if agrees else "sent_back"
        what: dict[str, Json] = {
            "reviewed": event_id, "review": review.id, "decision": review.decision, "outcome": second,
        }  # fmt: skip
        entry = _record(tx, trail, caller, "audit.signed_off", what, {"note": words} if words else {}, at=at)
        review.signed_off_by, review.signed_off_at, review.second = caller.person, at, second
        row.state = "closed" if agrees else "open"
        if not agrees:
            row.taken_by, row.taken_at = "", None
        tx.add(review, row)
        tx.flush()
        done = _case(tx, row, at)
    return Released(done, trail.receipt(entry))


def due(since: datetime, kind: str) -> datetime:
    """The end of the last working day in which a case is to be reviewed, in London."""
    day = since.astimezone(LONDON).date()
    for _ in range(WORKING_DAYS[kind]):
        day = next_working_day(day)
    return datetime.combine(day + timedelta(days=1), time(), LONDON)


def next_working_day(day: date) -> date:
    """The first day after this one that is neither of a weekend nor a bank holiday of England and Wales."""
    day += timedelta(days=1)
    while day.weekday() >= SATURDAY or day in bank_holidays(day.year):
        day += timedelta(days=1)
    return day


@cache
def bank_holidays(year: int) -> frozenset[date]:
    """The bank holidays of England and Wales that fall on a weekday, substitute days and days proclaimed once too.

    A day that is proclaimed after this version is not among them: a review is then due a day sooner, never later.
    Source: Banking and Financial Dealings Act 1971, schedule 1; gov.uk/bank-holidays; as `holidays` has them.
    """
    from holidays import country_holidays

    return frozenset(day for day in country_holidays("GB", subdiv="ENG", years=year) if day.weekday() < SATURDAY)


# --- Who may ---------------------------------------------------------------------------------------------------------


def _stand_apart(store: Store, trail: Trail, caller: Caller, event_id: str, step: str, *, at: datetime) -> None:
    """Return if the caller had no part in an event.  Raises NotFound; NotAllowed if they had, which is recorded."""
    if caller.person in _acted(store, trail, event_id):
        _refuse(store, trail, caller, event_id, step, "own_event", at=at)


def _acted(store: Store, trail: Trail, event_id: str) -> frozenset[str]:
    """Everybody who acted in an event, of whatever organisation: who it is by, for whom, who received, who agreed."""
    with store.reading() as reading:
        head = head_of_event(reading, event_id)
    if head is None:
        raise NotFound("there is no such event")
    found = {head.actor_ref}
    try:
        opened = bodies(trail, event_id, ("who", "what", "recipients"))
    except NotFound:
        return frozenset(found)  # erased: its columns are what is left
    who, what = opened.get("who", {}), opened.get("what", {})
    found |= {value for name, value in who.items() if name in ("person", "delegate") and isinstance(value, str)}
    found |= {value for name, value in what.items() if name.endswith("_by") and isinstance(value, str)}
    for one in opened.get("recipients") or ():
        if isinstance(one, Mapping) and isinstance(one.get("person"), str):
            found.add(one["person"])
    return frozenset(found - {""})


def _refuse(
    store: Store, trail: Trail, caller: Caller, event_id: str, step: str, outcome: str, *, at: datetime
) -> None:
    """Record the attempt, and raise NotAllowed."""
    with store.transaction() as tx:
        what: dict[str, Json] = {"step": step, "reviewed": event_id, "outcome": outcome}
        entry = _record(tx, trail, caller, "auth.denied", what, {}, at=at)
    trail.receipt(entry)
    raise NotAllowed(
        "whoever acted in an event neither reviews it nor signs it off"
        if outcome == "own_event"
        else "whoever decided on an event does not sign that off"
    )


# --- Rows ------------------------------------------------------------------------------------------------------------


def _record(
    tx: Transaction, trail: Trail, caller: Caller, type_: str, what: Mapping[str, Json], detail: Mapping[str, Json],
    *, at: datetime,
) -> EntryRef:  # fmt: skip
    event = Event(id=new_event_id(), type=type_, who=caller.who(), what=what, why={}, detail=detail)
    return trail.record(tx, event, at=at)


def _in_state(reading: Reading, event_id: str, *states: str) -> CaseRow:
    """A case in one of these states; in a transaction no other decides on it meanwhile."""
    row = (reading.locked_one if isinstance(reading, Transaction) else reading.one)(CaseRow, event_id=event_id)
    if row is None:
        raise NotFound("this event is not in the queue")
    if row.state not in states:
        raise WrongState(f"this event is {row.state}, not {' or '.join(states)}")
    return row


def _rules(reading: Reading, event_id: str) -> tuple[str, ...]:
    return tuple(row.rule for row in reading.all(FlagRow, event_id=event_id, order=["rule"]))


def _case(reading: Reading, row: CaseRow, at: datetime) -> Case:
    head = head_of_event(reading, row.event_id)
    if head is None:
        raise NotFound("there is no such event")
    reviews = reading.all(ReviewRow, event_id=row.event_id, order=["at", "id"])
    return Case(
        event=listed(head), kind=row.kind, state=row.state, opened_at=row.opened_at, due_at=row.due_at,
        overdue=row.state in ("open", "taken") and row.due_at < at, taken_by=row.taken_by,
        rules=_rules(reading, row.event_id),
        reviews=tuple(
            Reviewed(
                review=one.id, reviewer=one.reviewer, decision=one.decision, at=one.at,
                signed_off_by=one.signed_off_by or "", signed_off_at=one.signed_off_at, second=one.second,
                recorded=one.recorded,
            )
            for one in reviews
        ),
    )  # fmt: skip


def _with_note(trail: Trail, one: Reviewed) -> Reviewed:
    try:
        detail = bodies(trail, one.recorded, ("detail",)).get("detail", {}) if one.recorded else {}
    except NotFound:
        detail = {}
    return replace(one, note=detail.get("note") if isinstance(detail, Mapping) else None)
