"""Every attack by its name, and the largest population each is run on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from linkage.evaluation.attack.bench import Attack, Bench
from linkage.evaluation.attack.results import AttackResult


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an attack is written (module and function), and how many children it is run on by default and at most."""

    name: str
    module: str
    function: str
    default: int
    most: int

    def load(self) -> Attack:
        """The attack itself, imported when it is asked for."""
        made: Attack = getattr(import_module(f"linkage.evaluation.attack.{self.module}"), self.function)
        return made

    def run(self, bench: Bench) -> Iterator[AttackResult]:
        """Every case of it."""
        return self.load()(bench)


ATTACKS: Final = {
    entry.name: entry
    for entry in (
        Entry("frequency", "frequency", "frequency", 200_000, 2_000_000),
        Entry("chained", "frequency", "chained", 200_000, 2_000_000),
        Entry("siblings", "frequency", "siblings", 200_000, 1_000_000),
        Entry("composite", "composite", "composite", 200_000, 2_000_000),
        Entry("matchkey", "composite", "matchkey", 200_000, 2_000_000),
        Entry("equality", "equality", "equality", 20_000, 200_000),
        Entry("households", "households", "households", 200_000, 1_000_000),
        Entry("length", "length", "length", 20_000, 200_000),
        Entry("dictionary", "dictionary", "dictionary", 2_000, 20_000),
        Entry("known_pairs", "known_pairs", "known_pairs", 2_000, 10_000),
        Entry("graph", "graph", "graph", 1_000, 10_000),
        Entry("graph_families", "graph", "graph_families", 5_000, 10_000),
        Entry("graph_published", "graph", "graph_published", 1_000, 10_000),
    )
}
