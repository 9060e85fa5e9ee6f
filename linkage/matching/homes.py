"""The households of records, as arrays: whose homes are one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Flags, Ints, groups_of, ramp
from linkage.matching.digests import Digests, mixed
from linkage.matching.numbering import SAMPLED, Before, Ends, Numbered, name_digests
from linkage.matching.texts import rows_at, whole

if TYPE_CHECKING:
    pass


NOBODY: Final = Ends(
    a=np.zeros(0, np.int32), b=np.zeros(0, np.int32), home=np.zeros(0, np.int64), lived=np.zeros(0, np.bool_)
)


@dataclass(frozen=True, kw_only=True)
class Homes:
    """The household tokens of records, each once: in order of record, then token."""

    rec: Ints
    token: Ints
    ends: Ends

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
        return Homes(rec=nothing, token=nothing, ends=NOBODY)
    known = before is not None and rows.now is not None and carried is not None
    if known and before is not None and carried is not None and _plausible(households, before, carried):
        ends = _carried_over(rows, households, before.ends, carried)
    else:
        ends = _read(rows, households, np.arange(households.num_rows), before)
    lives = np.flatnonzero(ends.lived & (ends.a >= 0))
    return _in_order(ends.a[lives].astype(np.int64), ends.home[lives], ends, rows.records)


def _read(rows: Numbered, households: pa.Table, some: Ints, before: Before | None) -> Ends:
    """The ends of some rows, by their names."""
    has_b = "ref_b" in households.column_names
    columns = ["agency", "flow", "ref_a", "type", "household", *(["ref_b"] if has_b else [])]
    said = rows_at(households, some, columns) if len(some) < households.num_rows else households
    home = pc.and_(pc.equal(said["type"], "household"), pc.is_valid(said["household"]))
    lived = np.asarray(pc.fill_null(home, False).to_numpy(), np.bool_)
    a, b = (np.full(len(some), -1, np.int32) for _ in range(2))
    first, second = name_digests(*(said[name] for name in ("agency", "flow", "ref_a")))
    a[lived] = rows.placed_as(before, first[lived], second[lived])
    ties = np.flatnonzero(~lived)
    a[ties] = rows.places_of(first[ties], second[ties])
    if has_b and len(ties):
        named = rows_at(said, ties, ("agency", "flow", "ref_b"))
        there = pc.is_valid(named["ref_b"]).to_numpy()
        names = [whole(named[name]).filter(pa.array(there)) for name in ("agency", "flow", "ref_b")]
        b[ties[there]] = rows.places_of(*name_digests(*map(pa.chunked_array, ([one] for one in names))))
    if said["ref_a"].null_count:
        a[pc.is_null(said["ref_a"]).to_numpy()] = -1
    token = np.asarray(pc.fill_null(said["household"], 0).to_numpy(), np.int64)
    return Ends(a=a, b=b, home=np.where(lived, token, 0), lived=lived)


def _carried_over(rows: Numbered, households: pa.Table, before: Ends, carried: Ints) -> Ends:
    """Those of carried rows are known; the names of the others are read, and of those that named nobody then."""
    now = np.append(rows.now if rows.now is not None else np.zeros(0, np.int64), -1).astype(np.int32)
    then = [np.append(one, np.int32(-1))[carried] for one in (before.a, before.b)]
    lived = np.append(before.lived, False)[carried]
    ends = Ends(a=now[then[0]], b=now[then[1]], home=np.append(before.home, 0)[carried], lived=lived)
    again = np.flatnonzero((then[0] < 0) | (~lived & (then[1] < 0)))  # a new row, or one about somebody unknown
    fresh = _read(rows, households, again, None)
    for name in ("a", "b", "home", "lived"):
        getattr(ends, name)[again] = getattr(fresh, name)
    return ends


def _plausible(households: pa.Table, before: Before, carried: Ints) -> bool:
    """Whether the rows may be what they are said to have been: in one order, each once; a sample names whom it did."""
    rows = np.flatnonzero(carried >= 0)
    at, of = carried[rows], before.ends.a
    if len(carried) != households.num_rows or not len(at) or at[-1] >= len(of) or (at[1:] <= at[:-1]).any():
        return False
    known = np.flatnonzero(of[at] >= 0)
    some = known[:: max(1, len(known) // SAMPLED)]
    was = of[at[some]]
    names = name_digests(*rows_at(households, rows[some], ("agency", "flow", "ref_a")).columns)
    return all(bool((known[was] == said).all()) for known, said in zip(before.name, names, strict=True))


def _in_order(rec: Ints, token: Ints, ends: Ends, records: int) -> Homes:
    count = np.bincount(rec, minlength=records)
    place = (np.cumsum(count) - count)[rec]
    some = np.flatnonzero(count[rec] > 1)
    if len(some):
        some = some[np.lexsort((token[some], rec[some]))]
        first, last = groups_of(rec[some])
        place[some] += ramp(last - first)
    ordered = np.empty((2, len(rec)), np.int64)
    ordered[0, place], ordered[1, place] = rec, token
    rec, token = ordered
    again = np.zeros(len(rec), np.bool_)
    again[1:] = (rec[1:] == rec[:-1]) & (token[1:] == token[:-1])
    if again.any():
        rec, token = rec[~again], token[~again]
    return Homes(rec=rec, token=token, ends=ends)
