"""Link runs and the one pointer that says which of them is in service."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import CheckConstraint
from sqlmodel import Field

from broker.store.columns import Row, instant, json_value


class LinkRunRow(Row, table=True):
    """One run of `broker nightly`.  `state`: running, built, published, failed, retired."""

    __tablename__ = "link_run"

    id: str = Field(primary_key=True)
    night: date = Field(index=True)
    state: str
    stage: str = Field(default="")
    previous: str | None = Field(default=None)
    segments: dict[str, str] = json_value()  # persons, relationships, clusters, family, pairs -> segment id
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
