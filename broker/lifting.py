"""Let whoever was erased be known again: a child who comes back to a service, under the record that was erased.

An erased record is left out though an agency sends it.  One person proposes to lift that and another confirms it; then
what an agency sends from that moment is linked and its items kept.  Nothing that was erased comes back, no tombstone is
taken away, and what was left out before is let in only when it is sent again.  A lift outlives a restore as an erasure
does: it stands in the file outside the database before it commits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from audit.events import Event
from broker.callers import Caller
from broker.deciding import Released
from broker.erasure import may_act
from broker.errors import Malformed, NotAllowed, NotFound, WrongState
from broker.keys import Keys
from broker.store import Reading, Store, Transaction
from broker.store.erasures import Barred, LiftRow, TombstoneRow, parts
from broker.store.tombstones import Lifted, Tombstones
from broker.trail import EntryRef, Trail, new_event_id

LIFTS: Final[Mapping[str, str]] = {
    "known_again": "The person is known to a service again",
    "erased_in_error": "It should not have been erased",
    "court_order": "An order of a court",
    "subject_request": "The person, or who acts for them, asks for it",
}
"""Why an erased subject may be linked again."""
REFUSED: Final[Mapping[str, str]] = {
    "wrong_subject": "This is not the subject that was meant",
    "not_needed": "The person is not known to a service again",
    "not_authorised": "The authority could not be confirmed",
}
"""Why a proposed lift is not confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """A lift as listed: never of whom it is."""

    lift: str
    state: str  # proposed, refused, lifted
    reason: str
    ids: int
    proposed_by: str
    proposed_at: datetime
    decided_by: str
    decided_at: datetime | None
    refused: str


def propose(
    store: Store, trail: Trail, keys: Keys, caller: Caller, *, ids: Collection[str], reason: str, alone: bool = False,
    at: datetime,
) -> Released[Lift]:  # fmt: skip
    """Propose that whoever was erased under one of these ids may be linked again, under every id erased with it.

    `alone`: under these ids only.  Nothing changes before another person confirms it.  Raises NotAllowed, Malformed for
    a reason off the list, WrongState if nothing of this subject is kept out, LogUnavailable.
    """
    may_act(caller)
    if reason not in LIFTS:
        raise Malformed(f"reason: one of {', '.join(LIFTS)}")
    with store.transaction() as tx:
        indexes = _kept_out(tx, frozenset(map(keys.subject_index, ids)), alone=alone, at=at)
        if not indexes:
            raise WrongState("nothing is kept out under this reference: it was not erased, or that was lifted before")
        lift = new_event_id()
        what = {"lift": lift, "reason": reason, "ids": len(indexes), "outcome": "proposed"}
        entry = _record(tx, trail, caller.who(), "subject.lift_proposed", what, at=at)
        rows = [
            LiftRow(
                id=lift, idx_hmac=index, state="proposed", reason=reason, proposed_by=caller.person, proposed_at=at,
                event_id=entry.event_id,
            )
            for index in sorted(indexes)
        ]  # fmt: skip
        tx.add(*rows)
        listed = _listed(rows)
    return Released(listed, trail.receipt(entry))


def confirm(store: Store, trail: Trail, kept: Tombstones, caller: Caller, *, lift: str, at: datetime) -> Released[Lift]:
    """Lift what somebody else has proposed to; from now on what an agency sends is linked.

    Raises NotFound, NotAllowed for whoever proposed it, WrongState if it was decided before, StoreUnavailable if the
    file of tombstones can't be written, LogUnavailable.
    """
    may_act(caller)
    with store.transaction() as tx:
        rows = _open(tx, lift)
        if rows[0].proposed_by == caller.person:
            raise NotAllowed("a lift is confirmed by another person than proposed it")
        what = {
            "lift": lift, "reason": rows[0].reason, "proposed_by": rows[0].proposed_by, "ids": len(rows),
            "outcome": "lifted",
        }  # fmt: skip
        entry = _record(tx, trail, caller.who(), "subject.lifted", what, at=at)
        _decide(tx, rows, "lifted", by=caller.person, event_id=entry.event_id, at=at)
        kept.append(Lifted(lift, at, frozenset(row.idx_hmac for row in rows)))  # before the commit, as an erasure's
        listed = _listed(rows)
    return Released(listed, trail.receipt(entry))


def refuse(store: Store, trail: Trail, caller: Caller, *, lift: str, reason: str, at: datetime) -> Released[Lift]:
    """Say that who was erased stays so, and why; whoever proposed the lift may take it back so.

    Raises NotAllowed, NotFound, Malformed for a reason off the list, WrongState, LogUnavailable.
    """
    may_act(caller)
    if reason not in REFUSED:
        raise Malformed(f"reason: one of {', '.join(REFUSED)}")
    with store.transaction() as tx:
        rows = _open(tx, lift)
        what = {"lift": lift, "reason": rows[0].reason, "outcome": reason}
        entry = _record(tx, trail, caller.who(), "subject.lift_refused", what, at=at)
        _decide(tx, rows, "refused", by=caller.person, event_id=entry.event_id, at=at, refused=reason)
        listed = _listed(rows)
    return Released(listed, trail.receipt(entry))


def lifts(store: Store, caller: Caller) -> tuple[Lift, ...]:
    """Every lift, newest first; never of whom."""
    may_act(caller)
    by_id: dict[str, list[LiftRow]] = {}
    with store.reading() as reading:
        for row in reading.all(LiftRow, order=["-proposed_at", "id", "idx_hmac"]):
            by_id.setdefault(row.id, []).append(row)
    return tuple(_listed(rows) for rows in by_id.values())


def replay(store: Store, trail: Trail, kept: Tombstones, *, who: Mapping[str, str], at: datetime) -> int:
    """Lift again what this database, put back from an older copy, has not been told of; how many lifts.

    After the erasures of that file.  One whose commit was lost, and that was refused since, is passed over.  A file
    that lacks what the database knows is completed.  Raises Malformed if the file can't be read.
    """
    known, there = known_lifts(store), kept.lifts()
    with store.reading() as reading:
        refused = {row.id for row in reading.all(LiftRow, id=[one.lift for one in there], state="refused")}
    due = [one for one in there if one.lift not in known and one.lift not in refused]
    if due:
        with store.transaction() as tx:
            what = {"lifts": sorted(one.lift for one in due), "outcome": "lifted_after_restore"}
            entry = _record(tx, trail, who, "subject.lifted", what, at=at)
            for one in due:
                rows = tx.all(LiftRow, id=one.lift)
                if rows:  # two people had decided: only the commit was missing
                    _decide(tx, rows, "lifted", by="", event_id=entry.event_id, at=one.at)
                    continue
                tx.add(
                    *(
                        LiftRow(
                            id=one.lift, idx_hmac=index, state="lifted", reason="", proposed_by="", proposed_at=one.at,
                            decided_at=one.at, event_id=entry.event_id,
                        )
                        for index in sorted(one.indexes)
                    )
                )  # fmt: skip
    for lift in sorted(known.keys() - {one.lift for one in there}):
        kept.append(known[lift])
    return len(due)


def known_lifts(store: Store) -> Mapping[str, Lifted]:
    """The lifts that the database knows, by id."""
    found: dict[str, list[LiftRow]] = {}
    with store.reading() as reading:
        for row in reading.all(LiftRow, state="lifted", order=["decided_at", "id", "idx_hmac"]):
            found.setdefault(row.id, []).append(row)
    return {
        lift: Lifted(lift, rows[0].decided_at, frozenset(row.idx_hmac for row in rows))
        for lift, rows in found.items()
        if rows[0].decided_at is not None
    }


def _kept_out(reading: Reading, indexes: frozenset[str], *, alone: bool, at: datetime) -> frozenset[str]:
    """Which of these ids, and of those that were erased together with one of them, are kept out now."""
    barred = Barred.of(reading)
    mine = {index for index in indexes if barred.out(index, at)}
    if mine and not alone:
        erasures = {row.erasure for some in parts(mine) for row in reading.all(TombstoneRow, idx_hmac=some)}
        together = {row.idx_hmac for some in parts(erasures) for row in reading.all(TombstoneRow, erasure=some)}
        mine |= {index for index in together if barred.out(index, at)}
    return frozenset(mine)


def _open(tx: Transaction, lift: str) -> list[LiftRow]:
    rows = tx.locked(LiftRow, id=lift, order=["idx_hmac"])
    if not rows:
        raise NotFound("there is no such lift")
    if rows[0].state != "proposed":
        raise WrongState(f"this lift is {rows[0].state}")
    return rows


def _decide(
    tx: Transaction, rows: Sequence[LiftRow], state: str, *, by: str, event_id: str, at: datetime, refused: str = ""
) -> None:
    for row in rows:
        row.state, row.decided_by, row.decided_at, row.refused, row.event_id = state, by, at, refused, event_id
    tx.add(*rows)
    tx.flush()


def _record(
    tx: Transaction, trail: Trail, who: Mapping[str, str], type_: str, what: Mapping[str, Any], *, at: datetime
) -> EntryRef:
    """An event that names no subject."""
    return trail.record(tx, Event(id=new_event_id(), type=type_, who=who, what=what, why={}, detail={}), at=at)


def _listed(rows: Sequence[LiftRow]) -> Lift:
    one = rows[0]
    return Lift(
        lift=one.id, state=one.state, reason=one.reason, ids=len(rows), proposed_by=one.proposed_by,
        proposed_at=one.proposed_at, decided_by=one.decided_by, decided_at=one.decided_at, refused=one.refused,
    )  # fmt: skip
