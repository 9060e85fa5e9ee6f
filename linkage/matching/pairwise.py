"""One row against another by the frozen model, in plain Python: what `scoring` and `bands` say of many, of a few.

A search compares some tens of rows, and planning the SQL for that costs a hundred times the comparing.  The figures,
rules and words are those of `comparisons` and `bands`; tests hold both to one answer, to the last bit of the weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, Literal

from linkage.matching.bands import (
    AGREES,
    EQUAL,
    GENERATION,
    MATCH_BAR,
    MATCHED,
    POSSIBLE_BAR,
    UPPER_BAR,
)
from linkage.matching.comparisons import (
    DOB_BARS,
    DOB_EQUAL,
    FAR,
    FIELDS,
    NAME_BARS,
    NAME_CLOSE,
    NOT_COMPARABLE,
    POSTCODE_BARS,
    POSTCODE_EQUAL,
    comparisons,
)
from linkage.matching.identifiers import ALL_SCHEMES, LOCAL
from linkage.matching.model import Model

Row = Mapping[str, Any]
"""A row of the working table: tokens `t_*`, each filter as one whole number and its `<filter>_n`, sex, birth_year."""
Numbers = Mapping[str, AbstractSet[int]]
"""Scheme -> the numbers a record has in it."""
Band = Literal["match", "possible", "none"]


@dataclass(frozen=True, slots=True)
class Compared:
    """How two rows compare: the level of each field, in the order of FIELDS, and log2 of the odds, prior included."""

    levels: tuple[int, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Banded:
    """What a compared pair amounts to; as the columns of `bands.banded`."""

    rule: str
    band: Band
    upper: bool
    agreed: tuple[str, ...]
    differs: tuple[str, ...]


class Comparer:
    """`compare(left, right)` under one model.  Holds nothing that changes: any number of threads may use it."""

    def __init__(self, model: Model) -> None:
        salted = model.profile == "guarded-2"
        self._levels: tuple[Callable[[Row, Row], int], ...] = (
            _salted_name("given_name", "given") if salted else _filter("given", "t_given_name", NAME_BARS),
            _salted_name("family_name", "family") if salted else _filter("family", "t_family_name", NAME_BARS),
            _filter("dob", "t_dob", DOB_BARS),
            _filter("postcode", "t_postcode", POSTCODE_BARS),
            _same_sex,
        )
        self._prior = model.prior_weight
        # By level; NOT_COMPARABLE, -1, is the last, and weighs nothing.
        self._weights = tuple((*reversed(model.weights(field)), 0.0) for field in FIELDS)
        self._rarity = tuple(
            (compared.size - 1, f"f_{compared.field}", model.levels[compared.field][0][1])
            if compared.tf_column
            else None
            for compared in comparisons(model.profile)
        )

    def compare(self, left: Row, right: Row) -> Compared:
        """The levels and weight of one pair of rows."""
        levels = tuple(level(left, right) for level in self._levels)
        weight = self._prior
        for level, weights, rarity in zip(levels, self._weights, self._rarity, strict=True):
            of_field = weights[level]
            if rarity is not None and level == rarity[0]:
                held = [f for f in (left[rarity[1]], right[rarity[1]]) if f is not None]
                of_field += math.log2(rarity[2] / max(held)) if held else 0.0
            weight += of_field
        return Compared(levels, weight)


def band_of(compared: Compared, left: Row, right: Row, left_numbers: Numbers, right_numbers: Numbers) -> Banded:
    """The band of a pair that no household links, the rule that gave it, and the words of what agrees and differs."""
    given, family, born, home, _ = levels = compared.levels
    id_agreed, id_differs = numbers_said(left_numbers, right_numbers)
    probability = probability_of(compared.weight)
    equal = sum(level == EQUAL[field] for field, level in zip(FIELDS, levels, strict=True) if field in EQUAL)
    named = given >= NAME_CLOSE or family >= NAME_CLOSE
    years = (left["birth_year"], right["birth_year"])
    if born == DOB_EQUAL and family >= NAME_CLOSE and given == FAR and home == POSTCODE_EQUAL and not id_agreed:
        rule = "none" if id_differs else "twin"
    elif id_differs:
        rule = "conflict" if id_agreed or probability >= MATCH_BAR else "none"
    elif id_agreed:
        rule = "identifier" if born == DOB_EQUAL or named else "identifier_alone"
    elif probability < POSSIBLE_BAR:
        rule = "none"
    elif given == NOT_COMPARABLE:
        rule = "no_given_name"
    elif _date_differs(given, born, *years):
        rule = "date_differs"
    elif probability < MATCH_BAR:
        rule = "uncertain"
    else:
        rule = "two_fields" if equal >= 2 and named else "one_field"
    matched = rule in MATCHED
    return Banded(
        rule=rule,
        band="match" if matched else "none" if rule == "none" else "possible",
        upper=matched and probability >= UPPER_BAR and (bool(id_agreed) or equal >= 3),
        agreed=(*(field for field, level in zip(FIELDS, levels, strict=True) if level >= AGREES[field]), *id_agreed),
        differs=(*(field for field, level in zip(FIELDS, levels, strict=True) if level == FAR), *id_differs),
    )


def probability_of(weight: float) -> float:
    """The probability that two rows are of one person, from log2 of the odds."""
    return 1 / (1 + math.pow(2.0, -weight))


def numbers_said(left: Numbers, right: Numbers) -> tuple[list[str], list[str]]:
    """The schemes in which two records share a number, and those in which both have one and share none."""
    both = [scheme for scheme in ALL_SCHEMES if left.get(scheme) and right.get(scheme)]
    agreed = [scheme for scheme in both if not left[scheme].isdisjoint(right[scheme])]
    return agreed, [scheme for scheme in both if scheme not in agreed and scheme != LOCAL]


def _date_differs(given: int, born: int, left: int | None, right: int | None) -> bool:
    known = left is not None and right is not None
    if born == FAR and not (given >= NAME_CLOSE and known and left == right):
        return True
    return left is not None and right is not None and abs(left - right) > GENERATION and born != DOB_EQUAL


def _filter(name: str, token: str, bars: Sequence[int]) -> Callable[[Row, Row], int]:
    count = f"{name}_n"

    def level(left: Row, right: Row) -> int:
        if left[count] is None or right[count] is None:
            return NOT_COMPARABLE
        if _same(left[token], right[token]):
            return len(bars) + 1
        return _dice_level(left, right, name, count, bars)

    return level


def _salted_name(field: str, stem: str) -> Callable[[Row, Row], int]:
    # A filter says nothing across two salts: it counts only where the salt's own token agrees.
    salts: Final = [
        (salt, f"{stem}_{letter}", f"{stem}_{letter}_n", f"t_{field}_{letter}")
        for letter, salt in (("d", "t_dob"), ("p", "t_postcode"))
    ]

    def level(left: Row, right: Row) -> int:
        best = NOT_COMPARABLE
        for salt, name, count, _ in salts:
            if left[count] is not None and right[count] is not None and _same(left[salt], right[salt]):
                best = max(best, _dice_level(left, right, name, count, NAME_BARS))
        if best != NOT_COMPARABLE and any(_same(left[token], right[token]) for *_, token in salts):
            return len(NAME_BARS) + 1
        return best

    return level


def _dice_level(left: Row, right: Row, name: str, count: str, bars: Sequence[int]) -> int:
    """How many of the bars 2·|l ∧ r| / (|l| + |r|) reaches, in whole numbers.  Bars fall."""
    common, held = 200 * (left[name] & right[name]).bit_count(), left[count] + right[count]
    return sum(common >= bar * held for bar in bars)


def _same_sex(left: Row, right: Row) -> int:
    if left["sex"] is None or right["sex"] is None:
        return NOT_COMPARABLE
    return int(left["sex"] == right["sex"])


def _same(left: int | None, right: int | None) -> bool:
    return left is not None and left == right
