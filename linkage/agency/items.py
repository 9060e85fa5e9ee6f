"""The items of a batch: a row passes its category's code lists or is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from re import fullmatch
from typing import Any, Final

import pyarrow as pa

from linkage.agency.codes import CategoryCodes, Codes
from linkage.agency.keys import keyed_hex
from linkage.agency.mapping import Items
from linkage.agency.people import Finding
from linkage.agency.rows import (
    LONGEST_LIFE,
    Sheet,
    a_date,
    a_period,
    check_person,
    error,
    matching,
    one_of,
    truth,
    wire_table,
)  # fmt: skip
from linkage.records import ITEM_ROLES, ITEMS_SCHEMA, REGIMES

LARGEST_NUMBER: Final = 1e6

_CONTACT: Final = "[a-z0-9][a-z0-9_-]{0,63}"
_ORGANISATION: Final = "[a-z0-9][a-z0-9-]{0,63}"


def items(
    source: Items,
    sheet: Sheet,
    refs: Mapping[str, str],
    left_out: frozenset[str],
    codes: Codes,
    *,
    flow: str,
    record_key: bytes,
    today: date,
) -> list[tuple[Any, ...]]:
    """Rows of ITEMS_SCHEMA of one file: a row passes its category's code lists or is left out."""
    lists = codes.categories[source.category]
    constants, iso = source.constants, "%Y-%m-%d"
    ids = sheet.texts("local_id")
    systems, values = _codes(sheet, source, codes)
    numbers = sheet.parsed("number", _number)
    occurred, ended = a_period(sheet, "occurred_on", "ended_on", source.formats, today)
    latest = today + timedelta(days=1)
    recorded = sheet.parsed("recorded_on", a_date("recorded_on", source.formats.get("recorded_on", iso), latest))
    retain = sheet.parsed(
        "retain_until", a_date("retain_until", source.formats.get("retain_until", iso), today + LONGEST_LIFE)
    )
    default_role = constants.get("role", None if lists.role_required else "subject")
    roles = sheet.parsed("role", one_of("role", ITEM_ROLES), default_role)
    regimes = sheet.parsed("regime", one_of("regime", REGIMES, upper=True), constants.get("regime", "GENERAL"))
    opinions = sheet.parsed("opinion", truth("opinion"), constants.get("opinion") == "true")
    outcomes = sheet.parsed("outcome_code", _outcome(source, codes))
    contacts = sheet.parsed(
        "contact", matching("contact", _CONTACT, "the id of a registered contact is due"), constants.get("contact")
    )
    origins = sheet.parsed(
        "origin", matching("origin", _ORGANISATION, "the id of an organisation is due"), constants.get("origin")
    )
    item_ids = sheet.texts("item_id")
    seen: set[tuple[Any, ...]] = set()
    nth: Counter[tuple[str, ...]] = Counter()
    rows: list[tuple[Any, ...]] = []
    for row in range(sheet.raw.num_rows):
        check_person(sheet, row, "local_id", ids[row], refs, left_out)
        if not sheet.good[row]:
            continue
        number, last_day = numbers[row], retain[row]
        if occurred[row] is None:
            sheet.error(row, "occurred_on", "missing", "every item needs the date on which it occurred")
        _check_number(sheet, row, number, lists)
        if roles[row] is None:
            sheet.error(row, "role", "missing", "this category is never sent without the person's role in it")
        if last_day is not None and last_day < today:
            hint = "its retention is over; the source should have deleted it"
            sheet.error(row, "retain_until", "retention_over", hint, counted=False)
        if not sheet.good[row]:
            continue
        local_id = ids[row] or ""
        # A source that keeps no such date: the day it occurred, so that the same row is the same item every night.
        recorded_on = recorded[row] or min(occurred[row] or today, today)
        said = (
            source.category, systems[row], values[row], number, occurred[row], recorded_on, ended[row], roles[row],
            regimes[row], opinions[row], outcomes[row], contacts[row], origins[row], last_day,
        )  # fmt: skip
        if (local_id, item_ids[row], *said) in seen:
            finding = Finding(field="local_id", code="repeated_row", hint="the same row was there", severity="warning")
            sheet.find(row, finding)
            continue
        seen.add((local_id, item_ids[row], *said))
        # What an item is does not change when it ends or gets an outcome: so its reference does not either.
        stable = [source.category, systems[row], values[row], occurred[row], roles[row], regimes[row], origins[row]]
        identity = (local_id, item_ids[row] or "", *("" if part is None else str(part) for part in stable))
        ref = keyed_hex(record_key, "item", flow, *identity, str(nth[identity]))
        nth[identity] += 1
        rows.append(("upsert", ref, refs[local_id], *said))
    return rows


def items_table(rows: Iterable[tuple[Any, ...]]) -> pa.Table:
    """Rows as the wire's table, in an order that says nothing."""
    return wire_table(sorted(rows, key=lambda row: row[1]), ITEMS_SCHEMA)


def _check_number(sheet: Sheet, row: int, number: float | None, lists: CategoryCodes) -> None:
    if number is not None and not lists.number:
        sheet.error(row, "number", "number_not_expected", "this category has no number")
    if number is None and lists.number and lists.codes is None:
        sheet.error(row, "number", "missing", "this category needs a number")


def _codes(sheet: Sheet, source: Items, codes: Codes) -> tuple[list[str | None], list[str | None]]:
    """Code system and code of each row, each distinct pair looked up once."""
    made: dict[tuple[str | None, str | None], tuple[str | None, Finding | None]] = {}
    systems: list[str | None] = []
    values = sheet.texts("code")
    constant = source.constants.get("code_system")
    for row, (given, code) in enumerate(zip(sheet.texts("code_system"), values, strict=True)):
        key = (given or constant, code)
        if key not in made:
            made[key] = _code(source, codes, *key)
        system, finding = made[key]
        if finding is not None:
            sheet.find(row, finding)
        systems.append(system)
    return systems, values


def _code(  # noqa: PLR0911 - a list of cases, in the order in which they count
    source: Items, codes: Codes, system: str | None, code: str | None
) -> tuple[str | None, Finding | None]:
    lists = codes.categories[source.category]
    listed = lists.codes or {}
    if code is None:
        finding = error("code", "missing", "a code of this category's lists is due")
        return None, None if not listed or lists.number else finding
    if any(codes.is_denied(one, code) for one in ([system] if system else listed)):
        return None, error(
            "code", "never_ingest", "this code is never sent: tell the data steward, and mend the extract"
        )
    if not listed:
        return None, error("code", "code_not_expected", "this category has no code")
    if system is None:
        found = codes.systems_of(source.category, code)
        if len(found) > 1:
            hint = f"it is in {', '.join(found)}: map columns.code_system or set code_system"
            return None, error("code", "ambiguous_code", hint)
        system = found[0] if found else None
    if system is not None and system not in listed:
        return None, error("code_system", "unknown_system", f"one of {', '.join(listed)} is due")
    if system is None or code not in listed[system]:
        hint = f"a code of {', '.join(listed)} is due; say under values.code what the source's code means"
        return None, error("code", "unknown_code", hint)
    return system, None


def _outcome(source: Items, codes: Codes) -> Callable[[str], str | Finding]:
    lists = codes.categories[source.category]

    def parse(text: str) -> str | Finding:
        if lists.outcome_system and codes.is_denied(lists.outcome_system, text):
            hint = "this code is never sent: tell the data steward, and mend the extract"
            return error("outcome_code", "never_ingest", hint)
        if lists.outcomes is not None and text in lists.outcomes:
            return text
        if lists.outcome_pattern is not None and lists.outcome_pattern.fullmatch(text):
            return text
        if lists.outcomes is None and lists.outcome_pattern is None:
            return error("outcome_code", "outcome_not_expected", "this category has no outcome code")
        return error("outcome_code", "unknown_code", "a code of this category's outcomes is due")

    return parse


def _number(text: str) -> float | Finding:
    if fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?%?", text) and (number := float(text.rstrip("%"))) <= LARGEST_NUMBER:
        return number
    return error("number", "bad_number", f"a plain number from 0 to {LARGEST_NUMBER:.0f} is due")
