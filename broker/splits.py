"""What a run did to persons is kept, and with each split who had been shown the mixture, so that they can be told.

A merge or a split is kept as it was published, for good; `lineage` follows ids by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Final

import rfc8785

from audit.events import Event
from broker import ledger
from broker.store import Reading, Transaction
from broker.store.runs import add_person_events
from broker.store.searches import Shown, shown_of
from broker.trail import EntryRef, Trail, new_event_id
from linkage.matching.link import ClusterEvent

SPLIT_EVENT: Final = "link.split"


def who_saw(tx: Reading, person_id: str, *, until: datetime | None = None) -> tuple[Shown, ...]:
    """Every search that listed a person and every family view that showed something of them, up to an instant."""
    return tuple(shown_of(tx, [person_id], until=until))


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
