"""The linkage key is rotated: the new epoch is prepared in the shadow, judged, and takes the old one's place whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient

from broker import clock, epochs, rotation, validation
from broker.epochs import Key
from broker.settings import Settings
from broker.store.agencies import AgencyRow
from broker.store.epochs import EpochRow
from broker.wiring import Broker
from tests.broker.test_nightly import NAMES, a_night, events, hand_in, in_service, person_of, run
from tests.builders import COUNCIL, EPOCH, ICB, Batch, a_batch, a_token, schema_of
from tests.builders_broker import a_copy, agreed, reception, serving

NEXT: Final = Key(name="2027-1", fingerprint="abcdef0123456789", canaries=("7", "-8", "9"))
FLOWS: Final = ((COUNCIL, "education"), (COUNCIL, "social_care"), (ICB, "health"))
ANNE: Final = {"organisation": "northshire", "role": "OPERATOR", "method": "command", "person": "anne"}
BEN: Final = {**ANNE, "person": "ben"}


def rekeyed(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A row of persons as another key encodes it: no token of one key is one of another's."""
    tokens = [name for name in row if name.startswith(("t_", "id_")) and row[name] is not None]
    return {**row, **{name: a_token(key, row[name]) for name in tokens}}


def a_set(agency: str, flow: str, names: tuple[str, ...] = NAMES, *, key: str = "next", **said: Any) -> Batch:
    """The full batch of a flow under the next key; `key` is what it was truly encoded under."""
    night = a_night(agency, flow, names)
    rows = [rekeyed(row, f"{key} {agency}" if key == "wrong" else key) for row in people_of(night)]
    terms = {
        "key_epoch": NEXT.name, "key_fingerprint": NEXT.fingerprint, "canaries": tuple(map(int, NEXT.canaries)),
    }  # fmt: skip
    return agreed(a_batch(agency=agency, flow=flow, persons=rows, **{**terms, **said}))


def people_of(batch: Batch) -> list[dict[str, Any]]:
    import io

    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(
        io.BytesIO(batch.files["persons"]), schema=schema_of("persons", "guarded-3")
    ).to_pylist()
    return rows


def prepare(http: TestClient, broker: Broker) -> None:
    """Three flows in service, the next epoch open, and its set whole."""
    hand_in(http, *(a_night(*flow) for flow in FLOWS))
    run(broker)
    epochs.open_epoch(broker.store, broker.trail, NEXT, who=ANNE, at=clock.now())
    hand_in(http, *(a_set(*flow) for flow in FLOWS))
    validation.validate_sealed(reception(http))
    broker.trail.advance_pending()


@pytest.fixture(scope="module")
def prepared(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A broker whose next epoch waits to be linked."""
    folder = tmp_path_factory.mktemp("prepared")
    with serving(a_copy(installed, folder)) as http:
        prepare(http, http.app.state.broker)  # type: ignore[attr-defined]
    return folder


@pytest.fixture
def settings(prepared: Path, tmp_path: Path) -> Settings:
    return a_copy(prepared, tmp_path)


def flip(broker: Broker) -> dict[str, Any]:
    """Linked, proposed by one, confirmed by another."""
    report = rotation.link(broker, NEXT.name, who=ANNE, at=clock.now())
    assert report["reasons"] == []
    rotation.propose(broker, NEXT.name, who=ANNE, at=clock.now())
    return rotation.confirm(broker, NEXT.name, who=BEN, at=clock.now())


def codes(broker: Broker) -> list[tuple[str, str]]:
    report = rotation.link(broker, NEXT.name, who=ANNE, at=clock.now())
    return [(reason["code"], reason["flow"]) for reason in report["reasons"]]


def test_another_epoch_takes_the_place_of_the_one_in_service_and_persons_keep_their_ids(
    http: TestClient, broker: Broker
) -> None:
    before = person_of(broker)
    done = flip(broker)
    assert done["state"] == "in_service"
    assert person_of(broker) == before
    with broker.store.reading() as tx:
        assert {row.key_epoch for row in tx.all(AgencyRow)} == {NEXT.name}
        assert {row.name: row.state for row in tx.all(EpochRow)} == {EPOCH: "held", NEXT.name: "in_service"}
    assert in_service(broker).counts["key_epoch"] == NEXT.name
    assert run(broker)["state"] == "unchanged"
    told = events(broker)
    assert [one for one in told if one.startswith("epoch.")] == [
        "epoch.opened", "epoch.linked", "epoch.proposed", "epoch.flipped",
    ]  # fmt: skip
