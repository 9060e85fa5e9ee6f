"""A subject that is erased is gone from every table and file, comes back from no old copy, and breaks no proof."""

import json
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from sqlalchemy import make_url, text
from typer.testing import CliRunner

from audit.cli import auditor
from audit.events import SECTIONS, Event
from broker import erasure, retention, shards, validation
from broker.callers import Caller
from broker.errors import LogUnavailable, Malformed, NotAllowed, NotFound, StoreUnavailable, Undecipherable, WrongState
from broker.judging import Judged
from broker.keys import Keys
from broker.settings import LogRetention, Settings
from broker.store import Store, migrate
from broker.store.agencies import AgencyFlowRow
from broker.store.batches import BatchRow
from broker.store.event_keys import EventKeyRow, SubjectKeyRow, open_body, sole_subject
from broker.store.items import ItemRow, insert_items, kept_schema
from broker.store.log import BlobRow, EventRow, SubjectRow
from broker.store.searches import ThresholdRow
from broker.store.sequence import sequence
from broker.store.tombstones import Tombstone, Tombstones
from broker.trail import EntryRef, Trail, new_event_id
from broker.wiring import wire
from tests.broker.test_trail import policy_of, published
from tests.builders_signer import opened, policy_text
from tests.postgres import a_database

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
CHILD = "3f0c1d52-0a3b-4f2e-9a51-6b8f2d1c7e90"
RECORD = "northshire-council/education/r-4411"
SIBLING = "91d2a7b6-55aa-4d0b-8a3c-0d3f6c2b1a10"
CANARY = "canary-of-the-erased"


def officer(person: str = "ig-1", role: str = "IG_OFFICER") -> Caller:
    return Caller(kind="officer", organisation="northshire", person=person, role=role, method="demo")


def looked(store: Store, trail: Trail, *persons: str, more: tuple[str, ...] = (), **changes: object) -> str:
    """An event of a view that showed these persons; its id."""
    parts: dict[str, object] = {
        "id": new_event_id(),
        "type": "disclosure.authorised",
        "who": {"organisation": "northshire-icb", "person": "p-17", "role": "MASH_ANALYST"},
        "what": {"outcome": "disclosed", "categories": {"northshire-council": {"education.attendance": "status"}}},
        "why": {"purpose": "S47", "case": "c" * 64, "clauses": ["northshire-mash@3.0.0#attendance"]},
        "subjects": sorted({*persons, *more}),
        "recipients": [{"organisation": "northshire-icb"}],
        "detail": {"reason": CANARY, "hidden": {"SHIELDED": 1}},
    }
    event = Event(**(parts | changes))  # type: ignore[arg-type]
    with store.transaction() as tx:
        about = {*persons, *more, new_event_id()}
        trail.record(tx, event, about=about, blobs={"looked_at": CANARY.encode()}, at=AT)
    return event.id


def erased(store: Store, trail: Trail, keys: Keys, kept: Tombstones, *ids: str, at: datetime = AT) -> erasure.Erasure:
    """Proposed by one and approved by another."""
    one = erasure.propose(store, trail, keys, officer(), ids=ids, authority="subject_request", at=at).answer
    return erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=one.erasure, at=at).answer


@pytest.fixture
def kept(tmp_path: Path) -> Tombstones:
    return Tombstones(tmp_path)


def rows(store: Store, event: str) -> tuple[EventRow, EventKeyRow | None, list[BlobRow]]:
    with store.reading() as reading:
        row = reading.one(EventRow, event_id=event)
        assert row is not None
        return row, reading.one(EventKeyRow, event_id=event), reading.all(BlobRow, event_id=event)


def auditor_says(*arguments: object) -> tuple[int, str]:
    with TemporaryDirectory() as evidence:
        done = CliRunner().invoke(auditor, [*map(str, arguments), "--evidence", evidence])
    return done.exit_code, done.output


def test_an_event_about_one_person_alone_is_under_that_persons_key(store: Store, trail: Trail, keys: Keys) -> None:
    about_one, about_two = looked(store, trail, CHILD, more=(RECORD,)), looked(store, trail, CHILD, SIBLING)
    trail.advance_pending()
    assert rows(store, about_one)[1].subject == keys.subject_index(CHILD)  # type: ignore[union-attr]
    assert rows(store, about_two)[1].subject == ""  # type: ignore[union-attr]
    assert sole_subject({RECORD, new_event_id()}) == RECORD
    assert sole_subject({RECORD, RECORD + "1"}) is None
    assert sole_subject({new_event_id()}) is None


def test_erasing_leaves_tree_receipts_and_proofs_and_takes_body_salt_and_key(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones, tmp_path: Path
) -> None:
    events = [looked(store, trail, CHILD, more=(RECORD,)), looked(store, trail, SIBLING), looked(store, trail, CHILD)]
    receipts = {event: trail.receipt(EntryRef(event)) for event in events}
    before = (tmp_path / "before.note", published(store, tmp_path / "before"))
    before[0].write_text(before[1].note())

    done = erased(store, trail, keys, kept, CHILD, RECORD)
    assert done.counts == {"ids": 2, "events": 2, "withheld": 0, "blobs": 2, "keys": 3, "index": 5}

    for gone in (events[0], events[2]):
        row, key, blobs = rows(store, gone)
        assert (row.sections, row.detail, key, blobs, row.case_hmac) == (None, None, None, [], "")
        assert row.erased_under == done_event(store)
        with pytest.raises(NotFound):
            trail.opening(gone, show=SECTIONS)
        with pytest.raises(NotFound):
            trail.blob(gone, "looked_at")
    assert trail.opening(events[1], show=SECTIONS).body("detail")["reason"] == CANARY  # type: ignore[index,call-overload]

    folder = tmp_path / "after"
    published(store, folder)
    policy = tmp_path / "policy"
    write_policy(store, policy)
    assert auditor_says("fsck", "--log", folder, "--policy", policy, "--state", before[0])[0] == 0
    assert auditor_says("consistency", "--log", folder, "--policy", policy, "--state", before[0])[0] == 0
    (tmp_path / "receipts").mkdir()
    for event, receipt in receipts.items():
        path = tmp_path / "receipts" / f"{event}.json"
        path.write_text(receipt.dumps())
        assert auditor_says("inclusion", "--event", path, "--log", folder, "--policy", policy)[0] == 0
    assert auditor_says("receipts", "--receipts", tmp_path / "receipts", "--log", folder, "--policy", policy)[0] == 0


def done_event(store: Store) -> str:
    with store.reading() as reading:
        return reading.all(EventRow, type="subject.erased", order=["-seq"])[0].event_id


def write_policy(store: Store, path: Path) -> None:
    path.write_text(policy_text(store))


def test_the_event_of_an_erasure_says_how_much_and_on_whose_word_and_never_whom(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones
) -> None:
    looked(store, trail, CHILD, more=(RECORD,))
    done = erased(store, trail, keys, kept, CHILD, RECORD)
    opening = trail.opening(done_event(store), show=SECTIONS)
    said = json.dumps(opening.to_json()["what"])
    assert opening.body("subjects") == []
    assert opening.body("detail") == {}
    body = opening.body("what")
    assert isinstance(body, dict)
    assert body["authority"] == "subject_request"
    assert body["proposed_by"] == "ig-1"
    assert body["events"] == done.counts["events"] == 1
    for secret in (CHILD, RECORD, keys.subject_index(CHILD), CANARY):
        assert secret not in said
    with store.reading() as reading:
        for row in reading.all(SubjectRow):
            assert row.idx_hmac not in (keys.subject_index(CHILD), keys.subject_index(RECORD))


def test_an_event_about_others_too_keeps_who_what_why_and_withholds_whom(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones
) -> None:
    shared = looked(store, trail, CHILD, SIBLING, more=(RECORD,))
    receipt = trail.receipt(EntryRef(shared), show=SECTIONS)
    old, key, _ = rows(store, shared)
    done = erased(store, trail, keys, kept, CHILD, RECORD)
    assert (done.counts["events"], done.counts["withheld"]) == (0, 1)
    again = trail.receipt(EntryRef(shared), show=SECTIONS)
    again.verify(policy_of(store))
    assert again.opening.withheld == ("subjects", "detail")
    assert again.opening.commitment == receipt.opening.commitment
    assert again.opening.body("why") == receipt.opening.body("why")
    row, fresh, blobs = rows(store, shared)
    assert blobs == []
    assert row.withheld_at == AT
    assert key is not None
    assert fresh is not None
    with pytest.raises(Undecipherable):  # a copy of the old body, by the key that is kept
        open_body(keys.data_key(fresh.wrapped, shared), shared, old.sections or b"", old.detail or b"")
    with store.reading() as reading:
        assert {one.idx_hmac for one in reading.all(SubjectRow, seq=row.seq)} >= {keys.subject_index(SIBLING)}
    # the sibling's own erasure then takes the rest of what names them, and the event stays as it is
    erased(store, trail, keys, kept, SIBLING)
    trail.receipt(EntryRef(shared)).verify(policy_of(store))


def test_what_a_subjects_key_wrapped_can_not_be_opened_from_an_old_copy_of_bodies_and_event_keys(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones
) -> None:
    event = looked(store, trail, CHILD)
    trail.advance_pending()
    _, key, _ = rows(store, event)
    assert key is not None
    erased(store, trail, keys, kept, CHILD)
    with store.reading() as reading:
        assert reading.all(SubjectKeyRow, idx_hmac=keys.subject_index(CHILD)) == []
    with pytest.raises(Undecipherable):
        keys.data_key(key.wrapped, event)


def test_two_people_erase_and_nobody_else_may(store: Store, trail: Trail, keys: Keys, kept: Tombstones) -> None:
    for caller in (
        officer(role="OPERATOR"),
        Caller(kind="person", organisation="x", person="p", role="IG_OFFICER", method="m"),
    ):
        with pytest.raises(NotAllowed):
            erasure.propose(store, trail, keys, caller, ids=[CHILD], authority="subject_request", at=AT)
    with pytest.raises(Malformed):
        erasure.propose(store, trail, keys, officer(), ids=[CHILD], authority="because", at=AT)
    event = looked(store, trail, CHILD)
    proposed = erasure.propose(store, trail, keys, officer(), ids=[CHILD], authority="court_order", at=AT).answer
    with pytest.raises(NotAllowed):
        erasure.approve(store, trail, keys, kept, officer(), erasure=proposed.erasure, at=AT)
    assert trail.opening(event, show=("who",)).body("who")
    with pytest.raises(NotFound):
        erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure="0" * 32, at=AT)
    refused = erasure.refuse(store, trail, officer("ig-2"), erasure=proposed.erasure, reason="still_needed", at=AT)
    assert refused.answer.state == "refused"
    with pytest.raises(WrongState):
        erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=proposed.erasure, at=AT)
    assert [one.state for one in erasure.erasures(store, officer())] == ["refused"]
    assert kept.read() == ()


def test_a_legal_hold_refuses_erasure_with_its_reason_until_it_is_released(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones
) -> None:
    event = looked(store, trail, CHILD, more=(RECORD,))
    proposed = erasure.propose(store, trail, keys, officer(), ids=[CHILD], authority="subject_request", at=AT).answer
    held = erasure.hold(store, trail, keys, officer(), ids=[CHILD, RECORD], reason="police_investigation", at=AT).answer
    with pytest.raises(WrongState, match="a police investigation"):
        erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=proposed.erasure, at=AT)
    with pytest.raises(WrongState, match="legal hold"):  # by another of the subject's ids
        erasure.propose(store, trail, keys, officer(), ids=[RECORD], authority="subject_request", at=AT)
    assert trail.opening(event, show=("who",)).body("who")
    with store.reading() as reading:
        said = [row.outcome for row in reading.all(EventRow, type="subject.erasure_refused")]
        assert said == ["legal_hold", "legal_hold"]
        told = reading.one(EventRow, type="legal_hold.set")
        assert told is not None
        assert reading.all(SubjectRow, seq=told.seq) == []  # nobody's report tells of an investigation
    erasure.release(store, trail, officer("ig-3"), hold=held.hold, at=AT)
    with pytest.raises(WrongState):
        erasure.release(store, trail, officer("ig-3"), hold=held.hold, at=AT)
    assert erasure.holds(store, officer())[0].lifted_by == "ig-3"
    erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=proposed.erasure, at=AT)
    with pytest.raises(NotFound):
        trail.opening(event, show=("who",))


def test_erasing_again_finds_nothing_more(store: Store, trail: Trail, keys: Keys, kept: Tombstones) -> None:
    looked(store, trail, CHILD)
    first, second = (erased(store, trail, keys, kept, CHILD) for _ in range(2))
    assert first.counts["events"] == 1
    assert second.counts | {"ids": 0} == dict.fromkeys(second.counts, 0)
    with pytest.raises(WrongState):
        erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=first.erasure, at=AT)


def test_after_a_purge_no_file_of_the_database_has_a_byte_of_it(
    tmp_path: Path, migrated_file: Path, keys: Keys, kept: Tombstones
) -> None:
    database = Path(shutil.copy(migrated_file, tmp_path / "broker.db"))
    store = Store(f"sqlite:///{database}")
    trail = Trail(store, keys, opened(store, tmp_path))
    mine = [looked(store, trail, CHILD, more=(RECORD,)) for _ in range(30)]
    shared = [looked(store, trail, CHILD, SIBLING) for _ in range(5)]
    for _ in range(30):
        looked(store, trail, SIBLING)
    trail.advance_pending()
    secrets_ = [secret_bytes(store, keys, event) for event in mine + shared]
    with store.reading() as reading:
        subject = reading.one(SubjectKeyRow, idx_hmac=keys.subject_index(CHILD))
    assert subject is not None
    needles = {piece for one in secrets_ for piece in one} | {subject.wrapped}
    assert all(piece in everything(database) for piece in needles)
    erased(store, trail, keys, kept, CHILD, RECORD)
    assert store.purge(erasure.PURGED)
    left = everything(database)
    assert [piece for piece in needles if piece in left] == []
    assert keys.subject_index(CHILD).encode() in left  # the tombstone alone, and it is no key to anything
    store.close()


@pytest.mark.postgres
def test_after_a_purge_no_file_of_postgresql_has_a_byte_of_what_an_erasure_takes_32(
    postgres_server: str, migrated_postgres: str, tmp_path: Path, keys: Keys, kept: Tombstones
) -> None:
    """Sealed items, candidates and the log's bodies: in no table's file, and in no segment of the journal."""
    with a_database(postgres_server, template=migrated_postgres) as url, psycopg.connect(postgres_server) as server:
        server.autocommit = True
        server.execute("ALTER SYSTEM SET wal_recycle = off")
        server.execute("SELECT pg_reload_conf()")
        store = Store(url)
        trail = Trail(store, keys, opened(store, tmp_path))
        needles = [*beside_the_log(store)]
        event = looked(store, trail, CHILD, more=(RECORD,))
        trail.advance_pending()
        needles += secret_bytes(store, keys, event)
        server.execute("CHECKPOINT")
        database = make_url(url).database
        assert [piece for piece in needles if not on_disk(server, database, piece)] == []
        erased(store, trail, keys, kept, CHILD, RECORD)
        assert erasure.purge(store, trail, kept, who=officer().who(), at=AT)
        assert [piece for piece in needles if on_disk(server, database, piece)] == []
        store.close()


def on_disk(server: psycopg.Connection[Any], database: str | None, piece: bytes) -> bool:
    """Whether these bytes are in a file of a database, or in the server's journal."""
    found = server.execute(
        """
        WITH folder (name) AS (
            SELECT 'base/' || oid FROM pg_database WHERE datname = %s UNION SELECT 'pg_wal'
        )
        SELECT count(*) FROM folder, LATERAL pg_ls_dir(folder.name) AS file,
            LATERAL pg_stat_file(folder.name || '/' || file, true) AS at,
            LATERAL pg_read_binary_file(folder.name || '/' || file, 0, CASE WHEN at.isdir THEN 0 ELSE at.size END, true)
                AS bytes
        WHERE NOT at.isdir AND position(%s::bytea IN bytes) > 0
        """,
        (database, piece),
    ).fetchone()
    return found is not None and found[0] > 0


def beside_the_log(store: Store) -> tuple[bytes, ...]:
    """An item of the record and a threshold of the child; what of them must not be found any more."""
    agency, flow, ref = RECORD.split("/")
    sealed, threshold = os.urandom(200), new_event_id()
    with store.transaction() as tx:
        tx.connection.exec_driver_sql("SET LOCAL session_replication_role = replica")  # no batch and no search is here
        item = [[ref], ["item"], ["education.attendance"], [None], [None], [None], [sealed]]
        insert_items(tx, [pa.record_batch(item, schema=kept_schema())], agency=agency, flow=flow, batch="batch")
        tx.insert(
            ThresholdRow,
            {
                "id": threshold, "agency": agency, "case_hmac": "c" * 64, "person_id": CHILD, "search": "s",
                "level": "L4", "grounds": "g", "set_by": "p", "role": "r", "event_id": "e", "at": AT,
            },
        )  # fmt: skip
    return (sealed, threshold.encode())


def secret_bytes(store: Store, keys: Keys, event: str) -> tuple[bytes, ...]:
    """What of an event must not be found any more: sealed bodies, sealed bytes beside it, its wrapped key."""
    row, key, blobs = rows(store, event)
    assert key is not None
    assert row.sections is not None
    assert row.detail is not None
    return (row.sections[12:], row.detail[12:], key.wrapped[12:], *(blob.sealed[12:] for blob in blobs))


def everything(database: Path) -> bytes:
    """Every byte of a SQLite database: the file, its journal, its index of that."""
    files = sorted(database.parent.glob(f"{database.name}*"))
    return b"".join(file.read_bytes() for file in files)


def test_an_old_copy_of_the_database_is_emptied_again_before_it_serves(settings: Settings, tmp_path: Path) -> None:
    """Database and signer's state are put back from yesterday; the file of tombstones is where it was."""
    kept = Tombstones(settings.data_dir)
    database, signer, copies = tmp_path / "broker.sqlite", settings.data_dir / "signer", tmp_path / "copies"
    broker = wire(settings)
    event, other = looked(broker.store, broker.trail, CHILD), looked(broker.store, broker.trail, SIBLING)
    broker.trail.advance_pending()
    copies.mkdir()
    with sqlite3.connect(database) as source, sqlite3.connect(copies / database.name) as target:
        source.backup(target)
    shutil.copytree(signer, copies / "signer")
    erased(broker.store, broker.trail, broker.keys, kept, CHILD)
    broker.store.close()

    for file in tmp_path.glob("broker.sqlite*"):
        file.unlink()
    shutil.copy(copies / database.name, database)
    shutil.rmtree(signer)
    shutil.copytree(copies / "signer", signer)
    restored = wire(settings)  # whatever serves, nightly or a command, begins with this
    with pytest.raises(NotFound):
        restored.trail.opening(event, show=("who",))
    restored.trail.advance_pending()
    assert restored.trail.opening(other, show=("who",)).body("who")
    with restored.store.reading() as reading:
        told = [row.outcome for row in reading.all(EventRow, type="subject.erased")]
    assert told == ["erased_after_restore"]
    restored.store.close()

    kept.path.unlink()  # a file that was lost is written again from what the database knows
    wire(settings).store.close()
    assert len(kept.read()) == 1
    again = wire(settings)
    with again.store.reading() as reading:
        assert len(reading.all(EventRow, type="subject.erased")) == 1
    again.store.close()


def test_a_database_put_back_under_a_signer_that_went_on_serves_nobody_until_the_erased_are_erased_again_28(
    settings: Settings, tmp_path: Path
) -> None:
    """Yesterday's database, today's signer: nothing opens it but `broker log restore`, and what opens it then erases."""
    kept, database = Tombstones(settings.data_dir), tmp_path / "broker.sqlite"
    broker = wire(settings)
    event = looked(broker.store, broker.trail, CHILD)
    broker.trail.advance_pending()
    with sqlite3.connect(database) as source, sqlite3.connect(tmp_path / "yesterday") as target:
        source.backup(target)
    erased(broker.store, broker.trail, broker.keys, kept, CHILD)
    base = settings.log_base
    broker.store.close()
    for file in tmp_path.glob("broker.sqlite*"):
        file.unlink()
    shutil.copy(tmp_path / "yesterday", database)

    with pytest.raises(LogUnavailable, match="log restore"):
        wire(settings)  # so nothing is served
    repair = wire(settings, agreeing=False)  # as `broker log restore --new` does
    shards.begin_anew(repair.trail, base, compromised=False, who={"organisation": "northshire"}, at=AT)
    repair.store.close()
    restored = wire(settings)
    with pytest.raises(NotFound):
        restored.trail.opening(event, show=("who",))
    with restored.store.reading() as reading:
        assert reading.one(EventKeyRow, event_id=event) is None
    restored.trail.advance_pending()
    with restored.store.reading() as reading:
        assert [row.outcome for row in reading.all(EventRow, type="subject.erased")] == ["erased_after_restore"]
    restored.store.close()


def test_the_file_of_tombstones_survives_a_torn_line_and_refuses_a_forged_one(kept: Tombstones) -> None:
    one, two = (Tombstone(name * 32, AT, frozenset({name * 64})) for name in "ab")
    kept.append(one)
    with kept.path.open("ab") as file:
        file.write(b'{"at":"2026-11')
    assert kept.read() == (one,)
    kept.append(two)
    assert kept.read() == (one, two)
    assert kept.path.stat().st_mode & 0o777 == 0o600
    kept.path.write_text("{}\n")
    with pytest.raises(Malformed):
        kept.read()


def test_what_a_restore_would_undo_is_not_done(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones, tmp_path: Path
) -> None:
    """The tombstone is on disk before the erasure commits; where it can't be, everything stays."""
    event = looked(store, trail, CHILD)
    one = erasure.propose(store, trail, keys, officer(), ids=[CHILD], authority="court_order", at=AT).answer
    (tmp_path / "erased").write_text("a file where the folder should be")
    with pytest.raises(StoreUnavailable):
        erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=one.erasure, at=AT)
    assert trail.opening(event, show=SECTIONS).body("subjects") == [CHILD]
    assert [each.state for each in erasure.erasures(store, officer())] == ["proposed"]
    (tmp_path / "erased").unlink()
    assert (
        erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=one.erasure, at=AT).answer.state == "erased"
    )
    assert kept.purge_due
    assert erasure.purge(store, trail, kept, who=officer().who(), at=AT)  # on both databases, and the log goes on
    assert not kept.purge_due
    trail.receipt(EntryRef(looked(store, trail, SIBLING))).verify(policy_of(store))


def test_a_process_that_dies_between_tombstone_and_commit_leaves_it_to_the_next_start(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones
) -> None:
    """Before the commit nothing has changed, and two people have decided: so the next start does it."""

    class Dies(Tombstones):
        def append(self, tombstone: Tombstone) -> None:
            super().append(tombstone)
            raise KeyboardInterrupt

    event = looked(store, trail, CHILD)
    one = erasure.propose(store, trail, keys, officer(), ids=[CHILD], authority="court_order", at=AT).answer
    with pytest.raises(KeyboardInterrupt):
        erasure.approve(store, trail, keys, Dies(kept.path.parents[1]), officer("ig-2"), erasure=one.erasure, at=AT)
    assert trail.opening(event, show=("who",)).body("who")
    for left in (1, 0):
        assert erasure.replay(store, trail, keys, kept, who={"organisation": "northshire"}, at=AT) == left
        with pytest.raises(NotFound):
            trail.opening(event, show=("who",))
    (listed,) = erasure.erasures(store, officer())
    assert (listed.state, listed.counts["events"]) == ("erased", 1)
    with pytest.raises(WrongState):
        erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=one.erasure, at=AT)


def test_whatever_the_order_each_event_tells_of_nobody_erased_and_of_everybody_else(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones
) -> None:
    """Against a model: an event about one is gone with them, one about several withholds, the others are whole."""
    chance = random.Random(5)
    people = [f"{number:08}-0000-4000-8000-000000000000" for number in range(5)]
    about = {}
    for _ in range(24):
        whom = frozenset(chance.sample(people, chance.choice((1, 1, 2, 3))))
        about[looked(store, trail, *sorted(whom))] = whom
    receipts = {event: trail.receipt(EntryRef(event)) for event in about}
    gone: set[str] = set()
    for person in chance.sample(people, 4):
        erased(store, trail, keys, kept, person)
        gone.add(person)
        for event, whom in about.items():
            if len(whom) == 1 and whom <= gone:
                with pytest.raises(NotFound):
                    trail.opening(event, show=SECTIONS)
                continue
            opening = trail.opening(event, show=SECTIONS)
            assert opening.withheld == (("subjects", "detail") if whom & gone else ())
            assert opening.commitment == receipts[event].opening.commitment
            assert not any(each in json.dumps(opening.to_json()) for each in gone)
            with store.reading() as reading:
                row = reading.one(EventRow, event_id=event)
                assert row is not None
                there = {one.idx_hmac for one in reading.all(SubjectRow, seq=row.seq)}
            assert {one for one in people if keys.subject_index(one) in there} == whom - gone
    for receipt in receipts.values():
        receipt.verify(policy_of(store))


def test_what_still_waits_in_the_outbox_is_erased_too(store: Store, trail: Trail, keys: Keys, kept: Tombstones) -> None:
    one = erasure.propose(store, trail, keys, officer(), ids=[CHILD], authority="court_order", at=AT).answer
    event = looked(store, trail, CHILD)  # recorded, not yet sequenced
    assert trail.unsequenced() == 1
    done = erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=one.erasure, at=AT).answer
    assert done.counts["events"] == 1
    with pytest.raises(NotFound):
        trail.opening(event, show=("who",))


class Between(Trail):
    """A trail that does one more thing between its look at the outbox and the erasure that asked for it."""

    then: Callable[[], object] | None = None

    def advance_pending(self) -> int:
        size, then, self.then = super().advance_pending(), self.then, None
        if then is not None:
            then()
        return size


@pytest.fixture
def between(store: Store, keys: Keys, tmp_path: Path) -> Between:
    return Between(store, keys, opened(store, tmp_path))


def test_what_is_recorded_between_the_sequencing_and_the_erasure_is_erased_too(
    store: Store, between: Between, keys: Keys, kept: Tombstones
) -> None:
    one = erasure.propose(store, between, keys, officer(), ids=[CHILD], authority="court_order", at=AT).answer
    late: list[str] = []
    between.then = lambda: late.append(looked(store, between, CHILD))
    done = erasure.approve(store, between, keys, kept, officer("ig-2"), erasure=one.erasure, at=AT).answer
    assert done.counts["events"] == 1
    row, key, _ = rows(store, late[0])
    assert (row.erased_under, key) == (done_event(store), None)


@pytest.mark.parametrize("store", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True)
def test_what_a_batch_brings_of_a_subject_while_it_is_erased_does_not_stay(
    store: Store, trail: Trail, keys: Keys, kept: Tombstones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch has asked who was erased, and has not yet committed, when the erasure comes."""
    agency, flow, ref = RECORD.split("/")
    item = pa.record_batch(
        [[ref], ["item"], ["education.attendance"], [None], [None], [None], [b"s"]], schema=kept_schema()
    )
    erasing = threading.Thread(target=lambda: erased(store, trail, keys, kept, RECORD))
    row = BatchRow(
        id="batch", agency=agency, flow=flow, sequence=1, kind="delta", manifest_sha256="0" * 64, extracted_at=AT
    )

    def late(*given: Any, **more: Any) -> None:
        erasing.start()
        erasing.join(2.0)  # where nothing holds it, it is done by then
        insert_items(*given, **more)

    monkeypatch.setattr(validation, "insert_items", late)
    with store.transaction() as tx:
        tx.connection.exec_driver_sql("SET LOCAL session_replication_role = replica")  # no agency and no batch is here
        tx.add(AgencyFlowRow(agency=agency, flow=flow, expected_by="06:00"))
        tx.flush()
        validation._take_in(keys, tx, row, Judged(state="accepted", items=[item]), at=AT)
    erasing.join()
    with store.reading() as reading:
        assert reading.all(ItemRow) == []


@pytest.mark.parametrize("how", ["erased", "expired"])
def test_an_event_that_another_process_is_sequencing_is_erased_or_stays_and_never_closed_by_accident(
    store: Store, between: Between, keys: Keys, kept: Tombstones, how: str
) -> None:
    """A sequencer has looked at the child's key, and not committed, when the key is to go."""
    looked(store, between, CHILD)
    one = erasure.propose(store, between, keys, officer(), ids=[CHILD], authority="court_order", at=AT).answer
    looking, go = threading.Event(), threading.Event()
    late: list[str] = []

    def sequenced() -> None:
        with store.transaction() as tx:
            sequence(tx, keys)
            looking.set()
            go.wait(0.3)

    def begin() -> None:
        late.append(looked(store, between, CHILD))
        other.start()
        assert looking.wait(5)

    other = threading.Thread(target=sequenced)
    between.then = begin
    if how == "erased":
        erasure.approve(store, between, keys, kept, officer("ig-2"), erasure=one.erasure, at=AT)
    else:
        ten_years = datetime(2036, 1, 1, tzinfo=UTC)
        retention.run(store, between, LogRetention(), dict, who=officer().who(), at=ten_years)
    go.set()
    other.join()
    row, key, _ = rows(store, late[0])
    if how == "erased":
        assert (row.erased_under, key) == (done_event(store), None)
    else:
        assert between.opening(late[0], show=SECTIONS).body("subjects") == [CHILD]


def test_keys_move_to_their_own_table_and_back_with_the_schema(store: Store, trail: Trail) -> None:
    event = looked(store, trail, CHILD, SIBLING)
    trail.advance_pending()
    migrate.downgrade(store, "0007")
    with store.engine.connect() as connection:
        wrapped = connection.execute(text("SELECT key_wrapped FROM audit_event ORDER BY seq DESC LIMIT 1")).scalar_one()
    assert wrapped
    migrate.upgrade(store)
    assert trail.opening(event, show=SECTIONS).body("detail")["reason"] == CANARY  # type: ignore[index,call-overload]
