"""Link runs, the one pointer that says which of them is in service, what became of persons, and every model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import CheckConstraint, Index, insert
from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, json_value, octets
from broker.store.transaction import Reading, Transaction

_AT_ONCE: Final = 5_000
_ASKED_AT_ONCE: Final = 500  # ids in one question: SQLite takes no more than 32,766 values


class LinkRunRow(Row, table=True):
    """One run of `broker nightly`.  `state`: running, built, published, failed, retired."""

    __tablename__ = "link_run"

    id: str = Field(primary_key=True)
    night: date = Field(index=True)
    state: str
    stage: str = Field(default="")
    previous: str | None = Field(default=None)
    why: str = Field(default="nightly")  # nightly, full, retrain, accepted: what asked for it
    segments: dict[str, str] = json_value()  # a name of `broker.nightly` -> segment id; a later run may share one
    model_sha256: str | None = Field(default=None)
    counts: dict[str, Any] = json_value()
    failure: str | None = Field(default=None)  # a code
    holder: str  # which process has the lease
    fence: int = Field(default=1)  # grows with each take-over, so a paused holder can't publish
    lease_until: datetime = instant()
    started_at: datetime = instant()
    finished_at: datetime | None = instant(default=None, nullable=True)
    published_at: datetime | None = instant(default=None, nullable=True)


class PublishedRow(Row, table=True):
    """The run in service: one row, changed in the transaction that records `linkage.published`."""

    __tablename__ = "published"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: int = Field(default=1, primary_key=True)
    run: str = Field(foreign_key="link_run.id")
    version: int  # grows by one a flip
    at: datetime = instant()


class PersonEventRow(Row, table=True):
    """A person id before a run, and one after it that has some of its records: a row for each such two.

    `kind`: merge (several became `after`) or split (`before` became several).  Person ids are random, and name nobody.
    """

    __tablename__ = "person_event"
    __table_args__ = (Index("ix_person_event_before_seq", "before", "seq"), Index("ix_person_event_after", "after"))

    id: int | None = Field(default=None, primary_key=True)
    seq: int  # the version of the pointer that put the run in service: grows with time
    run: str = Field(foreign_key="link_run.id", index=True)
    kind: str
    before: str
    after: str
    at: datetime = instant()


class LinkageModelRow(Row, table=True):
    """A model: parameters alone, nobody's data.  Kept for good, since each run's event names one by its digest.

    `state`: shadow (trained, not in service yet), refused (a gate wants a person's word), in_service, retired.
    """

    __tablename__ = "linkage_model"

    digest: str = Field(primary_key=True)  # SHA-256 (hex) of `body`
    profile: str
    version: str
    body: bytes = octets()  # as `Model.canonical`
    why: str  # first, version, asked, scheduled: what it was trained for
    state: str
    run: str  # the run that trained it
    comparison: dict[str, Any] | None = json_value(default=None, nullable=True)  # with the one then in service
    accepted_by: str | None = Field(default=None)  # the operator who took it in against the gate
    trained_at: datetime = instant()
    in_service_from: datetime | None = instant(default=None, nullable=True)


def add_person_events(tx: Transaction, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of PersonEventRow, many at once."""
    tx.flush()
    for start in range(0, len(rows), _AT_ONCE):
        tx.session.connection().execute(insert(PersonEventRow), rows[start : start + _AT_ONCE])


def person_events_of(tx: Reading, before: Iterable[str], *, after_seq: int = 0) -> list[PersonEventRow]:
    """What became of these person ids in runs after one, oldest first."""
    found: list[PersonEventRow] = []
    ids = sorted(set(before))
    for start in range(0, len(ids), _ASKED_AT_ONCE):
        query = select(PersonEventRow).where(
            col(PersonEventRow.before).in_(ids[start : start + _ASKED_AT_ONCE]), col(PersonEventRow.seq) > after_seq
        )
        found += tx.session.exec(query)
    return sorted(found, key=lambda row: (row.seq, row.id))
