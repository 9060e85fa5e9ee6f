"""The IG officer's way through the log: say why, search, open an event, prove it; and every look is in the log."""

from __future__ import annotations

import csv
import io
import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from audit.checkpoint import SignedCheckpoint
from audit.policy import Policy
from audit.receipts import LogReceipt
from audit.witness import WitnessKey
from broker import clock, reports, signin, witnesses
from broker.settings import DemoPerson
from broker.store.log import EventRow
from broker.wiring import Broker
from tests.broker.platform import an_app
from tests.builders_log import a_key

SITE = "https://testserver"
IG = DemoPerson(person="ig-1", label="IG officer", role="IG_OFFICER")
COLLEAGUE = DemoPerson(person="ig-2", label="Another IG officer", role="IG_OFFICER")
LINKS = DemoPerson(person="links-1", label="Link reviewer", role="LINK_REVIEWER")


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """A browser that has not signed in."""
    app = an_app(tmp_path, base_url=SITE, demo_people=(IG, COLLEAGUE, LINKS))
    client = TestClient(app, base_url=SITE, follow_redirects=False)
    client.headers |= {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    return client


def signed_in(client: TestClient, person: DemoPerson = IG) -> TestClient:
    assert client.post("/sign-in", data={"person": person.person}).status_code == 303
    return client


def csrf_of(html: str) -> str:
    return html.split('name="csrf" value="', 1)[1].split('"', 1)[0]


def searched(client: TestClient, **fields: str) -> str:
    """The address of the results of a search."""
    form = {"csrf": csrf_of(client.get("/log").text), "reason": "lawfulness"} | fields
    answer = client.post("/log", data=form)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def events(client: TestClient, kind: str) -> list[EventRow]:
    broker: Broker = client.app.state.broker  # type: ignore[attr-defined]
    broker.trail.advance_pending()
    with broker.store.reading() as reading:
        return reading.all(EventRow, type=kind, order=["seq"])


@pytest.mark.parametrize("path", ["/log", "/log/searches/abcdefgh", "/log/abcdefgh", "/log/abcdefgh/proof"])
def test_the_log_is_for_whoever_is_signed_in(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_another_role_sees_no_event(client: TestClient) -> None:
    signed_in(client, LINKS)
    for answer in (client.get("/log"), client.post("/log", data={"reason": "lawfulness"})):
        assert answer.status_code == 403
        assert "Your role cannot see this" in answer.text
    assert events(client, "audit.searched") == []


def test_signing_in_is_in_the_log(client: TestClient) -> None:
    signed_in(client)
    (event,) = events(client, "auth.login")
    assert (event.actor_ref, event.role) == ("ig-1", "IG_OFFICER")


def test_nothing_is_listed_before_a_reason_from_the_list_is_given_and_recorded(client: TestClient) -> None:
    signed_in(client)
    answer = client.post("/log", data={"csrf": csrf_of(client.get("/log").text), "reason": "curiosity"})
    assert answer.status_code == 422
    assert "Choose why you are searching the log" in answer.text
    assert events(client, "audit.searched") == []
    results = searched(client, op="system")
    (event,) = events(client, "audit.searched")
    assert results == f"/log/searches/{event.event_id}"
    page = client.get(results).text
    assert "To check that processing was lawful" in page
    assert "Log opened" in page
    assert "Log consulted" not in page  # a consultation: the filter asked for system events


def test_a_search_is_its_own_persons_and_ends_after_a_quarter_of_an_hour(client: TestClient) -> None:
    signed_in(client)
    results = searched(client)
    assert client.get(results).status_code == 200
    assert client.get(results.replace(results[-4:], "0000")).status_code == 404
    (login,) = events(client, "auth.login")
    assert client.get(f"/log/searches/{login.event_id}").status_code == 404


def test_an_event_says_who_what_and_why_and_keeps_its_detail_until_that_is_opened_and_recorded(
    client: TestClient,
) -> None:
    signed_in(client)
    (login,) = events(client, "auth.login")
    page = client.get(f"/log/{login.event_id}")
    assert "Signed in on" in page.text
    assert "ig-1" in page.text
    assert "Withheld. The proof still holds." in page.text
    opened = client.post(f"/log/{login.event_id}/detail", data={"csrf": csrf_of(page.text)})
    assert "Withheld" not in opened.text
    looks = events(client, "audit.searched")
    assert len(looks) == 2


def test_the_opening_comes_with_a_proof_that_names_the_same_event_and_withholds_the_detail(client: TestClient) -> None:
    signed_in(client)
    (login,) = events(client, "auth.login")
    answer = client.get(f"/log/{login.event_id}/opening")
    assert answer.headers["content-disposition"] == f'attachment; filename="opening-{login.event_id}.json"'
    receipt = LogReceipt.from_json(json.loads(answer.text))
    assert receipt.event_id == login.event_id
    assert set(answer.json()["opening"]["detail"]) == {"commitment"}
    proof = client.get(f"/log/{login.event_id}/proof")
    assert proof.text == receipt.proof.text


def test_a_proof_comes_down_with_its_witnesses_lines_once_a_quorum_has_signed(client: TestClient) -> None:
    broker: Broker = signed_in(client).app.state.broker  # type: ignore[attr-defined]
    (login,) = events(client, "auth.login")
    key, who = WitnessKey("witness-0.example", a_key(100)), {"organisation": "northshire", "person": "op-1"}
    witnesses.enrol(broker.store, broker.trail, str(key.verifier), "northshire-icb", who=who, at=clock.now())
    broker.trail.advance_pending()
    note = SignedCheckpoint.parse(client.get(f"/audit/log/{clock.now().year}/checkpoint.witness").text)
    line = key.cosign(note.checkpoint, at_s=int(clock.now().timestamp()))
    handed = note.with_signature(line).note.encode()
    assert client.post("/audit/cosignatures", content=handed, headers={"Content-Type": "text/plain"}).status_code == 201
    opening = client.get(f"/log/{login.event_id}/opening").json()  # itself recorded, beyond what was witnessed
    for proof in (opening["proof"], client.get(f"/log/{login.event_id}/proof").text):
        assert line.line in proof
    LogReceipt.from_json(opening).verify(Policy.parse(client.get("/audit/policy").content))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_a_form_from_elsewhere_is_not_taken(client: TestClient, headers: dict[str, str]) -> None:
    signed_in(client)
    form = {"csrf": csrf_of(client.get("/log").text), "reason": "lawfulness"}
    assert client.post("/log", data=form, headers=headers).status_code == 403
    assert client.post("/log", data=form | {"csrf": "made-up"}).status_code == 403
    assert events(client, "audit.searched") == []


def test_signing_out_revokes_the_session(client: TestClient) -> None:
    signed_in(client)
    cookie = client.cookies[signin.COOKIE]
    answer = client.post("/sign-out", data={"csrf": csrf_of(client.get("/log").text)})
    assert answer.headers["clear-site-data"] == '"cache", "cookies", "storage"'
    client.cookies.set(signin.COOKIE, cookie)
    assert client.get("/log").status_code == 303


def test_pages_carry_the_policy_and_its_nonce(client: TestClient) -> None:
    answer = signed_in(client).get("/log")
    nonce = re.search(r"'nonce-([\w-]+)'", answer.headers["content-security-policy"])
    assert nonce
    assert f'nonce="{nonce[1]}"' in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_no_page_has_a_field_for_a_name(client: TestClient) -> None:
    fields = re.findall(r'<(?:input|select|textarea)[^>]* name="([^"]*)"', signed_in(client).get("/log").text)
    days = {f"{day}-{part}" for day in ("first", "last") for part in ("day", "month", "year")}
    asked = {"organisation", "op", "purpose", "person", "type", "case", "subject", "break_glass", "flagged"}
    assert set(fields) == {"csrf", "reason"} | asked | days


def test_the_log_is_narrowed_to_days_a_type_a_case_or_a_subject_and_paged(client: TestClient) -> None:
    signed_in(client)
    for _ in range(51):
        broker: Broker = client.app.state.broker  # type: ignore[attr-defined]
        reports.note_sign_in(
            broker.store, broker.trail, {"organisation": "northshire", "person": "x-1"}, at=clock.now()
        )
    page = client.get(searched(client, type="auth.login"))
    assert "50 events" in page.text and "Log opened" not in page.text
    following = re.findall(r'href="(/log/searches/[^"]+\?after=[^"]+)"', page.text)
    assert "2 events" in client.get(following[0]).text
    assert "52 events" not in page.text
    year = str(clock.now().year)
    before = {"last-day": "1", "last-month": "1", "last-year": str(int(year) - 1)}
    assert "No event fits." in client.get(searched(client, **before)).text
    assert "No event fits." in client.get(searched(client, subject="northshire-icb/health/0")).text
    assert "No event fits." in client.get(searched(client, flagged="yes", break_glass="yes")).text


def exported(client: TestClient, results: str, **fields: str) -> str:
    """Where the file of a search leads."""
    form = {"csrf": csrf_of(client.get(results).text), "reason": "integrity", "format": "csv"} | fields
    answer = client.post(f"{results}/exports", data=form)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def some_sign_ins(client: TestClient, people: int) -> None:
    broker: Broker = client.app.state.broker  # type: ignore[attr-defined]
    for number in range(people):
        who = {"organisation": "northshire", "person": f"=x-{number}", "role": "IG_OFFICER"}
        reports.note_sign_in(broker.store, broker.trail, who, at=clock.now())


def test_what_a_search_found_is_a_file_with_every_page_of_it_whose_digest_was_recorded_first(
    client: TestClient,
) -> None:
    some_sign_ins(signed_in(client), 60)
    place = exported(client, searched(client, type="auth.login"))
    (event,) = events(client, "audit.exported")
    assert place == f"/log/exports/{event.event_id}"
    file = client.get(f"{place}/file")
    assert file.headers["content-disposition"] == f'attachment; filename="log-{event.event_id}.csv"'
    digest = sha256(file.content).hexdigest()
    page = client.get(place).text
    assert "61 events in a file" in page and digest in page
    recorded = client.get(f"/log/{event.event_id}").text
    assert digest in recorded and "integrity" in recorded
    assert client.get(f"{place}/file").content == file.content


def test_no_cell_of_the_file_is_taken_for_a_formula_and_json_has_the_same_rows(client: TestClient) -> None:
    some_sign_ins(signed_in(client), 3)
    results = searched(client, type="auth.login")
    rows = list(csv.DictReader(io.StringIO(client.get(f"{exported(client, results)}/file").text)))
    assert [row["actor"] for row in rows] == ["'=x-2", "'=x-1", "'=x-0", "ig-1"]
    file = client.get(f"{exported(client, results, format='json')}/file").json()
    assert file["columns"] == list(rows[0])
    assert [row[file["columns"].index("event_id")] for row in file["rows"]] == [row["event_id"] for row in rows]


def test_a_file_is_its_own_persons_asks_a_reason_and_does_not_leave_once_it_would_be_another(
    client: TestClient,
) -> None:
    results = searched(signed_in(client), type="auth.login")
    for missing in ({"reason": ""}, {"format": ""}, {"format": "xlsx"}):
        form = {"csrf": csrf_of(client.get(results).text), "reason": "integrity", "format": "csv"} | missing
        refused = client.post(f"{results}/exports", data=form)
        assert refused.status_code == 422 and "There is a problem" in refused.text
    assert events(client, "audit.exported") == []
    place = exported(client, results)
    (login,) = events(client, "auth.login")
    assert client.get(f"/log/exports/{login.event_id}").status_code == 404
    other = TestClient(client.app, base_url=SITE, follow_redirects=False, headers=client.headers)
    signed_in(other, COLLEAGUE)
    assert {other.get(path).status_code for path in (place, f"{place}/file", results)} == {404}
    flag = {"csrf": csrf_of(other.get("/log").text), "why": "complaint"}
    assert other.post(f"/log/{login.event_id}/flag", data=flag).status_code == 303
    changed = client.get(f"{place}/file")
    assert changed.status_code == 409 and "export it again" in changed.text


def test_a_page_of_events_is_sorted_by_any_of_its_columns_without_a_script(client: TestClient) -> None:
    results = searched(signed_in(client), type="")

    def told(sort: str) -> list[str]:
        return re.findall(r'href="/log/[A-Za-z0-9_-]{8,64}">([^<]+)<', client.get(f"{results}?sort={sort}").text)

    newest = told("")
    assert told("what") == sorted(newest) != sorted(newest, reverse=True) == told("-what")
    assert told("time") == newest[::-1] and told("-time") == newest
    page = client.get(f"{results}?sort=what").text
    assert page.count("aria-sort") == 1 and 'aria-sort="ascending"' in page
    assert f'href="{results}?sort=-what"' in page and f'href="{results}?sort=role"' in page
    assert client.get(f"{results}?sort=person").status_code == 404


def test_what_is_mistyped_is_told_field_by_field_and_nothing_is_searched(client: TestClient) -> None:
    signed_in(client)
    form = {
        "csrf": csrf_of(client.get("/log").text), "subject": "Robin Sample", "first-day": "31", "first-month": "2",
        "first-year": "2026",
    }  # fmt: skip
    answer = client.post("/log", data=form)
    assert answer.status_code == 422
    for said in ("Choose why you are searching the log", "Enter a real date, or none", "and no spaces"):
        assert said in answer.text
    assert 'value="31"' in answer.text
    assert events(client, "audit.searched") == []
