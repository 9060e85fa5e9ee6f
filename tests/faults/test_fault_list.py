"""Each fault of the list is on its page, and has a test that is there or says what is absent."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in (TESTS / "faults" / "FAULTS.md").read_text().splitlines()
    if line.startswith("| F")
]


def test_the_page_has_every_fault_in_order() -> None:
    assert [number for number, *_ in ROWS] == [f"F{number:02}" for number in range(1, 33)]


def test_every_test_the_page_names_is_there() -> None:
    for _, _, shown, _ in ROWS:
        for file, name in re.findall(r"`([^`:]+)::([^`]+)`", shown):
            tree = ast.parse((TESTS / file).read_text())
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


def test_a_fault_no_test_shows_says_that_it_is_absent() -> None:
    assert [number for number, _, shown, absent in ROWS if not shown and not absent] == []
