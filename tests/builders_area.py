"""A whole partnership in one process: made-up families in three organisations' extracts, encoded, pushed, linked, asked.

Every step is the product's own: homes by keygen, batches by the encoder and the client, agreements signed by each
party's key, the night's run, and a gateway's encoder and client against the real application.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fastapi.testclient import TestClient
from pydantic import SecretStr

from agreements import read, sign, sign_event
from broker import activation, agencies, nightly, register
from broker import clock as broker_clock
from broker.app import create_app
from broker.keys import Keys
from broker.settings import Settings
from broker.wiring import Broker, open_installation
from linkage.agency import client
from linkage.agency import clock as agency_clock
from linkage.agency.batch import encode_extract
from linkage.agency.codes import load as load_codes
from linkage.agency.gateway.answers import FamilyView
from linkage.agency.gateway.broker_client import Actor, BrokerClient
from linkage.agency.gateway.encoder import SearchEncoder
from linkage.agency.gateway.typed import Typed, TypedPerson
from linkage.agency.keygen import make_home
from linkage.agency.keys import write_secret
from linkage.agency.settings import Home
from tests.builders import COUNCIL, EPOCH, ICB, PARTNERSHIP, POLICE

BASE_URL: Final = "http://127.0.0.1:8400"
AGREEMENTS: Final = Path(__file__).parents[1] / "deploy" / "demo" / "agreements"
DOCUMENTS: Final = ("northshire-tier1", "northshire-mash", "northshire-early-help", "northshire-planning")
NIGHT: Final = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
MORNING: Final = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
AFTER_EXPIRY: Final = datetime(2028, 4, 3, 9, 0, tzinfo=UTC)
OPERATOR: Final = {"organisation": PARTNERSHIP, "role": "OPERATOR", "method": "command"}
ANALYST: Final = "MASH_ANALYST"
DECIDER: Final = "MASH_DECISION_MAKER"
SECTOR: Final = {COUNCIL: "council", ICB: "health", POLICE: "police"}
FLOWS: Final[Mapping[str, tuple[str, ...]]] = {
    COUNCIL: ("education", "social_care", "early_help", "housing"),
    ICB: ("health",),
    POLICE: ("police",),
}
CONTACTS: Final[Mapping[str, Mapping[str, Any]]] = {
    COUNCIL: {
        "duty": {"name": "Children's Services duty", "phone": "01632 960104", "out_of_hours": "01632 960199"},
        "assessment": {"name": "Assessment Team 2", "phone": "01632 960105"},
        "school-lead": {"name": "Hilltop School lead", "phone": "01632 960120"},
    },
    ICB: {"desk": {"name": "Health safeguarding desk", "phone": "01632 960201"}},
    POLICE: {"desk": {"name": "Public protection desk", "phone": "01632 960301"}},
}
_PERSON: Final = (
    "local_id", "person_role", "given_name", "family_name", "date_of_birth", "sex", "postcode", "uprn", "nhs_number",
    "shield", "sever_ref",
)  # fmt: skip
_ITEM: Final = (
    "local_id", "code_system", "code", "number", "occurred_on", "recorded_on", "ended_on", "role", "regime",
    "outcome_code", "contact",
)  # fmt: skip

Row = Mapping[str, str]


def nhs_number(number: int) -> str:
    """A number of the range kept for tests, with its check digit; no two `number`s give the same."""
    while True:
        digits = f"9990{number:05d}"
        check = 11 - sum(int(digit) * weight for digit, weight in zip(digits, range(10, 1, -1), strict=True)) % 11
        if check != 10:
            return f"{digits}{check % 11}"
        number += 50_000


@dataclass(frozen=True, kw_only=True)
class Someone:
    """A made-up person, as they are; each record of theirs may differ."""

    id: str
    given: str
    family: str
    born: str
    sex: str = "F"
    postcode: str = "NS1 1AA"
    uprn: str = ""
    nhs: str = ""
    role: str = "child"

    def row(self, **changes: str) -> dict[str, str]:
        """Their row in an extract."""
        known = {
            "local_id": self.id, "person_role": self.role, "given_name": self.given, "family_name": self.family,
            "date_of_birth": self.born, "sex": self.sex, "postcode": self.postcode, "uprn": self.uprn,
            "nhs_number": self.nhs, "shield": "none", "sever_ref": "",
        }  # fmt: skip
        return {**known, **changes}

    def typed(self, **changes: Any) -> TypedPerson:
        """As an analyst types them."""
        year, month, day = self.born.split("-")
        known = {
            "given_name": self.given, "family_name": self.family, "day": day, "month": month, "year": year,
            "postcode": self.postcode, "sex": self.sex, "nhs_number": self.nhs,
        }  # fmt: skip
        return TypedPerson(**{**known, **changes})


@dataclass
class Extract:
    """What one flow holds tonight."""

    people: list[Row] = field(default_factory=list)
    ties: list[tuple[str, str, str]] = field(default_factory=list)  # a is the <type> of b
    items: dict[str, list[Row]] = field(default_factory=dict)

    def knows(self, *people: Someone, **changes: str) -> Extract:
        self.people += [one.row(**changes) for one in people]
        return self

    def tie(self, one: Someone, type_: str, other: Someone) -> Extract:
        self.ties.append((one.id, other.id, type_))
        return self

    def item(self, about: Someone, category: str, code: str, on: str, **more: str) -> Extract:
        row = {"local_id": about.id, "code": code, "occurred_on": on, "recorded_on": on, **more}
        self.items.setdefault(category, []).append(row)
        return self

    def write(self, folder: Path, agency: str, flow: str) -> Path:
        """The extract's files and its mapping; the mapping's path."""
        folder.mkdir(parents=True)
        _csv(folder / "people.csv", _PERSON, self.people)
        _csv(
            folder / "ties.csv", ("a", "b", "type"),
            [{"a": one, "b": other, "type": type_} for one, other, type_ in self.ties],
        )  # fmt: skip
        columns = ", ".join(f'{name} = "{name}"' for name in _PERSON)
        lines = [
            f'agency = "{agency}"', f'flow = "{flow}"', 'agreements = ["northshire-mash@3.0.0"]',
            "[persons]", 'file = "people.csv"', f"columns = {{{columns}}}",
            "[relationships]", 'file = "ties.csv"', "may_be_empty = true",
            'columns = {local_id_a = "a", local_id_b = "b", type = "type"}',
        ]  # fmt: skip
        for category, rows in self.items.items():
            given = [name for name in _ITEM if any(row.get(name) for row in rows)]
            _csv(folder / f"{category}.csv", given, rows)
            columns = ", ".join(f'{name} = "{name}"' for name in given)
            lines += [f'[items."{category}"]', f'file = "{category}.csv"', f"columns = {{{columns}}}"]
        mapping = folder / "mapping.toml"
        mapping.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return mapping


Extracts = Mapping[tuple[str, str], Extract]


@contextmanager
def the_time(start: datetime) -> Iterator[Clock]:
    """Both programs' clocks go on from `start`."""
    clock = Clock(start - datetime.now(UTC))  # noqa: TID251 - a test's clock starts somewhere
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker_clock, "now", clock.now)
        patch.setattr(agency_clock, "now", clock.now)
        yield clock


@dataclass
class Clock:
    """A clock that can be put on."""

    ahead: timedelta

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead  # noqa: TID251 - as above

    def put(self, at: datetime) -> None:
        self.ahead = at - datetime.now(UTC)  # noqa: TID251 - as above


@dataclass
class Area:
    """A partnership on disk, and its broker in this process."""

    folder: Path

    @cached_property
    def settings(self) -> Settings:
        return Settings(
            environment="demo", partnership=PARTNERSHIP, base_url=BASE_URL, data_dir=self.folder / "data",
            database_url=SecretStr(f"sqlite:///{self.folder}/broker.sqlite"), linger_ms=0, pace_ms=0,
        )  # fmt: skip

    @cached_property
    def http(self) -> TestClient:
        return TestClient(create_app(self.settings), base_url=BASE_URL, raise_server_exceptions=False)

    @property
    def broker(self) -> Broker:
        found: Broker = self.http.app.state.broker  # type: ignore[attr-defined]
        return found

    def home(self, agency: str) -> Home:
        return Home(self.folder / "homes" / agency)

    def copied(self, to: Path) -> Area:
        """Another broker that starts from this one's state."""
        self.broker.trail.advance_pending()
        shutil.copytree(self.folder, to)
        return Area(to)

    def close(self) -> None:
        self.broker.store.close()

    def size(self) -> int:
        """How many leaves the log has, all that waits included."""
        return self.broker.trail.advance_pending()

    # Setting up ------------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Homes, the broker's keys and tables, every agency enrolled, the demonstration's agreements in force."""
        link_key = self.folder / "link.key"  # a fixed one: how close two names look depends a little on the key
        write_secret(link_key, bytes(range(32)).hex().encode())
        for agency in FLOWS:
            make_home(
                self.folder / "homes" / agency, agency=agency, partnership=PARTNERSHIP, epoch=EPOCH, link_key=link_key,
                broker=BASE_URL,
            )  # fmt: skip
        Keys.make(self.settings.data_dir / "keys")
        open_installation(self.settings)
        for agency in FLOWS:
            self.enrol(agency)
        self.sign_agreements()

    def enrol(self, agency: str) -> None:
        contacts = CONTACTS[agency]
        details = {
            "name": agency.replace("-", " ").title(), "party_type": "local_authority", "sector": SECTOR[agency],
            "roles": [ANALYST, DECIDER, "SERVICE_PLANNER", "AGENCY_REP", "DSL"], "contacts": contacts,
            "flows": {flow: {"expected_by": "06:00", "contact": next(iter(contacts))} for flow in FLOWS[agency]},
        }  # fmt: skip
        enrolment = agencies.Enrolment.parse(dict(self.home(agency).public), details)
        broker = self.broker
        agencies.enrol(
            broker.store, broker.trail, enrolment, partnership=PARTNERSHIP, who=OPERATOR, at=broker_clock.now()
        )

    def sign_agreements(self) -> None:
        broker, at = self.broker, broker_clock.now().replace(microsecond=0)
        umbrella = read((AGREEMENTS / "northshire-tier1.toml").read_bytes())
        for name in DOCUMENTS:
            source = (AGREEMENTS / f"{name}.toml").read_bytes()
            ref = register.import_document(broker.store, broker.trail, source, who=OPERATOR, at=at)
            document = umbrella if name == DOCUMENTS[0] else read(source, umbrellas=[umbrella])
            for party in FLOWS:
                if party in document.parties:
                    jws = sign(document, kid=f"{party}/signatory-1", key=self.signatory(party), at=at)
                    register.add_signatures(broker.store, broker.trail, ref, jws, who=OPERATOR, at=at)
            activation.activate(broker.store, broker.trail, ref, who=OPERATOR, at=at)

    def signatory(self, party: str) -> Any:
        return load_pem_private_key((self.home(party).folder / "keys" / "signatory.pem").read_bytes(), None)

    def suspend(self, party: str, name: str = "northshire-mash") -> None:
        """A party suspends its own disclosures under an agreement."""
        broker, at = self.broker, broker_clock.now().replace(microsecond=0)
        umbrella = read((AGREEMENTS / "northshire-tier1.toml").read_bytes())
        document = read((AGREEMENTS / f"{name}.toml").read_bytes(), umbrellas=[umbrella])
        jws = sign_event(document, "suspend", kid=f"{party}/signatory-1", key=self.signatory(party), at=at)
        register.add_party_event(broker.store, broker.trail, document.ref, jws, who=OPERATOR, at=at)

    def push(self, extracts: Extracts, *, at: Mapping[tuple[str, str], datetime] | None = None) -> None:
        """Encode each flow's extract of tonight and hand it in; the night's run decides on it."""
        for (agency, flow), extract in extracts.items():
            home = self.home(agency)
            number = int(home.state(flow)["sequence"]) + 1
            place = self.folder / "extracts" / agency / f"{flow}-{number}"
            now = (at or {}).get((agency, flow)) or broker_clock.now()
            mapping = extract.write(place, agency, flow)
            made = encode_extract(mapping, home, place / "batch", codes=load_codes(), now=now)
            caller = client.Broker(home, now=agency_clock.now, http=self.http, sleep=lambda _: None)
            client.submit(made.folder, home, caller)

    def link(self) -> dict[str, Any]:
        """The night's run."""
        at = broker_clock.now()
        return nightly.run(self.broker, night=at.date(), at=at)

    # Asking ----------------------------------------------------------------------------------------------------------

    def asker(self, role: str = ANALYST, *, agency: str = COUNCIL, person: str = "") -> Asker:
        """Someone at an organisation's gateway."""
        home = self.home(agency)
        broker = BrokerClient(
            BASE_URL, agency=agency, key=client.client_jwk(home), kid=home.client_kid,
            token=client.Tokens(home, self.http, now=agency_clock.now, broker=BASE_URL), now=agency_clock.now,
            http=self.http,
        )  # fmt: skip
        return Asker(SearchEncoder(home), broker, Actor(person=person or f"p-{role.lower()}", role=role, sid="s-1"))


@dataclass(frozen=True)
class Asker:
    """A person at a gateway, who types and reads."""

    encoder: SearchEncoder
    broker: BrokerClient
    actor: Actor

    def body(
        self,
        child: TypedPerson,
        *,
        case: str,
        purpose: str = "MASH_SCREEN",
        household: Sequence[TypedPerson] = (),
    ) -> dict[str, Any]:
        """What leaves the gateway for what was typed."""
        typed = Typed(
            child=child, household=tuple(household), case_reference=case, purpose=purpose, told="yes",
            acknowledged=True,
        )  # fmt: skip
        return self.encoder.search(typed, today=agency_clock.now().date())

    def search(self, child: TypedPerson, *, case: str, **more: Any) -> dict[str, Any]:
        """The broker's answer, as it came."""
        return self.broker.search(self.body(child, case=case, **more), self.actor)[1]

    def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The broker's answer to a body made elsewhere."""
        return self.broker.search(dict(body), self.actor)[1]

    def open(self, answer: Mapping[str, Any], n: int = 0) -> dict[str, Any]:
        """The family view of one of an answer's candidates, as it came; the gateway's own reading of it must work."""
        read_as, raw = self.broker.disclose(answer["search"], answer["candidates"][n]["candidate"], self.actor)
        assert isinstance(read_as, FamilyView)
        return raw

    def view(self, child: TypedPerson, *, case: str, **more: Any) -> dict[str, Any]:
        """Search, and open the only match."""
        answer = self.search(child, case=case, **more)
        assert bands(answer).count("match") == 1, (answer["candidates"], answer["refusals"])
        return self.open(answer)

    def threshold(
        self, answer: Mapping[str, Any], *, case: str, level: str = "L4", grounds: str = "significant_harm_likely"
    ) -> dict[str, Any]:
        """Record a level for the first candidate of an answer."""
        body = {
            "case": self.encoder.home.case_token(case), "search": answer["search"],
            "candidate": answer["candidates"][0]["candidate"], "level": level, "grounds": grounds,
        }  # fmt: skip
        return self.broker.set_threshold(body, self.actor)

    def break_glass(
        self, answer: Mapping[str, Any], *, reason: str = "MISSING_NOW", words: str = "Not home since noon"
    ) -> dict[str, Any]:
        """The first candidate's view under broken glass, as it came."""
        candidate = answer["candidates"][0]["candidate"]
        read_as, raw = self.broker.break_glass(answer["search"], candidate, reason, words, self.actor)
        assert isinstance(read_as, FamilyView)
        return raw

    def end_emergency(self, emergency: str) -> dict[str, Any]:
        """Say that it is over."""
        return self.broker.end_emergency(emergency, self.actor)


def bands(answer: Mapping[str, Any]) -> list[str]:
    """The band of each candidate; matches come first."""
    return [candidate["band"] for candidate in answer["candidates"]]


def shown(view: Mapping[str, Any], about: str = "subject_child") -> dict[str, Mapping[str, Any]]:
    """What a view's tiles show of the child, by category."""
    return {each["category"]: each for tile in view["tiles"] for each in tile["categories"] if each["about"] == about}


def _csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
