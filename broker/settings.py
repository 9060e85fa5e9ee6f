"""Every setting of the broker: `broker.toml`, then files of secrets, then BROKER_ variables, which win."""

from __future__ import annotations

import os
import re
from datetime import date, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from broker.errors import BadSettings

MIB: Final = 1024 * 1024
_PLACE: Final = re.compile(r"\(at (line \d+, column \d+|end of document)\)")
BrokerRole = Literal["IG_OFFICER", "DPO", "CALDICOTT", "LINK_REVIEWER", "OPERATOR", "SERVICE_PLANNER", "INSPECTOR"]
GOVERNANCE: Final = frozenset({"IG_OFFICER", "DPO", "CALDICOTT"})
"""Who answers for what is shared: officers, the data protection officer, the Caldicott Guardian.  Any two are two."""
INSPECTION_LASTS: Final = timedelta(days=92)
"""The longest inspection that one setting may open; a longer one is opened again."""


class DemoPerson(BaseModel):
    """Someone who may sign in to the demo without a password."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    person: str = Field(description="Opaque id, as an identity provider would give.")
    label: str = Field(description="What the sign-in list shows: a job, not a name.")
    role: BrokerRole = Field(description="The role the person acts in.")
    organisation: str = Field("", description="Whose staff a SERVICE_PLANNER is, as agreements name it.")

    @model_validator(mode="after")
    def _of_somebody(self) -> DemoPerson:
        if (self.role == "SERVICE_PLANNER") != bool(self.organisation):
            raise ValueError("organisation: due for a SERVICE_PLANNER, and for nobody else")
        return self


class Oidc(BaseModel):
    """The OpenID provider by which people sign in at the broker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(description="The provider's issuer, exactly as it calls itself.")
    client_id: str = Field(description="What the provider knows this broker as.")
    client_secret: SecretStr | None = Field(
        default=None, description="Its secret, if it has one; better as BROKER_OIDC__CLIENT_SECRET than in the file."
    )
    label: str = Field(default="your organisation", description="Whose sign-in it is, as the page says it.")
    scopes: tuple[str, ...] = Field(default=(), description="Scopes beside openid, where the role's claim takes one.")
    hosts: tuple[str, ...] = Field(
        default=(), description="Other hosts of the provider, if its addresses are on several."
    )
    person_claim: str = Field(
        default="sub", description="The claim that is the person's opaque id; no name, no address."
    )
    role_claim: str = Field(default="roles", description="The claim that says roles or groups.")
    roles: dict[str, BrokerRole] = Field(default={}, description="That claim's values to roles here.")
    planners: dict[str, str] = Field(default={}, description="Its values to the party whose SERVICE_PLANNER that is.")
    required: dict[str, str] = Field(default={}, description="Claims that must be so, as a tenant's.")
    acr: tuple[str, ...] = Field(default=(), description="How the person must have proved who they are, one of these.")

    @model_validator(mode="after")
    def _whole(self) -> Oidc:
        if "SERVICE_PLANNER" in self.roles.values():
            raise ValueError("roles: a SERVICE_PLANNER is some party's: see planners")
        if not self.roles and not self.planners:
            raise ValueError("roles: without one nobody can sign in")
        if set(self.roles) & set(self.planners):
            raise ValueError("planners: a value of the claim is one role alone")
        return self


class Inspection(BaseModel):
    """The days on which one inspector may look: an INSPECTOR without one can't sign in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    person: str = Field(description="The inspector's opaque id, as the provider gives it.")
    first: date = Field(description="The first day, in London.")
    last: date = Field(description="The last day, to its end.")

    @model_validator(mode="after")
    def _some_days(self) -> Inspection:
        if not self.first <= self.last <= self.first + INSPECTION_LASTS:
            raise ValueError(f"last: from the first day to {INSPECTION_LASTS.days} days after it")
        return self


class LogRetention(BaseModel):
    """How many years the log keeps what events say.  The leaves, and with them every proof, stay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contact_years: int = Field(
        default=6, ge=1, le=100, description="Events about somebody: after the last contact with them,"
    )
    until_age: int = Field(default=25, ge=18, le=100, description="or until they are so old, whichever is later.")
    plain_years: int = Field(default=7, ge=1, le=100, description="Where neither is known.")
    technical_years: int = Field(
        default=2, ge=1, le=100, description="Sign-ins, runs of linkage, clocks, late witnesses."
    )
    by_type: dict[str, int] = Field(default={}, description="Years for one type of event, whoever it is about.")


class Budgets(BaseModel):
    """How much one person and one organisation may ask in an hour and in a day, each running up to now."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    person_searches_hour: int = Field(default=120, ge=1, description="Searches of one person in an hour,")
    person_searches_day: int = Field(default=400, ge=1, description="and in a day.")
    person_views_hour: int = Field(default=80, ge=1, description="Family views that one person opens in an hour,")
    person_views_day: int = Field(default=250, ge=1, description="and in a day.")
    organisation_searches_hour: int = Field(
        default=1500, ge=1, description="Searches of a whole organisation in an hour."
    )
    organisation_searches_day: int = Field(default=8000, ge=1, description="Searches of it in a day.")
    organisation_views_hour: int = Field(default=1000, ge=1, description="Family views that it opens in an hour,")
    organisation_views_day: int = Field(default=5000, ge=1, description="and in a day.")


class Pkcs11(BaseModel):
    """The PKCS#11 token that holds the key-encryption key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module: Path = Field(description="The token's library, as its maker says: a .so.")
    token: str = Field(description="The token's label.")
    key: str = Field(default="safeguarding-kek", description="The key's label in the token.")
    pin: SecretStr = Field(description="The user's PIN; better as BROKER_PKCS11__PIN than in the file.")


class Settings(BaseSettings):
    """The broker's configuration.  Built once, handed to `create_app`, never changed."""

    model_config = SettingsConfigDict(
        env_prefix="BROKER_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    environment: Literal["production", "demo"] = Field(
        "production", description="`demo` allows sign-in without a password."
    )
    partnership: str = Field(description="Name of the partnership, as agreements write it.")
    profile: Literal["guarded-3", "accurate-2"] = Field(
        "guarded-3", description="How agencies encode people: one profile a partnership, as they can't be compared."
    )
    base_url: str = Field(
        description="Where callers reach the broker; the audience of their tokens. No slash at the end."
    )
    database_url: SecretStr = Field(description="SQLAlchemy URL: sqlite:///file or postgresql+psycopg://...")
    sequencer_url: SecretStr | None = Field(
        None, description="The same database under the login that adds to the log; without it, database_url's does."
    )
    eraser_url: SecretStr | None = Field(
        None, description="The same database under the login that erases and expires; without it, database_url's does."
    )
    failover: Literal["none", "synchronous"] = Field(
        "none", description="`synchronous`: PostgreSQL must have a synchronous standby, else nothing is acknowledged."
    )
    data_dir: Path = Field(description="Folder of spool/, vault/, keys/ and signer/.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8400, ge=1, le=65535, description="Port to listen on.")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port on which Prometheus reads the broker's figures; without it, none does."
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Address of that port: one that nobody but your monitoring reaches."
    )
    pkcs11: Pkcs11 | None = Field(
        None, description="The token that holds the key-encryption key; without it, a file or the environment does."
    )
    signer: Literal["process", "inline"] | None = Field(
        None,
        description="Who holds the log's private key: `broker signer` (default), or this process (in a demo).",
    )
    signer_socket: Path = Field(Path("signer/signer.sock"), description="Where `broker signer` listens; from data_dir.")
    log_post_quantum: bool = Field(
        False, description="New keys of the log come with an ML-DSA-44 one, whose line stands beside (inline signer)."
    )
    ballast_kb: int = Field(
        1024, ge=256, le=1048576, description="Room kept beside the database, for the log to say that the disk is full."
    )
    client_certificates: Literal["off", "offered", "required"] = Field(
        "off", description="Machine tokens are bound to the client's certificate: where one is offered, or always."
    )
    client_certificate_header: str = Field(
        "Client-Cert", pattern=r"^[A-Za-z0-9-]{1,64}$", description="The header in which the proxy passes it on."
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (), description="Addresses of the reverse proxies that end TLS: whose header is believed, and nobody else's."
    )
    token_seconds: int = Field(600, ge=60, le=600, description="How long a machine token holds.")
    receipt_seconds: float = Field(
        5.0, gt=0, description="How long an answer waits for its checkpoint before it is refused."
    )
    linger_ms: int = Field(5, ge=0, le=1000, description="How long the sequencer waits for company before it writes.")
    pace_ms: int = Field(
        250, ge=0, le=2000, description="Answers about people leave at multiples of this, so that time tells nothing."
    )
    notice_minutes: int = Field(
        15, ge=1, le=1440, description="How often holders are given what to consider: at fixed times, empty or not."
    )
    session_idle_minutes: int = Field(15, ge=1, le=15, description="A session ends after this long without a request.")
    session_hours: int = Field(8, ge=1, le=8, description="A session ends after this long in any case.")
    max_body_bytes: int = Field(1 * MIB, description="Largest request body but for a chunk.")
    max_chunk_bytes: int = Field(64 * MIB, description="Largest chunk of a batch.")
    retrain_days: int = Field(
        90, ge=0, description="A night trains a new model beside the one in service after so many days. 0: never."
    )
    epoch_hold_days: int = Field(
        30, ge=1, le=365, description="How long the last epoch of the linkage key is held for a return."
    )
    epoch_lag_days: int = Field(
        7, ge=0, le=90, description="How far a new epoch's batches may be behind the nights at its flip."
    )
    epoch_rate_band: float = Field(
        0.01, gt=0, le=1, description="Share of records that a new epoch may link more or less, in each flow."
    )
    epoch_records_band: float = Field(
        0.02, gt=0, le=1, description="Share of a flow's records in service that a new epoch's batch may lack."
    )
    query_memory_mb: int = Field(256, description="What DuckDB may use to check one batch.")
    log_retention: LogRetention = Field(LogRetention(), description="How long the log keeps what events say of people.")
    budgets: Budgets = Field(Budgets(), description="How much a person and an organisation may ask.")
    oidc: Oidc | None = Field(None, description="The OpenID provider by which people sign in at the broker.")
    inspections: tuple[Inspection, ...] = Field((), description="When which inspector may look, and no longer.")
    demo_people: tuple[DemoPerson, ...] = Field((), description="Who may sign in to a demo.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, file_secret_settings, TomlConfigSettingsSource(settings_cls))

    @model_validator(mode="after")
    def _safe(self) -> Settings:
        if self.base_url.endswith("/"):
            raise ValueError("base_url: no slash at the end")
        if self.environment == "production" and not (self.base_url.startswith("https://") or self.loopback):
            raise ValueError("base_url: https is due in production")
        if self.oidc and self.environment == "production" and not self.oidc.issuer.startswith("https://"):
            raise ValueError("oidc.issuer: https is due in production")
        if self.demo_people and not self.demo_sign_in:
            raise ValueError("demo_people: only where environment is demo, host is loopback and database is SQLite")
        if self.client_certificates != "off" and not self.trusted_proxies:
            raise ValueError("trusted_proxies: due with client_certificates, for it is they that tell the certificate")
        if self.sqlite and self.failover != "none":
            raise ValueError("failover: for PostgreSQL, as a SQLite file has no standby")
        if self.sqlite and self.logins:
            raise ValueError("sequencer_url, eraser_url: for PostgreSQL, as SQLite knows no logins")
        if self.environment == "demo" and not (self.loopback and self.sqlite):
            raise ValueError("environment: a demo listens on loopback and keeps its data in SQLite")
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the broker."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.database_url.get_secret_value().startswith("sqlite:")

    @property
    def logins(self) -> dict[str, str]:
        """URLs of the database under other logins, by what they do."""
        given = {"sequencer": self.sequencer_url, "eraser": self.eraser_url}
        return {use: url.get_secret_value() for use, url in given.items() if url is not None}

    @property
    def standby(self) -> bool:
        """Whether PostgreSQL must keep a synchronous standby."""
        return self.failover == "synchronous"

    @property
    def demo_sign_in(self) -> bool:
        """Whether people may sign in without a password: in a demo, on loopback, on SQLite."""
        return self.environment == "demo" and self.loopback and self.sqlite

    @property
    def log_base(self) -> str:
        """What the origins of the log's shards begin with; `/<year>` follows."""
        return f"{self.base_url.split('://', 1)[1]}/audit"

    @property
    def signs_inline(self) -> bool:
        """Whether the log's key is used in this process."""
        return self.signer == "inline" or (self.signer is None and self.environment == "demo")

    @property
    def token_endpoint(self) -> str:
        """The audience of an agency's client assertion."""
        return f"{self.base_url}/oauth2/token"


def place_in_toml(wrong: ValueError) -> str:
    """Where a TOML file is wrong, to be put behind what is said of it; never what stands there."""
    found = _PLACE.search(str(wrong))
    return f": {found[1]}" if found else ""


def read(config: Path | None) -> Settings:
    """Settings from a TOML file and the environment.

    A secret may be a file of its own: `broker_database_url` and so on in the folder that CREDENTIALS_DIRECTORY names.
    Relative paths in `data_dir` and in a SQLite URL count from the folder of the file.
    Raises BadSettings, which names the settings that are wrong and no value.
    """
    if config is not None and not config.is_file():
        raise BadSettings(f"there is no file {config}: name your broker.toml with --config or BROKER_CONFIG")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        given = os.environ.get("CREDENTIALS_DIRECTORY")  # as systemd hands out what LoadCredential names
        secrets = {"_secrets_dir": given} if given and Path(given).is_dir() else {}
        found = FromFile(**secrets)  # type: ignore[arg-type]  # what is due comes from the file and the environment
    except ValidationError as wrong:
        raise BadSettings(
            "; ".join(
                _worded(error["loc"], _MISSING if error["type"] == "missing" else error["msg"])
                for error in wrong.errors()
            )
        ) from None
    except ValueError as wrong:
        raise BadSettings(f"{config} is not TOML in UTF-8{place_in_toml(wrong)}") from None
    folder = (config.parent if config is not None else Path()).resolve()
    url = found.database_url.get_secret_value()
    if found.sqlite and not url.startswith("sqlite:////"):
        url = f"sqlite:///{folder / url.removeprefix('sqlite:///')}"
    return found.model_copy(update={"data_dir": folder / found.data_dir, "database_url": SecretStr(url)})


_MISSING: Final = "it must be set, in the file that --config names or as BROKER_ and its name in capitals"


def _worded(place: tuple[int | str, ...], message: str) -> str:
    return ": ".join(filter(None, [".".join(str(part) for part in place), message.removeprefix("Value error, ")]))
