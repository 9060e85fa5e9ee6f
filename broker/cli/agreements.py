"""`broker agreements`: check and sign without a database; import, put in force, stop, list, and what falls due."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli import told
from broker.cli.shared import (
    FINDING,
    UNKNOWN,
    USAGE,
    AsJson,
    Config,
    Unreadable,
    answering,
    bytes_of,
    fail,
    json_of,
    open_broker,
    operator_of,
    say,
    settings_of,
    staff_id,
    umbrellas,
    write_all,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from agreements import PartyKey, Snapshot
    from agreements.agreement import Document
    from broker.documents import Signer
    from broker.register import Listed
    from broker.wiring import Broker

app = typer.Typer(
    help="Agreements: check, sign, import, put in force, stop, list, and what falls due.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip

OneFile = Annotated[Path, typer.Argument(metavar="FILE", help="The agreement or restriction, TOML.")]
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Agreements or restrictions, TOML.")]
Umbrellas = Annotated[list[Path] | None, typer.Option("--umbrella", help="The TOML of an umbrella it stands under.")]
Signatures = Annotated[list[Path] | None, typer.Option("--signature", help="A file of signatures, JSON, over it.")]
Ref = Annotated[str, typer.Argument(help="<id>@<version>")]
By = Annotated[str, typer.Option("--by", help="Your staff id: the log keeps who did this.")]
Key = Annotated[Path, typer.Option(help="The signatory's Ed25519 key, PEM, mode 0600.")]
Party = Annotated[str | None, typer.Option(help="Which party signs; its key is then <party>/signatory-1.")]
Kid = Annotated[str | None, typer.Option(help="The key's registered name, <party>/<n>, if it is another.")]
Event = Annotated[Path | None, typer.Option("--event", help="The party's event as `sign-event` wrote it, JSON.")]
OfParty = Annotated[str | None, typer.Option("--party", help="A party's own act: stops what this party discloses.")]


@app.command("check")
def check_document(
    document: OneFile,
    umbrella: Umbrellas = None,
    signature: Signatures = None,
    public: Annotated[
        list[Path] | None, typer.Option("--public", help="An agency's public.json, to check signatures with.")
    ] = None,
    register: Annotated[bool, typer.Option("--register", help="Say who has signed by this host's register.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say all that is wrong with a document, what to write instead, and who has signed it.

    It needs no database; with --config, umbrellas of the register need not be given.  `refused`: it does not load;
    `gate`: it can't be put in force; `lint`: look at this before anybody signs.

    Exit codes: 0 nothing but lint; 1 refused, a gate, or a signature that does not hold; 2 usage; 3 a file can't be
    read, or the key of a signature is not known here.
    """
    with answering(as_json):
        from agreements.agreement import london_day
        from broker import clock, documents

        source = bytes_of(document)
        above = umbrellas(umbrella, config, source)
        listed: list[dict[str, Any]] = [
            {"severity": f.severity, "code": None, "path": f.path, "message": f.message, "fix": f.fix}
            for f in documents.findings(source, above)
        ]
        report: dict[str, Any] = {"file": str(document), "ref": None, "digest": None, "findings": listed}
        if not any(one["severity"] == "refused" for one in listed):
            read = documents.read_alone(source, above)
            listed += [
                {"severity": "gate", "code": gap.code, "path": gap.path, "message": gap.message, "fix": gap.fix}
                for gap in documents.missing(read, on=london_day(clock.now()))
            ]
            report |= {"ref": read.ref, "digest": read.digest}
            report |= told.signed(read, _signers(read, signature or (), public or (), register, config))
        say(as_json, report, told.checked(report))
        signed = report.get("signed", ())
        if any(f["severity"] != "lint" for f in listed) or any(one["wrong"] and one["known"] for one in signed):
            raise typer.Exit(FINDING)
        if any(not one["known"] for one in signed):
            raise typer.Exit(UNKNOWN)


@app.command("sign")
def sign_documents(
    documents: Files,
    key: Key,
    out: Annotated[Path, typer.Option(help="The folder where <id>@<version>.<party>.json goes, one a document.")],
    party: Party = None,
    kid: Kid = None,
    umbrella: Umbrellas = None,
    as_json: AsJson = False,
) -> None:
    """Sign documents for a party, on the signatory's own machine.  Needs no database; the key stays where it is.

    Exit codes: 0 signed; 1 the party may not sign one, or one does not load; 2 usage; 3 a file can't be read.
    """
    with answering(as_json):
        from agreements import BadSignature, sign
        from broker import clock

        name, private = _signing(party, kid, key, as_json)
        loaded = _loaded(documents, umbrella or ())
        at = clock.now().replace(microsecond=0)
        try:
            signed = [(document, sign(document, kid=name, key=private, at=at)) for document in loaded]
        except BadSignature as refused:
            fail(str(refused), FINDING, as_json)
        paths = {document.ref: out / f"{document.ref}.{name.rpartition('/')[0]}.json" for document in loaded}
        write_all({paths[document.ref]: _json_bytes(jws) for document, jws in signed}, folder=0o777)
        done = [{"document": one.ref, "sha256": one.digest, "kid": name, "out": str(paths[one.ref])} for one in loaded]
        say(as_json, done, "\n".join(f"{one['kid']} signs {one['document']}: {one['out']}" for one in done))


@app.command("sign-event")
def sign_events(
    act: Annotated[told.Act, typer.Argument(help="What the party does.")],
    documents: Files,
    key: Key,
    out: Annotated[Path, typer.Option(help="The folder where <id>@<version>.<party>.<act>.json goes, one a document.")],
    party: Party = None,
    kid: Kid = None,
    umbrella: Umbrellas = None,
    as_json: AsJson = False,
) -> None:
    """Sign a party's own event, on the signatory's own machine.  Needs no database; the key stays where it is.

    suspend: stop what the party discloses, from this instant; resume: start it again; withdraw: leave, both ways;
    supersede: leave this version for a newer one.  Of a restriction, its owner signs withdraw.  Give the file to the
    host, which takes it in with `suspend --party`, `resume`, `event` or `restrictions withdraw`.
    """
    with answering(as_json):
        from agreements import BadSignature, sign_event
        from agreements.agreement import Agreement
        from broker import clock

        name, private = _signing(party, kid, key, as_json)
        at, whose = clock.now().replace(microsecond=0), name.rpartition("/")[0]
        done, files = [], {}
        for document in _loaded(documents, umbrella or ()):
            entitled = document.parties if isinstance(document, Agreement) else {document.owner: None}
            if whose not in entitled:
                fail(
                    f"{whose} is no party to {document.ref}: parties are {', '.join(sorted(entitled))}",
                    FINDING,
                    as_json,
                )
            try:
                jws = sign_event(document, act.value, kid=name, key=private, at=at)
            except BadSignature as refused:
                fail(str(refused), FINDING, as_json)
            path = out / f"{document.ref}.{whose}.{act.value}.json"
            files[path] = _json_bytes(jws)
            done.append({"document": document.ref, "event": act.value, "kid": name, "out": str(path)})
        write_all(files, folder=0o777)
        say(as_json, done, "\n".join(f"{one['kid']} signs {one['event']} of {one['document']}: {one['out']}"
                                     for one in done))  # fmt: skip


@app.command("import")
def import_documents(
    documents: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Agreements or restrictions, TOML; umbrellas first.")
    ],
    signature: Signatures = None,
    activate: Annotated[bool, typer.Option("--activate", help="Put each in force as well; takes --by.")] = False,
    by: Annotated[str, typer.Option("--by", help="Your staff id, with --activate: the log keeps who did this.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take documents and signatures into the register.  Twice the same changes nothing.

    Exit codes: 0 taken in; 1 one is refused; 2 usage; 3 a file, the database or the log can't be reached.
    """
    if activate and not by:
        fail("--activate takes --by, the staff id of whoever puts it in force", USAGE, as_json)
    with answering(as_json), open_broker(config) as broker:
        from broker import activation, analysing, clock, register

        who, at = operator_of(broker, staff_id(by, as_json) if by else ""), clock.now()
        before, refs = _in_force(broker), []
        for path in documents:
            with told.about(path):
                refs.append(register.import_document(broker.store, broker.trail, bytes_of(path), who=who, at=at))
        signed: dict[str, list[str]] = {ref: [] for ref in refs}
        for path in signature or ():
            with told.about(path):
                jws = json_of(path)
                ref = register.ref_signed(broker.store, jws)
                signed.setdefault(ref, []).extend(
                    register.add_signatures(broker.store, broker.trail, ref, jws, who=who, at=at)
                )
        if activate:
            for ref in refs:
                activation.activate(broker.store, broker.trail, ref, who=who, at=at)
        broker.trail.advance_pending()
        with broker.store.reading() as reading:
            cut = analysing.cut_off(reading, before, signed, at=at)
            others = register.holding_as_well(reading, signed, at=at)
        words = [f"{ref}: signed by {', '.join(p) or 'nobody yet'}" for ref, p in signed.items()]
        words += [told.activated(_listed(broker, ref))[1] for ref in refs if activate]
        words += map(told.holds_as_well, others)
        say(as_json, {"signed": signed, "cut_off": [told.parted_as_data(one) for one in cut]},
            "\n".join([*words, *map(told.parted, cut)]))  # fmt: skip


@app.command("activate")
def activate_document(ref: Ref, by: By, config: Config = None, as_json: AsJson = False) -> None:
    """Put a document in force at this host; a party that has not signed yet stops its own flows only.

    It needs its impact assessment (approved), privacy notice, policy document for special category or criminal offence
    data, the Caldicott Guardian's sign-off where health information is given, and its legal rows; its umbrella must be
    in force.  Parties that have signed it leave its older versions on its first day.  Whoever asks under agreements
    can't do this, and whoever does it can't ask under this one.

    Exit codes: 0 in force, or as soon as two have signed; 1 refused, with the codes of what is missing, or its parties
    have left it; 2 usage; 3 could not tell.  A party that this cuts off is named: it has not signed the newer version.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import activation, analysing, clock

        who, at, before = operator_of(broker, staff_id(by, as_json)), clock.now(), _in_force(broker)
        try:
            entry = activation.activate(broker.store, broker.trail, ref, who=who, at=at)
        except activation.NotAssured as refused:
            missing = [
                {"code": gap.code, "path": gap.path, "message": gap.message, "fix": gap.fix} for gap in refused.gaps
            ]
            say(as_json, {"agreement": ref, "missing": missing}, told.refusal(ref, missing))
            raise typer.Exit(FINDING) from None
        if entry is not None:
            broker.trail.receipt(entry)
        row = _listed(broker, ref)
        well, words = told.activated(row)
        with broker.store.reading() as reading:
            cut = analysing.cut_off(reading, before, [ref], at=at)
        report = {"agreement": ref, "event": entry.event_id if entry else None, "state": row.state.name}
        say(as_json, report | {"cut_off": [told.parted_as_data(one) for one in cut]},
            "\n".join([words, *map(told.parted, cut)]))  # fmt: skip
        if not well:
            raise typer.Exit(FINDING)


@app.command("suspend")
def suspend_document(
    ref: Ref,
    party: OfParty = None,
    event: Event = None,
    by: Annotated[str, typer.Option("--by", help="Your staff id, where the host itself suspends.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Stop disclosures from the next decision on: one party's own (--party, --event), or all of it at this host (--by).

    A party signs its event with `broker agreements sign-event suspend`.  The other parties' disclosures go on.

    Exit codes: 0 stopped; 1 refused, or a later event of the party stands; 2 usage; 3 could not tell.
    """
    if (party is None) != (event is None) or (party is None) == (not by):
        fail("either --party and --event, or --by for the host's own act", USAGE, as_json)
    if party is not None and event is not None:
        _party_act(ref, party, event, told.Act.SUSPEND, config, as_json)
        return
    with answering(as_json), open_broker(config) as broker:
        from broker import activation, clock, register

        who = operator_of(broker, staff_id(by, as_json))
        entry = activation.suspend(broker.store, broker.trail, ref, who=who, at=clock.now())
        broker.trail.receipt(entry)
        with broker.store.reading() as reading:
            under = register.in_force_under(reading, ref)
        with_it = f", and with it {' and '.join(under)}" if under else ""
        say(as_json, {"agreement": ref, "event": entry.event_id, "with_it": list(under)},
            f"{ref} is suspended at this host{with_it}; `broker agreements activate` puts it back.")  # fmt: skip


@app.command("resume")
def resume_document(
    ref: Ref,
    party: Annotated[str, typer.Option("--party", help="The party that starts its disclosures again.")],
    event: Annotated[Path, typer.Option("--event", help="Its event as `sign-event` wrote it, JSON.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Start a party's own disclosures again, by its signed event.  What the host suspended, `activate` puts back.

    Exit codes: 0 they go on; 1 refused, or a later event of the party stands; 2 usage; 3 could not tell.
    """
    _party_act(ref, party, event, told.Act.RESUME, config, as_json)


@app.command("event")
def party_event(
    event: Annotated[Path, typer.Argument(metavar="EVENT", help="A party's event as `sign-event` wrote it, JSON.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take in a party's own signed event, whatever it does: suspend, resume, withdraw or supersede.

    Exit codes: 0 the party stands where the event says; 1 refused, or a later event of the party stands; 3 could not
    tell.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import register

        with told.about(event):
            ref = register.ref_of_event(broker.store, json_of(event))
        _take_in(broker, ref, event, None, as_json)


@app.command("list")
def list_documents(
    every: Annotated[bool, typer.Option("--all", help="Those that have ended as well.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List agreements: in which state each is and why, where each party stands, and what falls due within 90 days.

    Restrictions are listed by `broker restrictions list`.  A document that was taken in under an older version of the
    language, and that loads no more, is named with what is wrong, whatever it is.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, register

        with broker.store.reading() as reading:
            rows = [row for row in register.documents(reading, at=clock.now()) if row.kind != "restriction"]
            unread = register.unread(reading)
        shown = [row for row in rows if every or not row.state.ended]
        hidden = len(rows) - len(shown)
        words = "\n".join(told.listed(row) for row in shown) or "No agreement is in the register."
        words += f"\n{hidden} that ended: --all lists them too." if hidden else ""
        words += "".join(f"\n{told.unread(ref, why)}" for ref, why in unread.items())
        unreadable = [{"ref": ref, "state": "unreadable", "why": why} for ref, why in unread.items()]
        say(as_json, [told.as_data(row) for row in shown] + unreadable, words)


@app.command("calendar")
def show_calendar(
    days: Annotated[int, typer.Option("--days", min=1, max=3660, help="How far ahead to look.")] = 365,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List last days and reviews of the coming days, soonest first, and reviews that are overdue.

    `broker nightly` tells each of them once at 90, 60, 30 and 7 days.  Exit codes: 0 nothing is overdue; 1 a review is.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, expiry

        with broker.store.reading() as reading:
            due = expiry.calendar(reading, at=clock.now(), within=days)
        say(as_json, [told.due_as_data(warning) for _, warning in due],
            "\n".join(one.words for _, one in due) or f"Nothing falls due within {days} days.")  # fmt: skip
        if any(warning.kind == "review_overdue" for _, warning in due):
            raise typer.Exit(FINDING)


def _party_act(ref: str, party: str, event: Path, act: told.Act, config: Path | None, as_json: bool) -> None:
    with answering(as_json), open_broker(config) as broker:
        from agreements.signing import BadSignature, stated_event

        try:
            does = stated_event(json_of(event)).do
        except (BadSignature, KeyError, TypeError):
            raise Unreadable(f"{event} holds no event as `sign-event` writes it") from None
        if does != act.value:
            fail(
                f"{event}: it says {does}, not {act.value}: sign-event {act.value} writes the one due", FINDING, as_json
            )
        _take_in(broker, ref, event, party, as_json)


def _take_in(broker: Broker, ref: str, event: Path, party: str | None, as_json: bool) -> None:
    from broker import clock, register

    with told.about(event):
        done = register.add_party_event(
            broker.store, broker.trail, ref, json_of(event), who=operator_of(broker), at=clock.now(), party=party
        )
    broker.trail.advance_pending()
    row = _listed(broker, ref, at=done.at)
    well, words = told.event_done(row, done.party, done.do)
    say(as_json, {"agreement": ref, "event": done.do, "stands": row.state.parties[done.party].state}, words)
    if not well:
        raise typer.Exit(FINDING)


def _listed(broker: Broker, ref: str, *, at: datetime | None = None) -> Listed:
    """How a document stands now, or at an instant if that is later: a signatory's clock may be a little ahead."""
    from broker import clock, register

    with broker.store.reading() as reading:
        rows = register.documents(reading, at=max(clock.now(), at) if at else clock.now())
    return next(row for row in rows if row.ref == ref)


def _in_force(broker: Broker) -> Snapshot:
    from broker import register

    with broker.store.reading() as reading:
        return register.snapshot(reading)


def _signing(party: str | None, kid: str | None, key: Path, as_json: bool) -> tuple[str, Ed25519PrivateKey]:
    """The registered name of the key, and the key.  One of another kind or another party ends the command."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from broker.keys import private_key

    name = kid or (f"{party}/signatory-1" if party else "")
    if not name.rpartition("/")[0] or (party is not None and name.rpartition("/")[0] != party):
        fail("--party ID or --kid ID/NAME says who signs; where both are given, of one party", USAGE, as_json)
    bytes_of(key)
    private = private_key(key)
    if not isinstance(private, Ed25519PrivateKey):
        fail(f"{key} is not an Ed25519 key", USAGE, as_json)
    return name, private


def _loaded(paths: Sequence[Path], umbrella: Sequence[Path]) -> list[Document]:
    from broker.documents import read_alone

    above, loaded = [bytes_of(path) for path in umbrella], []
    for path in paths:
        with told.about(path):
            loaded.append(read_alone(bytes_of(path), above))
    return loaded


def _json_bytes(jws: dict[str, Any]) -> bytes:
    return json.dumps(jws, indent=1).encode() + b"\n"


def _signers(
    document: Document, signatures: Sequence[Path], public: Sequence[Path], register: bool, config: Path | None
) -> tuple[Signer, ...]:
    """Who has signed, by these files and, where it is asked, by the register."""
    from broker import documents

    keys: dict[str, PartyKey] = {}
    for path in public:
        with told.about(path):
            key = documents.signatory_key(json_of(path))
            keys[key.kid] = key
    kept: list[Any] = []
    if register:
        from broker.register import party_keys, signatures_kept
        from broker.store import Store

        store = Store(settings_of(config).database_url.get_secret_value())
        try:
            with store.reading() as reading:
                keys |= party_keys(reading)
                kept = signatures_kept(reading, document.digest)
        finally:
            store.close()
    return documents.signers(document, [*kept, *(json_of(path) for path in signatures)], keys)
