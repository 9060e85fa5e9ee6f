"""Every event about a subject, opened: by the subject index, whatever else the log holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, select
from sqlmodel import col

from broker.keys import Keys
from broker.store.erasures import parts
from broker.store.event_keys import EventKeys, open_sections
from broker.store.log import EventRow, SubjectRow
from broker.store.transaction import Reading

_COLUMNS = (
    col(EventRow.event_id), col(EventRow.log_id), col(EventRow.seq), col(EventRow.t_ms), col(EventRow.type),
    col(EventRow.sections), col(EventRow.withheld_at),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AboutSubject:
    """One event about a subject: the bodies of what is left of it, but for `detail`, and the names of what is not."""

    event_id: str
    log_id: str
    seq: int
    t_ms: int
    type: str
    bodies: Mapping[str, Any]
    gone: frozenset[str]


def about_subject(reading: Reading, keys: Keys, indexes: Collection[str]) -> list[AboutSubject]:
    """The events about any of these ids (HMACs), in the order of the log; those that were erased are none."""
    found: dict[str, Any] = {}
    for some in parts(set(indexes)):
        query = (
            select(*_COLUMNS)
            .join(
                SubjectRow,
                and_(col(SubjectRow.log_id) == col(EventRow.log_id), col(SubjectRow.seq) == col(EventRow.seq)),
            )
            .where(col(SubjectRow.idx_hmac).in_(some), col(EventRow.erased_at).is_(None))
        )
        found |= {row[0]: row for row in reading.connection.execute(query)}
    opened = EventKeys.of(reading, keys, found)
    listed = []
    for event_id, log_id, seq, t_ms, type_, sealed, withheld_at in found.values():
        key = opened.get(event_id)
        if key is not None and sealed is not None:
            sections = open_sections(key, event_id, sealed)
            bodies = {name: section["body"] for name, section in sections.items() if "body" in section}
            gone = sections.keys() - bodies.keys() | ({"detail"} if withheld_at is not None else set())
            listed.append(
                AboutSubject(
                    event_id=event_id, log_id=log_id, seq=seq, t_ms=t_ms, type=type_, bodies=bodies,
                    gone=frozenset(gone),
                )
            )  # fmt: skip
    return sorted(listed, key=lambda one: (one.t_ms, one.log_id, one.seq))
