"""C2SP tlog-tiles: paths, widths, bundles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.merkle import node_hash
from audit.tiles import (
    ENTRIES,
    Tile,
    TileHashes,
    TileMalformed,
    bundle_prefix,
    bundles_of,
    decode_bundle,
    encode_bundle,
    tiles_of,
)
from tests.builders_log import ALog


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),  # the example of C2SP tlog-tiles
        (Tile(1, 999, 255), "tile/1/999.p/255"),
        (Tile(0, 1000), "tile/0/x001/000"),
        (Tile(ENTRIES, 273, 112), "tile/entries/273.p/112"),
    ],
)
def test_a_tile_has_the_path_that_the_specification_gives_it(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@given(st.builds(Tile, st.integers(-1, 5), st.integers(0, 10**9), st.integers(1, 256)))
def test_a_path_and_its_tile_say_the_same_property(tile: Tile) -> None:
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0", "tile/0/x000/001", "tile/6/000", "tile/00/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/999",
        "tile/0/000.p/01", "tile/0/001/000", "tile/0/000/../../checkpoint", "checkpoint", "tile/-1/000", "tile/0/٠٠٠", "tile/0/000\n",
    ],
)  # fmt: skip
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"path|such tile"):
        Tile.parse(path)


def test_the_tiles_of_70000_entries_are_those_the_specification_counts() -> None:
    tiles, bundles = list(tiles_of(70_000)), list(bundles_of(70_000))
    assert [sum(tile.level == level for tile in tiles) for level in range(4)] == [274, 2, 1, 0]
    assert [tile for tile in tiles if tile.width < 256] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert bundles[-1] == Tile(ENTRIES, 273, 112)
    assert list(tiles_of(0)) == list(bundles_of(0)) == []


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20), st.data())
def test_a_bundle_holds_what_was_put_in_and_its_prefix_the_first_of_it(
    leaves: list[bytes], data: st.DataObject
) -> None:
    width = data.draw(st.integers(1, len(leaves)))
    bundle = encode_bundle(leaves)
    assert decode_bundle(Tile(ENTRIES, 0, len(leaves)), bundle) == leaves
    assert bundle_prefix(bundle, width) == encode_bundle(leaves[:width])
    for spoilt in (bundle + b"\0", bundle + b"\0\5abc", bundle[:-1], bundle + encode_bundle([b"more"])):
        with pytest.raises(TileMalformed):
            decode_bundle(Tile(ENTRIES, 0, len(leaves)), spoilt)
    with pytest.raises(TileMalformed):
        bundle_prefix(bundle, len(leaves) + 1)


def test_a_hash_is_read_from_tiles_at_every_level_and_only_of_complete_subtrees() -> None:
    _, tiles = ALog().add(600).grown()
    reader = TileHashes(tiles, 600)
    assert reader.hash(9, 0) == node_hash(reader.hash(8, 0), reader.hash(8, 1))
    assert reader.hash(3, 74) == node_hash(reader.hash(2, 148), reader.hash(2, 149))
    for level, index in [(0, 600), (8, 2), (10, 0)]:
        with pytest.raises(ValueError, match="not complete"):
            reader.hash(level, index)
