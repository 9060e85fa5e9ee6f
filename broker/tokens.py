"""Machine tokens, in the one module that knows python-jose, and trusts little of it.

python-jose 3.5.0 accepts, among others, a token without `aud` or `exp`, an unknown `crit`, a wrong `kid`, ES256 by a
P-521 key and RSA of 1024 bits.  So keys are built here from filtered JWKs, one algorithm a key, `jws.verify` is told
that one, and every claim is checked by our own code.  Encrypted tokens are never opened.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jose import jwk as jose_jwk
from jose import jws as jose_jws
from jose.exceptions import JOSEError

from broker.errors import BrokerError, NotSignedIn
from broker.keys import b64url, unb64url

LONGEST_TOKEN: Final = 8_192
LONGEST_CLIENT_ASSERTION_SECONDS: Final = 300
LONGEST_GATEWAY_ASSERTION_SECONDS: Final = 60
CLOCK_SKEW_SECONDS: Final = 60
LATEST: Final = 2**40  # seconds; a bound that keeps every sum inside a datetime's reach
SMALLEST_RSA: Final = 2048

THUMBPRINT: Final = "x5t#S256"
ACCESS: Final = ("at+jwt",)
GATEWAY: Final = ("gateway-assertion+jwt",)
CLIENT: Final = (None, "JWT", "client-authentication+jwt")

_CURVES: Final[Mapping[str, tuple[str, ec.EllipticCurve]]] = {
    "P-256": ("ES256", ec.SECP256R1()),
    "P-384": ("ES384", ec.SECP384R1()),
}
_RSA_ALGORITHMS: Final = ("RS256", "RS512")
_JWK_MEMBERS: Final = frozenset({"kty", "crv", "x", "y", "n", "e", "kid", "use", "alg", "key_ops"})
_OPAQUE: Final = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_FAULTS: Final = (JOSEError, ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError)


class BadKey(BrokerError):
    """A JWK that this broker does not take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A registered public key: RSA of 2048 bits or more, P-256 or P-384, for the algorithms of its kind only."""

    kid: str
    owner: str
    algorithms: tuple[str, ...]
    _jwk: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, jwk: Mapping[str, Any], *, owner: str) -> ClientKey:
        """Filter a JWK.

        Raises BadKey: a private or unknown member, no `kid`, a use other than `sig`, an `alg` that is not of the
        key's kind, another curve, a point off it, RSA under 2048 bits.
        """
        if not all(isinstance(jwk.get(name), str) for name in ("kty", "kid")) or set(jwk) - _JWK_MEMBERS:
            raise BadKey("a public JWK with kty and kid is due, and no other member than RFC 7517 gives public keys")
        if jwk.get("use", "sig") != "sig" or jwk.get("key_ops", ["verify"]) != ["verify"]:
            raise BadKey("the key is not one for signatures")
        try:
            material, algorithms = _material(jwk)
        except _FAULTS:
            raise BadKey("the key's numbers are not of a key of its kind") from None
        if "alg" in jwk and jwk["alg"] not in algorithms:
            raise BadKey("the key's alg is not one of its kind that is taken here")
        return cls(kid=jwk["kid"], owner=owner, algorithms=(jwk["alg"],) if "alg" in jwk else algorithms, _jwk=material)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAssertion:
    """An agency has proved who it is (RFC 7523); its `jti` must be spent by whoever relies on that."""

    agency: str
    jti: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A machine token of ours that holds."""

    agency: str
    issued_at: datetime  # to the second
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAssertion:
    """An agency's gateway vouches for one person on one request; its `jti` must be spent."""

    agency: str
    person: str
    role: str
    session: str
    jti: str
    expires_at: datetime
    sha256: str  # of the assertion as received, hex


KeyOf = Callable[[str], ClientKey | None]
"""The registered, unrevoked client key of a `kid`, or None."""


class Tokens:
    """Issues and verifies the broker's access tokens; verifies agencies' and gateways' assertions."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        *,
        base_url: str,
        token_endpoint: str,
        seconds: int,
        bound_always: bool = False,
    ) -> None:
        """`bound_always`: a token that is bound to no certificate is neither issued nor taken."""
        public = key.public_key().public_numbers()
        self._pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self._base_url = base_url
        self._token_endpoint = token_endpoint
        self.seconds = seconds
        self._bound_always = bound_always
        x, y = (b64url(number.to_bytes(32)) for number in (public.x, public.y))
        self.kid = sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).hexdigest()[:16]
        self._own = ClientKey.of({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid}, owner=base_url)

    def issue(self, agency: str, *, at: datetime, certificate: str | None = None) -> str:
        """An ES256 `at+jwt` for an agency (RFC 9068), good for `seconds`.

        With the thumbprint of the caller's certificate the token is bound to it (RFC 8705, section 3.1).  Raises
        NotSignedIn if there is none and tokens are bound always.
        """
        if certificate is None and self._bound_always:
            raise NotSignedIn("no-certificate")
        issued = int(at.timestamp())
        claims: dict[str, Any] = {
            "iss": self._base_url, "aud": self._base_url, "sub": agency, "client_id": agency,
            "iat": issued, "exp": issued + self.seconds, "jti": secrets.token_urlsafe(16),
        }  # fmt: skip
        if certificate is not None:
            claims["cnf"] = {THUMBPRINT: certificate}
        signed: str = jose_jws.sign(claims, self._pem, headers={"typ": "at+jwt", "kid": self.kid}, algorithm="ES256")
        return signed

    def access(self, token: str, *, at: datetime, certificate: str | None = None) -> AccessToken:
        """A token that this broker issued and that holds now, over this certificate if it is bound to one.

        Raises NotSignedIn.
        """
        own = self._own
        _, claims = _verified(token, typ=ACCESS, key_of=lambda kid: own if kid == own.kid else None)
        expires = _lifetime(claims, at=at, longest=self.seconds)
        _is(claims, "iss", self._base_url)
        _audience(claims, self._base_url)
        agency = _opaque(claims, "sub")
        _is(claims, "client_id", agency)
        self._same_certificate(claims, certificate)
        issued = datetime.fromtimestamp(_seconds(claims, "iat"), UTC)
        return AccessToken(agency=agency, issued_at=issued, expires_at=expires)

    def _same_certificate(self, claims: Mapping[str, Any], certificate: str | None) -> None:
        if "cnf" not in claims:
            if self._bound_always:
                raise NotSignedIn("not-bound")
            return
        bound = claims["cnf"].get(THUMBPRINT) if isinstance(claims["cnf"], dict) else None
        if not isinstance(bound, str) or not hmac.compare_digest(bound.encode(), (certificate or "").encode()):
            raise NotSignedIn("certificate")

    def client_assertion(self, token: str, key_of: KeyOf, *, at: datetime) -> ClientAssertion:
        """An agency's `private_key_jwt`, for the token endpoint, at most 300 s long.  Raises NotSignedIn."""
        key, claims = _verified(token, typ=CLIENT, key_of=key_of)
        expires = _lifetime(claims, at=at, longest=LONGEST_CLIENT_ASSERTION_SECONDS)
        _is(claims, "iss", key.owner)
        _is(claims, "sub", key.owner)
        _audience(claims, self._token_endpoint)
        return ClientAssertion(agency=key.owner, jti=_opaque(claims, "jti"), expires_at=expires)

    def gateway_assertion(
        self, token: str, key_of: KeyOf, *, method: str, path: str, body: bytes, at: datetime
    ) -> GatewayAssertion:
        """A gateway's assertion for this very method, path (with its query) and body, at most 60 s long.

        Raises NotSignedIn.
        """
        key, claims = _verified(token, typ=GATEWAY, key_of=key_of)
        expires = _lifetime(claims, at=at, longest=LONGEST_GATEWAY_ASSERTION_SECONDS)
        _is(claims, "iss", key.owner)
        _audience(claims, self._base_url)
        _is(claims, "htm", method)
        _is(claims, "path", path)
        declared = claims.get("body_sha256")
        if not isinstance(declared, str) or not _HEX.fullmatch(declared):
            raise NotSignedIn("body_sha256")
        if not hmac.compare_digest(declared, sha256(body).hexdigest()):
            raise NotSignedIn("body_sha256")
        return GatewayAssertion(
            agency=key.owner, person=_opaque(claims, "sub"), role=_opaque(claims, "role"),
            session=_opaque(claims, "sid"), jti=_opaque(claims, "jti"), expires_at=expires,
            sha256=sha256(token.encode()).hexdigest(),
        )  # fmt: skip


def _verified(token: str, *, typ: Sequence[str | None], key_of: KeyOf) -> tuple[ClientKey, dict[str, Any]]:
    """The key that signed, and the claims; the header says no more than alg, kid and typ."""
    if len(token) > LONGEST_TOKEN:
        raise NotSignedIn("too-long")
    try:
        header_part, claims_part, signature_part = token.split(".")
        header = _object(unb64url(header_part))
        unb64url(signature_part)
    except _FAULTS:
        raise NotSignedIn("not-a-jws") from None
    if set(header) - {"alg", "kid", "typ"}:
        raise NotSignedIn("header")  # crit, jwk, jku, x5u, x5c, zip, enc ...
    kid, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(kid, str) or not isinstance(algorithm, str) or header.get("typ") not in typ:
        raise NotSignedIn("header")
    key = key_of(kid)
    if key is None or key.kid != kid:
        raise NotSignedIn("kid")
    if algorithm not in key.algorithms:
        raise NotSignedIn("alg")
    try:
        jose_jws.verify(token, jose_jwk.construct(dict(key._jwk), algorithm), [algorithm])
        return key, _object(unb64url(claims_part))
    except _FAULTS:
        raise NotSignedIn("signature") from None


def _object(raw: bytes) -> dict[str, Any]:
    body = json.loads(raw, object_pairs_hook=_no_repeats, parse_float=_no_number, parse_constant=_no_number)
    if not isinstance(body, dict):
        raise ValueError("an object is due")
    return body


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is repeated")
    return dict(pairs)


def _no_number(_: str) -> float:
    raise ValueError("only whole numbers are taken")


def _lifetime(claims: Mapping[str, Any], *, at: datetime, longest: int) -> datetime:
    """When the token ends; both ends are due, and it may be neither over, nor from the future, nor too long."""
    now = at.timestamp()
    issued, expires = _seconds(claims, "iat"), _seconds(claims, "exp")
    if expires <= now:
        raise NotSignedIn("expired")
    if issued > now + CLOCK_SKEW_SECONDS:
        raise NotSignedIn("iat")
    if not 0 < expires - issued <= longest:
        raise NotSignedIn("lifetime")
    if "nbf" in claims and _seconds(claims, "nbf") > now + CLOCK_SKEW_SECONDS:
        raise NotSignedIn("nbf")
    return datetime.fromtimestamp(expires, UTC)


def _seconds(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or not 0 < value < LATEST:
        raise NotSignedIn(name)
    return value


def _is(claims: Mapping[str, Any], name: str, due: str) -> None:
    if claims.get(name) != due:
        raise NotSignedIn(name)


def _audience(claims: Mapping[str, Any], due: str) -> None:
    if claims.get("aud") not in (due, [due]):
        raise NotSignedIn("aud")


def _opaque(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not _OPAQUE.fullmatch(value):
        raise NotSignedIn(name)
    return value


def _material(jwk: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    if jwk["kty"] == "EC":
        algorithm, curve = _CURVES[jwk["crv"]]
        x, y = (int.from_bytes(unb64url(jwk[name])) for name in ("x", "y"))
        ec.EllipticCurvePublicNumbers(x, y, curve).public_key()  # raises ValueError for a point off the curve
        return {name: jwk[name] for name in ("kty", "crv", "x", "y")}, (algorithm,)
    if jwk["kty"] == "RSA":
        modulus, exponent = (int.from_bytes(unb64url(jwk[name])) for name in ("n", "e"))
        if rsa.RSAPublicNumbers(exponent, modulus).public_key().key_size < SMALLEST_RSA or exponent < 65537:
            raise ValueError("too small")
        return {name: jwk[name] for name in ("kty", "n", "e")}, _RSA_ALGORITHMS
    raise ValueError("another kind of key")
