"""The tree of RFC 6962 (and RFC 9162 s.2.1), as pure functions over a one-method `HashReader`.

    MTH({})      = SHA-256()
    MTH({d})     = SHA-256(0x00 || d)                      a leaf
    MTH(D[0:n])  = SHA-256(0x01 || MTH(D[0:k]) || MTH(D[k:n]))   k = the largest power of two below n

The prefixes keep a node from posing as a leaf.  Whatever stores the tree need only answer `hash(level, index)` for
*complete* subtrees, those of 2^level leaves that start at index * 2^level; everything else is computed here.

Generators trust their reader; verifiers trust nothing but the roots they are given, and never read storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()
_sha256 = hashlib.sha256


class ProofInvalid(ValueError):
    """A proof does not prove what it is offered for."""


class HashReader(Protocol):
    """Where complete subtrees are read: SQL tiles, a folder of tiles, or a list."""

    def hash(self, level: int, index: int) -> bytes:
        """The hash over the leaves [index * 2^level, (index + 1) * 2^level)."""
        ...


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return _sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: the hashes of its maximal complete subtrees, largest first, one a bit of `size`.

    It is all that appending needs, 32 bytes times log2 of the size.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count() or any(len(h) != HASH_BYTES for h in self.hashes):
            raise ValueError("a frontier has one 32-byte hash for each bit of its size")

    @property
    def root(self) -> bytes:
        """MTH of the whole tree."""
        return _fold(self.hashes)

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier after these leaf hashes."""
        size, stack = self.size, list(self.hashes)
        for leaf in leaves:
            node, full = leaf, size
            while full & 1:  # a complete pair: merge it, and look one level up
                node = _sha256(b"\x01" + stack.pop() + node).digest()
                full >>= 1
            stack.append(node)
            size += 1
        return Frontier(size, tuple(stack))


def frontier_at(reader: HashReader, size: int) -> Frontier:
    """The frontier of the first `size` leaves."""
    return Frontier(size, tuple(reader.hash(level, index) for level, index in _complete(0, size)))


def root_at(reader: HashReader, size: int) -> bytes:
    """MTH of the first `size` leaves."""
    return frontier_at(reader, size).root


def inclusion_proof(reader: HashReader, index: int, size: int) -> tuple[bytes, ...]:
    """PATH(index, D[0:size]), from the leaf's sibling up.  Raises ValueError if the leaf is not in the tree."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(reader, middle, end))
            end = middle
        else:
            path.append(_range_root(reader, start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_proof(reader: HashReader, old: int, new: int) -> tuple[bytes, ...]:
    """PROOF(old, D[0:new]); empty if `old` is 0 or `new`.  Raises ValueError unless 0 <= old <= new."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} can't grow to {new}")
    if old in (0, new):
        return ()
    path: list[bytes] = []
    start, end = 0, new
    while end != old:  # SUBPROOF of RFC 9162 s.2.1.4.1, unrolled
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range_root(reader, middle, end))
            end = middle
        else:
            path.append(_range_root(reader, start, middle))
            start = middle
    if start:  # else the old root itself, which the verifier has
        path.append(_range_root(reader, start, end))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raises ProofInvalid unless the leaf hash `leaf` is at `index` of the tree of `size` and `root`.

    RFC 9162 s.2.1.3.2: the shape of the path is fixed by index and size, so a proof padded or cut short fails.
    """
    if not 0 <= index < size:
        raise ProofInvalid(f"there is no leaf {index} in a tree of {size}")
    _hashes(leaf, root, *proof)
    node = leaf
    for left, sibling in _climb(index, size - 1, proof):
        node = node_hash(sibling, node) if left else node_hash(node, sibling)
    if node != root:
        raise ProofInvalid("the proof leads to another root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises ProofInvalid unless the tree of `new` and `new_root` begins with that of `old` and `old_root`.

    RFC 9162 s.2.1.4.2.  From the empty tree only the empty root and an empty proof are taken.
    """
    if not 0 <= old <= new:
        raise ProofInvalid(f"a tree of {old} can't grow to {new}")
    _hashes(old_root, new_root, *proof)
    if old in (0, new):
        if proof:
            raise ProofInvalid("the proof is too long")
        if old_root != (new_root if old else EMPTY_ROOT) or (new == 0 and new_root != EMPTY_ROOT):
            raise ProofInvalid("two roots of one size differ")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise ProofInvalid("the proof is too short")
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for left, sibling in _climb(fn, sn, path[1:]):
        first = node_hash(sibling, first) if left else first
        second = node_hash(sibling, second) if left else node_hash(second, sibling)
    if first != old_root or second != new_root:
        raise ProofInvalid("the proof leads to other roots")


def _climb(fn: int, sn: int, proof: Sequence[bytes]) -> Iterator[tuple[bool, bytes]]:
    """Each sibling on the way up, and whether it stands on the left; `fn` and `sn` as RFC 9162 names them."""
    for sibling in proof:
        if sn == 0:
            raise ProofInvalid("the proof is too long")
        left = bool(fn & 1) or fn == sn
        while left and fn and not fn & 1:
            fn, sn = fn >> 1, sn >> 1
        yield left, sibling
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise ProofInvalid("the proof is too short")


def _split(width: int) -> int:
    """The largest power of two below `width`, which is at least 2."""
    return 1 << ((width - 1).bit_length() - 1)


def _complete(start: int, end: int) -> list[tuple[int, int]]:
    """(level, index) of the maximal complete subtrees of [start, end), largest first; `start` is aligned to them."""
    found: list[tuple[int, int]] = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def _range_root(reader: HashReader, start: int, end: int) -> bytes:
    return _fold([reader.hash(level, index) for level, index in _complete(start, end)])


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root over complete subtrees, largest first: the smallest are joined first."""
    if not hashes:
        return EMPTY_ROOT
    node = hashes[-1]
    for left in reversed(hashes[:-1]):
        node = node_hash(left, node)
    return node


def _hashes(*values: bytes) -> None:
    if any(len(value) != HASH_BYTES for value in values):
        raise ProofInvalid("a hash is 32 bytes")
