"""What every test may be told, and what the fault harnesses and foreign verifiers counted, told at the end of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from tests.faults import points
from tests.faults.points import Points
from tests.sizes import LONG

settings.register_profile("long", max_examples=2000, deadline=None)
if LONG:
    settings.load_profile("long")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="The long fault harnesses: every system call is a point.")
    parser.addoption("--every", type=int, default=1, help="With --long: every so many-th point alone (1: all).")
    parser.addoption("--seed", type=int, default=1, help="What the fault harnesses choose by.")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say how much was survived, or agreed on: a line of the run's summary."""

    def tell(line: str) -> None:
        request.node.user_properties.append(("told", line))

    return tell


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Points:
    """The points of a fault that this test tries, for the table of the run's summary."""
    counted = Points()
    request.addfinalizer(lambda: request.node.user_properties.append(("points", counted.plain())))
    return counted


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    told: list[str] = []
    ran: dict[str, tuple[bool, dict[str, dict[str, int]]]] = {}
    reports = [one for some in terminalreporter.stats.values() for one in some if isinstance(one, pytest.TestReport)]
    failed = {one.nodeid for one in reports if one.failed}
    skipped = {one.nodeid for one in reports if one.skipped}
    for report in reports:
        if report.when == "teardown":
            known: dict[str, Any] = dict(report.user_properties)
            told += [str(line) for name, line in report.user_properties if name == "told"]
            if report.nodeid not in skipped:
                ran[report.nodeid.removeprefix("tests/")] = (report.nodeid not in failed, known.get("points", {}))
    if told:
        terminalreporter.section("faults survived")
        for line in told:
            terminalreporter.write_line(line)
    if config.getoption("--long"):
        terminalreporter.section("points")
        for line in points.table(ran):
            terminalreporter.write_line(line)
        seed, every = config.getoption("--seed"), config.getoption("--every")
        terminalreporter.write_line(f"The same run again: make faults SEED={seed} EVERY={every}")
