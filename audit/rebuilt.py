"""A whole log hashed anew from its entries up, each file of its folder held against what it ought to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from audit.events import InvalidEvent, leaf_ms
from audit.merkle import EMPTY_ROOT, HASH_BYTES, Frontier, leaf_hash
from audit.tiles import (
    ENTRIES,
    TILE_WIDTH,
    Tile,
    TileMalformed,
    TileReader,
    TileUnreadable,
    bundles_of,
    checked,
    decode_bundle,
    split_hashes,
    tiles_of,
)


class Mirror(TileReader, Protocol):
    """A folder of tiles and bundles."""

    def tiles(self) -> Iterator[Tile]:
        """Every tile and bundle that is there."""
        ...


class Rebuilt:
    """The whole log hashed from its entries up, each file held against what it ought to be.

    `beyond`: files that are of no part of the log at this size, as a copy that broke off leaves them; nothing is said
    of what is in them.
    """

    def __init__(self, log: Mirror, size: int, kept_size: int) -> None:
        self.altered: list[str] = []
        self.unreadable: list[str] = []
        self.beyond: list[str] = []
        self.complete = True
        self.files = 0
        self.kept_root = EMPTY_ROOT
        self._log = log
        self._size = size
        self._kept_size = kept_size
        self._done = 0
        self._last_ms = 0
        self._rows: list[list[bytes]] = [[]]  # level by level, the hashes of the tile that is not yet full
        self._made: dict[tuple[int, int], bytes] = {}

    @property
    def root(self) -> bytes:
        """The root over the entries read so far."""
        rows = reversed(self._rows)  # each row's maximal subtrees, the highest level's first, are the frontier
        hashes = tuple(each for row in rows for each in Frontier().extend(row).hashes)
        return Frontier(self._done, hashes).root

    def run(self) -> None:
        for bundle in bundles_of(self._size):
            hashes = self._bundle(bundle)
            if hashes is None:
                self.complete = False
                return
            until = self._kept_size - self._done
            if 0 < until <= len(hashes):
                self._add(hashes[:until])
                self.kept_root = self.root
                hashes = hashes[until:]
            self._add(hashes)
        for level, row in enumerate(self._rows):
            if row:
                self._tile(Tile(level, self._done >> (8 * level) >> 8, len(row)), b"".join(row))
        self._older_partials()

    def _bundle(self, bundle: Tile) -> list[bytes] | None:
        """The leaf hashes of a bundle; of its tile, if the bundle can't be read."""
        try:
            leaves = decode_bundle(bundle, self._log.read(bundle))
        except TileUnreadable as fault:
            self.unreadable.append(str(fault))
            return self._from_tile(bundle)
        except TileMalformed as fault:
            self.altered.append(str(fault))
            return self._from_tile(bundle)
        self.files += 1
        self._times(bundle, leaves)
        return [leaf_hash(leaf) for leaf in leaves]

    def _from_tile(self, bundle: Tile) -> list[bytes] | None:
        tile = Tile(0, bundle.index, bundle.width)
        try:
            return split_hashes(checked(tile, self._log.read(tile)))
        except (TileUnreadable, TileMalformed) as fault:
            self.unreadable.append(str(fault))
            return None

    def _times(self, bundle: Tile, leaves: Sequence[bytes]) -> None:
        try:
            times = [leaf_ms(leaf) for leaf in leaves]
        except InvalidEvent:
            self.altered.append(f"{bundle.path} holds an entry that is no leaf of ours")
            return
        if any(later < earlier for earlier, later in zip([self._last_ms, *times], times, strict=False)):
            self.altered.append(f"{bundle.path} holds an entry that is earlier than the one before")
        self._last_ms = times[-1]

    def _add(self, hashes: Sequence[bytes]) -> None:
        self._done += len(hashes)
        level, added = 0, list(hashes)
        while added:
            row = self._rows[level]
            row += added
            added = []
            if len(row) == TILE_WIDTH:  # never more: a bundle fills at most one tile
                self._tile(Tile(level, (self._done >> (8 * level + 8)) - 1), b"".join(row))
                added = [Frontier().extend(row).root]
                row.clear()
                level += 1
                if level == len(self._rows):
                    self._rows.append([])

    def _tile(self, tile: Tile, data: bytes) -> None:
        self._made[tile.level, tile.index] = data
        try:
            held = self._log.read(tile)
        except TileUnreadable as fault:
            self.unreadable.append(str(fault))
            return
        self.files += 1
        if held != data:
            self.altered.append(f"{tile.path} is not what the entries hash to")

    def _older_partials(self) -> None:
        """Tiles and bundles of other sizes, where the folder has them: as far as this size goes, they must agree."""
        due = {*tiles_of(self._size), *bundles_of(self._size)}
        for tile in self._log.tiles():
            if tile in due:
                continue
            whole = self._made.get((max(tile.level, 0), tile.index))
            if whole is None:
                self.beyond.append(tile.path)
                continue
            self.files += 1
            width = min(tile.width * HASH_BYTES, len(whole))
            if self._hashes(tile)[:width] != whole[:width]:
                self.altered.append(f"{tile.path} is not what the entries hash to")

    def _hashes(self, tile: Tile) -> bytes:
        """What a tile says, or what a bundle's leaves hash to; nothing if it is not as long as its path says."""
        try:
            data = self._log.read(tile)
            if tile.level != ENTRIES:
                return checked(tile, data)
            return b"".join(leaf_hash(leaf) for leaf in decode_bundle(tile, data))
        except (TileMalformed, TileUnreadable):
            return b""
