"""The erasing itself, table by table: events whole or in part, and what lies beside the log."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import String, and_, cast, delete, func, or_, select
from sqlalchemy.engine import CursorResult
from sqlmodel import col

from audit.events import SectionName
from broker.keys import Keys
from broker.store.considerations import ConsiderationRow
from broker.store.erasures import parts
from broker.store.event_keys import (
    AT_ONCE,
    EventKeyRow,
    EventKeys,
    SubjectKeyRow,
    drop_event_keys,
    drop_subject_keys,
    new_event_key,
    open_body,
    seal_body,
)
from broker.store.items import ItemRow
from broker.store.log import BlobRow, EventRow, SubjectRow
from broker.store.notices import NoticeRecordRow, NoticeRow
from broker.store.searches import SearchCandidateRow, SearchRow, ThresholdRow, ViewPersonRow
from broker.store.sequence import BATCH, sequence
from broker.store.transaction import Reading, Transaction

Place = tuple[str, int]  # log_id, seq
KEPT_OF_SHARED: Final[tuple[SectionName, ...]] = ("who", "what", "why", "recipients")
"""What stays of an event that is about others too: in `subjects` and `detail` they can't be told apart."""

_BODY: Final = (
    col(EventRow.event_id), col(EventRow.log_id), col(EventRow.seq), col(EventRow.type), col(EventRow.t_ms),
)  # fmt: skip
_BY_PERSON: Final = (
    ("candidates", SearchCandidateRow, col(SearchCandidateRow.person_id)),
    ("views", ViewPersonRow, col(ViewPersonRow.person_id)),
    ("thresholds", ThresholdRow, col(ThresholdRow.person_id)),
)


class Body(NamedTuple):
    """An event whose body is still there."""

    event_id: str
    log_id: str
    seq: int
    type: str
    t_ms: int

    @property
    def place(self) -> Place:
        return self.log_id, self.seq


@dataclass(frozen=True, slots=True, kw_only=True)
class Emptied:
    """How much of the log was emptied."""

    events: int = 0  # bodies that are gone
    withheld: int = 0  # events of others too, of which what names the subject is gone
    blobs: int = 0
    keys: int = 0
    index: int = 0


def sequence_all(tx: Transaction, keys: Keys) -> None:
    """Sequence all that waits, and keep every other sequencer out until the transaction's end.

    A sequencer that has looked at a subject's key, and commits after an erasure has taken it, would leave an event that
    nobody can open and that nothing says is erased.  So whoever takes keys away holds the head.  Raises LogUnavailable.
    """
    while len(sequence(tx, keys).entries) == BATCH:
        pass


def empty_subject(tx: Transaction, keys: Keys, indexes: frozenset[str], *, under: str, at: datetime) -> Emptied:
    """Empty every event about these ids (of one subject), as far as it is about no one else.

    Where it is, who, what, why and to whom stay, under a fresh key, so that copies of the old body can't be opened by
    what is kept.  The subject's key and index rows go.  `under`: the id of the event that says so.
    """
    whole: list[Body] = []
    shared: list[Body] = []
    for body, sole, others in _about(tx, indexes):
        (whole if sole in indexes or not others else shared).append(body)
    gone = empty_events(tx, whole, under=under, at=at)
    withheld, blobs = _withhold(tx, keys, shared, at=at)
    dropped = drop_subject_keys(tx, indexes)
    index = sum(_delete(tx, delete(SubjectRow).where(col(SubjectRow.idx_hmac).in_(some))) for some in parts(indexes))
    return Emptied(
        events=gone.events, withheld=withheld, blobs=gone.blobs + blobs, keys=gone.keys + dropped,
        index=gone.index + index,
    )  # fmt: skip


def empty_events(tx: Transaction, bodies: Sequence[Body], *, under: str, at: datetime) -> Emptied:
    """Take body, salts, key, blobs, notices and index rows of these events; leaf, time, who acted and type stay."""
    blobs = index = 0
    keys = drop_event_keys(tx, [body.event_id for body in bodies])
    for some in parts(bodies):
        ids = [body.event_id for body in some]
        blobs += _delete(tx, delete(BlobRow).where(col(BlobRow.event_id).in_(ids)))
        notices = select(col(NoticeRow.id)).where(col(NoticeRow.event_id).in_(ids))
        _delete(tx, delete(NoticeRecordRow).where(col(NoticeRecordRow.notice).in_(notices)))
        _delete(tx, delete(NoticeRow).where(col(NoticeRow.event_id).in_(ids)))
        for row in tx.all(EventRow, event_id=ids):
            row.sections = row.detail = None
            row.case_hmac, row.erased_at, row.erased_under = "", at, under
            tx.add(row)
        tx.flush()
        for log_id in {body.log_id for body in some}:
            seqs = [body.seq for body in some if body.log_id == log_id]
            there = delete(SubjectRow).where(col(SubjectRow.log_id) == log_id, col(SubjectRow.seq).in_(seqs))
            index += _delete(tx, there)
    return Emptied(events=len(bodies), blobs=blobs, keys=keys, index=index)


def drop_orphan_subject_keys(tx: Transaction) -> int:
    """Delete the keys of subjects of whom no event is left; how many."""
    used = select(col(EventKeyRow.event_id)).where(col(EventKeyRow.subject) == col(SubjectKeyRow.idx_hmac)).exists()
    return _delete(tx, delete(SubjectKeyRow).where(col(SubjectKeyRow.idx_hmac) != "", ~used))


def ids_behind(tx: Reading, keys: Keys, indexes: frozenset[str]) -> tuple[str, ...]:
    """The ids among all that the tables beside the log hold whose HMAC is one of these: persons, and records."""
    persons: set[str] = set()
    for _, _, column in _BY_PERSON:
        persons.update(tx.session.scalars(select(column).distinct()))
    for household in tx.session.scalars(select(col(SearchRow.household))):
        persons.update(member for member, _ in household)
    columns = (col(ItemRow.agency), col(ItemRow.flow), col(ItemRow.record_ref))
    records = {"/".join(record) for record in _rows(tx, select(*columns).distinct())}
    return tuple(sorted(one for one in persons | records if keys.subject_index(one) in indexes))


def empty_elsewhere(tx: Transaction, ids: Collection[str], indexes: Collection[str]) -> dict[str, int]:
    """Delete what the broker holds of these ids beside the log; how many rows of each kind.

    `ids`: person ids, and records as agency/flow/record_ref.  `indexes`: their HMACs.
    """
    persons = [one for one in ids if "/" not in one]
    counts = dict.fromkeys(("items", "candidates", "views", "thresholds", "considerations", "households", "notices"), 0)
    for agency, flow, record in (one.split("/", 2) for one in ids if "/" in one):
        there = and_(col(ItemRow.agency) == agency, col(ItemRow.flow) == flow, col(ItemRow.record_ref) == record)
        counts["items"] += _delete(tx, delete(ItemRow).where(there))
    for some in parts(persons):
        for kind, row, person in _BY_PERSON:
            counts[kind] += _delete(tx, delete(row).where(person.in_(some)))
        named = or_(*(cast(col(SearchRow.household), String).contains(one, autoescape=True) for one in some))
        for search in tx.session.scalars(select(SearchRow).where(named)):
            search.household = [member for member in search.household if member[0] not in some]
            tx.add(search)
            counts["households"] += 1
    for some in parts(indexes):
        there = col(ConsiderationRow.record_index).in_(some)
        counts["considerations"] += _delete(tx, delete(ConsiderationRow).where(there))
        noticed = col(NoticeRecordRow.record_index).in_(some)
        counts["notices"] += _delete(tx, delete(NoticeRecordRow).where(noticed))
    return {kind: count for kind, count in counts.items() if count}


def bodies_before(
    reading: Reading, cuts: Sequence[tuple[int, Collection[str]]], *, after: Body | None = None
) -> list[Body]:
    """Events whose body is still there, of these types and older than their instant (unix ms), a few at once.

    Oldest first; `after`: only those that follow that one.
    """
    due = or_(*(and_(col(EventRow.t_ms) < before, col(EventRow.type).in_(types)) for before, types in cuts))
    query = select(*_BODY).where(due, col(EventRow.erased_at).is_(None))
    if after is not None:
        same = and_(col(EventRow.t_ms) == after.t_ms, col(EventRow.event_id) > after.event_id)
        query = query.where(col(EventRow.t_ms) >= after.t_ms, or_(col(EventRow.t_ms) > after.t_ms, same))
    query = query.order_by(col(EventRow.t_ms), col(EventRow.event_id)).limit(AT_ONCE)
    return [Body(*found) for found in _rows(reading, query)]


def indexes_of(reading: Reading, bodies: Collection[Body]) -> dict[Place, frozenset[str]]:
    """Whom each of these events is about, by HMAC."""
    found: dict[Place, set[str]] = {body.place: set() for body in bodies}
    for log_id in {body.log_id for body in bodies}:
        for some in parts({body.seq for body in bodies if body.log_id == log_id}):
            query = select(SubjectRow).where(col(SubjectRow.log_id) == log_id, col(SubjectRow.seq).in_(some))
            for row in reading.session.scalars(query):
                found[row.log_id, row.seq].add(row.idx_hmac)
    return {place: frozenset(indexes) for place, indexes in found.items()}


def last_contacts(reading: Reading, indexes: Collection[str]) -> dict[str, int]:
    """When the newest event about each of these ids was, in unix ms."""
    found: dict[str, int] = {}
    for some in parts(indexes):
        query = (
            select(col(SubjectRow.idx_hmac), func.max(col(EventRow.t_ms)))
            .join(
                EventRow, and_(col(EventRow.log_id) == col(SubjectRow.log_id), col(EventRow.seq) == col(SubjectRow.seq))
            )
            .where(col(SubjectRow.idx_hmac).in_(some))
            .group_by(col(SubjectRow.idx_hmac))
        )
        found |= {index: int(at) for index, at in _rows(reading, query)}
    return found


def _about(tx: Reading, indexes: frozenset[str]) -> Iterator[tuple[Body, str | None, frozenset[str]]]:
    """Each event about these ids whose body is there, with whose key it is under, and who else it is about."""
    bodies: dict[str, tuple[Body, str | None]] = {}
    for some in parts(indexes):
        query = (
            select(*_BODY, col(EventKeyRow.subject))
            .join(
                SubjectRow,
                and_(col(EventRow.log_id) == col(SubjectRow.log_id), col(EventRow.seq) == col(SubjectRow.seq)),
            )
            .join(EventKeyRow, col(EventKeyRow.event_id) == col(EventRow.event_id), isouter=True)
            .where(col(SubjectRow.idx_hmac).in_(some), col(EventRow.erased_at).is_(None))
        )
        for *found, sole in _rows(tx, query):
            bodies[found[0]] = Body(*found), sole
    about = indexes_of(tx, [body for body, _ in bodies.values()])
    for body, sole in sorted(bodies.values(), key=lambda one: one[0].place):
        yield body, sole, about[body.place] - indexes


def _withhold(tx: Transaction, keys: Keys, bodies: Sequence[Body], *, at: datetime) -> tuple[int, int]:
    """Withhold for good what can't be told apart by whom it is about; how many events, and blobs."""
    blobs = 0
    for some in parts(bodies):
        ids = [body.event_id for body in some]
        old = EventKeys.of(tx, keys, ids)
        opened = {one: key for one in ids if (key := old.get(one)) is not None}
        drop_event_keys(tx, ids)
        blobs += _delete(tx, delete(BlobRow).where(col(BlobRow.event_id).in_(ids)))
        for row in tx.all(EventRow, event_id=ids):
            if row.event_id in opened and row.sections is not None and row.detail is not None:
                opening = open_body(opened[row.event_id], row.event_id, row.sections, row.detail)
                fresh = new_event_key(tx, keys, row.event_id, subject=None)
                row.sections, row.detail = seal_body(fresh, row.event_id, opening.redacted(KEPT_OF_SHARED))
                row.withheld_at = at
                tx.add(row)
        tx.flush()
    return len(bodies), blobs


def _rows(reading: Reading, query: Any) -> Iterator[Any]:
    yield from reading.connection.execute(query)


def _delete(tx: Transaction, statement: Any) -> int:
    tx.flush()
    done: CursorResult[Any] = tx.connection.execute(statement)
    return int(done.rowcount)
