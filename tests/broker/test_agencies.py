"""Who takes part: agencies, their keys, and how recent their feeds are."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from broker import agencies
from broker.errors import (
    BadSignature,
    Conflict,
    Malformed,
    NotFound,
    UnknownAgency,
    UnknownFlow,
    WrongState,
)
from broker.store import Store
from broker.store.agencies import AgencyFlowRow, AgencyKeyRow, AgencyRow
from broker.store.log import EventRow
from broker.tokens import BadKey
from broker.trail import Trail
from tests.broker.platform import DETAILS, AnAgency
from tests.broker.test_register import AT, COUNCIL, ICB, WHO, enrolled


def test_enrolling_twice_changes_nothing_but_what_changed(store: Store, trail: Trail) -> None:
    agency = AnAgency()
    enrolled(store, trail, agency)
    agencies.enrol(
        store, trail, agencies.Enrolment.parse(agency.public(), {**DETAILS, "name": "Renamed"}),
        partnership="northshire", who=WHO, at=AT,
    )  # fmt: skip
    trail.advance_pending()
    with store.reading() as reading:
        row = reading.one(AgencyRow, id=ICB)
        assert row is not None and row.name == "Renamed"
        assert len(reading.all(AgencyKeyRow, agency=ICB)) == 3
        types = [row.type for row in reading.all(EventRow, order=("seq",))]
    assert types == ["agency.enrolled", "agency.changed"]


def test_a_key_s_name_is_never_given_to_another_key(store: Store, trail: Trail) -> None:
    enrolled(store, trail, AnAgency())
    with pytest.raises(Conflict):
        enrolled(store, trail, AnAgency())


@pytest.mark.parametrize(
    ("public", "details"),
    [
        ({"agency": "Not An Id"}, {}),
        ({"signing": {"kid": "northshire-police/1", "public": "A" * 43}}, {}),
        ({"signing": {"kid": f"{ICB}/1", "public": "AAAA"}}, {}),
        ({"signing": {"kid": f"{ICB}/1", "public": "not base64!"}}, {}),
        ({"signatory": {"kid": f"{ICB}/1", "public": "A" * 43}}, {}),
        ({"canaries": ...}, {}),
        ({}, {"flows": {"health": {"expected_by": "25:00"}}}),
        ({}, {"flows": {"Health": {}}}),
        ({}, {"flows": {"health": {"contact": "nobody"}}}),
        ({}, {"name": ...}),
    ],
)
def test_what_can_not_be_enrolled(public: dict[str, Any], details: dict[str, Any]) -> None:
    whole = {name: value for name, value in (AnAgency().public() | public).items() if value is not ...}
    terms = {name: value for name, value in {**DETAILS, **details}.items() if value is not ...}
    with pytest.raises(Malformed):
        agencies.Enrolment.parse(whole, terms)


def test_a_private_client_key_is_not_taken() -> None:
    public = AnAgency().public()
    with pytest.raises(BadKey):
        agencies.Enrolment.parse(public | {"client": public["client"] | {"d": "AAAA"}}, DETAILS)


def test_a_revoked_agency_is_out_with_all_its_keys(store: Store, trail: Trail) -> None:
    enrolled(store, trail, AnAgency())
    with store.reading() as reading:
        assert len(agencies.signing_key(reading, ICB, f"{ICB}/1")) == 32
        with pytest.raises(BadSignature):
            agencies.signing_key(reading, COUNCIL, f"{ICB}/1")
    agencies.set_state(store, trail, ICB, "revoked", who=WHO, at=AT)
    with store.reading() as reading, pytest.raises(BadSignature):
        agencies.signing_key(reading, ICB, f"{ICB}/1")
    with pytest.raises(WrongState):
        agencies.set_state(store, trail, ICB, "active", who=WHO, at=AT)
    with pytest.raises(UnknownAgency):
        agencies.set_state(store, trail, COUNCIL, "active", who=WHO, at=AT)


def test_one_key_is_revoked_and_the_others_stay(store: Store, trail: Trail) -> None:
    enrolled(store, trail, AnAgency())
    agencies.revoke_key(store, trail, f"{ICB}/1", agency=ICB, who=WHO, at=AT)
    with store.reading() as reading:
        assert len(reading.all(AgencyKeyRow, revoked_at=None)) == 2
    with pytest.raises(NotFound):
        agencies.revoke_key(store, trail, f"{ICB}/1", agency=ICB, who=WHO, at=AT)


@pytest.mark.parametrize(
    ("as_of", "at", "state"),
    [
        (None, "2026-11-02T09:30Z", "NOT_CONNECTED"),
        ("2026-11-02T01:00Z", "2026-11-02T09:30Z", "CURRENT"),
        ("2026-11-01T01:00Z", "2026-11-02T05:59Z", "CURRENT"),  # tonight's is not due yet
        ("2026-11-01T01:00Z", "2026-11-02T06:01Z", "STALE"),  # London is on UTC in November
        ("2026-07-01T01:00Z", "2026-07-02T05:01Z", "STALE"),  # and an hour ahead in July
        ("2026-07-01T01:00Z", "2026-07-02T04:59Z", "CURRENT"),
        ("2026-10-30T12:00Z", "2026-11-02T09:30Z", "STALE"),
    ],
)
def test_a_feed_past_its_time_is_stale_and_never_no_record(
    store: Store, trail: Trail, as_of: str | None, at: str, state: str
) -> None:
    enrolled(store, trail, AnAgency())
    with store.transaction() as tx:
        row = tx.one(AgencyFlowRow, agency=ICB)
        assert row is not None
        row.as_of = datetime.fromisoformat(as_of) if as_of else None
        tx.add(row)
    with store.reading() as reading:
        (feed,) = agencies.feeds(reading, at=datetime.fromisoformat(at))
    assert feed.state == state
    assert feed.contact is not None
    assert feed.contact.out_of_hours == "01632 960002"


def test_a_paused_flow_is_told_as_paused_until_it_is_resumed(store: Store, trail: Trail) -> None:
    enrolled(store, trail, AnAgency())
    states = []
    for paused in (True, False):
        agencies.pause_flow(store, trail, ICB, "health", paused=paused, who=WHO, at=AT)
        with store.reading() as reading:
            (feed,) = agencies.feeds(reading, at=AT)
        states.append(feed.state)
    assert states == ["PAUSED", "NOT_CONNECTED"]  # nothing has come in yet
    trail.advance_pending()
    with store.reading() as reading:
        (newest,) = reading.all(EventRow, order=("-seq",), limit=1)
    assert newest.type == "agency.changed"
    what: Any = trail.opening(newest.event_id, show=("what",)).body("what")
    assert (what["agency"], what["flow"], what["paused"]) == (ICB, "health", False)
    with pytest.raises(UnknownFlow, match="broker agencies list"):
        agencies.pause_flow(store, trail, ICB, "police", paused=True, who=WHO, at=AT)


def test_a_suspended_agency_s_feed_is_paused_and_a_revoked_one_s_is_gone(store: Store, trail: Trail) -> None:
    agency = AnAgency()
    enrolled(store, trail, agency)
    agencies.set_state(store, trail, ICB, "suspended", who=WHO, at=AT)
    later = AT + timedelta(days=9)
    enrolment = agencies.Enrolment.parse(agency.public(), {**DETAILS, "name": "Renamed"})
    agencies.enrol(store, trail, enrolment, partnership="northshire", who=WHO, at=later)
    agencies.set_state(store, trail, ICB, "suspended", who=WHO, at=later)
    with store.reading() as reading:
        (feed,) = agencies.feeds(reading, at=later)
    assert (feed.name, feed.state, feed.paused_since) == ("Renamed", "PAUSED", AT)
    agencies.set_state(store, trail, ICB, "revoked", who=WHO, at=AT)
    with store.reading() as reading:
        assert agencies.feeds(reading, at=AT) == ()
