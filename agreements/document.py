"""From TOML to an agreement and back: strict on reading, canonical when signed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from agreements.agreement import Agreement, Document
from agreements.vocabulary import VOCABULARY, Vocabulary


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a document: where (a path, "grants[2].from"), what, and what to write instead."""

    path: str
    message: str
    fix: str
    severity: Literal["error", "warning"] = "error"


class DocumentRefused(ValueError):
    """A document that can't be loaded, with all that was found; nothing of it is."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(f"{finding.path}: {finding.message}" for finding in self.findings))


def read(source: bytes | str, *, umbrellas: Iterable[Agreement] = (), vocabulary: Vocabulary = VOCABULARY) -> Document:
    """The agreement or restriction of a TOML text.  An umbrella that it stands under must be among `umbrellas`.

    Raises DocumentRefused.
    """
    raise NotImplementedError


def from_canonical(raw: bytes, *, umbrellas: Iterable[Agreement] = (), vocabulary: Vocabulary = VOCABULARY) -> Document:
    """The document of its canonical JSON, as exact as `read`.  Raises DocumentRefused."""
    raise NotImplementedError


def check(
    source: bytes | str, *, umbrellas: Iterable[Agreement] = (), vocabulary: Vocabulary = VOCABULARY
) -> tuple[Finding, ...]:
    """All findings on a text, refusals (error) and what a reviewer should see (warning); none means that it loads."""
    raise NotImplementedError


def canonical(document: Document) -> bytes:
    """The RFC 8785 form that is signed, in which `vocabulary` and `under` carry SHA-256 digests."""
    raise NotImplementedError


def digest(document: Document) -> str:
    """SHA-256 of the canonical form, lower-case hex."""
    raise NotImplementedError
