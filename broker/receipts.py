"""What the sender of a batch is told in the end: signed receipts, and what is wrong with which of its own rows.

It learns what is wrong with the form of what it sent, and nothing about anybody else's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, cast

import rfc8785

from broker.errors import NotFound
from broker.reception import Reception, batch_of, declared
from broker.store.batches import BatchRejectionRow, BatchRow
from broker.trail import EntryRef
from broker.witnesses import with_witnesses

ReceiptKind = Literal["received", "verdict"]

HINTS: Final[Mapping[str, str]] = {
    "too_large": "the table passes a limit, or does not fit into memory when it is read",
    "unreadable": "the file is not whole Parquet with text in UTF-8",
    "unknown_column": "remove the column: only those of the wire format are taken",
    "missing_column": "add the column: it may be null, and must be there",
    "repeated_column": "a column stands there twice",
    "wrong_type": "the column has another type than the wire format's",
    "wrong_order": "the columns are in another order than the wire format's",
    "wrong_row_count": "the file holds another number of rows than the manifest says",
    "wrong_digest": "the bytes are not those that the manifest's digests are of",
    "empty_table": "a full batch holds at least one person",
    "row_too_large": "a row passes 16 KiB",
    "expands_too_much": "the table is more than 50 times as large when it is read",
    "missing": "a value is due here",
    "unknown_value": "the value is not of the closed list of this column",
    "bad_ref": "a keyed token is due: 16 to 64 hex digits",
    "bad_date": "the date is too long ago or too far ahead",
    "bad_period": "the end is before the start",
    "bad_number": "the number is not between 0 and 1,000,000,000",
    "bad_endpoint": "a household has a token and no second record; every other type has two different records",
    "incomplete_filter": "a filter has eight words and a count, or none of them, and is not empty",
    "wrong_popcount": "the count is not that of the filter's bits",
    "delete_in_full": "a full batch deletes by leaving out",
    "duplicate_ref": "the ref stands there twice, or is both kept and deleted",
    "inconsistent_record": "rows of one record differ in what the person is",
    "too_many_alternatives": "a record has more than 16 rows",
    "too_many_identifiers": "a record has more than 8 different identifiers",
    "unresolved_ref": "no person of this batch has this ref",
    "unknown_category": "the category is not in the vocabulary",
    "never_ingest": "this must never be sent: remove it at the source and tell your data steward",
    "unknown_code": "the code is not on the category's list",
    "code_not_expected": "no code belongs here",
    "number_not_expected": "the category takes no number",
    "retention_over": "the item is past its own retention",
}
"""What to do about each code of a finding."""


def receipt(reception: Reception, agency: str, flow: str, batch: str, kind: ReceiptKind | None) -> dict[str, Any]:
    """The receipt of a batch, received or verdict (the newest unless told), once the log covers it.

    Asked for again later, it is under a checkpoint that witnesses have cosigned, where one covers it.

    It is a log receipt (`event_id`, `log`, `opening`, `proof`) with `batch`, `kind`, `state`, and `signed`: the
    broker's JWS over the manifest's digest, counts, sequence, log index and time.  Raises NotFound before there is one,
    LogUnavailable if no checkpoint covers it in time.
    """
    with reception.store.reading() as tx:
        row = batch_of(tx, agency, flow, batch)
    which: ReceiptKind = kind or ("verdict" if row.verdict_event else "received")
    event = row.verdict_event if which == "verdict" else row.received_event
    at = row.decided_at if which == "verdict" else row.sealed_at
    if event is None or at is None:
        raise NotFound(f"there is no receipt of kind {which} yet")
    logged = reception.trail.receipt(EntryRef(event))
    with reception.store.reading() as tx:
        logged = with_witnesses(tx, logged)
    state = _verdict_of(row) if which == "verdict" else "sealed"
    body = {
        "kind": which, "agency": agency, "flow": flow, "batch": batch, "sequence": row.sequence, "state": state,
        "manifest_sha256": row.manifest_sha256, "counts": declared(row), "at": at.isoformat().replace("+00:00", "Z"),
        "event": event, "log": {"origin": logged.proof.signed.checkpoint.origin, "index": logged.proof.index},
    }  # fmt: skip
    signed = reception.keys.sign(rfc8785.dumps(cast("Any", body)))
    return {**logged.to_json(), "batch": batch, "kind": which, "state": state, "signed": signed}


def rejections(reception: Reception, agency: str, flow: str, batch: str) -> Iterator[dict[str, Any]]:
    """What is wrong with a batch: totals first, then the rows that are listed.  Places and codes, never a value."""
    with reception.store.reading() as tx:
        row = batch_of(tx, agency, flow, batch)
        rows = tx.all(BatchRejectionRow, order=("position",), batch=batch)
    verdict = row.verdict or {}
    yield {"batch": batch, "state": row.state, "reason": verdict.get("code"), "totals": verdict.get("totals", [])}
    for found in rows:
        yield {
            "table": found.table, "row": found.row, "column": found.column, "code": found.code, "hint": found.hint,
            "severity": "error",
        }  # fmt: skip


def _verdict_of(row: BatchRow) -> str:
    """The state that the verdict put the batch into, whatever became of it since."""
    return str((row.verdict or {}).get("state", row.state))
