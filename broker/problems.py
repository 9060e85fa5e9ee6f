"""The one table from error to RFC 9457 problem.  No problem echoes what was sent."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from broker import errors
from broker.tokens import BadKey

MEDIA_TYPE: Final = "application/problem+json"
BACK_IN: Final = 5  # seconds, and up to as much again by chance, so that all who met a fault don't come back in step


@dataclass(frozen=True, slots=True)
class Problem:
    """What a caller is told.  `plain` false keeps the error's own words from the caller: the fault is ours."""

    status: int
    slug: str
    title: str
    plain: bool = True


PROBLEMS: Final[Mapping[type[errors.BrokerError], Problem]] = {
    errors.BrokerError: Problem(500, "fault", "Something went wrong here", plain=False),
    errors.BadSettings: Problem(500, "fault", "Something went wrong here", plain=False),
    errors.UnsafeDatabase: Problem(503, "store-unavailable", "The store can't be used", plain=False),
    errors.StoreUnavailable: Problem(503, "store-unavailable", "The store can't be used", plain=False),
    errors.StoreFull: Problem(507, "store-full", "There is no room to keep this, so nothing was kept", plain=False),
    errors.NestedTransaction: Problem(500, "fault", "Something went wrong here", plain=False),
    errors.KeyUnavailable: Problem(503, "key-unavailable", "A key can't be used", plain=False),
    errors.Undecipherable: Problem(500, "fault", "Something went wrong here", plain=False),
    errors.LogUnavailable: Problem(
        503, "log-unavailable", "The log can't record this, so nothing was shown", plain=False
    ),
    errors.EventStuck: Problem(503, "log-unavailable", "The log can't record this, so nothing was shown", plain=False),
    errors.SignerUnavailable: Problem(
        503, "log-unavailable", "The log can't record this, so nothing was shown", plain=False
    ),
    errors.EngineFailed: Problem(500, "engine-failed", "The rules could not be evaluated, so nothing was shown"),
    errors.EventTooLarge: Problem(500, "fault", "Something went wrong here", plain=False),
    errors.NotSignedIn: Problem(401, "not-signed-in", "A valid credential is due"),
    errors.ProviderUnavailable: Problem(503, "provider-unavailable", "Sign-in can't be reached", plain=False),
    errors.NotAllowed: Problem(403, "not-allowed", "This is not yours to do"),
    errors.AgencyNotActive: Problem(403, "agency-not-active", "The agency is not active"),
    errors.NotFound: Problem(404, "not-found", "There is no such thing"),
    errors.UnknownAgency: Problem(404, "unknown-agency", "There is no such agency"),
    errors.UnknownFlow: Problem(404, "unknown-flow", "There is no such flow"),
    errors.Conflict: Problem(409, "conflict", "This is there already, or has changed"),
    errors.WrongState: Problem(409, "wrong-state", "This can't be done in this state"),
    errors.TooLarge: Problem(413, "too-large", "What was sent passes a limit"),
    errors.UnsupportedMedia: Problem(415, "unsupported-media", "This media type or encoding is not taken here"),
    errors.Malformed: Problem(400, "malformed", "What was sent can't be read"),
    errors.BadSignature: Problem(401, "bad-signature", "The signature does not hold"),
    BadKey: Problem(422, "bad-key", "The key can't be taken"),
    errors.BadDigest: Problem(422, "bad-digest", "The bytes are not those declared"),
    errors.BadAgreement: Problem(422, "bad-agreement", "The agreement can't be taken"),
    errors.BatchRefused: Problem(422, "batch-refused", "The batch can't be taken"),
    errors.WrongEpoch: Problem(409, "wrong-epoch", "Another epoch of the linkage key is in service"),
    errors.UnsafeRegister: Problem(503, "register-unsafe", "The register can't be relied on just now", plain=False),
    errors.UnknownSchema: Problem(422, "unknown-schema", "The schema is not known here"),
    errors.TooMany: Problem(429, "too-many", "Too much at once"),
}
"""A row for each error; a test holds it complete."""

INVALID: Final = Problem(422, "invalid", "What was sent is not of the form that is due")
_HTTP: Final = {
    401: "not-signed-in", 403: "not-allowed", 404: "not-found", 405: "method-not-allowed", 408: "too-slow",
    413: "too-large", 415: "unsupported-media",
}  # fmt: skip


_DOCUMENT: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "instance"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:safeguarding-broker:problem:[a-z-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "instance": {"type": "string", "description": "What to quote to the operator."},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    codes: {"description": words, "content": {MEDIA_TYPE: {"schema": _DOCUMENT}}}
    for codes, words in (("4XX", "Why this is refused"), ("5XX", "Why this can't be answered now"))
}
"""What every route may answer besides its own: for the API's description."""


def install(app: FastAPI) -> None:
    """Answer every domain error, HTTP error and malformed body with a problem."""

    def domain(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.BrokerError)
        return of_error(error, request_id=request_id_of(request))

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = Problem(error.status_code, _HTTP.get(error.status_code, "http"), "The request can't be answered")
        return response(problem, request_id=request_id_of(request), headers=error.headers)

    names: set[str] = set()

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        if not names:
            names.update(_names(app.openapi()))
        faults = [{"pointer": _pointer(fault, names), "detail": _words(fault)} for fault in error.errors()]
        return response(INVALID, request_id=request_id_of(request), more={"errors": faults})

    app.add_exception_handler(errors.BrokerError, domain)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def every() -> list[Problem]:
    """Each kind of problem once, by status: for the API's reference."""
    return sorted({(one.status, one.slug): one for one in PROBLEMS.values()}.values(), key=lambda one: one.status)


def problem_of(error: errors.BrokerError) -> Problem:
    """The row of an error, or of its nearest ancestor."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def of_error(error: errors.BrokerError, *, request_id: str) -> Response:
    """The answer to a domain error."""
    problem = problem_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, errors.TooMany):
        headers["Retry-After"] = str(error.retry_after)
    elif problem.status == 503:
        headers["Retry-After"] = str(BACK_IN + secrets.randbelow(BACK_IN + 1))
    elif problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    detail = str(error) if problem.plain else None
    return response(problem, request_id=request_id, detail=detail, headers=headers)


def response(
    problem: Problem,
    *,
    request_id: str,
    detail: str | None = None,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """A problem document; `request_id` is what a caller quotes to the operator."""
    body: dict[str, Any] = {
        "type": f"urn:safeguarding-broker:problem:{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "instance": f"urn:uuid:{request_id}",
    }
    if detail:
        body["detail"] = detail
    return JSONResponse(
        {**body, **(more or {})}, status_code=problem.status, headers=dict(headers or {}), media_type=MEDIA_TYPE
    )


def request_id_of(request: Request) -> str:
    """The id that the edge gave this request."""
    return str(request.scope.get("request_id", "00000000-0000-0000-0000-000000000000"))


def _pointer(fault: Mapping[str, Any], names: set[str]) -> str:
    # only names of our own schemas: an unknown member's name is the caller's text, and may be a person's
    return "#/" + "/".join(
        str(part) if isinstance(part, int) or part in names or part in ("body", "query", "path", "header") else "*"
        for part in fault["loc"]
    )


def _words(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "json_invalid":
        return "this is not JSON"
    return str(fault["msg"]).removeprefix("Value error, ")


def _names(schema: object) -> set[str]:
    found: set[str] = set()
    if isinstance(schema, dict):
        found.update(schema.get("properties") or ())
        if isinstance(schema.get("name"), str):
            found.add(schema["name"])
        for value in schema.values():
            found |= _names(value)
    elif isinstance(schema, list):
        for value in schema:
            found |= _names(value)
    return found
