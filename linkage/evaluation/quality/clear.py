"""The peer: the same rows in clear by plain Splink, under the same rules for identifiers."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import splink.comparison_level_library as cll
import splink.comparison_library as cl
from splink import DuckDBAPI, Linker, SettingsCreator
from splink.blocking_rule_library import CustomRule

from linkage.agency.encode import encode_people
from linkage.agency.keys import LinkageKeys
from linkage.agency.people import DEMOGRAPHICS, STANDARD_IDENTIFIERS
from linkage.evaluation.quality.blocked import Blocking, blocking
from linkage.evaluation.quality.labelled import Labelled
from linkage.evaluation.quality.scores import STRONG, Compared, clustered, spread
from linkage.evaluation.quality.stages import Stages
from linkage.matching.blocking import APART, KEYS
from linkage.matching.identifiers import (
    ALL_SCHEMES,
    LOCAL,
    SCHEMES,
    SPREAD,
    compare_numbers,
    drop_shared,
    number_records,
)
from linkage.matching.workspace import open_workspace
from linkage.records import Profile

MEMORY: Final = "4GB"
SEED: Final = 1
CLOSE: Final = 0.88  # Jaro-Winkler of a name that agrees enough to confirm an identifier

_FIELD_AGREES: Final = f"""
    coalesce(l.date_of_birth = r.date_of_birth, false)
    OR coalesce(jaro_winkler_similarity(l.given_name, r.given_name) >= {CLOSE}, false)
    OR coalesce(jaro_winkler_similarity(l.family_name, r.family_name) >= {CLOSE}, false)
"""
_TRAINED: Final = ("comparisons", "probability_two_random_records_match")
_TYPES: Final = {"unique_id": pa.int64(), "rec": pa.int64(), "src": pa.int64(), "dup": pa.bool_()}


@dataclass(frozen=True, slots=True, kw_only=True)
class InClear:
    """What plain Splink makes of the same rows."""

    compared: Compared
    blocking: Blocking
    model: Mapping[str, Any]  # as Splink writes it down


def run(
    labelled: Labelled, blocked_as: Profile, stages: Stages, name: str, *, model: Mapping[str, Any] | None = None
) -> InClear:
    """Jaro-Winkler and Damerau levels, term frequencies; blocked on the keys of a profile and on each identifier.

    Trains on these records, which takes most of the time, unless given a `model` that was trained on them before:
    what is blocked on plays no part in training, nor do identifiers.  Training is a stage of its own, `<name>: train`.
    """
    connection = open_workspace(memory_limit=MEMORY)
    try:
        with stages.stage(f"{name}: load"):
            load(connection, labelled, blocked_as)
            columns = [*(f"c_{scheme}" for scheme in ALL_SCHEMES), *(f"b_{key}" for key in KEYS[blocked_as])]
            splink = linker(connection, columns, model=model)
        if model is None:
            with stages.stage(f"{name}: train"):
                train(splink)
                model = splink.misc.save_model_to_json()
        with stages.stage(name):
            return _linked(connection, labelled, splink, columns, model)
    finally:
        connection.close()


def _linked(
    connection: duckdb.DuckDBPyConnection,
    labelled: Labelled,
    splink: Linker,
    columns: Sequence[str],
    model: Mapping[str, Any],
) -> InClear:
    scores = splink.inference.predict()
    prior = model["probability_two_random_records_match"]
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
    compared = _settled(connection, labelled)
    found = blocking(connection, labelled, columns, pairs=len(compared.weight))
    return InClear(compared=compared, blocking=found, model=model)


def linker(
    connection: duckdb.DuckDBPyConnection, columns: Sequence[str], *, model: Mapping[str, Any] | None = None
) -> Linker:
    """Plain Splink over the table `rows`, blocked on equal `columns`; trained already if given a `model`."""
    with_sex = bool(connection.execute("SELECT count(sex) FROM rows").fetchall()[0][0])
    settings = SettingsCreator(
        link_type="dedupe_only",
        comparisons=_comparisons(with_sex=with_sex),
        blocking_rules_to_generate_predictions=[_rule(f"l.{column} = r.{column}") for column in columns],
        retain_matching_columns=False,
        additional_columns_to_retain=["rec"],
    ).create_settings_dict(sql_dialect_str="duckdb")
    if model is not None:
        settings |= {name: value for name, value in model.items() if name in _TRAINED}
    return Linker(DuckDBAPI(connection).register("rows"), settings, log_level=None)


def train(splink: Linker) -> None:
    """As Splink's tutorials do: prior from a sure rule, u from random pairs, m by two rounds of EM."""
    same_name = "l.given_name = r.given_name AND l.family_name = r.family_name"
    splink.training.estimate_probability_two_random_records_match(
        [_rule(f"{same_name} AND l.date_of_birth = r.date_of_birth")], recall=0.7
    )
    splink.training.estimate_u_using_random_sampling(max_pairs=2e6, seed=SEED, min_count_per_level=None)
    for blocked_on in ("date_of_birth", "postcode"):
        splink.training.estimate_parameters_using_expectation_maximisation(_rule(f"l.{blocked_on} = r.{blocked_on}"))


def load(connection: duckdb.DuckDBPyConnection, labelled: Labelled, blocked_as: Profile) -> None:
    """Make `rows`, `sources` and `records`, and `numbers` as the matching side has them.

    The blocking keys `b_*` are the encoder's own tokens: equal where their parts are, and so the same keys as in clear.
    """
    place = {key: n for n, key in enumerate(labelled.records)}
    columns: dict[str, list[Any]] = defaultdict(list)
    standard = [labelled.standard[name].to_pylist() for name in DEMOGRAPHICS]
    for n, (given, family, born, code) in enumerate(zip(*standard, strict=True)):
        rec = place[labelled.key[n]]
        row = {
            "unique_id": n, "rec": rec, "src": labelled.flows[rec], "dup": labelled.sources[rec] is None,
            "given_name": given, "family_name": family, "date_of_birth": born, "postcode": code,
            "sex": labelled.sex[n].as_py(),
        }  # fmt: skip
        for name, value in row.items():
            columns[name].append(value)
    typed = {name: pa.array(values, _TYPES.get(name, pa.string())) for name, values in columns.items()}
    tokens = encode_people(labelled.standard, LinkageKeys.generate(partnership="peer", epoch="peer"), blocked_as)
    blocks = {f"b_{key}": tokens[f"t_{key}"] for key in KEYS[blocked_as]}
    connection.register("clear_in", pa.table(typed | _numbered(labelled) | blocks))
    connection.execute("CREATE TABLE rows AS SELECT * FROM clear_in ORDER BY unique_id")
    connection.unregister("clear_in")
    connection.execute("CREATE TABLE sources AS SELECT DISTINCT src, dup FROM rows")
    connection.execute("CREATE TABLE records AS SELECT DISTINCT rec, src FROM rows")
    number_records(connection)


def _numbered(labelled: Labelled) -> dict[str, pa.Array]:
    """The identifiers as columns `id_*`: a number stands for each, the same for a current and a former one."""
    places: dict[tuple[str, str], int] = {}
    columns = {}
    for field, wire in STANDARD_IDENTIFIERS.items():
        scheme = next((scheme for scheme, names in SCHEMES.items() if wire in names), LOCAL)
        numbers: list[int | None] = []
        for value, (agency, _, _) in zip(labelled.standard[field].to_pylist(), labelled.key, strict=True):
            within = f"{agency}/{LOCAL}" if scheme == LOCAL else scheme
            numbers.append(None if value is None else places.setdefault((within, value), len(places)))
        columns[f"id_{wire}"] = pa.array(numbers, pa.int64())
    return columns


def _settled(connection: duckdb.DuckDBPyConnection, labelled: Labelled) -> Compared:
    """The scored pairs, settled and vetoed by identifiers; again without those that too many persons then hold."""
    while True:
        compare_numbers(connection)
        compared = _by_numbers(connection)
        shared = spread(compared.numbers, clustered(labelled, compared), most=SPREAD)
        if not shared:
            return compared
        connection.register("spread_in", pa.table([*zip(*shared, strict=True)], names=["scheme", "number"]))
        connection.execute("CREATE OR REPLACE TEMP TABLE shared AS SELECT scheme, number FROM spread_in")
        connection.unregister("spread_in")
        drop_shared(connection)


def _by_numbers(connection: duckdb.DuckDBPyConnection) -> Compared:
    pairs = connection.execute(f"""
        SELECT rec_l AS l, rec_r AS r,
               CASE WHEN len(coalesce(id_differs, [])) > 0 THEN {-STRONG}
                    WHEN len(coalesce(id_agreed, [])) > 0 AND field_agrees THEN weight + {STRONG}
                    ELSE weight END::DOUBLE AS w
        FROM scored LEFT JOIN numbered USING (rec_l, rec_r) ORDER BY rec_l, rec_r
    """).fetchnumpy()
    numbers: dict[int, dict[str, frozenset[int]]] = defaultdict(dict)
    for rec, scheme, tokens in connection.execute(
        f"SELECT rec, scheme, list(number) FROM numbers WHERE scheme <> '{LOCAL}' GROUP BY ALL"
    ).fetchall():
        numbers[rec][scheme] = frozenset(tokens)
    return Compared(
        left=np.asarray(pairs["l"]), right=np.asarray(pairs["r"]), weight=np.asarray(pairs["w"]), numbers=numbers
    )


def _only_between(prior: float, counts: Sequence[tuple[bool, int]]) -> float:
    """What the weight of a pair gains when the prior is of the pairs that may be one person, and not of all of them.

    As Splink itself has it when it links data sets without duplicates; the encoded model has it so, too.
    """
    rows = sum(n for _, n in counts)
    comparable = (rows * rows - sum(n * n for _, n in counts)) / 2 + sum(n * (n - 1) // 2 for dup, n in counts if dup)
    better = prior * (rows * (rows - 1) // 2) / comparable
    return float(np.log2(better / (1 - better)) - np.log2(prior / (1 - prior)))


def _rule(sql: str) -> CustomRule:
    return CustomRule(f"{sql} AND {APART}", sql_dialect="duckdb")


def _comparisons(*, with_sex: bool) -> list[Any]:
    names = [
        cl.CustomComparison(
            output_column_name=name,
            comparison_levels=[
                cll.NullLevel(name),
                cll.ExactMatchLevel(name, term_frequency_adjustments=True),
                *(cll.JaroWinklerLevel(name, distance_threshold=bar) for bar in (0.92, CLOSE, 0.7)),
                cll.ElseLevel(),
            ],
        )
        for name in ("given_name", "family_name")
    ]
    rest = [cl.DamerauLevenshteinAtThresholds(name, [1, 2]) for name in ("date_of_birth", "postcode")]
    return [*names, *rest, *([cl.ExactMatch("sex")] if with_sex else [])]
