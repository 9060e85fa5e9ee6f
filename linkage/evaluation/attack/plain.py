"""What a token says in clear: the agency's own derivations, which are public, without the key, which is not.

An attacker writes the composite of each token down for everybody in a register, or for everybody there could be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product
from typing import Final

import numpy as np

from linkage.agency import encode
from linkage.agency.standardise import soundex
from linkage.evaluation.attack.alignment import in_rank_order
from linkage.evaluation.attack.bench import blinded
from linkage.evaluation.attack.population import (
    MISSING,
    Curve,
    Floats,
    Ints,
    NameTable,
    People,
    every_day,
    population,
    public_given_names,
    public_surnames,
    together,
    word_soundexes,
)

Tables = dict[str, tuple[list[str], Floats]]
PAIR: Final = {"lesser_soundex", "greater_soundex"}
HEAD: Final = 600  # soundexes that a pair is looked for in
DATED: Final = ("date_of_birth", "year")  # parts that fix the birth year


@dataclass(frozen=True, slots=True)
class Composite:
    """One token's plaintexts over some people: the distinct ones, and for each person which is theirs (-1: none)."""

    parts: tuple[str, ...]
    distinct: list[tuple[str, ...]]
    index: Ints


class Plain:
    """The plaintexts of tokens over several groups of people of one population, numbered alike in all of them."""

    def __init__(self, *groups: People) -> None:
        self._ends = np.cumsum([len(group) for group in groups])
        self._people = reduce(together, (blinded(group) for group in groups))
        self._made: dict[str, tuple[list[str], Ints]] = {}

    def __getitem__(self, token: str) -> Composite:
        """Over all groups, one after another."""
        parts = parts_of(token)
        columns = [self._part(part) for part in parts]
        mixed = np.zeros(len(self._people), np.int64)
        missing = np.zeros(len(self._people), bool)
        for texts, index in columns:
            mixed = mixed * max(1, len(texts)) + index
            missing |= index < 0
        found, index = np.unique(mixed[~missing], return_inverse=True)
        codes = np.full(len(self._people), MISSING, np.int64)
        codes[~missing] = index
        reading: list[list[str]] = []
        for texts, _ in reversed(columns):
            reading.append([texts[at] for at in (found % max(1, len(texts))).tolist()])
            found = found // max(1, len(texts))
        return Composite(parts, list(zip(*reversed(reading), strict=True)), codes)

    def split(self, index: Ints) -> list[Ints]:
        """An index over all groups as one a group."""
        return np.split(index, self._ends[:-1])

    def _part(self, name: str) -> tuple[list[str], Ints]:
        if name not in self._made:
            self._made[name] = PARTS[name](self._people)
        return self._made[name]


def parts_of(token: str) -> tuple[str, ...]:
    """What a token is made of, by name.  Raises KeyError for a part that no attack can read yet."""
    parts = tuple(encode._TOKEN_PARTS[token])
    if unknown := set(parts) - set(PARTS):
        raise KeyError(f"teach linkage.evaluation.attack.plain the part {sorted(unknown)[0]!r} of the token {token!r}")
    return parts


def _numbered(values: Sequence[str | None], index: Ints) -> tuple[list[str], Ints]:
    """Values by text: the distinct ones, and for each row of `index` which is its own; -1 and None are missing."""
    found: dict[str, int] = {}
    of_value = [MISSING if value is None else found.setdefault(value, len(found)) for value in values]
    return list(found), np.array([*of_value, MISSING], np.int64)[index]


def _days(people: People, cut: slice) -> tuple[list[str], Ints]:
    days, index = np.unique(people.born, return_inverse=True)
    return _numbered([None if day == MISSING else str(day)[cut] for day in days.tolist()], index)


def _names(column: str, derive: Callable[[str], str | None]) -> Callable[[People], tuple[list[str], Ints]]:
    def made(people: People) -> tuple[list[str], Ints]:
        borne, index = np.unique(getattr(people, column), return_inverse=True)
        return _numbered([None if at == MISSING else derive(people.words[at]) for at in borne.tolist()], index)

    return made


def _soundexes(*, lesser: bool) -> Callable[[People], tuple[list[str], Ints]]:
    """Of each person's two soundexes the one that sorts first, or the other; missing unless there are both."""

    def made(people: People) -> tuple[list[str], Ints]:
        columns = [_names(name, soundex)(people) for name in ("given", "surname")]
        texts = sorted({text for values, _ in columns for text in values})
        rank = {text: at for at, text in enumerate(texts)}
        left, right = (
            np.array([*(rank[text] for text in values), MISSING], np.int64)[index] for values, index in columns
        )
        both = np.minimum(left, right) if lesser else np.maximum(left, right)
        return texts, np.where((left < 0) | (right < 0), MISSING, both)

    return made


PARTS: Final[dict[str, Callable[[People], tuple[list[str], Ints]]]] = {
    "given_name": _names("given", lambda word: word),
    "family_name": _names("surname", lambda word: word),
    "given_soundex": _names("given", soundex),
    "family_soundex": _names("surname", soundex),
    "given_initial": _names("given", lambda word: word[:1]),
    "family_initial": _names("surname", lambda word: word[:1]),
    "lesser_soundex": _soundexes(lesser=True),
    "greater_soundex": _soundexes(lesser=False),
    "date_of_birth": lambda people: _days(people, slice(None)),
    "year": lambda people: _days(people, slice(4)),
    "month_day": lambda people: _days(people, slice(4, None)),
    "postcode": lambda people: _numbered(people.codes, people.postcode),
    "nhs_number": lambda people: ([], np.full(len(people), MISSING, np.int64)),  # no child of a population has one
    "upn": lambda people: ([], np.full(len(people), MISSING, np.int64)),
    "sector": lambda people: _numbered([code[:-2] for code in people.codes], people.postcode),
}
"""The parts of tokens, by the encoder's names for them, over some people."""


def part_tables(people: People, curve: Curve) -> Tables:
    """What is public of each part of a token: its values, most frequent first, and their shares.

    Days are uniform; postcodes are those there are.
    """
    days = [str(day) for day in every_day().tolist()]
    return _name_tables(curve) | {
        "date_of_birth": _counted(days),
        "year": _counted([day[:4] for day in days]),
        "month_day": _counted([day[4:] for day in days]),
        "postcode": _counted(list(people.codes)),
        "sector": _counted([code[:-2] for code in people.codes]),
    }


@lru_cache(maxsize=2)
def _name_tables(curve: Curve) -> Tables:
    words = population(1, seed=0).words
    codes, of_word = word_soundexes()
    made: Tables = {}
    for name, table in (("given", public_given_names(curve)), ("family", public_surnames(curve))):
        borne = [words[word] for word in table.words.tolist()]
        made[f"{name}_name"] = _grouped(borne, table)
        made[f"{name}_soundex"] = _grouped(
            [codes[at] if at >= 0 else None for at in of_word[table.words].tolist()], table
        )
        made[f"{name}_initial"] = _grouped([word[:1] for word in borne], table)
    return made


def likeliest(parts: Sequence[str], tables: Tables, most: int) -> list[tuple[str, ...]]:
    """The `most` likeliest plaintexts of a composite of independent parts, in order; ties in no order of use."""
    if set(parts) == PAIR:
        return [pair if parts[0] == "lesser_soundex" else pair[::-1] for _, pair in _pairs(tables)[:most]]
    order = sorted(range(len(parts)), key=lambda at: len(tables[parts[at]][0]) * tables[parts[at]][1].max())
    room = most
    kept: dict[int, int] = {}
    for at in order:  # the flattest first, whole; of the others only as much of the head as can be needed
        size = len(tables[parts[at]][0])
        kept[at] = min(size, max(1, room + 1))
        room = -(-room // size)
    values = [tables[part][0][: kept[at]] for at, part in enumerate(parts)]
    shares = np.ones(1)
    for at, part in enumerate(parts):
        shares = np.multiply.outer(shares, tables[part][1][: kept[at]]).ravel()
    combos = list(product(*values))
    return [combos[at] for at in np.argsort(-shares, kind="stable")[:most].tolist()]


def _grouped(values: Sequence[str | None], table: NameTable) -> tuple[list[str], Floats]:
    total: dict[str, float] = {}
    for value, share in zip(values, table.shares.tolist(), strict=True):
        if value is not None:
            total[value] = total.get(value, 0.0) + share
    return _ordered(list(total), np.array(list(total.values())))


def _counted(values: list[str]) -> tuple[list[str], Floats]:
    total: dict[str, int] = {}
    for value in values:
        total[value] = total.get(value, 0) + 1
    return _ordered(list(total), np.array(list(total.values())) / len(values))


def _pairs(tables: Tables) -> list[tuple[float, tuple[str, str]]]:
    """Both soundexes of a person, sorted, with how likely they are; the head, most likely first."""
    total: dict[tuple[str, str], float] = {}
    heads = [
        (values[:HEAD], shares[:HEAD].tolist())
        for values, shares in (tables["given_soundex"], tables["family_soundex"])
    ]
    for left, p in zip(*heads[0], strict=True):
        for right, q in zip(*heads[1], strict=True):
            pair = (min(left, right), max(left, right))
            total[pair] = total.get(pair, 0.0) + p * q
    return sorted(((share, pair) for pair, share in total.items()), reverse=True)


def _ordered(values: list[str], shares: Floats) -> tuple[list[str], Floats]:
    order = in_rank_order(shares)
    return [values[at] for at in order.tolist()], shares[order]
