"""The households of records, as arrays: whose homes are one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Flags, Ints, groups_of, ramp
from linkage.matching.digests import Digests, mixed
from linkage.matching.lazily import numbers_at
from linkage.matching.numbering import SAMPLED, Before, Numbered, name_digests
from linkage.matching.texts import rows_at

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, kw_only=True)
class Homes:
    """The household tokens of records, each once: in order of record, then token."""

    rec: Ints
    token: Ints
    of: Ints  # by row of the relationships, as they came: whose household it says, or -1

    def digest(self, records: int) -> Digests:
        """By record: a digest of its households."""
        total = np.zeros(records, np.uint64)
        np.add.at(total, self.rec, mixed(self.token, 77))
        return total

    def shared(self, left: Ints, right: Ints, records: int) -> Flags:
        """Whether two records share a household, for each pair."""
        count = np.bincount(self.rec, minlength=records)
        start = np.cumsum(count) - count
        one = np.zeros(len(left), np.bool_)
        both = np.flatnonzero((count[left] > 0) & (count[right] > 0))
        if not len(both):
            return one
        one[both] = self.token[start[left[both]]] == self.token[start[right[both]]]
        for pair in both[((count[left] > 1) | (count[right] > 1))[both] & ~one[both]].tolist():
            a, b = int(left[pair]), int(right[pair])
            mine = self.token[start[a] : start[a] + count[a]].tolist()
            one[pair] = not set(mine).isdisjoint(self.token[start[b] : start[b] + count[b]].tolist())
        return one


def homes_of(
    connection: duckdb.DuckDBPyConnection,
    rows: Numbered,
    households: pa.Table | None,
    before: Before | None = None,
    carried: Ints | None = None,
) -> Homes:
    """The households of records, by relationships of the wire with `agency` and `flow`.

    `carried` says which row of the earlier run's each is: see numbering.Carried.
    """
    nothing = np.zeros(0, np.int64)
    if households is None or households.num_rows == 0:
        return Homes(rec=nothing, token=nothing, of=nothing)
    said = pc.and_(pc.equal(households["type"], "household"), pc.is_valid(households["household"]))
    lived = np.flatnonzero(pc.fill_null(said, False).to_numpy())
    place = _whose(connection, rows, households, lived, before, carried)
    of = np.full(households.num_rows, -1, np.int64)
    of[lived] = place
    rec = place[place >= 0]
    token = numbers_at(households, "household", lived)[0][place >= 0]
    return _in_order(rec, token, of, rows.records)


def _whose(
    connection: duckdb.DuckDBPyConnection, rows: Numbered, households: pa.Table, lived: Ints, before: Before | None,
    carried: Ints | None,
) -> Ints:  # fmt: skip
    """The records of some rows, or -1: those of carried rows are known, the others' names are read."""
    named = ("agency", "flow", "ref_a")
    if before is None or rows.now is None or carried is None or not _plausible(connection, households, before, carried):
        first, second = name_digests(connection, *(households[name] for name in named))
        return rows.placed_as(before, first[lived], second[lived])
    was = np.append(before.homes, np.int32(-1))[carried[lived]]
    place: Ints = np.append(rows.now, -1)[was]
    others = np.flatnonzero(was < 0)
    some = rows_at(households, lived[others], named)
    place[others] = rows.places_of(*name_digests(connection, *(some[name] for name in named)))
    return place


def _plausible(connection: duckdb.DuckDBPyConnection, households: pa.Table, before: Before, carried: Ints) -> bool:
    """Whether the rows may be what they are said to have been: in one order, each once; a sample names whom it did."""
    rows = np.flatnonzero(carried >= 0)
    at = carried[rows]
    if len(carried) != households.num_rows or not len(at) or at[-1] >= len(before.homes) or (at[1:] <= at[:-1]).any():
        return False
    lived = np.flatnonzero(before.homes[at] >= 0)
    some = lived[:: max(1, len(lived) // SAMPLED)]
    was = before.homes[at[some]]
    names = name_digests(connection, *rows_at(households, rows[some], ("agency", "flow", "ref_a")).columns)
    return all(bool((known[was] == said).all()) for known, said in zip(before.name, names, strict=True))


def _in_order(rec: Ints, token: Ints, of: Ints, records: int) -> Homes:
    count = np.bincount(rec, minlength=records)
    place = (np.cumsum(count) - count)[rec]
    some = np.flatnonzero(count[rec] > 1)
    if len(some):
        some = some[np.lexsort((token[some], rec[some]))]
        starts, ends = groups_of(rec[some])
        place[some] += ramp(ends - starts)
    ordered = np.empty((2, len(rec)), np.int64)
    ordered[0, place], ordered[1, place] = rec, token
    rec, token = ordered
    again = np.zeros(len(rec), np.bool_)
    again[1:] = (rec[1:] == rec[:-1]) & (token[1:] == token[:-1])
    if again.any():
        rec, token = rec[~again], token[~again]
    return Homes(rec=rec, token=token, of=of)
