"""Hidden must not mean lost: what nobody was shown is put before its holder, and a shield's owner is told of a search.

    answer  decides, and seals what it decided with its event; it does the same whatever it hides
    round   on a fixed schedule reads what was sealed since the round before, and raises items: one leaf, empty or not
    holder  reads its own items at its gateway, and says of each that it has shared, or why it will not

A silent record of the child asked about that a clause would have shown but for one or two tests raises a *consider
sharing* item at the agency that holds it (Children Act 2004 s.16LA: who holds information must share it, or know why
not).  A record that a shield hides alerts the agency whose shield it is instead, which decides whether to ring.  The
asker is never told of either, nor can tell from an answer, its time or the log: a round's leaf is the same whether it
raised anything.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Literal

import rfc8785
import structlog

from agreements import VOCABULARY, Link, decide, explain_for_holder
from agreements.explain import NEAR, HolderView
from agreements.receipts import PastDecision, past_decisions
from audit.events import Event, Json, SectionName
from broker import activation, clock
from broker.callers import Caller
from broker.deciding import Released, named
from broker.errors import Malformed, NotAllowed, NotFound, WrongState
from broker.keys import Keys
from broker.linked import InService
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.considerations import ConsiderationRow, RoundRow, answered, by_mark, last_round, queue
from broker.store.log import EventRow
from broker.store.sequence import head_of
from broker.store.shards import shard_after
from broker.trail import EntryRef, Trail, new_event_id
from linkage.matching.overrides import RecordKey

State = Literal["open", "disclosed", "declined"]

ROLES: Final = ("AGENCY_REP", "DATA_STEWARD", "DSL")
DECLINED: Final[Mapping[str, str]] = {
    "detriment": "To share would do the child more harm than not to",
    "not_relevant": "What we hold does not bear on what was asked",
    "legal": "The law bars it",
    "other": "Another reason, which we have recorded ourselves",
}
"""Why a holder declines: CUSTODIAN_DECLINED(detriment) and so on."""
STATES: Final = ("open", "disclosed", "declined")
PAGE: Final = 25
AT_ONCE: Final = 2_000  # answers that one round takes in; what is over waits for the next
ANSWERS: Final = ("search.authorised", "disclosure.authorised", "disclosure.refused")
_DETAIL: Final[tuple[SectionName, ...]] = ("detail",)
_SHIELD: Final = (
    "Your shield hid a record. The asker was told of nothing. Ring their desk if they should know, or should not ask."
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asked, as far as the holder is told, and whom to ring there."""

    organisation: str
    name: str
    role: str
    role_label: str
    purpose: str
    purpose_label: str
    contact: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The clause that came nearest, in the words that were signed, and what it lacked."""

    agreement: str
    clause: str
    text: str
    lacks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consideration:
    """One item as its holder reads it.  `record_ref` is the holder's own."""

    consideration: str
    kind: str
    flow: str
    record_ref: str
    categories: tuple[str, ...]
    asker: Asker
    nearest: Nearest | None  # of a shield there is none
    sentence: str
    asked_at: datetime  # the first time
    raised_at: datetime
    times: int
    state: str
    reason: str | None
    decided_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Items, oldest first; `next` is the cursor of the following page."""

    at: datetime
    considerations: tuple[Consideration, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """What a holder has decided."""

    consideration: str
    state: str
    reason: str | None
    at: datetime


# --- Raising ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """What a round found: whose item it is, what it says, and by what it is known again."""

    agency: str
    kind: str
    record: RecordKey
    body: Mapping[str, Any]
    known_by: tuple[str, ...]


def raise_due(
    store: Store, trail: Trail, keys: Keys, service: InService, *, partnership: str, slot: datetime, at: datetime
) -> EntryRef | None:
    """One round: raise what the answers since the round before call for, under one event, empty or not.

    None if this round, or a later one, has been held already: of two processes one does it.  Reads the log as it is
    sequenced, so an answer that left just before may wait for the next round.
    """
    with store.reading() as reading:
        before = last_round(reading)
        if before is not None and before.slot >= slot:
            return None
        log_id, since = (before.log_id, before.through) if before else (trail.origin, 0)
        events = answered(reading, log_id, types=ANSWERS, since=since, limit=AT_ONCE)
        head = head_of(reading, log_id)
        through = events[-1].seq + 1 if len(events) == AT_ONCE else head.size if head else 0
        if len(events) < AT_ONCE and (after := shard_after(reading, log_id)):
            log_id, through = after.log_id, 0  # the shard before was closed, and is done
        found, failed = _all_called_for(reading, trail, service, events)
    with store.transaction() as tx:
        last = last_round(tx)
        if (last.slot if last else None) != (before.slot if before else None):
            return None
        raised = _keep(tx, keys, found, at=at)
        entry = _record_round(tx, trail, raised, failed, partnership=partnership, slot=slot, at=at)
        tx.add(RoundRow(slot=slot, log_id=log_id, through=through, event_id=entry.event_id))
    trail.wake()
    return entry


def _all_called_for(
    reading: Reading, trail: Trail, service: InService, events: Iterable[EventRow]
) -> tuple[list[_Item], list[str]]:
    """The items of all these answers, and the events that could not be looked into: one fault loses one, not all."""
    found: list[_Item] = []
    failed: list[str] = []
    for row in events:
        try:
            found += _called_for(reading, trail, service, row)
        except Exception as wrong:
            log.error("an answer could not be considered", fault=type(wrong).__name__)
            failed.append(row.event_id)
    return found, failed


def _called_for(reading: Reading, trail: Trail, service: InService, row: EventRow) -> Iterator[_Item]:
    """The items that one answer calls for; none where it was erased since."""
    try:
        sealed = json.loads(trail.blob(row.event_id, "looked_at"))
        detail: Any = trail.opening(row.event_id, show=_DETAIL).body("detail")
    except NotFound:
        return
    whose = {(source, ref): ((agency, flow, ref), person) for source, ref, agency, flow, person in sealed}
    search = row.type.startswith("search.")
    shielded = {person for person, code in detail["hidden"] if code == "SHIELDED"} if search else set()
    snapshot, _ = activation.snapshot_for(reading, row.actor_ref)
    for past in _decided(trail, row, {source for source, _ in whose}):
        key = (past.facts.source, past.facts.record or "")
        decision = decide(snapshot, VOCABULARY, past.request, past.facts, past.at)
        if past.witnesses or decision.shown or key not in whose:
            continue
        record, person = whose[key]
        view = explain_for_holder(snapshot, VOCABULARY, decision)
        if view.shielded:
            shielded.add(person)
        elif view.consider_sharing and (past.facts.link or Link.NONE) >= Link.MATCH:  # else it may be another child
            yield _to_consider(row, past, view, record)
    area = service.area() if shielded else None
    for person in sorted(shielded):
        for record in sorted(area.shielding(person)) if area else ():
            yield _Item(
                agency=record[0], kind="shield", record=record, body=_body(row, record, (), None),
                known_by=("shield", named(record), row.org, row.actor_ref, row.case_hmac),
            )  # fmt: skip


def _decided(trail: Trail, row: EventRow, sources: Iterable[str]) -> Iterator[PastDecision]:
    """What an answer decided, record by record, from the receipts sealed beside it."""
    if row.type.startswith("search."):
        receipts = json.loads(trail.blob(row.event_id, "decisions"))
    else:
        receipts = []
        for source in sorted(sources):
            with suppress(NotFound):  # of one that sends nothing itself nothing was shown
                receipts.append(json.loads(trail.blob(row.event_id, f"decision/{source}")))
    for receipt in receipts:
        yield from past_decisions(receipt)


def _to_consider(row: EventRow, past: PastDecision, view: HolderView, record: RecordKey) -> _Item:
    """The item of a silent record: the clause that came nearest, and the categories it would have shown."""
    near = {
        category: one.near[0]
        for category, one in view.categories.items()
        if not one.mode and one.code is not None and one.near and len(one.near[0].failed) <= NEAR
    }
    nearest = min(near.values(), key=lambda miss: (len(miss.failed), "purpose" in miss.failed, miss.grant))
    categories = [category for category, miss in near.items() if miss.grant == nearest.grant]
    told = {
        "agreement": nearest.grant.agreement, "clause": nearest.grant.clause, "text": nearest.text,
        "lacks": list(dict.fromkeys(nearest.words)),
    }  # fmt: skip
    return _Item(
        agency=record[0], kind="sharing", record=record, body=_body(row, record, categories, told),
        known_by=("sharing", named(record), row.org, past.request.case or "", str(nearest.grant)),
    )  # fmt: skip


def _body(
    row: EventRow, record: RecordKey, categories: Sequence[str], nearest: Mapping[str, Json] | None
) -> dict[str, Any]:
    return {
        "record": list(record), "categories": sorted(categories), "nearest": nearest,
        "asker": {"organisation": row.org, "role": row.role, "person": row.actor_ref, "purpose": row.purpose},
        "asked_ms": row.t_ms,
    }  # fmt: skip


def _keep(tx: Transaction, keys: Keys, found: Sequence[_Item], *, at: datetime) -> list[ConsiderationRow]:
    """Keep what is new; what was asked before in the same case is one item more often.  The new rows."""
    marks = [keys.subject_index("consideration|" + "|".join(item.known_by)) for item in found]
    there = by_mark(tx, marks)
    new: list[ConsiderationRow] = []
    for item, mark in zip(found, marks, strict=True):
        row = there.get(mark)
        if row is None:
            id_ = new_event_id()
            key, wrapped = keys.new_data_key(id_)
            row = ConsiderationRow(
                id=id_, agency=item.agency, kind=item.kind, state="open", mark=mark,
                record_index=keys.subject_index(named(item.record)), key_wrapped=wrapped, times=0, raised_at=at,
                sealed=key.seal(rfc8785.dumps(dict(item.body)), bound_to=_place(id_)), last_at=at,
            )  # fmt: skip
            there[mark] = row
            new.append(row)
        row.times, row.last_at = row.times + 1, at
        tx.add(row)
    return new


def _record_round(
    tx: Transaction,
    trail: Trail,
    raised: Sequence[ConsiderationRow],
    failed: Sequence[str],
    *,
    partnership: str,
    slot: datetime,
    at: datetime,
) -> EntryRef:
    """The round's event: all its notices under salted commitments, so that each can be shown without the others."""
    notices: list[dict[str, Any]] = [
        {
            "salt": secrets.token_hex(32),
            "notice": {"consideration": row.id, "agency": row.agency, "kind": row.kind, "record": row.record_index},
        }
        for row in raised
    ]
    commitments = [sha256(b"sg-audit/notice/v1\x00" + rfc8785.dumps(one)).hexdigest() for one in notices]
    return trail.record(
        tx,
        Event(
            id=new_event_id(),
            type="notice.batch",
            who={"organisation": partnership, "method": "schedule"},
            what={"slot": slot.isoformat()},
            why={},
            detail={
                "count": len(notices),
                "notices": sha256(rfc8785.dumps(commitments)).hexdigest(),
                "failed": len(failed),
            },
        ),
        blobs={"notices": rfc8785.dumps(notices), "failed": rfc8785.dumps(list(failed))},
        at=at,
    )


class Schedule:
    """A thread that holds a round at every whole multiple of some minutes after midnight, UTC."""

    LOOKS_EVERY: Final = 30.0  # seconds: a clock may be put on

    def __init__(self, held: Callable[[datetime, datetime], object], *, minutes: int) -> None:
        self._held = held
        self._minutes = minutes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="considering", daemon=True)

    def start(self) -> None:
        """Wait for the next round."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round at hand."""
        self._stop.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        held = slot_of(clock.now(), self._minutes)
        while True:
            due = held + timedelta(minutes=self._minutes)
            wait = min(max((due - clock.now()).total_seconds(), 0.05), self.LOOKS_EVERY)
            if self._stop.wait(wait):
                return
            now = clock.now()
            if (slot := slot_of(now, self._minutes)) == held:
                continue
            held = slot
            try:
                self._held(slot, now)
            except (
                Exception
            ) as wrong:  # the thread must outlive any fault; the next round takes in what this one missed
                log.error("a round of considering failed", fault=type(wrong).__name__)


def slot_of(at: datetime, minutes: int) -> datetime:
    """The newest instant of the schedule that is not after `at`."""
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (at - midnight) // timedelta(minutes=minutes) * timedelta(minutes=minutes)


# --- The holder ------------------------------------------------------------------------------------------------------


def listed(
    store: Store, trail: Trail, keys: Keys, caller: Caller, *, state: State = "open", after: str | None, at: datetime
) -> Released[Page]:
    """One page of the caller's organisation's own items.  Nobody reads what their own question has raised.

    Raises NotAllowed, NotFound for a cursor that is none of theirs, LogUnavailable.
    """
    _may_consider(caller)
    with store.reading() as reading:
        cursor = reading.one(ConsiderationRow, id=after, agency=caller.organisation) if after else None
        if after and cursor is None:
            raise NotFound("the cursor is of no page")
        rows = queue(reading, agency=caller.organisation, state=state, after=cursor, limit=PAGE + 1)
        told = _Told.of(reading)
    more, rows = len(rows) > PAGE, rows[:PAGE]
    bodies = [(row, _opened(keys, row)) for row in rows]
    read = [(row, body) for row, body in bodies if not _own(caller, body)]
    records = [named(_record_of(body)) for _, body in read]
    event = Event(
        id=new_event_id(),
        type="consider_sharing.listed",
        who=caller.who(),
        what={"state": state, "outcome": f"{len(read)}_listed", "considerations": [row.id for row, _ in read]},
        why={},
        subjects=sorted(set(records)),
        recipients=[{"organisation": caller.organisation, "person": caller.person, "role": caller.role}],
        detail={},
    )
    page = Page(
        at=at,
        considerations=tuple(told.item(row, body) for row, body in read),
        next=rows[-1].id if more else None,
    )
    return Released(page, trail.receipt_for(event, about=records, at=at))


def decide_on(
    store: Store,
    trail: Trail,
    keys: Keys,
    caller: Caller,
    consideration: str,
    decision: Literal["disclosed", "declined"],
    *,
    reason: str | None,
    at: datetime,
) -> Released[Considered]:
    """Say of an item of one's own that the holder has shared, or why it will not; once and for good.

    To share is the holder's own act: by telephone, or in answer to a request.  Raises NotAllowed, NotFound alike for
    another's and an invented item, Malformed, WrongState if it was decided before, LogUnavailable.
    """
    _may_consider(caller)
    if (reason is None) != (decision == "disclosed") or (reason is not None and reason not in DECLINED):
        raise Malformed(f"reason: due where it is declined, and there alone: one of {', '.join(DECLINED)}")
    with store.transaction() as tx:
        row = tx.locked_one(ConsiderationRow, id=consideration, agency=caller.organisation)
        body = _opened(keys, row) if row is not None else {}
        if row is None or _own(caller, body):
            raise NotFound("there is no such item")
        if row.state != "open":
            raise WrongState("this was decided before")
        record = named(_record_of(body))
        asker = body["asker"]
        entry = trail.record(
            tx,
            Event(
                id=new_event_id(),
                type="consider_sharing.shared" if decision == "disclosed" else "consider_sharing.declined",
                who=caller.who(),
                what={"consideration": row.id, "kind": row.kind, "outcome": decision},
                why={"purpose": asker["purpose"], "reason": f"CUSTODIAN_DECLINED({reason})" if reason else None},
                subjects=[record],
                recipients=[{"organisation": asker["organisation"]}] if decision == "disclosed" else [],
                detail={},
            ),
            about=[row.id, record],
            at=at,
        )
        row.state, row.reason, row.event_id = decision, reason or "", entry.event_id
        row.decided_by, row.decided_at = caller.person, at
        tx.add(row)
    answer = Considered(consideration=consideration, state=decision, reason=reason, at=at)
    return Released(answer, trail.receipt(entry))


def _may_consider(caller: Caller) -> None:
    if caller.kind != "person" or caller.role not in ROLES:
        roles = ", ".join(VOCABULARY.roles[role].label for role in ROLES)
        raise NotAllowed(f"at a holder's gateway this is for its {roles}")


def _opened(keys: Keys, row: ConsiderationRow) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(keys.data_key(row.key_wrapped, row.id).open(row.sealed, bound_to=_place(row.id)))
    return body


def _own(caller: Caller, body: Mapping[str, Any]) -> bool:
    """Whether it was the caller who asked: the asker learns of no item."""
    asker = body["asker"]
    return bool(asker["organisation"] == caller.organisation and asker["person"] == caller.person)


def _record_of(body: Mapping[str, Any]) -> RecordKey:
    agency, flow, ref = body["record"]
    return agency, flow, ref


def _place(consideration: str) -> bytes:
    return f"consideration|{consideration}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """Names and desks of the organisations that ask."""

    agencies: Mapping[str, AgencyRow]
    desks: Mapping[str, str | None]  # by organisation the contact of its first flow

    @classmethod
    def of(cls, tx: Reading) -> _Told:
        desks: dict[str, str | None] = {}
        for flow in tx.all(AgencyFlowRow, order=("agency", "flow")):
            desks.setdefault(flow.agency, flow.contact)
        return cls(agencies={row.id: row for row in tx.all(AgencyRow)}, desks=desks)

    def item(self, row: ConsiderationRow, body: Mapping[str, Any]) -> Consideration:
        """One item as its holder reads it."""
        (_, flow, ref), asker, nearest = body["record"], body["asker"], body["nearest"]
        agency = self.agencies.get(asker["organisation"])
        contacts: Mapping[str, Any] = agency.contacts if agency else {}
        desk = contacts.get(self.desks.get(asker["organisation"]) or "") or next(iter(contacts.values()), None)
        role, purpose = VOCABULARY.roles[asker["role"]].label, VOCABULARY.purposes[asker["purpose"]].label
        name = agency.name if agency else asker["organisation"]
        return Consideration(
            consideration=row.id, kind=row.kind, flow=flow, record_ref=ref, categories=tuple(body["categories"]),
            asker=Asker(
                organisation=asker["organisation"], name=name, role=asker["role"], role_label=role,
                purpose=asker["purpose"], purpose_label=purpose,
                contact=desk,
            ),
            nearest=Nearest(**{**nearest, "lacks": tuple(nearest["lacks"])}) if nearest else None,
            sentence=_sentence(name, role, purpose, nearest),
            asked_at=datetime.fromtimestamp(body["asked_ms"] / 1000, UTC), raised_at=row.raised_at, times=row.times,
            state=row.state, reason=row.reason or None, decided_at=row.decided_at,
        )  # fmt: skip


def _sentence(name: str, role: str, purpose: str, nearest: Mapping[str, Any] | None) -> str:
    asked = f"{name} ({role}) asked about this child: {purpose}."
    if nearest is None:
        return f"{asked} {_SHIELD}"
    lacks = " and ".join(nearest["lacks"])
    clause = f"{nearest['agreement']}, clause {nearest['clause']}"
    return f"{asked} Nothing was shown. {clause} would have let you share, but for: {lacks}. Share now, or say why not."
