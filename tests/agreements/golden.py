"""The receipts of the decision table, as this program signed them once: no later engine may decide them otherwise.

Each file holds what was signed at one time, under the lists of then: `-2` has what rests on section 16LA of the Children
Act 2004, taken for in force by lists that did not say from when a statute counts; `-3` the same by those that do.
`python -m tests.agreements.golden FILE CASE...` writes one more.  None that is there may be written anew, but for a new
version of the semantics.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreements import (
    Agreement,
    PartyKey,
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

FILES = tuple(sorted((Path(__file__).resolve().parents[1] / "vectors").glob("decision-receipts-*.json")))
KEY = Ed25519PrivateKey.from_private_bytes(b"golden receipts, a key for tests")
KEYS = {"broker/1": PartyKey("broker/1", KEY.public_key())}


def kept() -> Iterator[tuple[str, Vocabulary, Snapshot, Mapping[str, Any]]]:
    """Of each case its file and number, the vocabulary of then, what was signed, and the receipt."""
    for file in FILES:
        body = json.loads(file.read_text("utf-8"))
        for one in body["receipts"]:
            lists = body["vocabulary"]
            if "commences" in one:
                lists = copy.deepcopy(lists)
                lists["gateways"]["ca2004-s16la"]["commences"] = one["commences"]
            vocabulary = of_lists(lists)
            yield f"{file.stem} {one['case']}", vocabulary, _snapshot(body, one, vocabulary), one["receipt"]


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


def _write(file: Path, wanted: set[str]) -> None:
    documents: dict[str, str] = {}
    receipts = []
    for case in (case for case in table.CASES if str(case["n"]) in wanted):
        w, request, facts = table.world(case), table.request(case), table.facts(case)
        decision = decide(w.snapshot, w.vocabulary, request, facts, w.at)
        receipt = make_receipt(
            w.snapshot, w.vocabulary, request, [decision], source=facts.source, at=w.at, salt=bytes(32), kid="broker/1",
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
                **({"commences": case["commences"]} if "commences" in case else {}),
            }
        )  # fmt: skip
    body = {"vocabulary": shipped(), "documents": documents, "receipts": receipts}
    file.write_text(json.dumps(body, ensure_ascii=False, sort_keys=True, indent=0) + "\n", "utf-8")


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


if __name__ == "__main__":
    _write(Path(sys.argv[1]), set(sys.argv[2:]))
