"""The literal evaluator: the semantics ("semantics 1"), line by line and slow.

It is the executable specification.  `decision.decide` must equal it; `auditor replay --slow` uses it; `explain` asks it
which tests of a clause failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from agreements.agreement import Agreement, Grant, GrantRef, london_day
from agreements.request import Facts, Held, Link, Request, aware, checked, checked_facts, within_reach
from agreements.restrictions import baseline_applies, caps, limit_applies, restriction_applies, unknown_facts
from agreements.snapshot import Snapshot
from agreements.verdict import Decision, Shown, outcome_of, owed, review_warnings
from agreements.vocabulary import RECORD, Mode, Vocabulary

OF_THE_RECORD: Final = frozenset({"about", "link", "window", "regime"})
"""The tests that only facts of a record can fail."""


@dataclass(frozen=True, slots=True)
class Question:
    """Everything a decision reads.  `facts` is None where only the request is asked about (the asker's projection)."""

    snapshot: Snapshot
    vocabulary: Vocabulary
    request: Request
    facts: Facts | None
    source: str
    at: datetime

    @property
    def aggregate(self) -> bool:
        """Whether this is for statistics, the other axis of modes."""
        return self.vocabulary.purposes[self.request.purpose].aggregate


def decide(snapshot: Snapshot, vocabulary: Vocabulary, request: Request, facts: Facts, at: datetime) -> Decision:
    """As `decision.decide`, clause by clause, category by category, item by item."""
    aware(at, "at")
    within_reach(at, "at")
    checked(request, vocabulary)
    checked_facts(facts, vocabulary)
    q = Question(snapshot=snapshot, vocabulary=vocabulary, request=request, facts=facts, source=facts.source, at=at)
    applied = applying(q, facts)
    gate = any(cap is Mode.NONE and RECORD in categories for _, categories, cap in applied)
    candidates = [] if gate else clauses(q)
    modes: dict[str, Mode] = {}
    shown: dict[str, Shown] = {}
    for category, asked in request.asked.items():
        ceiling = ceiling_of(q, facts, applied, category)
        granted = {
            GrantRef(agreement.ref, grant.id): best
            for agreement, grant in candidates
            if (best := _granted(q, facts, agreement, grant, category))
        }
        modes[category] = mode = min(max(granted.values(), default=Mode.NONE), ceiling, asked)
        if mode:
            able = sorted((ref for ref, best in granted.items() if best >= mode), key=_witness_order(q))
            shown[category] = Shown(mode=mode, under=able[0], also=tuple(able[1:]))

    def reach(category: str, recorded_on: date, regime: str) -> Mode:
        held = Held(recorded_on, regime)
        return min(
            max((clause_mode(q, facts, *clause, category, held) for clause in candidates), default=Mode.NONE),
            ceiling_of(q, facts, applied, category),
            request.asked.get(category, Mode.NONE),
        )

    witnesses = {one.under: grant_of(snapshot, one.under) for one in shown.values()}
    return Decision(
        request=request,
        facts=facts,
        at=at,
        modes=modes,
        shown=shown,
        duties=owed(grant for _, grant in witnesses.values()),
        restrictions=tuple(sorted(name for name, _, _ in applied)),
        warnings=review_warnings((agreement for agreement, _ in witnesses.values()), at),
        unknown=tuple(unknown_facts(facts)),
        unconfirmed=facts.link is Link.POSSIBLE and bool(shown),
        outcome=outcome_of(modes),
        reach=reach,
    )


def clauses(q: Question) -> list[tuple[Agreement, Grant]]:
    """Every clause of every agreement."""
    return [(agreement, grant) for agreement in q.snapshot.agreements for grant in agreement.grants]


def grant_of(snapshot: Snapshot, ref: GrantRef) -> tuple[Agreement, Grant]:
    """The clause of a reference.  Raises KeyError."""
    for agreement in snapshot.agreements:
        if agreement.ref == ref.agreement:
            return agreement, agreement.grant(ref.clause)
    raise KeyError(str(ref))


def _granted(q: Question, facts: Facts, agreement: Agreement, grant: Grant, category: str) -> Mode:
    """The most that one clause gives of a category: the most that any one item held reaches."""
    return max(
        (clause_mode(q, facts, agreement, grant, category, held) for held in holdings(facts, category)),
        default=Mode.NONE,
    )


def holdings(facts: Facts, category: str) -> Sequence[Held | None]:
    """The items that a category stands on; for the bare record all of them, or None: a record without items."""
    if category == RECORD:
        return [held for of_one in facts.held.values() for held in of_one] or [None]
    return facts.held.get(category, ())


def clause_mode(
    q: Question, facts: Facts | None, agreement: Agreement, grant: Grant, category: str, held: Held | None
) -> Mode:
    """What one clause gives of a category for one item, own limits included; none unless every test holds."""
    if failed(q, agreement, grant, category, held):
        return Mode.NONE
    known = facts or Facts(source=q.source)  # without facts, the limits that need none
    return min(given(q, grant, category), own(q, known, agreement, category))


def failed(q: Question, agreement: Agreement, grant: Grant, category: str, held: Held | None) -> tuple[str, ...]:
    """The names of the tests that a clause fails, in a fixed order; those of the record only where facts are given."""
    return (
        *failed_by_request(q, agreement, grant),
        *failed_by_category(q, agreement, grant, category),
        *(failed_by_record(q, q.facts, grant) if q.facts is not None else ()),
        *(failed_by_item(q, grant, held) if q.facts is not None else ()),
    )


def failed_by_request(q: Question, agreement: Agreement, grant: Grant) -> Iterator[str]:
    """Tests of who asks for what, why and when."""
    request, vocabulary = q.request, q.vocabulary
    asked = vocabulary.down(request.purpose)
    recipient = agreement.parties.get(request.organisation)
    if not q.snapshot.standing(agreement, q.source, request.organisation, q.at).live:
        yield "live"
    if request.organisation not in grant.organisations:
        yield "org"
    if request.role not in grant.roles:
        yield "role"
    if not any(request.purpose in vocabulary.down(purpose) for purpose in grant.purposes) or any(
        vocabulary.down(purpose) & asked for purpose in grant.not_purposes
    ):
        yield "purpose"
    closed = "not_public" in vocabulary.art6[request.basis.art6].flags
    if request.basis.art6 not in grant.basis.art6 or (closed and (recipient is None or recipient.public_authority)):
        yield "basis"
    if grant.basis.gateways and not any(
        _in_force(vocabulary, gateway, q.at) for gateway in grant.basis.gateways if gateway in request.basis.gateways
    ):
        yield "gateway"
    if grant.threshold is not None and (
        request.threshold is None or level(vocabulary, request.threshold.level) < level(vocabulary, grant.threshold)
    ):
        yield "threshold"
    if grant.break_glass is not None and not _emergency(request, grant, q.at):
        yield "break_glass"
    if grant.case_reference and request.case is None:
        yield "case"


def failed_by_category(q: Question, agreement: Agreement, grant: Grant, category: str) -> Iterator[str]:
    """Tests of what is asked for: who may give it, and on what condition."""
    source = agreement.parties.get(q.source)
    if (
        q.source not in grant.sources
        or source is None
        or (category != RECORD and q.vocabulary.categories[category].sector not in source.discloses)
    ):
        yield "source"
    if given(q, grant, category) is Mode.NONE:
        yield "condition"


def failed_by_record(q: Question, facts: Facts, grant: Grant) -> Iterator[str]:
    """Tests of whose record it is, and how surely."""
    if grant.case_reference and q.request.case is not None and facts.case != q.request.case:
        yield "case"
    if facts.relation not in grant.about:
        yield "about"
    if grant.link is not None and (
        facts.link is None or facts.link < (Link.MATCH if grant.link == "match" else Link.POSSIBLE)
    ):
        yield "link"


def failed_by_item(q: Question, grant: Grant, held: Held | None) -> Iterator[str]:
    """Tests of one item: how old it is, and under which regime."""
    recorded = held.recorded_on if held else None
    if grant.recorded_within is not None and (
        recorded is None or recorded < grant.recorded_within.before(london_day(q.at))
    ):
        yield "window"
    if (
        held is not None
        and held.regime != "GENERAL"
        and not any(_in_force(q.vocabulary, authority, q.at) for authority in grant.basis.le_authority)
    ):
        yield "regime"


def _in_force(vocabulary: Vocabulary, gateway: str, at: datetime) -> bool:
    """Whether a statute is law already: one that waits for its commencement is from the start of that London day."""
    term = vocabulary.gateways[gateway]
    if "from_commencement" not in term.flags:
        return True
    return term.commences is not None and london_day(at) >= term.commences


def level(vocabulary: Vocabulary, code: str) -> int:
    """How high a threshold stands among the levels."""
    return tuple(vocabulary.thresholds).index(code)


def _emergency(request: Request, grant: Grant, at: datetime) -> bool:
    """Whether an emergency session runs that this clause was signed for."""
    session, terms = request.break_glass, grant.break_glass
    if session is None or terms is None:
        return False
    return session.started <= at < session.started + timedelta(minutes=min(terms.ends_after.minutes, 60))


def given(q: Question, grant: Grant, category: str) -> Mode:
    """The mode the clause names, brought down to one that needs no condition where the request has none it lists."""
    mode = grant.modes.get(category, Mode.NONE)
    if (mode is Mode.AGGREGATE) is not q.aggregate:
        return Mode.NONE
    if category == RECORD or grant.basis.conditions & q.request.basis.conditions:
        return mode
    body = q.vocabulary.categories[category]
    while mode and body.needs_condition(mode):
        mode = Mode.NONE if mode is Mode.AGGREGATE else Mode(mode - 1)
    return mode


def own(q: Question, facts: Facts, agreement: Agreement, category: str) -> Mode:
    """The lowest of the agreement's and its umbrella's limits that apply and name the category or `record`."""
    umbrella = q.snapshot.umbrella(agreement)
    limits = (*agreement.limits, *(umbrella.limits if umbrella else ()))
    return min(
        (
            _on_axis(q, cap)
            for limit in limits
            if limit_applies(limit, q.vocabulary, q.request, facts, q.at) and (cap := caps(limit, category)) is not None
        ),
        default=Mode.AGGREGATE,
    )


Applied = tuple[str, frozenset[str], Mode]


def applying(q: Question, facts: Facts) -> list[Applied]:
    """Standing, subject and baseline restrictions that apply: name, categories, the most each lets show."""
    standing = [
        (restriction.ref, restriction.categories, restriction.at_most)
        for restriction in q.snapshot.restrictions
        if q.snapshot.in_force(restriction, q.at)
        and restriction_applies(restriction, q.vocabulary, q.request, facts, q.at)
    ]
    baseline = [
        (rule.id, frozenset(rule.categories), rule.at_most)
        for rule in q.vocabulary.baseline
        if baseline_applies(rule, facts)
    ]
    return standing + baseline


def ceiling_of(q: Question, facts: Facts, applied: Sequence[Applied], category: str) -> Mode:
    """The lowest of: restrictions that apply, the purpose's ceiling, the link's."""
    restricted = (_on_axis(q, cap) for _, names, cap in applied if category in names or RECORD in names)
    purpose = q.vocabulary.ceiling(q.request.purpose, category)
    return min((purpose, link_ceiling(q, facts), *restricted))


def link_ceiling(q: Question, facts: Facts) -> Mode:
    """A possible match shows existence, a match status, one at the upper bar anything; statistics take matches."""
    if q.aggregate:
        return Mode.AGGREGATE if facts.link is not None and facts.link >= Link.MATCH else Mode.NONE
    cap = {Link.NONE: Mode.NONE, Link.POSSIBLE: Mode.EXISTENCE, Link.MATCH: Mode.STATUS, Link.CERTAIN: Mode.DETAIL}
    return Mode.NONE if facts.link is None else cap[facts.link]


def _on_axis(q: Question, cap: Mode) -> Mode:
    """A cap as the axis asked on knows it: statistics are either allowed or not."""
    return Mode.AGGREGATE if q.aggregate and cap else cap


def _witness_order(q: Question) -> Callable[[GrantRef], tuple[object, ...]]:
    def order(ref: GrantRef) -> tuple[object, ...]:
        agreement, grant = grant_of(q.snapshot, ref)
        newest_first = tuple(-int(part) for part in agreement.version.split("."))
        return (grant.break_glass is not None, len(grant.duties), newest_first, ref.agreement, ref.clause)

    return order
