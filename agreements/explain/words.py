"""What would pass a test, and other pieces of sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from agreements.agreement import Grant
from agreements.reference import Question
from agreements.vocabulary import Vocabulary


def words_for(q: Question, grant: Grant, test: str) -> str:
    """What would pass a test, in words."""
    vocabulary = q.vocabulary
    terms = terms_of(q, grant, (test,))
    needed = {
        "case": "a case reference of this child",
        "purpose": f"the purpose {terms['purposes']}",
        "threshold": f"{terms['threshold']}, decided by a {vocabulary_roles(vocabulary, _setters(vocabulary, grant))}",
        "basis": f"the lawful basis {terms['bases']}",
        "gateway": f"the lawful basis {terms['bases']}",
        "condition": f"the lawful basis {terms['bases']}",
        "org": "being named in the clause",
        "role": f"the role {terms['roles']}",
        "break_glass": "a running emergency session",
        "regime": "an authority for law-enforcement items in the clause",
        "link": "a surer match",
        "about": "a record about somebody the clause is about",
        "window": "an item inside the clause's window",
        "source": "a clause of this source",
        "live": "an agreement in force",
    }
    return needed[test]


def terms_of(q: Question, grant: Grant, tests: Sequence[str]) -> dict[str, str]:
    """What a clause asks for, for the standard texts; of its lawful bases, the parts that failed."""
    vocabulary, basis = q.vocabulary, grant.basis
    purposes = (vocabulary.purposes[code].label for code in _leaves(vocabulary, grant))
    bases = {
        "basis": [vocabulary.art6[code].label for code in vocabulary.art6 if code in basis.art6],
        "gateway": [vocabulary.gateways[code].source for code in vocabulary.gateways if code in basis.gateways],
        "condition": [vocabulary.conditions[code].label for code in vocabulary.conditions if code in basis.conditions],
    }
    threshold = vocabulary.thresholds[grant.threshold].label if grant.threshold else ""
    roles = vocabulary_roles(vocabulary, grant.roles)
    return {
        "purposes": _either(purposes),
        "bases": "; ".join(_either(words) for test, words in bases.items() if test in tests),
        "threshold": f"threshold {threshold}",
        "roles": roles,
        "role": roles,
    }


def vocabulary_roles(vocabulary: Vocabulary, roles: Iterable[str]) -> str:
    """Roles in words: "MASH decision-maker or social worker"."""
    wanted = set(roles)
    return _either(term.label for code, term in vocabulary.roles.items() if code in wanted)


def _setters(vocabulary: Vocabulary, grant: Grant) -> tuple[str, ...]:
    return vocabulary.thresholds[grant.threshold].set_by if grant.threshold else ()


def _leaves(vocabulary: Vocabulary, grant: Grant) -> Iterator[str]:
    inside = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in grant.purposes))
    outside = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in grant.not_purposes))
    yield from (code for code, purpose in vocabulary.purposes.items() if code in inside - outside and not purpose.group)


def _either(words: Iterable[str]) -> str:
    several = list(words)
    return f"{', '.join(several[:-1])} or {several[-1]}" if len(several) > 1 else "".join(several)
