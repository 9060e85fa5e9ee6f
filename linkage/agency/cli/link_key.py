"""`agency link-key share | combine`: the ceremony of a partnership's linkage key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from linkage.agency.cli.shared import AsJson, answering, say

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
