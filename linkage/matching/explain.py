"""Why two records are linked, or not: words for analysts, a waterfall of weights for link reviewers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from linkage.matching.bands import AGREES, HELD
from linkage.matching.comparisons import (
    FAR,
    NOT_COMPARABLE,
    NUMBERS,
    SOUNDS,
    STARTS,
    FieldComparison,
    comparisons,
    sent,
)
from linkage.matching.identifiers import ALL_SCHEMES
from linkage.matching.model import Model
from linkage.matching.pairwise import Comparer, Numbers, Row, numbers_said
from linkage.records import Profile

Level = Literal["agree", "close", "differ", "not_comparable", "missing"]
"""`missing`: one of the two sent nothing of it.  `not_comparable`: both did, and under no salt that they share."""
Rarity = Literal["common", "uncommon", "rare"]

LABELS: Final = {
    "given_name": "given name",
    "family_name": "family name",
    "date_of_birth": "date of birth",
    "postcode": "postcode",
    "sex": "sex",
    "nhs_number": "NHS number",
    "upn": "UPN",
    "pnc": "PNC ID",
    "cro": "CRO number",
    "uln": "ULN",
    "local": "the agency's own number",
}
OTHER_REASONS: Final = {
    "tie": "two records fit equally well, and only one of them can be right",
    "wrong_person": "somebody who knows the child says that these are two",
}
"""Why a pair waits that no rule of `bands.HELD` holds."""
COMMON: Final = 1 / 100  # of two records at random: as often as this, agreement says little
UNCOMMON: Final = 1 / 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One step of a waterfall: what a field's level adds to the match weight, in bits."""

    field: str
    level: str
    m: float | None  # how often records of one person are at this level; None for the prior and what can't be compared
    u: float | None  # how often records of two people are
    weight: float
    total: float  # the sum up to and with this bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How one field of two records compares, in words."""

    field: str
    label: str
    level: Level
    rarity: Rarity | None  # how rare it is that two people agree so; None unless the field agrees


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How the best pair of rows of two records compares, and what their numbers say."""

    fields: tuple[Agreement, ...]
    numbers_agree: tuple[str, ...]  # schemes in which the two share a number
    numbers_differ: tuple[str, ...]  # in which both have one, and not the same
    numbers_missing: tuple[str, ...]  # which one of them has and the other lacks
    waterfall: tuple[Bar, ...]

    @property
    def weight(self) -> float:
        """The match weight: log2 of the odds, prior included, as the scorer has it."""
        return self.waterfall[-1].total


def sentence(agreed: Sequence[str], differs: Sequence[str]) -> str:
    """What agreed and what did not, for an analyst: no number, no value.

    >>> sentence(["date_of_birth", "family_name"], ["postcode"])
    'Date of birth and family name agree; postcode differs.'
    >>> sentence([], [])
    'No field could be compared.'
    """
    parts = [
        f"{_listed(names)} {one if len(names) == 1 else many}"
        for names, one, many in ((agreed, "agrees", "agree"), (differs, "differs", "differ"))
        if names
    ]
    text = "; ".join(parts) or "no field could be compared"
    return f"{text[0].upper()}{text[1:]}."


def held_because(rule: str) -> str:
    """Why a pair waits for a person's look.

    >>> held_because("identifier_alone")
    'A number agrees, but neither the day of birth nor a given name with family name or home.'
    """
    text = {**HELD, **OTHER_REASONS}[rule]
    return f"{text[0].upper()}{text[1:]}."


def rarity(u: float) -> Rarity:
    """How rare it is that two people agree so, coarsely; `u` is of the model's level, never of a value.

    >>> rarity(0.5), rarity(0.001), rarity(0.00007)
    ('common', 'uncommon', 'rare')
    """
    return "common" if u >= COMMON else "uncommon" if u >= UNCOMMON else "rare"


def explained(
    model: Model, left: Sequence[Row], right: Sequence[Row], left_numbers: Numbers, right_numbers: Numbers
) -> Explanation:
    """How two records compare under a model; `left` and `right` are the rows of each, as `search.Index.rows_of` gives.

    Of several rows the pair counts that weighs most, as for the scorer.  Raises ValueError if a record has no row.
    """
    if not left or not right:
        raise ValueError("a record without rows can't be explained")
    comparer = Comparer(model)
    found = [(comparer.compare(one, other), one, other) for one in left for other in right]
    best, one, other = max(found, key=lambda entry: entry[0].weight)
    agreed, differs = numbers_said(left_numbers, right_numbers)
    compared = comparisons(model.profile)
    shared = _shared_salts(one, other)
    words = [
        _word(field, level, model.profile, one, other, shared=shared)
        for field, level in zip(compared, best.levels, strict=True)
    ]
    return Explanation(
        fields=tuple(
            _agreement(model, field, level, word)
            for field, level, word in zip(compared, best.levels, words, strict=True)
        ),
        numbers_agree=tuple(agreed),
        numbers_differ=tuple(differs),
        numbers_missing=tuple(s for s in ALL_SCHEMES if bool(left_numbers.get(s)) != bool(right_numbers.get(s))),
        waterfall=tuple(_bars(model, best.levels, words, one, other)),
    )


_BY_NUMBER: Final = ("given_name", "family_name", "dob")


def _word(
    compared: FieldComparison, level: int, profile: Profile, one: Row, other: Row, *, shared: Collection[str]
) -> Level:
    """How a field compares.  Where only a number salts it on both sides, unequal is all that can be known of it."""
    if level == FAR:
        return "differ"
    if level != NOT_COMPARABLE:
        return "agree" if level == compared.size - 1 else "close"
    if not all(any(row[column] is not None for column in sent(profile, compared.field)) for row in (one, other)):
        return "missing"
    stem = "dob" if compared.field == "date_of_birth" else compared.field
    tokens = [f"t_{stem}_{number}" for number in shared] if stem in _BY_NUMBER else []
    told = any(one[token] is not None and other[token] is not None for token in tokens)
    return "differ" if told else "not_comparable"


def _shared_salts(one: Row, other: Row) -> frozenset[str]:
    """Which numbers surely salt the tokens of both rows alike, as one token is equal.

    That two records share a number is not enough: one may have had it replaced, and then its tokens are under another.
    """
    if "t_dob_n" not in one:
        return frozenset()  # under `accurate` no number salts anything
    return frozenset(
        suffix
        for suffix in NUMBERS
        if any(_equal(one[f"t_{stem}_{suffix}"], other[f"t_{stem}_{suffix}"]) for stem in _BY_NUMBER)
    )


def _equal(one: object, other: object) -> bool:
    return one is not None and one == other


def _agreement(model: Model, compared: FieldComparison, level: int, word: Level) -> Agreement:
    agrees = level >= AGREES[compared.field]
    u = model.levels[compared.field][compared.size - 1 - level][1] if agrees else 0.0
    return Agreement(
        field=compared.field, label=LABELS[compared.field], level=word, rarity=rarity(u) if agrees else None
    )


def _bars(
    model: Model, levels: Sequence[int], words: Sequence[Level], one: Mapping[str, Any], other: Mapping[str, Any]
) -> Iterable[Bar]:
    total = model.prior_weight
    yield Bar(field="prior", level="two records at random", m=None, u=None, weight=total, total=total)
    for compared, level, word in zip(comparisons(model.profile), levels, words, strict=True):
        place = compared.size - 1 - level
        if level == NOT_COMPARABLE:
            m = u = None
            weight = 0.0
        else:
            m, u = model.levels[compared.field][place]
            weight = model.weights(compared.field)[place]
        rare = 0.0
        if compared.tf_column and level == compared.size - 1 and u is not None:
            held = [f for f in (one[f"f_{compared.field}"], other[f"f_{compared.field}"]) if f is not None]
            rare = math.log2(u / max(held)) if held else 0.0
        total += weight + rare
        yield Bar(
            field=compared.field, level=_level(compared, level, word), m=m, u=u, weight=weight + rare, total=total
        )


def _level(compared: FieldComparison, level: int, word: Level) -> str:
    if level == NOT_COMPARABLE:
        return {"missing": "missing", "differ": "differs, by how much can't be told: not counted"}.get(
            word, "could not be compared"
        )
    if level == FAR:
        return "differs"
    if level == compared.size - 1:
        return "equal"
    below = {SOUNDS: "sounds alike", STARTS: "starts alike"} if compared.field in ("given_name", "family_name") else {}
    return below.get(level) or f"alike, {compared.bars[len(compared.bars) - level + len(below)]} % or more"


def _listed(names: Sequence[str]) -> str:
    words = [LABELS[name] for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
