"""G12: what comes to a holder.  Consider sharing: somebody asked about a record of ours, and was not shown it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from linkage.agency.crosswalk import opened
from linkage.agency.gateway.broker_client import BrokerRefused
from linkage.agency.gateway.forms import FormDep
from linkage.agency.gateway.pages import Gateway, GatewayDep
from linkage.agency.gateway.search import NotHere, actor
from linkage.agency.gateway.sessions import HolderDep, Session, check_form
from linkage.agency.gateway.words import DECLINED

router = APIRouter()

STATES: Final = {"open": "Waiting", "disclosed": "Shared", "declined": "Not shared"}
DECIDED: Final = {
    "disclosed": "Recorded: your organisation has shared this.",
    "declined": "Recorded: your organisation does not share this, and why.",
    "before": "Somebody had decided this before you. Nothing was changed.",
}


@router.get("/inbox")
def listed(
    request: Request, session: HolderDep, gateway: GatewayDep, state: str = "open", after: str = "", done: str = ""
) -> Response:
    """What waits for this organisation, oldest first; or what it has decided."""
    if state not in STATES:
        raise NotHere
    page = _page(gateway, session, state, after or None)
    return gateway.page(
        request,
        "inbox.html",
        session,
        items=_with_own_numbers(gateway, page["considerations"]),
        next=page["next"],
        state=state,
        states=STATES,
        done=DECIDED.get(done, ""),
    )


@router.get("/inbox/{item}")
def show(item: str, request: Request, session: HolderDep, gateway: GatewayDep) -> Response:
    """One item: who asked, why, which record of ours it is about, and what little was missing."""
    return _item_page(request, gateway, session, item)


@router.post("/inbox/{item}")
def decide(item: str, request: Request, form: FormDep, session: HolderDep, gateway: GatewayDep) -> Response:
    """Say that it was shared, or why not; once and for good."""
    check_form(request, session, form)
    decision, reason = form.text("decision"), form.text("reason")
    faults = {}
    if decision not in ("disclosed", "declined"):
        faults["decision"] = "Choose whether you have shared it"
    elif decision == "declined" and reason not in DECLINED:
        faults["reason"] = "Choose why you do not share it"
    if faults:
        return _item_page(request, gateway, session, item, said={"decision": decision}, faults=faults)
    try:
        gateway.broker.consider(item, decision, reason if decision == "declined" else None, actor(session))
    except BrokerRefused as refused:
        if refused.status in (404, 422):
            raise NotHere from None
        if refused.status != 409:
            raise
        return RedirectResponse("/inbox?done=before", 303)
    return RedirectResponse(f"/inbox?done={decision}", 303)


def _page(gateway: Gateway, session: Session, state: str, after: str | None) -> dict[str, Any]:
    """A page of the broker's list.  Raises NotHere for a cursor that is none."""
    try:
        return gateway.broker.considerations(actor(session), state=state, cursor=after)
    except BrokerRefused as refused:
        if refused.status in (404, 422):
            raise NotHere from None
        raise


def _all(gateway: Gateway, session: Session) -> Iterator[dict[str, Any]]:
    for state in STATES:
        after: str | None = None
        while True:
            page = _page(gateway, session, state, after)
            yield from page["considerations"]
            after = page["next"]
            if after is None:
                break


def _item_page(
    request: Request,
    gateway: Gateway,
    session: Session,
    item: str,
    *,
    said: dict[str, str] | None = None,
    faults: dict[str, str] | None = None,
) -> Response:
    found = next((one for one in _all(gateway, session) if one["consideration"] == item), None)
    if found is None:
        raise NotHere
    return gateway.page(
        request,
        "consideration.html",
        session,
        status=422 if faults else 200,
        item=next(iter(_with_own_numbers(gateway, [found]))),
        states=STATES,
        said=said or {},
        faults=faults or {},
    )


def _with_own_numbers(gateway: Gateway, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items with this organisation's own case number of each record, which is on this machine alone."""
    with opened(gateway.encoder.home.crosswalk_path) as crosswalk:
        numbers = {one["record_ref"]: crosswalk.local_id(one["record_ref"]) for one in items}
    return [
        one
        | {
            "local_id": number[1] if (number := numbers[one["record_ref"]]) else "",
            **{
                name: one[name] and datetime.fromisoformat(one[name])
                for name in ("asked_at", "raised_at", "decided_at")
            },
        }
        for one in items
    ]
