"""The log's shell: outbox in the business transaction, sequenced, under a signed checkpoint; answers wait here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EntryRef:
    """An event that has been written, in a transaction that may not have committed yet."""

    event_id: str


class Trail:
    """`record` inside the transaction, `receipt` after it; nothing leaves in between.

    trail.record(tx, event) -> EntryRef                    outbox row in the transaction of the act
    trail.receipt(entry, timeout=None) -> LogReceipt       waits until a signed checkpoint covers it; LogUnavailable
    trail.advance_pending() -> int                         sequence what waits, from any process; new log size
    trail.start() / trail.stop()                           the group-commit thread of `broker serve`
    """
