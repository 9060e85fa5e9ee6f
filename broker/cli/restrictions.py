"""`broker restrictions`: an agency's own rules, court orders and seals, signed by their owner alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from broker.cli import told
from broker.cli.shared import AsJson, Config, answering, bytes_of, json_of, open_broker, operator_of, say

app = typer.Typer(
    help="What agencies hold back whatever an agreement gives: rules, court orders, seals.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip


@app.command("import")
def import_restrictions(
    documents: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Restrictions, TOML.")],
    signature: Annotated[list[Path], typer.Option("--signature", help="Its owner's signature, JSON.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take in restrictions with their owner's signature: each holds back from the next decision on.

    `broker agreements check` and `sign` check and sign them.  A subject's restriction names the agency's own record
    (subject = {record_ref = ...}); nobody else has to agree.  Twice the same changes nothing.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, register

        who, at = operator_of(broker), clock.now()
        signed: dict[str, list[str]] = {}
        for path in documents:
            with told.about(path):
                ref = register.import_restriction(broker.store, broker.trail, bytes_of(path), who=who, at=at)
                signed[ref] = []
        for path in signature:
            with told.about(path):
                jws = json_of(path)
                ref = register.ref_signed(broker.store, jws)
                signed.setdefault(ref, []).extend(
                    register.add_signatures(broker.store, broker.trail, ref, jws, who=who, at=at)
                )
        broker.trail.advance_pending()
        with broker.store.reading() as reading:
            others = register.holding_as_well(reading, signed, at=clock.now())
        words = [
            f"{ref}: {'signed by ' + ', '.join(parties) if parties else 'not signed yet: it holds nothing back'}"
            for ref, parties in signed.items()
        ]
        say(as_json, signed, "\n".join([*words, *map(told.holds_as_well, others)]))


@app.command("list")
def list_restrictions(
    owner: Annotated[str | None, typer.Option("--owner", help="Only this agency's.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Those that have ended as well.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List restrictions: whose, by which authority, what they hold back of whom, in which state, and what falls due."""
    with answering(as_json), open_broker(config) as broker:
        from agreements.agreement import Restriction
        from broker import clock, register

        with broker.store.reading() as reading:
            rows = register.documents(reading, at=clock.now())
        listed: list[dict[str, Any]] = []
        words = []
        for row in rows:
            rule = row.document
            if not isinstance(rule, Restriction) or (owner and rule.owner != owner) or (row.state.ended and not every):
                continue
            whose = f"record {rule.record}" if rule.record else "every record"
            held = f"{', '.join(sorted(rule.categories))} at most {rule.at_most.word}"
            for_ = f" for {', '.join(sorted(rule.purposes))}" if rule.purposes is not None else ""
            tagged = f" tagged {rule.tag}" if rule.tag else ""
            words.append(f"{told.listed(row)}\n    {rule.owner}, {rule.authority}: {whose}{tagged}: {held}{for_}")
            listed.append(
                told.as_data(row)
                | {
                    "authority": rule.authority, "record": rule.record, "tag": rule.tag, "at_most": rule.at_most.word,
                    "categories": sorted(rule.categories), "lift": rule.lift,
                    "purposes": None if rule.purposes is None else sorted(rule.purposes),
                }
            )  # fmt: skip
        say(as_json, listed, "\n".join(words) or "No restriction is in the register.")


@app.command("withdraw")
def withdraw_restriction(
    event: Annotated[Path, typer.Argument(metavar="EVENT", help="Its owner's event, as `sign-event withdraw` wrote.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Lift a restriction by its owner's signed event, from the next decision on.  Nobody else can."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, register

        with told.about(event):
            jws = json_of(event)
            ref = register.restriction_of_event(broker.store, jws)
            done = register.add_party_event(
                broker.store, broker.trail, ref, jws, who=operator_of(broker), at=clock.now()
            )
        broker.trail.advance_pending()
        say(as_json, {"restriction": ref, "event": done.do}, f"{ref} holds nothing back any more.")
