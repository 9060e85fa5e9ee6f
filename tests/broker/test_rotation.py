"""The linkage key is rotated: the new epoch is prepared in the shadow, judged, and takes the old one's place whole."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from agreements import Basis
from audit.taxonomy import KINDS
from broker import agencies, clock, epochs, overrides, rotation, searches, validation
from broker.callers import Caller as CallerOf
from broker.cli import app
from broker.epochs import Key
from broker.errors import BrokerError, Conflict, NotAllowed, WrongEpoch, WrongState
from broker.gathering import inputs_of
from broker.judging import judge
from broker.linked import InService, clusters_of
from broker.reception import batch_of
from broker.settings import Settings
from broker.shadow import EpochHeld
from broker.store.agencies import AgencyRow
from broker.store.batches import BatchRow
from broker.store.epochs import EpochRow
from broker.store.log import EventRow
from broker.store.runs import LinkRunRow
from broker.store.tombstones import Tombstones
from broker.wiring import Broker
from linkage.matching.overrides import RecordKey
from linkage.matching.search import EncodedRow
from linkage.records import Manifest
from tests.broker.test_erasure import erased
from tests.broker.test_nightly import NAMES, a_night, events, hand_in, in_service, person_of, ref, run
from tests.builders import COUNCIL, EPOCH, FINGERPRINT, ICB, Batch, a_batch, a_ref, a_token, schema_of
from tests.builders_broker import Caller, a_copy, agreed, an_installation, enrol, reception, serving
from tests.postgres import a_database

NEXT: Final = Key(name="2027-1", fingerprint="abcdef0123456789", canaries=("7", "-8", "9"))
FLOWS: Final = ((COUNCIL, "education"), (COUNCIL, "social_care"), (ICB, "health"))
ANNE: Final = {"organisation": "northshire", "role": "OPERATOR", "method": "command", "person": "anne"}
BEN: Final = {**ANNE, "person": "ben"}


def rekeyed(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A row of persons as another key encodes it: no token of one key is one of another's."""
    tokens = [name for name in row if name.startswith(("t_", "id_")) and row[name] is not None]
    return {**row, **{name: a_token(key, row[name]) for name in tokens}}


def a_set(
    agency: str, flow: str, names: tuple[str, ...] = NAMES, *, key: str = "next", refs: str = "", **said: Any
) -> Batch:
    """The full batch of a flow under the next key; `key` is what it was truly encoded under, `refs` another of its own."""
    night = a_night(agency, flow, names)
    rows = [rekeyed(row, f"{key} {agency}" if key == "wrong" else key) for row in people_of(night)]
    rows = [row | ({"record_ref": a_ref(refs, row["record_ref"])} if refs else {}) for row in rows]
    terms = {
        "key_epoch": NEXT.name, "key_fingerprint": NEXT.fingerprint, "canaries": tuple(map(int, NEXT.canaries)),
    }  # fmt: skip
    return agreed(a_batch(agency=agency, flow=flow, persons=rows, **{**terms, **said}))


def people_of(batch: Batch) -> list[dict[str, Any]]:
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


@pytest.fixture(scope="module")
def flipped(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the flip."""
    folder = tmp_path_factory.mktemp("flipped")
    with serving(a_copy(prepared, folder)) as http:
        caller, night = Caller(http, COUNCIL), agreed(a_night(COUNCIL, "education", NAMES[:5], sequence=2))
        caller.fill(night, caller.open(night).json()["batch"])  # not committed before the flip
        flip(broker_of(http))
    (folder / "night.json").write_bytes(night.body)
    return folder


@pytest.fixture
def settings(prepared: Path, tmp_path: Path) -> Settings:
    return a_copy(prepared, tmp_path)


@pytest.fixture
def after(flipped: Path, tmp_path: Path) -> Iterator[TestClient]:
    """Calls to a broker of one's own, whose next epoch is in service."""
    with serving(a_copy(flipped, tmp_path / "after")) as http:
        yield http


def flip(broker: Broker, to: Key = NEXT) -> dict[str, Any]:
    """Linked, proposed by one, confirmed by another."""
    report = rotation.link(broker, to.name, who=ANNE, at=clock.now())
    assert report["reasons"] == []
    rotation.propose(broker, to.name, who=ANNE, at=clock.now())
    return rotation.confirm(broker, to.name, who=BEN, at=clock.now())


def against(broker: Broker) -> list[tuple[str, str]]:
    """What the report says stands against a flip: codes, and which flows they are about."""
    report = rotation.link(broker, NEXT.name, who=ANNE, at=clock.now())
    return [(reason["code"], reason["flow"]) for reason in report["reasons"]]


def take_in(http: TestClient, *batches: Batch) -> list[str]:
    ids = hand_in(http, *batches)
    decided = validation.validate_sealed(reception(http))
    return [decided[one] for one in ids]


def key(agency: str, flow: str, name: str) -> RecordKey:
    return agency, flow, ref(agency, flow, name)


def epoch_states(broker: Broker) -> dict[str, str]:
    with broker.store.reading() as tx:
        return {row.name: row.state for row in tx.all(EpochRow)}


def epochs_in_use(broker: Broker) -> set[str]:
    with broker.store.reading() as tx:
        return {row.key_epoch for row in tx.all(AgencyRow)}


def standing(http: TestClient) -> dict[str, Any]:
    told: dict[str, Any] = Caller(http, COUNCIL).call("GET", "/v1/flows/education").json()
    return told


def everyone(flows: Iterable[tuple[str, str]] = FLOWS, names: Iterable[str] = NAMES) -> set[tuple[str, str, str]]:
    return {key(*flow, name) for flow in flows for name in names}


def typed(broker: Broker, *arguments: object, code: int = 0) -> Any:
    """What `broker epochs ... --json` prints; the exit code is held."""
    config = broker.settings.data_dir / "broker.toml"
    config.write_text(
        f'environment = "demo"\npartnership = "northshire"\nbase_url = "{broker.settings.base_url}"\n'
        'database_url = "sqlite:///broker.sqlite"\ndata_dir = "."\nlinger_ms = 0\n'
    )
    done = CliRunner().invoke(app, ["epochs", *map(str, arguments), "--config", str(config), "--json"])
    assert done.exit_code == code, done.output
    return json.loads((done.stdout or done.stderr).splitlines()[-1])


# --- Preparing ------------------------------------------------------------------------------------------------------


def test_a_shadow_set_moves_no_night_and_is_served_to_nobody(http: TestClient, broker: Broker) -> None:
    told = standing(http)
    assert (told["key_epoch"], told["next_epoch"], told["last_sequence"]) == (EPOCH, NEXT.name, 1)
    assert run(broker)["state"] == "unchanged"
    night = agreed(a_night(COUNCIL, "education", NAMES[:5], sequence=2))
    assert take_in(http, night) == ["accepted"]
    assert run(broker)["counts"]["key_epoch"] == EPOCH
    assert person_of(broker).keys() == everyone() - {key(COUNCIL, "education", NAMES[5])}
    with broker.store.reading() as tx:
        assert [row.state for row in tx.all(BatchRow, shadow=NEXT.name)] == ["accepted"] * 3
        assert epochs.flows_of(tx, NEXT.name) == {"/".join(flow): "accepted" for flow in FLOWS}
    assert take_in(http, a_set(COUNCIL, "education", sequence=2)) == ["accepted"]  # sent again: the newer one counts
    with broker.store.reading() as tx:
        assert sorted(row.state for row in tx.all(BatchRow, shadow=NEXT.name, flow="education")) == [
            "accepted", "superseded",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"key_fingerprint": "0" * 16}, "manifest.key_fingerprint"),
        ({"canaries": (7, -8, 10)}, "manifest.canaries"),
        ({"kind": "delta"}, "manifest.kind"),
        ({"key_epoch": "2028-1"}, "manifest.key_epoch"),
    ],
)
def test_a_batch_of_a_wrong_key_is_refused_at_its_manifest(
    http: TestClient, broker: Broker, said: dict[str, Any], place: str
) -> None:
    answer = Caller(http, COUNCIL).open(a_set(COUNCIL, "education", sequence=2, **said))
    assert (answer.status_code, answer.json()["detail"].split(":")[0]) == (422, place)


def test_one_epoch_is_prepared_at_once_and_no_name_or_key_twice(broker: Broker) -> None:
    def opened(key: Key) -> object:
        return epochs.open_epoch(broker.store, broker.trail, key, who=ANNE, at=clock.now())

    assert opened(NEXT) is None  # said again
    with pytest.raises(Conflict):
        opened(replace(NEXT, fingerprint="1" * 16))
    with pytest.raises(WrongState, match="2027-1 is being prepared"):
        opened(replace(NEXT, name="2028-1"))
    rotation.stop(broker, NEXT.name, who=ANNE, at=clock.now())
    with pytest.raises(Conflict, match="stopped"):
        opened(NEXT)
    with pytest.raises(Conflict, match="in service"):
        opened(replace(NEXT, name="2028-1", fingerprint=FINGERPRINT))
    with pytest.raises(BrokerError, match="canaries"):
        Key.parse(
            {"partnership": "northshire", "profile": "guarded-3", "key_epoch": "2028-1", "key_fingerprint": "1" * 16},
            partnership="northshire", profile="guarded-3",
        )  # fmt: skip


# --- The gate (F24) --------------------------------------------------------------------------------------------------


def test_what_the_report_says_is_by_flow_and_of_all(broker: Broker) -> None:
    before = (in_service(broker).id, broker.vault.segments())
    report = rotation.link(broker, NEXT.name, who=ANNE, at=clock.now())
    assert report["reasons"] == []
    assert report["all"] == {
        "records": [18, 18], "linked": [18, 18], "persons": [6, 6], "reviews": [0, 0], "gone": 0,
        "pairs": {"kept": 18, "lost": 0, "gained": 0},
    }  # fmt: skip
    assert report["flows"][f"{ICB}/health"]["pairs"] == {"kept": 12, "lost": 0, "gained": 0}
    assert (in_service(broker).id, broker.vault.segments()) == before


def test_an_agency_that_has_sent_nothing_holds_the_flip_and_is_named(http: TestClient, broker: Broker) -> None:
    set_state(broker, ICB, "rejected")
    assert against(broker) == [("missing", f"{ICB}/health")]
    with pytest.raises(EpochHeld, match=f"{ICB}/health has no full batch under 2027-1"):
        rotation.propose(broker, NEXT.name, who=ANNE, at=clock.now())
    assert epochs_in_use(broker) == {EPOCH}
    assert events(broker)[-1] == "epoch.refused"


def test_a_wrong_secret_that_shows_in_no_fingerprint_shows_in_the_link_rate(http: TestClient, broker: Broker) -> None:
    assert take_in(http, a_set(ICB, "health", key="wrong", sequence=2)) == ["accepted"]
    report = rotation.link(broker, NEXT.name, who=ANNE, at=clock.now())
    assert report["flows"][f"{ICB}/health"]["linked"] == [6, 0]
    assert [(one["code"], one["flow"]) for one in report["reasons"]] == [
        ("link_rate", f"{ICB}/health"),
        ("link_rate", ""),
    ]
    assert report["flows"][f"{ICB}/health"]["pairs"] == {"kept": 0, "lost": 12, "gained": 0}


def test_a_suspended_agency_holds_the_flip_and_the_report_says_why_it_can_send_nothing(
    http: TestClient, broker: Broker
) -> None:
    set_state(broker, ICB, "rejected")
    agencies.set_state(broker.store, broker.trail, ICB, "suspended", who=ANNE, at=clock.now())
    report = rotation.link(broker, NEXT.name, who=ANNE, at=clock.now())
    assert f"and {ICB} can send none while it is suspended" in report["reasons"][0]["words"]
    assert against(broker) == [("missing", f"{ICB}/health")]


def test_a_paused_flow_whose_batch_came_holds_up_no_flip(http: TestClient, broker: Broker) -> None:
    agencies.pause_flow(broker.store, broker.trail, ICB, "health", paused=True, who=ANNE, at=clock.now())
    assert against(broker) == []


def test_an_agency_that_goes_missing_after_the_proposal_holds_the_flip_too(http: TestClient, broker: Broker) -> None:
    rotation.link(broker, NEXT.name, who=ANNE, at=clock.now())
    rotation.propose(broker, NEXT.name, who=ANNE, at=clock.now())
    set_state(broker, ICB, "rejected")
    before = (in_service(broker).id, broker.vault.segments())
    with pytest.raises(EpochHeld, match="health"):
        rotation.confirm(broker, NEXT.name, who=BEN, at=clock.now())
    assert (in_service(broker).id, broker.vault.segments(), epochs_in_use(broker)) == (*before, {EPOCH})


def test_a_batch_of_other_records_far_behind_its_nights_or_under_a_key_that_was_not_opened_holds_the_flip(
    http: TestClient, broker: Broker
) -> None:
    strange = a_set(COUNCIL, "education", sequence=2, refs="of another record key")
    old = a_set(ICB, "health", sequence=2).saying(extracted_at="2026-03-02T01:00:00Z")
    assert take_in(http, strange, old) == ["accepted"] * 2
    with broker.store.transaction() as tx:  # though every batch was held to it when it came
        row = epochs.found(tx, NEXT.name)
        row.canaries = ["7", "-8", "10"]
        tx.add(row)
    found = against(broker)
    assert {("wrong_key", "/".join(flow)) for flow in FLOWS} < set(found)
    assert ("old", f"{ICB}/health") in found
    assert ("records", f"{COUNCIL}/education") in found


def test_a_batch_that_comes_in_while_the_set_is_linked_holds_the_flip(http: TestClient, broker: Broker) -> None:
    desk, before = reception(http), in_service(broker)
    with broker.store.reading() as tx:
        inputs = inputs_of(tx, desk, shadow=NEXT.name)
    assert take_in(http, a_set(ICB, "health", sequence=2)) == ["accepted"]
    with pytest.raises(Conflict, match="while the set was being linked"), broker.store.transaction() as tx:
        epochs.switch(tx, desk, NEXT.name, inputs, before, hold=timedelta(days=1), by="ben", at=clock.now())
    assert epochs_in_use(broker) == {EPOCH}


def test_two_people_put_an_epoch_in_service_and_not_before_it_was_linked(broker: Broker) -> None:
    at = clock.now()
    with pytest.raises(WrongState, match="has not been linked"):
        rotation.propose(broker, NEXT.name, who=ANNE, at=at)
    rotation.link(broker, NEXT.name, who=ANNE, at=at)
    with pytest.raises(WrongState, match="nobody has proposed"):
        rotation.confirm(broker, NEXT.name, who=BEN, at=at)
    rotation.propose(broker, NEXT.name, who=ANNE, at=at)
    with pytest.raises(NotAllowed):
        rotation.confirm(broker, NEXT.name, who=ANNE, at=at)
    assert epochs_in_use(broker) == {EPOCH}


# --- The flip --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestClient]:
    """A broker whose next epoch has taken its place, on each database."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield stack.enter_context(serving(a_copy(request.getfixturevalue("flipped"), tmp_path)))
            return
        url = stack.enter_context(
            a_database(
                request.getfixturevalue("postgres_server"), template=request.getfixturevalue("migrated_postgres")
            )
        )
        made = an_installation(
            tmp_path, agencies={COUNCIL: ("education", "social_care"), ICB: ("health",)}, database_url=url,
            environment="production", signer="inline",
        )  # fmt: skip
        http = stack.enter_context(serving(made))
        prepare(http, broker_of(http))
        flip(broker_of(http))
        yield http


def test_another_epoch_takes_the_place_of_the_one_in_service_and_persons_keep_their_ids(site: TestClient) -> None:
    broker = broker_of(site)
    assert rotation.confirm(broker, NEXT.name, who=BEN, at=clock.now())["state"] == "in_service"  # said again
    with broker.store.reading() as tx:
        before = tx.one(LinkRunRow, id=in_service(broker).previous)
        assert before is not None
    assert before.counts["key_epoch"] == EPOCH
    then = clusters_of(broker.vault, before).to_pylist()
    assert {(row["agency"], row["flow"], row["record_ref"]): row["person_id"] for row in then} == person_of(broker)
    assert in_service(broker).counts["key_epoch"] == NEXT.name
    assert epoch_states(broker) == {EPOCH: "held", NEXT.name: "in_service"}
    assert epochs_in_use(broker) == {NEXT.name}
    told = standing(site)
    assert (told["key_epoch"], told["next_epoch"], told["last_sequence"]) == (NEXT.name, None, 1)
    with broker.store.reading() as tx:
        stand = {(row.shadow, row.state) for row in tx.all(BatchRow) if row.state != "open"}
        assert stand == {("", "superseded"), (NEXT.name, "linked")}
        kept = {one for part, one in epochs.held_segments(tx).items()}
    assert kept < set(before.segments.values())
    assert kept < broker.vault.segments()
    assert run(broker)["state"] == "unchanged"
    assert [one for one in events(broker) if one.startswith("epoch.")] == [
        "epoch.opened", "epoch.linked", "epoch.proposed", "epoch.flipped",
    ]  # fmt: skip


def test_from_now_on_nothing_is_taken_under_the_old_epoch_and_a_flow_begins_with_a_full_batch(
    after: TestClient,
) -> None:
    broker = broker_of(after)
    before, caller = person_of(broker), Caller(after, COUNCIL)
    manifest = Manifest.parse((broker.settings.data_dir / "night.json").read_bytes())
    on_its_way = replace(agreed(a_night(COUNCIL, "education")), manifest=manifest)
    [opened] = [one["batch"] for one in standing(after)["batches"]]
    assert caller.commit(on_its_way, opened).status_code == 202
    assert validation.validate_sealed(reception(after)) == {opened: "rejected"}
    assert caller.on(on_its_way, opened).json()["reason"] == "old_epoch"
    late = caller.open(on_its_way.saying(sequence=3))
    assert (late.status_code, late.json()["detail"]) == (422, f"manifest.key_epoch: the epoch in use is {NEXT.name}")
    assert standing(after)["last_manifest_sha256"] == ""  # nothing that a delta could follow
    assert take_in(after, a_set(COUNCIL, "education", sequence=2, kind="delta")) == ["rejected"]
    assert take_in(after, a_set(COUNCIL, "education", sequence=2)) == ["accepted"]
    assert run(broker)["state"] == "published"
    assert person_of(broker) == before


def test_a_search_under_the_old_epoch_is_told_which_one_is_in_service(after: TestClient) -> None:
    broker = broker_of(after)
    asked = searches.Asked(
        purpose="MASH_SCREEN", basis=Basis(art6="6(1)(e)"), case="c" * 64, family_informed="yes", profile="guarded-3",
        key_epoch=EPOCH, key_fingerprint=FINGERPRINT, subject=EncodedRow(filters={}, tokens={}),
    )  # fmt: skip
    analyst = CallerOf(kind="person", organisation=COUNCIL, person="p", role="MASH_ANALYST", method="gateway-assertion")
    service = InService(broker.store, broker.vault)
    for flipped_while_asked in (False, True):
        if flipped_while_asked:  # the agency's row was read before, what is in service is opened after
            with broker.store.transaction() as tx:
                for row in tx.all(AgencyRow):
                    row.key_epoch, row.key_fingerprint = EPOCH, FINGERPRINT
                    tx.add(row)
        with pytest.raises(WrongEpoch, match=f"the epoch in service is {NEXT.name}"):
            searches.search(
                broker.store, broker.trail, broker.keys, service, analyst, asked, budgets=broker.settings.budgets,
                at=clock.now(),
            )  # fmt: skip


def test_a_night_that_was_judged_before_the_flip_is_not_taken_in_after_it(http: TestClient, broker: Broker) -> None:
    [id_] = hand_in(http, agreed(a_night(COUNCIL, "education", sequence=2)))
    desk = reception(http)
    with broker.store.reading() as tx:
        row = batch_of(tx, COUNCIL, "education", id_)
    judged = judge(desk, row, guarded=True)
    assert judged.state == "accepted"
    with broker.store.transaction() as tx:
        for agency in tx.all(AgencyRow):
            agency.key_epoch = "2030-1"
            tx.add(agency)
    with pytest.raises(Conflict, match="another epoch"), broker.store.transaction() as tx:
        validation._apply(desk, tx, batch_of(tx, COUNCIL, "education", id_), judged, at=clock.now(), by="")
    assert validation.validate_sealed(desk) == {id_: "rejected"}


def test_an_agency_can_not_be_enrolled_under_another_key_than_the_one_in_service(after: TestClient) -> None:
    broker = broker_of(after)
    with pytest.raises(WrongState, match="2027-1 is in service"):
        enrol(broker, ICB, ("health",))


def test_whoever_goes_on_after_a_kill_finds_the_old_epoch_or_the_new_one(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """Killed as it begins its nth transaction: as good as any other place, since what is not committed is not there."""
    before = person_of(broker)
    rotation.link(broker, NEXT.name, who=ANNE, at=clock.now())
    rotation.propose(broker, NEXT.name, who=ANNE, at=clock.now())
    seen, true_one = [], type(broker.store).transaction
    every = pytestconfig.getoption("--long")
    for dies_at in range(1, 60) if every else (6,):
        begun = iter(range(1, 1000))

        def dying(store: Any, *use: Any, at: int = dies_at, begun: Any = begun) -> Any:
            if next(begun) == at:
                raise Killed
            return true_one(store, *use)

        with monkeypatch.context() as patched, suppress(Killed):
            patched.setattr(type(broker.store), "transaction", dying)
            rotation.confirm(broker, NEXT.name, who=BEN, at=clock.now())
        new = in_service(broker).counts["key_epoch"] == NEXT.name
        seen.append(new)
        assert epochs_in_use(broker) == ({NEXT.name} if new else {EPOCH})
        assert epoch_states(broker)[NEXT.name] == ("in_service" if new else "prepared")
        assert person_of(broker) == before
        if new:
            break
    if every:
        assert seen == [False] * (len(seen) - 1) + [True]
        assert len(seen) > 4
    assert rotation.confirm(broker, NEXT.name, who=BEN, at=clock.now())["state"] == "in_service"
    run(broker)
    with broker.store.reading() as tx:
        named = {one for row in tx.all(LinkRunRow) if row.state == "published" for one in row.segments.values()}
        assert broker.vault.segments() == named | set(epochs.held_segments(tx).values())
        assert not [row for row in tx.all(LinkRunRow) if row.state in ("running", "built")]


class Killed(BaseException):
    """What no handler of ours catches."""


def test_the_command_says_how_epochs_stand_and_ends_as_it_promises(http: TestClient, broker: Broker) -> None:
    now, then = typed(broker, "status")
    assert (now["epoch"], now["state"], then["epoch"], then["state"]) == (EPOCH, "in_service", NEXT.name, "prepared")
    assert set(then["flows"].values()) == {"accepted"}
    no_key = broker.settings.data_dir / "epoch.json"
    no_key.write_text("{}")
    assert "partnership" in typed(broker, "open", no_key, "--by", "anne", code=2)["error"]
    assert "staff id" in typed(broker, "link", NEXT.name, "--by", "Anne Archer", code=2)["error"]
    assert "no such epoch" in typed(broker, "drop", "2031-1", "--by", "anne", code=1)["error"]
    set_state(broker, ICB, "rejected")
    assert [one["flow"] for one in typed(broker, "link", NEXT.name, "--by", "anne", code=1)["reasons"]] == [
        f"{ICB}/health"
    ]
    assert "has no full batch" in typed(broker, "flip", NEXT.name, "--by", "anne", code=1)["error"]
    assert typed(broker, "stop", NEXT.name, "--by", "anne") == {"epoch": NEXT.name, "state": "stopped"}
    assert typed(broker, "drop", NEXT.name, "--by", "anne")["batches"] == 3


# --- What happened while it was prepared ---------------------------------------------------------------------------


def test_who_is_erased_while_an_epoch_is_prepared_or_held_comes_back_by_neither_a_flip_nor_a_return(
    http: TestClient, broker: Broker
) -> None:
    tombstones = Tombstones(broker.settings.data_dir)
    first, second = key(COUNCIL, "education", "alice"), key(ICB, "health", "chloe")
    erased(broker.store, broker.trail, broker.keys, tombstones, "/".join(first), at=clock.now())
    flip(broker)
    assert person_of(broker).keys() == everyone() - {first}
    with broker.store.reading() as tx:
        were = set(epochs.held_segments(tx).values())
    erased(broker.store, broker.trail, broker.keys, tombstones, "/".join(second), at=clock.now())
    run(broker)
    with broker.store.reading() as tx:
        kept = epochs.held(tx)
        assert kept is not None
    gone = were - set(kept.run.segments.values())
    assert gone  # the segment that held the erased is written anew, and the old one deleted
    assert not gone & broker.vault.segments()
    assert second[2] not in broker.vault.read_parts(kept.run.segments, "persons")["record_ref"].to_pylist()
    rotation.stop(broker, NEXT.name, who=ANNE, at=clock.now())
    assert person_of(broker).keys() == everyone() - {first, second}


def test_what_was_withdrawn_shielded_severed_or_kept_apart_meanwhile_stays_so(http: TestClient, broker: Broker) -> None:
    one, other = key(COUNCIL, "education", "benjamin"), key(ICB, "health", "benjamin")
    shielded = key(COUNCIL, "education", "chloe")
    in_an_hour = (clock.now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    decided(broker, "must_not_link", one, other)
    night = a_night(COUNCIL, "education", NAMES[1:])
    marked = {key(*flow, "dominic") for flow in FLOWS[:2]}  # an adoption: the council has two records of one child
    said = {shielded[2]: {"shield": "full"}, **{ref: {"sever_ref": "a" * 64} for _, _, ref in marked}}
    rows = [row | said.get(row["record_ref"], {}) for row in people_of(night)]
    night = agreed(a_batch(persons=rows, flow="education", sequence=2)).saying(extracted_at=in_an_hour)
    rows = [row | said.get(row["record_ref"], {}) for row in people_of(a_night(*FLOWS[1]))]
    other_night = agreed(a_batch(persons=rows, flow="social_care", sequence=2))
    assert take_in(http, night, other_night) == ["accepted"] * 2
    run(broker)
    before, newer = person_of(broker), standing(http)["as_of"]
    flip(broker)
    after = person_of(broker)
    assert after == before
    assert after[one] != after[other]
    assert len({after[record] for record in marked}) == 2
    assert standing(http)["as_of"] < newer  # the batch that is linked was made before
    assert after.keys() == everyone() - {key(COUNCIL, "education", "alice")}
    people = broker.vault.read_parts(in_service(broker).segments, "persons").to_pylist()
    assert {(row["flow"], row["record_ref"]) for row in people if row["shield"] == "full"} == {shielded[1:]}


def test_pairs_that_somebody_decided_about_and_the_new_batch_lacks_hold_the_flip(
    http: TestClient, broker: Broker
) -> None:
    decided(broker, "must_link", key(COUNCIL, "education", "alice"), key(ICB, "health", "alice"))
    assert take_in(http, a_set(COUNCIL, "education", NAMES[1:], sequence=2)) == ["accepted"]
    assert against(broker) == [("overrides_lost", "")]


def decided(broker: Broker, kind: Literal["must_link", "must_not_link"], one: RecordKey, other: RecordKey) -> None:
    """By a link reviewer, at once."""
    sides = overrides.Sides.of([one], [other])
    with broker.store.transaction() as tx:
        overrides.propose(
            tx, broker.trail, broker.keys, kind, sides, who=BEN, reason="different_people", evidence=(),
            second_due=False, review=None, at=clock.now(),
        )  # fmt: skip


# --- Back, and after -------------------------------------------------------------------------------------------------


def test_an_epoch_that_is_stopped_gives_its_place_back_and_one_that_is_dropped_leaves_nothing(
    after: TestClient,
) -> None:
    broker = broker_of(after)
    before = person_of(broker)
    at = clock.now()
    with pytest.raises(WrongState, match="is held until"):
        rotation.drop(broker, EPOCH, who=ANNE, at=at)
    assert take_in(after, a_set(COUNCIL, "education", sequence=3)) == ["accepted"]  # not linked yet, and never will be
    done = rotation.stop(broker, NEXT.name, who=ANNE, at=at)
    assert (done["back_to"], epochs_in_use(broker)) == (EPOCH, {EPOCH})
    assert epoch_states(broker) == {EPOCH: "in_service", NEXT.name: "stopped"}
    assert person_of(broker) == before
    assert run(broker)["state"] == "unchanged"
    assert in_service(broker).counts["key_epoch"] == EPOCH
    with broker.store.reading() as tx:
        assert not tx.all(BatchRow, state="accepted")
        assert {row.key_epoch for row in tx.all(BatchRow, state="linked")} == {EPOCH}
    assert take_in(after, agreed(a_night(COUNCIL, "education", sequence=4))) == ["accepted"]
    assert run(broker)["state"] == "published"
    run(broker)
    assert person_of(broker) == before
    rotation.drop(broker, NEXT.name, who=ANNE, at=at)
    assert rotation.drop(broker, NEXT.name, who=ANNE, at=at) == {"epoch": NEXT.name, "state": "dropped"}
    with broker.store.reading() as tx:
        assert {row.dek_wrapped for row in tx.all(BatchRow, shadow=NEXT.name)} == {b""}
    broker.trail.advance_pending()
    with broker.store.reading() as tx:
        told = {row.type: row.event_id for row in tx.all(EventRow) if row.type.startswith("epoch.")}
    assert told.keys() == {
        "epoch.opened",
        "epoch.linked",
        "epoch.proposed",
        "epoch.flipped",
        "epoch.stopped",
        "epoch.dropped",
    }
    for type_, event in told.items():
        body = broker.trail.opening(event, show=("what",)).body("what")
        assert body.keys() - {"v", "id", "type", "op"} <= {word.strip(",:") for word in KINDS[type_].what.split()}


def test_after_its_time_what_was_held_is_destroyed(after: TestClient) -> None:
    broker = broker_of(after)
    with broker.store.reading() as tx:
        kept = set(epochs.held_segments(tx).values())
    rotation.drop(broker, EPOCH, who=ANNE, at=clock.now() + timedelta(days=31))
    assert epoch_states(broker)[EPOCH] == "dropped"
    assert not kept & broker.vault.segments()
    assert set(in_service(broker).segments.values()) == broker.vault.segments()
    with pytest.raises(WrongState, match="no epoch is held"):
        rotation.stop(broker, NEXT.name, who=ANNE, at=clock.now())


def test_a_further_epoch_may_follow_at_once_and_then_the_one_held_is_destroyed(
    after: TestClient, pytestconfig: pytest.Config
) -> None:
    if not pytestconfig.getoption("--long"):
        pytest.skip("another rotation: with --long")
    broker, third = broker_of(after), Key(name="2028-1", fingerprint="2" * 16, canaries=("1", "2", "3"))
    with broker.store.reading() as tx:
        kept = set(epochs.held_segments(tx).values())
    epochs.open_epoch(broker.store, broker.trail, third, who=ANNE, at=clock.now())
    said = {"key_epoch": third.name, "key_fingerprint": third.fingerprint, "canaries": (1, 2, 3)}
    take_in(after, *(a_set(*flow, key="third", **said) for flow in FLOWS))
    flip(broker, third)
    assert epoch_states(broker) == {EPOCH: "dropped", NEXT.name: "held", third.name: "in_service"}
    assert not kept & broker.vault.segments()
    assert [one for one in events(broker) if one.startswith("epoch.")][-2:] == ["epoch.flipped", "epoch.dropped"]


def test_an_epoch_that_is_given_up_takes_no_more_batches(http: TestClient, broker: Broker) -> None:
    batch = a_set(COUNCIL, "education", sequence=2)
    [id_] = hand_in(http, batch)
    assert rotation.stop(broker, NEXT.name, who=ANNE, at=clock.now())["state"] == "stopped"
    assert validation.validate_sealed(reception(http)) == {id_: "rejected"}
    assert Caller(http, COUNCIL).on(batch, id_).json()["reason"] == "epoch_closed"
    assert Caller(http, ICB).open(a_set(ICB, "health", sequence=2)).status_code == 422
    assert standing(http)["next_epoch"] is None
    run(broker)
    assert reception(http).spool.batches() == frozenset()


def set_state(broker: Broker, agency: str, state: str) -> None:
    with broker.store.transaction() as tx:
        for row in tx.all(BatchRow, agency=agency, shadow=NEXT.name):
            row.state = state
            tx.add(row)


def broker_of(http: TestClient) -> Broker:
    found: Broker = http.app.state.broker  # type: ignore[attr-defined]
    return found
