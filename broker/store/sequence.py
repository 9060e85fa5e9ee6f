"""The log's own reads and writes: take the outbox, append, move the head; serve tiles and entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, insert, update
from sqlmodel import col, func, select

from audit.events import Leaf
from audit.merkle import HASH_BYTES, Frontier
from audit.sequencer import Advance, Head, Pending, advance
from audit.tiles import ENTRIES, TILE_WIDTH, Tile, TileUnreadable, encode_bundle
from broker.errors import LogUnavailable
from broker.store.log import (
    CheckpointRow,
    EntryRow,
    EventRow,
    HeadRow,
    OutboxRow,
    SubjectRow,
    TileRow,
)
from broker.store.shards import current_shard
from broker.store.transaction import Reading, Transaction

BATCH: Final = 1_000
_TILE_KEY: Final = ("log_id", "level", "n")


@dataclass(frozen=True, slots=True)
class SqlTiles:
    """Hash tiles and entry bundles of one log, read in one transaction."""

    reading: Reading
    log_id: str

    def read(self, tile: Tile) -> bytes:
        """The tile's bytes; a narrower partial tile is the prefix of what is kept.  Raises TileUnreadable."""
        if tile.level == ENTRIES:
            first = tile.index * TILE_WIDTH
            leaves = self.reading.session.exec(
                select(EntryRow.leaf)
                .where(col(EntryRow.log_id) == self.log_id)
                .where(col(EntryRow.seq) >= first, col(EntryRow.seq) < first + tile.width)
                .order_by(col(EntryRow.seq))
            ).all()
            if len(leaves) < tile.width:
                raise TileUnreadable(f"{tile.path} is not here")
            return encode_bundle(leaves)
        kept = self.reading.session.exec(
            select(TileRow.width, TileRow.data).where(
                col(TileRow.log_id) == self.log_id, col(TileRow.level) == tile.level, col(TileRow.n) == tile.index
            )
        ).one_or_none()
        if kept is None or kept[0] < tile.width:
            raise TileUnreadable(f"{tile.path} is not here")
        return kept[1][: tile.width * HASH_BYTES]


def head_of(reading: Reading, log_id: str, *, lock: bool = False) -> Head | None:
    """Where the log ends, or None for a log that has not been opened.  `lock`: until the transaction's end."""
    query = select(HeadRow).where(col(HeadRow.log_id) == log_id).execution_options(populate_existing=True)
    row = reading.session.exec(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        return None
    hashes = tuple(row.frontier[at : at + HASH_BYTES] for at in range(0, len(row.frontier), HASH_BYTES))
    return Head(frontier=Frontier(row.size, hashes), last_ms=row.last_ms, epoch=row.epoch)


def open_log(tx: Transaction, log_id: str, *, last_ms: int = 0) -> None:
    """Make an empty head where there is none; no leaf of it will be earlier than `last_ms`."""
    if head_of(tx, log_id) is None:
        head = Head(last_ms=last_ms)
        tx.add(HeadRow(log_id=log_id, size=0, frontier=b"", root=head.root, last_ms=head.last_ms, epoch=head.epoch))
        tx.flush()


def lock_newest(tx: Transaction) -> tuple[str, Head]:
    """The shard that entries go to, and its head, locked until the transaction's end.  Raises LogUnavailable."""
    while True:
        shard = current_shard(tx)
        head = head_of(tx, shard.log_id, lock=True) if shard is not None else None
        if shard is None or head is None:
            raise LogUnavailable("the log has not been opened: run `broker migrate`")
        newest = current_shard(tx)  # while we waited for the lock, another process may have begun the next
        if newest is not None and newest.log_id == shard.log_id:
            return shard.log_id, head


def sequence(tx: Transaction, *, limit: int = BATCH, only: str | None = None) -> Advance | None:
    """Move what waits in the outbox into the newest shard: entries, bodies, tiles and head in this transaction.

    `only`: that event alone.  None if nothing waits.  Raises LogUnavailable if the head was moved by another sequencer
    meanwhile, and audit.sequencer.HeadDisagrees if the stored tiles are not the head's.
    """
    log_id, head = lock_newest(tx)  # SQLite: the whole transaction is exclusive already
    query = select(OutboxRow).order_by(col(OutboxRow.position)).limit(limit)
    waiting = tx.session.exec(query if only is None else query.where(col(OutboxRow.event_id) == only)).all()
    if not waiting:
        return None
    pending = [Pending(row.event_id, Leaf(row.at_ms, row.commitment)) for row in waiting]
    step = advance(head, pending, SqlTiles(tx, log_id))
    write(tx, log_id, step, {row.event_id: row for row in waiting})
    return step


def entry_of(reading: Reading, event_id: str) -> EntryRow | None:
    """An event's place in the log, or None while it has none."""
    return reading.one(EntryRow, event_id=event_id)


def newest_checkpoint(reading: Reading, log_id: str) -> CheckpointRow | None:
    """The newest signed checkpoint, or None."""
    found = reading.all(CheckpointRow, log_id=log_id, order=("-size",), limit=1)
    return found[0] if found else None


def checkpoint_of(reading: Reading, log_id: str, seq: int) -> CheckpointRow | None:
    """The first signed checkpoint that covers an entry, or None while none does."""
    query = select(CheckpointRow).where(col(CheckpointRow.log_id) == log_id, col(CheckpointRow.size) > seq)
    return reading.session.exec(query.order_by(col(CheckpointRow.size)).limit(1)).one_or_none()


def keep_checkpoint(tx: Transaction, log_id: str, size: int, note: bytes, *, at: datetime) -> None:
    """Store a signed checkpoint; one that is there already stays."""
    kept = tx.upsert(CheckpointRow).values(log_id=log_id, size=size, note=note, at=at)
    tx.session.connection().execute(kept.on_conflict_do_nothing())


def waiting(reading: Reading) -> int:
    """How many events wait to be sequenced."""
    return reading.session.exec(select(func.count()).select_from(OutboxRow)).one()


def write(tx: Transaction, log_id: str, step: Advance, rows: Mapping[str, OutboxRow]) -> None:
    """Store one step of the log; of an entry without a row only the leaf, as its body is lost.

    Raises LogUnavailable or Conflict if the head is not the one it was computed from.
    """
    session, (size, epoch) = tx.session, step.expects
    entries, events, subjects, taken = [], [], [], []
    for entry in step.entries:
        entries.append(
            {"log_id": log_id, "seq": entry.index, "leaf": entry.leaf.text, "leaf_hash": entry.leaf_hash,
             "event_id": entry.event_id}
        )  # fmt: skip
        row = rows.get(entry.event_id)
        if row is None:
            continue
        taken.append(row.position)
        events.append(
            {"event_id": entry.event_id, "log_id": log_id, "seq": entry.index, "t_ms": entry.leaf.at_ms,
             "sections": row.sections, "detail": row.detail, **row.columns}
        )  # fmt: skip
        subjects += [{"idx_hmac": idx, "log_id": log_id, "seq": entry.index} for idx in dict.fromkeys(row.subjects)]
    session.exec(delete(OutboxRow).where(col(OutboxRow.position).in_(taken)))
    session.exec(insert(EntryRow), params=entries)
    if events:
        session.exec(insert(EventRow), params=events)
    if subjects:
        session.exec(insert(SubjectRow), params=subjects)
    tiles = [
        {"log_id": log_id, "level": tile.level, "n": tile.index, "width": tile.width, "data": data}
        for tile, data in step.tiles
    ]
    if tiles:
        widened = tx.upsert(TileRow)
        changed = {"width": widened.excluded.width, "data": widened.excluded.data}
        session.connection().execute(widened.on_conflict_do_update(index_elements=_TILE_KEY, set_=changed), tiles)
    moved = session.exec(
        update(HeadRow)
        .where(col(HeadRow.log_id) == log_id, col(HeadRow.size) == size, col(HeadRow.epoch) == epoch)
        .values(
            size=step.head.size, root=step.head.root, last_ms=step.head.last_ms,
            frontier=b"".join(step.head.frontier.hashes),
        )
    )  # fmt: skip
    if moved.rowcount != 1:
        raise LogUnavailable("another sequencer has moved the head")
