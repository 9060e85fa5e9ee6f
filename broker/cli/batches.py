"""`broker batches`: what agencies handed in, and letting in what waits."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from broker.cli.shared import FINDING, STAFF_ID, USAGE, AsJson, Config, answering, fail, open_broker, say

app = typer.Typer(
    help="What agencies handed in, and what waits for a person.", no_args_is_help=True, rich_markup_mode=None
)


class BatchState(StrEnum):
    """The states of a batch."""

    OPEN = "open"
    SEALED = "sealed"
    VALIDATING = "validating"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    ACCEPTED = "accepted"
    LINKED = "linked"
    SUPERSEDED = "superseded"


@app.command("list")
def list_batches(
    state: Annotated[BatchState | None, typer.Option("--state", help="Only those in this state.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first: whose, how large, in which state, and the code of why."""
    with answering(as_json), open_broker(config) as broker:
        from broker.reception import declared
        from broker.store.batches import BatchRow

        where = {"state": state.value} if state else {}
        with broker.store.reading() as reading:
            rows = reading.all(BatchRow, order=("-opened_at", "id"), limit=1000, **where)
        listed: list[dict[str, Any]] = [
            {
                "batch": row.id, "agency": row.agency, "flow": row.flow, "sequence": row.sequence, "kind": row.kind,
                "state": row.state, "reason": (row.verdict or {}).get("code"), "rows": declared(row),
                "opened_at": row.opened_at.isoformat(), "key_epoch": row.key_epoch, "shadow": row.shadow or None,
            }
            for row in rows
        ]  # fmt: skip
        words = "\n".join(
            f"{one['batch']}  {one['agency']}/{one['flow']} {one['sequence']}{_of(one)} {one['kind']}  {one['state']}"
            f"  {one['reason'] or '-'}  {', '.join(f'{count} {table}' for table, count in one['rows'].items())}"
            for one in listed
        )
        say(as_json, listed, words or "There is no such batch.")


def _of(batch: dict[str, Any]) -> str:
    """Of which set a batch that is no night is."""
    return f" of {batch['shadow']}" if batch["shadow"] else ""


@app.command("due")
def due(config: Config = None, as_json: AsJson = False) -> None:
    """List the flows to ring an agency about: late, never connected, a night missed, or a batch in quarantine.

    For a timer some minutes after the last flow is due.  Exit codes: 0 there is none; 1 there are.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, submissions
        from broker.reception import Reception

        reception = Reception.of(broker.settings, broker.store, broker.keys, broker.trail)
        now = clock.now()
        found = submissions.to_chase(reception, at=now)
        listed = [
            {
                "agency": agency, "flow": one.flow, "state": one.state, "expected_by": one.expected_by,
                "as_of": one.as_of.isoformat() if one.as_of else None,
                "heard_at": one.heard_at.isoformat() if one.heard_at else None, "last_sequence": one.last_sequence,
                "missing_nights": list(one.missing_nights),
                "quarantined": [batch.batch for batch in one.batches if batch.state == "quarantined"],
            }
            for agency, one in found
        ]  # fmt: skip
        lines = []
        for agency, one in found:
            line = f"{agency}/{one.flow}  {one.state}, due by {one.expected_by}, last of {one.as_of or 'never'}"
            silent = one.heard_at is None or now - one.heard_at > submissions.SILENT
            line += f"; its client is {'silent' if silent else 'alive'}, last heard of {one.heard_at or 'never'}"
            if one.missing_nights:
                line += f"; missing: {', '.join(map(str, one.missing_nights))}"
            held = [batch.batch for batch in one.batches if batch.state == "quarantined"]
            lines.append(line + (f"; in quarantine: {', '.join(held)}" if held else ""))
        words = "\n".join(lines)
        say(as_json, listed, words or "Every flow is on time.")
        if listed:
            raise typer.Exit(FINDING)


@app.command("release")
def release_batch(
    batch: Annotated[str, typer.Argument(help="The batch's id, as `list --state quarantined` shows it.")],
    by: Annotated[str, typer.Option("--by", help="Your staff id: the log keeps who let the batch in.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let in a quarantined batch that you have looked at with its agency.

    Its rows are checked again; only its unusual size, or its clock, is no longer held against it.  The next night links
    it.  Exit codes: 0 it is accepted; 1 it is not in quarantine, or not accepted for another reason.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import validation
        from broker.reception import Reception

        if not STAFF_ID.fullmatch(by):
            fail("--by is a staff id: letters, digits and . _ @ -", USAGE, as_json)
        reception = Reception.of(broker.settings, broker.store, broker.keys, broker.trail)
        became = validation.release(reception, batch, by=by)
        broker.trail.advance_pending()
        say(as_json, {"batch": batch, "state": became}, f"{batch} is {became}.")
        if became != "accepted":
            raise typer.Exit(FINDING)
