"""The threshold decision: a decision-maker's alone, recorded by the broker, and never back-dated."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from linkage.agency.gateway.forms import FormDep
from linkage.agency.gateway.pages import Gateway, GatewayDep
from linkage.agency.gateway.search import ORGANISATION, actor, open_contact
from linkage.agency.gateway.sessions import RoleNotPermitted, SearcherDep, Session, check_form
from linkage.agency.gateway.store import Box
from linkage.agency.gateway.typed import Typed, TypedPerson, strike
from linkage.agency.gateway.words import GROUNDS, PURPOSES, ROLE_NAMES

router = APIRouter()

LEVEL = "L4"


@router.get("/contacts/{contact}/threshold")
def show(contact: str, request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """The two choices, for a decision-maker; for anybody else, who can decide."""
    return _page(request, gateway, session, open_contact(gateway, contact))


@router.post("/contacts/{contact}/threshold")
def decide(contact: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Record level 4, leave it as it is, or (an analyst) ask for a decision."""
    check_form(request, session, form)
    box = open_contact(gateway, contact)
    action, content = form.text("action"), dict(box.content)
    if action in ("ask", "leave"):
        content["asked"] = action == "ask"
    elif not session.decides:
        raise RoleNotPermitted
    elif form.text("grounds") not in GROUNDS:
        return _page(request, gateway, session, box, fault="Choose the ground for this decision")
    elif session.person.id not in content["opened"]:
        return _page(
            request, gateway, session, box, fault="Search for the child in this contact and open the match first"
        )
    else:
        refusal = _record(gateway, session, content, form.text("grounds"))
        if refusal:
            return _page(request, gateway, session, box, fault=refusal)
        content |= {
            "asked": False,
            "threshold": {
                "level": LEVEL,
                "grounds": form.text("grounds"),
                "role": session.person.role,
                "at": gateway.now().isoformat(),
                "note": strike(form.text("note"), _typed_in(gateway, session, box.id)),  # kept here alone
            },
        }
    gateway.store.replace("contact", ORGANISATION, box.id, content, now=gateway.now())
    return RedirectResponse(f"/contacts/{box.id}/threshold", 303)


def _record(gateway: Gateway, session: Session, contact: dict[str, Any], grounds: str) -> str:
    """Have the broker record level 4; empty if it did, else the sentence that says why not."""
    body = {"case": contact["case"], **contact["opened"][session.person.id], "level": LEVEL, "grounds": grounds}
    answer = gateway.broker.set_threshold(body, actor(session))
    refusal = answer.get("refusal")
    return str(refusal.get("sentence", "")) if isinstance(refusal, dict) else ""


def _page(request: Request, gateway: Gateway, session: Session, contact: Box, *, fault: str = "") -> Response:
    return gateway.page(
        request,
        "threshold.html",
        session,
        status=422 if fault else 200,
        contact=contact,
        purpose=PURPOSES[contact.content["purpose"]].label,
        grounds=GROUNDS,
        deciders=[person.name for person in gateway.settings.people if person.role == "MASH_DECISION_MAKER"],
        roles=ROLE_NAMES,
        fault=fault,
    )


def _typed_in(gateway: Gateway, session: Session, contact: str) -> list[TypedPerson]:
    """Everyone this person has typed into a search of this contact in the last hour."""
    searches = gateway.store.latest("search", session.person.id, now=gateway.now())
    return [
        person
        for search in searches
        if search.content["contact"] == contact
        for person in Typed.from_json(search.content["typed"]).people()
    ]
