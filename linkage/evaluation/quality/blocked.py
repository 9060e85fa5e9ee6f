"""What blocking keeps: of the true pairs, by each key alone and by all together."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from linkage.evaluation.quality.labelled import Labelled
from linkage.matching.blocking import APART


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One blocking key: the pairs of rows that share it, and the share of true pairs (of records) among them.

    `only` is the share that no other key finds.
    """

    name: str
    pairs: int
    recall: float
    only: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """All keys of one run; `pairs` are distinct pairs of records, `recall` their share of the true ones."""

    recall: float
    pairs: int
    keys: tuple[Key, ...]


def blocking(
    connection: duckdb.DuckDBPyConnection, labelled: Labelled, columns: Sequence[str], *, pairs: int, first: int = 0
) -> Blocking:
    """What the key columns of the table `rows` find; its `rec` is the place in `Labelled.records` plus `first`."""
    true = list(labelled.pairs())
    lefts, rights = zip(*true, strict=True) if true else ((), ())
    connection.register(
        "true_in",
        pa.table({"l": pa.array(lefts, pa.int64()), "r": pa.array(rights, pa.int64())}),
    )
    shared = ", ".join(f"coalesce(bool_or(l.{column} = r.{column}), false)" for column in columns)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE true_pairs AS
        SELECT [{shared}] AS found
        FROM true_in t JOIN rows l ON l.rec = t.l + {first} JOIN rows r ON r.rec = t.r + {first}
        GROUP BY t.l, t.r
    """)
    connection.unregister("true_in")
    each = ", ".join(
        f"count(*) FILTER (found[{n}]), count(*) FILTER (found[{n}] AND len(list_filter(found, lambda f: f)) = 1)"
        for n in range(1, len(columns) + 1)
    )
    total = max(1, labelled.true_pairs)
    any_key, *counts = connection.execute(
        f"SELECT count(*) FILTER (list_contains(found, true)), {each} FROM true_pairs"
    ).fetchall()[0]
    keys = []
    for n, column in enumerate(columns):
        shares = connection.execute(f"""
            SELECT count(*) FROM rows l JOIN rows r
            ON l.{column} = r.{column} AND l.unique_id < r.unique_id AND {APART}
        """).fetchall()[0][0]
        found, only = counts[2 * n : 2 * n + 2]
        name = column.split("_", 1)[1]
        keys.append(Key(name=name, pairs=shares, recall=round(found / total, 6), only=round(only / total, 6)))
    return Blocking(recall=round(any_key / total, 6), pairs=pairs, keys=tuple(keys))
