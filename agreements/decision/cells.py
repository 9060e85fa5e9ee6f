"""Categories at modes as one integer: five bits a category, one a mode, lowest first; the fifth is `aggregate`.

What gives a mode gives those below it too, on its own axis, so the highest bit of a category tells its mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from agreements.request import Link
from agreements.vocabulary import CASEWORK, RECORD, Mode

WIDTH: Final = 5
EVERY_MODE: Final = (1 << WIDTH) - 1
MODES: Final = tuple(Mode)
_AGGREGATE: Final = 1 << (Mode.AGGREGATE - 1)
_UP_TO: Final = (0, *((1 << mode) - 1 for mode in CASEWORK), _AGGREGATE)
HIGHEST: Final = tuple(MODES[bits.bit_length()] for bits in range(EVERY_MODE + 1))
"""The mode of a category, by its five bits."""

LINKED: Final[Mapping[Link | None, int]] = {
    None: 0,
    Link.NONE: 0,
    Link.POSSIBLE: _UP_TO[Mode.EXISTENCE],
    Link.MATCH: _UP_TO[Mode.STATUS] | _AGGREGATE,
    Link.CERTAIN: EVERY_MODE,
}
"""What a link leaves of any category."""


def ones(bits: int) -> Iterator[int]:
    """The positions of the bits that are set, lowest first."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def cells_of(modes: Mapping[str, Mode], shifts: Mapping[str, int]) -> int:
    """Each category up to its mode."""
    cells = 0
    for category, mode in modes.items():
        cells |= _UP_TO[mode] << shifts[category]
    return cells


def left_by(categories: Iterable[str], at_most: Mode, shifts: Mapping[str, int]) -> int:
    """What a cap leaves: everything, but of what it names only up to its mode; statistics unless that is none."""
    taken = EVERY_MODE & ~(_UP_TO[at_most] | (_AGGREGATE if at_most else 0))
    named = shifts if RECORD in categories else categories
    return ~sum(taken << shifts[category] for category in named)
