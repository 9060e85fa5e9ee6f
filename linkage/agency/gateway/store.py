"""The gateway's own short memory: sessions, and what was typed or shown, sealed and gone after an hour.

Names are in no column: a box is AES-256-GCM under `keys/gateway.key`, bound to its id, kind and owner, and an expired
one is deleted at the next use of the store.  SQLite overwrites what is deleted (`secure_delete`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_LEAVING = b"leaving"
Kind = Literal["draft", "search", "view", "contact", "report", "record"]

_TABLES = """
create table if not exists sessions (
    token_hash text primary key, sid text not null, person text not null, role text not null, csrf text not null,
    started_at integer not null, seen_at integer not null, acknowledged text not null
) strict;
create table if not exists boxes (
    id text primary key, kind text not null, owner text not null, made_at integer not null, expires_at integer not null,
    sealed blob not null
) strict;
create index if not exists boxes_by_owner on boxes (owner, kind, made_at);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A session as stored.  The cookie's token itself is nowhere, only its SHA-256."""

    sid: str
    person: str
    role: str
    csrf: str
    started_at: datetime
    seen_at: datetime
    acknowledged: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Something kept for its owner (a person, or the whole organisation) until it expires; `repr` shows no content."""

    id: str
    made_at: datetime
    expires_at: datetime
    content: dict[str, Any]

    def __repr__(self) -> str:
        return f"Box({self.id!r})"


def new_id() -> str:
    """128 random bits for an address."""
    return secrets.token_hex(16)


class GatewayStore:
    """Sessions and sealed boxes in one SQLite file.  Safe to share between threads."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._lock = threading.Lock()
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.close(handle)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma secure_delete = on")
        columns = {row[1] for row in self._connection.execute("pragma table_info(sessions)")}
        if columns and "role" not in columns:  # of an earlier version: whoever was signed in signs in again
            self._connection.execute("drop table sessions")
        self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # ---- boxes

    def put(self, kind: Kind, owner: str, content: dict[str, Any], *, now: datetime, lasts: timedelta) -> str:
        """Keep `content` (JSON) sealed for `owner`; its new id."""
        box_id = new_id()
        self._write(box_id, kind, owner, content, made_at=now, expires_at=now + lasts)
        return box_id

    def replace(
        self, kind: Kind, owner: str, box_id: str, content: dict[str, Any], *, now: datetime,
        until: datetime | None = None,
    ) -> None:  # fmt: skip
        """Put other content in a box that is there; it expires when it would have, or then."""
        box = self.get(kind, owner, box_id, now=now)
        if box is not None:
            self._write(box_id, kind, owner, content, made_at=box.made_at, expires_at=until or box.expires_at)

    def get(self, kind: Kind, owner: str, box_id: str, *, now: datetime) -> Box | None:
        """The box of this kind, owner and id, unless it has expired or was never there: the two are alike."""
        with self._purged(now) as connection:
            row = connection.execute(
                "select id, made_at, expires_at, sealed from boxes where id = ? and kind = ? and owner = ?",
                (box_id, kind, owner),
            ).fetchone()
        return None if row is None else self._open(kind, owner, row)

    def latest(self, kind: Kind, owner: str, *, now: datetime, limit: int = 50) -> list[Box]:
        """The owner's boxes of one kind, newest first."""
        with self._purged(now) as connection:
            rows = connection.execute(
                "select id, made_at, expires_at, sealed from boxes where owner = ? and kind = ?"
                " order by made_at desc, rowid desc limit ?",
                (owner, kind, limit),
            ).fetchall()
        return [self._open(kind, owner, row) for row in rows]

    def drop(self, kind: Kind, owner: str, box_id: str | None = None) -> None:
        """Forget every box of one kind and owner, or the one of this id."""
        with self._lock:
            self._connection.execute(
                "delete from boxes where owner = ? and kind = ? and id = coalesce(?, id)", (owner, kind, box_id)
            )

    # ---- sessions

    def start_session(self, person: str, role: str, *, now: datetime) -> str:
        """A new session; the token for its cookie, which is kept nowhere."""
        token = secrets.token_urlsafe(32)
        at = _seconds(now)
        with self._purged(now) as connection:
            connection.execute(
                "insert into sessions values (?, ?, ?, ?, ?, ?, ?, ?)",
                (_hash(token), new_id(), person, role, secrets.token_urlsafe(32), at, at, "{}"),
            )
        return token

    def session(self, token: str) -> SessionRow | None:
        """The session of a cookie's token, lapsed or not; None if there is no such session."""
        with self._lock:
            row = self._connection.execute(
                "select sid, person, role, csrf, started_at, seen_at, acknowledged from sessions where token_hash = ?",
                (_hash(token),),
            ).fetchone()
        if row is None:
            return None
        sid, person, role, csrf, started_at, seen_at, acknowledged = row
        return SessionRow(
            sid=sid,
            person=person,
            role=role,
            csrf=csrf,
            started_at=_instant(started_at),
            seen_at=_instant(seen_at),
            acknowledged=json.loads(acknowledged),
        )

    def touch_session(self, token: str, *, now: datetime) -> None:
        """Note that the session was used."""
        with self._lock:
            self._connection.execute(
                "update sessions set seen_at = max(seen_at, ?) where token_hash = ?", (_seconds(now), _hash(token))
            )

    def acknowledge(self, token: str, acknowledged: dict[str, str]) -> None:
        """Keep which purposes were confirmed in this session, and when."""
        with self._lock:
            self._connection.execute(
                "update sessions set acknowledged = ? where token_hash = ?", (json.dumps(acknowledged), _hash(token))
            )

    def end_session(self, token: str) -> None:
        """Forget a session: its cookie opens nothing any more."""
        with self._lock:
            self._connection.execute("delete from sessions where token_hash = ?", (_hash(token),))

    # ---- what a browser keeps while its person signs in elsewhere

    def sealed(self, content: dict[str, Any]) -> str:
        """`content` (JSON) as text that only this store opens."""
        nonce = secrets.token_bytes(12)
        return (nonce + self._aead.encrypt(nonce, json.dumps(content).encode(), _LEAVING)).hex()

    def opened(self, text: str) -> dict[str, Any] | None:
        """What was sealed, or None if it was not sealed here."""
        try:
            raw = bytes.fromhex(text)
            content: dict[str, Any] = json.loads(self._aead.decrypt(raw[:12], raw[12:], _LEAVING))
        except (ValueError, InvalidTag):
            return None
        return content

    # ---- inside

    def _write(
        self, box_id: str, kind: Kind, owner: str, content: dict[str, Any], *, made_at: datetime, expires_at: datetime
    ) -> None:
        nonce = secrets.token_bytes(12)
        sealed = nonce + self._aead.encrypt(nonce, json.dumps(content).encode(), _bound_to(box_id, kind, owner))
        with self._purged(made_at) as connection:
            connection.execute(
                "insert or replace into boxes values (?, ?, ?, ?, ?, ?)",
                (box_id, kind, owner, _seconds(made_at), _seconds(expires_at), sealed),
            )

    def _open(self, kind: Kind, owner: str, row: tuple[str, int, int, bytes]) -> Box:
        box_id, made_at, expires_at, sealed = row
        content = self._aead.decrypt(sealed[:12], sealed[12:], _bound_to(box_id, kind, owner))
        return Box(id=box_id, made_at=_instant(made_at), expires_at=_instant(expires_at), content=json.loads(content))

    @contextlib.contextmanager
    def _purged(self, now: datetime) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("delete from boxes where expires_at <= ?", (_seconds(now),))
            # A lapsed session stays for a day, so that what was typed in it can still be kept for its person.
            self._connection.execute("delete from sessions where started_at < ?", (_seconds(now) - 24 * 3600,))
            yield self._connection


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _bound_to(box_id: str, kind: str, owner: str) -> bytes:
    return json.dumps([box_id, kind, owner]).encode()


def _seconds(at: datetime) -> int:
    return int(at.timestamp())


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
