"""An extract in: CSV or Parquet, every column as text.

A file that can't be read is refused whole, with the line number and never a quoted row.  What a cell holds is data
and nothing else: a cell that starts with `=` is no formula here, and nothing of it is written to a report.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from linkage.agency.mapping import Source

FIRST_ROW: Final = {".csv": 2, ".parquet": 1}
"""What the first row is called in reports: in a CSV file the header is row 1, as a spreadsheet shows it."""


class BadExtract(ValueError):
    """A file can't be read as an extract: the message names file, line or column and the fix, never a value."""


class UnreadableExtract(BadExtract):
    """A file can't be opened at all, which says nothing about what is in it."""


def read(path: Path) -> pa.Table:
    """All columns of a CSV (UTF-8, header line) or Parquet file; those of a CSV are text.  Raises BadExtract."""
    kind = path.suffix.lower()
    if kind not in FIRST_ROW:
        raise BadExtract(f"{path.name}: a .csv or a .parquet file is due")
    try:
        return _read_csv(path) if kind == ".csv" else _read_parquet(path)
    except OSError as problem:
        if isinstance(problem, pa.ArrowException):
            raise BadExtract(f"{path.name}: it can't be read as {kind[1:]}") from None
        raise UnreadableExtract(f"{path}: {problem.strerror or 'it can not be opened'}") from None


def fields(source: Source, *, file: Path | None = None) -> pa.Table:
    """The canonical columns of a source (or of `file`), as trimmed text, its own codes translated; blank is null.

    Raises BadExtract: also for a file without rows, unless the mapping says that it may be empty.
    """
    path = file or source.file
    if path is None:
        raise BadExtract(f"{source.key}.file is missing: name a CSV or Parquet file")
    table = read(path)
    if not table.num_rows and not source.may_be_empty:
        what = f"{path.name}: it has no rows; an empty extract would withdraw every record"
        raise BadExtract(what if source.key == "persons" else f"{what} (set {source.key}.may_be_empty if it may be)")
    columns: dict[str, pa.ChunkedArray] = {}
    for field, column in source.columns.items():
        if column not in table.column_names:
            raise BadExtract(
                f"{path.name}: no column {column!r}, which {source.key}.columns.{field} names; "
                f"it has {', '.join(table.column_names)}"
            )
        texts = _text(table.column(column), source.formats.get(field), f"{path.name}, column {column!r}")
        columns[field] = _translated(texts, source.values[field]) if field in source.values else texts
    return pa.table(columns) if columns else table.select([])


def row_name(path: Path, row: int) -> int:
    """What a report calls row `row` (0, 1, ...) of a file."""
    return FIRST_ROW[path.suffix.lower()] + row


def _read_csv(path: Path) -> pa.Table:
    names = _header(path)
    wrong: list[int | None] = []

    def note(row: pa_csv.InvalidRow) -> str:
        wrong.append(row.number)
        return "skip"

    try:
        table = pa_csv.read_csv(
            path,
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=8 << 20),
            parse_options=pa_csv.ParseOptions(invalid_row_handler=note, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        table = None
    if wrong or table is None:
        raise BadExtract(f"{path.name}, {_first_fault(path, len(names))}")
    return table


def _header(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            names = next(csv.reader([file.readline().decode("utf-8-sig").rstrip("\r\n")]), [])
    except (UnicodeDecodeError, csv.Error):
        raise BadExtract(f"{path.name}, line 1: the header can't be read; save the file as 'CSV UTF-8'") from None
    if not any(names):
        raise BadExtract(f"{path.name}: it is empty; a header line and rows are due")
    if len(set(names)) < len(names):
        raise BadExtract(f"{path.name}, line 1: two columns have the same name; give each its own")
    return names


def _first_fault(path: Path, columns: int) -> str:
    """Where a CSV file goes wrong first, and how: found by a second, slow and strict reading."""
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row and len(row) != columns:
                    return (
                        f"line {line}: it has {len(row)} columns where the header has {columns}; "
                        "a value with a comma or a line break must stand in double quotes"
                    )
                line = reader.line_num + 1
    except UnicodeDecodeError:
        return f"line {_first_line_not_utf8(path)}: it is not UTF-8; save the file as 'CSV UTF-8'"
    except csv.Error:
        return f"line {line}: a quoted value has no end, or goes on after its closing quote"
    return "it can't be read as CSV"


def _first_line_not_utf8(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except pa.ArrowException:
        raise BadExtract(f"{path.name}: it can't be read as Parquet") from None


def _text(column: pa.ChunkedArray, date_format: str | None, where: str) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    try:
        if (pa.types.is_date(kind) or pa.types.is_timestamp(kind)) and date_format:
            column = pc.strftime(column, format=date_format)  # a typed date has no format of its own
        elif pa.types.is_timestamp(kind):
            column = pc.strftime(column, format="%Y-%m-%d")
        else:
            column = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise BadExtract(f"{where}: a column of plain values is due, not {kind}") from None
    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _translated(texts: pa.ChunkedArray, codes: Mapping[str, str]) -> pa.ChunkedArray:
    coded = texts.combine_chunks().dictionary_encode()
    ours = [codes.get(value, value) for value in coded.dictionary.to_pylist()]
    return pa.chunked_array([pa.array(ours, pa.string()).take(coded.indices)])
