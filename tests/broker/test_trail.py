"""Nothing leaves before its entry is under a signed checkpoint, and nothing acknowledged is ever lost."""

import json
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import text

from audit.checkpoint import SignedCheckpoint
from audit.events import SHOWN_TO_ASKER, Event, Leaf
from audit.merkle import consistency_proof, verify_consistency
from audit.policy import Policy
from audit.sequencer import Pending, advance, take_over
from audit.signer import Growth
from audit.tiles import TileHashes, bundles_of, tiles_of
from audit.verify import LogFolder, fsck
from broker.errors import Conflict, EventTooLarge, LogUnavailable, NotFound, Undecipherable
from broker.keys import Keys
from broker.signing import RemoteSigners, SignerFolder
from broker.store import Store
from broker.store.log import CheckpointRow, EntryRow, EventRow, OutboxRow, SubjectRow
from broker.store.roles import SEQUENCER
from broker.store.sequence import SqlTiles, head_of, newest_checkpoint, sequence, write
from broker.store.sessions import SpentTokenRow
from broker.trail import EntryRef, Trail, new_event_id
from tests.builders_signer import log_key, opened, policy_text

ORIGIN = "broker.example/audit/2026"
AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def an_event(**changes: object) -> Event:
    parts: dict[str, object] = {
        "id": new_event_id(),
        "type": "search.authorised",
        "who": {"organisation": "northshire-council", "person": "p-17", "role": "MASH_ANALYST"},
        "what": {"outcome": "shown"},
        "why": {"purpose": "S47", "case": "c" * 64},
        "subjects": ["person-1"],
        "detail": {"hidden": ["person-2"]},
    }
    return Event(**(parts | changes))  # type: ignore[arg-type]


def recorded(store: Store, trail: Trail, event: Event | None = None, **more: object) -> EntryRef:
    with store.transaction() as tx:
        return trail.record(tx, event or an_event(), **more)  # type: ignore[arg-type]


def policy_of(store: Store) -> Policy:
    return Policy.parse(policy_text(store).encode())


def published(store: Store, folder: Path) -> LogFolder:
    """The public log written out as an agency would fetch it."""
    with store.reading() as reading:
        newest = newest_checkpoint(reading, ORIGIN)
        assert newest is not None
        folder.mkdir()
        (folder / "checkpoint").write_bytes(newest.note)
        for tile in (*tiles_of(newest.size), *bundles_of(newest.size)):
            path = folder / tile.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(SqlTiles(reading, ORIGIN).read(tile))
    return LogFolder(folder)


def test_a_receipt_proves_the_event_and_never_opens_what_was_hidden(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    entry = recorded(store, trail, about=["person-1", "person-2"])
    receipt = trail.receipt(entry)
    receipt.verify(policy_of(store))
    assert receipt.opening.withheld == ("detail",)
    assert "person-2" not in json.dumps(receipt.to_json())
    seen = fsck(published(store, tmp_path / "log"), policy_of(store))
    assert seen.facts["entries"] == 1


def test_what_is_stored_beside_the_leaf_is_searchable_by_code_and_otherwise_sealed(
    store: Store, trail: Trail, keys: Keys
) -> None:
    event = an_event(detail={"reason": "canary-reason"})
    trail.receipt(recorded(store, trail, event, about=["person-1"], blobs={"decision/icb": b"canary-blob"}))
    with store.reading() as reading:
        row = reading.one(EventRow, event_id=event.id)
        subject = reading.one(SubjectRow)
    assert row is not None
    assert (row.org, row.actor_ref, row.purpose, row.outcome) == ("northshire-council", "p-17", "S47", "shown")
    assert subject is not None
    assert subject.idx_hmac == keys.subject_index("person-1") != "person-1"
    assert b"canary" not in (row.detail or b"") + (row.sections or b"")
    assert trail.blob(event.id, "decision/icb") == b"canary-blob"
    assert trail.opening(event.id, show=("detail",)).body("detail") == {"reason": "canary-reason"}
    with pytest.raises(NotFound):
        trail.opening(new_event_id(), show=SHOWN_TO_ASKER)


def test_a_rollback_leaves_no_entry(store: Store, trail: Trail) -> None:
    with pytest.raises(RuntimeError), store.transaction() as tx:
        trail.record(tx, an_event())
        raise RuntimeError
    assert trail.unsequenced() == 0
    assert trail.advance_pending() == 0


def test_the_act_and_its_event_are_kept_together(store: Store, trail: Trail) -> None:
    with store.transaction() as tx:
        tx.add(SpentTokenRow(issuer="a", use="work", jti_sha256="x", expires_at=AT))
        entry = trail.record(tx, an_event())
    with store.reading() as reading:
        assert reading.one(SpentTokenRow, jti_sha256="x") is not None
        assert reading.one(OutboxRow, event_id=entry.event_id) is not None
    assert trail.receipt(entry).proof.index == 0
    assert trail.unsequenced() == 0


def test_one_idempotency_key_logs_once(store: Store, trail: Trail) -> None:
    recorded(store, trail, idempotency_key="k")
    with pytest.raises(Conflict):
        recorded(store, trail, idempotency_key="k")
    assert trail.advance_pending() == 1


def test_an_event_over_8_kib_is_refused_when_it_is_made(store: Store, trail: Trail) -> None:
    with pytest.raises((EventTooLarge, ValueError)):
        recorded(store, trail, an_event(detail={"much": "x" * 9000}))


def test_time_in_the_log_never_runs_back(store: Store, trail: Trail) -> None:
    for hour in (12, 9, 15):
        recorded(store, trail, at=AT.replace(hour=hour))
    trail.advance_pending()
    with store.reading() as reading:
        times = [row.t_ms for row in reading.all(EventRow, order=("seq",))]
    assert times == sorted(times)
    assert times[0] == times[1] < times[2]


def test_each_checkpoint_is_a_growth_of_the_last(store: Store, trail: Trail, keys: Keys) -> None:
    for count in (1, 3, 300, 7):
        for _ in range(count):
            recorded(store, trail)
        trail.advance_pending()
    with store.reading() as reading:
        rows = reading.all(CheckpointRow, order=("size",))
        notes = [SignedCheckpoint.parse(row.note.decode()) for row in rows]
        hashes = TileHashes(SqlTiles(reading, ORIGIN), 311)
        proofs = {
            (old.checkpoint.size, new.checkpoint.size): consistency_proof(
                hashes, old.checkpoint.size, new.checkpoint.size
            )
            for old, new in pairwise(notes)
        }
    assert [note.checkpoint.size for note in notes][-4:] == [1, 4, 304, 311]
    for old, new in pairwise(notes):
        sizes = (old.checkpoint.size, new.checkpoint.size)
        verify_consistency(*sizes, old.checkpoint.root, new.checkpoint.root, proofs[sizes])
        assert new.signed_by(log_key(store))


def test_sixteen_writers_with_rollbacks_leave_a_dense_log(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    trail.start()
    acknowledged: list[str] = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(6):
            try:
                with store.transaction() as tx:
                    entry = trail.record(tx, an_event())
                    tx.add(SpentTokenRow(issuer="a", use="work", jti_sha256=entry.event_id, expires_at=AT))
                    if chance.random() < 0.3:
                        raise RuntimeError
            except RuntimeError:
                continue
            trail.receipt(entry, timeout=30)
            acknowledged.append(entry.event_id)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trail.stop()
    with store.reading() as reading:
        entries = reading.all(EntryRow, order=("seq",))
        rows = reading.all(SpentTokenRow)
    assert [entry.seq for entry in entries] == list(range(len(acknowledged)))
    assert {entry.event_id for entry in entries} == set(acknowledged) == {row.jti_sha256 for row in rows}
    fsck(published(store, tmp_path / "log"), policy_of(store))


def test_of_two_sequencers_one_writes_and_the_other_finds_nothing_or_is_stopped(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    other = Trail(store, keys, opened(store, tmp_path))
    for _ in range(60):
        recorded(store, trail)
    threads = [threading.Thread(target=each.advance_pending) for each in (trail, other) * 4]
    for thread in threads:
        thread.start()
    for _ in range(20):
        recorded(store, other)
    for thread in threads:
        thread.join()
    assert other.advance_pending() == 80
    assert trail.broken() is None
    assert other.broken() is None
    seen = fsck(published(store, tmp_path / "log"), policy_of(store))
    assert seen.facts["entries"] == 80


def test_a_sequencer_that_slept_while_another_worked_writes_nothing(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    entry = recorded(store, trail)
    with store.reading() as reading:  # what the sleeper had in hand
        head, waiting = head_of(reading, ORIGIN), reading.all(OutboxRow)
        assert head is not None
        step = advance(
            head, [Pending(row.event_id, Leaf(row.at_ms, row.commitment)) for row in waiting], SqlTiles(reading, ORIGIN)
        )
    trail.receipt(entry)
    recorded(store, trail)
    with pytest.raises((LogUnavailable, Conflict)), store.transaction() as tx:
        write(tx, ORIGIN, step, {row.event_id: row.position for row in waiting if row.position})
    assert trail.advance_pending() == 2
    fsck(published(store, tmp_path / "log"), policy_of(store))


def test_a_head_that_another_has_taken_over_is_not_moved(store: Store, trail: Trail) -> None:
    recorded(store, trail)
    with store.reading() as reading:
        head, waiting = head_of(reading, ORIGIN), reading.all(OutboxRow)
        assert head is not None
        stale = advance(
            take_over(head), [Pending(row.event_id, Leaf(row.at_ms, row.commitment)) for row in waiting],
            SqlTiles(reading, ORIGIN),
        )  # fmt: skip
    with pytest.raises(LogUnavailable), store.transaction() as tx:  # another epoch than the stored head's
        write(tx, ORIGIN, stale, {row.event_id: row.position for row in waiting if row.position})
    assert trail.advance_pending() == 1


def test_no_signature_no_answer(store: Store, trail: Trail, keys: Keys, tmp_path: Path) -> None:
    trail.receipt(recorded(store, trail))
    (tmp_path / "signer" / "2026" / "state.json").unlink()
    entry = recorded(store, trail)
    with pytest.raises(LogUnavailable):
        trail.receipt(entry, timeout=0.5)
    assert trail.broken() == "SignerRefused"
    with pytest.raises(LogUnavailable):  # and from now on nothing is even begun
        recorded(store, trail)
    with pytest.raises(LogUnavailable):
        opened(store, tmp_path)


def test_a_log_that_was_cut_gets_no_signature(store: Store, trail: Trail, keys: Keys, tmp_path: Path) -> None:
    for _ in range(3):
        recorded(store, trail)
    trail.advance_pending()
    triggers = ("audit_entry_no_delete", "audit_tile_no_delete", "audit_checkpoint_no_delete", "audit_head_no_delete")
    with store.engine.begin() as connection:  # somebody who owns the database
        for trigger in triggers:
            table = trigger.removesuffix("_no_delete")
            connection.execute(text(f"DROP TRIGGER {trigger}" + ("" if store.sqlite else f" ON {table}")))
            connection.execute(text(f"DELETE FROM {table}"))
    with pytest.raises(LogUnavailable):
        opened(store, tmp_path)


def test_a_forged_tile_stops_the_log_for_good(store: Store, trail: Trail) -> None:
    recorded(store, trail)
    trail.advance_pending()
    with store.engine.begin() as connection:  # somebody who owns the database
        connection.execute(text("DROP TRIGGER audit_tile_only_widens" + ("" if store.sqlite else " ON audit_tile")))
        connection.execute(text("UPDATE audit_tile SET data = :forged"), {"forged": b"\x07" * 32})
    entry = recorded(store, trail)
    with pytest.raises(LogUnavailable):
        trail.receipt(entry, timeout=0.5)
    assert trail.broken() == "HeadDisagrees"


def test_a_forged_tile_found_as_a_receipt_is_made_stops_the_log_for_good(
    store: Store, trail: Trail, keys: Keys
) -> None:
    entry = recorded(store, trail)
    recorded(store, trail)
    trail.advance_pending()
    with store.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_tile_only_widens" + ("" if store.sqlite else " ON audit_tile")))
        connection.execute(text("UPDATE audit_tile SET data = :forged"), {"forged": b"\x07" * 64})
    later = Trail(store, keys, trail.signers)
    with pytest.raises(LogUnavailable, match="not what was signed"):
        later.receipt(EntryRef(entry.event_id))
    assert later.broken() == "ReceiptInvalid"
    with pytest.raises(LogUnavailable):  # nothing more is taken in
        recorded(store, later)


def test_what_is_sequenced_and_not_yet_signed_has_no_receipt_and_breaks_nothing(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    trail.receipt(recorded(store, trail))
    entry = recorded(store, trail)
    with store.transaction(SEQUENCER) as tx:
        sequence(tx, keys)  # as many leaves are signed as stand before it
    alone = Trail(store, keys, RemoteSigners(tmp_path / "no.sock"))
    with pytest.raises(LogUnavailable):
        alone.receipt(EntryRef(entry.event_id), timeout=0)
    assert alone.broken() == "SignerUnavailable"
    trail.receipt(EntryRef(entry.event_id)).verify(policy_of(store))


def test_an_event_whose_id_another_has_in_the_log_is_told_so_at_once(store: Store, trail: Trail) -> None:
    first, other = an_event(), an_event()
    trail.receipt(recorded(store, trail, first))
    with pytest.raises(RuntimeError), store.transaction() as tx:
        sealed = trail.record(tx, other).sealed
        raise RuntimeError  # rolled back: the log has nothing of it
    with pytest.raises(Conflict, match="another event"):
        trail.receipt(EntryRef(first.id, sealed), timeout=0.5)
    trail.receipt(EntryRef(first.id)).verify(policy_of(store))


def test_what_is_signed_is_not_signed_again_unless_the_log_or_the_signer_says_otherwise(
    store: Store, keys: Keys, tmp_path: Path
) -> None:
    folder = opened(store, tmp_path)
    state = tmp_path / "signer" / "2026" / "state.json"
    asked: list[str] = []

    class Counted(SignerFolder):
        def sign(self, origin: str, newest: Callable[[int], Growth]) -> str:
            asked.append(origin)
            return super().sign(origin, newest)

    trail = Trail(store, keys, Counted(folder.folder))
    trail.receipt(recorded(store, trail))
    older = state.read_bytes()
    trail.receipt(recorded(store, trail))
    for _ in range(2):
        trail.advance_pending()
    assert len(asked) == 2
    elsewhere = Trail(store, keys, folder)
    elsewhere.receipt(recorded(store, elsewhere))
    assert (trail.advance_pending(), len(asked)) == (3, 3)  # another has grown it
    state.write_bytes(older)
    assert (trail.advance_pending(), len(asked)) == (3, 4)  # the signer has forgotten


def test_a_checkpoint_that_a_power_cut_took_from_the_database_is_there_again(store: Store, trail: Trail) -> None:
    entry = recorded(store, trail)
    trail.receipt(entry)
    signed = trail.signed()
    with store.engine.begin() as connection:
        on = "" if store.sqlite else " ON audit_checkpoint"
        connection.execute(text(f"DROP TRIGGER audit_checkpoint_no_delete{on}"))
        connection.execute(text("DELETE FROM audit_checkpoint WHERE size > 0"))
    trail.receipt(EntryRef(entry.event_id)).verify(policy_of(store))  # read from the tables
    again = trail.signed()
    assert signed is not None
    assert again is not None
    assert (again.size, again.note) == (signed.size, signed.note)


def test_a_signer_that_comes_back_lets_answers_go_again(store: Store, keys: Keys, tmp_path: Path) -> None:
    trail = Trail(store, keys, opened(store, tmp_path), linger_ms=0)
    recorded(store, trail)
    (tmp_path / "signer").rename(tmp_path / "away")
    with pytest.raises(LogUnavailable):
        trail.advance_pending()
    assert trail.broken() is not None
    (tmp_path / "away").rename(tmp_path / "signer")
    assert trail.advance_pending() == 1
    assert trail.broken() is None
    trail.receipt(recorded(store, trail))


def test_bodies_can_not_be_swapped_between_events(store: Store, trail: Trail) -> None:
    first, second = recorded(store, trail), recorded(store, trail)
    trail.advance_pending()
    with store.transaction() as tx:
        one, other = (tx.one(EventRow, event_id=entry.event_id) for entry in (first, second))
        assert one is not None
        assert other is not None
        one.detail, one.sections = other.detail, other.sections
        tx.add(one)
    with pytest.raises(Undecipherable):
        trail.opening(first.event_id, show=SHOWN_TO_ASKER)
