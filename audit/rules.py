"""What in the log a person should look at: rules over events, each with its words, its version and its figures.

A rule says that an event is unlike what it should be, never that somebody did wrong: it puts the event before a
reviewer.  Rules see codes, counts and opaque ids, and nothing that anybody typed.  A rule that needs facts which nobody
hands in finds nothing, and `REGISTER` says so, with the reason: what is not measured is never shown as quiet.

Figures are whole numbers, compared without rounding, so that whoever runs the same rules over the same events finds the
same.  Thresholds are data (`Thresholds`): the defaults below, and every change of them since.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from audit.events import InvalidEvent

LONDON: Final = ZoneInfo("Europe/London")
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
BASELINE_DAYS: Final = 90
LOOKBACK_MS: Final = 48 * HOUR_MS  # how far before its window `evaluate` wants acts; no threshold may ask for more
SATURDAY: Final = 5

LOOKS: Final = frozenset(
    {"search.authorised", "disclosure.authorised", "breakglass.opened", "breakglass.used", "request.sent"}
)
"""By what a person asks about somebody."""
REFUSED: Final = frozenset({"search.refused", "disclosure.refused", "threshold.refused"})
SEARCHES: Final = frozenset({"search.authorised", "search.refused"})
REVIEWED: Final = frozenset({"audit.reviewed", "breakglass.reviewed"})
TAKEN_OUT: Final = frozenset(
    {"audit.exported", "audit.report_issued", "subject.report_issued", "statistics.opened", "statistics.disclosed"}
)
"""By what something leaves as a file."""
CONSIDERED: Final = LOOKS | REFUSED | REVIEWED | TAKEN_OUT | {"breakglass.closed"}
"""The types of events that any rule looks at: what the rules themselves cause is not among them."""


class UnknownThreshold(InvalidEvent):
    """There is no such rule or threshold, or its value lies outside what it may be."""


class Actor(NamedTuple):
    """A person who acts, in the name of an organisation."""

    organisation: str
    person: str


Figures: TypeAlias = Mapping[str, int]
Pair: TypeAlias = tuple[Actor, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One event, as far as a rule may see it.  Subjects, case and query are opaque."""

    event_id: str
    t_ms: int
    type: str
    organisation: str
    person: str
    role: str = ""
    purpose: str = ""
    case: str = ""
    subjects: frozenset[str] = frozenset()  # persons who were shown
    fields: frozenset[str] = frozenset()  # of a search: which were given
    query: frozenset[str] = frozenset()  # of a search: by what it is held against another
    listed: int | None = None  # of a search: how many were shown; None where it is none
    concerns: str = ""  # the event that this one is about: what it closes, or reviews
    reviewed: str = ""  # of a review: whose act it is of

    @property
    def actor(self) -> Actor:
        """Who acted."""
        return Actor(self.organisation, self.person)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFacts:
    """What is known of a case: the teams it is allocated to, and when it was closed."""

    teams: frozenset[str]
    closed_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known of the time before the window, of those who act in it.

    `hours`: distinct persons shown by one type of event, of each hour of the baseline in which there were any; whoever
    was shown for two purposes counts twice.
    `purposes`: looks by purpose, over the baseline.  `seen`: which persons each was shown before, of those who are
    shown in the window.  `reviews`: whose acts a reviewer has looked at, oldest first.  `cases` and `teams`: None where
    nobody tells of them.
    """

    hours: Mapping[tuple[Actor, str], Sequence[int]] = field(default_factory=dict)
    purposes: Mapping[Actor, Mapping[str, int]] = field(default_factory=dict)
    last_ms: Mapping[Actor, int] = field(default_factory=dict)
    seen: Collection[Pair] = frozenset()
    reviews: Mapping[Actor, Sequence[str]] = field(default_factory=dict)
    cases: Mapping[str, CaseFacts] | None = None
    teams: Mapping[Actor, frozenset[str]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule's finding on an event: which version of the rule, and the figures by which."""

    event_id: str
    t_ms: int
    rule: str
    version: int
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule as its register shows it.  `unmeasured`: why it finds nothing here; empty where it is measured."""

    id: str
    words: str
    version: int = 1
    thresholds: Figures = field(default_factory=dict)
    by_role: bool = False  # a threshold may be another for a role: "ROLE.name"
    unmeasured: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a threshold."""

    rule: str
    name: str
    value: int


_ON: Final = "on"  # 0 turns a rule off
_MOST: Final = 100_000
_WINDOWS: Final = {"minutes": LOOKBACK_MS // 60_000, "hours": LOOKBACK_MS // HOUR_MS, "percent": 100, _ON: 1}
_LEAST: Final = {_ON: 0, "from_hour": 0, "to_hour": 0, "weekends": 0}
_NO_REGISTER: Final = (
    "No gateway tells the broker yet which cases are open and whose they are: the broker sees a case as a keyed token."
)
_NO_TOKENS: Final = (
    "The broker holds no name, address or record of the staff who ask, not even encoded: a gateway names a person by "
    "an opaque id. It needs a staff register that each organisation encodes as it does its records, compared inside "
    "the linkage; until then the organisation checks this at its own gateway."
)


class _Window:
    """The acts there are, and how rules walk them."""

    def __init__(self, acts: Iterable[Act], past: Past, since_ms: int, until_ms: int) -> None:
        self.acts = sorted({act.event_id: act for act in acts}.values(), key=lambda act: (act.t_ms, act.event_id))
        self.past = past
        self.since_ms = since_ms
        self.until_ms = until_ms

    def of(self, types: Collection[str]) -> Iterator[Act]:
        """The acts of the window itself of some types, in order."""
        return (act for act in self.acts if act.type in types and self.since_ms <= act.t_ms < self.until_ms)

    def by_actor(self, types: Collection[str]) -> Mapping[Actor, list[Act]]:
        """Those of some types of each who acted, in order, from before the window on."""
        found: dict[Actor, list[Act]] = defaultdict(list)
        for act in self.acts:
            if act.type in types and act.person and act.t_ms < self.until_ms:
                found[act.actor].append(act)
        return found

    def holds(self, act: Act) -> bool:
        """Whether the act is of the window, not from before it."""
        return self.since_ms <= act.t_ms < self.until_ms


Found: TypeAlias = Iterator[tuple[Act, Figures]]
Terms: TypeAlias = Callable[..., int]


def _no_case(window: _Window, terms: Terms) -> Found:
    return ((act, {}) for act in window.of(LOOKS) if not act.case)


def _unknown_case(window: _Window, terms: Terms) -> Found:
    cases = window.past.cases
    if cases is not None:
        yield from ((act, {}) for act in window.of(LOOKS) if act.case and act.case not in cases)


def _case_of_another_team(window: _Window, terms: Terms) -> Found:
    cases, teams = window.past.cases, window.past.teams
    if cases is None or teams is None:
        return
    for act in window.of(LOOKS):
        case, own = cases.get(act.case), teams.get(act.actor)
        if case is not None and own is not None and case.teams and case.teams.isdisjoint(own):
            yield act, {}


def _after_closure(window: _Window, terms: Terms) -> Found:
    for act in window.of(LOOKS):
        case = (window.past.cases or {}).get(act.case)
        if case is not None and case.closed_ms is not None and act.t_ms >= case.closed_ms + terms("days") * DAY_MS:
            yield act, {"days": (act.t_ms - case.closed_ms) // DAY_MS}


def _out_of_hours(window: _Window, terms: Terms) -> Found:
    for act in window.of(LOOKS):
        at = datetime.fromtimestamp(act.t_ms / 1000, UTC).astimezone(LONDON)
        within = terms("from_hour", act.role) <= at.hour < terms("to_hour", act.role)
        if not within or (at.weekday() >= SATURDAY and not terms("weekends", act.role)):
            yield act, {"hour": at.hour, "weekday": at.isoweekday()}


def _burst(window: _Window, terms: Terms) -> Found:
    """On the act by which a clock hour passes what is usual, once an hour, person and type of event.

    Whoever was looked at for two purposes counts twice, as in the baseline.
    """
    for actor, acts in window.by_actor(LOOKS).items():
        shown: dict[tuple[str, int], set[tuple[str, str]]] = defaultdict(set)
        passed: set[tuple[str, int]] = set()
        for act in acts:
            place = (act.type, act.t_ms // HOUR_MS)
            shown[place] |= {(act.purpose, one) for one in act.subjects}
            count = len(shown[place])
            hours = window.past.hours.get((actor, act.type), ())
            if place in passed or not (count > terms("an_hour") or _unusual(count, hours, terms)):
                continue
            passed.add(place)
            if window.holds(act):
                yield act, {"persons": count, "hours": len(hours), "total": sum(hours)}


def _unusual(count: int, hours: Sequence[int], terms: Terms) -> bool:
    """Whether a count is more than so many standard deviations above the mean of the hours: in whole numbers."""
    number = len(hours)
    if count < terms("least") or number < terms("least_hours"):
        return False
    total, squares = sum(hours), sum(each * each for each in hours)
    above = count * number - total
    return above > 0 and above * above > terms("deviations") ** 2 * (number * squares - total * total)


def _first_pair(window: _Window, terms: Terms) -> Found:
    """Everybody's first look at a child is a first: what counts is that it is also for what the person hardly does."""
    met: set[Pair] = set()
    for act in window.acts:
        if act.type not in LOOKS or not act.subjects or act.t_ms >= window.until_ms:
            continue
        fresh = [
            one for one in act.subjects if (act.actor, one) not in met and (act.actor, one) not in window.past.seen
        ]
        met.update((act.actor, one) for one in act.subjects)
        usual = window.past.purposes.get(act.actor, {})
        total, same = sum(usual.values()), usual.get(act.purpose, 0)
        if fresh and window.holds(act) and total >= terms("least") and same * 100 < terms("percent") * total:
            yield act, {"persons": len(fresh), "of_purpose": same, "looks": total}


def _refused_then_break_glass(window: _Window, terms: Terms) -> Found:
    for acts in window.by_actor(REFUSED | {"breakglass.opened"}).values():
        refused = [act.t_ms for act in acts if act.type in REFUSED]
        for act in acts:
            if act.type == "breakglass.opened" and window.holds(act):
                since = act.t_ms - terms("hours") * HOUR_MS
                count = bisect_left(refused, act.t_ms) - bisect_left(refused, since)
                if count >= terms("refusals"):
                    yield act, {"refusals": count}


def _not_closed(window: _Window, terms: Terms) -> Found:
    """Found when its time is up: so an opening is from before the window, and its deadline is in it."""
    due_ms = terms("hours") * HOUR_MS
    closed: dict[str, list[int]] = defaultdict(list)
    for act in window.acts:
        if act.type == "breakglass.closed" and act.concerns:
            closed[act.concerns].append(act.t_ms)
    for act in window.acts:
        due = act.t_ms + due_ms
        ended = act.type == "breakglass.opened" and window.since_ms <= due < window.until_ms
        if ended and not any(act.t_ms <= at <= due for at in closed[act.event_id]):
            yield act, {"hours": terms("hours")}


def _fishing(window: _Window, terms: Terms) -> Found:
    """On the search that makes it so many within the time, each nearly but not quite like the last."""
    for acts in window.by_actor(SEARCHES).values():
        asked = [act for act in acts if act.query]
        for number, act in enumerate(asked):
            since = act.t_ms - terms("minutes") * 60_000
            like = sum(
                earlier.t_ms >= since
                and earlier.query != act.query
                and _alike(earlier.query, act.query, terms("percent"))
                for earlier in asked[:number]
            )
            if like + 1 >= terms("searches") and window.holds(act):
                yield act, {"alike": like + 1}


def _alike(left: frozenset[str], right: frozenset[str], percent: int) -> bool:
    return 100 * len(left & right) >= percent * min(len(left), len(right))


def _widened(window: _Window, terms: Terms) -> Found:
    """Several searches that listed nobody, then one that asks less of a child than one of them did."""
    for acts in window.by_actor(SEARCHES).values():
        asked = [act for act in acts if act.listed is not None]
        for number, act in enumerate(asked):
            since = act.t_ms - terms("minutes") * 60_000
            empty = [one for one in asked[:number] if one.t_ms >= since and one.listed == 0]
            if len(empty) >= terms("empty") and window.holds(act) and any(act.fields < one.fields for one in empty):
                yield act, {"empty": len(empty), "fields": len(act.fields)}


def _dormant(window: _Window, terms: Terms) -> Found:
    """A new account is not dormant: it is not known from before."""
    for actor, acts in window.by_actor(LOOKS | REFUSED).items():
        last = window.past.last_ms.get(actor)
        for act in acts:
            if last is not None and act.t_ms - last > terms("days") * DAY_MS and window.holds(act):
                yield act, {"days": (act.t_ms - last) // DAY_MS}
            last = act.t_ms if last is None else max(last, act.t_ms)


def _same_colleague(window: _Window, terms: Terms) -> Found:
    """Once a window and reviewer."""
    for actor, acts in window.by_actor(REVIEWED).items():
        reviewed = list(window.past.reviews.get(actor, ()))
        for act in acts:
            if not window.holds(act):
                continue
            reviewed.append(act.reviewed)
            last = reviewed[-terms("reviews") :]
            _, most = Counter(last).most_common(1)[0]
            if len(last) >= terms("reviews") and most * 100 >= terms("percent") * len(last):
                yield act, {"reviews": len(last), "of_one": most}
                break


def _taken_out(window: _Window, terms: Terms) -> Found:
    """On the file by which a clock hour passes the number, once an hour and person."""
    for acts in window.by_actor(TAKEN_OUT).values():
        counts: Counter[int] = Counter()
        for act in acts:
            hour = act.t_ms // HOUR_MS
            counts[hour] += 1
            if counts[hour] == terms("an_hour") + 1 and window.holds(act):
                yield act, {"files": counts[hour]}


def _purposes_moved(window: _Window, terms: Terms) -> Found:
    """On the last look of the window: how far its purposes are from those of the baseline, as total variation."""
    for actor, acts in window.by_actor(LOOKS).items():
        held = [act for act in acts if window.holds(act)]
        before = window.past.purposes.get(actor, {})
        then, now = sum(before.values()), len(held)
        if not held or min(then, now) < terms("least"):
            continue
        counts = Counter(act.purpose for act in held)
        moved = sum(max(0, count * then - before.get(purpose, 0) * now) for purpose, count in counts.items())
        if moved * 100 > terms("percent") * then * now:
            yield held[-1], {"moved_percent": moved * 100 // (then * now), "looks": now, "before": then}


_RULES: Final[tuple[tuple[Rule, Callable[[_Window, Terms], Found]], ...]] = (
    (Rule(id="no_case", words="A look without a case reference."), _no_case),
    (
        Rule(id="unknown_case", words="The case reference is none that is known.", unmeasured=_NO_REGISTER),
        _unknown_case,
    ),
    (
        Rule(
            id="case_of_another_team", words="The case is not allocated to the team of whoever looked.",
            unmeasured=_NO_REGISTER,
        ),
        _case_of_another_team,
    ),
    (
        Rule(
            id="after_closure", words="A look under a case that had been closed.", thresholds={"days": 0},
            unmeasured=_NO_REGISTER,
        ),
        _after_closure,
    ),
    (
        Rule(
            id="out_of_hours", words="A look outside the hours in which this role works, in London.",
            thresholds={
                "from_hour": 7, "to_hour": 20, "weekends": 0, "UNSCHED_CLINICIAN.from_hour": 0,
                "UNSCHED_CLINICIAN.to_hour": 24, "UNSCHED_CLINICIAN.weekends": 1,
            },
            by_role=True,
        ),
        _out_of_hours,
    ),
    (
        Rule(
            id="burst",
            words="More distinct persons in an hour than a fixed number, or than is usual for whoever looked over "
            "their own 90 days.",
            thresholds={"an_hour": 60, "deviations": 3, "least": 8, "least_hours": 20},
        ),
        _burst,
    ),
    (
        Rule(
            id="first_pair",
            words="The first look of this person at this child, and for a purpose that this person hardly ever has.",
            thresholds={"least": 20, "percent": 5},
        ),
        _first_pair,
    ),
    (
        Rule(
            id="refused_then_break_glass", words="Break-glass after several refusals.",
            thresholds={"refusals": 3, "hours": 24}
        ),
        _refused_then_break_glass,
    ),
    (
        Rule(
            id="break_glass_not_closed", words="Break-glass that nobody closed in time.", thresholds={"hours": 24},
        ),
        _not_closed,
    ),
    (
        Rule(
            id="fishing", words="Several searches in a row that are nearly but not quite the same.",
            thresholds={"searches": 4, "minutes": 60, "percent": 30},
        ),
        _fishing,
    ),
    (
        Rule(
            id="widened", words="A wider search after several that listed nobody.",
            thresholds={"empty": 3, "minutes": 60},
        ),
        _widened,
    ),
    (
        Rule(id="dormant", words="An account that had not been used for long.", thresholds={"days": BASELINE_DAYS}),
        _dormant,
    ),
    (
        Rule(
            id="same_colleague", words="A reviewer who reviews hardly anybody but one colleague.",
            thresholds={"reviews": 10, "percent": 80},
        ),
        _same_colleague,
    ),
    (
        Rule(id="taken_out", words="Many exports and reports in an hour.", thresholds={"an_hour": 10}),
        _taken_out,
    ),
    (
        Rule(
            id="purposes_moved", words="The purposes of one person's looks are not what they were.",
            thresholds={"least": 20, "percent": 50},
        ),
        _purposes_moved,
    ),
)  # fmt: skip

NOT_HERE: Final = (
    Rule(id="own_record", words="A look at one's own record.", unmeasured=_NO_TOKENS),
    Rule(id="own_family", words="A look at one's own family or household.", unmeasured=_NO_TOKENS),
    Rule(id="same_surname", words="A look at somebody of the same surname.", unmeasured=_NO_TOKENS),
    Rule(id="own_address", words="A look at one's own address, or a neighbour's.", unmeasured=_NO_TOKENS),
    Rule(id="colleague", words="A look at a colleague's record, or at a former one's.", unmeasured=_NO_TOKENS),
    Rule(
        id="public_interest", words="A look at a child whom the press writes about.",
        unmeasured="Nobody tells the broker which children these are, and it keeps no list of them.",
    ),
)  # fmt: skip
"""What other systems measure, and this one can't: listed so that nobody takes silence for a clean bill."""

REGISTER: Final[Mapping[str, Rule]] = MappingProxyType(
    {rule.id: rule for rule in (*(rule for rule, _ in _RULES), *NOT_HERE)}
)
"""Every rule by its id, those that are not measured with the reason."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds in force: rule, name, value."""

    values: Mapping[str, Figures]

    @classmethod
    def of(cls, changes: Iterable[Change] = ()) -> Thresholds:
        """The defaults with these changes, oldest first.  Raises UnknownThreshold."""
        values = {rule.id: {_ON: 1, **rule.thresholds} for rule, _ in _RULES}
        for change in changes:
            check_change(change)
            values[change.rule][change.name] = change.value
        return cls(values)

    def value(self, rule: str, name: str, role: str = "") -> int:
        """A threshold, as it is for a role."""
        of_rule = self.values[rule]
        return of_rule.get(f"{role}.{name}", of_rule[name])


def check_change(change: Change) -> None:
    """Return if this is a threshold of a rule, and the value one it may have.  Raises UnknownThreshold."""
    rule = next((rule for rule, _ in _RULES if rule.id == change.rule), None)
    if rule is None:
        raise UnknownThreshold(f"rule: one of {', '.join(rule.id for rule, _ in _RULES)}")
    role, dot, plain = change.name.rpartition(".")
    if plain not in {_ON, *rule.thresholds} or (dot and not (rule.by_role and role.isupper() and plain != _ON)):
        raise UnknownThreshold(f"name: one of {', '.join([_ON, *rule.thresholds])}")
    most = {"from_hour": 24, "to_hour": 24, "weekends": 1}.get(plain, _WINDOWS.get(plain, _MOST))
    least = 0 if rule.id == "after_closure" else _LEAST.get(plain, 1)
    if not least <= change.value <= most:
        raise UnknownThreshold(f"value: from {least} to {most}")


def evaluate(
    acts: Iterable[Act], past: Past, thresholds: Thresholds, *, since_ms: int, until_ms: int
) -> tuple[Finding, ...]:
    """What the rules find in `since_ms` <= t < `until_ms`, by time, event and rule; in whatever order acts come.

    `acts` reach back to `LOOKBACK_MS` before the window; what is found then was the window's before this one.  Rules
    that count by the clock hour find each once if windows end on full hours.
    """
    window = _Window(acts, past, since_ms, until_ms)
    found: dict[tuple[int, str, str], Finding] = {}
    for rule, look in _RULES:
        if not thresholds.value(rule.id, _ON):
            continue

        def terms(name: str, role: str = "", *, of: str = rule.id) -> int:
            return thresholds.value(of, name, role)

        for act, figures in look(window, terms):
            found[act.t_ms, act.event_id, rule.id] = Finding(
                event_id=act.event_id, t_ms=act.t_ms, rule=rule.id, version=rule.version, figures=figures
            )
    return tuple(found[place] for place in sorted(found))
