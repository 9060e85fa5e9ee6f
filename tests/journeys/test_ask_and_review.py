"""From the search form of a real gateway to a real broker, and to the event that an officer finds and proves."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from broker import agencies, clock
from broker.wiring import Broker
from linkage.agency.gateway.cli import open_gateway
from linkage.agency.gateway.settings import GatewaySettings
from linkage.agency.keygen import make_home
from tests.broker.platform import DETAILS, OPERATOR, an_app
from tests.journeys.conftest import Visitor
from tests.linkage.agency.gateway.builders import some_settings

pytestmark = pytest.mark.browser


@dataclass(frozen=True)
class Both:
    """A broker and the gateway of one enrolled agency, both serving."""

    broker_site: str
    gateway_site: str
    broker_folder: Path


@pytest.fixture
def both(tmp_path: Path, serve: Callable[[FastAPI], str]) -> Iterator[Both]:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    site = f"http://127.0.0.1:{bound.getsockname()[1]}"
    app = an_app(tmp_path / "broker", base_url=site)
    home = tmp_path / "home"
    make_home(home, agency="northshire-icb", partnership="northshire", epoch="2026-1")
    broker: Broker = app.state.broker
    enrolment = agencies.Enrolment.parse(json.loads((home / "public.json").read_text()), DETAILS)
    agencies.enrol(broker.store, broker.trail, enrolment, partnership="northshire", who=OPERATOR, at=clock.now())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    settings: GatewaySettings = some_settings(broker_url=site, organisation="Northshire ICB")
    yield Both(site, serve(open_gateway(home, settings)), tmp_path / "broker")
    server.should_exit = True
    thread.join(10)


def test_a_search_reaches_the_broker_without_a_name_and_an_officer_finds_and_proves_it(
    both: Both, visitor: Callable[..., Visitor]
) -> None:
    analyst = visitor().page
    analyst.goto(both.gateway_site)
    analyst.get_by_label("Sample Analyst").check()
    analyst.get_by_role("button", name="Sign in").click()
    analyst.get_by_role("link", name="New search").click()
    analyst.get_by_label("Given name(s)").fill("Robin")
    analyst.get_by_label("Family name").fill("Samplewick")
    for part, value in (("Day", "7"), ("Month", "3"), ("Year", "2017")):
        analyst.get_by_label(part, exact=True).fill(value)
    analyst.get_by_label("NHS number").fill("943 476 5919")
    analyst.get_by_label("Case reference").fill("SAMPLE-0412")
    analyst.get_by_label("Screening a contact").check()
    analyst.get_by_label("Yes", exact=True).check()
    analyst.get_by_label("I am asking for this purpose only").check()
    analyst.get_by_role("button", name="Search", exact=True).last.click()
    analyst.get_by_role("heading", name="We could not show this").wait_for()  # no agreement is in force yet
    assert analyst.get_by_text("This does not mean that nothing is known.").first.is_visible()
    assert "Samplewick" not in analyst.url

    officer = visitor().page
    officer.goto(both.broker_site)
    officer.get_by_label("IG officer").check()
    officer.get_by_role("button", name="Sign in").click()
    officer.get_by_role("link", name="Log", exact=True).click()
    officer.get_by_label("To check that processing was lawful").check()
    officer.get_by_label("Purpose").select_option("MASH_SCREEN")
    officer.get_by_role("button", name="Search the log").click()
    officer.get_by_role("link", name="Search on").first.click()
    officer.get_by_role("heading", name="Prove it").wait_for()
    assert officer.get_by_text("p-analyst").first.is_visible()
    with officer.expect_download() as coming:
        officer.get_by_role("link", name="Download opening").click()
    opening = json.loads(Path(coming.value.path()).read_text())
    assert opening["opening"]["who"]["body"]["person"] == "p-analyst"

    for file in both.broker_folder.rglob("*"):
        if file.is_file():
            for canary in (b"Samplewick", b"9434765919", b"943 476 5919", b"SAMPLE-0412"):
                assert canary not in file.read_bytes(), file.name
