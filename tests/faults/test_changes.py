"""An agreement's change, an erasure, a run of retention, a migration and a flip, ended anywhere: old or new, never between.

What the real code does to its disk is recorded call by call (`tests.faults.power`).  At each call the disk is rebuilt as it
is if the process alone is killed there (F07), and as it may be if the power goes (F08); the broker starts on it by itself,
and the same act again ends where it would have ended.  With --long alone: every call of each, four times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agreements import sign
from audit.events import Event
from audit.merkle import Frontier, leaf_hash
from audit.receipts import LogReceipt
from broker import activation, clock, documents, erasure, register, retention, rotation, shards
from broker.errors import WrongState
from broker.settings import LogRetention
from broker.store import Store, migrate
from broker.store.agencies import AgencyRow
from broker.store.documents import AgreementStatusRow
from broker.store.epochs import EpochRow
from broker.store.erasures import ErasureRow
from broker.store.event_keys import EventKeyRow, SubjectKeyRow
from broker.store.log import EntryRow, EventRow
from broker.store.shards import ShardRow
from broker.store.tombstones import Tombstones
from broker.trail import EntryRef, new_event_id
from broker.wiring import Broker, open_installation, wire
from tests.broker.test_erasure import CANARY, CHILD, RECORD, SIBLING, looked, officer
from tests.broker.test_nightly import in_service
from tests.broker.test_rotation import BEN, NEXT
from tests.broker.test_trail import policy_of
from tests.builders import COUNCIL, EPOCH
from tests.builders_broker import (
    AGREEMENT,
    DOCUMENTS,
    LONG,
    PARTIES,
    PERIOD,
    SIGNED,
    WHO,
    a_copy,
    an_installation,
    signatory,
    some_settings,
)  # fmt: skip
from tests.faults.points import Half, Lost, Points
from tests.faults.powered import FLOWS, LATER, NEWER, NEXT_YEAR
from tests.faults.test_kill import check_log
from tests.faults.test_power_cut import KILLED, SHARES, Check, survives
from tests.faults.test_rotation_kills import proposed

pytestmark = [pytest.mark.faults, pytest.mark.skipif("not config.getoption('--long')", reason="every cut: make faults")]
__all__ = ["proposed"]
Survive = Callable[..., None]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    an_installation(folder, agencies=FLOWS)
    return folder


@pytest.fixture
def survive(tmp_path: Path, pytestconfig: pytest.Config, tally: Callable[[str], None], count: Points) -> Survive:
    """One run of `tests.faults.powered` from a folder passes its check at every cut; told."""

    def run(what: str, folder: Path, check: Check, kill: str = "F07") -> None:
        told = survives(what, folder, tmp_path, pytestconfig, check, count=count, shares=(KILLED, *SHARES))
        tally(told)

    return run


def sources() -> tuple[bytes, bytes]:
    """The umbrella and the agreement as installed."""
    umbrella, mash = ((DOCUMENTS / f"{name}.toml").read_bytes() for name in ("northshire-tier1", "northshire-mash"))
    return umbrella.replace(PERIOD, LONG), mash.replace(PERIOD, LONG)


# --- Agreements -------------------------------------------------------------------------------------------------------


def test_an_agreement_s_change_ended_anywhere_leaves_the_old_version_in_force_or_the_new(
    installed: Path, tmp_path: Path, survive: Survive
) -> None:
    folder = tmp_path / "broker"
    broker = wire(a_copy(installed, folder))
    umbrella, mash = sources()
    source = mash.replace(b'version = "3.0.0"', b'version = "3.1.0"', 1)
    ref = register.import_document(broker.store, broker.trail, source, who=WHO, at=clock.now())
    assert ref == NEWER
    for party in PARTIES:
        jws = sign(documents.read_alone(source, [umbrella]), kid=f"{party}/signatory", key=signatory(party), at=SIGNED)
        register.add_signatures(broker.store, broker.trail, ref, jws, who=WHO, at=clock.now())
    broker.trail.advance_pending()
    broker.store.close()
    survive("agreement", folder, one_version_is_in_force, kill="F21")


def one_version_is_in_force(folder: Path, said: dict[str, list[Any]]) -> None:
    broker = wire(some_settings(folder))
    new = counts(broker)
    if "in_force" in said and not new:
        raise Lost("an agreement that was put in force is not")
    activation.activate(broker.store, broker.trail, NEWER, who=WHO, at=clock.now())
    assert counts(broker)
    check_log(broker)
    broker.store.close()


def counts(broker: Broker) -> bool:
    """Whether the new version is what counts, wholly; if not, the old one does, wholly."""
    at = clock.now() + timedelta(seconds=2)  # a replacement counts from the next whole second
    with broker.store.reading() as reading:
        states = {one.ref: one.state.name for one in register.documents(reading, at=at)}
        replaced = {row.by for row in reading.all(AgreementStatusRow, agreement=AGREEMENT, status="superseded")}
    broker.trail.advance_pending()
    with broker.store.reading() as reading:
        told = [row.type for row in reading.all(EventRow) if row.type.startswith("agreement.superseded")]
    found = (states[AGREEMENT] == "active", states[NEWER] == "active", replaced, len(told))
    if found not in ((True, False, set(), 0), (False, True, set(PARTIES), len(PARTIES))):
        raise Half(f"an agreement's change is there in part: {states} {found}")
    return states[NEWER] == "active"


def test_a_party_s_suspension_ended_anywhere_counts_wholly_or_not_at_all(
    installed: Path, tmp_path: Path, survive: Survive
) -> None:
    folder = tmp_path / "broker"
    a_copy(installed, folder)
    survive("pause", folder, paused_or_not, kill="F21")


def paused_or_not(folder: Path, said: dict[str, list[Any]]) -> None:
    broker = wire(some_settings(folder))
    broker.trail.advance_pending()
    with broker.store.reading() as reading:
        rows = reading.all(AgreementStatusRow, agreement=AGREEMENT, status="suspend")
        told = reading.all(EventRow, type="agreement.suspended")
        snapshot = register.snapshot(reading)
    [agreement] = [one for one in snapshot.agreements if one.ref == AGREEMENT]
    live = snapshot.standing(agreement, COUNCIL, PARTIES[1], clock.now()).live
    if not len(rows) == len(told) == (not live):
        raise Half(f"a suspension is there in part: {len(rows)} row, {len(told)} event, live {live}")
    if "paused" in said and live:
        raise Lost("a suspension that was acknowledged does not count")
    check_log(broker)
    broker.store.close()


# --- Erasure and retention --------------------------------------------------------------------------------------------


def test_an_erasure_ended_anywhere_is_done_or_not_and_stays_done_once_it_was_said(
    installed: Path, tmp_path: Path, survive: Survive
) -> None:
    folder = tmp_path / "broker"
    broker = wire(a_copy(installed, folder))
    store, trail = broker.store, broker.trail
    about = [looked(store, trail, CHILD, more=(RECORD,)), looked(store, trail, CHILD, SIBLING)]
    trail.advance_pending()
    erasure.propose(
        store, trail, broker.keys, officer(), ids=[CHILD, RECORD], authority="subject_request", at=clock.now()
    )
    store.close()
    survive("erasure", folder, partial(forgotten_or_not, about))


def forgotten_or_not(about: list[str], folder: Path, said: dict[str, list[Any]]) -> None:
    broker = wire(some_settings(folder))
    kept = Tombstones(folder)
    with broker.store.reading() as reading:
        [row] = reading.all(ErasureRow)
        bodies = [reading.one(EventRow, event_id=event) for event in about]
        keys = reading.all(SubjectKeyRow, idx_hmac=broker.keys.subject_index(CHILD))
        own = reading.all(EventKeyRow, event_id=about[0])
    done = row.state == "erased"
    gone = [one is not None and one.detail is None for one in bodies]
    there = [gone[0], bool(bodies[1] and bodies[1].withheld_at), not keys, not own, bool(kept.read())]
    if there != [done] * len(there):
        raise Half(f"an erasure is there in part: {row.state}, {there}")
    if "erased" in said and not done:
        raise Lost("an erasure that was acknowledged is undone")
    if not done:
        erasure.approve(broker.store, broker.trail, broker.keys, kept, officer("ig-2"), erasure=row.id, at=clock.now())
    else:
        with pytest.raises(WrongState):
            erasure.approve(
                broker.store, broker.trail, broker.keys, kept, officer("ig-2"), erasure=row.id, at=clock.now()
            )
    assert len(kept.read()) == 1
    if kept.purge_due:
        assert erasure.purge(broker.store, broker.trail, kept, who=WHO, at=clock.now())
    elif "erased" in said and "purged" not in said:
        with broker.store.reading() as reading:  # the files were written anew, and the entry says so
            assert reading.all(EventRow, type="retention.run"), "a purge that is due is forgotten"
    check_log(broker)
    broker.store.close()
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert CANARY.encode() not in everything


def test_a_run_of_retention_ended_anywhere_takes_all_that_is_due_or_nothing(
    installed: Path, tmp_path: Path, survive: Survive
) -> None:
    folder = tmp_path / "broker"
    broker = wire(a_copy(installed, folder))
    due = [event_of(broker, CHILD), event_of(broker, SIBLING), event_of(broker, CHILD, SIBLING)]
    broker.trail.advance_pending()
    broker.store.close()
    survive("retention", folder, partial(expired_or_not, due))


def event_of(broker: Broker, *about: str) -> str:
    event = Event(
        id=new_event_id(), type="search.authorised", who={"organisation": "northshire-icb"}, what={},
        why={"case": "c" * 64}, subjects=sorted(about), detail={},
    )  # fmt: skip
    with broker.store.transaction() as tx:
        broker.trail.record(tx, event, about=about, at=datetime(2026, 1, 5, tzinfo=UTC))
    return event.id


def expired_or_not(due: list[str], folder: Path, said: dict[str, list[Any]]) -> None:
    broker = wire(some_settings(folder))
    broker.trail.advance_pending()
    with broker.store.reading() as reading:
        gone = [row.erased_at is not None for row in reading.all(EventRow, event_id=due)]
        runs = reading.all(EventRow, type="retention.run")
    if gone not in ([True] * 3, [False] * 3) or len(runs) != gone[0]:
        raise Half(f"a run of retention is there in part: {gone}, {len(runs)} entries of it")
    if "expired" in said and not gone[0]:
        raise Lost("a run of retention that was acknowledged is undone")
    again = retention.run(broker.store, broker.trail, LogRetention(), dict, who=WHO, at=LATER)
    assert (again.events > 0) is not gone[0]
    check_log(broker)
    broker.store.close()


# --- Migration and rotation -------------------------------------------------------------------------------------------


def test_a_migration_ended_anywhere_has_one_schema_or_the_other_and_the_same_again_finishes(
    installed: Path, tmp_path: Path, survive: Survive
) -> None:
    folder = tmp_path / "broker"
    settings = a_copy(installed, folder)
    store = Store(settings.database_url.get_secret_value())
    migrate.downgrade(store, "0014")
    store.close()
    survive("migration", folder, one_schema)


def one_schema(folder: Path, said: dict[str, list[Any]]) -> None:
    settings = some_settings(folder)
    store = Store(settings.database_url.get_secret_value())
    if "migrated" in said and not migrate.at_head(store):
        raise Lost("a migration that was acknowledged is undone")
    with store.engine.connect() as connection:
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    if revision not in (["0014"], [migrate.head()]):
        raise Half(f"the schema is of {revision}: a migration in part")
    store.close()
    open_installation(settings)
    store = Store(settings.database_url.get_secret_value())
    assert migrate.differences(store) == []
    store.close()
    broker = wire(settings)
    with broker.store.reading() as reading:
        assert {row.id for row in reading.all(AgencyRow)} >= set(FLOWS)
    check_log(broker)
    broker.store.close()


def test_a_flip_ended_anywhere_leaves_one_epoch_whole(proposed: Path, tmp_path: Path, survive: Survive) -> None:
    folder = tmp_path / "broker"
    a_copy(proposed, folder)
    survive("flip", folder, one_epoch)


def one_epoch(folder: Path, said: dict[str, list[Any]]) -> None:
    broker = wire(some_settings(folder))
    new = in_service(broker).counts["key_epoch"] == NEXT.name
    with broker.store.reading() as reading:
        agencies = {row.key_epoch for row in reading.all(AgencyRow)}
        epochs = {row.name: row.state for row in reading.all(EpochRow)}
    held = {EPOCH: "held", NEXT.name: "in_service"} if new else {EPOCH: "in_service", NEXT.name: "prepared"}
    if agencies != {NEXT.name if new else EPOCH} or epochs != held:
        raise Half(f"a flip is there in part: {agencies}, {epochs}")
    if "flipped" in said and not new:
        raise Lost("a flip that was acknowledged is undone")
    assert rotation.confirm(broker, NEXT.name, who=BEN, at=clock.now())["state"] == "in_service"
    check_log(broker)
    broker.store.close()


def test_a_log_s_turn_of_the_year_ended_anywhere_leaves_one_shard_that_goes_on(
    installed: Path, tmp_path: Path, survive: Survive
) -> None:
    folder = tmp_path / "broker"
    broker = wire(a_copy(installed, folder))
    receipt = broker.trail.receipt(EntryRef(event_of(broker, CHILD)))
    event_of(broker, SIBLING)  # and one that waits for the turn to sequence it
    broker.store.close()
    survive("turn", folder, partial(one_shard_goes_on, receipt))


def one_shard_goes_on(receipt: LogReceipt, folder: Path, said: dict[str, list[Any]]) -> None:
    broker = wire(some_settings(folder))
    shards.turn(broker.trail, broker.settings.log_base, who=WHO, at=NEXT_YEAR)
    with broker.store.reading() as reading:
        rows = reading.all(ShardRow)
        old, new = (one for year in (0, 1) for one in rows if one.log_id.endswith(str(NEXT_YEAR.year - 1 + year)))
        types = [row.type for row in reading.all(EventRow, log_id=(old.log_id, new.log_id), order=("log_id", "seq"))]
        entries = {of.log_id: reading.all(EntryRow, log_id=of.log_id, order=("seq",)) for of in rows}
    if len(rows) != 2 or (types.count("log.closed"), types.count("log.opened")) != (1, 2):
        raise Half(f"a turn of the log is there in part: {len(rows)} shards, {Counter(types)}")
    for of, held in entries.items():
        if [one.seq for one in held] != list(range(len(held))):
            raise Lost(f"{of} has a gap")
    assert new.follows_size == len(entries[old.log_id])
    root = Frontier().extend([leaf_hash(one.leaf) for one in entries[old.log_id]]).root
    assert new.follows_root == root
    policy = policy_of(broker.store)
    receipt.verify(policy)
    broker.trail.receipt(EntryRef(event_of(broker, CHILD))).verify(policy)
    broker.store.close()
