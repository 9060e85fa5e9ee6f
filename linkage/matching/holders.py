"""Who holds which strong identifier, as arrays: the rules of `identifiers`, for a whole run at once.

`identifiers` says the same in SQL for searches and for one pair; tests hold both equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import (
    Flags,
    Ints,
    components,
    contains,
    ends_of,
    groups_of,
    maybe_among,
    order_of,
    packed,
    packed_pairs,
    pairs_within,
    ramp,
    repeated,
)
from linkage.matching.identifiers import ALIAS_CAP, ALL_SCHEMES, HOLDER_CAP, LOCAL, SCHEMES, SPREAD
from linkage.matching.lazily import numbers_at
from linkage.matching.numbering import Numbered

Bits = npt.NDArray[np.int16]
CONFLICTING: Final = np.int16(sum(1 << n for n, scheme in enumerate(ALL_SCHEMES) if scheme != LOCAL))
"""The schemes of which two numbers can conflict, a bit each."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """The numbers of one scheme, each once a record that holds it, in order of number, then record."""

    number: Ints
    rec: Ints

    def without(self, gone: Flags) -> Held:
        """These less some."""
        return Held(number=self.number[~gone], rec=self.rec[~gone])

    def places_with(self, recs: Flags) -> Ints:
        """Where the numbers are that one of some records holds."""
        mine = self.number[recs[self.rec]]
        mine = mine[groups_of(mine)[0]]
        starts, ends = (np.searchsorted(self.number, mine, side) for side in ("left", "right"))
        return np.asarray(np.repeat(starts, ends - starts) + ramp(ends - starts))


@dataclass(frozen=True, kw_only=True)
class Holders:
    """The numbers that carry weight, by scheme."""

    held: Mapping[str, Held]
    records: int

    def has(self) -> Bits:
        """By record: a bit a scheme of which it has a number."""
        bits = np.zeros(self.records, np.int16)
        for n, scheme in enumerate(ALL_SCHEMES):
            bits[self.held[scheme].rec] |= np.int16(1 << n)
        return bits

    def agreed(self, among: Flags | None = None) -> tuple[Ints, Bits]:
        """The pairs of records (packed, in order) that share a number, and a bit for each scheme in which they do."""
        pairs, bits = [np.zeros(0, np.int64)], [np.zeros(0, np.int16)]
        for n, scheme in enumerate(ALL_SCHEMES):
            held = self.held[scheme]
            if among is not None:
                held = held.without(~among[held.rec])
            left, right = pairs_within(*groups_of(held.number))
            pairs.append(packed_pairs(held.rec[left], held.rec[right]))
            bits.append(np.full(len(left), 1 << n, np.int16))
        every, said = np.concatenate(pairs), np.concatenate(bits)
        order = np.argsort(every, kind="stable")
        every, said = every[order], said[order]
        starts, _ = groups_of(every)
        return every[starts], np.bitwise_or.reduceat(said, starts) if len(starts) else said

    def around(self, recs: Flags) -> Flags:
        """These records and all that share a number with one of them."""
        near = recs.copy()
        for held in self.held.values():
            near[held.rec[held.places_with(recs)]] = True
        return near

    def beside(self) -> tuple[Ints, Ints]:
        """Two columns of records that lead from each holder of a number to all its others."""
        next_to = [
            (held.rec[:-1][same], held.rec[1:][same])
            for held in self.held.values()
            for same in [held.number[:-1] == held.number[1:]]
        ]
        one, other = (np.concatenate([pair[side] for pair in next_to]) for side in (0, 1))
        return one, other

    def among(self, recs: Flags, number: Ints) -> Holders:
        """Those of some records, by other numbers of the records, which sort them alike."""
        held = {
            scheme: Held(number=one.number[mine], rec=number[one.rec[mine]])
            for scheme, one in self.held.items()
            for mine in [np.flatnonzero(recs[one.rec])]
        }
        return Holders(held=held, records=int(recs.sum()))

    def holding(self, numbers: Mapping[str, Ints]) -> Ints:
        """The records that hold one of these numbers."""
        found = [self.held[scheme].rec[np.isin(self.held[scheme].number, some)] for scheme, some in numbers.items()]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))

    def least(self, scheme: str) -> tuple[Ints, Flags]:
        """By record: its least number of a scheme, and whether it has one."""
        held = self.held[scheme]
        least, known = np.zeros(self.records, np.int64), np.zeros(self.records, np.bool_)
        least[held.rec[::-1]] = held.number[::-1]  # the last to be written is the least
        known[held.rec] = True
        return least, known

    def least_among(self, scheme: str, recs: npt.NDArray[Any]) -> tuple[Ints, Ints]:
        """The records whose least number of a scheme is that of one of these, in order, and those numbers."""
        held = self.held[scheme]
        mine = np.zeros(self.records, np.bool_)
        mine[recs] = True
        near = np.zeros(self.records, np.bool_)
        near[held.rec[held.places_with(mine)]] = True
        places = np.flatnonzero(near[held.rec])
        every, first = np.unique(held.rec[places], return_index=True)  # the first is the least
        least = held.number[places[first]]
        wanted = np.isin(least, least[mine[every]])
        return every[wanted], least[wanted]

    def of(self, recs: Flags) -> dict[int, dict[str, frozenset[int]]]:
        """The numbers that can conflict, of these records, by record and scheme."""
        found: dict[int, dict[str, set[int]]] = {}
        for scheme in SCHEMES:
            held = self.held[scheme].without(~recs[self.held[scheme].rec])
            for rec, number in zip(held.rec.tolist(), held.number.tolist(), strict=True):
                found.setdefault(rec, {}).setdefault(scheme, set()).add(number)
        return {rec: {scheme: frozenset(of) for scheme, of in schemes.items()} for rec, schemes in found.items()}

    def several(self, group: Ints) -> Ints:
        """The groups (a number for each record) whose members hold two numbers of one scheme that can conflict."""
        found = [np.zeros(0, np.int64)]
        for scheme in SCHEMES:
            held = self.held[scheme]
            # Groups of one record are nobody's concern; those of one number are most.
            least = np.full(len(group), np.iinfo(np.int64).max)
            most = np.full(len(group), np.iinfo(np.int64).min)
            of = group[held.rec]
            np.minimum.at(least, of, held.number)
            np.maximum.at(most, of, held.number)
            found.append(np.flatnonzero(least < most))
        return np.unique(np.concatenate(found))

    def spread(self, person: Ints) -> dict[str, Ints]:
        """The numbers that can conflict which more than SPREAD persons hold; `person` is by record."""
        found: dict[str, Ints] = {}
        for scheme in SCHEMES:
            held = self.held[scheme]
            starts, ends = groups_of(held.number)
            many = ends - starts > SPREAD
            sizes = (ends - starts)[many]
            place = np.repeat(np.flatnonzero(many), sizes)
            rows = np.repeat(starts[many], sizes) + ramp(sizes)
            holding = np.sort(packed(place, person[held.rec[rows]]))
            distinct, _ = ends_of(holding[groups_of(holding)[0]])
            over = np.flatnonzero(np.bincount(distinct, minlength=len(starts)) > SPREAD)
            if len(over):
                found[scheme] = held.number[starts[over]]
        return found

    def without(self, numbers: Mapping[str, Ints]) -> Holders:
        """These less the numbers that carry no weight."""
        held = {
            scheme: one.without(np.isin(one.number, numbers[scheme])) if scheme in numbers else one
            for scheme, one in self.held.items()
        }
        return replace(self, held=held)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers of all records: as the rows have them, and those that carry weight.

    `written` are by scheme the tokens of its columns, each once a record, in order; `names` those of a chain of
    supersessions with the name of it; `dropped` the names that too many records hold, which carry no weight.
    """

    written: Mapping[str, Held]
    names: Mapping[str, tuple[Ints, Ints]]
    dropped: Mapping[str, Ints]
    holders: Holders

    def over_shared(self) -> dict[str, int]:
        """How many names of each scheme carry no weight; only what there is any of."""
        return {scheme: len(names) for scheme, names in self.dropped.items() if len(names)}

    def renamed(self, before: Mapping[str, tuple[Ints, Ints]]) -> Ints:
        """The records with a token that is called otherwise than `before`, or carries weight and did not, or no more.

        `before` is what `weights` gave.
        """
        found = [np.zeros(0, np.int64)]
        for scheme, now in self.weights().items():
            was = before.get(scheme, (np.zeros(0, np.int64),) * 2)
            tokens = np.unique(np.concatenate([was[0], now[0]]))
            moved = tokens[_called(tokens, *was) != _called(tokens, *now)]
            held = self.written[scheme]
            found.append(held.rec[np.isin(held.number, moved)] if len(moved) else found[0])
        return np.unique(np.concatenate(found))

    def weights(self) -> dict[str, tuple[Ints, Ints]]:
        """By scheme, the tokens that are not their own name with weight: those of chains, and those dropped.

        With each the name that it has; its own name again, less one, where it carries no weight.
        """
        found: dict[str, tuple[Ints, Ints]] = {}
        for scheme in self.written:
            tokens, names = self.names[scheme]
            dropped = self.dropped[scheme]
            alone = dropped[~contains(tokens, dropped)[0]]
            every, said = np.concatenate([tokens, alone]), np.concatenate([names, alone])
            order = np.argsort(every)
            found[scheme] = every[order], np.where(contains(dropped, said)[0], WEIGHTLESS, said)[order]
        return found


WEIGHTLESS: Final = np.iinfo(np.int64).min
"""The name of all numbers that carry no weight."""


def _called(tokens: Ints, listed: Ints, names: Ints) -> Ints:
    """What these tokens are called; those that are not listed are called as they are."""
    there, at = contains(listed, tokens)
    return np.asarray(np.where(there, names[at] if len(names) else tokens, tokens))


def holders_of(rows: Numbered) -> tuple[Holders, dict[str, int]]:
    """The numbers of all records, and how many of each scheme carry no weight, as too many records hold them."""
    numbers = numbers_of(rows)
    return numbers.holders, numbers.over_shared()


def numbers_of(rows: Numbered, before: Mapping[str, Held] | None = None, changed: Flags | None = None) -> Numbers:
    """The numbers of all records.

    `before` is what an earlier run had written, by tonight's numbers of the records (-1: gone), `changed` those whose
    rows are others: of all others what was written holds.
    """
    written: dict[str, Held] = {}
    names: dict[str, tuple[Ints, Ints]] = {}
    dropped: dict[str, Ints] = {}
    held: dict[str, Held] = {}
    mine = None if before is None or changed is None else np.flatnonzero(changed[rows.rec])
    for scheme, columns in [*SCHEMES.items(), (LOCAL, (LOCAL,))]:
        if before is None or changed is None or mine is None:
            written[scheme] = _written(rows, columns)
        else:
            stay = before[scheme].rec >= 0
            stay[stay] = ~changed[before[scheme].rec[stay]]
            written[scheme] = _joined(before[scheme].without(~stay), _written(rows, columns, mine))
        names[scheme] = _chains(rows, columns)
        one = _renamed(written[scheme], *names[scheme])
        starts, ends = groups_of(one.number)
        shared = _shared(rows, one, starts, ends)
        dropped[scheme] = one.number[starts[shared]]
        if len(shared):
            gone = np.zeros(len(starts), np.bool_)
            gone[shared] = True
            one = one.without(np.repeat(gone, ends - starts))
        held[scheme] = one
    return Numbers(written=written, names=names, dropped=dropped, holders=Holders(held=held, records=rows.records))


def _written(rows: Numbered, columns: tuple[str, ...], mine: Ints | None = None) -> Held:
    """The tokens in these columns, of all rows or of some."""
    tokens, recs = [], []
    for name in columns:
        if mine is None:
            held, values = _valid(rows.persons[f"id_{name}"])
        else:
            values, there = numbers_at(rows.persons, f"id_{name}", mine)
            held, values = (mine, values) if there is None else (mine[there], values[there])
        tokens.append(values)
        recs.append(rows.rec[held])
    return _once(np.concatenate(tokens), np.concatenate(recs).astype(np.int64))


def _once(number: Ints, rec: Ints) -> Held:
    """These numbers in order, each once a record."""
    order = order_of(number)
    some = repeated(number[order])
    order[some] = order[some][np.lexsort((rec[order[some]], number[order[some]]))]
    return _each_once(number[order], rec[order])


def _each_once(number: Ints, rec: Ints) -> Held:
    again = np.zeros(len(rec), np.bool_)
    again[1:] = (number[1:] == number[:-1]) & (rec[1:] == rec[:-1])
    return Held(number=number[~again], rec=rec[~again]) if again.any() else Held(number=number, rec=rec)


def _joined(many: Held, few: Held) -> Held:
    """Both in one order: the few are put among the many, which are not sorted again."""
    if not len(few.rec):
        return many
    low, high = (np.searchsorted(many.number, few.number, side) for side in ("left", "right"))
    sizes = high - low
    which = np.repeat(np.arange(len(low)), sizes)
    before = many.rec[np.repeat(low, sizes) + ramp(sizes)] < few.rec[which]
    at = low + np.bincount(which[before], minlength=len(low))
    return _each_once(np.insert(many.number, at, few.number), np.insert(many.rec, at, few.rec))


def _chains(rows: Numbered, columns: tuple[str, ...]) -> tuple[Ints, Ints]:
    """The tokens that one row or another says supersede each other, in order, and the least of each one's chain."""
    nothing = np.zeros(0, np.int64)
    if len(columns) == 1:
        return nothing, nothing
    one, other = (f"id_{name}" for name in columns)
    places, old = _valid(rows.persons[other])
    current, there = numbers_at(rows.persons, one, places)
    both = current != old if there is None else there & (current != old)
    return _aliases(current[both], old[both])


def _renamed(written: Held, tokens: Ints, names: Ints) -> Held:
    """These with the name of each one's chain in place of its token, in order."""
    if not len(tokens):
        return written
    maybe = np.flatnonzero(maybe_among(tokens, written.number))
    found, places = contains(tokens, written.number[maybe])
    other = names[places[found]] != written.number[maybe[found]]
    moved = maybe[found][other]
    gone = np.zeros(len(written.rec), np.bool_)
    gone[moved] = True
    return _joined(written.without(gone), _once(names[places[found][other]], written.rec[moved]))


def _aliases(current: Ints, old: Ints) -> tuple[Ints, Ints]:
    """The numbers of chains of supersessions of at most ALIAS_CAP numbers, in order, and the least of each one's chain.

    Says what `identifiers.least_of_aliases` says.
    """
    every, places = np.unique(np.concatenate([current, old]), return_inverse=True)
    chain = components(len(every), places[: len(current)], places[len(current) :])
    short = np.bincount(chain, minlength=len(every))[chain] <= ALIAS_CAP
    return every[short], every[chain[short]]


def _shared(rows: Numbered, held: Held, starts: Ints, ends: Ints) -> Ints:
    """The groups in which one flow has too many holders: over one, or HOLDER_CAP where it may hold a person twice."""
    sizes = ends - starts
    group = np.repeat(np.arange(len(starts)), sizes)
    some = (sizes > 1)[group]
    group, source = group[some], rows.source[held.rec[some]].astype(np.int64)
    both = group * max(1, len(rows.sources)) + source  # sorted: within a number records are in order, and so flows
    first, last = groups_of(both)
    over = last - first > np.where(rows.may_repeat[source[first]], HOLDER_CAP, 1)
    return np.unique(group[first[over]])


def _valid(column: pa.ChunkedArray) -> tuple[Ints, Ints]:
    """The rows of a column that hold a value, and the values."""
    rows = pc.indices_nonzero(pc.is_valid(column)).to_numpy().astype(np.int64)
    return rows, np.asarray(column.drop_null().to_numpy(), np.int64)
