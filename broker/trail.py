"""The log's shell: outbox in the business transaction, sequenced, under a signed checkpoint; answers wait here.

    record   the event's row joins the transaction of the act: both are kept, or neither
    sequence any process moves what waits into the tree, in one transaction, under the head's lock
    sign     the signer, which keeps its own state, signs the grown tree or refuses
    receipt  whoever answers waits until a signed checkpoint covers the entry; else LogUnavailable, and nothing leaves

`broker serve` runs a thread that sequences and signs for all waiting requests at once (group commit); in a command the
waiting itself does the work.  When sequencing or signing fails, a latch refuses every receipt until it works again;
when the signer refuses, or the tables are not those of the head, until a person has looked and the process starts anew.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import structlog

from audit.events import SHOWN_TO_ASKER, Event, InvalidEvent, Json, Leaf, Opening, SectionName, seal
from audit.merkle import consistency_proof, inclusion_proof
from audit.receipts import LogReceipt, ReceiptInvalid
from audit.sequencer import HeadDisagrees
from audit.signer import Growth, Signer, SignerRefused
from audit.tiles import TileHashes, TileMalformed, TileUnreadable
from broker import clock
from broker.errors import BrokerError, EventTooLarge, LogUnavailable, NotFound
from broker.keys import Keys
from broker.store import Reading, Store, Transaction
from broker.store.event_keys import (
    event_key,
    new_event_key,
    open_blob,
    open_body,
    seal_blob,
    seal_body,
    sole_subject,
)
from broker.store.log import BlobRow, CheckpointRow, EventRow, OutboxRow
from broker.store.sequence import (
    BATCH,
    SqlTiles,
    entry_of,
    head_of,
    keep_checkpoint,
    newest_checkpoint,
    open_log,
    sequence,
    waiting,
)

log = structlog.get_logger()
Who = Mapping[str, Json]
RETRY_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.2  # how soon a waiter sees what another process has sequenced


@dataclass(frozen=True, slots=True)
class EntryRef:
    """An event that has been written, in a transaction that may not have committed yet."""

    event_id: str


def new_event_id() -> str:
    """A random id for an event."""
    return secrets.token_hex(16)


def record_change(tx: Transaction, trail: Trail, event_type: str, who: Who, at: datetime, **what: Json) -> EntryRef:
    """Record a change of what the host keeps (an agency, an agreement, a key): who made it, and `what` it is."""
    event = Event(id=new_event_id(), type=event_type, who=who, what=what, why={}, detail={})
    return trail.record(tx, event, at=at)


class Trail:
    """`record` inside the transaction, `receipt` after it; nothing leaves in between."""

    def __init__(self, store: Store, keys: Keys, signer: Signer, *, seconds: float = 5.0, linger_ms: int = 5) -> None:
        self.origin: Final = signer.origin
        self._store = store
        self._keys = keys
        self._signer = signer
        self._seconds = seconds
        self._linger = linger_ms / 1000
        self._covered = threading.Condition()
        self._rounds = 0
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._broken: str | None = None  # why no receipt is given just now
        self._for_good = False

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
        event (decision receipts), sealed beside it.  With an `idempotency_key` that was used before, raises Conflict.
        Raises LogUnavailable if the log is out of order, EventTooLarge over 8 KiB.
        """
        self._refuse_if_broken()
        at_ms = clock.milliseconds(at or clock.now())
        try:
            sealed = seal(event, at_ms=at_ms)
        except InvalidEvent as wrong:
            raise EventTooLarge(str(wrong)) from None
        ids = set(about)
        sole = sole_subject(ids)
        subject = self._keys.subject_index(sole) if sole is not None else None
        key = new_event_key(tx, self._keys, event.id, subject=subject)
        sections, detail = seal_body(key, event.id, Opening(dict(sealed.sections)))
        row = OutboxRow(
            event_id=event.id,
            idem_key=idempotency_key,
            at_ms=at_ms,
            commitment=sealed.commitment,
            columns=_columns(event),
            sections=sections,
            detail=detail,
            subjects=sorted(map(self._keys.subject_index, ids)),
        )
        tx.add(row)
        for name, blob in (blobs or {}).items():
            tx.add(BlobRow(event_id=event.id, name=name, sealed=seal_blob(key, event.id, name, blob)))
        tx.flush()
        return EntryRef(event.id)

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
        until = time.monotonic() + (self._seconds if timeout is None else timeout)
        while True:
            self._refuse_if_broken()
            seen = self._rounds
            if self._thread is None:
                self.advance_pending()
            with self._store.reading() as reading:
                found = self._covered_receipt(reading, entry.event_id, show)
            if found is not None:
                return found
            left = until - time.monotonic()
            if left <= 0:
                raise LogUnavailable("no signed checkpoint covers the entry in time")
            with self._covered:
                self._wake.set()
                if self._rounds == seen:  # else a checkpoint was signed since we looked
                    self._covered.wait(min(left, POLL_SECONDS))

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
        try:
            while True:
                with self._store.transaction() as tx:
                    step = sequence(tx, self.origin)
                if step is None or len(step.entries) < BATCH:
                    break
            size = self._sign()
        except (SignerRefused, HeadDisagrees, TileMalformed, TileUnreadable) as wrong:
            self._latch(type(wrong).__name__, for_good=True)
            raise LogUnavailable("the log is not what was signed before; a person must look") from None
        except (BrokerError, OSError) as wrong:
            self._latch(type(wrong).__name__)
            raise LogUnavailable("the log can't be sequenced or signed just now") from None
        if self._broken and not self._for_good:
            self._broken = None
            log.info("log in order again")
        self._tell_waiters()
        return size

    def start(self) -> None:
        """Start the group-commit thread; also takes in what an earlier process left waiting."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)
            self._wake.set()
            self._thread.start()

    def stop(self) -> None:
        """Finish what waits and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            self._wake.set()
            thread.join(timeout=10)

    def opened(self, reading: Reading) -> bool:
        """Whether the log has its first entry, or has it waiting."""
        head = head_of(reading, self.origin)
        return bool(head and head.size) or waiting(reading) > 0

    def wake(self) -> None:
        """Have what was recorded sequenced soon, though nobody waits for its receipt."""
        self._wake.set()

    def broken(self) -> str | None:
        """Why no receipt is given just now: the fault's name; None when all is well."""
        return self._broken

    def signed(self) -> CheckpointRow | None:
        """The newest signed checkpoint."""
        with self._store.reading() as reading:
            return newest_checkpoint(reading, self.origin)

    def unsequenced(self) -> int:
        """How many events wait."""
        with self._store.reading() as reading:
            return waiting(reading)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(RETRY_SECONDS)
            if self._wake.is_set() and self._linger and not self._stopping:
                time.sleep(self._linger)  # company: one fsync and one signature for all of it
            self._wake.clear()
            if self._for_good:
                continue
            try:
                self.advance_pending()
            except LogUnavailable:
                self._tell_waiters()
                time.sleep(0 if self._stopping else RETRY_SECONDS)
            except Exception as wrong:  # the thread must outlive any fault, and refuse meanwhile
                self._latch(type(wrong).__name__)
        with suppress(LogUnavailable):  # what still waits is safe in the outbox, and is taken in at the next start
            self.advance_pending()

    def _tell_waiters(self) -> None:
        with self._covered:
            self._rounds += 1
            self._covered.notify_all()

    def _sign(self) -> int:
        def newest(signed: int) -> Growth:
            with self._store.reading() as reading:
                head = head_of(reading, self.origin)
                if head is None:
                    raise LogUnavailable("the log has not been opened: run `broker migrate`")
                if head.size < signed:
                    return Growth(head.frontier)  # which the signer refuses
                proof = consistency_proof(TileHashes(SqlTiles(reading, self.origin), head.size), signed, head.size)
                return Growth(head.frontier, proof)

        with self._store.reading() as reading:
            head, kept = head_of(reading, self.origin), newest_checkpoint(reading, self.origin)
        if head is not None and kept is not None and kept.size == head.size == self._signer.size:
            return head.size
        note = self._signer.sign_newest(newest)
        size = int(note.split("\n")[1])
        with self._store.transaction() as tx:
            keep_checkpoint(tx, self.origin, size, note.encode(), at=clock.now())
        return size

    def _covered_receipt(self, reading: Reading, event_id: str, show: Collection[SectionName]) -> LogReceipt | None:
        entry, checkpoint = entry_of(reading, event_id), newest_checkpoint(reading, self.origin)
        if entry is None or checkpoint is None or checkpoint.size <= entry.seq:
            return None
        opening = self._opened(reading, event_id)
        if opening is None:
            return None
        hashes = TileHashes(SqlTiles(reading, self.origin), checkpoint.size)
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
            self._latch(type(wrong).__name__, for_good=True)
            raise LogUnavailable("the log is not what was signed; a person must look") from None

    def _opened(self, reading: Reading, event_id: str) -> Opening | None:
        row, key = reading.one(EventRow, event_id=event_id), event_key(reading, self._keys, event_id)
        if row is None or key is None or row.sections is None or row.detail is None:
            return None
        return open_body(key, event_id, row.sections, row.detail)

    def _refuse_if_broken(self) -> None:
        if self._broken and (self._for_good or self._thread is not None):
            raise LogUnavailable("the log can't record just now")

    def _latch(self, reason: str, *, for_good: bool = False) -> None:
        self._broken, self._for_good = reason, self._for_good or for_good
        log.error("log out of order", reason=reason)


def open_for_writing(store: Store, keys: Keys, signer_state: Path, origin: str) -> Signer:
    """The signer of a log, opened now if neither the tables nor the signer know of it.

    Raises LogUnavailable if one of the two knows of it and the other does not: a database was put back, or the
    signer's state was lost, and a person must decide.
    """
    with store.transaction() as tx:
        head = head_of(tx, origin)
        if not signer_state.exists():
            if head is not None and head.size:
                raise LogUnavailable("the signer's state is missing, but the log has entries")
            signer = Signer.create(signer_state, keys.log_key, origin)
        else:
            signer = Signer(signer_state, keys.log_key, origin)
        if head is None:
            if signer.size:
                raise LogUnavailable("the signer has signed a log that this database does not hold")
            open_log(tx, origin)
    return signer


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
    return value if isinstance(value, str) else ""
