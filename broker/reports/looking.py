"""Who may look into the log, why, and the event that each look is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from audit.events import OPS, Event, Json, Section, SectionName
from broker.callers import Caller
from broker.errors import Malformed, NotAllowed
from broker.settings import GOVERNANCE
from broker.store import Store
from broker.store.log_search import Head
from broker.trail import Trail, new_event_id

READERS: Final = GOVERNANCE
LOOKERS: Final = READERS | {"INSPECTOR"}
OPEN_SECTIONS: Final[tuple[SectionName, ...]] = ("who", "what", "why", "subjects", "recipients")
"""What a look opens: never `detail`, which holds what was hidden, and is asked for by itself."""

REASONS: Final[Mapping[str, str]] = {
    "lawfulness": "To check that processing was lawful",
    "self_monitoring": "Self-monitoring or discipline",
    "integrity": "Integrity or security of the information",
    "criminal_proceedings": "Criminal proceedings",
}
"""Why a log may be consulted: Data Protection Act 2018 s.62(4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """One event as a list shows it."""

    event_id: str
    at: datetime
    type: str
    op: str
    organisation: str
    person: str
    role: str
    purpose: str
    case: str
    outcome: str
    break_glass: bool


def listed(head: Head) -> LoggedEvent:
    """An event's columns, as a list shows them."""
    return LoggedEvent(
        event_id=head.event_id, at=instant(head.t_ms), type=head.type, op=OPS[head.type].value,
        organisation=head.org, person=head.actor_ref, role=head.role, purpose=head.purpose, case=head.case_hmac,
        outcome=head.outcome, break_glass=head.break_glass,
    )  # fmt: skip


def instant(t_ms: int) -> datetime:
    """Unix milliseconds as an instant."""
    return datetime.fromtimestamp(t_ms / 1000, UTC)


def check_reader(caller: Caller) -> None:
    """Return if the caller may read the log.  Raises NotAllowed."""
    if caller.kind != "officer" or caller.role not in READERS:
        raise NotAllowed("the log is read by information governance")


def check_looker(caller: Caller) -> None:
    """Return if the caller may search the log, open its events and take reports, which an inspector may too while an
    inspection lasts: no more than that.  Raises NotAllowed."""
    if caller.kind != "officer" or caller.role not in LOOKERS:
        raise NotAllowed("the log is read by information governance")


def check_reason(reason: str) -> None:
    """Return if it is one of those the Act names.  Raises Malformed."""
    if reason not in REASONS:
        raise Malformed(f"purpose: why the log is consulted is due, one of {', '.join(REASONS)}")


def note(
    store: Store,
    trail: Trail,
    caller: Caller,
    type_: str,
    *,
    what: Mapping[str, Json],
    why: Mapping[str, Json],
    subjects: Sequence[str] = (),
    at: datetime,
) -> str:
    """Record a look, and wait until the log covers it; the event's id.  Raises LogUnavailable."""
    event = Event(
        id=new_event_id(),
        type=type_,
        who=caller.who(),
        what=what,
        why=why,
        subjects=list(subjects),
        recipients=[{"organisation": caller.organisation, "person": caller.person, "role": caller.role}],
        detail={},
    )
    trail.receipt_for(event, about=subjects, at=at)
    return event.id


def bodies(trail: Trail, event_id: str, show: Sequence[SectionName]) -> dict[str, Any]:
    """The bodies of an event's sections.  Raises NotFound if there is no such event, or it was erased."""
    opened = trail.opening(event_id, show=show).sections
    return {name: section.body for name in show if isinstance(section := opened[name], Section)}
