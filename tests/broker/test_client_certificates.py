"""A machine token holds over the connection that it was given over, and no other (RFC 8705)."""

import asyncio
import base64
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError

from broker import clock
from broker.errors import NotSignedIn
from broker.keys import b64url
from broker.tokens import Tokens
from broker.wiring import Broker
from linkage.agency.client import Tokens as ClientTokens
from linkage.agency.client import Unreachable, connection
from linkage.agency.keygen import make_home
from linkage.agency.keys import BadKey
from linkage.agency.settings import BadHome, Home
from tests.broker.platform import BASE_URL, AnAgency, an_app, some_settings

PROXY = "10.0.0.5"
HEADER = "Client-Cert"


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def header(self) -> dict[str, str]:
        return {HEADER: f":{base64.b64encode(self.der).decode()}:"}

    def write(self, folder: Path, name: str) -> None:
        (folder / f"{name}.crt").write_bytes(self.pem)
        path = folder / f"{name}.key"
        path.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)


def certified(name: str, by: Certified | None = None) -> Certified:
    """A certificate of `name`, its own authority unless another vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(clock.now() - timedelta(days=1))
        .not_valid_after(clock.now() + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(by.key if by else key, SHA256())
    )
    return Certified(made, key)


AUTHORITY = certified("authority")
OURS, ANOTHER = certified("northshire-icb", AUTHORITY), certified("northshire-police", AUTHORITY)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return an_app(tmp_path_factory.mktemp("bound"), client_certificates="offered", trusted_proxies=("10.0.0.0/24",))


@pytest.fixture(scope="module")
def agency(app: FastAPI) -> AnAgency:
    broker: Broker = app.state.broker
    return AnAgency().enrolled(broker)


@pytest.fixture(scope="module")
def through(app: FastAPI, agency: AnAgency) -> Iterator[TestClient]:
    """Calls as they come from the proxy."""
    with TestClient(app, base_url=BASE_URL, client=(PROXY, 40000)) as http:
        yield http


def taken(http: TestClient, token: str, headers: dict[str, str]) -> int:
    answer = http.get("/v1/flows/health", headers={"Authorization": f"Bearer {token}", **headers})
    return int(answer.status_code)


def granted(http: TestClient, agency: AnAgency, headers: dict[str, str]) -> str:
    answer = http.post("/oauth2/token", data=agency.grant(), headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def test_a_token_holds_over_the_connection_it_was_given_over_alone(through: TestClient, agency: AnAgency) -> None:
    token = granted(through, agency, OURS.header)
    assert taken(through, token, OURS.header) == 200
    assert taken(through, token, ANOTHER.header) == 401  # stolen
    assert taken(through, token, {}) == 401


def test_a_person_s_gateway_is_held_to_its_certificate_too(through: TestClient, agency: AnAgency) -> None:
    token = granted(through, agency, OURS.header)

    def ask(headers: dict[str, str]) -> int:
        sent = {"Authorization": f"Bearer {token}", "Gateway-Assertion": agency.vouch("POST", "/v1/searches", b"{}")}
        answer = through.post("/v1/searches", content=b"{}", headers={**sent, **headers})
        return int(answer.status_code)

    assert ask(OURS.header) == 422  # who calls is clear; what it asks is not of the form
    assert ask(ANOTHER.header) == 401


@pytest.mark.parametrize(
    "value",
    [
        f":{base64.b64encode(OURS.der).decode()}:",  # RFC 9440
        base64.b64encode(OURS.der).decode(),  # caddy
        quote(OURS.pem.decode()),  # nginx
    ],
)
def test_each_proxy_s_way_of_writing_a_certificate_is_the_same_certificate(
    value: str, through: TestClient, agency: AnAgency
) -> None:
    token = granted(through, agency, {HEADER: value})
    assert taken(through, token, OURS.header) == 200


def test_a_certificate_is_believed_of_the_proxy_alone(app: FastAPI, agency: AnAgency) -> None:
    stranger = TestClient(app, base_url=BASE_URL, client=("10.0.1.5", 40000))
    refused = stranger.post("/oauth2/token", data=agency.grant(), headers=OURS.header)
    assert refused.status_code == 401
    assert "proxy" in refused.json()["error_description"]
    unbound = granted(stranger, agency, {})
    assert taken(stranger, unbound, {}) == 200
    assert taken(stranger, unbound, OURS.header) == 401


@pytest.mark.parametrize("value", ["::", "QUJD", ":QUJD:", "-----BEGIN%20CERTIFICATE-----", "é", "A" * 20_000])
def test_what_is_no_certificate_is_refused_not_passed_over(value: str, through: TestClient, agency: AnAgency) -> None:
    sent = {HEADER.encode(): value.encode("latin-1")}
    assert through.post("/oauth2/token", data=agency.grant(), headers=sent).status_code == 401


def test_two_certificates_are_one_too_many(through: TestClient, agency: AnAgency) -> None:
    sent = [(HEADER, OURS.header[HEADER]), (HEADER, ANOTHER.header[HEADER])]
    assert through.post("/oauth2/token", data=agency.grant(), headers=sent).status_code == 401


def test_where_certificates_are_due_nothing_goes_without() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    lax = Tokens(key, base_url=BASE_URL, token_endpoint=f"{BASE_URL}/oauth2/token", seconds=600)
    strict = Tokens(key, base_url=BASE_URL, token_endpoint=f"{BASE_URL}/oauth2/token", seconds=600, bound_always=True)
    at, ours = clock.now(), b64url(sha256(OURS.der).digest())
    with pytest.raises(NotSignedIn):
        strict.issue("northshire-icb", at=at)
    with pytest.raises(NotSignedIn):
        strict.access(lax.issue("northshire-icb", at=at), at=at, certificate=ours)  # given before they were due
    assert strict.access(strict.issue("northshire-icb", at=at, certificate=ours), at=at, certificate=ours)
    with pytest.raises(NotSignedIn):  # and one that is bound stays so where they are no longer looked at
        lax.access(strict.issue("northshire-icb", at=at, certificate=ours), at=at)


def test_certificates_without_a_proxy_to_tell_them_are_no_setting(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        some_settings(tmp_path, client_certificates="required")


def test_a_home_shows_its_certificate_and_checks_the_broker_s(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home", certificate="tls.crt", key="tls.key", authorities="authority.crt")
    OURS.write(home.folder, "tls")
    AUTHORITY.write(home.folder, "authority")
    with tls_end(tmp_path, certified("broker", AUTHORITY)) as proxy:
        answer = connection(home, seconds=20).get(proxy.url)
        assert answer.status_code == 204
        assert proxy.seen == [sha256(OURS.der).hexdigest()]
    with tls_end(tmp_path, certified("somebody else")) as impostor, pytest.raises(Unreachable):
        ClientTokens(home, connection(home, seconds=20), now=clock.now, broker=impostor.url)()
    assert impostor.seen == []


def test_a_home_s_certificate_that_can_t_be_used_is_named(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home", certificate="tls.crt", key="tls.key")
    with pytest.raises(BadKey, match=r"tls\.key"):
        connection(home, seconds=1)
    OURS.write(home.folder, "tls")
    (home.folder / "tls.key").chmod(0o644)
    with pytest.raises(BadKey, match="chmod 600"):
        connection(home, seconds=1)
    (home.folder / "tls.key").chmod(0o600)
    (home.folder / "tls.crt").write_bytes(ANOTHER.pem)  # of another key
    with pytest.raises(BadHome, match=r"tls\.certificate"):
        connection(home, seconds=1)
    with pytest.raises(BadHome, match=r"tls\.authorities"):
        connection(a_home(tmp_path / "other", authorities="none.crt"), seconds=1)
    with pytest.raises(BadHome, match="tls"):
        a_home(tmp_path / "third", certificate="tls.crt")


def a_home(folder: Path, **tls: str) -> Home:
    make_home(folder, agency="northshire-icb", partnership="northshire", epoch="2026-1", broker=BASE_URL)
    with (folder / "agency.toml").open("a", encoding="utf-8") as file:
        file.write("\n[tls]\n" + "".join(f'{name} = "{value}"\n' for name, value in tls.items()))
    return Home(folder)


class tls_end:
    """What ends TLS and asks for a client's certificate, as a reverse proxy does, while the block runs."""

    def __init__(self, folder: Path, own: Certified) -> None:
        own.write(folder, "end")
        AUTHORITY.write(folder, "clients")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "end.crt", folder / "end.key")
        self._context.load_verify_locations(folder / "clients.crt")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self.seen: list[str] = []

    def __enter__(self) -> "tls_end":
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._context)
        )
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.seen.append(sha256(shown).hexdigest())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
