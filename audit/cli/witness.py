"""`auditor witness-key | gossip`: cosign a log, and hold what others were shown against it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from audit import verify
from audit.checkpoint import NoteInvalid
from audit.cli.shared import (
    EVIDENCE,
    EvidenceOption,
    JsonOption,
    LogOption,
    PolicyOption,
    answering,
    policy_of,
    text_of,
    worst,
)
from audit.folder import HISTORY, LogFolder, Unreadable
from audit.verify import Seen
from audit.witness import WitnessKey


def witness_key(
    name: Annotated[str, typer.Argument(help="The witness's name: a domain name or URL without a scheme, no spaces.")],
    out: Annotated[Path, typer.Option("--out", help="The key file to make, mode 0600; none is overwritten.")],
    as_json: JsonOption = False,
) -> None:
    """Make the key of a witness, and print its verifier key, by which a broker enrols it and policies name it.

    Keep the file, and the folder FILE.seen beside it, where the key remembers what it cosigned: a key that has lost its
    memory would cosign a log that was rewritten. Tell the verifier key to others by a way that the log's host does not
    control.

    Exit codes: 0 it is made; 2 the name can't be used, or the file is there already; 3 the file can't be written.
    """
    try:
        key = WitnessKey.make(name)
    except NoteInvalid:
        raise typer.BadParameter("a name without spaces and without +", param_hint="NAME") from None
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise typer.BadParameter("this file is there already", param_hint="--out") from None
    except OSError as fault:
        typer.echo(f"auditor witness-key: {out.name} can't be written: {fault.strerror}", err=True)
        raise typer.Exit(Unreadable.code) from None
    with os.fdopen(handle, "w") as file:
        file.write(key.text)
        file.flush()
        os.fsync(file.fileno())
    told = {"command": "witness-key", "exit": 0, "name": name, "vkey": str(key.verifier)}
    typer.echo(json.dumps(told) if as_json else str(key.verifier))


def gossip(
    heard: Annotated[
        Path,
        typer.Option(
            "--heard",
            help="A checkpoint that somebody else was shown, or a folder of them: their copy of the log will do.",
        ),
    ],
    log: LogOption,
    policy: PolicyOption,
    evidence: EvidenceOption = EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Hold checkpoints that others were shown against your copy of the log: is it one log that all of you see?

    `agency log gossip` brings them from other witnesses; one sent by e-mail will do as well. (A receipt bears the
    checkpoint that its holder was shown: for those there is `auditor receipts`.)

    Exit codes: 0 all are of one log; 1 two can't both be true, though the log's key signed both: keep the files that
    are written, they are the evidence; 3 a file could not be read, or is no checkpoint of this log, which proves
    nothing; 4 somebody was shown more than your copy holds: fetch the log again, and ask if it stays so. Of several,
    the first of 1, 3 and 4 is given.
    """
    with answering("gossip", evidence, as_json) as done:
        paths = [heard]
        if heard.is_dir():  # a log's folder has its history beside its checkpoints
            paths = sorted(path for path in heard.iterdir() if path.is_file() and path.name != HISTORY)
        notes = {path.name: text_of(path) for path in paths}
        if not notes:
            raise Unreadable("there is nothing that others were shown")
        wrong = verify.gossip(notes, LogFolder(log), policy_of(policy))
        if wrong:
            raise worst(wrong)
        done(Seen("", {"heard": sorted(notes)}), f"{len(notes)} checkpoints and your copy are of one log.")
