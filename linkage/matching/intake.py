"""Is a batch what its manifest says?  Parquet of a stranger, checked set-wise in a DuckDB that can reach one folder.

The three decrypted tables lie in a folder of their own (`persons.parquet`, `relationships.parquet`, `items.parquet`)
whose digests have been checked already.  DuckDB is locked to that folder before it sees a byte of them; lengths and
counts come first, since a file of 12 KB can hold one value of 400 MB; a table is read whole only once it is known to
be small.  What a footer claims (rows, statistics, sizes) is never believed.

A verdict names table, row, column and code, and never a value: the agency finds the row in its own extract.
"""
# ruff: noqa: S608  (every query is made of this module's constants and the folder it was given)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import duckdb
import pyarrow as pa

from linkage.matching.findings import DEFAULTS, Code, Finding, Limits, Verdict
from linkage.matching.rules import CODE_JOINS, Codes, across, lend_codes, rules_of
from linkage.records import TABLES, Manifest, Profile, Table, schema_of

MORE: Final = (1, 4, 16)  # times the memory for checking that reading may take


def check(folder: Path, manifest: Manifest, codes: Codes, *, limits: Limits = DEFAULTS) -> Verdict:
    """What is wrong with the tables in `folder`, if anything.

    `folder` holds this batch's three files and nothing else; its bytes match the manifest's digests.
    A file that can't be read is a finding, not an error: whatever a stranger sends, this returns.
    """
    found: list[tuple[Finding, int]] = []
    counts: dict[Table, int] = dict.fromkeys(TABLES, 0)
    with _locked(folder, limits.measuring_memory, limits) as tables:
        for table in TABLES:
            counts[table], wrong = _measure(tables, folder, table, manifest, limits)
            found += [(finding, 1) for finding in wrong]
    deletes: dict[Table, int] = dict.fromkeys(TABLES, 0)
    if not found:
        with _locked(folder, limits.checking_memory, limits) as tables:
            lend_codes(tables, codes)
            screened: dict[str, bool] = {}
            for table in TABLES:
                try:
                    deletes[table], wrong_rows = _check_table(tables, folder, table, manifest, limits, screened)
                except duckdb.OutOfMemoryException:
                    wrong_rows = [(Finding(table, 0, "", "too_large"), 1)]
                except (duckdb.Error, OSError):  # a footer that fits its columns, and lies about where they lie
                    wrong_rows = [(Finding(table, 0, "", "unreadable"), 1)]
                found += wrong_rows
    totals: dict[tuple[Table, str, Code], int] = {}
    listed: dict[Table, list[Finding]] = {table: [] for table in TABLES}
    for finding, count in found:
        key = (finding.table, finding.column, finding.code)
        totals[key] = totals.get(key, 0) + count
        listed[finding.table].append(finding)
    first = [entry for table in TABLES for entry in sorted(set(listed[table]))[: limits.listed]]
    return Verdict(counts=counts, deletes=deletes, findings=tuple(first), totals=totals)


class NoRoom(MemoryError):
    """A table that was accepted needs more memory to be read than the limits give."""


def read(folder: Path, table: Table, profile: Profile, *, limits: Limits = DEFAULTS) -> pa.Table:
    """A table of a batch that `check` has accepted: see `read_all`."""
    (found,) = read_all(folder, (table,), profile, limits=limits)
    return found


def read_all(folder: Path, tables: Sequence[Table], profile: Profile, *, limits: Limits = DEFAULTS) -> list[pa.Table]:
    """Tables of a batch that `check` has accepted, in the order and types of their schemas; read under the same lock.

    Checking takes a few columns at a time, reading takes all: a row group of half a million rows needs more than was
    given for checking, and gets it, as lengths and counts are known by now.  Raises NoRoom where that is not enough.
    """
    for times in MORE:
        try:
            with _locked(folder, _times(limits.checking_memory, times), limits, in_order=True) as connection:
                return [_read(connection, folder, table, profile) for table in tables]
        except duckdb.OutOfMemoryException:
            pass
    raise NoRoom(f"{', '.join(tables)}: more than {_times(limits.checking_memory, MORE[-1])} are needed to read this")


def read_batches(
    folder: Path, table: Table, profile: Profile, *, rows: int, limits: Limits = DEFAULTS
) -> Iterator[pa.RecordBatch]:
    """A table of a batch that `check` has accepted, so many rows at a time: never the whole of it is in memory."""
    schema = schema_of(table, profile)
    columns = ", ".join(f'"{name}"' for name in schema.names)
    with _locked(folder, limits.checking_memory, limits, in_order=True) as connection:
        reader = connection.sql(f"select {columns} from {_rows_of(folder, table)}").to_arrow_reader(rows)
        for batch in reader:
            yield batch.cast(schema)


def _read(connection: duckdb.DuckDBPyConnection, folder: Path, table: Table, profile: Profile) -> pa.Table:
    schema = schema_of(table, profile)
    columns = ", ".join(f'"{name}"' for name in schema.names)
    return connection.sql(f"select {columns} from {_rows_of(folder, table)}").to_arrow_table().cast(schema)


def _times(memory: str, times: int) -> str:
    size = memory.rstrip("KMGB")
    return f"{int(size) * times}{memory.removeprefix(size)}"


@contextmanager
def _locked(
    folder: Path, memory: str, limits: Limits, *, in_order: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory that can read `folder` and nothing else, on disk or network, and can't be unlocked.

    The order matters (DuckDB 2.0.0, measured): the folder first, then external access off, then the lock.
    `COPY` into the folder stays possible, hence one folder a batch.
    """
    place = str(folder.resolve(strict=True)).replace("'", "''")
    found = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "threads": str(limits.threads),  # here, or it would first start one for each processor
        },
    )
    try:
        for setting in (
            "temp_directory = ''",
            f"preserve_insertion_order = {str(in_order).lower()}",
            # A footer's statistics are the sender's word; with them DuckDB would skip rows it was told can't match.
            "disabled_optimizers = 'statistics_propagation,filter_pushdown'",
            f"allowed_directories = ['{place}']",
            "enable_external_access = false",
            f"memory_limit = '{memory}'",
            "lock_configuration = true",
        ):
            found.execute(f"set {setting}")
        yield found
    finally:
        found.close()


def _rows_of(folder: Path, table: Table) -> str:
    place = str(folder.resolve() / f"{table}.parquet").replace("'", "''")
    return f"read_parquet('{place}', file_row_number = true)"


def _number(tables: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(tables.execute(query).fetchall()[0][0])


# --- Before a row is looked at: columns, counts, lengths -------------------------------------------------------------


def _measure(
    tables: duckdb.DuckDBPyConnection, folder: Path, table: Table, manifest: Manifest, limits: Limits
) -> tuple[int, list[Finding]]:
    """Rows of a table, and what is wrong with it as a whole.  Needs little memory, whatever the file holds."""
    try:
        if wrong := _columns(tables, folder, table, cast("Profile", manifest.profile)):
            return 0, wrong
        return _sizes(tables, folder, table, manifest=manifest, limits=limits)
    except duckdb.OutOfMemoryException:
        return 0, [Finding(table, 0, "", "too_large")]
    except (duckdb.Error, OSError):  # torn, truncated, encrypted, not UTF-8, not Parquet
        return 0, [Finding(table, 0, "", "unreadable")]


def _columns(tables: duckdb.DuckDBPyConnection, folder: Path, table: Table, profile: Profile) -> list[Finding]:
    due = schema_of(table, profile)
    place = str(folder.resolve() / f"{table}.parquet")
    described = tables.execute("select name from parquet_schema(?)", [place]).fetchall()
    names = [str(row[0]) for row in described[1:]]  # the first is the schema's root
    if names != due.names:
        wrong = [
            Finding(table, 0, _column_name(name, position), "unknown_column")
            for position, name in enumerate(names, 1)
            if name not in due.names
        ]
        wrong += [Finding(table, 0, name, "missing_column") for name in due.names if name not in names]
        wrong += [Finding(table, 0, name, "repeated_column") for name in due.names if names.count(name) > 1]
        return wrong or [Finding(table, 0, "", "wrong_order")]
    found = tables.execute(f"describe select * from {_rows_of(folder, table)}").fetchall()
    kinds = {str(row[0]): str(row[1]) for row in found}
    return [Finding(table, 0, name, "wrong_type") for name in due.names if kinds[name] != _KINDS[due.field(name).type]]


_KINDS: Final = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
}


def _column_name(name: str, position: int) -> str:
    """A stranger's column by its name if it looks like one, else by its place: it might be a value."""
    plain = len(name) <= 40 and name.replace("_", "").isalnum() and name.isascii() and name == name.lower()
    return name if plain else f"column {position}"


def _sizes(
    tables: duckdb.DuckDBPyConnection, folder: Path, table: Table, *, manifest: Manifest, limits: Limits
) -> tuple[int, list[Finding]]:
    schema = schema_of(table, cast("Profile", manifest.profile))
    texts = [name for name in schema.names if schema.field(name).type == pa.string()]
    fixed = [name for name in schema.names if name not in texts]
    text = " + ".join(f'coalesce(strlen("{name}"), 0)' for name in texts)
    values = ", ".join(f'count("{name}")' for name in fixed)
    # of every value a hash, so that a torn page or text that is not UTF-8 shows now, not half-way through
    decoded = ", ".join(f'bit_xor(hash("{name}"))' for name in schema.names)
    query = f"select count(*), max({text}), sum({text}), {values}, {decoded} from {_rows_of(folder, table)}"
    rows, longest, texts_size, *others = tables.execute(query).fetchall()[0]
    del others[len(fixed) :]
    wrong = []
    if rows > limits.rows:
        wrong.append(Finding(table, 0, "", "too_large"))
    if rows != manifest.tables[table].rows:
        wrong.append(Finding(table, 0, "", "wrong_row_count"))
    if rows == 0 and table == "persons" and manifest.kind == "full":
        wrong.append(Finding(table, 0, "", "empty_table"))
    if (longest or 0) + 8 * len(fixed) > limits.row_bytes:
        wrong.append(Finding(table, 0, "", "row_too_large"))
    size = int(texts_size or 0) + 8 * sum(others)
    if size > max(limits.small, limits.expansion * (folder / f"{table}.parquet").stat().st_size):
        wrong.append(Finding(table, 0, "", "expands_too_much"))
    return rows, wrong


# --- Row by row, in SQL ----------------------------------------------------------------------------------------------


def _check_table(
    tables: duckdb.DuckDBPyConnection,
    folder: Path,
    table: Table,
    manifest: Manifest,
    limits: Limits,
    screened: dict[str, bool],
) -> tuple[int, list[tuple[Finding, int]]]:
    """How many rows are tombstones, and what is wrong with which rows.  `screened`: what has been asked already."""
    deletes = _number(tables, f"select count(*) from {_rows_of(folder, table)} where op = 'delete'")
    by_row = _check_rows(tables, folder, table, manifest, limits)
    return deletes, by_row + _check_across_rows(tables, folder, table, limits, screened)


def _check_rows(
    tables: duckdb.DuckDBPyConnection, folder: Path, table: Table, manifest: Manifest, limits: Limits
) -> list[tuple[Finding, int]]:
    rules = list(rules_of(table, manifest))
    source = f"{_rows_of(folder, table)} t"
    if table == "items":
        source += " left join known_categories k on t.category = k.of_category" + CODE_JOINS
    counted = ", ".join(f"count(*) filter (where {rule.bad})" for rule in rules)
    counts = tables.execute(f"select {counted} from {source}").fetchall()[0]
    found: list[tuple[Finding, int]] = []
    for rule, count in zip(rules, counts, strict=True):
        if count:
            query = f"select t.file_row_number + 1 from {source} where {rule.bad} order by 1 limit {limits.listed}"
            found += _listed(table, rule.column, rule.code, tables.execute(query).fetchall(), count)
    return found


# --- Across rows -----------------------------------------------------------------------------------------------------


def _check_across_rows(
    tables: duckdb.DuckDBPyConnection, folder: Path, table: Table, limits: Limits, screened: dict[str, bool]
) -> list[tuple[Finding, int]]:
    """Refs said twice, and refs that lead out of the batch.  A delta brings the person row of whatever it touches."""
    found: list[tuple[Finding, int]] = []
    for one in across(table, {name: _rows_of(folder, name) for name in TABLES}, limits):
        if one.any_at_all not in screened:
            screened[one.any_at_all] = bool(tables.execute(one.any_at_all).fetchall())
        count = _number(tables, f"select count(*) from ({one.wrong})") if screened[one.any_at_all] else 0
        if count:
            first = tables.execute(f"select * from ({one.wrong}) order by 1 limit {limits.listed}").fetchall()
            found += _listed(table, one.column, one.code, first, count)
    return found


def _listed(
    table: Table, column: str, code: Code, rows: Sequence[tuple[Any, ...]], count: int
) -> list[tuple[Finding, int]]:
    """A finding a row; those beyond the cap are counted with the last."""
    weights = [1] * len(rows)
    weights[-1] += count - len(rows)
    return [(Finding(table, int(row[0]), column, code), weight) for row, weight in zip(rows, weights, strict=True)]
