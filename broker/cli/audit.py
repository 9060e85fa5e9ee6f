"""`broker audit`: what information governance does with the log: rules, flags, samples, reviews, the monthly pack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.shared import (
    FINDING,
    USAGE,
    AsJson,
    Config,
    answering,
    fail,
    new_file,
    officer_of,
    open_broker,
    operator_of,
    say,
    staff_id,
)

if TYPE_CHECKING:
    from broker.reviewing import Case
    from broker.sampling import Drawn
    from broker.wiring import Broker

app = typer.Typer(
    help="Look after the log: what rules flag, samples, reviews by two people, the monthly pack.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

By = Annotated[str, typer.Option("--by", help="Your staff id: the log keeps who did this.")]
Reason = Annotated[
    str, typer.Option("--reason", help="lawfulness, self_monitoring, integrity or criminal_proceedings.")
]
EventId = Annotated[str, typer.Argument(help="The event's id.", metavar="EVENT")]
First = Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day, in London.")]
Last = Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day, and all of it.")]
NoteOption = Annotated[str, typer.Option("--note", help="Why, at most 1,000 characters. Name nobody.")]


@app.command()
def run(config: Config = None, as_json: AsJson = False) -> None:
    """Run the rules over what they have not seen, and draw last week's sample if that can be; `broker nightly` does it
    too.

    Exit codes: 0 done, whatever was found; 3 the log or the database can't be reached.
    """
    with answering(as_json), open_broker(config) as broker:
        done = watch(broker)
        say(as_json, done, _watched(done))


@app.command("flags")
def list_flags(
    by: By, reason: Reason, first: First, last: Last, rule: str = "", config: Config = None, as_json: AsJson = False
) -> None:
    """List what rules and persons flagged, newest first; never on an event of your own. The look is recorded."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, reviewing
        from broker.reports import Period

        days = Period.of_days(first.date(), last.date())
        found = reviewing.flags(
            broker.store, broker.trail, officer_of(broker, by, as_json), since=days.since, until=days.until, rule=rule,
            reason=reason, at=clock.now(),
        )  # fmt: skip
        words = "\n".join(
            f"{one.raised_at:%Y-%m-%d %H:%M}  {one.event.event_id}  {one.rule} v{one.version}  "
            f"{one.event.organisation} {one.event.role}  {', '.join(f'{n} {v}' for n, v in one.figures.items())}"
            for one in found
        )
        say(as_json, [asdict(one) for one in found], words or "Nothing was flagged.")


@app.command()
def flag(
    event: EventId,
    by: By,
    why: Annotated[str, typer.Option("--why", help="complaint, reported, pattern or own_report.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Flag an event by hand."""
    with answering(as_json), open_broker(config) as broker:
        from broker import anomalies, clock

        caller = officer_of(broker, by, as_json)
        done = anomalies.flag(broker.store, broker.trail, caller, event_id=event, why=why, at=clock.now())
        say(as_json, {"flag": done.answer}, f"{event} waits for a review")


@app.command()
def rules(
    change: Annotated[str, typer.Option("--set", metavar="RULE.NAME=VALUE", help="Change a threshold.")] = "",
    why: Annotated[
        str, typer.Option("--why", help="too_many_false, too_few_found, working_pattern, policy or trial.")
    ] = "",
    by: Annotated[str, typer.Option("--by", help="Your staff id, with --set: the log keeps who did this.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the rules with their thresholds, and what is not measured here and why; or change a threshold.

    RULE.on=0 turns a rule off. A threshold that may differ by role is out_of_hours.SOCIAL_WORKER.from_hour=8.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import anomalies, clock

        if change:
            rule, name, value = _threshold(change, as_json)
            caller = officer_of(broker, by, as_json)
            done = anomalies.change(
                broker.store, broker.trail, caller, rule=rule, name=name, value=value, why=why, at=clock.now()
            )
            words = f"{rule}.{name}: {done.answer.before} -> {done.answer.value}, event {done.answer.event_id}"
            say(as_json, asdict(done.answer), words)
            return
        listed = anomalies.register(broker.store)
        told = [
            {"rule": rule.id, "words": rule.words, "version": rule.version, "thresholds": dict(values),
             "not_measured_because": rule.unmeasured or None}
            for rule, values in listed
        ]  # fmt: skip
        lines = [
            f"{rule.id} v{rule.version}: {rule.words}\n    "
            + (f"NOT MEASURED HERE. {rule.unmeasured}" if rule.unmeasured else _in_force(values))
            for rule, values in listed
        ]
        changes = [asdict(one) for one in anomalies.changes(broker.store)]
        lines += [
            f"{one['at']:%Y-%m-%d %H:%M}  {one['by']}  {one['rule']}.{one['name']}  {one['before']} -> {one['value']}  "
            f"{one['why']}"
            for one in changes
        ]
        say(as_json, {"rules": told, "changes": changes}, "\n".join(lines))


@app.command()
def sample(
    by: By,
    first: First,
    last: Last,
    percent: Annotated[int, typer.Option("--percent", help="How much of each organisation, role and purpose.")] = 5,
    least: Annotated[int, typer.Option("--least", help="How many by lot at least.")] = 20,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Draw the sample of some days that have ended, by a checkpoint that witnesses cosigned since.

    Exit codes: 0 drawn; 1 it was drawn before, or no quorum of witnesses has cosigned a checkpoint since the last day.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, sampling
        from broker.reports import Period

        caller = officer_of(broker, by, as_json)
        done = sampling.take(
            broker.store, broker.trail, Period.of_days(first.date(), last.date()), who=caller.who(), percent=percent,
            least=least, at=clock.now(),
        )  # fmt: skip
        say(as_json, asdict(done.answer), _drawn(done.answer))


@app.command()
def samples(by: By, config: Config = None, as_json: AsJson = False) -> None:
    """List the samples that were drawn, and the weeks of which none was though something was disclosed.

    Exit codes: 0 each is drawn, or is not due for a week yet; 1 one has been put off for longer.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, sampling

        listed = sampling.samples(broker.store, officer_of(broker, by, as_json))
        with broker.store.reading() as reading:
            owed = sampling.owed(reading, at=clock.now())
        told = {"samples": [asdict(one) for one in listed], "owed": [one.to_json() for one in owed]}
        lines = [*map(_drawn, listed)] or ["No sample was drawn."]
        say(as_json, told, "\n".join([*lines, *(_owed(one.to_json()) for one in owed)]))
        if any(one.late for one in owed):
            raise typer.Exit(FINDING)


@app.command()
def redraw(
    drawn: Annotated[str, typer.Argument(help="The sample's id.", metavar="SAMPLE")],
    by: By,
    reason: Reason,
    out: Annotated[Path, typer.Option("--out", help="The file to write: what `auditor sample` reads.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write what it takes to draw a sample again: its checkpoint and its candidates. The look is recorded."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, sampling

        caller = officer_of(broker, by, as_json)
        with new_file(out, as_json) as file:
            found = sampling.redraw(broker.store, broker.trail, caller, sample=drawn, reason=reason, at=clock.now())
            file.write(json.dumps(found.to_json(), indent=1).encode())
        say(as_json, {"file": str(out)}, f"{out}: {found.sample.candidates} candidates, {found.sample.drawn} drawn")


@app.command("reviews")
def list_reviews(
    by: By,
    reason: Reason,
    state: Annotated[
        str, typer.Option("--state", help="open, taken, decided or closed; default: all but closed.")
    ] = "",
    kind: Annotated[str, typer.Option("--kind", help="break_glass, flag or sample.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List what waits for a review, the soonest due first; never an event in which you acted. The look is recorded."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, reviewing

        found = reviewing.queue(
            broker.store, broker.trail, officer_of(broker, by, as_json), reason=reason,
            states=(state,) if state else reviewing.WAITING, kind=kind, at=clock.now(),
        )  # fmt: skip
        say(as_json, [asdict(one) for one in found], "\n".join(map(_case, found)) or "Nothing waits.")


@app.command()
def take(
    event: EventId,
    by: By,
    to: Annotated[str, typer.Option("--to", help="A colleague's staff id, if it is not for you.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take an event to review it, or give it to a colleague."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, reviewing

        caller = officer_of(broker, by, as_json)
        whom = staff_id(to, as_json) if to else ""
        case = reviewing.take(broker.store, broker.trail, caller, event_id=event, to=whom, at=clock.now())
        say(as_json, asdict(case), _case(case))


@app.command()
def review(
    event: EventId,
    by: By,
    decision: Annotated[str, typer.Option("--decision", help="justified, training or breach.")],
    note: NoteOption = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Decide what an event was that you have taken. Another person signs it off.

    Exit codes: 0 decided; 1 refused: you acted in it, or have not taken it.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, reviewing

        caller = officer_of(broker, by, as_json)
        done = reviewing.decide(
            broker.store, broker.trail, caller, event_id=event, decision=decision, words=note, at=clock.now()
        )
        say(as_json, asdict(done.answer), _case(done.answer))


@app.command()
def signoff(
    event: EventId,
    by: By,
    agrees: Annotated[bool, typer.Option("--agree/--send-back", help="Close it, or have it reviewed anew.")],
    note: NoteOption = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Agree with a decision as a second person, or send it back.

    Exit codes: 0 done; 1 refused: you acted in the event, or decided on it.
    """
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, reviewing

        caller = officer_of(broker, by, as_json)
        done = reviewing.sign_off(
            broker.store, broker.trail, caller, event_id=event, agrees=agrees, words=note, at=clock.now()
        )
        say(as_json, asdict(done.answer), _case(done.answer))


@app.command()
def pack(
    month: Annotated[datetime, typer.Option("--month", formats=["%Y-%m"], help="The month.")],
    by: By,
    reason: Reason,
    out: Annotated[Path, typer.Option("--out", help="The file to write; one that is there is not replaced.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write the monthly pack: counts of disclosures, refusals, break-glass, flags, reviews and samples, and how the log
    and its witnesses stand. Its SHA-256 is in the log before the file has its name."""
    with answering(as_json), open_broker(config) as broker:
        from broker import clock
        from broker.packs import pack as make

        caller = officer_of(broker, by, as_json)
        with new_file(out, as_json) as file:
            made = make(broker.store, broker.trail, caller, month=month.date(), reason=reason, at=clock.now())
            file.write(made.content)
        told = {"file": str(out), "month": made.month, "sha256": made.sha256, "event": made.event_id}
        say(as_json, told, f"{out}: SHA-256 {made.sha256}, event {made.event_id}")


def watch(broker: Broker) -> dict[str, Any]:
    """The nightly part: rules over what they have not seen, then the samples of last week and of each week that is owed
    one, once a witnessed checkpoint fixes it; what was done, as plain data."""
    from broker import anomalies, clock, reviewing, sampling
    from broker.errors import WrongState

    at, who = clock.now(), operator_of(broker)
    done: dict[str, Any] = asdict(anomalies.run(broker.store, broker.trail, who=who, at=at))
    with broker.store.transaction() as tx:
        done["queued"] = reviewing.admit(tx, at=at)
    with broker.store.reading() as reading:
        owed = sampling.owed(reading, at=at)
    last = sampling.due_week(at)
    for week in dict.fromkeys([*(one.period for one in owed), last]):
        try:
            drawn = sampling.take(broker.store, broker.trail, week, who=who, at=at)
            told = {"state": "drawn", "drawn": drawn.answer.drawn, "witnessed": drawn.answer.witnessed}
        except WrongState as waits:
            told = {"state": "not drawn", "why": str(waits)}
        if week == last:
            done["sample"] = told
    with broker.store.reading() as reading:
        done["owed"] = [one.to_json() for one in sampling.owed(reading, at=at)]
    return done


def _threshold(text: str, as_json: bool) -> tuple[str, str, int]:
    place, equals, value = text.partition("=")
    rule, dot, name = place.partition(".")
    if not (equals and dot and value.isdecimal() and len(value) <= 6):
        fail("--set is RULE.NAME=VALUE, a whole number", USAGE, as_json)
    return rule, name, int(value)


def _watched(done: Mapping[str, Any]) -> str:
    """What a look over the log found, in words."""
    found = ", ".join(f"{count} {rule}" for rule, count in done["by_rule"].items()) or "nothing"
    sample = done["sample"]
    drawn = f"{sample['drawn']} drawn" if sample["state"] == "drawn" else f"not drawn: {sample['why']}"
    until = f", until {done['until']:%Y-%m-%d %H:%M} UTC" if done["until"] else ": no hour of the log is over yet"
    return (
        f"Looked at {done['events']} events{until}. Flagged: {found}.\n"
        f"{done['queued']} more wait for a review. Last week's sample: {drawn}.\n"
        + "".join(f"{_owed(one)}\n" for one in done["owed"])
        + f"Not measured here, and why: `broker audit rules` ({', '.join(done['not_measured'])})."
    )


def _in_force(values: Mapping[str, int]) -> str:
    """A rule's thresholds; `on` says whether it looks at all."""
    named = ", ".join(f"{name} {value}" for name, value in values.items() if name != "on") or "no threshold"
    return named if values["on"] else f"TURNED OFF. {named}"


def _case(one: Case) -> str:
    last = one.reviews[-1] if one.reviews else None
    decided = f"  {last.decision} by {last.reviewer}" if last else ""
    late = "  OVERDUE" if one.overdue else ""
    taken = f"  taken by {one.taken_by}" if one.taken_by else ""
    return (
        f"{one.event.event_id}  {one.kind}  {one.state}{late}  due {one.due_at:%Y-%m-%d}  {one.event.type}  "
        f"{one.event.organisation} {one.event.role}  {', '.join(one.rules)}{taken}{decided}"
    )


def _owed(one: Mapping[str, Any]) -> str:
    late = "OWED FOR A WEEK OR MORE" if one["late"] else "Owed"
    return f"{late}: the sample of {one['since']} to {one['until']}: {one['why'] or 'it can be drawn'}"


def _drawn(one: Drawn) -> str:
    witnessed = "witnessed" if one.witnessed else "NOT WITNESSED: the log has no witnesses"
    reasons = ", ".join(f"{count} {why}" for why, count in one.by_reason.items())
    return (
        f"{one.sample}  {one.since:%Y-%m-%d} to {one.until:%Y-%m-%d}  {one.drawn} of {one.candidates} ({reasons})  "
        f"{witnessed}"
    )
