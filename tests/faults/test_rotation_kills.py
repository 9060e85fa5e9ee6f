"""SIGKILL while the linkage key's next epoch is put in service (F07): the old epoch or the new one, never between.

The real command is killed as it enters a system call, each time from a fresh start, until it survives.  With --long alone:
`tests/broker/test_rotation.py` ends it at transactions in every run.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import clock, rotation
from broker.settings import Settings
from broker.store.agencies import AgencyRow
from broker.store.epochs import EpochRow
from broker.store.runs import LinkRunRow
from broker.wiring import wire
from tests.broker.test_nightly import in_service, person_of
from tests.broker.test_rotation import ANNE, BEN, FLOWS, NEXT, broker_of, prepare
from tests.builders import EPOCH
from tests.builders_broker import an_installation, serving, some_settings
from tests.faults.points import Points, some
from tests.faults.test_kill import check_log, killed_at

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def proposed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A broker that waits for the second person."""
    folder = tmp_path_factory.mktemp("proposed")
    flows: dict[str, tuple[str, ...]] = {}
    for agency, flow in FLOWS:
        flows[agency] = (*flows.get(agency, ()), flow)
    settings = an_installation(folder, agencies=flows)
    with serving(settings) as http:
        broker = broker_of(http)
        prepare(http, broker)
        rotation.link(broker, NEXT.name, who=ANNE, at=clock.now())
        rotation.propose(broker, NEXT.name, who=ANNE, at=clock.now())
    (folder / "broker.toml").write_text(
        f'environment = "demo"\npartnership = "{settings.partnership}"\nbase_url = "{settings.base_url}"\n'
        'database_url = "sqlite:///broker.sqlite"\ndata_dir = "."\nlinger_ms = 0\n'
    )
    return folder


@pytest.mark.parametrize("name", ["fdatasync", "fsync", "rename", "unlink", "pwrite64"])
def test_a_flip_killed_anywhere_leaves_one_epoch_whole_and_goes_on(
    name: str, proposed: Path, tmp_path: Path, tally: Callable[[str], None], pytestconfig: pytest.Config, count: Points
) -> None:
    if not pytestconfig.getoption("--long"):
        pytest.skip("each point is a command of its own: with --long")
    folder, seen = tmp_path / "broker", [0, 0]
    for when in some(range(1, 2000, 5 if name == "pwrite64" else 1), pytestconfig):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(proposed, folder)
        command = ("epochs", "flip", NEXT.name, "--confirm", "--by", "ben")
        with killed_at((name, when), folder, *command) as process:
            code = process.wait(timeout=300)
        if code == 0:
            goes_on(some_settings(folder))
            break
        with count.at("F07"):
            seen[goes_on(some_settings(folder))] += 1
        assert code in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{name} {when}"
    assert (
        seen[0] or name == "unlink" or pytestconfig.getoption("--every") > 1
    )  # a name is removed after the flip alone
    tally(f"flip killed at {name}: {seen[0]} times under the old epoch, {seen[1]} under the new")


def goes_on(settings: Settings) -> bool:
    """Whether the new epoch is in service; then, or else after the same command again, all is whole and tidy."""
    broker = wire(settings)
    new = in_service(broker).counts["key_epoch"] == NEXT.name
    before = person_of(broker)
    with broker.store.reading() as tx:
        assert {row.key_epoch for row in tx.all(AgencyRow)} == {NEXT.name if new else EPOCH}
        assert {row.name: row.state for row in tx.all(EpochRow)} == (
            {EPOCH: "held", NEXT.name: "in_service"} if new else {EPOCH: "in_service", NEXT.name: "prepared"}
        )
    assert rotation.confirm(broker, NEXT.name, who=BEN, at=clock.now())["state"] == "in_service"
    assert person_of(broker) == before
    with broker.store.reading() as tx:
        assert not [row for row in tx.all(LinkRunRow) if row.state == "running" and not new]
    check_log(broker)
    broker.store.close()
    return new
