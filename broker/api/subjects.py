"""Rights of those the log is about: legal holds, erasure by two people, and the pack that says who saw what.

For information governance, signed in at the broker: whatever changes something carries the session's token in
X-CSRF-Token, which an answer here gives as `csrf`.  A subject is named in a body, never in a URL.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse
from pydantic import Field, StringConstraints

from audit.events import SECTIONS
from broker import access, erasure, lifting
from broker.access import Rulings
from broker.api.answers import answer, plain
from broker.api.forms import CLOSED, Like, OneOf
from broker.api.searches import Body, ServiceDep
from broker.dependencies import ActingOfficerDep, BrokerDep, NowDep, OfficerDep
from broker.erasure import REFERENCE, Erasure, Hold
from broker.lifting import Lift
from broker.linked import InService
from broker.store import Store
from broker.store.tombstones import Tombstones

router = APIRouter(prefix="/audit/subjects", tags=["subjects"])

Id = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
EventId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z_]+$", max_length=32)]
SubjectId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+/[A-Za-z0-9._=-]+)?$", max_length=256),
    Like(REFERENCE),
]


Section = Annotated[str, OneOf(SECTIONS)]
Part = Annotated[str, OneOf((*SECTIONS, access.WHOLE))]


class Subject(Body):
    """Whom: a person id, or a record as agency/flow/record_ref.  `alone`: no other id of theirs."""

    subject: SubjectId
    alone: bool = False


class HoldBody(Subject):
    """A legal hold, and why: a code."""

    reason: Annotated[Code, OneOf(erasure.HOLDS)]


class ErasureBody(Subject):
    """An erasure, and on whose word: a code."""

    authority: Annotated[Code, OneOf(erasure.AUTHORITIES)]


class DecisionBody(Body):
    """A second person's word; a refusal says why, by a code."""

    approve: bool
    reason: Annotated[Code, OneOf(erasure.REFUSED)] | None = None


class LiftDecisionBody(Body):
    """The same of a lift."""

    approve: bool
    reason: Annotated[Code, OneOf(lifting.REFUSED)] | None = None


class LiftBody(Subject):
    """That somebody who was erased may be linked again, and why: a code.  `alone`: no id erased together with it."""

    reason: Annotated[Code, OneOf(lifting.LIFTS)]


class ReportBody(Subject):
    """A pack: who asks, and what the officer decided beyond what holds from the start.

    `withhold`: by event, a section (or `*` for all of it) and the exemption.  `open`: by event, sections to show.
    """

    relation: Annotated[Code, OneOf(access.RELATIONS)]
    withhold: dict[EventId, dict[Part, Annotated[Code, OneOf(access.EXEMPTIONS)]]] = Field(
        default_factory=dict, max_length=2000, json_schema_extra=CLOSED
    )
    open: dict[EventId, list[Section]] = Field(default_factory=dict, max_length=2000, json_schema_extra=CLOSED)


class Issued(Body):
    """A subject's pack."""

    report: str
    sha256: str
    ledger: dict[str, Any]
    pack: str
    csrf: str
    receipt: dict[str, Any]


@router.get("/codes")
def codes(caller: OfficerDep) -> dict[str, Any]:
    """The closed lists: authorities, reasons, relations, exemptions."""
    erasure.may_act(caller)
    return {
        "authorities": dict(erasure.AUTHORITIES), "refused": dict(erasure.REFUSED), "lifts": dict(lifting.LIFTS),
        "lifts_refused": dict(lifting.REFUSED), "holds": dict(erasure.HOLDS),
        "relations": dict(access.RELATIONS), "exemptions": dict(access.EXEMPTIONS), "csrf": caller.csrf,
    }  # fmt: skip


@router.get("/holds")
def list_holds(caller: OfficerDep, broker: BrokerDep) -> dict[str, Any]:
    """Every legal hold, newest first; never on whom."""
    listed = erasure.holds(broker.store, caller)
    return {"holds": [plain(one) for one in listed], "csrf": caller.csrf}


@router.post("/holds", status_code=201, responses={201: {"model": Hold}})
def set_hold(
    body: HoldBody, caller: ActingOfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> JSONResponse:
    """Lay a legal hold on a subject: nothing of it is erased or expires until it is released."""
    ids = _ids(broker.store, service, body)
    released = erasure.hold(broker.store, broker.trail, broker.keys, caller, ids=ids, reason=body.reason, at=now)
    return answer(released, caller, status=201)


@router.post("/holds/{hold}/release", status_code=201, responses={201: {"model": Hold}})
def release_hold(hold: Id, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep) -> JSONResponse:
    """Release a legal hold."""
    released = erasure.release(broker.store, broker.trail, caller, hold=hold, at=now)
    return answer(released, caller, status=201)


@router.get("/erasures")
def list_erasures(caller: OfficerDep, broker: BrokerDep) -> dict[str, Any]:
    """Every erasure, newest first; never of whom."""
    listed = erasure.erasures(broker.store, caller)
    return {"erasures": [plain(one) for one in listed], "csrf": caller.csrf}


@router.post("/erasures", status_code=201, responses={201: {"model": Erasure}})
def propose_erasure(
    body: ErasureBody, caller: ActingOfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> JSONResponse:
    """Propose to erase a subject: somebody else must approve it.  409 with the reason if a legal hold forbids it."""
    ids = _ids(broker.store, service, body)
    released = erasure.propose(
        broker.store, broker.trail, broker.keys, caller, ids=ids, authority=body.authority, at=now
    )
    return answer(released, caller, status=201)


@router.post("/erasures/{proposed}/decision", status_code=201, responses={201: {"model": Erasure}})
def decide_erasure(
    proposed: Id, body: DecisionBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep
) -> JSONResponse:
    """Carry out an erasure that somebody else has proposed, or refuse it with a reason; it can't be undone."""
    if body.approve:
        kept = Tombstones(broker.settings.data_dir)
        released = erasure.approve(broker.store, broker.trail, broker.keys, kept, caller, erasure=proposed, at=now)
    else:
        released = erasure.refuse(
            broker.store, broker.trail, caller, erasure=proposed, reason=body.reason or "", at=now
        )
    return answer(released, caller, status=201)


@router.get("/lifts")
def list_lifts(caller: OfficerDep, broker: BrokerDep) -> dict[str, Any]:
    """Every lift of an erasure, newest first; never of whom."""
    listed = lifting.lifts(broker.store, caller)
    return {"lifts": [plain(one) for one in listed], "csrf": caller.csrf}


@router.post("/lifts", status_code=201, responses={201: {"model": Lift}})
def propose_lift(body: LiftBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep) -> JSONResponse:
    """Propose that who was erased may be linked again, if it is sent again: somebody else must confirm it."""
    with broker.store.reading() as reading:
        ids = erasure.subject_ids(reading, None, body.subject, alone=True)
    released = lifting.propose(
        broker.store, broker.trail, broker.keys, caller, ids=ids, reason=body.reason, alone=body.alone, at=now
    )
    return answer(released, caller, status=201)


@router.post("/lifts/{lift}/decision", status_code=201, responses={201: {"model": Lift}})
def decide_lift(
    lift: Id, body: LiftDecisionBody, caller: ActingOfficerDep, broker: BrokerDep, now: NowDep
) -> JSONResponse:
    """Confirm a lift that somebody else has proposed, or refuse it with a reason."""
    if body.approve:
        kept = Tombstones(broker.settings.data_dir)
        released = lifting.confirm(broker.store, broker.trail, kept, caller, lift=lift, at=now)
    else:
        released = lifting.refuse(broker.store, broker.trail, caller, lift=lift, reason=body.reason or "", at=now)
    return answer(released, caller, status=201)


@router.post("/reports", status_code=201, responses={201: {"model": Issued}})
def issue_report(
    body: ReportBody, caller: ActingOfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> JSONResponse:
    """Issue a subject's pack: `ledger` to print, `pack` the zip in base64, `sha256` of it as the log has it."""
    released = access.report(
        broker.store, broker.trail, broker.keys, service.area(), caller, ids=_ids(broker.store, service, body),
        relation=body.relation, rulings=Rulings(withheld=body.withhold, opened=body.open), at=now,
    )  # fmt: skip
    pack = released.answer
    content = {
        "report": pack.report, "sha256": pack.sha256, "ledger": pack.ledger,
        "pack": base64.b64encode(pack.content).decode(), "csrf": caller.csrf, "receipt": released.receipt.to_json(),
    }  # fmt: skip
    return JSONResponse(content, status_code=201)


def _ids(store: Store, service: InService, body: Subject) -> tuple[str, ...]:
    area = service.area()
    with store.reading() as reading:
        return erasure.subject_ids(reading, area, body.subject, alone=body.alone)
