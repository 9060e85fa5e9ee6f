"""Boxes in words: what each axis asks for, said only where it asks for anything; lists said once, not a box a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agreements.agreement import Duration, Period, london_day
from agreements.analysis.boxes import EVER, Axis, Box, Pair, Space, ones
from agreements.request import Link
from agreements.vocabulary import RECORD, Mode
from agreements.words import day, listed, span


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Boxes that say one thing: who of whom may see what, for which purposes, when, and what that takes.

    `cells` has, of each category, the lowest and the highest mode that the boxes hold.
    """

    sources: tuple[str, ...]
    organisations: tuple[str, ...]
    roles: tuple[str, ...]
    purposes: tuple[str, ...]
    cells: tuple[tuple[str, Mode, Mode], ...]
    needs: tuple[str, ...]
    start: datetime
    end: datetime
    refs: tuple[str, ...]

    def modes(self) -> list[tuple[Mode, Mode, list[str]]]:
        """Categories together that go from and to the same mode, the most first."""
        found: dict[tuple[Mode, Mode], list[str]] = {}
        for category, low, high in self.cells:
            found.setdefault((low, high), []).append(category)
        ordered = sorted(found.items(), key=lambda one: (-one[0][1], one[0][0]))
        return [(low, high, names) for (low, high), names in ordered]

    @property
    def span(self) -> str:
        """When, in London days: "from 1 April 2026 until 31 March 2028"."""
        return dates(Period(self.start, self.end))


Entry = tuple[Pair, Box, str, tuple[str, ...]]
"""A box between a pair, the clause or the ceiling that it comes from, and what else there is to say of it."""


def said(space: Space, entries: Iterable[Entry]) -> list[Said]:
    """Boxes in as few sayings as they can be put in without saying more or less."""
    cells: dict[Said, int] = {}
    refs: dict[Said, set[str]] = {}
    for (source, organisation), box, ref, more in entries:
        one = Said(
            sources=(source,),
            organisations=(organisation,),
            roles=tuple(space.roles[index] for index in ones(box.axes[Axis.ROLES])),
            purposes=tuple(space.purposes[index] for index in ones(box.axes[Axis.PURPOSES])),
            cells=(),
            needs=(*needs(space, source, box), *more),
            start=box.start,
            end=box.end,
            refs=(),
        )
        cells[one] = cells.get(one, 0) | box.axes[Axis.CELLS]
        refs.setdefault(one, set()).add(ref)
    found = [
        replace(one, cells=_ranges(space, bits), refs=tuple(sorted(refs[one])))
        for one, bits in _surer(space, cells, refs)
    ]
    for field in ("roles", "purposes", "sources", "organisations", "roles", "purposes"):
        found = _joined(found, field)
    ordered = [_in_order(space, one) for one in found]
    return sorted(
        ordered, key=lambda one: (one.start, one.organisations, one.sources, one.purposes, one.roles, one.needs)
    )


_MATCH = "on a sure match"


def _surer(space: Space, cells: dict[Said, int], refs: dict[Said, set[str]]) -> list[tuple[Said, int]]:
    """A clause for sure matches says so once: anything above existence needs a match anyway."""
    for one in list(cells):
        if _MATCH not in one.needs:
            continue
        plain = replace(one, needs=tuple(need for need in one.needs if need != _MATCH))
        bits = cells.get(plain)
        if bits is not None and all(mode > Mode.EXISTENCE for _, mode in space.cells_of(bits)):
            cells[one] |= cells.pop(plain)
            refs[one] |= refs.pop(plain)
    return list(cells.items())


def _ranges(space: Space, bits: int) -> tuple[tuple[str, Mode, Mode], ...]:
    found: dict[str, tuple[Mode, Mode]] = {}
    for category, mode in space.cells_of(bits):
        low, high = found.get(category, (mode, mode))
        found[category] = (min(low, mode), max(high, mode))
    return tuple((category, low, high) for category, (low, high) in found.items())


def _joined(several: list[Said], field: str) -> list[Said]:
    """Sayings that differ in one list alone, with their lists put together."""
    found: dict[Said, Said] = {}
    for one in several:
        key = replace(one, refs=(), **{field: ()})  # type: ignore[arg-type]
        known = found.get(key)
        if known is None:
            found[key] = one
            continue
        both = dict.fromkeys((*getattr(known, field), *getattr(one, field)))
        refs = tuple(sorted({*known.refs, *one.refs}))
        found[key] = replace(known, refs=refs, **{field: tuple(sorted(both))})  # type: ignore[arg-type]
    return list(found.values())


def _in_order(space: Space, one: Said) -> Said:
    return replace(
        one,
        roles=tuple(role for role in space.roles if role in one.roles),
        purposes=tuple(purpose for purpose in space.purposes if purpose in one.purposes),
    )


def purposes_in_words(space: Space, purposes: Sequence[str]) -> str:
    """Purposes, a group by its own name where all of it is meant."""
    left = set(purposes)
    named = []
    groups = [code for code in space.purposes if space.vocabulary.purposes[code].group]
    for group in sorted(groups, key=lambda code: -len(space.vocabulary.down(code))):
        below = space.vocabulary.down(group)
        if below <= left:
            named.append(group)
            left -= below
    return listed([*named, *(code for code in space.purposes if code in left)])


def needs(space: Space, source: str, box: Box) -> tuple[str, ...]:
    """What a point of the box has to have, axis by axis; nothing is said of an axis that asks for nothing.

    Shields and severances that the baseline holds back everywhere are taken as said.
    """
    axes = box.axes
    told = [
        _threshold(space, axes[Axis.THRESHOLDS]),
        {1: "without the child's case reference", 2: "with the child's case reference"}.get(axes[Axis.CASES]),
        _either("on", space.art6, axes[Axis.ART6]),
        _family("claiming", space.conditions, axes[Axis.CONDITIONS]),
        _family("claiming", space.gateways, axes[Axis.GATEWAYS]),
        _either("about a record of", [one or "somebody unknown" for one in space.relations], axes[Axis.RELATIONS]),
        _link(space, axes[Axis.LINKS], axes[Axis.CELLS]),
        _age(space, axes[Axis.AGES]),
        {1: "not of law enforcement", 2: "of law enforcement"}.get(axes[Axis.REGIMES]),
        _session(space, axes[Axis.SESSIONS]),
        _tags(space, axes[Axis.TAGS], axes[Axis.CELLS]),
        _records(space, source, axes[Axis.RECORDS]),
    ]
    return tuple(one for one in told if one)


def dates(period: Period) -> str:
    """A time in London days."""
    found = []
    if period.start != EVER.start:
        found.append(f"from {day(london_day(period.start))}")
    if period.end != EVER.end:
        found.append(f"until {day(london_day(period.end - timedelta(seconds=1)))}")
    return " ".join(found)


def _threshold(space: Space, bits: int) -> str | None:
    whole = (1 << len(space.thresholds)) - 1
    if bits == whole:
        return None
    levels = [space.thresholds[index] or "none" for index in ones(bits)]
    above = next((index for index in range(len(space.thresholds)) if bits == whole & ~((1 << index) - 1)), None)
    if above is not None:
        return f"at threshold {levels[0]}" + ("" if len(levels) == 1 else " or higher")
    below = next((index for index in range(len(space.thresholds)) if bits == (1 << index) - 1), None)
    if below is not None:
        return f"below threshold {space.thresholds[below]}"
    return f"at threshold {listed(levels, 'or')} alone"


def _either(words: str, terms: Sequence[str], bits: int) -> str | None:
    if bits == (1 << len(terms)) - 1:
        return None
    return f"{words} {listed((terms[index] for index in ones(bits)), 'or')}"


def _family(words: str, terms: Sequence[str], bits: int) -> str | None:
    """A set of subsets: those with any of some terms, with none of some, or both."""
    shape = _shape(terms, bits, 0)
    if shape is None:
        subsets = [listed((terms[one] for one in ones(subset)), "with") or "nothing" for subset in list(ones(bits))[:3]]
        return f"{words} {listed(subsets, 'or')}" + (" and so on" if bits.bit_count() > 3 else " alone")
    some, none = shape
    told = [f"{words} {listed(some, 'or')}"] if some else []
    if none:
        told.append(f"{words} {'' if some else 'neither ' if len(none) > 1 else 'not '}{listed(none, 'nor')}")
    return (" but not ".join([told[0], listed(none, "nor")]) if some and none else "".join(told)) or None


def _shape(terms: Sequence[str], bits: int, ignored: int) -> tuple[list[str], list[str]] | None:
    """The terms of which one is needed and those that must not be there, if that says all; `ignored` subsets are
    anybody's."""
    whole = (1 << (1 << len(terms))) - 1
    every = whole & ~ignored
    wanted = bits & every
    has = [sum(1 << subset for subset in range(1 << len(terms)) if subset >> index & 1) for index in range(len(terms))]
    none = [index for index, those in enumerate(has) if those & every and not wanted & those]
    free = every
    for index in none:
        free &= ~has[index]
    if wanted == free:
        return [], [terms[index] for index in none]
    some = [index for index in range(len(terms)) if wanted >> (1 << index) & 1]
    any_of = 0
    for index in some:
        any_of |= has[index]
    if wanted == free & any_of:
        return [terms[index] for index in some], [terms[index] for index in none]
    return None


_NATURAL = {
    Mode.EXISTENCE: frozenset({Link.POSSIBLE, Link.MATCH, Link.CERTAIN}),
    Mode.STATUS: frozenset({Link.MATCH, Link.CERTAIN}),
    Mode.SUMMARY: frozenset({Link.CERTAIN}),
    Mode.DETAIL: frozenset({Link.CERTAIN}),
    Mode.AGGREGATE: frozenset({Link.MATCH, Link.CERTAIN}),
}


def _link(space: Space, bits: int, cells: int) -> str | None:
    links = frozenset(space.links[index] for index in ones(bits))
    modes = {mode for _, mode in space.cells_of(cells)}
    if all(links >= _NATURAL[mode] for mode in modes):
        return None
    if links >= _NATURAL[Mode.STATUS]:
        return _MATCH
    words = {
        Link.POSSIBLE: "a possible match",
        Link.MATCH: "a match below the upper bar",
        Link.CERTAIN: "a certain match",
    }
    return f"on {listed((words[link] for link in Link if link in links and link in words), 'or')}"


def _age(space: Space, bits: int) -> str | None:
    whole = (1 << len(space.ages)) - 1
    if bits == whole:
        return None
    inside = {
        window: sum(1 << index for index, those in enumerate(space.ages) if window in those) for window in space.windows
    }
    for window, those in inside.items():
        if bits == those:
            return f"recorded within {_length(window)}"
        if bits == whole & ~those:
            return f"recorded longer than {_length(window)} ago, or who knows when"
        for longer, wider in inside.items():
            if bits == wider & ~those:
                return f"recorded within {_length(longer)} but not within {_length(window)}"
    return "recorded within some windows and not within others"


def _length(window: Duration) -> str:
    years = window.unit == "M" and window.number % 12 == 0
    return span(Duration(window.number // 12, "Y") if years else window)


def _session(space: Space, bits: int) -> str | None:
    ends = space.sessions
    whole = (1 << (len(ends) + 1)) - 1
    if bits == whole:
        return None
    if bits == 1:
        return "outside an emergency session"
    if bits == whole & ~1:
        return "in an emergency session"
    last = bits.bit_length() - 1
    first = (bits & -bits).bit_length() - 1
    if first == 1 and bits == (1 << (last + 1)) - 2:
        return f"in the first {ends[last - 1]} minutes of an emergency session"
    if first > 1 and bits == (1 << (last + 1)) - (1 << first):
        return f"from minute {ends[first - 2]} to {ends[last - 1]} of an emergency session"
    return "at some minutes of an emergency session"


def _tags(space: Space, bits: int, cells: int) -> str | None:
    held = 0
    for rule in space.vocabulary.baseline:
        capped = all(
            (RECORD in rule.categories or category in rule.categories)
            and mode > rule.at_most
            and not (mode is Mode.AGGREGATE and rule.at_most)
            for category, mode in space.cells_of(cells)
        )
        if capped:
            held |= space.meeting(space.tags, (rule.tag,))
    if bits | held == (1 << (1 << len(space.tags))) - 1:
        return None
    labels = [space.vocabulary.tags[tag].label for tag in space.tags]
    shape = _shape(labels, bits, held)
    if shape is None:
        return "under some tags and not under others"
    some, none = shape
    told = [f"where it is tagged {listed(some, 'or')}"] if some else []
    return " ".join([*told, *([f"unless tagged {listed(none, 'or')}"] if none else [])]) or None


def _records(space: Space, source: str, bits: int) -> str | None:
    records = space.records_of(source)
    if bits == (1 << len(records)) - 1:
        return None
    named = [index for index in ones(bits) if index > 1]
    if bits & 1:
        left = len(records) - 2 - len(named)
        return f"but for {_count(left)} that a restriction names" if left else None
    return f"of the {_count(len(named))} that a restriction names" if named else "where it is not known which record"


def _count(number: int) -> str:
    return "one record" if number == 1 else f"{number} records"
