"""`auditor sample`: draw a sample again, from the list it was drawn from and the checkpoint that fixed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from audit import verify
from audit.checkpoint import NoteInvalid, SignedCheckpoint
from audit.cli import shared
from audit.cli.shared import EVIDENCE, EvidenceOption, JsonOption, PolicyOption, answering, bytes_of, policy_of
from audit.events import InvalidEvent, Json, loads
from audit.folder import Broken, LogFolder, NoQuorum
from audit.policy import Policy, QuorumMissing
from audit.sampling import Candidate, Sample, SampleInvalid, Seed, digest, draw, seed_of
from audit.verify import Seen

MAX_LIST_BYTES: Final = 512 * 1024 * 1024


def sample(
    drawn: Annotated[Path, typer.Argument(help="What `broker audit redraw` wrote.", metavar="SAMPLE")],
    policy: PolicyOption,
    log: Annotated[
        Path | None, typer.Option("--log", help="Also: the checkpoint is of the log in this folder.")
    ] = None,
    evidence: EvidenceOption = EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Prove that a sample is what chance drew: draw it again.

    The seed is of the checkpoint in the file and of its witnesses' lines, all of after the period's end; a quorum of
    the policy's witnesses must stand under it, so that nobody who was to be sampled could choose. That the list is the
    whole period's is not proved by this: hold its digest against the event that recorded the draw.

    Exit codes: 0 the same is drawn; 1 another is drawn, the list is not the one its digest says, or the checkpoint is
    not the log's; 3 a file could not be read; 5 too few witnesses signed after the period's end.
    """
    with answering("sample", evidence, as_json) as done:
        trusted = policy_of(policy)
        text = bytes_of(drawn, MAX_LIST_BYTES)
        told, candidates, ended_s = _read(text)
        seed = _seed(told["note"], trusted, ended_s)
        again = _drawn(told, candidates, seed)
        if dict(again.drawn) != told["drawn"]:
            raise Broken(
                "chance draws another sample of these candidates", {"drawn.json": json.dumps(dict(again.drawn))}
            )
        if log is not None:
            verify.consistency(LogFolder(log), trusted, seed.note, now_s=shared.now_s(), quorum=False)
        facts: dict[str, Json] = {
            "drawn": len(again.drawn), "candidates": len(candidates), "witnessed": seed.witnessed,
            "candidates_sha256": digest(candidates).hex(), "size": _signed(told["note"]).checkpoint.size,
        }  # fmt: skip
        by = "its witnesses fixed" if seed.witnessed else "NO WITNESS FIXED (the policy asks for none)"
        done(
            Seen(seed.note, facts),
            f"The {len(again.drawn)} of {len(candidates)} events are those that chance draws, by a checkpoint that "
            f"{by}. The list's SHA-256 is {facts['candidates_sha256']}.",
        )


def _read(text: bytes) -> tuple[Mapping[str, Any], tuple[Candidate, ...], int]:
    try:
        told: Any = loads(text)
        candidates = tuple(Candidate(**one) for one in told["candidates"])
        ended_s = int(datetime.fromisoformat(told["until"]).timestamp())
        if told["candidates_sha256"] != digest(candidates).hex():
            raise Broken("the list of candidates is not the one that its digest says")
        _signed(told["note"])
        return {name: told[name] for name in ("note", "percent", "least", "drawn")}, candidates, ended_s
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
