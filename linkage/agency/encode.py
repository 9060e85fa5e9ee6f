"""From standard people to filters and tokens, under the linkage key: what leaves an agency instead of them."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import pyarrow as pa

from linkage.agency.keys import LinkageKeys
from linkage.agency.people import Person
from linkage.records import Profile

ENCODER: Final = "encoder-1 anyascii-0.3.3"
DEFAULT_PROFILE: Final[Profile] = "guarded-1"


def encode_people(
    people: pa.Table, keys: LinkageKeys, profile: Profile = DEFAULT_PROFILE, *, agency: str = ""
) -> pa.Table:
    """The filter, token and identifier columns of `records.persons_schema(profile)`, a row for each row of `people`.

    `people` is in standard form (`people.STANDARD_SCHEMA`; a column that is left out is all missing), as
    `standardise.standardise_people` gives it.  `agency` keys `local_nominal`, which is null without it.
    """
    raise NotImplementedError


def encode_row(person: Person, keys: LinkageKeys, profile: Profile = DEFAULT_PROFILE, *, today: date) -> dict[str, Any]:
    """One typed person as the JSON `Row` of a search: {"filters", "tokens", "identifiers", "birth_year", "sex"}.

    Standardises first; a field that is missing or fails its check is null (`standardise.check_person` says why).
    """
    raise NotImplementedError


def household_token(keys: LinkageKeys, profile: Profile, uprn: str) -> int:
    """The keyed token of a standard UPRN, for `household` relationships alone."""
    raise NotImplementedError
