"""The register of agreements: how each stands, its plain words, what a version changes, who can see what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from agreements import VOCABULARY, Agreement
from agreements.analysis.sight import Filter, to_csv, who_can_see
from agreements.export import prose
from broker import analysing, expiry, register, reports
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep
from broker.errors import NotFound
from broker.register import Listed
from broker.settings import GOVERNANCE
from broker.signin import INSPECTOR
from broker.store import Reading
from broker.web.pages import OfficerFormDep, PageRoute, attachment, in_order, only, page
from broker.web.printing import pages
from broker.wiring import Broker

router = APIRouter(
    prefix="/agreements", route_class=PageRoute, include_in_schema=False, dependencies=[only(*GOVERNANCE, INSPECTOR)]
)
REF: Final = r"[a-z0-9][a-z0-9-]{0,63}@[0-9]{1,6}(\.[0-9]{1,6}){2}"
Ref = Annotated[str, Path(pattern=f"^{REF}$")]
Refs = Annotated[str, Query(pattern=f"^({REF})?$")]
Code = Annotated[str, Query(pattern=r"^([A-Za-z0-9_.-]{1,64})?$")]
COLUMNS: Final = {
    "document": "Document", "state": "State", "signed": "Signed", "ends": "In force", "review": "Review due",
}  # fmt: skip
"""Of the register, by the code of its order."""
Sort = Annotated[str, Query(pattern=rf"^(-?({'|'.join(COLUMNS)}))?$")]
_CODE: Final = re.compile(r"(?<![\w@#.-])[A-Za-z][\w-]*(?:\.[\w-]+)*(?![\w@#-])")
CALENDAR_DAYS: Final = 3 * 366

STATES: Final[Mapping[str, str]] = {
    "draft": "Draft", "in_signature": "Being signed", "agreed": "Agreed, not begun", "active": "In force",
    "suspended": "Suspended", "expired": "Ended", "terminated": "Ended: parties left", "superseded": "Replaced",
}  # fmt: skip
WHY: Final[Mapping[str, str]] = {
    "unsigned": "too few have signed", "host": "by the host", "period": "by its dates", "parties": "by its parties",
    "review": "its review is overdue", "umbrella": "by what it stands under",
}  # fmt: skip
KINDS: Final[Mapping[str, str]] = {"agreement": "Agreement", "umbrella": "Umbrella", "restriction": "Restriction"}
PARTIES: Final[Mapping[str, str]] = {
    "unsigned": "Has not signed", "signed": "Signed", "suspended": "Has paused its sharing", "withdrawn": "Has left",
    "superseded": "Replaced by a newer version",
}  # fmt: skip


@router.get("")
def listed(
    request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep, ended: bool = False, sort: Sort = ""
) -> Response:
    """Every document of the register: how it stands, who has signed, until when; by any column."""
    with broker.store.reading() as reading:
        found = register.documents(reading, at=now)
    shown = [one for one in found if ended or not one.state.ended]
    return page(
        request, "agreements.html", caller, found=in_order(shown, sort, _TOLD), hidden=len(found) - len(shown),
        words=_state_words, heads=COLUMNS, sort=sort, ended=ended,
        kinds=KINDS, names=reports.organisations(broker.store),
    )  # fmt: skip


@router.get("/calendar")
def calendar(request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Last days and reviews, soonest first."""
    with broker.store.reading() as reading:
        due = expiry.calendar(reading, at=now, within=CALENDAR_DAYS)
    return page(request, "agreements_calendar.html", caller, due=due)


@router.get("/remarks")
def remarks(request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """What to look at in all that is in force: dead, doubled, too wide, unsigned, never granted."""
    with broker.store.reading() as reading:
        found = analysing.looked_over(reading, at=now)
    names = reports.organisations(broker.store)
    said = [(one, spelled(one.message, names)) for one in found]
    return page(request, "agreements_remarks.html", caller, found=said)


@router.get("/who-can-see")
def sight(
    request: Request,
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    org: Code = "",
    role: Code = "",
    source: Code = "",
    purpose: Code = "",
) -> Response:
    """Who may see what of whom, for which purpose, under which clause: as it stands now."""
    wanted = {"org": org, "role": role, "source": source, "purpose": purpose}
    with broker.store.reading() as reading:
        found = _seen(reading, wanted, now) if any(wanted.values()) else None
        parties = sorted(analysing.names_here(reading))
    names = reports.organisations(broker.store)
    return page(
        request, "agreements_sight.html", caller, found=found, wanted=wanted, names=names,
        parties=_options({one: names.get(one, one) for one in parties}),
        role_options=_options({code: one.label for code, one in VOCABULARY.roles.items()}),
        purpose_options=_options({code: one.label for code, one in VOCABULARY.purposes.items()}),
    )  # fmt: skip


@router.get("/who-can-see.csv")
def sight_csv(
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    org: Code = "",
    role: Code = "",
    source: Code = "",
    purpose: Code = "",
) -> Response:
    """The same, a row for each recipient, role, source, purpose and category."""
    with broker.store.reading() as reading:
        found = _seen(reading, {"org": org, "role": role, "source": source, "purpose": purpose}, now)
    return PlainTextResponse(to_csv(found), media_type="text/csv; charset=utf-8", headers=attachment("who-can-see.csv"))


@router.get("/diff")
def difference(
    request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep, before: Refs = "", after: Refs = ""
) -> Response:
    """What changes from one version to another, in sentences; without a first, from all that is in force today."""
    lines: list[str] | None = None
    premises: tuple[str, ...] = ()
    with broker.store.reading() as reading:
        refs = _refs(reading, now)
        if after:
            one = analysing.candidate_of(reading, after)
            if before:
                lines = analysing.compared(reading, analysing.candidate_of(reading, before), one, at=now).lines()
            else:
                premises = analysing.taken_for_granted(reading, one)
                lines = analysing.against_register(reading, one, at=now).lines()
    names = reports.organisations(broker.store)
    told = None if lines is None else _grouped([spelled(line, names) for line in lines])
    return page(
        request, "agreements_diff.html", caller, lines=told, premises=premises, before=before,
        after=after, refs=[{"value": ref, "text": text} for ref, text in refs.items()],
    )  # fmt: skip


@router.get("/what-if", dependencies=[only(*GOVERNANCE)])
def ask_what_if(request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Choose a document: nothing is read of the past before that is recorded."""
    return _what_if(request, caller, broker, now)


@router.post("/what-if", dependencies=[only(*GOVERNANCE)])
def what_if(request: Request, form: OfficerFormDep, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """Which past questions a document would have answered otherwise.  That the past is read is recorded first."""
    ref = form.get("ref", "")
    with broker.store.reading() as reading:
        refs = _refs(reading, now)
        if ref not in refs:
            return _what_if(request, caller, broker, now, faults={"ref": "Choose a document"})
        candidate = analysing.candidate_of(reading, ref)
    changes = analysing.replay_past(broker.store, broker.trail, candidate, after=None, who=caller.who(), at=now)
    return _what_if(request, caller, broker, now, ref=ref, changes=changes)


@router.get("/{ref}")
def show(ref: Ref, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """One document: its plain words first, then who signed, then the text that was signed."""
    with broker.store.reading() as reading:
        found = _one(reading, ref, now)
        candidate = analysing.candidate_of(reading, ref)
        source = register.document_row(reading, ref).document.decode()
    parts = prose.schedule(found.document, VOCABULARY, umbrella=candidate.umbrella)
    return page(
        request, "agreement.html", caller, one=found, parts=parts, described=prose.described(found.document),
        source=source, words=_state_words, standing=PARTIES, names=reports.organisations(broker.store), kinds=KINDS,
        signs_as=_posts(found),
    )  # fmt: skip


@router.get("/{ref}/toml")
def source(ref: Ref, caller: OfficerDep, broker: BrokerDep) -> Response:
    """The text that is signed, as a file."""
    with broker.store.reading() as reading:
        row = register.document_row(reading, ref)
    return Response(row.document, media_type="application/toml", headers=attachment(f"{ref}.toml"))


@router.get("/{ref}/print")
def printed(ref: Ref, caller: OfficerDep, broker: BrokerDep) -> Response:
    """The document as pages to print and sign, in a file of its own."""
    with broker.store.reading() as reading:
        candidate = analysing.candidate_of(reading, ref)
        html = pages(candidate.document, register.snapshot(reading), umbrella=candidate.umbrella)
    return HTMLResponse(html, headers=attachment(f"{ref}.html"))


def _what_if(
    request: Request,
    caller: Caller,
    broker: Broker,
    now: datetime,
    *,
    ref: str = "",
    changes: Any = None,
    faults: Mapping[str, str] | None = None,
) -> Response:
    with broker.store.reading() as reading:
        refs = _refs(reading, now)
    return page(
        request, "agreements_what_if.html", caller, status=422 if faults else 200, changes=changes, ref=ref,
        refs=[{"value": "", "text": "Choose"}, *({"value": one, "text": text} for one, text in refs.items())],
        names=reports.organisations(broker.store), fault=bool(faults), faults=faults or {},
    )  # fmt: skip


def _one(reading: Reading, ref: str, at: datetime) -> Listed:
    found = next((one for one in register.documents(reading, at=at) if one.ref == ref), None)
    if found is None:
        raise NotFound("there is no such document")
    return found


def _refs(reading: Reading, at: datetime) -> dict[str, str]:
    """Every document that is no restriction, drafts first, with how it stands."""
    found = [one for one in register.documents(reading, at=at) if one.kind != "restriction"]
    return {
        one.ref: f"{one.ref} ({STATES[one.state.name].lower()})"
        for one in sorted(found, key=lambda one: one.status != "draft")
    }


def _seen(reading: Reading, wanted: Mapping[str, str], at: datetime) -> tuple[Any, ...]:
    looked_for = Filter(
        organisation=wanted["org"] or None, role=wanted["role"] or None, source=wanted["source"] or None,
        purpose=wanted["purpose"] or None,
    )  # fmt: skip
    if looked_for.unknown(VOCABULARY, analysing.names_here(reading)) is not None:
        raise NotFound("there is no such organisation, role or purpose")
    return who_can_see(register.snapshot(reading), VOCABULARY, looked_for, at=at)


def _state_words(one: Listed) -> str:
    words, why = STATES[one.state.name], WHY.get(one.state.why, "")
    return f"{words}, {why}" if why and one.state.name not in ("active", "agreed") else words


_TOLD: Final[Mapping[str, Callable[[Listed], Any]]] = {
    "document": lambda one: one.title,
    "state": _state_words,
    "signed": lambda one: -len(one.state.awaited),
    "ends": lambda one: one.last_day,
    "review": lambda one: one.review_by or date.max,
}
"""What each column is sorted by: the last day, and how many have yet to sign."""


def _posts(one: Listed) -> Mapping[str, str]:
    """Who signs for each party."""
    if isinstance(one.document, Agreement):
        return {party.id: party.signs_as for party in one.document.parties.values()}
    return {one.document.owner: "Owner of the records"}


def spelled(text: str, names: Mapping[str, str]) -> str:
    """A sentence of an analysis with its codes and organisations in words; references of clauses stay as they are.

    >>> spelled("of a-council, education.attendance for MASH_SCREEN [a-council@1.0.0#x]", {"a-council": "A Council"})
    'of A Council, Attendance for MASH screening, threshold not yet known [a-council@1.0.0#x]'
    """
    labels = {**_labels(), **names}
    return re.sub(
        r"(?<![\w@#.-])[A-Za-z][\w-]*(?:\.[\w-]+)*(?![\w@#-])", lambda code: labels.get(code[0], code[0]), text
    )


@cache
def _labels() -> Mapping[str, str]:
    """What codes of the vocabulary are called, but for plain words that are codes by chance."""
    lists = (
        VOCABULARY.roles, VOCABULARY.purposes, VOCABULARY.categories, VOCABULARY.art6, VOCABULARY.conditions,
        VOCABULARY.gateways, VOCABULARY.relations,
    )  # fmt: skip
    return {code: one.label for each in lists for code, one in each.items() if not (code.isalpha() and code.islower())}


def _grouped(lines: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each sentence with what stands under it."""
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("  "):
            found[-1][1].append(line.strip())
        else:
            found.append((f"{line[:1].upper()}{line[1:]}", []))
    return found


def _options(labels: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"value": "", "text": "Any"}, *({"value": code, "text": label} for code, label in labels.items())]
