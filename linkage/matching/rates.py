"""How often records of a group are linked at all, beside everyone else's: a standing report, small cells hidden.

No truth is known here, so a rate is of records whose person some other flow knows too.  Where that is lower for one
group than for the rest by over GAP, it is a finding: linkage serves that group worse, or its agencies do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Flags, Ints
from linkage.matching.facts import NUMBERED, Facts
from linkage.matching.members import Placed, first_rows
from linkage.matching.texts import whole
from linkage.records import IDENTIFIERS, QUALITY_FLAGS

SMALLEST: Final = 10  # a value that fewer records have is not reported
ROUNDED: Final = 5  # counts are given to the nearest so many, so that no difference of two tells a small one
GAP: Final = 0.05  # below everyone else's rate by more is a finding

RECORD: Final = ("agency", "flow", "record_ref")
RATES: Final = pa.schema(
    [
        ("group", pa.string()),  # the column, such as `age_band`
        ("value", pa.string()),  # one of its values
        ("records", pa.int64()),  # to the nearest ROUNDED; null if hidden
        ("rate", pa.float64()),  # to the nearest whole per cent, from 0 to 1; null if hidden, or of nothing
        ("others", pa.float64()),  # the rate of all records that have another value
        ("finding", pa.bool_()),  # `rate` is below `others` by over GAP; false where either is null
    ]
)
AGE_BANDS: Final = ((0, "0"), (1, "1-4"), (5, "5-10"), (11, "11-15"), (16, "16-17"), (18, "18 and over"))
"""Each with the first age of it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of one group: how many records have it, and of how many chances (pairs, records) how many came off."""

    size: int
    chances: int
    hits: int


def rates(groups: pa.Table, placed: Placed) -> pa.Table:
    """RATES of a run: of each value of each group column, the share of records whose person another flow knows too.

    `groups` names a record in each row (agency, flow, record_ref) and has any further columns, each of them a group;
    `placed` are its rows among the run's clusters.  Of the rows of one record the first counts, a record that is not
    in the clusters is left out, a null is the value `not known`.
    """
    rows = first_rows(placed.record, len(placed.members.person))
    linked = placed.members.known_elsewhere()[placed.record[rows]]
    return table((name, _cells(groups[name], rows, linked)) for name in groups.column_names if name not in RECORD)


def rates_by_kind(facts: Facts, placed: Placed, marked: Mapping[str, Ints], *, year: int) -> pa.Table:
    """The same of the groups that `groups_of` makes, and of `marked`: by its name the records for which it is `yes`.

    `facts` are of the rows that `placed` are.  Combinations are counted, and only these few are put into groups.
    """
    members = placed.members
    rows = first_rows(placed.record, len(members.person))
    records = placed.record[rows]
    code = facts.of[rows].astype(np.int64) * max(1, len(members.sources)) + members.source[records]
    for some in marked.values():
        is_one = np.zeros(len(members.person), np.int64)
        is_one[some] = 1
        code = code * 2 + is_one[records]
    code = code * 2 + members.known_elsewhere()[records]
    sizes = np.bincount(code)
    used = np.flatnonzero(sizes)
    linked, rest = used % 2 == 1, used // 2
    columns: dict[str, pa.Array] = {}
    for name in reversed(list(marked)):
        columns[name] = pa.array(["no", "yes"]).take(pa.array(rest % 2))
        rest = rest // 2
    sources = ["/".join(source) for source in members.sources]
    groups = _grouped(facts.kinds.take(pa.array(rest // max(1, len(sources)))), year=year)
    groups = {"source": pa.array(sources, pa.string()).take(pa.array(rest % max(1, len(sources))))} | groups
    groups |= {name: columns[name] for name in marked}
    return table((name, _summed(pa.chunked_array([values]) if isinstance(values, pa.Array) else values,
                                sizes[used], linked)) for name, values in groups.items())  # fmt: skip


def table(groups: Iterator[tuple[str, Mapping[str, Cell]]]) -> pa.Table:
    """RATES of cells counted elsewhere, by group and value; small ones hidden."""
    return pa.Table.from_pylist([row for name, cells in groups for row in _rows(name, cells)], schema=RATES)


def groups_of(persons: pa.Table, *, year: int) -> pa.Table:
    """What a broker itself knows of each row to group it by: flow, age band in `year`, sex, what is missing.

    `persons` has the wire's columns, agency and flow.
    """
    held = [pc.is_valid(persons[f"id_{name}"]) for name in IDENTIFIERS]
    numbered = held[0]
    for one in held[1:]:
        numbered = pc.or_(numbered, one)
    flags = [flag for flag in QUALITY_FLAGS if flag in persons.column_names]
    said = {name: persons[name] for name in ("birth_year", "sex", *flags)}
    return pa.table(
        {
            **{name: persons[name] for name in RECORD},
            "source": pc.binary_join_element_wise(persons["agency"], persons["flow"], "/"),
            **_grouped(pa.table({**said, NUMBERED: numbered}), year=year),
        }
    )


def _grouped(said: pa.Table, *, year: int) -> dict[str, pa.ChunkedArray]:
    """The groups that hang on what rows say (facts.KINDS) alone."""
    return {
        "age_band": age_bands(said["birth_year"], year=year),
        "sex": said["sex"],
        "missing": missing(said),
        "identifier": pc.if_else(said[NUMBERED], "some", "none"),
        **{flag: pc.if_else(said[flag], "yes", "no") for flag in QUALITY_FLAGS if flag in said.column_names},
    }


def age_bands(birth_year: pa.ChunkedArray, *, year: int) -> pa.ChunkedArray:
    """The band of each year of birth as of `year`; null where there is none."""
    age = pc.max_element_wise(pc.subtract(year, birth_year), 0, skip_nulls=False)
    band: Any = pa.scalar(None, pa.string())
    for start, name in AGE_BANDS:
        band = pc.if_else(pc.fill_null(pc.greater_equal(age, start), False), name, band)
    return band


def missing(persons: pa.Table) -> pa.ChunkedArray:
    """Which of date of birth and postcode each row lacks."""
    date, home = pc.is_null(persons["birth_year"]), pc.fill_null(persons["q_no_postcode"], False)
    return pc.case_when(
        pc.make_struct(pc.and_(date, home), date, home),
        "date of birth and postcode", "date of birth", "postcode", "nothing",
    )  # fmt: skip


def _cells(values: pa.ChunkedArray, rows: Ints, linked: Flags) -> dict[str, Cell]:
    """A cell for each value that any of these rows has; `linked` is by row of `rows`."""
    coded = pc.dictionary_encode(whole(pc.fill_null(values.cast(pa.string()), "not known")))
    codes = coded.indices.to_numpy()[rows]
    sizes = np.bincount(codes, minlength=len(coded.dictionary))
    hits = np.bincount(codes[linked], minlength=len(coded.dictionary))
    return {
        value: Cell(size=size, chances=size, hits=hit)
        for value, size, hit in zip(coded.dictionary.to_pylist(), sizes.tolist(), hits.tolist(), strict=True)
        if size
    }


def _summed(values: pa.ChunkedArray, sizes: Ints, linked: Flags) -> dict[str, Cell]:
    """The same of combinations, of which each has so many records, all of them linked or none."""
    coded = pc.dictionary_encode(whole(pc.fill_null(values.cast(pa.string()), "not known")))
    codes, count = coded.indices.to_numpy(), len(coded.dictionary)
    size, hit = (np.bincount(codes, weights=one, minlength=count) for one in (sizes, sizes * linked))
    return {
        value: Cell(size=int(of), chances=int(of), hits=int(hits))
        for value, of, hits in zip(coded.dictionary.to_pylist(), size.tolist(), hit.tolist(), strict=True)
    }


def _rows(name: str, cells: Mapping[str, Cell]) -> Sequence[dict[str, Any]]:
    chances, hits = sum(cell.chances for cell in cells.values()), sum(cell.hits for cell in cells.values())
    return [_row(name, value, cell, chances - cell.chances, hits - cell.hits) for value, cell in sorted(cells.items())]


def _row(name: str, value: str, cell: Cell, chances: int, hits: int) -> dict[str, Any]:
    shown = cell.size >= SMALLEST
    rate = cell.hits / cell.chances if shown and cell.chances else None
    others = hits / chances if chances >= SMALLEST else None
    return {
        "group": name,
        "value": value,
        "records": ROUNDED * round(cell.size / ROUNDED) if shown else None,
        "rate": None if rate is None else round(rate, 2),
        "others": None if others is None or rate is None else round(others, 2),
        "finding": rate is not None and others is not None and round(others - rate, 9) > GAP,
    }
