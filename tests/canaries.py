"""Planted strings, and where bytes hold one: in clear, as some digest of it without a key, or written in another way."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

SHORTEST: Final = 8  # bytes: a shorter spelling is met by chance
EMPTY: Final = re.compile(rb"\x00{64,}")  # of which a database's files and journals mostly are
BEGINNING: Final = 4  # bytes by which a needle is known first


def written(raw: bytes) -> Iterator[bytes]:
    """Bytes as they are, in hexadecimal, and in base64 wherever in a longer text they begin."""
    yield raw
    yield raw.hex().encode()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw).rstrip(b"=")
        inner = encoded[-(-before * 8 // 6) : len(encoded) - 1]  # without letters that neighbours have a part in
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def spellings(text: str) -> frozenset[bytes]:
    """Ways to write a text that a search for it must not miss; case is left to `found`."""
    texts = {text, text.lower(), text.upper(), text.replace(" ", ""), text.replace(" ", "").lower()}
    raws = {one.encode(code) for one in texts for code in ("utf-8", "utf-16-le")}
    digests = {
        hashlib.new(name, one.encode()).digest() for one in texts for name in ("md5", "sha1", "sha256", "sha512")
    }
    ways = {way for raw in raws | digests for way in written(raw)}
    ways |= {quote(one).encode() for one in texts} | {json.dumps(one)[1:-1].encode() for one in texts}
    return frozenset(way for way in ways if len(way) >= SHORTEST) | {text.encode()}


def needles_of(texts: Iterable[str], secrets: Iterable[bytes] = ()) -> dict[bytes, str]:
    """What to look for, and which canary it is.  A secret is looked for as it is, in hexadecimal and in base64."""
    found = {way: text for text in texts for way in spellings(text)}
    found |= {way: "a secret" for secret in secrets for way in written(secret) if len(way) >= SHORTEST}
    return found


def found(needles: Mapping[bytes, str], places: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Which canary stands where.  Letters are compared as they are, and all in lower case as well."""
    as_it_is = _Search(needles)
    in_lower_case = _Search({needle.lower(): canary for needle, canary in needles.items()})
    met = set()
    for place, content in places.items():
        full = EMPTY.sub(bytes(SHORTEST), content)
        met |= {(place, canary) for canary in (*as_it_is.of(full), *in_lower_case.of(full.lower()))}
    return sorted(met)


class _Search:
    """For thousands of needles in one pass: places at which four bytes are those with which one begins, then all of it."""

    def __init__(self, needles: Mapping[bytes, str]) -> None:
        self._needles = needles
        self._by_beginning: dict[int, list[bytes]] = {}
        for needle in needles:
            self._by_beginning.setdefault(int.from_bytes(needle[:BEGINNING], "little"), []).append(needle)
        self._beginnings = np.array(sorted(self._by_beginning), np.uint32)
        self._likely = np.zeros(1 << 16, np.bool_)
        self._likely[_hashed(self._beginnings)] = True

    def of(self, held: bytes) -> Iterator[str]:
        """The canaries that stand in some bytes."""
        if len(held) < BEGINNING:
            return
        one = np.frombuffer(held, np.uint8).astype(np.uint32)
        four = one[:-3] | one[1:-2] << 8 | one[2:-1] << 16 | one[3:] << 24
        at = np.flatnonzero(self._likely[_hashed(four)])
        for place in at[np.isin(four[at], self._beginnings)].tolist():
            for needle in self._by_beginning[int(four[place])]:
                if held.startswith(needle, place):
                    yield self._needles[needle]


def _hashed(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    return (values * np.uint32(2654435761)) >> np.uint32(16)
