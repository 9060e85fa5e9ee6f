"""Nothing acknowledged is lost: writers killed at any moment, and a PostgreSQL that goes down under them.

Two processes write, each with its own sequencer on one log.  An event is acknowledged once its receipt has been checked
and its id printed.  `make test` does three rounds on SQLite and one on PostgreSQL; with --long 80 writers are killed on
SQLite, and PostgreSQL goes down ten times.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit.verify import LogFolder, fsck
from broker.keys import Keys
from broker.store import Store, migrate
from broker.store.event_keys import EventKeyRow
from broker.store.log import EntryRow, EventRow, OutboxRow
from broker.store.sessions import SpentTokenRow
from broker.trail import EntryRef, Trail
from tests.broker.test_trail import ORIGIN, policy_of, published
from tests.builders_signer import opened
from tests.faults.log_writer import READ
from tests.postgres import Server, a_database

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
WRITERS = 2


@pytest.fixture
def long(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(disk=True)
    try:
        made.start()
        yield made
    finally:
        made.remove()


class Writers:
    """Processes that write as fast as they can, and what they acknowledged."""

    def __init__(self, url: str, home: Path) -> None:
        self.url, self.home = url, home
        self.acknowledged: set[str] = set()
        command = [sys.executable, "-m", "tests.faults.log_writer", url, str(home), ORIGIN]
        self._makers = [
            subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "PYTHONPATH": "."},
            )
            for _ in range(WRITERS)
        ]  # fmt: skip
        self._writing: list[int] = []

    def who_know(self, acknowledged: set[str]) -> Writers:
        """These, and what others heard before them."""
        self.acknowledged |= acknowledged
        return self

    def start(self) -> None:
        for maker in self._makers:
            assert maker.stdin is not None
            maker.stdin.write("\n")
            maker.stdin.flush()
        said = [self._said(maker).split() for maker in self._makers]
        assert [words[:1] for words in said] == [["ready"]] * WRITERS
        self._writing = [int(words[1]) for words in said]

    def hear(self, count: int) -> None:
        """So many more acknowledgements of each; what they log besides is passed over."""
        for maker in self._makers:
            heard: set[str] = set()
            while len(heard) < count:
                heard |= ids([self._said(maker)])
            self.acknowledged |= heard

    def kill(self) -> int:
        """SIGKILL, one after the other; how many."""
        for process in self._writing:
            os.kill(process, signal.SIGKILL)
        for maker in self._makers:
            self.acknowledged |= ids(list(iter(lambda maker=maker: self._said(maker), "gone")))
        return len(self._writing)

    def end(self) -> None:
        for maker in self._makers:
            maker.communicate(timeout=30)

    @staticmethod
    def _said(maker: subprocess.Popen[str]) -> str:
        assert maker.stdout is not None
        line = maker.stdout.readline()
        assert line, "the writer has ended by itself"
        return line.strip()


def ids(lines: list[str]) -> set[str]:
    return {line for line in lines if re.fullmatch(r"[0-9a-f]{32}", line)}


def prepared(url: str, home: Path) -> Store:
    Keys.make(home / "keys")
    store = Store(url)
    migrate.upgrade(store)
    opened(store, home, origin=ORIGIN)
    return store


def held(store: Store, home: Path, acknowledged: set[str]) -> int:
    """The log holds what was acknowledged, one entry an act or a read, without gap or fork; its size."""
    trail = Trail(store, Keys.load(home / "keys"), opened(store, home, origin=ORIGIN))
    size = trail.advance_pending()
    with store.reading() as reading:
        entries = reading.all(EntryRow, order=("seq",))
        acts = {row.jti_sha256 for row in reading.all(SpentTokenRow)}
        reads = {row.event_id for row in reading.all(EventRow, type=READ)}
        bodies = {row.event_id for row in reading.all(EventRow)} & {row.event_id for row in reading.all(EventKeyRow)}
        assert reading.all(OutboxRow) == []
    assert [entry.seq for entry in entries] == list(range(size))
    assert acknowledged <= {entry.event_id for entry in entries}
    assert {entry.event_id for entry in entries} == acts | reads == bodies
    assert not acts & reads
    shutil.rmtree(home / "log", ignore_errors=True)
    folder: LogFolder = published(store, home / "log")
    assert fsck(folder, policy_of(store)).facts["entries"] == size
    for event_id in random.Random(1).sample(sorted(acknowledged), min(10, len(acknowledged))):
        trail.receipt(EntryRef(event_id)).verify(policy_of(store))
    return size


def test_writers_killed_at_any_moment_lose_nothing_acknowledged(
    tmp_path: Path, long: bool, tally: Callable[[str], None]
) -> None:
    chance = random.Random(7)
    store = prepared(f"sqlite:///{tmp_path}/broker.db", tmp_path)
    writers, killed = Writers(store.url, tmp_path), 0
    for _ in range(40 if long else 3):
        writers.start()
        writers.hear(chance.randint(1, 12))
        time.sleep(chance.uniform(0, 0.2))
        killed += writers.kill()
    writers.end()
    size = held(store, tmp_path, writers.acknowledged)
    tally(f"{killed} writers killed, {len(writers.acknowledged)} events acknowledged, {size} in the log, 0 lost")
    store.close()


def test_a_postgresql_that_goes_down_at_once_loses_nothing_acknowledged(
    server: Server, tmp_path: Path, long: bool, tally: Callable[[str], None]
) -> None:
    chance = random.Random(8)
    with a_database(server.address, keep=True) as url:
        store = prepared(url, tmp_path)
    rounds = 10 if long else 1
    writers = Writers(url, tmp_path)
    for number in range(rounds):
        writers.start()
        writers.hear(chance.randint(4, 12))
        time.sleep(chance.uniform(0, 0.3))
        server.crash()
        time.sleep(chance.uniform(0, 0.5))
        server.start()
        if not number % 2:
            writers.hear(3)  # they carry on by themselves
        writers.kill()
        store.close()  # its connections are of the server that went down
        size = held(store, tmp_path, writers.acknowledged)
    writers.end()
    tally(f"{rounds} PostgreSQL shutdowns, {len(writers.acknowledged)} events acknowledged, {size} in the log, 0 lost")
    store.close()
