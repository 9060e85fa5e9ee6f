"""What the holders of what was shown are told of it, and whose answers are recalled since they mixed two people.

A notice is made with the answer itself, and of nothing that was hidden.  Who asked, why and when is the event's to say;
which of the holder's records, and what of each, is sealed here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Index, and_, or_, update
from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, octets
from broker.store.log import EventRow
from broker.store.transaction import Reading, Transaction

Which = Literal["new", "read", "all"]
_AT_ONCE: Final = 500  # values in one question


class NoticeRow(Row, table=True):
    """That one answer showed something of one agency's: `kind` search (a candidate it knows was listed) or view.

    `ended`: completed, not_sent, broken_off (a part may have arrived); empty while nobody knows.
    """

    __tablename__ = "notice"
    __table_args__ = (
        Index("ix_notice_agency_at_id", "agency", "at", "id"),
        Index("ix_notice_agency_collected_at_at_id", "agency", "collected_at", "at", "id"),
        Index("ix_notice_event_id_agency", "event_id", "agency", unique=True),
    )

    id: str = Field(primary_key=True)
    agency: str = Field(foreign_key="agency.id")
    event_id: str
    kind: str
    at: datetime = instant()
    key_wrapped: bytes = octets()
    ended: str = Field(default="")
    collected_at: datetime | None = instant(default=None, nullable=True)
    collected_by: str = Field(default="")  # a person at its gateway; empty: its machine


class NoticeRecordRow(Row, table=True):
    """One record that a notice is about, sealed under the notice's key; found again by its keyed index."""

    __tablename__ = "notice_record"

    notice: str = Field(primary_key=True, foreign_key="notice.id")
    n: int = Field(primary_key=True)
    record_index: str = Field(index=True)
    sealed: bytes = octets()


class RecallRow(Row, table=True):
    """An answer that showed as one person those who were several, or may have: whoever asked is to be told.

    `event_id`: of the answer; `recalled_by`: of the event that recalls it, empty until there is one.  `why`: split, by
    a run; reported, as mixed up, which a reviewer has still to look at.
    """

    __tablename__ = "recall"
    __table_args__ = (
        Index("ix_recall_agency_collected_at_at_id", "agency", "collected_at", "at", "id"),
        Index("ix_recall_event_id_run", "event_id", "run", unique=True),
    )

    id: str = Field(primary_key=True)
    agency: str = Field(foreign_key="agency.id")
    person: str
    event_id: str
    kind: str
    shown_at: datetime = instant()
    run: str  # that split them; or the report
    why: str = Field(default="split")
    at: datetime = instant()
    recalled_by: str = Field(default="", index=True)
    collected_at: datetime | None = instant(default=None, nullable=True)
    collected_by: str = Field(default="")


def notices_of(
    tx: Reading, agency: str, *, which: Which, since: datetime | None, after: NoticeRow | None, limit: int
) -> list[tuple[NoticeRow, EventRow]]:
    """One agency's notices that are in the log, oldest first, beyond `after`, each with its event."""
    query = _with_events().where(col(NoticeRow.agency) == agency)
    if which != "all":
        read = col(NoticeRow.collected_at)
        query = query.where(read.is_(None) if which == "new" else read.is_not(None))
    if since is not None:
        query = query.where(col(NoticeRow.at) >= since)
    if after is not None:
        later = and_(col(NoticeRow.at) == after.at, col(NoticeRow.id) > after.id)
        query = query.where(or_(col(NoticeRow.at) > after.at, later))
    query = query.order_by(col(NoticeRow.at), col(NoticeRow.id)).limit(limit)
    return [(notice, event) for notice, event in tx.session.exec(query)]


def notices_about(
    tx: Reading, agency: str, indexes: Collection[str], *, limit: int
) -> list[tuple[NoticeRow, EventRow]]:
    """The newest notices of one agency about a record of its own, by its keyed indices, newest first."""
    about = select(NoticeRecordRow.notice).where(col(NoticeRecordRow.record_index).in_(sorted(indexes)))
    query = (
        _with_events()
        .where(col(NoticeRow.agency) == agency, col(NoticeRow.id).in_(about))
        .order_by(col(NoticeRow.at).desc(), col(NoticeRow.id).desc())
        .limit(limit)
    )
    return [(notice, event) for notice, event in tx.session.exec(query)]


def records_of(tx: Reading, notices: Iterable[str]) -> dict[str, list[NoticeRecordRow]]:
    """The records of some notices, in their order; of what was erased since there is none."""
    found: dict[str, list[NoticeRecordRow]] = {}
    for some in _parts(sorted(set(notices))):
        for row in tx.all(NoticeRecordRow, notice=some, order=("notice", "n")):
            found.setdefault(row.notice, []).append(row)
    return found


def recalled_at(tx: Reading, event_ids: Iterable[str]) -> dict[str, datetime]:
    """Which of these answers were recalled, and when first."""
    found: dict[str, datetime] = {}
    for some in _parts(sorted(set(event_ids))):
        for row in tx.all(RecallRow, event_id=some, order=("-at",)):
            found[row.event_id] = row.at
    return found


def set_end(tx: Transaction, event_id: str, ended: str) -> None:
    """Say of every notice of an answer how it ended."""
    tx.session.exec(update(NoticeRow).where(col(NoticeRow.event_id) == event_id).values(ended=ended))


def uncollected(tx: Reading, row: type[NoticeRow] | type[RecallRow], agency: str, ids: Sequence[str]) -> list[Any]:
    """Those of one agency's rows of these ids that it has not said to have read."""
    return [one for some in _parts(sorted(set(ids))) for one in tx.all(row, agency=agency, id=some, collected_at=None)]


def _with_events() -> Any:
    return select(NoticeRow, EventRow).join(EventRow, col(EventRow.event_id) == col(NoticeRow.event_id))


def _parts(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
