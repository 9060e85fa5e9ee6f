"""A small agency: a home, an extract in CSV, and the mapping between them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from linkage.agency import batch, codes
from linkage.agency.batch import Encoded
from linkage.agency.keygen import make_home
from linkage.agency.settings import Home

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
CODES = codes.load()

MAPPING = """
agency = "northshire-council"
flow = "education"
agreements = ["northshire-mash@3.0.0"]
max_bad_share = 0.9
[persons]
file = "pupils.csv"
[persons.columns]
local_id = "PupilID"
person_role = "Kind"
given_name = "Forename"
known_as = "KnownAs"
family_name = "Surname"
former_family_name = "FormerSurname"
date_of_birth = "DOB"
sex = "Sex"
postcode = "Postcode"
uprn = "UPRN"
upn = "UPN"
nhs_number = "NHS"
shield = "Protected"
sever_ref = "Severed"
[persons.formats]
date_of_birth = "%d/%m/%Y"
[persons.values.shield]
"Y" = "address"
[relationships]
file = "contacts.csv"
columns = {local_id_a = "PupilID", local_id_b = "ContactID", type = "Relation", verified = "Checked"}
values.type = {"PAR" = "birth_parent"}
[items."education.attendance"]
file = "attendance.csv"
columns = {local_id = "PupilID", code = "Band", number = "Percent", occurred_on = "HalfTermEnd"}
contact = "safeguarding-desk"
"""

PUPIL: Mapping[str, str] = {
    "PupilID": "P1", "Kind": "child", "Forename": "Zoë", "KnownAs": "", "Surname": "Canarysmith", "FormerSurname": "",
    "DOB": "14/03/2015", "Sex": "F", "Postcode": "SW1A 1AA", "UPRN": "100023336956", "UPN": "B801200005001",
    "NHS": "943 476 5919", "Protected": "", "Severed": "",
}  # fmt: skip
MOTHER: Mapping[str, str] = {
    **PUPIL, "PupilID": "C1", "Kind": "parent", "Forename": "Cassandra", "DOB": "02/11/1985", "UPN": "", "NHS": "9434765870",
}  # fmt: skip
CONTACT: Mapping[str, str] = {"PupilID": "C1", "ContactID": "P1", "Relation": "PAR", "Checked": "Y"}
BAND: Mapping[str, str] = {"PupilID": "P1", "Band": "PERSISTENT", "Percent": "87.5", "HalfTermEnd": "2026-10-23"}


def a_home(folder: Path, **changes: Any) -> Home:
    wanted = {"agency": "northshire-council", "partnership": "northshire", "epoch": "2026-1", **changes}
    return make_home(folder, **wanted)


def an_extract(
    folder: Path,
    *,
    pupils: Iterable[Mapping[str, str]] = (PUPIL, MOTHER),
    contacts: Iterable[Mapping[str, str]] = (CONTACT,),
    bands: Iterable[Mapping[str, str]] = (BAND,),
    mapping: str = MAPPING,
) -> Path:
    """Three CSV files and their mapping, whose path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, first, rows in (
        ("pupils.csv", PUPIL, pupils), ("contacts.csv", CONTACT, contacts), ("attendance.csv", BAND, bands),
    ):  # fmt: skip
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(first))
            writer.writeheader()
            writer.writerows(rows)
    path = folder / "mapping.toml"
    path.write_text(mapping, encoding="utf-8")
    return path


def a_batch(folder: Path, home: Home | None = None, *, at: datetime = NOW, **extract: Any) -> Encoded:
    """The batch of `an_extract`, in folder/batch."""
    mapping = an_extract(folder / "extract", **extract)
    return batch.encode_extract(mapping, home or a_home(folder / "home"), folder / "batch", codes=CODES, now=at)
