"""The graph attacks succeed where they must, and see nothing but what a vault holds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from linkage.evaluation.attack.bench import Bench, Setting, fresh_keys
from linkage.evaluation.attack.graph import (
    control_encoder,
    graph,
    graph_families,
    graph_published,
    one_thread,
    own_encoder,
    reidentify,
)
from linkage.evaluation.attack.graph_controls import control_encodings
from linkage.evaluation.attack.graph_embedding import match_embeddings, mean_dice
from linkage.evaluation.attack.graph_encodings import SALTS, Encodings, Ints, averaged, bits_of, from_target, side
from linkage.evaluation.attack.graph_matching import Learned, learn, match_graphs
from linkage.evaluation.attack.population import People, population, register
from linkage.records import FILTERS, PROFILES

CHILDREN = 300
GUARDED, ACCURATE = PROFILES


@cache
def children(blank: float = 0.0) -> People:
    return population(CHILDREN, seed=1, blank=blank)


def known_to_the_attacker(people: People, overlap: float, *, errors: bool = False) -> People:
    return register(people, overlap=overlap, errors=errors, seed=1)


def share_right(claims: Ints, people: People, known: People) -> float:
    made = claims >= 0
    return float((known.person[claims[made]] == people.person[made]).sum() / len(people))


def the_control(people: People) -> Encodings:
    return control_encodings(people, key=b"the agencies'")


def test_filters_without_salt_and_diffusion_give_nearly_everybody_away() -> None:
    known = known_to_the_attacker(children(), 1.0)
    claims = reidentify(the_control(children()), known, control_encoder(), overlap=1.0, errors=False, seed=1)
    assert share_right(claims, children(), known) > 0.9


def test_they_do_so_although_a_fifth_is_unknown_and_the_register_has_errors() -> None:
    known = known_to_the_attacker(children(), 0.8, errors=True)
    claims = reidentify(the_control(children()), known, control_encoder(), overlap=0.8, errors=True, seed=1)
    assert share_right(claims, children(), known) > 0.3


def test_the_published_form_too_succeeds_on_them() -> None:
    known = known_to_the_attacker(children(), 1.0)
    with one_thread():
        claims = match_embeddings(the_control(children()), control_encoder()(known, 1), seed=1)
    assert share_right(claims, children(), known) > 0.9


def test_a_register_of_strangers_identifies_nobody() -> None:
    strangers = known_to_the_attacker(children(), 0.0)
    claims = reidentify(the_control(children()), strangers, control_encoder(), overlap=0.5, errors=False, seed=1)
    assert share_right(claims, children(), strangers) == 0


def test_nobody_is_claimed_twice_whatever_is_missing() -> None:
    people = children(blank=0.2)
    bench = a_bench(overlaps=(0.8,))
    vault = from_target(bench.encoded(people))
    claims = reidentify(
        vault, known_to_the_attacker(people, 0.8, errors=True), own_encoder(GUARDED), overlap=0.8, errors=True, seed=1
    )
    made = claims[claims >= 0]
    assert len(np.unique(made)) == len(made) > 0


def test_salted_dates_and_postcodes_give_hardly_anybody_away_and_unsalted_ones_most() -> None:
    found: dict[str, float] = dict.fromkeys(PROFILES, 0.0)
    for profile, sizes in ((GUARDED, True), (GUARDED, False), (ACCURATE, False)):
        bench = Bench(Setting(profile=profile, children=CHILDREN, overlaps=(1.0,), errors=True, seed=1))
        target = bench.target()
        claims = reidentify(
            from_target(target).clear(kept=False), bench.register(target, 1.0), own_encoder(profile),
            overlap=1.0, errors=True, seed=1, sizes=sizes,
        )  # fmt: skip
        share = bench.judge(target, 1.0, claims, attack="graph", case="", knowledge="").share
        found[profile] = max(found[profile], share)
    assert found[GUARDED] <= 0.1 < 0.3 < found[ACCURATE]


def a_bench(overlaps: tuple[float, ...], *, errors: bool = False) -> Bench:
    return Bench(Setting(profile=GUARDED, children=CHILDREN, overlaps=overlaps, errors=errors, seed=1))


def test_the_order_of_records_and_the_numbers_of_tokens_change_no_claim() -> None:
    known = known_to_the_attacker(children(), 1.0)
    vault, keys = the_control(children()), [control_encoder()(known, number) for number in (1, 2)]
    everybody = np.arange(len(known))
    learned = learn([(side(keys[0]), side(keys[1]), everybody, everybody)])
    rng = np.random.default_rng(4)
    rows, columns = rng.permutation(len(vault)), rng.permutation(len(known))
    plain = claims_of(vault, keys, learned)
    shuffled = claims_of(vault.take(rows), [of_key.take(columns) for of_key in keys], learned)
    back = np.where(shuffled >= 0, columns[shuffled], -1)  # what each shuffled record is claimed to be
    assert (back == plain[rows]).mean() > 0.99  # but for ties and the last bit of a sum


def claims_of(vault: Encodings, keys: list[Encodings], learned: Learned) -> Ints:
    return match_graphs(
        side(vault), averaged([side(of_key) for of_key in keys]), learned, overlap=0.98, rounds=4
    ).claims


def test_the_published_form_identifies_hardly_anybody_under_the_guarded_profile() -> None:
    results = {result.attack: result for result in graph_published(a_bench(overlaps=(0.8,), errors=True))}
    assert results["graph_published"].share <= 0.03  # nine of 300; measured .2 per cent of 1,000


def test_every_case_is_judged_and_the_control_beside() -> None:
    results = list(graph(a_bench(overlaps=(0.5,), errors=True)))
    assert [result.attack for result in results] == ["graph"] * 4 + ["control_graph"]
    assert len({result.case for result in results}) == 5
    assert all(result.claimed >= result.right for result in results)
    alone = next(result for result in results if result.case == "random")
    assert alone.share < 0.2  # half of 300 people who share nothing are few to begin from; measured .08


@pytest.mark.parametrize("profile", PROFILES)
def test_the_attack_knows_what_salts_each_filter_that_is_salted(profile: str) -> None:
    for name in FILTERS[profile]:  # type: ignore[index]
        assert "_" not in name or name[-2:] in SALTS


def test_the_mean_dice_of_two_records_is_that_of_their_unsalted_filters() -> None:
    people = children().take(np.arange(60))
    bench = Bench(Setting(profile=ACCURATE, children=CHILDREN, overlaps=(1.0,), errors=False, seed=1))
    vault = from_target(bench.encoded(people))
    graph_of = mean_dice(vault)
    rows = [(one, other) for one in range(60) for other in range(60) if one != other]
    assert [graph_of[pair] for pair in rows] == pytest.approx([the_mean_dice(vault, *pair) for pair in rows], abs=1e-5)


def the_mean_dice(vault: Encodings, one: int, other: int) -> float:
    """As one would write it down: a pair, a field, a bit at a time."""
    found = []
    for of_all in vault.filters.values():
        left, right = (bits_of(of_all.words[of_all.index[[row]]])[0] for row in (one, other))
        if left.sum() and right.sum():
            found.append(2 * int((left & right).sum()) / int(left.sum() + right.sum()))
    return float(np.mean(found)) if found else 0.0


def test_the_worse_of_two_forms_is_shown_beside_a_blind_guess_that_knows_no_more() -> None:
    bench = a_bench(overlaps=(0.8,), errors=True)
    shown = {result.case: result for result in graph(bench)}
    target = bench.target()
    vault, known = from_target(target).clear(kept=False), bench.register(target, 0.8)
    for sizes in (True, False):
        claims = reidentify(vault, known, own_encoder(GUARDED), overlap=0.8, errors=True, seed=1, sizes=sizes)
        form = bench.judge(target, 0.8, claims, attack="graph", case="", knowledge="")
        assert shown["households"].right >= form.right
    (alone,) = graph_families(bench)
    assert alone.attack == "graph_families"
    assert alone.right <= shown["households"].right
    assert shown["households"].trivial == pytest.approx(0.8 / CHILDREN)
    assert shown["households + year, sex"].trivial > 5 * shown["households"].trivial


def test_own_keys_differ_from_each_other_and_from_the_agencies() -> None:
    seeds = [fresh_keys(1, "the agencies'"), *(fresh_keys(1_000 + number, "the attacker's") for number in range(2))]
    assert len({keys.fingerprint(GUARDED) for keys in seeds}) == 3
