"""A power cut: whatever was acknowledged is there, and the broker goes on by itself, whatever was still in memory.

A real installation, batch and night are recorded call by call (`tests.faults.power`); at a cut, the disk is rebuilt as the
power may leave it, and the broker opened on it.  `make test` tries a few cuts of each; with --long every cut, three times.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from audit.merkle import Frontier, leaf_hash
from audit.receipts import LogReceipt
from broker import clock, register, validation
from broker.keys import Keys
from broker.linked import clusters_of
from broker.store.agencies import AgencyRow
from broker.store.batches import BatchRow
from broker.store.items import ItemRow
from broker.store.log import EntryRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.wiring import Broker, open_installation, wire
from tests.broker.test_nightly import NAMES, a_night, ref
from tests.builders import COUNCIL, Batch, a_ref, an_item
from tests.builders_broker import AGREEMENT, BASE, an_installation, reception, serving, some_settings
from tests.faults.points import Half, Lost, Points, some
from tests.faults.power import Act, Disk, recorded
from tests.faults.powered import FLOWS, keep
from tests.faults.test_kill import Client, check_log, finish, linked_once, some_nights

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
SHORT = 5  # cuts of each in `make test`
SHARES = (None, 0.5, 0.9)  # of what was pending, how much is left: nothing, half, nearly all
KILLED = 1.0  # all of it: the process alone was ended

TOY = """
import os, sqlite3, sys
folder, journal, synchronous = sys.argv[1:]
there = sqlite3.connect(folder + "/toy.sqlite", isolation_level=None)
for pragma in ("journal_mode=" + journal, "synchronous=" + synchronous, "wal_autocheckpoint=8"):
    there.execute("PRAGMA " + pragma).fetchall()
for batch in range(6):
    there.execute("BEGIN IMMEDIATE")
    there.executemany("INSERT INTO row VALUES (?, ?)", [(batch, os.urandom(300)) for _ in range(15)])
    there.execute("COMMIT")
    os.write(1, b"said committed %d\\n" % batch)
"""

NOTE = """
import os, sys
with open(sys.argv[1] + "/note.new", "wb") as file:
    file.write(b"kept")
    file.flush()
    os.fsync(file.fileno())
os.rename(sys.argv[1] + "/note.new", sys.argv[1] + "/note")
if len(sys.argv) > 2:
    folder = os.open(sys.argv[1], os.O_RDONLY)
    os.fsync(folder)
os.write(1, b"said kept 1\\n")
"""


def cut_everywhere(
    acts: Sequence[Act], disk: Disk, into: Path, *, cuts: Sequence[int], shares: Sequence[float | None] = SHARES
) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    """At each cut the disks as they may be left, written to `into`: which one that is, and what had been said by then."""
    said: dict[str, list[Any]] = {}
    wanted = set(cuts)
    for at, act in enumerate([*acts, Act("said")]):
        for number, share in enumerate(shares if at in wanted else ()):
            name = f"cut {at} of {len(acts)}, disk {number}"
            disk.left(into, chance=None if share is None else Random(name), share=share or 0, killed=share == KILLED)
            yield name, said
        if act.kind != "said":
            disk.do(act)
        elif act.data:
            _, what, value = act.data.decode().split(" ", 2)
            said.setdefault(what, []).append(json.loads(value))


def cuts_of(acts: Sequence[Act], long: bool) -> list[int]:
    """Every cut that leaves another disk than the one before; or a few of them, spread over all."""
    every = [at + 1 for at, act in enumerate(acts) if act.kind != "said"]
    return every if long else sorted(Random(1).sample(every, SHORT - 1)) + every[-1:]


# --- The harness itself ---------------------------------------------------------------------------------------------


def toy(tmp_path: Path, journal: str, synchronous: str) -> set[str]:
    """What becomes of six batches in SQLite over all cuts: ok, lost, half or corrupt."""
    folder, copied, left = (tmp_path / name for name in ("toy", "copied", "left"))
    folder.mkdir()
    made = sqlite3.connect(folder / "toy.sqlite")
    made.execute("CREATE TABLE row (batch INTEGER, content BLOB)")
    made.close()
    shutil.copytree(folder, copied)
    acts = recorded((sys.executable, "-c", TOY, str(folder), journal, synchronous), folder, tmp_path / "log")
    disk, found = Disk(copied), set()
    for _, said in cut_everywhere(acts, disk, left, cuts=range(len(acts) + 1)):
        found.add(verdict(left / "toy.sqlite", len(said.get("committed", ()))))
    disk.assert_is(folder)
    return found


def verdict(path: Path, acknowledged: int) -> str:
    try:
        there = sqlite3.connect(path)
        if there.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            return "corrupt"
        rows = dict(there.execute("SELECT batch, count(*) FROM row GROUP BY batch").fetchall())
    except sqlite3.DatabaseError:
        return "corrupt"
    finally:
        there.close()
    if set(rows.values()) - {15}:
        return "half"
    return "ok" if len(rows) >= acknowledged else "lost"


@pytest.mark.parametrize(("journal", "synchronous"), [("WAL", "FULL"), ("DELETE", "EXTRA")])
def test_a_database_that_waits_for_its_disk_loses_nothing(tmp_path: Path, journal: str, synchronous: str) -> None:
    assert toy(tmp_path, journal, synchronous) == {"ok"}


@pytest.mark.parametrize(
    ("journal", "synchronous", "harm"),
    [("WAL", "NORMAL", "lost"), ("DELETE", "FULL", "lost"), ("DELETE", "OFF", "corrupt")],
)
def test_the_harness_finds_one_that_does_not(tmp_path: Path, journal: str, synchronous: str, harm: str) -> None:
    """SQLite's FULL does not sync the folder once the rollback journal is deleted: its EXTRA does."""
    assert harm in toy(tmp_path, journal, synchronous)


@pytest.mark.parametrize("synced", [True, False])
def test_the_harness_finds_a_name_that_was_never_synced(tmp_path: Path, synced: bool) -> None:
    folder, copied, left = (tmp_path / name for name in ("note", "copied", "left"))
    folder.mkdir()
    copied.mkdir()
    told = ("and its folder",) if synced else ()
    acts = recorded((sys.executable, "-c", NOTE, str(folder), *told), folder, tmp_path / "log")
    there = [
        (left / "note").exists()
        for _, said in cut_everywhere(acts, Disk(copied), left, cuts=[len(acts)], shares=(None,))
        if said
    ]
    assert there == [synced]


# --- The broker ------------------------------------------------------------------------------------------------------


def run_recorded(what: str, folder: Path, tmp_path: Path, *more: Path) -> tuple[list[Act], Disk]:
    """What one run did to its disk, and that disk before it."""
    folder.mkdir(exist_ok=True)
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    command = (sys.executable, "-m", "tests.faults.powered", what, str(folder), *map(str, more))
    acts = recorded(command, folder, tmp_path / "log", env={**os.environ, "PYTHONPATH": str(ROOT)})
    whole = Disk(copied)
    for act in acts:
        if act.kind != "said":
            whole.do(act)
    whole.assert_is(folder)
    return acts, Disk(copied)


def receipts_hold(broker: Broker, receipts: Sequence[dict[str, Any]]) -> None:
    """Each receipt's tree is the beginning of the log."""
    with broker.store.reading() as tx:
        leaves = [leaf_hash(entry.leaf) for entry in tx.all(EntryRow, order=("seq",))]
    for told in receipts:
        told_of = LogReceipt.from_json(told).proof.signed.checkpoint
        if len(leaves) < told_of.size:
            raise Lost("a receipt's entry is lost")
        assert Frontier().extend(leaves[: told_of.size]).root == told_of.root


Check = Callable[[Path, dict[str, list[Any]]], None]


def survives(
    what: str,
    folder: Path,
    tmp_path: Path,
    config: pytest.Config,
    check: Check,
    *more: Path,
    count: Points,
    shares: Sequence[float | None] = SHARES,
    kill: str = "F07",
) -> str:
    """`check` passes on every disk that a cut in this run may leave, on one of each of a few cuts unless --long; told.

    With `KILLED` among the shares a kill counts as `kill`, as every other cut counts as F08.
    """
    acts, disk = run_recorded(what, folder, tmp_path, *more)
    long = bool(config.getoption("--long"))
    points = some(cuts_of(acts, True), config) if long else cuts_of(acts, False)
    left, tried = tmp_path / "left", 0
    for number, (name, said) in enumerate(cut_everywhere(acts, disk, left, cuts=points, shares=shares)):
        cut, share = divmod(number, len(shares))
        if not long and share != cut % len(shares):
            continue
        try:
            with count.at(kill if shares[share] == KILLED else "F08"):
                check(left, said)
        except Exception as wrong:
            wrong.add_note(f"{what}: {name}; had said {[*said]}")
            raise
        tried += 1
    return f"cuts, {what}: {len(points)} of {len(cuts_of(acts, True))} points, {tried} disks"


def test_a_batch_survives_a_power_cut_at_any_moment(
    tmp_path: Path, pytestconfig: pytest.Config, tally: Callable[[str], None], count: Points
) -> None:
    folder = tmp_path / "broker"
    an_installation(folder, agencies=FLOWS)
    record = ref(COUNCIL, "education", NAMES[0])
    night = a_night(COUNCIL, "education", NAMES[:4], items=[an_item(a_ref(at), record) for at in range(40)])
    check = partial(a_batch_goes_on, night)
    told = survives("batch", folder, tmp_path, pytestconfig, check, keep(night, tmp_path / "batch"), count=count)
    tally(told)


def a_batch_goes_on(night: Batch, folder: Path, said: dict[str, list[Any]]) -> None:
    with serving(some_settings(folder)) as http:
        broker: Broker = http.app.state.broker  # type: ignore[attr-defined]
        receipts_hold(broker, said.get("receipt", ()))
        client = Client(
            http, COUNCIL, BASE, night, arrived={(table, number) for table, number in said.get("chunk", ())},
            id=(said.get("opened") or [None])[0], sealed="sealed" in said,
        )  # fmt: skip
        client.hand_in()
        validation.validate_sealed(reception(http))
        client.see_verdict(seconds=0)
        with broker.store.reading() as tx:
            assert [(row.id, row.state, row.verdict and row.verdict.get("code")) for row in tx.all(BatchRow)] == [
                (client.id, "accepted", None)
            ]
            if len(tx.all(ItemRow)) != night.manifest.tables["items"].rows:
                raise Half("the batch has other rows than its manifest says")
        check_log(broker)
        receipts_hold(broker, said.get("receipt", ()))


@pytest.mark.skipif("not config.getoption('--long')", reason="every cut of an installation: make faults")
def test_an_installation_survives_a_power_cut_at_any_moment(
    tmp_path: Path, pytestconfig: pytest.Config, tally: Callable[[str], None], count: Points
) -> None:
    tally(survives("init", tmp_path / "broker", tmp_path, pytestconfig, an_installation_goes_on, count=count))


def an_installation_goes_on(folder: Path, said: dict[str, list[Any]]) -> None:
    settings = some_settings(folder)
    if "installed" not in said:  # `broker init`, once more
        Keys.make(settings.data_dir / "keys")
        open_installation(settings)
    broker = wire(settings)
    if "installed" in said:
        with broker.store.reading() as tx:
            assert {row.id for row in tx.all(AgencyRow)} >= set(FLOWS)
            listed = {one.ref: one.state for one in register.documents(tx, at=clock.now())}
        assert listed[AGREEMENT] == "active"
    check_log(broker)
    broker.store.close()


@pytest.mark.skipif("not config.getoption('--long')", reason="every cut of a night: make faults")
def test_a_night_survives_a_power_cut_at_any_moment(
    tmp_path: Path, pytestconfig: pytest.Config, tally: Callable[[str], None], count: Points
) -> None:
    folder = tmp_path / "broker"
    an_installation(folder, agencies=FLOWS)
    linked_once(some_settings(folder), some_nights())
    tally(survives("night", folder, tmp_path, pytestconfig, a_night_goes_on, count=count))


def a_night_goes_on(folder: Path, said: dict[str, list[Any]]) -> None:
    broker = wire(some_settings(folder))
    with broker.store.reading() as tx:
        pointer = tx.one(PublishedRow)
        assert pointer is not None
        run = tx.one(LinkRunRow, id=pointer.run)
    assert run is not None
    assert pointer.version == 2 or "published" not in said
    if not clusters_of(broker.vault, run).num_rows == run.counts["records"] == {1: 10, 2: 12}[pointer.version]:
        raise Half("the view in service is none that a run made")
    finish(broker, folder, version=pointer.version)
    broker.store.close()
