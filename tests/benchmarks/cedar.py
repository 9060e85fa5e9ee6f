"""A thousand agreements, 3,000 clauses: a decision and a view of 200 records, beside the best use of Cedar we know.

Cedar answers yes or no, so the best way to use it is to let it pick the clauses that cover, and to join what they give
in Python ("hybrid"): one authorisation for each distinct set of facts, policies sliced to the source and the asker's
organisation, everything parsed beforehand, no schema to check requests by, the join ours.  Cedar's figures hold its Python binding;
neither side reads or writes anything.  The clauses that Cedar picks are checked to be those that we pick.

`bare` is the mode of every category of every record; `with clauses` also the clause each is shown under, others that
would do, duties, restrictions and warnings; `explained` also what an asker reads of each source: why no more, and what
would unlock it.  A request is always a new one, for another record's sake or case's: nothing that hangs on a child or a
record is remembered from one request to the next.  What hangs on its *kind* is (organisation, role, purpose, basis,
threshold), so each figure stands twice: where that kind was asked for before, and the *first time* it is, with every
memory of a kind of request emptied before each run.  The clauses of a pair are compiled once a snapshot, as Cedar's are
parsed; *after a change of agreements* that is in the figure too.  Milliseconds of processor time: on a machine whose
cores are shared they are more than the work, and the ratios are what to read.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import cedarpy

from agreements import VOCABULARY, Facts, Request, Snapshot, decide, explain_for_asker
from agreements.agreement import GrantRef
from agreements.decision import view
from agreements.decision.cells import ones
from agreements.decision.standing import asker_of, memory_of
from agreements.explain import asker
from agreements.export import cedar as exported
from tests.agreements.cedar_oracle import Authoriser, modes, question
from tests.agreements.estates import View, estate, requests, views
from tests.agreements.worlds import World

TOPIC: Final = "agreements"
GOAL: Final = 10.0
PACE: Final = 150_000
LIMITS: Final = {"bare": 0.5, "explained": 5.0}  # milliseconds
VIEWS: Final = 10
DECISIONS: Final = 60

Row = dict[str, Any]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=agreements`."""
    for name, agencies in (("sparse, 50 agencies", 50), ("dense, 12 agencies", 12)):
        snapshot = estate(1000, agencies)
        yield from _decisions(name, snapshot)
        yield from _views(name, snapshot)


def _decisions(name: str, snapshot: Snapshot) -> Iterator[Row]:
    asked = requests(snapshot, DECISIONS)
    questions = [(one.request, one.facts, one.at) for one in asked]
    hybrid = Hybrid(snapshot)
    for request, facts, at in questions:
        _checked(hybrid, request, facts, at)
    ours = _best(lambda: [decide(snapshot, VOCABULARY, replace(r), f, at) for r, f, at in questions], 7) / DECISIONS
    again = _best(lambda: [decide(snapshot, VOCABULARY, r, f, at) for r, f, at in questions], 7) / DECISIONS
    sliced = _best(lambda: [hybrid.modes(r, f, at) for r, f, at in questions], 3) / DECISIONS
    yield _ratio(
        f"decision on a request of its own, {name}: hybrid, sliced", ours, sliced, "Cedar, best arrangement", None
    )
    whole = Hybrid(snapshot, sliced=False)
    few = questions[:4]
    unsliced = _best(lambda: [whole.modes(r, f, at) for r, f, at in few], 1) / len(few)
    yield _ratio(
        f"decision on a request of its own, {name}: hybrid, whole", ours, unsliced, "Cedar, 3,000 policies", None
    )
    each = _per_mode(snapshot, *next(one for one in questions if decide(snapshot, VOCABULARY, *one).shown))
    yield _ratio(
        f"decision on a request of its own, {name}: by category and mode", ours, each, "Cedar, sliced a pair", None
    )
    yield {
        "claim": f"decisions with clauses, {name}, again on one request", "ours": round(1000 / again), "peer": PACE,
        "peer_name": "the limit", "ratio": round(1000 / again / PACE, 2), "goal": PACE, "held": 1000 / again >= PACE,
        "unit": "/s",
    }  # fmt: skip


def _views(name: str, snapshot: Snapshot) -> Iterator[Row]:
    drawn = [one for one in views(snapshot, 2 * VIEWS) if any(_bare(snapshot, one))][:VIEWS]
    hybrid = Hybrid(snapshot)
    for one in drawn[:3]:
        for facts in one.records[:40]:
            _checked(hybrid, one.request, facts, one.at)
    bare = _each(drawn, lambda one: _bare(snapshot, one), 9)
    peer = _each(drawn, hybrid.view, 2)
    view_of = f"view of 200 records, {name}"
    yield _ratio(f"{view_of}, bare: hybrid, sliced", bare, peer, "Cedar, best arrangement", GOAL)
    yield _limit(f"{view_of}, bare", bare, LIMITS["bare"])
    first = _each(drawn, lambda one: _bare(snapshot, one), 9, before=partial(_forget_kinds, snapshot))
    yield _limit(f"{view_of}, bare, first time of its kind", first, LIMITS["bare"])
    yield _limit(f"{view_of}, with clauses", _each(drawn, lambda one: _reasons(snapshot, one), 7), None)
    explained = _each(drawn, lambda one: _explained(snapshot, one), 7)
    yield _limit(f"{view_of}, explained", explained, LIMITS["explained"])
    first = _each(drawn, lambda one: _explained(snapshot, one), 7, before=partial(_forget_kinds, snapshot))
    yield _limit(f"{view_of}, explained, first time of its kind", first, LIMITS["explained"])
    changed = statistics.median(_best(partial(_after_a_change, snapshot, one), 1) for one in drawn[:4])
    yield _limit(f"{view_of}, explained, first after a change of agreements", changed, None)


def _forget_kinds(snapshot: Snapshot) -> None:
    """Empty everything that is remembered of a kind of request, in deciding and in explaining."""
    memory_of(snapshot, VOCABULARY).kinds.clear()
    asker.forget()


def _after_a_change(snapshot: Snapshot, one: View) -> None:
    """On a snapshot that nothing is known of yet."""
    _explained(replace(snapshot), one)


def _bare(snapshot: Snapshot, one: View) -> tuple[Any, ...]:
    return view(snapshot, VOCABULARY, replace(one.request), one.records, one.at)


def _reasons(snapshot: Snapshot, one: View) -> list[Any]:
    request = replace(one.request)
    return [decide(snapshot, VOCABULARY, request, facts, one.at) for facts in one.records]


def _explained(snapshot: Snapshot, one: View) -> list[Any]:
    """What the asker's page needs: each record's modes with their clauses, each source's reasons once."""
    decisions = _reasons(snapshot, one)
    sources = sorted({facts.source for facts in one.records})
    return [
        decisions,
        [
            explain_for_asker(snapshot, VOCABULARY, one.request, source, one.at, names={}, desks={})
            for source in sources
        ],
    ]


class Hybrid:
    """Cedar picks the clauses that pass every test but those of dates and tags; what they give is joined in Python."""

    def __init__(self, snapshot: Snapshot, *, sliced: bool = True) -> None:
        self.snapshot, self.sliced = snapshot, sliced
        self.schema = cedarpy.Schema.from_str(exported.schema(VOCABULARY, ()))
        empty = exported.cedar(Snapshot.of(()), VOCABULARY)
        self.entities = cedarpy.Entities.from_json_str(empty.entities, self.schema)
        self.slices: dict[tuple[str, str] | None, tuple[Any, list[GrantRef]]] = {}

    def policies(self, pair: tuple[str, str]) -> tuple[Any, list[GrantRef]]:
        """Parsed once: one permit a clause, for the pair or for everybody."""
        key = pair if self.sliced else None
        if key not in self.slices:
            texts, refs = [], []
            for agreement in self.snapshot.agreements:
                for grant in agreement.grants:
                    if self.sliced and not (pair[0] in grant.sources and pair[1] in grant.organisations):
                        continue
                    sources = [pair[0]] if self.sliced else sorted(grant.sources)
                    recipients = [pair[1]] if self.sliced else sorted(grant.organisations)
                    standing = exported._standings(self.snapshot, agreement, sources, recipients)
                    if standing is None:
                        continue
                    tests = [one for one in exported._tests(VOCABULARY, agreement, grant) if "context.item" not in one]
                    head = "permit (principal, action, resource)"
                    texts.append(exported._policy(grant.id, "", head, [*standing, *tests]))
                    refs.append(GrantRef(agreement.ref, grant.id))
            self.slices[key] = cedarpy.PolicySet.from_str("\n".join(texts)), refs
        return self.slices[key]

    def pick(self, request: Request, facts: Facts, at: Any) -> frozenset[GrantRef]:
        """One authorisation: which clauses are satisfied."""
        policies, refs = self.policies((facts.source, request.organisation))
        asked = {
            "principal": {"type": "Agency", "id": request.organisation},
            "action": {"type": "Action", "id": "existence"},
            "resource": {"type": "Category", "id": "record"},
            "context": question(request, facts, at, None, {}),
        }
        answer = cedarpy.is_authorized(asked, policies, self.entities)
        assert not answer.diagnostics.errors, answer.diagnostics.errors
        return frozenset(refs[int(one.removeprefix("policy"))] for one in answer.diagnostics.reasons)

    def modes(self, request: Request, facts: Facts, at: Any) -> Any:
        """One decision: one authorisation, then the join."""
        self.pick(request, facts, at)
        return view(self.snapshot, VOCABULARY, request, (facts,), at)

    def view(self, one: View) -> None:
        """A view: one authorisation for each distinct set of facts, then the join of our own view."""
        for facts in {_distinct(facts): facts for facts in one.records}.values():
            self.pick(one.request, facts, one.at)
        view(self.snapshot, VOCABULARY, one.request, one.records, one.at)


def _distinct(facts: Facts) -> tuple[object, ...]:
    return facts.source, facts.relation, facts.link, facts.case


def _checked(hybrid: Hybrid, request: Request, facts: Facts, at: Any) -> None:
    """Fail unless Cedar picks the clauses that we do."""
    source = asker_of(hybrid.snapshot, VOCABULARY, request).source(facts.source, at)
    if not facts.tags:
        ours = {source.opening.clauses[position].ref for position in ones(source.standing(facts).open)}
        assert hybrid.pick(request, facts, at) == ours


def _per_mode(snapshot: Snapshot, request: Request, facts: Facts, at: Any) -> float:
    """Milliseconds of one decision where Cedar answers for each item, category and mode, sliced to the pair."""
    pair = (facts.source, request.organisation)
    authoriser = Authoriser(exported.cedar(snapshot, VOCABULARY, pair=pair), validate=False)
    w = World(documents=(), signatures=(), events=(), request=request, facts=facts, at=at)
    object.__setattr__(w, "snapshot", snapshot)
    due = decide(snapshot, VOCABULARY, request, facts, at).modes
    assert modes(w, authoriser) == due
    return _best(lambda: modes(w, authoriser), 1)


def _each(
    drawn: list[View], work: Callable[[View], object], times: int, before: Callable[[], object] = lambda: None
) -> float:
    """The median, over views, of the best of so many runs."""
    return statistics.median(_best(partial(work, one), times, before) for one in drawn)


def _best(work: Callable[[], object], times: int, before: Callable[[], object] = lambda: None) -> float:
    """Milliseconds of processor time, the best of so many runs after one that counts for nothing; `before` each run
    something that doesn't count either."""
    work()
    taken = []
    gc.disable()  # as timeit: else whoever allocates next pays for a thousand agreements
    try:
        for _ in range(times):
            before()
            began = time.process_time()
            work()
            taken.append(time.process_time() - began)
    finally:
        gc.enable()
    return min(taken) * 1000


def _ratio(claim: str, ours: float, peer: float, name: str, goal: float | None) -> Row:
    return {
        "claim": claim, "ours": round(ours, 4), "peer": round(peer, 3), "peer_name": name,
        "ratio": round(peer / ours, 1), "goal": goal, "held": None if goal is None else peer / ours >= goal, "unit": "ms",
    }  # fmt: skip


def _limit(claim: str, ours: float, limit: float | None) -> Row:
    return {
        "claim": claim, "ours": round(ours, 3), "peer": limit, "peer_name": None if limit is None else "the limit",
        "ratio": None if limit is None else round(limit / ours, 2), "goal": limit,
        "held": None if limit is None else ours <= limit, "unit": "ms",
    }  # fmt: skip
