"""Items as held: coded facts, sealed under their batch's key."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Index, UniqueConstraint, and_, delete, false, or_
from sqlmodel import Field, col, select

from agreements import Item
from broker.keys import DataKey, Keys
from broker.store.batches import BatchRow
from broker.store.columns import Row, octets
from broker.store.statements import Statement
from broker.store.transaction import Reading, Transaction

if TYPE_CHECKING:  # loaded where a batch is kept: what only asks never waits for it
    import pyarrow as pa

SEALED: Final = (
    "code_system", "code", "number", "ended_on", "role", "regime", "opinion", "outcome_code", "contact_ref", "origin",
)  # fmt: skip
"""What of an item is sealed; the rest are columns, by which items are found and expire."""

KEPT: Final[Mapping[str, str]] = {
    **dict.fromkeys(("record_ref", "item_ref", "category"), "string"),
    **dict.fromkeys(("occurred_on", "recorded_on", "retain_until"), "date32"),
    "sealed": "binary",
}
"""The columns of items on their way into the table, and Arrow's names of their types."""

MANY: Final = 20_000
"""Items from which on the index by record may be made anew for less than adding to it costs."""

_AT_ONCE: Final = 5_000
_SORTED: Final = 1_000_000  # as many are put in order in memory
_SORTED_KB: Final = 160 / 1024  # each; with less room than this SQLite sorts in a temporary file
_ROOM: Final = Statement("SELECT 1", sqlite="PRAGMA cache_size = -65536")
_USUAL: Final = Statement("SELECT 1", sqlite="PRAGMA cache_size = -2000")


_MADE: Final = Statement("SELECT 1", sqlite="SELECT sql FROM sqlite_master WHERE name = 'ix_item_record'")
_NEWEST: Final = Statement("SELECT 1", sqlite="SELECT coalesce(max(id), 0) FROM item")
_LOOKED_AT: Final = Statement("SELECT 1", sqlite="SELECT max(length(sealed)) FROM item NOT INDEXED")
_APART: Final = Statement("SELECT 1", sqlite="DROP INDEX ix_item_record")


class ItemRow(Row, table=True):
    """One coded, dated item of one agency.  What it says is in `sealed`, opened by `keys.open_item`."""

    __tablename__ = "item"
    __table_args__ = (
        UniqueConstraint("agency", "flow", "item_ref"),
        Index("ix_item_record", "agency", "flow", "record_ref"),
    )

    id: int | None = Field(default=None, primary_key=True)
    agency: str  # its batch's
    flow: str
    record_ref: str
    item_ref: str
    category: str
    occurred_on: date | None = Field(default=None)
    recorded_on: date | None = Field(default=None)
    retain_until: date | None = Field(default=None)
    batch: str = Field(foreign_key="batch.id")
    sealed: bytes = octets()  # AES-256-GCM under the batch's key; AAD = agency|batch|item_ref|schema


def kept_schema() -> pa.Schema:
    """Items on their way into the table."""
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in KEPT.items()])


def sealed_items(
    items: pa.RecordBatch, seal: Callable[[Sequence[bytes], Sequence[str]], list[bytes]]
) -> pa.RecordBatch:
    """Wire items as they are kept: what finds them in clear, the rest sealed by `seal` (payloads, item_refs).

    They come in the order of their item_ref: a night's come in none, and a key that is near the last is soon in place.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    items = items.take(pc.sort_indices(items["item_ref"]))
    sealed = seal(_payloads(items), items["item_ref"].to_pylist())
    found = [items[name] for name in KEPT if name != "sealed"]
    return pa.record_batch([*found, pa.array(sealed, pa.binary())], schema=kept_schema())


def _payloads(items: pa.RecordBatch) -> list[bytes]:
    """The payload of each item.  Items are many, and what they say is much the same: each payload is made once."""
    import numpy as np

    said, kinds = np.zeros(items.num_rows, np.int64), 1  # equal where all columns so far are; how many it may be
    for name in SEALED:
        column = items[name].dictionary_encode(null_encoding="encode")
        said = said * len(column.dictionary) + column.indices.to_numpy()
        kinds *= len(column.dictionary)
        if kinds > items.num_rows:
            _, first, said = np.unique(said, return_index=True, return_inverse=True)
            kinds = len(first)
    _, first, said = np.unique(said, return_index=True, return_inverse=True)
    values = zip(*(items[name].take(first).to_pylist() for name in SEALED), strict=True)
    known = np.array([*map(_payload, values)], object)
    payloads: list[bytes] = known[said].tolist()
    return payloads


def _payload(said: Sequence[Any]) -> bytes:
    """The sealed part of a wire item, as JSON in UTF-8; dates in ISO 8601."""
    sealed = {name: value for name, value in zip(SEALED, said, strict=True) if value is not None}
    return json.dumps(sealed, default=date.isoformat, separators=(",", ":"), sort_keys=True).encode()


@contextmanager
def in_bulk(tx: Transaction, count: int) -> Iterator[None]:
    """While so many items go in, and those they replace out, SQLite keeps no index by record: it is made at the end.

    Record_refs come in no order, so that each would go to a place of its own; sorted all at once they take a third of
    the time.  All in this transaction: nobody ever finds the index missing.  Where the items are few beside those that
    are there already, and on PostgreSQL, where others write meanwhile, nothing is done.
    """
    few = not tx.sqlite or count < MANY
    newest = 0 if few else int(tx.run(_NEWEST).scalar())
    if few or newest > 2 * count or newest + count > _SORTED:
        yield
        return
    made = str(tx.run(_MADE).scalar())
    tx.flush()
    tx.run(_APART)
    yield
    tx.run(_USUAL)  # with less room a look at every row has those written that only memory has yet: what is not written
    tx.run(_LOOKED_AT)  # when the index is begun would be copied into a temporary file
    tx.run(Statement("SELECT 1", sqlite=f"PRAGMA cache_size = -{int((newest + count) * _SORTED_KB)}"))
    tx.run(Statement("SELECT 1", sqlite=made))
    tx.run(_USUAL)


def insert_items(tx: Transaction, items: Iterable[pa.RecordBatch], *, agency: str, flow: str, batch: str) -> None:
    """Items of one batch, as `sealed_items` makes them.  Raises Conflict if an item_ref is there already."""
    tx.flush()
    if tx.sqlite:  # the record_refs of a night come in no order: with room for their index it takes half as long
        tx.run(_ROOM)
    tx.copy("item", {"agency": agency, "flow": flow, "batch": batch}, items)
    if tx.sqlite:
        tx.run(_USUAL)


def delete_items(
    tx: Transaction,
    agency: str,
    flow: str,
    *,
    item_refs: Sequence[str] | None = None,
    record_refs: Sequence[str] | None = None,
) -> None:
    """Delete a flow's items: those of these refs, those on these records, or without either all of them."""
    of_flow = delete(ItemRow).where(col(ItemRow.agency) == agency, col(ItemRow.flow) == flow)
    if item_refs is None and record_refs is None:
        tx.session.exec(of_flow)
    for column, refs in ((ItemRow.item_ref, item_refs or ()), (ItemRow.record_ref, record_refs or ())):
        for start in range(0, len(refs), _AT_ONCE):
            tx.session.exec(of_flow.where(col(column).in_(refs[start : start + _AT_ONCE])))


def held_by(
    tx: Reading, records: Collection[tuple[str, str, str]], *, keys: Keys
) -> Mapping[tuple[str, str, str], list[tuple[Item, str | None]]]:
    """By record (agency, flow, record_ref) its items, oldest first, each with its origin where that is another
    organisation.

    One question for any number of records, none included: how many there are shows in no count of questions.  What of
    the items is shown is `render`'s to say, not SQL's.  Raises Undecipherable if a row was moved or altered.
    """
    by_flow: dict[tuple[str, str], list[str]] = defaultdict(list)
    for agency, flow, record_ref in sorted(records):
        by_flow[agency, flow].append(record_ref)
    named = (  # flow by flow: SQLite reads the whole table where a list holds triples
        and_(col(ItemRow.agency) == agency, col(ItemRow.flow) == flow, col(ItemRow.record_ref).in_(refs))
        for (agency, flow), refs in by_flow.items()
    )
    rows = tx.session.exec(
        select(ItemRow, BatchRow.dek_wrapped)
        .join(BatchRow, col(BatchRow.id) == ItemRow.batch)
        .where(or_(false(), *named))
        .order_by(col(ItemRow.occurred_on), col(ItemRow.item_ref))
    ).all()
    held: dict[tuple[str, str, str], list[tuple[Item, str | None]]] = defaultdict(list)
    for row, item, origin in opened_items(rows, keys=keys):
        held[row.agency, row.flow, row.record_ref].append((item, origin))
    return held


def opened_items(rows: Iterable[tuple[ItemRow, bytes]], *, keys: Keys) -> Iterator[tuple[ItemRow, Item, str | None]]:
    """Rows with their batch's wrapped key, opened: row, item, origin where that is another organisation.

    Raises Undecipherable if a row was moved or altered.
    """
    opened: dict[str, DataKey] = {}
    for row, wrapped in rows:
        if row.batch not in opened:
            opened[row.batch] = keys.data_key(wrapped, row.batch)
        body = json.loads(
            opened[row.batch].open_item(row.sealed, agency=row.agency, batch=row.batch, item_ref=row.item_ref)
        )
        yield row, _item(row, body), body.get("origin")


def records_with(tx: Reading, category: str) -> frozenset[tuple[str, str, str]]:
    """The records (agency, flow, record_ref) on which there is any item of a category."""
    columns = (col(ItemRow.agency), col(ItemRow.flow), col(ItemRow.record_ref))
    found = tx.session.exec(select(*columns).where(col(ItemRow.category) == category).distinct())
    return frozenset((agency, flow, ref) for agency, flow, ref in found)


def _item(row: ItemRow, body: Mapping[str, Any]) -> Item:
    if row.occurred_on is None or row.recorded_on is None:
        raise ValueError("an item has both dates: intake refuses it otherwise")
    return Item(
        category=row.category,
        code_system=body.get("code_system", ""),
        code=body.get("code"),
        number=body.get("number"),
        occurred_on=row.occurred_on,
        recorded_on=row.recorded_on,
        ended_on=date.fromisoformat(body["ended_on"]) if "ended_on" in body else None,
        role=body.get("role"),
        regime=body.get("regime", "GENERAL"),
        opinion=body.get("opinion", False),
        outcome_code=body.get("outcome_code"),
        contact=body.get("contact_ref"),
    )


def categories_held(reading: Reading) -> frozenset[str]:
    """The categories of which anything is held."""
    return frozenset(reading.session.exec(select(ItemRow.category).distinct()))
