"""What it takes to decide: the request as `agreements` takes it, the facts of each record, and the words of a no."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import rfc8785
import structlog

from agreements import (
    VOCABULARY,
    Basis,
    BreakGlass,
    DecisionReceipt,
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
    make_receipt,
    render,
)
from agreements.agreement import london_day
from agreements.verdict import Decision
from audit.events import Event, Json
from audit.receipts import LogReceipt
from broker import activation, agencies, family_view, lineage
from broker.callers import Caller
from broker.errors import BrokerError, EngineFailed
from broker.family_view import Feed, Refusal, Seen
from broker.keys import Keys
from broker.linked import LinkedArea
from broker.store import Reading, Store, Transaction
from broker.store.items import held_by
from broker.store.searches import ThresholdRow, answered_by, opened_under
from broker.trail import Trail, new_event_id
from linkage.matching.overrides import RecordKey

T = TypeVar("T")
LinkOf = Callable[[RecordKey], Link]
HeldBy = Mapping[RecordKey, Sequence[tuple[Item, str | None]]]
"""By record its items, each with its origin where that is another organisation."""
NOTHING_HELD: Final = "NOTHING_HELD"  # in the log alone: a record of which no category asked for holds anything

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Released(Generic[T]):
    """An answer that may leave, since `receipt` proves that it was recorded first."""

    answer: T
    receipt: LogReceipt
    decisions: tuple[Mapping[str, Any], ...] = ()  # the asker's copies of the decision receipts


def record_end(
    store: Store,
    trail: Trail,
    caller: Caller,
    type_: str,
    what: Mapping[str, Json],
    *,
    beside: Callable[[Transaction], None],
) -> None:
    """Record what became of an answer that was authorised, and do `beside` with it; nobody waits for it.

    Never raises for the log's sake: an authorised answer without an end counts as *possibly* disclosed, as it should.
    """
    try:
        with store.transaction() as tx:
            trail.record(tx, Event(id=new_event_id(), type=type_, who=caller.who(), what=what, why={}, detail={}))
            beside(tx)
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
    break_glass: BreakGlass | None = None

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
            break_glass=self.break_glass,
        ).checked(VOCABULARY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciding:
    """One question at one instant, over one published run: what it takes to decide on any person's records."""

    area: LinkedArea
    snapshot: Snapshot
    request: Request
    feeds: Sequence[Feed]
    held: HeldBy
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
            for item, origin in self.held.get(record, ()):
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


def held_of(tx: Reading, area: LinkedArea, person_ids: Iterable[str], *, keys: Keys) -> HeldBy:
    """What is held on all records of some persons: one question of the database, however many there are."""
    return held_by(tx, {record for one in person_ids for record in area.index.records_of(one)}, keys=keys)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A case as the broker knows it: its keyed token, whose it is, and the levels recorded under it.

    It belongs to the child that was first opened under it as a match, of those of whom there still is a record, and to
    that child's family; `people` is None while that is nobody.  A child who was linked with somebody since, or split,
    is followed to the persons that have the records now.  A level is followed likewise, but not over a split: whom of
    the two it was meant for, nobody has said.
    """

    case_hmac: str
    people: frozenset[str] | None
    levels: Mapping[str, Threshold]  # by person id
    level: Threshold | None  # the one recorded last, whoever the child

    @classmethod
    def known(cls, tx: Reading, area: LinkedArea | None, caller: Caller, case_hmac: str) -> Case:
        """What the caller's organisation has opened and recorded under a case."""
        people: set[str] = set()
        for opened in opened_under(tx, agency=caller.organisation, case_hmac=case_hmac):
            if area is None:
                break
            led = lineage.follow(tx, opened.people, since=opened.since).values()
            children = {one for followed in led for one in followed.ids if area.index.records_of(one)}
            for child in children:
                people |= {child, *(relative.person_id for relative in area.family(child))}
            if people:
                break
        recorded = tx.all(ThresholdRow, agency=caller.organisation, case_hmac=case_hmac, order=("at",))
        since = answered_by(tx, (row.search for row in recorded))
        levels: dict[str, Threshold] = {}
        level = None
        for row in recorded:
            followed = lineage.successors(tx, row.person_id, since=since[row.search])
            level = None if followed.became == "split" else Threshold(level=row.level, decided_by=row.role)
            if level is not None:
                levels[followed.ids[0]] = level
        return cls(case_hmac=case_hmac, people=frozenset(people) or None, levels=levels, level=level)

    def of(self, person_id: str) -> str | None:
        """The case, if it is this person's as far as the broker knows.

        Else it is another child's: no clause that asks for a case reference then covers.
        """
        return self.case_hmac if self.case_hmac and (self.people is None or person_id in self.people) else None


def receipts_of(
    keys: Keys,
    snapshot: Snapshot,
    request: Request,
    seen: Sequence[Seen],
    feeds: Sequence[Feed],
    *,
    at: datetime,
    engine_error: bool = False,
) -> dict[str, DecisionReceipt]:
    """The decision receipts of one request: one for each organisation that sends information, hit or not, and for any
    other whose information is shown."""
    return {
        source: make_receipt(
            snapshot,
            VOCABULARY,
            request,
            [record.decision for record in seen if record.source == source],
            source=source,
            at=at,
            salt=secrets.token_bytes(32),
            kid=keys.receipt_kid,
            key=keys.receipt_key,
            engine_error=engine_error,
        )
        for source in sorted({feed.organisation for feed in feeds} | {record.source for record in seen if record.shown})
    }


def looked_at(seen: Iterable[Seen]) -> bytes:
    """Whose each decided record is: source, record_ref, agency, flow, person id; sealed beside the event."""
    return rfc8785.dumps(sorted([one.source, one.record[2], *one.record[:2], one.person_id] for one in seen))


def engine_failed(
    store: Store,
    trail: Trail,
    caller: Caller,
    wrong: Exception,
    *,
    type_: str,
    what: Mapping[str, Json],
    why: Mapping[str, Json],
    request: Request | None,
    at: datetime,
) -> EngineFailed:
    """The error of an answer that a fault of ours has ended, once that is in the log: nothing of it leaves.

    Beside the event lie receipts that say `engine_error`, one for each organisation.  Raises LogUnavailable.
    """
    log.error("the rules could not be evaluated", fault=type(wrong).__name__)
    with store.transaction() as tx:
        snapshot, _ = activation.snapshot_for(tx, caller.person)
        feeds = agencies.feeds(tx, at=at)
        receipts: Mapping[str, DecisionReceipt] = {}
        if request is not None:
            receipts = receipts_of(trail.keys, snapshot, request, (), feeds, at=at, engine_error=True)
        entry = trail.record(
            tx,
            Event(
                id=new_event_id(),
                type=type_,
                who=caller.who(),
                what={
                    **what,
                    "outcome": "engine_error",
                    "decisions": {source: receipt.asker.body["commitment"] for source, receipt in receipts.items()},
                },
                why=why,
                detail={"fault": type(wrong).__name__},
            ),
            blobs={f"decision/{source}": rfc8785.dumps(dict(receipt.jws)) for source, receipt in receipts.items()},
            at=at,
        )
    trail.receipt(entry)
    return EngineFailed(entry.event_id)


def refusals(
    snapshot: Snapshot, request: Request, feeds: Sequence[Feed], *, at: datetime, barred: Sequence[str] = ()
) -> list[Refusal]:
    """What can't be shown from each organisation, from request and agreements alone: equal for every child.

    `barred`: the agreements that would give some of it, had the asker not put them in force.
    """
    own = [refused("APPROVED_BY_ASKER", agreements=" and ".join(barred))] if barred else []
    names = {feed.organisation: feed.name for feed in feeds}
    desks = {feed.organisation: family_view.desk_of(feed) for feed in feeds}
    return own + [
        family_view.refusal_of(reason)
        for source in sorted(names)
        for reason in explain_for_asker(snapshot, VOCABULARY, request, source, at, names=names, desks=desks)
    ]


def said_of(refusals: Iterable[Refusal]) -> tuple[list[str], bytes]:
    """What an asker was told is not to be had, for the log: the codes for the event, and each in full beside it."""
    said = {(one.code, one.organisation or "", one.category or "") for one in refusals}
    return sorted({code for code, _, _ in said}), rfc8785.dumps([list(one) for one in sorted(said)])


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
