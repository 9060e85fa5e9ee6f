"""Signatures over the exact digest, and what a single changed byte does to them."""

from __future__ import annotations

import base64
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.jwk import OKPKey

from agreements import (
    VOCABULARY,
    Agreement,
    BadSignature,
    DocumentRefused,
    PartyKey,
    Snapshot,
    decide,
    from_canonical,
    join,
    read,
    sign,
    sign_event,
    verify,
    verify_event,
)
from agreements.canonical import jcs
from agreements.lifecycle import standings
from agreements.signing import stated_event, verify_jws
from tests.agreements.worlds import SCALE
from tests.spec import table

AT = datetime(2026, 3, 20, 9, tzinfo=UTC)
PARTIES = ("northshire-la", "northshire-icb", "northshire-police")
PRIVATE = {party: Ed25519PrivateKey.from_private_bytes(bytes([index]) * 32) for index, party in enumerate(PARTIES, 1)}
KEYS = {f"{party}/1": PartyKey(f"{party}/1", key.public_key()) for party, key in PRIVATE.items()}
UMBRELLA = read((Path(__file__).resolve().parents[1] / "spec" / "northshire-tier1.toml").read_bytes())
assert isinstance(UMBRELLA, Agreement)
MASH = read(table.text_of(table.fixture("northshire-mash")), umbrellas=[UMBRELLA])
SIGNED = sign(MASH, kid="northshire-icb/1", key=PRIVATE["northshire-icb"], at=AT)


def everyone(document: Any) -> dict[str, Any]:
    return join(sign(document, kid=f"{party}/1", key=PRIVATE[party], at=AT) for party in PARTIES)


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(max_codepoint=127))
    | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127)) | st.text(st.characters()), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(ANY_JSON)
def test_the_canonical_form_is_that_of_the_rfc_8785_library_however_it_is_made(value: object) -> None:
    try:
        expected = rfc8785.dumps(value)  # type: ignore[arg-type]
    except ValueError:
        with pytest.raises(ValueError, match=r"\S"):
            jcs(value)
    else:
        assert jcs(value) == expected


def test_each_party_signs_the_exact_digest_and_one_jws_holds_them_all() -> None:
    signatures = verify(MASH, everyone(MASH), KEYS)
    assert {one.party for one in signatures} == set(PARTIES)
    assert {one.digest for one in signatures} == {MASH.digest}
    assert {one.signed_at for one in signatures} == {AT}


def test_an_independent_library_verifies_the_signature() -> None:
    public = PRIVATE["northshire-icb"].public_key().public_bytes_raw()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(public).rstrip(b"=").decode()}
    lenient = joserfc_jws.JWSRegistry(algorithms=["Ed25519"], strict_check_header=False)  # `signed_at` is our own
    opened = joserfc_jws.deserialize_json(SIGNED, OKPKey.import_key(jwk), registry=lenient)  # type: ignore[arg-type]
    assert opened.payload == MASH.canonical


def test_p14_a_changed_byte_anywhere_breaks_it() -> None:
    draw, whole, verdicts = Random(14), json.dumps(SIGNED).encode(), Counter[str]()
    for _ in range(2000 * SCALE):
        text = bytearray(whole)
        text[draw.randrange(len(text))] ^= draw.randint(1, 127)
        try:
            changed = json.loads(bytes(text))
        except ValueError:
            verdicts["no JSON"] += 1
            continue
        if not isinstance(changed, dict) or changed == SIGNED:
            verdicts["the same"] += 1
            continue
        with pytest.raises(BadSignature):
            verify(MASH, changed, KEYS)
        verdicts["refused"] += 1
    assert verdicts["refused"] >= 1000 * SCALE and verdicts["the same"] < 10 * SCALE, verdicts


def test_p14_a_changed_byte_of_the_document_is_another_digest_or_no_document() -> None:
    draw, verdicts = Random(41), Counter[str]()
    for _ in range(500 * SCALE):
        raw = bytearray(MASH.canonical)
        raw[draw.randrange(len(raw))] ^= draw.randint(1, 127)
        try:
            document = from_canonical(bytes(raw), umbrellas=[UMBRELLA])  # type: ignore[list-item]
        except DocumentRefused:
            verdicts["refused"] += 1
            continue
        verdicts["another"] += 1
        assert document.canonical == bytes(raw) and document.digest != MASH.digest
        with pytest.raises(BadSignature):
            verify(document, SIGNED, KEYS)
    assert verdicts.total() == 500 * SCALE and verdicts["another"] >= 50 * SCALE, verdicts


def test_a_signature_over_another_text_is_refused() -> None:
    body = table.fixture("northshire-mash") | {"title": "Another title"}
    other = read(table.text_of(body), umbrellas=[UMBRELLA])
    with pytest.raises(BadSignature, match="another text"):
        verify(other, SIGNED, KEYS)
    with pytest.raises(BadSignature, match="different documents"):
        join([SIGNED, sign(other, kid="northshire-la/1", key=PRIVATE["northshire-la"], at=AT)])


NO_JWS = (
    None, [], {}, "x", 3, ["payload", "signatures"], {"payload": "", "signatures": {}}, {"payload": "", "signatures": [{}]},
    {"payload": 3, "signatures": [3]}, {"payload": "e30", "signatures": "e30"}, {"payload": None, "signatures": [None]},
    {"payload": "e30", "signatures": [{"protected": 1, "signature": 2}]},
    {"payload": "TmFO", "signatures": [{"protected": "TmFO", "signature": "TmFO"}]},  # NaN, which is not JSON
    {"payload": "W10", "signatures": [{"protected": "W10", "signature": "W10"}]},
    {"payload": "eyJhIjpOYU59", "signatures": [{"protected": "eyJhIjpOYU59", "signature": ""}]},
)  # fmt: skip


@pytest.mark.parametrize("given", NO_JWS, ids=str)
def test_what_is_no_jws_is_refused_in_words_for_a_person(given: Any) -> None:
    for refuse in (
        lambda: verify(MASH, given, KEYS), lambda: verify_jws(given, KEYS), lambda: verify_event(given, KEYS),
        lambda: stated_event(given), lambda: join([SIGNED, given]),
    ):  # fmt: skip
        with pytest.raises(BadSignature) as refused:
            refuse()
        words = str(refused.value)
        assert words and not any(one in words for one in ("NoneType", "'str'", "object", "unpack", "nan", "iterable"))


def test_a_stranger_cannot_sign_and_an_unknown_or_lapsed_key_is_refused() -> None:
    with pytest.raises(BadSignature, match="no party"):
        sign(MASH, kid="elsewhere/1", key=PRIVATE["northshire-icb"], at=AT)
    with pytest.raises(BadSignature, match="not registered"):
        verify(MASH, SIGNED, {})
    lapsed = PartyKey("northshire-icb/1", KEYS["northshire-icb/1"].public, valid_to=AT)
    with pytest.raises(BadSignature, match="not valid"):
        verify(MASH, SIGNED, {lapsed.kid: lapsed})
    stolen = {"northshire-icb/1": PartyKey("northshire-icb/1", KEYS["northshire-la/1"].public)}
    with pytest.raises(BadSignature, match="does not match"):
        verify(MASH, SIGNED, stolen)


def test_only_the_party_itself_can_pause_its_part() -> None:
    paused = sign_event(MASH, "suspend", kid="northshire-icb/1", key=PRIVATE["northshire-icb"], at=AT)
    event = verify_event(paused, KEYS)
    assert (event.party, event.do, event.at, event.digest) == ("northshire-icb", "suspend", AT, MASH.digest)
    with pytest.raises(BadSignature):
        verify_event(SIGNED, KEYS)  # a signature on the document is no event
    with pytest.raises(BadSignature):
        verify(MASH, paused, KEYS)  # nor the reverse


def test_where_a_party_stands_follows_from_signatures_and_events() -> None:
    signatures = verify(MASH, everyone(MASH), KEYS)[:2]
    hours = [AT + timedelta(hours=hour) for hour in (1, 2, 3)]
    events = [
        verify_event(sign_event(MASH, do, kid="northshire-icb/1", key=PRIVATE["northshire-icb"], at=at), KEYS)
        for do, at in zip(("suspend", "resume", "withdraw"), hours, strict=True)
    ]
    signed = {one.party for one in signatures}
    states = [standings(MASH, signatures, events, at)["northshire-icb"].state for at in (AT, *hours)]
    assert states == ["signed", "suspended", "signed", "withdrawn"]
    (unsigned,) = set(PARTIES) - signed
    assert standings(MASH, signatures, events, hours[2])[unsigned].state == "unsigned"


def test_a_snapshot_takes_the_signed_json_itself_and_decides_on_it() -> None:
    case = table.CASES[0]
    jws = [everyone(UMBRELLA), everyone(MASH)]
    pause = sign_event(MASH, "suspend", kid="northshire-icb/1", key=PRIVATE["northshire-icb"], at=AT)
    at = datetime(2026, 6, 1, 9, tzinfo=UTC)
    live = Snapshot.of([UMBRELLA, MASH], jws, [], KEYS)
    paused = Snapshot.of([UMBRELLA, MASH], jws, [pause], KEYS)
    request, facts = table.request(case), table.facts(case)
    assert decide(live, VOCABULARY, request, facts, at).shown
    assert not decide(paused, VOCABULARY, request, facts, at).shown
    with pytest.raises(BadSignature):
        Snapshot.of([UMBRELLA, MASH], jws, [], {})
