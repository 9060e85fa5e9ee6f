"""DuckDB in memory, locked down, and the working tables: filters packed for fast dice, records and sources numbered."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from linkage.records import FILTER_WORDS, FILTERS, IDENTIFIERS, PROFILES, TOKENS, Profile, filter_columns

if TYPE_CHECKING:
    import duckdb

HALF: Final = 1 << 63
_LOW: Final = (1 << 64) - 1


class UnknownProfile(ValueError):
    """The columns of a table are those of no encoding profile."""


def open_workspace(*, memory_limit: str = "3GB", threads: int = 2) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that reads and writes no file, loads no extension, and can't be told otherwise afterwards.

    It spills nothing to disk either: what does not fit `memory_limit` fails with duckdb.OutOfMemoryException.
    """
    import duckdb  # here: a command that only reads the register never waits for it to load

    connection = duckdb.connect(":memory:")
    for setting, value in (
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("python_enable_replacements", "false"),
        ("temp_directory", "''"),
        ("enable_progress_bar", "false"),
        ("memory_limit", f"'{memory_limit}'"),
        ("threads", str(int(threads))),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ):
        connection.execute(f"SET {setting} = {value}")
    return connection


def profile_of(columns: Iterable[str]) -> Profile:
    """The profile whose filters these columns hold.  Raises UnknownProfile."""
    held = set(columns)
    for profile in PROFILES:
        if all(held.issuperset(filter_columns(name)) for name in FILTERS[profile]):
            return profile
    raise UnknownProfile(f"filters of one of {', '.join(PROFILES)} are due")


def packed(filter_name: str) -> str:
    """SQL: the eight words of a filter as four HUGEINT columns `<filter>_h0` .. `_h3`, and its popcount."""
    # The high half is signed and the low one not; << refuses negatives and 2^64 overflows, hence twice 2^63.
    halves = [
        f"{filter_name}_w{word}::HUGEINT * {HALF} + {filter_name}_w{word}::HUGEINT * {HALF}"
        f" + ({filter_name}_w{word + 1}::HUGEINT & {_LOW}::HUGEINT) AS {filter_name}_h{word // 2}"
        for word in range(0, FILTER_WORDS, 2)
    ]
    return ", ".join([*halves, f"{filter_name}_n::INTEGER AS {filter_name}_n"])


def load_persons(
    connection: duckdb.DuckDBPyConnection, persons: pa.Table, duplicates: Iterable[tuple[str, str]]
) -> None:
    """Make the tables `sources`, `records` and `rows` from persons rows (wire columns, agency and flow).

    `sources`: src, agency, flow, dup.  `records`: rec, src, record_ref.  `rows`: unique_id, rec, src, dup, the packed
    filters, tokens `t_*`, identifiers `id_*`, birth_year, sex.  All three are numbered in an order that the order of
    `persons` does not change.
    """
    profile = profile_of(persons.column_names)
    connection.register("persons_in", persons)
    declared = pa.table(
        {"agency": pa.array([a for a, _ in sorted(duplicates)], pa.string()),
         "flow": pa.array([f for _, f in sorted(duplicates)], pa.string())}
    )  # fmt: skip
    connection.register("duplicates_in", declared)
    connection.execute("""
        CREATE TABLE sources AS
        SELECT row_number() OVER (ORDER BY agency, flow)::INTEGER AS src, agency, flow,
               EXISTS (FROM duplicates_in d WHERE d.agency = s.agency AND d.flow = s.flow) AS dup
        FROM (SELECT DISTINCT agency, flow FROM persons_in) s
    """)
    connection.execute("""
        CREATE TABLE records AS
        SELECT row_number() OVER (ORDER BY src, record_ref)::INTEGER AS rec, src, record_ref
        FROM (SELECT DISTINCT src, record_ref FROM persons_in JOIN sources USING (agency, flow))
    """)
    tokens = [f"t_{name}" for name in TOKENS[profile]]
    identifiers = [f"id_{name}" for name in IDENTIFIERS]
    tie_breakers = ", ".join(["rec", *tokens, *identifiers])
    columns = ", ".join(
        [
            *(packed(name) for name in FILTERS[profile]),
            *tokens,
            *identifiers,
        ]
    )
    connection.execute(f"""
        CREATE TABLE rows AS
        SELECT row_number() OVER (ORDER BY {tie_breakers})::INTEGER AS unique_id, rec, src, dup, {columns},
               birth_year, sex
        FROM persons_in JOIN sources USING (agency, flow) JOIN records USING (src, record_ref)
        ORDER BY unique_id
    """)
    for field in ("given_name", "family_name") if profile == "accurate-2" else ():
        connection.execute(f"ALTER TABLE rows ADD COLUMN f_{field} DOUBLE")
        connection.execute(f"""
            UPDATE rows SET f_{field} = t.frequency
            FROM (SELECT t_{field} AS token, count(*) / (SELECT count(t_{field}) FROM rows) AS frequency
                  FROM rows GROUP BY 1) t
            WHERE t_{field} = t.token
        """)
    connection.unregister("persons_in")
    connection.unregister("duplicates_in")
