"""Signing in at the broker, and out: by the partnership's OpenID provider, or from a demonstration's list of people."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from broker import reports, signin
from broker.dependencies import BrokerDep, NowDep, OfficerDep
from broker.errors import NotAllowed, NotFound, NotSignedIn, ProviderUnavailable
from broker.signin import provider
from broker.signin.provider import RETURN, Denied, Person, Provider
from broker.web.pages import FormDep, OfficerFormDep, PageRoute, check_origin, home_of, page, role_name
from broker.wiring import Broker

router = APIRouter(route_class=PageRoute, include_in_schema=False)

AGAIN: Final = "You were not signed in. Start again: it may have taken too long, or been begun in another window"
UNREACHABLE: Final = (
    "Your organisation’s sign-in can’t be reached just now. Try again, or ask whoever runs this service"
)
DENIED: Final = {
    "no-role": "Your account has no role in this service. Ask whoever runs it",
    "several-roles": "Your account has several roles in this service, and may act in one. Ask whoever runs it",
    "acr": "Sign in again with your second factor: this service asks for it",
    "no-inspection": "Your inspection has not begun, or has ended. Ask whoever runs this service",
    "tenant": "Your account is of another organisation than this service’s",
}


@router.get("/")
def front(request: Request, broker: BrokerDep, now: NowDep) -> Response:
    """Sign in; or on to where their work begins, for whoever is signed in."""
    try:
        session = signin.session_of(broker.store, broker.settings, request.cookies.get(signin.COOKIE, ""), at=now)
    except NotSignedIn:
        return _page(request, broker)
    return RedirectResponse(home_of(session.role), 303)


@router.get("/sign-in/start")
async def leave(broker: BrokerDep, now: NowDep) -> Response:
    """On to the OpenID provider."""
    address, kept = await _provider(broker).leave(at=now)
    response = RedirectResponse(address, 303)
    response.set_cookie(
        provider.COOKIE, kept, max_age=int(provider.LASTS.total_seconds()), path="/", secure=True, httponly=True,
        samesite="lax",
    )  # fmt: skip
    return response


@router.get(RETURN)
async def come_back(request: Request, broker: BrokerDep, now: NowDep) -> Response:
    """Back from the OpenID provider, with a session if it vouches for somebody who has a role here."""
    try:
        person = await _provider(broker).come_back(
            request.query_params, request.cookies.get(provider.COOKIE, ""), at=now
        )
        response = await run_in_threadpool(_signed_in, broker, person, now)
    except Denied as denied:
        await run_in_threadpool(_note_denied, broker, denied, now)
        response = _page(request, broker, fault=DENIED.get(denied.reason, DENIED["no-role"]), status=403)
    except ProviderUnavailable:
        response = _page(request, broker, fault=UNREACHABLE, status=503)
    except NotSignedIn:
        response = _page(request, broker, fault=AGAIN, status=401)
    response.delete_cookie(provider.COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    return response


@router.post("/sign-in")
def sign_in(request: Request, form: FormDep, broker: BrokerDep, now: NowDep) -> Response:
    """Start a session for one of the demonstration's people; there is none but in a demonstration."""
    check_origin(request, broker.settings.base_url, "", "")
    try:
        cookie, session = signin.sign_in_to_demo(broker.store, broker.settings, form.get("person", ""), at=now)
    except NotAllowed:
        return _page(request, broker, fault="Choose who you are")
    return _begun(broker, cookie, session, now)


@router.post("/sign-out")
def sign_out(request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """End the session, here and in the browser."""
    signin.end(broker.store, request.cookies[signin.COOKIE], at=now)
    reports.note_sign_out(broker.store, broker.trail, caller.who(), at=now)
    response = RedirectResponse("/", 303)
    response.delete_cookie(signin.COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache", "cookies", "storage"'
    return response


def _provider(broker: Broker) -> Provider:
    """The OpenID provider of the settings.  Raises NotFound if there is none."""
    if broker.settings.oidc is None:
        raise NotFound("sign-in by an OpenID provider is not set up")
    if "provider" not in broker.parts:
        broker.parts["provider"] = Provider(
            broker.settings.oidc, base_url=broker.settings.base_url, key=broker.keys.leaving_key()
        )
    made: Provider = broker.parts["provider"]
    return made


def _signed_in(broker: Broker, person: Person, now: datetime) -> Response:
    try:
        cookie, session = signin.start(
            broker.store, broker.settings, person=person.person, role=person.role, organisation=person.organisation,
            method="oidc", at=now,
        )  # fmt: skip
    except NotAllowed:
        raise Denied("no-inspection", person.person) from None
    return _begun(broker, cookie, session, now)


def _begun(broker: Broker, cookie: str, session: signin.Session, now: datetime) -> Response:
    who = {"person": session.person, "role": session.role, "method": session.method}
    reports.note_sign_in(broker.store, broker.trail, {"organisation": broker.settings.partnership} | who, at=now)
    response = RedirectResponse(home_of(session.role), 303)
    response.set_cookie(signin.COOKIE, cookie, path="/", secure=True, httponly=True, samesite="lax")
    return response


def _note_denied(broker: Broker, denied: Denied, now: datetime) -> None:
    who = {"organisation": broker.settings.partnership, "person": denied.person, "method": "oidc"}
    known = {name: value for name, value in who.items() if value}
    reports.note_denied(broker.store, broker.trail, known, outcome=denied.reason, at=now)


def _page(request: Request, broker: Broker, *, fault: str = "", status: int | None = None) -> Response:
    people = [
        {"value": person.person, "text": person.label, "hint": {"text": role_name(person.role)}}
        for person in signin.demo_people(broker.settings)
    ]
    return page(
        request, "sign_in.html", None, status=status or (422 if fault else 200), people=people, fault=fault,
        provider=broker.settings.oidc,
    )  # fmt: skip
