"""A table read column by column says what the whole table says."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.matching.lazily import Lazy, Piece, Spliced, in_memory, numbers_at, rows_where
from linkage.matching.texts import rows_at, texts_among
from tests.sizes import LONG

SCHEMA = pa.schema([("ref", pa.string()), ("token", pa.int64()), ("sex", pa.string()), ("flag", pa.bool_())])
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a" * 16, "b" * 16, "ab" * 8, "aaaaaaaabbbbbbbb"]), st.none() | st.integers(-9, 9),
        st.none() | st.sampled_from("FM"), st.none() | st.booleans(),
    ),
    max_size=8,
)  # fmt: skip


def a_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table([pa.array([row[n] for row in rows], field.type) for n, field in enumerate(SCHEMA)], schema=SCHEMA)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Lazy, pa.Table]:
    pieces, parts = [], []
    for rows in draw(st.lists(ROWS, min_size=1, max_size=3)):
        table = a_table(rows)
        live = draw(st.none() | st.lists(st.integers(0, len(rows) - 1), unique=True).map(sorted)) if rows else None
        held = table if live is None else table.take(pa.array(live, pa.int64()))
        at = None if live is None else np.array(live, np.int64)

        def read(name: str, passing: bool, table: pa.Table = table) -> pa.ChunkedArray:
            words = passing and name == "sex"  # as a segment gives words until the next column is read
            return table[name].dictionary_encode() if words else table[name]

        pieces.append(Piece(read=read, rows=len(rows), live=at))
        parts.append(held)
    lazy, table = Lazy(SCHEMA, pieces), pa.concat_tables(parts)
    others = dict(enumerate(draw(ROWS)[: (table.num_rows + 1) // 2]))  # of every other row, from the first on
    if not others:
        return lazy, table
    said = [a_table([others[n // 2]]) if n % 2 == 0 and n // 2 in others else table.slice(n, 1)
            for n in range(table.num_rows)]  # fmt: skip
    return Spliced(lazy, np.array([*others], np.int64) * 2, a_table([*others.values()])), pa.concat_tables(said)


@settings(deadline=None, max_examples=500 if LONG else 30)
@given(tables(), st.data())
def test_pieces_of_which_some_rows_count_say_what_the_table_of_these_rows_says(
    both: tuple[Lazy, pa.Table], data: st.DataObject
) -> None:
    lazy, table = both
    count = table.num_rows
    assert (lazy.num_rows, lazy.column_names) == (count, table.column_names)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1)))) if count else [], np.int64)
    some = table.take(pa.array(rows))
    assert lazy.rows_at(rows, SCHEMA.names).to_pylist() == some.to_pylist()
    assert rows_at(lazy, rows, ["sex", "ref"]).to_pylist() == rows_at(table, rows, ["sex", "ref"]).to_pylist()
    assert lazy.take(pa.array(rows[::-1])).to_pylist() == some.to_pylist()[::-1]
    for _ in range(2):  # before the column is held, and after
        values, there = numbers_at(lazy, "token", rows)
        said = [None if there is not None and not there[n] else value for n, value in enumerate(values.tolist())]
        assert said == some["token"].to_pylist()
        assert lazy["token"].to_pylist() == table["token"].to_pylist()
    mask = pc.is_valid(table["sex"])
    assert rows_where(lazy, mask, ["token"]).to_pylist() == rows_where(table, mask, ["token"]).to_pylist()
    assert in_memory(lazy).equals(in_memory(table))
    wanted = pa.array(["a" * 16, "b" * 16])
    coded = table["sex"].dictionary_encode()
    assert texts_among(coded, pa.array(["F"])).tolist() == [sex == "F" for sex in table["sex"].to_pylist()]
    assert texts_among(table["ref"], wanted).tolist() == [ref in wanted.to_pylist() for ref in table["ref"].to_pylist()]
