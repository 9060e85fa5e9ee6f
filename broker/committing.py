"""Group commit: what waits is sequenced and signed for all at once; and the latch that refuses while that fails.

`broker serve` runs a thread; in a command whoever waits does the work.  Three things stop every receipt, and whatever
would be recorded:

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import structlog

from audit.events import Event
from audit.merkle import consistency_proof
from audit.sequencer import Entry, HeadDisagrees
from audit.signer import Growth, SignerRefused
from audit.tiles import TileHashes, TileMalformed, TileUnreadable
from broker import clock
from broker.ballast import Ballast
from broker.errors import BrokerError, LogUnavailable
from broker.keys import Keys
from broker.places import Places
from broker.signing import Signers
from broker.store import Reading, Store, Transaction
from broker.store.sequence import BATCH, SqlTiles, head_of, keep_checkpoint, newest_checkpoint, sequence
from broker.store.shards import ShardRow, every_shard

log = structlog.get_logger()
RETRY_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.2  # how soon a waiter sees what another process has sequenced
NO_ROOM: Final = "StoreFull"
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
SIGNER_DOWN: Final = "SignerUnavailable"


class Committer:
    """Sequences, signs, wakes those who wait, and refuses."""

    def __init__(self, store: Store, keys: Keys, signers: Signers, ballast: Ballast | None, *, linger_ms: int) -> None:
        self._store = store
        self._keys = keys
        self._signers = signers
        self._ballast = ballast
        self._linger = linger_ms / 1000
        self._degraded: Callable[[Transaction, str], str] | None = None
        self._covered = threading.Condition()
        self._rounds = 0
        self.begun, self.ended = 0, 0  # rounds of sequencing and signing, by number
        self.places = Places()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._broken: str | None = None  # why no receipt is given just now
        self._for_good = False
        self._room = threading.Lock()  # one thread at a time looks for room
        self._told = False
        self._mine = threading.local()
        self._finished: set[str] = set()  # shards that were closed, signed to their end, and closed at the signer
        store.full = self.no_room
        store.before = self._look_for_room
        if ballast is not None and not ballast.take():
            self.no_room()

    def tells(self, degraded: Callable[[Transaction, str], str]) -> None:
        """How to record that the log is degraded, or in order again; gives the event's id."""
        self._degraded = degraded

    @property
    def rounds(self) -> int:
        """How many times those who wait have been told to look."""
        return self._rounds

    @property
    def running(self) -> bool:
        """Whether a thread does the work."""
        return self._thread is not None

    def advance(self) -> int:
        """Sequence all that waits and have it signed, in this process; the size of the newest shard that is signed.

        Any process may: of two, one writes and the other finds nothing left.  Raises LogUnavailable, with the latch
        set, if that fails.
        """
        self.begun = number = self.begun + 1
        self._look_for_room()
        if self._broken == NO_ROOM:
            raise LogUnavailable("there is no room for the log")
        entries: list[Entry] = []
        try:
            while True:
                with self._store.transaction() as tx:
                    step = sequence(tx, self._keys)
                if step is not None:
                    entries += step.entries
                if step is None or len(step.entries) < BATCH:
                    break
            size = self._sign(entries)
        except (SignerRefused, HeadDisagrees, TileMalformed, TileUnreadable) as wrong:
            self.latch(type(wrong).__name__, for_good=True)
            raise LogUnavailable("the log is not what was signed before; a person must look") from None
        except (BrokerError, OSError) as wrong:
            if isinstance(wrong, OSError) and wrong.errno in FULL:  # the signer's folder, on our own disk
                self.no_room()
            self.latch(type(wrong).__name__)
            raise LogUnavailable("the log can't be sequenced or signed just now") from None
        if self._broken and not self._for_good and self._broken != NO_ROOM:
            self._broken = None
            log.info("log in order again")
        self.ended = number
        self._tell_waiters()
        return size

    def start(self) -> None:
        """Start the thread; also takes in what an earlier process left waiting."""
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

    def wake(self) -> None:
        """Have what was recorded sequenced soon, though nobody waits for its receipt."""
        self._wake.set()

    def wait(self, seen: int, seconds: float) -> None:
        """Wait until those who wait are told to look again, if they were not since `seen` rounds."""
        with self._covered:
            self._wake.set()
            if self._rounds == seen:
                self._covered.wait(min(seconds, POLL_SECONDS))

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

    def no_room(self) -> None:
        """Refuse until there is room again."""
        if not self._for_good and self._broken != NO_ROOM:
            self._told = False
            self._broken = NO_ROOM
            log.error("log out of order", reason=NO_ROOM)
        self._wake.set()

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
                with self._store.transaction() as tx:
                    sequence(tx, self._keys, only=self._degraded(tx, outcome))
                self._sign()
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
            self._wake.wait(RETRY_SECONDS)
            if self._wake.is_set() and self._linger and not self._stopping:
                time.sleep(self._linger)  # company: one fsync and one signature for all of it
            self._wake.clear()
            if self._for_good:
                continue
            try:
                self.advance()
            except LogUnavailable:
                self._tell_waiters()
                time.sleep(0 if self._stopping else RETRY_SECONDS)
            except Exception as wrong:  # the thread must outlive any fault, and refuse meanwhile
                self.latch(type(wrong).__name__)
        with suppress(LogUnavailable):  # what still waits is safe in the outbox, and is taken in at the next start
            self.advance()

    def _tell_waiters(self) -> None:
        with self._covered:
            self._rounds += 1
            self._covered.notify_all()

    def _sign(self, entries: Sequence[Entry] = ()) -> int:
        """Have every shard that has grown signed, the older first; the size of the newest.

        Keeps the places of `entries`, which were sequenced just now.
        """
        size = 0
        with self._store.reading() as reading:
            shards = [shard for shard in every_shard(reading) if shard.log_id not in self._finished]
            for shard in shards:
                if shard.frozen or (shard.closed_at is not None and self._signers.signed(shard.log_id) is None):
                    self._finished.add(shard.log_id)  # nothing of it will be signed: it is as it was left
                    continue
                size = self._sign_shard(reading, shard, entries if shard is shards[-1] else ())
                if shard.closed_at is not None:
                    self._signers.close(shard.log_id)
                    self._finished.add(shard.log_id)
        return size

    def _sign_shard(self, reading: Reading, shard: ShardRow, entries: Sequence[Entry]) -> int:
        log_id = shard.log_id
        head, kept = head_of(reading, log_id), newest_checkpoint(reading, log_id)
        if head is not None and kept is not None and kept.size == head.size == self._signers.signed(log_id):
            return head.size
        tiles = TileHashes(SqlTiles(reading, log_id), head.size if head is not None else 0)

        def newest(signed: int) -> Growth:
            if head is not None and head.size >= signed:
                return Growth(head.frontier, consistency_proof(tiles, signed, head.size))
            with self._store.reading() as later:  # another process has signed more since we looked
                grown = head_of(later, log_id)
                if grown is None:
                    raise LogUnavailable("the log has not been opened: run `broker migrate`")
                if grown.size < signed:
                    return Growth(grown.frontier)  # which the signer refuses
                proof = consistency_proof(TileHashes(SqlTiles(later, log_id), grown.size), signed, grown.size)
                return Growth(grown.frontier, proof)

        note = self._signers.sign(log_id, newest)
        size = int(note.split("\n")[1])
        with self._store.transaction() as tx:
            keep_checkpoint(tx, log_id, size, note.encode(), at=clock.now())
        if entries and head is not None and head.size == size:
            self.places.keep(entries, tiles, size, note)
        return size


def degraded(event_id: str, host: str, outcome: str) -> Event:
    """The event that says that the log was out of order for want of room, or is in order again."""
    return Event(
        id=event_id, type="audit.degraded", who={"organisation": host}, what={"outcome": outcome, "reason": NO_ROOM},
        why={}, detail={},
    )  # fmt: skip
