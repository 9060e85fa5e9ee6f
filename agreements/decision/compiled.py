"""A snapshot, compiled: the ceilings of each source, and for each source and recipient the clauses ever live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from agreements.agreement import Agreement, Duration, Grant, GrantRef, Limit, Period, Restriction
from agreements.decision.cells import EVERY_MODE, LINKED, WIDTH, cells_of, left_by
from agreements.request import Basis, Facts, Link
from agreements.snapshot import Snapshot
from agreements.vocabulary import CASEWORK, RECORD, Baseline, Mode, Vocabulary

REMEMBERED: Final = 64  # lists asked for a vocabulary, requests a snapshot, instants a request, answers a standing


@dataclass(frozen=True, slots=True, eq=False)
class Holder:
    """A restriction, baseline rule or limit, compiled: what it leaves, and when it applies."""

    name: str
    leaves: int  # cells
    seals: bool
    tag: str | None
    purposes: frozenset[str] | None  # the request purposes that it overlaps
    liftable: bool
    period: Period | None

    def concerns(self, purpose: str, at: datetime, *, live_session: bool) -> bool:
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
class Clause:
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
    law_enforcement: date | None  # the first London day on which an authority counts
    session: timedelta | None
    gives: int  # cells
    bare: int  # without a condition
    limits: tuple[Holder, ...]


class Between:
    """The clauses from a source to a recipient that are ever live, best witness first; of each test, by what it tests,
    the clauses that pass it, as a set of their positions."""

    __slots__ = ("_art6", "_gateways", "_purposes", "_roles", "_thresholds", "_ungated", "clauses")

    def __init__(self, clauses: Iterable[Clause], levels: int) -> None:
        self.clauses: Final = tuple(sorted(clauses, key=_witness_order))
        self._roles: Final = _positions(self.clauses, lambda clause: clause.roles)
        self._purposes: Final = _positions(self.clauses, lambda clause: clause.purposes)
        self._art6: Final = _positions(self.clauses, lambda clause: clause.art6)
        self._gateways: Final = _positions(self.clauses, lambda clause: clause.gateways)
        self._ungated: Final = sum(1 << n for n, clause in enumerate(self.clauses) if not clause.gateways)
        self._thresholds: Final = tuple(
            sum(1 << n for n, clause in enumerate(self.clauses) if clause.threshold <= level)
            for level in range(-1, levels)
        )

    def open_to(self, role: str, purpose: str, basis: Basis, level: int) -> int:
        """Those for a role, a purpose, a lawful basis whose gateways are in force, and a threshold (-1: none)."""
        gated = self._ungated
        for gateway in basis.gateways:
            gated |= self._gateways.get(gateway, 0)
        return (
            self._roles.get(role, 0)
            & self._purposes.get(purpose, 0)
            & self._art6.get(basis.art6, 0)
            & gated
            & self._thresholds[level + 1]
        )


def _positions(clauses: Sequence[Clause], terms: Callable[[Clause], Iterable[str]]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for number, clause in enumerate(clauses):
        for term in terms(clause):
            found[term] = found.get(term, 0) | 1 << number
    return found


class Wanted(NamedTuple):
    """The categories asked for: their cells, where each begins, and what each gets where nothing is shown."""

    cells: int
    shifts: tuple[tuple[str, int], ...]
    nothing: Mapping[str, Mode]


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """A vocabulary, compiled."""

    shifts: Mapping[str, int]
    columns: Mapping[str, int]  # of each category all cells, and those of the bare record that stands on its items
    record: int
    levels: Mapping[str, int]
    purposes: Mapping[str, int]
    links: Mapping[Link | None, int]
    wants: dict[tuple[tuple[str, Mode], ...], Wanted] = field(default_factory=dict)  # the latest lists asked for

    def wanted(self, asked: tuple[tuple[str, Mode], ...]) -> Wanted:
        """What a request asks for.  Most requests ask for everything."""
        if (known := self.wants.get(asked)) is None:
            if len(self.wants) >= REMEMBERED:
                self.wants.clear()
            modes = dict(asked)
            shifts = tuple((category, self.shifts[category]) for category in modes)
            known = self.wants[asked] = Wanted(cells_of(modes, self.shifts), shifts, dict.fromkeys(modes, Mode.NONE))
        return known


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """A snapshot, compiled; the clauses of a pair when they are first asked for."""

    snapshot: Snapshot
    vocabulary: Vocabulary
    terms: Terms
    baseline: tuple[Holder, ...]
    restrictions: Mapping[str, tuple[Holder, ...]]  # by owner, the baseline included
    named: Mapping[str, Mapping[str, tuple[Holder, ...]]]  # those on one record, by owner and record
    pairs: dict[tuple[str, str], Between] = field(default_factory=dict)

    def between(self, source: str, recipient: str) -> Between:
        """The clauses from a source to a recipient."""
        pair = source, recipient
        if (known := self.pairs.get(pair)) is None:
            found = [
                clause
                for agreement in self.snapshot.between(source, recipient)
                for grant in agreement.grants
                if source in grant.sources and recipient in grant.organisations
                if (clause := _clause(self.snapshot, self.vocabulary, self.terms, agreement, grant, pair)) is not None
            ]
            known = self.pairs[pair] = Between(found, len(self.terms.levels))
        return known


def compiled(snapshot: Snapshot, vocabulary: Vocabulary) -> Compiled:
    """What can be known before a request: once a snapshot; the clauses of a pair when they are first asked for."""
    terms = _terms(vocabulary)
    baseline = tuple(_baseline(rule, terms.shifts) for rule in vocabulary.baseline)
    restrictions: dict[str, tuple[Holder, ...]] = {}
    named: dict[str, dict[str, tuple[Holder, ...]]] = {}
    for restriction in snapshot.restrictions:
        if (period := _in_force(snapshot, restriction)) is not None:
            holder = _restriction(restriction, period, vocabulary, terms.shifts)
            if restriction.record is None:
                restrictions[restriction.owner] = (*restrictions.get(restriction.owner, baseline), holder)
            else:
                of_owner = named.setdefault(restriction.owner, {})
                of_owner[restriction.record] = (*of_owner.get(restriction.record, ()), holder)
    return Compiled(
        snapshot=snapshot,
        vocabulary=vocabulary,
        terms=terms,
        baseline=baseline,
        restrictions=restrictions,
        named=named,
    )


@lru_cache(maxsize=4)
def _terms(vocabulary: Vocabulary) -> Terms:
    shifts = {category: WIDTH * index for index, category in enumerate((*vocabulary.categories, RECORD))}
    whole = {category: EVERY_MODE << shift for category, shift in shifts.items()}
    return Terms(
        shifts=shifts,
        columns={category: cells | whole[RECORD] for category, cells in whole.items()},
        record=whole[RECORD],
        levels={level: index for index, level in enumerate(vocabulary.thresholds)},
        purposes={
            purpose: cells_of(
                {name: vocabulary.ceiling(purpose, name) for name in (*vocabulary.shareable, RECORD)}, shifts
            )
            for purpose in vocabulary.purposes
        },
        links={link: sum(modes << shift for shift in shifts.values()) for link, modes in LINKED.items()},
    )


def _witness_order(clause: Clause) -> tuple[object, ...]:
    newest_first = tuple(-int(part) for part in clause.agreement.version.split("."))
    return (
        clause.session is not None, len(clause.grant.duties), newest_first, clause.ref.agreement, clause.ref.clause,
    )  # fmt: skip


def _baseline(rule: Baseline, shifts: Mapping[str, int]) -> Holder:
    return Holder(
        name=rule.id,
        leaves=left_by(rule.categories, rule.at_most, shifts),
        seals=RECORD in rule.categories and rule.at_most is Mode.NONE,
        tag=rule.tag,
        purposes=None,
        liftable=False,
        period=None,
    )


def _restriction(restriction: Restriction, period: Period, vocabulary: Vocabulary, shifts: Mapping[str, int]) -> Holder:
    return Holder(
        name=restriction.ref,
        leaves=left_by(restriction.categories, restriction.at_most, shifts),
        seals=RECORD in restriction.categories and restriction.at_most is Mode.NONE,
        tag=restriction.tag,
        purposes=_overlapping(restriction.purposes, vocabulary),
        liftable=restriction.lift == "break_glass",
        period=period,
    )


def _limit(limit: Limit, vocabulary: Vocabulary, shifts: Mapping[str, int]) -> Holder:
    return Holder(
        name=limit.id,
        leaves=left_by(limit.categories, limit.at_most, shifts),
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
    snapshot: Snapshot, vocabulary: Vocabulary, terms: Terms, agreement: Agreement, grant: Grant, pair: tuple[str, str]
) -> Clause | None:
    """One grant for one pair, or None if it is never live for it."""
    shifts, levels = terms.shifts, terms.levels
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
    return Clause(
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
        law_enforcement=min(
            (day for code in grant.basis.le_authority if (day := vocabulary.in_force_from(code)) is not None),
            default=None,
        ),
        session=timedelta(minutes=min(grant.break_glass.ends_after.minutes, 60)) if grant.break_glass else None,
        gives=cells_of(given, shifts),
        bare=cells_of({category: _bare(vocabulary, category, mode) for category, mode in given.items()}, shifts),
        limits=tuple(_limit(limit, vocabulary, shifts) for limit in limits),
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
