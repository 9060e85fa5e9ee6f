"""Each attack of the list has a test that is there, and each test that says its number is in the list."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.audit.attacks import ATTACKS, Attack, rendered

TESTS = Path(__file__).parents[1]


@cache
def named_in(file: Path) -> frozenset[str]:
    """The names of a file's tests."""
    names = (node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in names if name.startswith("test_"))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"[{attack.number}] {attack.what}")
def test_what_shows_an_attack_is_there(attack: Attack) -> None:
    for where in attack.shown:
        file, _, name = where.partition("::")
        assert name in named_in(TESTS / file), where


def test_the_list_is_whole_in_order_and_on_its_page() -> None:
    assert [attack.number for attack in ATTACKS] == list(range(1, 49))
    assert (TESTS / "audit" / "ATTACKS.md").read_text() == rendered()


def test_a_test_that_names_an_attack_is_in_the_list_under_it() -> None:
    listed = {(int(attack.number), where.partition("::")[2]) for attack in ATTACKS for where in attack.shown}
    of_the_log = (*TESTS.glob("audit/test_*.py"), *TESTS.glob("faults/test_*log*.py"), *TESTS.glob("foreign/test_*.py"))
    for file in of_the_log:
        for name in named_in(file):
            numbers = re.search(r"((?:_[0-9]{1,2})+)$", name)
            for number in numbers[1].split("_")[1:] if numbers else ():
                if 1 <= int(number) <= len(ATTACKS) and not name.endswith("exits_2"):
                    assert (int(number), name) in listed, name
