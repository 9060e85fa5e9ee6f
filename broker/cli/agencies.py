"""`broker agencies`: enrol, shut out, let in, pause a flow, list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from broker.cli.shared import USAGE, AsJson, Config, answering, fail, json_of, open_broker, operator_of, say, toml_of

app = typer.Typer(help="Who takes part.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def enrol(
    public: Annotated[Path, typer.Argument(help="The agency's public.json.")],
    details: Annotated[
        Path, typer.Option("--details", help="TOML: name, party_type, sector, roles, [contacts.<ref>], [flows.<flow>].")
    ],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Enrol an agency, or change what is registered of it.

    `details` is the host's: name, party_type, sector, roles its gateway may vouch for; [contacts.<ref>] name, phone,
    out_of_hours; [flows.<flow>] expected_by ("06:00", London) and contact.
    """
    with answering(as_json):
        from broker import agencies, clock

        enrolment = agencies.Enrolment.parse(json_of(public), toml_of(details))
        with open_broker(config) as broker:
            entry = agencies.enrol(
                broker.store, broker.trail, enrolment, partnership=broker.settings.partnership, who=operator_of(broker),
                at=clock.now(),
            )  # fmt: skip
            broker.trail.receipt(entry)
        say(as_json, {"agency": enrolment.agency, "event": entry.event_id}, f"{enrolment.agency} is enrolled.")


@app.command()
def revoke(
    agency: Annotated[str, typer.Argument(help="The agency's id.")],
    suspend_only: Annotated[bool, typer.Option("--suspend", help="Until `resume`, and keep its keys.")] = False,
    key: Annotated[str | None, typer.Option("--key", help="Of its keys this one alone, as `list` names it.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Shut an agency out, in force with its next request: for good, with all its keys, or until resumed.

    With `--key` the agency stays, and one of its keys counts no more, whatever it was used for; what it signed before
    stays good.  It is not taken again: enrol the agency's new public.json.
    """
    if key is not None:
        if suspend_only:
            fail("a key is not suspended: --key revokes it, --suspend is of the agency", USAGE, as_json)
        _revoke_key(config, agency, key, as_json)
        return
    _set_state(config, agency, "suspended" if suspend_only else "revoked", as_json)


@app.command()
def pause(
    agency: Annotated[str, typer.Argument(help="The agency's id.")],
    flow: Annotated[str, typer.Argument(help="One of its flows, as `list` names them.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Stop showing what one flow of an agency sent, from the next decision on; views say that it is paused.

    Its nightly batches come in as ever, so that it is up to date once it is resumed.  For a feed that has gone wrong:
    a party stops its disclosures under an agreement with `broker agreements suspend`.
    """
    _pause(config, agency, flow, True, as_json)


@app.command()
def resume(
    agency: Annotated[str, typer.Argument(help="The agency's id.")],
    flow: Annotated[str | None, typer.Argument(help="A paused flow; without it, the suspended agency.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a suspended agency in again, or show what a paused flow sent again."""
    if flow is not None:
        _pause(config, agency, flow, False, as_json)
    else:
        _set_state(config, agency, "active", as_json)


@app.command("list")
def list_agencies(config: Config = None, as_json: AsJson = False) -> None:
    """List agencies, their state, and how recent each of their feeds is."""
    with answering(as_json), open_broker(config) as broker:
        from broker import agencies, clock
        from broker.store.agencies import AgencyKeyRow, AgencyRow

        with broker.store.reading() as reading:
            rows = reading.all(AgencyRow, order=("id",))
            keys = reading.all(AgencyKeyRow, revoked_at=None, order=("kid",))
            feeds = agencies.feeds(reading, at=clock.now())
        flows = {row.id: {feed.flow: feed.state for feed in feeds if feed.organisation == row.id} for row in rows}
        listed = [{"agency": row.id, "name": row.name, "state": row.state, "flows": flows[row.id],
                   "keys": sorted({key.kid for key in keys if key.agency == row.id})} for row in rows]  # fmt: skip
        words = "\n".join(
            f"{row.id}  {row.state}  {', '.join(f'{flow} {state}' for flow, state in flows[row.id].items())}"
            + "".join(f"\n  key {kid}" for kid in sorted({key.kid for key in keys if key.agency == row.id}))
            for row in rows
        )
        say(as_json, listed, words or "No agency is enrolled.")


def _revoke_key(config: Path | None, agency: str, kid: str, as_json: bool) -> None:
    with answering(as_json), open_broker(config) as broker:
        from broker import agencies, clock

        entry = agencies.revoke_key(
            broker.store, broker.trail, kid, agency=agency, who=operator_of(broker), at=clock.now()
        )
        broker.trail.receipt(entry)
        say(as_json, {"agency": agency, "key": kid, "event": entry.event_id}, f"{kid} counts no more.")


def _pause(config: Path | None, agency: str, flow: str, paused: bool, as_json: bool) -> None:
    with answering(as_json), open_broker(config) as broker:
        from broker import agencies, clock

        entry = agencies.pause_flow(
            broker.store, broker.trail, agency, flow, paused=paused, who=operator_of(broker), at=clock.now()
        )
        broker.trail.receipt(entry)
        told = {"agency": agency, "flow": flow, "paused": paused, "event": entry.event_id}
        say(as_json, told, f"{agency} {flow} is {'paused' if paused else 'shown again'}.")


def _set_state(config: Path | None, agency: str, state: Any, as_json: bool) -> None:
    with answering(as_json), open_broker(config) as broker:
        from broker import agencies, clock

        entry = agencies.set_state(broker.store, broker.trail, agency, state, who=operator_of(broker), at=clock.now())
        broker.trail.receipt(entry)
        say(as_json, {"agency": agency, "state": state, "event": entry.event_id}, f"{agency} is {state}.")
