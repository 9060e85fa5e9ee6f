"""Agreements and restrictions: frozen, valid once built, in the words that were signed.

`document.read` is the way from TOML to these types; a test may build them directly.  They never change: decisions cite
them for years; to amend is to sign anew.
"""

from __future__ import annotations

import hashlib
import json
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final, Literal, NewType
from zoneinfo import ZoneInfo

from agreements.vocabulary import RECORD, Mode

AgencyId = NewType("AgencyId", str)
LONDON = ZoneInfo("Europe/London")
FIRST_DAY: Final = date(1990, 1, 1)
LAST_DAY: Final = date(2199, 12, 31)
"""Between these lie all days that a document may name, and all instants that are decided on."""


class InvalidAgreement(ValueError):
    """A clause that can't be held; the message says which and what to write instead."""


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open instants in UTC, start <= at < end.  London days become instants once, on reading."""

    start: datetime
    end: datetime

    @classmethod
    def of_days(cls, first: date, last: date) -> Period:
        """From midnight in London as `first` begins to midnight as `last` ends.

        Raises InvalidAgreement for the last day that a calendar of four digits has: no day follows it.
        """
        if last == date.max:
            raise InvalidAgreement("a period that ends on 9999-12-31 has no end")
        return cls(london_midnight(first), london_midnight(last + timedelta(days=1)))

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end


def london_midnight(day: date) -> datetime:
    """The instant at which a London day begins, in UTC."""
    return datetime.combine(day, time(), tzinfo=LONDON).astimezone(UTC)


def london_day(at: datetime) -> date:
    """The day it is in London at an instant; at the ends of the calendar, its first or last."""
    try:
        return at.astimezone(LONDON).date()
    except OverflowError:
        return date.min if at.year < FIRST_DAY.year else date.max


@dataclass(frozen=True, slots=True)
class Duration:
    """A whole number of one unit, as in "P28D", "PT60M" or "P2Y"; a year or a month is a calendar one."""

    number: int
    unit: Literal["Y", "M", "D", "TM"]

    def before(self, day: date) -> date:
        """The day this long before another; 29 February less a year is 28 February.  Never before the first day that
        a calendar has."""
        if self.unit == "D":
            return date.fromordinal(max(day.toordinal() - self.number, 1))
        if self.unit == "TM":
            raise InvalidAgreement("minutes don't count back from a day")
        months = day.year * 12 + day.month - 1 - self.number * (12 if self.unit == "Y" else 1)
        year, month = divmod(months, 12)
        if year < date.min.year:
            return date.min
        for last in (day.day, 30, 29, 28):
            try:
                return date(year, month + 1, min(day.day, last))
            except ValueError:
                continue
        raise InvalidAgreement("no such day")

    @property
    def minutes(self) -> int:
        """How long an emergency session may last.  Raises InvalidAgreement for what is not in minutes."""
        if self.unit != "TM":
            raise InvalidAgreement("a session is in minutes")
        return self.number

    def never_longer(self, other: Duration) -> bool:
        """Whether it is over no later than another from whichever instant both run, forwards or backwards.

        Neither of a month and 30 days is: from 1 February the month is over first, from 1 March the days.
        """
        if (self.unit == "TM") is (other.unit == "TM"):
            if self._months and other._months:
                return self._months <= other._months
            return self._days[1] <= other._days[0]
        # A day is of 23 hours when clocks are put forward, and of 25 when they are put back.
        if self.unit == "TM":
            return self.number <= other._days[0] * 1440 - 60
        return self._days[1] * 1440 + 60 <= other.number

    @property
    def _months(self) -> int:
        return self.number * {"Y": 12, "M": 1, "D": 0, "TM": 0}[self.unit]

    @property
    def _days(self) -> tuple[int, int]:
        """The fewest and the most of its unit, or for months and years of days, that it can last."""
        return _days_of(self._months) if self._months else (self.number, self.number)

    def __str__(self) -> str:
        return f"PT{self.number}M" if self.unit == "TM" else f"P{self.number}{self.unit}"


@lru_cache(maxsize=1024)
def _days_of(months: int) -> tuple[int, int]:
    """The fewest and the most days of so many months, counted from any day on or back: a calendar repeats itself
    after 400 years."""
    lengths = [monthrange(2000 + month // 12, month % 12 + 1)[1] for month in range(_CYCLE)]
    starts = [0, *accumulate(lengths)]
    every = set()
    for month, length in enumerate(lengths):
        cycles, then = divmod(month + months, _CYCLE)
        across = cycles * starts[-1] + starts[then] - starts[month]
        # From a day that the other month lacks, it is the other's last day: shorter forwards, longer backwards.
        shorter = max(0, length - lengths[then])
        longer = max(0, lengths[then] - length)
        every |= {across - shorter, across, across + longer}
    return min(every), max(every)


_CYCLE: Final = 400 * 12


@dataclass(frozen=True, slots=True, order=True)
class GrantRef:
    """One clause of one signed agreement: "northshire-mash@3.0.0#health-cp"."""

    agreement: str  # id@version
    clause: str

    def __str__(self) -> str:
        return f"{self.agreement}#{self.clause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A signatory: an organisation, whether the law calls it a public authority, and the sectors it discloses."""

    id: str
    public_authority: bool
    discloses: frozenset[str]
    signs_as: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What whoever receives must do, or the broker does for them."""

    do: str
    after: str | None = None
    within: Duration | None = None
    notify: tuple[str, ...] = ()
    working_days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantBasis:
    """The lawful bases under which a clause may be used."""

    art6: frozenset[str]
    conditions: frozenset[str] = frozenset()
    gateways: frozenset[str] = frozenset()
    le_authority: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlassTerms:
    """What a source signed for beforehand: an emergency session with a reason, an end, people told, a review."""

    ends_after: Duration
    notify: tuple[str, ...]
    review_within_working_days: int

    def __post_init__(self) -> None:
        if self.ends_after.unit != "TM":
            raise InvalidAgreement("an emergency session ends after minutes, as PT60M")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One clause that gives.  It is a box: a product of finite sets times one time interval."""

    id: str
    text: str
    sources: frozenset[str]
    organisations: frozenset[str]
    roles: frozenset[str]
    purposes: frozenset[str]  # as written; `down` is taken when it is read
    not_purposes: frozenset[str] = frozenset()
    basis: GrantBasis
    about: frozenset[str]
    case_reference: bool = False
    threshold: str | None = None
    link: Literal["possible", "match"] | None = None
    recorded_within: Duration | None = None
    break_glass: BreakGlassTerms | None = None
    modes: Mapping[str, Mode]
    duties: tuple[Duty, ...] = ()

    def __post_init__(self) -> None:
        if Mode.NONE in self.modes.values():
            raise InvalidAgreement(f"{self.id}: a grant can't show nothing; to hold back, write a limit")
        if self.modes.get(RECORD, Mode.EXISTENCE) is not Mode.EXISTENCE:
            raise InvalidAgreement(f"{self.id}: the bare record is shown at existence only")
        if self.recorded_within is not None and self.recorded_within.unit == "TM":
            raise InvalidAgreement(f"{self.id}: a window is in days or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One clause that holds back, within its own agreement."""

    id: str
    text: str
    tag: str | None
    categories: frozenset[str]  # may be "record": every category
    at_most: Mode
    purposes: frozenset[str] | None = None  # None: every purpose
    lift: Literal["never", "break_glass"] = "never"


@dataclass(frozen=True, slots=True)
class DocumentRef:
    """A document and the digest that was signed."""

    ref: str  # id@version
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A data sharing agreement, or (without grants) an umbrella, whose period and limits bind those under it."""

    id: str
    version: str
    title: str
    under: DocumentRef | None
    vocabulary: DocumentRef
    period: Period
    review: datetime | None  # the instant from which a review is overdue
    if_review_overdue: Literal["warn", "suspend"]
    parties: Mapping[str, Party]
    limits: tuple[Limit, ...]
    grants: tuple[Grant, ...]
    canonical: bytes = field(repr=False)  # the RFC 8785 form that is signed
    digest: str = field(init=False, repr=False, compare=False)  # SHA-256 of the canonical form, lower-case hex

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self.canonical).hexdigest())

    @property
    def ref(self) -> str:
        """As decisions cite it: "northshire-mash@3.0.0"."""
        return f"{self.id}@{self.version}"

    @property
    def body(self) -> dict[str, Any]:
        """All that was signed, what is evaluated and what only describes, as JSON."""
        body: dict[str, Any] = json.loads(self.canonical)
        return body

    def grant(self, clause: str) -> Grant:
        """One of its grants.  Raises KeyError."""
        for grant in self.grants:
            if grant.id == clause:
                return grant
        raise KeyError(clause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """A source's own rule, a court order or a seal: signed by its owner alone, and it binds every agreement."""

    id: str
    version: str
    vocabulary: DocumentRef
    owner: str
    authority: str
    text: str
    period: Period
    record: str | None  # one record of the owner; None: every one
    tag: str | None
    purposes: frozenset[str] | None
    categories: frozenset[str]
    at_most: Mode
    lift: Literal["never", "break_glass"] = "never"
    canonical: bytes = field(repr=False)  # the RFC 8785 form that is signed
    digest: str = field(init=False, repr=False, compare=False)  # SHA-256 of the canonical form, lower-case hex

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self.canonical).hexdigest())

    @property
    def ref(self) -> str:
        """As decisions cite it: "northshire-icb-r12@1.0.0"."""
        return f"{self.id}@{self.version}"


Document = Agreement | Restriction
