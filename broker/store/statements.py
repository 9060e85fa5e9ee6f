"""Statements that run for every event: kept as text, in each database's own words, with values as drivers take them.

SQLAlchemy finds the text of a statement anew each time it runs, which costs more than running it.
"""

from __future__ import annotations

import json
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


class Rows:
    """Many rows that are inserted at once, `then` saying what to do where a key is taken.

    PostgreSQL is told all of them as one value: a row by itself would cost it more than keeping it.
    """

    def __init__(self, table: str, types: Mapping[str, str], then: str = "") -> None:
        """`types`: each column's, in PostgreSQL's words."""
        names = ", ".join(types)
        each = ", ".join(f":{name}" for name in types)
        self._each: Final = f"INSERT INTO {table} ({names}) VALUES ({each}) {then}"  # noqa: S608 (names of ours alone)
        told = ", ".join(f"{name} {'text' if kind == 'bytea' else kind}" for name, kind in types.items())
        kept = ", ".join(f"decode(r.{name}, 'hex')" if kind == "bytea" else f"r.{name}" for name, kind in types.items())
        self._all: Final = (
            f"INSERT INTO {table} ({names}) "  # noqa: S608
            f"SELECT {kept} FROM jsonb_to_recordset(CAST(%(rows)s AS jsonb)) AS r ({told}) {then}"
        )

    def insert(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert them; of none, nothing."""
        if not rows:
            return
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(self._each, list(map(dict, rows)))
        else:
            connection.exec_driver_sql(self._all, {"rows": json.dumps(rows, default=bytes.hex)})
