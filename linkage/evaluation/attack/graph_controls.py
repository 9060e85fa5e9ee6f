"""Filters without salt, with or without diffusion: what profiles are compared with, never one themselves.

The construction is that of the profiles, written down again in its simplest form, with keyed BLAKE2b for HMAC: a
pseudo-random function like any other, and the attacks see no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from linkage.evaluation.attack.graph_encodings import MISSING, Encodings, Filter, Ints, Words, numbered
from linkage.evaluation.attack.population import People
from linkage.records import FILTER_BITS

Bits = npt.NDArray[np.uint8]

FILTERS_OF: Final = {"given": "given_name", "family": "family_name", "dob": "dob", "postcode": "postcode"}
"""A filter without salt, and the token of the same value."""


def control_encodings(people: People, *, key: bytes, hashes: int = 10, diffusion: int = 0) -> Encodings:
    """One filter and one token a field, unsalted; `diffusion` is how many bits an output bit is made of, 0 for none."""
    days, day = np.unique(people.born, return_inverse=True)
    columns: dict[str, tuple[Sequence[str], Ints]] = {
        "given": (people.words, people.given),
        "family": (people.words, people.surname),
        "dob": ([str(value) for value in days.tolist()], np.where(people.born < 0, MISSING, day).astype(np.int64)),
        "postcode": (people.codes, people.postcode),
    }
    filters, tokens = {}, {}
    for name, (texts, column) in columns.items():
        used, index = numbered(column)
        values = [texts[at] for at in used.tolist()]
        filters[name] = Filter(words=_words(values, key, name, hashes, diffusion), index=index)
        tokens[FILTERS_OF[name]] = index
    return Encodings(filters=filters, tokens=tokens)


def _words(values: Sequence[str], key: bytes, field: str, hashes: int, diffusion: int) -> Words:
    bits = np.zeros((len(values), FILTER_BITS), np.uint8)
    positions: dict[str, Ints] = {}
    for row, value in enumerate(values):
        for gram in _grams(value, field):
            if gram not in positions:
                positions[gram] = _positions(key, f"{field}|{gram}", hashes)
            bits[row, positions[gram]] = 1
    if diffusion:
        bits = _diffused(bits, key, field, diffusion)
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint64)


def _grams(value: str, field: str) -> list[str]:
    if field == "dob":
        return [f"{place}{digit}" for place, digit in enumerate(value)]
    framed = f"_{value}_"
    return [framed[at : at + 2] for at in range(len(framed) - 1)]


def _positions(key: bytes, message: str, count: int) -> Ints:
    digest = blake2b(message.encode(), key=blake2b(key, digest_size=32).digest()).digest()
    return np.frombuffer(digest, "<u2")[:count].astype(np.int64) % FILTER_BITS


def _diffused(bits: Bits, key: bytes, field: str, inputs: int) -> Bits:
    made = np.zeros_like(bits)
    for output in range(FILTER_BITS):
        drawn = np.concatenate([_positions(key, f"{field}|diffusion|{output}|{turn}", 32) for turn in range(2)])
        _, first = np.unique(drawn, return_index=True)
        chosen = drawn[np.sort(first)][:inputs]
        made[:, output] = np.bitwise_xor.reduce(bits[:, chosen], axis=1)
    return made
