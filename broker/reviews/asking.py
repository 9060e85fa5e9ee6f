"""Asking the two agencies, each about its own record."""

from __future__ import annotations

from datetime import datetime

from broker.callers import Caller
from broker.deciding import Released, named
from broker.errors import NotFound
from broker.keys import Keys
from broker.linked import InService
from broker.overrides import open_sides
from broker.reviews.pairs import compared, found, linked_area, logged, may_review, note, within_budget
from broker.reviews.said import ASKS, STATES, Asking, Question, ToRing
from broker.store import Reading, Store
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.reviews import ReviewActRow, ReviewRow
from broker.trail import Trail
from linkage.matching.explain import Explanation
from linkage.matching.overrides import RecordKey


def ask(
    store: Store, trail: Trail, keys: Keys, service: InService, caller: Caller, review: str, *, at: datetime
) -> Released[Asking]:
    """Whom to ring where levels don't settle it, and the reference by which each agency finds its own record.

    Raises NotAllowed, NotFound, TooMany, LogUnavailable.
    """
    may_review(caller)
    area = linked_area(service)
    with store.transaction() as tx:
        within_budget(tx, caller, "asked", at=at)
        row, sides = found(tx, keys, area, review)
        fields = _to_check(compared(area, sides))
        left, right = (
            _to_ring(tx, side[0], reference)
            for side, reference in ((sides.left, row.reference_l), (sides.right, row.reference_r))
        )
        entry = logged(
            tx, trail, "review.asked", caller, outcome="contacts_shown", at=at, sides=sides, what={"review": row.id}
        )
        note(tx, caller, "asked", row.id, entry, at=at)
    return Released(Asking(review=row.id, agencies=(left, right), ask=ASKS, fields=fields), trail.receipt(entry))


def question(
    store: Store, trail: Trail, keys: Keys, service: InService, caller: Caller, reference: str, *, at: datetime
) -> Released[Question]:
    """What an agency is asked under a reference that a reviewer quoted to it: its own record, and no word of the other.

    Raises NotFound alike for a reference of another agency, an invented one, and one that nobody has quoted.
    """
    area = linked_area(service)
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
        entry = logged(
            tx, trail, "review.asked", caller, outcome="question_collected", at=at, what={"review": row.id},
            about=[named(record)],
        )  # fmt: skip
        fields = _to_check(compared(area, sides))
    answer = Question(reference=reference, flow=record[1], record_ref=record[2], ask=ASKS, fields=fields)
    return Released(answer, trail.receipt(entry))


def _quoted(tx: Reading, side: str, reference: str, agency: str) -> list[ReviewRow]:
    if side == "l":
        return tx.all(ReviewRow, reference_l=reference, agency_l=agency)
    return tx.all(ReviewRow, reference_r=reference, agency_r=agency)


def _to_check(said: Explanation) -> tuple[str, ...]:
    """The fields and numbers an agency should look at: what is not the same on both sides."""
    fields = [one.field for one in said.fields if one.level != "agree"]
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
