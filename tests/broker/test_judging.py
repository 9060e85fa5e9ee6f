"""Which batches wait for an agreement: only those that carry what no live one lets their agency give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from agreements import sign
from broker import activation, clock, documents, register, validation
from broker.reception import Reception
from broker.store.batches import BatchRow
from tests.builders import COUNCIL, ICB, Batch, a_batch, a_ref, an_item
from tests.builders_broker import (
    AGREEMENT,
    DOCUMENTS,
    LONG,
    PERIOD,
    SIGNED,
    WHO,
    Caller,
    agreed,
    an_installation,
    pause,
    reception,
    serving,
    signatory,
)

SECOND = "northshire-second@1.0.0"
ALICE = a_ref(COUNCIL, None, "alice")
ENROLMENT = an_item(a_ref("item", "one"), ALICE)
ATTENDANCE = an_item(
    a_ref("item", "two"), ALICE, "education.attendance", code_system="attendance_band", code="SEVERE", number=41
)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    """With a second agreement in force, which gives all that the first does but enrolment."""
    with serving(an_installation(tmp_path)) as client:
        desk = reception(client)
        umbrella, first = (
            (DOCUMENTS / f"{name}.toml").read_bytes().replace(PERIOD, LONG)
            for name in ("northshire-tier1", "northshire-mash")
        )
        source = first.replace(b'id = "northshire-mash"', b'id = "northshire-second"').replace(
            b'version = "3.0.0"', b'version = "1.0.0"', 1
        )
        for place in (b'disclose.existence = ["education.enrolment", ', b'"education.enrolment", '):
            source = source.replace(place, place.replace(b'"education.enrolment", ', b""))
        ref = register.import_document(desk.store, desk.trail, source, who=WHO, at=clock.now())
        document = documents.read_alone(source, [umbrella])
        for party in (COUNCIL, ICB):
            jws = sign(document, kid=f"{party}/signatory", key=signatory(party), at=SIGNED)
            register.add_signatures(desk.store, desk.trail, ref, jws, who=WHO, at=clock.now())
        activation.activate(desk.store, desk.trail, ref, who=WHO, at=clock.now())
        yield client


@pytest.fixture
def desk(http: TestClient) -> Reception:
    return reception(http)


def a_night(*items: dict[str, object], under: list[str]) -> Batch:
    return agreed(a_batch(items=items, agreements=under))


def judged(desk: Reception, batch: str) -> tuple[str, list[tuple[str, int]]]:
    """The state of a batch, and of which categories how many rows have no agreement."""
    validation.validate_sealed(desk)
    with desk.store.reading() as tx:
        row = tx.one(BatchRow, id=batch)
    assert row is not None
    assert row.verdict is not None
    return row.state, [(one["column"], one["count"]) for one in row.verdict["totals"]]


def test_one_lapsed_agreement_holds_nothing_that_another_covers(http: TestClient, desk: Reception) -> None:
    pause(desk, COUNCIL)
    night = a_night(ATTENDANCE, under=[AGREEMENT, SECOND])
    assert judged(desk, Caller(http).hand_in(night)) == ("accepted", [])


def test_a_batch_waits_whole_for_what_no_live_agreement_covers_and_says_what_it_is(
    http: TestClient, desk: Reception
) -> None:
    pause(desk, COUNCIL)
    night = a_night(ENROLMENT, ATTENDANCE, under=[AGREEMENT, SECOND])
    assert judged(desk, Caller(http).hand_in(night)) == ("quarantined", [("education.enrolment", 1)])


def test_without_any_live_agreement_every_batch_waits(http: TestClient, desk: Reception) -> None:
    pause(desk, COUNCIL)
    night = a_night(ATTENDANCE, under=[AGREEMENT])
    assert judged(desk, Caller(http).hand_in(night)) == ("quarantined", [("education.attendance", 1)])
