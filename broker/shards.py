"""The log's shards: turned at the year, under keys that change hands in the open, begun anew when history was lost.

    year         the old shard ends with `log.closed`, under a last checkpoint; the new one begins with `log.opened`,
                 which cites that checkpoint.  Both are written in one transaction: no entry falls between them.
    rotation     the new key signs beside the old; `key.rotated` says so under both; then the old one is destroyed.
    compromise   the shard is frozen; a new one, under a new origin and key, cites the last witnessed checkpoint.
    restore      a database put back from a backup is older than what was signed, and the signer refuses it.  Either an
                 agency's mirror holds the leaves that were lost, or a new shard begins with `log.discontinuity`.

What the log says of itself in these entries is published opened (`history`), for `auditor` to follow.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import structlog

from audit.checkpoint import LOG_KEY, NoteInvalid, SignedCheckpoint, VerifierKey
from audit.events import Event, InvalidEvent, Json, Leaf, SectionName
from audit.merkle import root_at
from audit.policy import QuorumMissing
from audit.rotation import MILESTONES
from audit.sequencer import Advance, Head, Pending, advance
from audit.signer import SignerRefused
from audit.tiles import TILE_WIDTH, TileHashes, TileMalformed, TileReader, TileUnreadable, bundles_of, decode_bundle
from broker import clock, witnesses
from broker.errors import BrokerError, LogUnavailable, SignerUnavailable, WrongState
from broker.signing import SignedLog, Signers
from broker.store import Reading, Store, Transaction
from broker.store.event_keys import keep_event_keys
from broker.store.log import EventRow, OutboxRow
from broker.store.roles import SEQUENCER
from broker.store.sequence import (
    BATCH,
    SqlTiles,
    checkpoint_of,
    head_of,
    lock_newest,
    newest_checkpoint,
    open_log,
    sequence,
    waiting_keys,
    write,
)
from broker.store.shards import ShardRow, current_shard, every_shard
from broker.store.witnesses import checkpoint_at, cosigned_sizes, enrolled
from broker.trail import Trail, Who, new_event_id

log = structlog.get_logger()
LOOK_SECONDS: Final = 1.0
_SHOWN: Final[tuple[SectionName, ...]] = ("what",)
NAME: Final = re.compile(r"(\d{4})(?:-\d+)?")
_ANEW: Final = "`broker log restore --new`"


@dataclass(frozen=True, slots=True)
class ShardStanding:
    """How one shard stands: in the tables, and with the signer (None: it does not know it, or can't be asked).

    `faults`: where the two are not of one log, each with what to do; none where the signer can't be asked, nor of a
    frozen shard, whose successor says what became of it.
    """

    row: ShardRow
    size: int
    checkpoint: int | None
    witnessed: int | None
    signed: SignedLog | None
    faults: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """How many entries were signed and are not in the tables."""
        return max(0, (self.signed.size if self.signed else 0) - self.size)


def open_for_writing(store: Store, signers: Signers, base: str, *, at: datetime) -> None:
    """Open the log if neither the tables nor the signer know of one; look whether they agree, as far as both answer.

    Raises LogUnavailable if one of the two knows of a log, or of entries, that the other does not, or of other entries:
    a database was put back or rewritten, or the signer's state was lost, and a person must decide.
    """
    try:
        with store.reading() as reading:
            shard = current_shard(reading)
        if shard is None:
            _open_first(store, signers, base, at=at)
            return
        signed = signers.signed(shard.log_id)  # before the head is read: it only grows
        told = _of(signers.status(), shard.log_id) if signed else None
    except SignerUnavailable:
        if shard is None:
            raise
        return
    except SignerRefused as refused:
        raise LogUnavailable(f"the signer can't go on: {refused}") from None
    with store.reading() as reading:
        head = head_of(reading, shard.log_id)
    size = head.size if head is not None else 0
    if signed is None and size:
        raise LogUnavailable("the signer's state is missing, but the log has entries: see `broker log status`")
    if (signed or 0) > size:
        raise LogUnavailable(f"{signed} entries were signed, and the database holds {size}: see `broker log restore`")
    if told is not None and told.size <= size:
        with store.reading() as reading:
            try:
                held = root_at(TileHashes(SqlTiles(reading, shard.log_id), size), told.size)
            except TileUnreadable:
                raise LogUnavailable("the log's tiles can't be read: see `broker log status`") from None
        if held != told.root:
            raise LogUnavailable(
                f"the first {told.size} entries are not those that were signed: the log was rewritten, or another's "
                "database was put back; see `broker log status`"
            )


def turn(trail: Trail, base: str, *, who: Who, at: datetime) -> ShardRow | None:
    """Close the newest shard and open the year's, if that has begun; the new shard, or None where there was no need.

    Of two processes one does it.  Raises LogUnavailable or SignerRefused if the log is out of order.
    """
    with trail.store.reading() as reading:
        old = current_shard(reading)
        if old is None or at.year <= _year(old.log_id):
            return None
        name = _free_name(reading, trail.signers, base, at.year)
    told = trail.signers.open(f"{base}/{name}")
    with trail.store.transaction(SEQUENCER) as tx:
        log_id, _ = lock_newest(tx)
        if log_id != old.log_id:
            return None
        while len(sequence(tx, trail.keys).entries) == BATCH:
            pass
        _write(tx, trail, "log.closed", who, at, origin=log_id, next=told.origin, keys=_vkeys(told))
        head = _closed(tx, log_id, at=at)
        opened = _opened(tx, told, "year", head, (log_id, head.size, head.root), at=at)
        _write(tx, trail, "log.opened", who, at, **_citing(opened))
    trail.advance_pending()
    return opened


def rotate(trail: Trail, *, who: Who, at: datetime) -> ShardRow:
    """A new key signs beside the old from now on, and the log says so.  Twice does no harm."""
    told = trail.signers.rotate(trail.origin)
    with trail.store.transaction(SEQUENCER) as tx:
        lock_newest(tx)
        shard = _current(tx)
        known = {key["vkey"] for key in shard.keys}
        if shard.log_id != told.origin:
            raise WrongState("the log has turned to another shard meanwhile")
        if fresh := [key for key in told.keys if str(key) not in known]:
            old, new = (str(key) for key in (_ed25519(told.keys)[0], _ed25519(fresh)[-1]))
            shard.keys = [*shard.keys, *_since(fresh, at)]
            tx.add(shard)
            _record(tx, trail, "key.rotated", who, at, origin=told.origin, old=old, new=new)
    trail.advance_pending()
    return shard


def retire(trail: Trail, *, who: Who, at: datetime) -> ShardRow:
    """The old key is destroyed: the new one signs alone.  Raises WrongState if no new key has been handed over to."""
    trail.advance_pending()
    with trail.store.reading() as reading:
        shard = _current(reading)
        standing = [key["vkey"] for key in shard.keys if key["until"] is None]
        handed = reading.all(EventRow, log_id=shard.log_id, type="key.rotated", order=("-seq",), limit=1)
        newest = newest_checkpoint(reading, shard.log_id)
    if not handed or newest is None or newest.size <= handed[0].seq or len(_ed25519(map(_parsed, standing))) < 2:
        raise WrongState("there is no new key that the log has handed over to: `broker log rotate` makes one")
    left = {str(key) for key in trail.signers.retire(shard.log_id).keys}
    gone = [vkey for vkey in standing if vkey not in left]
    with trail.store.transaction(SEQUENCER) as tx:
        lock_newest(tx)
        shard = _current(tx)
        until = {"until": int(at.timestamp())}
        shard.keys = [key | (until if key["vkey"] in gone else {}) for key in shard.keys]
        tx.add(shard)
        _record(tx, trail, "key.revoked", who, at, origin=shard.log_id, key=str(_ed25519(map(_parsed, gone))[0]))
    trail.advance_pending()
    return shard


def begin_anew(
    trail: Trail, base: str, *, compromised: bool, witnessed: SignedCheckpoint | None = None, who: Who, at: datetime
) -> ShardRow:
    """Freeze the newest shard and begin another, whose first entry says what came before and what was lost.

    `compromised`: its key is no longer to be trusted.  `witnessed`: the newest checkpoint that agencies hold; without
    it, the newest that a quorum cosigned in these tables, and failing that what the signer signed last.  The entry
    calls it witnessed only if a quorum of today's witnesses signed it, or, where all were removed, of those who
    witnessed when it was made.  Raises WrongState for a note that is not the
    newest such, or that nobody can vouch for: of a compromised key any without a quorum; else one beyond what the
    signer signed, or of another tree than is held.
    """
    with trail.store.reading() as reading:
        old = _current(reading)
        name = _free_name(reading, trail.signers, base, max(at.year, _year(old.log_id)))
        signed = _of(trail.signers.status(), old.log_id)
        kept, vouched = _to_cite(reading, old, witnessed, signed, compromised=compromised, at=at)
    if signed is not None:
        trail.signers.close(old.log_id)
    told = trail.signers.open(f"{base}/{name}")
    with trail.store.transaction(SEQUENCER) as tx:
        log_id, head = lock_newest(tx)
        if log_id != old.log_id:
            raise WrongState("the log has turned to another shard meanwhile")
        _closed(tx, log_id, at=at, frozen=True)
        cited = (log_id, head.size, head.root)
        if kept is not None:
            cited = (log_id, kept.checkpoint.size, kept.checkpoint.root)
        elif signed is not None:
            cited = (log_id, signed.size, signed.root)
        opened = _opened(tx, told, "compromised" if compromised else "restored", head, cited, at=at)
        facts: dict[str, Json] = {**_citing(opened), "held": head.size, "witnessed": vouched}
        if signed is not None:
            facts["signed"] = {"size": signed.size, "root": _b64(signed.root)}
        if compromised:
            _write(tx, trail, "log.opened", who, at, **facts)
            keys: list[Json] = [key["vkey"] for key in old.keys]
            _record(tx, trail, "key.compromised", who, at, origin=log_id, keys=keys, trusted_below=cited[1])
        else:
            _write(tx, trail, "log.discontinuity", who, at, **facts)
    trail.advance_pending()
    return opened


def refill(trail: Trail, mirror: TileReader, note: str, *, who: Who, at: datetime) -> int:
    """Put back the leaves that were signed and lost, from an agency's mirror of the log; how many.

    Their events' bodies are gone, but for those that wait here to be sequenced again.  Raises WrongState if the mirror
    is not this log, ends before what was signed, or does not grow from what is here; nothing is changed then.
    """
    try:
        newest = SignedCheckpoint.parse(note)
    except NoteInvalid as fault:
        raise WrongState(f"the mirror's checkpoint is none: {fault}") from None
    shard = _newest(trail.store)
    signed = _of(trail.signers.status(), shard.log_id)
    if newest.checkpoint.origin != shard.log_id or not _by_its_keys(newest, shard, signed, today=True):
        raise WrongState("the mirror is of another log, or its checkpoint is not signed by this log's newest key")
    if signed is not None and newest.checkpoint.size < signed.size:
        raise WrongState(f"the mirror ends at {newest.checkpoint.size} entries, and {signed.size} were signed")
    with trail.store.transaction(SEQUENCER) as tx:
        log_id, head = lock_newest(tx)
        if newest.checkpoint.size <= head.size:
            raise WrongState("the mirror holds nothing that is missing here")
        lost = [_leaf(text) for text in _leaves(mirror, head.size, newest.checkpoint.size)]
        rows = {row.commitment: row for row in tx.all(OutboxRow)}
        places = enumerate(lost, start=head.size)
        name = log_id.rpartition("/")[2]
        pending = [
            Pending(rows[leaf.commitment].event_id if leaf.commitment in rows else f"lost-{name}-{at_}", leaf)
            for at_, leaf in places
        ]
        step: Advance = advance(replace(head, last_ms=0), pending, SqlTiles(tx, log_id))  # times as they were
        if step.head.root != newest.checkpoint.root:
            raise WrongState("the mirror's log is not a growth of this one")
        found = [rows[leaf.commitment] for leaf in lost if leaf.commitment in rows]
        keep_event_keys(tx, trail.keys, waiting_keys(trail.keys, found))
        write(tx, log_id, step, {row.event_id: row.position for row in found if row.position is not None})
        what: dict[str, Json] = {"origin": log_id, "refilled": len(lost), "from": head.size}
        _record(tx, trail, "log.discontinuity", who, at, **what)
    trail.advance_pending()
    return len(lost)


def history(trail: Trail, log_id: str) -> dict[str, Json]:
    """What a shard says of itself, opened, each entry under the first checkpoint that covers it (`audit.rotation`)."""
    entries: list[Json] = []
    with trail.store.reading() as reading:
        for row in reading.all(EventRow, log_id=log_id, type=MILESTONES, order=("seq",)):
            note = checkpoint_of(reading, log_id, row.seq)
            receipt = trail.receipt_under(reading, row.event_id, note, show=_SHOWN) if note is not None else None
            if receipt is not None:
                entries.append(receipt.to_json())
    return {"origin": log_id, "entries": entries}


def log_keys(reading: Reading) -> tuple[VerifierKey, ...]:
    """The keys to trust, for `log` lines of a policy: those of every shard but the compromised, in order of use."""
    shards = every_shard(reading)
    distrusted = {shard.follows for shard in shards if shard.reason == "compromised"}
    return tuple(_parsed(key["vkey"]) for shard in shards if shard.log_id not in distrusted for key in shard.keys)


def standing(store: Store, signers: Signers) -> tuple[tuple[ShardStanding, ...], str | None]:
    """Every shard, the oldest first; and why the signer could not be asked, if so."""
    told: tuple[SignedLog, ...] = ()
    wrong: str | None = None
    try:
        told = signers.status()
    except (SignerUnavailable, SignerRefused) as fault:
        wrong = str(fault)
    found = []
    with store.reading() as reading:
        for shard in every_shard(reading):
            head, kept = head_of(reading, shard.log_id), newest_checkpoint(reading, shard.log_id)
            quorum = _witnessed(reading, shard, clock.now())
            signed, size = _of(told, shard.log_id), head.size if head else 0
            found.append(
                ShardStanding(
                    shard, size, kept.size if kept else None, quorum.checkpoint.size if quorum else None, signed,
                    tuple(_faults(reading, shard, signed, size, kept.note if kept else None)) if wrong is None else (),
                )
            )  # fmt: skip
    return tuple(found), wrong


def _faults(
    reading: Reading, shard: ShardRow, signed: SignedLog | None, size: int, note: bytes | None
) -> Iterator[str]:
    """In what signer and tables are not of one log, and what to do."""
    if shard.frozen:
        return
    if signed is None:
        if size:
            yield (
                "the signer does not know this log, or its state or key is lost or was changed: its own output says "
                f"which. Put the right folder back; if there is none: {_ANEW}"
            )
        return
    if {str(key) for key in signed.keys} != {key["vkey"] for key in shard.keys if key["until"] is None}:
        yield (
            "the signer signs with other keys than this log's: its folder was exchanged, or a rotation was cut short. "
            f"Put the right folder back, or run `broker log rotate` again; if the key is lost: {_ANEW}"
        )
    if signed.size > size:
        yield (
            f"the signer has signed {signed.size} entries, and the database holds {size}: the database was put back "
            "from a copy, or cut. `broker log restore`, from an agency's mirror if there is one"
        )
    elif root_at(TileHashes(SqlTiles(reading, shard.log_id), size), signed.size) != signed.root:
        yield (
            f"the signer has signed another tree of {signed.size} entries than the database holds: one of the two was "
            "changed or exchanged. Keep a copy of both, look with `auditor fsck --state` at what an agency holds, put "
            f"back what was changed; failing that: {_ANEW}"
        )
    newest = SignedCheckpoint.parse(note.decode()) if note is not None else None
    if newest is not None and not _by_its_keys(newest, shard, signed):
        yield "the newest checkpoint in the database bears no key of this log: the database was changed"
    elif newest is not None and newest.checkpoint.size > signed.size:
        yield (
            f"the signer's state is an old copy: it says {signed.size} entries, and its key has signed "
            f"{newest.checkpoint.size}. It would sign an older database too, so look first whether the log has only "
            "grown since what an agency holds (`auditor consistency`); then the next entry makes the state new"
        )
    if signed.closed and shard.closed_at is None:
        yield f"the signer has closed this log, and signs no more of it; the database has not. {_ANEW}"


def keep_watch(trail: Trail, base: str, watch: clock.Watch | None = None) -> Callable[[], None]:
    """Look once a second whether a year has begun, and whether the clock was changed; returns how to stop."""
    stopping = threading.Event()
    seen = watch or clock.Watch()
    who = {"organisation": trail.host}

    def look() -> None:
        _behind(trail, who)
        while not stopping.wait(LOOK_SECONDS):
            try:
                if (step := seen.step()) is not None:
                    _anomaly(trail, who, step)
                turn(trail, base, who=who, at=clock.now())
            except (BrokerError, SignerRefused, OSError) as wrong:
                log.error("the log's keeper could not do its work", fault=type(wrong).__name__)

    thread = threading.Thread(target=look, name="log-keeper", daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join(timeout=10)

    return stop


def _behind(trail: Trail, who: Who) -> None:
    """Say so if the clock is behind the last leaf: it was set back while nobody looked."""
    try:
        with trail.store.reading() as reading:
            head = head_of(reading, _current(reading).log_id)
        step = clock.milliseconds(clock.now()) - (head.last_ms if head else 0)
        if step < -clock.BACK_MS:
            _anomaly(trail, who, step)
    except (BrokerError, SignerRefused):
        log.error("the log's keeper could not do its work", reason="start")


def _anomaly(trail: Trail, who: Who, step_ms: int) -> None:
    with trail.store.transaction() as tx:
        _record(tx, trail, "clock.anomaly", who, clock.now(), step_ms=step_ms)
    trail.wake()


def _open_first(store: Store, signers: Signers, base: str, *, at: datetime) -> None:
    if any(told.size for told in signers.status()):
        raise LogUnavailable("the signer has signed a log that this database does not hold: see `broker log status`")
    told = signers.open(f"{base}/{at.year}")
    with store.transaction(SEQUENCER) as tx:
        if current_shard(tx) is None:
            tx.add(
                ShardRow(number=0, log_id=told.origin, reason="first", opened_at=at, keys=_since(told.keys, at))
            )  # fmt: skip
            open_log(tx, told.origin)


def _opened(
    tx: Transaction, told: SignedLog, reason: str, before: Head, cited: tuple[str, int, bytes], *, at: datetime
) -> ShardRow:
    follows, size, root = cited
    shard = ShardRow(
        number=_current(tx).number + 1, log_id=told.origin, reason=reason, opened_at=at, keys=_since(told.keys, at),
        follows=follows, follows_size=size, follows_root=root,
    )  # fmt: skip
    tx.add(shard)
    open_log(tx, told.origin, last_ms=before.last_ms)
    return shard


def _closed(tx: Transaction, log_id: str, *, at: datetime, frozen: bool = False) -> Head:
    shard = _current(tx)
    shard.closed_at, shard.frozen = at, frozen
    tx.add(shard)
    tx.flush()
    head = head_of(tx, log_id)
    assert head is not None
    return head


def _citing(shard: ShardRow) -> dict[str, Json]:
    root = _b64(shard.follows_root or b"")
    follows: dict[str, Json] = {"origin": shard.follows, "size": shard.follows_size, "root": root}
    return {"origin": shard.log_id, "reason": shard.reason, "follows": follows, "keys": [k["vkey"] for k in shard.keys]}


def _record(tx: Transaction, trail: Trail, event_type: str, who: Who, at: datetime, **what: Json) -> str:
    event = Event(id=new_event_id(), type=event_type, who=who, what=what, why={}, detail={})
    return trail.record(tx, event, at=at).event_id


def _write(tx: Transaction, trail: Trail, event_type: str, who: Who, at: datetime, **what: Json) -> None:
    """Record, and sequence it now, as the newest shard's next entry."""
    sequence(tx, trail.keys, only=_record(tx, trail, event_type, who, at, **what))


def _leaves(mirror: TileReader, start: int, end: int) -> Iterator[bytes]:
    """The leaves [start, end) of a mirror."""
    try:
        for bundle in bundles_of(end):
            first = bundle.index * TILE_WIDTH
            if first + bundle.width > start:
                yield from decode_bundle(bundle, mirror.read(bundle))[max(0, start - first) :]
    except (TileUnreadable, TileMalformed) as fault:
        raise WrongState(f"the mirror is not whole: {fault}") from None


def _leaf(text: bytes) -> Leaf:
    try:
        return Leaf.parse(text)
    except InvalidEvent:
        raise WrongState("the mirror holds an entry that is no leaf of ours") from None


def _witnessed(reading: Reading, shard: ShardRow, at: datetime) -> SignedCheckpoint | None:
    """The newest checkpoint that a quorum of today's witnesses cosigned: one line alone is one witness's word.

    Where none is enrolled any more, that a quorum of those of its own day did.
    """
    if enrolled(reading):
        return witnesses.served(reading, shard.log_id, "checkpoint.witnessed", at=at)
    for size in cosigned_sizes(reading, shard.log_id):
        note = witnesses.as_cosigned(reading, shard.log_id, size)
        if note is not None and _vouched(reading, shard, note):
            return note
    return None


def _to_cite(
    reading: Reading, shard: ShardRow, given: SignedCheckpoint | None, signed: SignedLog | None, *, compromised: bool,
    at: datetime,
) -> tuple[SignedCheckpoint | None, bool]:  # fmt: skip
    """The checkpoint at which a shard is frozen, as `begin_anew` says, and whether a quorum signed it."""
    held = _witnessed(reading, shard, at)
    if held is not None and not _vouched(reading, shard, held):
        held = None  # its lines do not verify: somebody wrote them into the table
    if given is None:
        return held, held is not None
    note = given.checkpoint
    if note.origin != shard.log_id or not _by_its_keys(given, shard, signed):
        raise WrongState("that is no checkpoint of this log under its own key")
    if held is not None and note.size < held.checkpoint.size:
        raise WrongState(f"witnesses have signed a newer one, of {held.checkpoint.size} entries")
    if _vouched(reading, shard, given):
        return given, True
    if not _by_its_keys(given, shard, signed, today=True):
        raise WrongState("only an older key of this log signed that checkpoint, and too few witnesses did")
    if compromised:
        raise WrongState("too few witnesses signed that checkpoint, and whoever has the key could have made it")
    if signed is not None and note.size > signed.size:
        raise WrongState(f"that checkpoint has {note.size} entries, and {signed.size} were signed")
    if not _same_tree(reading, given, signed):
        raise WrongState("that checkpoint is of another tree: keep it as evidence, and ask its holder who gave it")
    return given, False


def _vouched(reading: Reading, shard: ShardRow, note: SignedCheckpoint) -> bool:
    """Whether a quorum of today's witnesses signed a note; where all were removed, of those of the checkpoint's day."""
    then = None
    if not enrolled(reading):
        row = checkpoint_at(reading, shard.log_id, note.checkpoint.size)
        if row is None:
            return False
        then = row.at
    policy = witnesses.policy_of(reading, [_parsed(key["vkey"]) for key in shard.keys], then=then)
    try:
        policy.accept(note)
    except (NoteInvalid, QuorumMissing):
        return False
    return policy.quorum is not None


def _same_tree(reading: Reading, note: SignedCheckpoint, signed: SignedLog | None) -> bool:
    """Whether a note's root is that of the tree that is held, and that the signer signed, as far as either goes."""
    then = note.checkpoint
    if signed is not None and signed.size == then.size:
        return signed.root == then.root
    head = head_of(reading, then.origin)
    if head is None or then.size > head.size:
        return True
    return root_at(TileHashes(SqlTiles(reading, then.origin), head.size), then.size) == then.root


def _by_its_keys(note: SignedCheckpoint, shard: ShardRow, signed: SignedLog | None, *, today: bool = False) -> bool:
    """Whether one of the log's keys signed a note; `today`: one that the signer signs with, not one it has retired."""
    keys = [_parsed(key["vkey"]) for key in shard.keys if not today or key["until"] is None]
    if signed is not None:
        keys = [*signed.keys] if today else [*keys, *signed.keys]
    try:
        return any(note.signed_by(key) for key in keys)
    except NoteInvalid:
        return False


def _of(told: tuple[SignedLog, ...], origin: str) -> SignedLog | None:
    return next((each for each in told if each.origin == origin), None)


def _current(reading: Reading) -> ShardRow:
    shard = current_shard(reading)
    if shard is None:
        raise LogUnavailable("the log has not been opened: run `broker migrate`")
    return shard


def _newest(store: Store) -> ShardRow:
    with store.reading() as reading:
        return _current(reading)


def _free_name(reading: Reading, signers: Signers, base: str, year: int) -> str:
    """A name that neither the tables hold nor the signer has signed under: a backup put back knows fewer than it does.

    One that the signer has only opened is free: what opened it was broken off before it wrote.
    """
    taken = {shard.log_id for shard in every_shard(reading)}
    taken |= {told.origin for told in signers.status() if told.size or told.closed}
    names = [str(year), *(f"{year}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if f"{base}/{name}" not in taken)


def _year(log_id: str) -> int:
    found = NAME.fullmatch(log_id.rpartition("/")[2])
    return int(found[1]) if found else 0


def _since(keys: tuple[VerifierKey, ...] | list[VerifierKey], at: datetime) -> list[dict[str, Any]]:
    return [{"vkey": str(key), "from": int(at.timestamp()), "until": None} for key in keys]


def _ed25519(keys: Any) -> list[VerifierKey]:
    return [key for key in keys if key.kind == LOG_KEY]


def _vkeys(told: SignedLog) -> list[Json]:
    return [str(key) for key in told.keys]


def _parsed(vkey: str) -> VerifierKey:
    return VerifierKey.parse(vkey)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
