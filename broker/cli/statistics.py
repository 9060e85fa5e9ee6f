"""`broker statistics`: declared tables, their releases, and the second person's check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.shared import FINDING, STAFF_ID, USAGE, AsJson, Config, answering, fail, open_broker, say, write_all

if TYPE_CHECKING:
    from broker.callers import Caller
    from broker.statistics import Answer, Listed
    from broker.wiring import Broker

app = typer.Typer(
    help="Planning statistics: declared tables, one release a quarter, checked by a second person.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

By = Annotated[str, typer.Option("--by", help="Your staff id: the log keeps it.")]
Release = Annotated[str, typer.Argument(help="The release's id, from `list`.")]


@app.command("tables")
def list_tables(as_json: AsJson = False) -> None:
    """List the tables that may be asked for, each with its dimensions and levels.  Nothing else is ever counted."""
    from broker import statistics

    listed = statistics.declared()
    words = "\n".join(
        f"{one['table']}  {one['title']}\n"
        + "\n".join(f"    {of['label']}: {', '.join(of['levels'])}" for of in one["dimensions"])
        for one in listed
    )
    say(as_json, listed, words)


@app.command()
def release(
    table: Annotated[str, typer.Argument(help="One of `broker statistics tables`.")],
    period: Annotated[str, typer.Option("--period", help="A quarter that is over: 2026-Q3.")],
    by: By,
    organisation: Annotated[str, typer.Option("--organisation", help="The party whose service planner you are.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the figures as CSV, once approved.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Prepare a release of one table and quarter, or print it once it is approved.

    Who asks again gets the same figures.  Figures under the threshold and those that would give them away are `c`; a
    release that differs from an earlier one by a few children is refused.

    Exit codes: 0 prepared, or approved and printed; 1 refused or withheld, and why.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, statistics

        caller = _caller(broker, by, "SERVICE_PLANNER", organisation, as_json=as_json)
        released = statistics.ask(
            broker.store, broker.trail, broker.keys, _in_service(broker), caller, table=table, period=period,
            at=clock.now(),
        )  # fmt: skip
        _print(released.answer, out, as_json)


@app.command("list")
def list_releases(config: Config = None, as_json: AsJson = False) -> None:
    """List every release: table, quarter, for whom, whether it waits for its check, is approved, rejected, withheld."""
    with answering(as_json), open_broker(config) as broker:
        from broker import statistics
        from broker.callers import Caller

        host = Caller(kind="officer", organisation=broker.settings.partnership, role="IG_OFFICER", method="command")
        listed = statistics.releases(broker.store, host)
        say(as_json, [asdict(one) for one in listed], "\n".join(map(_line, listed)) or "Nothing has been released.")


@app.command()
def show(
    release: Release,
    by: By,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the figures as CSV.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print a release with its figures, to check it: for information governance."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, statistics

        caller = _caller(broker, by, "IG_OFFICER", broker.settings.partnership, as_json=as_json)
        released = statistics.opened(broker.store, broker.trail, caller, release=release, at=clock.now())
        _print(released.answer, out, as_json)


@app.command()
def approve(release: Release, by: By, config: Config = None, as_json: AsJson = False) -> None:
    """Approve a release, as information governance: from now on its planners see it.  Not who asked for it."""
    _check(config, release, by, agree=True, reason="", as_json=as_json)


@app.command()
def reject(
    release: Release,
    by: By,
    reason: Annotated[str, typer.Option("--reason", help="figures_wrong, too_telling or not_needed.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Refuse a release, as information governance: nobody sees it, and it may be asked for anew."""
    _check(config, release, by, agree=False, reason=reason, as_json=as_json)


def _check(config: Path | None, release: str, by: str, *, agree: bool, reason: str, as_json: bool) -> None:
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, statistics

        caller = _caller(broker, by, "IG_OFFICER", broker.settings.partnership, as_json=as_json)
        released = statistics.check(
            broker.store, broker.trail, caller, release=release, agree=agree, reason=reason, at=clock.now()
        )
        say(as_json, asdict(released.answer), _line(released.answer))


def _caller(broker: Broker, by: str, role: str, organisation: str, *, as_json: bool) -> Caller:
    """Somebody at the host's console, who says who they are."""
    from broker.callers import Caller
    from broker.store.agencies import AgencyRow

    if not STAFF_ID.fullmatch(by):
        fail("--by is a staff id: letters, digits and . _ @ -", USAGE, as_json)
    with broker.store.reading() as reading:
        known = organisation == broker.settings.partnership or reading.one(AgencyRow, id=organisation) is not None
    if not known:
        fail("--organisation is one of `broker agencies list`", USAGE, as_json)
    return Caller(kind="officer", organisation=organisation, person=by, role=role, method="command")


def _in_service(broker: Broker) -> Any:
    from broker.linked import InService

    return InService(broker.store, broker.vault)


def _print(answer: Answer, out: Path | None, as_json: bool) -> None:
    from broker import statistics

    text = statistics.csv_of(answer) if answer.figures is not None else ""
    if out is not None and text:
        write_all({out: text.encode()})
    words = [_line(answer.release)] if answer.release is not None else []
    words += dict.fromkeys(f"{refusal.sentence} [{refusal.code}]" for refusal in answer.refusals)
    words += [text.replace("\r\n", "\n")] if text and out is None else []
    say(as_json, asdict(answer), "\n".join(words))
    if answer.refusals:
        raise typer.Exit(FINDING)


def _line(one: Listed) -> str:
    instead = f" as {one.published_as}" if one.published_as != one.table else ""
    why = f"  {one.reason}" if one.reason else ""
    return f"{one.release}  {one.state}  {one.table}{instead}  {one.period}  {one.organisation}{why}"
