"""The log, for information governance: say why, search, open an event, prove it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from agreements import VOCABULARY
from audit.events import EVENT_TYPES, Op
from audit.receipts import LogReceipt
from audit.taxonomy import KINDS
from broker import anomalies, reports, witnesses
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep
from broker.errors import Malformed
from broker.reports import REASONS, EventPage, LogFilter, LoggedEvent
from broker.reports.search import REFERENCE
from broker.settings import GOVERNANCE
from broker.signin import INSPECTOR
from broker.web.pages import (
    LONDON,
    OfficerFormDep,
    PageRoute,
    attachment,
    day_typed,
    happened,
    in_order,
    only,
    page,
    sentence,
    signed_words,
)
from broker.wiring import Broker

router = APIRouter(
    prefix="/log", route_class=PageRoute, include_in_schema=False, dependencies=[only(*GOVERNANCE, INSPECTOR)]
)
OFFICERS: Final = [only(*GOVERNANCE)]
"""The door of what an inspector may not: to open a detail, and to flag."""
Cursor = Annotated[str, Query(pattern=r"^([A-Za-z0-9_-]{8,64})?$")]
COLUMNS: Final = {
    "time": "Time", "what": "What happened", "organisation": "Organisation", "role": "Role", "purpose": "Purpose",
    "outcome": "Outcome",
}  # fmt: skip
"""Of a list of events, by the code of its order."""
Sort = Annotated[str, Query(pattern=rf"^(-?({'|'.join(COLUMNS)}))?$")]
FORMATS: Final = {"csv": "CSV, for a spreadsheet", "json": "JSON"}
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
    search: EventId,
    request: Request,
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    after: Cursor = "",
    sort: Sort = "",
) -> Response:
    """The newest events that fit, a page at a time; within it in the order that is asked for."""
    return _results(request, caller, broker, now, search=search, after=after, sort=sort)


@router.post("/searches/{search}/exports")
def export(
    search: EventId, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """Record what fits as a file, with its rows and SHA-256; then go to where it can be fetched."""
    faults = {}
    if form.get("reason") not in REASONS:
        faults["reason"] = "Choose why you take this from the log"
    if form.get("format") not in FORMATS:
        faults["format"] = "Choose in which form"
    if not faults:
        try:
            made = reports.export_found(
                broker.store, broker.trail, caller, search=search, fmt=form["format"], reason=form["reason"], at=now
            )
        except Malformed as wrong:
            faults["format"] = sentence(str(wrong))
        else:
            return RedirectResponse(f"/log/exports/{made.event_id}", 303)
    return _results(request, caller, broker, now, search=search, faults=faults, typed=form)


@router.get("/exports/{event}")
def exported(event: EventId, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """A file that was recorded: how many rows it has, its SHA-256, and where to fetch it."""
    made, search = reports.exported_found(broker.store, broker.trail, caller, event=event, at=now)
    return page(request, "log_export.html", caller, made=made, search=search, formats=FORMATS)


@router.get("/exports/{event}/file")
def file(event: EventId, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """The file itself."""
    made, content = reports.found_file(broker.store, broker.trail, caller, event=event, at=now)
    return Response(content, media_type=made.media_type, headers=attachment(made.filename))


@router.get("/{event}")
def event(event: EventId, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """One event: what happened, who, why, about whom, to whom; and how to prove it without us."""
    shown = reports.event_page(broker.store, broker.trail, caller, event_id=event, at=now)
    return _event(request, caller, broker, shown)


@router.post("/{event}/detail", dependencies=OFFICERS)
def detail(
    event: EventId, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """The same with its detail, where what was hidden and why is kept: recorded as that."""
    shown = reports.event_page(broker.store, broker.trail, caller, event_id=event, open_detail=True, at=now)
    return _event(request, caller, broker, shown)


@router.post("/{event}/flag", dependencies=OFFICERS)
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


def _results(
    request: Request,
    caller: Caller,
    broker: Broker,
    now: datetime,
    *,
    search: str,
    after: str = "",
    sort: str = "",
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    found = reports.found(broker.store, broker.trail, caller, search=search, after=after, at=now)
    names = reports.organisations(broker.store)
    return page(
        request, "log_results.html", caller, status=422 if faults else 200, found=found, names=names, after=after,
        events=_in_order(found.events, sort, names), sort=sort, reasons=REASONS, limit=reports.LISTED, formats=FORMATS,
        heads=COLUMNS, fault=bool(faults), faults=faults or {}, typed=typed or {},
    )  # fmt: skip


def _in_order(events: Sequence[LoggedEvent], sort: str, names: Mapping[str, str]) -> list[LoggedEvent]:
    return in_order(
        events,
        sort,
        {
            "time": lambda one: one.at,
            "what": lambda one: happened(one.type),
            "organisation": lambda one: names.get(one.organisation, one.organisation),
            "role": lambda one: one.role,
            "purpose": lambda one: one.purpose,
            "outcome": lambda one: one.outcome,
        },
    )


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
