"""Cedar, evaluating the exported policies, gives the modes that `decide` gives; it notices every fault planted."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import cedarpy
import pytest

from agreements import VOCABULARY, Mode, Snapshot, decide
from agreements.export.cedar import Cedar, cedar
from tests.agreements.cedar_oracle import Authoriser, CedarErred, modes
from tests.agreements.mutants import CONTROL, FAULTS, altered, modes_by, mutant
from tests.agreements.worlds import world
from tests.sizes import LONG
from tests.spec import table

WORLDS = 5_000 if LONG else 130
WITHOUT_MODES = {"grants add up"}
"""Faults in what is cited, not in what is shown: Cedar knows nothing of witnesses."""


def test_the_cedar_oracle_finds_no_mismatch_in_worlds_that_disclose_something() -> None:
    began, shown, asked, seen = time.process_time(), 0, 0, set[Mode]()
    for seed in range(WORLDS):
        w = world(seed)
        authoriser = Authoriser(cedar(w.snapshot, VOCABULARY), validate=seed % 10 == 0)
        by_cedar, ours = modes(w, authoriser), modes_by(decide, w)
        assert by_cedar == ours, f"world {seed}"
        asked += authoriser.asked
        shown += any(ours.values())
        seen |= set(ours.values())
    assert shown >= WORLDS // 5, "too few worlds disclose anything"
    assert seen == set(Mode)
    print(f"{WORLDS} worlds, {shown} disclose, {asked} authorisations, {time.process_time() - began:.0f} s CPU")


@pytest.mark.parametrize(
    "case", [c for c in table.CASES if "expect" in c or "only" in c], ids=lambda case: str(case["n"])
)
def test_the_cedar_oracle_agrees_on_a_case_of_the_decision_table(case: Any) -> None:
    at_hand = table.world(case)
    request, facts = table.request(case), table.facts(case)
    w = _Asked(at_hand.snapshot, request, facts, at_hand.at)
    by_cedar = modes(w, Authoriser(cedar(w.snapshot, at_hand.vocabulary)))  # type: ignore[arg-type]
    assert by_cedar == decide(w.snapshot, at_hand.vocabulary, request, facts, w.at).modes


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in WITHOUT_MODES])
def test_the_cedar_oracle_notices_a_planted_fault(fault: str) -> None:
    faulty = mutant(*FAULTS[fault])
    w = next(altered(faulty), None)
    assert w is not None, f"no world shows the fault {fault!r}"
    by_cedar = modes(w)
    assert by_cedar == modes_by(decide, w)
    try:
        assert by_cedar != modes_by(faulty, w), f"the fault {fault!r} lives"
    except (ArithmeticError, LookupError, TypeError):
        return  # it answers nothing, which is not what Cedar answers


def test_the_cedar_oracle_lets_the_unmutated_engine_live() -> None:
    assert next(altered(mutant(*CONTROL), 300), None) is None


def test_a_policy_that_errs_is_never_taken_for_an_answer() -> None:
    exported = cedar(Snapshot.of(()), VOCABULARY)
    odd = "permit (principal, action, resource) when { context.tag_count > 1 };"
    with pytest.raises(CedarErred):
        Authoriser(Cedar(odd, exported.schema, exported.entities))
    with pytest.raises(CedarErred, match="tag_count"):
        modes(world(3), Authoriser(replace(cedar(world(3).snapshot, VOCABULARY), policies=odd), validate=False))


def test_a_term_that_nobody_knows_can_not_even_be_asked() -> None:
    w = world(3)
    with pytest.raises(CedarErred, match="HEAD_TEACHER"):
        modes(replace(w, request=replace(w.request, role="HEAD_TEACHER")))


def test_the_policies_are_written_as_cedar_writes_them_and_carry_the_words_that_were_signed() -> None:
    exported = cedar(table.world({}).snapshot, VOCABULARY)
    assert cedarpy.validate_policies(exported.policies, exported.schema).validation_passed
    assert '@id("northshire-mash@3.0.0#health-cp/summary")' in exported.policies
    assert '@text("4.2 For child-protection work Health gives' in exported.policies
    assert exported == cedar(table.world({}).snapshot, VOCABULARY)


def test_a_slice_for_a_pair_decides_as_the_whole_does() -> None:
    for seed in range(0, 120, 6):
        w = world(seed)
        pair = (w.facts.source, w.request.organisation)
        assert modes(w, Authoriser(cedar(w.snapshot, VOCABULARY, pair=pair))) == modes_by(decide, w)


class _Asked:
    """One case of the decision table, as a world."""

    def __init__(self, snapshot: Snapshot, request: Any, facts: Any, at: Any) -> None:
        self.snapshot, self.request, self.facts, self.at = snapshot, request, facts, at
