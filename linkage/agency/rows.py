"""Rows of an extract while they are checked: a bad one is left out and reported, its value never."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from re import fullmatch
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from linkage.agency import extract
from linkage.agency.mapping import Source
from linkage.agency.people import Finding, Severity
from linkage.agency.standardise import BAD_BIRTHS, distinct_texts, parse_date

LATEST_START: Final = timedelta(days=366)  # a school place for September
LONGEST_LIFE: Final = timedelta(days=366 * 120)
EARLIEST: Final = date(1880, 1, 1)

_TRUTH: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}

Value = TypeVar("Value")
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """One line of the local report."""

    file: str
    row: int
    field: str
    code: str
    hint: str
    severity: Severity


@dataclass(slots=True)
class Report:
    """What was found in all files of one extract."""

    rejects: list[Reject] = field(default_factory=list)
    rows: int = 0
    bad_rows: int = 0  # left out for what they hold; a row left out with its person is not counted again
    people: int = 0  # rows of the persons' file
    bad_dates: int = 0  # of these, sent without a date of birth, as what stood there could be none

    @property
    def bad_share(self) -> float:
        return self.bad_rows / self.rows if self.rows else 0.0

    @property
    def dateless_share(self) -> float:
        """Of the persons: many are a wrong date format."""
        return self.bad_dates / self.people if self.people else 0.0

    def counts(self) -> dict[str, int]:
        """How many of each: "severity file field code"."""
        return dict(Counter(f"{line.severity} {line.file} {line.field} {line.code}" for line in self.rejects))

    def as_csv(self) -> bytes:
        """The report as a file; nothing in it comes from a cell of the extract."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("file", "row", "field", "code", "hint", "severity"))
        for line in sorted(self.rejects, key=lambda line: (line.file, line.row)):
            writer.writerow((line.file, line.row, line.field, line.code, line.hint, line.severity))
        return text.getvalue().encode()


class Sheet:
    """One file's rows, and which of them are still good."""

    def __init__(self, source: Source, raw: pa.Table, report: Report) -> None:
        assert source.file is not None
        self.raw = raw
        self.good: Flags = np.ones(raw.num_rows, np.bool_)
        self._file: Path = source.file
        self._report = report
        report.rows += raw.num_rows

    def find(self, row: int, finding: Finding, *, counted: bool = True) -> None:
        """Note what is wrong with a row; an error leaves it out."""
        name = extract.row_name(self._file, row)
        self._report.rejects.append(
            Reject(
                file=self._file.name, row=name, field=finding.field, code=finding.code, hint=finding.hint,
                severity=finding.severity,
            )
        )  # fmt: skip
        if finding.severity == "error":
            self._report.bad_rows += int(counted and bool(self.good[row]))
            self.good[row] = False
        elif finding.field == "date_of_birth" and finding.code in BAD_BIRTHS:
            self._report.bad_dates += 1

    def error(self, row: int, field_name: str, code: str, hint: str, *, counted: bool = True) -> None:
        self.find(row, Finding(field=field_name, code=code, hint=hint, severity="error"), counted=counted)

    def texts(self, field_name: str) -> list[str | None]:
        if field_name not in self.raw.column_names:
            return [None] * self.raw.num_rows
        texts: list[str | None] = self.raw.column(field_name).to_pylist()
        return texts

    def parsed(
        self, field_name: str, parse: Callable[[str], Value | Finding], default: Value | None = None
    ) -> list[Value | None]:
        """Each row's value, each distinct text parsed once; a Finding is reported for each row that has it."""
        texts, which = distinct_texts(self.raw, field_name)
        made = [default if text is None else parse(text) for text in texts]
        wrong = np.array([isinstance(value, Finding) for value in made])
        for row in np.flatnonzero(wrong[which]).tolist():
            finding = made[which[row]]
            assert isinstance(finding, Finding)
            self.find(row, finding)
        values = [default if isinstance(value, Finding) else value for value in made]
        return [values[one] for one in which.tolist()]


def one_of(field_name: str, known: Sequence[str], *, upper: bool = False) -> Callable[[str], str | Finding]:
    """A parser for a closed list."""

    def parse(text: str) -> str | Finding:
        value = text.upper() if upper else text.lower()
        if value in known:
            return value
        hint = f"one of {', '.join(known)} is due; say under values.{field_name} what the source's code means"
        return error(field_name, "unknown_value", hint)

    return parse


def truth(field_name: str) -> Callable[[str], bool | Finding]:
    """A parser for yes and no."""

    def parse(text: str) -> bool | Finding:
        value = _TRUTH.get(text.lower())
        hint = f"true or false is due; say under values.{field_name} what the source's code means"
        return error(field_name, "unknown_value", hint) if value is None else value

    return parse


def a_date(field_name: str, written: str, latest: date) -> Callable[[str], date | Finding]:
    """A parser for dates from 1880 to `latest`."""

    def parse(text: str) -> date | Finding:
        day = parse_date(text, written)
        if day is None:
            return error(field_name, "bad_date", f"a real date in the format {written!r} is due")
        if not EARLIEST <= day <= latest:
            return error(field_name, "bad_date", f"a date from {EARLIEST:%Y} to {latest} is due")
        return day

    return parse


def matching(field_name: str, pattern: str, what: str) -> Callable[[str], str | Finding]:
    """A parser for a registered name."""

    def parse(text: str) -> str | Finding:
        return text if fullmatch(pattern, text) else error(field_name, "bad_name", what)

    return parse


def error(field_name: str, code: str, hint: str) -> Finding:
    return Finding(field=field_name, code=code, hint=hint, severity="error")


def a_period(
    sheet: Sheet, start: str, end: str, formats: Mapping[str, str], today: date
) -> tuple[list[date | None], list[date | None]]:
    iso = "%Y-%m-%d"
    starts = sheet.parsed(start, a_date(start, formats.get(start, iso), today + LATEST_START))
    ends = sheet.parsed(end, a_date(end, formats.get(end, iso), today + LONGEST_LIFE))
    for row, (first, last) in enumerate(zip(starts, ends, strict=True)):
        if first is not None and last is not None and last < first:
            sheet.error(row, end, "bad_period", f"it is before {start}")
    return starts, ends


def check_person(
    sheet: Sheet, row: int, name: str, local_id: str | None, refs: Mapping[str, str], left_out: frozenset[str]
) -> None:
    if local_id is None:
        sheet.error(row, name, "missing", "the person's number in the source is due")
    elif local_id in left_out:
        sheet.error(row, name, "person_left_out", "the person's own row was left out; put that right", counted=False)
    elif local_id not in refs:
        sheet.error(row, name, "unknown_person", "no such number in the persons file; extract both at one time")


def wire_table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table(
        [pa.array(column, wanted.type) for column, wanted in zip(columns, schema, strict=True)], schema=schema
    )
