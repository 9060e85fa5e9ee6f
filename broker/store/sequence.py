"""The log's own reads and writes: take the outbox, append, move the head; serve tiles and entries."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, func, select

from audit.events import Leaf
from audit.merkle import HASH_BYTES, Frontier
from audit.sequencer import Advance, Entry, Head, Pending, advance
from audit.tiles import ENTRIES, MAX_LEVEL, TILE_HEIGHT, TILE_WIDTH, Tile, TileUnreadable, encode_bundle
from broker.errors import Conflict, EventStuck, LogUnavailable, Undecipherable
from broker.keys import DataKey, Keys
from broker.store.columns import instant_told
from broker.store.event_keys import FreshKey, event_keys_kept, subject_keys
from broker.store.log import CheckpointRow, EntryRow, HeadRow, OutboxRow
from broker.store.outbox import Written, keep_blobs
from broker.store.statements import ANY_OF, ANY_OF_SQLITE, Answer, Asked, Rows, Statement, texts
from broker.store.transaction import Reading, Transaction
from broker.store.wire import Array

BATCH: Final = 1_000
_LEAVES: Final = Statement(
    "SELECT leaf FROM audit_entry WHERE log_id = :log_id AND seq BETWEEN :first AND :last ORDER BY seq"
)
_TILE_AT: Final = Statement("SELECT width, data FROM audit_tile WHERE log_id = :log_id AND level = :level AND n = :n")
_NEWEST_SHARD: Final = "SELECT log_id FROM audit_shard ORDER BY number DESC LIMIT 1"
_NEWEST: Final = Statement(_NEWEST_SHARD)
_HEAD_OF: Final = "SELECT log_id, size, frontier, last_ms, epoch FROM audit_head WHERE log_id = "
_HEAD: Final = Statement(f"{_HEAD_OF} :log_id")
_NEWEST_HEAD: Final = f"{_HEAD_OF} ({_NEWEST_SHARD})"
_LOCKED: Final = Statement(f"{_NEWEST_HEAD} FOR UPDATE", sqlite=_NEWEST_HEAD)
_EDGE_OF: Final = """
    WITH h AS ({head}), l (level) AS (VALUES {levels})
    SELECT t.log_id, t.level, t.n, t.data FROM h CROSS JOIN l {tiles}
"""
_TILE_OF: Final = "t.log_id = h.log_id AND t.level = l.level AND t.n = (h.size >> ({height} * (l.level + 1)))"
_LEVELS: Final = ", ".join(f"({level})" for level in range(MAX_LEVEL + 1))
_EDGE, _EDGE_SQLITE = (
    _EDGE_OF.format(head=_NEWEST_HEAD, levels=_LEVELS, tiles=tiles.format(_TILE_OF.format(height=TILE_HEIGHT)))
    for tiles in ("CROSS JOIN LATERAL (SELECT * FROM audit_tile t WHERE {} LIMIT 1) AS t", "JOIN audit_tile t ON {}")
)
_RIGHT_EDGE: Final = Statement(_EDGE, sqlite=_EDGE_SQLITE)  # however many tiles there are, one of each level is read
_WHAT_WAITS: Final = """
    SELECT o.position, o.event_id, o.at_ms, o.commitment, o.key_wrapped, o.sole, k.wrapped AS subject_key
    FROM audit_outbox o LEFT JOIN audit_subject_key k ON k.idx_hmac = o.sole
"""
_WAITING: Final = Statement(f"{_WHAT_WAITS} ORDER BY o.position LIMIT :limit")
_WAITING_ONLY: Final = Statement(f"{_WHAT_WAITS} WHERE o.event_id = :only")
_ENTRIES_OF: Final = "SELECT log_id, seq, leaf, event_id FROM audit_entry WHERE event_id"
_ENTRIES_OF_EVENTS: Final = Statement(f"{_ENTRIES_OF} = {ANY_OF}", sqlite=f"{_ENTRIES_OF} {ANY_OF_SQLITE}")
_CHECKPOINT: Final = Statement(
    "SELECT log_id, size, note FROM audit_checkpoint WHERE log_id = :log_id ORDER BY size DESC LIMIT 1"
)
_UNHURRIED: Final = Statement("SET LOCAL synchronous_commit TO off")
_KEEP_CHECKPOINT: Final = Statement(
    "INSERT INTO audit_checkpoint (log_id, size, note, at) VALUES (:log_id, :size, :note, :at) ON CONFLICT DO NOTHING"
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
_BODY: Final = "event_id, log_id, seq, t_ms, type, op, org, actor_ref, role, purpose, case_hmac, outcome, break_glass"
_COLUMNS: Final = """
    o.columns->>'type', o.columns->>'op', o.columns->>'org', o.columns->>'actor_ref', o.columns->>'role',
    o.columns->>'purpose', o.columns->>'case_hmac', o.columns->>'outcome',
    CAST(o.columns->>'break_glass' AS boolean), o.sections, o.detail
"""
_MOVE_ALL: Final = """
    WITH o AS (
        DELETE FROM audit_outbox AS taken
        USING unnest(:places::bigint[], :seqs::bigint[], :times::bigint[]) AS p (place, seq, t_ms)
        WHERE taken.position = p.place RETURNING taken.*, p.seq, p.t_ms
    ), subjects AS (
        INSERT INTO audit_subject (idx_hmac, log_id, seq)
        SELECT DISTINCT s.value, CAST(:log_id AS text), o.seq
        FROM o CROSS JOIN jsonb_array_elements_text(o.subjects) AS s
    )
    INSERT INTO audit_event ({body}, sections, detail)
    SELECT o.event_id, :log_id, o.seq, o.t_ms, {columns} FROM o
"""
_MOVE: Final = Statement(_MOVE_ALL.format(body=_BODY, columns=_COLUMNS))
_PLACES: Final = """(
    SELECT json_extract(value, '$.place') AS place, json_extract(value, '$.seq') AS seq,
        json_extract(value, '$.t_ms') AS t_ms
    FROM json_each(:places)
) AS p"""
_SUBJECTS_OF: Final = """
    INSERT INTO audit_subject (idx_hmac, log_id, seq)
    SELECT DISTINCT s.value, :log_id, p.seq
    FROM {places} JOIN audit_outbox o ON o.position = p.place CROSS JOIN json_each(o.subjects) AS s
"""
_EVENTS_OF: Final = """
    INSERT INTO audit_event ({body}, sections, detail)
    SELECT o.event_id, :log_id, p.seq, p.t_ms, {columns} FROM {places} JOIN audit_outbox o ON o.position = p.place
"""
_TAKEN: Final = "DELETE FROM audit_outbox WHERE position IN (SELECT p.place FROM {places})"
_MOVE_SQLITE: Final = tuple(
    Statement(each.format(places=_PLACES, body=_BODY, columns=_COLUMNS)) for each in (_SUBJECTS_OF, _EVENTS_OF, _TAKEN)
)


@dataclass(frozen=True, slots=True)
class SqlTiles:
    """Hash tiles and entry bundles of one log, read in one transaction."""

    reading: Reading
    log_id: str

    def read(self, tile: Tile) -> bytes:
        """The tile's bytes; a narrower partial tile is the prefix of what is kept.  Raises TileUnreadable."""
        if tile.level == ENTRIES:
            first = tile.index * TILE_WIDTH
            found = self.reading.run(_LEAVES, log_id=self.log_id, first=first, last=first + tile.width - 1)
            leaves: list[bytes] = found.scalars()
            if len(leaves) < tile.width:
                raise TileUnreadable(f"{tile.path} is not here")
            return encode_bundle(leaves)
        kept = self.reading.run(_TILE_AT, log_id=self.log_id, level=tile.level, n=tile.index).one_or_none()
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


@dataclass(frozen=True, slots=True)
class _Edge:
    """The tiles on the right edge, that were read with the head; others as they are asked for."""

    tiles: Mapping[tuple[int, int], bytes]
    others: SqlTiles

    def read(self, tile: Tile) -> bytes:
        """As `audit.tiles.TileReader` says."""
        data = self.tiles.get((tile.level, tile.index), b"")[: tile.width * HASH_BYTES]
        return data if len(data) == tile.width * HASH_BYTES else self.others.read(tile)


def head_of(reading: Reading, log_id: str) -> Head | None:
    """Where the log ends, or None for a log that has not been opened."""
    return _head(reading.run(_HEAD, log_id=log_id).one_or_none())


def _head(row: Any) -> Head | None:
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
    return _locked(tx)[:2]


def _locked(tx: Transaction, *questions: Asked) -> tuple[str, Head, list[Answer]]:
    """As `lock_newest`, and the answers to what is asked once the lock is held, in the same round trip."""
    while True:
        locked, newest, *answers = tx.ask(_LOCKED.of(), _NEWEST.of(), *questions)
        row = locked.one_or_none()
        head = _head(row)
        if head is None:
            raise LogUnavailable("the log has not been opened: run `broker migrate`")
        if newest.scalar() == row.log_id:
            return row.log_id, head, answers  # while we waited for the lock, another may have begun the next


def sequence(
    tx: Transaction, keys: Keys, *, limit: int = BATCH, only: str | None = None, lone: Sequence[Written] = ()
) -> Batch:
    """Move what waits in the outbox into the newest shard: entries, bodies, keys, tiles and head in this transaction.

    `only`: that event alone.  `lone`: events that are alone in their transaction, which is then this one; they come
    after the others.  Raises Conflict if one of these is there already, LogUnavailable if the head was moved by another
    sequencer meanwhile, and audit.sequencer.HeadDisagrees if the stored tiles are not the head's.
    """
    waits = _WAITING.of(limit=limit) if only is None else _WAITING_ONLY.of(only=only)
    wrapped = subject_keys((one.key.subject for one in lone), sqlite=tx.sqlite)
    log_id, head, (found, edge, known) = _locked(
        tx, waits, _RIGHT_EDGE.of(), wrapped
    )  # SQLite: all is exclusive already
    waiting = found.all()
    if not waiting and not lone:
        return Batch(log_id, head)
    pending = [Pending(row.event_id, Leaf(row.at_ms, row.commitment)) for row in waiting]
    pending += [Pending(one.event_id, one.leaf) for one in lone]
    step = advance(head, pending, _Edge({(row.level, row.n): row.data for row in edge}, SqlTiles(tx, log_id)))
    under = {row.idx_hmac: row.wrapped for row in known}
    under |= {row.sole: row.subject_key for row in waiting if row.subject_key is not None}
    write(
        tx, log_id, step, {row.event_id: row.position for row in waiting}, {one.event_id: one for one in lone},
        also=event_keys_kept(keys, [*waiting_keys(keys, waiting), *(one.key for one in lone)], under),
    )  # fmt: skip
    return Batch(log_id, step.head, step.entries, step.tiles)


def waiting_keys(keys: Keys, rows: Iterable[Any]) -> list[FreshKey]:
    """The keys of events that wait (OutboxRow or its like), to be kept by whoever moves them.  Raises EventStuck."""
    return [
        FreshKey(row.event_id, _waiting_key(keys, row), row.sole) for row in rows if row.key_wrapped is not None
    ]  # fmt: skip


def _waiting_key(keys: Keys, row: Any) -> DataKey:
    try:
        return keys.data_key(row.key_wrapped, row.event_id)
    except Undecipherable:
        raise EventStuck(
            f"event {row.event_id} waits at place {row.position} of audit_outbox, and its key (key_wrapped) does not "
            "open: run `broker log unstick`"
        ) from None


def stuck(reading: Reading, keys: Keys) -> tuple[OutboxRow, ...]:
    """What waits under a key that does not open: it holds up all the rest."""
    return tuple(row for row in reading.all(OutboxRow, order=["position"]) if _is_stuck(keys, row))


def _is_stuck(keys: Keys, row: OutboxRow) -> bool:
    try:
        waiting_keys(keys, (row,))
    except EventStuck:
        return True
    return False


def entry_of(reading: Reading, event_id: str) -> EntryRow | None:
    """An event's place in the log, or None while it has none."""
    return reading.one(EntryRow, event_id=event_id)


@dataclass(frozen=True, slots=True)
class Settled:
    """Entries of one shard, its newest checkpoint, and tiles of its right edge."""

    rows: Sequence[Any]  # log_id, seq, leaf, event_id
    note: bytes | None
    tiles: tuple[tuple[Tile, bytes], ...] = ()


def settled(reading: Reading, event_ids: Collection[str]) -> dict[str, Settled]:
    """Where those of these events stand that have a place, by shard."""
    rows, edge = reading.ask(_ENTRIES_OF_EVENTS.of(texts=texts(event_ids, sqlite=reading.sqlite)), _RIGHT_EDGE.of())
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.log_id, []).append(row)
    notes = reading.ask(*(_CHECKPOINT.of(log_id=log_id) for log_id in found)) if found else ()
    tiles: dict[str, list[tuple[Tile, bytes]]] = {}
    for row in edge:
        tiles.setdefault(row.log_id, []).append((Tile(row.level, row.n, len(row.data) // HASH_BYTES), row.data))
    return {
        log_id: Settled(
            found[log_id], kept.note if (kept := note.one_or_none()) is not None else None,
            tuple(tiles.get(log_id, ())),
        )
        for log_id, note in zip(found, notes, strict=True)
    }  # fmt: skip


def newest_checkpoint(reading: Reading, log_id: str) -> CheckpointRow | None:
    """The newest signed checkpoint, or None."""
    found = reading.all(CheckpointRow, log_id=log_id, order=("-size",), limit=1)
    return found[0] if found else None


def checkpoint_of(reading: Reading, log_id: str, seq: int) -> CheckpointRow | None:
    """The first signed checkpoint that covers an entry, or None while none does."""
    query = select(CheckpointRow).where(col(CheckpointRow.log_id) == log_id, col(CheckpointRow.size) > seq)
    return reading.session.exec(query.order_by(col(CheckpointRow.size)).limit(1)).one_or_none()


def keep_checkpoint(tx: Transaction, log_id: str, size: int, note: bytes, *, at: datetime) -> None:
    """Store a signed checkpoint, with the commit; one that is there already stays.

    The transaction is for this alone: on PostgreSQL its commit does not wait for the disk, as the signer keeps what it
    signed, and gives the same note again for a row that a power cut took.
    """
    if not tx.sqlite:
        tx.later(_UNHURRIED.of())
    tx.later(_KEEP_CHECKPOINT.of(log_id=log_id, size=size, note=note, at=instant_told(at, sqlite=tx.sqlite)))


def waiting(reading: Reading) -> int:
    """How many events wait to be sequenced."""
    return reading.session.exec(select(func.count()).select_from(OutboxRow)).one()


def write(
    tx: Transaction, log_id: str, step: Advance, positions: Mapping[str, int],
    lone: Mapping[str, Written] = MappingProxyType({}), *, also: Sequence[Asked] = (),
) -> None:  # fmt: skip
    """Store one step of the log, and `also` what belongs to it.

    An entry's body is moved from its position in the outbox, or is that of `lone`; of an entry with neither there is
    only the leaf, as its body is lost.  Raises LogUnavailable or Conflict if the head is not the one it was computed
    from.
    """
    size, epoch = step.expects
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
    tiles = [
        {"log_id": log_id, "level": tile.level, "n": tile.index, "width": tile.width, "data": data}
        for tile, data in step.tiles
    ]
    moved_head = _MOVE_HEAD.of(
        log_id=log_id, old_size=size, epoch=epoch, size=step.head.size, root=step.head.root,
        last_ms=step.head.last_ms, frontier=b"".join(step.head.frontier.hashes),
    )  # fmt: skip
    moved = _moved(tx, log_id, placed)
    try:
        *_, head = tx.ask(
            _ENTRIES.of(entries), *moved, _EVENTS.of(events), _SUBJECTS.of(subjects), *keep_blobs(tuple(lone.values())),
            *also, _TILES.of(tiles), moved_head,
        )  # fmt: skip
    except IntegrityError:
        raise Conflict("a row with this key is there already") from None
    if head.rowcount != 1:
        raise LogUnavailable("another sequencer has moved the head")


def _moved(tx: Transaction, log_id: str, placed: Sequence[Mapping[str, int]]) -> Sequence[Asked]:
    """Statements that move what waits at these places."""
    if tx.sqlite:
        return [each.of(log_id=log_id, places=json.dumps(placed)) for each in _MOVE_SQLITE]
    places, seqs, times = (Array("bigint", [one[name] for one in placed]) for name in ("place", "seq", "t_ms"))
    return [_MOVE.of(log_id=log_id, places=places, seqs=seqs, times=times)]
