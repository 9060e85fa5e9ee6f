"""What was erased, what may not be, what may be linked again, and what two people have still to agree on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, json_value, octets
from broker.store.event_keys import AT_ONCE
from broker.store.statements import Statement
from broker.store.transaction import Reading, Transaction

T = TypeVar("T")


_TAKING_IN: Final = 0x7367_6572  # a lock of PostgreSQL's by number; no other part of the broker takes one
_SHARED: Final = Statement(f"SELECT CAST(pg_advisory_xact_lock_shared({_TAKING_IN}) AS text)", sqlite="SELECT 1")
_ALONE: Final = Statement(f"SELECT CAST(pg_advisory_xact_lock({_TAKING_IN}) AS text)", sqlite="SELECT 1")


def hold_erasures(tx: Transaction) -> None:
    """Until this transaction ends nobody is erased: for whoever takes in rows, before it asks who was erased.

    Without it, of a batch and an erasure at the same moment neither would see the other's rows, and what the batch
    brought of the subject would stay.  On SQLite one transaction writes at a time.
    """
    tx.run(_SHARED).one_or_none()


def hold_batches(tx: Transaction) -> None:
    """Until this transaction ends nothing is taken in; waits for what is.  For an erasure, before anything else."""
    tx.run(_ALONE).one_or_none()


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


class LiftRow(Row, table=True):
    """That an id which was erased may be linked again.  `state`: proposed, refused, lifted.  Tombstones stay."""

    __tablename__ = "audit_lift"

    id: str = Field(primary_key=True)
    idx_hmac: str = Field(primary_key=True)
    state: str = Field(index=True)
    reason: str
    proposed_by: str
    proposed_at: datetime = instant()
    decided_by: str = Field(default="")
    decided_at: datetime | None = instant(default=None, nullable=True)
    refused: str = Field(default="")  # why it was: a code
    event_id: str


UNSEEN: Final = timedelta(hours=1)  # so far back an erasure is looked for that was committed after it was dated


@dataclass(frozen=True, slots=True)
class Barred:
    """Which ids were erased when, and since when each may be linked again: both by HMAC, oldest first."""

    erased: Mapping[str, Sequence[datetime]]
    lifted: Mapping[str, Sequence[datetime]]

    @classmethod
    def of(cls, reading: Reading) -> Barred:
        """As it stands now."""
        erased: dict[str, list[datetime]] = {}
        lifted: dict[str, list[datetime]] = {}
        for row in tombstones(reading):
            erased.setdefault(row.idx_hmac, []).append(row.at)
        for lift in reading.all(LiftRow, state="lifted", order=["decided_at", "id"]):
            assert lift.decided_at is not None
            lifted.setdefault(lift.idx_hmac, []).append(lift.decided_at)
        return cls(erased, lifted)

    def __bool__(self) -> bool:
        return bool(self.erased)

    def out(self, index: str, taken_in: datetime) -> bool:
        """Whether what was taken in then of an id is left out: it was erased, and no lift came between the two."""
        if index not in self.erased:
            return False
        last = self.erased[index][-1]
        return not any(last <= at <= taken_in for at in self.lifted.get(index, ()))

    def since(self, at: datetime) -> frozenset[str]:
        """What was erased since an instant, lifted or not; and shortly before it, unless that was lifted.

        An erasure is dated before it is committed: one that a night did not see yet may be dated before its beginning.
        """
        return frozenset(
            index
            for index, times in self.erased.items()
            if times[-1] >= at
            or (times[-1] >= at - UNSEEN and not any(lift >= times[-1] for lift in self.lifted.get(index, ())))
        )

    def lifts(self, until: datetime) -> tuple[str, ...]:
        """The lifts until an instant, each by its own: what was left out before may come in after."""
        return tuple(sorted({at.isoformat() for times in self.lifted.values() for at in times if at <= until}))


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
