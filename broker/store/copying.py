"""Rows as PostgreSQL's COPY takes them, made column by column: a value by itself would cost more than keeping it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # loaded where a batch is kept: what only asks never waits for it
    import pyarrow as pa

HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension
TAIL: Final = b"\xff\xff"
_NULL: Final = -1
_EPOCH: Final = 10_957  # days from 1970, which Arrow counts from, to 2000


def told(same: Mapping[str, str], rows: pa.RecordBatch) -> memoryview:
    """Rows in COPY's binary format, each after the values that are the same in all of them.

    Columns are text, binary or dates.  Raises TypeError for any other.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    before = struct.pack("!h", len(same) + rows.num_columns)
    for value in same.values():
        before += struct.pack("!i", len(value.encode())) + value.encode()
    parts: list[Any] = [pa.scalar(before, pa.large_binary())]
    for column in rows.columns:
        parts += _column(column)
    whole = pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary()))
    _, ends, raw = whole.buffers()
    return memoryview(raw)[: np.frombuffer(ends, np.int64)[len(whole)]] if len(whole) else memoryview(b"")


def _column(column: pa.Array) -> Iterator[pa.Array]:
    """Lengths and values."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_date32(column.type):
        days = pc.fill_null(column.cast(pa.int32()), _EPOCH).to_numpy() - _EPOCH
        column = pc.if_else(column.is_valid(), _words(days), pa.scalar(None, pa.large_binary()))
    elif not (pa.types.is_string(column.type) or pa.types.is_binary(column.type)):
        raise TypeError(f"COPY is told no {column.type} here")
    column = column.cast(pa.large_binary())
    yield _words(pc.fill_null(pc.binary_length(column).cast(pa.int32()), _NULL).to_numpy().astype(np.int32))
    yield pc.fill_null(column, b"")


def _words(numbers: Any) -> pa.Array:
    """Each as four bytes, the highest first."""
    import pyarrow as pa

    raw = pa.py_buffer(numbers.astype(">i4").tobytes())
    return pa.Array.from_buffers(pa.binary(4), len(numbers), [None, raw]).cast(pa.large_binary())
