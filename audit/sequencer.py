"""From pending events to entries, tiles and a new head: pure.

*Sequenced* is when `advance`'s result is committed, *published* when a signed checkpoint covers it.  Whoever stores the
result does so in one transaction, by compare-and-set on `Advance.expects`: (size, epoch) of the head it was computed
from.  A sequencer that was paused while another took over (`take_over`) then matches nothing, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from audit.events import Leaf
from audit.merkle import Frontier, leaf_hash
from audit.tiles import MAX_LEVEL, TILE_HEIGHT, TILE_WIDTH, Tile, TileReader, checked, split_hashes


class HeadDisagrees(RuntimeError):
    """The stored tiles are not those the head was made from: somebody changed a table.  Nothing may be appended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where the log ends: its right edge, the time of its last leaf, and the epoch of whoever writes it."""

    frontier: Frontier = field(default_factory=Frontier)
    last_ms: int = 0
    epoch: int = 0

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self.frontier.size

    @property
    def root(self) -> bytes:
        """The root over them."""
        return self.frontier.root


@dataclass(frozen=True, slots=True)
class Pending:
    """An event that is committed and has no place in the log yet."""

    event_id: str
    leaf: Leaf


@dataclass(frozen=True, slots=True)
class Entry:
    """A place in the log."""

    index: int
    event_id: str
    leaf: Leaf
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class Advance:
    """What one batch adds.  `tiles` are the new and the widened hash tiles, each whole and at its new width."""

    expects: tuple[int, int]
    entries: tuple[Entry, ...]
    tiles: tuple[tuple[Tile, bytes], ...]
    head: Head


def advance(head: Head, pending: Sequence[Pending], tiles: TileReader) -> Advance:
    """The log after these events, in their order.

    A leaf's time is that of its event, or of the leaf before if that is later: time in the log never runs back.
    Reads from `tiles` only the partial tiles on the right edge, and raises HeadDisagrees if they are not the head's.
    """
    entries: list[Entry] = []
    last_ms = head.last_ms
    for index, waiting in enumerate(pending, start=head.size):
        last_ms = max(last_ms, waiting.leaf.at_ms)
        leaf = Leaf(last_ms, waiting.leaf.commitment)
        entries.append(Entry(index, waiting.event_id, leaf, leaf_hash(leaf.text)))
    hashes = [entry.leaf_hash for entry in entries]
    grown = head.frontier.extend(hashes)
    return Advance(
        (head.size, head.epoch),
        tuple(entries),
        tuple(_widen(head, hashes, tiles)),
        replace(head, frontier=grown, last_ms=last_ms),
    )


def take_over(head: Head) -> Head:
    """The same head for a new sequencer: whoever still holds the old epoch can no longer write."""
    return replace(head, epoch=head.epoch + 1)


def _widen(head: Head, added: list[bytes], tiles: TileReader) -> list[tuple[Tile, bytes]]:
    changed: list[tuple[Tile, bytes]] = []
    for level in range(MAX_LEVEL + 1):
        if not added:
            break
        index, held = divmod(head.size >> (TILE_HEIGHT * level), TILE_WIDTH)
        row = _edge(head, level, index, held, tiles) + added
        added = []
        for at in range(0, len(row), TILE_WIDTH):
            hashes = row[at : at + TILE_WIDTH]
            changed.append((Tile(level, index + at // TILE_WIDTH, len(hashes)), b"".join(hashes)))
            if len(hashes) == TILE_WIDTH:
                added.append(Frontier().extend(hashes).root)
    return changed


def _edge(head: Head, level: int, index: int, held: int, tiles: TileReader) -> list[bytes]:
    """The hashes of the partial tile on the right edge, checked against the frontier."""
    if not held:
        return []
    tile = Tile(level, index, held)
    hashes = split_hashes(checked(tile, tiles.read(tile)))
    below = (head.size & ((1 << (TILE_HEIGHT * level)) - 1)).bit_count()
    upto = len(head.frontier.hashes) - below
    expected = head.frontier.hashes[upto - held.bit_count() : upto]
    if Frontier().extend(hashes).hashes != expected:
        raise HeadDisagrees(f"{tile.path} is not the tile the head was made from")
    return hashes
