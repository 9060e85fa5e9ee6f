"""Signing in at the broker, and out: a demonstration's list of people."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from broker import reports, signin
from broker.dependencies import BrokerDep, NowDep, OfficerDep
from broker.errors import NotAllowed, NotSignedIn
from broker.web.pages import ROLE_NAMES, FormDep, OfficerFormDep, PageRoute, check_origin, page

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/")
def front(request: Request, broker: BrokerDep, now: NowDep) -> Response:
    """Sign in; or on to the log, for whoever is signed in."""
    try:
        signin.session_of(broker.store, broker.settings, request.cookies.get(signin.COOKIE, ""), at=now)
    except NotSignedIn:
        return _page(request, broker)
    return RedirectResponse("/log", 303)


@router.post("/sign-in")
def sign_in(request: Request, form: FormDep, broker: BrokerDep, now: NowDep) -> Response:
    """Start a session for one of the demonstration's people; there is none but in a demonstration."""
    check_origin(request, broker.settings.base_url, "", "")
    try:
        cookie, session = signin.sign_in_to_demo(broker.store, broker.settings, form.get("person", ""), at=now)
    except NotAllowed:
        return _page(request, broker, fault="Choose who you are")
    who = {"person": session.person, "role": session.role, "method": session.method}
    reports.note_sign_in(broker.store, broker.trail, {"organisation": broker.settings.partnership} | who, at=now)
    response = RedirectResponse("/log", 303)
    response.set_cookie(signin.COOKIE, cookie, path="/", secure=True, httponly=True, samesite="lax")
    return response


@router.post("/sign-out")
def sign_out(request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """End the session, here and in the browser."""
    signin.end(broker.store, request.cookies[signin.COOKIE], at=now)
    reports.note_sign_out(broker.store, broker.trail, caller.who(), at=now)
    response = RedirectResponse("/", 303)
    response.delete_cookie(signin.COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache", "cookies", "storage"'
    return response


def _page(request: Request, broker: BrokerDep, *, fault: str = "") -> Response:
    people = [
        {"value": person.person, "text": person.label, "hint": {"text": ROLE_NAMES[person.role]}}
        for person in signin.demo_people(broker.settings)
    ]
    return page(request, "sign_in.html", None, status=422 if fault else 200, people=people, fault=fault)
