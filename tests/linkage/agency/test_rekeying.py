"""The linkage key's next epoch in an agency's home: beside the one in use, then in its place."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from joserfc.jwk import ECKey

from linkage.agency import batch, client, rekeying
from linkage.agency.gateway.app import create_gateway
from linkage.agency.gateway.broker_client import BrokerClient
from linkage.agency.gateway.encoder import SearchEncoder
from linkage.agency.gateway.store import GatewayStore
from linkage.agency.keys import BadKey, write_secret
from linkage.agency.settings import BadHome, Home
from tests.linkage.agency.builders import CODES, NOW, a_home, an_extract
from tests.linkage.agency.gateway import builders as gateways
from tests.linkage.agency.gateway.builders import ANALYST, Clock, Running, as_form, csrf_of, something_typed
from tests.linkage.agency.test_client import OtherSide

PROFILE = "guarded-3"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return a_home(tmp_path / "home")


def fresh(home: Home) -> Home:
    """The home as the next command finds it."""
    return Home(home.folder)


def test_the_next_key_lies_beside_the_one_in_use_and_the_broker_is_told_no_secret(home: Home, tmp_path: Path) -> None:
    told, path = rekeying.lay_beside(home, "2027-1")
    assert json.loads(path.read_text()) == told
    key = (home.folder / "keys" / "link-2027-1.key").read_text().strip()
    assert key not in path.read_text()
    assert told["key_fingerprint"] == home.keys_of("2027-1").fingerprint(PROFILE) != home.link_keys.fingerprint(PROFILE)
    assert rekeying.lay_beside(home, "2027-1")[0] == told  # said again
    other = a_home(tmp_path / "other", agency="northshire-icb", link_key=home.folder / "keys" / "link.key")
    handed = home.folder / "keys" / "link-2027-1.key"
    assert rekeying.lay_beside(other, "2027-1", key=handed)[0] == told
    assert fresh(home).link_keys.epoch == "2026-1"


def test_no_key_is_overwritten_none_is_used_twice_and_no_epoch_is_its_own_next(home: Home, tmp_path: Path) -> None:
    rekeying.lay_beside(home, "2027-1")
    another = tmp_path / "another.key"
    write_secret(another, secrets.token_hex(32).encode())
    with pytest.raises(BadKey, match="never overwritten"):
        rekeying.lay_beside(home, "2027-1", key=another)
    with pytest.raises(BadKey, match="the key in use"):
        rekeying.lay_beside(home, "2028-1", key=home.folder / "keys" / "link.key")
    for name in ("2026-1", "../2027"):
        with pytest.raises(BadHome):
            rekeying.lay_beside(home, name)
    with pytest.raises(BadKey, match="agency link-key next --epoch 2029-1"):
        rekeying.use(home, "2029-1")
    with pytest.raises(BadKey, match="agency link-key next --epoch 2029-1"):
        _ = Home(home.folder, shadow="2029-1").link_keys


def test_an_epoch_is_used_and_the_one_before_may_be_used_again(home: Home) -> None:
    before = home.link_keys.fingerprint(PROFILE)
    told, _ = rekeying.lay_beside(home, "2027-1")
    for _ in range(2):  # the second time as after a kill
        rekeying.use(fresh(home), "2027-1")
    now = fresh(home)
    assert (now.link_keys.epoch, now.link_keys.fingerprint(PROFILE)) == ("2027-1", told["key_fingerprint"])
    assert {name: now.public[name] for name in ("key_epoch", "key_fingerprint", "canaries")} == {
        name: told[name] for name in ("key_epoch", "key_fingerprint", "canaries")
    }
    assert not (home.folder / "keys" / "link.key").exists()
    assert rekeying.use(now, "2026-1") == "2027-1"
    assert (fresh(home).link_keys.epoch, fresh(home).link_keys.fingerprint(PROFILE)) == ("2026-1", before)


def test_a_shadow_batch_changes_nothing_of_what_the_nights_say_next(home: Home, tmp_path: Path) -> None:
    other, mapping = OtherSide(home.public["client"]), an_extract(tmp_path / "extract")
    rekeying.lay_beside(home, "2027-1")

    def sent(at: Home, name: str, *, delta: bool = False) -> batch.Encoded:
        made = batch.encode_extract(mapping, at, tmp_path / name, codes=CODES, now=NOW, delta=delta)
        assert client.submit(made.folder, fresh(home), other.broker(fresh(home))).state == "accepted"
        return made

    sent(home, "first")
    state = fresh(home).state("education")
    for sequence in (1, 2):
        shadow = sent(Home(home.folder, shadow="2027-1"), f"shadow-{sequence}").manifest
        assert (shadow.key_epoch, shadow.kind, shadow.sequence) == ("2027-1", "full", sequence)
    assert fresh(home).state("education") == state
    night = sent(fresh(home), "second", delta=True).manifest
    assert (night.key_epoch, night.kind, night.sequence, night.tables["persons"].rows) == ("2026-1", "delta", 2, 0)
    rekeying.use(fresh(home), "2027-1")
    first = sent(fresh(home), "third", delta=True).manifest
    assert (first.key_epoch, first.kind, first.sequence) == ("2027-1", "full", 3)  # nothing was told under this key


# --- The gateway -----------------------------------------------------------------------------------------------------


class Changed:
    """A broker that has put 2027-1 in service, as a gateway meets it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/in-force":
            return httpx2.Response(200, json={"mark": "m"})
        self.asked.append(json.loads(request.content)["key_epoch"])
        if self.asked[-1] != "2027-1":
            problem = {
                "type": "urn:safeguarding-broker:problem:wrong-epoch",
                "detail": "key_epoch: 2027-1 is in service",
            }
            return httpx2.Response(409, json=problem)
        return httpx2.Response(200, json={"search": "s" * 22, "at": "2026-11-23T09:00:00Z", "banner": "b"})


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[Running, Changed]]:
    home, other = gateways.a_home(tmp_path / "home"), Changed()
    clock, settings = Clock(), gateways.some_settings()
    broker = BrokerClient(
        settings.broker_url, agency=home.agency, kid="northshire-council/client-1", token=lambda: "t", now=clock,
        key=ECKey.import_key((home.folder / "keys" / "client.pem").read_bytes()),
        http=httpx2.Client(transport=httpx2.MockTransport(other.answer)),
    )  # fmt: skip
    store = GatewayStore(tmp_path / "gateway.sqlite", secrets.token_bytes(32))
    app = create_gateway(settings, store=store, encoder=SearchEncoder(home), broker=broker, now=clock)
    yield Running(app, store, clock, home), other


def searched(running: Running) -> str:
    browser = running.client(ANALYST)
    csrf = csrf_of(browser.get("/searches/new").text)
    return str(browser.post("/searches/new", data=as_form(something_typed(), csrf=csrf)).headers.get("location", ""))


def test_a_gateway_that_has_both_keys_follows_the_broker_to_the_epoch_in_service(
    gateway: tuple[Running, Changed],
) -> None:
    running, other = gateway
    rekeying.lay_beside(running.home, "2027-1")
    for _ in range(2):
        assert searched(running).startswith("/searches/")
    assert other.asked == ["2026-1", "2027-1", "2027-1"]  # asked again once; from then on under the new key


def test_a_gateway_without_the_new_key_shows_nothing(gateway: tuple[Running, Changed]) -> None:
    running, other = gateway
    assert searched(running) == ""
    assert other.asked == ["2026-1"]
