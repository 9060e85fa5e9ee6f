"""Signing in by an OpenID provider: a real one, and one that lies in every way it could."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import oidc_provider_mock
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr, ValidationError

from broker import clock
from broker.settings import Oidc, Settings
from broker.signin import COOKIE, provider
from broker.store.log import EventRow
from broker.store.sessions import SessionRow
from broker.wiring import Broker
from tests.broker.platform import BASE_URL, an_app, some_settings
from tests.builders_openid import CLIENT, LIES, Liar, answering


def by(issuer: str, **changes: Any) -> Oidc:
    given = {
        "issuer": issuer, "client_id": CLIENT, "client_secret": SecretStr("s3cret"), "label": "Northshire",
        "roles": {"ig-officers": "IG_OFFICER", "operators": "OPERATOR", "inspectors": "INSPECTOR"}, "planners": {"planning": "northshire-council"},
        "required": {"tid": "northshire"},
    }  # fmt: skip
    return Oidc(**(given | changes))


@pytest.fixture(scope="module")
def lying() -> Iterator[Liar]:
    with answering(Liar()) as made:
        yield made


@pytest.fixture
def liar(lying: Liar) -> Liar:
    """One that tells the truth until a test has it lie."""
    for name, value in vars(Liar(issuer=lying.issuer)).items():
        setattr(lying, name, value)
    return lying


@pytest.fixture(scope="module")
def served(lying: Liar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    app = an_app(tmp_path_factory.mktemp("served"), oidc=by(lying.issuer), demo_people=())
    with TestClient(app, base_url=BASE_URL.replace("http:", "https:"), follow_redirects=False) as http:
        yield http


@pytest.fixture
def http(served: TestClient) -> TestClient:
    """A browser that was nowhere yet."""
    served.cookies.clear()
    broker_in(served).parts.pop("provider", None)
    return served


def broker_in(http: TestClient) -> Broker:
    broker: Broker = http.app.state.broker  # type: ignore[attr-defined]
    return broker


def asked_otherwise(http: TestClient, oidc: Oidc) -> None:
    """As if the settings had been these."""
    broker = broker_in(http)
    broker.parts["provider"] = provider.Provider(oidc, base_url=BASE_URL, key=broker.keys.leaving_key())


def left(http: TestClient) -> dict[str, str]:
    """Where the browser was sent: the query."""
    answer = http.get("/sign-in/start")
    assert answer.status_code == 303, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def back(http: TestClient, liar: Liar, **changes: str) -> Any:
    """Leave, and come back with a code."""
    asked = left(http)
    liar.nonce = liar.nonce or asked["nonce"]
    return http.get(provider.RETURN, params={"code": "c", "state": asked["state"]} | changes)


def denials(http: TestClient) -> int:
    broker_in(http).trail.advance_pending()
    with broker_in(http).store.reading() as reading:
        return len(reading.all(EventRow, type="auth.denied"))


def test_a_person_signs_in_at_a_real_provider_and_reads_the_log(http: TestClient) -> None:
    with oidc_provider_mock.run_server_in_thread() as server:
        issuer = f"http://localhost:{server.server_port}"
        claims = {"roles": ["ig-officers"], "tid": "northshire"}
        httpx2.put(f"{issuer}/users/o-17", json=claims).raise_for_status()
        asked_otherwise(http, by(issuer))
        assert "Sign in with Northshire" in http.get("/").text
        consent = httpx2.post(http.get("/sign-in/start").headers["location"], data={"sub": "o-17"})
        assert consent.status_code == 302, consent.text
        returned = urlsplit(consent.headers["location"])
        assert returned.path == provider.RETURN
        done = http.get(f"{returned.path}?{returned.query}")
        assert (done.status_code, done.headers["location"]) == (303, "/ig")
        assert newest(http) == "auth.login"
        assert http.get("/log").status_code == 200
        assert http.get(f"{returned.path}?{returned.query}").status_code == 401  # the code was for once


def test_what_is_sent_along_binds_the_answer_to_this_browser(http: TestClient, liar: Liar) -> None:
    asked = left(http)
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{BASE_URL}{provider.RETURN}"
    assert asked["state"] not in http.cookies[provider.COOKIE]
    assert back(http, liar).status_code == 303
    assert len(liar.verifier) >= 43
    assert COOKIE in http.cookies
    assert provider.COOKIE not in http.cookies


@pytest.mark.parametrize("lie", LIES)
def test_a_token_that_does_not_hold_signs_nobody_in(lie: str, http: TestClient, liar: Liar) -> None:
    before = denials(http)
    for name, value in LIES[lie].items():
        setattr(liar, name, value)
    refused = back(http, liar)
    assert refused.status_code == 401
    assert "You were not signed in" in refused.text
    assert COOKIE not in http.cookies
    assert denials(http) == before  # a stranger writes nothing in the log


def test_an_answer_to_another_browser_or_after_ten_minutes_is_none(
    http: TestClient, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def come_back(asked: dict[str, str]) -> int:
        answer = http.get(provider.RETURN, params={"code": "c", "state": asked["state"]})
        return int(answer.status_code)

    assert back(http, liar, state="another").status_code == 401
    assert back(http, liar, error="access_denied").status_code == 401
    asked = left(http)
    http.cookies.clear()
    assert come_back(asked) == 401
    asked = left(http)
    sealed = http.cookies[provider.COOKIE]
    http.cookies.clear()
    http.cookies.set(provider.COOKIE, sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:])
    assert come_back(asked) == 401
    http.cookies.clear()
    asked, now = left(http), clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + provider.LASTS)
    assert come_back(asked) == 401


def newest(http: TestClient) -> str:
    broker_in(http).trail.advance_pending()
    with broker_in(http).store.reading() as reading:
        return reading.all(EventRow, order=("-seq",))[0].type


def last_outcome(http: TestClient) -> str:
    with broker_in(http).store.reading() as reading:
        return reading.all(EventRow, type="auth.denied", order=("-seq",))[0].outcome


@pytest.mark.parametrize(
    ("claims", "reason", "said"),
    [
        ({"roles": ["staff"]}, "no-role", "no role"),
        ({"roles": 7}, "no-role", "no role"),
        ({"roles": ["ig-officers", "operators"]}, "several-roles", "several roles"),
        ({"roles": ["ig-officers", "planning"]}, "several-roles", "several roles"),
        ({"roles": ["inspectors"]}, "no-inspection", "has not begun, or has ended"),
        ({"tid": "elsewhere"}, "tenant", "another organisation"),
        ({"sub": "sam@example.org"}, "person", "no role"),
        ({"acr": "password"}, "acr", "second factor"),
    ],
)
def test_whoever_has_no_way_in_is_told_why_and_it_is_in_the_log(
    claims: dict[str, Any], reason: str, said: str, http: TestClient, liar: Liar
) -> None:
    before = denials(http)
    liar.claims = {"acr": "mfa", **claims}
    asked_otherwise(http, by(liar.issuer, acr=("mfa", "hardware")))
    refused = back(http, liar)
    assert refused.status_code == 403
    assert said in refused.text
    assert "sam@example.org" not in refused.text
    assert COOKIE not in http.cookies
    assert denials(http) == before + 1
    assert last_outcome(http) == reason


def test_a_planner_is_their_own_organisation_s(http: TestClient, liar: Liar) -> None:
    liar.claims = {"roles": "planning"}
    assert back(http, liar).status_code == 303
    with broker_in(http).store.reading() as reading:
        (row,) = reading.all(SessionRow, role="SERVICE_PLANNER")
    assert row.organisation == "northshire-council"


@pytest.mark.parametrize(
    "lie",
    [
        {"issuer": "https://elsewhere.example"},
        {"token_endpoint": "https://elsewhere.example/token"},
        {"jwks_uri": "http://127.0.0.1:1/keys"},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
)
def test_a_provider_that_points_elsewhere_is_not_followed(lie: dict[str, str], http: TestClient, liar: Liar) -> None:
    liar.metadata = lie
    assert http.get("/sign-in/start").status_code == 503


def test_a_provider_that_is_out_is_told_and_asked_again_later(http: TestClient, liar: Liar) -> None:
    with answering(Liar()) as gone:
        issuer = gone.issuer
    asked_otherwise(http, by(issuer))
    assert http.get("/sign-in/start").status_code == 503
    assert COOKIE not in http.cookies


def test_without_a_provider_there_is_no_such_way_in(tmp_path: Path) -> None:
    with TestClient(an_app(tmp_path), base_url=BASE_URL, follow_redirects=False) as other:
        assert other.get("/sign-in/start").status_code == 404
        assert "Sign in with" not in other.get("/").text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"roles": {}, "planners": {}}, "roles"),
        ({"roles": {"a": "SERVICE_PLANNER"}}, "planners"),
        ({"roles": {"planning": "OPERATOR"}}, "planners"),
    ],
)
def test_settings_that_let_nobody_in_or_in_twice_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        by("https://idp.example", **changes)


def test_in_production_a_provider_is_reached_by_https_alone(tmp_path: Path) -> None:
    given = {"environment": "production", "base_url": "https://broker.example", "demo_people": ()}
    with pytest.raises(ValidationError, match=r"oidc\.issuer"):
        some_settings(tmp_path, oidc=by("http://idp.example"), **given)
    assert isinstance(some_settings(tmp_path, oidc=by("https://idp.example"), **given), Settings)


def test_no_secret_shows(tmp_path: Path) -> None:
    settings = some_settings(tmp_path, oidc=by("https://idp.example"))
    assert not re.search("s3cret", repr(settings) + str(settings.oidc))
