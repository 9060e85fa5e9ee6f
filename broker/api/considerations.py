"""What a holder is to consider: its own items, read and decided by a person at its gateway."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from broker import considering
from broker.api.answers import answer
from broker.api.forms import OneOf
from broker.api.searches import Body, Code, in_service
from broker.considering import Considered, Page, Schedule, State
from broker.dependencies import KeysDep, NowDep, PersonDep, StoreDep, TrailDep
from broker.wiring import Broker

router = APIRouter(prefix="/v1/considerations", tags=["consider"])

ConsiderationId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


class DecisionBody(Body):
    """That the holder has shared, or why it will not: a code."""

    decision: Literal["disclosed", "declined"]
    reason: Annotated[Code, OneOf(considering.DECLINED)] | None = None


def worker(broker: Broker) -> Callable[[], None]:
    """Start holding rounds on the schedule, beside the requests; returns how to stop it."""

    def held(slot: datetime, at: datetime) -> None:
        considering.raise_due(
            broker.store, broker.trail, broker.keys, in_service(broker), partnership=broker.settings.partnership,
            slot=slot, at=at,
        )  # fmt: skip

    started = Schedule(held, minutes=broker.settings.notice_minutes)
    started.start()
    return started.stop


@router.get("", responses={200: {"model": Page}})
def listed(
    caller: PersonDep,
    store: StoreDep,
    trail: TrailDep,
    keys: KeysDep,
    now: NowDep,
    state: State = "open",
    cursor: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
) -> JSONResponse:
    """The caller's organisation's own items, oldest first: which record, who asked and why, what little was missing."""
    released = considering.listed(store, trail, keys, caller, state=state, after=cursor, at=now)
    return answer(released, caller)


@router.get("/codes")
def codes(caller: PersonDep) -> dict[str, Any]:
    """Why an item may be declined, with labels."""
    return {"declined": dict(considering.DECLINED)}


@router.post("/{consideration}/decision", status_code=201, responses={201: {"model": Considered}})
def decide(
    consideration: ConsiderationId,
    body: DecisionBody,
    caller: PersonDep,
    store: StoreDep,
    trail: TrailDep,
    keys: KeysDep,
    now: NowDep,
) -> JSONResponse:
    """Say that it was shared, or why not; once and for good."""
    released = considering.decide_on(
        store, trail, keys, caller, consideration, body.decision, reason=body.reason, at=now
    )
    return answer(released, caller, status=201)
