"""What became of persons from run to run: an old id leads to those that have its records, or says that it was split.

A merge or a split is kept as it was published, for good; with each split goes who had been shown the mixture, so that
somebody can tell them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import rfc8785

from audit.events import Event
from broker import ledger
from broker.store import Reading, Transaction
from broker.store.runs import PersonEventRow, add_person_events, person_events_of
from broker.store.searches import Shown, shown_of
from broker.trail import EntryRef, Trail, new_event_id
from linkage.matching.link import ClusterEvent

Became = Literal["same", "merged", "split"]
SPLIT_EVENT: Final = "link.split"


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Where a person id leads today.

    `split`: its records went to several persons, so that whoever held the id must look which of `ids` is meant;
    `merged`: to one that has another's as well; `same`: nothing of the kind.  Whether an id of `ids` still has any
    record is the run's in service to say.
    """

    ids: tuple[str, ...]
    became: Became


def successors(tx: Reading, person_id: str, *, since: datetime | None = None) -> Followed:
    """The persons that have today what a person id had at an instant (default: when it first was)."""
    return follow(tx, [person_id], since=since)[person_id]


def follow(tx: Reading, person_ids: Iterable[str], *, since: datetime | None = None) -> dict[str, Followed]:
    """`successors` of many ids at once."""
    asked = sorted(set(person_ids))
    events: dict[str, list[PersonEventRow]] = {}
    new = set(asked)
    while new:
        found: dict[str, list[PersonEventRow]] = {one: [] for one in new}
        for row in person_events_of(tx, new):
            if since is None or row.at > since:
                found[row.before].append(row)
        events |= found
        new = {row.after for rows in found.values() for row in rows} - events.keys()
    return {one: led_to(one, events) for one in asked}


def led_to(person_id: str, events: Mapping[str, Sequence[PersonEventRow]]) -> Followed:
    """Where an id leads by these events, each under its `before`: step by step in time, as an id that lives on after a
    split is another person than it was.

    Which records of a mixture were whose is not kept: who was merged and then split leads to every part.
    """
    at = {person_id: 0}  # each id that holds some of it, and after which run
    kinds: set[str] = set()
    while True:
        steps = [(row.seq, one) for one, seq in at.items() for row in events.get(one, ()) if row.seq > seq]
        if not steps:
            break
        seq = min(steps)[0]
        for one in sorted({one for when, one in steps if when == seq}):
            rows = [row for row in events[one] if row.seq == seq]
            kinds |= {row.kind for row in rows}
            del at[one]
            at |= {row.after: seq for row in rows}
    return Followed(ids=tuple(sorted(at)), became="split" if "split" in kinds else "merged" if kinds else "same")


def who_saw(tx: Reading, person_id: str, *, until: datetime | None = None) -> tuple[Shown, ...]:
    """Every search that listed a person and every family view that showed something of them, up to an instant."""
    return tuple(shown_of(tx, [person_id], until=until))


def splits_of(tx: Reading, *, run: str) -> dict[str, tuple[str, ...]]:
    """Persons that a run split, each with those it became."""
    split: dict[str, set[str]] = defaultdict(set)
    for row in tx.all(PersonEventRow, run=run, kind="split"):
        split[row.before].add(row.after)
    return {before: tuple(sorted(after)) for before, after in sorted(split.items())}


def keep(
    trail: Trail,
    tx: Transaction,
    events: Sequence[ClusterEvent],
    *,
    run: str,
    seq: int,
    who: Mapping[str, str],
    at: datetime,
) -> EntryRef | None:
    """Keep what a run did to persons, in the transaction that puts it in service.

    Every answer that showed somebody who is split is to be recalled: `ledger.recall_due`, when this has committed.
    If persons were split that somebody had been shown, an event says how many, and in its sealed blob `saw` who saw
    whom: [person id before, ids after, [organisation, person, event id, kind, when]].
    """
    pairs = {(event.kind, before, after) for event in events for before in event.before for after in event.after}
    rows: list[dict[str, Any]] = [
        {"seq": seq, "run": run, "kind": kind, "before": before, "after": after, "at": at}
        for kind, before, after in sorted(pairs)
    ]
    add_person_events(tx, rows)
    split = {event.before[0]: event.after for event in events if event.kind == "split"}
    saw = shown_of(tx, split)
    if not split:
        return None
    ledger.to_recall(tx, saw, run=run, at=at)
    listed: dict[str, list[Shown]] = defaultdict(list)
    for one in saw:
        listed[one.person_id].append(one)
    sealed: list[Any] = [
        [before, list(after), [_told(one) for one in listed[before]]] for before, after in sorted(split.items())
    ]
    event = Event(
        id=new_event_id(),
        type=SPLIT_EVENT,
        who=dict(who),
        what={
            "run": run, "outcome": "split", "persons": len(split), "seen_persons": len(listed),
            "shown": len(saw), "organisations": sorted({one.organisation for one in saw}),
        },
        why={},
        detail={},
    )  # fmt: skip
    about = _about(split, listed)
    return trail.record(tx, event, about=about, blobs={"saw": rfc8785.dumps(sealed)}, at=at)


def _told(one: Shown) -> list[str]:
    return [one.organisation, one.person, one.event_id, one.kind, one.at.isoformat()]


def _about(split: Mapping[str, Sequence[str]], seen: Mapping[str, object]) -> AbstractSet[str]:
    return {person for before, after in split.items() if before in seen for person in (before, *after)}
