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
                                                --truth person_id --dataset dataset; with group columns to report
                                                match rates by: naming_custom, decile, looked_after, moved

Agencies and flows: northshire-council {education, social_care, early_help, housing}, northshire-icb {health},
northshire-police {police}.

Measured on one busy core: 20,000 children (97,000 rows of people, 180,000 items) take 3 s, 100,000 take 11 s of
processor time and 240 MB of files; all steps are linear, so a million takes a few minutes.

A `sever_ref` is the flow's own: the old and the new row of one adoptee in one flow bear the same, no two flows share
one.  So wherever both rows are, they say so themselves, and no reference joins the flows.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from linkage.evaluation.area import truth
from linkage.evaluation.area.agencies import FLOWS
from linkage.evaluation.area.extracts import write_contacts, write_flow, write_labelled
from linkage.evaluation.area.families import CHILD, Area, make_area
from linkage.evaluation.area.items import draw_lives, items_of
from linkage.evaluation.area.names import CANARY_STREET, CUSTOMS
from linkage.evaluation.area.records import Rows, give_numbers, known_to, write_rows

TODAY: Final = date(2026, 9, 30)
"""The day the area is seen on, unless told otherwise; never the clock's, or a seed would not give the same bytes."""


def synthesise(
    out: Path,
    *,
    children: int,
    seed: int = 1,
    blank: float = 0.0,
    on: date = TODAY,
    items: bool = True,
    twins: float = 1.0,
    adoptions: float = 1.0,
) -> dict[str, Any]:
    """Fill `out` and return the counts of `truth/summary.json`.  The same arguments give the same bytes.

    `blank` is the share of dates of birth, and of postcodes, left out.  What `out` held before under the names above
    is replaced.  Without `items` (and their files) it is quicker, for work on linkage alone.  `twins` and `adoptions`
    multiply how common those are.
    """
    for name in ("extracts", "truth"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    area = make_area(children, _rng(seed, 0), on, twins=twins, adoptions=adoptions)
    for home in area.people.home[(area.people.family <= 1) & (area.people.role == CHILD)].tolist():
        area.homes.streets[int(area.homes.postcode[home])] = CANARY_STREET
    numbers = give_numbers(area, _rng(seed, 1))
    known = {
        flow.flow: known_to(flow, area, _rng(seed, 10 + place), numbers.suspects) for place, flow in enumerate(FLOWS)
    }
    lives = draw_lives(area, known["social_care"], known["early_help"], _rng(seed, 2))
    every: list[tuple[Rows, pa.Array]] = []
    counts: dict[str, Mapping[str, Any]] = {}
    for place, flow in enumerate(FLOWS):
        rows = write_rows(flow, area, numbers, known[flow.flow], _rng(seed, 20 + place), blank)
        held = items_of(rows, area, lives, numbers, _rng(seed, 30 + place)) if items else {}
        counts[flow.key] = write_flow(out / "extracts" / flow.agency / flow.flow, rows, area, held)
        every.append((rows, truth.person_ids(rows.who)))
    write_contacts(out / "extracts")
    pairs = truth.write_truth(out / "truth", area, every)
    labelled = write_labelled(out, area, every)
    summary = _summary(area, seed, on) | pairs | {"flows": counts, "labelled_rows": labelled}
    truth.write_json(out / "truth" / "summary.json", summary)
    truth.write_json(out / "truth" / "showcase.json", truth.showcase(area, lives, every))
    truth.write_json(out / "truth" / "canaries.json", truth.canaries(area, every))
    return summary


def _rng(seed: int, part: int) -> np.random.Generator:
    """A stream of its own for each part, so that a change in one leaves the others as they were."""
    return np.random.default_rng([seed, part])


def _summary(area: Area, seed: int, on: date) -> dict[str, Any]:
    people = area.people
    child = (people.role == CHILD) & ~people.old_life
    customs = np.bincount(people.custom[child], minlength=len(CUSTOMS)).tolist()
    return {
        "seed": seed,
        "on": on.isoformat(),
        "children": int((child & ~people.unborn).sum()),
        "unborn": int(people.unborn.sum()),
        "adults": int((people.role != CHILD).sum()),
        "families": len(area.structure),
        "looked_after": int(people.looked_after.sum()),
        "shield_address": int((people.shield == 1).sum()),
        "shield_full": int((people.shield == 2).sum()),
        "naming_customs": dict(zip(CUSTOMS, customs, strict=True)),
    }
