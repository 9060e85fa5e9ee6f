"""What became of persons from run to run: an old id leads to those that have its records, or says that it was split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from broker.store import Reading
from broker.store.runs import PersonEventRow, person_events_of

Became = Literal["same", "merged", "split"]


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
