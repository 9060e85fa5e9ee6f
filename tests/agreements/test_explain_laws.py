"""Laws of explanation: what it says of a clause is so, on worlds that disclose something."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from random import Random

from agreements import (
    VOCABULARY,
    Agreement,
    BreakGlass,
    Facts,
    Grant,
    Held,
    Link,
    Mode,
    Request,
    Snapshot,
    Threshold,
    decide,
    explain_for_asker,
    explain_for_holder,
    reference,
)
from agreements.explain import NearMiss
from agreements.vocabulary import RECORD
from tests.agreements.test_laws import law
from tests.agreements.worlds import SCALE, World, disclosing, silent, world


@law
def test_p16_the_holders_view_agrees_with_the_decision(w: World, _: Random) -> None:
    decision = decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at)
    view = explain_for_holder(w.snapshot, VOCABULARY, decision)
    for category, one in view.categories.items():
        assert one.mode is decision.mode(category)
        assert all(miss.failed for miss in one.near)
        if one.mode:
            assert one.witness is not None and one.granted >= one.mode
        assert (one.code is None) or one.mode < w.request.asked[category]


def test_p16_a_near_miss_covers_once_the_tests_it_failed_are_set_right_and_not_before() -> None:
    tried: Counter[str] = Counter()
    misses = 0
    for seed in (*silent(), *disclosing()):
        w = world(seed)
        view = explain_for_holder(w.snapshot, VOCABULARY, decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at))
        for category, one in view.categories.items():
            for miss in one.near:
                if covers_once_set_right(w, category, miss):
                    misses += 1
                    tried.update(miss.failed)
    settable = {
        "case",
        "purpose",
        "threshold",
        "basis",
        "gateway",
        "condition",
        "regime",
        "link",
        "about",
        "window",
        "role",
    }
    assert settable <= set(tried) and misses >= 1000 * SCALE, (misses, tried)


def covers_once_set_right(w: World, category: str, miss: NearMiss) -> bool:
    """Whether the miss could be tried: one that fails for who is named in it can't, by anything asked."""
    agreement, grant = reference.grant_of(w.snapshot, miss.grant)
    right = set_right(w, category, agreement, grant, miss.failed)
    if right is None:
        return False
    request, facts = right
    q = reference.Question(
        snapshot=w.snapshot, vocabulary=VOCABULARY, request=request, facts=facts, source=facts.source, at=w.at
    )
    items = reference.holdings(facts, category)
    assert any(not reference.failed(q, agreement, grant, category, held) for held in items), miss
    best = max(reference.clause_mode(q, facts, agreement, grant, category, held) for held in items)
    reachable = min(best, VOCABULARY.ceiling(request.purpose, category), request.asked.get(category, Mode.NONE))
    if reachable:
        above = w.snapshot.umbrella(agreement)
        documents = [agreement, *([above] if above else [])]
        alone = Snapshot.of(documents, w.snapshot.signatures, w.snapshot.events)
        assert decide(alone, VOCABULARY, request, facts, w.at).mode(category) >= reachable
    return True


def set_right(
    w: World, category: str, agreement: Agreement, grant: Grant, failed: tuple[str, ...]
) -> tuple[Request, Facts] | None:
    """The question with the failed tests set right and nothing that holds back; None if nothing asked could."""
    request, facts = w.request, replace(w.facts, link=Link.CERTAIN, tags=frozenset(), tags_unknown=frozenset())
    basis = request.basis
    if {"org", "live", "source"} & set(failed):
        return None
    if "purpose" in failed:
        purposes = leaves(grant)
        if not purposes:
            return None
        request = replace(request, purpose=purposes[0])
    if "basis" in failed:
        public = agreement.parties[request.organisation].public_authority
        terms = [t for t in sorted(grant.basis.art6) if not (public and "not_public" in VOCABULARY.art6[t].flags)]
        if not terms:
            return None
        basis = replace(basis, art6=terms[0])
    if "gateway" in failed:
        basis = replace(basis, gateways=basis.gateways | {min(grant.basis.gateways)})
    if "condition" in failed:
        basis = replace(basis, conditions=basis.conditions | {min(grant.basis.conditions)})
    if "role" in failed:
        request = replace(request, role=min(grant.roles))
    if "case" in failed:
        request, facts = replace(request, case="C1"), replace(facts, case="C1")
    if "threshold" in failed and grant.threshold:
        setter = VOCABULARY.thresholds[grant.threshold].set_by[0]
        request = replace(request, threshold=Threshold(level=grant.threshold, decided_by=setter))
    if "break_glass" in failed:
        request = replace(request, break_glass=BreakGlass(reason="MISSING_NOW", started=w.at - timedelta(minutes=1)))
    if "about" in failed:
        facts = replace(facts, relation=min(grant.about))
    if {"window", "regime"} & set(failed) or not reference.holdings(facts, category):
        named = next(iter(VOCABULARY.shareable)) if category == RECORD else category
        facts = replace(facts, held={**facts.held, named: (Held(w.at.date(), "GENERAL"),)})
    return replace(request, basis=basis), facts


def leaves(grant: Grant) -> list[str]:
    """The purposes under which a clause can be used."""
    inside = frozenset[str]().union(*(VOCABULARY.down(purpose) for purpose in grant.purposes))
    shut = frozenset[str]().union(*(VOCABULARY.down(purpose) for purpose in grant.not_purposes))
    return sorted(purpose for purpose in inside if not VOCABULARY.down(purpose) & shut)


@law
def test_the_asker_is_never_refused_what_a_record_could_show(w: World, _: Random) -> None:
    decision = decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at)
    reasons = explain_for_asker(w.snapshot, VOCABULARY, w.request, w.facts.source, w.at, names={}, desks={})
    hidden = {code for code, result in VOCABULARY.results.items() if result.hidden}
    for reason in reasons:
        assert reason.code not in hidden and "{" not in reason.sentence
        if reason.category is None:
            assert not decision.shown
        elif reason.code != "MODE_EXCEEDS":
            assert not decision.mode(reason.category)


@law
def test_p17_what_is_received_is_kept_no_longer_than_any_clause_relied_on_allows(w: World, _: Random) -> None:
    decision = decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at)
    for ref in {one.under for one in decision.shown.values()}:
        for duty in reference.grant_of(w.snapshot, ref)[1].duties:
            owed = [one.within for one in decision.duties if (one.do, one.after) == (duty.do, duty.after)]
            assert owed
            if duty.within is not None:
                for event in (date(2026, 1, 31), date(2026, 3, 1), date(2028, 2, 29), w.at.date()):
                    due = max(one.before(event) for one in owed if one is not None)
                    assert due >= duty.within.before(event)


@partial(law, one_in=4)
def test_what_the_asker_is_told_hangs_on_nothing_asked_before(w: World, draw: Random) -> None:
    fresh = Snapshot.of(w.documents, w.signatures, w.events)
    turns = [event.at for event in w.events] + [one.signed_at for one in w.signatures] + [w.at]
    for _ in range(3):
        at = draw.choice(turns) + timedelta(seconds=draw.choice((-1, 0, 1)))
        request = draw.choice((w.request, replace(w.request, case=None), replace(w.request, threshold=None)))
        asked = [
            explain_for_asker(one, VOCABULARY, request, w.facts.source, at, names={}, desks={})
            for one in (w.snapshot, fresh)
        ]
        fresh = Snapshot.of(w.documents, w.signatures, w.events)
        assert asked[0] == asked[1]
