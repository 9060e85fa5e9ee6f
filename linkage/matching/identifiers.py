"""Strong identifiers: which numbers are one number, which carry no weight, and what two records' numbers say."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

SCHEMES: Final[dict[str, tuple[str, ...]]] = {
    "nhs_number": ("nhs_number", "superseded_nhs_number"),
    "upn": ("upn", "former_upn"),
    "pnc": ("pnc",),
    "cro": ("cro",),
    "uln": ("uln",),
}
"""Each with the columns that hold its current and its former numbers, which share one key."""
LOCAL: Final = "local"  # one agency's own numbers: they agree within it, and never conflict
ALL_SCHEMES: Final = (*SCHEMES, LOCAL)
SPREAD: Final = 2  # persons that may hold one number before it carries no weight
HOLDER_CAP: Final = 20  # records of one flow that may hold one number, where it may hold a person twice
ALIAS_CAP: Final = 3  # numbers that one person is believed to have had; more are a mistake in someone's table


def number_records(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Make `numbers` (rec, scheme, number) and `aliases` (scheme, token, least), and columns `c_<scheme>` of `rows`.

    A number is named by the least of those it superseded, so that former and current ones compare as equal.  Those
    that two records of one flow hold, where the flow holds each person once, carry no weight and are left out, as are
    those of over HOLDER_CAP records.  Returns how many were, a scheme.
    """
    former = [(scheme, names) for scheme, names in SCHEMES.items() if len(names) > 1]
    aliases: list[tuple[str, int, int]] = []
    for scheme, (current, old) in former:
        pairs = connection.execute(f"""
            SELECT DISTINCT id_{current}, id_{old} FROM rows
            WHERE id_{current} IS NOT NULL AND id_{old} IS NOT NULL AND id_{current} <> id_{old}
        """).fetchall()
        aliases += [(scheme, token, least) for token, least in least_of_aliases(pairs).items()]
    columns = zip(*aliases, strict=True) if aliases else ((), (), ())
    connection.register(
        "aliases_in",
        pa.table(dict(zip(("scheme", "token", "least"), columns, strict=True)),
                 schema=pa.schema([("scheme", pa.string()), ("token", pa.int64()), ("least", pa.int64())])),
    )  # fmt: skip
    connection.execute("CREATE OR REPLACE TABLE aliases AS SELECT * FROM aliases_in")
    connection.unregister("aliases_in")
    held = " UNION ALL ".join(
        f"SELECT rec, '{scheme}' AS scheme, id_{name} AS token FROM rows WHERE id_{name} IS NOT NULL"
        for scheme, names in [*SCHEMES.items(), (LOCAL, (LOCAL,))]
        for name in names
    )
    connection.execute(f"""
        CREATE OR REPLACE TABLE numbers AS
        SELECT DISTINCT rec, scheme, coalesce(least, token) AS number
        FROM ({held}) LEFT JOIN aliases USING (scheme, token)
    """)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE shared AS
        SELECT DISTINCT scheme, number FROM numbers JOIN records USING (rec) JOIN sources USING (src)
        GROUP BY scheme, number, src HAVING count(*) > CASE WHEN any_value(dup) THEN {HOLDER_CAP} ELSE 1 END
    """)
    dropped = drop_shared(connection)
    for scheme in ALL_SCHEMES:
        connection.execute(f"ALTER TABLE rows ADD COLUMN c_{scheme} BIGINT")
        connection.execute(f"""
            UPDATE rows SET c_{scheme} = n.number
            FROM (SELECT rec, min(number) AS number FROM numbers WHERE scheme = '{scheme}' GROUP BY rec) n
            WHERE n.rec = rows.rec
        """)
    return dropped


def drop_shared(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Take the weight from the numbers in the table `shared` (scheme, number): they neither agree nor conflict."""
    counts = dict(connection.execute("SELECT scheme, count(*) FROM shared GROUP BY 1").fetchall())
    connection.execute(
        "DELETE FROM numbers USING shared s WHERE numbers.scheme = s.scheme AND numbers.number = s.number"
    )
    return counts


def compare_numbers(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `numbered` (rec_l, rec_r, id_agreed, id_differs: lists of schemes) for the pairs of `scored`."""
    columns = ", ".join(f"list(number) FILTER (scheme = '{scheme}') AS {{side}}_{scheme}" for scheme in ALL_SCHEMES)
    for side in "lr":
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE numbers_{side} AS
            SELECT rec AS rec_{side}, {columns.format(side=side)} FROM numbers GROUP BY rec
        """)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE numbered AS
        SELECT rec_l, rec_r, {agreed_sql("l", "r")} AS id_agreed, {differs_sql("l", "r")} AS id_differs
        FROM scored JOIN numbers_l USING (rec_l) JOIN numbers_r USING (rec_r)
    """)


def agreed_sql(left: str, right: str) -> str:
    """SQL: the schemes in which two lists of numbers, columns `<left>_<scheme>` and `<right>_<scheme>`, share one."""
    shared = (f"CASE WHEN list_has_any({left}_{s}, {right}_{s}) THEN '{s}' END" for s in ALL_SCHEMES)
    return f"list_filter([{', '.join(shared)}], lambda scheme: scheme IS NOT NULL)"


def differs_sql(left: str, right: str) -> str:
    """SQL: the schemes in which both have a number and share none; an agency's own numbers never conflict."""
    apart = (f"CASE WHEN NOT list_has_any({left}_{s}, {right}_{s}) THEN '{s}' END" for s in SCHEMES)
    return f"list_filter([{', '.join(apart)}], lambda scheme: scheme IS NOT NULL)"


def least_of_aliases(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """For each number of a chain of supersessions, the least of the chain; chains over ALIAS_CAP are left out."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while (above := parent.setdefault(number, number)) != number:
            parent[number] = number = parent[above]
        return number

    for current, old in pairs:
        low, high = sorted((root(current), root(old)))
        parent[high] = low
    chains: dict[int, list[int]] = {}
    for number in list(parent):
        chains.setdefault(root(number), []).append(number)
    return {number: least for least, chain in chains.items() if len(chain) <= ALIAS_CAP for number in chain}
