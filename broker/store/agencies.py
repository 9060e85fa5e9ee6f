"""Agencies, their public keys and their flows."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func
from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, json_value
from broker.store.transaction import Reading


class AgencyRow(Row, table=True):
    """An organisation that takes part, as enrolled.  `state`: active, suspended, revoked."""

    __tablename__ = "agency"

    id: str = Field(primary_key=True)
    name: str
    party_type: str  # of the vocabulary of `agreements`: local_authority, nhs, police, ...
    sector: str
    state: str = Field(default="active")
    partnership: str
    key_epoch: str
    key_fingerprint: str
    canaries: list[str] = json_value()
    roles: list[str] = json_value()  # that its gateway may vouch for
    contacts: dict[str, dict[str, str]] = json_value()  # contact ref -> {name, phone, out_of_hours}
    enrolled_at: datetime = instant()
    changed_at: datetime = instant()  # its state


class AgencyKeyRow(Row, table=True):
    """A public key.  `use`: signing (batches) or signatory (agreements), raw Ed25519 in base64url; client, a JWK."""

    __tablename__ = "agency_key"

    kid: str = Field(primary_key=True)
    use: str = Field(primary_key=True)
    agency: str = Field(foreign_key="agency.id", index=True)
    public: str
    enrolled_at: datetime = instant()
    revoked_at: datetime | None = instant(default=None, nullable=True)


class AgencyFlowRow(Row, table=True):
    """One nightly feed: what was last taken in, and when the next is due."""

    __tablename__ = "agency_flow"

    agency: str = Field(primary_key=True, foreign_key="agency.id")
    flow: str = Field(primary_key=True)
    expected_by: str  # London wall time "HH:MM": a night without a batch by then is STALE
    contact: str | None = Field(default=None)  # an entry of the agency's contacts
    paused: bool = Field(default=False)
    last_sequence: int = Field(default=0)
    last_manifest_sha256: str = Field(default="")
    last_batch: str | None = Field(default=None)
    last_accepted_at: datetime | None = instant(default=None, nullable=True)
    as_of: datetime | None = instant(default=None, nullable=True)  # `extracted_at` of the last accepted batch
    heard_at: datetime | None = instant(default=None, nullable=True)  # its client was alive then; says nothing of data


def client_key_last_revoked(tx: Reading, agency: str) -> datetime | None:
    """When the last client key that an agency has lost was revoked, if it has lost one."""
    of_clients = (col(AgencyKeyRow.agency) == agency, col(AgencyKeyRow.use) == "client")
    return tx.session.exec(select(func.max(col(AgencyKeyRow.revoked_at))).where(*of_clients)).one()
