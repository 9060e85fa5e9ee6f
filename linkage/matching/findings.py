"""What can be wrong with a batch, and how big one may be.  A finding names table, row, column and code, no value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from linkage.records import Table

Code = Literal[
    "too_large", "unreadable", "unknown_column", "missing_column", "repeated_column", "wrong_type", "wrong_order",
    "wrong_row_count", "empty_table", "row_too_large", "expands_too_much",
    "missing", "unknown_value", "bad_ref", "bad_date", "bad_period", "bad_number", "bad_endpoint",
    "incomplete_filter", "wrong_popcount", "delete_in_full",
    "duplicate_ref", "inconsistent_record", "too_many_alternatives", "too_many_identifiers", "unresolved_ref",
    "unknown_category", "never_ingest", "unknown_code", "code_not_expected", "number_not_expected", "retention_over",
]  # fmt: skip
"""What can be wrong: stable strings of the API, the rows' share of `GET .../rejections`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How big a batch may be: `reliability-security` section 3, rule 7."""

    rows: int = 2_000_000
    row_bytes: int = 16 * 1024
    expansion: int = 50  # decoded bytes to file bytes; a table below `small` decoded is never too much
    small: int = 1024 * 1024
    alternatives: int = 16  # rows of one record
    identifiers: int = 8  # distinct identifier tokens of one record
    listed: int = 1_000  # findings named row by row; the rest only counted
    measuring_memory: str = "192MB"  # while nothing is known about a file
    checking_memory: str = "2GB"  # once its lengths and counts are known
    threads: int = 2


DEFAULTS: Final = Limits()


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing wrong: where, and the code of what.  `row` counts from 1; 0 is the table as a whole."""

    table: Table
    row: int
    column: str
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check found.  The batch may be applied only if `accepted`: one bad row refuses the whole."""

    counts: Mapping[Table, int]  # rows of each table
    deletes: Mapping[Table, int]  # of these, tombstones
    findings: tuple[Finding, ...] = ()  # the first `Limits.listed` of each table
    totals: Mapping[tuple[Table, str, Code], int] = field(default_factory=dict)  # every one, by table, column and code

    @property
    def accepted(self) -> bool:
        """Nothing is wrong with any row."""
        return not self.totals
