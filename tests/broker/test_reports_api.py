"""The log over HTTP: search, pages, events, exports, RESTful ATNA; and the command that writes files."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from typer.testing import CliRunner

from audit.receipts import LogReceipt
from broker import clock
from broker.cli import app as command
from broker.settings import DemoPerson
from broker.store.log import EventRow
from broker.wiring import Broker
from tests.broker.platform import AnAgency, an_app, some_settings

PEOPLE: Final = (
    DemoPerson(person="ig-1", label="IG officer", role="IG_OFFICER"),
    DemoPerson(person="ig-2", label="IG officer", role="IG_OFFICER"),
    DemoPerson(person="links-1", label="Link reviewer", role="LINK_REVIEWER"),
    DemoPerson(person="op-1", label="Operator", role="OPERATOR"),
)
TODAY: Final = clock.now().date().isoformat()
EXPORT: Final = {"report": "R5", "purpose": "lawfulness", "first": TODAY, "last": TODAY}
ROUTES: Final = (
    ("GET", "/audit/reports", None),
    ("GET", "/audit/events?purpose=lawfulness", None),
    ("GET", "/audit/searches/abcdefgh", None),
    ("GET", "/audit/events/abcdefgh", None),
    ("GET", "/fhir/AuditEvent?purpose=lawfulness", None),
    ("POST", "/audit/searches", {"purpose": "lawfulness"}),
    ("POST", "/audit/exports", EXPORT),
)


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    site = an_app(tmp_path, base_url="https://testserver", demo_people=PEOPLE)
    made = TestClient(site, base_url="https://testserver", follow_redirects=False)
    made.headers |= {"Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"}
    AnAgency().enrolled(broker_of(made))
    return made


@pytest.fixture
def site(client: TestClient) -> TestClient:
    """With an officer of information governance signed in."""
    return signed_in(client, "ig-1")


def signed_in(client: TestClient, person: str) -> TestClient:
    client.post("/sign-in", data={"person": person})
    if person.startswith("ig-"):
        client.headers["X-CSRF-Token"] = client.get("/audit/reports").json()["csrf"]
    return client


def broker_of(client: TestClient) -> Broker:
    found: Broker = client.app.state.broker  # type: ignore[attr-defined]
    return found


def events(client: TestClient, kind: str) -> list[EventRow]:
    broker = broker_of(client)
    broker.trail.advance_pending()
    with broker.store.reading() as reading:
        return reading.all(EventRow, type=kind, order=["seq"])


def sent(client: TestClient, method: str, path: str, body: Any) -> Response:
    answer: Response = client.request(method, path, json=body)
    return answer


# --- Who may --------------------------------------------------------------------------------------------------------


def test_nobody_else_reads_the_log_and_their_attempt_shows_nothing(client: TestClient) -> None:
    for person in (None, "links-1", "op-1"):
        if person is not None:
            signed_in(client, person)
        for method, path, body in ROUTES:
            answer = sent(client, method, path, body)
            assert answer.status_code == (403 if person else 401), path
            assert set(answer.json()) <= {"type", "title", "status", "instance", "detail"}, path
    assert events(client, "audit.searched") == events(client, "audit.exported") == []


def test_an_agencys_machine_and_its_people_reach_none_of_it(client: TestClient) -> None:
    for method, path, body in ROUTES:
        answer = client.request(method, path, json=body, headers={"Authorization": "Bearer x.y.z"})
        assert answer.status_code == 401, path


def test_a_post_carries_the_sessions_own_token(site: TestClient) -> None:
    del site.headers["X-CSRF-Token"]
    for path, body in (("/audit/searches", {"purpose": "lawfulness"}), ("/audit/exports", EXPORT)):
        assert site.post(path, json=body).status_code == 403
    assert events(site, "audit.searched") == []


# --- Searching ------------------------------------------------------------------------------------------------------


def test_a_search_by_codes_says_why_and_is_recorded_with_that(site: TestClient) -> None:
    answer = site.get("/audit/events?purpose=self_monitoring&type=auth.login&organisation=northshire")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert [(one["type"], one["person"], one["op"]) for one in found["events"]] == [("auth.login", "ig-1", "system")]
    assert (found["purpose"], found["filter"]) == (
        "self_monitoring", {"type": "auth.login", "organisation": "northshire"},
    )  # fmt: skip
    (event,) = events(site, "audit.searched")
    opened = broker_of(site).trail.opening(event.event_id, show=("why", "what"))
    assert opened.body("why") == {"reason": "self_monitoring"}


def test_without_one_of_the_acts_four_purposes_nothing_is_searched(site: TestClient) -> None:
    for query in ("", "?purpose=", "?purpose=curiosity", "?type=auth.login"):
        answer = site.get(f"/audit/events{query}")
        assert answer.status_code == 400, query
        assert "lawfulness, self_monitoring, integrity, criminal_proceedings" in answer.json()["detail"]
    assert site.post("/audit/searches", json={"purpose": "curiosity"}).status_code == 422
    assert events(site, "audit.searched") == []


def test_no_reference_of_a_person_a_case_or_a_child_stands_in_a_url(site: TestClient) -> None:
    for name in ("subject", "case", "person", "actor", "entity.identifier", "q"):
        for path in ("/audit/events", "/fhir/AuditEvent"):
            answer = site.get(f"{path}?purpose=lawfulness&{name}=Wilhelmina")
            assert answer.status_code == 400, path
            assert "Wilhelmina" not in answer.text
    assert events(site, "audit.searched") == []


OFF_THE_LISTS: Final = (
    "organisation=Wilhelmina", "type=made.up", "op=made_up", "event_purpose=MADE_UP", "since=2026-11-22T09:00:00",
    "outcome=a%20name", "type=auth.login&type=auth.logout",
)  # fmt: skip


def test_what_is_of_no_closed_list_is_not_asked(site: TestClient) -> None:
    for query in OFF_THE_LISTS:
        answer = site.get(f"/audit/events?purpose=lawfulness&{query}")
        assert answer.status_code == 400, query
        assert "Wilhelmina" not in answer.text
    assert events(site, "audit.searched") == []


def test_pages_of_a_search_are_recorded_once_and_follow_one_another(site: TestClient) -> None:
    for _ in range(54):
        site.post("/sign-in", data={"person": "ig-1"})
    site.headers["X-CSRF-Token"] = site.get("/audit/reports").json()["csrf"]
    page = site.post("/audit/searches", json={"purpose": "integrity", "filter": {"person": "ig-1"}}).json()
    read = [one["event_id"] for one in page["events"]]
    while page["next"]:
        page = site.get(page["next"]).json()
        read += [one["event_id"] for one in page["events"]]
    assert read == [row.event_id for row in reversed(events(site, "auth.login"))]
    assert len(read) == 55
    assert len(events(site, "audit.searched")) == 1


def test_a_search_for_a_child_is_posted_and_finds_who_looked_for_that_child(site: TestClient) -> None:
    child = "3b86a628-b8e2-4ccd-8d76-3988c53787e9"
    wanted = {"purpose": "lawfulness", "filter": {"subject": child}}
    answer = site.post("/audit/searches", json=wanted)
    assert answer.status_code == 201
    assert answer.json()["events"] == []
    assert site.post("/audit/searches", json={"purpose": "lawfulness", "filter": {"nickname": "x"}}).status_code == 422


def test_an_event_is_opened_but_for_its_detail_and_the_look_is_recorded(site: TestClient) -> None:
    (login,) = events(site, "auth.login")
    shown = site.get(f"/audit/events/{login.event_id}").json()
    assert (shown["type"], shown["sections"]["who"]["person"]) == ("auth.login", "ig-1")
    assert set(shown["sections"]) == {"who", "what", "why", "subjects", "recipients"}
    assert len(events(site, "audit.searched")) == 1
    assert site.get("/audit/events/abcdefgh").status_code == 404


# --- Exports --------------------------------------------------------------------------------------------------------


def test_an_export_is_a_file_whose_digest_is_in_the_log_and_can_be_proved(site: TestClient) -> None:
    answer = site.post("/audit/exports", json=EXPORT | {"report": "R10", "format": "csv"})
    assert answer.status_code == 201, answer.text
    event_id = answer.headers["export-event"]
    digest = sha256(answer.content).digest()
    assert answer.headers["content-digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
    assert answer.headers["content-disposition"] == f'attachment; filename="R10-{event_id}.csv"'
    receipt = LogReceipt.from_json(site.get(f"/log/{event_id}/opening").json())
    what: Any = receipt.opening.body("what")
    assert (what["sha256"], what["report"]) == (digest.hex(), "R10")


NOT_EXPORTED: Final[tuple[tuple[dict[str, Any], int], ...]] = (
    ({"report": "R4"}, 422), ({"format": "xlsx"}, 422), ({"purpose": "curiosity"}, 422), ({"subject": 7}, 422),
    ({"first": "yesterday"}, 422), ({"first": "2026-12-01", "last": "2026-11-01"}, 400),
    ({"report": "R5", "format": "fhir"}, 400), ({"report": "R7"}, 400),
    ({"report": "R7", "subject": "Wilhelmina"}, 404),
)  # fmt: skip


def test_an_export_that_can_not_be_made_says_why(site: TestClient) -> None:
    for wrong, status in NOT_EXPORTED:
        answer = site.post("/audit/exports", json=EXPORT | wrong)
        assert answer.status_code == status, wrong
        assert "Wilhelmina" not in answer.text
    assert events(site, "audit.exported") == []


def test_while_the_log_can_not_record_no_search_and_no_export_leaves(site: TestClient, tmp_path: Path) -> None:
    (tmp_path / "signer").rename(tmp_path / "away")
    for method, path, body in ROUTES:
        if path in ("/audit/reports", "/audit/searches/abcdefgh", "/audit/events/abcdefgh"):
            continue
        answer = sent(site, method, path, body)
        assert answer.status_code == 503, path
        assert set(answer.json()) == {"type", "title", "status", "instance"}


# --- RESTful ATNA ---------------------------------------------------------------------------------------------------


def test_audit_events_are_a_searchset_by_date_type_and_organisation(site: TestClient) -> None:
    from fhir.resources.R4B.bundle import Bundle

    query = (
        f"/fhir/AuditEvent?purpose=integrity&date=ge{TODAY}&type=http://dicom.nema.org/resources/ontology/DCM|110114"
        "&agent.identifier=urn:safeguarding-broker:organisation|northshire&outcome=0"
    )
    answer = site.get(query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/fhir+json")
    bundle = Bundle.model_validate_json(answer.content)
    assert bundle.type == "searchset"
    (entry,) = bundle.entry
    assert entry.resource.type.code == "110114"
    (event,) = events(site, "audit.searched")
    what: Any = broker_of(site).trail.opening(event.event_id, show=("what",)).body("what")
    assert what["as"] == "fhir"


def test_pages_of_audit_events_follow_their_links(site: TestClient) -> None:
    for _ in range(25):
        site.post("/sign-in", data={"person": "ig-1"})
    link: str | None = "/fhir/AuditEvent?purpose=integrity&subtype=auth.login"
    read = []
    while link:
        bundle = site.get(link).json()
        read += [entry["resource"]["id"] for entry in bundle["entry"]]
        link = next((one["url"] for one in bundle["link"] if one["relation"] == "next"), None)
        assert link is None or link.startswith("https://testserver/fhir/AuditEvent?search=")
    assert read == [row.event_id for row in reversed(events(site, "auth.login"))]
    assert len(events(site, "audit.searched")) == 1


DATES: Final[tuple[tuple[list[str], bool], ...]] = (
    ([f"eq{TODAY}"], True), ([TODAY], True), ([f"lt{TODAY}"], False), ([f"gt{TODAY}"], False),
    ([f"ge{TODAY}", f"le{TODAY}"], True), (["le2020-01-01"], False), (["ge2020-01-01T00:00:00Z"], True),
)  # fmt: skip


def test_dates_are_bounds_of_days_in_london_or_instants(site: TestClient) -> None:
    for dates, fits in DATES:
        answer = site.get("/fhir/AuditEvent", params=[("purpose", "integrity"), *(("date", one) for one in dates)])
        assert bool(answer.json().get("entry")) is fits, dates


NOT_ATNA: Final = (
    "date=yesterday", "date=ne2026-11-22", "type=110999", "type=other|110114", "agent.identifier=Wilhelmina",
    "subtype=made.up", "outcome=12", "_count=5",
)  # fmt: skip


def test_what_atna_can_not_be_asked_here_is_refused(site: TestClient) -> None:
    for query in NOT_ATNA:
        answer = site.get(f"/fhir/AuditEvent?purpose=integrity&{query}")
        assert answer.status_code == 400, query
        assert "Wilhelmina" not in answer.text
    assert events(site, "audit.searched") == []


# --- The command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def settings_file(tmp_path: Path) -> Iterator[Path]:
    an_app(tmp_path)
    given = some_settings(tmp_path)
    path = tmp_path / "broker.toml"
    path.write_text(
        f'environment = "demo"\npartnership = "{given.partnership}"\nbase_url = "{given.base_url}"\n'
        f'database_url = "sqlite:///broker.db"\ndata_dir = "."\n',
        encoding="utf-8",
    )
    yield path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, ["reports", *arguments])


def test_the_command_writes_a_file_that_only_its_owner_reads_and_records_it(
    settings_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r10.json"
    arguments = ("run", "R10", "--from", "2026-01-01", "--to", "2026-12-31", "--format", "json", "--out", str(out),
                 "--reason", "criminal_proceedings", "--by", "ig-9", "--config", str(settings_file))  # fmt: skip
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["sha256"] == sha256(out.read_bytes()).hexdigest()
    assert json.loads(out.read_bytes())["report"] == "R10"
    assert list(tmp_path.glob("*.part")) == []
    again = run(*arguments)
    assert again.exit_code == 2
    assert "is there already" in again.output


ENDS: Final[tuple[tuple[dict[str, str], int], ...]] = (
    ({"--reason": "curiosity"}, 2), ({"--by": "Wilhelmina Brown"}, 2), ({"--from": "2027-01-01"}, 2),
    ({"--organisation": "nobody"}, 1), ({"--out": "/nowhere/at/all.csv"}, 3),
)  # fmt: skip


def test_the_command_ends_as_it_promises(settings_file: Path, tmp_path: Path) -> None:
    for changes, code in ENDS:
        given = {
            "--from": "2026-01-01", "--to": "2026-12-31", "--out": str(tmp_path / "r1.csv"), "--reason": "lawfulness",
            "--by": "ig-9", "--config": str(settings_file),
        } | changes  # fmt: skip
        done = run("run", "R1", *(word for pair in given.items() for word in pair))
        assert done.exit_code == code, done.output
        assert not (tmp_path / "r1.csv").exists()
        assert "Wilhelmina" not in done.output


def test_the_list_names_every_report_and_its_columns() -> None:
    listed = json.loads(run("list", "--json").stdout)
    assert [one["report"] for one in listed] == ["R1", "R2", "R3", "R5", "R6", "R7", "R8", "R9", "R10"]
    assert re.search(r"^R1 +Disclosure register", run("list").stdout, re.M)
