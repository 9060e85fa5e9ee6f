"""The reports of information governance as files or to print; the breach pack with its clock."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response, StreamingResponse

from broker import reports, reviewing, witnesses
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep
from broker.errors import Malformed, NotAllowed, NotFound
from broker.reports import REASONS, REPORTS, About, Kind, Period
from broker.reports.breach import NOTIFY_WITHIN
from broker.settings import GOVERNANCE
from broker.signin import INSPECTOR
from broker.web.pages import LONDON, OfficerFormDep, PageRoute, attachment, chunks, day_typed, only, page, sentence
from broker.wiring import Broker

router = APIRouter(
    prefix="/reports", route_class=PageRoute, include_in_schema=False, dependencies=[only(*GOVERNANCE, INSPECTOR)]
)
breaches = APIRouter(
    prefix="/breaches", route_class=PageRoute, include_in_schema=False, dependencies=[only(*GOVERNANCE)]
)
Code = Annotated[str, Path(pattern=f"^({'|'.join(REPORTS)})$")]

ANSWERS: Final[Mapping[str, str]] = {
    "R1": "What was disclosed to whom, when, why and under which clause?",
    "R2": "What was refused, and for which reason?",
    "R3": "Where was the glass broken, and what did its review find?",
    "R5": "Which agreements are there, how do they stand, and when was each last used?",
    "R6": "What do we process, for what and on which basis (UK GDPR Article 30)?",
    "R7": "Who was affected by a breach, who received what, and what has been done?",
    "R8": "What was deleted, by what right, and how much of it?",
    "R9": "How well are records linked, for which groups less well?",
    "R10": "What did the police process (Data Protection Act 2018 section 62)?",
}
FORMATS: Final[Mapping[str, str]] = {
    "print": "To read and print", "csv": "CSV, for a spreadsheet", "json": "JSON", "fhir": "FHIR AuditEvent",
    "ocsf": "OCSF", "cef": "CEF",
}  # fmt: skip
SHOWN: Final = 2_000  # rows of a page to print
BREACHES_OF: Final = timedelta(days=90)


@router.get("")
def listed(request: Request, caller: OfficerDep) -> Response:
    """What each report answers."""
    return page(request, "reports.html", caller, kinds=REPORTS, answers=ANSWERS)


@router.get("/{code}")
def ask(code: Code, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Over which days, why, and in which form."""
    if code == "R7":
        return _breaches(request, caller, broker, now)
    return _form(request, caller, broker, REPORTS[code], now)


@router.post("/{code}")
def make(
    code: Code, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """Make a report, record it with its SHA-256, and only then let it out.  Raises NotAllowed for an inspector's R7."""
    if code == "R7" and caller.role == INSPECTOR:
        raise NotAllowed("a breach pack is made by information governance")
    faults, period = _faults(form, REPORTS[code])
    if not faults and period is not None:
        try:
            return _made(
                request, caller, broker, code, period, About(organisation=form.get("organisation", "")), form, now
            )
        except (Malformed, NotFound) as wrong:
            faults["first-day"] = sentence(str(wrong))
    return _form(request, caller, broker, REPORTS[code], now, faults=faults, typed=form)


@breaches.get("")
def breach_list(request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """What reviews found to be a breach, with its clock; and the form of a breach pack."""
    return _breaches(request, caller, broker, now)


@breaches.post("")
def breach_pack(request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """The pack of a breach (R7): the clock, who is affected, who received what, what has been done."""
    faults, period = _faults(form, REPORTS["R7"])
    subject, organisation = form.get("subject", ""), form.get("organisation", "")
    if bool(subject) == bool(organisation):
        faults["subject"] = "Enter a subject reference, or choose the organisation whose key it was: one of the two"
    became = _instant_typed(form, "aware")
    if became is None:
        faults["aware-day"] = "Enter when you became aware"
    if not faults and period is not None:
        about = About(subject=subject, organisation=organisation, discovered=became)
        try:
            return _made(request, caller, broker, "R7", period, about, form, now)
        except (Malformed, NotFound) as wrong:
            faults["subject"] = sentence(str(wrong))
    return _breaches(request, caller, broker, now, faults=faults, typed=form)


def _made(
    request: Request,
    caller: Caller,
    broker: Broker,
    code: str,
    period: Period,
    about: About,
    form: Mapping[str, str],
    now: datetime,
) -> Response:
    fmt = form["format"]
    file = io.BytesIO() if fmt == "print" else tempfile.TemporaryFile()  # noqa: SIM115 - closed once it has left
    try:
        made = reports.export(
            broker.store, broker.trail, caller, code=code, period=period, about=about,
            fmt="json" if fmt == "print" else fmt, reason=form["reason"], sink=file, at=now,
        )  # fmt: skip
    except BaseException:
        file.close()
        raise
    if isinstance(file, io.BytesIO):
        found: dict[str, Any] = json.loads(file.getvalue())
        with broker.store.reading() as reading:
            stands = witnesses.standing(reading, broker.trail.origin, at=now)
        return page(
            request, "report_print.html", caller, made=made, report=found, shown=SHOWN, log=stands, reasons=REASONS,
            reason=form["reason"],
        )  # fmt: skip
    headers = {**attachment(made.filename), "Content-Length": str(made.bytes), "Export-Event": made.event_id}
    return StreamingResponse(chunks(file), media_type=made.media_type, headers=headers)


def _form(
    request: Request,
    caller: Caller,
    broker: Broker,
    kind: Kind,
    now: datetime,
    *,
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    return page(
        request, "report.html", caller, status=422 if faults else 200, kind=kind, answer=ANSWERS[kind.code],
        **_choices(broker, kind, now), fault=bool(faults), faults=faults or {}, typed=typed or {},
    )  # fmt: skip


def _breaches(
    request: Request,
    caller: Caller,
    broker: Broker,
    now: datetime,
    *,
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    found = reviewing.breaches(broker.store, broker.trail, caller, since=now - BREACHES_OF, reason="lawfulness", at=now)
    return page(
        request, "breaches.html", caller, status=422 if faults else 200, found=found, within=NOTIFY_WITHIN, now=now,
        **_choices(broker, REPORTS["R7"], now), fault=bool(faults), faults=faults or {}, typed=typed or {},
    )  # fmt: skip


def _choices(broker: Broker, kind: Kind, now: datetime) -> dict[str, Any]:
    """What the form of a report offers, and the month so far as its days."""
    names = reports.organisations(broker.store)
    today = now.astimezone(LONDON).date()
    forms = FORMATS if kind.events is not None else {code: FORMATS[code] for code in ("print", "csv", "json")}
    return {
        "names": names,
        "formats": [{"value": code, "text": label} for code, label in forms.items()],
        "reasons": [{"value": code, "text": label} for code, label in REASONS.items()],
        "organisations": [{"value": "", "text": "Any"}, *({"value": one, "text": name} for one, name in names.items())],
        "first": _boxes(today.replace(day=1)),
        "last": _boxes(today),
    }


def _boxes(day: date) -> dict[str, int]:
    return {"day": day.day, "month": day.month, "year": day.year}


def _faults(form: Mapping[str, str], kind: Kind) -> tuple[dict[str, str], Period | None]:
    faults: dict[str, str] = {}
    first, last = day_typed(form, "first"), day_typed(form, "last")
    period: Period | None = None
    if first is None:
        faults["first-day"] = "Enter the first day"
    if last is None:
        faults["last-day"] = "Enter the last day"
    if first is not None and last is not None:
        try:
            period = Period.of_days(first, last)
        except (Malformed, OverflowError):
            faults["last-day"] = "The last day must not be before the first"
    if form.get("format") not in FORMATS or (form["format"] in ("fhir", "ocsf", "cef") and kind.events is None):
        faults["format"] = "Choose in which form"
    if form.get("reason") not in REASONS:
        faults["reason"] = "Choose why you take this from the log"
    return faults, period


def _instant_typed(form: Mapping[str, str], name: str) -> datetime | None:
    """A day in its boxes and a time as "14:40", in London; or None."""
    day = day_typed(form, name)
    try:
        clock = time.fromisoformat(form.get(f"{name}-time", "") or "00:00")
    except ValueError:
        return None
    return None if day is None else datetime.combine(day, clock.replace(tzinfo=None), LONDON)
