"""Where batches come in: what that needs, and how each step is written down.

The agency is the credential's, never the payload's: a batch is looked up by whose it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, cast

import rfc8785

from agreements.vocabulary import codes_for_agencies
from audit.events import Event
from broker.errors import NotFound, UnknownFlow
from broker.keys import Keys
from broker.settings import Settings
from broker.spool import Spool
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyFlowRow
from broker.store.batches import BatchRow
from broker.trail import Trail, new_event_id
from linkage.matching.findings import Limits
from linkage.matching.rules import Codes
from linkage.records import Manifest, Profile


@dataclass(frozen=True, kw_only=True)
class Reception:
    """What taking in batches needs, and the terms on which they are taken."""

    store: Store
    keys: Keys
    trail: Trail
    spool: Spool
    profile: Profile
    codes: Codes
    codes_sha256: str
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, settings: Settings, store: Store, keys: Keys, trail: Trail) -> Reception:
        """The reception of one broker, under the vocabulary it was built with."""
        codes = codes_for_agencies()
        return cls(
            store=store,
            keys=keys,
            trail=trail,
            spool=Spool(settings.data_dir / "spool"),
            profile=settings.profile,
            codes=cast("Codes", codes),
            codes_sha256=sha256(rfc8785.dumps(codes)).hexdigest(),
            limits=Limits(checking_memory=f"{max(settings.query_memory_mb, 256)}MB"),
        )


def batch_of(tx: Reading, agency: str, flow: str, batch: str) -> BatchRow:
    """A batch of this agency and flow.  Raises NotFound, whether there is none or it is another's."""
    row = tx.one(BatchRow, id=batch, agency=agency, flow=flow)
    if row is None:
        raise NotFound("there is no such batch")
    return row


def flow_of_batch(tx: Reading, row: BatchRow) -> AgencyFlowRow:
    """The flow that a batch belongs to.  Raises UnknownFlow."""
    flow = tx.one(AgencyFlowRow, agency=row.agency, flow=row.flow)
    if flow is None:
        raise UnknownFlow("this agency has no flow of this name")
    return flow


def declared(row: BatchRow) -> dict[str, int]:
    """Rows of each table as the manifest says."""
    return {table: entry.rows for table, entry in Manifest.parse(row.manifest).tables.items()}


def record(
    reception: Reception, tx: Transaction, row: BatchRow, type_: str, *, at: datetime, outcome: str, by: str = ""
) -> str:
    """Record a step of a batch in the log; the event's id.  `by` is the person who caused it, if one did."""
    who = {"organisation": row.agency, **({"person": by} if by else {})}
    what: dict[str, Any] = {
        "batch": row.id, "flow": row.flow, "sequence": row.sequence, "kind": row.kind, "outcome": outcome,
        "manifest_sha256": row.manifest_sha256, "rows": declared(row),
        "agreements": list(Manifest.parse(row.manifest).agreements), **({"epoch": row.shadow} if row.shadow else {}),
    }  # fmt: skip
    event = Event(id=new_event_id(), type=type_, who=who, what=what, why={}, detail={})
    return reception.trail.record(tx, event, at=at).event_id


def close(reception: Reception, tx: Transaction, row: BatchRow, code: str, *, at: datetime) -> None:
    """Close a batch that was never committed, and say why; its night's number is free again."""
    row.state, row.decided_at, row.verdict = "rejected", at, {"code": code, "state": "rejected"}
    row.verdict_event = record(reception, tx, row, "submission.withdrawn", at=at, outcome=code)
    tx.add(row)
