"""Why two records are linked, or not: words for analysts, a waterfall of weights for link reviewers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from linkage.matching.bands import HELD
from linkage.matching.comparisons import DOB_BARS, FAR, FIELDS, NAME_BARS, NOT_COMPARABLE, POSTCODE_BARS, comparisons
from linkage.matching.model import Model
from linkage.matching.scoring import scored
from linkage.matching.workspace import load_persons, open_workspace

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
_BARS: Final = {
    "given_name": NAME_BARS,
    "family_name": NAME_BARS,
    "date_of_birth": DOB_BARS,
    "postcode": POSTCODE_BARS,
    "sex": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One step of a waterfall: what a field's level adds to the match weight, in bits."""

    field: str
    level: str
    m: float | None  # how often records of one person are at this level; None for the prior and what can't be compared
    u: float | None  # how often records of two people are
    weight: float
    total: float  # the sum up to and with this bar


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
    'A number agrees and no other field does.'
    """
    text = {**HELD, "tie": "two records fit equally well, and only one of them can be right"}[rule]
    return f"{text[0].upper()}{text[1:]}."


def waterfall(model: Model, persons: pa.Table) -> tuple[Bar, ...]:
    """How the weight of the best pair of rows of two records adds up; `persons` holds their rows and no other.

    Raises ValueError if they are not two records.
    """
    connection = open_workspace(memory_limit="512MB", threads=1)
    try:
        load_persons(connection, persons, ())
        rows = scored(
            model, "(SELECT l.unique_id AS id_l, r.unique_id AS id_r FROM rows l JOIN rows r ON l.rec < r.rec)"
        )
        columns = ", ".join(f"gamma_{field}" for field in FIELDS)
        found = connection.execute(f"SELECT {columns} FROM ({rows}) ORDER BY weight DESC LIMIT 1").fetchall()  # noqa: S608
        records = connection.execute("SELECT count(*) FROM records").fetchall()[0][0]
    finally:
        connection.close()
    if records != 2:
        raise ValueError(f"rows of two records are due; these are of {records}")
    return tuple(_bars(model, found[0]))


def _bars(model: Model, levels: Sequence[int]) -> Iterable[Bar]:
    total = model.prior_weight
    yield Bar(field="prior", level="two records at random", m=None, u=None, weight=total, total=total)
    for comparison, level in zip(comparisons(model.profile), levels, strict=True):
        if level == NOT_COMPARABLE:
            m = u = None
            weight = 0.0
        else:
            m, u = model.levels[comparison.field][comparison.size - 1 - level]
            weight = model.weights(comparison.field)[comparison.size - 1 - level]
        total += weight
        yield Bar(field=comparison.field, level=_level(comparison.field, level), m=m, u=u, weight=weight, total=total)


def _level(field: str, level: int) -> str:
    bars = _BARS[field]
    if level == NOT_COMPARABLE:
        return "could not be compared"
    if level == FAR:
        return "differs"
    return "equal" if level == len(bars) + 1 else f"alike, {bars[len(bars) - level]} % or more"


def _listed(names: Sequence[str]) -> str:
    words = [LABELS[name] for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
