"""Planning statistics as pages: declared tables of a quarter, a second person's check, figures with their symbols."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from broker import reports, statistics
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep, ServiceDep
from broker.errors import Conflict, Malformed, NotAllowed, NotFound, TooMany, WrongState
from broker.settings import GOVERNANCE
from broker.statistics import QUARTERS_BACK, REJECTED, Answer
from broker.web.pages import LONDON, OfficerFormDep, PageRoute, attachment, only, page, sentence
from broker.wiring import Broker

router = APIRouter(
    prefix="/statistics", route_class=PageRoute, include_in_schema=False,
    dependencies=[only("SERVICE_PLANNER", *GOVERNANCE)],
)  # fmt: skip
ReleaseId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
STATES: Final[Mapping[str, str]] = {
    "prepared": "Waits for a second person’s check", "approved": "Approved", "rejected": "Not approved",
    "withheld": "Not published, so that no child can be recognised",
}  # fmt: skip


@router.get("")
def listed(request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """What may be asked for, and what was released or waits; no figures."""
    return _listed(request, caller, broker, now)


@router.post("")
def ask(
    request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> Response:
    """Ask for one declared table of one quarter that is over."""
    try:
        answer = statistics.ask(
            broker.store, broker.trail, broker.keys, service, caller, table=form.get("table", ""),
            period=form.get("period", ""), at=now,
        ).answer  # fmt: skip
    except (Malformed, NotFound, WrongState, Conflict, TooMany, NotAllowed) as wrong:
        return _listed(request, caller, broker, now, faults={"table": sentence(str(wrong))}, typed=form)
    if answer.release is None:
        return _shown(request, caller, broker, answer)
    return RedirectResponse(f"/statistics/{answer.release.release}", 303)


@router.get("/{release}")
def show(release: ReleaseId, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """One release: for its planners once approved, for information governance to check it."""
    answer = statistics.opened(broker.store, broker.trail, caller, release=release, at=now).answer
    return _shown(request, caller, broker, answer)


@router.get("/{release}/csv")
def download(release: ReleaseId, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """The figures as CSV, symbols and notes at the end."""
    answer = statistics.opened(broker.store, broker.trail, caller, release=release, at=now).answer
    text = statistics.csv_of(answer)
    headers = attachment(f"statistics-{release}.csv")
    return PlainTextResponse(text, media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/{release}/check")
def check(
    release: ReleaseId, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """Approve a release, or not, with a reason: by information governance, never by whoever asked."""
    word = form.get("word", "")
    if word != "agree" and word not in REJECTED:
        answer = statistics.opened(broker.store, broker.trail, caller, release=release, at=now).answer
        return _shown(request, caller, broker, answer, faults={"word": "Choose whether it may be published"})
    reason = "" if word == "agree" else word
    statistics.check(broker.store, broker.trail, caller, release=release, agree=not reason, reason=reason, at=now)
    return RedirectResponse("/statistics", 303)


def _listed(
    request: Request,
    caller: Caller,
    broker: Broker,
    now: datetime,
    *,
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    declared = statistics.declared()
    return page(
        request, "statistics.html", caller, status=422 if faults else 200, declared=declared,
        releases=statistics.releases(broker.store, caller), states=STATES, quarters=_quarters(now),
        titles={one["table"]: one["title"] for one in declared}, names=reports.organisations(broker.store),
        fault=bool(faults), faults=faults or {}, typed=typed or {},
    )  # fmt: skip


def _shown(
    request: Request, caller: Caller, broker: Broker, answer: Answer, *, faults: Mapping[str, str] | None = None
) -> Response:
    figures = answer.figures
    return page(
        request, "statistics_release.html", caller, status=422 if faults else 200, answer=answer, figures=figures,
        rows=_rows(figures) if figures else (), states=STATES, rejected=REJECTED,
        names=reports.organisations(broker.store), fault=bool(faults), faults=faults or {},
    )  # fmt: skip


def _rows(figures: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Each figure under the labels of its levels."""
    labels = {
        one["id"]: {level["code"]: level["label"] for level in one["levels"]} | {"total": "Total"}
        for one in figures["dimensions"]
    }
    return tuple(
        (*(labels[name].get(str(row[name]), str(row[name])) for name in labels), str(row["children"]))
        for row in figures["rows"]
    )


def _quarters(now: datetime) -> list[dict[str, str]]:
    """The quarters that are over and may be asked for, the newest first."""
    today: date = now.astimezone(LONDON).date()
    number = today.year * 4 + (today.month - 1) // 3
    found = [f"{one // 4}-Q{one % 4 + 1}" for one in range(number - 1, number - 1 - QUARTERS_BACK, -1)]
    return [{"value": one, "text": one} for one in found]
