"""The log under load: writers on PostgreSQL at a steady disk, and an audited answer beside the same with no audit.

Every fsync is made to take the same time (`steady_disk`), so the figures are of the code.  The writers and the servers
are processes of their own; the two servers of a pair are asked in turn, five times each, and the median is taken.
"""

from __future__ import annotations

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.sizes import sized
from tests.benchmarks.steady_disk import environment, postgres
from tests.postgres import a_database

TOPIC = "audit"
ORIGIN = "broker.example/audit/2026"
WRITERS, PROCESSES = 16, 2
SECONDS = sized(15, 2)
ROUNDS, ROUND_SECONDS = sized(5, 1), sized(4, 1)
CALLERS = 40  # as many as FastAPI answers at once from threads: it is the server that is measured, not the wait
AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)

Row = dict[str, object]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=log_throughput`."""
    yield from _appends(2_000)
    for microseconds, goal in ((0, 0.35), (5_000, 0.3)):
        yield from _audited_reads(microseconds, goal)


# --- Writers ---------------------------------------------------------------------------------------------------------


def _appends(microseconds: int) -> Iterator[Row]:
    disk = f"fsync {microseconds / 1000:g} ms"
    how = f"{WRITERS} writers, PostgreSQL, {disk}"
    told, cost = _written(microseconds, "append")
    commits = sorted(one for each in told for one in each["commits"])
    rate = len(commits) / max(each["seconds"] for each in told)
    yield _limit(f"events a second, {how}: act and event committed, sequenced, signed ({cost})", rate, 1_000, "/s",
                 rate >= 1_000)  # fmt: skip
    late = _at(commits, 0.99)
    yield _limit(
        f"append (act and event committed), p99, the same run (p50 {_at(commits, 0.5):.1f})", late, 50, "ms", late < 50
    )
    told, cost = _written(microseconds, "receipt")
    answers = sorted(one for each in told for one in each["answers"])
    rate = len(answers) / max(each["seconds"] for each in told)
    yield _limit(f"the same, each writer waiting for its receipt before its next act ({cost})", rate, None, "/s", None)
    yield _limit(f"receipt in hand, p99, that run (p50 {_at(answers, 0.5):.1f})", _at(answers, 0.99), None, "ms", None)


def _written(microseconds: int, until: str) -> tuple[list[dict[str, Any]], str]:
    """What each process of writers tells, and what an event costs in all processes together."""
    with postgres(microseconds) as server, a_database(server) as url, tempfile.TemporaryDirectory() as home:
        _installed(url, Path(home))
        command = [sys.executable, "-m", "tests.benchmarks.log_throughput", "write", url, home, until]
        before = _servers_cpu(server)
        started = [
            subprocess.Popen(command, env=environment(microseconds), stdout=subprocess.PIPE, text=True)
            for _ in range(PROCESSES)
        ]
        told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
        served = _servers_cpu(server) - before
        signed = _signed(url, Path(home))
    events = sum(len(each["commits"]) for each in told)
    assert signed == events, (signed, events)
    ours, theirs = sum(each["cpu"] for each in told) / events, served / events
    return told, f"CPU of the writers and sequencers {1e3 * ours:.2f} ms, of PostgreSQL {1e3 * theirs:.2f} ms each"


def _write(url: str, home: Path, until: str) -> None:
    """One process of writers: each commits an act with its event, and may wait for its receipt."""
    from broker.store.sessions import SpentTokenRow
    from broker.trail import new_event_id
    from tests.builders_log import an_event

    store, trail = _trail(url, home)
    commits: list[float] = []
    answers: list[float] = []
    start = time.monotonic()

    def work() -> None:
        while time.monotonic() < start + SECONDS:
            began = time.perf_counter()
            event = an_event(0, id=new_event_id())
            with store.transaction() as tx:
                tx.insert(SpentTokenRow, {"issuer": "w", "use": "w", "jti_sha256": event.id, "expires_at": AT})
                entry = trail.record(tx, event, about=["person-1"])
            commits.append(1e3 * (time.perf_counter() - began))
            if until == "receipt":
                trail.receipt(entry)
                answers.append(1e3 * (time.perf_counter() - began))
            else:
                trail.wake()

    spent = time.process_time()
    threads = [threading.Thread(target=work) for _ in range(WRITERS // PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trail.stop()  # all that waits is sequenced and signed
    assert trail.broken() is None
    told = {"seconds": time.monotonic() - start, "cpu": time.process_time() - spent}
    print(json.dumps({"commits": commits, "answers": answers, **told}))


def _signed(url: str, home: Path) -> int:
    """How many entries are under the newest checkpoint."""
    store, trail = _trail(url, home)
    trail.stop()
    newest = trail.signed()
    store.close()
    return newest.size if newest is not None else 0


def _servers_cpu(server: str) -> float:
    """Seconds of CPU of one PostgreSQL server: its first process, and all that it started."""
    host = re.search(r"host=(\S+)", server)
    assert host is not None
    first = Path(host[1], "data", "postmaster.pid").read_text().split()[0]
    ticks = 0
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit():
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                if process.name == first:
                    ticks += sum(map(int, fields[11:15]))  # and that of those of its children that have ended
                elif fields[1] == first:
                    ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


# --- Reads -----------------------------------------------------------------------------------------------------------


def _audited_reads(microseconds: int, goal: float) -> Iterator[Row]:
    measured: dict[str, list[float]] = {kind: [] for kind in ("constant", "constant-audited", "read", "read-audited")}
    with postgres(microseconds) as server, a_database(server) as url, tempfile.TemporaryDirectory() as home:
        _installed(url, Path(home))
        with _server(url, home, microseconds) as port:
            for _ in range(ROUNDS):
                for kind, rates in measured.items():
                    rates.append(_asked(port, kind))
    disk = f"{CALLERS} callers, PostgreSQL, {f'fsync {microseconds / 1000:g} ms' if microseconds else 'fsync at once'}"
    for claim, ours, name, peer, at_least in (
        ("audited endpoint that answers a constant", "constant-audited", "the same, bare FastAPI", "constant", goal),
        ("audited read", "read-audited", "the same read, bare FastAPI", "read", goal),
        ("audited read", "read-audited", "bare FastAPI that reads nothing", "constant", None),
    ):
        ratios = [one / other for one, other in zip(measured[ours], measured[peer], strict=True)]
        ratio = statistics.median(ratios)
        yield {
            "claim": f"{claim}, {disk} (ratios {min(ratios):.2f} to {max(ratios):.2f})",
            "ours": statistics.median(measured[ours]), "peer": statistics.median(measured[peer]), "peer_name": name,
            "ratio": ratio, "goal": at_least, "held": None if at_least is None else ratio >= at_least, "unit": "/s",
        }  # fmt: skip


@contextmanager
def _server(url: str, home: str, microseconds: int) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.benchmarks.log_throughput", "serve", url, home, str(port)]
    process = subprocess.Popen(command, env=environment(microseconds))
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def _serve(url: str, home: Path, port: int) -> None:
    """One server with two endpoints, each bare and audited: one answers a constant, one reads the agencies."""
    import uvicorn
    from fastapi import FastAPI

    from broker.store.statements import Statement
    from broker.trail import new_event_id
    from tests.builders_log import an_event

    store, trail = _trail(url, home)
    app = FastAPI(telemetry={"tracing": False, "logs": False})
    ids = Statement("SELECT id FROM agency ORDER BY id")

    def found() -> dict[str, object]:
        with store.reading() as reading:
            return {"agencies": reading.run(ids).scalars()}

    def audited(answer: dict[str, object]) -> dict[str, object]:
        receipt = trail.receipt_for(an_event(0, id=new_event_id()), about=["person-1"])
        return answer | {"receipt": receipt.to_json()}

    @app.get("/constant")
    def constant() -> dict[str, object]:
        return {"agencies": []}

    @app.get("/constant-audited")
    def constant_audited() -> dict[str, object]:
        return audited({"agencies": []})

    @app.get("/read")
    def read() -> dict[str, object]:
        return found()

    @app.get("/read-audited")
    def read_audited() -> dict[str, object]:
        return audited(found())

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def _asked(port: int, kind: str) -> float:
    """Answers a second with so many callers; the callers are a process of their own."""
    command = [sys.executable, "-m", "tests.benchmarks.log_throughput", "ask", str(port), kind]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _ask(port: int, kind: str) -> None:
    import http.client

    until = time.monotonic() + ROUND_SECONDS
    counts = [0] * CALLERS

    def work(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while time.monotonic() < until:
            connection.request("GET", f"/{kind}")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CALLERS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(counts) / (time.monotonic() - began))


# --- Both ------------------------------------------------------------------------------------------------------------


def _installed(url: str, home: Path) -> None:
    from broker.keys import Keys
    from broker.store import Store, migrate

    Keys.make(home / "keys")
    store = Store(url)
    migrate.upgrade(store)
    store.close()
    _trail(url, home)[1].stop()


def _trail(url: str, home: Path):
    from broker.keys import Keys
    from broker.store import Store
    from broker.trail import Trail
    from tests.builders_signer import opened

    store = Store(url)
    trail = Trail(store, Keys.load(home / "keys"), opened(store, home))
    trail.start()
    return store, trail


def _at(ordered: list[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))]


def _limit(claim: str, ours: float, limit: float | None, unit: str, held: bool | None) -> Row:
    return {"claim": claim, "ours": ours, "peer": limit, "peer_name": None if limit is None else "the limit",
            "ratio": None if limit is None else ours / limit, "goal": None if limit is None else f"{limit:,} {unit}",
            "held": held, "unit": unit}  # fmt: skip


def main(arguments: list[str]) -> None:
    """A process of this benchmark's own."""
    match arguments:
        case ["write", url, home, until]:
            _write(url, Path(home), until)
        case ["serve", url, home, port]:
            _serve(url, Path(home), int(port))
        case ["ask", port, kind]:
            _ask(int(port), kind)


if __name__ == "__main__":
    os.umask(0o077)
    main(sys.argv[1:])
