"""Reading a catalogue of declared tables: strict, whole or not at all, each fault with its place."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import pairwise, product
from types import MappingProxyType
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from agreements.document.parsing import nearest
from agreements.request import Basis
from agreements.statistics.tables import AREAS, Catalogue, Dimension, Kind, Level, Table
from agreements.vocabulary import VOCABULARY, Mode, Vocabulary

MOST_DIMENSIONS: Final = 3
MOST_CELLS: Final = 240
RARE_TIER: Final = 2


class BadCatalogue(ValueError):
    """A catalogue that can't be used; the message names the place and what to write instead."""


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
    if dimension.kind == "area" and categories not in [(one,) for one in AREAS]:
        raise BadCatalogue(f"{place}.categories: one of {', '.join(AREAS)}")


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


def _only(body: Mapping[str, Any], place: str, names: set[str]) -> None:
    if unknown := body.keys() - names:
        raise BadCatalogue(f"{place}: {min(unknown)} is not read; it may hold {', '.join(sorted(names))}")
