"""Random logs as an agency would have them in a folder, and what somebody may have done to each.

    checkpoint, tile/...   the public log as fetched now, with its witnesses' lines
    old                    the checkpoint kept from last time
    proof                  the tlog-proof of one event

Each way of tampering changes one folder so that it is no longer what the log signed.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from audit.checkpoint import Signature, SignedCheckpoint
from audit.events import Leaf
from audit.merkle import inclusion_proof
from audit.receipts import TlogProof
from audit.tiles import ENTRIES, TileHashes, bundles_of, decode_bundle, encode_bundle, tiles_of
from tests.builders_log import START_MS, ALog, a_cosignature, a_key, a_policy, put

WITNESSES, QUORUM = 3, 2
POLICY: Final = a_policy(witnesses=WITNESSES, threshold=QUORUM)
SIZES: Final = (*range(1, 10), 63, 64, 65, 255, 256, 257, 300, 511, 512, 513, 600)


@dataclass(frozen=True, slots=True)
class Kept:
    """One folder, and what it was made from."""

    folder: Path
    log: ALog
    size: int
    index: int

    @property
    def note(self) -> str:
        return (self.folder / "checkpoint").read_text()

    @property
    def proof(self) -> str:
        return (self.folder / "proof").read_text()

    def says(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


def a_log(folder: Path, seed: int) -> Kept:
    """A log of random size, witnesses and leaves; the same for one seed."""
    rng = random.Random(seed)
    size = rng.choice(SIZES) if rng.random() < 0.5 else rng.randint(1, 700)
    leaves = [Leaf(START_MS + 1000 * n + rng.randrange(1000), rng.randbytes(32)) for n in range(size)]
    log = ALog(leaves=leaves)
    cosigners = rng.sample(range(WITNESSES), rng.randint(QUORUM, WITNESSES))
    note = log.signed(cosigners).note
    log.write(folder, note)
    put(folder / "old", ALog(leaves=leaves[: rng.randint(1, size)]).signed().note.encode())
    index = rng.randrange(size)
    put(folder / "proof", proof_of(log, index, note).encode())
    return Kept(folder, log, size, index)


def proof_of(log: ALog, index: int, note: str) -> str:
    """The tlog-proof of a leaf under a note."""
    head, tiles = log.grown()
    path = inclusion_proof(TileHashes(tiles, head.size), index, head.size)
    return TlogProof(index, tuple(path), SignedCheckpoint.parse(note), log.leaves[index]).text


Tamper = Callable[[Kept, random.Random], None]


def _leaf_edited(kept: Kept, rng: random.Random) -> None:
    bundle = rng.choice([*bundles_of(kept.size)])
    _flip(kept.folder / bundle.path, rng, after=2)


def _leaves_swapped(kept: Kept, rng: random.Random) -> None:
    def swap(leaves: list[bytes]) -> list[bytes]:
        if len(leaves) < 2:
            return [leaves[0][:-2] + b"A\n"]
        at = rng.randrange(len(leaves) - 1)
        leaves[at], leaves[at + 1] = leaves[at + 1], leaves[at]
        return leaves

    _bundle(kept, rng, swap)


def _leaf_left_out(kept: Kept, rng: random.Random) -> None:
    _bundle(kept, rng, lambda leaves: leaves[:-1])


def _leaf_put_in(kept: Kept, rng: random.Random) -> None:
    _bundle(kept, rng, lambda leaves: [*leaves, leaves[0]])


def _tile_edited(kept: Kept, rng: random.Random) -> None:
    tile = rng.choice([tile for tile in tiles_of(kept.size) if tile.level != ENTRIES])
    _flip(kept.folder / tile.path, rng)


def _size_edited(kept: Kept, rng: random.Random) -> None:
    kept.says("checkpoint", kept.note.replace(f"\n{kept.size}\n", f"\n{kept.size + 1}\n", 1))


def _root_edited(kept: Kept, rng: random.Random) -> None:
    lines = kept.note.split("\n")
    lines[2] = _other(lines[2], rng, upto=42)
    kept.says("checkpoint", "\n".join(lines))


def _signature_edited(kept: Kept, rng: random.Random) -> None:
    lines = kept.note.split("\n")
    mark, name, encoded = lines[4].split(" ")
    lines[4] = f"{mark} {name} {_other(encoded, rng, upto=60, after=8)}"
    kept.says("checkpoint", "\n".join(lines))


def _other_log_key(kept: Kept, rng: random.Random) -> None:
    stranger = ALog(kept.log.origin, a_key(2), 0, kept.log.leaves)
    kept.says("checkpoint", stranger.signed([0, 1]).note)


def _witness_lines_dropped(kept: Kept, rng: random.Random) -> None:
    signed = SignedCheckpoint.parse(kept.note)
    kept.says("checkpoint", SignedCheckpoint(signed.checkpoint, signed.signatures[:QUORUM]).note)


def _witness_time_edited(kept: Kept, rng: random.Random) -> None:
    signed = kept.log.signed()
    for number in range(WITNESSES):
        line = a_cosignature(signed.checkpoint, number)
        later = (int.from_bytes(line.signature[:8], "big") + 1).to_bytes(8, "big")
        signed = signed.with_signature(Signature(line.name, line.key_id, later + line.signature[8:]))
    kept.says("checkpoint", signed.note)


def _witness_lines_of_another_checkpoint(kept: Kept, rng: random.Random) -> None:
    other = ALog(leaves=[*kept.log.leaves, kept.log.leaves[0]]).signed([0, 1, 2])
    signed = kept.log.signed()
    for line in other.signatures[1:]:
        signed = signed.with_signature(line)
    kept.says("checkpoint", signed.note)


def _forked(kept: Kept, rng: random.Random) -> None:
    """The log, signed with a stolen key over another past."""
    leaves = [Leaf(leaf.at_ms, rng.randbytes(32)) for leaf in kept.log.leaves]
    other = ALog(leaves=leaves)
    note = other.signed([0, 1]).note
    other.write(kept.folder, note)
    kept.says("proof", proof_of(other, kept.index, note))


def _shrunk(kept: Kept, rng: random.Random) -> None:
    longer = ALog(leaves=[*kept.log.leaves, kept.log.leaves[0]])
    kept.says("old", longer.signed().note)


def _proof_of_another_place(kept: Kept, rng: random.Random) -> None:
    kept.says("proof", kept.proof.replace(f"\nindex {kept.index}\n", f"\nindex {kept.index + 1}\n"))


def _proof_padded(kept: Kept, rng: random.Random) -> None:
    head, _, note = kept.proof.partition("\n\n")
    kept.says("proof", f"{head}\n{'A' * 43}=\n\n{note}")


def _proof_shortened_or_its_leaf_changed(kept: Kept, rng: random.Random) -> None:
    head, _, note = kept.proof.partition("\n\n")
    lines = head.split("\n")
    if len(lines) > 3:
        lines.pop()
    else:
        lines[1] = "extra " + _encoded(Leaf(START_MS, rng.randbytes(32)).text)
    kept.says("proof", "\n".join(lines) + f"\n\n{note}")


def _leaf_of_proof_changed(kept: Kept, rng: random.Random) -> None:
    lines = kept.proof.split("\n")
    lines[1] = "extra " + _encoded(Leaf(START_MS, rng.randbytes(32)).text)
    kept.says("proof", "\n".join(lines))


OF_THE_FOLDER: Final[tuple[Tamper, ...]] = (
    _leaf_edited, _leaves_swapped, _leaf_left_out, _leaf_put_in, _tile_edited, _size_edited, _root_edited,
    _signature_edited, _other_log_key, _witness_lines_dropped, _witness_time_edited,
    _witness_lines_of_another_checkpoint, _forked, _shrunk,
)  # fmt: skip
OF_THE_PROOF: Final[tuple[Tamper, ...]] = (
    _proof_of_another_place, _proof_padded, _proof_shortened_or_its_leaf_changed, _leaf_of_proof_changed,
)  # fmt: skip
TAMPERS: Final = OF_THE_FOLDER + OF_THE_PROOF


def _bundle(kept: Kept, rng: random.Random, change: Callable[[list[bytes]], list[bytes]]) -> None:
    bundle = rng.choice([*bundles_of(kept.size)])
    path = kept.folder / bundle.path
    path.write_bytes(encode_bundle(change(decode_bundle(bundle, path.read_bytes()))))


def _flip(path: Path, rng: random.Random, after: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(after, len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _other(text: str, rng: random.Random, *, upto: int, after: int = 0) -> str:
    at = rng.randrange(after, upto)
    letter = rng.choice([one for one in "ABCDEFGHabcdefgh01234567" if one != text[at]])
    return text[:at] + letter + text[at + 1 :]


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def logs(home: Path, count: int) -> Iterator[Kept]:
    """So many honest logs."""
    for seed in range(count):
        yield a_log(home / f"log-{seed}", seed)
