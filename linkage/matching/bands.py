"""From levels, weight and identifiers to a band and the rule that gave it: the same for a link run and for a search."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from typing import Final

from linkage.matching.comparisons import (
    DOB_EQUAL,
    FAR,
    FIELDS,
    NAME_ALIKE,
    NAME_CLOSE,
    NAME_EQUAL,
    NAME_ONES,
    NOT_COMPARABLE,
    POSTCODE_EQUAL,
)

MATCH_BAR: Final = 0.99
UPPER_BAR: Final = 0.999
POSSIBLE_BAR: Final = 0.80
GENERATION: Final = 12  # years between two births that no typing error explains

MATCHED: Final = ("identifier", "two_fields")
HELD: Final = {
    "twin": "family name and home fit and the given name is another: a twin, or a brother or sister",
    "conflict": "two numbers of one kind differ",
    "swapped": "the number is of one child, the name is of another child born the same day",
    "identifier_alone": "a number agrees, but neither the day of birth nor a given name with family name or home",
    "no_given_name": "all fits, but one record has no given name, and a twin would fit too",
    "date_differs": "names and home fit, and the dates of birth are not alike",
    "one_field": "likely, but too few independent fields are equal",
    "uncertain": "the evidence leaves it open",
}
"""Why a pair is `possible` and not `match`, in the order in which rules are asked."""

_LEVEL = {field: f"gamma_{field}" for field in FIELDS}
_G, _F, _D, _P, _S = (_LEVEL[field] for field in FIELDS)
EQUAL: Final = {
    "given_name": NAME_EQUAL,
    "family_name": NAME_EQUAL,
    "date_of_birth": DOB_EQUAL,
    "postcode": POSTCODE_EQUAL,
}
AGREES: Final = {**EQUAL, "given_name": NAME_CLOSE, "family_name": NAME_CLOSE, "sex": 1}

ID_AGREES: Final = "len(coalesce(id_agreed, [])) > 0"
ID_DIFFERS: Final = "len(coalesce(id_differs, [])) > 0"
TWIN: Final = (
    f"({_D} = {DOB_EQUAL} AND {_F} >= {NAME_CLOSE} AND {_G} < {NAME_ONES} AND {_G} <> {NOT_COMPARABLE}"
    f" AND ({_P} = {POSTCODE_EQUAL} OR one_home))"
)
"""In encoded space two children born on one day into one home: never merged without a shared identifier."""
_SIBLING = (
    f"({_F} >= {NAME_CLOSE} AND {_G} < {NAME_ALIKE} AND {_G} <> {NOT_COMPARABLE} AND ({_P} <> {FAR} OR one_home))"
)
_EQUAL_FIELDS = " + ".join(f"({_LEVEL[field]} = {level})::INTEGER" for field, level in EQUAL.items())
# A number is typed on a brother, a sister or a mother too, of one home and family name: day or given name must agree.
_DEMOGRAPHIC = (
    f"({_D} = {DOB_EQUAL} OR {_G} >= {NAME_CLOSE} AND ({_F} >= {NAME_CLOSE} OR {_P} = {POSTCODE_EQUAL})"
    f" AND NOT coalesce(abs(birth_year_l - birth_year_r) > {GENERATION}, false))"
)
# Two of date and postcode alone are a coincidence in 93,000 hospital records a year: a name must agree too.
# Without a date, twins and fathers of nearly one name live at one address: all three others must be equal.
_ENOUGH = f"CASE WHEN {_D} = {NOT_COMPARABLE} THEN 3 ELSE 2 END"
_TWO_FIELDS = f"({_EQUAL_FIELDS} >= {_ENOUGH} AND ({_G} >= {NAME_CLOSE} OR {_F} >= {NAME_CLOSE}))"
# A child and a brother, or a parent, of the same name: one birth year and a close given name tell a slip of the pen.
_DATE_DIFFERS = (
    f"({_D} = {FAR} AND NOT ({_G} >= {NAME_CLOSE} AND coalesce(birth_year_l = birth_year_r, false))"
    f" OR abs(birth_year_l - birth_year_r) > {GENERATION} AND {_D} <> {DOB_EQUAL})"
)


def banded(source: str) -> str:
    """SQL over a table of pairs, each with levels `gamma_*`, weight, probability, id_agreed, id_differs, one_home and
    birth_year_l, birth_year_r: its columns, and `rule`, `band` ("match", "possible" or "none"), `upper`, agreed,
    differs.

    A `swapped` pair is not seen here: it takes a third record (`link`).
    """
    rule = f"""CASE
        WHEN {TWIN} AND NOT {ID_AGREES} THEN CASE WHEN {ID_DIFFERS} THEN 'none' ELSE 'twin' END
        WHEN {ID_DIFFERS} THEN CASE WHEN {ID_AGREES} OR probability >= {MATCH_BAR} AND NOT {_SIBLING}
             THEN 'conflict' ELSE 'none' END
        WHEN {ID_AGREES} AND {_DEMOGRAPHIC} THEN 'identifier'
        WHEN {ID_AGREES} THEN 'identifier_alone'
        WHEN probability < {POSSIBLE_BAR} THEN 'none'
        WHEN {_SIBLING} THEN 'twin'
        WHEN {_G} = {NOT_COMPARABLE} THEN 'no_given_name'
        WHEN coalesce({_DATE_DIFFERS}, false) THEN 'date_differs'
        WHEN probability < {MATCH_BAR} THEN 'uncertain'
        WHEN {_TWO_FIELDS} THEN 'two_fields'
        ELSE 'one_field' END"""
    agreed = ", ".join(f"CASE WHEN {_LEVEL[field]} >= {AGREES[field]} THEN '{field}' END" for field in FIELDS)
    differs = ", ".join(f"CASE WHEN {_LEVEL[field]} = {FAR} THEN '{field}' END" for field in FIELDS)
    return f"""
        SELECT *, CASE WHEN rule IN {MATCHED!r} THEN 'match' WHEN rule = 'none' THEN 'none' ELSE 'possible' END AS band,
               rule IN {MATCHED!r} AND probability >= {UPPER_BAR}
                   AND ({ID_AGREES} OR {_EQUAL_FIELDS} >= 3) AS upper
        FROM (
            SELECT *, {rule} AS rule,
                   list_filter([{agreed}], lambda f: f IS NOT NULL) || coalesce(id_agreed, []) AS agreed,
                   list_filter([{differs}], lambda f: f IS NOT NULL) || coalesce(id_differs, []) AS differs
            FROM {source}
        )
    """
