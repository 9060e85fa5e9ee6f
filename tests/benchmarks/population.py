"""A made-up population of any size for benchmarks: families, three agencies' records of them, their slips, encoded.

The area generator of `linkage.evaluation` tells a whole area and takes minutes for a million records; this one draws
columns at once.  Names are its names, in its frequencies; dates are uniform over eighteen years; a postcode holds about
five families with children.  Encodings are real: `encode_people` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from linkage.agency.encode import DEFAULT_PROFILE, encode_people, household_token
from linkage.agency.keys import LinkageKeys
from linkage.agency.people import STANDARD_SCHEMA
from linkage.agency.standardise import family_name, given_name
from linkage.evaluation.area.names import CUSTOMS, SHARES, name_book
from linkage.matching.overrides import RecordKey
from linkage.records import Profile

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

KEYS: Final = LinkageKeys(bytes(range(32)), partnership="northshire", epoch="2026-1")
HEALTH, EDUCATION, POLICE = 0, 1, 2
SOURCES: Final = (("northshire-icb", "health"), ("northshire-council", "education"), ("northshire-police", "police"))
KNOWN: Final = (0.95, 0.70, 0.15)  # of all children, to each agency
RECORDS_EACH: Final = sum(KNOWN)
DAYS: Final = 6570
FIRST_DAY: Final = date(2008, 1, 1)
FAMILIES_A_POSTCODE: Final = 5
POSTCODES_A_SECTOR: Final = 80
MISSING: Final = -1
GOLDEN: Final = int(2**256 * 0.6180339887498949) | 1
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
ENCODED_AT_ONCE: Final = 200_000


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records in clear, a column each; names are places in `words`, other values numbers, MISSING where there is none.

    `child` says whose record it is; `place` is 0 but for the alternative row of a record.
    """

    words: list[str]
    child: Ints
    source: Ints
    ref: Ints
    place: Ints
    given: Ints
    family: Ints
    born: Ints
    home: Ints
    sex: Ints
    nhs: Ints
    upn: Ints
    former_upn: Ints
    pnc: Ints
    household: Ints

    def take(self, rows: Ints | Flags) -> Records:
        """Some of the rows."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    def key(self, row: int) -> RecordKey:
        """What a link run calls the record of a row."""
        agency, flow = SOURCES[self.source[row]]
        return (agency, flow, _ref(int(self.ref[row])))

    def true_children(self) -> dict[RecordKey, int]:
        """Whose each record is."""
        return {self.key(row): int(child) for row, child in enumerate(self.child.tolist())}


_COLUMNS: Final = tuple(name for name in Records.__dataclass_fields__ if name != "words")


def population(records: int, *, seed: int = 1) -> Records:
    """About so many records of one area's children; the same for the same seed."""
    chance = np.random.default_rng(seed)
    words, given, family, child = _children(int(records / RECORDS_EACH), chance)
    parts = []
    for source, share in enumerate(KNOWN):
        whose = np.flatnonzero(chance.random(len(given)) < share)
        parts.append(_as_known(source, whose, given, family, child, words, chance))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS}
    return Records(words=words, **joined)


def after_a_night(before: Records, share: float = 0.02, *, seed: int = 2) -> Records:
    """The same records a night later: of `share` of them half are changed, a quarter withdrawn, a quarter new."""
    chance = np.random.default_rng(seed)
    firsts = np.flatnonzero(before.place == 0)
    touched = chance.permutation(firsts)[: int(len(firsts) * share)]
    changed, withdrawn, like = np.split(touched, [len(touched) // 2, len(touched) * 3 // 4])
    columns = {name: getattr(before, name).copy() for name in _COLUMNS}
    homes = int(before.home.max()) + 1
    half = len(changed) // 2
    columns["home"][changed[:half]] = chance.integers(0, homes, half)
    columns["family"][changed[half:]] = chance.permutation(columns["family"][changed[half:]])
    fresh = {name: values[like].copy() for name, values in columns.items()}
    fresh["ref"] = np.arange(len(like)) + int(before.ref.max()) + 1
    fresh["source"] = (fresh["source"] + 1) % len(SOURCES)  # the same child, as an agency knows it that did not before
    unseen = len(like) // 2  # and children whom nobody knew
    fresh["child"][:unseen] = np.arange(unseen) + int(before.child.max()) + 1
    fresh["born"][:unseen] = chance.integers(0, DAYS, unseen)
    for name in ("nhs", "upn", "former_upn", "pnc"):
        fresh[name][:] = MISSING
    gone = np.zeros(int(before.ref.max()) + 1, np.bool_)
    gone[columns["ref"][withdrawn]] = True
    stay = ~gone[columns["ref"]]
    return Records(
        words=before.words, **{name: np.concatenate([columns[name][stay], fresh[name]]) for name in _COLUMNS}
    )


def encoded(records: Records, profile: Profile = DEFAULT_PROFILE) -> pa.Table:
    """The rows as the broker holds them: the wire's columns that a link run reads, agency and flow."""
    words = pa.array([*records.words, None], pa.string())
    days = pa.array([f"{FIRST_DAY + timedelta(days=n):%Y%m%d}" for n in range(DAYS)] + [None], pa.string())
    homes = pa.array([_postcode(n) for n in range(int(records.home.max()) + 1)] + [None], pa.string())
    parts = []
    for source, (agency, flow) in enumerate(SOURCES):
        of_source = records.take(records.source == source)
        for start in range(0, len(of_source.child), ENCODED_AT_ONCE):
            some = of_source.take(np.arange(start, min(start + ENCODED_AT_ONCE, len(of_source.child))))
            count = len(some.child)
            columns: dict[str, Any] = {
                "given_name": words.take(pa.array(some.given)),
                "family_name": words.take(pa.array(some.family)),
                "date_of_birth": days.take(pa.array(np.where(some.born == MISSING, DAYS, some.born))),
                "postcode": homes.take(pa.array(np.where(some.home == MISSING, len(homes) - 1, some.home))),
                "nhs_number": _texts(some.nhs, "9"), "upn": _texts(some.upn, "u"),
                "former_upn": _texts(some.former_upn, "u"), "pnc_id": _texts(some.pnc, "p"),
            }  # fmt: skip
            people = pa.table({name: columns.get(name, pa.nulls(count, pa.string())) for name in STANDARD_SCHEMA.names})
            table = encode_people(people, KEYS, profile, agency=agency)
            known = some.born != MISSING
            years = np.array([(FIRST_DAY + timedelta(days=n)).year for n in range(DAYS)])[some.born]
            parts.append(
                pa.table({
                    "agency": pa.array([agency]).take(pa.array(np.zeros(count, np.int64))),
                    "flow": pa.array([flow]).take(pa.array(np.zeros(count, np.int64))),
                    "record_ref": pa.array([_ref(ref) for ref in some.ref.tolist()], pa.string()),
                    **{name: table[name] for name in table.column_names},
                    "birth_year": pa.array(years, pa.int32(), mask=~known),
                    "sex": pa.array(["M", "F", None]).take(pa.array(np.where(some.sex == MISSING, 2, some.sex))),
                    "sever_ref": pa.nulls(count, pa.string()),
                })
            )  # fmt: skip
    return pa.concat_tables(parts)


def households(records: Records, profile: Profile = DEFAULT_PROFILE) -> pa.Table:
    """The household rows of the wire, with agency and flow, of the records that have one."""
    some = records.take((records.household != MISSING) & (records.place == 0))
    tokens = {home: household_token(KEYS, profile, str(home)) for home in set(some.household.tolist())}
    names = [SOURCES[source] for source in some.source.tolist()]
    return pa.table({
        "agency": pa.array([agency for agency, _ in names], pa.string()),
        "flow": pa.array([flow for _, flow in names], pa.string()),
        "ref_a": pa.array([_ref(ref) for ref in some.ref.tolist()], pa.string()),
        "type": pa.array(["household"] * len(names), pa.string()),
        "household": pa.array([tokens[home] for home in some.household.tolist()], pa.int64()),
    })  # fmt: skip


def _children(count: int, chance: np.random.Generator) -> tuple[list[str], Ints, Ints, dict[str, Ints]]:
    """Words, given and family name of each child, and the other columns: families of one to five at one address."""
    sizes = chance.choice([1, 2, 3, 4, 5], count, p=[0.45, 0.38, 0.12, 0.04, 0.01])
    family = np.repeat(np.arange(count), sizes)[:count]
    first = np.concatenate([[True], family[1:] != family[:-1]])
    families = int(family[-1]) + 1
    custom = chance.choice(len(CUSTOMS), families, p=np.array(SHARES) / sum(SHARES))
    sex = chance.integers(0, 2, count)
    book = name_book()
    given, surname = np.zeros(count, np.int64), np.zeros(families, np.int64)
    for n, name in enumerate(CUSTOMS):
        bear = book.family.get(name, book.family["english"])
        surname[custom == n] = bear(chance.random(int((custom == n).sum())))
        for one in (0, 1):
            chosen = (custom[family] == n) & (sex == one)
            given[chosen] = book.given[name][one](chance.random(int(chosen.sum())))
    words, standard = _standard(book.words)
    born = chance.integers(0, DAYS, count)
    twins = np.flatnonzero(~first & (chance.random(count) < 0.03))
    born[twins] = born[twins - 1]
    home = chance.integers(0, max(1, families // FAMILIES_A_POSTCODE), families)
    columns = {"born": born, "home": home[family], "sex": sex, "household": family, "number": chance.permutation(count)}
    return words, standard[given], standard[surname][family], columns


def _standard(names: list[str]) -> tuple[list[str], Ints]:
    """The distinct standard forms of names, and for each name the place of its own."""
    made = [given_name(name).value or family_name(name).value or "unnamed" for name in names]
    order: dict[str, int] = {}
    return_to = np.array([order.setdefault(one, len(order)) for one in made], np.int64)
    return list(order), return_to


def _as_known(
    source: int,
    whose: Ints,
    given: Ints,
    family: Ints,
    child: dict[str, Ints],
    words: list[str],
    chance: np.random.Generator,
) -> dict[str, Ints]:
    """One agency's records of these children, with its slips and gaps."""
    count = len(whose)

    def slip(share: float) -> Flags:
        return chance.random(count) < share

    held = {name: values[whose].copy() for name, values in child.items() if name != "number"}
    held |= {"given": given[whose], "family": family[whose], "child": whose}
    number = child["number"][whose]
    for name, share in (("given", 0.03), ("family", 0.02)):
        _mistype(held[name], slip(share), words, chance)
    other = slip(0.03)  # known by another name altogether, or by the other parent's
    held["given"][other] = chance.permutation(held["given"][other])
    other = slip(0.03)
    held["family"][other] = chance.permutation(held["family"][other])
    homes = int(child["home"].max()) + 1
    moved = slip((0.08, 0.05, 0.15)[source])
    held["home"][moved] = chance.integers(0, homes, int(moved.sum()))
    late = slip(0.012)
    held["born"][late] = (held["born"][late] + chance.integers(1, 40, int(late.sum()))) % DAYS
    for name, share in (("home", 0.02), ("born", 0.007), ("sex", 0.02)):
        held[name][slip(share)] = MISSING
    held["nhs"] = np.where(slip((0.99, 0.40, 0.05)[source]), number, MISSING)
    held["upn"] = np.where(slip((0.0, 0.95, 0.0)[source]), number, MISSING)
    held["former_upn"] = np.where(slip(0.02) & (held["upn"] != MISSING), number + 10**8, MISSING)
    held["pnc"] = np.where(slip((0.0, 0.0, 0.9)[source]), number, MISSING)
    wrong = slip(0.001)  # another child's number
    held["nhs"][wrong] = chance.permutation(held["nhs"][wrong])
    twice = np.flatnonzero(slip(0.0002))  # and a number that one agency gives to two
    held["nhs"][twice] = held["nhs"][twice - 1]
    held["household"][slip(0.3)] = MISSING
    held["source"] = np.full(count, source)
    held["ref"] = np.arange(count) * len(SOURCES) + source
    held["place"] = np.zeros(count, np.int64)
    again = np.flatnonzero(slip(0.03))  # a second row: another name, or an earlier address
    extra = {name: values[again].copy() for name, values in held.items()}
    half = len(again) // 2
    extra["family"][:half] = chance.permutation(extra["family"][:half])
    extra["home"][half:] = chance.integers(0, homes, len(again) - half)
    extra["place"][:] = 1
    return {name: np.concatenate([held[name], extra[name]]) for name in _COLUMNS}


def _mistype(column: Ints, where: Flags, words: list[str], chance: np.random.Generator) -> None:
    """One letter wrong, left out or doubled, in the chosen rows."""
    rows = np.flatnonzero(where)
    spots, letters, kinds = (
        chance.random(len(rows)),
        chance.integers(0, 26, len(rows)),
        chance.integers(0, 3, len(rows)),
    )
    for row, spot, letter, kind in zip(rows.tolist(), spots.tolist(), letters.tolist(), kinds.tolist(), strict=True):
        word = words[column[row]]
        at = int(spot * len(word))
        middle = (LETTERS[letter], "", word[at] * 2)[kind] if len(word) > 1 else word
        column[row] = len(words)
        words.append(word[:at] + middle + word[at + 1 :])


def _postcode(number: int) -> str:
    sector, unit = divmod(number, POSTCODES_A_SECTOR)
    return f"nx{sector // 10 + 1}{sector % 10}{LETTERS[unit // 20]}{LETTERS[unit % 20]}"


def _ref(number: int) -> str:
    """A record_ref as an agency's keyed token would be: 64 hex digits in no order."""
    return f"{(number * GOLDEN + 7) % 2**256:064x}"


def _texts(numbers: Ints, kind: str) -> pa.Array:
    return pa.array([None if n == MISSING else f"{kind}{n:09d}" for n in numbers.tolist()], pa.string())
