"""A hundred made-up areas, half of them harder than any real one: whom linkage must never join, and how well it joins."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from linkage.agency.encode import DEFAULT_PROFILE
from linkage.agency.keys import LinkageKeys
from linkage.evaluation import quality
from linkage.evaluation.quality.labelled import Labelled
from linkage.evaluation.synthesise import synthesise
from linkage.matching.link import link
from linkage.matching.model import Model, default_model
from linkage.records import Profile
from tests.benchmarks.sizes import sized

TOPIC: Final = "linkage"
AREAS: Final = sized(100, 4)
CHILDREN: Final = sized(300, 100)
HARDER: Final[tuple[Mapping[str, float], ...]] = (
    {},
    {"twins": 8.0, "adoptions": 3.0},
    {"blank": 0.2},
    {"twins": 8.0, "adoptions": 3.0, "blank": 0.2},
)
"""Settings in turn: as an English area is, and with more twins, adoptions and blank fields."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """Of one area: pairs that must not be one person, and how many of them a link run has joined."""

    severed: int
    rejoined: int
    twins: int
    merged: int
    said: int  # pairs of records joined, and of them those of one person
    right: int


def rows() -> Iterator[Row]:
    """A row a claim, over all areas together."""
    found = [harm(seed) for seed in range(1, AREAS + 1)]
    total = {name: sum(getattr(one, name) for one in found) for name in Harm.__dataclass_fields__}
    for claim, bad, of in (
        ("severed pairs rejoined", total["rejoined"], total["severed"]),
        ("twins merged without a person's word", total["merged"], total["twins"]),
    ):
        yield {
            "claim": f"{claim}, {AREAS} areas", "ours": bad, "peer": of, "peer_name": "pairs there are",
            "ratio": round(bad / of, 6), "goal": 0, "held": bad == 0 and of > 0, "unit": "pairs",
        }  # fmt: skip
    precision = total["right"] / total["said"]
    yield {
        "claim": f"precision of the persons formed, {AREAS} areas", "ours": round(precision, 5), "peer": 0.995,
        "peer_name": "the bar", "ratio": round(precision / 0.995, 4), "goal": 0.995, "held": precision >= 0.995,
        "unit": "",
    }  # fmt: skip


def harm(
    seed: int, *, children: int = CHILDREN, profile: Profile = DEFAULT_PROFILE, model: Model | None = None
) -> Harm:
    """Make one area, link it by the model that ships with every rule on, and look for what must not be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setting: dict[str, Any] = dict(HARDER[seed % len(HARDER)])
        synthesise(folder, children=children, seed=seed, items=False, **setting)
        labelled = quality.read(
            folder / "labelled.csv", folder / "labelled-mapping.toml", truth="person_id", dataset="dataset"
        )
        pairs = {
            kind: list(zip(*pq.read_table(folder / "truth" / f"{kind}.parquet").to_pydict().values(), strict=True))
            for kind in ("severed", "twins")
        }
    held = _linked(labelled, profile, model or default_model(profile))
    mixed = [labels.keys() for labels in held.values() if len(labels) > 1]
    joined = {
        kind: sum(any(one in labels and other in labels for labels in mixed) for one, other in listed)
        for kind, listed in pairs.items()
    }
    sizes = [(sum(labels.values()), list(labels.values())) for labels in held.values()]
    return Harm(
        severed=len(pairs["severed"]),
        rejoined=joined["severed"],
        twins=len(pairs["twins"]),
        merged=joined["twins"],
        said=sum(whole * (whole - 1) // 2 for whole, _ in sizes),
        right=sum(part * (part - 1) // 2 for _, parts in sizes for part in parts),
    )


def _linked(labelled: Labelled, profile: Profile, model: Model) -> dict[str, dict[str, int]]:
    """Of each person formed, the true persons in it and how many records each has there."""
    keys = LinkageKeys.generate(partnership="evaluation", epoch="evaluation")
    persons, households = quality.encode(labelled, keys, profile)
    run = link(
        persons, duplicates=labelled.duplicates, households=households, model=model,
        new_id=map(str, count()).__next__,
    )  # fmt: skip
    held: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for agency, flow, ref, person in zip(
        *(run.clusters[name].to_pylist() for name in run.clusters.column_names), strict=True
    ):
        held[person][labelled.truth[agency, flow, ref].removeprefix("label ")] += 1
    return held
