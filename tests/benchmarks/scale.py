"""Linking a million records of three agencies, the night after, and how both grow: each size in a process of its own.

The people are those of `population`: real encodings of names, dates, postcodes and numbers with their slips.  Encoding
them takes longer than linking and is not counted; nor are reading the tables, giving the clusters' records their names
(a run computes with numbers, and names them for whoever asks) and what the broker does before and after: see `night`.
A night changes two records in a hundred: half of those changed, a quarter withdrawn, a quarter new.  Its goal is that of
a night on which agencies send what has changed, so that the broker knows which rows it took over from what it holds; a
night on which they send everything again, where each row must be read to see that, is printed beside it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from linkage.agency.encode import DEFAULT_PROFILE
from linkage.matching.arrays import aligned
from linkage.matching.link import Carried, Linkage, link
from linkage.matching.model import default_model
from linkage.matching.workspace import open_workspace
from tests.benchmarks.population import after_a_night, encoded, households, population
from tests.benchmarks.sizes import sized

TOPIC: Final = "linkage"
SIZES: Final = tuple(
    map(
        int,
        os.environ.get("SCALE_SIZES", sized("100000,200000,500000,1000000", "2000,4000,8000,16000")).split(","),
    )
)
FAR: Final = 10_000_000
CPU_LIMIT: Final = 60.0
MEMORY_LIMIT: Final = 4096.0
NIGHT_GOAL: Final = 0.25
FOLDER: Final = "SCALE_FOLDER"  # keep the encoded tables here, and use those that are there: for work on the linkage

Row = dict[str, Any]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=linkage` about size."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(os.environ.get(FOLDER, temporary))
        found = {}
        for size in SIZES:
            for step in ("make", "full", "night"):
                done = subprocess.run(
                    [sys.executable, "-m", "tests.benchmarks.scale", step, str(size), str(folder)],
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
                found[size, step] = json.loads(done.stdout.splitlines()[-1]) if step != "make" else {}
            full, night = found[size, "full"], found[size, "night"]
            yield _row(
                f"link {size:,} records, frozen model", full["cpu_s"], "the whole chain's limit", CPU_LIMIT, "CPU s"
            )
            yield _row(f"peak memory of it, {full['loaded_mb']:,.0f} MB of it the tables", full["peak_mb"], "the limit",
                       MEMORY_LIMIT, "MB")  # fmt: skip
            yield _row(
                f"a night of 2 %, {night['compared']:,} of {size:,} records compared", night["cpu_s"], "a full run of it",
                night["full_cpu_s"], "CPU s", goal=NIGHT_GOAL if size == SIZES[-1] else None,
            )  # fmt: skip
            yield _row("that night, where everything is sent again", night["again_cpu_s"], "a full run of it",
                       night["full_cpu_s"], "CPU s", goal=None)  # fmt: skip
            yield {
                "claim": f"that night's persons, pairs and reviews at {size:,}, of a full run's", "ours": night["same"],
                "peer": 6, "peer_name": "tables equal", "ratio": night["same"] / 6, "goal": 1, "held": night["same"] == 6,
                "unit": "tables",
            }  # fmt: skip
        for step, name, unit, law in (
            ("full", "cpu_s", "CPU s", "n log2 n"), ("full", "peak_mb", "MB, tables and all", "n"),
            ("night", "cpu_s", "CPU s", "n log2 n"),
            ("full", "pairs", "pairs of rows", "n log2 n"),
        ):  # fmt: skip
            fixed, slope, off, far = _law([(size, found[size, step][name]) for size in SIZES], law)
            yield {
                "claim": f"{step}, {unit}: {fixed:,.3g} + {slope:.3g} {law}, off by {off:.0%} at most; "
                f"at {FAR:,} (extrapolated)",
                "ours": round(far, 1), "peer": None, "peer_name": None, "ratio": None, "goal": None, "held": None,
                "unit": unit,
            }  # fmt: skip


def _law(measured: list[tuple[int, float]], law: str) -> tuple[float, float, float, float]:
    """What is fixed and what grows by `law`, the largest relative error, and what they make of FAR records.

    By least squares of relative errors.  A power alone flattens where fixed costs count, and so says too little of far;
    a fixed cost below nothing is none.
    """

    def grown(sizes: Any) -> Any:
        return sizes * np.log2(sizes) if law == "n log2 n" else sizes

    sizes, figures = (np.array([one[n] for one in measured], np.float64) for n in (0, 1))
    terms = np.stack([np.ones(len(sizes)), grown(sizes)], axis=1) / figures[:, None]
    fixed, slope = np.linalg.lstsq(terms, np.ones(len(sizes)), rcond=None)[0]
    if fixed < 0:
        fixed, slope = 0.0, float(terms[:, 1].sum() / (terms[:, 1] ** 2).sum())
    off = float(np.abs((fixed + slope * grown(sizes)) / figures - 1).max())
    return float(fixed), float(slope), off, float(fixed + slope * grown(float(FAR)))


def _row(claim: str, ours: float, name: str, peer: float, unit: str, goal: float | None = 1.0) -> Row:
    ratio = ours / peer
    return {
        "claim": claim, "ours": round(ours, 2), "peer": round(peer, 2), "peer_name": name, "ratio": round(ratio, 3),
        "goal": goal, "held": None if goal is None else ratio <= goal, "unit": unit,
    }  # fmt: skip


def made(size: int, folder: Path) -> None:
    """Write the encoded tables of both nights, unless they are there."""
    if (folder / f"{size}-carried.npz").exists():
        return
    records = population(size)
    both = []
    for night, held in enumerate((records, after_a_night(records))):
        both.append((encoded(held), households(held)))
        pq.write_table(both[-1][0], folder / f"{size}-{night}.parquet", compression="none", use_dictionary=False)
        pq.write_table(both[-1][1], folder / f"{size}-{night}-homes.parquet")
    before, after = both
    carried = {
        name: _carried(*nights)
        for name, nights in (("persons", (before[0], after[0])), ("homes", (before[1], after[1])))
    }
    np.savez(folder / f"{size}-carried.npz", **carried)


def tables(size: int, folder: Path, night: int) -> tuple[pa.Table, pa.Table]:
    """Persons and households of a night that was `made`."""
    return (
        pq.read_table(folder / f"{size}-{night}.parquet"),
        pq.read_table(folder / f"{size}-{night}-homes.parquet"),
    )


def digests(table: pa.Table) -> Any:
    """A digest of each row."""
    with open_workspace() as connection:
        connection.register("rows_in", table)
        found = connection.execute(f"SELECT hash({', '.join(table.column_names)}) AS digest FROM rows_in").fetchnumpy()
        connection.unregister("rows_in")
    return np.asarray(found["digest"], np.uint64)


def _carried(before: pa.Table, after: pa.Table) -> Any:
    """Which row of the night before each row is, as a broker knows it that put a delta into the rows it holds."""
    names = [name for name in after.column_names if not pa.types.is_null(after.schema.field(name).type)]
    at = aligned(*(digests(table.select(names)) for table in (after, before)))
    at[at < np.maximum.accumulate(np.append(-1, at[:-1]))] = -1
    return at


def _linked(size: int, folder: Path, night: int, **options: Any) -> tuple[Linkage, float, float]:
    """A run, its processor seconds, and the memory in use before it began."""
    persons, homes = tables(size, folder, night)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    numbers = count()
    began = time.process_time()
    run = link(persons, households=homes, model=default_model(DEFAULT_PROFILE), new_id=lambda: f"{night}-{next(numbers):034d}",
               **options)  # fmt: skip
    return run, time.process_time() - began, loaded


def _full(size: int, folder: Path) -> Row:
    run, seconds, loaded = _linked(size, folder, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cpu_s": seconds, "peak_mb": peak, "loaded_mb": loaded,
        "pairs": run.report.candidate_pairs,
    }  # fmt: skip


def _night(size: int, folder: Path) -> Row:
    before, _, _ = _linked(size, folder, 0)
    options = {"previous": before.clusters, "kept": before.kept}
    known = np.load(folder / f"{size}-carried.npz")
    carried = Carried(persons=known["persons"], relationships=known["homes"])
    delta, seconds, _ = _linked(size, folder, 1, carried=carried, **options)
    again, again_seconds, _ = _linked(size, folder, 1, **options)
    whole, full, _ = _linked(size, folder, 1, previous=before.clusters)
    same = sum(
        getattr(night, name).equals(getattr(whole, name))
        for name in ("clusters", "pairs", "reviews")
        for night in (delta, again)
    )
    return {
        "cpu_s": seconds, "again_cpu_s": again_seconds, "full_cpu_s": full, "compared": delta.report.compared,
        "same": same,
    }  # fmt: skip


def _printed() -> None:
    """The rows, one below the other."""
    for row in rows():
        against = "" if row["peer"] is None else f" v {row['peer']:,} ({row['peer_name']}), ratio {row['ratio']}"
        verdict = {True: "  held", False: "  MISSED", None: ""}[row["held"]]
        print(f"{row['claim']}: {row['ours']:,} {row['unit']}{against}{verdict}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(_printed())
    step, size, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if step == "make":
        made(size, folder)
    else:
        print(json.dumps({"full": _full, "night": _night}[step](size, folder)))
