"""A digest of each row of a table, by columns: what tells a row that has changed from one that has not.

A sum of the columns' values times odd numbers, modulo 2^64: rows that differ in one column never have the same, others
by chance alone.  It guards against nobody who chooses rows: whoever sends two rows alike has sent the same row.
Source: Dietzfelbinger 1996, doi:10.1007/3-540-60922-9_46 (multiply-add hashing).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import duckdb

Digests = npt.NDArray[np.uint64]

AT_ONCE: Final = 1 << 15  # rows whose columns are summed while the sum is in the cache
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


def mixed(values: npt.NDArray[Any], salt: int) -> Digests:
    """A digest of each value (splitmix64), to be summed: the sum of a set depends on no order.

    Source: Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195.
    """
    state: Digests = np.asarray(values).astype(np.uint64) + np.uint64(int(_MIX) * (salt + 1) % 2**64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)), np.uint64)


def row_digests(connection: duckdb.DuckDBPyConnection, table: pa.Table, columns: Sequence[str]) -> Digests:
    """A digest of these columns of each row: of whole numbers, and of texts of which there are few."""
    said = table.select(list(columns))
    total = np.zeros(table.num_rows, np.uint64)
    texts = [field.name for field in said.schema if not pa.types.is_integer(field.type)]
    for n, name in enumerate(texts):
        total += _texts(connection, said[name], n)
    start = 0
    for batch in said.drop_columns(texts).to_batches():
        _add(total[start : start + batch.num_rows], batch.columns)
        start += batch.num_rows
    return total


def _texts(connection: duckdb.DuckDBPyConnection, column: pa.ChunkedArray, salt: int) -> Digests:
    """A digest of each text, by DuckDB, of each once; missing ones have one too."""
    total = np.empty(len(column), np.uint64)
    start = 0
    for chunk in column.chunks:
        coded = pc.dictionary_encode(chunk, null_encoding="encode")
        connection.register("texts_in", pa.table({"text": coded.dictionary, "n": np.arange(len(coded.dictionary))}))
        made = connection.execute("SELECT hash(text) AS digest FROM texts_in ORDER BY n").fetchnumpy()
        connection.unregister("texts_in")
        total[start : start + len(chunk)] = mixed(np.asarray(made["digest"], np.uint64), salt)[coded.indices.to_numpy()]
        start += len(chunk)
    return total


def _add(total: Digests, columns: Sequence[pa.Array]) -> None:
    """Add to `total`, of each column of whole numbers, value times factor and a number, but nothing where none is.

    Any number may stand where a value is missing: what comes of it is taken off again, or never added where few are.
    """
    factors, constants = (mixed(np.arange(len(columns)), salt) | np.uint64(1) for salt in (5, 6))
    most, every = [], 0
    with np.errstate(over="ignore"):
        for column, factor, constant in zip(columns, factors, constants, strict=True):
            kind = np.dtype(column.type.to_pandas_dtype())
            missing = column.null_count
            if missing == len(column):
                continue
            held = np.frombuffer(column.buffers()[1], kind)[column.offset : column.offset + len(column)]
            values = held.view(np.dtype(f"u{kind.itemsize}"))
            few = 2 * missing > len(column)
            if missing:
                at = _places(column, there=few)
                change = values[at] * factor + constant
                total[at] = total[at] + change if few else total[at] - change
            if not few:
                most.append((values, factor))
                every += int(constant)
        total += np.uint64(every % 2**64)
        spare = np.empty(min(AT_ONCE, len(total)), np.uint64)
        for start in range(0, len(total), AT_ONCE):
            into = total[start : start + AT_ONCE]
            product = spare[: len(into)]
            for values, factor in most:
                np.multiply(values[start : start + AT_ONCE], factor, out=product)
                into += product


def _places(column: pa.Array, *, there: bool) -> npt.NDArray[np.int64]:
    """Where a column has values, or where it has none."""
    bits = np.unpackbits(np.frombuffer(column.buffers()[0], np.uint8), bitorder="little")
    return np.flatnonzero(bits[column.offset : column.offset + len(column)] == there)
