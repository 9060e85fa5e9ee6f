"""Agreements and restrictions, their signatures and what became of them."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from broker.store.columns import Row, instant, octets


class AgreementRow(Row, table=True):
    """One document, exactly as it is signed: an agreement, an umbrella or a restriction.

    `status` is the host's: draft (imported, not in force here), active, suspended.  Parties' own signed events (pause,
    leave, replace) stand beside it, and a decision reads both.
    """

    __tablename__ = "agreement"

    ref: str = Field(primary_key=True)  # "<id>@<version>"
    kind: str  # agreement, umbrella, restriction
    id: str = Field(index=True)
    version: str
    under: str | None = Field(default=None)  # the umbrella's ref
    owner: str | None = Field(default=None, index=True)  # a restriction's
    digest: str = Field(index=True)  # SHA-256 of the canonical form, hex
    document: bytes = octets()  # the TOML as imported
    status: str
    imported_at: datetime = instant()
    changed_at: datetime = instant()


class AgreementSignatureRow(Row, table=True):
    """A party's Ed25519 signature over the canonical form: JWS in JSON general serialisation."""

    __tablename__ = "agreement_signature"

    agreement: str = Field(primary_key=True, foreign_key="agreement.ref")
    party: str = Field(primary_key=True)
    kid: str
    jws: str
    received_at: datetime = instant()


class AgreementStatusRow(Row, table=True):
    """What happened to an agreement, in order: never changed, only added to.

    `jws` is a party's signed event (suspend, resume, withdraw, supersede); null for what the host did.
    """

    __tablename__ = "agreement_status"

    number: int | None = Field(default=None, primary_key=True)
    agreement: str = Field(foreign_key="agreement.ref", index=True)
    status: str
    reason: str  # a code
    by: str
    jws: str | None = Field(default=None)
    at: datetime = instant()
