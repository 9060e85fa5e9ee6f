"""The `agency` command: what a partner's data team types, on the partner's own network.

A night in two lines:

    agency encode mapping.toml --home HOME --out BATCH --delta
    agency submit BATCH --home HOME

Exit codes are the same everywhere: 0 fine; 1 a finding (bad rows over the limit, refused, rejected); 2 wrong usage,
mapping, settings or keys; 3 could not tell (the broker or a file can't be reached, which proves nothing).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkage.agency.cli import ledger, link_key, log, sandbox
from linkage.agency.cli.shared import FINDING, AsJson, HomeFolder, answering, broker_of, home_of, progress_bar, say

if TYPE_CHECKING:
    from linkage.agency.client import Broker, Submission

app = typer.Typer(
    name="agency",
    help=__doc__,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    pretty_exceptions_enable=False,
)
app.add_typer(log.app, name="log")
app.add_typer(link_key.app, name="link-key")
app.command(name="ledger")(ledger.ledger)
app.command(name="sandbox")(sandbox.sandbox)


@app.command()
def keygen(
    home: HomeFolder,
    agency: Annotated[str, typer.Option(help="The agency's id, such as northshire-council.")],
    partnership: Annotated[str, typer.Option(help="The partnership's id, such as northshire.")],
    epoch: Annotated[str, typer.Option(help="The key epoch, such as 2026-1.")],
    link_key: Annotated[
        Path | None,
        typer.Option("--link-key", help="The partnership's linkage key (hex, mode 0600). Without it: fresh."),
    ] = None,
    profile: Annotated[str, typer.Option(help="guarded-3, or accurate-2 by written exception.")] = "guarded-3",
    broker: Annotated[str, typer.Option(help="The broker's address.")] = "http://127.0.0.1:8400",
    as_json: AsJson = False,
) -> None:
    """Make an agency's home: its keys (mode 0600), agency.toml, and public.json, by which a broker enrols it.

    The linkage key must be the same in every agency of the partnership and never reach the broker: the first agency
    makes it, the others are handed its keys/link.key and name it with --link-key.  No key is ever overwritten.
    """
    with answering(as_json):
        from linkage.agency.keygen import make_home
        from linkage.agency.settings import BadHome
        from linkage.records import PROFILES

        if profile not in PROFILES:
            raise BadHome(f"--profile: one of {', '.join(PROFILES)} is due")
        made = make_home(
            home, agency=agency, partnership=partnership, epoch=epoch, profile=profile, link_key=link_key, broker=broker
        )
        told = {
            "home": str(home), "agency": agency, "key_epoch": epoch, "public": str(home / "public.json"),
            "key_fingerprint": made.public["key_fingerprint"],
        }  # fmt: skip
        say(
            as_json, told,
            f"{home} is ready.  Send {home / 'public.json'} to the broker's host; the linkage key's fingerprint is "
            f"{told['key_fingerprint']}, the same in every agency of {partnership}.",
        )  # fmt: skip


@app.command()
def encode(
    mapping: Annotated[Path, typer.Argument(help="mapping.toml: which file and column is what.")],
    home: HomeFolder,
    out: Annotated[Path, typer.Option("--out", help="The folder to make; an earlier batch there is replaced.")],
    max_bad: Annotated[
        float | None,
        typer.Option("--max-bad", min=0, max=1, help="Share of bad rows that is let pass, instead of the mapping's."),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full/--delta",
            help="All that is held, or what differs from what the broker accepted last (all, where that is not known).",
        ),
    ] = True,
    epoch: Annotated[
        str, typer.Option("--epoch", help="A full batch under the next linkage key, for the epoch being prepared.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Turn an extract into a pseudonymised batch: no name, address or number in clear is in it.

    Bad rows are left out and listed in <out>.rejects.csv (file, row, field, code, hint, severity; never the value); a
    date of birth that is none is left out alone, and its child sent.  If more than 1% are bad (max_bad_share in
    the mapping, or --max-bad) no batch is made.  The batch appears whole or not at all.

    The extract is always the whole of what the source holds.  With --delta the batch carries only what is new, changed
    or gone since the batch that the broker accepted last: the home keeps a keyed digest of every row for this.  A batch
    that was lost or rejected is no loss, since the next one brings the same; a full one may be sent at any time.

    With --epoch the batch is encoded under a key that `agency link-key next` laid beside the one in use, and numbered
    by itself: it is no night, and changes nothing of what the nights say next.

    Exit codes: 0 a batch was made; 1 too many bad rows, or an extract that can't be used; 2 the mapping, the home or a
    key is wrong; 3 a file could not be read.
    """
    with answering(as_json):
        from linkage.agency import batch, clock, codes
        from linkage.agency.settings import BadHome

        known = home_of(home, epoch)
        if known.shadow and not full:
            raise BadHome("--epoch: a full batch is due under a linkage key that is not in use yet, no --delta")
        with progress_bar(as_json) as progress:
            made = batch.encode_extract(
                mapping,
                known,
                out,
                codes=codes.load(),
                now=clock.now(),
                max_bad_share=max_bad,
                delta=not full,
                progress=progress,
            )
        summary = made.summary()
        rows = ", ".join(f"{count} {table}" for table, count in summary["rows"].items())
        words = [f"{out}: {summary['kind']}, {rows}; sequence {summary['sequence']} of {summary['flow']}."]
        if not full and made.change is None:
            words.append(
                "This batch says it all: what the broker has is not known here, was said under other keys, or a batch "
                "awaits its verdict (agency status)."
            )
        if summary["found"]:
            dateless = f", {summary['bad_dates']} sent without a date of birth" if summary["bad_dates"] else ""
            words.append(
                f"{summary['bad_rows']} of {summary['read_rows']} rows left out{dateless}; see {summary['rejects']}:"
            )
            words += [f"  {count:>7}  {what}" for what, count in summary["found"].items()]
        if any("never_ingest" in what for what in summary["found"]):
            words.append("Codes that must never be sent were in the extract: tell your data steward.")
        say(as_json, summary, "\n".join(words))


@app.command()
def submit(
    batch: Annotated[Path, typer.Argument(help="A folder that `agency encode` made.")],
    home: HomeFolder,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the verdict; 0: only the receipt.")
    ] = 60,
    as_json: AsJson = False,
) -> None:
    """Send a batch to the broker, and keep its receipts in the home.

    Run again, it goes on where it broke off, and does nothing twice.

    Exit codes: 0 the batch was accepted, or arrived and has no verdict yet; 1 refused, rejected or quarantined; 2 the
    folder or the home is wrong; 3 the broker could not be reached: try again.
    """
    with answering(as_json):
        from linkage.agency import client

        known = home_of(home)
        broker = broker_of(known)
        with progress_bar(as_json) as progress:
            sent = client.submit(batch, known, broker, progress=progress)
        if broker.sunset:
            typer.echo(
                f"From {broker.sunset} on the broker takes batches of this form no more: update agency.", err=True
            )
        if sent.state not in client.DECIDED and wait:
            sent = client.wait(known, broker, sent.batch, seconds=wait)
        _tell(as_json, sent, broker)


@app.command()
def status(
    home: HomeFolder,
    batch: Annotated[
        str | None, typer.Argument(help="A batch's id; without it, every batch without a verdict.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask how batches stand, and keep their verdicts.

    Exit codes: 0 nothing is wrong; 1 a batch was rejected or quarantined; 2 no such batch; 3 the broker can't say.
    """
    with answering(as_json):
        from linkage.agency import client

        known = home_of(home)
        broker = broker_of(known)
        if batch is not None:
            _tell(as_json, client.settle(known, broker, batch), broker)
            return
        open_ones = [name for name, kept in client.receipts(known).items() if "verdict" not in kept]
        settled = [client.settle(known, broker, name) for name in open_ones]
        lines = [f"{one.flow} {one.sequence}: {one.state} ({one.batch})" for one in settled]
        say(as_json, [one.summary() for one in settled], "\n".join(lines) or "Every batch has its verdict.")
        if any(one.state in ("rejected", "quarantined") for one in settled):
            raise typer.Exit(FINDING)


@app.command()
def heartbeat(
    home: HomeFolder,
    flow: Annotated[list[str] | None, typer.Argument(help="Flows; without any, those that were ever sent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell the broker that this client is alive, be there anything to send or not: once a day, by a timer.

    A night that does not come then shows as the extract's fault and not the connection's. It makes no feed fresher.

    Exit codes: 0 told; 1 refused; 2 the home is wrong, or no flow was ever sent; 3 the broker could not be reached.
    """
    with answering(as_json):
        from linkage.agency.settings import BadHome

        known = home_of(home)
        flows = flow or known.flows()
        if not flows:
            raise BadHome("no flow was sent from this home yet: name the flows")
        broker = broker_of(known)
        for name in flows:
            broker.heartbeat(name)
        say(as_json, {"flows": list(flows)}, f"The broker has heard of {', '.join(flows)}.")


@app.command()
def crosswalk(
    reference: Annotated[
        str | None, typer.Argument(help="A record_ref, or with --case a case number; without it: counts.")
    ] = None,
    home: HomeFolder = Path(),
    case: Annotated[bool, typer.Option("--case", help="REFERENCE is a case number: show its record_refs.")] = False,
    identifiers: Annotated[
        bool, typer.Option("--identifiers", help="Show what is held of its identifiers too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """From the broker's name for a record to the agency's own number, or back.  What it prints is personal data.

    Exit codes: 0 found; 1 not one of this agency's; 2 the home is wrong.
    """
    with answering(as_json):
        from linkage.agency import crosswalk as known

        with known.opened(home_of(home).crosswalk_path) as held:
            if reference is None:
                counts = dict(held.counts())
                say(as_json, counts, "\n".join(f"{count:>9}  {flow}" for flow, count in counts.items()) or "empty")
                return
            if case:
                found = held.records(reference)
            else:
                record = held.local_id(reference)
                found = [] if record is None else [{"flow": record[0], "local_id": record[1], "record_ref": reference}]
            if identifiers:
                for one in found:
                    one["identifiers"] = held.identifiers(one["record_ref"])
            say(as_json, found, "\n".join(_line(one) for one in found) or "not one of this agency's")
            if not found:
                raise typer.Exit(FINDING)


def main() -> None:
    """The console script.  A crash leaves no core file, with keys and names in it, where a system has such.

    The gateway's pages bring their own framework: loaded only when asked for.
    """
    with suppress(ImportError):
        resource = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.argv[1:2] in (["gateway"], ["--help"], []) and importlib.util.find_spec("linkage.agency.gateway.cli"):
        importlib.import_module("linkage.agency.gateway.cli").register(app)
    app()


def _line(found: dict[str, Any]) -> str:
    lines = ["  ".join(str(value) for name, value in found.items() if name != "identifiers")]
    for held in found.get("identifiers", ()):
        lines.append("    " + "  ".join(f"{name}={value}" for name, value in held.items() if value is not None))
    return "\n".join(lines)


def _tell(as_json: bool, sent: Submission, broker: Broker) -> None:
    """Say how a batch stands; exits 1 if it is not going to be used as it is."""
    summary = sent.summary()
    of_epoch = f" of {sent.shadow}" if sent.shadow else ""
    words = f"{sent.flow} {sent.sequence}{of_epoch}: {sent.state}; receipt {sent.receipt}"
    if sent.state == "rejected":
        summary["rejections"] = broker.rejections(sent.flow, sent.batch)
        words += "".join(f"\n  {json.dumps(line)}" for line in summary["rejections"][:20])
    say(as_json, summary, words)
    if sent.state in ("rejected", "quarantined"):
        raise typer.Exit(FINDING)
