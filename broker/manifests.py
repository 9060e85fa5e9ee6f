"""What a manifest must say, and who must have signed it, for a batch to be opened.  A refusal names the first place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from email.utils import format_datetime
from typing import Final

import rfc8785

from agreements.agreement import london_midnight
from broker import epochs
from broker.errors import (
    AgencyNotActive,
    BadSignature,
    BatchRefused,
    Malformed,
    TooLarge,
    UnknownFlow,
    UnknownSchema,
)
from broker.keys import kid_of, unb64url, verify_detached
from broker.reception import Reception
from broker.store import Reading
from broker.store.agencies import AgencyFlowRow, AgencyKeyRow, AgencyRow
from broker.store.documents import AgreementRow
from linkage.records import MANIFEST_MEDIA_TYPE, SCHEMA, TABLES, BadManifest, Manifest, Table

MiB: Final = 1024 * 1024
ENCODERS: Final = ("encoder-3",)
SMALLEST_CHUNK: Final = MiB
LARGEST_CHUNK: Final = 64 * MiB
VERSIONS: Final[tuple[Mapping[str, str | None], ...]] = (
    {"schema": SCHEMA, "media_type": MANIFEST_MEDIA_TYPE, "deprecated": None, "sunset": None},
)
"""The forms of a manifest that are taken, newest first.  Of one that is on its way out `deprecated` is the day since
when it is, and `sunset` the last on which it is taken (ISO 8601, London)."""

_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def parsed(raw: bytes) -> Manifest:
    """The manifest in `raw`.  Raises Malformed unless these bytes are its canonical form."""
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


def farewell(raw: bytes) -> dict[str, str]:
    """What an answer says to a sender whose form of manifest is on its way out: `Deprecation` (RFC 9745) and `Sunset`
    (RFC 8594); nothing to any other.
    """
    days = _last_days(Manifest.parse(raw))
    if days is None:
        return {}
    since, over = (london_midnight(day) for day in days)
    return {"Deprecation": f"@{int(since.timestamp())}", "Sunset": format_datetime(over, usegmt=True)}


def _last_days(manifest: Manifest) -> tuple[date, date] | None:
    """Since which day a manifest's form is on its way out, and the first on which it is not taken; None if it stays."""
    form = next(one for one in VERSIONS if one["schema"] == manifest.schema)
    if form["deprecated"] is None or form["sunset"] is None:
        return None
    return date.fromisoformat(form["deprecated"]), date.fromisoformat(form["sunset"]) + timedelta(days=1)


def verify(tx: Reading, agency: str, raw: bytes, signature: str | None) -> None:
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


def on_our_terms(reception: Reception, tx: Reading, manifest: Manifest, at: datetime) -> None:
    """Raise what is wrong with a manifest that is well formed and signed, naming the first place."""
    agency = tx.one(AgencyRow, id=manifest.agency)
    if agency is None or agency.state != "active":
        raise AgencyNotActive("this agency is not active")
    if tx.one(AgencyFlowRow, agency=manifest.agency, flow=manifest.flow) is None:
        raise UnknownFlow("manifest.flow: this agency has no flow of this name")
    if (days := _last_days(manifest)) is not None and at >= london_midnight(days[1]):
        raise UnknownSchema("manifest.schema", known=tuple(one["schema"] or "" for one in VERSIONS[:1]))
    due = epochs.key_due(tx, agency, manifest.key_epoch)
    for place, wrong in (
        ("profile", manifest.profile != reception.profile and f"this partnership uses {reception.profile}"),
        ("key_epoch", manifest.key_epoch != due.name and f"the epoch in use is {due.name}"),
        (
            "key_fingerprint",
            manifest.key_fingerprint != due.fingerprint and "the linkage key is another than the one enrolled",
        ),
        (
            "canaries",
            tuple(map(str, manifest.canaries)) != due.canaries
            and "the linkage key or the encoder gives other tokens than those enrolled",
        ),
        (
            "codes_sha256",
            manifest.codes_sha256 != reception.codes_sha256
            and f"the code lists in use are {reception.codes['version']}",
        ),
        ("agreements", not manifest.agreements and "no agreement is named"),
        ("kind", due.prepared and manifest.kind != "full" and f"{due.name} is being prepared: a full batch is due"),
    ):
        if wrong:
            raise BatchRefused(f"manifest.{place}: {wrong}")
    if manifest.encoder.partition(" ")[0] not in ENCODERS:
        raise UnknownSchema("manifest.encoder", known=ENCODERS)
    for number, ref in enumerate(manifest.agreements):
        row = tx.one(AgreementRow, ref=ref)
        if row is None or row.status == "draft" or row.kind == "restriction":
            raise BatchRefused(f"manifest.agreements[{number}]: no such agreement is in force here")
    _dates(manifest, at)
    _sizes(reception, manifest)


def _dates(manifest: Manifest, at: datetime) -> None:
    instant(manifest.extracted_at, "extracted_at")
    if instant(manifest.expires_at, "expires_at") <= at:
        raise BatchRefused("manifest.expires_at: the manifest has expired; sign a new one")
    for name in ("period_from", "period_to"):
        try:
            date.fromisoformat(getattr(manifest, name))
        except ValueError:
            raise Malformed(f"manifest.{name}: a date as YYYY-MM-DD is due") from None


def _sizes(reception: Reception, manifest: Manifest) -> None:
    if not SMALLEST_CHUNK <= manifest.chunk_size <= LARGEST_CHUNK:
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


def chunks(manifest: Manifest) -> Iterator[tuple[Table, int]]:
    """Every chunk that is due, by table and number."""
    for table in TABLES:
        for number in range(len(manifest.tables[table].chunks)):
            yield table, number


def instant(text: str, name: str) -> datetime:
    """A member of the manifest as an instant.  Raises Malformed, naming the member."""
    try:
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise Malformed(f"manifest.{name}: an instant in UTC is due, as 2026-03-02T01:00:00Z")
