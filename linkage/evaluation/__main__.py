"""`python -m linkage.evaluation`: a synthetic area to link, and how well it is linked."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

_TODAY = datetime(2026, 9, 30)  # noqa: DTZ001  (a day; typer knows no plain date)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def evaluation() -> None:
    """Make a synthetic area and measure linkage on labelled records; never run on live data."""


@app.command()
def synthesise(
    out: Annotated[Path, typer.Option("--out", help="Folder to fill: extracts/, truth/, labelled.csv.")],
    children: Annotated[int, typer.Option("--children", min=50, help="How many children, 0 to 17.")] = 20_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same bytes.")] = 1,
    blank: Annotated[
        float, typer.Option("--blank", min=0.0, max=1.0, help="Share of dates of birth, and of postcodes, left out.")
    ] = 0.0,
    on: Annotated[datetime, typer.Option("--on", formats=["%Y-%m-%d"], help="The day the area is seen on.")] = _TODAY,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write the extracts of six flows of three made-up organisations on one made-up area, and the truth beside.

    Nobody in it is real: names are drawn from public frequency lists, identifiers from ranges that were never issued.

    Exit codes: 0 written; 2 usage.
    """
    from linkage.evaluation.synthesise import synthesise as make

    began = time.perf_counter()
    summary = make(out, children=children, seed=seed, blank=blank, on=on.date())
    if as_json:
        typer.echo(json.dumps(summary, indent=2, sort_keys=True))
        return
    took = time.perf_counter() - began
    typer.echo(f"{summary['children']:,} children in {summary['families']:,} families, written in {took:.1f} s")
    for flow, counts in sorted(summary["flows"].items()):
        typer.echo(
            f"  {flow:<36}{counts['persons']:>9,} people {counts['relationships']:>9,} ties {counts['items']:>9,} items"
        )


def _register_quality() -> None:
    """`quality` needs Splink, which takes a second to import; the generator should not wait for it."""
    import sys

    if sys.argv[1:2] == ["synthesise"]:
        return
    from linkage.evaluation.quality import command

    app.command("quality")(command)


def _register_attack() -> None:
    """`attack` brings the encoder along; who asks for another command should not wait for it."""
    import sys

    if sys.argv[1:2] in (["synthesise"], ["quality"]):
        return
    from linkage.evaluation.attack.command import command

    app.command("attack")(command)


def main() -> None:
    """Run the command line."""
    _register_attack()
    _register_quality()
    app(prog_name="python -m linkage.evaluation")


if __name__ == "__main__":
    main()
