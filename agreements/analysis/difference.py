"""What changes from one estate to another, exactly: inside the boxes of a difference decisions differ, outside not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from agreements.agreement import Agreement, GrantRef, Period, Restriction
from agreements.analysis.boxes import (
    EVER,
    Axis,
    Box,
    Estate,
    Given,
    Pair,
    Space,
    Witness,
    askable,
    merged,
    without,
    without_given,
    witness,
)
from agreements.analysis.wording import Said, purposes_in_words, said
from agreements.request import Facts, Request
from agreements.snapshot import Snapshot
from agreements.vocabulary import Mode, Vocabulary
from agreements.words import listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A box of questions of which more, or less, is shown; `by` is the clause that gives (or gave) it, or the ceiling
    that is gone (or new)."""

    more: bool
    pair: Pair
    box: Box
    by: str
    partly: bool = False  # as told in words alone: another clause shows some of it in both


@dataclass(frozen=True, kw_only=True, eq=False)
class Difference:
    """All that changes from one estate to another.

    `changes` is exact.  `told` says the same in fewer boxes: each holds a change, and what else it holds is marked.
    """

    before: Estate
    after: Estate
    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def space(self) -> Space:
        """The space of both estates."""
        return self.before.space

    @cached_property
    def told(self) -> tuple[Change, ...]:
        """The changes in the fewer boxes of which they are told."""
        found: dict[tuple[bool, Pair, str], list[Change]] = {}
        for one in self.changes:
            found.setdefault((one.more, one.pair, one.by), []).append(one)
        return tuple(
            change
            for (more, _, _), exact in found.items()
            for change in _told(*((self.after, self.before) if more else (self.before, self.after)), exact)
        )

    @cached_property
    def _by_pair(self) -> Mapping[Pair, tuple[Change, ...]]:
        found: dict[Pair, list[Change]] = {}
        for change in self.changes:
            found.setdefault(change.pair, []).append(change)
        return {pair: tuple(several) for pair, several in found.items()}

    def touches(self, request: Request, facts: Facts, at: datetime) -> bool:
        """Whether an item of the record is inside a box: if none is, the decision is the same in both estates.

        Of a record that holds one item the decision then does differ; another item may give as much in both.
        """
        changes = self._by_pair.get((facts.source, request.organisation))
        if changes is None:
            return False
        point = self.space.of_request(request, facts, at)
        near = [
            change.box.axes
            for change in changes
            if change.box.start <= at < change.box.end
            and all(mine & theirs for mine, theirs in zip(point, change.box.axes, strict=True))
        ]
        if not near:
            return False
        items = self.space.of_items(request, facts, at)
        return any(
            axes[Axis.CELLS] & cells and axes[Axis.AGES] & age and axes[Axis.REGIMES] & regime
            for axes in near
            for (age, regime), cells in items.items()
        )

    def lines(self) -> list[str]:
        """The changes in words, what is new first; who, of whom, for what and when once, under it what differs.

        Restrictions and the baseline that are the same in both are taken as said.
        """
        found: list[str] = []
        for more in (True, False):
            together: dict[Said, list[Said]] = {}
            for one in self._said(self.told, more):
                head = replace(one, cells=(), needs=(), refs=())
                together.setdefault(head, []).append(one)
            for several in together.values():
                found += _lines(self.space, more, several)
        return found

    def to_json(self) -> list[dict[str, Any]]:
        """The changes as data, exactly."""
        return [_body(more, one) for more in (True, False) for one in self._said(self.changes, more)]

    def _said(self, changes: Iterable[Change], more: bool) -> list[Said]:
        partly = ("where no other clause shows as much",)
        entries = [(one.pair, one.box, one.by, partly if one.partly else ()) for one in changes if one.more is more]
        return said(self.space, entries)

    def witnesses(self) -> Iterator[tuple[Change, Witness]]:
        """A question inside every box: decided in both estates, the answers differ as the box says."""
        for change in self.changes:
            found = witness(self.space, change.pair, change.box)
            assert found is not None
            yield change, found


def diff(before: Snapshot, after: Snapshot, vocabulary: Vocabulary, *, period: Period = EVER) -> Difference:
    """What is shown in one estate and not in the other, for questions asked in `period`."""
    space = Space.of(vocabulary, before, after)
    gone, new = changed_agreements(before, after), changed_agreements(after, before)
    was = Estate(space, before, period=period)
    will = Estate(space, after, period=period, twin=was, unlike=new)
    sources = {rule.owner for rule in changed_restrictions(before, after)}
    pairs = {
        pair
        for estate, refs in ((was, gone), (will, new))
        for pair, clauses in estate.pairs.items()
        if pair[0] in sources or any(agreement.ref in refs for agreement, _ in clauses)
    }
    changes: list[Change] = []
    for pair in sorted(pairs):
        for more, here, there, refs in ((True, will, was, new), (False, was, will, gone)):
            changes += (
                Change(more=more, pair=pair, box=box, by=by)
                for by, boxes in _beyond(pair, here, there, refs).items()
                for box in boxes
                if askable(space, box)
            )
    return Difference(before=was, after=will, changes=tuple(changes))


def _told(here: Estate, there: Estate, exact: Sequence[Change]) -> list[Change]:
    """The changes that one clause or ceiling makes, a clause's as what it gives now and did not: what other clauses
    show in both is not taken out of that, only marked."""
    first = exact[0]
    grants = {str(GrantRef(agreement.ref, grant.id)): (agreement, grant) for agreement, grant in here.pairs[first.pair]}
    if first.by not in grants:
        return list(exact)
    clause = here.given_by(*grants[first.by], first.pair)
    same = [
        there.given_by(agreement, grant, first.pair)
        for agreement, grant in there.pairs.get(first.pair, ())
        if _one_clause(GrantRef(agreement.ref, grant.id), clause.ref)
    ]
    cuts = [cut.box for cut in here.cuts(first.pair[0])]
    boxes = [one.box for one in exact]
    found = []
    for piece in merged(without_given(clause.allows(), same)):
        if any(piece.meet(box) for box in boxes):
            partly = bool(without(without([piece], cuts), boxes))
            found.append(replace(first, box=piece, partly=partly))
    return found


def _beyond(pair: Pair, here: Estate, there: Estate, changed: AbstractSet[str]) -> dict[str, list[Box]]:
    """What is allowed here and not there, by what makes it so, each point once.

    Either no clause there gives it, and then a clause that has changed does here; or one gives it, and a ceiling that
    is only there takes it away.
    """
    cuts = [cut.box for cut in here.cuts(pair[0])]
    kept = set(cuts)
    found: dict[str, list[Box]] = {}

    def near(estate: Estate, clause: Given) -> list[Given]:
        several = estate.near(pair, clause.axis(Axis.ROLES), clause.axis(Axis.PURPOSES))
        return _nearest_first(several, clause.ref)

    earlier: list[Given] = []
    for agreement, grant in here.pairs.get(pair, ()):
        if agreement.ref not in changed:
            continue
        clause = here.given_by(agreement, grant, pair)
        if clause.boxes:
            beyond = without(without_given(clause.allows(), near(there, clause)), cuts)
            found[str(clause.ref)] = merged(without_given(beyond, earlier))
            earlier.append(clause)
    lifted: list[Box] = []
    for cut in there.cuts(pair[0]):
        if cut.box in kept:
            continue
        first: list[Given] = []
        for clause in here.near(pair, cut.box.axes[Axis.ROLES], cut.box.axes[Axis.PURPOSES]):
            inside = [box for one in clause.allows() if (box := one.meet(cut.box)) is not None]
            boxes = without(without(inside, cuts), lifted)
            if boxes and clause.ref.agreement in changed:
                boxes = without(boxes, without_given(boxes, near(there, clause)))
            found.setdefault(cut.name, []).extend(merged(without_given(boxes, first)))
            first.append(clause)
        lifted.append(cut.box)
    return found


def _nearest_first(several: Sequence[Given], ref: GrantRef) -> list[Given]:
    """The same clause of another version first, as it takes most away."""
    return sorted(several, key=lambda one: not _one_clause(one.ref, ref))


def _one_clause(one: GrantRef, other: GrantRef) -> bool:
    """Whether both are one clause, be it of two versions of its agreement."""
    return one.clause == other.clause and one.agreement.partition("@")[0] == other.agreement.partition("@")[0]


def changed_agreements(mine: Snapshot, other: Snapshot) -> set[str]:
    """The agreements that are not there, as they stand here, in the other: all others allow the same in both."""
    stirred = _stirred(mine, other)
    theirs = {agreement.ref: agreement for agreement in other.agreements}

    def same(agreement: Agreement | None, there: Agreement | None) -> bool:
        return agreement is there or (agreement == there and agreement is not None)

    found = set()
    for agreement in mine.agreements:
        umbrella = mine.umbrella(agreement)
        if (
            not same(agreement, theirs.get(agreement.ref))
            or not same(umbrella, other.umbrella(agreement))
            or (stirred and not stirred.isdisjoint({one.digest for one in (agreement, umbrella) if one is not None}))
        ):
            found.add(agreement.ref)
    return found


def changed_restrictions(before: Snapshot, after: Snapshot) -> tuple[Restriction, ...]:
    """The restrictions, as in either, that are not the same in both."""
    stirred = _stirred(before, after)
    found = []
    for mine, other in ((before, after), (after, before)):
        theirs = {rule.ref: rule for rule in other.restrictions}
        found += [rule for rule in mine.restrictions if theirs.get(rule.ref) != rule or rule.digest in stirred]
    return tuple(found)


def _stirred(one: Snapshot, two: Snapshot) -> set[str]:
    """The documents that are signed, or that something happened to, in one of the two alone."""
    signed = {signature.digest for signature in one.signatures ^ two.signatures}
    return signed | {event.digest for event in set(one.events) ^ set(two.events)}


def _lines(space: Space, more: bool, several: Sequence[Said]) -> list[str]:
    """Changes that are alike in who, of whom, for what and when: a line, or a heading and a line each."""
    one = several[0]
    who = f"{listed(one.organisations)} {listed(one.roles, 'or')}"
    said_first = "newly" if more else "no longer"
    for_ = f"for {purposes_in_words(space, one.purposes)}, of {listed(one.sources)}" + (
        f", {one.span}" if one.span else ""
    )
    if len(several) == 1:
        return [f"{said_first}: {who} may see {_shown(more, one)} {for_}{_needed(one.needs)} [{', '.join(one.refs)}]"]
    shared = tuple(need for need in one.needs if all(need in other.needs for other in several))
    refs = sorted({ref for other in several for ref in other.refs})
    return [
        f"{said_first}: {who} may see, {for_}{_needed(shared)} [{', '.join(refs)}]:",
        *(
            f"  {_shown(more, other)}{_needed([need for need in other.needs if need not in shared])}"
            for other in several
        ),
    ]


def _shown(more: bool, one: Said) -> str:
    return "; ".join(f"{listed(names)} at {high.word}{_otherwise(more, low, high)}" for low, high, names in one.modes())


def _needed(needs: Sequence[str]) -> str:
    return f" ({'; '.join(needs)})" if needs else ""


def _otherwise(more: bool, low: Mode, high: Mode) -> str:
    """Where a mode lower than the lowest that changes stays as it was."""
    if low in (Mode.EXISTENCE, Mode.AGGREGATE):
        return ""
    below = Mode(low - 1).word
    return f" (so far {below})" if more else f" (still {below})"


def _body(more: bool, one: Said) -> dict[str, Any]:
    return {
        "change": "newly" if more else "no longer",
        "organisations": list(one.organisations),
        "roles": list(one.roles),
        "sources": list(one.sources),
        "purposes": list(one.purposes),
        "categories": [
            {
                "category": category,
                "mode": high.word,
                "otherwise": "none" if low in (Mode.EXISTENCE, Mode.AGGREGATE) else Mode(low - 1).word,
            }
            for category, low, high in one.cells
        ],
        "needs": list(one.needs),
        "from": one.start.isoformat() if one.start != EVER.start else None,
        "until": one.end.isoformat() if one.end != EVER.end else None,
        "by": list(one.refs),
    }
