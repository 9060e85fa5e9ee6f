"""Each threat of the list has its mitigation in a module that is there and a test that is there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.broker.threats import THREATS, Threat, rendered

TESTS = Path(__file__).parents[1]


@cache
def named_in(file: Path) -> frozenset[str]:
    """The names of a file's tests."""
    return frozenset(node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: f"[T{threat.number}] {threat.who}")
def test_what_stops_a_threat_and_what_shows_it_are_there(threat: Threat) -> None:
    assert [file for file in threat.where if not (TESTS.parent / file).is_file()] == []
    assert threat.shown
    for shown in threat.shown:
        file, _, name = shown.partition("::")
        assert name.startswith("test_"), shown
        assert name in named_in(TESTS / file), shown


def test_the_list_is_whole_in_order_and_on_its_page() -> None:
    assert [threat.number for threat in THREATS] == list(range(1, 28))
    assert (TESTS / "broker" / "THREATS.md").read_text() == rendered()
