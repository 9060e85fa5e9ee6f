"""Whether the broker lives, and whether it can do its work."""

from __future__ import annotations

import shutil
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from broker import witnesses
from broker.api.searches import in_service
from broker.dependencies import BrokerDep, NowDep
from broker.errors import BrokerError
from broker.store import migrate
from broker.wiring import Broker

ENOUGH_DISK = 256 * 1024 * 1024

router = APIRouter(prefix="/health", tags=["health"])


class Readiness(BaseModel):
    """How the parts of a broker stand."""

    status: str
    checks: dict[str, bool]
    run: str | None
    witnesses: dict[str, Any] | None


@router.get("/live")
def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/ready", responses={200: {"model": Readiness}, 503: {"model": Readiness}})
def ready(broker: BrokerDep, now: NowDep) -> Response:
    """Database, schema, log, disk and the published run are as they must be; else 503 says which is not.

    `run` is the link run that searches see, opened; null before the first is published.  `witnesses` is how long the
    quorum is behind (green, amber, red; none where nobody witnesses): told, and never in the way of an answer.
    """
    found = standing(broker, now)
    return JSONResponse(found.model_dump(), 200 if found.status == "ready" else 503)


def standing(broker: Broker, now: datetime) -> Readiness:
    """How the parts of a broker stand.  Never raises: what can't be told is not well."""
    checks = {"database": False, "schema": False, "log": False, "disk": False, "view": False}
    run: str | None = None
    quorum: dict[str, Any] | None = None
    try:
        with broker.store.reading() as reading:
            checks["database"] = True
            stand = witnesses.standing(reading, broker.trail.origin, at=now)
            quorum = {"state": stand.state, "behind_s": stand.behind_s, "conflicts": stand.conflicts}
        checks["schema"] = migrate.at_head(broker.store)
        checks["log"] = broker.trail.broken() is None and broker.trail.signed() is not None
        checks["disk"] = shutil.disk_usage(broker.settings.data_dir).free > ENOUGH_DISK
        area = in_service(broker).area()
        run = area.run if area else None
        checks["view"] = True
    except (BrokerError, OSError, ValueError):
        pass
    status = "ready" if all(checks.values()) else "not ready"
    return Readiness(status=status, checks=checks, run=run, witnesses=quorum)
