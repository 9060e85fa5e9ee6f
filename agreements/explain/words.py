"""What would pass a test, and other pieces of sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from agreements.agreement import Grant, GrantBasis, london_day
from agreements.reference import Question
from agreements.vocabulary import Vocabulary

_OTHERWISE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "case": "a case reference of this child",
        "org": "being named in the clause",
        "break_glass": "a running emergency session",
        "regime": "an authority for law-enforcement items in the clause",
        "link": "a surer match",
        "about": "a record about somebody the clause is about",
        "window": "an item inside the clause's window",
        "source": "a clause of this source",
        "live": "an agreement in force",
    }
)
"""What would pass a test, where that hangs on nothing in the clause."""


def words_for(q: Question, grant: Grant, test: str) -> str:
    """What would pass a test, in words."""
    vocabulary = q.vocabulary
    if test == "purpose":
        return f"the purpose {_purposes(vocabulary, grant.purposes, grant.not_purposes)}"
    if test == "role":
        return f"the role {vocabulary_roles(vocabulary, grant.roles)}"
    if test == "threshold":
        setters = vocabulary.thresholds[grant.threshold].set_by if grant.threshold else ()
        return f"{_threshold(q, grant)}, decided by a {vocabulary_roles(vocabulary, frozenset(setters))}"
    if test in ("basis", "gateway", "condition"):
        return f"the lawful basis {_bases(vocabulary, grant.basis, (test,), london_day(q.at))}"
    if test == "regime" and grant.basis.le_authority:
        return _awaited(vocabulary, grant.basis.le_authority, " once in force")
    return _OTHERWISE[test]


def terms_of(q: Question, grant: Grant, tests: tuple[str, ...]) -> dict[str, str]:
    """What a clause asks for, for the standard texts; of its lawful bases, the parts that failed."""
    roles = vocabulary_roles(q.vocabulary, grant.roles)
    return {
        "purposes": _purposes(q.vocabulary, grant.purposes, grant.not_purposes),
        "bases": _bases(q.vocabulary, grant.basis, tests, london_day(q.at)),
        "threshold": _threshold(q, grant),
        "roles": roles,
        "role": roles,
    }


def awaited_by(q: Question, grant: Grant) -> str:
    """The statutes that a clause waits for, none of its gateways being in force yet; empty where it waits for none."""
    gateways = grant.basis.gateways
    return "" if q.vocabulary.in_force(gateways, london_day(q.at)) else _awaited(q.vocabulary, gateways)


@lru_cache(maxsize=1024)
def vocabulary_roles(vocabulary: Vocabulary, roles: frozenset[str]) -> str:
    """Roles in words: "MASH decision-maker or social worker"."""
    return _either(term.label for code, term in vocabulary.roles.items() if code in roles)


def _threshold(q: Question, grant: Grant) -> str:
    return f"threshold {q.vocabulary.thresholds[grant.threshold].label if grant.threshold else ''}"


@lru_cache(maxsize=1024)
def _bases(vocabulary: Vocabulary, basis: GrantBasis, tests: tuple[str, ...], day: date) -> str:
    gateways = vocabulary.in_force(basis.gateways, day)
    listed = {
        "basis": [vocabulary.art6[code].label for code in vocabulary.art6 if code in basis.art6],
        "gateway": [vocabulary.gateways[code].source for code in vocabulary.gateways if code in gateways]
        or [_awaited(vocabulary, basis.gateways, " once in force")],
        "condition": [vocabulary.conditions[code].label for code in vocabulary.conditions if code in basis.conditions],
    }
    return "; ".join(_either(words) for test, words in listed.items() if test in tests)


def _awaited(vocabulary: Vocabulary, gateways: frozenset[str], once: str = "") -> str:
    """Statutes that are enacted and not yet in force: "Children Act 2004 s.16LA (from 1 Apr 2027)"."""
    said = []
    for code, term in vocabulary.gateways.items():
        if code in gateways:
            since = f"from {term.commences.day} {term.commences:%b %Y}" if term.commences else "its day is not set yet"
            said.append(f"{term.source.partition(',')[0]}{once} ({since})")
    return _either(said)


@lru_cache(maxsize=1024)
def _purposes(vocabulary: Vocabulary, purposes: frozenset[str], not_purposes: frozenset[str]) -> str:
    inside = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in purposes))
    outside = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in not_purposes))
    leaves = (term for code, term in vocabulary.purposes.items() if code in inside - outside and not term.group)
    return _either(term.label for term in leaves)


def _either(words: Iterable[str]) -> str:
    several = list(words)
    return f"{', '.join(several[:-1])} or {several[-1]}" if len(several) > 1 else "".join(several)
