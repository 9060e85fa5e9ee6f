"""The process in which a stranger's Parquet is read: it forks for every question, and never reads a byte itself.

Whoever asks (`broker.parsing`) starts it with a socket and nothing else: no environment, no other descriptor, so
neither key nor connection.  A message on the socket brings three descriptors: the question (JSON, in memory), where the
answer goes, and where it is told how the fork ended.  A fork has a limit of memory and of processor time, reads the
batch's folder, its own code and no other file where the kernel has Landlock (`fence`), writes none, is nice to others,
leaves no core, and dies with this process, which ends when its socket does.

An answer is frames, each a length and so many bytes, and a length of nothing at its end: of a check one frame of JSON,
of rows Arrow's messages, one a record batch.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute  # here: so that no fork has to

from linkage.matching import fence, intake
from linkage.matching.findings import Limits, Verdict
from linkage.records import Manifest

LENGTH: Final = struct.Struct(">Q")
FRAME_BYTES: Final = 64 * 1024 * 1024
"""No frame is longer, but where one row alone is."""
DESCRIPTORS: Final = 3
_NICE: Final = 10
_SECONDS: Final = 900  # of the processor: what takes longer is a bomb
_OPEN_FILES: Final = 64
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def serve(there: socket.socket) -> None:
    """Fork for each question until nobody is there to ask."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's whole group: who asks ends us
    gc.collect()
    gc.freeze()
    ended, tells = os.pipe()
    os.set_blocking(tells, False)
    os.set_blocking(ended, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    waiting: dict[int, int] = {}
    looking = select.poll()
    looking.register(there, select.POLLIN)
    looking.register(ended, select.POLLIN)
    while True:
        ready = dict(looking.poll())
        if ended in ready:
            os.read(ended, 4096)
            _reap(waiting)
        if there.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(there, 1, DESCRIPTORS)
            if not message:
                os._exit(0)  # whoever asked is gone, and the forks go with us
            _fork(descriptors, waiting, close=(there.fileno(), ended, tells))


def _fork(descriptors: list[int], waiting: dict[int, int], *, close: tuple[int, ...]) -> None:
    question, answer, told = descriptors
    parent = os.getpid()
    fork = os.fork()
    if fork:
        waiting[fork] = told
        os.close(question)
        os.close(answer)
        return
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (*close, told, *waiting.values()):
            os.close(other)
        with os.fdopen(question, "rb") as asked:
            asked.seek(0)
            _answer(json.load(asked), answer)
        os._exit(0)
    except BaseException:  # nothing of it may be said: it might hold a value
        os._exit(1)


def _reap(waiting: dict[int, int]) -> None:
    while waiting:
        fork, status = os.waitpid(-1, os.WNOHANG)
        if not fork:
            return
        told = waiting.pop(fork)
        with suppress(OSError):  # it may not be awaited any more
            os.writev(told, [b"%d" % os.waitstatus_to_exitcode(status)])
        os.close(told)


def _answer(asked: Mapping[str, Any], answer: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (asked["memory"], asked["memory"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    folder, limits = Path(asked["folder"]), Limits(**asked["limits"])
    fence.around(folder)
    if asked["do"] == "check":
        verdict = intake.check(folder, Manifest.parse(asked["manifest"].encode()), asked["codes"], limits=limits)
        _send(answer, json.dumps(_plain(verdict)).encode())
    else:
        rows = intake.read_batches(folder, asked["table"], asked["profile"], rows=asked["rows"], limits=limits)
        for some in rows:
            for piece in _pieces(some):
                _send(answer, piece.serialize())
    _send(answer, b"")


def _pieces(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if rows.num_rows <= 1 or rows.nbytes <= FRAME_BYTES // 2:
        yield rows
        return
    half = rows.num_rows // 2
    yield from _pieces(rows.slice(0, half))
    yield from _pieces(rows.slice(half))


def _plain(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "counts": verdict.counts,
        "deletes": verdict.deletes,
        "findings": [[one.table, one.row, one.column, one.code] for one in verdict.findings],
        "totals": [[*which, count] for which, count in verdict.totals.items()],
    }


def _send(answer: int, frame: bytes | pa.Buffer) -> None:
    left = [memoryview(LENGTH.pack(len(frame))), memoryview(frame).cast("B")]
    while left:
        went = os.writev(answer, left)
        while left and went >= len(left[0]):
            went -= len(left.pop(0))
        if left:
            left[0] = left[0][went:]


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":  # elsewhere a fork whose parent was killed works on to its end
        return
    if _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    for looked_for in ("pandas", "pyarrow.pandas_compat"):  # by DuckDB and Arrow, so that every fork would load it
        importlib.import_module(looked_for)
    serve(socket.socket(fileno=int(sys.argv[1])))
