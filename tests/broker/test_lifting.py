"""Whoever was erased is known again only if two people say so, from then on alone, and whatever is put back."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.events import SECTIONS
from broker import erasure, lifting
from broker.errors import Malformed, NotAllowed, NotFound, StoreUnavailable, WrongState
from broker.keys import Keys
from broker.store import Store
from broker.store.erasures import Barred, ErasureRow, LiftRow, TombstoneRow
from broker.store.log import EventRow
from broker.store.tombstones import Lifted, Tombstone, Tombstones
from broker.trail import Trail
from tests.broker.test_erasure import AT, CHILD, RECORD, SIBLING, erased, kept, looked, officer

__all__ = ["kept"]
HOUR = timedelta(hours=1)
LATER = AT + HOUR


def proposed(store: Store, trail: Trail, keys: Keys, *ids: str, alone: bool = False) -> lifting.Lift:
    return lifting.propose(
        store, trail, keys, officer(), ids=ids, reason="known_again", alone=alone, at=LATER
    ).answer  # fmt: skip


def out(store: Store, keys: Keys, subject: str, at: datetime) -> bool:
    with store.reading() as reading:
        return Barred.of(reading).out(keys.subject_index(subject), at)


def test_two_people_lift_what_two_people_erased_and_the_log_says_so_of_nobody(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones
) -> None:
    with pytest.raises(WrongState, match="not erased"):
        proposed(store, trail, keys, RECORD)
    erased(store, trail, keys, kept, CHILD, RECORD)
    for caller in (officer(role="OPERATOR"), officer("")):
        with pytest.raises(NotAllowed):
            lifting.propose(store, trail, keys, caller, ids=[RECORD], reason="known_again", at=LATER)
    with pytest.raises(Malformed):
        lifting.propose(store, trail, keys, officer(), ids=[RECORD], reason="because", at=LATER)
    one = proposed(store, trail, keys, RECORD)
    assert (one.state, one.ids) == ("proposed", 2)  # every id that was erased with it
    with pytest.raises(NotAllowed):
        lifting.confirm(store, trail, kept, officer(), lift=one.lift, at=LATER)
    assert out(store, keys, RECORD, LATER)
    done = lifting.confirm(store, trail, kept, officer("ig-2"), lift=one.lift, at=LATER).answer
    assert (done.state, done.decided_by) == ("lifted", "ig-2")
    assert not out(store, keys, RECORD, LATER)
    assert out(store, keys, RECORD, LATER - timedelta(seconds=1))  # what was sent before stays out
    for again in (lambda: lifting.confirm(store, trail, kept, officer("ig-3"), lift=one.lift, at=LATER),
                  lambda: lifting.refuse(store, trail, officer("ig-3"), lift=one.lift, reason="not_needed", at=LATER),
                  lambda: proposed(store, trail, keys, RECORD)):  # fmt: skip
        with pytest.raises(WrongState):
            again()
    with pytest.raises(NotFound):
        lifting.confirm(store, trail, kept, officer("ig-2"), lift="0" * 32, at=LATER)
    with store.reading() as reading:
        said = [row for row in reading.all(EventRow, order=["seq"]) if row.type.startswith("subject.lift")]
        assert len(reading.all(TombstoneRow)) == 2  # the erasure stays told
    assert [row.type for row in said] == ["subject.lift_proposed", "subject.lifted"]
    openings = [str(trail.opening(row.event_id, show=SECTIONS).to_json()) for row in said]
    for subject in (CHILD, RECORD):
        assert not any(subject in one or keys.subject_index(subject) in one for one in openings)
    assert [one.state for one in lifting.lifts(store, officer())] == ["lifted"]

    erased(store, trail, keys, kept, RECORD)  # at the very hour of the first erasure: the lift still holds
    later = erasure.propose(
        store, trail, keys, officer(), ids=[RECORD], authority="court_order", at=LATER + HOUR
    ).answer
    erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=later.erasure, at=LATER + HOUR)
    assert out(store, keys, RECORD, LATER + 2 * HOUR)  # erased anew, and only that record


def test_one_id_alone_is_lifted_and_a_refusal_leaves_all_as_it_was(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones
) -> None:
    erased(store, trail, keys, kept, CHILD, RECORD)
    first = proposed(store, trail, keys, RECORD)
    with pytest.raises(Malformed):
        lifting.refuse(store, trail, officer("ig-2"), lift=first.lift, reason="because", at=LATER)
    refused = lifting.refuse(store, trail, officer(), lift=first.lift, reason="wrong_subject", at=LATER).answer
    assert (refused.state, refused.refused) == ("refused", "wrong_subject")
    assert out(store, keys, RECORD, LATER)
    assert kept.lifts() == ()
    alone = proposed(store, trail, keys, RECORD, alone=True)
    lifting.confirm(store, trail, kept, officer("ig-2"), lift=alone.lift, at=LATER)
    assert (out(store, keys, RECORD, LATER), out(store, keys, CHILD, LATER)) == (False, True)


def test_a_lift_outlives_a_restore_and_does_not_keep_an_erasure_from_being_done_again(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones, tmp_path: Path
) -> None:
    """A database that knows of neither; one that knows the proposal; a file that was lost, or can't be written."""
    erased(store, trail, keys, kept, CHILD, RECORD)
    one = proposed(store, trail, keys, RECORD)
    kept.path.rename(away := tmp_path / "away")
    kept.path.mkdir()
    with pytest.raises(StoreUnavailable):
        lifting.confirm(store, trail, kept, officer("ig-2"), lift=one.lift, at=LATER)
    assert out(store, keys, RECORD, LATER)
    kept.path.rmdir()
    away.rename(kept.path)
    lifting.confirm(store, trail, kept, officer("ig-2"), lift=one.lift, at=LATER)
    who = {"organisation": "northshire"}

    with store.transaction() as tx:  # as it was before the second person's word
        for row in tx.all(LiftRow):
            row.state, row.decided_by, row.decided_at = "proposed", "", None
            tx.add(row)
    assert [lifting.replay(store, trail, kept, who=who, at=LATER + HOUR) for _ in "12"] == [1, 0]
    assert not out(store, keys, RECORD, LATER)

    with store.transaction() as tx:  # as it was before the first: neither the erasure nor the lift is known
        tx.delete(*tx.all(LiftRow))
        tx.delete(*tx.all(TombstoneRow)) if store.sqlite else None
    assert lifting.replay(store, trail, kept, who=who, at=LATER + HOUR) == 1
    erasure.replay(store, trail, keys, kept, who=who, at=LATER + HOUR)
    assert (out(store, keys, RECORD, AT), out(store, keys, RECORD, LATER)) == (True, False)

    kept.path.unlink()
    erasure.replay(store, trail, keys, kept, who=who, at=LATER + HOUR)
    lifting.replay(store, trail, kept, who=who, at=LATER + HOUR)
    assert [(len(kept.read()), len(each.indexes)) for each in kept.lifts()] == [(1, 2)]
    assert kept.lifts()[0].at == LATER


hours = st.lists(st.integers(0, 9).map(lambda hour: AT + hour * HOUR), max_size=4).map(sorted)


@given(hours, hours, st.integers(0, 9).map(lambda hour: AT + hour * HOUR))
def test_what_is_taken_in_is_let_in_if_every_erasure_was_lifted_before(
    erasures: list[datetime], lifts: list[datetime], taken_in: datetime
) -> None:
    barred = Barred({"i": erasures} if erasures else {}, {"i": lifts} if lifts else {})
    oracle = all(any(gone <= lift <= taken_in for lift in lifts) for gone in erasures)
    assert barred.out("i", taken_in) is not oracle
    assert not barred.out(SIBLING, datetime(2030, 1, 1, tzinfo=UTC))


def test_an_erasure_that_was_dated_before_a_night_began_and_committed_after_is_seen_by_the_next() -> None:
    begun = AT
    for ago, lifted, seen in (
        (timedelta(0), False, True), (timedelta(0), True, True), (timedelta(minutes=59), False, True),
        (timedelta(minutes=59), True, False), (timedelta(minutes=61), False, False),
    ):  # fmt: skip
        barred = Barred({"i": [begun - ago]}, {"i": [begun]} if lifted else {})
        assert barred.since(begun) == (frozenset("i") if seen else frozenset()), (ago, lifted)


class Meanwhile(Tombstones):
    """While one decides, and has not committed yet, another does too."""

    def __init__(self, data_dir: Path, another: Callable[[], object]) -> None:
        super().__init__(data_dir)
        self.said: list[str] = []

        def run() -> None:
            try:
                another()
                self.said.append("done")
            except WrongState as wrong:
                self.said.append(str(wrong))

        self.other = threading.Thread(target=run)

    def append(self, one: Tombstone | Lifted) -> None:
        super().append(one)
        self.other.start()
        self.other.join(0.3)
        assert self.said == []  # it waits


def test_of_two_who_decide_at_once_one_finds_it_decided(store: Store, trail: Trail, keys: Keys, tmp_path: Path) -> None:
    looked(store, trail, CHILD)
    one = erasure.propose(store, trail, keys, officer(), ids=[CHILD], authority="court_order", at=AT).answer
    kept = Meanwhile(
        tmp_path,
        lambda: erasure.refuse(store, trail, officer("ig-3"), erasure=one.erasure, reason="wrong_subject", at=AT),
    )
    erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=one.erasure, at=AT)
    kept.other.join(10)
    assert kept.said == ["this erasure is erased"]
    lift = lifting.propose(store, trail, keys, officer(), ids=[CHILD], reason="known_again", at=AT).answer.lift
    kept = Meanwhile(
        tmp_path, lambda: lifting.refuse(store, trail, officer("ig-3"), lift=lift, reason="not_needed", at=AT)
    )
    lifting.confirm(store, trail, kept, officer("ig-2"), lift=lift, at=AT)
    kept.other.join(10)
    assert kept.said == ["this lift is lifted"]


class CommitLost(Tombstones):
    """The database is gone once the tombstone is kept."""

    def append(self, one: Tombstone | Lifted) -> None:
        super().append(one)
        raise ConnectionError


@pytest.mark.parametrize("then", ["refused", "held", "left"])
def test_an_erasure_whose_commit_was_lost_is_carried_out_unless_people_decided_otherwise(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path, then: str
) -> None:
    looked(store, trail, CHILD)
    one = erasure.propose(store, trail, keys, officer(), ids=[CHILD], authority="court_order", at=AT).answer
    with pytest.raises(ConnectionError):
        erasure.approve(store, trail, keys, CommitLost(tmp_path), officer("ig-2"), erasure=one.erasure, at=AT)
    if then == "refused":
        erasure.refuse(store, trail, officer("ig-3"), erasure=one.erasure, reason="wrong_subject", at=AT)
    elif then == "held":
        erasure.hold(store, trail, keys, officer("ig-3"), ids=[CHILD], reason=sorted(erasure.HOLDS)[0], at=AT)
    carried_out = erasure.replay(store, trail, keys, Tombstones(tmp_path), who={"organisation": "host"}, at=AT)
    assert carried_out == (1 if then == "left" else 0)
    with store.reading() as reading:
        [row] = reading.all(ErasureRow, id=one.erasure)
    assert row.state == {"refused": "refused", "held": "proposed", "left": "erased"}[then]


@pytest.mark.parametrize("then", ["refused", "left"])
def test_a_lift_whose_commit_was_lost_is_carried_out_unless_it_was_refused_since(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path, then: str
) -> None:
    erased(store, trail, keys, Tombstones(tmp_path), CHILD)
    one = proposed(store, trail, keys, CHILD)
    with pytest.raises(ConnectionError):
        lifting.confirm(store, trail, CommitLost(tmp_path), officer("ig-2"), lift=one.lift, at=LATER)
    if then == "refused":
        lifting.refuse(store, trail, officer("ig-3"), lift=one.lift, reason="not_needed", at=LATER)
    done = lifting.replay(store, trail, Tombstones(tmp_path), who={"organisation": "host"}, at=LATER)
    assert (done, out(store, keys, CHILD, LATER)) == ((0, True) if then == "refused" else (1, False))
