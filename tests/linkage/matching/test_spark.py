"""Spark in place of DuckDB: the same pairs, weights and clusters, and nothing of a person on a disk in clear.

One Spark serves all tests.  It joins by shuffles, as it would with many rows, and stops where it could not compile an
expression rather than go on slowly.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from linkage.agency.keys import LinkageKeys
from linkage.evaluation import quality
from linkage.evaluation.synthesise import synthesise
from linkage.matching import spark
from linkage.matching.blocking import APART, blocking_columns
from linkage.matching.comparisons import FAR, NAME_EQUAL, NOT_COMPARABLE
from linkage.matching.link import SCORED, Linkage, link
from linkage.matching.model import Model, default_model
from linkage.matching.scoring import scored
from linkage.matching.spark import SparkEngine, SparkFailed, SparkUnavailable, spark_engine
from linkage.matching.workspace import open_workspace, packed
from linkage.records import FILTERS, Profile, filter_columns
from tests.linkage.matching.people import HEALTH, KEYS, Someone, encoded

needs_spark = pytest.mark.skipif(spark.missing() is not None, reason=f"Spark can't run here: {spark.missing()}")
SETTINGS = {
    "spark.driver.defaultJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # a short life: compile little
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    "spark.shuffle.compress": "false",
    "spark.sql.codegen.factoryMode": "CODEGEN_ONLY",
    "spark.sql.codegen.fallback": "false",
}


class Witness:
    """An engine that keeps what it was given and what came of it."""

    def __init__(self, engine: SparkEngine) -> None:
        self.engine = engine
        self.rows: pa.Table
        self.scored: pa.Table

    def __call__(self, rows: pa.Table, model: Model) -> pa.Table:
        self.rows, self.scored = rows, self.engine(rows, model)
        return self.scored


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    with spark_engine(settings=SETTINGS) as engine:
        yield Witness(engine)


@cache
def area(folder: Path, children: int, keys: LinkageKeys, profile: Profile) -> tuple[pa.Table, pa.Table]:
    synthesise(folder, children=children, seed=3, items=False)
    labelled = quality.read(
        folder / "labelled.csv", folder / "labelled-mapping.toml", truth="person_id", dataset="dataset"
    )
    return quality.encode(labelled, keys, profile)


def linked(persons: pa.Table, households: pa.Table | None, engine: Witness | None = None) -> Linkage:
    profile: Profile = "guarded-3" if "given_d_n" in persons.column_names else "accurate-2"
    ids = count()
    return link(
        persons, households=households, model=default_model(profile), new_id=lambda: f"p{next(ids)}", engine=engine
    )


def by_duckdb(rows: pa.Table, model: Model) -> pa.Table:
    """What an engine is to give for these rows, by one join over any key and the words that DuckDB scores by."""
    connection = open_workspace(threads=1)
    connection.register("given", rows)
    filters = ", ".join(packed(name) for name in FILTERS[model.profile])
    words = {column for name in FILTERS[model.profile] for column in filter_columns(name)}
    sent = ", ".join(column for column in rows.column_names if column not in words)
    connection.execute(f"CREATE TABLE rows AS SELECT {sent}, {filters} FROM given")
    joins = " UNION ".join(
        f"SELECT l.unique_id, r.unique_id FROM rows l JOIN rows r ON l.{column} = r.{column} AND l.rec < r.rec AND {APART}"
        for column in blocking_columns(model.profile)
    )
    connection.execute(f"CREATE TABLE pairs (id_l INTEGER, id_r INTEGER); INSERT INTO pairs {joins}")
    found = connection.sql(f"""
        SELECT {", ".join(SCORED.names)} FROM ({scored(model, "pairs", keep=("rec", "birth_year"))})
        QUALIFY row_number() OVER (PARTITION BY rec_l, rec_r ORDER BY weight DESC, unique_id_l, unique_id_r) = 1
        ORDER BY rec_l, rec_r
    """)
    return pa.table(found.to_arrow_table()).cast(SCORED)


def equal(found: pa.Table, due: pa.Table) -> bool:
    """Whether two tables of pairs are one, weights and probabilities to 1e-9."""
    figures = ["weight", "probability"]
    return bool(found.drop(figures).equals(due.drop(figures))) and all(
        np.allclose(found[name].to_numpy(), due[name].to_numpy(), rtol=0, atol=1e-9) for name in figures
    )


def sealed_files(witness: Witness) -> bytes:
    folder = Path(witness.engine.session.sparkContext.getConf().get("spark.local.dir"))
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


@needs_spark
@pytest.mark.slow
def test_twenty_thousand_records_become_the_same_pairs_and_persons_and_no_token_of_theirs_is_on_a_disk(
    witness: Witness, tmp_path: Path
) -> None:
    persons, households = area(tmp_path, 4_600, KEYS, "guarded-3")
    here, there = linked(persons, households), linked(persons, households, witness)
    held = sealed_files(witness)  # before the next run: while this one's shuffles are there
    assert there.report.records >= 20_000
    assert there.report.persons < 15_000
    assert equal(there.pairs, here.pairs)
    assert there.clusters.equals(here.clusters)
    assert equal(there.reviews, here.reviews)
    assert equal(witness.scored, by_duckdb(witness.rows, default_model("guarded-3")))
    assert len(held) > 1_000_000
    tokens = {token for name in ("b_dob_given", "t_dob_family") for token in witness.rows[name].to_pylist() if token}
    assert len(tokens) > 1_000
    assert not any(struct.pack(order, token) in held for token in sorted(tokens)[:100] for order in ("<q", ">q"))


@needs_spark
@pytest.mark.slow
def test_unsalted_names_and_their_frequencies_weigh_the_same(witness: Witness, tmp_path: Path) -> None:
    persons, households = area(tmp_path, 400, KEYS, "accurate-2")
    here, there = linked(persons, households), linked(persons, households, witness)
    assert there.clusters.equals(here.clusters)
    assert equal(there.pairs, here.pairs)
    assert set(witness.scored["gamma_given_name"].to_pylist()) >= {NOT_COMPARABLE, FAR, NAME_EQUAL}
    assert equal(witness.scored, by_duckdb(witness.rows, default_model("accurate-2")))


@needs_spark
def test_no_pair_is_a_table_without_rows(witness: Witness) -> None:
    alone = linked(encoded([Someone()]), None, witness)
    assert witness.scored.schema == SCORED
    assert (alone.report.persons, witness.scored.num_rows) == (1, 0)


@needs_spark
def test_a_failure_names_its_kind_and_no_value(witness: Witness, capfd: pytest.CaptureFixture[str]) -> None:
    linked(encoded([Someone(), Someone().at(HEALTH, given_name="zoey")], "accurate-2"), None, witness)
    most = 2**31 - 1
    place = witness.rows.schema.get_field_index("given_n")
    broken = witness.rows.set_column(place, "given_n", pa.array([most, most], pa.int32()))
    for rows, kind in (
        (broken, "ARITHMETIC_OVERFLOW"),
        (broken.set_column(place, "given_n", pa.array(["Zoe"] * 2)), "CAST_INVALID_INPUT|DATATYPE"),
    ):
        with pytest.raises(SparkFailed, match=kind) as caught:
            witness.engine(rows, default_model("accurate-2"))
        assert "Zoe" not in str(caught.value)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


@needs_spark
def test_settings_of_a_deployment_do_not_unseal_it(witness: Witness) -> None:
    conf = dict(witness.engine.session.sparkContext.getConf().getAll())
    assert conf.items() >= spark.SEALED.items()
    assert conf["spark.driver.bindAddress"] == conf["spark.driver.host"] == "127.0.0.1"
    assert witness.engine.session.sparkContext.uiWebUrl is None


def test_a_machine_without_java_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(spark.importlib.util, "find_spec", lambda _: object())
    with pytest.raises(SparkUnavailable, match="Java 17"), spark_engine():
        pass
    monkeypatch.setattr(spark.importlib.util, "find_spec", lambda _: None)
    assert "PySpark" in (spark.missing() or "")
