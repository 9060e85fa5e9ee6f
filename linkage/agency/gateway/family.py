"""The linked family view: already open?, whom to ring, who knows the child, family, chronology, what is not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from linkage.agency.gateway import network
from linkage.agency.gateway.answers import Event, FamilyView, reasons
from linkage.agency.gateway.forms import FormDep
from linkage.agency.gateway.pages import Gateway, GatewayDep
from linkage.agency.gateway.search import (
    NotHere,
    actor,
    as_file,
    contact_of,
    disclose_again,
    keep_draft,
    outdated,
)
from linkage.agency.gateway.sessions import SearcherDep, Session, check_form
from linkage.agency.gateway.store import Box
from linkage.agency.gateway.typed import Typed
from linkage.agency.gateway.words import PURPOSES

router = APIRouter()

EVENTS_AT_FIRST = 20
GAP_MONTHS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Months between two shown events in which nothing is shown; which does not mean that nothing happened."""

    since: date
    until: date


@router.get("/views/{view}")
def show(view: str, request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """The page of the service.  Where an agreement or a restriction has changed meanwhile it is decided again."""
    box = view_box(gateway, session, view)
    if outdated(gateway, box):
        return disclose_again(gateway, session, box.content)
    shown = FamilyView.model_validate(box.content["view"])
    return gateway.page(request, "view.html", session, **context(gateway, box, shown))


@router.get("/views/{view}/receipt")
def receipt(view: str, session: SearcherDep, gateway: GatewayDep) -> Response:
    """The receipt of this view, for `auditor`: it proves that the disclosure was in the log before it was shown."""
    box = view_box(gateway, session, view)
    return as_file(box.content["view"]["receipt"], f"receipt-{box.id}")


@router.post("/views/{view}/json")
def export(view: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """The view for a case system, with the name as typed: a disclosure of its own, decided and recorded again."""
    check_form(request, session, form)
    box = view_box(gateway, session, view)
    _, raw = gateway.broker.disclose(box.content["search"], box.content["candidate"], actor(session))
    typed = Typed.from_json(box.content["typed"])
    return as_file({"case_reference": typed.case_reference, "name_as_typed": typed.child.name} | raw, f"view-{box.id}")


@router.post("/views/{view}/again")
def again(view: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Back to the form, filled in as it was: to see what is current."""
    check_form(request, session, form)
    keep_draft(gateway, session, Typed.from_json(view_box(gateway, session, view).content["typed"]))
    return RedirectResponse("/searches/new", 303)


def context(gateway: Gateway, box: Box, view: FamilyView) -> dict[str, Any]:
    """What the page says, beyond the view itself."""
    typed = Typed.from_json(box.content["typed"])
    events = with_gaps(sorted(view.chronology, key=lambda event: (event.on, event.category), reverse=True))
    first, later = _split(events)
    return {
        "box": box,
        "organisation": gateway.names((*view.tiles, *view.others)),
        "view": view,
        "typed": typed,
        "contact": contact_of(gateway, box.content.get("contact", "")),
        "purpose": PURPOSES[view.purpose].label if view.purpose in PURPOSES else view.purpose,
        "threshold": threshold_in_words(view.threshold),
        "drawing": network.draw(view.person, view.family, this_year=gateway.now().year),
        "drawing_limit": network.LIMIT,
        "first_events": first,
        "later_events": later,
        "withheld": reasons(view.withheld),
    }


def threshold_in_words(threshold: Any) -> str:
    """The level a decision-maker has recorded, or that none has.

    >>> threshold_in_words(None), threshold_in_words("L4"), threshold_in_words({"level": "L3"})
    ('Threshold not yet decided', 'Level 4', 'Level 3')
    """
    level = threshold.get("level") if isinstance(threshold, dict) else threshold
    return f"Level {level[1:]}" if isinstance(level, str) and level[:1] == "L" else "Threshold not yet decided"


def with_gaps(events: Sequence[Event]) -> list[Event | Gap]:
    """The events as given (newest first), with a gap between two that are more than six months apart."""
    shown: list[Event | Gap] = []
    for event in events:
        newer = shown[-1] if shown else None
        if isinstance(newer, Event) and _months(event.on, newer.on) > GAP_MONTHS:
            shown.append(Gap(since=event.on, until=newer.on))
        shown.append(event)
    return shown


def _months(since: date, until: date) -> int:
    return (until.year - since.year) * 12 + until.month - since.month


def _split(events: list[Event | Gap]) -> tuple[list[Event | Gap], list[Event | Gap]]:
    seen = 0
    for index, entry in enumerate(events):
        seen += isinstance(entry, Event)
        if seen > EVENTS_AT_FIRST:
            return events[:index], events[index:]
    return events, []


def view_box(gateway: Gateway, session: Session, view: str) -> Box:
    box = gateway.store.get("view", session.person.id, view, now=gateway.now())
    if box is None:
        raise NotHere
    return box
