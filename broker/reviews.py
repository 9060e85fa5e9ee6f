"""Clerical review: uncertain pairs in a queue, masked; what a reviewer decides of one; "this is the wrong person".

A link reviewer sees how two records compare, never what they hold: no name, no item, no token, no record_ref.  The
queue is sorted by age alone.  A decision is in the log before its answer leaves, takes effect in the next night's run,
and needs a second reviewer where a child is shielded or sealed, or where twins or two numbers would be joined.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import pyarrow as pa
import rfc8785

from audit.events import Event, Json
from broker import lineage, overrides, register
from broker.callers import Caller
from broker.deciding import Released, named
from broker.errors import Malformed, NotAllowed, NotFound, TooMany, WrongState
from broker.keys import Keys
from broker.linked import InService, LinkedArea
from broker.overrides import Sides, open_sides, pair_index, seal_sides
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.reviews import (
    OverrideRow,
    ReviewActRow,
    ReviewRow,
    acts_since,
    close_unseen,
    insert_reviews,
    known_pairs,
    queue,
    seen_again,
)
from broker.store.runs import LinkRunRow, PublishedRow
from broker.store.searches import SearchCandidateRow, ViewRow
from broker.trail import EntryRef, Trail, new_event_id
from broker.vault import Vault
from linkage.matching.bands import HELD
from linkage.matching.explain import LABELS, OTHER_REASONS, Explanation, explained, held_because
from linkage.matching.overrides import RecordKey

Decision = Literal["same", "different", "cannot_tell"]
State = Literal["waiting", "second", "passed_on"]

REVIEWER: Final = "LINK_REVIEWER"
QUEUE_REASONS: Final = (*HELD, *OTHER_REASONS)
DECISIONS: Final = ("same", "different", "cannot_tell")
STATES: Final = ("waiting", "second", "passed_on")
WHY: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "levels_agree": ("What agrees can't be chance", ("same",)),
    "slip_of_the_pen": ("What differs is a slip, or has changed since", ("same",)),
    "number_replaced": ("One number has taken the other's place", ("same",)),
    "agency_says_same": ("An agency looked at its records: the same person", ("same",)),
    "levels_differ": ("What differs can't be a slip", ("different",)),
    "twins_or_siblings": ("Twins, or a brother or sister", ("different",)),
    "parent_and_child": ("A parent and a child", ("different",)),
    "agency_says_different": ("An agency looked at its records: two people", ("different",)),
    "not_enough": ("What is shown does not settle it", ("cannot_tell",)),
    "agency_cannot_tell": ("An agency looked and can't tell", ("cannot_tell",)),
}
"""Reason codes, each with its label and the decisions it may bear."""
EVIDENCE: Final[Mapping[str, str]] = {
    "agreement_levels": "The agreement levels",
    "waterfall": "The waterfall of weights",
    "conflicting_numbers": "Numbers that differ",
    "history": "The history of the pair",
    "left_agency_rung": "The first agency, by telephone",
    "right_agency_rung": "The second agency, by telephone",
}
WRONG_PERSON_HOW: Final[Mapping[str, str]] = {
    "knows_the_child": "I know the child, and this is another",
    "family_says_so": "The child or the family says so",
    "dates_impossible": "The dates can't be of one child",
    "own_record_checked": "We looked at our own record",
}
WHAT_IS_WRONG: Final = ("whole_child", "organisation_record", "family_member")
TAKEN_BACK: Final[Mapping[str, str]] = {
    "decided_in_error": "It was decided in error",
    "agency_says_otherwise": "An agency looked at its records, and says otherwise",
    "records_have_changed": "The records have changed since",
}
SECOND_FOR_SAME: Final = ("twin", "conflict", "swapped")
_DECISION_OF: Final = {"must_link": "same", "must_not_link": "different"}
PAGE: Final = 50
PER_HOUR: Final[Mapping[str, int]] = {"listed": 240, "opened": 120, "decided": 120, "asked": 60, "reported": 20}
"""How often one person may do each in an hour."""
NEXT_NIGHT: Final = "next_night"
ASKS: Final = "Is this record of one person, and are these of it right?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which part of the queue is wanted."""

    state: State = "waiting"
    reason: str | None = None
    agency: str | None = None
    waiting_days: int = 0
    after: str | None = None
    limit: int = PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One entry of the queue: why it waits, since when, between whom; nothing of how likely it is."""

    review: str
    reason: str
    sentence: str
    agencies: tuple[str, str]
    since: datetime
    yours: bool  # the caller has decided it, so that somebody else must confirm


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePage:
    """Entries, oldest first; `next` is the cursor of the following page."""

    at: datetime
    reviews: tuple[Waiting, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSaid:
    """How one field compares."""

    field: str
    label: str
    level: str
    rarity: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One bar of the waterfall, in bits, to one decimal."""

    field: str
    level: str
    weight: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that was done about a pair, and whether by the caller."""

    act: str
    code: str
    at: datetime
    yours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One pair, masked."""

    review: str
    state: str
    reason: str
    sentence: str
    agencies: tuple[str, str]
    records: tuple[int, int]  # how many each side has: over one where a person is doubted
    since: datetime
    fields: tuple[FieldSaid, ...]
    numbers_agree: tuple[str, ...]
    numbers_differ: tuple[str, ...]
    numbers_missing: tuple[str, ...]
    waterfall: tuple[Step, ...]
    second_reviewer: bool  # whether joining or parting these takes two
    proposed: str | None  # what the first reviewer decided, where a second is due
    history: tuple[Act, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What became of a decision.  It binds from the next night's run, or from the one after it is confirmed."""

    review: str
    decision: str
    state: str  # active, proposed, withdrawn, passed_on
    override: str | None
    takes_effect: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToRing:
    """Whom to ring at one agency, and what to quote so that it finds its own record."""

    organisation: str
    name: str
    contact: Mapping[str, str] | None
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Both agencies, and what to ask them."""

    review: str
    agencies: tuple[ToRing, ToRing]
    ask: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an agency is asked about a record of its own."""

    reference: str
    flow: str
    record_ref: str
    ask: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A report of a wrong person was taken.  The same whatever is behind it."""

    report: str
    at: datetime
    sentence: str = "Recorded. A reviewer looks at it. Do not use what you saw."


# --- The queue -------------------------------------------------------------------------------------------------------


def listed(
    store: Store, trail: Trail, keys: Keys, vault: Vault, caller: Caller, wanted: Wanted, *, at: datetime
) -> Released[QueuePage]:
    """One page of the queue.  Raises NotAllowed, NotFound for a cursor that is none, TooMany, LogUnavailable."""
    _may_review(caller)
    take_in_published(store, keys, vault, at=at)
    with store.transaction() as tx:
        _within_budget(tx, caller, "listed", at=at)
        after = tx.one(ReviewRow, id=wanted.after) if wanted.after else None
        if wanted.after and after is None:
            raise NotFound("the cursor is of no page")
        rows = queue(
            tx, states=[wanted.state], reason=wanted.reason, agency=wanted.agency, after=after, limit=wanted.limit + 1,
            since_before=at - timedelta(days=wanted.waiting_days) if wanted.waiting_days else None,
        )  # fmt: skip
        more, rows = len(rows) > wanted.limit, rows[: wanted.limit]
        proposers = _proposers(tx, rows)
        entry = _record(
            tx, trail, "review.listed", caller, outcome=f"{len(rows)}_listed", at=at,
            what={"state": wanted.state, "reason": wanted.reason, "agency": wanted.agency},
        )  # fmt: skip
        _note(tx, caller, "listed", None, entry, at=at)
    page = QueuePage(
        at=at,
        reviews=tuple(
            Waiting(
                review=row.id, reason=row.reason, sentence=held_because(row.reason),
                agencies=(row.agency_l, row.agency_r), since=row.since, yours=proposers.get(row.id) == caller.person,
            )
            for row in rows
        ),
        next=rows[-1].id if more else None,
    )  # fmt: skip
    return Released(page, trail.receipt(entry))


def opened(
    store: Store, trail: Trail, keys: Keys, service: InService, caller: Caller, review: str, *, at: datetime
) -> Released[Review]:
    """One pair: how it compares, in levels.  Raises NotAllowed, NotFound, TooMany, LogUnavailable."""
    _may_review(caller)
    area = _area(service)
    with store.transaction() as tx:
        _within_budget(tx, caller, "opened", at=at)
        row, sides = _found(tx, keys, area, review)
        said = _explained(area, sides)
        second = _second_due(tx, area, sides)
        acts = tx.all(ReviewActRow, review=row.id, order=("id",))
        proposed = tx.one(OverrideRow, id=row.override) if row.state == "second" else None
        entry = _record(
            tx, trail, "review.opened", caller, outcome=row.state, at=at, sides=sides,
            what={"review": row.id, "reason": row.reason},
        )  # fmt: skip
        _note(tx, caller, "opened", row.id, entry, at=at)
    answer = Review(
        review=row.id, state=row.state, reason=row.reason, sentence=held_because(row.reason),
        agencies=(row.agency_l, row.agency_r), records=(len(sides.left), len(sides.right)), since=row.since,
        fields=tuple(FieldSaid(**asdict(one)) for one in said.fields),
        numbers_agree=said.numbers_agree, numbers_differ=said.numbers_differ, numbers_missing=said.numbers_missing,
        waterfall=tuple(
            Step(field=bar.field, level=bar.level, weight=round(bar.weight, 1), total=round(bar.total, 1))
            for bar in said.waterfall
        ),
        second_reviewer=second or row.reason in SECOND_FOR_SAME,
        proposed=_DECISION_OF[proposed.kind] if proposed else None,
        history=tuple(
            Act(act=act.act, code=act.code, at=act.at, yours=act.person == caller.person)
            for act in acts if act.act not in ("opened", "listed")
        ),
    )  # fmt: skip
    return Released(answer, trail.receipt(entry))


def take_in_published(store: Store, keys: Keys, vault: Vault, *, at: datetime) -> int:
    """Bring the queue to the run in service, if that has not been done; how many pairs are new.

    A night does this as it ends; the first look at the queue does it for a night that was killed in between.
    """
    with store.reading() as reading:
        pointer = reading.one(PublishedRow)
        run = reading.one(LinkRunRow, id=pointer.run) if pointer else None
        if run is None or reading.one(ReviewActRow, act="taken_in", code=run.id) is not None:
            return 0
    return take_in(store, keys, run.id, vault.read_parts(run.segments, "reviews"), at=run.published_at or at)


def take_in(store: Store, keys: Keys, run: str, found: pa.Table, *, at: datetime) -> int:
    """Bring the queue to what a run found uncertain; how many pairs are new.  Twice does no harm.

    A pair keeps its place while each run finds it again, and leaves when one does not.  What was decided stays so, as
    long as its override holds.
    """
    pairs = {pair_index(keys, sides): (sides, reason) for sides, reason in _pairs_of(found)}
    with store.transaction() as tx:
        if tx.one(ReviewActRow, act="taken_in", code=run) is not None:
            return 0
        known = known_pairs(tx, pairs)
        seen_again(tx, known, run=run)
        for row in known.values():
            override = tx.one(OverrideRow, id=row.override) if row.override else None
            if row.state == "gone" or (row.state == "decided" and (override is None or override.state == "withdrawn")):
                row.state, row.since, row.changed_at, row.override = "waiting", at, at, None
            row.run, row.reason = run, pairs[row.pair_index][1] if row.scope == "records" else row.reason
            tx.add(row)
        new = [_row(keys, sides, reason, run, at=at) for index, (sides, reason) in pairs.items() if index not in known]
        insert_reviews(tx, new)
        close_unseen(tx, run=run, scope="records", states=("waiting", "passed_on"), at=at)
        tx.add(ReviewActRow(act="taken_in", organisation="", person="", code=run, event_id="", at=at))
    return len(new)


def _pairs_of(found: pa.Table) -> Iterable[tuple[Sides, str]]:
    for row in found.to_pylist():
        left, right = ((row[f"agency_{s}"], row[f"flow_{s}"], row[f"record_ref_{s}"]) for s in "lr")
        yield Sides.of([left], [right]), row["reason"]


def _row(keys: Keys, sides: Sides, reason: str, run: str, *, at: datetime) -> ReviewRow:
    review = new_event_id()
    sealed, wrapped = seal_sides(keys, sides, review)
    return ReviewRow(
        id=review, pair_index=pair_index(keys, sides), reason=reason, agency_l=sides.left[0][0],
        agency_r=sides.right[0][0], reference_l=_reference(), reference_r=_reference(), sealed=sealed,
        key_wrapped=wrapped, state="waiting", run=run, since=at, changed_at=at,
        scope="records" if len(sides.records) == 2 and reason != "wrong_person" else "persons",
    )  # fmt: skip


def _reference() -> str:
    """Twelve characters that can be said on the telephone."""
    text = "".join(secrets.choice("23456789ABCDEFGHJKMNPQRSTUVWXYZ") for _ in range(12))
    return f"{text[:4]}-{text[4:8]}-{text[8:]}"


# --- Deciding --------------------------------------------------------------------------------------------------------


def decide(
    store: Store,
    trail: Trail,
    keys: Keys,
    service: InService,
    caller: Caller,
    review: str,
    decision: Decision,
    *,
    reason: str,
    evidence: Sequence[str],
    at: datetime,
) -> Released[Decided]:
    """Record a decision.  The pair leaves the queue at once; persons change with the next night's run.

    Raises NotAllowed, Malformed for a code that is not on its list, NotFound, WrongState if it is decided already or
    the caller has not opened it, TooMany, LogUnavailable.
    """
    _may_review(caller)
    if decision not in WHY.get(reason, ("", ()))[1]:
        raise Malformed("reason: not one of those that this decision may bear")
    if not evidence or set(evidence) - EVIDENCE.keys():
        raise Malformed(f"evidence: one or more of {', '.join(EVIDENCE)}")
    area = _area(service)
    with store.transaction() as tx:
        _within_budget(tx, caller, "decided", at=at)
        row, sides = _found(tx, keys, area, review)
        if row.state not in ("waiting", "passed_on"):
            raise WrongState("this pair is decided already, or waits for a second reviewer")
        if not tx.all(ReviewActRow, review=row.id, act="opened", person=caller.person, limit=1):
            raise WrongState("open the pair before deciding it")
        override = None
        if decision == "cannot_tell":
            row.state = "passed_on"
            entry = _record(
                tx, trail, "review.passed_on", caller, outcome="passed_on", at=at, sides=sides,
                what={"review": row.id}, why={"reason": reason, "evidence": sorted(set(evidence))},
            )  # fmt: skip
        else:
            second = _second_due(tx, area, sides) or (decision == "same" and row.reason in SECOND_FOR_SAME)
            override, entry = overrides.propose(
                tx, trail, keys, "must_link" if decision == "same" else "must_not_link",
                _closest(area, sides) if decision == "same" else sides,
                who=caller.who(), reason=reason, evidence=evidence, second_due=second, review=row.id, at=at,
                about=_about(sides),
            )  # fmt: skip
            row.state, row.override = "second" if second else "decided", override.id
        row.changed_at = at
        tx.add(row)
        _note(tx, caller, "decided", row.id, entry, code=decision, at=at)
    state = override.state if override else "passed_on"
    answer = Decided(
        review=row.id, decision=decision, state=state, override=override.id if override else None,
        takes_effect=NEXT_NIGHT if state == "active" else "when_confirmed" if state == "proposed" else None,
    )  # fmt: skip
    return Released(answer, trail.receipt(entry))


def confirm(
    store: Store,
    trail: Trail,
    keys: Keys,
    service: InService,
    caller: Caller,
    review: str,
    *,
    agree: bool,
    at: datetime,
) -> Released[Decided]:
    """The second reviewer's word on a proposed decision: in force from the next night, or passed on.

    Raises NotAllowed for the one who decided, NotFound, WrongState if nothing waits for a second reviewer or the
    caller has not opened the pair, TooMany, LogUnavailable.
    """
    _may_review(caller)
    area = _area(service)
    with store.transaction() as tx:
        _within_budget(tx, caller, "decided", at=at)
        row, sides = _found(tx, keys, area, review)
        if row.state != "second" or row.override is None:
            raise WrongState("this pair does not wait for a second reviewer")
        act = overrides.confirm if agree else overrides.refuse
        override, entry = act(tx, trail, row.override, who=caller.who(), at=at, about=_about(sides))
        if not tx.all(ReviewActRow, review=row.id, act="opened", person=caller.person, limit=1):
            raise WrongState("open the pair before confirming it")
        row.state, row.changed_at = "decided" if agree else "passed_on", at
        tx.add(row)
        _note(tx, caller, "confirmed" if agree else "refused", row.id, entry, at=at)
    answer = Decided(
        review=row.id, decision=_DECISION_OF[override.kind],
        state=override.state, override=override.id, takes_effect=NEXT_NIGHT if agree else None,
    )  # fmt: skip
    return Released(answer, trail.receipt(entry))


def withdraw(
    store: Store,
    trail: Trail,
    keys: Keys,
    service: InService,
    caller: Caller,
    review: str,
    *,
    reason: str,
    at: datetime,
) -> Released[Decided]:
    """Take a decision back: the pair waits again, and the next night's run is not bound.

    Raises NotAllowed where two made it and the caller is the first of them, Malformed, NotFound, WrongState if nothing
    is decided, TooMany, LogUnavailable.
    """
    _may_review(caller)
    if reason not in TAKEN_BACK:
        raise Malformed(f"reason: one of {', '.join(TAKEN_BACK)}")
    area = _area(service)
    with store.transaction() as tx:
        _within_budget(tx, caller, "decided", at=at)
        row, sides = _found(tx, keys, area, review)
        if row.state != "decided" or row.override is None:
            raise WrongState("this pair is not decided")
        override, entry = overrides.withdraw(
            tx, trail, row.override, who=caller.who(), reason=reason, at=at, about=_about(sides)
        )
        row.state, row.override, row.since, row.changed_at = "waiting", None, at, at
        tx.add(row)
        _note(tx, caller, "withdrawn", row.id, entry, code=reason, at=at)
    answer = Decided(
        review=row.id, decision=_DECISION_OF[override.kind], state="withdrawn", override=override.id,
        takes_effect=NEXT_NIGHT,
    )  # fmt: skip
    return Released(answer, trail.receipt(entry))


def _second_due(tx: Reading, area: LinkedArea, sides: Sides) -> bool:
    """Whether anybody of either person is shielded, or a restriction names one of their records."""
    persons = {owner for record in sides.records if (owner := area.index.person_of(record)) is not None}
    if any(area.tags(person) & {"shield_full", "shield_address"} for person in persons):
        return True
    records = {(agency, ref) for person in persons for agency, _, ref in area.index.records_of(person)}
    sealed = {(one.owner, one.record) for one in register.snapshot(tx).restrictions if one.record is not None}
    return not records.isdisjoint(sealed)


def _closest(area: LinkedArea, sides: Sides) -> Sides:
    """The one pair of records, a side each, that compares best: what holds two persons together."""
    if len(sides.records) == 2:
        return sides
    weights = {frozenset(pair): weight for pair, weight in area.weights(sides.records).items()}
    left, right = max(sides.pairs(), key=lambda pair: (weights.get(frozenset(pair), float("-inf")), pair))
    return Sides.of([left], [right])


# --- Asking the agencies ---------------------------------------------------------------------------------------------


def ask(
    store: Store, trail: Trail, keys: Keys, service: InService, caller: Caller, review: str, *, at: datetime
) -> Released[Asking]:
    """Whom to ring where levels don't settle it, and the reference by which each agency finds its own record.

    Raises NotAllowed, NotFound, TooMany, LogUnavailable.
    """
    _may_review(caller)
    area = _area(service)
    with store.transaction() as tx:
        _within_budget(tx, caller, "asked", at=at)
        row, sides = _found(tx, keys, area, review)
        fields = _to_check(_explained(area, sides))
        left, right = (
            _to_ring(tx, side[0], reference)
            for side, reference in ((sides.left, row.reference_l), (sides.right, row.reference_r))
        )
        entry = _record(
            tx, trail, "review.asked", caller, outcome="contacts_shown", at=at, sides=sides, what={"review": row.id}
        )
        _note(tx, caller, "asked", row.id, entry, at=at)
    return Released(Asking(review=row.id, agencies=(left, right), ask=ASKS, fields=fields), trail.receipt(entry))


def question(
    store: Store, trail: Trail, keys: Keys, service: InService, caller: Caller, reference: str, *, at: datetime
) -> Released[Question]:
    """What an agency is asked under a reference that a reviewer quoted to it: its own record, and no word of the other.

    Raises NotFound alike for a reference of another agency, an invented one, and one that nobody has quoted.
    """
    area = _area(service)
    with store.transaction() as tx:
        rows = [
            (row, side)
            for side in ("l", "r")
            for row in _quoted(tx, side, reference, caller.organisation)
            if row.state in STATES and tx.all(ReviewActRow, review=row.id, act="asked", limit=1)
        ]
        if caller.kind != "agency" or len(rows) != 1:
            raise NotFound("there is no such reference")
        row, side = rows[0]
        sides = open_sides(keys, row.sealed, row.key_wrapped, row.id)
        record = (sides.left if side == "l" else sides.right)[0]
        entry = _record(
            tx, trail, "review.asked", caller, outcome="question_collected", at=at, what={"review": row.id},
            about=[named(record)],
        )  # fmt: skip
        fields = _to_check(_explained(area, sides))
    answer = Question(reference=reference, flow=record[1], record_ref=record[2], ask=ASKS, fields=fields)
    return Released(answer, trail.receipt(entry))


def _quoted(tx: Reading, side: str, reference: str, agency: str) -> list[ReviewRow]:
    if side == "l":
        return tx.all(ReviewRow, reference_l=reference, agency_l=agency)
    return tx.all(ReviewRow, reference_r=reference, agency_r=agency)


def _to_check(said: Explanation) -> tuple[str, ...]:
    """The fields and numbers an agency should look at: what is not the same on both sides."""
    fields = [one.field for one in said.fields if one.level != "same"]
    return (*fields, *said.numbers_differ, *said.numbers_missing)


def _to_ring(tx: Reading, record: RecordKey, reference: str) -> ToRing:
    agency, flow, _ = record
    row = tx.one(AgencyRow, id=agency)
    feed = tx.one(AgencyFlowRow, agency=agency, flow=flow)
    contacts = row.contacts if row else {}
    contact = contacts.get(feed.contact or "") if feed else None
    return ToRing(
        organisation=agency, name=row.name if row else agency, contact=contact or next(iter(contacts.values()), None),
        reference=reference,
    )  # fmt: skip


# --- The wrong person ------------------------------------------------------------------------------------------------


def wrong_person(
    store: Store,
    trail: Trail,
    keys: Keys,
    service: InService,
    caller: Caller,
    *,
    what: str,
    how: str,
    view: str | None = None,
    organisation: str | None = None,
    record: tuple[str, str] | None = None,
    at: datetime,
) -> Released[Reported]:
    """Somebody who was shown a person, or an agency about a record of its own, says that two people are mixed up.

    The link in doubt goes before a reviewer.  The answer is the same whatever is behind it: of a person of whom one
    record alone is known there is no link to doubt, and the caller is not to learn that.  Who was shown the person goes
    with the event, sealed.  Raises NotFound for a view of somebody else, Malformed, TooMany, LogUnavailable.
    """
    if caller.kind not in ("person", "agency"):
        raise NotAllowed("a person at a gateway, or an agency, reports a wrong person")
    if what not in WHAT_IS_WRONG or how not in WRONG_PERSON_HOW:
        raise Malformed("what, how: not codes of their lists")
    area = _area(service)
    report = new_event_id()
    with store.transaction() as tx:
        _within_budget(tx, caller, "reported", at=at)
        persons = _doubted(tx, area, caller, view, record)
        reviews = []
        for person in persons if what != "family_member" else ():
            sides = _parted(area, person, caller, organisation=organisation, record=record)
            if sides is not None:
                reviews.append(_reported(tx, keys, area, sides, at=at))
        saw = [
            [one.person_id, one.organisation, one.person, one.event_id, one.kind, one.at.isoformat()]
            for person in persons for one in lineage.who_saw(tx, person)
        ]  # fmt: skip
        records = {named(one) for person in persons for one in area.index.records_of(person)}
        entry = _record(
            tx, trail, "link.wrong_person_reported", caller, outcome="recorded", at=at,
            what={"report": report, "view": view, "doubted": what}, why={"reason": how},
            detail={"reviews": [row.id for row in reviews]}, about={*persons, *records},
            blobs={"saw": rfc8785.dumps(saw)},
        )  # fmt: skip
        noted: list[str | None] = [row.id for row in reviews]
        for review in noted or [None]:
            _note(tx, caller, "reported", review, entry, code=how, at=at)
    return Released(Reported(report=report, at=at), trail.receipt(entry))


def _doubted(
    tx: Reading, area: LinkedArea, caller: Caller, view: str | None, record: tuple[str, str] | None
) -> tuple[str, ...]:
    """The persons of today that the report is about."""
    if caller.kind == "agency" and record is not None and view is None:
        owner = area.index.person_of((caller.organisation, *record))
        if owner is None:
            raise NotFound("there is no such record in service")
        return (owner,)
    shown = tx.one(ViewRow, id=view, agency=caller.organisation, person=caller.person) if view else None
    if caller.kind != "person" or shown is None or record is not None:
        raise NotFound("there is no such view of yours")
    candidate = tx.one(SearchCandidateRow, search=shown.search, candidate=shown.candidate)
    if candidate is None:
        raise NotFound("there is no such view of yours")
    return lineage.successors(tx, candidate.person_id, since=shown.at).ids


def _parted(
    area: LinkedArea, person: str, caller: Caller, *, organisation: str | None, record: tuple[str, str] | None
) -> Sides | None:
    """Between which records of a person the doubt lies; None if there is but one."""
    records = area.index.records_of(person)
    if record is not None:
        mine = {(caller.organisation, *record)}
    elif organisation is not None:
        mine = {one for one in records if one[0] == organisation}
    else:
        mine = _beyond_weakest(records, area.weights(records))
    rest = set(records) - mine
    return Sides.of(mine, rest) if mine and rest else None


def _beyond_weakest(
    records: Sequence[RecordKey], weights: Mapping[tuple[RecordKey, RecordKey], float]
) -> set[RecordKey]:
    """One side of the weakest of the links that hold records together as one person."""
    parts: dict[RecordKey, set[RecordKey]] = {record: {record} for record in records}
    joined = sorted(weights, key=lambda pair: (-weights[pair], pair))
    for left, right in joined:
        one, other = parts[left], parts[right]
        if one is other:
            continue
        if one | other == set(records):
            return set(one)
        for record in other:
            parts[record] = one
        one |= other
    return set(parts[records[0]]) if records else set()


def _reported(tx: Transaction, keys: Keys, area: LinkedArea, sides: Sides, *, at: datetime) -> ReviewRow:
    row = known_pairs(tx, [pair_index(keys, sides)]).get(pair_index(keys, sides))
    if row is None:
        row = _row(keys, sides, "wrong_person", area.run, at=at)
    elif row.state not in STATES:
        row.state, row.since, row.override, row.changed_at = "waiting", at, None, at
    row.reason, row.scope = "wrong_person", "persons"
    tx.add(row)
    tx.flush()
    return row


# --- Common ----------------------------------------------------------------------------------------------------------


def _may_review(caller: Caller) -> None:
    if caller.kind != "officer" or caller.role != REVIEWER:
        raise NotAllowed("pairs are looked at by link reviewers")


def _area(service: InService) -> LinkedArea:
    area = service.area()
    if area is None:
        raise NotFound("nothing has been linked yet")
    return area


def _within_budget(tx: Reading, caller: Caller, act: str, *, at: datetime) -> None:
    person = caller.person or caller.organisation
    if acts_since(tx, person=person, act=act, since=at - timedelta(hours=1)) >= PER_HOUR[act]:
        raise TooMany("this is as often as one person may do this in an hour", retry_after=600)


def _found(tx: Reading, keys: Keys, area: LinkedArea, review: str) -> tuple[ReviewRow, Sides]:
    """A review that can be looked at.  One whose records are gone, or have since been severed, is not there."""
    row = tx.one(ReviewRow, id=review)
    if row is None or row.state == "gone":
        raise NotFound("there is no such review")
    sides = open_sides(keys, row.sealed, row.key_wrapped, row.id)
    persons = [{area.index.person_of(record) for record in side} - {None} for side in (sides.left, sides.right)]
    apart = {other for person in persons[0] if person is not None for other in area.index.severed_from(person)}
    if not all(persons) or apart & persons[1] or overrides.severs(tx, keys, sides):
        raise NotFound("there is no such review")
    return row, sides


def _explained(area: LinkedArea, sides: Sides) -> Explanation:
    closest = _closest(area, sides)
    (left, left_numbers), (right, right_numbers) = (
        area.index.rows_of(side[0]) for side in (closest.left, closest.right)
    )
    return explained(area.index.model, left, right, left_numbers, right_numbers)


def _about(sides: Sides) -> set[str]:
    return {named(record) for record in sides.records}


def _proposers(tx: Reading, rows: Sequence[ReviewRow]) -> dict[str, str]:
    """For each review that waits for a second reviewer: who decided."""
    ids = [row.override for row in rows if row.state == "second" and row.override]
    return {row.review: row.person for row in tx.all(OverrideRow, id=ids) if row.review} if ids else {}


def _record(
    tx: Transaction,
    trail: Trail,
    type_: str,
    caller: Caller,
    *,
    outcome: str,
    what: Mapping[str, Json],
    at: datetime,
    why: Mapping[str, Json] | None = None,
    detail: Mapping[str, Json] | None = None,
    sides: Sides | None = None,
    about: Iterable[str] = (),
    blobs: Mapping[str, bytes] | None = None,
) -> EntryRef:
    event = Event(
        id=new_event_id(), type=type_, who=caller.who(), what={**what, "outcome": outcome}, why=why or {},
        detail=detail or {},
    )  # fmt: skip
    return trail.record(tx, event, about={*about, *(_about(sides) if sides else ())}, blobs=blobs, at=at)


def _note(
    tx: Transaction, caller: Caller, act: str, review: str | None, entry: EntryRef, *, code: str = "", at: datetime
) -> None:
    tx.add(
        ReviewActRow(
            review=review, act=act, organisation=caller.organisation,
            person=caller.person or caller.organisation, code=code, event_id=entry.event_id, at=at,
        )
    )  # fmt: skip


def labels() -> dict[str, Any]:
    """The closed lists, each code with its label."""
    return {
        "reasons": {code: held_because(code) for code in QUEUE_REASONS},
        "decisions": {decision: [code for code, (_, may) in WHY.items() if decision in may] for decision in DECISIONS},
        "why": {code: label for code, (label, _) in WHY.items()},
        "evidence": dict(EVIDENCE),
        "fields": dict(LABELS),
        "taken_back": dict(TAKEN_BACK),
        "wrong_person": dict(WRONG_PERSON_HOW),
    }
