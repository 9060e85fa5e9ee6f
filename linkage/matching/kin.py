"""The family network by number: edges between persons as agencies stated them, of which a night draws what is new.

An edge hangs on the statements about its two ends, on who else lives there, and, as a person has only so many
relatives of a kind, on the other edges of both.  What contradicts it hangs on the ties of both ends, and on whom others
call a parent.  So whom a statement, a record or a fact is new about is drawn anew, with whoever is beside them and
whoever is tied to those, from all that is stated as far away again; all other edges are taken over.
Only a sever reaches further: the edges of all that it cuts are found each night, before anything is published, and what
contradicts those that have an end in common with them is found anew.
"""

# ruff: noqa: S608 - what SQL is built of here are constants of this module, never input

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Flags, Ints, maybe_among, packed, packed_pairs
from linkage.matching.facts import Facts
from linkage.matching.members import flow_codes
from linkage.matching.numbering import Ends
from linkage.matching.severing import cut_edges
from linkage.matching.texts import rows_at
from linkage.matching.workspace import open_workspace
from linkage.records import RELATIONSHIP_TYPES

if TYPE_CHECKING:
    import duckdb

HOUSEHOLD_CAP: Final = 12  # persons under one token: more are a hostel, a refuge or a mistake, and no family
MUTUAL: Final = ("sibling", "household", "partner")  # types that read the same from both ends
LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "birth_parent": (20, 6), "step_parent": (20, 6), "parental_responsibility": (20, 8), "carer": (12, 8),
    "sibling": (20, 20), "partner": (8, 8), "household": (36, 36),
}  # fmt: skip
"""Of how many one person is believed to be the <type>, and how many may be that of one person; more are a mistake in
someone's table, or an office: none of them is drawn."""
PARENTAL: Final = ("birth_parent", "step_parent", "parental_responsibility")
LEAST_GAP: Final = {"birth_parent": 12, "step_parent": 1, "parental_responsibility": 1}  # years older than the child
"""A carer may be younger than whom they care for: some children are."""
DECADE: Final = 10  # years: of those long grown up an agency tells only the first of the decade, so they may be younger
FOR_GOOD: Final = ("birth_parent", "sibling")  # relations that do not end
EXCLUSIVE: Final = tuple(
    frozenset(pair) for pair in combinations(("birth_parent", "step_parent", "sibling", "partner"), 2)
)
"""Kinds of relationship that two persons can't both have."""
TYPES: Final = tuple(sorted(RELATIONSHIP_TYPES))
CODES: Final = (
    "record_unknown", "same_person", "household_too_large", "too_many", "severed",
    "parents_differ", "too_young", "relation_differs", "carer_or_parent", "ended_or_current",
)  # fmt: skip
"""What is found of statements: see `families.NOT_DRAWN` and `families.DISAGREEMENTS`."""

_DATES: Final = (("valid_from", pa.date32()), ("valid_to", pa.date32()))
_ENDS: Final = (("a", pa.int32()), ("b", pa.int32()), ("type", pa.int8()), ("s", pa.int16()))
EDGES: Final = pa.schema([*_ENDS, ("verified", pa.bool_()), *_DATES, ("cut", pa.bool_())])
"""Persons by number, `a` the <type> of `b` (either way if MUTUAL, the lower first), by whom, and whether a sever cuts
it; in order of both ends."""
CONFLICTS_BY_NUMBER: Final = pa.schema([*_ENDS, ("verified", pa.bool_()), *_DATES, ("code", pa.int8())])
UNDRAWN: Final = pa.schema([*_ENDS, ("code", pa.int8())])
"""Statements of known persons that are not drawn; `b` is -1 where it is one of living somewhere."""
FLOWS: Final = pa.schema([("agency", pa.string()), ("flow", pa.string())])
KEPT_EDGES: Final = "kept_edges"
KEPT_CONFLICTS: Final = "kept_conflicts"
KEPT_UNDRAWN: Final = "kept_undrawn"
KEPT_FLOWS: Final = "kept_flows"
KEPT_KIN: Final = (KEPT_EDGES, KEPT_CONFLICTS, KEPT_UNDRAWN, KEPT_FLOWS)
Flow = tuple[str, str]
"""Agency and flow."""
Places = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Kin:
    """A run's network by number.  `findings` are counts by code, kind and flow: rows of [code, type, s, statements]."""

    edges: pa.Table
    conflicts: pa.Table
    undrawn: pa.Table
    findings: tuple[tuple[str, str, int, int], ...]
    sources: tuple[Flow, ...]
    drawn: int  # persons whose edges were drawn anew

    def kept(self) -> dict[str, pa.Table]:
        """What the next night takes over, and a search reads: the tables of KEPT_KIN."""
        flows = pa.table([pa.array([one[n] for one in self.sources], pa.string()) for n in (0, 1)], schema=FLOWS)
        return {KEPT_EDGES: self.edges, KEPT_CONFLICTS: self.conflicts, KEPT_UNDRAWN: self.undrawn, KEPT_FLOWS: flows}

    def counts(self) -> dict[str, int]:
        """Statements not drawn, by why, and statements that contradict, by how; only what there is any of."""
        found: dict[str, int] = {}
        for code, _, _, statements in self.findings:
            found[code] = found.get(code, 0) + statements
        return dict(sorted(found.items()))


@dataclass(frozen=True, kw_only=True)
class EarlierKin:
    """The network of the run before, and how tonight's records and rows are those of then.

    `person` is by its records, `ends` by its rows of relationships, `now` by its records their numbers tonight, or -1;
    `carried` is by tonight's row of relationships its row then, or -1; `changed` are tonight's records of which a row
    is new, altered or gone.
    """

    kept: Mapping[str, pa.Table]
    person: Ints
    ends: Ends
    now: Ints
    carried: Ints
    changed: Ints


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Tonight's rows of persons: by row its record (-1: none), and what it says."""

    record: Ints
    facts: Facts


def kin(
    person: Ints,
    sources: tuple[Flow, ...],
    relationships: Any,
    ends: Ends,
    rows: Rows | None,
    severed: Iterable[tuple[int, int]],
    earlier: EarlierKin | None = None,
    *,
    memory_limit: str = "3GB",
    threads: int = 2,
) -> Kin:
    """The network of persons (by record, `person` their numbers) that `relationships` (of the wire) state.

    `ends` are by their rows; `severed` are pairs of persons; `rows` say who was born when.  With `earlier` the result
    is the same, and only what is new is drawn.
    """
    stated = _Stated.of(person, ends)
    count = int(person.max(initial=-1)) + 1
    night = None if earlier is None else _Night.of(person, count, stated, earlier)
    connection = open_workspace(memory_limit=memory_limit, threads=threads)
    try:
        connection.execute(f"CREATE TYPE kind AS ENUM ({', '.join(map(repr, TYPES))})")
        _load(connection, stated, sources, relationships, None if night is None else night.read)
        _state(connection)
        _live_together(connection)
        _limit(connection)
        edges = _table_of(connection, "(SELECT *, false AS cut FROM edges)", EDGES)
        undrawn = _table_of(connection, "undrawn", UNDRAWN)
        if night is not None and earlier is not None:
            edges = night.merged(edges, earlier.kept[KEPT_EDGES], sources, earlier)
            undrawn = night.merged(undrawn, earlier.kept[KEPT_UNDRAWN], sources, earlier)
        edges = _cut(edges, severed)
        cut = _ends_of(edges.filter(edges["cut"]), count)
        if night is not None and earlier is not None:
            was_cut = earlier.kept[KEPT_EDGES].filter(earlier.kept[KEPT_EDGES]["cut"])
            cut |= night.still(_ends_of(was_cut, len(night.became)), count)
        if cut.any():  # what a sever cuts contradicts nothing any more, and what it cuts no longer may again
            if night is not None:
                night = replace(night, drawn=night.drawn | cut)
            standing = edges.filter(pc.invert(edges["cut"]))
            _load_ties(connection, standing if night is None else _about(standing, night.drawn))
        _load_known(connection, person, rows)
        _contradict(connection)
        conflicts = _table_of(connection, "conflicts", CONFLICTS_BY_NUMBER)
        if night is not None and earlier is not None:
            conflicts = night.merged(conflicts, earlier.kept[KEPT_CONFLICTS], sources, earlier)
    finally:
        connection.close()
    findings = [*_unplaced(stated, relationships, sources), *_counted(undrawn), *_counted(conflicts)]
    cut = edges.filter(edges["cut"])
    findings += _counted(cut.append_column("code", pa.array(np.full(len(cut), CODES.index("severed"), np.int8))))
    return Kin(
        edges=edges, conflicts=_in_order(conflicts), undrawn=_in_order(undrawn),
        findings=tuple(sorted(findings)), sources=sources, drawn=count if night is None else int(night.drawn.sum()),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Stated:
    """By row of relationships the persons of both ends (-1: unknown, or none), and the homes where it says one."""

    a: Ints
    b: Ints
    home: Ints
    lived: Flags

    @classmethod
    def of(cls, person: Ints, ends: Ends) -> _Stated:
        whose = np.append(person, -1)
        return cls(a=whose[ends.a], b=whose[ends.b], home=ends.home, lived=ends.lived)

    @cached_property
    def ties(self) -> tuple[Ints, Ints]:
        """The known persons at both ends of what is stated of two."""
        both = np.flatnonzero((self.a >= 0) & (self.b >= 0) & ~self.lived)
        return self.a[both], self.b[both]

    @cached_property
    def stays(self) -> tuple[Ints, Ints, Ints]:
        """The rows that say where a known person lives, the persons, and the homes."""
        rows = np.flatnonzero(self.lived & (self.a >= 0))
        return rows, self.a[rows], self.home[rows]

    def living_in(self, homes: Ints) -> Ints:
        """Which of `stays` are in one of these homes."""
        _, _, tokens = self.stays
        maybe = np.flatnonzero(maybe_among(homes, tokens)) if len(homes) else np.zeros(0, np.int64)
        among = pc.is_in(pa.array(tokens[maybe]), value_set=pa.array(homes)).to_numpy(zero_copy_only=False)
        found: Ints = maybe[among]
        return found

    def tied(self, some: Flags) -> Flags:
        """These persons, and all whom a statement ties to one of them."""
        near = some.copy()
        one, other = self.ties
        near[other[some[one]]] = near[one[some[other]]] = True
        return near

    def beside(self, some: Flags) -> Flags:
        """These persons, and all whom a statement ties to one of them, or who live where one does."""
        near = self.tied(some)
        _, whose, homes = self.stays
        near[whose[self.living_in(homes[some[whose]])]] = True
        return near

    def about(self, some: Flags) -> Flags:
        """The rows about one of these persons, or about who lives where one does."""
        among = np.append(some, False)
        found: Flags = among[self.a] | among[self.b]
        rows, whose, homes = self.stays
        found[rows[self.living_in(homes[some[whose]])]] = True
        return found


@dataclass(frozen=True, kw_only=True)
class _Night:
    """Whose edges are drawn anew, and the rows to read for it.

    `became` is by earlier person the number of who has the same records tonight, or -1.
    """

    drawn: Flags
    read: Flags
    became: Ints

    @classmethod
    def of(cls, person: Ints, count: int, stated: _Stated, earlier: EarlierKin) -> _Night:
        was, now = earlier.person, earlier.now
        alive = np.flatnonzero(now >= 0)
        old = np.full(len(person), -1, np.int64)
        old[now[alive]] = was[alive]
        first = np.full(count, -1, np.int64)
        first[person] = old  # that of any of its records
        same = first >= 0
        same[person[old != first[person]]] = False
        sizes, sizes_then = np.bincount(person, minlength=count), np.bincount(was)
        same[same] = sizes[same] == sizes_then[first[same]]
        became = np.full(len(sizes_then), -1, np.int64)
        became[first[same]] = np.flatnonzero(same)
        new = ~same
        new[person[earlier.changed]] = True
        homes = []
        for persons, tokens in (_new_rows(stated, became, earlier), _gone_rows(person, earlier)):
            new[persons] = True
            homes.append(tokens)
        _, whose, _ = stated.stays
        new[whose[stated.living_in(np.concatenate(homes))]] = True
        drawn = stated.tied(stated.beside(new))
        return cls(drawn=drawn, read=stated.about(stated.tied(stated.beside(drawn))), became=became)

    def still(self, then: Flags, count: int) -> Flags:
        """Of `count` persons those who, as they are tonight, were among these earlier ones."""
        found = np.zeros(count, np.bool_)
        now = self.became[then]
        found[now[now >= 0]] = True
        return found

    def merged(self, new: pa.Table, old: pa.Table, sources: tuple[Flow, ...], earlier: EarlierKin) -> pa.Table:
        """What was found tonight of those drawn anew, and of all others what was found before."""
        became, drawn = np.append(self.became, -1), np.append(self.drawn, False)
        a, b = (became[old[name].to_numpy()] for name in "ab")
        alone = old["b"].to_numpy() < 0
        stay = (a >= 0) & (alone | (b >= 0)) & ~drawn[a] & ~drawn[b]
        known = list(zip(*(one.to_pylist() for one in earlier.kept[KEPT_FLOWS].columns), strict=True))
        place = np.array([*(sources.index(one) if one in sources else -1 for one in known), -1], np.int16)
        kept = old.filter(pa.array(stay))
        for name, column in (("a", a[stay]), ("b", b[stay]), ("s", place[kept["s"].to_numpy()])):
            field = old.schema.field(name)
            kept = kept.set_column(old.schema.get_field_index(name), field, pa.array(column, field.type))
        anew = drawn[new["a"].to_numpy()] | drawn[new["b"].to_numpy()]
        return _in_order(pa.concat_tables([kept, new.filter(pa.array(anew))]))


def _ends_of(edges: pa.Table, count: int) -> Flags:
    """Of `count` persons those at an end of one of these edges."""
    found = np.zeros(count, np.bool_)
    for name in "ab":
        found[edges[name].to_numpy()] = True
    return found


def _about(edges: pa.Table, some: Flags) -> pa.Table:
    """The edges on which hangs what contradicts those of some persons: theirs, and all of whoever is next to them."""
    a, b = (edges[name].to_numpy() for name in "ab")
    near = some.copy()
    near[b[some[a]]] = near[a[some[b]]] = True
    return edges.filter(pa.array(near[a] | near[b]))


def _new_rows(stated: _Stated, became: Ints, earlier: EarlierKin) -> tuple[Ints, Ints]:
    """The persons of both ends of rows that are new or say it of others than before, and the homes these say."""
    carried = earlier.carried
    known = np.flatnonzero(carried >= 0)
    new = carried < 0
    whose, became = np.append(earlier.person, -1), np.append(became, -1)
    for then, now in ((earlier.ends.a, stated.a), (earlier.ends.b, stated.b)):
        old, end = whose[then[carried[known]]], now[known]
        new[known] |= ((old >= 0) != (end >= 0)) | ((old >= 0) & (became[old] != end))
    persons = np.concatenate([stated.a[new], stated.b[new]])
    return persons[persons >= 0], stated.home[new & stated.lived]


def _gone_rows(person: Ints, earlier: EarlierKin) -> tuple[Ints, Ints]:
    """The same of rows that are no more."""
    gone = np.ones(len(earlier.ends.a), np.bool_)
    gone[earlier.carried[earlier.carried >= 0]] = False
    ends = np.concatenate([earlier.ends.a[gone], earlier.ends.b[gone]])
    persons = np.append(person, -1)[np.append(earlier.now, -1)[ends]]
    return persons[persons >= 0], earlier.ends.home[gone & earlier.ends.lived]


def _in_order(table: pa.Table) -> pa.Table:
    """In order of both ends; rows of equal ends as they come."""
    order = np.argsort(packed(table["a"].to_numpy(), table["b"].to_numpy() + 1), kind="stable")
    return table.take(pa.array(order)).combine_chunks()


# --- What there is to draw from --------------------------------------------------------------------------------------


def _load(
    connection: duckdb.DuckDBPyConnection, stated: _Stated, sources: tuple[Flow, ...], relationships: Any,
    read: Flags | None,
) -> None:  # fmt: skip
    """Make `told` and `lived`, what is stated of two persons and of homes, in all rows or in those to `read`."""
    dates = [name for name, _ in _DATES]
    known = (stated.a >= 0) & stated.lived
    told = (stated.a >= 0) & (stated.b >= 0) & (stated.a != stated.b) & ~stated.lived
    if read is not None:
        known, told = known & read, told & read
    tables = {}
    for name, rows, columns in (
        ("lived", np.flatnonzero(known), dates), ("told", np.flatnonzero(told), ["type", "verified", *dates])
    ):  # fmt: skip
        some = rows_at(relationships, rows, ["agency", "flow", *columns])
        said = {column: some[column] for column in columns} | {"s": pa.array(flow_codes(some, sources), pa.int32())}
        persons = {"p": stated.a} if name == "lived" else {"a": stated.a, "b": stated.b}
        said |= {column: pa.array(whose[rows], pa.int32()) for column, whose in persons.items()}
        tables[name] = pa.table(said | ({"household": pa.array(stated.home[rows])} if name == "lived" else {}))
        connection.register(f"{name}_in", tables[name])
    connection.execute("""
        CREATE TABLE lived AS SELECT household, p, s, valid_from, valid_to FROM lived_in;
        CREATE TABLE told AS SELECT a, b, s, type::kind AS type, verified, valid_from, valid_to FROM told_in;
        CREATE TABLE undrawn (a INTEGER, b INTEGER, s INTEGER, type kind, code TINYINT);
        CREATE TABLE known (p INTEGER, born_first INTEGER, born_last INTEGER, sex VARCHAR);
    """)
    for name in tables:
        connection.unregister(f"{name}_in")


def _load_ties(connection: duckdb.DuckDBPyConnection, edges: pa.Table) -> None:
    """Make `edges` of these."""
    connection.register("edges_in", edges)
    connection.execute(f"""
        CREATE OR REPLACE TABLE edges AS
        SELECT a, b, s::INTEGER AS s, ({list(TYPES)!r})[type + 1]::kind AS type, verified, valid_from, valid_to
        FROM edges_in WHERE type <> {TYPES.index("household")}
    """)
    connection.unregister("edges_in")


def _load_known(connection: duckdb.DuckDBPyConnection, person: Ints, rows: Rows | None) -> None:
    """Fill `known` (p, years of birth, sex) for those whose relatives are stated."""
    if rows is None:
        return
    named = connection.execute(
        "SELECT a AS p FROM edges WHERE type <> 'household' UNION SELECT b FROM edges WHERE type <> 'household'"
    ).fetchnumpy()["p"]
    wanted = np.zeros(int(person.max(initial=-1)) + 2, np.bool_)
    wanted[np.asarray(named, np.int64)] = True
    whose = np.append(person, -1)[rows.record]
    mine = np.flatnonzero(wanted[whose])
    said = rows.facts.kinds.select(["birth_year", "sex"]).take(pa.array(rows.facts.of[mine]))
    connection.register("persons_in", said.append_column("p", pa.array(whose[mine], pa.int32())))
    connection.execute("""
        INSERT INTO known
        SELECT p, min(birth_year), max(birth_year), CASE WHEN min(sex) = max(sex) THEN min(sex) END
        FROM persons_in GROUP BY p
    """)
    connection.unregister("persons_in")


# --- Edges -----------------------------------------------------------------------------------------------------------


def _state(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `edges` of the relationships between two persons."""
    connection.execute(f"""
        CREATE TABLE edges AS
        SELECT DISTINCT CASE WHEN type IN {MUTUAL!r} THEN least(a, b) ELSE a END AS a,
               CASE WHEN type IN {MUTUAL!r} THEN greatest(a, b) ELSE b END AS b, * EXCLUDE (a, b)
        FROM told;
        DROP TABLE told;
    """)


def _live_together(connection: duckdb.DuckDBPyConnection) -> None:
    """Add to `edges` those who live, or lived, under one token; the dates are of the time that both were there."""
    connection.execute(f"""
        CREATE TEMP TABLE large AS
        SELECT household FROM lived SEMI JOIN (
            SELECT household FROM lived GROUP BY household HAVING count(*) > {HOUSEHOLD_CAP}
        ) USING (household)
        GROUP BY household HAVING count(DISTINCT p) > {HOUSEHOLD_CAP};
        INSERT INTO undrawn
        SELECT p, -1, s, 'household', {CODES.index("household_too_large")} FROM lived SEMI JOIN large USING (household);
        CREATE TEMP TABLE stays AS
        SELECT household, p, CASE WHEN count(valid_from) = count(*) THEN min(valid_from) END AS since,
               CASE WHEN count(valid_to) = count(*) THEN max(valid_to) END AS until
        FROM lived ANTI JOIN large USING (household) GROUP BY household, p;
        CREATE TEMP TABLE together AS
        SELECT household, l.p AS a, r.p AS b, least(l.until, r.until) AS until, greatest(l.since, r.since) AS since
        FROM stays l JOIN stays r USING (household) WHERE l.p < r.p;
        CREATE TEMP TABLE said AS SELECT DISTINCT household, p, s FROM lived;
        INSERT INTO edges BY NAME
        SELECT DISTINCT a, b, s, 'household' AS type, NULL::BOOLEAN AS verified,
               CASE WHEN until IS NULL OR since <= until THEN since END AS valid_from, until AS valid_to
        FROM (
            SELECT t.*, s FROM together t JOIN said ON said.household = t.household AND said.p = t.a
            UNION ALL SELECT t.*, s FROM together t JOIN said ON said.household = t.household AND said.p = t.b
        );
    """)


def _limit(connection: duckdb.DuckDBPyConnection) -> None:
    """Take from `edges` those of a kind of which a person has more than LIMITS."""
    limits = ", ".join(f"('{kind}', {of}, {by})" for kind, (of, by) in LIMITS.items())
    connection.execute(f"""
        CREATE TEMP TABLE limits AS
        SELECT type::kind AS type, most_of, most_by FROM (VALUES {limits}) AS t(type, most_of, most_by);
        CREATE TEMP VIEW ends AS
        SELECT a AS p, b AS other, type, true AS of FROM edges
        UNION ALL SELECT b, a, type, type IN {MUTUAL!r} FROM edges;
        CREATE TEMP TABLE busy AS
        SELECT p, type, of FROM ends GROUP BY ALL HAVING count(*) > {min(min(most) for most in LIMITS.values())};
        CREATE TEMP TABLE degrees AS
        SELECT p, type, of, count(DISTINCT other) AS degree FROM ends SEMI JOIN busy USING (p, type, of) GROUP BY ALL;
        CREATE TEMP TABLE crowded AS
        SELECT p, type, of FROM degrees JOIN limits USING (type)
        WHERE degree > CASE WHEN of THEN most_of ELSE most_by END;
        CREATE TEMP TABLE too_many AS
        SELECT e.rowid AS edge, a, b, s, type FROM edges e
        WHERE (a, type, true) IN (SELECT (p, type, of) FROM crowded)
           OR (b, type, type IN {MUTUAL!r}) IN (SELECT (p, type, of) FROM crowded);
        INSERT INTO undrawn SELECT a, b, s, type, {CODES.index("too_many")} FROM too_many;
        DELETE FROM edges WHERE rowid IN (SELECT edge FROM too_many);
    """)


def _cut(edges: pa.Table, severed: Iterable[tuple[int, int]]) -> pa.Table:
    """The same, those marked as cut that would lead from one side of a severed pair to the other."""
    a, b = (edges[name].to_numpy().astype(np.int64) for name in "ab")
    apart = sorted({(min(pair), max(pair)) for pair in severed if len(set(pair)) > 1})
    cut = np.array(cut_edges(a, b, apart) if apart else [], np.int64).reshape(-1, 2)
    gone = np.isin(packed_pairs(a, b), packed_pairs(cut[:, 0], cut[:, 1])) if len(cut) else np.zeros(len(a), np.bool_)
    return edges.set_column(edges.schema.get_field_index("cut"), EDGES.field("cut"), pa.array(gone))


def _contradict(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `conflicts`: the edges, each with the code of what contradicts it, as `families.disagreements` has it."""
    exclusive = " OR ".join(
        f"(x.type = '{one}' AND y.type = '{other}') OR (x.type = '{other}' AND y.type = '{one}')"
        for one, other in map(sorted, EXCLUSIVE)
    )
    gaps = " ".join(f"WHEN '{kind}' THEN {gap}" for kind, gap in LEAST_GAP.items())
    forever = (*FOR_GOOD, "household")
    connection.execute(f"""
        CREATE TEMP TABLE ties AS SELECT row_number() OVER () AS edge, * FROM edges WHERE type <> 'household';
        CREATE TEMP TABLE says AS
        SELECT a, b, type, list(DISTINCT s) AS said, bool_or(NOT open) AND bool_or(open) AS unsure
        FROM (SELECT a, b, type, s, bool_or(valid_to IS NULL) AS open FROM ties GROUP BY ALL)
        GROUP BY a, b, type;
        CREATE TEMP TABLE parents AS
        SELECT a, b, said, sex, count(*) OVER (PARTITION BY b) AS named
        FROM says LEFT JOIN known ON p = a WHERE type = 'birth_parent';
        CREATE TEMP TABLE contradicted AS
        SELECT 'parents_differ' AS code, a, b, 'birth_parent' AS type FROM parents WHERE named > 2
        UNION SELECT 'parents_differ', x.a, x.b, 'birth_parent'
        FROM parents x JOIN parents y ON x.b = y.b AND x.a <> y.a AND x.sex = y.sex
        WHERE NOT list_has_any(x.said, y.said)
        UNION SELECT 'too_young', a, b, type
        FROM says JOIN known o ON o.p = a JOIN known y ON y.p = b
        WHERE y.born_last + CASE WHEN y.born_last % {DECADE} = 0 THEN {DECADE - 1} ELSE 0 END - o.born_first
              < CASE type {gaps} END
        UNION SELECT 'relation_differs', x.a, x.b, x.type
        FROM says x JOIN says y ON x.a = y.a AND x.b = y.b WHERE {exclusive}
        UNION SELECT 'relation_differs', x.a, x.b, x.type
        FROM says x JOIN says y ON x.a = y.b AND x.b = y.a
        WHERE x.type IN {PARENTAL!r} AND y.type IN {PARENTAL!r} OR {exclusive}
        UNION SELECT 'carer_or_parent', x.a, x.b, x.type
        FROM says x JOIN says y ON x.a = y.a AND x.b = y.b
        WHERE (x.type, y.type) IN (('carer', 'birth_parent'), ('birth_parent', 'carer'))
          AND NOT list_has_any(x.said, y.said)
        UNION SELECT 'ended_or_current', a, b, type FROM says WHERE unsure AND type NOT IN {forever!r};
        CREATE TABLE conflicts AS
        SELECT (list_position({list(CODES)!r}, code) - 1)::TINYINT AS code, ties.* EXCLUDE (edge)
        FROM ties JOIN contradicted USING (a, b, type);
    """)


def _table_of(connection: duckdb.DuckDBPyConnection, source: str, schema: pa.Schema) -> pa.Table:
    """Rows by number, in order of both ends."""
    columns = ", ".join("enum_code(type)::TINYINT AS type" if name == "type" else name for name in schema.names)
    found = pa.table(connection.sql(f"SELECT {columns} FROM {source} ORDER BY ALL").to_arrow_table())
    return found.select(schema.names).cast(schema)


# --- What was found --------------------------------------------------------------------------------------------------


def _unplaced(stated: _Stated, relationships: Any, sources: tuple[Flow, ...]) -> list[tuple[str, str, int, int]]:
    """Counts of the statements that are of records that are not held, or of one person twice."""
    unknown = np.flatnonzero((stated.a < 0) | (~stated.lived & (stated.b < 0)))
    oneself = np.flatnonzero((stated.a >= 0) & (stated.a == stated.b) & ~stated.lived)
    found: Counter[tuple[str, str, int]] = Counter()
    for code, rows in (("record_unknown", unknown), ("same_person", oneself)):
        some = rows_at(relationships, rows, ["agency", "flow", "type"]) if len(rows) else None
        if some is not None:
            kinds, flows = some["type"].to_pylist(), flow_codes(some, sources).tolist()
            found.update((code, kind, s) for kind, s in zip(kinds, flows, strict=True))
    return [(*key, count) for key, count in found.items()]


def _counted(rows: pa.Table) -> list[tuple[str, str, int, int]]:
    """Counts of statements by number, each with its code."""
    found = rows.group_by(["code", "type", "s"]).aggregate([([], "count_all")]).to_pylist()
    return [(CODES[one["code"]], TYPES[one["type"]], one["s"], one["count_all"]) for one in found]
