"""Sessions of people at the broker, token ids that are spent, and the mark of a demo database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint
from sqlmodel import Field

from broker.store.columns import Row, instant


class SessionRow(Row, table=True):
    """A signed-in person.  The cookie is opaque; only its SHA-256 is kept."""

    __tablename__ = "session"

    id_sha256: str = Field(primary_key=True)
    person: str
    role: str
    organisation: str = Field(default="")  # whose staff they act as; empty: the hosting partnership's
    method: str  # oidc, demo
    csrf: str
    started_at: datetime = instant()
    seen_at: datetime = instant()
    ends_at: datetime = instant()
    revoked_at: datetime | None = instant(default=None, nullable=True)


class SpentTokenRow(Row, table=True):
    """A `jti` that has been used, kept until its token has expired."""

    __tablename__ = "spent_token"

    issuer: str = Field(primary_key=True)
    use: str = Field(primary_key=True)  # client-assertion, gateway-assertion
    jti_sha256: str = Field(primary_key=True)
    expires_at: datetime = instant(index=True)


class InstallationRow(Row, table=True):
    """What this database is for: `demo` or `production`.  Written once; a broker of the other kind won't open it."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: int = Field(default=1, primary_key=True)
    environment: str
    at: datetime = instant()
