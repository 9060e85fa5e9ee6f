"""An event as it is stored: written into the outbox with the act it is evidence of, or straight into the log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.exc import IntegrityError

from audit.events import Leaf
from broker.errors import Conflict
from broker.keys import Keys
from broker.store.event_keys import FreshKey
from broker.store.log import BlobRow
from broker.store.statements import Statement
from broker.store.transaction import Transaction

_PUT: Final = Statement("""
    INSERT INTO audit_outbox (
        event_id, idem_key, at_ms, commitment, columns, sections, detail, subjects, key_wrapped, sole
    )
    SELECT :event_id, :idem_key, :at_ms, :commitment, :columns, :sections, :detail, :subjects, :key_wrapped, :sole
    WHERE NOT EXISTS (SELECT 1 FROM audit_entry WHERE event_id = :same_id)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An event, sealed under its key: `columns` are those of EventRow, `subjects` HMACs."""

    event_id: str
    at_ms: int
    commitment: bytes
    columns: Mapping[str, Any]
    sections: bytes
    detail: bytes
    subjects: Sequence[str]
    key: FreshKey
    blobs: Mapping[str, bytes] = field(default_factory=dict)  # what lies beside it, sealed
    idempotency_key: str | None = None

    @property
    def leaf(self) -> Leaf:
        """The leaf as of its own time."""
        return Leaf(self.at_ms, self.commitment)


def put(tx: Transaction, keys: Keys, written: Written) -> None:
    """Into the outbox.  Raises Conflict if its id or its idempotency key is there already."""
    try:
        done = _PUT.run(
            tx.connection, event_id=written.event_id, same_id=written.event_id, idem_key=written.idempotency_key,
            at_ms=written.at_ms, commitment=written.commitment, columns=json.dumps(written.columns),
            sections=written.sections, detail=written.detail, subjects=json.dumps(written.subjects),
            key_wrapped=keys.wrap(written.key.key, written.event_id), sole=written.key.subject,
        )  # fmt: skip
    except IntegrityError:
        raise Conflict("an event with this id, or for this key, waits already") from None
    if done.rowcount != 1:
        raise Conflict("an event with this id is in the log already")
    keep_blobs(tx, (written,))


def keep_blobs(tx: Transaction, events: Sequence[Written]) -> None:
    """What lies beside these events."""
    tx.insert(
        BlobRow,
        *(
            {"event_id": one.event_id, "name": name, "sealed": sealed}
            for one in events
            for name, sealed in one.blobs.items()
        ),
    )
