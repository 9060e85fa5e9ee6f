"""Erase a subject from the log, and what is held of them beside it, so that tree, proofs and receipts stay valid.

One person proposes and another approves.  Then bodies, salts and keys of every event about the subject are gone; of an
event that is also about others, what names the subject.  A legal hold refuses it.  What remains is a leaf that commits
to nothing anybody can show, the time, the type, and who acted.  Encodings go with the next night (`REMAINS` says what
stays, and until when), and no night links a record of the subject again, though an agency sends it, until two people
have lifted that (`broker.lifting`).

An erasure outlives a restore: its tombstone (an HMAC for each id) goes to a file outside the database before it
commits, and a database that does not know of it is emptied again before it serves.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import rfc8785
import structlog

from audit.events import Event, Json
from broker import lineage
from broker.callers import Caller
from broker.deciding import Released, named
from broker.errors import Malformed, NotAllowed, NotFound, WrongState
from broker.keys import Keys
from broker.linked import LinkedArea
from broker.overrides import open_sides
from broker.settings import GOVERNANCE
from broker.store import Reading, Store, Transaction
from broker.store.considerations import ConsiderationRow
from broker.store.erasing import empty_elsewhere, empty_subject, ids_behind, sequence_all
from broker.store.erasures import ErasureRow, HoldRow, TombstoneRow, held, hold_batches, tombstones
from broker.store.event_keys import EventKeyRow, SubjectKeyRow
from broker.store.items import ItemRow
from broker.store.log import BlobRow, EventRow, OutboxRow, SubjectRow
from broker.store.notices import NoticeRecordRow, NoticeRow
from broker.store.reviews import OverrideRow, ReviewRow
from broker.store.roles import ERASER, owns
from broker.store.runs import PersonEventRow
from broker.store.searches import SearchCandidateRow, SearchRow, ThresholdRow, ViewPersonRow
from broker.store.tombstones import Tombstone, Tombstones
from broker.trail import EntryRef, Trail, new_event_id, record_change

log = structlog.get_logger()

REFERENCE: Final = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[A-Za-z0-9._-]+/[A-Za-z0-9._-]+/[A-Za-z0-9._=-]+"
)
OFFICERS: Final = GOVERNANCE
PURGED: Final = (
    EventRow, BlobRow, EventKeyRow, SubjectKeyRow, SubjectRow, OutboxRow, ErasureRow, NoticeRow, NoticeRecordRow,
    ReviewRow, OverrideRow, ItemRow, ConsiderationRow, SearchRow, SearchCandidateRow, ViewPersonRow, ThresholdRow,
)  # fmt: skip
"""The tables an erasure deletes from, or empties: PostgreSQL writes these anew."""
AUTHORITIES: Final[Mapping[str, str]] = {
    "subject_request": "The subject's right to erasure: UK GDPR Article 17, or Data Protection Act 2018 section 47",
    "unlawful_processing": "The data should not have been processed",
    "court_order": "An order of a court",
    "commissioner_order": "An order of the Information Commissioner",
    "controller_decision": "A decision of the controllers that the data are no longer needed",
}
"""On whose word a subject is erased."""
REFUSED: Final[Mapping[str, str]] = {
    "still_needed": "The record is still needed: Article 17(3)",
    "wrong_subject": "This is not the subject that was meant",
    "not_authorised": "The authority could not be confirmed",
}
"""Why a proposed erasure is not carried out."""
REMAINS: Final[Mapping[str, str]] = {
    "encodings": "of the records, in the run in service, until the next night; in the run before it, a night longer; "
    "in sealed batches of a linkage key's next epoch, until that is put in service without them, or given up",
    "decisions on links": "sealed, as long as they bind: a sever, or what a reviewer joined or kept apart",
    "leaves of the log": "for good: a time, a type, who acted, and a hash that nothing leads from",
    "tombstones": "for good: an HMAC of each id, by which it is left out if it is sent again (until two people lift "
    "that), or an old copy put back",
    "old copies": "of the database, the vault and the keys, until you delete them",
    "the agencies' own records": "theirs to erase: the broker tells them nothing of it",
}
"""What an erasure leaves, and until when."""
HELD: Final = "legal_hold"
HOLDS: Final[Mapping[str, str]] = {
    "court_proceedings": "Court proceedings",
    "police_investigation": "A police investigation",
    "safeguarding_review": "A child safeguarding practice review",
    "public_inquiry": "A public inquiry",
    "complaint": "A complaint that has not been answered",
    "commissioner_enquiry": "An enquiry of the Information Commissioner",
}
"""Why nothing of a subject may be erased for now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An erasure as listed: never whom it is of."""

    erasure: str
    state: str  # proposed, refused, erased
    authority: str
    ids: int
    proposed_by: str
    proposed_at: datetime
    decided_by: str
    decided_at: datetime | None
    reason: str
    counts: Mapping[str, Any]
    remains: Mapping[str, str]  # what is left, and until when


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A legal hold as listed: never on whom it lies."""

    hold: str
    reason: str
    ids: int
    set_by: str
    set_at: datetime
    lifted_by: str
    lifted_at: datetime | None


def subject_ids(reading: Reading, area: LinkedArea | None, subject: str, *, alone: bool = False) -> tuple[str, ...]:
    """The ids under which the log may know a subject, given one: a person id, or a record as agency/flow/record_ref.

    A person has their records in service, and the ids that lead to them alone; a record is its person's.  `alone`: no
    other id than this.  Raises Malformed for what is neither.
    """
    if len(subject) > 256 or not REFERENCE.fullmatch(subject):  # no name and no number is one
        raise Malformed("subject: a person id, or a record as agency/flow/record_ref")
    if alone or area is None:
        return (subject,)
    agency, flow, record = subject.split("/") if "/" in subject else ("", "", "")
    person = area.index.person_of((agency, flow, record)) if record else subject
    if person is None:
        return (subject,)
    records = {named(one) for one in area.index.records_of(person)}
    before = {row.before for row in reading.all(PersonEventRow, after=person)} - {person}
    led = lineage.follow(reading, before)
    return tuple(sorted({subject, person, *records, *(one for one in before if led[one].ids == (person,))}))


def propose(
    store: Store, trail: Trail, keys: Keys, caller: Caller, *, ids: Collection[str], authority: str, at: datetime
) -> Released[Erasure]:
    """Propose to erase a subject, on somebody's authority; nothing goes before another person has approved it.

    Raises NotAllowed, Malformed for an authority off the list, WrongState if a legal hold lies on the subject (which is
    recorded), LogUnavailable.
    """
    may_act(caller)
    if authority not in AUTHORITIES:
        raise Malformed(f"authority: one of {', '.join(AUTHORITIES)}")
    erasure = new_event_id()
    with store.transaction() as tx:
        refused = _refused_by_hold(tx, trail, keys, caller, ids, erasure, authority, at=at)
        if refused is None:
            key, wrapped = keys.new_data_key(erasure)
            entry = _record(
                tx, trail, caller, "subject.erasure_proposed",
                {"erasure": erasure, "authority": authority, "ids": len(ids), "outcome": "proposed"}, at=at,
            )  # fmt: skip
            row = ErasureRow(
                id=erasure, state="proposed", authority=authority, key_wrapped=wrapped,
                sealed=key.seal(rfc8785.dumps(sorted(ids)), bound_to=_place(erasure)), proposed_by=caller.person,
                proposed_at=at, counts={"ids": len(ids)}, event_id=entry.event_id,
            )  # fmt: skip
            tx.add(row)
            listed = _listed(row)
    if refused is not None:
        raise _told(trail, refused)
    return Released(listed, trail.receipt(entry))


def approve(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones, caller: Caller, *, erasure: str, at: datetime
) -> Released[Erasure]:
    """Carry out an erasure that somebody else has proposed; on return it is done.

    `purge` then leaves no deleted byte in the database's files; a night does it too.  Raises NotFound, NotAllowed for
    whoever proposed it, WrongState if it was decided before or a legal hold lies on the subject (which is recorded),
    StoreUnavailable if the tombstone can't be kept, LogUnavailable.
    """
    may_act(caller)
    trail.advance_pending()
    with store.transaction(ERASER) as tx:
        hold_batches(tx)  # before the log's head is locked: answers need not wait for a long batch
        row = _open_erasure(tx, erasure)
        if row.proposed_by == caller.person:
            raise NotAllowed("an erasure is approved by another person than proposed it")
        sequence_all(tx, keys)  # what waits is about the subject too; and nobody sequences meanwhile
        ids = _ids(keys, row)
        refused = _refused_by_hold(tx, trail, keys, caller, ids, erasure, row.authority, at=at)
        if refused is None:
            event_id = new_event_id()
            indexes = frozenset(map(keys.subject_index, ids))
            counts = {"ids": len(ids)} | _erase(tx, keys, ids, indexes, erasure=erasure, under=event_id, at=at)
            entry = _record(
                tx, trail, caller, "subject.erased",
                {"erasure": erasure, "authority": row.authority, "proposed_by": row.proposed_by, **counts,
                 "outcome": "erased"}, event_id=event_id, at=at,
            )  # fmt: skip
            row.state, row.counts, row.sealed, row.key_wrapped = "erased", counts, None, None
            row.decided_by, row.decided_at, row.event_id = caller.person, at, event_id
            tx.add(row)
            tx.flush()
            kept.append(Tombstone(erasure, at, indexes))  # before the commit: what a restore would undo is not done
            listed = _listed(row)
    if refused is not None:
        raise _told(trail, refused)
    return Released(listed, trail.receipt(entry))


def refuse(store: Store, trail: Trail, caller: Caller, *, erasure: str, reason: str, at: datetime) -> Released[Erasure]:
    """Say that a proposed erasure is not carried out, and why; whoever proposed it may take it back so.

    Raises NotAllowed, NotFound, Malformed for a reason off the list, WrongState, LogUnavailable.
    """
    may_act(caller)
    if reason not in REFUSED:
        raise Malformed(f"reason: one of {', '.join(REFUSED)}")
    with store.transaction() as tx:
        row = _open_erasure(tx, erasure)
        what = {"erasure": erasure, "authority": row.authority, "outcome": reason}
        entry = _record(tx, trail, caller, "subject.erasure_refused", what, at=at)
        row.state, row.reason, row.sealed, row.key_wrapped = "refused", reason, None, None
        row.decided_by, row.decided_at, row.event_id = caller.person, at, entry.event_id
        tx.add(row)
        listed = _listed(row)
    return Released(listed, trail.receipt(entry))


def erasures(store: Store, caller: Caller) -> tuple[Erasure, ...]:
    """Every erasure, newest first: what was decided, and how much went."""
    may_act(caller)
    with store.reading() as reading:
        return tuple(_listed(row) for row in reading.all(ErasureRow, order=["-proposed_at", "id"]))


def hold(
    store: Store, trail: Trail, keys: Keys, caller: Caller, *, ids: Collection[str], reason: str, at: datetime
) -> Released[Hold]:
    """Lay a legal hold on a subject: nothing of it is erased or expires until it is lifted.

    The event does not say on whom, so that no subject's report tells of an investigation.  Raises NotAllowed, Malformed
    for a reason off the list, LogUnavailable.
    """
    may_act(caller)
    if reason not in HOLDS:
        raise Malformed(f"reason: one of {', '.join(HOLDS)}")
    id_ = new_event_id()
    with store.transaction() as tx:
        what = {"hold": id_, "reason": reason, "ids": len(ids), "outcome": "set"}
        entry = _record(tx, trail, caller, "legal_hold.set", what, at=at)
        rows = [
            HoldRow(
                id=id_, idx_hmac=index, reason=reason, set_by=caller.person, set_at=at, event_id=entry.event_id
            )
            for index in sorted(set(map(keys.subject_index, ids)))
        ]  # fmt: skip
        tx.add(*rows)
        listed = _hold(rows)
    return Released(listed, trail.receipt(entry))


def release(store: Store, trail: Trail, caller: Caller, *, hold: str, at: datetime) -> Released[Hold]:
    """Lift a legal hold.  Raises NotAllowed, NotFound, WrongState if it was lifted before, LogUnavailable."""
    may_act(caller)
    with store.transaction() as tx:
        rows = tx.all(HoldRow, id=hold, order=["idx_hmac"])
        if not rows:
            raise NotFound("there is no such hold")
        if rows[0].lifted_at is not None:
            raise WrongState("this hold was lifted before")
        entry = _record(tx, trail, caller, "legal_hold.lifted", {"hold": hold, "outcome": "lifted"}, at=at)
        for row in rows:
            row.lifted_by, row.lifted_at = caller.person, at
        tx.add(*rows)
        listed = _hold(rows)
    return Released(listed, trail.receipt(entry))


def holds(store: Store, caller: Caller) -> tuple[Hold, ...]:
    """Every hold, newest first, those that were lifted too."""
    may_act(caller)
    by_id: dict[str, list[HoldRow]] = {}
    with store.reading() as reading:
        for row in reading.all(HoldRow, order=["-set_at", "id", "idx_hmac"]):
            by_id.setdefault(row.id, []).append(row)
    return tuple(_hold(rows) for rows in by_id.values())


def replay(store: Store, trail: Trail, keys: Keys, kept: Tombstones, *, who: Mapping[str, str], at: datetime) -> int:
    """Erase again what this database, put back from an older copy, has not been told of; how many erasures.

    A tombstone is written before its erasure is committed.  Where that commit was lost, and people have decided
    otherwise since, it is passed over: the erasure was refused, or a legal hold was laid after the tombstone.

    Called before anything is served.  A file that lacks what the database knows is completed.  Raises Malformed if the
    file can't be read.
    """
    with store.reading() as reading:
        rows = tombstones(reading)
        known = {row.erasure for row in rows}
        there = kept.read()
        due = [one for one in there if one.erasure not in known and not _decided_otherwise(reading, one)]
    if due:
        with store.transaction(ERASER) as tx:
            hold_batches(tx)
            sequence_all(tx, keys)
            event_id = new_event_id()
            counts: Counter[str] = Counter()
            for one in due:
                ids = ids_behind(tx, keys, one.indexes)
                gone = _erase(tx, keys, ids, one.indexes, erasure=one.erasure, under=event_id, at=one.at)
                counts.update(gone)
                row = tx.one(ErasureRow, id=one.erasure)
                if row is not None and row.state == "proposed":  # two people had decided: only the commit was missing
                    row.state, row.counts, row.sealed, row.key_wrapped = "erased", row.counts | gone, None, None
                    row.decided_at, row.event_id = one.at, event_id
                    tx.add(row)
            what: dict[str, Json] = {"erasures": sorted(one.erasure for one in due), **counts}
            what["outcome"] = "erased_after_restore"
            event = Event(id=event_id, type="subject.erased", who=who, what=what, why={}, detail={})
            trail.record(tx, event, at=at)
        kept.erased()
        log.info("erasures carried out again after a restore", counts={"erasures": len(due)})
    for erasure in sorted(known - {one.erasure for one in there}):
        of = [row for row in rows if row.erasure == erasure]
        kept.append(Tombstone(erasure, of[0].at, frozenset(row.idx_hmac for row in of)))
    return len(due)


def _decided_otherwise(reading: Reading, one: Tombstone) -> bool:
    row = reading.one(ErasureRow, id=one.erasure)
    if row is not None and row.state == "refused":
        return True
    laid = reading.all(HoldRow, idx_hmac=sorted(one.indexes), lifted_at=None)
    return any(hold.set_at >= one.at for hold in laid)


def purge(store: Store, trail: Trail, kept: Tombstones, *, who: Mapping[str, str], at: datetime) -> bool:
    """Write the database's files anew, so that nothing erased is left in them, and record who had it done.

    False if that is still due: a reader kept it from that, or the tables of PostgreSQL are another user's, who has to
    do it.  Whoever writes waits meanwhile: seconds for each gigabyte.  Raises StoreUnavailable, StoreFull,
    LogUnavailable.
    """
    if not owns(store, PURGED) or not store.purge(PURGED):
        return False
    with store.transaction() as tx:
        record_change(tx, trail, "retention.run", who, at, outcome="files_rewritten", tables=len(PURGED))
    trail.wake()
    kept.purged()
    return True


def may_act(caller: Caller) -> None:
    """Raises NotAllowed unless it is information governance, signed in at the broker itself."""
    if caller.kind != "officer" or caller.role not in OFFICERS or not caller.person:
        raise NotAllowed("subjects' rights are information governance's to see to")


def _erase(
    tx: Transaction,
    keys: Keys,
    ids: Collection[str],
    indexes: frozenset[str],
    *,
    erasure: str,
    under: str,
    at: datetime,
) -> dict[str, int]:
    """Everything of a subject, and the tombstones; what went."""
    emptied = empty_subject(tx, keys, indexes, under=under, at=at)
    beside = empty_elsewhere(tx, ids, indexes)
    if reviews := _drop_reviews(tx, keys, indexes):
        beside["reviews"] = reviews
    tx.add(*(TombstoneRow(idx_hmac=index, erasure=erasure, at=at) for index in sorted(indexes)))
    tx.flush()
    return {**asdict(emptied), **beside}


def _drop_reviews(tx: Transaction, keys: Keys, indexes: frozenset[str]) -> int:
    """Delete the pairs with a record of these ids that wait, or waited, for a reviewer; how many.

    A decision on one that waits for a second person falls with it.
    """

    def about(row: ReviewRow) -> bool:
        records = open_sides(keys, row.sealed, row.key_wrapped, row.id).records
        return any(keys.subject_index(named(one)) in indexes for one in records)

    gone = [row for row in tx.all(ReviewRow) if about(row)]
    for override in tx.all(OverrideRow, state="proposed", review=[row.id for row in gone]):
        override.state = "withdrawn"
        tx.add(override)
    tx.delete(*gone)
    return len(gone)


def _refused_by_hold(
    tx: Transaction,
    trail: Trail,
    keys: Keys,
    caller: Caller,
    ids: Collection[str],
    erasure: str,
    authority: str,
    *,
    at: datetime,
) -> tuple[EntryRef, HoldRow] | None:
    """The entry that says so, and the hold, if one lies on the subject."""
    found = held(tx, {keys.subject_index(one) for one in ids})
    if not found:
        return None
    what = {"erasure": erasure, "authority": authority, "outcome": HELD, "holds": sorted({row.id for row in found})}
    return _record(tx, trail, caller, "subject.erasure_refused", what, at=at), found[0]


def _told(trail: Trail, refused: tuple[EntryRef, HoldRow]) -> WrongState:
    entry, row = refused
    trail.receipt(entry)
    return WrongState(
        f"a legal hold lies on this subject since {row.set_at.date().isoformat()} ({HOLDS[row.reason].lower()}, "
        f"hold {row.id}): nothing of it is erased until the hold is released"
    )


def _open_erasure(tx: Transaction, erasure: str) -> ErasureRow:
    row = tx.locked_one(ErasureRow, id=erasure)
    if row is None:
        raise NotFound("there is no such erasure")
    if row.state != "proposed":
        raise WrongState(f"this erasure is {row.state}")
    return row


def _ids(keys: Keys, row: ErasureRow) -> list[str]:
    assert row.sealed is not None
    assert row.key_wrapped is not None
    found: list[str] = json.loads(keys.data_key(row.key_wrapped, row.id).open(row.sealed, bound_to=_place(row.id)))
    return found


def _record(
    tx: Transaction,
    trail: Trail,
    caller: Caller,
    type_: str,
    what: Mapping[str, Any],
    *,
    event_id: str = "",
    at: datetime,
) -> EntryRef:
    """An event that names no subject."""
    event = Event(id=event_id or new_event_id(), type=type_, who=caller.who(), what=what, why={}, detail={})
    return trail.record(tx, event, at=at)


def _listed(row: ErasureRow) -> Erasure:
    return Erasure(
        erasure=row.id, state=row.state, authority=row.authority, ids=row.counts.get("ids", 0),
        proposed_by=row.proposed_by, proposed_at=row.proposed_at, decided_by=row.decided_by,
        decided_at=row.decided_at, reason=row.reason, counts=dict(row.counts),
        remains=REMAINS if row.state == "erased" else {},
    )  # fmt: skip


def _hold(rows: Sequence[HoldRow]) -> Hold:
    one = rows[0]
    return Hold(
        hold=one.id, reason=one.reason, ids=len(rows), set_by=one.set_by, set_at=one.set_at, lifted_by=one.lifted_by,
        lifted_at=one.lifted_at,
    )  # fmt: skip


def _place(erasure: str) -> bytes:
    return rfc8785.dumps(["erasure-1", erasure])
