"""The two bars of linkage: as good as plain Splink in clear on FEBRL 4, and safe on a synthetic area."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from linkage.agency.keys import LinkageKeys
from linkage.evaluation import quality
from linkage.evaluation.synthesise import synthesise
from linkage.matching.link import link
from tests.benchmarks.febrl import write_febrl4


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(quality.command)
    return made


@pytest.mark.slow
def test_encoded_linkage_is_within_a_point_of_clear_text_on_febrl_4(tmp_path: Path, app: typer.Typer) -> None:
    records, mapping = write_febrl4(tmp_path)
    out = tmp_path / "quality.json"
    arguments = [str(records), "--mapping", str(mapping), "--truth", "person", "--dataset", "dataset"]
    run = CliRunner().invoke(app, [*arguments, "--clear-text", "--json", str(out)])
    assert run.exit_code == 0, run.output
    body = json.loads(out.read_text())
    for kind in ("shipped", "best", "one_to_one"):
        assert body["encoded"][kind]["f1"] >= body["clear_text"][kind]["f1"] - 0.01
    assert body["records"] == 10_000
    assert body["blocking_recall"] > 0.97
    assert {stage["name"] for stage in body["stages"]} >= {"encode", "train", "block", "score", "cluster", "clear_text"}
    assert set(body["stages"][0]) == {"name", "wall_s", "cpu_s", "peak_mb"}


@pytest.mark.slow
def test_a_synthetic_area_links_with_few_faults_and_none_that_harms(tmp_path: Path) -> None:
    synthesise(tmp_path, children=2_000, seed=3, items=False)
    labelled = quality.read(
        tmp_path / "labelled.csv", tmp_path / "labelled-mapping.toml", truth="person_id", dataset="dataset"
    )
    body = quality.evaluate(labelled, "guarded-2", clear_text=False)
    for found in (body["encoded"]["shipped"], body["linked"]):
        assert found["precision"] >= 0.99
        assert found["recall"] >= 0.93
    keys = LinkageKeys.generate(partnership="evaluation", epoch="evaluation")
    persons, households = quality.encode(labelled, keys, "guarded-2")
    run = link(
        persons, duplicates=labelled.duplicates, households=households, new_id=iter(map(str, range(10**6))).__next__
    )
    truly = defaultdict(set)
    for row in run.clusters.to_pylist():
        label = labelled.truth[row["agency"], row["flow"], row["record_ref"]].removeprefix("label ")
        truly[row["person_id"]].add(label)
    mixed = [labels for labels in truly.values() if len(labels) > 1]
    for name, ends in (("severed", ("person_old", "person_new")), ("twins", ("person_a", "person_b"))):
        table = pq.read_table(tmp_path / "truth" / f"{name}.parquet")
        pairs = list(zip(*(table[end].to_pylist() for end in ends), strict=True))
        assert pairs
        assert not [pair for pair in pairs for labels in mixed if labels.issuperset(pair)]


def test_a_column_that_is_not_there_is_named(tmp_path: Path, app: typer.Typer) -> None:
    records, mapping = write_febrl4(tmp_path, people=20)
    run = CliRunner().invoke(app, [str(records), "--mapping", str(mapping), "--truth", "whoami"])
    assert run.exit_code == 2
    assert "whoami" in run.output
