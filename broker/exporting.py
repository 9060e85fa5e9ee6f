"""What leaves the register in other languages: for partners' tools, for signatories, for auditors.

Nothing here decides, and nothing is written: each export is a text made of documents, signatures and events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agreements import (
    VOCABULARY,
    Agreement,
    BadSignature,
    PartyKey,
    Signature,
    Snapshot,
    StatusEvent,
    json_schema,
    verify,
    verify_event,
)
from agreements.agreement import Document, Restriction
from agreements.bundle import jwk_set, pack
from agreements.export import article30, cedar, dfe, linked, odrl, prose
from agreements.signing import stated_event
from broker import register
from broker.documents import read_alone, umbrellas_of
from broker.errors import Malformed
from broker.keys import Keys
from broker.store import Reading
from broker.store.documents import AgreementRow, AgreementSignatureRow, AgreementStatusRow


@dataclass(frozen=True, slots=True)
class Chosen:
    """The documents to export, and what is known of their signatures and events, umbrellas included."""

    documents: tuple[Document, ...]
    snapshot: Snapshot
    draft: bool  # read from a file: nobody's signature is known

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """The agreements among them."""
        return tuple(one for one in self.documents if isinstance(one, Agreement))

    def umbrella(self, document: Document) -> Agreement | None:
        """The umbrella that a document stands under."""
        return self.snapshot.umbrella(document) if isinstance(document, Agreement) else None

    def as_if_signed(self) -> Snapshot:
        """A draft as if each party had signed it on its first day; else what is signed."""
        if not self.draft:
            return self.snapshot
        every: tuple[Document, ...] = (*self.snapshot.agreements, *self.snapshot.restrictions)
        return Snapshot.of(
            every,
            [
                Signature(party, document.digest, f"{party}/draft", document.period.start)
                for document in every
                for party in (document.parties if isinstance(document, Agreement) else (document.owner,))
            ],
        )

    def only(self) -> Document:
        """The document, where it is one.  Raises Malformed."""
        if len(self.documents) != 1:
            raise Malformed("name one document to print")
        return self.documents[0]


def of_file(source: bytes, umbrellas: Sequence[bytes]) -> Chosen:
    """A document by itself, before anybody has signed.  Raises BadAgreement."""
    document = read_alone(source, umbrellas)
    return Chosen((document,), Snapshot.of((*umbrellas_of(umbrellas), document)), draft=True)


def of_register(reading: Reading, ref: str | None) -> Chosen:
    """One document of the register with its signatures, in force or not; or all that are in force.  Raises NotFound."""
    if ref is None:
        snapshot = register.snapshot(reading)
        return Chosen((*snapshot.agreements, *snapshot.restrictions), snapshot, draft=False)
    row = register.document_row(reading, ref)
    document = register.document_of(reading, row)
    return Chosen(
        (document,), _history(reading, {row.ref, row.under or row.ref}, register.party_keys(reading)), draft=False
    )


def bundle(reading: Reading, keys: Keys) -> bytes:
    """All that was ever put in force here, as signed, with the keys to verify it: what `auditor replay` needs."""
    refs = {row.ref for row in reading.all(AgreementRow) if row.status != "draft"}
    ours = _receipt_key(keys)
    registered = register.party_keys(reading) | {ours.kid: ours}
    documents = _documents(reading, refs)
    return pack(
        documents.values(),
        [jws for jws, _ in _signatures(reading, documents, registered)],
        [jws for jws, _ in _events(reading, documents, registered)],
        registered.values(),
    )


def public_keys(reading: Reading, keys: Keys) -> str:
    """Every key that documents, events and receipts are verified by, as a JWK set: for `auditor replay --keys`."""
    return _json(jwk_set([*register.party_keys(reading).values(), _receipt_key(keys)]))


def _receipt_key(keys: Keys) -> PartyKey:
    return PartyKey(keys.receipt_kid, Ed25519PublicKey.from_public_bytes(keys.receipt_public()), None, None)


def export(chosen: Chosen, to: str) -> str:
    """The chosen documents in another language, one of `KINDS`.  Raises Malformed where there is nothing to say."""
    return KINDS[to](chosen)


def published(to: str) -> str:
    """What follows from this program alone: the JSON Schemas of documents, the ODRL vocabulary, Cedar's schema."""
    return _json(PUBLISHED[to]())


def _history(reading: Reading, refs: Collection[str], keys: Mapping[str, PartyKey]) -> Snapshot:
    """Documents with every signature and event that still holds, whatever the host has done with them."""
    documents = _documents(reading, refs)
    return Snapshot.of(
        documents.values(),
        [one for _, several in _signatures(reading, documents, keys) for one in several],
        [event for _, event in _events(reading, documents, keys)],
    )


def _documents(reading: Reading, refs: Collection[str]) -> dict[str, Document]:
    return {row.ref: register.document_of(reading, row) for row in reading.all(AgreementRow) if row.ref in refs}


def _signatures(
    reading: Reading, documents: Mapping[str, Document], keys: Mapping[str, PartyKey]
) -> Iterator[tuple[dict[str, Any], tuple[Signature, ...]]]:
    for row in reading.all(AgreementSignatureRow, order=("agreement", "party")):
        if row.agreement in documents:
            jws = json.loads(row.jws)
            with suppress(BadSignature):  # one that no longer holds counts as not given
                yield jws, verify(documents[row.agreement], jws, keys)


def _events(
    reading: Reading, documents: Mapping[str, Document], keys: Mapping[str, PartyKey]
) -> Iterator[tuple[dict[str, Any], StatusEvent]]:
    for row in reading.all(AgreementStatusRow, order=("number",)):
        if row.agreement in documents and row.jws:
            jws = json.loads(row.jws)
            yield jws, stated_event(jws) if row.reason == register.NEWER_VERSION else verify_event(jws, keys)


def _odrl(chosen: Chosen) -> str:
    if len(chosen.documents) == 1:
        return _json(odrl.odrl_of(chosen.documents[0], chosen.snapshot))
    return _json(odrl.odrl(chosen.snapshot))


def _cedar(chosen: Chosen) -> str:
    made = cedar.cedar(chosen.as_if_signed(), VOCABULARY)
    drafted = "// A draft, as if each party had signed it on its first day.\n" if chosen.draft else ""
    return f"{drafted}// {cedar.__doc__ and cedar.__doc__.splitlines()[0]}\n\n{made.policies}"


def cedar_parts(chosen: Chosen) -> Mapping[str, str]:
    """Policies, the schema they are valid under and the vocabulary as entities: an authoriser needs all three."""
    made = cedar.cedar(chosen.as_if_signed(), VOCABULARY)
    return {"cedar": _cedar(chosen), "cedarschema": made.schema, "entities.json": made.entities}


def _text(chosen: Chosen) -> str:
    return "\n\n".join(
        prose.text(prose.schedule(one, VOCABULARY, umbrella=chosen.umbrella(one))) for one in chosen.documents
    )


def _record(chosen: Chosen) -> tuple[article30.Entry, ...]:
    entries = article30.entries(chosen.agreements, VOCABULARY, umbrellas=chosen.snapshot.agreements)
    if not entries:
        raise Malformed("no agreement here shows anything, so that there is nothing to record")
    return entries


def _dfe(chosen: Chosen) -> str:
    restrictions = [one for one in chosen.documents if isinstance(one, Restriction)]
    return _json(dfe.dfe(chosen.agreements, VOCABULARY, restrictions=restrictions))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


KINDS: Final[Mapping[str, Callable[[Chosen], str]]] = {
    "odrl": _odrl,
    "cedar": _cedar,
    "text": _text,
    "article30": lambda chosen: _json(article30.as_json(_record(chosen))),
    "article30-csv": lambda chosen: article30.as_csv(_record(chosen)),
    "article30-markdown": lambda chosen: article30.as_markdown(_record(chosen)),
    "dfe": _dfe,
}
PUBLISHED: Final[Mapping[str, Callable[[], Any]]] = {
    "schema": json_schema,
    "vocabulary": lambda: linked.vocabulary_jsonld(VOCABULARY),
}
