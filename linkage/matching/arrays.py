"""Numbers in arrays: pairs as one number, orders, look-ups and groups, as a run over a million rows computes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.digests import Digests

Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

AT_ONCE: Final = 1 << 15  # numbers that are looked at together
STEP: Final = 64  # of rows in one order, one in so many is looked up, and the others are beside it
_SIDE: Final = 32
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


def packed(high: npt.NDArray[Any], low: npt.NDArray[Any]) -> Ints:
    """Two numbers as one, which sorts by the first, then the second."""
    both: Ints = (high.astype(np.int64) << _SIDE) | low.astype(np.int64)
    return both


def packed_pairs(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Ints:
    """Pairs as whole numbers, the lower end in the high half: they sort by it."""
    return packed(np.minimum(left, right), np.maximum(left, right))


def ends_of(pairs: Ints) -> tuple[Ints, Ints]:
    """The two numbers of each packed pair."""
    return pairs >> _SIDE, pairs & ((1 << _SIDE) - 1)


def packed_source(source: Places, name: Digests) -> Digests:
    """A number that sorts names by source, and within a source nearly by their digest."""
    bits = np.uint64(max(1, int(source.max(initial=0)).bit_length()))
    return source.astype(np.uint64) << (np.uint64(64) - bits) | name >> bits


def order_of(values: npt.NDArray[Any]) -> Ints:
    """The places of 64-bit numbers in their order, equal ones as they come (a stable argsort).

    As many of the high bits as leave room for the place are sorted together with it: to sort numbers is faster.  Then
    those few runs are put in order whose numbers differ in their low bits alone.
    """
    bits = np.uint64(max(1, (len(values) - 1).bit_length()))
    key = values.view(np.uint64) ^ np.uint64(1 << 63 if values.dtype == np.int64 else 0)
    both = key >> bits << bits | np.arange(len(values), dtype=np.uint64)
    both.sort()
    order = (both & np.uint64((1 << int(bits)) - 1)).astype(np.int64)
    high = both >> bits
    unlike = (high[1:] == high[:-1]) & (values[order[1:]] != values[order[:-1]])
    if unlike.any():
        starts, ends = groups_of(high)
        run = np.unique(np.searchsorted(starts, np.flatnonzero(unlike), side="right") - 1)
        sizes = (ends - starts)[run]
        places = np.repeat(starts[run], sizes) + ramp(sizes)
        mine = order[places]
        order[places] = mine[np.lexsort((mine, values[mine], np.repeat(run, sizes)))]
    return order


def contains(sorted_values: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> tuple[Flags, Ints]:
    """Which of `wanted` are in a sorted array, and where they would be."""
    if len(sorted_values) == 0:
        return np.zeros(len(wanted), np.bool_), np.zeros(len(wanted), np.int64)
    places = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return sorted_values[places] == wanted, places


def looked_up(many: npt.NDArray[Any], few: npt.NDArray[Any]) -> Ints:
    """For each of a few numbers a place where many hold it, or -1."""
    if not len(few) or not len(many):
        return np.full(len(few), -1, np.int64)
    maybe = np.flatnonzero(maybe_among(few, many))
    found = pc.index_in(pa.array(few), value_set=pa.array(many[maybe]))
    at = np.append(maybe, -1)[pc.fill_null(found, len(maybe)).to_numpy()]
    return np.asarray(at, np.int64)


def aligned(new: Digests, old: Digests) -> Ints:
    """For each number a place where `old` holds it, or -1: soon found where most are in the order of the old.

    One in some is looked up, and those after and before it are taken to be beside the other; then what is left.
    """
    found = np.full(len(new), -1, np.int64)
    asked = np.arange(0, len(new), STEP)
    at = looked_up(old, new[asked])
    known = np.flatnonzero(at >= 0)
    left = np.arange(len(new))
    if len(known):
        shift = (at - asked)[known]
        nearest = np.searchsorted(known, np.arange(len(asked)), side="right") - 1
        for after in (0, 1):
            by = shift[np.clip(nearest + after, 0, len(known) - 1)]
            there = left + np.repeat(by, STEP)[: len(new)] if not after else left + by[left // STEP]
            np.clip(there, 0, len(old) - 1, out=there)
            equal = old[there] == new[left]
            if after:
                found[left[equal]] = there[equal]
            else:
                found[equal] = there[equal]
            left = left[~equal]
    found[left] = looked_up(old, new[left])
    return found


def maybe_among(few: npt.NDArray[Any], many: npt.NDArray[Any]) -> Flags:
    """Which of many numbers could be among a few: certainly all that are, and hardly any others."""
    bits = max(10, (8 * len(few)).bit_length())
    shift = np.uint64(64 - bits)
    there = np.zeros(1 << bits, np.bool_)
    there[(few.view(np.uint64) * _MIX) >> shift] = True
    found = np.empty(len(many), np.bool_)
    numbers = many.view(np.uint64)
    for start in range(0, len(many), AT_ONCE):  # so many at a time that what comes between stays in the cache
        some = numbers[start : start + AT_ONCE] * _MIX
        some >>= shift
        np.take(there, some.view(np.int64), out=found[start : start + AT_ONCE])
    return found


def components(count: int, left: Ints, right: Ints) -> Ints:
    """For each of `count` nodes the least node that edges connect it with.

    Each round hooks every root to the least neighbouring one and halves the paths: a few rounds, as components are
    small.  Source: Shiloach and Vishkin 1982, doi:10.1016/0196-6774(82)90008-6.
    """
    least = np.arange(count, dtype=np.int64)
    while len(left):
        one, other = least[left], least[right]
        apart = one != other
        left, right, one, other = left[apart], right[apart], one[apart], other[apart]
        np.minimum.at(least, np.maximum(one, other), np.minimum(one, other))
        while True:
            above = least[least]
            if np.array_equal(above, least):
                break
            least = above
    return least


def pairs_within(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """All two places of one group, for groups of neighbouring places [start, end): the earlier and the later."""
    sizes = ends - starts
    some = sizes > 1
    starts, ends, sizes = starts[some], ends[some], sizes[some]
    at = np.repeat(starts, sizes - 1) + ramp(sizes - 1)
    end = np.repeat(ends, sizes - 1)
    lefts, rights, step = [], [], 1
    while len(at):
        lefts.append(at)
        rights.append(at + step)
        step += 1
        left_over = at + step < end
        at, end = at[left_over], end[left_over]
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *lefts]), np.concatenate([nothing, *rights])


def repeated(values: npt.NDArray[Any]) -> Ints:
    """The places in a sorted array whose value a neighbour has too."""
    again = values[1:] == values[:-1]
    both = np.zeros(len(values), np.bool_)
    both[1:] |= again
    both[:-1] |= again
    return np.flatnonzero(both).astype(np.int64)


def ramp(sizes: Ints) -> Ints:
    """0, 1 .. size - 1 for each of the sizes, one after another."""
    total = int(sizes.sum())
    before = np.cumsum(sizes) - sizes
    return np.arange(total, dtype=np.int64) - np.repeat(before, sizes)


def groups_of(values: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Where each run of equal neighbours starts and ends in a sorted array."""
    starts = np.flatnonzero(changes_in(values)).astype(np.int64)
    return starts, np.append(starts[1:], len(values)).astype(np.int64)


def changes_in(*columns: npt.NDArray[Any]) -> Flags:
    new = np.zeros(len(columns[0]), np.bool_)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new
