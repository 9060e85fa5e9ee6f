"""A snapshot as boxes, and when what it holds is live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from functools import cached_property
from itertools import pairwise
from typing import Final

from agreements.agreement import Agreement, Grant, GrantRef, Period, Restriction, london_day, london_midnight
from agreements.analysis.boxes.algebra import Box, Cut, Given, Pair
from agreements.analysis.boxes.clauses import baseline_box, clause, limit_box, restriction_box
from agreements.analysis.boxes.sets import bits_of, purposes_inside
from agreements.analysis.boxes.space import EVER, Space
from agreements.snapshot import Snapshot


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
            if roles & bits_of(self.space.roles, grant.roles)
            and purposes & purposes_inside(self.space.vocabulary, grant)
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
        umbrella = self.snapshot.umbrella(agreement)
        limits = (*agreement.limits, *(umbrella.limits if umbrella else ()))
        return Given(
            ref=GrantRef(agreement.ref, grant.id),
            agreement=agreement,
            grant=grant,
            boxes=tuple(box for live in periods for box in self._during(agreement, grant, pair, live)),
            cuts=tuple(limit_box(self.space, limit, pair[0]) for limit in limits),
        )

    def _during(self, agreement: Agreement, grant: Grant, pair: Pair, period: Period) -> Iterator[Box]:
        """What one clause gives between a pair in a period, were it live, as its statutes come into force."""
        statutes = grant.basis.gateways | grant.basis.le_authority
        days = {self.space.vocabulary.in_force_from(code) for code in statutes} - {None, date.min}
        begins = {london_midnight(day) for day in days if day is not None}
        instants = [period.start, *sorted(at for at in begins if period.start < at < period.end), period.end]
        for start, end in pairwise(instants):
            if start < end:
                for one in clause(self.space, agreement, grant, pair, london_day(start)):
                    yield Box(one, start, end)

    def supposed(self, agreement: Agreement, grant: Grant, pair: Pair) -> tuple[Box, ...]:
        """What one clause would give between a pair in its period, were it live between them."""
        start, end = max(agreement.period.start, self.period.start), min(agreement.period.end, self.period.end)
        return tuple(self._during(agreement, grant, pair, Period(start, end))) if start < end else ()

    def live(self, agreement: Agreement, pair: Pair) -> tuple[Period, ...]:
        """When an agreement is live between a pair."""
        key = (agreement.ref, *pair)
        if (known := self._live.get(key)) is None:
            known = self._live[key] = live_periods(self.snapshot, agreement, pair)
        return known

    def cuts(self, source: str) -> tuple[Cut, ...]:
        """What restrictions of a source and the baseline take away, whoever asks."""
        if (known := self._cuts.get(source)) is None:
            rules = [baseline_box(self.space, rule, source) for rule in self.space.vocabulary.baseline]
            for restriction in self.snapshot.restrictions:
                if restriction.owner == source:
                    rules += [
                        restriction_box(self.space, restriction, period)
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
