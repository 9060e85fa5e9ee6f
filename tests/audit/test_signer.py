"""The signer won't shrink or fork the log, and keeps what it signed before a signature leaves."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from audit.checkpoint import Checkpoint, SignedCheckpoint, sign
from audit.merkle import EMPTY_ROOT, Frontier, consistency_proof
from audit.signer import Growth, Signer, SignerRefused
from audit.tiles import TileHashes
from tests.builders_log import ORIGIN, ALog, a_key


def a_signer(folder: Path, size: int = 0) -> Signer:
    signer = Signer.create(folder / "signer.json", a_key(), ORIGIN)
    if size:
        head, _ = ALog().add(size).grown()
        signer.sign(head.frontier)
    return signer


def proof(log: ALog, old: int) -> tuple[bytes, ...]:
    head, tiles = log.grown()
    return consistency_proof(TileHashes(tiles, head.size), old, head.size)


def test_the_signer_signs_each_growth_and_the_same_tree_again(tmp_path: Path) -> None:
    signer, log = a_signer(tmp_path), ALog()
    assert signer.sign(Frontier()) == sign(Checkpoint(ORIGIN, 0, EMPTY_ROOT), a_key()).note
    for count in (1, 4, 300, 0):
        before = signer.size
        log.add(count)
        note = signer.sign(log.grown()[0].frontier, proof(log, before))
        assert note == log.signed().note
        assert Signer(tmp_path / "signer.json", a_key(), ORIGIN).size == len(log.leaves)
    assert SignedCheckpoint.parse(note).signed_by(signer.verifier)


def test_the_signer_refuses_to_shrink_fork_or_grow_without_proof_and_keeps_its_state(tmp_path: Path) -> None:
    signer = a_signer(tmp_path, 20)
    state = (tmp_path / "signer.json").read_bytes()
    shorter, fork, regrown, grown = (
        ALog().add(15),
        ALog(first_salt=9).add(20),
        ALog(first_salt=9).add(25),
        ALog().add(25),
    )
    for log, given in [
        (shorter, ()),
        (fork, ()),
        (regrown, proof(regrown, 20)),
        (grown, ()),
        (grown, proof(grown, 19)),
        (grown, (*proof(grown, 20), b"\0" * 32)),
    ]:
        with pytest.raises(SignerRefused, match=r"shrink|does not begin"):
            signer.sign(log.grown()[0].frontier, given)
        assert (tmp_path / "signer.json").read_bytes() == state
    signer.sign(grown.grown()[0].frontier, proof(grown, 20))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(path.read_text().replace('"size": 20', '"size": 16')),
        lambda path: path.write_text(path.read_text().replace('"root": "', '"root": "A')),
        lambda path: path.write_text(path.read_text().replace("2026", "2027")),
        lambda path: path.write_text("[" * 100_000),
    ],
)
def test_the_signer_refuses_when_its_state_is_gone_or_changed(tmp_path: Path, spoil) -> None:
    signer = a_signer(tmp_path, 20)
    spoil(tmp_path / "signer.json")
    with pytest.raises(SignerRefused):
        signer.sign(ALog().add(20).grown()[0].frontier)


def test_a_closed_log_is_signed_as_it_was_and_no_further(tmp_path: Path) -> None:
    signer, log = a_signer(tmp_path, 5), ALog().add(5)
    for _ in range(2):
        signer.close()
    assert signer.sign(log.grown()[0].frontier) == log.signed().note
    log.add(1)
    with pytest.raises(SignerRefused, match="closed at 5"):
        signer.sign(log.grown()[0].frontier, proof(log, 5))
    assert Signer(tmp_path / "signer.json", a_key(), ORIGIN).kept().closed


def test_every_key_has_its_line_in_order(tmp_path: Path) -> None:
    signer = Signer.create(tmp_path / "signer.json", a_key(1), ORIGIN, a_key(2))
    signed = SignedCheckpoint.parse(signer.sign(Frontier()))
    assert [line.key_id for line in signed.signatures] == [key.key_id for key in signer.verifiers]
    assert all(signed.signed_by(key) for key in signer.verifiers)


def test_a_log_is_not_opened_twice(tmp_path: Path) -> None:
    a_signer(tmp_path, 3)
    with pytest.raises(SignerRefused, match="once"):
        a_signer(tmp_path)


def test_a_crash_between_state_and_rename_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = a_signer(tmp_path, 3)

    def crash(self: Path, target: Path) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as cut:
        cut.setattr(Path, "replace", crash)
        with pytest.raises(OSError, match="power cut"):
            signer.sign(ALog().add(5).grown()[0].frontier, proof(ALog().add(5), 3))
    assert signer.size == 3
    assert (tmp_path / "signer.json").stat().st_mode & 0o777 == 0o600


def _sign_many(folder: str, rounds: int) -> None:
    signer = Signer(Path(folder) / "signer.json", a_key(), ORIGIN)
    counter = Path(folder) / "size"
    for _ in range(rounds):

        def newest(kept: int) -> Growth:
            size = int(counter.read_text()) + 1  # under the signer's lock: the one place that counts
            counter.write_text(str(size))
            log = ALog().add(size)
            return Growth(log.grown()[0].frontier, proof(log, kept))

        signer.sign_newest(newest)


def test_several_processes_sign_one_at_a_time(tmp_path: Path) -> None:
    signer = a_signer(tmp_path)
    (tmp_path / "size").write_text("0")
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_sign_many, args=(str(tmp_path), 8)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(30)
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert signer.size == 24
