"""The encoded side: what agencies would send of labelled records, and one link run over it, stage by stage."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

from linkage.agency.encode import encode_people, household_token
from linkage.agency.keys import LinkageKeys
from linkage.evaluation.quality.blocked import Blocking, blocking
from linkage.evaluation.quality.labelled import Labelled
from linkage.evaluation.quality.scores import STRONG, Compared, true_of
from linkage.evaluation.quality.stages import Stages
from linkage.matching.comparisons import FIELDS
from linkage.matching.link import Run
from linkage.matching.model import Model
from linkage.matching.overrides import Overrides
from linkage.matching.workspace import open_workspace
from linkage.records import Profile

MEMORY: Final = "4GB"
SEED: Final = 1
_EXAMPLES: Final = 2  # of each kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One pair of made-up or labelled records as levels of fields, best level first: no value, and no number."""

    kind: str
    levels: tuple[int, ...]  # by FIELDS; as `gamma_*`
    weight: float
    rule: str
    id_agreed: tuple[str, ...]
    id_differs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One run: `compared` pairs under the plain threshold, and `linked`, the persons a broker would form."""

    compared: Compared
    linked: list[list[int]]
    blocking: Blocking
    model: Model
    examples: tuple[Example, ...]


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


def run(labelled: Labelled, profile: Profile, stages: Stages) -> Encoded:
    """Encode under a fresh key, train on these records alone, and link."""
    with stages.stage("encode"):
        keys = LinkageKeys.generate(partnership="evaluation", epoch="evaluation")
        persons, households = encode(labelled, keys, profile)
    connection = open_workspace(memory_limit=MEMORY)
    try:
        with stages.stage("load"):
            found = Run(connection, persons, labelled.duplicates, Overrides(), households)
        with stages.stage("train"):
            model = found.trained(SEED)
        with stages.stage("block"):
            found.block(model)
        with stages.stage("score"):
            found.score(model)
        with stages.stage("cluster"):
            partition = found.settle()
        compared = _compared(found)
        columns = [row[0] for row in connection.execute("DESCRIBE rows").fetchall()]
        keyed = [column for column in columns if column.startswith(("c_", "b_"))]
        return Encoded(
            compared=compared,
            linked=[[rec - 1 for rec in members] for members in partition.clusters()],
            blocking=blocking(connection, labelled, keyed, pairs=len(compared.weight), first=1),
            model=model,
            examples=tuple(_examples(connection, labelled, compared)),
        )
    finally:
        connection.close()


def _compared(found: Run) -> Compared:
    """The scored pairs.  An identifier that agrees, with one more field, settles a pair; one that differs vetoes it."""
    pairs = found.db.execute(f"""
        SELECT rec_l::BIGINT - 1 AS l, rec_r::BIGINT - 1 AS r,
               CASE WHEN rule = 'identifier' THEN weight + {STRONG}
                    WHEN len(coalesce(id_differs, [])) > 0 THEN {-STRONG}
                    ELSE weight END::DOUBLE AS w
        FROM judged ORDER BY rec_l, rec_r
    """).fetchnumpy()
    return Compared(
        left=np.asarray(pairs["l"]),
        right=np.asarray(pairs["r"]),
        weight=np.asarray(pairs["w"]),
        numbers={rec - 1: schemes for rec, schemes in found.numbers().items()},
    )


def _examples(connection: duckdb.DuckDBPyConnection, labelled: Labelled, compared: Compared) -> list[Example]:
    """A few pairs of each kind worth a look, by the model: sure, doubtful, wrongly likely, held by a rule."""
    true = true_of(labelled, compared)
    connection.register("truth_in", pa.table({"l": compared.left + 1, "r": compared.right + 1, "true": true}))
    kinds = {
        "one person, and sure": "true AND probability >= 0.999",
        "one person, in doubt": "true AND probability BETWEEN 0.5 AND 0.99",
        "one person, and missed": "true AND probability < 0.2 AND rule <> 'identifier'",
        "two people, and likely": "NOT true AND probability >= 0.5",
        "two people, held by a rule": "NOT true AND band = 'possible' AND probability >= 0.99",
        "settled by a number": "true AND rule = 'identifier' AND probability < 0.9",
    }
    examples = []
    for kind, where in kinds.items():
        rows = connection.execute(f"""
            SELECT {", ".join(f"gamma_{field}" for field in FIELDS)}, weight, rule,
                   coalesce(id_agreed, []), coalesce(id_differs, [])
            FROM judged JOIN truth_in ON l = rec_l AND r = rec_r
            WHERE {where} ORDER BY hash(rec_l, rec_r), rec_l, rec_r LIMIT {_EXAMPLES}
        """).fetchall()
        examples += [_example(kind, row) for row in rows]
    connection.unregister("truth_in")
    return examples


def _example(kind: str, row: Sequence[object]) -> Example:
    *levels, weight, rule, agreed, differs = row
    return Example(
        kind=kind,
        levels=tuple(int(str(level)) for level in levels),
        weight=float(str(weight)),
        rule=str(rule),
        id_agreed=tuple(map(str, agreed if isinstance(agreed, list) else ())),
        id_differs=tuple(map(str, differs if isinstance(differs, list) else ())),
    )
