"""Rules over the log, run each night: what they find is flagged once, and waits for a reviewer.

A window is whole hours, from where the last run ended.  The same transaction keeps its flags, the counts by which the
next nights know what is usual, and how far it got: a run that was killed is begun again and flags nothing twice.

Thresholds are changed by information governance, each time with a reason; every change is an event and is listed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import groupby
from typing import Any, Final

import rfc8785

from audit.events import Event, Json
from audit.rules import (
    BASELINE_DAYS,
    CONSIDERED,
    DAY_MS,
    HOUR_MS,
    LOOKBACK_MS,
    LOOKS,
    REFUSED,
    REGISTER,
    REVIEWED,
    SEARCHES,
    Act,
    Actor,
    Change,
    Finding,
    Past,
    Rule,
    Thresholds,
    UnknownThreshold,
    check_change,
    evaluate,
)
from broker import clock
from broker.callers import Caller
from broker.deciding import Released
from broker.errors import Conflict, Malformed, NotFound
from broker.keys import Keys
from broker.reports.looking import check_reader, instant
from broker.reports.reading import Source, in_parts, persons
from broker.reports.table import About, OpenedEvent, Period
from broker.store import Reading, Store, Transaction
from broker.store.audit_reviews import (
    MarkRow,
    ThresholdChangeRow,
    forget_hours,
    last_hours,
    oldest_ms,
    reviewed_by,
    roll_up,
    seen_before,
    usual,
)
from broker.store.log import FlagRow
from broker.store.log_search import head_of_event
from broker.trail import EntryRef, Trail, Who, new_event_id, record_change

MARK: Final = "rules"
AT_MOST: Final = timedelta(days=1)  # of one window, and so of one transaction
COUNTS_KEPT: Final = timedelta(days=400)
SEEN_BY_HAND: Final[Mapping[str, str]] = {
    "complaint": "Somebody complained",
    "reported": "A colleague or a partner reported it",
    "pattern": "A pattern that no rule has",
    "own_report": "Whoever acted reported it themselves",
}
"""Why a person flags an event."""
BY_HAND: Final = "by_hand."
CHANGES: Final[Mapping[str, str]] = {
    "too_many_false": "It flags too much that is justified",
    "too_few_found": "It misses what it is there to find",
    "working_pattern": "How or when people work has changed",
    "policy": "The partnership has decided so",
    "trial": "For a trial",
}
"""Why a threshold is changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run did: up to when the log has been looked at, how many events, what was flagged by which rule."""

    until: datetime | None
    events: int
    flagged: int
    by_rule: Mapping[str, int]
    not_measured: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A change of a threshold, as listed."""

    rule: str
    name: str
    before: int
    value: int
    why: str
    by: str
    at: datetime
    event_id: str


def run(store: Store, trail: Trail, *, who: Who, at: datetime) -> Ran:
    """Look at every whole hour that has not been looked at, and flag what the rules find.  Raises LogUnavailable."""
    trail.advance_pending()
    until_ms = clock.milliseconds(at) // HOUR_MS * HOUR_MS
    flagged: Counter[str] = Counter()
    found: set[str] = set()
    seen = 0
    while True:
        with store.reading() as reading:
            since_ms = _begin(reading)
            thresholds = thresholds_of(reading)
        if since_ms is None or since_ms >= until_ms:
            break
        end_ms = min(until_ms, since_ms + DAY_MS * AT_MOST.days)
        events, findings = _look(store, trail, thresholds, since_ms=since_ms, until_ms=end_ms, at=at)
        seen += len(events)
        with store.transaction() as tx:
            if _begin(tx) != since_ms:
                raise Conflict("another run of the rules is at work")
            fresh = _raise_flags(tx, trail, findings, thresholds, who=who, at=at)
            flagged.update(one.rule for one in fresh)
            found.update(one.event_id for one in fresh)
            roll_up(tx, _shown(events), since_ms=since_ms, until_ms=end_ms)
            forget_hours(tx, before=clock.milliseconds(at - COUNTS_KEPT) // HOUR_MS)
            _mark(tx, end_ms)
        trail.wake()
    with store.reading() as reading:
        mark = reading.one(MarkRow, name=MARK)
    return Ran(
        until=instant(mark.until_ms) if mark else None, events=seen, flagged=len(found),
        by_rule=dict(sorted(flagged.items())), not_measured=not_measured(),
    )  # fmt: skip


def not_measured() -> tuple[str, ...]:
    """The rules that find nothing here, because nobody hands in what they need."""
    return tuple(rule.id for rule in REGISTER.values() if rule.unmeasured)


def flag(store: Store, trail: Trail, caller: Caller, *, event_id: str, why: str, at: datetime) -> Released[str]:
    """Flag an event by hand; the flag's id.

    Raises NotAllowed, Malformed for a reason off the list, NotFound, Conflict if it is flagged for this reason.
    """
    check_reader(caller)
    if why not in SEEN_BY_HAND:
        raise Malformed(f"why: one of {', '.join(SEEN_BY_HAND)}")
    with store.transaction() as tx:
        if head_of_event(tx, event_id) is None:
            raise NotFound("there is no such event")
        if tx.one(FlagRow, event_id=event_id, rule=f"{BY_HAND}{why}") is not None:
            raise Conflict("this event is flagged for this reason")
        what = {"kind": "person", "flagged": event_id, "rules": [why]}
        entry = record_change(tx, trail, "audit.flagged", caller.who(), at, **what)
        row = FlagRow(
            id=new_event_id(), event_id=event_id, rule=f"{BY_HAND}{why}", raised_at=at, recorded=entry.event_id
        )
        tx.add(row)
        made = row.id
    return Released(made, trail.receipt(entry))


# --- Thresholds ------------------------------------------------------------------------------------------------------


def thresholds_of(reading: Reading) -> Thresholds:
    """The thresholds in force."""
    rows = reading.all(ThresholdChangeRow, order=["position"])
    return Thresholds.of(Change(rule=row.rule, name=row.name, value=row.value) for row in rows)


def register(store: Store) -> tuple[tuple[Rule, Mapping[str, int]], ...]:
    """Every rule with its thresholds in force; of one that can't be measured at all, none."""
    with store.reading() as reading:
        values = thresholds_of(reading).values
    return tuple((rule, values.get(rule.id, {})) for rule in REGISTER.values())


def changes(store: Store) -> tuple[Changed, ...]:
    """Every change of a threshold, newest first."""
    with store.reading() as reading:
        return tuple(_listed(row) for row in reading.all(ThresholdChangeRow, order=["-position"]))


def change(
    store: Store, trail: Trail, caller: Caller, *, rule: str, name: str, value: int, why: str, at: datetime
) -> Released[Changed]:
    """Change a threshold from the next run on.  `name`: one of the rule's, `on`, or ROLE.name where it may differ.

    Raises NotAllowed, Malformed for what is no threshold, a value it may not have or a reason off the list,
    LogUnavailable.
    """
    check_reader(caller)
    if why not in CHANGES:
        raise Malformed(f"why: one of {', '.join(CHANGES)}")
    try:
        check_change(Change(rule=rule, name=name, value=value))
    except UnknownThreshold as wrong:
        raise Malformed(str(wrong)) from None
    with store.transaction() as tx:
        role, _, plain = name.rpartition(".")
        before = thresholds_of(tx).value(rule, plain, role)
        entry = record_change(
            tx, trail, "config.changed", caller.who(), at, setting="audit_rule", rule=rule,
            version=REGISTER[rule].version, name=name, before=before, value=value, reason=why,
        )  # fmt: skip
        row = ThresholdChangeRow(
            rule=rule, name=name, before=before, value=value, why=why, changed_by=caller.person, at=at,
            event_id=entry.event_id,
        )  # fmt: skip
        tx.add(row)
        listed = _listed(row)
    return Released(listed, trail.receipt(entry))


def _listed(row: ThresholdChangeRow) -> Changed:
    return Changed(
        rule=row.rule, name=row.name, before=row.before, value=row.value, why=row.why, by=row.changed_by, at=row.at,
        event_id=row.event_id,
    )  # fmt: skip


# --- One window ------------------------------------------------------------------------------------------------------


def _begin(reading: Reading) -> int | None:
    """Where the next window begins, unix ms; None while the log is empty."""
    mark = reading.one(MarkRow, name=MARK)
    if mark is not None:
        return mark.until_ms
    oldest = oldest_ms(reading)
    return None if oldest is None else oldest // HOUR_MS * HOUR_MS


def _mark(tx: Transaction, until_ms: int) -> None:
    row = tx.one(MarkRow, name=MARK) or MarkRow(name=MARK, until_ms=0)
    row.until_ms = until_ms
    tx.add(row)


def _look(
    store: Store, trail: Trail, thresholds: Thresholds, *, since_ms: int, until_ms: int, at: datetime
) -> tuple[list[Act], tuple[Finding, ...]]:
    """The acts of a window, and what the rules find in it."""
    begin = since_ms - LOOKBACK_MS
    source = Source(store=store, trail=trail, period=Period(instant(begin), instant(until_ms)), about=About(), at=at)
    acts: list[Act] = []
    for some in in_parts(source.events(source.wanted(sorted(CONSIDERED)))):
        queries = source.all_beside(one for one in some if one.event.type in SEARCHES)
        acts += [_act(trail.keys, one, source.subjects(one), queries.get(one.event.event_id, {})) for one in some]
    with store.reading() as reading:
        past = _past(reading, trail.keys, acts, since_ms=since_ms)
    return [act for act in acts if act.t_ms >= since_ms], evaluate(
        acts, past, thresholds, since_ms=since_ms, until_ms=until_ms
    )


def _act(keys: Keys, one: OpenedEvent, subjects: tuple[str, ...], beside: Mapping[str, bytes]) -> Act:
    event, what = one.event, one.body("what")
    fields, query = _asked(beside)
    concerns = what.get("reviewed") if event.type in REVIEWED else what.get("opened")
    listed, _, of = event.outcome.partition("_")
    return Act(
        event_id=event.event_id, t_ms=clock.milliseconds(event.at), type=event.type, organisation=event.organisation,
        person=event.person, role=event.role, purpose=event.purpose,
        case=event.case if event.case != keys.case_index("") else "", subjects=frozenset(persons(subjects)),
        fields=fields, query=query,
        listed=int(listed) if event.type in SEARCHES and of == "listed" and listed.isdigit() else None,
        concerns=concerns if isinstance(concerns, str) else "",
        reviewed=str(what.get("acted") or "") if event.type in REVIEWED else "",
    )  # fmt: skip


def _asked(beside: Mapping[str, bytes]) -> tuple[frozenset[str], frozenset[str]]:
    """Of a search: which fields were given of its subject, and by what it is held against another."""
    if "query" not in beside:
        return frozenset(), frozenset()
    row = json.loads(beside["query"])["rows"][0]
    given = {**row["filters"], **row["identifiers"]}
    held = {**given, **row["tokens"]}
    return (
        frozenset(name for name, value in given.items() if value is not None),
        frozenset(f"{name} {value}" for name, value in held.items() if value is not None),
    )


def _past(reading: Reading, keys: Keys, acts: list[Act], *, since_ms: int) -> Past:
    """What is usual for those who act, from the counts of the hours before."""
    begin_ms = since_ms - LOOKBACK_MS
    hour, actors = since_ms // HOUR_MS, {act.person for act in acts if act.person}
    hours: dict[tuple[Actor, str], Counter[int]] = defaultdict(Counter)
    purposes: dict[Actor, Counter[str]] = defaultdict(Counter)
    for one in usual(reading, actors, LOOKS, first=hour - 24 * BASELINE_DAYS, last=hour):
        actor = Actor(one.org, one.actor_ref)
        purposes[actor][one.purpose] += one.events
        if one.subjects:
            hours[actor, one.type][one.hour] += one.subjects
    shown = {subject: keys.subject_index(subject) for act in acts for subject in act.subjects}
    names = {index: subject for subject, index in shown.items()}
    last = last_hours(reading, {act.actor for act in acts if act.person}, LOOKS | REFUSED, before=begin_ms // HOUR_MS)
    reviewers = {act.actor for act in acts if act.type in REVIEWED}
    reviews = reviewed_by(reading, {one.person for one in reviewers}, before=instant(since_ms), last=100)
    return Past(
        hours={key: tuple(counts.values()) for key, counts in hours.items()},
        purposes=purposes,
        last_ms={Actor(*actor): (one + 1) * HOUR_MS - 1 for actor, one in last.items()},
        seen={
            (Actor(org, person), names[index])
            for org, person, index in seen_before(reading, names, LOOKS, before_ms=begin_ms)
        },
        reviews={one: reviews[one.person] for one in reviewers},
    )  # fmt: skip


def _shown(acts: Iterable[Act]) -> dict[tuple[int, str, str, str, str], int]:
    """Distinct persons shown, by the key of a row of counts."""
    found: dict[tuple[int, str, str, str, str], set[str]] = defaultdict(set)
    for act in acts:
        if act.type in LOOKS:
            found[act.t_ms // HOUR_MS, act.organisation, act.person, act.type, act.purpose] |= act.subjects
    return {key: len(subjects) for key, subjects in found.items()}


def _raise_flags(
    tx: Transaction, trail: Trail, findings: Iterable[Finding], thresholds: Thresholds, *, who: Who, at: datetime
) -> list[Finding]:
    """Flag each finding that is not flagged: one event for each flagged event.  Those that are new."""
    by_event = sorted(findings, key=lambda one: one.event_id)
    fresh: list[Finding] = []
    digest = sha256(rfc8785.dumps(_plain(thresholds))).hexdigest()
    for event_id, group in groupby(by_event, key=lambda one: one.event_id):
        held = {row.rule for row in tx.all(FlagRow, event_id=event_id)}
        new = [one for one in group if one.rule not in held]
        if not new:
            continue
        entry = _record(tx, trail, event_id, new, digest, who=who, at=at)
        tx.add(
            *(
                FlagRow(
                    id=new_event_id(), event_id=event_id, rule=one.rule, raised_at=at, version=one.version,
                    figures=dict(one.figures), recorded=entry.event_id,
                )
                for one in new
            )
        )  # fmt: skip
        fresh += new
    tx.flush()
    return fresh


def _record(
    tx: Transaction, trail: Trail, event_id: str, new: list[Finding], digest: str, *, who: Who, at: datetime
) -> EntryRef:
    what: dict[str, Json] = {
        "kind": "rule", "flagged": event_id, "thresholds_sha256": digest,
        "rules": {one.rule: {"version": one.version, "figures": dict(one.figures)} for one in new},
    }  # fmt: skip
    event = Event(id=new_event_id(), type="audit.flagged", who=who, what=what, why={}, detail={})
    return trail.record(tx, event, at=at)


def _plain(thresholds: Thresholds) -> dict[str, Any]:
    return {rule: dict(values) for rule, values in thresholds.values.items()}
