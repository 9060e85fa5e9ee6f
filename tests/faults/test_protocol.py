"""Replies lost, nights out of order, chunks mixed up, clocks that jump, midnight, a database that goes, floods: over HTTP.

What happens and when is drawn by `--seed`; `make test` tries a few of each, --long many.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from broker import clock, validation
from broker.settings import Settings
from broker.store.agencies import AgencyFlowRow
from broker.store.batches import BatchRow
from broker.store.items import ItemRow
from broker.store.log import EventRow
from broker.wiring import Broker
from linkage.agency.gateway.broker_client import BrokerRefused
from tests.broker.test_nightly import NAMES, a_night, ref
from tests.broker.test_parsing import peak_kb
from tests.builders import COUNCIL, Batch, a_ref, an_item
from tests.builders_area import Area, the_time
from tests.builders_broker import BASE, Caller, a_copy, an_installation, reception, serving
from tests.builders_families import ROBIN, a_linked_area
from tests.faults.points import Half, Lost, Points, some
from tests.faults.powered import FLOWS
from tests.faults.test_kill import Client, check_log
from tests.postgres import Server, a_database

pytestmark = pytest.mark.faults
LONG = "not config.getoption('--long')"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    an_installation(folder, agencies=FLOWS)
    return folder


@pytest.fixture
def settings(installed: Path, tmp_path: Path) -> Settings:
    return a_copy(installed, tmp_path / "broker")


@pytest.fixture
def long(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture
def chance(pytestconfig: pytest.Config) -> random.Random:
    return random.Random(pytestconfig.getoption("--seed"))


def a_full(sequence: int = 1, names: tuple[str, ...] = NAMES[:3], items: int = 4) -> Batch:
    record = ref(COUNCIL, "education", NAMES[0])
    held = [an_item(a_ref(f"{sequence}-{at}"), record) for at in range(items)]
    return a_night(COUNCIL, "education", names, items=held, sequence=sequence)


def the_broker(http: Any) -> Broker:
    found: Broker = http.app.state.broker
    return found


# --- F18: a reply that is lost ------------------------------------------------------------------------------------------


class Losing:
    """A way to a broker on which the reply to one request is lost, after the broker has done what was asked."""

    def __init__(self, http: Any, lost: int) -> None:
        self.http, self.lost, self.asked = http, lost, 0

    def _sent(self, does: Callable[[], Any]) -> Any:
        answer, self.asked = does(), self.asked + 1
        if self.asked == self.lost:
            raise httpx2.ReadError("the reply is lost")
        return answer

    def request(self, *given: Any, **named: Any) -> Any:
        return self._sent(lambda: self.http.request(*given, **named))

    def post(self, *given: Any, **named: Any) -> Any:
        return self._sent(lambda: self.http.post(*given, **named))


def test_whichever_reply_is_lost_the_sender_goes_on_and_the_batch_is_there_once(
    installed: Path, tmp_path: Path, long: bool, pytestconfig: pytest.Config, count: Points
) -> None:
    points = some(range(1, 100), pytestconfig) if long else [7]  # the commit's
    for lost in points:
        night = a_full()
        with serving(a_copy(installed, tmp_path / f"at-{lost}")) as http:
            way = Losing(http, lost)
            client = Client(way, COUNCIL, BASE, night)
            try:
                client.hand_in()
                assert long, "choose another reply to lose"
                break  # there are no more requests
            except httpx2.ReadError:
                pass
            with count.at("F18"):
                client.http = http
                client.hand_in()
                validation.validate_sealed(reception(http))
                client.see_verdict(seconds=0)
                with the_broker(http).store.reading() as reading:
                    found = [(row.id, row.state) for row in reading.all(BatchRow)]
                    if found != [(client.id, "accepted")]:
                        raise Lost(f"after a lost reply there are {found}")
                    if len(reading.all(ItemRow)) != night.manifest.tables["items"].rows:
                        raise Half("the batch has other rows than its manifest says")
                check_log(the_broker(http))


# --- F15, F17: out of order, mixed up ----------------------------------------------------------------------------------


@pytest.mark.skipif(LONG, reason="verdicts on many nights: make faults")
def test_nights_in_any_order_and_more_than_once_leave_what_the_newest_full_one_says(
    installed: Path, tmp_path: Path, chance: random.Random, count: Points, pytestconfig: pytest.Config
) -> None:
    for turn in some(range(20), pytestconfig):
        nights = [a_full(sequence, items=sequence) for sequence in range(1, 5)]
        order = [night for night in nights for _ in range(chance.randint(1, 2))]
        chance.shuffle(order)
        with count.at("F15"), serving(a_copy(installed, tmp_path / f"turn-{turn}")) as http:
            council, ids, newest = Caller(http), {}, 0
            for night in order:
                sequence = night.manifest.sequence
                opened = council.open(night)
                assert opened.status_code == 201, opened.text
                assert ids.setdefault(sequence, opened.json()["batch"]) == opened.json()["batch"]
                if council.on(night, ids[sequence]).json()["state"] == "open":
                    council.fill(night, ids[sequence])
                    assert council.commit(night, ids[sequence]).status_code == 202
                other = a_full(sequence, names=NAMES[:2])
                assert council.open(other).status_code == 409  # another batch of the same night
                assert council.open(other, key=night.sha256).status_code == 409  # another under the same key
                if chance.random() < 0.7:
                    validation.validate_sealed(reception(http))
            validation.validate_sealed(reception(http))
            newest = max(ids)
            with the_broker(http).store.reading() as reading:
                states = {row.sequence: row.state for row in reading.all(BatchRow)}
                items = {row.batch for row in reading.all(ItemRow)}
                flow = reading.one(AgencyFlowRow, agency=COUNCIL, flow="education")
            if states[newest] != "accepted" or set(states.values()) - {"accepted", "superseded"}:
                raise Lost(f"of nights handed in as {[night.manifest.sequence for night in order]} came {states}")
            assert flow is not None
            if items != {ids[newest]} or flow.last_sequence != newest:
                raise Half("items of another night than the newest")
            check_log(the_broker(http))


def test_chunks_of_another_table_or_batch_are_refused_by_name_and_nothing_is_sealed_before_all_are_there(
    settings: Settings, long: bool, chance: random.Random, count: Points
) -> None:
    with serving(settings) as http:
        council, one, other = Caller(http), a_full(1), a_full(2, NAMES[:5])
        ids = {night.sha256: council.open(night).json()["batch"] for night in (one, other)}
        for _ in range(40 if long else 4):
            into, of = chance.sample((one, other), 2)
            table, number, content = chance.choice(of.chunks())
            mine = {name: bytes_ for name, _, bytes_ in into.chunks()}[table]
            wrong = chance.choice([content, mine[:-1], mine + b"x", bytes([mine[0] ^ 1]) + mine[1:]])
            if wrong == mine:
                continue  # the two say the same here
            with count.at("F17"):
                refused = council.put(into, ids[into.sha256], table, number, wrong)
                assert refused.status_code in (400, 409, 413, 422), refused.text
                assert table in refused.text
                assert council.commit(into, ids[into.sha256]).status_code in (409, 422)
                assert council.on(into, ids[into.sha256]).json()["state"] == "open"
        for night in (one, other) if long else ():
            chunks = night.chunks()
            chance.shuffle(chunks)
            for table, number, content in chunks:
                assert council.put(night, ids[night.sha256], table, number, content).status_code == 204
            assert council.commit(night, ids[night.sha256]).status_code == 202
        if long:
            assert sorted(validation.validate_sealed(reception(http)).values()) == ["accepted", "accepted"]


# --- F19, F22: clocks ---------------------------------------------------------------------------------------------------

SUMMER_ENDS = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)
LEAP_DAY = datetime(2028, 2, 29, 23, 59, 30, tzinfo=UTC)
AT = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.mark.skipif(LONG, reason="verdicts on many nights: make faults")
def test_the_sequence_decides_whatever_the_clock_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, chance: random.Random, count: Points
) -> None:
    """Ten minutes on and back, two days back, the hour that comes twice, 29 February: each night is taken in its order."""
    jumps = [AT + timedelta(minutes=10), AT - timedelta(minutes=10), AT - timedelta(days=2), SUMMER_ENDS, LEAP_DAY]
    jumps.append(SUMMER_ENDS + timedelta(hours=1))
    chance.shuffle(jumps)
    with serving(settings) as http:
        for sequence, at in enumerate(jumps, 1):
            with count.at("F19"):
                monkeypatch.setattr(clock, "now", lambda at=at: at)
                night, council = a_full(sequence), Caller(http)
                id_ = council.hand_in(night)
                decided = validation.validate_sealed(reception(http))
                if decided != {id_: "accepted"}:
                    raise Lost(f"at {at}, after {jumps[: sequence - 1]}: {decided}")
        broker = the_broker(http)
        broker.trail.advance_pending()
        with broker.store.reading() as reading:
            times = [row.t_ms for row in reading.all(EventRow, order=("seq",))]
            flow = reading.one(AgencyFlowRow, agency=COUNCIL, flow="education")
        assert times == sorted(times)
        assert flow is not None
        assert flow.last_sequence == len(jumps)
        monkeypatch.undo()
        check_log(broker)


@pytest.mark.skipif(LONG, reason="a linked area: make faults")
@pytest.mark.parametrize("seconds", [1, 30, 600])
def test_from_midnight_in_london_a_search_that_was_open_shows_nothing_under_what_ended(
    seconds: int, tmp_path: Path, count: Points
) -> None:
    midnight = datetime(2028, 3, 31, 23, 0, tzinfo=UTC)  # in London, where it is summer
    with the_time(midnight - timedelta(seconds=300)) as now:
        area = a_linked_area(tmp_path / "northshire")
        analyst = area.asker()
        found = analyst.search(ROBIN.typed(), case="M1")
        assert analyst.open(found)["tiles"]
        now.put(midnight + timedelta(seconds=seconds))
        with count.at("F22"):
            assert shown_after(area, analyst, found) == set()
        area.close()


def shown_after(area: Area, analyst: Any, found: dict[str, Any]) -> set[str]:
    try:
        view = analyst.open(found)
    except BrokerRefused:
        return set()
    return {
        clause["agreement"] for tile in view["tiles"] for one in tile["categories"] for clause in one["under"]
    }  # fmt: skip


# --- F11: a database that goes and comes back -------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.mark.skipif(LONG, reason="a PostgreSQL of one's own: make faults")
def test_while_its_database_is_away_a_broker_says_when_to_come_back_and_then_goes_on_by_itself(
    server: Server, tmp_path: Path, chance: random.Random, count: Points, pytestconfig: pytest.Config
) -> None:
    with a_database(server.address, keep=True) as url:
        settings = an_installation(
            tmp_path / "broker", agencies=FLOWS, database_url=url, environment="production", signer="inline"
        )
    night = a_full()
    with serving(settings) as http:
        client = Client(http, COUNCIL, BASE, night)
        requests = iter(range(1000))
        away = set(chance.sample(range(2, 9), 3))
        for _ in range(len(away) + 1):
            down = Downed(http, server, requests, away)
            client.http = down
            try:
                client.hand_in()
                break
            except Down as answer:
                with count.at("F11"):
                    assert answer.status == 503
                    assert int(answer.retry_after) > 0
        validation.validate_sealed(reception(http))
        client.http = http
        client.see_verdict(seconds=0)
        with the_broker(http).store.reading() as reading:
            if [(row.id, row.state) for row in reading.all(BatchRow)] != [(client.id, "accepted")]:
                raise Lost("after a database that was away a batch is lost, or there twice")
            if len(reading.all(ItemRow)) != night.manifest.tables["items"].rows:
                raise Half("the batch has other rows than its manifest says")
        check_log(the_broker(http))


class Down(Exception):
    """What a broker answers without its database."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(f"{status}, {retry_after}")
        self.status, self.retry_after = status, retry_after


class Downed(Losing):
    """A broker whose database goes down before some requests, and is up again after each."""

    def __init__(self, http: Any, server: Server, requests: Iterator[int], away: set[int]) -> None:
        super().__init__(http, 0)
        self.server, self.requests, self.away = server, requests, away

    def _sent(self, does: Callable[[], Any]) -> Any:
        if next(self.requests) not in self.away:
            return does()
        self.server.crash()
        try:
            answer = does()
        finally:
            self.server.start()
        if answer.status_code >= 500:
            raise Down(answer.status_code, answer.headers.get("retry-after", "0"))
        return answer


# --- F30, F31: floods ----------------------------------------------------------------------------------------------------


def test_a_flood_of_what_makes_no_sense_meets_no_fault_and_takes_no_memory(
    settings: Settings, long: bool, chance: random.Random, count: Points
) -> None:
    shapes = [
        b"", b"{", b"[" * 5000, b'{"a":' * 2000, b"\x00" * 4096, b"PAR1" + b"\xff" * 3000 + b"PAR1", b'{"a":1e400}',
        b'{"a":NaN}', b'{"a":1,"a":2}', b'{"n":' + b"9" * 5000 + b"}", "\ud7ff\u202e=1+1".encode(), b"\x1f\x8b" + b"\x00" * 99,
    ]  # fmt: skip
    kinds = ["application/json", "application/vnd.apache.parquet", "text/plain", "multipart/form-data", "x", ""]
    with serving(settings) as http:
        council, night = Caller(http), a_full()
        id_ = council.open(night).json()["batch"]
        paths = [
            (method.upper(), path.format_map(Filled(flow="education", batch=id_)))
            for path, methods in http.app.openapi()["paths"].items() for method in methods
        ]  # fmt: skip
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of whatever ran before
        before = peak_kb()
        for _ in range(2000 if long else 20):
            method, path = chance.choice(paths)
            with count.at("F31"):
                answer = council.call(
                    method, path, content=chance.choice(shapes) * chance.randint(1, 3),
                    headers={"Content-Type": chance.choice(kinds), "Idempotency-Key": chance.choice(["", "k", "k" * 300])},
                )  # fmt: skip
                assert answer.status_code < 500, (method, path, answer.text)
        grown = (peak_kb() - before) / 1024
        assert grown < 256, f"{grown} MiB"
        council.token = ""
        if council.on(night, id_).json().get("state") == "open":  # the flood may have withdrawn it
            council.fill(night, id_)
            assert council.commit(night, id_).status_code == 202
        check_log(the_broker(http))


class Filled(dict[str, str]):
    """Every place of a path that nothing is known of."""

    def __missing__(self, key: str) -> str:
        return "0" * 32


@pytest.mark.skipif(LONG, reason="many at once: make faults")
def test_of_many_that_come_at_once_each_is_taken_in_or_told_to_come_back(
    settings: Settings, chance: random.Random, count: Points
) -> None:
    told: list[tuple[int, str, int]] = []
    with serving(settings) as http:

        def comes(sequence: int) -> None:
            council = Caller(http)
            answer = council.open(a_full(sequence))
            told.append((answer.status_code, answer.headers.get("retry-after", ""), sequence))

        threads = [threading.Thread(target=comes, args=(sequence,)) for sequence in range(1, 41)]
        chance.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == len(threads)
        with the_broker(http).store.reading() as reading:
            there = {row.sequence for row in reading.all(BatchRow, state="open")}
        for status, later, sequence in told:
            with count.at("F30"):
                assert status in (201, 429, 503), told
                if (status == 201) is not (sequence in there):
                    raise Lost(
                        f"night {sequence} was answered {status}, and is {'there' if sequence in there else 'not there'}"
                    )
                assert status == 201 or int(later) > 0
        assert {status for status, *_ in told} >= {201, 429}
