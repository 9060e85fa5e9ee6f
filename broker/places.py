"""Where the newest entries stand in the log, kept in memory by the process that put them there.

A receipt is then made without asking the database: from the event as it was sealed, its place, and the checkpoint that
covers it.  What is not found here (another process sequenced it, or it was long ago) is read from the tables.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from audit.events import Leaf
from audit.merkle import inclusion_proof
from audit.sequencer import Entry
from audit.tiles import TileHashes

KEPT: Final = 8_192  # entries: some seconds of the busiest log


@dataclass(frozen=True, slots=True)
class Place:
    """An entry's place under a signed checkpoint."""

    leaf: Leaf
    index: int
    path: tuple[bytes, ...]
    note: str


class Places:
    """The places of the newest entries, by event."""

    def __init__(self) -> None:
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._lock: Final = threading.Lock()

    def keep(self, entries: Sequence[Entry], hashes: TileHashes, size: int, note: str) -> None:
        """Keep where these entries stand under a checkpoint of `size`; those of another shard are passed over."""
        made = {
            entry.event_id: Place(entry.leaf, entry.index, inclusion_proof(hashes, entry.index, size), note)
            for entry in entries[-KEPT:]
            if entry.index < size and hashes.hash(0, entry.index) == entry.leaf_hash
        }
        with self._lock:
            self._places.update(made)
            while len(self._places) > KEPT:
                self._places.popitem(last=False)

    def take(self, event_id: str) -> Place | None:
        """The place of an event, once: whoever waits for it takes it."""
        with self._lock:
            return self._places.pop(event_id, None)
