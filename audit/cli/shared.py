"""What every command of `auditor` shares: its options, how it answers, how it reads files, and its clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from audit.checkpoint import MAX_NOTE_BYTES
from audit.events import InvalidEvent, Json, loads
from audit.folder import Broken, Finding, Unreadable
from audit.policy import Policy, PolicyInvalid
from audit.verify import Seen
from audit.witness import BadWitnessKey, Witness

MAX_FILE_BYTES: Final = 4 * 1024 * 1024

LogOption = Annotated[Path, typer.Option("--log", help="The folder that mirrors the public log.")]
PolicyOption = Annotated[Path, typer.Option("--policy", help="Whom you trust: a C2SP tlog-policy file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of sentences.")]
EvidenceOption = Annotated[
    Path, typer.Option("--evidence", help="Where evidence is written if something was changed; a folder a finding.")
]
EVIDENCE: Final = Path("auditor-evidence")


@contextmanager
def answering(command: str, evidence: Path, as_json: bool) -> Iterator[Callable[[Seen, str], None]]:
    """Print what was found, keep the evidence of what is broken, and turn a finding into its exit code."""

    def done(seen: Seen, sentence: str) -> None:
        typer.echo(json.dumps({"command": command, "exit": 0, **seen.facts}) if as_json else sentence)

    try:
        yield done
    except Finding as finding:
        kept = _keep_evidence(command, evidence, finding) if isinstance(finding, Broken) else None
        _report(command, finding.code, str(finding), as_json, kept)
    except PolicyInvalid as fault:
        _report(command, 2, f"the policy file can't be understood: {fault}", as_json, None)


def _report(command: str, code: int, message: str, as_json: bool, kept: Path | None) -> None:
    if as_json:
        told = {"command": command, "exit": code, "finding": message, "evidence": None if kept is None else str(kept)}
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"auditor {command}: {message}", err=True)
        if kept is not None:
            typer.echo(f"The evidence is in {kept}: keep it.", err=True)
    raise typer.Exit(code)


def _keep_evidence(command: str, folder: Path, finding: Finding) -> Path | None:
    """A new folder with the finding and its files; None if it can't be written, which does not change the finding."""
    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")  # noqa: TID251 (the auditor's one clock)
    place = folder / f"{command}-{at}"
    try:
        place.mkdir(parents=True)
        (place / "finding.txt").write_text(f"{finding}\n", encoding="utf-8")
        for name, text in finding.evidence.items():
            (place / name).write_text(text, encoding="utf-8")
    except OSError:
        return None
    return place


def json_of(path: Path) -> Json:
    """A file's JSON.  Raises Unreadable, or Broken if it is none."""
    try:
        return loads(text_of(path))
    except InvalidEvent as fault:
        raise Broken(f"{path.name} is not a receipt: {fault}") from None


def witness_of(path: Path, policy: Policy, option: str) -> Witness:
    """The witness of a key file.  Raises Unreadable; wrong usage of `option` if it is no such file."""
    try:
        return Witness.open(path, policy)
    except BadWitnessKey as fault:
        raise typer.BadParameter(str(fault), param_hint=option) from None
    except OSError:
        raise Unreadable(f"{path.name} can't be read") from None


def policy_of(path: Path) -> Policy:
    """The policy of a file.  Raises Unreadable or PolicyInvalid."""
    return Policy.parse(bytes_of(path))


def text_of(path: Path) -> str:
    """A file's text.  Raises Unreadable."""
    try:
        return bytes_of(path).decode()
    except UnicodeDecodeError:
        raise Unreadable(f"{path.name} is not text") from None


def bytes_of(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """A file's bytes.  Raises Unreadable, also beyond `most`."""
    try:
        with path.open("rb") as file:
            data = file.read(max(most, MAX_NOTE_BYTES) + 1)
    except OSError:
        raise Unreadable(f"{path.name} can't be read") from None
    if len(data) > most:
        raise Unreadable(f"{path.name} is larger than {most} bytes")
    return data


def now_s() -> int:
    """This instant, in unix seconds."""
    return int(datetime.now(UTC).timestamp())  # noqa: TID251 (the auditor's one clock)


def worst(wrong: Mapping[str, Finding]) -> Finding:
    """The gravest of several findings, with the words and the evidence of all."""
    ranked = sorted(wrong.items(), key=lambda item: (1, 3, 5, 4).index(item[1].code))
    message = "; ".join(f"{name}: {finding}" for name, finding in ranked)
    gathered = {f"{name}.{file}": text for name, each in ranked for file, text in each.evidence.items()}
    return type(ranked[0][1])(message, gathered)
