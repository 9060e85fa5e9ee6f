"""The API answers as its description says: Schemathesis holds every route to it, with every check that it registers.

Requests are made from the broker's own OpenAPI document, such as fit it and such as do not, and are sent by callers who
may and by one who may not.  What no schema can say of a request stands in UNSAID, with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import requests
import schemathesis
from httpx2 import Response
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, SerializationContext
from schemathesis.checks import CHECKS
from schemathesis.core.failures import Failure
from schemathesis.core.result import Ok
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.schemas import APIOperation

from broker.app import PUBLIC
from broker.erasure import HOLDS
from linkage.records import TABLE_MEDIA_TYPE
from tests.broker.platform import BASE_URL
from tests.broker.test_who_may import DENIED, FORM, GATEWAY_ROLES, MAY, OFFICERS, PUBLIC_TOO, Callers
from tests.sizes import LONG

FITTING, UNFIT = (150, 100) if LONG else (2, 1)
SUCCEEDING: Final = 35
RUN: Final = frozenset(
    {
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
        "response_schema_conformance", "negative_data_rejection", "positive_data_acceptance",
        "missing_required_header", "unsupported_method", "allow_header_conformance", "use_after_free",
        "ensure_resource_availability", "ignored_auth", "object_level_authorization",
    }
)  # fmt: skip
"""Every check there is; a newer Schemathesis that has another fails here until it is listed."""

ORDER: Final = "the last day before the first, or days that have not ended"
REFUSAL: Final = "a reason is due for a refusal, and there alone"
UNSAID: Final[Mapping[str, str]] = {
    "GET /audit/activity": ORDER,
    "GET /audit/flags": ORDER,
    "POST /audit/exports": f"{ORDER}; what a report may be about is in GET /audit/reports",
    "POST /audit/samples": ORDER,
    "POST /audit/packs": "a month that has not begun",
    "GET /audit/consistency": "old beyond new: a log grows",
    "GET /audit/events": "an organisation that is not enrolled; what may not stand in a URL",
    "GET /fhir/AuditEvent": "a first page needs `purpose`, a further one `search` alone; a combination no event bears",
    "POST /audit/rules/{rule}/thresholds": "thresholds and their bounds are each rule's, in GET /audit/rules",
    "POST /audit/reviews/{event_id}/decision": "but for `justified`, a note is due; none with control characters",
    "POST /audit/reviews/{event_id}/signoff": "no note with control characters",
    "POST /audit/subjects/erasures/{proposed}/decision": REFUSAL,
    "POST /audit/subjects/lifts/{lift}/decision": REFUSAL,
    "POST /v1/considerations/{consideration}/decision": REFUSAL,
    "POST /v1/statistics/releases/{release}/check": REFUSAL,
    "POST /v1/statistics/releases": "a quarter that is over, and not longer ago than two years",
    "POST /v1/reviews/{review}/decision": "which reason a decision may bear is in GET /v1/reviews/codes",
    "POST /v1/searches": "the partnership's own profile, epoch and key; whole numbers of 64 bits",
    "POST /v1/thresholds": "the case of the search",
    "POST /v1/flows/{flow}/batches": "a manifest in its canonical bytes, signed",
    "PUT /v1/flows/{flow}/batches/{batch}/{table}/chunks/{number}": "the bytes that the manifest declares",
    "POST /audit/cosignatures": "a signed note",
    "POST /oauth2/token": "a signed assertion that was not used before",
}  # fmt: skip
"""Where a request that fits the document may be refused with 400 (or 401, 413, 415, 422 of signed things), and why."""


@schemathesis.serializer(TABLE_MEDIA_TYPE)
def parquet(_: SerializationContext, value: Any) -> bytes:
    """A chunk, of whatever was made up."""
    return value if isinstance(value, bytes) else str(value).encode()


@dataclass
class Told:
    """What a run saw."""

    cases: int = 0
    answered: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class Site:
    """A broker in which something has happened, and what can be named there."""

    callers: Callers
    names: Mapping[str, Any]
    bodies: Mapping[str, Mapping[str, Any]]
    document: dict[str, Any]

    def known(self, case: Case[Any], route: str) -> None:
        """Put what is there in place of what was made up."""
        for name in case.path_parameters or {}:
            if name in self.names:
                case.path_parameters[name] = self.names[name]
        if isinstance(case.body, dict):
            case.body = {**case.body, **self.bodies.get(route, {})}

    def send(self, who: str, case: Case[Any]) -> Response:
        """The case as sent by one kind of caller, in this process."""
        made = case.as_transport_kwargs(base_url=BASE_URL)
        ready = requests.Request(
            **{name: made.get(name) for name in ("method", "url", "headers", "params", "json", "data", "cookies")}
        ).prepare()
        raw = ready.body.encode() if isinstance(ready.body, str) else ready.body or b""
        assert isinstance(raw, bytes)
        told = {name: str(value) for name, value in ready.headers.items() if name.lower() != "content-length"}
        return self.callers.send(who, str(ready.method), ready.path_url, raw, told)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    callers = Callers(tmp_path_factory.mktemp("document"))

    def done(who: str, method: str, path: str, body: Any = None) -> Any:
        answer = callers.call(who, method, path, body)
        assert answer.is_success, (path, answer.text)
        return answer.json()

    officer = "IG_OFFICER"
    found = done(officer, "POST", "/audit/searches", {"purpose": "lawfulness"})
    event = found["events"][0]["event_id"]
    subject = {"subject": f"northshire-icb/health/{'0' * 64}"}
    done(officer, "POST", "/audit/flags", {"event": event, "why": "pattern"})
    hold = done(officer, "POST", "/audit/subjects/holds", {**subject, "reason": next(iter(HOLDS))})
    shards = done("agency", "GET", "/audit/shards")
    names = {
        "event_id": event, "search": found["search"], "hold": hold["hold"], "flow": "health",
        "shard": shards["shards"][-1]["shard"],
    }  # fmt: skip
    bodies = {"POST /v1/searches": {"key_epoch": "2026-1", "key_fingerprint": "f" * 16, "household": []}}
    yield Site(callers, names, bodies, without_ways_in(callers.app.openapi()))
    callers.broker.store.close()


def without_ways_in(document: dict[str, Any]) -> dict[str, Any]:
    """The document without its security: `Site.send` has real credentials, where Schemathesis would make some up.

    So its check `ignored_auth` has nothing to do; that nobody else is let in is held by `tried`, and in test_who_may.
    """
    for operation in (one for path in document["paths"].values() for one in path.values()):
        del operation["security"]
    del document["components"]["securitySchemes"]
    return document


def told_by(site: Site, mode: GenerationMode, examples: int) -> Told:
    """What every route answers to requests of one kind."""
    told = Told()
    for found in schemathesis.openapi.from_dict(site.document).get_all_operations():
        assert isinstance(found, Ok), found
        tried(site, told, found.ok(), mode, examples)
    return told


def tried(
    site: Site, told: Told, operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, examples: int
) -> None:
    """Send requests to one route: by those who may in turn, and now and then by one who may not."""
    route = f"{operation.method.upper()} {operation.path}"
    public = operation.path in PUBLIC or route in PUBLIC_TOO
    may = ["nobody"] if public else sorted(MAY[route])
    others = [] if public else sorted({"nobody", "agency", *GATEWAY_ROLES, *OFFICERS} - set(may))
    fits = mode is GenerationMode.POSITIVE

    @seed(1)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), turn=st.integers(0, 59), known=st.booleans())
    def run(case: Case[Any], turn: int, known: bool) -> None:
        if known and fits:
            site.known(case, route)
        held(site, told, route, may[turn % len(may)], case)
        if others and turn % 3 == 0:
            who = others[turn // 3 % len(others)]
            status = site.send(who, case).status_code
            if status not in (*DENIED, *FORM):
                told.faults[route, "let in"] = f"{status} {who}"

    with suppress(Unsatisfiable) if not fits else nullcontext():  # a route without parameters takes anything
        run()


def held(site: Site, told: Told, route: str, who: str, case: Case[Any]) -> None:
    """Send the case, and note what its answer breaks of the document."""
    answer = site.send(who, case)
    told.cases += 1
    told.statuses[answer.status_code] += 1
    if answer.is_success:
        told.answered.add(route)
    try:
        case.validate_response(answer)
    except BaseExceptionGroup as wrong:
        faults = [one for one in wrong.exceptions if isinstance(one, Failure)]
        assert faults, wrong
        for fault in faults:
            if not (isinstance(fault, RejectedPositiveData) and route in UNSAID):
                told.faults[route, type(fault).__name__] = f"{answer.status_code} {answer.text[:300]} {fault}"[:900]


def test_every_answer_to_a_request_that_fits_is_documented(site: Site) -> None:
    told = told_by(site, GenerationMode.POSITIVE, FITTING)
    print(f"{told.cases} requests, {len(told.answered)} routes with success: {sorted(told.statuses.items())}")
    assert {check.__name__ for check in CHECKS.get_all()} == RUN
    assert told.faults == {}
    assert len(told.answered) >= SUCCEEDING


def test_every_answer_to_a_request_that_does_not_fit_is_documented(site: Site) -> None:
    told = told_by(site, GenerationMode.NEGATIVE, UNFIT)
    print(f"{told.cases} requests: {sorted(told.statuses.items())}")
    assert told.faults == {}


def test_other_methods_media_and_sizes_are_refused_with_a_problem_document(site: Site) -> None:
    http = site.callers.http
    for path in ("/v1/searches", "/audit/events", "/health/live", "/v1/flows/health/batches"):
        for method in ("TRACE", "OPTIONS", "HEAD", "PATCH", "PROPFIND"):
            answer = http.request(method, path)
            assert (answer.status_code, bool(answer.headers.get("allow"))) == (405, True), (method, path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert method == "HEAD" or answer.json()["status"] == 405
    large = b"x" * (site.callers.broker.settings.max_body_bytes + 1)
    refused = [
        (404, http.get("/v1/nothing")),
        (413, http.post("/v1/searches", content=large)),
        (413, http.post("/audit/cosignatures", content=b"x" * 70_000)),
        (415, http.post("/v1/searches", content=b"{}", headers={"Content-Encoding": "gzip"})),
        (415, site.callers.send("agency", "POST", "/v1/flows/health/batches", b"x", {"Content-Type": "text/plain"})),
    ]
    for status, answer in refused:
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_an_assertion_is_of_the_path_as_the_routes_read_it_however_the_address_is_escaped(site: Site) -> None:
    for query in (
        "",
        "?which=new",
        "?since=2026-11-01T00%3A00%3A00%2B00%3A00",
        "?which=%6Eew&since=2026-11-01T00:00:00Z",
    ):
        for path in ("/v1/ledger", "/v1/%6Cedger"):
            assert site.callers.send("AGENCY_REP", "GET", path + query, b"", {}).status_code == 200, path + query
    vouched = site.callers.agency.vouch("GET", "/audit/events/abcdefgh", b"", role="AGENCY_REP")
    headers = {"Authorization": f"Bearer {site.callers.token}", "Gateway-Assertion": vouched}
    for more in ("%3F/proof", "%23/proof", "/proof"):
        assert site.callers.http.get(f"/audit/events/abcdefgh{more}", headers=headers).status_code == 401, more
