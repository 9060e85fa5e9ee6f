"""The rule against differencing: no release whose children differ from an earlier release's by a few.

Rounding alone leaks: with one child more, a published figure may jump, and whoever knows that the child joined knows
where.  So every release is held against all earlier ones, by who is in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agreements.statistics.suppression import Counts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counted:
    """A release as the ledger knows it: who was counted, and how many in each cell, before anything was hidden.

    `dimensions` are the ids of the axes of `counts`; dimensions of one id have the same levels.
    """

    release: str
    period: str
    dimensions: tuple[str, ...]
    counts: Counts
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class TooAlike:
    """Why a release is refused: by subtracting an earlier one, a few children would stand alone.

    `population`: the two differ by a few children; `cell`: one is within the other, and a cell of both does.
    """

    release: str
    by: Literal["population", "cell"]


def too_alike(new: Counted, earlier: Iterable[Counted], *, threshold: int) -> TooAlike | None:
    """The first earlier release that the new one differs from by 1 to `threshold` - 1 children, if any.

    Of two periods who is in the population counts.  Of one period also each cell and total that both tables have,
    where one population lies within the other: there a difference of figures is a group of children.
    """
    for before in earlier:
        if 1 <= len(new.members ^ before.members) < threshold:
            return TooAlike(before.release, "population")
        nested = new.members <= before.members or before.members <= new.members
        if nested and new.period == before.period and _few_between(new, before, threshold):
            return TooAlike(before.release, "cell")
    return None


def _few_between(one: Counted, other: Counted, threshold: int) -> bool:
    shared = [name for name in one.dimensions if name in other.dimensions]
    theirs = _over(other, shared)
    apart = np.abs(_over(one, shared) - theirs)
    return bool(((apart >= 1) & (apart < threshold)).any())


def _over(counted: Counted, dimensions: list[str]) -> Counts:
    """The totals over all dimensions but these, in this order."""
    away = tuple(axis for axis, name in enumerate(counted.dimensions) if name not in dimensions)
    kept = [name for name in counted.dimensions if name in dimensions]
    totals: Counts = np.asarray(counted.counts.sum(axis=away), dtype=np.int64)
    return np.transpose(totals, [kept.index(name) for name in dimensions]) if dimensions else totals
