"""Levels and weights of chosen pairs of rows: what tokens settle is settled before any filter is read.

Two rows either have a token in common or not, and of filters only the bars count that their likeness reaches.  Few
combinations of these occur: so equal tokens are found for all pairs at once, a filter is read for those pairs whose
levels it could still change, and the one SQL that all parts share (`scoring`) says level and weight of a combination.
"""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Flags, Ints, ends_of, groups_of, packed_pairs
from linkage.matching.comparisons import FIELDS, comparisons, most_apart
from linkage.matching.lazily import numbers_at, numbers_of
from linkage.matching.model import Model
from linkage.matching.numbering import Numbered
from linkage.matching.scoring import columns_compared, levels, tf, weighed
from linkage.matching.texts import whole
from linkage.records import FILTER_WORDS

if TYPE_CHECKING:
    import duckdb

AT_ONCE: Final = 1_000_000  # pairs of which whole rows are made
NEAR: Final = 1 << 16  # pairs of which one column is compared while it is in the cache
SCORED: Final = pa.schema(
    [
        ("rec_l", pa.int32()),
        ("rec_r", pa.int32()),
        ("weight", pa.float64()),
        ("probability", pa.float64()),
        *((f"gamma_{field}", pa.int32()) for field in FIELDS),
        ("birth_year_l", pa.int32()),
        ("birth_year_r", pa.int32()),
    ]
)
_FREQUENCY: Final = "f_"
_LEVELS: Final = tuple(f"gamma_{field}" for field in FIELDS)
_PLACED: Final = pa.schema([*SCORED, ("place_l", pa.int32()), ("place_r", pa.int32())])


def scored_pairs(
    connection: duckdb.DuckDBPyConnection,
    rows: Numbered,
    pairs: Ints,
    model: Model,
    frequencies: Mapping[str, pa.Table],
    wanted: Callable[[pa.Table], Flags] | None = None,
) -> pa.Table:
    """SCORED, a row a pair of records, by the best of these pairs of rows (packed), in order; records count from 0.

    Best is the highest weight, then the lowest rows.  `wanted` says which of some pairs are worth keeping.
    """
    if not len(pairs):
        return SCORED.empty_table()
    sides = _Sides.of(rows, pairs)
    asked = _Asked.of(model)
    code = _tokens(sides, asked)
    code = _filters(connection, sides, asked, model, code)
    patterns, of = distinct(code)
    found = _levelled(connection, asked, model, patterns)
    parts = []
    for start in range(0, len(pairs), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        part = _rows(connection, rows, sides, model, frequencies, found, of[some], some)
        if wanted is not None:
            # Which row of several stands for a record is not known yet: those stay until it is.
            several = rows.several[part["rec_l"].to_numpy()] | rows.several[part["rec_r"].to_numpy()]
            part = part.filter(pa.array(wanted(part) | several))
        parts.append(part)
    best = _best(pa.concat_tables(parts).combine_chunks())
    return best if wanted is None else best.filter(pa.array(wanted(best)))


def distinct(codes: Ints) -> tuple[Ints, Ints]:
    """The values that occur, and for each of `codes` the place of its own among them."""
    coded = pc.dictionary_encode(pa.array(codes))
    return coded.dictionary.to_numpy(), coded.indices.to_numpy().astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """The rows that are compared, each once and in order, and each pair's two places among them."""

    persons: pa.Table
    used: Ints
    low: Ints
    high: Ints

    @classmethod
    def of(cls, rows: Numbered, pairs: Ints) -> _Sides:
        low, high = ends_of(pairs)
        is_used = np.zeros(len(rows.rec), np.bool_)
        is_used[low] = is_used[high] = True
        place = np.cumsum(is_used) - 1
        return cls(persons=rows.persons, used=np.flatnonzero(is_used), low=place[low], high=place[high])

    def numbers(self, column: str) -> tuple[npt.NDArray[Any], Flags | None]:
        """The values of a column of whole numbers, and which are there; None if all are."""
        return numbers_at(self.persons, column, self.used)

    def codes(self, column: str) -> tuple[npt.NDArray[Any], Flags | None]:
        """Numbers that are equal where the values of a column are, and which are there."""
        if pa.types.is_integer(self.persons.schema.field(column).type):
            return self.numbers(column)
        values = self.persons[column].take(pa.array(self.used))
        return numbers_of(pc.index_in(values, value_set=values.unique().drop_null()), np.arange(len(values)))

    def chunks(self) -> Iterator[tuple[slice, Ints, Ints]]:
        """The pairs, some at a time."""
        for start in range(0, len(self.low), NEAR):
            some = slice(start, start + NEAR)
            yield some, self.low[some], self.high[some]


def raw(column: pa.ChunkedArray) -> Ints:
    """The numbers of a column of 64 bits as they are stored: any number where a value is missing."""
    pieces = [
        np.frombuffer(one.buffers()[1], np.int64)[one.offset : one.offset + len(one)]
        for one in column.chunks
        if len(one)
    ]
    return np.concatenate([np.zeros(0, np.int64), *pieces])


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the levels of a model ask of two rows, read from their SQL, and its place in a pair's code.

    A code has a bit for each column of `same` and of `both`, then for each filter the number of its bars reached.
    """

    same: tuple[str, ...]
    both: tuple[str, ...]
    bars: Mapping[str, tuple[int, ...]]
    salted: bool  # likeness is of bits that are the same, not dice
    levels: str

    @classmethod
    def of(cls, model: Model) -> _Asked:
        sql = " ".join(comparison.level_sql() for comparison in comparisons(model.profile, "atoms"))
        bars: dict[str, set[int]] = {}
        for name, bar in re.findall(r"\b(\w+)_alike >= (\d+)", sql):
            bars.setdefault(name, set()).add(int(bar))
        return cls(
            same=tuple(sorted(set(re.findall(r"\bsame_(\w+)", sql)))),
            both=tuple(sorted(set(re.findall(r"\bboth_(\w+)", sql)))),
            bars={name: tuple(sorted(some)) for name, some in sorted(bars.items())},
            salted=model.profile == "guarded-3",
            levels=levels(model, "atoms"),
        )

    def shift(self, name: str) -> int:
        """Where in a code the bars of a filter begin."""
        before = list(self.bars)[: list(self.bars).index(name)]
        return len(self.same) + len(self.both) + sum(_bits(self.bars[one]) for one in before)

    def atoms(self, codes: Ints, alike: Mapping[str, npt.NDArray[Any]] | None = None) -> pa.Table:
        """What the SQL reads, of these codes; with `alike` in place of theirs."""
        flags = (*(f"same_{name}" for name in self.same), *(f"both_{name}" for name in self.both))
        columns = {name: pa.array((codes >> n & 1).astype(np.bool_)) for n, name in enumerate(flags)}
        for name, bars in self.bars.items():
            reached = codes >> self.shift(name) & ((1 << _bits(bars)) - 1)
            found = np.array([0, *bars])[reached] if alike is None else alike[name]
            columns[f"{name}_alike"] = pa.array(found.astype(np.int32))
        return pa.table(columns | {"n": pa.array(np.arange(len(codes)))})


def _bits(bars: tuple[int, ...]) -> int:
    return len(bars).bit_length()


def _tokens(sides: _Sides, asked: _Asked) -> Ints:
    """The code of each pair, as yet without bars."""
    code = np.zeros(len(sides.low), np.int64)
    for n, name in enumerate(asked.same):
        values, valid = sides.codes(name)
        if valid is not None:
            values[~valid] = missing = _absent(values)
        for some, low, high in sides.chunks():
            left = values[low]
            same = left == values[high]
            if valid is not None:
                same &= left != missing
            code[some] |= same.astype(np.int64) << n
    for n, name in enumerate(asked.both, len(asked.same)):
        _, valid = sides.codes(name) if name in sides.persons.column_names else sides.numbers(f"{name}_n")
        if valid is None:
            code |= 1 << n
            continue
        for some, low, high in sides.chunks():
            code[some] |= (valid[low] & valid[high]).astype(np.int64) << n
    return code


def _absent(values: npt.NDArray[Any]) -> int:
    """A number that is not among these."""
    number = int(np.iinfo(values.dtype).min)
    while (values == number).any():
        number += 1
    return number


def _filters(connection: duckdb.DuckDBPyConnection, sides: _Sides, asked: _Asked, model: Model, code: Ints) -> Ints:
    """The same codes with the bars that each filter's likeness reaches, where a level hangs on it."""
    patterns, of = distinct(code)
    for name, hangs in _hang_on(connection, asked, patterns).items():
        places = np.flatnonzero(hangs[of])
        if len(places):
            code[places] |= _bars_reached(sides, name, asked, places) << asked.shift(name)
    return code


def _hang_on(connection: duckdb.DuckDBPyConnection, asked: _Asked, patterns: Ints) -> dict[str, Flags]:
    """By filter, the patterns of which a level hangs on its likeness, whether the other filters' are low or high."""
    ways: list[tuple[str | None, int]] = [(None, 0), (None, 100)]
    ways += [(name, rest) for name in asked.bars for rest in (0, 100)]
    alike = {
        name: np.repeat([100 - rest if one == name else rest for one, rest in ways], len(patterns))
        for name in asked.bars
    }
    connection.register("atoms_in", asked.atoms(np.tile(patterns, len(ways)), alike))
    found = connection.execute(f"SELECT {asked.levels} FROM atoms_in ORDER BY n").fetchnumpy()
    connection.unregister("atoms_in")
    said = np.stack([np.asarray(found[name]) for name in _LEVELS]).reshape(len(_LEVELS), len(ways), len(patterns))
    return {
        name: np.asarray(
            (said[:, 0] != said[:, ways.index((name, 0))]).any(axis=0)
            | (said[:, 1] != said[:, ways.index((name, 100))]).any(axis=0)
        )
        for name in asked.bars
    }


def _bars_reached(sides: _Sides, name: str, asked: _Asked, places: Ints) -> Ints:
    """How many bars the likeness of a filter reaches, for the pairs at these places, whose both sides have it."""
    is_used = np.zeros(len(sides.used), np.bool_)
    low, high = sides.low[places], sides.high[places]
    is_used[low] = is_used[high] = True
    place = np.cumsum(is_used) - 1
    some = _Sides(persons=sides.persons, used=sides.used[is_used], low=place[low], high=place[high])
    words = np.empty((len(some.used), FILTER_WORDS), np.uint64)
    for n in range(FILTER_WORDS):
        words[:, n] = some.numbers(f"{name}_w{n}")[0].view(np.uint64)
    reached = np.zeros(len(places), np.int64)
    if asked.salted:
        most = [most_apart(bar) for bar in asked.bars[name]]
        for at, left, right in some.chunks():
            apart = np.bitwise_count(words[left] ^ words[right]).sum(axis=1, dtype=np.int32)
            for bar in most:
                reached[at] += apart <= bar
        return reached
    size = some.numbers(f"{name}_n")[0].astype(np.int32)
    for at, left, right in some.chunks():
        common = np.bitwise_count(words[left] & words[right]).sum(axis=1, dtype=np.int32)
        of = size[left] + size[right]
        for bar in asked.bars[name]:
            reached[at] += 200 * common >= bar * of
    return reached


def _levelled(connection: duckdb.DuckDBPyConnection, asked: _Asked, model: Model, patterns: Ints) -> pa.Table:
    """Of each pattern its levels, and by these alone its weight and probability."""
    connection.register("atoms_in", asked.atoms(patterns))
    names = [comparison for comparison in comparisons(model.profile) if comparison.tf_column]
    rarity = "".join(f", NULL::DOUBLE AS tf_{comparison.field}" for comparison in names)
    sql = weighed(model, f"(SELECT n, {asked.levels}{rarity} FROM atoms_in)", keep=("n",))
    found = connection.sql(f"SELECT {', '.join(_LEVELS)}, weight, probability FROM ({sql}) ORDER BY n")
    table = found.to_arrow_table().combine_chunks()
    connection.unregister("atoms_in")
    return table


def _rows(
    connection: duckdb.DuckDBPyConnection, rows: Numbered, sides: _Sides, model: Model,
    frequencies: Mapping[str, pa.Table], found: pa.Table, of: Ints, some: slice,
) -> pa.Table:  # fmt: skip
    """Whole rows of some pairs, that of the lower record on the left: `found` of their patterns, and who they are."""
    low, high = sides.used[sides.low[some]], sides.used[sides.high[some]]
    swap = rows.rec[low] > rows.rec[high]
    ends = {"l": np.where(swap, high, low), "r": np.where(swap, low, high)}
    columns: dict[str, Any] = {name: found[name].take(pa.array(of)) for name in found.column_names}
    names = [comparison for comparison in comparisons(model.profile) if comparison.tf_column]
    for side, rec in ends.items():
        columns |= {f"rec_{side}": pa.array(rows.rec[rec]), f"place_{side}": pa.array(rows.place[rec])}
        columns[f"birth_year_{side}"] = _birth_years(rows).take(pa.array(rec))
        for comparison in names:
            tokens = rows.persons[f"t_{comparison.field}"].take(pa.array(rec))
            columns[f"f_{comparison.field}_{side}"] = frequency_of(frequencies[comparison.field], tokens)
    if names:  # how rare a name is hangs on more than the pattern
        columns["n"] = pa.array(np.arange(len(of)))
        rarity = "".join(f", {tf(comparison)} AS tf_{comparison.field}" for comparison in names)
        connection.register("pairs_in", pa.table(columns))
        sql = weighed(model, f"(SELECT n, {', '.join(_LEVELS)}{rarity} FROM pairs_in)", keep=("n",))
        weights = connection.sql(f"SELECT weight, probability FROM ({sql}) ORDER BY n").to_arrow_table()
        connection.unregister("pairs_in")
        columns |= {name: weights[name] for name in weights.column_names}
    return pa.table({name: columns[name] for name in _PLACED.names}).cast(_PLACED)


def _birth_years(rows: Numbered) -> pa.Array:
    return whole(rows.persons["birth_year"])


def _best(found: pa.Table) -> pa.Table:
    """Of several pairs of rows of one pair of records the best; in order of the records."""
    both = packed_pairs(found["rec_l"].to_numpy(), found["rec_r"].to_numpy())
    order = np.argsort(both, kind="stable")
    starts, ends = groups_of(both[order])
    chosen = order[starts]
    several = ends - starts > 1
    if several.any():
        rows = order[np.repeat(several, ends - starts)]
        weight, left, right = (found[name].to_numpy()[rows] for name in ("weight", "place_l", "place_r"))
        again = rows[np.lexsort((right, left, -weight, both[rows]))]
        chosen[several] = again[groups_of(both[again])[0]]
    return found.select(SCORED.names).take(pa.array(chosen))


# --- How frequent a name is (`accurate`) -----------------------------------------------------------------------------


def frequencies_of(persons: pa.Table, model: Model) -> dict[str, pa.Table]:
    """By field, the tokens and the share of the rows that bear each; the last row, without a token, is one row's share.

    Who is not in the table is as rare as one row: so a table frozen with the model serves later nights too.
    """
    found: dict[str, pa.Table] = {}
    for name in columns_compared(model):
        if not name.startswith(_FREQUENCY):
            continue
        field = name.removeprefix(_FREQUENCY)
        tokens = persons[f"t_{field}"].drop_null()
        counted = pc.value_counts(tokens.combine_chunks())
        total = max(1, len(tokens))
        token = pa.concat_arrays([counted.field("values"), pa.nulls(1, pa.int64())])
        share = np.append(counted.field("counts").to_numpy() / total, 1 / total)
        found[field] = pa.table({"token": token, "frequency": pa.array(share, pa.float64())})
    return found


def frequency_of(table: pa.Table, tokens: Any) -> pa.Array:
    """The frequency of each token; null where there is none."""
    places = pc.index_in(tokens, value_set=table["token"].slice(0, table.num_rows - 1).combine_chunks())
    known = pc.if_else(pc.is_valid(tokens), pc.fill_null(places, table.num_rows - 1), pa.scalar(None, pa.int32()))
    return table["frequency"].take(known)
