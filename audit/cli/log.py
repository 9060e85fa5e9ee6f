"""`auditor inclusion | consistency | fsck`: what a copy of the log proves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from audit import verify
from audit.checkpoint import NoteInvalid, Signature, SignedCheckpoint
from audit.cli import shared
from audit.cli.shared import (
    EVIDENCE,
    EvidenceOption,
    JsonOption,
    LogOption,
    PolicyOption,
    answering,
    json_of,
    policy_of,
    text_of,
    witness_of,
)
from audit.folder import Broken, LogFolder, Unreadable, logs_in
from audit.policy import Policy
from audit.receipts import LogReceipt, ReceiptInvalid
from audit.signer import replace_file
from audit.verify import Seen
from audit.witness import Witness

_UNITS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86400}
COSIGNED: Final = "cosigned"
"""The file of the folder in which lines are handed in."""


def inclusion(
    policy: PolicyOption,
    event: Annotated[Path, typer.Option("--event", help="The receipt, or the event as opened to you (JSON).")],
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            help="The folder that mirrors the public log, or one with a folder for each year's; without it, the "
            "receipt stands alone.",
        ),
    ] = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="The .tlog-proof file, if the receipt does not carry its own.")
    ] = None,
    evidence: EvidenceOption = EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Prove that an event, as opened to you, is in the log under a checkpoint that meets the policy.

    With --log, also that the log in the folder is the one your receipt was given for: it begins with your receipt's
    tree and holds your entry. A broker that shows one log to you and another to the rest fails here.

    An entry that the log lost, as the log says that followed it (log.discontinuity, in its folder), is a finding: the
    receipt still proves it, so keep it. Of a log whose key was compromised, so that the policy names it no more, the
    log that followed vouches for what came before: give a folder that holds both. Later entries prove nothing (3).

    Exit codes: 0 it is in the log; 1 it is not, or not as opened, or was lost, or the log is another; 3 a file could
    not be read, which proves nothing; 4 the folder is older than the receipt; 5 too few witnesses have signed.
    """
    with answering("inclusion", evidence, as_json) as done:
        receipt = _receipt(event, proof)
        own, others = (None, ()) if log is None else _of_receipt(log, receipt)
        seen = verify.inclusion(receipt, policy_of(policy), own, others)
        done(seen, f"Event {receipt.event_id} is entry {receipt.proof.index} of {_log(seen)}.")


def consistency(
    log: LogOption,
    policy: PolicyOption,
    state: Annotated[Path, typer.Option("--state", help="What you kept last time; replaced when all is well.")],
    max_age: Annotated[
        str | None, typer.Option("--max-age", help="How old the last sign of life may be: 90s, 15m, 1h, 2d.")
    ] = None,
    cosign: Annotated[
        Path | None,
        typer.Option("--cosign", help="Then cosign, with this key of `auditor witness-key`."),
    ] = None,
    evidence: EvidenceOption = EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Prove that the log has only grown since the state you kept.

    The first time, when there is no state file, the log's checkpoint is checked and kept. The state file is the
    checkpoint itself, as the log signed it. A log's age is that of its newest witness signature or last entry, so a log
    that nobody writes to looks old.

    A quorum is demanded of the newest checkpoint, or of the folder's checkpoint.witnessed, with which it begins.

    With --cosign: you are a witness, and sign before the others have, so no quorum is demanded. The checkpoint that the
    log puts before its witnesses (the folder's checkpoint.witness) is held against what this key cosigned last, and
    that is replaced (KEYFILE.seen) before the line is given out. The line is printed, and stands with the checkpoint in
    LOG/cosigned, for `agency log post` to hand in. What is proved is that the tree has only grown: tiles are held
    against the root, entry bundles are not read but for the last entry. For those there is `auditor fsck`.

    Exit codes: 0 it has only grown; 1 history was rewritten (keep all files, they are the evidence); 2 wrong usage, or
    no witness's key; 3 a file could not be read, which proves nothing; 4 the log is stale; 5 too few witnesses have
    signed.
    """
    with answering("consistency", evidence, as_json) as done:
        age = _seconds(max_age)
        trusted, folder = policy_of(policy), LogFolder(log)
        witness = None if cosign is None else witness_of(cosign, trusted, "--cosign")
        kept = text_of(state) if state.exists() else None
        now = shared.now_s()
        seen = verify.consistency(folder, trusted, kept, now_s=now, max_age_s=age, quorum=witness is None)
        signed = None if witness is None else _cosigned(witness, folder, trusted, now)
        try:
            replace_file(state, seen.note.encode())
        except OSError:
            raise Unreadable("all is well, but the state file can't be written") from None
        first = "This is the first state kept of" if kept is None else f"Grown from {seen.facts['grown_from']}:"
        sentence = f"{first} {_log(seen)}."
        if signed is not None:
            line = _give_out(log, signed)
            seen = Seen(seen.note, {**seen.facts, "cosignature": {"size": signed.checkpoint.size, "line": line}})
            sentence += f"\nCosigned at {signed.checkpoint.size} entries:\n{line}"
        done(seen, sentence)


def fsck(
    log: LogOption,
    policy: PolicyOption,
    state: Annotated[Path | None, typer.Option("--state", help="What you kept last time; left as it is.")] = None,
    evidence: EvidenceOption = EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Hash every entry, tile and checkpoint anew from the entries up, and name each file that is not as it should be.

    So too the files beside the checkpoint (checkpoint.witnessed, checkpoint.witness, history), and partial tiles and
    bundles of earlier sizes. Passed over, and counted, are tiles beyond the checkpoint, which a copy that broke off
    leaves; `cosigned` and `heard` are no part of the log (for what others were shown there is `auditor gossip`).

    With --state, also that the log begins with what you kept.

    Exit codes: 0 the whole log is as it was signed; 1 it is not (keep all files, they are the evidence); 3 a file
    could not be read, which proves nothing; 5 too few witnesses have signed.
    """
    with answering("fsck", evidence, as_json) as done:
        kept = None if state is None else text_of(state)
        seen = verify.fsck(LogFolder(log), policy_of(policy), kept)
        beyond = seen.facts["beyond"]
        passed = f" Passed over: {beyond} beyond its checkpoint." if beyond else ""
        done(seen, f"{seen.facts['files']} files hold {_log(seen)}.{passed}")


def _of_receipt(folder: Path, receipt: LogReceipt) -> tuple[LogFolder, tuple[LogFolder, ...]]:
    """The log of a folder that a receipt is of, and the others there; the first, if it is of none."""
    logs = logs_in(folder)
    origin = receipt.proof.signed.checkpoint.origin + "\n"
    own = next((log for log in logs if log.note().startswith(origin)), logs[0])
    return own, tuple(log for log in logs if log is not own)


def _cosigned(witness: Witness, folder: LogFolder, policy: Policy, now_s: int) -> SignedCheckpoint:
    """The checkpoint with the witness's line, which the key remembers; nobody has been given it yet."""
    try:
        return verify.cosign(folder, policy, witness, at_s=now_s)
    except OSError:
        raise Unreadable("what the key has cosigned can't be written down, so it cosigns nothing") from None


def _give_out(log: Path, signed: SignedCheckpoint) -> str:
    """The witness's line; in the folder it stands with those that others have given over the same checkpoint."""
    line, place = signed.signatures[-1], log / COSIGNED
    others: tuple[Signature, ...] = ()
    with suppress(OSError, UnicodeDecodeError, NoteInvalid):
        before = SignedCheckpoint.parse(place.read_text(encoding="utf-8"))
        if before.checkpoint == signed.checkpoint:
            named = {(each.name, each.key_id) for each in signed.signatures}
            others = tuple(each for each in before.signatures if (each.name, each.key_id) not in named)
    note = SignedCheckpoint(signed.checkpoint, (*signed.signatures, *others))
    try:
        replace_file(place, note.note.encode())
    except OSError:
        raise Unreadable(f"it is cosigned, but {place} can't be written: {line.line}") from None
    return line.line


def _receipt(event: Path, proof: Path | None) -> LogReceipt:
    value = json_of(event)
    inner = value.get("receipt", value) if isinstance(value, dict) else value
    if isinstance(inner, dict) and "proof" not in inner and {"received", "verdict"} & inner.keys():
        raise typer.BadParameter("it holds a batch's receipts; `auditor receipts` checks both", param_hint="--event")
    try:
        return LogReceipt.from_json(inner, proof=None if proof is None else text_of(proof))
    except ReceiptInvalid as fault:
        raise Broken(f"the receipt is not one: {fault}") from None


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not found:
        raise typer.BadParameter("an age is a number and s, m, h or d: 90s, 15m, 1h, 2d", param_hint="--max-age")
    return int(found[1]) * _UNITS[found[2]]


def _log(seen: Seen) -> str:
    size, witnessed = seen.facts["size"], seen.facts.get("witnessed")
    of = "" if witnessed in (None, size) else f", {witnessed} of them witnessed"
    return f"{seen.facts['origin']}, {size} entries{of}"
