"""What a night links: which batches make up each flow, and their persons and relationships as the broker keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import NotFound
from broker.keys import Keys
from broker.reception import Reception
from broker.store import Reading
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.batches import BatchRow
from broker.store.runs import LinkRunRow
from broker.vault import Vault
from linkage.matching import intake
from linkage.matching.link import Carried
from linkage.records import IDENTIFIERS, RELATIONSHIPS_SCHEMA, TOKENS, Manifest, Profile, Table, persons_schema

SOURCE: Final = [("agency", pa.string()), ("flow", pa.string())]
PARTS: Final[tuple[Table, ...]] = ("persons", "relationships")

Flow = tuple[str, str]
"""Agency and flow."""
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Which batches make up each flow: those in service already (None first), then what was accepted since."""

    sources: Mapping[Flow, tuple[bool, tuple[BatchRow, ...]]]  # flow -> (keep what is in service, batches in order)
    duplicates: frozenset[Flow]
    fingerprint: str

    @property
    def batches(self) -> tuple[BatchRow, ...]:
        """Every batch that this run puts into segments."""
        return tuple(batch for _, batches in self.sources.values() for batch in batches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Persons and relationships of every flow as of tonight, and which of them lie in the vault already.

    A flow's tables are segments of their own, `persons/<agency>/<flow>` and `relationships/<agency>/<flow>`, so that a
    flow that says nothing new is neither read from the spool nor written again.  `contents` tells two full batches of
    one flow that say the same.  `carried` says which rows are those of the run in service, where they were read from
    its segments: no agency's word is taken for it.  `lengths` are the rows of each part.
    """

    persons: pa.Table
    relationships: pa.Table
    new: Mapping[str, pa.Table]
    unchanged: Mapping[str, str]  # part -> the segment of the run in service
    contents: Mapping[str, str]  # <agency>/<flow> -> digest, for a flow that is one full batch and nothing since
    lengths: Sequence[tuple[str, int]]
    carried: Carried | None


def inputs_of(tx: Reading, reception: Reception) -> Inputs:
    """What there is to link tonight; its fingerprint changes with any flow that has a new batch in."""
    revoked = {row.id for row in tx.all(AgencyRow) if row.state == "revoked"}
    sources: dict[Flow, tuple[bool, tuple[BatchRow, ...]]] = {}
    duplicates: set[Flow] = set()
    said: list[str] = [f"profile {reception.profile}"]
    for flow in tx.all(AgencyFlowRow, order=("agency", "flow")):
        last = tx.one(BatchRow, id=flow.last_batch) if flow.last_batch else None
        if flow.agency in revoked or last is None:
            continue
        new = tx.all(BatchRow, agency=flow.agency, flow=flow.flow, state="accepted", order=("sequence",))
        fulls = [at for at, batch in enumerate(new) if batch.kind == "full"]
        new = new[fulls[-1] :] if fulls else new
        sources[flow.agency, flow.flow] = (not fulls, tuple(new))
        if Manifest.parse(last.manifest).duplicates:
            duplicates.add((flow.agency, flow.flow))
        said.append(f"{flow.agency} {flow.flow} {last.id}")
    return Inputs(
        sources=sources,
        duplicates=frozenset(duplicates),
        fingerprint=sha256("\n".join(said).encode()).hexdigest(),
    )


def gather(vault: Vault, reception: Reception, inputs: Inputs, before: LinkRunRow | None) -> Gathered:
    """Persons and relationships of every flow as of tonight, tokens under the pepper, without `op`."""
    tables: dict[str, list[pa.Table]] = {name: [] for name in PARTS}
    new: dict[str, pa.Table] = {}
    unchanged: dict[str, str] = {}
    contents: dict[str, str] = {}
    known = before.counts.get("contents", {}) if before is not None else {}
    places: dict[str, Places] = {}
    for flow, (keep, batches) in inputs.sources.items():
        name = "/".join(flow)
        in_service = _in_service(before, name, reception.profile)
        content = _content(batches) if not keep else None if batches else known.get(name)
        if content is not None:
            contents[name] = content
        if in_service and (not batches or (content is not None and content == known.get(name))):
            unchanged |= in_service
            for part, segment in in_service.items():
                tables[part.partition("/")[0]].append(vault.read(segment))
                places[part] = np.arange(tables[part.partition("/")[0]][-1].num_rows)
            continue
        held = {part.partition("/")[0]: vault.read(segment) for part, segment in in_service.items()} if keep else {}
        flow_now = _Flow.of(held)
        for batch in batches:
            peppered = [
                _peppered(reception.keys, table, flow, reception.profile) for table in tables_of(reception, batch)
            ]
            flow_now = _Flow.of_all(*peppered) if flow_now is None else flow_now.changed(*peppered)
        if flow_now is not None:
            for part, table, at in zip(PARTS, flow_now.tables, flow_now.places, strict=True):
                new[f"{part}/{name}"] = table
                tables[part].append(table)
                places[f"{part}/{name}"] = at
    return Gathered(
        persons=pa.concat_tables([_stored(persons_schema(reception.profile)).empty_table(), *tables["persons"]]),
        relationships=pa.concat_tables([_stored(RELATIONSHIPS_SCHEMA).empty_table(), *tables["relationships"]]),
        new=new,
        unchanged=unchanged,
        contents=contents,
        lengths=[(part, len(at)) for part, at in places.items()],
        carried=_carried(places, before),
    )


def _carried(places: Mapping[str, Places], before: LinkRunRow | None) -> Carried | None:
    """By row of tonight's tables, its place in those of the run in service; None where their lengths are not known.

    `places` are within a flow's own segment; `lengths` of a run are in the order in which its tables held the flows.
    """
    lengths = before.counts.get("lengths") if before is not None else None
    if not lengths:
        return None
    found = {}
    for part in PARTS:
        start, starts = 0, {}
        for name, length in lengths:
            if name.startswith(f"{part}/"):
                starts[name] = start
                start += length
        mine = [np.where(at >= 0, at + starts.get(name, 0), -1)
                for name, at in places.items() if name.startswith(f"{part}/")]  # fmt: skip
        found[part] = np.concatenate([np.zeros(0, np.int64), *mine])
    return Carried(**found)


def _in_service(before: LinkRunRow | None, flow: str, profile: Profile) -> dict[str, str]:
    """The segments of a flow in the run in service, by part; empty if it was not there, or under another profile."""
    segments = before.segments if before is not None and before.counts.get("profile") == profile else {}
    found = {f"{part}/{flow}": segments.get(f"{part}/{flow}") for part in PARTS}
    return {part: segment for part, segment in found.items() if segment} if all(found.values()) else {}


def _content(batches: Sequence[BatchRow]) -> str | None:
    """The digest of what one full batch says; None for several batches."""
    if len(batches) != 1:
        return None
    manifest = Manifest.parse(batches[0].manifest)
    said = [manifest.profile, manifest.key_epoch, *(manifest.tables[name].sha256 for name in PARTS)]
    return sha256(" ".join(said).encode()).hexdigest()


def tables_of(reception: Reception, row: BatchRow) -> tuple[pa.Table, pa.Table]:
    """Persons and relationships of an accepted batch, from the spool.  Raises NotFound if it is not there whole."""
    manifest = Manifest.parse(row.manifest)
    key = reception.keys.data_key(row.dek_wrapped, row.id)
    with reception.spool.opened(row.id, manifest, key, tables=PARTS, checked=True) as (folder, wrong):
        if wrong:
            raise NotFound(f"batch {row.id}: {', '.join(wrong)} are not whole in the spool")
        profile = cast("Profile", row.profile)
        return (
            intake.read(folder, "persons", profile, limits=reception.limits),
            intake.read(folder, "relationships", profile, limits=reception.limits),
        )


def _stored(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*(field for field in schema if field.name != "op"), *SOURCE])


def _peppered(keys: Keys, table: pa.Table, flow: Flow, profile: Profile) -> pa.Table:
    """A wire table as the broker keeps it: every token under the pepper, and whose it is."""
    tokens = {f"t_{name}" for name in TOKENS[profile]} | {f"id_{name}" for name in IDENTIFIERS} | {"household"}
    for name in table.column_names:
        if name in tokens:
            table = table.set_column(table.column_names.index(name), name, keys.pepper(table[name]))
    for name, value in zip(("agency", "flow"), flow, strict=True):
        table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), table.num_rows))
    return table


@dataclass(frozen=True, slots=True)
class _Flow:
    """Persons and relationships of a flow, and which row of its segments in service each is, or -1."""

    tables: tuple[pa.Table, pa.Table]
    places: tuple[Places, Places]

    @classmethod
    def of(cls, held: Mapping[str, pa.Table]) -> _Flow | None:
        """What is in service, if anything is."""
        if not all(part in held for part in PARTS):
            return None
        people, relations = (held[part] for part in PARTS)
        return cls((people, relations), (np.arange(people.num_rows), np.arange(relations.num_rows)))

    @classmethod
    def of_all(cls, people: pa.Table, relations: pa.Table) -> _Flow:
        """A flow of which one batch says all."""
        upserts = _upserts(people), _upserts(relations)
        return cls(upserts, (np.full(upserts[0].num_rows, -1), np.full(upserts[1].num_rows, -1)))

    def changed(self, new_people: pa.Table, new_relations: pa.Table) -> _Flow:
        """The same after one more batch, a delta: it replaces the records that it names."""
        people, relations = self.tables
        gone = new_people.filter(pc.equal(new_people["op"], "delete"))["record_ref"]
        stay = pc.invert(pc.is_in(people["record_ref"], value_set=new_people["record_ref"]))
        both = pc.invert(pc.is_in(_relation(relations), value_set=_relation(new_relations)))
        for column in ("ref_a", "ref_b"):
            both = pc.and_(both, pc.invert(pc.is_in(relations[column], value_set=gone, skip_nulls=True)))
        new = _Flow.of_all(new_people, new_relations)
        kept = (people.filter(stay), relations.filter(both))
        tables = [pa.concat_tables(pair) for pair in zip(kept, new.tables, strict=True)]
        places = [
            np.concatenate([at[mask.to_numpy()], fresh])
            for at, mask, fresh in zip(self.places, (stay, both), new.places, strict=True)
        ]
        return _Flow((tables[0], tables[1]), (places[0], places[1]))


def _upserts(table: pa.Table) -> pa.Table:
    upsert = pc.equal(table["op"], "upsert")
    if not pc.all(upsert).as_py():  # a copy of all that a million rows hold is not made for nothing
        table = table.filter(upsert)
    return table.drop_columns(["op"])


def _relation(table: pa.Table) -> pa.ChunkedArray:
    """What a relationship is known by: both ends and its type, as one text."""
    parts = [table["ref_a"], table["ref_b"], table["household"].cast(pa.string()), table["type"]]
    return pc.binary_join_element_wise(*parts, "|", null_handling="replace", null_replacement="-")
