"""One encoded row against all records: candidates in bands, scored by the frozen model, in the words of fields."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

import base64
import binascii
import re
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.bands import MATCH_BAR
from linkage.matching.blocking import KEYS, add_blocking_columns
from linkage.matching.bridges import without_bridges
from linkage.matching.comparisons import comparisons
from linkage.matching.families import neighbours_of
from linkage.matching.identifiers import ALL_SCHEMES, LOCAL, SCHEMES, SPREAD, drop_shared, number_records
from linkage.matching.model import Model
from linkage.matching.overrides import RecordKey, RecordPair, neighbours
from linkage.matching.pairwise import Banded, Compared, Comparer, Numbers, band_of, numbers_said, probability_of
from linkage.matching.scoring import columns_compared
from linkage.matching.workspace import HALF, load_persons, open_workspace
from linkage.records import FILTER_WORDS, FILTERS, IDENTIFIERS, TOKENS

if TYPE_CHECKING:
    import duckdb

Band = Literal["match", "possible"]
FILTER_BYTES: Final = FILTER_WORDS * 8
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
    compared: Mapping[RecordKey, tuple[tuple[str, ...], tuple[str, ...]]]  # what agreed and what differs, a record
    birth_year: int | None
    sex: str | None
    strength: tuple[bool, bool, float] = field(default=(False, False, 0.0), repr=False)
    """Band, a number that agrees, weight: to choose between two that must never be seen together; shown to nobody."""


class Index:
    """All records of one published link run, ready to be searched by any number of threads: nothing in it changes.

    `duplicates` are those of the run: the flows that may hold a person twice.  A row is found by its tokens and
    numbers in sorted arrays, and only those found are compared, as `pairwise` does.  Of two persons that `severed`
    sets apart no answer holds both.
    """

    def __init__(
        self,
        persons: pa.Table,
        clusters: pa.Table,
        family: pa.Table,
        model: Model,
        *,
        duplicates: AbstractSet[tuple[str, str]] = frozenset(),
        severed: AbstractSet[RecordPair] = frozenset(),
        memory_limit: str = "4GB",
        threads: int = 2,
    ) -> None:
        self.model = model
        self._apart = _persons_apart(clusters, severed)
        self._family = family
        self._edges = neighbours_of(family)
        self._comparer = Comparer(model)
        with open_workspace(memory_limit=memory_limit, threads=threads) as db:
            load_persons(db, without_bridges(persons, severed), duplicates)
            number_records(db)
            add_blocking_columns(db, model.profile)
            db.register("clusters_in", clusters)
            db.execute("""
                CREATE TABLE owners AS
                SELECT rec, person_id, agency, flow, record_ref
                FROM clusters_in LEFT JOIN (FROM records JOIN sources USING (src)) USING (agency, flow, record_ref)
            """)
            db.unregister("clusters_in")
            db.execute(f"""
                CREATE OR REPLACE TEMP TABLE shared AS
                SELECT scheme, number FROM numbers JOIN owners USING (rec) WHERE scheme <> '{LOCAL}'
                GROUP BY ALL HAVING count(DISTINCT person_id) > {SPREAD}
            """)
            drop_shared(db)
            self._rows = _Rows(db, model)
            self._numbers = _NumbersHeld(db)
            self._owners = _Owners(db)
            self._blocks = [
                (f"t_{key}", _Lookup.read(db, f"SELECT b_{key}, unique_id FROM rows WHERE b_{key} IS NOT NULL"))
                for key in KEYS[model.profile]
            ]
            self._frequencies = {
                f"f_{name}": (f"t_{name}", dict(db.execute(f"SELECT DISTINCT t_{name}, f_{name} FROM rows").fetchall()))
                for name in _rare_names(model)
            }

    def candidates(self, rows: EncodedRow | Sequence[EncodedRow], limit: int = 5) -> tuple[Candidate, ...]:
        """Best first, at most `limit`; several rows are alternatives of one person.

        Raises TooManyCandidates if more than `limit` persons fit, or two that are severed fit equally well; BadRow if
        a row is of another profile.
        """
        alternatives = [rows] if isinstance(rows, EncodedRow) else list(rows)
        asked = [self._compared(row) for row in alternatives]
        numbers = self._numbers.named(alternatives)
        found = []
        for person_id, group in self._hits(asked, numbers).items():
            agreed, clash = self._numbers_said(person_id, numbers)
            fitting = group if agreed or not clash else [hit for hit in group if _fits_despite_number(hit)]
            if fitting:
                found.append(_candidate(person_id, fitting, clash))
        if any(candidate.band == "match" for candidate, _ in found):
            # A twin of the child who was found fits too, but for the name: nobody looks for both at once.
            found = [(c, best) for c, best in found if best.banded.rule != "twin"]
        kept = {one.person_id for one in self.without_severed([candidate for candidate, _ in found])}
        found = [(candidate, best) for candidate, best in found if candidate.person_id in kept]
        found.sort(key=lambda entry: (entry[0].band != "match", -entry[1].weight, entry[0].person_id))
        matches = sum(candidate.band == "match" for candidate, _ in found)
        if matches > limit or (len(found) > limit and not matches):
            raise TooManyCandidates(f"more than {limit} persons fit")
        return tuple(candidate for candidate, _ in found[:limit])

    def without_severed(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The candidates, and of two who are severed from each other the one that fits better.

        Raises TooManyCandidates if neither does: a list of both would lead from one name to the other.
        """
        strength = {candidate.person_id: candidate.strength for candidate in candidates}
        lost: set[str] = set()
        for person_id, mine in strength.items():
            for other in self._apart.get(person_id, frozenset()) & strength.keys():
                if strength[other] == mine:
                    raise TooManyCandidates("two that are apart fit equally well")
                lost.add(min(person_id, other, key=strength.__getitem__))
        return tuple(candidate for candidate in candidates if candidate.person_id not in lost)

    def severed_from(self, person_id: str) -> frozenset[str]:
        """Those who must never be seen together with a person."""
        return self._apart.get(person_id, frozenset())

    def records_of(self, person_id: str) -> tuple[RecordKey, ...]:
        """The records of one person; empty if the run does not know the id."""
        return self._owners.records_of(person_id)

    def person_of(self, record: RecordKey) -> str | None:
        """Whose a record is; None if the run has no such record."""
        return self._owners.person_of(record)

    def rows_of(self, record: RecordKey) -> tuple[list[dict[str, Any]], dict[str, set[int]]]:
        """The rows of one record as `pairwise` compares them, and its numbers; both empty if the run has no such."""
        rec = self._owners.rec_of(record)
        if rec is None:
            return [], {}
        return list(self._rows.take(self._rows.of_record(rec))), self._numbers.of_record(rec)

    def family_of(self, person_id: str) -> pa.Table:
        """Family edges with this person at either end, in the columns of `families.FAMILY`."""
        return self._family.take(pa.array(self._edges.get(person_id, ()), pa.int64()))

    def _compared(self, row: EncodedRow) -> _Asked:
        """A search row in the columns of a stored one.  Raises BadRow if it is of another profile."""
        profile = self.model.profile
        if set(row.filters) - set(FILTERS[profile]) or set(row.tokens) - set(TOKENS[profile]):
            raise BadRow(f"filters and tokens of {profile} are due")
        body: _Asked = {"birth_year": row.birth_year, "sex": row.sex}
        for name in FILTERS[profile]:
            words = row.filters.get(name)
            bits = int.from_bytes(struct.pack(f"={FILTER_WORDS}q", *(words or [0] * FILTER_WORDS)), "little")
            body |= {name: bits, f"{name}_n": None if words is None else bits.bit_count()}
        body |= {f"t_{name}": row.tokens.get(name) for name in TOKENS[profile]}
        body |= {column: known.get(body[token]) for column, (token, known) in self._frequencies.items()}
        return body

    def _hits(self, asked: Sequence[_Asked], numbers: Numbers) -> dict[str, list[_Hit]]:
        """The records that reach a band, by person, best first."""
        near = {
            unique_id for row in asked for token, block in self._blocks if row[token] is not None
            for unique_id in block.of(row[token])
        }  # fmt: skip
        for rec in self._numbers.holders(numbers):
            near.update(self._rows.of_record(rec))
        best: dict[int, tuple[Compared, _Asked, _Asked]] = {}  # by record
        for row in self._rows.take(sorted(near)):
            for other in asked:
                compared = self._comparer.compare(row, other)
                if row["rec"] not in best or compared.weight > best[row["rec"]][0].weight:
                    best[row["rec"]] = (compared, row, other)
        hits: dict[str, list[_Hit]] = defaultdict(list)
        for rec, (compared, row, other) in best.items():
            banded = band_of(compared, row, other, self._numbers.of_record(rec), numbers)
            if banded.band != "none" and (owned := self._owners.of_record(rec)) is not None:
                person_id, key = owned
                hits[person_id].append(_Hit(key, rec, compared.weight, banded, row["birth_year"], row["sex"]))
        for group in hits.values():
            group.sort(key=lambda hit: (hit.banded.band != "match", -hit.weight, hit.rec))
        return hits

    def _numbers_said(self, person_id: str, numbers: Numbers) -> tuple[list[str], list[str]]:
        """Schemes in which the person's records, all together, have a number asked; those in which they have others."""
        held: dict[str, set[int]] = defaultdict(set)
        for rec in self._owners.recs_of(person_id):
            for scheme, theirs in self._numbers.of_record(rec).items():
                held[scheme] |= theirs
        agreed, differs = numbers_said(held, numbers)
        return agreed, sorted(differs)


_Asked = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Hit:
    """One record that reached a band."""

    key: RecordKey
    rec: int
    weight: float
    banded: Banded
    birth_year: int | None
    sex: str | None


@dataclass(frozen=True, slots=True)
class _Lookup:
    """Values by key, several a key: two arrays, sorted by key and then value."""

    keys: Sequence[int]
    values: Sequence[int]

    @classmethod
    def read(cls, db: duckdb.DuckDBPyConnection, query: str) -> _Lookup:
        """The key and value columns of a query."""
        table = db.sql(f"SELECT * FROM ({query}) ORDER BY ALL").to_arrow_table()
        return cls(*(_whole_numbers(column) for column in table.columns))

    def of(self, key: int) -> Sequence[int]:
        """The values of one key."""
        start = bisect_left(self.keys, key)
        return self.values[start : bisect_right(self.keys, key, lo=start)]


class _Rows:
    """The rows of the working table, by unique_id, which counts from 1 without a gap."""

    def __init__(self, db: duckdb.DuckDBPyConnection, model: Model) -> None:
        self._filters = {name: _words_of(db, name) for name in FILTERS[model.profile]}
        columns = [column for column in columns_compared(model) if "_h" not in column]
        names = ", ".join(sorted({*columns, "birth_year", "rec"}))
        self._table = db.sql(f"SELECT {names} FROM rows ORDER BY unique_id").to_arrow_table().combine_chunks()
        self._of_record = _Lookup.read(db, "SELECT rec, unique_id FROM rows")

    def of_record(self, rec: int) -> Sequence[int]:
        """The unique_id of each row of a record."""
        return self._of_record.of(rec)

    def take(self, unique_ids: Sequence[int]) -> Iterator[_Asked]:
        """These rows, each filter as one whole number."""
        places = [unique_id - 1 for unique_id in unique_ids]
        for place, row in zip(places, self._table.take(pa.array(places, pa.int64())).to_pylist(), strict=True):
            for name, held in self._filters.items():
                row[name] = int.from_bytes(held[place * FILTER_BYTES : (place + 1) * FILTER_BYTES], "little")
            yield row


class _NumbersHeld:
    """The identifiers of the records, and whose they are."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._recs = {
            scheme: _Lookup.read(db, f"SELECT number, rec FROM numbers WHERE scheme = '{scheme}'")
            for scheme in ALL_SCHEMES
        }
        self._numbers = {
            scheme: _Lookup.read(db, f"SELECT rec, number FROM numbers WHERE scheme = '{scheme}'")
            for scheme in ALL_SCHEMES
        }
        aliases = db.execute("SELECT scheme, token, least FROM aliases").fetchall()
        self._aliases = {(scheme, token): least for scheme, token, least in aliases}

    def named(self, rows: Iterable[EncodedRow]) -> dict[str, set[int]]:
        """The numbers that rows were asked with, each named as the stored ones are: by the least of its chain."""
        found: dict[str, set[int]] = defaultdict(set)
        for row in rows:
            for scheme, names in [*SCHEMES.items(), (LOCAL, (LOCAL,))]:
                for token in (row.identifiers.get(name) for name in names):
                    if token is not None:
                        found[scheme].add(self._aliases.get((scheme, token), token))
        return dict(found)

    def holders(self, numbers: Numbers) -> Iterator[int]:
        """The records that have one of these."""
        for scheme, several in numbers.items():
            for number in several:
                yield from self._recs[scheme].of(number)

    def of_record(self, rec: int) -> dict[str, set[int]]:
        """The numbers of one record."""
        return {scheme: set(held) for scheme, lookup in self._numbers.items() if (held := lookup.of(rec))}


class _Owners:
    """Whose each record is, and the records of each person."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        owners = db.sql("SELECT * FROM owners ORDER BY person_id, agency, flow, record_ref").to_arrow_table()
        self._keys = owners.select(["agency", "flow", "record_ref"]).combine_chunks()
        self._recs = owners["rec"].combine_chunks()
        self._persons = owners["person_id"].combine_chunks()
        counted = db.execute("SELECT person_id, count(*) FROM owners GROUP BY 1 ORDER BY 1").fetchall()
        ends = accumulate(count for _, count in counted)
        self._places = {
            person_id: range(end - count, end) for (person_id, count), end in zip(counted, ends, strict=True)
        }
        known = sorted((rec, place) for place, rec in enumerate(self._recs.to_pylist()) if rec is not None)
        self._by_rec = _Lookup(array("q", (rec for rec, _ in known)), array("q", (place for _, place in known)))

    def records_of(self, person_id: str) -> tuple[RecordKey, ...]:
        """The records of one person."""
        places = self._places.get(person_id, range(0))
        return tuple(self._key(place) for place in places)

    def recs_of(self, person_id: str) -> list[int]:
        """The numbers of one person's records in the working tables."""
        places = self._places.get(person_id, range(0))
        return [rec for place in places if (rec := self._recs[place].as_py()) is not None]

    def rec_of(self, record: RecordKey) -> int | None:
        """The number of a record in the working tables."""
        place = self._place(record)
        return None if place is None else self._recs[place].as_py()

    def person_of(self, record: RecordKey) -> str | None:
        """Whose a record is."""
        place = self._place(record)
        return None if place is None else str(self._persons[place])

    def _place(self, record: RecordKey) -> int | None:
        same = [pc.equal(self._keys[n], part) for n, part in enumerate(record)]
        place = pc.index(pc.and_(pc.and_(same[0], same[1]), same[2]), True).as_py()
        return None if place < 0 else int(place)

    def of_record(self, rec: int) -> tuple[str, RecordKey] | None:
        """The person and key of one record; None if the run gave it to nobody."""
        for place in self._by_rec.of(rec):
            return str(self._persons[place]), self._key(place)
        return None

    def _key(self, place: int) -> RecordKey:
        agency, flow, record_ref = (str(self._keys[column][place]) for column in range(3))
        return agency, flow, record_ref


def _whole_numbers(column: pa.ChunkedArray) -> Sequence[int]:
    """A column without nulls as an array that `bisect` reads."""
    numbers = array("q")
    for chunk in column.cast(pa.int64()).chunks:
        numbers.frombytes(memoryview(chunk.buffers()[1])[chunk.offset * 8 : (chunk.offset + len(chunk)) * 8])
    return numbers


def _words_of(db: duckdb.DuckDBPyConnection, name: str) -> memoryview:
    """A filter of every row, in the order of unique_id, FILTER_BYTES each; zeros where it is missing."""
    low = f"({name}_h{{}} & {(1 << 64) - 1}::HUGEINT)"
    halves = [
        half.format(n, n)
        for n in range(FILTER_WORDS // 2)
        for half in (
            f"coalesce(({name}_h{{}} - {low}) // {1 << 64}::HUGEINT, 0)::BIGINT",
            f"coalesce({low} - CASE WHEN {low} >= {HALF} THEN {1 << 64}::HUGEINT ELSE 0 END, 0)::BIGINT",
        )
    ]
    columns = ", ".join(f"{sql} AS w{n}" for n, sql in enumerate(halves))
    table = db.sql(f"SELECT {columns} FROM rows ORDER BY unique_id").to_arrow_table()
    words = array("q", bytes(table.num_rows * FILTER_BYTES))
    for n, column in enumerate(table.columns):
        words[n::FILTER_WORDS] = array("q", _whole_numbers(column))
    return memoryview(words).cast("B")


def _rare_names(model: Model) -> tuple[str, ...]:
    """The names whose frequency weighs."""
    return tuple(comparison.field for comparison in comparisons(model.profile) if comparison.tf_column)


def _fits_despite_number(hit: _Hit) -> bool:
    """Whether a record may be the one asked for though its person is known under another number.

    As for a pair of records: a sister at the same address has another number, and is not the child who is looked for.
    """
    return hit.banded.rule != "twin" and probability_of(hit.weight) >= MATCH_BAR


def _candidate(person_id: str, hits: Sequence[_Hit], other_numbers: Sequence[str]) -> tuple[Candidate, _Hit]:
    best = hits[0]
    said = best.banded
    # The person is known under another number by a record that was not compared: as much a conflict as on one that was.
    clash = tuple(scheme for scheme in other_numbers if scheme not in said.differs)
    candidate = Candidate(
        person_id=person_id,
        band="match" if said.band == "match" and not clash else "possible",
        upper=said.upper and not clash,
        agreed=said.agreed,
        differs=(*said.differs, *clash),
        records=tuple(hit.key for hit in hits if hit.banded.band == said.band),
        certain=tuple(hit.key for hit in hits if hit.banded.upper and not clash),
        compared={hit.key: (hit.banded.agreed, (*hit.banded.differs, *clash)) for hit in reversed(hits)},
        birth_year=best.birth_year,
        sex=best.sex,
        strength=(
            said.band == "match" and not clash, any(scheme in said.agreed for scheme in ALL_SCHEMES),
            round(best.weight, 6),
        ),
    )  # fmt: skip
    return candidate, best


def _persons_apart(clusters: pa.Table, severed: AbstractSet[RecordPair]) -> dict[str, frozenset[str]]:
    """For each person whose record is severed from another's: those others."""
    around = neighbours(severed)
    if not around:
        return {}
    refs = pa.array(sorted({ref for _, _, ref in around}), pa.string())
    near = clusters.filter(pc.is_in(clusters["record_ref"], value_set=refs)).to_pylist()
    owner = {(row["agency"], row["flow"], row["record_ref"]): row["person_id"] for row in near}
    apart: dict[str, set[str]] = defaultdict(set)
    for record, others in around.items():
        if record in owner:
            apart[owner[record]] |= {owner[other] for other in others if other in owner} - {owner[record]}
    return {person_id: frozenset(others) for person_id, others in apart.items()}


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
