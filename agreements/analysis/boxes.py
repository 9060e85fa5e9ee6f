"""Exact set algebra: every clause is a box, and everything an estate allows is a union of boxes less others.

A point of the space is one request on one item of one record: role, purpose, lawful bases, relation, case, threshold,
link, the item's age and regime, emergency session, tags, record, instant; and a *cell*, a category at a mode.  It is
allowed iff `decide` shows that category at that mode or more, were everything asked for.  A box is a set of values an
axis and a time from, inclusive, to, exclusive; a set is an integer with a bit a value.  What a request claims several
of (conditions, gateways) and what a record has several of (tags) are axes whose values are subsets: boxes stay exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from functools import cached_property, lru_cache
from itertools import pairwise
from operator import and_
from typing import Final

from agreements.agreement import Agreement, Duration, Grant, GrantRef, Limit, Period, Restriction, london_day
from agreements.request import Basis, BreakGlass, Facts, Held, Link, Request, Threshold
from agreements.restrictions import LONGEST_SESSION
from agreements.snapshot import Snapshot
from agreements.vocabulary import CASEWORK, RECORD, Baseline, Mode, Vocabulary

Pair = tuple[str, str]
"""A source and a recipient."""

EVER: Final = Period(datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))
ANOTHER_RECORD: Final = "another"
_LONGEST: Final = int(LONGEST_SESSION.total_seconds()) // 60
_MODES: Final = tuple(Mode)[1:]
_LEAP_CYCLE: Final = 1461  # days, in which every order that two durations can have comes up


class Axis(IntEnum):
    """The axes of a box but time, in the order in which a difference is taken apart."""

    CELLS = 0
    ROLES = 1
    PURPOSES = 2
    THRESHOLDS = 3
    CASES = 4
    ART6 = 5
    CONDITIONS = 6
    GATEWAYS = 7
    RELATIONS = 8
    LINKS = 9
    AGES = 10
    REGIMES = 11
    SESSIONS = 12
    TAGS = 13
    RECORDS = 14


Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A product of sets, one an axis, none of them empty, over a time."""

    axes: Axes
    start: datetime
    end: datetime

    def meet(self, other: Box) -> Box | None:
        """What is in both, if anything."""
        mine, theirs = self.axes, other.axes
        if not (mine[0] & theirs[0] and mine[1] & theirs[1] and mine[2] & theirs[2]):
            return None  # cells, roles and purposes part most boxes
        axes = tuple(map(and_, mine, theirs))
        if 0 in axes or self.start >= other.end or other.start >= self.end:
            return None
        return Box(axes, max(self.start, other.start), min(self.end, other.end))

    def minus(self, other: Box) -> list[Box]:
        """What is in this and not in the other, as boxes without a point in common."""
        common = self.meet(other)
        return [self] if common is None else self.around(common)

    def around(self, part: Box) -> list[Box]:
        """What is left of this without a part of it."""
        pieces = []
        left = self.axes
        for axis, (mine, shared) in enumerate(zip(self.axes, part.axes, strict=True)):
            if mine != shared:
                pieces.append(Box((*left[:axis], mine & ~shared, *left[axis + 1 :]), self.start, self.end))
                left = (*left[:axis], shared, *left[axis + 1 :])
        if self.start < part.start:
            pieces.append(Box(left, self.start, part.start))
        if part.end < self.end:
            pieces.append(Box(left, part.end, self.end))
        return pieces


@dataclass(frozen=True, slots=True)
class Cut:
    """A ceiling as a box: what a limit, a restriction or a baseline rule takes away wherever it applies."""

    name: str
    text: str
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """One clause between one source and one recipient: its boxes, under the purposes' ceilings and the link's, and
    what its own agreement's limits take away."""

    ref: GrantRef
    agreement: Agreement
    grant: Grant
    boxes: tuple[Box, ...]
    cuts: tuple[Cut, ...]

    def shows(self, point: Box) -> bool:
        """Whether it allows a single point."""
        return any(point.meet(box) for box in self.boxes) and not any(point.meet(cut.box) for cut in self.cuts)

    def axis(self, axis: Axis) -> int:
        """Every value on an axis that any of its boxes has."""
        values = 0
        for box in self.boxes:
            values |= box.axes[axis]
        return values

    def allows(self) -> list[Box]:
        """Its boxes less its own limits."""
        return without(self.boxes, [cut.box for cut in self.cuts])


def without(boxes: Iterable[Box], taken: Iterable[Box]) -> list[Box]:
    """Boxes less others."""
    left = list(boxes)
    for other in taken:
        left = [piece for box in left for piece in box.minus(other)]
        if not left:
            break
    return left


def without_given(boxes: Iterable[Box], given: Iterable[Given]) -> list[Box]:
    """Boxes less what clauses allow: what a clause's own limit takes from it stays."""
    whole = list(boxes)
    left = whole
    for clause in given:
        for one in clause.boxes:
            if not any(box.meet(one) for box in whole):
                continue  # nor does a piece of them
            kept: list[Box] = []
            for box in left:
                common = box.meet(one)
                if common is None:
                    kept.append(box)
                    continue
                kept += box.around(common)
                kept += _taken(common, clause.cuts)
            left = kept
        if not left:
            break
    return left


def _taken(box: Box, cuts: Iterable[Cut]) -> list[Box]:
    """What the cuts take from a box, each point once."""
    met = [common for cut in cuts if (common := box.meet(cut.box)) is not None]
    return [piece for index, one in enumerate(met) for piece in without([one], met[:index])]


def merged(boxes: Iterable[Box]) -> list[Box]:
    """The same points in fewer boxes: two that differ on one axis, or follow each other in time, become one."""
    left = list(dict.fromkeys(boxes))
    apart_on = [axis for axis in Axis if len({box.axes[axis] for box in left}) > 1]
    while True:
        before = len(left)
        for axis in apart_on:
            apart: dict[tuple[object, ...], Box] = {}
            for box in left:
                key = (box.axes[:axis], box.axes[axis + 1 :], box.start, box.end)
                known = apart.get(key)
                both = box.axes[axis] if known is None else known.axes[axis] | box.axes[axis]
                apart[key] = Box((*box.axes[:axis], both, *box.axes[axis + 1 :]), box.start, box.end)
            left = list(apart.values())
        left = _one_after_another(left)
        if len(left) == before:
            return left


def _one_after_another(boxes: Iterable[Box]) -> list[Box]:
    """Boxes equal but for their times, joined where one begins by the other's end."""
    by_axes: dict[Axes, list[Box]] = {}
    for box in sorted(boxes, key=lambda box: box.start):
        same = by_axes.setdefault(box.axes, [])
        if same and box.start <= same[-1].end:
            same[-1] = Box(box.axes, same[-1].start, max(same[-1].end, box.end))
        else:
            same.append(box)
    return [box for several in by_axes.values() for box in several]


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """The values of every axis, as far as the snapshots in question can tell them apart."""

    vocabulary: Vocabulary
    conditions: tuple[str, ...]
    gateways: tuple[str, ...]
    tags: tuple[str, ...]
    windows: tuple[Duration, ...]
    ages: tuple[frozenset[Duration], ...]  # the windows that an item is inside; the first: none, or an unknown date
    sessions: tuple[int, ...]  # minutes at which an emergency session stops counting for some clause
    records: Mapping[str, tuple[str, ...]]  # by source, those that a restriction names

    @classmethod
    def of(cls, vocabulary: Vocabulary, *snapshots: Snapshot) -> Space:
        """The space in which the snapshots can be held against each other."""
        grants = [grant for one in snapshots for agreement in one.agreements for grant in agreement.grants]
        limits = [limit for one in snapshots for agreement in one.agreements for limit in agreement.limits]
        rules = [restriction for one in snapshots for restriction in one.restrictions]
        windows = tuple(sorted({_plain(one.recorded_within) for one in grants if one.recorded_within}, key=str))
        tagged = [*(one.tag for one in limits), *(one.tag for one in rules), *(one.tag for one in vocabulary.baseline)]
        ends = {min(one.break_glass.ends_after.minutes, _LONGEST) for one in grants if one.break_glass}
        records: dict[str, set[str]] = {}
        for rule in rules:
            if rule.record is not None:
                records.setdefault(rule.owner, set()).add(rule.record)
        return cls(
            vocabulary=vocabulary,
            conditions=_in_order(vocabulary.conditions, (term for one in grants for term in one.basis.conditions)),
            gateways=_in_order(vocabulary.gateways, (term for one in grants for term in one.basis.gateways)),
            tags=_in_order(vocabulary.tags, (tag for tag in tagged if tag is not None)),
            windows=windows,
            ages=_ages(windows),
            sessions=tuple(sorted(ends | {_LONGEST})),
            records={source: tuple(sorted(named)) for source, named in records.items()},
        )

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories that may be shown, and the bare record."""
        return (*self.vocabulary.shareable, RECORD)

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """Every role, in the vocabulary's order."""
        return tuple(self.vocabulary.roles)

    @cached_property
    def purposes(self) -> tuple[str, ...]:
        """Every purpose that a request may name, groups included."""
        return tuple(self.vocabulary.purposes)

    @cached_property
    def art6(self) -> tuple[str, ...]:
        """Every Article 6 basis."""
        return tuple(self.vocabulary.art6)

    @cached_property
    def thresholds(self) -> tuple[str | None, ...]:
        """No threshold recorded, and every level from the lowest up."""
        return (None, *self.vocabulary.thresholds)

    @cached_property
    def relations(self) -> tuple[str | None, ...]:
        """Every relation, and an unknown one."""
        return (*self.vocabulary.relations, None)

    @cached_property
    def links(self) -> tuple[Link | None, ...]:
        """Every strength of a link, and an unknown one."""
        return (None, *Link)

    def records_of(self, source: str) -> tuple[str | None, ...]:
        """Any record that no restriction names, an unknown one, and each that one names."""
        return (ANOTHER_RECORD, None, *self.records.get(source, ()))

    @cached_property
    def _whole(self) -> tuple[int, ...]:
        sizes = (
            len(self.categories) * len(_MODES), len(self.roles), len(self.purposes), len(self.thresholds), 2,
            len(self.art6), 1 << len(self.conditions), 1 << len(self.gateways), len(self.relations), len(self.links),
            len(self.ages), 2, len(self.sessions) + 1, 1 << len(self.tags),
        )  # fmt: skip
        return tuple((1 << size) - 1 for size in sizes)

    def whole(self, source: str) -> Axes:
        """Every value of every axis, for records of one source."""
        return (*self._whole, (1 << len(self.records_of(source))) - 1)

    def box(self, source: str, axes: Mapping[Axis, int], period: Period = EVER) -> Box:
        """A box for records of one source, whole but on the axes given."""
        values = tuple(axes.get(axis, whole) for axis, whole in zip(Axis, self.whole(source), strict=True))
        return Box(values, period.start, period.end)

    # --- sets of values ---------------------------------------------------------------------------------------------

    def cell(self, category: str, mode: Mode) -> int:
        """The bit of a category at a mode."""
        return 1 << (self._position[category] * len(_MODES) + mode - 1)

    @cached_property
    def _position(self) -> Mapping[str, int]:
        return {category: index for index, category in enumerate(self.categories)}

    def cells_of(self, bits: int) -> Iterator[tuple[str, Mode]]:
        """The categories at modes of a set."""
        for index in ones(bits):
            yield self.categories[index // len(_MODES)], _MODES[index % len(_MODES)]

    def meeting(self, listed: Sequence[str], terms: Iterable[str]) -> int:
        """The subsets of `listed` that have any of these terms."""
        return _meeting(len(listed), frozenset(listed.index(term) for term in terms))

    def purposes_overlapping(self, purposes: frozenset[str] | None) -> int:
        """The request purposes that meet any of these; all where none are given."""
        return _overlapping(self.vocabulary, purposes)

    def clause(self, agreement: Agreement, grant: Grant, pair: Pair) -> list[Axes]:
        """The axes of one clause between a pair, in whichever estate it stands."""
        party = agreement.parties[pair[1]]
        key = (id(grant), pair[0], agreement.parties[pair[0]].discloses, party.public_authority)
        known = self._clauses.get(key)
        if known is None or known[0] is not grant:
            known = self._clauses[key] = (grant, _clause(self, agreement, grant, pair))
        return known[1]

    @cached_property
    def _clauses(self) -> dict[tuple[object, ...], tuple[Grant, list[Axes]]]:
        return {}

    # --- points -----------------------------------------------------------------------------------------------------

    def of_request(self, request: Request, facts: Facts, at: datetime) -> Axes:
        """The point of a request on a record, whole on what hangs on an item: cells, ages and regimes."""
        whole = self._whole
        session = request.break_glass
        record = self.records_of(facts.source)
        return (
            whole[Axis.CELLS],
            1 << self.roles.index(request.role),
            1 << self.purposes.index(request.purpose),
            1 << self.thresholds.index(request.threshold.level if request.threshold else None),
            2 if request.case is not None and request.case == facts.case else 1,
            1 << self.art6.index(request.basis.art6),
            1 << _subset(self.conditions, request.basis.conditions),
            1 << _subset(self.gateways, request.basis.gateways),
            1 << self.relations.index(facts.relation),
            1 << self.links.index(facts.link),
            whole[Axis.AGES],
            whole[Axis.REGIMES],
            1 << (0 if session is None else self._session(at - session.started)),
            1 << _subset(self.tags, facts.tags | facts.tags_unknown),
            1 << (record.index(facts.record) if facts.record in record else 0),
        )

    def of_items(self, request: Request, facts: Facts, at: datetime) -> dict[tuple[int, int], int]:
        """The cells asked for that the items held stand for, by their age and regime."""
        found: dict[tuple[int, int], int] = {}
        day = london_day(at)
        every: set[tuple[int, int]] = set()
        for category, several in facts.held.items():
            for held in several:
                key = (1 << self._age(held.recorded_on, day), 1 if held.regime == "GENERAL" else 2)
                every.add(key)
                if asked := request.asked.get(category, Mode.NONE):
                    found[key] = found.get(key, 0) | self._up_to(category, asked)
        if request.asked.get(RECORD):
            for key in every or {(1, 1)}:
                found[key] = found.get(key, 0) | self.cell(RECORD, Mode.EXISTENCE)
        return found

    def _up_to(self, category: str, asked: Mode) -> int:
        if asked is Mode.AGGREGATE:
            return self.cell(category, asked)
        return sum(self.cell(category, mode) for mode in CASEWORK if mode <= asked)

    def _age(self, recorded_on: date | None, day: date) -> int:
        if recorded_on is None:
            return 0
        inside = frozenset(window for window in self.windows if recorded_on >= _first_day(window, day))
        return self.ages.index(inside)

    def _session(self, age: timedelta) -> int:
        if age < timedelta(0):
            return 0
        minutes = age / timedelta(minutes=1)
        return next((index + 1 for index, end in enumerate(self.sessions) if minutes < end), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A question inside a box: deciding it shows what the box says of `category` at `mode`."""

    request: Request
    facts: Facts
    at: datetime
    category: str
    mode: Mode


def witness(space: Space, pair: Pair, box: Box) -> Witness | None:
    """A question inside a box; None if no day of it has an item of such an age, so that nobody can ever ask one."""
    source, organisation = pair

    def pick(axis: Axis) -> int:
        return _lowest(box.axes[axis])

    category, mode = next(space.cells_of(box.axes[Axis.CELLS]))
    dated = _dated(space, box)
    if dated is None:
        return None
    at, recorded_on = dated
    session = pick(Axis.SESSIONS)
    began = (0, *space.sessions)[session - 1] if session else 0
    threshold = space.thresholds[pick(Axis.THRESHOLDS)]
    case = pick(Axis.CASES)
    item = Held(recorded_on, "GENERAL" if box.axes[Axis.REGIMES] & 1 else "LE")
    return Witness(
        request=Request(
            organisation=organisation,
            role=space.roles[pick(Axis.ROLES)],
            purpose=space.purposes[pick(Axis.PURPOSES)],
            basis=Basis(
                art6=space.art6[pick(Axis.ART6)],
                conditions=_members(space.conditions, pick(Axis.CONDITIONS)),
                gateways=_members(space.gateways, pick(Axis.GATEWAYS)),
            ),
            case="case" if case else None,
            threshold=None
            if threshold is None
            else Threshold(level=threshold, decided_by=space.vocabulary.thresholds[threshold].set_by[0]),
            break_glass=BreakGlass(
                reason=next(iter(space.vocabulary.emergencies)), started=at - timedelta(minutes=began)
            )
            if session
            else None,
            asked={category: mode},
        ),
        facts=Facts(
            source=source,
            record=space.records_of(source)[pick(Axis.RECORDS)],
            relation=space.relations[pick(Axis.RELATIONS)],
            case="case" if case else None,
            link=space.links[pick(Axis.LINKS)],
            tags=_members(space.tags, pick(Axis.TAGS)),
            held={space.vocabulary.shareable[0] if category == RECORD else category: (item,)},
        ),
        at=at,
        category=category,
        mode=mode,
    )


def askable(space: Space, box: Box) -> bool:
    """Whether anybody can ever ask a question inside a box."""
    return _dated(space, box) is not None


def _dated(space: Space, box: Box) -> tuple[datetime, date] | None:
    """An instant in the box and the date of an item that then has an age of the box."""
    for days in range(_LEAP_CYCLE):
        at = box.start + timedelta(days=days)
        if at >= box.end:
            return None
        day = london_day(at)
        for index in ones(box.axes[Axis.AGES]):
            inside = space.ages[index]
            first = max((_first_day(window, day) for window in inside), default=None)
            beyond = min((_first_day(window, day) for window in space.windows if window not in inside), default=None)
            recorded_on = first or (beyond - timedelta(days=1) if beyond else day)
            if beyond is None or recorded_on < beyond:
                return at, recorded_on
    return None


# --- an estate as boxes ---------------------------------------------------------------------------------------------


class Estate:
    """A snapshot as boxes, each pair of source and recipient when it is first asked for.

    `twin`: another estate with the same space and period, in which all agreements but those `unlike` stand alike.
    """

    def __init__(
        self,
        space: Space,
        snapshot: Snapshot,
        *,
        period: Period = EVER,
        twin: Estate | None = None,
        unlike: AbstractSet[str] = frozenset(),
    ) -> None:
        self.space: Final = space
        self.snapshot: Final = snapshot
        self.period: Final = period
        self._twin: Final = twin
        self._unlike: Final = unlike
        self._given: dict[tuple[str, ...], Given] = {}
        self._cuts: dict[str, tuple[Cut, ...]] = {}
        self._live: dict[tuple[str, str, str], tuple[Period, ...]] = {}

    @cached_property
    def pairs(self) -> Mapping[Pair, tuple[tuple[Agreement, Grant], ...]]:
        """The clauses between each source and each recipient, signed or not, in the order of their references."""
        found: dict[Pair, list[tuple[Agreement, Grant]]] = {}
        for agreement in self.snapshot.agreements:
            for grant in agreement.grants:
                for source in grant.sources:
                    for organisation in grant.organisations:
                        found.setdefault((source, organisation), []).append((agreement, grant))
        return {pair: tuple(several) for pair, several in sorted(found.items())}

    def given(self, pair: Pair) -> tuple[Given, ...]:
        """What clauses give between a pair, those that give nothing at any time left out."""
        several = (self.given_by(agreement, grant, pair) for agreement, grant in self.pairs.get(pair, ()))
        return tuple(one for one in several if one.boxes)

    def near(self, pair: Pair, roles: int, purposes: int) -> tuple[Given, ...]:
        """As `given`, less clauses for none of these roles or none of these purposes: they are not even looked at."""
        several = (
            self.given_by(agreement, grant, pair)
            for agreement, grant in self.pairs.get(pair, ())
            if roles & _bits(self.space.roles, grant.roles) and purposes & _inside(self.space.vocabulary, grant)
        )
        return tuple(one for one in several if one.boxes)

    def given_by(self, agreement: Agreement, grant: Grant, pair: Pair) -> Given:
        """What one clause gives between a pair; no boxes if it is never live between them."""
        if self._twin is not None and agreement.ref not in self._unlike:
            return self._twin.given_by(agreement, grant, pair)
        key = (agreement.ref, grant.id, *pair)
        if (known := self._given.get(key)) is None:
            known = self._given[key] = self._boxes(agreement, grant, pair)
        return known

    def _boxes(self, agreement: Agreement, grant: Grant, pair: Pair) -> Given:
        periods = [
            Period(max(live.start, self.period.start), min(live.end, self.period.end))
            for live in self.live(agreement, pair)
        ]
        axes = self.space.clause(agreement, grant, pair) if periods else []
        umbrella = self.snapshot.umbrella(agreement)
        limits = (*agreement.limits, *(umbrella.limits if umbrella else ()))
        return Given(
            ref=GrantRef(agreement.ref, grant.id),
            agreement=agreement,
            grant=grant,
            boxes=tuple(Box(one, live.start, live.end) for live in periods if live.start < live.end for one in axes),
            cuts=tuple(_limit(self.space, limit, pair[0]) for limit in limits),
        )

    def live(self, agreement: Agreement, pair: Pair) -> tuple[Period, ...]:
        """When an agreement is live between a pair."""
        key = (agreement.ref, *pair)
        if (known := self._live.get(key)) is None:
            known = self._live[key] = live_periods(self.snapshot, agreement, pair)
        return known

    def cuts(self, source: str) -> tuple[Cut, ...]:
        """What restrictions of a source and the baseline take away, whoever asks."""
        if (known := self._cuts.get(source)) is None:
            rules = [_baseline(self.space, rule, source) for rule in self.space.vocabulary.baseline]
            for restriction in self.snapshot.restrictions:
                if restriction.owner == source:
                    rules += [
                        _restriction(self.space, restriction, period)
                        for period in in_force_periods(self.snapshot, restriction)
                    ]
            known = self._cuts[source] = tuple(rules)
        return known


def live_periods(snapshot: Snapshot, agreement: Agreement, pair: Pair) -> tuple[Period, ...]:
    """When an agreement is live between a pair: its standing asked at every instant at which it can change."""
    instants: set[datetime] = set()
    one: Agreement | None = agreement
    while one is not None:
        instants |= {one.period.start, one.period.end} | ({one.review} if one.review else set())
        for party in pair:
            if (signed := snapshot.signed_at.get((party, one.digest))) is not None:
                instants.add(signed)
            instants |= {event.at for event in snapshot.happened.get((party, one.digest), ())}
        one = snapshot.umbrella(one)
    period = agreement.period
    instants = {at for at in instants if period.start <= at <= period.end}
    return _holding(instants, lambda at: snapshot.standing(agreement, *pair, at).live)


def in_force_periods(snapshot: Snapshot, restriction: Restriction) -> tuple[Period, ...]:
    """When a restriction holds back."""
    key = (restriction.owner, restriction.digest)
    instants = {restriction.period.start, restriction.period.end}
    if (signed := snapshot.signed_at.get(key)) is not None:
        instants.add(signed)
    instants |= {event.at for event in snapshot.happened.get(key, ())}
    return _holding(instants, lambda at: snapshot.in_force(restriction, at))


def _holding(instants: Iterable[datetime], holds: Callable[[datetime], bool]) -> tuple[Period, ...]:
    """When something holds that changes at these instants alone, and holds neither before the first nor after the
    last."""
    periods: list[Period] = []
    ordered = sorted(instants)
    for start, end in pairwise(ordered):
        if holds(start):
            if periods and periods[-1].end == start:
                periods[-1] = Period(periods[-1].start, end)
            else:
                periods.append(Period(start, end))
    return tuple(periods)


# --- clauses and ceilings as boxes ----------------------------------------------------------------------------------


def _clause(space: Space, agreement: Agreement, grant: Grant, pair: Pair) -> list[Axes]:
    """The axes of one clause between a pair, taken apart where purpose, condition or link decide on the mode."""
    source, organisation = pair
    vocabulary = space.vocabulary
    axes = list(space.whole(source))
    public = agreement.parties[organisation].public_authority
    art6 = [term for term in grant.basis.art6 if not (public and "not_public" in vocabulary.art6[term].flags)]
    axes[Axis.ROLES] = _bits(space.roles, grant.roles)
    axes[Axis.ART6] = _bits(space.art6, art6)
    axes[Axis.RELATIONS] = _bits(space.relations, grant.about)
    if grant.basis.gateways:
        axes[Axis.GATEWAYS] = space.meeting(space.gateways, grant.basis.gateways)
    if grant.case_reference:
        axes[Axis.CASES] = 2
    if grant.threshold is not None:
        lower = (1 << space.thresholds.index(grant.threshold)) - 1
        axes[Axis.THRESHOLDS] &= ~lower
    if grant.recorded_within is not None:
        window = _plain(grant.recorded_within)
        axes[Axis.AGES] = sum(1 << index for index, inside in enumerate(space.ages) if window in inside)
    if not grant.basis.le_authority:
        axes[Axis.REGIMES] = 1
    if grant.break_glass is not None:
        last = space.sessions.index(min(grant.break_glass.ends_after.minutes, _LONGEST)) + 1
        axes[Axis.SESSIONS] = (1 << (last + 1)) - 2
    inside = _inside(vocabulary, grant)
    link = {None: 0b11111, "possible": 0b11100, "match": 0b11000}[grant.link]
    claimed = space.meeting(space.conditions, grant.basis.conditions)
    grouped: dict[tuple[int, int, int], int] = {}
    for category, granted in grant.modes.items():
        body = None if category == RECORD else vocabulary.categories[category]
        if body is not None and body.sector not in agreement.parties[source].discloses:
            continue
        for mode in _MODES:
            if mode > granted or (granted is Mode.AGGREGATE) is not (mode is Mode.AGGREGATE):
                continue
            purposes = inside & _ceiling(vocabulary, category, mode)
            conditions = claimed if body is not None and body.needs_condition(mode) else axes[Axis.CONDITIONS]
            links = link & _LINKS[mode]
            if purposes and conditions and links:
                key = (purposes, conditions, links)
                grouped[key] = grouped.get(key, 0) | space.cell(category, mode)
    found = []
    for (purposes, conditions, links), cells in grouped.items():
        axes[Axis.CELLS], axes[Axis.PURPOSES] = cells, purposes
        axes[Axis.CONDITIONS], axes[Axis.LINKS] = conditions, links
        found.append(tuple(axes))
    return [one for one in found if 0 not in one]


_LINKS: Final[Mapping[Mode, int]] = {
    Mode.EXISTENCE: 0b11100,
    Mode.STATUS: 0b11000,
    Mode.SUMMARY: 0b10000,
    Mode.DETAIL: 0b10000,
    Mode.AGGREGATE: 0b11000,
}
"""The links under which a mode is ever shown: unknown, none, possible, match, certain from the lowest bit."""


def _limit(space: Space, limit: Limit, source: str) -> Cut:
    axes = _held_back(space, limit.categories, limit.at_most, limit.tag, liftable=limit.lift == "break_glass")
    axes[Axis.PURPOSES] = space.purposes_overlapping(limit.purposes)
    return Cut(limit.id, limit.text, space.box(source, axes))


def _restriction(space: Space, rule: Restriction, period: Period) -> Cut:
    axes = _held_back(space, rule.categories, rule.at_most, rule.tag, liftable=rule.lift == "break_glass")
    axes[Axis.PURPOSES] = space.purposes_overlapping(rule.purposes)
    if rule.record is not None:
        axes[Axis.RECORDS] = 2 | 1 << space.records_of(rule.owner).index(rule.record)
    return Cut(rule.ref, rule.text, space.box(rule.owner, axes, period))


def _baseline(space: Space, rule: Baseline, source: str) -> Cut:
    axes = _held_back(space, frozenset(rule.categories), rule.at_most, rule.tag, liftable=False)
    return Cut(rule.id, rule.text, space.box(source, axes))


def _held_back(
    space: Space, categories: frozenset[str], at_most: Mode, tag: str | None, *, liftable: bool
) -> dict[Axis, int]:
    named = space.categories if RECORD in categories else [one for one in space.categories if one in categories]
    cells = sum(
        space.cell(category, mode)
        for category in named
        for mode in _MODES
        if (at_most is Mode.NONE if mode is Mode.AGGREGATE else mode > at_most)
    )
    axes = {Axis.CELLS: cells}
    if tag is not None:
        axes[Axis.TAGS] = space.meeting(space.tags, (tag,))
    if liftable:
        axes[Axis.SESSIONS] = 1
    return axes


def _inside(vocabulary: Vocabulary, grant: Grant) -> int:
    """The request purposes that a clause covers."""
    return _below(vocabulary, grant.purposes) & ~_overlapping(vocabulary, grant.not_purposes)


@lru_cache(maxsize=4096)
def _below(vocabulary: Vocabulary, purposes: frozenset[str]) -> int:
    """The request purposes inside any of these."""
    return _bits(tuple(vocabulary.purposes), frozenset().union(*(vocabulary.down(purpose) for purpose in purposes)))


@lru_cache(maxsize=4096)
def _overlapping(vocabulary: Vocabulary, purposes: frozenset[str] | None) -> int:
    if purposes is None:
        return (1 << len(vocabulary.purposes)) - 1
    below = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in purposes))
    return _bits(tuple(vocabulary.purposes), (asked for asked in vocabulary.purposes if vocabulary.down(asked) & below))


@lru_cache(maxsize=4096)
def _ceiling(vocabulary: Vocabulary, category: str, mode: Mode) -> int:
    """The purposes for which a category may ever be shown at a mode."""
    aggregate = mode is Mode.AGGREGATE
    return _bits(
        tuple(vocabulary.purposes),
        (
            code
            for code, purpose in vocabulary.purposes.items()
            if purpose.aggregate is aggregate and vocabulary.ceiling(code, category) >= mode
        ),
    )


@lru_cache(maxsize=1024)
def _meeting(size: int, members: frozenset[int]) -> int:
    wanted = sum(1 << member for member in members)
    return sum(1 << subset for subset in range(1 << size) if subset & wanted)


@lru_cache(maxsize=64)
def _ages(windows: tuple[Duration, ...]) -> tuple[frozenset[Duration], ...]:
    """Every set of windows that an item can be inside of, the empty one first: which of a month and 30 days is the
    longer hangs on the day."""
    found: dict[frozenset[Duration], None] = {frozenset(): None}
    days = _LEAP_CYCLE if len({window.unit for window in windows}) > 1 else 1
    for number in range(days):
        firsts = {window: window.before(date(2024, 1, 1) + timedelta(days=number)) for window in windows}
        for first in sorted(set(firsts.values())):
            found[frozenset(window for window, begins in firsts.items() if begins <= first)] = None
    return tuple(found)


@lru_cache(maxsize=8192)
def _first_day(window: Duration, day: date) -> date:
    return window.before(day)


def _plain(window: Duration) -> Duration:
    """Years as months, so that equal windows are one."""
    return Duration(window.number * 12, "M") if window.unit == "Y" else window


def _in_order(known: Iterable[str], named: Iterable[str]) -> tuple[str, ...]:
    wanted = set(named)
    return tuple(term for term in known if term in wanted)


def _bits(listed: tuple[str | None, ...], terms: Iterable[str]) -> int:
    return _set_of(listed, frozenset(terms))


@lru_cache(maxsize=8192)
def _set_of(listed: tuple[str | None, ...], wanted: frozenset[str]) -> int:
    return sum(1 << index for index, term in enumerate(listed) if term in wanted)


def _subset(listed: Sequence[str], terms: frozenset[str]) -> int:
    return sum(1 << index for index, term in enumerate(listed) if term in terms)


def _members(listed: Sequence[str], subset: int) -> frozenset[str]:
    return frozenset(term for index, term in enumerate(listed) if subset >> index & 1)


def ones(bits: int) -> Iterator[int]:
    """The positions of the bits that are set, lowest first."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
