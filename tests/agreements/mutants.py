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
    "skip role": ('if request.role in clause.roles', 'if True'),
    "skip basis": ('and request.basis.art6 in clause.art6', ''),
    "skip gateway": ('(clause.gateways and clause.gateways.isdisjoint(gateways))', 'False'),
    "skip case": ("or (clause.case_reference and not case)", ""),
    "skip threshold": ("or level < clause.threshold", ""),
    "skip about": ('facts.relation not in clause.about or', ''),
    "skip link": ("or link < clause.link", ""),
    "skip regime": ('(\n                    law_enforcement or regime == "GENERAL"', '(\n                    True'),
    "skip break-glass": ("and (session is None or not session.started <= at < session.started + clause.session)", "and False"),
    "skip condition": ('rows = clause.bare if clause.conditions.isdisjoint(conditions) else clause.rows', 'rows = clause.rows'),
    "skip own limits": ("for limit in clause.limits:", "for limit in ():"),
    "skip link ceiling": ("_LINK_ROWS[facts.link],", ""),
    "skip purpose ceiling": ("compiled.terms.purposes[request.purpose],", ""),
    "inclusive end": ("period.start <= at < period.end for", "period.start <= at <= period.end for"),
    "exact purpose only": ("purposes=inside - shut,", "purposes=grant.purposes - shut,"),
    "broader purpose covers": ("purposes=inside - shut,", "purposes=(_overlapping(grant.purposes, vocabulary) or inside) - shut,"),
    "exclusion by containment": ("purposes=inside - shut,", "purposes=inside - frozenset().union(*(vocabulary.down(p) for p in grant.not_purposes)),"),
    "restriction by containment": ("if vocabulary.down(asked) & below)", "if vocabulary.down(asked) <= below)"),
    "ignore lift": ("and not (self.liftable and live_session)", ""),
    "ignore tag": ("self.tag is None or self.tag in facts.tags or", "self.tag is None or"),
    "ignore unknown tag": ('or self.tag in facts.tags_unknown', ''),
    "unknown record escapes": ('if facts.record is None:', 'if False:'),
    "join by and": ("one |= rows[1]", "one &= rows[1]"),
    "ceiling by or": ("three &= rows[3]", "three |= rows[3]"),
    "closed basis open": ("if not (public and", "if not (False and"),
    "grants add up": ('able = tuple([clause for clause, _, reached in covering if reached[mode] & bit])', 'able = tuple([clause for clause, _, _ in covering])'),
    "suspension ignored": ("if event.do == \"suspend\" and since is None:", "if False:"),
    "withdrawal ignored": ("end = min(end, event.at)", "pass"),
    "umbrella ignored": ("if agreement.under is not None:", "if False:"),
    "overdue review ignored": ("if agreement.if_review_overdue == \"suspend\" and", "if False and"),
    "skip record limit": ("named = _FULL if RECORD in categories else sum(", "named = sum("),
    "sector ignored": ("if category == RECORD or vocabulary.categories[category].sector in sectors", "if True"),
}  # fmt: skip
"""By name: a piece of decision.py that stands there once, and what is put in its place."""

CONTROL = ("_FULL: Final = -1", "_FULL: Final = -1")
"""No fault at all: it must live."""


def mutant(old: str, new: str) -> Callable[..., Decision]:
    """`decide` of the engine's own text with one piece changed."""
    text = Path(str(decision.__file__)).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    module = ModuleType("mutated_decision")
    sys.modules[module.__name__] = module
    exec(compile(text.replace(old, new), "mutated_decision.py", "exec"), module.__dict__)
    mutated: Callable[..., Decision] = module.decide
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
