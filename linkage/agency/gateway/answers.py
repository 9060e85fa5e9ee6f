"""What the broker answers, read into frozen values.  A later broker may add members: those are not read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["CURRENT", "STALE", "NOT_CONNECTED", "PAUSED"]
Band = Literal["match", "possible"]


class Answer(BaseModel):
    """Frozen; unknown members are dropped; an error quotes no value."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True)


class Contact(Answer):
    """A desk to ring."""

    name: str
    phone: str
    out_of_hours: str | None = None


class Refusal(Answer):
    """What is not shown, why, and what would unlock it: words chosen by the broker, from a closed set."""

    organisation: str | None = None
    category: str | None = None
    code: str
    sentence: str
    unlock: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason why something is not shown, with all that it holds for."""

    organisations: tuple[str, ...]  # empty: whichever
    code: str
    sentence: str
    unlock: str | None
    categories: tuple[str, ...]  # empty: everything

    @property
    def of_threshold(self) -> bool:
        """Whether a threshold decision would unlock it."""
        return self.code.startswith("THRESHOLD")


def reasons(refusals: Iterable[Refusal], *, across: bool = False) -> list[Reason]:
    """Each reason once per organisation, in the order given; with `across`, once for all that it names alike."""
    grouped: dict[tuple[str | None, ...], list[Refusal]] = {}
    for one in refusals:
        of = None if across else one.organisation
        grouped.setdefault((of, one.code, one.sentence, one.unlock), []).append(one)
    return [
        Reason(
            organisations=tuple(dict.fromkeys(one.organisation for one in alike if one.organisation)),
            code=alike[0].code,
            sentence=alike[0].sentence,
            unlock=alike[0].unlock,
            categories=tuple(dict.fromkeys(one.category for one in alike if one.category)),
        )
        for alike in grouped.values()
    ]


class LogPosition(Answer):
    """Under which checkpoint of which log the entry lies."""

    origin: str
    size: int


class Receipt(Answer):
    """Proof that the request and its answer were in the log before the answer left.  Kept whole, for `auditor`."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    event_id: str
    log: LogPosition
    opening: dict[str, Any]
    proof: str
    decisions: list[Any] = Field(default_factory=list)


class Candidate(Answer):
    """One person the search may be about."""

    candidate: str
    band: Band
    agreed: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    birth_year: int | None = None
    organisations: tuple[str, ...] = ()


class Feed(Answer):
    """One organisation's flow, and how fresh it is."""

    organisation: str
    name: str = ""  # as people call it
    flow: str
    state: State
    as_of: datetime | None = None
    paused_since: datetime | None = None
    contact: Contact | None = None


class SearchAnswer(Answer):
    """The answer to a search."""

    search: str
    at: datetime
    candidates: tuple[Candidate, ...] = ()
    organisations: tuple[Feed, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    too_many: str | None = None
    banner: str
    receipt: Receipt | None = None

    @property
    def refused(self) -> bool:
        """Whether nothing at all could have been shown; what is shown in part alone is no refusal of the search."""
        return bool(self.refusals) and all(refusal.code != "MODE_EXCEEDS" for refusal in self.refusals)

    @property
    def matches(self) -> tuple[Candidate, ...]:
        """Candidates in the upper band."""
        return tuple(candidate for candidate in self.candidates if candidate.band == "match")

    @property
    def possibles(self) -> tuple[Candidate, ...]:
        """Candidates that the agency has to confirm."""
        return tuple(candidate for candidate in self.candidates if candidate.band == "possible")

    @property
    def only_match(self) -> Candidate | None:
        """The candidate, where there is exactly one match and nothing else."""
        return self.candidates[0] if len(self.candidates) == 1 and self.matches else None


class Person(Answer):
    """The child as the broker knows them: no name."""

    birth_year: int | None = None
    sex: str | None = None
    band: Band
    agreed: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()


class FirstCall(Answer):
    """Is this child already open to someone, and whom to ring."""

    kind: Literal["already_open", "lead_practitioner", "stepped_down", "none"]
    organisation: str | None = None
    sector: str | None = None
    since: date | None = None
    contact: Contact | None = None
    sentence: str | None = None


class Status(Answer):
    """One code or band, in words."""

    code: str
    label: str


class Clause(Answer):
    """The signed words under which something is shown."""

    agreement: str
    clause: str
    text: str


class Shown(Answer):
    """One kind of information, as far as it may be shown."""

    category: str
    label: str
    mode: Literal["existence", "status", "summary", "detail"]
    last_active: str | None = None
    status: Status | None = None
    items: tuple[dict[str, Any], ...] = ()
    may_ask_holder: bool = False
    unconfirmed: bool = False
    about: str = "subject_child"
    under: tuple[Clause, ...] = ()


class Tile(Feed):
    """An organisation's flow that has something to show."""

    categories: tuple[Shown, ...] = ()


class Other(Feed):
    """An organisation's flow that shows nothing, and what that means."""

    sentence: str


class Relative(Answer):
    """One line of the family, as someone stated it."""

    relation: str
    birth_year: int | None = None
    person_role: str | None = None
    known_to: int = 0
    sources: tuple[str, ...] = ()
    verified: bool = False
    conflict: tuple[str, ...] = ()  # how those who state it disagree: keys of words.FAMILY_CONFLICTS
    since: date | None = Field(default=None, alias="from")
    until: date | None = Field(default=None, alias="to")


class Event(Answer):
    """One dated event of the chronology."""

    on: date = Field(alias="date")
    organisation: str
    category: str
    label: str
    code: str | None = None
    role: str | None = None
    opinion: bool = False
    recorded_on: date | None = None
    about: str | None = None


class FamilyView(Answer):
    """The linked family view."""

    view: str
    at: datetime
    ends_at: datetime
    purpose: str
    threshold: Any = None
    person: Person
    first_call: FirstCall
    tiles: tuple[Tile, ...] = ()
    others: tuple[Other, ...] = ()
    family: tuple[Relative, ...] = ()
    chronology: tuple[Event, ...] = ()
    withheld: tuple[Refusal, ...] = ()
    emergency: str | None = None
    banner: str
    receipt: Receipt | None = None
