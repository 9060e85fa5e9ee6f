"""Link review: the queue of uncertain pairs, one pair masked, a decision, a second reviewer's word, whom to ring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, get_args

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from broker import reports, reviews
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep, ServiceDep
from broker.reviews import QUEUE_REASONS, Review, State, Wanted
from broker.reviews.said import EVIDENCE, TAKEN_BACK, WHY, Decision, Step
from broker.web.pages import LONDON, OfficerFormDep, PageRoute, only, page
from linkage.matching.explain import LABELS, held_because

router = APIRouter(
    prefix="/pairs", route_class=PageRoute, include_in_schema=False, dependencies=[only("LINK_REVIEWER")]
)
PairId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")]
Reason = Annotated[str, Query(pattern=f"^({'|'.join(QUEUE_REASONS)})?$")]

STATES: Final[Mapping[str, str]] = {
    "waiting": "Waiting for a decision",
    "second": "Waiting for a second reviewer",
    "passed_on": "Passed on: nobody could tell yet",
}
LEVELS: Final[Mapping[str, str]] = {
    "agree": "Same", "close": "Close", "differ": "Different", "missing": "Missing",
    "not_comparable": "Can’t be compared",
}  # fmt: skip
RARITY: Final[Mapping[str, str]] = {
    "common": "Many people agree so", "uncommon": "Some people agree so", "rare": "Few people agree so",
}  # fmt: skip
DECISIONS: Final[Mapping[str, str]] = {
    "same": "Same person", "different": "Different people", "cannot_tell": "Cannot tell: pass on",
}  # fmt: skip
ACTS: Final[Mapping[str, str]] = {
    "decided": "Decided", "confirmed": "Confirmed by a second reviewer", "refused": "Sent on by a second reviewer",
    "withdrawn": "Taken back", "asked": "Agencies looked up, to ring them", "reported": "A wrong person was reported",
}  # fmt: skip
OUTCOMES: Final[Mapping[str, str]] = {
    "waiting": "It waits for a decision again.",
    "second": "It waits for a second reviewer, and changes nothing until then.",
    "passed_on": "It waits for another reviewer, who may ask the agencies.",
    "decided": "It takes effect with the next night’s run.",
    "gone": "The records have changed since; nothing is left to decide.",
}
PAUSE_EVERY: Final = 20
WIDTH: Final = 640  # of the waterfall, in its own units


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the waterfall, placed: `x` and `width` in a drawing that is WIDTH wide."""

    label: str
    level: str
    weight: float
    total: float
    x: float
    width: float


@router.get("")
def queue(
    request: Request,
    caller: OfficerDep,
    broker: BrokerDep,
    now: NowDep,
    state: State = "waiting",
    reason: Reason = "",
    after: Cursor = None,
) -> Response:
    """What waits, oldest first, and why; never how likely any of it is."""
    wanted = Wanted(state=state, reason=reason or None, after=after)
    found = reviews.listed(broker.store, broker.trail, broker.keys, broker.vault, caller, wanted, at=now).answer
    reasons = [
        {"value": "", "text": "Any reason"},
        *({"value": code, "text": held_because(code)} for code in QUEUE_REASONS),
    ]
    return page(
        request, "pairs.html", caller, found=found, state=state, reason=reason, reasons=reasons,
        states=STATES, names=reports.organisations(broker.store),
        choices=[{"value": code, "text": STATES[code]} for code in get_args(State)],
    )  # fmt: skip


@router.get("/{pair}")
def show(
    pair: PairId, request: Request, caller: OfficerDep, broker: BrokerDep, service: ServiceDep, now: NowDep
) -> Response:
    """One pair: how its two sides compare, and nothing of what they hold."""
    found = reviews.opened(broker.store, broker.trail, broker.keys, service, caller, pair, at=now).answer
    return _pair(request, caller, broker, found)


@router.post("/{pair}/decision")
def decide(
    pair: PairId,
    request: Request,
    form: OfficerFormDep,
    caller: OfficerDep,
    broker: BrokerDep,
    service: ServiceDep,
    now: NowDep,
) -> Response:
    """Decide; the next pair in the queue follows."""
    decision, reason = _decision(form.get("decision", "")), form.get("reason", "")
    evidence = [code for code in EVIDENCE if form.get(f"evidence-{code}")]
    faults = _faults(decision, reason, evidence)
    if faults or decision is None:
        found = reviews.opened(broker.store, broker.trail, broker.keys, service, caller, pair, at=now).answer
        return _pair(request, caller, broker, found, faults=faults, typed=form)
    reviews.decide(
        broker.store, broker.trail, broker.keys, service, caller, pair, decision,
        reason=reason, evidence=evidence, at=now,
    )  # fmt: skip
    return RedirectResponse(f"/pairs/{pair}/done", 303)


@router.post("/{pair}/confirm")
def confirm(
    pair: PairId,
    request: Request,
    form: OfficerFormDep,
    caller: OfficerDep,
    broker: BrokerDep,
    service: ServiceDep,
    now: NowDep,
) -> Response:
    """The second reviewer's word."""
    if form.get("agree") not in ("yes", "no"):
        found = reviews.opened(broker.store, broker.trail, broker.keys, service, caller, pair, at=now).answer
        return _pair(request, caller, broker, found, faults={"agree": "Choose whether you agree"}, typed=form)
    reviews.confirm(
        broker.store, broker.trail, broker.keys, service, caller, pair, agree=form["agree"] == "yes", at=now
    )
    return RedirectResponse(f"/pairs/{pair}/done", 303)


@router.post("/{pair}/withdraw")
def withdraw(
    pair: PairId,
    request: Request,
    form: OfficerFormDep,
    caller: OfficerDep,
    broker: BrokerDep,
    service: ServiceDep,
    now: NowDep,
) -> Response:
    """Take a decision back; the pair waits again."""
    if form.get("taken_back") not in TAKEN_BACK:
        found = reviews.opened(broker.store, broker.trail, broker.keys, service, caller, pair, at=now).answer
        faults = {"taken_back": "Choose why you take it back"}
        return _pair(request, caller, broker, found, faults=faults, typed=form)
    reviews.withdraw(broker.store, broker.trail, broker.keys, service, caller, pair, reason=form["taken_back"], at=now)
    return RedirectResponse(f"/pairs/{pair}", 303)


@router.post("/{pair}/ask")
def ask(
    pair: PairId,
    request: Request,
    form: OfficerFormDep,
    caller: OfficerDep,
    broker: BrokerDep,
    service: ServiceDep,
    now: NowDep,
) -> Response:
    """Whom to ring at the two agencies, and what to quote: recorded, so it is a form and no link."""
    told = reviews.ask(broker.store, broker.trail, broker.keys, service, caller, pair, at=now).answer
    return page(request, "pair_ask.html", caller, told=told, labels=LABELS)


@router.get("/{pair}/done")
def done(pair: PairId, request: Request, caller: OfficerDep, broker: BrokerDep, now: NowDep) -> Response:
    """That it is recorded, how many that makes today, and on to the next."""
    today = now.astimezone(LONDON).replace(hour=0, minute=0, second=0, microsecond=0)
    told = reviews.done(broker.store, caller, pair, since=today)
    return page(
        request, "pair_done.html", caller, told=told, decisions=DECISIONS, acts=ACTS, outcomes=OUTCOMES,
        pause=told.pairs > 0 and told.pairs % PAUSE_EVERY == 0,
    )  # fmt: skip


def bars(steps: Sequence[Step]) -> tuple[Bar, ...]:
    """The waterfall, placed: each bar begins where the sum before it ended."""
    ends = [0.0, *(step.total for step in steps)]
    low, high = min(ends), max(ends)
    scale = WIDTH / (high - low or 1.0)
    placed = []
    for before, step in zip(ends, steps, strict=False):
        left, right = sorted((before, step.total))
        label = LABELS.get(step.field, step.field.replace("_", " "))
        placed.append(
            Bar(label, step.level, step.weight, step.total, (left - low) * scale, max((right - left) * scale, 2.0))
        )
    return tuple(placed)


def _pair(
    request: Request,
    caller: Caller,
    broker: BrokerDep,
    found: Review,
    *,
    faults: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    return page(
        request, "pair.html", caller, status=422 if faults else 200, pair=found, bars=bars(found.waterfall),
        names=reports.organisations(broker.store), levels=LEVELS, rarity=RARITY, decisions=DECISIONS, why=WHY,
        evidence=EVIDENCE, taken_back=TAKEN_BACK, acts=ACTS, states=STATES, labels=LABELS,
        fault=bool(faults), faults=faults or {}, typed=typed or {},
    )  # fmt: skip


def _decision(text: str) -> Decision | None:
    return next((one for one in get_args(Decision) if one == text), None)


def _faults(decision: str | None, reason: str, evidence: Sequence[str]) -> dict[str, str]:
    faults = {}
    if decision is None:
        faults["decision"] = "Choose whether these are the same person"
    if reason not in WHY:
        faults["reason"] = "Choose why"
    elif decision is not None and decision not in WHY[reason][1]:
        faults["reason"] = f"“{WHY[reason][0]}” is no reason for “{DECISIONS[decision]}”"
    if not evidence:
        faults["evidence"] = "Choose what you went by"
    return faults
