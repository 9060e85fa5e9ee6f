"""`broker signer`, killed at any moment: it goes on from what it had kept, and refuses nothing that it signed.

`make test` kills one; with --long ten, each at another moment.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.keys import Keys
from broker.signing import RemoteSigners
from broker.trail import Trail
from tests.broker.test_signing import SOCKET
from tests.broker.test_trail import recorded
from tests.faults.test_log_kills import prepared

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]


@contextmanager
def a_process(home: Path) -> Iterator[subprocess.Popen[str]]:
    """`broker signer`, ready."""
    command = [
        sys.executable, "-c", "from broker.cli import main; main()", "signer", "--dir", home / "signer", "--socket",
        home / SOCKET,
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("signer:")
        yield process
    finally:
        process.kill()
        process.wait(10)


def test_kill_9_of_the_signer_at_any_moment_leaves_it_able_to_go_on(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    rounds, chance = (10 if pytestconfig.getoption("--long") else 1), random.Random(9)
    store = prepared(f"sqlite:///{tmp_path}/broker.db", tmp_path)
    remote = RemoteSigners(tmp_path / SOCKET, seconds=2)
    trail = Trail(store, Keys.load(tmp_path / "keys"), remote, linger_ms=0)
    trail.start()
    receipts = []
    try:
        for number in range(rounds):
            with a_process(tmp_path) as process:
                receipts.append(trail.receipt(recorded(store, trail), timeout=20))
                entry = recorded(store, trail)
                trail.wake()
                time.sleep(chance.uniform(0, 0.02) if number else 0)
                process.send_signal(signal.SIGKILL)
            with a_process(tmp_path):
                receipts.append(trail.receipt(entry, timeout=20))
    finally:
        trail.stop()
        remote.hang_up()
    assert trail.broken() in (None, "SignerUnavailable")  # never a refusal
    sizes = [receipt.size for receipt in receipts]
    assert sizes == sorted(sizes)
    store.close()
