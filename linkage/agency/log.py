"""The broker's public log, copied to a folder: from then on `auditor` needs neither the broker nor a network.

The log is static files in the layout of C2SP tlog-tiles: `checkpoint`, `tile/<level>/<n>[.p/<width>]`, and the entries
themselves under `tile/entries/`.  Nothing is believed here; checking is the auditor's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

TILE: Final = 256  # hashes a full tile holds
_SIZE: Final = re.compile(r"[^\n]+\n(0|[1-9][0-9]{0,15})\n[A-Za-z0-9+/]{43}=\n")
LEVELS: Final = 7

Fetch = Callable[[str], bytes]


class BadCheckpoint(ValueError):
    """What the broker gave as its checkpoint is not one."""


def copy_log(fetch: Fetch, out: Path) -> tuple[int, int]:
    """Bring `out` up to the broker's newest checkpoint; the log's size, and how many files were fetched.

    `fetch` gets a file of the log by its path.  Full tiles never change, so those that are there are kept.  The
    checkpoint is written last: what it covers is then in the folder.  Raises BadCheckpoint.
    """
    note = fetch("checkpoint")
    found = _SIZE.match(note.decode("utf-8", "replace"))
    if found is None:
        raise BadCheckpoint("the broker's checkpoint can't be read")
    size = int(found[1])
    fetched = 0
    for path in paths(size):
        file = out / path
        if file.exists() and ".p/" not in path:
            continue
        content = fetch(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        fetched += 1
    out.mkdir(parents=True, exist_ok=True)
    fresh = out / "checkpoint.new"
    fresh.write_bytes(note)
    fresh.replace(out / "checkpoint")
    return size, fetched


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
