"""Who witnesses the log, what they have cosigned, and what the log's key has signed that can't be."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, col, func, select

from broker.store.columns import Row, instant, octets
from broker.store.log import CheckpointRow, CosignatureRow
from broker.store.transaction import Reading, Transaction


class WitnessRow(Row, table=True):
    """A witness, as enrolled.  Its cosignatures name it by `id`: the key's name and its id, so that a key may follow
    another under one name."""

    __tablename__ = "audit_witness"
    __table_args__ = (Index("ix_audit_witness_name", "name"),)

    id: str = Field(primary_key=True)  # name+keyid
    name: str
    vkey: str
    organisation: str  # who runs it; not always one that takes part
    enrolled_at: datetime = instant()
    removed_at: datetime | None = instant(default=None, nullable=True)
    late_since: datetime | None = instant(default=None, nullable=True)  # of the lapse that the log tells of


class ConflictRow(Row, table=True):
    """Two notes that one log key signed and that can't both be true: kept whole, for good."""

    __tablename__ = "audit_conflict"

    id: str = Field(primary_key=True)  # SHA-256 of the three lines that were presented
    log_id: str
    size: int = Field(sa_type=BigInteger)
    kind: str  # another_tree, larger_tree
    presented: bytes = octets()
    ours: bytes = octets()
    seen_at: datetime = instant()
    event_id: str = Field(default="")  # empty until the log has taken the event


def enrolled(reading: Reading) -> list[WitnessRow]:
    """The witnesses of today, by name."""
    return reading.all(WitnessRow, order=("name",), removed_at=None)


def enrolled_at(reading: Reading, at: datetime) -> list[WitnessRow]:
    """The witnesses of an instant, by name, whatever became of them since."""
    query = select(WitnessRow).where(
        col(WitnessRow.enrolled_at) <= at,
        col(WitnessRow.removed_at).is_(None) | (col(WitnessRow.removed_at) > at),
    )
    return list(reading.session.exec(query.order_by(col(WitnessRow.name))).all())


def checkpoint_at(reading: Reading, log_id: str, size: int) -> CheckpointRow | None:
    """The checkpoint of a size, if one was signed."""
    return reading.one(CheckpointRow, log_id=log_id, size=size)


def first_after(reading: Reading, log_id: str, size: int) -> CheckpointRow | None:
    """The oldest checkpoint that is larger than `size`."""
    query = (
        select(CheckpointRow)
        .where(col(CheckpointRow.log_id) == log_id, col(CheckpointRow.size) > size)
        .order_by(col(CheckpointRow.size))
        .limit(1)
    )
    return reading.session.exec(query).first()


def newest_cosigned(reading: Reading, log_id: str, witnesses: Collection[str], *, by: int = 1) -> int | None:
    """The largest size that at least `by` of these witnesses have cosigned, or None."""
    query = (
        select(CosignatureRow.size)
        .where(col(CosignatureRow.log_id) == log_id, col(CosignatureRow.witness).in_(witnesses))
        .group_by(col(CosignatureRow.size))
        .having(func.count() >= by)
        .order_by(col(CosignatureRow.size).desc())
        .limit(1)
    )
    return reading.session.exec(query).first()


def cosigned_sizes(reading: Reading, log_id: str) -> Iterator[int]:
    """The sizes that any witness has cosigned, whatever became of it since; the largest first."""
    size = col(CosignatureRow.size)
    query = select(size).where(col(CosignatureRow.log_id) == log_id).distinct().order_by(size.desc())
    return iter(reading.session.exec(query).all())


def cosignatures(reading: Reading, log_id: str, size: int, witnesses: Collection[str]) -> list[CosignatureRow]:
    """The lines of these witnesses over the checkpoint of a size."""
    return reading.all(CosignatureRow, order=("witness",), log_id=log_id, size=size, witness=list(witnesses))


def newest_of(reading: Reading, log_id: str, witness: str) -> CosignatureRow | None:
    """What a witness cosigned last."""
    found = reading.all(CosignatureRow, order=("-size",), limit=1, log_id=log_id, witness=witness)
    return found[0] if found else None


def keep_cosignature(tx: Transaction, row: CosignatureRow) -> bool:
    """Keep a witness's line, or the newer of two over one checkpoint; whether it is a new one.

    Of two that come at once the second waits for the first.
    """
    insert = tx.upsert(CosignatureRow).values(row.model_dump()).on_conflict_do_nothing()
    if tx.connection.execute(insert.returning(col(CosignatureRow.size))).first() is not None:
        return True
    (held,) = tx.locked(CosignatureRow, log_id=row.log_id, size=row.size, witness=row.witness)
    if row.t_s > held.t_s:
        held.t_s, held.line = row.t_s, row.line
        tx.add(held)
        return True
    return False
