"""Strangers' Parquet, read in a process of its own (`linkage.matching.parser`): its bombs and crashes end there.

What comes back is JSON for a verdict and Arrow's messages for rows, both looked at as a stranger's: a fork that was
taken over while it read could lie about its batch, but has no key and nobody's connection, and where the kernel has
Landlock no file but that batch's (`linkage.matching.fence`; where it has not, a line in the log says so).  There is one
such process a broker, started when first asked and again after it died; it forks for each question.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final, cast, get_args

import pyarrow as pa
import structlog

import linkage
from broker.errors import BrokerError
from linkage.matching import fence
from linkage.matching.findings import Code, Finding, Limits, Verdict
from linkage.matching.parser import FRAME_BYTES, LENGTH
from linkage.matching.rules import Codes
from linkage.records import TABLES, Manifest, Profile, Table, schema_of

log = structlog.get_logger()

ROOM: Final = 1024 * 1024 * 1024
"""What a fork may reserve beyond what DuckDB is given: the code, its threads, rows on their way.

Reserved, not filled: a whole night of a million rows was seen to reserve 670 MB and to fill 370, and what a thread
reserves differs from run to run.  A limit near that refuses, now and then, a batch that is as it should be.
"""
FAULTS: Final = 3
"""So often a batch may crash what reads it before it is refused as unreadable."""
_CRASHES: Final = {-one for one in (
    signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGXCPU, signal.SIGSYS,
)}  # fmt: skip


class ParserDied(BrokerError):
    """The process that read a batch ended without an answer, or gave none that holds; the batch stays as it is."""


class Parser:
    """Asks the process, and starts it where it isn't."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._there: socket.socket | None = None
        self._owner = 0
        self._crashed: Counter[str] = Counter()

    @property
    def pid(self) -> int | None:
        """The process that forks, if there is one."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def check(self, folder: Path, manifest: Manifest, codes: Codes, *, limits: Limits, batch: str) -> Verdict:
        """As `intake.check`.  Raises ParserDied; a `batch` that crashes it time and again is unreadable."""
        question = {"do": "check", "manifest": manifest.canonical().decode(), "codes": codes}
        try:
            with self._asked(folder, question, limits) as answer:
                verdict = verdict_of(frame_of(answer))
                if frame_of(answer):
                    raise ParserDied("a verdict is one frame")
        except _Crashed:
            self._crashed[batch] += 1
            if self._crashed[batch] < FAULTS:
                raise
            found = tuple(Finding(table, 0, "", "unreadable") for table in TABLES)
            totals: dict[tuple[Table, str, Code], int] = {(table, "", "unreadable"): 1 for table in TABLES}
            verdict = Verdict(
                counts=dict.fromkeys(TABLES, 0), deletes=dict.fromkeys(TABLES, 0), findings=found, totals=totals
            )
        self._crashed.pop(batch, None)
        return verdict

    def read_batches(
        self, folder: Path, table: Table, profile: Profile, *, rows: int, limits: Limits
    ) -> Iterator[pa.RecordBatch]:
        """As `intake.read_batches`.  Raises ParserDied, which may be after some of them."""
        schema = schema_of(table, profile)
        question = {"do": "rows", "table": table, "profile": profile, "rows": rows}
        with self._asked(folder, question, limits) as answer:
            while frame := frame_of(answer):
                yield rows_of(frame, schema)

    def start(self) -> None:
        """Start it now, if it isn't there: the first question then need not wait for it."""
        with self._lock:
            self._ready()

    def close(self) -> None:
        """End the process, and what it does."""
        with self._lock:
            self._end()

    @contextmanager
    def _asked(self, folder: Path, question: Mapping[str, Any], limits: Limits) -> Iterator[BinaryIO]:
        memory = size_of(max(limits.checking_memory, limits.measuring_memory, key=size_of)) + ROOM
        asked = {**question, "folder": str(folder.resolve()), "limits": asdict(limits), "memory": memory}
        told, tells = os.pipe()
        with os.fdopen(told, "rb") as ending:
            reads, writes = os.pipe()
            try:
                with _nameless() as question_file:
                    question_file.write(json.dumps(asked).encode())
                    question_file.flush()
                    self._send(question_file.fileno(), writes, tells)
            finally:
                os.close(writes)
                os.close(tells)
                answer = os.fdopen(reads, "rb")
            try:
                with closing(answer):
                    yield answer
            except _Ended:
                said = ending.read()
                code = int(said) if said else None  # None: the process that forks is gone too
                log.error("parser died", exit_code=code)
                raise (_Crashed if code in _CRASHES else ParserDied)("what read the batch ended early") from None

    def _send(self, *descriptors: int) -> None:
        with self._lock:
            for last in (False, True):
                try:
                    socket.send_fds(self._ready(), [b"?"], descriptors)
                except OSError:
                    self._end()
                    if last:
                        raise ParserDied("what reads batches does not start") from None
                else:
                    return

    def _ready(self) -> socket.socket:
        if self.pid is not None and self._owner == os.getpid() and self._there is not None:
            return self._there
        self._end()
        self._owner = os.getpid()
        if not fence.level():
            log.warning("batches are read without a fence", reason="landlock")
        self._there, theirs = socket.socketpair()
        with theirs:
            # It dies as its socket closes, not by PR_SET_PDEATHSIG: that comes when the thread that started it ends.
            self._process = subprocess.Popen(  # noqa: S603 (this Python, a module of ours)
                (sys.executable, "-s", "-P", "-m", "linkage.matching.parser", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, env={
                    "PYTHONPATH": str(Path(linkage.__file__).resolve().parents[1]), "LC_ALL": "C.UTF-8",
                    "ARROW_DEFAULT_MEMORY_POOL": "system",
                },
            )  # fmt: skip
        return self._there

    def _end(self) -> None:
        if self._there is not None:
            self._there.close()
        if self._process is not None and self._owner == os.getpid():
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        self._there = self._process = None


def _nameless() -> BinaryIO:
    """A file that has no name: in memory where the system has such, as Linux does."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("question"), "wb")
    return cast("BinaryIO", TemporaryFile())


PARSER: Final = Parser()
atexit.register(PARSER.close)


class _Ended(ParserDied):
    """The answer stopped before its end."""


class _Crashed(ParserDied):
    """By a fault of its own, not by somebody's hand."""


def frame_of(answer: BinaryIO) -> bytes:
    """The next frame; nothing at the end."""
    head = answer.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise _Ended("no frame")
    (length,) = LENGTH.unpack(head)
    if length > FRAME_BYTES:
        raise ParserDied("a frame is too long")
    frame = answer.read(length)
    if len(frame) < length:
        raise _Ended("a frame is cut short")
    return frame


def rows_of(frame: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """The rows of a frame, every value of them looked at.  Raises ParserDied."""
    try:
        rows = pa.ipc.read_record_batch(pa.py_buffer(frame), schema)
        rows.validate(full=True)
    except (pa.ArrowException, OSError):
        raise ParserDied("what came is no rows of this table") from None
    return rows


def verdict_of(frame: bytes) -> Verdict:
    """What a frame says, if it is a verdict in every part.  Raises ParserDied."""
    try:
        said = json.loads(frame)
        codes = frozenset(get_args(Code))
        findings = []
        for table, row, column, code in said["findings"]:
            _holds(table in TABLES and _count(row) and isinstance(column, str) and code in codes)
            findings.append(Finding(table, row, column[:64], code))
        totals = {}
        for table, column, code, count in said["totals"]:
            _holds(table in TABLES and isinstance(column, str) and code in codes and _count(count))
            totals[table, column[:64], cast("Code", code)] = count
        for name in ("counts", "deletes"):
            _holds(set(said[name]) == set(TABLES) and all(_count(count) for count in said[name].values()))
        _holds(bool(findings) == bool(totals))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ParserDied("what came is no verdict") from None
    return Verdict(counts=said["counts"], deletes=said["deletes"], findings=tuple(findings), totals=totals)


def _holds(what: bool) -> None:
    if not what:
        raise ValueError("not of this form")


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def size_of(memory: str) -> int:
    """DuckDB's way of saying it.

    >>> size_of("256MB"), size_of("2GB")
    (256000000, 2000000000)
    """
    size = memory.rstrip("KMGB")
    return int(size) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[memory.removeprefix(size)]
