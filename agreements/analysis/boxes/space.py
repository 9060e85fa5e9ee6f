"""The space of every question that can be asked: what its axes are, and where a question lies in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Final

from agreements.agreement import Duration, Grant, Period, london_day
from agreements.analysis.boxes.algebra import Axes, Axis, Box
from agreements.analysis.boxes.sets import (
    ages_of,
    first_day,
    in_order,
    plain,
    purposes_overlapping,
    subset_of,
    subsets_meeting,
)  # fmt: skip
from agreements.decision.cells import ones
from agreements.request import Facts, Link, Request
from agreements.restrictions import LONGEST_SESSION
from agreements.snapshot import Snapshot
from agreements.vocabulary import CASEWORK, RECORD, Mode, Vocabulary

EVER: Final = Period(datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))
ANOTHER_RECORD: Final = "another"
LONGEST: Final = int(LONGEST_SESSION.total_seconds()) // 60
"""Minutes of the longest emergency session."""

MODES: Final = tuple(Mode)[1:]


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
        windows = tuple(sorted({plain(one.recorded_within) for one in grants if one.recorded_within}, key=str))
        tagged = [*(one.tag for one in limits), *(one.tag for one in rules), *(one.tag for one in vocabulary.baseline)]
        ends = {min(one.break_glass.ends_after.minutes, LONGEST) for one in grants if one.break_glass}
        records: dict[str, set[str]] = {}
        for rule in rules:
            if rule.record is not None:
                records.setdefault(rule.owner, set()).add(rule.record)
        return cls(
            vocabulary=vocabulary,
            conditions=in_order(vocabulary.conditions, (term for one in grants for term in one.basis.conditions)),
            gateways=in_order(vocabulary.gateways, (term for one in grants for term in one.basis.gateways)),
            tags=in_order(vocabulary.tags, (tag for tag in tagged if tag is not None)),
            windows=windows,
            ages=tuple(ages_of(windows)),
            sessions=tuple(sorted(ends | {LONGEST})),
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
            len(self.categories) * len(MODES), len(self.roles), len(self.purposes), len(self.thresholds), 2,
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
        return 1 << (self._position[category] * len(MODES) + mode - 1)

    @cached_property
    def _position(self) -> Mapping[str, int]:
        return {category: index for index, category in enumerate(self.categories)}

    def cells_of(self, bits: int) -> Iterator[tuple[str, Mode]]:
        """The categories at modes of a set."""
        for index in ones(bits):
            yield self.categories[index // len(MODES)], MODES[index % len(MODES)]

    def meeting(self, listed: Sequence[str], terms: Iterable[str]) -> int:
        """The subsets of `listed` that have any of these terms."""
        return subsets_meeting(len(listed), frozenset(listed.index(term) for term in terms))

    def purposes_overlapping(self, purposes: frozenset[str] | None) -> int:
        """The request purposes that meet any of these; all where none are given."""
        return purposes_overlapping(self.vocabulary, purposes)

    @cached_property
    def clauses(self) -> dict[tuple[object, ...], tuple[Grant, list[Axes]]]:
        """The axes of clauses found so far, in whichever estate they stand."""
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
            1 << subset_of(self.conditions, request.basis.conditions),
            1 << subset_of(self.gateways, request.basis.gateways),
            1 << self.relations.index(facts.relation),
            1 << self.links.index(facts.link),
            whole[Axis.AGES],
            whole[Axis.REGIMES],
            1 << (0 if session is None else self._session(at - session.started)),
            1 << subset_of(self.tags, facts.tags | facts.tags_unknown),
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
        inside = frozenset(window for window in self.windows if recorded_on >= first_day(window, day))
        return self.ages.index(inside)

    def _session(self, age: timedelta) -> int:
        if age < timedelta(0):
            return 0
        minutes = age / timedelta(minutes=1)
        return next((index + 1 for index, end in enumerate(self.sessions) if minutes < end), 0)
