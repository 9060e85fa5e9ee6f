"""Sessions, forms and headers of the gateway; and where a typed name may be."""

from __future__ import annotations

import logging
import re
import socket
import threading
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi.routing import APIRoute
from pydantic import ValidationError

from linkage.agency.gateway import cli as gateway_cli
from linkage.agency.gateway.sessions import COOKIE
from linkage.agency.gateway.settings import DemoPerson
from linkage.agency.gateway.store import GatewayStore
from tests.linkage.agency.gateway.builders import (
    ANALYST,
    BANNER,
    MANAGER,
    NOW,
    SOCIAL_WORKER,
    STEWARD,
    Running,
    a_candidate,
    a_contact,
    a_gateway,
    a_kept_search,
    a_kept_view,
    a_search_answer,
    a_view,
    as_form,
    csrf_of,
    some_settings,
    something_typed,
)

POLICY = (
    r"default-src 'none'; script-src 'self' 'nonce-([\w-]+)'; style-src 'self'; img-src 'self' data:; "
    r"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return a_gateway(tmp_path)


@pytest.mark.parametrize("path", ["/", "/work", "/static/service.css", "/nothing-here", "/about/help"])
def test_every_response_carries_the_security_headers(running: Running, path: str) -> None:
    answer = running.client(ANALYST).get(path)
    policy = re.fullmatch(POLICY, answer.headers["content-security-policy"])
    assert policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    assert answer.headers["cache-control"] == "no-store"
    if "text/html" in answer.headers.get("content-type", ""):
        assert f'nonce="{policy[1]}"' in answer.text


def test_a_fault_shows_and_logs_none_of_its_words_and_has_the_headers(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the server that `agency gateway` runs: the framework would hand the fault on to it, to be logged."""

    def fault() -> None:
        raise ValueError("could not keep Samplewick, 943 476 5919")

    running.app.get("/fault")(fault)
    server = uvicorn.Server(gateway_cli.how_to_serve(running.app))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        serving.start()
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            answer, whole = (httpx2.get(f"{url}{path}", timeout=60) for path in ("/fault", "/"))
        finally:
            server.should_exit = True
            serving.join()
    assert (answer.status_code, whole.status_code) == (503, 200)
    assert "If a child is in immediate danger" in answer.text
    assert answer.headers.keys() >= {"content-security-policy", "cache-control", "x-content-type-options"}
    said = capfd.readouterr()
    for words in (answer.text, said.out, said.err):
        assert "Samplewick" not in words
        assert "943 476" not in words
        assert "Traceback" not in words


def test_the_cookie_is_bound_to_the_host_and_out_of_reach_of_scripts(running: Running) -> None:
    cookie = running.client().post("/sign-in", data={"person": ANALYST.id}).headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    for attribute in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
        assert attribute in cookie
    assert "Domain" not in cookie


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": "production"},
        {"host": "0.0.0.0"},
    ],
)
def test_signing_in_from_a_list_is_for_a_demonstration_on_loopback_alone(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="people"):
        some_settings(**changes)


def test_nobody_can_sign_in_where_nobody_is_listed(tmp_path: Path) -> None:
    running = a_gateway(tmp_path, environment="production", people=())
    client = running.client()
    assert "is not set up" in client.get("/").text
    assert client.post("/sign-in", data={"person": ANALYST.id}).status_code == 422


PATHS = [
    "/work", "/searches/new", "/searches/aa", "/views/aa", "/views/aa/receipt", "/contacts/aa/threshold",
    "/views/aa/wrong-person", "/wrong-person/aa", "/contacts/aa/clock", "/views/aa/emergency", "/views/aa/paper",
]  # fmt: skip
HOLDERS_PATHS = ["/inbox", "/inbox/aa", "/our-data", "/our-data/accesses.csv", "/our-data/records/aa"]


@pytest.mark.parametrize("path", [*PATHS, *HOLDERS_PATHS])
def test_a_page_needs_a_session(running: Running, path: str) -> None:
    answer = running.client().get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("path", PATHS)
def test_a_role_that_does_not_search_opens_no_page_of_a_searcher(running: Running, path: str) -> None:
    answer = running.client(STEWARD).get(path)
    assert answer.status_code == 403
    assert "Your role cannot see this" in answer.text


@pytest.mark.parametrize("path", HOLDERS_PATHS)
@pytest.mark.parametrize("person", [ANALYST, MANAGER])
def test_what_the_organisation_holds_is_not_for_those_who_search(
    running: Running, path: str, person: DemoPerson
) -> None:
    answer = running.client(person).get(path)
    assert answer.status_code == 403
    assert "Your role cannot see this" in answer.text


@pytest.mark.parametrize(
    ("person", "home"), [(ANALYST, "/work"), (MANAGER, "/work"), (STEWARD, "/inbox"), (SOCIAL_WORKER, "/about/help")]
)
def test_each_role_begins_at_its_own_page(running: Running, person: DemoPerson, home: str) -> None:
    client = running.client(person)
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, home)


def test_every_route_but_the_public_ones_was_tried_above(running: Running) -> None:
    reads = {route.path for route in running.app.routes if isinstance(route, APIRoute) and "GET" in route.methods}
    tried = {path.replace("/aa", "/{}") for path in (*PATHS, *HOLDERS_PATHS)}
    assert {re.sub(r"\{\w+\}", "{}", path) for path in reads} - tried == {
        "/",
        "/about/{}",
        "/sign-in/start",
        "/sign-in/return",
    }


def test_a_session_ends_after_fifteen_idle_minutes_and_after_eight_hours_in_any_case(running: Running) -> None:
    client = running.client(ANALYST)
    running.clock.forward(minutes=14)
    assert client.get("/work").status_code == 200
    running.clock.forward(minutes=15)
    assert client.get("/work").status_code == 303
    assert "You were signed out" in client.get("/").text

    busy = running.client(ANALYST)
    for _ in range(33):
        running.clock.forward(minutes=14)
        assert busy.get("/work").status_code == 200
    running.clock.forward(minutes=20)
    assert busy.get("/work").status_code == 303


def test_signing_out_forgets_the_session_at_both_ends(running: Running) -> None:
    client = running.client(ANALYST)
    token = client.cookies[COOKIE]
    answer = client.post("/sign-out", data={"csrf": csrf_of(client.get("/work").text)})
    assert answer.headers["clear-site-data"] == '"cache", "cookies", "storage"'
    assert running.store.session(token) is None


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"Origin": "https://elsewhere.example"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "none", "Origin": "null"}, True),
        ({"Origin": "null"}, True),
        ({}, False),
    ],
)
def test_a_form_from_elsewhere_changes_nothing(running: Running, headers: dict[str, str], token: bool) -> None:
    client = running.client(ANALYST)
    csrf = csrf_of(client.get("/searches/new").text) if token else "made-up"
    answer = client.post("/searches/new", data=as_form(something_typed(), csrf=csrf, action="add"), headers=headers)
    assert answer.status_code == 403
    assert running.store.latest("draft", ANALYST.id, now=NOW) == []


def test_a_browser_that_hides_the_origin_but_says_same_origin_is_taken(running: Running) -> None:
    client = running.client(ANALYST)
    form = as_form(something_typed(), csrf=csrf_of(client.get("/searches/new").text), action="add")
    headers = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/searches/new", data=form, headers=headers).status_code == 303


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"x=" + b"y" * 70_000, "application/x-www-form-urlencoded"), (b"{}", "application/json")],
)
def test_a_body_that_is_too_large_or_no_form_is_refused(running: Running, content: bytes, kind: str) -> None:
    answer = running.client().post("/sign-in", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400


def test_what_was_typed_in_a_session_that_had_ended_is_there_after_signing_in_again(running: Running) -> None:
    client = running.client(ANALYST)
    form = as_form(something_typed(), csrf=csrf_of(client.get("/searches/new").text))
    running.clock.forward(minutes=16)
    answer = client.post("/searches/new", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert 'value="Samplewick"' in running.client(ANALYST).get("/searches/new").text
    assert "Samplewick" not in running.client(MANAGER).get("/searches/new").text
    running.clock.forward(minutes=61)
    assert "Samplewick" not in running.client(ANALYST).get("/searches/new").text


def test_faults_come_back_beside_their_boxes_with_everything_still_there(running: Running) -> None:
    client = running.client(ANALYST)
    typed = something_typed(case_reference="")
    answer = client.post("/searches/new", data=as_form(typed, csrf=csrf_of(client.get("/searches/new").text)))
    assert answer.headers["location"] == "/searches/new"
    page = client.get("/searches/new").text
    assert "<title>Error: New search: Northshire gateway</title>" in page
    assert '<a href="#case_reference">Enter the case reference this search belongs to</a>' in page
    assert 'value="Samplewick"' in page


def test_a_broker_that_cannot_be_reached_shows_nothing_and_keeps_what_was_typed(running: Running) -> None:
    client = running.client(ANALYST)
    answer = client.post(
        "/searches/new", data=as_form(something_typed(), csrf=csrf_of(client.get("/searches/new").text))
    )
    assert answer.status_code == 503
    assert "Nothing was shown. If a child is in immediate danger ring 999, then the safeguarding desk." in answer.text
    assert 'value="Samplewick"' in client.get("/searches/new").text


def test_someone_elses_page_a_made_up_one_and_one_that_has_ended_are_alike(running: Running) -> None:
    mine = a_kept_view(running, a_view())
    assert running.client(ANALYST).get(f"/views/{mine}").status_code == 200
    running.clock.forward(minutes=61)
    other = running.client(MANAGER)
    pages = [
        other.get(f"/views/{mine}"),
        running.client(ANALYST).get(f"/views/{mine}"),
        other.get(f"/views/{'0' * 32}"),
    ]
    texts = {
        re.sub(
            r"Reference: .*?</p>|Signed in until [\d:]+|value=\"[\w-]+\"|nonce=\"[\w-]+\"|Analyst|Decision-maker",
            "",
            page.text,
        )
        for page in pages
    }
    assert {page.status_code for page in pages} == {404}
    assert len(texts) == 1


def test_a_typed_name_is_in_no_title_address_file_name_log_or_file(
    running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = running.client(ANALYST)
    client.post("/searches/new", data=as_form(something_typed(), csrf=csrf_of(client.get("/searches/new").text)))
    contact = a_contact(running)
    search = a_kept_search(
        running, a_search_answer(a_candidate("c-1"), a_candidate("c-2", "possible")), contact=contact
    )
    view = a_kept_view(running, a_view(), contact=contact)
    for path in ("/work", f"/searches/{search}", f"/views/{view}", f"/contacts/{contact}/threshold", "/searches/new"):
        page = client.get(path)
        assert page.status_code == 200
        assert "Samplewick" not in re.search(r"<title>(.*?)</title>", page.text, re.S)[1]  # type: ignore[index]
        assert not [href for href in re.findall(r'(?:href|action)="([^"]*)"', page.text) if "amplewick" in href]
    receipt = client.get(f"/views/{view}/receipt")
    assert receipt.headers["content-disposition"] == f'attachment; filename="receipt-{view}.json"'
    assert "Samplewick" not in receipt.text
    assert "Samplewick" not in caplog.text
    running.store.close()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            for canary in (b"Samplewick", b"943 476 5919", b"SAMPLE-0412"):
                assert canary not in file.read_bytes(), file.name


def test_the_store_opens_a_box_for_its_owner_and_kind_alone_and_never_after_its_end(tmp_path: Path) -> None:
    from datetime import timedelta

    store = GatewayStore(tmp_path / "gateway.sqlite", b"k" * 32)
    box = store.put("draft", "p-1", {"name": "x"}, now=NOW, lasts=timedelta(minutes=60))
    assert store.get("draft", "p-1", box, now=NOW).content == {"name": "x"}  # type: ignore[union-attr]
    assert store.get("draft", "p-2", box, now=NOW) is None
    assert store.get("view", "p-1", box, now=NOW) is None
    assert store.get("draft", "p-1", box, now=NOW + timedelta(minutes=60)) is None
    assert (tmp_path / "gateway.sqlite").stat().st_mode & 0o077 == 0


def test_the_banner_stands_on_every_result_and_view(running: Running) -> None:
    client = running.client(ANALYST)
    answers = [a_search_answer(), a_search_answer(a_candidate("c-1"), a_candidate("c-2"))]
    for path in [
        *(f"/searches/{a_kept_search(running, answer)}" for answer in answers),
        f"/views/{a_kept_view(running, a_view())}",
        f"/views/{a_kept_view(running, a_view(tiles=[], family=[], chronology=[], withheld=[]))}",
    ]:
        assert client.get(path).text.count(BANNER) == 1


def test_a_threshold_is_a_decision_makers_to_set_after_opening_the_child_themselves(running: Running) -> None:
    contact = a_contact(running)
    analyst, manager = running.client(ANALYST), running.client(MANAGER)
    page = analyst.get(f"/contacts/{contact}/threshold")
    assert "Sample Manager" in page.text
    assert "Record level 4" not in page.text
    form = {"csrf": csrf_of(page.text), "action": "record", "grounds": "significant_harm_suspected"}
    assert analyst.post(f"/contacts/{contact}/threshold", data=form).status_code == 403

    analyst.post(f"/contacts/{contact}/threshold", data=form | {"action": "ask"})
    assert "Needs your decision" in manager.get("/work").text
    form["csrf"] = csrf_of(manager.get("/work").text)
    no_ground = manager.post(f"/contacts/{contact}/threshold", data=form | {"grounds": ""})
    assert "Choose the ground for this decision" in no_ground.text
    not_seen = manager.post(f"/contacts/{contact}/threshold", data=form)
    assert "Search for the child in this contact and open the match first" in not_seen.text
