"""A process that records as fast as it can, to be killed, time and again: prints each event's id once its receipt is held.

python -m tests.faults.log_writer URL DATA_DIR ORIGIN

For each line of its input one is forked, by a process that has loaded all and opened nothing: that prints `ready` and
its number, and this `gone` when it has ended.
"""

import os
import sys
import threading
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from audit.events import Event
from broker.errors import LogUnavailable, StoreUnavailable
from broker.keys import Keys
from broker.store import Store
from broker.store.sessions import SpentTokenRow
from broker.trail import Trail, new_event_id
from tests.builders_signer import opened

THREADS = 4
READ = "audit.searched"
AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)


def say(line: str) -> None:
    """In one system call, so that no kill cuts it in two."""
    os.write(1, f"{line}\n".encode())


def write(store: Store, trail: Trail) -> None:
    """Business row and event in one transaction, then the receipt, then the acknowledgement; in turn with reads, which
    are an event and nothing else.
    """
    for alone in cycle((False, True)):
        event = Event(
            id=new_event_id(), type=READ if alone else "config.changed", who={"organisation": "northshire"}, what={},
            why={}, detail={},
        )  # fmt: skip
        try:
            if alone:
                receipt = trail.receipt_for(event)
            else:
                with store.transaction() as tx:
                    tx.add(SpentTokenRow(issuer="writer", use="work", jti_sha256=event.id, expires_at=AT))
                    entry = trail.record(tx, event)
                receipt = trail.receipt(entry)
            receipt.verify_itself()
        except (LogUnavailable, StoreUnavailable) as wrong:
            print(f"refused {wrong}", file=sys.stderr, flush=True)
            continue
        say(event.id)


def writer(url: str, data_dir: Path, origin: str) -> None:
    """Write until killed."""
    store, keys = Store(url), Keys.load(data_dir / "keys")
    trail = Trail(store, keys, opened(store, data_dir, origin=origin))
    trail.start()
    say(f"ready {os.getpid()}")
    threads = [threading.Thread(target=write, args=(store, trail)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(url: str, data_dir: Path, origin: str) -> None:
    for _ in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            writer(url, data_dir, origin)
        os.waitpid(child, 0)
        say("\ngone")  # on a line of its own, whatever a log line that was cut off left


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
