"""The persons of a batch, and who belongs to whom: checked, with a row for each alternative name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.agency import identifiers
from linkage.agency.mapping import Mapping as BatchMapping
from linkage.agency.mapping import Source
from linkage.agency.people import STANDARD_IDENTIFIERS, STANDARD_SCHEMA, Finding
from linkage.agency.rows import Flags, Sheet, a_period, check_person, one_of, truth, wire_table
from linkage.agency.standardise import Standardised, family_name, given_name
from linkage.records import PERSON_ROLES, RELATIONSHIP_TYPES, RELATIONSHIPS_SCHEMA, SHIELDS

ALTERNATIVES: Final = 16  # rows of one record, at most (reliability-security.md section 3)
IDENTIFIER_TOKENS: Final = 8  # distinct identifiers of one record, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """The persons of a batch before encoding, in order of `record_ref`, so that the extract's order leaks nothing.

    `standard` has a row for each record and alternative; `attributes` the columns beside the encodings.
    """

    standard: pa.Table
    attributes: pa.Table
    refs: Mapping[str, str]  # local_id -> record_ref, of the records that are in the batch
    left_out: frozenset[str]  # local ids whose every row was bad
    homes: Sequence[tuple[str, str, date | None, date | None]]  # record_ref, standard UPRN, from, to

    def only(self, refs: Collection[str]) -> People:
        """The rows of these records."""
        named = pc.is_in(self.attributes["record_ref"], value_set=pa.array(sorted(refs), pa.string()))
        return replace(self, standard=self.standard.filter(named), attributes=self.attributes.filter(named))


def people(
    mapping: BatchMapping,
    sheet: Sheet,
    standard: Standardised,
    *,
    record_ref: Callable[[str], str],
    sever_ref: Callable[[str], str],
    today: date,
) -> People:
    """Check what surrounds the encodings, and add a row for each alternative name."""
    for row, finding in standard.findings:
        sheet.find(row, finding)
    formats = mapping.persons.formats
    ids = sheet.texts("local_id")
    roles = sheet.parsed("person_role", one_of("person_role", PERSON_ROLES), mapping.persons.role)
    shields = sheet.parsed("shield", one_of("shield", SHIELDS), "none")
    deceased = sheet.parsed("deceased", truth("deceased"), False)
    starts, ends = a_period(sheet, "valid_from", "valid_to", formats, today)
    severs = sheet.texts("sever_ref")
    _check_records(sheet, ids, roles, standard.people)
    refs = {local_id: record_ref(local_id) for local_id in {one for one in ids if one is not None}}
    uprns = sheet.parsed("uprn", _uprn)

    keyed: dict[str | None, str | None] = {ref: sever_ref(ref) for ref in set(severs) if ref is not None}
    keyed[None] = None
    chosen = _with_alternatives(sheet, standard.people, ids, severs)
    chosen.sort(key=lambda one: (refs[ids[one.row] or ""], one.alternative, one.row))
    rows = [one.row for one in chosen]
    index = np.array(rows, np.int64)
    shielded = np.array([shields[row] != "none" for row in rows], np.bool_)
    taken = standard.people.take(pa.array(index))
    columns = {name: taken.column(name) for name in STANDARD_SCHEMA.names}
    columns["given_name"] = pa.array([one.given_name for one in chosen], pa.string())
    columns["family_name"] = pa.array([one.family_name for one in chosen], pa.string())
    # A protected place does not leave, not even encoded: nobody then finds the child by it.
    columns["postcode"] = _without(columns["postcode"], shielded)
    attributes = pa.table(
        {
            "op": pa.array(["upsert"] * len(rows), pa.string()),
            "record_ref": pa.array([refs[ids[row] or ""] for row in rows], pa.string()),
            "person_role": pa.array([roles[row] for row in rows], pa.string()),
            "q_default_dob": standard.default_dob[index],
            "q_baby_name": standard.baby_name[index],
            "q_bad_identifier": standard.bad_identifier[index],
            "q_no_postcode": columns["postcode"].is_null(),
            "birth_year": standard.birth_year.take(pa.array(index)),
            "sex": standard.sex.take(pa.array(index)),
            "shield": pa.array([shields[row] for row in rows], pa.string()),
            "sever_ref": pa.array([keyed[severs[row]] for row in rows], pa.string()),
            "deceased": pa.array([deceased[row] for row in rows], pa.bool_()),
            "valid_from": pa.array([None if one.alternative else starts[one.row] for one in chosen], pa.date32()),
            "valid_to": pa.array([None if one.alternative else ends[one.row] for one in chosen], pa.date32()),
        }
    )
    kept = {ids[row] or "" for row in rows}
    homes = [
        (refs[ids[row] or ""], uprn, starts[row], ends[row])
        for row in np.flatnonzero(sheet.good).tolist()
        if (uprn := uprns[row]) is not None and shields[row] == "none"
    ]
    return People(
        standard=pa.table(columns),
        attributes=attributes,
        refs={local_id: ref for local_id, ref in refs.items() if local_id in kept},
        left_out=frozenset(refs) - kept,
        homes=homes,
    )


@dataclass(frozen=True, slots=True)
class _Named:
    """A row of the extract under one of its names."""

    row: int
    given_name: str | None
    family_name: str | None
    alternative: bool


def _with_alternatives(
    sheet: Sheet, standard: pa.Table, ids: Sequence[str | None], severs: Sequence[str | None]
) -> list[_Named]:
    """The good rows, and again under a known-as name and a former family name, where these differ."""
    given, family, dates, places = (
        standard.column(name).to_pylist() for name in ("given_name", "family_name", "date_of_birth", "postcode")
    )
    known_as, former = sheet.texts("known_as"), sheet.texts("former_family_name")
    rows_of: Counter[str | None] = Counter()
    said: set[tuple[Any, ...]] = set()
    found: list[_Named] = []
    for row in np.flatnonzero(sheet.good).tolist():
        named = [_Named(row, given[row], family[row], alternative=False)]
        if severs[row] is None:  # a name from before an adoption order is never sent
            if other := given_name(known_as[row] or "").value:
                named.append(_Named(row, other, family[row], alternative=True))
            if other := family_name(former[row] or "").value:
                named.append(_Named(row, given[row], other, alternative=True))
        for one in named:
            key = (ids[row], one.given_name, one.family_name, dates[row], places[row])
            if (one.alternative and key in said) or rows_of[ids[row]] >= ALTERNATIVES:
                continue
            said.add(key)
            rows_of[ids[row]] += 1
            found.append(one)
    return found


def _check_records(sheet: Sheet, ids: Sequence[str | None], roles: Sequence[str | None], standard: pa.Table) -> None:
    """A record has an id, one role, and not more identifiers than may be sent."""
    role_of: dict[str, str | None] = {}
    repeated = {local_id for local_id, count in Counter(ids).items() if count > 1}
    held: dict[str, set[tuple[str, str]]] = {}
    numbers = {name: standard.column(name).to_pylist() for name in STANDARD_IDENTIFIERS} if repeated - {None} else {}
    for row, local_id in enumerate(ids):
        if local_id is None:
            sheet.error(row, "local_id", "missing", "every person needs the source's own number")
            continue
        if not sheet.good[row]:
            continue
        if role_of.setdefault(local_id, roles[row]) != roles[row]:
            sheet.error(row, "person_role", "inconsistent_record", "another row of this person has another role")
        if local_id in repeated:
            tokens = held.setdefault(local_id, set())
            more = {(name, value) for name, column in numbers.items() if (value := column[row]) is not None}
            if len(tokens | more) > IDENTIFIER_TOKENS:
                hint = f"the rows of this person hold over {IDENTIFIER_TOKENS} identifiers: is the number used twice?"
                sheet.error(row, "local_id", "too_many_identifiers", hint)
            else:
                tokens |= more


def _uprn(text: str) -> str | Finding:
    checked = identifiers.uprn(text)
    if checked.value is None:
        return Finding(field="uprn", code=checked.code, hint=checked.hint, severity="warning")
    return checked.value


def _without(column: Any, hidden: Flags) -> pa.Array:
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string())
    return pc.if_else(pa.array(hidden), pa.scalar(None, pa.string()), whole)


# --- Relationships ---------------------------------------------------------------------------------------------------


def relationships(
    source: Source, sheet: Sheet, refs: Mapping[str, str], left_out: frozenset[str], *, today: date
) -> list[tuple[Any, ...]]:
    """Rows of RELATIONSHIPS_SCHEMA from a file of them; `household` is not one of its types."""
    known = tuple(kind for kind in RELATIONSHIP_TYPES if kind != "household")
    types = sheet.parsed("type", one_of("type", known))
    verified = sheet.parsed("verified", truth("verified"), False)
    starts, ends = a_period(sheet, "valid_from", "valid_to", source.formats, today)
    one, other = sheet.texts("local_id_a"), sheet.texts("local_id_b")
    for row in range(sheet.raw.num_rows):
        for name, local_id in (("local_id_a", one[row]), ("local_id_b", other[row])):
            check_person(sheet, row, name, local_id, refs, left_out)
        if one[row] is not None and one[row] == other[row]:
            sheet.error(row, "local_id_b", "bad_endpoint", "nobody is related to themselves; is the column right?")
        if types[row] is None and sheet.good[row]:
            sheet.error(row, "type", "missing", "a type of relationship is due")
    found = {
        (
            "upsert",
            refs[one[row] or ""],
            refs[other[row] or ""],
            None,
            types[row],
            verified[row],
            starts[row],
            ends[row],
        )
        for row in np.flatnonzero(sheet.good).tolist()
    }
    return list(found)


def households(
    mapping: BatchMapping, homes: Sequence[tuple[str, str, date | None, date | None]], token_of: Callable[[str], int]
) -> list[tuple[Any, ...]]:
    """A row for each record and home; communal addresses are left out."""
    people_at: dict[str, set[str]] = {}
    for ref, uprn, _, _ in homes:
        people_at.setdefault(uprn, set()).add(ref)
    tokens = {
        uprn: token_of(uprn)
        for uprn, refs in people_at.items()
        if uprn not in mapping.communal and len(refs) <= mapping.communal_over
    }
    found = {
        ("upsert", ref, None, tokens[uprn], "household", False, start, end)
        for ref, uprn, start, end in homes
        if uprn in tokens
    }
    return list(found)


def relationships_table(rows: Iterable[tuple[Any, ...]]) -> pa.Table:
    """Rows as the wire's table, in an order that says nothing."""
    ordered = sorted(rows, key=lambda row: (row[1], row[4], row[2] or "", row[3] or 0, str(row[6])))
    return wire_table(ordered, RELATIONSHIPS_SCHEMA)
