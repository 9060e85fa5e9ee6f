"""The API's reference and the guide of an agency that connects: pages made from the OpenAPI document.

Anybody may read them: what a route asks for is no secret, as its source is none, and a supplier reads before it has a
credential.  Nothing is loaded from elsewhere and nothing is tried from the page, so they work without scripts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from markupsafe import Markup, escape

from broker.dependencies import BrokerDep
from broker.errors import NotFound
from broker.web.pages import PageRoute, ReaderDep, attachment, capitalised, page

router = APIRouter(prefix="/api-reference", route_class=PageRoute, include_in_schema=False)

GROUPS: Final[Mapping[str, tuple[str, str, str]]] = {
    "token": ("token", "Token", "An agency’s machine gets the token that every other call of it bears."),
    "submit": ("batches", "Batches", "Send a night’s batch, resumably, and fetch its receipts."),
    "ask": ("searches", "Searches and family views", "Ask for a child, and see what may be shown: for gateways."),
    "consider": ("considerations", "Consider sharing", "What a holder may want to share without having been asked."),
    "ledger": ("ledger", "Own-data ledger", "Who was shown what of an organisation’s own data, and what is recalled."),
    "log": ("log", "Log", "Checkpoints, tiles, proofs and witnesses for anybody; events for who may open them."),
    "reviews of the log": ("log-reviews", "Reviews of the log", "Flags, samples, decisions and their second word."),
    "review": ("link-reviews", "Link review", "Uncertain pairs, masked; decisions; wrong-person reports."),
    "statistics": ("statistics", "Planning statistics", "Declared tables, checked before anybody sees a figure."),
    "subjects": ("subjects", "Rights", "Holds, erasures, lifts and the packs of subject access."),
    "health": ("health", "Health", "Whether the broker is up, and ready."),
}
"""By tag: the place of its page, its title, and what it is for.  A test holds every operation to one of them."""
WAYS: Final[Mapping[str, str]] = {
    "gateway": "a person at its gateway",
    "machine": "an agency’s machine",
    "session": "a person signed in here",
}
CSRF: Final = "csrf"
"""The document's names of ways in; whoever comes by a gateway comes by its machine too."""
LISTED: Final = 12  # codes of a closed list that stand in a line; more are folded
LONGEST: Final = 60  # characters of a pattern that stand in a line
PLAIN: Final = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
FORMATS: Final = {"date-time": "instant (RFC 3339)", "date": "day (YYYY-MM-DD)", "binary": "bytes"}
GroupName = Annotated[str, Path(pattern=r"^[a-z-]{1,40}$")]


@dataclass(frozen=True, slots=True)
class Row:
    """One member of an object, or one parameter: what it is called, of what form, whether it is due, what it means."""

    name: str
    form: Markup
    due: bool
    meaning: Markup


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back with one status."""

    status: str
    media: str
    form: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path, as a supplier reads it."""

    method: str
    path: str
    words: Markup
    ways: tuple[str, ...]
    csrf: bool
    parameters: tuple[tuple[str, Row], ...]
    body: tuple[tuple[str, Markup, tuple[Row, ...]], ...]
    answers: tuple[Answer, ...]

    @property
    def anchor(self) -> str:
        """Its place on the page of its group.

        >>> of = dict(words=Markup(), ways=(), csrf=False, parameters=(), body=(), answers=())
        >>> Operation(method="GET", path="/v1/flows/{flow}", **of).anchor
        'get-v1-flows-flow'
        """
        return "-".join(
            (self.method + self.path).lower().replace("{", "").replace("}", "").replace(".", "-").split("/")
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """An object that operations take or give, with its members."""

    anchor: str
    title: str
    words: Markup
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The operations of one tag, in the order of the document, and every shape that they lead to."""

    place: str
    title: str
    words: str
    operations: tuple[Operation, ...]
    shapes: tuple[Shape, ...]


@router.get("")
def reference(request: Request, reader: ReaderDep) -> Response:
    """What there is, who may call, and how it says no."""
    return page(
        request, "reference.html", reader, groups=groups(request.app.openapi()), problems=request.app.state.problems,
        schemes=_schemes(request.app.openapi()),
    )  # fmt: skip


@router.get("/openapi.json")
def document(request: Request) -> Response:
    """The document itself, for a tool to read."""
    return JSONResponse(request.app.openapi(), headers=attachment("openapi.json"))


@router.get("/agencies")
def guide(request: Request, reader: ReaderDep, broker: BrokerDep) -> Response:
    """How an agency connects: in the order in which it is done."""
    return page(
        request, "reference_guide.html", reader, broker_url=broker.settings.base_url.rstrip("/"),
        places=_places(groups(request.app.openapi())),
    )  # fmt: skip


@router.get("/{group}")
def operations(group: GroupName, request: Request, reader: ReaderDep) -> Response:
    """Every operation of one part, with what it takes, what it gives and who may call it.  Raises NotFound."""
    found = next((one for one in groups(request.app.openapi()) if one.place == group), None)
    if found is None:
        raise NotFound("no part of the API is called so")
    return page(request, "reference_group.html", reader, group=found)


def groups(document: Mapping[str, Any]) -> tuple[Group, ...]:
    """The document, part by part.  Raises KeyError for an operation of no part."""
    schemas: Mapping[str, Any] = document["components"]["schemas"]
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {tag: [] for tag in GROUPS}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append((method.upper(), path, operation))
    return tuple(
        Group(
            place=GROUPS[tag][0],
            title=GROUPS[tag][1],
            words=GROUPS[tag][2],
            operations=tuple(_operation(*one) for one in found),
            shapes=tuple(_shapes([said for *_, said in found], schemas)),
        )
        for tag, found in by_tag.items()
    )


def _operation(method: str, path: str, said: Mapping[str, Any]) -> Operation:
    security = said.get("security", ())
    return Operation(
        method=method,
        path=path,
        words=prose(said.get("description", "")),
        ways=tuple(_way(one) for one in security),
        csrf=any(CSRF in one for one in security),
        parameters=tuple((one["in"], _parameter(one)) for one in said.get("parameters", ())),
        body=tuple(
            (media, form(inside.get("schema", {})), tuple(_rows(inside.get("schema", {}))))
            for media, inside in said.get("requestBody", {}).get("content", {}).items()
        ),
        answers=tuple(_answers(said["responses"])),
    )


def _way(asked: Mapping[str, Any]) -> str:
    return next(words for name, words in WAYS.items() if name in asked)


def _parameter(said: Mapping[str, Any]) -> Row:
    return Row(said["name"], form(said["schema"]), bool(said.get("required")), coded(said.get("description", "")))


def _answers(responses: Mapping[str, Any]) -> Iterator[Answer]:
    for status, said in responses.items():
        if status.endswith("XX"):
            continue  # a problem, which is the same everywhere
        content = said.get("content", {})
        for media, inside in content.items():
            yield Answer(status, media, form(inside.get("schema", {})))
        if not content:
            yield Answer(status, "", Markup("nothing"))


def _shapes(said: list[Mapping[str, Any]], schemas: Mapping[str, Any]) -> Iterator[Shape]:
    taken = _reached([one.get("requestBody", {}) for one in said], schemas)
    for name in _reached(said, schemas):
        rows = tuple(_rows(schemas[name], given=name not in taken))
        yield Shape(_anchor(name), schemas[name]["title"], prose(schemas[name].get("description", "")), rows)


def _rows(schema: Mapping[str, Any], *, given: bool = False) -> Iterator[Row]:
    due = schema.get("required", ())
    for name, inside in schema.get("properties", {}).items():  # of what we give, every member is always there
        yield Row(name, form(inside), given or name in due, coded(inside.get("description", "")))


def _reached(said: object, schemas: Mapping[str, Any]) -> list[str]:
    """Names of the shapes that are led to from here, each once, the nearest first."""
    found: list[str] = []
    waiting = list(_refs(said))
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found.append(name)
            waiting += _refs(schemas[name])
    return found


def _refs(said: object) -> Iterator[str]:
    if isinstance(said, Mapping):
        if isinstance(said.get("$ref"), str):
            yield said["$ref"].rpartition("/")[2]
        for inside in said.values():
            yield from _refs(inside)
    elif isinstance(said, list):
        for inside in said:
            yield from _refs(inside)


def form(schema: Mapping[str, Any]) -> Markup:
    """Of what form a value is, in words; other shapes are links, long lists and patterns folded.

    >>> print(form({"type": "array", "maxItems": 6, "items": {"enum": ["F", "M"]}}))
    list, at most 6, each <code>F</code> or <code>M</code>
    >>> print(form({"anyOf": [{"type": "integer", "minimum": 1900.0, "maximum": 2200.0}, {"type": "null"}]}))
    whole number, 1900 to 2200; or null
    """
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a class="govuk-link" href="#{}">{}</a>').format(_anchor(name), name.rpartition("__")[2])
    if "anyOf" in schema:
        return _either(schema)
    if "enum" in schema or "const" in schema:
        return _one_of(schema.get("enum") or [json.dumps(schema["const"]).strip('"')])
    told = {"array": _list, "object": _object}.get(schema.get("type", ""), _plain)
    return told(schema)


def _either(schema: Mapping[str, Any]) -> Markup:
    kinds = [one for one in schema["anyOf"] if one.get("type") != "null"]
    own = {key: schema[key] for key in ("pattern",) if key in schema}  # of a text that may be left out
    words = Markup("; or ").join(form({**one, **own}) for one in kinds)
    return words + Markup("; or null") if len(kinds) < len(schema["anyOf"]) else words


def _list(schema: Mapping[str, Any]) -> Markup:
    inside = schema.get("items", {})
    most = Markup(", at most {}").format(schema["maxItems"]) if "maxItems" in schema else Markup()
    return Markup("list") + most + (Markup(", each ") + form(inside) if inside else Markup())


def _one_of(codes: list[Any]) -> Markup:
    said = [Markup("<code>{}</code>").format(code) if code != "" else Markup("empty") for code in codes]
    if len(said) == 1:
        return Markup("always ") + said[0]
    if len(said) <= LISTED:
        return Markup(", ").join(said[:-1]) + Markup(" or ") + said[-1]
    return _folded(Markup("one of {} codes").format(len(said)), Markup(", ").join(said))


def _object(schema: Mapping[str, Any]) -> Markup:
    values = schema.get("additionalProperties")
    if not isinstance(values, Mapping):
        return Markup("object")
    names = schema.get("propertyNames", {})
    each = Markup("object, each value ") + form(values)
    return each + (Markup("; names ") + _one_of(names["enum"]) if "enum" in names else Markup())


def _plain(schema: Mapping[str, Any]) -> Markup:
    words = escape(FORMATS.get(schema.get("format", ""), PLAIN.get(schema.get("type", ""), "any value")))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        words += Markup(", {} to {}").format(_number(low), _number(high))
    elif low is not None:
        words += Markup(", {} or more").format(_number(low))
    elif high is not None:
        words += Markup(", {} at most").format(_number(high))
    if "maxLength" in schema:
        words += Markup(", at most {} characters").format(schema["maxLength"])
    if pattern := schema.get("pattern"):
        like = Markup("<code>{}</code>").format(pattern)
        words += (
            Markup(" like ") + like if len(pattern) <= LONGEST else Markup(" ") + _folded(Markup("of a form"), like)
        )
    return words


def _folded(summary: Markup, inside: Markup) -> Markup:
    return Markup(
        '<details class="govuk-details govuk-!-margin-0"><summary class="govuk-details__summary">'
        '<span class="govuk-details__summary-text">{}</span></summary>'
        '<div class="govuk-details__text service-once">{}</div></details>'
    ).format(summary, inside)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _anchor(name: str) -> str:
    return "shape-" + name.lower().replace("__", "-").replace("_", "-")


def prose(text: str) -> Markup:
    """A docstring's words as a paragraph or several; what stands between backticks is code.

    >>> print(prose("Of `a`.\\n\\nOf <b>."))
    <p class="govuk-body">Of <code>a</code>.</p><p class="govuk-body">Of &lt;b&gt;.</p>
    """
    paragraphs = filter(None, (one.strip() for one in text.split("\n\n")))
    return Markup().join(Markup('<p class="govuk-body">{}</p>').format(coded(one)) for one in paragraphs)


def coded(text: str) -> Markup:
    """Words in which what stands between backticks is code."""
    pieces = enumerate(" ".join(text.split()).split("`"))
    return Markup().join(Markup("<code>{}</code>").format(one) if at % 2 else escape(one) for at, one in pieces)


def _schemes(document: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    said: Mapping[str, Any] = document["components"]["securitySchemes"]
    titles = {name: capitalised(words) for name, words in WAYS.items()} | {CSRF: "A change by a person signed in here"}
    return [(title, prose(said[name]["description"])) for name, title in titles.items()]


def _places(made: tuple[Group, ...]) -> dict[str, str]:
    """Where each operation is told, by its method and path."""
    return {
        f"{one.method} {one.path}": f"/api-reference/{group.place}#{one.anchor}"
        for group in made
        for one in group.operations
    }
