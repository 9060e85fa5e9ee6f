"""The clauses nearest to a yes, found by sets: of each test the clauses that fail it, an integer with a bit a clause.

The same as `near.Inquiry` says where no record is looked at, for the answer that an asker waits for.  Clauses are put
into sets once a snapshot and pair, and by what is live once a time in which no standing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Final, TypeVar

from agreements.agreement import london_day
from agreements.decision.cells import ones
from agreements.explain.near import ORDER, Miss, Named, graver, gravest, listing, ranked
from agreements.reference import Question, failed_by_request, given, own
from agreements.request import Facts
from agreements.snapshot import Snapshot, Standing
from agreements.vocabulary import CASEWORK, RECORD, Mode, Vocabulary

_PAIRS: Final = 1024
_TIMES: Final = 4  # remembered a pair
_NONE: Final = (0,) * len(Mode)
T = TypeVar("T")


class Sieve:
    """The clauses between two organisations, in the order of their references, by what each of them asks for."""

    def __init__(self, snapshot: Snapshot, vocabulary: Vocabulary, source: str, recipient: str) -> None:
        self.snapshot, self.source, self.recipient = snapshot, source, recipient
        found = listing(snapshot, vocabulary, source, recipient)
        self.agreements, self.sectors = found.agreements, found.sectors
        self.clauses: Final = tuple(sorted(found.clauses, key=lambda named: named.ref))
        self.every: Final = (1 << len(self.clauses)) - 1
        self.public: Final = any(one.parties[recipient].public_authority for one in self.agreements)
        self.orgs: Final = self._those(lambda named: recipient in named.grant.organisations)
        self.caseless: Final = self._those(lambda named: not named.grant.case_reference)
        self.ungated: Final = self._those(lambda named: not named.grant.basis.gateways)
        self.ordinary: Final = self._those(lambda named: named.grant.break_glass is None)
        self.limited: Final = self._those(self._limited)
        self.roles: Final = self._by(lambda named: named.grant.roles)
        self.purposes: Final = self._by(
            lambda named: _inside(vocabulary, named.grant.purposes, named.grant.not_purposes)
        )
        self.art6: Final = self._by(lambda named: _open_bases(vocabulary, named, recipient))
        self.gateways: Final = self._by(lambda named: named.grant.basis.gateways)
        self.conditions: Final = self._by(lambda named: named.grant.basis.conditions)
        self.thresholds: Final = self._by(lambda named: _reached_by(vocabulary, named.grant.threshold))
        listed = self._by(lambda named: [(name, named.grant.modes[name]) for name in named.categories])
        self.casework: Final = _above({cell: several for cell, several in listed.items() if cell[1] in CASEWORK})
        self.statistics: Final = _above({cell: several for cell, several in listed.items() if cell[1] not in CASEWORK})
        """Of a category, by a mode (none first), the clauses that list it at more than that."""
        self.conditional: Final = self._by(
            lambda named: [
                name for name in named.categories if _asks_a_condition(vocabulary, name, named.grant.modes[name])
            ]
        )
        self._times: Final[dict[datetime, Time]] = {}

    def _those(self, which: Callable[[Named], bool]) -> int:
        return sum(1 << position for position, named in enumerate(self.clauses) if which(named))

    def _by(self, terms: Callable[[Named], Iterable[T]]) -> Mapping[T, int]:
        found: dict[T, int] = {}
        for position, named in enumerate(self.clauses):
            for term in terms(named):
                found[term] = found.get(term, 0) | 1 << position
        return found

    def _limited(self, named: Named) -> bool:
        """Whether its agreement, or the umbrella, has a limit that asks for no tag."""
        umbrella = self.snapshot.umbrella(named.agreement)
        return any(limit.tag is None for one in (named.agreement, umbrella) if one for limit in one.limits)

    def time(self, at: datetime) -> Time:
        """What is live at an instant."""
        start = self.snapshot.steady(self.source, self.recipient, at).start
        if (known := self._times.get(start)) is None:
            if len(self._times) >= _TIMES:
                self._times.clear()
            known = self._times[start] = Time(self, at)
        return known


class Time:
    """What is live between two organisations, as long as no standing changes."""

    def __init__(self, sieve: Sieve, at: datetime) -> None:
        snapshot, source, recipient = sieve.snapshot, sieve.source, sieve.recipient
        standings = {one.ref: snapshot.standing(one, source, recipient, at) for one in sieve.agreements}
        self.standings: Final[Mapping[str, Standing]] = standings
        self.standing: Final = gravest(standings.values())
        there = {one.id for one in sieve.agreements if standings[one.ref].live}
        self.live = 0
        ended: dict[int, int] = {}
        for position, named in enumerate(sieve.clauses):
            standing = standings[named.agreement.ref]
            if standing.live:
                self.live |= 1 << position
            elif standing.code != "NO_DSA" and named.agreement.id not in there:
                rank = graver(standing)
                ended[rank] = ended.get(rank, 0) | 1 << position
        self.ended: Final = tuple(several for _, several in sorted(ended.items()))
        """Clauses that no live agreement of the same name has replaced, by why theirs is not live."""


class Sifted:
    """One question about one source, whatever its records: which clauses are near, and what they fail."""

    def __init__(self, q: Question) -> None:
        self.q: Final = q
        self._sieve = sieve = _sieve(q.snapshot, q.vocabulary, q.source, q.request.organisation)
        self._time: Final = sieve.time(q.at)
        self._lists: Final = sieve.statistics if q.aggregate else sieve.casework
        request, session = q.request, q.request.break_glass
        self._counting: Final = self._time.live & (sieve.every if session is not None else sieve.ordinary)
        gated = sieve.ungated
        for gateway in q.vocabulary.in_force(request.basis.gateways, london_day(q.at)):
            gated |= sieve.gateways.get(gateway, 0)
        self._claimed = 0
        for condition in request.basis.conditions:
            self._claimed |= sieve.conditions.get(condition, 0)
        self._for_purpose: Final = sieve.purposes.get(request.purpose, 0)
        passes = {
            "case": sieve.every if request.case is not None else sieve.caseless,
            "purpose": self._for_purpose,
            "threshold": sieve.thresholds.get(request.threshold.level if request.threshold else None, 0),
            "basis": sieve.art6.get(request.basis.art6, 0),
            "gateway": gated,
            "condition": sieve.every,  # until a category is named
            "org": sieve.orgs,
            "role": sieve.roles.get(request.role, 0),
            "break_glass": sieve.ordinary if session is None else sieve.ordinary | self._in_session(),
        }
        self._fails = {test: sieve.every & ~passes[test] for test in ORDER if test in passes}
        self._counts = _added((), self._fails.values())

    def _in_session(self) -> int:
        """The clauses for emergencies that the emergency session opens."""
        q = self.q
        return sum(
            1 << position
            for position in ones(self._counting & ~self._sieve.ordinary)
            if "break_glass"
            not in failed_by_request(q, self._sieve.clauses[position].agreement, self._sieve.clauses[position].grant)
        )

    @property
    def standing(self) -> Standing:
        """Live if any agreement between the two is; else the first reason in the order of the vocabulary's results."""
        return self._time.standing

    @property
    def basis_closed(self) -> bool:
        """Whether the lawful basis claimed is closed to an asker's kind of party."""
        return "not_public" in self.q.vocabulary.art6[self.q.request.basis.art6].flags and self._sieve.public

    def owned(self, category: str) -> bool:
        """Whether an agreement says that the source discloses a category's sector."""
        return category != RECORD and self.q.vocabulary.categories[category].sector in self._sieve.sectors

    def listed(self, category: str) -> bool:
        """Whether a live clause of the source lists a category."""
        return self._lists.get(category, _NONE)[0] & self._counting != 0

    @cached_property
    def covered_otherwise(self) -> bool:
        """Whether a live clause of the source covers this very request for some category."""
        return any(map(self._covering, self._lists))

    def covering(self, category: str) -> Mode:
        """The most that a clause gives which covers."""
        q, best = self.q, Mode.NONE
        for position in ones(self._covering(category)):
            _, agreement, grant, _ = self._sieve.clauses[position]
            mode = given(q, grant, category)
            if self._sieve.limited >> position & 1:
                mode = min(mode, own(q, Facts(source=q.source), agreement, category))
            best = max(best, mode)
        return best

    def nearest(self, category: str, above: Mode) -> Miss | None:
        """Of the clauses that would give more than a mode and don't cover, the one that failed fewest tests."""
        unconditioned = self._unconditioned(category)
        left = self._lists.get(category, _NONE)[above] & self._counting & ~self._covering(category)
        if not left:
            return None
        number = 0
        for weight, several in reversed(list(enumerate(_added(self._counts, [unconditioned])))):
            if fewer := left & ~several:
                left = fewer
            else:
                number += 1 << weight
        fails = self._fails | {"condition": unconditioned}
        left = left & ~fails["purpose"] or left
        failed: list[str] = []
        for test, several in fails.items():
            if len(failed) < number and left & several:
                left &= several
                failed.append(test)
        ref, agreement, grant, _ = self._sieve.clauses[next(ones(left))]
        return Miss(ranked(failed, ref), grant.modes[category], tuple(failed), agreement, grant)

    def ended(self, category: str) -> Standing | None:
        """Why no clause that lists a category for this purpose is live, if one would be but for its agreement's
        standing."""
        sieve = self._sieve
        for several in self._time.ended:
            left = several & self._lists.get(category, _NONE)[0] & self._for_purpose
            if left := left & (sieve.every if self.q.request.break_glass is not None else sieve.ordinary):
                return self._time.standings[sieve.clauses[next(ones(left))].agreement.ref]
        return None

    def _unconditioned(self, category: str) -> int:
        """The clauses that give nothing of a category for want of a condition."""
        return self._sieve.conditional.get(category, 0) & ~self._claimed

    def _covering(self, category: str) -> int:
        left = self._lists.get(category, _NONE)[0] & self._counting & ~self._unconditioned(category)
        for several in self._counts:
            left &= ~several
        return left


def _above(listed: Mapping[tuple[str, Mode], int]) -> Mapping[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for (category, mode), several in listed.items():
        above = found.setdefault(category, [0] * len(Mode))
        for lower in range(mode):
            above[lower] |= several
    return {category: tuple(above) for category, above in found.items()}


def _added(counts: Iterable[int], sets: Iterable[int]) -> tuple[int, ...]:
    """How many of some sets each member is in, in binary: the members whose number has a one at each weight."""
    digits = list(counts)
    for several in sets:
        carry = several
        for weight, digit in enumerate(digits):
            digits[weight], carry = digit ^ carry, digit & carry
        if carry:
            digits.append(carry)
    return tuple(digits)


@lru_cache(maxsize=_PAIRS)
def _sieve(snapshot: Snapshot, vocabulary: Vocabulary, source: str, recipient: str) -> Sieve:
    return Sieve(snapshot, vocabulary, source, recipient)


@lru_cache(maxsize=4096)
def _inside(vocabulary: Vocabulary, purposes: frozenset[str], shut: frozenset[str]) -> frozenset[str]:
    """The request purposes that a clause covers."""
    inside = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in purposes))
    kept_out = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in shut))
    return frozenset(asked for asked in inside if vocabulary.down(asked).isdisjoint(kept_out))


def _open_bases(vocabulary: Vocabulary, named: Named, recipient: str) -> frozenset[str]:
    """The Article 6 bases that a clause lists and that are open to the recipient."""
    public = named.agreement.parties[recipient].public_authority
    return frozenset(
        term for term in named.grant.basis.art6 if not (public and "not_public" in vocabulary.art6[term].flags)
    )


def _reached_by(vocabulary: Vocabulary, threshold: str | None) -> tuple[str | None, ...]:
    """The thresholds of a request that reach a clause's."""
    levels = (None, *vocabulary.thresholds)
    return levels[levels.index(threshold) :]


def _asks_a_condition(vocabulary: Vocabulary, category: str, mode: Mode) -> bool:
    """Whether a clause gives nothing of a category without one of its conditions."""
    if category == RECORD:
        return False
    body = vocabulary.categories[category]
    steps = (mode,) if mode is Mode.AGGREGATE else CASEWORK[:mode]
    return all(body.needs_condition(step) for step in steps)
