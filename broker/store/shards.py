"""The log's shards: one after the other, each an origin of its own; entries go to the newest."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger
from sqlmodel import Field

from broker.store.columns import Row, instant, json_value, octets
from broker.store.transaction import Reading


class ShardRow(Row, table=True):
    """A shard.  `keys`: each key that signed it, the oldest first: {"vkey", "from", "until"}; a key without `until`
    still signs.  `frozen`: nothing was signed after it was closed, so its newest entries may have no checkpoint.
    """

    __tablename__ = "audit_shard"

    number: int = Field(primary_key=True)
    log_id: str = Field(unique=True)  # the origin
    reason: str  # first, year, compromised, restored
    opened_at: datetime = instant()
    closed_at: datetime | None = instant(default=None, nullable=True)
    frozen: bool = Field(default=False)
    follows: str | None = Field(default=None)  # the shard before, and the checkpoint of it that this one cites
    follows_size: int | None = Field(default=None, sa_type=BigInteger)
    follows_root: bytes | None = octets(default=None, nullable=True)
    keys: list[dict[str, Any]] = json_value()


def current_shard(reading: Reading) -> ShardRow | None:
    """Where entries go now; None before the log was opened."""
    found = reading.all(ShardRow, order=("-number",), limit=1)
    return found[0] if found else None


def every_shard(reading: Reading) -> list[ShardRow]:
    """All of them, the oldest first."""
    return reading.all(ShardRow, order=("number",))


def shard_after(reading: Reading, log_id: str) -> ShardRow | None:
    """The shard that was opened after this one; None for the newest."""
    here = reading.one(ShardRow, log_id=log_id)
    return reading.one(ShardRow, number=here.number + 1) if here is not None else None


def shard_named(reading: Reading, name: str) -> ShardRow | None:
    """The shard whose origin ends in `/name`, or None."""
    return next((shard for shard in every_shard(reading) if shard.log_id.rpartition("/")[2] == name), None)
