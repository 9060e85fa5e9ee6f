"""`auditor`: checks the log for someone who trusts neither the broker nor a network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from audit import verify
from audit.checkpoint import MAX_NOTE_BYTES
from audit.events import InvalidEvent, Json, loads
from audit.policy import Policy, PolicyInvalid
from audit.receipts import LogReceipt, ReceiptInvalid
from audit.signer import replace_file
from audit.verify import Broken, Finding, LogFolder, Seen, Unreadable

_UNITS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_MAX_BUNDLE_BYTES: Final = 256 * 1024 * 1024

auditor = typer.Typer(
    name="auditor",
    help="""
    Check the broker's log offline, from a folder that mirrors it.

    You need three things, and no network: a folder with the public log (checkpoint, tile/..., tile/entries/...; `agency
    log` fetches one), a policy file that names the log's key and its witnesses (C2SP tlog-policy, handed to you by
    someone you trust and not by the log), and what you kept last time.

    Exit codes of every command: 0 all is well; 1 something was changed, cut off or forged (keep the files that are
    written: they are the evidence); 2 wrong usage, or a policy file that can't be understood; 3 a file could not be
    read, which proves nothing; 4 the log is older than you asked for, or than your receipt; 5 too few witnesses have
    signed.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

LogOption = Annotated[Path, typer.Option("--log", help="The folder that mirrors the public log.")]
PolicyOption = Annotated[Path, typer.Option("--policy", help="Whom you trust: a C2SP tlog-policy file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of sentences.")]
EvidenceOption = Annotated[
    Path, typer.Option("--evidence", help="Where evidence is written if something was changed; a folder a finding.")
]
_EVIDENCE: Final = Path("auditor-evidence")


@auditor.command()
def inclusion(
    policy: PolicyOption,
    event: Annotated[Path, typer.Option("--event", help="The receipt, or the event as opened to you (JSON).")],
    log: Annotated[
        Path | None,
        typer.Option("--log", help="The folder that mirrors the public log; without it, the receipt stands alone."),
    ] = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="The .tlog-proof file, if the receipt does not carry its own.")
    ] = None,
    evidence: EvidenceOption = _EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Prove that an event, as opened to you, is in the log under a checkpoint that meets the policy.

    With --log, also that the log in the folder is the one your receipt was given for: it begins with your receipt's
    tree and holds your entry. A broker that shows one log to you and another to the rest fails here.

    Exit codes: 0 it is in the log; 1 it is not, or not as opened, or the log is another; 3 a file could not be read,
    which proves nothing; 4 the folder is older than the receipt; 5 too few witnesses have signed.
    """
    with _answer("inclusion", evidence, as_json) as done:
        receipt = _receipt(event, proof)
        seen = verify.inclusion(receipt, _policy(policy), None if log is None else LogFolder(log))
        done(seen, f"Event {receipt.event_id} is entry {receipt.proof.index} of {_log(seen)}.")


@auditor.command()
def consistency(
    log: LogOption,
    policy: PolicyOption,
    state: Annotated[Path, typer.Option("--state", help="What you kept last time; replaced when all is well.")],
    max_age: Annotated[
        str | None, typer.Option("--max-age", help="How old the last sign of life may be: 90s, 15m, 1h, 2d.")
    ] = None,
    evidence: EvidenceOption = _EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Prove that the log has only grown since the state you kept.

    The first time, when there is no state file, the log's checkpoint is checked and kept. The state file is the
    checkpoint itself, as the log signed it. A log's age is that of its newest witness signature or last entry, so a log
    that nobody writes to looks old.

    Exit codes: 0 it has only grown; 1 history was rewritten (keep all files, they are the evidence); 3 a file could
    not be read, which proves nothing; 4 the log is stale; 5 too few witnesses have signed.
    """
    with _answer("consistency", evidence, as_json) as done:
        age = _seconds(max_age)
        kept = _read(state) if state.exists() else None
        seen = verify.consistency(LogFolder(log), _policy(policy), kept, now_s=_now_s(), max_age_s=age)
        try:
            replace_file(state, seen.note.encode())
        except OSError:
            raise Unreadable("all is well, but the state file can't be written") from None
        first = "This is the first state kept of" if kept is None else f"Grown from {seen.facts['grown_from']}:"
        done(seen, f"{first} {_log(seen)}.")


@auditor.command()
def fsck(
    log: LogOption,
    policy: PolicyOption,
    state: Annotated[Path | None, typer.Option("--state", help="What you kept last time; left as it is.")] = None,
    evidence: EvidenceOption = _EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Hash every entry, tile and checkpoint anew from the entries up, and name each file that is not as it should be.

    With --state, also that the log begins with what you kept.

    Exit codes: 0 the whole log is as it was signed; 1 it is not (keep all files, they are the evidence); 3 a file
    could not be read, which proves nothing; 5 too few witnesses have signed.
    """
    with _answer("fsck", evidence, as_json) as done:
        kept = None if state is None else _read(state)
        seen = verify.fsck(LogFolder(log), _policy(policy), kept)
        done(seen, f"{seen.facts['files']} files hold {_log(seen)}.")


@auditor.command()
def receipts(
    folder: Annotated[Path, typer.Option("--receipts", help="A folder of receipts, one a .json file.")],
    log: LogOption,
    policy: PolicyOption,
    state: Annotated[Path | None, typer.Option("--state", help="What you kept last time; left as it is.")] = None,
    evidence: EvidenceOption = _EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Check each receipt you kept against the newest checkpoint, and list the files that hold no receipt.

    A file is a receipt, an answer with its receipt, or what `agency submit` keeps of a batch, which has two.

    Exit codes: 0 every receipt holds; 1 one does not, or the log was changed; 3 a file could not be read, which proves
    nothing; 4 the folder is older than a receipt; 5 too few witnesses have signed. Of several, the first of 1, 3, 5
    and 4 is given.
    """
    with _answer("receipts", evidence, as_json) as done:
        found, without = _receipts(folder)
        kept = None if state is None else _read(state)
        trusted = _policy(policy)
        wrong = verify.receipts(found, LogFolder(log), trusted, kept)
        if wrong:
            raise _worst(wrong)
        checked: dict[str, Json] = {"receipts": len(found), "without": without}
        note = f"; without one: {', '.join(without)}" if without else ""
        done(Seen("", checked), f"{len(found)} receipts hold{note}.")


@auditor.command("replay")
def replay_decisions(
    receipt: Annotated[Path, typer.Argument(help="A full decision receipt (JSON), or a folder of them.")],
    bundle: Annotated[
        Path, typer.Argument(help="What it takes to decide again: `broker agreements export --to bundle`.")
    ],
    keys: Annotated[
        list[Path] | None,
        typer.Option(
            "--keys", help="Public keys to trust instead of the bundle's: JWK set or an agency's public.json."
        ),
    ] = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="By the literal evaluator, which follows the rules line by line.")
    ] = False,
    evidence: EvidenceOption = _EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Decide again what a decision receipt says was decided, offline, from what was signed at the time.

    Without --keys the keys are those in the bundle, whose fingerprints are printed, to be compared with those you were
    told.  With --keys only the keys of these files count, and a signature by any other proves nothing: a JWK set
    (Ed25519; `broker agreements export --to keys` writes this host's), an agency's public.json for its signatory, or
    the `keys` of another bundle.  Give it several times for several files.

    Exit codes: 0 every decision is the same; 1 one differs, or a signature does not hold; 2 wrong usage; 3 a file could
    not be read, or lacks what a receipt names or the key of a signature, which proves nothing.
    """
    with _answer("replay", evidence, as_json) as done:
        # the one thing that this shares with the broker
        from agreements.bundle import BadBundleSignature, BundleRefused, fingerprint, keys_of, unpack

        trusted: dict[str, Any] = {}
        for path in keys or ():
            try:
                brought = keys_of(_bytes(path, _MAX_BUNDLE_BYTES))
            except BundleRefused as fault:
                raise Unreadable(f"{path.name} holds no keys that can be read: {fault}") from None
            for key in brought:
                if fingerprint(trusted.setdefault(key.kid, key)) != fingerprint(key):
                    raise Unreadable(f"{path.name}: {key.kid} is another key in another file: ask whose it is")
        try:
            opened = unpack(_bytes(bundle, _MAX_BUNDLE_BYTES), trusted=trusted.values() if keys else None)
        except BadBundleSignature as fault:
            raise Broken(f"{bundle.name}: {fault}") from None
        except BundleRefused as fault:
            raise Unreadable(f"{bundle.name} is no bundle that can be opened: {fault}") from None
        paths = sorted(receipt.glob("*.json")) if receipt.is_dir() else [receipt]
        if not paths:
            raise Unreadable(f"{receipt.name} holds no receipt")
        for path in paths:
            if differing := _differences(opened.replay, path, slow=slow):
                raise Broken(f"{path.name}: {'; '.join(differing)}", {path.name: _read(path)})
        prints: dict[str, Json] = {kid: fingerprint(key) for kid, key in sorted(opened.keys.items())}
        facts: dict[str, Json] = {"receipts": len(paths), "vocabulary": opened.vocabulary.id, "keys": prints}
        words = "\n".join(f"  {kid}  {told}" for kid, told in prints.items())
        several = "receipt is" if len(paths) == 1 else "receipts are"
        done(Seen("", facts), f"{len(paths)} decision {several} decided again as they were. Keys relied on:\n{words}")


def _differences(replay: Callable[..., tuple[str, ...]], path: Path, *, slow: bool) -> tuple[str, ...]:
    """How a receipt and the decision made again differ."""
    value = _json(path)
    if not isinstance(value, dict):
        raise Broken(f"{path.name} is not a decision receipt")
    try:
        return replay(value, slow=slow)
    except ValueError as fault:
        raise Unreadable(f"{path.name}: {fault}") from None
    except (KeyError, TypeError):
        raise Broken(f"{path.name} is not a decision receipt") from None


def main() -> None:
    """Entry point of `auditor`."""
    auditor()


@contextmanager
def _answer(command: str, evidence: Path, as_json: bool) -> Iterator[Callable[[Seen, str], None]]:
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


def _worst(wrong: Mapping[str, Finding]) -> Finding:
    ranked = sorted(wrong.items(), key=lambda item: (1, 3, 5, 4).index(item[1].code))
    message = "; ".join(f"{name}: {finding}" for name, finding in ranked)
    gathered = {f"{name}.{file}": text for name, each in ranked for file, text in each.evidence.items()}
    return type(ranked[0][1])(message, gathered)


def _receipts(folder: Path) -> tuple[dict[str, LogReceipt], list[str]]:
    """The log receipts of a folder by file name, and the names of files that hold none."""
    found: dict[str, LogReceipt] = {}
    without: list[str] = []
    if not folder.is_dir():
        raise Unreadable("the folder of receipts can't be read")
    for path in sorted(folder.glob("*.json")):
        value = _json(path)
        within = _within(value)
        if not within:
            without.append(path.name)
        for part, inner in within.items():
            name = f"{path.name}:{part}" if part else path.name
            try:
                found[name] = LogReceipt.from_json(inner)
            except ReceiptInvalid as fault:
                raise Broken(f"{name}: {fault}") from None
    return found, without


def _within(value: Json) -> dict[str, Json]:
    """The receipts of a file by member: it is one, or holds an answer's, or a batch's `received` and `verdict`."""
    if not isinstance(value, dict):
        return {}
    if "proof" in value:
        return {"": value}
    members = {part: value.get(part) for part in ("receipt", "received", "verdict")}
    return {part: inner for part, inner in members.items() if isinstance(inner, dict) and "proof" in inner}


def _receipt(event: Path, proof: Path | None) -> LogReceipt:
    value = _json(event)
    inner = value.get("receipt", value) if isinstance(value, dict) else value
    try:
        return LogReceipt.from_json(inner, proof=None if proof is None else _read(proof))
    except ReceiptInvalid as fault:
        raise Broken(f"the receipt is not one: {fault}") from None


def _json(path: Path) -> Json:
    try:
        return loads(_read(path))
    except InvalidEvent as fault:
        raise Broken(f"{path.name} is not a receipt: {fault}") from None


def _policy(path: Path) -> Policy:
    return Policy.parse(_bytes(path))


def _read(path: Path) -> str:
    try:
        return _bytes(path).decode()
    except UnicodeDecodeError:
        raise Unreadable(f"{path.name} is not text") from None


def _bytes(path: Path, most: int = _MAX_FILE_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max(most, MAX_NOTE_BYTES) + 1)
    except OSError:
        raise Unreadable(f"{path.name} can't be read") from None
    if len(data) > most:
        raise Unreadable(f"{path.name} is larger than {most} bytes")
    return data


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not found:
        raise typer.BadParameter("an age is a number and s, m, h or d: 90s, 15m, 1h, 2d", param_hint="--max-age")
    return int(found[1]) * _UNITS[found[2]]


def _now_s() -> int:
    return int(datetime.now(UTC).timestamp())  # noqa: TID251 (the auditor's one clock)


def _log(seen: Seen) -> str:
    return f"{seen.facts['origin']}, {seen.facts['size']} entries"
