"""The heart: decide, record, then disclose.

One transaction decides on every record of the child and the family and writes the decision to the log; the answer is
built only from what was decided, and leaves only once a signed checkpoint covers it.  A refusal goes the same way.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import rfc8785

from agreements import (
    VOCABULARY,
    Basis,
    Decision,
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
from audit.events import Event
from audit.receipts import LogReceipt
from broker import family_view, register
from broker.callers import Caller
from broker.errors import NotFound, WrongState
from broker.family_view import FamilyView, Feed, Header, Refusal, Seen
from broker.keys import Keys
from broker.linked import RELATION_OF, InService, LinkedArea, Relative, Stated
from broker.store import Reading, Store, Transaction
from broker.store.items import held_on
from broker.store.searches import SearchCandidateRow, SearchRow, ThresholdRow, ViewRow, first_view_of_case
from broker.trail import EntryRef, Trail
from linkage.matching.overrides import RecordKey

T = TypeVar("T")
VIEW_LASTS: Final = timedelta(minutes=60)
RELATIVES: Final = 24  # how many of a family are looked at; the page draws no more


@dataclass(frozen=True, slots=True)
class Released(Generic[T]):
    """An answer that may leave, since `receipt` proves that it was recorded first."""

    answer: T
    receipt: LogReceipt
    decisions: tuple[Mapping[str, Any], ...] = ()  # the asker's copies of the decision receipts


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who asks what of the broker, before any record is looked at."""

    caller: Caller
    purpose: str
    basis: Basis
    case_hmac: str
    threshold: Threshold | None

    def request(self) -> Request:
        """As `agreements` decides it: every category, each as far as it may go."""
        aggregate = VOCABULARY.purposes[self.purpose].aggregate if self.purpose in VOCABULARY.purposes else False
        ask = Mode.AGGREGATE if aggregate else Mode.DETAIL
        return Request(
            organisation=self.caller.organisation,
            role=self.caller.role,
            purpose=self.purpose,
            basis=self.basis,
            asked=dict.fromkeys(VOCABULARY.shareable, ask),
            case=self.case_hmac or None,
            threshold=self.threshold,
        ).checked(VOCABULARY)


def disclose(
    store: Store,
    trail: Trail,
    keys: Keys,
    service: InService,
    caller: Caller,
    *,
    search: str,
    candidate: str,
    at: datetime,
) -> Released[FamilyView]:
    """The linked family view of one candidate of one's own search.

    Raises NotFound for a search or candidate that isn't the caller's, WrongState if the persons have been linked anew
    since, LogUnavailable, having shown nothing, if it can't be recorded.
    """
    area = service.area()
    if area is None:
        raise WrongState("no linked view has been published yet")
    with store.transaction() as tx:
        found, chosen = own_candidate(tx, caller, search=search, candidate=candidate, at=at)
        if not area.index.records_of(chosen.person_id):
            raise WrongState("the records have been linked anew since: search again")
        view, entry, copies = _decide_and_record(tx, trail, keys, area, caller, found, chosen, at=at)
    return Released(view, trail.receipt(entry), copies)


def completed(store: Store, trail: Trail, caller: Caller, *, view: str, event_id: str) -> None:
    """Record that the answer has left.  Called after the last byte; without it, the answer was *possibly* disclosed."""
    with store.transaction() as tx:
        trail.record(
            tx,
            Event(
                id=fresh_id(),
                type="disclosure.completed",
                who=who(caller),
                what={"view": view, "authorised_by": event_id},
                why={},
                detail={},
            ),
        )
    trail.wake()


def _decide_and_record(
    tx: Transaction,
    trail: Trail,
    keys: Keys,
    area: LinkedArea,
    caller: Caller,
    search: SearchRow,
    candidate: SearchCandidateRow,
    *,
    at: datetime,
) -> tuple[FamilyView, EntryRef, tuple[Mapping[str, Any], ...]]:
    threshold = recorded_threshold(tx, caller, search.case_hmac, candidate.person_id)
    question = Question(
        caller=caller,
        purpose=search.purpose,
        basis=Basis(
            art6=search.basis["art6"],
            conditions=frozenset(search.basis["condition"]),
            gateways=frozenset(search.basis["gateway"]),
        ),
        case_hmac=search.case_hmac,
        threshold=threshold,
    )
    snapshot = register.snapshot(tx)
    request = question.request()
    relatives = _with_household(area.family(candidate.person_id), search, candidate.person_id)[:RELATIVES]
    deciding = Deciding(
        tx=tx,
        keys=keys,
        area=area,
        snapshot=snapshot,
        request=request,
        case=case_of(tx, area, caller, search.case_hmac, candidate.person_id),
        at=at,
    )
    everyone = [(candidate.person_id, "subject_child"), *((kin.person_id, kin.relation) for kin in relatives)]
    seen = [record for person, relation in everyone for record in deciding.person(person, relation, link_of(candidate))]
    feeds = register.feeds(tx, at=at)
    withheld = refusals(snapshot, request, feeds, at=at)
    view_id, event_id = fresh_id(), fresh_id()
    view = family_view.build(
        view=view_id,
        at=at,
        ends_at=at + VIEW_LASTS,
        purpose=search.purpose,
        threshold=threshold.level if threshold else None,
        person=Header(
            birth_year=area.birth_year(candidate.person_id),
            sex=area.flags(area.index.records_of(candidate.person_id)[0]).sex,
            band=candidate.band,
            agreed=tuple(candidate.agreed),
            differs=tuple(candidate.differs),
        ),
        seen=seen,
        relatives=[
            (relative, area.birth_year(relative.person_id), area.person_role(relative.person_id))
            for relative in relatives
        ],
        feeds=feeds,
        withheld=withheld,
        snapshot=snapshot,
    )
    receipts = {
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
        )
        for source in sorted({feed.organisation for feed in feeds})
    }  # fmt: skip
    shown = any(record.shown for record in seen)
    entry = trail.record(
        tx,
        Event(
            id=event_id,
            type="disclosure.authorised" if shown else "disclosure.refused",
            who=who(caller),
            what={
                "search": search.id,
                "view": view_id,
                "outcome": "disclosed" if shown else "silent",
                "categories": _shown_modes(seen),
                "decisions": {source: receipt.asker.body["commitment"] for source, receipt in receipts.items()},
                "run": area.run,
            },
            why={
                "purpose": search.purpose,
                "art6": search.basis["art6"],
                "threshold": threshold.level if threshold else None,
                "case": search.case_hmac,
                "family_informed": search.family_informed,
                "clauses": sorted({str(s.under) for r in seen if r.shown for s in r.decision.shown.values()}),
                "link": candidate.band,
            },
            subjects=_subjects(seen),
            recipients=[{"organisation": caller.organisation, "person": caller.person, "role": caller.role}],
            detail={"hidden": _hidden(snapshot, seen)},
        ),
        about={record.person_id for record in seen} | {_named(record.record) for record in seen},
        blobs={f"decision/{source}": rfc8785.dumps(dict(receipt.jws)) for source, receipt in receipts.items()},
        at=at,
    )
    tx.add(
        ViewRow(
            id=view_id, search=search.id, candidate=candidate.candidate, agency=caller.organisation,
            person=caller.person, event_id=event_id, outcome="disclosed" if shown else "silent", at=at,
            ends_at=at + VIEW_LASTS,
        )
    )  # fmt: skip
    return view, entry, tuple(receipt.asker.body for receipt in receipts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciding:
    """One question at one instant, over one published run: what it takes to decide on any person's records."""

    tx: Reading
    keys: Keys
    area: LinkedArea
    snapshot: Snapshot
    request: Request
    case: str | None  # that the child is known to belong to
    at: datetime

    def person(self, person_id: str, relation: str, link: Link) -> list[Seen]:
        """Every record of one person, decided and rendered; one whose flow carries others' items, once a source."""
        tags = self.area.tags(person_id)
        seen = []
        for record in self.area.index.records_of(person_id):
            by_source: dict[str, list[Item]] = defaultdict(list)
            for item, origin in held_on(self.tx, record, keys=self.keys):
                by_source[origin or record[0]].append(item)
            for source, items in sorted((by_source or {record[0]: []}).items()):
                facts = Facts(
                    source=source,
                    record=record[2],
                    relation=relation,
                    case=self.case,
                    link=Link.MATCH if link is Link.CERTAIN and not self.area.firm(record) else link,
                    tags=tags,
                    held=_newest(items),
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


def _rendered(decision: Decision, items: Sequence[Item], *, at: datetime, shielded: bool) -> tuple[Rendering, ...]:
    if decision.outcome is Outcome.SILENT:
        return ()
    rendered = (
        render(category, shown.mode, items, on=london_day(at), shielded=shielded, reach=decision.reach)
        for category, shown in decision.shown.items()
        if category in VOCABULARY.categories
    )
    return tuple(rendering for rendering in rendered if rendering is not None)


def _newest(items: Iterable[Item]) -> Mapping[str, tuple[Held, ...]]:
    newest: dict[str, dict[str, Held]] = defaultdict(dict)
    for item in items:
        before = newest[item.category].get(item.regime)
        if before is None or before.recorded_on is None or item.recorded_on > before.recorded_on:
            newest[item.category][item.regime] = Held(item.recorded_on, item.regime)
    return {category: tuple(by_regime.values()) for category, by_regime in newest.items()}


def _with_household(family: Sequence[Relative], search: SearchRow, child: str) -> list[Relative]:
    """The family as agencies state it, and whoever the asker named beside it."""
    known = {relative.person_id for relative in family} | {child}
    named = [
        Relative(
            person_id=person_id,
            relation=RELATION_OF[relation],
            stated=(Stated(type=relation, source=search.agency, verified=False, since=None, until=None),),
        )
        for person_id, relation in search.household
        if person_id not in known
    ]
    return [*family, *named]


def own_candidate(
    tx: Reading, caller: Caller, *, search: str, candidate: str, at: datetime
) -> tuple[SearchRow, SearchCandidateRow]:
    """A candidate of one of the caller's own searches.

    Raises NotFound alike for another's, an invented and an expired one.
    """
    found = tx.one(SearchRow, id=search, agency=caller.organisation, person=caller.person)
    chosen = tx.one(SearchCandidateRow, search=search, candidate=candidate)
    if found is None or chosen is None or found.expires_at <= at or found.role != caller.role:
        raise NotFound("there is no such search or candidate, or it has expired")
    return found, chosen


def link_of(candidate: SearchCandidateRow) -> Link:
    """How sure the link between what was asked and the person is."""
    if candidate.band != "match":
        return Link.POSSIBLE
    return Link.CERTAIN if candidate.upper else Link.MATCH


def recorded_threshold(tx: Reading, caller: Caller, case_hmac: str, person_id: str) -> Threshold | None:
    """The level last recorded by the caller's organisation for this case and child."""
    recorded = tx.all(
        ThresholdRow, agency=caller.organisation, case_hmac=case_hmac, person_id=person_id, order=["-at"], limit=1
    )
    return Threshold(level=recorded[0].level, decided_by=recorded[0].role) if recorded else None


def case_of(tx: Reading, area: LinkedArea, caller: Caller, case_hmac: str, person_id: str) -> str | None:
    """The case the child belongs to, as far as the broker knows.

    A case belongs to the child it was first used for, and to that child's family.  Used for anyone else, it is another
    child's case, and None is returned: no clause that asks for a case reference then covers.
    """
    if not case_hmac:
        return None
    first = first_view_of_case(tx, agency=caller.organisation, case_hmac=case_hmac)
    if first is None or first == person_id:
        return case_hmac
    family = {relative.person_id for relative in area.family(first)}
    return case_hmac if person_id in family or not area.index.records_of(first) else None


def refusals(snapshot: Snapshot, request: Request, feeds: Sequence[Feed], *, at: datetime) -> list[Refusal]:
    """What can't be shown from each organisation, from request and agreements alone: equal for every child.

    An organisation is asked only for the sectors that it discloses under some agreement.
    """
    names = {feed.organisation: feed.name for feed in feeds}
    desks = {feed.organisation: _desk(feed) for feed in feeds}
    found = []
    for source in sorted(names):
        sectors = {
            sector
            for agreement in snapshot.agreements
            if source in agreement.parties
            for sector in agreement.parties[source].discloses
        }
        asked = {name: mode for name, mode in request.asked.items() if VOCABULARY.categories[name].sector in sectors}
        if asked:
            own = replace(request, asked=asked)
            reasons = explain_for_asker(snapshot, VOCABULARY, own, source, at, names=names, desks=desks)
            found += [family_view.refusal_of(reason) for reason in reasons]
    return found


def _desk(feed: Feed) -> str:
    return f"{feed.contact.name} on {feed.contact.phone}" if feed.contact else f"{feed.name}'s safeguarding desk"


def refused(refusal: RequestRefused) -> Refusal:
    """A request that can't be decided at all, in the words the asker reads."""
    return Refusal(
        organisation=None,
        category=None,
        code=refusal.code,
        sentence=VOCABULARY.results[refusal.code].asker,
        unlock=None,
    )


def _shown_modes(seen: Sequence[Seen]) -> dict[str, dict[str, str]]:
    modes: dict[str, dict[str, str]] = {}
    for record in seen:
        for rendering in record.renderings:
            mine = modes.setdefault(record.source, {})
            best = max(Mode.parse(mine.get(rendering.category, "none")), rendering.mode)
            mine[rendering.category] = best.word
    return modes


def _subjects(seen: Sequence[Seen]) -> list[str]:
    shown = [record for record in seen if record.shown]
    return sorted({record.person_id for record in shown} | {_named(record.record) for record in shown})


def _named(record: RecordKey) -> str:
    return "/".join(record)


def _hidden(snapshot: Snapshot, seen: Sequence[Seen]) -> dict[str, int]:
    """True codes of what was not shown, with how many records each: for the log only."""
    codes: dict[str, int] = defaultdict(int)
    for record in seen:
        if not record.shown:
            codes[explain_for_holder(snapshot, VOCABULARY, record.decision).code or "NOTHING_HELD"] += 1
    return dict(codes)


def who(caller: Caller) -> dict[str, str]:
    """Who acts, as the log keeps it: opaque ids only."""
    return {
        "organisation": caller.organisation,
        "person": caller.person,
        "role": caller.role,
        "session": caller.session,
        "method": caller.method,
        "evidence": caller.evidence,
    }


def fresh_id() -> str:
    """128 random bits, in hex."""
    return secrets.token_hex(16)
