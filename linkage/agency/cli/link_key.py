"""`agency link-key share | combine | next | use`: the ceremony of a partnership's linkage key, and its rotation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from linkage.agency.cli.shared import AsJson, HomeFolder, answering, home_of, say

if TYPE_CHECKING:
    from linkage.records import Profile

app = typer.Typer(
    help="""
    The linkage key in shares, so that no single person holds it.

    Once, on a machine of a partner that is offline, with the key's custodians present:

        agency link-key share --partnership northshire --epoch 2027-1 --out SHARES

    Each custodian takes one share, on paper or in a file, and the folder is destroyed.  For each agency's encoder:

        agency link-key combine SHARE SHARE --out link.key

        agency keygen --home HOME --link-key link.key ...

    To rotate it, `agency link-key next` lays the next key beside the one in use; full batches are encoded under it with
    `agency encode --epoch`, and `agency link-key use` follows once the broker has put the new epoch in service.

    Never on the broker's machines: with the key, its operator could guess at names.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def share(
    partnership: Annotated[str, typer.Option(help="The partnership's id, such as northshire.")],
    epoch: Annotated[str, typer.Option(help="The key epoch, such as 2027-1.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for the shares; none there is overwritten.")],
    shares: Annotated[int, typer.Option(help="How many custodians there are.")] = 3,
    due: Annotated[int, typer.Option(help="How many of them must come together.")] = 2,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Share out this linkage key (hex, mode 0600).  Without it: a fresh one."),
    ] = None,
    profile: Annotated[str, typer.Option(help="guarded-3, or accurate-2 by written exception.")] = "guarded-3",
    as_json: AsJson = False,
) -> None:
    """Make a linkage key in shares: any --due of the --shares make it, and fewer tell nothing.

    A fresh key is written nowhere but in its shares (SLIP-0039, 33 words each), which are tried before this ends.
    """
    with answering(as_json):
        from linkage.agency.keys import read_hex_key
        from linkage.agency.shares import Ceremony, make

        ceremony = Ceremony(
            partnership=partnership, epoch=epoch, profile=cast("Profile", profile), shares=shares, due=due
        )
        fingerprint = make(ceremony, out, key=None if key is None else read_hex_key(key))
        say(
            as_json, {"shares": shares, "due": due, "folder": str(out), "fingerprint": fingerprint},
            f"{shares} shares are in {out}; any {due} make the key.  Its fingerprint is {fingerprint}.\n"
            "Give each custodian one, then destroy the folder.",
        )  # fmt: skip


@app.command()
def combine(
    shares: Annotated[list[Path], typer.Argument(help="The share files that are due (mode 0600).")],
    out: Annotated[Path, typer.Option("--out", help="The key's file, hex, mode 0600; none there is overwritten.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="What the key's fingerprint must be; else what the shares state.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the linkage key again from its shares, for `agency keygen --link-key`.  Destroy the file afterwards.

    Words may be in any number of lines, in capitals or not; a share that was typed wrongly is named by its place.
    """
    with answering(as_json):
        from linkage.agency.shares import combine as combined

        found = combined(shares, out, fingerprint=fingerprint)
        say(as_json, {"key": str(out), "fingerprint": found}, f"{out} holds the key; its fingerprint is {found}.")


@app.command("next")
def next_key(
    home: HomeFolder,
    epoch: Annotated[str, typer.Option(help="The next epoch's name, such as 2027-1.")],
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", help="The next linkage key (hex, mode 0600), as partners have it.  Without it: a fresh one."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lay the next linkage key beside the one in use, as keys/link-EPOCH.key; nights and searches stay as they are.

    One agency makes it, or its custodians do (`share`, `combine`), and hands it to the others.  epoch-EPOCH.json holds
    what the broker is told of it (`broker epochs open`): fingerprint and canary tokens, by which a wrong key is known,
    and no secret.

    Exit codes: 0 it is there; 2 the home or the key is wrong, or another key lies there.
    """
    with answering(as_json):
        from linkage.agency import rekeying

        told, path = rekeying.lay_beside(home_of(home), epoch, key=key)
        say(
            as_json, {**told, "file": str(path)},
            f"The key of {epoch} lies beside the one in use; its fingerprint is {told['key_fingerprint']}.\n"
            f"Give the broker {path}, and the others the key: each must have the same fingerprint.",
        )  # fmt: skip


@app.command()
def use(
    epoch: Annotated[str, typer.Argument(help="The epoch that the broker has in service.")],
    home: HomeFolder,
    as_json: AsJson = False,
) -> None:
    """Encode under this epoch's key from now on: after the broker's flip, or back again if it was stopped.

    The first batch of each flow is then a full one.  The key of the epoch before stays in keys/ until you destroy it,
    which is due once the broker has dropped that epoch.

    Exit codes: 0 it is in use; 2 its key is not here, or the home is wrong.
    """
    with answering(as_json):
        from linkage.agency import rekeying

        before = rekeying.use(home_of(home), epoch)
        words = f"{epoch} is in use."
        if before != epoch:
            words += f"  Destroy keys/link-{before}.key once the broker has dropped {before}."
        say(as_json, {"key_epoch": epoch, "before": before}, words)
