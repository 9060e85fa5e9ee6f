"""What each operation asks of its caller, as the OpenAPI document says it: read off the route's own dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from broker import dependencies, signin

MACHINE, GATEWAY, SESSION, CSRF = "machine", "gateway", "session", "csrf"

_AT_GATEWAY: Final[dict[str, list[str]]] = {MACHINE: [], GATEWAY: []}
_ASKED: Final[Mapping[Any, list[dict[str, list[str]]]]] = {
    dependencies.acting_officer: [{SESSION: [], CSRF: []}],
    dependencies.anyone: [_AT_GATEWAY, {MACHINE: []}, {SESSION: []}],
    dependencies.person: [_AT_GATEWAY],
    dependencies.agency: [{MACHINE: []}],
    dependencies.officer: [{SESSION: []}],
}
"""By dependency, the strictest first: `acting_officer` depends on `officer`."""


def schemes(base_url: str) -> dict[str, dict[str, Any]]:
    """The ways in, as OpenAPI describes them."""
    return {
        MACHINE: {
            "type": "oauth2",
            "description": "An organisation's machine: RFC 6749 client credentials, proved by `private_key_jwt` "
            "(RFC 7523, at most 300 seconds long); the token lasts ten minutes at most.",
            "flows": {"clientCredentials": {"tokenUrl": f"{base_url}/oauth2/token", "scopes": {}}},
        },
        GATEWAY: {
            "type": "apiKey",
            "in": "header",
            "name": dependencies.ASSERTION,
            "description": "The organisation's gateway vouches for one person on this one request: a JWT, `typ` "
            "`gateway-assertion+jwt`, signed as the client's assertions are, at most 60 seconds long and used once. "
            "Claims: `iss` the organisation, `aud` the broker, `sub` the person's opaque id, `role`, `sid` their "
            "session, `jti`, `iat`, `exp`, `htm` the method, `path` the unescaped path and, where there is one, a "
            "question mark and the query as it is sent, `body_sha256` the body's SHA-256 in lower-case hex.",
        },
        SESSION: {
            "type": "apiKey",
            "in": "cookie",
            "name": signin.COOKIE,
            "description": "A person signed in at the broker itself.",
        },
        CSRF: {
            "type": "apiKey",
            "in": "header",
            "name": dependencies.CSRF,
            "description": "The session's own token, from our own origin: what changes something asks for it.",
        },
    }


def describe(app: FastAPI, routers: Iterable[APIRouter], base_url: str) -> None:
    """Have the application's document say of every operation which ways in it has; of one that is public, none."""
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                route.openapi_extra = {**(route.openapi_extra or {}), "security": _asked(route)}

    def document() -> dict[str, Any]:
        made = FastAPI.openapi(app)
        made.setdefault("components", {})["securitySchemes"] = schemes(base_url)
        return made

    app.openapi = document  # type: ignore[method-assign]


def _asked(route: APIRoute) -> list[dict[str, list[str]]]:
    called = set(_calls(route.dependant))
    return next((ways for dependency, ways in _ASKED.items() if dependency in called), [])


def _calls(dependant: Any) -> Iterator[Any]:
    for one in dependant.dependencies:
        yield one.call
        yield from _calls(one)
