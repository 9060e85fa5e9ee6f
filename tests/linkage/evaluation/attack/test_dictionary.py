"""Dictionaries, weights of filters, and learning from known pairs."""

from __future__ import annotations

import numpy as np

from linkage.evaluation.attack.dictionary import dictionary
from linkage.evaluation.attack.known_pairs import known_pairs
from linkage.evaluation.attack.length import entropy, grams, information, length
from linkage.evaluation.attack.population import population
from tests.linkage.evaluation.attack.benches import a_bench, case


def test_a_dictionary_finds_everybody_with_all_keys_and_nobody_with_one_missing() -> None:
    for profile in ("guarded", "accurate"):
        results = {result.case: result for result in dictionary(a_bench(profile, 300))}
        controls = [result for name, result in results.items() if name.startswith("control")]
        short = [result for name, result in results.items() if not name.startswith("control")]
        assert len(controls) == 2
        assert all(result.share == 1.0 for result in controls)
        assert len(short) >= 5
        assert all(result.right == result.claimed == 0 for result in short)


def test_the_weight_of_a_padded_filter_tells_nothing_of_the_length_and_that_of_an_undiffused_one_nearly_all() -> None:
    bench = a_bench("guarded", 2_000)
    padded = case(list(length(bench)), "family_d: bigrams")
    assert padded.share < padded.trivial + 0.03
    bare = next(one for one in length(a_bench("accurate", 2_000)) if one.case == "family: bigrams")
    assert bare.share > bare.trivial
    people = bench.target().truth
    truth = grams(people, "family")
    undiffused = 10 * truth - np.random.default_rng(1).integers(0, 3, len(truth))
    assert information(undiffused, truth) > 0.95 * entropy(truth)
    assert float(padded.note.split()[0]) < 0.5 * entropy(truth)


def test_noise_carries_no_information() -> None:
    truth = grams(population(5_000, seed=1), "given")
    noise = np.random.default_rng(1).integers(180, 280, len(truth))
    assert information(noise, truth) < 0.05


def test_known_pairs_give_away_unsalted_names_and_few_of_the_salted_given_names() -> None:
    guarded = list(known_pairs(a_bench("guarded", 1_500)))
    accurate = list(known_pairs(a_bench("accurate", 1_500)))
    for share in (20, 80):
        salted = case(guarded, f"given name, {share} %")
        bare = case(accurate, f"given name, {share} %")
        assert bare.share > 0.25
        assert salted.share < 0.05
        assert case(accurate, f"given bigrams, {share} %").share > 2 * case(guarded, f"given bigrams, {share} %").share
