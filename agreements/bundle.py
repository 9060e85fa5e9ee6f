"""The bundle: all that it takes to decide again offline, in one file of JSON.

Documents in the form that was signed, the signatures and events themselves, the lists they are written in, and public
keys.  It proves nothing by itself: each signature in it is verified on opening, and whoever trusts nobody brings the
keys from elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agreements.agreement import Agreement, Document
from agreements.canonical import jcs
from agreements.document import DocumentRefused, from_canonical
from agreements.receipts import replay
from agreements.signing import BadSignature, PartyKey, UnknownKey, verify_event, verify_jws
from agreements.snapshot import Snapshot
from agreements.vocabulary import Vocabulary, of_lists, shipped

FORMAT: Final = 1


class BundleRefused(ValueError):
    """A bundle, or a file of keys, that can't be opened; the message names the place."""


class BadBundleSignature(BundleRefused):
    """A signature in a bundle does not hold, though its key is there: somebody changed it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: what `receipts.replay` needs."""

    snapshot: Snapshot
    vocabulary: Vocabulary
    keys: Mapping[str, PartyKey]

    def replay(self, receipt: Mapping[str, Any], *, slow: bool = False) -> tuple[str, ...]:
        """Decide a receipt again: the differences found, none if equal.  A signature that does not hold is one.

        Raises ValueError if something that the receipt names, or the key that signed it, is not here; KeyError or
        TypeError if it is no receipt.
        """
        try:
            return replay(receipt, self.snapshot, self.vocabulary, self.keys, slow=slow)
        except UnknownKey as wrong:
            raise ValueError(f"it can't be told who signed it: {wrong}") from None
        except BadSignature as wrong:
            return (f"its signature: {wrong}",)


def pack(
    documents: Iterable[Document],
    signatures: Iterable[Mapping[str, Any]],
    events: Iterable[Mapping[str, Any]],
    keys: Iterable[PartyKey],
) -> bytes:
    """The bundle of documents, the JWS of their signatures and events, and the keys of parties and of the broker.

    The same for any order of each; in the lists shipped with this program.
    """
    body: dict[str, Any] = {
        "format": FORMAT,
        "kind": "replay-bundle",
        "vocabulary": shipped(),
        "documents": sorted(document.canonical.decode() for document in documents),
        "signatures": sorted((dict(one) for one in signatures), key=jcs),
        "events": sorted((dict(one) for one in events), key=jcs),
        "keys": sorted((_key(key) for key in keys), key=jcs),
    }
    return jcs(body)


def unpack(raw: bytes, *, trusted: Iterable[PartyKey] | None = None) -> Bundle:
    """Open a bundle, every signature in it verified.

    `trusted`: keys brought along, instead of those it carries; what is signed by any other then counts as not there.
    Raises BundleRefused; BadBundleSignature where a key is there and its signature does not hold.
    """
    body = _opened(raw)
    try:
        lists = of_lists(body["vocabulary"])
        carried = [_party_key(one) for one in body["keys"]] if trusted is None else list(trusted)
        keys = {key.kid: key for key in carried}
        documents = _documents(body["documents"], lists)
        signatures, events = list(body["signatures"]), list(body["events"])
        if trusted is not None:
            signatures = [jws for jws in signatures if _known(verify_jws, jws, keys)]
            events = [jws for jws in events if _known(verify_event, jws, keys)]
        snapshot = Snapshot.of(documents, signatures, events, keys)
    except (DocumentRefused, UnknownKey) as wrong:
        raise BundleRefused(str(wrong)) from None
    except BadSignature as wrong:
        raise BadBundleSignature(f"a signature in it does not hold: {wrong}") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as wrong:
        if isinstance(wrong, BundleRefused):
            raise
        raise BundleRefused(f"a part of it is not as `broker agreements export` writes it; {_AGAIN}") from None
    return Bundle(snapshot, lists, keys)


def keys_of(raw: bytes) -> list[PartyKey]:
    """The Ed25519 keys of a JWK set, of the `keys` of a bundle, or an agency's `public.json` (its signatory's).

    Keys of a JWK set for anything else are left out.  Raises BundleRefused if there is none.
    """
    try:
        body = json.loads(raw)
        if "signatory" in body:
            listed = [body["signatory"] | {"valid_from": None, "valid_to": None}]
        else:
            listed = [one for one in body.get("keys", [body]) if one.get("kty", "OKP") == "OKP"]
        found = [_party_key(_from_jwk(one) if "kty" in one else one) for one in listed if one.get("crv") != "X25519"]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as wrong:
        if isinstance(wrong, BundleRefused):
            raise
        raise BundleRefused("it is no JWK set, no bundle and no agency's public.json") from None
    if not found:
        raise BundleRefused("it holds no Ed25519 key")
    return found


def jwk_set(keys: Iterable[PartyKey]) -> dict[str, Any]:
    """Public keys as a JWK set (RFC 8037), by name; `valid_from` and `valid_to` are ours."""
    each = [_key(key) for key in keys]
    return {
        "keys": [
            {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": one["kid"], "x": one["public"]}
            | {name: one[name] for name in ("valid_from", "valid_to") if one[name]}
            for one in sorted(each, key=lambda one: str(one["kid"]))
        ]
    }


def fingerprint(key: PartyKey) -> str:
    """What two people compare over the telephone: the first 16 hex digits of the SHA-256 of a raw public key."""
    return hashlib.sha256(key.public.public_bytes_raw()).hexdigest()[:16]


_AGAIN: Final = "have the host write it again with `broker agreements export --to bundle`"
_PARTS: Final = ("vocabulary", "documents", "signatures", "events", "keys")


def _opened(raw: bytes) -> dict[str, Any]:
    """The table of a bundle, with all its parts.  Raises BundleRefused, which says what is there instead."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BundleRefused(f"it is not JSON; {_AGAIN}") from None
    if not isinstance(body, dict) or body.get("kind") != "replay-bundle":
        raise BundleRefused(f'it does not say kind "replay-bundle", so it is another file; {_AGAIN}')
    if body.get("format") != FORMAT:
        raise BundleRefused(f"it is of another format than {FORMAT}, the one that is read here; {_AGAIN}")
    if lacking := [part for part in _PARTS if part not in body]:
        raise BundleRefused(f"it lacks {', '.join(lacking)}; {_AGAIN}")
    return body


def _documents(texts: Iterable[str], lists: Vocabulary) -> list[Document]:
    """Umbrellas first, since a document under one can't be read without it."""
    raw = [text.encode() for text in texts]
    above = [one for one in raw if "under" not in json.loads(one)]
    found: list[Document] = [from_canonical(one, vocabulary=lists) for one in above]
    umbrellas = [one for one in found if isinstance(one, Agreement)]
    return found + [from_canonical(one, umbrellas=umbrellas, vocabulary=lists) for one in raw if one not in above]


def _known(verified: Callable[..., object], jws: Mapping[str, Any], keys: Mapping[str, PartyKey]) -> bool:
    """Whether a signature is by keys that are at hand.  Raises BadSignature if it is, and does not hold."""
    try:
        verified(jws, keys)
    except UnknownKey:
        return False
    return True


def _from_jwk(jwk: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kid": str(jwk["kid"]), "public": jwk["x"], "valid_from": jwk.get("valid_from"), "valid_to": jwk.get("valid_to")
    }  # fmt: skip


def _key(key: PartyKey) -> dict[str, str | None]:
    public = base64.urlsafe_b64encode(key.public.public_bytes_raw()).rstrip(b"=").decode()
    return {"kid": key.kid, "public": public, "valid_from": _stamp(key.valid_from), "valid_to": _stamp(key.valid_to)}


def _party_key(body: Mapping[str, Any]) -> PartyKey:
    try:
        raw = base64.urlsafe_b64decode(body["public"] + "=" * (-len(body["public"]) % 4))
        public = Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError):
        raise BundleRefused("keys: a public key is not 32 bytes of Ed25519 in base64url") from None
    return PartyKey(str(body["kid"]), public, _instant(body["valid_from"]), _instant(body["valid_to"]))


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
