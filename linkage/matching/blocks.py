"""Which rows are compared, as arrays: the keys of `blocking` over a whole run, or over what has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Flags, Ints, contains, groups_of, maybe_among, packed_pairs, pairs_within
from linkage.matching.blocking import BLOCK_CAP, KEYS, blocking_columns
from linkage.matching.comparing import raw
from linkage.matching.holders import Holders
from linkage.matching.lazily import numbers_of
from linkage.matching.numbering import Numbered
from linkage.records import Profile

BY_TOKEN: Final = "b_"  # noqa: S105 - how columns begin that hold a blocking token
BY_NUMBER: Final = "c_"


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Rows that share a value of a key, in order of the value, and where each run of equal values starts and ends.

    `capped` are the values of blocks over the cap, which are left out.
    """

    rows: Ints
    starts: Ints
    ends: Ints
    capped: Ints


def blocks_of(
    rows: Numbered,
    holders: Holders,
    profile: Profile,
    *,
    cap: int = BLOCK_CAP,
    touched: Flags | None = None,
    capped: Mapping[str, Ints] | None = None,
) -> dict[str, Blocks]:
    """The blocks of each key: all, or those of the values that the `touched` rows have, and those `capped` before."""
    return {
        column: _blocks(*_among(rows, holders, column, touched, (capped or {}).get(column)),
                        cap=cap if column.startswith(BY_TOKEN) else None)
        for column in blocking_columns(profile)
    }  # fmt: skip


def candidates(rows: Numbered, blocks: Iterable[Blocks], touched: Flags | None = None) -> Ints:
    """The pairs of rows (packed, in order, each once) of one block that are worth comparing (`blocking.APART`).

    With `touched` those of which one row at least is touched.
    """
    found = [np.zeros(0, np.int64)]
    source = rows.source[rows.rec]
    repeats = rows.may_repeat[source]
    for block in blocks:
        left, right = pairs_within(block.starts, block.ends)
        left, right = block.rows[left], block.rows[right]
        apart = (rows.rec[left] != rows.rec[right]) & ((source[left] != source[right]) | repeats[left])
        if touched is not None:
            apart &= touched[left] | touched[right]
        found.append(packed_pairs(left[apart], right[apart]))
    pairs = np.concatenate(found)
    pairs.sort()
    return pairs[groups_of(pairs)[0]]


def capped_of(blocks: Mapping[str, Blocks]) -> dict[str, Ints]:
    """By key, the values of blocks that were skipped."""
    return {column: block.capped for column, block in blocks.items() if len(block.capped)}


def capped_rows(rows: Numbered, profile: Profile, crossed: Mapping[str, Ints]) -> Flags:
    """The rows that have one of these values of a key."""
    found = np.zeros(len(rows.rec), np.bool_)
    for key in KEYS[profile]:
        values = crossed.get(f"{BY_TOKEN}{key}")
        if values is not None and len(values):
            found |= pc.is_in(rows.persons[f"t_{key}"], value_set=pa.array(values)).to_numpy()
    return found


def _values(rows: Numbered, holders: Holders, column: str) -> tuple[Ints, Ints]:
    """The rows that have a value of a key, and the values."""
    if column.startswith(BY_NUMBER):
        least, known = holders.least(column.removeprefix(BY_NUMBER))
        of = np.flatnonzero(known[rows.rec]).astype(np.int64)
        return of, least[rows.rec[of]]
    tokens = rows.persons[f"t_{column.removeprefix(BY_TOKEN)}"]
    of = pc.indices_nonzero(pc.is_valid(tokens)).to_numpy().astype(np.int64)
    return of, np.asarray(tokens.drop_null().to_numpy(), np.int64)


def _among(
    rows: Numbered, holders: Holders, column: str, touched: Flags | None, capped: Ints | None
) -> tuple[Ints, Ints]:
    """The same, or of them those with a value that a touched row has, or that was `capped` before."""
    if touched is None:
        return _values(rows, holders, column)
    if column.startswith(BY_NUMBER):
        recs, values = holders.least_among(column.removeprefix(BY_NUMBER), rows.rec[touched])
        return _of_records(rows, recs, values)
    tokens, mine = rows.persons[f"t_{column.removeprefix(BY_TOKEN)}"], np.flatnonzero(touched)
    wanted, there = numbers_of(tokens, mine)
    wanted = wanted if there is None else wanted[there]
    if capped is not None:
        wanted = np.concatenate([wanted, capped])
    # Any number may stand where a value is missing: those are told by whether one is there.
    of = np.flatnonzero(maybe_among(wanted, raw(tokens))).astype(np.int64)
    values, there = numbers_of(tokens, of)
    of, values = (of, values) if there is None else (of[there], values[there])
    found = pc.is_in(pa.array(values), value_set=pa.array(wanted)).to_numpy(zero_copy_only=False)
    return of[found], values[found]


def _of_records(rows: Numbered, recs: Ints, values: Ints) -> tuple[Ints, Ints]:
    """The rows of these records, in order, each with its record's value."""
    place = np.full(rows.records, -1, np.int32)
    place[recs] = np.arange(len(recs))
    at = place[rows.rec]
    of = np.flatnonzero(at >= 0).astype(np.int64)
    return of, values[at[of]]


def _blocks(of: Ints, values: Ints, *, cap: int | None) -> Blocks:
    order = np.argsort(values, kind="stable")
    of, values = of[order], values[order]
    starts, ends = groups_of(values)
    over = ends - starts > cap if cap is not None else np.zeros(len(starts), np.bool_)
    return Blocks(rows=of, starts=starts[~over], ends=ends[~over], capped=values[starts[over]])


def keys_of_rows(rows: Numbered, holders: Holders, profile: Profile, capped: Mapping[str, Ints]) -> dict[str, pa.Array]:
    """The blocking columns of each row, for an engine: null where a row has no value, or its block is skipped."""
    columns: dict[str, pa.Array] = {}
    for column in blocking_columns(profile):
        of, values = _values(rows, holders, column)
        if column in capped:
            over, _ = contains(capped[column], values)
            of, values = of[~over], values[~over]
        every, missing = np.zeros(len(rows.rec), np.int64), np.ones(len(rows.rec), np.bool_)
        every[of], missing[of] = values, False
        columns[column] = pa.array(every, mask=missing)
    return columns
