"""The queue of uncertain pairs: brought to each published run, listed by age, opened masked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from broker.callers import Caller
from broker.deciding import Released
from broker.errors import NotFound
from broker.keys import Keys
from broker.linked import InService
from broker.overrides import Sides, open_sides, pair_index, severs
from broker.reviews.pairs import (
    compared,
    found,
    linked_area,
    logged,
    may_review,
    new_entry,
    note,
    second_due,
    within_budget,
)
from broker.reviews.said import (
    DECISION_OF,
    SECOND_FOR_SAME,
    Act,
    Done,
    FieldSaid,
    QueuePage,
    Review,
    Step,
    Waiting,
    Wanted,
)
from broker.store import Reading, Store
from broker.store.reviews import (
    OverrideRow,
    ReviewActRow,
    ReviewRow,
    acts_since,
    close,
    close_unseen,
    insert_reviews,
    known_pairs,
    queue,
    seen_again,
    standings,
    unbound,
)
from broker.store.runs import LinkRunRow, PublishedRow
from broker.trail import Trail
from broker.vault import Vault
from linkage.matching.explain import held_because

LEAVE: Final = ("waiting", "passed_on")  # states that a pair leaves when a run does not find it again
ACTS: Final = ("decided", "confirmed", "refused")  # of a reviewer, by which a pair is done with
PAIR: Final = [*(f"{name}_{side}" for side in "lr" for name in ("agency", "flow", "record_ref")), "reason"]


def listed(
    store: Store, trail: Trail, keys: Keys, vault: Vault, caller: Caller, wanted: Wanted, *, at: datetime
) -> Released[QueuePage]:
    """One page of the queue.  Raises NotAllowed, NotFound for a cursor that is none, TooMany, LogUnavailable."""
    may_review(caller)
    take_in_published(store, keys, vault, at=at)
    with store.transaction() as tx:
        within_budget(tx, caller, "listed", at=at)
        after = tx.one(ReviewRow, id=wanted.after) if wanted.after else None
        if wanted.after and after is None:
            raise NotFound("the cursor is of no page")
        rows = queue(
            tx, states=[wanted.state], reason=wanted.reason, agency=wanted.agency, after=after, limit=wanted.limit + 1,
            since_before=at - timedelta(days=wanted.waiting_days) if wanted.waiting_days else None,
        )  # fmt: skip
        more, rows = len(rows) > wanted.limit, rows[: wanted.limit]
        proposers = _proposers(tx, rows)
        entry = logged(
            tx, trail, "review.listed", caller, outcome=f"{len(rows)}_listed", at=at,
            what={"state": wanted.state, "reason": wanted.reason, "agency": wanted.agency},
        )  # fmt: skip
        note(tx, caller, "listed", None, entry, at=at)
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
    may_review(caller)
    area = linked_area(service)
    with store.transaction() as tx:
        within_budget(tx, caller, "opened", at=at)
        row, sides = found(tx, keys, area, review)
        said = compared(area, sides)
        second = second_due(tx, area, sides)
        acts = tx.all(ReviewActRow, review=row.id, order=("id",))
        proposed = tx.one(OverrideRow, id=row.override) if row.state == "second" else None
        entry = logged(
            tx, trail, "review.opened", caller, outcome=row.state, at=at, sides=sides,
            what={"review": row.id, "reason": row.reason},
        )  # fmt: skip
        note(tx, caller, "opened", row.id, entry, at=at)
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
        proposed=DECISION_OF[proposed.kind] if proposed else None,
        history=tuple(
            Act(act=act.act, code=act.code, at=act.at, yours=act.person == caller.person)
            for act in acts if act.act not in ("opened", "listed")
        ),
    )  # fmt: skip
    return Released(answer, trail.receipt(entry))


def done(store: Store, caller: Caller, review: str, *, since: datetime) -> Done:
    """The caller's own last act about a pair, and how many pairs they did since an instant.  Nothing of the pair.

    Raises NotAllowed, NotFound if they did nothing about it.
    """
    may_review(caller)
    with store.reading() as reading:
        row = reading.one(ReviewRow, id=review)
        own = reading.all(ReviewActRow, review=review, person=caller.person, act=ACTS, order=("-id",), limit=1)
        if row is None or not own:
            raise NotFound("there is no such review")
        pairs = sum(acts_since(reading, person=caller.person, act=act, since=since) for act in ACTS)
    return Done(review=review, act=own[0].act, code=own[0].code, state=row.state, pairs=pairs)


def take_in_published(store: Store, keys: Keys, vault: Vault, *, at: datetime) -> int:
    """Bring the queue to the run in service, if that has not been done; how many pairs are new.

    A night does this as it ends; the first look at the queue does it for a night that was killed in between.
    """
    with store.reading() as reading:
        pointer = reading.one(PublishedRow)
        run = reading.one(LinkRunRow, id=pointer.run) if pointer else None
        if run is None or reading.one(ReviewActRow, act="taken_in", code=run.id) is not None:
            return 0
        last = reading.one(LinkRunRow, id=run.previous) if run.previous else None
        if last is not None and reading.one(ReviewActRow, act="taken_in", code=last.id) is None:
            last = None
    found = vault.read_parts(run.segments, "reviews", PAIR)
    before = vault.read_parts(last.segments, "reviews", PAIR) if last is not None else None
    return take_in(store, keys, run.id, found, at=run.published_at or at, before=before)


def take_in(
    store: Store, keys: Keys, run: str, found: pa.Table, *, at: datetime, before: pa.Table | None = None
) -> int:
    """Bring the queue to what a run found uncertain; how many pairs are new.  Twice does no harm.

    A pair keeps its place while each run finds it again, and leaves when one does not.  What was decided stays so as
    long as its override holds; then it waits again, two records if the run still finds them uncertain, two persons in
    any case: the doubt about these was somebody's.  `before` is what the run found to which the queue was brought
    last: then only what differs is looked up.
    """
    came, went = (found, None) if before is None else (_unlike(found, before), _unlike(before, found))
    pairs = {pair_index(keys, sides): (sides, reason) for sides, reason in _pairs_of(came)}
    with store.transaction() as tx:
        if tx.one(ReviewActRow, act="taken_in", code=run) is not None:
            return 0
        known = standings(tx, pairs)
        back = [
            row for row in unbound(tx, at=at)
            if row.pair_index in pairs or _still_doubted(tx, keys, found, row)
        ]  # fmt: skip
        moved = [  # most stand as they did, and are not read for it
            index for index, it in known.items()
            if it.state == "gone" or (it.scope == "records" and it.reason != pairs[index][1])
        ]  # fmt: skip
        for row in {row.id: row for row in (*back, *known_pairs(tx, moved).values())}.values():
            if row.state == "gone" or row in back:
                row.state, row.since, row.changed_at, row.override = "waiting", at, at, None
            if row.scope == "records" and row.pair_index in pairs:
                row.reason = pairs[row.pair_index][1]
            tx.add(row)
        new = [
            new_entry(keys, sides, index, reason, run, at=at)
            for index, (sides, reason) in pairs.items() if index not in known
        ]  # fmt: skip
        insert_reviews(tx, new)
        if went is None:
            seen_again(tx, known, run=run)
            close_unseen(tx, run=run, scope="records", states=LEAVE, at=at)
        else:
            close(tx, {pair_index(keys, sides) for sides, _ in _pairs_of(went)} - pairs.keys(), states=LEAVE, at=at)
        tx.add(ReviewActRow(act="taken_in", organisation="", person="", code=run, event_id="", at=at))
    return len(new)


def _still_doubted(tx: Reading, keys: Keys, found: pa.Table, row: ReviewRow) -> bool:
    """Whether two persons are not severed since; or a run found two records uncertain, whichever is left."""
    sides = open_sides(keys, row.sealed, row.key_wrapped, row.id)
    if row.scope == "persons":
        return not severs(tx, keys, sides)
    refs = pa.array([ref for _, _, ref in sides.records], pa.string())
    near = found.filter(pc.and_(*(pc.is_in(found[f"record_ref_{side}"], value_set=refs) for side in "lr")))
    return any(one == sides for one, _ in _pairs_of(near))


def _unlike(some: pa.Table, others: pa.Table) -> pa.Table:
    """The pairs of a run that another did not find, or for another reason."""
    ours, theirs = (pc.binary_join_element_wise(*(table[name] for name in PAIR), "|") for table in (some, others))
    return some.filter(pc.invert(pc.is_in(ours, value_set=theirs)))


def _pairs_of(found: pa.Table) -> Iterable[tuple[Sides, str]]:
    for row in found.select(PAIR).to_pylist():
        left, right = ((row[f"agency_{s}"], row[f"flow_{s}"], row[f"record_ref_{s}"]) for s in "lr")
        yield Sides.of([left], [right]), row["reason"]


def _proposers(tx: Reading, rows: Sequence[ReviewRow]) -> dict[str, str]:
    """For each review that waits for a second reviewer: who decided."""
    ids = [row.override for row in rows if row.state == "second" and row.override]
    return {row.review: row.person for row in tx.all(OverrideRow, id=ids) if row.review} if ids else {}
