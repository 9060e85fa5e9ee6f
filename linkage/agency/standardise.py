"""Names, dates and postcodes in comparable form; whatever only stands for "missing" becomes missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from linkage.agency.people import Finding, Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How one extract is to be read."""

    date_format: str = "%Y-%m-%d"
    default_dates: frozenset[str] = frozenset()  # "MM-DD": the source's unknown day and month
    earliest_year: int | None = 1900  # None: labelled sets from other centuries
    uk_postcodes: bool = True  # False: labelled sets from other countries


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardised:
    """`people` in standard form, a row for each row given, with quality flags beside and findings by row number (0..)."""

    people: pa.Table  # people.STANDARD_SCHEMA
    birth_year: pa.Array  # int32, null if not known
    sex: pa.Array  # "F", "M" or null
    default_dob: np.ndarray
    baby_name: np.ndarray
    bad_identifier: np.ndarray
    findings: Sequence[tuple[int, Finding]]


def standardise_people(raw: pa.Table, rules: Rules, *, today: date) -> Standardised:
    """Bring extracted text columns (`people.PERSON_FIELDS`, any may be left out) to standard form."""
    raise NotImplementedError


def standardise_person(person: Person, *, today: date) -> Standardised:
    """The same for one typed person, with ISO dates."""
    raise NotImplementedError


def check_person(person: Person, *, today: date) -> list[Finding]:
    """What of a typed person can't be used, field by field; never the value."""
    raise NotImplementedError


def soundex(name: str) -> str | None:
    """Soundex of a standard name, lower case: `robert` is `r163`; None if it holds no letter."""
    raise NotImplementedError
