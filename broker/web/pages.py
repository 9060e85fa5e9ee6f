"""What every page of the broker needs: templates, forms, the session's cookie, and errors as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, PrefixLoader

from agreements import VOCABULARY
from broker import signin
from broker.callers import Caller
from broker.dependencies import BrokerDep, OfficerDep, broker_of
from broker.errors import (
    BrokerError,
    LogUnavailable,
    Malformed,
    NotAllowed,
    NotFound,
    NotSignedIn,
    UnsupportedMedia,
)

HERE: Final = Path(__file__).resolve().parent
STATIC: Final = HERE / "static"
LONDON: Final = ZoneInfo("Europe/London")
FIELDS: Final = 100
ROLE_NAMES: Final = {
    "IG_OFFICER": "Information governance officer",
    "LINK_REVIEWER": "Link reviewer",
    "OPERATOR": "Operator",
}
HAPPENED: Final = {
    "audit.searched": "Log consulted",
    "auth.login": "Signed in",
    "auth.logout": "Signed out",
    "search.authorised": "Search",
    "search.refused": "Search refused",
    "disclosure.authorised": "Family view disclosed",
    "disclosure.completed": "Family view delivered",
    "threshold.set": "Threshold recorded",
    "threshold.refused": "Threshold refused",
    "submission.received": "Batch received",
    "submission.accepted": "Batch accepted",
    "submission.rejected": "Batch rejected",
    "linkage.published": "Linked view published",
    "linkage.model_compared": "New linkage model compared",
    "linkage.model_accepted": "New linkage model accepted",
    "link.split": "Linked persons split",
}
PROBLEMS: Final[dict[type[BrokerError], tuple[int, str]]] = {
    NotAllowed: (403, "Your role cannot see this"),
    NotFound: (404, "Page not found"),
    Malformed: (400, "We could not read this form"),
    UnsupportedMedia: (415, "We could not read this form"),
    LogUnavailable: (503, "We cannot record this, so we cannot show it"),
}
"""What may go wrong on a page, in a reader's words; anything else is a problem document like everywhere."""


@cache
def environment() -> Environment:
    """Jinja with GOV.UK's macros and our filters; everything is escaped."""
    env = Environment(
        loader=ChoiceLoader(
            [
                FileSystemLoader(HERE / "templates"),
                PrefixLoader({"govuk_frontend_jinja": PackageLoader("govuk_frontend_jinja")}),
            ]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"instant": instant, "clock": clock_time, "plain": plain, "happened": happened}
    env.globals |= {
        "roles": {code: capitalised(one.label) for code, one in VOCABULARY.roles.items()} | ROLE_NAMES,
        "purposes": {code: one.label for code, one in VOCABULARY.purposes.items()},
    }
    return env


def page(request: Request, template: str, caller: Caller | None, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A page, with everything that all of them carry."""
    html = (
        environment()
        .get_template(template)
        .render(
            cspNonce=request.state.csp_nonce,
            settings=broker_of(request).settings,
            officer=caller,
            path=request.url.path,
            **context,
        )
    )
    return HTMLResponse(html, status_code=status)


def instant(at: datetime) -> str:
    """An instant as people in London write it, to the second: order matters in a log."""
    local = at.astimezone(LONDON)
    return f"{local.day} {local:%b %Y, %H:%M:%S}"


def clock_time(at: datetime) -> str:
    """The time of day in London."""
    return f"{at.astimezone(LONDON):%H:%M}"


def plain(code: str) -> str:
    """A code, readable.

    >>> plain("disclosure.authorised"), plain("MASH_SCREEN")
    ('Disclosure authorised', 'MASH_SCREEN')
    """
    if code.isupper():
        return code
    return capitalised(code.replace(".", " ").replace("_", " ").strip())


def capitalised(words: str) -> str:
    """Words as a sentence begins; short forms keep their capitals.

    >>> capitalised("agency representative"), capitalised("MASH analyst")
    ('Agency representative', 'MASH analyst')
    """
    return words[:1].upper() + words[1:]


def happened(event: str) -> str:
    """What a type of event means, in words.

    >>> happened("search.refused"), happened("agency.enrolled")
    ('Search refused', 'Agency enrolled')
    """
    return HAPPENED.get(event, plain(event))


class PageRoute(APIRoute):
    """A route whose refusals are pages: whoever is not signed in is led to the sign-in page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, its domain errors turned into pages."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except NotSignedIn:
                return RedirectResponse("/", 303)
            except tuple(PROBLEMS) as error:
                status, title = PROBLEMS[type(error)]
                reference = request.scope.get("request_id", "")
                return page(request, "problem.html", None, status=status, title=title, reference=reference)

        return handler


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise UnsupportedMedia("only a form of these pages is taken here")
    try:
        pairs = parse_qsl((await request.body()).decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise Malformed("the form could not be read") from None
    return {name: value.strip()[:200] for name, value in pairs}


FormDep = Annotated[dict[str, str], Depends(_form)]
"""The form that was posted.  Raises UnsupportedMedia or Malformed."""


def _officer_form(request: Request, form: FormDep, caller: OfficerDep, broker: BrokerDep) -> dict[str, str]:
    check_origin(request, broker.settings.base_url, caller.csrf, form.get("csrf"))
    return form


OfficerFormDep = Annotated[dict[str, str], Depends(_officer_form)]
"""The form that was posted from one of this session's own pages.  Raises NotAllowed for any other."""


def check_origin(request: Request, base_url: str, token: str, sent: str | None) -> None:
    """Raise NotAllowed unless the form is from our own page."""
    signin.check_csrf(
        token,
        sent,
        origin=request.headers.get("origin"),
        site=request.headers.get("sec-fetch-site"),
        base_url=base_url,
    )
