"""Names, numbers, places and keys that are planted: after a whole life of submitting, linking, asking, failing, reviewing
and exporting, not a byte of them is on the broker's disk, in either database, in a line it wrote, in an address it was
called by, in a header or figure, nor, but for keys given to their owners, in an answer."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import structlog
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fastapi.testclient import TestClient
from prometheus_client import generate_latest
from sqlalchemy import make_url, text
from starlette.types import Message, Receive, Scope, Send

from broker import deciding
from broker.log_lines import configure_logging
from broker.store import Store, migrate
from linkage.agency import client as agency_client
from linkage.agency import clock as agency_clock
from linkage.agency.gateway.broker_client import BrokerRefused, BrokerUnavailable
from tests.broker.test_silence import OnPostgres, break_for_police
from tests.builders import COUNCIL, ICB
from tests.builders_area import ANALYST, BASE_URL, FLOWS, MORNING, Area, Extract, Someone, nhs_number, the_time
from tests.builders_families import ROBIN, a_linked_area, extracts
from tests.canaries import found, needles_of, spellings
from tests.faults.test_release import Probe, Site
from tests.postgres import Server, a_database

CHILD: Final = Someone(
    id="canary-local-8817", given="Quixotina", family="Canaryfeather", born="2014-02-17", postcode="NS77 7QQ",
    uprn="100077788899", nhs=nhs_number(7711),
)  # fmt: skip
MOTHER: Final = Someone(
    id="canary-local-8818", given="Zephyrianne", family="Canaryfeather", born="1986-11-23", postcode="NS77 7QQ",
    uprn="100077788899", nhs=nhs_number(7712), role="parent",
)  # fmt: skip
TYPED: Final = Someone(
    id="-", given="Oberonda", family="Mistlethwaite", born="2015-09-13", postcode="NS78 8RR", nhs=nhs_number(7713)
)
CASE: Final = "CANARY-CASE-4471"
SLIPPED: Final = "Perseverancia"  # what somebody sends where no name belongs
CLEAR: Final = (
    *(value for one in (CHILD, MOTHER, TYPED) for value in (one.given, one.family, one.nhs, one.postcode, one.born)),
    CHILD.id, MOTHER.id, CHILD.uprn, CASE, SLIPPED,
)  # fmt: skip
ADDRESSES: Final = "addresses it was called by"
LINES: Final = "lines it wrote"
HEADERS: Final = "headers of its answers"
BODIES: Final = "answers"
FIGURES: Final = "figures"
AN_AGENCYS: Final = "an agency's key or token"
THE_BROKERS: Final = "a key of the broker's"


@dataclass
class Heard(Probe):
    """A probe that keeps each address and all that was answered, for the whole of its life."""

    addresses: list[bytes] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    slipping: bool = False  # whether whoever calls just now is one who writes names into addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def kept(message: Message) -> None:
            for name, value in message.get("headers", ()):
                self.headers.append(name + b": " + value)
            self.bodies.append(message.get("body", b""))
            await send(message)

        if scope["type"] == "http" and not self.slipping:
            self.addresses.append(scope["path"].encode() + b"?" + scope["query_string"])
        await super().__call__(scope, receive, kept)


@dataclass
class Life:
    """A broker that has lived, and everything of it that bytes can be in."""

    site: Site
    heard: Heard
    database: Path  # a folder or a file's stem
    lines: str
    memory: Path

    def on_disk(self) -> dict[str, bytes]:
        """Every file of the broker's: database with its journal, vault, spool, signer, and what was temporary."""
        folder = self.site.area.folder
        mine = [
            path
            for root in (folder, self.database.parent, self.memory)
            for path in root.rglob("*")
            if not path.is_relative_to(folder)
            or path.relative_to(folder).parts[0] not in ("homes", "extracts", "link.key")
        ]
        return {str(path): path.read_bytes() for path in set(mine) if path.is_file() and not path.is_socket()}

    def elsewhere(self) -> dict[str, bytes]:
        figures = generate_latest(self.site.area.http.app.state.registry)  # type: ignore[attr-defined]
        return {
            LINES: self.lines.encode(), ADDRESSES: b"\n".join(self.heard.addresses),
            HEADERS: b"\n".join(self.heard.headers), FIGURES: figures,
        }  # fmt: skip

    def secrets(self) -> list[bytes]:
        """Keys of agencies, and tokens that were given out."""
        keys: list[bytes] = []
        for path in (path for agency in FLOWS for path in (self.site.area.home(agency).folder / "keys").iterdir()):
            content = path.read_bytes().strip()
            if path.suffix == ".key":
                keys += [content, bytes.fromhex(content.decode())]
            elif b"PRIVATE" in content:
                key: Any = load_pem_private_key(content, None)
                raw = (
                    key.private_numbers().private_value.to_bytes(32, "big")
                    if hasattr(key, "curve")
                    else key.private_bytes_raw()
                )
                keys += [raw, content.splitlines()[1]]
        tokens = [json.loads(body)["access_token"].encode() for body in self.heard.bodies if b'"access_token"' in body]
        assert len(keys) > 10
        assert tokens
        return [*keys, *(token.rpartition(b".")[2] for token in tokens)]

    def keys_of_the_broker(self) -> list[bytes]:
        held = [path.read_bytes().strip() for path in (self.site.area.settings.data_dir / "keys").iterdir()]
        return [one for one in held if one and not one.startswith(b"{") and len(one) >= 32]


def a_second_night() -> dict[tuple[str, str], Extract]:
    """What two organisations hold once the planted family has come."""
    tonight = extracts()
    education, health, care = (
        tonight[at] for at in ((COUNCIL, "education"), (ICB, "health"), (COUNCIL, "social_care"))
    )
    education.knows(CHILD, nhs_number=CHILD.nhs)
    education.item(CHILD, "education.attendance", "PERSISTENT", "2026-10-23", number="84.5")
    health.knows(CHILD, MOTHER)
    health.item(CHILD, "health.registration", "TRACED_REGISTERED", "2020-01-06", outcome_code="Y01234")
    care.knows(CHILD, MOTHER, uprn="")
    care.tie(MOTHER, "birth_parent", CHILD)
    return {(COUNCIL, "education"): education, (ICB, "health"): health, (COUNCIL, "social_care"): care}


def lived_through(site: Site, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second night, searches, views, every route of the API and of the pages, and what goes wrong."""
    area = site.area
    for agency in (COUNCIL, ICB):
        caller = agency_client.Broker(area.home(agency), now=agency_clock.now, http=area.http, sleep=lambda _: None)
        for batch in agency_client.receipts(area.home(agency)):
            agency_client.settle(area.home(agency), caller, batch)
    area.push(a_second_night())
    assert area.link()["state"] == "published"
    site.prepare()
    analyst = area.asker(ANALYST)
    household = [MOTHER.typed(relation="birth_parent"), TYPED.typed(relation="sibling")]
    view = analyst.open(analyst.search(CHILD.typed(), case=CASE, household=household))
    assert {tile["organisation"] for tile in view["tiles"]} >= {COUNCIL, ICB}
    assert analyst.search(TYPED.typed(), case=f"{CASE}-2")["candidates"] == []
    for name, ask in site.questions().items():
        assert ask().status_code in (200, 201, 303), name

    body = analyst.body(CHILD.typed(), case=CASE)
    analyst.ask({**body, "purpose": SLIPPED})
    for wrong in ({SLIPPED: 1}, {"case": CASE}, {"subject": {"given_name": CHILD.given}}):
        with pytest.raises(BrokerRefused):
            analyst.ask({**body, **wrong})
    heard.slipping = True
    for path in (
        f"/v1/flows/{SLIPPED}",
        f"/{CHILD.nhs}?name={SLIPPED}",
        f"/log/{CASE}",
        f"/audit/events/{SLIPPED}/proof",
    ):
        area.http.get(path, headers={"X-Request-ID": SLIPPED, "User-Agent": CHILD.nhs})
    area.http.post("/v1/searches", content=f'{{"{SLIPPED}'.encode(), headers={"Content-Type": "application/json"})
    area.http.post("/oauth2/token", data={"grant_type": SLIPPED, "client_assertion": f"{SLIPPED}.{CASE}.x"})
    area.http.post("/sign-in", data={"person": SLIPPED, "csrf": CASE}, headers={"Cookie": f"x={SLIPPED}"})
    heard.slipping = False
    with monkeypatch.context() as broken:  # a rule fails, and its fault's words quote somebody
        broken.setattr(deciding, "decide", break_for_police(deciding.decide))
        with pytest.raises(BrokerUnavailable):
            analyst.search(ROBIN.typed(), case=f"{CASE}-3")
    with monkeypatch.context() as broken:

        def faulty(*_: Any) -> Any:
            raise RuntimeError(f"{CHILD.given} {CHILD.family} {CHILD.nhs}")

        broken.setattr(area.broker.store, "reading", faulty)
        assert area.http.get("/transparency").status_code == 500
    area.size()


@contextmanager
def a_life(area: Area, capfd: pytest.CaptureFixture[str], tmp_path: Path, database: Path) -> Iterator[Life]:
    """Lives it, with logging as a program of the broker's has it and a folder of its own for what is temporary."""
    memory = tmp_path / "memory"
    memory.mkdir()
    before, handlers = structlog.get_config(), list(logging.getLogger().handlers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(memory))
        site = Site.of(area)
        heard = Heard(site.probe.app)
        site.probe = heard
        client = TestClient(heard, base_url=BASE_URL, raise_server_exceptions=False)
        client.app = site.probe.app
        area.__dict__["http"] = client
        configure_logging()
        capfd.readouterr()
        try:
            lived_through(site, heard, patch)
        finally:
            structlog.configure(**before)
            logging.getLogger().handlers[:] = handlers
        said = capfd.readouterr()
        yield Life(site, heard, database, said.out + said.err, memory)
        area.close()


@pytest.fixture
def of_sqlite(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Life]:
    with the_time(MORNING):
        area = a_linked_area(tmp_path / "northshire")
        with a_life(area, capfd, tmp_path, area.folder / "broker.sqlite") as life:
            yield life


def go_on_counting(server: Server, database: str) -> None:
    """Numbers that the tables give out begin after those that were copied into them."""
    asked = (
        "SELECT format('SELECT setval(%L, coalesce(max(%I), 0) + 1) FROM %I', pg_get_serial_sequence(table_name, column_name), "
        "column_name, table_name) FROM information_schema.columns WHERE table_schema = 'public' "
        "AND pg_get_serial_sequence(quote_ident(table_name), column_name) IS NOT NULL"
    )
    with psycopg.connect(server.address, dbname=database, autocommit=True) as connection:
        for (statement,) in connection.execute(asked).fetchall():
            connection.execute(statement)


@pytest.fixture
def of_postgresql(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Life]:
    """On a server that writes down every statement with its parameters, and each fault with what it quotes."""
    server = Server()
    with the_time(MORNING), ExitStack() as stack:
        stack.callback(server.remove)
        server.start()
        for setting in (
            "logging_collector = on",
            "log_statement = 'all'",
            "log_error_verbosity = 'verbose'",
            "wal_recycle = off",
        ):
            server.tell(f"ALTER SYSTEM SET {setting}")
        server.crash()
        server.start()
        url = stack.enter_context(a_database(server.address))
        store = Store(url)
        migrate.upgrade(store)
        store.close()
        was = a_linked_area(tmp_path / "northshire")
        area = OnPostgres.of(was, url)
        was.close()
        go_on_counting(server, make_url(url).database or "")
        for file in area.folder.glob("broker.sqlite*"):
            file.unlink()
        data = server.folder / "data"
        with a_life(area, capfd, tmp_path, data / "base") as life:
            server.tell("CHECKPOINT")
            yield life


def looked_through(life: Life) -> None:
    """Nobody's name, number, place or case is anywhere, and no key or token but where its owner keeps it."""
    disk, elsewhere = life.on_disk(), life.elsewhere()
    assert sum(map(len, disk.values())) > 2_000_000
    assert '"unhandled fault"' in life.lines
    assert len(life.heard.addresses) > 80
    held = disk | elsewhere | {BODIES: b"\n".join(life.heard.bodies)}
    needles = needles_of(CLEAR)
    needles |= dict.fromkeys(needles_of((), life.secrets()), AN_AGENCYS)
    needles |= dict.fromkeys(needles_of((), life.keys_of_the_broker()), THE_BROKERS)
    keys = str(life.site.area.settings.data_dir / "keys")
    may = {(BODIES, AN_AGENCYS)} | {(place, THE_BROKERS) for place in disk if place.startswith(keys)}
    assert may & set(there := found(needles, held))  # the search finds what is there
    assert [one for one in there if one not in may] == []


def test_nothing_planted_is_found_in_anything_of_a_broker_on_sqlite(of_sqlite: Life) -> None:
    life = of_sqlite
    assert any(place.endswith(".sqlite-wal") for place in life.on_disk())
    looked_through(life)

    # the same search finds what is there: in an agency's own extracts, and planted in each place
    folder = life.site.area.folder
    theirs = {str(path): path.read_bytes() for path in (folder / "extracts").rglob("*.csv")}
    assert {canary for _, canary in found(needles_of(CLEAR), theirs)} >= {
        CHILD.given,
        MOTHER.nhs,
        CHILD.postcode,
        CHILD.id,
    }
    needle = needles_of([CHILD.nhs])
    assert [
        way for way in spellings(CHILD.nhs) if found(needle, {"": b"\x00" + way + b"\x01"}) != [("", CHILD.nhs)]
    ] == []
    spooled = life.site.area.settings.data_dir / "spool" / "planted"
    spooled.write_bytes(b"x" + base64.b64encode(CHILD.nhs.encode()))
    assert found(needle, life.on_disk()) == [(str(spooled), CHILD.nhs)]
    spooled.unlink()
    with life.site.area.broker.store.transaction() as tx:  # which the journal of the database alone has by now
        tx.connection.execute(text("UPDATE agency SET name = :name"), {"name": CHILD.nhs.encode().hex()})
    assert [Path(place).name for place, _ in found(needle, life.on_disk())] == ["broker.sqlite-wal"]
    life.lines += json.dumps({"event": "batch decided", "reason": base64.b64encode(CHILD.nhs.encode()).decode()})
    life.heard.headers.append(b"location: /log/" + CHILD.nhs.encode())
    life.heard.addresses.append(b"/log?nhs=" + CHILD.nhs.encode())
    assert {place for place, _ in found(needle, life.elsewhere())} == {LINES, HEADERS, ADDRESSES}


@pytest.mark.postgres
def test_nothing_planted_is_found_in_anything_of_a_broker_on_postgresql(of_postgresql: Life) -> None:
    life = of_postgresql
    logs = life.database.parent / "log"
    assert sum(path.read_bytes().count(b"INSERT INTO") for path in logs.iterdir()) > 50  # each with what was written
    looked_through(life)

    with life.site.area.broker.store.transaction() as tx:
        tx.connection.execute(text("UPDATE agency SET name = :name"), {"name": CHILD.nhs})
    data = life.database.parent
    for folder in ("log", "pg_wal"):
        files = {str(path): path.read_bytes() for path in (data / folder).iterdir() if path.is_file()}
        assert found(needles_of([CHILD.nhs]), files), folder


@pytest.mark.parametrize("program", ["broker.cli", "linkage.agency.cli"])
def test_a_program_that_holds_keys_or_names_leaves_no_core_file(program: str) -> None:
    asks = (
        f"import resource, sys; from {program} import main\nsys.argv = ['x', '--help']\n"
        "try: main()\nexcept SystemExit: print(resource.getrlimit(resource.RLIMIT_CORE))"
    )
    soft = (
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", soft + asks], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "(0, 0)"
