"""`/oauth2/token`: client credentials with a signed assertion (RFC 6749 s.4.4, RFC 7523)."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from broker import callers
from broker.api.forms import taken
from broker.dependencies import BrokerDep, NowDep, certificate
from broker.errors import AgencyNotActive, NotSignedIn
from broker.tokens import LONGEST_CLIENT_ASSERTION_SECONDS

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FORM = {
    "type": "object",
    "required": ["grant_type", "client_assertion_type", "client_assertion"],
    "properties": {
        "grant_type": {"type": "string", "enum": ["client_credentials"]},
        "client_assertion_type": {"type": "string", "enum": [ASSERTION_TYPE]},
        "client_assertion": {"type": "string", "minLength": 1, "description": "A JWT, as private_key_jwt has it."},
    },
}
HINTS = {
    "lifetime": f"the assertion may hold for at most {LONGEST_CLIENT_ASSERTION_SECONDS} seconds, from iat to exp",
    "expired": "the assertion has expired; compare the clocks",
    "iat": "the assertion is from the future; compare the clocks",
    "replayed": "the assertion was used before; make a new one for each token",
    "aud": "the assertion's aud is the address of this token endpoint",
    "no-certificate": "a client certificate is due: connect with the one that the partnership gave this agency",
    "certificate-not-by-proxy": "a client certificate is told by the partnership's own proxy alone",
    "certificate-unreadable": "the proxy passed on no certificate that can be read",
}

router = APIRouter(tags=["token"])


class Refused(BaseModel):
    """Why there is no token (RFC 6749, section 5.2)."""

    error: str
    error_description: str | None = None


class Granted(BaseModel):
    """A machine token."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 (the name of a scheme)
    expires_in: int


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        return {}
    try:
        fields = parse_qs((await request.body()).decode("ascii"), strict_parsing=True, max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items() if len(values) == 1}


@router.post(
    "/oauth2/token", response_model=Granted, responses={400: {"model": Refused}, 401: {"model": Refused}},
    openapi_extra=taken({"application/x-www-form-urlencoded": FORM}),
)  # fmt: skip
def token(
    form: Annotated[dict[str, str], Depends(_form)], request: Request, broker: BrokerDep, now: NowDep
) -> Granted | Response:
    """An access token for an agency's machine, in return for its signed, single-use assertion.

    Bound to the client's certificate where the partnership has TLS with these (RFC 8705).
    """
    if form.get("grant_type") != "client_credentials":
        return _refused("unsupported_grant_type", 400)
    if form.get("client_assertion_type") != ASSERTION_TYPE or not form.get("client_assertion"):
        return _refused("invalid_request", 400, "a client_assertion of type jwt-bearer is due")
    try:
        proved = certificate(request, broker.settings)
        granted = callers.grant_token(broker.store, broker.tokens, form["client_assertion"], at=now, certificate=proved)
    except NotSignedIn as refused:
        return _refused("invalid_client", 401, HINTS.get(refused.reason))
    except AgencyNotActive:  # it has proved who it is: a stranger reads nothing of this
        return _refused("invalid_client", 401, "the partnership has suspended this agency: ask its operator")
    return Granted(access_token=granted, expires_in=broker.tokens.seconds)


def _refused(error: str, status: int, description: str | None = None) -> Response:
    body = {"error": error, **({"error_description": description} if description else {})}
    return JSONResponse(body, status_code=status)
