"""From scored pairs to persons, for all pairs at once: bands, what holds a pair, clusters, and what is left to people.

The rules are those of `bands` (SQL) and of `persons` (the plain algorithm).  Most clusters break no rule however they
came about; for these the connected component is the cluster, and only the others go through `persons.cluster`.
"""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from linkage.matching.bands import HELD, MATCHED, banded
from linkage.matching.comparisons import DOB_EQUAL, FAR, FIELDS, NAME_ALIKE, NAME_CLOSE
from linkage.matching.holders import CONFLICTING, Bits, Holders
from linkage.matching.identifiers import ALL_SCHEMES
from linkage.matching.numbering import Flags, Ints, Numbered, contains, packed_pairs
from linkage.matching.persons import Edge, Rules, cluster

if TYPE_CHECKING:
    import duckdb

BY_HAND: Final = 0
BY_NUMBER: Final = 1
BY_MODEL: Final = 2
NO_RULE: Final = "none"
RULES: Final = (*MATCHED, *HELD, NO_RULE)
LEVEL_BITS: Final = 5  # a level, and one for "not comparable", fit in so many bits
SOURCE_BITS: Final = 63
BARRED: Final = ("twin", "swapped")  # rules whose pairs share no person, not through a third record either

Codes = npt.NDArray[np.int8]
Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the rules say of each scored pair, in their order: its place in RULES, whether it matches, its bar."""

    rule: Codes
    upper: Flags
    strength: npt.NDArray[np.float64]
    agreed: Bits
    differs: Bits

    @property
    def match(self) -> Flags:
        """The pairs that make persons."""
        return np.asarray(self.rule < len(MATCHED))

    @property
    def said(self) -> Flags:
        """The pairs that reach `possible` or more."""
        return np.asarray(self.rule != RULES.index(NO_RULE))

    def ruled(self, rules: Iterable[str]) -> Flags:
        """The pairs that one of these rules has decided."""
        return np.isin(self.rule, [RULES.index(rule) for rule in rules])


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Persons: for each record the least record of its person; the pairs as judged, and the ties (packed)."""

    person: Ints
    judged: Judged
    ties: Ints
    over_shared: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """What people have decided, as packed pairs of records."""

    apart: frozenset[Pair]
    joined: frozenset[Pair]
    severed: frozenset[Pair] = frozenset()  # of `apart`, those for good


def settle(
    connection: duckdb.DuckDBPyConnection,
    rows: Numbered,
    pairs: pa.Table,
    holders: Holders,
    by_hand: ByHand,
    agreed: tuple[Ints, Bits] | None = None,
) -> Settled:
    """Band and cluster, and again without the numbers that more than SPREAD persons then hold.

    `pairs` are of comparing.SCORED, with `one_home`, in order; `agreed` is that of `holders`, if it is known already.
    """
    over: dict[str, int] = defaultdict(int)
    left, right = (pairs[f"rec_{side}"].to_numpy().astype(np.int64) for side in "lr")
    while True:
        judged = _judged(connection, rows, pairs, holders, agreed or holders.agreed(), by_hand.severed)
        person, ties = _clustered(rows, left, right, judged, holders, by_hand)
        spread = holders.spread(person)
        if not spread:
            return Settled(person=person, judged=judged, ties=ties, over_shared=over)
        for scheme, numbers in spread.items():
            over[scheme] += len(numbers)
        holders, agreed = holders.without(spread), None


def without(pairs: pa.Table, apart: Iterable[Pair]) -> pa.Table:
    """The pairs less those that people have set apart."""
    gone = np.unique(packed_pairs(*_columns(apart)))
    if not len(gone):
        return pairs
    both = packed_pairs(pairs["rec_l"].to_numpy(), pairs["rec_r"].to_numpy())
    return pairs.filter(pa.array(~contains(gone, both)[0]))


def worth_keeping(connection: duckdb.DuckDBPyConnection, pairs: pa.Table, agreed: tuple[Ints, Bits]) -> Flags:
    """Whether a pair could come to matter, whatever becomes of numbers: the others are `none` and hold nobody.

    Asked of the rules themselves: without any number, and with one that differs.  `agreed`: see Holders.agreed.
    """
    both = packed_pairs(pairs["rec_l"].to_numpy(), pairs["rec_r"].to_numpy())
    keep = contains(agreed[0], both)[0] | _near(pairs)
    connection.register("judging_in", pairs.append_column("n", pa.array(np.arange(len(both)))))
    for differs in ("[]", f"['{ALL_SCHEMES[0]}']"):
        imagined = f"SELECT *, []::VARCHAR[] AS id_agreed, {differs}::VARCHAR[] AS id_differs FROM judging_in"
        found = connection.execute(f"SELECT n FROM ({banded(f'({imagined})')}) WHERE rule <> '{NO_RULE}'").fetchnumpy()[
            "n"
        ]
        keep[found] = True
    connection.unregister("judging_in")
    return keep


def _judged(
    connection: duckdb.DuckDBPyConnection,
    rows: Numbered,
    pairs: pa.Table,
    holders: Holders,
    shared: tuple[Ints, Bits],
    severed: Iterable[Pair],
) -> Judged:
    left, right = (pairs[f"rec_{side}"].to_numpy() for side in "lr")
    found, places = contains_pairs(shared, packed_pairs(left, right))
    has = holders.has()
    agreed = np.where(found, places, np.int16(0)).astype(np.int16)
    differs = (has[left] & has[right] & ~agreed & CONFLICTING).astype(np.int16)
    said = _banded(connection, pairs, agreed, differs)
    rule, upper = said["rule"], said["upper"]
    swapped = _swapped(rows, pairs, rule, agreed, differs)
    rule[swapped], upper[swapped] = RULES.index("swapped"), False
    doubted = _by_a_sever(rows, pairs, rule, severed)
    rule[doubted], upper[doubted] = RULES.index("uncertain"), False
    return Judged(rule=rule, upper=upper, strength=said["strength"], agreed=agreed, differs=differs)


def contains_pairs(agreed: tuple[Ints, Bits], both: Ints) -> tuple[Flags, Bits]:
    """Which pairs share a number, and the schemes in which they do."""
    found, places = contains(agreed[0], both)
    return found, agreed[1][places] if len(agreed[1]) else np.zeros(len(both), np.int16)


def _banded(
    connection: duckdb.DuckDBPyConnection, pairs: pa.Table, agreed: Bits, differs: Bits
) -> dict[str, npt.NDArray[Any]]:
    """Place of the rule in RULES, `upper` and the rounded weight of each pair, by the SQL of `bands`."""
    connection.register("judging_in", _with_numbers(pairs, agreed, differs))
    found = connection.execute(f"""
        SELECT n, (list_position({list(RULES)!r}, rule) - 1)::TINYINT AS rule, upper, round(weight, 6) AS strength
        FROM ({banded(f"({_named_schemes(connection)})")})
    """).fetchnumpy()
    connection.unregister("judging_in")
    order = np.empty(len(found["n"]), np.int64)
    order[found["n"]] = np.arange(len(order))
    return {
        "rule": np.asarray(found["rule"], np.int8)[order],
        "upper": np.asarray(np.ma.filled(found["upper"], False), np.bool_)[order],
        "strength": np.asarray(found["strength"], np.float64)[order],
    }


def fields_said(connection: duckdb.DuckDBPyConnection, pairs: pa.Table, agreed: Bits, differs: Bits) -> pa.Table:
    """The columns `agreed` and `differs` of each pair: fields and schemes.

    They hang on levels and numbers alone, of which few combinations occur: each is put into words once.
    """
    code = agreed.astype(np.int64) << len(ALL_SCHEMES) | differs
    for field in FIELDS:
        code = code << LEVEL_BITS | (pairs[f"gamma_{field}"].to_numpy() + 1)
    _, first, of = np.unique(code, return_index=True, return_inverse=True)
    few = _with_numbers(pairs.take(pa.array(first)), agreed[first], differs[first])
    connection.register("judging_in", few)
    found = connection.sql(
        f"SELECT agreed, differs FROM ({banded(f'({_named_schemes(connection)})')}) ORDER BY n"
    ).to_arrow_table()
    connection.unregister("judging_in")
    return found.combine_chunks().take(pa.array(of))


def _with_numbers(pairs: pa.Table, agreed: Bits, differs: Bits) -> pa.Table:
    columns = {"n": np.arange(len(agreed)), "agreed_bits": agreed, "differs_bits": differs}
    for name, column in columns.items():
        pairs = pairs.append_column(name, pa.array(column))
    return pairs


def _named_schemes(connection: duckdb.DuckDBPyConnection) -> str:
    """SQL: the pairs of `judging_in` with the schemes of their bits, as lists."""
    every = range(1 << len(ALL_SCHEMES))
    names = [[scheme for n, scheme in enumerate(ALL_SCHEMES) if bits >> n & 1] for bits in every]
    lists = {"bits": pa.array(every, pa.int16()), "names": pa.array(names, pa.list_(pa.string()))}
    connection.register("schemes_in", pa.table(lists))
    return """
        SELECT p.*, a.names AS id_agreed, d.names AS id_differs
        FROM judging_in p
        JOIN schemes_in a ON p.agreed_bits = a.bits JOIN schemes_in d ON p.differs_bits = d.bits
    """


def _near(pairs: pa.Table) -> Flags:
    """Names alike and one date of birth."""
    given, family, born = (pairs[f"gamma_{name}"].to_numpy() for name in ("given_name", "family_name", "date_of_birth"))
    return np.asarray((given >= NAME_CLOSE) & (family >= NAME_CLOSE) & (born == DOB_EQUAL))


def _by_a_sever(rows: Numbered, pairs: pa.Table, rule: Codes, severed: Iterable[Pair]) -> Ints:
    """Pairs that only their given name, date and home hold together, where one of them has matched its way to an end of
    a sever: a child's name before an adoption and after it look like that.  Called uncertain, as naming it would tell.
    """
    left, right = (pairs[f"rec_{side}"].to_numpy().astype(np.int64) for side in "lr")
    near = np.zeros(rows.records, np.bool_)
    for ends in _columns(severed):
        near[ends] = True
    if not near.any():
        return np.array([], np.int64)
    match = rule < len(MATCHED)
    doubtful = (rule == RULES.index("two_fields")) & (pairs["gamma_family_name"].to_numpy() < NAME_ALIKE)
    sure = match & ~doubtful
    reached = -1
    while reached != (reached := int(near.sum())):
        touched = sure & (near[left] | near[right])
        near[left[touched]] = near[right[touched]] = True
    return np.flatnonzero(doubtful & (near[left] | near[right]))


def _swapped(rows: Numbered, pairs: pa.Table, rule: Codes, agreed: Bits, differs: Bits) -> Ints:
    """A number of one child under the name of another: the names fit a third record, which has a number of its own or
    which the second record's flow holds as somebody else."""
    left, right = (pairs[f"rec_{side}"].to_numpy().astype(np.int64) for side in "lr")
    given = pairs["gamma_given_name"].to_numpy()
    far = np.flatnonzero((rule == RULES.index("identifier")) & (given >= FAR) & (given < NAME_ALIKE))
    if not len(far):
        return far
    ends = np.zeros(rows.records, np.bool_)
    ends[left[far]] = ends[right[far]] = True
    near = np.flatnonzero(_near(pairs) & (agreed == 0) & (ends[left] | ends[right]))
    fits: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for one, other, another_number in zip(
        left[near].tolist(), right[near].tolist(), (differs[near] != 0).tolist(), strict=True
    ):
        fits[one].append((other, another_number))
        fits[other].append((one, another_number))

    def rival(rec: int, other: int) -> bool:
        source = rows.source[other]
        return any(
            another_number or (rows.source[third] == source and not rows.may_repeat[source])
            for third, another_number in fits.get(rec, ())
        )

    held = [
        place
        for place, one, other in zip(far.tolist(), left[far].tolist(), right[far].tolist(), strict=True)
        if rival(one, other) or rival(other, one)
    ]
    return np.array(held, np.int64)


# --- Clusters --------------------------------------------------------------------------------------------------------


def components(count: int, left: Ints, right: Ints) -> Ints:
    """For each of `count` nodes the least node that edges connect it with.

    Each round hooks every root to the least neighbouring one and halves the paths: a few rounds, as components are
    small.  Source: Shiloach and Vishkin 1982, doi:10.1016/0196-6774(82)90008-6.
    """
    least = np.arange(count, dtype=np.int64)
    while len(left):
        one, other = least[left], least[right]
        apart = one != other
        left, right, one, other = left[apart], right[apart], one[apart], other[apart]
        np.minimum.at(least, np.maximum(one, other), np.minimum(one, other))
        while True:
            above = least[least]
            if np.array_equal(above, least):
                break
            least = above
    return least


def _clustered(
    rows: Numbered, left: Ints, right: Ints, judged: Judged, holders: Holders, by_hand: ByHand
) -> tuple[Ints, Ints]:
    """The least record of each record's person, and the ties."""
    match = np.flatnonzero(judged.match)
    hands = _columns(by_hand.joined)
    person = components(rows.records, np.concatenate([left[match], hands[0]]), np.concatenate([right[match], hands[1]]))
    held = np.flatnonzero(judged.ruled(BARRED))
    apart = _columns(by_hand.apart)
    kept_apart = [np.concatenate([side[held], mine]) for side, mine in zip((left, right), apart, strict=True)]
    broken = _broken(rows, person, holders, kept_apart)
    if not broken.any():
        return person, np.zeros(0, np.int64)
    among = broken[person]
    edges = [Edge(left=one, right=other, strength=(BY_HAND, 0.0)) for one, other in by_hand.joined if among[one]]
    mine = match[among[left[match]]]
    by_number = judged.rule[mine] == RULES.index("identifier")
    edges += [
        Edge(left=one, right=other, strength=(BY_NUMBER if number else BY_MODEL, -weight))
        for one, other, number, weight in zip(
            left[mine].tolist(), right[mine].tolist(), by_number.tolist(), judged.strength[mine].tolist(), strict=True
        )
    ]
    bound = np.flatnonzero(among & ~rows.may_repeat[rows.source])
    partition = cluster(
        edges,
        Rules(
            source=dict(zip(bound.tolist(), rows.source[bound].tolist(), strict=True)),
            numbers=holders.of(among),
            apart=_others(pair for pair in by_hand.apart if among[pair[0]] or among[pair[1]]),
            held=_others(
                zip(
                    *(side[held][among[left[held]] | among[right[held]]].tolist() for side in (left, right)),
                    strict=True,
                )
            ),
        ),
    )
    person[among] = np.flatnonzero(among)
    for members in partition.clusters():
        person[list(members)] = min(members)
    ties = [
        (edge.left, edge.right) for edge in partition.ties if partition.of(edge.left) is not partition.of(edge.right)
    ]
    return person, np.unique(packed_pairs(*_columns(ties)))


def _broken(rows: Numbered, person: Ints, holders: Holders, kept_apart: list[Ints]) -> Flags:
    """By record, of the components' least: not everyone in it may be one person."""
    broken = np.zeros(rows.records, np.bool_)
    bound = np.flatnonzero(~rows.may_repeat[rows.source])
    both = np.sort(person[bound] * max(1, len(rows.sources)) + rows.source[bound])
    broken[both[1:][both[1:] == both[:-1]] // max(1, len(rows.sources))] = True
    broken[holders.several(person)] = True
    one, other = person[kept_apart[0]], person[kept_apart[1]]
    broken[one[one == other]] = True
    return broken


def reviewed(
    rows: Numbered, pairs: pa.Table, settled: Settled, apart: Iterable[Pair]
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The places of the pairs that a link reviewer should look at, in order, and which of them are ties.

    Pairs held or uncertain that could still be one person, as no flow holds the two as two already; and pairs dropped
    because others fitted equally well.  Never a pair of two persons whom people have set `apart`, by whichever records.
    """
    left, right = (pairs[f"rec_{side}"].to_numpy().astype(np.int64) for side in "lr")
    tied = contains(settled.ties, packed_pairs(left, right))[0]
    person = settled.person
    wanted = settled.judged.said & ~settled.judged.match & (person[left] != person[right])
    some = np.zeros(rows.records, np.bool_)
    some[person[left[wanted]]] = some[person[right[wanted]]] = True
    bound = np.flatnonzero(some[person] & ~rows.may_repeat[rows.source])
    for start in range(0, len(rows.sources), SOURCE_BITS):
        held = np.zeros(rows.records, np.int64)
        here = bound[(rows.source[bound] >= start) & (rows.source[bound] < start + SOURCE_BITS)]
        np.bitwise_or.at(held, person[here], np.int64(1) << (rows.source[here] - start).astype(np.int64))
        wanted &= (held[person[left]] & held[person[right]]) == 0
    settled_apart = np.unique(packed_pairs(*(person[side] for side in _columns(apart))))
    places = np.flatnonzero((wanted | tied) & ~contains(settled_apart, packed_pairs(person[left], person[right]))[0])
    return places, tied[places]


def _columns(pairs: Iterable[Pair]) -> tuple[Ints, Ints]:
    held = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return held[:, 0], held[:, 1]


def _others(pairs: Iterable[tuple[int, ...]]) -> dict[int, set[int]]:
    others: dict[int, set[int]] = defaultdict(set)
    for left, right in pairs:
        others[left].add(right)
        others[right].add(left)
    return others
