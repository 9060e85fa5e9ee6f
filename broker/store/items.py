"""Items as held: coded facts, sealed under their batch's key."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field

from broker.store.columns import Row, octets


class ItemRow(Row, table=True):
    """One coded, dated item of one agency.  What it says is in `sealed`, opened by `keys.open_item`."""

    __tablename__ = "item"
    __table_args__ = (
        UniqueConstraint("agency", "flow", "item_ref"),
        Index("ix_item_record", "agency", "flow", "record_ref"),
    )

    id: int | None = Field(default=None, primary_key=True)
    agency: str = Field(foreign_key="agency.id")
    flow: str
    record_ref: str
    item_ref: str
    category: str
    occurred_on: date | None = Field(default=None)
    recorded_on: date | None = Field(default=None)
    retain_until: date | None = Field(default=None)
    batch: str = Field(foreign_key="batch.id", index=True)
    sealed: bytes = octets()  # AES-256-GCM under the batch's key; AAD = agency|batch|item_ref|schema
