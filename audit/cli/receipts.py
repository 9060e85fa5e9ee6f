"""`auditor receipts`: what was kept, held against the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from audit import verify
from audit.cli.shared import (
    EVIDENCE,
    EvidenceOption,
    JsonOption,
    PolicyOption,
    answering,
    bytes_of,
    json_of,
    policy_of,
    text_of,
    worst,
)
from audit.events import Json
from audit.folder import Broken, Unreadable, logs_in
from audit.journal import Asked, JournalInvalid, parse, without_receipt
from audit.receipts import LogReceipt, ReceiptInvalid
from audit.verify import Seen

_MAX_JOURNAL_BYTES: Final = 256 * 1024 * 1024


def receipts(
    folder: Annotated[Path, typer.Option("--receipts", help="A folder of receipts, one a .json file, or in folders.")],
    log: Annotated[
        Path,
        typer.Option("--log", help="The folder that mirrors the public log, or one with a folder for each year's."),
    ],
    policy: PolicyOption,
    state: Annotated[
        Path | None, typer.Option("--state", help="What you kept last time, or a folder of it; left as it is.")
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option("--requests", help="What you asked: requests.jsonl of the agency's home."),
    ] = None,
    evidence: EvidenceOption = EVIDENCE,
    as_json: JsonOption = False,
) -> None:
    """Check each receipt you kept against the newest checkpoint, and list what has none.

    A file is a receipt, an answer with its receipt, or what `agency submit` keeps of a batch, which has two. A receipt
    of a log that was forked for you alone fails here against a copy of the log that somebody else fetched. An entry
    that the log lost, as the log that followed it says (log.discontinuity, in its folder), is a finding: keep its
    receipt. Of a log whose key was compromised, so that the policy names it no more, the log that followed vouches for
    what came before: give a folder that holds both. Receipts of later entries prove nothing (3).

    With --requests, also each request that your agency sent: one that was answered has a receipt, or an answer was
    given of which the log may hold nothing. One that was never answered (the network broke off) is listed: it may be in
    the log, and what it asked for may have been on its way.

    Exit codes: 0 every receipt holds; 1 one does not, or its entry was lost, or the log was changed, or a request was
    answered without one; 2 wrong usage; 3 a file could not be read, which proves nothing; 4 the folder is older than a
    receipt; 5 too few witnesses have signed. Of several, the first of 1, 3, 5 and 4 is given.
    """
    with answering("receipts", evidence, as_json) as done:
        found, without = _receipts(folder)
        asked = {} if requests is None else _journal(requests)
        wrong = verify.receipts(found, logs_in(log), policy_of(policy), _states(state))
        missing = without_receipt(asked, found.values())
        if lost := [one for one in missing if one.answered is not None]:
            listed = ", ".join(f"{one.what} at {one.at}" for one in lost)
            wrong["requests"] = Broken(f"answered, and no receipt was kept: {listed}", {"lost.json": _dumps(lost)})
        if wrong:
            raise worst(wrong)
        facts: dict[str, Json] = {"receipts": len(found), "without": without}
        note = f"; without one: {', '.join(without)}" if without else ""
        words = f"{len(found)} receipts hold{note}."
        if requests is not None:
            facts |= {"requests": len(asked), "unanswered": [one.to_json() for one in missing]}
            words += f"\n{len(asked)} requests, {len(missing)} of them never answered."
            words += "".join(f"\n  {one.at}  {one.what}" for one in missing)
        done(Seen("", facts), words)


def _journal(path: Path) -> dict[str, Asked]:
    try:
        return parse(bytes_of(path, _MAX_JOURNAL_BYTES).decode())
    except (JournalInvalid, UnicodeDecodeError) as fault:
        raise Unreadable(f"{path.name} is no journal of requests: {fault}") from None


def _states(path: Path | None) -> list[str]:
    if path is None:
        return []
    if path.is_dir():
        return [text_of(each) for each in sorted(path.iterdir()) if each.is_file()]
    return [text_of(path)]


def _dumps(asked: Sequence[Asked]) -> str:
    return json.dumps([one.to_json() for one in asked], indent=1) + "\n"


def _receipts(folder: Path) -> tuple[dict[str, LogReceipt], list[str]]:
    """The log receipts of a folder by file name, and the names of files that hold none."""
    found: dict[str, LogReceipt] = {}
    without: list[str] = []
    if not folder.is_dir():
        raise Unreadable("the folder of receipts can't be read")
    for path in sorted(folder.rglob("*.json")):
        value, place = json_of(path), path.relative_to(folder).as_posix()
        within = _within(value)
        if not within:
            without.append(place)
        for part, inner in within.items():
            name = f"{place}:{part}" if part else place
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
