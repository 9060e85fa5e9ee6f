"""What falls due: agreements and restrictions that near their last day or their review, and those that have ended.

Each step (90, 60, 30, 7 days), each overdue review and each end is told once, and is in the log for information
governance.  Disclosure stops by itself on the day, whether or not a night ever runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from agreements.agreement import london_day
from agreements.lifecycle import Due, spoken, warnings
from audit.events import Json
from broker import register
from broker.register import Listed
from broker.store import Reading, Store
from broker.store.documents import AgreementStatusRow
from broker.trail import Trail, Who, record_change


def calendar(reading: Reading, *, at: datetime, within: int) -> list[tuple[Listed, Due]]:
    """The last days and reviews of the coming days, soonest first, of what has been put in force and has not ended."""
    found = [
        (listed, warning)
        for listed in register.documents(reading, at=at)
        if listed.status != "draft" and not listed.state.ended
        for warning in warnings([listed.document], at, within=within)
    ]
    return sorted(found, key=lambda one: (one[1].due, one[1].ref, one[1].kind))


def tell(store: Store, trail: Trail, *, who: Who, at: datetime) -> list[dict[str, Any]]:
    """Tell what has newly fallen due, as data; each thing once, kept and recorded in one transaction."""
    with store.transaction() as tx:
        told = {(row.agreement, row.reason) for row in tx.all(AgreementStatusRow, status=("warned", "expired"))}
        done = []
        for listed in register.documents(tx, at=at):
            for code, words, what in _falling_due(listed):
                if listed.status == "draft" or (listed.ref, code) in told:
                    continue
                kind = "restriction" if listed.kind == "restriction" else "agreement"
                ended = code.startswith("ended")
                register.add_status(tx, listed.ref, "expired" if ended else "warned", code, "night", at)
                event = f"{kind}.expired" if ended else "agreement.warned"
                if code == "review-overdue":
                    event = "agreement.review_overdue"
                record_change(tx, trail, event, who, at, **{kind: listed.ref}, code=code, **what)
                done.append({"ref": listed.ref, "code": code, "words": words, **what})
        return done


def _falling_due(listed: Listed) -> Iterator[tuple[str, str, dict[str, Json]]]:
    """The code of each thing that is due, in words, and what the log says of it."""
    if listed.state.name == "expired":
        ended = listed.state.since or listed.document.period.end
        last = london_day(ended - timedelta(microseconds=1))
        umbrella = f" with its umbrella {listed.under}" if listed.state.why == "umbrella" else ""
        stops = listed.kind != "restriction"
        then = "Nothing is disclosed under it." if stops else "It holds nothing back any more."
        words = f"{listed.ref}: it has ended{umbrella}; its last day was {spoken(last)}. {then}"
        yield f"ended-{listed.state.why}", words, {"due": last.isoformat(), "stops": stops}
    for one in listed.due:
        code = "review-overdue" if one.step is None else f"{one.kind}-{one.step}"
        yield code, one.words, {"due": one.due.isoformat(), "days": one.days, "stops": one.stops}
