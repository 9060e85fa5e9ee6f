"""The heart: decide, record, then disclose.

One transaction decides on every record of the child and the family and writes the decision to the log; the answer is
built only from what was decided, and leaves only once a signed checkpoint covers it.  A refusal goes the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Final

import rfc8785

from agreements import Basis, BreakGlass, DecisionReceipt, Link, Mode, Request, Snapshot, Threshold
from agreements.agreement import london_day
from audit.events import Event, Json
from broker import activation, agencies, emergencies, family_view, ledger, lineage
from broker.budgets import exceeded
from broker.callers import Caller
from broker.deciding import (
    Case,
    Deciding,
    LinkOf,
    Question,
    Released,
    engine_failed,
    held_of,
    hidden_code,
    links_to_child,
    links_to_relative,
    looked_at,
    named,
    receipts_of,
    record_end,
    refusals,
    said_of,
)
from broker.emergencies import Emergency
from broker.errors import BrokerError, NotAllowed, NotFound, TooMany, WrongState
from broker.family_view import FamilyView, Feed, Header, Refusal, Seen
from broker.keys import Keys
from broker.ledger import Broken
from broker.linked import RELATION_OF, InService, LinkedArea, Relative, Stated
from broker.settings import Budgets
from broker.store import Reading, Store, Transaction
from broker.store.runs import LinkRunRow
from broker.store.searches import SearchCandidateRow, SearchRow, ViewPersonRow, ViewRow
from broker.trail import EntryRef, Trail, new_event_id
from linkage.matching.families import Known
from linkage.matching.overrides import RecordKey

VIEW_LASTS: Final = timedelta(minutes=60)
RELATIVES: Final = 24  # how many of a family are looked at; the page draws no more
SUBJECTS: Final = 24  # how many an event lists itself; more go sealed beside it, under their digest
_NEAREST: Final = ("sibling", "parent", "carer", "household", "other")


def disclose(
    store: Store,
    trail: Trail,
    keys: Keys,
    service: InService,
    caller: Caller,
    *,
    search: str,
    candidate: str,
    budgets: Budgets,
    emergency: Emergency | None = None,
    at: datetime,
) -> Released[FamilyView]:
    """The linked family view of one candidate of one's own search; in an `emergency` under broken glass.

    Raises NotFound for a search or candidate that isn't the caller's, Malformed for a reason that is none, NotAllowed,
    which is recorded, for whose last emergency waits for its review, WrongState if the persons have been linked anew
    since, TooMany, which is recorded, if as many were opened as may be; having shown nothing, LogUnavailable if it
    can't be recorded, and EngineFailed, which is recorded, if a rule can't be evaluated.
    """
    area = service.area()
    asked: SearchRow | None = None
    if emergency is not None:
        emergency.check()
    try:
        with store.transaction() as tx:
            asked, chosen = own_candidate(tx, caller, search=search, candidate=candidate, at=at)
            if area is None or not area.index.records_of(chosen.person_id):
                raise WrongState("the records have been linked anew since: search again")
            answered = tx.one(LinkRunRow, id=asked.run) if asked.run else None
            since = answered.published_at if answered is not None else None
            if lineage.successors(tx, chosen.person_id, since=since).became == "split":
                raise WrongState("this person has been split into several since: search again")
            over = exceeded(tx, caller, "views", budgets, at=at)
            barred = emergencies.barred(tx, caller, at=at) if emergency is not None else None
            if over is not None:
                _refuse(tx, trail, caller, asked, over[0], at=at)
            elif barred is not None:
                _refuse(tx, trail, caller, asked, barred, at=at)
            else:
                view, entry, receipts = _decide_and_record(
                    tx, trail, keys, area, caller, asked, chosen, emergency=emergency, at=at
                )
    except BrokerError:
        raise
    except Exception as wrong:  # whatever it is: no part of an answer leaves
        raise _failed(store, trail, caller, asked, wrong, search=search, at=at) from None
    if over is not None:
        raise TooMany(over[0].sentence, retry_after=int(over[1].total_seconds()) + 1)
    if barred is not None:
        raise NotAllowed(barred.sentence)
    return Released(view, trail.receipt(entry), tuple(receipt.asker.body for receipt in receipts.values()))


def _refuse(
    tx: Transaction, trail: Trail, caller: Caller, search: SearchRow, refusal: Refusal, *, at: datetime
) -> None:
    codes, withheld = said_of([refusal])
    event = Event(
        id=new_event_id(),
        type="disclosure.refused",
        who=caller.who(),
        what={"search": search.id, "outcome": refusal.code, "refused": codes},
        why={"purpose": search.purpose, "art6": search.basis["art6"], "case": search.case_hmac},
        recipients=[{"organisation": caller.organisation, "person": caller.person, "role": caller.role}],
        detail={},
    )
    trail.record(tx, event, blobs={"refused": withheld}, at=at)


def completed(store: Store, trail: Trail, caller: Caller, *, view: str, event_id: str) -> None:
    """Record that the answer has left: called after its last byte."""
    record_end(
        store, trail, caller, "disclosure.completed", {"view": view, "authorised_by": event_id},
        beside=partial(ledger.ended, event_id=event_id, how="completed"),
    )  # fmt: skip


def aborted(store: Store, trail: Trail, caller: Caller, how: Broken = "not_sent", *, view: str, event_id: str) -> None:
    """Record that the answer was not taken: nothing of it has left, or it broke off and a part may have arrived."""
    record_end(
        store, trail, caller, "disclosure.aborted", {"view": view, "authorised_by": event_id, "outcome": how},
        beside=partial(ledger.ended, event_id=event_id, how=how),
    )  # fmt: skip


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


def _failed(
    store: Store, trail: Trail, caller: Caller, asked: SearchRow | None, wrong: Exception, *, search: str, at: datetime
) -> BrokerError:
    why: dict[str, Json] = {}
    if asked is not None:
        why = {"purpose": asked.purpose, "art6": asked.basis["art6"], "case": asked.case_hmac}
    return engine_failed(
        store, trail, caller, wrong, type_="disclosure.refused", what={"search": search}, why=why, at=at,
        request=_question(caller, asked, None).request() if asked is not None else None,
    )  # fmt: skip


def _question(
    caller: Caller, search: SearchRow, threshold: Threshold | None, session: BreakGlass | None = None
) -> Question:
    basis = Basis(
        art6=search.basis["art6"],
        conditions=frozenset(search.basis["condition"]),
        gateways=frozenset(search.basis["gateway"]),
    )
    return Question(
        caller=caller, purpose=emergencies.PURPOSE if session is not None else search.purpose, basis=basis,
        case_hmac=search.case_hmac, threshold=threshold, break_glass=session,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decided:
    """Everything decided for one view."""

    snapshot: Snapshot
    barred: tuple[str, ...]
    request: Request
    feeds: tuple[Feed, ...]
    relatives: tuple[Relative, ...]
    seen: tuple[Seen, ...]  # the child's records first

    @property
    def shown(self) -> tuple[Seen, ...]:
        return tuple(record for record in self.seen if record.shown)

    def records_shown(self, person_id: str) -> list[RecordKey]:
        """Those records of one person of which something is shown."""
        return [record.record for record in self.shown if record.person_id == person_id]


def _decide_and_record(
    tx: Transaction,
    trail: Trail,
    keys: Keys,
    area: LinkedArea,
    caller: Caller,
    search: SearchRow,
    candidate: SearchCandidateRow,
    *,
    emergency: Emergency | None,
    at: datetime,
) -> tuple[FamilyView, EntryRef, Mapping[str, DecisionReceipt]]:
    case = Case.known(tx, area, caller, search.case_hmac)
    threshold = case.levels.get(candidate.person_id)
    session = emergency.session(at) if emergency is not None else None
    decided = _decide(tx, keys, area, caller, search, candidate, case, session, at=at)
    view_id = new_event_id()
    ends_at = _ends_at(decided, at)
    opened: str | None = None
    if emergency is not None:
        opened = emergencies.record(
            tx, trail, caller, emergency, search=search.id, view=view_id, child=candidate.person_id,
            case=search.case_hmac, ends_at=ends_at, at=at,
        )  # fmt: skip
    view = family_view.build(
        view=view_id,
        at=at,
        ends_at=ends_at,
        purpose=decided.request.purpose,
        emergency=opened,
        threshold=threshold.level if threshold else None,
        person=Header(
            birth_year=area.birth_year(decided.records_shown(candidate.person_id)),
            sex=area.sex(decided.records_shown(candidate.person_id)),
            band=candidate.band,
            agreed=tuple(candidate.agreed),
            differs=tuple(candidate.differs),
        ),
        seen=decided.seen,
        relatives=[
            (relative, area.birth_year(theirs), area.person_role(theirs))
            for relative in decided.relatives
            for theirs in [decided.records_shown(relative.person_id)]
        ],
        conflicts=_conflicts(area, decided, candidate.person_id),
        feeds=decided.feeds,
        withheld=refusals(decided.snapshot, decided.request, decided.feeds, at=at, barred=decided.barred),
        snapshot=decided.snapshot,
    )
    receipts = receipts_of(keys, decided.snapshot, decided.request, decided.seen, decided.feeds, at=at)
    sealed = looked_at(decided.seen)
    codes, withheld = said_of(view.withheld)
    outcome = "disclosed" if decided.shown else "silent"
    subjects = sorted({r.person_id for r in decided.shown} | {named(r.record) for r in decided.shown})
    listed, beside = _subjects(subjects)
    entry = trail.record(
        tx,
        Event(
            id=new_event_id(),
            type="disclosure.authorised" if decided.shown else "disclosure.refused",
            who=caller.who(),
            what={
                "search": search.id,
                "view": view_id,
                "outcome": outcome,
                "categories": _shown_modes(decided.shown),
                "refused": codes,
                "decisions": {source: receipt.asker.body["commitment"] for source, receipt in receipts.items()},
                "run": area.run,
            },
            why={
                "purpose": decided.request.purpose,
                **({"emergency": opened} if opened else {}),
                "art6": search.basis["art6"],
                "threshold": threshold.level if threshold else None,
                "case": search.case_hmac,
                "family_informed": search.family_informed,
                "clauses": sorted({str(s.under) for r in decided.shown for s in r.decision.shown.values()}),
                "link": candidate.band,
            },
            subjects=listed,
            recipients=[{"organisation": caller.organisation, "person": caller.person, "role": caller.role}],
            detail={"hidden": _hidden(decided), "looked_at": sha256(sealed).hexdigest()},
        ),
        about={view_id, *(r.person_id for r in decided.seen), *(named(r.record) for r in decided.seen)},
        blobs={
            **{f"decision/{source}": rfc8785.dumps(dict(receipt.jws)) for source, receipt in receipts.items()},
            "subjects": beside,
            "looked_at": sealed,
            "refused": withheld,
        },
        at=at,
    )
    tx.add(
        ViewRow(
            id=view_id, search=search.id, candidate=candidate.candidate, agency=caller.organisation,
            person=caller.person, event_id=entry.event_id, outcome=outcome, at=at, ends_at=ends_at,
        )
    )  # fmt: skip
    tx.flush()
    ledger.notify(tx, keys, decided.shown, decided.feeds, event_id=entry.event_id, kind="view", at=at)
    tx.add(*(ViewPersonRow(view=view_id, person_id=one) for one in {record.person_id for record in decided.shown}))
    return view, entry, receipts


def _ends_at(decided: _Decided, at: datetime) -> datetime:
    """When a view must be asked for again: after an hour, or where an agreement it is shown under ends before."""
    under = {shown.under for record in decided.shown for shown in record.decision.shown.values()}
    cited = {clause.agreement for clause in under}
    agreements = [agreement for agreement in decided.snapshot.agreements if agreement.ref in cited]
    ends = [
        document.period.end
        for agreement in agreements
        for document in filter(None, (agreement, decided.snapshot.umbrella(agreement)))
    ]
    ends += [
        at + timedelta(minutes=grant.break_glass.ends_after.minutes)
        for agreement in agreements
        for grant in agreement.grants
        if grant.break_glass is not None
        and any((one.agreement, one.clause) == (agreement.ref, grant.id) for one in under)
    ]
    return min(at + VIEW_LASTS, *ends) if ends else at + VIEW_LASTS


def _decide(
    tx: Reading,
    keys: Keys,
    area: LinkedArea,
    caller: Caller,
    search: SearchRow,
    candidate: SearchCandidateRow,
    case: Case,
    session: BreakGlass | None,
    *,
    at: datetime,
) -> _Decided:
    """First the child; then the family, as far as those state it who show the asker something of the child.

    However many records there are, and of whomever, the database is asked as many questions.
    """
    child = candidate.person_id
    question = _question(caller, search, case.levels.get(child), session)
    snapshot, barred = activation.snapshot_for(tx, caller.person)
    deciding = Deciding(
        area=area, snapshot=snapshot, request=question.request(), feeds=agencies.feeds(tx, at=at),
        held=held_of(tx, area, [child], keys=keys), at=at,
    )  # fmt: skip
    bound = case.of(child)
    certain: list[RecordKey] = [(agency, flow, ref) for agency, flow, ref in candidate.records]
    link = links_to_child(area, candidate.band, certain)
    seen = deciding.person(child, "subject_child", link, case=bound)
    relatives: tuple[Relative, ...] = ()
    if candidate.band == "match":  # whose family it would be is not sure otherwise
        relatives = _relatives(area, search, child, telling={r.record[0] for r in seen if r.shown}, at=at)
    sure = frozenset(record for record in area.index.records_of(child) if link(record) is Link.CERTAIN)
    theirs_held = held_of(tx, area, [relative.person_id for relative in relatives], keys=keys)
    deciding = replace(deciding, held=theirs_held)
    for relative in relatives:
        theirs: LinkOf = links_to_relative(area, sure, relative.person_id, relative.flows)
        seen += deciding.person(relative.person_id, relative.relation, theirs, case=bound)
    return _Decided(
        snapshot=snapshot, barred=activation.barring(tx, barred, deciding.request, at=at), request=deciding.request,
        feeds=tuple(deciding.feeds), relatives=relatives, seen=tuple(seen),
    )  # fmt: skip


def _relatives(
    area: LinkedArea, search: SearchRow, child: str, *, telling: set[str], at: datetime
) -> tuple[Relative, ...]:
    """The family as the organisations `telling` state it today, and whoever the asker named of the household.

    Where the child's address is shielded nobody is family for living there alone: that would tell the place.
    """
    on = london_day(at)
    shielded = "shield_address" in area.tags(child)

    def told(stated: Stated) -> bool:
        return stated.source in telling and stated.holds(on) and not (shielded and stated.type == "household")

    family = area.family(child, told)
    known = {relative.person_id for relative in family} | {child}
    typed = [
        Relative(
            person_id=person_id,
            relation=RELATION_OF[relation],
            stated=(Stated(type=relation, source=search.agency, flow="", verified=False, since=None, until=None),),
            flows=frozenset(),
        )
        for person_id, relation in search.household
        if person_id not in known
    ]
    nearest = sorted([*family, *typed], key=lambda relative: _NEAREST.index(relative.relation))
    return tuple(nearest[:RELATIVES])


def _conflicts(area: LinkedArea, decided: _Decided, child: str) -> Mapping[str, tuple[str, ...]]:
    """How organisations disagree on the family, by what they tell of it and what is shown of the persons."""
    telling = {record.source for record in decided.shown if record.person_id == child}
    known = {}
    for person_id in (child, *(relative.person_id for relative in decided.relatives)):
        if theirs := decided.records_shown(person_id):
            year = area.birth_year(theirs)
            known[person_id] = Known(born=None if year is None else (year, year), sex=area.sex(theirs))
    return area.conflicts(child, known, lambda stated: stated.source in telling)


def _subjects(subjects: Sequence[str]) -> tuple[Sequence[Json], bytes]:
    """What an event lists of those shown, and all of them as they are sealed beside it."""
    beside = rfc8785.dumps(list(subjects))
    if len(subjects) <= SUBJECTS:
        return list(subjects), beside
    return [{"count": len(subjects), "sha256": sha256(beside).hexdigest()}], beside


def _shown_modes(shown: Iterable[Seen]) -> dict[str, dict[str, str]]:
    modes: dict[str, dict[str, str]] = {}
    for record in shown:
        for rendering in record.renderings:
            mine = modes.setdefault(record.source, {})
            best = max(Mode.parse(mine.get(rendering.category, "none")), rendering.mode)
            mine[rendering.category] = best.word
    return modes


def _hidden(decided: _Decided) -> dict[str, Any]:
    """True codes of what was not shown, with how many records each: for the log alone."""
    codes = [hidden_code(decided.snapshot, record.decision) for record in decided.seen if not record.shown]
    return {code: codes.count(code) for code in sorted(set(codes))}
