"""One signature a party, over the exact digest; and the signed events that pause or end a party's part.

JWS JSON General Serialization (RFC 7515 s.7.2), Ed25519 (RFC 8037; `alg` as RFC 9864 names it), made with
`cryptography` directly.  The key never leaves the signatory's machine.  Any member beyond those written here spoils a
signature: what nobody reads, nobody has signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agreements.agreement import Agreement, Document
from agreements.canonical import jcs

Act = Literal["suspend", "resume", "withdraw", "supersede"]
ACTS: Final[tuple[Act, ...]] = get_args(Act)
DOCUMENT_TYPE: Final = "dsa+json"
EVENT_TYPE: Final = "dsa-event+json"


class BadSignature(ValueError):
    """A signature that can't be accepted; the message names the party or key and what is wrong."""


class UnknownKey(BadSignature):
    """A signature by a key that is not at hand: it proves nothing, for or against."""


@dataclass(frozen=True, slots=True)
class PartyKey:
    """A party's registered public key and when it may sign."""

    kid: str  # "<party>/<n>"
    public: Ed25519PublicKey
    valid_from: datetime | None = None
    valid_to: datetime | None = None

    @property
    def party(self) -> str:
        """Whose key it is."""
        return self.kid.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Signature:
    """A verified signature: this party put its name to this digest."""

    party: str
    digest: str
    kid: str
    signed_at: datetime


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """A verified event: from this instant a party pauses, restarts, leaves or replaces its part of a document."""

    party: str
    digest: str
    do: Act
    at: datetime
    kid: str


def sign(document: Document, *, kid: str, key: Ed25519PrivateKey, at: datetime) -> dict[str, Any]:
    """A party's signature as JSON: a JWS with one signature, payload included.  The party is `kid` up to its slash.

    Raises BadSignature if the party may not sign this document, or `at` is not an instant.
    """
    party = kid.rpartition("/")[0]
    entitled = document.parties.keys() if isinstance(document, Agreement) else {document.owner}
    if party not in entitled:
        raise BadSignature(f"{party or kid} is no party to {document.ref}; parties are {', '.join(sorted(entitled))}")
    return sign_payload(document.canonical, typ=DOCUMENT_TYPE, kid=kid, key=key, at=at)


def join(signatures: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One JWS with the signatures of several over one payload, in the order of their keys.

    Raises BadSignature if the payloads differ, or one is no JWS.
    """
    several = [_parts(jws) for jws in signatures]
    payloads = {payload for payload, _ in several}
    if len(payloads) != 1:
        raise BadSignature("the signatures are over different documents")
    each = {json.dumps(one, sort_keys=True): one for _, listed in several for one in listed}
    return {"payload": payloads.pop(), "signatures": [each[key] for key in sorted(each)]}


def verify(document: Document, jws: Mapping[str, Any], keys: Mapping[str, PartyKey]) -> tuple[Signature, ...]:
    """The signatures of a JWS, every one verified against registered keys (by `kid`) and this document's exact bytes.

    Raises BadSignature: one bad signature spoils the whole.
    """
    signatures = verify_jws(jws, keys)
    if any(signature.digest != document.digest for signature in signatures):
        raise BadSignature(f"{signatures[0].party} signed another text than {document.ref}")
    return signatures


def verify_jws(jws: Mapping[str, Any], keys: Mapping[str, PartyKey]) -> tuple[Signature, ...]:
    """As `verify`, for whichever document the payload is: its digest is the payload's.  Raises BadSignature."""
    payload, signed = open_payload(jws, keys, typ=DOCUMENT_TYPE)
    digest = hashlib.sha256(payload).hexdigest()
    return tuple(Signature(key.party, digest, key.kid, at) for key, at in signed)


def sign_event(document: Document, do: Act, *, kid: str, key: Ed25519PrivateKey, at: datetime) -> dict[str, Any]:
    """A status event as signed JSON, effective from `at`."""
    if do not in ACTS:
        raise BadSignature(f"an event is one of {', '.join(ACTS)}")
    party = kid.rpartition("/")[0]
    body = {"at": _stamp(at), "digest": document.digest, "do": do, "party": party}
    return sign_payload(jcs(body), typ=EVENT_TYPE, kid=kid, key=key, at=at)


def sign_replacement(
    document: Document, party: str, *, effective: datetime, kid: str, key: Ed25519PrivateKey, at: datetime
) -> dict[str, Any]:
    """The host's word that a party, which has signed a newer version in force, takes no part in this one any more.

    Signed with the host's own key, whose `kid` names no party; `effective` is the newer version's first instant in
    force.  It can only hold back.
    """
    body = {"at": _stamp(effective), "digest": document.digest, "do": "supersede", "party": party}
    return sign_payload(jcs(body), typ=EVENT_TYPE, kid=kid, key=key, at=at)


def verify_event(jws: Mapping[str, Any], keys: Mapping[str, PartyKey]) -> StatusEvent:
    """The event of a JWS, verified: signed by the party that it names, or by the host, as `sign_replacement` does.

    Raises BadSignature.
    """
    payload, signed = open_payload(jws, keys, typ=EVENT_TYPE)
    event = _stated(payload, signed[0][0].kid)
    key, at = signed[0]
    by_host = not key.party and event.do == "supersede" and at <= event.at
    if len(signed) != 1 or not (by_host or (key.party == event.party and at == event.at)):
        raise BadSignature(f"{key.kid} can't speak for {event.party}, or the event has two times")
    return event


def stated_event(jws: Mapping[str, Any]) -> StatusEvent:
    """What a JWS says, verified by nobody: for one that was verified when it was kept.  Raises BadSignature."""
    return _stated(_decode(_parts(jws)[0], "payload"), "")


def _stated(payload: bytes, kid: str) -> StatusEvent:
    body = _json(payload, "the event")
    if set(body) != {"at", "digest", "do", "party"} or not all(isinstance(one, str) for one in body.values()):
        raise BadSignature("the event does not say at, digest, do and party, and no more")
    if body["do"] not in ACTS:
        raise BadSignature(f"an event is one of {', '.join(ACTS)}")
    return StatusEvent(str(body["party"]), str(body["digest"]), body["do"], _instant(body["at"], "the event"), kid)


def sign_payload(payload: bytes, *, typ: str, kid: str, key: Ed25519PrivateKey, at: datetime) -> dict[str, Any]:
    """A JWS with one signature over any bytes; `typ` keeps one kind of document from posing as another."""
    protected = _encode(jcs({"alg": "Ed25519", "kid": kid, "signed_at": _stamp(at), "typ": typ}))
    text = _encode(payload)
    signature = key.sign(f"{protected}.{text}".encode("ascii"))
    return {"payload": text, "signatures": [{"protected": protected, "signature": _encode(signature)}]}


def open_payload(
    jws: Mapping[str, Any], keys: Mapping[str, PartyKey], *, typ: str
) -> tuple[bytes, list[tuple[PartyKey, datetime]]]:
    """The bytes of a JWS, and who signed them when.  Raises BadSignature unless every signature is good."""
    text, listed = _parts(jws)
    return _decode(text, "payload"), [_checked(text, one, keys, typ) for one in listed]


def _parts(jws: object) -> tuple[str, list[Any]]:
    """The payload and the list of signatures, whatever was given as a JWS.  Raises BadSignature."""
    if (
        not isinstance(jws, Mapping)
        or set(jws) != {"payload", "signatures"}
        or not isinstance(jws["payload"], str)
        or not isinstance(jws["signatures"], list)
        or not jws["signatures"]
    ):
        raise BadSignature("a JWS has a payload and a list of one or more signatures, and no more")
    return jws["payload"], jws["signatures"]


def _checked(payload: str, one: object, keys: Mapping[str, PartyKey], typ: str) -> tuple[PartyKey, datetime]:
    if not isinstance(one, dict) or set(one) != {"protected", "signature"}:
        raise BadSignature("a signature has a protected header and a signature, and no more")
    header = _json(_decode(one["protected"], "header"), "the header")
    if set(header) != {"alg", "kid", "signed_at", "typ"} or header["alg"] != "Ed25519" or header["typ"] != typ:
        raise BadSignature(f"the header is not that of a {typ} signed with Ed25519")
    key = keys.get(header["kid"]) if isinstance(header["kid"], str) else None
    if key is None:
        raise UnknownKey("the key is not registered")
    at = _instant(header["signed_at"], key.kid)
    if (key.valid_from and at < key.valid_from) or (key.valid_to and at >= key.valid_to):
        raise BadSignature(f"{key.kid} was not valid when it signed")
    try:
        key.public.verify(_decode(one["signature"], "signature"), f"{one['protected']}.{payload}".encode("ascii"))
    except InvalidSignature:
        raise BadSignature(f"{key.kid}: the signature does not match") from None
    return key, at


def _stamp(at: datetime) -> str:
    if at.tzinfo is None or at.microsecond:
        raise BadSignature("an instant to the second, with its offset, is due")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _instant(text: object, what: str) -> datetime:
    try:
        at = datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise BadSignature(f"{what}: no instant in UTC") from None
    if _stamp(at) != text:  # one spelling only
        raise BadSignature(f"{what}: no instant in UTC")
    return at


def _json(raw: bytes, what: str) -> dict[str, Any]:
    try:
        body = json.loads(raw)
        canonical = jcs(body)
    except (ValueError, RecursionError):
        raise BadSignature(f"{what} is not JSON that has a canonical form") from None
    if not isinstance(body, dict) or canonical != raw:
        raise BadSignature(f"{what} is not in canonical form")
    return body


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: object, what: str) -> bytes:
    if not isinstance(text, str) or not text.isascii() or "=" in text:
        raise BadSignature(f"{what}: base64url without padding is due")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise BadSignature(f"{what}: base64url without padding is due") from None
    if _encode(raw) != text:
        raise BadSignature(f"{what}: base64url in its one spelling is due")
    return raw
