"""The tables that may be asked for: declared beforehand in a catalogue, so that nobody can ask twice with one child's
difference between the questions.

`tables.toml` beside this file is the catalogue; `read_catalogue` reads another by the same rules.  A table counts
children of 0 to 17 whose year of birth is known, each once, by what counts of their records.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib import resources
from itertools import pairwise, product
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from agreements.agreement import FIRST_DAY, LAST_DAY, Duration
from agreements.document.parsing import nearest
from agreements.render import Item, render
from agreements.request import Basis
from agreements.statistics.suppression import Counts
from agreements.vocabulary import VOCABULARY, Mode, Vocabulary

Kind = Literal["age", "sex", "status", "recent", "sectors", "area"]
MOST_DIMENSIONS: Final = 3
MOST_CELLS: Final = 240
ADULT: Final = 18
RARE_TIER: Final = 2
_A_YEAR: Final = Duration(12, "M")
_QUARTER: Final = re.compile(r"(20[0-9]{2})-Q([1-4])")
_AREAS: Final = ("education.enrolment", "health.registration")


class BadCatalogue(ValueError):
    """A catalogue that can't be used; the message names the place and what to write instead."""


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


@cache
def shipped() -> Catalogue:
    """The catalogue that comes with this package."""
    return read_catalogue(resources.files(__package__).joinpath("tables.toml").read_text(encoding="utf-8"))


def read_catalogue(source: str, vocabulary: Vocabulary = VOCABULARY) -> Catalogue:
    """A catalogue from its TOML.  Raises BadCatalogue, naming the place; nothing is half read."""
    try:
        body = tomllib.loads(source)
    except (tomllib.TOMLDecodeError, RecursionError):
        raise BadCatalogue("the catalogue is not TOML") from None
    _only(body, "catalogue", {"id", "basis", "dimensions", "tables"})
    try:
        name = body["id"]
        basis = _basis(body["basis"], vocabulary)
        dimensions = {one: _dimension(one, of, vocabulary) for one, of in body["dimensions"].items()}
        given = body["tables"]
        tables = {one: _table(one, given[one], dimensions, given, vocabulary) for one in given}
    except KeyError as wrong:
        raise BadCatalogue(f"{wrong.args[0]}: it is nowhere in the catalogue, and must be; write it") from None
    except (TypeError, AttributeError):
        raise BadCatalogue(
            "the catalogue: a value is of another kind than is due; see the shipped tables.toml"
        ) from None
    return Catalogue(id=str(name), basis=basis, tables=MappingProxyType(_linked(tables)))


def _basis(body: Mapping[str, Any], vocabulary: Vocabulary) -> Basis:
    _only(body, "basis", {"art6", "condition", "gateway"})
    lists = {"art6": vocabulary.art6, "condition": vocabulary.conditions, "gateway": vocabulary.gateways}
    given = {"art6": [body["art6"]], "condition": body.get("condition", []), "gateway": body.get("gateway", [])}
    for name, terms in given.items():
        if not isinstance(terms, list):
            raise BadCatalogue(f"basis.{name}: a list is due")
        if unknown := [term for term in terms if term not in lists[name]]:
            near = nearest(str(unknown[0]), lists[name])
            meant = f"write {near}, if that is meant" if near else f"write one of {', '.join(lists[name])}"
            raise BadCatalogue(f"basis.{name}: a term is not in the vocabulary; {meant}")
    return Basis(
        art6=given["art6"][0], conditions=frozenset(given["condition"]), gateways=frozenset(given["gateway"])
    )  # fmt: skip


def _dimension(name: str, body: Mapping[str, Any], vocabulary: Vocabulary) -> Dimension:
    place = f"dimensions.{name}"
    _only(body, place, {"label", "kind", "categories", "levels", "small"})
    kind = body["kind"]
    if kind not in get_args(Kind):
        raise BadCatalogue(f"{place}.kind: one of {', '.join(get_args(Kind))}")
    categories = tuple(body.get("categories", ()))
    _countable(categories, f"{place}.categories", vocabulary)
    levels = tuple(_level(f"{place}.levels", one) for one in body["levels"])
    if len(levels) < 2 or len({level.code for level in levels}) < len(levels):
        raise BadCatalogue(f"{place}.levels: two or more, each with a code of its own")
    if [level.otherwise for level in levels[:-1]] != [False] * (len(levels) - 1):
        raise BadCatalogue(f"{place}.levels: `otherwise` belongs to the last one alone")
    dimension = Dimension(
        id=name, label=body["label"], kind=kind, categories=categories, levels=levels, small=body.get("small", False)
    )
    _check_levels(dimension, place, vocabulary)
    return dimension


def _check_levels(dimension: Dimension, place: str, vocabulary: Vocabulary) -> None:
    """Levels fit their kind: no child in two, none left over where everybody must be somewhere."""
    levels, categories = dimension.levels, dimension.categories
    if dimension.kind in ("age", "sectors"):
        bounds = [(level.first, level.last) for level in levels if not level.otherwise]
        whole = [(first, last) for first, last in bounds if type(first) is int and type(last) is int]
        apart = all(one[1] < two[0] for one, two in pairwise(whole)) and all(first <= last for first, last in whole)
        if len(whole) < len(bounds) or not apart:
            raise BadCatalogue(f"{place}.levels: `from` and `to`, in order and apart")
        return
    codes = [code for level in levels for code in level.of]
    if len(set(codes)) < len(codes) or not levels[-1].otherwise:
        raise BadCatalogue(f"{place}.levels: each code once, and a last level with `otherwise`")
    if dimension.kind == "recent" and (len(levels) != 2 or not categories):
        raise BadCatalogue(f"{place}: two levels, yes and otherwise, and its categories")
    if dimension.kind == "status":
        rule = vocabulary.categories[categories[0]].status if len(categories) == 1 else None
        if rule is None or not set(codes) <= rule.labels.keys():
            raise BadCatalogue(f"{place}: one category that has a status, and codes of that status")
    if dimension.kind == "area" and categories not in [(one,) for one in _AREAS]:
        raise BadCatalogue(f"{place}.categories: one of {', '.join(_AREAS)}")


def _level(place: str, body: Mapping[str, Any]) -> Level:
    _only(body, place, {"code", "label", "of", "from", "to", "otherwise"})
    return Level(
        code=body["code"], label=body["label"], of=frozenset(body.get("of", ())), first=body.get("from"),
        last=body.get("to"), otherwise=body.get("otherwise", False),
    )  # fmt: skip


def _table(
    name: str,
    body: Mapping[str, Any],
    dimensions: Mapping[str, Dimension],
    all_tables: Mapping[str, Mapping[str, Any]],
    vocabulary: Vocabulary,
) -> Table:
    place = f"tables.{name}"
    _only(body, place, {"title", "base", "dimensions", "coarser", "impossible"})
    _countable(body["base"], f"{place}.base", vocabulary)
    chosen = tuple(dimensions[one] for one in body["dimensions"] if one in dimensions)
    if not chosen or len(chosen) != len(body["dimensions"]) or len(chosen) > MOST_DIMENSIONS:
        raise BadCatalogue(f"{place}.dimensions: one to {MOST_DIMENSIONS} of those declared")
    if len({dimension.attribute for dimension in chosen}) < len(chosen):
        raise BadCatalogue(f"{place}.dimensions: two of them tell parts of the same")
    shape = tuple(len(dimension.levels) for dimension in chosen)
    if int(np.prod(shape)) > MOST_CELLS:
        raise BadCatalogue(f"{place}: at most {MOST_CELLS} cells")
    rare = {
        category
        for category in {*body["base"], *(c for dimension in chosen for c in dimension.categories)}
        if vocabulary.categories[category].tier >= RARE_TIER
    }
    if any(dimension.small for dimension in chosen) and rare:
        raise BadCatalogue(f"{place}: a small area never stands with {', '.join(sorted(rare))}")
    return Table(
        id=name, title=body["title"], base=frozenset(body["base"]), dimensions=chosen, coarser=body.get("coarser"),
        asked=name not in {one.get("coarser") for one in all_tables.values()},
        impossible=_impossible(place, body.get("impossible", ()), chosen), known=(),
    )  # fmt: skip


def _linked(tables: Mapping[str, Table]) -> dict[str, Table]:
    """The same tables, each with what the others tell of its totals.  Two of one chain are never both published."""
    chains: dict[str, set[str]] = {}
    for table in tables.values():
        if not table.asked:
            continue
        chain, one = [table.id], table
        while one.coarser is not None:
            if one.coarser not in tables or one.coarser in chain:
                raise BadCatalogue(f"tables.{one.id}.coarser: another table, and no circle")
            one = tables[one.coarser]
            chain.append(one.id)
        for name in chain:
            if name in chains:
                raise BadCatalogue(f"tables.{name}: it stands in for two tables; declare one for each")
            chains[name] = set(chain)
    if left := tables.keys() - chains.keys():
        raise BadCatalogue(f"tables.{min(left)}.coarser: another table, and no circle")
    return {name: _told_by(table, [one for one in tables.values() if one.id not in chains[name]])
            for name, table in tables.items()}  # fmt: skip


def _told_by(table: Table, others: Iterable[Table]) -> Table:
    shared = set()
    for other in others:
        attributes = {dimension.attribute for dimension in other.dimensions}
        axes = tuple(axis for axis, dimension in enumerate(table.dimensions) if dimension.attribute in attributes)
        if len(axes) == len(table.dimensions):
            raise BadCatalogue(f"tables.{table.id}: tables.{other.id} tells all of it again")
        shared.add(axes)
    known = tuple(sorted(axes for axes in shared if not any(set(axes) < set(wider) for wider in shared)))
    return Table(
        id=table.id, title=table.title, base=table.base, dimensions=table.dimensions, coarser=table.coarser,
        asked=table.asked, impossible=table.impossible, known=known,
    )  # fmt: skip


def _impossible(place: str, given: Sequence[Mapping[str, Any]], dimensions: Sequence[Dimension]) -> NDArray[np.bool_]:
    """The cells in which there can be nobody: each entry names levels of some dimensions."""
    marked = np.zeros(tuple(len(dimension.levels) for dimension in dimensions), dtype=bool)
    for entry in given:
        _only(entry, f"{place}.impossible", {dimension.id for dimension in dimensions})
        for dimension in dimensions:
            codes = [level.code for level in dimension.levels]
            if dimension.id in entry and entry[dimension.id] not in codes:
                raise BadCatalogue(f"{place}.impossible: {dimension.id} has no such level; one of {', '.join(codes)}")
        for figure in product(*(range(size) for size in marked.shape)):
            if all(
                dimensions[axis].levels[index].code
                == entry.get(dimensions[axis].id, dimensions[axis].levels[index].code)
                for axis, index in enumerate(figure)
            ):
                marked[figure] = True
    marked.flags.writeable = False
    return marked


def _countable(categories: Iterable[str], place: str, vocabulary: Vocabulary) -> None:
    for category in categories:
        if vocabulary.categories.get(category) is None or vocabulary.ceiling("PLAN", category) is not Mode.AGGREGATE:
            raise BadCatalogue(f"{place}: {category} may not be counted for planning")


def _area(items: Sequence[Item], category: str) -> str | None:
    """The school's or the practice's code in the newest item that has one."""
    told = [
        (
            item.occurred_on,
            item.recorded_on,
            f"{item.number:.0f}" if item.number is not None else item.outcome_code or "",
        )
        for item in items
        if item.category == category and (item.number is not None if category == _AREAS[0] else item.outcome_code)
    ]
    return max(told)[2] if told else None


def _only(body: Mapping[str, Any], place: str, names: set[str]) -> None:
    if unknown := body.keys() - names:
        raise BadCatalogue(f"{place}: {min(unknown)} is not read; it may hold {', '.join(sorted(names))}")
