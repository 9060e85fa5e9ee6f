"""Reviews of the log: what waits, one case with its evidence, a decision, a second look; the rules; the samples."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from audit.rules import REGISTER
from audit.sampling import LEAST, PERCENT
from broker import anomalies, reports, reviewing, sampling
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep
from broker.errors import Malformed, NotAllowed, NotFound, WrongState
from broker.reports import EventPage, Period
from broker.settings import GOVERNANCE
from broker.web.pages import OfficerFormDep, PageRoute, attachment, day_typed, only, page, signed_words, whole_number
from broker.wiring import Broker

router = APIRouter(prefix="/reviews", route_class=PageRoute, include_in_schema=False, dependencies=[only(*GOVERNANCE)])
EventId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
Cursor = Annotated[str, Query(pattern=r"^([A-Za-z0-9_-]{8,64})?$")]
Sample = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
RuleId = Annotated[str, Path(pattern=r"^[a-z_]{1,40}$")]
Kind = Annotated[str, Query(pattern=f"^({'|'.join(reviewing.KINDS)})?$")]
State = Annotated[str, Query(pattern=f"^({'|'.join(reviewing.STATES)})?$")]

REASON: Final = "lawfulness"
"""Why a reviewer reads the log, as the Act has it: nothing else is done on these pages."""
KINDS: Final[Mapping[str, str]] = {
    "break_glass": "Emergency access", "flag": "Alert", "sample": "Sample",
}  # fmt: skip
STATES: Final[Mapping[str, str]] = {
    "open": "Waiting", "taken": "Taken", "decided": "Waiting for a second reviewer", "closed": "Closed",
}  # fmt: skip
DECISIONS: Final[Mapping[str, str]] = {
    "justified": "Justified", "training": "Training needed", "breach": "Possible breach",
}  # fmt: skip
SECONDS: Final[Mapping[str, str]] = {
    "": "Waits for a second reviewer",
    "agreed": "A second reviewer agreed",
    "sent_back": "Sent back to be reviewed anew",
}
OWN: Final = "You cannot review your own event"


@router.get("")
def queue(
    request: Request,
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    kind: Kind = "",
    state: State = "",
    after: Cursor = "",
) -> Response:
    """What waits for a review, the soonest due first; never an event in which the reader acted."""
    found = reviewing.queue(
        broker.store, broker.trail, caller, reason=REASON, states=(state,) if state else reviewing.WAITING, kind=kind,
        after=after, at=now,
    )  # fmt: skip
    return page(
        request, "reviews.html", caller, found=found, kind=kind, state=state, kinds=KINDS, states=STATES,
        names=reports.organisations(broker.store), words=_rule_words(),
        next=found[-1].event.event_id if len(found) == reviewing.LISTED else "",
    )  # fmt: skip


# --- Rules -----------------------------------------------------------------------------------------------------------


@router.get("/rules")
def rules(request: Request, caller: OfficerDep, broker: BrokerDep) -> Response:
    """Every rule in words, with its thresholds; those that are not measured here, and why; and every change."""
    return page(
        request, "review_rules.html", caller, register=anomalies.register(broker.store),
        changes=anomalies.changes(broker.store), why=anomalies.CHANGES, words=_rule_words(),
    )  # fmt: skip


@router.get("/rules/{rule}")
def rule(rule: RuleId, request: Request, caller: OfficerDep, broker: BrokerDep) -> Response:
    """One rule, to change a threshold of it or to turn it off."""
    return _rule(request, caller, broker, rule)


@router.post("/rules/{rule}")
def change(
    rule: RuleId, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """Change a threshold from the next night on; who, when, from, to and why are listed."""
    faults = {}
    if (value := whole_number(form.get("value", ""))) is None:
        faults["value"] = "Enter a whole number"
    if form.get("why") not in anomalies.CHANGES:
        faults["why"] = "Choose why"
    if not form.get("name"):
        faults["name"] = "Choose what to change"
    if not faults and value is not None:
        try:
            anomalies.change(
                broker.store, broker.trail, caller, rule=rule, name=form["name"], value=value, why=form["why"], at=now
            )
            return RedirectResponse("/reviews/rules", 303)
        except Malformed as wrong:
            faults["value"] = f"It can be {str(wrong).removeprefix('value: ')}"
    return _rule(request, caller, broker, rule, faults=faults, typed=form)


# --- Samples ---------------------------------------------------------------------------------------------------------


@router.get("/samples")
def samples(request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Every sample, by which seed it was drawn, and the weeks of which none was."""
    return _samples(request, caller, broker, now)


@router.post("/samples")
def draw(request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Draw the sample of some days that have ended; nobody can choose what is in it."""
    first, last = day_typed(form, "first"), day_typed(form, "last")
    percent, least = whole_number(form.get("percent", "")), whole_number(form.get("least", ""))
    faults = {}
    if first is None or last is None:
        faults["first-day" if first is None else "last-day"] = "Enter the first and the last day"
    if percent is None or least is None:
        faults["percent" if percent is None else "least"] = "Enter a whole number"
    if first is not None and last is not None and percent is not None and least is not None:
        try:
            sampling.take(
                broker.store, broker.trail, Period.of_days(first, last), who=caller.who(), percent=percent, least=least,
                at=now,
            )  # fmt: skip
            return RedirectResponse("/reviews/samples", 303)
        except (Malformed, WrongState) as wrong:
            faults["first-day"] = f"{str(wrong)[:1].upper()}{str(wrong)[1:]}"
    return _samples(request, caller, broker, now, faults=faults, typed=form)


@router.post("/samples/{sample}")
def redraw(sample: Sample, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """A sample with its candidates, as a file: `auditor sample` draws it again from that.  The look is recorded."""
    found = sampling.redraw(broker.store, broker.trail, caller, sample=sample, reason=REASON, at=now)
    return JSONResponse(found.to_json(), headers=attachment(f"sample-{sample}.json"))


# --- One case --------------------------------------------------------------------------------------------------------


@router.get("/{event}")
def case(event: EventId, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """One case: what is known of the event, and what was decided of it.  Opening the event is recorded as well."""
    return _case(request, caller, broker, event, now)


@router.post("/{event}/take")
def take(
    event: EventId, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """Take a case, or give it to a colleague."""
    try:
        reviewing.take(broker.store, broker.trail, caller, event_id=event, to=form.get("to", "")[:64], at=now)
    except NotAllowed:
        return _own(request, caller)
    return RedirectResponse(f"/reviews/{event}", 303)


@router.post("/{event}/decision")
def decide(
    event: EventId, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """Decide what an event was."""
    faults = {}
    if form.get("decision") not in reviewing.DECISIONS:
        faults["decision"] = "Choose what it was"
    elif form["decision"] != "justified" and not form.get("note"):
        faults["note"] = "Say why, without naming anybody"
    faults |= _note_faults(form)
    if faults:
        return _case(request, caller, broker, event, now, faults=faults, typed=form)
    reviewing.decide(
        broker.store, broker.trail, caller, event_id=event, decision=form["decision"], words=form.get("note", ""),
        at=now,
    )  # fmt: skip
    return RedirectResponse(f"/reviews/{event}", 303)


@router.post("/{event}/signoff")
def sign_off(
    event: EventId, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """The second reviewer's word: agree, or send back."""
    faults = {} if form.get("agrees") in ("yes", "no") else {"agrees": "Choose whether you agree"}
    faults |= _note_faults(form)
    if faults:
        return _case(request, caller, broker, event, now, faults=faults, typed=form)
    reviewing.sign_off(
        broker.store, broker.trail, caller, event_id=event, agrees=form["agrees"] == "yes",
        words=form.get("note", ""), at=now,
    )  # fmt: skip
    return RedirectResponse(f"/reviews/{event}", 303)


def _case(
    request: Request,
    caller: Caller,
    broker: Broker,
    event: str,
    now: datetime,
    *,
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    try:
        found = reviewing.case_of(broker.store, broker.trail, caller, event_id=event, reason=REASON, at=now)
    except NotAllowed:
        return _own(request, caller)
    shown: EventPage | None
    try:
        shown = reports.event_page(broker.store, broker.trail, caller, event_id=event, at=now)
    except NotFound:
        shown = None  # it was erased: its columns are what is left
    return page(
        request, "review.html", caller, status=422 if faults else 200, case=found, shown=shown,
        clauses=signed_words(broker, shown.sections) if shown else {},
        names=reports.organisations(broker.store), words=_rule_words(), kinds=KINDS, states=STATES,
        decisions=DECISIONS, meant=reviewing.DECISIONS, seconds=SECONDS, most=reviewing.MAX_NOTE,
        fault=bool(faults), faults=faults or {}, typed=typed or {},
    )  # fmt: skip


def _own(request: Request, caller: Caller) -> Response:
    return page(request, "review_own.html", caller, status=403, title=OWN)


def _note_faults(form: Mapping[str, str]) -> dict[str, str]:
    note = form.get("note", "")
    if len(note) > reviewing.MAX_NOTE:
        return {"note": f"Write at most {reviewing.MAX_NOTE:,} characters"}
    return {}


def _rule(
    request: Request,
    caller: Caller,
    broker: Broker,
    rule: str,
    *,
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    found = next(((one, values) for one, values in anomalies.register(broker.store) if one.id == rule), None)
    if found is None or found[0].unmeasured:
        raise NotFound("there is no such rule to change")
    return page(
        request, "review_rule.html", caller, status=422 if faults else 200, rule=found[0], values=found[1],
        why=anomalies.CHANGES, fault=bool(faults), faults=faults or {}, typed=typed or {},
    )  # fmt: skip


def _samples(
    request: Request,
    caller: Caller,
    broker: Broker,
    now: datetime,
    *,
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    drawn = sampling.samples(broker.store, caller)
    with broker.store.reading() as reading:
        owed = sampling.owed(reading, at=now)
    return page(
        request, "review_samples.html", caller, status=422 if faults else 200, drawn=drawn, owed=owed,
        not_measured=sampling.NOT_MEASURED, percent=PERCENT, least=LEAST, week=_days(sampling.due_week(now)),
        fault=bool(faults), faults=faults or {}, typed=typed or {},
    )  # fmt: skip


def _days(period: Period) -> tuple[date, date]:
    """The first and the last day in London of a period of whole days."""
    first, last = (at.astimezone(reviewing.LONDON).date() for at in (period.since, period.until))
    return first, last - timedelta(days=1)


def _rule_words() -> dict[str, str]:
    """What each rule that flags says, by the name that flags bear."""
    by_hand = {f"{anomalies.BY_HAND}{code}": f"By hand: {text}" for code, text in anomalies.SEEN_BY_HAND.items()}
    return (
        {one.id: one.words.rstrip(".") for one in REGISTER.values()}
        | by_hand
        | {"prohibited_purpose": "A purpose that is prohibited"}
    )
