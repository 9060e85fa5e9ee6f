"""Who takes part and what was signed: agencies, their keys and flows; agreements and restrictions.

Every change is an event in the log, in the transaction of the change.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from hashlib import sha256
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agreements import Agreement, PartyKey, Signature, Snapshot, read, verify
from agreements.agreement import Document, Restriction
from agreements.document import DocumentRefused
from agreements.signing import BadSignature as SignatureRefused
from agreements.signing import status as party_states
from agreements.signing import verify_event
from audit.events import Event, Json
from broker.documents import umbrellas_of
from broker.errors import (
    AgencyNotActive,
    BadAgreement,
    BadSignature,
    Conflict,
    Malformed,
    NotFound,
    UnknownAgency,
    UnknownFlow,
    UnsafeDatabase,
    UnsafeRegister,
    WrongState,
)
from broker.family_view import Contact, Feed, FeedState
from broker.keys import unb64url
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyFlowRow, AgencyKeyRow, AgencyRow
from broker.store.documents import AgreementRow, AgreementSignatureRow, AgreementStatusRow
from broker.store.sessions import InstallationRow
from broker.tokens import ClientKey
from broker.trail import EntryRef, Trail, new_event_id

log = structlog.get_logger()
LONDON: Final = ZoneInfo("Europe/London")
_ID: Final = re.compile(r"[a-z][a-z0-9-]{1,62}")
_FLOW: Final = re.compile(r"[a-z][a-z0-9_]{1,40}")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
Who = Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTerms:
    """One flow as agreed at enrolment: by when (London) each night's batch is due, and whom to ring about it."""

    flow: str
    expected_by: str = "06:00"
    contact: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """All that is registered about an agency; public halves of keys only."""

    agency: str
    name: str
    party_type: str
    sector: str
    roles: tuple[str, ...]
    contacts: Mapping[str, Contact]
    flows: tuple[FlowTerms, ...]
    signing_kid: str
    signing_public: str
    signatory: tuple[str, str] | None  # kid and public half of whoever signs agreements; None: not yet named
    client_jwk: Mapping[str, Any]
    key_epoch: str
    key_fingerprint: str
    canaries: tuple[str, ...]

    @classmethod
    def parse(cls, public: Mapping[str, Any], details: Mapping[str, Any]) -> Enrolment:
        """From an agency's `public.json` and the host's own `details` (name, party type, roles, contacts, flows).

        Raises Malformed, which names the member that is wrong.
        """
        try:
            contacts = {
                ref: Contact(name=body["name"], phone=body["phone"], out_of_hours=body.get("out_of_hours"))
                for ref, body in details.get("contacts", {}).items()
            }
            flows = tuple(
                FlowTerms(flow=flow, expected_by=terms.get("expected_by", "06:00"), contact=terms.get("contact"))
                for flow, terms in details["flows"].items()
            )
            enrolment = cls(
                agency=public["agency"], name=details["name"], party_type=details["party_type"],
                sector=details["sector"], roles=tuple(details.get("roles", ())), contacts=contacts, flows=flows,
                signing_kid=public["signing"]["kid"], signing_public=public["signing"]["public"],
                signatory=_signatory(public.get("signatory")),
                client_jwk=public["client"], key_epoch=public["key_epoch"],
                key_fingerprint=public["key_fingerprint"], canaries=tuple(public["canaries"]),
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError) as wrong:
            raise Malformed(f"the enrolment lacks a member, or one is of another type: {wrong.args[0]}") from None
        enrolment.checked()
        return enrolment

    def checked(self) -> None:
        """Raises Malformed or BadKey for what can't be enrolled."""
        if not _ID.fullmatch(self.agency):
            raise Malformed("agency: lower-case letters, digits and hyphens")
        if not self.signing_kid.startswith(f"{self.agency}/"):
            raise Malformed("signing.kid: <agency>/<number>")
        if not _is_raw_key(self.signing_public):
            raise Malformed("signing.public: 32 bytes of an Ed25519 key in base64url")
        if self.signatory is not None:
            kid, signs = self.signatory
            if not kid.startswith(f"{self.agency}/") or kid == self.signing_kid or signs == self.signing_public:
                raise Malformed(
                    "signatory: a key of its own, <agency>/<name>: who sends batches does not sign agreements"
                )
            if not _is_raw_key(signs):
                raise Malformed("signatory.public: 32 bytes of an Ed25519 key in base64url")
        ClientKey.of(self.client_jwk, owner=self.agency)
        if not all(_FLOW.fullmatch(terms.flow) and _TIME.fullmatch(terms.expected_by) for terms in self.flows):
            raise Malformed("flows: a name in lower case, expected_by as HH:MM")
        if unknown := {t.contact for t in self.flows if t.contact} - set(self.contacts):
            raise Malformed(f"flows: {len(unknown)} contact is not among the contacts")


def _is_raw_key(text: str) -> bool:
    try:
        return len(unb64url(text)) == 32
    except ValueError:
        return False


def _signatory(body: Mapping[str, Any] | None) -> tuple[str, str] | None:
    return None if body is None else (body["kid"], body["public"])


def claim_installation(store: Store, environment: str, *, at: datetime) -> None:
    """Mark an empty database as a demo's or as production's; later refuse to open it as the other.

    Raises UnsafeDatabase: real data are never served by a broker that lets people in without a password.
    """
    with store.reading() as reading:
        mark = reading.one(InstallationRow, id=1)
    if mark is None:
        with store.transaction() as tx:
            mark = tx.one(InstallationRow, id=1)
            if mark is None:
                mark = InstallationRow(id=1, environment=environment, at=at)
                tx.add(mark)
    if mark.environment != environment:
        raise UnsafeDatabase(f"this database is of a {mark.environment} installation, not of a {environment} one")


def enrol(store: Store, trail: Trail, enrolment: Enrolment, *, partnership: str, who: Who, at: datetime) -> EntryRef:
    """Enrol an agency, or change what is registered of it; new keys are added, old ones stay until revoked.

    Raises Conflict if a key of this name is registered with other bytes, WrongState for a revoked agency.
    """
    with store.transaction() as tx:
        row = tx.one(AgencyRow, id=enrolment.agency)
        if row is not None and row.state == "revoked":
            raise WrongState("a revoked agency is enrolled under a new name only")
        known = row is not None
        registered: dict[str, Any] = {
            "name": enrolment.name,
            "party_type": enrolment.party_type,
            "sector": enrolment.sector,
            "partnership": partnership,
            "key_epoch": enrolment.key_epoch,
            "key_fingerprint": enrolment.key_fingerprint,
            "canaries": list(enrolment.canaries),
            "roles": list(enrolment.roles),
            "contacts": {ref: _contact(contact) for ref, contact in enrolment.contacts.items()},
        }
        if row is None:
            row = AgencyRow(id=enrolment.agency, enrolled_at=at, changed_at=at, **registered)
        for name, value in registered.items():
            setattr(row, name, value)
        tx.add(row)
        tx.flush()
        _add_key(tx, enrolment.agency, enrolment.signing_kid, "signing", enrolment.signing_public, at)
        if enrolment.signatory is not None:
            _add_key(tx, enrolment.agency, enrolment.signatory[0], "signatory", enrolment.signatory[1], at)
        client = json.dumps(dict(enrolment.client_jwk), sort_keys=True)
        _add_key(tx, enrolment.agency, str(enrolment.client_jwk["kid"]), "client", client, at)
        for terms in enrolment.flows:
            flow_row = tx.one(AgencyFlowRow, agency=enrolment.agency, flow=terms.flow)
            flow_row = flow_row or AgencyFlowRow(agency=enrolment.agency, flow=terms.flow, expected_by="")
            flow_row.expected_by, flow_row.contact = terms.expected_by, terms.contact
            tx.add(flow_row)
        return _recorded(
            tx, trail, "agency.changed" if known else "agency.enrolled", who, at,
            agency=enrolment.agency, flows=[terms.flow for terms in enrolment.flows], roles=list(enrolment.roles),
            keys=[enrolment.signing_kid, str(enrolment.client_jwk["kid"])],
        )  # fmt: skip


def set_state(
    store: Store,
    trail: Trail,
    agency_id: str,
    state: Literal["active", "suspended", "revoked"],
    *,
    who: Who,
    at: datetime,
) -> EntryRef:
    """Suspend an agency, let it in again, or revoke it for good with all its keys; in force with the next request.

    Raises UnknownAgency, and WrongState for one that was revoked.
    """
    with store.transaction() as tx:
        row = tx.one(AgencyRow, id=agency_id)
        if row is None:
            raise UnknownAgency(f"no agency {agency_id} is enrolled")
        if row.state == "revoked":
            raise WrongState("a revoked agency stays revoked")
        if row.state != state:  # a suspension said again goes on from its day
            row.state, row.changed_at = state, at
        tx.add(row)
        if state == "revoked":
            for key in tx.all(AgencyKeyRow, agency=agency_id, revoked_at=None):
                key.revoked_at = at
                tx.add(key)
        kind = "agency.changed" if state == "active" else "agency.suspended"
        return _recorded(tx, trail, kind, who, at, agency=agency_id, state=state)


def revoke_key(store: Store, trail: Trail, kid: str, *, who: Who, at: datetime) -> EntryRef:
    """Revoke one key of an agency, for signing and as client.  Raises NotFound if no key of this name is in use."""
    with store.transaction() as tx:
        rows = tx.all(AgencyKeyRow, kid=kid, revoked_at=None)
        if not rows:
            raise NotFound("no key of this name is in use")
        for row in rows:
            row.revoked_at = at
            tx.add(row)
        return _recorded(tx, trail, "key.revoked", who, at, key=kid)


def active_agency(reading: Reading, agency_id: str) -> AgencyRow:
    """An agency that may act.  Raises UnknownAgency, AgencyNotActive."""
    row = reading.one(AgencyRow, id=agency_id)
    if row is None:
        raise UnknownAgency(f"no agency {agency_id} is enrolled")
    if row.state != "active":
        raise AgencyNotActive(f"agency {agency_id} is {row.state}")
    return row


def flow_of(reading: Reading, agency_id: str, flow: str) -> AgencyFlowRow:
    """A flow as registered.  Raises UnknownFlow."""
    row = reading.one(AgencyFlowRow, agency=agency_id, flow=flow) if _FLOW.fullmatch(flow) else None
    if row is None:
        raise UnknownFlow("this agency has no flow of this name")
    return row


def signing_key(reading: Reading, agency_id: str, kid: str) -> bytes:
    """The raw Ed25519 key of this name, if it is this agency's and in use.  Raises BadSignature."""
    row = reading.one(AgencyKeyRow, kid=kid, use="signing", agency=agency_id, revoked_at=None)
    if row is None:
        raise BadSignature("the signing key is not one of this agency's that is in use")
    return unb64url(row.public)


def feeds(reading: Reading, *, at: datetime) -> tuple[Feed, ...]:
    """Every flow of every agency that takes part, and how far it can be relied on to be recent, by name."""
    agencies = {row.id: row for row in reading.all(AgencyRow) if row.state != "revoked"}
    found = []
    for row in reading.all(AgencyFlowRow, order=("agency", "flow")):
        agency = agencies.get(row.agency)
        if agency is None:
            continue
        contacts = {
            ref: Contact(name=body["name"], phone=body["phone"], out_of_hours=body.get("out_of_hours"))
            for ref, body in agency.contacts.items()
        }
        found.append(
            Feed(
                organisation=row.agency, name=agency.name, flow=row.flow, as_of=row.as_of, contacts=contacts,
                state=_feed_state(row, agency, at), contact=contacts.get(row.contact or ""),
                paused_since=agency.changed_at if agency.state != "active" else None,
            )
        )  # fmt: skip
    return tuple(found)


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
        _recorded(tx, trail, "agreement.imported", who, at, agreement=document.ref, digest=document.digest, kind=kind)
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
            _recorded(tx, trail, "agreement.signed", who, at, agreement=ref, digest=row.digest, parties=sorted(new))
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
        _recorded(tx, trail, f"agreement.{kinds[event.do]}", who, at, agreement=ref, party=event.party)
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
        return _recorded(tx, trail, "agreement.activated", who, at, agreement=ref, digest=row.digest)


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
        return _recorded(tx, trail, "agreement.suspended", who, at, agreement=ref, party="host")


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


def _contact(contact: Contact) -> dict[str, str]:
    told = {"name": contact.name, "phone": contact.phone, "out_of_hours": contact.out_of_hours}
    return {name: text for name, text in told.items() if text}


def _status(tx: Transaction, ref: str, status: str, reason: str, who: Who, at: datetime) -> None:
    by = str(who.get("person") or who.get("role") or who.get("organisation") or "")
    tx.add(AgreementStatusRow(agreement=ref, status=status, reason=reason, by=by, at=at))


def _recorded(tx: Transaction, trail: Trail, event_type: str, who: Who, at: datetime, **what: Json) -> EntryRef:
    event = Event(id=new_event_id(), type=event_type, who=who, what=what, why={}, detail={})
    return trail.record(tx, event, at=at)


def _add_key(tx: Transaction, agency: str, kid: str, use: str, public: str, at: datetime) -> None:
    row = tx.one(AgencyKeyRow, kid=kid, use=use)
    if row is None:
        tx.add(AgencyKeyRow(kid=kid, use=use, agency=agency, public=public, enrolled_at=at))
    elif (row.agency, row.public) != (agency, public):
        raise Conflict("a key of this name is registered already, with other bytes")


def _feed_state(row: AgencyFlowRow, agency: AgencyRow, at: datetime) -> FeedState:
    if row.paused or agency.state != "active":
        return "PAUSED"
    if row.as_of is None:
        return "NOT_CONNECTED"
    return "CURRENT" if row.as_of > _due(row.expected_by, at) else "STALE"


def _due(expected_by: str, at: datetime) -> datetime:
    """The instant after which what is on time must have been extracted: a day before the last deadline that passed."""
    wall = time.fromisoformat(expected_by)
    today = at.astimezone(LONDON).date()
    last = today if at >= datetime.combine(today, wall, LONDON) else today - timedelta(days=1)
    return datetime.combine(last - timedelta(days=1), wall, LONDON)
