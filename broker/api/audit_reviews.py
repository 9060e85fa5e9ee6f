"""Reviews of the log by information governance: flags, the queue, decisions and second looks, rules, samples, packs.

Officers of information governance alone.  Whatever posts carries the session's token in X-CSRF-Token, which answers
here give as `csrf`.  Listings are looks into the log and are recorded before they are answered, with the reason that
the Act demands (`purpose`); an officer is never shown what waits about themselves.
"""

from __future__ import annotations

import base64
from datetime import date
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field, StringConstraints, TypeAdapter

from audit.rules import REGISTER
from audit.sampling import LEAST, PERCENT
from broker import anomalies, reviewing, sampling
from broker.api.forms import OneOf
from broker.api.searches import Body
from broker.dependencies import ActingOfficerDep, BrokerDep, NowDep, OfficerDep
from broker.errors import Malformed
from broker.packs import pack
from broker.reports.looking import REASONS, check_reader
from broker.reports.register import DISCLOSURES
from broker.reports.table import Period

router = APIRouter(prefix="/audit", tags=["reviews of the log"])

EventId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
Id = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
After = Annotated[str, Query(pattern=r"^([A-Za-z0-9_-]{8,64})?$")]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
Name = Annotated[str, StringConstraints(pattern=r"^([A-Z_]{1,40}\.)?[a-z_]{1,40}$")]
Purpose = Annotated[str, Query(pattern=f"^({'|'.join(REASONS)})$")]
Reason = Annotated[str, StringConstraints(pattern=f"^({'|'.join(REASONS)})$")]
Staff = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._@-]{0,64}$")]
Note = Annotated[str, StringConstraints(max_length=reviewing.MAX_NOTE)]
Days = Annotated[date, Query()]
RULES: Final = (*REGISTER, "prohibited_purpose", *(f"{anomalies.BY_HAND}{why}" for why in anomalies.SEEN_BY_HAND))
"""As flags name them."""

_CASE: Final = TypeAdapter(reviewing.Case)
_FLAG: Final = TypeAdapter(reviewing.Flag)
_CHANGED: Final = TypeAdapter(anomalies.Changed)
_DRAWN: Final = TypeAdapter(sampling.Drawn)


class FlagBody(Body):
    """An event that a person finds worth a look, and why: a code."""

    event: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
    why: Annotated[Code, OneOf(anomalies.SEEN_BY_HAND)]


class TakeBody(Body):
    """To whom, if not to oneself: a staff id."""

    to: Staff = ""


class DecisionBody(Body):
    """What it was; a note names nobody."""

    decision: Annotated[Code, OneOf(reviewing.DECISIONS)]
    note: Note = ""


class SignOffBody(Body):
    """Whether the second person agrees; if not, it is reviewed anew."""

    agrees: bool
    note: Note = ""


class ThresholdBody(Body):
    """A threshold's new value, and why: a code."""

    name: Name
    value: Annotated[int, Field(ge=0, le=100_000)]
    why: Annotated[Code, OneOf(anomalies.CHANGES)]


class SampleBody(Body):
    """Of which days in London a sample is drawn."""

    first: date
    last: date
    percent: Annotated[int, Field(ge=1, le=100)] = PERCENT
    least: Annotated[int, Field(ge=0, le=10_000)] = LEAST


class PackBody(Body):
    """The pack of which month (any day of it), and why the log is consulted."""

    month: date
    purpose: Reason


# --- Flags and the queue ---------------------------------------------------------------------------------------------


@router.get("/flags")
def flags(
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    purpose: Purpose,
    first: Days,
    last: Days,
    rule: Annotated[str, OneOf(RULES, blank=True)] = "",
) -> dict[str, Any]:
    """What rules and persons flagged on some days in London, newest first; never on an event of one's own."""
    days = Period.of_days(first, last)
    found = reviewing.flags(
        broker.store, broker.trail, caller, since=days.since, until=days.until, rule=_rule(rule), reason=purpose, at=now
    )
    return {"flags": [_FLAG.dump_python(one, mode="json") for one in found], "csrf": caller.csrf}


@router.post("/flags", status_code=201)
def flag(body: FlagBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep) -> dict[str, Any]:
    """Flag an event by hand."""
    done = anomalies.flag(broker.store, broker.trail, caller, event_id=body.event, why=body.why, at=now)
    return {"flag": done.answer, "receipt": done.receipt.event_id}


@router.get("/reviews")
def queue(
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    purpose: Purpose,
    state: Annotated[str, OneOf(reviewing.STATES, blank=True)] = "",
    kind: Annotated[str, OneOf(reviewing.KINDS, blank=True)] = "",
    mine: bool = False,
    after: After = "",
) -> dict[str, Any]:
    """What waits for a review, the soonest due first; never an event in which one acted."""
    found = reviewing.queue(
        broker.store, broker.trail, caller, reason=purpose, states=(state,) if state else reviewing.WAITING,
        kind=kind, mine=mine, after=after, at=now,
    )  # fmt: skip
    following = found[-1].event.event_id if len(found) == reviewing.LISTED else None
    return {
        "cases": [_case(one) for one in found], "next": following, "decisions": dict(reviewing.DECISIONS),
        "csrf": caller.csrf,
    }  # fmt: skip


@router.get("/reviews/{event_id}")
def case(event_id: EventId, caller: OfficerDep, broker: BrokerDep, now: NowDep, purpose: Purpose) -> dict[str, Any]:
    """One case, with the notes of its reviews."""
    found = reviewing.case_of(broker.store, broker.trail, caller, event_id=event_id, reason=purpose, at=now)
    return {**_case(found), "csrf": caller.csrf}


@router.post("/reviews/{event_id}/take")
def take(event_id: EventId, body: TakeBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep) -> dict[str, Any]:
    """Take an event to review it, or give it to a colleague."""
    return _case(reviewing.take(broker.store, broker.trail, caller, event_id=event_id, to=body.to, at=now))


@router.post("/reviews/{event_id}/decision", status_code=201)
def decide(
    event_id: EventId, body: DecisionBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep
) -> dict[str, Any]:
    """Decide what a taken event was: justified, training or breach."""
    done = reviewing.decide(
        broker.store, broker.trail, caller, event_id=event_id, decision=body.decision, words=body.note, at=now
    )
    return {**_case(done.answer), "receipt": done.receipt.event_id}


@router.post("/reviews/{event_id}/signoff", status_code=201)
def sign_off(
    event_id: EventId, body: SignOffBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep
) -> dict[str, Any]:
    """Agree with a decision as a second person, or send it back."""
    done = reviewing.sign_off(
        broker.store, broker.trail, caller, event_id=event_id, agrees=body.agrees, words=body.note, at=now
    )
    return {**_case(done.answer), "receipt": done.receipt.event_id}


@router.get("/activity")
def activity(
    caller: OfficerDep, broker: BrokerDep, now: NowDep, purpose: Purpose, first: Days, last: Days
) -> dict[str, Any]:
    """Who disclosed most on some days in London, up to the last night, by organisation and person."""
    days = Period.of_days(first, last)
    found = reviewing.busiest(
        broker.store,
        broker.trail,
        caller,
        since=days.since,
        until=days.until,
        types=DISCLOSURES,
        reason=purpose,
        at=now,
    )
    return {"activity": found, "csrf": caller.csrf}


# --- Rules -----------------------------------------------------------------------------------------------------------


@router.get("/rules")
def rules(caller: OfficerDep, broker: BrokerDep) -> dict[str, Any]:
    """Every rule with its words, version and thresholds, those that are not measured here with the reason; and every
    change of a threshold: who, when, from, to, why."""
    check_reader(caller)
    listed = [
        {
            "rule": rule.id, "words": rule.words, "version": rule.version, "thresholds": dict(values),
            "by_role": rule.by_role, "measured": not rule.unmeasured, "not_measured_because": rule.unmeasured or None,
        }
        for rule, values in anomalies.register(broker.store)
    ]  # fmt: skip
    return {
        "rules": listed,
        "changes": [_CHANGED.dump_python(one, mode="json") for one in anomalies.changes(broker.store)],
        "why": dict(anomalies.CHANGES),
        "flag_why": dict(anomalies.SEEN_BY_HAND),
        "csrf": caller.csrf,
    }


@router.post("/rules/{rule}/thresholds", status_code=201)
def change(
    rule: Annotated[str, Path(pattern=r"^[a-z_]{1,40}$"), OneOf(REGISTER)],
    body: ThresholdBody,
    caller: ActingOfficerDep,
    broker: BrokerDep,
    now: NowDep,
) -> dict[str, Any]:
    """Change a threshold from the next night on; `on` 0 turns the rule off."""
    done = anomalies.change(
        broker.store, broker.trail, caller, rule=rule, name=body.name, value=body.value, why=body.why, at=now
    )
    return {**_CHANGED.dump_python(done.answer, mode="json"), "receipt": done.receipt.event_id}


# --- Samples and packs -----------------------------------------------------------------------------------------------


@router.get("/samples")
def samples(caller: OfficerDep, broker: BrokerDep, now: NowDep) -> dict[str, Any]:
    """Every sample, newest first, with the checkpoint it was drawn by; the weeks of which none was drawn, and why; and
    what can't be drawn in any case."""
    found = sampling.samples(broker.store, caller)
    with broker.store.reading() as reading:
        owed = sampling.owed(reading, at=now)
    return {
        "samples": [_DRAWN.dump_python(one, mode="json") for one in found],
        "owed": [one.to_json() for one in owed],
        "not_measured": dict(sampling.NOT_MEASURED),
        "csrf": caller.csrf,
    }


@router.post("/samples", status_code=201)
def sample(body: SampleBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep) -> dict[str, Any]:
    """Draw the sample of some days that have ended."""
    check_reader(caller)
    done = sampling.take(
        broker.store, broker.trail, Period.of_days(body.first, body.last), who=caller.who(), percent=body.percent,
        least=body.least, at=now,
    )  # fmt: skip
    return {**_DRAWN.dump_python(done.answer, mode="json"), "receipt": done.receipt.event_id}


@router.get("/samples/{sample}")
def redraw(sample: Id, caller: OfficerDep, broker: BrokerDep, now: NowDep, purpose: Purpose) -> dict[str, Any]:
    """A sample with its candidates: what `auditor sample` draws again.  The look is recorded."""
    found = sampling.redraw(broker.store, broker.trail, caller, sample=sample, reason=purpose, at=now)
    return found.to_json()


@router.post("/packs", status_code=201, response_class=Response, responses={201: {"content": {"application/json": {}}}})
def monthly(body: PackBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """The pack of a month, as JSON.  It is recorded with its SHA-256 before a byte of it leaves."""
    made = pack(broker.store, broker.trail, caller, month=body.month, reason=body.purpose, at=now)
    digest = base64.b64encode(bytes.fromhex(made.sha256)).decode()
    headers = {
        "Content-Disposition": f'attachment; filename="{made.filename}"', "Content-Digest": f"sha-256=:{digest}:",
        "Export-Event": made.event_id,
    }  # fmt: skip
    return Response(made.content, status_code=201, media_type="application/json", headers=headers)


def _case(one: reviewing.Case) -> dict[str, Any]:
    told: dict[str, Any] = _CASE.dump_python(one, mode="json")
    return told


def _rule(text: str) -> str:
    """A rule as flags name it; anything else is not written into an event.  Raises Malformed."""
    if text and text not in RULES:
        raise Malformed(f"rule: one of {', '.join(sorted(RULES))}")
    return text
