"""Searching the log's tables at a million events: who saw a child, and every other question, in under a second.

Not a benchmark of its own: `audit_store` makes the tables, which takes a minute, and asks these of them too.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from broker import reports
from broker.callers import Caller
from broker.keys import Keys
from broker.reports import LogFilter
from broker.store import Store
from broker.store.log_search import Wanted, newest
from broker.trail import Trail
from tests.builders_signer import opened

OFFICER: Final = Caller(kind="officer", organisation="northshire", person="ig-1", role="IG_OFFICER", method="oidc")
ORIGIN: Final = "searching.example/audit/2026"  # a log of its own, beside the one that is searched
AT: Final = datetime(2027, 12, 1, tzinfo=UTC)  # after the last event
LIMIT: Final = 1_000.0  # milliseconds
RUNS: Final = 9
QUESTIONS: Final = {
    "of one operation and purpose": Wanted(op="consultation", purpose="S47"),
    "of one person": Wanted(actor="p-17"),
    "of one organisation, a type and a week": Wanted(
        org="agency-3", types=("disclosure.authorised",), since_ms=1_795_000_000_000, until_ms=1_795_604_800_000
    ),
    "of a person at an organisation not theirs: none": Wanted(org="agency-1", actor="p-2"),
    "under break-glass: none": Wanted(break_glass=True),
    "that somebody flagged: none": Wanted(flagged=True),
    "of an outcome that never was: none": Wanted(outcome="NO_CASE_REF", purpose="S47"),
    "of one case and a common purpose": Wanted(case_hmac="case-77", purpose="S47"),
}

Row = dict[str, object]


def rows(store: Store, keys: Keys, *, child: str, events: int) -> Iterator[Row]:
    """How long each question takes; `child`: somebody of whom the tables hold real events."""
    with tempfile.TemporaryDirectory() as folder:
        trail = Trail(store, keys, opened(store, Path(folder), origin=ORIGIN))
        taken = []
        for number in range(RUNS):
            at = AT + timedelta(seconds=number)
            began = time.perf_counter()
            search = reports.search_log(
                store, trail, OFFICER, reason="lawfulness", wanted=LogFilter(subject=child, purpose="S47"), at=at
            )
            page = reports.found(store, trail, OFFICER, search=search, at=at)
            taken.append((time.perf_counter() - began) * 1e3)
            assert len(page.found) == reports.LISTED
            assert all(one.clauses for one in page.found)
        trail.stop()
    yield _row(
        f"who saw a child, when, why, under which clause: recorded, signed, 50 opened, at {events:,} (p50)",
        statistics.median(taken),
        LIMIT,
    )
    for words, wanted in QUESTIONS.items():
        taken = []
        for _ in range(RUNS):
            began = time.perf_counter()
            with store.reading() as reading:
                newest(reading, wanted, limit=reports.LISTED)
            taken.append((time.perf_counter() - began) * 1e3)
        yield _row(f"the 50 newest events {words}, at {events:,} (p50)", statistics.median(taken), LIMIT)


def _row(claim: str, ours: float, limit: float) -> Row:
    return {
        "claim": claim, "ours": ours, "peer": limit, "peer_name": "limit", "ratio": limit / ours,
        "goal": f"under {limit:g} ms", "held": ours < limit, "unit": "ms",
    }  # fmt: skip
