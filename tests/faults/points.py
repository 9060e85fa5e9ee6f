"""What is counted of every fault: the points tried, those survived, and what was broken where one was not.

A point is a place at which something is killed, cut, filled, failed or replayed, and after which the invariants are asked.
`Points` go with their test's report, so that runs in several processes add up; `table` tells them, a line a fault.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import pytest

PAGE: Final = Path(__file__).with_name("FAULTS.md")
HARMS: Final = ("lost", "half", "unentered")
COLUMNS: Final = ("points", "survived", *HARMS)
Point = TypeVar("Point")
TOLD: Final = ("points", "survived", "acknowledged lost", "half batches", "disclosures without entry")


class Harm(AssertionError):
    """An invariant is broken; `kind` is the column it counts under."""

    kind = ""


class Lost(Harm):
    """Something that was acknowledged is gone."""

    kind = "lost"


class Half(Harm):
    """A batch, a view or a change is there in part."""

    kind = "half"


class Unentered(Harm):
    """Something was disclosed, and the log does not say so."""

    kind = "unentered"


class Points:
    """What one test counts."""

    def __init__(self) -> None:
        self.counted: defaultdict[str, Counter[str]] = defaultdict(Counter)

    @contextmanager
    def at(self, fault: str) -> Iterator[None]:
        """One point of a fault: survived if nothing is raised within."""
        count = self.counted[fault]
        count["points"] += 1
        try:
            yield
        except Harm as harm:
            count[harm.kind] += 1
            raise
        count["survived"] += 1

    def add(self, fault: str, **counted: int) -> None:
        """What another process counted of a fault."""
        self.counted[fault].update({name: counted.get(name, 0) for name in COLUMNS})

    def plain(self) -> dict[str, dict[str, int]]:
        return {fault: dict(count) for fault, count in self.counted.items()}


def shown_by(page: Path = PAGE) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Of each fault what it is, and the tests that show it, as file::name below `tests`."""
    rows = [line.split("|")[1:-1] for line in page.read_text("utf-8").splitlines() if line.startswith("| F")]
    return {row[0].strip(): (row[1].strip(), tuple(re.findall(r"`([^`]+::[^`]+)`", row[2]))) for row in rows}


def some(points: Sequence[Point], config: pytest.Config) -> list[Point]:
    """Every so many-th of a list, as the command line says; which, the seed decides."""
    every = int(config.getoption("--every"))
    return list(points[int(config.getoption("--seed")) % min(every, len(points) or 1) :: every])


def total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    whole: Counter[str] = Counter()
    for one in counts:
        whole.update(one)
    return whole


def by_fault(ran: Mapping[str, tuple[bool, Mapping[str, Mapping[str, int]]]]) -> dict[str, Counter[str]]:
    """The points of each fault: what each test (file::name) counted of it, and else itself, once.

    `ran` has of each test whether it passed, and its count.
    """
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    shown = shown_by()
    for test, (passed, counted) in ran.items():
        name = re.sub(r"\[.*$", "", test, flags=re.DOTALL)
        for fault, count in counted.items():
            found[fault].update(count)
        for fault, (_, tests) in shown.items():
            if name in tests and not counted:
                found[fault].update(points=1, survived=int(passed))
    return dict(found)


def table(ran: Mapping[str, tuple[bool, Mapping[str, Mapping[str, int]]]]) -> list[str]:
    """A line a fault, and a total; a fault that nothing was tried of says so."""
    found = by_fault(ran)
    lines = [f"{'':58}" + "".join(f"{name:>{len(name) + 3}}" for name in TOLD)]
    for fault, (what, _) in shown_by().items():
        lines.append(_line(f"{fault} {what}", found.get(fault, Counter())))
    lines.append(_line("mixed: any of these, in any order", found.get("mixed", Counter())))
    return [*lines, _line("total", total(found.values()))]


def _line(name: str, count: Mapping[str, int]) -> str:
    cells = [f"{count.get(column, 0):>{len(told) + 3}}" for column, told in zip(COLUMNS, TOLD, strict=True)]
    return f"{name[:57]:58}" + "".join(cells)
