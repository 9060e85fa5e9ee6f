"""The command that measures linkage: its figures beside clear text, its files, and the bars on a synthetic area."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from linkage.agency.encode import DEFAULT_PROFILE
from linkage.agency.keys import LinkageKeys
from linkage.evaluation import quality
from linkage.evaluation.synthesise import synthesise
from linkage.matching.link import link
from tests.benchmarks.areas import harm
from tests.benchmarks.febrl import write_febrl3, write_febrl4
from tests.sizes import LONG

SCORES = {"shipped", "best", "one_to_one"}


def quality_app() -> typer.Typer:
    made = typer.Typer()
    made.command()(quality.command)
    return made


@dataclass(frozen=True)
class Measured:
    """One run of the command on a small area: what it printed and wrote, and the area's folder."""

    folder: Path
    printed: str
    body: dict[str, Any]
    page: str


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("quality")
    synthesise(folder, children=250, seed=7, items=False)
    arguments = [
        str(folder / "labelled.csv"), "--mapping", str(folder / "labelled-mapping.toml"), "--truth", "person_id",
        "--dataset", "dataset", "--profile", "accurate", "--clear-text", "--groups", "naming_custom, sex",
        "--json", str(folder / "quality.json"), "--html", str(folder / "quality.html"),
    ]  # fmt: skip
    run = CliRunner().invoke(quality_app(), arguments)
    assert run.exit_code == 0, run.output
    return Measured(
        folder=folder,
        printed=run.output,
        body=json.loads((folder / "quality.json").read_text("utf-8")),
        page=(folder / "quality.html").read_text("utf-8"),
    )


def test_both_sides_are_measured_with_identifiers_and_without(measured: Measured) -> None:
    bare = measured.body["without_identifiers"]
    for body in (measured.body, bare):
        for side in ("encoded", "clear_text", "clear_text_wide"):
            assert set(body[side]) == SCORES
            for kind in SCORES:
                assert set(body[side][kind]) == {"precision", "recall", "f1", "threshold"}
        assert {"blocking_recall", "candidate_pairs", "records", "stages"} <= set(body)
        assert set(body["stages"][0]) == {"name", "wall_s", "cpu_s", "peak_mb"}
        assert body["encoded"]["shipped"]["threshold"] == 0.99
    assert "WITHOUT IDENTIFIERS" in measured.printed
    for side in ("encoded", "clear_text"):
        keys = {key["name"]: key["pairs"] for key in measured.body["blocking"][side]["keys"]}
        assert keys["nhs_number"] > 0
        assert keys["upn"] > 0
        assert not any(
            key["pairs"] for key in bare["blocking"][side]["keys"] if key["name"] in ("nhs_number", "upn", "local")
        )


def test_the_two_sides_block_on_the_same_pairs(measured: Measured) -> None:
    """The peer blocks on the parts in clear; only identifiers shared by too many differ, and here none are."""
    ours, peer = (measured.body["blocking"][side] for side in ("encoded", "clear_text"))
    assert {key["name"]: key["pairs"] for key in ours["keys"]} == {key["name"]: key["pairs"] for key in peer["keys"]}
    assert ours["recall"] == peer["recall"] == measured.body["blocking_recall"]


def test_what_one_key_finds_alone_is_no_more_than_what_it_finds_and_all_find_together(measured: Measured) -> None:
    for blocking in measured.body["blocking"].values():
        assert all(key["only"] <= key["recall"] <= blocking["recall"] for key in blocking["keys"])
        assert sum(key["only"] for key in blocking["keys"]) <= blocking["recall"]


def test_linkage_of_a_small_area_is_near_clear_text(measured: Measured) -> None:
    for body in (measured.body, measured.body["without_identifiers"]):
        assert body["encoded"]["shipped"]["f1"] > body["clear_text"]["shipped"]["f1"] - 0.03
        assert body["encoded"]["shipped"]["precision"] > 0.99


def test_recall_falls_and_precision_mostly_rises_with_the_threshold(measured: Measured) -> None:
    for points in measured.body["sweep"].values():
        recalls = [point["pairs"]["recall"] for point in points]
        assert recalls == sorted(recalls, reverse=True)
        assert points[-1]["pairs"]["precision"] >= points[0]["pairs"]["precision"]


def test_groups_are_reported_and_small_ones_hidden(measured: Measured) -> None:
    rows = measured.body["groups"]
    assert {row["group"] for row in rows} >= {
        "naming_custom", "decile", "looked_after", "moved", "sex", "source", "age_band", "script", "missing",
    }  # fmt: skip
    hidden = [row for row in rows if row["records"] is None]
    assert hidden
    assert all(row["encoded"]["recall"]["rate"] is None for row in hidden)
    assert all(row["records"] % 5 == 0 for row in rows if row["records"] is not None)
    assert "naming_custom: english" in measured.printed
    assert "under 10" in measured.printed


def test_the_page_needs_nothing_from_elsewhere_and_holds_no_value_of_a_record(measured: Measured) -> None:
    assert len(re.findall(r'<div class="wide"[^>]*><(table|svg)', measured.page)) == len(
        re.findall("<table|<svg", measured.page)
    )  # on a phone what is wide scrolls by itself
    assert not re.search(r"(src|href)\s*=|<script|url\(|@import|https?://", measured.page)
    for words in ("Which threshold", "What each field weighs", "Pairs, step by step", "Who is served worse", "<svg"):
        assert words in measured.page
    lines = (measured.folder / "labelled.csv").read_text("utf-8").splitlines()
    header = [name.strip('"') for name in lines[0].split(",")]
    values = {
        cell.strip('"')
        for line in lines[1:]
        for name, cell in zip(header, line.split(","), strict=False)
        if name in ("family_name", "postcode", "date_of_birth", "nhs_number", "local_id", "person_id")
    }
    text = re.sub(r"<[^>]*>", "\n", measured.page)
    assert not {word for word in text.split() if len(word) > 3} & values


def test_without_identifiers_only_that_is_measured(tmp_path: Path) -> None:
    synthesise(tmp_path, children=120, seed=7, items=False)
    arguments = [
        str(tmp_path / "labelled.csv"), "--mapping", str(tmp_path / "labelled-mapping.toml"), "--truth", "person_id",
        "--dataset", "dataset", "--without-identifiers", "--json", str(tmp_path / "quality.json"),
    ]  # fmt: skip
    run = CliRunner().invoke(quality_app(), arguments)
    assert run.exit_code == 0, run.output
    body = json.loads((tmp_path / "quality.json").read_text("utf-8"))
    assert "without_identifiers" not in body
    assert not any(key["pairs"] for key in body["blocking"]["encoded"]["keys"] if key["name"] in ("nhs_number", "upn"))


@pytest.mark.slow
def test_encoded_linkage_is_near_clear_text_on_febrl(tmp_path: Path) -> None:
    sets: list[tuple[tuple[Path, Path], str | None, int | None]] = [(write_febrl3(tmp_path, people=300), None, None)]
    if LONG:  # a linkage of two sets, too; `make bench ONLY=linkage` measures both in full
        sets.append((write_febrl4(tmp_path, people=800), "dataset", 1_600))
    for (records, mapping), dataset, count_of in sets:
        labelled = quality.read(records, mapping, truth="person", dataset=dataset)
        assert not labelled.has_identifiers
        body = quality.evaluate(labelled, DEFAULT_PROFILE, clear_text=True)
        for kind in ("shipped", "best"):
            assert body["encoded"][kind]["f1"] >= body["clear_text"][kind]["f1"] - 0.02
        assert count_of in (None, body["records"])
        assert {stage["name"] for stage in body["stages"]} >= {
            "encode", "train", "block", "score", "cluster", "clear_text", "clear_text_wide",
        }  # fmt: skip


@pytest.mark.slow
def test_a_synthetic_area_links_with_few_faults_and_none_that_harms(tmp_path: Path) -> None:
    synthesise(tmp_path, children=2_000, seed=3, items=False)
    labelled = quality.read(
        tmp_path / "labelled.csv", tmp_path / "labelled-mapping.toml", truth="person_id", dataset="dataset"
    )
    body = quality.evaluate(labelled, DEFAULT_PROFILE, clear_text=False)
    for found in (body["encoded"]["shipped"], body["linked"]):
        assert found["precision"] >= 0.995
        assert found["recall"] >= 0.93
    keys = LinkageKeys.generate(partnership="evaluation", epoch="evaluation")
    persons, households = quality.encode(labelled, keys, DEFAULT_PROFILE)
    run = link(persons, duplicates=labelled.duplicates, households=households, new_id=map(str, count()).__next__)
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


@pytest.mark.parametrize("seed", [104, 105, 106, 107])
def test_harder_areas_join_no_twins_and_no_severed_pair_by_the_model_that_ships(seed: int) -> None:
    found = harm(seed, children=200)
    assert found.severed
    assert found.twins
    assert (found.rejoined, found.merged) == (0, 0)
    assert found.right >= 0.99 * found.said > 0


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    records, mapping = write_febrl4(tmp_path, people=20)
    for arguments in (["--truth", "whoami"], ["--truth", "person", "--groups", "whoami"]):
        run = CliRunner().invoke(quality_app(), [str(records), "--mapping", str(mapping), *arguments])
        assert run.exit_code == 2
        assert "whoami" in run.output
