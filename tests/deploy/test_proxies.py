"""nginx and Caddy as deploy/ configures them, started: a token is bound to the certificate that the proxy saw."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from tests.broker.platform import AnAgency, an_app
from tests.broker.test_client_certificates import ANOTHER, AUTHORITY, OURS, Certified, certified

DEPLOY = Path(__file__).parents[2] / "deploy"
PROXIES = [
    "nginx",
    pytest.param("caddy", marks=pytest.mark.skipif(not shutil.which("caddy"), reason="caddy is not installed")),
]
NGINX = """
user root;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log crit;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u;
    scgi_temp_path {folder}/s;
    include {folder}/broker.conf;
}}
"""


NAME = "broker.northshire.example"


@dataclass(frozen=True)
class Proxied:
    """A broker behind a proxy."""

    url: str
    folder: Path
    agency: AnAgency
    kind: str

    def caller(self, shown: Certified | None) -> httpx2.Client:
        """Somebody outside, with a certificate or without."""
        (self.folder / "trust.crt").write_bytes(AUTHORITY.pem)
        context = ssl.create_default_context(cafile=str(self.folder / "trust.crt"))
        context.check_hostname = False
        if shown is not None:
            shown.write(self.folder, "shown")
            context.load_cert_chain(self.folder / "shown.crt", self.folder / "shown.key")
        return httpx2.Client(base_url=self.url, verify=context, timeout=60)

    def token(self, shown: Certified) -> str:
        with self.caller(shown) as http:
            answer = http.post("/oauth2/token", data=self.agency.grant())
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def taken(self, token: str, shown: Certified | None, headers: list[tuple[str, str]] | None = None) -> int:
        with self.caller(shown) as http:
            sent = [("Authorization", f"Bearer {token}"), *(headers or [])]
            return int(http.get("/v1/flows/health", headers=sent).status_code)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, AnAgency]]:
    app: FastAPI = an_app(
        tmp_path_factory.mktemp("broker"), client_certificates="offered", trusted_proxies=("127.0.0.1/32",)
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error", proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield listening.getsockname()[1], AnAgency().enrolled(app.state.broker)
    server.should_exit = True
    thread.join(timeout=60)


@pytest.fixture(scope="module", params=PROXIES)
def proxied(
    request: pytest.FixtureRequest, served: tuple[int, AnAgency], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    folder, port = tmp_path_factory.mktemp(request.param), free_port()
    tls = folder / "tls"
    tls.mkdir()
    certified("broker", AUTHORITY).write(tls, "broker")
    (tls / "agencies-ca.crt").write_bytes(AUTHORITY.pem)
    command = _nginx(folder, port, served[0]) if request.param == "nginx" else _caddy(folder, port, served[0])
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=(folder / "stderr").open("w"),
        env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    try:
        while True:
            assert process.poll() is None, (folder / "stderr").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=60).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield Proxied(f"https://localhost:{port}", folder, served[1], request.param)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _nginx(folder: Path, port: int, broker: int) -> list[str]:
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        pytest.fail("nginx is not here; `make test` installs it (apt-get install nginx-light)", pytrace=False)
    here = folder / "here"
    here.mkdir()
    (here / "upstream.conf").write_text((DEPLOY / "nginx/here/upstream.conf").read_text().replace("8400", str(broker)))
    (here / "listen.conf").write_text(
        (DEPLOY / "nginx/here/listen.conf").read_text().replace("listen 443", f"listen 127.0.0.1:{port}")
    )
    text = (DEPLOY / "nginx/broker.conf").read_text()
    for there, ours in (("/etc/nginx/", f"{folder}/"), ("/var/log/nginx/", f"{folder}/")):
        text = text.replace(there, ours)
    (folder / "broker.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    return [found, "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log")]


def _caddy(folder: Path, port: int, broker: int) -> list[str]:
    text = (DEPLOY / "caddy/Caddyfile").read_text()
    text = text.replace("/etc/caddy/", f"{folder}/").replace("127.0.0.1:8400", f"127.0.0.1:{broker}")
    (folder / "Caddyfile").write_text(text.replace(f"{NAME}:443", f"localhost:{port}"))
    return [str(shutil.which("caddy")), "run", "--config", str(folder / "Caddyfile")]


def test_a_token_holds_behind_the_proxy_for_the_certificate_it_was_given_to_alone(proxied: Proxied) -> None:
    token = proxied.token(OURS)
    assert proxied.taken(token, OURS) == 200
    assert proxied.taken(token, ANOTHER) == 401


@pytest.mark.parametrize("name", ["Client-Cert", "client-cert", "CLIENT-CERT", "Client_Cert"])
def test_a_certificate_that_a_caller_only_writes_into_a_header_is_dropped(proxied: Proxied, name: str) -> None:
    token, forged = proxied.token(OURS), OURS.header["Client-Cert"]
    assert proxied.taken(token, ANOTHER, [(name, forged)]) == 401
    assert proxied.taken(token, ANOTHER, [(name, forged), (name, forged)]) == 401
    assert proxied.taken(token, None, [(name, forged)]) == 403
    assert proxied.taken(token, OURS, [(name, ANOTHER.header["Client-Cert"])]) == 200  # what the proxy saw counts


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Real-IP", "Forwarded"])
def test_who_a_caller_says_it_is_called_from_changes_nothing(proxied: Proxied, name: str) -> None:
    token = proxied.token(OURS)
    assert proxied.taken(token, OURS, [(name, "203.0.113.9")]) == 200


def test_machines_come_with_a_certificate_and_the_public_log_is_for_everybody(proxied: Proxied) -> None:
    with proxied.caller(None) as http:
        assert http.post("/oauth2/token", data=proxied.agency.grant()).status_code == 403
        assert http.post("/v1/searches", json={}).status_code == 403
        assert http.get("/audit/shards").status_code == 200
        assert http.get("/health/live").status_code == 200


def test_a_certificate_that_nobody_of_ours_vouches_for_opens_nothing(proxied: Proxied) -> None:
    stranger = certified("northshire-icb", certified("another authority"))
    with proxied.caller(stranger) as http:
        try:
            assert http.get("/audit/shards").status_code == 400  # nginx says so in HTTP, Caddy in TLS
        except httpx2.TransportError:
            assert proxied.kind == "caddy"


def test_a_body_over_the_limit_goes_no_further_and_chunks_may_be_larger(proxied: Proxied) -> None:
    token = proxied.token(OURS)
    sent = {"Authorization": f"Bearer {token}"}
    with proxied.caller(OURS) as http:
        assert http.post("/v1/searches", content=b"x" * 1_100_000, headers=sent).status_code == 413
        chunk = http.put("/v1/flows/health/batches/b/persons/chunks/0", content=b"x" * 1_100_000, headers=sent)
        assert chunk.status_code not in (403, 413)


def test_the_proxy_keeps_nothing_of_what_was_asked(proxied: Proxied) -> None:
    with proxied.caller(None) as http:
        assert http.get("/audit/shards?canary=Zebedee").headers["strict-transport-security"]
        assert http.get("/canary-Zebedee").status_code == 404
    kept = b"".join(path.read_bytes() for path in proxied.folder.rglob("*") if path.is_file())
    assert b"Zebedee" not in kept
