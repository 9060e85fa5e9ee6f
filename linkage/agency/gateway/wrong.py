"""G10: somebody says that a view shows the wrong person.  It takes no proof; a link reviewer looks at it."""

from __future__ import annotations

from datetime import datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from linkage.agency.gateway.answers import FamilyView
from linkage.agency.gateway.broker_client import BrokerRefused
from linkage.agency.gateway.family import view_box
from linkage.agency.gateway.forms import FormDep
from linkage.agency.gateway.pages import Gateway, GatewayDep
from linkage.agency.gateway.search import NotHere, actor, contact_of
from linkage.agency.gateway.sessions import SearcherDep, Session, check_form
from linkage.agency.gateway.store import Box
from linkage.agency.gateway.words import WRONG, WRONG_HOW

router = APIRouter()

REPORT_LASTS = timedelta(hours=24)


@router.get("/views/{view}/wrong-person")
def ask(view: str, request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """What is wrong, and how the person knows."""
    return _form(request, gateway, session, view_box(gateway, session, view))


@router.post("/views/{view}/wrong-person")
def report(view: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Tell the broker, and close the view: it is not to be used any more."""
    check_form(request, session, form)
    box = view_box(gateway, session, view)
    shown = FamilyView.model_validate(box.content["view"])
    said = {name: form.text(name) for name in ("what", "how", "organisation")}
    faults = {}
    if said["what"] not in WRONG:
        faults["what"] = "Choose what is wrong"
    elif said["what"] == "organisation_record" and said["organisation"] not in _organisations(shown):
        faults["organisation"] = "Choose whose record is of another person"
    if said["how"] not in WRONG_HOW:
        faults["how"] = "Choose how you know"
    if faults:
        return _form(request, gateway, session, box, said=said, faults=faults)
    body = {"view": shown.view, "what": said["what"], "how": said["how"]}
    if said["what"] == "organisation_record":
        body["organisation"] = said["organisation"]
    try:
        answer = gateway.broker.wrong_person(body, actor(session))
    except BrokerRefused as refused:
        if refused.status != 429:
            raise
        return _form(request, gateway, session, box, said=said, faults={"what": refused.detail})
    kept = {"said": answer["sentence"], "at": answer["at"], "contact": box.content.get("contact", "")}
    done = gateway.store.put("report", session.person.id, kept, now=gateway.now(), lasts=REPORT_LASTS)
    gateway.store.drop("view", session.person.id, box.id)
    return RedirectResponse(f"/wrong-person/{done}", 303)


@router.get("/wrong-person/{report}")
def reported(report: str, request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """What was recorded, and what happens now."""
    box = gateway.store.get("report", session.person.id, report, now=gateway.now())
    if box is None:
        raise NotHere
    return gateway.page(
        request,
        "reported.html",
        session,
        said=box.content["said"],
        at=datetime.fromisoformat(box.content["at"]),
        contact=contact_of(gateway, box.content["contact"]),
    )


def _organisations(shown: FamilyView) -> list[str]:
    """Whose records the view is made of."""
    return sorted({tile.organisation for tile in shown.tiles})


def _form(
    request: Request,
    gateway: Gateway,
    session: Session,
    box: Box,
    *,
    said: dict[str, str] | None = None,
    faults: dict[str, str] | None = None,
) -> Response:
    shown = FamilyView.model_validate(box.content["view"])
    names = gateway.names((*shown.tiles, *shown.others))
    return gateway.page(
        request,
        "wrong_person.html",
        session,
        status=422 if faults else 200,
        box=box,
        said=said or {},
        faults=faults or {},
        organisations=[{"value": one, "text": names(one)} for one in _organisations(shown)],
    )
