"""What a holder is to consider: a record of its own that nobody was shown, though little was missing; a shield that did
its work.  And the rounds in which such items are raised.

Whose record it is, who asked and why are sealed; an item is found again by keyed indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Index, and_, or_
from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, octets
from broker.store.log import EventRow
from broker.store.transaction import Reading

_ASKED_AT_ONCE: Final = 500


class ConsiderationRow(Row, table=True):
    """One item at one holder.

    `kind`: sharing (the record was hidden, a clause was near) or shield (a shield of this agency hid somebody).
    `state`: open, disclosed, declined.  `mark` tells two items apart: asked again in one case it is one item, and
    `times` counts.
    """

    __tablename__ = "consideration"
    __table_args__ = (Index("ix_consideration_queue", "agency", "state", "raised_at", "id"),)

    id: str = Field(primary_key=True)
    agency: str = Field(foreign_key="agency.id")
    kind: str
    state: str
    mark: str = Field(unique=True)
    record_index: str = Field(index=True)
    sealed: bytes = octets()
    key_wrapped: bytes = octets()
    times: int
    raised_at: datetime = instant()
    last_at: datetime = instant()
    reason: str = Field(default="")  # why it was declined: a code
    decided_by: str = Field(default="")
    decided_at: datetime | None = instant(default=None, nullable=True)
    event_id: str = Field(default="")  # of the decision


class RoundRow(Row, table=True):
    """A round: it was due at `slot`, and took in the entries of shard `log_id` before `through`."""

    __tablename__ = "consideration_round"

    slot: datetime = instant(primary_key=True)
    log_id: str
    through: int = Field(sa_type=BigInteger)
    event_id: str


def last_round(tx: Reading) -> RoundRow | None:
    """The newest round, or None before the first."""
    found = tx.all(RoundRow, order=("-slot",), limit=1)
    return found[0] if found else None


def answered(tx: Reading, log_id: str, *, types: Sequence[str], since: int, limit: int) -> list[EventRow]:
    """Events of these types in the log from an entry on, in its order."""
    query = (
        select(EventRow)
        .where(col(EventRow.log_id) == log_id, col(EventRow.seq) >= since, col(EventRow.type).in_(types))
        .order_by(col(EventRow.seq))
        .limit(limit)
    )
    return list(tx.session.exec(query))


def by_mark(tx: Reading, marks: Iterable[str]) -> dict[str, ConsiderationRow]:
    """The items that are there already, by mark."""
    wanted = sorted(marks)
    found: dict[str, ConsiderationRow] = {}
    for start in range(0, len(wanted), _ASKED_AT_ONCE):
        rows = tx.all(ConsiderationRow, mark=wanted[start : start + _ASKED_AT_ONCE])
        found |= {row.mark: row for row in rows}
    return found


def queue(
    tx: Reading, *, agency: str, state: str, limit: int, after: ConsiderationRow | None = None
) -> list[ConsiderationRow]:
    """One holder's items in a state, oldest first, beyond `after`."""
    query = select(ConsiderationRow).where(col(ConsiderationRow.agency) == agency, col(ConsiderationRow.state) == state)
    if after is not None:
        later = and_(col(ConsiderationRow.raised_at) == after.raised_at, col(ConsiderationRow.id) > after.id)
        query = query.where(or_(col(ConsiderationRow.raised_at) > after.raised_at, later))
    query = query.order_by(col(ConsiderationRow.raised_at), col(ConsiderationRow.id)).limit(limit)
    return list(tx.session.exec(query))
