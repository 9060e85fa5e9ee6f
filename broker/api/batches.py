"""`/v1/flows/{flow}/batches`: how an agency's machine hands in a night."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, StringConstraints

from broker import manifests, receipts, submissions
from broker.agencies import FLOW
from broker.api.forms import Like, OneOf, taken
from broker.dependencies import AgencyDep, BrokerDep, NowDep
from broker.errors import BadDigest, UnsupportedMedia
from broker.reception import Reception
from broker.submissions import Status
from broker.validation import Worker
from broker.wiring import Broker
from linkage.records import MANIFEST_MEDIA_TYPE, TABLE_MEDIA_TYPE, TABLES

router = APIRouter(prefix="/v1/flows/{flow}/batches", tags=["submit"])
flows = APIRouter(prefix="/v1/flows/{flow}", tags=["submit"])
NDJSON = "application/x-ndjson"


Flow = Annotated[str, Path(), Like(FLOW)]
BatchId = Annotated[str, Path(), Like(re.compile("[0-9a-f]{32}"))]


class Commit(BaseModel):
    """Which manifest the sender believes it is committing."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    manifest_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class UndecidedBatch(BaseModel):
    """A batch that is on its way.  `reason` is a code, where there is one."""

    model_config = ConfigDict(from_attributes=True)

    batch: str
    shadow: str
    sequence: int
    kind: str
    state: str
    manifest_sha256: str
    reason: str | None


class FlowStanding(BaseModel):
    """How a flow stands, and on what terms batches are taken."""

    model_config = ConfigDict(from_attributes=True)

    flow: str
    key_epoch: str
    next_epoch: str | None
    state: Literal["CURRENT", "STALE", "NOT_CONNECTED", "PAUSED"]
    expected_by: str
    as_of: datetime | None
    heard_at: datetime | None
    last_sequence: int
    last_manifest_sha256: str
    missing_nights: list[int]
    batches: list[UndecidedBatch]
    terms: dict[str, Any] = {}


class MissingChunk(BaseModel):
    """A chunk that has not arrived."""

    table: str
    chunk: int


class OpenedBatch(BaseModel):
    """A batch that was opened, and what is missing of it."""

    batch: str
    state: str
    chunk_size: int
    missing: list[MissingChunk]


class BatchStatus(BaseModel):
    """Where a batch stands.  `reason` is a code, where there is one."""

    batch: str
    state: str
    missing: list[MissingChunk]
    counts: dict[str, int]
    reason: str | None

    @classmethod
    def of(cls, status: Status) -> BatchStatus:
        missing = [MissingChunk(table=table, chunk=number) for table, number in status.missing]
        return cls(
            batch=status.batch, state=status.state, missing=missing, counts=dict(status.counts), reason=status.reason
        )


def reception_of(broker: Broker) -> Reception:
    """The broker's reception, made once."""
    found = broker.parts.get("reception")
    if not isinstance(found, Reception):
        found = Reception.of(broker.settings, broker.store, broker.keys, broker.trail)
        broker.parts["reception"] = found
    return found


def worker(broker: Broker) -> Callable[[], None]:
    """Start validating what is sealed, beside the requests; returns how to stop it."""
    started = Worker(reception_of(broker))
    broker.parts["intake"] = started
    started.start()
    return started.stop


def _reception(broker: BrokerDep) -> Reception:
    return reception_of(broker)


ReceptionDep = Annotated[Reception, Depends(_reception)]


@flows.get("")
def flow_standing(flow: Flow, caller: AgencyDep, reception: ReceptionDep, now: NowDep) -> FlowStanding:
    """What was taken last, what is on its way, which nights are missed; which forms, codes and sizes are taken."""
    stands = FlowStanding.model_validate(submissions.standing(reception, caller.organisation, flow, at=now))
    return stands.model_copy(update={"terms": submissions.terms(reception)})


@flows.post("/heartbeat", status_code=204)
def heartbeat(flow: Flow, caller: AgencyDep, reception: ReceptionDep, now: NowDep) -> Response:
    """The flow's client is alive, be there anything to send or not; due once a day.  It makes no feed fresher."""
    submissions.heard(reception, caller.organisation, flow, at=now)
    return Response(status_code=204)


@router.post(
    "", status_code=201, responses={201: {"model": OpenedBatch}},
    openapi_extra=taken({MANIFEST_MEDIA_TYPE: {"type": "object", "description": "A manifest's canonical bytes."}}),
)  # fmt: skip
async def open_batch(
    flow: Flow,
    request: Request,
    caller: AgencyDep,
    reception: ReceptionDep,
    now: NowDep,
    idempotency_key: Annotated[str | None, Header(), Like(submissions.KEY)] = None,
    manifest_signature: Annotated[str | None, Header()] = None,
) -> Response:
    """Open a batch for a signed manifest; the same manifest again gets the first answer."""
    _media(request, MANIFEST_MEDIA_TYPE, "application/json")
    await run_in_threadpool(submissions.room, reception, caller.organisation)
    raw = await request.body()
    answer = await run_in_threadpool(
        submissions.open_batch, reception, caller.organisation, flow, raw,
        key=idempotency_key, signature=manifest_signature, at=now,
    )  # fmt: skip
    headers = {"Idempotency-Replayed": "true"} if answer.replayed else {}
    headers |= manifests.farewell(raw)
    return Response(answer.body, answer.status, headers, "application/json")


@router.put(
    "/{batch}/{table}/chunks/{number}", status_code=204,
    openapi_extra=taken({TABLE_MEDIA_TYPE: {"type": "string", "format": "binary"}}),
)  # fmt: skip
async def put_chunk(
    flow: Flow,
    batch: BatchId,
    table: Annotated[str, OneOf(TABLES)],
    number: int,
    request: Request,
    caller: AgencyDep,
    reception: ReceptionDep,
    now: NowDep,
    content_digest: Annotated[str | None, Header(), Like(submissions.DIGEST)] = None,
) -> Response:
    """Take one chunk, streamed to the spool; it is on disk before this answers."""
    _media(request, TABLE_MEDIA_TYPE, "application/octet-stream")
    awaited = await run_in_threadpool(
        submissions.await_chunk, reception, caller.organisation, flow, batch, table, number,
        digest=content_digest, at=now,
    )  # fmt: skip
    writer = awaited.writer
    if writer is None:  # here already: read what is sent, so that the connection can go on
        async for _ in request.stream():
            pass
        return Response(status_code=204)
    with writer:
        async for part in request.stream():
            if writer.size + len(part) > awaited.size:
                raise BadDigest(f"{awaited.place}: more than the {awaited.size} bytes that are due")
            await run_in_threadpool(writer.write, part)
        await run_in_threadpool(submissions.keep_chunk, reception, awaited, at=now)
    return Response(status_code=204)


@router.get("/{batch}")
def show(flow: Flow, batch: BatchId, caller: AgencyDep, reception: ReceptionDep) -> BatchStatus:
    """State, what is missing, counts: where to resume."""
    return BatchStatus.of(submissions.status(reception, caller.organisation, flow, batch))


@router.post("/{batch}/commit", status_code=202)
def commit(
    flow: Flow, batch: BatchId, body: Commit, caller: AgencyDep, reception: ReceptionDep, broker: BrokerDep, now: NowDep
) -> BatchStatus:
    """Seal a batch of which everything is here.  From now on it is not lost."""
    status = submissions.commit(
        reception, caller.organisation, flow, batch, manifest_sha256=body.manifest_sha256, at=now
    )
    beside = broker.parts.get("intake")
    if isinstance(beside, Worker):
        beside.wake()
    return BatchStatus.of(status)


@router.get("/{batch}/receipt")
def receipt(
    flow: Flow,
    batch: BatchId,
    caller: AgencyDep,
    reception: ReceptionDep,
    kind: Literal["received", "verdict"] | None = None,
) -> JSONResponse:
    """The signed receipt, with its proof of inclusion in the log: `received` from `sealed` on, then `verdict`."""
    return JSONResponse(receipts.receipt(reception, caller.organisation, flow, batch, kind))


@router.get("/{batch}/rejections", response_class=StreamingResponse, responses={200: {"content": {NDJSON: {}}}})
def rejections(flow: Flow, batch: BatchId, caller: AgencyDep, reception: ReceptionDep) -> Response:
    """What is wrong with the batch, a JSON object a line: totals, then rows by table, number and code."""
    found = list(receipts.rejections(reception, caller.organisation, flow, batch))
    return StreamingResponse(_lines(found), media_type=NDJSON)


@router.delete("/{batch}", status_code=204)
def withdraw(flow: Flow, batch: BatchId, caller: AgencyDep, reception: ReceptionDep, now: NowDep) -> Response:
    """Withdraw a batch that was not committed."""
    submissions.withdraw(reception, caller.organisation, flow, batch, at=now)
    return Response(status_code=204)


def _lines(found: list[dict[str, Any]]) -> Iterator[bytes]:
    for entry in found:
        yield json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _media(request: Request, *allowed: str) -> None:
    sent = request.headers.get("content-type", allowed[0]).partition(";")[0].strip().lower()
    if sent not in allowed:
        raise UnsupportedMedia(f"header Content-Type: {allowed[0]} is due")
