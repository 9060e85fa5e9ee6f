"""The bundle, offline replay from it, and the receipts of the past."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from agreements import VOCABULARY, Agreement, PartyKey, Snapshot, decide, make_receipt, replay, sign, sign_event
from agreements.bundle import BundleRefused, jwk_set, pack, unpack
from audit.cli import auditor
from tests.agreements import golden
from tests.spec import table

BROKER = Ed25519PrivateKey.from_private_bytes(b"the broker, a key for tests only")
CASE = next(case for case in table.CASES if "expect" in case)
WORLD = table.world(CASE)
SIGNED = datetime(2026, 3, 1, tzinfo=UTC)
PARTIES = sorted({party for one in WORLD.documents if isinstance(one, Agreement) for party in one.parties})
PRIVATE = {party: Ed25519PrivateKey.from_private_bytes(party.encode().ljust(32, b".")) for party in PARTIES}
KEYS = {
    "broker/1": PartyKey("broker/1", BROKER.public_key()),
    **{f"{party}/1": PartyKey(f"{party}/1", key.public_key()) for party, key in PRIVATE.items()},
}


def signatures(at: datetime = SIGNED) -> list[dict[str, Any]]:
    return [
        sign(one, kid=f"{party}/1", key=PRIVATE[party], at=at)
        for one in WORLD.documents
        if isinstance(one, Agreement)
        for party in one.parties
    ]


def a_receipt(snapshot: Snapshot) -> dict[str, Any]:
    request, facts = table.request(CASE), table.facts(CASE)
    decision = decide(snapshot, VOCABULARY, request, facts, WORLD.at)
    assert decision.shown
    receipt = make_receipt(
        snapshot, VOCABULARY, request, [decision], source=facts.source, at=WORLD.at, salt=bytes(32), kid="broker/1",
        key=BROKER,
    )  # fmt: skip
    return dict(receipt.jws)


def a_case(tmp_path: Path) -> tuple[Path, Path]:
    """A receipt and the bundle it is replayed from, as files."""
    snapshot = Snapshot.of(WORLD.documents, signatures(), (), KEYS)
    receipt, bundle = tmp_path / "receipt.json", tmp_path / "bundle.json"
    receipt.write_text(json.dumps(a_receipt(snapshot)))
    bundle.write_bytes(pack(WORLD.documents, signatures(), (), KEYS.values()))
    return receipt, bundle


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path]:
    return a_case(tmp_path)


@pytest.mark.parametrize("slow", [[], ["--slow"]], ids=["compiled", "literal"])
def test_an_auditor_decides_a_receipt_again_from_two_files(case: tuple[Path, Path], slow: list[str]) -> None:
    answer = CliRunner().invoke(auditor, ["replay", *map(str, case), *slow])
    assert answer.exit_code == 0, answer.output
    assert "1 decision receipt is decided again as they were" in answer.output and "broker/1" in answer.output
    told = json.loads(CliRunner().invoke(auditor, ["replay", *map(str, case), "--json"]).output)
    assert (told["exit"], told["receipts"], told["vocabulary"]) == (0, 1, VOCABULARY.id)


def test_a_receipt_with_one_letter_changed_is_found(case: tuple[Path, Path], tmp_path: Path) -> None:
    receipt, bundle = case
    body = json.loads(receipt.read_text())
    body["payload"] = body["payload"][:-5] + ("A" if body["payload"][-5] != "A" else "B") + body["payload"][-4:]
    receipt.write_text(json.dumps(body))
    answer = CliRunner().invoke(auditor, ["replay", str(receipt), str(bundle), "--evidence", str(tmp_path / "kept")])
    assert answer.exit_code == 1 and "signature does not match" in answer.output
    assert list((tmp_path / "kept").rglob("receipt.json"))


def test_a_bundle_that_lacks_what_the_receipt_names_proves_nothing(case: tuple[Path, Path]) -> None:
    receipt, bundle = case
    lacking = [one for one in signatures() if "northshire-icb/1" not in json.dumps(_headers(one))]
    bundle.write_bytes(pack(WORLD.documents, lacking, (), KEYS.values()))
    answer = CliRunner().invoke(auditor, ["replay", str(receipt), str(bundle)])
    assert answer.exit_code == 3 and "what northshire-icb signed on" in answer.output


def _headers(jws: dict[str, Any]) -> list[Any]:
    import base64

    return [json.loads(base64.urlsafe_b64decode(one["protected"] + "==")) for one in jws["signatures"]]


def test_what_is_handed_in_later_changes_no_receipt_whatever_its_date(case: tuple[Path, Path]) -> None:
    receipt, _ = case
    mash = next(one for one in WORLD.documents if one.id == "northshire-mash")
    backdated = sign_event(mash, "suspend", kid="northshire-icb/1", key=PRIVATE["northshire-icb"], at=SIGNED)
    opened = unpack(pack(WORLD.documents, signatures(), [backdated], KEYS.values()))
    assert opened.replay(json.loads(receipt.read_text())) == ()
    facts = table.facts(CASE)
    assert not decide(opened.snapshot, VOCABULARY, table.request(CASE), facts, WORLD.at).shown


def test_order_makes_no_difference_to_a_bundle() -> None:
    there = pack(WORLD.documents, signatures(), (), KEYS.values())
    back = pack(WORLD.documents[::-1], signatures()[::-1], (), list(KEYS.values())[::-1])
    assert there == back


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda body: body.pop("vocabulary"), "it lacks vocabulary; have the host"),
        (lambda body: body.update(kind="letter"), "it is another file; have the host write it again"),
        (lambda body: body["keys"].clear(), "not registered"),
        (lambda body: body["documents"].append("{}"), "kind"),
        (lambda body: body["vocabulary"].update(id="other@1"), "only other@1 is known"),
        (lambda body: body["keys"][0].update(public="AA"), "32 bytes"),
    ],
    ids=["no vocabulary", "another kind", "no keys", "no document", "another vocabulary", "a short key"],
)
def test_a_bundle_that_is_not_whole_is_refused(spoil: Any, says: str) -> None:
    body = json.loads(pack(WORLD.documents, signatures(), (), KEYS.values()))
    spoil(body)
    with pytest.raises(BundleRefused, match=says):
        unpack(json.dumps(body).encode())


def test_keys_brought_along_are_believed_and_those_in_the_bundle_are_not() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    raw = pack(WORLD.documents, signatures(), (), KEYS.values())
    with pytest.raises(BundleRefused, match="does not match"):
        unpack(raw, trusted=[PartyKey(kid, stranger.public_key()) for kid in KEYS])


def told_of(*args: object) -> tuple[int, str]:
    answer = CliRunner().invoke(auditor, ["replay", *map(str, args)])
    return answer.exit_code, answer.output


def test_an_auditor_trusts_only_the_keys_brought_along(case: tuple[Path, Path], tmp_path: Path) -> None:
    registry, public, ours = tmp_path / "registry.json", tmp_path / "public.json", tmp_path / "ours.json"
    registry.write_text(json.dumps(jwk_set(KEYS.values()) | {"kept_by": "the partnership"}))
    assert told_of(*case, "--keys", registry)[0] == 0
    few = [key for kid, key in KEYS.items() if kid != "northshire-icb/1"]
    ours.write_text(json.dumps(jwk_set(few)))
    code, told = told_of(*case, "--keys", ours)
    assert code == 3 and "what northshire-icb signed on" in told  # by a key that nobody brought
    icb = jwk_set([KEYS["northshire-icb/1"]])["keys"][0]
    public.write_text(json.dumps({"agency": "northshire-icb", "signatory": {"kid": icb["kid"], "public": icb["x"]}}))
    code, told = told_of(*case, "--keys", ours, "--keys", public)
    assert code == 0 and "northshire-icb/1" in told
    assert told_of(*case, "--keys", case[1])[0] == 0  # a bundle's own keys, from a bundle that is trusted
    public.write_text(json.dumps(jwk_set(key for kid, key in KEYS.items() if kid != "broker/1")))
    code, told = told_of(*case, "--keys", public)
    assert code == 3 and "who signed it" in told  # the broker's own key is not among them


def test_a_key_that_is_not_the_one_that_signed_is_a_finding(case: tuple[Path, Path], tmp_path: Path) -> None:
    stranger = PartyKey("northshire-icb/1", BROKER.public_key())
    forged, honest = tmp_path / "forged.json", tmp_path / "honest.json"
    forged.write_text(json.dumps(jwk_set([*(key for key in KEYS.values() if key.kid != stranger.kid), stranger])))
    honest.write_text(json.dumps(jwk_set(KEYS.values())))
    code, told = told_of(*case, "--keys", forged, "--evidence", tmp_path / "kept")
    assert code == 1 and "northshire-icb/1: the signature does not match" in told
    code, told = told_of(*case, "--keys", honest, "--keys", forged)
    assert code == 3 and "northshire-icb/1 is another key in another file" in told


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": []}', '{"keys": [{"kty": "EC", "kid": "x"}]}', '{"keys": 3}']
)
def test_a_file_without_keys_proves_nothing(case: tuple[Path, Path], tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    code, told = told_of(*case, "--keys", tmp_path / "keys.json")
    assert code == 3 and "keys.json" in told
    assert told_of(*case, "--keys", tmp_path / "absent.json")[0] == 3


def test_a_bundle_whose_signature_was_changed_is_a_finding(case: tuple[Path, Path], tmp_path: Path) -> None:
    receipt, bundle = case
    body = json.loads(bundle.read_text())
    one = body["signatures"][0]["signatures"][0]
    one["signature"] = ("A" if one["signature"][0] != "A" else "B") + one["signature"][1:]
    bundle.write_text(json.dumps(body))
    code, told = told_of(receipt, bundle, "--evidence", tmp_path / "kept")
    assert code == 1 and "the signature does not match" in told


@pytest.mark.parametrize("slow", [False, True], ids=["compiled", "literal"])
def test_every_receipt_of_the_past_is_still_decided_as_it_was(slow: bool) -> None:
    replayed = {
        n: replay(receipt, snapshot, vocabulary, golden.KEYS, slow=slow)
        for n, vocabulary, snapshot, receipt in golden.kept()
    }
    assert len(golden.FILES) == 3 and len(replayed) >= 68 and not any(replayed.values()), {
        n: told for n, told in replayed.items() if told
    }
