"""The log's shell: outbox in the business transaction, sequenced, under a signed checkpoint; answers wait here.

    record   the event's row joins the transaction of the act: both are kept, or neither
    sequence any process moves what waits into the tree, in one transaction, under the head's lock
    sign     the signer, which keeps its own state, signs the grown tree or refuses
    receipt  whoever answers waits until a signed checkpoint covers the entry; else LogUnavailable, and nothing leaves

The middle two, and what happens when they fail, are `broker.committing`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from audit.events import SHOWN_TO_ASKER, Event, InvalidEvent, Json, Leaf, Opening, Sealed, SectionName, seal
from audit.merkle import inclusion_proof
from audit.receipts import LogReceipt, ReceiptInvalid
from audit.tiles import TileHashes, TileMalformed, TileUnreadable
from broker import clock
from broker.ballast import Ballast
from broker.committing import POLL_SECONDS, Committer, degraded
from broker.errors import EventTooLarge, LogUnavailable, NotFound, StoreUnavailable
from broker.keys import DataKey, Keys
from broker.places import Awaited, Placed
from broker.signing import Signers
from broker.store import Reading, Store, Transaction
from broker.store.event_keys import (
    NO_SUBJECT,
    FreshKey,
    event_key,
    open_blob,
    open_body,
    seal_blob,
    seal_new_body,
    sole_subject,
)
from broker.store.log import BlobRow, CheckpointRow, EventRow
from broker.store.outbox import Written, put
from broker.store.sequence import SqlTiles, entry_of, head_of, newest_checkpoint, waiting
from broker.store.shards import current_shard

Who = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class EntryRef:
    """An event that has been written, in a transaction that may not have committed yet."""

    event_id: str
    sealed: Sealed | None = field(default=None, repr=False, compare=False)  # as written: spares its receipt a reading


def new_event_id() -> str:
    """A random id for an event."""
    return secrets.token_hex(16)


def record_change(tx: Transaction, trail: Trail, event_type: str, who: Who, at: datetime, **what: Json) -> EntryRef:
    """Record a change of what the host keeps (an agency, an agreement, a key): who made it, and `what` it is."""
    event = Event(id=new_event_id(), type=event_type, who=who, what=what, why={}, detail={})
    return trail.record(tx, event, at=at)


class Trail:
    """`record` inside the transaction, `receipt` after it; nothing leaves in between."""

    def __init__(
        self, store: Store, keys: Keys, signers: Signers, *, seconds: float = 5.0, linger_ms: int = 5, host: str = "",
        ballast: Ballast | None = None,
    ) -> None:  # fmt: skip
        """`host`: the partnership, as the log's entries about itself name it."""
        self._store = store
        self._keys = keys
        self._seconds = seconds
        self.signers = signers
        self.host = host
        self._committer = Committer(store, keys, signers, ballast, linger_ms=linger_ms)
        self._committer.tells(
            lambda tx, outcome, why: self.record(tx, degraded(new_event_id(), host, outcome, why)).event_id
        )

    @property
    def origin(self) -> str:
        """The origin of the shard that entries go to.  Raises LogUnavailable before the log was opened."""
        with self._store.reading() as reading:
            shard = current_shard(reading)
        if shard is None:
            raise LogUnavailable("the log has not been opened: run `broker migrate`")
        return shard.log_id

    @property
    def store(self) -> Store:
        """Where the log is kept."""
        return self._store

    @property
    def keys(self) -> Keys:
        """The broker's own keys, for what is signed in the transaction of an act."""
        return self._keys

    def record(
        self,
        tx: Transaction,
        event: Event,
        *,
        about: Iterable[str] = (),
        blobs: Mapping[str, bytes] | None = None,
        idempotency_key: str | None = None,
        at: datetime | None = None,
    ) -> EntryRef:
        """Write an event into the transaction of the act it is evidence of.

        `about`: ids of those concerned, shown or hidden, for the subject index.  `blobs`: what is too large for an
        event (decision receipts), sealed beside it.  With an `idempotency_key` that was used before, or an id that the
        log has, raises Conflict: here, or where the transaction next asks the database or commits.
        Raises LogUnavailable if the log is out of order, EventTooLarge over 8 KiB.
        """
        self._committer.refuse_if_broken()
        sealed, written = self._sealed(event, about, blobs, idempotency_key, at)
        put(tx, self._keys, written)
        return EntryRef(event.id, sealed)

    def receipt(
        self,
        entry: EntryRef,
        timeout: float | None = None,
        *,
        show: Collection[SectionName] = SHOWN_TO_ASKER,
    ) -> LogReceipt:
        """The entry's receipt, once a signed checkpoint covers it; its transaction must have committed.

        Waits up to `timeout` seconds (default: the setting).  `show`: the sections that the receipt opens.
        Raises LogUnavailable if the log can't sequence or sign by then: the answer is then a refusal.
        """
        seconds = self._seconds if timeout is None else timeout
        if entry.sealed is None:
            return self._receipt_once_covered(entry.event_id, seconds, show)
        placed = self._committer.place_of(Awaited(entry.event_id, entry.sealed.commitment), seconds)
        return self._receipt_of(entry.sealed, placed, show)

    def receipt_for(
        self,
        event: Event,
        *,
        about: Iterable[str] = (),
        blobs: Mapping[str, bytes] | None = None,
        at: datetime | None = None,
        show: Collection[SectionName] = SHOWN_TO_ASKER,
    ) -> LogReceipt:
        """Record an event that is alone in its transaction (a read, and nothing else), and give its receipt.

        As `record`, commit and `receipt`, but it is written with all others of its batch, in one transaction.
        Raises as they do; after LogUnavailable the event may be in the log all the same, and nothing may leave.
        """
        self._committer.refuse_if_broken()
        sealed, written = self._sealed(event, about, blobs, None, at)
        awaited = Awaited(event.id, sealed.commitment)
        placed = self._committer.place_of(awaited, self._seconds, lone=written)
        return self._receipt_of(sealed, placed, show)

    def opening(self, event_id: str, *, show: Collection[SectionName]) -> Opening:
        """An event with some of its sections opened.  Raises NotFound if there is none, or it was erased."""
        with self._store.reading() as reading:
            found = self._opened(reading, event_id)
        if found is None:
            raise NotFound("there is no such event, or it was erased")
        return found.redacted(show)

    def blob(self, event_id: str, name: str) -> bytes:
        """What was sealed beside an event.  Raises NotFound."""
        with self._store.reading() as reading:
            row = reading.one(BlobRow, event_id=event_id, name=name)
            key = event_key(reading, self._keys, event_id)
        if row is None or key is None:
            raise NotFound("there is no such part of an event, or it was erased")
        return open_blob(key, event_id, name, row.sealed)

    def advance_pending(self) -> int:
        """Sequence all that waits and have it signed, in this process; the size that is signed now.

        Any process may: of two, one writes and the other finds nothing left.  Raises LogUnavailable, with the latch
        set, if that fails.
        """
        return self._committer.advance()

    def start(self) -> None:
        """Start the group-commit thread; also takes in what an earlier process left waiting."""
        self._committer.start()

    def stop(self) -> None:
        """Finish what waits and end the thread."""
        self._committer.stop()

    def opened(self, reading: Reading) -> bool:
        """Whether the log has its first entry, or has it waiting."""
        shard = current_shard(reading)
        head = head_of(reading, shard.log_id) if shard is not None else None
        return bool(head and head.size) or waiting(reading) > 0

    def wake(self) -> None:
        """Have what was recorded sequenced soon, though nobody waits for its receipt."""
        self._committer.wake()

    def broken(self) -> str | None:
        """Why no receipt is given just now: the fault's name; None when all is well."""
        return self._committer.broken()

    def signed(self) -> CheckpointRow | None:
        """The newest signed checkpoint."""
        with self._store.reading() as reading:
            return newest_checkpoint(reading, self.origin)

    def unsequenced(self) -> int:
        """How many events wait."""
        with self._store.reading() as reading:
            return waiting(reading)

    def _sealed(
        self, event: Event, about: Iterable[str], blobs: Mapping[str, bytes] | None, idempotency_key: str | None,
        at: datetime | None,
    ) -> tuple[Sealed, Written]:  # fmt: skip
        try:
            sealed = seal(event, at_ms=clock.milliseconds(at or clock.now()))
        except InvalidEvent as wrong:
            raise EventTooLarge(str(wrong)) from None
        ids = set(about)
        key, sole = DataKey.fresh(), sole_subject(ids)
        sections, detail = seal_new_body(key, sealed)
        return sealed, Written(
            event_id=event.id, at_ms=sealed.at_ms, commitment=sealed.commitment, columns=_columns(event),
            sections=sections, detail=detail, subjects=sorted(map(self._keys.subject_index, ids)),
            key=FreshKey(event.id, key, self._keys.subject_index(sole) if sole is not None else NO_SUBJECT),
            blobs={name: seal_blob(key, event.id, name, blob) for name, blob in (blobs or {}).items()},
            idempotency_key=idempotency_key,
        )  # fmt: skip

    def _receipt_of(self, sealed: Sealed, placed: Placed, show: Collection[SectionName]) -> LogReceipt:
        """The receipt of an event that this process sealed."""
        try:
            return LogReceipt.of_sealed(sealed, show, placed.proof(sealed.commitment))
        except (ReceiptInvalid, TileMalformed, TileUnreadable) as wrong:
            raise self._not_as_signed(wrong) from None

    def _receipt_once_covered(self, event_id: str, seconds: float, show: Collection[SectionName]) -> LogReceipt:
        """The receipt of an event that was recorded elsewhere, or long ago: read from the tables."""
        until = time.monotonic() + seconds
        while True:
            self._committer.refuse_if_broken()
            if (found := self._covered_receipt(event_id, show)) is not None:
                return found
            if self._committer.running:
                self._committer.wake()
            elif self._committer.advance() and (found := self._covered_receipt(event_id, show)) is not None:
                return found
            if time.monotonic() > until:
                raise LogUnavailable("no signed checkpoint covers the entry in time")
            time.sleep(POLL_SECONDS)

    def _covered_receipt(self, event_id: str, show: Collection[SectionName]) -> LogReceipt | None:
        try:
            with self._store.reading() as reading:
                entry = entry_of(reading, event_id)
                checkpoint = newest_checkpoint(reading, entry.log_id) if entry is not None else None
                if entry is None or checkpoint is None or checkpoint.size <= entry.seq:
                    return None
                return self.receipt_under(reading, event_id, checkpoint, show=show)
        except StoreUnavailable:
            raise LogUnavailable("the log can't be read just now") from None

    def receipt_under(
        self, reading: Reading, event_id: str, checkpoint: CheckpointRow, *, show: Collection[SectionName]
    ) -> LogReceipt | None:
        """The receipt of an entry under one checkpoint that covers it; None if its body was erased or lost."""
        entry, opening = entry_of(reading, event_id), self._opened(reading, event_id)
        if entry is None or opening is None:
            return None
        hashes = TileHashes(SqlTiles(reading, entry.log_id), checkpoint.size)
        try:
            return LogReceipt.of(
                event_id,
                opening.redacted(show),
                leaf=Leaf.parse(entry.leaf),
                index=entry.seq,
                path=inclusion_proof(hashes, entry.seq, checkpoint.size),
                note=checkpoint.note.decode(),
            )
        except (ReceiptInvalid, InvalidEvent, TileMalformed, TileUnreadable) as wrong:
            raise self._not_as_signed(wrong) from None

    def _not_as_signed(self, wrong: Exception) -> LogUnavailable:
        self._committer.latch(type(wrong).__name__, for_good=True)
        return LogUnavailable("the log is not what was signed; a person must look")

    def _opened(self, reading: Reading, event_id: str) -> Opening | None:
        row, key = reading.one(EventRow, event_id=event_id), event_key(reading, self._keys, event_id)
        if row is None or key is None or row.sections is None or row.detail is None:
            return None
        return open_body(key, event_id, row.sections, row.detail)


def _columns(event: Event) -> dict[str, Any]:
    who, what, why = event.who, event.what, event.why
    return {
        "type": event.type,
        "op": event.op.value,
        "org": _text(who, "organisation"),
        "actor_ref": _text(who, "person"),
        "role": _text(who, "role"),
        "purpose": _text(why, "purpose"),
        "case_hmac": _text(why, "case"),
        "outcome": _text(what, "outcome"),
        "break_glass": what.get("break_glass") is True,
    }


def _text(body: Mapping[str, Json], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) and "\0" not in value else ""  # PostgreSQL keeps no such text
