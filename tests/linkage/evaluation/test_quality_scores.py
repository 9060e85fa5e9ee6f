"""Figures of quality against plain counting: thresholds, persons formed, true pairs, groups."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from linkage.evaluation.quality.groups import match_rates
from linkage.evaluation.quality.labelled import Labelled, read
from linkage.evaluation.quality.scores import (
    SWEPT,
    Compared,
    clustered,
    probability_of,
    score_of_persons,
    scores,
    sweep,
    weight_of,
)

MAPPING = """\
[persons]
[persons.columns]
local_id = "id"
given_name = "given"
family_name = "family"
date_of_birth = "born"
postcode = "code"
nhs_number = "nhs"
"""
PEOPLE, SETS = 5, ("a/one", "a/two", "b")
RECORDS = PEOPLE * len(SETS)
WEIGHTS = st.one_of(st.sampled_from([-64.0, -6.0, 0.0, 7.0, 7.0, 64.0]), st.floats(-10, 30))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    return the_records(tmp_path_factory.mktemp("labelled"))


def the_records(folder: Path, *, dataset: str | None = "set", nhs: Callable[[int], str] = lambda _: "") -> Labelled:
    rows = [
        {
            "who": f"p{person}", "set": name, "id": f"{name}-{person}", "given": "Zoë" if person else "Ann",
            "family": "Łukasz" if person == 1 else "王" if person == 2 else "Lee", "born": "" if person == 3 else "2015-03-14",
            "code": "SW1A 1AA", "nhs": nhs(person),
            "colour": "red" if person < 4 else "",
        }
        for name in SETS
        for person in range(PEOPLE)
    ]  # fmt: skip
    with (folder / "records.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "mapping.toml").write_text(MAPPING, encoding="utf-8")
    return read(folder / "records.csv", folder / "mapping.toml", truth="who", dataset=dataset, groups=["colour"])


def compared_of(weights: dict[tuple[int, int], float]) -> Compared:
    pairs = sorted(weights)
    return Compared(
        left=np.array([left for left, _ in pairs], np.int64),
        right=np.array([right for _, right in pairs], np.int64),
        weight=np.array([weights[pair] for pair in pairs], np.float64),
        numbers={},
    )


def test_true_pairs_are_those_of_two_sets_or_of_one_that_may_hold_a_person_twice(tmp_path: Path) -> None:
    apart = the_records(tmp_path)
    assert apart.true_pairs == PEOPLE * 3 == len(list(apart.pairs()))
    assert apart.sources == apart.flows
    one = the_records(tmp_path, dataset=None)
    assert one.true_pairs == PEOPLE * 3
    assert set(one.sources) == {None}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(list(combinations(range(RECORDS), 2))), WEIGHTS, max_size=40))
@example({(0, 5): -4.278691137329427e-07})  # rounds to a threshold that it is under
def test_each_threshold_of_a_sweep_is_what_counting_gives(
    labelled: Labelled, weights: dict[tuple[int, int], float]
) -> None:
    compared = compared_of(weights)
    points = sweep(labelled, compared)
    assert [point.weight for point in points] == list(SWEPT)
    for point in points:
        said = [pair for pair, weight in weights.items() if weight >= point.weight]
        right = [pair for pair in said if labelled.persons[pair[0]] == labelled.persons[pair[1]]]
        assert point.pairs.precision == pytest.approx(len(right) / len(said) if said else 1.0, abs=1e-6)
        assert point.pairs.recall == pytest.approx(len(right) / labelled.true_pairs, abs=1e-6)
        again = clustered(labelled, compared, bar=point.weight)  # anew; the sweep adds to what it had
        formed = score_of_persons(labelled, again.clusters(), threshold=point.persons.threshold)
        assert point.persons == formed
    best = max((point.pairs.f1 for point in points), default=0.0)
    assert scores(labelled, compared).best.f1 >= best - 1e-6


def test_persons_hold_one_record_of_each_flow_however_sure_the_pairs_are(labelled: Labelled) -> None:
    everyone = compared_of(dict.fromkeys(combinations(range(RECORDS), 2), 20.0) | {(0, 5): 30.0})
    for group in clustered(labelled, everyone).clusters():
        flows = [labelled.flows[place] for place in group]
        assert len(flows) == len(set(flows))


def test_probability_and_weight_are_each_others_inverse() -> None:
    for probability in (0.01, 0.5, 0.99, 0.999):
        assert probability_of(weight_of(probability)) == pytest.approx(probability)


def test_groups_are_counted_from_the_persons_formed(labelled: Labelled) -> None:
    of = labelled.persons
    right = [[place for place in range(RECORDS) if of[place] == person] for person in set(of)]
    rows = {(row["group"], row["value"]): row for row in match_rates(labelled, {"encoded": right})}
    assert rows["colour", "red"]["encoded"]["recall"]["rate"] == 1.0
    assert rows["colour", "red"]["encoded"]["false"]["rate"] == 0.0
    assert rows["colour", "not known"]["records"] is None  # three records: too few to speak of
    none = {(row["group"], row["value"]): row for row in match_rates(labelled, {"encoded": []})}
    assert none["colour", "red"]["encoded"]["recall"]["rate"] == 0.0
    assert none["colour", "red"]["encoded"]["false"]["rate"] is None  # nothing was said, so nothing false
    values = {group: {value for of_group, value in rows if of_group == group} for group, _ in rows}
    assert values["script"] == {"plain Latin", "Latin with marks", "other script"}
    assert values["missing"] == {"nothing", "date_of_birth"}
    assert values["source"] == {"a/one", "a/two", "b"}
    assert values["identifier"] == {"none"}


def test_identifiers_can_be_left_out(tmp_path: Path) -> None:
    numbered = the_records(tmp_path, nhs=lambda person: "9434765919" if person == 0 else "")
    assert numbered.has_identifiers
    bare = numbered.without_identifiers()
    assert not bare.has_identifiers
    assert bare.standard["given_name"] == numbered.standard["given_name"]
