"""Planning statistics: declared tables, a release a quarter, a second person's check, figures as JSON and CSV.

Planners and information governance sign in at the broker: whatever changes something carries the session's token in
X-CSRF-Token, which an answer here gives as `csrf`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response
from pydantic import StringConstraints

from broker import statistics
from broker.api.answers import answer, plain
from broker.api.forms import OneOf
from broker.api.searches import Body, ServiceDep
from broker.dependencies import ActingOfficerDep, KeysDep, NowDep, OfficerDep, StoreDep, TrailDep
from broker.statistics import REJECTED, Answer, Listed

router = APIRouter(prefix="/v1/statistics", tags=["statistics"])

ReleaseId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
TableId = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64),
    OneOf([one["table"] for one in statistics.declared()]),
]
Period = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-Q[1-4]$")]
Reason = Annotated[str, StringConstraints(pattern=f"^({'|'.join(REJECTED)})$"), OneOf(REJECTED)]


class ReleaseBody(Body):
    """Which declared table, of which quarter that is over."""

    table: TableId
    period: Period


class CheckBody(Body):
    """A second person's word; a refusal says why, by a code."""

    agree: bool
    reason: Reason | None = None


@router.get("/tables")
def tables(caller: OfficerDep) -> dict[str, Any]:
    """The tables that may be asked for.  Nothing else is ever counted."""
    return {"tables": statistics.declared(), "rejected": dict(REJECTED), "csrf": caller.csrf}


@router.get("/releases")
def releases(caller: OfficerDep, store: StoreDep) -> dict[str, Any]:
    """What has been released or waits for its check, newest first, without figures."""
    listed = statistics.releases(store, caller)
    return {"releases": [plain(one) for one in listed], "csrf": caller.csrf}


@router.post("/releases", status_code=201, responses={201: {"model": Answer}})
def ask(
    body: ReleaseBody,
    caller: ActingOfficerDep,
    store: StoreDep,
    trail: TrailDep,
    keys: KeysDep,
    service: ServiceDep,
    now: NowDep,
) -> JSONResponse:
    """Ask for one table of one quarter: it is prepared, or, once approved, shown.  A refusal is an answer with why."""
    released = statistics.ask(store, trail, keys, service, caller, table=body.table, period=body.period, at=now)
    return answer(released, caller, status=201)


@router.get("/releases/{release}", responses={200: {"model": Answer}})
def show(release: ReleaseId, caller: OfficerDep, store: StoreDep, trail: TrailDep, now: NowDep) -> JSONResponse:
    """One release: for its planners once approved, for information governance to check it."""
    released = statistics.opened(store, trail, caller, release=release, at=now)
    return answer(released, caller)


@router.get("/releases/{release}/csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
def download(release: ReleaseId, caller: OfficerDep, store: StoreDep, trail: TrailDep, now: NowDep) -> Response:
    """The figures as CSV, symbols and notes at the end."""
    released = statistics.opened(store, trail, caller, release=release, at=now)
    text = statistics.csv_of(released.answer)
    headers = {"Content-Disposition": f'attachment; filename="statistics-{release}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/releases/{release}/check", status_code=201, responses={201: {"model": Listed}})
def check(
    release: ReleaseId, body: CheckBody, caller: ActingOfficerDep, store: StoreDep, trail: TrailDep, now: NowDep
) -> JSONResponse:
    """Approve a release, or refuse it: by information governance, and never by whoever asked for it."""
    released = statistics.check(
        store, trail, caller, release=release, agree=body.agree, reason=body.reason or "", at=now
    )
    return answer(released, caller, status=201)
