"""What an agency asked of the broker, as its own client and gateway wrote it down: held against the receipts it keeps.

One JSON object a line; a request is written before it is sent, and again when it has been answered:

    {"at": "2026-11-22T09:30:00Z", "id": "<64 hex digits>", "what": "POST /v1/searches"}
    {"at": "2026-11-22T09:30:01Z", "id": "<64 hex digits>", "answered": 201, "event": "<event id>"}

The id is the SHA-256 of the person's signed statement that went with the request, or of a batch's manifest: the log's
event names the same, so a receipt says itself which request it answers.  No name and no number is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from audit.events import InvalidEvent, Json, loads
from audit.receipts import LogReceipt

_ID: Final = re.compile(r"[0-9a-f]{64}")


class JournalInvalid(ValueError):
    """A journal that can't be read; names the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that was sent, and what is known of its answer."""

    id: str
    at: str
    what: str
    answered: int | None = None
    event: str | None = None

    @property
    def refused(self) -> bool:
        """Whether the broker did not take the request: then nothing happened that there could be a receipt of."""
        return self.answered is not None and 400 <= self.answered < 500

    def to_json(self) -> dict[str, Json]:
        """Plain data."""
        return {"id": self.id, "at": self.at, "what": self.what, "answered": self.answered, "event": self.event}


def parse(text: str) -> dict[str, Asked]:
    """The requests of a journal by id, in the order in which they were sent.  Raises JournalInvalid.

    A last line that was cut off by a crash is passed over.
    """
    found: dict[str, Asked] = {}
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = loads(line)
        except InvalidEvent:
            if number == len(lines):
                break
            raise JournalInvalid(f"line {number} is not JSON") from None
        _take(found, value, number)
    return found


def named_by(receipt: LogReceipt) -> set[str]:
    """The ids of requests that a receipt's event names."""
    sections = [receipt.opening.body(name) for name in ("who", "what") if name not in receipt.opening.withheld]
    named = [
        section.get(field)
        for section in sections
        if isinstance(section, Mapping)
        for field in ("assertion_sha256", "manifest_sha256")
    ]
    return {each for each in named if isinstance(each, str)}


def without_receipt(asked: Mapping[str, Asked], receipts: Iterable[LogReceipt]) -> tuple[Asked, ...]:
    """The requests that no receipt answers, and that were not refused."""
    named: set[str] = set()
    events: set[str] = set()
    for receipt in receipts:
        named |= named_by(receipt)
        events.add(receipt.event_id)
    return tuple(one for one in asked.values() if one.id not in named and one.event not in events and not one.refused)


def _take(found: dict[str, Asked], value: Json, number: int) -> None:
    if not isinstance(value, dict):
        raise JournalInvalid(f"line {number} is not an object")
    key, at, what = (value.get(name) for name in ("id", "at", "what"))
    answered, event = value.get("answered"), value.get("event")
    if not isinstance(key, str) or not _ID.fullmatch(key) or not isinstance(at, str):
        raise JournalInvalid(f"line {number} has no id of 64 hex digits, or no time")
    if isinstance(what, str):
        found.setdefault(key, Asked(id=key, at=at, what=what))
    elif key in found and isinstance(answered, int):
        found[key] = replace(found[key], answered=answered, event=event if isinstance(event, str) else None)
    else:
        raise JournalInvalid(f"line {number} is neither a request nor the answer to one above it")
