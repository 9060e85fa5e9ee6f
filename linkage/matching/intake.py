"""Is a batch what its manifest says?  Parquet of a stranger, checked set-wise in a DuckDB that can reach one folder.

The three decrypted tables lie in a folder of their own (`persons.parquet`, `relationships.parquet`, `items.parquet`)
whose digests have been checked already.  DuckDB is locked to that folder before it sees a byte of them; lengths and
counts come first, since a file of 12 KB can hold one value of 400 MB; a table is read whole only once it is known to
be small.  What a footer claims (rows, statistics, sizes) is never believed.

A verdict names table, row, column and code, and never a value: the agency finds the row in its own extract.
"""
# ruff: noqa: S608  (every query is made of this module's constants and the folder it was given)

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, cast

import duckdb
import pyarrow as pa

from linkage.records import (
    FILTERS,
    IDENTIFIERS,
    ITEM_ROLES,
    OPS,
    PERSON_ROLES,
    QUALITY_FLAGS,
    REGIMES,
    RELATIONSHIP_TYPES,
    SHIELDS,
    TABLES,
    Manifest,
    Profile,
    Table,
    filter_columns,
    schema_of,
)

REF: Final = "[0-9a-f]{16,64}"
"""A keyed token as agencies write it: hex only, so that no name can pass for one."""
CONTACT: Final = "[a-z0-9][a-z0-9_-]{0,63}"
ORGANISATION: Final = "[a-z0-9][a-z0-9-]{0,63}"

Code = Literal[
    "too_large", "unreadable", "unknown_column", "missing_column", "repeated_column", "wrong_type", "wrong_order",
    "wrong_row_count", "empty_table", "row_too_large", "expands_too_much",
    "missing", "unknown_value", "bad_ref", "bad_date", "bad_period", "bad_number", "bad_endpoint",
    "incomplete_filter", "wrong_popcount", "delete_in_full",
    "duplicate_ref", "inconsistent_record", "too_many_alternatives", "too_many_identifiers", "unresolved_ref",
    "unknown_category", "never_ingest", "unknown_code", "code_not_expected", "number_not_expected", "retention_over",
]  # fmt: skip
"""What can be wrong: stable strings of the API, the rows' share of `GET .../rejections`."""


class CategoryCodes(TypedDict):
    """One category's lists as `agreements.vocabulary.codes_for_agencies()` gives them."""

    never_ingest: bool
    codes: Mapping[str, Sequence[str]] | None  # code system -> its codes
    number: bool
    outcomes: Sequence[str] | None
    outcome_pattern: str | None
    outcome_system: str | None
    role_required: bool


class Codes(TypedDict):
    """The code lists that agencies encode with, as plain data."""

    version: str
    categories: Mapping[str, CategoryCodes]
    denied: Mapping[str, Sequence[str]]  # refused wherever they stand; an empty list denies the whole system


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How big a batch may be: `reliability-security` section 3, rule 7."""

    rows: int = 2_000_000
    row_bytes: int = 16 * 1024
    expansion: int = 50  # decoded bytes to file bytes; a table below `small` decoded is never too much
    small: int = 1024 * 1024
    alternatives: int = 16  # rows of one record
    identifiers: int = 8  # distinct identifier tokens of one record
    listed: int = 1_000  # findings named row by row; the rest only counted
    measuring_memory: str = "192MB"  # while nothing is known about a file
    checking_memory: str = "2GB"  # once its lengths and counts are known
    threads: int = 2


DEFAULTS: Final = Limits()


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing wrong: where, and the code of what.  `row` counts from 1; 0 is the table as a whole."""

    table: Table
    row: int
    column: str
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check found.  The batch may be applied only if `accepted`: one bad row refuses the whole."""

    counts: Mapping[Table, int]  # rows of each table
    deletes: Mapping[Table, int]  # of these, tombstones
    findings: tuple[Finding, ...] = ()  # the first `Limits.listed` of each table
    totals: Mapping[tuple[Table, str, Code], int] = field(default_factory=dict)  # every one, by table, column and code

    @property
    def accepted(self) -> bool:
        """Nothing is wrong with any row."""
        return not self.totals


def check(folder: Path, manifest: Manifest, codes: Codes, *, limits: Limits = DEFAULTS) -> Verdict:
    """What is wrong with the tables in `folder`, if anything.

    `folder` holds this batch's three files and nothing else; its bytes match the manifest's digests.
    A file that can't be read is a finding, not an error: whatever a stranger sends, this returns.
    """
    found: list[tuple[Finding, int]] = []
    counts: dict[Table, int] = dict.fromkeys(TABLES, 0)
    for table in TABLES:
        counts[table], wrong = _measure(folder, table, manifest, limits)
        found += [(finding, 1) for finding in wrong]
    deletes: dict[Table, int] = dict.fromkeys(TABLES, 0)
    if not found:
        with _locked(folder, limits.checking_memory, limits) as tables:
            _lend_codes(tables, codes)
            for table in TABLES:
                try:
                    deletes[table], wrong_rows = _check_table(tables, folder, table, manifest, limits)
                except duckdb.OutOfMemoryException:
                    wrong_rows = [(Finding(table, 0, "", "too_large"), 1)]
                found += wrong_rows
    totals: dict[tuple[Table, str, Code], int] = {}
    listed: dict[Table, list[Finding]] = {table: [] for table in TABLES}
    for finding, count in found:
        key = (finding.table, finding.column, finding.code)
        totals[key] = totals.get(key, 0) + count
        listed[finding.table].append(finding)
    first = [entry for table in TABLES for entry in sorted(set(listed[table]))[: limits.listed]]
    return Verdict(counts=counts, deletes=deletes, findings=tuple(first), totals=totals)


def read(folder: Path, table: Table, profile: Profile, *, limits: Limits = DEFAULTS) -> pa.Table:
    """A table of a batch that `check` has accepted, in the order and types of its schema; read under the same lock."""
    schema = schema_of(table, profile)
    columns = ", ".join(f'"{name}"' for name in schema.names)
    with _locked(folder, limits.checking_memory, limits) as tables:
        found = tables.sql(f"select {columns} from {_rows_of(folder, table)} order by file_row_number")
        return found.to_arrow_table().cast(schema)


@contextmanager
def _locked(folder: Path, memory: str, limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory that can read `folder` and nothing else, on disk or network, and can't be unlocked.

    The order matters (DuckDB 2.0.0, measured): the folder first, then external access off, then the lock.
    `COPY` into the folder stays possible, hence one folder a batch.
    """
    place = str(folder.resolve(strict=True)).replace("'", "''")
    found = duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )
    try:
        for setting in (
            f"threads = {limits.threads}",
            "temp_directory = ''",
            "preserve_insertion_order = false",
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


def _measure(folder: Path, table: Table, manifest: Manifest, limits: Limits) -> tuple[int, list[Finding]]:
    """Rows of a table, and what is wrong with it as a whole.  Needs little memory, whatever the file holds."""
    try:
        with _locked(folder, limits.measuring_memory, limits) as tables:
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
    query = f"select count(*), max({text}), sum({text}), {values} from {_rows_of(folder, table)}"
    rows, longest, texts_size, *others = tables.execute(query).fetchall()[0]
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
    if not wrong:  # decode every value, so that a torn page or text that is not UTF-8 shows now, not half-way through
        values = ", ".join(f'bit_xor(hash("{name}"))' for name in schema.names)
        tables.execute(f"select {values} from {_rows_of(folder, table)}").fetchall()
    return rows, wrong


# --- Row by row, in SQL ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    """A row is wrong where `bad` is true; SQL over the table's columns, `k` and `c` (code lists of items)."""

    column: str
    code: Code
    bad: str


def _check_table(
    tables: duckdb.DuckDBPyConnection, folder: Path, table: Table, manifest: Manifest, limits: Limits
) -> tuple[int, list[tuple[Finding, int]]]:
    """How many rows are tombstones, and what is wrong with which rows."""
    deletes = _number(tables, f"select count(*) from {_rows_of(folder, table)} where op = 'delete'")
    by_row = _check_rows(tables, folder, table, manifest, limits)
    return deletes, by_row + _check_across_rows(tables, folder, table, limits)


def _check_rows(
    tables: duckdb.DuckDBPyConnection, folder: Path, table: Table, manifest: Manifest, limits: Limits
) -> list[tuple[Finding, int]]:
    rules = list(_rules(table, manifest))
    source = f"{_rows_of(folder, table)} t"
    if table == "items":
        source += " left join known_categories k on t.category = k.of_category" + _CODE_JOINS
    counted = ", ".join(f"count(*) filter (where {rule.bad})" for rule in rules)
    counts = tables.execute(f"select {counted} from {source}").fetchall()[0]
    found: list[tuple[Finding, int]] = []
    for rule, count in zip(rules, counts, strict=True):
        if count:
            query = f"select t.file_row_number + 1 from {source} where {rule.bad} order by 1 limit {limits.listed}"
            found += _listed(table, rule.column, rule.code, tables.execute(query).fetchall(), count)
    return found


_CODE_JOINS: Final = """
    left join known_codes c on k.of_category = c.of_category and t.code_system = c.of_system and t.code = c.of_code
    left join known_outcomes o on k.of_category = o.of_category and t.outcome_code = o.of_code
    left join denied_systems ds on t.code_system = ds.of_system
    left join denied_codes dc on t.code_system = dc.of_system and t.code = dc.of_code
    left join denied_systems dos on k.outcome_system = dos.of_system and t.outcome_code is not null
    left join denied_codes doc on k.outcome_system = doc.of_system and t.outcome_code = doc.of_code
"""


def _listed(
    table: Table, column: str, code: Code, rows: Sequence[tuple[Any, ...]], count: int
) -> list[tuple[Finding, int]]:
    """A finding a row; those beyond the cap are counted with the last."""
    weights = [1] * len(rows)
    weights[-1] += count - len(rows)
    return [(Finding(table, int(row[0]), column, code), weight) for row, weight in zip(rows, weights, strict=True)]


def _rules(table: Table, manifest: Manifest) -> Iterator[_Rule]:
    yield _Rule("op", "unknown_value", _not_in("op", OPS))
    if manifest.kind == "full":
        yield _Rule("op", "delete_in_full", "coalesce(op = 'delete', false)")
    day = date.fromisoformat(manifest.extracted_at[:10])
    rules = {"persons": _persons_rules, "relationships": _relationships_rules, "items": _items_rules}[table]
    for rule in rules(manifest, day):
        yield _Rule(rule.column, rule.code, f"op is distinct from 'delete' and ({rule.bad})")
    for column in {"persons": ("record_ref",), "relationships": ("ref_a",), "items": ("item_ref",)}[table]:
        yield _Rule(column, "bad_ref", _not_ref(column))  # of a tombstone too


def _persons_rules(manifest: Manifest, day: date) -> Iterator[_Rule]:
    yield _Rule("person_role", "unknown_value", _not_in("person_role", PERSON_ROLES))
    yield _Rule("shield", "unknown_value", _not_in("shield", SHIELDS))
    yield _Rule("sex", "unknown_value", f"sex is not null and {_not_in('sex', SEXES)}")
    yield _Rule("sever_ref", "bad_ref", f"sever_ref is not null and {_not_ref('sever_ref')}")
    for flag in QUALITY_FLAGS:
        yield _Rule(flag, "missing", f"{flag} is null")
    for name in FILTERS[cast("Profile", manifest.profile)]:
        *words, popcount = filter_columns(name)
        nulls = " + ".join(f"({column} is null)::integer" for column in (*words, popcount))
        bits = " + ".join(f"bit_count({word})" for word in words)
        yield _Rule(popcount, "incomplete_filter", f"({nulls}) not in (0, {len(words) + 1}) or {popcount} < 1")
        yield _Rule(popcount, "wrong_popcount", f"coalesce(0::integer + {bits} <> {popcount}, false)")
    yield _Rule("birth_year", "bad_date", f"birth_year is not null and birth_year not between 1880 and {day.year + 1}")
    yield from _period_rules("valid_from", "valid_to", day)


def _relationships_rules(manifest: Manifest, day: date) -> Iterator[_Rule]:
    yield _Rule("type", "unknown_value", _not_in("type", RELATIONSHIP_TYPES))
    yield _Rule("ref_b", "bad_ref", f"ref_b is not null and {_not_ref('ref_b')}")
    yield _Rule("verified", "missing", "verified is null")
    yield _Rule(
        "household",
        "bad_endpoint",  # a household's other end is its token, everyone else's a record
        "(type = 'household') is distinct from (household is not null) "
        "or (type = 'household') is distinct from (ref_b is null) or coalesce(ref_a = ref_b, false)",
    )
    yield from _period_rules("valid_from", "valid_to", day)


def _items_rules(manifest: Manifest, day: date) -> Iterator[_Rule]:
    yield _Rule("record_ref", "bad_ref", _not_ref("record_ref"))
    yield _Rule("category", "unknown_category", "k.of_category is null")
    yield _Rule("category", "never_ingest", "coalesce(k.never_ingest, false)")
    yield _Rule("code", "never_ingest", "ds.of_system is not null or dc.of_code is not null")
    yield _Rule("outcome_code", "never_ingest", "dos.of_system is not null or doc.of_code is not null")
    number_says_it = "(takes_number and number is not null)"
    yield _Rule("code", "missing", f"coalesce(k.listed, false) and code is null and not {number_says_it}")
    yield _Rule("code", "unknown_code", "coalesce(k.listed, false) and code is not null and c.of_code is null")
    yield _Rule("code", "code_not_expected", "coalesce(not k.listed, false) and code is not null")
    yield _Rule("code_system", "missing", "code is not null and code_system is null")
    yield _Rule("code_system", "code_not_expected", "code is null and code_system is not null")
    yield _Rule(
        "outcome_code",
        "unknown_code",
        "k.of_category is not null and outcome_code is not null and o.of_code is null "
        "and not coalesce(regexp_full_match(outcome_code, k.outcome_pattern), false)",
    )
    yield _Rule("number", "number_not_expected", "coalesce(not takes_number, false) and number is not null")
    yield _Rule("number", "missing", "coalesce(takes_number and not k.listed, false) and number is null")
    yield _Rule("number", "bad_number", "number is not null and (not isfinite(number) or number not between 0 and 1e9)")
    yield _Rule("occurred_on", "missing", "occurred_on is null")
    yield _Rule("recorded_on", "missing", "recorded_on is null")
    yield _Rule("recorded_on", "bad_date", _bad_date("recorded_on", day + timedelta(days=1)))
    yield from _period_rules("occurred_on", "ended_on", day)
    yield _Rule("role", "unknown_value", f"role is not null and {_not_in('role', ITEM_ROLES)}")
    yield _Rule("role", "missing", "role is null and coalesce(k.role_required, false)")
    yield _Rule("regime", "unknown_value", _not_in("regime", REGIMES))
    yield _Rule("opinion", "missing", "opinion is null")
    yield _Rule("contact_ref", "unknown_value", f"contact_ref is not null and {_unlike('contact_ref', CONTACT)}")
    yield _Rule("origin", "unknown_value", f"origin is not null and {_unlike('origin', ORGANISATION)}")
    yield _Rule("retain_until", "retention_over", f"retain_until is not null and retain_until < date '{day}'")
    yield _Rule("retain_until", "bad_date", _bad_date("retain_until", day + timedelta(days=366 * 120)))


SEXES: Final = ("F", "M", "I")


def _period_rules(start: str, end: str, day: date) -> Iterator[_Rule]:
    """A start at most a year ahead (a school place for September); an end not first, and within a long life."""
    yield _Rule(start, "bad_date", _bad_date(start, day + timedelta(days=366)))
    yield _Rule(end, "bad_date", _bad_date(end, day + timedelta(days=366 * 120)))
    yield _Rule(end, "bad_period", f"coalesce({end} < {start}, false)")


def _bad_date(column: str, latest: date) -> str:
    return f"{column} is not null and {column} not between date '1880-01-01' and date '{latest}'"


def _not_in(column: str, values: Sequence[str]) -> str:
    return f"coalesce({column} not in ({', '.join(repr(value) for value in values)}), true)"


def _not_ref(column: str) -> str:
    return _unlike(column, REF)


def _unlike(column: str, pattern: str) -> str:
    return f"not coalesce(regexp_full_match({column}, '{pattern}'), false)"


def _lend_codes(tables: duckdb.DuckDBPyConnection, codes: Codes) -> None:
    """The code lists as tables.  Their columns are named so that none can be mistaken for one of a batch."""
    categories = codes["categories"]
    kinds = {"of_category": pa.string(), "never_ingest": pa.bool_(), "takes_number": pa.bool_(), "listed": pa.bool_()}
    kinds |= {"outcome_pattern": pa.string(), "outcome_system": pa.string(), "role_required": pa.bool_()}
    rows = [
        {
            **entry,
            "of_category": name,
            "takes_number": entry["number"],
            "listed": entry["codes"] is not None,
        }
        for name, entry in categories.items()
    ]
    tables.register("known_categories", pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items()))))
    pairs = pa.schema([("of_category", pa.string()), ("of_system", pa.string()), ("of_code", pa.string())])

    def lend(name: str, found: Iterable[tuple[str | None, str | None, str | None]]) -> None:
        entries = [dict(zip(pairs.names, row, strict=True)) for row in found]
        tables.register(name, pa.Table.from_pylist(entries, schema=pairs))

    systems = [(name, entry["codes"] or {}) for name, entry in categories.items()]
    lend(
        "known_codes", ((name, of, code) for name, lists in systems for of, listed in lists.items() for code in listed)
    )
    lend(
        "known_outcomes", ((name, None, code) for name, entry in categories.items() for code in entry["outcomes"] or ())
    )
    lend("denied_systems", ((None, of, None) for of, listed in codes["denied"].items() if not listed))
    lend("denied_codes", ((None, of, code) for of, listed in codes["denied"].items() for code in listed))


# --- Across rows -----------------------------------------------------------------------------------------------------


def _check_across_rows(
    tables: duckdb.DuckDBPyConnection, folder: Path, table: Table, limits: Limits
) -> list[tuple[Finding, int]]:
    """Refs said twice, and refs that lead out of the batch.  A delta brings the person row of whatever it touches."""
    found: list[tuple[Finding, int]] = []
    for column, code, rows in _across(folder, table, limits):
        count = _number(tables, f"select count(*) from ({rows})")
        if count:
            first = tables.execute(f"select * from ({rows}) order by 1 limit {limits.listed}").fetchall()
            found += _listed(table, column, code, first, count)
    return found


def _across(folder: Path, table: Table, limits: Limits) -> Iterator[tuple[str, Code, str]]:
    """Column, code, and a query for the numbers of the rows that are wrong."""
    rows = _rows_of(folder, table)
    persons = _rows_of(folder, "persons")
    if table == "persons":
        tokens = ", ".join(f"id_{name}" for name in IDENTIFIERS)
        grouped: tuple[tuple[Code, str], ...] = (
            ("duplicate_ref", "bool_or(op = 'delete') and count(*) > 1"),
            ("inconsistent_record", "count(distinct person_role) > 1"),
            ("too_many_alternatives", f"count(*) > {limits.alternatives}"),
        )
        for code, wrong in grouped:
            yield "record_ref", code, _in_groups(rows, "record_ref", wrong)
        yield (
            "record_ref",
            "too_many_identifiers",
            f"select file_row_number + 1 from {rows} where record_ref in (select record_ref from "
            f"(select record_ref, unnest([{tokens}]) as token from {rows}) "
            f"group by record_ref having count(distinct token) > {limits.identifiers})",
        )
    if table == "relationships":
        for column in ("ref_a", "ref_b"):
            yield column, "unresolved_ref", _unresolved(rows, column, persons)
    if table == "items":
        yield "item_ref", "duplicate_ref", _in_groups(rows, "item_ref", "count(*) > 1")
        yield "record_ref", "unresolved_ref", _unresolved(rows, "record_ref", persons)


def _in_groups(rows: str, column: str, wrong: str) -> str:
    groups = f"select {column} from {rows} group by {column} having {wrong}"
    return f"select file_row_number + 1 from {rows} where {column} in ({groups})"


def _unresolved(rows: str, column: str, persons: str) -> str:
    return (
        f"select t.file_row_number + 1 from {rows} t where t.op = 'upsert' and t.{column} is not null "
        f"and not exists (select 1 from {persons} p where p.record_ref = t.{column} and p.op = 'upsert')"
    )
