"""A log's signer in a folder of the test's own, and its public halves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import VerifierKey
from broker.keys import private_key
from broker.shards import log_keys, open_for_writing
from broker.signing import SignerFolder
from broker.store import Store

ORIGIN = "broker.example/audit/2026"
OPENED = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


def opened(store: Store, home: Path, *, origin: str = ORIGIN) -> SignerFolder:
    """The signer of a log, opened with the tables if neither knows of one."""
    signers = SignerFolder(home / "signer")
    open_for_writing(store, signers, origin.rpartition("/")[0], at=OPENED)
    return signers


def log_key(store: Store) -> VerifierKey:
    """The public half of the newest key of the log."""
    with store.reading() as reading:
        return log_keys(reading)[-1]


def policy_text(store: Store) -> str:
    """A policy that trusts the log's keys, and asks for no witness."""
    with store.reading() as reading:
        return "".join(f"log {key}\n" for key in log_keys(reading)) + "quorum none\n"


def stolen_key(home: Path, shard: str = "2026", number: int = 1) -> Ed25519PrivateKey:
    """The private key, as a thief has it who was in the signer's folder."""
    key = private_key(home / "signer" / shard / f"{number}.pem")
    assert isinstance(key, Ed25519PrivateKey)
    return key
