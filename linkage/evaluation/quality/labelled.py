"""Labelled records as both sides of a measurement read them: in standard form, with who each truly is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Final

import pyarrow as pa

from linkage.agency import clock, extract, mapping
from linkage.agency.people import DEMOGRAPHICS, STANDARD_IDENTIFIERS
from linkage.agency.standardise import Rules, family_name, given_name, standardise_people
from linkage.matching.rates import age_bands

DEFAULT_DATASET: Final = "records"
AREA_GROUPS: Final = ("naming_custom", "decile", "looked_after", "moved")
"""The group columns of a synthetic area's labelled.csv."""

RecordKey = tuple[str, str, str]
"""Agency, flow, record."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labelled records in standard form, a row for each record and alternative."""

    standard: pa.Table  # people.STANDARD_SCHEMA
    birth_year: pa.Array
    sex: pa.Array
    homes: Sequence[str | None]
    sever: Sequence[str | None]
    key: Sequence[RecordKey]  # of each row
    truth: Mapping[RecordKey, str]
    duplicates: frozenset[tuple[str, str]]
    groups: Mapping[str, Mapping[RecordKey, str]]  # group column -> the value of each record that has one

    @cached_property
    def records(self) -> list[RecordKey]:
        """Each record once, in the order in which the matching side numbers them."""
        return sorted(self.truth)

    @cached_property
    def persons(self) -> list[int]:
        """Who each record truly is, by a number, in the order of `records`."""
        numbered: dict[str, int] = {}
        return [numbered.setdefault(self.truth[key], len(numbered)) for key in self.records]

    @cached_property
    def flows(self) -> list[int]:
        """The flow of each record, by a number, in the order of `records`."""
        numbers = {source: n for n, source in enumerate(sorted({source_of(key) for key in self.records}))}
        return [numbers[source_of(key)] for key in self.records]

    @cached_property
    def sources(self) -> list[int | None]:
        """The same, but None where a flow may hold a person twice."""
        may = [source_of(key) in self.duplicates for key in self.records]
        return [None if twice else flow for flow, twice in zip(self.flows, may, strict=True)]

    @property
    def has_identifiers(self) -> bool:
        """Whether any record has any identifier."""
        return any(self.standard[name].null_count < self.standard.num_rows for name in STANDARD_IDENTIFIERS)

    def without_identifiers(self) -> Labelled:
        """The same records with no identifier on either side."""
        bare = self.standard
        for name in STANDARD_IDENTIFIERS:
            column = bare.schema.get_field_index(name)
            bare = bare.set_column(column, name, pa.nulls(bare.num_rows, pa.string()))
        return replace(self, standard=bare)

    @cached_property
    def true_pairs(self) -> int:
        """Pairs of records of one person that linkage may find: of two data sets, or of one with duplicates."""
        return sum(self.partners) // 2

    @cached_property
    def partners(self) -> list[int]:
        """How many other records of its person linkage may find for each record."""
        everywhere = Counter(self.persons)
        beside = Counter(zip(self.persons, self.sources, strict=True))
        return [
            everywhere[person] - (1 if source is None else beside[person, source])
            for person, source in zip(self.persons, self.sources, strict=True)
        ]

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Each true pair that linkage may find, by place in `records`, the lower first."""
        of: dict[int, list[int]] = defaultdict(list)
        for place, person in enumerate(self.persons):
            of[person].append(place)
        for places in of.values():
            for left, right in combinations(places, 2):
                if self.sources[left] is None or self.sources[left] != self.sources[right]:
                    yield left, right


def source_of(key: RecordKey) -> tuple[str, str]:
    """The agency and flow of a record."""
    return key[0], key[1]


def read(records: Path, mapping_file: Path, *, truth: str, dataset: str | None, groups: Sequence[str] = ()) -> Labelled:
    """Read labelled records: the mapping is the one `agency encode` uses.

    Without `dataset` all are one set that may hold a person twice.  A record without a label is a person of its own.
    `groups` are further columns to report match rates by; those of AREA_GROUPS that are there are taken as well.
    Raises BadMapping or BadExtract.
    """
    source = mapping.load(mapping_file, persons_only=True)
    persons = source.persons
    table = extract.fields(persons, file=records)
    raw = extract.read(records)
    labels = _column(raw, records, truth)
    sets = _column(raw, records, dataset) if dataset else [DEFAULT_DATASET] * table.num_rows
    rules = Rules(
        **({"date_format": persons.formats["date_of_birth"]} if "date_of_birth" in persons.formats else {}),
        default_dates=persons.default_dates,
        earliest_year=None,
        uk_postcodes=False,
        not_postcodes=persons.not_postcodes,
    )
    today = clock.today(clock.now())
    standard = standardise_people(table, rules, today=today)
    keys = _record_keys(table, sets)
    rows = _with_alternatives(table, standard.people)
    index = pa.array([row for row, _, _ in rows], pa.int64())
    taken = standard.people.take(index)
    for name, place in (("given_name", 1), ("family_name", 2)):
        column = pa.array([row[place] for row in rows], pa.string())
        taken = taken.set_column(taken.schema.get_field_index(name), name, column)
    homes, severed = _cell(table, "uprn"), _cell(table, "sever_ref")
    unlabelled = iter(range(table.num_rows))
    named: dict[RecordKey, str] = {}
    for key, label in zip(keys, labels, strict=True):
        named.setdefault(key, f"label {label}" if label else f"nobody {next(unlabelled)}")
    everyone = {source_of(key) for key in keys}
    wanted = [*groups, *(name for name in AREA_GROUPS if name in raw.column_names and name not in groups)]
    by_group: dict[str, Sequence[str | None]] = {name: _column(raw, records, name) for name in wanted}
    by_group |= _known_groups(table, standard.people, standard.birth_year, keys, today.year)
    return Labelled(
        standard=taken,
        birth_year=standard.birth_year.take(index),
        sex=standard.sex.take(index),
        homes=[homes[row] for row, _, _ in rows],
        sever=[severed[row] for row, _, _ in rows],
        key=[keys[row] for row, _, _ in rows],
        truth=named,
        duplicates=frozenset(everyone) if dataset is None or persons.duplicates else frozenset(),
        groups={
            name: {key: value for key, value in zip(keys, values, strict=True) if value is not None}
            for name, values in by_group.items()
        },
    )


def _known_groups(
    table: pa.Table, standard: pa.Table, birth_year: pa.Array, keys: Sequence[RecordKey], year: int
) -> dict[str, Sequence[str | None]]:
    """What any labelled set can be grouped by: its data set, the age band, the script of the name, what is missing."""
    given, family = _cell(table, "given_name"), _cell(table, "family_name")
    held = {field: standard[field].is_valid().to_pylist() for field in DEMOGRAPHICS}
    numbers = [standard[name].is_valid().to_pylist() for name in STANDARD_IDENTIFIERS]
    known: dict[str, Sequence[str | None]] = {
        "source": ["/".join(dict.fromkeys(source_of(key))) for key in keys],
        "age_band": age_bands(pa.chunked_array([birth_year]), year=year).to_pylist(),
        "missing": [
            " and ".join(field for field in DEMOGRAPHICS if not held[field][row]) or "nothing"
            for row in range(table.num_rows)
        ],
        "identifier": ["some" if any(flags) else "none" for flags in zip(*numbers, strict=True)],
    }
    scripts = [_script(f"{one or ''}{two or ''}") for one, two in zip(given, family, strict=True)]
    return known | {"script": scripts}


def _script(name: str) -> str | None:
    """Which letters a name is written in: plain Latin, Latin with marks, or others."""
    if not name:
        return None
    if name.isascii():
        return "plain Latin"
    return "Latin with marks" if all(ord(sign) < 0x250 for sign in name if sign.isalpha()) else "other script"


def _column(table: pa.Table, path: Path, name: str) -> list[str | None]:
    if name not in table.column_names:
        raise extract.BadExtract(f"{path.name}: no column {name!r}; it has {', '.join(table.column_names)}")
    return [None if value is None else str(value).strip() or None for value in table[name].to_pylist()]


def _cell(table: pa.Table, name: str) -> list[str | None]:
    return list(table[name].to_pylist()) if name in table.column_names else [None] * table.num_rows


def _record_keys(table: pa.Table, sets: Sequence[str | None]) -> list[RecordKey]:
    """Agency, flow and record of each row; a data set called `a/b` is flow b of agency a."""
    ids = _cell(table, "local_id")
    keys = []
    for row, (name, local_id) in enumerate(zip(sets, ids, strict=True)):
        agency, _, flow = (name or DEFAULT_DATASET).partition("/")
        keys.append((agency, flow or agency, local_id or f"row {row}"))
    return keys


def _with_alternatives(table: pa.Table, standard: pa.Table) -> list[tuple[int, str | None, str | None]]:
    """Rows as (row, given name, family name): also under a known-as and a former family name, as a batch has them."""
    given, family = standard["given_name"].to_pylist(), standard["family_name"].to_pylist()
    known_as, former, severed = (_cell(table, name) for name in ("known_as", "former_family_name", "sever_ref"))
    rows: list[tuple[int, str | None, str | None]] = []
    for row in range(table.num_rows):
        names = [(given[row], family[row])]
        if severed[row] is None:  # a name from before an adoption order is never sent
            if (other := known_as[row]) and (value := given_name(other).value):
                names.append((value, family[row]))
            if (other := former[row]) and (value := family_name(other).value):
                names.append((given[row], value))
        rows += [(row, one, two) for one, two in dict.fromkeys(names)]
    return rows
