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
from broker.store.statements import Asked, Rows, Statement
from broker.store.transaction import Transaction

_BLOBS: Final = Rows("audit_blob", {"event_id": "text", "name": "text", "sealed": "bytea"})
_INTO: Final = """
    INSERT INTO audit_outbox (
        event_id, idem_key, at_ms, commitment, columns, sections, detail, subjects, key_wrapped, sole
    )
    SELECT CASE WHEN EXISTS (SELECT 1 FROM audit_entry WHERE event_id = {id}) THEN NULL ELSE {id} END,
        :idem_key, {at_ms}, {commitment}, {columns}, {sections}, {detail}, {subjects}, {key_wrapped}, :sole
"""
_PUT: Final = Statement(
    _INTO.format(
        id="CAST(:event_id AS text)", at_ms="CAST(:at_ms AS bigint)", commitment="CAST(:commitment AS bytea)",
        columns="CAST(:columns AS jsonb)", sections="CAST(:sections AS bytea)", detail="CAST(:detail AS bytea)",
        subjects="CAST(:subjects AS jsonb)", key_wrapped="CAST(:key_wrapped AS bytea)",
    ),
    sqlite=_INTO.format(
        id=":event_id", at_ms=":at_ms", commitment=":commitment", columns=":columns", sections=":sections",
        detail=":detail", subjects=":subjects", key_wrapped=":key_wrapped",
    ),
)  # fmt: skip
"""An id that is in the log is no id here, and a row without one is refused: so it fails in the database, at once."""


_DOUBLES: Final = Statement("""
    SELECT o.position, o.event_id, o.at_ms, o.commitment, CAST(o.columns AS text) AS columns, o.sections, o.detail,
        CAST(o.subjects AS text) AS subjects, o.key_wrapped, o.sole, e.leaf
    FROM audit_outbox o JOIN audit_entry e ON e.event_id = o.event_id ORDER BY o.position
""")
_TAKE: Final = Statement("DELETE FROM audit_outbox WHERE position = :position")


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
    """Into the outbox, with the next statement of the transaction or with its commit.

    Raises Conflict, then or now, if its id or its idempotency key is there already.
    """
    try:
        tx.later(
            _PUT.of(
                event_id=written.event_id, idem_key=written.idempotency_key, at_ms=written.at_ms,
                commitment=written.commitment, columns=json.dumps(written.columns), sections=written.sections,
                detail=written.detail, subjects=json.dumps(written.subjects),
                key_wrapped=keys.wrap(written.key.key, written.event_id), sole=written.key.subject,
            )
        )  # fmt: skip
        for blobs in keep_blobs((written,)):
            tx.later(blobs)
    except IntegrityError:
        raise Conflict("an event with this id, or for this key, is there already") from None


def keep_blobs(events: Sequence[Written]) -> tuple[Asked, ...]:
    """What lies beside these events, to be kept: one statement, or none where there is nothing."""
    rows = [
        {"event_id": one.event_id, "name": name, "sealed": sealed}
        for one in events
        for name, sealed in one.blobs.items()
    ]
    return (_BLOBS.of(rows),) if rows else ()


def take_doubles(tx: Transaction) -> Sequence[Any]:
    """What waits under an id that the log has, each with the leaf that has it; it waits no more."""
    found = tx.run(_DOUBLES).all()
    for row in found:
        tx.later(_TAKE.of(position=row.position))
    return found
