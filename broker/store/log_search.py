"""Questions of the log's own columns: which events fit, newest first by page, or oldest first.

Only what stands beside the sealed bodies is read here; an event is opened by the trail alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, and_, exists, func, or_
from sqlmodel import col, select

from broker.store.event_keys import AT_ONCE
from broker.store.log import EntryRow, EventRow, FlagRow, ReviewRow, SubjectRow
from broker.store.notices import NoticeRow
from broker.store.transaction import Reading


class Place(NamedTuple):
    """Where an event stands among those of every shard: by time, then as its log has it."""

    t_ms: int
    log_id: str
    seq: int


class Head(NamedTuple):
    """An event as far as it needs no key."""

    event_id: str
    log_id: str
    seq: int
    t_ms: int
    type: str
    op: str
    org: str
    actor_ref: str
    role: str
    purpose: str
    case_hmac: str
    outcome: str
    break_glass: bool

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.t_ms, self.log_id, self.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events; what is None is not asked.  Times are unix milliseconds, `since_ms` <= t < `until_ms`."""

    since_ms: int | None = None
    until_ms: int | None = None
    types: tuple[str, ...] | None = None
    op: str | None = None
    org: str | None = None
    actor: str | None = None
    purpose: str | None = None
    case_hmac: str | None = None
    subject_hmac: str | None = None
    outcome: str | None = None
    break_glass: bool | None = None
    flagged: bool | None = None
    before: Place | None = None
    after: Place | None = None


_HEAD: Final = tuple(getattr(EventRow, name) for name in Head._fields)
_ORDER: Final = (col(EventRow.t_ms), col(EventRow.log_id), col(EventRow.seq))


def newest(reading: Reading, wanted: Wanted, *, limit: int) -> list[Head]:
    """The newest events that fit, newest first.  Of several types each is asked by itself, as an index serves one."""
    if wanted.subject_hmac is not None:
        return _about_subject(reading, wanted)[: -limit - 1 : -1]
    found: list[Head] = []
    for one in by_type(wanted):
        query = _asked(one).order_by(*(column.desc() for column in _ORDER)).limit(limit)
        found += [Head(*row) for row in reading.connection.execute(query)]
    return sorted(found, key=lambda head: head.place, reverse=True)[:limit]


def oldest(reading: Reading, wanted: Wanted, *, limit: int) -> list[Head]:
    """The oldest events that fit, oldest first."""
    if wanted.subject_hmac is not None:
        return _about_subject(reading, wanted)[:limit]
    query = _asked(wanted).order_by(*(column.asc() for column in _ORDER)).limit(limit)
    return [Head(*row) for row in reading.connection.execute(query)]


def by_type(wanted: Wanted) -> tuple[Wanted, ...]:
    """The same question of each of its types alone."""
    if wanted.types is None or len(wanted.types) == 1:
        return (wanted,)
    return tuple(replace(wanted, types=(one,)) for one in wanted.types)


def count_of(reading: Reading, types: Sequence[str], first_ms: int, until_ms: int) -> int:
    """How many events of some types there are in `first_ms` <= t < `until_ms`."""
    times = (col(EventRow.t_ms) >= first_ms, col(EventRow.t_ms) < until_ms)
    query = select(func.count()).select_from(EventRow).where(col(EventRow.type).in_(types), *times)
    return int(reading.session.exec(query).one())


def head_of_event(reading: Reading, event_id: str) -> Head | None:
    """One event's head, or None."""
    row = reading.connection.execute(select(*_HEAD).where(col(EventRow.event_id) == event_id)).first()
    return Head(*row) if row is not None else None


def flags_of(reading: Reading, event_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The rules that flagged each of these events."""
    found: dict[str, list[str]] = {}
    for row in reading.all(FlagRow, event_id=list(event_ids), order=("event_id", "rule")):
        found.setdefault(row.event_id, []).append(row.rule)
    return {event_id: tuple(rules) for event_id, rules in found.items()}


def reviews_of(reading: Reading, event_ids: Sequence[str]) -> dict[str, ReviewRow]:
    """The last review of each of these events, where there is one."""
    return {row.event_id: row for row in reading.all(ReviewRow, event_id=list(event_ids), order=("at", "id"))}


def told_at(reading: Reading, event_ids: Sequence[str]) -> dict[tuple[str, str], datetime]:
    """When each holder of what an event showed collected the notice of it, by event and holder."""
    rows = reading.all(NoticeRow, event_id=list(event_ids))
    return {(row.event_id, row.agency): row.collected_at for row in rows if row.collected_at is not None}


def leaf_hashes(reading: Reading, event_ids: Sequence[str]) -> dict[str, bytes]:
    """What the tree holds of each of these events."""
    query = select(EntryRow.event_id, EntryRow.leaf_hash).where(col(EntryRow.event_id).in_(list(event_ids)))
    return {row[0]: row[1] for row in reading.connection.execute(query)}


def is_known(reading: Reading, *, actor: str = "", case_hmac: str = "", subject_hmac: str = "") -> bool:
    """Whether the log knows a person who acted, a case or a subject by this name."""
    query: Select[Any]
    if subject_hmac:
        query = select(SubjectRow.seq).where(col(SubjectRow.idx_hmac) == subject_hmac)
    elif case_hmac:
        query = select(EventRow.seq).where(col(EventRow.case_hmac) == case_hmac)
    else:
        query = select(EventRow.seq).where(col(EventRow.actor_ref) == actor)
    return reading.connection.execute(query.limit(1)).first() is not None


def _about_subject(reading: Reading, wanted: Wanted) -> list[Head]:
    """All events about a subject that fit, oldest first: by the index of subjects alone, and the rest picked out here.

    However few fit, the database would else be free to look through the whole log for them.
    """
    about = select(SubjectRow.log_id, SubjectRow.seq).where(col(SubjectRow.idx_hmac) == wanted.subject_hmac)
    by_log: dict[str, list[int]] = {}
    for log_id, seq in reading.connection.execute(about):
        by_log.setdefault(log_id, []).append(seq)
    heads: list[Head] = []
    for log_id, places in by_log.items():
        for start in range(0, len(places), AT_ONCE):
            query: Select[Any] = select(*_HEAD).where(
                col(EventRow.log_id) == log_id, col(EventRow.seq).in_(places[start : start + AT_ONCE])
            )
            heads += [Head(*row) for row in reading.connection.execute(query)]
    fit = [head for head in heads if _fits(head, wanted)]
    if wanted.flagged is not None:
        flagged = flags_of(reading, [head.event_id for head in fit])
        fit = [head for head in fit if (head.event_id in flagged) is wanted.flagged]
    return sorted(fit, key=lambda head: head.place)


def _fits(head: Head, wanted: Wanted) -> bool:
    equal = (
        (wanted.op, head.op), (wanted.org, head.org), (wanted.actor, head.actor_ref), (wanted.purpose, head.purpose),
        (wanted.case_hmac, head.case_hmac), (wanted.outcome, head.outcome), (wanted.break_glass, head.break_glass),
    )  # fmt: skip
    return (
        all(asked is None or asked == value for asked, value in equal)
        and (wanted.types is None or head.type in wanted.types)
        and (wanted.since_ms is None or head.t_ms >= wanted.since_ms)
        and (wanted.until_ms is None or head.t_ms < wanted.until_ms)
        and (wanted.before is None or head.place < wanted.before)
        and (wanted.after is None or head.place > wanted.after)
    )


def _asked(wanted: Wanted) -> Select[Any]:
    """The question as SQL.  One filter leads, the one that few events pass as a rule; an index serves it alone.

    The others are written so that none can: SQLite, which knows nothing of how often a value is there, would else walk
    through all events of a common purpose for the five of a case.
    """
    query: Select[Any] = select(*_HEAD)
    equal = [
        (EventRow.case_hmac, wanted.case_hmac), (EventRow.actor_ref, wanted.actor),
        (EventRow.type, wanted.types[0] if wanted.types is not None and len(wanted.types) == 1 else None),
        (EventRow.outcome, wanted.outcome), (EventRow.org, wanted.org), (EventRow.purpose, wanted.purpose),
        (EventRow.op, wanted.op),
    ]  # fmt: skip
    led = wanted.flagged is True or wanted.break_glass is True
    for column, value in equal:
        if value is not None:
            query = query.where((col(column).concat("") if led else col(column)) == value)
            led = True
    if wanted.break_glass is not None:
        query = query.where(col(EventRow.break_glass) == wanted.break_glass)
    if wanted.since_ms is not None:
        query = query.where(col(EventRow.t_ms) >= wanted.since_ms)
    if wanted.until_ms is not None:
        query = query.where(col(EventRow.t_ms) < wanted.until_ms)
    if wanted.flagged is not None:
        # Few are: those are asked by their ids; to leave them out each event is looked up.
        flag = exists().where(col(FlagRow.event_id) == col(EventRow.event_id))
        few = col(EventRow.event_id).in_(select(FlagRow.event_id))
        query = query.where(few if wanted.flagged else ~flag)
    if wanted.before is not None:
        query = query.where(_beyond(wanted.before, later=False))
    if wanted.after is not None:
        query = query.where(_beyond(wanted.after, later=True))
    return query


def _beyond(place: Place, *, later: bool) -> Any:
    """Strictly on one side of a place; the bound on time alone comes first, so that an index serves."""
    t_ms, log_id, seq = _ORDER

    def past(column: Any, value: Any) -> Any:
        return column > value if later else column < value

    return and_(
        t_ms >= place.t_ms if later else t_ms <= place.t_ms,
        or_(
            past(t_ms, place.t_ms),
            and_(t_ms == place.t_ms, past(log_id, place.log_id)),
            and_(t_ms == place.t_ms, log_id == place.log_id, past(seq, place.seq)),
        ),
    )
