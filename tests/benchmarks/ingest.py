"""A batch of a million rows, handed in to a real `broker serve` over HTTP: sealed, accepted, and what memory it takes.

The rows are 300,000 persons with filled filters and tokens, 200,000 relationships and 500,000 items, which the broker
seals one by one.  The broker runs as users run it, one process on SQLite; its memory is what it and the processes it has
started have in memory, looked at every 50 ms from outside.  The peer of ingest is `json.loads` over lines of 831
bytes, before and after; both are counted in seconds of a processor, the broker's with those of all it has started, so
that it is rows a core, whoever else is at work.  Committing is measured on PostgreSQL: the same sealed items in by the broker's own
transaction, and by a bare COPY of the bytes that PostgreSQL itself gave for them, into a table of the same columns and
indexes; in turns, on a disk that is synced.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx2
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from broker.judging import judge
from broker.reception import Reception
from broker.store.batches import BatchRow
from broker.store.items import insert_items
from linkage.agency.batch import ROW_GROUP
from linkage.records import FILTERS, QUALITY_FLAGS, RELATIONSHIPS_SCHEMA, TABLES, TOKENS, Table, schema_of
from tests.benchmarks.sizes import sized
from tests.builders import COUNCIL, Batch, a_batch, a_ref, an_entry, an_item
from tests.builders_broker import Caller, agreed, an_installation, reception, serving
from tests.postgres import Server, a_database

TOPIC: Final = "ingest"
MINUTES: Final = 15
PERSONS: Final = sized(300_000, 600)
RELATIONSHIPS: Final = sized(200_000, 400)
ITEMS: Final = sized(500_000, 1_000)
CHUNK: Final = 8 * 1024 * 1024
SEALED_SECONDS: Final = 60.0
ACCEPTED_SECONDS: Final = 300.0
MEMORY_MB: Final = 512.0
LINE_BYTES: Final = 831
INGEST_RATIO: Final = 0.5
COMMIT_RATIO: Final = 0.4
MEMORY_RATIO: Final = 0.1
COMMITTED: Final = sized(250_000, 500)  # items
ROUNDS: Final = 5

Row = dict[str, Any]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=ingest`."""
    batch = a_large_batch()
    count = PERSONS + RELATIONSHIPS + ITEMS
    size = sum(len(file) for file in batch.files.values())
    before = _json_rows_a_second()
    with TemporaryDirectory(prefix="ingest") as temporary, _served(Path(temporary)) as (port, pid):
        base = f"http://127.0.0.1:{port}"
        with httpx2.Client(base_url=base, timeout=120) as http:
            caller = Caller(http, COUNCIL, base=base)
            caller.call("GET", "/v1/ledger/recalls")
            idle = _resident_mb(pid)
            with _peak(pid) as peak:
                began = time.monotonic()
                id_ = caller.hand_in(batch)
                caller.on(batch, id_, "receipt?kind=received").raise_for_status()
                sealed = time.monotonic() - began
                receiving = max(peak) - idle
                spent = _processor_seconds(pid)
                state = "sealed"
                while state in ("sealed", "validating"):
                    time.sleep(1)  # each question takes of the processor what is counted here
                    state = str(caller.on(batch, id_).json()["state"])
                accepted, spent = time.monotonic() - began, _processor_seconds(pid) - spent
            if state != "accepted":
                raise RuntimeError(caller.on(batch, id_, "rejections").text[:2000])
    after = _json_rows_a_second()
    peer = (before + after) / 2
    committed, copied = _commits_a_second()
    yield _row(f"{count:,} rows, {size / 2**20:.0f} MiB, received and in the log", sealed, SEALED_SECONDS, "s")
    yield _row(f"{count:,} rows checked and taken in, from the first request", accepted, ACCEPTED_SECONDS, "s")
    yield _row("memory of the broker above idle meanwhile", max(peak) - idle, MEMORY_MB, "MB")
    ours = count / spent
    yield {
        "claim": "rows a second of a core, checked and taken in", "ours": ours, "peer": peer, "unit": "rows/s",
        "peer_name": f"json.loads, {LINE_BYTES} bytes a row", "ratio": ours / peer, "goal": INGEST_RATIO,
        "held": ours / peer >= INGEST_RATIO,
    }  # fmt: skip
    yield {
        "claim": f"sealed items a second committed on PostgreSQL, median of {ROUNDS}", "ours": committed, "peer": copied,
        "unit": "rows/s", "peer_name": "COPY of the same rows, same indexes", "ratio": committed / copied,
        "goal": COMMIT_RATIO, "held": committed / copied >= COMMIT_RATIO,
    }  # fmt: skip
    for claim, ours in (("receiving it", receiving), ("receiving, checking and taking it in", max(peak) - idle)):
        peer = size / 2**20
        yield {
            "claim": f"memory above idle, {claim}", "ours": ours, "peer": peer, "unit": "MB",
            "peer_name": "size of the batch", "ratio": ours / peer, "goal": MEMORY_RATIO,
            "held": ours / peer <= MEMORY_RATIO,
        }  # fmt: skip


def _commits_a_second() -> tuple[float, float]:
    """Items a second that the broker commits on PostgreSQL, and that COPY does: the medians."""
    batch = a_large_batch(sized(20_000, 200), 0, COMMITTED)
    ours, theirs = [], []
    server = Server(disk=True)
    try:
        server.start()
        with a_database(server.address) as url, TemporaryDirectory(prefix="ingest") as temporary:
            settings = an_installation(Path(temporary), database_url=url, environment="production", signer="inline")
            with serving(settings) as http:
                id_ = Caller(http, COUNCIL).hand_in(batch)
                desk = reception(http)
                with desk.store.reading() as tx:
                    row = tx.all(BatchRow, id=id_)[0]
                items = judge(desk, row, guarded=True).items
                for _ in range(ROUNDS):
                    ours.append(_committed(desk, row, items))
                    theirs.append(_copied(desk))
    finally:
        server.remove()
    return COMMITTED / median(ours), COMMITTED / median(theirs)


def _committed(desk: Reception, row: BatchRow, items: Sequence[pa.RecordBatch]) -> float:
    with desk.store.transaction() as tx:
        tx.connection.exec_driver_sql("TRUNCATE item")
    began = time.perf_counter()
    with desk.store.transaction() as tx:
        insert_items(tx, items, agency=row.agency, flow=row.flow, batch=row.id)
    return time.perf_counter() - began


def _copied(desk: Reception) -> float:
    """Seconds of a COPY of what is in the table of items into one like it."""
    with desk.store.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.rollback()
        with driver.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS copied; CREATE TABLE copied (LIKE item INCLUDING ALL)")
            with cursor.copy("COPY item TO STDOUT (FORMAT binary)") as leaving:
                told = [bytes(some) for some in leaving]
            driver.commit()
            began = time.perf_counter()
            with cursor.copy("COPY copied FROM STDIN (FORMAT binary)") as entering:
                entering.write(b"".join(told))
            driver.commit()
            return time.perf_counter() - began


def a_large_batch(persons: int = PERSONS, relationships: int = RELATIONSHIPS, items: int = ITEMS) -> Batch:
    """A full night of so many rows whose every filter, token and ref is random, as real ones look."""
    chance = np.random.default_rng(1)
    batch = a_batch(persons=[], chunk_size=CHUNK)
    refs = pa.array([a_ref(number) for number in range(persons)], pa.string())
    made: dict[Table, pa.Table] = {
        "persons": _persons(refs, chance),
        "relationships": _relationships(refs, relationships),
        "items": _items(refs, items, chance),
    }
    files: dict[str, bytes] = {}
    tables = {}
    for name in TABLES:
        sink = io.BytesIO()
        table = made[name].select(schema_of(name, "guarded-3").names).cast(schema_of(name, "guarded-3"))
        pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
        files[name] = sink.getvalue()
        tables[name] = an_entry(files[name], rows=table.num_rows, chunk_size=CHUNK)
    return agreed(Batch(batch.manifest, files, batch.signer).saying(tables=tables))


def _persons(refs: pa.Array, chance: np.random.Generator) -> pa.Table:
    count = len(refs)
    schema = schema_of("persons", "guarded-3")
    columns: dict[str, pa.Array] = {name: pa.nulls(count, schema.field(name).type) for name in schema.names}
    columns |= {"op": _all("upsert", count), "record_ref": refs, "person_role": _all("child", count)}
    columns |= {"shield": _all("none", count), "sex": _all("F", count), "birth_year": pa.array([2014] * count)}
    columns |= {name: pa.array([False] * count) for name in (*QUALITY_FLAGS, "deceased")}
    for name in FILTERS["guarded-3"]:
        words = chance.integers(-(2**63), 2**63 - 1, (8, count), np.int64)
        columns |= {f"{name}_w{number}": pa.array(word) for number, word in enumerate(words)}
        columns[f"{name}_n"] = pa.array(np.bitwise_count(words.view(np.uint64)).sum(axis=0).astype(np.int32))
    for name in (*(f"t_{token}" for token in TOKENS["guarded-3"]), "id_nhs_number", "id_upn", "id_local"):
        columns[name] = pa.array(chance.integers(-(2**63), 2**63 - 1, count, np.int64))
    return pa.table(columns)


def _relationships(refs: pa.Array, count: int) -> pa.Table:
    columns: dict[str, pa.Array] = {name: pa.nulls(count, RELATIONSHIPS_SCHEMA.field(name).type)
                                    for name in RELATIONSHIPS_SCHEMA.names}  # fmt: skip
    columns |= {"op": _all("upsert", count), "type": _all("sibling", count), "verified": pa.array([True] * count)}
    first = np.arange(count) % (len(refs) - 1)
    return pa.table({**columns, "ref_a": refs.take(pa.array(first)), "ref_b": refs.take(pa.array(first + 1))})


def _items(refs: pa.Array, count: int, chance: np.random.Generator) -> pa.Table:
    like = pa.Table.from_pylist([an_item("", "")], schema=schema_of("items", "guarded-3"))
    table = like.take(pa.array(np.zeros(count, np.int64)))
    names = {
        "item_ref": pa.array([a_ref("item", number) for number in range(count)], pa.string()),
        "record_ref": refs.take(pa.array(chance.integers(0, len(refs), count))),
    }
    return pa.table({name: names.get(name, table[name]) for name in table.column_names})


def _all(word: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(word, pa.string()), count)


@contextmanager
def _served(folder: Path) -> Iterator[tuple[int, int]]:
    """A `broker serve` of its own: port and process id."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = int(listening.getsockname()[1])
    base = f"http://127.0.0.1:{port}"
    an_installation(folder, base_url=base, port=port)
    (folder / "broker.toml").write_text(
        f'environment = "demo"\npartnership = "northshire"\nbase_url = "{base}"\nport = {port}\n'
        'database_url = "sqlite:///broker.sqlite"\ndata_dir = "."\n'
    )
    command = (sys.executable, "-c", "from broker.cli import main; main()", "serve", "--config")
    with subprocess.Popen((*command, str(folder / "broker.toml")), stdout=subprocess.DEVNULL) as process:
        try:
            with httpx2.Client(base_url=base) as http:
                while True:
                    try:
                        http.get("/health/ready")
                        break
                    except httpx2.HTTPError:
                        if process.poll() is not None:
                            raise RuntimeError("broker serve did not start") from None
                        time.sleep(0.1)
            yield port, process.pid
        finally:
            process.terminate()


def _family(pid: int) -> list[int]:
    """A process and those it has started, and theirs."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def _resident_mb(pid: int) -> float:
    """What a process and those it has started have in memory; what they share counts once."""
    total = 0.0
    for one in _family(pid):
        try:
            said = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) / 1024 for line in said.splitlines() if line.startswith("Pss:"))
    return total


def _processor_seconds(pid: int) -> float:
    """What a process, those it has started and those of them that have ended have had of the processors."""
    ticks = 0
    for one in _family(pid):
        try:
            said = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended, and its parent has its time
            continue
        ticks += sum(int(time_) for time_ in said[11:15])  # user and system: its own, and of its children that ended
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _peak(pid: int) -> Iterator[list[float]]:
    """Looks at the resident set until left; all that was seen."""
    seen, done = [_resident_mb(pid)], threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            seen.append(_resident_mb(pid))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def _json_rows_a_second() -> float:
    line = json.dumps({f"field_{number:02}": "x" * 20 for number in range(23)})
    line = line[:-2] + "x" * (LINE_BYTES - len(line)) + line[-2:]
    count, began = 0, time.process_time()
    while time.process_time() - began < 3.0:
        for _ in range(1_000):
            json.loads(line)
        count += 1_000
    return count / (time.process_time() - began)


def _row(claim: str, ours: float, goal: float, unit: str) -> Row:
    return {
        "claim": claim, "ours": ours, "peer": goal, "peer_name": "limit", "ratio": ours / goal, "goal": goal,
        "held": ours <= goal, "unit": unit,
    }  # fmt: skip
