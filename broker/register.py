"""The register: agreements and restrictions as they were signed, and what of them is in force here.

Every change is an event in the log, in the transaction of the change.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from hashlib import sha256
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agreements import VOCABULARY, Agreement, PartyKey, Signature, Snapshot, Vocabulary, read, verify
from agreements.agreement import Document, Restriction, london_day
from agreements.document import DocumentRefused
from agreements.lifecycle import (
    Due,
    HostStatus,
    PartyStanding,
    State,
    last_day,
    newest_first,
    standings,
    state,
    version_of,
    warnings,
)
from agreements.signing import BadSignature as SignatureRefused
from agreements.signing import StatusEvent, sign_replacement, stated_event, verify_event
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
from broker.store.agencies import AgencyKeyRow, AgencyRow
from broker.store.documents import AgreementRow, AgreementSignatureRow, AgreementStatusRow
from broker.trail import Trail, Who, record_change

_log = structlog.get_logger()
AHEAD: Final = timedelta(minutes=5)  # how far a signatory's clock may be ahead of ours
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
NEWER_VERSION: Final = "newer-version"


def snapshot(reading: Reading) -> Snapshot:
    """What is signed and in force at this host: every active document, with its parties' signatures and events.

    Compiled once for one state of the register; every signature is verified again on compiling, and one that no longer
    holds counts as not given, as does an agreement that loads no more.  A document whose umbrella is not in force is
    not either.
    Raises UnsafeRegister if a restriction, or its own signature, no longer holds: to leave it out would show more.
    """
    rows, signatures, events, registered = _signed(reading, "active")
    known = (
        tuple((row.ref, row.digest) for row in rows),
        tuple((row.agreement, row.party, row.jws) for row in signatures),
        tuple((row.number, row.jws) for row in events),
        tuple((key.kid, key.public.public_bytes_raw(), key.valid_to) for key in registered.values()),
    )
    with _compiling:
        if known not in _compiled:
            made = _compile(rows, signatures, events, registered)
            _compiled.clear()
            _compiled[known] = made
        return _compiled[known]


def ever_in_force(reading: Reading) -> Snapshot:
    """As `snapshot`, with what the host has suspended since: for what was decided before that."""
    return _compile(*_signed(reading, ("active", "suspended")))


def mark_in_force(reading: Reading, organisation: str, *, at: datetime, vocabulary: Vocabulary = VOCABULARY) -> str:
    """A mark of what is in force for one who receives, at an instant: it changes when that does, and tells nothing.

    It is of agreements, restrictions, agencies and which statutes have come into force alone: whatever a record holds,
    it is the same.
    """
    current = snapshot(reading)
    said: list[list[str]] = [[row.id, row.state] for row in reading.all(AgencyRow, order=("id",))]
    said += [
        [agreement.digest, source, current.standing(agreement, source, organisation, at).code or "live"]
        for agreement in current.agreements
        if agreement.grants and organisation in agreement.parties
        for source in sorted(agreement.parties)
    ]
    said += [[one.digest] for one in current.restrictions if current.in_force(one, at)]
    today = london_day(at)
    said += [[day.isoformat()] for day in vocabulary.commencements if day <= today]
    return sha256(json.dumps(said).encode()).hexdigest()


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
        add_status(tx, document.ref, "draft", "imported", person_of(who), at)
        record_change(
            tx, trail, "agreement.imported", who, at, agreement=document.ref, digest=document.digest, kind=kind
        )
        return document.ref


def add_signatures(
    store: Store, trail: Trail, ref: str, jws: Mapping[str, Any], *, who: Who, at: datetime
) -> tuple[str, ...]:
    """Keep the signatures of a JWS over a document; the parties that signed.  One bad signature spoils all.

    A restriction that its owner has signed is in force from the next decision on: what holds back waits for nobody.
    Raises NotFound, and BadSignature, which names the party or key.
    """
    with store.transaction() as tx:
        row = document_to_change(tx, ref)
        document = document_of(tx, row)
        registered = party_keys(tx)
        parties, new = [], []
        listed = jws.get("signatures", []) if isinstance(jws, Mapping) else None
        if not isinstance(listed, list):
            raise BadSignature("a JWS with its payload and a list of signatures is due")
        for one in listed:
            alone = {"payload": jws.get("payload"), "signatures": [one]}
            try:
                (signature,) = verify(document, alone, registered)
            except SignatureRefused as wrong:
                raise BadSignature(str(wrong)) from None
            _not_ahead(f"{signature.kid}'s signature", signature.signed_at, at)
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
            tx.flush()
            record_change(tx, trail, "agreement.signed", who, at, agreement=ref, digest=row.digest, parties=sorted(new))
            if row.kind == "restriction" and row.status == "draft":
                row.status, row.changed_at = "active", at
                tx.add(row)
                add_status(tx, ref, "active", "signed-by-owner", person_of(who), at)
                record_change(tx, trail, "restriction.added", who, at, restriction=ref, digest=row.digest)
            else:
                settle_versions(tx, trail, row, who=who, at=at)
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


def add_party_event(
    store: Store, trail: Trail, ref: str, jws: Mapping[str, Any], *, who: Who, at: datetime, party: str | None = None
) -> StatusEvent:
    """Keep a party's own signed event on a document (suspend, resume, withdraw, supersede), and give what it says.

    It counts from the next decision on.  Twice the same changes nothing.  `party`: whose event it must be.
    Raises NotFound, BadSignature, and WrongState for what does nothing: a restriction is withdrawn, never paused.
    """
    kinds = {"suspend": "suspended", "resume": "resumed", "withdraw": "withdrawn", "supersede": "superseded"}
    with store.transaction() as tx:
        row = document_to_change(tx, ref)
        try:
            event = verify_event(jws, party_keys(tx))
        except (SignatureRefused, ValueError) as wrong:
            raise BadSignature(str(wrong)) from None
        if event.digest != row.digest:
            raise BadSignature(f"the event is about another document than {ref}, or another version of it")
        if party is not None and event.party != party:
            raise BadSignature(f"the event is {event.party}'s, not {party}'s")
        _not_ahead(f"{event.kid}'s event", event.at, at)
        if event.party not in (standing := standings_of(tx, row, at=max(at, event.at))):
            raise BadSignature(f"{event.party} is no party to {ref}: parties are {', '.join(sorted(standing))}")
        if row.kind == "restriction" and event.do in ("suspend", "resume"):
            raise WrongState(f"{ref} is a restriction: its owner withdraws it, and nobody pauses it")
        kept = json.dumps(dict(jws), sort_keys=True)
        if any(one.jws == kept for one in tx.all(AgreementStatusRow, agreement=ref, reason="party", by=event.party)):
            return event
        if not standing[event.party].takes_part:
            raise WrongState(f"{event.party} takes no part in {ref}: it is {standing[event.party].state}")
        tx.add(AgreementStatusRow(agreement=ref, status=event.do, reason="party", by=event.party, jws=kept, at=at))
        lifted = row.kind == "restriction"
        kind = "restriction.lifted" if lifted else f"agreement.{kinds[event.do]}"
        what = {"restriction" if lifted else "agreement": ref, "party": event.party, "since": event.at.isoformat()}
        record_change(tx, trail, kind, who, at, **what)
        return event


def import_restriction(store: Store, trail: Trail, source: bytes, *, who: Who, at: datetime) -> str:
    """As `import_document`, for a restriction only.  Raises BadAgreement for an agreement too."""
    with store.reading() as reading:
        if not isinstance(_read(reading, source), Restriction):
            raise BadAgreement("it is an agreement, not a restriction: take it in with `broker agreements import`")
    return import_document(store, trail, source, who=who, at=at)


def restriction_of_event(store: Store, jws: Mapping[str, Any]) -> str:
    """As `ref_of_event`, for a restriction only.  Raises WrongState for an agreement's event."""
    ref = ref_of_event(store, jws)
    with store.reading() as reading:
        if document_row(reading, ref).kind != "restriction":
            raise WrongState(f"{ref} is no restriction: `broker agreements event` takes that in")
    return ref


def signatures_kept(reading: Reading, digest: str) -> list[dict[str, Any]]:
    """The signatures that the register holds over a text, as JWS; none if the text is not there."""
    row = reading.one(AgreementRow, digest=digest)
    kept = reading.all(AgreementSignatureRow, agreement=row.ref, order=("party",)) if row is not None else []
    return [json.loads(one.jws) for one in kept]


def ref_of_event(store: Store, jws: Mapping[str, Any]) -> str:
    """The ref of the registered document that an event says it is about; nothing is verified.

    Raises NotFound, BadSignature if the event can't be read.
    """
    try:
        digest = json.loads(unb64url(jws["payload"]))["digest"]
    except (KeyError, TypeError, ValueError):
        digest = None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BadSignature("a signed event as `sign-event` writes it is due")
    with store.reading() as reading:
        row = reading.one(AgreementRow, digest=digest)
    if row is None:
        raise NotFound("the document that the event is about is not in the register")
    return row.ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A document as listed: the state it is in, where each party stands, what falls due."""

    ref: str
    kind: str  # agreement, umbrella, restriction
    title: str
    status: str  # the host's own: draft, active, suspended
    state: State
    digest: str
    owner: str | None  # of a restriction
    under: str | None
    effective: date
    last_day: date
    review_by: date | None
    approved_by: str | None  # who put it in force here
    due: tuple[Due, ...]
    document: Document


def documents(reading: Reading, *, at: datetime) -> tuple[Listed, ...]:
    """Every document of the register, the newest version of each first; `unread` has those that do not load."""
    every = reading.all(AgreementRow)
    read_once, _ = _documents(every)
    rows = {row.ref: row for row in every if row.ref in read_once}
    registered = party_keys(reading)
    signatures = [
        signature
        for row in reading.all(AgreementSignatureRow, order=("agreement", "party"))
        if row.agreement in rows
        for signature in _holding(read_once[row.agreement], row, registered)
    ]
    statuses = reading.all(AgreementStatusRow, order=("number",))
    events = [event for row in statuses if (event := _event(row, registered))]
    approvals = {row.agreement: row.by for row in statuses if row.reason == "activated"}
    found = []
    for ref in newest_first(rows):
        row, document = rows[ref], read_once[ref]
        umbrella = read_once.get(row.under or "")
        current = state(
            document, signatures, events, host_status=host_status(row), at=at,
            umbrella=umbrella if isinstance(umbrella, Agreement) else None,
            umbrella_status=host_status(rows[row.under]) if row.under in rows else "draft",
        )  # fmt: skip
        review = document.review if isinstance(document, Agreement) else None
        found.append(
            Listed(
                ref=ref, kind=row.kind, status=row.status, state=current, digest=row.digest, owner=row.owner,
                title=document.title if isinstance(document, Agreement) else document.text, under=row.under,
                effective=london_day(document.period.start), last_day=last_day(document),
                review_by=london_day(review - timedelta(microseconds=1)) if review else None,
                approved_by=approvals.get(ref), due=() if current.ended else warnings([document], at),
                document=document,
            )
        )  # fmt: skip
    return tuple(found)


def clause_texts(reading: Reading, refs: Iterable[str]) -> dict[str, str]:
    """The words that were signed of clauses, by reference (agreement@version#clause); of one not here, none."""
    wanted = set(refs)
    if not wanted:
        return {}
    found: dict[str, str] = {}
    for document in documents_here(reading):
        if isinstance(document, Agreement):
            found |= {f"{document.ref}#{one.id}": one.text for one in document.grants}
            found |= {f"{document.ref}#{one.id}": one.text for one in document.limits}
    return {ref: found[ref] for ref in sorted(wanted & found.keys())}


def documents_here(reading: Reading) -> list[Document]:
    """Every document of the register that loads, in force or not."""
    return list(_documents(reading.all(AgreementRow))[0].values())


def unread(reading: Reading) -> dict[str, str]:
    """The documents that were taken in under an older version of the language and load no more, each with why.

    An agreement among them shows nothing any more.
    """
    return _documents(reading.all(AgreementRow))[1]


def holding_as_well(reading: Reading, refs: Collection[str], *, at: datetime) -> tuple[Listed, ...]:
    """Other versions, in force, of these restrictions: a new one takes the place of none, as both may be meant."""
    ids = {ref.partition("@")[0] for ref in refs}
    return tuple(
        one
        for one in documents(reading, at=at)
        if one.kind == "restriction" and one.document.id in ids and one.ref not in refs and one.state.name == "active"
    )


def in_force_under(reading: Reading, umbrella: str) -> tuple[str, ...]:
    """The agreements that the host has put in force under an umbrella: they stop and go on with it."""
    return tuple(row.ref for row in reading.all(AgreementRow, under=umbrella, status="active", order=("ref",)))


def host_status(row: AgreementRow) -> HostStatus:
    """The host's own act on a document."""
    return "active" if row.status == "active" else "suspended" if row.status == "suspended" else "draft"


def document_row(reading: Reading, ref: str) -> AgreementRow:
    """A document's row.  Raises NotFound."""
    row = reading.one(AgreementRow, ref=ref)
    if row is None:
        near = get_close_matches(ref, [one.ref for one in reading.all(AgreementRow)], n=1)
        meant = f"write {near[0]}, if that is meant; " if near else ""
        raise NotFound(
            f"there is no document {ref} in the register: {meant}`broker agreements list --all` names those there are"
        )
    return row


def document_to_change(tx: Transaction, ref: str) -> AgreementRow:
    """A document's row, for who changes what stands of it: whoever else changes one of its versions waits until this
    transaction ends, and finds it changed.  Raises NotFound.
    """
    row = document_row(tx, ref)
    tx.locked(AgreementRow, id=row.id, order=("ref",))
    return row


def document_of(reading: Reading, row: AgreementRow) -> Document:
    """The document of a row.  Raises BadAgreement, which names it, if it loads no more."""
    try:
        return _read(reading, row.document)
    except BadAgreement as wrong:
        raise BadAgreement(f"{row.ref} does not load any more: {wrong}") from None


def standings_of(reading: Reading, row: AgreementRow, *, at: datetime) -> Mapping[str, PartyStanding]:
    """Where each party stands with a document, by the signatures and events that still hold."""
    document, registered = document_of(reading, row), party_keys(reading)
    signatures = [
        signature
        for one in reading.all(AgreementSignatureRow, agreement=row.ref)
        for signature in _holding(document, one, registered)
    ]
    statuses = reading.all(AgreementStatusRow, agreement=row.ref, order=("number",))
    events = [event for one in statuses if (event := _event(one, registered))]
    return standings(document, signatures, events, at)


def party_keys(reading: Reading) -> dict[str, PartyKey]:
    """Every signatory's key that was ever registered; a revoked one holds for what it signed before."""
    return {
        row.kid: PartyKey(
            kid=row.kid,
            public=Ed25519PublicKey.from_public_bytes(unb64url(row.public)),
            valid_from=None,
            valid_to=row.revoked_at,
        )
        for row in reading.all(AgencyKeyRow, use="signatory", order=("kid",))
    }


def add_status(tx: Transaction, ref: str, status: str, reason: str, by: str, at: datetime) -> None:
    """Add to what happened to a document."""
    tx.add(AgreementStatusRow(agreement=ref, status=status, reason=reason, by=by, at=at))


def settle_versions(tx: Transaction, trail: Trail, row: AgreementRow, *, who: Who, at: datetime) -> None:
    """A party that shares under a newer version in force takes no part in the older ones from the newer's first day.

    `row` is what was signed or put in force: one of the versions, or the umbrella that some stand under.  Who has not
    signed the newer version's umbrella as well could share under neither, and stays.  Umbrellas stay as they are:
    agreements stand under the very version that they were signed with.  What is replaced stays replaced, whatever
    becomes of the newer: else to stop one agreement would put another in force.
    """
    if row.kind == "agreement":
        _settle(tx, trail, row.id, who=who, at=at)
    elif row.kind == "umbrella" and row.status == "active":
        for agreement in sorted({one.id for one in tx.all(AgreementRow, under=row.ref, status="active")}):
            tx.locked(AgreementRow, id=agreement, order=("ref",))
            _settle(tx, trail, agreement, who=who, at=at)


def _settle(tx: Transaction, trail: Trail, agreement: str, *, who: Who, at: datetime) -> None:
    every = [row for row in tx.all(AgreementRow, id=agreement, kind="agreement") if row.status != "draft"]
    loading, _ = _documents([*tx.all(AgreementRow, kind="umbrella"), *every])
    rows = [row for row in every if row.ref in loading]  # what loads no more shows nothing, and takes nobody's place
    parts = {row.ref: standings_of(tx, row, at=at) for row in rows}
    for newer in (row for row in rows if row.status == "active"):
        layers = [newer, *(tx.all(AgreementRow, ref=newer.under) if newer.under else ())]
        if any(one.status != "active" for one in layers):
            continue
        start = max(at, *(document_of(tx, one).period.start for one in layers))
        above = [standings_of(tx, one, at=at) for one in layers[1:]]
        sharing = [
            party
            for party, standing in sorted(parts[newer.ref].items())
            if standing.takes_part and all(party in one and one[party].takes_part for one in above)
        ]
        for older in (row for row in rows if version_of(row.ref) < version_of(newer.ref)):
            replaced = {row.by for row in tx.all(AgreementStatusRow, agreement=older.ref, reason=NEWER_VERSION)}
            for party in sharing:
                before = parts[older.ref].get(party)
                if before is not None and before.takes_part and party not in replaced:
                    _replaced(tx, trail, older, party, start, at)
                    tx.flush()
                    record_change(
                        tx, trail, "agreement.superseded", who, at, agreement=older.ref, party=party,
                        newer=newer.ref, effective=start.isoformat(),
                    )  # fmt: skip


def _replaced(
    tx: Transaction, trail: Trail, older: AgreementRow, party: str, effective: datetime, at: datetime
) -> None:
    keys, whole = trail.keys, effective.replace(microsecond=0) + timedelta(seconds=bool(effective.microsecond))
    jws = sign_replacement(
        document_of(tx, older), party, effective=whole, kid=keys.receipt_kid, key=keys.receipt_key,
        at=min(whole, at.replace(microsecond=0)),
    )  # fmt: skip
    kept = json.dumps(jws, sort_keys=True)
    tx.add(
        AgreementStatusRow(agreement=older.ref, status="superseded", reason=NEWER_VERSION, by=party, jws=kept, at=at)
    )


_Signed = tuple[
    Sequence[AgreementRow], Sequence[AgreementSignatureRow], Sequence[AgreementStatusRow], Mapping[str, PartyKey]
]


def _signed(reading: Reading, status: str | tuple[str, ...]) -> _Signed:
    """The documents of a status whose umbrella is of it too, their signatures and events, and everybody's keys."""
    found = reading.all(AgreementRow, status=status, order=("ref",))
    there = {row.ref for row in found}
    rows = [row for row in found if row.under is None or row.under in there]
    refs = tuple(row.ref for row in rows)
    signatures = reading.all(AgreementSignatureRow, agreement=refs, order=("agreement", "party"))
    events = [row for row in reading.all(AgreementStatusRow, agreement=refs, order=("number",)) if row.jws]
    return rows, signatures, events, party_keys(reading)


_compiled: dict[object, Snapshot] = {}
_compiling = threading.Lock()


def _compile(
    rows: Sequence[AgreementRow],
    signatures: Sequence[AgreementSignatureRow],
    events: Sequence[AgreementStatusRow],
    registered: Mapping[str, PartyKey],
) -> Snapshot:
    documents, refused = _documents(rows)
    for ref, why in refused.items():
        if any(row.ref == ref and row.kind == "restriction" for row in rows):
            raise UnsafeRegister(f"restriction {ref} does not load any more: {why}")
        _log.error("agreement does not load any more", agreement=ref)
    signatures = [row for row in signatures if row.agreement in documents]
    holding = [
        signature for row in signatures for signature in _holding(documents[row.agreement], row, registered, log=True)
    ]
    for row in signatures:
        document = documents[row.agreement]
        if isinstance(document, Restriction) and not _holding(document, row, registered):
            raise UnsafeRegister(f"the signature of restriction {row.agreement} no longer holds")
    stated = [event for row in events if (event := _event(row, registered))]
    return Snapshot.of(documents.values(), holding, stated, registered)


def _holding(
    document: Document, row: AgreementSignatureRow, registered: Mapping[str, PartyKey], *, log: bool = False
) -> tuple[Signature, ...]:
    """The signature of a row, or nothing where it no longer holds: then it counts as not given."""
    try:
        return verify(document, json.loads(row.jws), registered)
    except (SignatureRefused, ValueError):
        if log:
            _log.error("signature no longer holds", agreement=row.agreement, agency=row.party)
        return ()


def _event(row: AgreementStatusRow, registered: Mapping[str, PartyKey]) -> StatusEvent | None:
    """The event of a row that decisions read: a party's own, verified, or that a newer version took its place."""
    if row.reason == NEWER_VERSION:  # our own word, which can only hold back
        return stated_event(json.loads(row.jws or ""))
    return verify_event(json.loads(row.jws), registered) if row.jws else None


def _read(reading: Reading, source: bytes) -> Document:
    umbrellas, _ = _documents(reading.all(AgreementRow, kind="umbrella"))
    try:
        return read(source, umbrellas=[one for one in umbrellas.values() if isinstance(one, Agreement)])
    except DocumentRefused as refused:
        raise BadAgreement(str(refused)) from None


def _documents(rows: Sequence[AgreementRow]) -> tuple[dict[str, Document], dict[str, str]]:
    """The documents that load, and why each of the others does not."""
    found: dict[str, Document] = {}
    refused: dict[str, str] = {}
    umbrellas: list[Agreement] = []
    for row in sorted(rows, key=lambda row: row.kind != "umbrella"):
        try:
            document = found[row.ref] = read(row.document, umbrellas=umbrellas)
        except DocumentRefused as wrong:
            refused[row.ref] = str(wrong)
            continue
        if row.kind == "umbrella" and isinstance(document, Agreement):
            umbrellas.append(document)
    return found, refused


def _grants(document: Document) -> bool:
    return isinstance(document, Agreement) and bool(document.grants)


def _not_ahead(what: str, instant: datetime, at: datetime) -> None:
    if instant > at + AHEAD:
        raise BadSignature(
            f"{what} is dated {instant:%Y-%m-%d %H:%M} UTC, ahead of now: put that machine's clock right"
        )


def person_of(who: Who) -> str:
    """The person who acts, or what acts where nobody is named."""
    return str(who.get("person") or who.get("role") or who.get("organisation") or "")
