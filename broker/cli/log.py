"""`broker log`: the log's shards and keys, and what to do when one of them is lost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    open_broker,
    operator_of,
    say,
    staff_id,
)

if TYPE_CHECKING:
    from audit.checkpoint import SignedCheckpoint
    from broker.shards import ShardStanding
    from broker.store.roles import Login
    from broker.store.shards import ShardRow

app = typer.Typer(
    help="""
    The log's shards, its keys, and its recovery.

    The log is a row of shards, one a year (<host>/audit/2026, then 2027), each under a key of its own that the signer
    made and that nobody else has. Entries go to the newest. Older ones are served for ever, and their receipts hold.

    If answers stop because the signer refuses, the database is not what was signed: it was put back from a backup, or
    somebody changed it. Look with `broker log status`, keep a copy of database and signer folder as they are, and only
    then go on with `broker log restore`.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)

By = Annotated[str, typer.Option("--by", help="Your staff id; it goes into the log.")]
Note = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", help="The newest checkpoint that an agency holds (`checkpoint.witnessed` of its folder)."
    ),
]


@app.command()
def status(config: Config = None, as_json: AsJson = False) -> None:
    """Show each shard: how many entries it has, how many are signed and witnessed, and its keys.

    Where signer and database are not of one log, says in what, and what to do: the database was put back from a copy,
    or cut; the signer's state was; another tree, or another key.

    Exit codes: 0 all is as it was signed; 1 it is not, or entries of a frozen shard are lost, or an event that waits
    holds up the log; 3 the signer can't be
    asked, or its state can't be read.
    """
    with answering(as_json), open_broker(config, agreeing=False) as broker:
        from broker import shards, unsticking
        from broker.store import roles

        found, wrong = shards.standing(broker.store, broker.trail.signers)
        logins = roles.logins(broker.store)
        stuck = unsticking.held_up(broker.store, broker.keys)
        told = {
            "database": {"kind": "sqlite" if broker.store.sqlite else "postgresql", "logins": [*map(asdict, logins)]},
            "shards": [_told(one) for one in found],
            "signer": wrong or "answers",
            "waiting": broker.trail.unsequenced(),
            "stuck": [{"event": event, "position": place} for event, place in stuck],
        }
        rows = [_row(one, asked=wrong is None) for one in found]
        rows += [f"! {one.row.log_id}: {fault}" for one in found for fault in one.faults]
        rows += [f"! event {event} waits, and its key does not open: `broker log unstick`" for event, _ in stuck]
        rows.append(f"The database: {_logins(logins)}")
        say(as_json, told, "\n".join(rows + ([f"The signer: {wrong}"] if wrong else [])))
        if wrong:
            raise typer.Exit(UNKNOWN)
        if stuck or any(one.faults or one.lost for one in found):
            raise typer.Exit(FINDING)


@app.command()
def unstick(
    give_up: Annotated[
        str, typer.Option("--give-up", help="An event whose key is lost for good: its leaf goes in, its body is lost.")
    ] = "",
    by: Annotated[str, typer.Option("--by", help="Your staff id; it goes into the log. Due with --give-up.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the events that hold up the log: they wait, and their keys do not open. Nothing is answered meanwhile.

    1. Is the key-encryption key the right one? Of a wrong one no event opens, and all that wait are listed: put the
    right one back. 2. Else put back the row of audit_outbox (by its event id) from a copy of the database, and list
    again. 3. Where there is no copy: --give-up EVENT --by ID. Its leaf goes into the log, so that proofs of it hold;
    what it said can't be read any more, and the log says so (audit.degraded). `broker serve` then goes on by itself.

    Exit codes: 0 nothing holds up the log; 1 something does, or no such event does; 2 wrong usage; 3 it can't be told.
    """
    who = staff_id(by, as_json) if give_up or by else ""
    with answering(as_json), open_broker(config, agreeing=False) as broker:
        from broker import clock, unsticking

        if give_up:
            unsticking.give_up(broker.store, broker.trail, give_up, who=operator_of(broker, who), at=clock.now())
        found = unsticking.held_up(broker.store, broker.keys)
        if not found:
            broker.trail.advance_pending()
        rows = [
            f"Event {event} waits at place {place} of audit_outbox, and its key does not open" for event, place in found
        ]
        told = {"stuck": [{"event": event, "position": place} for event, place in found]}
        say(as_json, told, "\n".join(rows) or "Nothing holds up the log.")
        if found:
            raise typer.Exit(FINDING)


@app.command()
def policy(config: Config = None, as_json: AsJson = False) -> None:
    """Print the C2SP tlog-policy for whoever verifies: the keys of every shard, and the witnesses.

    Several lines of one origin are the keys it had, in order of use. Hand it over by a way the host does not control.
    """
    with answering(as_json), open_broker(config, agreeing=False) as broker:
        from broker import shards, witnesses

        with broker.store.reading() as reading:
            text = witnesses.policy_of(reading, shards.log_keys(reading)).text
        say(as_json, {"policy": text}, text.rstrip("\n"))


@app.command()
def turn(by: By, config: Config = None, as_json: AsJson = False) -> None:
    """Close the newest shard and open this year's, if a year has begun since. `broker serve` does it by itself.

    The old shard ends with log.closed under a last checkpoint; the new one begins with log.opened, which cites it.
    """
    who = staff_id(by, as_json)
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, shards

        opened = shards.turn(broker.trail, broker.settings.log_base, who=operator_of(broker, who), at=clock.now())
        if opened is None:
            say(as_json, {"turned": False, "origin": broker.trail.origin}, "The log is in this year's shard already.")
        else:
            say(as_json, {"turned": True, "origin": opened.log_id}, _new_key(opened))


@app.command()
def rotate(
    by: By,
    finish: Annotated[bool, typer.Option("--finish", help="Destroy the old key; the new one signs alone.")] = False,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="The key may be in other hands: freeze the shard, and begin another.")
    ] = False,
    checkpoint: Note = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Change the key that signs the log, in the open.

    First without an option: a new key signs beside the old, and the log says so (key.rotated). Hand out the new policy
    (`broker log policy`). When everybody has it: --finish.

    --compromised freezes the shard at the last checkpoint that witnesses signed (--checkpoint, or the newest in the
    database) and opens a new one, under a new origin and key, that cites it. Receipts of later entries of the frozen
    shard are to be doubted. Hand out the new policy at once. Where all witnesses were removed, those count who
    witnessed when a checkpoint was made. Exit code 1: too few witnesses signed that checkpoint, or they have signed a
    newer one.
    """
    who = staff_id(by, as_json)
    if finish and (compromised or checkpoint):
        fail("--finish stands alone", USAGE, as_json)
    if checkpoint and not compromised:
        fail("--checkpoint goes with --compromised", USAGE, as_json)
    with answering(as_json), open_broker(config, agreeing=not compromised) as broker:
        from broker import clock, shards

        actor, at = operator_of(broker, who), clock.now()
        if compromised:
            shard = shards.begin_anew(
                broker.trail, broker.settings.log_base, compromised=True, witnessed=_note(checkpoint), who=actor, at=at
            )
            words = _new_key(shard)
        elif finish:
            shard = shards.retire(broker.trail, who=actor, at=at)
            words = "The old key is destroyed; the new one signs alone."
        else:
            shard = shards.rotate(broker.trail, who=actor, at=at)
            words = "Old and new key both sign. Hand out the new policy, then: broker log rotate --finish"
        say(as_json, _keys(shard), words)


@app.command()
def restore(
    by: By,
    mirror: Annotated[
        Path | None, typer.Option("--mirror", help="A folder of the log that an agency fetched (`agency log fetch`).")
    ] = None,
    anew: Annotated[bool, typer.Option("--new", help="Begin a new shard; the lost entries stay lost.")] = False,
    checkpoint: Note = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Go on after a database was put back from a backup, so that the signer refuses it.

    --mirror puts back the leaves that were lost, from an agency's copy that is at least as new as what was signed. What
    those events said is gone with the database, but older receipts hold, and the log goes on in its shard.

    --new opens a new shard, under a new key, whose first entry (log.discontinuity) says what was signed, what is still
    held, and which checkpoint was witnessed last. Everybody sees it. Hand out the new policy (`broker log policy`). A
    --checkpoint that too few witnesses signed is cited as not witnessed, and only if it is of what is held or signed.

    Stop `broker serve` first, and start it again afterwards. Exit codes: 0 done; 1 mirror or checkpoint does not do, or
    nothing is lost; 3 the signer, the database or the mirror can't be reached.
    """
    who = staff_id(by, as_json)
    if (mirror is None) == (not anew):
        fail("either --mirror FOLDER or --new", USAGE, as_json)
    if checkpoint and not anew:
        fail("--checkpoint goes with --new", USAGE, as_json)
    with answering(as_json), open_broker(config, agreeing=False) as broker:
        from broker import clock, shards

        actor, at = operator_of(broker, who), clock.now()
        found, wrong = shards.standing(broker.store, broker.trail.signers)
        if not wrong and found and not found[-1].faults:
            fail("nothing is lost: the database holds all that was signed", FINDING, as_json)
        if mirror is not None:
            from audit.folder import Finding, LogFolder

            folder = LogFolder(mirror)
            try:
                note = folder.note()
            except Finding as fault:
                raise Unreadable(str(fault)) from None
            count = shards.refill(broker.trail, folder, note, who=actor, at=at)
            say(as_json, {"refilled": count}, f"{count} leaves are back, and the log goes on in {broker.trail.origin}.")
        else:
            shard = shards.begin_anew(
                broker.trail, broker.settings.log_base, compromised=False, witnessed=_note(checkpoint), who=actor, at=at
            )
            say(as_json, _keys(shard), _new_key(shard))


def _note(path: Path | None) -> SignedCheckpoint | None:
    from audit.checkpoint import NoteInvalid, SignedCheckpoint

    if path is None:
        return None
    try:
        return SignedCheckpoint.parse(bytes_of(path).decode())
    except NoteInvalid as fault:
        raise Unreadable(f"{path} is no checkpoint: {fault}") from None


def _logins(found: tuple[Login, ...]) -> str:
    """Who works on it, and what the database lets them do."""
    if not found:
        return "a SQLite file: whoever can write it can do all"
    main, *others = found
    words = f"PostgreSQL, {'one login' if not others else f'{len(found)} logins'}: {main.user} serves"
    words += "".join(f", {one.user} {'sequences' if one.use == 'sequencer' else 'erases'}" for one in others)
    uses = {one.use for one in others}
    may = [
        what
        for what, there in (
            ("adds to the log", main.appends and "sequencer" in uses), ("empties it", main.erases and "eraser" in uses),
            ("owns the tables, so no trigger binds it", main.owns),
        )
        if there
    ]  # fmt: skip
    lacks = [] if main.erases or "eraser" in uses else ["nobody is erased from here"]
    lacks += [] if main.appends or "sequencer" in uses else ["nothing is sequenced from here"]
    return words + (f"; BUT {main.user} {', and '.join(may)}" if may else "") + "".join(f"; {one}" for one in lacks)


def _told(one: ShardStanding) -> dict[str, Any]:
    row = one.row
    return {
        "origin": row.log_id, "reason": row.reason, "state": _state(one), "entries": one.size,
        "checkpoint": one.checkpoint, "witnessed": one.witnessed, "signed": one.signed.size if one.signed else None,
        "lost": one.lost, "faults": one.faults, "follows": row.follows, "opened_at": row.opened_at,
        "closed_at": row.closed_at, "keys": row.keys,
    }  # fmt: skip


def _state(one: ShardStanding) -> str:
    if one.row.closed_at is None:
        return "open"
    return "frozen" if one.row.frozen else "closed"


def _row(one: ShardStanding, *, asked: bool) -> str:
    unknown = "not known to the signer" if asked else "the signer was not reached"
    signed = unknown if one.signed is None else f"{one.signed.size} signed"
    lost = f", {one.lost} LOST" if one.lost else ""
    return f"{_state(one):7}{one.row.log_id}: {one.size} entries, {signed}, {one.witnessed or 0} witnessed{lost}"


def _keys(shard: ShardRow) -> dict[str, Any]:
    return {"origin": shard.log_id, "keys": [key["vkey"] for key in shard.keys if key["until"] is None]}


def _new_key(shard: ShardRow) -> str:
    return f"Entries go to {shard.log_id} from now on. Hand out the new policy: broker log policy"
