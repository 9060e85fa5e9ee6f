"""The frozen model over pairs of rows, as one SQL expression: a link run and a search score by the same words.

Splink blocks and trains; it could predict too, but gives no level numbers back unless every filter comes with them, and
the bands are rules over levels.  The weights are Splink's own, which a test holds against its `predict`.
"""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

import re

from linkage.matching.comparisons import FIELDS, Dialect, FieldComparison, bits_apart, common_bits, comparisons
from linkage.matching.model import Model
from linkage.records import FILTERS, filter_columns

_SIDED = re.compile(r"\b(\w+)_[lr]\b")


def columns_compared(model: Model, dialect: Dialect = "duckdb") -> tuple[str, ...]:
    """The columns of `rows` that scoring reads; for Spark with each filter as the words of the wire."""
    compared = comparisons(model.profile, dialect)
    sql = " ".join([*(comparison.level_sql() for comparison in compared), *(tf(c) for c in compared if c.tf_column)])
    columns = {match.group(1) for match in _SIDED.finditer(sql)}
    if dialect == "spark":
        columns |= {column for name in FILTERS[model.profile] for column in filter_columns(name)}
    return tuple(sorted(columns))


def scored(
    model: Model,
    pairs: str,
    *,
    left: str = "rows",
    right: str = "rows",
    keep: tuple[str, ...] = (),
    dialect: Dialect = "duckdb",
) -> str:
    """SQL: `pairs` (id_l, id_r: unique_id of `left` and `right`) with levels `gamma_*`, weight and probability.

    `weight` is log2 of the odds, prior included.  The columns in `keep` come along, each as `_l` and `_r`.
    """
    sides = ", ".join(
        f"{side}.{column} AS {column}_{side}"
        for side in "lr"
        for column in sorted({*columns_compared(model, dialect), *keep, "unique_id"})
    )
    joined = f"""SELECT {sides} FROM {pairs} p
                      JOIN {left} l ON l.unique_id = p.id_l JOIN {right} r ON r.unique_id = p.id_r"""
    return scored_sides(model, f"({joined})", keep=("unique_id", *keep), dialect=dialect)


def scored_sides(model: Model, joined: str, *, keep: tuple[str, ...] = (), dialect: Dialect = "duckdb") -> str:
    """The same over a table that holds both rows of each pair: the columns compared and kept, as `_l` and `_r`."""
    compared = comparisons(model.profile, dialect)
    if dialect == "spark":  # once a filter, not once a level: see `dice` and `same_bits`
        read = " ".join(comparison.level_sql() for comparison in compared)
        counted = [
            f"{count(name, dialect)} AS {name}_{what}"
            for name in FILTERS[model.profile]
            for what, count in (("common", common_bits), ("apart", bits_apart))
            if f"{name}_{what}" in read
        ]
        joined = f"(SELECT *, {', '.join(counted)} FROM {joined})"
    kept = tuple(f"{column}_{side}" for column in keep for side in "lr")
    frequencies = "".join(
        f", {tf(comparison)} AS tf_{comparison.field}" for comparison in compared if comparison.tf_column
    )
    return weighed(
        model, f"(SELECT {', '.join((*kept, levels(model, dialect)))}{frequencies} FROM {joined})", keep=kept
    )


def levels(model: Model, dialect: Dialect = "duckdb") -> str:
    """SQL: the columns `gamma_*`, over what the dialect compares."""
    compared = comparisons(model.profile, dialect)
    return ", ".join(f"{comparison.level_sql()} AS gamma_{comparison.field}" for comparison in compared)


def weighed(model: Model, levelled: str, *, keep: tuple[str, ...] = ()) -> str:
    """SQL: a table with `gamma_*`, and `tf_*` where a name's frequency counts, with weight and probability."""
    weights = " + ".join(_weight(model, comparison) for comparison in comparisons(model.profile))
    return f"""
        SELECT *, 1 / (1 + pow(2.0, -weight)) AS probability
        FROM (
            SELECT {", ".join((*keep, *(f"gamma_{field}" for field in FIELDS)))},
                   {_double(model.prior_weight)} + {weights} AS weight
            FROM {levelled}
        )
    """


def _weight(model: Model, comparison: FieldComparison) -> str:
    level = f"gamma_{comparison.field}"
    whens = [
        f"WHEN {comparison.size - 1 - n} THEN {_double(weight)}"
        for n, weight in enumerate(model.weights(comparison.field))
    ]
    sql = f"CASE {level} {' '.join(whens)} ELSE {_double(0.0)} END"
    if comparison.tf_column:
        # A rare name says more than a common one: the frequency takes the place of u at the equal level.
        u = model.levels[comparison.field][0][1]
        adjusted = f"coalesce(log2({_double(u)} / tf_{comparison.field}), 0)"
        sql += f" + CASE WHEN {level} = {comparison.size - 1} THEN {adjusted} ELSE 0 END"
    return f"({sql})"


def _double(value: float) -> str:
    return f"CAST({value!r} AS DOUBLE)"


def tf(comparison: FieldComparison) -> str:
    """SQL: the frequency of the commoner of two names."""
    left, right = (f"f_{comparison.field}_{side}" for side in "lr")
    return f"coalesce(greatest({left}, {right}), {left}, {right})"
