"""Emergency access: a person breaks the glass for one child, with a reason that is kept, and somebody reviews it.

It opens what a source signed for beforehand, and lifts what it said an emergency lifts; nothing else.  It lasts as long
as the one view that it opens, an hour at most; nothing extends it, and another needs another reason.  Whoever's last
one was not reviewed in time breaks no glass until it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from agreements import VOCABULARY, BreakGlass
from audit.events import Event
from broker.callers import Caller
from broker.deciding import Released, refused
from broker.errors import Malformed, NotFound
from broker.family_view import Refusal
from broker.reviewing import due
from broker.store import Reading, Store, Transaction
from broker.store.audit_reviews import unreviewed
from broker.store.log import EventRow
from broker.trail import Trail, new_event_id

PURPOSE: Final = "EMERGENCY"
WORDS: Final = 500  # characters of a reason in somebody's own words
SAID: Final = r"^[!-~\u00a1-\u024f\u2010-\u2027][ -~\u00a1-\u024f\u2010-\u2027]*$"
"""One line, of Latin letters and what is written among them."""
OPENED: Final = "breakglass.opened"
OVERDUE: Final = "Your last emergency access has not been reviewed in time. Ring the holder, and ask for the review."


@dataclass(frozen=True, slots=True, kw_only=True)
class Emergency:
    """Why somebody can't wait: a code, and their own words, out of which the gateway has struck every name."""

    reason: str
    words: str

    def session(self, at: datetime) -> BreakGlass:
        """As `agreements` decides under it."""
        return BreakGlass(reason=self.reason, started=at)

    def check(self) -> None:
        """Raises Malformed, which quotes nothing, for a reason that is none, and where the words are missing."""
        if self.reason not in VOCABULARY.emergencies:
            raise Malformed(f"reason: one of {', '.join(VOCABULARY.emergencies)} is due")
        if len(self.words) > WORDS or not re.fullmatch(SAID, self.words):
            raise Malformed(f"words: up to {WORDS} characters on one line are due")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """An emergency that its asker says is over."""

    emergency: str
    at: datetime


def barred(tx: Reading, caller: Caller, *, at: datetime) -> Refusal | None:
    """Why somebody may break no glass now: an earlier use of theirs waits for its review, and is overdue."""
    for t_ms in unreviewed(tx, caller.organisation, caller.person, OPENED):
        if due(datetime.fromtimestamp(t_ms / 1000, UTC), "break_glass") <= at:
            return refused("NO_SESSION", sentence=OVERDUE, unlock="a review of your last emergency access")
    return None


def record(
    tx: Transaction, trail: Trail, caller: Caller, emergency: Emergency, *, search: str, view: str, child: str,
    case: str, ends_at: datetime, at: datetime,
) -> str:  # fmt: skip
    """Put in the log that the glass was broken, before the answer's own entry; the event's id."""
    event = Event(
        id=new_event_id(),
        type=OPENED,
        who=caller.who(),
        what={"search": search, "view": view, "ends_at": ends_at.isoformat(), "outcome": "opened", "break_glass": True},
        why={"purpose": PURPOSE, "case": case, "reason": emergency.reason},
        subjects=[child],
        recipients=[{"organisation": caller.organisation, "person": caller.person, "role": caller.role}],
        detail={"words": emergency.words},
    )
    return trail.record(tx, event, about=[child, view], at=at).event_id


def close(store: Store, trail: Trail, caller: Caller, *, emergency: str, at: datetime) -> Released[Closed]:
    """Say that an emergency of one's own is over; twice does no harm.

    Raises NotFound alike for another's and an invented one, LogUnavailable.
    """
    with store.transaction() as tx:
        opened = tx.one(EventRow, event_id=emergency, type=OPENED, org=caller.organisation, actor_ref=caller.person)
        if opened is None:
            raise NotFound("there is no such emergency of yours")
        event = Event(
            id=new_event_id(),
            type="breakglass.closed",
            who=caller.who(),
            what={"opened": emergency, "outcome": "closed"},
            why={"purpose": PURPOSE},
            detail={},
        )
        entry = trail.record(tx, event, at=at)
    return Released(Closed(emergency=emergency, at=at), trail.receipt(entry))
