"""Where information governance and operators begin: how the log stands, what waits, what is late, what falls due."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from broker import overview, reports
from broker.dependencies import BrokerDep, NowDep, OfficerDep
from broker.settings import GOVERNANCE
from broker.signin import INSPECTOR
from broker.web.pages import PageRoute, only, page

router = APIRouter(
    prefix="/ig", route_class=PageRoute, include_in_schema=False, dependencies=[only(*GOVERNANCE, INSPECTOR)]
)
operations = APIRouter(
    prefix="/operations", route_class=PageRoute, include_in_schema=False, dependencies=[only("OPERATOR")]
)

QUEUES: Final = {
    "break_glass": "Emergency access to review",
    "flag": "Alerts: flagged by a rule or a person",
    "sample": "Sampled disclosures to review",
    "second": "Decisions that wait for a second reviewer",
    "wrong_person": "Reports of a wrong person, with link reviewers",
    "erasure": "Erasures that wait for a second person",
}
PLACES: Final[Mapping[str, str]] = {
    "break_glass": "/reviews?kind=break_glass",
    "flag": "/reviews?kind=flag",
    "sample": "/reviews?kind=sample",
    "second": "/reviews?state=decided",
    "erasure": "/rights#erasures",
}
"""Where the work of each queue is done by whoever sees this page; the others' is not theirs."""
STATES: Final = {"STALE": "Out of date", "NOT_CONNECTED": "Not connected", "PAUSED": "Paused", "CURRENT": "Current"}


@router.get("")
def dashboard(request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """The log in words first; then queues, feeds, agreements."""
    seen = overview.overview(broker.store, broker.trail, caller, at=now)
    return page(
        request,
        "dashboard.html",
        caller,
        seen=seen,
        queues=QUEUES,
        places=PLACES if caller.role in GOVERNANCE else {},
        states=STATES,
        names=reports.organisations(broker.store),
    )


@operations.get("")
def operation(request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Runs, feeds, witnesses, room: counts and states alone."""
    seen = overview.operation(broker.store, broker.trail, broker.settings, caller, at=now)
    return page(request, "operations.html", caller, seen=seen, states=STATES, names=reports.organisations(broker.store))
