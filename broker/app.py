"""`create_app(settings)`: one broker, wired."""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker import metrics, problems
from broker.api import (
    audit,
    audit_log,
    audit_reviews,
    batches,
    considerations,
    credentials,
    health,
    ledger,
    oauth,
    reviews,
    searches,
    statistics,
    subjects,
    witnesses,
)
from broker.errors import BrokerError, TooLarge, UnsupportedMedia
from broker.settings import Settings
from broker.web import about, dashboard, front, pairs, reference, rights, transparency
from broker.web import agreements as agreement_pages
from broker.web import log as log_pages
from broker.web import reports as report_pages
from broker.web import reviews as review_pages
from broker.web import statistics as statistics_pages
from broker.web.pages import STATIC
from broker.wiring import Broker, wire

log = structlog.get_logger()

ROUTERS: Final[tuple[APIRouter, ...]] = (
    oauth.router,
    health.router,
    audit_log.public,
    audit_log.all_shards,
    audit_log.router,
    audit.router,
    audit.fhir_router,
    audit_reviews.router,
    witnesses.router,
    batches.flows,
    batches.router,
    searches.router,
    reviews.router,
    considerations.router,
    ledger.router,
    statistics.router,
    subjects.router,
    front.router,
    log_pages.router,
    dashboard.router,
    dashboard.operations,
    pairs.router,
    review_pages.router,
    agreement_pages.router,
    rights.router,
    report_pages.router,
    report_pages.breaches,
    statistics_pages.router,
    transparency.router,
    about.router,
    reference.router,
)
"""Every router.  A new one is added here, and nowhere else."""

Stop = Callable[[], None]
WORKERS: Final[tuple[Callable[[Broker], Stop], ...]] = (
    batches.worker,
    considerations.worker,
    witnesses.worker,
    audit_log.keeper,
)
"""What runs beside the requests of `broker serve`: each is started with the broker and gives back how to stop it."""

PUBLIC: Final = frozenset(
    {
        "/oauth2/token",
        "/health/live",
        "/health/ready",
        "/audit/log/{shard}/checkpoint",
        "/audit/log/{shard}/checkpoint.witnessed",
        "/audit/log/{shard}/checkpoint.witness",
        "/audit/log/{shard}/tile/{path:path}",
        "/audit/log/{shard}/history",
        "/audit/shards",
        "/audit/cosignatures",
        "/audit/policy",
        "/audit/witnesses",
        "/audit/consistency",
        "/",
        "/sign-in",
        "/sign-in/start",
        "/sign-in/return",
        "/transparency",
        "/transparency/children",
        "/help",
        "/privacy",
        "/accessibility",
        "/cookies",
        "/api-reference",
        "/api-reference/agencies",
        "/api-reference/openapi.json",
        "/api-reference/{group}",
    }
)
"""The routes that need no caller; a test holds every other to one."""

BODY_SECONDS: Final = 60.0  # in which a body must have come whole, but for what its size allows it
SLOWEST: Final = 1024  # bytes a second: who sends more slowly holds a place that others need
CHUNK: Final = re.compile(r"/v1/flows/[^/]+/batches/[^/]+/(persons|relationships|items)/chunks/\d+")
CSP: Final = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}


def create_app(settings: Settings) -> FastAPI:
    """The broker as an ASGI application.

    Raises BadSettings, KeyUnavailable, UnsafeDatabase or LogUnavailable rather than serve half of it.
    """
    broker = wire(settings)
    shown = settings.environment == "demo"

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        broker.trail.start()
        stops = [worker(broker) for worker in WORKERS]
        try:
            yield
        finally:
            for stop in reversed(stops):
                stop()
            broker.trail.stop()
            broker.store.close()

    app = FastAPI(
        title="Safeguarding broker",
        version="1",
        description="Pseudonymised nightly feeds in; decided, recorded and receipted answers out.",
        lifespan=lifespan,
        responses=problems.RESPONSES,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if shown else None,
        telemetry={"tracing": False, "logs": False},  # its spans and logs would carry paths, queries and exceptions
    )
    app.state.broker = broker
    app.state.problems = problems.every()
    problems.install(app)
    credentials.describe(app, ROUTERS, settings.base_url)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(Edge, body=settings.max_body_bytes, chunk=settings.max_chunk_bytes)
    app.state.registry = registry = metrics.registry_of(broker)
    app.add_middleware(metrics.Counting, requests=metrics.Requests.kept_in(registry))
    return app


@dataclass(frozen=True, slots=True)
class Edge:
    """What holds for every request and response: an id, limits, headers, and no word of a fault's inside."""

    app: ASGIApp
    body: int
    chunk: int
    patience: float = BODY_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = {name.lower(): value for name, value in scope["headers"]}
        request_id = _request_id(sent.get(b"x-request-id"))
        nonce = secrets.token_urlsafe(16)
        scope["request_id"] = request_id
        scope.setdefault("state", {})["csp_nonce"] = nonce
        limit = self.chunk if scope["method"] == "PUT" and CHUNK.fullmatch(scope["path"]) else self.body
        started = False

        due: float | None = None  # counted from when the body is first asked for
        whole = False

        async def guarded() -> Message:
            nonlocal limit, due, whole
            if whole:  # what comes now is that the caller has gone, and that may take its time
                return await receive()
            if due is None:
                due = asyncio.get_running_loop().time() + self.patience
            try:
                async with asyncio.timeout_at(due):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, headers={"Connection": "close"}) from None
            size = len(message.get("body", b""))
            limit, due, whole = limit - size, due + size / SLOWEST, not message.get("more_body", False)
            if limit < 0:
                raise HTTPException(413)  # which FastAPI lets through while it reads a body
            return message

        async def decorated(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = _headers(message.get("headers", ()), request_id, nonce)
            await send(message)

        try:
            _check(sent, limit)
            await self.app(scope, guarded, decorated)
        except BrokerError as wrong:
            if started:
                raise
            await problems.of_error(wrong, request_id=request_id)(scope, receive, decorated)
        except Exception as wrong:  # the last resort: say that, not what
            log.error("unhandled fault", request_id=request_id, fault=type(wrong).__name__, route=_route(scope))
            if started:
                raise ConnectionAbortedError from None
            fault = problems.PROBLEMS[BrokerError]
            await problems.response(fault, request_id=request_id)(scope, receive, decorated)


def _check(sent: dict[bytes, bytes], limit: int) -> None:
    if sent.get(b"content-encoding", b"identity") != b"identity":
        raise UnsupportedMedia("bodies are taken as they are, without a content encoding")
    declared = sent.get(b"content-length", b"0")
    if not declared.isdigit() or int(declared) > limit:
        raise TooLarge("the body passes this route's limit")


def _request_id(sent: bytes | None) -> str:
    try:
        return str(uuid.UUID((sent or b"").decode("ascii")))
    except ValueError:
        return str(uuid.uuid4())


def _headers(given: Any, request_id: str, nonce: str) -> list[tuple[bytes, bytes]]:
    headers = [(name.lower(), value) for name, value in given]
    there = {name for name, _ in headers}
    due = {**HEADERS, "content-security-policy": CSP.format(nonce=nonce), "x-request-id": request_id}
    return headers + [(name.encode(), value.encode()) for name, value in due.items() if name.encode() not in there]


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "none"))
