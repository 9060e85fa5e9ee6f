"""Texts in columns by their places: those of one length are moved, found and put in order as blocks of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Flags, Ints, Places, maybe_among, order_of, repeated
from linkage.matching.lazily import Lazy

KEYED: Final = 8  # bytes by which texts are put in order


def rows_at(table: Any, places: Ints, columns: Sequence[str]) -> pa.Table:
    """Some rows of a table, in order: piece by piece, as to find the piece of each anew for each column takes long."""
    if isinstance(table, Lazy):
        return table.rows_at(places, columns)
    table = table.select(list(columns))
    pieces, start = [], 0
    for batch in table.to_batches():
        low, high = np.searchsorted(places, [start, start + batch.num_rows])
        if high > low:
            pieces.append(batch.take(pa.array(places[low:high] - start)))
        start += batch.num_rows
    return pa.Table.from_batches(pieces, schema=table.schema)


def texts_among(column: pa.ChunkedArray, some: pa.Array) -> Flags:
    """Which texts of a column are one of some: of texts of one length by how they begin, before all of one is read."""
    found = [np.zeros(0, np.bool_)]
    wanted = _blocks_of(some) if len(some) else None
    for chunk in (one for one in column.chunks if len(one)):
        if pa.types.is_dictionary(chunk.type):
            among = np.append(texts_among(pa.chunked_array([chunk.dictionary]), some), False)
            found.append(among[pc.fill_null(chunk.indices, len(chunk.dictionary)).to_numpy()])
            continue
        held = _blocks_of(chunk)
        if held is None or wanted is None or held.shape[1] != wanted.shape[1] or held.shape[1] % KEYED:
            found.append(np.asarray(pc.is_in(chunk, value_set=some, skip_nulls=True).to_numpy(zero_copy_only=False)))
            continue
        begin = np.ascontiguousarray(held.view(np.uint64)[:, 0])
        maybe = np.flatnonzero(maybe_among(np.ascontiguousarray(wanted.view(np.uint64)[:, 0]), begin))
        among = np.zeros(len(chunk), np.bool_)
        are = pc.is_in(chunk.take(pa.array(maybe)), value_set=some).to_numpy(zero_copy_only=False)
        among[maybe[np.asarray(are, np.bool_)]] = True
        found.append(among)
    return np.concatenate(found)


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece: itself, where it is one."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        return joined.chunk(0) if joined.num_chunks else pa.array([], column.type)
    return joined


def texts_of(texts: pa.ChunkedArray, places: npt.NDArray[Any]) -> pa.Array:
    """The texts at some places of a column in pieces, which are not put together for it."""
    pieces = [chunk for chunk in texts.chunks if len(chunk)]
    held = [_blocks_of(chunk) for chunk in pieces]
    size = held[0].shape[1] if held and held[0] is not None else 0
    same = [_wide(one) for one in held if one is not None and one.shape[1] == size]
    if len(pieces) < 2 or len(same) < len(pieces) or len(places) * size >= 1 << 31:
        return texts_at(whole(texts), places)
    found = np.empty((len(places), same[0].shape[1]), same[0].dtype)
    start = 0
    for one in same:
        here = np.flatnonzero((places >= start) & (places < start + len(one)))
        found[here] = one[places[here] - start]
        start += len(one)
    return _texts(found.view(np.uint8).reshape(len(places), size))


def texts_at(texts: pa.Array, places: npt.NDArray[Any]) -> pa.Array:
    """The texts at some places: those of one length are moved as blocks of so many bytes."""
    if not len(texts):
        return texts.take(pa.array(places, pa.int64()))
    held = _blocks_of(texts)
    if held is None or len(places) * held.shape[1] >= 1 << 31:
        return texts.take(pa.array(places))
    return _texts(np.take(_wide(held), places, axis=0).view(np.uint8).reshape(len(places), held.shape[1]))


def texts_in_order(texts: pa.Array) -> Ints:
    """The places of texts that are all unlike, in their order."""
    held = _blocks_of(texts) if len(texts) else None
    if held is None or held.shape[1] < KEYED:
        return np.asarray(pc.sort_indices(texts).to_numpy(), np.int64)
    begin = np.ascontiguousarray(held[:, :KEYED]).view(">u8").ravel().astype(np.uint64)
    order = order_of(begin)
    alike = repeated(begin[order])
    if len(alike):  # few begin alike: those are put in order by the whole of them
        some = order[alike]
        order[alike] = some[np.lexsort((pc.rank(texts.take(pa.array(some))).to_numpy(), begin[some]))]
    return order


def _blocks_of(texts: pa.Array) -> npt.NDArray[np.uint8] | None:
    """Texts of one length as rows of bytes; None if they are of several, or some are missing."""
    ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    size = int(ends[1] - ends[0])
    if not size or texts.null_count or not (np.diff(ends) == size).all():
        return None
    return np.frombuffer(texts.buffers()[2], np.uint8)[ends[0] : ends[-1]].reshape(len(texts), size)


def _wide(rows: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """The same rows of bytes as words, which move faster."""
    size = rows.shape[1]
    return rows.view(np.uint64 if size % 8 == 0 else np.uint32) if size % 4 == 0 else rows


def _texts(rows: npt.NDArray[np.uint8]) -> pa.Array:
    bounds = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.StringArray.from_buffers(len(rows), pa.py_buffer(bounds), pa.py_buffer(np.ascontiguousarray(rows)))


def spelled(words: list[str], codes: Places) -> pa.Array:
    """The words of these codes, of which there are few."""
    if len(codes) and (codes[1:] >= codes[:-1]).all():
        return pa.concat_arrays([
            pa.repeat(pa.scalar(words[code], pa.string()), int(count))
            for code, count in enumerate(np.bincount(codes, minlength=len(words)).tolist())
        ])  # fmt: skip
    return pa.array(words, pa.string()).take(pa.array(codes))


def coded(texts: pa.ChunkedArray) -> pa.DictionaryArray:
    """Texts of which there are few, each once; most pieces of a table hold one alone."""
    pieces = []
    for chunk in texts.chunks:
        if not len(chunk):
            continue
        ends = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        first = (chunk[0].as_py() or "").encode()
        alike = not chunk.null_count and bool((np.diff(ends) == len(first)).all())
        if alike and chunk.buffers()[2][int(ends[0]) : int(ends[-1])].to_pybytes() == first * len(chunk):
            one = pa.array(np.zeros(len(chunk), np.int32))
            pieces.append(pa.DictionaryArray.from_arrays(one, pa.array([first.decode()], chunk.type)))
        else:
            pieces.append(pc.dictionary_encode(chunk))
    return whole(pa.chunked_array(pieces, pa.dictionary(pa.int32(), texts.type)).unify_dictionaries())
