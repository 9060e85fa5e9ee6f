"""The ids of the declared tables, which an agreement may name: read from the catalogue's file alone.

The catalogue itself, `agreements.statistics`, needs NumPy, and whoever reads or signs an agreement does without.  A
table that a signed agreement may name is never taken out of the catalogue.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources


@cache
def declared_tables() -> frozenset[str]:
    """Every table that planners may ask for."""
    text = resources.files("agreements").joinpath("statistics", "tables.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)["tables"]
    return frozenset(tables) - {table.get("coarser") for table in tables.values()}
