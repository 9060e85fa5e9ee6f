"""A linkage key in shares: as many as are due make it, fewer do not, and a share that was mistyped is named."""

from __future__ import annotations

import json
import stat
from itertools import combinations
from pathlib import Path

import pytest
from typer.testing import CliRunner

from linkage.agency import shares
from linkage.agency.cli import app
from linkage.agency.keys import BadKey, LinkageKeys, read_hex_key, write_secret
from linkage.agency.shares import Ceremony, combine, words_of

CEREMONY = Ceremony(partnership="northshire", epoch="2027-1", shares=4, due=2)
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shares")
    shares.make(CEREMONY, folder, key=KEY)
    return sorted(folder.iterdir())


def typed(folder: Path, name: str, text: str) -> Path:
    write_secret(folder / name, text.encode())
    return folder / name


def test_any_two_of_four_make_the_key_in_either_order(four: list[Path], tmp_path: Path) -> None:
    fingerprint = LinkageKeys(KEY, partnership="northshire", epoch="2027-1").fingerprint("guarded-3")
    for number, (one, other) in enumerate(combinations(four, 2)):
        assert combine([other, one], tmp_path / str(number)) == fingerprint
        assert read_hex_key(tmp_path / str(number)) == KEY


def test_a_share_is_for_its_keeper_alone_and_is_not_overwritten(four: list[Path]) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in four} == {0o600}
    with pytest.raises(BadKey, match="never overwritten"):
        shares.make(CEREMONY, four[0].parent)


def test_one_share_twice_a_share_too_few_or_of_another_ceremony_makes_nothing(four: list[Path], tmp_path: Path) -> None:
    shares.make(CEREMONY, tmp_path / "again", key=KEY)
    stranger = tmp_path / "again" / "share-1.toml"
    for given, message in (
        ([four[0]], "2 shares are due; given: 1"), (four[:3], "2 shares are due; given: 3"),
        ([four[0], four[0]], "given twice"), ([four[1], stranger], "not of one key"),
    ):  # fmt: skip
        with pytest.raises(BadKey, match=message):
            combine(given, tmp_path / "key")
    assert not (tmp_path / "key").exists()


def test_words_copied_by_hand_are_enough_and_a_wrong_one_is_named_by_its_share(
    four: list[Path], tmp_path: Path
) -> None:
    words = words_of(four[0]).split()
    by_hand = typed(tmp_path, "by-hand", f'words = "{" ".join(words).upper()}"')
    assert combine([by_hand, four[1]], tmp_path / "key")
    words[4], words[5] = words[5], words[4]
    slipped = typed(tmp_path, "slipped", f'words = "{" ".join(words)}"')
    with pytest.raises(BadKey, match="share 2 as given is not right") as wrong:
        combine([four[1], slipped], tmp_path / "other")
    assert not any(word in str(wrong.value).split() for word in words if len(word) > 7)


def test_a_key_with_another_fingerprint_than_is_due_is_not_written(four: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BadKey, match="0000000000000000 is due"):
        combine(four[:2], tmp_path / "key", fingerprint="0" * 16)
    text = four[0].read_text()
    later = typed(tmp_path, "later", text.replace('epoch = "2027-1"', 'epoch = "2028-1"'))
    with pytest.raises(BadKey, match="different values for epoch"):
        combine([later, four[1]], tmp_path / "key")
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"due": 1}, "at least 2"), ({"due": 5}, "at most as many"), ({"shares": 17, "due": 2}, "at most 16"),
        ({"epoch": "2027 1"}, "epoch"), ({"partnership": "North"}, "partnership"), ({"profile": "none"}, "profile"),
    ],
)  # fmt: skip
def test_a_ceremony_that_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(BadKey, match=message):
        Ceremony(**{"partnership": "northshire", "epoch": "2027-1", "shares": 4, **wrong})  # type: ignore[arg-type]


def test_the_commands_make_a_fresh_key_that_every_agency_can_be_given(tmp_path: Path) -> None:
    run = CliRunner()
    named = ["--partnership", "northshire", "--epoch", "2027-1"]
    made = run.invoke(app, ["link-key", "share", *named, "--out", str(tmp_path / "shares"), "--json"])
    assert made.exit_code == 0, made.output
    files = [str(path) for path in sorted((tmp_path / "shares").iterdir())]
    assert len(files) == 3
    key = tmp_path / "link.key"
    assert run.invoke(app, ["link-key", "combine", files[0], files[2], "--out", str(key)]).exit_code == 0
    home = ["keygen", "--home", str(tmp_path / "home"), "--agency", "northshire-icb", *named, "--link-key", str(key)]
    enrolled = run.invoke(app, [*home, "--json"])
    assert enrolled.exit_code == 0, enrolled.output
    assert json.loads(enrolled.output)["key_fingerprint"] == json.loads(made.output)["fingerprint"]
    assert key.read_text().strip() not in made.output + enrolled.output
    refused = run.invoke(app, ["link-key", "combine", files[0], "--out", str(tmp_path / "other")])
    assert refused.exit_code == 2
