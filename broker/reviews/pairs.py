"""A pair under review: finding it, comparing its two sides, and what each look at it leaves behind."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from audit.events import Event, Json
from broker import overrides, register
from broker.callers import Caller
from broker.deciding import named
from broker.errors import NotAllowed, NotFound, TooMany
from broker.keys import Keys
from broker.linked import InService, LinkedArea
from broker.overrides import Sides, open_sides, pair_index, seal_sides
from broker.reviews.said import PER_HOUR, REVIEWER
from broker.store import Reading, Transaction
from broker.store.reviews import ReviewActRow, ReviewRow, acts_since
from broker.trail import EntryRef, Trail, new_event_id
from linkage.matching.explain import Explanation, explained


def may_review(caller: Caller) -> None:
    """Raises NotAllowed for whoever is no link reviewer signed in here."""
    if caller.kind != "officer" or caller.role != REVIEWER:
        raise NotAllowed("pairs are looked at by link reviewers")


def linked_area(service: InService) -> LinkedArea:
    """What was linked last.  Raises NotFound if nothing was yet."""
    area = service.area()
    if area is None:
        raise NotFound("nothing has been linked yet")
    return area


def within_budget(tx: Reading, caller: Caller, act: str, *, at: datetime) -> None:
    """Raises TooMany once a person has done this as often as one may in an hour."""
    person = caller.person or caller.organisation
    if acts_since(tx, person=person, act=act, since=at - timedelta(hours=1)) >= PER_HOUR[act]:
        raise TooMany("this is as often as one person may do this in an hour", retry_after=600)


def found(tx: Reading, keys: Keys, area: LinkedArea, review: str) -> tuple[ReviewRow, Sides]:
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


def compared(area: LinkedArea, sides: Sides) -> Explanation:
    """How the two sides compare, by the pair of records that compares best."""
    nearest = closest(area, sides)
    (left, left_numbers), (right, right_numbers) = (
        area.index.rows_of(side[0]) for side in (nearest.left, nearest.right)
    )
    return explained(area.index.model, left, right, left_numbers, right_numbers)


def closest(area: LinkedArea, sides: Sides) -> Sides:
    """The one pair of records, a side each, that compares best: what holds two persons together."""
    if len(sides.records) == 2:
        return sides
    weights = {frozenset(pair): weight for pair, weight in area.weights(sides.records).items()}
    left, right = max(sides.pairs(), key=lambda pair: (weights.get(frozenset(pair), float("-inf")), pair))
    return Sides.of([left], [right])


def second_due(tx: Reading, area: LinkedArea, sides: Sides) -> bool:
    """Whether anybody of either person is shielded, or a restriction names one of their records."""
    persons = {owner for record in sides.records if (owner := area.index.person_of(record)) is not None}
    if any(area.tags(person) & {"shield_full", "shield_address"} for person in persons):
        return True
    records = {(agency, ref) for person in persons for agency, _, ref in area.index.records_of(person)}
    sealed = {(one.owner, one.record) for one in register.snapshot(tx).restrictions if one.record is not None}
    return not records.isdisjoint(sealed)


def about_sides(sides: Sides) -> set[str]:
    """The records of both sides, as the log names them."""
    return {named(record) for record in sides.records}


def new_row(keys: Keys, sides: Sides, reason: str, run: str, *, at: datetime) -> ReviewRow:
    """A new entry of the queue, which records it is about sealed in it."""
    return ReviewRow(**new_entry(keys, sides, pair_index(keys, sides), reason, run, at=at))


def new_entry(keys: Keys, sides: Sides, index: str, reason: str, run: str, *, at: datetime) -> dict[str, Any]:
    """The same by its columns: a night makes thousands.  `index` is the pair's."""
    review = new_event_id()
    sealed, wrapped = seal_sides(keys, sides, review)
    return {
        "id": review, "pair_index": index, "reason": reason, "agency_l": sides.left[0][0],
        "agency_r": sides.right[0][0], "reference_l": _reference(), "reference_r": _reference(), "sealed": sealed,
        "key_wrapped": wrapped, "state": "waiting", "override": None, "run": run, "since": at, "changed_at": at,
        "scope": "records" if len(sides.records) == 2 and reason != "wrong_person" else "persons",
    }  # fmt: skip


SAID: Final = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # what is not taken for another when it is said
_FAIR: Final = len(SAID) * (256 // len(SAID))  # of the bytes below, as many make each character
_SPOKEN: Final = (SAID * 9).encode()[:256]


def _reference() -> str:
    """Twelve characters that can be said on the telephone."""
    text = ""
    while len(text) < 12:
        text += secrets.token_bytes(16).translate(_SPOKEN, bytes(range(_FAIR, 256))).decode()
    return f"{text[:4]}-{text[4:8]}-{text[8:12]}"


def logged(
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
    """Put a step of a review in the log."""
    event = Event(
        id=new_event_id(), type=type_, who=caller.who(), what={**what, "outcome": outcome}, why=why or {},
        detail=detail or {},
    )  # fmt: skip
    return trail.record(tx, event, about={*about, *(about_sides(sides) if sides else ())}, blobs=blobs, at=at)


def note(
    tx: Transaction, caller: Caller, act: str, review: str | None, entry: EntryRef, *, code: str = "", at: datetime
) -> None:
    """Keep beside the queue what was done about a pair, and by whom."""
    tx.add(
        ReviewActRow(
            review=review, act=act, organisation=caller.organisation,
            person=caller.person or caller.organisation, code=code, event_id=entry.event_id, at=at,
        )
    )  # fmt: skip
