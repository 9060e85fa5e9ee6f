"""The log's tables: outbox, entries, event bodies, tiles, head, checkpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, UniqueConstraint, text
from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, json_value, octets
from broker.store.transaction import Reading


class OutboxRow(Row, table=True):
    """An event written in the business transaction and not yet sequenced.  The sequencer moves it, whole."""

    __tablename__ = "audit_outbox"

    position: int | None = Field(default=None, primary_key=True)
    event_id: str = Field(unique=True)
    idem_key: str | None = Field(default=None, unique=True)
    at_ms: int = Field(sa_type=BigInteger)  # when it was written; the leaf's own time is never earlier than the last's
    commitment: bytes = octets()
    columns: dict[str, Any] = json_value()  # of EventRow
    sections: bytes = octets()  # encrypted: sections and salts
    detail: bytes = octets()  # encrypted under the event's own key, as all of it
    subjects: list[str] = json_value()  # HMACs
    key_wrapped: bytes | None = octets(default=None, nullable=True)  # the event's key, until the sequencer keeps it
    sole: str = Field(default="", sa_column_kwargs={"server_default": ""})  # the HMAC of the subject it goes under


class EntryRow(Row, table=True):
    """A leaf of the tree; never changed, never deleted."""

    __tablename__ = "audit_entry"

    log_id: str = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    leaf: bytes = octets()
    leaf_hash: bytes = octets()
    event_id: str = Field(unique=True)


class EventRow(Row, table=True):
    """An event's body beside the tree.  Erasure empties `sections` and `detail` and drops its key; the leaf stays.

    Where an event is also about others, only what tells of the erased subject is emptied: `withheld_at` says when.
    """

    __tablename__ = "audit_event"
    __table_args__ = (
        Index("ix_audit_event_log_id_seq", "log_id", "seq"),
        Index("ix_audit_event_actor_ref_t_ms", "actor_ref", "t_ms"),
        Index("ix_audit_event_type_t_ms", "type", "t_ms"),
        Index("ix_audit_event_org_t_ms", "org", "t_ms"),
        Index("ix_audit_event_op_t_ms", "op", "t_ms"),
        Index("ix_audit_event_purpose_t_ms", "purpose", "t_ms"),
        Index("ix_audit_event_outcome_t_ms", "outcome", "t_ms"),
        Index(
            "ix_audit_event_broken_glass", "t_ms",
            sqlite_where=text("break_glass = 1"), postgresql_where=text("break_glass"),
        ),
    )  # fmt: skip

    event_id: str = Field(primary_key=True)
    log_id: str
    seq: int = Field(sa_type=BigInteger)
    t_ms: int = Field(sa_type=BigInteger, index=True)
    type: str
    op: str
    org: str
    actor_ref: str
    role: str
    purpose: str
    case_hmac: str = Field(index=True)
    outcome: str
    break_glass: bool = Field(default=False)
    sections: bytes | None = octets(default=None, nullable=True)
    detail: bytes | None = octets(default=None, nullable=True)
    erased_at: datetime | None = instant(default=None, nullable=True)
    erased_under: str | None = Field(default=None, index=True)  # the event of the erasure or of the retention run
    withheld_at: datetime | None = instant(default=None, nullable=True)


class SubjectRow(Row, table=True):
    """Which events concern a subject, by HMAC; prunable."""

    __tablename__ = "audit_subject"
    __table_args__ = (Index("ix_audit_subject_log_id_seq", "log_id", "seq"),)

    idx_hmac: str = Field(primary_key=True)
    log_id: str = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)


class TileRow(Row, table=True):
    """The widest tile yet at (level, n); a narrower partial tile is its prefix."""

    __tablename__ = "audit_tile"

    log_id: str = Field(primary_key=True)
    level: int = Field(primary_key=True)
    n: int = Field(primary_key=True, sa_type=BigInteger)
    width: int
    data: bytes = octets()


class HeadRow(Row, table=True):
    """Where the log ends.  Moved only by compare-and-set on (size, epoch), so a zombie sequencer writes nothing."""

    __tablename__ = "audit_head"

    log_id: str = Field(primary_key=True)
    size: int = Field(sa_type=BigInteger)
    frontier: bytes = octets()
    root: bytes = octets()
    last_ms: int = Field(sa_type=BigInteger)
    epoch: int


class CheckpointRow(Row, table=True):
    """A signed checkpoint."""

    __tablename__ = "audit_checkpoint"
    __table_args__ = (Index("ix_audit_checkpoint_at", "at"),)

    log_id: str = Field(primary_key=True)
    size: int = Field(primary_key=True, sa_type=BigInteger)
    note: bytes = octets()
    at: datetime = instant()


class CosignatureRow(Row, table=True):
    """A witness's line over a checkpoint: the newest, by which its age is told, and the first that was handed in."""

    __tablename__ = "audit_cosig"
    __table_args__ = (Index("ix_audit_cosig_log_id_witness_size", "log_id", "witness", "size"),)

    log_id: str = Field(primary_key=True)
    size: int = Field(primary_key=True, sa_type=BigInteger)
    witness: str = Field(primary_key=True)
    t_s: int = Field(sa_type=BigInteger)
    line: str
    first_t_s: int = Field(sa_type=BigInteger)
    first_line: str


class FlagRow(Row, table=True):
    """An event that a rule or a person flagged for review: once a rule."""

    __tablename__ = "audit_flag"
    __table_args__ = (
        UniqueConstraint("event_id", "rule"),
        Index("ix_audit_flag_raised_at", "raised_at"),
    )

    id: str = Field(primary_key=True)
    event_id: str = Field(index=True)
    rule: str
    raised_at: datetime = instant()
    version: int = Field(default=0)  # of the rule; 0 where a person flagged, or the act itself did
    figures: dict[str, int] = json_value(default_factory=dict)  # by which the rule found it
    recorded: str = Field(default="")  # the event that says so; empty where the flagged event itself does


class ReviewRow(Row, table=True):
    """A review of an event that was decided; its note lies in the detail of the event that recorded it."""

    __tablename__ = "audit_review"

    id: str = Field(primary_key=True)
    event_id: str = Field(index=True)
    reviewer: str = Field(index=True)
    decision: str
    at: datetime = instant()
    recorded: str = Field(default="")
    signed_off_by: str | None = Field(default=None)  # who held the second look
    signed_off_at: datetime | None = instant(default=None, nullable=True)
    second: str = Field(default="")  # agreed, sent_back


class BlobRow(Row, table=True):
    """Large detail of an event, encrypted under the event's own key; the event holds a commitment to it."""

    __tablename__ = "audit_blob"

    event_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)  # which: "decision/<source agency>"
    sealed: bytes = octets()


def decisions_since(reading: Reading, since_ms: int) -> list[tuple[str, str]]:
    """The decision receipts sealed beside events since an instant, oldest first: event id and blob name."""
    query = (
        select(BlobRow.event_id, BlobRow.name)
        .join(EventRow, col(EventRow.event_id) == col(BlobRow.event_id))
        .where(col(EventRow.t_ms) >= since_ms, col(BlobRow.name).startswith("decision/"))
        .order_by(col(EventRow.t_ms), col(EventRow.log_id), col(EventRow.seq), col(BlobRow.name))
    )
    return [(event_id, name) for event_id, name in reading.session.exec(query)]
