"""A holder's own-data ledger: who was shown what of its records, when and why; its read receipts; recalled answers.

For the organisation's machine, and for those of its people who answer for its data.  A record is named in a body,
never in a URL.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, Field, StringConstraints

from broker import ledger
from broker.api.answers import answer
from broker.api.searches import Body
from broker.dependencies import CallerDep, KeysDep, NowDep, StoreDep, TrailDep
from broker.ledger import Collected, Latest, Page, Recalls
from broker.store.notices import Which

router = APIRouter(prefix="/v1/ledger", tags=["ledger"])

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
RecordRef = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._=-]{1,128}$")]


class RecordBody(Body):
    """One of the caller's own records."""

    record_ref: RecordRef


class ReadBody(Body):
    """What has arrived: notices, and recalled answers."""

    notices: list[Id] = Field(default_factory=list, max_length=500)
    recalls: list[Id] = Field(default_factory=list, max_length=500)


@router.get("", responses={200: {"model": Page}})
def listed(
    caller: CallerDep,
    store: StoreDep,
    trail: TrailDep,
    keys: KeysDep,
    now: NowDep,
    which: Which = "all",
    since: AwareDatetime | None = None,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
) -> JSONResponse:
    """Who was shown what of the caller's own organisation's records, oldest first; `new`: not yet read."""
    when: datetime | None = since
    released = ledger.listed(store, trail, keys, caller, which=which, since=when, after=cursor, at=now)
    return answer(released, caller)


@router.post("/accesses", responses={200: {"model": Latest}})
def latest(
    body: RecordBody, caller: CallerDep, store: StoreDep, trail: TrailDep, keys: KeysDep, now: NowDep
) -> JSONResponse:
    """The latest 25 accesses of one record, newest first."""
    released = ledger.latest(store, trail, keys, caller, record_ref=body.record_ref, at=now)
    return answer(released, caller)


@router.get("/recalls", responses={200: {"model": Recalls}})
def recalls(caller: CallerDep, store: StoreDep, trail: TrailDep, now: NowDep) -> JSONResponse:
    """Answers to the caller's own people that showed several persons as one, and are not to be used any more."""
    released = ledger.recalls(store, trail, caller, at=now)
    return answer(released, caller)


@router.post("/read", status_code=201, responses={201: {"model": Collected}})
def read(body: ReadBody, caller: CallerDep, store: StoreDep, trail: TrailDep, now: NowDep) -> JSONResponse:
    """The read receipt: these notices and recalls have arrived.  Twice does no harm."""
    released = ledger.collected(store, trail, caller, notices=body.notices, recalls=body.recalls, at=now)
    return answer(released, caller, status=201)
