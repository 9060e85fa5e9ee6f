"""Submission: resumable, idempotent, and honest about what it does not know."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from linkage.agency import client
from linkage.agency.batch import Encoded
from linkage.agency.client import BadBatch, Broker, Refused, Tokens, Unreachable
from linkage.agency.settings import Home
from linkage.records import TABLES, Manifest
from tests.linkage.agency.builders import NOW, a_batch, a_home


@dataclass
class OtherSide:
    """The submission protocol of reliability-security.md section 3 in a page, over an in-memory transport.

    `trouble` may answer or raise in place of a request, so that a test can break a submission off anywhere.
    """

    client_jwk: dict[str, Any]
    trouble: Callable[[httpx2.Request], httpx2.Response | None] = lambda request: None
    verdict: str = "accepted"
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)  # by idempotency key
    log: list[str] = field(default_factory=list)
    jtis: set[str] = field(default_factory=set)
    waits: list[float] = field(default_factory=list)

    def broker(self, home: Home) -> Broker:
        http = httpx2.Client(transport=httpx2.MockTransport(self.answer))
        return Broker(home, now=lambda: NOW, http=http, sleep=self.waits.append)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.log.append(f"{request.method} {path}")
        if (troubled := self.trouble(request)) is not None:
            return troubled
        if path == "/oauth2/token":
            return self._token(request)
        assert request.headers["Authorization"] == "Bearer good"
        if path.endswith("/batches"):
            return self._open(request)
        held = next(one for one in self.batches.values() if f"/batches/{one['batch']}" in path)
        if "/chunks/" in path:
            *_, table, _, number = path.split("/")
            digest = base64.b64encode(hashlib.sha256(request.content).digest()).decode()
            assert request.headers["Content-Digest"] == f"sha-256=:{digest}:"
            assert hashlib.sha256(request.content).hexdigest() == held["manifest"].tables[table].chunks[int(number)]
            held["chunks"][table, int(number)] = request.content
            return httpx2.Response(204)
        if path.endswith("/commit"):
            assert not self._missing(held)
            assert json.loads(request.content)["manifest_sha256"] == held["sha256"]
            held["state"] = "sealed"
            return httpx2.Response(202, json={"batch": held["batch"], "state": "sealed", "missing": [], "counts": {}})
        if path.endswith("/receipt"):
            kind = request.url.params["kind"]
            if held["state"] == "sealed":
                held["state"] = self.verdict if kind == "received" else "sealed"  # validated as soon as it arrived
            return httpx2.Response(200, json={"batch": held["batch"], "kind": kind, "event_id": kind})
        if path.endswith("/rejections"):
            return httpx2.Response(200, text='{"table": "items", "row": 3, "code": "never_ingest"}\n')
        body = {"batch": held["batch"], "state": held["state"], "missing": self._missing(held), "counts": {}}
        return httpx2.Response(200, json=body)

    def _token(self, request: httpx2.Request) -> httpx2.Response:
        form = dict(pair.split("=") for pair in request.content.decode().split("&"))
        token = jwt.decode(form["client_assertion"], ECKey.import_key(self.client_jwk), algorithms=["ES256"])
        claims = token.claims
        assert token.header["kid"] == self.client_jwk["kid"]
        assert claims["iss"] == claims["sub"] == "northshire-council"
        assert claims["aud"] == "http://127.0.0.1:8400/oauth2/token"
        assert claims["exp"] - claims["iat"] <= 300
        assert claims["jti"] not in self.jtis
        self.jtis.add(claims["jti"])
        return httpx2.Response(200, json={"access_token": "good", "token_type": "Bearer", "expires_in": 600})

    def _open(self, request: httpx2.Request) -> httpx2.Response:
        key = request.headers["Idempotency-Key"]
        if key not in self.batches:
            self.batches[key] = {
                "batch": f"b{len(self.batches) + 1}", "manifest": Manifest.parse(request.content), "state": "open",
                "sha256": hashlib.sha256(request.content).hexdigest(), "chunks": {},
            }  # fmt: skip
        held = self.batches[key]
        first = {**held, "chunks": {}}  # the first answer, replayed
        body = {"batch": held["batch"], "state": "open", "chunk_size": 1, "missing": self._missing(first)}
        return httpx2.Response(201, json=body)

    def _missing(self, held: dict[str, Any]) -> list[dict[str, Any]]:
        tables = held["manifest"].tables
        return [
            {"table": table, "chunk": number}
            for table in TABLES
            for number in range(len(tables[table].chunks))
            if (table, number) not in held["chunks"]
        ]


@dataclass
class Agency:
    home: Home
    made: Encoded
    other: OtherSide

    def submit(self) -> client.Submission:
        return client.submit(self.made.folder, self.home, self.other.broker(self.home))


@pytest.fixture
def agency(tmp_path: Path) -> Agency:
    home = a_home(tmp_path / "home")
    return Agency(home, a_batch(tmp_path, home), OtherSide(home.public["client"]))


def test_a_batch_is_sent_once_and_its_receipts_kept(agency: Agency) -> None:
    sent = agency.submit()
    assert (sent.state, sent.sequence) == ("accepted", 1)
    assert sent.receipt is not None
    kept = json.loads(sent.receipt.read_text())
    assert kept["received"]["kind"] == "received"
    assert kept["verdict"]["kind"] == "verdict"
    state = agency.home.state("education")
    assert (state["sequence"], state["manifest_sha256"]) == (1, kept["manifest_sha256"])
    (held,) = agency.other.batches.values()
    assert held["chunks"]["persons", 0] == (agency.made.folder / "persons.parquet").read_bytes()


def test_submitting_twice_changes_nothing(agency: Agency) -> None:
    first = agency.submit()
    agency.other.log.clear()
    assert agency.submit() == first
    assert not [line for line in agency.other.log if "PUT" in line or "commit" in line]
    assert len(agency.other.batches) == 1


def test_a_submission_that_broke_off_goes_on_where_it_stopped(agency: Agency) -> None:
    def cut(request: httpx2.Request) -> httpx2.Response | None:
        if "items/chunks" in request.url.path:
            raise httpx2.ConnectError("cut")
        return None

    agency.other.trouble = cut
    with pytest.raises(Unreachable, match="could not be asked, 5 times: ConnectError"):
        agency.submit()
    assert agency.home.state("education")["sequence"] == 0
    agency.other.trouble = lambda request: None
    agency.other.log.clear()
    assert agency.submit().state == "accepted"
    assert [line for line in agency.other.log if "PUT" in line] == ["PUT /v1/flows/education/batches/b1/items/chunks/0"]


def test_a_busy_broker_is_asked_again_after_as_long_as_it_says(agency: Agency) -> None:
    answers = [httpx2.Response(429, headers={"Retry-After": "7"}), httpx2.Response(503)]
    agency.other.trouble = lambda request: answers.pop(0) if answers and request.method == "PUT" else None
    assert agency.submit().state == "accepted"
    assert agency.other.waits[0] >= 7
    assert 0 < agency.other.waits[1] < 3


def test_an_expired_token_is_replaced_once(agency: Agency) -> None:
    answers = [httpx2.Response(401, json={"title": "Not signed in"})]
    agency.other.trouble = lambda request: answers.pop(0) if answers and request.method == "PUT" else None
    assert agency.submit().state == "accepted"
    assert len(agency.other.jtis) == 2
    answers[:] = [httpx2.Response(401, json={"title": "Not signed in"})] * 2
    with pytest.raises(Refused, match="401: Not signed in"):
        agency.other.broker(agency.home).status("education", "b1")
        agency.other.trouble = lambda request: (
            httpx2.Response(401, json={"title": "Not signed in"}) if "batches" in request.url.path else None
        )
        agency.other.broker(agency.home).status("education", "b1")


def test_a_refusal_is_told_in_the_brokers_words(agency: Agency) -> None:
    problem = {"title": "Signature does not verify", "detail": "the manifest was not signed by an enrolled key"}
    agency.other.trouble = lambda request: (
        httpx2.Response(422, json=problem) if request.url.path.endswith("/batches") else None
    )
    with pytest.raises(Refused, match="422: Signature does not verify: the manifest was not signed"):
        agency.submit()
    assert not list(agency.home.receipts.glob("*"))


def test_a_rejected_batch_frees_its_number(agency: Agency) -> None:
    agency.other.verdict = "rejected"
    sent = agency.submit()
    assert sent.state == "rejected"
    state = agency.home.state("education")
    assert (state["sequence"], state["pending"]) == (0, None)
    assert agency.other.broker(agency.home).rejections("education", sent.batch)[0]["code"] == "never_ingest"


def test_a_batch_that_changed_after_it_was_signed_is_not_sent(agency: Agency) -> None:
    path = agency.made.folder / "items.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadBatch, match=r"items\.parquet: it has changed since it was signed"):
        agency.submit()
    path.write_bytes(content[:-1])
    with pytest.raises(BadBatch, match="not those that were signed"):
        agency.submit()
    (agency.made.folder / "manifest.json").write_bytes(b"{")
    with pytest.raises(BadBatch, match=r"manifest\.json: the manifest is not JSON"):
        agency.submit()


def test_a_batch_that_changed_after_it_was_accepted_is_noticed_and_nothing_is_opened_for_one(agency: Agency) -> None:
    agency.submit()
    path = agency.made.folder / "persons.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = len(agency.other.log)
    with pytest.raises(BadBatch, match=r"persons\.parquet: it has changed"):
        agency.submit()
    assert len(agency.other.log) == before


def test_another_agencys_batch_is_not_sent(agency: Agency, tmp_path: Path) -> None:
    other = a_home(tmp_path / "other", agency="northshire-icb")
    with pytest.raises(BadBatch, match="the batch is of 'northshire-council'"):
        client.submit(agency.made.folder, other, agency.other.broker(other))


def test_a_token_serves_until_shortly_before_its_end(agency: Agency) -> None:
    at = [NOW]
    http = httpx2.Client(transport=httpx2.MockTransport(agency.other.answer))
    tokens = Tokens(agency.home, http, now=lambda: at[0])
    assert (tokens(), tokens()) == ("good", "good")
    assert len(agency.other.jtis) == 1
    at[0] += timedelta(seconds=571)
    tokens()
    assert len(agency.other.jtis) == 2


def test_waiting_ends_with_the_verdict_or_with_the_time(agency: Agency) -> None:
    agency.other.verdict = "sealed"
    sent = agency.submit()
    assert sent.state == "sealed"
    waits: list[float] = []
    broker = agency.other.broker(agency.home)
    assert client.wait(agency.home, broker, sent.batch, seconds=3, sleep=waits.append).state == "sealed"
    assert sum(waits) >= 3
    agency.other.batches[next(iter(agency.other.batches))]["state"] = "quarantined"
    assert client.wait(agency.home, broker, sent.batch, seconds=3, sleep=waits.append).state == "quarantined"
