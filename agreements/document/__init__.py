"""From TOML to an agreement: strict on reading, canonical when signed.

A document loads whole or not at all.  Every refusal names the place and what to write instead.  What is evaluated
becomes an `Agreement` or a `Restriction`; the rest is signed with it, printed and listed, and never evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from agreements.agreement import Agreement, Document
from agreements.document.lint import lint
from agreements.document.meaning import agreement, restriction
from agreements.document.parsing import DocumentRefused, Finding, dated, faults, from_json, parsed, refused
from agreements.document.rules import of_agreement, of_restriction
from agreements.document.schema import schemas
from agreements.document.text import AgreementText, RestrictionText
from agreements.vocabulary import VOCABULARY, Vocabulary

__all__ = ["DocumentRefused", "Finding", "check", "from_canonical", "json_schema", "read"]


def read(source: bytes | str, *, umbrellas: Iterable[Agreement] = (), vocabulary: Vocabulary = VOCABULARY) -> Document:
    """The agreement or restriction of a TOML text.  An umbrella that it stands under must be among `umbrellas`.

    Raises DocumentRefused.
    """
    text = source if isinstance(source, str) else source.decode("utf-8", "replace")
    return _document(parsed(source), umbrellas, vocabulary, text)


def from_canonical(raw: bytes, *, umbrellas: Iterable[Agreement] = (), vocabulary: Vocabulary = VOCABULARY) -> Document:
    """The document of its canonical JSON: equal to the one `read` from its TOML, and nothing that no TOML could say.

    Raises DocumentRefused.
    """
    body = from_json(raw)
    pinned = {name: body.get(name) for name in ("vocabulary", "under") if name in body}
    body |= {name: pin.get("ref") if isinstance(pin, dict) else pin for name, pin in pinned.items()}
    try:
        document = _document(dated(body), umbrellas, vocabulary)
    except RecursionError:
        raise refused("document", "it is nested too deeply", "give the canonical form that was signed") from None
    if document.canonical != raw:
        raise refused(
            "document", "it is not in canonical form, or pins other digests", "give the bytes that were signed"
        )
    return document


def check(
    source: bytes | str, *, umbrellas: Iterable[Agreement] = (), vocabulary: Vocabulary = VOCABULARY
) -> tuple[Finding, ...]:
    """All findings on a text; none of them `refused` means that it loads."""
    try:
        document = read(source, umbrellas=umbrellas, vocabulary=vocabulary)
    except DocumentRefused as refused:
        return refused.findings
    return tuple(lint(document, vocabulary)) if isinstance(document, Agreement) else ()


def json_schema(vocabulary: Vocabulary = VOCABULARY) -> dict[str, Any]:
    """JSON Schemas of both kinds of document, for editors: what the loader checks beyond them is in its refusals."""
    return schemas(vocabulary)


def _document(
    body: dict[str, Any], umbrellas: Iterable[Agreement], vocabulary: Vocabulary, source: str | None = None
) -> Document:
    kind = body.get("kind")
    if kind not in ("agreement", "restriction"):
        raise refused("kind", "it says neither agreement nor restriction", 'write kind = "agreement" or "restriction"')
    model = AgreementText if kind == "agreement" else RestrictionText
    try:
        text = model.model_validate(body)
    except ValidationError as error:
        raise DocumentRefused(faults(error, model, source)) from None
    if isinstance(text, AgreementText):
        umbrella = next((one for one in umbrellas if one.ref == text.under), None)
        if findings := list(dict.fromkeys(of_agreement(text, umbrella, vocabulary))):
            raise DocumentRefused(findings)
        return agreement(text, body, umbrella, vocabulary)
    assert isinstance(text, RestrictionText)
    if findings := list(of_restriction(text, vocabulary)):
        raise DocumentRefused(findings)
    return restriction(text, body, vocabulary)
