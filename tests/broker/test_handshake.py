"""That a client lives is told apart from what it sends; a form of manifest that goes is said to go."""

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from broker import clock, manifests, submissions
from broker.reception import Reception
from linkage.records import MANIFEST_MEDIA_TYPE, SCHEMA
from tests.builders import COUNCIL, ICB, a_batch
from tests.builders_broker import Caller, agreed


@pytest.fixture
def council(http: TestClient) -> Caller:
    return Caller(http)


def test_a_heartbeat_is_heard_and_makes_no_feed_fresher(council: Caller, desk: Reception) -> None:
    before = council.call("GET", "/v1/flows/education").json()
    assert (before["heard_at"], before["state"]) == (None, "NOT_CONNECTED")
    assert council.call("POST", "/v1/flows/education/heartbeat").status_code == 204
    after = council.call("GET", "/v1/flows/education").json()
    assert after["heard_at"] is not None
    assert after | {"heard_at": None} == before
    chased = {(agency, one.flow): one for agency, one in submissions.to_chase(desk, at=clock.now())}
    assert chased[COUNCIL, "education"].heard_at is not None  # it lives, and nothing came: both are told


def test_a_client_that_opens_a_batch_is_heard_of_too(council: Caller) -> None:
    council.open(agreed(a_batch())).raise_for_status()
    assert council.call("GET", "/v1/flows/education").json()["heard_at"] is not None


def test_nobody_is_heard_for_anothers_flow(council: Caller) -> None:
    assert council.call("POST", "/v1/flows/nothing/heartbeat").status_code == 404
    assert Caller(council.http, ICB).call("POST", "/v1/flows/education/heartbeat").status_code == 404
    assert council.call("GET", "/v1/flows/education").json()["heard_at"] is None


def test_a_form_on_its_way_out_is_taken_until_its_last_day_and_each_answer_says_so(
    council: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = council.open(agreed(a_batch()))
    assert {"Sunset", "Deprecation"}.isdisjoint(fresh.headers)
    today = clock.now().date()
    newer = {"schema": "sg-batch/99", "media_type": "application/vnd.example+json", "deprecated": None, "sunset": None}

    def ends(last: int) -> None:
        days = {"deprecated": str(today - timedelta(days=90)), "sunset": str(today + timedelta(days=last))}
        going = {"schema": SCHEMA, "media_type": MANIFEST_MEDIA_TYPE, **days}
        monkeypatch.setattr(manifests, "VERSIONS", (newer, going))

    ends(2)
    told = council.open(agreed(a_batch(flow="social_care")))
    assert told.status_code == 201
    assert told.headers["Deprecation"].startswith("@")
    assert told.headers["Sunset"].endswith("GMT")
    ends(-2)
    refused = council.open(agreed(a_batch(flow="social_care", sequence=2)))
    assert (refused.status_code, "sg-batch/99" in refused.json()["detail"]) == (422, True)
