"""Whether the broker lives, and whether it can do its work."""

from __future__ import annotations

import shutil

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from broker.api.searches import in_service
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
    """Database, schema, log, disk and the published run are as they must be; else 503 says which is not.

    `run` is the link run that searches see, opened; null before the first is published.
    """
    checks = {"database": False, "schema": False, "log": False, "disk": False, "view": False}
    run: str | None = None
    try:
        with broker.store.reading():
            checks["database"] = True
        checks["schema"] = migrate.at_head(broker.store)
        checks["log"] = broker.trail.broken() is None and broker.trail.signed() is not None
        checks["disk"] = shutil.disk_usage(broker.settings.data_dir).free > ENOUGH_DISK
        area = in_service(broker).area()
        run = area.run if area else None
        checks["view"] = True
    except (BrokerError, OSError, ValueError):
        pass
    well = all(checks.values())
    status = "ready" if well else "not ready"
    return JSONResponse({"status": status, "checks": checks, "run": run}, 200 if well else 503)
