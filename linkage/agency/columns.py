"""Text columns as arrays of bytes, so that work on a column is a few steps over arrays, however many rows it has.

A column keeps each of its values once, end to end in one buffer, and for every row the index of its value.  The index
-1 is a missing value; as it also picks the last of an array, every array of values here has one entry more at its end,
which stands for "missing".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]  # always little-endian
Bytes = npt.NDArray[np.uint8]

WORD: Final = 8
_KEPT_WORDS: Final = 2  # of each value, ready to be taken: nearly all of them have sixteen bytes or fewer
_MASKS: Final = np.array([(1 << (8 * size)) - 1 for size in range(WORD + 1)], "<u8")  # the lowest bytes of a word


class Texts:
    """Values in UTF-8: the bytes of all, and where each begins and how long it is.  The last is missing, and empty."""

    def __init__(self, data: Bytes, starts: Ints, lengths: Ints) -> None:
        """`data` may go on after the last value; `starts` and `lengths` include the entry for "missing"."""
        self.data = data
        self.starts = starts
        self.lengths = lengths
        self._kept: dict[int, Words] = {}
        self._framed: dict[tuple[bytes, bytes], Texts] = {}

    @classmethod
    def of(cls, array: pa.StringArray) -> Texts:
        """The values of an array, in its order; a null is empty."""
        _, offsets, content = array.buffers()
        count = len(array)
        if count == 0 or offsets is None:
            return cls(np.zeros(WORD, np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64))
        bounds = np.frombuffer(offsets, "<i4")[array.offset : array.offset + count + 1].astype(np.int64)
        size = int(bounds[-1] - bounds[0])
        data = np.zeros(size + WORD, np.uint8)  # a word may be read at the last byte
        if size:
            data[:size] = np.frombuffer(content, np.uint8)[bounds[0] : bounds[-1]]
        return cls(data, np.append(bounds[:-1] - bounds[0], 0), np.append(np.diff(bounds), 0))

    def __len__(self) -> int:
        """How many values, "missing" not counted."""
        return len(self.starts) - 1

    @property
    def ascii(self) -> bool:
        """Whether a byte is a character, in every value."""
        return not bool((self.data & 0x80).any())

    def sliced(self, start: int | None, stop: int | None) -> Texts:
        """`value[start:stop]` of each value, by bytes."""
        starts, lengths = self.starts, self.lengths
        first, last = (
            np.minimum(at, lengths) if at >= 0 else np.maximum(lengths + at, 0)
            for at in (start or 0, 1 << 40 if stop is None else stop)
        )
        return Texts(self.data, starts + first, np.maximum(last - first, 0))

    def framed(self, before: bytes, after: bytes) -> Texts:
        """`before + value + after` for each value; "missing" stays empty."""
        if (before, after) not in self._framed:
            self._framed[before, after] = self._made_framed(before, after)
        return self._framed[before, after]

    def _made_framed(self, before: bytes, after: bytes) -> Texts:
        sizes = self.lengths[:-1]
        longer = sizes + len(before) + len(after)
        starts = np.cumsum(longer) - longer
        data = np.zeros(int(longer.sum()) + WORD, np.uint8)
        data[spread(starts + len(before), sizes)] = self.data[spread(self.starts[:-1], sizes)]
        for at, byte in enumerate(before):
            data[starts + at] = byte
        for at, byte in enumerate(after):
            data[starts + len(before) + sizes + at] = byte
        return Texts(data, np.append(starts, 0), np.append(longer, 0))

    def word(self, at: int, which: Ints) -> Words:
        """Bytes 8 * at to 8 * at + 7 of the chosen values, little-endian; zeros beyond the end of a value."""
        if at >= _KEPT_WORDS:
            return self._read(at, self.starts[which], self.lengths[which])
        if at not in self._kept:
            self._kept[at] = self._read(at, self.starts, self.lengths)
        return self._kept[at][which]

    def _read(self, at: int, starts: Ints, lengths: Ints) -> Words:
        size = len(self.data) - WORD + 1
        words = np.lib.stride_tricks.as_strided(self.data[:WORD].view("<u8"), (size,), (1,), writeable=False)
        read: Words = words[np.minimum(starts + WORD * at, size - 1)]
        read &= _MASKS[np.clip(lengths - WORD * at, 0, WORD)]
        return read


@dataclass(frozen=True, slots=True)
class Column:
    """A text column: its values, and for each row the index of its value, -1 where it is missing."""

    texts: Texts
    index: Ints

    def sliced(self, start: int | None, stop: int | None) -> Column:
        """`value[start:stop]` of each value.  Values that become equal are kept apart."""
        return Column(self.texts.sliced(start, stop), self.index)


def distinct(array: pa.StringArray) -> Column:
    """A column whose equal values are kept once."""
    coded = pc.dictionary_encode(array)
    return Column(
        Texts.of(coded.dictionary), coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    )


def by_row(array: pa.StringArray) -> Column:
    """A column that keeps a value for each row that has one: for values that hardly ever repeat."""
    index = np.full(len(array), -1, np.int64)
    index[array.is_valid().to_numpy(zero_copy_only=False)] = np.arange(len(array) - array.null_count)
    return Column(Texts.of(array.drop_null()), index)


def spread(starts: Ints, sizes: Ints) -> Ints:
    """All places of runs, one after the other: `starts[n]`, `starts[n] + 1` ... `starts[n] + sizes[n] - 1`."""
    ends = np.cumsum(sizes)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - ends + sizes, sizes)


# --- Soundex ---------------------------------------------------------------------------------------------------------

_SKIPPED, _NOT_A_LETTER = 7, 8
_SOUNDS: Final = np.full(256, _NOT_A_LETTER, np.uint8)
for _letters, _code in (("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 0), ("aeiouy", 0), ("bfpv", 1), ("cgjkqsxz", 2), ("dt", 3),
                        ("l", 4), ("mn", 5), ("r", 6), ("hw", _SKIPPED)):  # fmt: skip
    _SOUNDS[[ord(_letter) for _letter in _letters]] = _code


def soundexes(names: Column) -> Column:
    """Soundex of each value, as `standardise.soundex` gives it of one; missing for a value without a letter.

    Names are in ASCII.  Equal sounds are kept once.
    """
    texts = names.texts
    sizes = texts.lengths[:-1]
    owners = np.repeat(np.arange(len(texts)), sizes)
    letters = texts.data[spread(texts.starts[:-1], sizes)]
    codes = _SOUNDS[letters]
    kept = codes != _NOT_A_LETTER
    owners, letters, codes = owners[kept], letters[kept], codes[kept]
    first = _changes(owners)
    made = np.full((len(texts), 4), ord("0"), np.uint8)
    made[owners[first], 0] = letters[first]
    has_letter = np.zeros(len(texts), np.bool_)
    has_letter[owners[first]] = True
    kept = first | (codes != _SKIPPED)  # so that equal codes are adjacent across `h` and `w` too
    owners, first, codes = owners[kept], first[kept], codes[kept]
    heard = ~first & (codes != 0)
    heard[1:] &= codes[1:] != codes[:-1]
    owners, codes = owners[heard], codes[heard]
    starts = np.flatnonzero(_changes(owners))
    place = np.arange(len(owners)) - np.repeat(starts, np.diff(np.append(starts, len(owners))))
    fits = place < 3
    made[owners[fits], place[fits] + 1] = codes[fits] + ord("0")
    sounds, index = np.unique(made.view("<u4")[:, 0], return_inverse=True)
    index = np.append(np.where(has_letter, index, -1), -1)
    data = np.append(sounds.astype("<u4").view(np.uint8), np.zeros(WORD, np.uint8))
    lengths = np.append(np.full(len(sounds), 4), 0)
    return Column(Texts(data, np.append(4 * np.arange(len(sounds)), 0), lengths), index[names.index])


def in_order(one: Column, other: Column) -> tuple[Column, Column]:
    """The lesser and the greater of two values of each row, in byte order; missing where either is.

    For values of at most eight bytes each.
    """
    big = [column.texts.word(0, column.index).byteswap() for column in (one, other)]
    swapped = big[0] > big[1]
    missing = (one.index < 0) | (other.index < 0)
    both = _joined(one.texts, other.texts)
    left = np.where(missing, -1, one.index)
    right = np.where(missing, -1, other.index + len(one.texts))
    return Column(both, np.where(swapped, right, left)), Column(both, np.where(swapped, left, right))


def _joined(one: Texts, other: Texts) -> Texts:
    data = np.append(one.data, other.data)
    starts = np.append(one.starts[:-1], other.starts + len(one.data))
    return Texts(data, starts, np.append(one.lengths[:-1], other.lengths))


def _changes(owners: Ints) -> npt.NDArray[np.bool_]:
    """Where a run of equal numbers begins."""
    changed = np.ones(len(owners), np.bool_)
    changed[1:] = owners[1:] != owners[:-1]
    return changed
