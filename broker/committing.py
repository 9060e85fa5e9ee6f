"""Group commit: what waits is sequenced and signed for all at once; and the latch that refuses while that fails.

`broker serve` runs a thread; in a command whoever waits does the work.  What waits is what lies in the outbox, and
events that are alone in their transaction (a read, and nothing else): these are handed over in memory, and written with
the rest of the batch.  Whoever handed one over waits for it, and is refused if it could not be written.

Three things stop every receipt, and whatever would be recorded:

    a fault     the database can't be reached: until it works again.  Where it is the signer, entries are still
                recorded and sequenced, and answers wait for it as long as the setting lets them
    no room     the disk is full, or fails: until there is room for the ballast and as much again.  A smaller entry may
                still fit, and is refused: a log that takes the small and drops the large is no record.  The ballast is
                let go first, so that `audit.degraded` can be told.
    a refusal   the signer refuses, or the tables are not those of the head: until a person has looked and the process
                starts anew
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from typing import Final

import structlog

from audit.checkpoint import SignedCheckpoint
from audit.events import Event, Leaf
from audit.sequencer import HeadDisagrees
from audit.signer import SignerRefused
from audit.tiles import TileMalformed, TileUnreadable
from broker.ballast import Ballast
from broker.checkpoints import Checkpoints
from broker.company import Company
from broker.errors import BrokerError, Conflict, EventStuck, LogUnavailable
from broker.keys import Keys
from broker.places import Awaited, Placed, Places
from broker.signing import Signers
from broker.store import Store, Transaction
from broker.store.doubles import rename_doubles
from broker.store.outbox import Written, put
from broker.store.roles import SEQUENCER
from broker.store.sequence import (
    BATCH,
    Batch,
    lock_newest,
    sequence,
    settled,
)

log = structlog.get_logger()
RETRY_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.2  # how soon a waiter sees what another process has sequenced
NO_ROOM: Final = "StoreFull"
ID_TAKEN: Final = "EventIdTaken"
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
SIGNER_DOWN: Final = "SignerUnavailable"


class Committer:
    """Sequences, signs, wakes those who wait, and refuses."""

    def __init__(self, store: Store, keys: Keys, signers: Signers, ballast: Ballast | None, *, linger_ms: int) -> None:
        self._store = store
        self._keys = keys
        self._ballast = ballast
        self._degraded: Callable[[Transaction, str, str], str] | None = None
        self._places = Places()
        self._checkpoints = Checkpoints(store, signers)
        self._lone: dict[bytes, Written] = {}
        self._company = Company(linger_ms / 1000)
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._broken: str | None = None  # why no receipt is given just now
        self._for_good = False
        self._room = threading.Lock()  # one thread at a time looks for room
        self._told = False
        self._mine = threading.local()
        store.full = self.no_room
        store.before = self._look_for_room
        if ballast is not None and not ballast.take():
            self.no_room()

    def tells(self, degraded: Callable[[Transaction, str, str], str]) -> None:
        """How to record that the log is degraded, or in order again, and why; gives the event's id."""
        self._degraded = degraded

    @property
    def running(self) -> bool:
        """Whether a thread does the work."""
        return self._thread is not None

    def place_of(self, event: Awaited, seconds: float, *, lone: Written | None = None) -> Placed:
        """Where an event stands, once it is under a signed checkpoint; its transaction has committed, or is ours.

        Waits at most so long.  Raises LogUnavailable, and Conflict if another event has its id.
        """
        self.refuse_if_broken()
        until = time.monotonic() + seconds
        future = self._places.expect(event)
        if lone is not None:
            self._lone[event.commitment] = lone
        self.wake()
        try:
            while True:
                if self._thread is None and not future.done():
                    self.advance()
                left = until - time.monotonic()
                with suppress(TimeoutError):
                    return future.result(max(0, left if self._thread is not None else min(left, POLL_SECONDS)))
                if left <= 0:
                    raise LogUnavailable("no signed checkpoint covers the entry in time")
        finally:
            self._lone.pop(event.commitment, None)
            self._places.forget(future)

    def advance(self) -> int:
        """Sequence all that waits and have it signed, in this process; the size of the newest shard that is signed.

        Any process may: of two, one writes and the other finds nothing left.  Raises LogUnavailable, with the latch
        set, if that fails.
        """
        self._look_for_room()
        if self._broken == NO_ROOM:
            raise LogUnavailable("there is no room for the log")
        awaited = self._places.awaited()
        try:
            batches = [self._sequence()]
            while len(batches[-1].entries) == BATCH:
                batches.append(self._sequence())
            newest = batches[-1]
            signed, hashes = self._checkpoints.sign(newest)
            entries = [one for batch in batches if batch.log_id == newest.log_id for one in batch.entries]
            if entries and signed.checkpoint.size == newest.head.size:
                places = {one.leaf.commitment: (one.index, one.leaf) for one in entries}
                self._places.settle(Placed(places, hashes, signed), ours=True)
            self._settle(awaited)
        except (SignerRefused, HeadDisagrees, TileMalformed, TileUnreadable) as wrong:
            self.latch(type(wrong).__name__, for_good=True)
            raise LogUnavailable("the log is not what was signed before; a person must look") from None
        except EventStuck as wrong:
            if self._broken != EventStuck.__name__:
                log.error("an event that waits holds up the log", fault=str(wrong))
            self.latch(EventStuck.__name__)
            raise LogUnavailable(str(wrong)) from None
        except (BrokerError, OSError) as wrong:
            if isinstance(wrong, OSError) and wrong.errno in FULL:  # the signer's folder, on our own disk
                self.no_room()
            self.latch(type(wrong).__name__)
            raise LogUnavailable("the log can't be sequenced or signed just now") from None
        if self._broken and not self._for_good and self._broken != NO_ROOM:
            self._broken = None
            log.info("log in order again")
        self._company.expect(len(entries))
        return signed.checkpoint.size

    def start(self) -> None:
        """Start the thread; also takes in what an earlier process left waiting."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)
            self._company.come()
            self._thread.start()

    def stop(self) -> None:
        """Finish what waits and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            self._company.come()
            thread.join(timeout=10)

    def wake(self) -> None:
        """Have what was recorded sequenced soon, though nobody waits for its receipt."""
        self._company.come()

    def broken(self) -> str | None:
        """Why no receipt is given just now: the fault's name; None when all is well."""
        return self._broken

    def refuse_if_broken(self) -> None:
        """Raises LogUnavailable while the latch is set."""
        if getattr(self._mine, "telling", False) or self._broken == SIGNER_DOWN:
            return  # without the signer entries are taken in all the same, and answers wait for it as long as they may
        if self._broken and (self._for_good or self._broken == NO_ROOM or self._thread is not None):
            raise LogUnavailable("the log can't record just now")

    def latch(self, reason: str, *, for_good: bool = False) -> None:
        """Refuse from now on.  What needs a person, and what needs room, is not forgotten for a lesser fault."""
        if for_good or (not self._for_good and self._broken != NO_ROOM):
            self._broken = reason
        self._for_good = self._for_good or for_good
        log.error("log out of order", reason=reason)
        self._refuse_who_waits()

    def no_room(self) -> None:
        """Refuse until there is room again."""
        if not self._for_good and self._broken != NO_ROOM:
            self._told = False
            self._broken = NO_ROOM
            log.error("log out of order", reason=NO_ROOM)
        self._refuse_who_waits()
        self._company.come()

    def _look_for_room(self) -> None:
        """While the disk was full: tell it, by the room of the ballast, and open the latch once there is enough."""
        if self._broken != NO_ROOM or getattr(self._mine, "telling", False):
            return
        if self._thread is not None and threading.current_thread() is not self._thread:
            return  # the thread does that, once a second
        if not self._room.acquire(blocking=False):
            return
        try:
            self._told = self._told or self._tell("degraded")
            if self._told and self._has_room() and self._tell("restored"):
                self._broken = "SignerRefused" if self._for_good else None
                log.info("log in order again")
        finally:
            self._room.release()

    def _has_room(self) -> bool:
        size = self._ballast.size if self._ballast is not None else BATCH
        return (self._ballast is None or self._ballast.take()) and self._store.has_room(size)

    def _tell(self, outcome: str) -> bool:
        """Whether `audit.degraded` is in the log, signed: that entry alone, so that the ballast's room does for it."""
        if self._degraded is None:
            return True
        if outcome == "degraded" and self._ballast is not None:
            self._ballast.let_go()
        with self._telling():
            try:
                with self._store.transaction(SEQUENCER) as tx:
                    batch = sequence(tx, self._keys, only=self._degraded(tx, outcome, NO_ROOM))
                self._checkpoints.sign(batch)
            except SignerRefused as wrong:
                self.latch(type(wrong).__name__, for_good=True)
                return False
            except (BrokerError, OSError):
                return False
        return True

    @contextmanager
    def _telling(self) -> Iterator[None]:
        self._mine.telling = True
        try:
            yield
        finally:
            self._mine.telling = False

    def _run(self) -> None:
        while not self._stopping:
            self._company.wait(RETRY_SECONDS)
            if self._for_good:
                self._refuse_who_waits()
                continue
            try:
                self.advance()
            except LogUnavailable:
                self._refuse_who_waits()
                time.sleep(0 if self._stopping else RETRY_SECONDS)
            except Exception as wrong:  # the thread must outlive any fault, and refuse meanwhile
                self.latch(type(wrong).__name__)
        with suppress(LogUnavailable):  # what still waits is safe in the outbox, and is taken in at the next start
            self.advance()

    def _refuse_who_waits(self) -> None:
        """Those who wait, if there is nothing to be had; without the signer they wait as long as they may."""
        try:
            self.refuse_if_broken()
        except LogUnavailable as refused:
            self._lone.clear()
            self._places.fail(refused)

    def _sequence(self) -> Batch:
        """One batch, in one transaction."""
        lone = [one for which in list(self._lone)[:BATCH] if (one := self._lone.pop(which, None)) is not None]
        try:
            with self._store.transaction(SEQUENCER) as tx:
                batch = sequence(tx, self._keys, limit=BATCH - len(lone), lone=lone)
        except Conflict:
            if lone:
                self._put_apart(lone)
            elif not self._renamed():
                raise
            return self._sequence()
        except Exception:
            self._places.fail(LogUnavailable("the log can't take the entry just now"), [one.commitment for one in lone])
            raise
        return batch

    def _put_apart(self, lone: Sequence[Written]) -> None:
        """One of these is there already: each goes by the outbox, so that it does no harm to the others."""
        for one in lone:
            try:
                with self._store.transaction() as tx:
                    put(tx, self._keys, one)
            except BrokerError as wrong:
                self._places.fail(wrong, [one.commitment])

    def _renamed(self) -> bool:
        """Whether something waited under an id that the log has: it has a fresh one now, and the log says so."""
        with self._telling(), self._store.transaction(SEQUENCER) as tx:
            lock_newest(tx)
            doubles, count = rename_doubles(tx, self._keys)
            if count and self._degraded is not None:
                self._degraded(tx, "renamed", ID_TAKEN)
        if count:
            log.error("events waited under ids that the log has: each has a fresh one", count=count)
        return doubles > 0

    def _settle(self, awaited: Set[Awaited]) -> None:
        """Look up, for all who waited since before the round, what another process has sequenced."""
        others = {event.event_id: event for event in awaited & self._places.awaited()}
        if not others:
            return
        with self._store.reading() as reading:
            for log_id, found in settled(reading, others.keys()).items():
                leaves = {row.event_id: (row.seq, Leaf.parse(row.leaf)) for row in found.rows}
                taken = [event for one, event in others.items() if one in leaves and not _same(event, leaves[one][1])]
                self._places.fail(Conflict("another event has this id"), [event.commitment for event in taken])
                if found.note is not None:
                    signed = SignedCheckpoint.parse(found.note.decode())
                    size = signed.checkpoint.size
                    entries = {leaf.commitment: (seq, leaf) for seq, leaf in leaves.values() if seq < size}
                    hashes = self._checkpoints.hashes(log_id, size, found.tiles)
                    self._places.settle(Placed(entries, hashes, signed), ours=False)


def _same(event: Awaited, leaf: Leaf) -> bool:
    return event.commitment == leaf.commitment


def degraded(event_id: str, host: str, outcome: str, reason: str) -> Event:
    """The event that says that the log was out of order, and why, or is in order again."""
    return Event(
        id=event_id, type="audit.degraded", who={"organisation": host}, what={"outcome": outcome, "reason": reason},
        why={}, detail={},
    )  # fmt: skip
