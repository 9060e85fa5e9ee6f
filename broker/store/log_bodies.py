"""Bodies of many events at once, and what was sealed beside them: a question or two, however many there are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlmodel import col, select

from broker.keys import Keys
from broker.store.event_keys import AT_ONCE, EventKeys, open_blob, open_sections
from broker.store.log import BlobRow, EventRow
from broker.store.transaction import Reading


def bodies_of(reading: Reading, keys: Keys, event_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The bodies of each event's sections but `detail`; of an erased event none, nor of a section that is withheld."""
    opened = EventKeys.of(reading, keys, event_ids)
    found: dict[str, dict[str, Any]] = {}
    ids = sorted(event_ids)
    for start in range(0, len(ids), AT_ONCE):
        query = select(EventRow.event_id, EventRow.sections).where(
            col(EventRow.event_id).in_(ids[start : start + AT_ONCE]), col(EventRow.sections).is_not(None)
        )
        for event_id, sealed in reading.connection.execute(query):
            key = opened.get(event_id)
            if key is not None:
                sections = open_sections(key, event_id, sealed)
                found[event_id] = {name: one["body"] for name, one in sections.items() if "body" in one}
    return found


def beside_of(reading: Reading, keys: Keys, event_ids: Collection[str]) -> Mapping[str, dict[str, bytes]]:
    """What was sealed beside each event, by name; nothing of an erased one."""
    opened = EventKeys.of(reading, keys, event_ids)
    found: dict[str, dict[str, bytes]] = {}
    ids = sorted(event_ids)
    for start in range(0, len(ids), AT_ONCE):
        query = select(BlobRow.event_id, BlobRow.name, BlobRow.sealed).where(
            col(BlobRow.event_id).in_(ids[start : start + AT_ONCE])
        )
        for event_id, name, sealed in reading.connection.execute(query):
            key = opened.get(event_id)
            if key is not None:
                found.setdefault(event_id, {})[name] = open_blob(key, event_id, name, sealed)
    return found
