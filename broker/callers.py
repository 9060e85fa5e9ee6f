"""Who is calling: a token, a gateway's assertion or a session becomes a Caller, or NotSignedIn is raised."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

from broker import signin
from broker.errors import AgencyNotActive, Conflict, NotSignedIn
from broker.settings import Settings
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyKeyRow, AgencyRow, client_key_last_revoked
from broker.store.sessions import SpentTokenRow
from broker.tokens import ClientKey, Tokens

Kind = Literal["agency", "person", "officer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated caller.

    `agency`: an organisation's machine.  `person`: someone at that organisation's gateway, whom it names in a signed
    assertion.  `officer`: someone signed in at the broker itself (IG, link review, operation); `organisation` is then
    the hosting partnership, but for a service planner the party whose staff they are.  For `agency` the fields of a
    person are empty.
    """

    kind: Kind
    organisation: str
    person: str = ""
    role: str = ""
    session: str = ""
    method: str  # private_key_jwt, gateway-assertion, oidc, demo
    evidence: str = ""  # SHA-256 (hex) of the assertion, kept in the log
    csrf: str = ""  # an officer's synchroniser token
    ends_at: datetime | None = None  # when an officer's session does

    def who(self) -> dict[str, str]:
        """The `who` of an event: the organisation as client and, where a person acts, who, as what and how proved."""
        known = {
            "organisation": self.organisation, "person": self.person, "role": self.role, "session": self.session,
            "method": self.method, "assertion_sha256": self.evidence,
        }  # fmt: skip
        return {name: value for name, value in known.items() if value}


def grant_token(store: Store, tokens: Tokens, assertion: str, *, at: datetime, certificate: str | None = None) -> str:
    """An access token for the agency whose `private_key_jwt` this is; the assertion is spent.

    It is bound to the certificate of the caller's connection, if there is one.
    Raises NotSignedIn if the assertion does not hold or was used before, or if a certificate is due, AgencyNotActive if
    the agency is suspended.
    """
    with store.reading() as reading:
        proved = tokens.client_assertion(assertion, lambda kid: _client_key(reading, kid), at=at)
        _active(reading, proved.agency)
    token = tokens.issue(proved.agency, at=at, certificate=certificate)
    _spend(store, proved.agency, "client-assertion", proved.jti, until=proved.expires_at)
    return token


def agency_of(store: Store, tokens: Tokens, bearer: str, *, at: datetime, certificate: str | None = None) -> Caller:
    """The organisation whose machine token this is, over the certificate that it is bound to.

    Raises NotSignedIn if the token does not hold, or a key of the agency's clients was revoked since it was issued (any
    of them: a token does not say by which it was got); AgencyNotActive if the agency has since been suspended.
    """
    token = tokens.access(bearer, at=at, certificate=certificate)
    with store.reading() as reading:
        _active(reading, token.agency)
        revoked = client_key_last_revoked(reading, token.agency)
    if revoked is not None and token.issued_at <= revoked:
        raise NotSignedIn("key")
    return Caller(kind="agency", organisation=token.agency, method="private_key_jwt")


def person_of(
    store: Store,
    tokens: Tokens,
    bearer: str,
    assertion: str,
    *,
    method: str,
    path: str,
    body: bytes,
    at: datetime,
    certificate: str | None = None,
) -> Caller:
    """The person that an organisation's gateway vouches for, on this very request.

    The assertion is spent: a second use raises NotSignedIn, as does another method, path or body, an organisation
    other than the token's, or a role that is not enrolled for it.
    """
    organisation = agency_of(store, tokens, bearer, at=at, certificate=certificate).organisation
    with store.reading() as reading:
        vouched = tokens.gateway_assertion(
            assertion, lambda kid: _client_key(reading, kid), method=method, path=path, body=body, at=at
        )
        agency = _active(reading, organisation)
    if vouched.agency != organisation:
        raise NotSignedIn("organisation")
    if vouched.role not in agency.roles:
        raise NotSignedIn("role")
    _spend(store, organisation, "gateway-assertion", vouched.jti, until=vouched.expires_at)
    return Caller(
        kind="person", organisation=organisation, person=vouched.person, role=vouched.role, session=vouched.session,
        method="gateway-assertion", evidence=vouched.sha256,
    )  # fmt: skip


def officer_of(store: Store, settings: Settings, cookie: str, *, at: datetime) -> Caller:
    """The person signed in at the broker behind a session cookie.  Raises NotSignedIn."""
    session = signin.session_of(store, settings, cookie, at=at)
    return Caller(
        kind="officer", organisation=session.organisation or settings.partnership, person=session.person,
        role=session.role, session=session.id, method=session.method, csrf=session.csrf,
        ends_at=session.ends_at,
    )  # fmt: skip


def forget_spent(tx: Transaction, *, at: datetime) -> int:
    """Drop spent token ids whose tokens have expired: they can't be used again anyway.  How many went."""
    return tx.delete_before(SpentTokenRow, "expires_at", at)


def _client_key(reading: Reading, kid: str) -> ClientKey | None:
    row = reading.one(AgencyKeyRow, kid=kid, use="client", revoked_at=None)
    return ClientKey.of(json.loads(row.public), owner=row.agency) if row is not None else None


def _active(reading: Reading, agency: str) -> AgencyRow:
    row = reading.one(AgencyRow, id=agency)
    if row is None:
        raise NotSignedIn("agency")
    if row.state != "active":
        raise AgencyNotActive(f"agency {agency} is {row.state}")
    return row


def _spend(store: Store, issuer: str, use: str, jti: str, *, until: datetime) -> None:
    try:
        with store.transaction() as tx:
            tx.add(SpentTokenRow(issuer=issuer, use=use, jti_sha256=sha256(jti.encode()).hexdigest(), expires_at=until))
    except Conflict:
        raise NotSignedIn("replayed") from None
