"""SIGKILL on the way into a system call: whatever was acknowledged is there, the last good view is served.

The real commands run under `strace -e inject=NAME:signal=SIGKILL:when=N`, which kills the process as it enters the Nth
such call of a thread, so that the call does not happen.  `make test` takes the points named below; with --long every call of
every name is a point, until the command survives.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from audit.checkpoint import SignedCheckpoint
from audit.merkle import Frontier, leaf_hash
from broker import clock, nightly, validation
from broker.app import create_app, wire
from broker.dependencies import Broker
from broker.linked import InService
from broker.settings import Settings
from broker.store.batches import BatchRow
from broker.store.items import ItemRow
from broker.store.log import EntryRow
from broker.store.runs import LinkRunRow, PublishedRow
from tests.broker.test_nightly import NAMES, NIGHT, a_night, ref
from tests.builders import COUNCIL, ICB, Batch, a_ref, an_item
from tests.builders_broker import Caller, an_installation, reception, serving, some_settings

pytestmark = pytest.mark.faults

COMMAND = (sys.executable, "-c", "from broker.cli import main; main()")
CALLS = ("pwrite64", "fdatasync", "fsync", "rename", "unlink", "write", "ftruncate", "sendto")
COMMITTED = ("commit", 0)  # not a call: a plain kill as soon as the client has its 202
INGEST = {
    ("fsync", 2): "a chunk on its way to the disk",
    ("rename", 3): "a chunk under its name",
    ("fdatasync", 4): "a row on its way to the disk",
    ("write", 4): "a sealed batch being opened",
    COMMITTED: "the commit just acknowledged",
}
NIGHT_RUN = {
    ("rename", 4): "segments half written",
    ("pwrite64", 40): "the pointer half flipped",
    ("fdatasync", 6): "the pointer flipped",
}
FLOWS = {COUNCIL: ("education",), ICB: ("health",)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    short = INGEST if "batch_comes_in" in metafunc.function.__name__ else NIGHT_RUN
    cases = [pytest.param([point], id=words) for point, words in short.items()]
    if metafunc.config.getoption("--long", default=False):
        cases = [pytest.param([(name, when) for when in range(1, 1000)], id=f"every {name}") for name in CALLS]
    metafunc.parametrize("at", cases)


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def nights() -> dict[str, Batch]:
    record = ref(COUNCIL, "education", NAMES[0])
    return {
        "first": a_night(COUNCIL, "education", NAMES[:4], items=[an_item(a_ref(at), record) for at in range(40)]),
        "health": a_night(ICB, "health"),
        "second": a_night(COUNCIL, "education", sequence=2),
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, port: int) -> Path:
    if shutil.which("strace") is None:
        pytest.fail("strace is not here: apt-get install -y --no-install-recommends strace")
    folder = tmp_path_factory.mktemp("installed")
    an_installation(folder, agencies=FLOWS, base_url=base(port), port=port)
    (folder / "broker.toml").write_text(
        f'environment = "demo"\npartnership = "northshire"\nbase_url = "{base(port)}"\nport = {port}\n'
        'database_url = "sqlite:///broker.sqlite"\ndata_dir = "."\nlinger_ms = 0\n'
    )
    return folder


@pytest.fixture(scope="module")
def linked(installed: Path, tmp_path_factory: pytest.TempPathFactory, port: int, nights: dict[str, Batch]) -> Path:
    """An installation with a run in service and one more night accepted."""
    folder = tmp_path_factory.mktemp("linked") / "broker"
    shutil.copytree(installed, folder)
    with serving(settings_of(folder, port)) as http:
        desk = reception(http)
        for name, agency in (("first", COUNCIL), ("health", ICB)):
            Caller(http, agency, base=base(port)).hand_in(nights[name])
        broker: Broker = http.app.state.broker  # type: ignore[attr-defined]
        assert nightly.run(broker, night=NIGHT, at=clock.now())["state"] == "published"
        Caller(http, COUNCIL, base=base(port)).hand_in(nights["second"])
        assert list(validation.validate_sealed(desk).values()) == ["accepted"]
        broker.trail.advance_pending()
    return folder


def base(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def settings_of(folder: Path, port: int) -> Settings:
    return some_settings(folder, base_url=base(port), port=port)


@contextmanager
def killed_at(name: str, when: int, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, which dies as it enters the `when`th call `name` of a thread."""
    trace = ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={name}")
    inject = ("-e", f"inject={name}:signal=SIGKILL:when={when}")
    command = (
        *((*trace, *inject) if (name, when) != COMMITTED else ()),
        *COMMAND,
        *arguments,
        "--config",
        str(folder / "broker.toml"),
    )
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=Path.cwd()
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # ours alone: the session was made for it
        process.wait()


@dataclass
class Client:
    """Hands in one batch, and remembers what it was promised."""

    http: Any
    agency: str
    base: str
    batch: Batch
    arrived: set[tuple[str, int]] = field(default_factory=set)
    id: str | None = None
    sealed: bool = False
    state: str = ""
    kill: subprocess.Popen[bytes] | None = None  # as soon as the commit is acknowledged

    def go_on(self, *, until: float = 20.0) -> None:
        """Open, fill what is missing, commit, wait for the verdict; from wherever it stands."""
        caller = Caller(self.http, self.agency, base=self.base)
        opened = caller.open(self.batch)
        assert opened.status_code == 201, opened.text
        assert self.id in (None, opened.json()["batch"])
        self.id = str(opened.json()["batch"])
        shown = caller.on(self.batch, self.id).json()
        missing = {(entry["table"], entry["chunk"]) for entry in shown["missing"]}
        assert not missing & self.arrived, "a chunk that was acknowledged is missing"
        for table, number, content in self.batch.chunks():
            if (table, number) in missing:
                assert caller.put(self.batch, self.id, table, number, content).status_code == 204
                self.arrived.add((table, number))
        assert caller.commit(self.batch, self.id).status_code == 202
        self.sealed = True
        if self.kill is not None:
            self.kill.kill()
        caller.on(self.batch, self.id, "receipt?kind=received")
        end = time.monotonic() + until
        while self.state != "accepted" and time.monotonic() < end:
            self.state = caller.on(self.batch, self.id).json()["state"]
            time.sleep(0.05)
        assert caller.on(self.batch, self.id, "receipt?kind=verdict").status_code == 200


def wait_until_up(http: httpx2.Client, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        try:
            return http.get("/health/live").status_code == 200
        except httpx2.HTTPError:
            time.sleep(0.05)
    return False


def check_log(broker: Broker) -> None:
    """Every entry is in its place under the newest checkpoint: nothing lost, changed or left out."""
    broker.trail.advance_pending()
    signed = broker.trail.signed()
    assert signed is not None
    with broker.store.reading() as tx:
        entries = tx.all(EntryRow, order=("seq",))
    assert [entry.seq for entry in entries] == list(range(signed.size))
    root = Frontier().extend([leaf_hash(entry.leaf) for entry in entries]).root
    assert SignedCheckpoint.parse(signed.note.decode()).checkpoint.root == root


def test_a_broker_killed_while_a_batch_comes_in_loses_nothing_it_acknowledged(
    at: list[tuple[str, int]], installed: Path, tmp_path: Path, port: int, nights: dict[str, Batch]
) -> None:
    for name, when in at:
        folder = tmp_path / f"{name}-{when}"
        shutil.copytree(installed, folder)
        client = Client(None, COUNCIL, base(port), nights["first"])
        with (
            killed_at(name, when, folder, "serve") as process,
            httpx2.Client(base_url=base(port), timeout=30) as http,
        ):
            client.http, client.kill = http, process if (name, when) == COMMITTED else None
            survived = False
            if wait_until_up(http, process):
                try:
                    client.go_on()
                    survived = process.poll() is None
                except httpx2.HTTPError:
                    process.wait(timeout=20)
        client.kill = None
        settings = settings_of(folder, port)
        with serving(settings) as again:
            broker: Broker = again.app.state.broker  # type: ignore[attr-defined]
            with broker.store.reading() as tx:
                rows, items = tx.all(BatchRow), len(tx.all(ItemRow))
            assert items in (0, nights["first"].manifest.tables["items"].rows)
            if client.sealed:
                assert [row.state for row in rows] in (["sealed"], ["validating"], ["accepted"])
        with TestClient(create_app(settings), base_url=base(port)) as again:  # its worker takes up what is sealed
            client.http = again
            client.go_on()
            assert client.state == "accepted"
            broker = again.app.state.broker  # type: ignore[attr-defined]
            with broker.store.reading() as tx:
                [row] = tx.all(BatchRow)
            assert (row.id, row.state) == (client.id, "accepted")
            check_log(broker)
        if survived:
            assert len(at) > 1, "nothing was killed: choose another call"
            return


def test_a_night_killed_anywhere_leaves_one_whole_view_and_the_next_run_finishes(
    at: list[tuple[str, int]], linked: Path, tmp_path: Path, port: int
) -> None:
    for name, when in at:
        folder = tmp_path / f"{name}-{when}"
        shutil.copytree(linked, folder)
        with killed_at(name, when, folder, "nightly") as process:
            survived = process.wait(timeout=120) == 0
        broker = wire(settings_of(folder, port))
        with broker.store.reading() as tx:
            pointer = tx.one(PublishedRow)
            assert pointer is not None
            run = tx.one(LinkRunRow, id=pointer.run)
            [batch] = tx.all(BatchRow, sequence=2)
        area = InService(broker.store, broker.vault).area()
        assert run is not None
        assert area is not None
        assert area.run == run.id
        whole = {1: 10, 2: 12}[pointer.version]  # records of the run before, of the new one
        assert broker.vault.read(run.segments["clusters"]).num_rows == run.counts["records"] == whole
        assert batch.state == ("accepted" if pointer.version == 1 else "linked")
        done = nightly.run(broker, night=NIGHT, at=clock.now())
        assert done["state"] == ("published" if pointer.version == 1 else "unchanged")
        with broker.store.reading() as tx:
            pointer = tx.one(PublishedRow)
            assert pointer is not None
            assert pointer.version == 2
            assert {row.state for row in tx.all(BatchRow)} == {"linked", "superseded"}
            rows = {row.id: row for row in tx.all(LinkRunRow)}
            assert not [row for row in rows.values() if row.state in ("running", "built")]
        in_use = {segment for row in rows.values() if row.state == "published" for segment in row.segments.values()}
        assert broker.vault.segments() == in_use
        assert list((folder / "vault").glob("*.tmp")) == []
        assert spooled(folder) == []
        check_log(broker)
        broker.store.close()
        if survived:
            assert len(at) > 1, "nothing was killed: choose another call"
            return


def spooled(folder: Path) -> list[str]:
    return [path.name for path in (folder / "spool").iterdir() if not path.name.startswith(".")]
