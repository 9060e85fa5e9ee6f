"""The `broker` command: what the hosting partnership types.

Exit codes are the same everywhere: 0 fine; 1 a finding (refused, not in force, differs); 2 wrong usage or settings; 3
could not tell (the database, a key or the log can't be reached).
"""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from broker.settings import Settings
    from broker.wiring import Broker
    from linkage.matching.link import Engine

FINDING, USAGE, UNKNOWN = 1, 2, 3
_STAFF_ID = re.compile(r"[A-Za-z0-9._@-]{1,64}")

app = typer.Typer(
    name="broker",
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help names TOML tables in brackets
)
agencies = typer.Typer(help="Who takes part.", no_args_is_help=True, rich_markup_mode=None)
agreements = typer.Typer(
    help="Agreements and restrictions: check, sign, import, put in force.", no_args_is_help=True, rich_markup_mode=None
)
batches = typer.Typer(
    help="What agencies handed in, and what waits for a person.", no_args_is_help=True, rich_markup_mode=None
)
linkage = typer.Typer(
    help="How records were linked: models, and rates by group.", no_args_is_help=True, rich_markup_mode=None
)
keys = typer.Typer(help="The broker's own keys.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(agencies, name="agencies")
app.add_typer(agreements, name="agreements")
app.add_typer(batches, name="batches")
app.add_typer(linkage, name="linkage")
app.add_typer(keys, name="keys")

Config = Annotated[
    Path | None, typer.Option("--config", envvar="BROKER_CONFIG", help="broker.toml; BROKER_ variables win over it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")]


@app.command()
def init(config: Config = None, as_json: AsJson = False) -> None:
    """Make the keys that are missing, bring the schema up to date and open the log.  Twice does no harm."""
    with _answering(as_json):
        settings = _settings(config)
        _make_keys(settings)
        _migrate(settings)
        _say(as_json, {"data_dir": str(settings.data_dir), "origin": settings.origin}, "The broker is ready to serve.")


@keys.command("init")
def keys_init(config: Config = None, as_json: AsJson = False) -> None:
    """Make the keys that are missing, mode 0600, in the data folder's keys/.  Never replaces one."""
    with _answering(as_json):
        settings = _settings(config)
        public = _make_keys(settings)
        _say(as_json, public, "\n".join(f"{name}: {value}" for name, value in public.items()))


@keys.command("show")
def keys_show(config: Config = None, as_json: AsJson = False) -> None:
    """Print the public halves: the log's key for policies, and the key that signs receipts."""
    with _answering(as_json):
        from broker.keys import Keys

        settings = _settings(config)
        public = _public(settings, Keys.load(settings.data_dir / "keys"))
        _say(as_json, public, "\n".join(f"{name}: {value}" for name, value in public.items()))


@app.command()
def migrate(config: Config = None, as_json: AsJson = False) -> None:
    """Bring the database's schema to this version, and open the log if there is none."""
    with _answering(as_json):
        _migrate(_settings(config))
        _say(as_json, {"migrated": True}, "The schema is up to date.")


@app.command()
def serve(config: Config = None) -> None:
    """Serve the API, the public log and the pages until stopped."""
    with _answering(False):
        import uvicorn

        from broker.app import create_app
        from broker.wiring import configure_logging

        settings = _settings(config)
        configure_logging()
        listening = _listen(settings.host, settings.port)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(settings), access_log=False, server_header=False, log_level="warning",
                timeout_graceful_shutdown=5,
            )
        )  # fmt: skip
        print(f"broker: {settings.base_url} ({settings.environment})", flush=True)
        server.run(sockets=[listening])


Night = Annotated[str | None, typer.Option("--date", help="The night, ISO 8601; default: today in London.")]
Exceeding = Annotated[
    bool,
    typer.Option(
        "--exception",
        help="The partnership has signed an exception: more than 200,000 children under one key and epoch.",
    ),
]


@app.command()
def nightly(config: Config = None, night: Night = None, exception: Exceeding = False, as_json: AsJson = False) -> None:
    """Validate what is sealed, link what is accepted, publish by one pointer flip.

    Only records that are new, changed or withdrawn are compared; the result is that of `relink --full`.  A run that was
    killed is discarded and begun again: what was in service stays so, and no accepted batch is lost.  Every
    `retrain_days` a new model is trained and compared; one that moves the link rate waits for `relink --accept`.

    Exit codes: 0 published, or nothing new; 1 a gate refused the result, or another run is at work; the last good run
    stays in service either way.
    """
    with _answering(as_json), _broker(config) as broker:
        from broker import callers, clock, signin
        from broker import nightly as night_run

        at = clock.now()
        day = _night(night, at, as_json)
        with broker.store.transaction() as tx:
            callers.forget_spent(tx, at=at)
            signin.forget_ended(tx, at=at)
        done = night_run.run(broker, night=day, at=at, exception=exception)
        _say(as_json, done, json.dumps(done, indent=1, default=str))


class EngineName(StrEnum):
    """Where pairs are found and scored."""

    DUCKDB = "duckdb"
    SPARK = "spark"


@app.command()
def relink(
    full: Annotated[bool, typer.Option("--full", help="Compare every pair anew, not only what has changed.")] = False,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="spark (an extra of the package) compares every pair anew.")
    ] = EngineName.DUCKDB,
    master: Annotated[
        str | None, typer.Option("--master", help="Of Spark: spark://..., yarn, k8s://...; default: this machine.")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train a new model beside the one in service, and compare the two.")
    ] = False,
    accept: Annotated[
        str | None,
        typer.Option("--accept", metavar="DIGEST", help="Link by this kept model, whatever it does to the link rate."),
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Your staff id: due with --accept; the log keeps it.")] = None,
    config: Config = None,
    night: Night = None,
    exception: Exceeding = False,
    as_json: AsJson = False,
) -> None:
    """Link everything again, though nothing new came in: by the model in service, or by another.

    With --retrain the new model links in shadow; it takes over unless the share of records that are linked moves by
    more than two points.  Then it is kept, the figures are printed, and `relink --accept DIGEST --by YOU` takes it in.

    Exit codes: 0 published; 1 the new model or a gate's result is refused, and the last good run stays in service.
    """
    with _answering(as_json), _broker(config) as broker:
        from broker import clock, models
        from broker import nightly as night_run

        if (accept is None) != (by is None) or (by is not None and not _STAFF_ID.fullmatch(by)):
            _fail("--accept and --by go together; --by is a staff id: letters, digits and . _ @ -", USAGE, as_json)
        if accept is not None and (retrain or engine is not EngineName.DUCKDB):
            _fail("--accept takes in a model that is there: without --retrain and --engine", USAGE, as_json)
        at = clock.now()
        day = _night(night, at, as_json)
        with _engine(engine, master, as_json) as chosen:
            asked = night_run.Relink(full=full, engine=chosen, retrain=retrain, accept=accept or "", by=by or "")
            try:
                done = night_run.run(broker, night=day, at=at, exception=exception, relink=asked)
            except night_run.ModelRefused as refused:
                digest = refused.comparison["models"][1]
                said = f"{refused}; to take it in: broker relink --accept {digest[:16]} --by YOUR-STAFF-ID"
                _say(as_json, {"refused": str(refused), "comparison": refused.comparison},
                     f"{models.words(refused.comparison)}\n{said}")  # fmt: skip
                raise typer.Exit(FINDING) from None
        _say(as_json, done, json.dumps(done, indent=1, default=str))


@linkage.command("models")
def linkage_models(
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="DIGEST", help="How this one compared when it was trained.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List every model that was trained: digest, state, what for, when, since when in service, who took it in."""
    with _answering(as_json), _broker(config) as broker:
        from broker import models

        with broker.store.reading() as reading:
            listed = models.listed(reading)
        if compare is not None:
            listed = [one for one in listed if len(compare) >= 12 and one["digest"].startswith(compare)]
            if not listed or listed[0]["comparison"] is None:
                _fail("there is no such model, or it was compared with none", FINDING, as_json)
            _say(as_json, listed[0], models.words(listed[0]["comparison"]))
            return
        words = "\n".join(
            f"{one['digest'][:16]}  {one['state']}  {one['why']}  trained {one['trained_at'][:16]}"
            f"  in service {(one['in_service_from'] or '-')[:16]}  {one['accepted_by'] or ''}".rstrip()
            for one in listed
        )
        _say(as_json, listed, words or "No model has been trained yet.")


@linkage.command("rates")
def linkage_rates(config: Config = None, as_json: AsJson = False) -> None:
    """Print how often the records of each group share a person with another flow's, as of the run in service.

    Groups of under 10 records are hidden and counts rounded to 5.  A group more than 5 points below everybody else is a
    finding.  Naming custom and deprivation are not known here: `python -m linkage.evaluation` tells them on labelled
    data.
    """
    with _answering(as_json), _broker(config) as broker:
        from broker.store.runs import LinkRunRow, PublishedRow

        with broker.store.reading() as reading:
            published = reading.one(PublishedRow)
            run = reading.one(LinkRunRow, id=published.run) if published else None
        listed = run.counts.get("rates", []) if run else []
        lines = [f"{'group':16}{'value':34}{'records':>10}{'linked':>8}{'others':>8}"]
        for row in listed:
            shown = [f"{row[name]:.0%}" if row[name] is not None else "-" for name in ("rate", "others")]
            count = f"{row['records']:,}" if row["records"] is not None else "hidden"
            finding = "  FINDING" if row["finding"] else ""
            lines.append(f"{row['group']:16}{row['value']:34}{count:>10}{shown[0]:>8}{shown[1]:>8}{finding}")
        _say(as_json, listed, "\n".join(lines) if listed else "Nothing is in service yet.")


@agencies.command()
def enrol(
    public: Annotated[Path, typer.Argument(help="The agency's public.json.")],
    details: Annotated[
        Path, typer.Option("--details", help="TOML: name, party_type, sector, roles, [contacts.<ref>], [flows.<flow>].")
    ],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Enrol an agency, or change what is registered of it.

    `details` is the host's: name, party_type, sector, roles its gateway may vouch for; [contacts.<ref>] name, phone,
    out_of_hours; [flows.<flow>] expected_by ("06:00", London) and contact.
    """
    with _answering(as_json), _broker(config) as broker:
        import tomllib

        from broker import clock, register

        enrolment = register.Enrolment.parse(json.loads(public.read_bytes()), tomllib.loads(details.read_text("utf-8")))
        entry = register.enrol(
            broker.store, broker.trail, enrolment, partnership=broker.settings.partnership, who=_who(broker),
            at=clock.now(),
        )  # fmt: skip
        broker.trail.receipt(entry)
        _say(as_json, {"agency": enrolment.agency, "event": entry.event_id}, f"{enrolment.agency} is enrolled.")


@agencies.command()
def revoke(
    agency: Annotated[str, typer.Argument(help="The agency's id.")],
    suspend_only: Annotated[bool, typer.Option("--suspend", help="Until `resume`, and keep its keys.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Shut an agency out, in force with its next request: for good, with all its keys, or until resumed."""
    _set_state(config, agency, "suspended" if suspend_only else "revoked", as_json)


@agencies.command()
def resume(
    agency: Annotated[str, typer.Argument(help="The agency's id.")], config: Config = None, as_json: AsJson = False
) -> None:
    """Let a suspended agency in again."""
    _set_state(config, agency, "active", as_json)


@agencies.command("list")
def list_agencies(config: Config = None, as_json: AsJson = False) -> None:
    """List agencies, their state, and how recent each of their feeds is."""
    with _answering(as_json), _broker(config) as broker:
        from broker import clock, register
        from broker.store.agencies import AgencyRow

        with broker.store.reading() as reading:
            rows = reading.all(AgencyRow, order=("id",))
            feeds = register.feeds(reading, at=clock.now())
        flows = {row.id: {feed.flow: feed.state for feed in feeds if feed.organisation == row.id} for row in rows}
        listed = [{"agency": row.id, "name": row.name, "state": row.state, "flows": flows[row.id]} for row in rows]
        words = "\n".join(
            f"{row.id}  {row.state}  {', '.join(f'{flow} {state}' for flow, state in flows[row.id].items())}"
            for row in rows
        )
        _say(as_json, listed, words or "No agency is enrolled.")


class BatchState(StrEnum):
    """The states of a batch."""

    OPEN = "open"
    SEALED = "sealed"
    VALIDATING = "validating"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    ACCEPTED = "accepted"
    LINKED = "linked"
    SUPERSEDED = "superseded"


@batches.command("list")
def list_batches(
    state: Annotated[BatchState | None, typer.Option("--state", help="Only those in this state.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first: whose, how large, in which state, and the code of why."""
    with _answering(as_json), _broker(config) as broker:
        from broker.reception import declared
        from broker.store.batches import BatchRow

        where = {"state": state.value} if state else {}
        with broker.store.reading() as reading:
            rows = reading.all(BatchRow, order=("-opened_at", "id"), limit=1000, **where)
        listed: list[dict[str, Any]] = [
            {
                "batch": row.id, "agency": row.agency, "flow": row.flow, "sequence": row.sequence, "kind": row.kind,
                "state": row.state, "reason": (row.verdict or {}).get("code"), "rows": declared(row),
                "opened_at": row.opened_at.isoformat(),
            }
            for row in rows
        ]  # fmt: skip
        words = "\n".join(
            f"{one['batch']}  {one['agency']}/{one['flow']} {one['sequence']} {one['kind']}  {one['state']}"
            f"  {one['reason'] or '-'}  {', '.join(f'{count} {table}' for table, count in one['rows'].items())}"
            for one in listed
        )
        _say(as_json, listed, words or "There is no such batch.")


@batches.command("release")
def release_batch(
    batch: Annotated[str, typer.Argument(help="The batch's id, as `list --state quarantined` shows it.")],
    by: Annotated[str, typer.Option("--by", help="Your staff id: the log keeps who let the batch in.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let in a quarantined batch that you have looked at with its agency.

    Its rows are checked again; only its unusual size, or its clock, is no longer held against it.  The next night links
    it.  Exit codes: 0 it is accepted; 1 it is not in quarantine, or not accepted for another reason.
    """
    with _answering(as_json), _broker(config) as broker:
        from broker import validation
        from broker.reception import Reception

        if not _STAFF_ID.fullmatch(by):
            _fail("--by is a staff id: letters, digits and . _ @ -", USAGE, as_json)
        reception = Reception.of(broker.settings, broker.store, broker.keys, broker.trail)
        became = validation.release(reception, batch, by=by)
        broker.trail.advance_pending()
        _say(as_json, {"batch": batch, "state": became}, f"{batch} is {became}.")
        if became != "accepted":
            raise typer.Exit(FINDING)


Document = Annotated[Path, typer.Argument(help="The agreement or restriction, TOML.")]
Umbrellas = Annotated[list[Path] | None, typer.Option("--umbrella", help="The TOML of an umbrella it stands under.")]
Ref = Annotated[str, typer.Argument(help="<id>@<version>")]


@linkage.command("overrides")
def list_overrides(config: Config = None, as_json: AsJson = False) -> None:
    """List what agencies have severed and reviewers have decided: kind, state, why, by whom.  Never whose records.

    There is no command that ends one: a reviewer takes back what reviewers decided, and nobody undoes a sever.
    """
    with _answering(as_json), _broker(config) as broker:
        from broker import overrides

        with broker.store.reading() as reading:
            listed = overrides.listed(reading)
        words = "\n".join(
            f"{one['override']}  {one['kind']}  {one['state']}  {one['reason']}  {one['organisation']}  {one['from']}"
            for one in listed
        )
        _say(as_json, listed, words or "No override is kept.")


@agreements.command("check")
def check_document(document: Document, umbrella: Umbrellas = None, as_json: AsJson = False) -> None:
    """Say all that is wrong with a document, and what to write instead.  Needs no database.

    Exit codes: 0 it loads (warnings may be printed); 1 it does not.
    """
    with _answering(as_json):
        from broker import documents

        found = documents.findings(document.read_bytes(), [path.read_bytes() for path in umbrella or ()])
        listed = [
            {"path": f.path, "message": f.message, "fix": f.fix, "severity": f.severity} for f in found
        ]  # fmt: skip
        _say(as_json, listed, "\n".join(f"{f.severity}: {f.path}: {f.message}; {f.fix}" for f in found) or "It loads.")
        if any(f.severity == "refused" for f in found):
            raise typer.Exit(FINDING)


@agreements.command("sign")
def sign_documents(
    documents: Annotated[list[Path], typer.Argument(help="Agreements or restrictions, TOML.")],
    key: Annotated[Path, typer.Option(help="Its signatory's Ed25519 key, PEM, mode 0600.")],
    kid: Annotated[str, typer.Option(help="The key's registered name, <agency>/<n>: it says which party signs.")],
    out: Annotated[Path, typer.Option(help="The folder where <id>.<party>.json goes, one a document.")],
    umbrella: Umbrellas = None,
    as_json: AsJson = False,
) -> None:
    """Sign documents for a party, on the signatory's own machine.  Needs no database."""
    with _answering(as_json):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        from agreements import BadSignature, sign
        from broker import clock
        from broker.documents import read_alone
        from broker.keys import private_key

        umbrellas = [path.read_bytes() for path in umbrella or ()]
        loaded = [read_alone(document.read_bytes(), umbrellas) for document in documents]
        private = private_key(key)
        if not isinstance(private, Ed25519PrivateKey):
            _fail("the key is not an Ed25519 key", USAGE, as_json)
        at = clock.now().replace(microsecond=0)
        try:
            signed = [(document, sign(document, kid=kid, key=private, at=at)) for document in loaded]
        except BadSignature as refused:
            _fail(str(refused), FINDING, as_json)
        out.mkdir(parents=True, exist_ok=True)
        told = []
        for document, jws in signed:
            path = out / f"{document.id}.{kid.split('/')[0]}.json"
            path.write_text(json.dumps(jws, indent=1) + "\n", "utf-8")
            told.append({"document": document.ref, "kid": kid, "out": str(path)})
        _say(as_json, told, "\n".join(f"{one['kid']} signs {one['document']}: {one['out']}" for one in told))


@agreements.command("import")
def import_documents(
    documents: Annotated[list[Path], typer.Argument(help="Agreements or restrictions, TOML; umbrellas first.")],
    signature: Annotated[list[Path] | None, typer.Option(help="Signatures (JSON) over them.")] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Put each in force as well.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take documents and signatures into the register.  Twice the same changes nothing."""
    with _answering(as_json), _broker(config) as broker:
        from broker import clock, register

        who, at = _who(broker), clock.now()
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
        _say(
            as_json, signed, "\n".join(f"{ref}: signed by {', '.join(p) or 'nobody yet'}" for ref, p in signed.items())
        )


@agreements.command()
def activate(ref: Ref, config: Config = None, as_json: AsJson = False) -> None:
    """Put a document in force at this host; a party that has not signed yet stops its own flows only."""
    _change(config, ref, as_json, "is in force", lambda register: register.activate)


@agreements.command()
def suspend(ref: Ref, config: Config = None, as_json: AsJson = False) -> None:
    """Take an agreement out of force at this host, from the next decision on; `activate` puts it back."""
    _change(config, ref, as_json, "is suspended", lambda register: register.suspend)


@agreements.command("event")
def party_event(
    ref: Ref,
    event: Annotated[Path, typer.Argument(help="The party's signed event, JSON.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take in a party's own signed event: it suspends, resumes, withdraws or replaces its part."""
    with _answering(as_json), _broker(config) as broker:
        from broker import clock, register

        jws = json.loads(event.read_bytes())
        done = register.add_party_event(broker.store, broker.trail, ref, jws, who=_who(broker), at=clock.now())
        broker.trail.advance_pending()
        _say(as_json, {"agreement": ref, "event": done}, f"{ref}: {done}")


@agreements.command("list")
def list_documents(config: Config = None, as_json: AsJson = False) -> None:
    """List the documents of the register, which are in force, and where each party stands."""
    with _answering(as_json), _broker(config) as broker:
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
        _say(as_json, listed, words or "The register is empty.")


def main() -> None:
    """The entry point.  What it writes is for its own user only, and a crash leaves no core file with keys in it."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    app()


@contextmanager
def _answering(as_json: bool) -> Iterator[None]:
    """Turn what went wrong into one line and an exit code."""
    from broker import errors

    unreachable = (errors.StoreUnavailable, errors.LogUnavailable, errors.KeyUnavailable, errors.UnsafeDatabase)
    try:
        yield
    except (errors.BadSettings, errors.Malformed) as wrong:
        _fail(str(wrong), USAGE, as_json)
    except unreachable as wrong:
        _fail(str(wrong), UNKNOWN, as_json)
    except errors.BrokerError as wrong:
        _fail(str(wrong), FINDING, as_json)
    except FileNotFoundError as wrong:
        _fail(f"there is no file {wrong.filename}", USAGE, as_json)
    except (json.JSONDecodeError, UnicodeDecodeError):
        _fail("a file is not JSON in UTF-8", USAGE, as_json)


@contextmanager
def _broker(config: Path | None) -> Iterator[Broker]:
    from broker.wiring import configure_logging, wire

    configure_logging()
    broker = wire(_settings(config))
    try:
        yield broker
    finally:
        broker.store.close()


def _night(night: str | None, at: datetime, as_json: bool) -> date:
    from broker.register import LONDON

    try:
        return date.fromisoformat(night) if night else at.astimezone(LONDON).date()
    except ValueError:
        _fail("--date is a day such as 2026-11-02", USAGE, as_json)


@contextmanager
def _engine(name: EngineName, master: str | None, as_json: bool) -> Iterator[Engine | None]:
    """What blocks and scores instead of DuckDB, for as long as it is needed; None for DuckDB."""
    if name is EngineName.DUCKDB:
        yield None
        return
    from linkage.matching.spark import SparkFailed, SparkUnavailable, spark_engine

    try:
        with spark_engine(master=master) as engine:
            yield engine
    except SparkUnavailable as wrong:
        _fail(str(wrong), USAGE, as_json)
    except SparkFailed as wrong:
        _fail(str(wrong), UNKNOWN, as_json)


def _settings(config: Path | None) -> Settings:
    from broker.settings import read

    return read(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as wrong:
        _fail(f"can't listen on {host} port {port}: {wrong.strerror}", USAGE, False)
    return listening


def _make_keys(settings: Settings) -> dict[str, str]:
    from broker.keys import Keys

    return _public(settings, Keys.make(settings.data_dir / "keys"))


def _public(settings: Settings, made: Any) -> dict[str, str]:
    from audit.checkpoint import VerifierKey
    from broker.keys import b64url

    return {
        "log": str(VerifierKey.of(made.log_key, settings.origin)),
        "receipts_kid": made.receipt_kid,
        "receipts": b64url(made.receipt_public()),
    }


def _migrate(settings: Settings) -> None:
    from broker.wiring import open_installation

    open_installation(settings)


def _set_state(config: Path | None, agency: str, state: Any, as_json: bool) -> None:
    with _answering(as_json), _broker(config) as broker:
        from broker import clock, register

        entry = register.set_state(broker.store, broker.trail, agency, state, who=_who(broker), at=clock.now())
        broker.trail.receipt(entry)
        _say(as_json, {"agency": agency, "state": state, "event": entry.event_id}, f"{agency} is {state}.")


def _change(config: Path | None, ref: str, as_json: bool, words: str, act: Callable[[Any], Any]) -> None:
    with _answering(as_json), _broker(config) as broker:
        from broker import clock, register

        entry = act(register)(broker.store, broker.trail, ref, who=_who(broker), at=clock.now())
        if entry is not None:
            broker.trail.receipt(entry)
        _say(as_json, {"agreement": ref, "event": entry.event_id if entry else None}, f"{ref} {words}.")


def _who(broker: Broker) -> dict[str, str]:
    return {"organisation": broker.settings.partnership, "role": "OPERATOR", "method": "command"}


def _say(as_json: bool, value: Any, words: str) -> None:
    print(json.dumps(value, default=str) if as_json else words)


def _fail(message: str, code: int, as_json: bool) -> NoReturn:
    print(json.dumps({"error": message}) if as_json else f"broker: {message}", file=sys.stderr)
    raise typer.Exit(code)
