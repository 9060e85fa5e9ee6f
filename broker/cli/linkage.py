"""`broker linkage`: models, rates by group, and overrides."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli.shared import FINDING, AsJson, Config, answering, fail, open_broker, say

app = typer.Typer(
    help="How records were linked: models, and rates by group.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("models")
def linkage_models(
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="DIGEST", help="How this one compared when it was trained.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List every model that was trained: digest, state, what for, when, since when in service, who took it in."""
    with answering(as_json), open_broker(config) as broker:
        from broker import models

        with broker.store.reading() as reading:
            listed = models.listed(reading)
        if compare is not None:
            listed = [one for one in listed if len(compare) >= 12 and one["digest"].startswith(compare)]
            if not listed or listed[0]["comparison"] is None:
                fail("there is no such model, or it was compared with none", FINDING, as_json)
            say(as_json, listed[0], models.words(listed[0]["comparison"]))
            return
        words = "\n".join(
            f"{one['digest'][:16]}  {one['state']}  {one['why']}  trained {one['trained_at'][:16]}"
            f"  in service {(one['in_service_from'] or '-')[:16]}  {one['accepted_by'] or ''}".rstrip()
            for one in listed
        )
        say(as_json, listed, words or "No model has been trained yet.")


@app.command("rates")
def linkage_rates(config: Config = None, as_json: AsJson = False) -> None:
    """Print how often the records of each group share a person with another flow's, as of the run in service.

    Groups of under 10 records are hidden and counts rounded to 5.  A group more than 5 points below everybody else is a
    finding.  Naming custom and deprivation are not known here: `python -m linkage.evaluation` tells them on labelled
    data.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker.store.runs import LinkRunRow, PublishedRow

        with broker.store.reading() as reading:
            published = reading.one(PublishedRow)
            run = reading.one(LinkRunRow, id=published.run) if published else None
        listed = run.counts.get("rates", []) if run else []
        lines = [f"{'group':18}{'value':34}{'records':>10}{'linked':>8}{'others':>8}"]
        for row in listed:
            shown = [f"{row[name]:.0%}" if row[name] is not None else "-" for name in ("rate", "others")]
            count = f"{row['records']:,}" if row["records"] is not None else "hidden"
            finding = "  FINDING" if row["finding"] else ""
            lines.append(f"{row['group']:18}{row['value']:34}{count:>10}{shown[0]:>8}{shown[1]:>8}{finding}")
        say(as_json, listed, "\n".join(lines) if listed else "Nothing is in service yet.")


@app.command("overrides")
def list_overrides(config: Config = None, as_json: AsJson = False) -> None:
    """List what agencies have severed and reviewers have decided: kind, state, why, by whom.  Never whose records.

    There is no command that ends one: a reviewer takes back what reviewers decided, and nobody undoes a sever.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import overrides

        with broker.store.reading() as reading:
            listed = overrides.listed(reading)
        words = "\n".join(
            f"{one['override']}  {one['kind']}  {one['state']}  {one['reason']}  {one['organisation']}  {one['from']}"
            for one in listed
        )
        say(as_json, listed, words or "No override is kept.")
