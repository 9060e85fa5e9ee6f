"""A survey of limits: each is tried with as much as it lets through, and with one more.

Those of the API are read from its own document, those of the settings from their fields, and those of modules from their
constants, so that a new one fails here until it is tried, or said to be none.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import copy
import io
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from broker import certificates, manifests, parsing, reports, searches, signing, submissions, tokens
from broker import clock as broker_clock
from broker.callers import Caller as OfCaller
from broker.cli import serving as serving_cli
from broker.errors import Malformed
from broker.reports import exporting
from broker.settings import Budgets, LogRetention, Settings
from broker.web import pages
from linkage.matching.findings import DEFAULTS, Limits
from linkage.matching.parser import LENGTH
from linkage.records import schema_of
from tests.broker import test_client_certificates as certificate_tests
from tests.broker import test_tokens as tokens_tests
from tests.broker.platform import AnAgency, an_app
from tests.broker.test_who_may import GIVEN, MAY, Callers, callers, made_of, operations
from tests.builders import COUNCIL, a_batch, a_person, a_ref
from tests.builders_area import ANALYST, MORNING, the_time
from tests.builders_broker import Caller as BatchCaller
from tests.builders_broker import agreed, an_installation, serving
from tests.builders_families import ROBIN, a_linked_area
from tests.linkage.matching import test_intake as intake_tests

__all__ = ["callers"]  # a fixture
ROOT: Final = Path(__file__).parents[2]

# --- Of the API ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """Something of a request that has one: where, as a problem document points to it, and two values."""

    route: str
    where: str  # body, query or path
    place: tuple[str, ...]  # `[]`: any element
    name: str
    most: Any
    over: Any

    def __str__(self) -> str:
        return f"{self.route} {self.where} {'.'.join(self.place)} {self.name}"


def constrained(
    schema: Mapping[str, Any], document: Mapping[str, Any], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, Mapping[str, Any]]]:
    """Each constraint of size, length or number in a schema: its place, its name, and the schema it stands in."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for name in ("maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum", "minimum"):
        if name in schema:
            yield place, name, schema
    if "pattern" in schema and widest(schema["pattern"]) is not None:
        yield place, "pattern", schema
    for several in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(several, ()):
            yield from constrained(one, document, place)
    for name, one in schema.get("properties", {}).items():
        yield from constrained(one, document, (*place, name))
    if "items" in schema:
        yield from constrained(schema["items"], document, (*place, "[]"))
    if isinstance(schema.get("additionalProperties"), dict):
        name = schema["propertyNames"]["enum"][0]
        yield from constrained(schema["additionalProperties"], document, (*place, name))
    for pattern, one in schema.get("patternProperties", {}).items():
        yield from constrained(one, document, (*place, widest(pattern) or ""))


def widest(pattern: str) -> str | None:
    """The longest text that a pattern takes, where it is no list of words and has an end."""

    def of(parsed: Any) -> str:
        text = ""
        for operator, given in parsed:
            match operator:
                case sre.LITERAL:
                    text += chr(given)
                case sre.IN:
                    kind, first = given[0]
                    text += "0" if kind is sre.CATEGORY else chr(first[0] if kind is sre.RANGE else first)
                case sre.MAX_REPEAT:
                    _, most, inner = given
                    if most is sre.MAXREPEAT:
                        raise ValueError
                    text += of(inner) * most
                case sre.SUBPATTERN:
                    text += of(given[3])
                case sre.AT:
                    pass
                case _:
                    raise ValueError
        return text

    try:
        return of(sre_parser.parse(pattern)) or None
    except ValueError:
        return None


def two(name: str, schema: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """As much as a constraint takes, and one more; None where a closed list ends before the limit does."""
    limit = schema.get(name)
    match name:
        case "maxLength":
            if "pattern" in schema and len(widest(schema["pattern"]) or "a" * limit) < limit:
                return None  # the pattern ends before
            return "a" * limit, "a" * (limit + 1)
        case "pattern":
            text = widest(limit) or ""
            return (text, text + text[-1]) if not re.search(limit, text + text[-1]) else None
        case "maximum":
            return int(limit), int(limit) + 1
        case "minimum":
            return int(limit), int(limit) - 1
        case "exclusiveMaximum":
            return int(limit) - 1, int(limit)
        case "maxItems":
            one = made_of(schema["items"], document)
            return [one] * limit, [one] * (limit + 1)
        case _:
            if "patternProperties" in schema:
                [(pattern, inner)] = schema["patternProperties"].items()
                keys, value = [f"key-{number:08d}" for number in range(limit + 1)], made_of(inner, document)
                assert all(re.search(pattern, key) for key in keys)
            else:
                keys, value = schema["propertyNames"]["enum"][: limit + 1], None
            if len(keys) <= limit:
                return None
            return dict.fromkeys(keys[:limit], value), dict.fromkeys(keys, value)


def limits_of(document: Mapping[str, Any]) -> Iterator[Limit]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            route = f"{method.upper()} {path}"
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            places = [("body", (), body)] if body else []
            places += [(one["in"], (one["name"],), one["schema"]) for one in operation.get("parameters", ())]
            for where, at, schema in places:
                for place, name, found in constrained(schema, document, at):
                    if pair := two(name, found, document):
                        yield Limit(route, where, place, name, *pair)


def put(value: Any, place: tuple[str, ...], into: Any, schema: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    """A body with a value at a place, and what has to lie on the way to it."""
    if not place:
        return value
    if "$ref" in schema:
        return put(value, place, into, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema and "properties" not in schema:
            held = next(one for one in schema[several] if one.get("type") != "null")
            return put(value, place, into, held, document)
    name, *rest = place
    if name == "[]":
        inner = into[0] if into else made_of(schema["items"], document)
        return [put(value, tuple(rest), inner, schema["items"], document), *(into or [])[1:]]
    inside = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
    inside = inside or next(iter(schema["patternProperties"].values()))
    known = copy.deepcopy(into) if isinstance(into, dict) else made_of(schema, document)
    known[name] = put(value, tuple(rest), known.get(name), inside, document)
    return known


def pointed_at(answer: Response, limit: Limit) -> bool:
    """Whether an answer says of this part of the request that it is not of its form."""
    errors = answer.json().get("errors", ()) if answer.status_code == 422 else ()
    place = (limit.where, *limit.place)
    return any(
        len(pointer) >= len(place)
        and all(part == "[]" or said in (part, "*") for said, part in zip(pointer, place, strict=False))
        for pointer in (one["pointer"].split("/")[1:] for one in errors)
    )


def told(answer: Response) -> tuple[int, str]:
    """What an answer says, without its id."""
    problem = answer.status_code >= 400
    return answer.status_code, json.dumps({**answer.json(), "instance": ""}) if problem else ""


def otherwise(takes: Response, refuses: Response) -> bool:
    """Refused by the use case, in words of its own."""
    return refuses.status_code == 400 and told(takes) != told(refuses)


UNLIKE: Final[Mapping[str, Callable[[Response, Response], bool]]] = {
    # an address that is of no form is not there, like one of nothing
    "path": lambda takes, refuses: refuses.status_code == 404 or otherwise(takes, refuses),
    "query": otherwise, "header": otherwise, "body": otherwise,
}  # fmt: skip
MADE: Final = {
    **GIVEN,
    "GET /fhir/AuditEvent": ("/fhir/AuditEvent?purpose=lawfulness", None),
    "GET /audit/consistency": ("/audit/consistency?old=0&new=1", None),
}
"""Samples that the document alone does not give."""
HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    "POST /v1/flows/{flow}/batches": {"idempotency-key": "0" * 8},
}
ELSEWHERE: Final = {
    # looked at once the manifest is read; the same address is tried with other routes here
    "POST /v1/flows/{flow}/batches path flow pattern": "test_submissions.py::test_nobody_sees_or_touches_anothers_batch",
    # looked at once there is a batch
    "PUT /v1/flows/{flow}/batches/{batch}/{table}/chunks/{number} header content-digest pattern":
        "test_submissions.py::test_tampered_chunks_never_reach_the_spool",
}  # fmt: skip


def test_each_limit_of_the_api_takes_as_much_as_it_says_and_no_more(callers: Callers) -> None:
    document = callers.app.openapi()
    samples = {route: (method, path, body) for method, path, body, route in operations(document)}
    limits, wrong = list(limits_of(document)), []
    for limit in (one for one in limits if str(one) not in ELSEWHERE):
        method, path, body = samples[limit.route]
        path, body = MADE.get(limit.route, (path, body))
        operation = document["paths"][limit.route.partition(" ")[2]][method.lower()]
        bare, _, query = path.partition("?")
        who = min(MAY.get(limit.route, {"nobody"}), key=lambda one: one == "agency")
        answers = []
        for value in (limit.most, limit.over):
            address, sent, headers = path, body, {}
            if limit.where == "path":
                address = limit.route.partition(" ")[2].replace("{" + limit.place[0] + "}", str(value))
                address = re.sub(r"\{[^}]+\}", "0" * 32, address) + (f"?{query}" if query else "")
            elif limit.where == "query":
                values = value if isinstance(value, list) else [value]
                name = limit.place[0]
                kept = [one for one in query.split("&") if one and not one.startswith(f"{name}=")]
                address = f"{bare}?{'&'.join([*kept, *(f'{name}={one}' for one in values)])}"
            elif limit.where == "header":
                headers = {limit.place[0]: str(value)}
            else:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                sent = put(value, limit.place, body, schema, document)
            raw = b"" if sent is None else json.dumps(sent).encode()
            media = next(iter(operation.get("requestBody", {}).get("content", {})), "application/json")
            answer = callers.send(
                who, method, address, raw, {"Content-Type": media, **HEADERS.get(limit.route, {}), **headers}
            )
            if answer.status_code >= 500 or answer.status_code in (401, 403):
                wrong.append(f"{limit}: {answer.status_code} for {who}")
            answers.append(answer)
        takes, refuses = answers
        if pointed_at(takes, limit) or not (pointed_at(refuses, limit) or UNLIKE[limit.where](takes, refuses)):
            wrong.append(f"{limit}: {told(takes)} {told(refuses)}")
    assert not wrong, "\n".join(wrong)
    assert len(limits) > 100


# --- Of the settings and the modules ---------------------------------------------------------------------------------


def numbers(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """The settings of a table that are numbers."""
    for name, field in model.model_fields.items():
        if field.annotation in (int, float) or field.annotation == (int | None):
            yield name, field


def taken(model: type[BaseModel], name: str, value: float, folder: Path) -> bool:
    given: dict[str, Any] = {name: value}
    if model is Settings:
        given |= {
            "environment": "demo", "partnership": "northshire", "base_url": "http://127.0.0.1:8400",
            "database_url": f"sqlite:///{folder}/b.db", "data_dir": folder,
        }  # fmt: skip
    try:
        model(**given)
    except ValidationError:
        return False
    return True


TABLES: Final[Mapping[str, type[BaseModel]]] = {"": Settings, "budgets.": Budgets, "log_retention.": LogRetention}


def test_each_setting_with_bounds_is_taken_at_them_and_no_further(tmp_path: Path) -> None:
    tried = []
    for prefix, model in TABLES.items():
        for name, field in numbers(model):
            step = 1 if field.annotation is not float else 1e-9
            for bound in field.metadata:
                kind, at = (
                    next(iter(vars(bound).items())) if hasattr(bound, "__dict__") and vars(bound) else bound_of(bound)
                )
                inside, outside = {"ge": (0, -1), "le": (0, 1), "gt": (1, 0), "lt": (-1, 0)}[kind]
                tried.append(prefix + name)
                got = [taken(model, name, at + way * step, tmp_path) for way in (inside, outside)]
                assert got == [True, False], f"{prefix}{name} {kind} {at}"
    assert len(tried) > 30


def bound_of(bound: Any) -> tuple[str, Any]:
    """`ge`, `le`, `gt` or `lt`, and the number."""
    return next((kind, getattr(bound, kind)) for kind in ("ge", "le", "gt", "lt") if hasattr(bound, kind))


_S: Final = "broker/test_submissions.py"
_I: Final = "linkage/matching/test_intake.py"
_BUDGET: Final = "broker/test_budgets.py::test_nobody_gets_past_a_budget_by_any_order_of_calls"
_SIGNIN: Final = "broker/test_signin.py::test_a_session_ends_when_idle_and_after_eight_hours_in_any_case"
_YEARS: Final = "broker/test_retention.py"
SETTINGS: Final[Mapping[str, str]] = {
    **{f"budgets.{name}": _BUDGET for name, _ in numbers(Budgets)},
    "max_body_bytes": "broker/test_app.py::test_bodies_are_limited_by_what_they_declare_and_by_what_they_are",
    "max_chunk_bytes": "broker/test_limits.py::test_a_limit_of_a_module_takes_as_much_as_it_says_and_no_more",
    "token_seconds": "broker/test_tokens.py::test_an_access_token_holds_until_it_ends_and_for_this_broker_only",
    "session_idle_minutes": _SIGNIN, "session_hours": _SIGNIN,
    "receipt_seconds": "broker/test_together.py::test_without_the_signer_an_answer_waits_as_long_as_it_may_and_its_event_is_in_the_log",
    "query_memory_mb": f"{_I}::test_a_parquet_bomb_is_refused_in_little_memory",
    "epoch_hold_days": "broker/test_rotation.py::test_after_its_time_what_was_held_is_destroyed",
    **dict.fromkeys(
        ("epoch_lag_days", "epoch_records_band"),
        "broker/test_rotation.py::test_a_batch_of_other_records_far_behind_its_nights_or_under_a_key_that_was_not_opened_holds_the_flip",
    ),
    "epoch_rate_band": "broker/test_rotation.py::test_a_wrong_secret_that_shows_in_no_fingerprint_shows_in_the_link_rate",
    "log_retention.contact_years": f"{_YEARS}::test_the_last_contact_counts_and_not_the_event",
    "log_retention.until_age": f"{_YEARS}::test_a_child_is_kept_until_twenty_five",
    "log_retention.plain_years": f"{_YEARS}::test_where_nobody_is_known_the_plain_years_count_and_technical_events_go_sooner",
    "log_retention.technical_years": f"{_YEARS}::test_where_nobody_is_known_the_plain_years_count_and_technical_events_go_sooner",
    "ballast_kb": "broker/test_room.py::test_the_ballast_takes_its_room_for_real_and_only_where_as_much_again_is_free",
    "retrain_days": "broker/test_relink.py::test_a_night_retrains_when_it_is_due_and_is_not_lost_for_a_refused_model",
}  # fmt: skip
"""Numbers of the settings that hold something back, and the test that shows it."""
NO_LIMITS: Final = frozenset({"port", "metrics_port", "linger_ms", "pace_ms", "notice_minutes"})
"""Numbers of the settings that refuse nothing: where, and how often."""


def test_each_number_of_the_settings_is_shown_or_is_none_that_holds_back() -> None:
    there = {prefix + name for prefix, model in TABLES.items() for name, _ in numbers(model)}
    assert there == SETTINGS.keys() | NO_LIMITS
    assert [shown for shown in SETTINGS.values() if not is_there(shown)] == []


def is_there(shown: str) -> bool:
    file, _, name = shown.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@dataclass(frozen=True)
class Bench:
    """What a limit of a module is tried with."""

    folder: Path
    patch: pytest.MonkeyPatch


Probe = Callable[[Bench], tuple[bool, bool]]
"""Whether as much as the limit was taken, and whether one more was."""


def refuses(ask: Callable[[], Any], *errors: type[Exception]) -> bool:
    try:
        ask()
    except errors:
        return True
    return False


def of_a_token(_: Bench) -> tuple[bool, bool]:
    made = sorted((tokens_tests.signed({"more": "m" * size}) for size in range(5_700, 6_200)), key=len)
    at = max(len(one) for one in made if len(one) <= tokens.LONGEST_TOKEN)
    assert at >= tokens.LONGEST_TOKEN - 2  # base64 has not every length
    one, over = (next(one for one in made if len(one) > size) for size in (at - 1, tokens.LONGEST_TOKEN))
    return tokens_tests.accepts(one), tokens_tests.accepts(over)


def of_claims(*, at: Mapping[str, int], over: Mapping[str, int], gateway: bool = False) -> Probe:
    def probe(_: Bench) -> tuple[bool, bool]:
        if gateway:
            return tokens_tests.vouches(tokens_tests.vouched(**at)), tokens_tests.vouches(tokens_tests.vouched(**over))
        return tokens_tests.accepts(tokens_tests.signed(**at)), tokens_tests.accepts(tokens_tests.signed(**over))

    return probe


def of_an_rsa_key(_: Bench) -> tuple[bool, bool]:
    def known(size: int) -> bool:
        key = rsa.generate_private_key(public_exponent=65537, key_size=size)
        return not refuses(lambda: tokens.ClientKey.of(tokens_tests.jwk_of(key), owner="a"), tokens.BadKey)

    return known(tokens.SMALLEST_RSA), known(tokens.SMALLEST_RSA - 1)


def of_a_chunk_size(name: str, way: int) -> Probe:
    def probe(bench: Bench) -> tuple[bool, bool]:
        limit = getattr(manifests, name)
        with serving(an_installation(bench.folder, agencies={COUNCIL: ("education",)})) as http:
            council = BatchCaller(http)
            return tuple(
                council.open(agreed(a_batch(chunk_size=size))).status_code == 201 for size in (limit, limit + way)
            )  # type: ignore[return-value]

    return probe


def of_a_queue(name: str, count: int) -> Probe:
    """So many nights of one agency wait: with room for one more the next is taken, and without it is not."""

    def probe(bench: Bench) -> tuple[bool, bool]:
        with serving(an_installation(bench.folder, agencies={COUNCIL: ("education",)})) as http:
            council = BatchCaller(http)
            for sequence in range(1, count + 1):
                batch = agreed(a_batch(sequence=sequence))
                council.hand_in(batch) if name == "WAITING" else council.open(batch)
            told = []
            for limit in (count, count + 1):
                bench.patch.setattr(submissions, name, limit)
                told.append(council.open(agreed(a_batch(sequence=count + 1))).status_code)
            assert set(told) <= {201, 429}
            return told[1] == 201, told[0] == 201

    return probe


def of_intake(name: str, exact: int, over: Callable[[int], Any]) -> Probe:
    def probe(bench: Bench) -> tuple[bool, bool]:
        def accepted(count: int) -> bool:
            folder = bench.folder / f"{name}-{count}"
            folder.mkdir()
            return bool(intake_tests.checked(over(count), folder).accepted)

        return accepted(exact), accepted(exact + 1)

    return probe


def of_rows(bench: Bench) -> tuple[bool, bool]:
    return tuple(  # type: ignore[return-value]
        intake_tests.checked(a_batch(), bench.folder, limits=Limits(rows=rows)).accepted for rows in (2, 1)
    )


def of_row_bytes(bench: Bench) -> tuple[bool, bool]:
    """The longest row of a good batch, measured as its bytes, is taken where the limit is its length."""

    def accepted(limit: int) -> bool:
        return bool(intake_tests.checked(a_batch(), bench.folder, limits=Limits(row_bytes=limit)).accepted)

    rows = pq.read_table(io.BytesIO(a_batch().files["persons"])).to_pylist()
    texts = max(sum(len(value) for value in row.values() if isinstance(value, str)) for row in rows)
    schema = schema_of("persons", "guarded-3")
    exact = texts + 8 * sum(kind != pa.string() for kind in schema.types)
    return accepted(exact), accepted(exact - 1)


def of_a_message(_: Bench) -> tuple[bool, bool]:
    def read(size: int) -> bool:
        here, there = socket.socketpair()
        with here, there:
            body = b'{"a":"' + b"x" * (size - 8) + b'"}'
            sending = threading.Thread(target=lambda: here.sendall(size.to_bytes(4, "big") + body))
            sending.start()
            try:
                return signing._receive(there) is not None
            except ValueError:
                return False
            finally:
                there.close()
                sending.join()

    return read(signing.MAX_MESSAGE), read(signing.MAX_MESSAGE + 1)


def of_an_origin(bench: Bench) -> tuple[bool, bool]:
    def opened(size: int) -> bool:
        origin = "b".ljust(size - len(".example/audit/2026"), "b") + ".example/audit/2026"
        assert len(origin) == size
        return not refuses(lambda: signing.SignerFolder(bench.folder / "signer").open(origin), signing.SignerRefused)

    return opened(signing.MAX_ORIGIN), opened(signing.MAX_ORIGIN + 1)


def of_a_frame(bench: Bench) -> tuple[bool, bool]:
    bench.patch.setattr(parsing, "FRAME_BYTES", 5)

    def read(size: int) -> bool:
        return not refuses(lambda: parsing.frame_of(io.BytesIO(LENGTH.pack(size) + b"x" * size)), parsing.ParserDied)

    return read(5), read(6)


def of_a_certificate(bench: Bench) -> tuple[bool, bool]:
    value = base64.b64encode(certificate_tests.OURS.der).decode()

    def read(limit: int) -> bool:
        bench.patch.setattr(certificates, "LONGEST", limit)
        return not refuses(lambda: certificates._der(value), ValueError)

    return read(len(value)), read(len(value) - 1)


def of_a_form(_: Bench) -> tuple[bool, bool]:
    def read(count: int) -> bool:
        async def receive() -> Any:
            return {
                "type": "http.request",
                "body": "&".join(f"a{n}=" for n in range(count)).encode(),
                "more_body": False,
            }

        head = [(b"content-type", b"application/x-www-form-urlencoded")]
        request = Request({"type": "http", "method": "POST", "path": "/", "headers": head}, receive)
        return not refuses(lambda: asyncio.run(pages._form(request)), Malformed)

    return read(pages.FIELDS), read(pages.FIELDS + 1)


def of_a_listing(bench: Bench) -> tuple[bool, bool]:
    """A search that fits so many children lists them, and one that fits one more asks for another detail."""
    with the_time(MORNING):
        area = a_linked_area(bench.folder / "northshire")
        told = []
        for limit in (1, 0):
            bench.patch.setattr(searches, "LISTED", limit)
            told.append(len(area.asker(ANALYST).search(ROBIN.typed(), case="limit")["candidates"]) == 1)
        area.close()
    return told[0], told[1]


def of_a_file_of_a_search(bench: Bench) -> tuple[bool, bool]:
    """What a search of the log found is one file where it is as much as a file holds, and none where it is one more."""
    app = an_app(bench.folder)
    broker, at = app.state.broker, broker_clock.now()
    officer = OfCaller(kind="officer", organisation="northshire", person="ig-1", role="IG_OFFICER", method="demo")
    AnAgency().enrolled(broker)
    own = reports.search_log(
        broker.store, broker.trail, officer, reason="lawfulness", wanted=reports.LogFilter(), at=at
    )
    found = len(reports.found(broker.store, broker.trail, officer, search=own, at=at).found)
    assert found > 1

    def made() -> Any:
        return exporting.export_found(
            broker.store, broker.trail, officer, search=own, fmt="csv", reason="lawfulness", at=at
        )

    told = []
    for limit in (found, found - 1):
        bench.patch.setattr(exporting, "MOST", limit)
        told.append(not refuses(made, Malformed))
    broker.store.close()
    return told[0], told[1]


def of_a_chunk(bench: Bench) -> tuple[bool, bool]:
    """A chunk may be larger than any other body: nobody is asked who they are before that is looked at."""
    app = an_app(bench.folder, max_body_bytes=1000, max_chunk_bytes=2000)
    address = f"/v1/flows/health/batches/{'0' * 32}/persons/chunks/0"
    with TestClient(app, raise_server_exceptions=False) as http:
        told = [http.put(address, content=b"x" * size).status_code for size in (2000, 2001)]
    return told[0] != 413, told[1] != 413


def of_a_head(bench: Bench) -> tuple[bool, bool]:
    """A request's line and headers, as `broker serve` reads them from a connection, before their end has come."""
    server = uvicorn.Server(serving_cli.how_to_serve(an_app(bench.folder)))
    listening = socket.create_server(("127.0.0.1", 0))
    running = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    running.start()

    def taken_(size: int) -> bool:
        with socket.create_connection(listening.getsockname()) as line:
            start = b"GET /health/live HTTP/1.1\r\nHost: b\r\nX-Long: "
            line.sendall(start + b"x" * (size - len(start)))
            line.settimeout(1)
            with suppress(TimeoutError):
                return line.recv(100).startswith(b"HTTP/1.1 200")  # it did not wait for the end
            line.settimeout(60)
            line.sendall(b"\r\n\r\n")
            return line.recv(100).startswith(b"HTTP/1.1 200")

    try:
        return taken_(serving_cli.LONGEST_HEAD), taken_(serving_cli.LONGEST_HEAD + 1)
    finally:
        server.should_exit = True
        running.join()


PROBES: Final[Mapping[str, Probe]] = {
    "broker/cli/serving.py LONGEST_HEAD": of_a_head,
    "broker/tokens.py LONGEST_TOKEN": of_a_token,
    "broker/tokens.py LONGEST_CLIENT_ASSERTION_SECONDS": of_claims(
        at={"exp": tokens_tests.NOW + 300}, over={"exp": tokens_tests.NOW + 301}
    ),
    "broker/tokens.py LONGEST_GATEWAY_ASSERTION_SECONDS": of_claims(
        at={"exp": tokens_tests.NOW + 60}, over={"exp": tokens_tests.NOW + 61}, gateway=True
    ),
    "broker/tokens.py CLOCK_SKEW_SECONDS": of_claims(
        at={"iat": tokens_tests.NOW + 60, "exp": tokens_tests.NOW + 90},
        over={"iat": tokens_tests.NOW + 61, "exp": tokens_tests.NOW + 90},
    ),
    "broker/tokens.py SMALLEST_RSA": of_an_rsa_key,
    "broker/manifests.py SMALLEST_CHUNK": of_a_chunk_size("SMALLEST_CHUNK", -1),
    "broker/manifests.py LARGEST_CHUNK": of_a_chunk_size("LARGEST_CHUNK", 1),
    "broker/submissions.py OPEN_BATCHES": of_a_queue("OPEN_BATCHES", 1),
    "broker/submissions.py WAITING": of_a_queue("WAITING", 1),
    "broker/searches.py LISTED": of_a_listing,
    "broker/signing.py MAX_MESSAGE": of_a_message,
    "broker/signing.py MAX_ORIGIN": of_an_origin,
    "broker/parsing.py FRAME_BYTES": of_a_frame,
    "broker/certificates.py LONGEST": of_a_certificate,
    "broker/web/pages.py FIELDS": of_a_form,
    "broker/reports/exporting.py MOST": of_a_file_of_a_search,
    "Limits rows": of_rows,
    "Limits row_bytes": of_row_bytes,
    "Limits alternatives": of_intake(
        "alternatives", DEFAULTS.alternatives,
        lambda count: a_batch(persons=[a_person(a_ref("one"), given=f"name{n}") for n in range(count)]),
    ),
    "Limits identifiers": of_intake(
        "identifiers", DEFAULTS.identifiers,
        lambda count: a_batch(persons=[a_person(a_ref("one"), given=f"name{n}", id_local=str(n)) for n in range(count)]),
    ),
    "setting max_chunk_bytes": of_a_chunk,
}  # fmt: skip


@pytest.mark.parametrize("limit", PROBES)
def test_a_limit_of_a_module_takes_as_much_as_it_says_and_no_more(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PROBES[limit](Bench(tmp_path, monkeypatch)) == (True, False)


LIKELY: Final = re.compile(
    r"MAX|MOST|LONGEST|LARGEST|SMALLEST|LISTED|OPEN_BATCHES|WAITING|HELD|FIELDS|PAGE|LIMIT|FRAME"
)
_PAGED: Final = "broker/test_reports.py::test_pages_follow_one_another_without_a_gap_or_a_repeat_however_the_log_grows"
SHOWN: Final[Mapping[str, str]] = {
    "broker/api/audit.py MOST_DATES": "broker/test_limits.py::test_each_limit_of_the_api_takes_as_much_as_it_says_and_no_more",
    "broker/api/audit.py LONGEST_TOKEN": "broker/test_limits.py::test_each_limit_of_the_api_takes_as_much_as_it_says_and_no_more",
    "broker/reviewing.py MAX_NOTE": "broker/test_limits.py::test_each_limit_of_the_api_takes_as_much_as_it_says_and_no_more",
    "broker/api/audit.py PAGE": "broker/test_reports_api.py::test_pages_of_audit_events_follow_their_links",
    "broker/reports/search.py LISTED": _PAGED,
    "broker/reviews/said.py PAGE": "broker/test_reviews.py::test_the_queue_is_by_age_alone_and_goes_on_where_the_last_page_ended",
    "broker/submissions.py HELD": f"{_S}::test_nights_that_wait_have_an_end_and_the_one_they_wait_for_is_let_in",
    "broker/signing.py MAX_SHARDS": "broker/test_signing.py::test_a_folder_that_is_full_opens_no_more_logs_and_those_it_has_again",
    "broker/gates.py MOST_CHILDREN": "broker/test_nightly.py::test_a_gate_names_what_must_not_be_served",
    "broker/gathering.py MOST_PIECES":
        "broker/test_nightly.py::test_deltas_lie_beside_what_they_change_until_there_are_many_and_say_what_one_full_night_says",
    "broker/retention.py AT_MOST": f"{_YEARS}::test_of_very_much_a_part_goes_at_a_time_the_oldest_first",
    "linkage/matching/parser.py FRAME_BYTES":
        "broker/test_parsing.py::test_a_frame_that_is_too_long_is_not_taken_and_one_cut_short_is_none",
}  # fmt: skip
"""Limits of modules that another test shows."""
CUT: Final = frozenset(
    {
        "broker/considering.py PAGE", "broker/ledger.py PAGE", "broker/overrides.py LISTED", "broker/reviewing.py LISTED",
        "broker/web/pages.py LONGEST", "broker/signing.py MAX_CONNECTIONS", "broker/cli/lean.py M_MMAP_MAX", "broker/web/reference.py LONGEST", "broker/web/reference.py LISTED",
    }
)  # fmt: skip
"""Numbers of the kind that refuse nothing: what is over is on the next page, cut, or waits."""


def test_each_number_of_a_module_that_sounds_like_a_limit_is_tried_or_said_to_be_none() -> None:
    files = [file for file in (ROOT / "broker").rglob("*.py") if "migrations" not in file.parts]
    named = {
        f"{file.relative_to(ROOT)} {node.target.id}": ast.unparse(node.value)
        for file in (*files, ROOT / "linkage/matching/parser.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
    }
    there = {
        name
        for name, value in named.items()
        if LIKELY.search(name.partition(" ")[2]) and re.fullmatch(r"[\d_ *<+MiB-]+", value)
    }
    tried = {name for name in PROBES if ".py " in name}
    assert there - tried - SHOWN.keys() - CUT == set()
    # one that is gone: what a module imports has its name there all the same
    assert (tried | SHOWN.keys() | CUT) - named.keys() == {"broker/parsing.py FRAME_BYTES"}
    assert [shown for shown in SHOWN.values() if not is_there(shown)] == []


def test_each_limit_of_a_batch_is_tried_or_said_to_be_none() -> None:
    shown = {
        "expansion": f"{_I}::test_many_short_rows_from_a_few_bytes_expand_too_much",
        "small": f"{_I}::test_many_short_rows_from_a_few_bytes_expand_too_much",
        "listed": f"{_I}::test_the_listing_is_capped_and_the_totals_are_not",
        "measuring_memory": f"{_I}::test_a_parquet_bomb_is_refused_in_little_memory",
        "checking_memory": f"{_I}::test_a_parquet_bomb_is_refused_in_little_memory",
    }
    tried = {name.removeprefix("Limits ") for name in PROBES if name.startswith("Limits ")}
    assert {field.name for field in fields(Limits)} == tried | shown.keys() | {"threads"}
    assert [one for one in shown.values() if not is_there(one)] == []
