"""A night of the broker at a million records: from encoded batches in the spool to published clusters, and the next.

Three agencies send a full batch each, accepted and sealed in the spool as they arrive; the real `broker nightly` links
and publishes them by a frozen model, in a process of its own, whose processor seconds and peak memory are taken.  The
next night each sends a delta: two records in a hundred are changed, withdrawn or new (`population.after_a_night`).
What is published must be what `broker relink --full` makes of the same night, and what each of the two takes is
compared.  A night on which the agencies send everything again, which the broker must read to see what has changed, is
printed beside it.

The people are those of `scale`, by real encodings; half of the siblings in one home are stated as such.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from broker import clock
from broker.keys import Keys
from broker.settings import Settings
from broker.spool import Spool
from broker.store import Store
from broker.store.agencies import AgencyFlowRow
from broker.store.batches import BatchRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.vault import Vault
from linkage.agency.batch import ROW_GROUP
from linkage.matching.keeping import PAIRS
from linkage.matching.keeping import RECORDS as RECORDS_KEPT
from linkage.matching.kin import KEPT_CONFLICTS, KEPT_EDGES
from linkage.records import QUALITY_FLAGS, RELATIONSHIPS_SCHEMA, TABLES, persons_schema, schema_of
from tests.benchmarks import scale
from tests.benchmarks.population import SOURCES
from tests.benchmarks.sizes import sized
from tests.builders import a_manifest, an_entry
from tests.builders_broker import an_installation, dates, some_settings

TOPIC: Final = "linkage"
MINUTES: Final = 30
PROFILE: Final = Settings.model_fields["profile"].default
FLOWS: Final = {agency: (flow,) for agency, flow in SOURCES}
CHUNK: Final = 8 * 1024 * 1024
RECORDS: Final = sized(1_000_000, 6_000)
PILOT: Final = 150
CPU_GOAL: Final = 60.0
MEMORY_GOAL: Final = 4096.0
NIGHT_GOAL: Final = 0.25
SAME: Final = (RECORDS_KEPT, PAIRS, "reviews", KEPT_EDGES, KEPT_CONFLICTS, "rates")

Row = dict[str, Any]
Tables = Mapping[str, pa.Table]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=linkage` about nights."""
    with TemporaryDirectory(prefix="night") as temporary:
        folder = Path(temporary)
        made = Path(os.environ.get(scale.FOLDER, temporary))
        yield from _nights(folder, made, RECORDS)


def _nights(folder: Path, made: Path, records: int) -> Iterator[Row]:
    settings = prepared(folder / "broker", made, records)
    first = measured(folder / "broker", "nightly", "--exception")
    yield _row(f"{records:,} records, encoded batches to published clusters", first.cpu, CPU_GOAL, "CPU s")
    yield _row(f"peak memory of that night of {records:,} records", first.peak, MEMORY_GOAL, "MB")
    shutil.copytree(folder / "broker", folder / "again")
    after_a_night(settings, made, records, delta=True)
    shutil.copytree(folder / "broker", folder / "full")
    full = measured(folder / "full", "relink", "--full", "--exception")
    night = measured(folder / "broker", "nightly", "--exception")
    name = "`broker relink --full` of the same night"
    yield _row(f"night with 2 % of {records:,} records changed", night.cpu, NIGHT_GOAL, "CPU s", full.cpu, name)
    yield _row("peak memory of that night", night.peak, MEMORY_GOAL, "MB")
    yield _alike("the full relink's", settings, some_settings(folder / "full"))
    after_a_night(some_settings(folder / "again"), made, records, delta=False)
    again = measured(folder / "again", "nightly", "--exception")
    yield _row("that night, where everything is sent again", again.cpu, None, "CPU s", full.cpu, name)
    yield _alike("the delta's, where everything is sent again", settings, some_settings(folder / "again"))


def prepared(folder: Path, made: Path, records: int) -> Settings:
    """A broker with a small night in service, by the shipped model, and the batches of a large one."""
    for size in (PILOT, records):
        scale.made(size, made)
    settings = installed(folder)
    hand_in(settings, _full(made, PILOT, 0), sequence=1)  # too few to train on: from here on the shipped model scores
    measured(folder, "nightly")
    hand_in(settings, _full(made, records, 0), sequence=2)
    return settings


def after_a_night(settings: Settings, made: Path, records: int, *, delta: bool) -> None:
    """The next night's batches: what has changed, or everything."""
    batches = _deltas(made, records) if delta else _full(made, records, 1)
    hand_in(settings, batches, sequence=3, kind="delta" if delta else "full")


# --- What is sent ----------------------------------------------------------------------------------------------------


def _full(made: Path, records: int, night: int) -> Iterator[tuple[str, str, Tables]]:
    """By agency and flow the tables of a full batch."""
    persons, homes = scale.tables(records, made, night)
    for agency, flow in SOURCES:
        yield agency, flow, _wire(_of(persons, agency), _of(homes, agency))


def _deltas(made: Path, records: int) -> Iterator[tuple[str, str, Tables]]:
    """By agency and flow what to send of the next night: all rows of each record that differs, and what is no more."""
    for (agency, flow, old), (_, _, new) in zip(_full(made, records, 0), _full(made, records, 1), strict=True):
        yield agency, flow, {**_wire_delta(old, new), "items": schema_of("items", PROFILE).empty_table()}


def _wire_delta(old: Tables, new: Tables) -> dict[str, pa.Table]:
    refs = [pc.unique(_unlike(*both)["record_ref"]) for both in ((old["persons"], new["persons"]),
                                                                   (new["persons"], old["persons"]))]  # fmt: skip
    touched = pc.unique(
        pa.concat_arrays([one.combine_chunks() if isinstance(one, pa.ChunkedArray) else one for one in refs])
    )
    upserts = new["persons"].filter(pc.is_in(new["persons"]["record_ref"], value_set=touched))
    gone = touched.filter(pc.invert(pc.is_in(touched, value_set=upserts["record_ref"])))
    deletes = _deleted(pa.table({"record_ref": gone}), persons_schema(PROFILE))
    said = _unlike(new["relationships"], old["relationships"])
    unsaid = _deleted(_unlike(old["relationships"], new["relationships"]), RELATIONSHIPS_SCHEMA)
    return {
        "persons": pa.concat_tables([upserts, deletes]),
        "relationships": pa.concat_tables([said, unsaid]),
    }


def _unlike(some: pa.Table, others: pa.Table) -> pa.Table:
    """The rows of a table that another has not."""
    ours, theirs = (scale.digests(table) for table in (some, others))
    return some.filter(pa.array(~np.isin(ours, theirs)))


def _deleted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = {name: rows[name] for name in rows.column_names if name != "op"}
    columns["op"] = pa.array(["delete"] * rows.num_rows, pa.string())
    return pa.table(
        {field.name: columns.get(field.name, pa.nulls(rows.num_rows, field.type)) for field in schema}, schema=schema
    )


def _of(table: pa.Table, agency: str) -> pa.Table:
    return table.filter(pc.equal(table["agency"], agency))


def _wire(persons: pa.Table, homes: pa.Table) -> dict[str, pa.Table]:
    count = persons.num_rows
    columns = {name: persons[name] for name in persons.column_names}
    columns |= {"op": _all("upsert", count), "person_role": _all("child", count), "shield": _all("none", count)}
    columns |= {flag: pa.array(np.zeros(count, np.bool_)) for flag in QUALITY_FLAGS}
    schema = persons_schema(PROFILE)
    return {
        "persons": pa.table(
            {field.name: columns.get(field.name, pa.nulls(count, field.type)) for field in schema}, schema=schema
        ),
        "relationships": _relationships(homes),
        "items": schema_of("items", PROFILE).empty_table(),
    }


def _relationships(homes: pa.Table) -> pa.Table:
    """A household token of each, and a sibling of half of those who follow one of the same home.

    Which half hangs on their own names, so that it is the same night after night.
    """
    refs, home = homes["ref_a"].combine_chunks(), homes["household"].to_numpy()
    pairs = np.flatnonzero(home[1:] == home[:-1])
    first = pc.utf8_slice_codeunits(refs.take(pa.array(pairs)), 0, 1)
    pairs = pairs[pc.is_in(first, value_set=pa.array(list("01234567"))).to_numpy(zero_copy_only=False)]
    count, siblings = len(refs), len(pairs)
    return pa.table(
        {
            "op": _all("upsert", count + siblings),
            "ref_a": pa.concat_arrays([refs, refs.take(pa.array(pairs))]),
            "ref_b": pa.concat_arrays([pa.nulls(count, pa.string()), refs.take(pa.array(pairs + 1))]),
            "household": pa.concat_arrays([pa.array(home), pa.nulls(siblings, pa.int64())]),
            "type": pa.concat_arrays([_all("household", count), _all("sibling", siblings)]),
            "verified": pa.array(np.ones(count + siblings, np.bool_)),
            "valid_from": pa.nulls(count + siblings, pa.date32()),
            "valid_to": pa.nulls(count + siblings, pa.date32()),
        },
        schema=RELATIONSHIPS_SCHEMA,
    )


def _all(word: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(word, pa.string()), count)


# --- A broker --------------------------------------------------------------------------------------------------------


def installed(folder: Path) -> Settings:
    """A broker with the three agencies enrolled, and its `broker.toml`."""
    folder.mkdir(parents=True)
    settings = an_installation(folder, agencies=FLOWS)
    (folder / "broker.toml").write_text(
        f'environment = "demo"\npartnership = "{settings.partnership}"\nbase_url = "{settings.base_url}"\n'
        'database_url = "sqlite:///broker.sqlite"\ndata_dir = "."\n'
    )
    return settings


def hand_in(
    settings: Settings, batches: Iterator[tuple[str, str, Tables]], *, sequence: int, kind: str = "full"
) -> None:
    """A batch of each agency, accepted: its chunks in the spool, sealed, and its row."""
    store, keys = Store(settings.database_url.get_secret_value()), Keys.load(settings.data_dir / "keys")
    spool = Spool(settings.data_dir / "spool")
    for agency, flow, tables in batches:
        batch = hashlib.sha256(f"{agency} {sequence}".encode()).hexdigest()[:32]
        files, counts = {}, {}
        for name, table in tables.items():
            sink = io.BytesIO()
            pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
            files[name], counts[name] = sink.getvalue(), table.num_rows
        entries = {name: an_entry(files[name], rows=counts[name], chunk_size=CHUNK) for name in TABLES}
        manifest = a_manifest(
            agency=agency, flow=flow, sequence=sequence, kind=kind, chunk_size=CHUNK, tables=entries, **dates()
        )
        key, wrapped = keys.new_data_key(batch)
        for name in TABLES:
            for number, start in enumerate(range(0, max(len(files[name]), 1), CHUNK)):
                with spool.writer(batch, name, number, key) as writer:
                    writer.write(files[name][start : start + CHUNK])
                    writer.finish()
                    writer.keep()
        now = clock.now()
        with store.transaction() as tx:
            tx.add(
                BatchRow(
                    id=batch, agency=agency, flow=flow, sequence=sequence, kind=kind, idempotency_key=batch,
                    manifest=manifest.canonical(), manifest_sha256=hashlib.sha256(manifest.canonical()).hexdigest(),
                    signature="", profile=PROFILE, key_epoch=manifest.key_epoch, dek_wrapped=wrapped, state="accepted",
                    first_status=201, first_response=b"{}", counts=counts, extracted_at=now, opened_at=now,
                    expires_at=now, decided_at=now,
                )
            )  # fmt: skip
            row = tx.one(AgencyFlowRow, agency=agency, flow=flow)
            assert row is not None
            row.last_batch, row.last_sequence, row.last_accepted_at, row.as_of = batch, sequence, now, now
            tx.add(row)
    store.close()


@dataclass(frozen=True)
class Measured:
    """What one process took."""

    cpu: float  # seconds, all threads
    peak: float  # MB


_TOLD: Final = """
import resource, sys
from broker.cli import app
try:
    app(sys.argv[1:], standalone_mode=False)
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/status") as status:  # ru_maxrss would be the benchmark's own, where that is the larger
        (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    print("took", used.ru_utime + used.ru_stime, int(peak) / 1024, file=sys.stderr)
"""


def measured(folder: Path, *arguments: str) -> Measured:
    """One `broker` command in a process of its own, which finds its modules compiled, as those of an installed one are."""
    command = (sys.executable, "-c", _TOLD, *arguments, "--config", str(folder / "broker.toml"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder.parent / "compiled")
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    told = [line.split() for line in done.stderr.splitlines() if line.startswith("took ")]
    if done.returncode or not told:
        raise RuntimeError(f"broker {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return Measured(float(told[-1][1]), float(told[-1][2]))


def alike(one: Settings, other: Settings) -> int:
    """How many of SAME are equal in two installations: they number records and persons alike, whatever their ids are."""
    mine, theirs = (_published(settings) for settings in (one, other))
    return sum(
        mine[name].equals(theirs[name]) if isinstance(mine[name], pa.Table) else mine[name] == theirs[name]
        for name in SAME
    )


def _published(settings: Settings) -> dict[str, Any]:
    keys, store = Keys.load(settings.data_dir / "keys"), Store(settings.database_url.get_secret_value())
    with store.reading() as tx:
        pointer = tx.one(PublishedRow)
        run = tx.one(LinkRunRow, id=pointer.run) if pointer else None
    store.close()
    assert run is not None
    vault = Vault(settings.data_dir / "vault", keys.vault_key())
    return {name: run.counts[name] if name == "rates" else vault.read(run.segments[name]) for name in SAME}


def _alike(whose: str, one: Settings, other: Settings) -> Row:
    same = alike(one, other)
    return {
        **_row(f"published tables that are {whose}: clusters, pairs, reviews, family, conflicts, match rates", same, None,
               "tables"),
        "peer": len(SAME), "peer_name": "tables", "ratio": same / len(SAME), "goal": 1, "held": same == len(SAME),
    }  # fmt: skip


def _row(
    claim: str, ours: float, goal: float | None, unit: str, peer: float | None = None, name: str | None = None
) -> Row:
    ratio = None if peer is None else ours / peer
    return {
        "claim": claim, "ours": round(ours, 3), "peer": peer if peer is None else round(peer, 3), "peer_name": name,
        "ratio": None if ratio is None else round(ratio, 3), "goal": goal,
        "held": None if goal is None else (ours if ratio is None else ratio) <= goal, "unit": unit,
    }  # fmt: skip
