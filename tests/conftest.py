"""What every test may be told, and what the fault harnesses and foreign verifiers counted, told at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings

from tests.sizes import LONG

settings.register_profile("long", max_examples=2000, deadline=None)
if LONG:
    settings.load_profile("long")


SURVIVED: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="The long fault harnesses: every system call is a point.")


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say how much was survived, or agreed on: a line of the run's summary."""
    return request.config.stash.setdefault(SURVIVED, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if told := config.stash.get(SURVIVED, []):
        terminalreporter.section("faults survived")
        for line in told:
            terminalreporter.write_line(line)
