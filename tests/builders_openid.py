"""An OpenID provider that tells the truth until a test has it lie."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from broker import clock
from broker.keys import b64url

CLIENT = "safeguarding-broker"
SIGNING = RSAKey.generate_key(2048, {"kid": "one"})
OTHERS = RSAKey.generate_key(2048, {"kid": "one"})
DER = SIGNING.as_pem(private=False)


@dataclass
class Liar:
    """A provider that says what a test has it say."""

    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=lambda: {"alg": "RS256", "kid": "one"})
    key: Any = field(default_factory=lambda: SIGNING)
    metadata: dict[str, Any] = field(default_factory=dict)
    nonce: str = ""
    verifier: str = ""
    issuer: str = ""
    left_out: tuple[str, ...] = ()
    no_token: bool = False

    def token(self) -> str:
        now = int(clock.now().timestamp())
        said = {
            "iss": self.issuer, "aud": CLIENT, "sub": "o-17", "iat": now, "exp": now + 300, "nonce": self.nonce,
            "roles": ["ig-officers", "staff"], "tid": "northshire",
        } | self.claims  # fmt: skip
        said = {name: value for name, value in said.items() if name not in self.left_out}
        if isinstance(self.key, bytes):  # joserfc would not make these
            signed = ".".join(b64url(json.dumps(part).encode()) for part in (self.header, said))
            return f"{signed}.{b64url(hmac.digest(self.key, signed.encode(), 'sha256') if self.key else b'')}"
        return jwt.encode(self.header, said, self.key, algorithms=["RS256", "ES256"])


@contextmanager
def answering(liar: Liar) -> Iterator[Liar]:
    class Handler(BaseHTTPRequestHandler):
        def _say(self, body: Any, status: int = 200) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            if self.path == "/keys":
                self._say({"keys": [SIGNING.as_dict(private=False)]})
                return
            found = {
                "issuer": liar.issuer, "authorization_endpoint": f"{liar.issuer}/authorize",
                "token_endpoint": f"{liar.issuer}/token", "jwks_uri": f"{liar.issuer}/keys",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            }  # fmt: skip
            self._say(found | liar.metadata)

        def do_POST(self) -> None:
            sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            liar.verifier = sent.get("code_verifier", [""])[0]
            body = {"access_token": "a", "token_type": "Bearer"}
            self._say(body if liar.no_token else body | {"id_token": liar.token()})

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    liar.issuer = liar.issuer or f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield liar
    finally:
        server.shutdown()
        server.server_close()


LIES: dict[str, dict[str, Any]] = {
    "another nonce": {"claims": {"nonce": "n"}},
    "no nonce": {"left_out": ("nonce",)},
    "another issuer": {"claims": {"iss": "https://elsewhere.example"}},
    "another audience": {"claims": {"aud": "another-client"}},
    "no audience": {"left_out": ("aud",)},
    "over": {"claims": {"exp": 1}},
    "without an end": {"left_out": ("exp",)},
    "without a person": {"left_out": ("sub",)},
    "from the future": {"claims": {"nbf": 2**33}},
    "no signature": {"header": {"alg": "none"}, "key": b""},
    "HS256 by the client's secret": {"header": {"alg": "HS256"}, "key": b"s3cret"},
    "HS256 by the public key": {"header": {"alg": "HS256", "kid": "one"}, "key": DER},
    "another's key": {"key": OTHERS},
    "a key that is not among them": {"header": {"alg": "ES256", "kid": "two"}, "key": ECKey.generate_key("P-256")},
    "no ID token": {"no_token": True},
}
"""Tokens that do not hold, by what is wrong with them."""
