"""An agency's home: a folder with its settings, keys, crosswalk and receipts, which never leaves its network.

agency.toml         agency, partnership, key_epoch, profile, broker, [tls], [timeouts]; [gateway] for the gateway
public.json         what the broker is given to enrol it: public halves, key fingerprint, canaries
keys/               link.key, record.key, signing.pem, signatory.pem, client.pem: mode 0600, checked on every reading;
                    link-<epoch>.key beside them while the linkage key is rotated
crosswalk.sqlite    record_ref <-> case number
state.json          per flow: the last sequence the broker sealed, and the hash of its manifest
told/               per flow: keyed digests of what each batch said, so that the next may say only what is new
receipts/           what the broker signed
"""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from linkage.agency.keys import BadKey, LinkageKeys, keyed_hex, read_hex_key, read_secret
from linkage.records import Profile

AGENCY_ID: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
EPOCH: Final = r"^[A-Za-z0-9][A-Za-z0-9.-]{0,31}$"


class BadHome(ValueError):
    """An agency's home can't be used: the message names the file or setting, and what to do."""


class Timeouts(BaseModel):
    """Seconds to wait for the broker, and how often to try again."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    seconds: float = Field(default=30, gt=0, description="How long one call may take.")
    attempts: int = Field(default=5, ge=1, le=20, description="How often a call is tried before it is given up.")


class Tls(BaseModel):
    """How the connection to the broker is proved, both ways; files count from the home."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    certificate: Path | None = Field(default=None, description="This agency's client certificate, PEM, with its chain.")
    key: Path | None = Field(default=None, description="Its private key, PEM without a password, mode 0600.")
    authorities: Path | None = Field(
        default=None, description="Who may vouch for the broker, PEM; default: the system's."
    )

    @model_validator(mode="after")
    def _pair(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate, key: one is of no use without the other")
        return self


class AgencySettings(BaseSettings):
    """`agency.toml`, overridden by AGENCY_<KEY> in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="AGENCY_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    agency: str = Field(pattern=AGENCY_ID, description="This agency's id, as agreements write it.")
    partnership: str = Field(
        pattern=AGENCY_ID, description="The partnership's id: part of what the linkage key is for."
    )
    key_epoch: str = Field(
        min_length=1, max_length=32, description="The epoch of the linkage key that nights are under."
    )
    profile: Profile = Field("guarded-3", description="How people are encoded: the partnership's one profile.")
    broker: str = Field(
        "http://127.0.0.1:8400", description="The broker's address, as https:// and no slash at the end."
    )
    timeouts: Timeouts = Field(Timeouts(), description="Seconds to wait for the broker, and how often to try again.")
    tls: Tls = Field(Tls(), description="How the connection to the broker is proved, both ways; files count from here.")

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


class Home:
    """One agency's home folder.  Keys are read when first asked for; the `repr` is its place.

    `shadow`: an epoch of the linkage key that is being prepared.  Then what is encoded, and what is held of flows, is
    under that one, and what is held of the nights is left alone.
    """

    def __init__(self, folder: Path, *, shadow: str = "") -> None:
        """Raises BadHome if there is no home or its settings are wrong."""
        self.folder = folder
        self.shadow = shadow
        self.settings = _settings(folder)
        if shadow:
            self.settings = self.settings.model_copy(update={"key_epoch": shadow})

    def __repr__(self) -> str:
        return f"Home({str(self.folder)!r})"

    @property
    def agency(self) -> str:
        return self.settings.agency

    @property
    def profile(self) -> Profile:
        return self.settings.profile

    @property
    def crosswalk_path(self) -> Path:
        return self.folder / "crosswalk.sqlite"

    @property
    def receipts(self) -> Path:
        return self.folder / "receipts"

    @cached_property
    def link_keys(self) -> LinkageKeys:
        """The partnership's keys.  Raises BadKey."""
        return self.keys_of(self.settings.key_epoch)

    def keys_of(self, epoch: str) -> LinkageKeys:
        """The partnership's keys of an epoch: its own file's, or else those of `link.key`.  Raises BadKey."""
        path = self.folder / "keys" / f"link-{epoch}.key"
        if not path.exists():
            if self.shadow or epoch != self.settings.key_epoch:
                raise BadKey(f"{path} is not there: `agency link-key next --epoch {epoch}` makes or takes it")
            path = self.folder / "keys" / "link.key"
        return LinkageKeys(read_hex_key(path), partnership=self.settings.partnership, epoch=epoch)

    def other_epochs(self, than: str) -> list[str]:
        """The other epochs of the linkage key whose keys lie here, newest name first."""
        names = {path.stem.removeprefix("link-") for path in (self.folder / "keys").glob("link-*.key")}
        return sorted(names - {than}, reverse=True)

    def place(self, flow: str) -> str:
        """Under what a flow's state is held: of its nights, or of the shadow set."""
        return f"{flow}@{self.shadow}" if self.shadow else flow

    @cached_property
    def record_key(self) -> bytes:
        """The agency's own secret, for references.  Raises BadKey."""
        return read_hex_key(self.folder / "keys" / "record.key")

    @cached_property
    def signing_key(self) -> Ed25519PrivateKey:
        """Signs manifests.  Raises BadKey."""
        key = _private_key(self.folder / "keys" / "signing.pem")
        if not isinstance(key, Ed25519PrivateKey):
            raise BadKey("keys/signing.pem: an Ed25519 key is due")
        return key

    @cached_property
    def client_key(self) -> EllipticCurvePrivateKey:
        """Signs the client's and the gateway's statements.  Raises BadKey."""
        key = _private_key(self.folder / "keys" / "client.pem")
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise BadKey("keys/client.pem: a P-256 key is due")
        return key

    @cached_property
    def public(self) -> dict[str, Any]:
        """The enrolment file.  Raises BadHome."""
        return _read_json(self.folder / "public.json")

    @property
    def signing_kid(self) -> str:
        return str(self.public["signing"]["kid"])

    @property
    def client_kid(self) -> str:
        return str(self.public["client"]["kid"])

    def record_ref(self, flow: str, local_id: str) -> str:
        """The broker's name for one of this agency's records, 64 hex digits: only the crosswalk turns it back."""
        return keyed_hex(self.record_key, "record", flow, local_id)

    def case_token(self, case: str) -> str:
        """The keyed token of a case reference, 64 hex digits: the number itself stays here."""
        return keyed_hex(self.record_key, "case", "".join(case.split()).upper())

    def state(self, flow: str) -> Mapping[str, Any]:
        """What was last sealed of a flow: {"sequence", "manifest_sha256"}; a fresh flow has 0 and an empty hash."""
        path = self.folder / "state.json"
        held = _read_json(path).get(self.place(flow), {}) if path.exists() else {}
        return {"sequence": 0, "manifest_sha256": "", **held}

    def flows(self) -> list[str]:
        """The flows of which a batch was ever sealed."""
        path = self.folder / "state.json"
        return sorted(name for name in _read_json(path) if "@" not in name) if path.exists() else []

    def remember(self, flow: str, **values: Any) -> None:
        """Add to what is held of a flow, on disk before this returns."""
        path = self.folder / "state.json"
        held = _read_json(path) if path.exists() else {}
        place = self.place(flow)
        held[place] = {**held.get(place, {}), **values}
        write_whole(path, json.dumps(held, indent=2, sort_keys=True).encode() + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path` whole or not at all, and on disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        flush_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def flush_folder(folder: Path) -> None:
    """Make what was renamed into a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _settings(folder: Path) -> AgencySettings:
    path = folder / "agency.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BadHome(f"{path}: {problem.strerror}; `agency keygen --home {folder}` makes a home") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadHome(f"{path}: not TOML: {problem}") from None
    table.pop("gateway", None)
    try:
        return AgencySettings(**table)
    except ValueError as problem:  # pydantic's; quotes no value
        raise BadHome(f"{path}: {problem}") from None


def _private_key(path: Path) -> object:
    try:
        return load_pem_private_key(read_secret(path), password=None)
    except BadKey:
        raise
    except (ValueError, TypeError):
        raise BadKey(f"{path} is not a private key in PEM") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_bytes())
    except OSError as problem:
        raise BadHome(f"{path}: {problem.strerror}") from None
    except ValueError:
        raise BadHome(f"{path}: not JSON") from None
    if not isinstance(held, dict):
        raise BadHome(f"{path}: an object is due")
    return held
