"""One row, inserted without SQLAlchemy's own way, which costs more than the database's share of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Boolean, Integer, LargeBinary, String, Table
from sqlmodel import AutoString

from broker.store.columns import PlainJSON, Row, UTCDateTime, instant_told
from broker.store.statements import Asked, Statement

_KNOWN: Final = (AutoString, String, Integer, Boolean, LargeBinary, PlainJSON, UTCDateTime)


@dataclass(frozen=True, slots=True)
class _Insertion:
    statement: Statement
    json: tuple[str, ...]
    instants: tuple[str, ...]


_STATEMENTS: Final[dict[tuple[str, tuple[str, ...]], _Insertion | None]] = {}


def insertion(row: type[Row], values: Mapping[str, Any], *, sqlite: bool) -> Asked | None:
    """Inserting a row given as its columns; None where SQLAlchemy knows better how (a type, a default)."""
    table: Table = row.metadata.tables[str(row.__tablename__)]
    names = tuple(values)
    known = (table.name, names)
    if known not in _STATEMENTS:
        _STATEMENTS[known] = _statement(table, names)
    statement = _STATEMENTS[known]
    if statement is None or any(values[name] is None for name in statement.json):
        return None  # JSON has a null of its own
    told = dict(values)
    for name in statement.json:
        told[name] = json.dumps(told[name])
    for name in statement.instants:
        told[name] = None if told[name] is None else instant_told(told[name], sqlite=sqlite)
    return statement.statement.of(**told)


def _statement(table: Table, names: tuple[str, ...]) -> _Insertion | None:
    columns = [table.columns[name] for name in names if name in table.columns]
    if len(columns) < len(names) or not all(isinstance(column.type, _KNOWN) for column in columns):
        return None
    if any(column.default is not None for column in table.columns if column.name not in names):
        return None
    told = ", ".join(f":{name}" for name in names)
    kept = ", ".join(f'"{name}"' for name in names)
    return _Insertion(
        Statement(f'INSERT INTO "{table.name}" ({kept}) VALUES ({told})'),  # noqa: S608 (names of ours alone)
        json=tuple(column.name for column in columns if isinstance(column.type, PlainJSON)),
        instants=tuple(column.name for column in columns if isinstance(column.type, UTCDateTime)),
    )
