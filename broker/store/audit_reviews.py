"""What waits for a person because of a rule, a sample or a kind of event; and counts, by which rules know the usual."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Index,
    UniqueConstraint,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    true,
)
from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, json_value
from broker.store.event_keys import AT_ONCE
from broker.store.log import CheckpointRow, CosignatureRow, EventRow, FlagRow, ReviewRow, SubjectRow
from broker.store.transaction import Reading, Transaction

HOUR_MS: Final = 3_600_000
_select: Any = select  # of more columns than its types have words for


class CaseRow(Row, table=True):
    """An event in the queue of reviews, once, whatever brought it there."""

    __tablename__ = "audit_case"
    __table_args__ = (Index("ix_audit_case_state_due_at", "state", "due_at"),)

    event_id: str = Field(primary_key=True)
    kind: str  # break_glass, flag, sample
    state: str  # open, taken, decided, closed
    opened_at: datetime = instant()
    due_at: datetime = instant()
    taken_by: str = Field(default="")
    taken_at: datetime | None = instant(default=None, nullable=True)
    review: str = Field(default="")  # the last, decided


class RollupRow(Row, table=True):
    """Counts of an hour, by organisation, person, type and purpose.  `subjects`: distinct persons that looks showed."""

    __tablename__ = "audit_rollup"
    __table_args__ = (Index("ix_audit_rollup_actor_ref_hour", "actor_ref", "hour"),)

    hour: int = Field(primary_key=True, sa_type=BigInteger)
    org: str = Field(primary_key=True)
    actor_ref: str = Field(primary_key=True)
    type: str = Field(primary_key=True)
    purpose: str = Field(primary_key=True)
    count: int
    subjects: int = Field(default=0)


class MarkRow(Row, table=True):
    """How far a nightly job has got: everything before `until_ms` is done."""

    __tablename__ = "audit_mark"

    name: str = Field(primary_key=True)
    until_ms: int = Field(sa_type=BigInteger)


class ThresholdChangeRow(Row, table=True):
    """A change of a rule's threshold: who, when, from, to, why.  The thresholds in force are all of these, in order."""

    __tablename__ = "audit_rule_change"

    position: int | None = Field(default=None, primary_key=True)
    rule: str
    name: str
    before: int
    value: int
    why: str
    changed_by: str
    at: datetime = instant()
    event_id: str


class SampleRow(Row, table=True):
    """A sample that was drawn; its candidates are sealed beside the event that records it."""

    __tablename__ = "audit_sample"
    __table_args__ = (UniqueConstraint("since", "until"),)

    id: str = Field(primary_key=True)
    since: datetime = instant()
    until: datetime = instant()
    percent: int
    least: int
    candidates: int
    drawn: int
    candidates_sha256: str
    note: str
    witnessed: bool
    drawn_by: str
    drawn_at: datetime = instant()
    event_id: str
    by_reason: dict[str, int] = json_value(default_factory=dict)


# --- The queue -------------------------------------------------------------------------------------------------------


def unqueued(reading: Reading, break_glass: Sequence[str]) -> list[tuple[str, str, int]]:
    """Events that should be in the queue and are not: those flagged, and break-glass; id, kind, and when, unix ms."""
    waiting = ~exists().where(col(CaseRow.event_id) == col(EventRow.event_id))
    found: dict[str, tuple[str, str, int]] = {}
    for which in (col(EventRow.break_glass) == true(), col(EventRow.type).in_(break_glass)):  # an index serves each
        query = select(EventRow.event_id, EventRow.t_ms).where(which, waiting)
        found |= {event_id: (event_id, "break_glass", t_ms) for event_id, t_ms in reading.session.exec(query)}
    flagged = (
        select(FlagRow.event_id, EventRow.t_ms)
        .join(EventRow, col(EventRow.event_id) == col(FlagRow.event_id))
        .where(waiting)
        .distinct()
    )
    for event_id, t_ms in reading.session.exec(flagged):
        found.setdefault(event_id, (event_id, "flag", t_ms))
    return sorted(found.values(), key=lambda one: (one[2], one[0]))


def unreviewed(reading: Reading, organisation: str, person: str, type_: str) -> list[int]:
    """When somebody did what is of this type and of which no review is closed, in unix ms."""
    reviewed = exists().where(col(CaseRow.event_id) == col(EventRow.event_id), col(CaseRow.state) == "closed")
    query = select(EventRow.t_ms).where(
        col(EventRow.actor_ref) == person, col(EventRow.org) == organisation, col(EventRow.type) == type_, ~reviewed
    )
    return sorted(reading.session.exec(query))


def put_case(tx: Transaction, row: CaseRow) -> bool:
    """Put an event into the queue; whether it was not there yet.  Of two that put it at once the second waits."""
    insert_ = tx.upsert(CaseRow).values(row.model_dump()).on_conflict_do_nothing()
    return tx.connection.execute(insert_.returning(col(CaseRow.event_id))).first() is not None


def queued(
    reading: Reading, *, states: Sequence[str], kind: str = "", taken_by: str = "", after: CaseRow | None = None,
    not_by: str, limit: int,
) -> list[CaseRow]:  # fmt: skip
    """Cases of these states, the soonest due first; none of an event in which `not_by` was who acted."""
    query = (
        select(CaseRow)
        .join(EventRow, col(EventRow.event_id) == col(CaseRow.event_id))
        .where(col(CaseRow.state).in_(states), col(EventRow.actor_ref) != not_by)
    )
    if kind:
        query = query.where(col(CaseRow.kind) == kind)
    if taken_by:
        query = query.where(col(CaseRow.taken_by) == taken_by)
    if after is not None:
        due, event = col(CaseRow.due_at), col(CaseRow.event_id)
        query = query.where(or_(due > after.due_at, (due == after.due_at) & (event > after.event_id)))
    query = query.order_by(col(CaseRow.due_at), col(CaseRow.event_id)).limit(limit)
    return list(reading.session.exec(query))


def found_breaches(reading: Reading, *, since: datetime, not_by: str, limit: int) -> list[CaseRow]:
    """Cases whose last review says breach, since an instant, the newest first; none of an event of `not_by`."""
    query = (
        select(CaseRow)
        .join(ReviewRow, col(ReviewRow.id) == col(CaseRow.review))
        .join(EventRow, col(EventRow.event_id) == col(CaseRow.event_id))
        .where(
            col(ReviewRow.decision) == "breach", col(ReviewRow.at) >= since, col(EventRow.actor_ref) != not_by,
            col(CaseRow.state).in_(("decided", "closed")),
        )
        .order_by(col(ReviewRow.at).desc(), col(ReviewRow.id))
        .limit(limit)
    )  # fmt: skip
    return list(reading.session.exec(query))


class Waiting(NamedTuple):
    """How many cases of one kind are in one state, how many of them are late, and when the first is due."""

    kind: str
    state: str
    cases: int
    late: int
    first_due: datetime


def waiting_cases(reading: Reading, *, states: Sequence[str], not_by: str, at: datetime) -> list[Waiting]:
    """What waits, counted; nothing of an event in which `not_by` was who acted."""
    late = func.sum(case((col(CaseRow.due_at) < at, 1), else_=0))
    query = (
        _select(CaseRow.kind, CaseRow.state, func.count(), late, func.min(CaseRow.due_at))
        .join(EventRow, col(EventRow.event_id) == col(CaseRow.event_id))
        .where(col(CaseRow.state).in_(states), col(EventRow.actor_ref) != not_by)
        .group_by(col(CaseRow.kind), col(CaseRow.state))
        .order_by(col(CaseRow.kind), col(CaseRow.state))
    )
    return [Waiting(*row) for row in reading.session.connection().execute(query)]


def flags_between(
    reading: Reading, *, since: datetime, until: datetime, rule: str = "", not_by: str = "", limit: int | None = None
) -> list[FlagRow]:
    """Flags raised in a period, the newest first; none on an event of `not_by`."""
    query = (
        select(FlagRow)
        .join(EventRow, col(EventRow.event_id) == col(FlagRow.event_id))
        .where(col(FlagRow.raised_at) >= since, col(FlagRow.raised_at) < until)
        .order_by(col(FlagRow.raised_at).desc(), col(FlagRow.id))
    )
    if rule:
        query = query.where(col(FlagRow.rule) == rule)
    if not_by:
        query = query.where(col(EventRow.actor_ref) != not_by)
    return list(reading.session.exec(query.limit(limit) if limit is not None else query))


def reviews_between(reading: Reading, *, since: datetime, until: datetime) -> list[ReviewRow]:
    """Reviews decided in a period, oldest first."""
    query = select(ReviewRow).where(col(ReviewRow.at) >= since, col(ReviewRow.at) < until)
    return list(reading.session.exec(query.order_by(col(ReviewRow.at), col(ReviewRow.id))))


def reviewed_by(reading: Reading, reviewers: Collection[str], *, before: datetime, last: int) -> dict[str, list[str]]:
    """Of each reviewer, who acted in the events they reviewed last, oldest first."""
    found: dict[str, list[str]] = {}
    for reviewer in sorted(reviewers):
        query = (
            select(EventRow.actor_ref)
            .join(ReviewRow, col(ReviewRow.event_id) == col(EventRow.event_id))
            .where(col(ReviewRow.reviewer) == reviewer, col(ReviewRow.at) < before)
            .order_by(col(ReviewRow.at).desc(), col(ReviewRow.id).desc())
            .limit(last)
        )
        found[reviewer] = list(reversed(list(reading.session.exec(query))))
    return found


# --- The usual -------------------------------------------------------------------------------------------------------


class Usual(NamedTuple):
    """One hour of one person's in one type and purpose."""

    hour: int
    org: str
    actor_ref: str
    type: str
    purpose: str
    events: int
    subjects: int


def roll_up(
    tx: Transaction, subjects: Mapping[tuple[int, str, str, str, str], int], *, since_ms: int, until_ms: int
) -> int:
    """Count the hours of a window anew; how many rows.  `subjects`: distinct persons shown, by a row's key.

    Both bounds are full hours.
    """
    hour = col(EventRow.t_ms) // literal_column(str(HOUR_MS))  # written out: PostgreSQL groups by the same text alone
    keys = (hour.label("hour"), col(EventRow.org), col(EventRow.actor_ref), col(EventRow.type), col(EventRow.purpose))
    query = (
        _select(*keys, func.count())
        .where(col(EventRow.t_ms) >= since_ms, col(EventRow.t_ms) < until_ms, col(EventRow.actor_ref) != "")
        .group_by(*keys)
    )
    rows = [(int(found[0]), *found[1:]) for found in tx.session.connection().execute(query)]
    first, last = since_ms // HOUR_MS, until_ms // HOUR_MS
    tx.session.connection().execute(delete(RollupRow).where(col(RollupRow.hour) >= first, col(RollupRow.hour) < last))
    values = [
        {
            "hour": row[0], "org": row[1], "actor_ref": row[2], "type": row[3], "purpose": row[4], "count": row[5],
            "subjects": subjects.get(tuple(row[:5]), 0),
        }
        for row in rows
    ]  # fmt: skip
    if values:
        tx.session.connection().execute(insert(RollupRow), values)
    return len(values)


def usual(
    reading: Reading, actors: Collection[str], types: Collection[str], *, first: int, last: int
) -> Iterator[Usual]:
    """The hours `first` <= hour < `last` of some persons in some types."""
    wanted = sorted(actors)
    columns = [getattr(RollupRow, "count" if name == "events" else name) for name in Usual._fields]
    for start in range(0, len(wanted), AT_ONCE):
        query = _select(*columns).where(
            col(RollupRow.actor_ref).in_(wanted[start : start + AT_ONCE]), col(RollupRow.hour) >= first,
            col(RollupRow.hour) < last, col(RollupRow.type).in_(sorted(types)),
        )  # fmt: skip
        yield from (Usual(*row) for row in reading.session.connection().execute(query))


def last_hours(
    reading: Reading, actors: Collection[tuple[str, str]], types: Collection[str], *, before: int
) -> dict[tuple[str, str], int]:
    """The last hour before one in which each person, by organisation and reference, did any of this."""
    found: dict[tuple[str, str], int] = {}
    for org, person in sorted(actors):
        query = (
            select(RollupRow.hour)
            .where(
                col(RollupRow.actor_ref) == person, col(RollupRow.org) == org, col(RollupRow.hour) < before,
                col(RollupRow.type).in_(sorted(types)),
            )
            .order_by(col(RollupRow.hour).desc())
            .limit(1)
        )  # fmt: skip
        hour = reading.session.exec(query).first()
        if hour is not None:
            found[org, person] = hour
    return found


def seen_before(
    reading: Reading, indexes: Collection[str], types: Collection[str], *, before_ms: int
) -> set[tuple[str, str, str]]:
    """Who had an event of these types about whom before an instant: organisation, person, HMAC of the subject."""
    wanted = sorted(indexes)
    found: set[tuple[str, str, str]] = set()
    for start in range(0, len(wanted), AT_ONCE):
        query = (
            select(EventRow.org, EventRow.actor_ref, SubjectRow.idx_hmac)
            .join(
                SubjectRow,
                (col(SubjectRow.log_id) == col(EventRow.log_id)) & (col(SubjectRow.seq) == col(EventRow.seq)),
            )
            .where(
                col(SubjectRow.idx_hmac).in_(wanted[start : start + AT_ONCE]), col(EventRow.t_ms) < before_ms,
                col(EventRow.type).in_(sorted(types)),
            )
            .distinct()
        )  # fmt: skip
        found.update((org, actor, index) for org, actor, index in reading.session.connection().execute(query))
    return found


def top_actors(reading: Reading, *, first: int, last: int, types: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """Who did most of this in the hours `first` <= hour < `last`, most first."""
    count, subjects = func.sum(RollupRow.count), func.sum(RollupRow.subjects)
    query = (
        _select(RollupRow.org, RollupRow.actor_ref, count, subjects)
        .where(
            col(RollupRow.hour) >= first, col(RollupRow.hour) < last, col(RollupRow.type).in_(types),
            col(RollupRow.actor_ref) != "",
        )
        .group_by(col(RollupRow.org), col(RollupRow.actor_ref))
        .order_by(count.desc(), col(RollupRow.org), col(RollupRow.actor_ref))
        .limit(limit)
    )  # fmt: skip
    return [
        {"organisation": org, "person": actor, "events": int(events), "subjects": int(shown)}
        for org, actor, events, shown in reading.session.connection().execute(query)
    ]


def forget_hours(tx: Transaction, *, before: int) -> int:
    """Drop the counts of hours before one; how many rows."""
    return int(tx.session.connection().execute(delete(RollupRow).where(col(RollupRow.hour) < before)).rowcount)


def oldest_ms(reading: Reading) -> int | None:
    """When the oldest event was, unix milliseconds."""
    found = reading.session.exec(select(func.min(EventRow.t_ms))).one()
    return int(found) if found is not None else None


def shown_between(reading: Reading, since: datetime, until: datetime, *, types: Sequence[str]) -> bool:
    """Whether there is an event of these types in a period; a search that listed nobody is none."""
    first, last = (int(at.timestamp() * 1000) for at in (since, until))
    query = select(EventRow.event_id).where(
        col(EventRow.type).in_(types), col(EventRow.t_ms) >= first, col(EventRow.t_ms) < last,
        ~col(EventRow.outcome).startswith("0_", autoescape=True),
    )  # fmt: skip
    return reading.session.exec(query.limit(1)).first() is not None


# --- Samples ---------------------------------------------------------------------------------------------------------


def first_signed_since(reading: Reading, at: datetime, logs: Collection[str]) -> CheckpointRow | None:
    """The first checkpoint that one of these logs signed at or after an instant."""
    query = select(CheckpointRow).where(col(CheckpointRow.at) >= at, col(CheckpointRow.log_id).in_(logs))
    return reading.session.exec(query.order_by(col(CheckpointRow.at), col(CheckpointRow.size)).limit(1)).first()


def first_lines_since(
    reading: Reading, at: datetime, witnesses: Collection[str], logs: Collection[str]
) -> list[CosignatureRow]:
    """The first line of each of these witnesses at or after an instant, under checkpoints that end with an entry since.

    Of checkpoints of these logs alone.  Of a witness that signed several in one second, the smallest checkpoint's.
    """
    grown = select(EventRow.log_id, func.min(EventRow.seq)).where(
        col(EventRow.t_ms) >= int(at.timestamp() * 1000), col(EventRow.log_id).in_(logs)
    )
    found: dict[str, CosignatureRow] = {}
    for log_id, seq in reading.session.exec(grown.group_by(col(EventRow.log_id))).all():
        for witness in sorted(witnesses):
            query = select(CosignatureRow).where(
                col(CosignatureRow.log_id) == log_id, col(CosignatureRow.witness) == witness,
                col(CosignatureRow.size) > seq, col(CosignatureRow.first_t_s) >= int(at.timestamp()),
            )  # fmt: skip
            query = query.order_by(col(CosignatureRow.first_t_s), col(CosignatureRow.size)).limit(1)
            row = reading.session.exec(query).first()
            if row is not None and (witness not in found or row.first_t_s < found[witness].first_t_s):
                found[witness] = row
    return list(found.values())
