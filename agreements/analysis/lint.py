"""What to look at in an estate: clauses that are dead, doubled, too wide or held back, and what nobody shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Final, Literal

from agreements.agreement import Agreement, Duration, Grant, GrantRef, Period, london_day
from agreements.analysis.boxes import (
    EVER,
    Axis,
    Box,
    Estate,
    Given,
    Pair,
    Space,
    live_periods,
    ones,
    without,
    without_given,
)
from agreements.analysis.sight import unconditional
from agreements.lifecycle import last_day, version_of, warnings
from agreements.snapshot import Snapshot
from agreements.vocabulary import RECORD, Mode, Vocabulary
from agreements.words import listed

Kind = Literal["unreachable", "shadowed", "ceiling-dead", "over-broad", "conflict", "gap", "calendar"]
KINDS: Final[tuple[Kind, ...]] = (
    "unreachable", "shadowed", "ceiling-dead", "over-broad", "conflict", "gap", "calendar",
)  # fmt: skip
ORGANISATIONS: Final = 6
"""More recipients of one clause than this are looked at."""
POINTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something to look at.  A `note` may well be meant; a `warning` asks for an answer."""

    kind: Kind
    severity: Literal["warning", "note"]
    ref: str  # a clause, an agreement or a restriction
    message: str
    fix: str


def lint(
    snapshot: Snapshot,
    vocabulary: Vocabulary,
    *,
    at: datetime,
    feeds: Mapping[str, AbstractSet[str]] | None = None,
    staff: Mapping[str, AbstractSet[str]] | None = None,
    flows: Mapping[str, AbstractSet[str]] | None = None,
    organisations: int = ORGANISATIONS,
    kinds: Iterable[Kind] = KINDS,
) -> tuple[Remark, ...]:
    """All remarks on what holds from `at` on, in the order of `KINDS`.

    `feeds`: by source, the categories that have ever arrived; `staff`: by organisation, the roles anybody has there;
    `flows`: by source, the sectors that it has a flow for, sources that nobody knows left out.  Without them nothing is
    said of clauses that nobody feeds or uses.  Nothing is said of versions in whose place a newer one stands.
    """
    snapshot = snapshot.only(_unreplaced(snapshot, at))
    space = Space.of(vocabulary, snapshot)
    estate = Estate(space, snapshot, period=Period(at, EVER.end))
    wanted = set(kinds)
    found: list[Remark] = []
    if "unreachable" in wanted:
        found += _unreachable(estate, at, feeds, staff)
        found += _flowless(snapshot, at, flows or {})
    if "shadowed" in wanted:
        found += (_shadowed(ref, by) for ref, by in shadowed(estate).items())
    if "ceiling-dead" in wanted:
        found += _ceiling_dead(estate)
    if "over-broad" in wanted:
        found += _over_broad(estate, at, organisations)
    if "conflict" in wanted:
        found += _conflicts(estate)
    if "gap" in wanted:
        found += _gaps(estate, at)
    if "calendar" in wanted:
        found += _calendar(snapshot, at)
    return tuple(found)


def _unreplaced(snapshot: Snapshot, at: datetime) -> set[str]:
    """The digests of all documents but agreements, and umbrellas of such alone, whose place a newer version has."""
    newest = _newest(one for one in snapshot.agreements if one.period.end > at)
    left = {event.digest for event in snapshot.events if event.do == "supersede"}

    def over(one: Agreement) -> bool:
        if not _older(one, newest) or one.period.end <= at:
            return _older(one, newest)
        pairs = {pair for grant in one.grants for pair in pairs_of(grant)}
        return one.digest in left and all(
            live.end <= at for pair in pairs for live in live_periods(snapshot, one, pair)
        )

    kept = [one for one in snapshot.agreements if not (one.grants and over(one))]
    pinned = {one.under.digest for one in kept if one.under}
    return {one.digest for one in snapshot.restrictions} | {
        one.digest for one in kept if one.grants or one.digest in pinned or not _older(one, newest)
    }


def _newest(agreements: Iterable[Agreement]) -> Mapping[str, tuple[int, ...]]:
    """The newest version of each id."""
    found: dict[str, tuple[int, ...]] = {}
    for one in agreements:
        found[one.id] = max(version_of(one.ref), found.get(one.id, ()))
    return found


def _older(one: Agreement, newest: Mapping[str, tuple[int, ...]]) -> bool:
    return version_of(one.ref) < newest.get(one.id, ())


def clauses(snapshot: Snapshot) -> Iterator[tuple[Agreement, Grant, GrantRef]]:
    """Every clause with its agreement and reference."""
    for agreement in snapshot.agreements:
        for grant in agreement.grants:
            yield agreement, grant, GrantRef(agreement.ref, grant.id)


def pairs_of(grant: Grant) -> list[Pair]:
    """The pairs of source and recipient that a clause names."""
    return sorted((source, organisation) for source in grant.sources for organisation in grant.organisations)


# --- unreachable ----------------------------------------------------------------------------------------------------


def _unreachable(
    estate: Estate,
    at: datetime,
    feeds: Mapping[str, AbstractSet[str]] | None,
    staff: Mapping[str, AbstractSet[str]] | None,
) -> Iterator[Remark]:
    for agreement in estate.snapshot.agreements:
        if agreement.grants and (why := _not_live(estate, agreement, at)) is not None:
            yield _remark(
                "unreachable", agreement.ref, f"none of its clauses can apply: {why.words}", why.fix,
                severity=why.severity,
            )  # fmt: skip
            continue
        for grant in agreement.grants:
            ref = str(GrantRef(agreement.ref, grant.id))
            stopped = [pair for pair in pairs_of(grant) if not _runs(estate, agreement, pair, at)]
            held = _stop(estate, agreement, stopped, at)
            if not any(estate.given_by(agreement, grant, pair).boxes for pair in pairs_of(grant)):
                if early := _awaited(estate, agreement, grant.basis.gateways):  # whoever signs, and whatever resumes
                    yield _remark("unreachable", ref, f"it can't apply before {early} is in force",
                                  "name a statute that is in force as well, or wait")  # fmt: skip
                elif held is None:
                    yield _remark("unreachable", ref, "it can never apply: its purposes exclude its categories",
                                  "take it out")  # fmt: skip
                else:
                    yield _remark("unreachable", ref, f"it can't apply: {held.words}", held.fix, severity=held.severity)
                continue
            if early := _awaited(estate, agreement, grant.basis.le_authority):
                yield _remark("unreachable", ref, f"items of law enforcement: not shown before {early} is in force",
                              "name a statute that is in force as well, or wait")  # fmt: skip
            if held is not None and (lost := _lost(estate, agreement, grant, stopped)):
                sources = {pair for pair in stopped if _lost(estate, agreement, grant, [pair]) & lost}
                why = _stop(estate, agreement, sources, at) or held
                message = f"{listed(sorted(lost))}: not shown, for {why.words}"
                yield _remark("unreachable", ref, message, why.fix, severity=why.severity)
            if feeds is not None and (unfed := _unfed(agreement, grant, feeds, estate.space.vocabulary)):
                yield _remark("unreachable", ref, f"nobody sends {listed(unfed)}", "connect a feed, or take it out")
            if staff is not None:
                known = {role for organisation in grant.organisations for role in staff.get(organisation, ())}
                if absent := sorted(grant.roles - known):
                    message = f"nobody at {listed(sorted(grant.organisations))} is {listed(absent, 'or')}"
                    some = sorted(grant.roles & known)
                    message += f"; it serves {listed(some, 'or')} alone" if some else ""
                    severity: Literal["warning", "note"] = "note" if some else "warning"
                    yield _remark("unreachable", ref, message, "name the roles that are there", severity=severity)


def _flowless(snapshot: Snapshot, at: datetime, flows: Mapping[str, AbstractSet[str]]) -> Iterator[Remark]:
    """Sectors that a source is to disclose from now on, and for which no flow of its own is enrolled."""
    for agreement in snapshot.agreements:
        if agreement.period.end <= at:
            continue
        for party in sorted(agreement.parties.keys() & flows.keys()):
            given = {
                name.partition(".")[0] for grant in agreement.grants if party in grant.sources for name in grant.modes
            }
            for sector in sorted((given & agreement.parties[party].discloses) - flows[party]):
                message = f"{party} discloses {sector} under it, and no flow for that is enrolled"
                yield _remark("unreachable", agreement.ref, message, "enrol the flow, or take the sector out")


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why clauses don't apply between some pairs, though they were written for them; and what to do."""

    words: str
    fix: str
    severity: Literal["warning", "note"]


def _not_live(estate: Estate, agreement: Agreement, at: datetime) -> _Stop | None:
    every = {pair for grant in agreement.grants for pair in pairs_of(grant)}
    if any(_runs(estate, agreement, pair, at) for pair in every):
        return None
    return _stop(estate, agreement, every, at)


def _runs(estate: Estate, agreement: Agreement, pair: Pair, at: datetime) -> bool:
    """Whether an agreement is live between a pair, now or later."""
    return any(live.end > at for live in estate.live(agreement, pair))


def _stop(estate: Estate, agreement: Agreement, pairs: Iterable[Pair], at: datetime) -> _Stop | None:
    """Who or what keeps an agreement from being live between these pairs; None where there are none."""
    snapshot, causes = estate.snapshot, set[tuple[str, str, str, Literal["warning", "note"]]]()
    umbrella = snapshot.umbrella(agreement)
    when = max(at, agreement.period.start, umbrella.period.start if umbrella else at)
    for pair in pairs:
        one = snapshot.standing(agreement, *pair, when)
        ref = one.umbrella or agreement.ref
        if agreement.period.end <= at:
            causes.add((f"it ended on {last_day(agreement).isoformat()}", "", "agree on a new version", "warning"))
        elif one.code == "DSA_UNSIGNED" and one.party:
            causes.add((one.party, f"not signed {ref}", "have it signed", "warning"))
        elif one.code == "DSA_SUSPENDED" and one.party:
            causes.add((one.party, f"suspended {ref}", "nothing, while that is meant; `resume` ends it", "note"))
        elif one.code == "DSA_EXPIRED" and one.party:
            causes.add((one.party, f"left {ref}", "agree on a new version, if it should share again", "warning"))
        elif one.code == "DSA_SUSPENDED":
            causes.add((f"the review of {ref} is overdue", "", "review it", "warning"))
        elif one.code == "DSA_EXPIRED":
            causes.add((f"{ref} has ended", "", "agree on a new version", "warning"))
        elif one.code is not None:
            causes.add((f"{one.umbrella or one.party or ref} is not in force", "", "put it in force first", "warning"))
    if not causes:
        return None
    said = [what for what, did, _, _ in sorted(causes) if not did]
    for did in sorted({did for _, did, _, _ in causes if did}):
        whose = sorted(who for who, theirs, _, _ in causes if theirs == did)
        said.append(f"{listed(whose)} {'have' if len(whose) > 1 else 'has'} {did}")
    fixes = sorted({fix for _, _, fix, _ in causes})
    severe = any(severity == "warning" for _, _, _, severity in causes)
    return _Stop(listed(said), "; ".join(fixes), "warning" if severe else "note")


def _awaited(estate: Estate, agreement: Agreement, statutes: frozenset[str]) -> str:
    """The statutes that a clause names, where none of them counts before its agreement, or its umbrella, ends."""
    lists = estate.space.vocabulary
    if not statutes or lists.in_force(statutes, _ends(estate, agreement)):
        return ""
    return listed(lists.gateways[code].source.partition(",")[0] for code in sorted(statutes))


def _ends(estate: Estate, agreement: Agreement) -> date:
    """The last day on which a clause of an agreement can apply."""
    umbrella = estate.snapshot.umbrella(agreement)
    return min(last_day(one) for one in (agreement, umbrella) if one is not None)


def _lost(estate: Estate, agreement: Agreement, grant: Grant, stopped: Iterable[Pair]) -> set[str]:
    """The categories that a clause would show between these pairs, and shows between none."""
    shown, missed = 0, 0
    for pair in pairs_of(grant):
        for box in estate.given_by(agreement, grant, pair).boxes:
            shown |= box.axes[Axis.CELLS]
    for pair in stopped:
        for box in estate.supposed(agreement, grant, pair):
            missed |= box.axes[Axis.CELLS]
    cells = estate.space.cells_of
    return {category for category, _ in cells(missed)} - {category for category, _ in cells(shown)}


def _unfed(
    agreement: Agreement, grant: Grant, feeds: Mapping[str, AbstractSet[str]], vocabulary: Vocabulary
) -> list[str]:
    return sorted(
        category
        for category in grant.modes
        if category != RECORD
        and not any(
            category in feeds.get(source, ())
            for source in grant.sources
            if vocabulary.categories[category].sector in agreement.parties[source].discloses
        )
    )


# --- shadowed -------------------------------------------------------------------------------------------------------


def shadowed(estate: Estate) -> dict[GrantRef, tuple[GrantRef, ...]]:
    """Clauses without which as much would be shown, each with those that show it instead.

    Of two that are equal the one with the higher reference is named: without all that are named, together, nothing that
    is shown is lost.
    """
    gone: dict[GrantRef, tuple[GrantRef, ...]] = {}
    every = sorted(clauses(estate.snapshot), key=lambda one: one[2], reverse=True)
    for agreement, grant, ref in every:
        given = [(pair, estate.given_by(agreement, grant, pair)) for pair in pairs_of(grant)]
        given = [(pair, clause) for pair, clause in given if clause.boxes]
        if not given:
            continue
        by: set[GrantRef] = set()
        for pair, clause in given:
            others = [
                one
                for one in estate.near(pair, clause.axis(Axis.ROLES), clause.axis(Axis.PURPOSES))
                if one.ref != ref and one.ref not in gone
            ]
            coverers = _covered_by(clause, others)
            if coverers is None:
                break
            by |= coverers
        else:
            gone[ref] = tuple(sorted(by))
    return gone


def _covered_by(clause: Given, others: list[Given]) -> set[GrantRef] | None:
    """The clauses that together allow all that one does; None where a piece of it is its own alone."""
    used: set[GrantRef] = set()
    for box in clause.allows():
        if any(not any(other.shows(point) for other in others) for point in _points(box)):
            return None
        left = [box]
        for other in others:
            if not any(box.meet(theirs) for theirs in other.boxes):
                continue
            before = left
            left = without_given(left, [other])
            if left != before:
                used.add(other.ref)
            if not left:
                break
        if left:
            return None
    return used


def _points(box: Box) -> Iterator[Box]:
    """A few points of a box, those that ask least first: one that nobody else shows settles the matter soon."""
    for step in range(POINTS):
        axes = []
        for axis, bits in zip(Axis, box.axes, strict=True):
            values = list(islice(ones(bits), 2 * POINTS))
            index = len(values) - 1 - step % len(values) if axis is Axis.CELLS else step * axis % len(values)
            axes.append(1 << values[index])
        yield Box(tuple(axes), box.start, box.start + timedelta(microseconds=1))


def _shadowed(ref: GrantRef, by: tuple[GrantRef, ...]) -> Remark:
    instead = listed([str(one) for one in by]) or "its own limits: it gives nothing"
    return _remark("shadowed", str(ref), f"all it gives is given by {instead}", "take it out", severity="note")


# --- ceilings -------------------------------------------------------------------------------------------------------


def _ceiling_dead(estate: Estate) -> Iterator[Remark]:
    """Categories that a clause names at a mode at which they are never shown."""
    for agreement, grant, ref in clauses(estate.snapshot):
        named, left, held = False, 0, set()
        for pair in pairs_of(grant):
            clause = estate.given_by(agreement, grant, pair)
            always = [cut for cut in (*clause.cuts, *estate.cuts(pair[0])) if unconditional(estate.space, pair[0], cut)]
            named = named or bool(clause.boxes)
            boxes = clause.boxes or estate.supposed(agreement, grant, pair)  # who has stopped is no ceiling
            held |= {cut.name for cut in always if any(box.meet(cut.box) for box in boxes)}
            for box in without(boxes, [cut.box for cut in always]):
                left |= box.axes[Axis.CELLS]
        if not named:
            continue
        dead: dict[Mode, list[str]] = {}
        for category, mode in grant.modes.items():
            if left & estate.space.cell(category, mode):
                continue
            shown = max((one for name, one in estate.space.cells_of(left) if name == category), default=Mode.NONE)
            dead.setdefault(shown, []).append(category)
        for shown, categories in sorted(dead.items()):
            why = listed(sorted(held)) or "the ceilings of its purposes"
            never = "never shown" if shown is Mode.NONE else f"never shown above {shown.word}"
            yield _remark("ceiling-dead", str(ref), f"{listed(categories)}: {never}, for {why}", "grant what is shown")


def _conflicts(estate: Estate) -> Iterator[Remark]:
    """Restrictions that hold back what clauses give."""
    for rule in estate.snapshot.restrictions:
        boxes = [cut.box for cut in estate.cuts(rule.owner) if cut.name == rule.ref]
        met = set()
        for pair in estate.pairs:
            if pair[0] != rule.owner:
                continue
            for box in boxes:
                met |= {
                    str(clause.ref)
                    for clause in estate.near(pair, box.axes[Axis.ROLES], box.axes[Axis.PURPOSES])
                    if any(one.meet(box) for one in clause.boxes)
                }
        if met:
            whom = "one record" if rule.record is not None else "every record of its owner"
            several = sorted(met)
            which = listed(several[:3]) + (f" and {len(several) - 3} more" if len(several) > 3 else "")
            message = f"it holds {listed(sorted(rule.categories))} at {rule.at_most.word}, of {whom}, against {which}"
            yield _remark("conflict", rule.ref, message, "nothing, if that is meant", severity="note")


# --- over-broad -----------------------------------------------------------------------------------------------------


def _over_broad(estate: Estate, at: datetime, organisations: int) -> Iterator[Remark]:
    for agreement in estate.snapshot.agreements:
        if agreement.period.end <= at:
            continue
        yield from _too_long(agreement)
        umbrella = estate.snapshot.umbrella(agreement)
        if umbrella is not None and umbrella.period.end < agreement.period.end:
            message = f"{umbrella.ref}, which it stands under, ends first, and all under it ends then"
            yield _remark("over-broad", agreement.ref, message, "let it expire with its umbrella", severity="note")
        for grant in agreement.grants:
            ref = str(GrantRef(agreement.ref, grant.id))
            for message, fix in _wide(grant, estate.space.vocabulary, organisations):
                yield _remark("over-broad", ref, message, fix)


def _too_long(agreement: Agreement) -> Iterator[Remark]:
    first = london_day(agreement.period.start)
    last = london_day(agreement.period.end - timedelta(seconds=1))
    if Duration(3, "Y").before(last) >= first:
        yield _remark("over-broad", agreement.ref, "it runs for three years or more", "let it expire within 24 months")
    elif Duration(24, "M").before(last) >= first:
        message = "it runs for more than 24 months"
        yield _remark("over-broad", agreement.ref, message, "let it expire within 24 months", severity="note")
    review = agreement.review
    if agreement.grants and (
        review is None or Duration(12, "M").before(london_day(review - timedelta(seconds=1))) >= first
    ):
        message = "it is not reviewed within 12 months"
        yield _remark("over-broad", agreement.ref, message, "review it within 12 months", severity="note")


def _wide(grant: Grant, vocabulary: Vocabulary, organisations: int) -> Iterator[tuple[str, str]]:
    modes = {name: mode for name, mode in grant.modes.items() if name != RECORD}
    emergency = grant.break_glass is not None
    aggregate = Mode.AGGREGATE in modes.values()
    if not aggregate and (idle := vocabulary.without_items(grant.roles)):
        fix = "take it out, or name the role of who does the work"
        yield f"{listed(idle)}: nobody in such a role sees what casework shows", fix
    if "SAFEGUARDING" in grant.purposes:
        yield "it is for every safeguarding purpose at once", "name the purposes needed"
    special = [
        name for name, mode in modes.items() if mode is Mode.DETAIL and vocabulary.categories[name].special != "no"
    ]
    if special:
        yield (
            f"detail of special-category data: {listed(sorted(special))}",
            "give a summary, and let the holder be asked",
        )
    if not (grant.case_reference or emergency or aggregate):
        yield "it asks for no case reference", "write case_reference = true"
    if len(grant.organisations) > organisations:
        yield f"it gives to {len(grant.organisations)} organisations", "name those that need it"
    above = sorted(name for name, mode in modes.items() if Mode.STATUS < mode < Mode.AGGREGATE)
    if above and grant.threshold is None and not emergency:
        yield f"no threshold for more than a status: {listed(above)}", "ask for a threshold"
    if any(vocabulary.categories[name].sector == "police" for name in modes) and not grant.basis.le_authority:
        yield "no authority for items of law enforcement", "name the statute under le_authority"
    if emergency:
        open_ = [
            *(["no bar on the link"] if grant.link is None else []),
            *(["it is not about the child alone"] if grant.about - {"subject_child"} else []),
            *([f"{len(grant.roles)} roles"] if len(grant.roles) > 3 else []),
            *(["it asks for no condition"] if not grant.basis.conditions else []),
        ]
        if len(open_) > 1:
            yield f"the emergency clause is wide open: {listed(open_)}", "narrow it"


# --- under-sharing --------------------------------------------------------------------------------------------------


def _gaps(estate: Estate, at: datetime) -> Iterator[Remark]:
    """What a purpose would allow and no clause gives, between pairs that share for that purpose at all."""
    space, vocabulary = estate.space, estate.space.vocabulary
    for (source, organisation), several in estate.pairs.items():
        best: dict[tuple[str, str], Mode] = {}
        served: set[str] = set()
        owned: set[str] = set()
        for agreement, grant in several:
            clause = estate.given_by(agreement, grant, (source, organisation))
            if not any(box.start <= at < box.end for box in clause.boxes):
                continue
            owned |= agreement.parties[source].discloses
            for box in clause.boxes:
                purposes = [
                    code for code in space.purposes if box.axes[Axis.PURPOSES] >> space.purposes.index(code) & 1
                ]
                served |= set(purposes)
                for category, mode in space.cells_of(box.axes[Axis.CELLS]):
                    for purpose in purposes:
                        best[purpose, category] = max(mode, best.get((purpose, category), Mode.NONE))
        for purpose in vocabulary.purposes:
            if purpose not in served or vocabulary.purposes[purpose].group:
                continue
            short: dict[tuple[Mode, Mode], list[str]] = {}
            for category in vocabulary.shareable:
                ceiling = vocabulary.ceiling(purpose, category)
                given = best.get((purpose, category), Mode.NONE)
                if vocabulary.categories[category].sector in owned and given < ceiling:
                    short.setdefault((given, ceiling), []).append(category)
            if short:
                told = "; ".join(
                    f"{listed(names)} {given.word}, could be {ceiling.word}"
                    for (given, ceiling), names in sorted(short.items())
                )
                yield _remark(
                    "gap", f"{source} -> {organisation}", f"for {purpose}: {told}", "grant it, if it is needed",
                    severity="note",
                )  # fmt: skip


def _calendar(snapshot: Snapshot, at: datetime) -> Iterator[Remark]:
    newest = _newest(one for one in snapshot.agreements if at in one.period)
    for agreement in snapshot.agreements:
        above = snapshot.umbrella(agreement)
        if agreement.period.end > at and above is not None and _older(above, newest):
            message = f"it stands under {above.ref}, of which a newer version is in force"
            fix = "sign a new version under that one"
            yield _remark("calendar", agreement.ref, message, fix, severity="note")
    for one in warnings((*snapshot.agreements, *snapshot.restrictions), at):
        what = {"expiry": "it ends", "review": "its review is due", "review_overdue": "its review is overdue since"}
        stops = "; sharing then stops by itself" if one.stops else ""
        message = f"{what[one.kind]} {'' if one.kind == 'review_overdue' else 'on '}{one.due.isoformat()}{stops}"
        urgent = one.kind == "review_overdue" or (one.step is not None and one.step <= 30)
        fix = "agree on what follows" if one.kind == "expiry" else "review it"
        yield _remark("calendar", one.ref, message, fix, severity="warning" if urgent else "note")


def _remark(
    kind: Kind, ref: str, message: str, fix: str, *, severity: Literal["warning", "note"] = "warning"
) -> Remark:
    return Remark(kind=kind, severity=severity, ref=ref, message=message, fix=fix)
