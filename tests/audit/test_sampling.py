"""Samples: drawn by what witnesses signed after the period's end, the same for everybody who draws, steered by nobody."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from audit.checkpoint import NoteInvalid, SignedCheckpoint, VerifierKey
from audit.cli import auditor
from audit.merkle import consistency_proof
from audit.policy import Policy, QuorumMissing
from audit.sampling import LEAST, LOT, Candidate, SampleInvalid, digest, draw, rank, seed_of
from audit.tiles import TileHashes
from audit.witness import GROWN_DAYS, AddCheckpoint, Witness, WitnessKey, origin_id
from tests.builders_log import ORIGIN, START_S, ALog, a_cosignature, a_key, a_policy

SEED = bytes(range(32))
NOBODY = Policy.parse(a_policy().encode())
THREE = Policy.parse(a_policy(witnesses=3, threshold=2).encode())


def candidates(count: int, *, strata: int = 3, always: int = 0) -> list[Candidate]:
    return [
        Candidate(
            event_id=f"event-{n:06}", organisation=f"org-{n % strata}", role="SOCIAL_WORKER", purpose="S47",
            always="break_glass" if n < always else "",
        )
        for n in range(count)
    ]  # fmt: skip


def test_all_that_must_be_is_drawn_and_five_percent_of_each_stratum_and_twenty_at_least() -> None:
    sample = draw(candidates(3000, always=40), SEED)
    assert Counter(sample.drawn.values()) == {"break_glass": 40, LOT: 3 * 50}  # ceil(5 % of 986 or 987)
    assert all(drawn == 50 for drawn, _ in sample.strata.values())
    few = draw(candidates(100, strata=50), SEED)
    assert len(few.drawn) == 50  # one of every stratum
    assert len(draw(candidates(100, strata=1), SEED).drawn) == LEAST
    assert len(draw(candidates(7), SEED).drawn) == 7


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(0, 300), strata=st.integers(1, 20), seed=st.binary(min_size=32, max_size=32), dice=st.randoms()
)
def test_the_order_of_the_candidates_does_not_matter_and_every_stratum_has_its_share(
    count: int, strata: int, seed: bytes, dice: random.Random
) -> None:
    listed = candidates(count, strata=strata, always=min(count, 5))
    shuffled = list(listed)
    dice.shuffle(shuffled)
    sample = draw(listed, seed)
    assert draw(shuffled, seed) == sample
    assert digest(shuffled) == digest(listed)
    assert all(-(-of * 5 // 100) <= drawn <= of for drawn, of in sample.strata.values())
    by_lot = sum(why == LOT for why in sample.drawn.values())
    assert by_lot >= min(LEAST, count - min(count, 5))


def test_taking_an_event_away_changes_nothing_else_but_who_moves_up() -> None:
    """What is ranked lowest is drawn: nobody gets out of the sample by adding or hiding events of others."""
    listed = candidates(1000, strata=1)
    drawn = set(draw(listed, SEED).drawn)
    least = sorted(drawn, key=lambda each: rank(SEED, each))
    without = set(draw([one for one in listed if one.event_id != least[0]], SEED).drawn)
    assert drawn - without == {least[0]}
    assert len(without - drawn) == 1


def test_over_many_seeds_each_event_is_drawn_as_often_as_any_other() -> None:
    listed = candidates(200, strata=1)
    times = Counter(
        event for n in range(400) for event in draw(listed, n.to_bytes(32, "big"), least=0).drawn
    )  # fmt: skip
    assert sum(times.values()) == 400 * 10
    assert 4 <= min(times.values()) <= 20 <= max(times.values()) <= 40  # the mean is 20, its deviation 4.4


def test_what_is_no_list_or_no_terms_is_refused() -> None:
    with pytest.raises(SampleInvalid):
        draw([*candidates(3), *candidates(1)], SEED)
    with pytest.raises(SampleInvalid):
        draw(candidates(3), SEED, percent=101)


# --- The seed -------------------------------------------------------------------------------------------------------


def a_note(*witnesses: int, entries: int = 5, at_s: int = START_S) -> SignedCheckpoint:
    return ALog().add(entries).signed(witnesses, at_s=at_s)


def test_the_seed_is_of_the_checkpoint_and_of_the_first_line_under_it() -> None:
    seed = seed_of(a_note(0, 1), THREE, ended_s=START_S)
    assert (seed.witnessed, seed.quorum, seed.first) == (True, True, (START_S, "witness-0.example"))
    first = a_note(0)
    later = [a_cosignature(first.checkpoint, n, at_s=START_S + 1) for n in (1, 2)]
    same = (a_note(1, 0), a_note(0, 2), a_note(0, 1, 2), first, first.with_signature(later[0]).with_signature(later[1]))
    assert {seed_of(note, THREE, ended_s=START_S).value for note in same} == {seed.value}
    earlier = a_note(1, at_s=START_S + 1).with_signature(a_cosignature(first.checkpoint, 0, at_s=START_S + 2))
    others = {
        seed_of(note, THREE, ended_s=START_S).value
        for note in (a_note(1, 2), a_note(0, 1, entries=6), a_note(0, 1, at_s=START_S + 1), earlier)
    }
    assert len(others | {seed.value}) == 5
    assert seed_of(SignedCheckpoint.parse(seed.note), THREE, ended_s=START_S) == seed


def test_lines_of_strangers_and_the_hosts_own_can_not_move_the_seed() -> None:
    seed = seed_of(a_note(0, 1), THREE, ended_s=START_S)
    note = a_note(0, 1)
    stranger = note.with_signature(a_cosignature(note.checkpoint, 9))
    assert seed_of(stranger, THREE, ended_s=START_S).value == seed.value
    again = SignedCheckpoint(note.checkpoint, (*note.signatures, note.signatures[0]))
    assert seed_of(again, THREE, ended_s=START_S).value == seed.value


def test_without_a_line_after_the_end_there_is_no_seed_and_without_a_quorum_it_says_so() -> None:
    assert not seed_of(a_note(0), THREE, ended_s=START_S).quorum
    for note in (a_note(), a_note(0, 1, 2, at_s=START_S - 1), a_note(9)):
        with pytest.raises(QuorumMissing):
            seed_of(note, THREE, ended_s=START_S)
    mixed = a_note(0)
    mixed = mixed.with_signature(a_cosignature(mixed.checkpoint, 1, at_s=START_S - 60))
    assert seed_of(mixed, THREE, ended_s=START_S) == seed_of(a_note(0), THREE, ended_s=START_S)
    with pytest.raises(NoteInvalid):
        seed_of(SignedCheckpoint(mixed.checkpoint, mixed.signatures[1:]), THREE, ended_s=START_S)


def test_a_log_without_witnesses_has_a_seed_that_says_so() -> None:
    seed = seed_of(a_note(), NOBODY, ended_s=START_S)
    assert not seed.witnessed
    assert seed.value != seed_of(a_note(entries=6), NOBODY, ended_s=START_S).value


# --- `auditor sample` -----------------------------------------------------------------------------------------------


def a_drawn_sample(folder: Path, signed: SignedCheckpoint, policy: Policy, **changes: Any) -> Path:
    """What the host hands out: candidates, terms, checkpoint, and what it says was drawn."""
    listed = candidates(300, always=4)
    seed = seed_of(signed, policy, ended_s=START_S)
    told = {
        "since": datetime.fromtimestamp(START_S - 86_400, UTC).isoformat(),
        "until": datetime.fromtimestamp(START_S, UTC).isoformat(), "percent": 5, "least": 20, "note": seed.note,
        "candidates_sha256": digest(listed).hex(), "candidates": [asdict(one) for one in listed],
        "drawn": dict(draw(listed, seed.value).drawn),
    } | changes  # fmt: skip
    path = folder / "sample.json"
    path.write_text(json.dumps(told))
    return path


def auditor_says(path: Path, folder: Path, text: str, *more: object) -> tuple[int, str]:
    (folder / "policy").write_text(text)
    done = CliRunner().invoke(
        auditor,
        [str(one) for one in ("sample", path, "--policy", folder / "policy", "--evidence", folder / "evidence", *more)],
    )
    return done.exit_code, done.output


def test_anybody_with_the_list_and_a_policy_draws_the_sample_again(tmp_path: Path) -> None:
    text, log = a_policy(witnesses=3, threshold=2), ALog().add(9)
    path = a_drawn_sample(tmp_path, log.signed((0, 1)), THREE)
    code, said = auditor_says(path, tmp_path, text, "--log", log.add(4).write(tmp_path / "log"))
    assert (code, "19 of 300" in said or "24 of 300" in said) == (0, True)
    unwitnessed = a_drawn_sample(tmp_path, log.signed(), NOBODY)
    code, said = auditor_says(unwitnessed, tmp_path, a_policy())
    assert (code, "NO WITNESS" in said) == (0, True)


def test_a_sample_that_somebody_steered_is_found(tmp_path: Path) -> None:
    text, note = a_policy(witnesses=3, threshold=2), a_note(0, 1)
    honest = json.loads(a_drawn_sample(tmp_path, note, THREE).read_text())
    swapped = dict(honest["drawn"])
    out = next(one for one, why in swapped.items() if why == LOT)
    del swapped[out]
    left = [one["event_id"] for one in honest["candidates"] if one["event_id"] not in honest["drawn"]]
    swapped[left[0]] = LOT
    shortened = [one for one in honest["candidates"] if one["event_id"] != out]
    for changes in ({"drawn": swapped}, {"candidates": shortened}, {"percent": 50}, {"note": a_note(1, 2).note},
                    {"percent": "5"}, {"until": "yesterday"}):  # fmt: skip
        assert auditor_says(a_drawn_sample(tmp_path, note, THREE, **changes), tmp_path, text)[0] == 1, changes
    later = datetime.fromtimestamp(START_S + 60, UTC).isoformat()
    assert auditor_says(a_drawn_sample(tmp_path, note, THREE, until=later), tmp_path, text)[0] == 5
    assert (
        auditor_says(
            a_drawn_sample(tmp_path, note, THREE),
            tmp_path,
            text,
            "--log",
            ALog(first_salt=7).add(9).write(tmp_path / "log"),
        )[0]
        == 1
    )
    assert auditor_says(tmp_path / "none.json", tmp_path, text)[0] == 3


def test_whoever_witnessed_finds_that_its_line_was_passed_over(tmp_path: Path) -> None:
    text = a_policy(witnesses=3, threshold=2)
    key = tmp_path / "witness.key"
    key.write_text(WitnessKey("witness-2.example", a_key(102)).text)
    key.chmod(0o600)
    own = Witness.open(key, THREE)
    ended = START_S + 4  # entries 4 and later are of after the end
    log, size = ALog(), 0
    for grown, at in ((3, ended - 2), (1, ended), (2, ended + 2), (3, ended + 9)):
        log.add(grown)
        proof = consistency_proof(TileHashes(log.grown()[1], len(log.leaves)), size, len(log.leaves))
        assert own.add_checkpoint(AddCheckpoint(size, proof, log.signed()).text, at_s=at).status == 200
        size = len(log.leaves)
    assert [each.checkpoint.size for each in own.grown(ORIGIN, since_s=ended)] == [3, 4, 6, 9]
    folder = log.write(tmp_path / "log")
    until = datetime.fromtimestamp(ended, UTC).isoformat()

    def says(entries: int, *witnesses: int, at: int) -> tuple[int, str]:
        note = a_note(*witnesses, entries=entries, at_s=at)
        seed = seed_of(note, THREE, ended_s=ended)
        drawn = dict(draw(candidates(300, always=4), seed.value).drawn)
        path = a_drawn_sample(tmp_path, a_note(0, 1), THREE, until=until, note=note.note, drawn=drawn)
        return auditor_says(path, tmp_path, text, "--log", folder, "--witness", key)

    code, said = says(6, 0, 1, at=ended + 1)
    assert (code, "ITS PERIOD WAS CHOSEN" in said) == (0, True)  # another was first
    assert says(6, 1, 2, at=ended + 2)[0] == 0  # its line at `ended` was under entries of before the end
    for entries, chosen in ((9, (0, 1)), (9, (0, 2)), (6, (0, 1))):
        code, said = says(entries, *chosen, at=ended + 3)
        assert (code, "this witness signed 6 entries" in said) == (1, True)
    assert says(4, 0, 1, at=ended + 1)[0] == 1  # of before the end
    assert says(6, 0, at=ended + 1)[0] == 5  # no quorum, nor in the folder
    folder = log.write(tmp_path / "log", log.signed((0, 1)).note)
    assert says(6, 0, at=ended + 1)[0] == 0
    key.write_text("no key")
    assert says(6, 0, 1, at=ended + 1)[0] == 2


def test_a_line_passed_over_in_the_log_before_is_found_though_the_draw_is_by_the_one_after(tmp_path: Path) -> None:
    next_origin, ended = ORIGIN.replace("2026", "2027"), START_S
    old, new = ALog().add(5), ALog(key=a_key(2), origin=next_origin).add(5)
    text = a_policy(keys=(1,), witnesses=3, threshold=2)
    text = f"log {VerifierKey.of(a_key(2), next_origin)}\n{text}"
    both, key = Policy.parse(text.encode()), tmp_path / "witness.key"
    key.write_text(WitnessKey("witness-2.example", a_key(102)).text)
    key.chmod(0o600)
    own = Witness.open(key, both)
    assert own.add_checkpoint(AddCheckpoint(0, [], old.signed()).text, at_s=ended + 1).status == 200
    note = new.signed((0, 1), at_s=ended + 9)
    drawn = dict(draw(candidates(300, always=4), seed_of(note, both, ended_s=ended).value).drawn)
    week = {"since": "2026-09-13T23:00:00+00:00", "until": "2026-09-20T23:00:00+00:00"}
    path = a_drawn_sample(tmp_path, a_note(0, 1), THREE, note=note.note, drawn=drawn, **week)
    new.write(tmp_path / "logs" / "2027")
    at = ("--log", tmp_path / "logs", "--witness", key)
    assert auditor_says(path, tmp_path, text, *at)[0] == 3  # its own line can't be looked at without the log it is of
    old.write(tmp_path / "logs" / "2026")
    code, said = auditor_says(path, tmp_path, text, *at)
    assert (code, f"5 entries of {ORIGIN}" in said) == (1, True)
    key.write_text(WitnessKey("witness-0.example", a_key(100)).text)
    code, said = auditor_says(path, tmp_path, text, *at)
    assert (code, "CHOSEN" in said) == (0, False)


def test_a_witness_remembers_a_hundred_days_and_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    own = Witness(WitnessKey("witness-0.example", a_key(100)), tmp_path, THREE)
    log, day = ALog(), 86_400
    for size in range(GROWN_DAYS + 2):
        log.add(1)
        proof = consistency_proof(TileHashes(log.grown()[1], size + 1), size, size + 1)
        asked = AddCheckpoint(size, proof, log.signed()).text
        assert own.add_checkpoint(asked, at_s=START_S + size * day).status == 200
        if size == GROWN_DAYS:
            newest = max((tmp_path / origin_id(ORIGIN) / "grown").iterdir())
            newest.write_text(newest.read_text()[:-9])
    found = [each.checkpoint.size for each in own.grown(ORIGIN, since_s=START_S)]
    assert found == [*range(3, GROWN_DAYS + 1), GROWN_DAYS + 2]
