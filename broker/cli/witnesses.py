"""`broker witnesses`: who cosigns the log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.shared import FINDING, USAGE, AsJson, Config, answering, fail, open_broker, operator_of, say, staff_id

app = typer.Typer(
    help="Who cosigns the log: enrol, remove, list, read conflicts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

By = Annotated[str, typer.Option("--by", help="Your staff id; it goes into the log.")]
ORGANISATION = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


@app.command()
def enrol(
    key: Annotated[str, typer.Argument(help="Its verifier key, name+id+base64, as `auditor witness-key` printed it.")],
    organisation: Annotated[str, typer.Option("--organisation", help="Who runs it: an agency's id, or a domain name.")],
    by: By,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Enrol a witness: its lines are taken from now on, and more than half of all witnesses make a quorum.

    Compare the key with its organisation by telephone.  Then hand the new policy (`broker log policy`) to
    everybody who verifies, each by a way that the broker's host does not control.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, witnesses

        if not ORGANISATION.fullmatch(organisation):
            fail("--organisation is an agency's id or a domain name", USAGE, as_json)
        entry = witnesses.enrol(
            broker.store, broker.trail, key, organisation, who=operator_of(broker, staff_id(by, as_json)),
            at=clock.now(),
        )  # fmt: skip
        broker.trail.receipt(entry)
        name = key.partition("+")[0]
        say(as_json, {"witness": name, "event": entry.event_id}, f"{name} is enrolled.  Hand over the new policy.")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The witness's name.")],
    by: By,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Remove a witness: its lines are served no more, and don't count.  What it signed is kept."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, witnesses

        entry = witnesses.remove(
            broker.store, broker.trail, name, who=operator_of(broker, staff_id(by, as_json)), at=clock.now()
        )
        broker.trail.receipt(entry)
        say(as_json, {"witness": name, "event": entry.event_id}, f"{name} is removed.  Hand over the new policy.")


@app.command("list")
def list_witnesses(config: Config = None, as_json: AsJson = False) -> None:
    """List the witnesses, how far each is, and the quorum: green, amber after 15 minutes, red after 4 hours."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, witnesses

        with broker.store.reading() as reading:
            stand = witnesses.standing(reading, broker.trail.origin, at=clock.now())
        lines = [
            f"{one.state:6}{one.name}  {one.organisation}  {one.size} of {stand.size} entries"
            + (f", {one.behind_s} s behind" if one.behind_s else "")
            for one in stand.witnesses
        ]
        quorum = f"{stand.state:6}quorum: {stand.quorum} of {len(stand.witnesses)}, {stand.witnessed} entries witnessed"
        words = "\n".join([*lines, quorum]) if lines else "Nobody witnesses this log."
        if stand.conflicts:
            words += f"\n{stand.conflicts} conflicts: see `broker witnesses conflicts`."
        say(as_json, stand.to_json(), words)


@app.command()
def conflicts(
    out: Annotated[Path | None, typer.Option("--out", help="A folder to write the notes of each conflict to.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the notes that the log's key has signed and that can't be true beside ours.

    Exit codes: 0 there is none; 1 there is, and a person must find out how the key came to sign it.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker.store.witnesses import ConflictRow

        with broker.store.reading() as reading:
            rows = reading.all(ConflictRow, order=("seen_at",))
        for row in rows if out is not None else ():
            place = Path(out or "") / row.id[:16]
            place.mkdir(parents=True, exist_ok=True)
            (place / "checkpoint").write_bytes(row.presented)
            (place / "checkpoint.kept").write_bytes(row.ours)
        told = [
            {"id": row.id, "log": row.log_id, "size": row.size, "kind": row.kind, "seen_at": row.seen_at.isoformat(),
             "event": row.event_id}
            for row in rows
        ]  # fmt: skip
        words = "\n".join(f"{row.seen_at:%Y-%m-%d %H:%M}  {row.kind}  {row.size}  {row.id[:16]}" for row in rows)
        say(as_json, told, words or "There is none.")
        if rows:
            raise typer.Exit(FINDING)
