"""Records and rows by number, as arrays: what a link run over a million rows computes with instead of names.

Records are numbered by flow, in the order of their names, and within a flow by a 64-bit digest of their own names.  So
the order of the rows makes no difference, and yesterday's records are found by a merge of sorted arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from linkage.matching.arrays import (
    Flags,
    Ints,
    Places,
    aligned,
    changes_in,
    contains,
    groups_of,
    looked_up,
    order_of,
    packed_source,
    ramp,
    repeated,
)
from linkage.matching.digests import Digests, mixed, row_digests
from linkage.matching.lazily import Lazy
from linkage.matching.texts import KEYED, coded, rows_at, spelled, texts_of
from linkage.records import FILTERS, IDENTIFIERS, TOKENS, Profile, filter_columns

if TYPE_CHECKING:
    import duckdb


Source = tuple[str, str]
"""Agency and flow."""

KEY: Final = ("agency", "flow", "record_ref")
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_TOO: Final = np.uint64(0xBF58476D1CE4E5B9)
REF_LENGTH: Final = 64  # of a record_ref: hex digits of a keyed token
SAMPLED: Final = 1024  # rows that are read again of those that are said to be as they were
FEW: Final = 8  # times as many are searched for this many by a look at each
NEAR: Final = 1 << 13  # texts that are hashed at a time


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
        wanted = sorted(set(keys))
        if not wanted:
            return {}
        named = pa.table([pa.array(column, pa.string()) for column in zip(*wanted, strict=True)], names=list(KEY))
        return {key: rec for key, rec in zip(wanted, self.places(named).tolist(), strict=True) if rec >= 0}

    @cached_property
    def _by_name(self) -> tuple[Ints, Digests]:
        order = order_of(self.name[0])
        return order, self.name[0][order]

    def places(self, named: pa.Table) -> Ints:
        """The record of each row of a table that names records by KEY; -1 where there is no such record."""
        return self.places_of(*_names(named))

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
        homes = before.ends.a[before.ends.lived & (before.ends.a >= 0)]
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
        places = self.first if recs is None else self.first[recs]
        refs = texts_of(self.persons["record_ref"], places)
        parts = {name: spelled([source[n] for source in self.sources], sources) for n, name in enumerate(KEY[:2])}
        return {**parts, "record_ref": refs}


@dataclass(frozen=True, kw_only=True)
class Ends:
    """By row of relationships, as they came: the records of both ends (-1: not held, or none), whether the row says
    where `a` lives, and if so the household's token."""

    a: Places
    b: Places
    home: Ints
    lived: Flags


@dataclass(frozen=True, kw_only=True)
class Before:
    """Records as an earlier run numbered them, and of its rows, as they came, which record each was of.

    `digest` is of these rows, `altered` those of them that were put otherwise than given (`bridges`); `ends` are of
    its rows of relationships.
    """

    sources: tuple[Source, ...]
    name: tuple[Digests, Digests]
    source: Places
    rec: Places
    digest: Digests
    ends: Ends
    altered: Ints


@dataclass(frozen=True, kw_only=True)
class Carried:
    """By row of tonight's persons and relationships, as given: which row of the earlier run's it is, or -1.

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
    place, first = _ranks(rec, digest, len(source))
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
        first=first,
        now=now,
    )


def put_otherwise(
    connection: duckdb.DuckDBPyConnection, rows: Numbered, profile: Profile, at: Ints, said: pa.Table, persons: Any
) -> Numbered:
    """The same records, of which the rows `at` say something else, as all of `persons` has it."""
    digest = rows.digest.copy()
    digest[at] = row_digests(connection, said, content_columns(profile))
    place, first = _ranks(rows.rec, digest, rows.records)
    return replace(rows, persons=persons, digest=digest, place=place, first=first)


def _ranks(rec: Places, digest: Digests, records: int) -> tuple[Places, Ints]:
    """By row its rank in the order of records, then of digests; by record its first row in that order."""
    count = np.bincount(rec, minlength=records)
    start = np.cumsum(count) - count
    place = start[rec].astype(np.int32)
    several = np.flatnonzero(count[rec] > 1)
    if len(several):
        several = several[np.lexsort((digest[several], rec[several]))]
        begins, ends = groups_of(rec[several])
        place[several] += ramp(ends - begins).astype(np.int32)
    first = np.empty(records, np.int64)
    least = np.flatnonzero(place == start[rec])
    first[rec[least]] = least
    return place, first


def _read(
    connection: duckdb.DuckDBPyConnection, persons: pa.Table, profile: Profile, before: Before | None
) -> tuple[tuple[Source, ...], _Recorded, Digests]:
    """Flows, records and digests of all rows, each of which is read."""
    codes, sources = _sources(persons["agency"], persons["flow"])
    first, second = _digests_of(persons["record_ref"], codes, sources)
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

    Of the sample the names are read, and what else is said where that is soonest read.  None where that would not do:
    the sample is not what it is said to have been.
    """
    is_new = carried < 0
    read = is_new.copy()
    read[sample] = True
    rows = np.flatnonzero(read)
    some = rows_at(persons, rows, KEY[:2])
    codes, mine = _sources(some["agency"], some["flow"])
    refs = texts_of(persons["record_ref"], rows)  # the whole column is kept: names are asked for again
    first, second = _digests_of(pa.chunked_array([refs]), codes, mine)
    old = ~is_new[rows]
    of = before.rec[carried[rows[old]]]
    if not ((before.name[0][of] == first[old]) & (before.name[1][of] == second[old])).all():
        return None
    content = sample[persons.cheapest(sample)] if isinstance(persons, Lazy) else sample
    read[sample], read[content] = False, True
    whole_rows = np.flatnonzero(read)
    said = row_digests(connection, rows_at(persons, whole_rows, content_columns(profile)), content_columns(profile))
    fresh = is_new[whole_rows]
    if not (before.digest[carried[whole_rows[~fresh]]] == said[~fresh]).all():
        return None
    new, codes, first, second, said = whole_rows[fresh], codes[~old], first[~old], second[~old], said[fresh]
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
    new = changes_in(codes[order], first[order], second[order])
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
    new = changes_in(codes[fresh], first[fresh], second[fresh])
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


def _names(named: pa.Table) -> tuple[Digests, Digests]:
    """Two digests of the name of each row's record: by both together no two names are taken for one."""
    return name_digests(*(named[name] for name in KEY))


def name_digests(agency: pa.ChunkedArray, flow: pa.ChunkedArray, ref: pa.ChunkedArray) -> tuple[Digests, Digests]:
    """Two digests of each of these names, a column each of its parts."""
    return _digests_of(ref, *_sources(agency, flow))


def _digests_of(ref: pa.ChunkedArray, codes: Places, sources: tuple[Source, ...]) -> tuple[Digests, Digests]:
    """The same, with the flow of each name by its place in `sources`."""
    first, second = (np.empty(len(ref), np.uint64) for _ in range(2))
    start = 0
    for chunk in (one for one in ref.chunks if len(one)):
        end = start + len(chunk)
        first[start:end], second[start:end] = _ref_digests(chunk)
        start = end
    if sources:
        first ^= np.array([_source_digest(source) for source in sources], np.uint64)[codes]
    return mixed(first, 0), second


def _source_digest(source: Source) -> int:
    """A digest of the name of a flow, by its words of eight bytes, each with its place."""
    text = "\n".join(source).encode()
    words = np.frombuffer(text.ljust(-(-len(text) // KEYED) * KEYED, b"\0"), np.uint64)
    return int(np.bitwise_xor.reduce([mixed(words[n : n + 1], n)[0] for n in range(len(words))]))


def _ref_digests(refs: pa.Array) -> tuple[Digests, Digests]:
    """Two digests of each text: by words, in one go where it is as long as record_refs are."""
    ends = np.frombuffer(refs.buffers()[1], np.int32)[refs.offset : refs.offset + len(refs) + 1]
    usual = np.diff(ends) == REF_LENGTH
    if not usual.all():
        first, second = (np.zeros(len(refs), np.uint64) for _ in range(2))  # as those of no name at all stay
        if usual.any():
            first[usual], second[usual] = _ref_digests(refs.filter(pa.array(usual)))
        other = np.flatnonzero(~usual & refs.is_valid().to_numpy(zero_copy_only=False))
        padded = [_padded(ref.encode()) for ref in refs.take(pa.array(other)).to_pylist()]
        sizes = np.array([len(one) for one in padded], np.int64)
        for size in np.unique(sizes).tolist():
            mine = np.flatnonzero(sizes == size)
            every = np.frombuffer(b"".join([padded[n] for n in mine.tolist()]), np.uint64).reshape(len(mine), -1)
            first[other[mine]], second[other[mine]] = _words_digests(every)
        return first, second
    every = np.frombuffer(refs.buffers()[2], np.uint8)[ends[0] : ends[-1]].view(np.uint64).reshape(len(refs), -1)
    return _words_digests(every)


def _padded(text: bytes) -> bytes:
    """In whole words, of which the last byte says how many were added: no two texts come to be the same."""
    size = (len(text) // KEYED + 1) * KEYED
    return text.ljust(size - 1, b"\0") + bytes([size - len(text)])


def _words_digests(every: Digests) -> tuple[Digests, Digests]:
    """Two digests of each row of words."""
    first, second = np.zeros(len(every), np.uint64), np.full(len(every), _MIX)
    for start in range(0, len(every), NEAR):  # so many at a time that they stay in the cache
        words, one, two = every[start : start + NEAR], first[start : start + NEAR], second[start : start + NEAR]
        for n in range(words.shape[1]):
            one ^= words[:, n]
            one *= _MIX
            one ^= one >> np.uint64(32)
            two += words[:, -1 - n]
            two *= _MIX_TOO
            two ^= two >> np.uint64(29)
    return first, second


def _sources(agencies: pa.ChunkedArray, flows: pa.ChunkedArray) -> tuple[Places, tuple[Source, ...]]:
    """The flow of each row, by its place among all flows, and these in order."""
    if len(agencies) == 0:
        return np.zeros(0, np.int32), ()
    agency, flow = (coded(column) for column in (agencies, flows))
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
