"""G13: what became of this organisation's own data: who was shown it, and how its feeds stand."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from linkage.agency import ledger
from linkage.agency.crosswalk import opened
from linkage.agency.gateway.broker_client import BrokerRefused
from linkage.agency.gateway.forms import FormDep
from linkage.agency.gateway.pages import Gateway, GatewayDep
from linkage.agency.gateway.search import NotHere, actor
from linkage.agency.gateway.sessions import HolderDep, Session, check_form

router = APIRouter()

RECORD_LASTS: Final = timedelta(minutes=15)


@router.get("/our-data")
def seen(request: Request, session: HolderDep, gateway: GatewayDep, which: str = "all", after: str = "") -> Response:
    """Who was shown what of our records, oldest first, and how our feeds stand."""
    page = _page(gateway, session, which, after or None)
    return gateway.page(
        request,
        "our_data.html",
        session,
        accesses=_with_own_numbers(gateway, page["accesses"]),
        next=page["next"],
        which=which,
        feeds=_feeds(gateway),
        fault="",
    )


@router.get("/our-data/accesses.csv")
def download(session: HolderDep, gateway: GatewayDep, which: str = "all") -> Response:
    """The same as a file, each record with our own number: it is personal data from then on."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        page = _page(gateway, session, which, after)
        found += page["accesses"]
        after = page["next"]
        if after is None:
            break
    out = io.StringIO()
    with opened(gateway.encoder.home.crosswalk_path) as crosswalk:
        ledger.write_csv([ledger.resolved(one, crosswalk.local_id) for one in found], out)
    return Response(
        out.getvalue(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="who-has-seen-our-information.csv"'},
    )


@router.post("/our-data/records")
def find(request: Request, form: FormDep, session: HolderDep, gateway: GatewayDep) -> Response:
    """Who was shown one record of ours last, by our own number of it: which is in no address."""
    check_form(request, session, form)
    local_id = form.text("local_id")
    with opened(gateway.encoder.home.crosswalk_path) as crosswalk:
        records = crosswalk.records(local_id) if local_id else []
    if not records:
        page = _page(gateway, session, "all", None)
        return gateway.page(
            request,
            "our_data.html",
            session,
            status=422,
            accesses=_with_own_numbers(gateway, page["accesses"]),
            next=page["next"],
            which="all",
            feeds=_feeds(gateway),
            fault="No record of ours has this case number" if local_id else "Enter a case number",
        )
    refs = sorted({one["record_ref"] for one in records})
    content = {"local_id": local_id, "refs": refs}
    kept = gateway.store.put("record", session.person.id, content, now=gateway.now(), lasts=RECORD_LASTS)
    return RedirectResponse(f"/our-data/records/{kept}", 303)


@router.get("/our-data/records/{record}")
def seen_of_one(record: str, request: Request, session: HolderDep, gateway: GatewayDep) -> Response:
    """The latest accesses of one record, newest first."""
    box = gateway.store.get("record", session.person.id, record, now=gateway.now())
    if box is None:
        raise NotHere
    answers = [gateway.broker.accesses(ref, actor(session)) for ref in box.content["refs"]]
    found = {one["notice"]: one for answer in answers for one in answer["accesses"]}
    newest = sorted(found.values(), key=lambda one: (one["at"], one["notice"]), reverse=True)
    return gateway.page(
        request,
        "our_record.html",
        session,
        local_id=box.content["local_id"],
        accesses=_with_own_numbers(gateway, newest),
        more=any(answer["more"] for answer in answers),
    )


def _page(gateway: Gateway, session: Session, which: str, after: str | None) -> dict[str, Any]:
    """A page of the broker's ledger.  Raises NotHere for a choice or a cursor that is none."""
    if which not in ("all", "new"):
        raise NotHere
    try:
        return gateway.broker.ledger(actor(session), which=which, cursor=after)
    except BrokerRefused as refused:
        if refused.status in (404, 422):
            raise NotHere from None
        raise


def _with_own_numbers(gateway: Gateway, accesses: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    with opened(gateway.encoder.home.crosswalk_path) as crosswalk:
        return [
            ledger.resolved(one, crosswalk.local_id)
            | {name: one[name] and datetime.fromisoformat(one[name]) for name in ("at", "recalled_at")}
            for one in accesses
        ]


def _feeds(gateway: Gateway) -> list[dict[str, Any]]:
    """How each flow of ours stands with the broker, and what was held of its last batch."""
    home = gateway.encoder.home
    with opened(home.crosswalk_path) as crosswalk:
        held = crosswalk.counts()
    found = []
    for flow in sorted({*home.flows(), *held}):
        try:
            standing = gateway.broker.standing(flow)
        except BrokerRefused as refused:
            if refused.status != 404:
                raise
            continue
        times = {name: standing[name] and datetime.fromisoformat(standing[name]) for name in ("as_of", "heard_at")}
        found.append({**standing, **times, "held": held.get(flow, 0)})
    return found
