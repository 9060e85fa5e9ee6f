"""Boxes: what two have in common, one less another, the same points in fewer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from operator import and_

from agreements.agreement import Agreement, Grant, GrantRef

Pair = tuple[str, str]
"""A source and a recipient."""


class Axis(IntEnum):
    """The axes of a box but time, in the order in which a difference is taken apart."""

    CELLS = 0
    ROLES = 1
    PURPOSES = 2
    THRESHOLDS = 3
    CASES = 4
    ART6 = 5
    CONDITIONS = 6
    GATEWAYS = 7
    RELATIONS = 8
    LINKS = 9
    AGES = 10
    REGIMES = 11
    SESSIONS = 12
    TAGS = 13
    RECORDS = 14


Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A product of sets, one an axis, none of them empty, over a time."""

    axes: Axes
    start: datetime
    end: datetime

    def meet(self, other: Box) -> Box | None:
        """What is in both, if anything."""
        mine, theirs = self.axes, other.axes
        if not (mine[0] & theirs[0] and mine[1] & theirs[1] and mine[2] & theirs[2]):
            return None  # cells, roles and purposes part most boxes
        axes = tuple(map(and_, mine, theirs))
        if 0 in axes or self.start >= other.end or other.start >= self.end:
            return None
        return Box(axes, max(self.start, other.start), min(self.end, other.end))

    def minus(self, other: Box) -> list[Box]:
        """What is in this and not in the other, as boxes without a point in common."""
        common = self.meet(other)
        return [self] if common is None else self.around(common)

    def around(self, part: Box) -> list[Box]:
        """What is left of this without a part of it."""
        pieces = []
        left = self.axes
        for axis, (mine, shared) in enumerate(zip(self.axes, part.axes, strict=True)):
            if mine != shared:
                pieces.append(Box((*left[:axis], mine & ~shared, *left[axis + 1 :]), self.start, self.end))
                left = (*left[:axis], shared, *left[axis + 1 :])
        if self.start < part.start:
            pieces.append(Box(left, self.start, part.start))
        if part.end < self.end:
            pieces.append(Box(left, part.end, self.end))
        return pieces


@dataclass(frozen=True, slots=True)
class Cut:
    """A ceiling as a box: what a limit, a restriction or a baseline rule takes away wherever it applies."""

    name: str
    text: str
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """One clause between one source and one recipient: its boxes, under the purposes' ceilings and the link's, and
    what its own agreement's limits take away."""

    ref: GrantRef
    agreement: Agreement
    grant: Grant
    boxes: tuple[Box, ...]
    cuts: tuple[Cut, ...]

    def shows(self, point: Box) -> bool:
        """Whether it allows a single point."""
        return any(point.meet(box) for box in self.boxes) and not any(point.meet(cut.box) for cut in self.cuts)

    def axis(self, axis: Axis) -> int:
        """Every value on an axis that any of its boxes has."""
        values = 0
        for box in self.boxes:
            values |= box.axes[axis]
        return values

    def allows(self) -> list[Box]:
        """Its boxes less its own limits."""
        return without(self.boxes, [cut.box for cut in self.cuts])


def without(boxes: Iterable[Box], taken: Iterable[Box]) -> list[Box]:
    """Boxes less others."""
    left = list(boxes)
    for other in taken:
        left = [piece for box in left for piece in box.minus(other)]
        if not left:
            break
    return left


def without_given(boxes: Iterable[Box], given: Iterable[Given]) -> list[Box]:
    """Boxes less what clauses allow: what a clause's own limit takes from it stays."""
    whole = list(boxes)
    left = whole
    for clause in given:
        for one in clause.boxes:
            if not any(box.meet(one) for box in whole):
                continue  # nor does a piece of them
            kept: list[Box] = []
            for box in left:
                common = box.meet(one)
                if common is None:
                    kept.append(box)
                    continue
                kept += box.around(common)
                kept += _taken(common, clause.cuts)
            left = kept
        if not left:
            break
    return left


def _taken(box: Box, cuts: Iterable[Cut]) -> list[Box]:
    """What the cuts take from a box, each point once."""
    met = [common for cut in cuts if (common := box.meet(cut.box)) is not None]
    return [piece for index, one in enumerate(met) for piece in without([one], met[:index])]


def merged(boxes: Iterable[Box]) -> list[Box]:
    """The same points in fewer boxes: two that differ on one axis, or follow each other in time, become one."""
    left = list(dict.fromkeys(boxes))
    apart_on = [axis for axis in Axis if len({box.axes[axis] for box in left}) > 1]
    while True:
        before = len(left)
        for axis in apart_on:
            apart: dict[tuple[object, ...], Box] = {}
            for box in left:
                key = (box.axes[:axis], box.axes[axis + 1 :], box.start, box.end)
                known = apart.get(key)
                both = box.axes[axis] if known is None else known.axes[axis] | box.axes[axis]
                apart[key] = Box((*box.axes[:axis], both, *box.axes[axis + 1 :]), box.start, box.end)
            left = list(apart.values())
        left = _one_after_another(left)
        if len(left) == before:
            return left


def _one_after_another(boxes: Iterable[Box]) -> list[Box]:
    """Boxes equal but for their times, joined where one begins by the other's end."""
    by_axes: dict[Axes, list[Box]] = {}
    for box in sorted(boxes, key=lambda box: box.start):
        same = by_axes.setdefault(box.axes, [])
        if same and box.start <= same[-1].end:
            same[-1] = Box(box.axes, same[-1].start, max(same[-1].end, box.end))
        else:
            same.append(box)
    return [box for several in by_axes.values() for box in several]
