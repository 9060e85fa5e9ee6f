"""Sign-in at the gateway by the organisation's own OpenID provider: authorization code with PKCE (RFC 7636).

As at the broker (`broker.signin.provider`), apart from it as the two are of two organisations.  What has to be
remembered between leaving for the provider and coming back lies in a cookie, sealed and for ten minutes.  Addresses
come from the settings and from the provider that these name, and are held to its host.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth, OAuthError
from joserfc.errors import JoseError

from linkage.agency.gateway.settings import Oidc, Role

COOKIE: Final = "__Host-gateway-leaving"
RETURN: Final = "/sign-in/return"
LASTS: Final = timedelta(minutes=10)
SECONDS: Final = 10.0  # which the provider may take to answer
LEEWAY: Final = 60
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"}
)
ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_PERSON: Final = re.compile(r"[A-Za-z0-9._:|-]{1,128}")

Seal = Callable[[dict[str, Any]], str]
Open = Callable[[str], dict[str, Any] | None]


class Unavailable(Exception):
    """The OpenID provider can't be asked, or is not the one that the settings name."""


class NotVouched(Exception):
    """The provider vouches for nobody here: nobody came back, or by another way than they left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who the provider says is here, and what the settings make of that."""

    person: str
    role: Role


class Denied(Exception):
    """The provider vouches for somebody who has no way in.  `reason`: no-role, several-roles, acr, tenant, person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Provider:
    """One OpenID provider, as its settings name it."""

    def __init__(self, settings: Oidc, *, address: str, seal: Seal, opened: Open) -> None:
        """`address`: the gateway's own.  `seal`, `opened`: what is kept as text, and back, or None if not ours."""
        self._settings = settings
        self._return = f"{address}{RETURN}"
        self._seal, self._opened = seal, opened
        self._loading = asyncio.Lock()
        secret = settings.client_secret.get_secret_value() if settings.client_secret else None
        self._client: Any = OAuth().register(
            "oidc",
            client_id=settings.client_id,
            client_secret=secret,
            server_metadata_url=f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": " ".join(("openid", *settings.scopes)), "code_challenge_method": "S256", "timeout": SECONDS,
                "token_endpoint_auth_method": "client_secret_basic" if secret else "none",
            },
        )  # fmt: skip

    async def leave(self, *, at: datetime) -> tuple[str, str]:
        """Where to send the browser, and what its cookie is to keep.  Raises Unavailable."""
        await self._metadata()
        asked = {"acr_values": " ".join(self._settings.acr)} if self._settings.acr else {}
        begun = await self._client.create_authorization_url(self._return, **asked)
        kept = {name: begun[name] for name in ("state", "nonce", "code_verifier")} | {"at": int(at.timestamp())}
        return begun["url"], self._seal(kept)

    async def come_back(self, query: Mapping[str, str], cookie: str, *, at: datetime) -> Person:
        """Who came back.

        Raises Denied if the provider vouches for them and nothing here does, NotVouched if it does not vouch,
        Unavailable if it can't be asked.
        """
        kept = self._kept(cookie, at)
        if not hmac.compare_digest(str(query.get("state", "")).encode(), kept["state"].encode()):
            raise NotVouched
        if "error" in query or not query.get("code"):
            raise NotVouched
        metadata = await self._metadata()
        try:
            token = await self._client.fetch_access_token(
                redirect_uri=self._return, code=query["code"], code_verifier=kept["code_verifier"]
            )
            claims = await self._client.parse_id_token(
                token, nonce=kept["nonce"], leeway=LEEWAY,
                claims_options={
                    "iss": {"essential": True, "value": metadata["issuer"]},
                    "aud": {"essential": True}, "exp": {"essential": True}, "nonce": {"essential": True},
                },
            )  # fmt: skip
        except (OAuthError, AuthlibBaseError, JoseError, ValueError, TypeError, KeyError):
            raise NotVouched from None
        except httpx2.HTTPError:
            raise Unavailable("the OpenID provider does not answer") from None
        if claims is None:
            raise NotVouched
        return self._person(claims)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        settings = self._settings
        if any(claims.get(name) != value for name, value in settings.required.items()):
            raise Denied("tenant")
        person = claims.get(settings.person_claim)
        if not isinstance(person, str) or not _PERSON.fullmatch(person):
            raise Denied("person")
        if settings.acr and claims.get("acr") not in settings.acr:
            raise Denied("acr")
        said = claims.get(settings.role_claim, ())
        listed = said if isinstance(said, list) else [said]
        named = {one for one in listed if isinstance(one, str)}
        mapped = {settings.roles[name] for name in named if name in settings.roles}
        if not mapped:
            raise Denied("no-role")
        if len(mapped) > 1:
            raise Denied("several-roles")
        return Person(person=person, role=next(iter(mapped)))

    def _kept(self, cookie: str, at: datetime) -> dict[str, Any]:
        kept = self._opened(cookie)
        if kept is None or not 0 <= at.timestamp() - kept["at"] < LASTS.total_seconds():
            raise NotVouched
        return kept

    async def _metadata(self) -> Mapping[str, Any]:
        """The provider's own description, read once, and held to its issuer and host."""
        async with self._loading:
            if not self._client.server_metadata.get("checked"):
                try:
                    found = dict(await self._client.load_server_metadata())
                except (httpx2.HTTPError, ValueError):
                    raise Unavailable("the OpenID provider does not answer") from None
                self._client.server_metadata.clear()
                self._client.server_metadata.update(self._checked(found))
        metadata: Mapping[str, Any] = self._client.server_metadata
        return metadata

    def _checked(self, found: dict[str, Any]) -> dict[str, Any]:
        issuer = self._settings.issuer
        if found.get("issuer") != issuer:
            raise Unavailable("the OpenID provider calls itself by another issuer than oidc.issuer")
        home = urlsplit(issuer)
        hosts = {home.netloc, *self._settings.hosts}
        for name in ENDPOINTS:
            address = urlsplit(str(found.get(name, "")))
            if address.netloc not in hosts or address.scheme != home.scheme:
                raise Unavailable(f"the OpenID provider's {name} is not on its own host: see oidc.hosts")
        offered = found.get("id_token_signing_alg_values_supported") or ["RS256"]
        found["id_token_signing_alg_values_supported"] = [one for one in offered if one in ALGORITHMS]
        return found | {"checked": True}
