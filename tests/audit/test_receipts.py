"""The log receipt: a proof that stands by itself, and falls with any change."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.checkpoint import NoteInvalid
from audit.events import SECTIONS, Section
from audit.merkle import leaf_hash, verify_inclusion
from audit.policy import Policy, QuorumMissing
from audit.receipts import LogReceipt, ReceiptInvalid, TlogProof
from tests.builders_log import ALog, a_key, a_policy

LOG = ALog().add(70)
POLICY = Policy.parse(a_policy().encode())


@pytest.mark.parametrize("size", [1, 2, 3, 64, 65, 70])
def test_a_receipt_read_back_verifies_at_every_shape_of_tree(size: int) -> None:
    log = ALog().add(size)
    for index in {0, size // 2, size - 1}:
        receipt = LogReceipt.loads(log.receipt(index).dumps())
        assert receipt == log.receipt(index)
        assert receipt.verify(POLICY).checkpoint.size == size == receipt.size


def test_the_proof_is_the_text_that_c2sp_specifies_and_carries_its_leaf() -> None:
    proof = LOG.receipt(5).proof
    first, extra, index, *path = proof.text.split("\n\n")[0].split("\n")
    assert first == "c2sp.org/tlog-proof@v1"
    assert index == "index 5"
    assert extra.startswith("extra ")
    assert len(path) == 7
    assert proof.text.endswith(LOG.signed().note)
    checkpoint = proof.signed.checkpoint
    verify_inclusion(leaf_hash(proof.leaf.text), 5, checkpoint.size, proof.path, checkpoint.root)
    assert TlogProof.parse(proof.text) == proof
    assert proof.verify(POLICY).checkpoint == checkpoint


def test_a_proof_of_the_only_leaf_has_no_path() -> None:
    proof = ALog().add(1).receipt(0).proof
    assert "index 0\n\n" in proof.text
    assert TlogProof.parse(proof.text) == proof


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_receipt_survives_one_changed_character_property(data: st.DataObject) -> None:
    text = json.dumps(LOG.receipt(41).to_json(), ensure_ascii=False)
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from('aZ9+/= \\"{}\n—').filter(lambda char: char != text[at]))
    changed = text[:at] + put + text[at + 1 :]
    try:
        same = json.loads(changed) == json.loads(text)  # a space between tokens is no change
    except ValueError:
        same = False
    if not same:
        with pytest.raises((ReceiptInvalid, NoteInvalid)):
            LogReceipt.loads(changed).verify(POLICY)


def test_a_receipt_that_does_not_name_its_log_is_not_one() -> None:
    text = json.dumps(LOG.receipt(41).to_json()).replace('"log"', '"lag"')
    with pytest.raises(ReceiptInvalid, match="another log"):
        LogReceipt.loads(text)


def test_a_redacted_receipt_verifies_and_the_withheld_sections_are_not_in_it() -> None:
    receipt = LOG.receipt(3, show=("what",))
    receipt.verify(POLICY)
    assert set(receipt.opening.withheld) == set(SECTIONS) - {"what"}
    assert "northshire-council" not in receipt.dumps()


def test_an_event_id_counts_only_as_far_as_it_is_opened() -> None:
    receipt = LOG.receipt(3)
    with pytest.raises(ReceiptInvalid, match="another event"):
        replace(receipt, event_id="event-000004").verify(POLICY)
    replace(LOG.receipt(3, show=("who",)), event_id="event-000004").verify(
        POLICY
    )  # `what` withheld: nothing to hold it to


def test_another_section_in_place_of_the_one_committed_to_fails() -> None:
    receipt = LOG.receipt(3)
    why = receipt.opening.sections["why"]
    assert isinstance(why, Section)
    for changed in (Section("why", {"purpose": "CIN"}, why.salt), Section("why", why.body, b"\1" * 32)):
        opening = replace(receipt.opening, sections={**receipt.opening.sections, "why": changed})
        with pytest.raises(ReceiptInvalid, match="as opened"):
            replace(receipt, opening=opening).verify(POLICY)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda proof: replace(proof, index=proof.index + 1),
        lambda proof: replace(proof, path=proof.path[:-1]),
        lambda proof: replace(proof, path=(*proof.path, proof.path[0])),
        lambda proof: replace(proof, path=(proof.path[1], proof.path[0], *proof.path[2:])),
        lambda proof: replace(proof, leaf=replace(proof.leaf, at_ms=proof.leaf.at_ms + 1)),
        lambda proof: replace(proof, signed=ALog().add(71).signed()),
    ],
)
def test_a_proof_for_another_place_or_tree_fails(spoil) -> None:
    receipt = LOG.receipt(10)
    with pytest.raises(ReceiptInvalid, match="not in the tree"):
        replace(receipt, proof=spoil(receipt.proof)).verify(POLICY)


def test_a_receipt_under_another_key_or_without_the_quorum_is_not_accepted() -> None:
    with pytest.raises(NoteInvalid):
        ALog(key=a_key(2)).add(3).receipt(1).verify(POLICY)
    with pytest.raises(QuorumMissing):
        LOG.receipt(1).verify(Policy.parse(a_policy(witnesses=3, threshold=2).encode()))
    LOG.receipt(1, note=LOG.signed([0, 2]).note).verify(Policy.parse(a_policy(witnesses=3, threshold=2).encode()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"event_id": "event-000001"}',
        '{"event_id": "event-000001", "opening": {}, "proof": "x"}',
    ],
)
def test_what_is_no_receipt_is_refused(text: str) -> None:
    with pytest.raises(ReceiptInvalid):
        LogReceipt.loads(text)


def test_a_receipt_that_would_not_verify_is_never_made() -> None:
    receipt = LOG.receipt(4)
    with pytest.raises(ReceiptInvalid):
        LogReceipt.of(
            receipt.event_id,
            receipt.opening,
            leaf=LOG.leaves[5],
            index=4,
            path=receipt.proof.path,
            note=LOG.signed().note,
        )
