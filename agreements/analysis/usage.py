"""What past decisions say of an estate: clauses that nobody has used, and refusals that one thing would have undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from agreements.agreement import Agreement, Duration, Grant, GrantRef, Period, london_day, london_midnight
from agreements.analysis.boxes import live_periods
from agreements.analysis.lint import clauses, pairs_of
from agreements.receipts import PastDecision
from agreements.reference import Question, failed, holdings
from agreements.request import Facts, Request
from agreements.snapshot import Snapshot
from agreements.vocabulary import RECORD, Mode, Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """A clause that was in force all the while and that no decision has relied on."""

    clause: GrantRef
    text: str
    last: datetime | None  # when one last did, before that


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """Questions refused for want of one thing: a clause would have shown `categories` but for the test it failed."""

    organisation: str
    role: str
    purpose: str
    source: str
    clause: GrantRef
    test: str
    categories: tuple[str, ...]
    count: int


def since(at: datetime, months: int) -> datetime:
    """The London midnight so many months before."""
    return london_midnight(Duration(months, "M").before(london_day(at)))


def unused(snapshot: Snapshot, past: Iterable[PastDecision], period: Period) -> tuple[Unused, ...]:
    """Clauses that have been live throughout a period, between some pair, and that no decision in it cites.

    A decision cites one clause a category, the first in the order of witnesses: a clause that never comes first is
    unused, too, and `lint` says whether it is shadowed.
    """
    last: dict[str, datetime] = {}
    for one in past:
        if one.at < period.end:
            for clause in one.witnesses.values():
                last[clause] = max(one.at, last.get(clause, one.at))
    found = []
    for agreement, grant, ref in clauses(snapshot):
        used = last.get(str(ref))
        if (used is None or used < period.start) and _live_throughout(snapshot, agreement, grant, period):
            found.append(Unused(clause=ref, text=grant.text, last=used))
    return tuple(found)


def near_misses(
    snapshot: Snapshot, vocabulary: Vocabulary, past: Iterable[PastDecision], *, least: int = 1
) -> tuple[NearMiss, ...]:
    """Refusals one test away, as the estate stands, the most frequent first; those fewer than `least` are left out.

    A question counts where something is held that was asked for, nothing of it was shown, and a clause that lists it
    failed one test alone, on the item that came nearest.  Tests of the record (link, window, whom it is about) count:
    they may be what the agreement got wrong.
    """
    counts: Counter[tuple[str, str, str, str, GrantRef, str]] = Counter()
    categories: dict[tuple[str, str, str, str, GrantRef, str], set[str]] = {}
    for one in past:
        request, facts = one.request, one.facts
        wanted = [name for name, mode in request.asked.items() if mode and name != RECORD and facts.held.get(name)]
        missed: set[tuple[GrantRef, str]] = set()
        for category in wanted:
            if one.modes.get(category, Mode.NONE):
                continue
            for ref, test in _one_away(snapshot, vocabulary, request, facts, one.at, category):
                missed.add((ref, test))
                key = (request.organisation, request.role, request.purpose, facts.source, ref, test)
                categories.setdefault(key, set()).add(category)
        for ref, test in missed:
            counts[request.organisation, request.role, request.purpose, facts.source, ref, test] += 1
    found = [
        NearMiss(
            organisation=key[0], role=key[1], purpose=key[2], source=key[3], clause=key[4], test=key[5],
            categories=tuple(sorted(categories[key])), count=count,
        )
        for key, count in counts.items()
        if count >= least
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda one: (-one.count, one.organisation, one.role, one.clause, one.test)))


def _one_away(
    snapshot: Snapshot, vocabulary: Vocabulary, request: Request, facts: Facts, at: datetime, category: str
) -> list[tuple[GrantRef, str]]:
    """Clauses that fail one test alone."""
    q = Question(snapshot=snapshot, vocabulary=vocabulary, request=request, facts=facts, source=facts.source, at=at)
    found = []
    for agreement in snapshot.between(facts.source, request.organisation):
        for grant in agreement.grants:
            mode = grant.modes.get(category)
            if mode is None or (mode is Mode.AGGREGATE) is not q.aggregate or grant.break_glass is not None:
                continue
            tests = min((failed(q, agreement, grant, category, held) for held in holdings(facts, category)), key=len)
            if len(tests) == 1 and tests[0] != "source":
                found.append((GrantRef(agreement.ref, grant.id), tests[0]))
    return found


def _live_throughout(snapshot: Snapshot, agreement: Agreement, grant: Grant, period: Period) -> bool:
    return any(
        live.start <= period.start and period.end <= live.end
        for pair in pairs_of(grant)
        for live in live_periods(snapshot, agreement, pair)
    )
