"""Who holds which strong identifier, as arrays: the rules of `identifiers`, for a whole run at once.

`identifiers` says the same in SQL for searches and for one pair; tests hold both equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.identifiers import ALIAS_CAP, ALL_SCHEMES, HOLDER_CAP, LOCAL, SCHEMES, SPREAD
from linkage.matching.numbering import (
    Digests,
    Flags,
    Ints,
    Numbered,
    components,
    contains,
    ends_of,
    groups_of,
    maybe_among,
    mixed,
    order_of,
    packed,
    packed_pairs,
    pairs_within,
    ramp,
    repeated,
)

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

    def digest(self) -> Digests:
        """By record: a digest of the numbers it holds."""
        total = np.zeros(self.records, np.uint64)
        for n, scheme in enumerate(ALL_SCHEMES):
            held = self.held[scheme]
            np.add.at(total, held.rec, mixed(held.number, n))
        return total

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


def holders_of(rows: Numbered) -> tuple[Holders, dict[str, int]]:
    """The numbers of all records, and how many of each scheme carry no weight, as too many records hold them."""
    held: dict[str, Held] = {}
    dropped: dict[str, int] = {}
    for scheme, names in [*SCHEMES.items(), (LOCAL, (LOCAL,))]:
        one = _named(rows, names)
        starts, ends = groups_of(one.number)
        shared = _shared(rows, one, starts, ends)
        if len(shared):
            dropped[scheme] = len(shared)
            gone = np.zeros(len(starts), np.bool_)
            gone[shared] = True
            one = one.without(np.repeat(gone, ends - starts))
        held[scheme] = one
    return Holders(held=held, records=rows.records), dropped


def _named(rows: Numbered, names: tuple[str, ...]) -> Held:
    """The numbers in these columns, the current one first, each named by the least of its chain."""
    tokens, recs = [], []
    for name in names:
        column = rows.persons[f"id_{name}"]
        held, values = _valid(column)
        tokens.append(values)
        recs.append(rows.rec[held])
    number, rec = np.concatenate(tokens), np.concatenate(recs).astype(np.int64)
    for former in names[1:]:
        current, old = rows.persons[f"id_{names[0]}"], rows.persons[f"id_{former}"]
        both = pc.fill_null(pc.not_equal(current, old), False)
        aliases, least = _aliases(*(np.asarray(side.filter(both).to_numpy(), np.int64) for side in (current, old)))
        number = _replaced(number, aliases, least)
    order = order_of(number)
    some = repeated(number[order])
    order[some] = order[some][np.lexsort((rec[order[some]], number[order[some]]))]
    number, rec = number[order], rec[order]
    again = np.zeros(len(rec), np.bool_)
    again[1:] = (number[1:] == number[:-1]) & (rec[1:] == rec[:-1])
    return Held(number=number[~again], rec=rec[~again])


def _aliases(current: Ints, old: Ints) -> tuple[Ints, Ints]:
    """The numbers of chains of supersessions of at most ALIAS_CAP numbers, in order, and the least of each one's chain.

    Says what `identifiers.least_of_aliases` says.
    """
    every, places = np.unique(np.concatenate([current, old]), return_inverse=True)
    chain = components(len(every), places[: len(current)], places[len(current) :])
    short = np.bincount(chain, minlength=len(every))[chain] <= ALIAS_CAP
    return every[short], every[chain[short]]


def _replaced(numbers: Ints, aliases: Ints, least: Ints) -> Ints:
    """These numbers, each alias by the least of its chain."""
    if not len(aliases):
        return numbers
    some = np.flatnonzero(maybe_among(aliases, numbers))
    found, places = contains(aliases, numbers[some])
    numbers[some[found]] = least[places[found]]
    return numbers


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
