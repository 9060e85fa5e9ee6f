"""The gateway as a web application: one agency's pages, on its own network."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from linkage.agency.gateway import contacts, emergency, family, inbox, ours, provider, search, threshold, wrong
from linkage.agency.gateway.broker_client import BrokerClient, BrokerRefused, BrokerUnavailable
from linkage.agency.gateway.encoder import SearchEncoder
from linkage.agency.gateway.forms import BadForm, FormDep
from linkage.agency.gateway.headers import LastResort, SecurityHeaders
from linkage.agency.gateway.pages import STATIC, Gateway, GatewayDep, environment
from linkage.agency.gateway.search import NotHere
from linkage.agency.gateway.sessions import (
    Forged,
    NotSignedIn,
    RoleNotPermitted,
    SessionDep,
    Sessions,
    check_form,
    check_origin,
    home_of,
    set_cookie,
)
from linkage.agency.gateway.settings import GatewaySettings
from linkage.agency.gateway.store import GatewayStore
from linkage.agency.gateway.words import ROLE_NAMES

log = logging.getLogger(__name__)


AGAIN: Final = "You were not signed in. Start again: it may have taken too long, or been begun in another window"
UNREACHABLE: Final = (
    "Your organisation’s sign-in can’t be reached just now. Try again, or ask whoever runs this service"
)
DENIED: Final = {
    "no-role": "Your account has no role in this service. Ask whoever runs it",
    "several-roles": "Your account has several roles in this service, and may act in one. Ask whoever runs it",
    "acr": "Sign in again with your second factor: this service asks for it",
    "tenant": "Your account is of another organisation than this service’s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One of the pages that the footer leads to."""

    title: str
    paragraphs: tuple[str, ...]


TOPICS: Final = {
    "help": Topic(
        title="Help",
        paragraphs=(
            "Search with what the referral says. The more details, the surer the match: an NHS number with a date of "
            "birth is best.",
            "Nothing to show does not mean that nothing is known. Ring the organisation if it matters.",
            "A possible match is not a fact. Check it with the agency first.",
        ),
    ),
    "privacy": Topic(
        title="Privacy notice",
        paragraphs=(
            "Names and numbers you type are turned into codes here, and never leave this organisation. They are kept "
            "encrypted for 60 minutes, for you alone.",
            "Each search, and each thing shown, is recorded: who asked, when, why, and under which agreement.",
        ),
    ),
    "accessibility": Topic(
        title="Accessibility",
        paragraphs=(
            "These pages are built to meet WCAG 2.2 AA. They work with a keyboard alone, without scripts and at 400% "
            "zoom.",
            "Tell us about anything that is hard to use.",
        ),
    ),
    "cookies": Topic(
        title="Cookies",
        paragraphs=(
            "One cookie keeps you signed in. It is gone when you sign out. There is no other, and nothing tracks you.",
        ),
    ),
}


def create_gateway(
    settings: GatewaySettings,
    *,
    store: GatewayStore,
    encoder: SearchEncoder,
    broker: BrokerClient,
    now: Callable[[], datetime],
) -> FastAPI:
    """The gateway's web application, ready to serve."""
    app = FastAPI(
        title=settings.service,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry={"tracing": False, "logs": False},
    )
    app.state.gateway = Gateway(
        settings=settings,
        store=store,
        sessions=Sessions(store, settings, now),
        encoder=encoder,
        broker=broker,
        pages=environment(),
        now=now,
    )
    app.state.provider = _provider(settings, store)
    app.get("/")(front)
    app.get("/sign-in/start")(leave)
    app.get(provider.RETURN)(come_back)
    app.post("/sign-in")(sign_in)
    app.post("/sign-out")(sign_out)
    app.get("/about/{topic}")(about)
    app.include_router(search.router)
    app.include_router(family.router)
    app.include_router(threshold.router)
    app.include_router(contacts.router)
    app.include_router(emergency.router)
    app.include_router(wrong.router)
    app.include_router(inbox.router)
    app.include_router(ours.router)
    app.mount("/static", StaticFiles(directory=STATIC))
    for error, handler in _HANDLERS:
        app.add_exception_handler(error, handler)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(settings.allowed_hosts))
    app.add_middleware(LastResort, answer=_fault)
    app.add_middleware(SecurityHeaders)
    return app


def front(request: Request, gateway: GatewayDep) -> Response:
    """Sign in; or on to the work, for whoever is signed in."""
    session = gateway.sessions.find(request)
    if session is not None and not session.lapsed:
        return RedirectResponse(home_of(session.person.role), 303)
    return _sign_in_page(request, gateway, ended=session is not None)


def sign_in(request: Request, form: FormDep, gateway: GatewayDep) -> Response:
    """Start a session for one of the demonstration's people; there is none but in a demonstration."""
    check_origin(request)
    try:
        token, role = gateway.sessions.start(form.text("person"))
    except KeyError:
        return _sign_in_page(request, gateway, fault="Choose who you are")
    response = RedirectResponse(home_of(role), 303)
    set_cookie(response, token)
    return response


async def leave(request: Request, gateway: GatewayDep) -> Response:
    """On to the organisation's OpenID provider."""
    try:
        address, kept = await _provider_of(request).leave(at=gateway.now())
    except provider.Unavailable as wrong:
        log.warning("the OpenID provider can't be used: %s", wrong)
        return _sign_in_page(request, gateway, fault=UNREACHABLE, status=503)
    response = RedirectResponse(address, 303)
    response.set_cookie(
        provider.COOKIE, kept, max_age=int(provider.LASTS.total_seconds()), path="/", secure=True, httponly=True,
        samesite="lax",
    )  # fmt: skip
    return response


async def come_back(request: Request, gateway: GatewayDep) -> Response:
    """Back from the OpenID provider, signed in if it vouches for somebody who has a role here."""
    try:
        person = await _provider_of(request).come_back(
            request.query_params, request.cookies.get(provider.COOKIE, ""), at=gateway.now()
        )
    except provider.Denied as denied:
        log.info("nobody was signed in: reason=%s", denied.reason)
        response = _sign_in_page(request, gateway, fault=DENIED.get(denied.reason, DENIED["no-role"]), status=403)
    except provider.NotVouched:
        response = _sign_in_page(request, gateway, fault=AGAIN, status=401)
    except provider.Unavailable as wrong:
        log.warning("the OpenID provider can't be used: %s", wrong)
        response = _sign_in_page(request, gateway, fault=UNREACHABLE, status=503)
    else:
        token = await run_in_threadpool(gateway.sessions.vouched, person.person, person.role)
        response = RedirectResponse(home_of(person.role), 303)
        set_cookie(response, token)
    response.delete_cookie(provider.COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    return response


def sign_out(request: Request, form: FormDep, session: SessionDep, gateway: GatewayDep) -> Response:
    """End the session."""
    check_form(request, session, form)
    response = RedirectResponse("/", 303)
    gateway.sessions.end(session, response)
    return response


def about(topic: str, request: Request, gateway: GatewayDep) -> Response:
    """Help, privacy, accessibility, cookies: open to anybody."""
    if topic not in TOPICS:
        raise NotHere
    session = gateway.sessions.find(request)
    return gateway.page(request, "about.html", session if session and not session.lapsed else None, topic=TOPICS[topic])


def _provider(settings: GatewaySettings, store: GatewayStore) -> provider.Provider | None:
    if settings.oidc is None:
        return None
    return provider.Provider(settings.oidc, address=settings.address, seal=store.sealed, opened=store.opened)


def _provider_of(request: Request) -> provider.Provider:
    """The organisation's provider.  Raises NotHere if there is none."""
    known: provider.Provider | None = request.app.state.provider
    if known is None:
        raise NotHere
    return known


def _sign_in_page(
    request: Request, gateway: Gateway, *, fault: str = "", ended: bool = False, status: int | None = None
) -> Response:
    people = [
        {"value": person.id, "text": person.name, "hint": {"text": ROLE_NAMES[person.role]}}
        for person in gateway.settings.people
    ]
    return gateway.page(
        request, "sign_in.html", None, status=status or (422 if fault else 200), people=people, fault=fault, ended=ended
    )


def _problem(request: Request, status: int, title: str, *paragraphs: str, warning: str = "") -> Response:
    """A page that says what went wrong and what to do now; the log gets its reference and nobody's data."""
    gateway: Gateway = request.app.state.gateway
    session = gateway.sessions.find(request)
    reference = secrets.token_hex(8)
    log.info("problem shown: status=%d title=%r reference=%s", status, title, reference)
    return gateway.page(
        request,
        "problem.html",
        session if session and not session.lapsed else None,
        status=status,
        title=title,
        paragraphs=paragraphs,
        warning=warning,
        reference=reference,
    )


def _to_sign_in(request: Request, error: Exception) -> Response:
    return RedirectResponse("/", 303)


def _not_permitted(request: Request, error: Exception) -> Response:
    return _problem(
        request, 403, "Your role cannot see this",
        "Analysts and decision-makers search. What the organisation holds is for its representative, data steward and "
        "safeguarding lead.",
    )  # fmt: skip


def _not_here(request: Request, error: Exception) -> Response:
    return _problem(
        request,
        404,
        "Page not found",
        "It may have ended: results are kept for 60 minutes. Search again to see what is current.",
    )


def _forged(request: Request, error: Exception) -> Response:
    return _problem(request, 403, "We could not take this form", "Nothing was changed. Open the page again and retry.")


def _bad_form(request: Request, error: Exception) -> Response:
    return _problem(request, 400, "We could not read this form", "Nothing was changed. Open the page again and retry.")


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, BrokerRefused)
    log.warning("the broker refused: status=%d code=%s", error.status, error.code)
    return _problem(request, 502, "We could not show this", "The service did not take the request. Nothing was shown.")


def _unavailable(request: Request, error: Exception) -> Response:
    gateway: Gateway = request.app.state.gateway
    desk = gateway.settings.desk
    return _problem(
        request,
        503,
        "Sorry, there is a problem with the service",
        warning=f"Nothing was shown. If a child is in immediate danger ring 999, then {desk.name}.",
    )


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _not_here(request, error)
    return _problem(request, error.status_code, "We could not answer this", "Nothing was changed.")


def _fault(request: Request, error: Exception) -> Response:
    # The type alone: a message may quote what was typed.
    log.error("unhandled %s", type(error).__name__)
    return _unavailable(request, error)


_HANDLERS: Final = (
    (NotSignedIn, _to_sign_in),
    (RoleNotPermitted, _not_permitted),
    (NotHere, _not_here),
    (Forged, _forged),
    (BadForm, _bad_form),
    (BrokerRefused, _refused),
    (BrokerUnavailable, _unavailable),
    (HTTPException, _http),
)
