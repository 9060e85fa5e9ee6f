"""Scoring alone: processor seconds of the guarded model and of plain Splink in clear, on the very same pairs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
from splink import DuckDBAPI

from linkage.agency.encode import DEFAULT_PROFILE
from linkage.evaluation.quality import clear
from linkage.matching.arrays import Ints, ends_of
from linkage.matching.blocks import blocks_of, candidates
from linkage.matching.comparing import scored_pairs
from linkage.matching.holders import holders_of
from linkage.matching.model import default_model
from linkage.matching.numbering import Numbered, numbered
from linkage.matching.workspace import open_workspace
from tests.benchmarks.population import FIRST_DAY, MISSING, Records, _postcode, encoded, population
from tests.benchmarks.sizes import sized

TOPIC: Final = "linkage"
RECORDS: Final = sized(720_000, 10_000)
LEAST_PAIRS: Final = 500_000
RUNS: Final = sized(3, 1)
GOAL: Final = 0.7

Row = dict[str, Any]


def rows() -> Iterator[Row]:
    """A row a claim."""
    yield measured(RECORDS)


def measured(records: int) -> Row:
    """The claim, on about so many records; both sides with one thread, the best of RUNS after a warming one."""
    logging.getLogger("splink").setLevel(logging.ERROR)
    everybody = population(records)
    people = everybody.take(everybody.place == 0)
    model = default_model(DEFAULT_PROFILE)
    with open_workspace(memory_limit="4GB", threads=1) as connection:
        rows_of = numbered(connection, encoded(people), DEFAULT_PROFILE, ())
        holders, _ = holders_of(rows_of)
        pairs = candidates(rows_of, blocks_of(rows_of, holders, DEFAULT_PROFILE).values())
        ours = _least_cpu(lambda: scored_pairs(connection, rows_of, pairs, model, {}))
    with open_workspace(memory_limit="4GB", threads=1) as connection:
        connection.register("clear_in", _in_clear(people, rows_of))
        connection.execute("CREATE TABLE rows AS SELECT * FROM clear_in ORDER BY unique_id")
        splink = clear.linker(connection, ["date_of_birth"])
        clear.train(splink)
        left, right = ends_of(pairs)
        blocked = pa.table({"match_key": pa.nulls(len(pairs), pa.string()).fill_null("0"),
                            "join_key_l": left, "join_key_r": right})  # fmt: skip
        splink.table_management.register_blocked_pairs_for_predict(DuckDBAPI(connection).register(blocked))
        peer = _least_cpu(lambda: splink.inference.predict().drop_table_from_database_and_remove_from_cache())
    return {
        "claim": f"score {len(pairs):,} pairs of encodings", "ours": round(ours, 2), "peer": round(peer, 2),
        "peer_name": "plain Splink in clear, the same pairs", "ratio": round(ours / peer, 3), "goal": GOAL,
        "held": ours / peer <= GOAL and len(pairs) >= LEAST_PAIRS, "unit": "CPU s",
    }  # fmt: skip


def _least_cpu(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(RUNS + 1):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken[1:])


def _in_clear(people: Records, rows_of: Numbered) -> pa.Table:
    """The same rows in clear, each under the number that the encoded row has."""
    at: dict[str, int] = {people.key(row)[2]: row for row in range(len(people.ref))}
    order: Ints = np.array([at[ref] for ref in rows_of.persons["record_ref"].to_pylist()], np.int64)
    mine = people.take(order)
    words = pa.array([*people.words, None], pa.string())
    return pa.table(
        {
            "unique_id": np.arange(len(order)),
            "rec": np.arange(len(order)),
            "src": mine.source,
            "dup": np.zeros(len(order), np.bool_),
            "given_name": words.take(pa.array(mine.given)),
            "family_name": words.take(pa.array(mine.family)),
            "date_of_birth": [
                None if day == MISSING else f"{FIRST_DAY + timedelta(days=day):%Y%m%d}" for day in mine.born.tolist()
            ],
            "postcode": [None if home == MISSING else _postcode(home) for home in mine.home.tolist()],
            "sex": [None if sex == MISSING else "MF"[sex] for sex in mine.sex.tolist()],
        }
    )
