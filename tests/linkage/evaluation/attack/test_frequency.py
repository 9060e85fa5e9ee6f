"""Frequency alignment, composites and match keys: they break what is badly encoded, and not the guarded profile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from linkage.evaluation.attack.alignment import aligned, components
from linkage.evaluation.attack.composite import composite, matchkey
from linkage.evaluation.attack.frequency import PLACES, chained, frequency, public_table, siblings
from linkage.evaluation.attack.plain import Plain, parts_of
from linkage.evaluation.attack.results import AttackResult
from linkage.records import PROFILES, TOKENS
from tests.linkage.evaluation.attack.benches import a_bench, case

CHILDREN = 20_000


@pytest.fixture(scope="module")
def guarded() -> list[AttackResult]:
    return list(frequency(a_bench("guarded", CHILDREN), PLACES[:1]))


def test_an_unsalted_name_is_read_far_above_the_blind_guess() -> None:
    results = list(frequency(a_bench("accurate", CHILDREN, (1.0,), False), PLACES[:1]))
    surname = case(results, "family alone, fitted")
    assert surname.share > 1.5 * surname.trivial
    by_register = case(results, "family by a register")
    assert by_register.share > 4 * by_register.trivial


def test_a_guarded_name_alone_is_read_less_often_than_by_a_blind_guess(guarded: list[AttackResult]) -> None:
    assert guarded
    for result in guarded:
        assert result.share <= max(0.002, 0.25 * result.trivial), result.case


def test_no_repeated_encoding_within_a_salt_group_is_likelier_right_than_wrong_at_scale(
    guarded: list[AttackResult],
) -> None:
    for result in guarded:
        if result.case.endswith("bold"):
            assert result.share < 0.001, result.case


def test_chaining_two_coarse_salts_gathers_the_bearers_of_a_name_and_two_full_ones_do_not() -> None:
    bench = a_bench("guarded", CHILDREN)
    target = bench.target()
    people = target.truth
    table = public_table("family", "fitted")
    by_year = people.surname * 10_000 + people.born // 10_000
    by_day = people.surname * 10_000 + people.born % 10_000
    coarse = components([np.unique(codes, return_inverse=True)[1] for codes in (by_year, by_day)], len(people))
    claims = aligned(np.unique(coarse, return_inverse=True)[1], table)
    broken = float(np.mean(claims == people.surname))
    full = case(list(chained(bench, PLACES[:1])), "family, fitted")
    assert broken > 0.008
    assert full.share < 0.002
    assert full.share < broken / 5


def test_siblings_and_moves_add_little_under_guarded() -> None:
    for result in siblings(a_bench("guarded", 5_000)):
        assert result.share < 0.006, result.case
        assert result.knowledge != "public table of names"


def test_composites_of_a_common_soundex_and_a_year_are_read_and_those_of_a_day_are_not() -> None:
    wide = list(composite(a_bench("accurate", 5_000), PLACES[:1]))
    year = case(wide, "family_year within birth year, fitted")
    assert year.share > 3 * year.trivial
    day = case(wide, "dob_family within birth year, fitted")
    assert day.share <= 0.001
    for result in composite(a_bench("guarded", CHILDREN), PLACES[:1]):
        if result.overlap is None:
            assert result.share <= 0.002, result.case


def test_the_plaintext_of_every_token_is_grouped_exactly_as_the_token() -> None:
    for profile in ("guarded", "accurate"):
        target = a_bench(profile, 1_000).target(blank=0.2)
        plain = Plain(target.truth)
        for name in target.tokens:
            meant, codes = plain[name].index, target.token(name)
            assert np.array_equal(meant >= 0, codes >= 0), name
            present = codes >= 0
            pairs = len({*zip(meant[present].tolist(), codes[present].tolist(), strict=True)})
            assert pairs == len(np.unique(meant[present])) == len(np.unique(codes[present])), name


def test_every_token_on_the_wire_can_be_read_by_the_attacks() -> None:
    for profile in PROFILES:
        for token in TOKENS[profile]:
            assert parts_of(token)


def test_block_sizes_are_a_fingerprint_for_who_has_a_perfect_register_only() -> None:
    perfect = case(list(matchkey(a_bench("accurate", 5_000, (1.0,), False))), "block sizes")
    worn = case(list(matchkey(a_bench("accurate", 5_000, (0.8,), True))), "block sizes")
    assert perfect.share > 10 * perfect.trivial
    assert worn.share < perfect.share / 5
    assert perfect.precision > worn.precision


def test_results_repeat_by_seed() -> None:
    from linkage.evaluation.attack.bench import Bench

    setting = a_bench("guarded", 1_000).setting
    once, again = (list(chained(Bench(setting), PLACES[:1])) for _ in range(2))
    assert once == again
    other = list(chained(Bench(replace(setting, seed=2)), PLACES[:1]))
    assert [result.right for result in other] != [result.right for result in once] or other[0].trivial != once[
        0
    ].trivial
