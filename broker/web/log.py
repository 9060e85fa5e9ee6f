"""The log, for information governance: say why, search, open an event, prove it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from agreements import VOCABULARY
from audit.events import Op
from audit.receipts import LogReceipt
from broker import anomalies, reports, witnesses
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep
from broker.reports import REASONS, EventPage, LogFilter
from broker.web.pages import OfficerFormDep, PageRoute, attachment, only, page
from broker.wiring import Broker

router = APIRouter(prefix="/log", route_class=PageRoute, include_in_schema=False, dependencies=[only("IG_OFFICER")])
EventId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{8,64}$")]


@router.get("")
def form(request: Request, caller: OfficerDep, broker: BrokerDep) -> Response:
    """Why, then what: no event is shown before the search itself is in the log."""
    return _form(request, caller, broker)


@router.post("")
def search(request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Record the search, then go to what fits."""
    if form.get("reason") not in REASONS:
        return _form(request, caller, broker, fault="Choose why you are searching the log", typed=form)
    wanted = LogFilter(
        organisation=form.get("organisation", ""), op=form.get("op", ""), person=form.get("person", ""),
        purpose=form.get("purpose", ""),
    )  # fmt: skip
    ticket = reports.search_log(broker.store, broker.trail, caller, reason=form["reason"], wanted=wanted, at=now)
    return RedirectResponse(f"/log/searches/{ticket}", 303)


@router.get("/searches/{search}")
def results(search: EventId, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """The newest events that fit."""
    found = reports.found(broker.store, broker.trail, caller, search=search, at=now)
    return page(
        request,
        "log_results.html",
        caller,
        found=found,
        reasons=REASONS,
        names=reports.organisations(broker.store),
        limit=reports.LISTED,
    )


@router.get("/{event}")
def event(event: EventId, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """One event: what happened, who, why, about whom, to whom; and how to prove it without us."""
    shown = reports.event_page(broker.store, broker.trail, caller, event_id=event, at=now)
    return page(
        request,
        "log_event.html",
        caller,
        shown=shown,
        names=reports.organisations(broker.store),
        flags=anomalies.SEEN_BY_HAND,
    )


@router.post("/{event}/detail")
def detail(
    event: EventId, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """The same with its detail, where what was hidden and why is kept: recorded as that."""
    shown = reports.event_page(broker.store, broker.trail, caller, event_id=event, open_detail=True, at=now)
    return page(
        request,
        "log_event.html",
        caller,
        shown=shown,
        names=reports.organisations(broker.store),
        flags=anomalies.SEEN_BY_HAND,
    )


@router.post("/{event}/flag")
def flag(event: EventId, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Flag an event by hand: it waits for a reviewer."""
    anomalies.flag(broker.store, broker.trail, caller, event_id=event, why=form.get("why", ""), at=now)
    return RedirectResponse("/reviews?kind=flag", 303)


@router.get("/{event}/proof")
def proof(event: EventId, caller: OfficerDep, broker: BrokerDep) -> Response:
    """The event's tlog-proof, as a file: under a witnessed checkpoint, once one covers it."""
    receipt = _witnessed(broker, reports.proof_of(broker.trail, caller, event))
    return PlainTextResponse(receipt.proof.text, headers=attachment(f"{event}.tlog-proof"))


@router.get("/{event}/opening")
def opening(event: EventId, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """The event as opened here, `detail` withheld, with its proof: what `auditor inclusion --event` reads."""
    receipt = _witnessed(broker, reports.opening_of(broker.store, broker.trail, caller, event, at=now))
    return JSONResponse(receipt.to_json(), headers=attachment(f"opening-{event}.json"))


def _event(request: Request, caller: Caller, broker: Broker, shown: EventPage) -> Response:
    return page(
        request, "log_event.html", caller, shown=shown, names=reports.organisations(broker.store),
        flags=anomalies.SEEN_BY_HAND,
    )  # fmt: skip


def _witnessed(broker: BrokerDep, receipt: LogReceipt) -> LogReceipt:
    with broker.store.reading() as reading:
        return witnesses.with_witnesses(reading, receipt)


def _form(
    request: Request,
    caller: OfficerDep,
    broker: BrokerDep,
    *,
    fault: str = "",
    typed: dict[str, str] | None = None,
) -> Response:
    return page(
        request,
        "log_search.html",
        caller,
        status=422 if fault else 200,
        fault=fault,
        typed=typed or {},
        reasons=[{"value": code, "text": label} for code, label in REASONS.items()],
        organisations=_options(reports.organisations(broker.store)),
        ops=_options({op.value: op.value.capitalize() for op in Op}),
        purposes=_options({code: one.label for code, one in VOCABULARY.purposes.items() if not one.group}),
    )


def _options(labels: dict[str, str]) -> list[dict[str, str]]:
    return [{"value": "", "text": "Any"}, *({"value": code, "text": label} for code, label in labels.items())]
