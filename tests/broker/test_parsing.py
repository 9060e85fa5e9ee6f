"""What a stranger's Parquet does to the process that reads it ends there: the broker goes on, and the batch waits."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from agreements.vocabulary import codes_for_agencies
from broker import parsing, validation
from broker.parsing import FAULTS, PARSER, Parser, ParserDied
from broker.reception import Reception
from broker.store.batches import BatchRow
from linkage.matching import fence
from linkage.matching.findings import DEFAULTS, Finding, Limits, Verdict
from linkage.matching.parser import FRAME_BYTES, LENGTH
from linkage.matching.rules import Codes
from linkage.records import TABLES, schema_of
from tests.builders import Batch, a_batch, a_person, a_ref, an_entry, an_item, parquet
from tests.builders_broker import Caller, agreed

CODES = cast("Codes", codes_for_agencies())
MIB = 1024 * 1024
BOMB = 208 * MIB  # more than the 192 MB that measuring has
FOUND: dict[str, Any] = {
    "counts": dict.fromkeys(TABLES, 1),
    "deletes": dict.fromkeys(TABLES, 0),
    "findings": [],
    "totals": [],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tables of `a_batch()`, opened."""
    for table, raw in a_batch().files.items():
        (tmp_path / f"{table}.parquet").write_bytes(raw)
    return tmp_path


def checked(folder: Path, batch: Batch | None = None, *, limits: Limits = DEFAULTS, id_: str = "b") -> Verdict:
    return PARSER.check(folder, (batch or a_batch()).manifest, CODES, limits=limits, batch=id_)


def until(seen: Callable[[], Any]) -> Any:
    while not (found := seen()):
        time.sleep(0.005)
    return found


def forks_of(pid: int | None) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def without_end(folder: Path) -> None:
    """From now on whoever reads the items reads for ever."""
    (folder / "items.parquet").unlink()
    os.mkfifo(folder / "items.parquet")


def with_items(folder: Path) -> None:
    (folder / "items.parquet").unlink()
    (folder / "items.parquet").write_bytes(a_batch().files["items"])


class Asking(threading.Thread):
    """Asks something, which may take until somebody intervenes."""

    def __init__(self, what: Callable[[], Any]) -> None:
        super().__init__()
        self._what = what
        self.answer: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._what()
        except ParserDied as wrong:
            self.answer = wrong


def killed_in_the_middle(folder: Path, how: int, id_: str) -> Any:
    """What a check says whose reader is killed."""
    before = set(forks_of(PARSER.pid))
    asking = Asking(lambda: checked(folder, id_=id_))
    (fork,) = until(lambda: set(forks_of(PARSER.pid)) - before)
    os.kill(fork, how)
    asking.join()
    return asking.answer


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_what_reads_may_die_and_the_next_question_is_answered(how: int, folder: Path) -> None:
    assert checked(folder).accepted
    before = PARSER.pid
    without_end(folder)
    assert isinstance(killed_in_the_middle(folder, how, f"by {how}"), ParserDied)
    with_items(folder)
    assert checked(folder).accepted
    assert PARSER.pid == before


def test_a_batch_that_crashes_its_reader_time_and_again_is_unreadable(folder: Path) -> None:
    assert checked(folder).accepted
    without_end(folder)
    said = [killed_in_the_middle(folder, signal.SIGKILL, "killed") for _ in range(FAULTS + 1)]
    assert all(isinstance(one, ParserDied) for one in said)  # by somebody's hand: the batch is not to blame
    *before, last = [killed_in_the_middle(folder, signal.SIGSEGV, "crashes") for _ in range(FAULTS)]
    assert all(isinstance(one, ParserDied) for one in before)
    assert last.findings == tuple(Finding(table, 0, "", "unreadable") for table in TABLES)
    assert not last.accepted


def test_a_batch_whose_reader_is_killed_stays_sealed_and_is_decided_the_next_time(
    http: TestClient, desk: Reception
) -> None:
    caller, batch = Caller(http), agreed(a_batch())
    id_ = caller.hand_in(batch)
    PARSER.start()
    reader = PARSER.pid
    assert reader is not None
    os.kill(reader, signal.SIGSTOP)
    asking = Asking(lambda: validation.validate_sealed(desk))
    until(lambda: not asking.is_alive() or asked_of(PARSER))
    os.kill(reader, signal.SIGKILL)
    asking.join()
    assert asking.answer == {id_: validation.UNDECIDED}
    with desk.store.reading() as tx:
        row = tx.one(BatchRow, id=id_)
    assert row is not None
    assert row.state in ("sealed", "validating")
    assert row.decided_at is None
    assert validation.validate_sealed(desk) == {id_: "accepted"}
    assert PARSER.pid not in (None, reader)


def asked_of(parser: Parser) -> bool:
    """Whether a question lies in its socket, unread."""
    there = parser._there
    assert there is not None
    return int.from_bytes(fcntl.ioctl(there, termios.TIOCOUTQ, bytes(4)), sys.byteorder) > 0


@pytest.fixture(scope="module")
def bomb() -> Batch:
    """An items table whose one value, said in a few bytes, fills memory when it is read."""
    schema = schema_of("items", "guarded-3")
    rows = [an_item(a_ref("item"), a_ref("alice"))]
    table = pa.Table.from_pylist(rows, schema=schema).set_column(5, schema.field("code"), pa.array(["x" * BOMB]))
    batch = a_batch(persons=[a_person(a_ref("alice"))], items=[])
    raw = parquet(table)
    entries = {**batch.manifest.tables, "items": an_entry(raw, rows=1)}
    return replace(batch.saying(tables=entries), files={**batch.files, "items": raw})


def peak_kb() -> int:
    """The most memory that this process has had since it was last told to forget."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def opened_by(process: int) -> set[str]:
    """What a process has open, but while it puts up its fence: none then."""
    try:
        found = {str(one.readlink()) for one in Path(f"/proc/{process}/fd").iterdir()}
    except FileNotFoundError:  # closed meanwhile
        return set()
    return set() if "anon_inode:[landlock-ruleset]" in found else {one.split(":")[0] for one in found}


@pytest.mark.parametrize("memory", ["192MB", "8GB"])
def test_a_parquet_bomb_meets_a_limit_elsewhere_and_is_too_large(
    memory: str, bomb: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB's own limit stops it; where that were wide open the system's does."""
    for table, raw in bomb.files.items():
        (tmp_path / f"{table}.parquet").write_bytes(raw)
    assert sum(len(raw) for raw in bomb.files.values()) < 100_000
    limits = Limits(measuring_memory=memory, checking_memory="256MB")
    monkeypatch.setattr(parsing, "ROOM", 400 * MIB - max(parsing.size_of(memory), parsing.size_of("256MB")))
    PARSER.start()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak, which making the bomb was
    before = peak_kb()
    verdict = checked(tmp_path, bomb, limits=limits)
    assert peak_kb() - before < 32 * 1024
    assert {finding.code for finding in verdict.findings} == {"too_large"}


def test_what_reads_has_no_environment_no_file_no_core_and_a_limit_of_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_KEK", "secret")
    without_end(folder)
    with closing(Parser()) as parser:
        parser.start()
        asking = Asking(lambda: parser.check(folder, a_batch().manifest, CODES, limits=DEFAULTS, batch="b"))
        (fork,) = until(lambda: forks_of(parser.pid))
        until(lambda: limits_of(fork)["Max open files"] == "64")  # the last that it sets before it reads
        opened = until(lambda: opened_by(fork))
        environment = Path(f"/proc/{fork}/environ").read_bytes()
        nice = int(Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()[16])
        limits = limits_of(fork)
        os.kill(fork, signal.SIGKILL)
        asking.join()
    ours = (str(folder), f"/proc/{fork}/", "/sys/fs/cgroup")  # DuckDB looks how much there is of the machine
    assert {one for one in opened if not one.startswith(ours)} <= {"/dev/null", "pipe", "/memfd"}
    assert b"secret" not in environment
    assert (limits["Max core file size"], limits["Max file size"]) == ("0", "0")
    assert int(limits["Max data size"]) == parsing.size_of(DEFAULTS.checking_memory) + parsing.ROOM
    assert nice > 0


def limits_of(pid: int) -> dict[str, str]:
    return {line[:26].strip(): line[26:].split()[0] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()}


TAKEN_OVER = """
import socket, sys
from pathlib import Path
from linkage.matching import fence, intake, parser
from linkage.matching.findings import Finding, Verdict
def check(folder, *_, **__):
    reached = []
    for path in (folder.parent / "key", Path("/etc/passwd")):
        try:
            path.read_bytes()
            reached.append(path)
        except PermissionError:
            pass
    assert (folder / "items.parquet").read_bytes()
    none = dict.fromkeys(("persons", "relationships", "items"), 0)
    found = Finding("items", 0, "", "unreadable")
    totals = {("items", "", "unreadable"): len(reached)}
    return Verdict(counts=none, deletes=none, findings=(found,) if reached else (), totals=totals if reached else {})
intake.check = check
if sys.argv[2] == "free":
    fence.level = lambda: 0
parser.serve(socket.socket(fileno=int(sys.argv[1])))
"""
"""What reads batches, had somebody taken it over by one: how many files it reached is its verdict."""


@pytest.mark.skipif(not fence.level(), reason="this kernel has no Landlock, or has it switched off")
@pytest.mark.parametrize(("how", "reached"), [("fenced", 0), ("free", 2)])
def test_a_reader_that_was_taken_over_reaches_no_file_but_its_batch(folder: Path, how: str, reached: int) -> None:
    batch = folder / "batch"
    batch.mkdir()
    (folder / "items.parquet").rename(batch / "items.parquet")
    (folder / "key").write_text("key")
    with closing(Parser()) as parser:
        parser._there, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", TAKEN_OVER, str(theirs.fileno()), how]
            parser._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
        parser._owner = os.getpid()
        verdict = parser.check(batch, a_batch().manifest, CODES, limits=DEFAULTS, batch="b")
    assert sum(verdict.totals.values()) == reached


def test_where_there_is_no_fence_a_line_says_so_and_batches_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "level", lambda: 0)
    with closing(Parser()) as parser, capture_logs() as lines:
        assert parser.check(folder, a_batch().manifest, CODES, limits=DEFAULTS, batch="b").accepted
    assert [line["reason"] for line in lines if line["event"] == "batches are read without a fence"] == ["landlock"]


def test_what_reads_ends_with_the_broker_even_while_it_reads(folder: Path) -> None:
    without_end(folder)
    asks = (
        "import sys; from pathlib import Path; from tests.broker.test_parsing import PARSER, checked; "
        "PARSER.start(); print(PARSER.pid, flush=True); checked(Path(sys.argv[1]))"
    )
    command = (sys.executable, "-c", asks, str(folder))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        reader = int(broker.stdout.readline())
        (fork,) = until(lambda: forks_of(reader))
        broker.kill()
    until(lambda: gone(reader) and gone(fork))


def gone(pid: int) -> bool:
    """Whether a process has ended, be it not waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_rows_come_back_as_they_were_sent_so_many_at_a_time(folder: Path) -> None:
    for table in TABLES:
        found = list(PARSER.read_batches(folder, table, "guarded-3", rows=1, limits=DEFAULTS))
        assert all(some.num_rows == 1 for some in found)
        sent = pq.read_table(folder / f"{table}.parquet")
        assert pa.Table.from_batches(found, schema_of(table, "guarded-3")).equals(sent)


@pytest.mark.parametrize(
    "said",
    [
        b"", b"[]", b"{}", b"[" * 100_000, b"\xff",
        json.dumps({**FOUND, "counts": {"persons": 1}}).encode(),
        json.dumps({**FOUND, "counts": {**FOUND["counts"], "persons": -1}}).encode(),
        json.dumps({**FOUND, "counts": {**FOUND["counts"], "persons": True}}).encode(),
        json.dumps({**FOUND, "findings": [["persons", 1, "op", "unknown_value"]]}).encode(),
        json.dumps({**FOUND, "totals": [["persons", "op", "unknown_value", 1]]}).encode(),
        json.dumps({**FOUND, "findings": [["people", 1, "op", "missing"]], "totals": [["people", "op", "missing", 1]]}).encode(),
        json.dumps({**FOUND, "findings": [["persons", 1, "op", "Alice"]], "totals": [["persons", "op", "Alice", 1]]}).encode(),
    ],
)  # fmt: skip
def test_a_verdict_that_is_none_is_not_believed(said: bytes) -> None:
    assert parsing.verdict_of(json.dumps(FOUND).encode()).accepted
    with pytest.raises(ParserDied):
        parsing.verdict_of(said)


def test_a_frame_that_is_too_long_is_not_taken_and_one_cut_short_is_none() -> None:
    assert parsing.frame_of(io.BytesIO(LENGTH.pack(2) + b"ab")) == b"ab"
    for raw in (LENGTH.pack(FRAME_BYTES + 1) + b"a", LENGTH.pack(3) + b"ab", LENGTH.pack(3)[:5], b""):
        with pytest.raises(ParserDied):
            parsing.frame_of(io.BytesIO(raw))


def test_rows_that_are_none_of_the_table_are_not_believed() -> None:
    schema = schema_of("items", "guarded-3")
    rows = pa.RecordBatch.from_pylist([an_item(a_ref("item"), a_ref("alice"))], schema=schema)
    assert parsing.rows_of(rows.serialize().to_pybytes(), schema).equals(rows)
    broken = rows.set_column(5, schema.field("code"), pa.array([b"\xff\xfe"], pa.binary()).view(pa.string()))
    for frame in (b"x" * 100, rows.select(["op"]).serialize().to_pybytes(), broken.serialize().to_pybytes()):
        with pytest.raises(ParserDied):
            parsing.rows_of(frame, schema)
