"""A synchronous standby takes over with everything that was acknowledged; what could not keep that promise is refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.errors import StoreUnavailable, UnsafeDatabase
from broker.store import Store
from tests.faults.test_log_kills import Writers, held, prepared
from tests.postgres import Server, a_database

pytestmark = pytest.mark.faults


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A server and its synchronous standby."""
    first = Server()
    standby = None
    try:
        first.start()
        standby = first.standby()
        yield first, standby
    finally:
        first.remove()
        if standby is not None:
            standby.remove()


def either(first: Server, standby: Server, url: str) -> str:
    """The URL of a database on whichever of two takes writes."""
    base, _, _ = url.partition("?")
    return f"{base}?host={first.folder},{standby.folder}&target_session_attrs=read-write"


def test_a_synchronous_standby_takes_over_with_all_that_was_acknowledged(
    pair: tuple[Server, Server], tmp_path: Path, pytestconfig: pytest.Config, tally: Callable[[str], None]
) -> None:
    chance, (first, standby) = random.Random(9), pair
    rounds = 5 if pytestconfig.getoption("--long") else 1
    with a_database(first.address, keep=True) as url:
        prepared(url, tmp_path).close()
    writers = Writers(either(first, standby, url), tmp_path)
    for number in range(rounds):
        writers.start()
        writers.hear(chance.randint(4, 12))
        time.sleep(chance.uniform(0, 0.3))
        first.kill()
        standby.promote()
        writers.hear(3)  # they carry on by themselves, on the other server
        writers.kill()
        store = Store(either(first, standby, url))
        size = held(store, tmp_path, writers.acknowledged)
        store.close()
        if number < rounds - 1:
            first.remove()
            first, standby = standby, standby.standby()
            writers.end()
            writers = Writers(either(first, standby, url), tmp_path).who_know(writers.acknowledged)
    writers.end()
    tally(f"{rounds} PostgreSQL failovers, {len(writers.acknowledged)} events acknowledged, {size} in the log, 0 lost")
    standby.remove()


def test_a_broker_that_counts_on_a_standby_refuses_a_server_without(pair: tuple[Server, Server]) -> None:
    first, standby = pair
    counting = Store(url_of(first), standby=True)
    with counting.reading() as reading:
        assert reading.connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
    counting.close()
    first.tell("ALTER SYSTEM RESET synchronous_standby_names")
    with pytest.raises(UnsafeDatabase, match="synchronous_standby_names"), counting.reading():
        pass
    with Store(url_of(first)).reading():  # who runs without one may
        pass
    with pytest.raises(StoreUnavailable, match="standby"), Store(url_of(standby)).reading():
        pass


@pytest.mark.parametrize("lax", ["fsync = off", "full_page_writes = off"])
def test_a_server_that_a_power_cut_would_rob_is_refused(lax: str, pair: tuple[Server, Server]) -> None:
    first, _ = pair
    first.tell(f"ALTER SYSTEM SET {lax}")
    with pytest.raises(UnsafeDatabase, match="power cut"), Store(url_of(first)).reading():
        pass


def test_a_commit_waits_for_the_disk_whatever_the_server_s_default(pair: tuple[Server, Server]) -> None:
    first, _ = pair
    first.tell("ALTER SYSTEM SET synchronous_commit = off")
    with Store(url_of(first)).reading() as reading:
        assert reading.connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


def url_of(server: Server) -> str:
    return f"postgresql+psycopg://postgres@/postgres?host={server.folder}"
