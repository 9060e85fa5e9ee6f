"""Search the log: who saw a child, when, why and under which clause.

A search is recorded once, with its reason and its filter, before anything is shown; its pages are that search's, and
are not recorded again.  What fits is the log as it stood before the search: its own event is not among it, nor any
later one, so that pages do not shift and a look does not lead to a look.  The next search finds this one.

Of what is typed, only what the log knows already is recorded: a name typed into a field for references is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final

from agreements import VOCABULARY
from audit.events import OPS, Json, Op
from broker import clock
from broker.callers import Caller
from broker.errors import Malformed, NotFound
from broker.reports.looking import LoggedEvent, bodies, check_looker, check_reason, instant, note
from broker.reports.table import OpenedEvent, open_events
from broker.store import Reading, Store
from broker.store.agencies import AgencyRow
from broker.store.log_search import Wanted, flags_of, head_of_event, is_known, newest
from broker.trail import Trail

LISTED: Final = 50
SEARCH_LASTS: Final = timedelta(minutes=15)
REFERENCE: Final = re.compile(r"[A-Za-z0-9._@/-]{1,200}")
CODE: Final = re.compile(r"[A-Za-z0-9_()]{1,80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which events; empty or None means any.  Closed codes and opaque ids alone.

    `since` <= time < `until`.  `person`: the reference of a member of staff.  `subject`: a person id, or a record as
    the log names it (agency/flow/record_ref).  `case`: a gateway's keyed token, or the reference that reports show.
    """

    since: datetime | None = None
    until: datetime | None = None
    organisation: str = ""
    person: str = ""
    type: str = ""
    types: tuple[str, ...] = ()
    op: str = ""
    purpose: str = ""
    case: str = ""
    subject: str = ""
    outcome: str = ""
    break_glass: bool | None = None
    flagged: bool | None = None

    def __post_init__(self) -> None:
        if self.op and self.op not in set(Op):
            raise Malformed("op: it is none of the operations of section 62")
        if not {self.type or "log.opened", *self.types} <= OPS.keys() or (self.type and self.types):
            raise Malformed("type: it is none of the types of events")
        if self.purpose and self.purpose not in VOCABULARY.purposes:
            raise Malformed("purpose: it is not of the vocabulary")
        for name in ("organisation", "person", "case", "subject"):
            if (value := getattr(self, name)) and not REFERENCE.fullmatch(value):
                raise Malformed(f"{name}: a reference is due, of letters, digits and . _ @ / -")
        if self.outcome and not CODE.fullmatch(self.outcome):
            raise Malformed("outcome: a code is due")
        if any(bound is not None and bound.tzinfo is None for bound in (self.since, self.until)):
            raise Malformed("since, until: an instant needs a time zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEvent:
    """One event that fits, with why and under what it happened; of an erased one the columns alone are left."""

    event: LoggedEvent
    clauses: tuple[str, ...]
    threshold: str
    sources: tuple[str, ...]  # the organisations whose information was shown
    flags: tuple[str, ...]
    erased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSearch:
    """A page of a search of the log that was recorded; `next` is the cursor of the page after, None at the end."""

    search: str
    reason: str
    filter: LogFilter
    found: tuple[FoundEvent, ...]
    next: str | None

    @property
    def events(self) -> tuple[LoggedEvent, ...]:
        """The events by themselves."""
        return tuple(one.event for one in self.found)


def organisations(store: Store) -> dict[str, str]:
    """Every enrolled organisation: id and name."""
    with store.reading() as reading:
        return {row.id: row.name for row in reading.all(AgencyRow, order=["id"])}


def search_log(
    store: Store, trail: Trail, caller: Caller, *, reason: str, wanted: LogFilter, shape: str = "", at: datetime
) -> str:
    """Record why and for what the log is searched; the id of the search, good for a quarter of an hour.

    `shape`: in what other form than ours the events will be shown.  Raises NotAllowed for a role that may not,
    Malformed for a reason off the list, LogUnavailable.
    """
    check_looker(caller)
    check_reason(reason)
    if trail.unsequenced():
        trail.advance_pending()  # what was recorded before the search is among what it can find
    with store.reading() as reading:
        filled = _recorded(reading, trail, wanted)
    subject = filled.pop("subject", "")
    what: dict[str, Json] = {"searched": "log", "filter": {**filled, **({"subject": None} if subject is None else {})}}
    return note(
        store, trail, caller, "audit.searched", what=what | ({"as": shape} if shape else {}), why={"reason": reason},
        subjects=[str(subject)] if subject else [], at=at,
    )  # fmt: skip


def found(
    store: Store, trail: Trail, caller: Caller, *, search: str, after: str = "", limit: int = LISTED, at: datetime
) -> LogSearch:
    """A page of what fits a recorded search of the caller's own, newest first, from after an event on.

    Raises NotFound alike for another's, an invented and an expired one, and for a cursor that is no event.
    """
    check_looker(caller)
    with store.reading() as reading:
        own = head_of_event(reading, search)
        cursor = head_of_event(reading, after) if after else own
    if (
        own is None
        or (own.type, own.actor_ref, own.org) != ("audit.searched", caller.person, caller.organisation)
        or instant(own.t_ms) + SEARCH_LASTS <= at
    ):
        raise NotFound("there is no such search, or it has ended")
    if cursor is None or cursor.place > own.place:
        raise NotFound("the cursor is of no page")
    recorded = bodies(trail, search, ("what", "why", "subjects"))
    if len(recorded) < 3 or recorded["what"].get("searched") != "log":
        raise NotFound("there is no such search, or it has ended")
    filled = {**recorded["what"]["filter"], **({"subject": recorded["subjects"][0]} if recorded["subjects"] else {})}
    wanted = _asked(trail, filled)
    with store.reading() as reading:
        heads = newest(reading, replace(wanted, before=cursor.place), limit=limit + 1) if wanted is not None else []
        more, heads = len(heads) > limit, heads[:limit]
        flags = flags_of(reading, [head.event_id for head in heads])
        opened = open_events(reading, trail.keys, heads)
    return LogSearch(
        search=search,
        reason=str(recorded["why"]["reason"]),
        filter=_shown(filled),
        found=tuple(_found(one, flags.get(one.event.event_id, ())) for one in opened),
        next=heads[-1].event_id if more else None,
    )


def opened(store: Store, trail: Trail, page: LogSearch) -> list[OpenedEvent]:
    """The events of a page of a recorded search, opened but for `detail`."""
    with store.reading() as reading:
        heads = [head for one in page.events if (head := head_of_event(reading, one.event_id))]
        return open_events(reading, trail.keys, heads)


def _found(one: OpenedEvent, flags: tuple[str, ...]) -> FoundEvent:
    what, why = one.body("what"), one.body("why")
    categories = what.get("categories")
    return FoundEvent(
        event=one.event,
        clauses=tuple(str(each) for each in why.get("clauses") or ()),
        threshold=str(why.get("threshold") or ""),
        sources=tuple(sorted(categories)) if isinstance(categories, Mapping) else (),
        flags=flags,
        erased=not one.sections,
    )


def _recorded(reading: Reading, trail: Trail, wanted: LogFilter) -> dict[str, Json]:
    """The filter as it is recorded; null for what was asked for and is nobody the log knows."""
    filled: dict[str, Any] = {
        one.name: value for one in fields(wanted) if (value := getattr(wanted, one.name)) not in (None, "", ())
    }
    for name in ("since", "until"):
        if name in filled:
            filled[name] = filled[name].isoformat()
    if wanted.person and not is_known(reading, actor=wanted.person):
        filled["person"] = None
    if wanted.organisation and not _is_organisation(reading, wanted.organisation):
        filled["organisation"] = None
    if wanted.subject and not is_known(reading, subject_hmac=trail.keys.subject_index(wanted.subject)):
        filled["subject"] = None
    if wanted.case:
        names = (wanted.case, trail.keys.case_index(wanted.case))
        filled["case"] = next((name for name in names if is_known(reading, case_hmac=name)), None)
    if wanted.outcome and not newest(reading, Wanted(outcome=wanted.outcome), limit=1):
        filled["outcome"] = None
    return filled


def _is_organisation(reading: Reading, organisation: str) -> bool:
    enrolled = reading.one(AgencyRow, id=organisation) is not None
    return enrolled or bool(newest(reading, Wanted(org=organisation), limit=1))


def _asked(trail: Trail, filled: Mapping[str, Any]) -> Wanted | None:
    """What a recorded filter asks of the columns; None if nothing can fit."""
    if None in filled.values():
        return None
    return Wanted(
        since_ms=_milliseconds(filled.get("since")),
        until_ms=_milliseconds(filled.get("until")),
        types=(filled["type"],) if "type" in filled else tuple(filled.get("types", ())) or None,
        op=filled.get("op"),
        org=filled.get("organisation"),
        actor=filled.get("person"),
        purpose=filled.get("purpose"),
        case_hmac=filled.get("case"),
        subject_hmac=trail.keys.subject_index(filled["subject"]) if "subject" in filled else None,
        outcome=filled.get("outcome"),
        break_glass=filled.get("break_glass"),
        flagged=filled.get("flagged"),
    )


def _shown(filled: Mapping[str, Any]) -> LogFilter:
    told = {name: value for name, value in filled.items() if value is not None}
    for name in ("since", "until"):
        if name in told:
            told[name] = datetime.fromisoformat(told[name])
    return LogFilter(**{**told, "types": tuple(told.get("types", ()))})


def _milliseconds(text: str | None) -> int | None:
    return clock.milliseconds(datetime.fromisoformat(text)) if text else None
