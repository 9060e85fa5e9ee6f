"""Levels and weights of chosen pairs of rows: filters are gathered for the pairs at hand, and never all unpacked.

DuckDB computes the levels from the one SQL that all parts share (`scoring`); what it is given are the two rows of each
pair side by side, some hundred thousand at a time, so that a million records need no table of their filters.
"""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.comparisons import FIELDS
from linkage.matching.model import Model
from linkage.matching.numbering import Ints, Numbered, ends_of, groups_of, packed_pairs
from linkage.matching.scoring import columns_compared, scored_sides
from linkage.records import FILTER_WORDS

if TYPE_CHECKING:
    import duckdb

AT_ONCE: Final = 150_000
HUGEINT: Final = pa.opaque(pa.binary(16), "hugeint", "DuckDB")
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


def scored_pairs(
    connection: duckdb.DuckDBPyConnection,
    rows: Numbered,
    pairs: Ints,
    model: Model,
    frequencies: Mapping[str, pa.Table],
    wanted: Callable[[pa.Table], npt.NDArray[np.bool_]] | None = None,
) -> pa.Table:
    """SCORED, a row a pair of records, by the best of these pairs of rows (packed), in order; records count from 0.

    Best is the highest weight, then the lowest rows.  `wanted` says which of some pairs are worth keeping.
    """
    parts = []
    for left, right in _chunks(rows, pairs):
        sides = _sides(rows, left, right, model, frequencies)
        connection.register("sides_in", sides)
        sql = scored_sides(model, "sides_in", keep=("rec", "birth_year", "place"))
        found = connection.sql(f"SELECT {', '.join(SCORED.names)}, place_l, place_r FROM ({sql})").to_arrow_table()
        connection.unregister("sides_in")
        if wanted is not None:
            # Which row of several stands for a record is not known yet: those stay until it is.
            several = rows.several[found["rec_l"].to_numpy()] | rows.several[found["rec_r"].to_numpy()]
            found = found.filter(pa.array(wanted(found) | several))
        parts.append(found)
    schema = pa.schema([*SCORED, ("place_l", pa.int32()), ("place_r", pa.int32())])
    best = _best(pa.concat_tables([part.cast(schema) for part in parts] or [schema.empty_table()]).combine_chunks())
    return best if wanted is None else best.filter(pa.array(wanted(best)))


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


def _chunks(rows: Numbered, pairs: Ints) -> Iterator[tuple[Ints, Ints]]:
    """The pairs with the row of the lower record first, some at a time."""
    for start in range(0, len(pairs), AT_ONCE):
        low, high = ends_of(pairs[start : start + AT_ONCE])
        swap = rows.rec[low] > rows.rec[high]
        yield np.where(swap, high, low), np.where(swap, low, high)


def _sides(rows: Numbered, left: Ints, right: Ints, model: Model, frequencies: Mapping[str, pa.Table]) -> pa.Table:
    columns: dict[str, Any] = {}
    for side, of in (("l", left), ("r", right)):
        distinct, inverse = np.unique(of, return_inverse=True)
        some, whole = pa.array(distinct), pa.array(inverse)
        columns |= {
            f"{name}_{side}": _column(rows, name, some, frequencies).take(whole)
            for name in (*columns_compared(model), "birth_year")
        }
        columns |= {f"rec_{side}": pa.array(rows.rec[of]), f"place_{side}": pa.array(rows.place[of])}
    return pa.table(columns)


def _column(rows: Numbered, name: str, of: pa.Array, frequencies: Mapping[str, pa.Table]) -> Any:
    """One column of the working table, of these rows."""
    persons = rows.persons
    if name in persons.column_names:
        return persons[name].take(of)
    if name.startswith(_FREQUENCY):
        field = name.removeprefix(_FREQUENCY)
        return frequency_of(frequencies[field], persons[f"t_{field}"].take(of))
    if name.startswith("k_"):
        return persons[f"t_{name.removeprefix('k_')}"].take(of)
    return half(persons, name, of)


def half(persons: pa.Table, name: str, of: pa.Array | None = None) -> pa.Array:
    """`<filter>_h<n>`: two words of a filter as one HUGEINT, the first the high half; of some rows or of all."""
    stem, _, number = name.rpartition("_h")
    words = [persons[f"{stem}_w{2 * int(number) + n}"] for n in (0, 1)]
    high, low = (word.take(of) if of is not None else word for word in words)
    both = np.empty((len(high), 2), np.int64)
    both[:, 0], both[:, 1] = (word.fill_null(0).to_numpy() for word in (low, high))
    valid = pc.is_valid(high).combine_chunks() if high.null_count else None
    bitmap = valid.buffers()[1] if valid is not None else None
    if valid is not None and valid.offset:
        bitmap = pa.array(valid.to_pylist()).buffers()[1]
    stored = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(both), [bitmap, pa.py_buffer(both)])
    return pa.ExtensionArray.from_storage(HUGEINT, stored)


def halves(names: tuple[str, ...]) -> tuple[str, ...]:
    """The HUGEINT columns of these filters."""
    return tuple(f"{name}_h{n}" for name in names for n in range(FILTER_WORDS // 2))


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
