"""Names, dates, postcodes and identifiers in comparable form; whatever only stands for "missing" becomes missing.

Everything here happens inside the agency, before any hash.  A value's form never depends on the rest of the extract,
so that one child gives the same bytes in every agency and on every night.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from anyascii import anyascii

from linkage.agency import identifiers
from linkage.agency.people import STANDARD_IDENTIFIERS, STANDARD_SCHEMA, Finding, Person
from linkage.records import told_year

Flags = npt.NDArray[np.bool_]

BABY_NAMES: Final = frozenset(
    {
        "baby", "babyboy", "babygirl", "twin1", "twin2", "infant", "unborn", "male", "female", "boy", "girl", "mr",
        "miss",
    }
)  # fmt: skip
"""Given names that say only that there is none yet."""

NOT_VALUES: Final = frozenset({"unknown", "notknown", "na", "none", "test", "xxx", "refused"})

TITLES: Final = frozenset(
    {
        "mr",
        "mrs",
        "miss",
        "ms",
        "mx",
        "master",
        "dr",
        "prof",
        "professor",
        "rev",
        "reverend",
        "sir",
        "dame",
        "lady",
        "lord",
    }
)

DOB_QUALITIES: Final = ("full", "month", "year", "default")
SEXES: Final = {
    "f": "F", "female": "F", "girl": "F", "woman": "F", "2": "F",
    "m": "M", "male": "M", "boy": "M", "man": "M", "1": "M",
    "i": "I", "indeterminate": "I", "intersex": "I", "9": "I",
    "u": None, "unknown": None, "notknown": None, "notspecified": None, "x": None, "0": None,
}  # fmt: skip
"""Our codes, NHS person stated gender codes, and words; unknown is missing."""

BAD_BIRTHS: Final = frozenset({"bad_date", "date_in_future", "date_too_early"})
"""What may be wrong with a date of birth so that it is none: the person is then sent without it."""
JANUARY_SHARE: Final = 0.01  # of dates of birth on 1 January; about .0027 are, by chance
JANUARY_FEWEST: Final = 3  # of them: fewer are no pattern, however short the extract
EXPECTED_WITHIN: Final = timedelta(days=300)  # a date of birth ahead by less is an unborn child's expected date

_BRACKETED: Final = re.compile(r"[(\[{<].*?([)\]}>]|$)")
_NOT_ALPHANUMERIC: Final = re.compile(r"[^a-z0-9]+")
_LETTER_CODES: Final = {
    letter: code
    for letters, code in (("bfpv", "1"), ("cgjkqsxz", "2"), ("dt", "3"), ("l", "4"), ("mn", "5"), ("r", "6"))
    for letter in letters
}


class AmbiguousDates(ValueError):
    """Too many dates of birth fall on 1 January for them all to be real; the message names the mapping's key to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How one extract is to be read."""

    date_format: str = "%Y-%m-%d"
    default_dates: frozenset[str] = frozenset()  # "MM-DD": the source's unknown day and month
    earliest_year: int | None = 1900  # None: labelled sets from other centuries
    uk_postcodes: bool = True  # False: labelled sets from other countries
    not_postcodes: frozenset[str] = frozenset()  # an agency's own offices: they stand for missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardised:
    """People in standard form, a row for each row given, with quality flags beside and findings by row number (0..)."""

    people: pa.Table  # people.STANDARD_SCHEMA
    birth_year: pa.Array  # int32, null if not known: as `told_year` gives it
    sex: pa.Array  # "F", "M", "I" or null
    default_dob: Flags
    baby_name: Flags
    bad_identifier: Flags
    findings: Sequence[tuple[int, Finding]]


class Text(NamedTuple):
    """A field's standard form (None: missing), whether it stood in for a missing value, and what is wrong with it."""

    value: str | None
    flagged: bool = False
    finding: Finding | None = None


MISSING: Final = Text(None)


def standardise_people(raw: pa.Table, rules: Rules, *, today: date) -> Standardised:
    """Bring extracted text columns (`people.PERSON_FIELDS`, any may be left out) to standard form."""
    rows = raw.num_rows
    findings: list[tuple[int, Finding]] = []
    columns: dict[str, pa.Array] = {}
    flags = {flag: np.zeros(rows, np.bool_) for flag in ("given_name", "date_of_birth", "identifier")}

    def fill(field: str, standardise: Callable[[str], Text], flag: str | None = None) -> None:
        columns[field], flagged = _by_distinct(raw, field, standardise, findings)
        if flag:
            flags[flag] |= flagged

    fill("given_name", given_name, "given_name")
    fill("family_name", family_name)
    offices = {comparable(office) for office in rules.not_postcodes}
    place = postcode if rules.uk_postcodes else foreign_postcode
    fill("postcode", lambda text: MISSING if comparable(text) in offices else place(text))
    for field in STANDARD_IDENTIFIERS:
        check = identifiers.CHECKS.get(field)
        fill(field, local_nominal if check is None else _checked(field, check), "identifier")
    columns["date_of_birth"], years, flags["date_of_birth"] = _dates_of_birth(raw, rules, today, findings)
    sexes, _ = _by_distinct(raw, "sex", sex, findings)
    return Standardised(
        people=pa.table({name: columns[name] for name in STANDARD_SCHEMA.names}),
        birth_year=years,
        sex=sexes,
        default_dob=flags["date_of_birth"],
        baby_name=flags["given_name"],
        bad_identifier=flags["identifier"],
        findings=findings,
    )


def standardise_person(person: Person, *, today: date) -> Standardised:
    """The same for one typed person, with ISO dates."""
    typed = {field: pa.array([getattr(person, field) or None], pa.string()) for field in Person.__dataclass_fields__}
    return standardise_people(pa.table(typed), Rules(), today=today)


def check_person(person: Person, *, today: date) -> list[Finding]:
    """What of a typed person can't be used, field by field; never the value."""
    return [finding for _, finding in standardise_person(person, today=today).findings]


def share_on_1_january(raw: pa.Table, rules: Rules) -> None:
    """Raises AmbiguousDates if over 1 % of dates of birth are 1 January and nothing says which of them are real.

    An extract that gives `dob_quality`, or a mapping that declares `default_date`, has said so.
    """
    if "dob_quality" in raw.column_names or rules.default_dates or "date_of_birth" not in raw.column_names:
        return
    given = pc.value_counts(raw.column("date_of_birth").combine_chunks().drop_null())
    total = january = 0
    for text, count in zip(given.field("values").to_pylist(), given.field("counts").to_pylist(), strict=True):
        day = _day(text, rules.date_format)
        if day is not None and day.year != 1900:
            total += count
            january += count if (day.month, day.day) == (1, 1) else 0
    if january >= JANUARY_FEWEST and january > JANUARY_SHARE * total:
        raise AmbiguousDates(
            f"{january} of {total} dates of birth are 1 January, more than {JANUARY_SHARE:.0%}: if that is the "
            'source\'s "unknown", set persons.default_date = ["01-01"]; if the source knows which are real, map '
            "persons.columns.dob_quality"
        )


# --- One value -------------------------------------------------------------------------------------------------------


def comparable(text: str) -> str:
    """Letters and digits only, in ASCII and lower case.

    NFKC, not NFKD: NFKD takes Hangul apart.

    >>> [comparable(name) for name in ("Zoë", "Łukasz", "O'Brien-Jones", "김")]
    ['zoe', 'lukasz', 'obrienjones', 'gim']
    """
    if text.isascii():  # as both of these leave it: most of an extract
        return text.lower() if text.isalnum() else _NOT_ALPHANUMERIC.sub("", text.lower())
    return _NOT_ALPHANUMERIC.sub("", anyascii(unicodedata.normalize("NFKC", text)).lower())


def given_name(text: str) -> Text:
    """The first given name, without title or bracketed remark; one that stands for "none yet" is missing, and flagged.

    >>> given_name("Dr. Zoë Anne (known as Zed)").value
    'zoe'
    >>> given_name("Baby Boy")
    Text(value=None, flagged=True, finding=None)
    """
    words = [word for word in map(comparable, _BRACKETED.sub(" ", text).split()) if word]
    while len(words) > 1 and words[0] in TITLES:
        del words[0]
    if not words or "".join(words) in NOT_VALUES or words[0] in NOT_VALUES:
        return MISSING
    if "".join(words) in BABY_NAMES or words[0] in BABY_NAMES:
        return Text(None, flagged=True)
    return Text(words[0])


def family_name(text: str) -> Text:
    """The whole family name without bracketed remarks.

    >>> family_name("van der Berg [prev. Smith]").value
    'vanderberg'
    """
    name = comparable(_BRACKETED.sub(" ", text))
    return MISSING if not name or name in NOT_VALUES else Text(name)


def postcode(text: str) -> Text:
    """Outward and inward part without a space, lower case.  Pseudo postcodes (ZZ99 ...) are missing."""
    kept = comparable(text)
    if not kept or kept in NOT_VALUES:
        return MISSING
    checked = identifiers.postcode(text)
    if checked.value is None:
        if checked.sentinel:
            return Text(None, flagged=True)
        return Text(None, flagged=True, finding=_finding("postcode", checked))
    return Text(checked.value.lower())


def foreign_postcode(text: str) -> Text:
    """Any postcode, for labelled sets of other countries."""
    kept = comparable(text)
    return MISSING if not kept or kept in NOT_VALUES else Text(kept)


def sex(text: str) -> Text:
    """`F`, `M`, `I` (indeterminate) or missing."""
    kept = comparable(text)
    if not kept or kept in NOT_VALUES:
        return MISSING
    if kept not in SEXES:
        hint = "use F, M, I or U, or say in persons.values.sex what the source's code means"
        return Text(None, finding=Finding(field="sex", code="unknown_value", hint=hint, severity="warning"))
    return Text(SEXES[kept])


def local_nominal(text: str) -> Text:
    """An agency's own number for a person, in capitals without blanks."""
    kept = "".join(unicodedata.normalize("NFKC", text).upper().split())
    stripped = comparable(kept)
    if not stripped or stripped in NOT_VALUES or set(stripped) <= {"0"} or set(stripped) <= {"9"}:
        return MISSING
    return Text(kept)


@lru_cache(maxsize=1 << 16)
def soundex(name: str) -> str | None:
    """Soundex of a standard name, lower case; None if it holds no letter.  Digits are dropped first.

    Adjacent equal codes count once, also across `h` and `w`; a vowel or `y` parts them.

    >>> [soundex(name) for name in ("robert", "ashcraft", "zoe", "7")]
    ['r163', 'a261', 'z000', None]
    """
    letters = [letter for letter in name if letter.isalpha()]
    if not letters:
        return None
    made, last = letters[0], _LETTER_CODES.get(letters[0], "")
    for letter in letters[1:]:
        if letter in "hw":
            continue
        code = _LETTER_CODES.get(letter, "")
        if code and code != last:
            made += code
        last = code
    return made[:4].ljust(4, "0")


# --- Dates of birth --------------------------------------------------------------------------------------------------


class _Birth(NamedTuple):
    day: str | None  # YYYYMMDD, if it may be compared
    year: int | None
    defaulted: bool
    finding: Finding | None


def _dates_of_birth(
    raw: pa.Table, rules: Rules, today: date, findings: list[tuple[int, Finding]]
) -> tuple[pa.Array, pa.Array, Flags]:
    """Each row's date of birth, year of birth, and whether it only stood for an unknown one, or could be none."""
    days, day_of = distinct_texts(raw, "date_of_birth")
    said = "dob_quality" in raw.column_names
    if said:
        given, _ = _by_distinct(raw, "dob_quality", _dob_quality, findings)
        qualities, quality_of = distinct_texts(pa.table({"dob_quality": given}), "dob_quality")
    else:
        qualities, quality_of = [None], np.zeros(raw.num_rows, np.int64)
    used, which = np.unique(day_of * len(qualities) + quality_of, return_inverse=True)
    births = [
        _birth(days[one // len(qualities)], qualities[one % len(qualities)], said=said, rules=rules, today=today)
        for one in used.tolist()
    ]
    _report([birth.finding for birth in births], which, findings)
    taken = pa.array(which, pa.int64())
    return (
        pa.array([birth.day for birth in births], pa.string()).take(taken),
        pa.array([birth.year for birth in births], pa.int32()).take(taken),
        np.array([birth.defaulted for birth in births], np.bool_)[which],
    )


def _birth(  # noqa: PLR0911 - a list of cases, in the order in which they count
    text: str | None, quality: str | None, *, said: bool, rules: Rules, today: date
) -> _Birth:
    if text is None or comparable(text) in NOT_VALUES or not comparable(text):
        return _Birth(None, None, False, None)
    day = _day(text, rules.date_format)
    if day is None:
        return _bad_birth("bad_date", f"a real date in the format {rules.date_format!r} is due")
    if day > today + EXPECTED_WITHIN:
        return _bad_birth("date_in_future", "the date of birth is in the future")
    if (day.year, day.month, day.day) == (1900, 1, 1):
        return _Birth(None, None, True, None)
    if rules.earliest_year is not None and day.year < rules.earliest_year:
        return _bad_birth("date_too_early", f"the date of birth is before {rules.earliest_year}")
    if day > today:
        return _Birth(
            None, None, True, _birth_finding("expected_date", "not born yet: the date is not used", "warning")
        )
    year = told_year(day.year, today.year)
    first_of_january = (day.month, day.day) == (1, 1) and said and quality != "full"
    if first_of_january or quality == "default" or day.strftime("%m-%d") in rules.default_dates:
        return _Birth(None, year, True, None)
    return _Birth(f"{day.year:04}{day.month:02}{day.day:02}", year, False, None)


def _birth_finding(code: str, hint: str, severity: Literal["error", "warning"]) -> Finding:
    return Finding(field="date_of_birth", code=code, hint=hint, severity=severity)


def _bad_birth(code: str, hint: str) -> _Birth:
    """The date is left out and flagged, and the child stays: a slip in a date must leave no child unseen."""
    return _Birth(None, None, True, _birth_finding(code, f"{hint}; sent without it", "warning"))


def _dob_quality(text: str) -> Text:
    kept = comparable(text)
    if kept in DOB_QUALITIES:
        return Text(kept)
    hint = f"one of {', '.join(DOB_QUALITIES)} is due; say in persons.values.dob_quality what the source's code means"
    return Text(None, finding=Finding(field="dob_quality", code="unknown_value", hint=hint, severity="warning"))


@lru_cache(maxsize=1 << 16)
def _day(text: str, date_format: str) -> date | None:
    """The date, or None if `text` is not one.  A time of day after an ISO date, as Parquet prints it, is cut."""
    text = text.strip()
    try:
        if date_format == "%Y-%m-%d":
            if len(text) > 10 and text[10] in " T":
                text = text[:10]
            return date.fromisoformat(text) if len(text) == 10 else None
        return datetime.strptime(text, date_format).date()  # noqa: DTZ007 - a date of birth has no time zone
    except ValueError:
        return None


def parse_date(text: str, date_format: str = "%Y-%m-%d") -> date | None:
    """A date in the extract's format, or None if `text` is not a real one."""
    return _day(text, date_format)


# --- Columns ---------------------------------------------------------------------------------------------------------


def distinct_texts(raw: pa.Table, field: str) -> tuple[list[str | None], npt.NDArray[np.int64]]:
    """The distinct texts of a column, None for missing after them, and which of these each row has."""
    if field not in raw.column_names:
        return [None], np.zeros(raw.num_rows, np.int64)
    coded = raw.column(field).combine_chunks().dictionary_encode()
    texts = coded.dictionary.to_pylist()
    return [*texts, None], coded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).astype(np.int64)


def _by_distinct(
    raw: pa.Table, field: str, standardise: Callable[[str], Text], findings: list[tuple[int, Finding]]
) -> tuple[pa.Array, Flags]:
    """Standardise each distinct value once; what is wrong is said for each row that has it."""
    texts, which = distinct_texts(raw, field)
    made = [MISSING if text is None else standardise(text) for text in texts]
    wrong = [
        replace(one.finding, field=field) if one.finding is not None and one.finding.field != field else one.finding
        for one in made
    ]
    _report(wrong, which, findings)
    values = pa.array([one.value for one in made], pa.string()).take(pa.array(which))
    return values, np.array([one.flagged for one in made], np.bool_)[which]


def _report(wrong: Sequence[Finding | None], which: npt.NDArray[np.int64], findings: list[tuple[int, Finding]]) -> None:
    """Say for each row what is wrong with the value it has."""
    if any(one is not None for one in wrong):
        rows = np.flatnonzero(np.array([one is not None for one in wrong])[which])
        findings += [
            (row, finding)
            for row, value in zip(rows.tolist(), which[rows].tolist(), strict=True)
            if (finding := wrong[value]) is not None
        ]


def _checked(field: str, check: Callable[[str], identifiers.Checked]) -> Callable[[str], Text]:
    def standardise(text: str) -> Text:
        kept = comparable(text)
        if not kept or kept in NOT_VALUES:
            return MISSING
        checked = check(text)
        finding = _finding(field, checked) if checked.code else None
        return Text(checked.value, flagged=checked.bad, finding=finding)

    return standardise


def _finding(field: str, checked: identifiers.Checked) -> Finding:
    return Finding(field=field, code=checked.code, hint=checked.hint, severity="warning")
