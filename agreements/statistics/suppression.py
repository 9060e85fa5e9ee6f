"""Disclosure control of one table of counts: what may be published so that no child can be recognised.

1. A figure (a cell or a total) under the threshold is *small*, and hidden.
2. Figures are rounded; totals are sums of rounded cells, so they tell nothing that the cells do not.
3. Others are hidden with the small ones, until for each small one there are two tables that publish exactly alike: in
   one it is at most 1, in the other at least the threshold.  Each such table is found by HiGHS and checked in integers.
4. What is to be published is audited as a stranger would attack it: from the published figures alone, in both
   directions for each hidden figure, knowing the rules, that counts are whole and not negative, and whatever margins
   other tables tell.  A table that does not pass is withheld whole.

Sources: Fischetti and Salazar 2001, doi:10.1287/mnsc.47.7.1008.9805 (the attacker's problem and its linear programs);
Handbook on Statistical Disclosure Control (ESSnet SDC, 2010) chapter 4; GSS guidance on symbols in tables (2022).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Counts: TypeAlias = NDArray[np.int64]
Figure: TypeAlias = tuple[int, ...]
"""One index a dimension; the index after the last level is the total over that dimension."""

LEAST_THRESHOLD: Final = 5
MINIMUM_POPULATION: Final = 100
ROUNDINGS: Final = (5, 10)
SYMBOLS: Final[Mapping[str, str]] = {
    "c": "confidential: not published, so that no child can be recognised",
    "z": "not applicable: there can be none",
}
"""The GSS symbols that stand for a figure, and what each means."""

_HIDDEN: Final = -1
_IMPOSSIBLE: Final = -2
_FREE: Final = 1e-3  # what it costs to use a figure that is hidden already: next to nothing
_TOTAL: Final = 4.0  # what a total is worth beside a cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The rules of a release: an agreement may ask for stricter ones, never for laxer than `LEAST_THRESHOLD`.

    `minimum_population`: fewer children than this and nothing is published of them.  `most_hidden`: a table with a
    larger share (percent) of its cells hidden is of no use and is withheld.  Nobody is a small number like any other:
    a published 0 would say something of everyone in its row.  Raises ValueError for terms that protect nobody.
    """

    threshold: int = 10
    rounding: int = 5
    minimum_population: int = MINIMUM_POPULATION
    most_hidden: int = 60

    def __post_init__(self) -> None:
        if self.threshold < LEAST_THRESHOLD:
            raise ValueError(f"threshold: at least {LEAST_THRESHOLD}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding: one of {', '.join(map(str, ROUNDINGS))}")
        if self.minimum_population < self.threshold:
            raise ValueError("minimum_population: at least the threshold")
        if not 0 <= self.most_hidden <= 100:
            raise ValueError("most_hidden: a percentage")

    @classmethod
    def agreed(cls, statistics: Mapping[str, Any]) -> Terms:
        """The terms of an agreement's `[statistics]`, the rest as they come.  Raises ValueError for terms too lax."""
        known = ("threshold", "rounding", "minimum_population")
        given = {name: statistics[name] for name in known if name in statistics}
        population = max(given.get("minimum_population", MINIMUM_POPULATION), given.get("threshold", 0))
        return cls(**{**given, "minimum_population": population})

    def stricter(self, other: Terms) -> Terms:
        """Of each of two terms the one that tells less."""
        return Terms(
            threshold=max(self.threshold, other.threshold),
            rounding=max(self.rounding, other.rounding),
            minimum_population=max(self.minimum_population, other.minimum_population),
            most_hidden=min(self.most_hidden, other.most_hidden),
        )

    @property
    def above(self) -> int:
        """By how much a count may exceed what it is rounded to."""
        return (self.rounding + 1) // 2 - 1

    @property
    def clear(self) -> int:
        """From how many steps of rounding on a count may reach the threshold."""
        return -(-(self.threshold - self.above) // self.rounding)


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What is published of a table: `figures` has one more place a dimension than there are levels, for the total.

    A figure is its rounded value, or hidden, or impossible; the symbols of both are in `SYMBOLS`.
    """

    figures: Counts
    terms: Terms

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of levels of each dimension."""
        return tuple(size - 1 for size in self.figures.shape)

    @property
    def hidden(self) -> tuple[Figure, ...]:
        """The figures that are not published, in order."""
        return _places(self.figures == _HIDDEN)

    def shown(self, figure: Figure) -> int | str:
        """A figure as a reader sees it: a multiple of the rounding, or a symbol."""
        value = int(self.figures[figure])
        return {_HIDDEN: "c", _IMPOSSIBLE: "z"}.get(value, value)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Published)
            and self.terms == other.terms
            and bool(np.array_equal(self.figures, other.figures))
        )

    def __hash__(self) -> int:
        return hash((self.figures.tobytes(), self.terms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """A table that may be published.  `small` are the hidden figures that are under the threshold: never published."""

    published: Published
    small: tuple[Figure, ...]

    @property
    def others(self) -> int:
        """How many figures are hidden for the sake of the small ones."""
        return len(self.published.hidden) - len(self.small)


@dataclass(frozen=True, slots=True)
class Withheld:
    """A table of which nothing may be published."""

    reason: Literal["few_children", "not_protected", "too_much_hidden"]


@dataclass(frozen=True, slots=True)
class Interval:
    """What a stranger can tell of a hidden figure: it lies in this range; `highest` None: it may be anything above."""

    lowest: int
    highest: int | None

    def spans(self, terms: Terms) -> bool:
        """Whether it may be one child or nobody as well as a group over the threshold."""
        return self.lowest <= 1 and (self.highest is None or self.highest >= terms.threshold)


def rounded(counts: Counts, rounding: int) -> Counts:
    """Counts to the nearest multiple, halves up: the same count always gives the same figure."""
    return (counts + rounding // 2) // rounding * rounding


def with_totals(counts: Counts) -> Counts:
    """A table with the totals over each dimension as its last level."""
    for axis in range(counts.ndim):
        counts = np.concatenate([counts, counts.sum(axis=axis, keepdims=True)], axis=axis)
    return counts


def primary_only(counts: Counts, terms: Terms, *, impossible: NDArray[np.bool_] | None = None) -> Published:
    """The table with nothing hidden but what is small: not safe, and here to be compared with."""
    cells = _impossible(counts, impossible)
    return _published(counts, terms, cells, _small(counts, terms, cells))


def protect(
    counts: Counts,
    terms: Terms,
    *,
    impossible: NDArray[np.bool_] | None = None,
    known: Collection[tuple[int, ...]] = (),
) -> Protected | Withheld:
    """What may be published of a table of counts, one cell a child.

    `impossible` marks cells in which there can be nobody.  `known` lists sets of dimensions whose totals other tables
    may tell: small figures are protected even from whoever knows those totals.  The same counts give the same answer.
    Raises ValueError for counts that are negative, or somebody where there can be nobody.
    """
    cells = _impossible(counts, impossible)
    if (counts < 0).any() or counts[cells].any():
        raise ValueError("a count is negative, or of somebody in a cell in which there can be nobody")
    if counts.sum() < terms.minimum_population:
        return Withheld("few_children")
    small = _small(counts, terms, cells)
    hidden = _hide_others(counts, terms, cells, small, _kept(counts.shape, known))
    if hidden is None:
        return Withheld("not_protected")
    published = _published(counts, terms, cells, hidden)
    open_cells = int((~cells).sum())
    inside = tuple(slice(0, size) for size in counts.shape)
    if 100 * int(hidden[inside].sum()) > terms.most_hidden * open_cells:
        return Withheld("too_much_hidden")
    places = _places(small)
    if not passes(published, places, known=_told(counts, terms, known)):
        return Withheld("not_protected")
    return Protected(published=published, small=places)


def exposed(interval: Interval, terms: Terms) -> bool:
    """Whether a stranger knows a hidden figure as well as if it had been published."""
    return interval.highest is not None and interval.highest - interval.lowest < terms.rounding


def audit(published: Published, *, known: Mapping[Figure, int] | None = None) -> dict[Figure, Interval]:
    """What a stranger can tell of each hidden figure, from what is published alone: exact, in both directions.

    `known`: totals that the stranger has from elsewhere, rounded.  The unknowns are the hidden cells in steps of the
    rounding, whole and not negative; every total that is published or known is an equation.
    """
    attack, terms = _Attack(published, known or {}), published.terms
    found: dict[Figure, Interval] = {}
    for figure in published.hidden:
        least, most = attack.range(figure)
        lowest = max(0, least * terms.rounding - terms.rounding // 2)
        found[figure] = Interval(lowest, None if most is None else most * terms.rounding + terms.above)
    return found


def passes(published: Published, small: Iterable[Figure], *, known: Mapping[Figure, int] | None = None) -> bool:
    """Whether the audit leaves every small figure its span and gives no hidden figure away.

    The same question as `audit` with fewer programs to solve: one table that publishes alike often answers for many
    figures.  Each such table is checked in integers.
    """
    attack, terms = _Attack(published, known or {}), published.terms
    must = dict.fromkeys(published.hidden, False) | dict.fromkeys(small, True)
    for figure, span in must.items():
        if span and not (attack.may_be(figure, 0, 0) and attack.may_be(figure, terms.clear, None)):
            return False
        if not span and not attack.may_vary(figure):
            return False
    return True


# --- what to hide besides ---------------------------------------------------------------------------------------------


def _hide_others(
    counts: Counts,
    terms: Terms,
    impossible: NDArray[np.bool_],
    small: NDArray[np.bool_],
    kept: NDArray[np.bool_],
) -> NDArray[np.bool_] | None:
    """The figures to hide, or None if no number of them protects the small ones.

    For each small figure and direction: the cheapest change of the table that brings the figure there and leaves alone
    what may not change.  Whatever the change touches is hidden, so that the changed table publishes alike.
    """
    moves = _Moves(counts, terms, impossible, small, kept)
    todo = {(figure, up) for figure in _places(small) for up in (True, False)}
    for figure in _places(small):
        for up in (True, False):
            if (figure, up) not in todo:
                continue
            changed = moves.towards(figure, up=up)
            if changed is None:
                return None
            reached = with_totals(changed)
            todo -= {(f, True) for f in _places(small & (reached >= terms.clear))}
            todo -= {(f, False) for f in _places(small & (reached == 0))}
    return moves.hidden


class _Moves:
    """Changes of a table, in steps of the rounding, that leave every published figure as it is."""

    def __init__(
        self,
        counts: Counts,
        terms: Terms,
        impossible: NDArray[np.bool_],
        small: NDArray[np.bool_],
        kept: NDArray[np.bool_],
    ) -> None:
        self.terms = terms
        self.shape = counts.shape
        self.steps: Counts = rounded(counts, terms.rounding) // terms.rounding
        self.hidden = small.copy()
        self.impossible = impossible
        self.totals = _totals(counts.shape)
        self.sums = _sums(counts.shape)
        self.kept = kept.reshape(-1)[self.totals]

    def towards(self, figure: Figure, *, up: bool) -> Counts | None:
        """The table in which a figure may reach the threshold (`up`) or nobody, having hidden what it touches."""
        place = int(np.ravel_multi_index(figure, self.hidden.shape))
        now = int(self.sums[place] @ self.steps.reshape(-1))
        need = max(0, self.terms.clear - now) if up else -now
        if need == 0:
            return self.steps
        for whole in (len(self.shape) > 2, True):
            found = self._solved(place, need, whole=whole)
            if found is None:
                return None
            change = np.rint(found).astype(np.int64)
            if np.abs(found - change).max() < 1e-6:
                break
        else:
            return None
        touched = self.sums @ change != 0
        if self.kept[touched[self.totals]].any() or (self.steps.reshape(-1) + change < 0).any():
            return None
        self.hidden |= touched.reshape(self.hidden.shape)
        return self.steps + change.reshape(self.shape)

    def _solved(self, place: int, need: int, *, whole: bool) -> NDArray[np.float64] | None:
        from scipy.optimize import Bounds, LinearConstraint, milp  # takes seconds to load, and few need it

        steps, hidden = self.steps.reshape(-1), self.hidden.reshape(-1)
        cells = _cell_places(self.shape)
        open_totals = ~hidden[self.totals]
        matrix = self.sums[self.totals][open_totals]
        kept = self.kept[open_totals]
        worth = 1.0 + steps / max(1, int(steps.max()))
        cost = np.where(hidden[cells], _FREE, worth)
        slack = np.eye(len(matrix))
        most = float(10 * self.terms.clear + steps.sum())
        free = np.where(self.impossible.reshape(-1), 0.0, most)
        loose = np.where(kept, 0.0, most)
        rows = np.vstack(
            [
                np.hstack([matrix, -matrix, -slack, slack]),
                np.concatenate([self.sums[place], -self.sums[place], np.zeros(2 * len(matrix))])[None, :],
            ]
        )
        lower = np.concatenate([np.zeros(len(matrix)), [need if need > 0 else -np.inf]])
        upper = np.concatenate([np.zeros(len(matrix)), [need if need < 0 else np.inf]])
        result = milp(
            np.concatenate([cost, cost, np.full(2 * len(matrix), _TOTAL)]),
            integrality=np.full(rows.shape[1], int(whole)),
            bounds=Bounds(0, np.concatenate([free, np.minimum(free, steps), loose, loose])),
            constraints=LinearConstraint(rows, lower, upper),
        )
        if result.x is None:
            return None
        number = len(cells)
        change: NDArray[np.float64] = result.x[:number] - result.x[number : 2 * number]
        return change


class _Attack:
    """The stranger's equations, in steps of the rounding, and the tables found so far that publish alike."""

    def __init__(self, published: Published, known: Mapping[Figure, int]) -> None:
        figures, rounding = published.figures.reshape(-1), published.terms.rounding
        self.figures_shape = published.figures.shape
        self.sums = _sums(published.shape)
        cells = _cell_places(published.shape)
        self.unknown = np.flatnonzero(figures[cells] == _HIDDEN)
        steps = np.maximum(figures, 0) // rounding
        self.shown: Counts = self.sums @ steps[cells]
        told = figures >= 0
        told[cells] = False
        for figure, total in known.items():
            place = int(np.ravel_multi_index(figure, self.figures_shape))
            told[place], steps[place] = True, total // rounding
        rows = np.column_stack([self.sums[told][:, self.unknown], (steps - self.shown)[told]])
        self.rows: Counts = np.unique(rows, axis=0)
        self.ceiling = int(steps[told].sum()) + 10 * published.terms.clear
        self.whole = len(published.shape) > 2  # in two dimensions the corners of the program are whole by themselves
        self.found: list[Counts] = []

    def range(self, figure: Figure) -> tuple[int, int | None]:
        """The least and the most that a figure can be; None: there is no most."""
        weights, base = self._weights(figure)
        least, most = (int(weights @ self._extreme(sign * weights)) for sign in (1, -1))
        return least + base, None if most >= self.ceiling else most + base

    def may_be(self, figure: Figure, least: int, most: int | None) -> bool:
        """Whether some table publishes alike in which a figure is in a range that is open on one side."""
        weights, base = self._weights(figure)

        def fits(table: Counts) -> bool:
            value = int(weights @ table) + base
            return least <= value and (most is None or value <= most)

        return any(map(fits, self.found)) or fits(self._extreme(weights if most is not None else -weights))

    def may_vary(self, figure: Figure) -> bool:
        """Whether two tables publish alike in which a figure differs."""
        weights, _ = self._weights(figure)
        if len({int(weights @ table) for table in self.found}) > 1:
            return True
        return bool(weights @ self._extreme(weights) < weights @ self._extreme(-weights))

    def _weights(self, figure: Figure) -> tuple[Counts, int]:
        place = int(np.ravel_multi_index(figure, self.figures_shape))
        weights: Counts = self.sums[place][self.unknown]
        return weights, int(self.shown[place])

    def _extreme(self, weights: Counts) -> Counts:
        """A table that publishes alike with the least of a weighted sum.  Raises ValueError if there is none."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # takes seconds to load, and few need it

        matrix, rhs = self.rows[:, :-1], self.rows[:, -1]
        for whole in (self.whole, True):
            result = milp(
                weights.astype(np.float64), integrality=np.full(len(weights), int(whole)),
                bounds=Bounds(0, float(self.ceiling)),
                constraints=[LinearConstraint(matrix, rhs, rhs)] if len(rhs) else [],
            )  # fmt: skip
            table: Counts = np.rint(result.x if result.x is not None else np.full(len(weights), -1.0)).astype(np.int64)
            if (table >= 0).all() and (matrix @ table == rhs).all():
                self.found.append(table)
                return table
        raise ValueError("the figures contradict each other")


# --- shapes -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _sums(shape: tuple[int, ...]) -> Counts:
    """Which cells each figure adds up: a row a figure, a column a cell, in C order."""
    cells = np.indices(shape).reshape(len(shape), -1)
    rows = [
        np.logical_and.reduce([
            np.ones(cells.shape[1], dtype=bool) if index == size else cells[axis] == index
            for axis, (index, size) in enumerate(zip(figure, shape, strict=True))
        ])
        for figure in product(*(range(size + 1) for size in shape))
    ]  # fmt: skip
    found: Counts = np.array(rows, dtype=np.int64)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=256)
def _cell_places(shape: tuple[int, ...]) -> Counts:
    """Where each cell stands among the figures."""
    whole = tuple(size + 1 for size in shape)
    indices = tuple(np.indices(shape).reshape(len(shape), -1))
    found: Counts = np.asarray(np.ravel_multi_index(indices, whole), dtype=np.int64)
    return found


@lru_cache(maxsize=256)
def _totals(shape: tuple[int, ...]) -> Counts:
    """Where each total stands among the figures."""
    number = int(np.prod([size + 1 for size in shape]))
    found: Counts = np.setdiff1d(np.arange(number), _cell_places(shape)).astype(np.int64)
    return found


def _places(mask: NDArray[np.bool_]) -> tuple[Figure, ...]:
    return tuple(tuple(int(index) for index in place) for place in np.argwhere(mask))


def _impossible(counts: Counts, given: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return np.zeros(counts.shape, dtype=bool) if given is None else given


def _never(impossible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The figures all of whose cells are impossible."""
    never: NDArray[np.bool_] = with_totals((~impossible).astype(np.int64)) == 0
    return never


def _small(counts: Counts, terms: Terms, impossible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    true = with_totals(counts)
    small: NDArray[np.bool_] = (true < terms.threshold) & ~_never(impossible)
    return small


def _published(counts: Counts, terms: Terms, impossible: NDArray[np.bool_], hidden: NDArray[np.bool_]) -> Published:
    figures = with_totals(rounded(counts, terms.rounding))
    figures[hidden] = _HIDDEN
    figures[_never(impossible)] = _IMPOSSIBLE
    figures.flags.writeable = False
    return Published(figures, terms)


def _kept(shape: tuple[int, ...], known: Collection[tuple[int, ...]]) -> NDArray[np.bool_]:
    """The totals over every dimension but those of one of these sets."""
    kept = np.zeros(tuple(size + 1 for size in shape), dtype=bool)
    for dimensions in known:
        kept[tuple(slice(0, size) if axis in dimensions else size for axis, size in enumerate(shape))] = True
    return kept


def _told(counts: Counts, terms: Terms, known: Collection[tuple[int, ...]]) -> dict[Figure, int]:
    figures = with_totals(rounded(counts, terms.rounding))
    return {figure: int(figures[figure]) for figure in _places(_kept(counts.shape, known))}
