"""What it takes to decide: the request as `agreements` takes it, the facts of each record, and the words of a no."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import structlog

from agreements import (
    VOCABULARY,
    Basis,
    Facts,
    Held,
    Item,
    Link,
    Mode,
    Outcome,
    Rendering,
    Request,
    RequestRefused,
    Snapshot,
    Threshold,
    decide,
    explain_for_asker,
    explain_for_holder,
    render,
)
from agreements.agreement import london_day
from agreements.verdict import Decision
from audit.events import Event, Json
from audit.receipts import LogReceipt
from broker import family_view
from broker.callers import Caller
from broker.errors import BrokerError
from broker.family_view import Feed, Refusal, Seen
from broker.keys import Keys
from broker.linked import LinkedArea
from broker.store import Reading, Store
from broker.store.items import held_on
from broker.store.searches import ThresholdRow, children_of_case
from broker.trail import Trail, new_event_id
from linkage.matching.overrides import RecordKey

T = TypeVar("T")
LinkOf = Callable[[RecordKey], Link]
_APPROVED: Final = "You put {} in force, so you cannot ask under it. Ask a colleague to search."
NOTHING_HELD: Final = "NOTHING_HELD"  # in the log alone: a record of which no category asked for holds anything

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Released(Generic[T]):
    """An answer that may leave, since `receipt` proves that it was recorded first."""

    answer: T
    receipt: LogReceipt
    decisions: tuple[Mapping[str, Any], ...] = ()  # the asker's copies of the decision receipts


def record_end(store: Store, trail: Trail, caller: Caller, type_: str, what: Mapping[str, Json]) -> None:
    """Record what became of an answer that was authorised; nobody waits for it.

    Never raises for the log's sake: an authorised answer without an end counts as *possibly* disclosed, as it should.
    """
    try:
        with store.transaction() as tx:
            trail.record(tx, Event(id=new_event_id(), type=type_, who=caller.who(), what=what, why={}, detail={}))
    except BrokerError as wrong:
        log.error("the end of an answer is not recorded", fault=type(wrong).__name__)
    trail.wake()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who asks what of the broker, before any record is looked at."""

    caller: Caller
    purpose: str
    basis: Basis
    case_hmac: str
    threshold: Threshold | None = None

    def request(self) -> Request:
        """As `agreements` decides it: every category, each as far as it may go.  Raises RequestRefused."""
        purpose = VOCABULARY.purposes.get(self.purpose)
        mode = Mode.AGGREGATE if purpose is not None and purpose.aggregate else Mode.DETAIL
        return Request(
            organisation=self.caller.organisation,
            role=self.caller.role,
            purpose=self.purpose,
            basis=self.basis,
            asked=dict.fromkeys(VOCABULARY.shareable, mode),
            case=self.case_hmac or None,
            threshold=self.threshold,
        ).checked(VOCABULARY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciding:
    """One question at one instant, over one published run: what it takes to decide on any person's records."""

    tx: Reading
    keys: Keys
    area: LinkedArea
    snapshot: Snapshot
    request: Request
    feeds: Sequence[Feed]
    at: datetime

    def person(self, person_id: str, relation: str, link: LinkOf, *, case: str | None) -> list[Seen]:
        """Every record of one person, decided and rendered; one whose flow carries others' items, once a source.

        A flow that is paused, or of an agency that no longer takes part, is not looked at.
        """
        tags = self.area.tags(person_id)
        sharing = {(feed.organisation, feed.flow) for feed in self.feeds if feed.state != "PAUSED"}
        seen = []
        for record in self.area.index.records_of(person_id):
            if record[:2] not in sharing:
                continue
            by_source: dict[str, list[Item]] = defaultdict(list)
            for item, origin in held_on(self.tx, record, keys=self.keys):
                by_source[origin or record[0]].append(item)
            for source, items in sorted((by_source or {record[0]: []}).items()):
                facts = Facts(
                    source=source,
                    record=record[2],
                    relation=relation,
                    case=case,
                    link=link(record),
                    tags=tags,
                    held=newest(items),
                )
                decision = decide(self.snapshot, VOCABULARY, self.request, facts, self.at)
                renderings = _rendered(decision, items, at=self.at, shielded="shield_address" in tags)
                seen.append(
                    Seen(
                        record=record,
                        source=source,
                        person_id=person_id,
                        relation=relation,
                        decision=decision,
                        renderings=renderings,
                    )
                )
        return seen


def links_to_child(area: LinkedArea, band: str, certain: Iterable[RecordKey]) -> LinkOf:
    """How sure it is that a record is of the child asked about.

    Certain where the record itself passed the higher bar, or a chain of such pairs ties it to one that did.
    """
    if band != "match":
        return lambda _: Link.POSSIBLE
    sure = area.tied(certain)
    return lambda record: Link.CERTAIN if record in sure else Link.MATCH


def links_to_relative(
    area: LinkedArea, child: AbstractSet[RecordKey], person_id: str, flows: AbstractSet[tuple[str, str]]
) -> LinkOf:
    """How sure it is that a record is of someone of the family: certain where one flow that states the relation holds
    a record of either that is; `child` are the child's certain records.  No more than a match where only the asker
    says who belongs to the household."""
    telling = flows & {record[:2] for record in child}
    sure = area.tied(record for record in area.index.records_of(person_id) if record[:2] in telling)
    return lambda record: Link.CERTAIN if record in sure else Link.MATCH


def case_of(tx: Reading, area: LinkedArea, caller: Caller, case_hmac: str, person_id: str) -> str | None:
    """The case the child belongs to, as far as the broker knows.

    A case belongs to the child that was first opened under it as a match, and to that child's family.  Used for anyone
    else, it is another child's case, and None is returned: no clause that asks for a case reference then covers.
    """
    if not case_hmac:
        return None
    children = children_of_case(tx, agency=caller.organisation, case_hmac=case_hmac)
    known = [child for child in children if area.index.records_of(child)]
    family = {relative.person_id for child in known for relative in area.family(child)}
    return case_hmac if not known or person_id in family.union(known) else None


def threshold_of(tx: Reading, caller: Caller, case_hmac: str, person_id: str | None = None) -> Threshold | None:
    """The level last recorded by the caller's organisation for a case and child, or for a case whoever the child."""
    of_child = {} if person_id is None else {"person_id": person_id}
    recorded = tx.all(
        ThresholdRow, agency=caller.organisation, case_hmac=case_hmac, order=("-at",), limit=1, **of_child
    )
    return Threshold(level=recorded[0].level, decided_by=recorded[0].role) if recorded else None


def refusals(
    snapshot: Snapshot, request: Request, feeds: Sequence[Feed], *, at: datetime, barred: Sequence[str] = ()
) -> list[Refusal]:
    """What can't be shown from each organisation, from request and agreements alone: equal for every child.

    `barred`: the agreements that don't count for this asker, who has put them in force.
    """
    own = [refused("ROLE_NOT_PERMITTED", sentence=_APPROVED.format(", ".join(barred)))] if barred else []
    names = {feed.organisation: feed.name for feed in feeds}
    desks = {feed.organisation: family_view.desk_of(feed) for feed in feeds}
    return own + [
        family_view.refusal_of(reason)
        for source in sorted(names)
        for reason in explain_for_asker(snapshot, VOCABULARY, request, source, at, names=names, desks=desks)
    ]


def refused(code: str, *, unlock: str | None = None, sentence: str | None = None, **words: str) -> Refusal:
    """A refusal that holds before any child is looked up, in the words the asker reads: the code's, or a `sentence`."""
    known = {
        "purposes": _listed(one.label for one in VOCABULARY.purposes.values() if not one.group),
        "bases": _listed(one.label for one in VOCABULARY.art6.values()),
        "role": _listed(one.label for one in VOCABULARY.roles.values() if "gateway" in one.flags),
    }
    sentence = sentence or VOCABULARY.results[code].asker.format_map(known | words)
    return Refusal(organisation=None, category=None, code=code, sentence=sentence, unlock=unlock)


def unanswerable(refusal: RequestRefused) -> Refusal:
    """A request that can't be decided at all, in the words the asker reads."""
    return refused(refusal.code)


def hidden_code(snapshot: Snapshot, decision: Decision) -> str:
    """Why nothing of a record was shown: for the log alone."""
    return explain_for_holder(snapshot, VOCABULARY, decision).code or NOTHING_HELD


def named(record: RecordKey) -> str:
    """A record as the log names it."""
    return "/".join(record)


def newest(items: Iterable[Item]) -> Mapping[str, tuple[Held, ...]]:
    """The newest item of each category and regime, as a decision reads what a record holds."""
    newest: dict[str, dict[str, Held]] = defaultdict(dict)
    for item in items:
        before = newest[item.category].get(item.regime)
        if before is None or before.recorded_on is None or item.recorded_on > before.recorded_on:
            newest[item.category][item.regime] = Held(item.recorded_on, item.regime)
    return {category: tuple(by_regime.values()) for category, by_regime in newest.items()}


def _rendered(decision: Decision, items: Sequence[Item], *, at: datetime, shielded: bool) -> tuple[Rendering, ...]:
    if decision.outcome is Outcome.SILENT:
        return ()
    rendered = (
        render(category, shown.mode, items, on=london_day(at), shielded=shielded, reach=decision.reach)
        for category, shown in decision.shown.items()
        if category in VOCABULARY.categories
    )
    return tuple(rendering for rendering in rendered if rendering is not None)


def _listed(words: Iterable[str]) -> str:
    several = list(words)
    return f"{', '.join(several[:-1])} or {several[-1]}" if len(several) > 1 else "".join(several)
