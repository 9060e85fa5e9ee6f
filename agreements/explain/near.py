"""How near each clause came: the tests that it failed, fewest first.

Found by the literal tests, clause by clause, for whoever reads the whole tree.  What an asker reads needs only the
nearest of them and no record: `sieve` finds the same for that, from sets of clauses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from heapq import heappop, heappush
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from agreements.agreement import Agreement, Grant, GrantRef
from agreements.explain.words import words_for
from agreements.reference import (
    Question,
    failed_by_category,
    failed_by_item,
    failed_by_record,
    failed_by_request,
    given,
    holdings,
    own,
)
from agreements.request import Facts, Held
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

ORDER: Final = {test: index for index, test in enumerate(CODES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """A clause that would have shown a category, and the tests that it failed, by name and in words."""

    grant: GrantRef
    text: str
    mode: Mode
    failed: tuple[str, ...]
    words: tuple[str, ...] = ()  # of those that are told


Rank = tuple[int, bool, tuple[int, ...], GrantRef]
"""How near: the number of tests failed, whether the purpose is one, which they are, and whose."""


class Miss(NamedTuple):
    """As `NearMiss`, before anybody is told of it: fewest failed tests sort first; of two as near, the one for the
    purpose that was chosen."""

    rank: Rank
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
    """A clause that names a source, and the categories of the source's that it lists."""

    ref: GrantRef
    agreement: Agreement
    grant: Grant
    categories: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The clauses between two organisations, in force or not; and what the source says it discloses."""

    clauses: tuple[Named, ...]
    sectors: frozenset[str]
    agreements: tuple[Agreement, ...]


@lru_cache(maxsize=1024)
def listing(snapshot: Snapshot, vocabulary: Vocabulary, source: str, recipient: str) -> Listing:
    """What is agreed between two organisations: once a snapshot."""
    agreements = snapshot.between(source, recipient)
    clauses = []
    for agreement in agreements:
        discloses = agreement.parties[source].discloses
        for grant in agreement.grants:
            if source in grant.sources:
                owned = {
                    name for name in grant.modes if name == RECORD or vocabulary.categories[name].sector in discloses
                }
                clauses.append(Named(GrantRef(agreement.ref, grant.id), agreement, grant, frozenset(owned)))
    sectors = frozenset[str]().union(*(agreement.parties[source].discloses for agreement in agreements))
    return Listing(tuple(clauses), sectors, agreements)


class Nearness(Protocol):
    """What an asker is told rests on this, found out clause by clause or by sets of clauses."""

    @property
    def q(self) -> Question:
        """What was asked."""

    @property
    def standing(self) -> Standing:
        """Live if any agreement between the two is; else the first reason in the order of the vocabulary's results."""

    @property
    def covered_otherwise(self) -> bool:
        """Whether a live clause of the source covers this very request for some category."""

    @property
    def basis_closed(self) -> bool:
        """Whether the lawful basis claimed is closed to an asker's kind of party."""

    def owned(self, category: str) -> bool:
        """Whether an agreement says that the source discloses a category's sector."""

    def listed(self, category: str) -> bool:
        """Whether a live clause of the source lists a category."""

    def covering(self, category: str) -> Mode:
        """The most that a clause gives which covers."""

    def nearest(self, category: str, above: Mode) -> Miss | None:
        """Of the clauses that would give more than a mode and don't cover, the one that failed fewest tests."""

    def ended(self, category: str) -> Standing | None:
        """Why no clause that lists a category for this purpose is live, if one would be but for its agreement's
        standing."""


class _Weighed(NamedTuple):
    """A clause that counts here, and the tests that it fails whatever is asked of it."""

    rank: Rank
    failed: frozenset[str]
    named: Named


class Inquiry:
    """One question about one source, or about one record of it, with what was found out so far."""

    def __init__(self, q: Question) -> None:
        self.q = q
        self.listing = listing(q.snapshot, q.vocabulary, q.source, q.request.organisation)

    @cached_property
    def standings(self) -> Mapping[str, Standing]:
        """Whether each agreement between the two is live."""
        q = self.q
        return {
            one.ref: q.snapshot.standing(one, q.source, q.request.organisation, q.at) for one in self.listing.agreements
        }

    def lists(self, named: Named, category: str) -> bool:
        """Whether a clause gives a category on the axis that is asked on."""
        return category in named.categories and (named.grant.modes[category] is Mode.AGGREGATE) is self.q.aggregate

    def owned(self, category: str) -> bool:
        """Whether an agreement says that the source discloses a category's sector."""
        return category != RECORD and self.q.vocabulary.categories[category].sector in self.listing.sectors

    def near(self, category: str) -> Iterator[Miss]:
        """Live clauses that list a category and belong to this source, fewest failed tests first.

        A clause for emergencies counts only in an emergency: nobody is told to break glass to see more.
        """
        items = self.items(category)
        waiting: list[tuple[Rank, int, Miss]] = []  # those that what is asked of them set back
        for number, weighed in enumerate(self._weighed):
            if not self.lists(weighed.named, category):
                continue
            while waiting and waiting[0][0] < weighed.rank:
                yield heappop(waiting)[-1]
            miss = self._missed(weighed, category, items)
            if miss.rank == weighed.rank:
                yield miss
            else:
                heappush(waiting, (miss.rank, number, miss))
        while waiting:
            yield heappop(waiting)[-1]

    def listed(self, category: str) -> bool:
        """Whether a live clause of the source lists a category."""
        return any(self.lists(weighed.named, category) for weighed in self._weighed)

    def covering(self, category: str) -> Mode:
        """The most that a clause gives which covers."""
        return max((miss.mode for miss in self.near(category) if not miss.failed), default=Mode.NONE)

    def nearest(self, category: str, above: Mode) -> Miss | None:
        """Of the clauses that would give more than a mode and don't cover, the one that failed fewest tests."""
        return next((miss for miss in self.near(category) if miss.failed and miss.mode > above), None)

    def items(self, category: str) -> Sequence[Held | None]:
        """What the record holds of a category; None alone where it holds nothing, or no record is looked at."""
        return (holdings(self.q.facts, category) or (None,)) if self.q.facts is not None else (None,)

    @cached_property
    def covered_otherwise(self) -> bool:
        """Whether a live clause of the source covers this very request for some category."""
        return any(
            not miss.failed
            for weighed in self._weighed
            if not weighed.failed
            for category in weighed.named.categories
            if self.lists(weighed.named, category)
            for miss in (self._missed(weighed, category, self.items(category)),)
        )

    @property
    def standing(self) -> Standing:
        """Live if any agreement between the two is; else the first reason in the order of the vocabulary's results."""
        return gravest(self.standings.values())

    def ended(self, category: str) -> Standing | None:
        """Why no clause that lists a category for this purpose is live, if one would be but for its agreement's
        standing.

        An agreement that gave way to a live version of itself is not missed: what the new one left out was left out.
        """
        live = {one.id for one in self.listing.agreements if self.standings[one.ref].live}
        found = [
            standing
            for named in self.listing.clauses
            if (standing := self.standings[named.agreement.ref]).code not in (None, "NO_DSA")
            if named.agreement.id not in live and self.lists(named, category)
            if named.grant.break_glass is None or self.q.request.break_glass is not None
            if "purpose" not in failed_by_request(self.q, named.agreement, named.grant)
        ]
        return min(found, key=graver, default=None)

    @property
    def basis_closed(self) -> bool:
        """Whether the lawful basis claimed is closed to an asker's kind of party."""
        request = self.q.request
        term = self.q.vocabulary.art6[request.basis.art6]
        parties = [agreement.parties[request.organisation] for agreement in self.listing.agreements]
        return "not_public" in term.flags and any(party.public_authority for party in parties)

    @cached_property
    def _weighed(self) -> Sequence[_Weighed]:
        """The live clauses, fewest failed tests first, before anything is asked of them."""
        q, emergency = self.q, self.q.request.break_glass is not None
        found = []
        for named in self.listing.clauses:
            _, agreement, grant, _ = named
            if self.standings[agreement.ref].live and (emergency or grant.break_glass is None):
                of_record = failed_by_record(q, q.facts, grant) if q.facts is not None else ()
                failed = frozenset((*failed_by_request(q, agreement, grant), *of_record))
                found.append(_Weighed(ranked(failed, named.ref), failed, named))
        return sorted(found)

    def _missed(self, weighed: _Weighed, category: str, items: Sequence[Held | None]) -> Miss:
        q, (ref, agreement, grant, _) = self.q, weighed.named
        tests = weighed.failed.union(failed_by_category(q, agreement, grant, category))
        covers = not tests
        if q.facts is not None:
            of_item = [frozenset(failed_by_item(q, grant, held)) for held in items]
            least = min(of_item, key=len)
            tests, covers = tests | least, covers and not least
        if not covers:
            rank = weighed.rank if tests == weighed.failed else ranked(tests, ref)
            return Miss(rank, grant.modes[category], in_order(tests), agreement, grant)
        known = q.facts or Facts(source=q.source)
        mode = min(given(q, grant, category), own(q, known, agreement, category))
        return Miss(weighed.rank, mode, (), agreement, grant)


def in_order(tests: Iterable[str]) -> tuple[str, ...]:
    """Tests in the order in which a reason is named first."""
    return tuple(sorted(tests, key=ORDER.__getitem__))


def ranked(tests: Collection[str], ref: GrantRef) -> Rank:
    """How near a clause is that failed these tests."""
    return len(tests), "purpose" in tests, tuple(sorted(ORDER[test] for test in tests)), ref


def reason(inquiry: Nearness, nearest: Miss | None) -> tuple[str, Miss | None]:
    """The code of a category that no clause gives, and the clause that it is about, if any; `nearest` is the one that
    failed fewest tests."""
    if nearest is None or (len(nearest.failed) > 1 and inquiry.covered_otherwise):
        return "CATEGORY_NOT_IN_DSA", None
    code = CODES[nearest.failed[0]]
    if code == "NO_BASIS" and inquiry.basis_closed:
        code = "BASIS_INVALID_FOR_PARTY"
    return code, nearest


def gravest(standings: Iterable[Standing]) -> Standing:
    """A live one, else the one to name first."""
    return min(standings, key=lambda standing: -1 if standing.live else graver(standing), default=Standing("NO_DSA"))


def graver(standing: Standing) -> int:
    """Which reason is named first, the lowest."""
    return ("DSA_SUSPENDED", "DSA_UNSIGNED", "DSA_EXPIRED", "NO_DSA").index(standing.code or "NO_DSA")
