"""A published table as it leaves: JSON and CSV, with the symbols it uses and the rules it was made by.

What is not written anywhere: how many figures are hidden because they are small, and how many for the sake of others.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import product
from typing import Any, Final

import numpy as np

from agreements.statistics.suppression import SYMBOLS, Published, Terms
from agreements.statistics.tables import Quarter, Table

TOTAL: Final = "total"
_STORED: Final = {-1: "c", -2: "z"}


def figures_of(published: Published) -> list[Any]:
    """The figures as nested lists of numbers and symbols, totals last: what is kept of a release."""

    def plain(part: Any) -> Any:
        return [plain(one) for one in part] if isinstance(part, list) else _STORED.get(part, part)

    found: list[Any] = plain(published.figures.tolist())
    return found


def published_of(figures: Sequence[Any], terms: Terms) -> Published:
    """What `figures_of` wrote, read again."""
    numbers = {symbol: number for number, symbol in _STORED.items()}

    def plain(part: Any) -> Any:
        return [plain(one) for one in part] if isinstance(part, list) else numbers.get(part, part)

    return Published(np.array(plain(list(figures)), dtype=np.int64), terms)


def as_json(
    table: Table, period: Quarter, figures: Sequence[Any], terms: Terms, *, more: Sequence[str] = ()
) -> dict[str, Any]:
    """A table with everything its reader needs: dimensions, a row a figure, symbols, notes and `more` of them."""
    rows = [
        {**dict(zip((dimension.id for dimension in table.dimensions), levels, strict=True)), "children": value}
        for levels, value in _rows(table, figures, labels=False)
    ]
    used = {row["children"] for row in rows if isinstance(row["children"], str)}
    return {
        "table": table.id,
        "title": table.title,
        "period": str(period),
        "counted_on": period.last_day.isoformat(),
        "dimensions": [
            {
                "id": dimension.id,
                "label": dimension.label,
                "levels": [{"code": level.code, "label": level.label} for level in dimension.levels],
            }
            for dimension in table.dimensions
        ],
        "rows": rows,
        "symbols": {symbol: words for symbol, words in SYMBOLS.items() if symbol in used},
        "notes": [*notes(period, terms), *more],
    }


def as_csv(table: Table, period: Quarter, figures: Sequence[Any], terms: Terms, *, more: Sequence[str] = ()) -> str:
    """A table as CSV: a row a figure under labels, then an empty line, the symbols and the notes."""
    rows = list(_rows(table, figures, labels=True))
    used = {value for _, value in rows if isinstance(value, str)}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([*(dimension.label for dimension in table.dimensions), "Children"])
    writer.writerows([*levels, value] for levels, value in rows)
    writer.writerow([])
    writer.writerow(["Title", table.title])
    writer.writerow(["Period", str(period)])
    writer.writerows(["Symbol", symbol, words] for symbol, words in SYMBOLS.items() if symbol in used)
    writer.writerows(["Note", note] for note in (*notes(period, terms), *more))
    return out.getvalue()


def notes(period: Quarter, terms: Terms) -> list[str]:
    """The rules a reader must know."""
    day = period.last_day
    return [
        f"Children of 0 to 17 with a record that counts, each once, as of {day.day} {day:%B %Y}; "
        "one whose records are protected, or not shared for planning, is not counted.",
        f"Figures under {terms.threshold}, nobody included, are not published, nor others that would give them away.",
        f"Figures are rounded to {terms.rounding}. Totals are sums of rounded figures.",
        f"Nothing is published of fewer than {terms.minimum_population} children, and no release that differs from an "
        f"earlier one by fewer than {terms.threshold}.",
    ]


def _rows(table: Table, figures: Sequence[Any], *, labels: bool) -> list[tuple[tuple[str, ...], int | str]]:
    names = [
        [*((level.label if labels else level.code) for level in dimension.levels), "Total" if labels else TOTAL]
        for dimension in table.dimensions
    ]
    found: list[tuple[tuple[str, ...], int | str]] = []
    for place in product(*(range(len(one)) for one in names)):
        value: Any = figures
        for index in place:
            value = value[index]
        found.append((tuple(names[axis][index] for axis, index in enumerate(place)), value))
    return found
