"""`auditor replay`: a decision, decided again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from audit.cli.shared import EVIDENCE, EvidenceOption, JsonOption, answering, bytes_of, json_of, text_of
from audit.events import Json
from audit.folder import Broken, Unreadable
from audit.verify import Seen

_MAX_BUNDLE_BYTES: Final = 256 * 1024 * 1024


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
    evidence: EvidenceOption = EVIDENCE,
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
    with answering("replay", evidence, as_json) as done:
        # the one thing that this shares with the broker
        from agreements.bundle import BadBundleSignature, BundleRefused, fingerprint, keys_of, unpack

        trusted: dict[str, Any] = {}
        for path in keys or ():
            try:
                brought = keys_of(bytes_of(path, _MAX_BUNDLE_BYTES))
            except BundleRefused as fault:
                raise Unreadable(f"{path.name} holds no keys that can be read: {fault}") from None
            for key in brought:
                if fingerprint(trusted.setdefault(key.kid, key)) != fingerprint(key):
                    raise Unreadable(f"{path.name}: {key.kid} is another key in another file: ask whose it is")
        try:
            opened = unpack(bytes_of(bundle, _MAX_BUNDLE_BYTES), trusted=trusted.values() if keys else None)
        except BadBundleSignature as fault:
            raise Broken(f"{bundle.name}: {fault}") from None
        except BundleRefused as fault:
            raise Unreadable(f"{bundle.name} is no bundle that can be opened: {fault}") from None
        paths = sorted(receipt.glob("*.json")) if receipt.is_dir() else [receipt]
        if not paths:
            raise Unreadable(f"{receipt.name} holds no receipt")
        for path in paths:
            if differing := _differences(opened.replay, path, slow=slow):
                raise Broken(f"{path.name}: {'; '.join(differing)}", {path.name: text_of(path)})
        prints: dict[str, Json] = {kid: fingerprint(key) for kid, key in sorted(opened.keys.items())}
        facts: dict[str, Json] = {"receipts": len(paths), "vocabulary": opened.vocabulary.id, "keys": prints}
        words = "\n".join(f"  {kid}  {told}" for kid, told in prints.items())
        several = "receipt is" if len(paths) == 1 else "receipts are"
        done(Seen("", facts), f"{len(paths)} decision {several} decided again as they were. Keys relied on:\n{words}")


def _differences(replay: Callable[..., tuple[str, ...]], path: Path, *, slow: bool) -> tuple[str, ...]:
    """How a receipt and the decision made again differ."""
    value = json_of(path)
    if not isinstance(value, dict):
        raise Broken(f"{path.name} is not a decision receipt")
    try:
        return replay(value, slow=slow)
    except ValueError as fault:
        raise Unreadable(f"{path.name}: {fault}") from None
    except (KeyError, TypeError, AttributeError):
        raise Broken(f"{path.name} is not a decision receipt") from None
