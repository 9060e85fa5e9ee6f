"""What a reviewer, an agency or a reporter is told, and the closed lists that all of it is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from linkage.matching.bands import HELD
from linkage.matching.explain import LABELS, OTHER_REASONS, held_because

Decision = Literal["same", "different", "cannot_tell"]
State = Literal["waiting", "second", "passed_on"]

REVIEWER: Final = "LINK_REVIEWER"
QUEUE_REASONS: Final = (*HELD, *OTHER_REASONS)
DECISIONS: Final = ("same", "different", "cannot_tell")
STATES: Final = ("waiting", "second", "passed_on")
WHY: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "levels_agree": ("What agrees can't be chance", ("same",)),
    "slip_of_the_pen": ("What differs is a slip, or has changed since", ("same",)),
    "number_replaced": ("One number has taken the other's place", ("same",)),
    "agency_says_same": ("An agency looked at its records: the same person", ("same",)),
    "levels_differ": ("What differs can't be a slip", ("different",)),
    "twins_or_siblings": ("Twins, or a brother or sister", ("different",)),
    "parent_and_child": ("A parent and a child", ("different",)),
    "agency_says_different": ("An agency looked at its records: two people", ("different",)),
    "not_enough": ("What is shown does not settle it", ("cannot_tell",)),
    "agency_cannot_tell": ("An agency looked and can't tell", ("cannot_tell",)),
}
"""Reason codes, each with its label and the decisions it may bear."""
EVIDENCE: Final[Mapping[str, str]] = {
    "agreement_levels": "The agreement levels",
    "waterfall": "The waterfall of weights",
    "conflicting_numbers": "Numbers that differ",
    "history": "The history of the pair",
    "left_agency_rung": "The first agency, by telephone",
    "right_agency_rung": "The second agency, by telephone",
}
WRONG_PERSON_HOW: Final[Mapping[str, str]] = {
    "knows_the_child": "I know the child, and this is another",
    "family_says_so": "The child or the family says so",
    "dates_impossible": "The dates can't be of one child",
    "own_record_checked": "We looked at our own record",
}
WHAT_IS_WRONG: Final = ("whole_child", "organisation_record", "family_member")
TAKEN_BACK: Final[Mapping[str, str]] = {
    "decided_in_error": "It was decided in error",
    "agency_says_otherwise": "An agency looked at its records, and says otherwise",
    "records_have_changed": "The records have changed since",
}
SECOND_FOR_SAME: Final = ("twin", "conflict", "swapped")
DECISION_OF: Final = {"must_link": "same", "must_not_link": "different"}
PAGE: Final = 50
PER_HOUR: Final[Mapping[str, int]] = {"listed": 240, "opened": 120, "decided": 120, "asked": 60, "reported": 20}
"""How often one person may do each in an hour."""
NEXT_NIGHT: Final = "next_night"
ASKS: Final = "Is this record of one person, and are these of it right?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which part of the queue is wanted."""

    state: State = "waiting"
    reason: str | None = None
    agency: str | None = None
    waiting_days: int = 0
    after: str | None = None
    limit: int = PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One entry of the queue: why it waits, since when, between whom; nothing of how likely it is."""

    review: str
    reason: str
    sentence: str
    agencies: tuple[str, str]
    since: datetime
    yours: bool  # the caller has decided it, so that somebody else must confirm


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePage:
    """Entries, oldest first; `next` is the cursor of the following page."""

    at: datetime
    reviews: tuple[Waiting, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSaid:
    """How one field compares."""

    field: str
    label: str
    level: str
    rarity: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One bar of the waterfall, in bits, to one decimal."""

    field: str
    level: str
    weight: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that was done about a pair, and whether by the caller."""

    act: str
    code: str
    at: datetime
    yours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What the caller did last about a pair, how that stands now, and how many pairs they did since an instant."""

    review: str
    act: str
    code: str
    state: str
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One pair, masked."""

    review: str
    state: str
    reason: str
    sentence: str
    agencies: tuple[str, str]
    records: tuple[int, int]  # how many each side has: over one where a person is doubted
    since: datetime
    fields: tuple[FieldSaid, ...]
    numbers_agree: tuple[str, ...]
    numbers_differ: tuple[str, ...]
    numbers_missing: tuple[str, ...]
    waterfall: tuple[Step, ...]
    second_reviewer: bool  # whether joining or parting these takes two
    proposed: str | None  # what the first reviewer decided, where a second is due
    history: tuple[Act, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What became of a decision.  It binds from the next night's run, or from the one after it is confirmed."""

    review: str
    decision: str
    state: str  # active, proposed, withdrawn, passed_on
    override: str | None
    takes_effect: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToRing:
    """Whom to ring at one agency, and what to quote so that it finds its own record."""

    organisation: str
    name: str
    contact: Mapping[str, str] | None
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Both agencies, and what to ask them."""

    review: str
    agencies: tuple[ToRing, ToRing]
    ask: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an agency is asked about a record of its own."""

    reference: str
    flow: str
    record_ref: str
    ask: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A report of a wrong person was taken.  The same whatever is behind it."""

    report: str
    at: datetime
    sentence: str = "Recorded. A reviewer looks at it. Do not use what you saw."


def labels() -> dict[str, Any]:
    """The closed lists, each code with its label."""
    return {
        "reasons": {code: held_because(code) for code in QUEUE_REASONS},
        "decisions": {decision: [code for code, (_, may) in WHY.items() if decision in may] for decision in DECISIONS},
        "why": {code: label for code, (label, _) in WHY.items()},
        "evidence": dict(EVIDENCE),
        "fields": dict(LABELS),
        "taken_back": dict(TAKEN_BACK),
        "wrong_person": dict(WRONG_PERSON_HOW),
    }
