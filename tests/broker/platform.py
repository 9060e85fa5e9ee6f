"""A whole broker on a SQLite file, and an agency's machine and gateway that call it."""

import atexit
import json
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import ECKey
from pydantic import SecretStr

from broker import agencies, clock
from broker.app import create_app
from broker.keys import Keys, b64url
from broker.settings import DemoPerson, Settings
from broker.store import Store, migrate
from broker.wiring import Broker, open_installation

BASE_URL = "http://127.0.0.1:8400"
OPERATOR = {"organisation": "northshire", "role": "OPERATOR", "method": "command"}
DETAILS: Mapping[str, Any] = {
    "name": "Northshire Integrated Care Board", "party_type": "nhs", "sector": "health",
    "roles": ["MASH_ANALYST", "MASH_DECISION_MAKER"],
    "contacts": {"desk": {"name": "Safeguarding desk", "phone": "01632 960001", "out_of_hours": "01632 960002"}},
    "flows": {"health": {"expected_by": "06:00", "contact": "desk"}},
}  # fmt: skip


def some_settings(folder: Path, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "environment": "demo", "partnership": "northshire", "base_url": BASE_URL,
        "database_url": SecretStr(f"sqlite:///{folder}/broker.db"), "data_dir": folder, "linger_ms": 0,
        "demo_people": (DemoPerson(person="ig-1", label="IG officer", role="IG_OFFICER"),),
    }  # fmt: skip
    return Settings(**(given | changes))


def an_app(folder: Path, **changes: Any) -> FastAPI:
    """A broker with fresh keys, a migrated database and an open log."""
    settings = some_settings(folder, **changes)
    Keys.make(folder / "keys")
    shutil.copy(_migrated(), folder / "broker.db")
    open_installation(settings)
    return create_app(settings)


@dataclass(frozen=True, slots=True)
class AnAgency:
    """An agency's keys, and the calls it makes."""

    id: str = "northshire-icb"
    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    client: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    clients: int = 1  # the number in its client key's name

    @property
    def kid(self) -> str:
        return f"{self.id}/client-{self.clients}"

    def public(self) -> dict[str, Any]:
        """Its `public.json`."""
        jwk = {name: value for name, value in self.client.as_dict(private=False).items() if name in "kty crv x y"}
        return {
            "agency": self.id,
            "signing": {"kid": f"{self.id}/1", "public": b64url(self.signing.public_key().public_bytes_raw())},
            "client": {**jwk, "kid": self.kid},
            "key_epoch": "2026-1", "key_fingerprint": "f" * 64, "canaries": ["1", "2", "3"],
        }  # fmt: skip

    def enrolled(self, broker: Broker, **changes: Any) -> "AnAgency":
        enrolment = agencies.Enrolment.parse(self.public(), {**DETAILS, **changes})
        agencies.enrol(broker.store, broker.trail, enrolment, partnership="northshire", who=OPERATOR, at=clock.now())
        return self

    def assertion(self, **changes: Any) -> str:
        now = int(clock.now().timestamp())
        claims = {
            "iss": self.id, "sub": self.id, "aud": f"{BASE_URL}/oauth2/token", "jti": secrets.token_hex(8),
            "iat": now, "exp": now + 60,
        }  # fmt: skip
        return jwt.encode({"alg": "ES256", "kid": self.kid}, claims | changes, self.client)

    def vouch(self, method: str, path: str, body: bytes, *, at: datetime | None = None, **changes: Any) -> str:
        """A Gateway-Assertion for one request."""
        now = int((at or clock.now()).timestamp())
        claims = {
            "iss": self.id, "aud": BASE_URL, "sub": "p-17", "role": "MASH_ANALYST", "sid": "s-1",
            "jti": secrets.token_hex(8), "iat": now, "exp": now + 60, "htm": method, "path": path,
            "body_sha256": sha256(body).hexdigest(),
        }  # fmt: skip
        header = {"alg": "ES256", "kid": self.kid, "typ": "gateway-assertion+jwt"}
        return jwt.encode(header, claims | changes, self.client)

    def token(self, http: TestClient) -> str:
        answer = http.post("/oauth2/token", data=self.grant())
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def grant(self, **changes: Any) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.assertion(**changes),
        }

    def post(self, http: TestClient, path: str, body: Any, **changes: Any) -> Any:
        """What its gateway sends when a person asks."""
        raw = json.dumps(body).encode()
        return http.post(
            path,
            content=raw,
            headers={
                "Authorization": f"Bearer {self.token(http)}",
                "Gateway-Assertion": self.vouch("POST", path, raw, **changes),
                "Content-Type": "application/json",
            },
        )


@cache
def _migrated() -> Path:
    """A migrated database with nothing in it, made once: migrating takes a second."""
    folder = Path(tempfile.mkdtemp(prefix="migrated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = Store(f"sqlite:///{folder}/broker.db")
    migrate.upgrade(store)
    store.close()
    return folder / "broker.db"
