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
import pyarrow.compute as pc

from linkage.matching.arrays import Flags, Ints, Places, components, contains, maybe_among, packed_pairs
from linkage.matching.bands import HELD, MATCH_BAR, MATCHED, POSSIBLE_BAR, UPPER_BAR, banded
from linkage.matching.comparisons import DOB_EQUAL, FAR, FIELDS, NAME_ALIKE, NAME_CLOSE, NAME_ONES
from linkage.matching.holders import CONFLICTING, Bits, Holders
from linkage.matching.identifiers import ALL_SCHEMES
from linkage.matching.numbering import Numbered
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
LOOK: Final = 1
TIE: Final = 2
BARS: Final = (POSSIBLE_BAR, MATCH_BAR, UPPER_BAR)
MOST_YEARS: Final = 200  # between two births; more are as many
BARRED: Final = ("twin", "swapped")  # rules whose pairs share no person, not through a third record either

Codes = npt.NDArray[np.int8]
Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the rules say of each scored pair, in their order: its place in RULES, whether it matches, its bar."""

    rule: Codes
    upper: Flags
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
    """Persons: for each record the least record of its person; and what became of each pair, in order.

    `review` is LOOK for a pair that a link reviewer should look at, TIE if it is one because others fitted equally
    well, and else 0.  `spread` are the numbers that too many persons hold.  `near` are the records settled anew; None
    if all were: persons of others are as they were.
    """

    person: Ints
    judged: Judged
    review: Codes
    spread: Mapping[str, Ints]
    near: Flags | None = None

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """What the next run takes over for pairs that settle as before: see JUDGED."""
        said = self.judged
        return {"rule": said.rule, "upper": said.upper, "agreed": said.agreed, "differs": said.differs,
                "review": self.review}  # fmt: skip


SCORED_RECORDS: Final = pa.schema([("rec_l", pa.int32()), ("rec_r", pa.int32())])
JUDGED: Final = pa.schema([
    ("rule", pa.int8()), ("upper", pa.bool_()), ("agreed", pa.int16()), ("differs", pa.int16()), ("review", pa.int8()),
])  # fmt: skip
"""The columns that `Settled.columns` holds."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What the run before came to: by record its person (any number, equal for one person), by pair JUDGED.

    `open` are the records about which anything is new: only whoever they reach settles in another way.
    """

    person: Ints
    judged: pa.Table
    open: Flags


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """What people have decided, as packed pairs of records."""

    apart: frozenset[Pair]
    joined: frozenset[Pair]
    severed: frozenset[Pair] = frozenset()  # of `apart`, those for good

    def records(self) -> Ints:
        """Whom anything was decided about."""
        return np.unique(np.array([*self.apart, *self.joined], np.int64).ravel())

    def renamed(self, number: Ints) -> ByHand:
        """The same by other numbers of the records."""
        apart, joined, severed = (
            frozenset((int(number[one]), int(number[other])) for one, other in pairs)
            for pairs in (self.apart, self.joined, self.severed)
        )
        return ByHand(apart=apart, joined=joined, severed=severed)


@dataclass(frozen=True, kw_only=True)
class Among:
    """Records by number: the flow of each, and by flow whether it may hold a person twice."""

    source: Places
    may_repeat: Flags

    @property
    def records(self) -> int:
        """How many there are."""
        return len(self.source)


def settle(
    connection: duckdb.DuckDBPyConnection,
    rows: Numbered,
    pairs: pa.Table,
    holders: Holders,
    by_hand: ByHand,
    agreed: tuple[Ints, Bits] | None = None,
    earlier: Earlier | None = None,
) -> Settled:
    """Persons of these pairs, less those that people have set apart, which hold nothing.

    `pairs` are of comparing.SCORED, with `one_home`, in order; `agreed` is that of `holders`, if it is known already
    and all is settled.
    Rules act along pairs, numbers that two records share, and what people have decided: so with `earlier` only
    those are settled anew whom these lead to from a record that is `open`, and the others are as they were.
    """
    left, right = (pairs[f"rec_{side}"].to_numpy() for side in "lr")
    live = ~contains(np.unique(packed_pairs(*_columns(by_hand.apart))), packed_pairs(left, right))[0]
    if earlier is None:
        among = Among(source=rows.source, may_repeat=rows.may_repeat)
        return _all_settled(connection, among, pairs, live, holders, by_hand, agreed)
    near = _reached(earlier.open, left, right, holders)
    recs = np.flatnonzero(near)
    number = np.cumsum(near) - 1
    places = np.flatnonzero(near[left])
    some = pairs.take(pa.array(places))
    for n, side in enumerate((left, right)):
        some = some.set_column(n, SCORED_RECORDS.field(n), pa.array(number[side[places]].astype(np.int32)))
    anew = _all_settled(
        connection, Among(source=rows.source[recs], may_repeat=rows.may_repeat), some, live[places],
        holders.among(near, number), by_hand.renamed(number), None,
    )  # fmt: skip
    columns = {name: np.array(earlier.judged[name].to_numpy(zero_copy_only=False)) for name in JUDGED.names}
    for name, column in anew.columns().items():
        columns[name][places] = column
    person = np.arange(rows.records, dtype=np.int64)
    others = np.flatnonzero(~near)
    least = np.zeros(int(earlier.person.max(initial=0)) + 1, np.int64)
    least[earlier.person[others[::-1]]] = others[::-1]  # the last to be written is the least
    person[others] = least[earlier.person[others]]
    person[recs] = recs[anew.person]
    review = columns.pop("review")
    return Settled(person=person, judged=Judged(**columns), review=review, spread=anew.spread, near=near)


def _reached(open_records: Flags, left: Places, right: Places, holders: Holders) -> Flags:
    """Whom the open records reach, by pairs and by numbers shared."""
    near = open_records.copy()
    edges: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [(left, right), holders.beside()]
    while True:
        reached = False
        for one, other in edges:
            crossing = np.flatnonzero(near[one] != near[other])
            if len(crossing):
                near[one[crossing]] = near[other[crossing]] = reached = True
        if not reached:
            return near


def _all_settled(
    connection: duckdb.DuckDBPyConnection, rows: Among, pairs: pa.Table, live: Flags, holders: Holders,
    by_hand: ByHand, agreed: tuple[Ints, Bits] | None,
) -> Settled:  # fmt: skip
    """Band and cluster, and again without the numbers that more than SPREAD persons then hold."""
    places = np.flatnonzero(live)
    some = pairs if live.all() else pairs.take(pa.array(places))
    over: dict[str, list[Ints]] = defaultdict(list)
    while True:
        judged = _judged(connection, rows, some, holders, agreed or holders.agreed(), by_hand.severed)
        person, ties = _clustered(connection, rows, some, judged, holders, by_hand)
        spread = holders.spread(person)
        if not spread:
            break
        for scheme, numbers in spread.items():
            over[scheme].append(numbers)
        holders, agreed = holders.without(spread), None
    review = _review(rows, some, judged, person, ties, by_hand.apart)
    whole = {
        "rule": np.full(pairs.num_rows, RULES.index(NO_RULE), np.int8), "upper": np.zeros(pairs.num_rows, np.bool_),
        "agreed": np.zeros(pairs.num_rows, np.int16), "differs": np.zeros(pairs.num_rows, np.int16),
        "review": np.zeros(pairs.num_rows, np.int8),
    }  # fmt: skip
    found = Settled(person=person, judged=judged, review=review, spread={})
    for name, column in found.columns().items():
        whole[name][places] = column
    review = whole.pop("review")
    return Settled(
        person=person, judged=Judged(**whole), review=review,
        spread={scheme: np.concatenate(numbers) for scheme, numbers in over.items()},
    )  # fmt: skip


def worth_keeping(connection: duckdb.DuckDBPyConnection, pairs: pa.Table, agreed: tuple[Ints, Bits]) -> Flags:
    """Whether a pair could come to matter, whatever becomes of numbers: the others are `none` and hold nobody.

    Asked of the rules themselves: without any number, and with one that differs.  `agreed`: see Holders.agreed.
    """
    nothing = np.zeros(pairs.num_rows, np.int16)
    first, of = _alike(pairs, nothing, nothing)
    few = pairs.take(pa.array(first))
    kept = np.zeros(len(first), np.bool_)
    connection.register("judging_in", few.append_column("n", pa.array(np.arange(len(first)))))
    for differs in ("[]", f"['{ALL_SCHEMES[0]}']"):
        imagined = f"SELECT *, []::VARCHAR[] AS id_agreed, {differs}::VARCHAR[] AS id_differs FROM judging_in"
        found = connection.execute(f"SELECT n FROM ({banded(f'({imagined})')}) WHERE rule <> '{NO_RULE}'")
        kept[found.fetchnumpy()["n"]] = True
    connection.unregister("judging_in")
    keep: Flags = (kept | _near(few))[of]
    others = np.flatnonzero(~keep)
    both = packed_pairs(*(pairs[f"rec_{side}"].to_numpy()[others] for side in "lr"))
    maybe = np.flatnonzero(maybe_among(agreed[0], both))
    keep[others[maybe]] = contains(agreed[0], both[maybe])[0]
    return keep


def _alike(pairs: pa.Table, agreed: Bits, differs: Bits) -> tuple[Ints, Ints]:
    """One pair of each kind that the rules can tell apart, and for each pair the place of its kind among these.

    They go by levels and numbers, by which bars the probability reaches, by how far apart two birth years are, and by
    whether two records are of one home: of these few combinations occur.
    """
    code = agreed.astype(np.int64) << len(ALL_SCHEMES) | differs
    for field in FIELDS:
        code = code << LEVEL_BITS | (pairs[f"gamma_{field}"].to_numpy() + 1)
    code = code << 2 | np.searchsorted(np.array(BARS), pairs["probability"].to_numpy(), side="right")
    code = code << 1 | pairs["one_home"].to_numpy()
    years = pc.abs(pc.subtract(pairs["birth_year_l"], pairs["birth_year_r"]))
    apart = np.minimum(pc.fill_null(years, MOST_YEARS + 1).to_numpy(), MOST_YEARS + 1)
    apart[pc.is_null(years).to_numpy()] = MOST_YEARS + 2
    return _each(code << 8 | apart)


def _each(codes: Ints) -> tuple[Ints, Ints]:
    """Where each code is first, and for all the place of their own among these."""
    coded = pc.dictionary_encode(pa.array(codes))
    of = coded.indices.to_numpy().astype(np.int64)
    first = np.empty(len(coded.dictionary), np.int64)
    first[of[::-1]] = np.arange(len(of) - 1, -1, -1)  # the last to be written is the first
    return first, of


def _judged(
    connection: duckdb.DuckDBPyConnection,
    rows: Among,
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
    return Judged(rule=rule, upper=upper, agreed=agreed, differs=differs)


def contains_pairs(agreed: tuple[Ints, Bits], both: Ints) -> tuple[Flags, Bits]:
    """Which pairs share a number, and the schemes in which they do."""
    found, places = contains(agreed[0], both)
    return found, agreed[1][places] if len(agreed[1]) else np.zeros(len(both), np.int16)


def _banded(
    connection: duckdb.DuckDBPyConnection, pairs: pa.Table, agreed: Bits, differs: Bits
) -> dict[str, npt.NDArray[Any]]:
    """Place of the rule in RULES and `upper` of each pair, by the SQL of `bands`."""
    first, of = _alike(pairs, agreed, differs)
    connection.register("judging_in", _with_numbers(pairs.take(pa.array(first)), agreed[first], differs[first]))
    found = connection.execute(f"""
        SELECT (list_position({list(RULES)!r}, rule) - 1)::TINYINT AS rule, coalesce(upper, false) AS upper
        FROM ({banded(f"({_named_schemes(connection)})")}) ORDER BY n
    """).fetchnumpy()
    connection.unregister("judging_in")
    return {"rule": np.asarray(found["rule"], np.int8)[of], "upper": np.asarray(found["upper"], np.bool_)[of]}


def _rounded(connection: duckdb.DuckDBPyConnection, weights: npt.NDArray[np.float64]) -> list[float]:
    """Weights to six places, as SQL rounds them."""
    connection.register("weights_in", pa.table({"n": np.arange(len(weights)), "weight": weights}))
    found = connection.execute("SELECT round(weight, 6) AS rounded FROM weights_in ORDER BY n").fetchnumpy()
    connection.unregister("weights_in")
    return [float(one) for one in np.asarray(found["rounded"], np.float64)]


def fields_said(connection: duckdb.DuckDBPyConnection, pairs: pa.Table, agreed: Bits, differs: Bits) -> pa.Table:
    """The columns `agreed` and `differs` of each pair: fields and schemes.

    They hang on levels and numbers alone, of which few combinations occur: each is put into words once.
    """
    code = agreed.astype(np.int64) << len(ALL_SCHEMES) | differs
    for field in FIELDS:
        code = code << LEVEL_BITS | (pairs[f"gamma_{field}"].to_numpy() + 1)
    first, of = _each(code)
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


def _by_a_sever(rows: Among, pairs: pa.Table, rule: Codes, severed: Iterable[Pair]) -> Ints:
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


def _swapped(rows: Among, pairs: pa.Table, rule: Codes, agreed: Bits, differs: Bits) -> Ints:
    """A number of one child under the name of another: the names fit a third record, which has a number of its own or
    which the second record's flow holds as somebody else."""
    left, right = (pairs[f"rec_{side}"].to_numpy().astype(np.int64) for side in "lr")
    given = pairs["gamma_given_name"].to_numpy()
    far = np.flatnonzero((rule == RULES.index("identifier")) & (given >= FAR) & (given < NAME_ONES))
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


def _clustered(
    connection: duckdb.DuckDBPyConnection,
    rows: Among,
    pairs: pa.Table,
    judged: Judged,
    holders: Holders,
    by_hand: ByHand,
) -> tuple[Ints, Ints]:
    """The least record of each record's person, and the ties."""
    left, right = (pairs[f"rec_{side}"].to_numpy().astype(np.int64) for side in "lr")
    weight = pairs["weight"].to_numpy()
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
            left[mine].tolist(),
            right[mine].tolist(),
            by_number.tolist(),
            _rounded(connection, weight[mine]),
            strict=True,
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


def _broken(rows: Among, person: Ints, holders: Holders, kept_apart: list[Ints]) -> Flags:
    """By record, of the components' least: not everyone in it may be one person."""
    broken = np.zeros(rows.records, np.bool_)
    bound = np.flatnonzero(~rows.may_repeat[rows.source])
    both = np.sort(person[bound] * max(1, len(rows.may_repeat)) + rows.source[bound])
    broken[both[1:][both[1:] == both[:-1]] // max(1, len(rows.may_repeat))] = True
    broken[holders.several(person)] = True
    one, other = person[kept_apart[0]], person[kept_apart[1]]
    broken[one[one == other]] = True
    return broken


def _review(rows: Among, pairs: pa.Table, judged: Judged, person: Ints, ties: Ints, apart: Iterable[Pair]) -> Codes:
    """Of each pair whether a link reviewer should look at it: see Settled.

    Pairs held or uncertain that could still be one person, as no flow holds the two as two already; and pairs dropped
    because others fitted equally well.  Never a pair of two persons whom people have set `apart`, by whichever records.
    """
    left, right = (pairs[f"rec_{side}"].to_numpy().astype(np.int64) for side in "lr")
    tied = contains(ties, packed_pairs(left, right))[0]
    open_pairs = np.flatnonzero((judged.said & ~judged.match & (person[left] != person[right])) | tied)
    left, right, tied = person[left[open_pairs]], person[right[open_pairs]], tied[open_pairs]
    some = np.zeros(rows.records, np.bool_)
    some[left] = some[right] = True
    bound = np.flatnonzero(some[person] & ~rows.may_repeat[rows.source])
    wanted = ~tied
    for start in range(0, len(rows.may_repeat), SOURCE_BITS):
        held = np.zeros(rows.records, np.int64)
        here = bound[(rows.source[bound] >= start) & (rows.source[bound] < start + SOURCE_BITS)]
        np.bitwise_or.at(held, person[here], np.int64(1) << (rows.source[here] - start).astype(np.int64))
        wanted &= (held[left] & held[right]) == 0
    settled_apart = np.unique(packed_pairs(*(person[side] for side in _columns(apart))))
    allowed = ~contains(settled_apart, packed_pairs(left, right))[0]
    review = np.zeros(pairs.num_rows, np.int8)
    review[open_pairs[wanted & allowed]] = LOOK
    review[open_pairs[tied & allowed]] = TIE
    return review


def _columns(pairs: Iterable[Pair]) -> tuple[Ints, Ints]:
    held = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return held[:, 0], held[:, 1]


def _others(pairs: Iterable[tuple[int, ...]]) -> dict[int, set[int]]:
    others: dict[int, set[int]] = defaultdict(set)
    for left, right in pairs:
        others[left].add(right)
        others[right].add(left)
    return others
