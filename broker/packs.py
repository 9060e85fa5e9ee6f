"""The monthly pack of information governance: what was disclosed and refused, what was reviewed, how the log stands.

Counts alone: nobody asked about is in it, and of staff none but by organisation and role.  Canonical JSON, so that the
same month made again from the same log is the same file but for when it was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import rfc8785

from audit.events import Json
from broker import sampling, witnesses
from broker.callers import Caller
from broker.errors import Malformed
from broker.reports.catalogue import report
from broker.reports.looking import check_reader, check_reason, note
from broker.reports.register import BREAK_GLASS
from broker.reports.table import Period, Report, utc
from broker.store import Reading, Store
from broker.store.audit_reviews import CaseRow, SampleRow, flags_between, reviews_between
from broker.store.log_search import head_of_event
from broker.trail import Trail

COUNTED: Final = ("R1", "R2", "R3", "R5", "R6", "R8", "R9", "R10")
"""What is counted of a period; R4 and R7 are of one subject or one breach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A pack that was recorded, and may leave."""

    event_id: str
    month: str
    sha256: str
    content: bytes

    @property
    def filename(self) -> str:
        """A name for it, by its event."""
        return f"pack-{self.month}-{self.event_id}.json"


def pack(store: Store, trail: Trail, caller: Caller, *, month: date, reason: str, at: datetime) -> Pack:
    """The pack of the month that a day lies in, and the event that it was made, with its SHA-256.

    Raises NotAllowed, Malformed for a month that has not begun or a reason off the list, LogUnavailable; nothing leaves
    before it is recorded.
    """
    check_reader(caller)
    check_reason(reason)
    first = month.replace(day=1)
    period = Period.of_days(first, (first + timedelta(days=32)).replace(day=1) - timedelta(days=1))
    if period.since > at:
        raise Malformed("month: it has not begun")
    trail.advance_pending()
    name = f"{first:%Y-%m}"
    content = rfc8785.dumps(
        {
            "pack": "sg-audit/pack/v1", "month": name, "made_at": utc(at), "whole": period.until <= at,
            **_of_reports(store, trail, period, at=at), **_of_reviews(store, period, at=at),
            "integrity": _integrity(store, trail, at=at),
        }
    )  # fmt: skip
    digest = sha256(content).hexdigest()
    what: dict[str, Json] = {"report": "pack", "month": name, "sha256": digest, "bytes": len(content)}
    event_id = note(store, trail, caller, "audit.report_issued", what=what, why={"reason": reason}, at=at)
    return Pack(event_id=event_id, month=name, sha256=digest, content=content)


def _of_reports(store: Store, trail: Trail, period: Period, *, at: datetime) -> dict[str, Any]:
    """Rows of each report, and of the registers who and why, by counts of events."""
    made = {code: report(code, store, trail, period, at=at) for code in COUNTED}
    rows = {code: sum(1 for _ in one.rows()) for code, one in made.items() if code not in ("R1", "R2", "R3")}
    disclosed, rows["R1"] = _counts(made["R1"], ("org", "role", "purpose"), "decision")
    refused, rows["R2"] = _counts(made["R2"], ("org", "role", "purpose"), "decision")
    opened, rows["R3"] = _counts(made["R3"], ("org", "role", "purpose"), "decision")
    return {
        "rows": dict(sorted(rows.items())), "disclosures": disclosed, "refusals": refused, "break_glass": opened,
    }  # fmt: skip


def _counts(made: Report, by: tuple[str, ...], outcome: str) -> tuple[dict[str, Any], int]:
    """Events (not rows) by organisation, role and purpose, and by outcome; and how many rows there are.

    An event with several outcomes, as a view that was refused in part for several reasons, counts once for each.
    """
    places = {name: made.columns.index(name) for name in ("event_id", outcome, *by)}
    seen: dict[str, str] = {}
    ends: set[tuple[str, str]] = set()
    rows = 0
    for row in made.rows():
        rows += 1
        told = " / ".join(str(row[places[name]]) for name in by)
        seen.setdefault(event_id := str(row[places["event_id"]]), told)
        ends.add((event_id, str(row[places[outcome]])))
    return {
        "events": len(seen),
        "by": dict(sorted(Counter(seen.values()).items())),
        "outcome": dict(sorted(Counter(ended for _, ended in ends).items())),
    }, rows


def _of_reviews(store: Store, period: Period, *, at: datetime) -> dict[str, Any]:
    with store.reading() as reading:
        flags = flags_between(reading, since=period.since, until=period.until)
        reviews = reviews_between(reading, since=period.since, until=period.until)
        samples = [
            {
                "since": utc(row.since), "until": utc(row.until), "candidates": row.candidates, "drawn": row.drawn,
                "by_reason": row.by_reason, "witnessed": row.witnessed, "event_id": row.event_id,
            }
            for row in reading.all(SampleRow, order=["since", "id"])
            if period.since <= row.until <= period.until
        ]  # fmt: skip
        waiting = reading.all(CaseRow, state=["open", "taken"])
        return {
            "flags": dict(sorted(Counter(row.rule for row in flags).items())),
            "reviews": {
                "decided": dict(sorted(Counter(row.decision for row in reviews).items())),
                "second": dict(sorted(Counter(row.second or "waiting" for row in reviews).items())),
                "break_glass_in_time": _in_time(reading, {row.event_id: row.at for row in reviews}),
                "waiting": len(waiting),
                "overdue": sum(row.due_at < at for row in waiting),
            },
            "samples": samples,
            "samples_owed": [one.to_json() for one in sampling.owed(reading, at=at) if one.until <= period.until],
        }


def _in_time(reading: Reading, decided: Mapping[str, datetime]) -> dict[str, int]:
    """Of break-glass that was reviewed, how much within its working day."""
    found: Counter[str] = Counter()
    for event_id, when in decided.items():
        head, case = head_of_event(reading, event_id), reading.one(CaseRow, event_id=event_id)
        if head is not None and case is not None and (head.break_glass or head.type in BREAK_GLASS):
            found["in_time" if when <= case.due_at else "late"] += 1
    return dict(sorted(found.items()))


def _integrity(store: Store, trail: Trail, *, at: datetime) -> dict[str, Any]:
    """How the log and its witnesses stand when the pack is made."""
    with store.reading() as reading:
        standing = witnesses.standing(reading, trail.origin, at=at).to_json()
    return {**standing, "broken": trail.broken()}
