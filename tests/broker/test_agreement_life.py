"""What becomes of questions, kept views and batches when an agreement changes under them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agreements import read, sign, sign_event
from agreements.agreement import Agreement
from broker import activation, register
from broker.store.batches import BatchRow
from linkage.agency import client
from linkage.agency import clock as agency_clock
from linkage.agency.gateway.app import create_gateway
from linkage.agency.gateway.broker_client import BrokerClient
from linkage.agency.gateway.encoder import SearchEncoder
from linkage.agency.gateway.store import GatewayStore
from tests.builders import COUNCIL, ICB, POLICE
from tests.builders_area import AGREEMENTS, BASE_URL, MORNING, OPERATOR, Area, Clock, Extract, bands
from tests.builders_families import ELI, ROBIN
from tests.linkage.agency.gateway.builders import ANALYST, Running, as_form, csrf_of, some_settings, something_typed

MASH, TIER1 = (AGREEMENTS / f"northshire-{name}.toml" for name in ("mash", "tier1"))
OLD = "northshire-mash@3.0.0"
PERIOD = "effective = 2026-04-01, expires = 2028-03-31, review_by = 2027-03-31"
SEAL = """
format = 1
kind = "restriction"
id = "northshire-icb-seal"
version = "1.0.0"
vocabulary = "uk-safeguarding@2026.1"
owner = "northshire-icb"
authority = "subject_seal"
text = "Nothing of health is shown."
period = {effective = 2026-05-01, expires = 2027-04-30}
categories = ["record"]
at_most = "none"
"""


def signed_by(area: Area, source: str, *parties: str, at: datetime) -> str:
    """Take a document in with these signatures; its ref."""
    broker = area.broker
    umbrella = read(TIER1.read_bytes())
    assert isinstance(umbrella, Agreement)
    ref = register.import_document(broker.store, broker.trail, source.encode(), who=OPERATOR, at=at)
    document = read(source, umbrellas=[umbrella])
    for party in parties:
        jws = sign(document, kid=f"{party}/signatory-1", key=area.signatory(party), at=at.replace(microsecond=0))
        register.add_signatures(broker.store, broker.trail, ref, jws, who=OPERATOR, at=at)
    return ref


def mash(version: str, period: str) -> str:
    """The hub's agreement as another version, of another period."""
    source = MASH.read_text()
    assert PERIOD in source
    return source.replace(PERIOD, period).replace('version = "3.0.0"', f'version = "{version}"', 1)


def codes(answer: dict[str, Any]) -> set[str]:
    return {one["code"] for one in answer.get("withheld", answer.get("refusals"))}


def mark(area: Area) -> str:
    return area.asker().broker.in_force()


def test_a_search_before_midnight_opens_nothing_after_the_last_day_and_feeds_wait(area: Area, clock: Clock) -> None:
    """The newer version's only day is today: with it the older ends, and at midnight there is none."""
    broker, at = area.broker, MORNING
    day = "effective = 2026-11-22, expires = 2026-11-22, review_by = 2026-11-22"
    ref = signed_by(area, mash("3.1.0", day), COUNCIL, ICB, POLICE, at=at)
    activation.activate(broker.store, broker.trail, ref, who=OPERATOR, at=at)
    clock.put(datetime(2026, 11, 22, 23, 50, tzinfo=UTC))  # London is on UTC in November
    analyst = area.asker()
    answer = analyst.search(ROBIN.typed(), case="L1")
    assert bands(answer) == ["match"]
    assert {tile["organisation"] for tile in analyst.open(answer)["tiles"]} == {COUNCIL, ICB, POLICE}
    before = mark(area)
    clock.put(datetime(2026, 11, 23, 0, 0, tzinfo=UTC))
    view = analyst.open(answer)
    assert view["tiles"] == []
    assert "DSA_EXPIRED" in codes(view)
    assert mark(area) != before
    assert analyst.search(ROBIN.typed(), case="L1")["candidates"] == []
    next_housing(area)
    assert area.link()["batches"] == {"quarantined": 1}
    with broker.store.reading() as reading:
        (waits,) = reading.all(BatchRow, state="quarantined")
    assert waits.verdict is not None
    assert waits.verdict["code"] == "agreement_not_live"


def next_housing(area: Area) -> None:
    """The next night of the housing flow, with one family in it; its mapping names version 3.0.0."""
    home = area.home(COUNCIL)
    caller = client.Broker(home, now=agency_clock.now, http=area.http, sleep=lambda _: None)
    for batch in client.receipts(home):
        client.settle(home, caller, batch)
    area.push({(COUNCIL, "housing"): Extract().knows(ROBIN).item(ROBIN, "housing.tenancy", "SECURE", "2026-10-01")})


def test_a_newer_version_goes_on_without_a_gap_and_feeds_that_name_the_older_come_in(area: Area) -> None:
    broker, at = area.broker, MORNING
    ref = signed_by(area, mash("3.1.0", PERIOD), COUNCIL, ICB, POLICE, at=at)
    activation.activate(broker.store, broker.trail, ref, who=OPERATOR, at=at)
    view = area.asker().view(ROBIN.typed(), case="L2")
    under = {clause["agreement"] for tile in view["tiles"] for one in tile["categories"] for clause in one["under"]}
    assert under == {"northshire-mash@3.1.0"}
    next_housing(area)
    assert "quarantined" not in area.link()["batches"]


def test_who_put_an_agreement_in_force_is_told_to_leave_the_asking_to_a_colleague(area: Area, clock: Clock) -> None:
    broker = area.broker
    approver = {**OPERATOR, "person": "p-approver"}
    activation.suspend(broker.store, broker.trail, OLD, who=OPERATOR, at=MORNING)
    activation.activate(broker.store, broker.trail, OLD, who=approver, at=MORNING)
    answer = area.asker(person="p-approver").search(ROBIN.typed(), case="L3")
    assert answer["candidates"] == []
    (own,) = [one for one in answer["refusals"] if one["code"] == "APPROVED_BY_ASKER"]
    assert own["sentence"] == f"You put {OLD} in force, so you cannot ask under it. Ask a colleague."
    assert not any(one["code"] == "ROLE_NOT_PERMITTED" for one in answer["refusals"])
    assert bands(area.asker(person="p-colleague").search(ROBIN.typed(), case="L3")) == ["match"]
    hidden = area.asker(person="p-approver").search(ELI.typed(), case="L4")
    assert hidden["refusals"] == answer["refusals"]


def test_a_seal_that_its_owner_signs_holds_with_the_next_decision(area: Area) -> None:
    broker = area.broker
    analyst = area.asker()
    answer = analyst.search(ROBIN.typed(), case="L5")
    assert ICB in {tile["organisation"] for tile in analyst.open(answer)["tiles"]}
    before = mark(area)
    signed_by(area, SEAL, ICB, at=MORNING)
    assert {tile["organisation"] for tile in analyst.open(answer)["tiles"]} == {COUNCIL, POLICE}
    assert mark(area) != before
    document = read(SEAL)
    jws = sign_event(document, "withdraw", kid=f"{ICB}/signatory-1", key=area.signatory(ICB), at=MORNING)
    register.add_party_event(broker.store, broker.trail, document.ref, jws, who=OPERATOR, at=MORNING)
    assert ICB in {tile["organisation"] for tile in analyst.open(answer)["tiles"]}
    assert mark(area) == before


# --- At the gateway ------------------------------------------------------------------------------------------------


@pytest.fixture
def gateway(area: Area, clock: Clock, tmp_path: Path) -> Running:
    """The council's gateway, which calls this broker."""
    home = area.home(COUNCIL)
    broker = BrokerClient(
        BASE_URL, agency=COUNCIL, key=client.client_jwk(home), kid=home.client_kid,
        token=client.Tokens(home, area.http, now=agency_clock.now, broker=BASE_URL), now=agency_clock.now,
        http=area.http,
    )  # fmt: skip
    store = GatewayStore(tmp_path / "gateway.sqlite", b"k" * 32)
    app = create_gateway(some_settings(), store=store, encoder=SearchEncoder(home), broker=broker, now=clock.now)
    return Running(app, store, clock, home)  # type: ignore[arg-type]


def test_a_view_that_is_open_is_decided_again_once_a_party_stops_its_disclosures(area: Area, gateway: Running) -> None:
    browser = gateway.client(ANALYST)
    form = as_form(something_typed(child=ROBIN.typed(nhs_number=""), case_reference="L6"))
    asked = browser.post("/searches/new", data=form | {"csrf": csrf_of(browser.get("/searches/new").text)})
    view = asked.headers["location"]
    assert view.startswith("/views/")
    shown = browser.get(view)
    assert (shown.status_code, "Northshire ICB" in shown.text) == (200, True)
    size = area.size()
    assert browser.get(view).text.count("Missed") == shown.text.count("Missed")
    assert area.size() == size  # nothing has changed: shown as it was, and no new disclosure

    area.suspend(ICB)
    again = browser.get(view)
    assert (again.status_code, again.headers["location"] != view) == (303, True)
    fresh = browser.get(again.headers["location"])
    assert "has paused its sharing" in fresh.text
    assert area.size() > size


def test_a_list_of_candidates_is_asked_for_again_once_an_agreement_is_out_of_force(
    area: Area, gateway: Running
) -> None:
    browser = gateway.client(ANALYST)
    typed = something_typed(child=ELI.typed(given_name="Nobody", nhs_number=""), case_reference="L7")
    form = as_form(typed) | {"csrf": csrf_of(browser.get("/searches/new").text)}
    listed = browser.post("/searches/new", data=form).headers["location"]
    assert listed.startswith("/searches/")
    assert browser.get(listed).status_code == 200
    activation.suspend(area.broker.store, area.broker.trail, OLD, who=OPERATOR, at=MORNING + timedelta(minutes=1))
    again = browser.get(listed)
    assert (again.status_code, again.headers["location"]) == (303, "/searches/new")
