"""Who is signed in: a server-side session behind an opaque `__Host-` cookie, and the check that a form is our own.

Every change is a POST that needs the session's CSRF token *and* a same-origin `Sec-Fetch-Site` or `Origin`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.responses import Response

from linkage.agency.gateway.forms import Form
from linkage.agency.gateway.settings import GatewaySettings
from linkage.agency.gateway.store import GatewayStore

SEARCHERS = ("MASH_ANALYST", "MASH_DECISION_MAKER")
HOLDERS = ("AGENCY_REP", "DATA_STEWARD", "DSL")
COOKIE = "__Host-gateway"
"""Its own name: cookies don't know ports, so a broker on the same machine would otherwise share it."""


class NotSignedIn(Exception):
    """Nobody is signed in, or the session has ended.  `lapsed` tells the two apart."""

    def __init__(self, *, lapsed: bool) -> None:
        super().__init__("sign in again")
        self.lapsed = lapsed


class RoleNotPermitted(Exception):
    """The person's role does not open this page."""


class Forged(Exception):
    """A form came from elsewhere, or from a session that is no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who is signed in: an opaque id, and the role they act in."""

    id: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed-in person, with the role they act in."""

    token: str
    sid: str
    person: Person
    csrf: str
    ends_at: datetime
    lapsed: bool
    acknowledged: dict[str, str]

    @property
    def may_search(self) -> bool:
        """Whether this role asks on behalf of a contact."""
        return self.person.role in SEARCHERS

    @property
    def holds(self) -> bool:
        """Whether this role answers for what the organisation holds: to the broker's ledger and considerations."""
        return self.person.role in HOLDERS

    @property
    def decides(self) -> bool:
        """Whether this role sets a threshold."""
        return self.person.role == "MASH_DECISION_MAKER"


@dataclass(frozen=True, slots=True)
class Sessions:
    """Starts, finds and ends sessions by the rules of the settings."""

    store: GatewayStore
    settings: GatewaySettings
    now: Callable[[], datetime]

    def start(self, person_id: str) -> tuple[str, str]:
        """Sign a listed person in; the cookie's token, and the role.  Raises KeyError if nobody has that id."""
        person = {one.id: one for one in self.settings.people}[person_id]
        return self.store.start_session(person.id, person.role, now=self.now()), person.role

    def vouched(self, person: str, role: str) -> str:
        """Sign in whom the organisation's provider vouches for; the cookie's token."""
        return self.store.start_session(person, role, now=self.now())

    def find(self, request: Request) -> Session | None:
        """The session of a request's cookie, lapsed or not; None if there is none, or its role is nobody's any more."""
        token = request.cookies.get(COOKIE, "")
        row = self.store.session(token) if token else None
        if row is None or row.role not in self._roles(row.person):
            return None
        idle_end = row.seen_at + timedelta(minutes=self.settings.idle_minutes)
        hard_end = row.started_at + timedelta(hours=self.settings.session_hours)
        now = self.now()
        lapsed = now >= min(idle_end, hard_end) or now < row.started_at - timedelta(minutes=5)
        if not lapsed:
            self.store.touch_session(token, now=now)
        return Session(
            token=token,
            sid=row.sid,
            person=Person(id=row.person, role=row.role),
            csrf=row.csrf,
            ends_at=min(now + timedelta(minutes=self.settings.idle_minutes), hard_end),
            lapsed=lapsed,
            acknowledged=row.acknowledged,
        )

    def confirm_purpose(self, session: Session, purpose: str) -> None:
        """Keep that this purpose was confirmed, so that it is asked once a session."""
        self.store.acknowledge(session.token, session.acknowledged | {purpose: self.now().isoformat()})

    def end(self, session: Session, response: Response) -> None:
        """Sign out: forget the session, the cookie, and whatever the browser keeps of us."""
        self.store.end_session(session.token)
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        response.headers["Clear-Site-Data"] = '"cache", "cookies", "storage"'

    def _roles(self, person: str) -> set[str]:
        """The roles that somebody may have here, by the settings of today."""
        listed: set[str] = {one.role for one in self.settings.people if one.id == person}
        return listed | set(self.settings.oidc.roles.values() if self.settings.oidc else ())


def home_of(role: str) -> str:
    """The page that a role begins at.

    >>> home_of("MASH_ANALYST"), home_of("DATA_STEWARD"), home_of("SOCIAL_WORKER")
    ('/work', '/inbox', '/about/help')
    """
    return "/work" if role in SEARCHERS else "/inbox" if role in HOLDERS else "/about/help"


def set_cookie(response: Response, token: str) -> None:
    """Give the browser its session."""
    response.set_cookie(COOKIE, token, path="/", secure=True, httponly=True, samesite="lax")


def check_origin(request: Request) -> None:
    """Raise Forged unless the browser says that the form was on one of our own pages."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "null")  # under our own no-referrer policy a browser says "null"
    own = origin != "null" and urlsplit(origin).netloc == request.headers.get("host", "")
    if site != "same-origin" and not (site is None and own):
        raise Forged
    if origin != "null" and not own:
        raise Forged


def check_form(request: Request, session: Session, form: Form) -> None:
    """Raise Forged unless the form is from this session's own page."""
    check_origin(request)
    if not hmac.compare_digest(form.text("csrf").encode(), session.csrf.encode()):
        raise Forged


def _signed_in(request: Request) -> Session:
    sessions: Sessions = request.app.state.gateway.sessions
    session = sessions.find(request)
    if session is None or session.lapsed:
        raise NotSignedIn(lapsed=session is not None)
    return session


def _searcher(session: Annotated[Session, Depends(_signed_in)]) -> Session:
    if not session.may_search:
        raise RoleNotPermitted
    return session


def _holder(session: Annotated[Session, Depends(_signed_in)]) -> Session:
    if not session.holds:
        raise RoleNotPermitted
    return session


SessionDep = Annotated[Session, Depends(_signed_in)]
"""Whoever is signed in.  Raises NotSignedIn."""
SearcherDep = Annotated[Session, Depends(_searcher)]
"""Whoever is signed in and may search.  Raises NotSignedIn or RoleNotPermitted."""
HolderDep = Annotated[Session, Depends(_holder)]
"""Whoever is signed in and answers for the organisation's own data.  Raises NotSignedIn or RoleNotPermitted."""
