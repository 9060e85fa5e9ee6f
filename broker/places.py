"""Where the newest entries stand in the log, and who waits to be told.

A receipt is then made without asking the database: from the event as it was sealed, its place, and the checkpoint that
covers it.  What another process sequenced is looked up for all who wait at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass
from typing import Final

from audit.checkpoint import SignedCheckpoint
from audit.events import Leaf
from audit.merkle import HASH_BYTES, inclusion_proof
from audit.receipts import TlogProof
from audit.tiles import Tile, TileHashes
from broker.store import Store
from broker.store.sequence import SqlTiles

ROUNDS: Final = 8  # that are remembered for those who ask late
TILES: Final = 64


class RecentTiles:
    """The newest tiles of a log, as this process wrote or read them; others are read from the tables.

    A tile only widens, so what is remembered stays true; whoever uses it ends in a proof check against a signed root.
    """

    def __init__(self, store: Store, log_id: str) -> None:
        self._store = store
        self.log_id: Final = log_id
        self._tiles: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock: Final = threading.Lock()

    def keep(self, tiles: Iterable[tuple[Tile, bytes]]) -> None:
        """Remember tiles that were committed."""
        with self._lock:
            for tile, data in tiles:
                place = (tile.level, tile.index)
                if len(self._tiles.get(place, b"")) <= len(data):
                    self._tiles[place] = data
                    self._tiles.move_to_end(place)
            while len(self._tiles) > TILES:
                self._tiles.popitem(last=False)

    def read(self, tile: Tile) -> bytes:
        """As `audit.tiles.TileReader` says."""
        with self._lock:
            data = self._tiles.get((tile.level, tile.index), b"")
        if len(data) < tile.width * HASH_BYTES:
            with self._store.reading() as reading:
                data = SqlTiles(reading, self.log_id).read(tile)
            self.keep([(tile, data)])
        return data[: tile.width * HASH_BYTES]


@dataclass(frozen=True, slots=True)
class Placed:
    """Entries under one signed checkpoint: each event's index and leaf, by its commitment."""

    entries: Mapping[bytes, tuple[int, Leaf]]
    hashes: TileHashes
    signed: SignedCheckpoint

    def proof(self, commitment: bytes) -> TlogProof:
        """That this event's leaf is under the checkpoint; checked by whoever makes a receipt of it."""
        index, leaf = self.entries[commitment]
        path = inclusion_proof(self.hashes, index, self.signed.checkpoint.size)
        return TlogProof(index, path, self.signed, leaf)


@dataclass(frozen=True, slots=True)
class Awaited:
    """An event that somebody waits for: another of the same id is not this one."""

    event_id: str
    commitment: bytes


class Places:
    """Those who wait for the place of an event, each woken once it is known, or once it is not to be had."""

    def __init__(self) -> None:
        self._expected: dict[Future[Placed], Awaited] = {}
        self._recent: deque[Placed] = deque(maxlen=ROUNDS)
        self._lock: Final = threading.Lock()

    def expect(self, event: Awaited) -> Future[Placed]:
        """To be waited for; it is there already if the event was placed a moment ago."""
        future: Future[Placed] = Future()
        with self._lock:
            known = next((placed for placed in self._recent if event.commitment in placed.entries), None)
            if known is None:
                self._expected[future] = event
        if known is not None:
            future.set_result(known)
        return future

    def forget(self, future: Future[Placed]) -> None:
        """Nobody waits for this any more."""
        with self._lock:
            self._expected.pop(future, None)

    def awaited(self) -> frozenset[Awaited]:
        """The events that somebody waits for."""
        with self._lock:
            return frozenset(self._expected.values())

    def settle(self, placed: Placed, *, ours: bool) -> None:
        """Wake whoever waits for one of these; `ours`: they were sequenced here, and more may ask for them."""
        with self._lock:
            if ours:
                self._recent.append(placed)
        for future in self._taken(placed.entries.keys()):
            future.set_result(placed)

    def fail(self, wrong: Exception, commitments: Collection[bytes] | None = None) -> None:
        """Tell whoever waits for one of these, or for any, that there will be none."""
        for future in self._taken(commitments):
            future.set_exception(copy(wrong))

    def _taken(self, commitments: Collection[bytes] | None) -> list[Future[Placed]]:
        with self._lock:
            due = [
                future
                for future, event in self._expected.items()
                if commitments is None or event.commitment in commitments
            ]
            for future in due:
                del self._expected[future]
        return due
