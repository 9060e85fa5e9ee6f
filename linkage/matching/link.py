"""Records of many agencies to persons: pair scores, bands, clusters with stable ids, and what a person must look at."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Ints, Places
from linkage.matching.bands import MATCHED, banded
from linkage.matching.blocking import BLOCK_CAP, add_blocking_columns
from linkage.matching.bridges import bridges, without_bridges
from linkage.matching.comparing import SCORED
from linkage.matching.comparisons import DOB_EQUAL, FAR, FIELDS, NAME_ALIKE, NAME_CLOSE, NAME_ONES
from linkage.matching.digests import Digests
from linkage.matching.identifiers import LOCAL, SPREAD, compare_numbers, drop_shared, number_records
from linkage.matching.incremental import Compared, compare
from linkage.matching.keeping import CLUSTERS, KEPT, PEOPLE, RECORDS, before_of
from linkage.matching.keeping import PAIRS as SCORED_PAIRS
from linkage.matching.lasting import Lasting, lasting_ids
from linkage.matching.lazily import Lazy, in_memory
from linkage.matching.model import BadModel, Model, default_model, linker
from linkage.matching.numbering import KEY, Before, Carried, Ends, Numbered, numbered, put_otherwise
from linkage.matching.overrides import Overrides, RecordKey, RecordPair
from linkage.matching.persons import Edge, Partition, Rules, changes, cluster, keep_ids
from linkage.matching.scoring import scored
from linkage.matching.settling import (
    BY_HAND,
    BY_MODEL,
    BY_NUMBER,
    NO_RULE,
    RULES,
    TIE,
    ByHand,
    fields_said,
    settle,
)
from linkage.matching.texts import texts_at, whole
from linkage.matching.training import train
from linkage.matching.workspace import load_persons, open_workspace, profile_of
from linkage.records import Profile

__all__ = [
    "CLUSTERS",
    "KEPT",
    "PAIRS",
    "REVIEWS",
    "SCORED",
    "Carried",
    "ClusterEvent",
    "Engine",
    "Linkage",
    "Report",
    "Run",
    "link",
    "named_pairs",
]

PAIRS: Final = pa.schema(
    [
        ("agency_l", pa.string()),
        ("flow_l", pa.string()),
        ("record_ref_l", pa.string()),
        ("agency_r", pa.string()),
        ("flow_r", pa.string()),
        ("record_ref_r", pa.string()),
        ("weight", pa.float64()),  # log2 of the odds by the model, prior included
        ("probability", pa.float64()),
        ("band", pa.string()),  # "match" or "possible"
        ("upper", pa.bool_()),  # clears the higher bar: may be shown at summary, and detail asked for
        ("rule", pa.string()),  # why it is so: "identifier", "two_fields", or what held it: see HELD
        ("agreed", pa.list_(pa.string())),
        ("differs", pa.list_(pa.string())),
    ]
)
"""One row a pair of records that reached `possible` or more."""
REVIEWS: Final = pa.schema([*PAIRS, pa.field("reason", pa.string())])
"""Pairs a link reviewer should look at: uncertain, held by a rule, or dropped because two fitted equally well."""


class Engine(Protocol):
    """Blocks and scores: where that is done is the engine's choice, what comes of it is not.

    `rows` holds a row a record and alternative: unique_id, rec, src, dup, birth_year, sex, the tokens (`t_*`), term
    frequencies `f_*` (`accurate`), blocking keys `b_*` and `c_*` (null does not block), and of each filter its eight
    BIGINT words and popcount as on the wire.  Returns a table of SCORED: each pair of records that
    any key joins (APART), lower `rec` first, by its best pair of rows: the highest weight, then the lowest unique_ids.
    """

    def __call__(self, rows: pa.Table, model: Model) -> pa.Table: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """Persons that became one, or one that became several, since the previous run."""

    kind: str  # "merge" or "split"
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Counts of one run; nothing about one person."""

    records: int
    rows: int
    compared: int  # records compared in this run: all, or those that differ from what was kept
    candidate_pairs: int  # pairs of rows compared in this run
    match_pairs: int
    possible_pairs: int
    reviews: int
    persons: int
    capped_blocks: Mapping[str, int]  # blocking token -> blocks over the cap, which were skipped
    over_shared: Mapping[str, int]  # identifier -> numbers that carried no weight, as too many records hold them
    severed_meetings: int  # severed pairs that share a person: never anything but 0
    events: tuple[ClusterEvent, ...]


@dataclass(frozen=True, kw_only=True)
class Linkage:
    """What one run found.

    `named` makes the pairs from what is kept of them by number, `records` the clusters: who needs no name of a record
    does not wait for it.  `placed` is by row of the persons given its record, as a row of `clusters`.
    `people` are the ids of persons, `person` by record the place of its own, and so are
    `sources` its agency and flow, and `source`; `names` are two digests of its name.  `ends`
    is by row of the relationships given; `now` by record of the run before its number in this one, or -1.
    `kept` is what the next run needs to compare only what has changed: tables by name (KEPT), for its `kept`.  They
    hold record_refs, person ids, digests of rows and levels of pairs: sealed wherever encodings are.
    """

    named: Callable[[], pa.Table]
    records: Callable[[], pa.Table]
    placed: Places
    people: pa.Array
    person: Ints
    sources: tuple[tuple[str, str], ...]
    source: Places
    names: tuple[Digests, Digests] | None
    ends: Ends | None
    now: Ints | None
    reviews: pa.Table
    model: Model
    report: Report
    kept: Mapping[str, pa.Table]

    @cached_property
    def clusters(self) -> pa.Table:
        """Every record, once, and whose it is: of CLUSTERS."""
        return self.records()

    @cached_property
    def pairs(self) -> pa.Table:
        """One row a pair that reached `possible` or more, of PAIRS, in order."""
        return self.named()


def link(
    persons: pa.Table | Lazy,
    *,
    duplicates: AbstractSet[tuple[str, str]] = frozenset(),
    model: Model | None = None,
    previous: pa.Table | Lazy | None = None,
    overrides: Overrides | None = None,
    households: pa.Table | Lazy | None = None,
    new_id: Callable[[], str],
    seed: int = 1,
    memory_limit: str = "3GB",
    threads: int = 2,
    kept: Mapping[str, pa.Table] | None = None,
    carried: Carried | None = None,
    engine: Engine | None = None,
    block_cap: int = BLOCK_CAP,
) -> Linkage:
    """Which records are one person, by encodings alone.

    `persons` has the wire's columns without `op`, and `agency` and `flow`; several rows of one record are its
    alternatives.  `duplicates` names the (agency, flow) that may hold a person twice.  Without a model one is trained
    on these rows.  `previous` is the last run's clusters, from which persons keep their ids; `new_id` names new ones.
    `households` are relationships of the wire (with `agency` and `flow`), of which only households are read.
    The same rows in another order give the same partition.

    `kept` is the `kept` of the run that `previous` is of: then only records that differ from it are compared (changed,
    new, withdrawn, and those whose blocks or numbers others have changed), and the result is that of a run without it.
    `persons` are all rows, as ever; with `carried` only those are read that are not said to be, row by row, what they
    were in that run: by whoever took them from where it sealed them.  A sample of them is held against what was kept,
    and if it differs, all rows are read.  What was kept under another
    model, profile or version of the rules is not used.  The last two tables of `kept` alone make a full run under the
    same frequencies of names (`accurate`).  `engine` blocks and scores in place of DuckDB, where everything is
    compared.  Raises BadModel if `model` is of another profile.
    """
    profile = profile_of(persons.column_names)
    if model is not None and model.profile != profile:
        raise BadModel(f"profile: {profile} is due")
    overrides = (overrides or Overrides()).with_markers(persons)
    if model is None:
        with open_workspace(memory_limit=memory_limit, threads=threads) as connection:
            model = Run(connection, in_memory(persons), duplicates, overrides, None).trained(seed)
    with open_workspace(memory_limit=memory_limit, threads=threads) as connection:
        before = before_of(kept)
        as_they_were = _as_they_were(before, carried)
        rows = numbered(connection, persons, profile, duplicates, before, as_they_were)
        rows, altered = _parted(connection, rows, profile, overrides.sever)
        found = compare(
            connection, rows, model, households, kept=kept, engine=engine, cap=block_cap,
            carried=carried.relationships if carried else None,
        )  # fmt: skip
        severed = _packed(overrides.sever, rows)
        apart = severed | _packed(overrides.must_not_link, rows)
        by_hand = ByHand(apart=apart, joined=_packed(overrides.must_link, rows) - apart, severed=severed)
        old, old_ids = _before(connection, rows, found, kept, previous)
        settled = settle(
            connection, rows, found.pairs, found.holders, by_hand, found.agreed, found.earlier(old, by_hand)
        )
        lasting = lasting_ids(rows, settled.person, old, old_ids, new_id, settled.near)
        kept_now = found.kept(rows, lasting.people, lasting.person, settled, by_hand, altered)
        scored = kept_now[SCORED_PAIRS]
        review = settled.review
        reviews = named_pairs(scored.filter(pa.array(review != 0)), rows.named, connection)
    reason = pc.if_else(pa.array(review[review != 0] == TIE), "tie", reviews["rule"])
    dropped = found.numbers.over_shared()
    over_shared = {
        scheme: dropped.get(scheme, 0) + len(settled.spread.get(scheme, ())) for scheme in (*dropped, *settled.spread)
    }
    return Linkage(
        named=partial(named_pairs, scored, rows.named),
        records=partial(_clusters, rows, lasting),
        placed=rows.rec,
        people=lasting.people,
        person=lasting.person,
        sources=rows.sources,
        source=rows.source,
        names=rows.name,
        ends=found.homes.ends if households is not None else None,
        now=rows.now,
        reviews=reviews.append_column("reason", reason).cast(REVIEWS),
        model=model,
        kept=kept_now,
        report=Report(
            records=rows.records,
            rows=len(rows.rec),
            compared=found.records,
            candidate_pairs=found.candidates,
            match_pairs=int(settled.judged.match.sum()),
            possible_pairs=int((settled.judged.said & ~settled.judged.match).sum()),
            reviews=reviews.num_rows,
            persons=len(lasting.people),
            capped_blocks={key.removeprefix("b_"): len(values) for key, values in found.capped.items()},
            over_shared=over_shared,
            severed_meetings=sum(settled.person[one] == settled.person[other] for one, other in severed),
            events=(
                *(ClusterEvent(kind="merge", before=before, after=after) for before, after in lasting.merges),
                *(ClusterEvent(kind="split", before=before, after=after) for before, after in lasting.splits),
            ),
        ),
    )


def _as_they_were(before: Before | None, carried: Carried | None) -> Ints | None:
    """By row of persons its row in the run before, where that was compared as it was given; else -1."""
    if before is None or carried is None:
        return None
    compared = np.ones(len(before.rec) + 1, np.bool_)  # one more, for -1
    compared[before.altered] = False
    fits = carried.persons < len(before.rec)
    return np.where(compared[np.where(fits, carried.persons, -1)] | ~fits, carried.persons, -1)


def _parted(
    connection: duckdb.DuckDBPyConnection, rows: Numbered, profile: Profile, sever: AbstractSet[RecordPair]
) -> tuple[Numbered, Ints]:
    """The rows with nothing that leads across a sever, and which of them that changed."""
    nobody = np.zeros(0, np.int64)
    severed = list(rows.find(key for pair in sever for key in pair).values())
    if not severed:
        return rows, nobody
    among = np.zeros(rows.records, np.bool_)
    among[severed] = True
    altered = bridges(rows.persons, sever, np.flatnonzero(among[rows.rec]))
    if not len(altered.rows):
        return rows, nobody
    persons = altered.of(rows.persons)
    return put_otherwise(connection, rows, profile, altered.rows, altered.table, persons), altered.rows


def _itself(table: pa.Table) -> pa.Table:
    return table


def _clusters(rows: Numbered, lasting: Lasting) -> pa.Table:
    return pa.table({**rows.named(), "person_id": texts_at(lasting.people, lasting.person)}, schema=CLUSTERS)


def named_pairs(
    scored: pa.Table,
    named: Callable[[npt.NDArray[Any]], Mapping[str, pa.Array]],
    connection: duckdb.DuckDBPyConnection | None = None,
) -> pa.Table:
    """PAIRS of those of a run's kept pairs that reached `possible`, in order; `named` gives the names of records.

    Any of the kept pairs may be left out before.  Without a `connection` a workspace is opened for it.
    """
    some = scored.filter(pc.not_equal(scored["rule"], RULES.index(NO_RULE))).combine_chunks()
    agreed, differs, rule = (some[name].to_numpy() for name in ("agreed", "differs", "rule"))
    with nullcontext(connection) if connection else open_workspace(threads=1) as at_work:
        fields = fields_said(at_work, some.select([*SCORED.names, "one_home"]), agreed, differs)
    both = named(np.concatenate([some[f"rec_{side}"].to_numpy() for side in "lr"]))
    count = some.num_rows
    names = {f"{name}_{side}": column.slice(start, count) for side, start in (("l", 0), ("r", count))
             for name, column in both.items()}  # fmt: skip
    band = pa.array(["possible", "match"]).take(pa.array((rule < len(MATCHED)).astype(np.int8)))
    return pa.table(
        {
            **names, "weight": some["weight"], "probability": some["probability"], "band": band,
            "upper": some["upper"], "rule": pa.array(RULES).take(pa.array(rule)),
            "agreed": fields["agreed"], "differs": fields["differs"],
        }
    ).cast(PAIRS)  # fmt: skip


def _before(
    connection: duckdb.DuckDBPyConnection,
    rows: Numbered,
    found: Compared,
    kept: Mapping[str, pa.Table] | None,
    previous: pa.Table | None,
) -> tuple[Ints, pa.Array]:
    """For each record the place of the person id it had, or -1; and the ids."""
    if kept is not None and (found.old >= 0).any():
        codes = np.append(kept[RECORDS]["person"].to_numpy(), -1).astype(np.int64)
        return codes[found.old], whole(kept[PEOPLE]["person_id"])
    if previous is None:
        return np.full(rows.records, -1, np.int64), pa.array([], pa.string())
    coded = pc.dictionary_encode(whole(previous["person_id"]))
    place, old = rows.places(previous), np.full(rows.records, -1, np.int64)
    old[place[place >= 0]] = coded.indices.to_numpy()[place >= 0]
    return old, coded.dictionary


def _packed(pairs: Iterable[RecordPair], rows: Numbered) -> frozenset[tuple[int, int]]:
    """Pairs of records as pairs of numbers, the lower first; a record that is not there any more drops out."""
    listed = list(pairs)
    return frozenset(_numbered(listed, rows.find(key for pair in listed for key in pair)))


class Run:
    """One link run in one workspace, stage by stage in plain SQL: what evaluation looks into, and trains on.

    `link` does the same for a million records at once; tests hold what both find equal.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        persons: pa.Table,
        duplicates: AbstractSet[tuple[str, str]],
        overrides: Overrides,
        households: pa.Table | None,
    ) -> None:
        self.db = connection
        self.profile = profile_of(persons.column_names)
        by_hand = overrides.with_markers(persons)
        persons = without_bridges(persons, by_hand.sever)
        load_persons(connection, persons, duplicates)
        self.over_shared = number_records(connection)
        self.capped = add_blocking_columns(connection, self.profile)
        self._load_homes(households)
        self.keys: list[RecordKey] = connection.execute(
            "SELECT agency, flow, record_ref FROM records JOIN sources USING (src) ORDER BY rec"
        ).fetchall()
        self.source: dict[int, int] = dict(
            connection.execute("SELECT rec, src FROM records JOIN sources USING (src) WHERE NOT dup").fetchall()
        )
        numbered = {key: rec for rec, key in enumerate(self.keys, 1)}
        named = zip(*(persons[name].to_pylist() for name in KEY), strict=True)
        self.placed = np.array([numbered[key] - 1 for key in named], np.int32)
        self.severed = _numbered(by_hand.sever, numbered)
        self.apart = self.severed | _numbered(by_hand.must_not_link, numbered)
        self.joined = _numbered(by_hand.must_link, numbered) - self.apart

    def trained(self, seed: int) -> Model:
        """A model of these records."""
        return train(self.db, self.profile, seed=seed, fallback=default_model(self.profile))

    def finish(self, model: Model, previous: pa.Table | None, new_id: Callable[[], str]) -> Linkage:
        """Score, settle, name the persons, and say what happened.  Raises BadModel if it is of another profile."""
        if model.profile != self.profile:
            raise BadModel(f"profile: {self.profile} is due")
        candidate_pairs = self.block(model)
        self.score(model)
        partition = self.settle()
        clusters = [sorted(members) for members in partition.clusters()]
        touched = {rec for members in clusters for rec in members}
        clusters += [[rec] for rec in range(1, len(self.keys) + 1) if rec not in touched]
        clusters.sort()
        keyed = [[self.keys[rec - 1] for rec in members] for members in clusters]
        before = _ids(previous)
        ids = keep_ids(keyed, before, new_id)
        person = {key: person_id for group, person_id in zip(keyed, ids, strict=True) for key in group}
        merges, splits = changes(before, person)
        reviews = self._reviews(partition)
        return Linkage(
            named=partial(_itself, self._pairs("judged WHERE band <> 'none'", "", PAIRS)),
            records=partial(
                _itself,
                pa.Table.from_pylist(
                    [
                        {"agency": key[0], "flow": key[1], "record_ref": key[2], "person_id": person[key]}
                        for key in self.keys
                    ],
                    schema=CLUSTERS,
                ),
            ),
            placed=self.placed,
            people=pa.array(ids, pa.string()),
            person=np.array(
                [group for _, group in sorted((rec, n) for n, members in enumerate(clusters) for rec in members)],
                np.int64,
            ),
            sources=(sources := tuple(sorted({key[:2] for key in self.keys}))),
            source=np.array([sources.index(key[:2]) for key in self.keys], np.int32),
            names=None,
            ends=None,
            now=None,
            reviews=reviews,
            model=model,
            kept={},
            report=Report(
                records=len(self.keys),
                rows=_count(self.db, "rows"),
                compared=len(self.keys),
                candidate_pairs=candidate_pairs,
                match_pairs=_count(self.db, "judged WHERE band = 'match'"),
                possible_pairs=_count(self.db, "judged WHERE band = 'possible'"),
                reviews=reviews.num_rows,
                persons=len(keyed),
                capped_blocks=self.capped,
                over_shared=self.over_shared,
                severed_meetings=sum(person[self.keys[a - 1]] == person[self.keys[b - 1]] for a, b in self.severed),
                events=(
                    *(ClusterEvent(kind="merge", before=old, after=new) for old, new in merges),
                    *(ClusterEvent(kind="split", before=old, after=new) for old, new in splits),
                ),
            ),
        )

    def _load_homes(self, households: pa.Table | None) -> None:
        """Make `homes` (rec, homes): the household tokens of each record."""
        self.db.execute("CREATE TABLE homes (rec INTEGER, homes BIGINT[])")
        if households is None or households.num_rows == 0:
            return
        self.db.register("households_in", households)
        self.db.execute("""
            INSERT INTO homes
            SELECT rec, list(DISTINCT household)
            FROM households_in h JOIN sources USING (agency, flow)
            JOIN records r ON r.src = sources.src AND r.record_ref = h.ref_a
            WHERE h.type = 'household' AND household IS NOT NULL
            GROUP BY rec
        """)
        self.db.unregister("households_in")

    def block(self, model: Model) -> int:
        """Make `blocked` (id_l, id_r), the pairs of rows that share a key.  Returns how many."""
        pairs = linker(self.db, self.profile, model).inference.compute_blocked_pairs_for_predict()
        self.db.execute(f"""
            CREATE TABLE blocked AS SELECT join_key_l AS id_l, join_key_r AS id_r FROM {pairs.physical_name}
        """)
        pairs.drop_table_from_database_and_remove_from_cache()
        return _count(self.db, "blocked")

    def score(self, model: Model) -> None:
        """Make `scored`: a row a pair of records, by its best pair of rows; those set apart by people are left out."""
        rows = scored(model, "blocked", keep=("rec", "birth_year"))
        self.db.execute(f"""
            CREATE TABLE scored AS
            SELECT rec_l, rec_r, weight, probability, {", ".join(f"gamma_{field}" for field in FIELDS)},
                   birth_year_l, birth_year_r, coalesce(list_has_any(l.homes, r.homes), false) AS one_home
            FROM (
                FROM ({rows})
                QUALIFY row_number() OVER (
                    PARTITION BY rec_l, rec_r ORDER BY weight DESC, unique_id_l, unique_id_r) = 1
            )
            LEFT JOIN homes l ON l.rec = rec_l LEFT JOIN homes r ON r.rec = rec_r
        """)
        if self.apart:
            self._register_pairs("apart", self.apart)
            self.db.execute("DELETE FROM scored USING apart a WHERE scored.rec_l = a.rec_l AND scored.rec_r = a.rec_r")

    def settle(self) -> Partition:
        """Band (`judged`) and cluster, and again without the numbers that more than SPREAD persons then hold."""
        while True:
            compare_numbers(self.db)
            self._judge()
            numbers = self.numbers()
            partition = self._cluster(numbers)
            holders: dict[tuple[str, int], set[int]] = defaultdict(set)
            for rec, schemes in numbers.items():
                for scheme, tokens in schemes.items():
                    for token in tokens:
                        holders[scheme, token].add(min(partition.of(rec)))
            spread = [number for number, persons in holders.items() if len(persons) > SPREAD]
            if not spread:
                return partition
            table = pa.table([[s for s, _ in spread], [n for _, n in spread]], names=["scheme", "number"])
            self.db.register("spread_in", table)
            self.db.execute("CREATE OR REPLACE TEMP TABLE shared AS SELECT scheme, number FROM spread_in")
            self.db.unregister("spread_in")
            for scheme, count in drop_shared(self.db).items():
                self.over_shared[scheme] = self.over_shared.get(scheme, 0) + count

    def _judge(self) -> None:
        """Make `judged`: the scored pairs with band and rule."""
        self.db.execute(f"""
            CREATE OR REPLACE TEMP TABLE banded AS
            {banded("(SELECT * FROM scored LEFT JOIN numbered USING (rec_l, rec_r))")}
        """)
        # A number of one child under the name of another: the names fit a third record, which has a number of its own
        # or which the second record's flow holds as somebody else.
        self.db.execute(f"""
            CREATE OR REPLACE TEMP TABLE swapped AS
            WITH near AS (
                SELECT rec_l, rec_r, len(coalesce(id_differs, [])) > 0 AS other_number FROM banded
                WHERE gamma_given_name >= {NAME_CLOSE} AND gamma_family_name >= {NAME_CLOSE}
                  AND gamma_date_of_birth = {DOB_EQUAL} AND len(coalesce(id_agreed, [])) = 0
            ), fits AS (
                SELECT rec_l AS rec, rec_r AS rival, other_number FROM near
                UNION ALL SELECT rec_r, rec_l, other_number FROM near
            ), far AS (
                SELECT rec_l, rec_r FROM banded
                WHERE rule = 'identifier' AND gamma_given_name BETWEEN {FAR} AND {NAME_ONES - 1}
            )
            SELECT DISTINCT far.rec_l, far.rec_r
            FROM (SELECT *, rec_l AS rec, rec_r AS other FROM far UNION ALL SELECT *, rec_r, rec_l FROM far) far
            JOIN fits USING (rec) JOIN records o ON o.rec = other JOIN sources USING (src)
            JOIN records t ON t.rec = rival
            WHERE other_number OR (o.src = t.src AND NOT dup)
        """)
        # A child's name before an adoption and after it look like this: see settling._by_a_sever.
        self._register_pairs("severed", self.severed)
        doubtful = f"rule = 'two_fields' AND gamma_family_name < {NAME_ALIKE}"
        self.db.execute(f"""
            CREATE OR REPLACE TEMP TABLE doubted AS
            WITH RECURSIVE sure AS (
                SELECT rec_l AS one, rec_r AS other FROM banded WHERE band = 'match' AND NOT ({doubtful})
                    AND (rec_l, rec_r) NOT IN (SELECT (rec_l, rec_r) FROM swapped)
                UNION ALL SELECT rec_r, rec_l FROM banded WHERE band = 'match' AND NOT ({doubtful})
                    AND (rec_l, rec_r) NOT IN (SELECT (rec_l, rec_r) FROM swapped)
            ), near AS (
                (SELECT rec_l AS rec FROM severed UNION SELECT rec_r FROM severed)
                UNION SELECT other FROM near JOIN sure ON one = rec
            )
            SELECT rec_l, rec_r FROM banded
            WHERE {doubtful} AND (rec_l IN (SELECT rec FROM near) OR rec_r IN (SELECT rec FROM near))
        """)
        self.db.execute("""
            CREATE OR REPLACE TEMP TABLE judged AS
            SELECT * EXCLUDE (hold, doubt) REPLACE (
                CASE WHEN hold THEN 'swapped' WHEN doubt THEN 'uncertain' ELSE rule END AS rule,
                CASE WHEN hold OR doubt THEN 'possible' ELSE band END AS band,
                upper AND NOT hold AND NOT doubt AS upper)
            FROM (SELECT *, (rec_l, rec_r) IN (SELECT (rec_l, rec_r) FROM swapped) AS hold,
                         (rec_l, rec_r) IN (SELECT (rec_l, rec_r) FROM doubted) AS doubt FROM banded)
        """)

    def numbers(self) -> dict[int, dict[str, frozenset[int]]]:
        """The strong identifiers of each record, by scheme."""
        numbers: dict[int, dict[str, frozenset[int]]] = defaultdict(dict)
        for rec, scheme, tokens in self.db.execute(
            f"SELECT rec, scheme, list(number) FROM numbers WHERE scheme <> '{LOCAL}' GROUP BY ALL"
        ).fetchall():
            numbers[rec][scheme] = frozenset(tokens)
        return numbers

    def _cluster(self, numbers: Mapping[int, Mapping[str, frozenset[int]]]) -> Partition:
        edges = [Edge(left=left, right=right, strength=(BY_HAND, 0.0)) for left, right in self.joined]
        edges += [
            Edge(left=left, right=right, strength=(BY_NUMBER if rule == "identifier" else BY_MODEL, -weight))
            for left, right, rule, weight in self.db.execute(
                "SELECT rec_l, rec_r, rule, round(weight, 6) FROM judged WHERE band = 'match'"
            ).fetchall()
        ]
        held = self.db.execute("SELECT rec_l, rec_r FROM judged WHERE rule IN ('twin', 'swapped')").fetchall()
        rules = Rules(source=self.source, numbers=numbers, apart=_others(self.apart), held=_others(held))
        return cluster(edges, rules)

    def _reviews(self, partition: Partition) -> pa.Table:
        """Pairs held or uncertain that could still be one person, and pairs dropped because two fitted as well."""
        open_pairs = self.db.execute("SELECT rec_l, rec_r, rule FROM judged WHERE band = 'possible'").fetchall()
        wanted = {
            (left, right): rule
            for left, right, rule in open_pairs
            if right not in partition.of(left)
            and self._undecided(partition, left, right)
            and not partition.apart(left, right)
        }
        for edge in partition.ties:
            left, right = sorted((edge.left, edge.right))
            if right not in partition.of(left) and not partition.apart(left, right):
                wanted[left, right] = "tie"
        self._register_pairs("wanted", wanted, reasons=list(wanted.values()))
        return self._pairs("judged JOIN wanted USING (rec_l, rec_r)", ", reason", REVIEWS)

    def _undecided(self, partition: Partition, left: int, right: int) -> bool:
        """Whether no flow holds the two persons as two already."""
        sources = {self.source.get(rec) for rec in partition.of(left)} - {None}
        return sources.isdisjoint(self.source.get(rec) for rec in partition.of(right))

    def _register_pairs(self, name: str, pairs: Iterable[tuple[int, int]], reasons: list[str] | None = None) -> None:
        lefts, rights = zip(*pairs, strict=True) if pairs else ((), ())
        columns = {"rec_l": pa.array(lefts, pa.int32()), "rec_r": pa.array(rights, pa.int32())}
        if reasons is not None:
            columns["reason"] = pa.array(reasons, pa.string())
        self.db.register("pairs_in", pa.table(columns))
        self.db.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM pairs_in")
        self.db.unregister("pairs_in")

    def _pairs(self, source: str, extra: str, schema: pa.Schema) -> pa.Table:
        found = self.db.sql(f"""
            SELECT ls.agency AS agency_l, ls.flow AS flow_l, l.record_ref AS record_ref_l,
                   rs.agency AS agency_r, rs.flow AS flow_r, r.record_ref AS record_ref_r,
                   weight, probability, band, upper, rule, agreed, differs{extra}
            FROM (SELECT * FROM {source})
            JOIN records l ON l.rec = rec_l JOIN sources ls ON ls.src = l.src
            JOIN records r ON r.rec = rec_r JOIN sources rs ON rs.src = r.src
            ORDER BY rec_l, rec_r
        """)
        return pa.table(found.to_arrow_table()).cast(schema)


def _numbered(pairs: Iterable[RecordPair], numbers: Mapping[RecordKey, int]) -> set[tuple[int, int]]:
    """Pairs of records as pairs of numbers, the lower first; a record that is not there any more drops out."""
    return {
        (min(numbers[left], numbers[right]), max(numbers[left], numbers[right]))
        for left, right in pairs
        if left in numbers and right in numbers and left != right
    }


def _others(pairs: Iterable[tuple[int, int]]) -> dict[int, set[int]]:
    others: dict[int, set[int]] = defaultdict(set)
    for left, right in pairs:
        others[left].add(right)
        others[right].add(left)
    return others


def _ids(previous: pa.Table | None) -> dict[RecordKey, str]:
    if previous is None:
        return {}
    columns = (previous[name].to_pylist() for name in CLUSTERS.names)
    return {(agency, flow, ref): person for agency, flow, ref, person in zip(*columns, strict=True)}


def _count(connection: duckdb.DuckDBPyConnection, source: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {source}").fetchall()[0][0])
