"""One encoded row against all records: candidates in bands, scored by the frozen model, in the words of fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from linkage.matching.model import Model
from linkage.matching.overrides import RecordKey

Band = Literal["match", "possible"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """One person as a gateway encodes a search: eight signed 64-bit words a filter, None where a value is missing.

    `identifiers` are tokens by name (`linkage.records.IDENTIFIERS`), already peppered as the stored ones are.
    """

    filters: Mapping[str, tuple[int, ...] | None]
    tokens: Mapping[str, int | None]
    identifiers: Mapping[str, int | None] = field(default_factory=dict)
    birth_year: int | None = None
    sex: str | None = None

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> EncodedRow:
        """The wire's Row: filters as base64 of 64 bytes, tokens and identifiers as whole numbers in strings.

        Raises BadRow, which names the field and never its value.
        """
        raise NotImplementedError


class BadRow(ValueError):
    """A search row is not of the wire's format."""


class TooManyCandidates(LookupError):
    """So many persons fit that none should be shown: more fields are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A person that may be the one looked for, by its best record."""

    person_id: str
    band: Band
    upper: bool  # clears the higher bar, for summary and detail
    agreed: tuple[str, ...]
    differs: tuple[str, ...]
    records: tuple[RecordKey, ...]  # records of the person that reached the band
    birth_year: int | None
    sex: str | None


class Index:
    """All records of one published link run, ready to be searched."""

    def __init__(self, persons: pa.Table, clusters: pa.Table, family: pa.Table, model: Model) -> None:
        raise NotImplementedError

    def candidates(self, rows: EncodedRow | Sequence[EncodedRow], limit: int = 5) -> tuple[Candidate, ...]:
        """Best first, at most `limit`; several rows are alternatives of one person.

        Raises TooManyCandidates if more than `limit` fit and none is a match.
        """
        raise NotImplementedError

    def records_of(self, person_id: str) -> tuple[RecordKey, ...]:
        """The records of one person; empty if the run does not know the id."""
        raise NotImplementedError

    def family_of(self, person_id: str) -> pa.Table:
        """Family edges with this person at either end, in the columns of `families.FAMILY`."""
        raise NotImplementedError
