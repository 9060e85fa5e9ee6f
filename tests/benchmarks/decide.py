"""Decisions a second: the compiled evaluator beside the literal one that it must equal, and a limit set by hand.

A decision is one request on one record of one source, for every category asked for; nothing is read or written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from agreements import VOCABULARY, Decision, decide, reference
from tests.agreements.worlds import World, world
from tests.benchmarks.sizes import sized

TOPIC: Final = "agreements"
WORLDS: Final = sized(40, 4)
GOAL: Final = 150_000

Row = dict[str, Any]
Decide = Callable[..., Decision]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=agreements`."""
    answered = [(w, bool(reference.decide(*_question(w)).shown)) for w in map(world, range(300))]
    for claim, shows in (("that shows something", True), ("that shows nothing", False)):
        worlds = [w for w, shown in answered if shown is shows][:WORLDS]
        again, once = _a_second(decide, worlds, 300), _a_second(_as_if_new, worlds, 60)
        peer = _a_second(reference.decide, worlds, 4)
        yield _row(f"decision {claim}, each record of one request", again, peer, "literal evaluator", None)
        yield _row(f"decision {claim}, a request of its own", once, peer, "literal evaluator", None)
        yield _row(f"decision {claim}, against the limit", again, GOAL, "the limit", GOAL)


def _question(w: World) -> tuple[Any, ...]:
    return w.snapshot, VOCABULARY, w.request, w.facts, w.at


def _as_if_new(snapshot: Any, vocabulary: Any, request: Any, facts: Any, at: Any) -> Decision:
    return decide(snapshot, vocabulary, replace(request), facts, at)


def _a_second(decider: Decide, worlds: list[World], times: int) -> float:
    """Decisions a second of processor time, once each snapshot is compiled."""
    taken = 0.0
    for w in worlds:
        question = _question(w)
        decider(*question)
        began = time.process_time()
        for _ in range(times):
            decider(*question)
        taken += time.process_time() - began
    return times * len(worlds) / taken


def _row(claim: str, ours: float, peer: float, name: str, goal: float | None) -> Row:
    return {
        "claim": claim, "ours": round(ours), "peer": round(peer), "peer_name": name, "ratio": round(ours / peer, 2),
        "goal": goal, "held": None if goal is None else ours >= goal, "unit": "/s",
    }  # fmt: skip
