"""The family as a drawing: rows by generation, computed from what is shown and nothing else.

A hidden person leaves no box, gap or line end.  The table beneath the drawing says the same in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from linkage.agency.gateway import words
from linkage.agency.gateway.answers import Person, Relative

LIMIT = 24
BOX_WIDTH, BOX_HEIGHT = 190, 64
GAP_X, GAP_Y = 24, 76
MARGIN = 12
PER_ROW = 6

_OLDER = ("birth_parent", "step_parent", "carer", "partner", "parental_responsibility")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One box: where it stands, the two lines in it, and the table row it leads to."""

    x: int
    y: int
    first: str
    second: str
    row: int  # 0: the child
    adult: bool

    @property
    def middle(self) -> int:
        """Across."""
        return self.x + BOX_WIDTH // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line between a relative's box and the child's: dashed where only stated, barred where it has ended."""

    points: tuple[tuple[int, int], ...]
    verified: bool
    ended: bool

    @property
    def path(self) -> str:
        """The points as SVG takes them."""
        return " ".join(f"{x},{y}" for x, y in self.points)

    @property
    def bar(self) -> tuple[int, int]:
        """The middle of the longest stretch, where an ended line is crossed."""
        stretches = zip(self.points, self.points[1:], strict=False)
        (x1, y1), (x2, y2) = max(
            stretches, key=lambda ends: abs(ends[0][0] - ends[1][0]) + abs(ends[0][1] - ends[1][1])
        )
        return (x1 + x2) // 2, (y1 + y2) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Boxes and lines on a canvas; presentation attributes alone, so that it prints."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    lines: tuple[Line, ...]
    box_width: int = BOX_WIDTH
    box_height: int = BOX_HEIGHT


def draw(child: Person, family: Sequence[Relative], *, this_year: int) -> Drawing | None:
    """The drawing; None where there is no family to show, or more people than a drawing can hold."""
    if not family or len(family) > LIMIT:
        return None
    numbered = list(enumerate(family, start=1))
    older = [(row, one) for row, one in numbered if one.relation in _OLDER or one.person_role in ("parent", "carer")]
    beside = [(row, one) for row, one in numbered if (row, one) not in older]
    rows: list[list[tuple[int, Relative | None]]] = [
        list(older[at : at + PER_ROW]) for at in range(0, len(older), PER_ROW)
    ]
    near, rest = beside[: PER_ROW - 1], beside[PER_ROW - 1 :]
    rows.append([*near[: len(near) // 2], (0, None), *near[len(near) // 2 :]])
    rows += [list(rest[at : at + PER_ROW]) for at in range(0, len(rest), PER_ROW)]
    width = max(len(row) for row in rows) * (BOX_WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    nodes = {}
    for line, row in enumerate(rows):
        left = (width - (len(row) * (BOX_WIDTH + GAP_X) - GAP_X)) // 2
        for place, (number, one) in enumerate(row):
            x, y = left + place * (BOX_WIDTH + GAP_X), MARGIN + line * (BOX_HEIGHT + GAP_Y)
            nodes[number] = _node(number, one, child, x, y, this_year)
    depths = {row: depth for depth, (row, _) in enumerate(near, start=1)}
    under = 8 + 8 * len(near) if near and not rest else 0
    return Drawing(
        width=width,
        height=2 * MARGIN + len(rows) * (BOX_HEIGHT + GAP_Y) - GAP_Y + under,
        nodes=tuple(nodes[number] for number in sorted(nodes)),
        lines=tuple(_line(nodes[row], nodes[0], one, depths.get(row, 0)) for row, one in numbered),
    )


def _node(number: int, one: Relative | None, child: Person, x: int, y: int, this_year: int) -> Node:
    if one is None:
        return Node(x=x, y=y, first="This child", second=_born(child.birth_year, this_year), row=0, adult=False)
    known = f"known to {one.known_to}" if one.known_to else ""
    return Node(
        x=x,
        y=y,
        first=words.FAMILY_WORDS.get(one.relation, words.plain(one.relation)),
        second=", ".join(part for part in (_born(one.birth_year, this_year), known) if part),
        row=number,
        adult=one.person_role in ("parent", "carer") or one.relation in _OLDER,
    )


def _line(relative: Node, child: Node, one: Relative, depth: int) -> Line:
    points: tuple[tuple[int, int], ...]
    if relative.y < child.y:
        points = ((relative.middle, relative.y + BOX_HEIGHT), (child.middle, child.y))
    elif relative.y > child.y:
        points = ((child.middle, child.y + BOX_HEIGHT), (relative.middle, relative.y))
    else:  # beside: round under the row, each at its own depth, so that no line runs behind a box
        bottom = child.y + BOX_HEIGHT
        points = (
            (child.middle + 8 * depth, bottom),
            (child.middle + 8 * depth, bottom + 8 + 8 * depth),
            (relative.middle, bottom + 8 + 8 * depth),
            (relative.middle, bottom),
        )
    return Line(points=points, verified=one.verified, ended=one.until is not None)


def _born(year: int | None, this_year: int) -> str:
    return f"born {words.born(year, this_year)}" if year else ""
