"""Statements that run for every event: kept as text, in each database's own words, and asked of the driver itself.

SQLAlchemy finds the text of a statement anew each time it runs, which costs more than running it.  `asked` runs some of
them, on PostgreSQL in one round trip (`broker.store.wire`); faults are raised as SQLAlchemy raises them.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from broker.store.copying import HEAD, TAIL
from broker.store.copying import told as told_many
from broker.store.wire import COMMIT, Array, Sent, Wire, names_of, rows_of, told

if TYPE_CHECKING:  # loaded where a batch is kept: what only asks never waits for it
    import pyarrow as pa

_NAMED: Final = re.compile(r"(?<!:):([a-z_][a-z0-9_]*)")
_NUMBERS: Final = count(1)
_FILLED_AT_ONCE: Final = 5_000


ANY_OF: Final = "ANY(:texts::text[])"
ANY_OF_SQLITE: Final = "IN (SELECT value FROM json_each(:texts))"
"""Whether a column is one of `texts`."""


def texts(values: Iterable[str], *, sqlite: bool) -> str | Array:
    """Texts as the one value that `ANY_OF` asks of."""
    each = sorted(set(values))
    return json.dumps(each) if sqlite else Array("text", each)


class Answer:
    """What a statement gave: rows, whose columns are attributes too; or how many rows it wrote."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount: Final = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> Sequence[Any]:
        """Every row."""
        return self._rows

    def one_or_none(self) -> Any:
        """The one row, or None.  Raises ValueError if there are more."""
        if len(self._rows) > 1:
            raise ValueError("more than one row answers")
        return self._rows[0] if self._rows else None

    def scalar(self) -> Any:
        """The first column of the first row, or None."""
        return self._rows[0][0] if self._rows else None

    def scalars(self) -> list[Any]:
        """The first column of each row."""
        return [row[0] for row in self._rows]


class Statement:
    """A statement with `:named` values; `sqlite` where that database says it otherwise."""

    def __init__(self, text: str, *, sqlite: str | None = None) -> None:
        self.sqlite: Final = sqlite if sqlite is not None else text
        self._name: Final = b"s%d" % next(_NUMBERS)
        self._values: Final = tuple(dict.fromkeys(_NAMED.findall(text)))
        places = {name: f"${place}" for place, name in enumerate(self._values, start=1)}
        self._text: Final = _NAMED.sub(lambda found: places[found[1]], text).encode()
        self._row: Any = None

    def of(self, **values: Any) -> Asked:
        """This statement with its values, to be run."""
        return Asked(self, values)

    def sent(self, values: Mapping[str, Any]) -> Sent:
        """As PostgreSQL is sent it."""
        if not self._values:
            return self._name, self._text, None, None
        all_ = [told(values[name]) for name in self._values]
        return self._name, self._text, [raw for raw, _ in all_], [how for _, how in all_]

    def rows(self, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Rows with their columns as attributes."""
        if self._row is None:
            self._row = namedtuple("Row", names, rename=True)  # type: ignore[misc]
        return [self._row._make(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement and its values; on SQLite, if `many`, once for each of these rows."""

    statement: Statement
    values: Mapping[str, Any]
    many: Sequence[Mapping[str, Any]] | None = None


class Rows:
    """Many rows that are inserted at once, `then` saying what to do where a key is taken.

    PostgreSQL is told each column as one value: a row by itself would cost it more than keeping it.
    """

    def __init__(self, table: str, types: Mapping[str, str], then: str = "") -> None:
        """`types`: each column's, in PostgreSQL's words."""
        names = ", ".join(types)
        each = ", ".join(f":{name}" for name in types)
        all_ = ", ".join(f":{name}::{kind}[]" for name, kind in types.items())
        self._types: Final = dict(types)
        self._statement: Final = Statement(
            f"INSERT INTO {table} ({names}) SELECT * FROM unnest({all_}) {then}",  # noqa: S608 (names of ours alone)
            sqlite=f"INSERT INTO {table} ({names}) VALUES ({each}) {then}",  # noqa: S608
        )

    def of(self, rows: Sequence[Mapping[str, Any]]) -> Asked:
        """Inserting these, to be run; there may be none."""
        return Asked(self._statement, {"rows": rows, "types": self._types}, rows)


def copied(connection: Connection, table: str, same: Mapping[str, str], rows: Iterable[pa.RecordBatch]) -> None:
    """Insert many rows at once: on PostgreSQL by one COPY.  `same`: the columns whose value is the same in all.

    Dates are kept as SQLAlchemy keeps them.  Raises as `asked` does.
    """
    driver = connection.connection.driver_connection
    try:
        if isinstance(driver, sqlite3.Connection):
            _filled(driver, table, same, rows)
        else:
            assert isinstance(driver, psycopg.Connection)
            _copied(driver, table, same, rows)
    except sqlite3.Error as wrong:
        raise _raised(wrong) from None
    except psycopg.Error as wrong:
        assert isinstance(driver, psycopg.Connection)
        _look_after(connection, driver, wrong)
        raise _raised(wrong) from None


def _filled(driver: sqlite3.Connection, table: str, same: Mapping[str, str], rows: Iterable[pa.RecordBatch]) -> None:

    # a value that each row is given anew costs SQLite more than one in the statement, which it quotes itself
    quoted = [driver.execute("SELECT quote(?)", (value,)).fetchone()[0] for value in same.values()]
    for some in rows:
        # Python's driver looks for an adapter for each None and each bytes, and finds none: so neither is handed to it
        said = some.select([name for name in some.schema.names if some[name].null_count < some.num_rows])
        values = ", ".join((*quoted, *("?" for _ in said.schema)))
        into = f"INSERT INTO {table} ({', '.join((*same, *said.schema.names))}) VALUES ({values})"  # noqa: S608
        for start in range(0, said.num_rows, _FILLED_AT_ONCE):
            driver.executemany(into, zip(*map(_plain, said.slice(start, _FILLED_AT_ONCE).columns), strict=True))


def _plain(column: pa.Array) -> Sequence[Any]:
    import pyarrow as pa

    if pa.types.is_date(column.type):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return (
        [None if value is None else bytearray(value) for value in values] if pa.types.is_binary(column.type) else values
    )


def _copied(
    driver: psycopg.Connection[Any], table: str, same: Mapping[str, str], rows: Iterable[pa.RecordBatch]
) -> None:
    copy: psycopg.Copy | None = None
    with driver.cursor() as cursor, ExitStack() as entering:
        for some in rows:
            if copy is None:
                names = ", ".join((*same, *some.schema.names))
                copy = entering.enter_context(
                    cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT binary)".encode())
                )
                copy.write(HEAD)
            copy.write(told_many(same, some))
        if copy is not None:
            copy.write(TAIL)


def asked(connection: Connection, questions: Sequence[Asked], *, last: bool = False) -> list[Answer]:
    """The answers to these, in this order; `last`: the transaction is committed after them, in the same round trip.

    SQLite is left to whoever began to commit.  Raises SQLAlchemy's IntegrityError, or OperationalError for all else.
    """
    if connection.dialect.name == "sqlite":
        return [_asked_sqlite(connection, one) for one in questions]
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    wire = connection.info.get("wire")
    if wire is None:
        wire = connection.info["wire"] = Wire(driver)
    try:
        sent = [one.statement.sent(_by_column(one)) for one in questions]
        results = wire.run([*sent, (*COMMIT, None, None)] if last else sent, whose=connection)
    except psycopg.Error as wrong:
        _look_after(connection, driver, wrong)
        raise _raised(wrong) from None
    found = []
    for one, result in zip(questions, results, strict=False):
        rows = one.statement.rows(names_of(result), rows_of(result)) if result.nfields else ()
        found.append(Answer(rows, result.command_tuples or 0))
    return found


def _look_after(connection: Connection, driver: psycopg.Connection[Any], wrong: psycopg.Error) -> None:
    """Give up a connection that is of no more use."""
    if driver.closed or driver.pgconn.status != psycopg.pq.ConnStatus.OK:
        connection.invalidate()
        connection.engine.dispose()  # the server went, and the others' connections with it
    elif isinstance(wrong, psycopg.NotSupportedError):  # a table that a prepared statement reads is another now
        connection.invalidate()


def _by_column(one: Asked) -> Mapping[str, Any]:
    if one.many is None:
        return one.values
    types = one.values["types"]
    return {name: Array(kind, [row[name] for row in one.many]) for name, kind in types.items()}


def _asked_sqlite(connection: Connection, one: Asked) -> Answer:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    try:
        if one.many is not None:
            return Answer((), driver.executemany(one.statement.sqlite, one.many).rowcount)
        cursor = driver.execute(one.statement.sqlite, one.values)
        if cursor.description is None:
            return Answer((), cursor.rowcount)
        names = [name for name, *_ in cursor.description]
        return Answer(one.statement.rows(names, cursor.fetchall()), cursor.rowcount)
    except sqlite3.Error as wrong:
        raise _raised(wrong) from None


def _raised(wrong: psycopg.Error | sqlite3.Error) -> DBAPIError:
    """As SQLAlchemy would raise it; without the statement and its values."""
    kind = IntegrityError if isinstance(wrong, psycopg.IntegrityError | sqlite3.IntegrityError) else OperationalError
    return kind(None, None, wrong)
