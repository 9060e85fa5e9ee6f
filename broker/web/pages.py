"""What every page of the broker needs: templates, forms, the session's cookie, and errors as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import IO, Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, PrefixLoader

from agreements import VOCABULARY
from broker import clock, register, signin
from broker.callers import Caller
from broker.dependencies import BrokerDep, NowDep, OfficerDep, broker_of, officer
from broker.errors import (
    BrokerError,
    Conflict,
    LogUnavailable,
    Malformed,
    NotAllowed,
    NotFound,
    NotSignedIn,
    TooMany,
    UnsupportedMedia,
    WrongState,
)
from broker.settings import GOVERNANCE
from broker.wiring import Broker

Row = TypeVar("Row")

HERE: Final = Path(__file__).resolve().parent
STATIC: Final = HERE / "static"
LONDON: Final = ZoneInfo("Europe/London")
FIELDS: Final = 4_000  # two for each entry of a subject's ledger
LONGEST: Final = 2_000  # characters of a field: more than any of ours takes
ROLE_NAMES: Final = {
    "IG_OFFICER": "Information governance officer",
    "LINK_REVIEWER": "Link reviewer",
    "OPERATOR": "Operator",
}
SERVICES: Final = {
    **dict.fromkeys(GOVERNANCE, "Information governance"),
    "LINK_REVIEWER": "Link review",
    "OPERATOR": "Operation",
    "SERVICE_PLANNER": "Planning statistics",
    "INSPECTOR": "Inspection",
}
"""What the service is called for whoever is signed in."""
GOVERNING: Final = (
    ("Dashboard", "/ig"),
    ("Log", "/log"),
    ("Reviews", "/reviews"),
    ("Rights", "/rights"),
    ("Breaches", "/breaches"),
    ("Reports", "/reports"),
    ("Agreements", "/agreements"),
    ("Statistics", "/statistics"),
)
NAVIGATION: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    **dict.fromkeys(GOVERNANCE, GOVERNING),
    "LINK_REVIEWER": (("Pairs", "/pairs"),),
    "OPERATOR": (("Operation", "/operations"),),
    "SERVICE_PLANNER": (("Statistics", "/statistics"),),
    "INSPECTOR": tuple(one for one in GOVERNING if one[1] in ("/ig", "/log", "/reports", "/agreements")),
}
"""What each role may open, in the order of the navigation; the first is where signing in leads to."""
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
    Conflict: (409, "This is there already, or has changed"),
    WrongState: (409, "This has changed since you opened it"),
    TooMany: (429, "You have done this a lot in a short time"),
    LogUnavailable: (503, "We cannot record this, so we cannot show it"),
}
"""What may go wrong on a page, in a reader's words; anything else is a problem document like everywhere."""
TOLD: Final = (Conflict, Malformed, TooMany, WrongState)
"""Of these the reader is also told what the rule is: its message names nobody."""


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
    env.filters |= {
        "instant": instant, "minute": minute, "day": day, "age": age, "clock": clock_time, "plain": plain,
        "happened": happened, "counted": counted,
    }  # fmt: skip
    env.globals |= {
        "roles": {code: role_name(code) for code in {**VOCABULARY.roles, **ROLE_NAMES}},
        "purposes": {code: one.label for code, one in VOCABULARY.purposes.items()},
        "categories": {code: one.label for code, one in VOCABULARY.categories.items()},
        "navigation": NAVIGATION,
        "services": SERVICES,
    }
    return env


def role_name(role: str) -> str:
    """What a role is called."""
    return ROLE_NAMES.get(role) or capitalised(VOCABULARY.roles[role].label)


def home_of(role: str) -> str:
    """Where a role's work begins."""
    return NAVIGATION[role][0][1]


def only(*roles: str) -> Any:
    """A dependency of every route of a router: whoever has none of these roles is refused before anything is looked
    up.  Raises NotAllowed."""

    def door(caller: OfficerDep) -> None:
        if caller.role not in roles:
            raise NotAllowed("this page is another role's")

    return Depends(door)


def _reader(request: Request, broker: BrokerDep, now: NowDep) -> Caller | None:
    try:
        return officer(request, broker, now)
    except NotSignedIn:
        return None


ReaderDep = Annotated[Caller | None, Depends(_reader)]
"""Who reads a public page, if they are signed in: their own navigation then stays where it was."""


def page(request: Request, template: str, caller: Caller | None, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A page, with everything that all of them carry; an inspector's says until when they may look."""
    broker = broker_of(request)
    ends = None
    if caller is not None and caller.role == signin.INSPECTOR:
        ends = signin.inspection_ends(broker.settings, caller.person, at=clock.now())
    html = (
        environment()
        .get_template(template)
        .render(
            cspNonce=request.state.csp_nonce,
            settings=broker.settings,
            inspection_ends=ends,
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


def minute(at: datetime) -> str:
    """An instant in London to the minute, as "7 Mar 2026, 14:40"."""
    local = at.astimezone(LONDON)
    return f"{local.day} {local:%b %Y, %H:%M}"


def day(at: date | datetime) -> str:
    """A day in London, as "7 Mar 2026"."""
    local = at.astimezone(LONDON) if isinstance(at, datetime) else at
    return f"{local.day} {local:%b %Y}"


def age(span: timedelta) -> str:
    """How long, in one unit.

    >>> age(timedelta(seconds=59)), age(timedelta(hours=1)), age(timedelta(days=2, hours=23))
    ('59 seconds', '1 hour', '2 days')
    """
    seconds = max(int(span.total_seconds()), 0)
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            return counted(seconds // size, unit)
    return counted(seconds, "second")


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "event"), counted(2, "event"), counted(0, "entry", "entries")
    ('1 event', '2 events', '0 entries')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


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
            except RequestValidationError:  # an address of no form of ours is an address of nothing
                status, title = PROBLEMS[NotFound]
                return page(request, "problem.html", None, status=status, title=title, reference=_reference(request))
            except tuple(PROBLEMS) as error:
                status, title = PROBLEMS[type(error)]
                said = str(error) if isinstance(error, TOLD) else ""
                return page(
                    request, "problem.html", None, status=status, title=title, said=said, reference=_reference(request)
                )

        return handler


def _reference(request: Request) -> str:
    return str(request.scope.get("request_id", ""))


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise UnsupportedMedia("only a form of these pages is taken here")
    try:
        pairs = parse_qsl((await request.body()).decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise Malformed("the form could not be read") from None
    return {name: value.replace("\r\n", "\n").strip()[:LONGEST] for name, value in pairs}


FormDep = Annotated[dict[str, str], Depends(_form)]
"""The form that was posted.  Raises UnsupportedMedia or Malformed."""


def _officer_form(request: Request, form: FormDep, caller: OfficerDep, broker: BrokerDep) -> dict[str, str]:
    check_origin(request, broker.settings.base_url, caller.csrf, form.get("csrf"))
    return form


OfficerFormDep = Annotated[dict[str, str], Depends(_officer_form)]
"""The form that was posted from one of this session's own pages.  Raises NotAllowed for any other."""


def sentence(words: str) -> str:
    """What the rules say of a fault, without the name of the field before it.

    >>> sentence("subject: the log knows nobody by this reference")
    'The log knows nobody by this reference'
    """
    field, colon, rest = words.partition(": ")
    return capitalised(rest if colon and field.replace("_", "").isalpha() else words)


def in_order(rows: Sequence[Row], sort: str, told: Mapping[str, Callable[[Row], Any]]) -> list[Row]:
    """Rows by the column of a code, as it reads, or down from its end after a minus; those that are equal stay as they
    were, and so do all without a code.

    >>> in_order([3, 1, 2], "-size", {"size": lambda one: one}), in_order([3, 1, 2], "", {})
    ([3, 2, 1], [3, 1, 2])
    """
    if not sort:
        return list(rows)
    return sorted(rows, key=told[sort.removeprefix("-")], reverse=sort.startswith("-"))


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """A file piece by piece, closed once it has left."""
    with file:
        file.seek(0)
        while piece := file.read(1 << 16):
            yield piece


def signed_words(broker: Broker, sections: Mapping[str, Any]) -> dict[str, str]:
    """The words of the clauses that an event names, by their references."""
    why = sections.get("why")
    named = why.get("clauses") if isinstance(why, Mapping) else None
    with broker.store.reading() as reading:
        return register.clause_texts(reading, [str(one) for one in named or ()])


def attachment(name: str) -> dict[str, str]:
    """The header of a file to keep."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def whole_number(text: str) -> int | None:
    """A number as typed, or None.

    >>> whole_number("40"), whole_number("-1"), whole_number("4.5")
    (40, None, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def day_typed(form: Mapping[str, str], name: str) -> date | None:
    """A day from its three boxes, or None.

    >>> day_typed({"d-day": "7", "d-month": "3", "d-year": "2026"}, "d"), day_typed({"d-day": "31"}, "d")
    (datetime.date(2026, 3, 7), None)
    """
    parts = [whole_number(form.get(f"{name}-{part}", "")) for part in ("year", "month", "day")]
    try:
        return date(*(part or 0 for part in parts))
    except ValueError:
        return None


def check_origin(request: Request, base_url: str, token: str, sent: str | None) -> None:
    """Raise NotAllowed unless the form is from our own page."""
    signin.check_csrf(
        token,
        sent,
        origin=request.headers.get("origin"),
        site=request.headers.get("sec-fetch-site"),
        base_url=base_url,
    )
