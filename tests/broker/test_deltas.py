"""An agency's deltas at a real broker: after them it holds what a full night would have told it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker import clock as broker_clock
from broker import manifests
from broker.linked import clusters_of, family_in
from broker.store.items import ItemRow
from broker.store.runs import LinkRunRow, PublishedRow
from linkage.agency import client
from linkage.agency import clock as agency_clock
from linkage.agency.batch import encode_extract
from linkage.agency.codes import load as load_codes
from tests.builders import COUNCIL, ICB
from tests.builders_area import Area, Clock, Extracts
from tests.builders_families import KIT, PAT, ROBIN, extracts

FLOWS = ((COUNCIL, "social_care"), (COUNCIL, "education"), (ICB, "health"))


def submitted(area: Area, extracts: Extracts, *, delta: bool) -> dict[tuple[str, str], tuple[str, dict[str, int]]]:
    """By flow the kind of what was handed in, and its rows."""
    said = {}
    for agency, flow in FLOWS:
        home = area.home(agency)
        caller = client.Broker(home, now=agency_clock.now, http=area.http, sleep=lambda _: None)
        for batch in client.receipts(home):  # as `agency status` does in the morning
            client.settle(home, caller, batch)
        place = area.folder / "extracts" / agency / f"{flow}-{broker_clock.now():%d%H}"
        mapping = extracts[agency, flow].write(place, agency, flow)
        made = encode_extract(mapping, home, place / "batch", codes=load_codes(), now=broker_clock.now(), delta=delta)
        client.submit(made.folder, home, caller)
        said[agency, flow] = made.manifest.kind, {name: entry.rows for name, entry in made.manifest.tables.items()}
    return said


def held(area: Area) -> list[Any]:
    """What the broker holds of these flows: rows in the vault, items, and who is one person and whose family."""
    with area.broker.store.reading() as tx:
        published = tx.one(PublishedRow)
        assert published is not None
        run = tx.one(LinkRunRow, id=published.run)
        assert run is not None
        items = sorted(
            (item.agency, item.flow, item.item_ref, item.record_ref, item.category, str(item.occurred_on))
            for item in tx.all(ItemRow)
        )
    vault = area.broker.vault
    tables = [*(vault.read_parts(run.segments, name) for name in ("persons", "relationships")),
              clusters_of(vault, run), family_in(vault, run)]  # fmt: skip
    return [items, *(sorted(table.to_pylist(), key=repr) for table in tables)]


def test_after_deltas_a_broker_holds_what_a_full_night_tells_it(area: Area, clock: Clock) -> None:
    later = dict(extracts(PAT))
    moved = {"postcode": "NS12 3AB", "uprn": "100000000099"}
    social_care = later[COUNCIL, "social_care"]
    social_care.people = [{**row, **moved} if row["local_id"] == ROBIN.id else row for row in social_care.people]
    social_care.tie(ROBIN, "sibling", KIT)
    later[ICB, "health"].item(KIT, "health.not_brought", "DENTAL", "2026-11-01")
    clock.put(clock.now() + timedelta(days=1))
    said = submitted(area, later, delta=True)
    assert {kind for kind, _ in said.values()} == {"delta"}
    assert sum(rows["persons"] for _, rows in said.values()) <= 8
    assert area.link()["state"] == "published"
    after_deltas = held(area)
    clock.put(clock.now() + timedelta(days=1))
    assert {kind for kind, _ in submitted(area, later, delta=False).values()} == {"full"}
    area.link()
    assert held(area) == after_deltas


def test_a_home_s_client_says_that_it_lives_and_is_told_when_its_form_of_batch_ends(
    area: Area, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, soon = area.home(COUNCIL), str(broker_clock.now().date() + timedelta(days=40))
    caller = client.Broker(home, now=agency_clock.now, http=area.http, sleep=lambda _: None)
    assert home.flows() == ["early_help", "education", "housing", "social_care"]
    clock.put(clock.now() + timedelta(days=1))
    before = broker_clock.now().isoformat()
    caller.heartbeat("education")
    assert caller.standing("education")["heard_at"] >= before
    going = ({**manifests.VERSIONS[0], "deprecated": "2026-11-01", "sunset": soon},)
    monkeypatch.setattr(manifests, "VERSIONS", going)
    extract = extracts(PAT)[COUNCIL, "education"]
    mapping = extract.write(area.folder / "extracts" / "again", COUNCIL, "education")
    made = encode_extract(mapping, home, area.folder / "again", codes=load_codes(), now=broker_clock.now())
    client.submit(made.folder, home, caller)
    assert caller.sunset.endswith("GMT")
