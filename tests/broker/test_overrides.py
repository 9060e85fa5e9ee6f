"""What is decided about records is kept: severs for good, the rest by two people where it must be, and sealed."""

from __future__ import annotations

import inspect
import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from broker import clock, nightly, overrides
from broker.cli import app
from broker.errors import NotAllowed, NotFound, WrongState
from broker.keys import Keys
from broker.linked import clusters_of
from broker.overrides import Sides, confirm, for_run, overrides_of, propose, refuse, withdraw
from broker.settings import read
from broker.store import Store
from broker.store.log import EventRow
from broker.store.reviews import OverrideRow, SeverMarkRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.trail import Trail
from broker.wiring import Broker, wire
from linkage.matching.overrides import Overrides, RecordKey
from tests.builders import COUNCIL, ICB, a_batch, a_person, a_ref
from tests.builders_broker import Caller, a_copy, agreed, an_installation, serving

AT = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
OLD, NEW, OTHER = (("council", "education", ref * 16) for ref in "abc")
AT_HEALTH, WITH_POLICE = ("icb", "health", "d" * 16), ("police", "police", "e" * 16)
FIRST = {"organisation": "northshire", "person": "links-1", "role": "LINK_REVIEWER", "method": "demo"}
SECOND = {**FIRST, "person": "links-2"}


def persons(*records: RecordKey, **markers: str) -> pa.Table:
    """Tonight's records; `markers`: the sever marker of some of them, by the first letter of their ref."""
    rows = [
        {"agency": agency, "flow": flow, "record_ref": ref, "sever_ref": markers.get(ref[0])}
        for agency, flow, ref in records
    ]
    return pa.Table.from_pylist(
        rows, schema=pa.schema([(name, pa.string()) for name in ("agency", "flow", "record_ref", "sever_ref")])
    )


def clusters(*people: tuple[RecordKey, ...]) -> pa.Table:
    rows = [
        {"agency": agency, "flow": flow, "record_ref": ref, "person_id": f"p{n}"}
        for n, person in enumerate(people)
        for agency, flow, ref in person
    ]
    return pa.Table.from_pylist(
        rows, schema=pa.schema([(name, pa.string()) for name in ("agency", "flow", "record_ref", "person_id")])
    )


def apart(bound: Overrides) -> set[frozenset[RecordKey]]:
    return {frozenset(pair) for pair in bound.sever}


@pytest.fixture
def night(store: Store, trail: Trail, keys: Keys) -> Any:
    """What binds a night's run, as the night asks for it."""

    def bound(tonight: pa.Table, previous: pa.Table | None = None, at: datetime = AT) -> set[frozenset[RecordKey]]:
        return apart(for_run(store, trail, keys, tonight, previous, at=at)[0])

    return bound


def a_decision(store: Store, trail: Trail, keys: Keys, **changes: Any) -> str:
    given: dict[str, Any] = {
        "kind": "must_link", "sides": Sides.of([OLD], [AT_HEALTH]), "who": FIRST, "reason": "levels_agree",
        "evidence": ["waterfall"], "second_due": False, "review": None, "at": AT,
    }  # fmt: skip
    with store.transaction() as tx:
        row, _ = propose(tx, trail, keys, **{**given, **changes})
        return row.id


def in_force(store: Store, keys: Keys, at: datetime = AT) -> Overrides:
    with store.reading() as tx:
        return overrides_of(tx, keys, at=at)


# --- Severs ----------------------------------------------------------------------------------------------------------


def test_a_sever_outlives_its_marker(night: Any) -> None:
    assert night(persons(OLD, NEW, a="s", b="s")) == {frozenset({OLD, NEW})}
    assert night(persons(OLD, NEW)) == {frozenset({OLD, NEW})}
    assert night(persons(NEW)) == {frozenset({OLD, NEW})}


def test_a_record_that_comes_back_without_its_marker_is_still_severed_from_one_marked_meanwhile(night: Any) -> None:
    assert night(persons(OLD, a="s")) == set()
    assert night(persons(OTHER)) == set()
    assert night(persons(NEW, b="s")) == {frozenset({OLD, NEW})}
    assert night(persons(OLD, NEW, OTHER)) == {frozenset({OLD, NEW})}


def test_one_agencys_marker_says_nothing_of_anothers(night: Any) -> None:
    assert night(persons(OLD, AT_HEALTH, a="s", d="s")) == set()


def test_whoever_was_one_person_with_either_side_is_severed_too(night: Any) -> None:
    before = clusters((OLD, AT_HEALTH), (NEW, WITH_POLICE), (OTHER,))
    bound = night(persons(OLD, NEW, AT_HEALTH, WITH_POLICE, OTHER, a="s", b="s"), before)
    assert bound == {frozenset({one, other}) for one in (OLD, AT_HEALTH) for other in (NEW, WITH_POLICE)}


def test_of_a_person_who_was_both_nobody_is_severed_but_the_two_that_are_marked(night: Any) -> None:
    before = clusters((OLD, NEW, AT_HEALTH))
    assert night(persons(OLD, NEW, AT_HEALTH, a="s", b="s"), before) == {frozenset({OLD, NEW})}


def test_what_reviewers_had_joined_within_a_person_who_is_two_ends_with_the_sever(
    night: Any, store: Store, trail: Trail, keys: Keys
) -> None:
    joined = a_decision(store, trail, keys, sides=Sides.of([AT_HEALTH], [WITH_POLICE]))
    elsewhere = a_decision(store, trail, keys, sides=Sides.of([OTHER], [("council", "housing", "f" * 16)]))
    night(persons(OLD, NEW, a="s", b="s"), clusters((OLD, NEW, AT_HEALTH, WITH_POLICE), (OTHER,)))
    with store.reading() as tx:
        state = {row.id: row.state for row in tx.all(OverrideRow, kind="must_link")}
    assert state == {joined: "withdrawn", elsewhere: "active"}
    trail.advance_pending()
    with store.reading() as tx:
        (event,) = tx.all(EventRow, type="override.withdrawn")
    assert event.org == "council"


def test_when_the_old_record_goes_those_who_were_linked_to_it_stay_severed_from_the_new_one(night: Any) -> None:
    first = night(persons(OLD, NEW, AT_HEALTH, a="s", b="s"))
    assert first == {frozenset({OLD, NEW})}  # nothing was linked yet
    after = clusters((OLD, AT_HEALTH), (NEW,))
    gone = night(persons(NEW, AT_HEALTH, b="s"), after)
    assert gone == {frozenset({OLD, NEW}), frozenset({AT_HEALTH, NEW})}
    assert night(persons(NEW, AT_HEALTH), clusters((AT_HEALTH,), (NEW,))) == gone


def test_a_sever_is_kept_once_and_told_once_and_names_nobody(
    night: Any, store: Store, trail: Trail, keys: Keys
) -> None:
    for _ in range(3):
        night(persons(OLD, NEW, a="s", b="s"))
    trail.advance_pending()
    with store.reading() as tx:
        (row,) = tx.all(OverrideRow)
        assert len(tx.all(SeverMarkRow)) == 2
        (event,) = tx.all(EventRow, type="override.sever")
    assert (row.kind, row.state, row.reason, row.organisation) == ("sever", "active", "agency_marker", "council")
    assert event.op == "alteration"
    shown = trail.opening(event.event_id, show=("what", "subjects", "detail"))
    assert OLD[2] not in str(shown)
    assert NEW[2] not in str(shown)


@pytest.mark.parametrize("table", ["link_override", "sever_mark"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET key_wrapped = sealed"])
def test_the_database_itself_refuses_to_undo_a_sever(table: str, change: str, night: Any, store: Store) -> None:
    night(persons(OLD, NEW, a="s", b="s"))
    with pytest.raises(DBAPIError, match="for good"), store.engine.begin() as connection:
        connection.execute(text(change.format(table)))


def test_no_function_ends_a_sever_whoever_asks(night: Any, store: Store, trail: Trail, keys: Keys) -> None:
    night(persons(OLD, NEW, a="s", b="s"))
    with store.reading() as tx:
        (row,) = tx.all(OverrideRow)
    operator = {"organisation": "northshire", "role": "OPERATOR", "method": "command"}
    for who in (FIRST, SECOND, operator):
        with pytest.raises(NotAllowed, match="nobody undoes"), store.transaction() as tx:
            withdraw(tx, trail, row.id, who=who, reason="mistake", at=AT)
        for act in (confirm, refuse):
            with pytest.raises(WrongState), store.transaction() as tx:
                act(tx, trail, row.id, who=who, at=AT)
    assert apart(in_force(store, keys, AT + timedelta(days=36_500))) == {frozenset({OLD, NEW})}
    # Nor can anything here make one but the markers: no caller of `propose` may say "sever".
    assert "sever" not in inspect.signature(propose).parameters["kind"].annotation


def test_a_must_link_of_a_severed_pair_does_not_bind(night: Any, store: Store, trail: Trail, keys: Keys) -> None:
    night(persons(OLD, NEW, a="s", b="s"))
    a_decision(store, trail, keys, sides=Sides.of([OLD], [NEW]))
    bound = in_force(store, keys)
    assert bound.must_link  # kept as it was decided
    assert apart(bound) == {frozenset({OLD, NEW})}  # and the sever comes first in every run


# --- Dates, people, states -------------------------------------------------------------------------------------------


def test_an_override_binds_within_its_dates(store: Store, trail: Trail, keys: Keys) -> None:
    a_decision(store, trail, keys, until=AT + timedelta(days=30))
    assert in_force(store, keys, AT - timedelta(seconds=1)).must_link == frozenset()
    assert len(in_force(store, keys).must_link) == 1
    assert in_force(store, keys, AT + timedelta(days=30)).must_link == frozenset()


def test_a_person_apart_from_a_person_is_every_record_of_one_apart_from_every_record_of_the_other(
    store: Store, trail: Trail, keys: Keys
) -> None:
    a_decision(store, trail, keys, kind="must_not_link", sides=Sides.of([OLD, AT_HEALTH], [NEW, WITH_POLICE]))
    assert {frozenset(pair) for pair in in_force(store, keys).must_not_link} == {
        frozenset({one, other}) for one in (OLD, AT_HEALTH) for other in (NEW, WITH_POLICE)
    }


def test_what_needs_two_people_binds_when_another_person_has_confirmed(store: Store, trail: Trail, keys: Keys) -> None:
    override = a_decision(store, trail, keys, second_due=True)
    assert in_force(store, keys) == Overrides()
    with pytest.raises(NotAllowed, match="second reviewer"), store.transaction() as tx:
        confirm(tx, trail, override, who=FIRST, at=AT)
    with store.transaction() as tx:
        row, _ = confirm(tx, trail, override, who=SECOND, at=AT)
    assert (row.person, row.second, row.state) == ("links-1", "links-2", "active")
    assert len(in_force(store, keys).must_link) == 1
    with pytest.raises(WrongState), store.transaction() as tx:
        confirm(tx, trail, override, who={**FIRST, "person": "links-3"}, at=AT)


def test_a_second_reviewer_may_refuse_and_then_nothing_binds(store: Store, trail: Trail, keys: Keys) -> None:
    override = a_decision(store, trail, keys, second_due=True)
    with store.transaction() as tx:
        refuse(tx, trail, override, who=SECOND, at=AT)
    assert in_force(store, keys) == Overrides()
    with store.reading() as tx:
        assert [row["state"] for row in overrides.listed(tx)] == ["withdrawn"]


def test_an_override_is_withdrawn_from_then_on_and_where_two_made_it_not_by_the_first_alone(
    store: Store, trail: Trail, keys: Keys
) -> None:
    one = a_decision(store, trail, keys)
    with store.transaction() as tx:
        withdraw(tx, trail, one, who=FIRST, reason="agency_says_different", at=AT)
    assert in_force(store, keys) == Overrides()
    two = a_decision(store, trail, keys, second_due=True)
    with store.transaction() as tx:
        confirm(tx, trail, two, who=SECOND, at=AT)
    with pytest.raises(NotAllowed), store.transaction() as tx:
        withdraw(tx, trail, two, who=FIRST, reason="agency_says_different", at=AT)
    with pytest.raises(NotFound), store.transaction() as tx:
        withdraw(tx, trail, "0" * 32, who=FIRST, reason="agency_says_different", at=AT)


def test_the_fingerprint_changes_with_what_binds_and_with_nothing_else(store: Store, trail: Trail, keys: Keys) -> None:
    def now() -> str:
        with store.reading() as tx:
            return overrides.fingerprint(tx, at=AT)

    before = now()
    proposed = a_decision(store, trail, keys, second_due=True)
    assert now() == before
    with store.transaction() as tx:
        confirm(tx, trail, proposed, who=SECOND, at=AT)
    bound = now()
    assert bound != before
    with store.transaction() as tx:
        withdraw(tx, trail, proposed, who=SECOND, reason="agency_says_different", at=AT)
    assert now() == before


def test_the_tables_do_not_say_whose_records_they_are_about(
    night: Any, store: Store, trail: Trail, keys: Keys, tmp_path: Path
) -> None:
    night(persons(OLD, NEW, a="s-marker", b="s-marker"))
    a_decision(store, trail, keys)
    if not store.sqlite:
        pytest.skip("the file is SQLite's")
    with sqlite3.connect(tmp_path / "broker.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    held = (tmp_path / "broker.db").read_bytes()
    assert b"agency_marker" in held
    for secret in (OLD[2], NEW[2], AT_HEALTH[2], "s-marker"):
        assert secret.encode() not in held


def test_an_override_is_found_by_a_record_of_either_side(night: Any, store: Store, trail: Trail, keys: Keys) -> None:
    night(persons(OLD, NEW, a="s", b="s"))
    joined = a_decision(store, trail, keys)
    with store.reading() as tx:
        assert len(overrides.touching(tx, keys, [OLD])) == 2
        assert [row.id for row in overrides.touching(tx, keys, [AT_HEALTH])] == [joined]
        assert overrides.touching(tx, keys, [OTHER]) == []
        assert overrides.severs(tx, keys, Sides.of([NEW], [OLD]))
        assert not overrides.severs(tx, keys, Sides.of([AT_HEALTH], [OLD]))


# --- What an operator may do -----------------------------------------------------------------------------------------


def test_an_operator_lists_overrides_and_has_no_command_that_makes_or_ends_one(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(
        'environment = "demo"\npartnership = "northshire"\nbase_url = "http://127.0.0.1:8400"\n'
        'database_url = "sqlite:///broker.db"\ndata_dir = "data"\n'
    )
    at = ["--config", str(config), "--json"]
    assert CliRunner().invoke(app, ["init", *at]).exit_code == 0
    broker = wire(read(config))
    for_run(broker.store, broker.trail, broker.keys, persons(OLD, NEW, a="s", b="s"), None, at=AT)
    broker.store.close()
    done = CliRunner().invoke(app, ["linkage", "overrides", *at])
    (listed,) = json.loads(done.stdout)
    assert (listed["kind"], listed["state"], listed["organisation"]) == ("sever", "active", "council")
    assert OLD[2] not in done.stdout
    groups = [
        group.typer_instance
        for group in app.registered_groups
        if group.typer_instance is not None and group.name != "restrictions"  # whose owners withdraw them
    ]
    names = {command.name or "" for group in (app, *groups) for command in group.registered_commands}
    assert "overrides" in names
    assert not [name for name in names if re.search("sever|undo|withdraw|join|split", name)]


# --- Through a night -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    an_installation(folder, agencies={COUNCIL: ("education", "social_care"), ICB: ("health",)})
    return folder


@pytest.fixture
def http(installed: Path, tmp_path: Path) -> Iterator[TestClient]:
    with serving(a_copy(installed, tmp_path)) as client:
        yield client


def hand_in(http: TestClient, agency: str, flow: str, *, marker: str | None = None, **said: Any) -> None:
    """A few children whom all know, and one who reads the same everywhere: nothing but a marker tells two lives apart."""
    others = [
        a_person(
            a_ref(agency, flow, name), given=name, family=f"archer{at}", dob=f"20{10 + at}-0{at + 1}-1{at}",
            postcode=f"NS{at} {at}AA", id_nhs_number=f"nhs {name}",
        )
        for at, name in enumerate(("benjamin", "chloe", "dominic", "eleanor", "frederick"))
    ]  # fmt: skip
    child = a_person(a_ref(agency, flow, "child"), id_nhs_number="nhs child", sever_ref=marker)
    Caller(http, agency).hand_in(agreed(a_batch(agency=agency, flow=flow, persons=[child, *others], items=[], **said)))


def people(broker: Broker) -> dict[str, str]:
    """Whose the child is, by flow."""
    with broker.store.reading() as tx:
        pointer = tx.one(PublishedRow)
        assert pointer is not None
        row = tx.one(LinkRunRow, id=pointer.run)
        assert row is not None
    table = clusters_of(broker.vault, row).to_pylist()
    return {
        one["flow"]: one["person_id"] for one in table
        if one["record_ref"] == a_ref(one["agency"], one["flow"], "child")
    }  # fmt: skip


def test_a_record_that_is_sent_again_without_its_marker_stays_apart_night_after_night(http: TestClient) -> None:
    broker: Broker = http.app.state.broker  # type: ignore[attr-defined]

    def link(night: int) -> str:
        return str(nightly.run(broker, night=date(2026, 3, night), at=clock.now())["state"])

    marker = "5e" * 16
    hand_in(http, COUNCIL, "education", marker=marker)
    hand_in(http, COUNCIL, "social_care", marker=marker)
    hand_in(http, ICB, "health")
    assert link(1) == "published"
    first = people(broker)
    assert first["education"] != first["social_care"]
    for night, flow in ((2, "education"), (3, "social_care")):
        hand_in(http, COUNCIL, flow, sequence=2)
        assert link(night) == "published"
        again = people(broker)
        assert again["education"] != again["social_care"]
    assert link(4) == "unchanged"
