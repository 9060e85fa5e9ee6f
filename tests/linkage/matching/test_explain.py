"""A pair is explained by the weights that judged it: the waterfall ends where the scorer's SQL does."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from linkage.matching.bands import HELD
from linkage.matching.comparisons import FIELDS
from linkage.matching.explain import LABELS, OTHER_REASONS, Explanation, explained, held_because
from linkage.matching.families import families
from linkage.matching.identifiers import ALL_SCHEMES
from linkage.matching.link import link
from linkage.matching.model import default_model
from linkage.matching.search import Index
from linkage.records import Profile
from tests.linkage.matching.people import HEALTH, Someone, encoded, ids
from tests.linkage.matching.test_overrides import related

ZOE = Someone(nhs_number="9990000018")
CASES = {
    "all but the number": ZOE.at(HEALTH, nhs_number="9990000026"),
    "a close name": ZOE.at(HEALTH, given_name="zoey", nhs_number=None),
    "a date with day and month swapped": ZOE.at(HEALTH, date_of_birth="20151403", nhs_number=None),
    "another address": ZOE.at(HEALTH, postcode="nx99zz", nhs_number=None),
    "nothing but the number": ZOE.at(HEALTH, given_name="ines", family_name="okoro", postcode="nx99zz"),
    "half of it missing": ZOE.at(HEALTH, given_name=None, postcode=None, sex=None),
}
PROFILES: tuple[Profile, ...] = get_args(Profile)


def explain(*people: Someone, profile: Profile) -> tuple[Explanation, list[float]]:
    """How the first two compare, as the broker asks, and the weight the run gave them, if it compared them."""
    rows = encoded(people, profile)
    model = default_model(profile)
    run = link(rows, model=model, new_id=iter(ids()).__next__)
    index = Index(rows, run.clusters, families(run.clusters, related()), model)
    (left, left_numbers), (right, right_numbers) = (index.rows_of(one.key) for one in people[:2])
    wanted = {one.ref + one.source[1] for one in people[:2]}
    weights = [
        row["weight"] for row in run.pairs.to_pylist()
        if {row[f"record_ref_{s}"] + row[f"flow_{s}"] for s in "lr"} == wanted
    ]  # fmt: skip
    return explained(model, left, right, left_numbers, right_numbers), weights


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", list(CASES))
def test_the_waterfall_adds_up_to_the_weight_that_judged_the_pair(case: str, profile: Profile) -> None:
    said, weights = explain(ZOE, CASES[case], profile=profile)
    assert said.weight == pytest.approx(sum(bar.weight for bar in said.waterfall))
    assert [bar.field for bar in said.waterfall] == ["prior", *FIELDS]
    for weight in weights:
        assert said.weight == pytest.approx(weight, abs=1e-9)


@pytest.mark.parametrize("profile", PROFILES)
def test_of_several_rows_the_pair_counts_that_weighs_most(profile: Profile) -> None:
    former = replace(ZOE, family_name="nowak", postcode="nx99zz")
    there = ZOE.at(HEALTH, family_name="nowak", postcode="nx99zz", nhs_number=None)
    said, weights = explain(ZOE, there, former, profile=profile)
    assert said.weight == pytest.approx(weights[0], abs=1e-9)
    assert {one.level for one in said.fields} == {"agree"}


def test_levels_are_words_and_rarity_is_said_of_agreement_alone() -> None:
    said, _ = explain(ZOE, CASES["half of it missing"], profile="guarded-3")
    assert {one.field: one.level for one in said.fields} == {
        "given_name": "missing", "family_name": "agree", "date_of_birth": "agree", "postcode": "missing",
        "sex": "missing",
    }  # fmt: skip
    assert {one.field for one in said.fields if one.rarity} == {"family_name", "date_of_birth"}
    far, _ = explain(ZOE, CASES["nothing but the number"], profile="guarded-3")
    assert {one.level for one in far.fields if one.rarity is None} <= {"differ", "not_comparable"}


def test_what_only_a_number_salts_on_both_sides_differs_if_it_is_not_equal_and_is_not_missing() -> None:
    """Neither date nor postcode is shared, so no filter compares: the number both have says that the names are others."""
    there = ZOE.at(HEALTH, given_name="ines", date_of_birth="20120102", postcode="nx99zz")
    said, _ = explain(ZOE, there, profile="guarded-3")
    assert {one.field: one.level for one in said.fields} == {
        "given_name": "differ", "family_name": "agree", "date_of_birth": "differ", "postcode": "not_comparable",
        "sex": "agree",
    }  # fmt: skip
    (bar,) = [bar for bar in said.waterfall if bar.field == "given_name"]
    assert (bar.weight, bar.level) == (0.0, "differs, by how much can't be told: not counted")


def test_without_a_common_salt_a_field_is_not_comparable_and_only_what_was_not_sent_is_missing() -> None:
    there = ZOE.at(HEALTH, given_name="ines", family_name=None, date_of_birth="20120102", postcode="nx99zz",
                   nhs_number=None)  # fmt: skip
    said, _ = explain(ZOE, there, profile="guarded-3")
    assert {one.field: one.level for one in said.fields} == {
        "given_name": "not_comparable", "family_name": "missing", "date_of_birth": "not_comparable",
        "postcode": "not_comparable", "sex": "agree",
    }  # fmt: skip


def test_a_number_that_replaced_another_salts_nothing_alike_so_no_name_is_called_another() -> None:
    there = ZOE.at(HEALTH, date_of_birth="20120102", postcode="nx99zz", nhs_number="9990000026",
                   superseded_nhs_number="9990000018")  # fmt: skip
    said, _ = explain(ZOE, there, profile="guarded-3")
    assert said.numbers_agree == ("nhs_number",)
    assert {one.level for one in said.fields if one.field != "sex"} == {"not_comparable"}


def test_numbers_are_told_by_scheme_agreeing_conflicting_or_on_one_side_alone() -> None:
    conflict, _ = explain(ZOE, CASES["all but the number"], profile="guarded-3")
    assert (conflict.numbers_agree, conflict.numbers_differ, conflict.numbers_missing) == ((), ("nhs_number",), ())
    alone, _ = explain(ZOE, CASES["a close name"], profile="guarded-3")
    assert (alone.numbers_agree, alone.numbers_differ, alone.numbers_missing) == ((), (), ("nhs_number",))
    agree, _ = explain(ZOE, CASES["nothing but the number"], profile="guarded-3")
    assert agree.numbers_agree == ("nhs_number",)


def test_every_field_scheme_and_reason_has_its_words() -> None:
    assert LABELS.keys() == {*FIELDS, *ALL_SCHEMES}
    for reason in (*HELD, *OTHER_REASONS):
        assert held_because(reason).endswith(".")


def test_a_record_that_is_not_there_is_not_explained() -> None:
    with pytest.raises(ValueError, match="without rows"):
        explained(default_model("guarded-3"), [], [], {}, {})
