"""Children who never lived, in standard form, and the register that an attacker holds about them.

People are columns of small integers: names are indices into a list of words, dates YYYYMMDD, -1 is missing.

Assumptions, so that nobody need guess them.  Families have 1 to 4 children (44, 41, 11, 4 %; ONS, *Families and
households*), one surname (nine in ten families; else each child draws) and one postcode, shared by four families with
children; 14 births in 1,000 are twins (ONS); dates of birth are uniform over 18 years.  Names are drawn by naming
custom (`area.names`), given name and surname independently; with `regional`, customs cluster by postcode district, and
an attacker's national table of names no longer fits the place.  The curve `steep` bends every list until the commonest
surname is borne by 2.2 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from linkage.agency import standardise
from linkage.agency.people import DEMOGRAPHICS
from linkage.evaluation.area.names import CUSTOMS, MINORITY, SHARES, Draw, name_book

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Rng = np.random.Generator
Curve = Literal["fitted", "steep"]

MISSING: Final = -1
YEARS: Final = 18
LAST_DAY: Final = np.datetime64("2026-09-30")
STEEPEST: Final = 0.022
CHILDREN_PER_POSTCODE: Final = 6.9  # 29,000 postcodes at 200,000 children
POSTCODES_PER_DISTRICT: Final = 2_400
INWARD: Final = "abdefghjlnpqrstuwxyz"  # inward codes never use c i k m o v
SEXES: Final = ("M", "F")


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How often a field of the register differs from what was encoded, as shares of people."""

    typed: float = 0.03  # one letter of a name replaced, dropped or doubled, for each of the two names
    other_name: float = 0.01  # another given name, another surname
    date: float = 0.015  # one digit of the date of birth off, or day and month swapped
    moved: float = 0.06  # another postcode
    missing: float = 0.02  # date of birth, postcode: each missing


@dataclass(frozen=True, slots=True, kw_only=True)
class NameTable:
    """A public frequency table: words in order of frequency, and the share of people who bear each."""

    words: Ints
    shares: Floats


@dataclass(frozen=True, kw_only=True)
class People:
    """Rows in clear.  `person` and `family` say who is who and whose sibling: truth, which no attack may read."""

    words: Sequence[str]  # names, in standard form
    codes: Sequence[str]  # postcodes, in standard form
    given: Ints  # into words
    surname: Ints  # into words
    born: Ints  # YYYYMMDD
    postcode: Ints  # into codes
    sex: Ints  # into SEXES
    person: Ints  # the same for all records of one child; -1 for one who is not in the population
    family: Ints

    def __len__(self) -> int:
        return len(self.given)

    def take(self, rows: Ints) -> People:
        """The rows asked for, in that order."""
        return self.with_columns({name: getattr(self, name)[rows] for name in COLUMNS})

    def with_columns(self, columns: Mapping[str, Ints]) -> People:
        """The same words and postcodes with other columns."""
        changed: dict[str, Any] = dict(columns)
        return replace(self, **changed)

    def clear(self) -> pa.Table:
        """The four demographics in standard form, as `encode_people` takes them."""
        texts = (
            (self.words, self.given),
            (self.words, self.surname),
            ([str(day) for day in self._days[0]], self._days[1]),
            (self.codes, self.postcode),
        )
        arrays = [_texts(values, index) for values, index in texts]
        return pa.table(dict(zip(DEMOGRAPHICS, arrays, strict=True)))

    @cached_property
    def _days(self) -> tuple[list[int], Ints]:
        days, index = np.unique(self.born, return_inverse=True)
        return days.tolist(), np.where(self.born == MISSING, MISSING, index).astype(np.int64)


COLUMNS: Final = tuple(f.name for f in fields(People) if f.name not in ("words", "codes"))


def _texts(values: Sequence[str], index: Ints) -> pa.Array:
    used, place = np.unique(np.maximum(index, 0), return_inverse=True)
    texts = pa.array([values[at] for at in used.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(place, mask=index < 0), texts).cast(pa.string())


# --- Names -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Names:
    """Lists to draw from: `given[custom][sex]`, `surname[custom]`; all in standard form."""

    words: list[str]
    given: list[tuple[NameTable, NameTable]]
    surname: list[NameTable]


@lru_cache(maxsize=2)
def _names(curve: Curve) -> _Names:
    """The lists of a curve; both curves share their words."""
    if curve == "steep":
        return _bent(_names("fitted"))
    book = name_book()
    found: dict[str, int] = {}

    def standard(draw: Draw, *, given: bool) -> NameTable:
        read = standardise.given_name if given else standardise.family_name
        values = [read(book.words[at]).value for at in draw.words.tolist()]
        shares = np.diff(draw.cumulative, prepend=0.0)
        kept = np.array([value is not None for value in values])
        index = np.array([found.setdefault(v, len(found)) for v in values if v is not None], np.int64)
        total = np.bincount(index, weights=shares[kept])
        words = np.flatnonzero(total)
        return NameTable(words=words, shares=total[words] / total.sum())

    given = [(standard(book.given[c][0], given=True), standard(book.given[c][1], given=True)) for c in CUSTOMS]
    surname = [standard(book.family[c], given=False) for c in CUSTOMS]
    return _Names(list(found), given, surname)


def _bent(names: _Names) -> _Names:
    """Every share to one power, chosen so that the commonest surname of all reaches STEEPEST."""
    low, high = 1.0, 2.0
    for _ in range(30):
        power = (low + high) / 2
        top = _mixed([_raised(table, power) for table in names.surname], len(names.words)).shares[0]
        low, high = (power, high) if top < STEEPEST else (low, power)
    given = [(_raised(boys, low), _raised(girls, low)) for boys, girls in names.given]
    return _Names(names.words, given, [_raised(table, low) for table in names.surname])


def _raised(table: NameTable, power: float) -> NameTable:
    shares = table.shares**power
    return NameTable(words=table.words, shares=shares / shares.sum())


def _mixed(tables: Sequence[NameTable], words: int, weights: Sequence[float] = SHARES) -> NameTable:
    """All customs in their national shares, most frequent first."""
    total = np.zeros(words)
    for weight, table in zip(weights, tables, strict=True):
        total[table.words] += weight * table.shares
    order = np.argsort(-total, kind="stable")
    order = order[total[order] > 0]
    return NameTable(words=order, shares=total[order] / total.sum())


@lru_cache(maxsize=1)
def word_soundexes() -> tuple[list[str], Ints]:
    """Distinct soundexes, and for each word of any population the index of its own; -1 where it has none."""
    found: dict[str, int] = {}
    codes = (standardise.soundex(word) for word in _names("fitted").words)
    index = [MISSING if code is None else found.setdefault(code, len(found)) for code in codes]
    return list(found), np.array(index, np.int64)


def public_surnames(curve: Curve) -> NameTable:
    """The true national shares of surnames: what a published table would say at best."""
    names = _names(curve)
    return _mixed(names.surname, len(names.words))


def public_given_names(curve: Curve, sex: int | None = None) -> NameTable:
    """The true national shares of given names, of one sex or of both."""
    names = _names(curve)
    if sex is not None:
        return _mixed([pair[sex] for pair in names.given], len(names.words))
    halves = [table for pair in names.given for table in pair]
    return _mixed(halves, len(names.words), [share / 2 for share in SHARES for _ in SEXES])


# --- The population --------------------------------------------------------------------------------------------------


def population(
    children: int,
    *,
    seed: int,
    curve: Curve = "fitted",
    regional: bool = False,
    records: int = 1,
    moved: float = 0.0,
    blank: float = 0.0,
) -> People:
    """`children` children, one or two records each, shuffled; the same seed gives the same people.

    The second record of the share `moved` of families is at another address.  `blank` is the share of records without
    a date of birth, and of those without a postcode.
    """
    rng = np.random.default_rng([seed, 1])
    names = _names(curve)
    family = _families(children, rng)
    families = int(family[-1]) + 1
    codes = _postcodes(max(1, round(children / CHILDREN_PER_POSTCODE)))
    home = rng.choice(len(codes), families, p=_normal(rng.gamma(4.0, 1.0, len(codes))))
    custom = _customs(home, len(codes), rng, regional=regional)
    born = _births(family, rng)
    sex = rng.integers(0, 2, children)
    surname = _drawn(names.surname, custom, rng)[family]
    apart = (rng.random(families) < 0.1)[family]
    surname[apart] = _drawn(names.surname, custom[family[apart]], rng)
    given = np.empty(children, np.int64)
    for of_sex in range(len(SEXES)):
        rows = sex == of_sex
        given[rows] = _drawn([pair[of_sex] for pair in names.given], custom[family[rows]], rng)
    people = People(
        words=names.words, codes=codes, given=given, surname=surname, born=born, postcode=home[family], sex=sex,
        person=np.arange(children), family=family,
    )  # fmt: skip
    if records == 2:
        second = people.take(np.arange(children))
        gone = (rng.random(families) < moved)[family]
        second.postcode[gone] = rng.integers(0, len(codes), families)[family[gone]]
        people = together(people, second)
    people = people.take(rng.permutation(len(people)))
    people.born[rng.random(len(people)) < blank] = MISSING
    people.postcode[rng.random(len(people)) < blank] = MISSING
    return people


def together(one: People, other: People) -> People:
    """The rows of both; they must share postcodes, and the words of one must begin with those of the other."""
    longer, shorter = (one, other) if len(one.words) >= len(other.words) else (other, one)
    if one.codes is not other.codes or longer.words[: len(shorter.words)] != shorter.words:
        raise ValueError("only people of one population can be put together")
    return longer.with_columns({name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in COLUMNS})


def register(people: People, *, overlap: float, errors: bool, seed: int, curve: Curve = "fitted") -> People:
    """What an attacker holds in clear: the share `overlap` of the children, and strangers up to the same size.

    One record a child, shuffled.  Strangers live at the same postcodes and are named as people there are.
    """
    rng = np.random.default_rng([seed, 2])
    _, first = np.unique(people.person, return_index=True)
    kept = rng.permutation(first)[: round(overlap * len(first))]
    known = people.take(kept)
    if strangers := len(first) - len(kept):
        others = population(strangers, seed=seed + 7_919, curve=curve)
        homes = rng.permutation(len(people.codes))[others.postcode % len(people.codes)]
        others = replace(
            others, codes=people.codes, postcode=homes.astype(np.int64), person=np.full(strangers, MISSING),
            family=others.family + int(people.family.max()) + 1,
        )  # fmt: skip
        known = together(known, others)
    known = known.take(rng.permutation(len(known)))
    return _mistaken(known, Errors(), rng) if errors else known


def _families(children: int, rng: Rng) -> Ints:
    """The family of each child, in order."""
    sizes = rng.choice([1, 2, 3, 4], children, p=[0.44, 0.41, 0.11, 0.04])
    made: Ints = np.repeat(np.arange(children), sizes)[:children]
    return made


def _births(family: Ints, rng: Rng) -> Ints:
    """YYYYMMDD, uniform over 18 years; 1.4 % share the day of the sibling before."""
    days = LAST_DAY - rng.integers(0, round(YEARS * 365.2425), len(family)).astype("timedelta64[D]")
    twin = np.flatnonzero((np.diff(family) == 0) & (rng.random(len(family) - 1) < 0.028)) + 1
    days[twin] = days[twin - 1]
    return as_numbers(days)


def as_numbers(days: npt.NDArray[np.datetime64]) -> Ints:
    """Dates as YYYYMMDD.

    >>> as_numbers(np.array(["2015-03-14"], "datetime64[D]")).tolist()
    [20150314]
    """
    years = days.astype("datetime64[Y]").astype(np.int64) + 1970
    months = days.astype("datetime64[M]").astype(np.int64) % 12 + 1
    made: Ints = years * 10_000 + months * 100 + (days - days.astype("datetime64[M]")).astype(np.int64) + 1
    return made


def every_day() -> Ints:
    """All dates on which a child of the population can have been born, as YYYYMMDD."""
    first = LAST_DAY - np.timedelta64(round(YEARS * 365.2425) - 1, "D")
    return as_numbers(np.arange(first, LAST_DAY + np.timedelta64(1, "D")))


def _postcodes(count: int) -> list[str]:
    """`nx1 1aa` and on, without the space: an area that does not exist; nine sectors a district."""
    made = []
    for at in range(count):
        district, place = divmod(at, POSTCODES_PER_DISTRICT)
        sector, unit = divmod(place, -(-POSTCODES_PER_DISTRICT // 9))
        unit = unit * 171 % 400  # spread over the letters
        made.append(f"nx{district + 1}{sector + 1}{INWARD[unit // 20]}{INWARD[unit % 20]}")
    return made


def _customs(home: Ints, codes: int, rng: Rng, *, regional: bool) -> Ints:
    """The naming custom of each family; `regional`: it clusters by district and by neighbourhood of 50 postcodes."""
    weights = np.tile(np.asarray(SHARES), (codes // 50 + 1, 1))
    if regional:
        hoods = len(weights)
        district = np.arange(hoods) * 50 // POSTCODES_PER_DISTRICT
        pull = 1.1 * rng.normal(size=(int(district.max()) + 1, len(CUSTOMS)))[district]
        pull += 0.9 * rng.normal(size=(hoods, len(CUSTOMS)))
        pull[:, ~MINORITY] *= 0.2
        weights = weights * np.exp(pull)
    cumulative = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)[home // 50]
    chosen = (rng.random(len(home))[:, None] > cumulative).sum(axis=1)
    made: Ints = np.minimum(chosen, len(CUSTOMS) - 1).astype(np.int64)
    return made


def _drawn(tables: Sequence[NameTable], custom: Ints, rng: Rng) -> Ints:
    """A name for each, from the list of their custom."""
    made = np.empty(len(custom), np.int64)
    for at, table in enumerate(tables):
        rows = np.flatnonzero(custom == at)
        place = np.searchsorted(np.cumsum(table.shares), rng.random(len(rows)), side="right")
        made[rows] = table.words[np.minimum(place, len(table.words) - 1)]
    return made


def _normal(weights: Floats) -> Floats:
    made: Floats = weights / weights.sum()
    return made


# --- Mistakes --------------------------------------------------------------------------------------------------------


def _mistaken(people: People, errors: Errors, rng: Rng) -> People:
    """The same people as another organisation might have written them down."""
    words = list(people.words)
    found = {word: at for at, word in enumerate(words)}
    columns = {name: getattr(people, name).copy() for name in COLUMNS}
    for name in ("given", "surname"):
        column = columns[name]
        other = np.flatnonzero(rng.random(len(people)) < errors.other_name)
        column[other] = rng.choice(column, len(other))
        for row in np.flatnonzero(rng.random(len(people)) < errors.typed).tolist():
            text = _mistyped(words[column[row]], rng)
            if (at := found.get(text)) is None:
                at = found[text] = len(words)
                words.append(text)
            column[row] = at
    valid = frozenset(every_day().tolist())
    for row in np.flatnonzero(rng.random(len(people)) < errors.date).tolist():
        columns["born"][row] = _misdated(int(columns["born"][row]), valid, rng)
    moved = rng.random(len(people)) < errors.moved
    columns["postcode"][moved] = rng.integers(0, len(people.codes), int(moved.sum()))
    for name in ("born", "postcode"):
        columns[name][rng.random(len(people)) < errors.missing] = MISSING
    return replace(people.with_columns(columns), words=words)


def _mistyped(word: str, rng: Rng) -> str:
    """One letter replaced, dropped or doubled; never the empty word."""
    at = int(rng.integers(len(word)))
    kind = int(rng.integers(3))
    if kind == 0 or len(word) < 3:
        return word[:at] + "abcdefghijklmnopqrstuvwxyz"[int(rng.integers(26))] + word[at + 1 :]
    return word[:at] + word[at + 1 :] if kind == 1 else word[:at] + word[at] + word[at:]


def _misdated(day: int, valid: frozenset[int], rng: Rng) -> int:
    """Day and month swapped if that is a date, else the day before or after, a month or a year off."""
    year, month, of_month = day // 10_000, day // 100 % 100, day % 100
    options = [year * 10_000 + of_month * 100 + month, day + 1, day - 1, day + 100, day - 100, day + 10_000]
    dates = [option for option in options if option != day and option in valid]
    return int(dates[int(rng.integers(len(dates)))]) if dates else day
