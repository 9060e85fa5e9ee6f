"""Persons, relationships and household tokens to the family network: typed, dated, sourced edges between persons.

An edge is what an agency stated; nothing is inferred from names, and nobody decides here which of two agencies is
right.  What is not drawn is counted (FINDINGS): records that are not there, a person who would be their own relative,
households and families larger than any, and what a sever cuts.  What contradicts is drawn, and listed (CONFLICTS).
"""

# ruff: noqa: S608 - what SQL is built of here are constants of this module, never input

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import combinations
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.lazily import Lazy, rows_where
from linkage.matching.members import Members, Placed, flow_codes, flows_of
from linkage.matching.overrides import Overrides, RecordKey
from linkage.matching.workspace import open_workspace

if TYPE_CHECKING:
    import duckdb

HOUSEHOLD_CAP: Final = 12  # persons under one token: more are a hostel, a refuge or a mistake, and no family
MUTUAL: Final = ("sibling", "household", "partner")  # types that read the same from both ends: person_a < person_b
LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "birth_parent": (20, 6), "step_parent": (20, 6), "parental_responsibility": (20, 8), "carer": (12, 8),
    "sibling": (20, 20), "partner": (8, 8), "household": (36, 36),
}  # fmt: skip
"""Of how many one person is believed to be the <type>, and how many may be that of one person; more are a mistake in
someone's table, or an office: none of them is drawn."""

FAMILY: Final = pa.schema(
    [
        ("person_a", pa.string()),  # person_a is the <type> of person_b
        ("person_b", pa.string()),
        ("type", pa.string()),
        ("agency", pa.string()),
        ("flow", pa.string()),
        ("verified", pa.bool_()),
        ("valid_from", pa.date32()),
        ("valid_to", pa.date32()),
    ]
)
CONFLICTS: Final = pa.schema([("code", pa.string()), *FAMILY])
"""A row for each statement and each way in which another, or a year of birth, contradicts it: see DISAGREEMENTS."""
FINDINGS: Final = pa.schema(
    [
        ("code", pa.string()),
        ("type", pa.string()),
        ("agency", pa.string()),
        ("flow", pa.string()),
        ("statements", pa.int64()),
    ]
)
"""Counts by what was found, kind of relationship and flow; nothing about one person."""

NOT_DRAWN: Final = {
    "record_unknown": "one of the two records is not held, or no longer",
    "same_person": "both records are one person",
    "household_too_large": f"more than {HOUSEHOLD_CAP} persons at one address",
    "too_many": "more relatives of this kind than one person has",
    "severed": "it would lead from one side of a severed pair to the other",
}
DISAGREEMENTS: Final = {
    "parents_differ": "different birth parents are named",
    "too_young": "by the years of birth one cannot be the parent of the other",
    "relation_differs": "two relationships are stated that cannot both be right",
    "carer_or_parent": "one calls the person a carer and another a birth parent",
    "ended_or_current": "by one this has ended and by another it goes on",
}
PARENTAL: Final = ("birth_parent", "step_parent", "parental_responsibility")
LEAST_GAP: Final = {"birth_parent": 12, "step_parent": 1, "parental_responsibility": 1}  # years older than the child
"""A carer may be younger than whom they care for: some children are."""
DECADE: Final = 10  # years: of those long grown up an agency tells only the first of the decade, so they may be younger
FOR_GOOD: Final = ("birth_parent", "sibling")  # relations that do not end
EXCLUSIVE: Final = tuple(
    frozenset(pair) for pair in combinations(("birth_parent", "step_parent", "sibling", "partner"), 2)
)
"""Kinds of relationship that two persons can't both have."""

RECORD: Final = ("agency", "flow", "record_ref")

Pairs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The family network of one run: tables of FAMILY, CONFLICTS and FINDINGS."""

    edges: pa.Table
    conflicts: pa.Table
    findings: pa.Table

    def counts(self) -> dict[str, int]:
        """Statements not drawn, by why, and statements that contradict, by how; only what there is any of."""
        found: dict[str, int] = defaultdict(int)
        for code, statements in zip(
            self.findings["code"].to_pylist(), self.findings["statements"].to_pylist(), strict=True
        ):
            found[code] += statements
        return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """That person `a` is the `type` of person `b`, by one source (agency and flow); a MUTUAL one may be either way."""

    a: str
    b: str
    type: str
    source: tuple[str, str]
    until: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a person beside: the least and the greatest year of birth of their records, and the sex if
    all say the same."""

    born: tuple[int, int] | None = None
    sex: str | None = None


def families(
    clusters: pa.Table, relationships: pa.Table, *, overrides: Overrides | None = None, persons: pa.Table | None = None
) -> pa.Table:
    """The edges of `network`: a table of FAMILY."""
    return network(clusters, relationships, overrides=overrides, persons=persons).edges


def network(
    clusters: pa.Table | None,
    relationships: pa.Table | Lazy,
    *,
    overrides: Overrides | None = None,
    persons: pa.Table | Lazy | None = None,
    placed: Placed | None = None,
    homes: Pairs | None = None,
    memory_limit: str = "3GB",
    threads: int = 2,
) -> Network:
    """Family edges between persons, as agencies stated them; `relationships` are the wire's with `agency` and `flow`.

    `household` joins those under one household token, of any agency, unless more than HOUSEHOLD_CAP persons are; such
    an edge has the agency and flow of both ends' statements, a row each, and lasts while both are there.  No path of
    edges leads from one side of a severed pair to the other: pass `Overrides.with_markers(persons)`.  Years of birth
    and sex for the conflicts are those of `persons` (agency, flow, record_ref, birth_year, sex); `placed` are its
    rows among `clusters`, where that is known already, and these are then not needed;
    `homes` is by row of `relationships` the record whose household it says, or -1, where that is known.
    """
    if placed is None:
        if clusters is None:
            raise ValueError("whose the records are: by clusters, or by where rows are placed")
        placed = Placed.of(clusters, (clusters if persons is None else persons).select(list(RECORD)))
    members = placed.members
    sources = tuple(sorted({*members.sources, *flows_of(relationships)}))
    connection = open_workspace(memory_limit=memory_limit, threads=threads)
    try:
        _load(connection, placed, sources, relationships, persons, homes)
        _state(connection)
        _live_together(connection)
        _limit(connection)
        _sever(connection, members, (overrides or Overrides()).sever)
        _contradict(connection)
        connection.execute("INSERT INTO findings SELECT code, type, s, count(*) FROM conflicts GROUP BY ALL")
        columns = "a, b, type, s, verified, valid_from, valid_to"
        return Network(
            edges=_named(connection, f"SELECT {columns} FROM edges ORDER BY ALL", members, sources).cast(FAMILY),
            conflicts=_named(
                connection, f"SELECT code, {columns} FROM conflicts ORDER BY {columns}, code", members, sources
            ).cast(CONFLICTS),
            findings=_named(
                connection,
                "SELECT code, type, s, sum(statements)::BIGINT AS statements FROM findings GROUP BY ALL ORDER BY ALL",
                members, sources,
            ).cast(FINDINGS),
        )  # fmt: skip
    finally:
        connection.close()


def disagreements(statements: Sequence[Statement], known: Mapping[str, Known]) -> list[frozenset[str]]:
    """For each of these few statements the codes of what contradicts it (DISAGREEMENTS), by these statements alone.

    For a view, which may know no more than what is shown; over a whole run `network` finds the same.
    """
    statements = [
        replace(one, a=min(one.a, one.b), b=max(one.a, one.b)) if one.type in MUTUAL else one for one in statements
    ]
    said: dict[tuple[str, str, str], set[tuple[str, str]]] = defaultdict(set)  # a, b, type -> sources
    parents: dict[str, set[str]] = defaultdict(set)
    lasts: dict[tuple[str, str, str], dict[tuple[str, str], bool]] = defaultdict(dict)
    for one in statements:
        what = (one.a, one.b, one.type)
        said[what].add(one.source)
        lasts[what][one.source] = lasts[what].get(one.source, False) or one.until is None
        if one.type == "birth_parent":
            parents[one.b].add(one.a)
    return [
        frozenset(
            code
            for code, holds in (
                ("parents_differ", _other_parents(one, said, parents[one.b], known)),
                ("too_young", _too_young(one, known)),
                ("relation_differs", _exclusive(one, said)),
                ("carer_or_parent", _carer_or_parent(one, said)),
                ("ended_or_current", _ended_or_current(one, lasts[one.a, one.b, one.type])),
            )
            if holds
        )
        for one in statements
    ]


def neighbours_of(family: pa.Table) -> dict[str, Sequence[int]]:
    """For each person the row numbers of their edges."""
    rows: dict[str, list[int]] = defaultdict(list)
    for n, ends in enumerate(zip(family["person_a"].to_pylist(), family["person_b"].to_pylist(), strict=True)):
        for end in ends:
            rows[end].append(n)
    return dict(rows)


def _other_parents(
    one: Statement,
    said: Mapping[tuple[str, str, str], Collection[tuple[str, str]]],
    parents: Collection[str],
    known: Mapping[str, Known],
) -> bool:
    if one.type != "birth_parent":
        return False
    if len(parents) > 2:
        return True
    sex = known.get(one.a, Known()).sex
    named_by = set(said[one.a, one.b, one.type])
    return any(
        other != one.a
        and sex is not None
        and known.get(other, Known()).sex == sex
        and named_by.isdisjoint(said[other, one.b, one.type])  # who names both knows of both
        for other in parents
    )


def _too_young(one: Statement, known: Mapping[str, Known]) -> bool:
    older, younger = known.get(one.a, Known()).born, known.get(one.b, Known()).born
    gap = LEAST_GAP.get(one.type)
    return gap is not None and older is not None and younger is not None and _latest(younger[1]) - older[0] < gap


def _latest(year: int) -> int:
    """The last year that a told year of birth may stand for."""
    return year if year % DECADE else year + DECADE - 1


def _exclusive(one: Statement, said: Mapping[tuple[str, str, str], object]) -> bool:
    if one.type in PARENTAL and any((one.b, one.a, kind) in said for kind in PARENTAL):
        return True
    return any(
        (*ends, kind) in said
        for pair in EXCLUSIVE
        if one.type in pair
        for kind in pair - {one.type}
        for ends in ((one.a, one.b), (one.b, one.a))
    )


def _carer_or_parent(one: Statement, said: Mapping[tuple[str, str, str], Collection[tuple[str, str]]]) -> bool:
    other = {"carer": "birth_parent", "birth_parent": "carer"}.get(one.type)
    theirs = said.get((one.a, one.b, other), ()) if other else ()
    return bool(theirs) and set(theirs).isdisjoint(said[one.a, one.b, one.type])


def _ended_or_current(one: Statement, goes_on: Mapping[tuple[str, str], bool]) -> bool:
    return one.type not in (*FOR_GOOD, "household") and len(set(goes_on.values())) > 1


def _named(
    connection: duckdb.DuckDBPyConnection, sql: str, members: Members, sources: Sequence[tuple[str, str]]
) -> pa.Table:
    """A result whose persons `a` and `b` and flow `s` are numbers, with their names."""
    found = pa.table(connection.sql(sql).to_arrow_table())
    columns: dict[str, pa.ChunkedArray] = {}
    for name in found.column_names:
        if name in ("a", "b"):
            columns[f"person_{name}"] = pa.chunked_array([members.people]).take(found[name])
        elif name == "s":
            for n, part in enumerate(("agency", "flow")):
                columns[part] = pa.chunked_array([[source[n] for source in sources]], pa.string()).take(found["s"])
        else:
            columns[name] = found[name]
    return pa.table(columns)


def _load(
    connection: duckdb.DuckDBPyConnection,
    placed: Placed,
    sources: tuple[tuple[str, str], ...],
    relationships: pa.Table | Lazy,
    persons: pa.Table | Lazy | None,
    homes: Pairs | None,
) -> None:
    """Make `told` and `lived`, the statements of two records and of homes, and `known` (p, born, sex).

    Persons and flows are their places in `members.people` and `sources`, null where a record is not held; both are in
    order, and so are the kinds of relationship, so numbers sort as names do.
    """
    members = placed.members
    kinds = sorted({*LIMITS, *pc.unique(relationships["type"]).drop_null().to_pylist()})
    connection.execute(f"CREATE TYPE kind AS ENUM ({', '.join(_quoted(kind) for kind in kinds)})")
    home = pc.fill_null(
        pc.and_(pc.equal(relationships["type"], "household"), pc.is_valid(relationships["household"])), False
    )
    lives = home.to_numpy()
    dates = ["valid_from", "valid_to"]
    if homes is None:
        named = rows_where(relationships, home, ["agency", "flow", "ref_a"])
        homes = np.full(relationships.num_rows, -1, np.int64)
        homes[lives] = members.places(named, "ref_a")
    where = flow_codes(relationships, sources)
    lived = pa.table({
        "household": relationships["household"].filter(home), "p": _persons(members, homes[lives]),
        "s": pa.array(where[lives], pa.int32()), **{name: relationships[name].filter(home) for name in dates},
    })  # fmt: skip
    others = rows_where(
        relationships, pc.invert(home), ["agency", "flow", "ref_a", "ref_b", "type", "verified", *dates]
    )
    told = pa.table({
        **{end: _persons(members, members.places(others, f"ref_{end}")) for end in "ab"},
        "s": pa.array(where[~lives], pa.int32()), **{name: others[name] for name in ("type", "verified", *dates)},
    })  # fmt: skip
    connection.register("lived_in", lived)
    connection.register("told_in", told)
    connection.execute("""
        CREATE TABLE lived AS SELECT household, p, s, valid_from, valid_to FROM lived_in;
        CREATE TABLE told AS SELECT a, b, s, type::kind AS type, verified, valid_from, valid_to FROM told_in;
        CREATE TABLE findings (code VARCHAR, type VARCHAR, s INTEGER, statements BIGINT);
        CREATE TABLE known (p INTEGER, born_first INTEGER, born_last INTEGER, sex VARCHAR);
    """)
    connection.unregister("lived_in")
    connection.unregister("told_in")
    if persons is not None:
        columns = {"p": _persons(members, placed.record), "birth_year": persons["birth_year"]}
        connection.register("persons_in", pa.table(columns | {"sex": persons["sex"]}))
        connection.execute("""
            INSERT INTO known
            SELECT p, min(birth_year), max(birth_year), CASE WHEN min(sex) = max(sex) THEN min(sex) END
            FROM persons_in WHERE p IN (SELECT a FROM told UNION SELECT b FROM told) GROUP BY p
        """)
        connection.unregister("persons_in")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _persons(members: Members, records: npt.NDArray[np.int64]) -> pa.Array:
    """The persons whose records these are, null for -1."""
    found = members.person[records] if len(members.person) else records
    return pa.array(found.astype(np.int32), mask=records < 0)


def _state(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `edges` of the relationships between two records; those of unknown records are counted and left out."""
    connection.execute(f"""
        CREATE TABLE edges AS
        SELECT DISTINCT CASE WHEN type IN {MUTUAL!r} THEN least(a, b) ELSE a END AS a,
               CASE WHEN type IN {MUTUAL!r} THEN greatest(a, b) ELSE b END AS b, * EXCLUDE (a, b)
        FROM told WHERE a <> b;
        INSERT INTO findings
        SELECT CASE WHEN a = b THEN 'same_person' ELSE 'record_unknown' END, type, s, count(*)
        FROM told WHERE a = b OR a IS NULL OR b IS NULL GROUP BY ALL;
        INSERT INTO findings SELECT 'record_unknown', 'household', s, count(*) FROM lived WHERE p IS NULL GROUP BY s;
        DELETE FROM lived WHERE p IS NULL;
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
        INSERT INTO findings
        SELECT 'household_too_large', 'household', s, count(*) FROM lived SEMI JOIN large USING (household) GROUP BY s;
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
        SELECT e.rowid AS edge, type, s FROM edges e
        WHERE (a, type, true) IN (SELECT (p, type, of) FROM crowded)
           OR (b, type, type IN {MUTUAL!r}) IN (SELECT (p, type, of) FROM crowded);
        INSERT INTO findings SELECT 'too_many', type, s, count(*) FROM too_many GROUP BY ALL;
        DELETE FROM edges WHERE rowid IN (SELECT edge FROM too_many);
    """)


def _sever(
    connection: duckdb.DuckDBPyConnection, members: Members, severed: Iterable[tuple[RecordKey, RecordKey]]
) -> None:
    """Take from `edges` what would lead from one side of a severed pair to the other."""
    pairs = sorted(severed)
    if not pairs:
        return
    left, right = (
        members.places(
            pa.table({name: pa.array([pair[side][n] for pair in pairs], pa.string()) for n, name in enumerate(RECORD)})
        )
        for side in (0, 1)
    )
    held = (left >= 0) & (right >= 0)
    one, other = members.person[left[held]], members.person[right[held]]
    apart = sorted(
        {(min(pair), max(pair)) for pair in zip(one.tolist(), other.tolist(), strict=True) if len(set(pair)) > 1}
    )
    edges = connection.execute("SELECT DISTINCT a, b FROM edges").fetchnumpy()
    cut = cut_edges(np.asarray(edges["a"], np.int64), np.asarray(edges["b"], np.int64), apart)
    if not cut:
        return
    connection.register("cut_in", pa.table({"a": [a for a, _ in cut], "b": [b for _, b in cut]}))
    connection.execute("""
        CREATE TEMP TABLE cut AS
        SELECT e.rowid AS edge, type, s FROM edges e SEMI JOIN cut_in c
        ON c.a = least(e.a, e.b) AND c.b = greatest(e.a, e.b);
        INSERT INTO findings SELECT 'severed', type, s, count(*) FROM cut GROUP BY ALL;
        DELETE FROM edges WHERE rowid IN (SELECT edge FROM cut);
    """)
    connection.unregister("cut_in")


def cut_edges(left: Pairs, right: Pairs, severed: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The edges (lower end first) that must go, so that no path leads from one of a severed pair to the other.

    Of both sides, the edges through which the other can be reached: which of them is the wrong one, nobody here knows.
    """
    around = _Around(left, right)
    for one, other in sorted(severed):
        for bridge in [*around.bridges(one, other), *around.bridges(other, one)]:
            around.cut(*bridge)
    return sorted(around.gone)


class _Around:
    """Who is next to whom, as arrays: ready in a fraction of a second for millions of edges."""

    def __init__(self, left: Pairs, right: Pairs) -> None:
        ends, others = np.concatenate([left, right]), np.concatenate([right, left])
        order = np.argsort(ends, kind="stable")
        self._others = others[order]
        self._starts = np.searchsorted(ends[order], np.arange(int(ends.max()) + 2 if len(ends) else 1))
        self.gone: set[tuple[int, int]] = set()

    def of(self, person: int) -> list[int]:
        if person + 1 >= len(self._starts):
            return []
        others = cast("list[int]", self._others[self._starts[person] : self._starts[person + 1]].tolist())
        return sorted({other for other in others if (min(person, other), max(person, other)) not in self.gone})

    def cut(self, one: int, other: int) -> None:
        self.gone.add((min(one, other), max(one, other)))

    def bridges(self, end: int, far: int) -> list[tuple[int, int]]:
        """The edges of `end` from whose other side a path leads to `far` without coming back.

        Searched from both sides, the smaller front first: in a network of any size they meet soon, or one runs out.
        """
        there, edge_of_there = {far}, [far]
        found = []
        for neighbour in self.of(end):
            here, edge_of_here = {neighbour}, [neighbour]
            while edge_of_here and edge_of_there and here.isdisjoint(there):
                if len(edge_of_there) < len(edge_of_here):
                    edge_of_there = self._next(edge_of_there, there, end)
                else:
                    edge_of_here = self._next(edge_of_here, here, end)
            if not here.isdisjoint(there):
                found.append((end, neighbour))
                edge_of_there += [person for person in edge_of_here if person not in there]
                there |= here
        return found

    def _next(self, front: list[int], seen: set[int], without: int) -> list[int]:
        new = {other for person in front for other in self.of(person)} - seen - {without}
        seen |= new
        return sorted(new)


def _contradict(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `conflicts`: the edges, each with the code of what contradicts it, as `disagreements` has it."""
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
        SELECT code, ties.* EXCLUDE (edge) FROM ties JOIN contradicted USING (a, b, type);
    """)
