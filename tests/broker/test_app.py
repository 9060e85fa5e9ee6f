"""The edge: who gets in, what every answer carries, and what no answer says."""

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, FastAPI, Request, Response
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from audit.checkpoint import SignedCheckpoint
from audit.events import Event, Opening
from audit.receipts import TlogProof
from audit.tiles import Tile, decode_bundle
from broker import agencies, clock, errors, problems, signin
from broker.app import PUBLIC, ROUTERS, Edge, create_app
from broker.dependencies import CALLERS, AgencyDep, CallerDep, OfficerDep, PersonDep
from broker.errors import BrokerError, UnsafeDatabase
from broker.store.log import EventRow
from broker.trail import new_event_id
from broker.wiring import Broker
from tests.broker.platform import OPERATOR, AnAgency, an_app, some_settings
from tests.builders_signer import log_key

probe = APIRouter(prefix="/probe")

SHARD = clock.now().year


class Asked(BaseModel):
    """A body with a field that may not be echoed."""

    model_config = ConfigDict(extra="forbid")
    name: int
    filters: dict[str, int] = {}


@probe.post("/person")
def as_person(caller: PersonDep, body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    return {**caller.who(), "body": body}


@probe.get("/agency")
def as_agency(caller: AgencyDep) -> dict[str, str]:
    return caller.who()


@probe.get("/officer")
def as_officer(caller: OfficerDep) -> dict[str, str]:
    return caller.who()


@probe.get("/any")
def as_any(caller: CallerDep) -> str:
    return caller.kind


@probe.post("/strict")
def strict(body: Asked) -> None:
    assert body


@probe.post("/fault")
def fault() -> None:
    raise RuntimeError("canary-fault")


@probe.put("/bytes")
def take(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> int:
    return len(body)


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    made = an_app(tmp_path)
    made.include_router(probe)
    return made


@pytest.fixture
def http(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1:8400", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def broker(app: FastAPI) -> Broker:
    found: Broker = app.state.broker
    return found


@pytest.fixture
def agency(broker: Broker) -> AnAgency:
    return AnAgency().enrolled(broker)


def test_an_agencys_machine_gets_a_token_and_is_known_by_it(http: TestClient, agency: AnAgency) -> None:
    answer = http.get("/probe/agency", headers={"Authorization": f"Bearer {agency.token(http)}"})
    assert answer.json() == {"organisation": "northshire-icb", "method": "private_key_jwt"}


def test_an_assertion_is_used_once(http: TestClient, agency: AnAgency) -> None:
    grant = agency.grant()
    assert http.post("/oauth2/token", data=grant).status_code == 200
    again = http.post("/oauth2/token", data=grant)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")
    assert "used before" in again.json()["error_description"]


def test_the_token_endpoint_says_what_to_change_and_not_what_was_sent(http: TestClient, agency: AnAgency) -> None:
    now = int(clock.now().timestamp())
    long = http.post("/oauth2/token", data=agency.grant(exp=now + 3600))
    assert "300 seconds" in long.json()["error_description"]
    stranger = http.post("/oauth2/token", data=AnAgency("northshire-police").grant())
    assert (stranger.status_code, stranger.json()) == (401, {"error": "invalid_client"})
    assert http.post("/oauth2/token", data={"grant_type": "password"}).status_code == 400
    assert http.post("/oauth2/token", json={}).status_code == 400


def test_a_person_is_whom_the_gateway_names_on_this_request(http: TestClient, agency: AnAgency) -> None:
    answer = agency.post(http, "/probe/person", {"a": 1})
    assert answer.status_code == 200
    assert answer.json()["person"] == "p-17"
    assert len(answer.json()["assertion_sha256"]) == 64
    assert answer.json()["body"] == {"a": 1}


def test_an_assertion_for_another_body_path_query_role_or_agency_or_a_second_time_is_refused(
    http: TestClient, agency: AnAgency, broker: Broker
) -> None:
    other = AnAgency("northshire-police").enrolled(broker)
    token, raw = agency.token(http), b'{"a":1}'
    once = agency.vouch("POST", "/probe/person", raw)

    def status(assertion: str, *, bearer: str = token, body: bytes = raw, query: str = "") -> int:
        headers = {"Authorization": f"Bearer {bearer}", "Gateway-Assertion": assertion}
        return http.post(
            f"/probe/person{query}", content=body, headers=headers | {"Content-Type": "application/json"}
        ).status_code

    assert status(once) == 200
    assert status(once) == 401
    assert status(agency.vouch("POST", "/probe/person", raw), body=b'{"a":2}') == 401
    assert status(agency.vouch("POST", "/probe/other", raw)) == 401
    assert status(agency.vouch("GET", "/probe/person", raw)) == 401
    assert status(agency.vouch("POST", "/probe/person", raw), query="?state=done") == 401
    assert status(agency.vouch("POST", "/probe/person?state=open", raw), query="?state=done") == 401
    assert status(agency.vouch("POST", "/probe/person?state=open", raw)) == 401
    assert status(agency.vouch("POST", "/probe/person?state=open", raw), query="?state=open") == 200
    assert status(agency.vouch("POST", "/probe/person", raw, role="IG_OFFICER")) == 401
    assert status(other.vouch("POST", "/probe/person", raw)) == 401
    assert status(agency.vouch("POST", "/probe/person", raw), bearer=other.token(http)) == 401
    assert http.post("/probe/person", json={}, headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_a_suspended_agencys_token_stops_with_the_next_request(
    http: TestClient, agency: AnAgency, broker: Broker
) -> None:
    headers = {"Authorization": f"Bearer {agency.token(http)}"}
    agencies.set_state(broker.store, broker.trail, agency.id, "suspended", who=OPERATOR, at=clock.now())
    assert http.get("/probe/agency", headers=headers).status_code == 403
    told = http.post("/oauth2/token", data=agency.grant())
    assert (told.status_code, told.json()["error"]) == (401, "invalid_client")
    assert "has suspended this agency" in told.json()["error_description"]  # it has proved who it is
    forged = http.post("/oauth2/token", data=AnAgency(agency.id).grant())
    assert forged.json() == {"error": "invalid_client"}  # a stranger reads nothing of that
    agencies.set_state(broker.store, broker.trail, agency.id, "active", who=OPERATOR, at=clock.now())
    assert http.get("/probe/agency", headers=headers).status_code == 200
    agencies.set_state(broker.store, broker.trail, agency.id, "revoked", who=OPERATOR, at=clock.now())
    assert http.post("/oauth2/token", data=agency.grant()).status_code == 401


def test_a_client_key_that_is_revoked_ends_its_tokens_at_once_and_another_key_gets_new_ones(
    http: TestClient, agency: AnAgency, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Authorization": f"Bearer {agency.token(http)}"}
    assert http.get("/probe/agency", headers=headers).status_code == 200
    agencies.revoke_key(broker.store, broker.trail, agency.kid, agency=agency.id, who=OPERATOR, at=clock.now())
    assert http.get("/probe/agency", headers=headers).status_code == 401
    assert http.post("/oauth2/token", data=agency.grant()).status_code == 401
    newer = replace(agency, clients=2, client=AnAgency().client).enrolled(broker)
    a_second_on = clock.now() + timedelta(seconds=1)  # a token says no less when it was issued
    monkeypatch.setattr(clock, "now", lambda: a_second_on)
    headers = {"Authorization": f"Bearer {newer.token(http)}"}
    assert http.get("/probe/agency", headers=headers).status_code == 200


def test_an_officer_is_known_by_a_session_that_ends(http: TestClient, broker: Broker) -> None:
    cookie, session = signin.sign_in_to_demo(broker.store, broker.settings, "ig-1", at=clock.now())
    headers = {"Cookie": f"{signin.COOKIE}={cookie}"}
    assert http.get("/probe/officer", headers=headers).json()["role"] == "IG_OFFICER"
    assert http.get("/probe/any", headers=headers).json() == "officer"
    assert cookie not in session.id
    signin.end(broker.store, cookie, at=clock.now())
    assert http.get("/probe/officer", headers=headers).status_code == 401
    assert http.get("/probe/officer").status_code == 401


def test_every_answer_carries_the_headers_that_are_due(http: TestClient) -> None:
    for answer in (http.get("/health/live"), http.get("/nowhere"), http.post("/probe/fault"), http.get("/probe/any")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "server" not in answer.headers
    nonces = {http.get("/health/live").headers["content-security-policy"] for _ in range(3)}
    assert len(nonces) == 3


def test_a_request_id_is_echoed_if_it_is_a_uuid_and_made_if_not(http: TestClient) -> None:
    mine = "6f1f8f5e-92b1-4a3f-9d0e-0b7c4a6f2a11"
    assert http.get("/health/live", headers={"X-Request-ID": mine}).headers["x-request-id"] == mine
    made = http.get("/health/live", headers={"X-Request-ID": "canary"}).headers["x-request-id"]
    assert made != "canary"
    problem = http.get("/nowhere", headers={"X-Request-ID": mine})
    assert problem.json()["instance"] == f"urn:uuid:{mine}"


def test_a_fault_says_that_and_not_what(
    http: TestClient, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = http.post("/probe/fault")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    seen = capsys.readouterr()
    assert "canary" not in answer.text + caplog.text + seen.out + seen.err
    assert "RuntimeError" in seen.out + seen.err


def test_a_malformed_body_is_named_by_place_and_never_quoted(http: TestClient) -> None:
    sent = {"name": "canary-name", "canary_key": 1, "filters": {"canary_filter": "canary-value"}}
    answer = http.post("/probe/strict", json=sent)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    pointers = {fault["pointer"] for fault in answer.json()["errors"]}
    assert pointers == {"#/body/name", "#/body/*", "#/body/filters/*"}
    assert "canary" not in answer.text
    broken = http.post("/probe/strict", content=b'{"canary', headers={"Content-Type": "application/json"})
    assert broken.status_code == 422
    assert "canary" not in broken.text


def test_bodies_are_limited_by_what_they_declare_and_by_what_they_are(tmp_path: Path) -> None:
    small = an_app(tmp_path, max_body_bytes=1000)
    small.include_router(probe)

    def endless() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 100

    with TestClient(small, raise_server_exceptions=False) as http:
        kind = {"Content-Type": "application/octet-stream"}
        assert http.put("/probe/bytes", content=b"x" * 1000, headers=kind).json() == 1000
        assert http.put("/probe/bytes", content=b"x" * 1001, headers=kind).status_code == 413
        assert http.put("/probe/bytes", content=endless(), headers=kind).status_code == 413
        encoded = http.put("/probe/bytes", content=b"x", headers=kind | {"Content-Encoding": "gzip"})
        assert encoded.status_code == 415
        assert encoded.headers["content-type"] == problems.MEDIA_TYPE


def test_whoever_sends_drop_by_drop_gives_up_the_place_and_a_slow_line_does_not() -> None:
    async def sent(parts: int, size: int) -> tuple[int, int]:
        taken, answers, left = 0, [], iter(range(parts))

        async def receive() -> Message:
            await asyncio.sleep(0.02)
            number = next(left)
            return {"type": "http.request", "body": b"x" * size, "more_body": number < parts - 1}

        async def send(message: Message) -> None:
            answers.append(message)

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal taken
            request = Request(scope, receive)
            try:
                async for part in request.stream():
                    taken += len(part)
            except HTTPException as late:
                await Response(status_code=late.status_code)(scope, receive, send)
                return
            await Response(status_code=204)(scope, receive, send)

        scope = {"type": "http", "method": "PUT", "path": "/x", "headers": []}
        await Edge(inner, body=10_000_000, chunk=0, patience=0.1)(scope, receive, send)
        return answers[0]["status"], taken

    assert asyncio.run(sent(10, 4096)) == (204, 40_960)
    status, taken = asyncio.run(sent(10, 1))
    assert status == 408
    assert taken < 10


def test_the_public_log_can_be_fetched_and_verified(http: TestClient, agency: AnAgency, broker: Broker) -> None:
    broker.trail.advance_pending()
    answer = http.get(f"/audit/log/{SHARD}/checkpoint")
    assert answer.headers["cache-control"] == "no-store"
    signed = SignedCheckpoint.parse(answer.text)
    assert signed.signed_by(log_key(broker.store))
    size = signed.checkpoint.size
    assert size == 2  # log.opened, agency.enrolled
    bundle = http.get(f"/audit/log/{SHARD}/tile/entries/000.p/{size}")
    assert len(decode_bundle(Tile(-1, 0, size), bundle.content)) == size
    assert "immutable" in bundle.headers["cache-control"]
    assert len(http.get(f"/audit/log/{SHARD}/tile/0/000.p/{size}").content) == 32 * size
    for missing in (f"0/000.p/{size + 1}", "0/001.p/1", "0/000", "9/000", "0/0"):
        assert http.get(f"/audit/log/{SHARD}/tile/{missing}").status_code == 404
    assert http.get("/audit/log/1999/checkpoint").status_code == 404


def test_an_event_is_opened_to_whom_it_concerns_and_to_an_ig_officer(
    http: TestClient, agency: AnAgency, broker: Broker
) -> None:
    event = Event(
        id=new_event_id(), type="submission.received", who={"organisation": agency.id}, what={}, why={},
        detail={"secret": "s"},
    )  # fmt: skip
    with broker.store.transaction() as tx:
        entry = broker.trail.record(tx, event)
    broker.trail.receipt(entry)
    mine = {"Authorization": f"Bearer {agency.token(http)}"}
    theirs = {"Authorization": f"Bearer {AnAgency('northshire-police').enrolled(broker).token(http)}"}
    cookie, _ = signin.sign_in_to_demo(broker.store, broker.settings, "ig-1", at=clock.now())
    officer = {"Cookie": f"{signin.COOKIE}={cookie}"}
    opened = http.get(f"/audit/events/{event.id}/opening", headers=mine)
    assert Opening.from_json(opened.json()).withheld == ("detail",)
    size = broker.trail.advance_pending()
    looked = http.get(f"/audit/events/{event.id}/opening", headers=officer)
    assert Opening.from_json(looked.json()).withheld == ("detail",)
    with broker.store.reading() as reading:
        (look,) = [row for row in reading.all(EventRow, type="audit.searched") if row.seq >= size]
    assert (look.actor_ref, look.role) == ("ig-1", "IG_OFFICER")
    proof = http.get(f"/audit/events/{event.id}/proof", headers=mine)
    TlogProof.parse(proof.text).verify_path()
    unknown = new_event_id()
    for part in ("proof", "opening"):
        hidden = http.get(f"/audit/events/{event.id}/{part}", headers=theirs)
        absent = http.get(f"/audit/events/{unknown}/{part}", headers=theirs)
        assert (hidden.status_code, absent.status_code) == (404, 404)
        assert {**hidden.json(), "instance": ""} == {**absent.json(), "instance": ""}
        assert http.get(f"/audit/events/{event.id}/{part}").status_code == 401


def test_without_a_signature_not_a_byte_of_evidence_leaves(
    http: TestClient, agency: AnAgency, broker: Broker, tmp_path: Path
) -> None:
    mine = {"Authorization": f"Bearer {agency.token(http)}"}
    with broker.store.transaction() as tx:
        event = Event(
            id=new_event_id(), type="submission.received", who={"organisation": agency.id}, what={"canary": "canary"},
            why={}, detail={},
        )  # fmt: skip
        entry = broker.trail.record(tx, event)
        (tmp_path / "signer" / str(clock.now().year) / "state.json").rename(tmp_path / "away.json")
    with pytest.raises(errors.LogUnavailable):
        broker.trail.receipt(entry)
    for part in ("proof", "opening"):
        answer = http.get(f"/audit/events/{event.id}/{part}", headers=mine)
        assert (answer.status_code, answer.headers["content-type"]) == (503, problems.MEDIA_TYPE)
        assert "canary" not in answer.text
    assert http.get("/health/ready").status_code == 503


def test_ready_says_what_is_not(http: TestClient, broker: Broker) -> None:
    assert http.get("/health/ready").json()["status"] == "ready"
    with broker.store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    answer = http.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["schema"] is False


def test_a_store_that_is_away_is_a_503_that_says_when_to_come_back_and_not_to_all_the_same() -> None:
    answers = [problems.of_error(errors.StoreUnavailable("canary"), request_id="r") for _ in range(200)]
    assert {answer.status_code for answer in answers} == {503}
    assert {int(answer.headers["retry-after"]) for answer in answers} == set(range(5, 11))
    assert b"canary" not in answers[0].body


def every_error(kind: type[BrokerError] = BrokerError) -> Iterator[type[BrokerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from every_error(child)


def test_every_error_has_a_row_and_every_row_an_http_status() -> None:
    answered = {kind for kind in every_error() if kind.__module__.startswith("broker.")}
    missing = answered - set(problems.PROBLEMS)
    # No route runs a night, reads a batch, puts an epoch or an agreement in force; whom an OpenID provider sends in vain is
    # told by a page.
    elsewhere = {"gates", "nightly", "shadow", "parsing", "activation", "signin.provider"}
    assert {kind.__module__.removeprefix("broker.") for kind in missing} <= elsewhere
    assert all(400 <= problem.status < 600 and problem.title for problem in problems.PROBLEMS.values())


def test_every_route_but_the_public_ones_needs_a_caller() -> None:
    def asks(route: APIRoute) -> bool:
        waiting = list(route.dependant.dependencies)
        while waiting:
            one = waiting.pop()
            if one.call in CALLERS:
                return True
            waiting += one.dependencies
        return False

    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    assert len(routes) >= 7
    assert {route.path for route in routes if not asks(route)} <= PUBLIC


def test_production_has_none_of_the_framework_s_own_pages(tmp_path: Path) -> None:
    made = an_app(tmp_path, environment="production", signer="inline", demo_people=())
    with TestClient(made) as http:
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert http.get(path).status_code == 404


def test_a_demo_never_opens_a_production_database_nor_the_reverse(tmp_path: Path) -> None:
    an_app(tmp_path)
    with pytest.raises(UnsafeDatabase):
        create_app(some_settings(tmp_path, environment="production", signer="inline", demo_people=()))
    other = tmp_path / "other"
    an_app(other, environment="production", signer="inline", demo_people=())
    with pytest.raises(UnsafeDatabase):
        create_app(some_settings(other))


def test_the_openapi_document_is_whole(app: FastAPI) -> None:
    assert json.dumps(app.openapi())
