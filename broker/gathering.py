"""What a night links: which batches make up each flow, and their persons and relationships as the broker keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import NotFound
from broker.keys import Keys
from broker.reception import Reception
from broker.store import Reading
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.batches import BatchRow
from broker.store.runs import LinkRunRow
from broker.vault import SegmentId, Vault
from linkage.matching import intake
from linkage.records import IDENTIFIERS, RELATIONSHIPS_SCHEMA, TOKENS, Manifest, Profile, persons_schema

SOURCE: Final = [("agency", pa.string()), ("flow", pa.string())]

Flow = tuple[str, str]
"""Agency and flow."""


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
    fingerprint = sha256("\n".join(said).encode()).hexdigest()
    return Inputs(sources=sources, duplicates=frozenset(duplicates), fingerprint=fingerprint)


def gather(vault: Vault, reception: Reception, inputs: Inputs, before: LinkRunRow | None) -> tuple[pa.Table, pa.Table]:
    """Persons and relationships of every flow as of tonight, tokens under the pepper, without `op`."""
    served: dict[str, pa.Table] = {}
    if before is not None:
        served = {name: vault.read(SegmentId(before.segments[name])) for name in ("persons", "relationships")}
    persons, relationships = [], []
    for flow, (keep, batches) in inputs.sources.items():
        held = tuple(_of_flow(served.get(name), flow) if keep else None for name in ("persons", "relationships"))
        people, relations = held
        for batch in batches:
            new_people, new_relations = (
                _peppered(reception.keys, table, flow, reception.profile) for table in tables_of(reception, batch)
            )
            people, relations = _changed(people, relations, new_people, new_relations)
        persons.append(people)
        relationships.append(relations)
    schemas = (_stored(persons_schema(reception.profile)), _stored(RELATIONSHIPS_SCHEMA))
    return (
        pa.concat_tables([schemas[0].empty_table(), *(table for table in persons if table is not None)]),
        pa.concat_tables([schemas[1].empty_table(), *(table for table in relationships if table is not None)]),
    )


def tables_of(reception: Reception, row: BatchRow) -> tuple[pa.Table, pa.Table]:
    """Persons and relationships of an accepted batch, from the spool.  Raises NotFound if it is not there whole."""
    manifest = Manifest.parse(row.manifest)
    key = reception.keys.data_key(row.dek_wrapped, row.id)
    with reception.spool.opened(row.id, manifest, key) as (folder, wrong):
        if wrong:
            raise NotFound(f"batch {row.id}: {', '.join(wrong)} are not whole in the spool")
        profile = cast("Profile", row.profile)
        return (
            intake.read(folder, "persons", profile, limits=reception.limits),
            intake.read(folder, "relationships", profile, limits=reception.limits),
        )


def _stored(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*(field for field in schema if field.name != "op"), *SOURCE])


def _of_flow(table: pa.Table | None, flow: Flow) -> pa.Table | None:
    if table is None:
        return None
    return table.filter((pc.field("agency") == flow[0]) & (pc.field("flow") == flow[1]))


def _peppered(keys: Keys, table: pa.Table, flow: Flow, profile: Profile) -> pa.Table:
    """A wire table as the broker keeps it: every token under the pepper, and whose it is."""
    tokens = {f"t_{name}" for name in TOKENS[profile]} | {f"id_{name}" for name in IDENTIFIERS} | {"household"}
    for name in table.column_names:
        if name in tokens:
            table = table.set_column(table.column_names.index(name), name, keys.pepper(table[name]))
    for name, value in zip(("agency", "flow"), flow, strict=True):
        table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
    return table


def _changed(
    people: pa.Table | None, relations: pa.Table | None, new_people: pa.Table, new_relations: pa.Table
) -> tuple[pa.Table, pa.Table]:
    """A flow after one more batch.  After a full one nothing is held; a delta replaces the records it names."""
    gone = new_people.filter(pc.field("op") == "delete")["record_ref"]
    if people is not None:
        people = people.filter(pc.invert(pc.is_in(people["record_ref"], value_set=new_people["record_ref"])))
    if relations is not None:
        named = {_relation(row) for row in new_relations.to_pylist()}
        keep = [_relation(row) not in named for row in relations.to_pylist()]
        relations = relations.filter(pa.array(keep, pa.bool_()))
        for column in ("ref_a", "ref_b"):
            led = pc.fill_null(pc.is_in(relations[column], value_set=gone), False)
            relations = relations.filter(pc.invert(led))
    upserts = [table.filter(pc.field("op") == "upsert").drop_columns(["op"]) for table in (new_people, new_relations)]
    return (
        upserts[0] if people is None else pa.concat_tables([people, upserts[0]]),
        upserts[1] if relations is None else pa.concat_tables([relations, upserts[1]]),
    )


def _relation(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["ref_a"], row["ref_b"], row["household"], row["type"]
