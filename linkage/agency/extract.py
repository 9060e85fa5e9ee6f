"""An extract in: CSV or Parquet, every column as text."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from linkage.agency.mapping import Source


class BadExtract(ValueError):
    """A file can't be read as an extract: the message names file, line or column and the fix, never a value."""


def read(path: Path) -> pa.Table:
    """All columns of a CSV (UTF-8, header line) or Parquet file as strings, blanks as null.  Raises BadExtract."""
    raise NotImplementedError


def fields(source: Source, *, file: Path | None = None) -> pa.Table:
    """The canonical columns of a source (or of `file`), trimmed, its own codes translated.  Raises BadExtract."""
    raise NotImplementedError
