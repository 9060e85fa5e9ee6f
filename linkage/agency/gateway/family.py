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
from linkage.agency.gateway.words import PURPOSES, kind_of

router = APIRouter()

EVENTS_AT_FIRST = 20
GAP_MONTHS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events of the chronology to show: codes and years alone, as they go into an address."""

    organisation: str = ""
    category: str = ""
    basis: str = ""  # fact or opinion
    since: str = ""  # a year
    until: str = ""

    def __bool__(self) -> bool:
        return self != Wanted()

    def has(self, event: Event) -> bool:
        """Whether an event is one of them."""
        return (
            self.organisation in ("", event.organisation)
            and self.category in ("", event.category)
            and self.basis in ("", "opinion" if event.opinion else "fact")
            and (not self.since.isdecimal() or event.on.year >= int(self.since[:4]))
            and (not self.until.isdecimal() or event.on.year <= int(self.until[:4]))
        )


ALL = Wanted()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Months between two shown events in which nothing is shown; which does not mean that nothing happened."""

    since: date
    until: date


@router.get("/views/{view}")
def show(
    view: str,
    request: Request,
    session: SearcherDep,
    gateway: GatewayDep,
    organisation: str = "",
    category: str = "",
    basis: str = "",
    since: str = "",
    until: str = "",
) -> Response:
    """The page of the service.  Where an agreement or a restriction has changed meanwhile it is decided again."""
    box = view_box(gateway, session, view)
    if outdated(gateway, box):  # of an emergency, too: what it opened is over, and another needs another reason
        return disclose_again(gateway, session, box.content)
    shown = FamilyView.model_validate(box.content["view"])
    wanted = Wanted(organisation=organisation, category=category, basis=basis, since=since, until=until)
    return gateway.page(request, "view.html", session, **context(gateway, box, shown, wanted))


@router.post("/views/{view}/print")
def print_anew(view: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """The view on paper: a disclosure of its own, decided and recorded again, whose receipt the paper bears."""
    check_form(request, session, form)
    box = view_box(gateway, session, view)
    return disclose_again(gateway, session, box.content, then="/paper")


@router.get("/views/{view}/paper")
def paper(view: str, request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """The view as it is printed: all of it, and nothing to click but the browser's own print."""
    box = view_box(gateway, session, view)
    if outdated(gateway, box):
        return disclose_again(gateway, session, box.content, then="/paper")
    shown = FamilyView.model_validate(box.content["view"])
    return gateway.page(request, "view.html", session, **context(gateway, box, shown), printing=True)


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


def context(gateway: Gateway, box: Box, view: FamilyView, wanted: Wanted = ALL) -> dict[str, Any]:
    """What the page says, beyond the view itself."""
    typed = Typed.from_json(box.content["typed"])
    some = sorted(filter(wanted.has, view.chronology), key=lambda event: (event.on, event.category), reverse=True)
    first, later = _split(list(some) if wanted else with_gaps(some))
    return {
        "box": box,
        "organisation": gateway.names((*view.tiles, *view.others)),
        "view": view,
        "typed": typed,
        "contact": contact_of(gateway, box.content.get("contact", "")),
        "purpose": "Immediate danger" if view.emergency else PURPOSES[view.purpose].label,
        "threshold": threshold_in_words(view.threshold),
        "drawing": network.draw(view.person, view.family, this_year=gateway.now().year),
        "drawing_limit": network.LIMIT,
        "wanted": wanted,
        "some_events": len(some),
        "offered": _offered(gateway, view),
        "first_events": first,
        "later_events": later,
        "withheld": reasons(view.withheld),
    }


def _offered(gateway: Gateway, view: FamilyView) -> dict[str, list[dict[str, str]]]:
    """What the chronology can be narrowed to: only what occurs in it."""
    name = gateway.names((*view.tiles, *view.others))
    years = [str(year) for year in sorted({event.on.year for event in view.chronology}, reverse=True)]
    return {
        "organisation": sorted(
            ({"value": one, "text": name(one)} for one in {event.organisation for event in view.chronology}),
            key=lambda one: one["text"],
        ),
        "category": sorted(
            ({"value": one, "text": kind_of(one)} for one in {event.category for event in view.chronology}),
            key=lambda one: one["text"],
        ),
        "basis": [{"value": "fact", "text": "Facts"}, {"value": "opinion", "text": "Opinions"}],
        "since": [{"value": year, "text": year} for year in years],
        "until": [{"value": year, "text": year} for year in years],
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
