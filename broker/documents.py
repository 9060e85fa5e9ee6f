"""Documents read by themselves: what a signatory's machine needs, without a database or a server."""

from __future__ import annotations

from collections.abc import Sequence

from agreements import Agreement, check, read
from agreements.agreement import Document
from agreements.document import DocumentRefused, Finding
from broker.errors import BadAgreement


def findings(source: bytes, umbrellas: Sequence[bytes] = ()) -> tuple[Finding, ...]:
    """What is wrong with a document's text.  Raises BadAgreement if an umbrella can't be read."""
    return check(source, umbrellas=umbrellas_of(umbrellas))


def read_alone(source: bytes, umbrellas: Sequence[bytes] = ()) -> Document:
    """A document.  Raises BadAgreement."""
    try:
        return read(source, umbrellas=umbrellas_of(umbrellas))
    except DocumentRefused as refused:
        raise BadAgreement(str(refused)) from None


def umbrellas_of(sources: Sequence[bytes]) -> list[Agreement]:
    """The agreements among these texts.  Raises BadAgreement."""
    try:
        return [document for source in sources if isinstance(document := read(source), Agreement)]
    except DocumentRefused as refused:
        raise BadAgreement(str(refused)) from None
