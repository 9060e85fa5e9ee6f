"""A small log in memory, for tests: it grows as the real one does, and can be written out as its public folder.

Attackers work on it too: `leaves` is an open list (a database under somebody's hands), `note` signs whatever it is
asked to (a stolen key).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import WITNESS_KEY, Checkpoint, Signature, SignedCheckpoint, VerifierKey, cosigned_message, sign
from audit.events import SHOWN_TO_ASKER, Event, Leaf, Sealed, SectionName, seal
from audit.merkle import inclusion_proof
from audit.receipts import LogReceipt
from audit.sequencer import Head, Pending, advance
from audit.tiles import HASH_BYTES, TILE_WIDTH, Tile, TileHashes, TileUnreadable, bundles_of, encode_bundle, tiles_of

ORIGIN = "broker.example/audit/2026"
START_MS = 1_790_000_000_000
START_S = START_MS // 1000


def a_key(number: int = 1) -> Ed25519PrivateKey:
    """The same key each time, one a number."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def salts(first: int = 0) -> Iterator[bytes]:
    """Salts that differ, the same each time."""
    number = first
    while True:
        yield number.to_bytes(32, "big")
        number += 1


def an_event(number: int = 0, **changes: object) -> Event:
    """A disclosure, in invented codes."""
    facts: dict[str, object] = {
        "id": f"event-{number:06}",
        "type": "disclosure.authorised",
        "who": {"organisation": "northshire-council", "role": "MASH_ANALYST", "person": "p-81", "session": "s-4"},
        "what": {"modes": {"education.attendance": "summary"}, "outcome": "shown"},
        "why": {"purpose": "S47", "case": "c" * 64, "clause": "northshire-mash@3.0.0#attendance-s47"},
        "subjects": [f"person-{number}"],
        "recipients": [{"organisation": "northshire-council"}],
        "detail": {"hidden": ["health.not_brought"], "reason": "agreed at strategy meeting"},
    }
    return Event(**(facts | changes))  # type: ignore[arg-type]


@cache
def a_sealed_event(number: int, first_salt: int = 0) -> Sealed:
    """Event `number`, under salts that differ with `first_salt`."""
    given = salts(first_salt + number * 6)
    return seal(
        an_event(number), at_ms=START_MS + number * 1000, salts=lambda size: b"".join(islice(given, size // 32))
    )


class MemoryTiles:
    """Tiles as the SQL table holds them: the widest at each place; a narrower one is its prefix."""

    def __init__(self) -> None:
        self.widest: dict[tuple[int, int], bytes] = {}

    def read(self, tile: Tile) -> bytes:
        data = self.widest.get((tile.level, tile.index), b"")
        if len(data) < tile.width * HASH_BYTES:
            raise TileUnreadable(tile.path)
        return data[: tile.width * HASH_BYTES]

    def keep(self, tiles: Sequence[tuple[Tile, bytes]]) -> None:
        for tile, data in tiles:
            self.widest[tile.level, tile.index] = data


@dataclass
class ALog:
    """A log of `leaves`; `events` are the bodies beside the tree."""

    origin: str = ORIGIN
    key: Ed25519PrivateKey = field(default_factory=a_key)
    first_salt: int = 0
    leaves: list[Leaf] = field(default_factory=list)
    events: list[Sealed] = field(default_factory=list)

    def add(self, count: int) -> ALog:
        """The same log with so many more events, a second apart."""
        for number in range(len(self.leaves), len(self.leaves) + count):
            sealed = a_sealed_event(number, self.first_salt)
            self.events.append(sealed)
            self.leaves.append(sealed.leaf)
        return self

    def copy(self) -> ALog:
        """Another log that begins as this one does."""
        return ALog(self.origin, self.key, self.first_salt, list(self.leaves), list(self.events))

    def grown(self) -> tuple[Head, MemoryTiles]:
        """Head and tiles over the leaves as they are now."""
        tiles = MemoryTiles()
        step = advance(Head(), [Pending(f"event-{n:06}", leaf) for n, leaf in enumerate(self.leaves)], tiles)
        tiles.keep(step.tiles)
        return step.head, tiles

    def signed(self, cosigners: Collection[int] = (), *, at_s: int = START_S) -> SignedCheckpoint:
        """A checkpoint over the leaves as they are now, cosigned by witnesses of these numbers."""
        head, _ = self.grown()
        signed = sign(Checkpoint(self.origin, head.size, head.root), self.key)
        for number in cosigners:
            signed = signed.with_signature(a_cosignature(signed.checkpoint, number, at_s=at_s))
        return signed

    def write(self, folder: Path, note: str | None = None) -> Path:
        """The public folder: bundles, tiles, and the checkpoint (`note`, or one signed now)."""
        head, tiles = self.grown()
        for tile in tiles_of(head.size):
            put(folder / tile.path, tiles.read(tile))
        for bundle in bundles_of(head.size):
            at = bundle.index * TILE_WIDTH
            put(folder / bundle.path, encode_bundle(leaf.text for leaf in self.leaves[at : at + bundle.width]))
        put(folder / "checkpoint", (note or self.signed().note).encode())
        return folder

    def receipt(
        self, index: int, show: Collection[SectionName] = SHOWN_TO_ASKER, note: str | None = None
    ) -> LogReceipt:
        """What the asker of event `index` was handed."""
        head, tiles = self.grown()
        return LogReceipt.of(
            self.events[index].event_id,
            self.events[index].opening(show),
            leaf=self.leaves[index],
            index=index,
            path=inclusion_proof(TileHashes(tiles, head.size), index, head.size),
            note=note or self.signed().note,
        )


def a_witness(number: int) -> VerifierKey:
    """The verifier key of a witness."""
    return VerifierKey.of(a_key(100 + number), f"witness-{number}.example", WITNESS_KEY)


def a_cosignature(checkpoint: Checkpoint, number: int, *, at_s: int = START_S) -> Signature:
    """The line of a witness."""
    key = a_witness(number)
    made = a_key(100 + number).sign(cosigned_message(checkpoint.text.encode(), at_s))
    return Signature(key.name, key.key_id, at_s.to_bytes(8, "big") + made)


def a_policy(*, keys: Sequence[int] = (1,), witnesses: int = 0, threshold: int = 0, origin: str = ORIGIN) -> str:
    """A policy file: log keys by number, and so many of so many witnesses."""
    lines = [f"log {VerifierKey.of(a_key(number), origin)}" for number in keys]
    lines += [f"witness w{number} {a_witness(number)}" for number in range(witnesses)]
    if witnesses:
        lines.append(f"group agencies {threshold} " + " ".join(f"w{number}" for number in range(witnesses)))
    return "\n".join([*lines, "quorum agencies" if witnesses else "quorum none"]) + "\n"


def put(path: Path, data: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
