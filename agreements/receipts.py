"""The decision receipt: enough to decide again, offline, years later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agreements.snapshot import Snapshot
from agreements.verdict import Decision
from agreements.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class AskerCopy:
    """Request, modes, witnesses and duties, tied to the full receipt by a salted commitment; `body` is JSON."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DecisionReceipt:
    """One request and source agency: `jws` is signed JSON (the full receipt), `asker` the asker's copy."""

    jws: Mapping[str, Any]
    asker: AskerCopy


def make_receipt(
    snapshot: Snapshot,
    vocabulary: Vocabulary,
    decisions: Sequence[Decision],
    *,
    source: str,
    kid: str,
    key: Ed25519PrivateKey,
    salt: bytes,
) -> DecisionReceipt:
    """The receipt of the decisions (one a record, may be none) of one request on one source."""
    raise NotImplementedError


def replay(
    receipt: Mapping[str, Any], snapshot: Snapshot, vocabulary: Vocabulary, key: Ed25519PublicKey, *, slow: bool = False
) -> tuple[str, ...]:
    """Decide again from a full receipt; the differences found, none if equal.  `slow`: by the reference evaluator.

    Raises BadSignature if the receipt isn't signed by `key`, and ValueError if the snapshot lacks a document named.
    """
    raise NotImplementedError
