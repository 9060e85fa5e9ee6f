"""The keys of events, and their bodies under them.

The keys lie in tables of their own: to erase an event for good is to delete one row here.

An event's body and the bytes beside it are sealed under a key of its own.  Where it concerns one subject alone that
key is wrapped under the subject's, which is wrapped under the key-encryption key: one row deleted closes every event of
that subject, in old copies of the bodies too.  So copies of these two tables should be kept for days where copies of
the rest are kept for years.  While an event waits in the outbox, its key lies with it, under the key-encryption key: so
that table is to be treated as these are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete
from sqlmodel import Field, col, select

from audit.events import SECTIONS, Opening, Sealed, canonical, loads
from broker.errors import Undecipherable
from broker.keys import DataKey, Keys
from broker.store.columns import Row, octets
from broker.store.statements import ANY_OF, ANY_OF_SQLITE, Asked, Rows, Statement, texts
from broker.store.transaction import Reading, Transaction

NO_SUBJECT: Final = ""
AT_ONCE: Final = 500  # values in one question
_BUT_DETAIL: Final = tuple(name for name in sorted(SECTIONS) if name != "detail")
_OURS: Final = re.compile(r"[0-9a-f]{32}")  # searches, views, considerations: no subjects


class EventKeyRow(Row, table=True):
    """An event's key, wrapped: under its subject's where `subject` names one, else under the key-encryption key."""

    __tablename__ = "audit_key"

    event_id: str = Field(primary_key=True)
    wrapped: bytes = octets()
    subject: str = Field(default=NO_SUBJECT, index=True)  # HMAC, as in the subject index


class SubjectKeyRow(Row, table=True):
    """A subject's key, wrapped under the key-encryption key.  The row without a subject wraps nothing."""

    __tablename__ = "audit_subject_key"

    idx_hmac: str = Field(primary_key=True)
    wrapped: bytes = octets()


def fits(reading: Reading, keys: Keys) -> bool:
    """Whether the key-encryption key opens a key of this log; true of a log that has none to try."""
    tried = reading.session.exec(select(EventKeyRow).where(col(EventKeyRow.subject) == NO_SUBJECT).limit(3)).all()
    return not tried or any(_opens(keys, row) for row in tried)


def _opens(keys: Keys, row: EventKeyRow) -> bool:
    try:
        keys.data_key(row.wrapped, row.event_id)
    except Undecipherable:
        return False
    return True


_KEEP: Final = Rows("audit_key", {"event_id": "text", "wrapped": "bytea", "subject": "text"})
_SUBJECT: Final = {"idx_hmac": "text", "wrapped": "bytea"}
_KEEP_SUBJECTS: Final = Rows("audit_subject_key", _SUBJECT)
_KEEP_MISSING: Final = Rows("audit_subject_key", _SUBJECT, "ON CONFLICT DO NOTHING")
_SUBJECTS_OF: Final = "SELECT idx_hmac, wrapped FROM audit_subject_key WHERE idx_hmac"
_SUBJECTS: Final = Statement(f"{_SUBJECTS_OF} = {ANY_OF}", sqlite=f"{_SUBJECTS_OF} {ANY_OF_SQLITE}")


def sole_subject(about: Collection[str]) -> str | None:
    """The one subject among the ids that an event concerns: its only person, or where there is none its only record.

    A person's records count as that person.  None where there are several, or nobody.
    """
    records = {one for one in about if "/" in one}
    persons = {one for one in about if one not in records and not _OURS.fullmatch(one)}
    few = persons or records
    return next(iter(few)) if len(few) == 1 else None


@dataclass(frozen=True, slots=True)
class FreshKey:
    """An event's key that has no row yet; `subject`: the HMAC of its sole subject's id, under whose key it goes."""

    event_id: str
    key: DataKey
    subject: str = NO_SUBJECT


def new_event_key(tx: Transaction, keys: Keys, event_id: str, *, subject: str | None) -> DataKey:
    """A fresh key for an event, kept in this transaction; `subject`: the HMAC of its sole subject's id."""
    fresh = FreshKey(event_id, DataKey.fresh(), subject or NO_SUBJECT)
    keep_event_keys(tx, keys, (fresh,))
    return fresh.key


def keep_event_keys(tx: Transaction, keys: Keys, fresh: Collection[FreshKey]) -> None:
    """Keep the keys of events, each wrapped under its subject's, which is made where there is none.

    As many statements whether they have subjects or not.
    """
    subjects = sorted({one.subject for one in fresh})
    under: dict[str, DataKey | None] = {}
    while subjects:  # once, but where an erasure takes a key away between the two statements
        made = [{"idx_hmac": subject, "wrapped": keys.new_data_key(_of(subject))[1]} for subject in subjects]
        _, found = tx.ask(_KEEP_MISSING.of(made), subject_keys(subjects, sqlite=tx.sqlite))
        for row in found:
            under[row.idx_hmac] = keys.data_key(row.wrapped, _of(row.idx_hmac)) if row.idx_hmac else None
        subjects = [subject for subject in subjects if subject not in under]
    tx.ask(_kept(keys, fresh, under))


def subject_keys(subjects: Iterable[str], *, sqlite: bool) -> Asked:
    """The keys of these subjects that there are: `idx_hmac`, `wrapped`."""
    return _SUBJECTS.of(texts=texts(subjects, sqlite=sqlite))


def event_keys_kept(keys: Keys, fresh: Collection[FreshKey], wrapped: Mapping[str, bytes]) -> tuple[Asked, ...]:
    """Statements that keep the keys of events, each wrapped under its subject's; of which those of `wrapped` are there.

    They fail where another made a subject's key meanwhile.  As many statements whether they have subjects or not.
    """
    under: dict[str, DataKey | None] = {}
    made = []
    for subject in {one.subject for one in fresh}:
        if subject in wrapped:
            under[subject] = keys.data_key(wrapped[subject], _of(subject)) if subject else None
        else:
            key, row = keys.new_data_key(_of(subject))
            under[subject] = key if subject else None
            made.append({"idx_hmac": subject, "wrapped": row})
    return _KEEP_SUBJECTS.of(made), _kept(keys, fresh, under)


def _kept(keys: Keys, fresh: Collection[FreshKey], under: Mapping[str, DataKey | None]) -> Asked:
    return _KEEP.of(
        [
            {
                "event_id": one.event_id, "subject": one.subject,
                "wrapped": keys.wrap(one.key, one.event_id, under=under[one.subject]),
            }
            for one in fresh
        ]
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EventKeys:
    """Keys of some events, unwrapped as they are asked for; a subject's only once."""

    _keys: Keys
    _rows: Mapping[str, tuple[bytes, str, bytes | None]]
    _subjects: dict[str, DataKey]

    @classmethod
    def of(cls, reading: Reading, keys: Keys, event_ids: Collection[str]) -> EventKeys:
        """The keys of these events, however many, by few questions."""
        ids = sorted(event_ids)
        rows: dict[str, tuple[bytes, str, bytes | None]] = {}
        for start in range(0, len(ids), AT_ONCE):
            query = (
                select(EventKeyRow.event_id, EventKeyRow.wrapped, EventKeyRow.subject, SubjectKeyRow.wrapped)
                .join(SubjectKeyRow, col(SubjectKeyRow.idx_hmac) == col(EventKeyRow.subject), isouter=True)
                .where(col(EventKeyRow.event_id).in_(ids[start : start + AT_ONCE]))
            )
            rows |= {one: (wrapped, index, subject) for one, wrapped, index, subject in reading.session.exec(query)}
        return cls(keys, rows, {})

    def get(self, event_id: str) -> DataKey | None:
        """An event's key, or None if it was erased.  Raises Undecipherable if a row was moved or altered."""
        found = self._rows.get(event_id)
        if found is None:
            return None
        wrapped, index, subject = found
        if index == NO_SUBJECT:
            return self._keys.data_key(wrapped, event_id)
        if subject is None:
            return None
        if index not in self._subjects:
            self._subjects[index] = self._keys.data_key(subject, _of(index))
        return self._keys.data_key(wrapped, event_id, under=self._subjects[index])


def event_key(reading: Reading, keys: Keys, event_id: str) -> DataKey | None:
    """One event's key, or None if it was erased."""
    return EventKeys.of(reading, keys, [event_id]).get(event_id)


def drop_event_keys(tx: Transaction, event_ids: Collection[str]) -> int:
    """Delete the keys of these events; how many there were."""
    return _drop(tx, EventKeyRow, "event_id", event_ids)


def drop_subject_keys(tx: Transaction, indexes: Collection[str]) -> int:
    """Delete the keys of these subjects; how many there were."""
    return _drop(tx, SubjectKeyRow, "idx_hmac", set(indexes) - {NO_SUBJECT})


def seal_body(key: DataKey, event_id: str, opening: Opening) -> tuple[bytes, bytes]:
    """An event's sections, and its detail apart, as they are stored: each with its salt, or withheld for good."""
    sections = opening.to_json()
    detail = sections.pop("detail")
    return _body(key, event_id, canonical(sections), canonical(detail))


def seal_new_body(key: DataKey, sealed: Sealed) -> tuple[bytes, bytes]:
    """As `seal_body`, for a whole event whose canonical forms are known."""
    sections = b",".join(b'"' + one.encode() + b'":' + sealed.canonical_section(one) for one in _BUT_DETAIL)
    return _body(key, sealed.event_id, b"{" + sections + b"}", sealed.canonical_section("detail"))


def open_body(key: DataKey, event_id: str, sections: bytes, detail: bytes) -> Opening:
    """What `seal_body` sealed.  Raises Undecipherable if the key or the event is another."""
    opened = loads(key.open(sections, bound_to=_place(event_id, "sections")))
    hidden = loads(key.open(detail, bound_to=_place(event_id, "detail")))
    assert isinstance(opened, dict)
    return Opening.from_json({**opened, "detail": hidden})


def open_sections(key: DataKey, event_id: str, sections: bytes) -> dict[str, dict[str, Any]]:
    """The sections without `detail`, as `seal_body` wrote them: `{"body", "salt"}`, or `{"commitment"}` if withheld.

    For those who read many.  Raises Undecipherable if the key or the event is another.
    """
    found: dict[str, dict[str, Any]] = json.loads(key.open(sections, bound_to=_place(event_id, "sections")))
    return found


def seal_blob(key: DataKey, event_id: str, name: str, blob: bytes) -> bytes:
    """Bytes beside an event, as they are stored."""
    return key.seal(blob, bound_to=_place(event_id, f"blob:{name}"))


def open_blob(key: DataKey, event_id: str, name: str, sealed: bytes) -> bytes:
    """What `seal_blob` sealed.  Raises Undecipherable if the key, the event or the name is another."""
    return key.open(sealed, bound_to=_place(event_id, f"blob:{name}"))


def _body(key: DataKey, event_id: str, sections: bytes, detail: bytes) -> tuple[bytes, bytes]:
    return key.seal_both((sections, _place(event_id, "sections")), (detail, _place(event_id, "detail")))


def _drop(tx: Transaction, row: type[Row], column: str, values: Collection[str]) -> int:
    gone, listed = 0, sorted(values)
    for start in range(0, len(listed), AT_ONCE):
        some = listed[start : start + AT_ONCE]
        gone += tx.session.exec(delete(row).where(col(getattr(row, column)).in_(some))).rowcount
    return gone


def _place(event_id: str, part: str) -> bytes:
    return f"sg-event-1|{event_id}|{part}".encode()


def _of(index: str) -> str:
    return f"subject|{index}"
