"""From standard people to filters and tokens, under the linkage key: what leaves an agency instead of them.

A *filter* says how alike two values are: grams of the value (under `guarded`, salted by the date of birth or by the
postcode) set ten bits each of 512, and then every bit becomes the exclusive or of ten others (diffusion).  A *token*
says only whether two values are equal.  Whatever lacks a part is null, never a constant: a constant would make one
large group that shares an encoding.

    salt id   = the first 14 bytes of AES-CMAC(k(<field>/salt), the salts joined by 0x1F); of nothing without a salt
    pad       = AES-256(k(<field>/pad), salt id | n) for n = 0..3, two bytes each, end to end; zeros without a salt
    filter    = the diffused bits, exclusive or the pad
    positions = of AES-256(k(<field>/gram), salt id | gram), as two little-endian 64-bit words: the five lowest groups
                of nine bits of the first word, then those of the second
    token     = the first 8 bytes of AES-CMAC(k(<label>), parts joined by 0x1F), little-endian, signed

A pad leaves as many bits different between two filters of one salt as there were, and hides how many bits are set,
which tells of a value's length: filters of two salts look like random bits to one another.

A gram is two bytes, so that a block holds one salt and one gram and nothing else, and no two of these share a block.

How it is fast: whole columns go through the cipher in one call; unsalted values are encoded once each and gathered;
diffusion works on 512 rows of one bit a person, so that a step is one exclusive or over whole rows; the output is
turned into words 64 people at a time.

Sources: Schnell, Bachteler and Reiher 2009 (filters); Armknecht, Heng and Schnell 2023 (diffusion); NIST FIPS 197
(AES); NIST SP 800-38B (CMAC).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from linkage.agency.columns import WORD, Column, Ints, Texts, Words, by_row, distinct, in_order, soundexes, spread
from linkage.agency.keys import LinkageKeys, token
from linkage.agency.people import DEMOGRAPHICS, STANDARD_FIELDS, STANDARD_IDENTIFIERS, Person
from linkage.agency.prf import Joined, Prf, as_words, cmac
from linkage.agency.standardise import standardise_person
from linkage.records import FILTER_BITS, FILTER_WORDS, FILTERS, IDENTIFIERS, TOKENS, Profile, filter_columns

ENCODER: Final = "encoder-3 anyascii-0.3.3"  # whatever changes a byte of an encoding changes this
DEFAULT_PROFILE: Final[Profile] = "guarded-3"
HASHES: Final = 10  # bits a gram sets; never 5: graph matching then succeeds without errors (linkage.md 1.3)
DIFFUSION: Final = 10  # bits that one output bit is made of
SALT_ID_BYTES: Final = 14  # with a gram they fill a block of the cipher
BLOCK: Final = 4096  # people whose filters are diffused together: as many bits as the nearer caches hold
_SPREAD: Final = 1024  # people whose grams are spread together, a byte a bit; a power of two, and BLOCK a multiple
_TOKEN_BLOCK: Final = 8192  # people at a time in one token

Flags = npt.NDArray[np.bool_]

_FILTER_PARTS: Final = {
    "given_d": ("given_name", "date_of_birth"),
    "given_p": ("given_name", "postcode", "given_initial", "family_initial"),
    "family_d": ("family_name", "date_of_birth"),
    "family_p": ("family_name", "postcode", "given_initial", "family_initial"),
    "given": ("given_name",),
    "family": ("family_name",),
    "dob_p": ("date_of_birth", "postcode", "given_initial", "family_initial"),
    "postcode_d": ("postcode", "date_of_birth"),
    "dob": ("date_of_birth",),
    "postcode": ("postcode",),
}
"""A filter's field, and the columns that salt it together, if any do."""

_SALT_PREFIX: Final = {"date_of_birth": "D", "postcode": "P", "given_initial": "I", "family_initial": "J"}
"""What tells salts of one column from those of any other; a column that salts has a letter of its own here."""

_TOKEN_PARTS: Final = {
    "given_name_d": ("given_name", "date_of_birth"),
    "given_name_p": ("given_name", "postcode", "family_initial"),
    "family_name_d": ("family_name", "date_of_birth"),
    "family_name_p": ("family_name", "postcode", "given_initial"),
    "dob": ("date_of_birth",),
    "postcode": ("postcode",),
    "dob_given": ("date_of_birth", "given_soundex"),
    "dob_family": ("date_of_birth", "family_soundex"),
    "postcode_given": ("postcode", "given_soundex"),
    "postcode_family": ("postcode", "family_soundex"),
    "dob_sector": ("date_of_birth", "sector"),
    "dob_family_given1": ("date_of_birth", "family_soundex", "given_initial"),
    "postcode_family_given1": ("postcode", "family_soundex", "given_initial"),
    "dob_given_family1": ("date_of_birth", "given_soundex", "family_initial"),
    "postcode_given_family1": ("postcode", "given_soundex", "family_initial"),
    "given_name_n": ("given_name", "nhs_number"),
    "family_name_n": ("family_name", "nhs_number"),
    "dob_n": ("date_of_birth", "nhs_number"),
    "given_name_u": ("given_name", "upn"),
    "family_name_u": ("family_name", "upn"),
    "dob_u": ("date_of_birth", "upn"),
    "given_soundex": ("given_soundex",),
    "family_soundex": ("family_soundex",),
    "given_initial": ("given_initial",),
    "family_initial": ("family_initial",),
    "given_name": ("given_name",),
    "family_name": ("family_name",),
    "soundex_pair": ("lesser_soundex", "greater_soundex"),
    "family_year": ("family_soundex", "year"),
    "given_year": ("given_soundex", "year"),
    "family_daymonth": ("family_soundex", "month_day"),
    "given_daymonth": ("given_soundex", "month_day"),
    "postcode_given1": ("postcode", "given_initial"),
    "postcode_family1": ("postcode", "family_initial"),
}

_DERIVED: Final[dict[str, tuple[str, Callable[[Column], Column]]]] = {
    "given_soundex": ("given_name", soundexes),
    "family_soundex": ("family_name", soundexes),
    "sector": ("postcode", lambda postcodes: postcodes.sliced(None, -2)),
    "year": ("date_of_birth", lambda days: days.sliced(None, 4)),
    "month_day": ("date_of_birth", lambda days: days.sliced(4, None)),
    "given_initial": ("given_name", lambda names: names.sliced(None, 1)),
    "family_initial": ("family_name", lambda names: names.sliced(None, 1)),
}
"""A column that is made of another: of which, and how."""

_SAME_KEY: Final = {"superseded_nhs_number": "nhs_number", "former_upn": "upn"}
"""An identifier that was replaced goes under the key of its successor, so that the two columns can be compared."""


def encode_people(
    people: pa.Table, keys: LinkageKeys, profile: Profile = DEFAULT_PROFILE, *, agency: str = ""
) -> pa.Table:
    """The filter, token and identifier columns of `records.persons_schema(profile)`, a row for each row of `people`.

    `people` is in standard form (`people.STANDARD_SCHEMA`; a column that is left out is all missing), as
    `standardise.standardise_people` gives it; raises ValueError for another.  `agency` keys `local_nominal`, which is
    null without it.
    """
    values = _Values(people)
    columns: dict[str, pa.Array] = {}
    for field in dict.fromkeys(_FILTER_PARTS[name][0] for name in FILTERS[profile]):
        for name, words, present in _filters(values, field, keys, profile):
            *word_names, popcount = filter_columns(name)
            for column, word in zip(word_names, words, strict=True):
                columns[column] = _array(word.view("<i8"), present)
            columns[popcount] = _array(np.bitwise_count(words).sum(axis=0, dtype=np.int32), present)
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


def _array(values: npt.NDArray[np.generic], present: Flags) -> pa.Array:
    """Values as Arrow holds them; they are zero where they are null."""
    missing = len(present) - int(np.count_nonzero(present))
    validity = pa.py_buffer(np.packbits(present, bitorder="little")) if missing else None
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(
        kind, len(values), [validity, pa.py_buffer(np.ascontiguousarray(values))], null_count=missing
    )


# --- Columns ---------------------------------------------------------------------------------------------------------


class _Values:
    """The columns of standard people, and what is derived from them, each made once."""

    def __init__(self, people: pa.Table) -> None:
        if unknown := sorted(set(people.column_names) - set(STANDARD_FIELDS)):
            raise ValueError(f"column {unknown[0]!r} is not one of a standard table: {', '.join(STANDARD_FIELDS)}")
        self.rows = people.num_rows
        self._people = people
        self._columns: dict[str, Column] = {}
        self._grams: dict[str, _Grams] = {}
        self._salts: dict[tuple[str, ...], tuple[Sequence[Joined], Ints]] = {}

    def __getitem__(self, name: str) -> Column:
        if name not in self._columns:
            self._columns |= self._made(name)
        return self._columns[name]

    def grams(self, field: str) -> _Grams:
        """The grams of each value of a field."""
        if field not in self._grams:
            self._grams[field] = (_digits if field == "date_of_birth" else _bigrams)(self[field].texts)
        return self._grams[field]

    def salts(self, names: tuple[str, ...]) -> tuple[Sequence[Joined], Ints]:
        """Columns as they salt others, joined: of several fields the same."""
        if names not in self._salts:
            self._salts[names] = _joined([self._salt(name) for name in names])
        return self._salts[names]

    def _salt(self, name: str) -> Column:
        column = self[name]
        return Column(column.texts.framed(_SALT_PREFIX[name].encode(), b""), column.index)

    def _made(self, name: str) -> dict[str, Column]:
        if name in ("lesser_soundex", "greater_soundex"):
            lesser, greater = in_order(self["given_soundex"], self["family_soundex"])
            return {"lesser_soundex": lesser, "greater_soundex": greater}
        if name in _DERIVED:
            source, derive = _DERIVED[name]
            return {name: derive(self[source])}
        if name not in self._people.column_names:
            return {name: Column(Texts.of(pa.array([], pa.string())), np.full(self.rows, -1, np.int64))}
        column = self._people.column(name)
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        whole = pa.concat_arrays([chunk.cast(pa.string()) for chunk in chunks] or [pa.array([], pa.string())])
        if name not in DEMOGRAPHICS:
            return {name: by_row(whole)}
        made = distinct(whole)
        if not made.texts.ascii or (name == "date_of_birth" and set(made.texts.lengths[:-1].tolist()) - {8}):
            raise ValueError(f"column {name!r} is not in standard form: see people.STANDARD_SCHEMA")
        return {name: made}


# --- Tokens ----------------------------------------------------------------------------------------------------------


def _tokens(values: _Values, parts: Sequence[str], key: bytes) -> pa.Array:
    """The token of each row, null where a part is missing."""
    columns = [values[part] for part in parts]
    if not all(len(column.texts) for column in columns):
        return pa.nulls(values.rows, pa.int64())
    made, index = _macs(_joined(columns), key)
    return _array(made[:, 0][index].view("<i8"), index >= 0)


def _macs(joined: tuple[Sequence[Joined], Ints], key: bytes) -> tuple[Words, Ints]:
    """CMACs (x 2) of what `_joined` gave, and which is each row's; zeros for -1."""
    blocks, index = joined
    prf = Prf(key)
    return np.concatenate([*(prf.of_texts(block) for block in blocks), np.zeros((1, 2), "<u8")]), index


def _joined(columns: Sequence[Column]) -> tuple[Sequence[Joined], Ints]:
    """The joined values of rows, some at a time, and which is each row's; -1 where a part is missing.

    Values of a single column are there once each.  Of several columns nearly every row is a combination of its own.
    """
    if len(columns) == 1:
        index = columns[0].index
        which = [np.arange(len(columns[0].texts))]
    else:
        present = np.logical_and.reduce([column.index >= 0 for column in columns])
        rows = np.flatnonzero(present)
        index = np.full(len(present), -1, np.int64)
        index[rows] = np.arange(len(rows))
        which = [column.index[rows] for column in columns]
    texts = [column.texts for column in columns]
    starts = range(0, len(which[0]), _TOKEN_BLOCK)
    return [Joined(texts, [one[start : start + _TOKEN_BLOCK] for one in which]) for start in starts], index


# --- Filters ---------------------------------------------------------------------------------------------------------


def _filters(values: _Values, field: str, keys: LinkageKeys, profile: Profile) -> Iterator[tuple[str, Words, Flags]]:
    """Each filter of one field: its name, its words (8 x rows; zero where it is missing), and which rows have one."""
    column = values[field]
    make = _FilterMaker(
        values.grams(field), keys.key(f"{field}/gram", profile), diffusion(keys.key(f"{field}/diff", profile))
    )
    salt_key = keys.key(f"{field}/salt", profile)
    pad = Prf(keys.key(f"{field}/pad", profile))
    salted: dict[str, tuple[Words, Ints]] = {}
    for name in FILTERS[profile]:
        if _FILTER_PARTS[name][0] != field:
            continue
        if salting := _FILTER_PARTS[name][1:]:
            salted[name] = _macs(values.salts(salting), salt_key)
        else:  # each value once; "missing" is last, and has no grams
            each = np.arange(len(column.texts) + 1)
            (made,) = make.words(each, [(as_words(cmac(salt_key, b"")), np.zeros_like(each))])
            yield name, np.take(made, column.index, axis=1), column.index >= 0
    for name, words in zip(salted, make.words(column.index, [*salted.values()]), strict=True):
        _flip(words, *salted[name], pad)
        present = (column.index >= 0) & (salted[name][1] >= 0)
        if not present.all():
            words[:, ~present] = 0
        yield name, words, present


def _flip(words: Words, ids: Words, which: Ints, pad: Prf) -> None:
    """Flip in each row's words (8 x rows) the bits that are set in the pad of its salt."""
    first, second = _cut(ids)
    blocks = np.empty((len(ids), FILTER_WORDS // 2, 2), "<u8")
    blocks[:, :, 0] = first[:, None]
    blocks[:, :, 1] = second[:, None]
    blocks[:, :, 1] |= np.arange(FILTER_WORDS // 2, dtype="<u8") << np.uint64(8 * (SALT_ID_BYTES - WORD))
    pads = pad.of_blocks(blocks.reshape(-1, 2)).reshape(len(ids), FILTER_WORDS).T
    for at, of_word in enumerate(pads):
        words[at] ^= of_word[which]


class _Grams:
    """The grams of each value: two bytes each, where those of a value begin, and how many it has."""

    def __init__(self, codes: Words, starts: Ints, counts: Ints) -> None:
        self.codes = codes << np.uint64(8 * (SALT_ID_BYTES - WORD))  # at their place in the second word of a block
        self.starts = starts
        self.counts = counts


def _bigrams(texts: Texts) -> _Grams:
    """Bigrams of `_` + value + `_`.  One that repeats sets the same bits again."""
    framed = texts.framed(b"_", b"_")
    codes = framed.data.astype("<u8")
    codes[:-1] |= codes[1:] << np.uint64(8)
    return _Grams(codes, framed.starts, np.maximum(framed.lengths - 1, 0))


def _digits(texts: Texts) -> _Grams:
    """Eight digits, each with its place: `20150314` gives `02`, `10`, `21`, ... `74`."""
    places = np.arange(ord("0"), ord("8"), dtype="<u8")
    digits = texts.data[spread(texts.starts, texts.lengths)].reshape(-1, 8).astype("<u8")
    codes = (places | digits << np.uint64(8)).reshape(-1)
    return _Grams(codes, np.append(8 * np.arange(len(texts)), 0), texts.lengths)


class _FilterMaker:
    """Makes the filters of one field, a block of people at a time."""

    def __init__(self, grams: _Grams, gram_key: bytes, table: Ints) -> None:
        self._grams = grams
        self._prf = Prf(gram_key)
        self._terms = terms_of(table)
        self._bits = np.empty(FILTER_BITS * _SPREAD, np.uint8)

    def words(self, values: Ints, salts: Sequence[tuple[Words, Ints]]) -> list[Words]:
        """Words (8 x rows) for each of `salts`: of each row's value, under the salt id of the row.

        Salts are ids, and which is each row's; a row without a salt gives something that means nothing.
        """
        ids = [_cut(entries) for entries, _ in salts]
        made = [np.empty((FILTER_WORDS, len(values)), "<u8") for _ in salts]
        for start in range(0, len(values) if salts else 0, BLOCK):
            stop = min(start + BLOCK, len(values))
            parts = [slice(one, min(one + _SPREAD, stop)) for one in range(start, stop, _SPREAD)]
            slices = [self._sliced(values[part], ids, [which[part] for _, which in salts]) for part in parts]
            for words, *pieces in zip(made, *slices, strict=True):
                whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
                words[:, start:stop] = diffused(whole, self._terms)[:, : stop - start]
        return made

    def _sliced(self, values: Ints, ids: Sequence[tuple[Words, Words]], salts: Sequence[Ints]) -> list[Words]:
        """For each salt 512 rows of one bit a person: those that the person's grams set."""
        counts = self._grams.counts[values]
        owners = np.repeat(np.arange(len(counts)), counts)
        codes = self._grams.codes[spread(self._grams.starts[values], counts)]
        blocks, made = np.empty((len(owners), 2), "<u8"), []
        for (first, second), which in zip(ids, salts, strict=True):
            blocks[:, 0] = first[which][owners]
            np.bitwise_or(second[which][owners], codes, out=blocks[:, 1])
            made.append(self._set(owners, self._prf.of_blocks(blocks), len(counts)))
        return made

    def _set(self, owners: Ints, blocks: Words, people: int) -> Words:
        """512 rows of one bit a person: those that the cipher's output for each gram sets for its owner.

        A block gives ten positions: nine bits each, five of each word.
        """
        shift = max((people - 1).bit_length(), 6)  # room for so many people, as a power of two
        bits = self._bits[: FILTER_BITS << shift]
        bits[:] = 0
        places = np.empty((HASHES, len(blocks)), np.int64)
        for word in range(2):
            half = np.ascontiguousarray(blocks[:, word]).view("<i8")
            for at in range(HASHES // 2):
                move, to = 9 * at - shift, places[word * HASHES // 2 + at]
                np.right_shift(half, move, out=to) if move >= 0 else np.left_shift(half, -move, out=to)
        places &= (FILTER_BITS - 1) << shift
        places |= owners
        bits[places.ravel()] = 1
        return np.packbits(bits.reshape(FILTER_BITS, -1), axis=1, bitorder="little").view("<u8")


def _cut(ids: Words) -> tuple[Words, Words]:
    """Salt ids as the first and the second word of a block that leaves room for a gram."""
    return ids[:, 0].copy(), ids[:, 1] & np.uint64((1 << 8 * (SALT_ID_BYTES - WORD)) - 1)


def terms_of(table: Ints) -> Ints:
    """A table of diffusion as `diffused` takes it: ten rows, one a term, of 512 output bits each.

    Output bits go first by their place in a word, so that each step of `_turned` works on long runs.
    """
    return np.ascontiguousarray(table.reshape(FILTER_WORDS, 64, -1).transpose(2, 1, 0).reshape(-1, FILTER_BITS))


def diffused(slices: Words, terms: Ints) -> Words:
    """Diffuse filters that are given as 512 rows of one bit a person, and turn them into words (8 x people).

    Bit p of a filter is bit p mod 64 of word p div 64.
    """
    output = slices[terms[0]]
    term = np.empty_like(output)
    for chosen in terms[1:]:
        np.take(slices, chosen, axis=0, out=term, mode="clip")
        output ^= term
    return _turned(output)


def _turned(output: Words) -> Words:
    """From rows of one bit a person (64 x 8 x people / 64) to words (8 x people), by blocks of 64 x 64 bits.

    Source: Warren, Hacker's Delight, 2nd edition, section 7-3.
    """
    columns = output.shape[1]
    moved = np.empty(output.size // 2, "<u8")
    half, mask = 32, 0x00000000FFFFFFFF
    while half:
        pairs = output.reshape(32 // half, 2, -1)
        upper, lower = pairs[:, 0], pairs[:, 1]
        swapped = moved.reshape(upper.shape)
        np.right_shift(upper, np.uint64(half), out=swapped)
        swapped ^= lower
        swapped &= np.uint64(mask)
        lower ^= swapped
        swapped <<= np.uint64(half)
        upper ^= swapped
        half //= 2
        mask ^= (mask << half) & 0xFFFFFFFFFFFFFFFF
    return output.reshape(64, FILTER_WORDS, columns).transpose(1, 2, 0).reshape(FILTER_WORDS, 64 * columns)


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
