"""What waits under a key that does not open holds up the log: it is named, and goes in without its body if need be.

The log stops then, and rightly: what was recorded is not left out.  First the row is mended, from a copy of the
database, or by putting back the key-encryption key.  Where that can't be, its leaf goes in all the same, so that its
receipt can still be proved by whoever holds it; what it said can't be read any more, as if it had been erased.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from audit.events import Event
from broker.errors import NotFound, WrongState
from broker.keys import Keys
from broker.store import Store
from broker.store.event_keys import fits
from broker.store.log import OutboxRow
from broker.store.roles import SEQUENCER
from broker.store.sequence import stuck
from broker.trail import EntryRef, Trail, new_event_id


def held_up(store: Store, keys: Keys) -> tuple[tuple[str, int], ...]:
    """Each event that holds up the log, and its place in the outbox."""
    with store.reading() as reading:
        return tuple((row.event_id, row.position or 0) for row in stuck(reading, keys))


def give_up(store: Store, trail: Trail, event_id: str, *, who: Mapping[str, str], at: datetime) -> EntryRef:
    """Let an event that holds up the log go in without its key, and record that; the entry that says so.

    Raises NotFound for any other event, WrongState if the key-encryption key opens nothing else of this log either:
    what can be read is never given up.
    """
    with store.reading() as reading:
        if not fits(reading, trail.keys):
            raise WrongState("the key-encryption key opens no key of this log: put back the right one, then look again")
    with store.transaction(SEQUENCER) as tx:
        row = next((one for one in stuck(tx, trail.keys) if one.event_id == event_id), None)
        if row is None:
            raise NotFound("no event of this id holds up the log")
        bare = OutboxRow(
            event_id=row.event_id, idem_key=row.idem_key, at_ms=row.at_ms, commitment=row.commitment,
            columns=row.columns, sections=row.sections, detail=row.detail, subjects=row.subjects, sole="",
        )  # fmt: skip
        tx.delete(row)
        tx.flush()
        tx.add(bare)
        tx.flush()
        event = Event(
            id=new_event_id(), type="audit.degraded", who=who,
            what={"outcome": "body_lost", "reason": "EventStuck", "event": event_id}, why={}, detail={},
        )  # fmt: skip
        return trail.record(tx, event, at=at)
