"""Epochs of the linkage key: the one in service, one that is being prepared, and those before."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Index, text, update
from sqlmodel import Field, col

from broker.store.batches import BatchRow
from broker.store.columns import Row, instant, json_value
from broker.store.transaction import Transaction


class EpochRow(Row, table=True):
    """An epoch as it was opened.  `state`: prepared, in_service, held, stopped, dropped.

    At most one is prepared, one in service and one held.  `held` says which segments hold the encodings of an epoch
    that was in service, so that its return is possible; of one that is prepared nothing is linked before its flip.
    """

    __tablename__ = "key_epoch"
    __table_args__ = tuple(
        Index(
            f"uq_key_epoch_{state}", "state", unique=True, sqlite_where=text(f"state = '{state}'"),
            postgresql_where=text(f"state = '{state}'"),
        )
        for state in ("prepared", "in_service", "held")
    )  # fmt: skip

    name: str = Field(primary_key=True)
    state: str
    fingerprint: str
    canaries: list[str] = json_value()
    opened_by: str
    opened_at: datetime = instant()
    report: dict[str, Any] | None = json_value(default=None, nullable=True)  # of the last `link`: numbers and codes
    proposed_by: str = Field(default="")  # who would flip to it
    proposed_at: datetime | None = instant(default=None, nullable=True)
    flipped_by: str = Field(default="")
    in_service_from: datetime | None = instant(default=None, nullable=True)
    ended_at: datetime | None = instant(default=None, nullable=True)
    held_until: datetime | None = instant(default=None, nullable=True)
    held: dict[str, Any] | None = json_value(default=None, nullable=True)  # segments, counts, flows, since


def supersede_but(tx: Transaction, batches: Collection[str]) -> None:
    """Say of every batch that is taken in, or in service, that it is not any more, but for these."""
    tx.flush()
    tx.session.connection().execute(
        update(BatchRow)
        .where(col(BatchRow.state).in_(("accepted", "linked")), col(BatchRow.id).not_in(sorted(batches)))
        .values(state="superseded")
    )
