"""A batch: opened by a signed manifest, filled chunk by chunk, sealed, checked; then whole in, or not at all.

    open -> sealed -> validating -> accepted | quarantined | rejected        accepted -> linked -> superseded
                                                                             an older night than the last: superseded

Every step can be said again: the same manifest gives the first answer, a chunk that is here is not written twice, a
sealed batch is sealed.  Whoever validates (a thread of `broker serve`, `broker nightly`) may be killed anywhere: what
is not decided is decided by the next one, and of two that decide at once the second finds it decided.

The agency is the credential's, never the payload's.  A submitter learns what is wrong with the form of its own rows,
and nothing about anybody else's.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal, cast

import pyarrow as pa
import rfc8785
import structlog

from agreements.vocabulary import codes_for_agencies
from audit.events import Event
from broker import clock
from broker.errors import (
    AgencyNotActive,
    BadDigest,
    BadSignature,
    BatchRefused,
    BrokerError,
    Conflict,
    Malformed,
    NotAllowed,
    NotFound,
    TooLarge,
    TooMany,
    UnknownFlow,
    UnknownSchema,
    WrongState,
)
from broker.keys import DataKey, Keys, kid_of, unb64url, verify_detached
from broker.settings import Settings
from broker.spool import ChunkWriter, Spool
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyFlowRow, AgencyKeyRow, AgencyRow
from broker.store.batches import BatchChunkRow, BatchRejectionRow, BatchRow
from broker.store.documents import AgreementRow
from broker.store.items import delete_items, insert_items, payload
from broker.trail import EntryRef, Trail, new_event_id
from linkage.matching import intake
from linkage.matching.intake import Codes, Limits
from linkage.records import TABLES, BadManifest, Manifest, Profile, Table

log = structlog.get_logger()

MiB: Final = 1024 * 1024
OPEN_BATCHES: Final = 4  # of one agency at once
OPEN_FOR: Final = timedelta(hours=24)
LATEST_CLOCK: Final = timedelta(hours=24)  # an extract from further ahead than this waits for a person
MEDIAN_OVER: Final = timedelta(days=30)
ROWS_BAND: Final = 0.30
DELETES_BAND: Final = 0.02
SMALL: Final = 20  # rows: a difference below this is no sign of anything
ENCODERS: Final = ("encoder-1",)
LIVE: Final = ("accepted", "linked")
UNDECIDED: Final = "undecided"

ReceiptKind = Literal["received", "verdict"]

_KEY: Final = re.compile(r"[A-Za-z0-9._:-]{8,128}")
_DIGEST: Final = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")

HINTS: Final[Mapping[str, str]] = {
    "too_large": "the table passes a limit, or does not fit into memory when it is read",
    "unreadable": "the file is not whole Parquet with text in UTF-8",
    "unknown_column": "remove the column: only those of the wire format are taken",
    "missing_column": "add the column: it may be null, and must be there",
    "repeated_column": "a column stands there twice",
    "wrong_type": "the column has another type than the wire format's",
    "wrong_order": "the columns are in another order than the wire format's",
    "wrong_row_count": "the file holds another number of rows than the manifest says",
    "wrong_digest": "the bytes are not those that the manifest's digests are of",
    "empty_table": "a full batch holds at least one person",
    "row_too_large": "a row passes 16 KiB",
    "expands_too_much": "the table is more than 50 times as large when it is read",
    "missing": "a value is due here",
    "unknown_value": "the value is not of the closed list of this column",
    "bad_ref": "a keyed token is due: 16 to 64 hex digits",
    "bad_date": "the date is too long ago or too far ahead",
    "bad_period": "the end is before the start",
    "bad_number": "the number is not between 0 and 1,000,000,000",
    "bad_endpoint": "a household has a token and no second record; every other type has two different records",
    "incomplete_filter": "a filter has eight words and a count, or none of them, and is not empty",
    "wrong_popcount": "the count is not that of the filter's bits",
    "delete_in_full": "a full batch deletes by leaving out",
    "duplicate_ref": "the ref stands there twice, or is both kept and deleted",
    "inconsistent_record": "rows of one record differ in what the person is",
    "too_many_alternatives": "a record has more than 16 rows",
    "too_many_identifiers": "a record has more than 8 different identifiers",
    "unresolved_ref": "no person of this batch has this ref",
    "unknown_category": "the category is not in the vocabulary",
    "never_ingest": "this must never be sent: remove it at the source and tell your data steward",
    "unknown_code": "the code is not on the category's list",
    "code_not_expected": "no code belongs here",
    "number_not_expected": "the category takes no number",
    "retention_over": "the item is past its own retention",
}
"""What to do about each code of a finding."""


@dataclass(frozen=True, kw_only=True)
class Reception:
    """What taking in batches needs, and the terms on which they are taken."""

    store: Store
    keys: Keys
    trail: Trail
    spool: Spool
    profile: Profile
    codes: Codes
    codes_sha256: str
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, settings: Settings, store: Store, keys: Keys, trail: Trail) -> Reception:
        """The reception of one broker, under the vocabulary it was built with."""
        codes = codes_for_agencies()
        return cls(
            store=store,
            keys=keys,
            trail=trail,
            spool=Spool(settings.data_dir / "spool"),
            profile=settings.profile,
            codes=cast("Codes", codes),
            codes_sha256=sha256(rfc8785.dumps(codes)).hexdigest(),
            limits=Limits(checking_memory=f"{max(settings.query_memory_mb, 256)}MB"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request to open a batch is told: kept, and given again to whoever repeats it."""

    status: int
    body: bytes
    replayed: bool


# --- Open ------------------------------------------------------------------------------------------------------------


def open_batch(
    reception: Reception, agency: str, flow: str, raw: bytes, *, key: str | None, signature: str | None, at: datetime
) -> Answer:
    """Open a batch for the manifest in `raw`, or give the first answer again if it was opened before.

    `key` is the client's Idempotency-Key, `signature` the detached JWS over `raw`.  A refusal leaves nothing behind,
    so the same key may be tried again once the cause is gone.  Raises Malformed, BadSignature, NotAllowed, UnknownFlow,
    UnknownSchema, BatchRefused, TooLarge (each naming the place), Conflict if key or night is another batch's, TooMany.
    """
    if key is None or not _KEY.fullmatch(key):
        raise Malformed("header Idempotency-Key: 8 to 128 letters, digits and .-_: are due")
    manifest = _parsed(raw)
    if manifest.agency != agency:
        raise NotAllowed("manifest.agency: this is not the organisation whose credential was used")
    if manifest.flow != flow:
        raise Malformed("manifest.flow: this is not the flow of the address")
    digest = sha256(raw).hexdigest()
    with reception.store.reading() as tx:
        _verify(tx, agency, raw, signature)
        if (known := _known(tx, manifest, digest, key)) is not None:
            return known
        _on_our_terms(reception, tx, manifest, at)
    if signature is None:
        raise BadSignature("header Manifest-Signature: a detached JWS is due")
    row = _new_row(reception, manifest, raw, digest, key, signature, at)
    try:
        with reception.store.transaction() as tx:
            waiting = [batch for batch in tx.all(BatchRow, agency=agency, state="open") if batch.expires_at > at]
            if len(waiting) >= OPEN_BATCHES:
                raise TooMany(f"{OPEN_BATCHES} batches are open: commit or delete one first", retry_after=60)
            tx.add(row)
    except Conflict:  # somebody was quicker: perhaps ourselves, on another connection
        with reception.store.reading() as tx:
            if (known := _known(tx, manifest, digest, key)) is not None:
                return known
        raise
    return Answer(status=row.first_status, body=row.first_response, replayed=False)


def _parsed(raw: bytes) -> Manifest:
    try:
        manifest = Manifest.parse(raw)
        canonical = manifest.canonical()
    except BadManifest as wrong:
        raise Malformed(f"manifest: {wrong}") from None
    except rfc8785.CanonicalizationError:
        raise Malformed("manifest: it has no canonical form (RFC 8785)") from None
    if raw != canonical:
        raise Malformed("manifest: its bytes are not the canonical form (RFC 8785)")
    return manifest


def _verify(tx: Reading, agency: str, raw: bytes, signature: str | None) -> None:
    """Return if `signature` is over `raw` by a key that this agency has enrolled and not revoked."""
    if not signature:
        raise BadSignature("header Manifest-Signature: the manifest is not signed; a detached JWS is due")
    row = tx.one(AgencyKeyRow, kid=kid_of(signature), use="signing")
    if row is None or row.agency != agency:
        raise BadSignature("header Manifest-Signature: its kid is no signing key of this agency")
    if row.revoked_at is not None:
        raise BadSignature("header Manifest-Signature: this key has been revoked")
    try:
        verify_detached(signature, raw, unb64url(row.public))
    except BadSignature:
        raise BadSignature("header Manifest-Signature: it does not verify over these bytes") from None


def _known(tx: Reading, manifest: Manifest, digest: str, key: str) -> Answer | None:
    """The first answer to this manifest, if it was here before.  Raises Conflict if key or night is another's."""
    row = tx.one(BatchRow, agency=manifest.agency, idempotency_key=key)
    if row is not None and row.manifest_sha256 != digest:
        raise Conflict("header Idempotency-Key: it was used for another manifest")
    if row is None:
        nights = tx.all(BatchRow, agency=manifest.agency, flow=manifest.flow, sequence=manifest.sequence)
        row = next((night for night in nights if night.state != "rejected"), None)
        if row is not None and row.manifest_sha256 != digest:
            raise Conflict("manifest.sequence: another batch of this flow has this number")
    return Answer(status=row.first_status, body=row.first_response, replayed=True) if row is not None else None


def _on_our_terms(reception: Reception, tx: Reading, manifest: Manifest, at: datetime) -> None:
    """Raise what is wrong with a manifest that is well formed and signed, naming the first place."""
    agency = tx.one(AgencyRow, id=manifest.agency)
    if agency is None or agency.state != "active":
        raise AgencyNotActive("this agency is not active")
    if tx.one(AgencyFlowRow, agency=manifest.agency, flow=manifest.flow) is None:
        raise UnknownFlow("manifest.flow: this agency has no flow of this name")
    for place, wrong in (
        ("profile", manifest.profile != reception.profile and f"this partnership uses {reception.profile}"),
        ("key_epoch", manifest.key_epoch != agency.key_epoch and f"the epoch in use is {agency.key_epoch}"),
        (
            "key_fingerprint",
            manifest.key_fingerprint != agency.key_fingerprint and "the linkage key is another than the one enrolled",
        ),
        (
            "canaries",
            [str(token) for token in manifest.canaries] != agency.canaries
            and "the linkage key or the encoder gives other tokens than those enrolled",
        ),
        (
            "codes_sha256",
            manifest.codes_sha256 != reception.codes_sha256
            and f"the code lists in use are {reception.codes['version']}",
        ),
        ("agreements", not manifest.agreements and "no agreement is named"),
    ):
        if wrong:
            raise BatchRefused(f"manifest.{place}: {wrong}")
    if manifest.encoder.partition(" ")[0] not in ENCODERS:
        raise UnknownSchema("manifest.encoder", known=ENCODERS)
    for number, ref in enumerate(manifest.agreements):
        row = tx.one(AgreementRow, ref=ref)
        if row is None or row.status == "draft":
            raise BatchRefused(f"manifest.agreements[{number}]: no such agreement is in force here")
    _dates(manifest, at)
    _sizes(reception, manifest)


def _dates(manifest: Manifest, at: datetime) -> None:
    _instant(manifest.extracted_at, "extracted_at")
    if _instant(manifest.expires_at, "expires_at") <= at:
        raise BatchRefused("manifest.expires_at: the manifest has expired; sign a new one")
    for name in ("period_from", "period_to"):
        try:
            date.fromisoformat(getattr(manifest, name))
        except ValueError:
            raise Malformed(f"manifest.{name}: a date as YYYY-MM-DD is due") from None


def _sizes(reception: Reception, manifest: Manifest) -> None:
    if not MiB <= manifest.chunk_size <= 64 * MiB:
        raise TooLarge("manifest.chunk_size: 1 MiB to 64 MiB is due")
    for table, entry in manifest.tables.items():
        if entry.rows > reception.limits.rows:
            raise TooLarge(f"manifest.tables.{table}.rows: more than {reception.limits.rows:,}")
        if len(entry.chunks) != max(1, -(-entry.size // manifest.chunk_size)):
            raise Malformed(f"manifest.tables.{table}.chunks: their number does not fit the size")
        if entry.size == 0:
            raise Malformed(f"manifest.tables.{table}.size: an empty table is a Parquet file, too")
    if manifest.kind == "full" and manifest.tables["persons"].rows == 0:
        raise BatchRefused("manifest.tables.persons.rows: a full batch holds at least one person")


def _new_row(
    reception: Reception, manifest: Manifest, raw: bytes, digest: str, key: str, signature: str, at: datetime
) -> BatchRow:
    batch = new_event_id()
    _, wrapped = reception.keys.new_data_key(batch)
    missing = [{"table": table, "chunk": number} for table, number in _chunks(manifest)]
    first = {"batch": batch, "state": "open", "chunk_size": manifest.chunk_size, "missing": missing}
    return BatchRow(
        id=batch, agency=manifest.agency, flow=manifest.flow, sequence=manifest.sequence, kind=manifest.kind,
        idempotency_key=key, manifest=raw, manifest_sha256=digest, signature=signature, profile=manifest.profile,
        key_epoch=manifest.key_epoch, dek_wrapped=wrapped, state="open", first_status=201,
        first_response=rfc8785.dumps(cast("Any", first)), counts={}, opened_at=at,
        extracted_at=_instant(manifest.extracted_at, "extracted_at"),
        expires_at=min(at + OPEN_FOR, _instant(manifest.expires_at, "expires_at")),
    )  # fmt: skip


def _chunks(manifest: Manifest) -> Iterator[tuple[Table, int]]:
    for table in TABLES:
        for number in range(len(manifest.tables[table].chunks)):
            yield table, number


def _instant(text: str, name: str) -> datetime:
    try:
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise Malformed(f"manifest.{name}: an instant in UTC is due, as 2026-03-02T01:00:00Z")


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
        row = _mine(tx, agency, flow, batch)
        arrived = tx.one(BatchChunkRow, batch=batch, table=table, number=number)
    manifest = Manifest.parse(row.manifest)
    if table not in TABLES or not 0 <= number < len(manifest.tables[table].chunks):
        raise NotFound("the manifest has no such chunk")
    entry = manifest.tables[table]
    place = f"{table} chunk {number}"
    found = _DIGEST.fullmatch(digest or "")
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
        row = _mine(tx, agency, flow, batch)
        if row.manifest_sha256 != manifest_sha256:
            raise BadDigest("manifest_sha256: the batch was opened for another manifest")
        if row.state == "open":
            missing = _missing(tx, row)
            if missing:
                named = ", ".join(f"{table} chunk {number}" for table, number in missing[:3])
                raise WrongState(f"{len(missing)} chunks have not arrived: {named}")
            if row.expires_at <= at:
                raise BatchRefused("manifest.expires_at: the batch was not committed in time; sign a new manifest")
            _verify(tx, agency, row.manifest, row.signature)
            row.state, row.sealed_at = "sealed", at
            row.received_event = _record(reception, tx, row, "submission.received", at=at, outcome="sealed")
            tx.add(row)
    reception.trail.wake()
    return status(reception, agency, flow, batch)


def withdraw(reception: Reception, agency: str, flow: str, batch: str, *, at: datetime) -> None:
    """Forget a batch that was not committed; its number is free again.  Raises WrongState if it was committed."""
    with reception.store.transaction() as tx:
        row = _mine(tx, agency, flow, batch)
        if row.state == "rejected" and (row.verdict or {}).get("code") == "withdrawn":
            return
        if row.state != "open":
            raise WrongState("a committed batch can't be withdrawn")
        _close(reception, tx, row, "withdrawn", at=at)
    reception.spool.drop(batch)


def status(reception: Reception, agency: str, flow: str, batch: str) -> Status:
    """Where a batch stands.  Raises NotFound if this agency has no such batch in this flow."""
    with reception.store.reading() as tx:
        row = _mine(tx, agency, flow, batch)
        missing = _missing(tx, row) if row.state == "open" else []
    counts: dict[str, int] = {table: row.counts[table] for table in TABLES if table in row.counts}
    return Status(
        batch=batch, state=row.state, missing=tuple(missing), counts=counts, reason=(row.verdict or {}).get("code")
    )


def receipt(reception: Reception, agency: str, flow: str, batch: str, kind: ReceiptKind | None) -> dict[str, Any]:
    """The receipt of a batch, received or verdict (the newest unless told), once the log covers it.

    It is a log receipt (`event_id`, `log`, `opening`, `proof`) with `batch`, `kind`, `state`, and `signed`: the
    broker's JWS over the manifest's digest, counts, sequence, log index and time.  Raises NotFound before there is one,
    LogUnavailable if no checkpoint covers it in time.
    """
    with reception.store.reading() as tx:
        row = _mine(tx, agency, flow, batch)
    which: ReceiptKind = kind or ("verdict" if row.verdict_event else "received")
    event = row.verdict_event if which == "verdict" else row.received_event
    at = row.decided_at if which == "verdict" else row.sealed_at
    if event is None or at is None:
        raise NotFound(f"there is no receipt of kind {which} yet")
    logged = reception.trail.receipt(EntryRef(event))
    state = _verdict_of(row) if which == "verdict" else "sealed"
    body = {
        "kind": which, "agency": agency, "flow": flow, "batch": batch, "sequence": row.sequence, "state": state,
        "manifest_sha256": row.manifest_sha256, "counts": _declared(row), "at": at.isoformat().replace("+00:00", "Z"),
        "event": event, "log": {"origin": reception.trail.origin, "index": logged.proof.index},
    }  # fmt: skip
    signed = reception.keys.sign(rfc8785.dumps(cast("Any", body)))
    return {**logged.to_json(), "batch": batch, "kind": which, "state": state, "signed": signed}


def rejections(reception: Reception, agency: str, flow: str, batch: str) -> Iterator[dict[str, Any]]:
    """What is wrong with a batch: totals first, then the rows that are listed.  Places and codes, never a value."""
    with reception.store.reading() as tx:
        row = _mine(tx, agency, flow, batch)
        rows = tx.all(BatchRejectionRow, order=("position",), batch=batch)
    verdict = row.verdict or {}
    yield {"batch": batch, "state": row.state, "reason": verdict.get("code"), "totals": verdict.get("totals", [])}
    for found in rows:
        yield {
            "table": found.table, "row": found.row, "column": found.column, "code": found.code, "hint": found.hint,
            "severity": "error",
        }  # fmt: skip


def _mine(tx: Reading, agency: str, flow: str, batch: str) -> BatchRow:
    row = tx.one(BatchRow, id=batch, agency=agency, flow=flow)
    if row is None:
        raise NotFound("there is no such batch")
    return row


def _missing(tx: Reading, row: BatchRow) -> list[tuple[Table, int]]:
    here = {(chunk.table, chunk.number) for chunk in tx.all(BatchChunkRow, batch=row.id)}
    return [place for place in _chunks(Manifest.parse(row.manifest)) if place not in here]


def _verdict_of(row: BatchRow) -> str:
    """The state that the verdict put the batch into, whatever became of it since."""
    return str((row.verdict or {}).get("state", row.state))


def _declared(row: BatchRow) -> dict[str, int]:
    return {table: entry.rows for table, entry in Manifest.parse(row.manifest).tables.items()}


def _record(
    reception: Reception, tx: Transaction, row: BatchRow, type_: str, *, at: datetime, outcome: str, by: str = ""
) -> str:
    who = {"organisation": row.agency, **({"person": by} if by else {})}
    what: dict[str, Any] = {
        "batch": row.id, "flow": row.flow, "sequence": row.sequence, "kind": row.kind, "outcome": outcome,
        "manifest_sha256": row.manifest_sha256, "rows": _declared(row),
        "agreements": list(Manifest.parse(row.manifest).agreements),
    }  # fmt: skip
    event = Event(id=new_event_id(), type=type_, who=who, what=what, why={}, detail={})
    return reception.trail.record(tx, event, at=at).event_id


def _close(reception: Reception, tx: Transaction, row: BatchRow, code: str, *, at: datetime) -> None:
    row.state, row.decided_at, row.verdict = "rejected", at, {"code": code, "state": "rejected"}
    row.verdict_event = _record(reception, tx, row, "submission.withdrawn", at=at, outcome=code)
    tx.add(row)


# --- Validate --------------------------------------------------------------------------------------------------------


def validate_sealed(reception: Reception, *, stop: threading.Event | None = None) -> dict[str, str]:
    """Decide every sealed batch that can be decided; batch -> state.  A delta whose predecessor is missing waits.

    Also closes batches that nobody committed in time, and clears what a killed process left decrypted.
    """
    reception.spool.sweep()
    _expire(reception)
    decided: dict[str, str] = {}
    again = True
    while again:
        again = False
        with reception.store.reading() as tx:
            rows = tx.all(BatchRow, order=("agency", "flow", "sequence", "id"), state=("sealed", "validating"))
        for row in rows:
            if stop is not None and stop.is_set():
                return decided
            if decided.get(row.id) == UNDECIDED:
                continue
            try:
                decided[row.id] = validate(reception, row.id)
            except Exception as wrong:  # one batch must not keep the others out; it stays sealed, for the next time
                log.error("batch undecided", batch=row.id, agency=row.agency, flow=row.flow, fault=type(wrong).__name__)
                decided[row.id] = UNDECIDED
            # a batch that was let in may be what another one waits for
            again = again or decided[row.id] == "accepted"
    return decided


def _expire(reception: Reception) -> None:
    at = clock.now()
    with reception.store.reading() as tx:
        late = [row.id for row in tx.all(BatchRow, state="open") if row.expires_at <= at]
    for batch in late:
        with reception.store.transaction() as tx:
            row = tx.one(BatchRow, id=batch, state="open")
            if row is not None:
                _close(reception, tx, row, "expired", at=at)
        reception.spool.drop(batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What became of a batch, before it is written down."""

    state: str  # accepted, quarantined, rejected, superseded; sealed: it waits
    code: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    deletes: Mapping[str, int] = field(default_factory=dict)
    findings: Sequence[tuple[str, int, str, str]] = ()
    totals: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    items: Sequence[Mapping[str, Any]] = ()
    gone_items: Sequence[str] = ()
    gone_records: Sequence[str] = ()


def validate(reception: Reception, batch: str, *, released_by: str | None = None) -> str:
    """Decide one sealed batch, and the state it is in then: `sealed` if it has to wait for an earlier night.

    `released_by` is the person who looked at a quarantined batch and lets it in: its rows are checked again, its size
    is not.  Accepting writes items, state and event in one transaction.
    """
    from_states = ("sealed", "validating") if released_by is None else ("quarantined",)
    with reception.store.transaction() as tx:
        row = tx.one(BatchRow, id=batch)
        if row is None:
            raise NotFound("there is no such batch")
        if row.state not in from_states:
            return row.state
        if row.state == "sealed":
            row.state = "validating"
            tx.add(row)
    judged = _judge(reception, row, guarded=released_by is None)
    at = clock.now()
    with reception.store.transaction() as tx:
        held = tx.one(BatchRow, id=batch)
        if held is None or held.state != ("validating" if released_by is None else "quarantined"):
            return held.state if held else "rejected"  # decided meanwhile, by another process
        _apply(reception, tx, held, judged, at=at, by=released_by or "")
    if judged.state in ("rejected", "superseded"):
        reception.spool.drop(batch)
    reception.trail.wake()
    if judged.code == "gap":
        log.warning("batch waits for an earlier night", agency=row.agency, flow=row.flow, batch=row.id)
    log.info("batch decided", agency=row.agency, flow=row.flow, batch=row.id, state=judged.state)
    return judged.state


def _judge(reception: Reception, row: BatchRow, *, guarded: bool) -> _Judged:
    manifest = Manifest.parse(row.manifest)
    with reception.store.reading() as tx:
        flow = _flow(tx, row)
        agency = tx.one(AgencyRow, id=row.agency)
        usual = _usual_rows(tx, row)
    if (settled := _out_of_order(row, manifest, flow)) is not None:
        return settled
    key = reception.keys.data_key(row.dek_wrapped, row.id)
    with reception.spool.opened(row.id, manifest, key) as (folder, wrong):
        if wrong:
            findings = [(str(table), 0, "", "wrong_digest") for table in wrong]
            totals = {(str(table), "", "wrong_digest"): 1 for table in wrong}
            return _Judged(state="rejected", code="wrong_digest", findings=findings, totals=totals)
        judged = _checked(reception, folder, manifest)
        if judged.state != "accepted":
            return judged
        if agency is None or agency.state != "active":
            return replace(judged, state="quarantined", code="agency_not_active")
        if guarded and (code := _unusual(row, judged, usual)):
            return replace(judged, state="quarantined", code=code)
        return _read_items(reception, row, key, folder, judged)


def _out_of_order(row: BatchRow, manifest: Manifest, flow: AgencyFlowRow) -> _Judged | None:
    """What the sequence alone settles; a full batch may leap a gap, a delta waits for what it builds on."""
    if row.sequence < flow.last_sequence:
        return _Judged(state="superseded", code="older_night")
    if row.kind == "delta" and row.sequence > flow.last_sequence + 1:
        return _Judged(state="sealed", code="gap")
    if row.kind == "delta" and manifest.previous != flow.last_manifest_sha256:
        return _Judged(state="rejected", code="previous_mismatch")
    return None


def _checked(reception: Reception, folder: Path, manifest: Manifest) -> _Judged:
    verdict = intake.check(folder, manifest, reception.codes, limits=reception.limits)
    return _Judged(
        state="accepted" if verdict.accepted else "rejected",
        code=None if verdict.accepted else "bad_rows",
        counts={str(table): rows for table, rows in verdict.counts.items()},
        deletes={str(table): rows for table, rows in verdict.deletes.items()},
        findings=[(found.table, found.row, found.column, found.code) for found in verdict.findings],
        totals={(str(table), column, code): count for (table, column, code), count in verdict.totals.items()},
    )


def _flow(tx: Reading, row: BatchRow) -> AgencyFlowRow:
    flow = tx.one(AgencyFlowRow, agency=row.agency, flow=row.flow)
    if flow is None:
        raise UnknownFlow("this agency has no flow of this name")
    return flow


def _usual_rows(tx: Reading, row: BatchRow) -> list[int]:
    """Persons of each full batch of this flow that was taken in the last 30 days."""
    since = clock.now() - MEDIAN_OVER
    before = tx.all(BatchRow, agency=row.agency, flow=row.flow, kind="full", state=(*LIVE, "superseded"))
    return [
        int(batch.counts["persons"])
        for batch in before
        if batch.id != row.id and batch.decided_at and batch.decided_at >= since and "persons" in batch.counts
    ]


def _unusual(row: BatchRow, judged: _Judged, usual: Sequence[int]) -> str | None:
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


def _read_items(reception: Reception, row: BatchRow, key: DataKey, folder: Path, judged: _Judged) -> _Judged:
    """The batch's items, sealed row by row under its key, and what a delta deletes."""
    items = intake.read(folder, "items", reception.profile, limits=reception.limits)
    kept: list[dict[str, Any]] = []
    gone: list[str] = []
    for item in _rows(items):
        if item["op"] == "delete":
            gone.append(item["item_ref"])
            continue
        sealed = key.seal_item(payload(item), agency=row.agency, batch=row.id, item_ref=item["item_ref"])
        public = ("record_ref", "item_ref", "category", "occurred_on", "recorded_on", "retain_until")
        kept.append({**{name: item[name] for name in public}, "sealed": sealed})
    records: list[str] = []
    if judged.deletes["persons"]:
        persons = intake.read(folder, "persons", reception.profile, limits=reception.limits)
        records = [row["record_ref"] for row in _rows(persons.select(["op", "record_ref"])) if row["op"] == "delete"]
    return replace(judged, items=kept, gone_items=gone, gone_records=records)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def _apply(reception: Reception, tx: Transaction, row: BatchRow, judged: _Judged, *, at: datetime, by: str) -> None:
    totals = [
        {"table": table, "column": column, "code": code, "count": count}
        for (table, column, code), count in sorted(judged.totals.items())
    ]
    row.verdict = {"code": judged.code, "state": judged.state, "totals": totals, "deletes": dict(judged.deletes)}
    if judged.state == "sealed":  # it waits: not a verdict
        row.state = "sealed"
        tx.add(row)
        return
    row.state, row.decided_at = judged.state, at
    if judged.counts:
        row.counts = dict(judged.counts)
    for old in tx.all(BatchRejectionRow, batch=row.id):
        tx.delete(old)
    for position, (table, number, column, code) in enumerate(judged.findings):
        tx.add(
            BatchRejectionRow(
                batch=row.id, position=position, table=table, row=number or None, column=column or None, code=code,
                hint=HINTS[code],
            )
        )  # fmt: skip
    if judged.state == "accepted":
        _take_in(tx, row, judged, at=at)
    word = judged.state if judged.state != "superseded" else "accepted"
    row.verdict_event = _record(
        reception, tx, row, f"submission.{word}", at=at, outcome=judged.code or judged.state, by=by
    )
    tx.add(row)


def _take_in(tx: Transaction, row: BatchRow, judged: _Judged, *, at: datetime) -> None:
    """Items in, the flow moved on, an earlier night that this one replaces superseded: all in this transaction."""
    if row.kind == "full":
        delete_items(tx, row.agency, row.flow)
        for earlier in tx.all(BatchRow, agency=row.agency, flow=row.flow, state="accepted"):
            if earlier.id != row.id:
                earlier.state = "superseded"
                tx.add(earlier)
    else:
        changed = [*judged.gone_items, *(item["item_ref"] for item in judged.items)]
        delete_items(tx, row.agency, row.flow, item_refs=changed)
        delete_items(tx, row.agency, row.flow, record_refs=judged.gone_records)
    insert_items(tx, judged.items, agency=row.agency, flow=row.flow, batch=row.id)
    flow = _flow(tx, row)
    flow.last_sequence, flow.last_manifest_sha256, flow.last_batch = row.sequence, row.manifest_sha256, row.id
    flow.last_accepted_at, flow.as_of = at, row.extracted_at
    tx.add(flow)


def release(reception: Reception, batch: str, *, by: str) -> str:
    """Let in a quarantined batch that a person has looked at; the state it is in then.  Raises WrongState."""
    with reception.store.reading() as tx:
        row = tx.one(BatchRow, id=batch)
    if row is None or row.state != "quarantined":
        raise WrongState("there is no such batch in quarantine")
    return validate(reception, batch, released_by=by)


# --- For the night ---------------------------------------------------------------------------------------------------


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


class Worker:
    """A thread that validates what is sealed: woken by a commit, and by itself every minute for what waits."""

    EVERY_SECONDS: Final = 60.0

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Start, with what an earlier process left undecided."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def stop(self) -> None:
        """End after the batch at hand."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                validate_sealed(self._reception, stop=self._stop)
            except (BrokerError, OSError) as wrong:  # the store or disk is away: later
                log.error("intake failed", fault=type(wrong).__name__)
            except Exception as wrong:  # the thread must outlive any fault; the batch stays undecided
                log.error("intake failed", fault=type(wrong).__name__)
            self._wake.wait(self.EVERY_SECONDS)
            self._wake.clear()
