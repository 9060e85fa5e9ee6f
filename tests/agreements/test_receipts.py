"""Decision receipts: signed, replayed offline, and a copy for the asker that says no more than was shown."""

from __future__ import annotations

import base64
import copy
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreements import (
    VOCABULARY,
    BadSignature,
    DecisionReceipt,
    Facts,
    Held,
    Link,
    PartyKey,
    Snapshot,
    StatusEvent,
    decide,
    make_receipt,
    replay,
)
from agreements.receipts import AskerCopy
from agreements.request import RequestRefused
from agreements.signing import sign_payload
from tests.agreements.test_laws import law
from tests.agreements.worlds import SCALE, World, disclosing, world
from tests.spec import table

KEY = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
KEYS = {"broker/1": PartyKey("broker/1", KEY.public_key())}
CASES = [case for case in table.CASES if "expect" in case or "only" in case]


def a_receipt(w: Any, request: Any, facts: Any, at: datetime, salt: bytes = bytes(32)) -> DecisionReceipt:
    vocabulary = getattr(w, "vocabulary", VOCABULARY)
    decision = decide(w.snapshot, vocabulary, request, facts, at)
    return make_receipt(
        w.snapshot, vocabulary, request, [decision], source=facts.source, at=at, salt=salt, kid="broker/1", key=KEY
    )


@pytest.mark.parametrize("slow", [False, True], ids=["compiled", "literal"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["n"])
def test_p15_a_receipt_is_decided_again_with_an_equal_result(case: Any, slow: bool) -> None:
    w = table.world(case)
    receipt = a_receipt(w, table.request(case), table.facts(case), w.at)
    assert replay(json.loads(json.dumps(receipt.jws)), w.snapshot, w.vocabulary, KEYS, slow=slow) == ()
    assert AskerCopy(json.loads(json.dumps(receipt.asker.body))).belongs_to(receipt.jws, KEYS)


@law
def test_p15_holds_on_drawn_worlds(w: World, _: Random) -> None:
    receipt = a_receipt(w, w.request, w.facts, w.at)
    assert replay(receipt.jws, w.snapshot, VOCABULARY, KEYS) == ()


def silenced(w: World, draw: Random) -> tuple[str, Facts]:
    """A record beside the world's own that shows nothing, and why it does not."""
    other = replace(w.facts, record="r9")
    ways = {
        "shield": replace(other, tags=other.tags | {draw.choice(("shield_full", "sever_boundary"))}),
        "shield unknown": replace(other, tags_unknown=other.tags_unknown | {"shield_full"}),
        "no link": replace(other, link=draw.choice((Link.NONE, None))),
        "whose unknown": replace(other, relation=None),
        "holds nothing": replace(other, held={}),
        "too old": replace(other, held=dict.fromkeys(other.held, (Held(date(1999, 1, 1)),))),
        "another case": replace(other, case="C9"),
    }
    for way in draw.sample(sorted(ways), len(ways)):
        if not decide(w.snapshot, VOCABULARY, w.request, ways[way], w.at).shown:
            return way, ways[way]
    raise AssertionError("a shielded record shows nothing")


def test_p11_the_askers_copy_is_the_same_bytes_with_and_without_a_silent_record() -> None:
    seen = Counter[str]()
    for seed in disclosing():
        w, draw = world(seed), Random(seed)
        way, silent = silenced(w, draw)
        seen[way] += 1
        decisions = [decide(w.snapshot, VOCABULARY, w.request, facts, w.at) for facts in (w.facts, silent)]
        assert decisions[0].shown and not decisions[1].shown
        copies = []
        for several in (decisions[:1], draw.sample(decisions, 2)):
            receipt = make_receipt(
                w.snapshot, VOCABULARY, w.request, several, source=w.facts.source, at=w.at, salt=bytes(32),
                kid="broker/1", key=KEY,
            )  # fmt: skip
            body = dict(receipt.asker.body)
            assert len(body.pop("commitment")) == 64
            copies.append(rfc8785.dumps(body))
        assert len(set(copies)) == 1, f"world({seed}), {way}"
    assert seen.total() >= 1000 * SCALE and len(seen) == 7, seen


def test_a_forged_mode_is_found_by_replay_and_a_changed_byte_by_the_signature() -> None:
    case = table.CASES[0]
    w = table.world(case)
    receipt = a_receipt(w, table.request(case), table.facts(case), w.at)
    payload = receipt.jws["payload"]
    body = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    body["records"][0]["modes"]["health.mental_health_open"] = "summary"
    forged = sign_payload(
        rfc8785.dumps(body), typ="decision-receipt+json", kid="broker/1", key=KEY, at=datetime(2026, 6, 1, tzinfo=UTC)
    )
    assert replay(forged, w.snapshot, VOCABULARY, KEYS) == (
        "records[0].modes: the receipt and the decision now differ",
    )
    spoilt: Any = copy.deepcopy(receipt.jws)
    spoilt["payload"] = forged["payload"]
    with pytest.raises(BadSignature):
        replay(spoilt, w.snapshot, VOCABULARY, KEYS)


@pytest.mark.parametrize("where", ["source", "receipt", "record", "request"])
def test_what_a_receipt_says_beyond_its_decision_is_found_by_replay(where: str) -> None:
    case = table.CASES[0]
    w = table.world(case)
    payload = a_receipt(w, table.request(case), table.facts(case), w.at).jws["payload"]
    body = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if where == "source":
        body["source"] = "northshire-police"
    else:
        {"receipt": body, "record": body["records"][0], "request": body["request"]}[where]["note"] = "more"
    forged = sign_payload(
        rfc8785.dumps(body), typ="decision-receipt+json", kid="broker/1", key=KEY, at=datetime(2026, 6, 1, tzinfo=UTC)
    )
    (said,) = replay(forged, w.snapshot, VOCABULARY, KEYS)
    assert said.startswith({"source": "records[0].facts", "record": "records[0].note"}.get(where, where))


@pytest.mark.parametrize("strange", [{"tags": None}, {"tags": {"shield_full"}}, {"tags_unknown": None}, {"link": 3}])
def test_facts_that_are_not_of_their_kind_are_refused_when_they_are_made(strange: Any) -> None:
    with pytest.raises(RequestRefused, match=r"facts\.(tags|tags_unknown|link): "):
        Facts(source="northshire-icb", **strange)


def test_what_is_signed_or_suspended_later_changes_no_earlier_receipt() -> None:
    case = table.CASES[0]
    w = table.world(case)
    receipt = a_receipt(w, table.request(case), table.facts(case), w.at)
    mash = next(one for one in w.documents if one.id == "northshire-mash")
    pause = StatusEvent("northshire-icb", mash.digest, "suspend", w.at + timedelta(seconds=1), "northshire-icb/1")
    other = table.world({"second": {"grants": ["health-cp"]}})
    later = Snapshot.of([*w.documents, *other.documents], [*w.snapshot.signatures, *other.snapshot.signatures], [pause])
    assert replay(receipt.jws, later, VOCABULARY, KEYS) == ()


def test_without_a_document_it_names_nothing_is_proved() -> None:
    case = table.CASES[0]
    w = table.world(case)
    receipt = a_receipt(w, table.request(case), table.facts(case), w.at)
    with pytest.raises(ValueError, match="not here"):
        replay(receipt.jws, Snapshot.of(w.documents[:1], w.snapshot.signatures), VOCABULARY, KEYS)


def test_the_askers_copy_says_no_more_than_was_shown() -> None:
    case = table.CASES[0]
    w = table.world(case)
    facts = replace(table.facts(case), record="r_secret", tags=frozenset({"shield_address"}))
    text = json.dumps(a_receipt(w, table.request(case), facts, w.at).asker.body)
    for hidden in ("r_secret", "shield", "baseline", "recorded_on", 'emergency_attendance": "none'):
        assert hidden not in text
    assert '"health.not_brought": "summary"' in text


def test_the_commitment_cannot_be_guessed_without_the_salt() -> None:
    case = table.CASES[0]
    w = table.world(case)
    one = a_receipt(w, table.request(case), table.facts(case), w.at, salt=b"a" * 32)
    two = a_receipt(w, table.request(case), table.facts(case), w.at, salt=b"b" * 32)
    assert one.asker.body["commitment"] != two.asker.body["commitment"]
    assert not one.asker.belongs_to(two.jws, KEYS)
    with pytest.raises(ValueError, match="32 random bytes"):
        a_receipt(w, table.request(case), table.facts(case), w.at, salt=b"short")


def test_a_fault_of_the_engine_shows_nothing_and_says_so() -> None:
    case = table.CASES[0]
    w = table.world(case)
    request = table.request(case)
    receipt = make_receipt(
        w.snapshot,
        VOCABULARY,
        request,
        [],
        source="northshire-icb",
        at=w.at,
        salt=bytes(32),
        kid="broker/1",
        key=KEY,
        engine_error=True,
    )
    assert receipt.asker.body["records"] == []
    assert replay(receipt.jws, w.snapshot, VOCABULARY, KEYS) == ()
