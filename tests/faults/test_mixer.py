"""Days of a partnership in an order, and with kills, that a seed decides; after each step all that was promised holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders_area import MORNING, the_time
from tests.builders_families import a_linked_area
from tests.faults.points import Points

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif("not config.getoption('--long')", reason="days of steps: make faults"),
]
ROOT = Path(__file__).parents[2]
LIVES, STEPS = 4, 60


@pytest.mark.parametrize("life", range(LIVES))
def test_a_partnership_that_is_killed_at_any_step_keeps_every_promise(
    life: int, tmp_path: Path, pytestconfig: pytest.Config, tally: Callable[[str], None], count: Points
) -> None:
    seed = pytestconfig.getoption("--seed") * LIVES + life
    steps = max(10, STEPS // pytestconfig.getoption("--every"))
    with the_time(MORNING):
        a_linked_area(tmp_path / "northshire").close()
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.mixer", str(tmp_path / "northshire"), str(seed), str(steps)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-3000:]
    *lived, last = lines
    count.add("mixed", **last["counts"])
    assert done.returncode == 0, json.dumps(lived[-3:], indent=1)
    killed, survived = last["counts"].get("killed", 0), last["counts"]["survived"]
    tally(
        f"mixed, seed {seed}: {survived} steps, {killed} killed, {last['batches']} batches, {last['answers']} answers"
    )
