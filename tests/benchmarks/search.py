"""One search in the index, at 100,000 rows and at a million, beside a hand-written DuckDB join on one token.

The people are made of random bits: tokens meet as often as those of real names, dates and homes, and filters of two
people do not.  No encoder and no link run takes part, so that a million fit into half a minute.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from statistics import median, quantiles
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from linkage.matching.families import FAMILY
from linkage.matching.model import default_model
from linkage.matching.search import EncodedRow, Index, TooManyCandidates
from linkage.records import FILTER_WORDS, FILTERS, IDENTIFIERS, TOKENS
from tests.benchmarks.sizes import sized

TOPIC: Final = "linkage"
PROFILE: Final = "guarded-3"
SIZES: Final = ((sized(100_000, 5_000), 20.0), (sized(1_000_000, 20_000), 300.0))
SEARCHES: Final = sized(300, 60)
RECORDS_EACH: Final = 3

Row = dict[str, Any]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=linkage` about searching."""
    for count, goal in SIZES:
        persons = some_people(count)
        began = time.process_time()
        clusters = persons.select(["agency", "flow", "record_ref"]).append_column("person_id", persons["sever_ref"])
        index = Index(persons, clusters, FAMILY.empty_table(), default_model(PROFILE))
        built = time.process_time() - began
        asked = [_asked(row) for row in persons.take(list(range(0, count, count // SEARCHES))).to_pylist()]
        ours = [_milliseconds(partial(_searched, index, row)) for row in asked]
        with duckdb.connect() as db:
            db.execute("SET threads = 1")
            db.register("persons_in", persons)
            db.execute("CREATE TABLE persons AS SELECT t_dob_given, given_d_w0 FROM persons_in")
            peer = [_milliseconds(partial(_joined, db, row)) for row in asked[:50]]
        name = "DuckDB, one token, an eighth of one filter"
        yield _row(f"search p50, {count:,} rows, one thread", median(ours), median(peer), name, None, "ms")
        yield _row(f"search p95, {count:,} rows, one thread", quantiles(ours, n=20)[-1], quantiles(peer, n=20)[-1], name,
                   goal, "ms")  # fmt: skip
        yield _row(f"build the index of {count:,} rows", built, None, None, None, "CPU s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        yield _row(f"peak memory of the process so far, {count:,} rows", peak, None, None, 3072.0, "MB")


def some_people(count: int) -> pa.Table:
    """Rows as the broker holds them, RECORDS_EACH a person, whose id is in `sever_ref`."""
    chance = np.random.default_rng(3)
    people = count // RECORDS_EACH + 1
    born, home = chance.integers(0, 6570, people), chance.integers(0, people // 15 + 1, people)
    given, family = (np.minimum(chance.zipf(1.3, people), most) for most in (800, 20_000))
    parts = {"given_name_d": (given, born), "given_name_p": (given, home), "family_name_d": (family, born),
             "family_name_p": (family, home, given % 20), "dob_given": (born, given), "dob_family": (born, family),
             "dob_sector": (born, home // 40), "dob_family_given1": (born, family, given % 20),
             "postcode_family_given1": (home, family, given % 20), "dob_given_family1": (born, given, family % 20),
             "postcode_given_family1": (home, given, family % 20)}  # fmt: skip
    whose = np.arange(count) // RECORDS_EACH
    columns: dict[str, Any] = {}
    for n, name in enumerate(TOKENS[PROFILE]):
        if name not in parts:  # salted by a number: null here
            columns[f"t_{name}"] = pa.nulls(count, pa.int64())
            continue
        token = np.full(people, n, np.int64)
        for part in parts[name]:
            token = token * 6364136223846793005 + part
        columns[f"t_{name}"] = token[whose]
    for name in FILTERS[PROFILE]:
        words = chance.integers(-(2**63), 2**63 - 1, (people, FILTER_WORDS), np.int64)
        columns |= {f"{name}_w{n}": words[whose, n] for n in range(FILTER_WORDS)}
        columns[f"{name}_n"] = np.bitwise_count(words.view(np.uint64)).sum(1).astype(np.int32)[whose]
    columns |= {f"id_{name}": pa.nulls(count, pa.int64()) for name in IDENTIFIERS}
    numbers = chance.integers(0, 2**62, people)[whose]
    columns["id_nhs_number"] = pa.array(numbers, mask=chance.random(count) < 0.4)
    columns |= {
        "birth_year": (2007 + born // 365).astype(np.int32)[whose],
        "sex": np.array(["F", "M"])[born % 2][whose],
    }
    place = np.arange(count) % RECORDS_EACH
    columns |= {"agency": np.array(["council", "icb", "police"])[place], "flow": np.array(["a", "b", "c"])[place]}
    refs = pa.array(whose, pa.int64()).cast(pa.string())
    return pa.table(columns | {"record_ref": refs, "sever_ref": refs})


def _searched(index: Index, row: EncodedRow) -> None:
    with suppress(TooManyCandidates):
        assert index.candidates(row)


def _joined(db: duckdb.DuckDBPyConnection, row: EncodedRow) -> None:
    words = row.filters["given_d"] or (0,)
    query = "SELECT bit_count(given_d_w0 & ?) FROM persons WHERE t_dob_given = ?"
    assert db.execute(query, [words[0], row.tokens["dob_given"]]).fetchall()


def _asked(row: dict[str, Any]) -> EncodedRow:
    return EncodedRow(
        filters={name: tuple(row[f"{name}_w{n}"] for n in range(FILTER_WORDS)) for name in FILTERS[PROFILE]},
        tokens={name: row[f"t_{name}"] for name in TOKENS[PROFILE]},
        identifiers={name: row[f"id_{name}"] for name in IDENTIFIERS},
        birth_year=row["birth_year"],
        sex=row["sex"],
    )


def _milliseconds(work: Callable[[], object]) -> float:
    """Of processor time: one thread computes here, and a busy neighbour should not count."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def _row(claim: str, ours: float, peer: float | None, name: str | None, goal: float | None, unit: str) -> Row:
    return {
        "claim": claim, "ours": round(ours, 3), "peer": peer if peer is None else round(peer, 3), "peer_name": name,
        "ratio": None if peer is None else round(peer / ours, 3), "goal": goal,
        "held": None if goal is None else ours < goal, "unit": unit,
    }  # fmt: skip
