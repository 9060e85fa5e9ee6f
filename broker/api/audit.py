"""The log for information governance: search it, open an event, export a report; and RESTful ATNA (IHE ITI-81).

Officers sign in at the broker: whatever posts carries the session's token in X-CSRF-Token, which answers here give as
`csrf`.  A GET asks by codes and times alone; whoever searches for a person, a case or a child posts it, so that no
reference stands in a URL.  Each search is recorded before it is answered, with the reason that the Act demands.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, BinaryIO, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import AwareDatetime, StringConstraints, TypeAdapter

from agreements import VOCABULARY
from audit.events import EVENT_TYPES, OPS, Op
from broker import reports
from broker.api.forms import Like, OneOf, in_query
from broker.api.searches import Body
from broker.callers import Caller
from broker.dependencies import ActingOfficerDep, BrokerDep, NowDep, OfficerDep
from broker.errors import Malformed
from broker.reports import FORMATS, REASONS, REPORTS, About, FoundEvent, LogFilter, LogSearch, Period, fhir
from broker.reports.formats import MEDIA
from broker.reports.search import CODE, REFERENCE
from broker.reports.table import LONDON

router = APIRouter(prefix="/audit", tags=["log"])
fhir_router = APIRouter(prefix="/fhir", tags=["log"])

EventId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
After = Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
EventType = Annotated[str, OneOf(EVENT_TYPES, blank=True)]
Operation = Annotated[str, OneOf([one.value for one in Op], blank=True)]
Purpose = Annotated[str, OneOf(VOCABULARY.purposes, blank=True)]
Outcome = Annotated[str, Like(CODE, blank=True)]
Reference = Annotated[str, StringConstraints(max_length=200), Like(REFERENCE, blank=True)]
Text = Annotated[str, StringConstraints(max_length=200)]
Reason = Annotated[str, StringConstraints(pattern=f"^({'|'.join(REASONS)})$")]
Code = Annotated[str, StringConstraints(pattern=f"^({'|'.join(REPORTS)})$")]
Shape = Annotated[str, StringConstraints(pattern=f"^({'|'.join(FORMATS)})$")]
WHY: Final = in_query(
    "purpose", {"type": "string", "enum": [*REASONS]}, "Why the log is consulted.",
    required=True,
)  # fmt: skip
FHIR_JSON: Final = "application/fhir+json"
PAGE: Final = 20  # AuditEvents are long
CHUNK: Final = 1 << 16
MOST_DATES: Final = 2  # of one question
LONGEST_TOKEN: Final = 200  # characters
ITI_81: Final = [
    in_query("purpose", {"type": "string", "enum": [*REASONS]}, "Why the log is consulted; due on a first page."),
    in_query(
        "date", {"type": "array", "maxItems": MOST_DATES, "items": {"type": "string", "pattern": fhir.DATE}},
        "A day in London or an instant, after eq, ge, gt, le or lt.",
    ),
    in_query("type", {"type": "string", "pattern": fhir.token_of(fhir.DCM, fhir.all_dicom_types())}, "A DICOM type."),
    in_query("subtype", {"type": "string", "pattern": fhir.token_of(f"{fhir.OURS}:event", OPS)}, "An event's type."),
    in_query("outcome", {"type": "string", "enum": ["0", "4", "8"]}, "0 done, 4 refused, 8 failed."),
    in_query("agent.identifier", {"type": "string", "maxLength": LONGEST_TOKEN}, "An organisation that is enrolled."),
]  # fmt: skip

_FOUND: Final = TypeAdapter(FoundEvent)
_FILTER: Final = TypeAdapter(LogFilter)


class FilterBody(Body):
    """Which events; what is left out is not asked."""

    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    organisation: Reference = ""
    person: Reference = ""
    type: Annotated[Text, OneOf(EVENT_TYPES, blank=True)] = ""
    op: Annotated[Text, OneOf([one.value for one in Op], blank=True)] = ""
    purpose: Annotated[Text, OneOf(VOCABULARY.purposes, blank=True)] = ""
    case: Reference = ""
    subject: Reference = ""
    outcome: Annotated[Text, Like(CODE, blank=True)] = ""
    break_glass: bool | None = None
    flagged: bool | None = None


class SearchBody(Body):
    """Why the log is searched, and for what."""

    purpose: Reason
    filter: FilterBody = FilterBody()


class ExportBody(Body):
    """Which report, over which days in London, in which form, and why."""

    report: Code
    format: Shape = "csv"
    purpose: Reason
    first: date
    last: date
    subject: Text = ""
    organisation: Text = ""
    discovered: AwareDatetime | None = None


@router.get("/reports")
def kinds(caller: OfficerDep) -> dict[str, Any]:
    """The reports there are, with their columns, and why a log may be consulted."""
    reports.check_reader(caller)
    listed = [
        {
            "report": kind.code, "title": kind.title, "columns": list(kind.columns), "about": sorted(kind.about),
            "formats": [one for one in FORMATS if kind.events is not None or one in ("csv", "json")],
        }
        for kind in REPORTS.values()
    ]  # fmt: skip
    return {"reports": listed, "purposes": dict(REASONS), "csrf": caller.csrf}


@router.get("/events", openapi_extra={"parameters": [WHY]})
def by_codes(
    request: Request,
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    since: datetime | None = None,
    until: datetime | None = None,
    organisation: str = "",
    kind: Annotated[EventType, Query(alias="type")] = "",
    op: Operation = "",
    event_purpose: Purpose = "",
    outcome: Outcome = "",
    break_glass: bool | None = None,
    flagged: bool | None = None,
) -> dict[str, Any]:
    """Search by times and codes.  `purpose` is why the log is consulted; that of the events is `event_purpose`."""
    _only(request, _BY_CODES)
    wanted = LogFilter(
        since=since, until=until, organisation=_enrolled(broker, organisation), type=kind, op=op, purpose=event_purpose,
        outcome=outcome, break_glass=break_glass, flagged=flagged,
    )  # fmt: skip
    reason = request.query_params.get("purpose", "")
    search = reports.search_log(broker.store, broker.trail, caller, reason=reason, wanted=wanted, at=now)
    return _page(broker, caller, search, "", now)


@router.post("/searches", status_code=201)
def search(body: SearchBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep) -> dict[str, Any]:
    """Search by anything, a person, a case or a child too: who saw a child, when, why and under which clause."""
    wanted = LogFilter(**body.filter.model_dump())
    found = reports.search_log(broker.store, broker.trail, caller, reason=body.purpose, wanted=wanted, at=now)
    return _page(broker, caller, found, "", now)


@router.get("/searches/{search}")
def more(search: EventId, caller: OfficerDep, broker: BrokerDep, now: NowDep, after: After = "") -> dict[str, Any]:
    """A further page of one's own search, which is recorded already."""
    return _page(broker, caller, search, after, now)


@router.get("/events/{event_id}")
def event(event_id: EventId, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> dict[str, Any]:
    """One event, opened but for `detail`; the look is recorded before it is answered."""
    shown = reports.event_page(broker.store, broker.trail, caller, event_id=event_id, at=now)
    return {**_EVENT.dump_python(shown.event, mode="json"), "sections": dict(shown.sections)}


@router.post(
    "/exports", status_code=201, response_class=Response,
    responses={201: {"content": {media.partition(";")[0]: {} for media in MEDIA.values()}}},
)  # fmt: skip
def export(body: ExportBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """A report as a file.  It is recorded with its SHA-256 before a byte of it leaves."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed once it has left, or here if it may not
    try:
        made = reports.export(
            broker.store, broker.trail, caller, code=body.report, period=Period.of_days(body.first, body.last),
            about=About(subject=body.subject, organisation=body.organisation, discovered=body.discovered),
            fmt=body.format, reason=body.purpose, sink=file, at=now,
        )  # fmt: skip
    except BaseException:
        file.close()
        raise
    digest = base64.b64encode(bytes.fromhex(made.sha256)).decode()
    headers = {
        "Content-Disposition": f'attachment; filename="{made.filename}"', "Content-Length": str(made.bytes),
        "Content-Digest": f"sha-256=:{digest}:", "Export-Event": made.event_id, "Export-Rows": str(made.rows),
    }  # fmt: skip
    return StreamingResponse(_leaving(file), status_code=201, media_type=made.media_type, headers=headers)


@fhir_router.get(
    "/AuditEvent", response_class=Response, responses={200: {"content": {MEDIA["fhir"]: {}}}},
    openapi_extra={"parameters": ITI_81},
)  # fmt: skip
def audit_events(
    request: Request,
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    search: After = "",
    after: After = "",
) -> Response:
    """IHE ITI-81: `date` (once or twice, with ge, gt, le, lt), `type`, `subtype`, `outcome`, `agent.identifier` of an
    organisation; and `purpose`, why the log is consulted.  Persons are searched for by POST /audit/searches."""
    if search:
        _only(request, frozenset({"search", "after"}))
        ticket = search
    else:
        _only(request, _ITI_81, often=("date",))
        wanted = _iti_81(broker, request)
        reason = request.query_params.get("purpose", "")
        ticket = reports.search_log(
            broker.store, broker.trail, caller, reason=reason, wanted=wanted, shape="fhir", at=now
        )
    page = reports.found(broker.store, broker.trail, caller, search=ticket, after=after, limit=PAGE, at=now)
    bundle = fhir.searchset(
        reports.opened(broker.store, broker.trail, page),
        origin=broker.trail.origin,
        self_link=_link(broker, ticket, after),
        next_link=_link(broker, ticket, page.next) if page.next else None,
    )
    return JSONResponse(bundle, media_type=FHIR_JSON)


_EVENT: Final = TypeAdapter(reports.LoggedEvent)
_BY_CODES: Final = frozenset(
    {
        "purpose", "since", "until", "organisation", "type", "op", "event_purpose", "outcome", "break_glass", "flagged",
    }
)  # fmt: skip
_ITI_81: Final = frozenset({"purpose", "date", "type", "subtype", "outcome", "agent.identifier"})


def _page(broker: BrokerDep, caller: Caller, search: str, after: str, now: datetime) -> dict[str, Any]:
    page: LogSearch = reports.found(broker.store, broker.trail, caller, search=search, after=after, at=now)
    told = {name: value for name, value in _FILTER.dump_python(page.filter, mode="json").items() if value}
    return {
        "search": page.search,
        "purpose": page.reason,
        "filter": told,
        "events": [_flat(one) for one in page.found],
        "next": f"/audit/searches/{page.search}?{urlencode({'after': page.next})}" if page.next else None,
        "csrf": caller.csrf,
    }


def _flat(one: FoundEvent) -> dict[str, Any]:
    body = _FOUND.dump_python(one, mode="json")
    return {**body.pop("event"), **body}


def _only(request: Request, names: frozenset[str], *, often: tuple[str, ...] = ()) -> None:
    """Raise Malformed for a parameter that is none, or stands there twice: a reference has no place in a URL."""
    given = request.query_params.multi_items()
    if any(name not in names for name, _ in given):
        raise Malformed(
            f"only {', '.join(sorted(names))} may stand in the URL; to search for a person, a case or a child, post it "
            "to /audit/searches"
        )
    if len({name for name, _ in given if name not in often}) < sum(name not in often for name, _ in given):
        raise Malformed("a parameter is given twice")


def _enrolled(broker: BrokerDep, organisation: str) -> str:
    """An organisation's id.  Raises Malformed for anything else: it may be a person's name."""
    known = {*reports.organisations(broker.store), broker.settings.partnership}
    if organisation and organisation not in known:
        raise Malformed("organisation: none of this id is enrolled")
    return organisation


def _iti_81(broker: BrokerDep, request: Request) -> LogFilter:
    given = request.query_params
    kinds: set[str] | None = None
    if "type" in given:
        kinds = set(fhir.dicom_types(_token(given["type"], fhir.DCM)))
    if "subtype" in given:
        one = {_token(given["subtype"], f"{fhir.OURS}:event")}
        kinds = one if kinds is None else kinds & one
    if "outcome" in given:
        fitting = set(fhir.types_of_outcome(given["outcome"]))
        kinds = fitting if kinds is None else kinds & fitting
    if kinds is not None and not kinds:
        raise Malformed("type, subtype, outcome: no event of ours bears these")
    since, until = _dates(given.getlist("date"))
    organisation = _token(given.get("agent.identifier", ""), f"{fhir.OURS}:organisation")
    return LogFilter(
        since=since, until=until, types=tuple(sorted(kinds or ())), organisation=_enrolled(broker, organisation)
    )


def _token(text: str, system: str) -> str:
    """The code of a FHIR token, with our system or without one.  Raises Malformed."""
    if len(text) > LONGEST_TOKEN:
        raise Malformed(f"a parameter has at most {LONGEST_TOKEN} characters")
    before, bar, code = text.rpartition("|")
    if bar and before not in ("", system):
        raise Malformed(f"{system} is the one system that is known here")
    return code


def _dates(given: list[str]) -> tuple[datetime | None, datetime | None]:
    """The instants between which the `date` parameters lie; a day is a day in London."""
    since: datetime | None = None
    until: datetime | None = None
    if len(given) > MOST_DATES:
        raise Malformed("date: once, or twice for when a time begins and ends")
    for text in given:
        prefix, rest = (text[:2], text[2:]) if text[:2].isalpha() else ("eq", text)
        begins, ends = _span(rest)
        if prefix not in ("eq", "ge", "gt", "le", "lt"):
            raise Malformed("date: eq, ge, gt, le or lt is due before it")
        low = {"eq": begins, "ge": begins, "gt": ends}.get(prefix)
        high = {"eq": ends, "le": ends, "lt": begins}.get(prefix)
        since = max(filter(None, (since, low)), default=None)
        until = min(filter(None, (until, high)), default=None)
    return since, until


def _span(text: str) -> tuple[datetime, datetime]:
    try:
        if len(text) == len("2026-01-01"):
            day = date.fromisoformat(text)
            return datetime.combine(day, time(), LONDON), datetime.combine(day + timedelta(days=1), time(), LONDON)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("date: YYYY-MM-DD or an instant with its zone is due") from None
    if at.tzinfo is None:
        raise Malformed("date: an instant needs a time zone")
    return at.astimezone(UTC), at.astimezone(UTC) + timedelta(milliseconds=1)


def _link(broker: BrokerDep, search: str, after: str | None) -> str:
    told = {"search": search, **({"after": after} if after else {})}
    return f"{broker.settings.base_url}/fhir/AuditEvent?{urlencode(told)}"


def _leaving(file: BinaryIO) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while piece := file.read(CHUNK):
            yield piece
