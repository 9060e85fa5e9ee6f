"""What a holder is to be told at its gateway."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from broker.store.columns import Row, instant, octets


class NoticeRow(Row, table=True):
    """A notice for one agency.  `sealed` is encrypted like an event's detail; it goes out on its schedule."""

    __tablename__ = "notice"

    id: str = Field(primary_key=True)
    agency: str = Field(foreign_key="agency.id", index=True)
    kind: str
    sealed: bytes = octets()
    created_at: datetime = instant()
    due_at: datetime = instant(index=True)
    logged_at: datetime | None = instant(default=None, nullable=True)
    collected_at: datetime | None = instant(default=None, nullable=True)
