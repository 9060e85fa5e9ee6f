"""A broker that does one thing and says what it has acknowledged, to be recorded down to its system calls.

python -m tests.faults.powered init|batch|night FOLDER [BATCH]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from broker import clock, nightly, validation
from broker.wiring import wire
from linkage.records import Manifest
from tests.broker.test_nightly import NIGHT
from tests.builders import COUNCIL, ICB, Batch, a_signer
from tests.builders_broker import Caller, an_installation, reception, serving, some_settings
from tests.faults.power import SAID

FLOWS = {COUNCIL: ("education",), ICB: ("health",)}


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


if __name__ == "__main__":
    {"init": init, "batch": batch, "night": night}[sys.argv[1]](*map(Path, sys.argv[2:]))
