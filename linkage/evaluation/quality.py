"""`quality`: how well labelled records link when encoded, and how well plain Splink links the same rows in clear."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

import json
import logging
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import splink.comparison_level_library as cll
import splink.comparison_library as cl
import typer
from splink import DuckDBAPI, Linker, SettingsCreator
from splink.blocking_rule_library import CustomRule

from linkage.agency import clock, extract, mapping
from linkage.agency.encode import encode_people, household_token
from linkage.agency.keys import LinkageKeys
from linkage.agency.people import STANDARD_IDENTIFIERS
from linkage.agency.standardise import Rules, family_name, given_name, soundex, standardise_people
from linkage.matching.bands import MATCH_BAR
from linkage.matching.blocking import APART, KEYS, WIDE
from linkage.matching.identifiers import (
    ALL_SCHEMES,
    LOCAL,
    SCHEMES,
    SPREAD,
    compare_numbers,
    drop_shared,
    number_records,
)
from linkage.matching.link import Run
from linkage.matching.overrides import Overrides
from linkage.matching.persons import Edge, Partition, cluster
from linkage.matching.persons import Rules as ClusterRules
from linkage.matching.workspace import open_workspace
from linkage.records import PROFILES, Profile

MEMORY: Final = "4GB"
SEED: Final = 1
DEFAULT_DATASET: Final = "records"
_STRONG: Final = 64.0  # bits of weight that an identifier with an agreeing field counts for

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Numbers = Mapping[int, Mapping[str, frozenset[int]]]
"""Record -> scheme -> its strong identifiers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Pairwise quality at one threshold (a probability)."""

    precision: float
    recall: float
    f1: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """`shipped`: persons formed at the shipped threshold, best links first; `best` and `one_to_one`: single pairs.

    `best` picks its threshold by the labels, and so does `one_to_one`, after each record kept only its best partner in
    each other data set.
    """

    shipped: Score
    best: Score
    one_to_one: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage took: seconds on the wall and of the processors, and the highest memory of the process in it."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(slots=True)
class Stages:
    """The stages so far."""

    done: list[Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what runs inside."""
        _forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.done.append(
            Stage(
                name=name,
                wall_s=round(time.perf_counter() - wall, 3),
                cpu_s=round(time.process_time() - cpu, 3),
                peak_mb=round(_peak_mb(), 1),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Labelled records in standard form, a row for each record and alternative."""

    standard: pa.Table  # people.STANDARD_SCHEMA
    birth_year: pa.Array
    sex: pa.Array
    homes: Sequence[str | None]
    sever: Sequence[str | None]
    key: Sequence[tuple[str, str, str]]  # agency, flow, record, of each row
    truth: Mapping[tuple[str, str, str], str]
    duplicates: frozenset[tuple[str, str]]

    @property
    def records(self) -> list[tuple[str, str, str]]:
        """Each record once, in the order in which the matching side numbers them."""
        return sorted(self.truth)

    @property
    def has_identifiers(self) -> bool:
        """Whether any record has any identifier."""
        return any(self.standard[name].null_count < self.standard.num_rows for name in STANDARD_IDENTIFIERS)

    def without_identifiers(self) -> Labelled:
        """The same records with no identifier on either side."""
        bare = self.standard
        for name in STANDARD_IDENTIFIERS:
            column = bare.schema.get_field_index(name)
            bare = bare.set_column(column, name, pa.nulls(bare.num_rows, pa.string()))
        return replace(self, standard=bare)

    def true_pairs(self) -> int:
        """Pairs of records of one person that linkage may find: of two data sets, or of one with duplicates."""
        people = Counter(self.truth.values())
        within = Counter(
            (source, person)
            for (*source_key, _), person in self.truth.items()
            if (source := (source_key[0], source_key[1])) not in self.duplicates
        )
        return sum(map(_pairs_of, people.values())) - sum(map(_pairs_of, within.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Pairs of records (by place in `Labelled.records`) with a weight each, identifiers counted in."""

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    weight: Floats
    numbers: Numbers  # of each record that has any, by place


def read(records: Path, mapping_file: Path, *, truth: str, dataset: str | None) -> Labelled:
    """Read labelled records: the mapping is the one `agency encode` uses.

    Without `dataset` all are one set that may hold a person twice.  A record without a label is a person of its own.
    Raises BadMapping or BadExtract.
    """
    source = mapping.load(mapping_file, persons_only=True)
    persons = source.persons
    table = extract.fields(persons, file=records)
    labels = _column(records, truth)
    sets = _column(records, dataset) if dataset else [DEFAULT_DATASET] * table.num_rows
    rules = Rules(
        **({"date_format": persons.formats["date_of_birth"]} if "date_of_birth" in persons.formats else {}),
        default_dates=persons.default_dates,
        earliest_year=None,
        uk_postcodes=False,
        not_postcodes=persons.not_postcodes,
    )
    standard = standardise_people(table, rules, today=clock.today(clock.now()))
    keys = _record_keys(table, sets)
    rows = _with_alternatives(table, standard.people)
    index = pa.array([row for row, _, _ in rows], pa.int64())
    taken = standard.people.take(index)
    for name, place in (("given_name", 1), ("family_name", 2)):
        column = pa.array([row[place] for row in rows], pa.string())
        taken = taken.set_column(taken.schema.get_field_index(name), name, column)
    homes, severed = _cell(table, "uprn"), _cell(table, "sever_ref")
    unlabelled = iter(range(table.num_rows))
    named: dict[tuple[str, str, str], str] = {}
    for key, label in zip(keys, labels, strict=True):
        named.setdefault(key, f"label {label}" if label else f"nobody {next(unlabelled)}")
    everyone = {(agency, flow) for agency, flow, _ in keys}
    return Labelled(
        standard=taken,
        birth_year=standard.birth_year.take(index),
        sex=standard.sex.take(index),
        homes=[homes[row] for row, _, _ in rows],
        sever=[severed[row] for row, _, _ in rows],
        key=[keys[row] for row, _, _ in rows],
        truth=named,
        duplicates=frozenset(everyone) if dataset is None or persons.duplicates else frozenset(),
    )


def encode(labelled: Labelled, keys: LinkageKeys, profile: Profile) -> tuple[pa.Table, pa.Table]:
    """The persons and household rows that agencies would send, with agency and flow."""
    agencies = [agency for agency, _, _ in labelled.key]
    parts = []
    for agency in sorted(set(agencies)):
        rows = pa.array([n for n, one in enumerate(agencies) if one == agency], pa.int64())
        encoded = encode_people(labelled.standard.take(rows), keys, profile, agency=agency)
        names = [labelled.key[row] for row in rows.to_pylist()]
        for name, values in (
            ("agency", [one for one, _, _ in names]),
            ("flow", [flow for _, flow, _ in names]),
            ("record_ref", [ref for _, _, ref in names]),
            ("sever_ref", [labelled.sever[row] for row in rows.to_pylist()]),
        ):
            encoded = encoded.append_column(name, pa.array(values, pa.string()))
        encoded = encoded.append_column("birth_year", labelled.birth_year.take(rows))
        parts.append(encoded.append_column("sex", labelled.sex.take(rows)))
    tokens = {home: household_token(keys, profile, home) for home in {home for home in labelled.homes if home}}
    living = [(key, tokens[home]) for key, home in zip(labelled.key, labelled.homes, strict=True) if home]
    households = pa.table(
        {
            "agency": pa.array([key[0] for key, _ in living], pa.string()),
            "flow": pa.array([key[1] for key, _ in living], pa.string()),
            "ref_a": pa.array([key[2] for key, _ in living], pa.string()),
            "type": pa.array(["household"] * len(living), pa.string()),
            "household": pa.array([token for _, token in living], pa.int64()),
        }
    )
    return pa.concat_tables(parts), households


def report(labelled: Labelled, profile: Profile, *, clear_text: bool) -> dict[str, Any]:
    """What `--json` writes: `evaluate`, and under `without_identifiers` the same again if there are identifiers."""
    body = evaluate(labelled, profile, clear_text=clear_text)
    if labelled.has_identifiers:
        body["without_identifiers"] = evaluate(labelled.without_identifiers(), profile, clear_text=clear_text)
    return body


def evaluate(labelled: Labelled, profile: Profile, *, clear_text: bool) -> dict[str, Any]:
    """The report of `--json`: design.md section 8, and `linked`, what a broker would make of it with every rule."""
    stages = Stages()
    with stages.stage("encode"):
        keys = LinkageKeys.generate(partnership="evaluation", epoch="evaluation")
        persons, households = encode(labelled, keys, profile)
    connection = open_workspace(memory_limit=MEMORY)
    with stages.stage("load"):
        run = Run(connection, persons, labelled.duplicates, Overrides(), households)
    with stages.stage("train"):
        model = run.trained(SEED)
    with stages.stage("block"):
        run.block(model)
    with stages.stage("score"):
        run.score(model)
    with stages.stage("cluster"):
        partition = run.settle()
    compared = _compared(run)
    groups = [[rec - 1 for rec in members] for members in partition.clusters()]
    true = _true_of(labelled, compared.left, compared.right)
    body: dict[str, Any] = {
        "encoded": asdict(_scores(labelled, compared)),
        "linked": asdict(_partition_score(labelled, groups)),
        "blocking_recall": round(float(true.sum()) / max(1, labelled.true_pairs()), 6),
        "candidate_pairs": len(true),
        "records": len(labelled.truth),
    }
    connection.close()
    if clear_text:
        for name, keys_in_clear in (("clear_text", KEYS[profile]), ("clear_text_wide", WIDE)):
            with stages.stage(name):
                body[name] = asdict(_scores(labelled, _in_clear(labelled, keys_in_clear)))
    body["stages"] = [asdict(stage) for stage in stages.done]
    return body


def command(
    records: Annotated[Path, typer.Argument(help="Labelled records: CSV or Parquet.", exists=True, dir_okay=False)],
    mapping_file: Annotated[
        Path, typer.Option("--mapping", help="The mapping `agency encode` uses; [persons] is read.", exists=True)
    ],
    truth: Annotated[str, typer.Option("--truth", help="The column that says who each record truly is.")],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="The column that names each record's data set; without it all are one."),
    ] = None,
    profile: Annotated[Literal["guarded", "accurate"], typer.Option("--profile")] = "guarded",
    clear_text: Annotated[
        bool, typer.Option("--clear-text", help="Link the same rows in clear by plain Splink, too.")
    ] = False,
    without_identifiers: Annotated[
        bool, typer.Option("--without-identifiers", help="Leave every identifier out, on both sides.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--json", help="Write the report here as JSON.")] = None,
) -> None:
    """How well labelled records link once encoded, under a fresh key; run on labelled or made-up records only.

    Prints pairwise precision, recall and F1 at the shipped threshold and at the best one, what blocking kept, and the
    seconds and memory of each stage.  Exit codes: 0 measured; 2 usage, or a file or mapping that can't be read.
    """
    logging.getLogger("splink").setLevel(logging.ERROR)
    full = next(known for known in PROFILES if known.startswith(f"{profile}-"))
    try:
        labelled = read(records, mapping_file, truth=truth, dataset=dataset)
    except (mapping.BadMapping, extract.BadExtract, KeyError) as problem:
        typer.echo(str(problem), err=True)
        raise typer.Exit(2) from None
    if without_identifiers:
        labelled = labelled.without_identifiers()
    body = report(labelled, full, clear_text=clear_text)
    if out is not None:
        out.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    _print(body, f"profile {profile}")
    if bare := body.get("without_identifiers"):
        typer.echo()
        _print(bare, f"profile {profile}, WITHOUT IDENTIFIERS")


def _print(body: Mapping[str, Any], heading: str) -> None:
    typer.echo(f"{body['records']:,} records, {body['candidate_pairs']:,} candidate pairs, {heading}")
    typer.echo(f"blocking keeps {body['blocking_recall']:.4f} of the true pairs")
    typer.echo(f"{'':<28}{'precision':>10}{'recall':>10}{'F1':>10}{'threshold':>11}")
    for name in ("encoded", "clear_text", "clear_text_wide"):
        for kind, score in body.get(name, {}).items():
            typer.echo(_line(f"{name} {kind}", score))
    typer.echo(_line("linked, with every rule", body["linked"]))
    typer.echo(f"{'stage':<28}{'wall s':>10}{'CPU s':>10}{'peak MB':>10}")
    for stage in body["stages"]:
        typer.echo(f"{stage['name']:<28}{stage['wall_s']:>10.2f}{stage['cpu_s']:>10.2f}{stage['peak_mb']:>10.0f}")


def _line(name: str, score: Mapping[str, float]) -> str:
    figures = "".join(f"{score[part]:>10.4f}" for part in ("precision", "recall", "f1"))
    return f"{name:<28}{figures}{score['threshold']:>11.4f}"


# --- Reading ---------------------------------------------------------------------------------------------------------


def _column(path: Path, name: str) -> list[str | None]:
    table = extract.read(path)
    if name not in table.column_names:
        raise extract.BadExtract(f"{path.name}: no column {name!r}; it has {', '.join(table.column_names)}")
    return [None if value is None else str(value).strip() or None for value in table[name].to_pylist()]


def _cell(table: pa.Table, name: str) -> list[str | None]:
    return list(table[name].to_pylist()) if name in table.column_names else [None] * table.num_rows


def _record_keys(table: pa.Table, sets: Sequence[str | None]) -> list[tuple[str, str, str]]:
    """Agency, flow and record of each row; a data set called `a/b` is flow b of agency a."""
    ids = _cell(table, "local_id")
    keys = []
    for row, (name, local_id) in enumerate(zip(sets, ids, strict=True)):
        agency, _, flow = (name or DEFAULT_DATASET).partition("/")
        keys.append((agency, flow or agency, local_id or f"row {row}"))
    return keys


def _with_alternatives(table: pa.Table, standard: pa.Table) -> list[tuple[int, str | None, str | None]]:
    """Rows as (row, given name, family name): also under a known-as and a former family name, as a batch has them."""
    given, family = standard["given_name"].to_pylist(), standard["family_name"].to_pylist()
    known_as, former, severed = (_cell(table, name) for name in ("known_as", "former_family_name", "sever_ref"))
    rows: list[tuple[int, str | None, str | None]] = []
    for row in range(table.num_rows):
        names = [(given[row], family[row])]
        if severed[row] is None:  # a name from before an adoption order is never sent
            if (other := known_as[row]) and (value := given_name(other).value):
                names.append((value, family[row]))
            if (other := former[row]) and (value := family_name(other).value):
                names.append((given[row], value))
        rows += [(row, one, two) for one, two in dict.fromkeys(names)]
    return rows


# --- Scores ----------------------------------------------------------------------------------------------------------


def _compared(run: Run) -> Compared:
    """The scored pairs.  An identifier that agrees, with one more field, settles a pair; one that differs vetoes it."""
    left, right, weight, rule, apart = (
        np.array(column)
        for column in zip(
            *run.db.execute("""
                SELECT rec_l, rec_r, weight, rule, len(coalesce(id_differs, [])) > 0 FROM judged ORDER BY rec_l, rec_r
            """).fetchall(),
            strict=True,
        )
    )
    adjusted = np.where(rule == "identifier", weight + _STRONG, np.where(apart, -_STRONG, weight))
    return Compared(
        left=left - 1,
        right=right - 1,
        weight=adjusted.astype(np.float64),
        numbers={rec - 1: schemes for rec, schemes in run.numbers().items()},
    )


def _scores(labelled: Labelled, compared: Compared) -> Scores:
    total = labelled.true_pairs()
    true = _true_of(labelled, compared.left, compared.right)
    order = np.lexsort((compared.right, compared.left, -compared.weight))
    alone = _one_to_one(labelled, compared, order)
    return Scores(
        shipped=_partition_score(labelled, [list(group) for group in _clustered(labelled, compared).clusters()]),
        best=_best(compared.weight[order], true[order], total),
        one_to_one=_best(compared.weight[order][alone], true[order][alone], total),
    )


def _clustered(labelled: Labelled, compared: Compared) -> Partition:
    """Persons, best links first, at the shipped threshold: no two records of one flow, no two numbers of one kind."""
    bar = np.log2(MATCH_BAR / (1 - MATCH_BAR))
    sources = {place: _source(key) for place, key in enumerate(labelled.records)}
    ids = {source: n for n, source in enumerate(sorted(set(sources.values())))}
    rules = ClusterRules(
        source={place: ids[source] for place, source in sources.items() if source not in labelled.duplicates},
        numbers=compared.numbers,
    )
    edges = (
        Edge(left=left, right=right, strength=(1, -round(weight, 6)))
        for left, right, weight in zip(
            compared.left.tolist(), compared.right.tolist(), compared.weight.tolist(), strict=True
        )
        if weight >= bar
    )
    return cluster(edges, rules)


def _partition_score(labelled: Labelled, groups: Iterable[Sequence[int]]) -> Score:
    records = labelled.records
    said = right = 0
    for group in groups:
        said += _pairs_of(len(group))
        right += sum(map(_pairs_of, Counter(labelled.truth[records[place]] for place in group).values()))
    return _score(right, said, labelled.true_pairs(), MATCH_BAR)


def _best(weights: Floats, true: Bools, total: int) -> Score:
    """The best F1 over all thresholds; weights come best first."""
    if not len(weights):
        return _score(0, 0, total, MATCH_BAR)
    right = np.cumsum(true)
    said = np.arange(1, len(weights) + 1)
    last = np.append(weights[1:] < weights[:-1], True)  # a threshold takes all pairs of one weight, or none
    f1 = np.where(last, 2 * right / (said + total), 0.0)
    place = int(np.argmax(f1))
    return _score(int(right[place]), int(said[place]), total, float(1 / (1 + 2.0 ** -min(weights[place], 50.0))))


def _one_to_one(labelled: Labelled, compared: Compared, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Places in `order` that stay when each record takes only its best free partner in each other data set."""
    sources = [_source(key) for key in labelled.records]
    taken: set[tuple[int, tuple[str, str]]] = set()
    kept = []
    for place, n in enumerate(order.tolist()):
        left, right = int(compared.left[n]), int(compared.right[n])
        mine, theirs = (left, sources[right]), (right, sources[left])
        if mine not in taken and theirs not in taken:
            taken |= {mine, theirs}
            kept.append(place)
    return np.array(kept, np.int64)


def _score(right: int, said: int, total: int, threshold: float) -> Score:
    precision = right / said if said else 1.0
    recall = right / total if total else 1.0
    f1 = 2 * right / (said + total) if said + total else 1.0
    return Score(precision=round(precision, 6), recall=round(recall, 6), f1=round(f1, 6), threshold=round(threshold, 6))


def _true_of(labelled: Labelled, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> Bools:
    numbered: dict[str, int] = {}
    labels = np.array([numbered.setdefault(labelled.truth[key], len(numbered)) for key in labelled.records])
    return np.asarray(labels[left] == labels[right], np.bool_)


def _pairs_of(count: int) -> int:
    return count * (count - 1) // 2


def _source(key: tuple[str, str, str]) -> tuple[str, str]:
    return key[0], key[1]


# --- In clear --------------------------------------------------------------------------------------------------------


def _in_clear(labelled: Labelled, keys: Sequence[str]) -> Compared:
    """The same rows by plain Splink: Jaro-Winkler and Damerau levels, term frequencies, blocked on `keys` in clear."""
    place = {key: n for n, key in enumerate(labelled.records)}
    columns: dict[str, list[Any]] = defaultdict(list)
    standard = [
        labelled.standard[name].to_pylist() for name in ("given_name", "family_name", "date_of_birth", "postcode")
    ]
    sources = {source: n for n, source in enumerate(sorted({_source(key) for key in labelled.key}))}
    for n, (given, family, born, code) in enumerate(zip(*standard, strict=True)):
        key = labelled.key[n]
        row = {
            "unique_id": n, "rec": place[key], "src": sources[_source(key)], "dup": _source(key) in labelled.duplicates,
            "given_name": given, "family_name": family, "date_of_birth": born, "postcode": code,
            "sex": labelled.sex[n].as_py(), **_clear_keys(given, family, born, code),
        }  # fmt: skip
        for name, value in row.items():
            columns[name].append(value)
    typed = {name: pa.array(values, _CLEAR_TYPES.get(name, pa.string())) for name, values in columns.items()}
    connection = open_workspace(memory_limit=MEMORY)
    connection.register("clear_in", pa.table(typed | _numbered(labelled)))
    connection.execute("CREATE TABLE rows AS SELECT * FROM clear_in ORDER BY unique_id")
    connection.unregister("clear_in")
    connection.execute("CREATE TABLE sources AS SELECT DISTINCT src, dup FROM rows")
    connection.execute("CREATE TABLE records AS SELECT DISTINCT rec, src FROM rows")
    number_records(connection)
    splink = Linker(
        DuckDBAPI(connection).register("rows"),
        SettingsCreator(
            link_type="dedupe_only",
            comparisons=_clear_comparisons(with_sex=any(columns["sex"])),
            blocking_rules_to_generate_predictions=[
                *(_rule(f"l.c_{scheme} = r.c_{scheme}") for scheme in ALL_SCHEMES),
                *(_rule(f"l.k_{key} = r.k_{key}") for key in keys),
            ],
            retain_matching_columns=False,
            additional_columns_to_retain=["rec"],
        ),
        log_level=None,
    )
    same_name = "l.given_name = r.given_name AND l.family_name = r.family_name"
    splink.training.estimate_probability_two_random_records_match(
        [_rule(f"{same_name} AND l.date_of_birth = r.date_of_birth")], recall=0.7
    )
    splink.training.estimate_u_using_random_sampling(max_pairs=2e6, seed=SEED, min_count_per_level=None)
    for blocked_on in ("date_of_birth", "postcode"):
        splink.training.estimate_parameters_using_expectation_maximisation(_rule(f"l.{blocked_on} = r.{blocked_on}"))
    scores = splink.inference.predict()
    prior = splink.misc.save_model_to_json()["probability_two_random_records_match"]
    counts = connection.execute("SELECT any_value(dup), count(*) FROM rows GROUP BY src").fetchall()
    connection.execute(f"""
        CREATE TABLE scored AS
        SELECT least(rec_l, rec_r) AS rec_l, greatest(rec_l, rec_r) AS rec_r,
               max(match_weight) + {_only_between(prior, counts)!r} AS weight,
               bool_or({_FIELD_AGREES}) AS field_agrees
        FROM {scores.physical_name} p
        JOIN rows l ON l.unique_id = p.unique_id_l JOIN rows r ON r.unique_id = p.unique_id_r
        GROUP BY ALL
    """)
    while True:
        compare_numbers(connection)
        compared = _settled_by_numbers(connection)
        spread = _spread(compared.numbers, _clustered(labelled, compared))
        if not spread:
            connection.close()
            return compared
        connection.register("spread_in", pa.table([*zip(*spread, strict=True)], names=["scheme", "number"]))
        connection.execute("CREATE OR REPLACE TEMP TABLE shared AS SELECT scheme, number FROM spread_in")
        connection.unregister("spread_in")
        drop_shared(connection)


_FIELD_AGREES: Final = """
    coalesce(l.date_of_birth = r.date_of_birth, false)
    OR coalesce(jaro_winkler_similarity(l.given_name, r.given_name) >= 0.88, false)
    OR coalesce(jaro_winkler_similarity(l.family_name, r.family_name) >= 0.88, false)
"""


def _numbered(labelled: Labelled) -> dict[str, pa.Array]:
    """The identifiers as columns `id_*`: a number stands for each, the same for a current and a former one."""
    places: dict[tuple[str, str], int] = {}
    columns = {}
    for field_name, wire in STANDARD_IDENTIFIERS.items():
        scheme = next((scheme for scheme, names in SCHEMES.items() if wire in names), LOCAL)
        columns[f"id_{wire}"] = pa.array(
            [
                None
                if value is None
                else places.setdefault((f"{agency}/{LOCAL}" if scheme == LOCAL else scheme, value), len(places))
                for value, (agency, _, _) in zip(labelled.standard[field_name].to_pylist(), labelled.key, strict=True)
            ],
            pa.int64(),
        )
    return columns


def _settled_by_numbers(connection: Any) -> Compared:
    """The scored pairs in clear, settled and vetoed by identifiers as the encoded ones are."""
    found = connection.execute(f"""
        SELECT rec_l, rec_r,
               CASE WHEN len(coalesce(id_differs, [])) > 0 THEN {-_STRONG}
                    WHEN len(coalesce(id_agreed, [])) > 0 AND field_agrees THEN weight + {_STRONG}
                    ELSE weight END
        FROM scored LEFT JOIN numbered USING (rec_l, rec_r) ORDER BY ALL
    """).fetchall()
    numbers: dict[int, dict[str, frozenset[int]]] = defaultdict(dict)
    for rec, scheme, tokens in connection.execute(
        f"SELECT rec, scheme, list(number) FROM numbers WHERE scheme <> '{LOCAL}' GROUP BY ALL"
    ).fetchall():
        numbers[rec][scheme] = frozenset(tokens)
    left, right, weight = (np.array(column) for column in zip(*found, strict=True)) if found else (np.array([]),) * 3
    return Compared(
        left=left.astype(np.int64), right=right.astype(np.int64), weight=weight.astype(np.float64), numbers=numbers
    )


def _spread(numbers: Numbers, partition: Partition) -> list[tuple[str, int]]:
    """The numbers that more than SPREAD persons hold."""
    holders: dict[tuple[str, int], set[int]] = defaultdict(set)
    for rec, schemes in numbers.items():
        for scheme, tokens in schemes.items():
            for token in tokens:
                holders[scheme, token].add(min(partition.of(rec)))
    return [number for number, persons in holders.items() if len(persons) > SPREAD]


def _only_between(prior: float, counts: Sequence[tuple[bool, int]]) -> float:
    """What the weight of a pair gains when the prior is of the pairs that may be one person, and not of all of them.

    As Splink itself has it when it links data sets without duplicates; the encoded model has it so, too.
    """
    rows = sum(n for _, n in counts)
    comparable = (rows * rows - sum(n * n for _, n in counts)) / 2 + sum(_pairs_of(n) for dup, n in counts if dup)
    better = prior * _pairs_of(rows) / comparable
    return float(np.log2(better / (1 - better)) - np.log2(prior / (1 - prior)))


_CLEAR_TYPES: Final = {"unique_id": pa.int64(), "rec": pa.int64(), "src": pa.int64(), "dup": pa.bool_()}


def _rule(sql: str) -> CustomRule:
    return CustomRule(f"{sql} AND {APART}", sql_dialect="duckdb")


def _clear_comparisons(*, with_sex: bool) -> list[Any]:
    names = [
        cl.CustomComparison(
            output_column_name=name,
            comparison_levels=[
                cll.NullLevel(name),
                cll.ExactMatchLevel(name, term_frequency_adjustments=True),
                *(cll.JaroWinklerLevel(name, distance_threshold=bar) for bar in (0.92, 0.88, 0.7)),
                cll.ElseLevel(),
            ],
        )
        for name in ("given_name", "family_name")
    ]
    rest = [cl.DamerauLevenshteinAtThresholds(name, [1, 2]) for name in ("date_of_birth", "postcode")]
    return [*names, *rest, *([cl.ExactMatch("sex")] if with_sex else [])]


def _clear_keys(given: str | None, family: str | None, born: str | None, code: str | None) -> dict[str, str | None]:
    """The blocking tokens' parts, in clear."""
    one, two = (None if name is None else soundex(name) for name in (given, family))
    year, daymonth = (None, None) if born is None else (born[:4], born[4:])
    sector = None if code is None else code[:-2]
    keys = {
        "dob": (born,),
        "dob_given": (born, one),
        "dob_family": (born, two),
        "postcode_given": (code, one),
        "postcode_family": (code, two),
        "dob_sector": (born, sector),
        "soundex_pair": tuple(sorted((one, two))) if one and two else (None,),
        "family_year": (two, year),
        "given_year": (one, year),
        "family_daymonth": (two, daymonth),
        "given_daymonth": (one, daymonth),
        "postcode_given1": (code, given and given[0]),
        "postcode_family1": (code, family and family[0]),
    }
    return {
        f"k_{name}": None if any(part is None for part in parts) else " ".join(part for part in parts if part)
        for name, parts in keys.items()
    }


# --- Memory ----------------------------------------------------------------------------------------------------------


def _forget_peak() -> None:
    """Start the process's peak memory anew, where the kernel lets it; elsewhere a peak is that of all stages so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_mb() -> float:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
