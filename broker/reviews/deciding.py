"""What a reviewer decides of a pair, the second reviewer's word, and taking it back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker import overrides
from broker.callers import Caller
from broker.deciding import Released
from broker.errors import Malformed, WrongState
from broker.keys import Keys
from broker.linked import InService
from broker.reviews.pairs import (
    about_sides,
    closest,
    found,
    linked_area,
    logged,
    may_review,
    note,
    second_due,
    within_budget,
)
from broker.reviews.said import DECISION_OF, EVIDENCE, NEXT_NIGHT, SECOND_FOR_SAME, TAKEN_BACK, WHY, Decided, Decision
from broker.store import Store
from broker.store.reviews import ReviewActRow
from broker.trail import Trail


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
    may_review(caller)
    if decision not in WHY.get(reason, ("", ()))[1]:
        raise Malformed("reason: not one of those that this decision may bear")
    if not evidence or set(evidence) - EVIDENCE.keys():
        raise Malformed(f"evidence: one or more of {', '.join(EVIDENCE)}")
    area = linked_area(service)
    with store.transaction() as tx:
        within_budget(tx, caller, "decided", at=at)
        row, sides = found(tx, keys, area, review)
        if row.state not in ("waiting", "passed_on"):
            raise WrongState("this pair is decided already, or waits for a second reviewer")
        if not tx.all(ReviewActRow, review=row.id, act="opened", person=caller.person, limit=1):
            raise WrongState("open the pair before deciding it")
        override = None
        if decision == "cannot_tell":
            row.state = "passed_on"
            entry = logged(
                tx, trail, "review.passed_on", caller, outcome="passed_on", at=at, sides=sides,
                what={"review": row.id}, why={"reason": reason, "evidence": sorted(set(evidence))},
            )  # fmt: skip
        else:
            second = second_due(tx, area, sides) or (decision == "same" and row.reason in SECOND_FOR_SAME)
            override, entry = overrides.propose(
                tx, trail, keys, "must_link" if decision == "same" else "must_not_link",
                closest(area, sides) if decision == "same" else sides,
                who=caller.who(), reason=reason, evidence=evidence, second_due=second, review=row.id, at=at,
                about=about_sides(sides),
            )  # fmt: skip
            row.state, row.override = "second" if second else "decided", override.id
        row.changed_at = at
        tx.add(row)
        note(tx, caller, "decided", row.id, entry, code=decision, at=at)
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
    may_review(caller)
    area = linked_area(service)
    with store.transaction() as tx:
        within_budget(tx, caller, "decided", at=at)
        row, sides = found(tx, keys, area, review)
        if row.state != "second" or row.override is None:
            raise WrongState("this pair does not wait for a second reviewer")
        act = overrides.confirm if agree else overrides.refuse
        override, entry = act(tx, trail, row.override, who=caller.who(), at=at, about=about_sides(sides))
        if not tx.all(ReviewActRow, review=row.id, act="opened", person=caller.person, limit=1):
            raise WrongState("open the pair before confirming it")
        row.state, row.changed_at = "decided" if agree else "passed_on", at
        tx.add(row)
        note(tx, caller, "confirmed" if agree else "refused", row.id, entry, at=at)
    answer = Decided(
        review=row.id, decision=DECISION_OF[override.kind],
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
    may_review(caller)
    if reason not in TAKEN_BACK:
        raise Malformed(f"reason: one of {', '.join(TAKEN_BACK)}")
    area = linked_area(service)
    with store.transaction() as tx:
        within_budget(tx, caller, "decided", at=at)
        row, sides = found(tx, keys, area, review)
        if row.state != "decided" or row.override is None:
            raise WrongState("this pair is not decided")
        override, entry = overrides.withdraw(
            tx, trail, row.override, who=caller.who(), reason=reason, at=at, about=about_sides(sides)
        )
        row.state, row.override, row.since, row.changed_at = "waiting", None, at, at
        tx.add(row)
        note(tx, caller, "withdrawn", row.id, entry, code=reason, at=at)
    answer = Decided(
        review=row.id, decision=DECISION_OF[override.kind], state="withdrawn", override=override.id,
        takes_effect=NEXT_NIGHT,
    )  # fmt: skip
    return Released(answer, trail.receipt(entry))
