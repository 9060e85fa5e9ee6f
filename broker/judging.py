"""Is a sealed batch to be let in?  Its place in the order of nights, its rows, its size; nothing is written down here.

A delta waits for what it builds on; a file that would delete a county waits for a person, and so does one that carries
what no live agreement lets its agency give.  A batch goes in whole or waits whole: where only some of its categories
have lost their agreement it waits too, and its receipt says which, so that the agency can send it without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from agreements import Agreement, Snapshot
from agreements.lifecycle import version_of
from broker import clock, epochs, register
from broker.keys import DataKey
from broker.parsing import PARSER
from broker.reception import Reception, flow_of_batch
from broker.store import Reading
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.batches import BatchRow
from broker.store.items import sealed_items
from linkage.records import Manifest, Table

LATEST_CLOCK: Final = timedelta(hours=24)  # an extract from further ahead than this waits for a person
MEDIAN_OVER: Final = timedelta(days=30)
ROWS_BAND: Final = 0.30
DELETES_BAND: Final = 0.02
SMALL: Final = 20  # rows: a difference below this is no sign of anything
LIVE: Final = ("accepted", "linked")
AT_ONCE: Final = 65_536  # rows that are read, put in order and sealed together


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of a batch, before it is written down."""

    state: str  # accepted, quarantined, rejected, superseded; sealed: it waits
    code: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    deletes: Mapping[str, int] = field(default_factory=dict)
    findings: Sequence[tuple[str, int, str, str]] = ()
    totals: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    items: Sequence[pa.RecordBatch] = ()  # as `sealed_items` makes them
    gone_items: Sequence[str] = ()
    gone_records: Sequence[str] = ()


def judge(reception: Reception, row: BatchRow, *, guarded: bool) -> Judged:
    """What should become of a sealed batch.  `guarded`: its size and its clock count, as nobody has looked at it."""
    manifest = Manifest.parse(row.manifest)
    with reception.store.reading() as tx:
        flow = flow_of_batch(tx, row)
        agency = tx.one(AgencyRow, id=row.agency)
        usual = _usual_rows(tx, row)
        closed = epochs.closed_to(tx, row, agency)
        cover = _cover(register.snapshot(tx), manifest, clock.now())
    if closed is not None:
        return Judged(state="rejected", code=closed)
    if not row.shadow and (settled := _out_of_order(row, manifest, flow)) is not None:
        return settled
    key = reception.keys.data_key(row.dek_wrapped, row.id)
    with reception.spool.opened(row.id, manifest, key) as (folder, wrong):
        if wrong:
            findings = [(str(table), 0, "", "wrong_digest") for table in wrong]
            totals = {(str(table), "", "wrong_digest"): 1 for table in wrong}
            return Judged(state="rejected", code="wrong_digest", findings=findings, totals=totals)
        judged = _checked(reception, folder, manifest, row.id)
        if judged.state != "accepted":
            return judged
        # Releasing sets aside the last alone: the host has to let the agency in, the parties have to sign.
        uncovered = _uncovered(reception, folder, cover)
        code = "agency_not_active" if agency is None or agency.state != "active" else None
        code = code or ("agreement_not_live" if uncovered is not None else None)
        code = code or (_unusual(row, judged, usual) if guarded else None)
        if code is not None:
            totals = {("items", category, "agreement_not_live"): rows for category, rows in (uncovered or {}).items()}
            return replace(judged, state="quarantined", code=code, totals={**judged.totals, **totals})
        # Items are of no epoch: those of the nights stay, and what a shadow set repeats of them is checked and left.
        return judged if row.shadow else _read_items(reception, row, key, folder, judged)


def _out_of_order(row: BatchRow, manifest: Manifest, flow: AgencyFlowRow) -> Judged | None:
    """What the sequence alone settles; a full batch may leap a gap, a delta waits for what it builds on."""
    if row.sequence < flow.last_sequence:
        return Judged(state="superseded", code="older_night")
    if row.kind == "delta" and row.sequence > flow.last_sequence + 1:
        return Judged(state="sealed", code="gap")
    nothing_to_follow = flow.last_sequence and not flow.last_manifest_sha256  # the linkage key was rotated
    if row.kind == "delta" and (nothing_to_follow or manifest.previous != flow.last_manifest_sha256):
        return Judged(state="rejected", code="previous_mismatch")
    return None


def _checked(reception: Reception, folder: Path, manifest: Manifest, batch: str) -> Judged:
    verdict = PARSER.check(folder, manifest, reception.codes, limits=reception.limits, batch=batch)
    return Judged(
        state="accepted" if verdict.accepted else "rejected",
        code=None if verdict.accepted else "bad_rows",
        counts={str(table): rows for table, rows in verdict.counts.items()},
        deletes={str(table): rows for table, rows in verdict.deletes.items()},
        findings=[(found.table, found.row, found.column, found.code) for found in verdict.findings],
        totals={(str(table), column, code): count for (table, column, code), count in verdict.totals.items()},
    )


@dataclass(frozen=True, slots=True)
class _Cover:
    """What the agreements that a manifest names let its agency give now; `whole`: every one of them is live."""

    whole: bool
    live: bool
    categories: frozenset[str]


def _cover(snapshot: Snapshot, manifest: Manifest, at: datetime) -> _Cover:
    """By the version that is named, or a newer one that the agency and another party have signed since."""
    live: list[Agreement] = []
    whole = True
    for ref in manifest.agreements:
        versions = [
            agreement
            for agreement in snapshot.agreements
            if agreement.id == ref.partition("@")[0]
            and version_of(agreement.ref) >= version_of(ref)
            and any(
                snapshot.standing(agreement, manifest.agency, party, at).live
                for party in agreement.parties
                if party != manifest.agency
            )
        ]
        live += versions
        whole = whole and bool(versions)
    given = {
        name
        for agreement in live
        for grant in agreement.grants
        if manifest.agency in grant.sources
        for name in grant.modes
    }
    return _Cover(whole, bool(live), frozenset(given))


def _uncovered(reception: Reception, folder: Path, cover: _Cover) -> Mapping[str, int] | None:
    """Categories, and how many rows of each, that no live agreement covers; None if the batch may go in.

    Looked for only where an agreement has lapsed; then a batch goes in if the others cover all that it carries.
    """
    if cover.whole:
        return None
    brought: Counter[str] = Counter()
    for items in _batches(reception, folder, "items"):
        counted = items["category"].filter(pc.equal(items["op"], "upsert")).value_counts().to_pylist()
        brought.update({one["values"]: one["counts"] for one in counted})
    without = {category: rows for category, rows in brought.items() if category not in cover.categories}
    return without if without or not cover.live else None


def _usual_rows(tx: Reading, row: BatchRow) -> list[int]:
    """Persons of each full batch of this flow that was taken in the last 30 days."""
    since = clock.now() - MEDIAN_OVER
    before = tx.all(BatchRow, agency=row.agency, flow=row.flow, kind="full", shadow="", state=(*LIVE, "superseded"))
    return [
        int(batch.counts["persons"])
        for batch in before
        if batch.id != row.id and batch.decided_at and batch.decided_at >= since and "persons" in batch.counts
    ]


def _unusual(row: BatchRow, judged: Judged, usual: Sequence[int]) -> str | None:
    """Why a person should look before this is let in: an empty file must not delete a county."""
    if row.extracted_at > clock.now() + LATEST_CLOCK:
        return "from_the_future"
    if not usual:
        return None
    middle = median(usual)
    if row.kind == "full":
        difference = abs(judged.counts["persons"] - middle)
        return "unusual_size" if difference > max(ROWS_BAND * middle, SMALL) else None
    deletes = judged.deletes["persons"]
    return "many_deletes" if deletes > max(DELETES_BAND * middle, SMALL) else None


def _read_items(reception: Reception, row: BatchRow, key: DataKey, folder: Path, judged: Judged) -> Judged:
    """The batch's items, sealed row by row under its key, and what a delta deletes."""
    seal = key.items_sealer(agency=row.agency, batch=row.id)
    kept: list[pa.RecordBatch] = []
    gone: list[str] = []
    for some in _batches(reception, folder, "items"):
        gone += _deleted(some, "item_ref")
        kept.append(sealed_items(some.filter(pc.equal(some["op"], "upsert")), seal))
    records: list[str] = []
    if judged.deletes["persons"]:
        for some in _batches(reception, folder, "persons"):
            records += _deleted(some, "record_ref")
    return replace(judged, items=kept, gone_items=gone, gone_records=records)


def _batches(reception: Reception, folder: Path, table: Table) -> Iterator[pa.RecordBatch]:
    return PARSER.read_batches(folder, table, reception.profile, rows=AT_ONCE, limits=reception.limits)


def _deleted(rows: pa.RecordBatch, column: str) -> list[str]:
    refs: list[str] = rows[column].filter(pc.equal(rows["op"], "delete")).to_pylist()
    return refs
