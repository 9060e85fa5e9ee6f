"""A gateway with a home, people to sign in as, and answers of a broker as data."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc.jwk import ECKey

from linkage.agency.gateway.app import create_gateway
from linkage.agency.gateway.broker_client import BrokerClient
from linkage.agency.gateway.encoder import SearchEncoder
from linkage.agency.gateway.settings import DemoPerson, Desk, GatewaySettings
from linkage.agency.gateway.store import GatewayStore
from linkage.agency.gateway.typed import Typed, TypedPerson
from linkage.agency.keys import write_secret
from linkage.agency.settings import Home

NOW = datetime(2026, 11, 21, 10, 27, tzinfo=UTC)
ANALYST = DemoPerson(id="p-analyst", name="Sample Analyst", role="MASH_ANALYST")
MANAGER = DemoPerson(id="p-manager", name="Sample Manager", role="MASH_DECISION_MAKER")
STEWARD = DemoPerson(id="p-steward", name="Sample Steward", role="DATA_STEWARD")
SOCIAL_WORKER = DemoPerson(id="p-social-worker", name="Sample Social Worker", role="SOCIAL_WORKER")
NOBODY_LISTENS = "http://127.0.0.1:9"


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **by: float) -> None:
        self.at += timedelta(**by)


def some_settings(**changes: Any) -> GatewaySettings:
    values: dict[str, Any] = {
        "environment": "demo",
        "broker_url": NOBODY_LISTENS,
        "organisation": "Northshire Council",
        "service": "Northshire gateway",
        "desk": Desk(name="the safeguarding desk", phone="01632 960 104"),
        "people": (ANALYST, MANAGER, STEWARD, SOCIAL_WORKER),
        "organisations": {
            "northshire-council": "Northshire Council",
            "northshire-police": "Northshire Police",
            "northshire-icb": "Northshire ICB",
        },
        "allowed_hosts": ("127.0.0.1", "localhost", "testserver"),
    }
    return GatewaySettings(**(values | changes))


def a_home(folder: Path) -> Home:
    (folder / "keys").mkdir(parents=True)
    (folder / "agency.toml").write_text(
        'agency = "northshire-council"\npartnership = "northshire"\nkey_epoch = "2026-1"\n'
    )
    write_secret(folder / "keys" / "link.key", secrets.token_hex(32).encode())
    write_secret(folder / "keys" / "record.key", secrets.token_hex(32).encode())
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_secret(folder / "keys" / "client.pem", pem)
    return Home(folder)


@dataclass
class Running:
    """A gateway under test, its store and its clock."""

    app: FastAPI
    store: GatewayStore
    clock: Clock
    home: Home
    clients: list[TestClient] = field(default_factory=list)

    def client(self, person: DemoPerson | None = None) -> TestClient:
        """A browser of its own, signed in as `person`."""
        client = TestClient(self.app, base_url="https://testserver", follow_redirects=False)
        client.headers["Origin"] = "https://testserver"
        if person is not None:
            assert client.post("/sign-in", data={"person": person.id}).status_code == 303
        self.clients.append(client)
        return client


def a_gateway(folder: Path, *, now: Callable[[], datetime] | None = None, **changes: Any) -> Running:
    clock = now if isinstance(now, Clock) else Clock()
    home = a_home(folder / "home")
    settings = some_settings(**changes)
    store = GatewayStore(folder / "gateway.sqlite", secrets.token_bytes(32))
    broker = BrokerClient(
        settings.broker_url,
        agency=home.agency,
        key=ECKey.import_key((home.folder / "keys" / "client.pem").read_bytes()),
        kid="northshire-council/client-1",
        token=lambda: "not-a-token",
        now=clock,
    )
    app = create_gateway(settings, store=store, encoder=SearchEncoder(home), broker=broker, now=clock)
    return Running(app, store, clock, home)


def csrf_of(html: str) -> str:
    return html.split('name="csrf" value="', 1)[1].split('"', 1)[0]


ROBIN = TypedPerson(
    given_name="Robin", family_name="Samplewick", day="7", month="3", year="2017", nhs_number="943 476 5919"
)


def something_typed(**changes: Any) -> Typed:
    typed = Typed(
        child=ROBIN,
        case_reference="SAMPLE-0412",
        purpose="MASH_SCREEN",
        told="no",
        reason_not_told="no_risk_of_harm",
        acknowledged=True,
    )
    return replace(typed, **changes)


def as_form(typed: Typed, **changes: str) -> dict[str, str]:
    """What a browser would send for it."""
    fields = {
        "people": str(len(typed.household)),
        "case_reference": typed.case_reference,
        "purpose": typed.purpose,
        "told": typed.told,
        "reason_not_told": typed.reason_not_told,
        "action": "search",
    }
    if typed.acknowledged:
        fields["acknowledged"] = "yes"
    people = {"child": typed.child} | {f"person-{index}": one for index, one in enumerate(typed.household)}
    for prefix, person in people.items():
        for name in (
            "given_name", "family_name", "day", "month", "year", "precision", "sex", "postcode", "nhs_number", "upn",
            "uln", "pnc_id", "cro", "relation",
        ):  # fmt: skip
            fields[f"{prefix}-{name}"] = getattr(person, name)
        if person.same_address:
            fields[f"{prefix}-same_address"] = "yes"
    return fields | changes


DESK = {"name": "Assessment Team 2", "phone": "01632 960 104", "out_of_hours": "01632 960 199"}
HEALTH_DESK = {"name": "the health safeguarding desk", "phone": "01632 960 140", "out_of_hours": None}
POLICE_DESK = {"name": "the police safeguarding desk", "phone": "01632 960 150", "out_of_hours": None}
SCHOOL_DESK = {"name": "the school safeguarding desk", "phone": "01632 960 120", "out_of_hours": None}
FRESH = "2026-11-21T02:00:00Z"
LATE = "2026-11-18T02:00:00Z"
BANNER = "Some records are protected and never shown; their protecting agency is told of searches."
RECEIPT = {
    "event_id": "0192f0c1d2e3f4a5b6c7d8e9f0a1b2c3",
    "log": {"origin": "127.0.0.1:8400/audit/2026", "size": 4711},
    "opening": {"what": {"op": "disclosure"}},
    "proof": "c2sp.org/tlog-proof@v1\n",
    "decisions": [],
}
UNDER = [
    {
        "agreement": "northshire-mash@3.0.0",
        "clause": "screen-index",
        "text": "4.1 To screen a contact, every party shows the hub which of its services know the child.",
    }
]


def a_category(category: str, label: str, **changes: Any) -> dict[str, Any]:
    return {
        "category": category,
        "label": label,
        "mode": "status",
        "last_active": "2026-06",
        "status": None,
        "items": [],
        "may_ask_holder": False,
        "unconfirmed": False,
        "under": UNDER,
    } | changes


def a_tile(organisation: str, flow: str, *categories: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "organisation": organisation,
        "flow": flow,
        "state": "CURRENT",
        "as_of": FRESH,
        "contact": DESK,
        "categories": list(categories),
    } | changes


def an_event(on: str, label: str, **changes: Any) -> dict[str, Any]:
    return {
        "date": on,
        "organisation": "northshire-council",
        "category": "social_care.contact",
        "label": label,
        "code": None,
        "role": None,
        "opinion": False,
        "recorded_on": on,
        "about": "subject_child",
    } | changes


def a_view(**changes: Any) -> dict[str, Any]:
    """A child with an open plan, seen for screening."""
    return {
        "view": "5f0c",
        "at": "2026-11-21T10:27:00Z",
        "ends_at": "2026-11-21T11:27:00Z",
        "purpose": "MASH_SCREEN",
        "threshold": None,
        "person": {
            "birth_year": 2017,
            "sex": "M",
            "band": "match",
            "agreed": ["nhs_number", "date_of_birth"],
            "differs": ["postcode"],
        },
        "first_call": {
            "kind": "already_open",
            "organisation": "northshire-council",
            "sector": "social_care",
            "since": "2026-06-12",
            "contact": DESK,
            "sentence": "",
        },
        "tiles": [
            a_tile(
                "northshire-council",
                "social_care",
                a_category(
                    "social_care.child_protection",
                    "Child protection",
                    status={"code": "plan_now", "label": "Plan now"},
                ),
                a_category("social_care.allocated_worker", "Allocated worker or team"),
            ),
            a_tile(
                "northshire-council",
                "education",
                a_category(
                    "education.attendance",
                    "Attendance",
                    status={"code": "persistent", "label": "Persistent absence"},
                ),
                contact=SCHOOL_DESK,
            ),
            a_tile(
                "northshire-police",
                "police",
                a_category("police.missing_episode", "Missing episodes", mode="existence"),
                state="STALE",
                as_of=LATE,
                contact=POLICE_DESK,
            ),
        ],
        "others": [
            {
                "organisation": "northshire-icb",
                "flow": "health",
                "state": "CURRENT",
                "as_of": FRESH,
                "contact": HEALTH_DESK,
                "sentence": "Nothing to show. This does not mean that nothing is known.",
            },
            {
                "organisation": "northshire-council",
                "flow": "housing",
                "state": "NOT_CONNECTED",
                "as_of": None,
                "contact": DESK,
                "sentence": "Northshire Council does not send information to this service.",
            },
        ],
        "family": [
            {"relation": "birth_parent", "birth_year": 1989, "person_role": "parent", "known_to": 2,
             "sources": ["northshire-council", "northshire-icb"], "verified": True, "from": None, "to": None},
            {"relation": "step_parent", "birth_year": 1985, "person_role": "parent", "known_to": 1,
             "sources": ["northshire-council"], "verified": False, "from": "2022-05-01", "to": "2025-09-30"},
            {"relation": "sibling", "birth_year": 2019, "person_role": "child", "known_to": 2,
             "sources": ["northshire-council"], "verified": True, "from": None, "to": None},
            {"relation": "sibling", "birth_year": 2021, "person_role": "child", "known_to": 1,
             "sources": ["northshire-icb"], "verified": False, "from": None, "to": None},
        ],
        "chronology": [
            an_event("2026-06-12", "Child protection plan started: neglect", category="social_care.child_protection"),
            an_event("2026-05-30", "Section 47 enquiry", role="subject", recorded_on="2026-06-01"),
            an_event("2026-05-02", "Referral from a school", opinion=True),
            an_event("2025-03-14", "Absent for a fifth of the half-term", category="education.attendance"),
        ],
        "withheld": [
            {"organisation": "northshire-police", "category": "police.domestic_abuse", "code": "THRESHOLD_NOT_MET",
             "sentence": "Needs level 4, decided by a decision-maker. Ask them to decide.",
             "unlock": "Ask for a threshold decision"},
            {"organisation": "northshire-icb", "category": "health.registration", "code": "CATEGORY_NOT_IN_DSA",
             "sentence": "The agreement does not include this kind of information. You can ask Northshire ICB.",
             "unlock": None},
        ],
        "banner": BANNER,
        "receipt": RECEIPT,
    } | changes  # fmt: skip


def a_candidate(name: str, band: str = "match", **changes: Any) -> dict[str, Any]:
    return {
        "candidate": name,
        "band": band,
        "agreed": ["nhs_number", "date_of_birth"] if band == "match" else ["family_name", "date_of_birth"],
        "differs": ["postcode"],
        "birth_year": 2017,
        "organisations": ["northshire-council", "northshire-icb"],
    } | changes


def a_search_answer(*candidates: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "search": "s-1",
        "at": "2026-11-21T10:27:00Z",
        "candidates": list(candidates),
        "organisations": [
            {"organisation": "northshire-council", "flow": "social_care", "state": "CURRENT", "as_of": FRESH,
             "contact": DESK},
            {"organisation": "northshire-police", "flow": "police", "state": "STALE", "as_of": LATE,
             "contact": POLICE_DESK},
            {"organisation": "northshire-icb", "flow": "health", "state": "PAUSED", "as_of": LATE, "paused_since": LATE,
             "contact": HEALTH_DESK},
            {"organisation": "northshire-council", "flow": "housing", "state": "NOT_CONNECTED", "as_of": None,
             "contact": DESK},
        ],
        "refusals": [],
        "banner": BANNER,
        "receipt": RECEIPT,
    } | changes  # fmt: skip


def a_contact(running: Running, **changes: Any) -> str:
    content = {
        "case": "c" * 64,
        "case_reference": "SAMPLE-0412",
        "purpose": "MASH_SCREEN",
        "birth_year": 2017,
        "opened": {},
        "asked": False,
        "threshold": None,
    }
    return running.store.put("contact", "*", content | changes, now=running.clock(), lasts=timedelta(hours=24))


def a_kept_search(running: Running, answer: dict[str, Any], person: DemoPerson = ANALYST, contact: str = "") -> str:
    content = {"answer": answer, "typed": something_typed().as_json(), "contact": contact}
    return running.store.put("search", person.id, content, now=running.clock(), lasts=timedelta(minutes=60))


def a_kept_view(
    running: Running, view: dict[str, Any], person: DemoPerson = ANALYST, contact: str = "", typed: Typed | None = None
) -> str:
    content = {
        "view": view,
        "typed": (typed or something_typed()).as_json(),
        "contact": contact,
        "search": "s-1",
        "candidate": "c-1",
    }
    return running.store.put("view", person.id, content, now=running.clock(), lasts=timedelta(minutes=60))
