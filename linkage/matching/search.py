"""One encoded row against all records: candidates in bands, scored by the frozen model, in the words of fields."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, Literal

import pyarrow as pa

from linkage.matching.bands import banded
from linkage.matching.blocking import KEYS, add_blocking_columns
from linkage.matching.families import neighbours_of
from linkage.matching.identifiers import (
    ALL_SCHEMES,
    LOCAL,
    SCHEMES,
    SPREAD,
    agreed_sql,
    differs_sql,
    drop_shared,
    number_records,
)
from linkage.matching.model import Model
from linkage.matching.overrides import RecordKey
from linkage.matching.scoring import scored
from linkage.matching.workspace import load_persons, open_workspace, packed
from linkage.records import FILTER_WORDS, FILTERS, IDENTIFIERS, TOKENS, Profile, filter_columns

Band = Literal["match", "possible"]
FILTER_BYTES: Final = FILTER_WORDS * 8
_WORD: Final = (1 << 64) - 1
_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")


class BadRow(ValueError):
    """A search row is not of the wire's format; the message names the field, never the value."""


class TooManyCandidates(LookupError):
    """So many persons fit that none should be shown: more fields are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """One person as a gateway encodes a search: eight signed 64-bit words a filter, None where a value is missing.

    Tokens and identifiers are named as in `linkage.records`, and peppered already, as the stored ones are.
    """

    filters: Mapping[str, tuple[int, ...] | None]
    tokens: Mapping[str, int | None]
    identifiers: Mapping[str, int | None] = field(default_factory=dict)
    birth_year: int | None = None
    sex: str | None = None

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> EncodedRow:
        """The wire's Row: filters as base64 of 64 bytes, tokens and identifiers as whole numbers in strings.

        Raises BadRow.
        """
        known = {"filters", "tokens", "identifiers", "birth_year", "sex"}
        if set(body) - known:
            raise BadRow(f"a row has only {', '.join(sorted(known))}")
        birth_year, sex = body.get("birth_year"), body.get("sex")
        if birth_year is not None and type(birth_year) is not int:
            raise BadRow("birth_year: a whole number or null is due")
        if sex is not None and not isinstance(sex, str):
            raise BadRow("sex: a string or null is due")
        all_filters = {name for names in FILTERS.values() for name in names}
        all_tokens = {name for names in TOKENS.values() for name in names}
        return cls(
            filters={name: _words(name, text) for name, text in _members(body, "filters", all_filters).items()},
            tokens={name: _token(name, text) for name, text in _members(body, "tokens", all_tokens).items()},
            identifiers={
                name: _token(name, text) for name, text in _members(body, "identifiers", set(IDENTIFIERS)).items()
            },
            birth_year=birth_year,
            sex=sex,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A person that may be the one looked for, as its best record compares."""

    person_id: str
    band: Band
    upper: bool  # clears the higher bar, for summary and detail
    agreed: tuple[str, ...]
    differs: tuple[str, ...]
    records: tuple[RecordKey, ...]  # those of the person that reached the band, best first
    certain: tuple[RecordKey, ...]  # those that clear the higher bar themselves, best first
    birth_year: int | None
    sex: str | None


class Index:
    """All records of one published link run, ready to be searched; safe to use from several threads.

    `duplicates` are those of the run: the flows that may hold a person twice.
    """

    def __init__(
        self,
        persons: pa.Table,
        clusters: pa.Table,
        family: pa.Table,
        model: Model,
        *,
        duplicates: AbstractSet[tuple[str, str]] = frozenset(),
        memory_limit: str = "4GB",
        threads: int = 2,
    ) -> None:
        self.model = model
        self._family = family
        self._edges = neighbours_of(family)
        self._records: dict[str, list[RecordKey]] = defaultdict(list)
        keys = zip(*(clusters[name].to_pylist() for name in ("agency", "flow", "record_ref")), strict=True)
        for key, person_id in zip(keys, clusters["person_id"].to_pylist(), strict=True):
            self._records[person_id].append(key)
        self._lock = Lock()
        self._db = open_workspace(memory_limit=memory_limit, threads=threads)
        load_persons(self._db, persons, duplicates)
        number_records(self._db)
        add_blocking_columns(self._db, model.profile)
        self._db.register("clusters_in", clusters)
        self._db.execute("""
            CREATE TABLE owners AS
            SELECT rec, person_id, agency, flow, record_ref
            FROM records JOIN sources USING (src) JOIN clusters_in USING (agency, flow, record_ref)
            ORDER BY rec
        """)
        self._db.unregister("clusters_in")
        self._db.execute(f"""
            CREATE OR REPLACE TEMP TABLE shared AS
            SELECT scheme, number FROM numbers JOIN owners USING (rec) WHERE scheme <> '{LOCAL}'
            GROUP BY ALL HAVING count(DISTINCT person_id) > {SPREAD}
        """)
        drop_shared(self._db)

    def candidates(self, rows: EncodedRow | Sequence[EncodedRow], limit: int = 5) -> tuple[Candidate, ...]:
        """Best first, at most `limit`; several rows are alternatives of one person.

        Raises TooManyCandidates if more than `limit` persons fit, BadRow if a row is of another profile.
        """
        alternatives = [rows] if isinstance(rows, EncodedRow) else list(rows)
        with self._lock:
            self._ask(alternatives)
            hits = self._db.execute(_HITS.format(pairs=_banded(self.model))).fetchall()
        by_person: dict[str, list[_Hit]] = defaultdict(list)
        for hit in (_Hit(*row) for row in hits):
            by_person[hit.person_id].append(hit)
        found = [_candidate(person_id, group) for person_id, group in by_person.items()]
        if any(candidate.band == "match" for candidate, _ in found):
            # A twin of the child who was found fits too, but for the name: nobody looks for both at once.
            found = [(c, best) for c, best in found if best.rule != "twin"]
        found.sort(key=lambda entry: (entry[0].band != "match", -entry[1].weight, entry[0].person_id))
        matches = sum(candidate.band == "match" for candidate, _ in found)
        if matches > limit or (len(found) > limit and not matches):
            raise TooManyCandidates(f"more than {limit} persons fit")
        return tuple(candidate for candidate, _ in found[:limit])

    def records_of(self, person_id: str) -> tuple[RecordKey, ...]:
        """The records of one person; empty if the run does not know the id."""
        return tuple(self._records.get(person_id, ()))

    def family_of(self, person_id: str) -> pa.Table:
        """Family edges with this person at either end, in the columns of `families.FAMILY`."""
        return self._family.take(pa.array(self._edges.get(person_id, ()), pa.int64()))

    def _ask(self, alternatives: Sequence[EncodedRow]) -> None:
        """Make `asked`, as `rows` are, and `asked_numbers`; and `asked_pairs` with the rows that share a key."""
        profile = self.model.profile
        self._db.register("asked_in", pa.Table.from_pylist([_wire(row, profile) for row in alternatives]))
        tokens = [f"t_{name}" for name in TOKENS[profile]]
        frequencies = [
            f"(SELECT any_value(f_{name}) FROM rows WHERE rows.t_{name} = asked_in.t_{name}) AS f_{name}"
            for name in (("given_name", "family_name") if profile == "accurate-1" else ())
        ]
        columns = ", ".join([*(packed(name) for name in FILTERS[profile]), *tokens, *frequencies])
        self._db.execute(f"""
            CREATE OR REPLACE TEMP TABLE asked AS
            SELECT unique_id, {columns}, t_dob AS k_dob, t_postcode AS k_postcode, birth_year, sex FROM asked_in
        """)
        held = " UNION ALL ".join(
            f"SELECT '{scheme}' AS scheme, id_{name} AS token FROM asked_in WHERE id_{name} IS NOT NULL"
            for scheme, names in [*SCHEMES.items(), (LOCAL, (LOCAL,))]
            for name in names
        )
        self._db.execute(f"""
            CREATE OR REPLACE TEMP TABLE asked_numbers AS
            SELECT DISTINCT scheme, coalesce(least, token) AS number
            FROM ({held}) LEFT JOIN aliases USING (scheme, token)
        """)
        self._db.unregister("asked_in")
        blocks = [
            f"SELECT r.unique_id AS id_l, q.unique_id AS id_r FROM rows r JOIN asked q ON r.b_{key} = q.t_{key}"
            for key in KEYS[profile]
        ]
        blocks.append("""
            SELECT r.unique_id, q.unique_id FROM rows r CROSS JOIN asked q
            WHERE r.rec IN (SELECT rec FROM numbers SEMI JOIN asked_numbers USING (scheme, number))
        """)
        self._db.execute(f"CREATE OR REPLACE TEMP TABLE asked_pairs AS {' UNION '.join(blocks)}")
        # The few rows that share a key, by themselves: no join below then touches the many.
        self._db.execute("""
            CREATE OR REPLACE TEMP TABLE near AS
            SELECT * FROM rows WHERE unique_id IN (SELECT id_l FROM asked_pairs)
        """)


@dataclass(frozen=True, slots=True)
class _Hit:
    """One record that reached a band; the columns of _HITS."""

    person_id: str
    agency: str
    flow: str
    record_ref: str
    weight: float
    rule: str
    band: Band
    upper: bool
    agreed: list[str]
    differs: list[str]
    birth_year: int | None
    sex: str | None
    other_numbers: list[str]  # schemes in which the person's records have numbers, and none of them is the one asked


_HITS: Final = """
    WITH hits AS (FROM ({pairs}) WHERE band <> 'none'),
    persons AS (SELECT DISTINCT person_id FROM owners SEMI JOIN hits USING (rec)),
    theirs AS (
        SELECT person_id, scheme, bool_or(a.number IS NOT NULL) AS one_agrees
        FROM owners SEMI JOIN persons USING (person_id) JOIN numbers n USING (rec)
        LEFT JOIN asked_numbers a USING (scheme, number)
        WHERE scheme IN (SELECT scheme FROM asked_numbers) AND scheme <> 'local'
        GROUP BY ALL
    ),
    other AS (SELECT person_id, list(scheme ORDER BY scheme) AS schemes FROM theirs WHERE NOT one_agrees GROUP BY ALL)
    SELECT person_id, agency, flow, record_ref, weight, rule, band, upper, agreed, differs, birth_year_l, sex_l,
           coalesce(schemes, [])
    FROM hits JOIN owners USING (rec) LEFT JOIN other USING (person_id)
    ORDER BY band = 'match' DESC, weight DESC, rec
"""


def _banded(model: Model) -> str:
    """SQL: the records that share a key with what is asked, by their best row, with bands."""
    rows = scored(model, "asked_pairs", left="near", right="asked", keep=("birth_year", "sex"))
    columns = ", ".join(f"l.n_{scheme} AS theirs_{scheme}, q.n_{scheme} AS asked_{scheme}" for scheme in ALL_SCHEMES)
    lists = ", ".join(f"list(number) FILTER (scheme = '{scheme}') AS n_{scheme}" for scheme in ALL_SCHEMES)
    return banded(f"""(
        SELECT * EXCLUDE (n), false AS one_home, {agreed_sql("theirs", "asked")} AS id_agreed,
               {differs_sql("theirs", "asked")} AS id_differs
        FROM (
            SELECT s.*, {columns}
            FROM (
                SELECT *, row_number() OVER (PARTITION BY rec ORDER BY weight DESC, unique_id_l, unique_id_r) AS n
                FROM ({rows}) JOIN (SELECT unique_id AS unique_id_l, rec FROM near) USING (unique_id_l)
            ) s
            LEFT JOIN (
                SELECT rec, {lists} FROM numbers WHERE rec IN (SELECT rec FROM near) GROUP BY rec
            ) l USING (rec)
            CROSS JOIN (SELECT {lists} FROM asked_numbers) q
            WHERE s.n = 1
        )
    )""")


def _candidate(person_id: str, hits: Sequence[_Hit]) -> tuple[Candidate, _Hit]:
    best = hits[0]
    # The person is known under another number by a record that was not compared: as much a conflict as on one that was.
    clash = tuple(scheme for scheme in best.other_numbers if scheme not in best.differs)
    candidate = Candidate(
        person_id=person_id,
        band="possible" if clash else best.band,
        upper=best.upper and not clash,
        agreed=tuple(best.agreed),
        differs=(*best.differs, *clash),
        records=tuple((hit.agency, hit.flow, hit.record_ref) for hit in hits if hit.band == best.band),
        certain=tuple((hit.agency, hit.flow, hit.record_ref) for hit in hits if hit.upper and not clash),
        birth_year=best.birth_year,
        sex=best.sex,
    )
    return candidate, best


def _wire(row: EncodedRow, profile: Profile) -> dict[str, int | str | None]:
    """A search row in the columns of a persons row.  Raises BadRow if it is of another profile."""
    if set(row.filters) - set(FILTERS[profile]) or set(row.tokens) - set(TOKENS[profile]):
        raise BadRow(f"filters and tokens of {profile} are due")
    body: dict[str, int | str | None] = {"unique_id": 0, "birth_year": row.birth_year, "sex": row.sex}
    for name in FILTERS[profile]:
        words = row.filters.get(name)
        count = None if words is None else sum((word & _WORD).bit_count() for word in words)
        body |= dict(zip(filter_columns(name), [*(words or [None] * FILTER_WORDS), count], strict=True))
    body |= {f"t_{name}": row.tokens.get(name) for name in TOKENS[profile]}
    body |= {f"id_{name}": row.identifiers.get(name) for name in IDENTIFIERS}
    return body


def _members(body: Mapping[str, object], key: str, known: set[str]) -> dict[str, object]:
    members = body.get(key, {})
    if not isinstance(members, dict) or set(members) - known:
        raise BadRow(f"{key}: an object with names of the wire format is due")
    return members


def _words(name: str, text: object) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != FILTER_BYTES:
        raise BadRow(f"filters.{name}: base64 of {FILTER_BYTES} bytes is due")
    return struct.unpack(f"<{FILTER_WORDS}q", raw)


def _token(name: str, text: object) -> int | None:
    if text is None:
        return None
    if not isinstance(text, str) or not _WHOLE.fullmatch(text) or not -(1 << 63) <= int(text) < 1 << 63:
        raise BadRow(f"{name}: a 64-bit whole number in a string is due")
    return int(text)
