"""A broker that does one thing and says what it has acknowledged, to be recorded down to its system calls.

python -m tests.faults.powered init|batch|night|agreement|pause|erasure|retention|migration|flip|turn FOLDER [BATCH]
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker import activation, clock, nightly, rotation, shards, validation
from broker import erasure as erasing
from broker import retention as keeping
from broker.settings import LogRetention
from broker.store.erasures import ErasureRow
from broker.store.tombstones import Tombstones
from broker.wiring import open_installation, wire
from linkage.records import Manifest
from tests.broker.test_erasure import officer
from tests.broker.test_nightly import NIGHT
from tests.builders import COUNCIL, ICB, Batch, a_signer
from tests.builders_broker import WHO, Caller, an_installation, reception, serving, some_settings
from tests.builders_broker import pause as pause_part
from tests.faults.power import SAID

FLOWS = {COUNCIL: ("education",), ICB: ("health",)}
NEWER = "northshire-mash@3.1.0"
NEXT_YEAR = datetime(clock.now().year + 1, 1, 1, 0, 0, 1, tzinfo=UTC)
LATER = clock.now() + timedelta(days=366 * 8)


def say(what: str, value: object = None) -> None:
    os.write(1, f"{SAID}{what} {json.dumps(value)}\n".encode())


def keep(batch: Batch, folder: Path) -> Path:
    """The batch as files, for another process."""
    folder.mkdir()
    for name, content in {"manifest": batch.body, **batch.files}.items():
        (folder / name).write_bytes(content)
    return folder


def kept(folder: Path) -> Batch:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return Batch(Manifest.parse(files.pop("manifest")), files, a_signer(COUNCIL))


def init(folder: Path) -> None:
    """A broker's keys, tables and log, agencies and an agreement in force."""
    an_installation(folder, agencies=FLOWS)
    say("installed")


def batch(folder: Path, kept_batch: Path) -> None:
    """One batch, from its first byte to its verdict."""
    night = kept(kept_batch)
    with serving(some_settings(folder)) as http:
        caller = Caller(http, COUNCIL)
        id_ = str(caller.open(night).json()["batch"])
        say("opened", id_)
        for table, number, content in night.chunks():
            assert caller.put(night, id_, table, number, content).status_code == 204
            say("chunk", [table, number])
        assert caller.commit(night, id_).status_code == 202
        say("sealed")
        say("receipt", caller.on(night, id_, "receipt?kind=received").json())
        assert list(validation.validate_sealed(reception(http)).values()) == ["accepted"]
        say("accepted")
        say("receipt", caller.on(night, id_, "receipt?kind=verdict").json())


def night(folder: Path) -> None:
    """One night, to its published view."""
    broker = wire(some_settings(folder))
    assert nightly.run(broker, night=NIGHT, at=clock.now())["state"] == "published"
    say("published")
    broker.store.close()


def agreement(folder: Path) -> None:
    """A newer version put in force, which takes every party out of the older one."""
    broker = wire(some_settings(folder))
    activation.activate(broker.store, broker.trail, NEWER, who=WHO, at=clock.now())
    say("in_force")
    broker.store.close()


def pause(folder: Path) -> None:
    """A party suspends its own part in an agreement."""
    broker = wire(some_settings(folder))
    pause_part(broker, COUNCIL)
    say("paused")
    broker.store.close()


def erasure(folder: Path) -> None:
    """What one officer proposed is approved by another, and the files are written anew."""
    broker = wire(some_settings(folder))
    kept = Tombstones(folder)
    with broker.store.reading() as reading:
        [row] = reading.all(ErasureRow, state="proposed")
    erasing.approve(broker.store, broker.trail, broker.keys, kept, officer("ig-2"), erasure=row.id, at=clock.now())
    say("erased", row.id)
    assert erasing.purge(broker.store, broker.trail, kept, who=WHO, at=clock.now())
    say("purged")
    broker.store.close()


def retention(folder: Path) -> None:
    """What is past its time expires, in a year when that is so."""
    broker = wire(some_settings(folder))
    done = keeping.run(broker.store, broker.trail, LogRetention(), dict, who=WHO, at=LATER)
    say("expired", done.events)
    broker.store.close()


def migration(folder: Path) -> None:
    """An older schema brought to this version, as `broker migrate` does."""
    open_installation(some_settings(folder))
    say("migrated")


def flip(folder: Path) -> None:
    """The next epoch of the linkage key put in service by the second person."""
    from tests.broker.test_rotation import BEN, NEXT  # loads what no other run needs

    broker = wire(some_settings(folder))
    rotation.confirm(broker, NEXT.name, who=BEN, at=clock.now())
    say("flipped")
    broker.store.close()


def turn(folder: Path) -> None:
    """The log's year ends: the old shard is closed and a new one opened under a key of its own."""
    broker = wire(some_settings(folder))
    shards.turn(broker.trail, broker.settings.log_base, who=WHO, at=NEXT_YEAR)
    say("turned")
    broker.store.close()


if __name__ == "__main__":
    runs = (init, batch, night, agreement, pause, erasure, retention, migration, flip, turn)
    {run.__name__: run for run in runs}[sys.argv[1]](*map(Path, sys.argv[2:]))
