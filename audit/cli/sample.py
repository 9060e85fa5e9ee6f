"""`auditor sample`: draw a sample again, from the list it was drawn from and the checkpoint that fixed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from audit import verify
from audit.checkpoint import NoteInvalid, SignedCheckpoint
from audit.cli import shared
from audit.cli.shared import (
    EVIDENCE,
    EvidenceOption,
    JsonOption,
    PolicyOption,
    answering,
    bytes_of,
    policy_of,
    witness_of,
)
from audit.events import InvalidEvent, Json, loads
from audit.folder import Broken, LogFolder, NoQuorum, Unreadable, logs_in
from audit.policy import Policy, QuorumMissing
from audit.rules import LONDON
from audit.sampling import Candidate, Sample, SampleInvalid, Seed, digest, draw, seed_of
from audit.verify import Seen
from audit.witness import Witness

MAX_LIST_BYTES: Final = 512 * 1024 * 1024
CHOSEN: Final = "chosen"


def sample(
    drawn: Annotated[Path, typer.Argument(help="What `broker audit redraw` wrote.", metavar="SAMPLE")],
    policy: PolicyOption,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Also: the checkpoint is of the log in this folder (or a folder of one a year)."),
    ] = None,
    witness: Annotated[
        Path | None,
        typer.Option(
            "--witness",
            help="Your witness's key file: also, it signed none earlier since the end (with --log).",
            metavar="KEYFILE",
        ),
    ] = None,
    evidence: EvidenceOption = EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Prove that a sample is what chance drew: draw it again.

    The seed is of the first line that a witness put, at the period's end or later, under a checkpoint whose last entry
    is of then or later, so that nobody who was to be sampled could choose. A quorum of the policy's witnesses must
    stand under that checkpoint, or (--log) under one that has grown from it. That no line was passed over, each witness
    finds by what it remembers, of every log in the policy: --witness, for a hundred days. That the list is the whole
    period's is not proved by this: hold its digest against the event that recorded the draw. Of a period that is no
    whole week (from Monday) or month in London it says so: whoever chose its end could have chosen among draws.

    Exit codes: 0 the same is drawn; 1 another is drawn, the list is not the one its digest says, the checkpoint is not
    the log's or too old, or your witness signed an earlier one (which the draw is by unless it was handed in too late);
    3 a file could not be read; 5 too few witnesses signed after the period's end.
    """
    if witness is not None and log is None:
        raise typer.BadParameter("it goes with --log", param_hint="--witness")
    with answering("sample", evidence, as_json) as done:
        trusted = policy_of(policy)
        text = bytes_of(drawn, MAX_LIST_BYTES)
        told, candidates, ended_s = _read(text)
        seed = _seed(told["note"], trusted, ended_s)
        origin = _signed(seed.note).checkpoint.origin
        again = _drawn(told, candidates, seed)
        if dict(again.drawn) != told["drawn"]:
            raise Broken(
                "chance draws another sample of these candidates", {"drawn.json": json.dumps(dict(again.drawn))}
            )
        if log is not None:
            _of_the_log(_folder_of(log, origin), trusted, seed, ended_s)
        elif seed.witnessed and not seed.quorum:
            raise NoQuorum("too few witnesses signed this checkpoint: give the log's folder (--log)")
        if witness is not None and log is not None:
            _none_earlier(witness_of(witness, trusted, "--witness"), log, trusted, seed, ended_s)
        period = _period(told["since"], told["until"])
        facts: dict[str, Json] = {
            "period": period,
            "drawn": len(again.drawn), "candidates": len(candidates), "witnessed": seed.witnessed,
            "candidates_sha256": digest(candidates).hex(), "size": _signed(told["note"]).checkpoint.size,
        }  # fmt: skip
        by = "its witnesses fixed" if seed.witnessed else "NO WITNESS FIXED (the policy asks for none)"
        done(
            Seen(seed.note, facts),
            f"The {len(again.drawn)} of {len(candidates)} events are those that chance draws, by a checkpoint that "
            f"{by}. The list's SHA-256 is {facts['candidates_sha256']}."
            + (" ITS PERIOD WAS CHOSEN: it is no whole week or month." if period == CHOSEN else ""),
        )


def _of_the_log(log: LogFolder, policy: Policy, seed: Seed, ended_s: int) -> None:
    """The log has grown from the checkpoint, a quorum covers it, and its last entry is of after the period."""
    size = _signed(seed.note).checkpoint.size
    seen = verify.consistency(log, policy, seed.note, now_s=shared.now_s(), quorum=not seed.quorum)
    covered = seen.facts["witnessed"]
    if not seed.quorum and policy.quorum is not None and not (isinstance(covered, int) and covered >= size):
        raise NoQuorum("too few witnesses signed this checkpoint, or one that has grown from it")
    if verify.last_leaf_s(log, policy, size) < ended_s:
        raise Broken("the checkpoint has no entry of after the period's end", {"checkpoint": seed.note})


def _none_earlier(witness: Witness, logs: Path, policy: Policy, seed: Seed, ended_s: int) -> None:
    """The witness put no earlier line, since the end, under a checkpoint with an entry of then, in any of the logs."""
    origins = sorted({key.name for key in policy.logs})  # a log goes on in another at the year, or after a restore
    try:
        mine = [note for origin in origins for note in witness.grown(origin, since_s=ended_s)]
    except OSError:
        raise Unreadable("what the witness's key has cosigned can't be read") from None
    for note in mine:
        at = note.cosigned_at(witness.key.verifier)
        if at is None or at < ended_s or (seed.first is not None and (at, witness.key.name) >= seed.first):
            continue
        origin, size = note.checkpoint.origin, note.checkpoint.size
        if size and verify.last_leaf_s(_folder_of(logs, origin), policy, size) >= ended_s:
            when = datetime.fromtimestamp(at, UTC).isoformat()
            raise Broken(
                f"this witness signed {size} entries of {origin} at {when}, before the line that the draw is by: "
                "unless that was handed in too late, somebody passed it over",
                {"checkpoint": seed.note, "checkpoint.earlier": note.note},
            )


def _folder_of(logs: Path, origin: str) -> LogFolder:
    """The folder of a log, be it the one given or one in it."""
    by_origin = {log.note().partition("\n")[0]: log for log in logs_in(logs)}
    if origin not in by_origin:
        raise Unreadable(f"the folder lacks the log {origin}: fetch it too, and give the folder that holds both")
    return by_origin[origin]


def _period(since: str, until: str) -> str:
    """What the period is: a week or a month in London, or chosen otherwise."""
    begins, ends = (datetime.fromisoformat(each).astimezone(LONDON) for each in (since, until))
    if begins.time() == ends.time() == time():
        if begins.weekday() == 0 and ends.date() - begins.date() == timedelta(days=7):
            return "week"
        if begins.day == ends.day == 1 and (ends.date() - timedelta(days=1)).replace(day=1) == begins.date():
            return "month"
    return CHOSEN


def _read(text: bytes) -> tuple[Mapping[str, Any], tuple[Candidate, ...], int]:
    try:
        told: Any = loads(text)
        candidates = tuple(Candidate(**one) for one in told["candidates"])
        ended_s = int(datetime.fromisoformat(told["until"]).timestamp())
        if told["candidates_sha256"] != digest(candidates).hex():
            raise Broken("the list of candidates is not the one that its digest says")
        _signed(told["note"])
        _period(told["since"], told["until"])
        return (
            {name: told[name] for name in ("note", "percent", "least", "drawn", "since", "until")},
            candidates,
            ended_s,
        )
    except (InvalidEvent, KeyError, TypeError, ValueError, AttributeError):
        raise Broken("the file is not a sample as `broker audit redraw` writes it") from None


def _signed(note: str) -> SignedCheckpoint:
    return SignedCheckpoint.parse(note)


def _seed(note: str, policy: Policy, ended_s: int) -> Seed:
    try:
        return seed_of(_signed(note), policy, ended_s=ended_s)
    except NoteInvalid as fault:
        raise Broken(str(fault), {"checkpoint": note}) from None
    except QuorumMissing as fault:
        raise NoQuorum(str(fault)) from None


def _drawn(told: Mapping[str, Any], candidates: tuple[Candidate, ...], seed: Seed) -> Sample:
    try:
        return draw(candidates, seed.value, percent=told["percent"], least=told["least"])
    except (SampleInvalid, TypeError) as fault:
        raise Broken(f"the sample's terms are none: {fault}") from None
