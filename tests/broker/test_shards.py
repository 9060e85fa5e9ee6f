"""The log turns at the year, changes its key in the open, and begins anew where history was lost: nothing is hidden."""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from agreements.agreement import LONDON
from audit.checkpoint import Checkpoint, SignedCheckpoint, VerifierKey, sign
from audit.cli import auditor
from audit.events import Event, Leaf
from audit.folder import LogFolder
from audit.merkle import frontier_at
from audit.policy import Policy
from audit.receipts import LogReceipt
from audit.rotation import parse
from audit.sequencer import Head, Pending, advance
from audit.tiles import TileHashes, bundles_of, tiles_of
from audit.verify import fsck
from audit.witness import WitnessKey
from broker import clock, shards, witnesses
from broker.errors import LogUnavailable, WrongState
from broker.keys import Keys
from broker.signing import SignerFolder
from broker.store import Store
from broker.store.log import CosignatureRow, EntryRow, EventRow, HeadRow, OutboxRow
from broker.store.sequence import SqlTiles, head_of, newest_checkpoint, sequence, write
from broker.store.shards import ShardRow, every_shard
from broker.store.witnesses import enrolled
from broker.trail import EntryRef, Trail, new_event_id
from tests.broker.test_trail import an_event, recorded
from tests.builders_log import ALog, MemoryTiles, a_key, put
from tests.builders_signer import ORIGIN, opened, policy_text, stolen_key

BASE = "broker.example/audit"
WHO = {"organisation": "northshire", "person": "op-1"}
AT = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
MIDNIGHT = datetime(2027, 1, 1, tzinfo=UTC)
FINE, CHANGED, UNREADABLE, STALE, NO_QUORUM = 0, 1, 3, 4, 5


def published(store: Store, trail: Trail, folder: Path, origin: str = ORIGIN) -> Path:
    """A shard as an agency fetches it."""
    with store.reading() as reading:
        newest = newest_checkpoint(reading, origin)
        assert newest is not None
        tiles = SqlTiles(reading, origin)
        for tile in (*tiles_of(newest.size), *bundles_of(newest.size)):
            put(folder / tile.path, tiles.read(tile))
        put(folder / "checkpoint", newest.note)
    put(folder / "history", json.dumps(shards.history(trail, origin)).encode())
    return folder


def auditor_says(command: str, *more: object) -> tuple[int, str]:
    with TemporaryDirectory() as evidence:
        done = CliRunner().invoke(auditor, [command, *map(str, more), "--evidence", evidence])
    return done.exit_code, done.output


def types(store: Store, origin: str) -> list[str]:
    with store.reading() as reading:
        return [row.type for row in reading.all(EventRow, log_id=origin, order=("seq",))]


def grown(store: Store, trail: Trail, count: int = 5) -> None:
    for _ in range(count):
        recorded(store, trail)
    trail.advance_pending()


# --- the year ----------------------------------------------------------------------------------------------------------


def test_at_the_year_the_old_shard_ends_under_a_last_checkpoint_that_the_new_one_cites(
    store: Store, trail: Trail, tmp_path: Path
) -> None:
    entry = recorded(store, trail)
    before = trail.receipt(entry)
    waiting = recorded(store, trail)  # written before midnight, sequenced by the turn itself
    assert shards.turn(trail, BASE, who=WHO, at=AT) is None
    new = shards.turn(trail, BASE, who=WHO, at=MIDNIGHT)
    assert new is not None
    assert trail.origin == new.log_id == f"{BASE}/2027"
    assert types(store, ORIGIN) == ["search.authorised", "search.authorised", "log.closed"]
    assert types(store, new.log_id) == ["log.opened"]
    with store.reading() as reading:
        last = newest_checkpoint(reading, ORIGIN)
    assert last is not None
    final = SignedCheckpoint.parse(last.note.decode()).checkpoint
    assert (new.follows, new.follows_size, new.follows_root) == (ORIGIN, 3, final.root)
    policy = Policy.parse(policy_text(store).encode())
    assert len(policy.logs) == len({key.public for key in policy.logs}) == 2  # each shard under a key of its own
    for origin in (ORIGIN, new.log_id):
        fsck(LogFolder(published(store, trail, tmp_path / origin, origin)), policy)
    before.verify(policy)
    for old in (entry, waiting):  # an old event's receipt is still given, and holds
        assert trail.receipt(old).proof.signed.checkpoint.origin == ORIGIN
    after = trail.receipt(recorded(store, trail))
    after.verify(policy)
    assert (after.proof.signed.checkpoint.origin, after.proof.index) == (new.log_id, 1)
    (opened_,) = parse((tmp_path / new.log_id / "history").read_text(), new.log_id)
    assert opened_.what["follows"]["size"] == 3  # type: ignore[index, call-overload]
    closed = parse((tmp_path / ORIGIN / "history").read_text(), ORIGIN)[-1]
    assert closed.what["next"] == new.log_id
    assert closed.what["keys"] == [str(policy.logs[1])]


def test_a_closed_shard_takes_no_entry_and_gets_no_signature(store: Store, trail: Trail, tmp_path: Path) -> None:
    grown(store, trail)
    shards.turn(trail, BASE, who=WHO, at=MIDNIGHT)
    told = {each.origin: each for each in trail.signers.status()}
    assert (told[ORIGIN].closed, told[ORIGIN].size) == (True, 6)
    assert not told[f"{BASE}/2027"].closed
    grown(store, trail)
    with store.reading() as reading:
        head = head_of(reading, ORIGIN)
    assert head is not None
    assert head.size == 6


def test_of_two_processes_that_turn_at_once_one_does_and_no_entry_falls_between(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    other = Trail(store, keys, opened(store, tmp_path))
    done: list[object] = []
    writing = threading.Event()

    def write_on() -> None:
        writing.set()
        for _ in range(15):
            done.append(trail.receipt(recorded(store, trail), timeout=30))

    writer = threading.Thread(target=write_on)
    writer.start()
    writing.wait()
    turning = [
        threading.Thread(target=lambda each=each: shards.turn(each, BASE, who=WHO, at=MIDNIGHT))  # type: ignore[misc]
        for each in (trail, other)
    ]
    for thread in turning:
        thread.start()
    for thread in (*turning, writer):
        thread.join(60)
    trail.advance_pending()
    with store.reading() as reading:
        assert [row.number for row in every_shard(reading)] == [0, 1]
        entries = reading.all(EntryRow)
        assert reading.all(ShardRow)[0].closed_at == MIDNIGHT
    assert len(done) == 15
    assert len(entries) == 15 + 2
    policy = Policy.parse(policy_text(store).encode())
    for origin in (ORIGIN, f"{BASE}/2027"):
        fsck(LogFolder(published(store, trail, tmp_path / "out" / origin, origin)), policy)
    assert types(store, ORIGIN)[-1] == "log.closed"


def test_a_sequencer_that_slept_over_the_turn_writes_nothing_24(store: Store, trail: Trail) -> None:
    grown(store, trail)
    with store.reading() as reading:
        head = head_of(reading, ORIGIN)
    recorded(store, trail)
    assert head is not None
    from audit.events import Leaf
    from audit.sequencer import Pending, advance

    with store.reading() as reading:  # what the sleeper had in hand
        rows = reading.all(OutboxRow)
        step = advance(
            head, [Pending(r.event_id, Leaf(r.at_ms, r.commitment)) for r in rows], SqlTiles(reading, ORIGIN)
        )
    shards.turn(trail, BASE, who=WHO, at=MIDNIGHT)
    with pytest.raises(Exception, match=r"moved|key is there"), store.transaction() as tx:
        write(tx, ORIGIN, step, {row.event_id: row.position for row in rows if row.position})
    assert types(store, ORIGIN)[-1] == "log.closed"


def test_time_does_not_run_back_over_a_turn(store: Store, trail: Trail) -> None:
    recorded(store, trail, at=MIDNIGHT + timedelta(hours=2))  # a clock that was ahead
    shards.turn(trail, BASE, who=WHO, at=MIDNIGHT)
    recorded(store, trail, at=MIDNIGHT)
    trail.advance_pending()
    with store.reading() as reading:
        times = [row.t_ms for row in reading.all(EventRow, order=("log_id", "seq"))]
    assert times == sorted(times)


# --- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_changes_hands_in_the_open_and_auditors_follow_12(store: Store, trail: Trail, tmp_path: Path) -> None:
    grown(store, trail)
    state, policy, log = tmp_path / "state", tmp_path / "policy", tmp_path / "log"
    put(policy, policy_text(store).encode())
    check = ("--log", log, "--policy", policy, "--state", state, "--evidence", tmp_path / "evidence")
    published(store, trail, log)
    assert auditor_says("consistency", *check)[0] == FINE
    with pytest.raises(WrongState):
        shards.retire(trail, who=WHO, at=AT)
    for _ in range(2):  # twice does no harm
        shards.rotate(trail, who=WHO, at=AT)
    assert types(store, ORIGIN).count("key.rotated") == 1
    published(store, trail, log)
    assert auditor_says("consistency", *check)[0] == FINE  # under the old policy still
    put(policy, policy_text(store).encode())
    shards.retire(trail, who=WHO, at=AT + timedelta(days=7))
    grown(store, trail)
    published(store, trail, log)
    assert auditor_says("consistency", *check)[0] == FINE
    state.unlink()
    assert auditor_says("consistency", *check)[0] == FINE
    put(log / "history", json.dumps({"origin": ORIGIN, "entries": []}).encode())
    state.unlink()
    code, said = auditor_says("consistency", *check)
    assert (code, "no entry of the log hands over" in said) == (CHANGED, True)
    with store.reading() as reading:
        old, new = every_shard(reading)[0].keys
    assert old["until"] is not None
    assert new["until"] is None


def test_a_compromised_key_freezes_the_shard_at_a_checkpoint_that_a_quorum_signed_and_no_other(
    store: Store, trail: Trail
) -> None:
    keys = enrolled_witnesses(store, trail)
    grown(store, trail)
    bare = newest_note(store)
    grown(store, trail)
    foreign = sign(Checkpoint(ORIGIN, 5, b"\1" * 32), a_key(99))
    for note in (foreign, bare, cosigned(bare, keys[:1])):
        with pytest.raises(WrongState):
            shards.begin_anew(trail, BASE, compromised=True, witnessed=note, who=WHO, at=AT)
    witnessed = cosigned(bare, keys[:2])
    new = shards.begin_anew(trail, BASE, compromised=True, witnessed=witnessed, who=WHO, at=AT)
    kept = witnessed.checkpoint
    assert (new.log_id, new.follows_size, new.follows_root) == (f"{BASE}/2026-2", kept.size, kept.root)
    assert types(store, new.log_id) == ["log.opened", "key.compromised"]
    assert first_of(trail, new.log_id)["witnessed"] is True
    assert {each.origin: each.closed for each in trail.signers.status()} == {ORIGIN: True, new.log_id: False}
    assert policy_text(store).count("log ") == 1  # the old key is no longer to be trusted
    trail.receipt(recorded(store, trail)).verify_itself()


def test_a_log_without_witnesses_calls_nothing_witnessed(store: Store, trail: Trail) -> None:
    grown(store, trail)
    bare = newest_note(store)
    with pytest.raises(WrongState, match="too few witnesses"):
        shards.begin_anew(trail, BASE, compromised=True, witnessed=bare, who=WHO, at=AT)
    new = shards.begin_anew(trail, BASE, compromised=False, witnessed=bare, who=WHO, at=AT)
    assert (new.follows_size, first_of(trail, new.log_id)["witnessed"]) == (bare.checkpoint.size, False)


def test_lines_put_into_the_tables_by_hand_make_nothing_witnessed(store: Store, trail: Trail) -> None:
    keys = enrolled_witnesses(store, trail)
    grown(store, trail)
    note = newest_note(store)
    with store.transaction() as tx:
        for row in enrolled(tx):
            of_another = keys[0].cosign(replace(note.checkpoint, root=b"\1" * 32), at_s=1)
            tx.add(
                CosignatureRow(
                    log_id=ORIGIN, size=note.checkpoint.size, witness=row.id, t_s=1, line=of_another.line, first_t_s=1,
                    first_line=of_another.line,
                )
            )  # fmt: skip
    with store.reading() as reading:
        assert witnesses.served(reading, ORIGIN, "checkpoint.witnessed", at=AT) is not None
    new = shards.begin_anew(trail, BASE, compromised=True, who=WHO, at=AT)
    assert first_of(trail, new.log_id)["witnessed"] is False


def test_a_note_without_a_quorum_is_not_cited_beyond_what_was_signed_nor_of_another_tree_nor_before_what_a_quorum_has(
    store: Store, trail: Trail, tmp_path: Path
) -> None:
    keys = enrolled_witnesses(store, trail)
    grown(store, trail)
    older = newest_note(store)
    grown(store, trail)
    newest = newest_note(store)
    key, checkpoint = stolen_key(tmp_path), newest.checkpoint
    more = sign(Checkpoint(ORIGIN, checkpoint.size + 1, checkpoint.root), key)
    fork = sign(Checkpoint(ORIGIN, checkpoint.size, b"\1" * 32), key)
    short = sign(Checkpoint(ORIGIN, 3, b"\1" * 32), key)
    for note, why in ((more, "were signed"), (fork, "another tree"), (short, "another tree")):
        with pytest.raises(WrongState, match=why):
            shards.begin_anew(trail, BASE, compromised=False, witnessed=note, who=WHO, at=AT)
    with store.reading() as reading:
        logs = shards.log_keys(reading)
    witnesses.take(store, trail, cosigned(newest, keys[:2]).note.encode(), logs, who=WHO, at=AT)
    for compromised in (False, True):
        with pytest.raises(WrongState, match="a newer one"):
            shards.begin_anew(trail, BASE, compromised=compromised, witnessed=cosigned(older, keys[:2]), who=WHO, at=AT)
    assert [each.closed for each in trail.signers.status()] == [False]  # nothing was done
    new = shards.begin_anew(trail, BASE, compromised=False, witnessed=newest, who=WHO, at=AT)
    assert (new.follows_size, first_of(trail, new.log_id)["witnessed"]) == (newest.checkpoint.size, False)


def newest_note(store: Store) -> SignedCheckpoint:
    with store.reading() as reading:
        row = newest_checkpoint(reading, ORIGIN)
    assert row is not None
    return SignedCheckpoint.parse(row.note.decode())


def first_of(trail: Trail, origin: str) -> Mapping[str, Any]:
    """What the first entry of a shard says."""
    entries = parse(json.dumps(shards.history(trail, origin)), origin)
    return entries[0].what


def enrolled_witnesses(store: Store, trail: Trail, *, at: datetime = AT) -> list[WitnessKey]:
    keys = [WitnessKey(f"witness-{n}.example", a_key(100 + n)) for n in range(3)]
    for key in keys:
        witnesses.enrol(store, trail, str(key.verifier), "northshire-icb", who=WHO, at=at)
    return keys


def a_log_key(store: Store) -> VerifierKey:
    with store.reading() as reading:
        (key,) = shards.log_keys(reading)
    return key


def cosigned(note: SignedCheckpoint, keys: list[WitnessKey]) -> SignedCheckpoint:
    for key in keys:
        note = note.with_signature(key.cosign(note.checkpoint, at_s=int(AT.timestamp())))
    return note


@pytest.mark.parametrize("lines", [1, 2])
def test_what_one_witness_alone_has_signed_is_not_cited_as_witnessed(store: Store, trail: Trail, lines: int) -> None:
    keys = enrolled_witnesses(store, trail)
    grown(store, trail)
    with store.reading() as reading:
        logs = shards.log_keys(reading)
    note = cosigned(newest_note(store), keys[:lines])
    witnesses.take(store, trail, note.note.encode(), logs, who=WHO, at=AT)
    grown(store, trail)
    (standing,), _ = shards.standing(store, trail.signers)
    new = shards.begin_anew(trail, BASE, compromised=True, who=WHO, at=AT)
    if lines == 1:
        assert (standing.witnessed, new.follows_size) == (None, standing.size)
    else:
        assert (standing.witnessed, new.follows_size) == (note.checkpoint.size, note.checkpoint.size)


def test_after_a_compromise_receipts_of_before_hold_by_what_the_new_log_cites_and_later_ones_prove_nothing_13(
    store: Store, trail: Trail, tmp_path: Path
) -> None:
    keys = enrolled_witnesses(store, trail)
    grown(store, trail)
    before = trail.receipt(recorded(store, trail))
    note = cosigned(newest_note(store), keys[:2])
    later = trail.receipt(recorded(store, trail))
    new = shards.begin_anew(trail, BASE, compromised=True, witnessed=note, who=WHO, at=AT)
    after = trail.receipt(recorded(store, trail))
    logs, policy = tmp_path / "logs", tmp_path / "policy"
    published(store, trail, logs / "2026", ORIGIN)
    published(store, trail, logs / "2026-2", new.log_id)
    put(policy, policy_text(store).encode())

    def says(receipt: LogReceipt, log: Path = logs) -> list[tuple[int, str]]:
        put(tmp_path / "kept" / "one.json", receipt.dumps().encode())
        at = ("--log", log, "--policy", policy)
        return [auditor_says("inclusion", *at, "--event", tmp_path / "kept" / "one.json"),
                auditor_says("receipts", *at, "--receipts", tmp_path / "kept")]  # fmt: skip

    assert [code for code, _ in says(before) + says(after)] == [FINE] * 4
    assert f"entry {before.proof.index} of {ORIGIN}, {note.checkpoint.size} entries" in says(before)[0][1]
    for code, said in says(later):
        assert (code, "is to be doubted" in said) == (UNREADABLE, True)
    thiefs = ALog(key=stolen_key(tmp_path)).add(9)
    for code, said in says(thiefs.receipt(2)):  # whoever has the key gives out receipts of a tree of their own
        assert (code, "held another leaf" in said) == (CHANGED, True)
    for code, said in says(before, logs / "2026-2"):
        assert (code, "fetch its log too" in said) == (UNREADABLE, True)
    with store.reading() as reading:  # who demands witnesses is told that none has signed what cites it
        demanding = witnesses.policy_of(reading, shards.log_keys(reading))
    put(policy, demanding.text.encode())
    assert [code for code, _ in says(before)] == [NO_QUORUM] * 2
    put(policy, policy_text(store).encode())
    tile = next(path for path in (logs / "2026").glob("tile/0/**/*") if path.is_file())
    tile.write_bytes(bytes([tile.read_bytes()[0] ^ 1]) + tile.read_bytes()[1:])
    for code, said in says(before):
        assert (code, "are not those that" in said) == (CHANGED, True)


@pytest.mark.parametrize("event_type", ["log.opened", "log.discontinuity", "key.rotated"])
def test_a_log_vouches_for_no_past_that_it_cites_later_than_with_its_first_entry(
    store: Store, trail: Trail, tmp_path: Path, event_type: str
) -> None:
    grown(store, trail)
    invented = ALog(origin=f"{BASE}/2025").add(9)
    checkpoint = invented.signed().checkpoint
    follows = {"origin": checkpoint.origin, "size": 9, "root": base64.b64encode(checkpoint.root).decode()}
    event = Event(
        id=new_event_id(), type=event_type, who=WHO, what={"origin": ORIGIN, "follows": follows}, why={}, detail={}
    )
    with store.transaction() as tx:
        trail.record(tx, event)
    trail.advance_pending()
    published(store, trail, tmp_path / "logs" / "2026")
    invented.write(tmp_path / "logs" / "2025")
    put(tmp_path / "policy", policy_text(store).encode())
    put(tmp_path / "kept" / "one.json", invented.receipt(2).dumps().encode())
    at = ("--log", tmp_path / "logs", "--policy", tmp_path / "policy")
    assert auditor_says("inclusion", *at, "--event", tmp_path / "kept" / "one.json")[0] == CHANGED
    assert auditor_says("receipts", *at, "--receipts", tmp_path / "kept")[0] == CHANGED


def test_receipts_hold_over_two_compromises(store: Store, trail: Trail, tmp_path: Path) -> None:
    first = trail.receipt(recorded(store, trail))
    second = shards.begin_anew(trail, BASE, compromised=True, who=WHO, at=AT).log_id
    between = trail.receipt(recorded(store, trail))
    third = shards.begin_anew(trail, BASE, compromised=True, who=WHO, at=AT).log_id
    put(tmp_path / "policy", policy_text(store).encode())
    for number, receipt in enumerate((first, between, trail.receipt(recorded(store, trail)))):
        put(tmp_path / "kept" / f"{number}.json", receipt.dumps().encode())
    for origin in (ORIGIN, second, third):
        published(store, trail, tmp_path / "logs" / origin.rpartition("/")[2], origin)
    at = ("--log", tmp_path / "logs", "--policy", tmp_path / "policy", "--receipts", tmp_path / "kept")
    assert auditor_says("receipts", *at)[0] == FINE


@pytest.mark.parametrize("compromised", [True, False])
@pytest.mark.parametrize("given", [True, False], ids=["checkpoint given", "from the tables"])
def test_after_every_witness_was_removed_what_they_signed_together_is_cited_as_witnessed(
    store: Store, trail: Trail, compromised: bool, given: bool
) -> None:
    at = clock.now()
    keys = enrolled_witnesses(store, trail, at=at)
    grown(store, trail)
    note, logs = cosigned(newest_note(store), keys[:2]), (a_log_key(store),)
    witnesses.take(store, trail, note.note.encode(), logs, who=WHO, at=AT)
    grown(store, trail)
    alone = cosigned(newest_note(store), keys[:1])
    witnesses.take(store, trail, alone.note.encode(), logs, who=WHO, at=AT)
    for key in keys:
        witnesses.remove(store, trail, key.name, who=WHO, at=clock.now())
    grown(store, trail)
    ((standing,), _) = shards.standing(store, trail.signers)
    assert standing.witnessed == note.checkpoint.size
    last = newest_note(store)
    if compromised:
        for bare in (alone, last):
            with pytest.raises(WrongState, match="too few witnesses"):
                shards.begin_anew(trail, BASE, compromised=True, witnessed=bare, who=WHO, at=AT)
    new = shards.begin_anew(trail, BASE, compromised=compromised, witnessed=note if given else None, who=WHO, at=AT)
    assert (new.follows_size, new.follows_root) == (note.checkpoint.size, note.checkpoint.root)
    assert first_of(trail, new.log_id)["witnessed"] is True


# --- a database put back -----------------------------------------------------------------------------------------------


def put_back(store: Store, size: int) -> None:
    """The tables as a backup held them when the log had `size` entries: whoever owns the database can do that."""
    tables = ("audit_entry", "audit_event", "audit_tile", "audit_checkpoint")
    with store.reading() as reading:
        tiles = SqlTiles(reading, ORIGIN)
        frontier = frontier_at(TileHashes(tiles, size), size)
        kept = {(tile.level, tile.index): (tile.width, tiles.read(tile)) for tile in tiles_of(size)}
    with store.engine.begin() as connection:
        for table in tables:
            for act in ("delete", "update"):
                on = "" if store.sqlite else f" ON {table}"
                connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_no_{act}{on}"))
        on = "" if store.sqlite else " ON audit_head"
        connection.execute(text(f"DROP TRIGGER IF EXISTS audit_head_only_grows{on}"))
        for table, column in (("audit_entry", "seq"), ("audit_event", "seq"), ("audit_checkpoint", "size - 1")):
            connection.execute(text(f"DELETE FROM {table} WHERE {column} >= :size"), {"size": size})
        connection.execute(text("DELETE FROM audit_tile"))
        for (level, n), (width, data) in kept.items():
            connection.execute(
                text("INSERT INTO audit_tile VALUES (:log, :level, :n, :width, :data)"),
                {"log": ORIGIN, "level": level, "n": n, "width": width, "data": data},
            )
    with store.transaction() as tx:
        head = tx.one(HeadRow, log_id=ORIGIN)
        assert head is not None
        head.size, head.root, head.frontier = size, frontier.root, b"".join(frontier.hashes)
        tx.add(head)


@pytest.mark.parametrize("regrown", [0, 8], ids=["[7] cut", "[8] cut and regrown past it"])
def test_a_log_that_was_cut_is_refused_by_the_signer_and_found_by_the_auditor(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path, regrown: int
) -> None:
    grown(store, trail, 7)
    grown(store, trail, 5)
    state, policy, log = tmp_path / "state", tmp_path / "policy", tmp_path / "log"
    put(policy, policy_text(store).encode())
    check = ("--log", log, "--policy", policy, "--state", state, "--evidence", tmp_path / "evidence")
    assert auditor_says("consistency", *check[:4], "--state", state)[0] != FINE  # nothing fetched yet
    published(store, trail, log)
    assert auditor_says("consistency", *check)[0] == FINE
    put_back(store, 7)
    forger = Trail(store, keys, trail.signers)
    for _ in range(regrown):
        with store.transaction() as tx:
            forger.record(tx, an_event())
    with store.transaction() as tx:
        sequence(tx, trail.keys)
    with pytest.raises(LogUnavailable):
        forger.advance_pending()
    assert forger.broken() == "SignerRefused"
    with pytest.raises(LogUnavailable):  # for good: a later entry does not mend it
        forger.advance_pending()
    if not regrown:
        with pytest.raises(LogUnavailable, match="restore"):
            opened(store, tmp_path)
    # and had they the signer's key as well, whoever kept a checkpoint would find out
    with store.reading() as reading:
        head = head_of(reading, ORIGIN)
    assert head is not None
    note = sign(Checkpoint(ORIGIN, head.size, head.root), stolen_key(tmp_path)).note
    from broker.store.log import CheckpointRow

    with store.transaction() as tx:
        tx.add(CheckpointRow(log_id=ORIGIN, size=head.size, note=note.encode(), at=AT)) if regrown else None
    shutil.rmtree(log)
    published(store, trail, log)
    put(log / "checkpoint", note.encode())
    assert auditor_says("consistency", *check)[0] == CHANGED
    assert auditor_says("fsck", *check)[0] == CHANGED


def test_a_broker_does_not_start_on_a_log_of_the_same_size_that_is_not_the_one_that_was_signed(
    store: Store, trail: Trail, tmp_path: Path
) -> None:
    grown(store, trail, 9)
    opened(store, tmp_path)
    put_back(store, 6)
    for _ in range(3):  # and grown to its old size by other entries
        recorded(store, trail)
    with store.transaction() as tx:
        sequence(tx, trail.keys)
    with pytest.raises(LogUnavailable, match="not those that were signed"):
        opened(store, tmp_path)


def test_an_entry_rewritten_by_who_owns_the_database_is_found_though_every_hash_above_it_fits_35(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    grown(store, trail, 9)
    state, policy, log = tmp_path / "state", tmp_path / "policy", tmp_path / "log"
    put(policy, policy_text(store).encode())
    published(store, trail, log)
    check = ("--log", log, "--policy", policy, "--state", state)
    assert auditor_says("consistency", *check)[0] == FINE
    with store.reading() as reading:
        leaves = [Leaf.parse(row.leaf) for row in reading.all(EntryRow, order=["seq"])]
    leaves[4] = replace(leaves[4], commitment=b"\7" * 32)
    tiles = MemoryTiles()
    forged = advance(Head(), [Pending(f"event-{number}", leaf) for number, leaf in enumerate(leaves)], tiles)
    with store.engine.begin() as connection:
        for trigger, table in (("audit_entry_no_update", "audit_entry"), ("audit_tile_only_widens", "audit_tile"),
                               ("audit_head_only_grows", "audit_head")):  # fmt: skip
            connection.execute(text(f"DROP TRIGGER {trigger}" + ("" if store.sqlite else f" ON {table}")))
        leaf = {"leaf": leaves[4].text, "hash": forged.entries[4].leaf_hash}
        connection.execute(text("UPDATE audit_entry SET leaf = :leaf, leaf_hash = :hash WHERE seq = 4"), leaf)
        for tile, data in forged.tiles:
            where = {"data": data, "level": tile.level, "n": tile.index}
            connection.execute(text("UPDATE audit_tile SET data = :data WHERE level = :level AND n = :n"), where)
        frontier = {"root": forged.head.root, "frontier": b"".join(forged.head.frontier.hashes)}
        connection.execute(text("UPDATE audit_head SET root = :root, frontier = :frontier"), frontier)

    ((standing,), _) = shards.standing(store, trail.signers)  # what `broker log status` exits 1 for
    assert standing.faults
    grown_by = Trail(store, keys, trail.signers)
    with store.transaction() as tx:
        grown_by.record(tx, an_event())
    with pytest.raises(LogUnavailable):
        grown_by.advance_pending()
    assert grown_by.broken() == "SignerRefused"
    shutil.rmtree(log)
    published(store, trail, log)
    for command in ("consistency", "fsck"):
        assert auditor_says(command, *check)[0] == CHANGED


def test_a_database_put_back_goes_on_in_a_new_shard_that_says_what_was_lost_28(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    grown(store, trail, 6)
    grown(store, trail, 3)
    put_back(store, 6)
    restored = Trail(store, keys, trail.signers)
    ((standing,), wrong) = shards.standing(store, restored.signers)
    assert (standing.size, standing.lost, wrong) == (6, 3, None)
    new = shards.begin_anew(restored, BASE, compromised=False, who=WHO, at=AT)
    assert new.log_id == f"{BASE}/2026-2"
    assert types(store, new.log_id) == ["log.discontinuity"]
    (first,) = parse(json.dumps(shards.history(restored, new.log_id)), new.log_id)
    assert first.what["held"] == 6
    assert first.what["signed"]["size"] == 9  # type: ignore[index, call-overload]
    assert first.what["follows"]["size"] == 9  # type: ignore[index, call-overload]
    policy = Policy.parse(policy_text(store).encode())
    restored.receipt(recorded(store, restored)).verify(policy)
    assert restored.broken() is None
    with store.reading() as reading:
        old = reading.all(EntryRow, log_id=ORIGIN, seq=3)[0]
    restored.receipt(EntryRef(old.event_id)).verify(policy)  # what is still held keeps its receipts
    opened(store, tmp_path)  # and a start finds both in agreement


def test_the_same_backup_put_back_twice_goes_on_at_once_under_a_name_the_signer_has_not_signed(
    store: Store, trail: Trail, keys: Keys
) -> None:
    grown(store, trail, 6)
    trail.signers.open(f"{BASE}/2026-2")  # as one that was broken off before it wrote: its name is taken up
    assert shards.begin_anew(trail, BASE, compromised=False, who=WHO, at=AT).log_id == f"{BASE}/2026-2"
    put_back(store, 6)
    with store.engine.begin() as connection:  # the tables have never heard of what was begun
        for table in ("audit_head", "audit_entry", "audit_event", "audit_checkpoint", "audit_shard"):
            on = "" if store.sqlite else f" ON {table}"
            connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_no_delete{on}"))
            connection.execute(text(f"DELETE FROM {table} WHERE log_id <> :log"), {"log": ORIGIN})
        connection.execute(text("UPDATE audit_shard SET closed_at = NULL, frozen = false"))
    restored = Trail(store, keys, trail.signers)
    assert shards.begin_anew(restored, BASE, compromised=False, who=WHO, at=AT).log_id == f"{BASE}/2026-3"
    restored.receipt(recorded(store, restored)).verify(Policy.parse(policy_text(store).encode()))


def test_a_receipt_of_what_a_restore_lost_is_evidence_and_of_what_it_held_still_holds_28(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    grown(store, trail, 6)
    entries = [recorded(store, trail) for _ in range(3)]
    kept = tmp_path / "receipts"
    receipts = {entry: trail.receipt(entry) for entry in entries}
    with store.reading() as reading:
        held = reading.all(EntryRow, seq=2)[0].event_id
    receipts[EntryRef(held)] = trail.receipt(EntryRef(held))
    put_back(store, 6)
    restored = Trail(store, keys, trail.signers)
    new = shards.begin_anew(restored, BASE, compromised=False, who=WHO, at=AT)
    logs, policy = tmp_path / "logs", tmp_path / "policy"
    published(store, restored, logs / "2026", ORIGIN)
    put(policy, policy_text(store).encode())

    def says(receipt: LogReceipt, log: Path = logs) -> list[tuple[int, str]]:
        put(kept / "one.json", receipt.dumps().encode())
        at = ("--log", log, "--policy", policy)
        return [auditor_says("inclusion", *at, "--event", kept / "one.json"),
                auditor_says("receipts", *at, "--receipts", kept)]  # fmt: skip

    lost, found = receipts[entries[0]], receipts[EntryRef(held)]
    assert lost.proof.index == 6
    assert [code for code, _ in says(lost)] == [STALE, STALE]  # nobody has said that it was lost
    successor = published(store, restored, logs / "2026-2", new.log_id)
    for code, said in says(lost):
        assert (code, "the log lost this entry" in said, "keep it as evidence" in said) == (CHANGED, True, True)
    assert [code for code, _ in says(found)] == [FINE, FINE]
    assert says(lost, successor)[1][0] == CHANGED  # the old log's folder is not even needed
    forged = ALog(key=stolen_key(tmp_path)).add(9)
    assert [code for code, _ in says(forged.receipt(2))] == [CHANGED, CHANGED]  # another leaf than the one that is held
    assert [code for code, _ in says(forged.receipt(2), logs / "2026")] == [STALE, STALE]
    history = json.loads((successor / "history").read_text())
    put(successor / "history", json.dumps(history | {"entries": []}).encode())
    assert [code for code, _ in says(lost)] == [STALE, STALE]


def test_an_agencys_mirror_puts_back_the_leaves_and_the_log_goes_on_in_its_shard_28(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    grown(store, trail, 9)
    receipts = []
    for _ in range(3):
        receipts.append(trail.receipt(recorded(store, trail)))
        grown(store, trail, 99)
    mirror = published(store, trail, tmp_path / "mirror")
    put_back(store, 6)
    restored = Trail(store, keys, trail.signers)
    folder = LogFolder(mirror)
    assert shards.refill(restored, folder, folder.note(), who=WHO, at=AT) == 303
    with pytest.raises(WrongState):
        shards.refill(restored, folder, folder.note(), who=WHO, at=AT)
    policy = Policy.parse(policy_text(store).encode())
    restored.receipt(recorded(store, restored)).verify(policy)
    assert types(store, ORIGIN)[-2:] == ["log.discontinuity", "search.authorised"]
    shutil.rmtree(mirror)
    published(store, restored, mirror)
    put(tmp_path / "policy", policy_text(store).encode())
    for number, receipt in enumerate(receipts):  # what was handed out for lost events holds in the log that goes on
        put(tmp_path / "receipts" / f"{number}.json", receipt.dumps().encode())
    assert (
        auditor_says("receipts", "--receipts", tmp_path / "receipts", "--log", mirror, "--policy", tmp_path / "policy")[
            0
        ]
        == FINE
    )


def test_of_an_event_that_waited_in_the_older_copy_the_mirror_puts_back_the_leaf_and_the_copy_its_body_28(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    grown(store, trail, 9)
    entry = recorded(store, trail, about=["person-1"])
    with store.reading() as reading:
        waited = reading.one(OutboxRow, event_id=entry.event_id)
    assert waited is not None
    trail.receipt(entry)
    grown(store, trail, 3)
    mirror = LogFolder(published(store, trail, tmp_path / "mirror"))
    put_back(store, 6)
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_subject"))
        connection.execute(text("DELETE FROM audit_key WHERE event_id = :gone"), {"gone": entry.event_id})
    with store.transaction() as tx:
        tx.insert(OutboxRow, waited.model_dump())
    restored = Trail(store, keys, trail.signers)
    shards.refill(restored, mirror, mirror.note(), who=WHO, at=AT)
    assert restored.opening(entry.event_id, show=("detail",)).body("detail") == {"hidden": ["person-2"]}


def test_what_a_retired_key_signs_on_is_taken_neither_as_a_mirror_nor_as_a_checkpoint(
    store: Store, trail: Trail, tmp_path: Path
) -> None:
    thief = stolen_key(tmp_path)
    grown(store, trail)
    shards.rotate(trail, who=WHO, at=AT)
    shards.retire(trail, who=WHO, at=AT)
    with store.reading() as reading:
        head = head_of(reading, ORIGIN)
        assert head is not None
        newest = Checkpoint(ORIGIN, head.size, head.root)
        tiles = MemoryTiles()
        for tile in tiles_of(head.size):
            tiles.keep([(tile, SqlTiles(reading, ORIGIN).read(tile))])
    more = advance(head, [Pending("forged", Leaf(head.last_ms, b"\7" * 32))], tiles).head
    mirror = LogFolder(published(store, trail, tmp_path / "mirror"))
    forged = sign(Checkpoint(ORIGIN, more.size, more.root), thief)
    with pytest.raises(WrongState, match="newest key"):
        shards.refill(trail, mirror, forged.note, who=WHO, at=AT)
    with pytest.raises(WrongState, match="only an older key"):
        shards.begin_anew(trail, BASE, compromised=False, witnessed=sign(newest, thief), who=WHO, at=AT)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda mirror: (mirror / "tile/entries/000.p/9").unlink(), id="a bundle is missing"),
        pytest.param(
            lambda mirror: put(
                mirror / "tile/entries/000.p/9", (mirror / "tile/entries/000.p/9").read_bytes()[:-9] + b"AAAAAAAA\n"
            ),
            id="a lost leaf is another",
        ),
        pytest.param(lambda mirror: put(mirror / "checkpoint", b"no note\n"), id="the checkpoint is none"),
    ],
)
def test_a_mirror_that_is_not_this_log_changes_nothing(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    grown(store, trail, 9)
    mirror = published(store, trail, tmp_path / "mirror")
    put_back(store, 6)
    spoil(mirror)
    restored, folder = Trail(store, keys, trail.signers), LogFolder(mirror)
    with pytest.raises(WrongState):
        shards.refill(restored, folder, folder.note(), who=WHO, at=AT)
    with store.reading() as reading:
        head = head_of(reading, ORIGIN)
    assert head is not None
    assert head.size == 6


def test_a_mirror_that_ends_before_what_was_signed_does_not_do(
    store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    grown(store, trail, 9)
    folder = LogFolder(published(store, trail, tmp_path / "mirror"))
    grown(store, trail, 3)
    put_back(store, 6)
    with pytest.raises(WrongState, match="12 were signed"):
        shards.refill(Trail(store, keys, trail.signers), folder, folder.note(), who=WHO, at=AT)


def test_a_signer_that_lost_its_state_is_told_apart_from_a_database_put_back(
    store: Store, trail: Trail, tmp_path: Path
) -> None:
    grown(store, trail)
    shutil.rmtree(tmp_path / "signer" / "2026")
    with pytest.raises(LogUnavailable, match="signer's state is missing"):
        opened(store, tmp_path)
    new = shards.begin_anew(trail, BASE, compromised=False, who=WHO, at=AT)
    assert types(store, new.log_id) == ["log.discontinuity"]
    assert SignerFolder(tmp_path / "signer").signed(new.log_id) == 1


# --- the clock ---------------------------------------------------------------------------------------------------------


class Hands:
    """A wall clock that can be set, and a steady one that can't."""

    def __init__(self) -> None:
        self.wall, self.steady = AT, 1000.0

    def go(self, seconds: float, *, set_by: float = 0.0) -> None:
        self.steady += seconds
        self.wall += timedelta(seconds=seconds + set_by)


@pytest.mark.parametrize(
    ("set_by", "told"),
    [
        (0, None), (-0.9, None), (4.9, None), (-1.0, None), (5.0, None), (-1.5, -1500), (-3600, -3_600_000),
        (86_400, 86_400_000), (5.5, 5500),
    ],
)  # fmt: skip
def test_a_clock_that_was_set_is_noticed_27(set_by: float, told: int | None) -> None:
    hands = Hands()
    watch = clock.Watch(lambda: hands.wall, lambda: hands.steady)
    for _ in range(3):
        hands.go(1.0)
        assert watch.step() is None
    hands.go(1.0, set_by=set_by)
    assert watch.step() == told
    hands.go(1.0)
    assert watch.step() is None


def test_leaves_times_know_no_summer_time_27() -> None:
    hands = Hands()
    hands.wall = datetime(2026, 10, 25, 0, 59, 58, tzinfo=UTC)  # the last seconds of summer time in London
    watch = clock.Watch(lambda: hands.wall, lambda: hands.steady)
    told = []
    for _ in range(4):
        told.append((f"{hands.wall.astimezone(LONDON):%H:%M:%S}", clock.milliseconds(hands.wall.astimezone(LONDON))))
        hands.go(1.0)
        assert watch.step() is None
    assert [shown for shown, _ in told] == ["01:59:58", "01:59:59", "01:00:00", "01:00:01"]
    assert [ms - told[0][1] for _, ms in told] == [0, 1000, 2000, 3000]


def test_a_clock_that_was_set_is_in_the_log_and_the_leaves_times_do_not_run_back_27(
    store: Store, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "LOOK_SECONDS", 0.02)
    hands = Hands()
    for set_by in (3600, -3600):
        stop = shards.keep_watch(trail, BASE, clock.Watch(lambda: hands.wall, lambda: hands.steady))
        hands.go(1.0, set_by=set_by)
        until = time.monotonic() + 10
        while trail.unsequenced() == 0 and time.monotonic() < until:
            time.sleep(0.02)
        stop()
        trail.advance_pending()
    with store.reading() as reading:
        rows = reading.all(EventRow, order=("seq",))
    told = [trail.opening(row.event_id, show=("what",)).body("what") for row in rows if row.type == "clock.anomaly"]
    assert [each["step_ms"] for each in told] == [3_600_000, -3_600_000]  # type: ignore[index, call-overload]
    assert [row.t_ms for row in rows] == sorted(row.t_ms for row in rows)


def test_serving_turns_the_log_by_itself(store: Store, trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(store, trail)
    monkeypatch.setattr(shards, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(clock, "now", lambda: MIDNIGHT + timedelta(milliseconds=1))
    stop = shards.keep_watch(trail, BASE, clock.Watch())
    until = time.monotonic() + 10
    while trail.origin == ORIGIN and time.monotonic() < until:
        time.sleep(0.02)
    stop()
    assert trail.origin == f"{BASE}/2027"
