"""Levels and weights: likeness by brute force over sets of bits, and Splink's own prediction as the oracle of ours."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splink import DuckDBAPI, Linker, SettingsCreator

from linkage.matching.blocking import blocking_rules
from linkage.matching.comparisons import NAME_EQUAL, NOT_COMPARABLE, comparisons, dice, same_bits
from linkage.matching.link import Run
from linkage.matching.model import BadModel, Model, default_model
from linkage.matching.overrides import Overrides
from linkage.matching.workspace import UnknownProfile, open_workspace, packed, profile_of
from linkage.records import Profile
from tests.linkage.matching.people import HEALTH, PERSONS, Someone, encoded

bits = st.sets(st.integers(0, 511), max_size=300)
CONNECTION = open_workspace(threads=1)


def words(positions: set[int]) -> list[int]:
    value = [sum(1 << p % 64 for p in positions if p // 64 == word) for word in range(8)]
    return [word - (1 << 64) if word >> 63 else word for word in value]


@settings(max_examples=60, deadline=None)
@given(bits, bits, st.integers(1, 100))
def test_likeness_is_that_of_the_sets_of_bits(left: set[int], right: set[int], per_cent: int) -> None:
    sides = []
    for side, positions in (("l", left), ("r", right)):
        held = ", ".join(f"({w})::BIGINT AS f_w{n}" for n, w in enumerate(words(positions)))
        inner = f"SELECT {packed('f')} FROM (SELECT {held}, {len(positions)} AS f_n)"
        renamed = ", ".join(f"{c} AS {c}_{side}" for c in ("f_h0", "f_h1", "f_h2", "f_h3", "f_n"))
        sides.append(f"(SELECT {renamed} FROM ({inner}))")
    said = CONNECTION.execute(
        f"SELECT {dice('f', per_cent)}, {same_bits('f', per_cent)} FROM {sides[0]}, {sides[1]}"
    ).fetchall()[0]
    assert said == (
        200 * len(left & right) >= per_cent * (len(left) + len(right)),
        100 * (512 - len(left ^ right)) >= per_cent * 512,
    )


@pytest.mark.parametrize("profile", ["guarded-3", "accurate-2"])
def test_weights_are_those_of_splinks_own_prediction(profile: Profile) -> None:
    logging.getLogger("splink").setLevel(logging.ERROR)
    zoe = Someone()
    changes: list[dict[str, str | None]] = [
        {}, {"given_name": "zoey"}, {"family_name": "kowalski"}, {"postcode": "nx12ac"}, {"date_of_birth": "20150315"},
        {"sex": None}, {"sex": "M", "given_name": "agnieszka"}, {"postcode": None, "family_name": "nowak"},
    ]  # fmt: skip
    people = [zoe, *(zoe.at(source, ref=str(n), **c) for n, c in enumerate(changes) for source in (HEALTH, PERSONS))]
    model = default_model(profile)
    run = Run(open_workspace(), encoded(people, profile), frozenset(), Overrides(), None)
    pairs = run.block(model)
    run.score(model)
    ours = dict(run.db.execute("SELECT (rec_l, rec_r), (weight, probability) FROM scored").fetchall())
    oracle = Linker(
        DuckDBAPI(run.db).register("rows"),
        SettingsCreator(
            link_type="dedupe_only",
            comparisons=[c.for_splink(model.levels[c.field]) for c in comparisons(profile)],
            blocking_rules_to_generate_predictions=blocking_rules(profile),
            probability_two_random_records_match=model.prior,
            retain_matching_columns=False,
            additional_columns_to_retain=["rec"],
        ),
        log_level=None,
    ).inference.predict()
    theirs = run.db.execute(
        f"SELECT rec_l, rec_r, match_weight, match_probability FROM {oracle.physical_name}"
    ).fetchall()
    assert len(theirs) == pairs == len(ours) > 20
    for left, right, weight, probability in theirs:
        assert ours[left, right] == pytest.approx((weight, probability), abs=1e-9)


def test_two_names_under_different_salts_are_not_compared() -> None:
    zoe = Someone(nhs_number="9990000018")
    moved = zoe.at(HEALTH, date_of_birth="20091201", postcode="nx99zz", nhs_number="9990000026",
                   superseded_nhs_number="9990000018")  # fmt: skip
    run = Run(open_workspace(), encoded([zoe, moved]), frozenset(), Overrides(), None)
    model = default_model("guarded-3")
    run.block(model)
    run.score(model)
    assert run.db.execute("SELECT gamma_given_name, gamma_family_name FROM scored").fetchall() == [(-1, -1)]


def test_a_number_in_common_lets_names_be_compared_where_nothing_else_does() -> None:
    zoe = Someone(nhs_number="9990000018")
    moved = zoe.at(HEALTH, date_of_birth=None, postcode="nx99zz", family_name="nowak")
    run = Run(open_workspace(), encoded([zoe, moved]), frozenset(), Overrides(), None)
    model = default_model("guarded-3")
    run.block(model)
    run.score(model)
    found = run.db.execute("SELECT gamma_given_name, gamma_family_name, gamma_date_of_birth FROM scored").fetchall()
    assert found == [(NAME_EQUAL, NOT_COMPARABLE, NOT_COMPARABLE)]


def test_a_model_keeps_its_bytes_and_refuses_others() -> None:
    model = default_model("guarded-3")
    assert Model.parse(model.canonical()) == model
    assert Model.parse(model.canonical()).canonical() == model.canonical()
    for raw in (b"{}", b"[]", b"not json", model.canonical().replace(b"levels-2", b"levels-0")):
        with pytest.raises(BadModel):
            Model.parse(raw)


def test_columns_of_no_profile_are_refused() -> None:
    with pytest.raises(UnknownProfile, match="guarded-3"):
        profile_of(["given_name", "family_name"])


@pytest.mark.parametrize("statement", [
    "SELECT * FROM read_csv('/etc/passwd')", "COPY (SELECT 1) TO '/etc/x.csv'", "INSTALL httpfs", "SET threads = 8",
    "ATTACH 'x.db'",
])  # fmt: skip
def test_the_workspace_reaches_nothing_outside_itself(statement: str) -> None:
    with pytest.raises(Exception, match=r"(?i)disabled|locked|lock_configuration|permission|configuration"):
        open_workspace(threads=1).execute(statement)
