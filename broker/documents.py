"""Documents read by themselves: what a signatory's machine needs, without a database or a server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agreements import VOCABULARY, Agreement, BadSignature, PartyKey, check, read, verify
from agreements.agreement import Document, london_day
from agreements.assurance import Gap, gaps
from agreements.document import DocumentRefused, Finding
from agreements.lifecycle import last_day, spoken
from broker.errors import BadAgreement, Malformed
from broker.keys import unb64url


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose signature a file holds; `wrong` says why it does not count, `known` whether its key is there to check."""

    party: str
    kid: str
    at: datetime | None
    wrong: str | None = None
    known: bool = True


def findings(source: bytes, umbrellas: Sequence[bytes] = ()) -> tuple[Finding, ...]:
    """What is wrong with a document's text.  Raises BadAgreement if an umbrella can't be read."""
    above = umbrellas_of(umbrellas)
    found = check(source, umbrellas=above)
    if any(one.severity == "refused" for one in found):
        return found
    return (*found, *_outliving(read_alone(source, umbrellas), above))


def _outliving(document: Document, umbrellas: Sequence[Agreement]) -> Iterator[Finding]:
    """Whether an agreement begins before its umbrella does, or goes on after it: nothing is shown under it then."""
    pinned = document.under.digest if isinstance(document, Agreement) and document.under else None
    for one in umbrellas:
        if one.digest != pinned:
            continue
        if document.period.end > one.period.end:
            message = f"it goes on after {one.ref} ends, {spoken(last_day(one))}: from then nothing is shown under it"
            yield Finding("period.expires", message, "end it with its umbrella, or have that one renewed", "lint")
        if document.period.start < one.period.start:
            message = f"it begins before {one.ref} does, {spoken(london_day(one.period.start))}: until then it is empty"
            yield Finding("period.effective", message, "begin it with its umbrella", "lint")


def read_alone(source: bytes, umbrellas: Sequence[bytes] = ()) -> Document:
    """A document.  Raises BadAgreement."""
    try:
        return read(source, umbrellas=umbrellas_of(umbrellas))
    except DocumentRefused as refused:
        raise BadAgreement(str(refused)) from None


def missing(document: Document, *, on: date) -> tuple[Gap, ...]:
    """What keeps a document from being put in force on a day; who has signed is another question."""
    return gaps(document, VOCABULARY, on=on) if isinstance(document, Agreement) else ()


def signers(
    document: Document, signatures: Iterable[Mapping[str, Any]], keys: Mapping[str, PartyKey]
) -> tuple[Signer, ...]:
    """Whose signatures these are, each one checked by itself against the document's exact text and these keys."""
    found = []
    for jws in signatures:
        body = jws if isinstance(jws, Mapping) else {}
        listed = body.get("signatures")
        for one in listed if isinstance(listed, list) and listed else [None]:
            kid = _kid(one)
            party = kid.rpartition("/")[0]
            if kid and kid not in keys:
                found.append(Signer(party, kid, None, f"the key {kid} is not known here", known=False))
                continue
            try:
                (good,) = verify(document, {"payload": body.get("payload"), "signatures": [one]}, keys)
                found.append(Signer(good.party, good.kid, good.signed_at))
            except BadSignature as wrong:
                found.append(Signer(party, kid, None, str(wrong)))
    return tuple(found)


def _kid(one: object) -> str:
    """The key that a signature says it was made with; nothing where it can't be read."""
    try:
        return str(json.loads(unb64url(one["protected"]))["kid"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return ""


def signatory_key(public: Mapping[str, Any]) -> PartyKey:
    """The signatory's key in an agency's `public.json`.  Raises Malformed if there is none."""
    try:
        body = public["signatory"]
        return PartyKey(str(body["kid"]), Ed25519PublicKey.from_public_bytes(unb64url(body["public"])))
    except (KeyError, TypeError, ValueError):
        raise Malformed("signatory: an agency's public.json with its signatory's kid and public key is due") from None


def umbrellas_of(sources: Sequence[bytes]) -> list[Agreement]:
    """The agreements among these texts.  Raises BadAgreement."""
    try:
        return [document for source in sources if isinstance(document := read(source), Agreement)]
    except DocumentRefused as refused:
        raise BadAgreement(str(refused)) from None
