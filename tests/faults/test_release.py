"""At the socket: while the log fails, at whatever step, not a byte of an answer about people leaves (attack 30)."""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from broker import clock as broker_clock
from broker import signin
from broker.app import ROUTERS, create_app
from broker.wiring import Broker
from tests.broker.test_considering import a_round
from tests.builders import COUNCIL, ICB
from tests.builders_area import ANALYST, BASE_URL, DECIDER, MORNING, Area, the_time
from tests.builders_families import ROBIN, a_linked_area

REP: Final = "AGENCY_REP"
TABLE: Final = "attendance-by-age"
PERIOD: Final = "2026-Q3"
DAYS: Final = {"first": "2026-11-01", "last": "2026-11-30"}
HELD_ELSEWHERE: Final = {
    "/v1/reviews/{review}", "/v1/record-questions/", "/v1/statistics/releases/{release}", "/audit/subjects/holds/{hold}",
    "/audit/subjects/erasures/{proposed}", "/audit/subjects/lifts/{lift}", "/audit/reviews/{event_id}", "/audit/samples/{sample}",
    "/audit/rules/{rule}", "/v1/considerations/{consideration}", "/reviews/{event}/", "/reviews/rules/{rule}",
    "/reviews/samples/{sample}", "/pairs/{pair}", "/rights/holds", "/rights/erasures", "/rights/lifts",
    "/agreements/what-if", "/statistics/{release}",
}  # fmt: skip
"""Acts on one thing: the same use case, recorded before it is released, as the route that lists it."""
TELLS_NOBODY: Final = {
    "/oauth2/token", "/health/", "/audit/log/", "/audit/shards", "/audit/cosignatures", "/audit/policy",
    "/audit/witnesses", "/audit/consistency", "/audit/events/{event_id}/proof", "/audit/reports", "/audit/rules",
    "/audit/samples", "/v1/flows/", "/v1/in-force", "/v1/reviews/codes", "/v1/considerations/codes",
    "/v1/statistics/tables", "/audit/subjects/codes", "/audit/subjects/holds", "/audit/subjects/erasures",
    "/audit/subjects/lifts", "/sign-in",
    "/sign-out", "/log/{event}/proof", "/reviews/rules", "/reviews/samples", "/agreements", "/transparency",
    "/help", "/privacy", "/accessibility", "/cookies", "/api-reference",
}  # fmt: skip
"""Hashes, times, codes, one's own uploads: nothing of anybody."""
RECORDED_BEFORE: Final = {
    "/audit/searches/{search}",
    "/log/searches/{search}",
    "/log/exports/{event}",
    "/v1/statistics/releases",
}
"""Pages of what was recorded before, and a list of what was released."""
EXACTLY: Final = {"GET /", "GET /log", "GET /ig", "GET /operations", "GET /rights", "GET /reports", "GET /statistics"}
"""Forms, counts and dates."""


@dataclass
class Probe:
    """The application, with every message that it sends written down."""

    app: Any
    looks: Callable[[], int] = lambda: 0
    sent: list[Message] = field(default_factory=list)
    seen: int = 0  # what `looks` saw as the answer began

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.seen = self.looks()
            if scope["type"] == "http":
                self.sent.append(message)
            await send(message)

        await self.app(scope, receive, noted)

    def body(self) -> bytes:
        """All that has left since the last look."""
        left = b"".join(message.get("body", b"") for message in self.sent)
        self.sent.clear()
        return left


Question = Callable[[], Any]


@dataclass
class Site:
    """An area behind a probe, somebody of each kind, and what is known before the log fails."""

    area: Area
    probe: Probe
    known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, area: Area) -> Site:
        app = create_app(area.settings)
        probe = Probe(app)
        client = TestClient(probe, base_url=BASE_URL, raise_server_exceptions=False)
        client.app = app  # where the area looks for its broker
        area.__dict__["http"] = client
        return cls(area, probe)

    def copied(self, to: Path) -> Site:
        """Another broker that starts from this one's state."""
        made = Site.of(self.area.copied(to))
        made.known |= self.known
        return made

    def prepare(self) -> None:
        """What the questions need: searches, a view, an item to consider, notices, sessions, an event."""
        area, known = self.area, self.known
        analyst, decider = area.asker(ANALYST), area.asker(DECIDER)
        known["search"], known["decided"] = (one.search(ROBIN.typed(), case="P1") for one in (analyst, decider))
        known["view"] = analyst.open(known["search"])
        known["emergency"] = analyst.break_glass(known["search"])["emergency"]
        decider.search(ROBIN.typed(), case="P2", purpose="S47")
        a_round(area)
        area.size()
        known["notice"] = self.machine("GET", "/v1/ledger")().json()["accesses"][0]["notice"]
        broker = area.broker
        for role, organisation in (("IG_OFFICER", ""), ("LINK_REVIEWER", ""), ("SERVICE_PLANNER", COUNCIL)):
            known[role] = signin.start(
                broker.store, broker.settings, person=f"p-{role.lower()}", role=role, organisation=organisation,
                method="demo", at=broker_clock.now(),
            )  # fmt: skip
        looked = self.officer("POST", "/log", form={"reason": "lawfulness"})()
        known["log search"] = looked.headers["location"].rpartition("/")[2]
        known["event"] = known["view"]["receipt"]["event_id"]
        self.officer("POST", "/audit/flags", {"event": known["event"], "why": "pattern"})()
        self.officer("GET", "/audit/reviews?purpose=integrity")()  # takes it into the queue
        area.size()

    def person(
        self, method: str, path: str, body: Any = None, *, role: str = ANALYST, agency: str = COUNCIL
    ) -> Question:
        """Somebody at a gateway asks; its token is there before the log fails."""
        asker = self.area.asker(role, agency=agency)
        token = asker.broker._token()

        def ask() -> Any:
            content = b"" if body is None else json.dumps(body).encode()
            headers = {
                "Authorization": f"Bearer {token}", "Content-Type": "application/json",
                "Gateway-Assertion": asker.broker.assertion(asker.actor, method, path, content),
            }  # fmt: skip
            self.probe.body()
            return self.area.http.request(method, path, content=content, headers=headers)

        return ask

    def machine(self, method: str, path: str, body: Any = None, *, agency: str = ICB) -> Question:
        """An organisation's machine asks."""
        token = self.area.asker(agency=agency).broker._token()

        def ask() -> Any:
            self.probe.body()
            return self.area.http.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})

        return ask

    def officer(
        self, method: str, path: str, body: Any = None, *, role: str = "IG_OFFICER", form: Any = None
    ) -> Question:
        """Somebody signed in at the broker asks."""

        def ask() -> Any:
            cookie, session = self.known[role]
            headers = {
                "Cookie": f"{signin.COOKIE}={cookie}", "X-CSRF-Token": session.csrf, "Origin": BASE_URL,
                "Sec-Fetch-Site": "same-origin",
            }  # fmt: skip
            self.probe.body()
            data = None if form is None else {**form, "csrf": session.csrf}
            return self.area.http.request(method, path, json=body, data=data, headers=headers, follow_redirects=False)

        return ask

    def questions(self) -> Mapping[str, Question]:
        """One call of each route that tells of people, or of who asked about them."""
        area, known = self.area, self.known
        analyst, decider = area.asker(ANALYST), area.asker(DECIDER)
        event, first = known["event"], known["search"]["candidates"][0]["candidate"]
        level = {
            "search": known["decided"]["search"], "candidate": known["decided"]["candidates"][0]["candidate"],
            "level": "L4", "grounds": "police_protection", "case": decider.encoder.home.case_token("P1"),
        }  # fmt: skip
        disclosure = {"search": known["search"]["search"], "candidate": first}
        wrong = {"view": known["view"]["view"], "what": "whole_child", "how": "knows_the_child"}
        ref = area.home(ICB).record_ref("health", ROBIN.id)
        days = "first=2026-11-01&last=2026-11-30"
        subject = {"subject": f"{ICB}/health/{ref}"}
        month = {f"{name}-{part}": value for name, day in (("first", "1"), ("last", "30"))
                 for part, value in (("day", day), ("month", "11"), ("year", "2026"))}  # fmt: skip
        report = {**month, "format": "csv", "reason": "lawfulness"}
        known_since = {"aware-day": "1", "aware-month": "11", "aware-year": "2026"}
        return {
            "POST /v1/searches": self.person("POST", "/v1/searches", analyst.body(ROBIN.typed(), case="P3")),
            "POST /v1/disclosures": self.person("POST", "/v1/disclosures", disclosure),
            "POST /v1/thresholds": self.person("POST", "/v1/thresholds", level, role=DECIDER),
            "POST /v1/emergencies": self.person(
                "POST", "/v1/emergencies", {**disclosure, "reason": "MISSING_NOW", "words": "No time to ask"}
            ),
            "POST /v1/emergencies/{emergency}/end": self.person("POST", f"/v1/emergencies/{known['emergency']}/end"),
            "POST /v1/wrong-person": self.person("POST", "/v1/wrong-person", wrong),
            "GET /v1/considerations": self.person("GET", "/v1/considerations", role=REP, agency=ICB),
            "GET /v1/ledger": self.machine("GET", "/v1/ledger"),
            "POST /v1/ledger/accesses": self.machine("POST", "/v1/ledger/accesses", {"record_ref": ref}),
            "GET /v1/ledger/recalls": self.machine("GET", "/v1/ledger/recalls"),
            "POST /v1/ledger/read": self.machine("POST", "/v1/ledger/read", {"notices": [known["notice"]]}),
            "GET /v1/reviews": self.officer("GET", "/v1/reviews", role="LINK_REVIEWER"),
            "POST /v1/statistics/releases": self.officer(
                "POST", "/v1/statistics/releases", {"table": TABLE, "period": PERIOD}, role="SERVICE_PLANNER"
            ),
            "GET /audit/events/{event_id}/opening": self.officer("GET", f"/audit/events/{event}/opening"),
            "GET /audit/events": self.officer("GET", "/audit/events?purpose=integrity"),
            "POST /audit/searches": self.officer("POST", "/audit/searches", {"purpose": "lawfulness"}),
            "GET /audit/events/{event_id}": self.officer("GET", f"/audit/events/{event}"),
            "POST /audit/exports": self.officer(
                "POST", "/audit/exports", {"purpose": "lawfulness", "report": "R1", **DAYS}
            ),
            "GET /fhir/AuditEvent": self.officer("GET", "/fhir/AuditEvent?purpose=integrity"),
            "GET /audit/flags": self.officer("GET", f"/audit/flags?purpose=integrity&{days}"),
            "POST /audit/flags": self.officer("POST", "/audit/flags", {"event": event, "why": "reported"}),
            "GET /audit/reviews": self.officer("GET", "/audit/reviews?purpose=integrity"),
            "GET /audit/activity": self.officer("GET", f"/audit/activity?purpose=integrity&{days}"),
            "POST /audit/packs": self.officer("POST", "/audit/packs", {"month": "2026-11-01", "purpose": "lawfulness"}),
            "POST /audit/subjects/reports": self.officer(
                "POST", "/audit/subjects/reports", {**subject, "relation": "self"}
            ),
            "POST /log": self.officer("POST", "/log", form={"reason": "lawfulness"}),
            "POST /log/searches/{search}/exports": self.officer(
                "POST", f"/log/searches/{known['log search']}/exports", form={"reason": "lawfulness", "format": "csv"}
            ),
            "GET /log/{event}": self.officer("GET", f"/log/{event}"),
            "GET /log/{event}/opening": self.officer("GET", f"/log/{event}/opening"),
            "POST /log/{event}/flag": self.officer("POST", f"/log/{event}/flag", form={"why": "complaint"}),
            "GET /reviews": self.officer("GET", "/reviews"),
            "GET /reviews/{event}": self.officer("GET", f"/reviews/{event}"),
            "GET /pairs": self.officer("GET", "/pairs", role="LINK_REVIEWER"),
            "POST /reports/{code}": self.officer("POST", "/reports/R1", form=report),
            "GET /reports/{code}": self.officer("GET", "/reports/R7"),
            "GET /breaches": self.officer("GET", "/breaches"),
            "POST /breaches": self.officer("POST", "/breaches", form={**report, **subject, **known_since}),
            "POST /statistics": self.officer(
                "POST", "/statistics", role="SERVICE_PLANNER", form={"table": TABLE, "period": PERIOD}
            ),
            "POST /rights/ledger": self.officer("POST", "/rights/ledger", form={**subject, "relation": "self"}),
            "POST /rights/pack": self.officer("POST", "/rights/pack", form={**subject, "relation": "self"}),
            "POST /log/{event}/detail": self.officer("POST", f"/log/{event}/detail", form={"reason": "lawfulness"}),
        }

    @property
    def broker(self) -> Broker:
        return self.area.broker

    @property
    def database(self) -> Path:
        return self.area.folder / "broker.sqlite"

    def sql(self, *statements: str) -> None:
        """Somebody changes the database behind the broker's back."""
        with sqlite3.connect(self.database, timeout=30) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with the_time(MORNING):
        made = Site.of(a_linked_area(tmp_path_factory.mktemp("release") / "northshire"))
        made.prepare()
        yield made
        made.area.close()


@pytest.fixture
def site(prepared: Site, tmp_path: Path) -> Iterator[Site]:
    made = prepared.copied(tmp_path / "northshire")
    yield made
    made.area.close()


# --- Steps at which the log fails -------------------------------------------------------------------------------------


@contextmanager
def without_table(site: Site, table: str) -> Iterator[None]:
    site.sql("PRAGMA legacy_alter_table=ON", f"ALTER TABLE {table} RENAME TO gone")
    yield
    site.sql("PRAGMA legacy_alter_table=ON", f"ALTER TABLE gone RENAME TO {table}")


@contextmanager
def commit_finds_no_room(site: Site) -> Iterator[None]:
    """No file of this process may grow any more: what a transaction wrote fails as it commits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    wal = site.database.with_name(site.database.name + "-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(wal.stat().st_size, 1), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def signer_down(site: Site) -> Iterator[None]:
    signer = site.area.settings.data_dir / "signer"
    signer.rename(signer.with_name("away"))
    yield
    signer.with_name("away").rename(signer)


@contextmanager
def signer_refuses(site: Site) -> Iterator[None]:
    """The signer has signed another growth of the same log, and so refuses this one."""
    other = site.copied(site.area.folder.with_name("other"))
    assert other.questions()["GET /v1/ledger"]().status_code == 200
    other.area.size()
    other.area.close()
    signer = site.area.settings.data_dir / "signer"
    signer.rename(signer.with_name("away"))
    shutil.copytree(other.area.settings.data_dir / "signer", signer)
    yield
    shutil.rmtree(signer)
    signer.with_name("away").rename(signer)


STEPS: Final[Mapping[str, Callable[[Site], Any]]] = {
    "outbox": lambda site: without_table(site, "audit_outbox"),
    "commit": commit_finds_no_room,
    "sequencer": lambda site: without_table(site, "audit_tile"),
    "signer down": signer_down,
    "signer refuses": signer_refuses,
    "checkpoints": lambda site: without_table(site, "audit_checkpoint"),
}
"""Where the log fails, in the order of the write-ahead protocol."""
UNRECORDED: Final = ("outbox", "commit")
"""Steps at which the database itself fails: then it is that which a caller is told."""


def test_every_route_is_asked_or_tells_nobody_anything(site: Site) -> None:
    asked = site.questions().keys()
    passed_over = (*HELD_ELSEWHERE, *TELLS_NOBODY, *RECORDED_BEFORE)
    for router in ROUTERS:
        for route in router.routes:
            name = f"{next(iter(route.methods))} {route.path}"  # type: ignore[attr-defined]
            path = name.split(" ", 1)[1]
            assert name in asked or name in EXACTLY or path.startswith(passed_over), name


def test_when_the_log_works_each_answer_begins_after_its_entry_is_signed(site: Site) -> None:
    def signed() -> int:
        newest = site.broker.trail.signed()
        return newest.size if newest else 0

    site.probe.looks = signed
    wrong = {}
    for name, ask in site.questions().items():
        before = site.area.size()
        answer = ask()
        if answer.status_code not in (200, 201, 303):
            wrong[name] = answer.text
        elif site.probe.seen <= before:
            wrong[name] = f"{site.probe.seen} leaves were signed as it began, and {before} before it was asked"
    assert wrong == {}


@pytest.mark.parametrize("step", STEPS)
def test_while_the_log_fails_at_any_step_not_a_byte_of_any_answer_leaves(site: Site, step: str) -> None:
    questions = site.questions()
    with ExitStack() as broken:
        broken.enter_context(STEPS[step](site))
        for name, ask in questions.items():
            answer = ask()
            left = site.probe.body()
            assert answer.status_code == 503 or (step == "commit" and answer.status_code == 507), (name, answer.text)
            assert left == answer.content, name
            page = answer.headers["content-type"].startswith("text/html")
            if not page:
                problem = json.loads(left)
                assert set(problem) == {"type", "title", "status", "instance"}, name
                assert problem["type"].endswith(":log-unavailable") or step in UNRECORDED, (name, problem)
            assert not [word for word in canaries(site) if word.encode() in left], name
    if step == "signer refuses":
        return  # a fork is for a person to look into: the log does not go on by itself
    site.broker.trail.advance_pending()
    assert questions["POST /v1/searches"]().status_code == 201  # and when it can again, it is answered


def canaries(site: Site) -> list[str]:
    """What no answer may hold while the log fails: whoever it would be about, and whoever asked."""
    view, search = site.known["view"], site.known["search"]
    return [
        view["view"], search["search"], search["candidates"][0]["candidate"], site.known["notice"],
        site.area.home(ICB).record_ref("health", ROBIN.id), "p-mash_analyst",
    ]  # fmt: skip
