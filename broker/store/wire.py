"""PostgreSQL's own protocol: statements that are prepared once a connection, several of them in one round trip.

A small statement costs SQLAlchemy and psycopg's cursor ten times what libpq and the server take for it, and each round
trip wakes two processes.  What runs for every event comes this way; the connection is one of the store's, inside its
transaction, which begins and may end in the same round trip as a statement.
"""

from __future__ import annotations

import select
import struct
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

COMMIT: Final = (b"commit", b"COMMIT")
_TEXT, _BINARY = pq.Format.TEXT, pq.Format.BINARY
_LONG, _WORD, _SHORT = struct.Struct("!q"), struct.Struct("!i"), struct.Struct("!h")
_ARRAY: Final = struct.Struct("!iiIii")  # dimensions, whether any is null, type, length, the first index

_NULL: Final = _WORD.pack(-1)
_FIRST_DAY: Final = date(2000, 1, 1).toordinal()  # which PostgreSQL counts days from

Encoder = Callable[[Any], bytes]
_ENCODERS: Final[Mapping[str, tuple[int, Encoder]]] = {
    "text": (25, str.encode),
    "bytea": (17, bytes),
    "bigint": (20, _LONG.pack),
    "integer": (23, _WORD.pack),
    "boolean": (16, lambda value: b"\1" if value else b"\0"),
    "date": (1082, lambda value: _WORD.pack(date.fromisoformat(value).toordinal() - _FIRST_DAY)),
}
"""How a value of an array is told, by PostgreSQL's name of its type: the type's number, and its bytes."""

_DECODERS: Final[Mapping[int, Callable[[bytes], Any]]] = {
    25: bytes.decode,
    1043: bytes.decode,
    17: bytes,
    20: lambda raw: _LONG.unpack(raw)[0],
    21: lambda raw: _SHORT.unpack(raw)[0],
    23: lambda raw: _WORD.unpack(raw)[0],
    16: lambda raw: raw == b"\1",
}
"""How a value of a column is read, by its type's number."""

Sent = tuple[bytes, bytes, Sequence[bytes | None] | None, Sequence[int] | None]
"""A statement to be sent: its name, its text, its values and how each is written."""


class Array:
    """Values of one type, as one value of a statement; any may be None, and a date is told in ISO 8601."""

    def __init__(self, kind: str, values: Sequence[Any]) -> None:
        """`kind`: PostgreSQL's name of the type of each."""
        number, encoded = _ENCODERS[kind]
        parts = [_ARRAY.pack(1, int(None in values), number, len(values), 1)]
        for value in values:
            if value is None:
                parts.append(_NULL)
                continue
            raw = encoded(value)
            parts += (_WORD.pack(len(raw)), raw)
        self.raw: Final = b"".join(parts)


def told(value: Any) -> tuple[bytes | None, int]:
    """A value as the server takes it, whatever the type it is to have there, and how it is written.

    Raises psycopg.DataError for text that PostgreSQL can't keep, and TypeError for what is told otherwise.
    """
    if value is None:
        return None, _TEXT
    if isinstance(value, str):
        raw = value.encode()
        if b"\0" in raw:  # libpq would cut the text there without a word
            raise psycopg.DataError("PostgreSQL's text holds no NUL")
        return raw, _TEXT
    if isinstance(value, bytes):
        return value, _BINARY
    if isinstance(value, bool):
        return (b"t" if value else b"f"), _TEXT
    if isinstance(value, int):
        return b"%d" % value, _TEXT
    if isinstance(value, Array):
        return value.raw, _BINARY
    raise TypeError(f"a statement takes no {type(value).__name__}")


class Wire:
    """One connection to PostgreSQL, without the ways of psycopg's cursors."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._prepared: set[bytes] = set()
        self._whose: weakref.ref[Any] | None = None  # whose transaction began here
        self._answers = select.poll()
        self._answers.register(connection.pgconn.socket, select.POLLIN)
        self._both = select.poll()
        self._both.register(connection.pgconn.socket, select.POLLIN | select.POLLOUT)

    def run(self, statements: Sequence[Sent], *, whose: object) -> list[pq.abc.PGresult]:
        """Run these, in this order and in one round trip; the transaction begins before them if there is none yet.

        `whose`: who holds the connection until that transaction's end.  Raises what psycopg would: for the first that
        fails, and then none after it has run.
        """
        if self._connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            # psycopg throws away what is prepared, ours too, where it rolls back: what began elsewhere may lack it
            ours = self._whose is not None and self._whose() is whose
            return _checked(self._run(statements, prepared=ours))
        self._whose = weakref.ref(whose)
        statements = [self._begin(), *statements]
        found = self._run(statements, prepared=True)
        if found[0].status == pq.ExecStatus.FATAL_ERROR and self._prepared:
            self._prepared.clear()  # so here: it did not even begin
            found = self._run(statements, prepared=True)
        return _checked(found)[1:]

    def _run(self, statements: Sequence[Sent], *, prepared: bool) -> list[pq.abc.PGresult]:
        there = self._connection.pgconn
        there.enter_pipeline_mode()
        asked: list[bytes | None] = []  # for each result to come, the name that it prepares, or None
        for name, text, values, formats in statements:
            if not prepared:
                there.send_query_params(text, values, None, formats, _BINARY)
            else:
                if name not in self._prepared and name not in asked:
                    there.send_prepare(name, text)
                    asked.append(name)
                there.send_query_prepared(name, values, formats, _BINARY)
            asked.append(None)
        there.pipeline_sync()
        found = self._results(there, asked)
        there.exit_pipeline_mode()
        return found

    def _results(self, there: pq.abc.PGconn, asked: Sequence[bytes | None]) -> list[pq.abc.PGresult]:
        while there.flush():  # the server may wait for us to read, before it reads more
            self._both.poll()
            there.consume_input()
        found: list[pq.abc.PGresult] = []
        place = 0
        while True:
            while there.is_busy():
                self._answers.poll()
                there.consume_input()
            result = there.get_result()
            if result is None:
                if there.status != pq.ConnStatus.OK:
                    raise psycopg.OperationalError("the connection is lost")
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return found
            name = asked[place]
            place += 1
            if name is None or result.status == pq.ExecStatus.FATAL_ERROR:
                found.append(result)
            elif result.status == pq.ExecStatus.COMMAND_OK:
                self._prepared.add(name)

    def _begin(self) -> Sent:
        """As psycopg begins: at this connection's level."""
        level, read_only = self._connection.isolation_level, self._connection.read_only
        text = b"BEGIN"
        if level is not None:
            text += b" ISOLATION LEVEL " + level.name.replace("_", " ").encode()
        if read_only is not None:
            text += b" READ ONLY" if read_only else b" READ WRITE"
        return text.lower(), text, None, None


def _checked(results: list[pq.abc.PGresult]) -> list[pq.abc.PGresult]:
    wrong = next((one for one in results if one.status == pq.ExecStatus.FATAL_ERROR), None)
    if wrong is not None:
        raise error_from_result(wrong)
    return results


def rows_of(result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
    """The rows of a result.  Raises KeyError for a type that nothing here reads."""
    columns = range(result.nfields)
    decoders = [_DECODERS[result.ftype(at)] for at in columns]
    found = []
    for row in range(result.ntuples):
        raw = [result.get_value(row, at) for at in columns]
        found.append(tuple(None if one is None else read(one) for one, read in zip(raw, decoders, strict=True)))
    return found


def names_of(result: pq.abc.PGresult) -> tuple[str, ...]:
    """The names of a result's columns."""
    return tuple((result.fname(at) or b"").decode() for at in range(result.nfields))
