"""A log changes its key by an entry that everybody can see, or is found out.  Attack 12 of the audit specification."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.checkpoint import Checkpoint, VerifierKey, sign
from audit.events import Event, seal
from tests.audit.test_attacks import CHANGED, FINE, UNREADABLE, Auditor
from tests.builders_log import ORIGIN, START_MS, ALog, a_key, a_policy, put, salts

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
    sealed = seal(event, at_ms=START_MS + len(log.leaves) * 1000, salts=lambda: next(given))
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
