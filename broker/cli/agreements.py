"""`broker agreements`: check and sign without a database; import, put in force, stop, list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.cli.shared import FINDING, USAGE, AsJson, Config, answering, fail, open_broker, operator_of, say

app = typer.Typer(
    help="Agreements and restrictions: check, sign, import, put in force.", no_args_is_help=True, rich_markup_mode=None
)

Document = Annotated[Path, typer.Argument(help="The agreement or restriction, TOML.")]
Umbrellas = Annotated[list[Path] | None, typer.Option("--umbrella", help="The TOML of an umbrella it stands under.")]


Ref = Annotated[str, typer.Argument(help="<id>@<version>")]


@app.command("check")
def check_document(document: Document, umbrella: Umbrellas = None, as_json: AsJson = False) -> None:
    """Say all that is wrong with a document, and what to write instead.  Needs no database.

    Exit codes: 0 it loads (warnings may be printed); 1 it does not.
    """
    with answering(as_json):
        from broker import documents

        found = documents.findings(document.read_bytes(), [path.read_bytes() for path in umbrella or ()])
        listed = [
            {"path": f.path, "message": f.message, "fix": f.fix, "severity": f.severity} for f in found
        ]  # fmt: skip
        say(as_json, listed, "\n".join(f"{f.severity}: {f.path}: {f.message}; {f.fix}" for f in found) or "It loads.")
        if any(f.severity == "refused" for f in found):
            raise typer.Exit(FINDING)


@app.command("sign")
def sign_documents(
    documents: Annotated[list[Path], typer.Argument(help="Agreements or restrictions, TOML.")],
    key: Annotated[Path, typer.Option(help="Its signatory's Ed25519 key, PEM, mode 0600.")],
    kid: Annotated[str, typer.Option(help="The key's registered name, <agency>/<n>: it says which party signs.")],
    out: Annotated[Path, typer.Option(help="The folder where <id>.<party>.json goes, one a document.")],
    umbrella: Umbrellas = None,
    as_json: AsJson = False,
) -> None:
    """Sign documents for a party, on the signatory's own machine.  Needs no database."""
    with answering(as_json):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        from agreements import BadSignature, sign
        from broker import clock
        from broker.documents import read_alone
        from broker.keys import private_key

        umbrellas = [path.read_bytes() for path in umbrella or ()]
        loaded = [read_alone(document.read_bytes(), umbrellas) for document in documents]
        private = private_key(key)
        if not isinstance(private, Ed25519PrivateKey):
            fail("the key is not an Ed25519 key", USAGE, as_json)
        at = clock.now().replace(microsecond=0)
        try:
            signed = [(document, sign(document, kid=kid, key=private, at=at)) for document in loaded]
        except BadSignature as refused:
            fail(str(refused), FINDING, as_json)
        out.mkdir(parents=True, exist_ok=True)
        told = []
        for document, jws in signed:
            path = out / f"{document.id}.{kid.split('/')[0]}.json"
            path.write_text(json.dumps(jws, indent=1) + "\n", "utf-8")
            told.append({"document": document.ref, "kid": kid, "out": str(path)})
        say(as_json, told, "\n".join(f"{one['kid']} signs {one['document']}: {one['out']}" for one in told))


@app.command("import")
def import_documents(
    documents: Annotated[list[Path], typer.Argument(help="Agreements or restrictions, TOML; umbrellas first.")],
    signature: Annotated[list[Path] | None, typer.Option(help="Signatures (JSON) over them.")] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Put each in force as well.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take documents and signatures into the register.  Twice the same changes nothing."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, register

        who, at = operator_of(broker), clock.now()
        refs = [
            register.import_document(broker.store, broker.trail, path.read_bytes(), who=who, at=at)
            for path in documents
        ]
        signed: dict[str, list[str]] = {ref: [] for ref in refs}
        for path in signature or ():
            jws = json.loads(path.read_bytes())
            ref = register.ref_signed(broker.store, jws)
            signed.setdefault(ref, []).extend(
                register.add_signatures(broker.store, broker.trail, ref, jws, who=who, at=at)
            )
        if activate:
            for ref in refs:
                register.activate(broker.store, broker.trail, ref, who=who, at=at)
        broker.trail.advance_pending()
        say(as_json, signed, "\n".join(f"{ref}: signed by {', '.join(p) or 'nobody yet'}" for ref, p in signed.items()))


@app.command()
def activate(ref: Ref, config: Config = None, as_json: AsJson = False) -> None:
    """Put a document in force at this host; a party that has not signed yet stops its own flows only."""
    _change(config, ref, as_json, "is in force", lambda register: register.activate)


@app.command()
def suspend(ref: Ref, config: Config = None, as_json: AsJson = False) -> None:
    """Take an agreement out of force at this host, from the next decision on; `activate` puts it back."""
    _change(config, ref, as_json, "is suspended", lambda register: register.suspend)


@app.command("event")
def party_event(
    ref: Ref,
    event: Annotated[Path, typer.Argument(help="The party's signed event, JSON.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take in a party's own signed event: it suspends, resumes, withdraws or replaces its part."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, register

        jws = json.loads(event.read_bytes())
        done = register.add_party_event(broker.store, broker.trail, ref, jws, who=operator_of(broker), at=clock.now())
        broker.trail.advance_pending()
        say(as_json, {"agreement": ref, "event": done}, f"{ref}: {done}")


@app.command("list")
def list_documents(config: Config = None, as_json: AsJson = False) -> None:
    """List the documents of the register, which are in force, and where each party stands."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, register

        with broker.store.reading() as reading:
            rows = register.documents(reading, at=clock.now())
        listed = [
            {"ref": r.ref, "kind": r.kind, "status": r.status, "digest": r.digest, "parties": dict(r.parties)}
            for r in rows
        ]
        words = "\n".join(
            f"{r.ref}  {r.kind}  {r.status}  {', '.join(f'{p} {s}' for p, s in sorted(r.parties.items()))}"
            for r in rows
        )
        say(as_json, listed, words or "The register is empty.")


def _change(config: Path | None, ref: str, as_json: bool, words: str, act: Callable[[Any], Any]) -> None:
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, register

        entry = act(register)(broker.store, broker.trail, ref, who=operator_of(broker), at=clock.now())
        if entry is not None:
            broker.trail.receipt(entry)
        say(as_json, {"agreement": ref, "event": entry.event_id if entry else None}, f"{ref} {words}.")
