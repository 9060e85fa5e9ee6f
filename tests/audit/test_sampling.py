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

from audit.checkpoint import NoteInvalid, SignedCheckpoint
from audit.cli import auditor
from audit.policy import Policy, QuorumMissing
from audit.sampling import LEAST, LOT, Candidate, SampleInvalid, digest, draw, rank, seed_of
from tests.builders_log import START_S, ALog, a_cosignature, a_policy

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


def test_the_seed_is_of_the_checkpoint_and_of_its_witnesses_lines() -> None:
    seed = seed_of(a_note(0, 1), THREE, ended_s=START_S)
    assert seed.witnessed
    assert seed == seed_of(a_note(1, 0), THREE, ended_s=START_S)  # in whatever order they stand
    others = {
        seed_of(note, THREE, ended_s=START_S).value
        for note in (a_note(0, 2), a_note(0, 1, 2), a_note(0, 1, entries=6), a_note(0, 1, at_s=START_S + 1))
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


def test_without_a_quorum_after_the_end_there_is_no_seed() -> None:
    for note in (a_note(0), a_note(), a_note(0, 1, at_s=START_S - 1)):
        with pytest.raises(QuorumMissing):
            seed_of(note, THREE, ended_s=START_S)
    mixed = a_note(0)
    mixed = mixed.with_signature(a_cosignature(mixed.checkpoint, 1, at_s=START_S - 60))
    with pytest.raises(QuorumMissing):
        seed_of(mixed, THREE, ended_s=START_S)
    with pytest.raises(NoteInvalid):
        seed_of(SignedCheckpoint(mixed.checkpoint, mixed.signatures[1:]), THREE, ended_s=START_S)


def test_a_log_without_witnesses_has_a_seed_that_says_so() -> None:
    seed = seed_of(a_note(), NOBODY, ended_s=START_S)
    assert not seed.witnessed
    assert seed.value != seed_of(a_note(entries=6), NOBODY, ended_s=START_S).value


# --- `auditor sample` -----------------------------------------------------------------------------------------------


def a_file(folder: Path, signed: SignedCheckpoint, policy: Policy, **changes: Any) -> Path:
    """What the host hands out: candidates, terms, checkpoint, and what it says was drawn."""
    listed = candidates(300, always=4)
    seed = seed_of(signed, policy, ended_s=START_S)
    told = {
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
    path = a_file(tmp_path, log.signed((0, 1)), THREE)
    code, said = auditor_says(path, tmp_path, text, "--log", log.add(4).write(tmp_path / "log"))
    assert (code, "19 of 300" in said or "24 of 300" in said) == (0, True)
    unwitnessed = a_file(tmp_path, log.signed(), NOBODY)
    code, said = auditor_says(unwitnessed, tmp_path, a_policy())
    assert (code, "NO WITNESS" in said) == (0, True)


def test_a_sample_that_somebody_steered_is_found(tmp_path: Path) -> None:
    text, note = a_policy(witnesses=3, threshold=2), a_note(0, 1)
    honest = json.loads(a_file(tmp_path, note, THREE).read_text())
    swapped = dict(honest["drawn"])
    out = next(one for one, why in swapped.items() if why == LOT)
    del swapped[out]
    left = [one["event_id"] for one in honest["candidates"] if one["event_id"] not in honest["drawn"]]
    swapped[left[0]] = LOT
    shortened = [one for one in honest["candidates"] if one["event_id"] != out]
    for changes in ({"drawn": swapped}, {"candidates": shortened}, {"percent": 50}, {"note": a_note(0, 2).note},
                    {"percent": "5"}, {"until": "yesterday"}):  # fmt: skip
        assert auditor_says(a_file(tmp_path, note, THREE, **changes), tmp_path, text)[0] == 1, changes
    later = datetime.fromtimestamp(START_S + 60, UTC).isoformat()
    assert auditor_says(a_file(tmp_path, note, THREE, until=later), tmp_path, text)[0] == 5
    assert (
        auditor_says(
            a_file(tmp_path, note, THREE), tmp_path, text, "--log", ALog(first_salt=7).add(9).write(tmp_path / "log")
        )[0]
        == 1
    )
    assert auditor_says(tmp_path / "none.json", tmp_path, text)[0] == 3
