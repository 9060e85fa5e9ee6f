"""The closed code lists that an agency encodes with: `codes.json`, generated from the vocabulary of agreements.

An agency can't import the vocabulary (`layout.md`), so the lists reach it as data.  Their digest is in every manifest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import rfc8785

SHIPPED: Final = Path(__file__).with_name("codes.json")


class BadCodes(ValueError):
    """The code lists can't be read; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryCodes:
    """What a row of one category may say."""

    never_ingest: bool
    codes: Mapping[str, frozenset[str]] | None  # code system -> codes; None: the category has no code
    number: bool
    outcomes: frozenset[str] | None
    outcome_pattern: re.Pattern[str] | None
    outcome_system: str | None
    role_required: bool


class Codes:
    """All lists of one version."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        """`body` is as `agreements.vocabulary.codes_for_agencies()` gives it.  Raises BadCodes."""
        try:
            self.version = str(body["version"])
            self.categories = {name: _category(entry) for name, entry in body["categories"].items()}
            self._denied: dict[str, frozenset[str]] = {
                system: frozenset(codes) for system, codes in body.get("denied", {}).items()
            }
        except (KeyError, TypeError, AttributeError, re.error):
            raise BadCodes("the code lists are not of a form known here; fetch those of this release") from None
        self._body = dict(body)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the RFC 8785 form, in hex."""
        return hashlib.sha256(rfc8785.dumps(self._body)).hexdigest()

    def is_denied(self, system: str | None, code: str) -> bool:
        """Whether a code betrays a sealed category, and so may not leave under any category."""
        if system is None or system not in self._denied:
            return False
        return not self._denied[system] or code in self._denied[system]

    def systems_of(self, category: str, code: str) -> list[str]:
        """The systems of a category that list a code."""
        listed = self.categories[category].codes or {}
        return [system for system, codes in listed.items() if code in codes]


def load(path: Path = SHIPPED) -> Codes:
    """The code lists of a file.  Raises BadCodes."""
    try:
        body = json.loads(path.read_bytes())
    except OSError as problem:
        raise BadCodes(
            f"{path.name}: {problem.strerror}; install the package anew, it carries the code lists"
        ) from None
    except ValueError:
        raise BadCodes(f"{path.name}: not JSON; install the package anew, it carries the code lists") from None
    return Codes(body)


def _category(entry: Mapping[str, Any]) -> CategoryCodes:
    pattern = entry.get("outcome_pattern")
    outcomes = entry.get("outcomes")
    codes = entry["codes"]
    return CategoryCodes(
        never_ingest=bool(entry["never_ingest"]),
        codes=None if codes is None else {system: frozenset(listed) for system, listed in codes.items()},
        number=bool(entry["number"]),
        outcomes=None if outcomes is None else frozenset(outcomes),
        outcome_pattern=None if pattern is None else re.compile(pattern),
        outcome_system=entry.get("outcome_system"),
        role_required=bool(entry.get("role_required", False)),
    )
