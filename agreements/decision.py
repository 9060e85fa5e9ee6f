"""decide: the mode in which each category asked for may be shown, and under which clause.

The same as `reference.decide`, compiled: a set of categories is an integer with a bit a category, a clause five of
them (one a mode: the categories it gives at that mode or more).  Joining clauses is `|`, a ceiling is `&`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from agreements.agreement import Agreement, Duration, Duty, Grant, GrantRef, Limit, Period, Restriction, london_day
from agreements.request import Facts, Link, Request, aware, checked
from agreements.restrictions import LONGEST_SESSION, unknown_facts
from agreements.snapshot import Snapshot
from agreements.verdict import Decision, Outcome, Shown, outcome_of, owed, review_warnings
from agreements.vocabulary import CASEWORK, RECORD, Baseline, Mode, Vocabulary

Rows = tuple[int, int, int, int, int, int]
"""Per mode, the categories at that mode or more; index 0 is unused, 5 is the other axis, `aggregate`."""

_REMEMBERED: Final = 64  # requests a snapshot, standings a request, answers a standing
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
    standing = _asker(snapshot, vocabulary, request).standing(facts, at)
    applied = standing.applied
    if standing.of_records:
        applied = tuple(holder for holder in applied if holder.is_about(facts))
    if any(holder.seals for holder in applied):
        return _answer(standing, facts, at, (), _NOTHING, applied)
    covering = standing.covering(facts, at)
    ceiling = _meet((standing.ceiling, *(holder.rows for holder in applied))) if covering else _NOTHING
    return _answer(standing, facts, at, covering, ceiling, applied)


@dataclass(frozen=True, slots=True, eq=False)
class _Holder:
    """A restriction, baseline rule or limit, compiled: what it leaves, and when it applies."""

    name: str
    rows: Rows
    seals: bool
    tag: str | None
    record: str | None
    purposes: frozenset[str] | None  # the request purposes that it overlaps
    liftable: bool
    period: Period | None

    def applies(self, purpose: str, facts: Facts, live_session: bool) -> bool:
        """Whether it holds back here, as far as the record's own name does not matter."""
        return (
            (self.tag is None or self.tag in facts.tags or self.tag in facts.tags_unknown)
            and (self.purposes is None or purpose in self.purposes)
            and not (self.liftable and live_session)
        )

    def is_about(self, facts: Facts) -> bool:
        """Whether the record is the one it names, or may be."""
        return self.record is None or facts.record is None or self.record == facts.record


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


class _Covering(NamedTuple):
    """A clause that covers, before dates of items; what it gives; what of that the items held reach."""

    clause: _Clause
    rows: Rows
    reached: Rows


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """A vocabulary, compiled."""

    bits: Mapping[str, int]
    levels: Mapping[str, int]
    purposes: Mapping[str, Rows]


@dataclass(frozen=True, slots=True, eq=False)
class _Compiled:
    """A snapshot, compiled."""

    snapshot: Snapshot
    vocabulary: Vocabulary
    terms: _Terms
    baseline: tuple[_Holder, ...]
    restrictions: Mapping[str, tuple[_Holder, ...]]  # by owner, the baseline included
    clauses: dict[tuple[str, str], tuple[_Clause, ...]] = field(default_factory=dict)
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

    def asked(self, asked: Mapping[str, Mode]) -> Rows:
        """What a request asks for, as rows."""
        one = two = three = four = other = 0
        bits = self.terms.bits
        for category, mode in asked.items():
            bit = bits[category]
            if mode == 5:
                other |= bit
                continue
            if mode > 0:
                one |= bit
            if mode > 1:
                two |= bit
            if mode > 2:
                three |= bit
            if mode > 3:
                four |= bit
        return (0, one, two, three, four, other)


class _Asker:
    """One request, checked, with what of a decision does not hang on the items a record holds: once a request.

    A view decides on each record of a family with one request at one instant, and most of their facts are the same.
    """

    __slots__ = ("asked", "bits", "compiled", "request", "standings", "wanted")

    def __init__(self, compiled: _Compiled, vocabulary: Vocabulary, request: Request) -> None:
        self.request = checked(request, vocabulary)
        self.compiled = compiled
        self.asked = dict(request.asked)
        self.bits = tuple((category, compiled.terms.bits[category]) for category in request.asked)
        self.wanted = _meet(
            (
                compiled.terms.purposes[request.purpose],
                compiled.asked(request.asked),
            )
        )
        self.standings: dict[tuple[object, ...], _Standing] = {}

    def standing(self, facts: Facts, at: datetime) -> _Standing:
        """Where this request stands at an instant with a record of such a source, link, relation, case and tags."""
        request = self.request
        case = request.case is not None and request.case == facts.case
        key = (facts.source, facts.relation, facts.link, case, facts.tags, facts.tags_unknown, at)
        if (known := self.standings.get(key)) is not None:
            return known
        session = request.break_glass
        live_session = session is not None and session.started <= at < session.started + LONGEST_SESSION
        applied = tuple(
            holder
            for holder in self.compiled.restrictions.get(facts.source, self.compiled.baseline)
            if holder.applies(request.purpose, facts, live_session) and (holder.period is None or at in holder.period)
        )
        ceiling = _meet(
            (
                self.wanted,
                _LINK_ROWS[facts.link],
            )
        )
        standing = _Standing(self, applied, ceiling, self._clauses(facts, at, case=case, live_session=live_session))
        if len(self.standings) >= _REMEMBERED:
            self.standings.clear()
        self.standings[key] = standing
        return standing

    def _clauses(
        self, facts: Facts, at: datetime, *, case: bool, live_session: bool
    ) -> tuple[tuple[_Clause, Rows], ...]:
        """The clauses that pass every test but those of the items held, best witness first, with what they give."""
        request, compiled = self.request, self.compiled
        found: list[tuple[_Clause, Rows]] = []
        basis, session = request.basis, request.break_glass
        level = compiled.terms.levels[request.threshold.level] if request.threshold else -1
        link = -1 if facts.link is None else int(facts.link)
        for clause in compiled.between(facts.source, request.organisation):
            if (
                request.role not in clause.roles
                or request.purpose not in clause.purposes
                or basis.art6 not in clause.art6
                or (clause.gateways and clause.gateways.isdisjoint(basis.gateways))
                or facts.relation not in clause.about
                or (clause.case_reference and not case)
                or level < clause.threshold
                or link < clause.link
                or not any(period.start <= at < period.end for period in clause.live)
                or (
                    clause.session is not None
                    and (session is None or not session.started <= at < session.started + clause.session)
                )
            ):
                continue
            rows = clause.bare if clause.conditions.isdisjoint(basis.conditions) else clause.rows
            for limit in clause.limits:
                if limit.applies(request.purpose, facts, live_session):
                    rows = _meet((rows, limit.rows))
            found.append((clause, rows))
        return tuple(found)


class _Standing:
    """What is known of a decision before the items held are looked at; and the answers given so far."""

    __slots__ = ("answers", "applied", "bits", "ceiling", "clauses", "names", "of_records", "request", "wanted")

    def __init__(
        self,
        asker: _Asker,
        applied: tuple[_Holder, ...],
        ceiling: Rows,
        clauses: tuple[tuple[_Clause, Rows], ...],
    ) -> None:
        # Not the asker itself, which holds this: what is forgotten then goes at once, without a collector.
        self.request = asker.request
        self.wanted = asker.bits
        self.bits = asker.compiled.terms.bits
        self.applied = applied
        self.ceiling = ceiling
        self.clauses = clauses
        self.names = tuple(sorted(holder.name for holder in applied))
        self.of_records = any(holder.record is not None for holder in applied)
        self.answers: dict[tuple[object, ...], _Answer] = {}

    def covering(self, facts: Facts, at: datetime) -> tuple[_Covering, ...]:
        """The clauses that cover what is held, best witness first."""
        found: list[_Covering] = []
        dated: dict[tuple[Duration | None, bool], int] = {}
        for clause, rows in self.clauses:
            key = (clause.window, clause.law_enforcement)
            if (items := dated.get(key)) is None:
                items = dated[key] = self._held(facts, clause, at)
            if items & rows[1] or items & rows[5]:
                found.append(_Covering(clause, rows, _masked(rows, items)))
        return tuple(found)

    def _held(self, facts: Facts, clause: _Clause, at: datetime) -> int:
        """The categories of which an item is inside the clause's window and regime."""
        earliest = _earliest(clause.window, at) if clause.window else None
        bits = self.bits
        record = bits[RECORD]
        items = 0 if earliest or any(facts.held.values()) else record
        for category, of_one in facts.held.items():
            for held in of_one:
                if (earliest is None or (held.recorded_on is not None and held.recorded_on >= earliest)) and (
                    clause.law_enforcement or held.regime == "GENERAL"
                ):
                    items |= bits[category] | record
                    break
        return items


class _Answer(NamedTuple):
    """The part of a decision that follows from the covering clauses and the ceiling."""

    modes: Mapping[str, Mode]
    shown: Mapping[str, Shown]
    duties: tuple[Duty, ...]
    warnings: tuple[str, ...]
    outcome: Outcome


def _answer(
    standing: _Standing,
    facts: Facts,
    at: datetime,
    covering: tuple[_Covering, ...],
    ceiling: Rows,
    applied: tuple[_Holder, ...],
) -> Decision:
    key = (ceiling, covering)
    if (answer := standing.answers.get(key)) is None:
        if len(standing.answers) >= _REMEMBERED:
            standing.answers.clear()
        answer = standing.answers[key] = _weighed(standing.wanted, at, covering, ceiling)

    def reach(category: str, recorded_on: date, regime: str) -> Mode:
        rows = _join(
            one.rows
            for one in covering
            if (one.clause.window is None or recorded_on >= _earliest(one.clause.window, at))
            and (one.clause.law_enforcement or regime == "GENERAL")
        )
        return _height(_meet((rows, ceiling)), standing.bits[category])

    return Decision(
        request=standing.request,
        facts=facts,
        at=at,
        modes=answer.modes,
        shown=answer.shown,
        duties=answer.duties,
        restrictions=standing.names
        if applied is standing.applied
        else tuple(sorted(holder.name for holder in applied)),
        warnings=answer.warnings,
        unknown=tuple(unknown_facts(facts)) if _in_doubt(facts) else (),
        unconfirmed=facts.link is Link.POSSIBLE and bool(answer.shown),
        outcome=answer.outcome,
        reach=reach,
    )


def _weighed(wanted: Sequence[tuple[str, int]], at: datetime, covering: Sequence[_Covering], ceiling: Rows) -> _Answer:
    best = _meet((_join(one.reached for one in covering), ceiling)) if covering else _NOTHING
    modes: dict[str, Mode] = {}
    shown: dict[str, Shown] = {}
    witnesses: dict[GrantRef, _Clause] = {}
    for category, bit in wanted:
        modes[category] = mode = _height(best, bit)
        if mode:
            able = [one.clause for one in covering if one.reached[mode] & bit]
            witnesses[able[0].ref] = able[0]
            shown[category] = Shown(mode=mode, under=able[0].ref, also=tuple(clause.ref for clause in able[1:]))
    return _Answer(
        modes=MappingProxyType(modes),
        shown=MappingProxyType(shown),
        duties=owed(clause.grant for clause in witnesses.values()) if witnesses else (),
        warnings=review_warnings((clause.agreement for clause in witnesses.values()), at) if witnesses else (),
        outcome=outcome_of(modes),
    )


def _in_doubt(facts: Facts) -> bool:
    """Whether any fact is unknown."""
    if facts.record is None or facts.relation is None or facts.case is None or facts.link is None:
        return True
    if facts.tags_unknown:
        return True
    for of_one in facts.held.values():
        for held in of_one:
            if held.recorded_on is None or held.regime is None:
                return True
    return False


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
    for restriction in snapshot.restrictions:
        if (period := _in_force(snapshot, restriction)) is not None:
            known = restrictions.get(restriction.owner, baseline)
            restrictions[restriction.owner] = (*known, _restriction(restriction, period, vocabulary, terms.bits))
    return _Compiled(
        snapshot=snapshot, vocabulary=vocabulary, terms=terms, baseline=baseline, restrictions=restrictions
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
        record=None,
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
        record=restriction.record,
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
        record=None,
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
