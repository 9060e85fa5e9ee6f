"""`agency log fetch | post | feed | gossip`: the public log, and the checkpoints that witnesses cosign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from linkage.agency.cli.shared import UNKNOWN, AsJson, HomeFolder, answering, broker_of, home_of, progress_bar, say

app = typer.Typer(
    help="""
    The broker's public log: copy it, and be its witness.

    A witness, every minute or so:

        agency log fetch --home HOME --out LOG

        auditor consistency --log LOG --policy POLICY --state STATE --cosign witness.key

        agency log post --home HOME --log LOG
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)

LogFolder = Annotated[Path, typer.Option("--log", help="The folder that `agency log fetch` filled.")]


@app.command()
def fetch(
    home: HomeFolder,
    out: Annotated[Path, typer.Option("--out", help="The folder to bring up to date.")],
    shard: Annotated[
        str | None, typer.Option("--shard", help="Which of the log's years; default: the one it grows in.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the broker's public log to a folder.  Then `auditor` checks it there, without a network.

    Only what is new is fetched; a copy that broke off goes on where it was.  The log says that things happened and
    when; never what, or about whom.  Use a folder for each year.

    Exit codes: 0 the folder is up to date; 1 the broker's checkpoint can't be read; 2 the home is wrong; 3 the broker
    can't be reached.
    """
    with answering(as_json), progress_bar(as_json) as progress:
        from linkage.agency.log import copy_log

        asked = broker_of(home_of(home))
        year = shard or asked.newest_shard()
        size, fetched = copy_log(
            lambda path: asked.log_file(year, path), out, ask=lambda path: asked.log_file_if_any(year, path),
            progress=progress,
        )  # fmt: skip
        told = {"size": size, "fetched": fetched, "out": str(out)}
        say(as_json, told, f"{out}: {size} entries, {fetched} files fetched.")


@app.command()
def post(home: HomeFolder, log: LogFolder, as_json: AsJson = False) -> None:
    """Hand in to the broker the lines in LOG/cosigned: your own, and those that `feed` has brought.

    Exit codes: 0 they were taken; 1 refused: nothing is cosigned yet, no line is an enrolled witness's, or the broker
    holds another tree than the one you cosigned (keep your folder: it is evidence); 2 the home is wrong; 3 the broker
    can't be reached.
    """
    with answering(as_json):
        from linkage.agency.log_carrying import cosigned

        taken = broker_of(home_of(home)).hand_in(cosigned(log))
        names = ", ".join(map(str, taken["witnesses"]))
        quorum = "a quorum has cosigned it" if taken["witnessed"] else "no quorum has cosigned it yet"
        say(as_json, taken, f"{names}: taken, over {taken['size']} entries; {quorum}.")


@app.command()
def feed(
    witness: Annotated[str, typer.Argument(help="The witness's address: https://host/path, without add-checkpoint.")],
    home: HomeFolder,
    log: LogFolder,
    as_json: AsJson = False,
) -> None:
    """Have a witness outside the partnership (C2SP tlog-witness) cosign the folder's checkpoint, and keep its line.

    What it sees is hashes, a size and a time.  Its line goes to LOG/cosigned; `agency log post` hands it in.

    Exit codes: 0 cosigned; 1 not: the witness knows another tree of this log (what was sent and said is kept: it is
    evidence), or does not know the log; 2 the home or the address is wrong; 3 somebody can't be reached.
    """
    with answering(as_json):
        from linkage.agency import log_carrying

        known = home_of(home)
        asked, year = broker_of(known), log_carrying.shard_of(log)
        outside = log_carrying.Outside(seconds=known.settings.timeouts.seconds)
        size, lines = log_carrying.feed(log, witness, outside.post, lambda old, new: asked.growth(year, old, new))
        say(as_json, {"size": size, "lines": lines}, f"{size} entries cosigned, {lines} lines; now `agency log post`.")


@app.command()
def gossip(
    witnesses: Annotated[list[str], typer.Argument(help="Witnesses' addresses: https://host/path.")],
    home: HomeFolder,
    log: LogFolder,
    as_json: AsJson = False,
) -> None:
    """Bring what other witnesses have seen of this log to LOG/heard; then `auditor gossip --heard LOG/heard` compares.

    Each is asked for PATH/<sha256 of the log's origin>/checkpoint: what stands in the FILE.seen folder of its key.

    Exit codes: 0 all were asked; 1 one showed what is no checkpoint; 2 the home or an address is wrong; 3 one can't be
    reached.
    """
    with answering(as_json):
        from linkage.agency import log_carrying
        from linkage.agency.client import Unreachable

        outside = log_carrying.Outside(seconds=home_of(home).settings.timeouts.seconds)
        found, failed = {}, []
        for witness in witnesses:
            try:
                place = log_carrying.gossip(log, witness, outside.get)
                found[witness] = None if place is None else str(place)
            except Unreachable as failure:
                failed.append(str(failure))
        lines = [f"{witness}: {place or 'has seen nothing of this log'}" for witness, place in found.items()]
        say(as_json, {"heard": found, "unreachable": failed}, "\n".join(lines + failed))
        if failed:
            raise typer.Exit(UNKNOWN)
