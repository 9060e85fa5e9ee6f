"""The opened run: how organisations disagree on a family, as far as those who ask may know."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pyarrow as pa

from broker.linked import LinkedArea, Stated
from linkage.matching.families import FAMILY, Known
from linkage.matching.incremental import PAIRS_SCHEMA
from linkage.matching.link import CLUSTERS
from linkage.matching.model import default_model
from linkage.matching.search import Index
from tests.linkage.matching.people import HEALTH, SOCIAL_CARE, Someone, encoded

WOMAN, CHILD = Known(born=(1985, 1985), sex="F"), Known(born=(2015, 2015), sex="M")
EDGES = [
    ("ann", "kit", "birth_parent", *SOCIAL_CARE, True, None, None),
    ("bea", "kit", "birth_parent", *HEALTH, False, None, None),
    ("dee", "kit", "carer", *SOCIAL_CARE, False, None, date(2025, 1, 1)),
    ("dee", "kit", "carer", *HEALTH, False, None, None),
    ("ann", "kit", "household", *HEALTH, None, None, None),
]


def area() -> LinkedArea:
    names = {name for edge in EDGES for name in edge[:2]}
    persons = encoded(Someone(ref=name) for name in sorted(names))
    clusters = pa.Table.from_pylist(
        [{"agency": agency, "flow": flow, "record_ref": ref, "person_id": ref}
         for agency, flow, ref in zip(*(persons[name].to_pylist() for name in CLUSTERS.names[:3]), strict=True)],
        schema=CLUSTERS,
    )  # fmt: skip
    family = pa.Table.from_pylist([dict(zip(FAMILY.names, edge, strict=True)) for edge in EDGES], schema=FAMILY)
    index = Index(persons, clusters, family, default_model("guarded-3"))
    return LinkedArea(run="r", index=index, persons=persons, pairs=PAIRS_SCHEMA.empty_table(), clusters=clusters)


def conflicts(*shown: str, told: Callable[[Stated], bool] = lambda _: True) -> dict[str, tuple[str, ...]]:
    known = {"kit": CHILD} | dict.fromkeys(shown, WOMAN)
    return {name: codes for name, codes in area().conflicts("kit", known, told).items() if codes}


def test_two_birth_mothers_and_a_carer_who_has_and_has_not_ceased_to_be_one() -> None:
    assert conflicts("ann", "bea", "dee") == {
        "ann": ("parents_differ",), "bea": ("parents_differ",), "dee": ("ended_or_current",),
    }  # fmt: skip


def test_who_is_not_shown_and_what_is_not_told_contradicts_nothing() -> None:
    assert conflicts("ann", "dee") == {"dee": ("ended_or_current",)}
    assert conflicts("ann", "bea", "dee", told=lambda stated: (stated.source, stated.flow) == SOCIAL_CARE) == {}
