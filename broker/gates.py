"""What a run counted, and what of it must never be served."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import BrokerError
from broker.gathering import Inputs
from broker.store.runs import LinkRunRow
from linkage.matching.facts import Facts
from linkage.matching.link import Linkage
from linkage.matching.members import Placed
from linkage.matching.overrides import RecordKey
from linkage.matching.rates import RECORD, rates_by_kind

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


def counts_of(facts: Facts, linkage: Linkage, inputs: Inputs, placed: Placed) -> dict[str, Any]:
    """Numbers of a run; nothing about one person.  `facts` are of its rows, `placed` whose these are."""
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
        "children": _children(facts, placed),
        "linked_records": placed.members.sharing(),
        "candidate_pairs": report.candidate_pairs,
        "match_pairs": report.match_pairs,
        "possible_pairs": report.possible_pairs,
        "reviews": report.reviews,
        "capped_blocks": dict(report.capped_blocks),
        "over_shared": dict(report.over_shared),
        "merges": sum(event.kind == "merge" for event in report.events),
        "splits": sum(event.kind == "split" for event in report.events),
    }


def _children(facts: Facts, placed: Placed) -> int:
    """How many persons have a record that says it is a child's."""
    kinds = pc.fill_null(pc.equal(facts.kinds["person_role"], "child"), False).to_numpy()
    child = np.zeros(len(placed.members.people), np.bool_)
    child[placed.members.person[placed.record[kinds[facts.of] & (placed.record >= 0)]]] = True
    return int(child.sum())


def rates_of(facts: Facts, placed: Placed, looked_after: AbstractSet[RecordKey], *, year: int) -> list[dict[str, Any]]:
    """How often records of each group share a person with another flow's, small groups hidden: `rates.RATES`."""
    marked = pa.table({name: pa.array([key[n] for key in looked_after], pa.string()) for n, name in enumerate(RECORD)})
    known = np.setdiff1d(placed.members.places(marked), [-1])
    found: list[dict[str, Any]] = rates_by_kind(facts, placed, {"looked_after": known}, year=year).to_pylist()
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
    if len(linkage.person) != counts["records"] or not counts["records"]:
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
