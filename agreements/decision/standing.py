"""Where a request stands with a source, and then with records of some relation, link, case and tags.

What hangs on the kind of request and on the source alone, an `Opening`, is remembered from one request to the next, as
long as nothing in it changes with time.  What hangs on any fact of a record is found anew for each request: whether a
child has been looked at before, or has a record that is hidden, must make no answer faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

from agreements.agreement import Duration, london_day, london_midnight
from agreements.decision.cells import EVERY_MODE, WIDTH, ones
from agreements.decision.compiled import REMEMBERED, Clause, Compiled, Holder, compiled
from agreements.request import (
    Basis,
    BreakGlass,
    Facts,
    Link,
    Request,
    Threshold,
    check_standing_facts,
    checked,
    within_reach,
)
from agreements.restrictions import LONGEST_SESSION
from agreements.snapshot import FIRST, LAST, Snapshot
from agreements.verdict import Shown
from agreements.vocabulary import Mode, Vocabulary

_LINKS: Final = (None, *Link)
_AT_LEAST: Final[Mapping[int, tuple[Link | None, ...]]] = {
    least: tuple(link for link in _LINKS if (-1 if link is None else link) >= least) for least in (-1, *map(int, Link))
}
"""The links that reach what a clause asks for."""
_KINDS: Final = 512  # kinds of request a snapshot

Gives = Mapping[str, tuple[int, Sequence[int]]]
"""Of each category asked for, in that order, that a clause gives: where its cells begin, and the clauses by mode."""


class Kind(NamedTuple):
    """What of a request an opening hangs on: many that are made in a day are of one kind."""

    organisation: str
    role: str
    purpose: str
    basis: Basis
    threshold: Threshold | None
    session: BreakGlass | None
    of_a_case: bool
    asked: tuple[tuple[str, Mode], ...]


class Prepared:
    """A kind of request, and where it stands with each source it was asked of."""

    __slots__ = ("ceiling", "kind", "openings", "wanted")

    def __init__(self, known: Compiled, kind: Kind) -> None:
        self.kind: Final = kind
        self.wanted: Final = known.terms.wanted(kind.asked)
        self.ceiling: Final = known.terms.purposes[kind.purpose] & self.wanted.cells
        self.openings: Final[dict[str, Opening]] = {}

    def opening(self, known: Compiled, source: str, at: datetime) -> Opening:
        """Where it stands with a source at an instant."""
        opening = self.openings.get(source)
        if opening is None or not opening.since <= at < opening.until:
            opening = self.openings[source] = Opening(known, self, source, at)
        return opening


class Opening:
    """What is known of a decision from the kind of request, the source and the time, before any fact of a record.

    `clauses`: those that pass every test but those of the record, best witness first; every other set of clauses here
    is an integer with a bit for the position of each.  `windows`: the first days inside the clauses' windows, oldest
    first; `inside` has the clauses that an item is inside of which is inside so many of the windows, `enforced` those
    of them that take an item under any regime.
    """

    def __init__(self, known: Compiled, prepared: Prepared, source: str, at: datetime) -> None:
        kind = prepared.kind
        self.terms, self.wanted, self.source = known.terms, prepared.wanted, source
        self.vocabulary = known.vocabulary
        session = kind.session
        self.live_session = session is not None and session.started <= at < session.started + LONGEST_SESSION
        day, *turns = _day(at)
        if session is not None:
            turns += [session.started, session.started + LONGEST_SESSION]
        self.named = known.named.get(source)
        self.sealed, self.ceiling = False, prepared.ceiling
        holders: list[Holder] = []
        for holder in known.restrictions.get(source, known.baseline):
            if holder.period is not None:
                turns += [holder.period.start, holder.period.end]
            if holder.concerns(kind.purpose, at, live_session=self.live_session):
                holders.append(holder)
                if holder.tag is None:
                    self.ceiling &= holder.leaves
                    self.sealed = self.sealed or holder.seals
        self.holders = tuple(holders)
        self.untagged = tuple([holder for holder in holders if holder.tag is None])
        clauses: list[Clause] = []
        gives: list[int] = []
        limits: list[tuple[Holder, ...]] = []
        for clause, given, tagged in self._open(known, kind, at, day, turns):
            clauses.append(clause)
            gives.append(given)
            limits.append(tagged)
        self.clauses, self.gives, self.limits = tuple(clauses), tuple(gives), tuple(limits)
        self.since, self.until = FIRST, LAST
        for turn in turns:
            if turn > at:
                self.until = min(turn, self.until)
            elif turn > self.since:
                self.since = turn
        self.windows: tuple[date, ...] = ()
        self.inside: tuple[int, ...] = (0,)
        self.enforced: tuple[int, ...] = (0,)
        self.about: dict[str | None, int] = {}
        self.linked: dict[Link | None, int] = dict.fromkeys(_LINKS, 0)
        self.caseless = self.enforcing = 0
        if clauses:
            self._by_facts(day)
            self._by_items(day)

    def _open(
        self, known: Compiled, kind: Kind, at: datetime, day: date, turns: list[datetime]
    ) -> Iterator[tuple[Clause, int, tuple[Holder, ...]]]:
        """The clauses open to the kind of request, best witness first: what each gives, and what may limit it under a
        tag.  Adds to `turns` the instants at which one opens or shuts."""
        session, conditions = kind.session, kind.basis.conditions
        between = known.between(self.source, kind.organisation)
        level = known.terms.levels[kind.threshold.level] if kind.threshold else -1
        basis = kind.basis
        if (gateways := known.vocabulary.in_force(basis.gateways, day)) is not basis.gateways:
            basis = replace(basis, gateways=gateways)
        for position in ones(between.open_to(kind.role, kind.purpose, basis, level)):
            clause = between.clauses[position]
            live = False
            for period in clause.live:
                start, end = period.start, period.end
                turns += (start, end)
                if start <= at < end:
                    live = True
            if clause.session is not None and session is not None:
                turns.append(session.started + clause.session)
            if not live or (
                clause.session is not None
                and (session is None or not session.started <= at < session.started + clause.session)
            ):
                continue
            given = clause.bare if clause.conditions.isdisjoint(conditions) else clause.gives
            tagged: list[Holder] = []
            for limit in clause.limits:
                if limit.concerns(kind.purpose, at, live_session=self.live_session):
                    if limit.tag is None:
                        given &= limit.leaves
                    else:
                        tagged.append(limit)
            yield clause, given, tuple(tagged)

    def _by_facts(self, day: date) -> None:
        """The clauses by what of a record they test."""
        about, linked = self.about, self.linked
        for position, clause in enumerate(self.clauses):
            bit = 1 << position
            for relation in clause.about:
                about[relation] = about.get(relation, 0) | bit
            for link in _AT_LEAST[clause.link]:
                linked[link] |= bit
            if not clause.case_reference:
                self.caseless |= bit
            if clause.law_enforcement is not None and clause.law_enforcement <= day:
                self.enforcing |= bit

    def _by_items(self, day: date) -> None:
        """The clauses by how old an item of theirs may be."""
        earliest = [_earliest(clause.window, day) if clause.window else None for clause in self.clauses]
        self.windows = tuple(sorted({one for one in earliest if one is not None}))
        self.inside = tuple(
            sum([1 << n for n, one in enumerate(earliest) if one is None or one in self.windows[:several]])
            for several in range(len(self.windows) + 1)
        )
        self.enforced = tuple([clauses & self.enforcing for clauses in self.inside])

    @cached_property
    def columns(self) -> Mapping[str, int]:
        """Of each category of which an item can show anything, its cells and the bare record's.

        Where the bare record is given an item of any category can show it; else only items of what is given count.
        """
        given = 0
        for cells in self.gives:
            given |= cells
        given &= self.ceiling
        columns = self.terms.columns
        if given & self.terms.record:
            return columns
        return {category: columns[category] for category, shift in self.wanted.shifts if given >> shift & EVERY_MODE}

    @cached_property
    def by_category(self) -> Gives:
        """The clauses by what they give where no tag limits them."""
        return given_by_category(self, self.gives)


def given_by_category(opening: Opening, gives: Sequence[int]) -> Gives:
    """The clauses by what they give."""
    found: dict[str, tuple[int, list[int]]] = {}
    every = 0
    for cells in gives:
        every |= cells
    for category, shift in opening.wanted.shifts:
        if modes := every >> shift & EVERY_MODE:
            clauses = [0] * (WIDTH + 1)
            for mode in ones(modes):
                cell = 1 << (shift + mode)
                clauses[mode + 1] = sum([1 << position for position, cells in enumerate(gives) if cells & cell])
            found[category] = shift, clauses
    return found


class Standing:
    """What is known of a decision before the items held are looked at: `open`, the clauses that pass every test but
    those of an item, what each gives and what holds back."""

    __slots__ = ("answers", "applied", "by_category", "ceiling", "gives", "open", "opening", "unconfirmed")

    def __init__(self, opening: Opening, facts: Facts, *, of_the_case: bool) -> None:
        self.opening, self.gives = opening, opening.gives
        self.applied, self.ceiling, sealed = opening.untagged, opening.ceiling, opening.sealed
        self.open = opening.about.get(facts.relation, 0) & opening.linked[facts.link]
        if not of_the_case:
            self.open &= opening.caseless
        self.by_category: Gives | None = None
        if facts.tags or facts.tags_unknown:
            self.applied = tuple(holder for holder in opening.holders if holder.applies(facts))
            for holder in self.applied:
                self.ceiling &= holder.leaves
            sealed = any(holder.seals for holder in self.applied)
            self.gives = tuple(
                _limited(cells, limits, facts) for cells, limits in zip(opening.gives, opening.limits, strict=True)
            )
        self.ceiling &= opening.terms.links[facts.link]
        if sealed:
            self.open = 0
        self.unconfirmed = facts.link is Link.POSSIBLE
        self.answers: dict[tuple[object, ...], dict[str, Any]] = {}

    def allowed(self) -> tuple[Sequence[int], Sequence[int]]:
        """What an item may show that is inside so many of the opening's windows: under the general regime, and under
        any other or an unknown one."""
        opening, general, other = self.opening, [], []
        every = enforcing = before = 0
        for inside in opening.inside:
            for position in ones(self.open & inside & ~before):
                cells = self.gives[position] & self.ceiling
                every |= cells
                if opening.enforcing >> position & 1:
                    enforcing |= cells
            before = inside
            general.append(every)
            other.append(enforcing)
        return general, other

    def given(self) -> Gives:
        """The clauses by what they give, whichever are open here."""
        if self.gives == self.opening.gives:
            return self.opening.by_category
        if self.by_category is None:
            self.by_category = given_by_category(self.opening, self.gives)
        return self.by_category


def _limited(cells: int, limits: Sequence[Holder], facts: Facts) -> int:
    for limit in limits:
        if limit.applies(facts):
            cells &= limit.leaves
    return cells


class Source:
    """One request at one source at an instant: the standings and answers found so far."""

    __slots__ = ("opening", "owing", "request", "shown", "standings")

    def __init__(self, request: Request, opening: Opening) -> None:
        # Not the asker itself, which holds this: what is forgotten then goes at once, without a collector.
        self.request, self.opening = request, opening
        self.standings: dict[tuple[object, ...], Standing] = {}
        self.shown: dict[tuple[int, int], Shown] = {}  # by mode and the clauses that give it
        self.owing: dict[int, tuple[Any, ...]] = {}  # by witnesses

    def standing(self, facts: Facts) -> Standing:
        """Where it stands with a record of such a relation, link, case and tags."""
        of_the_case = self.request.case is not None and self.request.case == facts.case
        key = (facts.relation, facts.link, of_the_case, facts.tags, facts.tags_unknown)
        if (known := self.standings.get(key)) is None:
            check_standing_facts(facts, self.opening.vocabulary)  # what is remembered was checked
            if len(self.standings) >= REMEMBERED:
                self.standings.clear()
            known = self.standings[key] = Standing(self.opening, facts, of_the_case=of_the_case)
        return known

    def specific(self, facts: Facts, at: datetime) -> tuple[Holder, ...]:
        """The restrictions on this very record, or that may be on it."""
        named = self.opening.named
        if named is None or (facts.record is not None and facts.record not in named):
            return ()
        several: Iterable[Holder] = named.get(facts.record or "", ())
        if facts.record is None:
            several = (holder for holders in named.values() for holder in holders)
        return tuple(
            holder
            for holder in several
            if holder.concerns(self.request.purpose, at, live_session=self.opening.live_session)
            and holder.applies(facts)
        )


class Asker:
    """One request, checked, with what was found for it: a view decides on many records with one request."""

    __slots__ = ("asked", "compiled", "prepared", "request", "sources")

    def __init__(self, memory: Memory, request: Request) -> None:
        self.request: Final = checked(request, memory.compiled.vocabulary)
        self.compiled: Final = memory.compiled
        self.asked: Final = dict(request.asked)
        kind = Kind(
            request.organisation, request.role, request.purpose, request.basis, request.threshold,
            request.break_glass, request.case is not None, tuple(self.asked.items()),
        )  # fmt: skip
        if (prepared := memory.kinds.get(kind)) is None:
            if len(memory.kinds) >= _KINDS:
                memory.kinds.clear()
            prepared = memory.kinds[kind] = Prepared(memory.compiled, kind)
        self.prepared: Final = prepared
        self.sources: Final[dict[tuple[str, datetime], Source]] = {}

    def source(self, source: str, at: datetime) -> Source:
        """Where this request stands at an instant with a source, whatever the record."""
        key = (source, at)
        if (known := self.sources.get(key)) is None:
            within_reach(at, "at")
            if len(self.sources) >= REMEMBERED:
                self.sources.clear()
            opening = self.prepared.opening(self.compiled, source, at)
            known = self.sources[key] = Source(self.request, opening)
        return known


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """A snapshot, compiled, and what was asked of it."""

    compiled: Compiled
    kinds: dict[Kind, Prepared] = field(default_factory=dict)  # the latest kinds of request
    askers: dict[int, Asker] = field(default_factory=dict)  # the latest requests, by id


@lru_cache(maxsize=16)
def memory_of(snapshot: Snapshot, vocabulary: Vocabulary) -> Memory:
    """What is remembered of a snapshot."""
    return Memory(compiled(snapshot, vocabulary))


def asker_of(snapshot: Snapshot, vocabulary: Vocabulary, request: Request) -> Asker:
    """The request, prepared.  Raises RequestRefused; a refused one is not remembered."""
    memory = memory_of(snapshot, vocabulary)
    known = memory.askers.get(id(request))
    # Its own request is the one that stands: while it is held here, no other object can have its id.
    if known is None or known.request is not request or known.asked != request.asked:
        known = Asker(memory, request)
        if len(memory.askers) >= REMEMBERED:
            memory.askers.clear()
        memory.askers[id(request)] = known
    return known


@lru_cache(maxsize=256)
def _earliest(window: Duration, day: date) -> date:
    """The first day inside a window that ends on a London day."""
    return window.before(day)


@lru_cache(maxsize=64)
def _day(at: datetime) -> tuple[date, datetime, datetime]:
    """The London day of an instant, when it begins and when it ends."""
    day = london_day(at)
    return day, london_midnight(day), london_midnight(day + timedelta(days=1))
