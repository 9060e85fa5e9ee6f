"""The children whom attacks are tried on, and the register that an attacker holds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.agency import standardise
from linkage.evaluation.attack.population import (
    MISSING,
    STEEPEST,
    People,
    as_numbers,
    population,
    public_given_names,
    public_surnames,
    register,
)


def same(one: People, other: People) -> bool:
    return one.clear().equals(other.clear()) and np.array_equal(one.person, other.person)


def test_the_same_seed_gives_the_same_children_and_another_seed_gives_others() -> None:
    assert same(population(500, seed=3), population(500, seed=3))
    assert not same(population(500, seed=3), population(500, seed=4))


def test_every_value_is_in_standard_form_already() -> None:
    people = population(400, seed=1)
    table = people.clear()
    for name in table.column("family_name").to_pylist():
        assert standardise.family_name(name).value == name
    for code in table.column("postcode").to_pylist():
        assert standardise.postcode(code.upper()).value == code


def test_siblings_share_a_home_and_mostly_a_surname() -> None:
    people = population(3_000, seed=1)
    order = np.argsort(people.family, kind="stable")
    pairs = [(a, b) for a, b in pairwise(order) if people.family[a] == people.family[b]]
    assert len(pairs) > 500
    assert all(people.postcode[a] == people.postcode[b] for a, b in pairs)
    assert 0.75 < np.mean([people.surname[a] == people.surname[b] for a, b in pairs]) < 0.95


def test_second_records_differ_by_the_home_of_those_who_moved_and_by_nothing_else() -> None:
    people = population(2_000, seed=1, records=2, moved=0.5)
    order = np.lexsort((people.postcode, people.person))
    one, other = people.take(order[::2]), people.take(order[1::2])
    assert np.array_equal(one.person, other.person)
    assert np.array_equal(one.born, other.born)
    assert np.array_equal(one.surname, other.surname)
    assert 0.4 < np.mean(one.postcode != other.postcode) < 0.6


def test_the_steep_curve_puts_the_commonest_surname_at_its_share_and_keeps_the_order() -> None:
    fitted, steep = public_surnames("fitted"), public_surnames("steep")
    assert steep.shares[0] == pytest.approx(STEEPEST, rel=0.01)
    assert fitted.shares[0] < 0.012
    for table in (fitted, steep, public_given_names("fitted", sex=1)):
        assert table.shares.sum() == pytest.approx(1.0)
        assert np.all(np.diff(table.shares) <= 0)


def test_regional_names_cluster_by_place() -> None:
    def spread(people: People) -> float:
        """How far the share of a few surnames of one custom differs between neighbourhoods, beside its mean."""
        some = [at for at, word in enumerate(people.words) if word in ("khan", "hussain", "iqbal", "malik", "mahmood")]
        hood = people.postcode // 50
        shares = np.bincount(hood, weights=np.isin(people.surname, some)) / np.maximum(1, np.bincount(hood))
        return float(shares.std() / shares.mean())

    everywhere, clustered = (population(8_000, seed=2, regional=flag) for flag in (False, True))
    assert spread(clustered) > 1.5 * spread(everywhere)


@settings(max_examples=15, deadline=None)
@given(overlap=st.sampled_from([0.5, 0.8, 0.9, 1.0]), errors=st.booleans(), seed=st.integers(0, 50))
def test_a_register_holds_the_share_asked_for_and_strangers_to_the_same_size(
    overlap: float, errors: bool, seed: int
) -> None:
    people = population(300, seed=seed)
    known = register(people, overlap=overlap, errors=errors, seed=seed)
    assert len(known) == 300
    held = known.person[known.person >= 0]
    assert len(held) == len(np.unique(held)) == round(overlap * 300)


def test_a_register_without_errors_says_what_is_true_and_one_with_errors_does_not_always() -> None:
    people = population(3_000, seed=1)
    at = np.argsort(people.person)
    for errors in (False, True):
        known = register(people, overlap=1.0, errors=errors, seed=1)
        truth = people.take(at[known.person])
        differs = {
            name: np.mean(getattr(known, name) != getattr(truth, name))
            for name in ("given", "surname", "born", "postcode")
        }
        if not errors:
            assert not any(differs.values())
        else:
            assert all(0.02 < share < 0.12 for share in differs.values()), differs
            assert 0.005 < np.mean(known.born == MISSING) < 0.04


def test_dates_are_numbers_as_they_are_written() -> None:
    days = np.array(["2016-02-29", "2024-12-31"], "datetime64[D]")
    assert as_numbers(days).tolist() == [20160229, 20241231]
