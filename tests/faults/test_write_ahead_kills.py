"""A broker killed at each step of the write-ahead protocol, before and after its commit (attack 23).

What must hold: nothing of the answer leaves before its entry is under a signed checkpoint; what was committed is in the
log, once, and no more; `auditor fsck` exits 0; and an answer that was authorised and has no end is *possibly disclosed*
in the register.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from audit.cli import auditor
from broker.store.log import EventRow
from tests.broker.test_reports_registers import of
from tests.broker.test_shards import published
from tests.builders_area import MORNING, Area, the_time
from tests.builders_families import ROBIN, a_linked_area
from tests.faults.view_killer import STEPS

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
AUTHORISED, ENDED = "disclosure.authorised", "disclosure.completed"
HELD: dict[str, list[str]] = {
    **{step: [AUTHORISED] for step in STEPS},
    "1 in the transaction of the act": [],
    "6 the end is committed": [AUTHORISED, ENDED],
}
"""What the log has of the answer, wherever it was killed."""
LEFT = ("5", "6")  # the steps by which the answer is gone
SHORT = ("2 in the transaction of the sequencer", "3 the signer has kept its state", "5 the answer has left")
"""Before the entry is in the log, between its signature and the answer, and after that; with --long every one."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "step" in metafunc.fixturenames:
        metafunc.parametrize("step", STEPS if metafunc.config.getoption("--long") else SHORT)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[dict[str, Path]]:
    """A folder for each step, as the kill left it."""
    home, steps = tmp_path_factory.mktemp("killed"), STEPS if pytestconfig.getoption("--long") else SHORT
    with the_time(MORNING):
        first = a_linked_area(home / "northshire")
        folders = {step: first.copied(home / f"at-{n}").folder for n, step in enumerate(steps)}
        first.close()
        command = [sys.executable, "-m", "tests.faults.view_killer"]
        for step, folder in folders.items():
            command += [str(folder), step]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.stdout.split() == ["-9"] * len(steps), done.stderr
        yield folders


def test_killed_at_a_step_the_answer_left_only_after_its_entry_and_the_log_goes_on_23(
    killed: dict[str, Path], step: str, tmp_path: Path
) -> None:
    folder = killed[step]
    left = (folder / "left").read_bytes() if (folder / "left").exists() else b""
    assert bool(left) is step.startswith(LEFT)

    area = Area(folder)
    broker = area.broker
    signed_then = broker.trail.signed()
    area.size()
    with broker.store.reading() as reading:
        told = reading.all(EventRow, type=(AUTHORISED, ENDED), order=("seq",))
    assert [row.type for row in told] == HELD[step]
    if left:
        assert signed_then is not None
        assert signed_then.size > told[0].seq

    folder = published(broker.store, broker.trail, tmp_path / "log", broker.trail.origin)
    policy = tmp_path / "policy"
    policy.write_text(f"log {broker.trail.signers.status()[0].keys[0]}\nquorum none\n")
    audited = CliRunner().invoke(auditor, ["fsck", "--log", str(folder), "--policy", str(policy)])
    assert audited.exit_code == 0, audited.output

    if told:
        register = {row["decision"] for row in of(broker, "R1") if row["event_id"] == told[0].event_id}
        assert register == {"disclosed" if len(told) == 2 else "possibly_disclosed"}
    assert area.asker().view(ROBIN.typed(), case="K2")["tiles"]  # and the next answer leaves
    area.close()
