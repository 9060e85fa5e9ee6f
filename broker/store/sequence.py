"""The log's own reads and writes: take the outbox, append, move the head; serve tiles and entries."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row as RowOf
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, func, select

from audit.events import Leaf
from audit.merkle import HASH_BYTES, Frontier
from audit.sequencer import Advance, Entry, Head, Pending, advance
from audit.tiles import ENTRIES, TILE_WIDTH, Tile, TileUnreadable, encode_bundle
from broker.errors import Conflict, LogUnavailable
from broker.keys import Keys
from broker.store.event_keys import FreshKey, keep_event_keys
from broker.store.log import CheckpointRow, EntryRow, HeadRow, OutboxRow
from broker.store.outbox import Written, keep_blobs
from broker.store.statements import Rows, Statement
from broker.store.transaction import Reading, Transaction

BATCH: Final = 1_000
_LEAVES: Final = Statement(
    "SELECT leaf FROM audit_entry WHERE log_id = :log_id AND seq BETWEEN :first AND :last ORDER BY seq"
)
_TILE_AT: Final = Statement("SELECT width, data FROM audit_tile WHERE log_id = :log_id AND level = :level AND n = :n")
_NEWEST: Final = Statement("SELECT log_id FROM audit_shard ORDER BY number DESC LIMIT 1")
_HEAD_OF: Final = "SELECT size, frontier, last_ms, epoch FROM audit_head WHERE log_id = :log_id"
_HEAD: Final = Statement(_HEAD_OF)
_HEAD_LOCKED: Final = Statement(f"{_HEAD_OF} FOR UPDATE", sqlite=_HEAD_OF)
_WAITING: Final = Statement(
    "SELECT position, event_id, at_ms, commitment, key_wrapped, sole FROM audit_outbox ORDER BY position LIMIT :limit"
)
_WAITING_ONLY: Final = Statement(
    "SELECT position, event_id, at_ms, commitment, key_wrapped, sole FROM audit_outbox "
    "WHERE event_id = :only LIMIT :limit"
)
_ENTRIES: Final = Rows(
    "audit_entry", {"log_id": "text", "seq": "bigint", "leaf": "bytea", "leaf_hash": "bytea", "event_id": "text"}
)
_EVENTS: Final = Rows(
    "audit_event",
    {
        "event_id": "text", "log_id": "text", "seq": "bigint", "t_ms": "bigint", "type": "text", "op": "text",
        "org": "text", "actor_ref": "text", "role": "text", "purpose": "text", "case_hmac": "text", "outcome": "text",
        "break_glass": "boolean", "sections": "bytea", "detail": "bytea",
    },
)  # fmt: skip
_SUBJECTS: Final = Rows("audit_subject", {"idx_hmac": "text", "log_id": "text", "seq": "bigint"})
_TILES: Final = Rows(
    "audit_tile",
    {"log_id": "text", "level": "integer", "n": "bigint", "width": "integer", "data": "bytea"},
    "ON CONFLICT (log_id, level, n) DO UPDATE SET width = excluded.width, data = excluded.data",
)
_MOVE_HEAD: Final = Statement("""
    UPDATE audit_head SET size = :size, root = :root, last_ms = :last_ms, frontier = :frontier
    WHERE log_id = :log_id AND size = :old_size AND epoch = :epoch
""")

# The bodies of what waits never leave the database: it is told the place of each, and moves them itself.
_PLACES: Final = "jsonb_to_recordset(CAST(:places AS jsonb)) AS p (place bigint, seq bigint, t_ms bigint)"
_PLACES_SQLITE: Final = """(
    SELECT json_extract(value, '$.place') AS place, json_extract(value, '$.seq') AS seq,
        json_extract(value, '$.t_ms') AS t_ms
    FROM json_each(:places)
) AS p"""
_EVENTS_OF: Final = """
    INSERT INTO audit_event (
        event_id, log_id, seq, t_ms, type, op, org, actor_ref, role, purpose, case_hmac, outcome, break_glass,
        sections, detail
    )
    SELECT o.event_id, :log_id, p.seq, p.t_ms, o.columns->>'type', o.columns->>'op', o.columns->>'org',
        o.columns->>'actor_ref', o.columns->>'role', o.columns->>'purpose', o.columns->>'case_hmac',
        o.columns->>'outcome', CAST(o.columns->>'break_glass' AS boolean), o.sections, o.detail
    FROM {places} JOIN audit_outbox o ON o.position = p.place
"""
_SUBJECTS_OF: Final = """
    INSERT INTO audit_subject (idx_hmac, log_id, seq)
    SELECT DISTINCT s.value, :log_id, p.seq
    FROM {places} JOIN audit_outbox o ON o.position = p.place CROSS JOIN {each}(o.subjects) AS s
"""
_TAKEN: Final = "DELETE FROM audit_outbox WHERE position IN (SELECT p.place FROM {places})"
_MOVE_EVENTS: Final = Statement(_EVENTS_OF.format(places=_PLACES), sqlite=_EVENTS_OF.format(places=_PLACES_SQLITE))
_MOVE_SUBJECTS: Final = Statement(
    _SUBJECTS_OF.format(places=_PLACES, each="jsonb_array_elements_text"),
    sqlite=_SUBJECTS_OF.format(places=_PLACES_SQLITE, each="json_each"),
)
_MOVED: Final = Statement(_TAKEN.format(places=_PLACES), sqlite=_TAKEN.format(places=_PLACES_SQLITE))


@dataclass(frozen=True, slots=True)
class SqlTiles:
    """Hash tiles and entry bundles of one log, read in one transaction."""

    reading: Reading
    log_id: str

    def read(self, tile: Tile) -> bytes:
        """The tile's bytes; a narrower partial tile is the prefix of what is kept.  Raises TileUnreadable."""
        if tile.level == ENTRIES:
            first = tile.index * TILE_WIDTH
            found = _LEAVES.run(self.reading.connection, log_id=self.log_id, first=first, last=first + tile.width - 1)
            leaves: list[bytes] = list(found.scalars())
            if len(leaves) < tile.width:
                raise TileUnreadable(f"{tile.path} is not here")
            return encode_bundle(leaves)
        kept = _TILE_AT.run(self.reading.connection, log_id=self.log_id, level=tile.level, n=tile.index).one_or_none()
        if kept is None or kept.width < tile.width:
            raise TileUnreadable(f"{tile.path} is not here")
        data: bytes = kept.data
        return data[: tile.width * HASH_BYTES]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction added to a shard, and where the shard ends now."""

    log_id: str
    head: Head
    entries: tuple[Entry, ...] = ()
    tiles: tuple[tuple[Tile, bytes], ...] = ()


def head_of(reading: Reading, log_id: str, *, lock: bool = False) -> Head | None:
    """Where the log ends, or None for a log that has not been opened.  `lock`: until the transaction's end."""
    row = (_HEAD_LOCKED if lock else _HEAD).run(reading.connection, log_id=log_id).one_or_none()
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
        shard = _NEWEST.run(tx.connection).scalar()
        head = head_of(tx, shard, lock=True) if shard is not None else None
        if shard is None or head is None:
            raise LogUnavailable("the log has not been opened: run `broker migrate`")
        if _NEWEST.run(tx.connection).scalar() == shard:
            return shard, head  # while we waited for the lock, another process may have begun the next


def sequence(
    tx: Transaction, keys: Keys, *, limit: int = BATCH, only: str | None = None, lone: Sequence[Written] = ()
) -> Batch:
    """Move what waits in the outbox into the newest shard: entries, bodies, keys, tiles and head in this transaction.

    `only`: that event alone.  `lone`: events that are alone in their transaction, which is then this one; they come
    after the others.  Raises Conflict if one of `lone` is there already, LogUnavailable if the head was moved by
    another sequencer meanwhile, and audit.sequencer.HeadDisagrees if the stored tiles are not the head's.
    """
    log_id, head = lock_newest(tx)  # SQLite: the whole transaction is exclusive already
    waiting = (_WAITING if only is None else _WAITING_ONLY).run(tx.connection, limit=limit, only=only).all()
    if not waiting and not lone:
        return Batch(log_id, head)
    pending = [Pending(row.event_id, Leaf(row.at_ms, row.commitment)) for row in waiting]
    pending += [Pending(one.event_id, one.leaf) for one in lone]
    step = advance(head, pending, SqlTiles(tx, log_id))
    keep_event_keys(tx, keys, [*waiting_keys(keys, waiting), *(one.key for one in lone)])
    keep_blobs(tx, lone)
    write(tx, log_id, step, {row.event_id: row.position for row in waiting}, {one.event_id: one for one in lone})
    return Batch(log_id, step.head, step.entries, step.tiles)


def waiting_keys(keys: Keys, rows: Iterable[OutboxRow | RowOf[Any]]) -> list[FreshKey]:
    """The keys of events that wait, to be kept by whoever moves them."""
    return [
        FreshKey(row.event_id, keys.data_key(row.key_wrapped, row.event_id), row.sole)
        for row in rows
        if row.key_wrapped is not None
    ]


def entry_of(reading: Reading, event_id: str) -> EntryRow | None:
    """An event's place in the log, or None while it has none."""
    return reading.one(EntryRow, event_id=event_id)


def places_of(reading: Reading, event_ids: Collection[str]) -> dict[str, list[EntryRow]]:
    """Where those of these events stand that have a place, by shard."""
    found: dict[str, list[EntryRow]] = {}
    for row in reading.all(EntryRow, event_id=list(event_ids)):
        found.setdefault(row.log_id, []).append(row)
    return found


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
    tx.connection.execute(kept.on_conflict_do_nothing())


def waiting(reading: Reading) -> int:
    """How many events wait to be sequenced."""
    return reading.session.exec(select(func.count()).select_from(OutboxRow)).one()


def write(
    tx: Transaction, log_id: str, step: Advance, positions: Mapping[str, int],
    lone: Mapping[str, Written] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Store one step of the log.  An entry's body is moved from its position in the outbox, or is that of `lone`.

    Of an entry with neither only the leaf, as its body is lost.  Raises LogUnavailable or Conflict if the head is not
    the one it was computed from.
    """
    connection, (size, epoch) = tx.connection, step.expects
    entries, events, subjects, placed = [], [], [], []
    for entry in step.entries:
        here = {"log_id": log_id, "seq": entry.index}
        entries.append({**here, "leaf": entry.leaf.text, "leaf_hash": entry.leaf_hash, "event_id": entry.event_id})
        if entry.event_id in positions:
            placed.append({"place": positions[entry.event_id], "seq": entry.index, "t_ms": entry.leaf.at_ms})
        elif (body := lone.get(entry.event_id)) is not None:
            events.append(
                {**here, "event_id": entry.event_id, "t_ms": entry.leaf.at_ms, "sections": body.sections,
                 "detail": body.detail, **body.columns}
            )  # fmt: skip
            subjects += [{**here, "idx_hmac": index} for index in body.subjects]
    try:
        _ENTRIES.insert(connection, entries)
        if placed:
            places = json.dumps(placed)
            _MOVE_EVENTS.run(connection, log_id=log_id, places=places)
            _MOVE_SUBJECTS.run(connection, log_id=log_id, places=places)
            _MOVED.run(connection, places=places)
        _EVENTS.insert(connection, events)
        _SUBJECTS.insert(connection, subjects)
    except IntegrityError:
        raise Conflict("a row with this key is there already") from None
    _TILES.insert(
        connection,
        [
            {"log_id": log_id, "level": tile.level, "n": tile.index, "width": tile.width, "data": data}
            for tile, data in step.tiles
        ],
    )
    moved = _MOVE_HEAD.run(
        connection, log_id=log_id, old_size=size, epoch=epoch, size=step.head.size, root=step.head.root,
        last_ms=step.head.last_ms, frontier=b"".join(step.head.frontier.hashes),
    )  # fmt: skip
    if moved.rowcount != 1:
        raise LogUnavailable("another sequencer has moved the head")
