"""The night: linked and published whole, or not at all; what was good stays in service."""

from __future__ import annotations

import uuid
from datetime import date
from itertools import pairwise
from typing import Any

import pytest
from fastapi.testclient import TestClient

from broker import agencies, clock, gates, nightly, runs, validation
from broker.errors import BrokerError, Conflict, WrongState
from broker.gathering import gather, inputs_of
from broker.linked import clusters_of, family_in
from broker.reception import Reception
from broker.settings import Settings
from broker.store.batches import BatchRow
from broker.store.log import EventRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.wiring import Broker
from linkage.matching.facts import facts_of
from linkage.matching.link import link
from linkage.matching.members import Placed
from tests.builders import COUNCIL, ICB, Batch, a_batch, a_person, a_ref, a_relationship
from tests.builders_broker import Caller, agreed, reception

NIGHT = date(2026, 3, 2)
NAMES = ("alice", "benjamin", "chloe", "dominic", "eleanor", "frederick")


def ref(agency: str, flow: str, name: str) -> str:
    return a_ref(agency, flow, name)


def a_night(agency: str, flow: str, names: tuple[str, ...] = NAMES, **said: Any) -> Batch:
    """The same children as every other flow has, each under this flow's own refs, siblings in a row."""
    people = [
        a_person(
            ref(agency, flow, name), given=name, family=f"archer{at}", dob=f"20{10 + at}-0{at + 1}-1{at}",
            postcode=f"NS{at} {at}AA", id_nhs_number=f"nhs {name}",
        )
        for at, name in enumerate(NAMES) if name in names
    ]  # fmt: skip
    refs = [person["record_ref"] for person in people]
    siblings = [a_relationship(one, other) for one, other in pairwise(refs)]
    return agreed(a_batch(agency=agency, flow=flow, persons=people, relationships=siblings, **said))


def hand_in(http: TestClient, *nights: Batch) -> list[str]:
    return [Caller(http, night.manifest.agency).hand_in(night) for night in nights]


def run(broker: Broker, **options: Any) -> dict[str, Any]:
    return nightly.run(broker, night=NIGHT, at=clock.now(), **options)


def in_service(broker: Broker) -> LinkRunRow:
    with broker.store.reading() as tx:
        pointer = tx.one(PublishedRow)
        assert pointer is not None
        row = tx.one(LinkRunRow, id=pointer.run)
        assert row is not None
        return row


def segment(broker: Broker, name: str) -> Any:
    if name in ("clusters", "family"):
        return {"clusters": clusters_of, "family": family_in}[name](broker.vault, in_service(broker))
    return broker.vault.read_parts(in_service(broker).segments, name)


def person_of(broker: Broker) -> dict[tuple[str, str, str], str]:
    rows = segment(broker, "clusters").to_pylist()
    return {(row["agency"], row["flow"], row["record_ref"]): row["person_id"] for row in rows}


def events(broker: Broker) -> list[str]:
    with broker.store.reading() as tx:
        return [row.type for row in tx.all(EventRow, order=("seq",))]


def states(broker: Broker) -> dict[str, str]:
    with broker.store.reading() as tx:
        return {row.id: row.state for row in tx.all(BatchRow)}


def test_three_flows_of_the_same_children_become_one_person_each(http: TestClient, broker: Broker) -> None:
    ids = hand_in(http, a_night(COUNCIL, "education"), a_night(COUNCIL, "social_care"), a_night(ICB, "health"))
    done = run(broker)
    assert done["state"] == "published"
    assert done["batches"] == {"accepted": 3}
    assert (done["counts"]["records"], done["counts"]["persons"], done["counts"]["children"]) == (18, 6, 6)
    people = person_of(broker)
    for name in NAMES:
        flows = ((COUNCIL, "education"), (COUNCIL, "social_care"), (ICB, "health"))
        assert len({people[agency, flow, ref(agency, flow, name)] for agency, flow in flows}) == 1
    family = segment(broker, "family").to_pylist()
    assert {row["type"] for row in family} == {"sibling"}
    assert states(broker) == dict.fromkeys(ids, "linked")
    assert events(broker)[-2:] == ["linkage.run_started", "linkage.published"]


def test_tokens_in_the_vault_are_peppered_and_segments_sealed(http: TestClient, broker: Broker) -> None:
    night = a_night(COUNCIL, "education")
    hand_in(http, night)
    run(broker)
    sent = a_person("", given=NAMES[0], id_nhs_number=f"nhs {NAMES[0]}")["id_nhs_number"]
    held = set(segment(broker, "persons")["id_nhs_number"].to_pylist())
    assert sent not in held
    assert broker.keys.pepper_one(sent) in held
    assert not any(b"PAR1" in path.read_bytes() for path in broker.vault.folder.iterdir())


def test_a_second_run_of_the_same_night_has_nothing_to_do(http: TestClient, broker: Broker) -> None:
    hand_in(http, a_night(COUNCIL, "education"))
    first = run(broker)
    before = (in_service(broker).id, broker.vault.segments(), len(events(broker)))
    again = run(broker)
    assert (again["state"], again["run"]) == ("unchanged", first["run"])
    assert (in_service(broker).id, broker.vault.segments(), len(events(broker))) == before


def test_without_a_batch_there_is_nothing_to_link(broker: Broker) -> None:
    assert run(broker)["state"] == "nothing"


def test_persons_keep_their_ids_and_a_flow_that_sent_nothing_stays(http: TestClient, broker: Broker) -> None:
    hand_in(http, a_night(COUNCIL, "education"), a_night(ICB, "health"))
    run(broker)
    before = person_of(broker)
    hand_in(http, a_night(COUNCIL, "education", NAMES[:4], sequence=2))
    run(broker)
    after = person_of(broker)
    gone = {(COUNCIL, "education", ref(COUNCIL, "education", name)) for name in NAMES[4:]}
    assert after == {record: person for record, person in before.items() if record not in gone}


def test_a_delta_replaces_deletes_and_keeps(http: TestClient, broker: Broker) -> None:
    first = a_night(COUNCIL, "education")
    hand_in(http, first)
    run(broker)
    changed = a_night(COUNCIL, "education", ("alice",))
    alice = ref(COUNCIL, "education", "alice")
    gone = dict.fromkeys(a_person("")) | {"op": "delete", "record_ref": ref(COUNCIL, "education", "chloe")}
    people = [{**a_person(alice, given="alicia"), "sex": "M"}, gone]
    delta = agreed(a_batch(persons=people, flow="education", kind="delta", sequence=2, previous=first.sha256, items=[]))
    assert changed.manifest.flow == delta.manifest.flow
    hand_in(http, delta)
    run(broker)
    people_now = {row["record_ref"]: row for row in segment(broker, "persons").to_pylist()}
    assert len(people_now) == len(NAMES) - 1
    assert people_now[alice]["sex"] == "M"
    ends = {row["ref_a"] for row in segment(broker, "relationships").to_pylist()}
    assert gone["record_ref"] not in ends


def test_rows_carried_over_are_those_of_the_run_in_service_and_the_night_is_that_of_a_full_relink(
    http: TestClient, broker: Broker, desk: Reception
) -> None:
    first = a_night(COUNCIL, "education")
    hand_in(http, first, a_night(ICB, "health"))
    run(broker)
    before = in_service(broker)
    held = {part: segment_of_flows(broker, before, part) for part in ("persons", "relationships")}
    alice = ref(COUNCIL, "education", "alice")
    people = [a_person(alice, given="alicia", dob="2010-01-10", postcode="NS0 0AA", id_nhs_number="nhs alice")]
    hand_in(http, agreed(a_batch(persons=people, flow="education", kind="delta", sequence=2, previous=first.sha256,
                                 items=[])))  # fmt: skip
    validation.validate_sealed(desk)
    with broker.store.reading() as tx:
        inputs = inputs_of(tx, desk)
    gathered = gather(broker.vault, desk, inputs, before)
    assert gathered.carried is not None
    for part, places in (("persons", gathered.carried.persons), ("relationships", gathered.carried.relationships)):
        rows = getattr(gathered, part).whole().to_pylist()
        assert [row for row, at in zip(rows, places, strict=True) if at >= 0] == [
            held[part][at] for at in places.tolist() if at >= 0
        ]
    assert sum(gathered.carried.persons < 0) == 1
    assert run(broker)["counts"]["compared"] < 2 * len(NAMES)
    night = person_of(broker)
    assert run(broker, relink=nightly.Relink(full=True))["counts"]["compared"] == 2 * len(NAMES)
    assert person_of(broker) == night


def test_deltas_lie_beside_what_they_change_until_there_are_many_and_say_what_one_full_night_says(
    http: TestClient, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.gathering.MOST_PIECES", 3)
    monkeypatch.setattr("broker.gathering.GONE_SHARE", 1)
    previous = a_night(COUNCIL, "education")
    hand_in(http, previous, a_night(ICB, "health"))
    run(broker)
    parts, given = [], dict.fromkeys(NAMES, "F")
    for sequence, name in enumerate(("alice", "benjamin", "alice"), 2):
        given[name] = "M" if sequence < 4 else "F"
        people = [{**a_person(ref(COUNCIL, "education", name), given=name), "sex": given[name]}]
        previous = agreed(a_batch(persons=people, flow="education", kind="delta", sequence=sequence,
                                  previous=previous.sha256, items=[]))  # fmt: skip
        hand_in(http, previous)
        run(broker)
        parts.append(sum(part.startswith(f"persons/{COUNCIL}/education") for part in in_service(broker).segments))
        held = {row["record_ref"]: row["sex"] for row in segment(broker, "persons").to_pylist()
                if row["agency"] == COUNCIL}  # fmt: skip
        assert len(held) == len(NAMES)
        assert all(held[ref(COUNCIL, "education", one)] == given[one] for one in ("alice", "benjamin"))
        night = person_of(broker)
        run(broker, relink=nightly.Relink(full=True))
        assert person_of(broker) == night
    assert parts == [2, 3, 1]
    with broker.store.reading() as tx:
        rows = tx.all(LinkRunRow, state="published")
    assert broker.vault.segments() == {segment for row in rows for segment in row.segments.values()}


def segment_of_flows(broker: Broker, run_row: LinkRunRow, part: str) -> list[dict[str, Any]]:
    """The rows of a part in the order in which the run had them."""
    names = [name for name, _ in run_row.counts["lengths"] if name.startswith(part)]
    return [row for name in names for row in broker.vault.read(run_row.segments[name]).to_pylist()]


def test_tables_stay_in_the_spool_until_their_segments_are_in_service(
    http: TestClient, broker: Broker, desk: Reception, settings: Settings
) -> None:
    [id_] = hand_in(http, a_night(COUNCIL, "education"))
    validation.validate_sealed(desk)
    assert desk.spool.batches() == {id_}
    vault = settings.data_dir / "vault"
    vault.rmdir()
    vault.touch()  # no folder: a segment can't be written
    with pytest.raises((OSError, BrokerError)):
        run(broker)
    vault.unlink()
    vault.mkdir()
    assert desk.spool.batches() == {id_}
    assert states(broker)[id_] == "accepted"
    run(broker)
    assert desk.spool.batches() == frozenset()
    assert states(broker)[id_] == "linked"


def test_segments_of_the_run_in_service_and_the_one_before_are_kept(http: TestClient, broker: Broker) -> None:
    runs = []
    for sequence in (1, 2, 3):
        hand_in(http, a_night(COUNCIL, "education", NAMES[: 3 + sequence], sequence=sequence))
        runs.append(run(broker)["run"])
    with broker.store.reading() as tx:
        rows = {row.id: row for row in tx.all(LinkRunRow)}
    assert [rows[run_id].state for run_id in runs] == ["retired", "published", "published"]
    kept = {segment for run_id in runs[1:] for segment in rows[run_id].segments.values()}
    assert broker.vault.segments() == kept


def test_a_run_that_was_killed_is_discarded_with_its_segments(http: TestClient, broker: Broker) -> None:
    hand_in(http, a_night(COUNCIL, "education"))
    first = run(broker)["run"]
    hand_in(http, a_night(ICB, "health"))
    with broker.store.transaction() as tx:
        tx.add(
            LinkRunRow(
                id="killed", night=NIGHT, state="running", stage="build", previous=first, segments={}, counts={},
                holder=runs._holder(), lease_until=clock.now(), started_at=clock.now(),
            )
        )  # fmt: skip
    orphan = broker.vault.write("persons-killed", segment(broker, "persons"))
    done = run(broker)
    assert done["state"] == "published"
    assert orphan not in broker.vault.segments()
    with broker.store.reading() as tx:
        killed = tx.one(LinkRunRow, id="killed")
    assert killed is not None
    assert (killed.state, killed.failure) == ("failed", "killed")
    assert "linkage.run_failed" in events(broker)


def test_another_machines_run_is_left_alone_while_its_lease_lasts(http: TestClient, broker: Broker) -> None:
    hand_in(http, a_night(COUNCIL, "education"))
    with broker.store.transaction() as tx:
        tx.add(
            LinkRunRow(
                id="elsewhere", night=NIGHT, state="running", segments={}, counts={}, holder="another-host:1",
                lease_until=clock.now() + runs.LEASE, started_at=clock.now(),
            )
        )  # fmt: skip
    with pytest.raises(WrongState):
        run(broker)


def test_a_paused_run_that_lost_its_place_publishes_nothing(http: TestClient, broker: Broker) -> None:
    hand_in(http, a_night(COUNCIL, "education"))
    validation.validate_sealed(reception(http))
    with broker.store.reading() as tx:
        inputs = inputs_of(tx, reception(http))
    gathered = gather(broker.vault, reception(http), inputs, None)
    linkage = link(gathered.persons, new_id=lambda: str(uuid.uuid4()))
    row = runs.claim(broker, inputs, None, night=NIGHT, at=clock.now())
    with broker.store.transaction() as tx:
        held = tx.one(LinkRunRow, id=row.id)
        assert held is not None
        held.fence += 1
        tx.add(held)
    with pytest.raises(Conflict):
        runs.put_in_service(broker, row, inputs, segments={}, counts={}, linkage=linkage)
    with broker.store.reading() as tx:
        assert tx.one(PublishedRow) is None


def test_only_one_run_is_at_work_on_a_machine(broker: Broker) -> None:
    with nightly.alone(broker), pytest.raises(WrongState):
        run(broker)


def test_a_gate_names_what_must_not_be_served(
    http: TestClient, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "ENOUGH", 1)
    hand_in(http, a_night(COUNCIL, "education"), a_night(ICB, "health"))
    run(broker)
    before = in_service(broker)
    with broker.store.reading() as tx:
        inputs = inputs_of(tx, reception(http))
    gathered = gather(broker.vault, reception(http), inputs, before)
    linkage = link(gathered.persons, households=gathered.relationships, new_id=lambda: str(uuid.uuid4()))
    placed = Placed.of(linkage.clusters, gathered.persons)
    counts = gates.counts_of(facts_of(gathered.persons), linkage, inputs, placed)
    gates.check(counts, before, linkage, exception=False)
    for spoilt, code in (
        ({"linked_records": 0}, "link_rate"),
        ({"records": 0}, "incomplete"),
        ({"children": 200_001}, "population"),
    ):
        with pytest.raises(gates.RunRefused) as refused:
            gates.check(counts | spoilt, before, linkage, exception=False)
        assert refused.value.code == code


def test_a_run_that_a_gate_refuses_leaves_the_one_before_in_service_until_it_is_excepted(
    http: TestClient, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_in(http, a_night(COUNCIL, "education"), a_night(ICB, "health"))
    good = run(broker)["run"]
    [id_] = hand_in(http, a_night(ICB, "health", sequence=2))
    monkeypatch.setattr(gates, "MOST_CHILDREN", 3)
    with pytest.raises(gates.RunRefused) as refused:
        run(broker)
    assert refused.value.code == "population"
    assert in_service(broker).id == good
    assert states(broker)[id_] == "accepted"
    done = nightly.run(broker, night=NIGHT, at=clock.now(), exception=True)
    assert done["state"] == "published"
    assert states(broker)[id_] == "linked"


def test_a_revoked_agencys_records_leave_with_the_next_run(http: TestClient, broker: Broker) -> None:
    hand_in(http, a_night(COUNCIL, "education"), a_night(ICB, "health"))
    run(broker)
    agencies.set_state(broker.store, broker.trail, ICB, "revoked", who={"person": "test"}, at=clock.now())
    assert run(broker)["state"] == "published"
    assert {agency for agency, _, _ in person_of(broker)} == {COUNCIL}


def test_a_batch_that_comes_in_while_linking_waits_for_the_next_run(
    http: TestClient, broker: Broker, desk: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = hand_in(http, a_night(COUNCIL, "education"))
    late: list[str] = []
    link = nightly.link

    def meanwhile(*given: Any, **more: Any) -> Any:
        late.extend(hand_in(http, a_night(COUNCIL, "education", NAMES[:5], sequence=2)))
        validation.validate_sealed(desk)
        return link(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(nightly, "link", meanwhile)
        assert run(broker)["state"] == "published"
    assert states(broker) == {first: "superseded", late[0]: "accepted"}
    assert desk.spool.batches() == {late[0]}
    assert run(broker)["counts"]["records"] == 5
    assert states(broker)[late[0]] == "linked"
