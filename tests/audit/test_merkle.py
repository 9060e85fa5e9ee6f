"""The tree against published answers, and against RFC 6962's definitions written out naively."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    ProofInvalid,
    consistency_proof,
    frontier_at,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rfc6962.json").read_text())
INPUTS = [bytes.fromhex(each) for each in VECTORS["inputs"]]
LEAVES = tuple(b"leaf %d" % number for number in range(130))


class Leaves:
    """A reader over a list of leaves."""

    def __init__(self, leaves: list[bytes] | tuple[bytes, ...]) -> None:
        self._leaves = leaves
        self.hash = cache(self._hash)

    def _hash(self, level: int, index: int) -> bytes:
        if not level:
            return leaf_hash(self._leaves[index])
        return node_hash(self.hash(level - 1, 2 * index), self.hash(level - 1, 2 * index + 1))


@cache
def mth(start: int, end: int) -> bytes:
    """RFC 6962 s.2.1, literally, over LEAVES[start:end]."""
    if start == end:
        return hashlib.sha256(b"").digest()
    if end - start == 1:
        return hashlib.sha256(b"\x00" + LEAVES[start]).digest()
    k = split(end - start)
    return hashlib.sha256(b"\x01" + mth(start, start + k) + mth(start + k, end)).digest()


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def naive_path(m: int, start: int, end: int) -> list[bytes]:
    """RFC 6962 s.2.1.1, literally."""
    if end - start == 1:
        return []
    k = split(end - start)
    if m < k:
        return [*naive_path(m, start, start + k), mth(start + k, end)]
    return [*naive_path(m - k, start + k, end), mth(start, start + k)]


def naive_proof(m: int, start: int, end: int, whole: bool) -> list[bytes]:
    """RFC 6962 s.2.1.2, literally: SUBPROOF(m, D[start:end], whole)."""
    if m == end - start:
        return [] if whole else [mth(start, end)]
    k = split(end - start)
    if m <= k:
        return [*naive_proof(m, start, start + k, whole), mth(start + k, end)]
    return [*naive_proof(m - k, start + k, end, False), mth(start, start + k)]


READER = Leaves(LEAVES)
SIZES = st.integers(1, 130)


def test_the_roots_of_the_reference_trees_are_the_published_ones() -> None:
    assert VECTORS["empty_root"] == EMPTY_ROOT.hex() == Frontier().root.hex()
    for size, root in enumerate(VECTORS["roots"], start=1):
        assert root_at(Leaves(INPUTS), size).hex() == root
        assert Frontier().extend(leaf_hash(each) for each in INPUTS[:size]).root.hex() == root


@pytest.mark.parametrize("vector", VECTORS["inclusion"])
def test_the_inclusion_proofs_of_the_reference_trees_are_the_published_ones(vector: dict) -> None:
    path = inclusion_proof(Leaves(INPUTS), vector["index"], vector["size"])
    assert [each.hex() for each in path] == vector["path"]
    root = bytes.fromhex(VECTORS["roots"][vector["size"] - 1])
    verify_inclusion(leaf_hash(INPUTS[vector["index"]]), vector["index"], vector["size"], path, root)


@pytest.mark.parametrize("vector", VECTORS["consistency"])
def test_the_consistency_proofs_of_the_reference_trees_are_the_published_ones(vector: dict) -> None:
    path = consistency_proof(Leaves(INPUTS), vector["old"], vector["new"])
    assert [each.hex() for each in path] == vector["path"]
    old_root, new_root = (bytes.fromhex(VECTORS["roots"][vector[name] - 1]) for name in ("old", "new"))
    verify_consistency(vector["old"], vector["new"], old_root, new_root, path)


def test_every_proof_up_to_130_leaves_is_the_one_of_the_naive_oracle_and_verifies() -> None:
    for size in range(1, 131):
        root = root_at(READER, size)
        assert root == mth(0, size)
        for index in range(size):
            path = inclusion_proof(READER, index, size)
            assert list(path) == naive_path(index, 0, size)
            verify_inclusion(leaf_hash(LEAVES[index]), index, size, path, root)
        for old in range(1, size + 1):
            path = consistency_proof(READER, old, size)
            assert list(path) == naive_proof(old, 0, size, True)
            verify_consistency(old, size, mth(0, old), root, path)


@settings(deadline=None)
@given(SIZES, st.data())
def test_a_frontier_grown_in_any_batches_is_the_one_read_from_the_tree(size: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, size))
    hashes = [leaf_hash(leaf) for leaf in LEAVES[:size]]
    assert Frontier().extend(hashes[:cut]).extend(hashes[cut:]) == frontier_at(READER, size)


@given(SIZES, st.data())
@settings(max_examples=300, deadline=None)
def test_no_inclusion_proof_survives_a_change_property(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path, root, leaf = list(inclusion_proof(READER, index, size)), mth(0, size), leaf_hash(LEAVES[index])
    changed = data.draw(_changed(path))
    with pytest.raises(ProofInvalid):
        verify_inclusion(leaf, index, size, changed, root)
    with pytest.raises(ProofInvalid):
        verify_inclusion(data.draw(_flipped(leaf)), index, size, path, root)
    with pytest.raises(ProofInvalid):
        verify_inclusion(leaf, index, size, path, data.draw(_flipped(root)))
    other = data.draw(st.integers(-1, 131).filter(lambda number: number != index))
    with pytest.raises(ProofInvalid):
        verify_inclusion(leaf, other, size, path, root)


@given(SIZES, st.data())
@settings(max_examples=300, deadline=None)
def test_no_consistency_proof_survives_a_change_property(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    path, old_root, new_root = list(consistency_proof(READER, old, size)), mth(0, old), mth(0, size)
    with pytest.raises(ProofInvalid):
        verify_consistency(old, size, old_root, new_root, data.draw(_changed(path)))
    with pytest.raises(ProofInvalid):
        verify_consistency(old, size, data.draw(_flipped(old_root)), new_root, path)
    with pytest.raises(ProofInvalid):
        verify_consistency(old, size, old_root, data.draw(_flipped(new_root)), path)


def _flipped(value: bytes) -> st.SearchStrategy[bytes]:
    bits = st.integers(0, len(value) * 8 - 1)
    return bits.map(lambda bit: (int.from_bytes(value) ^ 1 << bit).to_bytes(len(value)))


@st.composite
def _changed(draw: st.DrawFn, path: list[bytes]) -> list[bytes]:
    """The path with a bit flipped, padded at either end, or cut short."""
    kind = draw(st.sampled_from(["pad", "prepend", *(["flip", "cut", "behead"] if path else [])]))
    some = draw(st.sampled_from([*path, mth(0, 1), b"\0" * 32]))
    if kind == "flip":
        at = draw(st.integers(0, len(path) - 1))
        return [*path[:at], draw(_flipped(path[at])), *path[at + 1 :]]
    return {"pad": [*path, some], "prepend": [some, *path], "cut": path[:-1], "behead": path[1:]}[kind]


def test_from_the_empty_tree_only_an_empty_proof_and_the_empty_root_are_taken() -> None:
    verify_consistency(0, 5, EMPTY_ROOT, mth(0, 5), ())
    verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, ())
    for old, new, old_root, new_root, path in [
        (0, 5, mth(0, 1), mth(0, 5), ()),
        (0, 5, EMPTY_ROOT, mth(0, 5), (mth(0, 1),)),
        (0, 0, EMPTY_ROOT, mth(0, 1), ()),
        (5, 5, mth(0, 4), mth(0, 5), ()),
        (6, 5, mth(0, 6), mth(0, 5), ()),
        (4, 5, mth(0, 4), mth(0, 5), ()),
        (3, 5, mth(0, 3), mth(0, 5), ()),
    ]:
        with pytest.raises(ProofInvalid):
            verify_consistency(old, new, old_root, new_root, path)


def test_a_node_can_not_pose_as_a_leaf() -> None:
    left, right = leaf_hash(LEAVES[0]), leaf_hash(LEAVES[1])
    root = mth(0, 2)
    for posing in (left + right, b"\x01" + left + right):
        assert leaf_hash(posing) != root
        with pytest.raises(ProofInvalid):
            verify_inclusion(leaf_hash(posing), 0, 1, (), root)


def test_nothing_is_proved_of_a_leaf_or_a_tree_that_is_not_there() -> None:
    for index, size in [(0, 0), (5, 5), (-1, 5)]:
        with pytest.raises(ValueError, match="no leaf"):
            inclusion_proof(READER, index, size)
    with pytest.raises(ValueError, match="can't grow"):
        consistency_proof(READER, 6, 5)
    with pytest.raises(ValueError, match="frontier"):
        Frontier(3, (mth(0, 2),))
    with pytest.raises(ProofInvalid, match="32 bytes"):
        verify_inclusion(b"short", 0, 1, (), b"short")
