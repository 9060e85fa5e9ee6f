"""Every way python-jose is known to be fooled, and some more, is refused; joserfc agrees on what verifies."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from broker.errors import NotSignedIn
from broker.keys import b64url
from broker.tokens import BadKey, ClientKey, Tokens

AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
NOW = int(AT.timestamp())
BASE = "https://broker.example"
ENDPOINT = f"{BASE}/oauth2/token"
AGENCY = "northshire-icb"
KID = f"{AGENCY}/client/1"

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
K256 = ec.generate_private_key(ec.SECP256K1())
RSA = rsa.generate_private_key(65537, 2048)
SMALL_RSA = rsa.generate_private_key(65537, 1024)
TOKENS = Tokens(P256, base_url=BASE, token_endpoint=ENDPOINT, seconds=600)


def jwk_of(key: Any, **more: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    if isinstance(key, rsa.RSAPrivateKey):
        fields = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    else:
        size = (key.curve.key_size + 7) // 8
        names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}
        fields = {
            "kty": "EC", "crv": names[key.curve.name],
            "x": b64url(numbers.x.to_bytes(size)), "y": b64url(numbers.y.to_bytes(size)),
        }  # fmt: skip
    return {**fields, "kid": KID, **more}


def _number(value: int) -> str:
    return b64url(value.to_bytes((value.bit_length() + 7) // 8))


def signed(
    claims: dict[str, Any] | bytes | None = None,
    *,
    header: dict[str, Any] | bytes | None = None,
    key: Any = P256,
    sign: Callable[[bytes], bytes] | None = None,
    **changes: Any,
) -> str:
    """A client assertion, well made but for what a test changes."""
    if not isinstance(claims, bytes):
        body = {"iss": AGENCY, "sub": AGENCY, "aud": ENDPOINT, "jti": "j-1", "iat": NOW, "exp": NOW + 60}
        body |= (claims or {}) | changes
        claims = json.dumps({name: value for name, value in body.items() if value is not ...}).encode()
    if not isinstance(header, bytes):
        top = {"alg": "ES256", "kid": KID, "typ": "JWT"} | (header or {})
        header = json.dumps({name: value for name, value in top.items() if value is not ...}).encode()
    signing_input = f"{b64url(header)}.{b64url(claims)}".encode()
    return f"{signing_input.decode()}.{b64url((sign or _signer(key))(signing_input))}"


def _signer(key: Any, digest: Any = None) -> Callable[[bytes], bytes]:
    def sign(message: bytes) -> bytes:
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(message, padding.PKCS1v15(), digest or hashes.SHA256())
        size = (key.curve.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest or hashes.SHA256())))
        return r.to_bytes(size) + s.to_bytes(size)

    return sign


def accepts(token: str, key: ClientKey | None = None) -> bool:
    known = key or ClientKey.of(jwk_of(P256), owner=AGENCY)
    try:
        TOKENS.client_assertion(token, lambda kid: known if kid == known.kid else None, at=AT)
    except NotSignedIn:
        return False
    return True


def hmac_with(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda message: hmac.digest(secret, message, "sha256")


PEM = P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
OPENSSH = P256.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
JWK_JSON = json.dumps(jwk_of(P256)).encode()

REFUSED = {
    "HS256 forged with the DER public key": signed(header={"alg": "HS256"}, sign=hmac_with(DER)),
    "HS256 forged with the PEM public key": signed(header={"alg": "HS256"}, sign=hmac_with(PEM)),
    "HS256 forged with the OpenSSH public key": signed(header={"alg": "HS256"}, sign=hmac_with(OPENSSH)),
    "HS256 forged with the JWK": signed(header={"alg": "HS256"}, sign=hmac_with(JWK_JSON)),
    "HS256 over an empty key": signed(header={"alg": "HS256"}, sign=hmac_with(b"")),
    "alg none": signed(header={"alg": "none"}, sign=lambda _: b""),
    "alg None": signed(header={"alg": "None"}, sign=lambda _: b""),
    "alg missing": signed(header={"alg": ...}),
    "alg a list": signed(header={"alg": ["ES256"]}),
    "no signature": signed(sign=lambda _: b""),
    "RS256 said of an EC key": signed(header={"alg": "RS256"}),
    "ES384 said of a P-256 key": signed(header={"alg": "ES384"}, sign=_signer(P256, hashes.SHA384())),
    "PS256": signed(header={"alg": "PS256"}),
    "EdDSA": signed(header={"alg": "EdDSA"}, sign=Ed25519PrivateKey.generate().sign),
    "another key of the same kind": signed(key=ec.generate_private_key(ec.SECP256R1())),
    "a P-521 key": signed(key=P521),
    "a secp256k1 key": signed(key=K256),
    "a DER signature": signed(sign=lambda message: P256.sign(message, ec.ECDSA(hashes.SHA256()))),
    "a signature of zeroes": signed(sign=lambda _: bytes(64)),
    "no aud": signed(aud=...),
    "another aud": signed(aud="https://elsewhere.example"),
    "aud a list of two": signed(aud=[ENDPOINT, "https://elsewhere.example"]),
    "aud a number": signed(aud=7),
    "the broker itself as aud": signed(aud=BASE),
    "no exp": signed(exp=...),
    "exp null": signed(exp=None),
    "exp a text": signed(exp=str(NOW + 60)),
    "exp true": signed(exp=True),
    "exp 1e999": signed(json.dumps({"iss": AGENCY}).encode()[:-1] + b', "exp": 1e999}'),
    "exp Infinity": signed(json.dumps({"iss": AGENCY}).encode()[:-1] + b', "exp": Infinity}'),
    "exp of 5000 digits": signed(json.dumps({"iss": AGENCY}).encode()[:-1] + b', "exp": ' + b"9" * 5000 + b"}"),
    "exp past": signed(iat=NOW - 120, exp=NOW - 1),
    "exp now": signed(iat=NOW - 60, exp=NOW),
    "exp negative": signed(exp=-1),
    "longer than 300 s": signed(exp=NOW + 301),
    "no iat": signed(iat=...),
    "iat a day ahead": signed(iat=NOW + 86_400, exp=NOW + 86_460),
    "iat after exp": signed(iat=NOW + 30, exp=NOW + 20),
    "iat null": signed(iat=None),
    "nbf ahead": signed(nbf=NOW + 90),
    "nbf a text": signed(nbf="0"),
    "no jti": signed(jti=...),
    "jti empty": signed(jti=""),
    "jti too long": signed(jti="x" * 129),
    "jti with a newline": signed(jti="j\n1"),
    "no iss": signed(iss=...),
    "another iss": signed(iss="northshire-police"),
    "another sub": signed(sub="northshire-police"),
    "claims a list": signed(b'["iss"]'),
    "claims not JSON": signed(b"\xff"),
    "claims with a name twice": signed(b'{"iss": "a", "iss": "' + AGENCY.encode() + b'"}'),
    "claims nested 5000 deep": signed(b"[" * 5000 + b"]" * 5000),
    "header not JSON": signed(header=b"alg"),
    "header with a name twice": signed(header=b'{"alg": "none", "alg": "ES256", "kid": "%s"}' % KID.encode()),
    "crit": signed(header={"crit": ["exp"]}),
    "unknown crit": signed(header={"crit": ["x"], "x": 1}),
    "jwk in the header": signed(header={"jwk": jwk_of(P521)}, key=P521),
    "jku": signed(header={"jku": "https://elsewhere.example"}),
    "x5u": signed(header={"x5u": "https://elsewhere.example"}),
    "x5c": signed(header={"x5c": ["MII"]}),
    "b64 false": signed(header={"b64": False}),
    "zip": signed(header={"zip": "DEF"}),
    "no kid": signed(header={"kid": ...}),
    "another kid": signed(header={"kid": f"{AGENCY}/client/2"}),
    "kid a path": signed(header={"kid": "../../dev/null"}),
    "kid a number": signed(header={"kid": 1}),
    "typ of an access token": signed(header={"typ": "at+jwt"}),
    "typ of a gateway's assertion": signed(header={"typ": "gateway-assertion+jwt"}),
    "longer than 8 kB": signed(padding="x" * 9000),
    "an encrypted token": "a.b.c.d.e",
    "two parts": "a.b",
    "empty": "",
    "padded base64": signed() + "=",
    "another spelling of the last letter": signed()[:-1] + "\n",
    "not ASCII": signed().replace(".", "．", 1),
}  # fmt: skip


def test_a_well_made_assertion_is_accepted() -> None:
    proved = TOKENS.client_assertion(signed(), lambda _: ClientKey.of(jwk_of(P256), owner=AGENCY), at=AT)
    assert (proved.agency, proved.jti, proved.expires_at) == (AGENCY, "j-1", AT + timedelta(seconds=60))
    assert accepts(signed(header={"typ": ...}))
    assert accepts(signed(aud=[ENDPOINT]))


@pytest.mark.parametrize("why", REFUSED)
def test_refused(why: str) -> None:
    assert not accepts(REFUSED[why])


@pytest.mark.parametrize(
    ("key", "algorithm", "digest"),
    [(P256, "ES256", hashes.SHA256()), (P384, "ES384", hashes.SHA384()), (RSA, "RS256", hashes.SHA256()), (RSA, "RS512", hashes.SHA512())],
)  # fmt: skip
def test_the_four_algorithms_and_each_only_with_a_key_of_its_kind(key: Any, algorithm: str, digest: Any) -> None:
    known = ClientKey.of(jwk_of(key), owner=AGENCY)
    assert accepts(signed(header={"alg": algorithm}, sign=_signer(key, digest)), known)
    others = {"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "HS256", "none"} - set(known.algorithms)
    assert not any(accepts(signed(header={"alg": other}, sign=_signer(key, digest)), known) for other in others)


@pytest.mark.parametrize(
    "jwk",
    [
        jwk_of(P521),
        jwk_of(K256),
        jwk_of(SMALL_RSA),
        jwk_of(P256, use="enc"),
        jwk_of(P256, alg="RS256"),
        jwk_of(RSA, alg="PS256"),
        jwk_of(P256, key_ops=["encrypt"]),
        jwk_of(P256, d="AQ"),
        jwk_of(P256, x5u="https://elsewhere.example"),
        jwk_of(P256) | {"y": b64url(bytes(31) + b"\x01")},
        jwk_of(P256) | {"x": None},
        {name: value for name, value in jwk_of(P256).items() if name != "kid"},
        {"kty": "oct", "k": "AAAA", "kid": KID},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": KID},
        {"kty": "EC", "crv": "P-256", "kid": KID},
        {},
    ],
)
def test_keys_that_are_not_taken(jwk: dict[str, Any]) -> None:
    with pytest.raises(BadKey):
        ClientKey.of(jwk, owner=AGENCY)


def test_a_keys_own_alg_narrows_what_it_verifies() -> None:
    only = ClientKey.of(jwk_of(RSA, alg="RS512", use="sig"), owner=AGENCY)
    assert accepts(signed(header={"alg": "RS512"}, sign=_signer(RSA, hashes.SHA512())), only)
    assert not accepts(signed(header={"alg": "RS256"}, key=RSA), only)


CORPUS = {**REFUSED, "well made": signed(), "list aud": signed(aud=[ENDPOINT])}


@pytest.mark.parametrize("why", CORPUS)
def test_what_is_accepted_here_joserfc_verifies_too(why: str) -> None:
    """Differential: nothing passes here whose signature another library refuses; python-jose's word is not enough."""
    if accepts(CORPUS[why]):
        key = ECKey.import_key({name: value for name, value in jwk_of(P256).items() if name != "kid"})
        assert joserfc_jws.deserialize_compact(CORPUS[why], key, ["ES256"]).payload
    elif why.startswith(("HS256", "alg ", "another key", "a P-521", "a secp", "a signature", "PS256", "EdDSA", "crit")):
        key = ECKey.import_key({name: value for name, value in jwk_of(P256).items() if name != "kid"})
        with pytest.raises((JoseError, ValueError, TypeError)):
            joserfc_jws.deserialize_compact(CORPUS[why], key, ["ES256"])


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(signed()) - 1), letter=st.sampled_from("AZaz09-_.="))
def test_no_single_changed_letter_passes(at: int, letter: str) -> None:
    token = WELL_MADE
    if at < len(token) and token[at] != letter:
        assert not accepts(token[:at] + letter + token[at + 1 :])


WELL_MADE = signed()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=90).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_rubbish_is_refused_and_never_a_fault(text: str) -> None:
    assert not accepts(text)
    assert not accepts(f"{text}.{text}.{text}")


def test_an_access_token_holds_until_it_ends_and_for_this_broker_only() -> None:
    token = TOKENS.issue(AGENCY, at=AT)
    assert TOKENS.access(token, at=AT + timedelta(seconds=599)).agency == AGENCY
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    with pytest.raises(NotSignedIn):
        TOKENS.access(token, at=AT + timedelta(seconds=600))
    other = Tokens(P256, base_url="https://other.example", token_endpoint=ENDPOINT, seconds=600)
    with pytest.raises(NotSignedIn):
        other.access(token, at=AT)
    stranger = Tokens(ec.generate_private_key(ec.SECP256R1()), base_url=BASE, token_endpoint=ENDPOINT, seconds=600)
    with pytest.raises(NotSignedIn):
        stranger.access(token, at=AT)
    with pytest.raises(NotSignedIn):  # an agency's own assertion is no access token
        TOKENS.access(signed(header={"typ": "at+jwt"}, aud=BASE, iss=BASE), at=AT)
    with pytest.raises(NotSignedIn):  # nor an access token an assertion
        TOKENS.client_assertion(token, lambda _: ClientKey.of(jwk_of(P256), owner=AGENCY), at=AT)


def vouched(body: bytes = b"{}", **changes: Any) -> str:
    claims = {
        "aud": BASE, "sub": "p-17", "role": "MASH_ANALYST", "sid": "s-1", "htm": "POST", "path": "/v1/searches",
        "body_sha256": sha256(body).hexdigest(),
    }  # fmt: skip
    return signed(claims | changes, header={"typ": "gateway-assertion+jwt"})


def vouches(token: str, *, method: str = "POST", path: str = "/v1/searches", body: bytes = b"{}") -> bool:
    known = ClientKey.of(jwk_of(P256), owner=AGENCY)
    try:
        TOKENS.gateway_assertion(
            token, lambda kid: known if kid == KID else None, method=method, path=path, body=body, at=AT
        )
    except NotSignedIn:
        return False
    return True


def test_a_gateway_vouches_for_one_person_on_one_request() -> None:
    assert vouches(vouched())
    assert not vouches(vouched(), method="PUT")
    assert not vouches(vouched(), path="/v1/disclosures")
    assert not vouches(vouched(), body=b'{"more": 1}')


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW + 61}, {"aud": ENDPOINT}, {"sub": "A Person"}, {"sub": ""}, {"role": ...}, {"sid": None},
        {"body_sha256": sha256(b"{}").hexdigest().upper()}, {"body_sha256": ...}, {"body_sha256": ""},
        {"htm": "post"}, {"path": "/v1/searches/"}, {"jti": ...}, {"iss": "northshire-police"}, {"exp": NOW - 1},
    ],
)  # fmt: skip
def test_an_assertion_that_says_less_or_more_is_refused(changes: dict[str, Any]) -> None:
    assert not vouches(vouched(**changes))


def test_a_client_assertion_vouches_for_nobody() -> None:
    assert not vouches(signed(aud=BASE))


def test_python_jose_runs_on_cryptography_and_not_on_its_own_arithmetic() -> None:
    from jose import backends

    assert backends.ECKey.__module__ == "jose.backends.cryptography_backend"
    assert backends.RSAKey.__module__ == "jose.backends.cryptography_backend"


def test_a_refusal_says_nothing_of_what_was_sent() -> None:
    with pytest.raises(NotSignedIn) as raised:
        TOKENS.client_assertion("canary.canary.canary", lambda _: None, at=AT)
    assert "canary" not in f"{raised.value}{raised.value.reason}"


def test_a_megabyte_is_refused() -> None:
    assert not accepts("a" * 1_000_000)


def test_joserfc_takes_our_tokens() -> None:
    token = TOKENS.issue(AGENCY, at=AT)
    key = ECKey.import_key(PEM)
    assert json.loads(joserfc_jws.deserialize_compact(token, key, ["ES256"]).payload)["sub"] == AGENCY
    assert RSAKey.import_key(RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
