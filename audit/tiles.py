"""The tree as files: C2SP tlog-tiles, behind one small Protocol that SQL tables and plain folders both answer.

A tile of level L holds up to 256 hashes of level 8L, so tile (L, N) covers the hashes [256 N, 256 N + width).  A tile
that is not yet full is *partial*, and a narrower one is its prefix, so storage need keep only the widest.  An entry
bundle holds the leaves themselves, each behind its length (uint16, big-endian); here it is a tile of level `ENTRIES`.

    tile/<L>/<N>[.p/<W>]       tile/entries/<N>[.p/<W>]       N in groups of three digits: x001/x234/067
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from audit.merkle import HASH_BYTES, node_hash

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
ENTRIES: Final = -1
MAX_LEVEL: Final = 5  # 256^6 leaves is 2^48
_PATH: Final = re.compile(r"tile/(entries|[0-5])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class TileUnreadable(LookupError):
    """A tile or bundle could not be read.  That proves nothing, neither that it is there nor that it is not."""


class TileMalformed(ValueError):
    """A tile or bundle is there, and is not what its path says."""


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Which tile: its level (`ENTRIES` for a bundle), number, and width, 1 to 256."""

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not (ENTRIES <= self.level <= MAX_LEVEL and self.index >= 0 and 1 <= self.width <= TILE_WIDTH):
            raise ValueError("no such tile")

    @property
    def path(self) -> str:
        """The path below the log's prefix.

        >>> Tile(0, 1234067, 8).path
        'tile/0/x001/x234/067.p/8'
        """
        digits, rest = f"{self.index % 1000:03}", self.index // 1000
        while rest:
            digits, rest = f"x{rest % 1000:03}/{digits}", rest // 1000
        level = "entries" if self.level == ENTRIES else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{digits}{partial}"

    @classmethod
    def parse(cls, path: str) -> Tile:
        """The tile of a path.  Raises ValueError for any path that `path` would not write."""
        found = _PATH.fullmatch(path)
        if not found:
            raise ValueError("not the path of a tile")
        level = ENTRIES if found[1] == "entries" else int(found[1])
        tile = cls(level, int(found[2].replace("x", "").replace("/", "")), int(found[3] or TILE_WIDTH))
        if tile.path != path:
            raise ValueError("not the one path of this tile")
        return tile


class TileReader(Protocol):
    """Where tiles and bundles are read."""

    def read(self, tile: Tile) -> bytes:
        """The tile's bytes.  Raises TileUnreadable if they can't be had."""
        ...


class TileHashes:
    """A `merkle.HashReader` over the tiles of a log of `size` leaves; each tile is read, and each node made, once.

    Raises ValueError for a subtree that is not complete at this size.  What it returns is as true as the tiles are:
    whoever verifies ends in a proof check against a signed root.
    """

    def __init__(self, tiles: TileReader, size: int) -> None:
        self._tiles = tiles
        self._size = size
        self._read: dict[tuple[int, int], bytes] = {}
        self._nodes: dict[tuple[int, int], bytes] = {}

    def hash(self, level: int, index: int) -> bytes:
        """The hash over the leaves [index * 2^level, (index + 1) * 2^level)."""
        if (index + 1) << level > self._size:
            raise ValueError("that subtree is not complete")
        node = self._nodes.get((level, index))
        if node is None:
            tile_level, height = divmod(level, TILE_HEIGHT)
            first = index << height
            data = self._tile(tile_level, first // TILE_WIDTH)
            at = first % TILE_WIDTH * HASH_BYTES
            node = self._nodes[level, index] = _reduce(split_hashes(data[at : at + (HASH_BYTES << height)]))
        return node

    def _tile(self, level: int, index: int) -> bytes:
        data = self._read.get((level, index))
        if data is None:
            width = min(TILE_WIDTH, (self._size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH)
            data = checked(Tile(level, index, width), self._tiles.read(Tile(level, index, width)))
            self._read[level, index] = data
        return data


def tiles_of(size: int) -> Iterator[Tile]:
    """Every hash tile of a log of `size` leaves, at its widest, level by level."""
    for level in range(MAX_LEVEL + 1):
        yield from _row(level, size >> (TILE_HEIGHT * level))


def bundles_of(size: int) -> Iterator[Tile]:
    """Every entry bundle of a log of `size` leaves, at its widest."""
    return _row(ENTRIES, size)


def checked(tile: Tile, data: bytes) -> bytes:
    """The same bytes.  Raises TileMalformed if a hash tile is not as long as its width says."""
    if len(data) != tile.width * HASH_BYTES:
        raise TileMalformed(f"{tile.path} is {len(data)} bytes, not {tile.width * HASH_BYTES}")
    return data


def split_hashes(data: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def encode_bundle(leaves: Iterable[bytes]) -> bytes:
    """An entry bundle: each leaf behind its length, uint16 big-endian."""
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def decode_bundle(tile: Tile, data: bytes) -> list[bytes]:
    """The leaves of a bundle.  Raises TileMalformed unless it holds exactly `tile.width` of them."""
    leaves: list[bytes] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        leaves.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    if at != len(data) or len(leaves) != tile.width:
        raise TileMalformed(f"{tile.path} does not hold {tile.width} whole entries")
    return leaves


def bundle_prefix(data: bytes, width: int) -> bytes:
    """The first `width` entries of a bundle, as a bundle.  Raises TileMalformed if it holds fewer."""
    at = 0
    for _ in range(width):
        at += 2 + int.from_bytes(data[at : at + 2], "big")
        if at > len(data):
            raise TileMalformed(f"a bundle holds fewer than {width} entries")
    return data[:at]


def _row(level: int, hashes: int) -> Iterator[Tile]:
    full, rest = divmod(hashes, TILE_WIDTH)
    for index in range(full):
        yield Tile(level, index)
    if rest:
        yield Tile(level, full, rest)


def _reduce(hashes: Sequence[bytes]) -> bytes:
    """The hash over 2^k equal subtrees."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]
