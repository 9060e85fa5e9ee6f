"""`auditor` for a witness and for whoever compares: cosign, gossip, receipts of several years, the journal of requests.

Numbers in names are those of the attack table in the audit specification.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from audit.checkpoint import SignedCheckpoint
from audit.cli import auditor
from audit.policy import Policy
from audit.witness import WitnessKey, origin_id
from tests.agreements.test_bundle import a_case
from tests.audit.test_sampling import a_drawn_sample
from tests.builders_log import ORIGIN, START_S, ALog, a_cosignature, a_key, a_policy, a_witness, put

FINE, CHANGED, USAGE, UNREADABLE, STALE, NO_QUORUM = 0, 1, 2, 3, 4, 5


class Desk:
    """A witness's desk: a folder of the log, a policy of three witnesses, a key, what was kept."""

    def __init__(self, home: Path) -> None:
        self.home, self.log, self.state, self.policy = home, home / "log", home / "state", home / "policy"
        self.key = home / "witness.key"
        put(self.policy, a_policy(witnesses=3, threshold=2).encode())
        self.key.touch(mode=0o600)
        self.key.write_text(WitnessKey(a_witness(0).name, a_key(100)).text)

    def fetches(self, log: ALog, note: str | None = None, **beside: SignedCheckpoint) -> None:
        shutil.rmtree(self.log, ignore_errors=True)
        log.write(self.log, note)
        for name, signed in beside.items():
            put(self.log / f"checkpoint.{name}", signed.note.encode())

    def run(self, command: str, *more: object, policy: bool = True) -> Result:
        trust = ["--policy", self.policy, "--evidence", self.home / "evidence"] if policy else []
        return CliRunner().invoke(auditor, [str(each) for each in (command, *trust, *more)])

    def consistency(self, *more: object) -> Result:
        return self.run("consistency", "--log", self.log, "--state", self.state, *more)

    def cosigns(self, *more: object) -> Result:
        return self.consistency("--cosign", self.key, *more)

    def handed_in(self) -> SignedCheckpoint:
        return SignedCheckpoint.parse((self.log / "cosigned").read_text())

    def remembered(self) -> SignedCheckpoint:
        return SignedCheckpoint.parse((self.home / "witness.key.seen" / origin_id(ORIGIN) / "checkpoint").read_text())

    def evidence(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in (self.home / "evidence").glob("*/*")}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def rewritten(size: int, first: int) -> ALog:
    log = ALog().add(first)
    log.first_salt = 9
    return log.add(size - first)


def test_a_witness_cosigns_before_any_quorum_and_prints_and_keeps_its_line(desk: Desk) -> None:
    desk.fetches(ALog().add(300))
    assert desk.consistency().exit_code == NO_QUORUM
    result = desk.cosigns("--json")
    assert result.exit_code == FINE, result.output
    told = json.loads(result.output)
    assert desk.handed_in().cosigned_at(a_witness(0)) is not None
    assert told["cosignature"] == {"size": 300, "line": desk.handed_in().signatures[-1].line}
    assert (told["witnessed"], told["grown_from"]) == (None, None)
    assert desk.remembered() == desk.handed_in()
    assert desk.state.read_text() == ALog().add(300).signed().note
    assert desk.key.read_text() not in result.output


def test_what_is_put_before_witnesses_is_cosigned_and_the_newest_is_kept(desk: Desk) -> None:
    desk.fetches(ALog().add(300), witness=ALog().add(270).signed([1]))
    assert desk.cosigns().exit_code == FINE
    assert desk.handed_in().checkpoint.size == 270
    assert [line.name for line in desk.handed_in().signatures] == [ORIGIN, a_witness(0).name]
    assert desk.state.read_text() == ALog().add(300).signed().note
    desk.fetches(ALog().add(300), witness=ALog().add(260).signed())  # older than the key has cosigned: the newest then
    assert desk.cosigns().exit_code == FINE
    assert desk.handed_in().checkpoint.size == 300


def test_lines_that_a_feeder_brought_stay_under_the_same_checkpoint(desk: Desk) -> None:
    log = ALog().add(300)
    desk.fetches(log)
    put(desk.log / "cosigned", log.signed([2]).note.encode())
    assert desk.cosigns().exit_code == FINE
    assert {line.name for line in desk.handed_in().signatures} == {ORIGIN, a_witness(0).name, a_witness(2).name}
    desk.fetches(log.add(5))
    put(desk.log / "cosigned", ALog().add(300).signed([2]).note.encode())
    assert desk.cosigns().exit_code == FINE
    assert {line.name for line in desk.handed_in().signatures} == {ORIGIN, a_witness(0).name}


@pytest.mark.parametrize(
    ("served", "words"),
    [
        pytest.param(ALog().add(250), "had 300 leaves and has 250", id="[7] cut off"),
        pytest.param(rewritten(300, 299), "two trees of 300", id="[10] the same size"),
        pytest.param(rewritten(400, 250), "do not begin with", id="[8] cut off and regrown"),
    ],
)
@pytest.mark.parametrize("state", ["kept", "lost"])
def test_a_log_that_did_not_grow_from_what_the_key_cosigned_gets_no_line_even_if_the_state_is_lost(
    desk: Desk, served: ALog, words: str, state: str
) -> None:
    desk.fetches(ALog().add(300))
    desk.cosigns()
    before = desk.remembered()
    if state == "lost":
        desk.state.unlink()
    desk.fetches(served)
    result = desk.cosigns()
    assert result.exit_code == CHANGED
    assert "—" not in result.output
    assert words in result.output or state == "lost"
    assert not (desk.log / "cosigned").exists()
    assert desk.remembered() == before
    evidence = desk.evidence()
    assert evidence["checkpoint"] == served.signed().note
    assert SignedCheckpoint.parse(evidence["checkpoint.kept"]).checkpoint == before.checkpoint


@pytest.mark.parametrize("name", ["witness", "witnessed"])
@pytest.mark.parametrize(
    ("other", "code"),
    [
        pytest.param(rewritten(270, 100).signed([1, 2]), CHANGED, id="of another tree"),
        pytest.param(ALog().add(310).signed([1, 2]), CHANGED, id="larger than the newest"),
        pytest.param(ALog(key=a_key(2)).add(270).signed([1, 2]), CHANGED, id="that another key signed"),
        pytest.param(ALog(origin="x.example/audit/2026").add(270).signed(), CHANGED, id="of another log"),
    ],
)
def test_a_checkpoint_beside_the_newest_that_does_not_belong_to_it_is_found(
    desk: Desk, name: str, other: SignedCheckpoint, code: int
) -> None:
    desk.fetches(ALog().add(300), **{name: other})
    run = desk.cosigns if name == "witness" else desk.consistency
    assert run().exit_code == code
    assert not (desk.log / "cosigned").exists()
    assert other.note in desk.evidence().values() or ALog().add(300).signed().note in desk.evidence().values()


def test_a_quorum_over_an_earlier_checkpoint_is_one_for_what_it_covers(desk: Desk) -> None:
    log = ALog().add(300)
    desk.fetches(log, witnessed=ALog().add(270).signed([0, 2]))
    result = desk.consistency("--json")
    assert result.exit_code == FINE, result.output
    told = json.loads(result.output)
    assert (told["size"], told["witnessed"], sorted(told["cosigned"])) == (300, 270, ["w0", "w2"])
    assert desk.run("fsck", "--log", desk.log).exit_code == FINE
    for index, code in ((269, FINE), (270, NO_QUORUM)):
        receipt = desk.home / f"{index}.json"
        put(receipt, log.receipt(index).dumps().encode())
        assert desk.run("inclusion", "--log", desk.log, "--event", receipt).exit_code == code
    desk.fetches(log, witnessed=ALog().add(270).signed([0]))
    assert desk.consistency().exit_code == NO_QUORUM


def test_a_stolen_log_key_that_forks_before_what_was_witnessed_is_found_beside_it_13(desk: Desk) -> None:
    desk.fetches(rewritten(300, 200), witnessed=ALog().add(270).signed([0, 1]))
    assert desk.consistency().exit_code == CHANGED
    assert not desk.state.exists()


def test_an_old_checkpoint_replayed_with_its_old_lines_is_stale_19(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.fetches(ALog().add(300), note=ALog().add(300).signed([0, 1], at_s=START_S + 400).note)
    monkeypatch.setattr("audit.cli.shared.now_s", lambda: START_S + 400 + 3601)
    assert desk.consistency("--max-age", "1h").exit_code == STALE
    assert desk.cosigns("--max-age", "1h").exit_code == STALE
    assert not (desk.log / "cosigned").exists()
    assert not (desk.home / "witness.key.seen" / origin_id(ORIGIN)).exists()


@pytest.mark.parametrize("story", ["missing", "garbage", "open to others"])
def test_a_key_that_can_not_be_used_cosigns_nothing(desk: Desk, story: str) -> None:
    desk.fetches(ALog().add(3))
    if story == "missing":
        desk.key.unlink()
    elif story == "garbage":
        desk.key.write_text("hello")
    else:
        desk.key.chmod(0o644)
    assert desk.cosigns().exit_code == (UNREADABLE if story == "missing" else USAGE)
    assert not desk.state.exists()


def test_witness_key_makes_a_key_once_and_prints_what_a_policy_takes(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "new.key"
    made = desk.run("witness-key", "northshire-icb.example/witness", "--out", out, policy=False)
    assert made.exit_code == FINE
    assert oct(out.stat().st_mode & 0o777) == "0o600"
    vkey = made.output.strip()
    put(desk.policy, (a_policy().replace("quorum none\n", f"witness icb {vkey}\nquorum icb\n")).encode())
    desk.fetches(ALog().add(3))
    assert desk.consistency("--cosign", out).exit_code == FINE
    shutil.copy(desk.log / "cosigned", desk.log / "checkpoint")
    assert desk.consistency().exit_code == FINE
    assert desk.run("witness-key", "x.example", "--out", out, policy=False).exit_code == USAGE
    assert desk.run("witness-key", "a b", "--out", tmp_path / "b.key", policy=False).exit_code == USAGE
    assert desk.run("witness-key", "x.example", "--out", tmp_path / "no" / "b", policy=False).exit_code == UNREADABLE


# --- What others were shown ------------------------------------------------------------------------------------------


def gossip(desk: Desk, **heard: SignedCheckpoint | str) -> Result:
    for name, note in heard.items():
        put(desk.home / "heard" / name, (note if isinstance(note, str) else note.note).encode())
    return desk.run("gossip", "--log", desk.log, "--heard", desk.home / "heard")


def test_checkpoints_of_one_log_agree_whoever_was_shown_them(desk: Desk) -> None:
    desk.fetches(ALog().add(300))
    result = gossip(
        desk, icb=ALog().add(120).signed([1]), police=ALog().add(300).signed(), court=ALog().add(1).signed()
    )
    assert result.exit_code == FINE
    assert "3 checkpoints" in result.output


def test_anothers_copy_of_the_log_is_heard_by_its_checkpoints_and_its_history_is_none(desk: Desk) -> None:
    desk.fetches(ALog().add(300))
    theirs = {"checkpoint": ALog().add(120).signed([1]), "history": '{"origin": "...", "entries": []}'}
    result = gossip(desk, **theirs)
    assert (result.exit_code, "1 checkpoints" in result.output) == (FINE, True), result.output


@pytest.mark.parametrize(("size", "first"), [(300, 299), (280, 100), (1, 0)])
def test_a_split_view_is_found_when_two_compare_and_both_notes_are_kept_9(desk: Desk, size: int, first: int) -> None:
    fork = rewritten(size, first)
    desk.fetches(ALog().add(300))
    result = gossip(desk, icb=fork.signed([1, 2]), police=ALog().add(300).signed())
    assert result.exit_code == CHANGED
    assert "icb" in result.output
    assert "police" not in result.output
    assert set(desk.evidence().values()) >= {fork.signed([1, 2]).note, ALog().add(300).signed().note}


def test_a_split_view_shows_in_the_receipts_of_whoever_was_shown_the_other_one_9(desk: Desk) -> None:
    put(desk.policy, a_policy().encode())
    desk.fetches(ALog().add(300))
    fork = rewritten(290, 250)
    for name, receipt in (("mine", ALog().add(280).receipt(40)), ("theirs", fork.receipt(40))):
        put(desk.home / "receipts" / f"{name}.json", receipt.dumps().encode())
    result = desk.run("receipts", "--receipts", desk.home / "receipts", "--log", desk.log)
    assert result.exit_code == CHANGED
    assert "theirs.json" in result.output
    assert "mine.json" not in result.output
    assert any(name.endswith("checkpoint.kept") for name in desk.evidence())


def test_what_others_were_shown_and_we_were_not_is_stale_and_what_no_log_signed_proves_nothing(desk: Desk) -> None:
    desk.fetches(ALog().add(300))
    assert gossip(desk, icb=ALog().add(301).signed()).exit_code == STALE
    assert gossip(desk, icb=ALog(key=a_key(2)).add(300).signed()).exit_code == UNREADABLE
    assert gossip(desk, icb="garbage").exit_code == UNREADABLE
    assert gossip(desk, icb=rewritten(200, 1).signed(), police=ALog().add(301).signed()).exit_code == CHANGED
    shutil.rmtree(desk.home / "heard")
    (desk.home / "heard").mkdir()
    assert gossip(desk).exit_code == UNREADABLE


# --- Receipts of several years, and requests --------------------------------------------------------------------------


def test_receipts_of_several_years_are_each_held_against_their_own_log(desk: Desk) -> None:
    old, new = ALog(origin="broker.example/audit/2025", key=a_key(3)).add(40), ALog().add(50)
    put(desk.policy, (a_policy(keys=[3], origin=old.origin).replace("quorum none\n", "") + a_policy()).encode())
    shards, kept, states = desk.home / "logs", desk.home / "receipts", desk.home / "states"
    for log, year in ((old, "2025"), (new, "2026")):
        log.write(shards / year)
        put(kept / year / "r.json", log.receipt(7).dumps().encode())
        put(states / year, log.signed().note.encode())
    given = ["receipts", "--receipts", kept, "--log", shards]
    result = desk.run(*given, "--state", states, "--json")
    assert result.exit_code == FINE, result.output
    assert json.loads(result.output)["receipts"] == 2
    shutil.rmtree(shards / "2025")
    assert desk.run(*given).exit_code == UNREADABLE
    forged = rewritten(40, 3)
    ALog(old.origin, old.key, 0, forged.leaves, forged.events).write(shards / "2025")
    result = desk.run(*given, "--state", states)
    assert result.exit_code == CHANGED


def receipt_naming(log: ALog, index: int, **who: str) -> dict[str, Any]:
    """A receipt whose event names a request; the log has it as its last entry."""
    from audit.events import seal
    from tests.builders_log import START_MS, an_event

    event = an_event(index)
    sealed = seal(replace(event, who={**event.who, **who}), at_ms=START_MS + index * 1000)
    log.events.append(sealed)
    log.leaves.append(sealed.leaf)
    return dict(log.receipt(index).to_json())


def test_requests_without_a_receipt_are_listed_and_an_answer_without_one_is_a_finding(desk: Desk) -> None:
    put(desk.policy, a_policy().encode())
    log, ids = ALog().add(5), [character * 64 for character in "abcde"]
    receipt = receipt_naming(log, 5, assertion_sha256=ids[0])
    desk.fetches(log)
    put(desk.home / "receipts" / "asked" / "r.json", json.dumps(receipt).encode())
    at = '"at": "2026-11-22T09:30:00Z"'
    lines = [f'{{{at}, "id": "{each}", "what": "POST /v1/searches"}}' for each in ids[:4]]
    lines += [f'{{{at}, "id": "{ids[0]}", "answered": 200, "event": null}}']
    lines += [f'{{{at}, "id": "{ids[1]}", "answered": 403, "event": null}}']  # refused: nothing happened
    lines += [f'{{{at}, "id": "{ids[2]}", "answered": 200, "event": "{receipt["event_id"]}"}}']
    journal = desk.home / "requests.jsonl"
    given = ["receipts", "--receipts", desk.home / "receipts", "--log", desk.log, "--requests", journal]
    put(journal, ("\n".join(lines) + '\n{"at": "2026-11-22T09:3').encode())  # the last line was cut off by a crash
    told = desk.run(*given, "--json")
    assert told.exit_code == FINE, told.output
    found = json.loads(told.output)
    assert (found["requests"], [one["id"] for one in found["unanswered"]]) == (4, [ids[3]])
    assert "1 of them never answered" in desk.run(*given).output
    lines += [f'{{{at}, "id": "{ids[3]}", "answered": 200, "event": "event-000099"}}']
    put(journal, "\n".join(lines).encode())
    result = desk.run(*given)
    assert result.exit_code == CHANGED
    assert "answered, and no receipt was kept: POST /v1/searches at 2026-11-22T09:30:00Z" in result.output
    assert ids[3] in desk.evidence()["requests.lost.json"]


@pytest.mark.parametrize(
    "text",
    ["nothing\nmore\n", "[]\n", '{"id": "x", "at": "y"}\n', '{"id": "' + "a" * 64 + '", "at": "y", "answered": 200}\n'],
)
def test_a_journal_that_is_none_proves_nothing(desk: Desk, text: str) -> None:
    put(desk.policy, a_policy().encode())
    log = ALog().add(5)
    desk.fetches(log)
    put(desk.home / "receipts" / "r.json", log.receipt(3).dumps().encode())
    put(desk.home / "journal", text.encode())
    given = ["receipts", "--receipts", desk.home / "receipts", "--log", desk.log, "--requests", desk.home / "journal"]
    assert desk.run(*given).exit_code == UNREADABLE


# --- Limits, and no network ------------------------------------------------------------------------------------------


def test_more_lines_than_a_note_may_have_are_refused_and_no_more_is_ever_written_42(desk: Desk) -> None:
    log = ALog().add(3)
    note = log.signed(range(1, 16))
    desk.fetches(log, note=note.note)
    assert desk.cosigns().exit_code == FINE
    desk.fetches(log, note=note.with_signature(a_cosignature(note.checkpoint, 16)).note)
    assert desk.cosigns().exit_code == CHANGED
    put(desk.log / "checkpoint", log.signed().note.encode() + b"x" * 70_000)
    assert desk.cosigns().exit_code == CHANGED


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here (util-linux)")
def test_every_command_of_the_auditor_passes_with_the_network_cut_off_47(desk: Desk) -> None:
    log = ALog().add(300)
    desk.fetches(log, note=log.signed([1, 2]).note)
    put(desk.home / "receipts" / "r.json", log.receipt(40).dumps().encode())
    put(desk.home / "heard" / "icb", ALog().add(20).signed().note.encode())
    trust = ["--log", desk.log, "--policy", desk.policy]
    policy = Policy.parse(desk.policy.read_bytes())
    commands = list(get_command(auditor).commands)  # type: ignore[attr-defined]
    cut_off = ["unshare", "--map-root-user", "--net"]
    probe = subprocess.run([*cut_off, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this machine lets nobody make a network namespace")
    for arguments in (
        ["inclusion", *trust, "--event", desk.home / "receipts" / "r.json"],
        ["consistency", *trust, "--state", desk.state, "--cosign", desk.key],
        ["fsck", *trust, "--state", desk.state],
        ["receipts", *trust, "--receipts", desk.home / "receipts"],
        ["gossip", *trust, "--heard", desk.home / "heard"],
        ["sample", a_drawn_sample(desk.home, log.signed([1, 2]), policy), *trust],
        ["replay", *a_case(desk.home)],
        ["witness-key", "a.example/witness", "--out", desk.home / "new.key"],
    ):
        commands.remove(str(arguments[0]))
        command = [*cut_off, sys.executable, "-c", "from audit.cli import main; main()", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"http_proxy": ""})
        assert done.returncode == FINE, done.stderr
    assert commands == []
