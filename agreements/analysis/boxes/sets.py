"""Sets of values as integers with a bit a value."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache
from itertools import product
from types import MappingProxyType

from agreements.agreement import FIRST_DAY, LAST_DAY, Duration, Grant
from agreements.vocabulary import Mode, Vocabulary

Days = tuple[tuple[date, date], ...]
"""Spans of days, first and last, in order."""


def purposes_inside(vocabulary: Vocabulary, grant: Grant) -> int:
    """The request purposes that a clause covers."""
    return _below(vocabulary, grant.purposes) & ~purposes_overlapping(vocabulary, grant.not_purposes)


@lru_cache(maxsize=4096)
def _below(vocabulary: Vocabulary, purposes: frozenset[str]) -> int:
    """The request purposes inside any of these."""
    return bits_of(tuple(vocabulary.purposes), frozenset().union(*(vocabulary.down(purpose) for purpose in purposes)))


@lru_cache(maxsize=4096)
def purposes_overlapping(vocabulary: Vocabulary, purposes: frozenset[str] | None) -> int:
    """The request purposes that meet any of these; all where none are given."""
    if purposes is None:
        return (1 << len(vocabulary.purposes)) - 1
    below = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in purposes))
    return bits_of(
        tuple(vocabulary.purposes), (asked for asked in vocabulary.purposes if vocabulary.down(asked) & below)
    )


@lru_cache(maxsize=4096)
def purposes_allowing(vocabulary: Vocabulary, category: str, mode: Mode) -> int:
    """The purposes for which a category may ever be shown at a mode."""
    aggregate = mode is Mode.AGGREGATE
    return bits_of(
        tuple(vocabulary.purposes),
        (
            code
            for code, purpose in vocabulary.purposes.items()
            if purpose.aggregate is aggregate and vocabulary.ceiling(code, category) >= mode
        ),
    )


@lru_cache(maxsize=1024)
def subsets_meeting(size: int, members: frozenset[int]) -> int:
    """The subsets of so many members that have any of these: a set of sets, a bit a subset."""
    wanted = sum(1 << member for member in members)
    return sum(1 << subset for subset in range(1 << size) if subset & wanted)


@lru_cache(maxsize=64)
def ages_of(windows: tuple[Duration, ...]) -> Mapping[frozenset[Duration], Days]:
    """Every set of windows that an item can be inside of, the empty one first, and the days on which one can: which of
    a month and 30 days is the longer hangs on the day."""
    spans: dict[frozenset[Duration], list[tuple[date, date]]] = {frozenset(): [(FIRST_DAY, LAST_DAY)]}
    for first, last in _alike() if len({window.unit for window in windows}) > 1 else [(FIRST_DAY, LAST_DAY)]:
        begins = {window: window.before(first) for window in windows}
        for day in sorted(set(begins.values())):
            found = spans.setdefault(frozenset(window for window, since in begins.items() if since <= day), [])
            if found and found[-1][1] == first - timedelta(days=1):
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
    return MappingProxyType({inside: tuple(several) for inside, several in spans.items()})


def _alike() -> Iterator[tuple[date, date]]:
    """Days on which months are as long as one another, counted back: 1 to 28 of each month, and each day after."""
    for year, month in product(range(FIRST_DAY.year, LAST_DAY.year + 1), range(1, 13)):
        yield date(year, month, 1), date(year, month, 28)
        for day in range(29, monthrange(year, month)[1] + 1):
            yield date(year, month, day), date(year, month, day)


@lru_cache(maxsize=8192)
def first_day(window: Duration, day: date) -> date:
    """The first day inside a window that ends on a day."""
    return window.before(day)


def plain(window: Duration) -> Duration:
    """Years as months, so that equal windows are one."""
    return Duration(window.number * 12, "M") if window.unit == "Y" else window


def in_order(known: Iterable[str], named: Iterable[str]) -> tuple[str, ...]:
    """Those of some terms that are named, in their own order."""
    wanted = set(named)
    return tuple(term for term in known if term in wanted)


def bits_of(listed: tuple[str | None, ...], terms: Iterable[str]) -> int:
    """The bits of some terms in a list."""
    return _set_of(listed, frozenset(terms))


@lru_cache(maxsize=8192)
def _set_of(listed: tuple[str | None, ...], wanted: frozenset[str]) -> int:
    return sum(1 << index for index, term in enumerate(listed) if term in wanted)


def subset_of(listed: Sequence[str], terms: frozenset[str]) -> int:
    """A subset of a list, as a number."""
    return sum(1 << index for index, term in enumerate(listed) if term in terms)


def members_of(listed: Sequence[str], subset: int) -> frozenset[str]:
    """The terms of a subset."""
    return frozenset(term for index, term in enumerate(listed) if subset >> index & 1)


def lowest_of(bits: int) -> int:
    """The position of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1
