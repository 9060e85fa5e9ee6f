"""Records of many agencies to persons: pair scores, bands, clusters with stable ids, and what a person must look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from linkage.matching.model import Model
from linkage.matching.overrides import Overrides

PAIRS: Final = pa.schema(
    [
        ("agency_l", pa.string()),
        ("flow_l", pa.string()),
        ("record_ref_l", pa.string()),
        ("agency_r", pa.string()),
        ("flow_r", pa.string()),
        ("record_ref_r", pa.string()),
        ("weight", pa.float64()),  # log2 of the odds by the model, prior included
        ("probability", pa.float64()),
        ("band", pa.string()),  # "match" or "possible"
        ("upper", pa.bool_()),  # clears the higher bar: may be shown at summary, and detail asked for
        ("rule", pa.string()),  # why it is so: "identifier", "two_fields", or what held it: see HELD
        ("agreed", pa.list_(pa.string())),
        ("differs", pa.list_(pa.string())),
    ]
)
"""One row a pair of records that reached `possible` or more."""
CLUSTERS: Final = pa.schema(
    [("agency", pa.string()), ("flow", pa.string()), ("record_ref", pa.string()), ("person_id", pa.string())]
)
"""Every record, once, and whose it is."""
REVIEWS: Final = pa.schema([*PAIRS, pa.field("reason", pa.string())])
"""Pairs a link reviewer should look at: uncertain, held by a rule, or dropped because two fitted equally well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """Persons that became one, or one that became several, since the previous run."""

    kind: str  # "merge" or "split"
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Counts of one run; nothing about one person."""

    records: int
    rows: int
    candidate_pairs: int
    match_pairs: int
    possible_pairs: int
    reviews: int
    persons: int
    capped_blocks: Mapping[str, int]  # blocking token -> blocks over the cap, which were skipped
    over_shared: Mapping[str, int]  # identifier -> numbers that carried no weight, as too many records hold them
    severed_meetings: int  # severed pairs that share a person: never anything but 0
    events: tuple[ClusterEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linkage:
    """What one run found."""

    pairs: pa.Table
    clusters: pa.Table
    reviews: pa.Table
    model: Model
    report: Report


def link(
    persons: pa.Table,
    *,
    duplicates: AbstractSet[tuple[str, str]] = frozenset(),
    model: Model | None = None,
    previous: pa.Table | None = None,
    overrides: Overrides | None = None,
    households: pa.Table | None = None,
    new_id: Callable[[], str],
    seed: int = 1,
    memory_limit: str = "3GB",
    threads: int = 2,
) -> Linkage:
    """Which records are one person, by encodings alone.

    `persons` has the wire's columns without `op`, and `agency` and `flow`; several rows of one record are its
    alternatives.  `duplicates` names the (agency, flow) that may hold a person twice.  Without a model one is trained
    on these rows.  `previous` is the last run's clusters, from which persons keep their ids; `new_id` names new ones.
    `households` are relationships of the wire (with `agency` and `flow`), of which only households are read.
    The same rows in another order give the same partition.
    """
    raise NotImplementedError
