"""Made-up people in clear, encoded as an agency would: what the tests of the matching side start from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count

import pyarrow as pa

from linkage.agency.encode import encode_people
from linkage.agency.keys import LinkageKeys
from linkage.agency.people import STANDARD_SCHEMA
from linkage.matching.search import EncodedRow
from linkage.records import FILTER_WORDS, FILTERS, IDENTIFIERS, TOKENS, Profile

KEYS = LinkageKeys(bytes(range(32)), partnership="northshire", epoch="2026-1")
COUNCIL, ICB, POLICE = "northshire-council", "northshire-icb", "northshire-police"
EDUCATION, SOCIAL_CARE, HEALTH, PERSONS = (
    (COUNCIL, "education"), (COUNCIL, "social_care"), (ICB, "health"), (POLICE, "police"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Someone:
    """One row of a persons table, before encoding, in standard form."""

    given_name: str | None = "zoe"
    family_name: str | None = "kowalska"
    date_of_birth: str | None = "20150314"
    postcode: str | None = "nx12ab"
    sex: str | None = "F"
    nhs_number: str | None = None
    superseded_nhs_number: str | None = None
    upn: str | None = None
    former_upn: str | None = None
    local_nominal: str | None = None
    sever_ref: str | None = None
    source: tuple[str, str] = EDUCATION
    ref: str = "1"

    def at(self, source: tuple[str, str], **changes: str | None) -> Someone:
        """The same person as another flow has them."""
        return replace(self, source=source, **changes)  # type: ignore[arg-type]

    @property
    def key(self) -> tuple[str, str, str]:
        return (*self.source, self.ref)


def encoded(people: Iterable[Someone], profile: Profile = "guarded-3") -> pa.Table:
    """Rows as the broker holds them: the wire's columns, agency and flow."""
    everyone = list(people)
    parts = []
    for one in everyone:
        standard = pa.Table.from_pylist(
            [{name: getattr(one, name, None) for name in STANDARD_SCHEMA.names}], schema=STANDARD_SCHEMA
        )
        row = encode_people(standard, KEYS, profile, agency=one.source[0])
        extra = {
            "agency": one.source[0], "flow": one.source[1], "record_ref": one.ref, "sever_ref": one.sever_ref,
            "sex": one.sex,
        }  # fmt: skip
        for name, value in extra.items():
            row = row.append_column(name, pa.array([value], pa.string()))
        year = int(one.date_of_birth[:4]) if one.date_of_birth else None
        parts.append(row.append_column("birth_year", pa.array([year], pa.int32())))
    return pa.concat_tables(parts)


def asked(someone: Someone, profile: Profile = "guarded-3") -> EncodedRow:
    """A search for someone, as a gateway would send it."""
    row = encoded([someone], profile).to_pylist()[0]
    words = {name: [row[f"{name}_w{n}"] for n in range(FILTER_WORDS)] for name in FILTERS[profile]}
    return EncodedRow(
        filters={name: None if held[0] is None else tuple(held) for name, held in words.items()},
        tokens={name: row[f"t_{name}"] for name in TOKENS[profile]},
        identifiers={name: row[f"id_{name}"] for name in IDENTIFIERS},
        birth_year=row["birth_year"],
        sex=row["sex"],
    )


def ids() -> Iterable[str]:
    """Person ids that a test can read: p1, p2 ..."""
    return (f"p{n}" for n in count(1))
