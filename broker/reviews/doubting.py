"""Somebody says that this is the wrong person: two people are mixed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import rfc8785

from broker import ledger, lineage, splits
from broker.callers import Caller
from broker.deciding import Released, named
from broker.errors import Malformed, NotAllowed, NotFound
from broker.keys import Keys
from broker.linked import InService, LinkedArea
from broker.overrides import Sides, pair_index
from broker.reviews.pairs import linked_area, logged, new_row, note, within_budget
from broker.reviews.said import STATES, WHAT_IS_WRONG, WRONG_PERSON_HOW, Reported
from broker.store import Reading, Store, Transaction
from broker.store.reviews import ReviewRow, known_pairs
from broker.store.searches import SearchCandidateRow, ViewRow
from broker.trail import Trail, new_event_id
from linkage.matching.overrides import RecordKey


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
    with the event, sealed; where a link is in doubt, the next night recalls what they were shown.  Raises NotFound for
    a view of somebody else, Malformed, TooMany, LogUnavailable.
    """
    if caller.kind not in ("person", "agency"):
        raise NotAllowed("a person at a gateway, or an agency, reports a wrong person")
    for name, code, codes in (("what", what, WHAT_IS_WRONG), ("how", how, WRONG_PERSON_HOW)):
        if code not in codes:
            raise Malformed(f"{name}: one of {', '.join(codes)}")
    area = linked_area(service)
    report = new_event_id()
    with store.transaction() as tx:
        within_budget(tx, caller, "reported", at=at)
        persons = _doubted(tx, area, caller, view, record)
        reviews = []
        viewers = {person: splits.who_saw(tx, person) for person in persons}
        for person in persons if what != "family_member" else ():
            sides = _parted(area, person, caller, organisation=organisation, record=record)
            if sides is not None:
                reviews.append(_reported(tx, keys, area, sides, at=at))
                ledger.to_recall(tx, viewers[person], run=report, why="reported", at=at)
        saw = [
            [one.person_id, one.organisation, one.person, one.event_id, one.kind, one.at.isoformat()]
            for seen in viewers.values() for one in seen
        ]  # fmt: skip
        records = {named(one) for person in persons for one in area.index.records_of(person)}
        entry = logged(
            tx, trail, "link.wrong_person_reported", caller, outcome="recorded", at=at,
            what={"report": report, "view": view, "doubted": what}, why={"reason": how},
            detail={"reviews": [row.id for row in reviews]}, about={*persons, *records},
            blobs={"saw": rfc8785.dumps(saw)},
        )  # fmt: skip
        noted: list[str | None] = [row.id for row in reviews]
        for review in noted or [None]:
            note(tx, caller, "reported", review, entry, code=how, at=at)
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
        row = new_row(keys, sides, "wrong_person", area.run, at=at)
    elif row.state not in STATES:
        row.state, row.since, row.override, row.changed_at = "waiting", at, None, at
    row.reason, row.scope = "wrong_person", "persons"
    tx.add(row)
    tx.flush()
    return row
