"""Which rows are compared at all: tokens of two fields, exact identifiers, and no block too large to be worth it."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from linkage.matching.identifiers import LOCAL, SCHEMES
from linkage.records import Profile

if TYPE_CHECKING:
    import duckdb

BLOCK_CAP: Final = 500
S5: Final = ("dob_given", "dob_family", "dob_sector", "postcode_given_family1", "postcode_family_given1")
WIDE: Final = (
    "dob", "soundex_pair", "family_year", "given_year", "family_daymonth", "given_daymonth", "postcode_given1",
    "postcode_family1",
)  # fmt: skip
KEYS: Final[dict[Profile, tuple[str, ...]]] = {"guarded-3": S5, "accurate-2": WIDE}
"""Never a single name, nor soundex with year or area, under `guarded`: they would leak themselves or join the salts."""
APART: Final = "l.rec <> r.rec AND (l.src <> r.src OR l.dup)"
"""Two rows worth comparing: of two records, and not of one flow that holds each person once."""


def add_blocking_columns(connection: duckdb.DuckDBPyConnection, profile: Profile) -> dict[str, int]:
    """Give `rows` a column `b_<token>` a blocking key, null where its block holds over BLOCK_CAP rows.

    Returns the number of blocks skipped, a key.
    """
    skipped: dict[str, int] = {}
    for key in KEYS[profile]:
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE large AS
            SELECT t_{key} AS token FROM rows WHERE t_{key} IS NOT NULL GROUP BY 1 HAVING count(*) > {BLOCK_CAP}
        """)
        skipped[key] = connection.execute("SELECT count(*) FROM large").fetchall()[0][0]
        connection.execute(f"ALTER TABLE rows ADD COLUMN b_{key} BIGINT")
        connection.execute(f"UPDATE rows SET b_{key} = t_{key} WHERE t_{key} NOT IN (FROM large)")
    return {key: count for key, count in skipped.items() if count}


def blocking_columns(profile: Profile) -> tuple[str, ...]:
    """The columns of `rows` of which any equal one makes a pair, identifiers first: they settle most."""
    return (*(f"c_{scheme}" for scheme in SCHEMES), f"c_{LOCAL}", *(f"b_{key}" for key in KEYS[profile]))


def blocking_rules(profile: Profile) -> list[Any]:
    """The rules that generate pairs for Splink, in the order of `blocking_columns`; each pair is generated once."""
    from splink.blocking_rule_library import CustomRule

    return [
        CustomRule(f"l.{column} = r.{column} AND {APART}", sql_dialect="duckdb") for column in blocking_columns(profile)
    ]
