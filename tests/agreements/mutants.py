"""Faults to plant in the compiled evaluator: the text of each is changed in one place, and somebody must notice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from agreements import VOCABULARY, Decision, Mode, decide, decision
from tests.agreements.worlds import World, world

FAULTS: dict[str, tuple[str, str]] = {
    "skip role": ('self._roles.get(role, 0)', '-1'),
    "skip basis": ('& self._art6.get(basis.art6, 0)', ''),
    "skip gateway": ('gated = self._ungated', 'gated = -1'),
    "skip case": ("self.open &= opening.caseless", "pass"),
    "skip threshold": ("& self._thresholds[level + 1]", ""),
    "skip about": ('opening.about.get(facts.relation, 0) & ', ''),
    "skip link": (" & opening.linked[facts.link]", ""),
    "skip regime": ('marks |= other[several]', 'marks |= general[several]'),
    "skip window": ('several = bisect_right(windows, recorded_on)', 'several = -1'),
    "skip break-glass": ("and (session is None or not session.started <= at < session.started + clause.session)", "and False"),
    "skip condition": ('given = clause.bare if clause.conditions.isdisjoint(conditions) else clause.gives', 'given = clause.gives'),
    "skip own limits": ("for limit in clause.limits:", "for limit in ():"),
    "skip link ceiling": ("self.ceiling &= opening.terms.links[facts.link]", "pass"),
    "skip purpose ceiling": ("known.terms.purposes[kind.purpose] & ", ""),
    "inclusive end": ("if start <= at < end:", "if start <= at <= end:"),
    "exact purpose only": ("purposes=inside - shut,", "purposes=grant.purposes - shut,"),
    "broader purpose covers": ("purposes=inside - shut,", "purposes=(_overlapping(grant.purposes, vocabulary) or inside) - shut,"),
    "exclusion by containment": ("purposes=inside - shut,", "purposes=inside - frozenset().union(*(vocabulary.down(p) for p in grant.not_purposes)),"),
    "restriction by containment": ("if vocabulary.down(asked) & below)", "if vocabulary.down(asked) <= below)"),
    "ignore lift": ("and not (self.liftable and live_session)", ""),
    "ignore tag": ("self.tag is None or self.tag in facts.tags or", "self.tag is None or"),
    "ignore unknown tag": ('or self.tag in facts.tags_unknown', ''),
    "unknown record escapes": ('if facts.record is None:', 'if False:'),
    "join by and": ("if able := clauses[mode] & marks:", "if (able := clauses[mode] & marks) == marks:"),
    "ceiling by or": ("for holder in self.applied:\n                self.ceiling &= holder.leaves", "for holder in self.applied:\n                self.ceiling |= holder.leaves"),
    "closed basis open": ("if not (public and", "if not (False and"),
    "grants add up": ("marks = inside.get(category, 0) & open_", "marks = open_ if category in inside else 0"),
    "items of other categories": ("marks = inside.get(category, 0) & open_", "marks = inside[RECORD] & open_"),
    "suspension ignored": ("if event.do == \"suspend\" and since is None:", "if False:"),
    "withdrawal ignored": ("end = min(end, event.at)", "pass"),
    "umbrella ignored": ("if agreement.under is not None:", "if False:"),
    "overdue review ignored": ("if agreement.if_review_overdue == \"suspend\" and", "if False and"),
    "skip record limit": ("named = shifts if RECORD in categories else categories", "named = categories"),
    "sector ignored": ("if category == RECORD or vocabulary.categories[category].sector in sectors", "if True"),
}  # fmt: skip
"""By name: a piece of agreements/decision that stands there once, and what is put in its place."""

PARTS = ("cells", "compiled", "standing", "one")
"""The modules of `decide`, each after those that it reads."""

CONTROL = ("WIDTH: Final = 5", "WIDTH: Final = 5")
"""No fault at all: it must live."""


def mutant(old: str, new: str) -> Callable[..., Decision]:
    """`decide` of the engine's own text with one piece changed."""
    folder, name = Path(str(decision.__file__)).parent, "mutated_decision"
    texts = {part.stem: part.read_text(encoding="utf-8") for part in sorted(folder.glob("*.py"))}
    assert sum(text.count(old) for text in texts.values()) == 1, f"{old!r} does not stand there once"
    for stale in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[stale]
    for part in ("__init__", *PARTS):
        module = ModuleType(name if part == "__init__" else f"{name}.{part}")
        module.__path__ = []
        sys.modules[module.__name__] = module
        if part != "__init__":
            text = texts[part].replace(old, new).replace("from agreements.decision.", f"from {name}.")
            exec(compile(text, f"{part}.py, changed", "exec"), module.__dict__)
    mutated: Callable[..., Decision] = sys.modules[f"{name}.one"].decide
    return mutated


def altered(faulty: Callable[..., Decision], searched: int = 2_500) -> Iterator[World]:
    """The worlds, of so many, that a faulty engine decides otherwise, or not at all."""
    for seed in range(searched):
        w, due = _drawn(seed)
        try:
            if modes_by(faulty, w) == due:
                continue
        except (ArithmeticError, LookupError, TypeError):
            pass
        yield w


def modes_by(evaluate: Callable[..., Decision], w: World) -> dict[str, Mode]:
    """The modes that an evaluator gives."""
    return dict(evaluate(w.snapshot, VOCABULARY, w.request, w.facts, w.at).modes)


@cache
def _drawn(seed: int) -> tuple[World, dict[str, Mode]]:
    w = world(seed)
    return w, modes_by(decide, w)
