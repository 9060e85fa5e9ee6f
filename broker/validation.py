"""What becomes of a sealed batch: checked as a whole, then whole in, or not at all.

Whoever validates (a thread of `broker serve`, `broker nightly`) may be killed anywhere: what is not decided is decided
by the next one, and of two that decide at once the second finds it decided.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from broker import clock, epochs
from broker.errors import BrokerError, NotFound, WrongState
from broker.judging import Judged, judge
from broker.keys import Keys
from broker.receipts import HINTS
from broker.reception import Reception, close, flow_of_batch, record
from broker.store import Reading, Transaction
from broker.store.batches import BatchRejectionRow, BatchRow
from broker.store.erasures import Barred, hold_erasures
from broker.store.items import delete_items, in_bulk, insert_items

log = structlog.get_logger()

UNDECIDED: Final = "undecided"


def validate_sealed(reception: Reception, *, stop: threading.Event | None = None) -> dict[str, str]:
    """Decide every sealed batch that can be decided; batch -> state.  A delta whose predecessor is missing waits.

    Also closes batches that nobody committed in time, and clears what a killed process left decrypted.
    """
    reception.spool.sweep()
    _expire(reception)
    decided: dict[str, str] = {}
    again = True
    while again:
        again = False
        with reception.store.reading() as tx:
            rows = tx.all(BatchRow, order=("agency", "flow", "sequence", "id"), state=("sealed", "validating"))
        for row in rows:
            if stop is not None and stop.is_set():
                return decided
            if decided.get(row.id) == UNDECIDED:
                continue
            try:
                decided[row.id] = validate(reception, row.id)
            except Exception as wrong:  # one batch must not keep the others out; it stays sealed, for the next time
                log.error("batch undecided", batch=row.id, agency=row.agency, flow=row.flow, fault=type(wrong).__name__)
                decided[row.id] = UNDECIDED
            # a batch that was let in may be what another one waits for
            again = again or decided[row.id] == "accepted"
    return decided


def validate(reception: Reception, batch: str, *, released_by: str | None = None) -> str:
    """Decide one sealed batch, and the state it is in then: `sealed` if it has to wait for an earlier night.

    `released_by` is the person who looked at a quarantined batch and lets it in: its rows are checked again, its size
    is not.  Accepting writes items, state and event in one transaction.
    """
    from_states = ("sealed", "validating") if released_by is None else ("quarantined",)
    with reception.store.transaction() as tx:
        row = tx.one(BatchRow, id=batch)
        if row is None:
            raise NotFound("there is no such batch")
        if row.state not in from_states:
            return row.state
        if row.state == "sealed":
            row.state = "validating"
            tx.add(row)
    while True:
        with reception.store.reading() as reading:
            before = _order(reading, row)
        judged = judge(reception, row, guarded=released_by is None)
        at = clock.now()
        with reception.store.transaction() as tx:
            held = tx.one(BatchRow, id=batch)
            if held is None or held.state != ("validating" if released_by is None else "quarantined"):
                return held.state if held else "rejected"  # decided meanwhile, by another process
            if _order(tx, held) == before:
                _apply(reception, tx, held, judged, at=at, by=released_by or "")
                break
        # Another night of this flow was decided while this one was judged: its order must be judged anew.
    if judged.state in ("rejected", "superseded"):
        reception.spool.drop(batch)
    reception.trail.wake()
    if judged.code == "gap":
        log.warning("batch waits for an earlier night", agency=row.agency, flow=row.flow, batch=row.id)
    log.info("batch decided", agency=row.agency, flow=row.flow, batch=row.id, state=judged.state)
    return judged.state


def release(reception: Reception, batch: str, *, by: str) -> str:
    """Let in a quarantined batch that a person has looked at; the state it is in then.  Raises WrongState."""
    with reception.store.reading() as tx:
        row = tx.one(BatchRow, id=batch)
    if row is None or row.state != "quarantined":
        raise WrongState("there is no such batch in quarantine")
    return validate(reception, batch, released_by=by)


def _order(reading: Reading, row: BatchRow) -> tuple[int, str, str]:
    """What the order of a flow's nights is judged by: the last that was taken in; and how the batch's epoch stands."""
    flow = flow_of_batch(reading, row)
    return flow.last_sequence, flow.last_manifest_sha256, epochs.state_of(reading, row.shadow)


def _expire(reception: Reception) -> None:
    at = clock.now()
    with reception.store.reading() as tx:
        late = [row.id for row in tx.all(BatchRow, state="open") if row.expires_at <= at]
    for batch in late:
        with reception.store.transaction() as tx:
            row = tx.one(BatchRow, id=batch, state="open")
            if row is not None:
                close(reception, tx, row, "expired", at=at)
        reception.spool.drop(batch)


def _apply(reception: Reception, tx: Transaction, row: BatchRow, judged: Judged, *, at: datetime, by: str) -> None:
    totals = [
        {"table": table, "column": column, "code": code, "count": count}
        for (table, column, code), count in sorted(judged.totals.items())
    ]
    row.verdict = {"code": judged.code, "state": judged.state, "totals": totals, "deletes": dict(judged.deletes)}
    if judged.state == "sealed":  # it waits: not a verdict
        row.state = "sealed"
        tx.add(row)
        return
    row.state, row.decided_at = judged.state, at
    if judged.counts:
        row.counts = dict(judged.counts)
    for old in tx.all(BatchRejectionRow, batch=row.id):
        tx.delete(old)
    for position, (table, number, column, code) in enumerate(judged.findings):
        tx.add(
            BatchRejectionRow(
                batch=row.id, position=position, table=table, row=number or None, column=column or None, code=code,
                hint=HINTS[code],
            )
        )  # fmt: skip
    if judged.state == "accepted" and row.shadow:
        epochs.take_in(tx, row)
    elif judged.state == "accepted":
        _take_in(reception.keys, tx, row, judged, at=at)
    word = judged.state if judged.state != "superseded" else "accepted"
    row.verdict_event = record(
        reception, tx, row, f"submission.{word}", at=at, outcome=judged.code or judged.state, by=by
    )
    tx.add(row)


def _take_in(keys: Keys, tx: Transaction, row: BatchRow, judged: Judged, *, at: datetime) -> None:
    """Items in, the flow moved on, an earlier night that this one replaces superseded: all in this transaction.

    Items of whoever was erased stay out, and the agency is not told.  Raises Conflict if another epoch was put in
    service since it was judged.
    """
    hold_erasures(tx)
    epochs.check_open(tx, row)
    items: Iterable[pa.RecordBatch] = judged.items
    if barred := Barred.of(tx):
        items = (_without(some, keys, barred, row, at) for some in judged.items)
    if row.kind == "full":
        with in_bulk(tx, sum(some.num_rows for some in judged.items)):
            delete_items(tx, row.agency, row.flow)
            insert_items(tx, items, agency=row.agency, flow=row.flow, batch=row.id)
        for earlier in tx.all(BatchRow, agency=row.agency, flow=row.flow, shadow="", state="accepted"):
            if earlier.id != row.id:
                earlier.state = "superseded"
                tx.add(earlier)
    else:
        changed = [*judged.gone_items, *(ref for some in judged.items for ref in some["item_ref"].to_pylist())]
        delete_items(tx, row.agency, row.flow, item_refs=changed)
        delete_items(tx, row.agency, row.flow, record_refs=judged.gone_records)
        insert_items(tx, items, agency=row.agency, flow=row.flow, batch=row.id)
    flow = flow_of_batch(tx, row)
    flow.last_sequence, flow.last_manifest_sha256, flow.last_batch = row.sequence, row.manifest_sha256, row.id
    flow.last_accepted_at, flow.as_of = at, row.extracted_at
    tx.add(flow)


def _without(items: pa.RecordBatch, keys: Keys, barred: Barred, row: BatchRow, at: datetime) -> pa.RecordBatch:
    refs = items["record_ref"].unique().to_pylist()
    out = [ref for ref in refs if barred.out(keys.subject_index(f"{row.agency}/{row.flow}/{ref}"), at)]
    return items.filter(pc.invert(pc.is_in(items["record_ref"], pa.array(out, pa.string()))))


class Worker:
    """A thread that validates what is sealed: woken by a commit, and by itself every minute for what waits."""

    EVERY_SECONDS: Final = 60.0

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Start, with what an earlier process left undecided."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def stop(self) -> None:
        """End after the batch at hand."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                validate_sealed(self._reception, stop=self._stop)
            except (BrokerError, OSError) as wrong:  # the store or disk is away: later
                log.error("intake failed", fault=type(wrong).__name__)
            except Exception as wrong:  # the thread must outlive any fault; the batch stays undecided
                log.error("intake failed", fault=type(wrong).__name__)
            self._wake.wait(self.EVERY_SECONDS)
            self._wake.clear()
