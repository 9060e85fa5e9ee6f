"""Every set of one or two clauses of a small scope, asked every question of it: both evaluators say the same."""

from __future__ import annotations

from datetime import date
from itertools import combinations, product

from agreements import (
    VOCABULARY,
    Agreement,
    Basis,
    Facts,
    Grant,
    Held,
    Limit,
    Link,
    Mode,
    Party,
    Period,
    Request,
    Signature,
    Snapshot,
    Threshold,
    decide,
    reference,
)
from agreements.agreement import GrantBasis
from agreements.vocabulary import RECORD
from tests.agreements.worlds import AT, EARLY, PIN

ROLES = ("MASH_ANALYST", "MASH_DECISION_MAKER")
PURPOSES = ("S47", "CHILD_PROTECTION", "MASH_SCREEN")  # the first is narrower than the second
NAMES = ("health.cp_is", "health.not_brought")  # the second is special category data
PARTIES = {
    name: Party(id=name, public_authority=True, discloses=frozenset({sector}), signs_as="Head of service")
    for name, sector in (("health", "health"), ("council", "social_care"))
}
LIMITS = (
    None,
    Limit(id="own", text="A limit.", tag=None, categories=frozenset({NAMES[1]}), at_most=Mode.EXISTENCE),
    Limit(id="sealed", text="A limit.", tag="shield_address", categories=frozenset({RECORD}), at_most=Mode.NONE),
)


def clauses() -> list[Grant]:
    """Every clause of the scope: whom it is for, for which purpose, what it gives, after which threshold."""
    modes = [{NAMES[0]: Mode.STATUS}, {NAMES[1]: Mode.SUMMARY}, {NAMES[0]: Mode.EXISTENCE, NAMES[1]: Mode.STATUS}]
    every = product((ROLES[:1], ROLES), PURPOSES, modes, (None, "L4"))
    return [
        Grant(
            id=f"clause-{number}",
            text="A clause.",
            sources=frozenset({"health"}),
            organisations=frozenset({"council"}),
            roles=frozenset(roles),
            purposes=frozenset({purpose}),
            basis=GrantBasis(art6=frozenset({"public_task"}), conditions=frozenset({"dpa18-sch1-18"})),
            about=frozenset({"subject_child"}),
            threshold=threshold,
            modes=gives,
        )
        for number, (roles, purpose, gives, threshold) in enumerate(every)
    ]


def questions() -> list[tuple[Request, Facts]]:
    """Every question of the scope."""
    asked = {NAMES[0]: Mode.DETAIL, NAMES[1]: Mode.DETAIL, RECORD: Mode.EXISTENCE}
    thresholds = (None, Threshold(level="L4", decided_by="MASH_DECISION_MAKER"))
    conditions = (frozenset[str](), frozenset({"dpa18-sch1-18"}))
    requests = [
        Request(
            organisation="council", role=role, purpose=purpose, basis=Basis(art6="public_task", conditions=condition),
            asked=asked, threshold=threshold,
        )
        for role, purpose, condition, threshold in product(ROLES, PURPOSES, conditions, thresholds)
    ]  # fmt: skip
    records = [
        Facts(
            source="health", record="r", relation="subject_child", case="C1", link=Link.CERTAIN, tags=tags,
            held=dict.fromkeys(NAMES, (Held(date(2026, 5, 1)),)),
        )
        for tags in (frozenset[str](), frozenset({"shield_address"}))
    ]  # fmt: skip
    return list(product(requests, records))


def test_both_evaluators_agree_on_every_set_of_two_clauses() -> None:
    every, asked = clauses(), questions()
    sets = [(one,) for one in every] + list(combinations(every, 2))
    shown = 0
    for number, grants in enumerate(sets):
        limit = LIMITS[number % len(LIMITS)]
        agreement = Agreement(
            id="scope", version="1.0.0", title="A small scope", under=None, vocabulary=PIN,
            period=Period.of_days(date(2026, 4, 1), date(2027, 3, 31)), review=None, if_review_overdue="warn",
            parties=PARTIES, limits=(limit,) if limit else (), grants=grants, canonical=str(number).encode(),
        )  # fmt: skip
        snapshot = Snapshot.of([agreement], [Signature(one, agreement.digest, f"{one}/1", EARLY) for one in PARTIES])
        # A third of the questions a set, in turn.
        for request, facts in asked[number % 3 :: 3]:
            decision = decide(snapshot, VOCABULARY, request, facts, AT)
            assert decision == reference.decide(snapshot, VOCABULARY, request, facts, AT)
            shown += bool(decision.shown)
    assert len(sets) == 36 + 36 * 35 // 2 and shown > 1000
