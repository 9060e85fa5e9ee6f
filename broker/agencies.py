"""Who takes part: agencies, their keys, their flows and how recent each feed is.

Every change is an event in the log, in the transaction of the change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, Final, Literal

from agreements import Agreement
from agreements.agreement import LONDON
from broker import epochs, register
from broker.activation import is_public
from broker.errors import (
    BadSignature,
    Conflict,
    Malformed,
    NotFound,
    UnknownAgency,
    UnknownFlow,
    WrongState,
)
from broker.family_view import Contact, Feed, FeedState
from broker.keys import unb64url
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyFlowRow, AgencyKeyRow, AgencyRow
from broker.tokens import ClientKey
from broker.trail import EntryRef, Trail, Who, record_change

_ID: Final = re.compile(r"[a-z][a-z0-9-]{1,62}")
FLOW: Final = re.compile(r"[a-z][a-z0-9_]{1,40}")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


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
        if not all(FLOW.fullmatch(terms.flow) and _TIME.fullmatch(terms.expected_by) for terms in self.flows):
            raise Malformed("flows: a name in lower case, expected_by as HH:MM")
        if unknown := {t.contact for t in self.flows if t.contact} - set(self.contacts):
            raise Malformed(f"flows: {len(unknown)} contact is not among the contacts")


def enrol(store: Store, trail: Trail, enrolment: Enrolment, *, partnership: str, who: Who, at: datetime) -> EntryRef:
    """Enrol an agency, or change what is registered of it; new keys are added, old ones stay until revoked.

    Raises Conflict if a key of this name is registered with other bytes, WrongState for a revoked agency, for a
    linkage key of another epoch than the one that was put in service, and for a
    type that makes it a public authority which an agreement in force says it is not.
    """
    with store.transaction() as tx:
        row = tx.one(AgencyRow, id=enrolment.agency)
        if row is not None and row.state == "revoked":
            raise WrongState("a revoked agency is enrolled under a new name only")
        epochs.check_enrolled(tx, enrolment.key_epoch, enrolment.key_fingerprint, enrolment.canaries)
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
        _not_contradicting(tx, row, at=at)
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
        return record_change(
            tx, trail, "agency.changed" if known else "agency.enrolled", who, at,
            agency=enrolment.agency, flows=[terms.flow for terms in enrolment.flows], roles=list(enrolment.roles),
            keys=[enrolment.signing_kid, str(enrolment.client_jwk["kid"])],
        )  # fmt: skip


def _not_contradicting(tx: Transaction, row: AgencyRow, *, at: datetime) -> None:
    """Raise WrongState where an agreement that is or may come in force opens what is closed to public authorities.

    One that has ended, that all have left for a newer version, or that the agency itself has left, holds up nothing.
    """
    if not is_public(row):
        return
    for one in register.documents(tx, at=at):
        if one.status != "active" or one.state.ended or not isinstance(one.document, Agreement):
            continue
        party = one.document.parties.get(row.id)
        if party is None or party.public_authority or one.state.parties[row.id].state in ("withdrawn", "superseded"):
            continue
        raise WrongState(
            f"{row.id} as {row.party_type} is a public authority, and {one.ref}, in force, says it is none:"
            " suspend that first, or enrol it under its true type"
        )


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
        return record_change(tx, trail, kind, who, at, agency=agency_id, state=state)


def pause_flow(
    store: Store, trail: Trail, agency_id: str, flow: str, *, paused: bool, who: Who, at: datetime
) -> EntryRef:
    """Stop showing what one flow of an agency sent, or show it again; in force with the next decision.

    Its batches come in meanwhile as ever.  Raises UnknownFlow.
    """
    with store.transaction() as tx:
        row = tx.one(AgencyFlowRow, agency=agency_id, flow=flow)
        if row is None:
            raise UnknownFlow(f"{agency_id} has no flow {flow}: `broker agencies list` names those there are")
        row.paused = paused
        tx.add(row)
        return record_change(tx, trail, "agency.changed", who, at, agency=agency_id, flow=flow, paused=paused)


def revoke_key(store: Store, trail: Trail, kid: str, *, agency: str, who: Who, at: datetime) -> EntryRef:
    """Revoke one key of an agency, whatever it is used for; tokens that its clients hold end with their next request.

    Raises NotFound if the agency has no key of this name in use.
    """
    with store.transaction() as tx:
        rows = tx.all(AgencyKeyRow, kid=kid, agency=agency, revoked_at=None)
        if not rows:
            raise NotFound("this agency has no key of this name in use: `broker agencies list` names those there are")
        for row in rows:
            row.revoked_at = at
            tx.add(row)
        return record_change(tx, trail, "key.revoked", who, at, key=kid)


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
                state=feed_state(row, agency, at), contact=contacts.get(row.contact or ""),
                paused_since=agency.changed_at if agency.state != "active" else None,
            )
        )  # fmt: skip
    return tuple(found)


def _is_raw_key(text: str) -> bool:
    try:
        return len(unb64url(text)) == 32
    except ValueError:
        return False


def _signatory(body: Mapping[str, Any] | None) -> tuple[str, str] | None:
    return None if body is None else (body["kid"], body["public"])


def _contact(contact: Contact) -> dict[str, str]:
    told = {"name": contact.name, "phone": contact.phone, "out_of_hours": contact.out_of_hours}
    return {name: text for name, text in told.items() if text}


def _add_key(tx: Transaction, agency: str, kid: str, use: str, public: str, at: datetime) -> None:
    row = tx.one(AgencyKeyRow, kid=kid, use=use)
    if row is None:
        tx.add(AgencyKeyRow(kid=kid, use=use, agency=agency, public=public, enrolled_at=at))
    elif (row.agency, row.public) != (agency, public):
        raise Conflict("a key of this name is registered already, with other bytes")


def feed_state(row: AgencyFlowRow, agency: AgencyRow, at: datetime) -> FeedState:
    """How far a flow can be relied on to be recent."""
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
