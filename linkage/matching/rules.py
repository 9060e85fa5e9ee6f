"""When a row of a batch is wrong, as SQL: the wire format's rules, and the code lists that agencies encode with.

Each rule is a predicate over one row, or a query across rows; `linkage.matching.intake` runs them in its locked DuckDB.
"""
# ruff: noqa: S608  (every query is made of this module's constants and what `intake` says of its own files)

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, TypedDict, cast

import duckdb
import pyarrow as pa

from linkage.matching.findings import Code, Limits
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
    Manifest,
    Profile,
    Table,
    filter_columns,
)

REF: Final = "[0-9a-f]{16,64}"
"""A keyed token as agencies write it: hex only, so that no name can pass for one."""
CONTACT: Final = "[a-z0-9][a-z0-9_-]{0,63}"
ORGANISATION: Final = "[a-z0-9][a-z0-9-]{0,63}"
SEXES: Final = ("F", "M", "I")


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


@dataclass(frozen=True, slots=True)
class Rule:
    """A row is wrong where `bad` is true; SQL over the table's columns, `k` and `c` (code lists of items)."""

    column: str
    code: Code
    bad: str


CODE_JOINS: Final = """
    left join known_codes c on k.of_category = c.of_category and t.code_system = c.of_system and t.code = c.of_code
    left join known_outcomes o on k.of_category = o.of_category and t.outcome_code = o.of_code
    left join denied_systems ds on t.code_system = ds.of_system
    left join denied_codes dc on t.code_system = dc.of_system and t.code = dc.of_code
    left join denied_systems dos on k.outcome_system = dos.of_system and t.outcome_code is not null
    left join denied_codes doc on k.outcome_system = doc.of_system and t.outcome_code = doc.of_code
"""


def rules_of(table: Table, manifest: Manifest) -> Iterator[Rule]:
    """The rules of one table's rows, under what its manifest says of kind and date."""
    yield Rule("op", "unknown_value", _not_in("op", OPS))
    if manifest.kind == "full":
        yield Rule("op", "delete_in_full", "coalesce(op = 'delete', false)")
    day = date.fromisoformat(manifest.extracted_at[:10])
    rules = {"persons": _persons_rules, "relationships": _relationships_rules, "items": _items_rules}[table]
    for rule in rules(manifest, day):
        yield Rule(rule.column, rule.code, f"op is distinct from 'delete' and ({rule.bad})")
    for column in {"persons": ("record_ref",), "relationships": ("ref_a",), "items": ("item_ref",)}[table]:
        yield Rule(column, "bad_ref", _not_ref(column))  # of a tombstone too


def _persons_rules(manifest: Manifest, day: date) -> Iterator[Rule]:
    yield Rule("person_role", "unknown_value", _not_in("person_role", PERSON_ROLES))
    yield Rule("shield", "unknown_value", _not_in("shield", SHIELDS))
    yield Rule("sex", "unknown_value", f"sex is not null and {_not_in('sex', SEXES)}")
    yield Rule("sever_ref", "bad_ref", f"sever_ref is not null and {_not_ref('sever_ref')}")
    for flag in QUALITY_FLAGS:
        yield Rule(flag, "missing", f"{flag} is null")
    for name in FILTERS[cast("Profile", manifest.profile)]:
        *words, popcount = filter_columns(name)
        nulls = " + ".join(f"({column} is null)::integer" for column in (*words, popcount))
        bits = " + ".join(f"bit_count({word})" for word in words)
        yield Rule(popcount, "incomplete_filter", f"({nulls}) not in (0, {len(words) + 1}) or {popcount} < 1")
        yield Rule(popcount, "wrong_popcount", f"coalesce(0::integer + {bits} <> {popcount}, false)")
    yield Rule("birth_year", "bad_date", f"birth_year is not null and birth_year not between 1880 and {day.year + 1}")
    yield from _period_rules("valid_from", "valid_to", day)


def _relationships_rules(manifest: Manifest, day: date) -> Iterator[Rule]:
    yield Rule("type", "unknown_value", _not_in("type", RELATIONSHIP_TYPES))
    yield Rule("ref_b", "bad_ref", f"ref_b is not null and {_not_ref('ref_b')}")
    yield Rule("verified", "missing", "verified is null")
    yield Rule(
        "household",
        "bad_endpoint",  # a household's other end is its token, everyone else's a record
        "(type = 'household') is distinct from (household is not null) "
        "or (type = 'household') is distinct from (ref_b is null) or coalesce(ref_a = ref_b, false)",
    )
    yield from _period_rules("valid_from", "valid_to", day)


def _items_rules(manifest: Manifest, day: date) -> Iterator[Rule]:
    yield Rule("record_ref", "bad_ref", _not_ref("record_ref"))
    yield Rule("category", "unknown_category", "k.of_category is null")
    yield Rule("category", "never_ingest", "coalesce(k.never_ingest, false)")
    yield Rule("code", "never_ingest", "ds.of_system is not null or dc.of_code is not null")
    yield Rule("outcome_code", "never_ingest", "dos.of_system is not null or doc.of_code is not null")
    number_says_it = "(takes_number and number is not null)"
    yield Rule("code", "missing", f"coalesce(k.listed, false) and code is null and not {number_says_it}")
    yield Rule("code", "unknown_code", "coalesce(k.listed, false) and code is not null and c.of_code is null")
    yield Rule("code", "code_not_expected", "coalesce(not k.listed, false) and code is not null")
    yield Rule("code_system", "missing", "code is not null and code_system is null")
    yield Rule("code_system", "code_not_expected", "code is null and code_system is not null")
    yield Rule(
        "outcome_code",
        "unknown_code",
        "k.of_category is not null and outcome_code is not null and o.of_code is null "
        "and not coalesce(regexp_full_match(outcome_code, k.outcome_pattern), false)",
    )
    yield Rule("number", "number_not_expected", "coalesce(not takes_number, false) and number is not null")
    yield Rule("number", "missing", "coalesce(takes_number and not k.listed, false) and number is null")
    yield Rule("number", "bad_number", "number is not null and (not isfinite(number) or number not between 0 and 1e9)")
    yield Rule("occurred_on", "missing", "occurred_on is null")
    yield Rule("recorded_on", "missing", "recorded_on is null")
    yield Rule("recorded_on", "bad_date", _bad_date("recorded_on", day + timedelta(days=1)))
    yield from _period_rules("occurred_on", "ended_on", day)
    yield Rule("role", "unknown_value", f"role is not null and {_not_in('role', ITEM_ROLES)}")
    yield Rule("role", "missing", "role is null and coalesce(k.role_required, false)")
    yield Rule("regime", "unknown_value", _not_in("regime", REGIMES))
    yield Rule("opinion", "missing", "opinion is null")
    yield Rule("contact_ref", "unknown_value", f"contact_ref is not null and {_unlike('contact_ref', CONTACT)}")
    yield Rule("origin", "unknown_value", f"origin is not null and {_unlike('origin', ORGANISATION)}")
    yield Rule("retain_until", "retention_over", f"retain_until is not null and retain_until < date '{day}'")
    yield Rule("retain_until", "bad_date", _bad_date("retain_until", day + timedelta(days=366 * 120)))


def _period_rules(start: str, end: str, day: date) -> Iterator[Rule]:
    """A start at most a year ahead (a school place for September); an end not first, and within a long life."""
    yield Rule(start, "bad_date", _bad_date(start, day + timedelta(days=366)))
    yield Rule(end, "bad_date", _bad_date(end, day + timedelta(days=366 * 120)))
    yield Rule(end, "bad_period", f"coalesce({end} < {start}, false)")


def _bad_date(column: str, latest: date) -> str:
    return f"{column} is not null and {column} not between date '1880-01-01' and date '{latest}'"


def _not_in(column: str, values: Sequence[str]) -> str:
    return f"coalesce({column} not in ({', '.join(repr(value) for value in values)}), true)"


def _not_ref(column: str) -> str:
    return _unlike(column, REF)


def _unlike(column: str, pattern: str) -> str:
    return f"not coalesce(regexp_full_match({column}, '{pattern}'), false)"


def lend_codes(tables: duckdb.DuckDBPyConnection, codes: Codes) -> None:
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


@dataclass(frozen=True, slots=True)
class Across:
    """What must hold from row to row: `wrong` asks for the numbers of the rows where it does not.

    `any_at_all` asks whether it can fail anywhere: it is quick, several share it, and where it finds no row nor does
    `wrong`.
    """

    column: str
    code: Code
    any_at_all: str
    wrong: str


def across(table: Table, files: Mapping[Table, str], limits: Limits) -> Iterator[Across]:
    """What must hold across a table's rows; `files`: what SQL reads each table from."""
    rows = files[table]
    if table == "persons":
        grouped: tuple[tuple[Code, str], ...] = (
            ("duplicate_ref", "bool_or(op = 'delete') and count(*) > 1"),
            ("inconsistent_record", "count(distinct person_role) > 1"),
            ("too_many_alternatives", f"count(*) > {limits.alternatives}"),
        )
        for code, wrong in grouped:
            yield Across("record_ref", code, _repeated(rows, "record_ref"), _in_groups(rows, "record_ref", wrong))
        # one row alone has not more of them than there are columns
        among = _repeated(rows, "record_ref") if limits.identifiers >= len(IDENTIFIERS) else "select true"
        yield Across("record_ref", "too_many_identifiers", among, _over_identified(rows, limits))
    if table == "relationships":
        for column in ("ref_a", "ref_b"):
            yield Across(column, "unresolved_ref", _any_unresolved(files), _unresolved(rows, column, files["persons"]))
    if table == "items":
        refs = _in_groups(rows, "item_ref", "count(*) > 1")
        yield Across("item_ref", "duplicate_ref", _repeated(rows, "item_ref"), refs)
        wrong = _unresolved(rows, "record_ref", files["persons"])
        yield Across("record_ref", "unresolved_ref", _any_unresolved(files), wrong)


def _repeated(rows: str, column: str) -> str:
    return f"select true from {rows} group by {column} having count(*) > 1 limit 1"


def _in_groups(rows: str, column: str, wrong: str) -> str:
    groups = f"select {column} from {rows} group by {column} having {wrong}"
    return f"select file_row_number + 1 from {rows} where {column} in ({groups})"


def _over_identified(rows: str, limits: Limits) -> str:
    tokens = ", ".join(f"id_{name}" for name in IDENTIFIERS)
    return (
        f"select file_row_number + 1 from {rows} where record_ref in (select record_ref from "
        f"(select record_ref, unnest([{tokens}]) as token from {rows}) "
        f"group by record_ref having count(distinct token) > {limits.identifiers})"
    )


def _any_unresolved(files: Mapping[Table, str]) -> str:
    ends: tuple[tuple[Table, str], ...] = (
        ("relationships", "ref_a"),
        ("relationships", "ref_b"),
        ("items", "record_ref"),
    )
    refs = " union all ".join(f"select {column} as ref, op from {files[table]}" for table, column in ends)
    return (
        f"select true from ({refs}) t where t.op = 'upsert' and t.ref is not null "
        f"and not exists (select 1 from {files['persons']} p where p.record_ref = t.ref and p.op = 'upsert') limit 1"
    )


def _unresolved(rows: str, column: str, persons: str) -> str:
    return (
        f"select t.file_row_number + 1 from {rows} t where t.op = 'upsert' and t.{column} is not null "
        f"and not exists (select 1 from {persons} p where p.record_ref = t.{column} and p.op = 'upsert')"
    )
