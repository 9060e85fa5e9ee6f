"""The tables that may be asked for: declared beforehand in a catalogue, so that nobody can ask twice with one child's
difference between the questions.

`tables.toml` beside this file is the catalogue, which `catalogue` reads.  A table counts children of 0 to 17 whose year
of birth is known, each once, by what counts of their records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agreements.agreement import FIRST_DAY, LAST_DAY, Duration
from agreements.render import Item, render
from agreements.request import Basis
from agreements.statistics.suppression import Counts
from agreements.vocabulary import Mode

Kind = Literal["age", "sex", "status", "recent", "sectors", "area"]
ADULT: Final = 18
_A_YEAR: Final = Duration(12, "M")
_QUARTER: Final = re.compile(r"(20[0-9]{2})-Q([1-4])")
AREAS: Final = ("education.enrolment", "health.registration")


@dataclass(frozen=True, slots=True, order=True)
class Quarter:
    """A quarter of a calendar year: "2026-Q3"."""

    year: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Quarter:
        """The quarter that a text names.  Raises ValueError."""
        found = _QUARTER.fullmatch(text)
        if found is None or not FIRST_DAY.year <= int(found[1]) <= LAST_DAY.year:
            raise ValueError("a period is a quarter, as in 2026-Q3")
        return cls(int(found[1]), int(found[2]))

    @property
    def last_day(self) -> date:
        """The day on which children are counted."""
        following = date(self.year + self.number // 4, self.number % 4 * 3 + 1, 1)
        return following - timedelta(days=1)

    def __str__(self) -> str:
        return f"{self.year}-Q{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of a dimension: by codes (`of`), by a range of numbers, or whatever fits no other."""

    code: str
    label: str
    of: frozenset[str] = frozenset()
    first: int | None = None
    last: int | None = None
    otherwise: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One person as far as planners' statistics may count them: only what was granted at `aggregate` is here."""

    birth_year: int | None
    sex: str | None
    items: tuple[Item, ...]
    shielded: bool = False  # the address: no area is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One way to tell children apart."""

    id: str
    label: str
    kind: Kind
    categories: tuple[str, ...]
    levels: tuple[Level, ...]
    small: bool = False  # areas so small that neighbours know each other

    @property
    def attribute(self) -> tuple[str, ...]:
        """What it tells of a child, whatever the levels: two dimensions with one attribute tell parts of the same."""
        return (self.kind, *self.categories)

    def level(self, child: Child, on: date) -> int | None:
        """The index of the child's level on a day, or None if there is none: the child is then not counted."""
        match self.kind:
            case "age":
                return self._in_range(None if child.birth_year is None else on.year - child.birth_year)
            case "sectors":
                told = {item.category.partition(".")[0] for item in child.items if item.category in self.categories}
                return self._in_range(len(told))
            case "sex":
                return self._of(child.sex)
            case "recent":
                since = _A_YEAR.before(on)
                found = any(i.category in self.categories and since < i.occurred_on <= on for i in child.items)
                return 0 if found else self._of(None)
            case "status":
                shown = render(self.categories[0], Mode.STATUS, child.items, on=on)
                return self._of(shown.status.code if shown is not None and shown.status is not None else None)
            case "area":
                return self._of(None if child.shielded else _area(child.items, self.categories[0]))

    def _in_range(self, number: int | None) -> int | None:
        if number is not None:
            for index, level in enumerate(self.levels):
                if level.first is not None and level.last is not None and level.first <= number <= level.last:
                    return index
        return self._otherwise()

    def _of(self, code: str | None) -> int | None:
        for index, level in enumerate(self.levels):
            if code is not None and code in level.of:
                return index
        return self._otherwise()

    def _otherwise(self) -> int | None:
        return next((index for index, level in enumerate(self.levels) if level.otherwise), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One declared table.  `known` are the sets of its dimensions whose totals other tables of the catalogue tell."""

    id: str
    title: str
    base: frozenset[str]
    dimensions: tuple[Dimension, ...]
    coarser: str | None
    asked: bool  # False: published only in another's stead
    impossible: NDArray[np.bool_]
    known: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of levels of each dimension."""
        return tuple(len(dimension.levels) for dimension in self.dimensions)

    @property
    def categories(self) -> frozenset[str]:
        """Every category that counting it looks at."""
        return self.base.union(*(dimension.categories for dimension in self.dimensions))

    def cell(self, child: Child, on: date) -> tuple[int, ...] | None:
        """Where a child is counted on a day, or None for whoever is not of the population."""
        if child.birth_year is None or not 0 <= on.year - child.birth_year < ADULT:
            return None
        known = tuple(item for item in child.items if item.occurred_on <= on and item.recorded_on <= on)
        if not any(item.category in self.base for item in known):
            return None
        child = Child(birth_year=child.birth_year, sex=child.sex, items=known, shielded=child.shielded)
        place = tuple(dimension.level(child, on) for dimension in self.dimensions)
        whole = tuple(level for level in place if level is not None)
        return whole if len(whole) == len(place) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tabulation:
    """Counts of a table, and whose they are: never published, and never outside the broker."""

    counts: Counts
    members: frozenset[str]


def tabulate(table: Table, children: Mapping[str, Child], on: date) -> Tabulation:
    """Count children into a table's cells, each once."""
    counts: Counts = np.zeros(table.shape, dtype=np.int64)
    members = set()
    for person, child in children.items():
        place = table.cell(child, on)
        if place is not None:
            counts[place] += 1
            members.add(person)
    return Tabulation(counts=counts, members=frozenset(members))


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All declared tables of one version, and the lawful basis on which they are asked for."""

    id: str
    basis: Basis
    tables: Mapping[str, Table]

    def asked(self) -> tuple[Table, ...]:
        """The tables that can be asked for, in the catalogue's order."""
        return tuple(table for table in self.tables.values() if table.asked)

    def attempts(self, table: Table) -> tuple[Table, ...]:
        """A table and, one after the other, what is published in its stead."""
        chain = [table]
        while (coarser := chain[-1].coarser) is not None:
            chain.append(self.tables[coarser])
        return tuple(chain)


def _area(items: Sequence[Item], category: str) -> str | None:
    """The school's or the practice's code in the newest item that has one."""
    told = [
        (
            item.occurred_on,
            item.recorded_on,
            f"{item.number:.0f}" if item.number is not None else item.outcome_code or "",
        )
        for item in items
        if item.category == category and (item.number is not None if category == AREAS[0] else item.outcome_code)
    ]
    return max(told)[2] if told else None
