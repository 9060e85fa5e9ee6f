"""`broker agreements diff | who-can-see | what-if | lint`: what agreements mean, before and after they are in force."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    open_broker,
    operator_of,
    say,
    stands_under,
    umbrellas,
)

if TYPE_CHECKING:
    from agreements import Snapshot
    from agreements.analysis import Difference
    from agreements.analysis.lint import Remark
    from broker.analysing import Candidate

Files = Annotated[
    list[Path] | None, typer.Argument(metavar="[FILE]...", help="TOML files instead of the register; no database then.")
]
On = Annotated[datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="A London day; else now.")]


class As(StrEnum):
    """How to tell who can see what."""

    prose = "prose"
    csv = "csv"


def diff_documents(
    before: Annotated[str, typer.Argument(metavar="A", help="A TOML file, or <id>@<version> of the register.")],
    after: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Another; without it, A is held against all that is in force.")
    ] = None,
    umbrella: Umbrellas = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say exactly what changes from one version to the other: what is newly shown to whom, and what no longer.

    Two files need no database; each counts as signed by all its parties, and of two versions the second replaces the
    first from its own first day.  With A alone: what would change here if A were signed by all and put in force now.
    Umbrellas and restrictions show nothing by themselves: two of those are held against each other among all that is
    in force, with --config.  With it, umbrellas of the register need not be given.

    Exit codes: 0 nothing changes; 1 something does, or a document does not load; 2 wrong usage; 3 a file or the
    database can't be read.
    """
    with answering(as_json), _readable(as_json):
        from broker import analysing, clock

        names = [before] if after is None else [before, after]
        above = [bytes_of(path) for path in umbrella or ()]
        found: Difference | None = None
        if len(names) == 2 and all(map(is_file, names)):
            above = umbrellas(umbrella, config, *(bytes_of(Path(one)) for one in names))
            found = analysing.between(*(_candidate(Path(one), above) for one in names))
            if found is None and config is None:
                fail("umbrellas and restrictions show nothing by themselves: give --config as well", USAGE, as_json)
        premises: tuple[str, ...] = ()
        if found is None:
            with open_broker(config) as broker, broker.store.reading() as reading:
                drafts = [
                    _candidate(Path(name), above or analysing.umbrellas_here(reading))
                    if is_file(name)
                    else analysing.candidate_of(reading, name)
                    for name in names
                ]
                at = clock.now()
                if len(drafts) == 1:
                    found = analysing.against_register(reading, drafts[0], at=at)
                    premises = analysing.taken_for_granted(reading, drafts[0])
                else:
                    found = analysing.compared(reading, *drafts, at=at)
        say(as_json, found.to_json(), "\n".join([*premises, *(found.lines() or ["Nothing changes."])]))
        if found:
            raise typer.Exit(FINDING)


def who_can_see(
    files: Files = None,
    org: Annotated[str | None, typer.Option("--org", help="The organisation that asks.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="A role, as MASH_ANALYST.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="The organisation whose information it is.")] = None,
    purpose: Annotated[str | None, typer.Option("--purpose", help="A purpose, or a group of them.")] = None,
    category: Annotated[str | None, typer.Option("--category", help="A category, as health.not_brought.")] = None,
    on: On = None,
    form: Annotated[As, typer.Option("--as", help="prose, or csv: a row each.")] = As.prose,
    umbrella: Umbrellas = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say who may see what of whom, for which purpose, under which clause, what that takes, and what may hold it back.

    With --config, umbrellas of the register need not be given for files.

    Exit codes: 0 told, be it that nobody can; 1 a document does not load; 2 a party that is none here, or a term that
    is not of the vocabulary; 3 a file or the database can't be read.
    """
    with answering(as_json), _readable(as_json):
        from agreements import VOCABULARY
        from agreements.analysis import Space
        from agreements.analysis.sight import Filter, in_prose, to_csv, to_json
        from agreements.analysis.sight import who_can_see as seen
        from broker import clock

        wanted = Filter(organisation=org, role=role, source=source, purpose=purpose, category=category)
        at = _noon(on.date()) if on is not None else clock.now()
        with _estate(files, umbrella, config) as (snapshot, parties):
            if (unknown := wanted.unknown(VOCABULARY, parties)) is not None:
                fail(f"--{unknown.asked}: {unknown.words}", USAGE, as_json)
            sights = seen(snapshot, VOCABULARY, wanted, at=at)
            told = to_csv(sights).rstrip() if form is As.csv else None
            prose = "\n".join(in_prose(Space.of(VOCABULARY, snapshot), sights)) if told is None else told
        say(as_json, to_json(sights), prose or "Nobody can.")


def what_if(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="A TOML file, or a draft of the register.")],
    since: Annotated[
        datetime | None, typer.Option("--since", formats=["%Y-%m-%d"], help="A London day; else all that is kept.")
    ] = None,
    umbrella: Umbrellas = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say exactly which past questions a document would have answered otherwise, had it been in force.

    Every question of a family view, granted or refused, is decided again from its receipt.  Looking is itself logged.
    Umbrellas of the register need not be given.

    Exit codes: 0 none; 1 some, or the document does not load; 2 wrong usage; 3 a file, the database or the log can't be
    read.
    """
    with answering(as_json), _readable(as_json), open_broker(config) as broker:
        from agreements.agreement import london_midnight
        from broker import analysing, clock

        above = [bytes_of(path) for path in umbrella or ()]
        with broker.store.reading() as reading:
            if is_file(candidate):
                draft = _candidate(Path(candidate), above or analysing.umbrellas_here(reading))
            else:
                draft = analysing.candidate_of(reading, candidate)
            premises = analysing.taken_for_granted(reading, draft)
        changes = analysing.replay_past(
            broker.store, broker.trail, draft, after=london_midnight(since.date()) if since else None,
            who=operator_of(broker), at=clock.now(),
        )  # fmt: skip
        lines = [*premises, f"{len(changes.changed)} of {changes.looked_at} past decisions would be otherwise."]
        for group in changes.groups():
            named = ", ".join(group.ids[:3]) + (" and more" if len(group.ids) > 3 else "")
            lines.append(f"  {group.line}: {named}")
        say(as_json, changes.to_json() | {"supposed": list(premises)}, "\n".join(lines))
        if changes.changed:
            raise typer.Exit(FINDING)


def lint_estate(
    files: Files = None,
    unused: Annotated[
        int | None, typer.Option("--unused", min=1, help="Also clauses that nobody used in so many months.")
    ] = None,
    gaps: Annotated[bool, typer.Option(help="Also what purposes would allow and no clause gives.")] = True,
    on: On = None,
    umbrella: Umbrellas = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Look over all that is in force, or some files: clauses that are dead, doubled, too wide, held back or unused,
    what nobody shares that a purpose would allow, and what falls due.

    A warning asks for an answer; a note may well be meant.  --unused reads past decisions, and that is logged.

    With --config, umbrellas of the register need not be given for files.

    Exit codes: 0 no warning; 1 some, or a document does not load; 2 wrong usage; 3 a file, the database or the log
    can't be read.
    """
    with answering(as_json), _readable(as_json):
        from agreements import VOCABULARY
        from agreements.analysis.lint import lint
        from broker import analysing, clock

        at = _noon(on.date()) if on is not None else clock.now()
        remarks: Sequence[Remark]
        usage: list[dict[str, Any]] = []
        if files:
            if unused is not None:
                fail("--unused is of the register, not of files", USAGE, as_json)
            with _estate(files, umbrella, config) as (snapshot, _):
                remarks = lint(snapshot, VOCABULARY, at=at)
        else:
            with open_broker(config) as broker:
                with broker.store.reading() as reading:
                    remarks = analysing.looked_over(reading, at=at)
                if unused is not None:
                    usage = _usage(broker, unused, at)
        remarks = [one for one in remarks if gaps or one.kind != "gap"]
        body = [
            {"kind": one.kind, "severity": one.severity, "ref": one.ref, "message": one.message, "fix": one.fix}
            for one in remarks
        ] + usage
        words = "\n".join(
            f"{one['severity']}: {one['kind']}: {one['ref']}: {one['message']}; {one['fix']}" for one in body
        )
        say(as_json, body, words or "Nothing to look at.")
        if any(one["severity"] == "warning" for one in body):
            raise typer.Exit(FINDING)


def _usage(broker: Any, months: int, at: datetime) -> list[dict[str, Any]]:
    from agreements.words import listed
    from broker import analysing

    unused, missed = analysing.used(broker.store, broker.trail, months=months, who=operator_of(broker), at=at)
    return [
        {
            "kind": "unused", "severity": "warning", "ref": str(one.clause), "fix": "take it out, if nobody needs it",
            "message": f"nobody relied on it in {months} months",
        }
        for one in unused
    ] + [
        {
            "kind": "refused", "severity": "note", "ref": str(one.clause), "fix": "widen it, if that was wrong",
            "message": f"{one.organisation} {one.role} was refused {listed(one.categories)} of {one.source} for "
            f"{one.purpose} for want of `{one.test}` alone, {one.count} times",
        }
        for one in missed
    ]  # fmt: skip


@contextmanager
def _estate(
    files: Sequence[Path] | None, umbrella: Sequence[Path] | None, config: Path | None
) -> Iterator[tuple[Snapshot, frozenset[str]]]:
    """What is looked at, and everybody who is a party to anything there."""
    from broker import analysing, register

    if files:
        sources = [*map(bytes_of, files)]
        among = [source for source in sources if not stands_under(source) and _loads(source)]
        above = [*umbrellas(umbrella, config, *sources), *among]
        snapshot = analysing.estate_of(
            [_candidate(path, above) for _, path in sorted(zip(map(stands_under, sources), files, strict=True))]
        )  # umbrellas first: what is wrong with one is told of it
        yield snapshot, frozenset(party for agreement in snapshot.agreements for party in agreement.parties)
        return
    with open_broker(config) as broker, broker.store.reading() as reading:
        yield register.snapshot(reading), analysing.names_here(reading)


@contextmanager
def _readable(as_json: bool) -> Iterator[None]:
    """A document that does not load is a finding, as `check` has it; a name that no document has is wrong usage."""
    from broker.errors import BadAgreement, NotFound

    try:
        yield
    except BadAgreement as wrong:
        fail(str(wrong), FINDING, as_json)
    except NotFound as wrong:
        fail(str(wrong), USAGE, as_json)


def _candidate(path: Path, umbrellas: Sequence[bytes]) -> Candidate:
    """A document of a file.  Raises BadAgreement, which names the file."""
    from broker import analysing
    from broker.errors import BadAgreement

    try:
        return analysing.Candidate.of(bytes_of(path), umbrellas)
    except BadAgreement as wrong:
        raise BadAgreement(f"{path.name}: {wrong}") from None


def _loads(source: bytes) -> bool:
    from broker import analysing
    from broker.errors import BadAgreement

    try:
        analysing.Candidate.of(source)
    except BadAgreement:
        return False
    return True


def _noon(day: date) -> datetime:
    from agreements.agreement import london_midnight

    return london_midnight(day) + timedelta(hours=12)
