r"""A report as a file: CSV for spreadsheets, JSON, and, for what is made of events, FHIR, OCSF and CEF.

Every format is written piece by piece, so that a register of a million rows needs no memory.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from broker.errors import Malformed
from broker.reports import cef, fhir, ocsf
from broker.reports.table import Report, plain, text, utc

Format = Literal["csv", "json", "fhir", "ocsf", "cef"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
MEDIA: Final = {
    "csv": "text/csv; charset=utf-8", "json": "application/json", "fhir": "application/fhir+json",
    "ocsf": "application/x-ndjson", "cef": "text/plain; charset=utf-8",
}  # fmt: skip
SUFFIX: Final = {"csv": "csv", "json": "json", "fhir": "fhir.json", "ocsf": "ocsf.ndjson", "cef": "cef.log"}
_FORMULA: Final = frozenset("=+-@\t\r\n")


@dataclass(slots=True)
class Counted:
    """The pieces of a file, and, once they are all read, how many rows or events they hold."""

    pieces: Iterator[bytes]
    rows: int = field(default=0, init=False)

    def count(self) -> None:
        """One more."""
        self.rows += 1


def write(report: Report, fmt: str, *, origin: str) -> Counted:
    """A report in one of FORMATS.  `origin`: the log's, which names this broker.

    Raises Malformed for another format, or one of events for a report that is made of none.
    """
    if fmt not in FORMATS:
        raise Malformed(f"format: one of {', '.join(FORMATS)} is due")
    if fmt not in ("csv", "json") and report.events is None:
        raise Malformed(f"format: {report.code} is made of no events; it is written as csv or json")
    counted = Counted(iter(()))
    counted.pieces = _WRITERS[fmt](report, counted, origin)
    return counted


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe before what begins as one, however it is typed.

    Full-width signs count, as some spreadsheets read them so; and blanks and marks nobody sees are looked through.
    Source: OWASP, CSV Injection.

    >>> guarded("=1+1"), guarded("＝1"), guarded("\u200b@x"), guarded("x=1")
    ("'=1+1", "'＝1", "'\u200b@x", 'x=1')
    """
    for character in cell:
        plain_form = unicodedata.normalize("NFKC", character)
        if plain_form[:1] in _FORMULA or plain_form[:1] == "\N{MINUS SIGN}":
            return f"'{cell}"
        if unicodedata.category(character)[0] not in "ZC":
            return cell
    return cell


def csv_row(cells: tuple[str, ...]) -> bytes:
    """A row of RFC 4180, in UTF-8: commas, quotes where due, CRLF; each cell guarded."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([guarded(cell) for cell in cells])
    return line.getvalue().encode()


def _csv(report: Report, counted: Counted, _: str) -> Iterator[bytes]:
    yield csv_row(report.columns)
    for row in report.rows():
        counted.count()
        yield csv_row(tuple(map(text, row)))


def _json(report: Report, counted: Counted, origin: str) -> Iterator[bytes]:
    """What a page to print needs too: title, period, columns, rows."""
    head = {
        "report": report.code, "title": report.title, "log": origin, "since": utc(report.period.since),
        "until": utc(report.period.until), "made_at": utc(report.made_at), "columns": list(report.columns),
    }  # fmt: skip
    yield _dumps(head)[:-1] + b', "rows": ['
    for row in report.rows():
        yield (b",\n" if counted.rows else b"\n") + _dumps([plain(cell) for cell in row])
        counted.count()
    yield b"\n]}\n"


def _fhir(report: Report, counted: Counted, origin: str) -> Iterator[bytes]:
    """A Bundle of type collection."""
    head = _dumps({"resourceType": "Bundle", "type": "collection", "timestamp": utc(report.made_at)})
    for event in report.events() if report.events else ():
        for resource in fhir.resources(event, origin=origin):
            entry = {"fullUrl": f"{fhir.OURS}:event:{resource['id']}", "resource": resource}
            yield (b",\n" if counted.rows else head[:-1] + b', "entry": [\n') + _dumps(entry)
            counted.count()
    # FHIR has no empty lists: a Bundle of nothing has no `entry`
    yield b"\n]}\n" if counted.rows else head + b"\n"


def _ocsf(report: Report, counted: Counted, origin: str) -> Iterator[bytes]:
    for event in report.events() if report.events else ():
        counted.count()
        yield _dumps(ocsf.activity(event, origin=origin)) + b"\n"


def _cef(report: Report, counted: Counted, origin: str) -> Iterator[bytes]:
    for event in report.events() if report.events else ():
        counted.count()
        yield cef.line(event, origin=origin).encode() + b"\n"


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


_WRITERS: Final = {"csv": _csv, "json": _json, "fhir": _fhir, "ocsf": _ocsf, "cef": _cef}
