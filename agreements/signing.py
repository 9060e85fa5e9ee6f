"""One signature a party, over the exact digest; and the signed events that pause or end a party's part.

JWS JSON General Serialization (RFC 7515 s.7.2), Ed25519 (RFC 8037; `alg` as RFC 9864 names it), made with
`cryptography` directly.  The key never leaves the signatory's machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agreements.agreement import Document


class BadSignature(ValueError):
    """A signature that can't be accepted; the message names the party or key and what is wrong."""


@dataclass(frozen=True, slots=True)
class PartyKey:
    """A party's registered public key and when it may sign."""

    kid: str  # "<party>/<n>"
    public: Ed25519PublicKey
    valid_from: datetime | None = None
    valid_to: datetime | None = None


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
    do: Literal["suspend", "resume", "withdraw", "supersede"]
    at: datetime
    kid: str


def sign(document: Document, *, party: str, kid: str, key: Ed25519PrivateKey, at: datetime) -> dict[str, Any]:
    """A signature as JSON: JWS JSON General Serialization with one signature, payload included."""
    raise NotImplementedError


def join(signatures: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One JWS with the signatures of several over one payload.  Raises BadSignature if the payloads differ."""
    raise NotImplementedError


def verify(document: Document, jws: Mapping[str, Any], keys: Mapping[str, PartyKey]) -> tuple[Signature, ...]:
    """The signatures of a JWS, every one verified against registered keys (by `kid`) and this document's exact bytes.

    Raises BadSignature: one bad signature spoils the whole.
    """
    raise NotImplementedError


def sign_event(
    document: Document, do: str, *, party: str, kid: str, key: Ed25519PrivateKey, at: datetime
) -> dict[str, Any]:
    """A status event as signed JSON (same JWS form)."""
    raise NotImplementedError


def verify_event(jws: Mapping[str, Any], keys: Mapping[str, PartyKey]) -> StatusEvent:
    """The event of a JWS, verified.  Raises BadSignature."""
    raise NotImplementedError


def status(
    document: Document, signatures: Iterable[Signature], events: Iterable[StatusEvent], at: datetime
) -> dict[str, str]:
    """For each party: "unsigned", "signed", "suspended", "withdrawn" or "superseded" at an instant."""
    raise NotImplementedError
