"""A log changes its key by an entry that everybody can see, or is found out.  Attack 12 of the audit specification."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner

from audit.checkpoint import ML_DSA_KEY, PUBLIC_BYTES, Checkpoint, SignedCheckpoint, VerifierKey, sign
from audit.cli import auditor
from audit.events import Event, seal
from audit.folder import LogFolder
from audit.policy import Policy
from audit.verify import cosign
from audit.witness import AddCheckpoint, Witness, WitnessKey
from tests.audit.test_attacks import CHANGED, FINE, STALE, UNREADABLE, Auditor
from tests.builders_log import ORIGIN, START_MS, START_S, ALog, a_key, a_policy, a_witness, put, salts

OLD, NEW, OTHER = 1, 2, 3


def vkey(number: int) -> str:
    return str(VerifierKey.of(a_key(number), ORIGIN))


def note_of(log: ALog, *keys: int) -> str:
    head, _ = log.grown()
    return sign(Checkpoint(ORIGIN, head.size, head.root), *map(a_key, keys)).note


def with_hand_over(log: ALog, old: int = OLD, new: int = NEW) -> ALog:
    """The log with one entry more, which hands the key over."""
    grown, given = log.copy(), salts(900_000)
    event = Event(
        id=f"rotation-{old}-{new}", type="key.rotated", who={"organisation": "northshire"},
        what={"origin": ORIGIN, "old": vkey(old), "new": vkey(new)}, why={}, detail={},
    )  # fmt: skip
    sealed = seal(
        event, at_ms=START_MS + len(log.leaves) * 1000, salts=lambda size: b"".join(islice(given, size // 32))
    )
    grown.leaves.append(sealed.leaf)
    grown.events.append(sealed)
    return grown


def history(*receipts_of: tuple[ALog, int, str]) -> str:
    entries = [log.receipt(index, show=("what",), note=note).to_json() for log, index, note in receipts_of]
    return json.dumps({"origin": ORIGIN, "entries": entries})


@pytest.fixture
def before() -> ALog:
    return ALog().add(40)


@pytest.fixture
def who(tmp_path: Path, before: ALog) -> Auditor:
    """They kept the log under the old key, and now trust both."""
    found = Auditor(tmp_path)
    found.keeps(before, receipt_of=3)
    found.trusts(a_policy(keys=[OLD, NEW]))
    return found


@pytest.mark.parametrize("command", ["consistency", "fsck", "inclusion", "receipts"])
def test_a_key_handed_over_by_an_entry_under_the_old_key_is_followed(who: Auditor, before: ALog, command: str) -> None:
    during = with_hand_over(before)
    who.fetches(during, note_of(during, OLD, NEW))  # the overlap: no history needed yet
    assert who.run(command).exit_code == FINE
    after = during.copy()
    after.leaves += ALog(first_salt=5).add(60).leaves[41:]
    who.fetches(after, note_of(after, NEW))
    put(who.log / "history", history((during, 40, note_of(during, OLD, NEW))).encode())
    result = who.run(command)
    assert result.exit_code == FINE, result.output


@pytest.mark.parametrize("command", ["consistency", "fsck", "inclusion", "receipts"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_log_that_changes_its_key_without_an_entry_is_found_12(
    who: Auditor, before: ALog, command: str, *, kept: bool
) -> None:
    if not kept:
        who.state.unlink()
    after = before.copy().add(60)
    who.fetches(after, note_of(after, NEW))
    assert who.run(command).exit_code == UNREADABLE  # no history in the folder: that proves nothing yet
    put(who.log / "history", history().encode())
    result = who.run(command)
    assert result.exit_code == CHANGED
    assert "no entry of the log hands over" in result.output


def test_a_hand_over_that_the_old_key_never_signed_does_not_count(who: Auditor, before: ALog) -> None:
    stolen = with_hand_over(before)
    who.fetches(stolen, note_of(stolen, NEW))
    put(who.log / "history", history((stolen, 40, note_of(stolen, NEW))).encode())
    assert who.run("consistency").exit_code == CHANGED


def test_a_hand_over_that_is_not_in_the_folders_log_does_not_count(who: Auditor, before: ALog) -> None:
    elsewhere = with_hand_over(before)
    after = before.copy().add(60)
    who.fetches(after, note_of(after, NEW))
    put(who.log / "history", history((elsewhere, 40, note_of(elsewhere, OLD, NEW))).encode())
    assert who.run("consistency").exit_code == CHANGED


def test_a_hand_over_to_another_key_does_not_count(who: Auditor, before: ALog) -> None:
    during = with_hand_over(before, new=OTHER)
    who.fetches(during, note_of(during, NEW))
    put(who.log / "history", history((during, 40, note_of(during, OLD, OTHER))).encode())
    assert who.run("consistency").exit_code == CHANGED


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"origin": "another.example/audit/2026", "entries": []}', '{"entries": [{}]}', "\x00", "[" * 9999],
)
def test_a_history_that_can_not_be_understood_proves_nothing_good(who: Auditor, before: ALog, text: str) -> None:
    after = before.copy().add(60)
    who.fetches(after, note_of(after, NEW))
    put(who.log / "history", text.encode())
    assert who.run("consistency").exit_code == CHANGED


def test_two_hand_overs_are_followed_one_after_the_other(who: Auditor, before: ALog) -> None:
    who.trusts(a_policy(keys=[OLD, NEW, OTHER]))
    once = with_hand_over(before)
    twice = with_hand_over(once, old=NEW, new=OTHER)
    who.fetches(twice, note_of(twice, OTHER))
    entries = ((once, 40, note_of(once, OLD, NEW)), (twice, 41, note_of(twice, NEW, OTHER)))
    put(who.log / "history", history(*entries).encode())
    assert who.run("consistency").exit_code == FINE
    put(who.log / "history", history(entries[1]).encode())  # the middle is missing: the chain does not hold
    who.keeps(before, receipt_of=3)
    assert who.run("consistency").exit_code == CHANGED


# --- a key that was handed over ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["consistency", "fsck", "inclusion", "receipts"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_key_that_was_rotated_away_vouches_for_nothing_alone_12(
    who: Auditor, before: ALog, command: str, *, kept: bool
) -> None:
    if not kept:
        who.state.unlink()
    forged = before.copy().add(60)  # whoever kept the old key grows what everybody has seen, as they like
    who.fetches(forged, note_of(forged, OLD))
    result = who.run(command)
    assert (result.exit_code, "newer key of the log" in result.output) == (STALE, True)


@pytest.mark.parametrize("command", ["consistency", "fsck", "inclusion", "receipts"])
def test_after_its_hand_over_the_old_key_alone_is_a_finding_whatever_the_policy_says(
    who: Auditor, before: ALog, command: str
) -> None:
    during = with_hand_over(before)
    forged = during.copy()
    forged.leaves += ALog(first_salt=5).add(60).leaves[41:]
    for policy in (a_policy(keys=[OLD]), a_policy(keys=[OLD, NEW])):
        who.trusts(policy)
        who.fetches(forged, note_of(forged, OLD))
        put(who.log / "history", history((during, 40, note_of(during, OLD, NEW))).encode())
        result = who.run(command)
        assert (result.exit_code, "with the old one" in result.output) == (CHANGED, True)
        who.fetches(forged, note_of(forged, OLD, NEW))
        assert who.run(command).exit_code == FINE


def test_a_receipt_under_the_old_key_holds_in_the_log_of_the_new_one_and_not_by_itself(
    who: Auditor, before: ALog
) -> None:
    alone = CliRunner().invoke(auditor, ["inclusion", "--event", str(who.receipt), "--policy", str(who.policy)])
    assert (alone.exit_code, "--log" in alone.output) == (UNREADABLE, True)
    during = with_hand_over(before)
    who.fetches(during, note_of(during, OLD, NEW))
    assert who.run("inclusion").exit_code == FINE


def test_what_a_quorum_signed_under_the_old_key_holds(who: Auditor, before: ALog) -> None:
    who.trusts(a_policy(keys=[OLD, NEW], witnesses=2, threshold=2))
    for cosigners, code in (((0, 1), FINE), ((0,), STALE)):
        who.fetches(before, before.signed(cosigners).note)
        assert who.run("consistency").exit_code == code


def test_a_witness_signs_nothing_that_only_a_key_rotated_away_has_signed(tmp_path: Path, before: ALog) -> None:
    policy = Policy.parse(a_policy(keys=[OLD, NEW]).encode())
    witness = Witness(WitnessKey(a_witness(0).name, a_key(100)), tmp_path / "seen", policy)
    for keys, status in (([OLD], 403), ([OLD, NEW], 200)):
        asked = AddCheckpoint(0, (), SignedCheckpoint.parse(note_of(before, *keys)))
        assert witness.add_checkpoint(asked.text, at_s=START_S).status == status


def test_what_is_put_before_witnesses_from_before_the_rotation_gives_way_to_what_the_new_key_signed(
    tmp_path: Path, before: ALog
) -> None:
    policy = Policy.parse(a_policy(keys=[OLD, NEW]).encode())
    witness = Witness(WitnessKey(a_witness(0).name, a_key(100)), tmp_path / "seen", policy)
    during = with_hand_over(before)
    folder = during.write(tmp_path / "log", note_of(during, OLD, NEW))
    put(folder / "checkpoint.witness", note_of(before, OLD).encode())
    assert cosign(LogFolder(folder), policy, witness, at_s=START_S).checkpoint.size == 41


def test_a_post_quantum_line_beside_is_no_newer_key(before: ALog) -> None:
    quantum = VerifierKey(ORIGIN, ML_DSA_KEY, bytes(PUBLIC_BYTES[ML_DSA_KEY]))
    text = a_policy(keys=[OLD]).replace("quorum", f"log {quantum}\nquorum")
    assert Policy.parse(text.encode()).signed_by_newest(before.signed())
