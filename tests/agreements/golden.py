"""The receipts of the decision table, as this program signed them once: no later engine may decide them otherwise.

`python -m tests.agreements.golden` writes them anew.  Only a new version of the semantics is a reason to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreements import (
    VOCABULARY,
    Agreement,
    PartyKey,
    RequestRefused,
    Signature,
    Snapshot,
    StatusEvent,
    decide,
    from_canonical,
    make_receipt,
)
from agreements.agreement import Document
from agreements.vocabulary import Vocabulary, of_lists, shipped
from tests.spec import table

FILE = Path(__file__).resolve().parents[1] / "vectors" / "decision-receipts-1.json"
KEY = Ed25519PrivateKey.from_private_bytes(b"golden receipts, a key for tests")
KEYS = {"broker/1": PartyKey("broker/1", KEY.public_key())}


def kept() -> tuple[Vocabulary, Iterator[tuple[str, Snapshot, Mapping[str, Any]]]]:
    """The vocabulary of then; of each case its number, what was signed, and the receipt."""
    body = json.loads(FILE.read_text("utf-8"))
    vocabulary = of_lists(body["vocabulary"])
    return vocabulary, ((one["case"], _snapshot(body, one, vocabulary), one["receipt"]) for one in body["receipts"])


def _snapshot(body: Mapping[str, Any], one: Mapping[str, Any], vocabulary: Vocabulary) -> Snapshot:
    raw = [body["documents"][digest].encode() for digest in one["documents"]]
    umbrellas: list[Agreement] = []
    documents: list[Document] = []
    for text in sorted(raw, key=lambda text: b'"under"' in text):
        document = from_canonical(text, umbrellas=umbrellas, vocabulary=vocabulary)
        documents.append(document)
        if isinstance(document, Agreement) and not document.grants:
            umbrellas.append(document)
    signatures = [Signature(party, digest, kid, _instant(at)) for party, digest, kid, at in one["signatures"]]
    events = [StatusEvent(party, digest, do, _instant(at), kid) for party, digest, do, at, kid in one["events"]]
    return Snapshot.of(documents, signatures, events)


def _write() -> None:
    documents: dict[str, str] = {}
    receipts = []
    for case in table.CASES:
        try:
            w, request, facts = table.world(case), table.request(case), table.facts(case)
            decision = decide(w.snapshot, VOCABULARY, request, facts, w.at)
        except RequestRefused:
            continue
        receipt = make_receipt(
            w.snapshot, VOCABULARY, request, [decision], source=facts.source, at=w.at, salt=bytes(32), kid="broker/1",
            key=KEY,
        )  # fmt: skip
        documents |= {one.digest: one.canonical.decode() for one in w.documents}
        receipts.append(
            {
                "case": str(case["n"]),
                "documents": sorted(one.digest for one in w.documents),
                "signatures": sorted([one.party, one.digest, one.kid, _stamp(one.signed_at)] for one in w.snapshot.signatures),
                "events": [[one.party, one.digest, one.do, _stamp(one.at), one.kid] for one in w.snapshot.events],
                "receipt": receipt.jws,
            }
        )  # fmt: skip
    body = {"vocabulary": shipped(), "documents": documents, "receipts": receipts}
    FILE.write_text(json.dumps(body, ensure_ascii=False, sort_keys=True, indent=0) + "\n", "utf-8")


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


if __name__ == "__main__":
    _write()
