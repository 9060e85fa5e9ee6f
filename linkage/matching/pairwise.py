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
    NAME_ALIKE,
    NAME_BARS,
    NAME_CLOSE,
    NAME_EQUAL,
    NAME_ONES,
    NOT_COMPARABLE,
    NUMBERS,
    POSTCODE_BARS,
    POSTCODE_EQUAL,
    SALTED_DOB_BARS,
    SALTED_NAME_BARS,
    SALTED_POSTCODE_BARS,
    SAME_DATE,
    SAME_POSTCODE,
    SOUNDS,
    SOUNDS_ALIKE,
    STARTS,
    comparisons,
    most_apart,
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
        self._levels: tuple[Callable[[Row, Row], int], ...] = (
            (_salted_name("given_name", "given", "family"), _salted_name("family_name", "family", "given"),
             _salted_date, _salted_postcode, _same_sex)
            if model.profile == "guarded-3"
            else (_name("given_name", "given"), _name("family_name", "family"),
                  _filter("dob", "t_dob", DOB_BARS), _filter("postcode", "t_postcode", POSTCODE_BARS), _same_sex)
        )  # fmt: skip
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
    one_child = born == DOB_EQUAL or (
        given >= NAME_CLOSE and (family >= NAME_CLOSE or home == POSTCODE_EQUAL) and not _generations(*years)
    )
    sibling = family >= NAME_CLOSE and FAR <= given < NAME_ALIKE and home != FAR
    if (
        born == DOB_EQUAL
        and family >= NAME_CLOSE
        and FAR <= given < NAME_ONES
        and home == POSTCODE_EQUAL
        and not id_agreed
    ):
        rule = "none" if id_differs else "twin"
    elif id_differs:
        rule = "conflict" if id_agreed or (probability >= MATCH_BAR and not sibling) else "none"
    elif id_agreed:
        rule = "identifier" if one_child else "identifier_alone"
    elif probability < POSSIBLE_BAR:
        rule = "none"
    elif sibling:
        rule = "twin"
    elif given == NOT_COMPARABLE:
        rule = "no_given_name"
    elif _date_differs(given, born, *years):
        rule = "date_differs"
    elif probability < MATCH_BAR:
        rule = "uncertain"
    else:
        rule = "two_fields" if equal >= (3 if born == NOT_COMPARABLE else 2) and named else "one_field"
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
    return _generations(left, right) and born != DOB_EQUAL


def _generations(left: int | None, right: int | None) -> bool:
    return left is not None and right is not None and abs(left - right) > GENERATION


def _filter(name: str, token: str, bars: Sequence[int]) -> Callable[[Row, Row], int]:
    count = f"{name}_n"

    def level(left: Row, right: Row) -> int:
        if left[count] is None or right[count] is None:
            return NOT_COMPARABLE
        if _same(left[token], right[token]):
            return len(bars) + 1
        return _dice_level(left, right, name, count, bars)

    return level


def _name(field: str, stem: str) -> Callable[[Row, Row], int]:
    by_filter = _filter(stem, f"t_{field}", NAME_BARS)

    def level(left: Row, right: Row) -> int:
        found = by_filter(left, right)
        if found > FAR:
            return found + SOUNDS
        if found == FAR and _shared(left, right, (f"{stem}_soundex",)):
            return SOUNDS
        return STARTS if found == FAR and _shared(left, right, (f"{stem}_initial",)) else found

    return level


def _salted_name(field: str, stem: str, other: str) -> Callable[[Row, Row], int]:
    # A filter says nothing across two salts: it counts only where the salts agree.
    salts: Final = [("d", SAME_DATE), ("p", SAME_POSTCODE)]
    exact: Final = tuple(f"{field}_{salt}" for salt in ("d", "p", *NUMBERS))
    sounds: Final = SOUNDS_ALIKE[stem]
    bars: Final = _apart(SALTED_NAME_BARS)
    starts: Final = (f"dob_{other}_{stem}1", f"postcode_{other}_{stem}1")

    def level(left: Row, right: Row) -> int:
        if _shared(left, right, exact):
            return NAME_EQUAL
        best = NOT_COMPARABLE
        for salt, agree in salts:
            if _held(left, right, f"{stem}_{salt}") and _shared(left, right, agree):
                best = max(best, _apart_level(left, right, f"{stem}_{salt}", bars))
        if best > FAR:
            return best + SOUNDS
        if best == FAR and _shared(left, right, sounds):
            return SOUNDS
        return STARTS if best == FAR and _shared(left, right, starts) else best

    return level


def _apart(bars: Sequence[int]) -> tuple[int, ...]:
    return tuple(most_apart(bar) for bar in bars)


_DOB_APART: Final = _apart(SALTED_DOB_BARS)
_POSTCODE_APART: Final = _apart((100, *SALTED_POSTCODE_BARS))


def _salted_date(left: Row, right: Row) -> int:
    if _shared(left, right, (*SAME_DATE, *(f"dob_{number}" for number in NUMBERS))):
        return DOB_EQUAL
    if _held(left, right, "dob_p") and _shared(left, right, SAME_POSTCODE):
        return _apart_level(left, right, "dob_p", _DOB_APART)
    return NOT_COMPARABLE


def _salted_postcode(left: Row, right: Row) -> int:
    if _shared(left, right, SAME_POSTCODE):
        return POSTCODE_EQUAL
    if _held(left, right, "postcode_d") and _shared(left, right, SAME_DATE):
        return _apart_level(left, right, "postcode_d", _POSTCODE_APART)
    return NOT_COMPARABLE


def _shared(left: Row, right: Row, tokens: Sequence[str]) -> bool:
    """Whether both rows have an equal token of one of these."""
    return any(_same(left[f"t_{token}"], right[f"t_{token}"]) for token in tokens)


def _held(left: Row, right: Row, name: str) -> bool:
    """Whether both rows have this filter."""
    return left[f"{name}_n"] is not None and right[f"{name}_n"] is not None


def _apart_level(left: Row, right: Row, name: str, bars: Sequence[int]) -> int:
    """How many of the bars, the most bits in which two filters may differ, these two keep.  Bars rise."""
    apart = (left[name] ^ right[name]).bit_count()
    return sum(apart <= bar for bar in bars)


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
