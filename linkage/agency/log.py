"""The broker's public log, copied to a folder: from then on `auditor` needs neither the broker nor a network.

The log is static files in the layout of C2SP tlog-tiles: `checkpoint`, `tile/<level>/<n>[.p/<width>]`, and the entries
themselves under `tile/entries/`.  Beside them: `checkpoint.witnessed` and `checkpoint.witness` (what a quorum has
cosigned, and what is to be cosigned), and `history`, what the log published of its own keys.  Nothing is believed here;
checking is the auditor's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from linkage.agency.settings import write_whole

TILE: Final = 256  # hashes a full tile holds
LEVELS: Final = 7
HEARD: Final = "heard"
BESIDE: Final = ("checkpoint.witnessed", "checkpoint.witness")
_NOTE: Final = re.compile(r"([^\n]+)\n(0|[1-9][0-9]{0,15})\n[A-Za-z0-9+/]{43}=\n")

Fetch = Callable[[str], bytes]
Ask = Callable[[str], bytes | None]


class BadCheckpoint(ValueError):
    """What was given as a checkpoint is not one."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a note says its checkpoint is: unproved."""

    origin: str
    size: int
    text: str

    @classmethod
    def of(cls, note: bytes, whose: str = "the broker's") -> Named:
        """Raises BadCheckpoint."""
        found = _NOTE.match(note.decode("utf-8", "replace"))
        if found is None:
            raise BadCheckpoint(f"{whose} checkpoint can't be read")
        return cls(found[1], int(found[2]), found[0])


def copy_log(
    fetch: Fetch, out: Path, *, ask: Ask, progress: Callable[[str, int, int], None] = lambda step, done, total: None
) -> tuple[int, int]:
    """Bring `out` up to the broker's newest checkpoint; the log's size, and how many tiles and bundles were fetched.

    `fetch` gets a file of the log by its path, `ask` one that may not be there.  A tile never changes, so those that
    are there are kept; each is written whole, so a copy that broke off is simply made again.  The checkpoints are
    written last: what they cover is then in the folder.  Where the log has shrunk, or has another tree of one size,
    the checkpoint of before is kept in `heard`, for `auditor gossip`.  Raises BadCheckpoint.
    """
    beside = {name: ask(name) for name in BESIDE}  # before the newest, with which they must begin
    note = fetch("checkpoint")
    history = ask("history")  # after it: it tells of the key that signed
    newest = Named.of(note)
    due = [path for path in paths(newest.size) if not (out / path).exists()]
    for done, path in enumerate(due):
        progress("files", done, len(due))
        write_whole(out / path, fetch(path))
    progress("files", len(due), len(due))
    _keep_other(out, newest)
    write_whole(out / "checkpoint", note)
    for name, content in (beside | {"history": history}).items():
        if content is None:
            (out / name).unlink(missing_ok=True)
        else:
            write_whole(out / name, content)
    return newest.size, len(due)


def paths(size: int) -> Iterator[str]:
    """Every file that a log of this size has, but its checkpoint.

    >>> list(paths(257))
    ['tile/0/000', 'tile/0/001.p/1', 'tile/entries/000', 'tile/entries/001.p/1', 'tile/1/000.p/1']
    """
    hashes = size
    for level in range(LEVELS):
        if not hashes:
            return
        for kind in (str(level), *(["entries"] if level == 0 else [])):
            yield from (f"tile/{kind}/{_number(n)}" for n in range(hashes // TILE))
            if hashes % TILE:
                yield f"tile/{kind}/{_number(hashes // TILE)}.p/{hashes % TILE}"
        hashes //= TILE


def _keep_other(out: Path, newest: Named) -> None:
    """Put aside the folder's checkpoint if what the broker says now can't follow from it."""
    try:
        before = (out / "checkpoint").read_bytes()
        old = Named.of(before)
    except (OSError, BadCheckpoint):
        return
    if old.size > newest.size or (old.size == newest.size and old.text != newest.text):
        write_whole(out / HEARD / f"here-{old.size}", before)


def _number(n: int) -> str:
    """A tile's number in threes, all but the last marked with an x.

    >>> _number(1234067)
    'x001/x234/067'
    """
    groups = [f"{n % 1000:03d}"]
    while n >= 1000:
        n //= 1000
        groups.insert(0, f"x{n % 1000:03d}")
    return "/".join(groups)
