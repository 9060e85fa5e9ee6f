"""Shares, intervals and ceilings."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.evaluation.attack.command import line
from linkage.evaluation.attack.registry import ATTACKS
from linkage.evaluation.attack.results import (
    AGENCY,
    APART,
    OPERATOR,
    AttackResult,
    BadCeilings,
    Ceiling,
    broken,
    ceiling_of,
    load_ceilings,
    wilson,
)
from linkage.records import PROFILES

RESULT = AttackResult(
    attack="graph", case="similarity", profile=PROFILES[0], knowledge="a register", what="child", children=1_000,
    population=1_000, overlap=0.8, errors=True, seed=1, claimed=40, right=10, trivial=0.001,
)  # fmt: skip


def test_a_share_is_of_all_at_stake_and_precision_is_of_what_was_claimed() -> None:
    assert (RESULT.share, RESULT.precision) == (0.01, 0.25)
    assert RESULT.as_json()["interval"] == list(wilson(10, 1_000))


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 100_000), st.floats(0, 1))
def test_the_interval_holds_the_share_and_stays_within_bounds(population: int, part: float) -> None:
    right = round(part * population)
    low, high = wilson(right, population)
    assert 0 <= low <= right / population + 1e-12
    assert right / population - 1e-12 <= high <= 1


def test_the_strictest_of_the_ceilings_that_fit_holds() -> None:
    loose = Ceiling(share=0.5, why="worst case", attack="graph")
    strict = Ceiling(share=0.01, why="with errors", attack="graph", overlap_at_most=0.8, errors=True)
    other = Ceiling(share=0.0, why="another attack", attack="dictionary")
    limits = (loose, strict, other)
    assert ceiling_of(RESULT, limits) is strict
    assert ceiling_of(replace(RESULT, overlap=1.0), limits) is loose
    assert ceiling_of(replace(RESULT, errors=False), limits) is loose
    assert ceiling_of(replace(RESULT, attack="length"), limits) is None


def test_a_raised_share_is_above_its_ceiling_and_an_equal_one_is_not() -> None:
    limits = (Ceiling(share=0.01, why="bar"),)
    assert broken([RESULT], limits) == []
    assert broken([replace(RESULT, right=11)], limits) == [(replace(RESULT, right=11), limits[0])]


@pytest.mark.parametrize(
    "body",
    ["[]", "{}", '{"ceilings": [1]}', '{"ceilings": [{"share": 2, "why": ""}]}', '{"ceilings": [{"sahre": 1}]}', "{"],
)
def test_a_file_of_ceilings_that_cannot_be_understood_is_refused(tmp_path: Path, body: str) -> None:
    path = tmp_path / "ceilings.json"
    path.write_text(body)
    with pytest.raises(BadCeilings):
        load_ceilings(path)


def test_the_shipped_ceilings_name_attacks_that_exist_and_hold_the_bars_of_the_guarded_profile() -> None:
    limits = load_ceilings()
    assert all(any(fnmatchcase(attack, limit.attack) for attack in ATTACKS) for limit in limits)
    assert all(limit.why for limit in limits)
    bars = {"frequency": 0.002, "composite": 0.001, "dictionary": 0.0, "graph": 0.01, "graph_published": 0.01}
    for attack, bar in bars.items():
        limit = ceiling_of(replace(RESULT, attack=attack, case="without any key", children=200_000), limits)
        assert limit is not None and limit.share <= bar, attack
    for attack, case in (
        ("graph", "households"),
        ("graph", "households + year, sex"),
        ("graph_families", "households"),
    ):
        limit = ceiling_of(replace(RESULT, attack=attack, case=case), limits)
        assert limit is not None and limit.bar == 0.01 < limit.share, case


def test_a_bar_that_is_missed_is_said_although_the_ceiling_above_it_holds() -> None:
    limit = Ceiling(share=0.05, bar=0.01, why="not there yet")
    assert "ceiling 5.00 % held, bar 1.00 % MISSED" in line(replace(RESULT, right=30), limit)
    assert "MISSED" not in line(RESULT, limit)


def test_every_result_says_whose_attack_it_is() -> None:
    assert RESULT.adversary == APART
    assert replace(RESULT, case="households + year, sex").adversary == OPERATOR
    assert replace(RESULT, attack="frequency").adversary == OPERATOR
    assert replace(RESULT, attack="dictionary", case="control: all keys").adversary == AGENCY


def test_every_attack_of_the_registry_can_be_loaded() -> None:
    for entry in ATTACKS.values():
        assert callable(entry.load())


def test_ceilings_are_read_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "ceilings.json"
    path.write_text(json.dumps({"ceilings": [{"share": 0.25, "why": "a test", "errors": False}]}))
    assert load_ceilings(path) == (Ceiling(share=0.25, why="a test", errors=False),)
