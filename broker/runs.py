"""The row of a run: claimed under a lease, said how far it is, failed or put in service by one transaction."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final, Protocol

import structlog

from audit.events import Event, Json
from broker import clock, models, splits
from broker.errors import Conflict, WrongState
from broker.gathering import Inputs
from broker.keys import Keys
from broker.settings import Settings
from broker.store import Store, Transaction
from broker.store.batches import BatchRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.trail import Trail, new_event_id
from broker.vault import Vault
from linkage.matching.link import Linkage
from linkage.matching.model import Model

log = structlog.get_logger()

LEASE: Final = timedelta(minutes=30)


class Site(Protocol):
    """What a run needs of the broker."""

    @property
    def settings(self) -> Settings: ...
    @property
    def store(self) -> Store: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def vault(self) -> Vault: ...
    @property
    def trail(self) -> Trail: ...


def claim(
    site: Site, inputs: Inputs, before: LinkRunRow | None, *, night: date, at: datetime, why: str = "nightly"
) -> LinkRunRow:
    """Begin a run, to follow the one in service."""
    row = LinkRunRow(
        id=new_event_id(),
        night=night,
        state="running",
        stage="gather",
        previous=before.id if before else None,
        why=why,
        segments={},
        counts={"inputs": inputs.fingerprint},
        holder=_holder(),
        lease_until=clock.now() + LEASE,
        started_at=at,
    )
    with site.store.transaction() as tx:
        tx.add(row)
        _record(site, tx, "linkage.run_started", row, outcome="running", batches=[b.id for b in inputs.batches][:50])
    return row


def stage(site: Site, row: LinkRunRow, stage: str) -> None:
    """Say how far a run is, and keep its lease.  Raises Conflict if another has taken it over."""
    with site.store.transaction() as tx:
        held = _still_ours(tx, row)
        held.stage, held.lease_until = stage, clock.now() + LEASE
        tx.add(held)


def keep_model(
    site: Site, row: LinkRunRow, model: Model, compared: models.Comparison, *, refused: bool, at: datetime
) -> None:
    """Keep a model that was trained beside the one in service, and record how the two compare."""
    with site.store.transaction() as tx:
        kept = models.keep(tx, model, why=row.why if row.why == "retrain" else "scheduled", run=row.id, at=at,
                           compared=compared)  # fmt: skip
        if kept.state == "shadow" and refused:
            kept.state = "refused"
            tx.add(kept)
        was, would = (round(1000 * rate) for rate in compared["link_rate"])
        _record(
            site, tx, "linkage.model_compared", row, outcome="refused" if refused else "passed",
            model_sha256=compared["models"][1], against_sha256=compared["models"][0],
            linked_per_mille=[was, would], persons_merged=compared["persons_merged"],
            persons_split=compared["persons_split"], pairs_moved=compared["pairs_moved"],
        )  # fmt: skip


def put_in_service(
    site: Site,
    row: LinkRunRow,
    inputs: Inputs,
    *,
    segments: Mapping[str, str],
    counts: Mapping[str, Any],
    linkage: Linkage,
    accepted_by: str | None = None,
    beside: Callable[[Transaction, LinkRunRow], None] = lambda *_: None,
) -> None:
    """Put a run in service: pointer, batches, run, model, what became of persons and event, in one transaction.

    `beside` does in it what else must be so from then on, or raises, and nothing has changed.
    """
    at = clock.now()
    model_sha256 = models.digest_of(linkage.model)
    with site.store.transaction() as tx:
        held = _still_ours(tx, row)
        held.segments, held.counts, held.model_sha256 = dict(segments), dict(counts), model_sha256
        held.state, held.stage, held.finished_at, held.published_at = "published", "", at, at
        tx.add(held)
        beside(tx, held)
        pointer = tx.one(PublishedRow)
        if pointer is None:
            pointer = PublishedRow(id=1, run=held.id, version=1, at=at)
        else:
            if pointer.run != row.previous:
                raise Conflict("another run was published meanwhile")
            pointer.run, pointer.version, pointer.at = held.id, pointer.version + 1, at
        tx.flush()
        tx.add(pointer)
        _batches_in_service(tx, inputs, held.id)
        for older in tx.all(LinkRunRow, state="published"):
            if older.id not in (held.id, held.previous):
                older.state = "retired"
                tx.add(older)
        models.put_in_service(tx, linkage.model, run=held.id, at=at, accepted_by=accepted_by)
        if accepted_by is not None:
            _record(
                site, tx, "linkage.model_accepted", held, outcome="accepted", by=accepted_by, model_sha256=model_sha256
            )
        splits.keep(
            site.trail, tx, linkage.report.events, run=held.id, seq=pointer.version, at=at,
            who={"organisation": site.settings.partnership, "method": "nightly"},
        )  # fmt: skip
        _record(
            site, tx, "linkage.published", held, outcome="published", model_sha256=model_sha256,
            counts={name: counts[name] for name in ("records", "persons", "match_pairs", "reviews")},
        )  # fmt: skip


def fail(site: Site, row: LinkRunRow, code: str) -> None:
    """Close a run that came to nothing, if it is still ours."""
    with site.store.transaction() as tx:
        held = tx.one(LinkRunRow, id=row.id)
        if held is not None and held.state in ("running", "built") and held.fence == row.fence:
            held.state, held.failure, held.finished_at = "failed", code, clock.now()
            tx.add(held)
            _record(site, tx, "linkage.run_failed", held, outcome=code)
    log.error("linkage run failed", run=row.id, code=code)


def discard_unfinished(site: Site) -> None:
    """Close what a killed run left: ours at once (we hold the machine's lock), another machine's when its lease ends.

    Raises WrongState while another machine's run has its lease.
    """
    host = socket.gethostname()
    with site.store.transaction() as tx:
        for row in tx.all(LinkRunRow, state=("running", "built")):
            if row.holder.rpartition(":")[0] != host and row.lease_until > clock.now():
                raise WrongState("a run of another machine is at work")
            row.state, row.failure, row.finished_at, row.fence = "failed", "killed", clock.now(), row.fence + 1
            tx.add(row)
            _record(site, tx, "linkage.run_failed", row, outcome="killed")


def _holder() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _still_ours(tx: Transaction, row: LinkRunRow) -> LinkRunRow:
    held = tx.one(LinkRunRow, id=row.id)
    if held is None or held.fence != row.fence or held.state not in ("running", "built"):
        raise Conflict("another run has taken over")
    return held


def _batches_in_service(tx: Transaction, inputs: Inputs, run_id: str) -> None:
    for batch in inputs.batches:
        held = tx.one(BatchRow, id=batch.id)
        if held is None or held.state not in ("accepted", "superseded"):
            raise Conflict("a batch of this run has changed meanwhile")
        for earlier in tx.all(BatchRow, agency=batch.agency, flow=batch.flow, state="linked"):
            if batch.kind == "full" and (earlier.shadow != batch.shadow or earlier.sequence < batch.sequence):
                earlier.state = "superseded"
                tx.add(earlier)
        held.linked_run = run_id
        if held.state == "accepted":  # else a later night came in while we were linking
            held.state = "linked"
        tx.add(held)


def _record(
    site: Site, tx: Transaction, type_: str, row: LinkRunRow, *, outcome: str, by: str = "", **what: Json
) -> None:
    who = {"role": "OPERATOR", "person": by, "method": "command"} if by else {"method": "nightly"}
    event = Event(
        id=new_event_id(),
        type=type_,
        who={"organisation": site.settings.partnership, **who},
        what={"run": row.id, "night": row.night.isoformat(), "outcome": outcome, **what},
        why={},
        detail={},
    )
    site.trail.record(tx, event)
