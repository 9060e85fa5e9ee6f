"""Equality structure: who shares a token with whom."""

from __future__ import annotations

from functools import cache

import numpy as np

from linkage.evaluation.attack.equality import equality, exact, sides, tolerant
from linkage.evaluation.attack.population import MISSING
from linkage.evaluation.attack.results import AttackResult
from tests.linkage.evaluation.attack.benches import a_bench, case, with_tokens


@cache
def usual(profile: str) -> list[AttackResult]:
    """Of two thousand children four in five are in the register, with errors."""
    return list(equality(a_bench(profile, 2_000, (0.8,), True)))


def test_with_a_perfect_register_colour_refinement_tells_nearly_everybody_apart() -> None:
    result = case(list(equality(a_bench("accurate", 2_000, (1.0,), False))), "exact, dob and postcode")
    assert result.share > 0.8
    assert result.precision > 0.99


def test_one_person_in_five_missing_spoils_the_exact_form_and_not_the_tolerant_one() -> None:
    results = usual("accurate")
    brittle = case(results, "exact, dob and postcode")
    robust = case(results, "noise-tolerant, dob and postcode")
    assert brittle.share < 0.1
    assert robust.share > 0.3
    assert robust.precision > 0.85


def test_salted_dates_and_postcodes_leave_it_siblings_to_begin_with_and_far_fewer_to_claim() -> None:
    bare, salted = (case(usual(profile), "noise-tolerant, all tokens") for profile in ("accurate", "guarded"))
    assert salted.share < bare.share / 2


def test_tokens_that_nobody_shares_give_nothing_away() -> None:
    bench = a_bench("guarded", 1_000)
    target = bench.target()
    alone = with_tokens(target, {name: np.arange(len(target)) for name in target.tokens})
    mine, theirs = sides(alone, bench.register(target, 0.8), target.tokens)
    for attack in (exact, tolerant):
        claims = attack(mine, theirs)
        result = bench.judge(target, 0.8, claims, attack="equality", case="control", knowledge="nothing")
        assert result.right <= 0.02 * len(target)


def test_without_birth_year_and_sex_the_tolerant_form_finds_no_seed() -> None:
    results = usual("accurate")
    blind = case(results, "withheld year and sex, 0 % known")
    told = case(results, "withheld year and sex, 1 % known")
    assert blind.right == 0
    assert told.right >= 15
    assert told.precision > 0.9


def test_no_person_is_claimed_twice() -> None:
    bench = a_bench("accurate", 1_000)
    target = bench.target()
    claims = tolerant(*sides(target, bench.register(target, 0.8), target.tokens))
    made = claims[claims != MISSING]
    assert len(made) == len(np.unique(made))


def test_an_attacker_is_not_shown_who_is_who() -> None:
    bench = a_bench("guarded", 1_000)
    known = bench.register(bench.target(), 0.8)
    assert set(known.person.tolist()) == {MISSING}
    assert set(known.family.tolist()) == {MISSING}
    assert not {"person", "family", "given_name", "record_ref"} & set(bench.target().wire.column_names)
