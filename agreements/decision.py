"""decide: the mode in which each category asked for may be shown, and under which clause.

The same as `reference.decide`, compiled: a set of categories is an integer with a bit a category, a clause five of
them (one a mode: the categories it gives at that mode or more).  Joining clauses is `|`, a ceiling is `&`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from agreements.agreement import Agreement, Duration, Duty, Grant, GrantRef, Limit, Period, Restriction, london_day
from agreements.request import Facts, Link, Request, aware, checked
from agreements.restrictions import LONGEST_SESSION, unknown_facts
from agreements.snapshot import Snapshot
from agreements.verdict import Decision, Shown, outcome_of, owed, review_warnings
from agreements.vocabulary import CASEWORK, RECORD, Baseline, Mode, Vocabulary

Rows = tuple[int, int, int, int, int, int]
"""Per mode, the categories at that mode or more; index 0 is unused, 5 is the other axis, `aggregate`."""

_REMEMBERED: Final = 64  # requests a snapshot, instants and standings a request, answers a standing
_OPENED: Final = 4096  # pairs with a role, a purpose and a basis
_FULL: Final = -1  # every bit
_ALL: Final[Rows] = (_FULL,) * 6
_NOTHING: Final[Rows] = (0,) * 6
_LINK_ROWS: Final[Mapping[Link | None, Rows]] = MappingProxyType(
    {
        None: _NOTHING,
        Link.NONE: _NOTHING,
        Link.POSSIBLE: (0, _FULL, 0, 0, 0, 0),
        Link.MATCH: (0, _FULL, _FULL, 0, 0, _FULL),
        Link.CERTAIN: _ALL,
    }
)


def decide(snapshot: Snapshot, vocabulary: Vocabulary, request: Request, facts: Facts, at: datetime) -> Decision:
    """mode = min(best single covering grant, every applicable ceiling, mode asked for).

    Grants never add up: each was signed on its own terms.  Ceilings always do, and an unknown fact makes one apply.
    Raises RequestRefused for a request that can't be decided.  Pure: any order of the snapshot gives the same.
    """
    aware(at, "at")
    standing = _asker(snapshot, vocabulary, request).source(facts.source, at).standing(facts)
    specific = standing.specific(facts) if standing.named else ()
    held, doubted = _held(standing.groups, facts, standing.terms)
    key = (held, specific)
    if (answer := standing.answers.get(key)) is None:
        if len(standing.answers) >= _REMEMBERED:
            standing.answers.clear()
        answer = standing.answers[key] = _weighed(standing, at, held, specific)
    doubted = doubted or bool(facts.tags_unknown) or None in (facts.record, facts.relation, facts.case, facts.link)
    # As `Decision(...)`, which sets each field of a frozen object by itself, and that took half of a decision's time.
    decision = object.__new__(Decision)
    decision.__dict__.update(answer, facts=facts, unknown=tuple(unknown_facts(facts)) if doubted else ())
    return decision


class Modes(NamedTuple):
    """How much of each category one record may show: what `decide` says, without its reasons."""

    rows: Rows
    bits: Mapping[str, int]

    def mode(self, category: str) -> Mode:
        """The mode of one category; one that wasn't asked for is at none."""
        bit = self.bits.get(category, 0)
        return _height(self.rows, bit)

    def __bool__(self) -> bool:
        """Whether it shows anything."""
        return bool(self.rows[1] | self.rows[5])


def view(
    snapshot: Snapshot, vocabulary: Vocabulary, request: Request, records: Iterable[Facts], at: datetime
) -> tuple[Modes, ...]:
    """One request on many records at once: of each, the modes that `decide` would give.

    For finding among the records of a family, or of a search, the few that show anything.  Raises RequestRefused.
    """
    aware(at, "at")
    asker = _asker(snapshot, vocabulary, request)
    bits = asker.compiled.terms.bits
    nothing, record = Modes(_NOTHING, bits), bits[RECORD]
    standings: dict[tuple[object, ...], _Standing] = {}
    found: list[Modes] = []
    for facts in records:
        key = (facts.source, facts.relation, facts.link, facts.case, facts.tags, facts.tags_unknown)
        if (standing := standings.get(key)) is None:
            standing = standings[key] = asker.source(facts.source, at).standing(facts)
        if not standing.clauses:
            found.append(nothing)
            continue
        one = two = three = four = other = 0
        held = facts.held.items()
        for (earliest, law_enforcement), allowed in standing.allowed:
            items = 0
            for category, several in held:
                for item in several:
                    if (earliest is None or ((day := item.recorded_on) is not None and day >= earliest)) and (
                        law_enforcement or item.regime == "GENERAL"
                    ):
                        items |= bits[category]
                        break
            if items or (earliest is None and not any(facts.held.values())):
                items |= record
                one |= allowed[1] & items
                two |= allowed[2] & items
                three |= allowed[3] & items
                four |= allowed[4] & items
                other |= allowed[5] & items
        if one or other:
            rows = (0, one, two, three, four, other)
            if standing.named and (specific := standing.specific(facts)):
                rows = _meet((rows, *(holder.rows for holder in specific)))
            found.append(Modes(rows, bits))
        else:
            found.append(nothing)
    return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Holder:
    """A restriction, baseline rule or limit, compiled: what it leaves, and when it applies."""

    name: str
    rows: Rows
    seals: bool
    tag: str | None
    purposes: frozenset[str] | None  # the request purposes that it overlaps
    liftable: bool
    period: Period | None

    def concerns(self, purpose: str, at: datetime, live_session: bool) -> bool:
        """Whether it may hold back for such a request, as far as no fact of a record matters."""
        return (
            (self.purposes is None or purpose in self.purposes)
            and not (self.liftable and live_session)
            and (self.period is None or at in self.period)
        )

    def applies(self, facts: Facts) -> bool:
        """Whether its tag is there or may be."""
        return self.tag is None or self.tag in facts.tags or self.tag in facts.tags_unknown


@dataclass(frozen=True, slots=True, eq=False)
class _Clause:
    """One grant between one source and one recipient, compiled."""

    ref: GrantRef
    agreement: Agreement
    grant: Grant
    live: tuple[Period, ...]
    roles: frozenset[str]
    purposes: frozenset[str]  # the request purposes that it covers
    art6: frozenset[str]  # open to this recipient
    conditions: frozenset[str]
    gateways: frozenset[str]
    about: frozenset[str]
    case_reference: bool
    threshold: int
    link: int
    window: Duration | None
    law_enforcement: bool
    session: timedelta | None
    rows: Rows
    bare: Rows  # without a condition
    limits: tuple[_Holder, ...]


class _Wanted(NamedTuple):
    """The categories asked for: as rows, one by one, and what each gets where nothing is shown."""

    rows: Rows
    bits: tuple[tuple[str, int], ...]
    nothing: Mapping[str, Mode]


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """A vocabulary, compiled."""

    bits: Mapping[str, int]
    levels: Mapping[str, int]
    purposes: Mapping[str, Rows]
    wants: dict[tuple[tuple[str, Mode], ...], _Wanted] = field(default_factory=dict)  # the latest lists asked for

    def wanted(self, asked: Mapping[str, Mode]) -> _Wanted:
        """What a request asks for.  Most requests ask for everything."""
        key = tuple(asked.items())
        if (known := self.wants.get(key)) is None:
            if len(self.wants) >= _REMEMBERED:
                self.wants.clear()
            bits = tuple((category, self.bits[category]) for category in asked)
            known = self.wants[key] = _Wanted(_rows(asked, self.bits), bits, dict.fromkeys(asked, Mode.NONE))
        return known


@dataclass(frozen=True, slots=True, eq=False)
class _Compiled:
    """A snapshot, compiled."""

    snapshot: Snapshot
    vocabulary: Vocabulary
    terms: _Terms
    baseline: tuple[_Holder, ...]
    restrictions: Mapping[str, tuple[_Holder, ...]]  # by owner, the baseline included
    named: Mapping[str, Mapping[str, tuple[_Holder, ...]]]  # those on one record, by owner and record
    clauses: dict[tuple[str, str], tuple[_Clause, ...]] = field(default_factory=dict)
    opened: dict[tuple[str, ...], tuple[_Clause, ...]] = field(default_factory=dict)
    askers: dict[int, _Asker] = field(default_factory=dict)  # the latest requests, by id

    def between(self, source: str, recipient: str) -> tuple[_Clause, ...]:
        """The clauses from a source to a recipient that are ever live, best witness first."""
        pair = source, recipient
        if (known := self.clauses.get(pair)) is None:
            found = [
                clause
                for agreement in self.snapshot.between(source, recipient)
                for grant in agreement.grants
                if source in grant.sources and recipient in grant.organisations
                if (clause := _clause(self.snapshot, self.vocabulary, self.terms, agreement, grant, pair)) is not None
            ]
            known = self.clauses[pair] = tuple(sorted(found, key=_witness_order))
        return known

    def open_to(self, source: str, request: Request) -> tuple[_Clause, ...]:
        """Those of them for the request's role, purpose and basis."""
        key = (source, request.organisation, request.role, request.purpose, request.basis.art6)
        if (known := self.opened.get(key)) is None:
            if len(self.opened) >= _OPENED:
                self.opened.clear()
            known = self.opened[key] = tuple(
                clause
                for clause in self.between(source, request.organisation)
                if request.role in clause.roles
                and request.purpose in clause.purposes
                and request.basis.art6 in clause.art6
            )
        return known


class _Asker:
    """One request, checked, with what of a decision does not hang on the items a record holds: once a request.

    A view decides on each record of a family with one request at one instant, and most of their facts are the same.
    """

    __slots__ = ("asked", "ceiling", "compiled", "request", "sources", "wanted")

    def __init__(self, compiled: _Compiled, vocabulary: Vocabulary, request: Request) -> None:
        self.request = checked(request, vocabulary)
        self.compiled = compiled
        self.asked = dict(request.asked)
        self.wanted = compiled.terms.wanted(request.asked)
        self.ceiling = _meet(
            (
                compiled.terms.purposes[request.purpose],
                self.wanted.rows,
            )
        )
        self.sources: dict[tuple[str, datetime], _Source] = {}

    def source(self, source: str, at: datetime) -> _Source:
        """Where this request stands at an instant with a source, whatever the record."""
        key = (source, at)
        if (known := self.sources.get(key)) is None:
            if len(self.sources) >= _REMEMBERED:
                self.sources.clear()
            known = self.sources[key] = _Source(self, source, at)
        return known


class _Source:
    """What is known of a decision from the request, the source and the instant, before any fact of a record."""

    __slots__ = (
        "at", "case", "ceiling", "holders", "live_session", "named", "open", "request", "sealed", "standings",
        "terms", "untagged", "wanted",
    )  # fmt: skip

    def __init__(self, asker: _Asker, source: str, at: datetime) -> None:
        # Not the asker itself, which holds this: what is forgotten then goes at once, without a collector.
        request, compiled = asker.request, asker.compiled
        self.request, self.at, self.wanted, self.terms = request, at, asker.wanted, compiled.terms
        self.case = request.case
        session = request.break_glass
        live_session = session is not None and session.started <= at < session.started + LONGEST_SESSION
        self.live_session = live_session
        self.holders = tuple(
            holder
            for holder in compiled.restrictions.get(source, compiled.baseline)
            if holder.concerns(request.purpose, at, live_session)
        )
        self.untagged = tuple(holder for holder in self.holders if holder.tag is None)
        self.sealed = any(holder.seals for holder in self.untagged)
        self.named = compiled.named.get(source)
        self.ceiling = _meet((asker.ceiling, *(holder.rows for holder in self.untagged)))
        self.open = tuple(self._open(compiled, source))
        self.standings: dict[tuple[object, ...], _Standing] = {}

    def _open(self, compiled: _Compiled, source: str) -> Iterator[tuple[_Clause, Rows, tuple[_Holder, ...], _Group]]:
        """The clauses that pass every test but those of the record, best witness first: what each gives, what may limit
        it under a tag, and its window and regime."""
        request, at, session = self.request, self.at, self.request.break_glass
        level = compiled.terms.levels[request.threshold.level] if request.threshold else -1
        conditions, gateways = request.basis.conditions, request.basis.gateways
        for clause in compiled.open_to(source, request):
            if (
                (clause.gateways and clause.gateways.isdisjoint(gateways))
                or level < clause.threshold
                or not any(period.start <= at < period.end for period in clause.live)
                or (
                    clause.session is not None
                    and (session is None or not session.started <= at < session.started + clause.session)
                )
            ):
                continue
            rows = clause.bare if clause.conditions.isdisjoint(conditions) else clause.rows
            tagged: list[_Holder] = []
            for limit in clause.limits:
                if limit.concerns(request.purpose, at, self.live_session):
                    if limit.tag is None:
                        rows = _meet((rows, limit.rows))
                    else:
                        tagged.append(limit)
            earliest = _earliest(clause.window, at) if clause.window else None
            yield clause, rows, tuple(tagged), (earliest, clause.law_enforcement)

    def standing(self, facts: Facts) -> _Standing:
        """Where it stands with a record of such a relation, link, case and tags."""
        case = self.case is not None and self.case == facts.case
        key = (facts.relation, facts.link, case, facts.tags, facts.tags_unknown)
        if (known := self.standings.get(key)) is None:
            if len(self.standings) >= _REMEMBERED:
                self.standings.clear()
            known = self.standings[key] = _Standing(self, facts, case=case)
        return known


class _Standing:
    """What is known of a decision before the items held are looked at; and the answers given so far.

    `groups` are the windows and regimes of its clauses; `allowed` is what the clauses of each may show together.
    """

    __slots__ = (
        "allowed", "answers", "applied", "at", "ceiling", "clauses", "groups", "live_session", "named",
        "owing", "request", "terms", "unconfirmed", "wanted",
    )  # fmt: skip

    def __init__(self, source: _Source, facts: Facts, *, case: bool) -> None:
        self.request, self.at, self.live_session = source.request, source.at, source.live_session
        self.wanted, self.terms, self.named = source.wanted, source.terms, source.named
        self.unconfirmed = facts.link is Link.POSSIBLE
        self.answers: dict[tuple[object, ...], dict[str, object]] = {}
        self.owing: dict[tuple[_Clause, ...], tuple[tuple[Duty, ...], tuple[str, ...]]] = {}
        self.applied, self.ceiling, sealed = source.untagged, source.ceiling, source.sealed
        tagged = bool(facts.tags or facts.tags_unknown)
        if tagged:
            self.applied = tuple(holder for holder in source.holders if holder.applies(facts))
            self.ceiling = _meet((source.ceiling, *(holder.rows for holder in self.applied)))
            sealed = any(holder.seals for holder in self.applied)
        self.ceiling = _meet(
            (
                self.ceiling,
                _LINK_ROWS[facts.link],
            )
        )
        clauses: list[tuple[_Clause, Rows, _Group]] = []
        given: dict[_Group, Rows] = {}
        link = -1 if facts.link is None else int(facts.link)
        for clause, open_rows, limits, group in () if sealed else source.open:
            if facts.relation not in clause.about or (clause.case_reference and not case) or link < clause.link:
                continue
            rows = open_rows
            if tagged:
                for limit in limits:
                    if limit.applies(facts):
                        rows = _meet((rows, limit.rows))
            clauses.append((clause, rows, group))
            given[group] = _join((given[group], rows)) if group in given else rows
        self.clauses = tuple(clauses)
        self.groups = tuple(given)
        self.allowed = tuple((group, _meet((rows, self.ceiling))) for group, rows in given.items())

    def specific(self, facts: Facts) -> tuple[_Holder, ...]:
        """The restrictions on this very record, or that may be on it."""
        named = self.named or {}
        several: Iterable[_Holder] = named.get(facts.record or "", ())
        if facts.record is None:
            several = (holder for holders in named.values() for holder in holders)
        return tuple(
            holder
            for holder in several
            if holder.concerns(self.request.purpose, self.at, self.live_session) and holder.applies(facts)
        )


_Group = tuple[date | None, bool]


def _held(groups: Sequence[_Group], facts: Facts, terms: _Terms) -> tuple[tuple[int, ...], bool]:
    """For each window and regime the categories of which an item is inside; and whether a date or regime is unknown.

    The bare record stands on any item; on none at all it still stands where no window asks for a date.
    """
    bits, doubted, empty = terms.bits, False, True
    found = [0] * len(groups)
    for category, items in facts.held.items():
        for held in items:
            empty = False
            recorded_on, regime = held.recorded_on, held.regime
            if recorded_on is None or regime is None:
                doubted = True
            for index, (earliest, law_enforcement) in enumerate(groups):
                if (earliest is None or (recorded_on is not None and recorded_on >= earliest)) and (
                    law_enforcement or regime == "GENERAL"
                ):
                    found[index] |= bits[category]
    record = bits[RECORD]
    for index, (earliest, _) in enumerate(groups):
        if found[index] or (empty and earliest is None):
            found[index] |= record
    return tuple(found), doubted


def _weighed(
    standing: _Standing, at: datetime, held: tuple[int, ...], specific: tuple[_Holder, ...]
) -> dict[str, object]:
    """A decision but for the record's own facts, by the names of its fields."""
    applied, bits = (*standing.applied, *specific), standing.terms.bits
    dated = dict(zip(standing.groups, held, strict=True))
    covering: list[tuple[_Clause, Rows, Rows]] = []  # with what it gives, and what of that the items held reach
    for clause, rows, group in standing.clauses if not any(holder.seals for holder in specific) else ():
        items = dated[group]
        if items & (rows[1] | rows[5]):
            covering.append((clause, rows, _masked(rows, items)))
    ceiling = _meet((standing.ceiling, *(holder.rows for holder in specific)))
    best = _meet((_join(reached for _, _, reached in covering), ceiling))
    anything = best[1] | best[5]
    modes = dict(standing.wanted.nothing)
    shown: dict[str, Shown] = {}
    alike: dict[tuple[Mode, tuple[_Clause, ...]], Shown] = {}
    witnesses: dict[_Clause, None] = {}
    for category, bit in standing.wanted.bits if anything else ():
        if not anything & bit:
            continue
        modes[category] = mode = _height(best, bit)
        able = tuple([clause for clause, _, reached in covering if reached[mode] & bit])
        if (known := alike.get((mode, able))) is None:
            witnesses[able[0]] = None
            known = alike[mode, able] = Shown(mode=mode, under=able[0].ref, also=tuple(one.ref for one in able[1:]))
        shown[category] = known
    relied_on = tuple(witnesses)
    if (consequences := standing.owing.get(relied_on)) is None:
        duties = owed(clause.grant for clause in relied_on)
        consequences = standing.owing[relied_on] = duties, review_warnings((one.agreement for one in relied_on), at)

    def reach(category: str, recorded_on: date, regime: str) -> Mode:
        rows = _join(
            rows
            for clause, rows, _ in covering
            if (clause.window is None or recorded_on >= _earliest(clause.window, at))
            and (clause.law_enforcement or regime == "GENERAL")
        )
        return _height(_meet((rows, ceiling)), bits[category])

    return {
        "request": standing.request,
        "at": at,
        "modes": MappingProxyType(modes),
        "shown": MappingProxyType(shown),
        "duties": consequences[0],
        "restrictions": tuple(sorted(holder.name for holder in applied)),
        "warnings": consequences[1],
        "unconfirmed": standing.unconfirmed and bool(shown),
        "outcome": outcome_of(modes),
        "reach": reach,
    }


def _height(rows: Rows, bit: int) -> Mode:
    if not (rows[1] | rows[5]) & bit:
        return Mode.NONE
    if rows[5] & bit:
        return Mode.AGGREGATE
    if rows[4] & bit:
        return Mode.DETAIL
    if rows[3] & bit:
        return Mode.SUMMARY
    return Mode.STATUS if rows[2] & bit else Mode.EXISTENCE


def _meet(several: Iterable[Rows]) -> Rows:
    _, one, two, three, four, other = _ALL
    for rows in several:
        one &= rows[1]
        two &= rows[2]
        three &= rows[3]
        four &= rows[4]
        other &= rows[5]
    return (0, one, two, three, four, other)


def _join(several: Iterable[Rows]) -> Rows:
    _, one, two, three, four, other = _NOTHING
    for rows in several:
        one |= rows[1]
        two |= rows[2]
        three |= rows[3]
        four |= rows[4]
        other |= rows[5]
    return (0, one, two, three, four, other)


def _masked(rows: Rows, bits: int) -> Rows:
    return (0, rows[1] & bits, rows[2] & bits, rows[3] & bits, rows[4] & bits, rows[5] & bits)


def _asker(snapshot: Snapshot, vocabulary: Vocabulary, request: Request) -> _Asker:
    """The request, prepared.  Raises RequestRefused; a refused one is not remembered."""
    compiled = _compile(snapshot, vocabulary)
    known = compiled.askers.get(id(request))
    # Its own request is the one that stands: while it is held here, no other object can have its id.
    if known is None or known.request is not request or known.asked != request.asked:
        known = _Asker(compiled, vocabulary, request)
        if len(compiled.askers) >= _REMEMBERED:
            compiled.askers.clear()
        compiled.askers[id(request)] = known
    return known


@lru_cache(maxsize=256)
def _earliest(window: Duration, at: datetime) -> date:
    """The first day inside a window that ends on the London day of an instant."""
    return window.before(london_day(at))


@lru_cache(maxsize=16)
def _compile(snapshot: Snapshot, vocabulary: Vocabulary) -> _Compiled:
    """What can be known before a request: once a snapshot; the clauses of a pair when they are first asked for."""
    terms = _terms(vocabulary)
    baseline = tuple(_baseline(rule, terms.bits) for rule in vocabulary.baseline)
    restrictions: dict[str, tuple[_Holder, ...]] = {}
    named: dict[str, dict[str, tuple[_Holder, ...]]] = {}
    for restriction in snapshot.restrictions:
        if (period := _in_force(snapshot, restriction)) is not None:
            holder = _restriction(restriction, period, vocabulary, terms.bits)
            if restriction.record is None:
                restrictions[restriction.owner] = (*restrictions.get(restriction.owner, baseline), holder)
            else:
                of_owner = named.setdefault(restriction.owner, {})
                of_owner[restriction.record] = (*of_owner.get(restriction.record, ()), holder)
    return _Compiled(
        snapshot=snapshot,
        vocabulary=vocabulary,
        terms=terms,
        baseline=baseline,
        restrictions=restrictions,
        named=named,
    )


@lru_cache(maxsize=4)
def _terms(vocabulary: Vocabulary) -> _Terms:
    bits = {category: 1 << index for index, category in enumerate((*vocabulary.categories, RECORD))}
    return _Terms(
        bits=bits,
        levels={level: index for index, level in enumerate(vocabulary.thresholds)},
        purposes={
            purpose: _rows({name: vocabulary.ceiling(purpose, name) for name in (*vocabulary.shareable, RECORD)}, bits)
            for purpose in vocabulary.purposes
        },
    )


def _witness_order(clause: _Clause) -> tuple[object, ...]:
    newest_first = tuple(-int(part) for part in clause.agreement.version.split("."))
    return (
        clause.session is not None, len(clause.grant.duties), newest_first, clause.ref.agreement, clause.ref.clause,
    )  # fmt: skip


def _rows(modes: Mapping[str, Mode], bits: Mapping[str, int]) -> Rows:
    rows = [0] * 6
    for category, mode in modes.items():
        if mode is Mode.AGGREGATE:
            rows[Mode.AGGREGATE] |= bits[category]
        else:
            for below in CASEWORK[: int(mode)]:
                rows[below] |= bits[category]
    return (rows[0], rows[1], rows[2], rows[3], rows[4], rows[5])


def _left_by(categories: Iterable[str], at_most: Mode, bits: Mapping[str, int]) -> Rows:
    """What a cap leaves: everything, but of what it names only up to its mode; statistics unless that is none."""
    named = _FULL if RECORD in categories else sum(bits[category] for category in categories)
    one, two, three, four = (_FULL if mode <= at_most else ~named for mode in CASEWORK)
    return (0, one, two, three, four, _FULL if at_most else ~named)


def _baseline(rule: Baseline, bits: Mapping[str, int]) -> _Holder:
    return _Holder(
        name=rule.id,
        rows=_left_by(rule.categories, rule.at_most, bits),
        seals=RECORD in rule.categories and rule.at_most is Mode.NONE,
        tag=rule.tag,
        purposes=None,
        liftable=False,
        period=None,
    )


def _restriction(restriction: Restriction, period: Period, vocabulary: Vocabulary, bits: Mapping[str, int]) -> _Holder:
    return _Holder(
        name=restriction.ref,
        rows=_left_by(restriction.categories, restriction.at_most, bits),
        seals=RECORD in restriction.categories and restriction.at_most is Mode.NONE,
        tag=restriction.tag,
        purposes=_overlapping(restriction.purposes, vocabulary),
        liftable=restriction.lift == "break_glass",
        period=period,
    )


def _limit(limit: Limit, vocabulary: Vocabulary, bits: Mapping[str, int]) -> _Holder:
    return _Holder(
        name=limit.id,
        rows=_left_by(limit.categories, limit.at_most, bits),
        seals=False,
        tag=limit.tag,
        purposes=_overlapping(limit.purposes, vocabulary),
        liftable=limit.lift == "break_glass",
        period=None,
    )


def _overlapping(purposes: frozenset[str] | None, vocabulary: Vocabulary) -> frozenset[str] | None:
    """The request purposes that meet any of these."""
    if purposes is None:
        return None
    below = frozenset().union(*(vocabulary.down(purpose) for purpose in purposes))
    return frozenset(asked for asked in vocabulary.purposes if vocabulary.down(asked) & below)


def _in_force(snapshot: Snapshot, restriction: Restriction) -> Period | None:
    signed = snapshot.signed_at.get((restriction.owner, restriction.digest))
    if signed is None:
        return None
    ends = [
        event.at
        for event in snapshot.happened.get((restriction.owner, restriction.digest), ())
        if event.do in ("withdraw", "supersede")
    ]
    return Period(max(restriction.period.start, signed), min((restriction.period.end, *ends)))


def _clause(
    snapshot: Snapshot, vocabulary: Vocabulary, terms: _Terms, agreement: Agreement, grant: Grant, pair: tuple[str, str]
) -> _Clause | None:
    """One grant for one pair, or None if it is never live for it."""
    bits, levels = terms.bits, terms.levels
    source, recipient = pair
    live = _live(snapshot, agreement, source, recipient)
    if not live:
        return None
    sectors = agreement.parties[source].discloses
    given = {
        category: mode
        for category, mode in grant.modes.items()
        if category == RECORD or vocabulary.categories[category].sector in sectors
    }
    inside = frozenset().union(*(vocabulary.down(purpose) for purpose in grant.purposes))
    shut = _overlapping(grant.not_purposes, vocabulary) or frozenset()
    public = agreement.parties[recipient].public_authority
    umbrella = snapshot.umbrella(agreement)
    limits = (*agreement.limits, *(umbrella.limits if umbrella else ()))
    return _Clause(
        ref=GrantRef(agreement.ref, grant.id),
        agreement=agreement,
        grant=grant,
        live=live,
        roles=grant.roles,
        purposes=inside - shut,
        art6=frozenset(
            term for term in grant.basis.art6 if not (public and "not_public" in vocabulary.art6[term].flags)
        ),
        conditions=grant.basis.conditions,
        gateways=grant.basis.gateways,
        about=grant.about,
        case_reference=grant.case_reference,
        threshold=levels[grant.threshold] if grant.threshold else -1,
        link=-1 if grant.link is None else int(Link.MATCH if grant.link == "match" else Link.POSSIBLE),
        window=grant.recorded_within,
        law_enforcement=bool(grant.basis.le_authority),
        session=timedelta(minutes=min(grant.break_glass.ends_after.minutes, 60)) if grant.break_glass else None,
        rows=_rows(given, bits),
        bare=_rows({category: _bare(vocabulary, category, mode) for category, mode in given.items()}, bits),
        limits=tuple(_limit(limit, vocabulary, bits) for limit in limits),
    )


def _bare(vocabulary: Vocabulary, category: str, mode: Mode) -> Mode:
    """The most of a category that needs no condition, up to a mode."""
    if category == RECORD:
        return mode
    body = vocabulary.categories[category]
    if mode is Mode.AGGREGATE:
        return Mode.NONE if body.needs_condition(mode) else mode
    return max((step for step in CASEWORK if step <= mode and not body.needs_condition(step)), default=Mode.NONE)


def _live(snapshot: Snapshot, agreement: Agreement, source: str, recipient: str) -> tuple[Period, ...]:
    """When an agreement is live for a pair, as periods in order: signed by both, in force, not left, not paused."""
    start, end = agreement.period.start, agreement.period.end
    for party in (source, recipient):
        signed = snapshot.signed_at.get((party, agreement.digest))
        if signed is None or party not in agreement.parties:
            return ()
        start = max(start, signed)
        for event in snapshot.happened.get((party, agreement.digest), ()):
            if event.do in ("withdraw", "supersede"):
                end = min(end, event.at)
    if agreement.if_review_overdue == "suspend" and agreement.review is not None:
        end = min(end, agreement.review)
    periods = [Period(start, end)]
    since: datetime | None = None
    for event in snapshot.happened.get((source, agreement.digest), ()):
        if event.do == "suspend" and since is None:
            since = event.at
        elif event.do == "resume" and since is not None:
            periods = _without(periods, Period(since, event.at))
            since = None
    if since is not None:
        periods = _without(periods, Period(since, datetime.max.replace(tzinfo=start.tzinfo)))
    if agreement.under is not None:
        umbrella = snapshot.umbrella(agreement)
        above = _live(snapshot, umbrella, source, recipient) if umbrella else ()
        periods = [
            Period(max(ours.start, theirs.start), min(ours.end, theirs.end)) for ours in periods for theirs in above
        ]
    return tuple(period for period in periods if period.start < period.end)


def _without(periods: Sequence[Period], gap: Period) -> list[Period]:
    return [
        part
        for period in periods
        for part in (
            Period(period.start, min(period.end, gap.start)),
            Period(max(period.start, gap.end), period.end),
        )
        if part.start < part.end
    ]
