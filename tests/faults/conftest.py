"""What the fault harnesses survived, counted and told at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

SURVIVED: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say how much was survived: a line of the run's summary."""
    return request.config.stash.setdefault(SURVIVED, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if told := config.stash.get(SURVIVED, []):
        terminalreporter.section("faults survived")
        for line in told:
            terminalreporter.write_line(line)
