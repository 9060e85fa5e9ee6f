"""All that a route may ask for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from broker import callers, certificates, clock, signin
from broker.callers import Caller
from broker.errors import NotSignedIn
from broker.keys import Keys
from broker.linked import InService
from broker.settings import Settings
from broker.store import Store
from broker.trail import Trail
from broker.vault import Vault
from broker.wiring import Broker

ASSERTION = "Gateway-Assertion"
CSRF = "X-CSRF-Token"


def broker_of(request: Request) -> Broker:
    """The broker that `create_app` wired."""
    broker: Broker = request.app.state.broker
    return broker


BrokerDep = Annotated[Broker, Depends(broker_of)]


def _settings(broker: BrokerDep) -> Settings:
    return broker.settings


def _store(broker: BrokerDep) -> Store:
    return broker.store


def _keys(broker: BrokerDep) -> Keys:
    return broker.keys


def _vault(broker: BrokerDep) -> Vault:
    return broker.vault


def _trail(broker: BrokerDep) -> Trail:
    return broker.trail


def _now() -> datetime:
    return clock.now()


SettingsDep = Annotated[Settings, Depends(_settings)]
StoreDep = Annotated[Store, Depends(_store)]
KeysDep = Annotated[Keys, Depends(_keys)]
VaultDep = Annotated[Vault, Depends(_vault)]
TrailDep = Annotated[Trail, Depends(_trail)]
NowDep = Annotated[datetime, Depends(_now)]


def certificate(request: Request, settings: SettingsDep) -> str | None:
    """The thumbprint of the certificate that the caller's connection proved, where these are looked at."""
    if settings.client_certificates == "off":
        return None
    return certificates.thumbprint(
        request.headers.getlist(settings.client_certificate_header),
        peer=request.client.host if request.client else None,
        proxies=settings.trusted_proxies,
    )


CertificateDep = Annotated[str | None, Depends(certificate)]


def in_service(broker: Broker) -> InService:
    """The published run, opened once a broker."""
    service: InService = broker.parts.setdefault("in_service", InService(broker.store, broker.vault))
    return service


def _service(broker: BrokerDep) -> InService:
    return in_service(broker)


ServiceDep = Annotated[InService, Depends(_service)]


async def _body(request: Request) -> bytes:
    return await request.body()


def agency(request: Request, broker: BrokerDep, now: NowDep, proved: CertificateDep) -> Caller:
    """An organisation's machine, by its token; the body is not read, so a route may stream it."""
    return callers.agency_of(broker.store, broker.tokens, _bearer(request), at=now, certificate=proved)


def person(
    request: Request, broker: BrokerDep, now: NowDep, proved: CertificateDep, body: Annotated[bytes, Depends(_body)]
) -> Caller:
    """A person at an organisation's gateway: its token, and its assertion for this request.

    The path is meant as the routes read it, unescaped; a query follows it as it was sent, behind its question mark.
    """
    assertion = _only(request, ASSERTION)
    if assertion is None:
        raise NotSignedIn("no-assertion")
    query = request.scope["query_string"].decode("latin-1")
    return callers.person_of(
        broker.store, broker.tokens, _bearer(request), assertion,
        method=request.method, path=request.scope["path"] + (f"?{query}" if query else ""), body=body, at=now,
        certificate=proved,
    )  # fmt: skip


def officer(request: Request, broker: BrokerDep, now: NowDep) -> Caller:
    """A person signed in at the broker itself."""
    cookie = request.cookies.get(signin.COOKIE)
    if cookie is None:
        raise NotSignedIn("no-session")
    return callers.officer_of(broker.store, broker.settings, cookie, at=now)


def anyone(
    request: Request, broker: BrokerDep, now: NowDep, proved: CertificateDep, body: Annotated[bytes, Depends(_body)]
) -> Caller:
    """Whichever of the three the request's credentials say; none of them is NotSignedIn."""
    if _only(request, ASSERTION) is not None:
        return person(request, broker, now, proved, body)
    if "authorization" in request.headers:
        return agency(request, broker, now, proved)
    return officer(request, broker, now)


def acting_officer(request: Request, broker: BrokerDep, caller: Annotated[Caller, Depends(officer)]) -> Caller:
    """The same, about to change something: the session's own token came in a header, and from our own origin."""
    signin.check_csrf(
        caller.csrf,
        _only(request, CSRF),
        origin=request.headers.get("origin"),
        site=request.headers.get("sec-fetch-site"),
        base_url=broker.settings.base_url,
    )
    return caller


AgencyDep = Annotated[Caller, Depends(agency)]
PersonDep = Annotated[Caller, Depends(person)]
OfficerDep = Annotated[Caller, Depends(officer)]
ActingOfficerDep = Annotated[Caller, Depends(acting_officer)]
CallerDep = Annotated[Caller, Depends(anyone)]
CALLERS = frozenset({agency, person, officer, anyone})
"""What an architecture test looks for on every route that is not public."""


def _bearer(request: Request) -> str:
    header = _only(request, "Authorization")
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotSignedIn("no-token")
    return token


def _only(request: Request, name: str) -> str | None:
    sent = request.headers.getlist(name)
    if len(sent) > 1:
        raise NotSignedIn("repeated-header")
    return sent[0] if sent else None
