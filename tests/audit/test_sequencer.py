"""Growing the log: in any batches the same, in time, and never over tables that somebody changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.events import Leaf
from audit.merkle import Frontier, leaf_hash, root_at
from audit.sequencer import Head, HeadDisagrees, Pending, advance, take_over
from audit.tiles import Tile, TileHashes, TileMalformed, tiles_of
from tests.builders_log import START_MS, MemoryTiles


def pending(first: int, count: int) -> list[Pending]:
    return [
        Pending(f"event-{number:06}", Leaf(START_MS + number, number.to_bytes(32, "big")))
        for number in range(first, first + count)
    ]


def grown(batches: list[int]) -> tuple[Head, MemoryTiles]:
    head, tiles, at = Head(), MemoryTiles(), 0
    for batch in batches:
        step = advance(head, pending(at, batch), tiles)
        tiles.keep(step.tiles)
        head, at = step.head, at + batch
    return head, tiles


@given(st.lists(st.integers(0, 400), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_the_log_grown_in_any_batches_is_the_log_grown_at_once_property(batches: list[int]) -> None:
    assert grown(batches)[0] == grown([sum(batches)])[0]
    assert grown(batches)[1].widest == grown([sum(batches)])[1].widest


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 1000])
def test_tiles_and_head_agree_at_the_edges(size: int) -> None:
    head, tiles = grown([size])
    leaves = [leaf_hash(each.leaf.text) for each in pending(0, size)]
    assert head.frontier == Frontier().extend(leaves)
    assert root_at(TileHashes(tiles, size), size) == head.root
    assert {(tile.level, tile.index): tile.width * 32 for tile in tiles_of(size)} == {
        place: len(data) for place, data in tiles.widest.items()
    }


def test_three_levels_of_tiles_agree_with_the_frontier() -> None:
    head, tiles = grown([65_000, 1_000])
    assert root_at(TileHashes(tiles, head.size), head.size) == head.root
    assert len(tiles.widest[2, 0]) == 32


def test_entries_are_dense_and_in_order_and_say_what_head_they_grow_from() -> None:
    head, tiles = grown([5])
    step = advance(take_over(head), pending(5, 3), tiles)
    assert [entry.index for entry in step.entries] == [5, 6, 7]
    assert [entry.event_id for entry in step.entries] == ["event-000005", "event-000006", "event-000007"]
    assert step.expects == (5, 1)
    assert step.head.epoch == 1
    assert advance(head, pending(5, 3), tiles).expects == (5, 0)  # the zombie's: no longer the stored epoch


def test_time_in_the_log_never_runs_back() -> None:
    head, tiles = grown([3])
    late, early = (Pending(f"event-{n}", Leaf(START_MS + at, b"\7" * 32)) for n, at in enumerate((90, 10)))
    step = advance(head, [late, early], tiles)
    assert [entry.leaf.at_ms - START_MS for entry in step.entries] == [90, 90]
    assert step.head.last_ms == START_MS + 90
    assert step.entries[1].leaf_hash == leaf_hash(Leaf(START_MS + 90, b"\7" * 32).text)


def test_nothing_pending_changes_nothing() -> None:
    head, tiles = grown([300])
    step = advance(head, [], tiles)
    assert (step.entries, step.tiles, step.head) == ((), (), head)


@pytest.mark.parametrize("place", [(0, 1), (1, 0)])
def test_nothing_is_appended_over_a_tile_that_was_changed(place: tuple[int, int]) -> None:
    head, tiles = grown([300])
    data = bytearray(tiles.widest[place])
    data[0] ^= 1
    tiles.widest[place] = bytes(data)
    with pytest.raises(HeadDisagrees, match="not the tile"):
        advance(head, pending(300, 256), tiles)


def test_a_tile_of_the_wrong_length_is_no_tile() -> None:
    class Long:
        def read(self, tile: Tile) -> bytes:
            return b"\0" * 64

    head, _ = grown([1])
    with pytest.raises(TileMalformed, match="64 bytes, not 32"):
        advance(head, pending(1, 1), Long())
