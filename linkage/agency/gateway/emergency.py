"""G8: emergency access to one child's information: the numbers to ring first, then a reason, then an hour at most."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from linkage.agency.gateway.answers import FamilyView
from linkage.agency.gateway.broker_client import BrokerRefused
from linkage.agency.gateway.family import view_box
from linkage.agency.gateway.forms import FormDep
from linkage.agency.gateway.pages import Gateway, GatewayDep
from linkage.agency.gateway.search import NotHere, actor
from linkage.agency.gateway.sessions import SearcherDep, Session, check_form
from linkage.agency.gateway.store import Box
from linkage.agency.gateway.typed import Typed, strike
from linkage.agency.gateway.words import EMERGENCIES

router = APIRouter()

LONGEST: Final = 500  # characters, as the broker takes them


@router.get("/views/{view}/emergency")
def ask(view: str, request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Whom to ring, what it opens and never opens, who is told, and why it can't wait."""
    return _page(request, gateway, session, view_box(gateway, session, view))


@router.post("/views/{view}/emergency")
def open_now(view: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Break the glass for this child.  What was typed of anybody is struck from the words before they leave."""
    check_form(request, session, form)
    box = view_box(gateway, session, view)
    reason, written = form.text("reason"), form.text("words")
    faults = {}
    if reason not in EMERGENCIES:
        faults["reason"] = "Choose why you cannot wait"
    if not written:
        faults["words"] = "Say in your own words why you cannot wait"
    elif len(written) > LONGEST:
        faults["words"] = f"Say it in {LONGEST} characters or fewer"
    if faults:
        return _page(request, gateway, session, box, said={"reason": reason, "words": written}, faults=faults)
    words = strike(written, Typed.from_json(box.content["typed"]).people())
    in_force = gateway.broker.in_force()  # before: what changes meanwhile is then noticed
    try:
        shown, raw = gateway.broker.break_glass(
            box.content["search"], box.content["candidate"], reason, words, actor(session)
        )
    except BrokerRefused as refused:
        if refused.status not in (400, 403, 422, 429):
            raise
        fault = refused.detail if refused.status in (403, 429) else "Use letters, figures and full stops alone"
        faults = {"words": fault}
        return _page(request, gateway, session, box, said={"reason": reason, "words": written}, faults=faults)
    now = gateway.now()
    kept = box.content | {"view": raw, "words": words, "in_force": in_force}
    lasts = min(shown.ends_at - now, timedelta(minutes=gateway.settings.typed_minutes))
    opened = gateway.store.put("view", session.person.id, kept, now=now, lasts=lasts)
    return RedirectResponse(f"/views/{opened}", 303)


@router.post("/views/{view}/emergency/end")
def end(view: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Say that it is over, and close the view."""
    check_form(request, session, form)
    box = view_box(gateway, session, view)
    emergency = box.content["view"].get("emergency")
    if not emergency:
        raise NotHere
    gateway.broker.end_emergency(emergency, actor(session))
    gateway.store.drop("view", session.person.id, box.id)
    return RedirectResponse("/work", 303)


def _page(
    request: Request,
    gateway: Gateway,
    session: Session,
    box: Box,
    *,
    said: dict[str, str] | None = None,
    faults: dict[str, str] | None = None,
) -> Response:
    shown = FamilyView.model_validate(box.content["view"])
    feeds = (*shown.tiles, *shown.others)
    desks = {feed.contact.phone: (feed, feed.contact) for feed in feeds if feed.contact is not None}
    return gateway.page(
        request,
        "emergency.html",
        session,
        status=422 if faults else 200,
        box=box,
        organisation=gateway.names(feeds),
        desks=list(desks.values()),
        said=said or {},
        faults=faults or {},
        longest=LONGEST,
    )
