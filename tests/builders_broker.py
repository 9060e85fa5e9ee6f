"""A real broker for tests: its own folder, keys, SQLite, log and vault; an enrolled agency; calls over HTTP."""

from __future__ import annotations

import base64
import hashlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient
from httpx2 import Response
from joserfc import jwt
from joserfc.jwk import ECKey

from agreements import sign, sign_event
from agreements.signing import Act
from agreements.vocabulary import codes_for_agencies
from broker import activation, agencies, clock, documents, register
from broker.api.batches import reception_of
from broker.app import create_app
from broker.keys import Keys, b64url
from broker.reception import Reception
from broker.settings import Settings
from broker.wiring import Broker, open_installation, wire
from linkage.records import MANIFEST_MEDIA_TYPE
from tests.builders import CANARIES, COUNCIL, EPOCH, FINGERPRINT, ICB, PARTNERSHIP, POLICE, Batch, a_signer

FLOWS = ("education", "social_care")
AGREEMENT = "northshire-mash@3.0.0"
PARTIES = (COUNCIL, ICB, POLICE)
DOCUMENTS = Path(__file__).parents[1] / "deploy" / "demo" / "agreements"
PERIOD = b"effective = 2026-04-01, expires = 2028-03-31, review_by = 2027-03-31"
LONG = b"effective = 2020-04-01, expires = 2099-03-31, review_by = 2098-03-31"
SIGNED = datetime(2020, 3, 20, tzinfo=UTC)
WHO = {"person": "test"}
BASE = "http://127.0.0.1:8400"


def some_settings(folder: Path, **changes: Any) -> Settings:
    """A demo's settings with everything in `folder`."""
    known: dict[str, Any] = {
        "environment": "demo", "partnership": PARTNERSHIP, "base_url": BASE, "data_dir": folder,
        "database_url": f"sqlite:///{folder / 'broker.sqlite'}", "linger_ms": 0,
    }  # fmt: skip
    return Settings(**{**known, **changes})


def an_installation(folder: Path, *, agencies: dict[str, tuple[str, ...]] | None = None, **changes: Any) -> Settings:
    """An initialised broker's folder, with agencies (and their flows) enrolled and an agreement that is live.

    The agreement's other parties are enrolled without a flow.
    """
    settings = some_settings(folder, **changes)
    Keys.make(settings.data_dir / "keys")
    open_installation(settings)
    broker = wire(settings)
    for agency, flows in {**dict.fromkeys(PARTIES, ()), **(agencies or {COUNCIL: FLOWS})}.items():
        enrol(broker, agency, flows)
    sign_agreement(broker)
    broker.trail.advance_pending()
    broker.store.close()
    return settings


def sign_agreement(broker: Broker) -> None:
    """The demonstration's agreement and its umbrella, for as long as any test will run, signed and in force."""
    umbrella: list[bytes] = []
    for name in ("northshire-tier1", "northshire-mash"):
        source = (DOCUMENTS / f"{name}.toml").read_bytes().replace(PERIOD, LONG)
        assert LONG in source
        ref = register.import_document(broker.store, broker.trail, source, who=WHO, at=clock.now())
        for party in PARTIES:
            document = documents.read_alone(source, umbrella)
            jws = sign(document, kid=f"{party}/signatory", key=signatory(party), at=SIGNED)
            register.add_signatures(broker.store, broker.trail, ref, jws, who=WHO, at=clock.now())
        activation.activate(broker.store, broker.trail, ref, who=WHO, at=clock.now())
        umbrella = [source]


def pause(broker: Broker | Reception, party: str, do: Act = "suspend") -> None:
    """A party pauses what it discloses under the agreement, or goes on (`resume`)."""
    umbrella, mash = (
        (DOCUMENTS / f"{name}.toml").read_bytes().replace(PERIOD, LONG)
        for name in ("northshire-tier1", "northshire-mash")
    )
    document, at = documents.read_alone(mash, [umbrella]), clock.now().replace(microsecond=0)
    jws = sign_event(document, do, kid=f"{party}/signatory", key=signatory(party), at=at)
    register.add_party_event(broker.store, broker.trail, AGREEMENT, jws, who=WHO, at=at)


def signatory(party: str) -> Ed25519PrivateKey:
    """The key with which an agency signs agreements, the same every time."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"signatory {party}".encode()).digest())


def a_copy(installed: Path, folder: Path) -> Settings:
    """A broker of one's own: another's folder, copied."""
    shutil.copytree(installed, folder, dirs_exist_ok=True)
    return some_settings(folder)


def enrol(broker: Broker, agency: str, flows: tuple[str, ...]) -> None:
    public = client_key(agency).as_dict(private=False)
    enrolment = agencies.Enrolment.parse(
        {
            "agency": agency, "signing": {"kid": f"{agency}/1", "public": a_signer(agency).public},
            "signatory": {
                "kid": f"{agency}/signatory", "public": b64url(signatory(agency).public_key().public_bytes_raw()),
            },
            "client": {name: public[name] for name in ("kty", "crv", "x", "y", "kid")},
            "key_epoch": EPOCH, "key_fingerprint": FINGERPRINT, "canaries": [str(token) for token in CANARIES],
        },
        {
            "name": agency.title(), "party_type": "local_authority", "sector": "social_care", "roles": [],
            "flows": {flow: {"expected_by": "06:00"} for flow in flows},
        },
    )  # fmt: skip
    agencies.enrol(broker.store, broker.trail, enrolment, partnership=PARTNERSHIP, who=WHO, at=clock.now())


def client_key(agency: str) -> ECKey:
    """An agency's client key, the same every time."""
    number = int.from_bytes(hashlib.sha256(f"client key {agency}".encode()).digest(), "big") % (2**255)
    key = ECKey.import_key(ec.derive_private_key(number, ec.SECP256R1()))
    return ECKey.import_key({**key.as_dict(private=True), "kid": f"{agency}/client"})


def agreed(batch: Batch) -> Batch:
    """The batch as encoded under the code lists that the broker has, and not expired today."""
    terms = {"codes_sha256": codes_sha256(), **dates()}
    return batch.saying(**terms)


def codes_sha256() -> str:
    return hashlib.sha256(rfc8785.dumps(codes_for_agencies())).hexdigest()


def dates() -> dict[str, str]:
    """Extracted this minute, good for a week."""
    now = clock.now().replace(microsecond=0)
    instant = {"extracted_at": now, "expires_at": now + timedelta(days=7)}
    return {name: at.isoformat().replace("+00:00", "Z") for name, at in instant.items()}


class Caller:
    """An agency's machine, as its client calls the broker."""

    def __init__(self, http: Any, agency: str = COUNCIL, *, base: str = BASE) -> None:
        self.http = http
        self.agency = agency
        self.base = base
        self.token = ""

    def sign_in(self) -> Response:
        at = int(clock.now().timestamp())
        claims = {
            "iss": self.agency, "sub": self.agency, "aud": f"{self.base}/oauth2/token",
            "jti": secrets.token_urlsafe(12), "iat": at, "exp": at + 60,
        }  # fmt: skip
        header = {"alg": "ES256", "typ": "JWT", "kid": f"{self.agency}/client"}
        response = self.http.post(
            "/oauth2/token",
            data={
                "grant_type": "client_credentials",
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": jwt.encode(header, claims, client_key(self.agency), algorithms=["ES256"]),
            },
        )
        if response.status_code == 200:
            self.token = response.json()["access_token"]
        return response

    def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> Response:
        if not self.token:
            assert self.sign_in().status_code == 200
        return self.http.request(
            method, path, headers={"Authorization": f"Bearer {self.token}", **(headers or {})}, **body
        )

    def open(self, batch: Batch, *, key: str | None = None, signature: str | None = "sign") -> Response:
        headers = {"Content-Type": MANIFEST_MEDIA_TYPE, "Idempotency-Key": key or batch.sha256}
        if signature is not None:
            headers["Manifest-Signature"] = batch.signature if signature == "sign" else signature
        return self.call("POST", f"/v1/flows/{batch.manifest.flow}/batches", headers=headers, content=batch.body)

    def put(self, batch: Batch, id_: str, table: str, number: int, content: bytes, **headers: str) -> Response:
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        path = f"/v1/flows/{batch.manifest.flow}/batches/{id_}/{table}/chunks/{number}"
        return self.call("PUT", path, headers={"Content-Digest": f"sha-256=:{digest}:", **headers}, content=content)

    def fill(self, batch: Batch, id_: str) -> None:
        for table, number, content in batch.chunks():
            answer = self.put(batch, id_, table, number, content)
            assert answer.status_code == 204, answer.text

    def commit(self, batch: Batch, id_: str) -> Response:
        return self.on(batch, id_, "commit", "POST", json={"manifest_sha256": batch.sha256})

    def on(self, batch: Batch, id_: str, what: str = "", method: str = "GET", **body: Any) -> Response:
        path = f"/v1/flows/{batch.manifest.flow}/batches/{id_}{f'/{what}' if what else ''}"
        return self.call(method, path, **body)

    def hand_in(self, batch: Batch) -> str:
        """Open, fill and commit; the batch's id."""
        opened = self.open(batch)
        assert opened.status_code == 201, opened.text
        id_ = str(opened.json()["batch"])
        self.fill(batch, id_)
        committed = self.commit(batch, id_)
        assert committed.status_code == 202, committed.text
        return id_


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    """The real application, without its workers: a test says itself when what is sealed is validated."""
    app = create_app(settings)
    broker: Broker = app.state.broker
    try:
        yield TestClient(app, base_url=settings.base_url)
    finally:
        broker.store.close()


def reception(http: TestClient) -> Reception:
    """The reception of the application that a test client calls."""
    return reception_of(http.app.state.broker)  # type: ignore[attr-defined]


def renamed(batch: Batch, **files: bytes) -> Batch:
    """The batch with other bytes and the manifest it had."""
    return replace(batch, files={**batch.files, **files})
