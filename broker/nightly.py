"""The night: what was sealed is decided, what was accepted is linked, and one transaction puts the result in service.

    claim -> gather -> link -> build -> check -> publish -> tidy

A run writes new segments and changes none.  Until the pointer is flipped, in one transaction with its event, searches
see the last good run; a run that was killed is discarded by the next one, with its segments; one that a gate refuses
leaves everything as it was.  Running twice is once: without a new batch there is nothing to do.
"""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from audit.events import Event, Json
from broker import clock, submissions
from broker.errors import BrokerError, Conflict, WrongState
from broker.keys import Keys
from broker.settings import Settings
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.batches import BatchRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.submissions import Reception
from broker.trail import Trail, new_event_id
from broker.vault import SegmentId, Vault
from linkage.matching.families import families
from linkage.matching.link import Linkage, link
from linkage.matching.model import BadModel, Model
from linkage.matching.overrides import Overrides
from linkage.records import IDENTIFIERS, RELATIONSHIPS_SCHEMA, TOKENS, Manifest, Profile, persons_schema

log = structlog.get_logger()

LEASE: Final = timedelta(minutes=30)
WARN_CHILDREN: Final = 150_000  # children under one key and epoch (linkage.md section 1.8)
MOST_CHILDREN: Final = 200_000
RATE_BAND: Final = 0.15  # share of records that share a person, against the run in service
RECORDS_BAND: Final = 0.50
ENOUGH: Final = 200  # records: below this no rate is judged
SOURCE: Final = [("agency", pa.string()), ("flow", pa.string())]

Flow = tuple[str, str]
"""Agency and flow."""


class Site(Protocol):
    """What a run needs of the broker."""

    @property
    def settings(self) -> Settings: ...
    @property
    def store(self) -> Store: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def vault(self) -> Vault: ...
    @property
    def trail(self) -> Trail: ...


class RunRefused(BrokerError):
    """A gate refused a run's result; the run before stays in service.  `code` says which gate."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def run(
    site: Site,
    *,
    night: date,
    at: datetime,
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    exception: bool = False,
) -> dict[str, Any]:
    """Decide what is sealed, link what is accepted, publish; what was done, as plain data.

    `exception`: the partnership has agreed in writing to more than 200,000 children under one key.
    Raises WrongState if another run is at work, RunRefused if a gate refuses the result.  Killed anywhere, it leaves
    the last good run in service and is begun again by the next call.
    """
    reception = Reception.of(site.settings, site.store, site.keys, site.trail)
    with _alone(site):
        decided = submissions.validate_sealed(reception)
        done: dict[str, Any] = {"night": night.isoformat(), "batches": _counted(decided.values())}
        _discard_unfinished(site)
        with site.store.reading() as tx:
            inputs = _inputs(tx, reception)
            published = tx.one(PublishedRow)
            before = tx.one(LinkRunRow, id=published.run) if published else None
        if not inputs.sources:
            done |= {"state": "nothing", "run": before.id if before else None}
        elif before is not None and before.counts.get("inputs") == inputs.fingerprint:
            done |= {"state": "unchanged", "run": before.id}
        else:
            done |= _one_run(site, reception, inputs, before, night=night, at=at, new_id=new_id, exception=exception)
        _tidy(site, reception)
        site.trail.advance_pending()
        return done


def _counted(states: Any) -> dict[str, int]:
    listed = sorted(states)
    return {state: listed.count(state) for state in listed}


@contextmanager
def _alone(site: Site) -> Iterator[None]:
    """One run a machine: the system lets go of the lock when the process ends, however it ends."""
    place = site.settings.data_dir / "nightly.lock"
    with place.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WrongState("another run is at work") from None
        yield


# --- What goes in ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """Which batches make up each flow: those in service already (None first), then what was accepted since."""

    sources: Mapping[Flow, tuple[bool, tuple[BatchRow, ...]]]  # flow -> (keep what is in service, batches in order)
    duplicates: frozenset[Flow]
    fingerprint: str

    @property
    def batches(self) -> tuple[BatchRow, ...]:
        """Every batch that this run puts into segments."""
        return tuple(batch for _, batches in self.sources.values() for batch in batches)


def _inputs(tx: Reading, reception: Reception) -> _Inputs:
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
    return _Inputs(sources=sources, duplicates=frozenset(duplicates), fingerprint=fingerprint)


def _gather(site: Site, reception: Reception, inputs: _Inputs, before: LinkRunRow | None) -> tuple[pa.Table, pa.Table]:
    """Persons and relationships of every flow as of tonight, tokens under the pepper, without `op`."""
    served: dict[str, pa.Table] = {}
    if before is not None:
        served = {name: site.vault.read(SegmentId(before.segments[name])) for name in ("persons", "relationships")}
    persons, relationships = [], []
    for flow, (keep, batches) in inputs.sources.items():
        held = tuple(_of_flow(served.get(name), flow) if keep else None for name in ("persons", "relationships"))
        people, relations = held
        for batch in batches:
            new_people, new_relations = (
                _peppered(site.keys, table, flow, reception.profile)
                for table in submissions.tables_of(reception, batch)
            )
            people, relations = _changed(people, relations, new_people, new_relations)
        persons.append(people)
        relationships.append(relations)
    schemas = (_stored(persons_schema(reception.profile)), _stored(RELATIONSHIPS_SCHEMA))
    return (
        pa.concat_tables([schemas[0].empty_table(), *(table for table in persons if table is not None)]),
        pa.concat_tables([schemas[1].empty_table(), *(table for table in relationships if table is not None)]),
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


# --- One run ---------------------------------------------------------------------------------------------------------


def _one_run(
    site: Site,
    reception: Reception,
    inputs: _Inputs,
    before: LinkRunRow | None,
    *,
    night: date,
    at: datetime,
    new_id: Callable[[], str],
    exception: bool,
) -> dict[str, Any]:
    row = _claim(site, inputs, before, night=night, at=at)
    try:
        persons, relationships = _gather(site, reception, inputs, before)
        _check_input(persons)
        _stage(site, row, "link")
        model, previous = _from_before(site, before)
        linkage = link(
            persons, duplicates=inputs.duplicates, model=model, previous=previous, households=relationships,
            new_id=new_id,
        )  # fmt: skip
        counts = _counts(persons, linkage, inputs)
        _gates(counts, before, linkage, exception=exception)
        _stage(site, row, "build")
        severed = Overrides().with_markers(persons)
        tables = {
            "persons": persons,
            "relationships": relationships,
            "clusters": linkage.clusters,
            "family": families(linkage.clusters, relationships, overrides=severed),
            "pairs": linkage.pairs,
            "reviews": linkage.reviews,
            "model": pa.table({"model": pa.array([linkage.model.canonical()], pa.binary())}),
        }
        segments = _build(site.vault, row.id, tables)
        model_sha256 = sha256(linkage.model.canonical()).hexdigest()
        _publish(site, row, inputs, segments=segments, counts=counts, model_sha256=model_sha256)
    except RunRefused as refused:
        _fail(site, row, refused.code)
        raise
    except Exception as wrong:
        _fail(site, row, type(wrong).__name__)
        raise
    log.info("linkage published", run=row.id, counts={name: counts[name] for name in ("records", "persons")})
    warnings = ["population"] if counts["children"] > WARN_CHILDREN else []
    return {"state": "published", "run": row.id, "counts": counts, "warnings": warnings}


def _claim(site: Site, inputs: _Inputs, before: LinkRunRow | None, *, night: date, at: datetime) -> LinkRunRow:
    row = LinkRunRow(
        id=new_event_id(),
        night=night,
        state="running",
        stage="gather",
        previous=before.id if before else None,
        segments={},
        counts={"inputs": inputs.fingerprint},
        holder=_holder(),
        lease_until=clock.now() + LEASE,
        started_at=at,
    )
    with site.store.transaction() as tx:
        tx.add(row)
        _record(site, tx, "linkage.run_started", row, outcome="running", batches=[b.id for b in inputs.batches][:50])
    return row


def _holder() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _discard_unfinished(site: Site) -> None:
    """Close what a killed run left: ours at once (we hold the machine's lock), another machine's when its lease ends.

    Raises WrongState while another machine's run has its lease.
    """
    host = socket.gethostname()
    with site.store.transaction() as tx:
        for row in tx.all(LinkRunRow, state=("running", "built")):
            if row.holder.rpartition(":")[0] != host and row.lease_until > clock.now():
                raise WrongState("a run of another machine is at work")
            row.state, row.failure, row.finished_at, row.fence = "failed", "killed", clock.now(), row.fence + 1
            tx.add(row)
            _record(site, tx, "linkage.run_failed", row, outcome="killed")


def _stage(site: Site, row: LinkRunRow, stage: str) -> None:
    """Say how far a run is, and keep its lease.  Raises Conflict if another has taken it over."""
    with site.store.transaction() as tx:
        held = _still_ours(tx, row)
        held.stage, held.lease_until = stage, clock.now() + LEASE
        tx.add(held)


def _still_ours(tx: Transaction, row: LinkRunRow) -> LinkRunRow:
    held = tx.one(LinkRunRow, id=row.id)
    if held is None or held.fence != row.fence or held.state not in ("running", "built"):
        raise Conflict("another run has taken over")
    return held


def _fail(site: Site, row: LinkRunRow, code: str) -> None:
    with site.store.transaction() as tx:
        held = tx.one(LinkRunRow, id=row.id)
        if held is not None and held.state in ("running", "built") and held.fence == row.fence:
            held.state, held.failure, held.finished_at = "failed", code, clock.now()
            tx.add(held)
            _record(site, tx, "linkage.run_failed", held, outcome=code)
    log.error("linkage run failed", run=row.id, code=code)


def _from_before(site: Site, before: LinkRunRow | None) -> tuple[Model | None, pa.Table | None]:
    """The frozen model and the clusters of the run in service; a model of another version is trained anew."""
    if before is None:
        return None, None
    clusters = site.vault.read(SegmentId(before.segments["clusters"]))
    try:
        return Model.parse(site.vault.read(SegmentId(before.segments["model"]))["model"][0].as_py()), clusters
    except BadModel:
        return None, clusters


def _check_input(persons: pa.Table) -> None:
    if persons.num_rows == 0:
        raise RunRefused("empty_input", "no flow holds anybody: nothing to link")


def _counts(persons: pa.Table, linkage: Linkage, inputs: _Inputs) -> dict[str, Any]:
    """Numbers of a run; nothing about one person."""
    sizes = linkage.clusters["person_id"].value_counts().field("counts").to_pylist()
    children = persons.filter(pc.field("person_role") == "child").select(["agency", "flow", "record_ref"])
    keys = ["agency", "flow", "record_ref"]
    of_children = linkage.clusters.join(children.group_by(keys).aggregate([]), keys=keys, join_type="inner")
    report = linkage.report
    return {
        "inputs": inputs.fingerprint,
        "flows": sorted("/".join(flow) for flow in inputs.sources),
        "batches": len(inputs.batches),
        "records": report.records,
        "rows": report.rows,
        "persons": report.persons,
        "children": len(of_children["person_id"].unique()),
        "linked_records": sum(size for size in sizes if size > 1),
        "candidate_pairs": report.candidate_pairs,
        "match_pairs": report.match_pairs,
        "possible_pairs": report.possible_pairs,
        "reviews": report.reviews,
        "capped_blocks": dict(report.capped_blocks),
        "over_shared": dict(report.over_shared),
        "merges": sum(event.kind == "merge" for event in report.events),
        "splits": sum(event.kind == "split" for event in report.events),
    }


def _gates(counts: Mapping[str, Any], before: LinkRunRow | None, linkage: Linkage, *, exception: bool) -> None:
    """Raise RunRefused for a result that must not be served."""
    if linkage.clusters.num_rows != counts["records"] or not counts["records"]:
        raise RunRefused("incomplete", "not every record is in the result")
    if linkage.report.severed_meetings:
        raise RunRefused("severed_joined", "a severed pair shares a person")
    if counts["children"] > MOST_CHILDREN and not exception:
        raise RunRefused("population", f"more than {MOST_CHILDREN:,} children are under one key and epoch")
    if before is None or before.counts.get("flows") != counts["flows"] or before.counts["records"] < ENOUGH:
        return
    was, now = (found["linked_records"] / found["records"] for found in (before.counts, counts))
    if abs(now - was) > RATE_BAND:
        raise RunRefused("link_rate", f"{now:.0%} of records share a person, against {was:.0%} in service")
    if abs(counts["records"] / before.counts["records"] - 1) > RECORDS_BAND:
        raise RunRefused("records", "the number of records is another order than in service")


def _build(vault: Vault, run_id: str, tables: Mapping[str, pa.Table]) -> dict[str, str]:
    """Write the run's segments; on return each is on disk and was read back, equal."""
    segments: dict[str, str] = {}
    for name, table in tables.items():
        segments[name] = vault.write(f"{name}-{run_id[:12]}", table)
    for name, segment in segments.items():
        if not vault.read(SegmentId(segment)).equals(tables[name]):
            raise RunRefused("unreadable_segment", f"segment {name} does not read back as it was written")
    return segments


def _publish(
    site: Site,
    row: LinkRunRow,
    inputs: _Inputs,
    *,
    segments: Mapping[str, str],
    counts: Mapping[str, Any],
    model_sha256: str,
) -> None:
    """Put a run in service: pointer, batches, run and event, in one transaction."""
    at = clock.now()
    with site.store.transaction() as tx:
        held = _still_ours(tx, row)
        held.segments, held.counts, held.model_sha256 = dict(segments), dict(counts), model_sha256
        held.state, held.stage, held.finished_at, held.published_at = "published", "", at, at
        tx.add(held)
        pointer = tx.one(PublishedRow)
        if pointer is None:
            pointer = PublishedRow(id=1, run=held.id, version=1, at=at)
        else:
            if pointer.run != row.previous:
                raise Conflict("another run was published meanwhile")
            pointer.run, pointer.version, pointer.at = held.id, pointer.version + 1, at
        tx.flush()
        tx.add(pointer)
        _batches_in_service(tx, inputs, held.id)
        for older in tx.all(LinkRunRow, state="published"):
            if older.id not in (held.id, held.previous):
                older.state = "retired"
                tx.add(older)
        _record(
            site, tx, "linkage.published", held, outcome="published", model_sha256=model_sha256,
            counts={name: counts[name] for name in ("records", "persons", "match_pairs", "reviews")},
        )  # fmt: skip


def _batches_in_service(tx: Transaction, inputs: _Inputs, run_id: str) -> None:
    for batch in inputs.batches:
        held = tx.one(BatchRow, id=batch.id)
        if held is None or held.state not in ("accepted", "superseded"):
            raise Conflict("a batch of this run has changed meanwhile")
        for earlier in tx.all(BatchRow, agency=batch.agency, flow=batch.flow, state="linked"):
            if earlier.sequence < batch.sequence and batch.kind == "full":
                earlier.state = "superseded"
                tx.add(earlier)
        held.linked_run = run_id
        if held.state == "accepted":  # else a later night came in while we were linking
            held.state = "linked"
        tx.add(held)


def _record(site: Site, tx: Transaction, type_: str, row: LinkRunRow, *, outcome: str, **what: Json) -> None:
    event = Event(
        id=new_event_id(),
        type=type_,
        who={"organisation": site.settings.partnership, "method": "nightly"},
        what={"run": row.id, "night": row.night.isoformat(), "outcome": outcome, **what},
        why={},
        detail={},
    )
    site.trail.record(tx, event)


# --- Afterwards ------------------------------------------------------------------------------------------------------


def _tidy(site: Site, reception: Reception) -> None:
    """Delete segments that neither the run in service nor the one before needs, and spooled tables now in service.

    A batch that was accepted, or waits, keeps its chunks until a run that holds it is published.
    """
    with site.store.reading() as tx:
        published = tx.one(PublishedRow)
        keep: set[str] = set()
        run_id: str | None = published.run if published else None
        for _ in range(2):
            row = tx.one(LinkRunRow, id=run_id) if run_id else None
            if row is not None:
                keep.update(row.segments.values())
                run_id = row.previous
        spooled = sorted(reception.spool.batches())
        needed = {
            row.id
            for row in _rows_of(tx, spooled)
            if row.state in ("open", "sealed", "validating", "quarantined", "accepted")
        }
    site.vault.sweep(frozenset(keep))
    for batch in spooled:
        if batch not in needed:
            reception.spool.drop(batch)


def _rows_of(tx: Reading, batches: Sequence[str]) -> list[BatchRow]:
    return [row for batch in batches if (row := tx.one(BatchRow, id=batch)) is not None]
