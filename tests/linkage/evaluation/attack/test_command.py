"""`python -m linkage.evaluation attack`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from linkage.evaluation.attack.command import command

app = typer.Typer()
app.command()(command)
RUN = CliRunner()
SMALL = ["--children", "300", "--overlap", "0.8"]


def ceilings(tmp_path: Path, share: float) -> list[str]:
    path = tmp_path / "ceilings.json"
    path.write_text(json.dumps({"ceilings": [{"share": share, "why": "a test", "attack": "chained"}]}))
    return ["--ceilings", str(path)]


def test_results_within_their_ceilings_exit_0_with_the_blind_guess_beside_each(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    done = RUN.invoke(app, ["chained", *SMALL, *ceilings(tmp_path, 1.0), "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "knows: public table of names" in done.output
    assert done.output.count("blind guess") == 8
    body = json.loads(out.read_text())
    assert body["above"] == []
    assert {"attack", "case", "knowledge", "share", "interval", "trivial", "claimed", "right"} <= set(
        body["results"][0]
    )


def test_a_result_above_its_ceiling_exits_1_and_is_named(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["chained", *SMALL, "--profile", "accurate", *ceilings(tmp_path, 0.0)])
    assert done.exit_code == 1, done.output
    assert "ABOVE" in done.output
    assert "above their ceiling: 0" not in done.output
    assert "chained, family, " in done.output.rpartition("above their ceiling")[2]


@pytest.mark.parametrize(
    "wrong",
    [["nonsense"], ["chained", "--overlap", "1.5"], ["chained", "--overlap", "x"], ["--profile", "open"],
     ["chained", "--ceilings", "nowhere.json"], ["chained", "--children", "3"], ["chained", "--errors", "maybe"]],
)  # fmt: skip
def test_what_cannot_be_understood_exits_2(wrong: list[str]) -> None:
    assert RUN.invoke(app, wrong).exit_code == 2


def test_the_same_seed_prints_the_same(tmp_path: Path) -> None:
    limits = ceilings(tmp_path, 1.0)
    once, again = (RUN.invoke(app, ["equality", *SMALL, *limits, "--seed", "5"]).output for _ in range(2))
    assert once == again
