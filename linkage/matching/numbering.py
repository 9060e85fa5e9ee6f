"""Records and rows by number, as arrays: what a link run over a million rows computes with instead of names.

Records are numbered by flow, in the order of their names, and within a flow by a 64-bit digest of their own names.  So
the order of the rows makes no difference, and yesterday's records are found by a merge of sorted arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.digests import Digests, mixed, row_digests
from linkage.matching.lazily import Lazy
from linkage.records import FILTERS, IDENTIFIERS, TOKENS, Profile, filter_columns

if TYPE_CHECKING:
    import duckdb

Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

Source = tuple[str, str]
"""Agency and flow."""

KEY: Final = ("agency", "flow", "record_ref")
_SIDE: Final = 32
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_TOO: Final = np.uint64(0xBF58476D1CE4E5B9)
REF_LENGTH: Final = 64  # of a record_ref: hex digits of a keyed token
SAMPLED: Final = 1024  # rows that are read again of those that are said to be as they were
FEW: Final = 8  # times as many are searched for this many by a look at each
KEYED: Final = 8  # bytes by which texts are put in order
AT_ONCE: Final = 1 << 15  # numbers that are looked at together
NEAR: Final = 1 << 13  # texts that are hashed at a time
STEP: Final = 64  # of rows in one order, one in so many is looked up, and the others are beside it


def content_columns(profile: Profile) -> tuple[str, ...]:
    """The columns of a persons row that linkage reads, its name aside."""
    return (
        *(column for name in FILTERS[profile] for column in filter_columns(name)),
        *(f"t_{name}" for name in TOKENS[profile]),
        *(f"id_{name}" for name in IDENTIFIERS),
        "birth_year",
        "sex",
    )


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """Persons rows, and which record each is of.  Records and flows count from 0.

    `name` (128 bits of a digest of it, in two halves) and `source` are by record.  By row are `rec`, `digest` (of what
    linkage reads of it) and `place`: its rank in the order of records and, of one record's rows, of their digests.
    """

    persons: pa.Table
    sources: tuple[Source, ...]
    may_repeat: Flags  # by source: it may hold a person twice
    name: tuple[Digests, Digests]
    source: Places
    rec: Places
    digest: Digests
    place: Places
    first: Ints  # by record: one of its rows
    now: Ints | None = None  # by record of an earlier run: its number in this one, or -1

    @property
    def records(self) -> int:
        """How many records there are."""
        return len(self.source)

    @cached_property
    def several(self) -> Flags:
        """By record: it has more than one row."""
        return np.bincount(self.rec, minlength=self.records) > 1

    def content(self) -> Digests:
        """By record: a digest of its rows."""
        total = mixed(self.digest[self.first], 1)
        rows = np.flatnonzero(self.several[self.rec])
        total[self.rec[rows]] = 0
        np.add.at(total, self.rec[rows], mixed(self.digest[rows], 1))
        return total

    def keys(self, recs: npt.NDArray[Any]) -> list[tuple[str, str, str]]:
        """The names of these records."""
        return list(zip(*(column.to_pylist() for column in self.named(recs).values()), strict=True))

    def find(self, keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], int]:
        """The numbers of those of these records that are there."""
        wanted = set(keys)
        if not wanted:
            return {}
        refs = pa.array(sorted({ref for _, _, ref in wanted}), pa.string())
        rows = pc.indices_nonzero(pc.is_in(self.persons["record_ref"], value_set=refs)).to_numpy()
        recs = np.unique(self.rec[rows])
        return {key: rec for key, rec in zip(self.keys(recs), recs.tolist(), strict=True) if key in wanted}

    @cached_property
    def _by_name(self) -> tuple[Ints, Digests]:
        order = order_of(self.name[0])
        return order, self.name[0][order]

    def places(self, connection: duckdb.DuckDBPyConnection, named: pa.Table) -> Ints:
        """The record of each row of a table that names records by KEY; -1 where there is no such record."""
        return self.places_of(*_names(connection, named))

    def places_of(self, first: Digests, second: Digests | None = None) -> Ints:
        """The record of each of these names, by one or both of its digests; -1 where there is no such record."""
        if len(first) * FEW < self.records:
            found = looked_up(self.name[0], first)
            if second is not None:
                found[(found >= 0) & (self.name[1][found] != second)] = -1
            return found
        order, known = self._by_name
        asked = order_of(first)  # in order, a search finds its neighbours in the cache
        there, at = contains(known, first[asked])
        found = np.full(len(first), -1, np.int64)
        found[asked[there]] = order[at[there]]
        if second is not None:
            found[(found >= 0) & (self.name[1][found] != second)] = -1
        return found

    def found_again(self, first: Digests, second: Digests) -> Ints:
        """For each record of an earlier run, by both digests of its name, its number in this one, or -1."""
        return self.places_of(first, second) if self.now is None else self.now

    def placed_as(self, before: Before | None, first: Digests, second: Digests) -> Ints:
        """The same of rows that mostly come as the households of an earlier run did."""
        if before is None or self.now is None:
            return self.places_of(first, second)
        homes = before.homes[before.homes >= 0]
        if not len(homes):
            return self.places_of(first, second)
        at = aligned(first, before.name[0][homes])
        was = homes[at]
        known = at >= 0
        known[known] = (before.name[1][was[known]] == second[known]) & (self.now[was[known]] >= 0)
        found = np.full(len(first), -1, np.int64)
        found[known] = self.now[was[known]]
        others = np.flatnonzero(~known)
        found[others] = self.places_of(first[others], second[others])
        return found

    def named(self, recs: npt.NDArray[Any] | None = None) -> dict[str, pa.Array]:
        """The three columns that name these records, or all."""
        sources = self.source if recs is None else self.source[recs]
        refs = texts_of(self.persons["record_ref"], self.first if recs is None else self.first[recs])
        parts = {name: _spelled([source[n] for source in self.sources], sources) for n, name in enumerate(KEY[:2])}
        return {**parts, "record_ref": refs}


@dataclass(frozen=True, kw_only=True)
class Before:
    """Records as an earlier run numbered them, and of its rows, as they came, which record each was of.

    `digest` is of these rows; `homes` says of its rows of relationships whose household they say, -1 for nobody's.
    """

    sources: tuple[Source, ...]
    name: tuple[Digests, Digests]
    source: Places
    rec: Places
    digest: Digests
    homes: Places
    as_given: bool = True  # and no row was left out, and no number taken from one


@dataclass(frozen=True, kw_only=True)
class Carried:
    """By row of tonight's persons and relationships: which row of the earlier run's it is, unaltered, or -1.

    Said by whoever took the rows from where that run's lie sealed; a sample is held against what was kept of them.
    """

    persons: Ints
    relationships: Ints


def numbered(
    connection: duckdb.DuckDBPyConnection,
    persons: pa.Table,
    profile: Profile,
    duplicates: Iterable[tuple[str, str]],
    before: Before | None = None,
    carried: Ints | None = None,
) -> Numbered:
    """Number the rows and records of `persons`.

    With `before` the numbers are the same: they come of merging what is new into what was in order, not of sorting.
    With `carried` (see Carried) only the other rows are read, unless a sample says that it is wrong.
    """
    told = None
    if before is not None and carried is not None and (sample := _sample(persons, before, carried)) is not None:
        told = _told(connection, persons, profile, before, carried, sample)
    sources, (name, source, rec, now), digest = told or _read(connection, persons, profile, before)
    count = np.bincount(rec, minlength=len(source))
    start = np.cumsum(count) - count
    place = start[rec].astype(np.int32)
    several = np.flatnonzero(count[rec] > 1)
    if len(several):
        several = several[np.lexsort((digest[several], rec[several]))]
        begins, ends = groups_of(rec[several])
        place[several] += ramp(ends - begins).astype(np.int32)
    one = np.empty(len(source), np.int64)
    least = np.flatnonzero(place == start[rec])
    one[rec[least]] = least
    declared = set(duplicates)
    return Numbered(
        persons=persons,
        sources=sources,
        may_repeat=np.array([source in declared for source in sources], np.bool_),
        name=name,
        source=source,
        rec=rec,
        digest=digest,
        place=place,
        first=one,
        now=now,
    )


def _read(
    connection: duckdb.DuckDBPyConnection, persons: pa.Table, profile: Profile, before: Before | None
) -> tuple[tuple[Source, ...], _Recorded, Digests]:
    """Flows, records and digests of all rows, each of which is read."""
    codes, sources = _sources(persons["agency"], persons["flow"])
    first, second = _digests_of(connection, persons["record_ref"], codes, sources)
    merged = None
    if before is not None:
        at = aligned(first, before.name[0][before.rec])
        was = np.where(at >= 0, before.rec[at], -1) if len(before.rec) else at
        merged = _merged(codes, sources, first, second, was, before)
    recorded = merged or _sorted(codes, first, second)
    return sources, recorded, row_digests(connection, persons, content_columns(profile))


def _told(
    connection: duckdb.DuckDBPyConnection, persons: pa.Table, profile: Profile, before: Before, carried: Ints,
    sample: Ints,
) -> tuple[tuple[Source, ...], _Recorded, Digests] | None:  # fmt: skip
    """The same, of which those rows alone are read that are not `carried`, and a `sample` of those that are.

    None where that would not do: the sample is not what it is said to have been.
    """
    is_new = carried < 0
    read = is_new.copy()
    read[sample] = True
    rows = np.flatnonzero(read)
    some = rows_at(persons, rows, (*KEY, *content_columns(profile)))
    codes, mine = _sources(some["agency"], some["flow"])
    first, second = _digests_of(connection, some["record_ref"], codes, mine)
    said = row_digests(connection, some, content_columns(profile))
    fresh = is_new[rows]
    at = carried[rows[~fresh]]
    of = before.rec[at]
    names = (before.name[0][of] == first[~fresh]) & (before.name[1][of] == second[~fresh])
    if not (names & (before.digest[at] == said[~fresh])).all():
        return None
    new, codes, first, second, said = rows[fresh], codes[fresh], first[fresh], second[fresh], said[fresh]
    was = np.append(before.rec, np.int32(-1))[carried]
    was[new] = looked_up(before.name[0], first)
    alive = np.zeros(len(before.source), np.bool_)
    alive[was[was >= 0]] = True
    here = np.flatnonzero(np.bincount(before.source[alive], minlength=len(before.sources)))
    came = [mine[n] for n in np.flatnonzero(np.bincount(codes, minlength=len(mine))).tolist()]
    sources = tuple(sorted({*came, *(before.sources[n] for n in here.tolist())}))
    place = np.array([sources.index(source) if source in sources else -1 for source in mine], np.int32)
    every, one, other = np.zeros(len(carried), np.int32), *(np.zeros(len(carried), np.uint64) for _ in range(2))
    every[new], one[new], other[new] = place[codes], first, second
    digest = np.append(before.digest, np.uint64(0))[carried]
    digest[new] = said
    merged = _merged(every, sources, one, other, was, before, new)
    return None if merged is None else (sources, merged, digest)


def _sample(persons: pa.Table, before: Before, carried: Ints) -> Ints | None:
    """Some of the carried rows; None if they can't be what they are said to have been: in one order, each once."""
    rows = np.flatnonzero(carried >= 0)
    at = carried[rows]
    if len(carried) != persons.num_rows or not len(at) or at.max() >= len(before.rec) or not (at[1:] > at[:-1]).all():
        return None
    rows = rows[:: max(1, len(rows) // SAMPLED)]
    return None if (before.rec[carried[rows]] < 0).any() else rows


_Recorded = tuple[tuple[Digests, Digests], Places, Places, Ints | None]  # by record name and source; by row the record


def _sorted(codes: Places, first: Digests, second: Digests) -> _Recorded:
    """Records in order of their flow, then their names."""
    both = packed_source(codes, first)
    order = order_of(both)
    some = repeated(both[order])  # rows of one record, or hardly ever of two
    order[some] = order[some][np.lexsort([column[order[some]] for column in (second, first, codes)])]
    new = _changes(codes[order], first[order], second[order])
    rec = np.empty(len(order), np.int32)
    rec[order] = np.cumsum(new, dtype=np.int32) - 1
    one = order[new]
    return (first[one], second[one]), codes[one], rec, None


def _merged(
    codes: Places, sources: tuple[Source, ...], first: Digests, second: Digests, was: npt.NDArray[Any], before: Before,
    read: Ints | None = None,
) -> _Recorded | None:  # fmt: skip
    """The same of the order that an earlier run found; None where two names share a digest, which only sorting tells.

    `was` is by row the record that it was of, or -1; a record is known again by its flow and both digests of its name.
    Only of rows that are `read` are name and flow known here.
    """
    rows = np.flatnonzero(was >= 0)
    fresh = np.flatnonzero(was < 0)
    checked = rows if read is None else read[was[read] >= 0]
    code = np.array([sources.index(source) if source in sources else -1 for source in before.sources], np.int32)
    source = code[before.source] if len(code) else np.zeros(0, np.int32)
    was, old = was[rows], was[checked]
    if (before.name[1][old] != second[checked]).any() or (source[old] != codes[checked]).any():
        return None
    alive = np.zeros(len(source), np.bool_)
    alive[was] = True
    fresh = fresh[np.lexsort((second[fresh], first[fresh], codes[fresh]))]
    new = _changes(codes[fresh], first[fresh], second[fresh])
    mine = fresh[new]
    known = before.name[0][alive], before.name[1][alive], source[alive]
    follows = known[0][1:] > known[0][:-1]
    follows |= (known[0][1:] == known[0][:-1]) & (known[1][1:] > known[1][:-1])
    if not (follows & (known[2][1:] == known[2][:-1]) | (known[2][1:] > known[2][:-1])).all():
        return None  # not in order: nobody's numbers
    where = np.zeros(len(mine), np.int64)
    for n in np.unique(codes[mine]).tolist():
        low, high = np.searchsorted(known[2], [n, n + 1])
        of = codes[mine] == n
        where[of] = low + np.searchsorted(known[0][low:high], first[mine[of]])
    stay = np.arange(len(known[0])) + np.cumsum(np.bincount(where, minlength=len(known[0]) + 1))[: len(known[0])]
    come = where + np.arange(len(mine))

    def both(was: npt.NDArray[Any], ours: npt.NDArray[Any]) -> npt.NDArray[Any]:
        every = np.empty(len(stay) + len(come), ours.dtype)
        every[stay], every[come] = was, ours[mine]
        return every

    now = np.full(len(source), -1, np.int64)
    now[alive] = stay
    rec = np.empty(len(first), np.int32)
    rec[rows] = now[was]
    rec[fresh] = come[np.cumsum(new) - 1]
    return (both(known[0], first), both(known[1], second)), both(known[2], codes), rec, now


def _names(connection: duckdb.DuckDBPyConnection, named: pa.Table) -> tuple[Digests, Digests]:
    """Two digests of the name of each row's record: by both together no two names are taken for one."""
    return name_digests(connection, *(named[name] for name in KEY))


def name_digests(
    connection: duckdb.DuckDBPyConnection, agency: pa.ChunkedArray, flow: pa.ChunkedArray, ref: pa.ChunkedArray
) -> tuple[Digests, Digests]:
    """Two digests of each of these names, a column each of its parts."""
    return _digests_of(connection, ref, *_sources(agency, flow))


def _digests_of(
    connection: duckdb.DuckDBPyConnection, ref: pa.ChunkedArray, codes: Places, sources: tuple[Source, ...]
) -> tuple[Digests, Digests]:
    """The same, with the flow of each name by its place in `sources`."""
    first, second = (np.empty(len(ref), np.uint64) for _ in range(2))
    start = 0
    for chunk in (one for one in ref.chunks if len(one)):
        end = start + len(chunk)
        first[start:end], second[start:end] = _ref_digests(connection, chunk)
        start = end
    if sources:
        said = [connection.execute("SELECT hash(?, ?)", source).fetchall()[0][0] for source in sources]
        first ^= np.array(said, np.uint64)[codes]
    return mixed(first, 0), second


def _coded(texts: pa.ChunkedArray) -> pa.DictionaryArray:
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


def _ref_digests(connection: duckdb.DuckDBPyConnection, refs: pa.Array) -> tuple[Digests, Digests]:
    """Two digests of each text: by words where it is as long as record_refs are, and else by DuckDB."""
    ends = np.frombuffer(refs.buffers()[1], np.int32)[refs.offset : refs.offset + len(refs) + 1]
    usual = np.diff(ends) == REF_LENGTH
    if not usual.all():
        first, second = (np.empty(len(refs), np.uint64) for _ in range(2))
        some = pa.array(usual)
        if usual.any():
            first[usual], second[usual] = _ref_digests(connection, refs.filter(some))
        connection.register("refs_in", pa.table({"ref": refs.filter(pc.invert(some))}))
        made = connection.execute("SELECT hash(ref) AS one, hash(ref[3:]) AS two FROM refs_in").fetchnumpy()
        connection.unregister("refs_in")
        first[~usual], second[~usual] = (np.asarray(made[name], np.uint64) for name in ("one", "two"))
        return first, second
    every = np.frombuffer(refs.buffers()[2], np.uint8)[ends[0] : ends[-1]].view(np.uint64).reshape(len(refs), -1)
    first, second = np.zeros(len(refs), np.uint64), np.full(len(refs), _MIX)
    for start in range(0, len(refs), NEAR):  # so many at a time that they stay in the cache
        words, one, two = every[start : start + NEAR], first[start : start + NEAR], second[start : start + NEAR]
        for n in range(words.shape[1]):
            one ^= words[:, n]
            one *= _MIX
            one ^= one >> np.uint64(32)
            two += words[:, -1 - n]
            two *= _MIX_TOO
            two ^= two >> np.uint64(29)
    return first, second


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


def _spelled(words: list[str], codes: Places) -> pa.Array:
    """The words of these codes, of which there are few."""
    if len(codes) and (codes[1:] >= codes[:-1]).all():
        return pa.concat_arrays([
            pa.repeat(pa.scalar(words[code], pa.string()), int(count))
            for code, count in enumerate(np.bincount(codes, minlength=len(words)).tolist())
        ])  # fmt: skip
    return pa.array(words, pa.string()).take(pa.array(codes))


def _sources(agencies: pa.ChunkedArray, flows: pa.ChunkedArray) -> tuple[Places, tuple[Source, ...]]:
    """The flow of each row, by its place among all flows, and these in order."""
    if len(agencies) == 0:
        return np.zeros(0, np.int32), ()
    agency, flow = (_coded(column) for column in (agencies, flows))
    both = agency.indices.to_numpy().astype(np.int64) * len(flow.dictionary) + flow.indices.to_numpy()
    used = np.flatnonzero(np.bincount(both))
    names = [
        (
            agency.dictionary[int(n) // len(flow.dictionary)].as_py(),
            flow.dictionary[int(n) % len(flow.dictionary)].as_py(),
        )
        for n in used
    ]
    rank = {name: place for place, name in enumerate(sorted(names))}
    of = np.zeros(int(used[-1]) + 1, np.int32)
    of[used] = [rank[name] for name in names]
    return of[both], tuple(sorted(names))


def _changes(*columns: npt.NDArray[Any]) -> Flags:
    new = np.zeros(len(columns[0]), np.bool_)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new


# --- Pairs of numbers as one whole number ----------------------------------------------------------------------------


def packed(high: npt.NDArray[Any], low: npt.NDArray[Any]) -> Ints:
    """Two numbers as one, which sorts by the first, then the second."""
    both: Ints = (high.astype(np.int64) << _SIDE) | low.astype(np.int64)
    return both


def packed_pairs(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Ints:
    """Pairs as whole numbers, the lower end in the high half: they sort by it."""
    return packed(np.minimum(left, right), np.maximum(left, right))


def ends_of(pairs: Ints) -> tuple[Ints, Ints]:
    """The two numbers of each packed pair."""
    return pairs >> _SIDE, pairs & ((1 << _SIDE) - 1)


def packed_source(source: Places, name: Digests) -> Digests:
    """A number that sorts names by source, and within a source nearly by their digest."""
    bits = np.uint64(max(1, int(source.max(initial=0)).bit_length()))
    return source.astype(np.uint64) << (np.uint64(64) - bits) | name >> bits


def order_of(values: npt.NDArray[Any]) -> Ints:
    """The places of 64-bit numbers in their order, equal ones as they come (a stable argsort).

    As many of the high bits as leave room for the place are sorted together with it: to sort numbers is faster.  Then
    those few runs are put in order whose numbers differ in their low bits alone.
    """
    bits = np.uint64(max(1, (len(values) - 1).bit_length()))
    key = values.view(np.uint64) ^ np.uint64(1 << 63 if values.dtype == np.int64 else 0)
    both = key >> bits << bits | np.arange(len(values), dtype=np.uint64)
    both.sort()
    order = (both & np.uint64((1 << int(bits)) - 1)).astype(np.int64)
    high = both >> bits
    unlike = (high[1:] == high[:-1]) & (values[order[1:]] != values[order[:-1]])
    if unlike.any():
        starts, ends = groups_of(high)
        run = np.unique(np.searchsorted(starts, np.flatnonzero(unlike), side="right") - 1)
        sizes = (ends - starts)[run]
        places = np.repeat(starts[run], sizes) + ramp(sizes)
        mine = order[places]
        order[places] = mine[np.lexsort((mine, values[mine], np.repeat(run, sizes)))]
    return order


def contains(sorted_values: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> tuple[Flags, Ints]:
    """Which of `wanted` are in a sorted array, and where they would be."""
    if len(sorted_values) == 0:
        return np.zeros(len(wanted), np.bool_), np.zeros(len(wanted), np.int64)
    places = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return sorted_values[places] == wanted, places


def looked_up(many: npt.NDArray[Any], few: npt.NDArray[Any]) -> Ints:
    """For each of a few numbers a place where many hold it, or -1."""
    if not len(few) or not len(many):
        return np.full(len(few), -1, np.int64)
    maybe = np.flatnonzero(maybe_among(few, many))
    found = pc.index_in(pa.array(few), value_set=pa.array(many[maybe]))
    at = np.append(maybe, -1)[pc.fill_null(found, len(maybe)).to_numpy()]
    return np.asarray(at, np.int64)


def aligned(new: Digests, old: Digests) -> Ints:
    """For each number a place where `old` holds it, or -1: soon found where most are in the order of the old.

    One in some is looked up, and those after and before it are taken to be beside the other; then what is left.
    """
    found = np.full(len(new), -1, np.int64)
    asked = np.arange(0, len(new), STEP)
    at = looked_up(old, new[asked])
    known = np.flatnonzero(at >= 0)
    left = np.arange(len(new))
    if len(known):
        shift = (at - asked)[known]
        nearest = np.searchsorted(known, np.arange(len(asked)), side="right") - 1
        for after in (0, 1):
            by = shift[np.clip(nearest + after, 0, len(known) - 1)]
            there = left + np.repeat(by, STEP)[: len(new)] if not after else left + by[left // STEP]
            np.clip(there, 0, len(old) - 1, out=there)
            equal = old[there] == new[left]
            if after:
                found[left[equal]] = there[equal]
            else:
                found[equal] = there[equal]
            left = left[~equal]
    found[left] = looked_up(old, new[left])
    return found


def maybe_among(few: npt.NDArray[Any], many: npt.NDArray[Any]) -> Flags:
    """Which of many numbers could be among a few: certainly all that are, and hardly any others."""
    bits = max(10, (8 * len(few)).bit_length())
    shift = np.uint64(64 - bits)
    there = np.zeros(1 << bits, np.bool_)
    there[(few.view(np.uint64) * _MIX) >> shift] = True
    found = np.empty(len(many), np.bool_)
    numbers = many.view(np.uint64)
    for start in range(0, len(many), AT_ONCE):  # so many at a time that what comes between stays in the cache
        some = numbers[start : start + AT_ONCE] * _MIX
        some >>= shift
        np.take(there, some.view(np.int64), out=found[start : start + AT_ONCE])
    return found


def components(count: int, left: Ints, right: Ints) -> Ints:
    """For each of `count` nodes the least node that edges connect it with.

    Each round hooks every root to the least neighbouring one and halves the paths: a few rounds, as components are
    small.  Source: Shiloach and Vishkin 1982, doi:10.1016/0196-6774(82)90008-6.
    """
    least = np.arange(count, dtype=np.int64)
    while len(left):
        one, other = least[left], least[right]
        apart = one != other
        left, right, one, other = left[apart], right[apart], one[apart], other[apart]
        np.minimum.at(least, np.maximum(one, other), np.minimum(one, other))
        while True:
            above = least[least]
            if np.array_equal(above, least):
                break
            least = above
    return least


def pairs_within(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """All two places of one group, for groups of neighbouring places [start, end): the earlier and the later."""
    sizes = ends - starts
    some = sizes > 1
    starts, ends, sizes = starts[some], ends[some], sizes[some]
    at = np.repeat(starts, sizes - 1) + ramp(sizes - 1)
    end = np.repeat(ends, sizes - 1)
    lefts, rights, step = [], [], 1
    while len(at):
        lefts.append(at)
        rights.append(at + step)
        step += 1
        left_over = at + step < end
        at, end = at[left_over], end[left_over]
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *lefts]), np.concatenate([nothing, *rights])


def repeated(values: npt.NDArray[Any]) -> Ints:
    """The places in a sorted array whose value a neighbour has too."""
    again = values[1:] == values[:-1]
    both = np.zeros(len(values), np.bool_)
    both[1:] |= again
    both[:-1] |= again
    return np.flatnonzero(both).astype(np.int64)


def ramp(sizes: Ints) -> Ints:
    """0, 1 .. size - 1 for each of the sizes, one after another."""
    total = int(sizes.sum())
    before = np.cumsum(sizes) - sizes
    return np.arange(total, dtype=np.int64) - np.repeat(before, sizes)


def groups_of(values: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Where each run of equal neighbours starts and ends in a sorted array."""
    starts = np.flatnonzero(_changes(values)).astype(np.int64)
    return starts, np.append(starts[1:], len(values)).astype(np.int64)
