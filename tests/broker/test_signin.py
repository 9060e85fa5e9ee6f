"""Sessions are on the server, opaque, short, and over at once when ended."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker import callers, signin
from broker.errors import NotAllowed, NotSignedIn
from broker.settings import Settings
from broker.store import Store
from broker.store.sessions import SessionRow, SpentTokenRow
from tests.broker.platform import BASE_URL, some_settings

AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return some_settings(tmp_path)


def test_a_session_is_kept_by_its_digest_only(store: Store, settings: Settings) -> None:
    cookie, session = signin.sign_in_to_demo(store, settings, "ig-1", at=AT)
    with store.reading() as reading:
        (row,) = reading.all(SessionRow)
    assert cookie not in row.model_dump().values()
    assert len(cookie) >= 43
    assert signin.session_of(store, settings, cookie, at=AT).csrf == session.csrf


def test_a_session_ends_when_idle_and_after_eight_hours_in_any_case(store: Store, settings: Settings) -> None:
    cookie, _ = signin.sign_in_to_demo(store, settings, "ig-1", at=AT)
    at = AT
    while at < AT + timedelta(hours=8) - timedelta(minutes=14):
        at += timedelta(minutes=14)
        assert signin.session_of(store, settings, cookie, at=at).person == "ig-1"
    with pytest.raises(NotSignedIn):
        signin.session_of(store, settings, cookie, at=AT + timedelta(hours=8))
    idle, _ = signin.sign_in_to_demo(store, settings, "ig-1", at=AT)
    with pytest.raises(NotSignedIn):
        signin.session_of(store, settings, idle, at=AT + timedelta(minutes=15))
    with store.transaction() as tx:
        assert signin.forget_ended(tx, at=AT + timedelta(hours=9)) == 2


def test_a_clock_that_went_back_lets_nobody_stay(store: Store, settings: Settings) -> None:
    cookie, _ = signin.sign_in_to_demo(store, settings, "ig-1", at=AT)
    with pytest.raises(NotSignedIn):
        signin.session_of(store, settings, cookie, at=AT - timedelta(minutes=5))


def test_an_ended_or_invented_session_is_no_session(store: Store, settings: Settings) -> None:
    cookie, _ = signin.sign_in_to_demo(store, settings, "ig-1", at=AT)
    signin.end(store, cookie, at=AT)
    for each in (cookie, "invented", ""):
        with pytest.raises(NotSignedIn):
            signin.session_of(store, settings, each, at=AT)
    signin.end(store, "invented", at=AT)


def test_only_the_people_of_a_demo_sign_in_without_a_password(store: Store, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotAllowed):
        signin.sign_in_to_demo(store, settings, "somebody", at=AT)
    production = some_settings(tmp_path, environment="production", demo_people=())
    assert signin.demo_people(production) == ()
    forced = production.model_copy(update={"demo_people": settings.demo_people})  # even if a list got in
    with pytest.raises(NotAllowed):
        signin.sign_in_to_demo(store, forced, "ig-1", at=AT)


@pytest.mark.parametrize(
    ("sent", "origin", "site", "passes"),
    [
        ("token", BASE_URL, "same-origin", True),
        ("token", None, None, True),
        ("token", "null", "same-origin", True),  # what a browser says under our own Referrer-Policy
        ("token", None, "none", False),
        (None, BASE_URL, "same-origin", False),
        ("", BASE_URL, "same-origin", False),
        ("other", BASE_URL, "same-origin", False),
        ("token", "https://elsewhere.example", "same-origin", False),
        ("token", "null", None, False),
        ("token", BASE_URL, "cross-site", False),
        ("token", BASE_URL, "same-site", False),
    ],
)
def test_a_form_counts_only_from_our_own_page(
    sent: str | None, origin: str | None, site: str | None, passes: bool
) -> None:
    def check() -> None:
        signin.check_csrf("token", sent, origin=origin, site=site, base_url=BASE_URL)

    if passes:
        check()
    else:
        with pytest.raises(NotAllowed):
            check()


def test_spent_token_ids_are_forgotten_when_their_tokens_are_over(store: Store) -> None:
    with store.transaction() as tx:
        for minute in range(3):
            tx.add(
                SpentTokenRow(
                    issuer="icb",
                    use="client-assertion",
                    jti_sha256=str(minute),
                    expires_at=AT + timedelta(minutes=minute),
                )
            )
    with store.transaction() as tx:
        assert callers.forget_spent(tx, at=AT + timedelta(minutes=1)) == 1
