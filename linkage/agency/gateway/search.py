"""The search form and its results: typed and encoded here, decided by the broker, shown here.

Names stay in the sealed store of this gateway; every address carries random ids alone, and every change is a POST
answered with 303.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from linkage.agency import clock
from linkage.agency.gateway import typed as forms
from linkage.agency.gateway.answers import Candidate, SearchAnswer, reasons
from linkage.agency.gateway.broker_client import Actor, BrokerRefused
from linkage.agency.gateway.forms import FormDep
from linkage.agency.gateway.pages import Gateway, GatewayDep
from linkage.agency.gateway.sessions import NotSignedIn, SearcherDep, Session, check_form
from linkage.agency.gateway.store import Box
from linkage.agency.gateway.typed import Typed
from linkage.agency.gateway.words import PURPOSES

router = APIRouter()

ORGANISATION = "*"
"""The owner of what the whole organisation may open: contacts."""
WRONG_EPOCH = "wrong-epoch"
"""How the broker calls the refusal of a search that was encoded under another epoch than is in service."""
CONTACT_LASTS = timedelta(hours=24)


class NotHere(Exception):
    """There is no such page for this person: someone else's, made up and expired are alike."""


@router.get("/work")
def work(request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """What needs me now: decisions, open contacts, and what I have looked at in the last hour."""
    now = gateway.now()
    contacts = gateway.store.latest("contact", ORGANISATION, now=now)
    running = [(clock, contact) for contact in contacts if (clock := gateway.clock(contact)) is not None]
    views = gateway.store.latest("view", session.person.id, now=now)
    return gateway.page(
        request,
        "work.html",
        session,
        contacts=[contact for contact in contacts if gateway.clock(contact) is None],
        due=[contact for _, contact in sorted(running, key=lambda one: one[0].due)],
        waiting=[contact for contact in contacts if contact.content.get("asked") and session.decides],
        views=[(view.id, view.expires_at, view.content) for view in views],
        purposes=PURPOSES,
    )


@router.get("/searches/new")
def form(request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """The search form, with whatever this person typed in the last hour still there."""
    drafts = gateway.store.latest("draft", session.person.id, now=gateway.now(), limit=1)
    draft = drafts[0].content if drafts else {}
    typed = Typed.from_json(draft["typed"]) if draft else Typed()
    faults = _faults(gateway, session, typed) if draft.get("tried", False) else {}
    if draft.get("too_many"):
        faults = {"child-postcode": draft["too_many"]} | faults
    return gateway.page(
        request,
        "search.html",
        session,
        typed=typed,
        faults=faults,
        fault_links=[{"text": message, "href": f"#{box}"} for box, message in faults.items()],
        purposes=[
            {"value": one.code, "text": one.label, "hint": {"text": one.basis.label}} for one in PURPOSES.values()
        ],
        focus=draft.get("focus", ""),
        confirmed_at=_confirmed_at(session, typed.purpose),
        forms=forms,
    )


@router.post("/searches/new")
def submit(request: Request, form: FormDep, gateway: GatewayDep) -> Response:
    """Search; or add or remove a household member, or clear the form.

    What was typed is kept first: a session that has ended loses nothing, and the same person finds it again.
    """
    session = gateway.sessions.find(request)
    if session is None:
        raise NotSignedIn(lapsed=False)
    check_form(request, session, form)
    typed, action = forms.read(form), form.text("action")
    if session.lapsed:
        keep_draft(gateway, session, typed)
        raise NotSignedIn(lapsed=True)
    if not session.may_search:
        raise NotHere
    if action == "clear":
        gateway.store.drop("draft", session.person.id)
        return RedirectResponse("/searches/new", 303)
    if action == "add":
        typed = typed.with_person_added()
        keep_draft(gateway, session, typed, focus=f"person-{len(typed.household) - 1}-given_name")
        return RedirectResponse("/searches/new", 303)
    if action.startswith("remove-") and action[7:].isdecimal():
        keep_draft(gateway, session, typed.without_person(int(action[7:])), focus="household")
        return RedirectResponse("/searches/new", 303)
    if _faults(gateway, session, typed):
        keep_draft(gateway, session, typed, tried=True)
        return RedirectResponse("/searches/new", 303)
    keep_draft(gateway, session, typed)
    return _search(gateway, session, typed)


@router.get("/searches/{search}")
def results(search: str, request: Request, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Who it may be: matches, then possible matches; or that there is nothing to show, and whom to ring."""
    box = _search_box(gateway, session, search)
    if outdated(gateway, box):
        keep_draft(gateway, session, replace(Typed.from_json(box.content["typed"]), acknowledged=False))
        return RedirectResponse("/searches/new", 303)
    answer = SearchAnswer.model_validate(box.content["answer"])
    ordered = sorted(answer.candidates, key=lambda one: (one.band != "match", one.birth_year or 0, one.candidate))
    return gateway.page(
        request,
        "results.html",
        session,
        box=box,
        organisation=gateway.names(answer.organisations),
        answer=answer,
        candidates=ordered,
        reasons=reasons(answer.refusals, across=answer.refused),
        typed=Typed.from_json(box.content["typed"]),
        contact=contact_of(gateway, box.content.get("contact", "")),
        purposes=PURPOSES,
    )


@router.post("/searches/{search}/open")
def open_candidate(search: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Open the family view of one candidate: a disclosure of its own, decided and recorded."""
    check_form(request, session, form)
    box = _search_box(gateway, session, search)
    answer = SearchAnswer.model_validate(box.content["answer"])
    for candidate in answer.candidates:
        if candidate.candidate == form.text("candidate"):
            return disclose(gateway, session, box, candidate)
    raise NotHere


@router.post("/searches/{search}/again")
def again(search: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep) -> Response:
    """Back to the form, filled in as it was."""
    check_form(request, session, form)
    box = _search_box(gateway, session, search)
    keep_draft(gateway, session, replace(Typed.from_json(box.content["typed"]), acknowledged=False))
    return RedirectResponse("/searches/new", 303)


@router.post("/contacts/{contact}/search")
def search_in_contact(
    contact: str, request: Request, form: FormDep, session: SearcherDep, gateway: GatewayDep
) -> Response:
    """A new search in a contact that is open: its case reference is not typed again."""
    check_form(request, session, form)
    content = open_contact(gateway, contact).content
    keep_draft(gateway, session, Typed(case_reference=content["case_reference"], purpose=content["purpose"]))
    return RedirectResponse("/searches/new", 303)


def actor(session: Session) -> Actor:
    """Whoever is signed in, as the broker is told: an opaque id, a role, a session."""
    return Actor(person=session.person.id, role=session.person.role, sid=session.sid)


def disclose(gateway: Gateway, session: Session, search: Box, candidate: Candidate) -> Response:
    """Ask the broker for one candidate's family view, keep it sealed until it ends, and go there."""
    content = search.content
    asked = {"search": content["answer"]["search"], "candidate": candidate.candidate}
    return disclose_again(gateway, session, asked | {name: content.get(name, "") for name in ("typed", "contact")})


def disclose_again(gateway: Gateway, session: Session, kept: Mapping[str, Any], *, then: str = "") -> Response:
    """The same by what is `kept` with a view: search, candidate, what was typed, and the contact it belongs to.

    `then`: which page of the new view to go to.
    """
    asked = {name: kept[name] for name in ("search", "candidate")}
    in_force = gateway.broker.in_force()  # before: what changes meanwhile is then noticed
    view, raw = gateway.broker.disclose(asked["search"], asked["candidate"], actor(session))
    now = gateway.now()
    contact = kept.get("contact", "")
    view_id = gateway.store.put(
        "view",
        session.person.id,
        {"view": raw, "typed": kept["typed"], "contact": contact, "in_force": in_force, **asked},
        now=now,
        lasts=min(view.ends_at - now, timedelta(minutes=gateway.settings.typed_minutes)),
    )
    box = contact_of(gateway, contact)
    if box is not None:
        known = {"opened": box.content["opened"] | {session.person.id: asked}, "birth_year": view.person.birth_year}
        gateway.store.replace("contact", ORGANISATION, box.id, box.content | known, now=now)
    return RedirectResponse(f"/views/{view_id}{then}", 303)


def outdated(gateway: Gateway, box: Box) -> bool:
    """Whether what is in force has changed since an answer that is kept: then it is not shown, but asked for again."""
    return "in_force" in box.content and box.content["in_force"] != gateway.broker.in_force()


def contact_of(gateway: Gateway, contact: str) -> Box | None:
    """A contact of this organisation, if it is still kept."""
    return gateway.store.get("contact", ORGANISATION, contact, now=gateway.now())


def open_contact(gateway: Gateway, contact: str) -> Box:
    """The same; raises NotHere."""
    box = contact_of(gateway, contact)
    if box is None:
        raise NotHere
    return box


def keep_draft(
    gateway: Gateway, session: Session, typed: Typed, *, tried: bool = False, focus: str = "", too_many: str = ""
) -> None:
    """Keep what is typed, sealed, for this person alone and for an hour at most."""
    gateway.store.drop("draft", session.person.id)
    gateway.store.put(
        "draft",
        session.person.id,
        {"typed": typed.as_json(), "tried": tried, "focus": focus, "too_many": too_many},
        now=gateway.now(),
        lasts=timedelta(minutes=gateway.settings.typed_minutes),
    )


def _search(gateway: Gateway, session: Session, typed: Typed) -> Response:
    now = gateway.now()
    in_force = gateway.broker.in_force()  # before: what changes meanwhile is then noticed
    case, answer, raw = _asked(gateway, session, typed, now)
    if answer.too_many:
        keep_draft(gateway, session, typed, tried=True, too_many=answer.too_many)
        return RedirectResponse("/searches/new", 303)
    if typed.purpose not in session.acknowledged:
        gateway.sessions.confirm_purpose(session, typed.purpose)
    contact = _contact_for(gateway, typed, case)
    search_id = gateway.store.put(
        "search",
        session.person.id,
        {"answer": raw, "typed": typed.as_json(), "contact": contact, "in_force": in_force},
        now=now,
        lasts=timedelta(minutes=gateway.settings.typed_minutes),
    )
    gateway.store.drop("draft", session.person.id)
    if answer.only_match is not None:
        return disclose(gateway, session, _search_box(gateway, session, search_id), answer.only_match)
    return RedirectResponse(f"/searches/{search_id}", 303)


def _asked(gateway: Gateway, session: Session, typed: Typed, now: datetime) -> tuple[str, SearchAnswer, dict[str, Any]]:
    """The case's token and the broker's answer: asked again under the other key where the broker has changed to it."""
    refused: BrokerRefused | None = None
    for keys in gateway.encoder.each_key():
        body = gateway.encoder.search(typed, today=clock.today(now), keys=keys)
        try:
            answer, raw = gateway.broker.search(body, actor(session))
        except BrokerRefused as other:
            if other.code != WRONG_EPOCH:
                raise
            refused = other
            continue
        gateway.encoder.taken(keys)
        return body["case"], answer, raw
    assert refused is not None
    raise refused


def _search_box(gateway: Gateway, session: Session, search: str) -> Box:
    box = gateway.store.get("search", session.person.id, search, now=gateway.now())
    if box is None:
        raise NotHere
    return box


def _contact_for(gateway: Gateway, typed: Typed, case: str) -> str:
    """The organisation's contact of this case, made if it is the first search in it; its id."""
    for box in gateway.store.latest("contact", ORGANISATION, now=gateway.now()):
        if box.content["case"] == case:
            gateway.store.replace(
                "contact", ORGANISATION, box.id, box.content | {"purpose": typed.purpose}, now=gateway.now()
            )
            return box.id
    content: dict[str, Any] = {
        "case": case,
        "case_reference": typed.case_reference,
        "purpose": typed.purpose,
        "birth_year": None,
        "opened": {},  # person id -> their own search and candidate, which is what they may decide on
        "asked": False,
        "threshold": None,
    }
    return gateway.store.put("contact", ORGANISATION, content, now=gateway.now(), lasts=CONTACT_LASTS)


def _faults(gateway: Gateway, session: Session, typed: Typed) -> dict[str, str]:
    confirmed = typed.purpose in session.acknowledged
    return forms.faults(typed, confirmed=confirmed, today=clock.today(gateway.now()))


def _confirmed_at(session: Session, purpose: str) -> datetime | None:
    at = session.acknowledged.get(purpose)
    return datetime.fromisoformat(at) if at else None


def as_file(content: Any, name: str) -> Response:
    """JSON as a download; `name` is a report's name and an opaque id, never a person's."""
    return Response(
        json.dumps(content, indent=2, ensure_ascii=False),
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{name}.json"'},
    )
