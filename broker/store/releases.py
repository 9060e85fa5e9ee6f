"""Planning statistics as released, and the ledger that each new release is held against."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Index, UniqueConstraint, func
from sqlmodel import Field, col, select

from agreements import Item
from agreements.statistics import Counted
from broker.keys import Keys
from broker.store.batches import BatchRow
from broker.store.columns import Row, instant, json_value, octets
from broker.store.items import ItemRow, opened_items
from broker.store.transaction import Reading

Record = tuple[str, str, str]
"""Agency, flow, record_ref."""


class ReleaseRow(Row, table=True):
    """One table of one quarter for one organisation.  Its figures never change: who asks again gets the same.

    `state`: prepared (waits for a second person), approved, rejected, withheld (nothing could be published).  `asked`
    is the table asked for, `published_as` what could be published.  `sealed`: whose children were counted, and the
    counts before anything was hidden: the ledger's, opened for nothing else.
    """

    __tablename__ = "statistics_release"
    __table_args__ = (
        UniqueConstraint("organisation", "asked", "period", "attempt"),
        Index("ix_statistics_release_organisation_prepared_at", "organisation", "prepared_at"),
    )

    id: str = Field(primary_key=True)
    organisation: str
    asked: str
    period: str
    attempt: int  # grows when one is rejected
    published_as: str
    catalogue: str
    run: str
    state: str
    terms: dict[str, Any] = json_value()
    figures: list[Any] = json_value()
    feeds: list[Any] = json_value()
    sealed: bytes = octets()
    key_wrapped: bytes = octets()
    prepared_by: str
    prepared_at: datetime = instant()
    checked_by: str = Field(default="")
    checked_at: datetime | None = instant(default=None, nullable=True)
    reason: str = Field(default="")  # why it was rejected or withheld: a code
    event_id: str


def seal_counted(keys: Keys, counted: Counted) -> tuple[bytes, bytes]:
    """What the ledger keeps of a release, and its key, wrapped."""
    body = {"members": sorted(counted.members), "counts": counted.counts.tolist(), "axes": list(counted.dimensions)}
    key, wrapped = keys.new_data_key(counted.release)
    return key.seal(zlib.compress(json.dumps(body).encode()), bound_to=_place(counted.release)), wrapped


def open_counted(keys: Keys, row: ReleaseRow) -> Counted:
    """What `seal_counted` sealed.  Raises Undecipherable if the row was altered or moved."""
    plain = keys.data_key(row.key_wrapped, row.id).open(row.sealed, bound_to=_place(row.id))
    body = json.loads(zlib.decompress(plain))
    return Counted(
        release=row.id, period=row.period, dimensions=tuple(body["axes"]),
        counts=np.array(body["counts"], dtype=np.int64), members=frozenset(body["members"]),
    )  # fmt: skip


def prepared_since(tx: Reading, *, organisation: str, since: datetime) -> int:
    """How many releases an organisation has had prepared since an instant, withheld ones included."""
    query = (
        select(func.count())
        .select_from(ReleaseRow)
        .where(col(ReleaseRow.organisation) == organisation, col(ReleaseRow.prepared_at) >= since)
    )
    return int(tx.session.exec(query).one())


def items_in(tx: Reading, categories: Iterable[str], *, keys: Keys) -> dict[Record, list[tuple[Item, str | None]]]:
    """Every item of some categories, by record, each with its origin where that is another organisation.

    Which of them may be counted is not SQL's to say.  Raises Undecipherable.
    """
    rows = tx.session.exec(
        select(ItemRow, BatchRow.dek_wrapped)
        .join(BatchRow, col(BatchRow.id) == ItemRow.batch)
        .where(col(ItemRow.category).in_(sorted(categories)))
        .order_by(col(ItemRow.occurred_on), col(ItemRow.item_ref))
    )
    found: dict[Record, list[tuple[Item, str | None]]] = defaultdict(list)
    for row, item, origin in opened_items(rows, keys=keys):
        found[row.agency, row.flow, row.record_ref].append((item, origin))
    return found


def _place(release: str) -> bytes:
    return f"release-1|{release}".encode()
