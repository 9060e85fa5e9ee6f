"""Holds, erasures and packs by HTTP and by command: who may, what each writes, and what it leaves of a real child."""

import base64
import io
import json
import zipfile
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import inspect, text
from typer.testing import CliRunner

from broker import access, clock, erasure, lifting, signin
from broker.access import Rulings
from broker.cli import app as command
from broker.errors import NotFound
from broker.linked import InService
from broker.overrides import open_sides
from broker.settings import DemoPerson
from broker.store import Store
from broker.store.items import ItemRow
from broker.store.log import EventRow, SubjectRow
from broker.store.reviews import ReviewRow
from broker.store.searches import SearchCandidateRow, ViewPersonRow
from broker.store.tombstones import Tombstones
from broker.wiring import Broker
from linkage.agency import client
from linkage.agency import clock as agency_clock
from tests.broker.platform import an_app
from tests.broker.test_erasure import CHILD, RECORD, looked, officer
from tests.builders_area import MORNING, NIGHT, Area, the_time
from tests.builders_families import KIT, ROBIN, a_linked_area, extracts

Post = Callable[..., Any]


@pytest.fixture
def desk(tmp_path: Path) -> TestClient:
    """The broker, and two IG officers and an operator who may sign in."""
    people = tuple(
        DemoPerson(person=person, label=person, role=role)  # type: ignore[arg-type]
        for person, role in (("ig-1", "IG_OFFICER"), ("ig-2", "IG_OFFICER"), ("op-1", "OPERATOR"))
    )
    return TestClient(
        an_app(tmp_path, base_url="https://testserver", demo_people=people), base_url="https://testserver"
    )


def broker_of(desk: TestClient) -> Broker:
    found: Broker = cast("Any", desk.app).state.broker
    return found


def acting(desk: TestClient, person: str) -> Post:
    """Calls of somebody who signs in now."""
    broker = broker_of(desk)
    cookie, session = signin.sign_in_to_demo(broker.store, broker.settings, person, at=clock.now())
    headers = {"X-CSRF-Token": session.csrf, "Origin": "https://testserver", "Cookie": f"{signin.COOKIE}={cookie}"}

    def post(path: str, **body: Any) -> Any:
        desk.cookies.clear()
        if body.pop("get", False):
            return desk.get(f"/audit/subjects{path}", headers=headers)
        return desk.post(f"/audit/subjects{path}", json=body, headers=headers)

    return post


def said(broker: Broker, after: int) -> list[str]:
    """Types of the events from a size on."""
    broker.trail.advance_pending()
    with broker.store.reading() as reading:
        return [row.type for row in reading.all(EventRow, order=["seq"]) if row.seq >= after]


def test_hold_refusal_release_erasure_and_pack_by_http(desk: TestClient) -> None:
    broker = broker_of(desk)
    event = looked(broker.store, broker.trail, CHILD, more=(RECORD,))
    one, two = acting(desk, "ig-1"), acting(desk, "ig-2")
    size = broker.trail.advance_pending()

    pack = one("/reports", subject=CHILD, relation="self")
    assert pack.status_code == 201, pack.text
    content = base64.b64decode(pack.json()["pack"])
    assert zipfile.ZipFile(io.BytesIO(content)).read("receipts/0001.json")
    assert [row["event_id"] for row in pack.json()["ledger"]["entries"]] == [event]
    assert said(broker, size) == ["subject.report_issued"]

    proposed = one("/erasures", subject=CHILD, authority="subject_request").json()["erasure"]
    held = two("/holds", subject=CHILD, reason="complaint").json()["hold"]
    assert one(f"/erasures/{proposed}/decision", approve=True).status_code == 403  # who proposed it
    refused = two(f"/erasures/{proposed}/decision", approve=True)
    assert (refused.status_code, "a complaint that has not been answered" in refused.text) == (409, True)
    assert one("/erasures", subject=CHILD, authority="court_order").status_code == 409
    assert two(f"/holds/{held}/release").json()["lifted_by"] == "ig-2"
    done = two(f"/erasures/{proposed}/decision", approve=True).json()
    assert (done["state"], done["counts"]["events"]) == ("erased", 2)
    with pytest.raises(NotFound):
        broker.trail.opening(event, show=("who",))
    assert said(broker, size)[1:] == [
        "subject.erasure_proposed", "legal_hold.set", "subject.erasure_refused", "subject.erasure_refused",
        "legal_hold.lifted", "subject.erased",
    ]  # fmt: skip

    lift = one("/lifts", subject=RECORD, reason="known_again")
    assert lift.status_code == 409  # that record was not erased
    lift = one("/lifts", subject=CHILD, reason="known_again").json()["lift"]
    assert one(f"/lifts/{lift}/decision", approve=True).status_code == 403
    assert two(f"/lifts/{lift}/decision", approve=False).status_code == 400
    assert two(f"/lifts/{lift}/decision", approve=False, reason="not_needed").json()["state"] == "refused"
    lift = one("/lifts", subject=CHILD, reason="known_again").json()["lift"]
    assert two(f"/lifts/{lift}/decision", approve=True).json()["state"] == "lifted"
    assert [each["state"] for each in one("/lifts", get=True).json()["lifts"]].count("lifted") == 1
    assert said(broker, size)[-4:] == [
        "subject.lift_proposed", "subject.lift_refused", "subject.lift_proposed", "subject.lifted",
    ]  # fmt: skip

    again = one("/erasures", subject=RECORD, authority="court_order").json()["erasure"]
    assert two(f"/erasures/{again}/decision", approve=False).status_code == 400  # without a reason
    assert two(f"/erasures/{again}/decision", approve=False, reason="wrong_subject").json()["state"] == "refused"
    assert [each["state"] for each in one("/erasures", get=True).json()["erasures"]] == ["refused", "erased"]
    listed = one("/holds", get=True)
    assert listed.json()["holds"][0]["reason"] == "complaint"
    assert set(one("/codes", get=True).json()) >= {"authorities", "holds", "exemptions"}
    for answer in (listed, one("/erasures", get=True), one("/lifts", get=True)):
        assert CHILD not in answer.text
        assert broker.keys.subject_index(CHILD) not in answer.text


def test_nobody_but_information_governance_gets_in_and_nothing_malformed(desk: TestClient) -> None:
    operator, officer_ = acting(desk, "op-1"), acting(desk, "ig-1")
    for path, body in (
        ("/reports", {"subject": CHILD, "relation": "self"}), ("/holds", {"subject": CHILD, "reason": "complaint"}),
        ("/erasures", {"subject": CHILD, "authority": "court_order"}),
        (f"/erasures/{'0' * 32}/decision", {"approve": True}), (f"/holds/{'0' * 32}/release", {}),
        ("/lifts", {"subject": CHILD, "reason": "known_again"}), (f"/lifts/{'0' * 32}/decision", {"approve": True}),
    ):  # fmt: skip
        assert operator(path, **body).status_code == 403, path
        assert desk.post(f"/audit/subjects{path}", json=body).status_code == 401
    for path in ("/codes", "/holds", "/erasures", "/lifts"):
        assert operator(path, get=True).status_code == 403
    for body in (
        {"subject": "a b", "reason": "complaint"}, {"subject": "Samplewick", "reason": "complaint"}, {"subject": "a/b", "reason": "complaint"},
        {"subject": CHILD, "reason": "because"}, {"subject": CHILD},
    ):  # fmt: skip
        refused = officer_("/holds", **body)
        assert refused.status_code in (400, 422)
        assert CHILD not in refused.text


def test_by_command(desk: TestClient, tmp_path: Path) -> None:
    broker = broker_of(desk)
    looked(broker.store, broker.trail, CHILD, more=(RECORD,))
    config = tmp_path / "broker.toml"
    settings = broker.settings
    config.write_text(
        f'environment = "demo"\npartnership = "{settings.partnership}"\nbase_url = "{settings.base_url}"\n'
        f'data_dir = "{settings.data_dir}"\ndatabase_url = "{settings.database_url.get_secret_value()}"\n'
        "[log_retention]\nplain_years = 8\n"
    )

    def run(*arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(command, ["subjects", *arguments, "--config", str(config), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if code == 0 else done.output

    out = tmp_path / "pack.zip"
    told = run("report", CHILD, "--by", "ig-1", "--out", str(out), "--relation", "representative")
    assert (told["entries"], zipfile.is_zipfile(out)) == (1, True)
    assert out.stat().st_mode & 0o777 == 0o600
    size, again = broker.trail.advance_pending(), ("--by", "ig-1", "--relation", "self")
    assert "already" in run("report", CHILD, *again, "--out", str(out), code=2)
    assert "can't be written" in run("report", CHILD, *again, "--out", str(tmp_path / "nowhere" / "x.zip"), code=3)
    assert (broker.trail.advance_pending(), list(tmp_path.glob("*.part"))) == (size, [])  # none was issued
    held = run("hold", CHILD, "--by", "ig-1", "--reason", "public_inquiry")["hold"]
    assert "legal hold" in run("erase", CHILD, "--by", "ig-1", "--authority", "court_order", code=1)
    run("release", held, "--by", "ig-1")
    assert run("holds", "--by", "ig-1")[0]["lifted_by"] == "ig-1"
    proposed = run("erase", CHILD, "--by", "ig-1", "--authority", "court_order")["erasure"]
    assert "another person" in run("approve", proposed, "--by", "ig-1", code=1)
    done = run("approve", proposed, "--by", "ig-2")
    assert (done["state"], done["purged"]) == ("erased", True)
    assert run("erasures", "--by", "ig-1")[0]["decided_by"] == "ig-2"
    assert "not erased" in run("lift", RECORD, "--by", "ig-1", "--reason", "known_again", code=1)
    lift = run("lift", CHILD, "--by", "ig-1", "--reason", "known_again")["lift"]
    assert run("decline", lift, "--by", "ig-1", "--reason", "not_needed")["state"] == "refused"
    lift = run("lift", CHILD, "--by", "ig-1", "--reason", "known_again")["lift"]
    assert "another person" in run("confirm", lift, "--by", "ig-1", code=1)
    assert run("confirm", lift, "--by", "ig-2")["state"] == "lifted"
    assert {one["state"] for one in run("lifts", "--by", "ig-1")} == {"refused", "lifted"}
    assert run("retention", "--dry-run", "--by", "ig-1")["events"] == 0
    assert [one["by_type"] for one in run("retention", "--by", "ig-1")["runs"]] == [{}]
    assert run("purge", "--by", "ig-2") == {"purged": True}
    broker.trail.advance_pending()
    with broker.store.reading() as reading:
        told = [(row.actor_ref, row.outcome) for row in reading.all(EventRow, type="retention.run", order=["seq"])]
    assert told == [("ig-2", "files_rewritten"), ("ig-1", "0_expired"), ("ig-2", "files_rewritten")]
    for what in ("retention", "purge"):
        assert "--by" in run(what, code=2)  # nobody's word
    run("erase", CHILD, "--by", "not a staff id!", "--authority", "court_order", code=2)
    run("report", CHILD, "--by", "ig-1", "--out", str(out), "--withhold", "nonsense", code=2)
    size = broker.trail.advance_pending()
    for typed in ("Robin Samplewick", "Samplewick", "9434765919"):  # a name or a number is not taken, nor said again
        for what in (("hold", "--reason", "complaint"), ("erase", "--authority", "court_order")):
            assert typed not in run(what[0], typed, "--by", "ig-1", *what[1:], code=2)
        assert typed not in run("report", typed, "--by", "ig-1", "--out", str(tmp_path / "no.zip"), code=2)
    assert broker.trail.advance_pending() == size


# --- A real child, asked about by a real gateway ----------------------------------------------------------------------


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path / "northshire")
        yield made
        made.close()


def test_a_child_who_was_asked_about_is_erased_from_log_and_tables_and_the_sibling_is_not(area: Area) -> None:
    analyst, broker = area.asker(), area.broker
    view = analyst.view(ROBIN.typed(), case="E1")
    other = analyst.view(KIT.typed(), case="E2")
    linked = InService(broker.store, broker.vault).area()
    assert linked is not None
    with broker.store.reading() as reading:
        person = reading.all(SearchCandidateRow, search=_search(broker.store, view))[0].person_id
        ids = erasure.subject_ids(reading, linked, person)
        record = next(one for one in ids if "/" in one)
        assert erasure.subject_ids(reading, linked, record) == ids  # from any of their records
        assert erasure.subject_ids(reading, linked, record, alone=True) == (record,)
    assert len(ids) == 1 + len(linked.index.records_of(person)) > 2
    rows = access.report(
        broker.store, broker.trail, broker.keys, linked, officer(), ids=ids, relation="self", rulings=Rulings(),
        at=clock.now(),
    ).answer.ledger["entries"]  # fmt: skip
    asked = [view["receipt"]["event_id"], other["receipt"]["event_id"]]
    assert set(asked) < {row["event_id"] for row in rows}  # shown in a sibling's view too

    proposed = erasure.propose(
        broker.store, broker.trail, broker.keys, officer(), ids=ids, authority="court_order", at=clock.now()
    ).answer
    kept = Tombstones(broker.settings.data_dir)
    done = erasure.approve(
        broker.store, broker.trail, broker.keys, kept, officer("ig-2"), erasure=proposed.erasure, at=clock.now()
    ).answer
    assert done.counts["items"] > 0
    assert done.counts["views"] > 0
    assert done.counts["candidates"] > 0
    assert done.counts["withheld"] >= 2  # the family views, which showed the sibling and the mother too
    assert erasure.purge(broker.store, broker.trail, kept, who=officer().who(), at=clock.now())
    indexes = {broker.keys.subject_index(one) for one in ids}
    with broker.store.reading() as reading:
        assert reading.all(SubjectRow, idx_hmac=sorted(indexes)) == []
        assert reading.all(ViewPersonRow, person_id=person) == []
        assert {row.record_ref for row in reading.all(ItemRow)}.isdisjoint(
            {one.split("/")[2] for one in ids if "/" in one}
        )
        sibling = reading.all(SearchCandidateRow, search=_search(broker.store, other))[0].person_id
    left = access.report(
        broker.store, broker.trail, broker.keys, linked, officer(), ids=[sibling], relation="self",
        rulings=Rulings(), at=clock.now(),
    ).answer.ledger["entries"]  # fmt: skip
    assert asked[1] in {row["event_id"] for row in left}
    again = analyst.view(KIT.typed(), case="E2")  # and work goes on
    assert again["tiles"]


def _search(store: Store, view: dict[str, Any]) -> str:
    body = view["receipt"]["opening"]["what"]["body"]
    return str(body["search"])


def test_the_nights_after_drop_the_encodings_of_the_erased_and_link_them_no_more_though_they_are_sent_again(
    area: Area,
) -> None:
    broker = area.broker
    with broker.store.reading() as reading:
        waits = next(row for row in reading.all(ReviewRow, order=["id"]) if row.scope == "records")
        record = "/".join(open_sides(broker.keys, waits.sealed, waits.key_wrapped, waits.id).left[0])
        ids = erasure.subject_ids(reading, InService(broker.store, broker.vault).area(), record)
    erased = {tuple(one.split("/")) for one in ids if "/" in one}
    done = erased_by_two(broker, ids)
    assert done.counts["reviews"] >= 1
    assert {"encodings", "leaves of the log", "old copies"} <= done.remains.keys()
    with broker.store.reading() as reading:
        assert waits.id not in {row.id for row in reading.all(ReviewRow)}
    assert erased <= kept_in_the_vault(broker)

    for night in (1, 2):
        with the_time(NIGHT + timedelta(days=night)):
            if night == 2:  # every agency sends all it has, the erased among them
                all_is_sent_again(area, *extracts())
            assert area.link()["state"] == "published"
        linked = InService(broker.store, broker.vault).area()
        assert linked is not None
        assert erased.isdisjoint(records_of(linked.clusters))
        with broker.store.reading() as reading:
            sides = [open_sides(broker.keys, row.sealed, row.key_wrapped, row.id) for row in reading.all(ReviewRow)]
        assert erased.isdisjoint(one for side in sides for one in side.records)
    assert erased.isdisjoint(kept_in_the_vault(broker))
    assert erased.isdisjoint(with_items(broker))  # nor is what came with them kept

    back = sorted(erased)[0]
    with the_time(NIGHT + timedelta(days=2, hours=6)):  # the child comes back to a service, and two people say so
        about = (broker.store, broker.trail)
        one = lifting.propose(
            *about, broker.keys, officer(), ids=["/".join(back)], reason="known_again", at=clock.now()
        ).answer
        kept = Tombstones(broker.settings.data_dir)
        lifting.confirm(*about, kept, officer("ig-2"), lift=one.lift, at=clock.now())
    with the_time(NIGHT + timedelta(days=3)):
        all_is_sent_again(area, back[:2])  # the very same, which alone would change nothing
        assert area.link()["state"] == "published"
        linked = InService(broker.store, broker.vault).area()
        assert linked is not None
        assert erased & records_of(linked.clusters) == {back}
        assert erased & with_items(broker) == {back}


def with_items(broker: Broker) -> set[tuple[str, ...]]:
    """The records of which the broker holds items."""
    with broker.store.reading() as reading:
        return {(row.agency, row.flow, row.record_ref) for row in reading.all(ItemRow)}


def all_is_sent_again(area: Area, *flows: tuple[str, ...]) -> None:
    """All that these flows have is sent again, whatever was erased."""
    for agency in {flow[0] for flow in flows}:
        home = area.home(agency)
        caller = client.Broker(home, now=agency_clock.now, http=area.http, sleep=lambda _: None)
        for batch in client.receipts(home):
            client.settle(home, caller, batch)
    area.push({flow: extract for flow, extract in extracts().items() if flow in flows})


def erased_by_two(broker: Broker, ids: Collection[str]) -> erasure.Erasure:
    """One proposes and another approves."""
    about = (broker.store, broker.trail, broker.keys)
    one = erasure.propose(*about, officer(), ids=ids, authority="court_order", at=clock.now()).answer
    kept = Tombstones(broker.settings.data_dir)
    return erasure.approve(*about, kept, officer("ig-2"), erasure=one.erasure, at=clock.now()).answer


def records_of(table: pa.Table) -> set[tuple[str, ...]]:
    """The records that a table's rows are of, if of any."""
    names = ("agency", "flow", "record_ref")
    if not set(names) <= set(table.column_names):
        return set()
    return set(zip(*(table[name].to_pylist() for name in names), strict=True))


def kept_in_the_vault(broker: Broker) -> set[tuple[str, ...]]:
    """Every record in every segment that is in the vault."""
    found: set[tuple[str, ...]] = set()
    for segment in broker.vault.segments():
        found |= records_of(broker.vault.read(segment))
    return found


def test_what_was_typed_is_in_no_table_of_the_log(area: Area) -> None:
    """Canary names of a search, in the log's tables, whole: text and bytes, opened and sealed."""
    canary = ROBIN.typed(given_name="Zephyrine", family_name="Quillfeather", nhs_number="9990548609")
    analyst = area.asker()
    analyst.search(canary, case="case-of-Quillfeather-771")
    broker = area.broker
    broker.trail.advance_pending()
    words = ("zephyrine", "quillfeather", "9990548609", "771")
    tables = [name for name in inspect(broker.store.engine).get_table_names() if name.startswith("audit_")]
    assert len(tables) >= 12
    with broker.store.engine.connect() as connection:
        for table in tables:
            for row in connection.execute(text(f"SELECT * FROM {table}")):
                flat = " ".join(
                    value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row
                ).lower()
                assert not any(word in flat for word in words[:3]), table
    with broker.store.reading() as reading:
        newest = reading.all(EventRow, type="search.authorised", order=["-seq"], limit=1)[0].event_id
    opened = json.dumps(
        broker.trail.opening(newest, show=("who", "what", "why", "subjects", "recipients", "detail")).to_json()
    )
    beside = broker.trail.blob(newest, "query").decode()
    assert not any(word in (opened + beside).lower() for word in words[:3])
    assert "case-of-quillfeather" not in (opened + beside).lower()
