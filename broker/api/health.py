"""Whether the broker lives, and whether it can do its work."""

from __future__ import annotations

import shutil

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from broker.dependencies import BrokerDep
from broker.errors import BrokerError
from broker.store import migrate

ENOUGH_DISK = 256 * 1024 * 1024

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/ready", responses={503: {}})
def ready(broker: BrokerDep) -> Response:
    """Database, schema, log and disk are as they must be; else 503 says which is not."""
    checks = {"database": False, "schema": False, "log": False, "disk": False}
    try:
        with broker.store.reading():
            checks["database"] = True
        checks["schema"] = migrate.at_head(broker.store)
        checks["log"] = broker.trail.broken() is None and broker.trail.signed() is not None
        checks["disk"] = shutil.disk_usage(broker.settings.data_dir).free > ENOUGH_DISK
    except (BrokerError, OSError):
        pass
    well = all(checks.values())
    return JSONResponse({"status": "ready" if well else "not ready", "checks": checks}, 200 if well else 503)
