"""PostgreSQL recovered to a point in time: what was acknowledged before it is there, and the log is not silently shorter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from audit.folder import LogFolder
from broker import shards
from broker.errors import LogUnavailable
from broker.keys import Keys
from broker.signing import SignerFolder
from broker.store import Store
from broker.store.log import EntryRow
from broker.trail import EntryRef, Trail
from tests.broker.test_trail import policy_of
from tests.builders_signer import opened
from tests.faults.points import Lost, Points
from tests.faults.test_log_kills import ORIGIN, Writers, held, prepared
from tests.postgres import Server, a_database

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif("not config.getoption('--long')", reason="a PostgreSQL and its archive: make faults"),
]
AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
WHO = {"organisation": "northshire", "person": "op-1"}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


def test_a_database_put_back_to_a_point_in_time_has_all_of_before_and_a_mirror_puts_back_the_log(
    server: Server, tmp_path: Path, count: Points, tally: Callable[[str], None], pytestconfig: pytest.Config
) -> None:
    chance, archive = random.Random(pytestconfig.getoption("--seed")), server.archive()
    with a_database(server.address, keep=True) as url:
        store = prepared(url, tmp_path)
    recovered = server.copied()
    try:
        writers = Writers(url, tmp_path)
        writers.start()
        writers.hear(chance.randint(4, 12))
        before = set(writers.acknowledged)
        server.tell("SELECT pg_create_restore_point('then')")
        writers.hear(chance.randint(4, 12))
        writers.kill()
        writers.end()
        size = held(store, tmp_path, writers.acknowledged)
        leaves = leaves_of(store)
        store.close()
        archived(server)
        server.kill()

        with count.at("F32"):
            recovered.recover(archive, "then")
            store = Store(url.replace(str(server.folder), str(recovered.folder)))
            with store.reading() as reading:
                there = {row.event_id for row in reading.all(EntryRow)}
            if not before <= there:
                raise Lost(f"{len(before - there)} events that were acknowledged before the point are not there")
            assert len(there) < size
            with pytest.raises(LogUnavailable, match="restore"):  # its signer knows of more: a person must say
                opened(store, tmp_path, origin=ORIGIN)
            trail = Trail(store, Keys.load(tmp_path / "keys"), SignerFolder(tmp_path / "signer"))
            mirror = LogFolder(tmp_path / "log")
            assert shards.refill(trail, mirror, mirror.note(), who=WHO, at=AT) == size - len(there)
            trail.advance_pending()
            if leaves_of(store)[:size] != leaves:
                raise Lost("the log that goes on is not the one that was signed")
            for event_id in chance.sample(sorted(before), min(10, len(before))):
                trail.receipt(EntryRef(event_id)).verify(policy_of(store))
            store.close()
    finally:
        recovered.remove()
    tally(
        f"a point in time: {len(before)} events acknowledged before it, 0 lost; {size - len(there)} put back of a mirror"
    )


def leaves_of(store: Store) -> list[bytes]:
    with store.reading() as reading:
        return [row.leaf for row in reading.all(EntryRow, order=("seq",))]


def archived(server: Server) -> None:
    """Return once all that was written is in the archive."""
    with psycopg.connect(server.address, autocommit=True) as connection:
        found = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
        assert found is not None
        for _ in range(400):
            last = connection.execute("SELECT last_archived_wal >= %s FROM pg_stat_archiver", found).fetchone()
            if last == (True,):
                return
            time.sleep(0.05)
    pytest.fail("the server does not archive", pytrace=False)
