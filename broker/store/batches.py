"""Batches as they arrive: manifest, chunks, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, func, text
from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, json_value, octets
from broker.store.transaction import Reading


class BatchRow(Row, table=True):
    """One night of one flow.

    `state`: open, sealed, validating, accepted, quarantined, rejected, linked, superseded.  A rejected batch frees its
    sequence number: at most one batch that is not rejected holds it.  A batch of an epoch that was being prepared when
    it came is of that epoch's `shadow` set for good, and numbered by itself: no night of the flow.
    """

    __tablename__ = "batch"
    __table_args__ = (
        UniqueConstraint("agency", "idempotency_key"),
        Index(
            "uq_batch_live_sequence", "agency", "flow", "shadow", "sequence", unique=True,
            sqlite_where=text("state <> 'rejected'"), postgresql_where=text("state <> 'rejected'"),
        ),
        Index("ix_batch_state", "state"),
    )  # fmt: skip

    id: str = Field(primary_key=True)
    agency: str = Field(foreign_key="agency.id")
    flow: str
    sequence: int
    kind: str  # full, delta
    idempotency_key: str
    manifest: bytes = octets()  # the canonical bytes as signed
    manifest_sha256: str
    signature: str  # detached JWS, kept
    profile: str
    key_epoch: str
    shadow: str = Field(default="", sa_column_kwargs={"server_default": ""})  # the epoch prepared, or "": a night
    dek_wrapped: bytes = octets()
    state: str
    first_status: int  # of the first answer to its POST, replayed with the body below
    first_response: bytes = octets()
    counts: dict[str, Any] = json_value()  # table -> rows, accepted, ...
    verdict: dict[str, Any] | None = json_value(default=None, nullable=True)  # code and numbers; never a row
    received_event: str | None = Field(default=None)  # the log's event ids
    verdict_event: str | None = Field(default=None)
    extracted_at: datetime = instant()
    opened_at: datetime = instant()
    expires_at: datetime = instant()
    sealed_at: datetime | None = instant(default=None, nullable=True)
    decided_at: datetime | None = instant(default=None, nullable=True)
    linked_run: str | None = Field(default=None, index=True)


class BatchChunkRow(Row, table=True):
    """A chunk that has arrived, been digested and been synced to the spool."""

    __tablename__ = "batch_chunk"

    batch: str = Field(primary_key=True, foreign_key="batch.id")
    table: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    size: int
    sha256: str
    arrived_at: datetime = instant()


class BatchRejectionRow(Row, table=True):
    """One finding of intake: a place and a code, never a value."""

    __tablename__ = "batch_rejection"

    batch: str = Field(primary_key=True, foreign_key="batch.id")
    position: int = Field(primary_key=True)
    table: str
    row: int | None = Field(default=None)
    column: str | None = Field(default=None)
    code: str
    hint: str


def batches_by_state(reading: Reading, states: Sequence[str]) -> dict[str, int]:
    """How many batches are in each of these states; a state in which none is, is left out."""
    query = select(BatchRow.state, func.count()).where(col(BatchRow.state).in_(states)).group_by(col(BatchRow.state))
    return dict(reading.session.exec(query).all())
