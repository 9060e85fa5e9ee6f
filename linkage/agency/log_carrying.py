"""Checkpoints carried between logs and witnesses: `agency log post | feed | gossip`.  Bytes only; nothing is believed.

feed      a C2SP witness outside the partnership is asked to cosign (tlog-witness `add-checkpoint`), with the proof that
          the log grew from what it cosigned last; its line comes back into the folder's `cosigned`
gossip    what other witnesses have seen of this log is brought to the folder's `heard`, for `auditor gossip`
post      `cosigned`, with whatever lines are in it, is handed in to the broker
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2

from linkage.agency.client import Unreachable
from linkage.agency.log import HEARD, Named
from linkage.agency.settings import write_whole

COSIGNED: Final = "cosigned"
SIZE_TYPE: Final = "text/x.tlog.size"
MAX_BYTES: Final = 64 * 1024
MAX_LINES: Final = 12
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class BadWitness(ValueError):
    """A witness's address that can't be used."""


class Disagrees(Exception):
    """A witness will not cosign this log: it has seen another tree.  What was sent and said is kept."""


class NotCosigned(Exception):
    """A witness does not know this log, or its key, or does not take the request: nothing is wrong with the log."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a witness answered."""

    status: int
    kind: str
    body: bytes


class Outside:
    """Witnesses outside the partnership, by HTTP."""

    def __init__(self, *, seconds: float, http: httpx2.Client | None = None) -> None:
        self._http = http or httpx2.Client(timeout=seconds, follow_redirects=False)

    def post(self, url: str, body: bytes) -> Said:
        """Raises Unreachable."""
        return self._call("POST", url, body)

    def get(self, url: str) -> Said:
        """Raises Unreachable."""
        return self._call("GET", url, None)

    def _call(self, method: str, url: str, body: bytes | None) -> Said:
        headers = {"Content-Type": "text/plain; charset=utf-8"} if body is not None else {}
        try:
            with self._http.stream(method, url, content=body, headers=headers) as response:
                content = b""
                for part in response.iter_bytes():
                    content += part
                    if len(content) > MAX_BYTES:
                        raise Unreachable(f"{_host(url)} answered with more than a note")
                return Said(response.status_code, response.headers.get("Content-Type", "").split(";")[0], content)
        except httpx2.HTTPError as failure:
            raise Unreachable(f"{_host(url)} can't be reached: {type(failure).__name__}") from None


def prefix(url: str) -> str:
    """A witness's address without the slash at its end.  Raises BadWitness unless it is https, or on this machine."""
    parts = urlsplit(url)
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not safe or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise BadWitness("a witness's address is https://host/path")
    return url.rstrip("/")


def feed(
    folder: Path, witness: str, post: Callable[[str, bytes], Said], growth: Callable[[int, int], bytes]
) -> tuple[int, int]:
    """Have a witness cosign the folder's checkpoint: its size, and how many lines came back.

    `growth` gives the proof between two sizes, as the broker publishes it; the witness checks it.  Raises BadWitness,
    Unreachable, NotCosigned, Disagrees, or BadCheckpoint.
    """
    url = f"{prefix(witness)}/add-checkpoint"
    note = _asked(folder)
    named = Named.of(note, "the folder's")
    old, said = 0, Said(0, "", b"")
    for _ in range(3):  # the first asks from nothing; the answer says where the witness is
        proof = growth(old, named.size) if 0 < old < named.size else b""
        request = f"old {old}\n".encode() + proof + b"\n" + note
        said = post(url, request)
        behind = _size_of(said)
        if said.status != 409 or behind is None or behind == old:
            break
        if behind > named.size:
            raise NotCosigned(f"the witness has cosigned {behind} leaves, and the folder has {named.size}: fetch again")
        old = behind
    if said.status in (409, 422):
        place = _keep(folder, witness, request, said)
        raise Disagrees(f"the witness has seen another tree of this log: what was sent and said is in {place}")
    if said.status >= 500 or said.status == 429:
        raise Unreachable(f"the witness answered {said.status}")
    if said.status != 200:
        raise NotCosigned(f"the witness answered {said.status}: does it know this log and its key?")
    lines = _lines(said.body)
    write_whole(folder / COSIGNED, _with_lines(folder, note, named, lines))
    return named.size, len(lines)


def gossip(folder: Path, witness: str, get: Callable[[str], Said]) -> Path | None:
    """Bring what a witness has seen of the folder's log to `heard`; None if it has seen nothing of it.

    Raises BadWitness, Unreachable, or BadCheckpoint if it shows no checkpoint.
    """
    named = Named.of((folder / "checkpoint").read_bytes(), "the folder's")
    base = prefix(witness)
    said = get(f"{base}/{hashlib.sha256(named.origin.encode()).hexdigest()}/checkpoint")
    if said.status == 404:
        return None
    if said.status != 200:
        raise Unreachable(f"{_host(base)} answered {said.status}")
    Named.of(said.body, f"{_host(base)}'s")
    place = folder / HEARD / _name(base)
    write_whole(place, said.body)
    return place


def shard_of(folder: Path) -> str:
    """Which of the log's years a folder holds, as its checkpoint says.  Raises BadCheckpoint."""
    return Named.of((folder / "checkpoint").read_bytes(), "the folder's").origin.rpartition("/")[2]


def cosigned(folder: Path) -> bytes:
    """The checkpoint with the lines that are to be handed in.  Raises NotCosigned."""
    try:
        return (folder / COSIGNED).read_bytes()
    except FileNotFoundError:
        raise NotCosigned(f"{folder / COSIGNED} is not there: cosign first (`auditor consistency --cosign`)") from None


def _asked(folder: Path) -> bytes:
    """The checkpoint that witnesses are asked to cosign; the newest where the broker names none."""
    path = folder / "checkpoint.witness"
    return path.read_bytes() if path.exists() else (folder / "checkpoint").read_bytes()


def _size_of(said: Said) -> int | None:
    text = said.body.decode("ascii", "replace")
    return int(text) if said.kind == SIZE_TYPE and text.strip().isdigit() and len(text) < 18 else None


def _lines(body: bytes) -> list[bytes]:
    lines = body.split(b"\n")
    mark = "— ".encode()
    if lines[-1] or not 1 < len(lines) <= MAX_LINES + 1 or not all(line.startswith(mark) for line in lines[:-1]):
        raise Unreachable("the witness's answer is no signature line")
    return lines[:-1]


def _with_lines(folder: Path, note: bytes, named: Named, lines: list[bytes]) -> bytes:
    """The folder's `cosigned` with lines added, if it is of the same checkpoint; else the log's own lines and these."""
    text, log_line = named.text.encode() + b"\n", f"— {named.origin} ".encode()
    try:
        before = (folder / COSIGNED).read_bytes()
    except FileNotFoundError:
        before = b""
    if before.startswith(text):
        kept = before.removeprefix(text).split(b"\n")
    else:
        kept = [line for line in note.removeprefix(text).split(b"\n") if line.startswith(log_line)]
    keys = {_key(line) for line in lines}
    kept = [line for line in kept if line and _key(line) not in keys]
    return text + b"".join(line + b"\n" for line in [*kept, *lines])


def _key(line: bytes) -> tuple[bytes, bytes]:
    """Whose line it is: the name, and the start of the base64, which holds the key's id."""
    _, name, encoded = [*line.split(b" "), b"", b""][:3]
    return name, encoded[:5]


def _keep(folder: Path, witness: str, request: bytes, said: Said) -> Path:
    """What was sent and said, in a folder of its own, by what was sent."""
    place = folder / "evidence" / f"{_name(prefix(witness))}-{hashlib.sha256(request).hexdigest()[:16]}"
    write_whole(place / "add-checkpoint", request)
    write_whole(place / "answer", f"{said.status} {said.kind}\n".encode() + said.body)
    return place


def _name(base: str) -> str:
    return f"{_host(base)}-{hashlib.sha256(base.encode()).hexdigest()[:8]}"


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the witness"
