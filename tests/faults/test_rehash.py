"""A log of a million entries is hashed anew from its files in seconds, and one changed bit among them found (attack 41).

`make test` takes a tenth of it in a tenth of the time; with --long it is the million.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from audit.checkpoint import Checkpoint, VerifierKey, sign
from audit.cli import auditor
from audit.events import Leaf
from audit.sequencer import Head, Pending, advance
from audit.tiles import TILE_WIDTH, bundles_of, encode_bundle, tiles_of
from tests.builders_log import ORIGIN, START_MS, MemoryTiles, a_key, put

pytestmark = pytest.mark.faults
SECONDS_A_MILLION = 10.0
BATCH = 1_000


def a_large_log(folder: Path, entries: int) -> None:
    """Its public folder, sequenced in batches as the broker does."""
    leaves = [Leaf(START_MS + number, number.to_bytes(32, "big")) for number in range(entries)]
    head, tiles = Head(), MemoryTiles()
    for at in range(0, entries, BATCH):
        step = advance(head, [Pending(str(at + n), leaf) for n, leaf in enumerate(leaves[at : at + BATCH])], tiles)
        tiles.keep(step.tiles)
        head = step.head
    for tile in tiles_of(entries):
        put(folder / tile.path, tiles.read(tile))
    for bundle in bundles_of(entries):
        first = bundle.index * TILE_WIDTH
        put(folder / bundle.path, encode_bundle([leaf.text for leaf in leaves[first : first + bundle.width]]))
    put(folder / "checkpoint", sign(Checkpoint(ORIGIN, entries, head.root), a_key()).note.encode())


def test_a_million_entries_are_hashed_anew_in_ten_seconds_and_one_changed_bit_is_found_41(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    entries = 1_000_000 if pytestconfig.getoption("--long") else 100_000
    log, policy = tmp_path / "log", tmp_path / "policy"
    a_large_log(log, entries)
    policy.write_text(f"log {VerifierKey.of(a_key(), ORIGIN)}\nquorum none\n")

    def fsck() -> Result:
        where = ["--log", str(log), "--policy", str(policy), "--evidence", str(tmp_path / "evidence")]
        return CliRunner().invoke(auditor, ["fsck", *where])

    begun = time.process_time()
    whole = fsck()
    seconds = time.process_time() - begun
    assert whole.exit_code == 0, whole.output
    assert seconds < SECONDS_A_MILLION * entries / 1_000_000

    bundle = list(bundles_of(entries))[entries // TILE_WIDTH // 2]
    changed = bytearray((log / bundle.path).read_bytes())
    changed[40] ^= 1
    (log / bundle.path).write_bytes(changed)
    found = fsck()
    assert found.exit_code == 1
    assert bundle.path in found.output
