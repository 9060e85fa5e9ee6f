"""What a run counted, and what of it must never be served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import BrokerError
from broker.gathering import Inputs
from broker.store.runs import LinkRunRow
from linkage.matching.link import Linkage

WARN_CHILDREN: Final = 150_000  # children under one key and epoch (linkage.md section 1.8)
MOST_CHILDREN: Final = 200_000
RATE_BAND: Final = 0.15  # share of records that share a person, against the run in service
RECORDS_BAND: Final = 0.50
ENOUGH: Final = 200  # records: below this no rate is judged


class RunRefused(BrokerError):
    """A gate refused a run's result; the run before stays in service.  `code` says which gate."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_input(persons: pa.Table) -> None:
    """Raise RunRefused if there is nobody to link."""
    if persons.num_rows == 0:
        raise RunRefused("empty_input", "no flow holds anybody: nothing to link")


def counts_of(persons: pa.Table, linkage: Linkage, inputs: Inputs) -> dict[str, Any]:
    """Numbers of a run; nothing about one person."""
    sizes = linkage.clusters["person_id"].value_counts().field("counts").to_pylist()
    children = persons.filter(pc.field("person_role") == "child").select(["agency", "flow", "record_ref"])
    keys = ["agency", "flow", "record_ref"]
    of_children = linkage.clusters.join(children.group_by(keys).aggregate([]), keys=keys, join_type="inner")
    report = linkage.report
    return {
        "inputs": inputs.fingerprint,
        "flows": sorted("/".join(flow) for flow in inputs.sources),
        "batches": len(inputs.batches),
        "records": report.records,
        "rows": report.rows,
        "persons": report.persons,
        "children": len(of_children["person_id"].unique()),
        "linked_records": sum(size for size in sizes if size > 1),
        "candidate_pairs": report.candidate_pairs,
        "match_pairs": report.match_pairs,
        "possible_pairs": report.possible_pairs,
        "reviews": report.reviews,
        "capped_blocks": dict(report.capped_blocks),
        "over_shared": dict(report.over_shared),
        "merges": sum(event.kind == "merge" for event in report.events),
        "splits": sum(event.kind == "split" for event in report.events),
    }


def check(counts: Mapping[str, Any], before: LinkRunRow | None, linkage: Linkage, *, exception: bool) -> None:
    """Raise RunRefused for a result that must not be served."""
    if linkage.clusters.num_rows != counts["records"] or not counts["records"]:
        raise RunRefused("incomplete", "not every record is in the result")
    if linkage.report.severed_meetings:
        raise RunRefused("severed_joined", "a severed pair shares a person")
    if counts["children"] > MOST_CHILDREN and not exception:
        raise RunRefused("population", f"more than {MOST_CHILDREN:,} children are under one key and epoch")
    if before is None or before.counts.get("flows") != counts["flows"] or before.counts["records"] < ENOUGH:
        return
    was, now = (found["linked_records"] / found["records"] for found in (before.counts, counts))
    if abs(now - was) > RATE_BAND:
        raise RunRefused("link_rate", f"{now:.0%} of records share a person, against {was:.0%} in service")
    if abs(counts["records"] / before.counts["records"] - 1) > RECORDS_BAND:
        raise RunRefused("records", "the number of records is another order than in service")
