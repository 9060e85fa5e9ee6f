"""The log's witnesses: lines handed in, the policy that the host proposes, and how the log stands with them.

None of it asks who calls: a line proves itself, and the rest is hashes, times and public keys.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse, Response

from audit.checkpoint import MAX_NOTE_BYTES, VerifierKey
from broker import witnesses
from broker.api.audit_log import log_of
from broker.api.forms import taken
from broker.dependencies import BrokerDep, NowDep
from broker.errors import TooLarge
from broker.shards import log_keys
from broker.wiring import Broker

router = APIRouter(prefix="/audit", tags=["log"])

Size = Annotated[int, Query(ge=0, lt=10**15)]

HANDED_OVER = """\
# Whom to trust for the log of {origin}.
# Take this file from someone you know, and not from where the log is: who serves you a false log serves you this too.
"""


async def _note(request: Request) -> bytes:
    """The body, of which no more is read than a note may have."""
    note = b""
    async for part in request.stream():
        note += part
        if len(note) > MAX_NOTE_BYTES:
            raise TooLarge("a note is at most 64 KiB")
    return note


def worker(broker: Broker) -> Callable[[], None]:
    """Start looking once a minute how the witnesses stand; returns how to stop it."""

    def looks(at: datetime) -> None:
        told = witnesses.watch(broker.store, broker.trail, who=_schedule(broker), at=at)
        if told:
            broker.trail.wake()

    watching = witnesses.Watch(looks)
    watching.start()
    return watching.stop


@router.post("/cosignatures", status_code=201, openapi_extra=taken({"text/plain": {"type": "string"}}))
def hand_in(note: Annotated[bytes, Depends(_note)], broker: BrokerDep, now: NowDep) -> dict[str, Any]:
    """A checkpoint of ours with witnesses' lines under it: the whole note, as text.  Twice does no harm.

    Refused: 400 no note, 401 no line that holds, 404 no checkpoint of ours, 409 a tree that can't be beside ours.
    """
    who = _schedule(broker) | {"method": "cosignature"}
    taken = witnesses.take(broker.store, broker.trail, note, _log_keys(broker), who=who, at=now)
    return {"size": taken.size, "witnesses": list(taken.witnesses), "witnessed": taken.witnessed}


@router.get("/policy", response_class=PlainTextResponse)
def policy(broker: BrokerDep) -> Response:
    """The C2SP tlog-policy that the host proposes: its log keys, its witnesses, more than half of them."""
    with broker.store.reading() as reading:
        text = witnesses.policy_of(reading, log_keys(reading)).text
    return PlainTextResponse(HANDED_OVER.format(origin=broker.trail.origin) + text)


@router.get("/witnesses")
def standing(broker: BrokerDep, now: NowDep) -> dict[str, Any]:
    """How far each witness is, and the quorum: green, amber after 15 minutes, red after 4 hours."""
    with broker.store.reading() as reading:
        return witnesses.standing(reading, broker.trail.origin, at=now).to_json()


@router.get("/consistency", response_class=PlainTextResponse)
def consistency(broker: BrokerDep, old: Size, new: Size, shard: str | None = None) -> Response:
    """The proof (RFC 6962, section 2.1.2) that the log of `new` leaves begins with that of `old`: a hash a line."""
    log_id = broker.trail.origin if shard is None else log_of(broker, shard)
    with broker.store.reading() as reading:
        proof = witnesses.consistency(reading, log_id, old, new)
    return PlainTextResponse(witnesses.proof_text(proof))


def _log_keys(broker: Broker) -> tuple[VerifierKey, ...]:
    with broker.store.reading() as reading:
        return log_keys(reading)


def _schedule(broker: Broker) -> dict[str, str]:
    return {"organisation": broker.settings.partnership, "method": "schedule"}
