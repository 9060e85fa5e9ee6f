"""How near each clause came: the tests that it failed, fewest first.

What does not hang on a record is found once a request and source; which clauses list a category, once a snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from agreements.agreement import Agreement, Grant, GrantRef
from agreements.explain.words import words_for
from agreements.reference import (
    Question,
    clause_mode,
    failed_by_category,
    failed_by_item,
    failed_by_record,
    failed_by_request,
    holdings,
)
from agreements.request import Held
from agreements.snapshot import Snapshot, Standing
from agreements.vocabulary import RECORD, Mode, Vocabulary

NEAR: Final = 2
"""A clause that failed at most this many tests is close to a yes."""

CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "case": "NO_CASE_REF",
        "purpose": "PURPOSE_NOT_IN_DSA",
        "threshold": "THRESHOLD_NOT_MET",
        "basis": "NO_BASIS",
        "gateway": "NO_BASIS",
        "condition": "NO_BASIS",
        "regime": "REGIME_MISMATCH",
        "link": "LINK_UNCERTAIN",
        "about": "COHORT_EXCLUDED",
        "window": "OUT_OF_RETENTION",
        "org": "RECIPIENT_NOT_NAMED",
        "role": "ROLE_NOT_PERMITTED",
        "break_glass": "NO_SESSION",
        "source": "CATEGORY_NOT_IN_DSA",
        "live": "NO_DSA",
    }
)
"""Test -> result code, in the order in which a reason is named first (domain order of checks)."""

_ORDER: Final = {test: index for index, test in enumerate(CODES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """A clause that would have shown a category, and the tests that it failed, by name and in words."""

    grant: GrantRef
    text: str
    mode: Mode
    failed: tuple[str, ...]
    words: tuple[str, ...] = ()  # of those that are told


class Miss(NamedTuple):
    """As `NearMiss`, before anybody is told of it: fewest failed tests sort first."""

    rank: tuple[int, bool, tuple[int, ...], GrantRef]
    mode: Mode
    failed: tuple[str, ...]
    agreement: Agreement
    grant: Grant

    def told(self, q: Question, *, in_words: bool = True) -> NearMiss:
        """For a reader."""
        miss = NearMiss(grant=self.rank[-1], text=self.grant.text, mode=self.mode, failed=self.failed)
        words = tuple(words_for(q, self.grant, test) for test in self.failed) if in_words else ()
        return replace(miss, words=words)


class Named(NamedTuple):
    """A clause that names a source and lists a category of its."""

    ref: GrantRef
    agreement: Agreement
    grant: Grant


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The clauses between two organisations by category, in force or not; and what the source says it discloses."""

    by_category: Mapping[str, tuple[Named, ...]]
    sectors: frozenset[str]
    agreements: tuple[Agreement, ...]


@lru_cache(maxsize=1024)
def listing(snapshot: Snapshot, vocabulary: Vocabulary, source: str, recipient: str) -> Listing:
    """What is agreed between two organisations: once a snapshot."""
    by_category: dict[str, list[Named]] = {}
    agreements = snapshot.between(source, recipient)
    for agreement in agreements:
        discloses = agreement.parties[source].discloses
        for grant in agreement.grants:
            if source in grant.sources:
                named = Named(GrantRef(agreement.ref, grant.id), agreement, grant)
                for category in grant.modes:
                    if category == RECORD or vocabulary.categories[category].sector in discloses:
                        by_category.setdefault(category, []).append(named)
    sectors = frozenset[str]().union(*(agreement.parties[source].discloses for agreement in agreements))
    return Listing({name: tuple(several) for name, several in by_category.items()}, sectors, agreements)


class Inquiry:
    """One question about one source, or about one record of it, with what was found out so far."""

    def __init__(self, q: Question) -> None:
        self.q = q
        self.listing = listing(q.snapshot, q.vocabulary, q.source, q.request.organisation)
        self._by_request: dict[GrantRef, tuple[str, ...] | None] = {}
        self._near: dict[str, list[Miss]] = {}
        self._covered: bool | None = None

    def standing(self, agreement: Agreement) -> Standing:
        """Whether an agreement is live for the two of them."""
        return self.q.snapshot.standing(agreement, self.q.source, self.q.request.organisation, self.q.at)

    def lists(self, grant: Grant, category: str) -> bool:
        """Whether a clause gives a category on the axis that is asked on."""
        return (grant.modes[category] is Mode.AGGREGATE) is self.q.aggregate

    def owned(self, category: str) -> bool:
        """Whether an agreement says that the source discloses a category's sector."""
        return category != RECORD and self.q.vocabulary.categories[category].sector in self.listing.sectors

    def near(self, category: str) -> Sequence[Miss]:
        """Live clauses that list a category and belong to this source, fewest failed tests first.

        A clause for emergencies counts only in an emergency: nobody is told to break glass to see more.
        """
        if (known := self._near.get(category)) is None:
            items = self.items(category)
            known = self._near[category] = [
                miss
                for named in self.listing.by_category.get(category, ())
                if self.lists(named.grant, category) and (miss := self._missed(named, category, items)) is not None
            ]
            known.sort(key=_rank)
        return known

    def items(self, category: str) -> Sequence[Held | None]:
        """What the record holds of a category; None alone where it holds nothing, or no record is looked at."""
        return (holdings(self.q.facts, category) or (None,)) if self.q.facts is not None else (None,)

    def covered_otherwise(self) -> bool:
        """Whether a live clause of the source covers this very request for some category."""
        if self._covered is None:
            self._covered = any(
                not self.near(category)[0].failed for category in self.listing.by_category if self.near(category)
            )
        return self._covered

    def _missed(self, named: Named, category: str, items: Sequence[Held | None]) -> Miss | None:
        q, (ref, agreement, grant) = self.q, named
        if ref not in self._by_request:
            self._by_request[ref] = self._of_request(named)
        if (of_request := self._by_request[ref]) is None:
            return None
        always = {*of_request, *failed_by_category(q, agreement, grant, category)}
        tests = always
        covering: list[Held | None] = []
        if q.facts is None:
            covering = [] if always else [None]
        else:
            of_item = [frozenset(failed_by_item(q, grant, held)) for held in items]
            tests = always | min(of_item, key=len)
            covering = [] if always else [held for held, wrong in zip(items, of_item, strict=True) if not wrong]
        failed = tuple(sorted(tests, key=_ORDER.__getitem__))
        mode = grant.modes[category]
        if covering:
            mode = max(clause_mode(q, q.facts, agreement, grant, category, held) for held in covering)
        rank = (len(failed), "purpose" in tests, tuple(_ORDER[test] for test in failed), ref)
        return Miss(rank, mode, failed, agreement, grant)

    def _of_request(self, named: Named) -> tuple[str, ...] | None:
        """The tests that a clause fails whatever it gives; None if it does not count here at all."""
        q, (_, agreement, grant) = self.q, named
        if grant.break_glass is not None and q.request.break_glass is None:
            return None
        if not self.standing(agreement).live:
            return None
        of_record = failed_by_record(q, q.facts, grant) if q.facts is not None else ()
        return (*failed_by_request(q, agreement, grant), *of_record)


def pair_standing(inquiry: Inquiry) -> Standing:
    """Live if any agreement between the two is; else the first reason in the order of the vocabulary's results."""
    standings = [inquiry.standing(agreement) for agreement in inquiry.listing.agreements]
    for standing in standings:
        if standing.live:
            return standing
    return min(standings, key=_graver, default=Standing("NO_DSA"))


def not_live_now(inquiry: Inquiry, category: str) -> Standing | None:
    """Why no clause that lists a category for this purpose is live, if one would be but for its agreement's standing.

    An agreement that gave way to a live version of itself is not missed: what the new one left out was left out.
    """
    live = {one.id for one in inquiry.listing.agreements if inquiry.standing(one).live}
    found = [
        standing
        for _, agreement, grant in inquiry.listing.by_category.get(category, ())
        if (standing := inquiry.standing(agreement)).code not in (None, "NO_DSA") and agreement.id not in live
        if inquiry.lists(grant, category)
        and (grant.break_glass is None or inquiry.q.request.break_glass is not None)
        and "purpose" not in failed_by_request(inquiry.q, agreement, grant)
    ]
    return min(found, key=_graver, default=None)


def reason(inquiry: Inquiry, near: Sequence[Miss]) -> tuple[str, Miss | None]:
    """The code of a category that no clause gives, and the clause that it is about, if any."""
    nearest = next((miss for miss in near if miss.failed), None)
    if nearest is None or (len(nearest.failed) > 1 and inquiry.covered_otherwise()):
        return "CATEGORY_NOT_IN_DSA", None
    code = CODES[nearest.failed[0]]
    if code == "NO_BASIS" and _basis_closed(inquiry):
        code = "BASIS_INVALID_FOR_PARTY"
    return code, nearest


def _basis_closed(inquiry: Inquiry) -> bool:
    request = inquiry.q.request
    term = inquiry.q.vocabulary.art6[request.basis.art6]
    parties = [agreement.parties[request.organisation] for agreement in inquiry.listing.agreements]
    return "not_public" in term.flags and any(party.public_authority for party in parties)


def _rank(miss: Miss) -> tuple[int, bool, tuple[int, ...], GrantRef]:
    return miss.rank


def _graver(standing: Standing) -> int:
    return ("DSA_SUSPENDED", "DSA_UNSIGNED", "DSA_EXPIRED", "NO_DSA").index(standing.code or "NO_DSA")
