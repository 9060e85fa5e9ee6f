"""What somebody may do to the log, who finds it, and with which exit code: each through the real command line.

Numbers in brackets are those of the attack table in the audit specification.  Unless the story says *stolen key*, the
attacker has the database and the public folder and not the signer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from audit.checkpoint import Signature, SignedCheckpoint
from audit.cli import auditor
from audit.events import Leaf
from audit.merkle import consistency_proof
from audit.signer import Signer, SignerRefused
from audit.tiles import ENTRIES, Tile, TileHashes, decode_bundle, encode_bundle
from tests.builders_log import ORIGIN, START_S, ALog, a_cosignature, a_key, a_policy, a_witness, put

SIZE = 600  # two full bundles and a partial one, two levels of tiles
FINE, CHANGED, UNREADABLE, STALE, NO_QUORUM = 0, 1, 3, 4, 5


@dataclass
class Auditor:
    """Somebody with a folder of the log, a policy, what they kept last time, and a receipt."""

    home: Path

    def __post_init__(self) -> None:
        self.log, self.state = self.home / "log", self.home / "state"
        self.policy, self.receipt = self.home / "policy", self.home / "receipts" / "receipt.json"
        self.trusts(a_policy())

    def trusts(self, policy: str) -> None:
        put(self.policy, policy.encode())

    def fetches(self, log: ALog, note: str | None = None) -> None:
        shutil.rmtree(self.log, ignore_errors=True)
        log.write(self.log, note)

    def keeps(self, log: ALog, receipt_of: int = 300) -> None:
        put(self.state, log.signed().note.encode())
        put(self.receipt, log.receipt(receipt_of).dumps().encode())

    def run(self, command: str, *more: str) -> Result:
        given = {
            "inclusion": ["--log", self.log, "--event", self.receipt],
            "consistency": ["--log", self.log, "--state", self.state],
            "fsck": ["--log", self.log],
            "receipts": ["--log", self.log, "--receipts", self.receipt.parent],
        }[command]
        evidence = ["--evidence", self.home / "evidence"]
        return CliRunner().invoke(
            auditor, [str(each) for each in [command, *given, "--policy", self.policy, *evidence, *more]]
        )

    def edits(self, tile: Tile, change: Callable[[bytes], bytes]) -> None:
        path = self.log / tile.path
        path.write_bytes(change(path.read_bytes()))

    def evidence(self) -> list[str]:
        return sorted(path.name for path in (self.home / "evidence").glob("*/*"))


@pytest.fixture
def honest() -> ALog:
    return ALog().add(SIZE)


@pytest.fixture
def who(tmp_path: Path, honest: ALog) -> Auditor:
    """They kept the log at 500 entries, and now fetch it at 600."""
    auditor_ = Auditor(tmp_path)
    auditor_.keeps(ALog().add(500))
    auditor_.fetches(honest)
    return auditor_


@pytest.mark.parametrize("command", ["inclusion", "consistency", "fsck", "receipts"])
def test_an_honest_log_passes_every_command(who: Auditor, honest: ALog, command: str) -> None:
    result = who.run(command)
    assert result.exit_code == FINE, result.output
    assert not (who.home / "evidence").exists()
    if command == "consistency":
        assert who.state.read_text() == honest.signed().note


def flipped(data: bytes, at: int = 44 * 73 + 40) -> bytes:
    at = min(at, len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def rewritten(log: ALog, index: int) -> ALog:
    """The same log with one event replaced by another in the database, everything after rehashed."""
    other = log.copy()
    other.leaves[index] = Leaf(log.leaves[index].at_ms, b"\7" * 32)
    return other


BUNDLE = Tile(ENTRIES, 1)


def rows(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    return lambda data: encode_bundle(change(decode_bundle(BUNDLE, data)))


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda receipt: receipt["opening"]["why"]["body"].update(purpose="CIN"), id="[1] edit a body"),
        pytest.param(lambda receipt: receipt["opening"]["why"].update(salt="A" * 43 + "="), id="[2] edit a salt"),
        pytest.param(lambda receipt: receipt.update(event_id="event-000301"), id="name another event"),
        pytest.param(lambda receipt: receipt["log"].update(size=10), id="name another size"),
        pytest.param(
            lambda receipt: receipt.update(proof=receipt["proof"].replace("index 300", "index 301")),
            id="[20] name another place",
        ),
    ],
)
@pytest.mark.parametrize("command", ["inclusion", "receipts"])
def test_whoever_holds_a_receipt_finds_that_it_was_edited(who: Auditor, edit: Callable, command: str) -> None:
    receipt = json.loads(who.receipt.read_text())
    edit(receipt)
    who.receipt.write_text(json.dumps(receipt))
    assert who.run(command).exit_code == CHANGED


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(flipped, id="[3] edit a leaf"),
        pytest.param(rows(lambda leaves: leaves[:44] + leaves[45:]), id="[4] delete a middle row"),
        pytest.param(rows(lambda leaves: [*leaves[:44], leaves[45], leaves[44], *leaves[46:]]), id="[5] swap two rows"),
        pytest.param(rows(lambda leaves: [*leaves[:44], leaves[0], *leaves[44:]]), id="[6] insert a row between"),
        pytest.param(rows(lambda leaves: [*leaves[:44], b"sg-audit/v2", *leaves[45:]]), id="a leaf that is none"),
        pytest.param(rows(lambda leaves: [*leaves[:44], b"x" * 65_535, *leaves[45:]]), id="[42] an entry of 64 KiB"),
        pytest.param(lambda data: data[:-1], id="cut a bundle"),
        pytest.param(lambda data: b"", id="empty a bundle"),
    ],
)
def test_fsck_finds_entries_that_were_changed_under_intact_tiles_17(who: Auditor, change: Callable) -> None:
    who.edits(BUNDLE, change)
    result = who.run("fsck")
    assert result.exit_code == CHANGED
    assert "tile/0/001" in result.output or "tile/entries/001" in result.output
    assert who.run("inclusion").exit_code == CHANGED  # entry 300 stands in this bundle


@pytest.mark.parametrize("name", ["checkpoint.witness", "checkpoint.witnessed", "history"])
@pytest.mark.parametrize("content", [b"garbage\n", b"\xff\xfe", b""])
def test_fsck_finds_what_is_no_checkpoint_and_no_history_beside_the_newest(
    who: Auditor, name: str, content: bytes
) -> None:
    put(who.log / name, content)
    result = who.run("fsck")
    assert result.exit_code == CHANGED
    assert name in result.output


@pytest.mark.parametrize("name", ["checkpoint.witness", "checkpoint.witnessed"])
def test_fsck_finds_a_checkpoint_beside_the_newest_of_another_tree(who: Auditor, honest: ALog, name: str) -> None:
    put(who.log / name, ALog().add(500).signed().note.encode())
    assert who.run("fsck").exit_code == FINE
    put(who.log / name, rewritten(ALog().add(500), 44).signed().note.encode())
    result = who.run("fsck")
    assert result.exit_code == CHANGED
    assert "history was rewritten" in result.output


def test_fsck_finds_a_partial_bundle_or_tile_of_an_earlier_size_that_was_changed(who: Auditor, honest: ALog) -> None:
    older = ALog().add(550).write(who.home / "older")
    earlier = [Tile(ENTRIES, 2, 38), Tile(0, 2, 38)]
    for tile in earlier:
        put(who.log / tile.path, (older / tile.path).read_bytes())
    assert who.run("fsck").exit_code == FINE
    for tile in earlier:
        for change in (flipped, lambda data: data[:-1], lambda data: b""):
            who.edits(tile, change)
            result = who.run("fsck")
            assert result.exit_code == CHANGED
            assert tile.path in result.output
            put(who.log / tile.path, (older / tile.path).read_bytes())


def test_fsck_counts_what_lies_beyond_the_checkpoint_and_believes_none_of_it(who: Auditor) -> None:
    put(who.log / Tile(ENTRIES, 3, 7).path, b"of a later size, or of nobody")
    told = json.loads(who.run("fsck", "--json").output)
    assert (told["exit"], told["beyond"]) == (FINE, 1)


@pytest.mark.parametrize("tile", [Tile(0, 0), Tile(0, 2, 88), Tile(1, 0, 2)])
def test_fsck_names_the_tile_that_was_changed_over_intact_entries_17(who: Auditor, tile: Tile) -> None:
    who.edits(tile, flipped)
    result = who.run("fsck", "--json")
    assert result.exit_code == CHANGED
    assert f"{tile.path} is not what the entries hash to" in json.loads(result.output)["finding"]
    assert "checkpoint" not in json.loads(result.output)["finding"]  # the entries are the signed ones


def test_a_database_rewritten_and_rehashed_is_found_against_the_old_checkpoint(who: Auditor, honest: ALog) -> None:
    who.fetches(rewritten(honest, 44), note=honest.signed().note)
    for command in ("fsck", "consistency", "inclusion"):
        assert who.run(command).exit_code == CHANGED


def test_a_tail_cut_off_with_a_stolen_key_is_found_by_whoever_kept_a_checkpoint_7(who: Auditor) -> None:
    who.fetches(ALog().add(450))
    assert who.run("fsck").exit_code == FINE  # nothing inside the log can show it
    assert who.run("fsck", "--state", str(who.state)).exit_code == CHANGED
    result = who.run("consistency")
    assert result.exit_code == CHANGED
    assert "had 500 leaves and has 450" in result.output


def test_a_log_cut_off_and_regrown_past_the_kept_size_is_found_8(who: Auditor) -> None:
    regrown = ALog().add(450)
    regrown.first_salt = 9
    who.fetches(regrown.add(200))
    kept = who.state.read_text()
    result = who.run("consistency")
    assert result.exit_code == CHANGED
    assert "history was rewritten" in result.output
    assert who.evidence() == ["checkpoint", "checkpoint.kept", "finding.txt"]
    assert who.state.read_text() == kept
    assert who.run("fsck").exit_code == FINE
    assert who.run("fsck", "--state", str(who.state)).exit_code == CHANGED


@pytest.mark.parametrize("story", ["cut off", "cut off and regrown", "one row edited", "restored from a backup"])
def test_without_the_key_the_signer_signs_none_of_it_7_8(tmp_path: Path, story: str) -> None:
    signer = Signer.create(tmp_path / "signer.json", a_key(), ORIGIN)
    signer.sign(ALog().add(500).grown()[0].frontier)
    regrown = ALog().add(450)
    regrown.first_salt = 9
    log = {
        "cut off": ALog().add(450),
        "cut off and regrown": regrown.add(200),
        "one row edited": rewritten(ALog().add(500), 499),
        "restored from a backup": ALog().add(400),
    }[story]
    head, tiles = log.grown()
    old = min(500, head.size)
    with pytest.raises(SignerRefused):
        signer.sign(head.frontier, consistency_proof(TileHashes(tiles, head.size), old, head.size))


def test_a_fork_shown_to_one_agency_is_found_when_its_receipt_meets_anothers_folder_9(
    who: Auditor, honest: ALog
) -> None:
    fork = rewritten(honest, 555)
    put(who.receipt, fork.receipt(44).dumps().encode())
    for command in ("inclusion", "receipts"):
        assert who.run(command).exit_code == CHANGED
    assert who.evidence().count("checkpoint.kept") == 1
    who.fetches(fork)
    assert who.run("inclusion").exit_code == FINE  # to agency B alone the fork looks whole


def test_two_trees_of_one_size_are_found_and_both_notes_kept_10(who: Auditor, honest: ALog) -> None:
    who.keeps(honest)
    fork = rewritten(honest, 555)
    who.fetches(fork)
    result = who.run("consistency")
    assert result.exit_code == CHANGED
    assert "two trees of 600" in result.output
    notes = {path.name: path.read_text() for path in (who.home / "evidence").glob("*/*")}
    assert notes["checkpoint"] == fork.signed().note
    assert notes["checkpoint.kept"] == honest.signed().note


@pytest.mark.parametrize("command", ["consistency", "fsck", "inclusion"])
def test_a_log_under_a_key_the_policy_does_not_name_is_found_11(who: Auditor, honest: ALog, command: str) -> None:
    rekeyed = honest.copy()
    rekeyed.key = a_key(2)
    who.fetches(rekeyed)
    assert who.run(command).exit_code == CHANGED


def test_a_stolen_log_key_alone_makes_no_quorum_13(who: Auditor, honest: ALog) -> None:
    who.trusts(a_policy(witnesses=3, threshold=2))
    fork = rewritten(honest, 555)
    who.state.unlink()
    put(who.receipt, fork.receipt(44).dumps().encode())
    who.fetches(fork)
    for command in ("consistency", "fsck", "inclusion", "receipts"):
        assert who.run(command).exit_code == NO_QUORUM
    assert not who.state.exists()


def test_a_receipt_from_before_the_witnesses_signed_is_good_once_they_have(who: Auditor, honest: ALog) -> None:
    who.trusts(a_policy(witnesses=3, threshold=2))
    who.fetches(honest, note=honest.signed([0, 2]).note)
    for command in ("inclusion", "receipts", "consistency", "fsck"):
        assert who.run(command).exit_code == FINE


def witnessed(note: SignedCheckpoint, *lines: Signature) -> str:
    for line in lines:
        note = note.with_signature(line)
    return note.note


def test_a_witness_line_of_another_checkpoint_or_with_another_time_counts_for_nothing_14_15(
    who: Auditor, honest: ALog
) -> None:
    who.trusts(a_policy(witnesses=2, threshold=2))
    now = honest.signed()
    good = a_cosignature(now.checkpoint, 0)
    copied = a_cosignature(ALog().add(500).signed().checkpoint, 1)
    honest_line = a_cosignature(now.checkpoint, 1)
    later = Signature(
        honest_line.name, honest_line.key_id, (START_S + 1).to_bytes(8, "big") + honest_line.signature[8:]
    )
    for line in (copied, later, Signature(a_witness(1).name, a_witness(1).key_id, b"short")):
        who.fetches(honest, note=witnessed(now, good, line))
        assert who.run("consistency").exit_code == NO_QUORUM
    who.fetches(honest, note=witnessed(now, good, honest_line))
    assert who.run("consistency").exit_code == FINE


def test_one_witness_signing_twice_is_one_witness_and_strangers_are_none_16(who: Auditor, honest: ALog) -> None:
    who.trusts(a_policy(witnesses=3, threshold=2))
    now = honest.signed()
    first, again = a_cosignature(now.checkpoint, 0), a_cosignature(now.checkpoint, 0, at_s=START_S + 9)
    stranger = a_cosignature(now.checkpoint, 7)
    who.fetches(honest, note=witnessed(now, first, again, stranger))
    assert who.run("consistency").exit_code == NO_QUORUM
    who.fetches(honest, note=witnessed(now, first, again, stranger, a_cosignature(now.checkpoint, 1)))
    assert who.run("consistency").exit_code == FINE


@pytest.mark.parametrize(
    "note",
    [
        pytest.param("x" * 70_000, id="[42] more than 64 KiB"),
        pytest.param("", id="nothing"),
        pytest.param(ALog().add(3).signed().note + 17 * "— a.example AAAAAAAA\n", id="[42] 18 signatures"),
        pytest.param(ALog().add(3).signed().note.replace("\n3\n", "\n4\n"), id="the size edited"),
    ],
)
def test_a_checkpoint_that_is_none_is_found(who: Auditor, note: str) -> None:
    (who.log / "checkpoint").write_text(note)
    for command in ("consistency", "fsck", "inclusion"):
        assert who.run(command).exit_code == CHANGED


@pytest.mark.parametrize("name", [Tile(0, 2, 88).path, Tile(1, 0, 2).path, "checkpoint"])
def test_a_missing_file_proves_nothing_18(who: Auditor, name: str) -> None:
    (who.log / name).unlink()
    kept = who.state.read_text()
    for command in ("consistency", "fsck"):
        assert who.run(command).exit_code == UNREADABLE
    assert who.state.read_text() == kept
    assert not (who.home / "evidence").exists()


def test_a_missing_bundle_proves_nothing_though_tiles_still_do(who: Auditor) -> None:
    (who.log / BUNDLE.path).unlink()
    result = who.run("fsck")
    assert result.exit_code == UNREADABLE
    assert "tile/entries/001" in result.output
    who.edits(Tile(0, 0), flipped)
    assert who.run("fsck").exit_code == CHANGED


def test_a_partial_tile_may_be_cut_from_the_full_one(who: Auditor) -> None:
    longer = ALog().add(800)
    longer.write(who.log, note=(who.log / "checkpoint").read_text())
    for tile in (Tile(0, 2, 88), Tile(ENTRIES, 2, 88)):
        (who.log / tile.path).unlink()
    for command in ("consistency", "fsck", "inclusion"):
        assert who.run(command).exit_code == FINE


def test_partial_tiles_of_earlier_sizes_are_held_to_the_entries_too(who: Auditor) -> None:
    ALog().add(520).write(who.log, note=(who.log / "checkpoint").read_text())
    assert who.run("fsck").exit_code == FINE
    who.edits(Tile(0, 2, 8), flipped)
    result = who.run("fsck")
    assert result.exit_code == CHANGED
    assert "tile/0/002.p/8 " in result.output


@pytest.mark.parametrize("command", ["consistency", "fsck", "inclusion", "receipts"])
def test_a_state_policy_or_receipt_that_can_not_be_read_proves_nothing(who: Auditor, command: str) -> None:
    who.policy.unlink()
    assert who.run(command).exit_code == UNREADABLE


def test_a_kept_state_that_no_log_of_the_policy_signed_proves_nothing(who: Auditor) -> None:
    for note in ("garbage", ALog(key=a_key(2)).add(3).signed().note):
        who.state.write_text(note)
        assert who.run("consistency").exit_code == UNREADABLE
        assert who.state.read_text() == note


def test_an_old_checkpoint_served_again_is_stale_beyond_the_age_asked_for_19(
    who: Auditor, honest: ALog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.cli.shared.now_s", lambda: START_S + SIZE + 1800)
    assert who.run("consistency", "--max-age", "1h").exit_code == FINE
    monkeypatch.setattr("audit.cli.shared.now_s", lambda: START_S + SIZE + 3600)
    kept = who.state.read_text()
    assert who.run("consistency", "--max-age", "1h").exit_code == STALE
    assert who.state.read_text() == kept
    assert who.run("consistency").exit_code == FINE
    who.trusts(a_policy(witnesses=1, threshold=1))  # a witness's time is a sign of life too
    who.fetches(honest, note=honest.signed([0], at_s=START_S + SIZE + 3000).note)
    assert who.run("consistency", "--max-age", "1h").exit_code == FINE


def test_a_folder_older_than_the_receipt_is_stale(who: Auditor) -> None:
    who.fetches(ALog().add(400))
    assert who.run("inclusion").exit_code == STALE
    assert who.run("receipts").exit_code == STALE


def test_the_worst_of_several_receipts_gives_the_exit_code_and_files_without_one_are_listed(
    who: Auditor, honest: ALog
) -> None:
    put(who.receipt.with_name("batch.json"), b'{"batch": "b-1", "state": "sealed"}')
    result = who.run("receipts", "--json")
    assert json.loads(result.output) == {"command": "receipts", "exit": 0, "receipts": 1, "without": ["batch.json"]}
    put(who.receipt.with_name("later.json"), honest.copy().add(5).receipt(604).dumps().encode())
    assert who.run("receipts").exit_code == STALE
    put(who.receipt.with_name("forged.json"), rewritten(honest, 3).receipt(9).dumps().encode())
    result = who.run("receipts")
    assert result.exit_code == CHANGED
    assert "forged.json" in result.output


def test_a_receipt_stands_alone_and_its_proof_may_be_a_file_of_its_own(who: Auditor, honest: ALog) -> None:
    receipt = json.loads(who.receipt.read_text())
    put(who.home / "e.tlog-proof", receipt.pop("proof").encode())
    who.receipt.write_text(json.dumps(receipt))
    given = [
        "inclusion",
        "--policy",
        str(who.policy),
        "--event",
        str(who.receipt),
        "--evidence",
        str(who.home / "evidence"),
    ]
    assert CliRunner().invoke(auditor, given).exit_code == CHANGED  # there is no proof
    assert CliRunner().invoke(auditor, [*given, "--proof", str(who.home / "e.tlog-proof")]).exit_code == FINE


def test_a_whole_answer_kept_as_a_file_is_taken_for_the_receipt_in_it(who: Auditor) -> None:
    receipt = json.loads(who.receipt.read_text())
    put(who.receipt, json.dumps({"view": "v-1", "number": 83.5, "receipt": receipt | {"decisions": []}}).encode())
    for command in ("inclusion", "receipts"):
        assert who.run(command).exit_code == FINE


def test_the_first_consistency_keeps_the_state_and_json_says_what_was_seen(who: Auditor) -> None:
    who.state.unlink()
    result = who.run("consistency", "--json")
    assert result.exit_code == FINE
    assert json.loads(result.output) | {"root": "-"} == {
        "command": "consistency", "exit": 0, "origin": ORIGIN, "size": SIZE, "root": "-", "cosigned": {}, "witnessed": None,
        "grown_from": None,
    }  # fmt: skip
    assert who.state.exists()


@pytest.mark.parametrize("arguments", [["consistency"], ["nothing"], ["fsck", "--log", "x"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(auditor, arguments).exit_code == 2


def test_a_policy_or_an_age_that_can_not_be_understood_is_wrong_usage(who: Auditor) -> None:
    assert who.run("consistency", "--max-age", "soon").exit_code == 2
    who.trusts("log nothing\nquorum none\n")
    result = who.run("consistency")
    assert result.exit_code == 2
    assert "line 1" in result.output


@pytest.mark.parametrize("command", ["inclusion", "consistency", "fsck", "receipts"])
def test_the_help_is_the_manual(command: str) -> None:
    shown = " ".join(CliRunner().invoke(auditor, [command, "--help"]).output.split())
    for promised in ("Exit codes: 0", "; 1 ", "; 3 ", "--policy", "--json"):
        assert promised in shown


def test_an_empty_log_is_a_log(who: Auditor) -> None:
    who.fetches(ALog())
    who.state.unlink()
    for command in ("consistency", "fsck"):
        assert who.run(command).exit_code == FINE
    who.fetches(ALog().add(1))
    assert who.run("consistency").exit_code == FINE


def test_both_receipts_that_a_batch_has_are_checked_where_the_agency_keeps_them(who: Auditor, honest: ALog) -> None:
    both = {"batch": "b", "received": honest.receipt(7).to_json(), "verdict": honest.receipt(8).to_json()}
    put(who.receipt.parent / "batch.json", json.dumps(both).encode())
    put(who.receipt.parent / "note.json", b"{}")
    held = who.run("receipts", "--json")
    assert held.exit_code == FINE
    assert json.loads(held.output)["receipts"] == 3
    assert json.loads(held.output)["without"] == ["note.json"]
    batch = ["--event", who.receipt.parent / "batch.json", "--policy", who.policy, "--evidence", who.home / "evidence"]
    one = CliRunner().invoke(auditor, ["inclusion", *map(str, batch)])
    assert one.exit_code == 2
    assert "auditor receipts" in one.output
    assert who.evidence() == []
    both["verdict"] = {**honest.receipt(8).to_json(), "event_id": "another-event"}
    put(who.receipt.parent / "batch.json", json.dumps(both).encode())
    assert who.run("receipts").exit_code == CHANGED
