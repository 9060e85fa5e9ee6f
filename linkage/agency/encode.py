"""From standard people to filters and tokens, under the linkage key: what leaves an agency instead of them.

A *filter* says how alike two values are: grams of the value (under `guarded`, salted by the date of birth or by the
postcode) set ten bits each of 512, and then every bit becomes the exclusive or of ten others (diffusion).  A *token*
says only whether two values are equal.  Whatever lacks a part is null, never a constant: a constant would make one
large group that shares an encoding.

How it is fast: distinct values are encoded once and gathered; each key's HMAC pads are hashed once; diffusion works on
512 rows of one bit a person, so that a step is one exclusive or over whole rows; the output is transposed at the end.

Sources: Schnell, Bachteler and Reiher 2009 (filters); Armknecht, Heng and Schnell 2023 (diffusion).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.agency.keys import SEPARATOR, LinkageKeys, token
from linkage.agency.people import STANDARD_FIELDS, STANDARD_IDENTIFIERS, Person
from linkage.agency.standardise import soundex, standardise_person
from linkage.records import FILTER_BITS, FILTER_WORDS, FILTERS, IDENTIFIERS, TOKENS, Profile, filter_columns

ENCODER: Final = "encoder-2 anyascii-0.3.3"  # whatever changes a byte of an encoding changes this
DEFAULT_PROFILE: Final[Profile] = "guarded-2"
HASHES: Final = 10  # bits a gram sets; never 5: graph matching then succeeds without errors (linkage.md 1.3)
DIFFUSION: Final = 10  # bits that one output bit is made of
BLOCK: Final = 8192  # people at a time: 4 MiB of bits, whatever the extract

Ints = npt.NDArray[np.int64]

_FILTER_PARTS: Final = {
    "given_d": ("given_name", "date_of_birth"),
    "given_p": ("given_name", "postcode"),
    "family_d": ("family_name", "date_of_birth"),
    "family_p": ("family_name", "postcode"),
    "given": ("given_name",),
    "family": ("family_name",),
    "dob": ("date_of_birth",),
    "postcode": ("postcode",),
}
"""A filter's field, and the field that salts it, if one does."""

_SALT_PREFIX: Final = {"date_of_birth": "D", "postcode": "P"}

_TOKEN_PARTS: Final = {
    "given_name_d": ("given_name", "date_of_birth"),
    "given_name_p": ("given_name", "postcode"),
    "family_name_d": ("family_name", "date_of_birth"),
    "family_name_p": ("family_name", "postcode"),
    "dob": ("date_of_birth",),
    "postcode": ("postcode",),
    "dob_given": ("date_of_birth", "given_soundex"),
    "dob_family": ("date_of_birth", "family_soundex"),
    "postcode_given": ("postcode", "given_soundex"),
    "postcode_family": ("postcode", "family_soundex"),
    "dob_sector": ("date_of_birth", "sector"),
    "given_name": ("given_name",),
    "family_name": ("family_name",),
    "soundex_pair": ("soundex_pair",),
    "family_year": ("family_soundex", "year"),
    "given_year": ("given_soundex", "year"),
    "family_daymonth": ("family_soundex", "month_day"),
    "given_daymonth": ("given_soundex", "month_day"),
    "postcode_given1": ("postcode", "given_initial"),
    "postcode_family1": ("postcode", "family_initial"),
}

_DERIVED: Final[dict[str, tuple[str, Callable[[str], str | None]]]] = {
    "given_soundex": ("given_name", soundex),
    "family_soundex": ("family_name", soundex),
    "sector": ("postcode", lambda postcode: postcode[:-2]),
    "year": ("date_of_birth", lambda day: day[:4]),
    "month_day": ("date_of_birth", lambda day: day[4:]),
    "given_initial": ("given_name", lambda name: name[:1]),
    "family_initial": ("family_name", lambda name: name[:1]),
}

_SAME_KEY: Final = {"superseded_nhs_number": "nhs_number", "former_upn": "upn"}
"""An identifier that was replaced goes under the key of its successor, so that the two columns can be compared."""


def encode_people(
    people: pa.Table, keys: LinkageKeys, profile: Profile = DEFAULT_PROFILE, *, agency: str = ""
) -> pa.Table:
    """The filter, token and identifier columns of `records.persons_schema(profile)`, a row for each row of `people`.

    `people` is in standard form (`people.STANDARD_SCHEMA`; a column that is left out is all missing), as
    `standardise.standardise_people` gives it.  `agency` keys `local_nominal`, which is null without it.
    """
    values = _Values(people)
    columns: dict[str, pa.Array] = {}
    for name in FILTERS[profile]:
        words, present = _filter(values, name, keys, profile)
        missing = ~present
        *word_names, popcount = filter_columns(name)
        for at, column in enumerate(word_names):
            columns[column] = pa.array(words[:, at], mask=missing)
        counts = np.bitwise_count(words.view(np.uint64)).sum(axis=1, dtype=np.int32)
        columns[popcount] = pa.array(counts, mask=missing)
    for name in TOKENS[profile]:
        columns[f"t_{name}"] = _tokens(values, _TOKEN_PARTS[name], keys.key(f"token/{name}", profile))
    wire = {named: field for field, named in STANDARD_IDENTIFIERS.items()}
    for name in IDENTIFIERS:
        label = f"id/{_SAME_KEY.get(name, name)}"
        if name == "local":
            label += f"/{agency}"
        if name == "local" and not agency:
            columns["id_local"] = pa.nulls(values.rows, pa.int64())
        else:
            columns[f"id_{name}"] = _tokens(values, (wire[name],), keys.key(label, profile))
    return pa.table(columns)


def encode_row(person: Person, keys: LinkageKeys, profile: Profile = DEFAULT_PROFILE, *, today: date) -> dict[str, Any]:
    """One typed person as the JSON `Row` of a search: {"filters", "tokens", "identifiers", "birth_year", "sex"}.

    Standardises first; a field that is missing or fails its check is null (`standardise.check_person` says why).
    """
    standard = standardise_person(person, today=today)
    row: dict[str, int | None] = encode_people(standard.people, keys, profile).to_pylist()[0]
    filters: dict[str, str | None] = {}
    for name in FILTERS[profile]:
        words = [row[column] for column in filter_columns(name)[:-1]]
        filters[name] = None if words[0] is None else base64.b64encode(np.array(words, "<i8").tobytes()).decode("ascii")
    return {
        "filters": filters,
        "tokens": {name: None if row[f"t_{name}"] is None else str(row[f"t_{name}"]) for name in TOKENS[profile]},
        "identifiers": {name: str(row[f"id_{name}"]) for name in IDENTIFIERS if row[f"id_{name}"] is not None},
        "birth_year": standard.birth_year[0].as_py(),
        "sex": standard.sex[0].as_py(),
    }


def household_token(keys: LinkageKeys, profile: Profile, uprn: str) -> int:
    """The keyed token of a standard UPRN, for `household` relationships alone."""
    return token(keys.key("id/household", profile), uprn)


# --- Columns, by distinct value --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    """A text column as distinct values and, for each row, the index of its value; -1 is missing."""

    distinct: Sequence[str]
    index: Ints


class _Values:
    """The columns of standard people, and those derived from them, each made once."""

    def __init__(self, people: pa.Table) -> None:
        if unknown := sorted(set(people.column_names) - set(STANDARD_FIELDS)):
            raise ValueError(f"column {unknown[0]!r} is not one of a standard table: {', '.join(STANDARD_FIELDS)}")
        self.rows = people.num_rows
        self._people = people
        self._made: dict[str, _Column] = {}

    def __getitem__(self, name: str) -> _Column:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> _Column:
        if name == "soundex_pair":
            return self._pair_of_soundexes()
        if name in _DERIVED:
            source, derive = _DERIVED[name]
            return _derived(self[source], derive)
        if name not in self._people.column_names:
            return _Column((), np.full(self.rows, -1, np.int64))
        column = self._people.column(name)
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(whole, pa.ChunkedArray):  # of no chunk at all
            whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], pa.string())
        coded = pc.dictionary_encode(whole.cast(pa.string()))
        index = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return _Column(coded.dictionary.to_pylist(), index)

    def _pair_of_soundexes(self) -> _Column:
        left, right = self["given_soundex"], self["family_soundex"]
        used, index = _distinct_rows((left, right))
        pairs = [sorted((left.distinct[one], right.distinct[other])) for one, other in used]
        return _Column([SEPARATOR.decode().join(pair) for pair in pairs], index)


def _derived(source: _Column, derive: Callable[[str], str | None]) -> _Column:
    made = [derive(value) for value in source.distinct]
    order: dict[str, int] = {}
    lookup = np.array(
        [-1 if value is None else order.setdefault(value, len(order)) for value in [*made, None]], np.int64
    )
    return _Column(list(order), lookup[source.index])  # a missing row has index -1: the last, which is missing


def _distinct_rows(columns: Sequence[_Column]) -> tuple[list[tuple[int, ...]], Ints]:
    """The distinct combinations that occur, and each row's index among them; -1 where any part is missing."""
    combined = columns[0].index.copy()
    missing = combined < 0
    for column in columns[1:]:
        missing |= column.index < 0
        combined = combined * max(len(column.distinct), 1) + column.index
    combined[missing] = -1
    found, index = np.unique(combined, return_inverse=True)
    if len(found) and found[0] == -1:
        found, index = found[1:], index - 1
    parts: list[list[int]] = []
    for column in reversed(columns[1:]):
        parts.append((found % max(len(column.distinct), 1)).tolist())
        found = found // max(len(column.distinct), 1)
    parts.append(found.tolist())
    return list(zip(*reversed(parts), strict=True)), index.astype(np.int64)


# --- Tokens ----------------------------------------------------------------------------------------------------------


def _tokens(values: _Values, parts: Sequence[str], key: bytes) -> pa.Array:
    """The token of each row, null where a part is missing; each distinct combination is hashed once."""
    columns = [values[part] for part in parts]
    used, index = _distinct_rows(columns)
    texts = [[value.encode() for value in column.distinct] for column in columns]
    if len(texts) == 1:
        messages: Iterable[bytes] = (texts[0][at] for (at,) in used)
    else:
        messages = (SEPARATOR.join([text[at] for text, at in zip(texts, row, strict=True)]) for row in used)
    digests = b"".join([digest[:8] for digest in _Hmac(key, "sha256").of_all(messages)])
    made = np.append(np.frombuffer(digests, "<i8").astype(np.int64), np.int64(0))  # the last stands for missing
    return pa.array(made[index], mask=index < 0)


class _Hmac:
    """HMAC (RFC 2104) of many messages under one key, whose two pads are hashed once.  The same bytes as `hmac`."""

    def __init__(self, key: bytes, algorithm: str) -> None:
        block = hashlib.new(algorithm).block_size
        if len(key) > block:
            key = hashlib.new(algorithm, key).digest()
        padded = key.ljust(block, b"\0")
        self._inner = hashlib.new(algorithm, bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.new(algorithm, bytes(byte ^ 0x5C for byte in padded))

    def of_all(self, messages: Iterable[bytes]) -> list[bytes]:
        """The digest of each message, in order."""
        inner_copy, outer_copy = self._inner.copy, self._outer.copy
        digests: list[bytes] = []
        keep = digests.append
        for message in messages:  # the hottest loop of the encoder: about forty turns a person
            inner = inner_copy()
            inner.update(message)
            outer = outer_copy()
            outer.update(inner.digest())
            keep(outer.digest())
        return digests


# --- Filters ---------------------------------------------------------------------------------------------------------


def _filter(values: _Values, name: str, keys: LinkageKeys, profile: Profile) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Words (rows x 8) of one filter, and which rows have one."""
    parts = _FILTER_PARTS[name]
    columns = [values[part] for part in parts]
    used, index = _distinct_rows(columns)
    field = columns[0]
    made = [_dates_grams(value) if parts[0] == "date_of_birth" else _bigrams(value) for value in field.distinct]
    if len(parts) > 1:
        prefix = _SALT_PREFIX[parts[1]]
        salts = [f"{prefix}{value}".encode() + SEPARATOR for value in columns[1].distinct]
    else:
        salts = [SEPARATOR]
    table = diffusion(keys.key(f"{parts[0]}/diff", profile))
    pads = _Hmac(keys.key(f"{parts[0]}/gram", profile), "sha512")
    words = np.empty((len(used) + 1, FILTER_WORDS), np.int64)
    words[-1] = 0  # stands for missing
    for start in range(0, len(used), BLOCK):
        block = used[start : start + BLOCK]
        if len(parts) > 1:
            owners, positions = _salted_positions(pads, ((salts[row[1]], made[row[0]]) for row in block))
        else:
            owners, positions = _unsalted_positions(pads, [made[row[0]] for row in block])
        words[start : start + len(block)] = _diffused(owners, positions, len(block), table)
    return words[index], index >= 0


def _bigrams(value: str) -> list[bytes]:
    """The set of bigrams of `_` + value + `_`, in order of first appearance."""
    framed = f"_{value}_"
    return list(dict.fromkeys(framed[at : at + 2].encode() for at in range(len(framed) - 1)))


def _dates_grams(day: str) -> list[bytes]:
    """Eight digits, each with its place: `20150314` gives `02`, `10`, `21`, ... `74`."""
    return [f"{place}{digit}".encode() for place, digit in enumerate(day)]


def _salted_positions(pads: _Hmac, rows: Iterable[tuple[bytes, Sequence[bytes]]]) -> tuple[Ints, Ints]:
    """Whose row each gram belongs to, and the positions it sets (grams x HASHES)."""
    messages: list[bytes] = []
    counts: list[int] = []
    for salt, grams in rows:
        counts.append(len(grams))
        messages += [salt + gram for gram in grams]
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, _positions(b"".join(pads.of_all(messages)))


def _unsalted_positions(pads: _Hmac, rows: Sequence[Sequence[bytes]]) -> tuple[Ints, Ints]:
    """The same where there is no salt: few grams are distinct, so each is hashed once."""
    known: dict[bytes, int] = {}
    which = np.array([known.setdefault(gram, len(known)) for grams in rows for gram in grams], np.int64)
    owners = np.repeat(np.arange(len(rows)), [len(grams) for grams in rows])
    return owners, _positions(b"".join(pads.of_all(SEPARATOR + gram for gram in known)))[which]


def _positions(digests: bytes) -> Ints:
    """The first ten little-endian 16-bit words of each SHA-512 digest, mod 512."""
    words = np.frombuffer(digests, "<u2").reshape(-1, 32)[:, :HASHES]
    return (words % FILTER_BITS).astype(np.int64)


def _diffused(owners: Ints, positions: Ints, rows: int, table: Ints) -> Ints:
    """Words (rows x 8) of the diffused filters.  Bit p is bit p mod 64 of word p div 64."""
    base = np.zeros((FILTER_BITS, -(-rows // 8) * 8), np.uint8)
    base[positions.ravel(), np.repeat(owners, positions.shape[1])] = 1
    slices = np.packbits(base, axis=1, bitorder="little")  # 512 rows of one bit a person
    output = slices[table[:, 0]]
    for at in range(1, table.shape[1]):
        output ^= slices[table[:, at]]
    return _transposed(output)[:rows]


def _transposed(slices: npt.NDArray[np.uint8]) -> Ints:
    """From 512 rows of one bit a person to eight words a person, by blocks of 8 x 8 bits.

    Source: Warren, Hacker's Delight, 2nd edition, section 7-3.
    """
    eights = slices.shape[1]
    blocks = np.ascontiguousarray(slices.reshape(FILTER_BITS // 8, 8, eights).transpose(2, 0, 1)).view("<u8")[:, :, 0]
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        moved = (blocks ^ (blocks >> np.uint64(shift))) & np.uint64(mask)
        blocks = blocks ^ moved ^ (moved << np.uint64(shift))
    people = np.ascontiguousarray(blocks[:, :, np.newaxis].view(np.uint8).transpose(0, 2, 1))
    return people.reshape(eights * 8, FILTER_BITS // 8).view("<i8").astype(np.int64)


@lru_cache(maxsize=32)
def diffusion(key: bytes) -> Ints:
    """For each of 512 output bits the ten base bits whose exclusive or it is; the same for all salts of a field."""
    table = np.empty((FILTER_BITS, DIFFUSION), np.int64)
    for bit in range(FILTER_BITS):
        taken: dict[int, None] = {}
        n = 0
        while len(taken) < DIFFUSION:
            digest = hmac.digest(key, b"%d/%d" % (bit, n), "sha512")
            for at in range(0, len(digest), 2):
                taken[int.from_bytes(digest[at : at + 2], "little") % FILTER_BITS] = None
                if len(taken) == DIFFUSION:
                    break
            n += 1
        table[bit] = list(taken)
    return table
