"""`broker epochs`: the linkage key is rotated, with the old epoch in service until the new one takes its place."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.nights import Exceeding
from broker.cli.shared import (
    FINDING,
    AsJson,
    Config,
    answering,
    json_of,
    open_broker,
    operator_of,
    say,
    staff_id,
)

if TYPE_CHECKING:
    from broker.wiring import Broker

app = typer.Typer(
    help="""
    The linkage key's epochs: a new one is prepared beside the one in service, and takes its place in one step.

        broker epochs open epoch-2027-1.json --by YOU      the file that `agency link-key next` made

    Each agency: agency link-key next, agency encode --epoch 2027-1, agency submit.  The nights go on as ever.

        broker epochs link 2027-1 --by YOU                 what it would change, and what stands against it

        broker epochs flip 2027-1 --by YOU                 proposed; another person adds --confirm

    Each agency: agency link-key use 2027-1.  From now on nothing is taken under the old epoch.

        broker epochs stop 2027-1 --by YOU                 back at once, while the old epoch is held

        broker epochs drop 2026-1 --by YOU                 after that: its encodings are destroyed
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="EPOCH", help="The epoch's name, such as 2027-1.")]
By = Annotated[str, typer.Option("--by", help="Your staff id: the log keeps it.")]


@app.command("open")
def open_epoch(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `agency link-key next` made: no secret is in it.")],
    by: By,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Begin to prepare an epoch: from now on agencies may send full batches under its key, beside their nights.

    Exit codes: 0 it is being prepared; 1 another is, or the name is known; 2 the file is of no such key.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, epochs

        who, settings = _who(broker, by, as_json), broker.settings
        key = epochs.Key.parse(json_of(file), partnership=settings.partnership, profile=settings.profile)
        epochs.open_epoch(broker.store, broker.trail, key, who=who, at=clock.now())
        broker.trail.advance_pending()
        say(
            as_json, {"epoch": key.name, "fingerprint": key.fingerprint, "state": "prepared"},
            f"{key.name} is being prepared; its key's fingerprint is {key.fingerprint}.",
        )  # fmt: skip


@app.command()
def status(config: Config = None, as_json: AsJson = False) -> None:
    """List every epoch: state, fingerprint, by whom; of one that is prepared, which flows have sent its batch."""
    with answering(as_json), open_broker(config) as broker:
        from broker import epochs

        with broker.store.reading() as reading:
            listed = epochs.listed(reading)
        say(
            as_json,
            listed,
            "\n".join(map(_line, listed)) or "The linkage key has not been rotated: one epoch is known.",
        )


@app.command()
def link(name: Name, by: By, exception: Exceeding = False, config: Config = None, as_json: AsJson = False) -> None:
    """Link the new epoch's batches by themselves, and set what comes of it beside what is in service.

    Nothing in service changes.  Told by flow: records, persons, linked records and reviews before and after, and how
    many pairs are kept, lost and gained; then every reason why it may not take the other's place.

    Exit codes: 0 nothing stands against a flip; 1 something does, or another run is at work.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, rotation

        done = rotation.link(broker, name, who=_who(broker, by, as_json), at=clock.now(), exception=exception)
        say(as_json, done, _report(done))
        if done["reasons"]:
            raise typer.Exit(FINDING)


@app.command()
def flip(
    name: Name,
    by: By,
    confirm: Annotated[bool, typer.Option("--confirm", help="Do what somebody else has proposed.")] = False,
    exception: Exceeding = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Put an epoch in service: proposed by one person, done by another with --confirm.

    It is linked once more, by what holds at this moment, and judged; then run, epoch and flows change in one
    transaction.  Killed before that, the old epoch is in service, and the command may be given again.  One epoch is
    held for a return: of one that was held until now nothing is kept.

    Exit codes: 0 proposed, or in service; 1 refused, and every reason, or another run is at work.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, rotation

        act = partial(rotation.confirm, exception=exception) if confirm else rotation.propose
        done = act(broker, name, who=_who(broker, by, as_json), at=clock.now())
        words = {
            "proposed": f"{name} is proposed.  Somebody else: broker epochs flip {name} --confirm --by THEM",
            "in_service": f"{name} is in service.  Each agency: agency link-key use {name}",
        }
        say(as_json, done, words[done["state"]])


@app.command()
def stop(name: Name, by: By, exception: Exceeding = False, config: Config = None, as_json: AsJson = False) -> None:
    """Stop an epoch at once: give up one that is prepared, or go back from the one in service to the one before.

    To go back, what is held of that epoch is linked anew, without whoever was erased since and as severed since; each
    flow is then as old as it was at the flip, and says so until its agency sends a full batch.

    Exit codes: 0 stopped; 1 nothing is held to go back to, or another run is at work.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, rotation

        done = rotation.stop(broker, name, who=_who(broker, by, as_json), at=clock.now(), exception=exception)
        words = f"{name} is stopped."
        if back := done.get("back_to"):
            words = f"{name} is stopped; {back} is in service.  Each agency: agency link-key use {back}"
        say(as_json, done, words)


@app.command()
def drop(name: Name, by: By, config: Config = None, as_json: AsJson = False) -> None:
    """Destroy what is kept of an epoch that is stopped, or that was held for its time (epoch_hold_days).

    Exit codes: 0 destroyed; 1 it is in service, prepared, or still held.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, rotation

        done = rotation.drop(broker, name, who=_who(broker, by, as_json), at=clock.now())
        say(as_json, done, f"What was kept of {name} is destroyed; the agencies destroy its key.")


def _who(broker: Broker, by: str, as_json: bool) -> dict[str, str]:
    return operator_of(broker, staff_id(by, as_json))


def _line(one: dict[str, Any]) -> str:
    line = f"{one['epoch']}  {one['state']}  {one['fingerprint']}  opened {one['opened_at'][:16]} by {one['opened_by']}"
    if one["in_service_from"]:
        line += f"  in service {one['in_service_from'][:16]}"
    if one["held_until"]:
        line += f"  held until {one['held_until'][:10]}"
    if one["state"] == "prepared" and one["proposed_by"]:
        line += f"  proposed by {one['proposed_by']}"
    lines = [line, *(f"  {flow}: {stands}" for flow, stands in one["flows"].items())]
    if one["state"] == "prepared" and one["report"]:
        lines += [f"  against a flip: {reason['words']}" for reason in one["report"]["reasons"]]
    return "\n".join(lines)


def _report(report: dict[str, Any]) -> str:
    heads = ("records", "linked", "persons", "reviews")
    lines = [f"{'':32}" + "".join(f"{head:>18}" for head in heads) + f"{'kept':>10}{'lost':>8}{'gained':>8}"]
    for name, said in [*report["flows"].items(), ("all", report["all"])]:
        cells = "".join("{:>18}".format(" > ".join(f"{count:,}" for count in said[head])) for head in heads)
        pairs = said["pairs"]
        lines.append(f"{name:32}{cells}{pairs['kept']:>10,}{pairs['lost']:>8,}{pairs['gained']:>8,}")
    against = [f"Against a flip: {reason['words']}" for reason in report["reasons"]]
    return "\n".join([*lines, *(against or ["Nothing stands against a flip."])])
