"""The public log (C2SP tlog-tiles), and a caller's own proofs.

Checkpoint, tiles and entry bundles give away count and time only, so anyone may fetch all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from fastapi.responses import PlainTextResponse, Response

from audit.events import SHOWN_TO_ASKER
from audit.tiles import ENTRIES, Tile, TileUnreadable
from broker import reports, shards, witnesses
from broker.api.forms import Like
from broker.callers import Caller
from broker.dependencies import BrokerDep, CallerDep, NowDep
from broker.errors import NotFound
from broker.store.log import EventRow
from broker.store.sequence import SqlTiles, newest_checkpoint
from broker.store.shards import every_shard, shard_named
from broker.trail import EntryRef
from broker.wiring import Broker

HASHES: Final = "application/octet-stream"
BUNDLE: Final = "application/vnd.c2sp.entry-bundle"
FOR_EVER: Final = "public, max-age=31536000, immutable"

public = APIRouter(prefix="/audit/log/{shard}", tags=["log"])
all_shards = APIRouter(prefix="/audit/shards", tags=["log"])
router = APIRouter(prefix="/audit/events", tags=["log"])


ShardName = Annotated[str, Path(), Like(shards.NAME)]
TilePath = Annotated[str, Path(description="As C2SP's tlog-tiles has it: `0/x001/234.p/56`, `entries/000`.")]
EventId = Annotated[str, Path(), Like(re.compile("[A-Za-z0-9_-]{8,64}"))]


def keeper(broker: Broker) -> Callable[[], None]:
    """Start looking once a second whether a year has begun, and whether the clock was set; returns how to stop it."""
    return shards.keep_watch(broker.trail, broker.settings.log_base)


@public.get("/checkpoint", response_class=PlainTextResponse)
def checkpoint(shard: ShardName, broker: BrokerDep, now: NowDep) -> Response:
    """The newest signed checkpoint, with the lines of those witnesses that have cosigned it."""
    return _served(broker, shard, "checkpoint", now)


@public.get("/checkpoint.witnessed", response_class=PlainTextResponse)
def witnessed(shard: ShardName, broker: BrokerDep, now: NowDep) -> Response:
    """The newest checkpoint that a quorum of witnesses has cosigned."""
    return _served(broker, shard, "checkpoint.witnessed", now)


@public.get("/checkpoint.witness", response_class=PlainTextResponse)
def to_witness(shard: ShardName, broker: BrokerDep, now: NowDep) -> Response:
    """The checkpoint that witnesses are asked to cosign now, so that they all sign one."""
    return _served(broker, shard, "checkpoint.witness", now)


@public.get(
    "/tile/{path:path}", response_class=Response,
    responses={200: {"content": {HASHES: {}, BUNDLE: {}}}},
)  # fmt: skip
def tile(shard: ShardName, path: TilePath, broker: BrokerDep) -> Response:
    """A hash tile or an entry bundle, whole or partial, up to the newest checkpoint and no further."""
    log_id = log_of(broker, shard)
    try:
        wanted = Tile.parse(f"tile/{path}")
    except ValueError:
        raise NotFound("there is no such tile") from None
    with broker.store.reading() as reading:
        newest = newest_checkpoint(reading, log_id)
        # what no checkpoint covers yet is nobody's to see
        covered = (newest.size if newest else 0) >> (8 * max(wanted.level, 0))
        if wanted.index * 256 + wanted.width > covered:
            raise NotFound("there is no such tile")
        try:
            data = SqlTiles(reading, log_id).read(wanted)
        except TileUnreadable:
            raise NotFound("there is no such tile") from None
    return Response(data, media_type=BUNDLE if wanted.level == ENTRIES else HASHES, headers={"Cache-Control": FOR_EVER})


@all_shards.get("")
def list_shards(broker: BrokerDep) -> dict[str, Any]:
    """The log's shards, the oldest first: each is served under `/audit/log/<shard>/`; entries go to the last."""
    with broker.store.reading() as reading:
        rows = every_shard(reading)
    return {
        "shards": [
            {
                "shard": row.log_id.rpartition("/")[2], "origin": row.log_id, "follows": row.follows,
                "state": "open" if row.closed_at is None else "frozen" if row.frozen else "closed",
            }
            for row in rows
        ]
    }  # fmt: skip


@public.get("/history")
def history(shard: ShardName, broker: BrokerDep) -> dict[str, Any]:
    """What the shard says of itself, opened: that it was opened, closed, and whom its key was handed over to."""
    return shards.history(broker.trail, log_of(broker, shard))


@router.get("/{event_id}/proof", response_class=PlainTextResponse)
def proof(event_id: EventId, caller: CallerDep, broker: BrokerDep) -> Response:
    """The event's `tlog-proof@v1`, for a caller whom it concerns: under a witnessed checkpoint, once one covers it."""
    if caller.kind == "officer":
        receipt = reports.proof_of(broker.trail, caller, event_id)
    else:
        _concerns(broker, caller, event_id)
        receipt = broker.trail.receipt(EntryRef(event_id), show=())
    with broker.store.reading() as reading:
        receipt = witnesses.with_witnesses(reading, receipt)
    return Response(receipt.proof.text, media_type="text/plain; charset=utf-8")


@router.get("/{event_id}/opening")
def opening(event_id: EventId, caller: CallerDep, broker: BrokerDep, now: NowDep) -> dict[str, Any]:
    """The event's sections with their salts, as far as the caller may see; the others as commitments.

    To whom it concerns, what it was told then.  An IG officer's look is recorded before it is answered, and `detail`
    stays withheld here: it is opened on the officer's page.
    """
    if caller.kind == "officer":
        return dict(reports.opening_of(broker.store, broker.trail, caller, event_id, at=now).opening.to_json())
    _concerns(broker, caller, event_id)
    return dict(broker.trail.receipt(EntryRef(event_id), show=SHOWN_TO_ASKER).opening.to_json())


def _concerns(broker: BrokerDep, caller: Caller, event_id: str) -> None:
    """Return if the event is the caller's own.  Raises NotFound, for what is another's as for what is not there."""
    with broker.store.reading() as reading:
        row = reading.one(EventRow, event_id=event_id)
    own = row is not None and caller.organisation == row.org
    if row is None or not own or (caller.kind == "person" and caller.person != row.actor_ref):
        raise NotFound("there is no such event")


def _served(broker: BrokerDep, shard: ShardName, which: witnesses.Which, at: datetime) -> Response:
    with broker.store.reading() as reading:
        note = witnesses.served(reading, log_of(broker, shard), which, at=at)
    if note is None:
        raise NotFound("there is no such checkpoint yet")
    return Response(note.note, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})


def log_of(broker: BrokerDep, shard: str) -> str:
    """The origin of a shard.  Raises NotFound."""
    with broker.store.reading() as reading:
        found = shard_named(reading, shard)
    if found is None:
        raise NotFound("there is no such log")
    return found.log_id
