"""Laws of decision, on worlds that disclose something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial
from random import Random

import pytest

from agreements import (
    VOCABULARY,
    Agreement,
    BreakGlass,
    Decision,
    Facts,
    Held,
    Link,
    Mode,
    Request,
    Snapshot,
    decide,
    reference,
)
from agreements.agreement import Document
from agreements.restrictions import LONGEST_SESSION
from tests.agreements.mutants import CONTROL, FAULTS, mutant
from tests.agreements.worlds import PURPOSES, TAGS, World, a_restriction, disclosing, silent, world

Law = Callable[[World, Random], None]


def law(holds: Law, *, one_in: int = 1) -> Callable[[], None]:
    """A test that a law holds in every world of the pool, or in one of so many; a failure names the world."""

    def on_every_world() -> None:
        for seed in (*disclosing(), *silent())[::one_in]:
            try:
                holds(world(seed), Random(seed))
            except BaseException as wrong:
                wrong.add_note(f"world({seed})")
                raise

    on_every_world.__name__, on_every_world.__doc__ = holds.__name__, holds.__doc__
    return on_every_world


def decided(w: World, **other: object) -> Decision:
    snapshot = other.get("snapshot", w.snapshot)
    request = other.get("request", w.request)
    facts = other.get("facts", w.facts)
    assert isinstance(snapshot, Snapshot) and isinstance(request, Request) and isinstance(facts, Facts)
    return decide(snapshot, VOCABULARY, request, facts, w.at)


def no_wider(narrow: Mapping[str, Mode], wide: Mapping[str, Mode]) -> bool:
    return all(mode <= wide[category] for category, mode in narrow.items())


def test_a_thousand_of_the_worlds_disclose_something_in_every_mode() -> None:
    decisions = [decided(world(seed)) for seed in disclosing()]
    assert len(decisions) >= 1000 and all(one.shown for one in decisions)
    modes = {mode for one in decisions for mode in one.modes.values()}
    assert modes == set(Mode)
    assert not any(decided(world(seed)).shown for seed in silent())


@law
def test_p1_the_engine_equals_the_literal_evaluator(w: World, draw: Random) -> None:
    fast = decided(w)
    slow = reference.decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at)
    assert fast == slow
    for category, several in w.facts.held.items():
        for held in several:
            if held.recorded_on is not None and held.regime is not None:
                item = (category, held.recorded_on, held.regime)
                assert fast.reach(*item) == slow.reach(*item)


@partial(law, one_in=60)  # fifty decisions each
def test_what_is_remembered_of_a_request_changes_no_answer(w: World, draw: Random) -> None:
    asked = dict(w.request.asked)
    request = replace(w.request, asked=asked)
    records = [w.facts]
    for _ in range(12):
        one, two = draw.choice(records), world(draw.randrange(400)).facts
        name = draw.choice([field.name for field in fields(Facts)])
        records.append(replace(one, **{name: getattr(two, name)}))
    for at in (w.at, w.at + timedelta(minutes=45)):
        for facts in (*records, *records):
            due = reference.decide(w.snapshot, VOCABULARY, request, facts, at)
            assert decide(w.snapshot, VOCABULARY, request, facts, at) == due
    asked.pop(draw.choice(sorted(asked)))
    due = reference.decide(w.snapshot, VOCABULARY, request, w.facts, w.at)
    assert decide(w.snapshot, VOCABULARY, request, w.facts, w.at) == due


@law
def test_p2_taking_away_an_agreement_a_grant_or_a_signature_never_widens(w: World, draw: Random) -> None:
    before = decided(w).modes
    agreements = [document for document in w.documents if isinstance(document, Agreement)]
    gone = draw.choice(agreements)
    without = Snapshot.of([one for one in w.documents if one is not gone], w.signatures, w.events)
    assert no_wider(decided(w, snapshot=without).modes, before)
    unsigned = Snapshot.of(w.documents, [one for one in w.signatures if one.digest != gone.digest], w.events)
    assert no_wider(decided(w, snapshot=unsigned).modes, before)
    if gone.grants:
        fewer = replace(gone, grants=gone.grants[1:])
        assert no_wider(decided(w, snapshot=swapped(w, gone, fewer)).modes, before)


def swapped(w: World, old: Document, new: Document) -> Snapshot:
    """The same world with one document instead of another that has its canonical form, hence its signatures."""
    return Snapshot.of([new if one is old else one for one in w.documents], w.signatures, w.events)


@law
def test_p3_adding_a_restriction_never_widens(w: World, draw: Random) -> None:
    rule = a_restriction(draw, "another")
    signature = replace(w.signatures[0], party=rule.owner, digest=rule.digest) if w.signatures else None
    more = Snapshot.of([*w.documents, rule], [*w.signatures, *([signature] if signature else [])], w.events)
    assert no_wider(decided(w, snapshot=more).modes, decided(w).modes)


@law
def test_p4_every_shown_category_has_one_covering_live_grant_of_the_records_source(w: World, draw: Random) -> None:
    for category, shown in decided(w).shown.items():
        agreement, grant = reference.grant_of(w.snapshot, shown.under)
        assert w.facts.source in grant.sources and grant.modes[category] >= shown.mode
        assert w.snapshot.standing(agreement, w.facts.source, w.request.organisation, w.at).live


@law
def test_p5_order_and_repetition_make_no_difference(w: World, draw: Random) -> None:
    documents = [*w.documents, draw.choice(w.documents)]
    draw.shuffle(documents)
    signatures, events = [*w.signatures, *w.signatures], list(w.events)
    draw.shuffle(signatures)
    draw.shuffle(events)
    assert decided(w, snapshot=Snapshot.of(documents, signatures, events)) == decided(w)


@law
def test_p6_narrowing_a_grants_purposes_never_widens(w: World, draw: Random) -> None:
    old = draw.choice([one for one in w.documents if isinstance(one, Agreement) and one.grants])
    grant = draw.choice(old.grants)
    purpose = draw.choice(sorted(grant.purposes))
    narrower = grant.purposes - {purpose} | {draw.choice(sorted(VOCABULARY.down(purpose)))}
    grants = tuple(replace(one, purposes=narrower) if one is grant else one for one in old.grants)
    assert no_wider(decided(w, snapshot=swapped(w, old, replace(old, grants=grants))).modes, decided(w).modes)
    shut = frozenset({draw.choice(PURPOSES[:6])}) | grant.not_purposes
    grants = tuple(replace(one, not_purposes=shut) if one is grant else one for one in old.grants)
    assert no_wider(decided(w, snapshot=swapped(w, old, replace(old, grants=grants))).modes, decided(w).modes)


@law
def test_p7_a_broader_purpose_never_gets_more(w: World, draw: Random) -> None:
    if w.request.purpose == "PLAN":
        return
    asked = decided(w).modes
    for broader in ("CHILD_PROTECTION", "SAFEGUARDING"):
        if w.request.purpose in VOCABULARY.down(broader) - {broader}:
            assert no_wider(decided(w, request=replace(w.request, purpose=broader)).modes, asked)
    for narrower in sorted(VOCABULARY.down(w.request.purpose) - {w.request.purpose}):
        assert no_wider(asked, decided(w, request=replace(w.request, purpose=narrower)).modes)


@law
def test_p8_asking_for_less_never_widens(w: World, draw: Random) -> None:
    if w.request.purpose == "PLAN":
        return
    less = {category: Mode(draw.randint(0, mode)) for category, mode in w.request.asked.items()}
    assert no_wider(decided(w, request=replace(w.request, asked=less)).modes, decided(w).modes)


@law
def test_p9_without_break_glass_never_more_than_with(w: World, draw: Random) -> None:
    started = w.at - timedelta(minutes=draw.randint(0, 59))
    session = w.request.break_glass or BreakGlass(reason=draw.choice(sorted(VOCABULARY.emergencies)), started=started)
    without, within = (decided(w, request=replace(w.request, break_glass=one)) for one in (None, session))
    assert no_wider(without.modes, within.modes)


@law
def test_p10_an_unknown_fact_shows_no_more_than_either_of_its_values(w: World, draw: Random) -> None:
    tag = draw.choice(TAGS)
    with_tag = replace(w.facts, tags=w.facts.tags | {tag}, tags_unknown=w.facts.tags_unknown - {tag})
    without = replace(w.facts, tags=w.facts.tags - {tag}, tags_unknown=w.facts.tags_unknown - {tag})
    unknown = replace(w.facts, tags=w.facts.tags - {tag}, tags_unknown=w.facts.tags_unknown | {tag})
    for known in (with_tag, without):
        assert no_wider(decided(w, facts=unknown).modes, decided(w, facts=known).modes)
    lost: list[tuple[Facts, list[Facts]]] = [
        (replace(w.facts, record=None), [replace(w.facts, record=one) for one in ("r1", "r2", "r3")]),
        (replace(w.facts, relation=None), [w.facts, replace(w.facts, relation="sibling")]),
        (replace(w.facts, case=None), [w.facts, replace(w.facts, case="C2")]),
        (replace(w.facts, link=None), [replace(w.facts, link=one) for one in Link]),
        (replace(w.facts, held=dict.fromkeys(w.facts.held, (Held(None, None),))), [w.facts]),
    ]
    for missing, values in lost:
        for known in values:
            assert no_wider(decided(w, facts=missing).modes, decided(w, facts=known).modes)


@law
def test_a_session_never_outlives_its_hour(w: World, draw: Random) -> None:
    session = w.request.break_glass
    if session is None:
        return
    late = replace(w.request, break_glass=replace(session, started=w.at - LONGEST_SESSION))
    assert decided(w, request=late) == replace(decided(w, request=replace(w.request, break_glass=None)), request=late)


# --- mutants: each fault is planted in the engine, and the comparison with the literal evaluator must find it ---------


@pytest.fixture(scope="module")
def answers() -> list[tuple[World, Decision]]:
    """Worlds and their literal answers, those that disclose something first: a fault dies there soonest."""
    worlds = [world(seed) for seed in range(700)]
    answered = [(w, reference.decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at)) for w in worlds]
    return sorted(answered, key=lambda one: not one[1].shown)


def test_the_unmutated_engine_lives(answers: list[tuple[World, Decision]]) -> None:
    control = mutant(*CONTROL)
    assert all(control(w.snapshot, VOCABULARY, w.request, w.facts, w.at) == due for w, due in answers)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_dies(fault: str, answers: list[tuple[World, Decision]]) -> None:
    faulty = mutant(*FAULTS[fault])
    for w, due in answers:
        try:
            if faulty(w.snapshot, VOCABULARY, w.request, w.facts, w.at) != due:
                return
        except (ArithmeticError, LookupError, TypeError):
            return
    pytest.fail(f"the fault {fault!r} lives")
