"""The wire format: what a batch holds, and nothing else.

A batch is a manifest and three Parquet tables (`persons`, `relationships`, `items`), joined only by an agency's own
`record_ref`.  Both sides of the trust boundary read this module, so it holds no key, makes no digest, and knows no
person: agencies write these columns, the broker refuses any other.

Filters are 512 bits in eight little-endian 64-bit words (two's complement) with their popcount; a token is the first
eight bytes of a keyed MAC, little-endian, signed.  Null means missing, and is never a constant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

import pyarrow as pa
import rfc8785

SCHEMA: Final = "batch-1"
MANIFEST_MEDIA_TYPE: Final = "application/vnd.safeguarding-broker.manifest.v1+json"
TABLE_MEDIA_TYPE: Final = "application/vnd.apache.parquet"
FILTER_BITS: Final = 512
FILTER_WORDS: Final = FILTER_BITS // 64

Profile = Literal["guarded-3", "accurate-2"]
Table = Literal["persons", "relationships", "items"]
TABLES: Final[tuple[Table, ...]] = get_args(Table)
PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)

FILTERS: Final[Mapping[Profile, tuple[str, ...]]] = {
    "guarded-3": ("given_d", "given_p", "family_d", "family_p", "dob_p", "postcode_d"),
    "accurate-2": ("given", "family", "dob", "postcode"),
}
"""The filters of one row: of each field, salted by date of birth (`_d`), by postcode and the first letters of the names
(`_p`), or unsalted."""

_DATED: Final = ("dob_given", "dob_family", "dob_sector")
_WIDE: Final = (
    "soundex_pair", "family_year", "given_year", "family_daymonth", "given_daymonth",
    "postcode_given1", "postcode_family1",
    "given_soundex", "family_soundex", "given_initial", "family_initial",
)  # fmt: skip
_ALIKE: Final = ("dob_family_given1", "postcode_family_given1", "dob_given_family1", "postcode_given_family1")
_NUMBERED: Final = ("given_name_n", "family_name_n", "dob_n", "given_name_u", "family_name_u", "dob_u")
TOKENS: Final[Mapping[Profile, tuple[str, ...]]] = {
    "guarded-3": (
        "given_name_d", "given_name_p", "family_name_d", "family_name_p", *_DATED, *_ALIKE, *_NUMBERED,
    ),
    "accurate-2": (
        "given_name", "family_name", "dob", "postcode",
        "dob_given", "dob_family", "postcode_given", "postcode_family", "dob_sector", *_WIDE,
    ),
}  # fmt: skip
"""Equality and blocking tokens; in the table their columns are `t_<name>`.

Under `guarded` each is of at least two fields, one of them a date of birth, a postcode or (`_n`, `_u`) an NHS number or
UPN that salts it: no token or filter says by itself that two people share a name, a birthday or a postcode.  None is of
a postcode without something of both names: no token or filter is a whole family's.
"""

IDENTIFIERS: Final = ("nhs_number", "superseded_nhs_number", "upn", "former_upn", "pnc", "cro", "uln", "local")
"""Exact-match tokens of identifiers; in the table their columns are `id_<name>`."""

PERSON_ROLES: Final = ("child", "parent", "carer", "other")
SHIELDS: Final = ("none", "address", "full")
RELATIONSHIP_TYPES: Final = (
    "birth_parent", "step_parent", "carer", "sibling", "household", "partner", "parental_responsibility",
)  # fmt: skip
ITEM_ROLES: Final = ("subject", "victim", "suspect", "witness", "parent")
REGIMES: Final = ("GENERAL", "LE")
QUALITY_FLAGS: Final = ("q_default_dob", "q_baby_name", "q_bad_identifier", "q_no_postcode")
OPS: Final = ("upsert", "delete")


GROWN_UP: Final = 25  # years: the age to which a person may be served as a child or care leaver


def told_year(year: int, this_year: int) -> int:
    """The year of birth that leaves an agency: of one long grown up the first of the decade.

    Who lives together is known by years of birth, so none is told more closely than a view needs.

    >>> told_year(2012, 2026), told_year(1987, 2026)
    (2012, 1980)
    """
    return year if year > this_year - GROWN_UP else year - year % 10


def latest_birth(told: int, this_year: int) -> int:
    """The last year that a told one may stand for.

    >>> latest_birth(2012, 2026), latest_birth(1980, 2026), latest_birth(2000, 2026)
    (2012, 1989, 2001)
    """
    return told if told % 10 or told > this_year - GROWN_UP else min(told + 9, this_year - GROWN_UP)


def filter_columns(name: str) -> tuple[str, ...]:
    """The nine columns of one filter: `<name>_w0` .. `<name>_w7`, then its popcount `<name>_n`."""
    return (*(f"{name}_w{word}" for word in range(FILTER_WORDS)), f"{name}_n")


def persons_schema(profile: Profile) -> pa.Schema:
    """Columns of `persons`, one row a record and alternative (known-as, former surname, earlier address)."""
    columns: list[tuple[str, pa.DataType]] = [
        ("op", pa.string()),
        ("record_ref", pa.string()),
        ("person_role", pa.string()),
    ]
    for name in FILTERS[profile]:
        columns += [(column, pa.int64()) for column in filter_columns(name)[:-1]]
        columns.append((f"{name}_n", pa.int32()))
    columns += [(f"t_{token}", pa.int64()) for token in TOKENS[profile]]
    columns += [(f"id_{identifier}", pa.int64()) for identifier in IDENTIFIERS]
    columns += [(flag, pa.bool_()) for flag in QUALITY_FLAGS]
    columns += [
        ("birth_year", pa.int32()),
        ("sex", pa.string()),
        ("shield", pa.string()),
        ("sever_ref", pa.string()),
        ("deceased", pa.bool_()),
        ("valid_from", pa.date32()),
        ("valid_to", pa.date32()),
    ]
    return pa.schema(columns)


RELATIONSHIPS_SCHEMA: Final = pa.schema(
    [
        ("op", pa.string()),
        ("ref_a", pa.string()),
        ("ref_b", pa.string()),  # null for `household`, whose other end is the token
        ("household", pa.int64()),  # keyed UPRN token; only for `household`, never a communal address
        ("type", pa.string()),  # ref_a is the <type> of ref_b: birth_parent, carer, sibling ...
        ("verified", pa.bool_()),
        ("valid_from", pa.date32()),
        ("valid_to", pa.date32()),
    ]
)

ITEMS_SCHEMA: Final = pa.schema(
    [
        ("op", pa.string()),
        ("item_ref", pa.string()),
        ("record_ref", pa.string()),
        ("category", pa.string()),
        ("code_system", pa.string()),
        ("code", pa.string()),
        ("number", pa.float64()),
        ("occurred_on", pa.date32()),
        ("recorded_on", pa.date32()),
        ("ended_on", pa.date32()),
        ("role", pa.string()),
        ("regime", pa.string()),
        ("opinion", pa.bool_()),  # false: a fact
        ("outcome_code", pa.string()),
        ("contact_ref", pa.string()),
        ("origin", pa.string()),
        ("retain_until", pa.date32()),
    ]
)


def schema_of(table: Table, profile: Profile) -> pa.Schema:
    """The exact columns, in order, of one table of a batch."""
    return {"persons": persons_schema(profile), "relationships": RELATIONSHIPS_SCHEMA, "items": ITEMS_SCHEMA}[table]


class BadManifest(ValueError):
    """A manifest is not of this format; the message names the field and what is due, never a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEntry:
    """One table's file as submitted: rows, bytes, and SHA-256 (lower-case hex) of the file and of each chunk."""

    rows: int
    size: int
    sha256: str
    chunks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an agency signs: which night this is, under which key and encoder, and the digest of every byte.

    `extracted_at` and `expires_at` are RFC 3339 in UTC with a `Z`.  `previous` is the SHA-256 of the canonical form of
    the last manifest of this flow that was accepted, or empty for the first.  `canaries` are the tokens of `0`, `1`
    and `2` under the label `token/canary`: two agencies with one key have the same.
    """

    schema: str
    agency: str
    flow: str
    agreements: tuple[str, ...]
    profile: str
    encoder: str
    codes_sha256: str
    key_epoch: str
    key_fingerprint: str
    canaries: tuple[int, ...]
    sequence: int
    kind: str  # "full" or "delta"
    period_from: str
    period_to: str
    extracted_at: str
    expires_at: str
    previous: str
    duplicates: bool  # the flow may hold one person twice
    chunk_size: int
    tables: Mapping[str, TableEntry]

    def canonical(self) -> bytes:
        """RFC 8785 bytes: what is signed and hashed.  Tokens are strings there, as JSON numbers end at 2**53."""
        body = asdict(self)
        body["canaries"] = [str(token) for token in self.canaries]
        return rfc8785.dumps(body)

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Read a manifest strictly: no unknown, missing or repeated key, no float, no other type.

        Raises BadManifest, which names the field.
        """
        try:
            body = json.loads(raw, object_pairs_hook=_no_repeats, parse_float=_no_floats, parse_constant=_no_floats)
        except RecursionError:
            raise BadManifest("the manifest is nested too deeply") from None
        except BadManifest:
            raise
        except ValueError:
            raise BadManifest("the manifest is not JSON in UTF-8") from None
        return cls._from(body)

    @classmethod
    def _from(cls, body: object) -> Manifest:
        values = _members(body, {field.name for field in fields(cls)}, "manifest")
        for name in ("sequence", "chunk_size"):
            _typed(values, name, int)
        _typed(values, "duplicates", bool)
        texts = {field.name for field in fields(cls)} - {
            "sequence", "chunk_size", "duplicates", "agreements", "canaries", "tables",
        }  # fmt: skip
        for name in texts:
            _typed(values, name, str)
        try:
            values["canaries"] = tuple(int(token) for token in _texts(values["canaries"], "canaries"))
        except ValueError:
            raise BadManifest("canaries: whole numbers as strings are due") from None
        values["agreements"] = _texts(values["agreements"], "agreements")
        tables = _members(values["tables"], set(TABLES), "tables")
        values["tables"] = {name: _entry(tables[name], f"tables.{name}") for name in TABLES}
        if values["schema"] != SCHEMA:
            raise BadManifest(f"schema: only {SCHEMA!r} is known here")
        if values["profile"] not in PROFILES:
            raise BadManifest(f"profile: one of {', '.join(PROFILES)} is due")
        if values["kind"] not in ("full", "delta"):
            raise BadManifest("kind: 'full' or 'delta' is due")
        if values["sequence"] < 1:
            raise BadManifest("sequence: 1 or more is due")
        return cls(**values)


def _entry(body: object, where: str) -> TableEntry:
    values = _members(body, {"rows", "size", "sha256", "chunks"}, where)
    for name in ("rows", "size"):
        _typed(values, name, int, where)
        if values[name] < 0:
            raise BadManifest(f"{where}.{name}: can't be negative")
    _typed(values, "sha256", str, where)
    values["chunks"] = _texts(values["chunks"], f"{where}.chunks")
    return TableEntry(**values)


def _members(body: object, due: set[str], where: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise BadManifest(f"{where}: an object is due")
    if missing := sorted(due - body.keys()):
        raise BadManifest(f"{where}: {missing[0]!r} is missing")
    if len(body) > len(due):
        raise BadManifest(f"{where}: it has a key that is not known here; known are {', '.join(sorted(due))}")
    return dict(body)


def _typed(values: Mapping[str, object], name: str, kind: type, where: str = "manifest") -> None:
    if type(values[name]) is not kind:
        raise BadManifest(f"{where}.{name}: {kind.__name__} is due")


def _texts(body: object, where: str) -> tuple[str, ...]:
    if not isinstance(body, list) or not all(isinstance(entry, str) for entry in body):
        raise BadManifest(f"{where}: a list of strings is due")
    return tuple(body)


def _no_repeats(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise BadManifest("the manifest repeats a key")
    return keys


def _no_floats(_: str) -> float:
    raise BadManifest("the manifest holds a number that is not whole")
