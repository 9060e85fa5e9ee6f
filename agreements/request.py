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

from agreements.vocabulary import Mode, Vocabulary


class RequestRefused(ValueError):
    """A request that can't be decided at all: a term nobody knows, a threshold nobody could set, a naive instant.

    `code` is a result code of the vocabulary; `term` is the field and the term refused (never a person's data).
    """

    def __init__(self, code: str, term: str, message: str) -> None:
        super().__init__(f"{code}: {term}: {message}")
        self.code: Final = code
        self.term: Final = term


class Link(IntEnum):
    """How surely the record is about the person asked about; `CERTAIN` is a match at the upper bar."""

    NONE = 0
    POSSIBLE = 1
    MATCH = 2
    CERTAIN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The lawful basis the asker claims: an Article 6 basis, conditions of Schedule 1 or Article 9, and statutes."""

    art6: str
    conditions: frozenset[str] = frozenset()
    gateways: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A recorded decision that a case stands at a level (`L1`..`L4`), and the role of whoever took it."""

    level: str
    decided_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """A live emergency session: a reason code of the vocabulary and the instant it began."""

    reason: str
    started: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question of one person at one organisation: these categories, each at most at this mode.

    `case` is the gateway's keyed token of the case reference, or None if none was given.
    """

    organisation: str
    role: str
    purpose: str
    basis: Basis
    asked: Mapping[str, Mode]
    case: str | None = None
    threshold: Threshold | None = None
    break_glass: BreakGlass | None = None

    def checked(self, vocabulary: Vocabulary) -> Request:
        """This request, if every term of it is known.  Raises RequestRefused, which names the term."""
        return checked(self, vocabulary)


@dataclass(frozen=True, slots=True)
class Held:
    """The newest item of one category under one regime; an unknown date or regime never helps to cover."""

    recorded_on: date | None
    regime: str | None = "GENERAL"  # or "LE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the broker knows of one record of one source.

    `source` is the items' origin: a flow that carries a copy of another party's data is decided on that party's
    clauses.  `case` is the case token that the subject is known to belong to.  `held` has the newest item a category
    and regime; a category that is absent holds nothing.  A tag in neither set is known to be absent.
    """

    source: str
    record: str | None = None
    relation: str | None = None
    case: str | None = None
    link: Link | None = None
    tags: frozenset[str] = frozenset()
    tags_unknown: frozenset[str] = frozenset()
    held: Mapping[str, tuple[Held, ...]] = field(default_factory=lambda: MappingProxyType({}))


def checked(request: Request, vocabulary: Vocabulary) -> Request:
    """`request` itself, if every term is known and can go together.

    Raises RequestRefused: an unknown or prohibited purpose, an unknown role, category, mode, basis or level, a
    threshold set by a role without authority, an emergency without a reason, a mode on the other axis.
    """
    raise NotImplementedError
