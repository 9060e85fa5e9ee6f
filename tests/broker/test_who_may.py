"""Who may call what: every route by every kind of caller and role; whoever is not listed is denied.

The routes are those of the broker's own OpenAPI document, and bodies are made from its schemas, so that a call gets as far
as its caller may.  A new route fails here until it is listed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import unquote

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from jsonschema import Draft202012Validator

from broker import clock, signin
from broker.app import PUBLIC
from broker.erasure import AUTHORITIES, HOLDS
from broker.lifting import LIFTS
from broker.settings import BrokerRole, DemoPerson, Inspection
from broker.wiring import Broker
from tests.broker.platform import BASE_URL, AnAgency, an_app

DENIED: Final = (401, 403)
GATEWAY_ROLES: Final = ("MASH_ANALYST", "MASH_DECISION_MAKER", "AGENCY_REP")
FORM: Final = (400, 422)  # looked at the body before the role
MACHINE: Final = frozenset({"agency", *GATEWAY_ROLES})  # a person's statement adds nothing where the machine may
PEOPLE: Final = frozenset(GATEWAY_ROLES)
REP: Final = frozenset({"AGENCY_REP"})
IG: Final = frozenset({"IG_OFFICER", "DPO", "CALDICOTT"})
LOOK: Final = IG | {"INSPECTOR"}
REVIEWER: Final = frozenset({"LINK_REVIEWER"})
OFFICERS: Final = frozenset(get_args(BrokerRole))
PLANNER: Final = frozenset({"SERVICE_PLANNER"})
PUBLIC_TOO: Final = ("GET /audit/log/{shard}/tile/{path}",)
DAYS: Final = "first=2026-11-01&last=2026-11-30"
BATCHES: Final = "/v1/flows/{flow}/batches"

MAY: Final[Mapping[str, frozenset[str]]] = {
    "GET /audit/events/{event_id}/proof": MACHINE | LOOK, "GET /audit/events/{event_id}/opening": MACHINE | LOOK,
    **dict.fromkeys(
        (
            "GET /audit/events", "POST /audit/searches", "GET /audit/searches/{search}", "GET /audit/events/{event_id}",
            "POST /audit/exports", "GET /fhir/AuditEvent",
        ), LOOK,
    ),
    **dict.fromkeys(
        (
            "GET /audit/reports", "GET /audit/flags",
            "POST /audit/flags", "GET /audit/reviews", "GET /audit/reviews/{event_id}",
            "POST /audit/reviews/{event_id}/take", "POST /audit/reviews/{event_id}/decision",
            "POST /audit/reviews/{event_id}/signoff", "GET /audit/activity", "GET /audit/rules",
            "POST /audit/rules/{rule}/thresholds", "GET /audit/samples", "POST /audit/samples",
            "GET /audit/samples/{sample}", "POST /audit/packs", "GET /audit/subjects/codes",
            "GET /audit/subjects/holds", "POST /audit/subjects/holds", "POST /audit/subjects/holds/{hold}/release",
            "GET /audit/subjects/erasures", "POST /audit/subjects/erasures",
            "POST /audit/subjects/erasures/{proposed}/decision", "GET /audit/subjects/lifts",
            "POST /audit/subjects/lifts", "POST /audit/subjects/lifts/{lift}/decision",
            "POST /audit/subjects/reports", "POST /v1/statistics/releases/{release}/check",
        ), IG,
    ),
    **dict.fromkeys(
        (
            "GET /v1/flows/{flow}", "POST /v1/flows/{flow}/heartbeat", f"POST {BATCHES}", f"PUT {BATCHES}/{{batch}}/{{table}}/chunks/{{number}}",
            f"GET {BATCHES}/{{batch}}", f"DELETE {BATCHES}/{{batch}}", f"POST {BATCHES}/{{batch}}/commit",
            f"GET {BATCHES}/{{batch}}/receipt", f"GET {BATCHES}/{{batch}}/rejections", "GET /v1/in-force",
            "GET /v1/record-questions/{reference}",
        ), MACHINE,
    ),
    # The decision says which role may ask for what, and a refusal is an answer with a receipt.
    **dict.fromkeys(
        (
            "POST /v1/searches", "POST /v1/disclosures", "POST /v1/thresholds", "POST /v1/emergencies",
            "POST /v1/emergencies/{emergency}/end",
        ), PEOPLE,
    ),
    **dict.fromkeys(
        (
            "GET /v1/reviews", "GET /v1/reviews/{review}", "GET /v1/reviews/{review}/ask",
            "POST /v1/reviews/{review}/decision", "POST /v1/reviews/{review}/confirm",
            "POST /v1/reviews/{review}/withdraw",
        ), REVIEWER,
    ),
    "GET /v1/reviews/codes": OFFICERS, "GET /v1/statistics/tables": OFFICERS,
    "POST /v1/wrong-person": MACHINE | OFFICERS,  # whoever sees that an answer was of somebody else
    "GET /v1/considerations": REP, "GET /v1/considerations/codes": PEOPLE,
    "POST /v1/considerations/{consideration}/decision": REP,
    **dict.fromkeys(
        ("GET /v1/ledger", "POST /v1/ledger/accesses", "GET /v1/ledger/recalls", "POST /v1/ledger/read"),
        REP | {"agency"},
    ),
    "GET /v1/statistics/releases": IG | PLANNER, "POST /v1/statistics/releases": PLANNER,
    "GET /v1/statistics/releases/{release}": IG | PLANNER, "GET /v1/statistics/releases/{release}/csv": IG | PLANNER,
}  # fmt: skip
"""Every route that is not public, and who gets past its door; what is whose own is told apart behind it, by 404."""

SUBJECT: Final = {"subject": f"northshire-icb/health/{'0' * 64}"}
GIVEN: Final[Mapping[str, tuple[str, Any]]] = {
    "POST /audit/searches": ("/audit/searches", {"purpose": "lawfulness"}),
    "POST /audit/exports": (
        "/audit/exports", {"purpose": "lawfulness", "report": "R1", "first": "2026-11-01", "last": "2026-11-30"},
    ),
    "GET /audit/flags": (f"/audit/flags?purpose=lawfulness&{DAYS}", None),
    "GET /audit/reviews": ("/audit/reviews?purpose=lawfulness", None),
    "GET /audit/reviews/{event_id}": (f"/audit/reviews/{'0' * 32}?purpose=lawfulness", None),
    "GET /audit/activity": (f"/audit/activity?purpose=lawfulness&{DAYS}", None),
    "POST /audit/rules/{rule}/thresholds": (
        "/audit/rules/burst/thresholds", {"name": "an_hour", "value": 40, "why": "trial"},
    ),
    "GET /audit/samples/{sample}": (f"/audit/samples/{'0' * 32}?purpose=lawfulness", None),
    "POST /v1/statistics/releases": ("/v1/statistics/releases", {"table": "a-table", "period": "2026-Q3"}),
    "POST /audit/subjects/holds": ("/audit/subjects/holds", {**SUBJECT, "reason": next(iter(HOLDS))}),
    "POST /audit/subjects/erasures": ("/audit/subjects/erasures", {**SUBJECT, "authority": next(iter(AUTHORITIES))}),
    "POST /audit/subjects/lifts": ("/audit/subjects/lifts", {**SUBJECT, "reason": next(iter(LIFTS))}),
    "POST /audit/subjects/reports": ("/audit/subjects/reports", {**SUBJECT, "relation": "subject"}),
    "POST /audit/packs": ("/audit/packs", {"month": "2026-11-01", "purpose": "lawfulness"}),
}  # fmt: skip
"""Where a schema does not say enough for a call to get as far as the role."""

TEXTS: Final = (
    "0" * 32, "0" * 64, "0" * 16, "2026-11-01", "2026-11-01T00:00:00Z", "northshire-icb", "S47", "x" * 12, "A", "1", "",
)  # fmt: skip


class Callers:
    """A broker with an agency whose people have several roles, and an officer of each."""

    def __init__(self, folder: Path) -> None:
        people = tuple(
            DemoPerson(
                person=role.lower(), label=role, role=role,
                organisation="northshire-icb" if role == "SERVICE_PLANNER" else "",
            )
            for role in get_args(BrokerRole)
        )  # fmt: skip
        today = clock.now().date()
        inspections = (Inspection(person="inspector", first=today, last=today + timedelta(days=1)),)
        self.app = an_app(folder, demo_people=people, inspections=inspections, pace_ms=0)
        self.broker: Broker = self.app.state.broker
        self.agency = AnAgency().enrolled(self.broker, roles=list(GATEWAY_ROLES))
        self.http = TestClient(self.app, base_url=BASE_URL, raise_server_exceptions=False, follow_redirects=False)
        self.token = self.agency.token(self.http)
        self.officers = {
            role: signin.sign_in_to_demo(self.broker.store, self.broker.settings, role.lower(), at=clock.now())
            for role in get_args(BrokerRole)
        }

    def call(self, who: str, method: str, path: str, body: Any) -> Response:
        raw = b"" if body is None else json.dumps(body).encode()
        return self.send(who, method, path, raw, {"Content-Type": "application/json"} if body is not None else {})

    def send(self, who: str, method: str, path: str, raw: bytes, given: Mapping[str, str]) -> Response:
        """These bytes, with the credentials of one kind of caller."""
        headers = dict(given)
        if who == "agency" or who in GATEWAY_ROLES:
            headers["Authorization"] = f"Bearer {self.token}"
        if who in GATEWAY_ROLES:
            target = unquote(path.partition("?")[0])
            if query := self.http.build_request(method, path).url.query.decode():  # as it will be sent
                target += f"?{query}"
            headers["Gateway-Assertion"] = self.agency.vouch(method, target, raw, role=who)
        if who in self.officers:
            cookie, session = self.officers[who]
            headers |= {"Cookie": f"{signin.COOKIE}={cookie}", "X-CSRF-Token": session.csrf, "Origin": BASE_URL}
        return self.http.request(method, path, content=raw, headers=headers)


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    made = Callers(tmp_path_factory.mktemp("who"))
    yield made
    made.broker.store.close()


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, str]]:
    """Method, path with its parameters filled in, a body that its schema takes, and the route."""
    for route, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            body = made_of(content["schema"], document) if "schema" in content else None
            query = [
                f"{one['name']}={made_of(one['schema'], document)}"
                for one in operation.get("parameters", ())
                if one["in"] == "query" and one.get("required")
            ]
            path = re.sub(r"\{[^}]+\}", "0" * 32, route)
            yield method.upper(), path + (f"?{'&'.join(query)}" if query else ""), body, f"{method.upper()} {route}"


def made_of(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    """Some value of a schema: the least that it takes."""
    if "$ref" in schema:
        return made_of(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return made_of(schema[several][0], document)
    match schema.get("type"):
        case "object":
            known = schema.get("properties", {})
            return {name: made_of(known[name], document) for name in schema.get("required", ())}
        case "array":
            return [made_of(schema["items"], document) for _ in range(schema.get("minItems", 0))]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "string":
            if schema.get("format") in ("date", "date-time"):
                return TEXTS[3 if schema["format"] == "date" else 4]
            pattern, least = schema.get("pattern", ""), schema.get("minLength", 0)
            return next((text for text in TEXTS if re.search(pattern, text) and len(text) >= least), "x" * least)
    return {}


def undocumented(document: Mapping[str, Any], route: str, answer: Response) -> Iterator[str]:
    """What the API's description does not say of an answer: its status, its media type, or its form."""
    method, _, path = route.partition(" ")
    told = document["paths"][path][method.lower()]["responses"]
    said = told.get(str(answer.status_code), told.get(f"{answer.status_code // 100}XX"))
    if said is None:
        yield str(answer.status_code)
        return
    media = answer.headers.get("content-type", "").partition(";")[0]
    if answer.content and media not in said.get("content", ()):
        yield f"{answer.status_code} {media}"
    elif answer.content and media.endswith("json"):
        schema = {**said["content"][media].get("schema", {}), "components": document.get("components", {})}
        faults = Draft202012Validator(schema).iter_errors(answer.json())
        yield from {f"{answer.status_code} {fault.json_path} {fault.validator}" for fault in faults}


def test_whoever_is_not_listed_is_denied_on_every_route(callers: Callers) -> None:
    wrong, untold, seen = [], set(), set()
    document = callers.app.openapi()
    for method, path, body, route in operations(document):
        if route.partition(" ")[2] in PUBLIC or route in PUBLIC_TOO:
            continue
        seen.add(route)
        may, place = MAY[route], GIVEN.get(route, (path, body))
        for who in ("nobody", "agency", *GATEWAY_ROLES, *callers.officers):
            answer = callers.call(who, method, *place)
            status = answer.status_code
            untold |= {(route, one) for one in undocumented(document, route, answer)}
            if status >= 500 or (status in DENIED) is (who in may) or (status in FORM and who not in may):
                wrong.append((route, who, status))
    assert wrong == []
    assert untold == set()
    assert seen == MAY.keys()


def test_the_document_says_of_every_operation_what_it_asks_of_its_caller(callers: Callers) -> None:
    document = callers.app.openapi()
    known, wrong = set(document["components"]["securitySchemes"]), []
    for path, operations_there in document["paths"].items():
        for method, operation in operations_there.items():
            route, ways = f"{method.upper()} {path}", [set(way) for way in operation["security"]]
            assert all(way <= known for way in ways), route
            if route not in MAY:
                wrong += [route] if ways and path in PUBLIC else []
                continue
            due = {
                "machine": "agency" in MAY[route], "gateway": not MAY[route].isdisjoint(GATEWAY_ROLES),
                "session": not MAY[route].isdisjoint(callers.officers),
            }  # fmt: skip
            told = {
                "machine": {"machine"} in ways, "gateway": any("machine" in way for way in ways),
                "session": any("session" in way for way in ways),
            }  # fmt: skip
            wrong += [route for kind, is_due in due.items() if is_due and not told[kind]] or [] if ways else [route]
    assert wrong == []
