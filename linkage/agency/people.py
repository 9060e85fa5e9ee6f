"""People in clear, as an agency knows them: these types exist on its own network and nowhere else.

Two forms.  *As typed or extracted*: a `Person`, or a table with the columns of `PERSON_FIELDS`, every one text.
*Standard*: a table with the columns of `STANDARD_FIELDS`, comparable and checked, with null for what is missing; this
is what `encode.encode_people` takes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal

import pyarrow as pa

PERSON_FIELDS: Final = (
    "local_id", "given_name", "known_as", "family_name", "former_family_name", "date_of_birth", "dob_quality", "sex",
    "postcode", "uprn", "nhs_number", "superseded_nhs_number", "upn", "former_upn", "uln", "pnc_id", "cro",
    "local_nominal", "person_role", "shield", "sever_ref", "deceased", "valid_from", "valid_to",
)  # fmt: skip
"""What `[persons.columns]` of a mapping may name; only `local_id` must be there."""

DEMOGRAPHICS: Final = ("given_name", "family_name", "date_of_birth", "postcode")

STANDARD_IDENTIFIERS: Final = {
    "nhs_number": "nhs_number",
    "superseded_nhs_number": "superseded_nhs_number",
    "upn": "upn",
    "former_upn": "former_upn",
    "pnc_id": "pnc",
    "cro": "cro",
    "uln": "uln",
    "local_nominal": "local",
}
"""An extract's identifier field, and its name on the wire."""

STANDARD_FIELDS: Final = (*DEMOGRAPHICS, *STANDARD_IDENTIFIERS)

STANDARD_SCHEMA: Final = pa.schema([(field, pa.string()) for field in STANDARD_FIELDS])
"""Standard form: names `[a-z0-9]+`, dates `YYYYMMDD`, postcodes `sw1a1aa`, identifiers canonical; null is missing."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with one field of one row, and how to put it right.  It never holds the value."""

    field: str
    code: str
    hint: str
    severity: Severity


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Person:
    """One person as someone typed them into a search; an empty string is a field left blank.

    `date_of_birth` is ISO 8601 (`2015-03-14`).  The `repr` names the fields that are filled, not what is in them.
    """

    given_name: str = ""
    family_name: str = ""
    date_of_birth: str = ""
    sex: str = ""
    postcode: str = ""
    nhs_number: str = ""
    upn: str = ""
    pnc_id: str = ""
    cro: str = ""
    uln: str = ""

    def __repr__(self) -> str:
        return f"Person({', '.join(field.name for field in fields(self) if getattr(self, field.name))})"
