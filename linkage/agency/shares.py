"""Shares of a partnership's linkage key: no single person holds it, and any two of three (say) make it again.

The shares are mnemonics of SLIP-0039 (SatoshiLabs: Shamir's secret sharing over GF(256), with a checksum in each share
and a digest in the secret), so that they can be kept on paper, read over a telephone, and combined by other programs,
too.  Fewer than are due tell nothing about the key.  A share's file is TOML; only its `words` are needed, the rest is
for its keeper.
"""

from __future__ import annotations

import re
import secrets
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Final

from shamir_mnemonic import MnemonicError, combine_mnemonics, generate_mnemonics
from shamir_mnemonic.share import Share

from linkage.agency.keys import KEY_BYTES, BadKey, LinkageKeys, read_secret, write_secret
from linkage.agency.settings import AGENCY_ID, EPOCH
from linkage.records import PROFILES, Profile

MOST: Final = 16  # shares that SLIP-0039 can make of one secret
_WORDS_A_LINE: Final = 66


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceremony:
    """Whose key it is, and how it is shared out: any `due` of `shares` make it."""

    partnership: str
    epoch: str
    profile: Profile = "guarded-3"
    shares: int = 3
    due: int = 2

    def __post_init__(self) -> None:
        """Raises BadKey."""
        if not re.fullmatch(AGENCY_ID, self.partnership):
            raise BadKey("partnership: lower-case letters, digits and '-' are due")
        if not re.fullmatch(EPOCH, self.epoch):
            raise BadKey("epoch: letters, digits, '.' and '-' are due, such as 2026-1")
        if self.profile not in PROFILES:
            raise BadKey(f"profile: one of {', '.join(PROFILES)} is due")
        if not 2 <= self.due <= self.shares <= MOST:
            raise BadKey(f"at least 2 shares must be due, and at most as many as there are, which is at most {MOST}")


def make(ceremony: Ceremony, out: Path, *, key: bytes | None = None) -> str:
    """Write `share-1.toml` and so on to `out` (mode 0600), of a fresh key or of `key`; the key's fingerprint.

    A fresh key is written nowhere.  Raises BadKey; overwrites no share.
    """
    secret = secrets.token_bytes(KEY_BYTES) if key is None else key
    keys = LinkageKeys(secret, partnership=ceremony.partnership, epoch=ceremony.epoch)
    fingerprint = keys.fingerprint(ceremony.profile)
    [shares] = generate_mnemonics(1, [(ceremony.due, ceremony.shares)], secret)
    places = [out / f"share-{number}.toml" for number in range(1, ceremony.shares + 1)]
    for place in places:
        if place.exists():
            raise BadKey(f"{place} is there already; shares are never overwritten")
    for number, (place, words) in enumerate(zip(places, shares, strict=True), 1):
        lines = "\n".join(wrap(words, _WORDS_A_LINE))
        text = (
            f"# Share {number} of {ceremony.shares} of a linkage key: any {ceremony.due} of them make it.\n"
            "# Keep it where no other share is, and never on the broker's machines.\n"
            f'partnership = "{ceremony.partnership}"\nepoch = "{ceremony.epoch}"\nprofile = "{ceremony.profile}"\n'
            f'fingerprint = "{fingerprint}"\nwords = """\n{lines}"""\n'
        )
        write_secret(place, text.encode())
    for number in range(ceremony.shares):  # each is tried, with its neighbours
        together = [*places, *places][number : number + ceremony.due]
        if _combined([words_of(place) for place in together]) != secret:
            raise BadKey("the shares written do not make the key again: destroy them, and begin anew")
    return fingerprint


def combine(shares: Sequence[Path], out: Path, *, fingerprint: str | None = None) -> str:
    """Make the key again from the share files, and write it to `out` (hex, mode 0600); the key's fingerprint.

    The partnership, epoch and fingerprint are those the files state, or `fingerprint`; where the key has another,
    nothing is written.  Raises BadKey, which names the file and never a word of it.
    """
    read = [_read(path) for path in shares]
    secret = _combined([words_of(path) for path in shares])
    stated = {name: {share.get(name) for share in read if share.get(name)} for name in _STATED}
    for name, values in stated.items():
        if len(values) > 1:
            raise BadKey(f"the shares state different values for {name}: they are not of one key")
    told = {name: next(iter(values), None) for name, values in stated.items()}
    if told["partnership"] is None or told["epoch"] is None:
        raise BadKey("no share states partnership and epoch: write both into one of the files")
    keys = LinkageKeys(secret, partnership=told["partnership"], epoch=told["epoch"])
    profile = told["profile"] or "guarded-3"
    if profile not in PROFILES:
        raise BadKey(f"profile: one of {', '.join(PROFILES)} is due")
    found = keys.fingerprint(profile)
    due = fingerprint or told["fingerprint"]
    if due is not None and found != due:
        raise BadKey(f"the shares make a key whose fingerprint is {found}; {due} is due")
    write_secret(out, secret.hex().encode() + b"\n")
    return found


def words_of(path: Path) -> str:
    """The words of a share's file, in one line.  Raises BadKey."""
    words = " ".join(_read(path).get("words", "").lower().split())
    if not words:
        raise BadKey(f"{path}: words = ... is due")
    return words


_STATED: Final = ("partnership", "epoch", "profile", "fingerprint")


def _read(path: Path) -> dict[str, str]:
    try:
        body = tomllib.loads(read_secret(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise BadKey(f"{path} is not a share: TOML with words = ... is due") from None
    if not all(isinstance(value, str) for value in body.values()):
        raise BadKey(f"{path} is not a share: every value is text")
    return body


def _combined(shares: Sequence[str]) -> bytes:
    try:
        parsed = [Share.from_mnemonic(words) for words in shares]
    except MnemonicError:
        wrong = [number for number, words in enumerate(shares, 1) if not _sound(words)]
        which = ", ".join(map(str, wrong))
        raise BadKey(f"share {which} as given is not right: a word is missing, misspelt or out of its place") from None
    if len({one.identifier for one in parsed}) > 1:
        raise BadKey("the shares are not of one key, or of two ceremonies of one key")
    if len({one.index for one in parsed}) < len(parsed):
        raise BadKey("a share is given twice")
    due = parsed[0].member_threshold
    if len(parsed) != due:
        raise BadKey(f"{due} shares are due; given: {len(parsed)}")
    try:
        return bytes(combine_mnemonics(shares))
    except MnemonicError:
        raise BadKey("the shares do not make a key: one of them was altered") from None


def _sound(words: str) -> bool:
    try:
        Share.from_mnemonic(words)
    except MnemonicError:
        return False
    return True
