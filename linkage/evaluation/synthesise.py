"""A made-up English area: its children and families, what three organisations hold on them, and the truth beside.

What it writes under `out`:

    extracts/<agency>/contacts.toml             [<contact-id>] name, phone, out_of_hours
    extracts/<agency>/<flow>/mapping.toml       as design.md section 4; `file`s are relative to its folder
    extracts/<agency>/<flow>/*.csv              persons, relationships, and a file for each category of items
    truth/persons.parquet                       a row for each row of a persons extract: agency, flow, local_id, ...
    truth/severed.parquet                       old and new record of each adopted child: never to be joined
    truth/twins.parquet                         twins and triplets, pairwise: never to be merged
    truth/summary.json                          counts
    truth/showcase.json                         children worth searching for, with what an analyst would type
    truth/canaries.json                         strings that are in the extracts and must never reach a broker
    labelled.csv, labelled-mapping.toml         all flows in one file for `linkage.evaluation quality`:
                                                --truth person_id --dataset dataset

Agencies and flows: northshire-council {education, social_care, early_help, housing}, northshire-icb {health},
northshire-police {police}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def synthesise(out: Path, *, children: int, seed: int = 1, blank: float = 0.0) -> dict[str, Any]:
    """Fill `out` and return the counts of `truth/summary.json`.  The same arguments give the same bytes."""
    raise NotImplementedError
