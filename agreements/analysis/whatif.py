"""Which of the questions asked in the past would be answered otherwise under a candidate, and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from agreements.agreement import Agreement, Document, Grant, Restriction
from agreements.analysis.candidate import as_if_always
from agreements.analysis.difference import changed_agreements, changed_restrictions
from agreements.decision import view
from agreements.receipts import PastDecision
from agreements.snapshot import Snapshot
from agreements.vocabulary import RECORD, Mode, Vocabulary

NAMED: Final = 3  # how many past questions a group names in words


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedDecision:
    """A past question that would be answered otherwise: the categories that differ, as the estate of today answers it
    and as it would with the candidate.  `id` is the caller's name for it."""

    id: str
    past: PastDecision
    was: Mapping[str, Mode]
    would: Mapping[str, Mode]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Changed questions that are alike: who asked whom, why, for what, and what would become of it."""

    organisation: str
    role: str
    purpose: str
    source: str
    category: str
    was: Mode
    would: Mode
    count: int
    ids: tuple[str, ...]

    @property
    def line(self) -> str:
        """The group in words."""
        times = "once" if self.count == 1 else f"{self.count} times"
        return (
            f"{self.organisation} {self.role}, asking {self.source} for {self.purpose}: {self.category} "
            f"{self.was.word} -> {self.would.word}, {times}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What would have been otherwise: exactly these of the questions looked at, and no other."""

    looked_at: int
    changed: tuple[ChangedDecision, ...]

    def groups(self) -> tuple[Group, ...]:
        """By who, whom and category, the most frequent first."""
        ids: dict[tuple[str, str, str, str, str, Mode, Mode], Counter[str]] = {}
        for one in self.changed:
            request, facts = one.past.request, one.past.facts
            for category, was in one.was.items():
                key = (
                    request.organisation, request.role, request.purpose, facts.source, category, was,
                    one.would[category],
                )  # fmt: skip
                ids.setdefault(key, Counter())[one.id] += 1
        found = [
            Group(
                organisation=key[0], role=key[1], purpose=key[2], source=key[3], category=key[4], was=key[5],
                would=key[6], count=several.total(), ids=tuple(several),
            )
            for key, several in ids.items()
        ]  # fmt: skip
        return tuple(
            sorted(found, key=lambda one: (-one.count, one.organisation, one.role, one.source, one.category, one.was))
        )

    def to_json(self) -> dict[str, Any]:
        """As data: groups, with the ids of every question in them."""
        return {
            "looked_at": self.looked_at,
            "changed": len(self.changed),
            "groups": [
                {
                    "organisation": one.organisation,
                    "role": one.role,
                    "purpose": one.purpose,
                    "source": one.source,
                    "category": one.category,
                    "was": one.was.word,
                    "would": one.would.word,
                    "count": one.count,
                    "ids": list(one.ids),
                }
                for one in self.groups()
            ],
        }


def what_if(
    past: Iterable[tuple[str, PastDecision]],
    before: Snapshot,
    candidate: Document,
    vocabulary: Vocabulary,
    *,
    umbrella: Agreement | None = None,
) -> Changes:
    """Past questions, each with its id, that `candidate` would have answered otherwise than the estate `before` does.

    The candidate is taken as signed by all and in force all along, instead of any other version of it; everything else
    stays as it was at the time of each question.
    """
    return replayed(past, before, as_if_always(before, candidate, umbrella=umbrella), vocabulary)


def replayed(
    past: Iterable[tuple[str, PastDecision]], before: Snapshot, after: Snapshot, vocabulary: Vocabulary
) -> Changes:
    """As `what_if`, from one estate to another: each question that anything changed can bear on is decided in both."""
    bears = _Bearing(before, after, vocabulary)
    changed: list[ChangedDecision] = []
    looked_at = 0
    for id_, one in past:
        looked_at += 1
        if not bears.on(one):
            continue
        (was,) = view(before, vocabulary, one.request, (one.facts,), one.at)
        (would,) = view(after, vocabulary, one.request, (one.facts,), one.at)
        if was == would:
            continue
        if other := [category for category in one.request.asked if was.mode(category) is not would.mode(category)]:
            changed.append(
                ChangedDecision(
                    id=id_,
                    past=one,
                    was={name: was.mode(name) for name in other},
                    would={name: would.mode(name) for name in other},
                )
            )
    return Changes(looked_at=looked_at, changed=tuple(changed))


class _Bearing:
    """On which questions anything that is not the same in both estates can bear: on no other does the answer differ."""

    def __init__(self, before: Snapshot, after: Snapshot, vocabulary: Vocabulary) -> None:
        self._vocabulary: Final = vocabulary
        self._rules: dict[str, list[Restriction]] = {}
        for rule in changed_restrictions(before, after):
            self._rules.setdefault(rule.owner, []).append(rule)
        self._categories: dict[tuple[str, str, str, str], set[str]] = {}
        for mine, other in ((before, after), (after, before)):
            refs = changed_agreements(mine, other)
            for agreement in mine.agreements:
                if agreement.ref in refs:
                    for grant in agreement.grants:
                        self._add(grant)

    def _add(self, grant: Grant) -> None:
        purposes = {one for purpose in grant.purposes for one in self._vocabulary.down(purpose)}
        for key in product(grant.sources, grant.organisations, grant.roles, purposes):
            self._categories.setdefault(key, set()).update(grant.modes)

    def on(self, one: PastDecision) -> bool:
        """Whether a clause for such a request, or a restriction on such a record, is among what changed."""
        request, facts = one.request, one.facts
        categories = self._categories.get((facts.source, request.organisation, request.role, request.purpose))
        if categories is not None and (RECORD in categories or not categories.isdisjoint(facts.held)):
            return True
        return any(
            rule.record is None or facts.record is None or rule.record == facts.record
            for rule in self._rules.get(facts.source, ())
        )
