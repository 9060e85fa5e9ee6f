"""What a flow's batches have told the broker, as keyed digests, and what of tonight's extract they have not.

Beside each batch its home keeps a digest for every record, relationship and item the flow holds then, under the
agency's own key: no name, and nothing that says who anybody is without the crosswalk.  They lie under the hash of the
batch's manifest, and which of them counts is what `state.json` says was accepted last: a batch that is lost, rejected
or never sent changes nothing, and the next delta brings what it would have brought.

told/<flow>/<SHA-256 of the manifest>.<table>.parquet     key, digest
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from linkage.agency.keys import keyed_hex
from linkage.agency.persons import People
from linkage.agency.settings import Home, write_whole
from linkage.records import ITEMS_SCHEMA, RELATIONSHIPS_SCHEMA, TABLES, Table

DIGEST: Final = 16  # bytes
KEPT_FOR: Final = timedelta(days=14)  # a batch that was never sent: its manifest has expired by then
STAMP: Final = b"stamp"
_SCHEMA: Final = pa.schema([("key", pa.string()), ("digest", pa.binary(DIGEST))])
_WRAP: Final = 1 << (8 * DIGEST)
_RELATION: Final = ("ref_a", "ref_b", "household", "type")  # what the broker knows a relationship by
_NOTHING: Final = "-"

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """By table, the key and digest of each record, relationship or item: of all its rows together, in any order."""

    tables: Mapping[Table, pa.Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What a delta has to say.  A record, and a relationship, is said whole: every row of it."""

    named: frozenset[str]  # records that are new or changed, and those that a new relationship or item is about
    gone: Sequence[str]  # records that are not in the extract any more
    relationships: Rows
    items: Rows
    changed: Mapping[Table, int]
    withdrawn: Mapping[Table, int]


def of(home: Home, people: People, related: Rows, listed: Rows) -> Told:
    """Everything that a full batch would say."""
    key = bytes.fromhex(keyed_hex(home.record_key, "told"))
    person = [*people.attributes.columns, *people.standard.columns]
    return Told(
        tables={
            "persons": _digests(key, people.attributes["record_ref"].to_pylist(), _joined(person).to_pylist()),
            "relationships": _digests(key, map(_relation, related), (repr(row) for row in related)),
            "items": _digests(key, (row[1] for row in listed), (repr(row) for row in listed)),
        }
    )


def keep(home: Home, flow: str, manifest_sha256: str, told: Told, *, stamp: str) -> None:
    """Keep what a batch will have told once it is accepted; on disk when this returns."""
    for name, table in told.tables.items():
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({STAMP: stamp.encode()}), sink, compression="zstd")
        write_whole(_place(home, flow, manifest_sha256, name), sink.getvalue().to_pybytes())


def last(home: Home, flow: str, *, stamp: str) -> Told | None:
    """What the last accepted batch of a flow has told; None if that is not known, or was said under other keys.

    A batch made on another machine, or before this was kept, is not known: then only a full one can follow.
    """
    accepted = str(home.state(flow)["manifest_sha256"])
    if not accepted:
        return None
    tables = {}
    for name in TABLES:
        try:
            tables[name] = pq.read_table(_place(home, flow, accepted, name))
        except (OSError, pa.ArrowException):
            return None
        if (tables[name].schema.metadata or {}).get(STAMP) != stamp.encode() or tables[name].schema != _SCHEMA:
            return None
    return Told(tables=tables)


def tidy(home: Home, flow: str, *, now: datetime) -> None:
    """Delete what neither the accepted batch nor one that may still be sent has told."""
    held = home.state(flow)
    needed = {str(held["manifest_sha256"]), str((held.get("pending") or {}).get("manifest_sha256", ""))}
    for path in (home.folder / "told" / home.place(flow)).glob("*.parquet"):
        if path.name.partition(".")[0] not in needed and path.stat().st_mtime < (now - KEPT_FOR).timestamp():
            path.unlink(missing_ok=True)


def delta(before: Told, now: Told, related: Rows, listed: Rows) -> Delta:
    """What of `now`, whose relationships and items are given too, is not as it was told before."""
    new = {name: _new(before.tables[name], now.tables[name]) for name in TABLES}
    gone = {name: _gone(before.tables[name], now.tables[name]) for name in TABLES}
    upserts = [row for row in related if _relation(row) in new["relationships"]]
    items = [row for row in listed if row[1] in new["items"]]
    ends = {ref for row in upserts for ref in (row[1], row[2]) if ref is not None}
    return Delta(
        named=frozenset(new["persons"]) | ends | {row[2] for row in items},
        gone=gone["persons"],
        relationships=[*upserts, *map(_withdrawn_relation, gone["relationships"])],
        items=[*items, *(_row(ITEMS_SCHEMA, item_ref=ref) for ref in gone["items"])],
        changed={name: len(keys) for name, keys in new.items()},
        withdrawn={name: len(keys) for name, keys in gone.items()},
    )


def _place(home: Home, flow: str, manifest_sha256: str, table: Table) -> Path:
    return home.folder / "told" / home.place(flow) / f"{manifest_sha256}.{table}.parquet"


def _digests(key: bytes, keys: Iterable[str], rows: Iterable[str]) -> pa.Table:
    """A digest for each key: of its rows as a set in which one may be several times."""
    found: dict[str, int] = {}
    for name, row in zip(keys, rows, strict=True):
        digest = hashlib.blake2b(row.encode(), key=key, digest_size=DIGEST).digest()
        found[name] = (found.get(name, 0) + int.from_bytes(digest, "little")) % _WRAP
    made = [total.to_bytes(DIGEST, "little") for total in found.values()]
    return pa.table([pa.array(found, pa.string()), pa.array(made, pa.binary(DIGEST))], schema=_SCHEMA)


def _joined(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """The columns of each row as one text; missing is not the empty text."""
    texts = [pc.cast(column, pa.string()) for column in columns]
    return pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x00")


def _new(before: pa.Table, now: pa.Table) -> Collection[str]:
    """The keys that were not there, or whose digest was another."""
    was = pc.index_in(now["key"], value_set=before["key"].combine_chunks())
    same = pc.fill_null(pc.equal(before["digest"].take(was), now["digest"]), False)
    return frozenset(now["key"].filter(pc.invert(same)).to_pylist())


def _gone(before: pa.Table, now: pa.Table) -> Sequence[str]:
    there = pc.is_in(before["key"], value_set=now["key"].combine_chunks())
    return sorted(before["key"].filter(pc.invert(there)).to_pylist())


def _relation(row: tuple[Any, ...]) -> str:
    """What a relationship is known by, as one text."""
    return "|".join(_NOTHING if part is None else str(part) for part in row[1 : 1 + len(_RELATION)])


def _withdrawn_relation(key: str) -> tuple[Any, ...]:
    parts = dict(zip(_RELATION, (None if part == _NOTHING else part for part in key.split("|")), strict=True))
    if parts["household"] is not None:
        return _row(RELATIONSHIPS_SCHEMA, **parts | {"household": int(parts["household"])})
    return _row(RELATIONSHIPS_SCHEMA, **parts)


def _row(schema: pa.Schema, **parts: Any) -> tuple[Any, ...]:
    """A row that withdraws: `op`, what it is known by, and nothing else."""
    return tuple("delete" if name == "op" else parts.get(name) for name in schema.names)
