"""A contact's clock: how urgent it is and when it came, as a person says; kept at this gateway alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from linkage.agency.gateway import clocks
from linkage.agency.gateway.forms import Form, FormDep
from linkage.agency.gateway.pages import Gateway, GatewayDep
from linkage.agency.gateway.search import CONTACT_LASTS, ORGANISATION, open_contact
from linkage.agency.gateway.sessions import SearcherDep, Session, check_form
from linkage.agency.gateway.store import Box
from linkage.agency.gateway.words import LONDON, PURPOSES

router = APIRouter()

OLDEST: Final = timedelta(days=30)
PARTS: Final = ("day", "month", "year", "time")


@router.get("/contacts/{contact}/clock")
def show(contact: str, request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """How urgent the contact is, and when it reached the organisation."""
    return _page(request, gateway, session, open_contact(gateway, contact))


@router.post("/contacts/{contact}/clock")
def decide(contact: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Set the clock; it may be set anew, and starts when the contact came."""
    check_form(request, session, form)
    box, now = open_contact(gateway, contact), gateway.now()
    urgency, received = form.text("urgency"), _instant(form)
    faults = {}
    if urgency not in clocks.URGENCIES:
        faults["urgency"] = "Choose how urgent the contact is"
    if received is None:
        faults["received-day"] = "Enter a real date, and a time such as 09:30"
    elif not now - OLDEST <= received <= now:
        faults["received-day"] = "The contact came at a time in the past, and within 30 days"
    if faults or received is None:
        typed = {name: form.text(f"received-{name}") for name in PARTS}
        return _page(request, gateway, session, box, urgency=urgency, typed=typed, faults=faults)
    content = box.content | {"urgency": urgency, "received_at": received.isoformat()}
    until = clocks.due(urgency, received, gateway.settings.clocks) + CONTACT_LASTS
    gateway.store.replace("contact", ORGANISATION, box.id, content, now=now, until=max(box.expires_at, until))
    return RedirectResponse("/work", 303)


def _instant(form: Form) -> datetime | None:
    day, month, year, at = (form.text(f"received-{name}") for name in PARTS)
    try:
        return datetime.strptime(f"{year}-{month}-{day} {at.replace('.', ':')}", "%Y-%m-%d %H:%M").replace(
            tzinfo=LONDON
        )
    except ValueError:
        return None


def _page(
    request: Request,
    gateway: Gateway,
    session: Session,
    contact: Box,
    *,
    urgency: str = "",
    typed: dict[str, str] | None = None,
    faults: dict[str, str] | None = None,
) -> Response:
    received = contact.content.get("received_at")
    at = (datetime.fromisoformat(received) if received else contact.made_at).astimezone(LONDON)
    known = {"day": str(at.day), "month": str(at.month), "year": str(at.year), "time": f"{at:%H:%M}"}
    settings = gateway.settings.clocks
    return gateway.page(
        request,
        "clock.html",
        session,
        status=422 if faults else 200,
        contact=contact,
        purpose=PURPOSES[contact.content["purpose"]].label,
        urgency=urgency or contact.content.get("urgency", ""),
        typed=typed or known,
        faults=faults or {},
        hours=settings.red_hours,
        amber_days=settings.amber_days,
        green_days=settings.green_days,
    )
