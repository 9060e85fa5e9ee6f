"""`broker reports`: what information governance draws from the log, as files."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.shared import AsJson, Config, answering, new_file, officer_of, open_broker, say

app = typer.Typer(
    help="Reports of information governance: registers, refusals, breach packs, extracts of the log.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Form(StrEnum):
    """What to write."""

    csv = "csv"
    json = "json"
    fhir = "fhir"
    ocsf = "ocsf"
    cef = "cef"


@app.command("list")
def list_reports(as_json: AsJson = False) -> None:
    """List the reports: code, title, columns, what each is about.  R4, of one subject, is `broker subjects report`."""
    from broker.reports import REPORTS

    listed = [
        {"report": kind.code, "title": kind.title, "columns": list(kind.columns), "about": sorted(kind.about),
         "of_events": kind.events is not None}
        for kind in REPORTS.values()
    ]  # fmt: skip
    words = "\n".join(
        f"{kind.code:4} {kind.title}{'' if kind.events is not None else '  (csv and json alone)'}\n"
        f"     {', '.join(kind.columns)}"
        for kind in REPORTS.values()
    )
    say(as_json, listed, words)


@app.command()
def run(
    report: Annotated[str, typer.Argument(help="R1 to R3 or R5 to R10: `broker reports list`.")],
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day, in London.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day, and all of it.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write; one that is there is not replaced.")],
    reason: Annotated[
        str, typer.Option("--reason", help="lawfulness, self_monitoring, integrity or criminal_proceedings.")
    ],
    by: Annotated[str, typer.Option("--by", help="Your staff id: the log keeps it.")],
    form: Annotated[Form, typer.Option("--format", help="fhir, ocsf and cef: where it is made of events.")] = Form.csv,
    subject: Annotated[str, typer.Option("--subject", help="R7: the person's id, or record, as the log has it.")] = "",
    organisation: Annotated[
        str, typer.Option("--organisation", help="R7: whose key was compromised; R10: whose extract it is.")
    ] = "",
    discovered: Annotated[
        datetime | None,
        typer.Option(
            "--discovered",
            formats=["%Y-%m-%dT%H:%M:%S%z"],
            help="R7: when the breach was found out; the 72 hours run from then.",
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write a report to a file.  That it was written, why, by whom and the file's SHA-256 are in the log before the
    file has its name; a file whose digest the log does not have is not ours.

    Exit codes: 0 written; 1 the log knows nobody or no report of that name; 2 wrong usage; 3 the log or the database
    can't be reached, or the file can't be written: nothing was.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, reports

        with new_file(out, as_json) as file:
            made = reports.export(
                broker.store, broker.trail, officer_of(broker, by, as_json), code=report,
                period=reports.Period.of_days(first.date(), last.date()),
                about=reports.About(subject=subject, organisation=organisation, discovered=discovered),
                fmt=form.value, reason=reason, sink=file, at=clock.now(),
            )  # fmt: skip
        words = f"{out}: {made.rows} rows, SHA-256 {made.sha256}, event {made.event_id}"
        say(as_json, {**asdict(made), "file": str(out)}, words)
