"""What the assurance pack claims is shown by tests that are there, and its lists are whole."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from deploy.assurance.__main__ import page

TESTS = Path(__file__).parents[1]
PACK = TESTS.parent / "deploy" / "assurance"
PAGES = sorted(path for path in PACK.glob("*.md"))
STATUSES = ("test", "by design", "host", "none", "absent")
# How many requirements each section of ASVS 5.0.0 has, chapter by chapter.
ASVS = (
    (2, 10, 12, 3, 3), (3, 3, 5, 2), (1, 3, 5, 8, 8, 1, 5), (5, 5, 2, 4), (1, 6, 3, 3), (3, 12, 8, 6, 8, 4, 2, 4),
    (3, 4, 2, 5, 3, 2), (4, 4, 3, 2), (3, 4), (2, 3, 5, 16, 5, 2, 3), (4, 5, 5, 4, 2, 2, 2), (5, 2, 5), (4, 6, 4, 7),
    (2, 8, 3), (5, 5, 7, 4), (1, 5, 4, 3, 4), (2, 8, 2),
)  # fmt: skip


@cache
def named_in(file: Path) -> frozenset[str]:
    return frozenset(node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef))


def cited(text: str) -> list[tuple[str, str]]:
    return re.findall(r"`([\w/]+\.py)::(\w+)`", text)


def rows(name: str) -> list[list[str]]:
    """The cells of a page's tables that have a status."""
    lines = (PACK / name).read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    return [row for row in cells if len(row) == 3 and row[1] not in ("status", "---")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_test_that_a_page_names_is_there(path: Path) -> None:
    missing = [
        f"{file}::{name}"
        for file, name in cited(path.read_text())
        if not (TESTS / file).is_file() or name not in named_in(TESTS / file)
    ]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_reference_to_a_test_is_of_another_form(path: Path) -> None:
    text = path.read_text()
    assert len(re.findall(r"::", text)) == len(cited(text))


@pytest.mark.parametrize("name", ["ASVS.md", "CONTROLS.md"])
def test_each_line_has_a_test_or_a_reason(name: str) -> None:
    for requirement, status, answer in rows(name):
        assert status in STATUSES, requirement
        assert cited(answer) if status == "test" else len(answer) > 6, requirement


def test_the_list_of_asvs_is_whole_and_in_order() -> None:
    due = [
        f"{chapter}.{section}.{number}"
        for chapter, sections in enumerate(ASVS, start=1)
        for section, count in enumerate(sections, start=1)
        for number in range(1, count + 1)
    ]
    assert len(due) == 345
    answered: list[str] = []
    for requirement, *_ in rows("ASVS.md"):
        first, _, last = requirement.partition("-")
        stem, _, number = first.rpartition(".")
        until = int((last or first).rpartition(".")[2])
        assert not last or last.startswith(f"{stem}."), requirement
        answered += [f"{stem}.{one}" for one in range(int(number), until + 1)]
    assert answered == due


def test_each_hazard_and_risk_has_its_number_once() -> None:
    for name, letter, least in (("HAZARDS.md", "H", 13), ("DPIA.md", "R", 12)):
        found = re.findall(rf"(?m)^\| ({letter}\d\d) \|", (PACK / name).read_text())
        assert found == [f"{letter}{number:02}" for number in range(1, len(found) + 1)]
        assert len(found) >= least


def test_the_inventory_is_the_code_s() -> None:
    assert (PACK / "INVENTORY.md").read_text() == page(), "python -m deploy.assurance writes it anew"


def test_every_page_is_on_the_first_page() -> None:
    first = (PACK / "README.md").read_text()
    assert {path.name for path in PAGES} - {"README.md"} == set(re.findall(r"\]\((\w+\.md)\)", first))
