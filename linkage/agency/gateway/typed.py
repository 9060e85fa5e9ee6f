"""What someone typed into the search form, what is wrong with it, and striking it from other text.

Everything here is personal: no `repr` shows a value, and no message quotes one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from typing import Any, Final

from linkage.agency.gateway.forms import Form
from linkage.agency.gateway.words import FAMILY_NOT_TOLD, PURPOSES, RELATIONS
from linkage.agency.people import Person
from linkage.agency.standardise import BAD_BIRTHS, check_person

HOUSEHOLD: Final = 6
PRECISIONS: Final = {"exact": "Exact", "month": "Month and year only", "year": "Year only", "unborn": "Not born yet"}
NUMBERS: Final = {"nhs_number": "NHS number", "upn": "UPN", "uln": "ULN", "pnc_id": "PNC ID", "cro": "CRO number"}
STRUCK: Final = "[removed]"

_TEXTS: Final = ("given_name", "family_name", "day", "month", "year", "sex", "postcode", *NUMBERS)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TypedPerson:
    """One person of the form, as typed."""

    given_name: str = ""
    family_name: str = ""
    day: str = ""
    month: str = ""
    year: str = ""
    precision: str = "exact"
    sex: str = ""
    postcode: str = ""
    nhs_number: str = ""
    upn: str = ""
    uln: str = ""
    pnc_id: str = ""
    cro: str = ""
    relation: str = ""
    same_address: bool = False

    def __repr__(self) -> str:
        return f"TypedPerson({', '.join(field.name for field in fields(self) if getattr(self, field.name))})"

    @property
    def name(self) -> str:
        """The name as typed, for the pages of whoever typed it."""
        return f"{self.given_name} {self.family_name}".strip()

    @property
    def has_number(self) -> bool:
        """Whether any identifier was typed."""
        return any(getattr(self, number) for number in NUMBERS)

    @property
    def empty(self) -> bool:
        """Whether nothing was typed for this person."""
        return not any(getattr(self, text) for text in _TEXTS)

    def born_on(self) -> date | None:
        """The exact date of birth; None if not given, or not exactly.  Raises ValueError if there is no such day."""
        if self.precision != "exact" or not (self.day or self.month or self.year):
            return None
        if not (self.day.isdecimal() and self.month.isdecimal() and re.fullmatch(r"\d{4}", self.year)):
            raise ValueError("a day, a month and a year of four digits are due")
        return date(int(self.year), int(self.month), int(self.day))

    def birth_year(self) -> int | None:
        """The year of birth, however exact; None if not given.  Raises ValueError if it is no year."""
        if self.precision == "unborn" or not self.year:
            return None
        if not re.fullmatch(r"\d{4}", self.year):
            raise ValueError("a year of four digits is due")
        return int(self.year)

    def as_person(self) -> Person:
        """The same for the encoder: a date of birth only where it is exact."""
        born = self.born_on()
        return Person(
            given_name=self.given_name,
            family_name=self.family_name,
            date_of_birth=born.isoformat() if born else "",
            sex=self.sex,
            postcode=self.postcode,
            **{number: getattr(self, number) for number in NUMBERS},
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Typed:
    """The whole form.  Its `repr` shows nothing that was typed."""

    child: TypedPerson = TypedPerson()
    household: tuple[TypedPerson, ...] = ()
    case_reference: str = ""
    purpose: str = ""
    told: str = ""  # "yes" or "no"
    reason_not_told: str = ""
    acknowledged: bool = False

    def __repr__(self) -> str:
        return f"Typed(purpose={self.purpose!r}, household={len(self.household)})"

    def as_json(self) -> dict[str, Any]:
        """For the sealed store, and back by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Typed:
        """What `as_json` gave."""
        people = {
            "child": TypedPerson(**body["child"]),
            "household": tuple(TypedPerson(**person) for person in body["household"]),
        }
        return cls(**{**body, **people})

    @property
    def family_informed(self) -> str:
        """As the broker reads it: `yes`, or `no_` and the reason."""
        return "yes" if self.told == "yes" else self.reason_not_told

    def with_person_added(self) -> Typed:
        """One more empty household member, up to the limit."""
        return replace(self, household=(*self.household, TypedPerson())[:HOUSEHOLD])

    def without_person(self, index: int) -> Typed:
        """One household member fewer."""
        return replace(self, household=self.household[:index] + self.household[index + 1 :])

    def people(self) -> tuple[TypedPerson, ...]:
        """The child, then whoever of the household has something typed; a shared address is filled in."""
        members = (
            replace(member, postcode=self.child.postcode) if member.same_address else member
            for member in self.household
        )
        return (self.child, *(member for member in members if not member.empty))


def read(form: Form) -> Typed:
    """The form as it was posted; nothing is checked yet."""
    count = int(form.text("people")) if form.text("people").isdecimal() else 0
    return Typed(
        child=_person(form, "child"),
        household=tuple(_person(form, f"person-{index}") for index in range(min(count, HOUSEHOLD))),
        case_reference=form.text("case_reference")[:100],
        purpose=form.text("purpose") if form.text("purpose") in PURPOSES else "",
        told=form.text("told") if form.text("told") in ("yes", "no") else "",
        reason_not_told=form.text("reason_not_told") if form.text("reason_not_told") in FAMILY_NOT_TOLD else "",
        acknowledged=form.text("acknowledged") == "yes",
    )


def _person(form: Form, prefix: str) -> TypedPerson:
    texts = {name: form.text(f"{prefix}-{name}")[:200] for name in _TEXTS}
    precision, relation = form.text(f"{prefix}-precision"), form.text(f"{prefix}-relation")
    return TypedPerson(
        **texts,
        precision=precision if precision in PRECISIONS else "exact",
        relation=relation if relation in RELATIONS else "",
        same_address=form.text(f"{prefix}-same_address") == "yes",
    )


def faults(typed: Typed, *, confirmed: bool, today: date) -> dict[str, str]:
    """What must be put right before a search, by the id of its box, in the order of the page."""
    found = _faults_of_child(typed.child, today)
    for index, member in enumerate(typed.household):
        if not member.empty:
            found |= _faults_of(member, f"person-{index}", today)
            if not member.relation:
                found[f"person-{index}-relation"] = "Choose how this person is related to the child"
    if not typed.case_reference:
        found["case_reference"] = "Enter the case reference this search belongs to"
    if not typed.purpose:
        found["purpose"] = "Choose why you are asking"
    if not typed.told or (typed.told == "no" and not typed.reason_not_told):
        found["told" if not typed.told else "reason_not_told"] = "Say whether the family was told, or why not"
    if not typed.acknowledged and not confirmed:
        found["acknowledged"] = "Confirm that you are asking for this purpose only"
    return found


def _faults_of_child(child: TypedPerson, today: date) -> dict[str, str]:
    found: dict[str, str] = {}
    if not child.family_name and not child.has_number:
        found["child-family_name"] = (
            "An address on its own cannot be searched. Enter a name or a number."
            if child.postcode and not child.given_name
            else "Enter a family name, or an NHS number, UPN or other number"
        )
    if child.precision != "unborn" and not child.has_number and not (child.day or child.month or child.year):
        found["child-day"] = "Enter a date of birth, or choose month, year or not born"
    return found | _faults_of(child, "child", today)


def _faults_of(person: TypedPerson, prefix: str, today: date) -> dict[str, str]:
    found: dict[str, str] = {}
    box = {"exact": "day", "month": "month"}.get(person.precision, "year")
    dateless = person
    try:
        born, year = person.born_on(), person.birth_year()
        if (born and born > today) or (year and year > today.year):
            found[f"{prefix}-{box}"] = "Date of birth must be in the past"
            dateless = replace(person, day="", month="", year="")
    except ValueError:
        found[f"{prefix}-{box}"] = (
            "Date of birth must be a real date, for example 7 3 2017"
            if person.precision == "exact"
            else "Year must be four digits, for example 2017"
        )
        dateless = replace(person, day="", month="", year="")
    for finding in check_person(dateless.as_person(), today=today):
        if finding.code not in BAD_BIRTHS and finding.field not in (*NUMBERS, "postcode"):
            continue  # a common first name or a doubtful date is no reason not to search
        name = "day" if finding.field == "date_of_birth" else finding.field
        found.setdefault(f"{prefix}-{name}", _message(finding.field, finding.code, finding.hint))
    return found


def _message(field: str, code: str, hint: str) -> str:
    if field in NUMBERS:
        return f"Check the {NUMBERS[field]}: one digit is wrong or two are swapped"
    return hint or f"Check the {field.replace('_', ' ')} ({code})"


def strike(text: str, people: Iterable[TypedPerson]) -> str:
    """`text` with every name and number typed for these people replaced by `[removed]`.

    Names go word by word, whatever their case and accents; numbers and postcodes however they are spaced; dates of
    birth in any usual order.

    >>> child = TypedPerson(given_name="Zoë", family_name="Samplewick", day="7", month="3", year="2017")
    >>> strike("ZOE's mother, Ms samplewick, rang; born 07/03/2017", [child])
    "[removed]'s mother, Ms [removed], rang; born [removed]"
    """
    people = tuple(people)
    for person in people:
        for pattern in _numbers(person):
            text = re.sub(pattern, STRUCK, text, flags=re.IGNORECASE)
    words = {word for person in people for word in _names(person)}
    return re.sub(r"[^\W\d_]+", lambda match: STRUCK if _folded(match[0]) in words else match[0], text)


def _names(person: TypedPerson) -> Iterable[str]:
    for name in (person.given_name, person.family_name):
        for word in re.findall(r"[^\W\d_]+", name):
            if len(word) > 1:
                yield _folded(word)
        yield _folded(re.sub(r"[\W\d_]+", "", name))


def _numbers(person: TypedPerson) -> Iterable[str]:
    for value in (*(getattr(person, number) for number in NUMBERS), person.postcode):
        characters = re.sub(r"[\W_]", "", value)
        if len(characters) > 3:
            yield r"(?<!\w)" + r"[\W_]*".join(map(re.escape, characters)) + r"(?!\w)"
    if person.day.isdecimal() and person.month.isdecimal() and person.year.isdecimal():
        day, month = f"0?{int(person.day)}", f"0?{int(person.month)}"
        year = f"(?:{person.year[:2]})?{person.year[2:]}" if len(person.year) == 4 else person.year
        gap = r"[\s./-]+"
        for order in ((day, month, year), (month, day, year), (year, month, day)):
            yield r"(?<!\d)" + gap.join(order) + r"(?!\d)"


def _folded(word: str) -> str:
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))
