"""No route answers about people, or opens the log, without its events; and none at all while the log can't record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from httpx2 import Response

from audit.events import OPS
from audit.taxonomy import KINDS
from broker.app import PUBLIC, ROUTERS
from broker.dependencies import CALLERS
from broker.settings import DemoPerson
from broker.store.log import EventRow
from broker.wiring import Broker
from tests.broker.platform import an_app
from tests.builders_area import ANALYST, DECIDER, MORNING, Area, Asker, the_time
from tests.builders_families import ROBIN, a_linked_area

WRITES: Final[Mapping[str, tuple[str, ...]]] = {
    "POST /v1/searches": ("search.authorised", "search.completed"),
    "POST /v1/disclosures": ("disclosure.authorised", "disclosure.completed"),
    "POST /v1/thresholds": ("threshold.set",),
    "POST /v1/emergencies": ("breakglass.opened", "disclosure.authorised", "disclosure.completed"),
    "POST /v1/emergencies/{emergency}/end": ("breakglass.closed",),
    "POST /sign-in": ("auth.login",),
    "POST /sign-out": ("auth.logout",),
    "POST /log": ("audit.searched",),
    "POST /log/{event}/detail": ("audit.searched",),
    "GET /log/{event}": ("audit.searched",),
    "GET /log/{event}/opening": ("audit.searched",),
    "GET /audit/events/{event_id}/opening": ("audit.searched",),
    "GET /audit/events/{event_id}": ("audit.searched",),
    "GET /audit/events": ("audit.searched",),
    "POST /audit/searches": ("audit.searched",),
    "POST /audit/exports": ("audit.exported",),
    "GET /audit/flags": ("audit.searched",),
    "GET /audit/reviews": ("audit.searched",),
    "GET /audit/activity": ("audit.searched",),
    "POST /audit/flags": ("audit.flagged",),
    "GET /audit/reviews/{event_id}": ("audit.searched",),
    "POST /audit/rules/{rule}/thresholds": ("config.changed",),
    "POST /audit/packs": ("audit.report_issued",),
    "GET /fhir/AuditEvent": ("audit.searched",),
}
"""What one call of each route that discloses, decides or opens something writes; each is made below."""

BATCHES: Final = "/v1/flows/{flow}/batches"
OTHERS: Final[Mapping[str, str]] = {
    "POST /oauth2/token": "an organisation's machine gets a token; nobody's data",
    "GET /health/live": "public", "GET /health/ready": "public",
    "GET /audit/log/{shard}/checkpoint": "public: hashes and times", "GET /audit/log/{shard}/tile/{path:path}": "public",
    "GET /audit/log/{shard}/history": "public: what the log says of itself", "GET /audit/shards": "public: the same",
    "GET /audit/log/{shard}/checkpoint.witnessed": "public: the same",
    "GET /audit/log/{shard}/checkpoint.witness": "public: the same",
    "POST /audit/cosignatures": "witness.conflict, if it shows one: held in tests/broker/test_witnesses.py",
    "GET /audit/policy": "public keys", "GET /audit/witnesses": "public: sizes and times",
    "GET /audit/consistency": "public: hashes",
    "GET /audit/events/{event_id}/proof": "of an event the caller was part in: hashes",
    "GET /audit/rules": "rules and thresholds: codes alone",
    "POST /audit/reviews/{event_id}/take": "a place in the queue; auth.denied for whoever acted in the event",
    "POST /audit/reviews/{event_id}/decision": "audit.reviewed, breakglass.reviewed: held in tests/broker/test_reviewing.py",
    "POST /audit/reviews/{event_id}/signoff": "audit.signed_off: held there too",
    "GET /audit/samples": "how many were drawn, and by which checkpoint",
    "POST /audit/samples": "audit.flagged: held in tests/broker/test_sampling.py",
    "GET /audit/samples/{sample}": "audit.searched: held there too",
    "GET /audit/searches/{search}": "a page of a search that was recorded", "GET /audit/reports": "a closed list",
    "GET /v1/flows/{flow}": "how one's own feed stands: numbers of its nights",
    "POST /v1/flows/{flow}/heartbeat": "when a client was last heard of",
    f"POST {BATCHES}": "opens an upload", f"PUT {BATCHES}/{{batch}}/{{table}}/chunks/{{number}}": "part of an upload",
    f"GET {BATCHES}/{{batch}}": "counts of one's own upload",
    f"POST {BATCHES}/{{batch}}/commit": "submission.received: held in tests/broker/test_submissions.py",
    f"GET {BATCHES}/{{batch}}/receipt": "one's own receipt", f"GET {BATCHES}/{{batch}}/rejections": "one's own rows",
    f"DELETE {BATCHES}/{{batch}}": "submission.withdrawn: held in tests/broker/test_submissions.py",
    "GET /": "the front page", "GET /sign-in/start": "sends the browser to the OpenID provider",
    "GET /sign-in/return": "auth.login, auth.denied: held in tests/broker/web/test_sign_in.py",
    "GET /log": "an empty form", "GET /log/searches/{search}": "what POST /log was recorded for",
    "GET /log/{event}/proof": "hashes",
    "POST /log/searches/{search}/exports": "audit.exported: held in tests/broker/web/test_log_pages.py",
    "GET /log/exports/{event}": "what was recorded of one's own file", "GET /log/exports/{event}/file": "the file that was recorded",
    "GET /ig": "counts and dates, nobody's data", "GET /operations": "the same",
    "GET /transparency": "public: agreements in force, and two rounded counts", "GET /transparency/children": "public: words",
    **dict.fromkeys(("GET /help", "GET /privacy", "GET /accessibility", "GET /cookies"), "public: words"),
    "GET /api-reference": "public: what the API is", "GET /api-reference/agencies": "public: words",
    "GET /api-reference/openapi.json": "public: what the API is", "GET /api-reference/{group}": "public: the same",
    "GET /statistics": "the declared tables, and what was released: no figures",
    "POST /statistics": "statistics.prepared, .refused, .disclosed: held in tests/broker/test_statistics.py",
    "GET /statistics/{release}": "statistics.opened, statistics.disclosed: held there too",
    "GET /statistics/{release}/csv": "the same: held there too",
    "POST /statistics/{release}/check": "statistics.approved, statistics.rejected: held there too",
    "GET /reports": "a closed list", "GET /reports/{code}": "an empty form; for R7 the page of breaches",
    "POST /reports/{code}": "audit.exported: held in tests/broker/web/test_reports_and_rights.py",
    "GET /breaches": "audit.searched: held there too", "POST /breaches": "audit.exported: held there too",
    "GET /rights": "holds, erasures and lifts, never of whom",
    "POST /rights/ledger": "audit.searched: held there too",
    "POST /rights/pack": "subject.report_issued: held there too",
    "POST /rights/holds": "legal_hold.set: held there too",
    "POST /rights/holds/{hold}/release": "legal_hold.lifted: held there too",
    "POST /rights/erasures": "subject.erasure_proposed: held there too",
    "POST /rights/erasures/{proposed}/decision": "subject.erased, .erasure_refused: held in tests/broker/test_subjects.py",
    "POST /rights/lifts": "subject.lift_proposed: held there too",
    "POST /rights/lifts/{proposed}/decision": "subject.lifted, .lift_refused: held there too",
    "POST /agreements/what-if": "audit.searched: held in tests/broker/web/test_agreement_pages.py",
    **dict.fromkeys(
        (
            "GET /agreements", "GET /agreements/calendar", "GET /agreements/remarks", "GET /agreements/who-can-see",
            "GET /agreements/who-can-see.csv", "GET /agreements/diff", "GET /agreements/what-if",
            "GET /agreements/{ref}", "GET /agreements/{ref}/toml", "GET /agreements/{ref}/print",
        ), "the register: documents between organisations, nobody's data",
    ),
    "POST /log/{event}/flag": "audit.flagged: held in tests/broker/web/test_review_pages.py",
    "GET /reviews": "audit.searched: held there too",
    "GET /reviews/{event}": "audit.searched, twice: held there too",
    "POST /reviews/{event}/take": "a place in the queue; auth.denied for whoever acted in the event",
    "POST /reviews/{event}/decision": "audit.reviewed: held there too",
    "POST /reviews/{event}/signoff": "audit.signed_off: held there too",
    "GET /reviews/rules": "rules and thresholds: codes alone", "GET /reviews/rules/{rule}": "the same",
    "POST /reviews/rules/{rule}": "config.changed: held there too",
    "GET /reviews/samples": "how many were drawn, and by which checkpoint",
    "POST /reviews/samples": "audit.flagged: held there too",
    "POST /reviews/samples/{sample}": "audit.searched: held there too",
    "GET /pairs": "review.listed: held in tests/broker/web/test_pair_pages.py",
    "GET /pairs/{pair}": "review.opened: held there too", "GET /pairs/{pair}/done": "what one did oneself, in a word",
    "POST /pairs/{pair}/ask": "review.asked: held there too",
    "POST /pairs/{pair}/decision": "override.must_link, override.must_not_link: held there too",
    "POST /pairs/{pair}/confirm": "link.confirmed, link.rejected: held there too",
    "POST /pairs/{pair}/withdraw": "override.withdrawn: held there too",
    "GET /v1/in-force": "a mark of what is in force: says nothing of any record",
    "GET /v1/reviews": "review.listed: held in tests/broker/test_reviews.py", "GET /v1/reviews/codes": "closed lists",
    "GET /v1/reviews/{review}": "review.opened: held there too",
    "GET /v1/reviews/{review}/ask": "review.asked: held there too",
    "GET /v1/record-questions/{reference}": "review.asked: held there too",
    "POST /v1/reviews/{review}/decision": "override.must_link, override.must_not_link: held there too",
    "POST /v1/reviews/{review}/confirm": "link.confirmed, link.rejected: held there too",
    "POST /v1/reviews/{review}/withdraw": "override.withdrawn: held there too",
    "GET /v1/considerations": "consider_sharing.listed: held in tests/broker/test_considering.py",
    "GET /v1/considerations/codes": "a closed list",
    "POST /v1/considerations/{consideration}/decision": "consider_sharing.shared, .declined: held there too",
    "GET /v1/ledger": "ledger.listed: held in tests/broker/test_ledger.py",
    "POST /v1/ledger/accesses": "ledger.listed: held there too",
    "GET /v1/ledger/recalls": "ledger.listed: held there too",
    "POST /v1/ledger/read": "ledger.collected: held there too",
    "POST /v1/wrong-person": "link.wrong_person_reported: held in tests/broker/test_reviews.py",
    "GET /v1/statistics/tables": "the declared tables", "GET /v1/statistics/releases": "what was released, no figures",
    "POST /v1/statistics/releases": "statistics.prepared, .refused, .disclosed: held in tests/broker/test_statistics.py",
    "GET /v1/statistics/releases/{release}": "statistics.opened, statistics.disclosed: held there too",
    "GET /v1/statistics/releases/{release}/csv": "the same: held there too",
    "POST /v1/statistics/releases/{release}/check": "statistics.approved, statistics.rejected: held there too",
    "GET /audit/subjects/codes": "closed lists",
    "GET /audit/subjects/holds": "holds, never on whom", "GET /audit/subjects/erasures": "erasures, never of whom",
    "GET /audit/subjects/lifts": "lifts, never of whom",
    "POST /audit/subjects/holds": "legal_hold.set: held in tests/broker/test_subjects.py",
    "POST /audit/subjects/holds/{hold}/release": "legal_hold.lifted: held there too",
    "POST /audit/subjects/erasures": "subject.erasure_proposed, .erasure_refused: held there too",
    "POST /audit/subjects/lifts": "subject.lift_proposed: held there too",
    "POST /audit/subjects/lifts/{lift}/decision": "subject.lifted, .lift_refused: held there too",
    "POST /audit/subjects/erasures/{proposed}/decision": "subject.erased, .erasure_refused: held there too",
    "POST /audit/subjects/reports": "subject.report_issued: held there too",
}  # fmt: skip
"""Every other route, and why one call of it writes nothing of its own here."""

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("routes") / "northshire")
        yield made
        made.close()


@pytest.fixture
def site(tmp_path: Path) -> TestClient:
    """The broker's own pages, with an IG officer signed in."""
    people = (DemoPerson(person="ig-1", label="IG officer", role="IG_OFFICER"),)
    app = an_app(tmp_path, base_url="https://testserver", demo_people=people)
    client = TestClient(app, base_url="https://testserver", follow_redirects=False)
    client.headers |= {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    client.post("/sign-in", data={"person": "ig-1"})
    return client


def routes() -> list[APIRoute]:
    found = [route for router in ROUTERS for route in router.routes]
    assert all(isinstance(route, APIRoute) for route in found)
    return [route for route in found if isinstance(route, APIRoute)]


def name_of(route: APIRoute) -> str:
    (method,) = route.methods
    return f"{method} {route.path}"


def written(broker: Broker, after: int) -> tuple[str, ...]:
    """Types of the events from a size on, in the order of the log."""
    broker.trail.advance_pending()
    with broker.store.reading() as reading:
        return tuple(row.type for row in reading.all(EventRow, order=["seq"]) if row.seq >= after)


def test_every_route_is_listed_with_what_it_writes() -> None:
    listed = {*WRITES, *OTHERS}
    found = {name_of(route) for route in routes()}
    assert found == listed, (sorted(found - listed), sorted(listed - found))


def test_every_event_that_a_route_is_said_to_write_is_of_the_closed_set() -> None:
    said = {each for text in OTHERS.values() for each in re.findall(r"\b[a-z_]+\.[a-z_]+\b", text)}
    told = {each for each in said if not each.endswith(".py")} | {each for types in WRITES.values() for each in types}
    assert told <= OPS.keys()
    assert not [each for each in told if KINDS[each].reserved]


def test_what_is_held_elsewhere_is_held_there() -> None:
    there, unheld = "", []
    for name, text in OTHERS.items():
        if found := re.search(r"held in (tests/\S+\.py)", text):
            there = (ROOT / found[1]).read_text(encoding="utf-8")
        if "held" in text:
            types = re.findall(r"[a-z_]*\.[a-z_]+", text.partition(":")[0])
            whole = [each if each[0] != "." else types[0].partition(".")[0] + each for each in types]
            unheld += [(name, each) for each in whole if f'"{each}"' not in there]
    assert unheld == []


def test_every_route_but_the_public_ones_asks_who_calls() -> None:
    def calls(dependant: Any) -> Iterator[Any]:
        for one in dependant.dependencies:
            yield one.call
            yield from calls(one)

    open_to_all = {route.path for route in routes() if CALLERS.isdisjoint(calls(route.dependant))}
    assert open_to_all <= PUBLIC, sorted(open_to_all - PUBLIC)


def test_asking_writes_its_events_and_no_other(area: Area) -> None:
    decider = area.asker(DECIDER)
    answers: dict[str, Any] = {}
    for name, call in (
        ("POST /v1/searches", lambda: decider.search(ROBIN.typed(), case="R1")),
        ("POST /v1/disclosures", lambda: decider.open(answers["POST /v1/searches"])),
        ("POST /v1/thresholds", lambda: decider.threshold(answers["POST /v1/searches"], case="R1")),
        ("POST /v1/emergencies", lambda: decider.break_glass(answers["POST /v1/searches"])),
        (
            "POST /v1/emergencies/{emergency}/end",
            lambda: decider.end_emergency(answers["POST /v1/emergencies"]["emergency"]),
        ),
    ):
        before = area.size()
        answers[name] = call()
        assert written(area.broker, before) == WRITES[name], name


def test_information_governance_writes_its_events_and_no_other(site: TestClient) -> None:
    broker: Broker = site.app.state.broker  # type: ignore[attr-defined]
    size = broker.trail.advance_pending()
    assert written(broker, size - 1) == WRITES["POST /sign-in"]
    csrf = site.get("/log").text.split('name="csrf" value="', 1)[1].split('"', 1)[0]
    with broker.store.reading() as reading:
        event = reading.all(EventRow, order=["seq"])[-1].event_id
        opened = reading.all(EventRow, order=["seq"])[0].event_id  # the log's own, in which no officer acted
    for name, path in (
        ("POST /log", "/log"), ("POST /log/{event}/detail", f"/log/{event}/detail"),
        ("GET /log/{event}", f"/log/{event}"), ("GET /log/{event}/opening", f"/log/{event}/opening"),
        ("GET /audit/events/{event_id}/opening", f"/audit/events/{event}/opening"),
        ("GET /audit/events/{event_id}", f"/audit/events/{event}"),
        ("GET /audit/events", "/audit/events?purpose=integrity"),
        ("GET /fhir/AuditEvent", "/fhir/AuditEvent?purpose=integrity"),
        ("GET /audit/flags", "/audit/flags?purpose=lawfulness&first=2026-11-01&last=2026-11-30"),
        ("GET /audit/reviews", "/audit/reviews?purpose=lawfulness"),
        ("GET /audit/activity", "/audit/activity?purpose=lawfulness&first=2026-11-01&last=2026-11-30"),
    ):  # fmt: skip
        before = broker.trail.advance_pending()
        form = {"csrf": csrf, "reason": "lawfulness"}
        answer = site.post(path, data=form) if name.startswith("POST") else site.get(path)
        assert answer.status_code in (200, 303), answer.text
        assert written(broker, before) == WRITES[name], name
    days = {"first": "2026-11-01", "last": "2026-11-30"}
    for name, path, body in (
        ("POST /audit/searches", "/audit/searches", {"purpose": "lawfulness"}),
        ("POST /audit/exports", "/audit/exports", {"purpose": "lawfulness", "report": "R1", **days}),
        ("POST /audit/flags", "/audit/flags", {"event": opened, "why": "pattern"}),
        (
            "POST /audit/rules/{rule}/thresholds",
            "/audit/rules/burst/thresholds",
            {"name": "an_hour", "value": 40, "why": "trial"},
        ),
        ("POST /audit/packs", "/audit/packs", {"month": "2026-11-01", "purpose": "lawfulness"}),
    ):
        before = broker.trail.advance_pending()
        answer = site.post(path, json=body, headers={"X-CSRF-Token": csrf})
        assert answer.status_code == 201, answer.text
        assert written(broker, before) == WRITES[name], name
    site.get("/audit/reviews?purpose=lawfulness")  # takes what was flagged into the queue
    before = broker.trail.advance_pending()
    assert site.get(f"/audit/reviews/{opened}?purpose=lawfulness").status_code == 200
    assert written(broker, before) == WRITES["GET /audit/reviews/{event_id}"]
    before = broker.trail.advance_pending()
    assert site.post("/sign-out", data={"csrf": csrf}).status_code == 303
    assert written(broker, before) == WRITES["POST /sign-out"]
    assert site.get("/log").status_code == 303  # to the sign-in page


def test_while_the_log_can_not_record_not_a_byte_of_an_answer_leaves(area: Area, tmp_path: Path) -> None:
    stopped = area.copied(tmp_path / "northshire")
    analyst, decider = stopped.asker(ANALYST), stopped.asker(DECIDER)
    answer, decided = (asker.search(ROBIN.typed(), case="R2") for asker in (analyst, decider))
    candidate = {"search": answer["search"], "candidate": answer["candidates"][0]["candidate"]}
    level = {
        "search": decided["search"], "candidate": decided["candidates"][0]["candidate"], "level": "L4",
        "grounds": "police_protection", "case": decider.encoder.home.case_token("R2"),
    }  # fmt: skip
    signer = stopped.settings.data_dir / "signer"
    signer.rename(tmp_path / "away")
    for asker, path, body in (
        (analyst, "/v1/searches", analyst.body(ROBIN.typed(), case="R2")),
        (analyst, "/v1/disclosures", candidate),
        (decider, "/v1/thresholds", level),
        (analyst, "/v1/emergencies", {**candidate, "reason": "MISSING_NOW", "words": "No time to ask"}),
    ):
        refused = _send(stopped, asker, path, body)
        assert refused.status_code == 503, path
        problem = refused.json()
        assert problem["type"].endswith(":log-unavailable")
        assert set(problem) == {"type", "title", "status", "instance"}
    (tmp_path / "away").rename(signer)
    assert analyst.open(answer)["tiles"]  # and when it can again, the same question is answered
    stopped.close()


def _send(area: Area, asker: Asker, path: str, body: dict[str, Any]) -> Response:
    """The raw answer to a question of somebody at a gateway."""
    content = area.http.build_request("POST", path, json=body).content
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {asker.broker._token()}",
        "Gateway-Assertion": asker.broker.assertion(asker.actor, "POST", path, content),
    }
    answer: Response = area.http.post(path, content=content, headers=headers)
    return answer
