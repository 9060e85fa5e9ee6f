"""The sandbox answers as the broker does: one conversation held with both, and the real client through every trouble."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from broker import clock, manifests, submissions, validation
from broker.reception import Reception
from linkage.agency import client
from linkage.agency.client import Refused
from linkage.agency.sandbox import FAREWELL, TROUBLES, Sandbox
from linkage.agency.settings import Home
from tests.builders import CANARIES, COUNCIL, EPOCH, FINGERPRINT, ICB, Signer, a_batch, a_signer
from tests.builders_broker import BASE, Caller, agreed, client_key
from tests.linkage.agency.builders import BAND, NOW
from tests.linkage.agency.builders import a_batch as an_encoded_batch
from tests.linkage.agency.builders import a_home as a_made_home

Told = list[tuple[str, int, Any]]


def a_home(folder: Path) -> Home:
    """The home of the council that the broker of these tests has enrolled."""
    folder.mkdir()
    public = client_key(COUNCIL).as_dict(private=False)
    (folder / "agency.toml").write_text(f'agency = "{COUNCIL}"\npartnership = "northshire"\nkey_epoch = "{EPOCH}"\n')
    (folder / "public.json").write_text(json.dumps({
        "agency": COUNCIL, "signing": {"kid": f"{COUNCIL}/1", "public": a_signer(COUNCIL).public},
        "client": {name: public[name] for name in ("kty", "crv", "x", "y", "kid")},
        "key_epoch": EPOCH, "key_fingerprint": FINGERPRINT, "canaries": [str(token) for token in CANARIES],
    }))  # fmt: skip
    return Home(folder)


def over(sandbox: Sandbox) -> httpx2.Client:
    """Calls to a sandbox, without a network."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        target = request.url.raw_path.decode()
        given = sandbox.answer(request.method, target, dict(request.headers), request.content)
        if given.status == 0:
            raise httpx2.ReadError("cut")
        return httpx2.Response(
            given.status, content=given.body, headers={"Content-Type": "application/json", **given.headers}
        )

    return httpx2.Client(transport=httpx2.MockTransport(answer), base_url=BASE)


def conversation(council: Caller, settle: Callable[[], object]) -> Told:
    """Status, and state or problem, of each answer to what an agency may say, right and wrong."""
    told: Told = []

    def say(what: str, answer: Any) -> Any:
        body = answer.json() if answer.content and "ndjson" not in answer.headers["content-type"] else {}
        word = [body.get(name) for name in ("type", "state", "reason", "missing", "counts", "kind")]
        told.append((what, answer.status_code, word))
        return body

    batch = agreed(a_batch())
    files = batch.files
    other = agreed(a_batch(items=[]))
    heard = say("nothing yet", council.call("GET", "/v1/flows/education"))["heard_at"]
    told.append(("unheard", 0, heard))
    say("alive", council.call("POST", "/v1/flows/education/heartbeat"))
    stands = say("heard", council.call("GET", "/v1/flows/education"))
    told.append(("said of a flow", 0, [sorted(stands), stands["heard_at"] is not None, stands["terms"]["manifests"]]))
    say("unsigned", council.open(batch, signature=None))
    say("signed by another", council.open(batch, signature=a_signer(ICB).sign(batch.body)))
    say("another's", council.open(replace(agreed(a_batch(agency=ICB)), signer=a_signer(COUNCIL))))
    for change in ({"key_epoch": "2025-1"}, {"canaries": (1, 2, 3)}, {"chunk_size": 5}, {"schema": "batch-9"},
                   {"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "soon"}):  # fmt: skip
        say(f"{change}", council.open(replace(batch.saying(**change), signer=a_signer(COUNCIL))))
    say("a short key", council.open(batch, key="short"))
    id_ = say("open", council.open(batch))["batch"]
    say("again", council.open(batch))
    say("again, under another key", council.open(batch, key="another-key-of-this-client"))
    say("the key for another", council.open(other, key=batch.sha256))
    say("the night for another", council.open(other))
    say("another digest", council.put(batch, id_, "persons", 0, b"x"))
    say("no digest", council.put(batch, id_, "persons", 0, files["persons"], **{"Content-Digest": "md5=:x:"}))
    say("no such chunk", council.put(batch, id_, "persons", 9, files["persons"]))
    say("no such table", council.put(batch, id_, "people", 0, files["persons"]))
    say("squeezed", council.put(batch, id_, "persons", 0, files["persons"], **{"Content-Encoding": "gzip"}))
    say("CSV", council.put(batch, id_, "persons", 0, files["persons"], **{"Content-Type": "text/csv"}))
    say("a chunk", council.put(batch, id_, "persons", 0, files["persons"]))
    say("the chunk again", council.put(batch, id_, "persons", 0, files["persons"]))
    say("what is missing", council.on(batch, id_))
    say("too early", council.commit(batch, id_))
    say("no receipt", council.on(batch, id_, "receipt"))
    council.fill(batch, id_)
    say("for another", council.on(batch, id_, "commit", "POST", json={"manifest_sha256": "0" * 64}))
    say("commit", council.commit(batch, id_))
    settle()
    say("accepted", council.on(batch, id_))
    say("committed twice", council.commit(batch, id_))
    say("received", council.on(batch, id_, "receipt?kind=received"))
    say("verdict", council.on(batch, id_, "receipt"))
    say("too late", council.on(batch, id_, method="DELETE"))
    say("no such batch", council.on(batch, "0" * 32))
    say("rejections", council.on(batch, id_, "rejections"))
    ahead = agreed(a_batch(kind="delta", sequence=3, previous="0" * 64))
    held = council.hand_in(ahead)
    settle()
    say("held", council.on(ahead, held))
    stands = say("a night is missing", council.call("GET", "/v1/flows/education"))
    told.append(
        (
            "which",
            0,
            [
                stands["last_sequence"],
                stands["missing_nights"],
                stands["last_manifest_sha256"] == batch.sha256,
                sorted(stands["batches"][0]),
            ],
        )
    )
    wrong = agreed(a_batch(kind="delta", sequence=2, previous="1" * 64))
    refused = council.hand_in(wrong)
    settle()
    say("another before it", council.on(wrong, refused))
    left = agreed(a_batch(sequence=9))
    open_ = say("open, to be left", council.open(left))["batch"]
    say("withdrawn", council.on(left, open_, method="DELETE"))
    say("withdrawn twice", council.on(left, open_, method="DELETE"))
    say("gone", council.on(left, open_))
    for number in range(10, 15):
        say("one more open", council.open(agreed(a_batch(sequence=number))))
    council.token = "made-up"
    say("a made-up token", council.on(batch, id_))
    return told


def test_the_sandbox_says_what_the_broker_says(http: TestClient, desk: Reception, tmp_path: Path) -> None:
    real = conversation(Caller(http), lambda: validation.validate_sealed(desk))
    sandbox = Sandbox(a_home(tmp_path / "home"), base=BASE, now=clock.now)
    tried = conversation(Caller(over(sandbox)), lambda: None)
    assert [one for one, other in zip(real, tried, strict=True) if one != other] == []
    assert {status for _, status, _ in real} >= {200, 201, 202, 204, 400, 401, 403, 404, 409, 413, 415, 422, 429}


@pytest.mark.parametrize("left", [2, -2])
def test_of_a_form_on_its_way_out_the_sandbox_says_what_the_broker_says(
    left: int, http: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = clock.now().date() + timedelta(days=left)
    days = {"deprecated": str(last - FAREWELL), "sunset": str(last)}
    going = ({**manifests.VERSIONS[0], **days},)
    for one in (manifests, submissions):
        monkeypatch.setattr(one, "VERSIONS", going)
    sandbox = Sandbox(a_home(tmp_path / "home"), base=BASE, now=clock.now, sunset=last)

    def told(council: Caller) -> list[Any]:
        batch = agreed(a_batch())
        answers = [council.open(batch), council.open(batch)]
        known = council.call("GET", "/v1/flows/education").json()["terms"]["manifests"]
        said = [(one.status_code, *(one.headers.get(name) for name in ("Deprecation", "Sunset"))) for one in answers]
        return [said, [one.json().get("type") for one in answers], known]

    assert told(Caller(over(sandbox))) == told(Caller(http))


@pytest.mark.parametrize("trouble", ["", *TROUBLES])
def test_the_client_gets_a_batch_through_whatever_befalls_it(trouble: str, tmp_path: Path) -> None:
    home = a_made_home(tmp_path / "home")
    made = an_encoded_batch(tmp_path, home)
    for every in (3, 4, 5):
        sandbox = Sandbox(home, base=BASE, now=lambda: NOW, trouble=trouble, every=every)
        caller = client.Broker(home, now=lambda: NOW, http=over(sandbox), sleep=lambda _: None)
        assert client.submit(made.folder, home, caller).state == "accepted"


def test_a_night_that_broke_off_and_was_encoded_anew_is_sent(tmp_path: Path) -> None:
    home = a_made_home(tmp_path / "home")
    first = an_encoded_batch(tmp_path / "one", home)
    sandbox = Sandbox(home, base=BASE, now=lambda: NOW)
    caller = client.Broker(home, now=lambda: NOW, http=over(sandbox), sleep=lambda _: None)
    payload, signature, manifest = client.read_batch(first.folder)
    left = caller.open(manifest.flow, payload, signature)["batch"]  # and the line breaks
    second = an_encoded_batch(tmp_path / "two", home, bands=({**BAND, "Percent": "50"},))
    assert second.manifest.sequence == first.manifest.sequence
    assert client.submit(second.folder, home, caller).state == "accepted"
    assert caller.status(manifest.flow, left)["reason"] == "withdrawn"
    altered = replace(manifest, period_to="2026-11-21").canonical()
    with pytest.raises(Refused, match="409"):  # what was committed makes way for nobody
        caller.open(manifest.flow, altered, Signer(home.signing_kid, home.signing_key).sign(altered))
