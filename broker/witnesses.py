"""The log's witnesses, as its host sees them: enrolled, their lines taken, their lapses told.

Witnesses pull.  An agency fetches the log, checks it, cosigns, and hands the line in; the broker opens no connection.
A line proves itself, so whoever brings it need not be known.  What no witness signs is disclosed all the same: the
host's own signature is what an answer waits for, and a lapse is told to people.

Three checkpoints are served, each with the lines there are over it:

    checkpoint            the newest that is signed: the log as it is
    checkpoint.witnessed  the newest that a quorum cosigned: for whoever demands one
    checkpoint.witness    the one to cosign now.  While the log grows by the second, witnesses that come at their own
                          times would each sign another; so what one has signed stays up until a quorum has, or until
                          it is a quarter of an hour old.

A note with the log's own signature over another tree than ours, handed in by anybody, is a *conflict*: the log's key
was used twice, or these tables are not what was signed.  Both notes are kept, the log tells it, a person must look.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import structlog

from audit.checkpoint import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    WITNESS_KEY,
    NoteInvalid,
    Signature,
    SignedCheckpoint,
    VerifierKey,
)
from audit.merkle import consistency_proof, inclusion_proof, root_at
from audit.policy import Group, Policy
from audit.receipts import LogReceipt
from audit.tiles import TileHashes, TileUnreadable
from broker import clock
from broker.errors import BadSignature, Conflict, LogUnavailable, Malformed, NotFound, TooLarge, TooMany
from broker.store import Reading, Store, Transaction
from broker.store.log import CheckpointRow, CosignatureRow
from broker.store.sequence import SqlTiles, newest_checkpoint
from broker.store.shards import ShardRow, every_shard
from broker.store.witnesses import (
    ConflictRow,
    WitnessRow,
    checkpoint_at,
    cosignatures,
    enrolled,
    enrolled_at,
    first_after,
    keep_cosignature,
    newest_cosigned,
    newest_of,
)
from broker.trail import EntryRef, Trail, Who, record_change

log = structlog.get_logger()

AMBER: Final = timedelta(minutes=15)
RED: Final = timedelta(hours=4)
LOOKS_EVERY: Final = 60.0  # seconds
MOST: Final = MAX_SIGNATURES - 4  # so that a note has room for the log's own lines, while two keys or kinds overlap
CLOCKS: Final = timedelta(minutes=5)  # how far ahead a witness's clock may be

State = Literal["none", "green", "amber", "red"]
Which = Literal["checkpoint", "checkpoint.witnessed", "checkpoint.witness"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessStanding:
    """How far a witness is.  `behind_s`: how long what it has not signed has been there; 0 if it signed the newest."""

    name: str
    organisation: str
    size: int
    cosigned_at: datetime | None
    behind_s: int
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the log stands with its witnesses.  `state` is the quorum's; `none` where no witness is enrolled."""

    origin: str
    size: int
    signed_at: datetime | None
    witnessed: int
    quorum: int
    behind_s: int
    state: State
    witnesses: tuple[WitnessStanding, ...]
    conflicts: int

    def to_json(self) -> dict[str, Any]:
        """Plain data, times in UTC."""
        return {
            "origin": self.origin, "size": self.size, "signed_at": _instant(self.signed_at),
            "witnessed": self.witnessed, "quorum": self.quorum, "behind_s": self.behind_s, "state": self.state,
            "witnesses": [
                {
                    "name": one.name, "organisation": one.organisation, "size": one.size,
                    "cosigned_at": _instant(one.cosigned_at), "behind_s": one.behind_s, "state": one.state,
                }
                for one in self.witnesses
            ],
            "conflicts": self.conflicts,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of lines that were handed in: whose, over which size, and whether a quorum has signed that now."""

    size: int
    witnesses: tuple[str, ...]
    witnessed: bool


def quorum_of(witnesses: int) -> int:
    """How many of so many must sign: more than half, so that two quorums share a witness.  0 of none."""
    return witnesses // 2 + 1 if witnesses else 0


# --- Who they are ----------------------------------------------------------------------------------------------------


def enrol(store: Store, trail: Trail, vkey: str, organisation: str, *, who: Who, at: datetime) -> EntryRef:
    """Enrol a witness by its verifier key, which its organisation handed over out of band.

    Raises Malformed for a key that is none, Conflict if the key or the name is enrolled, TooMany beyond what a note
    has room for.
    """
    key = _witness_key(vkey)
    with store.transaction() as tx:
        held = enrolled(tx)
        if any(row.name == key.name or _witness_key(row.vkey).public == key.public for row in held):
            raise Conflict("a witness of this name or with this key is enrolled")
        if len(held) >= MOST:
            raise TooMany(f"a log has at most {MOST} witnesses: a note has no room for more lines")
        row = tx.one(WitnessRow, id=_id(key))
        if row is not None:
            raise Conflict("this key was enrolled before and removed: a key that is taken up again is a new one")
        tx.add(WitnessRow(id=_id(key), name=key.name, vkey=str(key), organisation=organisation, enrolled_at=at))
        tx.flush()
        quorum = quorum_of(len(held) + 1)
        return record_change(
            tx, trail, "witness.enrolled", who, at, witness=key.name, key=str(key), run_by=organisation, quorum=quorum
        )


def remove(store: Store, trail: Trail, name: str, *, who: Who, at: datetime) -> EntryRef:
    """Remove a witness.  Its lines are kept, and served no more.  Raises NotFound."""
    with store.transaction() as tx:
        held = enrolled(tx)
        row = next((one for one in held if one.name == name), None)
        if row is None:
            raise NotFound("no witness of this name is enrolled")
        row.removed_at, row.late_since = at, None
        tx.add(row)
        quorum = quorum_of(len(held) - 1)
        return record_change(tx, trail, "witness.removed", who, at, witness=row.name, key=row.vkey, quorum=quorum)


def policy_of(reading: Reading, logs: Sequence[VerifierKey], *, then: datetime | None = None) -> Policy:
    """The policy that the host proposes: its log keys, and more than half of the witnesses of today, or of `then`."""
    rows = enrolled(reading) if then is None else enrolled_at(reading, then)
    witnesses = {row.name: _witness_key(row.vkey) for row in rows}
    if not rows:
        return Policy(tuple(logs), {}, {}, None)
    return Policy(tuple(logs), witnesses, {"witnesses": Group(quorum_of(len(rows)), tuple(witnesses))}, "witnesses")


# --- Their lines -----------------------------------------------------------------------------------------------------


def take(store: Store, trail: Trail, note: bytes, logs: Sequence[VerifierKey], *, who: Who, at: datetime) -> Taken:
    """Keep the lines of enrolled witnesses under a checkpoint of ours, as handed in: the whole note.

    Twice does no harm; of two lines of one witness over one checkpoint the newer is kept.  Raises TooLarge, Malformed;
    BadSignature if the log did not sign it, or no line of an enrolled witness holds; NotFound for another log, or a
    checkpoint that was never published; Conflict for one that can't be beside ours, of which both notes are then kept.
    """
    signed = _parsed(note)
    checkpoint = signed.checkpoint
    if all(key.name != checkpoint.origin for key in logs):
        raise NotFound("the checkpoint's origin is no log of ours")
    with store.reading() as reading:
        policy = policy_of(reading, logs)
        try:
            policy.signed_by_log(signed)
        except NoteInvalid:
            raise BadSignature("the log did not sign this checkpoint") from None
        kind, ours = _held_against(reading, signed)
    if kind is not None and ours is not None:
        _keep_conflict(store, trail, signed, ours, kind, who=who, at=at)
        raise Conflict(
            f"the log's key has signed two trees that can't both be true, one of {checkpoint.size} leaves: both notes "
            "are kept here; keep yours, and tell information governance"
        )
    if ours is None:
        raise NotFound("no checkpoint of this size was published")
    given = _given(policy, signed, at=at)
    if not given:
        raise BadSignature("no line under the checkpoint is an enrolled witness's")
    with store.transaction() as tx:
        rows = {row.name: row for row in enrolled(tx)}
        for name, (t_s, line) in given.items():
            if name in rows:
                keep_cosignature(
                    tx,
                    CosignatureRow(
                        log_id=checkpoint.origin,
                        size=checkpoint.size,
                        witness=rows[name].id,
                        t_s=t_s,
                        line=line.line,
                        first_t_s=t_s,
                        first_line=line.line,
                    ),
                )
        tx.flush()
        have = cosignatures(tx, checkpoint.origin, checkpoint.size, [row.id for row in rows.values()])
    return Taken(size=checkpoint.size, witnesses=tuple(given), witnessed=0 < quorum_of(len(rows)) <= len(have))


def served(reading: Reading, log_id: str, which: Which, *, at: datetime) -> SignedCheckpoint | None:
    """One of the three checkpoints, with the lines of today's witnesses; None if there is none."""
    newest = newest_checkpoint(reading, log_id)
    if newest is None:
        return None
    ids = [row.id for row in enrolled(reading)]
    row: CheckpointRow | None = newest
    if which != "checkpoint":
        witnessed = _witnessed(reading, log_id, ids)
        if which == "checkpoint.witnessed":
            row = None if witnessed is None else checkpoint_at(reading, log_id, witnessed)
        elif ids and (begun := newest_cosigned(reading, log_id, ids)) is not None and begun > (witnessed or -1):
            held = checkpoint_at(reading, log_id, begun)
            row = held if held is not None and at - held.at < AMBER else newest
    return None if row is None else _with_lines(reading, row, ids)


def as_cosigned(reading: Reading, log_id: str, size: int) -> SignedCheckpoint | None:
    """The checkpoint of a size with the lines of those who witnessed when it was made; None if there is none."""
    row = checkpoint_at(reading, log_id, size)
    return None if row is None else _with_lines(reading, row, [one.id for one in enrolled_at(reading, row.at)])


def with_witnesses(reading: Reading, receipt: LogReceipt) -> LogReceipt:
    """The same receipt under a checkpoint that a quorum cosigned, if one covers it; else as it was."""
    proof = receipt.proof
    log_id = proof.signed.checkpoint.origin
    ids = [row.id for row in enrolled(reading)]
    size = _witnessed(reading, log_id, ids)
    row = None if size is None or size <= proof.index else checkpoint_at(reading, log_id, size)
    newest = newest_checkpoint(reading, log_id)
    if row is None or newest is None:
        return receipt
    hashes = TileHashes(SqlTiles(reading, log_id), newest.size)
    return LogReceipt.of(
        receipt.event_id, receipt.opening, leaf=proof.leaf, index=proof.index,
        path=inclusion_proof(hashes, proof.index, row.size), note=_with_lines(reading, row, ids).note,
    )  # fmt: skip


def consistency(reading: Reading, log_id: str, old: int, new: int) -> tuple[bytes, ...]:
    """The proof that the log of `new` leaves begins with that of `old`.

    Raises Malformed unless 0 <= old <= new, NotFound beyond the newest checkpoint.
    """
    newest = newest_checkpoint(reading, log_id)
    if not 0 <= old <= new:
        raise Malformed("old, new: a log grows")
    if newest is None or new > newest.size:
        raise NotFound("nothing of this size has been signed")
    return consistency_proof(TileHashes(SqlTiles(reading, log_id), newest.size), old, new)


def proof_text(proof: Sequence[bytes]) -> str:
    """A proof as C2SP writes it: a hash a line, in base64."""
    return "".join(f"{base64.b64encode(each).decode()}\n" for each in proof)


# --- How they stand --------------------------------------------------------------------------------------------------


def standing(reading: Reading, log_id: str, *, at: datetime) -> Standing:
    """How far each witness is with a shard, and the quorum; how long behind, of this shard or of one that was turned.

    A shard that has ended is asked of those alone who witnessed the log before it did.
    """
    newest, rows = newest_checkpoint(reading, log_id), enrolled(reading)
    ended = [shard for shard in every_shard(reading) if shard.closed_at is not None and not shard.frozen]
    behind = _quorum_behind(reading, log_id, rows, at) if rows else timedelta()
    for shard in ended:
        before = [row for row in rows if _saw(row, shard)]
        if len(before) >= quorum_of(len(rows)):
            behind = max(behind, _quorum_behind(reading, shard.log_id, rows, at))
    told = []
    for row in rows:
        last = newest_of(reading, log_id, row.id)
        shards = [log_id, *(shard.log_id for shard in ended if _saw(row, shard) and shard.log_id != log_id)]
        lag = max(_witness_behind(reading, each, row, at) for each in shards)
        told.append(
            WitnessStanding(
                name=row.name, organisation=row.organisation, size=last.size if last else 0,
                cosigned_at=datetime.fromtimestamp(last.t_s, UTC) if last else None,
                behind_s=int(lag.total_seconds()), state=_state(lag),
            )
        )  # fmt: skip
    return Standing(
        origin=log_id, size=newest.size if newest else 0, signed_at=newest.at if newest else None,
        witnessed=_witnessed(reading, log_id, [row.id for row in rows]) or 0, quorum=quorum_of(len(rows)),
        behind_s=int(behind.total_seconds()), state=_state(behind) if rows else "none", witnesses=tuple(told),
        conflicts=len(reading.all(ConflictRow)),
    )  # fmt: skip


def _saw(row: WitnessRow, shard: ShardRow) -> bool:
    return shard.closed_at is not None and row.enrolled_at < shard.closed_at


def _quorum_behind(reading: Reading, log_id: str, rows: Sequence[WitnessRow], at: datetime) -> timedelta:
    return _behind(reading, log_id, _witnessed(reading, log_id, [row.id for row in rows]) or 0, at)


def _witness_behind(reading: Reading, log_id: str, row: WitnessRow, at: datetime) -> timedelta:
    last = newest_of(reading, log_id, row.id)
    return _behind(reading, log_id, last.size if last else 0, at, since=row.enrolled_at)


def watch(store: Store, trail: Trail, *, who: Who, at: datetime) -> tuple[str, ...]:
    """Tell each lapse once: which witnesses are newly late.  Also has the log tell of conflicts that it could not yet.

    Raises LogUnavailable; what was not told is told the next time.
    """
    with store.reading() as reading:
        now = standing(reading, trail.origin, at=at)
        rows = {row.name: row for row in enrolled(reading)}
        untold = reading.all(ConflictRow, event_id="")
    changed = [one for one in now.witnesses if (one.state == "green") == (rows[one.name].late_since is not None)]
    if not changed and not untold:
        return ()
    late = []
    with store.transaction() as tx:
        for one in changed:
            row = tx.one(WitnessRow, id=rows[one.name].id)
            if row is None or row.removed_at is not None:
                continue
            if one.state == "green":
                row.late_since = None
            else:
                row.late_since = at - timedelta(seconds=one.behind_s)
                late.append(one.name)
                record_change(
                    tx, trail, "witness.late", who, at, witness=one.name, since=_instant(row.late_since),
                    size=one.size, log_size=now.size, quorum=now.state,
                )  # fmt: skip
            tx.add(row)
        for conflict in tx.all(ConflictRow, event_id="") if untold else ():
            conflict.event_id = _tell_conflict(tx, trail, conflict, who=who, at=at).event_id
            tx.add(conflict)
    for name in late:
        log.error("a witness is late", reason=name, size=now.size)
    return tuple(late)


class Watch:
    """A thread that looks once a minute how the witnesses stand."""

    def __init__(self, looks: Callable[[datetime], object]) -> None:
        self._looks = looks
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witnesses", daemon=True)

    def start(self) -> None:
        """Begin in a minute: a broker that was down is not its witnesses' lapse."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look at hand."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(LOOKS_EVERY):
            try:
                self._looks(clock.now())
            except Exception as wrong:  # the thread must outlive any fault; the next look tells what this one did not
                log.error("the look at the witnesses failed", fault=type(wrong).__name__)


# --- Inside ----------------------------------------------------------------------------------------------------------


def _parsed(note: bytes) -> SignedCheckpoint:
    if len(note) > MAX_NOTE_BYTES:
        raise TooLarge("a note is at most 64 KiB")
    try:
        return SignedCheckpoint.parse(note.decode())
    except UnicodeDecodeError:
        raise Malformed("not a signed note in UTF-8") from None
    except NoteInvalid as fault:
        raise Malformed(str(fault)) from None


def _held_against(reading: Reading, signed: SignedCheckpoint) -> tuple[str | None, CheckpointRow | None]:
    """What kind of conflict a note that the log signed is in, and the checkpoint of ours that it belongs beside."""
    origin, size, root = signed.checkpoint.origin, signed.checkpoint.size, signed.checkpoint.root
    newest = newest_checkpoint(reading, origin)
    if newest is None:
        return None, None
    if size > newest.size:
        return "larger_tree", newest
    try:
        if root_at(TileHashes(SqlTiles(reading, origin), newest.size), size) != root:
            return "another_tree", checkpoint_at(reading, origin, size) or newest
    except TileUnreadable:
        raise LogUnavailable("the log's tiles can't be read") from None
    return None, checkpoint_at(reading, origin, size)


def _keep_conflict(
    store: Store, trail: Trail, signed: SignedCheckpoint, ours: CheckpointRow, kind: str, *, who: Who, at: datetime
) -> None:
    """Keep both notes; then have the log tell it, or leave that to the next look if the log can't just now."""
    row_id = hashlib.sha256(signed.checkpoint.text.encode()).hexdigest()
    with store.transaction() as tx:
        if tx.one(ConflictRow, id=row_id) is not None:
            return
        tx.add(
            ConflictRow(
                id=row_id, log_id=signed.checkpoint.origin, size=signed.checkpoint.size, kind=kind,
                presented=signed.note.encode(), ours=ours.note, seen_at=at,
            )
        )  # fmt: skip
    log.error("the log's key has signed two trees", reason=kind, size=signed.checkpoint.size)
    try:
        with store.transaction() as tx:
            row = tx.one(ConflictRow, id=row_id)
            if row is not None:
                row.event_id = _tell_conflict(tx, trail, row, who=who, at=at).event_id
                tx.add(row)
    except LogUnavailable:
        return


def _tell_conflict(tx: Transaction, trail: Trail, row: ConflictRow, *, who: Who, at: datetime) -> EntryRef:
    notes = {"presented": hashlib.sha256(row.presented).hexdigest(), "ours": hashlib.sha256(row.ours).hexdigest()}
    return record_change(
        tx, trail, "witness.conflict", who, at, conflict=row.id, kind=row.kind, size=row.size, log=row.log_id,
        notes_sha256=notes,
    )  # fmt: skip


def _given(policy: Policy, signed: SignedCheckpoint, *, at: datetime) -> dict[str, tuple[int, Signature]]:
    """The lines of the policy's witnesses that hold, by name, each with its time in unix seconds."""
    found: dict[str, tuple[int, Signature]] = {}
    for name, key in policy.witnesses.items():
        try:
            t_s = signed.cosigned_at(key)
        except NoteInvalid:
            continue
        if t_s is None:
            continue
        if t_s > (at + CLOCKS).timestamp():
            raise Malformed("a witness's line is dated ahead of our clock")
        line = next(one for one in signed.signatures if (one.name, one.key_id) == (key.name, key.key_id))
        found[name] = (t_s, line)
    return found


def _witnessed(reading: Reading, log_id: str, ids: Sequence[str]) -> int | None:
    return newest_cosigned(reading, log_id, ids, by=quorum_of(len(ids))) if ids else None


def _with_lines(reading: Reading, row: CheckpointRow, ids: Sequence[str]) -> SignedCheckpoint:
    signed = SignedCheckpoint.parse(row.note.decode())
    for one in cosignatures(reading, row.log_id, row.size, ids):
        signed = signed.with_signature(Signature.parse(one.line))
    return signed


def _behind(reading: Reading, log_id: str, size: int, at: datetime, *, since: datetime | None = None) -> timedelta:
    """How long the oldest checkpoint beyond `size` has been there; but not from before `since`."""
    waiting = first_after(reading, log_id, size)
    if waiting is None:
        return timedelta()
    begun = waiting.at if since is None else max(waiting.at, since)
    return max(at - begun, timedelta())


def _state(behind: timedelta) -> State:
    return "green" if behind < AMBER else "amber" if behind < RED else "red"


def _witness_key(vkey: str) -> VerifierKey:
    try:
        key = VerifierKey.parse(vkey)
    except NoteInvalid as fault:
        raise Malformed(str(fault)) from None
    if key.kind != WITNESS_KEY:
        raise Malformed("a witness's verifier key is of type 0x04; this one is another kind's")
    return key


def _id(key: VerifierKey) -> str:
    return f"{key.name}+{key.key_id.hex()}"


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
