"""Sessions of people at the broker: server-side, revocable, behind an opaque `__Host-` cookie.

Sign-in by an OpenID provider is `broker.signin.provider`; here is also the demo's, which `Settings`
allows only in a demo, on loopback, on SQLite.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from agreements.agreement import london_midnight
from broker.errors import NotAllowed, NotSignedIn
from broker.settings import DemoPerson, Settings
from broker.store import Store, Transaction
from broker.store.sessions import SessionRow

INSPECTOR: Final = "INSPECTOR"
COOKIE: Final = "__Host-broker-session"
SEEN_EVERY: Final = timedelta(seconds=30)  # `seen_at` is written no more often than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A person who is signed in at the broker."""

    id: str  # SHA-256 of the cookie: may be logged
    person: str
    role: str
    organisation: str  # whose staff they act as; empty: the hosting partnership's
    method: str
    csrf: str
    ends_at: datetime


def demo_people(settings: Settings) -> tuple[DemoPerson, ...]:
    """Who may sign in without a password: nobody, outside a demo."""
    return settings.demo_people if settings.demo_sign_in else ()


def sign_in_to_demo(store: Store, settings: Settings, person: str, *, at: datetime) -> tuple[str, Session]:
    """The cookie's value and the session.  Raises NotAllowed unless this is a demo and the person is on its list."""
    chosen = next((known for known in demo_people(settings) if known.person == person), None)
    if chosen is None:
        raise NotAllowed("demo sign-in is for the people of a demo")
    return start(
        store, settings, person=chosen.person, role=chosen.role, organisation=chosen.organisation, method="demo", at=at
    )


def start(
    store: Store, settings: Settings, *, person: str, role: str, organisation: str = "", method: str, at: datetime
) -> tuple[str, Session]:
    """A new session; the cookie's value is returned once and not kept.  An inspector's ends with their inspection.

    Raises NotAllowed for an inspector whose inspection is not under way.
    """
    cookie = secrets.token_urlsafe(32)
    ends_at = at + timedelta(hours=settings.session_hours)
    if role == INSPECTOR:
        ends_at = min(ends_at, inspection_ends(settings, person, at=at))
    row = SessionRow(
        id_sha256=_id(cookie), person=person, role=role, organisation=organisation, method=method,
        csrf=secrets.token_urlsafe(32),
        started_at=at, seen_at=at, ends_at=ends_at,
    )  # fmt: skip
    with store.transaction() as tx:
        tx.add(row)
    return cookie, _session(row)


def inspection_ends(settings: Settings, person: str, *, at: datetime) -> datetime:
    """When the inspection of an inspector that is under way ends.  Raises NotAllowed if none is."""
    ends = [
        london_midnight(one.last + timedelta(days=1))
        for one in settings.inspections
        if one.person == person and london_midnight(one.first) <= at
    ]
    if not ends or max(ends) <= at:
        raise NotAllowed("no inspection of theirs is under way")
    return max(ends)


def session_of(store: Store, settings: Settings, cookie: str, *, at: datetime) -> Session:
    """The session behind a cookie.  Raises NotSignedIn if there is none, or it was idle, ended or revoked."""
    with store.reading() as reading:
        row = reading.one(SessionRow, id_sha256=_id(cookie))
    idle = timedelta(minutes=settings.session_idle_minutes)
    if row is None or row.revoked_at is not None or at >= row.ends_at or at - row.seen_at >= idle:
        raise NotSignedIn("session")
    if at < row.seen_at - SEEN_EVERY:
        raise NotSignedIn("clock")  # the clock went back: idle time can't be told
    if row.role == INSPECTOR:
        try:
            inspection_ends(settings, row.person, at=at)  # as the settings have it now
        except NotAllowed:
            raise NotSignedIn("inspection") from None
    if at - row.seen_at >= SEEN_EVERY:
        with store.transaction() as tx:
            current = tx.one(SessionRow, id_sha256=row.id_sha256)
            if current is None or current.revoked_at is not None:
                raise NotSignedIn("session")
            current.seen_at = at
            tx.add(current)
    return _session(row)


def end(store: Store, cookie: str, *, at: datetime) -> None:
    """Revoke the session behind a cookie; nothing happens if there is none."""
    with store.transaction() as tx:
        row = tx.one(SessionRow, id_sha256=_id(cookie))
        if row is not None and row.revoked_at is None:
            row.revoked_at = at
            tx.add(row)


def forget_ended(tx: Transaction, *, at: datetime) -> int:
    """Drop the sessions that have ended: the log keeps who signed in.  How many went."""
    return tx.delete_before(SessionRow, "ends_at", at)


def check_csrf(session_token: str, sent: str | None, *, origin: str | None, site: str | None, base_url: str) -> None:
    """Return if a form came from our own page: its token, `Origin` and `Sec-Fetch-Site` agree.  Raises NotAllowed."""
    if sent is None or not hmac.compare_digest(session_token.encode(), sent.encode()):
        raise NotAllowed("the form's token is missing or another's; open the page again")
    # Under our own `Referrer-Policy: no-referrer` a browser says `Origin: null`; its `Sec-Fetch-Site` then decides.
    said = None if origin == "null" and site == "same-origin" else origin
    if said not in (None, base_url) or site not in (None, "same-origin"):
        raise NotAllowed("the form was sent from another site")


def _id(cookie: str) -> str:
    return sha256(cookie.encode()).hexdigest()


def _session(row: SessionRow) -> Session:
    return Session(
        id=row.id_sha256, person=row.person, role=row.role, organisation=row.organisation, method=row.method,
        csrf=row.csrf, ends_at=row.ends_at,
    )  # fmt: skip
