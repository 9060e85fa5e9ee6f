"""What a night links: which batches make up each flow, and their persons and relationships as the broker keeps them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from broker.errors import NotFound, WrongState
from broker.keys import Keys
from broker.reception import Reception
from broker.store import Reading
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.batches import BatchRow
from broker.store.erasures import Barred
from broker.store.runs import LinkRunRow
from broker.vault import GONE, OTHERS, Vault
from linkage.matching import intake
from linkage.matching.arrays import looked_up
from linkage.matching.lazily import Lazy, Piece
from linkage.matching.numbering import Before, Carried, name_digests
from linkage.matching.texts import texts_among, whole
from linkage.records import (
    IDENTIFIERS,
    RELATIONSHIPS_SCHEMA,
    TOKENS,
    BadManifest,
    Manifest,
    Profile,
    Table,
    persons_schema,
)

log = structlog.get_logger()
SOURCE: Final = [("agency", pa.string()), ("flow", pa.string())]
PARTS: Final[tuple[Table, ...]] = ("persons", "relationships")
MOST_PIECES: Final = 12  # of a flow's table: one more delta, and all is written as one
GONE_SHARE: Final = 8  # and if one row in so many counts no more

Flow = tuple[str, str]
"""Agency and flow."""
Since = Callable[[BatchRow, pa.Table, pa.Table], tuple[pa.Table, pa.Table]]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Which batches make up each flow: those in service already (None first), then what was accepted since.

    `barred`: who was erased; no record of theirs is linked, whoever sends it again, until two people have lifted that.
    """

    sources: Mapping[Flow, tuple[bool, tuple[BatchRow, ...]]]  # flow -> (keep what is in service, batches in order)
    duplicates: frozenset[Flow]
    fingerprint: str
    epoch: str = ""  # of the linkage key that all of them are encoded under
    barred: Barred = field(default_factory=lambda: Barred({}, {}))

    @property
    def batches(self) -> tuple[BatchRow, ...]:
        """Every batch that this run puts into segments."""
        return tuple(batch for _, batches in self.sources.values() for batch in batches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Persons and relationships of every flow as of tonight, and which of them lie in the vault already.

    A flow's tables are segments of their own, `persons/<agency>/<flow>` and `relationships/<agency>/<flow>`; a delta is
    one more, `persons/<agency>/<flow>/<number>`, and `gone/persons/<agency>/<flow>` says which rows of them all count
    no more.  So what an agency did not send is neither read whole nor written again, until MOST_PIECES or too many gone
    rows make one of them.  `contents` tells two full batches of one flow that say the same.  `carried` says which rows
    are those of the run in service, where they were read from its segments: no agency's word is taken for it.
    `lengths` are the rows of each flow's part.
    """

    persons: Lazy
    relationships: Lazy
    new: Mapping[str, pa.Table]
    unchanged: Mapping[str, str]  # part -> the segment of the run in service
    contents: Mapping[str, str]  # <agency>/<flow> -> digest, for a flow that is one full batch and nothing since
    lengths: Sequence[tuple[str, int]]
    carried: Carried | None


def inputs_of(
    tx: Reading, reception: Reception, *, shadow: str = "", back_to: Mapping[Flow, str] | None = None
) -> Inputs:
    """What there is to link tonight; its fingerprint changes with any flow that has a new batch in, or an erasure.

    Or the `shadow` set of the epoch of that name, which the nights do not see: of each flow the last batch of it; or
    the encodings that were in service when these batches were the last of their flows.  The fingerprint is that of the
    nights once the set is in service.
    """
    taking_part = [row for row in tx.all(AgencyRow) if row.state != "revoked"]
    known = {row.key_epoch for row in taking_part}
    partners = {row.id for row in taking_part}
    sources: dict[Flow, tuple[bool, tuple[BatchRow, ...]]] = {}
    duplicates: set[Flow] = set()
    said: list[str] = [f"profile {reception.profile}"]
    for flow in tx.all(AgencyFlowRow, order=("agency", "flow")):
        accepted = tx.all(
            BatchRow, agency=flow.agency, flow=flow.flow, shadow=shadow, state="accepted", order=("sequence",)
        )
        new: list[BatchRow]
        if back_to is not None:
            new, last_id = [], back_to.get((flow.agency, flow.flow))
        else:
            new, last_id = (accepted[-1:], accepted[-1].id) if shadow and accepted else (accepted, flow.last_batch)
        last = tx.one(BatchRow, id=last_id) if last_id else None
        if flow.agency not in partners or last is None or (shadow and not new):
            continue
        fulls = [at for at, batch in enumerate(new) if batch.kind == "full"]
        new = new[fulls[-1] :] if fulls else new
        sources[flow.agency, flow.flow] = (not fulls, tuple(new))
        try:
            manifest = Manifest.parse(last.manifest)
        except BadManifest:
            raise WrongState(f"the last batch of {flow.agency}/{flow.flow} {OTHERS}") from None
        if manifest.duplicates:
            duplicates.add((flow.agency, flow.flow))
        said.append(f"{flow.agency} {flow.flow} {last.id}")
    barred = Barred.of(tx)
    said += sorted(f"erased {index} {at.isoformat()}" for index, times in barred.erased.items() for at in times)
    return Inputs(
        sources=sources,
        duplicates=frozenset(duplicates),
        fingerprint=sha256("\n".join(said).encode()).hexdigest(),
        epoch=shadow or (known.pop() if len(known) == 1 else ""),
        barred=barred,
    )


def gather(
    vault: Vault,
    reception: Reception,
    inputs: Inputs,
    before: LinkRunRow | None,
    numbered: Before | None = None,
    *,
    since: Since = lambda _, *tables: tables,
) -> Gathered:
    """Persons and relationships of every flow as of tonight, tokens under the pepper, without `op` and the erased.

    `numbered` is what the run in service kept of the numbers of its records: with it no name is read that is not new.
    `since` gives a batch's tables as they are to be taken for what has happened since it was made.
    """
    pieces: dict[str, list[Piece]] = {name: [] for name in PARTS}
    new: dict[str, pa.Table] = {}
    unchanged: dict[str, str] = {}
    contents: dict[str, str] = {}
    contents_then = before.counts.get("contents", {}) if before is not None else {}
    places: dict[str, Places] = {}
    for flow, (keep, batches) in inputs.sources.items():
        name = "/".join(flow)
        in_service = _in_service(before, name, reception.profile)
        content = _content(batches, inputs.barred) if not keep else None if batches else contents_then.get(name)
        if content is not None:
            contents[name] = content
        as_it_was = in_service and (not batches or (content is not None and content == contents_then.get(name)))
        known = _Known.of(before, numbered, flow)
        flow_now = _Flow.of(vault, in_service, flow, known) if in_service and (keep or as_it_was) else None
        if flow_now is not None and (erased := _erased_since(reception.keys, inputs.barred, before, flow, flow_now)):
            flow_now = flow_now.less(erased)
            log.info("records of the erased are dropped", agency=flow[0], flow=flow[1], rows=len(erased))
        for batch in () if as_it_was else batches:
            said = _let_in(reception.keys, inputs.barred, batch, *tables_of(reception, batch))
            tables = since(batch, *said)
            if any(one is not other for one, other in zip(tables, said, strict=True)):
                contents.pop(name, None)  # what is linked is not what the batch says: another that says so is news
            peppered = [_peppered(reception.keys, table, flow, reception.profile) for table in tables]
            flow_now = _Flow.of_all(*peppered) if flow_now is None else flow_now.changed(*peppered)
        for part, one in zip(PARTS, flow_now.parts, strict=True) if flow_now is not None else ():
            kept, written = one.segments(f"{part}/{name}", in_service)
            unchanged |= kept
            new |= written
            pieces[part] += one.pieces()
            places[f"{part}/{name}"] = one.places
    return Gathered(
        persons=Lazy(_stored(persons_schema(reception.profile)), pieces["persons"]),
        relationships=Lazy(_stored(RELATIONSHIPS_SCHEMA), pieces["relationships"]),
        new=new,
        unchanged=unchanged,
        contents=contents,
        lengths=[(part, len(at)) for part, at in places.items()],
        carried=_carried(places, before),
    )


def _erased_since(keys: Keys, barred: Barred, before: LinkRunRow | None, flow: Flow, now: _Flow) -> frozenset[str]:
    """The records of a flow in service that were erased since: a lift does not bring back what was taken in before."""
    since = barred.since(before.started_at) if before is not None else frozenset(barred.erased)
    if not since:
        return frozenset()
    people = now.parts[0]
    refs = Lazy(people.fresh.schema, people.pieces())["record_ref"].to_pylist()
    return frozenset(ref for ref in refs if keys.subject_index(f"{flow[0]}/{flow[1]}/{ref}") in since)


def _let_in(
    keys: Keys, barred: Barred, batch: BatchRow, people: pa.Table, relations: pa.Table
) -> tuple[pa.Table, pa.Table]:
    """A batch's tables without the records of the erased, and what ties anybody to them."""
    taken_in = batch.decided_at or batch.opened_at
    if not barred:
        return people, relations
    place = f"{batch.agency}/{batch.flow}"
    refs = pc.unique(people["record_ref"]).to_pylist()
    out = [ref for ref in refs if barred.out(keys.subject_index(f"{place}/{ref}"), taken_in)]
    if not out:
        return people, relations
    log.info("records of the erased are left out", agency=batch.agency, flow=batch.flow, rows=len(out))
    return without(people, relations, pa.array(out, pa.string()))


def without(people: pa.Table, relations: pa.Table, gone: pa.Array) -> tuple[pa.Table, pa.Table]:
    """A batch's tables without these records and what ties anybody to them."""
    tied = pc.or_(*(pc.is_in(relations[end], value_set=gone) for end in ("ref_a", "ref_b")))
    return people.filter(pc.invert(pc.is_in(people["record_ref"], value_set=gone))), relations.filter(pc.invert(tied))


def _carried(places: Mapping[str, Places], before: LinkRunRow | None) -> Carried | None:
    """By row of tonight's tables, its place in those of the run in service; None where their lengths are not known.

    `places` are within a flow's own segment; `lengths` of a run are in the order in which its tables held the flows.
    """
    lengths = before.counts.get("lengths") if before is not None else None
    if not lengths:
        return None
    found = {}
    starts = _starts(lengths)
    for part in PARTS:
        mine = [np.where(at >= 0, at + starts.get(name, 0), -1)
                for name, at in places.items() if name.startswith(f"{part}/")]  # fmt: skip
        found[part] = np.concatenate([np.zeros(0, np.int64), *mine])
    return Carried(**found)


def _starts(lengths: Sequence[tuple[str, int]]) -> dict[str, int]:
    """By part and flow, where its rows began in the tables of a run."""
    starts, ends = {}, dict.fromkeys(PARTS, 0)
    for name, length in lengths:
        for part in PARTS:
            if name.startswith(f"{part}/"):
                starts[name] = ends[part]
                ends[part] += length
    return starts


def _in_service(before: LinkRunRow | None, flow: str, profile: Profile) -> dict[str, str]:
    """The segments of a flow in the run in service, by part; empty if it was not there, or under another profile."""
    segments = before.segments if before is not None and before.counts.get("profile") == profile else {}
    if not all(f"{part}/{flow}" in segments for part in PARTS):
        return {}
    names = [f"{prefix}{part}/{flow}" for part in PARTS for prefix in ("", GONE)]
    return {
        part: segment
        for part, segment in segments.items()
        if part in names or (part.rpartition("/")[0] in names and part.rpartition("/")[2].isdigit())
    }


def _content(batches: Sequence[BatchRow], barred: Barred) -> str | None:
    """The digest of what one full batch says, and of the lifts before it; None for several batches."""
    if len(batches) != 1:
        return None
    manifest = Manifest.parse(batches[0].manifest)
    said = [manifest.profile, manifest.key_epoch, *(manifest.tables[name].sha256 for name in PARTS)]
    said += barred.lifts(batches[0].decided_at or batches[0].opened_at)
    return sha256(" ".join(said).encode()).hexdigest()


def tables_of(reception: Reception, row: BatchRow) -> tuple[pa.Table, pa.Table]:
    """Persons and relationships of an accepted batch, from the spool.  Raises NotFound if it is not there whole."""
    manifest = Manifest.parse(row.manifest)
    key = reception.keys.data_key(row.dek_wrapped, row.id)
    with reception.spool.opened(row.id, manifest, key, tables=PARTS, checked=True) as (folder, wrong):
        if wrong:
            raise NotFound(f"batch {row.id}: {', '.join(wrong)} are not whole in the spool")
        profile = cast("Profile", row.profile)
        try:
            people, relations = intake.read_all(folder, PARTS, profile, limits=reception.limits)
        except intake.NoRoom as wrong:
            raise WrongState(f"batch {row.id}: {wrong}; raise query_memory_mb") from None
        return people, relations


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
class _Part:
    """A table of one flow: rows of segments in service that still count, then new ones; by row its place among those
    that counted in the run in service, or -1."""

    old: tuple[Piece, ...]
    fresh: pa.Table
    places: Places
    counted: int = 0  # rows in the run in service

    @classmethod
    def of(cls, vault: Vault, in_service: Mapping[str, str], name: str, flow: Flow) -> _Part:
        """What is in service."""
        opened = [vault.open(in_service[part]) for part in sorted(in_service) if f"{part}/".startswith(f"{name}/")]
        gone = in_service.get(f"{GONE}{name}")
        there = np.ones(sum(one.rows for one in opened), np.bool_)
        if gone is not None:
            there[vault.read(gone)["row"].to_numpy()] = False
        same = dict(zip(("agency", "flow"), flow, strict=True))
        pieces, start = [], 0
        for one in opened:
            mine = there[start : start + one.rows]
            live = None if mine.all() else np.flatnonzero(mine)
            pieces.append(Piece(read=one.reader(), rows=one.rows, live=live, same=same))
            start += one.rows
        count = int(there.sum())
        return cls(tuple(pieces), opened[0].schema.empty_table(), np.arange(count), count)

    def pieces(self) -> list[Piece]:
        return [*self.old, Piece.of(self.fresh)] if self.fresh.num_rows or not self.old else list(self.old)

    def rows(self) -> Lazy:
        """All rows."""
        return Lazy(self.fresh.schema, [*self.old, Piece.of(self.fresh)])

    def without(self, gone: Flags, new: pa.Table) -> _Part:
        """Less the rows that are `gone`, and with new ones."""
        old, start = [], 0
        for piece in self.old:
            stay = ~gone[start : start + len(piece)]
            rows = np.arange(piece.rows) if piece.live is None else piece.live
            old.append(piece if stay.all() else replace(piece, live=rows[stay]))
            start += len(piece)
        stay = ~gone[start:]
        fresh = self.fresh if stay.all() else self.fresh.filter(pa.array(stay))
        places = np.concatenate([self.places[~gone], np.full(new.num_rows, -1)])
        return _Part(tuple(old), pa.concat_tables([fresh, new]), places, self.counted)

    def anew(self) -> _Part:
        """The same as one table that is written whole."""
        return _Part((), Lazy(self.fresh.schema, self.pieces()).whole(), self.places)

    def segments(self, name: str, in_service: Mapping[str, str]) -> tuple[dict[str, str], dict[str, pa.Table]]:
        """Which segments in service are still of this table, and what to write of it."""
        kept = {part: segment for part, segment in in_service.items() if f"{part}/".startswith(f"{name}/")}
        gone_part = f"{GONE}{name}"
        if self.old and not self.fresh.num_rows and len(self.places) == self.counted:  # nothing is new, nothing gone
            return kept | {part: in_service[part] for part in in_service if part == gone_part}, {}
        lying, counting = sum(piece.rows for piece in self.old), sum(map(len, self.old))
        if not self.old or len(self.old) + 1 > MOST_PIECES or (lying - counting) * GONE_SHARE > lying:
            return {}, {name: Lazy(self.fresh.schema, self.pieces()).whole()}
        written = {f"{name}/{len(self.old):03d}": self.fresh} if self.fresh.num_rows else {}
        if lying > counting:
            gone, start = [np.zeros(0, np.int64)], 0
            for piece in self.old:
                if piece.live is not None:
                    gone.append(start + np.setdiff1d(np.arange(piece.rows), piece.live, assume_unique=True))
                start += piece.rows
            rows = np.concatenate(gone)
            written[gone_part] = pa.table({"row": pa.array(rows.astype(np.int32))})
        return kept, written


@dataclass(frozen=True, slots=True)
class _Known:
    """The records of a flow's rows in service, by number: as the run in service kept them."""

    before: Before
    flow: Flow
    people: int  # where the flow's rows of persons began, and those of relationships
    relations: int

    @classmethod
    def of(cls, before: LinkRunRow | None, numbered: Before | None, flow: Flow) -> _Known | None:
        """None where the run numbered other rows than it keeps."""
        lengths = before.counts.get("lengths") if before is not None else None
        if not lengths or numbered is None:
            return None
        starts = _starts(lengths)
        counts = {part: sum(n for name, n in lengths if name.startswith(f"{part}/")) for part in PARTS}
        if counts != {"persons": len(numbered.rec), "relationships": len(numbered.ends.a)}:
            return None
        people, relations = (starts.get(f"{part}/{'/'.join(flow)}", 0) for part in PARTS)
        return cls(numbered, flow, people, relations)

    def records(self, refs: pa.Array) -> Places:
        """The records that these are in this flow, or -1."""
        agency, flow = (pa.chunked_array([pa.repeat(pa.scalar(one, pa.string()), len(refs))]) for one in self.flow)
        first, second = name_digests(agency, flow, pa.chunked_array([whole(refs)]))
        found = looked_up(self.before.name[0], first)
        found[(found >= 0) & (self.before.name[1][found] != second)] = -1
        return found

    def among(self, refs: pa.Array) -> Flags:
        """By record, and last for none: whether it is one of these in this flow."""
        found = np.zeros(len(self.before.source) + 1, np.bool_)
        found[self.records(refs)] = True
        found[-1] = False
        return found


@dataclass(frozen=True, slots=True)
class _Flow:
    """Persons and relationships of a flow; `known` of its rows in service, if those are numbered."""

    parts: tuple[_Part, _Part]
    known: _Known | None = None

    @classmethod
    def of(cls, vault: Vault, in_service: Mapping[str, str], flow: Flow, known: _Known | None) -> _Flow:
        """What is in service."""
        people, relations = (_Part.of(vault, in_service, f"{part}/{'/'.join(flow)}", flow) for part in PARTS)
        return cls((people, relations), known)

    @classmethod
    def of_all(cls, people: pa.Table, relations: pa.Table) -> _Flow:
        """A flow of which one batch says all."""
        one, other = (_Part((), table, np.full(table.num_rows, -1)) for table in map(_upserts, (people, relations)))
        return cls((one, other))

    def changed(self, new_people: pa.Table, new_relations: pa.Table) -> _Flow:
        """The same after one more batch, a delta: it replaces the records that it names."""
        people, relations = self.parts
        named = whole(pc.unique(new_people["record_ref"]))
        gone = whole(pc.unique(new_people.filter(pc.equal(new_people["op"], "delete"))["record_ref"]))
        one, other = (
            people.without(self._named(named), _upserts(new_people)),
            relations.without(self._unsaid(gone, new_relations), _upserts(new_relations)),
        )
        return _Flow((one, other), self.known)

    def _named(self, refs: pa.Array) -> Flags:
        """The rows of persons that are of one of these records."""
        people, known = self.parts[0], self.known
        if known is None:
            return _is_in(people.rows(), "record_ref", refs)
        old = people.places[: len(people.places) - people.fresh.num_rows]
        fresh = pc.is_in(people.fresh["record_ref"], value_set=refs).to_numpy()
        return np.concatenate([known.among(refs)[known.before.rec[known.people + old]], fresh])

    def _unsaid(self, gone: pa.Array, said: pa.Table) -> Flags:
        """The relationships of records that are gone, and those that are said again, or taken back."""
        relations, known = self.parts[1], self.known
        rows = relations.rows()
        if known is None:
            return _unsaid(rows, np.arange(rows.num_rows), gone, said)
        at = known.relations + relations.places[: len(relations.places) - relations.fresh.num_rows]
        ends = known.before.ends
        a, b, lived = ends.a[at], ends.b[at], ends.lived[at]
        away, begins = known.among(gone), known.among(pc.unique(said["ref_a"]))
        found = np.concatenate([away[a] | away[b], np.zeros(relations.fresh.num_rows, np.bool_)])
        maybe = np.flatnonzero(begins[a] & ~found[: len(at)] & (lived | (b >= 0)))
        kinds = rows.rows_at(maybe, ["type"])["type"].to_pylist()
        ours = zip(a[maybe].tolist(), b[maybe].tolist(), ends.home[at[maybe]].tolist(), kinds, strict=True)
        home = pc.if_else(pc.equal(said["type"], "household"), pc.fill_null(said["household"], 0), 0).to_pylist()
        others = np.full(said.num_rows, -1, np.int64)
        two = pc.is_valid(said["ref_b"]).to_numpy()
        others[two] = known.records(said["ref_b"].drop_null())
        told = zip(known.records(said["ref_a"]).tolist(), others.tolist(), home, said["type"].to_pylist(), strict=True)
        theirs = {each for each in told if each[0] >= 0}
        again = [row for row, each in zip(maybe.tolist(), ours, strict=True) if each in theirs]
        found[again] = True
        unknown = np.flatnonzero((a < 0) | (~lived & (b < 0)))
        some = np.concatenate([unknown, np.arange(len(at), len(found))])
        found[some] |= _unsaid(rows, some, gone, said)
        return found

    def less(self, refs: Collection[str]) -> _Flow:
        """The same without these records and what ties anybody to them, written anew: no byte of theirs is kept."""
        people, relations = self.parts
        gone = pa.array(sorted(refs), pa.string())
        rows = relations.rows()
        tied = _is_in(rows, "ref_a", gone) | _is_in(rows, "ref_b", gone)
        mine = _is_in(people.rows(), "record_ref", gone)
        one, other = (
            people.without(mine, people.fresh.schema.empty_table()).anew(),
            relations.without(tied, relations.fresh.schema.empty_table()).anew(),
        )
        return _Flow((one, other))


def _unsaid(rows: Lazy, some: npt.NDArray[np.int64], gone: pa.Array, said: pa.Table) -> Flags:
    """The same of some rows, by the names in them."""
    held = rows.rows_at(some, RELATION)
    found = pc.or_(*(pc.fill_null(pc.is_in(held[end], value_set=gone), False) for end in ("ref_a", "ref_b")))
    again = pc.is_in(_relation(held), value_set=whole(pc.unique(_relation(said))))
    return np.asarray(pc.or_(found, again).to_numpy(), np.bool_)


def _is_in(rows: Lazy, column: str, values: pa.Array) -> Flags:
    """Of which rows a column is one of these values."""
    found = [np.zeros(0, np.bool_)]
    for piece in rows.pieces:
        every = texts_among(piece.read(column, True), values)
        found.append(every if piece.live is None else every[piece.live])
    return np.concatenate(found)


def _upserts(table: pa.Table) -> pa.Table:
    upsert = pc.equal(table["op"], "upsert")
    if not pc.all(upsert).as_py():  # a copy of all that a million rows hold is not made for nothing
        table = table.filter(upsert)
    return table.drop_columns(["op"])


RELATION: Final = ("ref_a", "ref_b", "household", "type")


def _relation(table: pa.Table) -> pa.ChunkedArray:
    """What a relationship is known by: both ends and its type, as one text."""
    parts = [table["ref_a"], table["ref_b"], table["household"].cast(pa.string()), table["type"]]
    return pc.binary_join_element_wise(*parts, "|", null_handling="replace", null_replacement="-")
