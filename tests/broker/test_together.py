"""Events that are alone in their transaction are written with their batch, and none of them harms another."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from audit.receipts import LogReceipt
from audit.verify import fsck
from broker.company import Company
from broker.errors import BrokerError, Conflict, LogUnavailable
from broker.keys import Keys
from broker.store import Store
from broker.store.event_keys import EventKeyRow
from broker.store.log import CheckpointRow, EntryRow, EventRow, OutboxRow, SubjectRow
from broker.store.sequence import lock_newest
from broker.trail import EntryRef, Trail, new_event_id
from tests.broker.test_trail import an_event, policy_of, published, recorded
from tests.builders_signer import opened

Asked = dict[str, LogReceipt | BrokerError]


def asked(trail: Trail, ids: list[str]) -> tuple[Asked, list[threading.Thread]]:
    """A receipt for each of these events, asked for at the same time; what each was given or told."""
    told: Asked = {}

    def ask(number: int, event_id: str) -> None:
        try:
            told[f"{number}"] = trail.receipt_for(an_event(id=event_id), about=["person-1"])
        except BrokerError as wrong:
            told[f"{number}"] = wrong

    threads = [threading.Thread(target=ask, args=one) for one in enumerate(ids)]
    for thread in threads:
        thread.start()
    return told, threads


def asked_in_one_batch(store: Store, trail: Trail, ids: list[str]) -> Asked:
    """The same, handed over while another holds the log's head; but for the first all are then of one batch."""
    with store.transaction() as tx:
        lock_newest(tx)
        told, threads = asked(trail, ids)
        time.sleep(0.3)
    for thread in threads:
        thread.join()
    return told


def test_reads_at_the_same_time_share_a_transaction_and_a_signature_and_each_has_its_receipt(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    trail.start()
    ids = [new_event_id() for _ in range(24)]
    told = asked_in_one_batch(store, trail, ids)
    trail.stop()
    for receipt in told.values():
        assert isinstance(receipt, LogReceipt)
        receipt.verify(policy_of(store))
        assert receipt.opening.withheld == ("detail",)
    with store.reading() as reading:
        assert {row.event_id for row in reading.all(EntryRow)} == set(ids)
        assert {row.event_id for row in reading.all(EventKeyRow)} == set(ids)
        assert len(reading.all(CheckpointRow)) <= 4
        assert {row.idx_hmac for row in reading.all(SubjectRow)} == {keys.subject_index("person-1")}
    assert fsck(published(store, tmp_path / "log"), policy_of(store)).facts["entries"] == 24
    assert trail.opening(ids[7], show=("detail",)).body("detail") == {"hidden": ["person-2"]}


def test_without_a_thread_whoever_asks_writes(store: Store, trail: Trail) -> None:
    event = an_event()
    receipt = trail.receipt_for(event, blobs={"beside": b"canary"})
    receipt.verify(policy_of(store))
    assert trail.blob(event.id, "beside") == b"canary"
    with store.reading() as reading:
        row = reading.one(EventRow, event_id=event.id)
    assert row is not None
    assert b"canary" not in (row.sections or b"") + (row.detail or b"")


def test_a_text_that_postgresql_does_not_keep_stops_nobody(store: Store, trail: Trail) -> None:
    strange = an_event(who={"organisation": "northshire-council", "person": "p\0"})
    assert trail.receipt_for(strange).opening.body("who") == strange.who
    trail.receipt(recorded(store, trail, an_event(who={"organisation": "o\0", "person": "p-17"})))
    assert trail.broken() is None


def test_what_waits_and_what_is_alone_are_of_one_batch(store: Store, trail: Trail) -> None:
    entry, alone = recorded(store, trail), an_event()
    receipts = [trail.receipt_for(alone), trail.receipt(entry)]
    assert [receipt.proof.index for receipt in receipts] == [1, 0]
    assert {receipt.size for receipt in receipts} == {2}


def test_an_event_that_is_there_already_is_refused_and_the_others_of_its_batch_are_not(
    store: Store, trail: Trail
) -> None:
    trail.start()
    taken = recorded(store, trail).event_id
    ids = [new_event_id(), *(taken if n % 5 == 2 else new_event_id() for n in range(12))]
    told = asked_in_one_batch(store, trail, ids)
    trail.stop()
    assert trail.broken() is None
    for number, event_id in enumerate(ids):
        answer = told[f"{number}"]
        assert isinstance(answer, Conflict if event_id == taken else LogReceipt), answer
    with store.reading() as reading:
        assert {row.event_id for row in reading.all(EntryRow)} == set(ids)
        assert reading.all(OutboxRow) == []


@pytest.mark.parametrize("opens", [True, False])
def test_what_waits_under_an_id_that_the_log_has_goes_in_under_a_fresh_one_and_the_log_says_so(
    store: Store, trail: Trail, keys: Keys, opens: bool
) -> None:
    doubled = an_event(what={"outcome": "refused"}, detail={"reason": "canary"})
    recorded(store, trail, doubled, about=["person-1"], blobs={"beside": b"blob"})
    with store.reading() as reading:
        (waits,) = (row.model_dump() for row in reading.all(OutboxRow))
    with store.transaction() as tx:  # as if both had been recorded at one moment
        tx.delete(*tx.all(OutboxRow))
        tx.flush()
        trail.record(tx, an_event(id=doubled.id))
    trail.advance_pending()
    with store.transaction() as tx:
        tx.insert(OutboxRow, waits if opens else {**waits, "sections": bytes(40)})
    behind = recorded(store, trail)
    trail.receipt(behind).verify(policy_of(store))
    trail.advance_pending()
    assert (trail.broken(), trail.unsequenced()) == (None, 0)
    with store.reading() as reading:
        rows = reading.all(EventRow, order=("seq",))
        fresh = next(row for row in rows if row.outcome == "refused")
        subjects = reading.all(SubjectRow, seq=fresh.seq)
    assert sorted(row.type for row in rows) == ["audit.degraded"] + ["search.authorised"] * 3
    assert [row.outcome for row in rows if row.type == "audit.degraded"] == ["renamed"]
    assert fresh.event_id != doubled.id
    assert [row.idx_hmac for row in subjects] == [keys.subject_index("person-1")]
    trail.receipt(EntryRef(doubled.id)).verify(policy_of(store))
    if opens:
        opening = trail.opening(fresh.event_id, show=("what", "detail"))
        assert opening.body("detail") == doubled.detail
        assert opening.body("what")["instead_of"] == doubled.id  # type: ignore[call-overload, index]
        assert trail.blob(fresh.event_id, "beside") == b"blob"


def test_what_waits_though_it_is_in_the_log_is_not_logged_twice(store: Store, trail: Trail) -> None:
    entry = recorded(store, trail)
    with store.reading() as reading:
        (waits,) = (row.model_dump() for row in reading.all(OutboxRow))
    trail.receipt(entry)
    with store.transaction() as tx:
        tx.insert(OutboxRow, waits)
    assert trail.receipt(recorded(store, trail)).proof.index == 1
    assert trail.unsequenced() == 0


def forge_a_tile(store: Store, _: Path) -> None:
    with store.engine.begin() as connection:  # somebody who owns the database
        on = "" if store.sqlite else " ON audit_tile"
        connection.execute(text(f"DROP TRIGGER audit_tile_only_widens{on}"))
        connection.execute(text("UPDATE audit_tile SET data = :forged"), {"forged": b"\x07" * 32})


def lose_the_state(_: Store, home: Path) -> None:
    (home / "signer" / "2026" / "state.json").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"), [(forge_a_tile, "HeadDisagrees"), (lose_the_state, "SignerRefused")], ids=["tile", "signer"]
)
def test_what_stops_the_log_for_good_refuses_all_who_wait_and_all_who_come(
    store: Store, trail: Trail, tmp_path: Path, harm: Callable[[Store, Path], None], reason: str
) -> None:
    trail.receipt(recorded(store, trail))
    harm(store, tmp_path)
    trail.start()
    told, threads = asked(trail, [new_event_id() for _ in range(6)])
    for thread in threads:
        thread.join(timeout=4)  # long before the receipts' own time is over
    assert [type(answer) for answer in told.values()] == [LogUnavailable] * 6
    assert trail.broken() == reason
    with pytest.raises(LogUnavailable):
        trail.receipt_for(an_event())
    trail.stop()


def test_a_table_that_is_away_refuses_and_once_it_is_back_answers_go_again(store: Store, trail: Trail) -> None:
    trail.start()
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_subject RENAME TO away"))
    with pytest.raises(LogUnavailable):
        trail.receipt_for(an_event(), about=["person-1"])
    assert trail.broken() is not None
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO audit_subject"))
    until = time.monotonic() + 10
    while trail.broken() is not None and time.monotonic() < until:
        time.sleep(0.1)
    receipt = trail.receipt_for(an_event(), about=["person-1"])
    assert receipt.proof.index == 0  # what was refused is nowhere
    trail.stop()


def test_without_the_signer_an_answer_waits_as_long_as_it_may_and_its_event_is_in_the_log(
    store: Store, keys: Keys, tmp_path: Path
) -> None:
    trail = Trail(store, keys, opened(store, tmp_path), seconds=0.5)
    (tmp_path / "signer").rename(tmp_path / "away")
    event = an_event()
    with pytest.raises(LogUnavailable):
        trail.receipt_for(event)
    (tmp_path / "away").rename(tmp_path / "signer")
    trail.receipt(EntryRef(event.id)).verify(policy_of(store))


@pytest.mark.parametrize("running", [True, False])
def test_what_another_process_sequenced_has_its_receipt_here(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path, running: bool
) -> None:
    other = Trail(store, keys, opened(store, tmp_path))
    if running:
        trail.start()
        with store.transaction() as tx:
            lock_newest(tx)  # ours must wait
            time.sleep(0.05)
            entries = [trail.record(tx, an_event()) for _ in range(3)]
    else:
        entries = [recorded(store, trail) for _ in range(3)]
    assert other.advance_pending() == 3
    recorded(store, other)
    other.advance_pending()
    for number, entry in enumerate(entries):
        receipt = trail.receipt(entry)
        receipt.verify(policy_of(store))
        assert receipt.proof.index == number
        assert "person-2" not in json.dumps(receipt.to_json())
    trail.stop()


def test_two_processes_that_read_at_the_same_time_make_one_log(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    both = (trail, Trail(store, keys, opened(store, tmp_path)))
    for each in both:
        each.start()
    ids = [[new_event_id() for _ in range(10)] for _ in both]
    started = [asked(each, its) for each, its in zip(both, ids, strict=True)]
    for told, threads in started:
        for thread in threads:
            thread.join()
        for receipt in told.values():
            assert isinstance(receipt, LogReceipt), receipt
            receipt.verify(policy_of(store))
    for each in both:
        each.stop()
    with store.reading() as reading:
        assert [row.seq for row in reading.all(EntryRow, order=("seq",))] == list(range(20))
    assert fsck(published(store, tmp_path / "log"), policy_of(store)).facts["entries"] == 20


def test_a_batch_waits_for_company_only_where_the_last_had_some() -> None:
    company = Company(seconds=0.2)

    def waited() -> float:
        began = time.monotonic()
        company.wait(5)
        return time.monotonic() - began

    company.come()
    assert waited() < 0.1
    company.expect(3)
    company.come()
    assert 0.15 < waited() < 1
    for _ in range(3):
        company.come()
    assert waited() < 0.1
    began = time.monotonic()
    company.wait(0.05)  # nobody comes
    assert time.monotonic() - began < 0.15


def test_after_a_long_batch_those_who_come_back_and_those_who_came_meanwhile_go_together() -> None:
    company = Company(seconds=0.1)
    company.come()
    company.wait(5)
    company.come()  # while the batch of the first is on its way
    time.sleep(0.6)
    company.expect(1)
    began = time.monotonic()
    company.wait(5)
    assert 0.25 < time.monotonic() - began < 1  # half as long as that batch took
    company.expect(1)
    company.come()
    began = time.monotonic()
    company.wait(5)
    assert time.monotonic() - began < 0.1  # nobody came meanwhile
