"""A batch: opened by a signed manifest, filled chunk by chunk, sealed; or withdrawn.

    open -> sealed -> validating -> accepted | quarantined | rejected        accepted -> linked -> superseded
                                                                             an older night than the last: superseded

Every step can be said again: the same manifest gives the first answer, a chunk that is here is not written twice, a
sealed batch is sealed.  What happens to it then is `broker.validation`'s.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, cast

import rfc8785

from broker import epochs
from broker.agencies import feed_state
from broker.errors import (
    BadDigest,
    BadSignature,
    BatchRefused,
    Conflict,
    Malformed,
    NotAllowed,
    NotFound,
    TooMany,
    UnknownFlow,
    WrongState,
)
from broker.manifests import (
    ENCODERS,
    LARGEST_CHUNK,
    SMALLEST_CHUNK,
    VERSIONS,
    chunks,
    instant,
    on_our_terms,
    parsed,
    verify,
)
from broker.reception import Reception, batch_of, close, record
from broker.spool import ChunkWriter
from broker.store import Reading
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.batches import BatchChunkRow, BatchRow
from broker.trail import new_event_id
from linkage.records import TABLE_MEDIA_TYPE, TABLES, Manifest, Table

OPEN_BATCHES: Final = 4  # of one agency at once
OPEN_FOR: Final = timedelta(hours=24)
WAITING: Final = 8  # batches of one agency that are sealed and not looked at yet
HELD: Final = 62  # nights of one flow that wait for an earlier one
TRY_AGAIN: Final = 30  # seconds, and up to as much again by chance, so that agencies don't come back in step
UNDECIDED: Final = ("open", "sealed", "validating", "quarantined")

KEY: Final = re.compile(r"[A-Za-z0-9._:-]{8,128}")
DIGEST: Final = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request to open a batch is told: kept, and given again to whoever repeats it."""

    status: int
    body: bytes
    replayed: bool


# --- What is expected ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """A batch of which the broker has not made up its mind, or that was never committed.

    `shadow`: the epoch being prepared that it is of, and numbered under, or "" for a night.
    """

    batch: str
    shadow: str
    sequence: int
    kind: str
    state: str
    manifest_sha256: str
    reason: str | None


SILENT: Final = timedelta(hours=24)  # a client is heard of once a day at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a flow stands, to its own agency: what was taken last, what is still on its way, and which nights are missed.

    With it a client that has lost its own notes knows what to send next, and under which epoch of the linkage key;
    `next_epoch` is the one being prepared, of which a full batch is due beside the nights.
    """

    flow: str
    key_epoch: str
    next_epoch: str | None
    state: str  # CURRENT, STALE, NOT_CONNECTED, PAUSED
    expected_by: str
    as_of: datetime | None
    heard_at: datetime | None
    last_sequence: int
    last_manifest_sha256: str
    missing_nights: tuple[int, ...]  # that a batch which is here waits for
    batches: tuple[Undecided, ...]


def standing(reception: Reception, agency: str, flow: str, *, at: datetime) -> Standing:
    """How a flow of this agency stands.  Raises UnknownFlow."""
    with reception.store.reading() as tx:
        row = tx.one(AgencyFlowRow, agency=agency, flow=flow)
        owner = tx.one(AgencyRow, id=agency)
        if row is None or owner is None:
            raise UnknownFlow("this agency has no flow of this name")
        rows = tx.all(BatchRow, order=("sequence", "id"), agency=agency, flow=flow, state=UNDECIDED)
        prepared = epochs.prepared(tx)
    held = [batch.sequence for batch in rows if waits(batch)]
    here = {batch.sequence for batch in rows if batch.state != "open" and not batch.shadow}
    missing = set(range(row.last_sequence + 1, max(held, default=0))) - here
    return Standing(
        flow=flow, key_epoch=owner.key_epoch, next_epoch=prepared.name if prepared else None,
        state=feed_state(row, owner, at), expected_by=row.expected_by, as_of=row.as_of,
        heard_at=row.heard_at,
        last_sequence=row.last_sequence, last_manifest_sha256=row.last_manifest_sha256,
        missing_nights=tuple(sorted(missing)[:HELD]),
        batches=tuple(
            Undecided(
                batch=batch.id, shadow=batch.shadow, sequence=batch.sequence, kind=batch.kind, state=batch.state,
                manifest_sha256=batch.manifest_sha256, reason=(batch.verdict or {}).get("code"),
            )
            for batch in rows
        ),
    )  # fmt: skip


def heard(reception: Reception, agency: str, flow: str, *, at: datetime) -> None:
    """Note that a flow's client is alive, be there anything to send or not.  Raises UnknownFlow.

    How fresh a feed is hangs on its data alone: a client that lives and sends nothing leaves it late.
    """
    with reception.store.transaction() as tx:
        row = tx.locked_one(AgencyFlowRow, agency=agency, flow=flow)
        if row is None:
            raise UnknownFlow("this agency has no flow of this name")
        row.heard_at = at
        tx.add(row)


def to_chase(reception: Reception, *, at: datetime) -> tuple[tuple[str, Standing], ...]:
    """By agency the flows somebody should ring about: late or never heard of, nights missed, or batches quarantined."""
    with reception.store.reading() as tx:
        active = {row.id for row in tx.all(AgencyRow, state="active")}
        flows = [row for row in tx.all(AgencyFlowRow, order=("agency", "flow")) if row.agency in active]
    stands = [(row.agency, standing(reception, row.agency, row.flow, at=at)) for row in flows]
    return tuple(
        (agency, one)
        for agency, one in stands
        if one.state in ("STALE", "NOT_CONNECTED")
        or one.missing_nights
        or any(batch.state == "quarantined" for batch in one.batches)
    )


def terms(reception: Reception) -> dict[str, Any]:
    """What a batch must be to be taken here: forms, code lists, limits."""
    return {
        "manifests": [dict(version) for version in VERSIONS],
        "encoders": list(ENCODERS),
        "tables": TABLE_MEDIA_TYPE,
        "profile": reception.profile,
        "codes": {"version": reception.codes["version"], "sha256": reception.codes_sha256},
        "chunk_bytes": [SMALLEST_CHUNK, LARGEST_CHUNK],
        "rows": reception.limits.rows,
        "row_bytes": reception.limits.row_bytes,
        "expansion": reception.limits.expansion,
        "identifiers": reception.limits.identifiers,
        "open_batches": OPEN_BATCHES,
        "waiting_batches": WAITING,
        "hours_to_commit": OPEN_FOR // timedelta(hours=1),
    }


def waits(row: BatchRow) -> bool:
    """Whether a sealed batch waits for an earlier night."""
    return row.state == "sealed" and (row.verdict or {}).get("code") == "gap"


# --- Open ------------------------------------------------------------------------------------------------------------


def room(reception: Reception, agency: str) -> None:
    """Return if this agency may hand in more just now: ask before a body is read.  Raises TooMany."""
    with reception.store.reading() as tx:
        rows = tx.all(BatchRow, agency=agency, state=("sealed", "validating"))
    if sum(not waits(row) for row in rows) >= WAITING:
        raise TooMany(f"{WAITING} batches wait to be looked at: try again", retry_after=_later())


def _later() -> int:
    return TRY_AGAIN + secrets.randbelow(TRY_AGAIN + 1)


def open_batch(
    reception: Reception, agency: str, flow: str, raw: bytes, *, key: str | None, signature: str | None, at: datetime
) -> Answer:
    """Open a batch for the manifest in `raw`, or give the first answer again if it was opened before.

    `key` is the client's Idempotency-Key, `signature` the detached JWS over `raw`.  A refusal leaves nothing behind,
    so the same key may be tried again once the cause is gone.  Raises Malformed, BadSignature, NotAllowed, UnknownFlow,
    UnknownSchema, BatchRefused, TooLarge (each naming the place), Conflict if key or night is another batch's, TooMany.
    """
    if key is None or not KEY.fullmatch(key):
        raise Malformed("header Idempotency-Key: 8 to 128 letters, digits and .-_: are due")
    manifest = parsed(raw)
    if manifest.agency != agency:
        raise NotAllowed("manifest.agency: this is not the organisation whose credential was used")
    if manifest.flow != flow:
        raise Malformed("manifest.flow: this is not the flow of the address")
    digest = sha256(raw).hexdigest()
    with reception.store.reading() as tx:
        verify(tx, agency, raw, signature)
        shadow = epochs.shadow_of(tx, manifest.key_epoch)
        if (known := _known(tx, manifest, digest, key, shadow)) is not None:
            return known
        on_our_terms(reception, tx, manifest, at)
    if signature is None:
        raise BadSignature("header Manifest-Signature: a detached JWS is due")
    row = _new_row(reception, manifest, raw, digest, key, signature, at, shadow)
    try:
        with reception.store.transaction() as tx:
            waiting = [batch for batch in tx.all(BatchRow, agency=agency, state="open") if batch.expires_at > at]
            if len(waiting) >= OPEN_BATCHES:
                raise TooMany(f"{OPEN_BATCHES} batches are open: commit or delete one first", retry_after=_later())
            _not_too_far_ahead(tx, manifest)
            sender = tx.locked_one(AgencyFlowRow, agency=agency, flow=flow)
            if sender is not None:
                sender.heard_at = at
                tx.add(sender)
            tx.add(row)
    except Conflict:  # somebody was quicker: perhaps ourselves, on another connection
        with reception.store.reading() as tx:
            if (known := _known(tx, manifest, digest, key, shadow)) is not None:
                return known
        raise
    return Answer(status=row.first_status, body=row.first_response, replayed=False)


def _not_too_far_ahead(tx: Reading, manifest: Manifest) -> None:
    """Raise TooMany for a night more that would have to wait; the one that is waited for, or a full one, is let in."""
    flow = tx.one(AgencyFlowRow, agency=manifest.agency, flow=manifest.flow)
    if flow is None or manifest.kind == "full" or manifest.sequence <= flow.last_sequence + 1:
        return
    held = tx.all(BatchRow, agency=manifest.agency, flow=manifest.flow, state="sealed")
    if sum(waits(row) for row in held) >= HELD:
        raise TooMany(
            f"{HELD} nights of this flow wait for an earlier one: send that, or a full batch", retry_after=3600
        )


def _known(tx: Reading, manifest: Manifest, digest: str, key: str, shadow: str) -> Answer | None:
    """The first answer to this manifest, if it was here before.  Raises Conflict if key or night is another's."""
    row = tx.one(BatchRow, agency=manifest.agency, idempotency_key=key)
    if row is not None and row.manifest_sha256 != digest:
        raise Conflict("header Idempotency-Key: it was used for another manifest")
    if row is None:
        nights = tx.all(BatchRow, agency=manifest.agency, flow=manifest.flow, sequence=manifest.sequence, shadow=shadow)
        row = next((night for night in nights if night.state != "rejected"), None)
        if row is not None and row.manifest_sha256 != digest:
            raise Conflict("manifest.sequence: another batch of this flow has this number")
    return Answer(status=row.first_status, body=row.first_response, replayed=True) if row is not None else None


def _new_row(
    reception: Reception, manifest: Manifest, raw: bytes, digest: str, key: str, signature: str, at: datetime,
    shadow: str,
) -> BatchRow:  # fmt: skip
    batch = new_event_id()
    _, wrapped = reception.keys.new_data_key(batch)
    missing = [{"table": table, "chunk": number} for table, number in chunks(manifest)]
    first = {"batch": batch, "state": "open", "chunk_size": manifest.chunk_size, "missing": missing}
    return BatchRow(
        id=batch, agency=manifest.agency, flow=manifest.flow, sequence=manifest.sequence, kind=manifest.kind,
        idempotency_key=key, manifest=raw, manifest_sha256=digest, signature=signature, profile=manifest.profile,
        key_epoch=manifest.key_epoch, shadow=shadow, dek_wrapped=wrapped, state="open", first_status=201,
        first_response=rfc8785.dumps(cast("Any", first)), counts={}, opened_at=at,
        extracted_at=instant(manifest.extracted_at, "extracted_at"),
        expires_at=min(at + OPEN_FOR, instant(manifest.expires_at, "expires_at")),
    )  # fmt: skip


# --- Fill ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """A chunk that may be sent, and what its bytes must be.  `writer` is None if it has arrived already."""

    batch: str
    table: Table
    number: int
    size: int
    sha256: str
    writer: ChunkWriter | None

    @property
    def place(self) -> str:
        """How messages name the chunk."""
        return f"{self.table} chunk {self.number}"


def await_chunk(
    reception: Reception, agency: str, flow: str, batch: str, table: str, number: int, *, digest: str | None,
    at: datetime,
) -> Awaited:  # fmt: skip
    """Make ready for a chunk.

    Raises Malformed or BadDigest if `digest` (the header Content-Digest) is missing or not the manifest's, NotFound,
    WrongState if the batch takes no chunks any more and this one is not here.
    """
    with reception.store.reading() as tx:
        row = batch_of(tx, agency, flow, batch)
        arrived = tx.one(BatchChunkRow, batch=batch, table=table, number=number)
    manifest = Manifest.parse(row.manifest)
    if table not in TABLES or not 0 <= number < len(manifest.tables[table].chunks):
        raise NotFound("the manifest has no such chunk")
    entry = manifest.tables[table]
    place = f"{table} chunk {number}"
    found = DIGEST.fullmatch(digest or "")
    if found is None:
        raise Malformed(f"{place}: header Content-Digest as sha-256=:...: is due (RFC 9530)")
    due = entry.chunks[number]
    if found[1] != _base64(bytes.fromhex(due)):
        raise BadDigest(f"{place}: the header's digest is not the manifest's")
    if arrived is None and (row.state != "open" or row.expires_at <= at):
        raise WrongState(f"{place}: the batch takes no more chunks")
    key = reception.keys.data_key(row.dek_wrapped, batch)
    size = min(manifest.chunk_size, entry.size - number * manifest.chunk_size)
    writer = None if arrived else reception.spool.writer(batch, table, number, key)
    return Awaited(batch=batch, table=table, number=number, size=size, sha256=due, writer=writer)


def keep_chunk(reception: Reception, awaited: Awaited, *, at: datetime) -> None:
    """On return the chunk is on disk and known.  Raises BadDigest if its bytes are not those of the manifest."""
    writer = awaited.writer
    if writer is None:
        return
    digest = writer.finish()
    if writer.size != awaited.size:
        raise BadDigest(f"{awaited.place}: {awaited.size} bytes are due, not {writer.size}")
    if digest != awaited.sha256:
        raise BadDigest(f"{awaited.place}: the bytes are not those of the manifest's digest")
    writer.keep()
    with reception.store.transaction() as tx:
        row = tx.one(BatchRow, id=awaited.batch)
        if tx.one(BatchChunkRow, batch=awaited.batch, table=awaited.table, number=awaited.number) is not None:
            return
        if row is None or row.state != "open":
            raise WrongState(f"{awaited.place}: the batch takes no more chunks")
        tx.add(
            BatchChunkRow(
                batch=awaited.batch, table=awaited.table, number=awaited.number, size=awaited.size, sha256=digest,
                arrived_at=at,
            )
        )  # fmt: skip


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# --- Commit, withdraw, ask -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a batch stands, as its submitter may know."""

    batch: str
    state: str
    missing: tuple[tuple[str, int], ...]
    counts: Mapping[str, int]
    reason: str | None  # a code: why it was quarantined, rejected or waits


def commit(reception: Reception, agency: str, flow: str, batch: str, *, manifest_sha256: str, at: datetime) -> Status:
    """Seal a batch whose every chunk is here, and record that it was received; a sealed one stays as it is.

    Raises BadDigest for another manifest, WrongState while chunks are missing, BatchRefused if it has expired,
    BadSignature if the agency's key was revoked meanwhile.
    """
    with reception.store.transaction() as tx:
        row = batch_of(tx, agency, flow, batch)
        if row.manifest_sha256 != manifest_sha256:
            raise BadDigest("manifest_sha256: the batch was opened for another manifest")
        if row.state == "open":
            missing = _missing(tx, row)
            if missing:
                named = ", ".join(f"{table} chunk {number}" for table, number in missing[:3])
                raise WrongState(f"{len(missing)} chunks have not arrived: {named}")
            if row.expires_at <= at:
                raise BatchRefused("manifest.expires_at: the batch was not committed in time; sign a new manifest")
            verify(tx, agency, row.manifest, row.signature)
            row.state, row.sealed_at = "sealed", at
            row.received_event = record(reception, tx, row, "submission.received", at=at, outcome="sealed")
            tx.add(row)
    reception.trail.wake()
    return status(reception, agency, flow, batch)


def withdraw(reception: Reception, agency: str, flow: str, batch: str, *, at: datetime) -> None:
    """Forget a batch that was not committed; its number is free again.  Raises WrongState if it was committed."""
    with reception.store.transaction() as tx:
        row = batch_of(tx, agency, flow, batch)
        if row.state == "rejected" and (row.verdict or {}).get("code") == "withdrawn":
            return
        if row.state != "open":
            raise WrongState("a committed batch can't be withdrawn")
        close(reception, tx, row, "withdrawn", at=at)
    reception.spool.drop(batch)


def status(reception: Reception, agency: str, flow: str, batch: str) -> Status:
    """Where a batch stands.  Raises NotFound if this agency has no such batch in this flow."""
    with reception.store.reading() as tx:
        row = batch_of(tx, agency, flow, batch)
        missing = _missing(tx, row) if row.state == "open" else []
    counts: dict[str, int] = {table: row.counts[table] for table in TABLES if table in row.counts}
    return Status(
        batch=batch, state=row.state, missing=tuple(missing), counts=counts, reason=(row.verdict or {}).get("code")
    )


def _missing(tx: Reading, row: BatchRow) -> list[tuple[Table, int]]:
    here = {(chunk.table, chunk.number) for chunk in tx.all(BatchChunkRow, batch=row.id)}
    return [place for place in chunks(Manifest.parse(row.manifest)) if place not in here]
