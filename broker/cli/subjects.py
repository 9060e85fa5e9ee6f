"""`broker subjects`: who saw what of somebody, legal holds, erasure by two people, expiry of the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.shared import USAGE, AsJson, Config, answering, fail, new_file, officer_of, open_broker, say

if TYPE_CHECKING:
    from broker.access import Rulings
    from broker.erasure import Erasure, Hold
    from broker.lifting import Lift
    from broker.linked import LinkedArea
    from broker.wiring import Broker

app = typer.Typer(
    help="Rights of those the log is about: access, legal holds, erasure by two people, expiry.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Subject = Annotated[str, typer.Argument(help="A person id, or a record as agency/flow/record_ref.")]
By = Annotated[str, typer.Option("--by", help="Your staff id, as information governance: the log keeps it.")]
_NOT_PURGED = (
    "Deleted bytes may be left in the database's files, as a reader is at work or this user does not own the tables: "
    "`broker subjects purge` later, as their owner."
)
Alone = Annotated[
    bool, typer.Option("--alone", help="This id only, not the person's records and the ids that led to them.")
]


@app.command()
def report(
    subject: Subject,
    by: By,
    out: Annotated[Path, typer.Option("--out", help="The zip to write; one that is there is not replaced.")],
    relation: Annotated[str, typer.Option("--relation", help="Who asks: self, parent, representative.")] = "self",
    withhold: Annotated[
        list[str] | None,
        typer.Option("--withhold", metavar="EVENT:SECTION=CODE", help="Withhold a section, or EVENT:*=CODE an entry."),
    ] = None,
    show: Annotated[
        list[str] | None,
        typer.Option("--show", metavar="EVENT:SECTION", help="Show what would be withheld from the start."),
    ] = None,
    alone: Alone = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write a subject's pack: who saw what, when, why and under which clause, each entry with its proof.

    From the start are withheld: `detail`; where somebody else is named too, `subjects` and `what`; to a parent, child
    abuse data, and everything where a shield lies over the child.  Exemptions: crime, law_enforcement, third_party,
    serious_harm, child_abuse_data, legal_privilege, regulatory, court.  Every receipt in the pack checks with `auditor
    inclusion`; the log has the pack's SHA-256.

    Exit codes: 0 written, readable to you alone; 2 wrong usage; 3 the log can't be reached, or the file can't be
    written: then no pack was issued.
    """
    rulings = _rulings(withhold or (), show or (), as_json)
    with answering(as_json), open_broker(config) as broker:
        from broker import access, clock

        caller = officer_of(broker, by, as_json)
        area, ids = _found(broker, subject, alone=alone)
        with new_file(out, as_json) as file:
            pack = access.report(
                broker.store, broker.trail, broker.keys, area, caller, ids=ids, relation=relation, rulings=rulings,
                at=clock.now(),
            ).answer  # fmt: skip
            file.write(pack.content)
        entries = len(pack.ledger["entries"])
        partly = sum(bool(one["exemption"].keys() - {"detail"}) for one in pack.ledger["entries"])
        told = {
            "report": pack.report, "sha256": pack.sha256, "entries": entries, "partly_withheld": partly,
            "file": str(out),
        }  # fmt: skip
        words = f"; {partly} of them withheld in part: look, and rule with --show or --withhold" if partly else ""
        say(
            as_json, told,
            f"{entries} entries in {out}{words}\nSHA-256 {pack.sha256}, in the log as event {pack.report}",
        )  # fmt: skip


@app.command()
def hold(
    subject: Subject,
    by: By,
    reason: Annotated[
        str,
        typer.Option(
            "--reason",
            help="court_proceedings, police_investigation, safeguarding_review, public_inquiry, complaint or "
            "commissioner_enquiry.",
        ),
    ],
    alone: Alone = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Lay a legal hold on a subject: nothing of it is erased or expires until it is released."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, erasure

        _, ids = _found(broker, subject, alone=alone)
        caller = officer_of(broker, by, as_json)
        done = erasure.hold(broker.store, broker.trail, broker.keys, caller, ids=ids, reason=reason, at=clock.now())
        say(as_json, asdict(done.answer), _hold_line(done.answer))


@app.command()
def release(
    held: Annotated[str, typer.Argument(metavar="HOLD", help="The hold's id, from `holds`.")],
    by: By,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Release a legal hold."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, erasure

        caller = officer_of(broker, by, as_json)
        done = erasure.release(broker.store, broker.trail, caller, hold=held, at=clock.now())
        say(as_json, asdict(done.answer), _hold_line(done.answer))


@app.command("holds")
def list_holds(by: By, config: Config = None, as_json: AsJson = False) -> None:
    """List every legal hold, released ones too; never on whom it lies."""
    with answering(as_json), open_broker(config) as broker:
        from broker import erasure

        listed = erasure.holds(broker.store, officer_of(broker, by, as_json))
        say(as_json, [asdict(one) for one in listed], "\n".join(map(_hold_line, listed)) or "There is no hold.")


@app.command()
def erase(
    subject: Subject,
    by: By,
    authority: Annotated[
        str,
        typer.Option(
            "--authority",
            help="subject_request, unlawful_processing, court_order, commissioner_order or controller_decision.",
        ),
    ],
    alone: Alone = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Propose to erase a subject.  Nothing goes until another person approves it: `broker subjects approve`.

    Exit codes: 0 proposed; 1 a legal hold forbids it, and which.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, erasure

        _, ids = _found(broker, subject, alone=alone)
        caller = officer_of(broker, by, as_json)
        done = erasure.propose(
            broker.store, broker.trail, broker.keys, caller, ids=ids, authority=authority, at=clock.now()
        )
        next_ = f"\nanother person: broker subjects approve {done.answer.erasure} --by THEIR-STAFF-ID"
        say(as_json, asdict(done.answer), _erasure_line(done.answer) + next_)


Proposed = Annotated[str, typer.Argument(metavar="ERASURE", help="The erasure's id, from `erasures`.")]


@app.command()
def approve(proposed: Proposed, by: By, config: Config = None, as_json: AsJson = False) -> None:
    """Carry out an erasure that somebody else has proposed.  It can't be undone.

    Bodies, salts and keys of the events about the subject are gone, and what is held of them beside the log; the tree,
    its proofs and receipts stay valid.  Then the database's files are written anew, so that no deleted byte is left.
    The next `broker nightly` drops the encodings; the answer says what remains, and until when.

    Exit codes: 0 erased; 1 refused, and why.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, erasure
        from broker.store.tombstones import Tombstones

        caller, kept = officer_of(broker, by, as_json), Tombstones(broker.settings.data_dir)
        done = erasure.approve(broker.store, broker.trail, broker.keys, kept, caller, erasure=proposed, at=clock.now())
        purged = erasure.purge(broker.store, broker.trail, kept, who=caller.who(), at=clock.now())
        words = "" if purged else f"\n{_NOT_PURGED}"
        remains = "\n".join(f"  {what}: {until}" for what, until in done.answer.remains.items())
        told = f"{_erasure_line(done.answer)}{words}\nWhat remains:\n{remains}"
        say(as_json, asdict(done.answer) | {"purged": purged}, told)


@app.command()
def refuse(
    proposed: Proposed,
    by: By,
    reason: Annotated[str, typer.Option("--reason", help="still_needed, wrong_subject or not_authorised.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say that a proposed erasure is not carried out, and why; who proposed it may take it back so."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, erasure

        caller = officer_of(broker, by, as_json)
        done = erasure.refuse(broker.store, broker.trail, caller, erasure=proposed, reason=reason, at=clock.now())
        say(as_json, asdict(done.answer), _erasure_line(done.answer))


@app.command("erasures")
def list_erasures(by: By, config: Config = None, as_json: AsJson = False) -> None:
    """List every erasure, with what went; never of whom it was."""
    with answering(as_json), open_broker(config) as broker:
        from broker import erasure

        listed = erasure.erasures(broker.store, officer_of(broker, by, as_json))
        say(as_json, [asdict(one) for one in listed], "\n".join(map(_erasure_line, listed)) or "Nobody was erased.")


@app.command()
def lift(
    subject: Subject,
    by: By,
    reason: Annotated[
        str, typer.Option("--reason", help="known_again, erased_in_error, court_order or subject_request.")
    ],
    alone: Annotated[
        bool, typer.Option("--alone", help="This id only, not every id that was erased together with it.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Propose that somebody who was erased may be linked again: a child who comes back to a service.

    Name a record that was erased, as agency/flow/record_ref. Nothing changes until another person confirms it: `broker
    subjects confirm`. From then on what an agency sends of it is linked again with the next night; what was erased does
    not come back, and the erasure stays in the log.

    Exit codes: 0 proposed; 1 nothing is kept out under this reference.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, lifting

        caller = officer_of(broker, by, as_json)
        _, ids = _found(broker, subject, alone=True)
        done = lifting.propose(
            broker.store, broker.trail, broker.keys, caller, ids=ids, reason=reason, alone=alone, at=clock.now()
        )
        next_ = f"\nanother person: broker subjects confirm {done.answer.lift} --by THEIR-STAFF-ID"
        say(as_json, asdict(done.answer), _lift_line(done.answer) + next_)


OpenLift = Annotated[str, typer.Argument(metavar="LIFT", help="The lift's id, from `lifts`.")]


@app.command()
def confirm(open_lift: OpenLift, by: By, config: Config = None, as_json: AsJson = False) -> None:
    """Lift what somebody else has proposed to: from now on what agencies send of that person is linked."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, lifting
        from broker.store.tombstones import Tombstones

        caller, kept = officer_of(broker, by, as_json), Tombstones(broker.settings.data_dir)
        done = lifting.confirm(broker.store, broker.trail, kept, caller, lift=open_lift, at=clock.now())
        say(as_json, asdict(done.answer), _lift_line(done.answer))


@app.command()
def decline(
    open_lift: OpenLift,
    by: By,
    reason: Annotated[str, typer.Option("--reason", help="wrong_subject, not_needed or not_authorised.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say that who was erased stays so, and why; who proposed the lift may take it back so."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, lifting

        caller = officer_of(broker, by, as_json)
        done = lifting.refuse(broker.store, broker.trail, caller, lift=open_lift, reason=reason, at=clock.now())
        say(as_json, asdict(done.answer), _lift_line(done.answer))


@app.command("lifts")
def list_lifts(by: By, config: Config = None, as_json: AsJson = False) -> None:
    """List every lift; never of whom it was."""
    with answering(as_json), open_broker(config) as broker:
        from broker import lifting

        listed = lifting.lifts(broker.store, officer_of(broker, by, as_json))
        say(as_json, [asdict(one) for one in listed], "\n".join(map(_lift_line, listed)) or "Nothing was lifted.")


@app.command()
def retention(
    by: By,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let what the log says of people expire, as the settings under [log_retention] say; `broker nightly` does it too.

    Leaves stay, and with them every proof.  What a legal hold lies on stays whole.  The run is an event: who had it
    done, counts by type, a digest of what went.
    """
    with answering(as_json), open_broker(config) as broker:
        done = expire(broker, who=officer_of(broker, by, as_json).who(), dry=dry_run)
        by_type = Counter[str]()
        for run in done["runs"]:
            by_type.update(run["by_type"])
        went = ", ".join(f"{count} {type_}" for type_, count in sorted(by_type.items())) or "nothing"
        held = f"; {done['runs'][-1]['held']} stay for a legal hold" if done["runs"][-1]["held"] else ""
        say(as_json, done, f"{'Would expire' if dry_run else 'Expired'}: {went}{held}.")


@app.command()
def purge(by: By, config: Config = None, as_json: AsJson = False) -> None:
    """Write the database's files anew, so that no deleted byte is left in them, which the log is told.  Writers wait.

    On PostgreSQL it is for the tables' owner: run it with the owner's database_url. Its journal goes too where the
    owner may switch it (pg_switch_wal) and make a checkpoint (pg_checkpoint), and the server says wal_recycle = off;
    else its old segments are written over in time. Archives and backups are yours to delete.

    Exit codes: 0 done; 1 a reader kept the journal from being emptied, or the tables are another user's; 3 another
    holds the database.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, erasure
        from broker.store.tombstones import Tombstones

        who, kept = officer_of(broker, by, as_json).who(), Tombstones(broker.settings.data_dir)
        done = erasure.purge(broker.store, broker.trail, kept, who=who, at=clock.now())
        say(as_json, {"purged": done}, "No deleted byte is left." if done else _NOT_PURGED)
        if not done:
            raise typer.Exit(1)


def expire(broker: Broker, *, who: dict[str, str], dry: bool = False) -> dict[str, Any]:
    """One run of the log's retention on somebody's word, and a purge if anything went since the last; what was done."""
    from broker import clock, erasure
    from broker import retention as keeping
    from broker.store.tombstones import Tombstones

    @cache
    def born() -> Any:
        return keeping.born_of(_area(broker), broker.keys)

    kept = Tombstones(broker.settings.data_dir)
    runs: list[keeping.Ran] = []
    while not runs or (runs[-1].more and not dry):
        runs.append(
            keeping.run(
                broker.store, broker.trail, broker.settings.log_retention, born, who=who, at=clock.now(), dry=dry
            )
        )
    events = sum(one.events for one in runs)
    due = not dry and (events > 0 or kept.purge_due)
    purged = due and erasure.purge(broker.store, broker.trail, kept, who=who, at=clock.now())
    return {"events": events, "purged": purged, "runs": [asdict(one) for one in runs]}


def _found(broker: Broker, subject: str, *, alone: bool) -> tuple[LinkedArea | None, tuple[str, ...]]:
    from broker import erasure

    area = _area(broker)
    with broker.store.reading() as reading:
        return area, erasure.subject_ids(reading, area, subject, alone=alone)


def _area(broker: Broker) -> LinkedArea | None:
    from broker.linked import InService

    return InService(broker.store, broker.vault).area()


def _rulings(withhold: Any, show: Any, as_json: bool) -> Rulings:
    from broker.access import Rulings

    withheld: dict[str, dict[str, str]] = {}
    opened: dict[str, list[str]] = {}
    for one in withhold:
        event, colon, rest = one.partition(":")
        section, equals, code = rest.partition("=")
        if not (colon and equals):
            fail("--withhold is EVENT:SECTION=CODE, or EVENT:*=CODE", USAGE, as_json)
        withheld.setdefault(event, {})[section] = code
    for one in show:
        event, colon, section = one.partition(":")
        if not colon:
            fail("--show is EVENT:SECTION", USAGE, as_json)
        opened.setdefault(event, []).append(section)
    return Rulings(withheld=withheld, opened=opened)


def _hold_line(one: Hold) -> str:
    lifted = f"  released {one.lifted_at:%Y-%m-%d} by {one.lifted_by}" if one.lifted_at else ""
    return f"{one.hold}  {one.reason}  {one.ids} ids  set {one.set_at:%Y-%m-%d} by {one.set_by}{lifted}"


def _lift_line(one: Lift) -> str:
    decided = f"  {one.state} {one.decided_at:%Y-%m-%d} by {one.decided_by or '-'}" if one.decided_at else "  proposed"
    why = f" ({one.refused})" if one.refused else ""
    return f"{one.lift}  {one.reason or '-'}  {one.ids} ids  proposed by {one.proposed_by or '-'}{decided}{why}"


def _erasure_line(one: Erasure) -> str:
    decided = f"  {one.state} {one.decided_at:%Y-%m-%d} by {one.decided_by}" if one.decided_at else f"  {one.state}"
    counts = ", ".join(f"{count} {name}" for name, count in one.counts.items() if count and name != "ids")
    return f"{one.erasure}  {one.authority}  {one.ids} ids  proposed by {one.proposed_by}{decided}" + (
        f"  ({counts})" if counts else ""
    )
