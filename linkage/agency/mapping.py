"""`mapping.toml`: how an extract becomes a batch (design.md section 4).  Read strictly; an error names the key.

Beyond the example there, a mapping may say:

    max_bad_share = 0.01                    # of all rows; more bad rows than this and no batch is made
    persons.not_postcodes = ["NO1 1AA"]     # the agency's own offices: they stand for a missing postcode
    persons.columns.local_nominal = "..."   # a number for the person that several flows of this agency share
    relationships.may_be_empty = true       # also for a block of items: a file without rows is then no error
    items."...".code_system = "..."         # also role, regime, opinion, origin: the same for every row of the block
    [households]
    communal_over = 12                      # more people than this at one UPRN: communal, left out
    communal = ["100023336956"]             # UPRNs left out whatever their number

`items."<category>"` may be a list of blocks, each with a file of its own.  An item without `recorded_on` was recorded
on the day it occurred.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from linkage.agency import identifiers
from linkage.agency.people import PERSON_FIELDS
from linkage.records import ITEM_ROLES, PERSON_ROLES, REGIMES

PERSON_DATES: Final = ("date_of_birth", "valid_from", "valid_to")
PERSON_CODES: Final = ("sex", "dob_quality", "person_role", "shield", "deceased")
RELATIONSHIP_FIELDS: Final = ("local_id_a", "local_id_b", "type", "verified", "valid_from", "valid_to")
RELATIONSHIP_DATES: Final = ("valid_from", "valid_to")
RELATIONSHIP_CODES: Final = ("type", "verified")
ITEM_FIELDS: Final = (
    "local_id", "item_id", "code_system", "code", "number", "occurred_on", "recorded_on", "ended_on", "role", "regime",
    "opinion", "outcome_code", "contact", "origin", "retain_until",
)  # fmt: skip
ITEM_DATES: Final = ("occurred_on", "recorded_on", "ended_on", "retain_until")
ITEM_CODES: Final = ("code_system", "code", "role", "regime", "opinion", "outcome_code", "contact", "origin")
ITEM_CONSTANTS: Final = ("contact", "code_system", "role", "regime", "opinion", "origin")

_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_AGREEMENT: Final = re.compile(r"[a-z0-9][a-z0-9-]*@\d+(\.\d+)*")
_DAY_AND_MONTH: Final = re.compile(r"\d{2}-\d{2}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class BadMapping(ValueError):
    """A mapping can't be used: the message names the key, what is wrong and how to put it right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file, which of its columns is which field, the formats of its dates and its own codes in our words."""

    key: str  # where in the mapping it stands: "persons", 'items."education.attendance"'
    file: Path | None
    columns: Dict[str, str]  # canonical field -> the extract's column
    formats: Dict[str, str] = field(default_factory=dict)
    values: Dict[str, Dict[str, str]] = field(default_factory=dict)
    may_be_empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Persons(Source):
    """The one source that every mapping has."""

    role: str | None = "child"  # None: columns.person_role says
    duplicates: bool = False
    default_dates: frozenset[str] = frozenset()  # "MM-DD"
    not_postcodes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Items(Source):
    """One file of one category."""

    category: str
    constants: Dict[str, str] = field(default_factory=dict)  # what every row of the block has


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A mapping, valid once built.  `file`s are relative to its own folder."""

    agency: str
    flow: str
    agreements: tuple[str, ...]
    persons: Persons
    relationships: Source | None = None
    items: tuple[Items, ...] = ()
    max_bad_share: float = 0.01
    communal_over: int = 12
    communal: frozenset[str] = frozenset()  # standard UPRNs


def load(path: Path, *, persons_only: bool = False) -> Mapping:
    """Read a mapping.  With `persons_only` (evaluation) all but `[persons]` may be missing.

    Raises BadMapping.
    """
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BadMapping(f"{path}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise BadMapping(f"{path}: it is not UTF-8; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as problem:
        raise BadMapping(f"{path}: not TOML: {problem}") from None
    try:
        return _mapping(_Table(body, ""), path.parent, persons_only=persons_only)
    except BadMapping as problem:
        raise BadMapping(f"{path}: {problem}") from None


class _Table:
    """A TOML table that is read key by key; whatever is left over at the end is not known."""

    def __init__(self, body: Dict[str, Any], where: str) -> None:
        self.where = where
        self._body = dict(body)
        self._known: list[str] = []

    def key(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def take(self, name: str, kind: type | tuple[type, ...], due: str, default: Any = None) -> Any:
        """The value of a key, or `default`.  Raises BadMapping if it is of another type."""
        self._known.append(name)
        if name not in self._body:
            return default
        value = self._body.pop(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BadMapping(f"{self.key(name)}: {due} is due")
        return value

    def text(self, name: str, pattern: re.Pattern[str], due: str, default: str | None = None) -> str:
        value = self.take(name, str, due, default)
        if value is None:
            raise BadMapping(f"{self.key(name)} is missing: {due} is due")
        if value and not pattern.fullmatch(value):
            raise BadMapping(f"{self.key(name)}: {due} is due")
        return str(value)

    def texts(self, name: str, due: str) -> tuple[str, ...]:
        listed = self.take(name, list, due, [])
        if not all(isinstance(entry, str) for entry in listed):
            raise BadMapping(f"{self.key(name)}: {due} is due")
        return tuple(listed)

    def table(self, name: str, due: str = "a table") -> _Table:
        return _Table(self.take(name, dict, due, {}), self.key(name))

    def rest(self) -> dict[str, Any]:
        rest, self._body = self._body, {}
        return rest

    def end(self) -> None:
        """Raises BadMapping for a key that nobody asked for."""
        for name in self._body:
            raise BadMapping(f"{self.key(name)} is not a key known here{_near(name, self._known)}")


def _mapping(top: _Table, folder: Path, *, persons_only: bool) -> Mapping:
    empty = "" if persons_only else None
    agency = top.text("agency", _ID, "the agency's id, such as 'northshire-council',", empty)
    flow = top.text("flow", _ID, "the flow's id, such as 'education',", empty)
    agreements = top.texts("agreements", "a list of agreements, such as ['northshire-mash@3.0.0'],")
    for reference in agreements:
        if not _AGREEMENT.fullmatch(reference):
            raise BadMapping("agreements: each is an id, @ and a version, such as 'northshire-mash@3.0.0'")
    if not agreements and not persons_only:
        raise BadMapping("agreements is missing: name at least one, such as ['northshire-mash@3.0.0']")
    share = top.take("max_bad_share", (int, float), "a share from 0 to 1", 0.01)
    if not 0 <= share <= 1:
        raise BadMapping("max_bad_share: a share from 0 to 1 is due")
    households = top.table("households")
    over = households.take("communal_over", int, "a whole number", 12)
    if over < 1:
        raise BadMapping("households.communal_over: 1 or more is due")
    communal = [identifiers.uprn(entry) for entry in households.texts("communal", "a list of UPRNs as strings")]
    if any(entry.value is None for entry in communal):
        raise BadMapping("households.communal: each is a UPRN of at most 12 digits, as a string")
    households.end()
    persons = _persons(top.take("persons", dict, "a table"), folder, persons_only=persons_only)
    relationships = top.take("relationships", dict, "a table")
    items = top.take("items", dict, "a table with a block a category")
    top.end()
    return Mapping(
        agency=agency,
        flow=flow,
        agreements=agreements,
        persons=persons,
        relationships=None if relationships is None else _relationships(relationships, folder),
        items=tuple(_all_items(items or {}, folder)),
        max_bad_share=float(share),
        communal_over=over,
        communal=frozenset(entry.value for entry in communal if entry.value),
    )


def _persons(body: Dict[str, Any] | None, folder: Path, *, persons_only: bool) -> Persons:
    if body is None:
        raise BadMapping("[persons] is missing: it says which file holds the people and which column is what")
    table = _Table(body, "persons")
    role = table.take("role", str, f"one of {', '.join(PERSON_ROLES)}")
    if role is not None and role not in PERSON_ROLES:
        raise BadMapping(f"persons.role: one of {', '.join(PERSON_ROLES)} is due")
    duplicates = table.take("duplicates", bool, "true or false", default=False)
    defaults = table.texts("default_date", "a list of days and months such as ['01-01']")
    for day in defaults:
        if not _DAY_AND_MONTH.fullmatch(day) or not _is_real(f"2000-{day}"):
            raise BadMapping("persons.default_date: each is a month and a day, such as '01-01'")
    offices = table.texts("not_postcodes", "a list of postcodes")
    columns = _columns(table, PERSON_FIELDS, required=() if persons_only else ("local_id",))
    if role and "person_role" in columns:
        raise BadMapping("persons.role and persons.columns.person_role exclude each other: leave one out")
    source = Persons(
        key="persons",
        file=_file(table, folder, required=not persons_only),
        columns=columns,
        formats=_formats(table, PERSON_DATES, columns),
        values=_values(table, PERSON_CODES, columns),
        role=role or (None if "person_role" in columns else "child"),
        duplicates=duplicates,
        default_dates=frozenset(defaults),
        not_postcodes=frozenset(offices),
    )
    table.end()
    return source


def _relationships(body: Dict[str, Any], folder: Path) -> Source:
    table = _Table(body, "relationships")
    columns = _columns(table, RELATIONSHIP_FIELDS, required=("local_id_a", "local_id_b", "type"))
    source = Source(
        key="relationships",
        file=_file(table, folder, required=True),
        columns=columns,
        formats=_formats(table, RELATIONSHIP_DATES, columns),
        values=_values(table, RELATIONSHIP_CODES, columns),
        may_be_empty=table.take("may_be_empty", bool, "true or false", default=False),
    )
    table.end()
    return source


def _all_items(body: Dict[str, Any], folder: Path) -> Iterable[Items]:
    for category, blocks in body.items():
        where = f'items."{category}"'
        if isinstance(blocks, dict):
            yield _items(blocks, category, where, folder)
        elif isinstance(blocks, list) and blocks and all(isinstance(block, dict) for block in blocks):
            for at, block in enumerate(blocks):
                yield _items(block, category, f"{where}[{at}]", folder)
        else:
            raise BadMapping(f"{where}: a block, or a list of blocks, is due")


def _items(body: Dict[str, Any], category: str, where: str, folder: Path) -> Items:
    if "." not in category:
        raise BadMapping(f'{where}: write the category in quotes, as in [items."education.attendance"]')
    table = _Table(body, where)
    constants = _constants(table)
    columns = _columns(table, ITEM_FIELDS, required=("local_id", "occurred_on"))
    for name in constants:
        if name in columns:
            raise BadMapping(f"{where}.{name} and {where}.columns.{name} exclude each other: leave one out")
    source = Items(
        key=where,
        category=category,
        file=_file(table, folder, required=True),
        columns=columns,
        formats=_formats(table, ITEM_DATES, columns),
        values=_values(table, ITEM_CODES, columns),
        may_be_empty=table.take("may_be_empty", bool, "true or false", default=False),
        constants=constants,
    )
    table.end()
    return source


def _constants(table: _Table) -> dict[str, str]:
    closed = {"role": ITEM_ROLES, "regime": REGIMES}
    constants: dict[str, str] = {}
    for name in ITEM_CONSTANTS:
        if name == "opinion":
            value = table.take(name, bool, "true or false")
            if value is not None:
                constants[name] = "true" if value else "false"
            continue
        value = table.take(name, str, "text")
        if value is None:
            continue
        if name in closed and value not in closed[name]:
            raise BadMapping(f"{table.key(name)}: one of {', '.join(closed[name])} is due")
        if name not in closed and not _NAME.fullmatch(value):
            raise BadMapping(f"{table.key(name)}: lower-case letters, digits, '-' and '_' are due")
        constants[name] = value
    return constants


def _file(table: _Table, folder: Path, *, required: bool) -> Path | None:
    name = table.take("file", str, "a file name")
    if name is None and required:
        raise BadMapping(f"{table.key('file')} is missing: name a CSV or Parquet file, relative to the mapping")
    return None if name is None else folder / name


def _columns(table: _Table, known: tuple[str, ...], *, required: tuple[str, ...]) -> dict[str, str]:
    columns = table.table("columns", "a table of our fields and the extract's columns")
    found: dict[str, str] = {}
    for name, column in columns.rest().items():
        if name not in known:
            raise BadMapping(f"{columns.key(name)} is not a field known here{_near(name, known)}")
        if not isinstance(column, str) or not column:
            raise BadMapping(f"{columns.key(name)}: the name of a column is due")
        found[name] = column
    for name in required:
        if name not in found:
            raise BadMapping(f"{columns.key(name)} is missing: name the column that holds it")
    return found


def _formats(table: _Table, dates: tuple[str, ...], columns: Dict[str, str]) -> dict[str, str]:
    formats = table.table("formats", "a table of date formats")
    found: dict[str, str] = {}
    for name, written in formats.rest().items():
        if name not in dates or name not in columns:
            due = [date_field for date_field in dates if date_field in columns]
            raise BadMapping(f"{formats.key(name)}: formats are for the mapped dates: {', '.join(due) or 'none here'}")
        if not isinstance(written, str) or not _is_format(written):
            raise BadMapping(f"{formats.key(name)}: a format with day, month and year is due, such as '%d/%m/%Y'")
        found[name] = written
    return found


def _values(table: _Table, coded: tuple[str, ...], columns: Dict[str, str]) -> dict[str, dict[str, str]]:
    values = table.table("values", "a table a field")
    found: dict[str, dict[str, str]] = {}
    for name, codes in values.rest().items():
        if name not in coded or name not in columns:
            due = [coded_field for coded_field in coded if coded_field in columns]
            raise BadMapping(f"{values.key(name)}: values are for mapped codes: {', '.join(due) or 'none here'}")
        if not isinstance(codes, dict) or not all(isinstance(code, str) for code in codes.values()):
            raise BadMapping(f"{values.key(name)}: a table from the source's codes to ours is due")
        found[name] = dict(codes)
    return found


def _is_real(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_format(written: str) -> bool:
    """Whether a date survives being written and read in this format."""
    day = datetime(2017, 11, 23)  # noqa: DTZ001 - a format is tried on it, no more
    try:
        return datetime.strptime(day.strftime(written), written) == day  # noqa: DTZ007
    except ValueError:
        return False


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; is {close[0]!r} meant?" if close else f"; known are {', '.join(known)}"
