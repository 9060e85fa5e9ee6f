"""Prometheus reads how a broker stands, and nothing about anybody; rules and dashboard ask for figures that there are."""

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broker.log_lines import LOG_KEYS, configure_logging
from broker.metrics import BATCH_STATES, LABELS, listen
from broker.wiring import Broker
from tests.broker.platform import AnAgency, an_app
from tests.builders_area import Area
from tests.builders_families import ROBIN, extracts

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "deploy" / "observability"
CANARIES = ("Zebedee", "Quillfeather", "9434765919", "2013-05-04", "p-17", "canary")
LABELS_OF = re.compile(r'(\w+)="')


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return an_app(tmp_path)


@pytest.fixture
def http(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1:8400", raise_server_exceptions=False) as client:
        yield client


def told(app: FastAPI) -> str:
    return generate_latest(app.state.registry).decode()


def value(text: str, name: str, **labels: str) -> float:
    """The one sample of this name whose labels include these."""
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return float(found)


def test_answers_are_counted_by_the_route_s_template_and_never_by_its_path(app: FastAPI, http: TestClient) -> None:
    agency = AnAgency().enrolled(app.state.broker)
    token = agency.token(http)
    sent = {"Authorization": f"Bearer {token}"}
    http.get("/v1/flows/health/batches/canary-batch?name=Zebedee", headers=sent)
    http.get("/Quillfeather/9434765919?born=2013-05-04")
    http.request("CANARY", "/health/live")
    agency.post(http, "/v1/searches", {"given_name": "Zebedee"})
    text = told(app)
    assert value(text, "broker_http_requests_total", route="/v1/flows/{flow}/batches/{batch}") == 1
    assert value(text, "broker_http_requests_total", route="none", code="404") == 1
    assert value(text, "broker_http_requests_total", method="other") == 1
    assert value(text, "broker_http_requests_total", route="/v1/searches", code="422") == 1
    assert value(text, "broker_http_request_seconds_count", route="/v1/searches") == 1
    assert [one for one in CANARIES if one in text] == []


def test_what_the_edge_itself_refuses_is_counted_too(app: FastAPI, http: TestClient) -> None:
    assert http.post("/v1/searches", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415
    assert value(told(app), "broker_http_requests_total", code="415") == 1


def test_figures_say_how_log_feeds_batches_and_disk_stand(app: FastAPI, http: TestClient) -> None:
    AnAgency().enrolled(app.state.broker)
    broker: Broker = app.state.broker
    broker.trail.advance_pending()
    text = told(app)
    assert value(text, "broker_figures_read") == 1
    assert value(text, "broker_ready", check="log") == 1
    assert value(text, "broker_log_entries") == 2  # opened, enrolled
    assert value(text, "broker_log_witnesses") == 0
    assert value(text, "broker_log_stopped") == 0
    assert value(text, "broker_feed_state", agency="northshire-icb", flow="health", state="CURRENT") == 0
    assert {value(text, "broker_batches", state=state) for state in BATCH_STATES} == {0}
    assert value(text, "broker_night_failures") == 0
    assert value(text, "broker_disk_free_bytes") > 0
    assert set(LABELS_OF.findall(text)) <= LABELS


def test_a_database_that_is_gone_is_told_and_its_fault_s_words_are_not(
    app: FastAPI, http: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broker.db").write_bytes(b"canary" * 1000)
    text = told(app)
    seen = capsys.readouterr()
    assert value(text, "broker_figures_read") == 0
    assert value(text, "broker_ready", check="schema") == 0
    assert "canary" not in text + seen.out + seen.err
    assert "Traceback" not in seen.out + seen.err


def test_figures_are_read_at_an_address_of_their_own_and_not_at_the_callers(app: FastAPI, http: TestClient) -> None:
    assert http.get("/metrics").status_code == 404
    server = listen(app.state.registry, "127.0.0.1", 0)
    try:
        answer = httpx2.get(f"http://127.0.0.1:{server.server_address[1]}/metrics", timeout=60)
        assert "broker_log_entries" in answer.text
    finally:
        server.shutdown()
        server.server_close()


def expressions() -> Iterator[str]:
    for group in yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_rules_and_dashboard_ask_for_figures_and_labels_that_there_are(linked: Area) -> None:
    linked.http.get("/health/live")
    families = list(text_string_to_metric_families(told(linked.http.app)))
    there = {sample.name for family in families for sample in family.samples} | {family.name for family in families}
    asked = list(expressions())
    named = {name for one in asked for name in re.findall(r"\bbroker_\w+", one)}
    assert named - there == set()
    labels = {label for one in asked for label in re.findall(r'[{,]\s*(\w+)\s*[=!]~?"?', one)}
    labels |= {label.strip() for one in asked for by in re.findall(r"by \(([^)]*)\)", one) for label in by.split(",")}
    assert labels <= LABELS | {"job"}


def test_a_log_line_s_event_is_a_literal_and_its_keys_are_on_the_list() -> None:
    """Else what a line should say would be dropped in silence, or its event would carry what it was formatted with."""
    lines = 0
    for path in (ROOT / "broker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            of = node.func.value
            if isinstance(of, ast.Name) and of.id in ("log", "_log") and node.func.attr in ("info", "warning", "error"):
                lines += 1
                assert len(node.args) == 1, path
                assert isinstance(node.args[0], ast.Constant), path
                assert {word.arg for word in node.keywords} <= LOG_KEYS, path
    assert lines > 20


def test_what_a_library_says_is_told_without_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    configure_logging()
    configure_logging()  # twice writes no line twice
    try:
        try:
            raise ValueError("canary Zebedee")
        except ValueError:
            logging.getLogger("some.library").exception("could not read %s", "Quillfeather")
    finally:
        root.handlers[:] = before
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    (line,) = [json.loads(one) for one in lines]
    assert (line["event"], line["level"], line["fault"]) == ("a library warns", "error", "ValueError")
    assert line["place"].startswith("some.library:test_metrics:")
    assert [one for one in CANARIES if one in json.dumps(line)] == []


def test_after_a_night_and_a_view_the_figures_tell_of_both_and_of_nobody(linked: Area) -> None:
    asker = linked.asker()
    assert asker.open(asker.search(ROBIN.typed(), case="R1"))["tiles"]
    text = told(linked.http.app)
    assert value(text, "broker_http_requests_total", route="/v1/disclosures", code="201") == 1
    assert value(text, "broker_night_published_timestamp_seconds") > 0
    assert value(text, "broker_feed_state", agency="northshire-council", flow="education", state="CURRENT") == 1
    known = {
        row[name]
        for extract in extracts().values()
        for row in extract.people
        for name in ("given_name", "family_name", "nhs_number", "postcode", "date_of_birth", "local_id")
    } - {""}
    assert len(known) > 300
    assert [one for one in known if re.search(rf"\b{re.escape(one)}\b", text)] == []
    assert re.findall(r"[0-9a-f]{32,}", text) == []  # no id of a record, person, search or event
