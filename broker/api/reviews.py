"""Clerical review for link reviewers; the question of a reviewer for an agency; "this is the wrong person".

A reviewer's session is a cookie, so whatever changes something carries the session's token too, in X-CSRF-Token: the
queue gives it as `csrf`, which only a page of our own origin can read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, StringConstraints

from broker import reviews
from broker.api.answers import answer, plain
from broker.api.forms import OneOf
from broker.api.leaving import Leaving, PaceDep
from broker.api.searches import Body, Code, Opaque, ServiceDep
from broker.dependencies import ActingOfficerDep, AgencyDep, BrokerDep, CallerDep, NowDep, OfficerDep
from broker.errors import Malformed
from broker.reviews import PAGE, QUEUE_REASONS, Asking, Decided, Question, QueuePage, Reported, Review, State, Wanted
from broker.reviews.said import EVIDENCE, TAKEN_BACK, WHAT_IS_WRONG, WHY, WRONG_PERSON_HOW

router = APIRouter(prefix="/v1", tags=["review"])

ReviewId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Reference = Annotated[str, Path(pattern=r"^[2-9A-Z]{4}-[2-9A-Z]{4}-[2-9A-Z]{4}$")]
RecordRef = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16,64}$")]
Reason = Annotated[str | None, Query(pattern=f"^({'|'.join(QUEUE_REASONS)})$"), OneOf(QUEUE_REASONS)]
Organisation = Annotated[str | None, Query(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


class DecisionBody(Body):
    """One person, two, or not to be told; why, and on what evidence: codes of closed lists."""

    decision: Literal["same", "different", "cannot_tell"]
    reason: Annotated[Code, OneOf(WHY)]
    evidence: list[Annotated[Code, OneOf(EVIDENCE)]] = Field(min_length=1, max_length=8)


class ConfirmBody(Body):
    """The second reviewer's word."""

    agree: bool


class WithdrawBody(Body):
    """Why a decision is taken back."""

    reason: Annotated[Code, OneOf(TAKEN_BACK)]


class RecordBody(Body):
    """A record of the calling agency's own."""

    flow: Code
    record_ref: RecordRef


class WrongPersonBody(Body):
    """What is wrong, and how the caller knows: about a view of one's own, or an agency about its own record."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [name], "properties": {name: {"not": {"type": "null"}}, other: {"type": "null"}}}
                for name, other in (("view", "record"), ("record", "view"))
            ]
        }
    )

    view: Opaque | None = None
    record: RecordBody | None = None
    what: Annotated[Code, OneOf(WHAT_IS_WRONG)]
    how: Annotated[Code, OneOf(WRONG_PERSON_HOW)]
    organisation: Code | None = None


@router.get("/reviews", responses={200: {"model": QueuePage}})
def queue(
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    state: State = "waiting",
    reason: Reason = None,
    agency: Organisation = None,
    waiting_days: Annotated[int, Query(ge=0, le=3650)] = 0,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
) -> JSONResponse:
    """Uncertain pairs, oldest first: why each waits, since when, between whom.  Never how likely it is."""
    wanted = Wanted(
        state=state, reason=reason, agency=agency, waiting_days=waiting_days, after=cursor, limit=limit
    )  # fmt: skip
    released = reviews.listed(broker.store, broker.trail, broker.keys, broker.vault, caller, wanted, at=now)
    return answer(released, caller)


@router.get("/reviews/codes")
def codes(caller: OfficerDep) -> dict[str, Any]:
    """The closed lists of this API, with their labels."""
    return reviews.labels()


@router.get("/reviews/{review}", responses={200: {"model": Review}})
def show(review: ReviewId, caller: OfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep) -> JSONResponse:
    """One pair, masked: which fields agree and how rarely by chance, which numbers conflict, the waterfall."""
    released = reviews.opened(broker.store, broker.trail, broker.keys, service, caller, review, at=now)
    return answer(released, caller)


@router.post("/reviews/{review}/decision", status_code=201, responses={201: {"model": Decided}})
def decide(
    review: ReviewId, body: DecisionBody, caller: ActingOfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> JSONResponse:
    """Decide a pair; in force from the next night, or once a second reviewer has confirmed."""
    released = reviews.decide(
        broker.store,
        broker.trail,
        broker.keys,
        service,
        caller,
        review,
        body.decision,
        reason=body.reason,
        evidence=body.evidence,
        at=now,
    )
    return answer(released, caller, status=201)


@router.post("/reviews/{review}/confirm", status_code=201, responses={201: {"model": Decided}})
def confirm(
    review: ReviewId, body: ConfirmBody, caller: ActingOfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> JSONResponse:
    """Confirm another reviewer's decision, or send the pair on."""
    released = reviews.confirm(
        broker.store, broker.trail, broker.keys, service, caller, review, agree=body.agree, at=now
    )
    return answer(released, caller, status=201)


@router.post("/reviews/{review}/withdraw", status_code=201, responses={201: {"model": Decided}})
def withdraw(
    review: ReviewId, body: WithdrawBody, caller: ActingOfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> JSONResponse:
    """Take a decision back; the pair waits again.  A sever is nobody's to take back."""
    released = reviews.withdraw(
        broker.store, broker.trail, broker.keys, service, caller, review, reason=body.reason, at=now
    )
    return answer(released, caller, status=201)


@router.get("/reviews/{review}/ask", responses={200: {"model": Asking}})
def ask(review: ReviewId, caller: OfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep) -> JSONResponse:
    """Whom to ring at the two agencies, and the reference by which each finds its own record."""
    released = reviews.ask(broker.store, broker.trail, broker.keys, service, caller, review, at=now)
    return answer(released, caller)


@router.get("/record-questions/{reference}", responses={200: {"model": Question}})
def question(
    reference: Reference, caller: AgencyDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> JSONResponse:
    """Which record of the calling agency a reviewer's reference is about, and what to check of it."""
    released = reviews.question(broker.store, broker.trail, broker.keys, service, caller, reference, at=now)
    return answer(released, caller)


@router.post("/wrong-person", status_code=201, responses={201: {"model": Reported}})
def wrong_person(
    body: WrongPersonBody, caller: CallerDep, broker: BrokerDep, service: ServiceDep, now: NowDep, pace: PaceDep
) -> Leaving:
    """Say that two people are mixed up: a reviewer looks at the link in doubt.  The answer tells nothing of it."""
    if (body.view is None) == (body.record is None):
        raise Malformed("view or record: one of the two is due")
    released = reviews.wrong_person(
        broker.store, broker.trail, broker.keys, service, caller, what=body.what, how=body.how, view=body.view,
        organisation=body.organisation, record=(body.record.flow, body.record.record_ref) if body.record else None,
        at=now,
    )  # fmt: skip
    return Leaving.of(plain(released.answer), released, pace)
