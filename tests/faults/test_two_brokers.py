"""Two `broker serve` on one PostgreSQL under uploads: one is killed, the database is away for a minute, and nothing is lost.

Each is a process of its own, with its own worker that validates.  Every night is handed in by two senders at once, under
one key, each of which asks now this broker, now the other.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import httpx2
import pytest

from broker.settings import Settings
from broker.store.batches import BatchRow
from broker.store.items import ItemRow
from broker.wiring import wire
from tests.broker.test_nightly import NAMES, a_night, ref
from tests.builders import Batch, a_ref, an_item
from tests.builders_broker import BASE, an_installation
from tests.faults.points import Half, Lost, Points
from tests.faults.test_kill import COMMAND, FLOWS, Client, Refused, check_log, wait_until_up
from tests.postgres import Server, a_database

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        "not config.getoption('--long')", reason="two brokers and a PostgreSQL of one's own: make faults"
    ),
]
NIGHTS = 8
AWAY = 60.0  # seconds that the database is down
PATIENCE = 240.0


@dataclass
class Hosts:
    """Two brokers, their database, and what was heard of them."""

    settings: Settings
    server: Server
    ports: Sequence[int]
    serving: list[Popen[bytes]] = field(default_factory=list)

    def serve(self, which: int) -> None:
        """Start one of them, in place of the one there was."""
        config = self.settings.data_dir / f"{which}.toml"
        config.write_text(
            f'environment = "production"\npartnership = "{self.settings.partnership}"\nbase_url = "{BASE}"\n'
            f'port = {self.ports[which]}\ndata_dir = "."\nsigner = "inline"\n'
            f'database_url = "{self.settings.database_url.get_secret_value()}"\n'
        )
        begun = Popen((*COMMAND, "serve", "--config", str(config)), stdout=DEVNULL, stderr=DEVNULL, cwd=Path.cwd())
        self.serving[which : which + 1] = [begun]
        with httpx2.Client(base_url=f"http://127.0.0.1:{self.ports[which]}", timeout=30) as http:
            assert wait_until_up(http, begun), "a broker does not start"

    def end(self) -> None:
        for process in self.serving:
            process.kill()
            process.wait()


class Either:
    """A way to two brokers, of which each request takes one by chance."""

    def __init__(self, ports: Sequence[int], chance: random.Random, told: Callable[[Any], None]) -> None:
        self.ways = [httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) for port in ports]
        self.chance, self.told = chance, told

    def _heard(self, answer: Any) -> Any:
        self.told(answer)
        return answer

    def request(self, *given: Any, **named: Any) -> Any:
        return self._heard(self.chance.choice(self.ways).request(*given, **named))

    def post(self, *given: Any, **named: Any) -> Any:
        return self._heard(self.chance.choice(self.ways).post(*given, **named))


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    server = Server()
    with ExitStack() as ending:
        ending.callback(server.remove)
        server.start()
        url = ending.enter_context(a_database(server.address, keep=True))
        settings = an_installation(
            tmp_path / "broker", agencies=FLOWS, database_url=url, environment="production", signer="inline"
        )
        made = Hosts(settings, server, free_ports())
        ending.callback(made.end)
        for which in range(2):
            made.serve(which)
        yield made


def free_ports() -> list[int]:
    with ExitStack() as held:
        listening = [held.enter_context(socket.socket()) for _ in range(2)]
        for one in listening:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in listening]


def the_nights() -> list[Batch]:
    return [
        a_night(
            agency, flow, sequence=sequence,
            items=[an_item(a_ref(f"{agency}-{sequence}-{at}"), ref(agency, flow, NAMES[0])) for at in range(10 * sequence)],
        )
        for sequence in range(1, NIGHTS + 1)
        for agency, (flow,) in FLOWS.items()
    ]  # fmt: skip


@dataclass
class Uploads:
    """Senders at work, and the answers by which they were told to come back, each with its Retry-After."""

    senders: Sequence[threading.Thread]
    refused: list[tuple[int, str]]

    @property
    def at_work(self) -> bool:
        return any(sender.is_alive() for sender in self.senders)


@contextmanager
def uploads(hosts: Hosts, nights: Sequence[Batch], chance: random.Random) -> Iterator[Uploads]:
    """Every night handed in twice at once; left when each was acknowledged to both."""
    refused: list[tuple[int, str]] = []
    failed: list[BaseException] = []

    def told(answer: Any) -> None:
        if answer.status_code >= 500 or answer.status_code == 429:
            refused.append((answer.status_code, answer.headers.get("retry-after", "")))

    def sends(flow: str, seed: float) -> None:
        try:
            for night in (night for night in nights if night.manifest.flow == flow):
                client, until = Client(None, night.manifest.agency, BASE, night), time.monotonic() + PATIENCE
                client.http = Either(hosts.ports, random.Random(seed), told)
                while not client.sealed:
                    try:
                        client.hand_in()
                    except (Refused, httpx2.HTTPError, AssertionError) as wrong:
                        if isinstance(wrong, Lost) or time.monotonic() > until:
                            raise
                        time.sleep(0.5)
        except BaseException as wrong:
            failed.append(wrong)

    flows = [flow for (flow,) in FLOWS.values() for _ in range(2)]
    senders = [threading.Thread(target=sends, args=(flow, chance.random())) for flow in flows]
    for sender in senders:
        sender.start()
    yield Uploads(senders, refused)
    for sender in senders:
        sender.join()
    if failed:
        raise failed[0]


def each_is_there_once(hosts: Hosts, nights: Sequence[Batch]) -> None:
    """When the workers are done: the newest night of each flow is in, whole, and every other one gave way to it."""
    broker, until = wire(hosts.settings), time.monotonic() + PATIENCE
    while True:
        with broker.store.reading() as tx:
            found = {(row.agency, row.flow, row.sequence): row for row in tx.all(BatchRow)}
            rows, items = len(tx.all(BatchRow)), tx.all(ItemRow)
        if {row.state for row in found.values()} <= {"accepted", "superseded"} or time.monotonic() > until:
            break
        time.sleep(0.5)
    due = {(night.manifest.agency, night.manifest.flow, night.manifest.sequence): night for night in nights}
    if rows != len(found) or found.keys() != due.keys():
        raise Lost("a night that was acknowledged is lost, or is there twice")
    for (agency, flow, sequence), row in found.items():
        if row.state != ("accepted" if sequence == NIGHTS else "superseded"):
            raise Lost(f"night {sequence} of {flow} is {row.state}")
        held = [item for item in items if (item.agency, item.flow) == (agency, flow)]
        if sequence == NIGHTS and {item.batch for item in held} != {row.id}:
            raise Half(f"items of {flow} are of another night than its newest")
        if sequence == NIGHTS and len(held) != due[agency, flow, sequence].manifest.tables["items"].rows:
            raise Half(f"of the newest night of {flow} only a part is there")
    check_log(broker)
    broker.store.close()


def test_of_two_brokers_under_uploads_one_is_killed_and_every_night_is_taken_in_once(
    hosts: Hosts, count: Points, pytestconfig: pytest.Config
) -> None:
    chance, nights = random.Random(pytestconfig.getoption("--seed")), the_nights()
    with count.at("F14"):
        with uploads(hosts, nights, chance) as sent:
            kills = 0
            while sent.at_work:
                time.sleep(chance.uniform(0.1, 1.0))
                which = chance.randrange(2)
                hosts.serving[which].kill()
                kills += sent.at_work
                hosts.serving[which].wait()
                hosts.serve(which)
        each_is_there_once(hosts, nights)
    assert kills > 1, "nobody was killed under uploads: hand in more"
    count.add("F14", points=kills - 1, survived=kills - 1)


def test_a_database_that_is_away_for_a_minute_is_told_as_such_and_the_brokers_go_on_by_themselves(
    hosts: Hosts, count: Points, pytestconfig: pytest.Config
) -> None:
    chance, nights = random.Random(pytestconfig.getoption("--seed")), the_nights()
    with count.at("F11"):
        with uploads(hosts, nights, chance) as sent:
            time.sleep(chance.uniform(0.3, 1.5))
            hosts.server.crash()
            time.sleep(AWAY)
            hosts.server.start()
        assert {status for status, _ in sent.refused} == {503}
        assert min(int(later or 0) for _, later in sent.refused) > 0
        assert [process.poll() for process in hosts.serving] == [None, None]
        each_is_there_once(hosts, nights)
