"""The log, for information governance: say why, search, open an event, prove it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from agreements import VOCABULARY
from audit.events import EVENT_TYPES, Op
from audit.receipts import LogReceipt
from audit.taxonomy import KINDS
from broker import anomalies, reports, witnesses
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep
from broker.reports import REASONS, EventPage, LogFilter
from broker.reports.search import REFERENCE
from broker.settings import GOVERNANCE
from broker.web.pages import (
    LONDON,
    OfficerFormDep,
    PageRoute,
    attachment,
    day_typed,
    happened,
    only,
    page,
    signed_words,
)
from broker.wiring import Broker

router = APIRouter(prefix="/log", route_class=PageRoute, include_in_schema=False, dependencies=[only(*GOVERNANCE)])
Cursor = Annotated[str, Query(pattern=r"^([A-Za-z0-9_-]{8,64})?$")]
EventId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{8,64}$")]


@router.get("")
def form(request: Request, caller: OfficerDep, broker: BrokerDep) -> Response:
    """Why, then what: no event is shown before the search itself is in the log."""
    return _form(request, caller, broker)


@router.post("")
def search(request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Record the search, then go to what fits."""
    if form.get("reason") not in REASONS:
        faults = {"reason": "Choose why you are searching the log"} | _wanted(form)[1]
        return _form(request, caller, broker, faults=faults, typed=form)
    wanted, faults = _wanted(form)
    if wanted is None:
        return _form(request, caller, broker, faults=faults, typed=form)
    ticket = reports.search_log(broker.store, broker.trail, caller, reason=form["reason"], wanted=wanted, at=now)
    return RedirectResponse(f"/log/searches/{ticket}", 303)


@router.get("/searches/{search}")
def results(
    search: EventId, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep, after: Cursor = ""
) -> Response:
    """The newest events that fit, a page at a time."""
    found = reports.found(broker.store, broker.trail, caller, search=search, after=after, at=now)
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
        clauses=signed_words(broker, shown.sections),
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
        clauses=signed_words(broker, shown.sections),
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
        flags=anomalies.SEEN_BY_HAND, clauses=signed_words(broker, shown.sections),
    )  # fmt: skip


def _witnessed(broker: BrokerDep, receipt: LogReceipt) -> LogReceipt:
    with broker.store.reading() as reading:
        return witnesses.with_witnesses(reading, receipt)


def _form(
    request: Request,
    caller: OfficerDep,
    broker: BrokerDep,
    *,
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    written = [code for code in EVENT_TYPES if not KINDS[code].reserved]
    return page(
        request,
        "log_search.html",
        caller,
        status=422 if faults else 200,
        fault=bool(faults),
        faults=faults or {},
        typed=typed or {},
        types=_options({code: happened(code) for code in sorted(written, key=happened)}),
        reasons=[{"value": code, "text": label} for code, label in REASONS.items()],
        organisations=_options(reports.organisations(broker.store)),
        ops=_options({op.value: op.value.capitalize() for op in Op}),
        purposes=_options({code: one.label for code, one in VOCABULARY.purposes.items() if not one.group}),
    )


def _wanted(form: Mapping[str, str]) -> tuple[LogFilter | None, dict[str, str]]:
    """Which events are asked for, or what is wrong with the form, field by field."""
    faults: dict[str, str] = {}
    days: dict[str, date | None] = {}
    for name in ("first", "last"):
        typed = any(form.get(f"{name}-{part}") for part in ("day", "month", "year"))
        days[name] = day_typed(form, name)
        if typed and days[name] is None:
            faults[f"{name}-day"] = "Enter a real date, or none"
    first, last = days["first"], days["last"]
    if first and last and last < first:
        faults["last-day"] = "The last day must not be before the first"
    references = {name: form.get(name, "") for name in ("person", "case", "subject")}
    for name, text in references.items():
        if text and not REFERENCE.fullmatch(text):
            faults[name] = "A reference has letters, digits and . _ @ / - and no spaces"
    if faults:
        return None, faults
    wanted = LogFilter(
        since=datetime.combine(first, time(), LONDON) if first else None,
        until=datetime.combine(last + timedelta(days=1), time(), LONDON) if last else None,
        organisation=form.get("organisation", ""), op=form.get("op", ""), type=form.get("type", ""),
        purpose=form.get("purpose", ""), break_glass=True if form.get("break_glass") else None,
        flagged=True if form.get("flagged") else None, person=references["person"], case=references["case"],
        subject=references["subject"],
    )  # fmt: skip
    return wanted, {}


def _options(labels: dict[str, str]) -> list[dict[str, str]]:
    return [{"value": "", "text": "Any"}, *({"value": code, "text": label} for code, label in labels.items())]
