"""A night of the broker at a million records: from encoded batches in the spool to published clusters, and the next.

Three agencies send a full batch each, sealed in the spool as they arrive; the real `broker nightly` links and publishes
them, by a frozen model, in a process of its own, whose processor seconds and peak memory are taken.  The next night they send all again,
two in a hundred people moved; what is published must be what `broker relink --full` makes of the same night.

The people are made of random bits, as in `search`: tokens meet as often as those of real names, dates and homes.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
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
from linkage.records import (
    FILTER_WORDS,
    FILTERS,
    IDENTIFIERS,
    QUALITY_FLAGS,
    RELATIONSHIPS_SCHEMA,
    TABLES,
    TOKENS,
    persons_schema,
    schema_of,
)
from tests.benchmarks.sizes import sized
from tests.builders import COUNCIL, ICB, POLICE, a_manifest, an_entry
from tests.builders_broker import an_installation, dates

TOPIC: Final = "linkage"
PROFILE: Final = Settings.model_fields["profile"].default
FLOWS: Final = {COUNCIL: ("education",), ICB: ("health",), POLICE: ("police",)}
CHUNK: Final = 8 * 1024 * 1024
RECORDS: Final = sized(1_000_000, 6_000)
PILOT: Final = 150
CHANGED: Final = 0.02
CPU_GOAL: Final = 60.0
MEMORY_GOAL: Final = 4096.0

Row = dict[str, Any]
Numbers = npt.NDArray[np.int64]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=linkage` about nights."""
    with TemporaryDirectory(prefix="night") as folder:
        yield from _nights(Path(folder) / "broker", RECORDS)


def _nights(folder: Path, records: int) -> Iterator[Row]:
    area = Area.of(records)
    settings = installed(folder)
    hand_in(settings, Area.of(PILOT), night=1)  # too few to train on: from here on the shipped model scores
    measured(folder, "nightly")
    hand_in(settings, area, night=2)
    first = measured(folder, "nightly", "--exception")
    yield _row(f"{records:,} records, encoded batches to published clusters", first.cpu, CPU_GOAL, "CPU s")
    yield _row(f"peak memory of that night of {records:,} records", first.peak, MEMORY_GOAL, "MB")
    hand_in(settings, area.changed(CHANGED), night=3)
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    full = measured(other, "relink", "--full", "--exception")
    again = measured(folder, "nightly", "--exception")
    name = "`broker relink --full` of the same night"
    yield _row(f"night with {CHANGED:.0%} of {records:,} records changed", again.cpu, None, "CPU s", full.cpu, name)
    ratio = again.cpu / first.cpu
    yield _row(f"night with {CHANGED:.0%} changed, in parts of the first night", ratio, 0.25, "ratio")
    yield _row("peak memory of that night", again.peak, MEMORY_GOAL, "MB")
    apart = differences(settings, installed_settings(other))
    yield {**_row("records whose cluster differs from the full relink's", apart, None, "records"), "goal": 0.0,
           "held": apart == 0}  # fmt: skip


# --- People ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Area:
    """Made-up people, each with a record at all three agencies, of which `moved` have a new home and postcode."""

    born: Numbers
    home: Numbers
    given: Numbers
    family: Numbers
    number: Numbers
    numbered: npt.NDArray[np.bool_]  # by agency and person: whether that agency has the number
    seeds: Numbers  # of each person's random filters

    @classmethod
    def of(cls, records: int) -> Area:
        """People with `records` records between them."""
        chance = np.random.default_rng(3)
        people = records // len(FLOWS)
        return cls(
            born=chance.integers(0, 6570, people),
            home=chance.integers(0, people // 15 + 1, people),
            given=_names(chance, 800, people),
            family=_names(chance, 20_000, people),
            number=chance.integers(0, 2**62, people),
            numbered=chance.random((len(FLOWS), people)) < 0.6,
            seeds=np.arange(people, dtype=np.int64),
        )

    def changed(self, share: float) -> Area:
        """The same people a night later: this share of them has moved, and their filters are others."""
        chance = np.random.default_rng(4)
        moved = chance.random(len(self.home)) < share
        home = np.where(moved, chance.integers(0, len(self.home) // 15 + 1, len(self.home)), self.home)
        seeds = np.where(moved, self.seeds + 2**40, self.seeds)
        return Area(self.born, home, self.given, self.family, self.number, self.numbered, seeds)

    def tables(self, agency: int) -> dict[str, pa.Table]:
        """The three tables of one agency's full batch."""
        people = len(self.born)
        parts: dict[str, tuple[Numbers, ...]] = {
            "given_name_d": (self.given, self.born), "given_name_p": (self.given, self.home),
            "family_name_d": (self.family, self.born), "family_name_p": (self.family, self.home), "dob_given": (self.born, self.given), "dob_family": (self.born, self.family),
            "postcode_given_family1": (self.home, self.given), "postcode_family_given1": (self.home, self.family),
            "dob_sector": (self.born, self.home // 40),
        }  # fmt: skip
        columns: dict[str, Any] = {"op": pa.array(["upsert"] * people), "record_ref": _refs(agency, people)}
        columns["person_role"] = pa.array(["child"] * people)
        for n, name in enumerate(TOKENS[PROFILE]):
            columns[f"t_{name}"] = pa.nulls(people, pa.int64()) if name not in parts else _mixed(n, *parts[name])
        for n, name in enumerate(FILTERS[PROFILE]):
            words = np.stack([_mixed(100 + 8 * n + word, self.seeds) for word in range(FILTER_WORDS)], axis=1)
            columns |= {f"{name}_w{word}": words[:, word] for word in range(FILTER_WORDS)}
            columns[f"{name}_n"] = np.bitwise_count(words.view(np.uint64)).sum(1).astype(np.int32)
        columns |= {f"id_{name}": pa.nulls(people, pa.int64()) for name in IDENTIFIERS}
        columns["id_nhs_number"] = pa.array(self.number, mask=~self.numbered[agency])
        columns |= {flag: pa.array(np.zeros(people, bool)) for flag in QUALITY_FLAGS}
        columns |= {
            "birth_year": (2007 + self.born // 365).astype(np.int32), "sex": np.array(["F", "M"])[self.born % 2],
            "shield": pa.array(["none"] * people), "sever_ref": pa.nulls(people, pa.string()),
            "deceased": pa.nulls(people, pa.bool_()), "valid_from": pa.nulls(people, pa.date32()),
            "valid_to": pa.nulls(people, pa.date32()),
        }  # fmt: skip
        schema = persons_schema(PROFILE)
        persons = pa.table({name: columns[name] for name in schema.names}, schema=schema)
        return {"persons": persons, "relationships": self._relationships(agency),
                "items": schema_of("items", PROFILE).empty_table()}  # fmt: skip

    def _relationships(self, agency: int) -> pa.Table:
        """A household token of each, three people to a home, and a sibling of every other."""
        people = len(self.born)
        refs = _refs(agency, people)
        pairs = np.arange(0, people - 1, 2)
        count = people + len(pairs)
        columns: dict[str, Any] = {
            "op": pa.array(["upsert"] * count),
            "ref_a": pa.concat_arrays([refs, refs.take(pa.array(pairs))]),
            "ref_b": pa.concat_arrays([pa.nulls(people, pa.string()), refs.take(pa.array(pairs + 1))]),
            "household": pa.concat_arrays([pa.array(_mixed(900, self.seeds // 3)), pa.nulls(len(pairs), pa.int64())]),
            "type": pa.array(["household"] * people + ["sibling"] * len(pairs)),
            "verified": pa.array(np.ones(count, bool)),
            "valid_from": pa.nulls(count, pa.date32()),
            "valid_to": pa.nulls(count, pa.date32()),
        }
        return pa.table(columns, schema=RELATIONSHIPS_SCHEMA)


def _names(chance: np.random.Generator, different: int, people: int) -> Numbers:
    """Names as common as real ones: the first of `different` is borne by about one in a hundred."""
    shares = 1 / (np.arange(different) + 15)
    return chance.choice(different, people, p=shares / shares.sum())


def _refs(agency: int, people: int) -> pa.Array:
    """Sixty-four hex digits each, as agencies' keyed refs have."""
    words = np.stack([_mixed(1000 + 4 * agency + word, np.arange(people)) for word in range(4)], axis=1)
    text = words.tobytes().hex()
    return pa.array([text[at : at + 64] for at in range(0, len(text), 64)])


def _mixed(salt: int, *parts: Numbers) -> Numbers:
    """Sixty-four bits that look random, the same for the same parts (the finaliser of SplitMix64)."""
    mixed = np.full(len(parts[0]), salt * 0x9E3779B97F4A7C15 % 2**64, np.uint64)
    for part in parts:
        mixed = (mixed ^ part.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed.view(np.int64)


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


def installed_settings(folder: Path) -> Settings:
    """The settings of a copy."""
    from tests.builders_broker import some_settings

    return some_settings(folder)


def hand_in(settings: Settings, area: Area, *, night: int) -> None:
    """A full batch of each agency, accepted: its chunks in the spool, sealed, and its row."""
    store, keys = Store(settings.database_url.get_secret_value()), Keys.load(settings.data_dir / "keys")
    spool = Spool(settings.data_dir / "spool")
    for at, (agency, (flow,)) in enumerate(FLOWS.items()):
        batch = hashlib.sha256(f"{agency} {night}".encode()).hexdigest()[:32]
        files, counts = {}, {}
        for name, table in area.tables(at).items():
            sink = io.BytesIO()
            pq.write_table(table, sink, compression="zstd")
            files[name], counts[name] = sink.getvalue(), table.num_rows
        entries = {name: an_entry(files[name], rows=counts[name], chunk_size=CHUNK) for name in TABLES}
        manifest = a_manifest(agency=agency, flow=flow, sequence=night, chunk_size=CHUNK, tables=entries, **dates())
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
                    id=batch, agency=agency, flow=flow, sequence=night, kind="full", idempotency_key=batch,
                    manifest=manifest.canonical(), manifest_sha256=hashlib.sha256(manifest.canonical()).hexdigest(),
                    signature="", profile=PROFILE, key_epoch=manifest.key_epoch, dek_wrapped=wrapped, state="accepted",
                    first_status=201, first_response=b"{}", counts=counts, extracted_at=now, opened_at=now,
                    expires_at=now, decided_at=now,
                )
            )  # fmt: skip
            row = tx.one(AgencyFlowRow, agency=agency, flow=flow)
            assert row is not None
            row.last_batch, row.last_sequence, row.last_accepted_at, row.as_of = batch, night, now, now
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
    print("took", used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, file=sys.stderr)
"""


def measured(folder: Path, *arguments: str) -> Measured:
    """One `broker` command in a process of its own."""
    command = (sys.executable, "-c", _TOLD, *arguments, "--config", str(folder / "broker.toml"))
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    told = [line.split() for line in done.stderr.splitlines() if line.startswith("took ")]
    if done.returncode or not told:
        raise RuntimeError(f"broker {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return Measured(float(told[-1][1]), float(told[-1][2]))


def differences(one: Settings, other: Settings) -> int:
    """Records that share a person with others in one installation than in the other."""
    groups = [_groups(settings) for settings in (one, other)]
    return sum(groups[0].get(record) != group for record, group in groups[1].items())


def _groups(settings: Settings) -> dict[tuple[str, ...], frozenset[tuple[str, ...]]]:
    keys, store = Keys.load(settings.data_dir / "keys"), Store(settings.database_url.get_secret_value())
    with store.reading() as tx:
        pointer = tx.one(PublishedRow)
        run = tx.one(LinkRunRow, id=pointer.run) if pointer else None
    store.close()
    assert run is not None
    clusters = Vault(settings.data_dir / "vault", keys.vault_key()).read(run.segments["clusters"])
    names = ("agency", "flow", "record_ref")
    records = list(zip(*(clusters[name].to_pylist() for name in names), strict=True))
    members: dict[str, list[tuple[str, ...]]] = {}
    for record, person in zip(records, clusters["person_id"].to_pylist(), strict=True):
        members.setdefault(person, []).append(record)
    return {record: group for several in members.values() for group in [frozenset(several)] for record in several}


def _row(
    claim: str, ours: float, goal: float | None, unit: str, peer: float | None = None, name: str | None = None
) -> Row:
    return {
        "claim": claim, "ours": round(ours, 3), "peer": peer if peer is None else round(peer, 3), "peer_name": name,
        "ratio": None if peer is None else round(peer / ours, 3), "goal": goal,
        "held": None if goal is None else ours <= goal, "unit": unit,
    }  # fmt: skip
