"""Agreements, their signatures and what became of them; standing restrictions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlmodel import Field

from broker.store.columns import Row, instant, octets


class AgreementRow(Row, table=True):
    """One signed document, exactly as signed.  `status`: draft, active, suspended, withdrawn, superseded."""

    __tablename__ = "agreement"

    ref: str = Field(primary_key=True)  # "<id>@<version>"
    id: str = Field(index=True)
    version: str
    digest: str = Field(index=True)  # SHA-256 of the canonical form, hex
    document: bytes = octets()  # the TOML as imported
    status: str
    imported_at: datetime = instant()
    changed_at: datetime = instant()


class AgreementSignatureRow(Row, table=True):
    """A party's detached Ed25519 JWS over the canonical form."""

    __tablename__ = "agreement_signature"

    agreement: str = Field(primary_key=True, foreign_key="agreement.ref")
    party: str = Field(primary_key=True)
    kid: str
    jws: str
    received_at: datetime = instant()


class AgreementStatusRow(Row, table=True):
    """What happened to an agreement, in order: never changed, only added to."""

    __tablename__ = "agreement_status"

    number: int | None = Field(default=None, primary_key=True)
    agreement: str = Field(foreign_key="agreement.ref", index=True)
    status: str
    reason: str  # a code
    by: str
    at: datetime = instant()


class RestrictionRow(Row, table=True):
    """A signed document that lowers what an owner's records show, under any agreement."""

    __tablename__ = "restriction"
    __table_args__ = (UniqueConstraint("owner", "digest"),)

    id: str = Field(primary_key=True)
    owner: str = Field(foreign_key="agency.id", index=True)
    record_ref: str | None = Field(default=None, index=True)  # null: every record of the owner
    digest: str
    document: bytes = octets()
    jws: str
    starts_at: datetime = instant()
    ends_at: datetime | None = instant(default=None, nullable=True)
    lifted_at: datetime | None = instant(default=None, nullable=True)
