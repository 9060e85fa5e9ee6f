"""`quality` on the command line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from linkage.agency import extract, mapping
from linkage.evaluation.quality import text
from linkage.evaluation.quality.labelled import read
from linkage.evaluation.quality.measure import Measured, measure
from linkage.evaluation.quality.page import rendered
from linkage.records import PROFILES


def command(
    records: Annotated[Path, typer.Argument(help="Labelled records: CSV or Parquet.", exists=True, dir_okay=False)],
    mapping_file: Annotated[
        Path, typer.Option("--mapping", help="The mapping `agency encode` uses; [persons] is read.", exists=True)
    ],
    truth: Annotated[str, typer.Option("--truth", help="The column that says who each record truly is.")],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="The column that names each record's data set; without it all are one."),
    ] = None,
    profile: Annotated[Literal["guarded", "accurate"], typer.Option("--profile")] = "guarded",
    clear_text: Annotated[
        bool, typer.Option("--clear-text", help="Link the same rows in clear by plain Splink, too.")
    ] = False,
    without_identifiers: Annotated[
        bool, typer.Option("--without-identifiers", help="Leave every identifier out, on both sides.")
    ] = False,
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups",
            help="Columns, with commas, to report match rates by, beside those known anyway (data set, age band, what "
            "is missing, script of the name); prints all groups, not only those served worse.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write the report here as JSON.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the report here as one page with charts; works offline.")
    ] = None,
) -> None:
    """How well labelled records link once encoded, under a fresh key; run on labelled or made-up records only.

    Prints pairwise precision, recall and F1 at the shipped threshold, at the best one and at others, what blocking
    kept, groups served worse than others, and the seconds and memory of each stage.  If there are identifiers, all of
    it again without them.  Exit codes: 0 measured; 2 usage, or a file or mapping that can't be read.
    """
    logging.getLogger("splink").setLevel(logging.ERROR)
    full = next(known for known in PROFILES if known.startswith(f"{profile}-"))
    columns = [name.strip() for name in (groups or "").split(",") if name.strip()]
    try:
        labelled = read(records, mapping_file, truth=truth, dataset=dataset, groups=columns)
    except (mapping.BadMapping, extract.BadExtract, KeyError) as problem:
        typer.echo(str(problem), err=True)
        raise typer.Exit(2) from None
    sets = [labelled.without_identifiers()] if without_identifiers else [labelled]
    if not without_identifiers and labelled.has_identifiers:
        sets.append(labelled.without_identifiers())
    measured: list[Measured] = []
    for one in sets:
        bare = labelled.has_identifiers and not one.has_identifiers
        peer_model = measured[0].peer_model if measured else None
        measured.append(measure(one, full, clear_text=clear_text, peer_model=peer_model))
        heading = f"profile {profile}{', WITHOUT IDENTIFIERS' if bare else ''}"
        typer.echo(
            "\n".join(
                [
                    *([""] if len(measured) > 1 else []),
                    *text.lines(measured[-1].body, heading, groups=groups is not None),
                ]
            )
        )
    body = measured[0].body
    if len(measured) > 1:
        body = {**body, "without_identifiers": measured[1].body}
    if out is not None:
        out.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    if html is not None:
        html.write_text(rendered(measured), encoding="utf-8")
