"""The register: agreements and restrictions as they were signed, and what of them is in force here.

Every change is an event in the log, in the transaction of the change.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agreements import Agreement, PartyKey, Signature, Snapshot, read, verify
from agreements.agreement import Document, Restriction
from agreements.document import DocumentRefused
from agreements.signing import BadSignature as SignatureRefused
from agreements.signing import status as party_states
from agreements.signing import verify_event
from broker.documents import umbrellas_of
from broker.errors import (
    BadAgreement,
    BadSignature,
    Conflict,
    NotFound,
    UnsafeRegister,
    WrongState,
)
from broker.keys import unb64url
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyKeyRow
from broker.store.documents import AgreementRow, AgreementSignatureRow, AgreementStatusRow
from broker.trail import EntryRef, Trail, Who, record_change

log = structlog.get_logger()


def snapshot(reading: Reading) -> Snapshot:
    """What is signed and in force at this host: every active document, with its parties' signatures and events.

    Compiled once for one state of the register; every signature is verified again on compiling, and one that no longer
    holds counts as not given.  A document whose umbrella is not in force is not either.
    Raises UnsafeRegister if a restriction's own signature no longer holds: to leave it out would show more, not less.
    """
    active = reading.all(AgreementRow, status="active", order=("ref",))
    there = {row.ref for row in active}
    rows = [row for row in active if row.under is None or row.under in there]
    refs = tuple(row.ref for row in rows)
    signatures = reading.all(AgreementSignatureRow, agreement=refs, order=("agreement", "party"))
    events = [row for row in reading.all(AgreementStatusRow, agreement=refs, order=("number",)) if row.jws]
    keys = reading.all(AgencyKeyRow, use="signatory", order=("kid",))
    state = (
        tuple((row.ref, row.digest) for row in rows),
        tuple((row.agreement, row.party, row.jws) for row in signatures),
        tuple((row.number, row.jws) for row in events),
        tuple((row.kid, row.public, row.revoked_at) for row in keys),
    )
    with _compiling:
        if state not in _compiled:
            made = _compile(rows, signatures, events, _party_keys(keys))
            _compiled.clear()
            _compiled[state] = made
        return _compiled[state]


def import_document(store: Store, trail: Trail, source: bytes, *, who: Who, at: datetime) -> str:
    """Take in an agreement or a restriction as a draft; its ref.  Twice the same changes nothing.

    Raises BadAgreement, with every finding, if it can't be read; Conflict if its ref holds another text.
    """
    with store.transaction() as tx:
        document = _read(tx, source)
        row = tx.one(AgreementRow, ref=document.ref)
        if row is not None:
            if row.digest != document.digest:
                raise Conflict(f"{document.ref} is here with another text: give the new one a new version")
            return row.ref
        restriction = isinstance(document, Restriction)
        under = document.under.ref if isinstance(document, Agreement) and document.under else None
        kind = "restriction" if restriction else "agreement" if _grants(document) else "umbrella"
        tx.add(
            AgreementRow(
                ref=document.ref, kind=kind, id=document.id, version=document.version, under=under,
                owner=document.owner if isinstance(document, Restriction) else None,
                digest=document.digest, document=source, status="draft", imported_at=at, changed_at=at,
            )
        )  # fmt: skip
        tx.flush()
        _status(tx, document.ref, "draft", "imported", who, at)
        record_change(
            tx, trail, "agreement.imported", who, at, agreement=document.ref, digest=document.digest, kind=kind
        )
        return document.ref


def add_signatures(
    store: Store, trail: Trail, ref: str, jws: Mapping[str, Any], *, who: Who, at: datetime
) -> tuple[str, ...]:
    """Keep the signatures of a JWS over a document; the parties that signed.  One bad signature spoils all.

    Raises NotFound, and BadSignature, which names the party or key.
    """
    with store.transaction() as tx:
        row = _document_row(tx, ref)
        document = _documents_of(tx, [row])[0]
        registered = _party_keys(tx.all(AgencyKeyRow, use="signatory"))
        parties, new = [], []
        for one in jws.get("signatures", ()):
            alone = {"payload": jws.get("payload"), "signatures": [one]}
            try:
                (signature,) = verify(document, alone, registered)
            except (SignatureRefused, ValueError) as wrong:
                raise BadSignature(str(wrong)) from None
            parties.append(signature.party)
            if tx.one(AgreementSignatureRow, agreement=ref, party=signature.party) is None:
                new.append(signature.party)
                tx.add(
                    AgreementSignatureRow(
                        agreement=ref, party=signature.party, kid=signature.kid, jws=json.dumps(alone), received_at=at
                    )
                )
        if not parties:
            raise BadSignature("there is no signature in this JWS")
        if new:
            record_change(tx, trail, "agreement.signed", who, at, agreement=ref, digest=row.digest, parties=sorted(new))
        return tuple(parties)


def ref_signed(store: Store, jws: Mapping[str, Any]) -> str:
    """The ref of the registered document whose digest a JWS says it signs; nothing is verified.

    Raises NotFound, BadSignature if the JWS can't be read.
    """
    try:
        signed = sha256(unb64url(jws["payload"])).hexdigest()
    except (KeyError, TypeError, ValueError):
        raise BadSignature("a JWS in JSON serialisation, with its payload, is due") from None
    with store.reading() as reading:
        row = reading.one(AgreementRow, digest=signed)
    if row is None:
        raise NotFound("the document that was signed is not in the register")
    return row.ref


def add_party_event(store: Store, trail: Trail, ref: str, jws: Mapping[str, Any], *, who: Who, at: datetime) -> str:
    """Keep a party's own signed event on a document (suspend, resume, withdraw, supersede); what it does.

    Raises NotFound, BadSignature.
    """
    kinds = {"suspend": "suspended", "resume": "resumed", "withdraw": "withdrawn", "supersede": "superseded"}
    with store.transaction() as tx:
        row = _document_row(tx, ref)
        try:
            event = verify_event(jws, _party_keys(tx.all(AgencyKeyRow, use="signatory")))
        except (SignatureRefused, ValueError) as wrong:
            raise BadSignature(str(wrong)) from None
        if event.digest != row.digest:
            raise BadSignature("the event is about another document")
        tx.add(
            AgreementStatusRow(
                agreement=ref, status=event.do, reason="party", by=event.party, jws=json.dumps(dict(jws)), at=at
            )
        )
        record_change(tx, trail, f"agreement.{kinds[event.do]}", who, at, agreement=ref, party=event.party)
        return event.do


def activate(store: Store, trail: Trail, ref: str, *, who: Who, at: datetime) -> EntryRef | None:
    """Put a document in force at this host; None if it is already.  Raises NotFound, BadAgreement if nobody signed it.

    A party that has not signed yet stops its own flows only: a clause is live between two that both have.
    """
    with store.transaction() as tx:
        row = _document_row(tx, ref)
        document = _documents_of(tx, [row])[0]
        if row.status == "active":
            return None
        states = _party_states(tx, document, at)
        if not any(state != "unsigned" for state in states.values()):
            raise BadAgreement(f"{ref} is signed by nobody yet: it takes its source and its recipient, at least")
        row.status, row.changed_at = "active", at
        tx.add(row)
        _status(tx, ref, "active", "activated", who, at)
        return record_change(tx, trail, "agreement.activated", who, at, agreement=ref, digest=row.digest)


def suspend(store: Store, trail: Trail, ref: str, *, who: Who, at: datetime) -> EntryRef:
    """Take a document out of force at this host, from the next decision on; `activate` puts it back.

    Raises NotFound, WrongState if it is not in force.
    """
    with store.transaction() as tx:
        row = _document_row(tx, ref)
        if row.status != "active":
            raise WrongState(f"{ref} is not in force")
        if row.kind == "restriction":
            raise WrongState("a restriction is ended by its owner, not by the host")
        row.status, row.changed_at = "suspended", at
        tx.add(row)
        _status(tx, ref, "suspended", "by-host", who, at)
        return record_change(tx, trail, "agreement.suspended", who, at, agreement=ref, party="host")


@dataclass(frozen=True, slots=True)
class Listed:
    """A document as listed: its status here and its parties' states."""

    ref: str
    kind: str
    status: str
    digest: str
    parties: Mapping[str, str]


def documents(reading: Reading, *, at: datetime) -> tuple[Listed, ...]:
    """Every document of the register."""
    rows = reading.all(AgreementRow, order=("ref",))
    return tuple(
        Listed(row.ref, row.kind, row.status, row.digest, _party_states(reading, document, at))
        for row, document in zip(rows, _documents_of(reading, rows), strict=True)
    )


_compiled: dict[object, Snapshot] = {}
_compiling = threading.Lock()


def _compile(
    rows: Sequence[AgreementRow],
    signatures: Sequence[AgreementSignatureRow],
    events: Sequence[AgreementStatusRow],
    registered: Mapping[str, PartyKey],
) -> Snapshot:
    documents = {document.ref: document for document in _documents(rows)}
    holding: list[Signature] = []
    for row in signatures:
        try:
            holding += verify(documents[row.agreement], json.loads(row.jws), registered)
        except (SignatureRefused, ValueError):
            if isinstance(documents[row.agreement], Restriction):
                raise UnsafeRegister(f"the signature of restriction {row.agreement} no longer holds") from None
            log.error("signature no longer holds", agreement=row.agreement, agency=row.party)
    stated = [verify_event(json.loads(row.jws or ""), registered) for row in events]
    return Snapshot.of(documents.values(), holding, stated, registered)


def _read(reading: Reading, source: bytes) -> Document:
    umbrellas = umbrellas_of([row.document for row in reading.all(AgreementRow, kind="umbrella")])
    try:
        return read(source, umbrellas=umbrellas)
    except DocumentRefused as refused:
        raise BadAgreement(str(refused)) from None


def _documents_of(reading: Reading, rows: Sequence[AgreementRow]) -> list[Document]:
    return [_read(reading, row.document) for row in rows]


def _documents(rows: Sequence[AgreementRow]) -> list[Document]:
    umbrellas = umbrellas_of([row.document for row in rows if row.kind == "umbrella"])
    try:
        return [read(row.document, umbrellas=umbrellas) for row in rows]
    except DocumentRefused as refused:
        raise BadAgreement(str(refused)) from None


def _grants(document: Document) -> bool:
    return isinstance(document, Agreement) and bool(document.grants)


def _document_row(reading: Reading, ref: str) -> AgreementRow:
    row = reading.one(AgreementRow, ref=ref)
    if row is None:
        raise NotFound(f"there is no document {ref} in the register")
    return row


def _party_keys(rows: Sequence[AgencyKeyRow]) -> dict[str, PartyKey]:
    return {
        row.kid: PartyKey(
            kid=row.kid,
            public=Ed25519PublicKey.from_public_bytes(unb64url(row.public)),
            valid_from=None,
            valid_to=row.revoked_at,
        )
        for row in rows
    }


def _party_states(reading: Reading, document: Document, at: datetime) -> Mapping[str, str]:
    registered = _party_keys(reading.all(AgencyKeyRow, use="signatory"))
    signatures = [
        signature
        for row in reading.all(AgreementSignatureRow, agreement=document.ref)
        for signature in verify(document, json.loads(row.jws), registered)
    ]
    events = [
        verify_event(json.loads(row.jws), registered)
        for row in reading.all(AgreementStatusRow, agreement=document.ref, order=("number",))
        if row.jws
    ]
    return party_states(document, signatures, events, at)


def _status(tx: Transaction, ref: str, status: str, reason: str, who: Who, at: datetime) -> None:
    by = str(who.get("person") or who.get("role") or who.get("organisation") or "")
    tx.add(AgreementStatusRow(agreement=ref, status=status, reason=reason, by=by, at=at))
