"""`broker agreements export`: documents in other languages, and what an auditor needs to decide again."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli import told
from broker.cli.agreements import Umbrellas
from broker.cli.shared import (
    FINDING,
    USAGE,
    AsJson,
    Config,
    answering,
    bytes_of,
    fail,
    is_file,
    json_of,
    open_broker,
    operator_of,
    say,
    staff_id,
    umbrellas,
    write_all,
)

if TYPE_CHECKING:
    from broker.exporting import Chosen


class To(StrEnum):
    """What to write."""

    text = "text"
    print = "print"
    odrl = "odrl"
    cedar = "cedar"
    article30 = "article30"
    article30_csv = "article30-csv"
    article30_markdown = "article30-markdown"
    dfe = "dfe"
    schema = "schema"
    vocabulary = "vocabulary"
    bundle = "bundle"
    keys = "keys"


def export_documents(
    document: Annotated[
        str | None, typer.Argument(help="<id>@<version> of the register, or a TOML file; without it, all in force.")
    ] = None,
    to: Annotated[To, typer.Option("--to", help="The language.")] = To.text,
    bundle: Annotated[bool, typer.Option("--bundle", help="The same as --to bundle.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write, instead of standard output.")] = None,
    umbrella: Umbrellas = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write documents in another language.  A file needs no database.

    With --config, umbrellas of the register need not be given.

    text: plain English, for whoever signs.  print: a page to print and sign.  odrl: ODRL 2.2 with DPV, JSON-LD.
    cedar: Cedar policies; with --out also their schema and entities, beside it.  article30 (-csv, -markdown): records
    of processing activities.  dfe: the rule shape of the DfE's Find and Fetch.  schema: JSON Schemas of both kinds of
    document.  vocabulary: the terms that odrl uses.  bundle: what `auditor replay` needs: all that was ever in force
    here, with signatures and keys.  keys: the public keys alone, a JWK set, for `auditor replay --keys`.

    Exit codes: 0 written; 1 the document does not load; 2 wrong usage; 3 a file or the database can't be read.
    """
    with answering(as_json):
        from broker import exporting

        kind = To.bundle if bundle else to
        if kind in (To.bundle, To.keys):
            if document is not None:
                fail("a bundle, as the keys, is of the whole register: name no document", USAGE, as_json)
            with open_broker(config) as broker, broker.store.reading() as reading:
                if kind is To.keys:
                    _write({"": exporting.public_keys(reading, broker.keys)}, out, as_json)
                else:
                    _write({"": exporting.bundle(reading, broker.keys).decode()}, out, as_json)
            return
        if kind.value in exporting.PUBLISHED:
            _write({"": exporting.published(kind.value)}, out, as_json)
            return
        chosen = _chosen(document, umbrella or [], config, as_json)
        if kind is To.cedar and (out is not None or as_json):
            _write(exporting.cedar_parts(chosen), out, as_json)
        elif kind is To.print:
            _write({"": printed(chosen)}, out, as_json)
        else:
            _write({"": exporting.export(chosen, kind.value)}, out, as_json)


def printed(chosen: Chosen) -> str:
    """One document as a page to print and sign.  Raises Malformed where there are several."""
    from broker.web import printing

    document = chosen.only()
    return printing.pages(document, chosen.snapshot, umbrella=chosen.umbrella(document))


def draft_agreement(
    policies: Annotated[Path, typer.Argument(help="A policy in the DfE's rule shape, or a list of them: JSON.")],
    source: Annotated[str, typer.Option(help="Whose policy: its orgId.")],
    name: Annotated[str, typer.Option("--id", help="The id of the agreement to be.")],
    out: Annotated[Path | None, typer.Option("--out", help="The file to write, instead of standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Begin an agreement from rules of the DfE's Find and Fetch.  Needs no database, and puts nothing in force.

    The draft does not load until a person has written what those rules can't say: `broker agreements check` lists it.

    Exit codes: 0 written; 1 the rules can't become an agreement; 2 wrong usage; 3 the file can't be read.
    """
    with answering(as_json):
        from agreements import VOCABULARY
        from agreements.export.dfe_draft import RuleRefused, draft

        given = json_of(policies)
        several = given if isinstance(given, list) else [given]
        policy = next((one for one in several if isinstance(one, dict) and one.get("orgId") == source), None)
        if policy is None:
            fail(f"there is no policy of {source} in it", FINDING, as_json)
        try:
            text = draft(policy, VOCABULARY, name=name)
        except RuleRefused as refused:
            fail(str(refused), FINDING, as_json)
        _write({"": text}, out, as_json)


def write_receipts(
    event: Annotated[
        str, typer.Argument(metavar="EVENT", help="The event's id: a view's receipt and `what-if` tell it.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder where <event>.<source>.json goes, one a source.")],
    by: Annotated[str, typer.Option("--by", help="Your staff id: the log keeps who took them out.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write the full decision receipts of one question: what `auditor replay FOLDER BUNDLE` decides again.

    One a source.  They hold what was known of each record and what was hidden: they are for that source, for
    information governance and for courts, and that they were taken out is in the log first.

    Exit codes: 0 written; 1 no such event, or nothing was decided in it; 2 wrong usage; 3 the database, the log or the
    folder can't be reached.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import analysing, clock

        who = operator_of(broker, staff_id(by, as_json))
        found = analysing.receipts_of(broker.store, broker.trail, event, who=who, at=clock.now())
        paths = {source: out / f"{event}.{source}.json" for source in sorted(found)}
        write_all({path: found[source] for source, path in paths.items()}, folder=0o700)
        written = [{"source": source, "out": str(path)} for source, path in paths.items()]
        say(as_json, written, "\n".join(f"written to {one['out']}" for one in written))


def _chosen(document: str | None, umbrella: list[Path], config: Path | None, as_json: bool) -> Chosen:
    from broker import exporting
    from broker.errors import NotFound

    if document is not None and is_file(document):
        source = bytes_of(Path(document))
        with told.about(Path(document)):
            return exporting.of_file(source, umbrellas(umbrella, config, source))
    with open_broker(config) as broker, broker.store.reading() as reading:
        try:
            return exporting.of_register(reading, document)
        except NotFound as wrong:
            fail(str(wrong), USAGE, as_json)


def _write(texts: Mapping[str, str], out: Path | None, as_json: bool) -> None:
    """Print, or write: several texts each under its own ending, beside one another."""
    if out is None:
        first = next(iter(texts.values()))
        say(as_json, dict(texts) if len(texts) > 1 else first, first.rstrip("\n"))
        return
    paths = {ending: out if not ending else out.with_suffix(f".{ending}") for ending in texts}
    write_all({path: texts[ending].encode() for ending, path in paths.items()})
    written = [str(path) for path in paths.values()]
    say(as_json, {"out": written}, "\n".join(f"written to {path}" for path in written))
