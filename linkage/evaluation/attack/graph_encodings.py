"""Encodings as two graphs' worth of numbers: what one side of a graph attack knows about its records.

`Encodings` is what lies in a vault, by distinct value.  `Side` is what the matching reads of it: nothing in it depends
on the key but as noise, and nothing on the order of records.  Sources: Vidanage et al., CIKM 2020 (which features);
Armknecht, Heng and Schnell, PoPETs 2023 (what diffusion leaves of a similarity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from linkage.evaluation.attack.bench import Target

Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]

MISSING: Final = -1
SALTS: Final = {"_d": "dob", "_p": "postcode"}
"""How a filter's name ends if it is salted, and the token that says whether two salts agree."""
GROUPS: Final = ("dob", "postcode", "given_name", "family_name")
"""Tokens of one value each: records that share one are a group, and two groups of one value can be told by members."""
HOUSEHOLDS: Final = ("family_name_p",)
"""Tokens that part a postcode by names; the first that a profile has is used."""
COMPOSITES: Final[Mapping[str, tuple[str, ...]]] = {
    "dob": ("dob_given", "dob_family", "dob_sector"),
    "postcode": ("given_name_p", "postcode_given_family1", "postcode_family_given1"),
}
"""Tokens of several values, used where a profile has none of the one value alone; an equal one tells of it."""
UPPER: Final = 20  # quantiles in the upper half of a profile
NEAREST: Final = 2  # most alike records under the same salt that count as features


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One filter of all records: its distinct bits (values x 8 words), and each record's value, -1 missing."""

    words: Words
    index: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Encodings:
    """Filters and tokens (as small integers by equality, -1 missing), and what stands beside them in clear."""

    filters: Mapping[str, Filter]
    tokens: Mapping[str, Ints]
    birth_year: Ints | None = None
    sex: Ints | None = None

    def __len__(self) -> int:
        return len(next(iter(self.filters.values())).index)

    def clear(self, *, kept: bool) -> Encodings:
        """The same with or without birth year and sex."""
        year, sex = (self.birth_year, self.sex) if kept else (None, None)
        return Encodings(filters=self.filters, tokens=self.tokens, birth_year=year, sex=sex)

    def take(self, rows: Ints) -> Encodings:
        """Those records alone, in that order."""
        filters = {}
        for name, of_all in self.filters.items():
            used, index = numbered(of_all.index[rows])
            filters[name] = Filter(words=of_all.words[used], index=index)
        return Encodings(
            filters=filters,
            tokens={name: token[rows] for name, token in self.tokens.items()},
            birth_year=None if self.birth_year is None else self.birth_year[rows],
            sex=None if self.sex is None else self.sex[rows],
        )


def from_target(target: Target) -> Encodings:
    """Everything a vault holds of its records."""
    filters = {}
    for name in target.filters:
        index = target.encoding(name)
        words, _ = target.words(name)
        used, index = numbered(index)
        filters[name] = Filter(words=words[_first_rows(index, len(used))], index=index)
    return Encodings(
        filters=filters,
        tokens={name: target.token(name) for name in target.tokens},
        birth_year=target.birth_year,
        sex=target.sex,
    )


def numbered(index: Ints) -> tuple[Ints, Ints]:
    """The numbers that occur, in order, and the same column renumbered from 0; -1 stays."""
    used = np.unique(index[index >= 0])
    lookup = np.full(int(index.max(initial=0)) + 2, MISSING, np.int64)
    lookup[used] = np.arange(len(used))
    lookup[-1] = MISSING
    return used, lookup[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The distinct values of one unsalted filter: how alike any two are, and each record's value."""

    alike: Singles  # values x values, in [-1, 1]
    features: Singles  # values x d
    index: Ints

    @property
    def values(self) -> int:
        """How many values are distinct."""
        return len(self.alike)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One graph: fields with similarities, groups by equality, features of single records (NaN where missing)."""

    size: int
    fields: Mapping[str, Field]
    groups: Mapping[str, Ints]
    features: Mapping[str, Singles]  # by filter, or what is counted: records x d
    birth_year: Ints | None
    sex: Ints | None


def side(encodings: Encodings, *, sizes: bool = True) -> Side:
    """The graph of these encodings; `sizes`: how many share each token are features of a record, too."""
    fields: dict[str, Field] = {}
    features: dict[str, Singles] = {}
    groups = {name: token for name, token in encodings.tokens.items() if name in GROUPS}
    for name in HOUSEHOLDS:
        if name in encodings.tokens:
            groups[name] = encodings.tokens[name]
            break
    for single, composites in COMPOSITES.items():
        if single not in encodings.tokens:
            groups |= {name: encodings.tokens[name] for name in composites if name in encodings.tokens}
    for name, of_all in encodings.filters.items():
        salt = SALTS.get(name[-2:])
        popcount = np.bitwise_count(of_all.words).sum(axis=1).astype(np.float32)
        own = _of_records(popcount[:, None], of_all.index)
        if salt is None:
            alike = similarity(of_all.words)
            weight = np.bincount(of_all.index[of_all.index >= 0], minlength=len(alike)).astype(np.float32)
            fields[name] = Field(alike=alike, features=_profile(alike, weight), index=of_all.index)
            groups.setdefault(_group_of(name), of_all.index)
        else:
            shown = (salt,) if salt in groups else COMPOSITES[salt]
            own = np.hstack([own, *(_nearest(of_all, groups[token]) for token in shown if token in groups)])
        features[name] = own
    if sizes:
        features |= _sizes(encodings.tokens, groups)
    return Side(
        size=len(encodings),
        fields=fields,
        groups={name: numbered(token)[1] for name, token in groups.items()},
        features=features,
        birth_year=encodings.birth_year,
        sex=encodings.sex,
    )


def averaged(sides: Sequence[Side]) -> Side:
    """The same records under several keys: what is noise of a key shrinks; the order of values is that of the first.

    `sides` must hold the same records in the same order.
    """
    first = sides[0]
    fields = {}
    for name, field in first.fields.items():
        rows = _first_rows(field.index, field.values)
        orders = [other.fields[name].index[rows] for other in sides]
        alike = sum(other.fields[name].alike[np.ix_(order, order)] for other, order in zip(sides, orders, strict=True))
        features = sum(other.fields[name].features[order] for other, order in zip(sides, orders, strict=True))
        fields[name] = Field(
            alike=np.asarray(alike / len(sides), np.float32),
            features=np.asarray(features / len(sides), np.float32),
            index=field.index,
        )
    features_of = {
        name: np.asarray(sum(other.features[name] for other in sides) / len(sides), np.float32)
        for name in first.features
    }
    return Side(
        size=first.size, fields=fields, groups=first.groups, features=features_of, birth_year=first.birth_year,
        sex=first.sex,
    )  # fmt: skip


def _sizes(tokens: Mapping[str, Ints], groups: Mapping[str, Ints]) -> dict[str, Singles]:
    """How many share each token with a record, and how many share those with the others of its home, as logarithms."""
    sizes = {name: _size(groups[name]) for name in tokens if name in groups}
    made = {f"shared/{name}": size for name, size in sizes.items()}
    home = next((tokens[name] for name in HOUSEHOLDS if name in tokens), None)
    if home is None:
        return made
    housed = np.maximum(home, 0)
    for name in (name for names in COMPOSITES.values() for name in names if name in sizes):
        size = np.nan_to_num(sizes[name][:, 0])
        others = np.bincount(housed, weights=size * (home >= 0))[housed] - size
        made[f"home shares/{name}"] = np.where(home >= 0, others, np.nan).astype(np.float32)[:, None]
    return made


def _size(group: Ints) -> Singles:
    """For each record the logarithm of how many are in its group, NaN where it is in none."""
    counts = np.bincount(group[group >= 0], minlength=1)
    made: Singles = np.where(group >= 0, np.log(np.maximum(counts[np.maximum(group, 0)], 1)), np.nan)
    return made.astype(np.float32)[:, None]


def _group_of(filter_name: str) -> str:
    return {"given": "given_name", "family": "family_name"}.get(filter_name, filter_name)


def _first_rows(index: Ints, values: int) -> Ints:
    """For each value the first record that has it."""
    first = np.zeros(values, np.int64)
    rows = np.flatnonzero(index >= 0)
    first[index[rows][::-1]] = rows[::-1]
    return first


def bits_of(words: Words) -> npt.NDArray[np.uint8]:
    """Rows of words as rows of 512 bits."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")


def same(words: Words) -> Singles:
    """The share of bits that are the same in any two filters, from -1 (none) to 1: what a pad does not change."""
    bits = bits_of(words).astype(np.float32) * 2 - 1
    made: Singles = bits @ bits.T / np.float32(bits.shape[1])
    return made


def similarity(words: Words) -> Singles:
    """Correlation of bits between any two filters: dice without what the two popcounts alone make of it."""
    bits = bits_of(words).astype(np.float32)
    bits -= bits.mean(axis=1, keepdims=True)
    spread = np.sqrt((bits * bits).sum(axis=1, keepdims=True))
    bits /= np.maximum(spread, 1e-6)
    alike: Singles = bits @ bits.T
    return alike


def _profile(alike: Singles, weight: Singles) -> Singles:
    """For each value, quantiles of its similarity to all records, most of them near the top, and how many bear it."""
    total = float(weight.sum())
    marks = np.concatenate([np.geomspace(2, max(4.0, total / 2), UPPER), total * np.array([0.6, 0.75, 0.9, 0.97])])
    made = np.empty((len(alike), len(marks) + 1), np.float32)
    for start in range(0, len(alike), 1024):
        block = alike[start : start + 1024]
        order = np.argsort(-block, axis=1)
        sorted_block = np.take_along_axis(block, order, 1)
        reached = np.cumsum(weight[order], axis=1)
        for row in range(len(block)):
            places = np.minimum(np.searchsorted(reached[row], marks), len(alike) - 1)
            made[start + row, :-1] = sorted_block[row, places]
    made[:, -1] = np.log(np.maximum(weight, 1))
    return made


def _nearest(of_all: Filter, salt: Ints) -> Singles:
    """For each record, its highest similarities to records under the same salt (0 where there is none)."""
    made = np.zeros((len(salt), NEAREST), np.float32)
    order = np.argsort(salt, kind="stable")
    starts = np.flatnonzero(np.diff(salt[order], prepend=np.int64(-2)))
    for members in np.split(order, starts[1:]):
        if len(members) < 2 or salt[members[0]] < 0:
            continue
        members = members[of_all.index[members] >= 0]  # noqa: PLW2901
        if len(members) < 2:
            continue
        alike = same(of_all.words[of_all.index[members]])
        np.fill_diagonal(alike, -1)
        top = -np.sort(-alike, axis=1)[:, :NEAREST]
        made[members, : top.shape[1]] = top
    made[of_all.index < 0] = np.nan
    return made


def _of_records(values: Singles, index: Ints) -> Singles:
    extended = np.vstack([values, np.full((1, values.shape[1]), np.nan, np.float32)])
    made: Singles = extended[index]
    return made
