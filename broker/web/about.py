"""The pages that the footer leads to: help, privacy, accessibility, cookies.  Open to anybody."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from broker import signin
from broker.dependencies import BrokerDep
from broker.signin import provider
from broker.web.pages import PageRoute, ReaderDep, page

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/help")
def help_(request: Request, reader: ReaderDep) -> Response:
    """What each role does here, what the words mean, and what to do when something is wrong."""
    return page(request, "help.html", reader)


@router.get("/privacy")
def privacy(request: Request, reader: ReaderDep, broker: BrokerDep) -> Response:
    """What the broker holds of children and of its own users, for how long, and what rights they have."""
    return page(request, "privacy.html", reader, kept=broker.settings.log_retention)


@router.get("/accessibility")
def accessibility(request: Request, reader: ReaderDep) -> Response:
    """What was tried, and what is known not to work."""
    return page(request, "accessibility.html", reader)


@router.get("/cookies")
def cookies(request: Request, reader: ReaderDep, broker: BrokerDep) -> Response:
    """The cookies there are, by name, and how long each stays."""
    minutes = int(provider.LASTS.total_seconds() // 60)
    said = [
        (signin.COOKIE, "Keeps you signed in", f"until you sign out, or {broker.settings.session_hours} hours"),
        (provider.COOKIE, "Finds you again when you come back from your organisation’s sign-in", f"{minutes} minutes"),
    ]
    return page(request, "cookies.html", reader, cookies=said)
