"""The public log (C2SP tlog-tiles), and a caller's own proofs.

Checkpoint, tiles and entry bundles give away count and time only, so anyone may fetch all of them.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from audit.events import SHOWN_TO_ASKER
from audit.tiles import ENTRIES, Tile, TileUnreadable
from broker import reports
from broker.callers import Caller
from broker.dependencies import BrokerDep, CallerDep, NowDep
from broker.errors import NotFound
from broker.store.log import EventRow
from broker.store.sequence import SqlTiles, newest_checkpoint
from broker.trail import EntryRef

FOR_EVER: Final = "public, max-age=31536000, immutable"

public = APIRouter(prefix="/audit/log/{shard}", tags=["log"])
router = APIRouter(prefix="/audit/events", tags=["log"])


@public.get("/checkpoint", response_class=PlainTextResponse)
def checkpoint(shard: str, broker: BrokerDep) -> Response:
    """The newest signed checkpoint."""
    with broker.store.reading() as reading:
        newest = newest_checkpoint(reading, _log(broker, shard))
    if newest is None:
        raise NotFound("nothing has been signed yet")
    return Response(newest.note, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})


@public.get("/tile/{path:path}", response_class=Response)
def tile(shard: str, path: str, broker: BrokerDep) -> Response:
    """A hash tile or an entry bundle, whole or partial, up to the newest checkpoint and no further."""
    log_id = _log(broker, shard)
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
    media = "application/octet-stream" if wanted.level != ENTRIES else "application/vnd.c2sp.entry-bundle"
    return Response(data, media_type=media, headers={"Cache-Control": FOR_EVER})


@router.get("/{event_id}/proof", response_class=PlainTextResponse)
def proof(event_id: str, caller: CallerDep, broker: BrokerDep) -> Response:
    """The event's `tlog-proof@v1`, for a caller whom it concerns."""
    if caller.kind == "officer":
        receipt = reports.proof_of(broker.trail, caller, event_id)
    else:
        _concerns(broker, caller, event_id)
        receipt = broker.trail.receipt(EntryRef(event_id), show=())
    return Response(receipt.proof.text, media_type="text/plain; charset=utf-8")


@router.get("/{event_id}/opening")
def opening(event_id: str, caller: CallerDep, broker: BrokerDep, now: NowDep) -> dict[str, Any]:
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


def _log(broker: BrokerDep, shard: str) -> str:
    if broker.settings.origin.rpartition("/")[2] != shard:
        raise NotFound("there is no such log")
    return broker.settings.origin
