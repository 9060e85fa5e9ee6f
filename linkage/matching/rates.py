"""How often records of a group are linked at all, beside everyone else's: a standing report, small cells hidden.

No truth is known here, so a rate is of records whose person some other flow knows too.  Where that is lower for one
group than for the rest by over GAP, it is a finding: linkage serves that group worse, or its agencies do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

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


def rates(clusters: pa.Table, groups: pa.Table) -> pa.Table:
    """RATES of a run: of each value of each group column, the share of records whose person another flow knows too.

    `clusters` has a row a record: agency, flow, record_ref, person_id.  `groups` has the same three and any further
    columns, each of them a group; a record that is not in `clusters` is left out, a null is the value `not known`.
    """
    flows = clusters.group_by("person_id").aggregate([("flow", "count_distinct"), ("agency", "count_distinct")])
    elsewhere = pc.or_(pc.greater(flows["flow_count_distinct"], 1), pc.greater(flows["agency_count_distinct"], 1))
    linked = pa.table({"person_id": flows["person_id"], "linked": elsewhere.cast(pa.int64())})
    joined = groups.join(clusters.join(linked, "person_id"), list(RECORD), join_type="inner")
    return table(
        (name, cells) for name in groups.column_names if name not in RECORD for cells in [_cells(joined, name)]
    )


def table(groups: Iterator[tuple[str, Mapping[str, Cell]]]) -> pa.Table:
    """RATES of cells counted elsewhere, by group and value; small ones hidden."""
    return pa.Table.from_pylist([row for name, cells in groups for row in _rows(name, cells)], schema=RATES)


def groups_of(persons: pa.Table, *, year: int) -> pa.Table:
    """What a broker itself knows of each record to group it by: flow, age band in `year`, sex, what is missing.

    `persons` has the wire's columns, agency and flow.  Of the rows of one record the first counts.
    """
    first = persons.append_column("row", pa.array(range(persons.num_rows), pa.int64()))
    rows = first.group_by(list(RECORD)).aggregate([("row", "min")])
    kept = persons.take(rows["row_min"])
    held = [pc.is_valid(kept[f"id_{name}"]) for name in IDENTIFIERS]
    numbered = held[0]
    for one in held[1:]:
        numbered = pc.or_(numbered, one)
    return pa.table(
        {
            **{name: kept[name] for name in RECORD},
            "source": pc.binary_join_element_wise(kept["agency"], kept["flow"], "/"),
            "age_band": age_bands(kept["birth_year"], year=year),
            "sex": kept["sex"],
            "missing": missing(kept),
            "identifier": pc.if_else(numbered, "some", "none"),
            **{flag: pc.if_else(kept[flag], "yes", "no") for flag in QUALITY_FLAGS if flag in kept.column_names},
        }
    )


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


def _cells(joined: pa.Table, name: str) -> dict[str, Cell]:
    values = pc.fill_null(joined[name].cast(pa.string()), "not known")
    counted = pa.table({"value": values, "linked": joined["linked"]})
    found = counted.group_by("value").aggregate([("linked", "count"), ("linked", "sum")])
    return {
        row["value"]: Cell(size=row["linked_count"], chances=row["linked_count"], hits=row["linked_sum"])
        for row in found.to_pylist()
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
