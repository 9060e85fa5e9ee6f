"""Signing in at a gateway by the organisation's OpenID provider: a real one, and one that lies in every way it could."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import oidc_provider_mock
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from linkage.agency import clock
from linkage.agency.gateway import provider
from linkage.agency.gateway.cli import open_gateway
from linkage.agency.gateway.pages import Gateway
from linkage.agency.gateway.sessions import COOKIE
from linkage.agency.gateway.settings import GatewaySettings, Oidc
from linkage.agency.keygen import make_home
from tests.builders_openid import CLIENT, LIES, Liar, answering

ADDRESS = "http://127.0.0.1:8401"


def by(issuer: str, **changes: Any) -> Oidc:
    given = {
        "issuer": issuer, "client_id": CLIENT, "client_secret": "s3cret", "required": {"tid": "northshire"},
        "roles": {"ig-officers": "MASH_ANALYST", "managers": "MASH_DECISION_MAKER", "stewards": "DATA_STEWARD"},
    }  # fmt: skip
    return Oidc(**(given | changes))


def some_settings(**changes: Any) -> GatewaySettings:
    given: dict[str, Any] = {
        "environment": "demo", "organisation": "Northshire Council", "address": ADDRESS,
        "desk": {"name": "the safeguarding desk", "phone": "01632 960 104"},
    }  # fmt: skip
    return GatewaySettings(**(given | changes))


@pytest.fixture(scope="module")
def lying() -> Iterator[Liar]:
    with answering(Liar()) as made:
        yield made


@pytest.fixture
def liar(lying: Liar) -> Liar:
    for name, value in vars(Liar(issuer=lying.issuer)).items():
        setattr(lying, name, value)
    return lying


@pytest.fixture(scope="module")
def served(lying: Liar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    home = tmp_path_factory.mktemp("gateway") / "home"
    make_home(home, agency="northshire-council", partnership="northshire", epoch="2026-1", broker="http://127.0.0.1:9")
    app = open_gateway(home, some_settings(oidc=by(lying.issuer)))
    with TestClient(app, base_url="https://127.0.0.1:8401", follow_redirects=False) as http:
        yield http


@pytest.fixture
def http(served: TestClient, lying: Liar) -> TestClient:
    """A browser that was nowhere yet."""
    served.cookies.clear()
    asked_otherwise(served, by(lying.issuer))
    return served


def gateway_of(http: TestClient) -> Gateway:
    gateway: Gateway = http.app.state.gateway  # type: ignore[attr-defined]
    return gateway


def asked_otherwise(http: TestClient, oidc: Oidc) -> None:
    """As if the settings had been these."""
    store = gateway_of(http).store
    made = provider.Provider(oidc, address=ADDRESS, seal=store.sealed, opened=store.opened)
    http.app.state.provider = made  # type: ignore[attr-defined]


def left(http: TestClient) -> dict[str, str]:
    answer = http.get("/sign-in/start")
    assert answer.status_code == 303, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def back(http: TestClient, liar: Liar, **changes: str) -> Any:
    asked = left(http)
    liar.nonce = liar.nonce or asked["nonce"]
    return http.get(provider.RETURN, params={"code": "c", "state": asked["state"]} | changes)


def test_a_person_signs_in_at_a_real_provider_and_works_in_the_role_it_says(http: TestClient) -> None:
    with oidc_provider_mock.run_server_in_thread() as server:
        issuer = f"http://localhost:{server.server_port}"
        claims = {"roles": ["ig-officers"], "tid": "northshire"}
        httpx2.put(f"{issuer}/users/o-17", json=claims).raise_for_status()
        asked_otherwise(http, by(issuer))
        assert "Sign in with Northshire Council" in http.get("/").text
        consent = httpx2.post(http.get("/sign-in/start").headers["location"], data={"sub": "o-17"})
        returned = urlsplit(consent.headers["location"])
        done = http.get(f"{returned.path}?{returned.query}")
        assert (done.status_code, done.headers["location"]) == (303, "/work")
        page = http.get("/work")
        assert (page.status_code, "at Northshire Council. Signed in until" in page.text) == (200, True)
        assert "o-17" not in page.text
        assert http.get(f"{returned.path}?{returned.query}").status_code == 401  # the code was for once


def test_who_has_another_role_may_not_do_what_it_does_not_let(http: TestClient, liar: Liar) -> None:
    liar.claims = {"roles": ["stewards"]}
    assert back(http, liar).status_code == 303
    assert http.get("/searches/new").status_code == 403


def test_a_role_that_the_settings_give_nobody_any_more_ends_the_session(http: TestClient, liar: Liar) -> None:
    assert back(http, liar).status_code == 303
    sessions = gateway_of(http).sessions
    fewer = some_settings(oidc=by(liar.issuer, roles={"managers": "MASH_DECISION_MAKER"}))
    http.app.state.gateway = replace(gateway_of(http), sessions=replace(sessions, settings=fewer))  # type: ignore[attr-defined]
    try:
        assert http.get("/work").headers["location"] == "/"
    finally:
        http.app.state.gateway = replace(gateway_of(http), sessions=sessions)  # type: ignore[attr-defined]


@pytest.mark.parametrize("lie", LIES)
def test_a_token_that_does_not_hold_signs_nobody_in(lie: str, http: TestClient, liar: Liar) -> None:
    for name, value in LIES[lie].items():
        setattr(liar, name, value)
    refused = back(http, liar)
    assert (refused.status_code, "You were not signed in" in refused.text) == (401, True)
    assert COOKIE not in http.cookies


def test_an_answer_to_another_browser_or_after_ten_minutes_is_none(
    http: TestClient, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def come_back(asked: dict[str, str]) -> int:
        return int(http.get(provider.RETURN, params={"code": "c", "state": asked["state"]}).status_code)

    assert back(http, liar, state="another").status_code == 401
    assert back(http, liar, error="access_denied").status_code == 401
    asked = left(http)
    http.cookies.clear()
    assert come_back(asked) == 401
    asked = left(http)
    sealed = http.cookies[provider.COOKIE]
    http.cookies.clear()
    http.cookies.set(provider.COOKIE, sealed[:40] + ("0" if sealed[40] != "0" else "1") + sealed[41:])
    assert come_back(asked) == 401
    http.cookies.clear()
    asked, gateway = left(http), gateway_of(http)
    later = clock.now() + provider.LASTS + timedelta(seconds=1)
    http.app.state.gateway = replace(gateway, now=lambda: later)  # type: ignore[attr-defined]
    try:
        assert come_back(asked) == 401
    finally:
        http.app.state.gateway = gateway  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"roles": ["staff"]}, "no role"),
        ({"roles": ["ig-officers", "managers"]}, "several roles"),
        ({"tid": "elsewhere"}, "another organisation"),
        ({"sub": "sam@example.org"}, "no role"),
        ({"acr": "password"}, "second factor"),
    ],
)
def test_whoever_has_no_way_in_is_told_why(
    claims: dict[str, Any], said: str, http: TestClient, liar: Liar, caplog: pytest.LogCaptureFixture
) -> None:
    liar.claims = {"acr": "mfa", **claims}
    asked_otherwise(http, by(liar.issuer, acr=("mfa", "hardware")))
    refused = back(http, liar)
    assert (refused.status_code, said in refused.text) == (403, True)
    assert COOKIE not in http.cookies
    assert "sam@example.org" not in refused.text + caplog.text


@pytest.mark.parametrize(
    "lie", [{"issuer": "https://elsewhere.example"}, {"token_endpoint": "https://elsewhere.example/token"}]
)
def test_a_provider_that_points_elsewhere_is_not_followed(lie: dict[str, str], http: TestClient, liar: Liar) -> None:
    liar.metadata = lie
    assert http.get("/sign-in/start").status_code == 503


def test_a_file_of_an_earlier_version_is_taken_up_and_whoever_was_signed_in_signs_in_again(tmp_path: Path) -> None:
    import sqlite3

    from linkage.agency.gateway.store import GatewayStore

    with sqlite3.connect(tmp_path / "gateway.sqlite") as old:
        old.execute("create table sessions (token_hash text primary key, sid text, person text, csrf text)")
        old.execute("insert into sessions values ('h', 's', 'p', 'c')")
    store = GatewayStore(tmp_path / "gateway.sqlite", bytes(32))
    token = store.start_session("o-17", "MASH_ANALYST", now=clock.now())
    session = store.session(token)
    assert session is not None
    assert (session.person, session.role) == ("o-17", "MASH_ANALYST")
    store.close()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"address": ""}, "address"),
        ({"environment": "production"}, "https"),
        ({"environment": "production", "address": "https://gateway.example/"}, "slash"),
    ],
)
def test_a_provider_without_a_way_back_is_no_setting(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        some_settings(oidc=by("http://idp.example"), **changes)
    with pytest.raises(ValidationError, match="roles"):
        by("https://idp.example", roles={})
