"""Statements that run for every event: kept as text, in each database's own words, with values as drivers take them.

SQLAlchemy finds the text of a statement anew each time it runs, which costs more than running it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, CursorResult

_NAMED: Final = re.compile(r":([a-z_]+)")


class Statement:
    """A statement with `:named` values; `sqlite` where that database says it otherwise."""

    def __init__(self, text: str, *, sqlite: str | None = None) -> None:
        self._texts: Final[Mapping[str, str]] = {
            "sqlite": sqlite if sqlite is not None else text,
            "postgresql": _NAMED.sub(r"%(\1)s", text),
        }

    def run(self, connection: Connection, **values: Any) -> CursorResult[Any]:
        """Run it once."""
        return connection.exec_driver_sql(self._texts[connection.dialect.name], values)

    def run_each(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for each row, in one go; for none, not at all."""
        if rows:
            connection.exec_driver_sql(self._texts[connection.dialect.name], list(map(dict, rows)))
