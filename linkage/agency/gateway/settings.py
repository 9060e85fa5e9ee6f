"""What a gateway is told: the `[gateway]` table of the home's `agency.toml`, overridden by GATEWAY_* variables.

```toml
[gateway]
environment = "demo"                    # or "production", the default
host = "127.0.0.1"
port = 8401
broker_url = "http://127.0.0.1:8400"
organisation = "Northshire Council"     # as people call it
service = "Northshire gateway"
desk = {name = "the safeguarding desk", phone = "01632 960 104"}
address = "https://gateway.northshire.example"          # with [gateway.oidc]: where people reach it
people = [{id = "p-sample-analyst", name = "Sample Analyst", role = "MASH_ANALYST"}]    # demo sign-in only
[gateway.organisations]                 # how the others are called
northshire-police = "Northshire Police"
[gateway.clocks]                        # how soon a contact is due
amber_days = 1
[gateway.oidc]                          # how people sign in but in a demo; the secret as GATEWAY_OIDC__CLIENT_SECRET
issuer = "https://login.northshire.example"
client_id = "safeguarding-gateway"
role_claim = "roles"
roles = {"mash-analysts" = "MASH_ANALYST", "mash-managers" = "MASH_DECISION_MAKER"}
```
"""

from __future__ import annotations

import ipaddress
import tomllib
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ROLES = (
    "MASH_ANALYST", "MASH_DECISION_MAKER", "AGENCY_REP", "EH_COORDINATOR", "SOCIAL_WORKER", "DSL", "DATA_STEWARD",
)  # fmt: skip
"""Roles that sign in at their own agency's gateway (domain.md section 4)."""


class Part(BaseModel):
    """A table inside `[gateway]`: frozen, and no key that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


Role = Literal[
    "MASH_ANALYST", "MASH_DECISION_MAKER", "AGENCY_REP", "EH_COORDINATOR", "SOCIAL_WORKER", "DSL", "DATA_STEWARD"
]


class DemoPerson(Part):
    """Someone who may sign in to a demonstration by being picked from a list."""

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Opaque id, as an identity provider would give.")
    name: str = Field(description="What the sign-in list shows.")
    role: Role = Field(description="The role the person acts in.")


class Oidc(Part):
    """The OpenID provider of this organisation, by which its people sign in."""

    issuer: str = Field(description="The provider's issuer, exactly as it calls itself.")
    client_id: str = Field(description="What the provider knows this gateway as.")
    client_secret: SecretStr | None = Field(
        default=None, description="Its secret, if it has one; better as GATEWAY_OIDC__CLIENT_SECRET than in the file."
    )
    scopes: tuple[str, ...] = Field(default=(), description="Scopes beside openid, where the role's claim takes one.")
    hosts: tuple[str, ...] = Field(
        default=(), description="Other hosts of the provider, if its addresses are on several."
    )
    person_claim: str = Field(
        default="sub", description="The claim that is the person's opaque id; no name, no address."
    )
    role_claim: str = Field(default="roles", description="The claim that says roles or groups.")
    roles: dict[str, Role] = Field(description="That claim's values to roles here.", min_length=1)
    required: dict[str, str] = Field(default={}, description="Claims that must be so, as a tenant's.")
    acr: tuple[str, ...] = Field(default=(), description="How the person must have proved who they are, one of these.")


class Desk(Part):
    """Whom to ring when the service can't help."""

    name: str = Field(description="What people call it.")
    phone: str = Field(description="Its number.")


class Clocks(Part):
    """How soon a contact is due, by how urgent a person has said that it is."""

    red_hours: int = Field(default=4, ge=1, le=72, description="Red: hours, nights and holidays too.")
    amber_days: int = Field(default=1, ge=1, le=20, description="Amber: working days after the day it came.")
    green_days: int = Field(default=3, ge=1, le=40, description="Green: working days after the day it came.")
    closures: tuple[date, ...] = Field(default=(), description="The partnership's own days off, beside bank holidays.")


class GatewaySettings(BaseSettings):
    """Every setting of one agency's gateway."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    environment: Literal["production", "demo"] = Field(
        "production", description="`demo` allows sign-in by picking oneself from a list."
    )
    host: str = Field("127.0.0.1", description="Address to listen on; TLS ends at the reverse proxy before it.")
    port: int = Field(default=8401, ge=1, le=65535, description="Port to listen on.")
    allowed_hosts: tuple[str, ...] = Field(
        ("127.0.0.1", "localhost"), description="Names by which people reach the gateway: others are refused."
    )
    address: str = Field(default="", description="Where people reach the gateway, as https://...; due with oidc.")
    broker_url: str = Field("", description="The broker's address, where it is not the home's `broker`.")
    organisation: str = Field(description="What people call this organisation.")
    service: str = Field("Safeguarding gateway", description="The name of the service, as its pages show it.")
    desk: Desk = Field(description="Whom to ring when the service can't help.")
    organisations: dict[str, str] = Field(
        default_factory=dict, description="What people call the others, by their ids."
    )
    oidc: Oidc | None = Field(
        None, description="The OpenID provider of this organisation, by which its people sign in."
    )
    clocks: Clocks = Field(default=Clocks(), description="How soon contacts are due.")
    people: tuple[DemoPerson, ...] = Field((), description="Who may sign in to a demo.")
    idle_minutes: int = Field(default=15, ge=1, le=60, description="A session ends after this long without a request.")
    session_hours: int = Field(default=8, ge=1, le=12, description="A session ends after this long in any case.")
    typed_minutes: int = Field(
        default=60, ge=1, le=60, description="How long what a person typed is kept, sealed, for the pages that follow."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment beats the file."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _picking_yourself_from_a_list_is_for_a_demonstration(self) -> GatewaySettings:
        if self.people and (self.environment != "demo" or not is_loopback(self.host)):
            raise ValueError("people: sign-in from a list needs environment = 'demo' and a loopback host")
        return self

    @model_validator(mode="after")
    def _sign_in_has_a_way_there_and_back(self) -> GatewaySettings:
        if self.oidc is None:
            return self
        if not self.address or self.address.endswith("/"):
            raise ValueError("address: due with oidc, without a slash at the end: the provider sends people back there")
        if self.environment == "production" and not (
            self.address.startswith("https://") and self.oidc.issuer.startswith("https://")
        ):
            raise ValueError("address, oidc.issuer: https is due in production")
        return self


def load(home: Path) -> GatewaySettings:
    """Settings of the gateway whose home this is.

    Raises ValueError (pydantic's, which quotes no value) if a setting is missing, unknown or out of range, and OSError
    if `agency.toml` can't be read.
    """
    table: dict[str, Any] = tomllib.loads((home / "agency.toml").read_text(encoding="utf-8")).get("gateway", {})
    return GatewaySettings(**table)


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach `host`.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("gateway.example")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
