"""An event that waits under an id that the log has given to another goes in under a fresh one, and names the old.

Ids are random, and an id that the log has is refused as the event is recorded; but of two that are recorded at the same
moment both may pass.  What waits could then never be sequenced, and all behind it would wait too.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from audit.events import SECTIONS, Event, InvalidEvent, Leaf, seal
from broker.errors import Undecipherable
from broker.keys import DataKey, Keys
from broker.store.event_keys import FreshKey, open_blob, open_body, seal_blob, seal_new_body
from broker.store.log import BlobRow
from broker.store.outbox import Written, put, take_doubles
from broker.store.transaction import Transaction

_OF_THE_EVENT = frozenset({"v", "id", "type", "op"})


def rename_doubles(tx: Transaction, keys: Keys) -> tuple[int, int]:
    """Give a fresh id to each event that waits under one that is taken; how many waited so, and how many have one.

    What waits though it is in the log itself, the same event, needs none: it is only taken away.
    """
    doubles, count = take_doubles(tx), 0
    for row in doubles:
        if Leaf.parse(row.leaf).commitment == row.commitment:
            continue
        try:
            written = _renamed(tx, keys, row)
        except (Undecipherable, InvalidEvent):
            written = _as_it_was(row)
        put(tx, keys, written)
        count += 1
    return len(doubles), count


def _renamed(tx: Transaction, keys: Keys, row: Any) -> Written:
    old, new = keys.data_key(row.key_wrapped or b"", row.event_id), DataKey.fresh()
    opening, event_id = open_body(old, row.event_id, row.sections, row.detail), secrets.token_hex(16)
    said = opening.body("what")
    assert isinstance(said, Mapping)  # as every event's
    what = {name: value for name, value in said.items() if name not in _OF_THE_EVENT}
    parts: dict[str, Any] = {name: opening.body(name) for name in SECTIONS}
    parts["what"] = {**what, "instead_of": row.event_id}
    event = Event(id=event_id, type=json.loads(row.columns)["type"], **parts)
    sealed = seal(event, at_ms=row.at_ms)
    sections, detail = seal_new_body(new, sealed)
    blobs = {}
    for blob in tx.all(BlobRow, event_id=row.event_id):  # of both events that had the id
        try:
            plain = open_blob(old, row.event_id, blob.name, blob.sealed)
        except Undecipherable:
            continue
        blobs[blob.name] = seal_blob(new, event_id, blob.name, plain)
    return Written(
        event_id=event_id, at_ms=row.at_ms, commitment=sealed.commitment, columns=json.loads(row.columns),
        sections=sections, detail=detail, subjects=json.loads(row.subjects), key=FreshKey(event_id, new, row.sole),
        blobs=blobs,
    )  # fmt: skip


def _as_it_was(row: Any) -> Written:
    """Its leaf and what can be searched: the body could not be opened under the old id, nor can it under this."""
    event_id = secrets.token_hex(16)
    return Written(
        event_id=event_id, at_ms=row.at_ms, commitment=row.commitment, columns=json.loads(row.columns),
        sections=row.sections, detail=row.detail, subjects=json.loads(row.subjects),
        key=FreshKey(event_id, DataKey.fresh(), row.sole),
    )  # fmt: skip
