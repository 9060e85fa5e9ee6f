"""What is asked, and what is known of the record it is asked about: the two inputs of a decision.

Both hold only terms of the vocabulary, dates and keyed tokens.  Whoever builds a `Request` has already established who
asks; whoever builds `Facts` has looked at one record of one source.  `None` always means *unknown*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from agreements.agreement import FIRST_DAY, LAST_DAY
from agreements.vocabulary import RECORD, Mode, Vocabulary


class RequestRefused(ValueError):
    """A request that can't be decided at all: a term nobody knows, a threshold nobody could set, a naive instant.

    `code` is a result code of the vocabulary; `term` is the field and the term refused (never a person's data).
    """

    def __init__(self, code: str, term: str, message: str) -> None:
        super().__init__(f"{code}: {term}: {message}")
        self.code: Final = code
        self.term: Final = term


_REGIMES: Final = ("GENERAL", "LE", None)


class Link(IntEnum):
    """How surely the record is about the person asked about; `CERTAIN` is a match at the upper bar."""

    NONE = 0
    POSSIBLE = 1
    MATCH = 2
    CERTAIN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The lawful basis the asker claims: an Article 6 basis, conditions of Schedule 1 or Article 9, and statutes.

    Raises RequestRefused for a field of another type.
    """

    art6: str
    conditions: frozenset[str] = frozenset()
    gateways: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _typed("NO_BASIS", "basis.art6", self.art6, str)
        _terms("NO_BASIS", "basis.conditions", self.conditions)
        _terms("NO_BASIS", "basis.gateways", self.gateways)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A recorded decision that a case stands at a level (`L1`..`L4`), and the role of whoever took it.

    Raises RequestRefused for a field of another type.
    """

    level: str
    decided_by: str

    def __post_init__(self) -> None:
        _typed("THRESHOLD_NOT_MET", "threshold.level", self.level, str)
        _typed("THRESHOLD_UNAUTHORISED", "threshold.decided_by", self.decided_by, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """A live emergency session: a reason code of the vocabulary and the instant it began.

    Raises RequestRefused for a field of another type.
    """

    reason: str
    started: datetime

    def __post_init__(self) -> None:
        _typed("NO_SESSION", "break_glass.reason", self.reason, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question of one person at one organisation: these categories, each at most at this mode.

    `case` is the gateway's keyed token of the case reference, or None if none was given.

    Raises RequestRefused for a field of another type, and a case that is no token.
    """

    organisation: str
    role: str
    purpose: str
    basis: Basis
    asked: Mapping[str, Mode]
    case: str | None = None
    threshold: Threshold | None = None
    break_glass: BreakGlass | None = None

    def __post_init__(self) -> None:
        _typed("NO_DSA", "organisation", self.organisation, str)
        _typed("ROLE_NOT_PERMITTED", "role", self.role, str)
        _typed("PURPOSE_UNKNOWN", "purpose", self.purpose, str)
        _typed("NO_BASIS", "basis", self.basis, Basis)
        _typed("CATEGORY_NOT_IN_DSA", "asked", self.asked, Mapping)
        if not set(map(type, self.asked)) <= _STR:
            raise RequestRefused("CATEGORY_NOT_IN_DSA", "asked", "categories by their names are due")
        if self.case is not None:
            _token("NO_CASE_REF", "case", self.case)
        if self.threshold is not None:
            _typed("THRESHOLD_NOT_MET", "threshold", self.threshold, Threshold)
        if self.break_glass is not None:
            _typed("NO_SESSION", "break_glass", self.break_glass, BreakGlass)

    def checked(self, vocabulary: Vocabulary) -> Request:
        """This request, if every term of it is known.  Raises RequestRefused, which names the term."""
        return checked(self, vocabulary)


@dataclass(frozen=True, slots=True)
class Held:
    """The newest item of one category under one regime; an unknown date or regime never helps to cover.

    Raises RequestRefused for a regime that is none, and a date that is none: an instant is no date.
    """

    recorded_on: date | None
    regime: str | None = "GENERAL"  # or "LE"

    def __post_init__(self) -> None:
        if self.recorded_on is not None and type(self.recorded_on) is not date:
            raise RequestRefused("POLICY_STALE", "facts.held recorded_on", "a date is due, or None")
        if self.regime not in _REGIMES:
            raise RequestRefused("REGIME_MISMATCH", f"facts.held regime {self.regime}", "GENERAL or LE is due")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the broker knows of one record of one source.

    `source` is the items' origin: a flow that carries a copy of another party's data is decided on that party's
    clauses.  `case` is the case token that the subject is known to belong to.  `held` has the newest item a category
    and regime; a category that is absent holds nothing.  A tag in neither set is known to be absent: so the sets are
    sets, and what is unknown of a tag stands in `tags_unknown`.

    Raises RequestRefused for a field of another type, and a record or case that is no token: a name that can't be
    seen, or not whole, is no known one.
    """

    source: str
    record: str | None = None
    relation: str | None = None
    case: str | None = None
    link: Link | None = None
    tags: frozenset[str] = frozenset()
    tags_unknown: frozenset[str] = frozenset()
    held: Mapping[str, tuple[Held, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if type(self.source) is not str:
            raise _mistyped("POLICY_STALE", "facts.source", str)
        if self.record is not None:
            _token("POLICY_STALE", "facts.record", self.record)
        if self.case is not None:
            _token("POLICY_STALE", "facts.case", self.case)
        if self.relation is not None and type(self.relation) is not str:
            raise _mistyped("POLICY_STALE", "facts.relation", str)
        if self.link is not None and type(self.link) is not Link:
            raise _unheard("facts.link")
        _terms("POLICY_STALE", "facts.tags", self.tags)
        _terms("POLICY_STALE", "facts.tags_unknown", self.tags_unknown)
        if not isinstance(self.held, Mapping):
            raise _mistyped("POLICY_STALE", "facts.held", Mapping)
        for category, several in self.held.items():
            if type(category) is not str or type(several) is not tuple:
                raise RequestRefused("POLICY_STALE", "facts.held", "a tuple of Held by category is due")
            for one in several:
                if type(one) is not Held:
                    raise RequestRefused("POLICY_STALE", "facts.held", "a tuple of Held by category is due")


_STR: Final = frozenset({str})


def _mistyped(code: str, term: str, due: type) -> RequestRefused:
    return RequestRefused(code, term, f"a {due.__name__} is due")


def _typed(code: str, term: str, value: object, due: type) -> None:
    if not isinstance(value, due):
        raise _mistyped(code, term, due)


def _terms(code: str, term: str, value: object) -> None:
    if type(value) is not frozenset or (value and not set(map(type, value)) <= _STR):
        raise RequestRefused(code, term, "a frozenset of words is due")


def _token(code: str, term: str, value: object) -> None:
    """Refuse what is no keyed token: ASCII that can be seen, without a space at either end."""
    if type(value) is not str:
        raise _mistyped(code, term, str)
    if not value or value.isspace():
        raise RequestRefused(code, term, "it is empty: give its token, or none")
    if not (value.isascii() and value.isprintable()) or value[0] == " " or value[-1] == " ":
        raise RequestRefused(code, term, "a keyed token is due, without characters that can't be seen")


def checked(request: Request, vocabulary: Vocabulary) -> Request:
    """`request` itself, if every term is known and can go together.

    Raises RequestRefused: an unknown or prohibited purpose, an unknown role, category, mode, basis or level, a
    threshold set by a role without authority, an emergency without a reason, a mode on the other axis.
    """
    if request.purpose in vocabulary.prohibited:
        raise RequestRefused("PURPOSE_PROHIBITED", f"purpose {request.purpose}", "this service can't be used for that")
    purpose = vocabulary.purposes.get(request.purpose)
    if purpose is None:
        raise RequestRefused("PURPOSE_UNKNOWN", f"purpose {request.purpose}", "not in the vocabulary")
    if request.role not in vocabulary.roles:
        raise RequestRefused("ROLE_NOT_PERMITTED", f"role {request.role}", "not in the vocabulary")
    _check_basis(request.basis, vocabulary)
    _check_asked(request.asked, vocabulary, aggregate=purpose.aggregate)
    if request.threshold is not None:
        _check_threshold(request.threshold, vocabulary)
    if request.break_glass is not None:
        if request.break_glass.reason not in vocabulary.emergencies:
            known = ", ".join(vocabulary.emergencies)
            raise RequestRefused("NO_SESSION", "break_glass.reason", f"emergency access needs one of {known}")
        aware(request.break_glass.started, "break_glass.started")
        within_reach(request.break_glass.started, "break_glass.started")
    return request


def aware(at: datetime, term: str) -> None:
    """Raises RequestRefused unless `at` is an instant: a datetime with its offset."""
    if type(at) is not datetime or at.tzinfo is None:
        raise RequestRefused("POLICY_STALE", term, "an instant with its offset is due")


def within_reach(at: datetime, term: str) -> None:
    """Raises RequestRefused for an instant in a year that no agreement may name: no calendar holds all around it."""
    if not FIRST_DAY.year <= at.year <= LAST_DAY.year:
        raise RequestRefused("POLICY_STALE", term, f"a year from {FIRST_DAY.year} to {LAST_DAY.year} is due")


def checked_facts(facts: Facts, vocabulary: Vocabulary) -> Facts:
    """`facts` itself, if every term of it is known: what is unknown of a record is said by None, never by a word that
    no list holds, since a tag that nothing knows would hold nothing back.

    Raises RequestRefused, which names the term.
    """
    check_standing_facts(facts, vocabulary)
    check_held(facts, vocabulary)
    return facts


def check_standing_facts(facts: Facts, vocabulary: Vocabulary) -> None:
    """Tags and relation, of which many records have the same.  Raises RequestRefused."""
    if strange := (facts.tags or facts.tags_unknown) and (facts.tags | facts.tags_unknown) - vocabulary.tags.keys():
        raise _unheard(f"facts.tags {min(strange)}")
    if facts.relation is not None and facts.relation not in vocabulary.relations:
        raise _unheard(f"facts.relation {facts.relation}")


def check_held(facts: Facts, vocabulary: Vocabulary) -> None:
    """The categories held.  Raises RequestRefused."""
    if not vocabulary.holdable.issuperset(facts.held):
        term = min(facts.held.keys() - vocabulary.holdable)
        raise RequestRefused("CATEGORY_NOT_IN_DSA", f"facts.held {term}", "not in the vocabulary")


def _unheard(term: str) -> RequestRefused:
    return RequestRefused("POLICY_STALE", term, "not in the vocabulary")


def _check_basis(basis: Basis, vocabulary: Vocabulary) -> None:
    if basis.art6 not in vocabulary.art6:
        raise RequestRefused("NO_BASIS", f"basis.art6 {basis.art6}", "not in the vocabulary")
    if not basis.conditions <= vocabulary.conditions.keys():
        term = min(basis.conditions - vocabulary.conditions.keys())
        raise RequestRefused("NO_BASIS", f"basis.condition {term}", "not in the vocabulary")
    if not basis.gateways <= vocabulary.gateways.keys():
        term = min(basis.gateways - vocabulary.gateways.keys())
        raise RequestRefused("NO_BASIS", f"basis.gateway {term}", "not in the vocabulary")


def _check_asked(asked: Mapping[str, Mode], vocabulary: Vocabulary, *, aggregate: bool) -> None:
    for category, mode in asked.items():
        if category not in vocabulary.askable:
            raise RequestRefused("CATEGORY_NOT_IN_DSA", f"category {category}", "not in the vocabulary")
        if type(mode) is not Mode:
            raise RequestRefused("MODE_EXCEEDS", f"mode {mode}", "not in the vocabulary")
        if mode and (mode is Mode.AGGREGATE) is not aggregate:
            axis = "statistics alone" if aggregate else "casework, never statistics"
            raise RequestRefused("MODE_EXCEEDS", f"mode {mode.word}", f"this purpose is for {axis}")
        if category == RECORD and mode > Mode.EXISTENCE:
            raise RequestRefused("MODE_EXCEEDS", f"mode {mode.word}", "the bare record has existence alone")


def _check_threshold(threshold: Threshold, vocabulary: Vocabulary) -> None:
    level = vocabulary.thresholds.get(threshold.level)
    if level is None:
        raise RequestRefused("THRESHOLD_NOT_MET", f"threshold {threshold.level}", "not in the vocabulary")
    if threshold.decided_by not in level.set_by:
        raise RequestRefused(
            "THRESHOLD_UNAUTHORISED", f"threshold {threshold.level}", f"set by one of {', '.join(level.set_by)} alone"
        )
