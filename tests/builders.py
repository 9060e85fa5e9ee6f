"""Small, valid things to start a test from; a test changes what it is about.

People here are made up, and so are their encodings: bigrams hashed into 512 bits without a key.  They are as alike as
real encodings are, so that linkage works on them, and no test of privacy may use them.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from linkage.records import (
    FILTERS,
    QUALITY_FLAGS,
    SCHEMA,
    TABLES,
    TOKENS,
    Manifest,
    Profile,
    TableEntry,
    schema_of,
)

COUNCIL: Final = "northshire-council"
ICB: Final = "northshire-icb"
POLICE: Final = "northshire-police"
PARTNERSHIP: Final = "northshire"
EPOCH: Final = "2026-1"
FINGERPRINT: Final = hashlib.sha256(b"a linkage key of the tests").hexdigest()[:16]
CANARIES: Final = (101, -202, 303)
ENCODER: Final = "encoder-3"
CODES_SHA256: Final = "0" * 64
CHUNK: Final = 1024 * 1024


def _category(**changes: Any) -> dict[str, Any]:
    empty = {"outcomes": None, "outcome_pattern": None, "outcome_system": None, "role_required": False}
    return {"never_ingest": False, "codes": None, "number": False, **empty, **changes}


CODES: Final[Any] = {
    "version": "test-1",
    "categories": {
        "education.attendance": _category(codes={"attendance_band": ["ABOVE_90", "SEVERE"]}, number=True),
        "education.enrolment": _category(codes={"enrolment": ["ENROLLED", "LEFT"]}, outcomes=["R", "1", "2"]),
        "health.not_brought": _category(number=True),
        "health.registration": _category(codes={"trace": ["traced"]}, outcome_pattern="^[A-Z][0-9]{5}$"),
        "health.sealed": _category(never_ingest=True),
        "social_care.looked_after": _category(
            codes={"placement": ["A3", "U1"]}, outcomes=["E4", "E11"], outcome_system="ceased", role_required=True
        ),
    },
    "denied": {"hiv": [], "placement": ["A3"], "ceased": ["E11"]},
}
"""A few code lists, some of them as the vocabulary has them, in the shape of `agreements.vocabulary.codes_for_agencies()`."""


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def a_ref(*parts: object) -> str:
    """A record or item ref: 64 hex, the same for the same parts."""
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()


def a_token(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:8], "little", signed=True)


# --- Signatures ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signer:
    """An agency's manifest key."""

    kid: str
    key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> str:
        return b64url(self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, payload: bytes) -> str:
        """Detached JWS: protected, two dots, signature."""
        protected = b64url(rfc8785.dumps({"alg": "Ed25519", "kid": self.kid}))
        return f"{protected}..{b64url(self.key.sign(f'{protected}.{b64url(payload)}'.encode()))}"


@cache
def a_signer(agency: str = COUNCIL, number: int = 1) -> Signer:
    seed = hashlib.sha256(f"signing key {agency} {number}".encode()).digest()
    return Signer(f"{agency}/{number}", Ed25519PrivateKey.from_private_bytes(seed))


# --- Rows ------------------------------------------------------------------------------------------------------------


def a_filter(text: str | None, salt: str = "") -> dict[str, int | None]:
    """Words and popcount, named `w0`..`w7` and `n`, of a text's bigrams; all None for None."""
    if text is None:
        return {**{f"w{word}": None for word in range(8)}, "n": None}
    padded = f"_{text}_"
    bits = 0
    for left, right in pairwise(padded):
        for round_ in range(10):
            at = int.from_bytes(hashlib.sha256(f"{salt}|{left}{right}|{round_}".encode()).digest()[:2], "little") % 512
            bits |= 1 << at
    raw = bits.to_bytes(64, "little")
    words = {f"w{word}": int.from_bytes(raw[8 * word : 8 * word + 8], "little", signed=True) for word in range(8)}
    return {**words, "n": bits.bit_count()}


def a_person(
    ref: str,
    *,
    given: str | None = "alice",
    family: str | None = "archer",
    dob: str | None = "2015-03-04",
    postcode: str | None = "NS1 1AA",
    profile: Profile = "guarded-3",
    **changes: Any,
) -> dict[str, Any]:
    """A row of `persons`, encoded; any column may be changed by name, identifiers as `id_...` = any text."""
    texts = {"given": given, "family": family, "dob": dob, "postcode": postcode}
    row: dict[str, Any] = dict.fromkeys(schema_of("persons", profile).names)
    row |= {"op": "upsert", "record_ref": ref, "person_role": "child", "shield": "none", "sex": "F"}
    row |= dict.fromkeys(QUALITY_FLAGS, False)
    for name in FILTERS[profile]:
        source, _, salt_of = name.partition("_")
        salt = {"": "", "d": dob, "p": postcode}[salt_of]
        encoded = a_filter(texts[source] if salt is not None else None, salt or "")
        row |= {f"{name}_{part}": value for part, value in encoded.items()}
    said: dict[str, str | None] = {
        "given": given, "family": family, "dob": dob, "postcode": postcode, "sector": postcode and postcode[:-2],
        "given1": given and given[:1], "family1": family and family[:1], "d": dob, "p": postcode,
        "year": dob and dob[:4], "daymonth": dob and dob[5:],
        "n": changes.get("id_nhs_number"), "u": changes.get("id_upn"),
    }  # fmt: skip
    for name in TOKENS[profile]:  # a token is named by its parts; a name sounds only like itself here
        parts = name.replace("_initial", "1").replace("_soundex", "").replace("_name", "").split("_")
        values = [given, family] if name == "soundex_pair" else [said[part] for part in parts]
        row[f"t_{name}"] = None if None in values else a_token(name, *values)
    if dob is not None:
        row["birth_year"] = int(dob[:4])
    for name, value in changes.items():
        row[name] = a_token(name.removeprefix("superseded_"), value) if name.startswith("id_") and value else value
    return row


def a_relationship(ref_a: str, ref_b: str | None, type_: str = "sibling", **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"op": "upsert", "ref_a": ref_a, "ref_b": ref_b, "household": None, "type": type_}
    return {**row, "verified": True, "valid_from": None, "valid_to": None, **changes}


def an_item(ref: str, record: str, category: str = "education.enrolment", **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(schema_of("items", "guarded-3").names)
    row |= {"op": "upsert", "item_ref": ref, "record_ref": record, "category": category, "role": "subject"}
    row |= {"code_system": "enrolment", "code": "ENROLLED", "regime": "GENERAL", "opinion": False}
    row |= {"occurred_on": date(2025, 9, 2), "recorded_on": date(2025, 9, 3), "contact_ref": "safeguarding-desk"}
    return {**row, **changes}


# --- Batches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """A batch as an agency's client holds it: the manifest, its signature, and each table's file."""

    manifest: Manifest
    files: Mapping[str, bytes]
    signer: Signer

    @property
    def body(self) -> bytes:
        return self.manifest.canonical()

    @property
    def signature(self) -> str:
        return self.signer.sign(self.body)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    def chunks(self) -> list[tuple[str, int, bytes]]:
        """Table, number and bytes of every chunk."""
        size = self.manifest.chunk_size
        return [
            (table, number, self.files[table][number * size : (number + 1) * size])
            for table in TABLES
            for number in range(len(self.manifest.tables[table].chunks))
        ]

    def with_files(self, **files: bytes) -> Batch:
        """Other files, and a manifest that tells the truth about their bytes (rows stay as they were said to be)."""
        held = {**self.files, **files}
        tables = {
            name: an_entry(held[name], rows=self.manifest.tables[name].rows, chunk_size=self.manifest.chunk_size)
            for name in TABLES
        }
        return Batch(replace(self.manifest, tables=tables), held, self.signer)

    def saying(self, **changes: Any) -> Batch:
        """The same files under a manifest that says something else."""
        return replace(self, manifest=replace(self.manifest, **changes))


def parquet(rows: Iterable[Mapping[str, Any]] | pa.Table, schema: pa.Schema | None = None) -> bytes:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def an_entry(raw: bytes, *, rows: int, chunk_size: int = CHUNK) -> TableEntry:
    chunks = tuple(
        hashlib.sha256(raw[at : at + chunk_size]).hexdigest() for at in range(0, max(len(raw), 1), chunk_size)
    )
    return TableEntry(rows=rows, size=len(raw), sha256=hashlib.sha256(raw).hexdigest(), chunks=chunks)


def a_manifest(**changes: Any) -> Manifest:
    """Night 1 of the council's education flow, with three empty tables."""
    profile: Profile = changes.get("profile", "guarded-3")
    tables = {name: an_entry(parquet([], schema_of(name, profile)), rows=0) for name in TABLES}
    said: dict[str, Any] = {
        "schema": SCHEMA, "agency": COUNCIL, "flow": "education", "agreements": ("northshire-mash@3.0.0",),
        "profile": profile, "encoder": ENCODER, "codes_sha256": CODES_SHA256, "key_epoch": EPOCH,
        "key_fingerprint": FINGERPRINT, "canaries": CANARIES, "sequence": 1, "kind": "full",
        "period_from": "2026-03-01", "period_to": "2026-03-02", "extracted_at": "2026-03-02T01:00:00Z",
        "expires_at": "2026-03-04T01:00:00Z", "previous": "", "duplicates": False, "chunk_size": CHUNK,
        "tables": tables,
    }  # fmt: skip
    return Manifest(**{**said, **changes})


def a_batch(
    *,
    persons: Sequence[Mapping[str, Any]] | None = None,
    relationships: Sequence[Mapping[str, Any]] | None = None,
    items: Sequence[Mapping[str, Any]] | None = None,
    signer: Signer | None = None,
    **said: Any,
) -> Batch:
    """Two siblings, what joins them and one item each, signed; any part may be given, and any word of the manifest."""
    said.setdefault("agency", COUNCIL)
    profile: Profile = said.get("profile", "guarded-3")
    alice, ben = a_ref(said["agency"], said.get("flow"), "alice"), a_ref(said["agency"], said.get("flow"), "ben")
    if persons is None:
        persons = [
            a_person(alice, profile=profile),
            a_person(ben, given="ben", dob="2017-06-01", sex="M", profile=profile),
        ]
        relationships = [a_relationship(alice, ben)] if relationships is None else relationships
        items = [an_item(a_ref("item", ref), ref) for ref in (alice, ben)] if items is None else items
    rows: dict[str, Sequence[Mapping[str, Any]]] = {
        "persons": persons,
        "relationships": relationships or [],
        "items": items or [],
    }
    files = {name: parquet(rows[name], schema_of(name, profile)) for name in TABLES}
    chunk_size = said.get("chunk_size", CHUNK)
    tables = {name: an_entry(files[name], rows=len(rows[name]), chunk_size=chunk_size) for name in TABLES}
    return Batch(a_manifest(tables=tables, **said), files, signer or a_signer(said["agency"]))
