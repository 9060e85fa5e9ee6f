"""The log at a million entries: sealing, growing, proving, and hashing it all anew, beside the hashing nobody can avoid.

The peer is the floor measured in the same run, on the same machine: the SHA-256 calls, canonical JSON or Ed25519
signatures that any implementation must make.  A ratio is the floor's time over ours: 1 would be no overhead at all.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Checkpoint, SignedCheckpoint, VerifierKey, sign
from audit.events import Leaf, canonical, seal
from audit.merkle import Frontier, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion
from audit.policy import Policy
from audit.sequencer import Head, Pending, advance
from audit.signer import Signer
from audit.tiles import TILE_WIDTH, TileHashes, bundles_of, encode_bundle, tiles_of
from audit.verify import LogFolder, consistency, fsck
from tests.benchmarks.sizes import sized
from tests.builders_log import ORIGIN, START_MS, MemoryTiles, an_event, put

TOPIC = "audit"
ENTRIES = sized(1_000_000, 20_000)
BATCH = 1_000
PROOFS = sized(2_000, 200)

Row = dict[str, object]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=audit`."""
    yield _sealing()
    leaves = [Leaf(START_MS + number, number.to_bytes(32, "big")) for number in range(ENTRIES)]
    texts = [leaf.text for leaf in leaves]
    floor = _timed(lambda: _hashing_floor(texts))
    hashes: list[bytes] = []
    frontier = Frontier()

    def grow() -> None:
        nonlocal hashes, frontier
        hashes = [leaf_hash(text) for text in texts]
        frontier = Frontier().extend(hashes)

    grown = _timed(grow)
    yield _per_second("append to the frontier, 1M leaves", grown, floor, goal=0.5)
    head, tiles = Head(), MemoryTiles()

    def sequence() -> None:
        nonlocal head
        for at in range(0, ENTRIES, BATCH):
            pending = [Pending(f"e{at + number:08}", leaf) for number, leaf in enumerate(leaves[at : at + BATCH])]
            step = advance(head, pending, tiles)
            tiles.keep(step.tiles)
            head = step.head

    sequenced = _timed(sequence)
    yield _per_second("sequence in batches of 1,000: entries, tiles, head", sequenced, floor) | {
        "goal": "1,000 /s",
        "held": ENTRIES / sequenced > 1_000,
    }
    yield from _proofs(head, tiles, texts)
    yield _signing(head)
    yield from _offline(head, tiles, texts, floor)


def _proofs(head: Head, tiles: MemoryTiles, texts: list[bytes]) -> Iterator[Row]:
    chance = random.Random(7)
    places = [chance.randrange(ENTRIES) for _ in range(PROOFS)]
    cold = _median([lambda at=at: inclusion_proof(TileHashes(tiles, ENTRIES), at, ENTRIES) for at in places[:200]])
    reader = TileHashes(tiles, ENTRIES)
    warm = _median([lambda at=at: inclusion_proof(reader, at, ENTRIES) for at in places])
    paths = [(at, inclusion_proof(reader, at, ENTRIES)) for at in places]
    floor = _median([lambda: [hashlib.sha256(bytes(65)).digest() for _ in range(21)] for _ in places])
    checked = _median(
        [
            lambda at=at, path=path: verify_inclusion(leaf_hash(texts[at]), at, ENTRIES, path, head.root)
            for at, path in paths
        ]
    )
    grown = [(old, reader_root(tiles, old), consistency_proof(reader, old, ENTRIES)) for old in places[:200]]
    agreed = _median([lambda o=o, r=r, p=p: verify_consistency(o, ENTRIES, r, head.root, p) for o, r, p in grown])
    yield _row(
        "inclusion proof from tiles, cold, at 1M (p50)",
        cold * 1e6,
        440.0,
        "prototype's SQLite, as written down",
        "µs",
        None,
    )
    yield _row("inclusion proof from tiles, read before, at 1M (p50)", warm * 1e6, floor * 1e6, "21 hashes", "µs", None)
    yield _row("verify an inclusion proof at 1M (p50)", checked * 1e6, floor * 1e6, "21 hashes", "µs", 0.2)
    yield _row("verify a consistency proof to 1M (p50)", agreed * 1e6, 2 * floor * 1e6, "42 hashes", "µs", 0.2)
    largest = max(len(path) for _, path in paths) * 32
    yield _row("largest inclusion proof at 1M", float(largest), 640.0, "log2 of 1M hashes", "bytes", 1.0)


def reader_root(tiles: MemoryTiles, size: int) -> bytes:
    """The root at an earlier size, of tiles that have grown since."""
    reader = TileHashes(tiles, ENTRIES)
    at, found = 0, []
    while at < size:
        level = (size - at).bit_length() - 1
        found.append(reader.hash(level, at >> level))
        at += 1 << level
    return Frontier(size, tuple(found)).root


def _sealing() -> Row:
    events = [an_event(number) for number in range(5_000)]
    built = _timed(lambda: [seal(an_event(n), at_ms=START_MS) for n in range(len(events))])
    bodies = [list(event.bodies().values()) for event in events]
    floor = _timed(lambda: [rfc8785.dumps(_lists(body)) for event in bodies for body in event])
    size = statistics.mean(sum(len(canonical(body)) for body in event) for event in bodies)
    return _row(
        f"build and seal an event of six salted sections ({size:.0f} B)",
        len(events) / built, len(events) / floor, "canonical JSON of the six sections alone", "/s", 0.2, more_is_better=True,
    )  # fmt: skip


def _lists(body: object) -> object:
    return list(body) if isinstance(body, tuple) else body


def _signing(head: Head) -> Row:
    key = Ed25519PrivateKey.generate()
    with tempfile.TemporaryDirectory() as folder:
        signer = Signer.create(Path(folder) / "signer.json", key, ORIGIN)
        signer.sign(head.frontier)
        durable = _median([lambda: signer.sign(head.frontier) for _ in range(200)])
    text = Checkpoint(ORIGIN, head.size, head.root).text.encode()
    floor = _median([lambda: key.sign(text) for _ in range(200)])
    note = sign(Checkpoint(ORIGIN, head.size, head.root), key).note
    verifier = VerifierKey.of(key, ORIGIN)
    assert SignedCheckpoint.parse(note).signed_by(verifier)
    return _row(
        "sign a checkpoint: lock, state read and checked, signature (p50)",
        durable * 1e6,
        floor * 1e6,
        "Ed25519 alone",
        "µs",
        None,
    )


def _offline(head: Head, tiles: MemoryTiles, texts: list[bytes], floor: float) -> Iterator[Row]:
    key = Ed25519PrivateKey.generate()
    policy = Policy.parse(f"log {VerifierKey.of(key, ORIGIN)}\nquorum none\n".encode())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for tile in tiles_of(ENTRIES):
            put(place / tile.path, tiles.read(tile))
        for bundle in bundles_of(ENTRIES):
            at = bundle.index * TILE_WIDTH
            put(place / bundle.path, encode_bundle(texts[at : at + bundle.width]))
        put(place / "checkpoint", sign(Checkpoint(ORIGIN, head.size, head.root), key).note.encode())
        log = LogFolder(place)
        whole = _timed(lambda: fsck(log, policy))
        kept = sign(Checkpoint(ORIGIN, 1, leaf_hash(texts[0])), key).note
        grown = _timed(lambda: consistency(log, policy, kept, now_s=0))
    row = _row("auditor fsck: 1M entries hashed anew from files", whole, floor, "2M hashes in memory", "s", None)
    yield row | {"goal": "under 10 s", "held": whole < 10}
    yield _row("auditor consistency from 1 entry to 1M", grown * 1e3, None, None, "ms", None)


def _hashing_floor(texts: list[bytes]) -> None:
    for text in texts:
        hashlib.sha256(text).digest()
    pair = bytes(65)
    for _ in range(len(texts) - 1):
        hashlib.sha256(pair).digest()


def _per_second(claim: str, ours: float, floor: float, *, goal: float | None = None) -> Row:
    return _row(claim, ENTRIES / ours, ENTRIES / floor, "the 2M hashes alone", "/s", goal, more_is_better=True)


def _row(
    claim: str,
    ours: float,
    peer: float | None,
    name: str | None,
    unit: str,
    goal: float | None,
    *,
    more_is_better: bool = False,
) -> Row:
    ratio = None if peer is None else (ours / peer if more_is_better else peer / ours)
    held = None if goal is None or ratio is None else ratio >= goal
    return {
        "claim": claim,
        "ours": ours,
        "peer": peer,
        "peer_name": name,
        "ratio": ratio,
        "goal": goal,
        "held": held,
        "unit": unit,
    }


def _timed(work: Callable[[], object]) -> float:
    """Seconds of processor time: one thread computes here, and a busy neighbour should not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _median(works: list[Callable[[], object]]) -> float:
    return statistics.median(_timed(work) for work in works)
