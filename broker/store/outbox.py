"""An event as it is stored: written into the outbox with the act it is evidence of, or straight into the log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from audit.events import Leaf
from broker.errors import Conflict
from broker.keys import DataKey, Keys
from broker.store.event_keys import KEEP_KEY, wrapped_key, wrapped_keys
from broker.store.log import BlobRow
from broker.store.statements import Statement
from broker.store.transaction import Transaction

_PUT: Final = Statement("""
    INSERT INTO audit_outbox (event_id, idem_key, at_ms, commitment, columns, sections, detail, subjects)
    VALUES (:event_id, :idem_key, :at_ms, :commitment, :columns, :sections, :detail, :subjects)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An event, sealed: `columns` are those of EventRow, `subjects` HMACs; `sole` is the subject its key goes under."""

    event_id: str
    at_ms: int
    commitment: bytes
    columns: Mapping[str, Any]
    sections: bytes
    detail: bytes
    subjects: Sequence[str]
    sole: str
    key: DataKey
    blobs: Mapping[str, bytes] = field(default_factory=dict)  # what lies beside it, sealed
    idempotency_key: str | None = None

    @property
    def leaf(self) -> Leaf:
        """The leaf as of its own time."""
        return Leaf(self.at_ms, self.commitment)


def put(tx: Transaction, keys: Keys, written: Written) -> None:
    """Into the outbox.  Raises Conflict if its id or its idempotency key is there already."""
    try:
        KEEP_KEY.run(tx.connection, **wrapped_key(tx, keys, written.event_id, written.key, written.sole))
        _PUT.run(
            tx.connection, event_id=written.event_id, idem_key=written.idempotency_key, at_ms=written.at_ms,
            commitment=written.commitment, columns=json.dumps(written.columns), sections=written.sections,
            detail=written.detail, subjects=json.dumps(written.subjects),
        )  # fmt: skip
        _keep_blobs(tx, (written,))
    except IntegrityError:
        raise Conflict("an event with this id, or for this key, is there already") from None


def keep_beside(tx: Transaction, keys: Keys, events: Sequence[Written]) -> None:
    """The keys of several events, and what lies beside them: all but what the sequencer writes itself."""
    if events:
        rows = wrapped_keys(tx, keys, [(one.event_id, one.key, one.sole) for one in events])
        KEEP_KEY.run_each(tx.connection, rows)
        _keep_blobs(tx, events)


def _keep_blobs(tx: Transaction, events: Sequence[Written]) -> None:
    blobs = [
        {"event_id": one.event_id, "name": name, "sealed": sealed}
        for one in events
        for name, sealed in one.blobs.items()
    ]
    if blobs:
        tx.connection.execute(insert(BlobRow), blobs)
