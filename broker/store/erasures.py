"""What was erased, what may not be, and what two people have still to agree on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, json_value, octets
from broker.store.event_keys import AT_ONCE
from broker.store.transaction import Reading

T = TypeVar("T")


class HoldRow(Row, table=True):
    """A legal hold on one of the ids of a subject: nothing of it is erased, and nothing of it expires."""

    __tablename__ = "audit_hold"

    id: str = Field(primary_key=True)
    idx_hmac: str = Field(primary_key=True, index=True)
    reason: str
    set_by: str
    set_at: datetime = instant()
    lifted_by: str = Field(default="")
    lifted_at: datetime | None = instant(default=None, nullable=True)
    event_id: str


class ErasureRow(Row, table=True):
    """An erasure.  `state`: proposed, refused, erased.  The ids of the subject are sealed here until it is decided."""

    __tablename__ = "audit_erasure"

    id: str = Field(primary_key=True)
    state: str = Field(index=True)
    authority: str
    sealed: bytes | None = octets(default=None, nullable=True)
    key_wrapped: bytes | None = octets(default=None, nullable=True)
    proposed_by: str
    proposed_at: datetime = instant()
    decided_by: str = Field(default="")
    decided_at: datetime | None = instant(default=None, nullable=True)
    reason: str = Field(default="")  # why it was refused: a code
    counts: dict[str, Any] = json_value()
    event_id: str


class TombstoneRow(Row, table=True):
    """That an id was erased, by its HMAC.  Kept in a file outside the database too, which outlives a restore."""

    __tablename__ = "audit_tombstone"

    erasure: str = Field(primary_key=True)
    idx_hmac: str = Field(primary_key=True)
    at: datetime = instant()


def held(reading: Reading, indexes: Collection[str]) -> list[HoldRow]:
    """The holds that lie on any of these ids now, oldest first."""
    found: list[HoldRow] = []
    for some in parts(indexes):
        query = select(HoldRow).where(col(HoldRow.idx_hmac).in_(some), col(HoldRow.lifted_at).is_(None))
        found += reading.session.exec(query)
    return sorted(found, key=lambda row: (row.set_at, row.id, row.idx_hmac))


def tombstones(reading: Reading) -> Sequence[TombstoneRow]:
    """Every tombstone, oldest first."""
    return reading.all(TombstoneRow, order=["at", "erasure", "idx_hmac"])


def parts(values: Iterable[T]) -> Iterator[list[T]]:
    """So many values at a time as one question takes, in order."""
    listed = sorted(values)  # type: ignore[type-var]  # strings, numbers and tuples of both
    for start in range(0, len(listed), AT_ONCE):
        yield listed[start : start + AT_ONCE]
