"""SIGKILL: whatever was acknowledged is there, and `broker serve`, started again, serves the last good view.

The real commands are killed at a system call (`strace -e inject=NAME:signal=SIGKILL:when=N` kills the process as it enters
the Nth such call of a thread, so that the call does not happen) or as soon as something can be seen from outside.  Then the
real `broker serve` is started and asked over HTTP.  `make test` kills one batch on its way in and one night after another at
the points named below; with --long every call of every name is a point, each from a fresh start, until the command survives.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from audit.checkpoint import SignedCheckpoint
from audit.merkle import Frontier, leaf_hash
from broker import clock, nightly, validation
from broker.errors import StoreUnavailable
from broker.linked import clusters_of
from broker.settings import Settings
from broker.store.batches import BatchRow
from broker.store.items import ItemRow
from broker.store.log import EntryRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.wiring import Broker, wire
from linkage.matching.link import KEPT
from tests.broker.test_nightly import NAMES, NIGHT, a_night, ref
from tests.builders import COUNCIL, ICB, Batch, a_ref, an_item
from tests.builders_broker import Caller, an_installation, reception, serving, some_settings
from tests.faults.points import Half, Lost, Points, some

pytestmark = pytest.mark.faults

COMMAND = (sys.executable, "-c", "from broker.cli import main; main()")
CALLS = ("pwrite64", "fdatasync", "fsync", "rename", "unlink", "write", "ftruncate", "sendto")
Point = tuple[str, int | str]  # a system call and how often, or a moment seen from outside
COMMITTED = ("commit", 0)  # the client has its 202
LINKING = ("link", 0)  # the run has said so
PUBLISHING = ("publish", 0)  # all segments of the run are under their names
INGEST: tuple[Point, ...] = (("fdatasync", 4), COMMITTED)
NIGHT_RUN: tuple[Point, ...] = (LINKING, PUBLISHING)
SEGMENTS = 7 + len(KEPT)  # that a night of one changed flow writes
FLOWS = {COUNCIL: ("education",), ICB: ("health",)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "points" not in metafunc.fixturenames:
        return
    short = INGEST if "batch_comes_in" in metafunc.function.__name__ else NIGHT_RUN
    cases = [pytest.param(short, True, id="one after another")]
    if metafunc.config.getoption("--long", default=False):
        cases = [
            pytest.param(some([(name, when) for when in range(1, 1000)], metafunc.config), False, id=f"every {name}")
            for name in CALLS
        ]
    metafunc.parametrize(("points", "chained"), cases)


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def nights() -> dict[str, Batch]:
    return some_nights()


def some_nights() -> dict[str, Batch]:
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
    linked_once(settings_of(folder, port), nights)
    return folder


def linked_once(settings: Settings, nights: dict[str, Batch]) -> None:
    """The first two nights linked and in service, and one more accepted."""
    with serving(settings) as http:
        desk = reception(http)
        for name, agency in (("first", COUNCIL), ("health", ICB)):
            Caller(http, agency, base=settings.base_url).hand_in(nights[name])
        broker: Broker = http.app.state.broker  # type: ignore[attr-defined]
        assert nightly.run(broker, night=NIGHT, at=clock.now())["state"] == "published"
        Caller(http, COUNCIL, base=settings.base_url).hand_in(nights["second"])
        assert list(validation.validate_sealed(desk).values()) == ["accepted"]
        broker.trail.advance_pending()


def base(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def settings_of(folder: Path, port: int) -> Settings:
    return some_settings(folder, base_url=base(port), port=port)


@contextmanager
def killed_at(
    point: Point, folder: Path, *arguments: str, fault: str = "signal=SIGKILL", log: str = os.devnull
) -> Iterator[subprocess.Popen[bytes]]:
    """The command, which dies (or meets another `fault`) as it enters the call; if the point is none, its caller kills it."""
    name, when = point
    trace = ("strace", "-f", "-qq", "-o", log, "-e", f"trace={name}")
    inject = ("-e", f"inject={name}:{fault}:when={when}")
    command = (*((*trace, *inject) if when else ()), *COMMAND, *arguments, "--config", str(folder / "broker.toml"))
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=Path.cwd()
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # ours alone: the session was made for it
        process.wait()
        while _is_there(process.pid):  # strace may end before what it traced
            time.sleep(0.01)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def served(folder: Path, port: int) -> Iterator[httpx2.Client]:
    """`broker serve`, started again; stopped in order."""
    command = (*COMMAND, "serve", "--config", str(folder / "broker.toml"))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path.cwd()) as process:
        try:
            with httpx2.Client(base_url=base(port), timeout=30) as http:
                assert wait_until_up(http, process), "the broker does not start again"
                yield http
        finally:
            process.terminate()


class Refused(Exception):
    """The broker answered with an error."""


def expect(answer: Any, status: int) -> Any:
    if answer.status_code >= 500:
        raise Refused(f"{answer.status_code} {answer.json()['type']}")
    assert answer.status_code == status, answer.text
    return answer


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

    def fault(self) -> str:
        """Which fault it is to be killed now."""
        if self.id is None:
            return "F01"
        if len(self.arrived) < len(list(self.batch.chunks())):
            return "F02"
        return "F03" if self.sealed else "F04"

    def go_on(self, *, seconds: float = 120.0) -> None:
        """Hand in what is missing, and wait for the verdict."""
        self.hand_in()
        self.see_verdict(seconds=seconds)

    def hand_in(self) -> None:
        """Open, fill what is missing, commit; from wherever it stands."""
        caller = Caller(self.http, self.agency, base=self.base)
        expect(caller.sign_in(), 200)
        opened = expect(caller.open(self.batch), 201)
        if self.id not in (None, opened.json()["batch"]):
            raise Lost("a batch that was opened is lost")
        self.id = str(opened.json()["batch"])
        shown = expect(caller.on(self.batch, self.id), 200).json()
        if self.sealed and shown["state"] not in ("sealed", "validating", "accepted"):
            raise Lost("a batch that was acknowledged is lost")
        missing = {(entry["table"], entry["chunk"]) for entry in shown["missing"]}
        if missing & self.arrived:
            raise Lost("a chunk that was acknowledged is missing")
        for table, number, content in self.batch.chunks():
            if (table, number) in missing:
                expect(caller.put(self.batch, self.id, table, number, content), 204)
                self.arrived.add((table, number))
        expect(caller.commit(self.batch, self.id), 202)
        self.sealed = True
        if self.kill is not None:
            self.kill.kill()
        caller.on(self.batch, self.id, "receipt?kind=received")

    def see_verdict(self, *, seconds: float) -> None:
        """Wait until the batch is accepted, at most so long, and for the receipt that says so.  Raises Refused if it is
        undecided still: a worker that failed tries again after a minute.
        """
        caller = Caller(self.http, self.agency, base=self.base)
        assert self.id is not None
        end = time.monotonic() + seconds
        while True:
            self.state = expect(caller.on(self.batch, self.id), 200).json()["state"]
            if self.state == "accepted" or time.monotonic() >= end:
                break
            time.sleep(0.05)
        if self.state in ("sealed", "validating"):
            raise Refused(f"no verdict in {seconds} s")
        expect(caller.on(self.batch, self.id, "receipt?kind=verdict"), 200)


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
    points: Sequence[Point],
    chained: bool,
    installed: Path,
    tmp_path: Path,
    port: int,
    nights: dict[str, Batch],
    tally: Callable[[str], None],
    count: Points,
) -> None:
    folder, client = tmp_path / "broker", Client(None, COUNCIL, base(port), nights["first"])
    for at, point in enumerate(points):
        if not (chained and at):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(installed, folder)
            client = Client(None, COUNCIL, base(port), nights["first"])
        survived = not killed_with_a_batch_on_its_way(point, folder, client, port)
        assert not (survived and (chained or point[1] == 1)), f"nothing was killed at {point}: choose another call"
        if chained and at < len(points) - 1:
            continue
        if survived:
            goes_on(client, folder, port)
            break
        with count.at(client.fault()):
            goes_on(client, folder, port)
    tally(
        f"kills, a batch: {at if survived else len(points)} points of {points[0][0] if not chained else 'several calls'}"
    )


def goes_on(client: Client, folder: Path, port: int) -> None:
    """The broker, started again, takes the rest of the batch and accepts it: once, whole, and the log is sound."""
    with served(folder, port) as client.http:  # its worker takes up what is sealed
        client.go_on()
        assert client.state == "accepted"
    broker = wire(settings_of(folder, port))
    with broker.store.reading() as tx:
        assert [(row.id, row.state) for row in tx.all(BatchRow)] == [(client.id, "accepted")]
        if len(tx.all(ItemRow)) != client.batch.manifest.tables["items"].rows:
            raise Half("the batch has other rows than its manifest says")
    check_log(broker)
    broker.store.close()


def killed_with_a_batch_on_its_way(point: Point, folder: Path, client: Client, port: int) -> bool:
    """Whether `broker serve` died while `client` handed in its batch."""
    with killed_at(point, folder, "serve") as process, httpx2.Client(base_url=base(port), timeout=30) as http:
        client.http, client.kill = http, process if point == COMMITTED else None
        try:
            if wait_until_up(http, process):
                client.go_on()
            return process.poll() is not None
        except httpx2.HTTPError:
            process.wait(timeout=20)
            return True
        finally:
            client.kill = None


def test_a_night_killed_anywhere_leaves_one_whole_view_and_the_next_run_finishes(
    points: Sequence[Point],
    chained: bool,
    linked: Path,
    tmp_path: Path,
    port: int,
    nights: dict[str, Batch],
    tally: Callable[[str], None],
    count: Points,
) -> None:
    folder = tmp_path / "broker"
    for at, point in enumerate(points):
        if not (chained and at):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(linked, folder)
        survived = not killed_at_night(point, folder, port)
        assert not (survived and (chained or point[1] == 1)), f"nothing was killed at {point}: choose another call"
        with nullcontext() if survived else count.at("F05"):
            broker = wire(settings_of(folder, port))
            with broker.store.reading() as tx:
                pointer = tx.one(PublishedRow)
                assert pointer is not None
                run = tx.one(LinkRunRow, id=pointer.run)
                [batch] = tx.all(BatchRow, sequence=2)
            assert run is not None
            assert pointer.version == 1 or point != LINKING
            whole = {1: 10, 2: 12}[pointer.version]  # records of the run before, of the new one
            if not clusters_of(broker.vault, run).num_rows == run.counts["records"] == whole:
                raise Half("the view in service is none that a run made")
            with served(folder, port) as http:
                ready = http.get("/health/ready")
                assert (ready.status_code, ready.json()["run"]) == (200, run.id)
                shown = Caller(http, COUNCIL, base=base(port)).on(nights["second"], batch.id).json()
                assert shown["state"] == ("accepted" if pointer.version == 1 else "linked")
            if not chained or at == len(points) - 1:
                finish(broker, folder, version=pointer.version)
            broker.store.close()
        if survived:
            break
    tally(
        f"kills, a night: {at if survived else len(points)} points of {points[0][0] if not chained else 'several calls'}"
    )


@pytest.mark.parametrize("fault", ["fsync 1", "fdatasync 9", "pwrite64 30+"])
def test_a_disk_that_fails_while_a_batch_comes_in_makes_no_acknowledgement_untrue(
    fault: str,
    installed: Path,
    tmp_path: Path,
    port: int,
    nights: dict[str, Batch],
    pytestconfig: pytest.Config,
    tally: Callable[[str], None],
    count: Points,
) -> None:
    """Input/output errors: once where a file is synced, and from some write on, in each thread of the broker."""
    name, when = fault.split()
    folder, long = tmp_path / "broker", pytestconfig.getoption("--long")
    if name != "fdatasync" and not long:
        pytest.skip("every place where a disk may fail: make faults")
    log, survived = tmp_path / "calls", 0
    every = list(range(1, 1000, 5 if when.endswith("+") else 1))
    for at in some(every, pytestconfig) if long else [int(when.rstrip("+"))]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(installed, folder)
        client = Client(None, COUNCIL, base(port), nights["first"])
        point = (name, f"{at}{'+' * when.endswith('+')}")
        with (
            killed_at(point, folder, "serve", fault="error=EIO", log=str(log)) as process,
            httpx2.Client(base_url=base(port), timeout=30) as client.http,
        ):
            if wait_until_up(client.http, process):
                with suppress(Refused, httpx2.HTTPError):
                    client.go_on(seconds=10)
        if long and "(INJECTED)" not in log.read_text():
            break  # no thread makes so many of these calls
        assert "(INJECTED)" in log.read_text()
        with count.at("F10"):
            goes_on(client, folder, port)
        survived += 1
    tally(f"input/output errors, a batch: {survived} points of {name}")


@pytest.mark.parametrize("short_of", ["room pwrite64", "room write", "memory"])
def test_a_night_that_runs_out_leaves_the_last_view_in_service_and_the_next_finishes(
    short_of: str,
    linked: Path,
    tmp_path: Path,
    port: int,
    pytestconfig: pytest.Config,
    tally: Callable[[str], None],
    count: Points,
) -> None:
    """The disk fills from some write on; or linkage has less memory than it needs."""
    if not pytestconfig.getoption("--long"):
        pytest.skip("each point is a night of its own: make faults")
    folder, log, tried = tmp_path / "broker", tmp_path / "calls", 0
    what, _, name = short_of.partition(" ")
    steps = range(1, 1000, 5) if what == "room" else range(200, 2400, 100)
    for at in some(steps, pytestconfig):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(linked, folder)
        if what == "room":
            with killed_at((name, f"{at}+"), folder, "nightly", fault="error=ENOSPC", log=str(log)) as process:
                code = process.wait(timeout=300)
            if "(INJECTED)" not in log.read_text():
                assert code == 0
                break
        else:
            command = ("prlimit", f"--as={at * 2**20}", *COMMAND, "nightly", "--config", str(folder / "broker.toml"))
            code = subprocess.run(command, capture_output=True, check=False, timeout=300).returncode
        with count.at("F09" if what == "room" else "F20"):
            broker = wire(settings_of(folder, port))
            with broker.store.reading() as tx:
                pointer = tx.one(PublishedRow)
                assert pointer is not None
                run = tx.one(LinkRunRow, id=pointer.run)
            assert run is not None
            if code == 0 and pointer.version != 2:
                raise Lost("a night that said it was done is not in service")
            if not clusters_of(broker.vault, run).num_rows == run.counts["records"] == {1: 10, 2: 12}[pointer.version]:
                raise Half("the view in service is none that a run made")
            finish(broker, folder, version=pointer.version)
            broker.store.close()
        tried += 1
        if what == "memory" and code == 0:
            break
    tally(f"a night short of {short_of}: {tried} points")


def test_a_night_that_was_paused_past_its_lease_puts_nothing_in_service(
    linked: Path, tmp_path: Path, port: int, pytestconfig: pytest.Config
) -> None:
    """Its machine slept (SIGSTOP), another took over and published; it wakes, and finds that the run is no longer its own."""
    if not pytestconfig.getoption("--long"):
        pytest.skip("a process that sleeps: make faults")
    folder = tmp_path / "broker"
    shutil.copytree(linked, folder)
    broker = wire(settings_of(folder, port))
    with killed_at(("pause", 0), folder, "nightly") as sleeper:
        while not running(broker):
            assert sleeper.poll() is None
            time.sleep(0.002)
        asleep = False
        while not asleep:  # not in a transaction of its own: on SQLite nobody could write until it woke
            os.kill(sleeper.pid, signal.SIGSTOP)
            try:
                with broker.store.transaction() as tx:
                    [held] = tx.all(LinkRunRow, state="running")
                    held.lease_until = clock.now() - timedelta(seconds=1)
                    tx.add(held)
                asleep = True
            except StoreUnavailable:
                os.kill(sleeper.pid, signal.SIGCONT)
                time.sleep(0.01)
        (folder / "nightly.lock").unlink()  # it holds on this machine alone; the one that takes over is another
        done = nightly.run(broker, night=NIGHT, at=clock.now())
        assert done["state"] == "published"
        os.kill(sleeper.pid, signal.SIGCONT)
        assert sleeper.wait(timeout=60) not in (0, -signal.SIGKILL)
    with broker.store.reading() as tx:
        pointer = tx.one(PublishedRow)
        assert pointer is not None
        assert (pointer.run, pointer.version) == (done["run"], 2)
    finish(broker, folder, version=2)
    broker.store.close()


def running(broker: Broker) -> bool:
    with broker.store.reading() as tx:
        return bool(tx.all(LinkRunRow, state="running", stage="link"))


def killed_at_night(point: Point, folder: Path, port: int) -> bool:
    """Whether `broker nightly` died."""
    before = set((folder / "vault").glob("*.seg"))
    with killed_at(point, folder, "nightly") as process:
        broker = wire(settings_of(folder, port))
        while point in (LINKING, PUBLISHING) and process.poll() is None:
            if point == PUBLISHING:
                seen = len(set((folder / "vault").glob("*.seg")) - before) >= SEGMENTS
            else:
                seen = running(broker)
            if seen:
                process.kill()
            time.sleep(0.002)
        broker.store.close()
        return process.wait(timeout=120) == -signal.SIGKILL


def finish(broker: Broker, folder: Path, *, version: int) -> None:
    """The next run does what is left, and tidies up."""
    done = nightly.run(broker, night=NIGHT, at=clock.now())
    assert done["state"] == ("published" if version == 1 else "unchanged")
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


def spooled(folder: Path) -> list[str]:
    return [path.name for path in (folder / "spool").iterdir() if not path.name.startswith(".")]
