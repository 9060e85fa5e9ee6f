"""What makes a witness sign, and what makes it refuse; the add-checkpoint texts; and what it remembers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import witness as module
from audit.checkpoint import NoteInvalid, SignedCheckpoint, sign
from audit.merkle import consistency_proof
from audit.policy import Policy
from audit.tiles import TileHashes
from audit.witness import (
    AddCheckpoint,
    Answer,
    BadWitnessKey,
    Refused,
    RequestInvalid,
    Witness,
    WitnessKey,
    origin_id,
)
from tests.builders_log import ORIGIN, START_S, ALog, a_key, a_policy, a_witness

NAME = a_witness(0).name


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return a_keeper(tmp_path)


def a_keeper(folder: Path) -> Witness:
    """The witness whose key is that of `a_witness(0)`."""
    return Witness(WitnessKey(NAME, a_key(100)), folder / "seen", Policy.parse(a_policy().encode()))


def proof_of(log: ALog, old: int) -> tuple[bytes, ...]:
    head, tiles = log.grown()
    return consistency_proof(TileHashes(tiles, head.size), old, head.size)


def request(log: ALog, old: int, *, proof: Sequence[bytes] | None = None, note: SignedCheckpoint | None = None) -> str:
    given = proof_of(log, old) if proof is None else tuple(proof)
    return AddCheckpoint(old, given, note or log.signed()).text


def rewritten(size: int, first: int) -> ALog:
    """A log that is another from entry `first` on."""
    log = ALog().add(first)
    log.first_salt = 9
    return log.add(size - first)


def test_a_line_is_given_over_each_growth_and_verifies_under_the_witnesss_key(witness: Witness) -> None:
    old = 0
    for size in (1, 5, 5, 256, 600):
        log = ALog().add(size)
        answer = witness.add_checkpoint(request(log, old), at_s=START_S + size)
        assert answer.status == 200
        signed = SignedCheckpoint.parse(log.signed().note + answer.body)
        assert signed.cosigned_at(a_witness(0)) == START_S + size
        assert witness.kept(ORIGIN) == signed
        old = size


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        pytest.param(lambda: request(ALog().add(700), 500), 409, id="from another size than it cosigned"),
        pytest.param(lambda: request(ALog().add(700), 0), 409, id="from nothing"),
        pytest.param(lambda: request(ALog().add(500), 600, proof=()), 400, id="a log that shrank"),
        pytest.param(lambda: request(ALog().add(500), 500), 409, id="[7] a log cut off"),
        pytest.param(lambda: request(rewritten(600, 555), 600), 422, id="[10] another tree of the same size"),
        pytest.param(lambda: request(rewritten(700, 450), 600), 422, id="[8] cut off and regrown"),
        pytest.param(lambda: request(ALog().add(700), 600, proof=proof_of(ALog().add(700), 600)[:-1]), 422, id="a proof cut short"),
        pytest.param(lambda: request(ALog().add(700), 600, proof=[*proof_of(ALog().add(700), 600), b"\0" * 32]), 422, id="a proof padded"),
        pytest.param(lambda: request(ALog(key=a_key(2)).add(700), 600), 403, id="[11] another log key"),
        pytest.param(lambda: request(ALog(origin="other.example/audit/2026").add(700), 600), 404, id="an unknown origin"),
        pytest.param(lambda: "old 600\n\nhello\n", 400, id="no checkpoint"),
        pytest.param(lambda: request(ALog().add(700), 600).replace("old 600", "old 0600"), 400, id="a size with a leading zero"),
        pytest.param(lambda: request(ALog().add(700), 600, proof=[b"\0" * 31]), 400, id="a hash of 31 bytes"),
        pytest.param(lambda: request(ALog().add(700), 600, proof=[b"\0" * 32] * 64), 400, id="64 lines of proof"),
        pytest.param(lambda: "x" * 70_000, 400, id="[42] more than 64 KiB"),
    ],
)  # fmt: skip
def test_anything_else_gets_no_line_and_leaves_the_memory_as_it_was(
    witness: Witness, asked: object, status: int
) -> None:
    assert witness.add_checkpoint(request(ALog().add(600), 0), at_s=START_S).status == 200
    kept = witness.kept(ORIGIN)
    answer = witness.add_checkpoint(asked(), at_s=START_S + 1)  # type: ignore[operator]
    assert answer.status == status
    assert "—" not in answer.body
    if status == 409:
        assert answer == Answer(409, "600\n", "text/x.tlog.size")
    assert witness.kept(ORIGIN) == kept


def test_a_fork_is_kept_whole_with_the_request_that_showed_it_10(witness: Witness, tmp_path: Path) -> None:
    honest, fork = ALog().add(600), rewritten(600, 555)
    witness.add_checkpoint(request(honest, 0), at_s=START_S)
    assert witness.add_checkpoint(request(fork, 600), at_s=START_S).status == 422
    place = tmp_path / "seen" / origin_id(ORIGIN)
    (conflict,) = place.glob("conflict-*")
    shown = AddCheckpoint.parse(conflict.read_text())
    kept = SignedCheckpoint.parse((place / "checkpoint").read_text())
    log_key = Policy.parse(a_policy().encode()).logs[0]
    assert shown.signed.signed_by(log_key)
    assert kept.signed_by(log_key)
    assert (shown.signed.checkpoint.size, kept.checkpoint.size) == (600, 600)
    assert shown.signed.checkpoint.root != kept.checkpoint.root


def test_a_line_that_could_not_be_remembered_is_not_given(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    witness.add_checkpoint(request(ALog().add(3), 0), at_s=START_S)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replace_file", full)
    with pytest.raises(OSError, match="No space"):
        witness.cosign(ALog().add(5).signed(), lambda old: proof_of(ALog().add(5), old), at_s=START_S)
    monkeypatch.undo()
    kept = witness.kept(ORIGIN)
    assert kept is not None
    assert kept.checkpoint.size == 3


@pytest.mark.parametrize("memory", ["", "garbage", ALog().add(2).signed().note])
def test_a_witness_whose_memory_was_changed_cosigns_nothing(witness: Witness, tmp_path: Path, memory: str) -> None:
    witness.add_checkpoint(request(ALog().add(3), 0), at_s=START_S)
    (tmp_path / "seen" / origin_id(ORIGIN) / "checkpoint").write_text(memory)
    assert witness.add_checkpoint(request(ALog().add(5), 3), at_s=START_S).status == 500
    with pytest.raises(Refused):
        witness.cosign(ALog().add(5).signed(), lambda _: (), at_s=START_S)


def _race(folder: Path, salt: int, start: object, said: object) -> None:
    log = ALog().add(3)
    log.first_salt = salt
    start.wait()  # type: ignore[attr-defined]
    answer = a_keeper(folder).add_checkpoint(request(log.add(2), 3), at_s=START_S)
    said.put(answer.status)  # type: ignore[attr-defined]


def test_of_several_that_ask_at_once_about_several_trees_one_gets_a_line(witness: Witness, tmp_path: Path) -> None:
    witness.add_checkpoint(request(ALog().add(3), 0), at_s=START_S)
    spawn = multiprocessing.get_context("fork")
    start, said = spawn.Event(), spawn.Queue()
    racers = [spawn.Process(target=_race, args=(tmp_path, salt, start, said)) for salt in (11, 22, 33, 44)]
    for racer in racers:
        racer.start()
    start.set()
    assert sorted(said.get(timeout=30) for _ in racers) == [200, 409, 409, 409]
    for racer in racers:
        racer.join(timeout=30)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 70), min_size=2, max_size=6), fork_at=st.integers(0, 70))
def test_two_lines_of_one_key_are_always_over_one_tree(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], fork_at: int
) -> None:
    witness = a_keeper(tmp_path_factory.mktemp("witness"))
    given_out = []
    for number, size in enumerate(sizes):
        log = ALog().add(size) if number % 2 == 0 else rewritten(size, min(size, fork_at))
        try:
            witness.cosign(log.signed(), lambda old, log=log: proof_of(log, min(old, len(log.leaves))), at_s=START_S)  # type: ignore[misc]
        except Refused:
            continue
        given_out.append(log)
    for older, newer in pairwise(given_out):
        assert newer.leaves[: len(older.leaves)] == older.leaves


def test_a_key_file_is_read_back_and_says_its_verifier_key(tmp_path: Path) -> None:
    key = WitnessKey.make("northshire-icb.example/witness")
    path = tmp_path / "witness.key"
    path.touch(mode=0o600)
    path.write_text(key.text)
    opened = Witness.open(path, Policy.parse(a_policy().encode()))
    assert opened.key.verifier == key.verifier
    assert opened.key.text == key.text
    assert key.key.private_bytes_raw().hex() not in repr(opened.key)
    path.chmod(0o640)
    with pytest.raises(BadWitnessKey, match="chmod 600"):
        Witness.open(path, Policy.parse(a_policy().encode()))


@pytest.mark.parametrize(
    "text",
    ["", "PRIVATE+KEY+x", "PRIVATE+KEY+a+00000000+AAAA", str(a_witness(0)), WitnessKey(NAME, a_key(100)).text.replace("witness-0", "witness-9")],
)  # fmt: skip
def test_what_is_no_witnesss_key_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(BadWitnessKey) as refused:
        WitnessKey.parse(text)
    assert "AAAA" not in str(refused.value)


@pytest.mark.parametrize("name", ["a name", "a+b", "", "a\nb"])
def test_a_name_that_would_break_a_note_is_refused(name: str) -> None:
    with pytest.raises(NoteInvalid):
        WitnessKey.make(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "old 1",
        "old -1\n\n",
        "new 1\n\n",
        "old 1\n\nx",
        "old 1\nAA\n\n" + sign(ALog().add(1).signed().checkpoint, a_key()).note,
    ],
)
def test_a_text_that_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        AddCheckpoint.parse(text)


def test_the_request_is_the_text_that_the_specification_shows() -> None:
    log = ALog().add(70)
    text = request(log, 64)
    lines = text.split("\n")
    assert lines[0] == "old 64"
    blank = lines.index("")
    assert all(len(line) == 44 for line in lines[1:blank])
    assert lines[blank + 1 : blank + 3] == [ORIGIN, "70"]
    assert AddCheckpoint.parse(text).text == text
