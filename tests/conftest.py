"""What every test may be told."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.sizes import LONG

settings.register_profile("long", max_examples=2000, deadline=None)
if LONG:
    settings.load_profile("long")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="The long fault harnesses: every system call is a point.")
