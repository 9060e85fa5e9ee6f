"""What people have decided about pairs of records, what agencies have severed, and the pairs that wait for a decision.

Whose records a row is about can't be read from the tables: they are sealed, and found by a keyed index.  Above all of a
severed pair, since a list of those would lead from each adopted child's old name to the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Index, UniqueConstraint, and_, func, insert, or_, update
from sqlalchemy import select as sa_select
from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, json_value, octets
from broker.store.transaction import Reading, Transaction

_AT_ONCE = 500


class OverrideRow(Row, table=True):
    """One override.  A row of kind `sever` is never changed and never deleted: the database refuses it."""

    __tablename__ = "link_override"

    id: str = Field(primary_key=True)
    kind: str = Field(index=True)  # sever, must_not_link, must_link
    scope: str  # records: one pair; persons: every record of one side apart from every record of the other
    state: str  # proposed, active, withdrawn
    pair_index: str = Field(index=True)
    sealed: bytes = octets()  # both sides, as lists of [agency, flow, record_ref]
    key_wrapped: bytes = octets()
    reason: str
    evidence: list[str] = json_value()
    organisation: str  # by whom: the agency whose marker it was, or the partnership of the reviewer
    person: str
    second_due: bool  # a shield, a seal, twins or two numbers: a second reviewer confirms
    second: str = Field(default="")  # who confirmed, or refused
    review: str | None = Field(default=None)
    event_id: str
    valid_from: datetime = instant()
    valid_to: datetime | None = instant(default=None, nullable=True)
    made_at: datetime = instant()
    changed_at: datetime = instant()


class OverrideRecordRow(Row, table=True):
    """That an override is about a record, which is found by its keyed index alone."""

    __tablename__ = "link_override_record"

    override: str = Field(primary_key=True, foreign_key="link_override.id")
    record_index: str = Field(primary_key=True, index=True)


class SeverMarkRow(Row, table=True):
    """That an agency once sent a record under a sever marker.  Kept for good, though the marker stops coming."""

    __tablename__ = "sever_mark"

    marker_index: str = Field(primary_key=True)
    record_index: str = Field(primary_key=True)
    sealed: bytes = octets()  # [agency, flow, record_ref]
    key_wrapped: bytes = octets()
    seen_at: datetime = instant()


class ReviewRow(Row, table=True):
    """A pair that waits, or waited, for a reviewer.

    `state`: waiting, second (a decision waits to be confirmed), passed_on (nobody could tell), decided, gone (the last
    night did not find it uncertain any more).
    """

    __tablename__ = "review"
    __table_args__ = (
        UniqueConstraint("pair_index"),
        Index("ix_review_queue", "state", "since", "id"),
    )

    id: str = Field(primary_key=True)
    pair_index: str
    scope: str  # records, persons
    reason: str
    agency_l: str
    agency_r: str
    reference_l: str = Field(index=True)  # what a reviewer quotes on the telephone, for the agency to find its record
    reference_r: str = Field(index=True)
    sealed: bytes = octets()
    key_wrapped: bytes = octets()
    state: str
    override: str | None = Field(default=None)
    run: str  # the run with which it came to the queue, or came back
    since: datetime = instant()
    changed_at: datetime = instant()


class ReviewActRow(Row, table=True):
    """What a person did about a review: the history of a pair, and what budgets count."""

    __tablename__ = "review_act"

    id: int | None = Field(default=None, primary_key=True)
    review: str | None = Field(default=None, index=True)  # None: the queue itself was read
    act: str
    organisation: str
    person: str = Field(index=True)
    code: str = Field(default="")
    event_id: str
    at: datetime = instant(index=True)


def in_force(tx: Reading, *, at: datetime) -> list[OverrideRow]:
    """The overrides that bind at an instant; a sever binds whatever its dates say."""
    dated = and_(
        col(OverrideRow.state) == "active",
        col(OverrideRow.valid_from) <= at,
        or_(col(OverrideRow.valid_to).is_(None), col(OverrideRow.valid_to) > at),
    )
    query = select(OverrideRow).where(or_(col(OverrideRow.kind) == "sever", dated)).order_by(col(OverrideRow.id))
    return list(tx.session.exec(query))


def queue(
    tx: Reading,
    *,
    states: Sequence[str],
    limit: int,
    reason: str | None = None,
    agency: str | None = None,
    since_before: datetime | None = None,
    after: ReviewRow | None = None,
) -> list[ReviewRow]:
    """Reviews in these states, oldest first, beyond `after`."""
    query = select(ReviewRow).where(col(ReviewRow.state).in_(states))
    if reason is not None:
        query = query.where(col(ReviewRow.reason) == reason)
    if agency is not None:
        query = query.where(or_(col(ReviewRow.agency_l) == agency, col(ReviewRow.agency_r) == agency))
    if since_before is not None:
        query = query.where(col(ReviewRow.since) <= since_before)
    if after is not None:
        later = and_(col(ReviewRow.since) == after.since, col(ReviewRow.id) > after.id)
        query = query.where(or_(col(ReviewRow.since) > after.since, later))
    query = query.order_by(col(ReviewRow.since), col(ReviewRow.id)).limit(limit)
    return list(tx.session.exec(query))


class Doubted(NamedTuple):
    """How many pairs wait, and since when the first does."""

    pairs: int
    since: datetime | None


def doubted(tx: Reading, *, states: Sequence[str], reason: str | None = None) -> Doubted:
    """What waits in these states, counted; of one reason where one is given."""
    query = sa_select(func.count(), func.min(ReviewRow.since)).where(col(ReviewRow.state).in_(states))
    if reason is not None:
        query = query.where(col(ReviewRow.reason) == reason)
    pairs, since = tx.session.connection().execute(query).one()
    return Doubted(pairs, since)


def acts_since(tx: Reading, *, person: str, act: str, since: datetime) -> int:
    """How often one person has done one thing since an instant."""
    query = (
        select(func.count())
        .select_from(ReviewActRow)
        .where(col(ReviewActRow.person) == person, col(ReviewActRow.act) == act, col(ReviewActRow.at) >= since)
    )
    return int(tx.session.exec(query).one())


def known_pairs(tx: Reading, indices: Iterable[str]) -> dict[str, ReviewRow]:
    """The reviews of these pairs, by index."""
    wanted = list(indices)
    found: dict[str, ReviewRow] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        rows = tx.all(ReviewRow, pair_index=wanted[start : start + _AT_ONCE])
        found |= {row.pair_index: row for row in rows}
    return found


class Standing(NamedTuple):
    """What is needed of a review to see whether a run changes it."""

    state: str
    override: str | None
    reason: str
    scope: str


def standings(tx: Reading, indices: Iterable[str]) -> dict[str, Standing]:
    """How the reviews of these pairs stand, by index."""
    wanted = list(indices)
    found: dict[str, Standing] = {}
    names = ("pair_index", "state", "override", "reason", "scope")
    for start in range(0, len(wanted), _AT_ONCE):
        query = sa_select(*(getattr(ReviewRow, name) for name in names))
        chosen = query.where(col(ReviewRow.pair_index).in_(wanted[start : start + _AT_ONCE]))
        for index, state, override, reason, scope in tx.session.connection().execute(chosen):
            found[index] = Standing(state, override, reason, scope)
    return found


def insert_reviews(tx: Transaction, rows: Sequence[Mapping[str, object]]) -> None:
    """Many new reviews at once, by the columns of ReviewRow."""
    tx.flush()
    for start in range(0, len(rows), _AT_ONCE):
        tx.session.connection().execute(insert(ReviewRow), list(rows[start : start + _AT_ONCE]))


def seen_again(tx: Transaction, indices: Iterable[str], *, run: str) -> None:
    """Mark pairs as found again by a run."""
    wanted = list(indices)
    tx.flush()
    for start in range(0, len(wanted), _AT_ONCE):
        tx.session.exec(
            update(ReviewRow)
            .where(col(ReviewRow.pair_index).in_(wanted[start : start + _AT_ONCE]))
            .values(run=run)
            .execution_options(synchronize_session=False)
        )


def unbound(tx: Reading, *, at: datetime) -> list[ReviewRow]:
    """The reviews that are decided by an override which holds no more."""
    ended = or_(col(OverrideRow.state) == "withdrawn", col(OverrideRow.valid_to) <= at)
    query = (
        select(ReviewRow)
        .join(OverrideRow, col(OverrideRow.id) == col(ReviewRow.override), isouter=True)
        .where(col(ReviewRow.state) == "decided", or_(col(OverrideRow.id).is_(None), ended))
        .order_by(col(ReviewRow.id))
    )
    return list(tx.session.exec(query))


def close(tx: Transaction, indices: Iterable[str], *, states: Sequence[str], at: datetime) -> None:
    """Mark as `gone` these pairs of records, which a run did not find again."""
    wanted = list(indices)
    tx.flush()
    for start in range(0, len(wanted), _AT_ONCE):
        some = col(ReviewRow.pair_index).in_(wanted[start : start + _AT_ONCE])
        tx.session.exec(
            update(ReviewRow)
            .where(some, col(ReviewRow.scope) == "records", col(ReviewRow.state).in_(states))
            .values(state="gone", changed_at=at)
            .execution_options(synchronize_session=False)
        )


def close_unseen(tx: Transaction, *, run: str, scope: str, states: Sequence[str], at: datetime) -> int:
    """Mark as `gone` what a run did not find again; how many."""
    tx.flush()
    gone = tx.session.exec(
        update(ReviewRow)
        .where(col(ReviewRow.run) != run, col(ReviewRow.scope) == scope, col(ReviewRow.state).in_(states))
        .values(state="gone", changed_at=at)
        .execution_options(synchronize_session=False)
    )
    return int(gone.rowcount)
