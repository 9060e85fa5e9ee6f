"""Whose information was shown is told so: each holder's own ledger, read receipts, and answers that are recalled.

    answer   in its own transaction leaves one notice at each organisation of whose records it shows something
    holder   reads its ledger at its gateway or by its machine, and says what it has read: its read receipt
    recall   where a run splits a person, every answer that showed the mixture is recalled, and whoever asked is told

The ledger tells who (organisation, role, an opaque id), when, why (purpose, keyed case), and what of the holder's OWN
records was shown.  Of what was hidden there is no notice: that goes through the rounds of `considering`, on their
schedule, and neither the ledger nor the log tells it from what is not there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, Literal

import rfc8785

from agreements import VOCABULARY, Mode
from audit.events import Event, Json
from audit.receipts import LogReceipt
from broker.callers import Caller
from broker.deciding import Released, named
from broker.errors import NotAllowed, NotFound
from broker.family_view import Feed, Seen
from broker.keys import DataKey, Keys
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.log import EventRow
from broker.store.notices import (
    NoticeRecordRow,
    NoticeRow,
    RecallRow,
    Which,
    notices_about,
    notices_of,
    recalled_at,
    records_of,
    set_end,
    uncollected,
)
from broker.store.searches import Shown
from broker.trail import Trail, new_event_id

Kind = Literal["search", "view"]
Why = Literal["split", "reported"]
Broken = Literal["not_sent", "broken_off"]
Ended = Broken | Literal["completed"]

ROLES: Final = ("AGENCY_REP", "DATA_STEWARD", "DSL")
PAGE: Final = 50  # notices
NEWEST: Final = 25  # accesses of one record
SUBJECTS: Final = 24  # records that an event lists itself; of more, count and digest
RECALLED_AT_ONCE: Final = 200  # in one transaction: writers wait for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """How far one category of a record was shown."""

    category: str
    label: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One of the holder's own records, and what of it was shown: of a search, that there is one.

    Where an organisation's information came with another's record, the organisation has no name for the record
    (`record_ref` is None) and reads who carried it; the other reads whose it was (`of`).
    """

    flow: str | None
    record_ref: str | None
    categories: tuple[Category, ...]
    clauses: tuple[str, ...]
    of: str | None = None
    carried_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One answer that showed something of the holder's.

    `ended`: completed, not_sent, broken_off (a part may have arrived), or unknown: authorised, and possibly seen.
    """

    notice: str
    event_id: str
    kind: str
    at: datetime
    organisation: str
    name: str
    role: str
    role_label: str
    person: str
    purpose: str
    purpose_label: str
    case: str  # the asker's keyed token, keyed again
    records: tuple[Record, ...]  # of what was erased since nothing is left
    ended: str
    recalled_at: datetime | None
    collected_at: datetime | None
    collected_by: str | None  # "machine", or a person's opaque id


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Accesses, oldest first; `next` is the cursor of the following page."""

    at: datetime
    accesses: tuple[Access, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The latest accesses of one record, newest first; for a record that is none, or was never shown, there are none.

    `more`: there were others before.
    """

    at: datetime
    accesses: tuple[Access, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """An answer to one's own people that showed several persons as one, or is said to have: not to be used any more."""

    recall: str
    event_id: str  # of the answer
    kind: str
    why: str  # split, by a night; reported, and a reviewer looks at it
    person: str
    shown_at: datetime
    at: datetime
    recalled_by: str  # the event that recalls it
    collected_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalls:
    """Recalled answers that nobody has said to have read."""

    at: datetime
    recalls: tuple[Recalled, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """How much was said to be read now; what was read before, or is another's, is not counted."""

    at: datetime
    notices: int
    recalls: int


# --- With the answer -------------------------------------------------------------------------------------------------


def notify(
    tx: Transaction, keys: Keys, shown: Iterable[Seen], feeds: Sequence[Feed], *, event_id: str, kind: Kind,
    at: datetime,
) -> None:  # fmt: skip
    """Leave one notice at each organisation of whose records an answer shows something, in the answer's transaction.

    `shown` holds nothing that is hidden: how many statements this takes depends on what the asker sees alone.
    """
    told: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for one in shown:
        agency, flow, ref = one.record
        body: dict[str, Any] = {"categories": {}, "clauses": []}
        if kind == "view":
            body["categories"] = {each.category: each.mode.word for each in one.renderings}
            body["clauses"] = sorted({str(each.under) for each in one.decision.shown.values()})
        index = keys.subject_index(named(one.record))
        mine = {**body, "record": [flow, ref]}
        if one.source == agency:
            told[agency].append((index, mine))
        else:
            told[agency].append((index, {**mine, "of": one.source}))
            told[one.source].append((index, {**body, "carried_by": agency}))
    enrolled = {feed.organisation for feed in feeds}
    if others := told.keys() - enrolled:
        enrolled |= {row.id for row in tx.all(AgencyRow, id=sorted(others))}
    notices, records = [], []
    for agency in sorted(told.keys() & enrolled):
        id_ = new_event_id()
        key, wrapped = keys.new_data_key(id_)
        notices.append(
            {
                "id": id_, "agency": agency, "event_id": event_id, "kind": kind, "at": at, "key_wrapped": wrapped,
                "ended": "", "collected_at": None, "collected_by": "",
            }
        )  # fmt: skip
        records += [
            {
                "notice": id_, "n": n, "record_index": index,
                "sealed": key.seal(rfc8785.dumps(body), bound_to=_place(id_, n)),
            }
            for n, (index, body) in enumerate(told[agency])
        ]  # fmt: skip
    tx.insert(NoticeRow, *notices)
    tx.insert(NoticeRecordRow, *records)


def ended(tx: Transaction, *, event_id: str, how: Ended) -> None:
    """Say in every notice of an answer how it ended."""
    set_end(tx, event_id, how)


# --- The holder ------------------------------------------------------------------------------------------------------


def listed(
    store: Store,
    trail: Trail,
    keys: Keys,
    caller: Caller,
    *,
    which: Which = "all",
    since: datetime | None = None,
    after: str | None = None,
    at: datetime,
) -> Released[Page]:
    """One page of the ledger of the caller's own organisation.

    Raises NotAllowed, NotFound for a cursor that is none of theirs, LogUnavailable.
    """
    _may_read(caller)
    with store.reading() as reading:
        cursor = reading.one(NoticeRow, id=after, agency=caller.organisation) if after else None
        if after and cursor is None:
            raise NotFound("the cursor is of no page")
        found = notices_of(reading, caller.organisation, which=which, since=since, after=cursor, limit=PAGE + 1)
        more, found = len(found) > PAGE, found[:PAGE]
        accesses = _Told.of(reading, keys).accesses(reading, found)
    page = Page(at=at, accesses=accesses, next=accesses[-1].notice if more else None)
    return Released(page, _read(trail, caller, accesses, {"of": which}, at=at))


def latest(
    store: Store, trail: Trail, keys: Keys, caller: Caller, *, record_ref: str, at: datetime
) -> Released[Latest]:
    """Who was shown one of the caller's own organisation's records last: up to 25, newest first.

    Of a record that is none the answer is the same as of one that nobody was shown.  Raises NotAllowed, LogUnavailable.
    """
    _may_read(caller)
    with store.reading() as reading:
        flows = [row.flow for row in reading.all(AgencyFlowRow, agency=caller.organisation)]
        records = [named((caller.organisation, flow, record_ref)) for flow in sorted(flows)]
        indexes = frozenset(map(keys.subject_index, records))
        found = notices_about(reading, caller.organisation, indexes, limit=NEWEST + 1)
        accesses = _Told.of(reading, keys).accesses(reading, found[:NEWEST], only=indexes)
    newest = Latest(at=at, accesses=accesses, more=len(found) > NEWEST)
    return Released(newest, _read(trail, caller, accesses, {"of": "record"}, at=at))


def recalls(store: Store, trail: Trail, caller: Caller, *, at: datetime) -> Released[Recalls]:
    """Which answers to the caller's own organisation are recalled, and not yet read as such, oldest first.

    Raises NotAllowed, LogUnavailable.
    """
    _may_read(caller)
    with store.reading() as reading:
        waiting = reading.all(RecallRow, agency=caller.organisation, collected_at=None, order=("at", "id"))
    rows = [row for row in waiting if row.recalled_by]
    due = rows[:PAGE]
    listed: dict[str, Json] = {"of": "recalls", "outcome": f"{len(due)}_listed", "recalls": [row.id for row in due]}
    receipt = trail.receipt_for(_event(caller, "ledger.listed", listed), at=at)
    told = tuple(
        Recalled(
            recall=row.id, event_id=row.event_id, kind=row.kind, why=row.why, person=row.person, shown_at=row.shown_at,
            at=row.at, recalled_by=row.recalled_by, collected_at=row.collected_at,
        )
        for row in due
    )  # fmt: skip
    return Released(Recalls(at=at, recalls=told, more=len(rows) > len(due)), receipt)


def collected(
    store: Store, trail: Trail, caller: Caller, *, notices: Sequence[str], recalls: Sequence[str] = (), at: datetime
) -> Released[Collected]:
    """The read receipt: these notices and recalls have reached the caller's organisation.  Twice does no harm.

    Raises NotAllowed, LogUnavailable.
    """
    _may_read(caller)
    with store.transaction() as tx:
        read: list[NoticeRow] = uncollected(tx, NoticeRow, caller.organisation, notices)
        heard: list[RecallRow] = [
            row for row in uncollected(tx, RecallRow, caller.organisation, recalls) if row.recalled_by
        ]
        for row in (*read, *heard):
            row.collected_at, row.collected_by = at, caller.person
        tx.add(*read, *heard)
        ids = sorted([row.id for row in read] + [row.id for row in heard])
        what: dict[str, Json] = {
            "outcome": "read", "notices": len(read), "recalls": len(heard),
            "sha256": sha256(rfc8785.dumps(ids)).hexdigest(),
        }  # fmt: skip
        entry = trail.record(tx, _event(caller, "ledger.collected", what), at=at)
    return Released(Collected(at=at, notices=len(read), recalls=len(heard)), trail.receipt(entry))


# --- Recall ----------------------------------------------------------------------------------------------------------


def to_recall(tx: Transaction, saw: Iterable[Shown], *, run: str, why: Why = "split", at: datetime) -> int:
    """Keep which answers showed persons that a run has split, or that a report calls mixed up; how many.

    In the transaction of the run or the report.  What was recalled before is not recalled for a report again.
    """
    answers = {one.event_id: one for one in saw}
    for event_id in recalled_at(tx, answers) if why == "reported" else ():
        del answers[event_id]
    tx.insert(
        RecallRow,
        *(
            {
                "id": new_event_id(), "agency": one.organisation, "person": one.person, "event_id": event_id,
                "kind": one.kind, "shown_at": one.at, "run": run, "why": why, "at": at, "recalled_by": "",
                "collected_at": None, "collected_by": "",
            }
            for event_id, one in sorted(answers.items())
        ),
    )  # fmt: skip
    return len(answers)


def recall_due(store: Store, trail: Trail, *, who: Mapping[str, str], at: datetime) -> int:
    """Recall every answer that is due, an event each; how many.  Broken off, it goes on where it was.

    Raises LogUnavailable.
    """
    done = 0
    while True:
        with store.transaction() as tx:
            due = tx.all(RecallRow, recalled_by="", order=("at", "id"), limit=RECALLED_AT_ONCE)
            for row in due:
                event = Event(
                    id=new_event_id(),
                    type="disclosure.recalled",
                    who=who,
                    what={"recalls": row.event_id, "kind": row.kind, "run": row.run, "outcome": row.why},
                    why={"reason": "linked_wrongly"},
                    recipients=[{"organisation": row.agency, "person": row.person}],
                    detail={},
                )
                row.recalled_by = trail.record(tx, event, at=at).event_id
            tx.add(*due)
        done += len(due)
        if len(due) < RECALLED_AT_ONCE:
            break
    if done:
        trail.wake()
    return done


# --- Reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """How notices are read: by these keys, with these names."""

    keys: Keys
    names: Mapping[str, str]

    @classmethod
    def of(cls, tx: Reading, keys: Keys) -> _Told:
        return cls(keys=keys, names={row.id: row.name for row in tx.all(AgencyRow)})

    def accesses(
        self, tx: Reading, found: Sequence[tuple[NoticeRow, EventRow]], *, only: frozenset[str] | None = None
    ) -> tuple[Access, ...]:
        """As the holder reads them; `only`: no other record than of these indices."""
        records = records_of(tx, [notice.id for notice, _ in found])
        recalled = recalled_at(tx, [notice.event_id for notice, _ in found])
        return tuple(
            self._access(notice, event, records.get(notice.id, ()), recalled.get(notice.event_id), only)
            for notice, event in found
        )

    def _access(
        self,
        notice: NoticeRow,
        event: EventRow,
        rows: Sequence[NoticeRecordRow],
        recalled: datetime | None,
        only: frozenset[str] | None,
    ) -> Access:
        key = self.keys.data_key(notice.key_wrapped, notice.id)
        role, purpose = VOCABULARY.roles.get(event.role), VOCABULARY.purposes.get(event.purpose)
        by = None if notice.collected_at is None else notice.collected_by or "machine"
        return Access(
            notice=notice.id, event_id=notice.event_id, kind=notice.kind,
            at=datetime.fromtimestamp(event.t_ms / 1000, UTC), organisation=event.org,
            name=self.names.get(event.org, event.org), role=event.role, role_label=role.label if role else event.role,
            person=event.actor_ref, purpose=event.purpose, purpose_label=purpose.label if purpose else event.purpose,
            case=event.case_hmac,
            records=tuple(_opened(key, row) for row in rows if only is None or row.record_index in only),
            ended=notice.ended or "unknown", recalled_at=recalled, collected_at=notice.collected_at, collected_by=by,
        )  # fmt: skip


def _opened(key: DataKey, row: NoticeRecordRow) -> Record:
    body: dict[str, Any] = json.loads(key.open(row.sealed, bound_to=_place(row.notice, row.n)))
    flow, ref = body.get("record") or (None, None)
    return Record(
        flow=flow, record_ref=ref, clauses=tuple(body["clauses"]), of=body.get("of"), carried_by=body.get("carried_by"),
        categories=tuple(
            Category(category=category, label=_label(category), mode=Mode.parse(mode).word)
            for category, mode in sorted(body["categories"].items())
        ),
    )  # fmt: skip


def _label(category: str) -> str:
    known = VOCABULARY.categories.get(category)
    return known.label if known else category


def _may_read(caller: Caller) -> None:
    if caller.kind == "agency" or (caller.kind == "person" and caller.role in ROLES):
        return
    roles = ", ".join(VOCABULARY.roles[role].label for role in ROLES)
    raise NotAllowed(f"a holder's ledger is for its machine, and at its gateway for its {roles}")


def _read(
    trail: Trail, caller: Caller, accesses: Sequence[Access], what: Mapping[str, Json], *, at: datetime
) -> LogReceipt:
    """The receipt of what a holder reads of its ledger: which notices, and of which of its records."""
    records = sorted(
        {
            named((caller.organisation, one.flow, one.record_ref))
            for access in accesses
            for one in access.records
            if one.flow and one.record_ref
        }
    )
    listed_ = {**what, "outcome": f"{len(accesses)}_listed", "notices": [one.notice for one in accesses]}
    beside = rfc8785.dumps(list(records))
    few = len(records) <= SUBJECTS
    subjects: Sequence[Json] = records if few else [{"count": len(records), "sha256": sha256(beside).hexdigest()}]
    event = _event(caller, "ledger.listed", listed_, subjects=subjects)
    return trail.receipt_for(event, about=records, blobs=None if few else {"subjects": beside}, at=at)


def _event(caller: Caller, type_: str, what: Mapping[str, Json], *, subjects: Sequence[Json] = ()) -> Event:
    return Event(
        id=new_event_id(),
        type=type_,
        who=caller.who(),
        what=what,
        why={},
        subjects=subjects,
        recipients=[{"organisation": caller.organisation, "person": caller.person, "role": caller.role}],
        detail={},
    )


def _place(notice: str, n: int) -> bytes:
    return f"notice|{notice}|{n}".encode()
