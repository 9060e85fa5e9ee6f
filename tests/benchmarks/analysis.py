"""Analysis of a thousand agreements: a version diff, what-if on a hundred thousand past questions, every clause's shadow.

Sparse: 50 agencies, dense: 12.  Processor time; nothing is read or written.  The peer is what the same answer takes
when every question is decided anew, in both estates; it is measured on a sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final, TypeVar

from agreements import VOCABULARY, Snapshot, decide
from agreements.agreement import Duration, Period
from agreements.analysis import Difference, Estate, Space, diff
from agreements.analysis.boxes import EVER
from agreements.analysis.lint import shadowed
from agreements.analysis.sight import Filter, who_can_see
from agreements.analysis.sight import rows as rows_of
from agreements.analysis.whatif import replayed
from agreements.receipts import PastDecision
from tests.agreements.estates import AT, ROLES, estate, requests

TOPIC: Final = "agreements"
AGREEMENTS: Final = 1_000
EDITED: Final = 20
PAST: Final = 100_000
SAMPLE: Final = 1_000  # witnesses, and questions decided anew

Row = dict[str, Any]
T = TypeVar("T")


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=agreements`."""
    for density, agencies in (("sparse", 50), ("dense", 12)):
        yield from _estate(density, estate(agreements=AGREEMENTS, agencies=agencies))


def _estate(density: str, before: Snapshot) -> Iterator[Row]:
    after = edited(before)
    difference, seconds = _timed(lambda: diff(before, after, VOCABULARY))
    size = f"{density}, {AGREEMENTS:,} agreements"
    yield _row(f"diff of {EDITED} edited clauses ({size}, {len(difference.changes):,} boxes)", seconds, goal=1.0)
    true, sampled = _true(difference, before, after)
    yield {
        "claim": f"diff: sampled witnesses that are true ({size})", "ours": true, "peer": sampled,
        "peer_name": "witnesses sampled", "ratio": true / sampled, "goal": sampled, "held": true == sampled, "unit": "",
    }  # fmt: skip
    past = [
        (str(number), PastDecision(request=one.request, facts=one.facts, at=one.at, modes={}, witnesses={}))
        for number, one in enumerate(requests(before, PAST))
    ]
    changes, seconds = _timed(lambda: replayed(past, before, after, VOCABULARY))
    named = {one.id for one in changes.changed}
    sample = Random(1).sample(past, SAMPLE)
    anew, each = _timed(lambda: [id_ for id_, one in sample if _modes(before, one) != _modes(after, one)])
    peer = each * len(past) / len(sample)
    claim = f"what-if on {len(past):,} past questions ({size}, {len(named)} named)"
    yield _row(claim, seconds, goal=10.0, peer=peer, name="each decided anew, twice")
    exact = set(anew) == named & {id_ for id_, _ in sample}
    yield {
        "claim": f"what-if: the same of {SAMPLE:,} as deciding each anew ({size})", "ours": int(exact), "peer": None,
        "peer_name": None, "ratio": None, "goal": 1, "held": exact, "unit": "",
    }  # fmt: skip
    space = Space.of(VOCABULARY, before)
    gone, seconds = _timed(lambda: shadowed(Estate(space, before, period=Period(AT, EVER.end))))
    clauses = sum(len(one.grants) for one in before.agreements)
    yield _row(f"all {clauses:,} clauses tested for shadowing ({size}, {len(gone)} found)", seconds)
    found, seconds = _timed(
        lambda: list(rows_of(who_can_see(before, VOCABULARY, Filter(organisation="agency-01"), at=AT)))
    )
    yield _row(f"who-can-see of one organisation ({size}, {len(found):,} rows)", seconds)


def edited(before: Snapshot, clauses: int = EDITED, seed: int = 7) -> Snapshot:
    """The estate with one clause each of so many agreements changed: a role more, a threshold, a shorter window, a
    category less, another purpose."""
    draw = Random(seed)
    agreements = {one.ref: one for one in before.agreements}
    for ref in draw.sample(sorted(ref for ref, one in agreements.items() if one.grants), clauses):
        one = agreements[ref]
        first, *others = one.grants
        changed = draw.choice(
            (
                replace(first, roles=first.roles | {draw.choice(ROLES)}),
                replace(first, threshold="L2" if first.threshold != "L2" else "L3"),
                replace(first, recorded_within=Duration(1, "Y")),
                replace(first, modes=dict(list(first.modes.items())[1:]) or first.modes),
                replace(first, purposes=frozenset({"LAC_CARE"})),
            )
        )
        agreements[ref] = replace(one, grants=(changed, *others))
    return Snapshot.of([*agreements.values(), *before.restrictions], before.signatures, before.events)


def _true(difference: Difference, before: Snapshot, after: Snapshot) -> tuple[int, int]:
    """How many sampled witnesses are true, and how many there were."""
    witnesses = list(difference.witnesses())
    sample = Random(1).sample(witnesses, min(SAMPLE, len(witnesses)))
    true = 0
    for change, one in sample:
        was = decide(before, VOCABULARY, one.request, one.facts, one.at).mode(one.category)
        will = decide(after, VOCABULARY, one.request, one.facts, one.at).mode(one.category)
        less, more = (was, will) if change.more else (will, was)
        true += less < one.mode <= more
    return true, len(sample)


def _modes(snapshot: Snapshot, one: PastDecision) -> dict[str, Any]:
    return dict(decide(snapshot, VOCABULARY, one.request, one.facts, one.at).modes)


def _timed(act: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    answer = act()
    return answer, time.process_time() - began


def _row(
    claim: str, seconds: float, *, goal: float | None = None, peer: float | None = None, name: str | None = None
) -> Row:
    return {
        "claim": claim, "ours": round(seconds, 3), "peer": None if peer is None else round(peer, 1), "peer_name": name,
        "ratio": None if peer is None else round(peer / seconds, 1), "goal": goal,
        "held": None if goal is None else seconds < goal, "unit": "s",
    }  # fmt: skip
