"""From `record_ref` to case number: a file that only this agency has, and no one else can rebuild.

It keeps, for each record and identifier, what the extract said, its normal form, whether it passed its check, and when
it was first and last seen.  SQLite, one file, mode 0600.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SCHEMA: Final = """
create table if not exists records (
    flow text not null, record_ref text not null, local_id text not null,
    first_seen text not null, last_seen text not null,
    primary key (flow, record_ref)
) without rowid;
create index if not exists records_by_local_id on records (local_id);
create table if not exists identifiers (
    flow text not null, record_ref text not null, field text not null, raw text not null,
    normal text, valid integer not null, superseded_by text,
    first_seen text not null, last_seen text not null,
    primary key (flow, record_ref, field, raw)
) without rowid;
"""


class BadCrosswalk(ValueError):
    """The crosswalk file can't be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Seen:
    """One identifier of one record as an extract gave it.  `normal` is None where the check failed."""

    record_ref: str
    field: str
    raw: str
    normal: str | None
    superseded_by: str | None = None


class Crosswalk:
    """An open crosswalk; use it as `with crosswalk.opened(path) as ...`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def note(self, flow: str, records: Iterable[tuple[str, str]], identifiers: Iterable[Seen], *, at: str) -> None:
        """Keep what one extract held: (record_ref, local_id) pairs and identifiers, in one transaction."""
        with self._connection:
            self._connection.executemany(
                "insert into records values (?, ?, ?, ?, ?) "
                "on conflict (flow, record_ref) do update set last_seen = excluded.last_seen",
                ((flow, ref, local_id, at, at) for ref, local_id in records),
            )
            self._connection.executemany(
                "insert into identifiers values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (flow, record_ref, field, raw) "
                "do update set last_seen = excluded.last_seen, normal = excluded.normal, valid = excluded.valid, "
                "superseded_by = excluded.superseded_by",
                (
                    (flow, seen.record_ref, seen.field, seen.raw, seen.normal, seen.normal is not None,
                     seen.superseded_by, at, at)
                    for seen in identifiers
                ),
            )  # fmt: skip

    def local_id(self, record_ref: str) -> tuple[str, str] | None:
        """(flow, case number) of a record, or None if it is not ours."""
        row = self._connection.execute(
            "select flow, local_id from records where record_ref = ?", (record_ref,)
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def records(self, local_id: str) -> list[dict[str, Any]]:
        """Every record with this case number: flow, record_ref, first and last seen."""
        rows = self._connection.execute(
            "select flow, record_ref, first_seen, last_seen from records where local_id = ? order by flow", (local_id,)
        )
        return [dict(zip(("flow", "record_ref", "first_seen", "last_seen"), row, strict=True)) for row in rows]

    def identifiers(self, record_ref: str) -> list[dict[str, Any]]:
        """What is held of a record's identifiers, newest first.  For eyes inside the agency alone."""
        names = ("field", "raw", "normal", "valid", "superseded_by", "first_seen", "last_seen")
        rows = self._connection.execute(
            "select field, raw, normal, valid, superseded_by, first_seen, last_seen from identifiers "
            "where record_ref = ? order by field, last_seen desc",
            (record_ref,),
        )
        return [{**dict(zip(names, row, strict=True)), "valid": bool(row[3])} for row in rows]

    def counts(self) -> Mapping[str, int]:
        """Records held, by flow."""
        return dict(
            self._connection.execute("select flow, count(*) from records group by flow order by flow").fetchall()
        )


@contextmanager
def opened(path: Path) -> Iterator[Crosswalk]:
    """The crosswalk at `path`, made if it is not there.  Raises BadCrosswalk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if path.stat().st_mode & 0o077:
        raise BadCrosswalk(f"{path} can be read by others than its owner; run: chmod 600 {path}")
    connection = sqlite3.connect(path, timeout=60)
    try:
        connection.executescript("pragma journal_mode = wal; pragma synchronous = full;" + _SCHEMA)
        yield Crosswalk(connection)
    except sqlite3.DatabaseError as problem:
        raise BadCrosswalk(f"{path}: {problem}") from None
    finally:
        connection.close()
