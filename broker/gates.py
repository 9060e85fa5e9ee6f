"""What a run counted, and what of it must never be served."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import BrokerError
from broker.gathering import Inputs
from broker.models import linked_records
from broker.store.runs import LinkRunRow
from linkage.matching.link import Linkage
from linkage.matching.overrides import RecordKey
from linkage.matching.rates import RECORD, groups_of, rates

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
    report = linkage.report
    return {
        "inputs": inputs.fingerprint,
        "flows": sorted("/".join(flow) for flow in inputs.sources),
        "duplicates": sorted("/".join(flow) for flow in inputs.duplicates),
        "batches": len(inputs.batches),
        "records": report.records,
        "rows": report.rows,
        "compared": report.compared,
        "persons": report.persons,
        "children": _children(persons, linkage.clusters),
        "linked_records": linked_records(linkage.clusters),
        "candidate_pairs": report.candidate_pairs,
        "match_pairs": report.match_pairs,
        "possible_pairs": report.possible_pairs,
        "reviews": report.reviews,
        "capped_blocks": dict(report.capped_blocks),
        "over_shared": dict(report.over_shared),
        "merges": sum(event.kind == "merge" for event in report.events),
        "splits": sum(event.kind == "split" for event in report.events),
    }


def _children(persons: pa.Table, clusters: pa.Table) -> int:
    """How many persons have a record that says it is a child's."""
    children = persons.select([*RECORD, "person_role"]).filter(pc.equal(persons["person_role"], "child"))
    ids = []
    for flow in clusters.select(["agency", "flow"]).group_by(["agency", "flow"]).aggregate([]).to_pylist():
        here = [
            table.filter(pc.and_(pc.equal(table["agency"], flow["agency"]), pc.equal(table["flow"], flow["flow"])))
            for table in (clusters, children)
        ]
        known = pc.is_in(here[0]["record_ref"], value_set=here[1]["record_ref"].combine_chunks())
        ids.append(here[0]["person_id"].filter(known).combine_chunks())
    return len(pc.unique(pa.concat_arrays(ids))) if ids else 0


def rates_of(
    persons: pa.Table, clusters: pa.Table, looked_after: AbstractSet[RecordKey], *, year: int
) -> list[dict[str, Any]]:
    """How often records of each group share a person with another flow's, small groups hidden: `rates.RATES`."""
    groups = groups_of(persons, year=year)
    marked = pa.table(
        {name: pa.array([key[n] for key in sorted(looked_after)], pa.string()) for n, name in enumerate(RECORD)}
        | {"looked_after": pa.array(["yes"] * len(looked_after), pa.string())}
    )
    groups = groups.join(marked, list(RECORD))
    groups = groups.set_column(
        groups.column_names.index("looked_after"), "looked_after", pc.fill_null(groups["looked_after"], "no")
    )
    found: list[dict[str, Any]] = rates(clusters, groups).to_pylist()
    return found


def check(
    counts: Mapping[str, Any],
    before: LinkRunRow | None,
    linkage: Linkage,
    *,
    exception: bool,
    accepted: bool = False,
) -> None:
    """Raise RunRefused for a result that must not be served.  `accepted`: a person has taken in its link rate."""
    if linkage.clusters.num_rows != counts["records"] or not counts["records"]:
        raise RunRefused("incomplete", "not every record is in the result")
    if linkage.report.severed_meetings:
        raise RunRefused("severed_joined", "a severed pair shares a person")
    if counts["children"] > MOST_CHILDREN and not exception:
        raise RunRefused("population", f"more than {MOST_CHILDREN:,} children are under one key and epoch")
    if before is None or before.counts.get("flows") != counts["flows"] or before.counts["records"] < ENOUGH:
        return
    was, now = (found["linked_records"] / found["records"] for found in (before.counts, counts))
    if abs(now - was) > RATE_BAND and not accepted:
        raise RunRefused("link_rate", f"{now:.0%} of records share a person, against {was:.0%} in service")
    if abs(counts["records"] / before.counts["records"] - 1) > RECORDS_BAND:
        raise RunRefused("records", "the number of records is another order than in service")
