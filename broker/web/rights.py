"""Rights of those the log is about: their ledger and its pack (R4), legal holds, erasure by two, and its lift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import RedirectResponse, Response

from broker import access, erasure, lifting, reports
from broker.access import EXEMPTIONS, RELATIONS, WHOLE, Rulings
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep, ServiceDep
from broker.errors import Malformed
from broker.linked import InService
from broker.settings import GOVERNANCE
from broker.store.tombstones import Tombstones
from broker.web.pages import OfficerFormDep, PageRoute, attachment, only, page, sentence
from broker.wiring import Broker

router = APIRouter(prefix="/rights", route_class=PageRoute, include_in_schema=False, dependencies=[only(*GOVERNANCE)])
Id = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
SECTIONS: Final[Mapping[str, str]] = {
    WHOLE: "The whole entry", "who": "Who", "what": "What was shown", "why": "Why", "subjects": "About whom",
    "recipients": "Who received it", "detail": "Detail",
}  # fmt: skip
SHORT: Final[Mapping[str, str]] = {
    "crime": "Crime (Sch 2 para 2)", "law_enforcement": "Law enforcement (s.45(4))",
    "third_party": "Somebody else’s information (Sch 2 para 16)", "serious_harm": "Serious harm (Sch 3 parts 2 to 4)",
    "child_abuse_data": "Child abuse data (Sch 3 part 5)", "legal_privilege": "Legal privilege (Sch 2 para 19)",
    "regulatory": "Functions that protect the public (Sch 2 para 7)", "court": "Court (Sch 3 paras 3, 9, 18)",
}  # fmt: skip
"""The exemptions for a list of a line each; `EXEMPTIONS` has them in full."""


@router.get("")
def listed(request: Request, caller: OfficerDep, broker: BrokerDep) -> Response:
    """Where subject access begins; every hold, erasure and lift, never of whom."""
    return _rights(request, caller, broker)


@router.post("/ledger")
def ledger(
    request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> Response:
    """Every entry about a subject, with what is withheld from the start, to rule on.  That it was read is recorded."""
    faults, ids = _subject(form, broker, service, relation=True)
    if faults:
        return _rights(request, caller, broker, faults=faults, typed=form)
    found = access.preview(
        broker.store, broker.trail, broker.keys, service.area(), caller, ids=ids, relation=form["relation"], at=now
    )
    return page(
        request, "ledger.html", caller, found=found, typed=form, relation=RELATIONS[form["relation"]], ids=len(ids),
        sections=SECTIONS, exemptions=EXEMPTIONS, short=SHORT, whole=WHOLE, names=reports.organisations(broker.store),
    )  # fmt: skip


@router.post("/pack")
def pack(
    request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> Response:
    """The pack, as ruled: a zip with a proof of each entry, or pages to print.  It is recorded with its SHA-256."""
    faults, ids = _subject(form, broker, service, relation=True)
    if faults:
        return _rights(request, caller, broker, faults=faults, typed=form)
    made = access.report(
        broker.store, broker.trail, broker.keys, service.area(), caller, ids=ids, relation=form["relation"],
        rulings=_rulings(form), at=now,
    ).answer  # fmt: skip
    if form.get("as") == "print":
        return page(request, "ledger_print.html", caller, made=made, names=reports.organisations(broker.store))
    headers = {**attachment(f"R4-{made.report}.zip"), "Export-Event": made.report}
    return Response(made.content, media_type="application/zip", headers=headers)


# --- Holds, erasures, lifts ------------------------------------------------------------------------------------------


@router.post("/holds")
def hold(
    request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> Response:
    """Lay a legal hold: nothing of the subject is erased or expires until it is released."""
    faults, ids = _subject(form, broker, service, place="hold", reasons=erasure.HOLDS)
    if faults:
        return _rights(request, caller, broker, faults=faults, typed=form)
    erasure.hold(broker.store, broker.trail, broker.keys, caller, ids=ids, reason=form["hold-reason"], at=now)
    return RedirectResponse("/rights#holds", 303)


@router.post("/holds/{hold}/release")
def release(hold: Id, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Release a legal hold."""
    erasure.release(broker.store, broker.trail, caller, hold=hold, at=now)
    return RedirectResponse("/rights#holds", 303)


@router.post("/erasures")
def erase(
    request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> Response:
    """Propose an erasure: a colleague carries it out or refuses it."""
    faults, ids = _subject(form, broker, service, place="erase", reasons=erasure.AUTHORITIES)
    if faults:
        return _rights(request, caller, broker, faults=faults, typed=form)
    erasure.propose(broker.store, broker.trail, broker.keys, caller, ids=ids, authority=form["erase-reason"], at=now)
    return RedirectResponse("/rights#erasures", 303)


@router.post("/erasures/{proposed}/decision")
def decide_erasure(
    proposed: Id, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """The second person's word; what is erased is gone."""
    if form.get("decision") == "approve":
        kept = Tombstones(broker.settings.data_dir)
        erasure.approve(broker.store, broker.trail, broker.keys, kept, caller, erasure=proposed, at=now)
    elif form.get("decision") in erasure.REFUSED:
        erasure.refuse(broker.store, broker.trail, caller, erasure=proposed, reason=form["decision"], at=now)
    else:
        faults = {f"decision-{proposed}": "Choose whether to erase, or why not"}
        return _rights(request, caller, broker, faults=faults, typed=form)
    return RedirectResponse("/rights#erasures", 303)


@router.post("/lifts")
def lift(
    request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> Response:
    """Propose that who was erased may be linked again: a colleague confirms it."""
    faults, _ = _subject(form, broker, service, place="lift", reasons=lifting.LIFTS)
    if faults:
        return _rights(request, caller, broker, faults=faults, typed=form)
    with broker.store.reading() as reading:
        ids = erasure.subject_ids(reading, None, form["lift-subject"], alone=True)
    lifting.propose(broker.store, broker.trail, broker.keys, caller, ids=ids, reason=form["lift-reason"], at=now)
    return RedirectResponse("/rights#lifts", 303)


@router.post("/lifts/{proposed}/decision")
def decide_lift(
    proposed: Id, request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep
) -> Response:
    """The second person's word on a lift."""
    if form.get("decision") == "approve":
        kept = Tombstones(broker.settings.data_dir)
        lifting.confirm(broker.store, broker.trail, kept, caller, lift=proposed, at=now)
    elif form.get("decision") in lifting.REFUSED:
        lifting.refuse(broker.store, broker.trail, caller, lift=proposed, reason=form["decision"], at=now)
    else:
        faults = {f"decision-{proposed}": "Choose whether to confirm, or why not"}
        return _rights(request, caller, broker, faults=faults, typed=form)
    return RedirectResponse("/rights#lifts", 303)


def _rights(
    request: Request,
    caller: Caller,
    broker: Broker,
    *,
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    return page(
        request, "rights.html", caller, status=422 if faults else 200, relations=RELATIONS,
        holds=erasure.holds(broker.store, caller), erasures=erasure.erasures(broker.store, caller),
        lifts=lifting.lifts(broker.store, caller), hold_reasons=erasure.HOLDS, authorities=erasure.AUTHORITIES,
        refused=erasure.REFUSED, lift_reasons=lifting.LIFTS, lifts_refused=lifting.REFUSED,
        fault=bool(faults), faults=faults or {}, typed=typed or {},
    )  # fmt: skip


def _subject(
    form: Mapping[str, str],
    broker: Broker,
    service: InService,
    *,
    place: str = "",
    relation: bool = False,
    reasons: Mapping[str, Any] | None = None,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Every id of the subject that was typed, or what is wrong with the form, field by field."""
    before = f"{place}-" if place else ""
    faults: dict[str, str] = {}
    ids: tuple[str, ...] = ()
    if not form.get(f"{before}subject"):
        faults[f"{before}subject"] = "Enter a subject reference"
    else:
        try:
            with broker.store.reading() as reading:
                ids = erasure.subject_ids(
                    reading, service.area(), form[f"{before}subject"], alone=bool(form.get(f"{before}alone"))
                )
        except Malformed as wrong:
            faults[f"{before}subject"] = f"It must be {sentence(str(wrong)).lower()}"
    if relation and form.get("relation") not in RELATIONS:
        faults["relation"] = "Choose who asks"
    if reasons is not None and form.get(f"{before}reason") not in reasons:
        faults[f"{before}reason"] = "Choose why"
    return faults, ids


def _rulings(form: Mapping[str, str]) -> Rulings:
    """What the officer ruled, entry by entry: left out whole under an exemption, or opened."""
    withheld = {name[2:]: {WHOLE: code} for name, code in form.items() if name.startswith("x-") and code}
    opened = {
        name[2:]: tuple(section for section in code.split(",") if section)
        for name, code in form.items()
        if name.startswith("o-")
    }
    return Rulings(withheld=withheld, opened=opened)
