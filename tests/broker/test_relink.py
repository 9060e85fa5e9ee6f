"""Only what differs is compared, and the result is a full relink's; a new model serves only if it may."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from broker import clock, lineage, models, nightly
from broker.errors import NotFound, WrongState
from broker.nightly import ModelRefused, Relink
from broker.settings import Settings
from broker.store.log import EventRow
from broker.store.runs import LinkageModelRow, LinkRunRow, PublishedRow
from broker.wiring import Broker
from linkage.agency.keys import LinkageKeys
from linkage.evaluation.attack.bench import wire
from linkage.evaluation.attack.population import population
from linkage.matching.link import link
from linkage.matching.model import default_model
from linkage.records import QUALITY_FLAGS, schema_of
from tests.broker.test_nightly import NAMES, a_night, hand_in, in_service, person_of, ref, run
from tests.builders import COUNCIL, ICB, a_batch, a_person, a_ref
from tests.builders_broker import agreed, an_installation, serving

NIGHT = date(2026, 3, 2)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two agencies' nights in service."""
    folder = tmp_path_factory.mktemp("installed")
    settings = an_installation(folder, agencies={COUNCIL: ("education",), ICB: ("health",)})
    with serving(settings) as http:
        hand_in(http, a_night(COUNCIL, "education"), a_night(ICB, "health"))
        run(http.app.state.broker)  # type: ignore[attr-defined]
    return folder


def relink(broker: Broker, **asked: Any) -> dict[str, Any]:
    return nightly.run(broker, night=NIGHT, at=clock.now(), relink=Relink(**asked))


def kept(broker: Broker) -> list[LinkageModelRow]:
    with broker.store.reading() as tx:
        return tx.all(LinkageModelRow, order=("trained_at", "digest"))


def someone_else(name: str, **said: Any) -> Any:
    """The council's next night, in which the record of one child is another's by name, date, place and number."""
    night = a_night(COUNCIL, "education", tuple(one for one in NAMES if one != name))
    other = a_person(ref(COUNCIL, "education", name), given="zara", family="quill", dob="2012-12-24", postcode="ZZ9 9ZZ",
                     id_nhs_number="nhs zara")  # fmt: skip
    people = [
        a_person(
            ref(COUNCIL, "education", one), given=one, family=f"archer{at}", dob=f"20{10 + at}-0{at + 1}-1{at}",
            postcode=f"NS{at} {at}AA", id_nhs_number=f"nhs {one}",
        )
        for at, one in enumerate(NAMES) if one != name
    ]  # fmt: skip
    assert night.manifest.flow == "education"
    return agreed(a_batch(flow="education", persons=[*people, other], relationships=[], items=[], sequence=2, **said))


def test_a_night_compares_what_differs_and_finds_what_a_full_relink_finds(http: TestClient, broker: Broker) -> None:
    before = person_of(broker)
    hand_in(http, someone_else("chloe"))
    done = run(broker)
    assert 0 < done["counts"]["compared"] < done["counts"]["records"] == 12
    found = person_of(broker)
    changed = {record for record in found if found[record] != before.get(record)}
    assert changed in ({(COUNCIL, "education", ref(COUNCIL, "education", "chloe"))},
                       {(ICB, "health", ref(ICB, "health", "chloe"))})  # fmt: skip
    again = relink(broker, full=True)
    assert again["counts"]["compared"] == 12
    assert person_of(broker) == found
    old = before[COUNCIL, "education", ref(COUNCIL, "education", "chloe")]
    with broker.store.reading() as tx:
        followed = lineage.successors(tx, old)
        [event] = tx.all(EventRow, type="link.split")
    assert followed.became == "split"
    assert set(followed.ids) == {found[a, f, ref(a, f, "chloe")] for a, f in ((COUNCIL, "education"), (ICB, "health"))}
    assert event.actor_ref == ""


def test_a_flow_that_says_nothing_new_is_not_written_again(http: TestClient, broker: Broker) -> None:
    before = in_service(broker)
    hand_in(http, a_night(COUNCIL, "education", sequence=2))
    done = run(broker)
    after = in_service(broker)
    assert after.id != before.id
    for part in ("persons", "relationships"):
        for flow in (f"{COUNCIL}/education", f"{ICB}/health"):  # the council's second batch says what its first said
            assert after.segments[f"{part}/{flow}"] == before.segments[f"{part}/{flow}"]
    assert after.segments["model"] == before.segments["model"]
    assert done["counts"]["compared"] == 0
    hand_in(http, a_night(COUNCIL, "education", NAMES[:5], sequence=3))
    run(broker)
    last = in_service(broker)
    assert last.segments[f"persons/{COUNCIL}/education"] != before.segments[f"persons/{COUNCIL}/education"]
    assert last.segments[f"persons/{ICB}/health"] == before.segments[f"persons/{ICB}/health"]
    assert {*after.segments.values(), *last.segments.values()} == broker.vault.segments()
    assert len(broker.vault.read_parts(last.segments, "persons")) == 11


def test_a_retrained_model_that_moves_nothing_takes_the_place_of_the_one_before(broker: Broker) -> None:
    [first] = kept(broker)
    assert (first.why, first.state) == ("first", "in_service")
    assert first.digest == in_service(broker).model_sha256
    relink(broker, retrain=True)
    rows = kept(broker)
    assert in_service(broker).model_sha256 == next(row.digest for row in rows if row.state == "in_service")
    with broker.store.reading() as tx:
        [event] = tx.all(EventRow, type="linkage.model_compared")
    assert event.outcome == "passed"


def test_a_model_that_moves_the_link_rate_waits_for_a_named_operator(tmp_path: Path) -> None:
    """In one flow family names and addresses begin to differ: trained on that, a model links more records by far."""
    settings = an_installation(tmp_path, agencies={COUNCIL: ("education",), ICB: ("health",)})
    with serving(settings) as http:
        broker: Broker = http.app.state.broker  # type: ignore[attr-defined]
        hand_in(http, many(COUNCIL, "education"), many(ICB, "health"))
        run(broker)
        hand_in(http, many(ICB, "health", other_names=0.13, sequence=2))
        run(broker)
        before, people = in_service(broker), person_of(broker)
        with pytest.raises(ModelRefused) as refused:
            relink(broker, retrain=True)
        compared = refused.value.comparison
        was, would = compared["link_rate"]
        assert would > was + models.RATE_JUMP
        assert compared["models"][0] == before.model_sha256 != compared["models"][1]
        assert set(compared["weights"]) >= {"given_name", "date_of_birth"}
        assert "in service" in models.words(compared)
        assert (in_service(broker).id, person_of(broker)) == (before.id, people)
        [new] = [row for row in kept(broker) if row.state == "refused"]
        assert (new.digest, new.why, new.comparison) == (compared["models"][1], "retrain", compared)
        with pytest.raises(NotFound):
            relink(broker, accept="0" * 16, by="ola")
        relink(broker, accept=new.digest[:16], by="ola")
        assert in_service(broker).model_sha256 == new.digest
        assert len(set(person_of(broker).values())) < len(set(people.values()))
        assert {row.digest: (row.state, row.accepted_by) for row in kept(broker)} == {
            before.model_sha256: ("retired", None), new.digest: ("in_service", "ola"),
        }  # fmt: skip
        with broker.store.reading() as tx:
            [event] = tx.all(EventRow, type="linkage.model_accepted")
        assert (event.actor_ref, event.role) == ("ola", "OPERATOR")
        with pytest.raises(WrongState):
            relink(broker, accept=new.digest, by="ola")


def many(agency: str, flow: str, *, other_names: float = 0.0, **said: Any) -> Any:
    """A flow that knows a thousand children, so that a model can be trained; of a share it has other family names and
    addresses than other flows have."""
    people = population(1_020, seed=3)  # in one order for every flow: their refs differ
    rng = np.random.default_rng(5)
    another = rng.random(len(people)) < other_names
    people.surname[another] = rng.permutation(people.surname)[another]
    people.postcode[another] = rng.permutation(people.postcode)[another]
    encoded = wire(people, LinkageKeys(bytes(range(32)), partnership="northshire", epoch="2026-1"), "guarded-3")
    blank = dict.fromkeys(schema_of("persons", "guarded-3").names)
    blank |= {"op": "upsert", "person_role": "child", "shield": "none"} | dict.fromkeys(QUALITY_FLAGS, False)
    persons = [
        {**blank, **row, "record_ref": a_ref(agency, flow, str(child))}
        for child, row in zip(people.person.tolist(), encoded.to_pylist(), strict=True)
    ]
    return agreed(a_batch(agency=agency, flow=flow, persons=persons, relationships=[], items=[], **said))


def test_a_night_retrains_when_it_is_due_and_is_not_lost_for_a_refused_model(
    http: TestClient, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _learns_otherwise(monkeypatch)
    model = in_service(broker).model_sha256
    later = clock.now() + timedelta(days=broker.settings.retrain_days + 1)
    hand_in(http, a_night(COUNCIL, "education", NAMES[:5], sequence=2))
    assert run(broker)["warnings"] == []
    assert len(kept(broker)) == 1
    done = nightly.run(broker, night=NIGHT, at=later)
    assert (done["state"], done["warnings"]) == ("published", ["model_refused"])
    assert in_service(broker).model_sha256 == model
    assert [(row.why, row.state) for row in kept(broker)] == [("first", "in_service"), ("scheduled", "refused")]
    assert nightly.run(broker, night=NIGHT, at=later)["state"] == "unchanged"


def test_a_model_of_another_broker_is_never_taken_in_by_a_short_name(broker: Broker) -> None:
    [first] = kept(broker)
    with pytest.raises(NotFound):
        relink(broker, accept=first.digest[:6], by="ola")


def test_the_standing_report_hides_small_groups(http: TestClient, broker: Broker) -> None:
    with broker.store.reading() as tx:
        pointer = tx.one(PublishedRow)
        assert pointer is not None
        row = tx.one(LinkRunRow, id=pointer.run)
    assert row is not None
    found = {(rate["group"], rate["value"]): rate for rate in row.counts["rates"]}
    assert found["looked_after", "no"]["rate"] == 1.0
    assert found["source", f"{ICB}/health"]["records"] is None  # six records: fewer than are told


def _learns_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training finds another prior than before, and any move of the link rate, even none, is too much."""

    def learning(*given: Any, model: Any = None, **more: Any) -> Any:
        if model is None:
            shipped = default_model(Settings.model_fields["profile"].default)
            model = replace(shipped, prior=shipped.prior / 3)
        return link(*given, model=model, **more)

    monkeypatch.setattr(nightly, "link", learning)
    monkeypatch.setattr(models, "RATE_JUMP", -1.0)
    monkeypatch.setattr(models, "ENOUGH", 1)
