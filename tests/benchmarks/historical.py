"""An invented set as historians have them: few given names, old errors, a fifth of the dates and of the homes missing.

Each person has two records, as of two sources: one as written, one copied with slips.  Four in five are men, born 1600
to 1880; one in eight has a kinsman of the same surname, often in the same house.  Nobody in it lived: surnames are the
common ones of `fusuk`, drawn by their rank; given names fall off steeply, as parish registers have them.

The shares below are guesses at what such sets are like, made once and not tuned to a result.
"""

from __future__ import annotations

import csv
import string
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

import numpy as np

from linkage.evaluation.area.names import name_book

MAPPING: Final = """\
[persons]
duplicates = true
[persons.columns]
local_id = "id"
given_name = "given"
family_name = "surname"
date_of_birth = "dob"
postcode = "postcode"
"""
GIVEN: Final = {
    "M": "William John Thomas George James Henry Charles Robert Edward Joseph Richard Samuel Francis Arthur Frederick "
    "Alexander David Walter Hugh Andrew Philip Daniel Peter Edmund Benjamin Anthony Nicholas Matthew Ralph Alfred "
    "Stephen Christopher Patrick Michael Herbert Albert Ernest Percy Lionel Roger Gilbert Augustus Horace Josiah Isaac "
    "Abraham Ambrose Humphrey Lawrence Martin Simon Theodore Reginald Harold Sidney Cecil Leonard Algernon Basil "
    "Bernard Claude Cuthbert Denis Edgar Edwin Eustace Evan Felix Geoffrey Gerald Godfrey Gregory Guy Harry Hector",
    "F": "Mary Elizabeth Anne Margaret Jane Sarah Catherine Frances Charlotte Caroline Harriet Louisa Emily Eleanor "
    "Emma Alice Martha Isabella Georgiana Susan Sophia Maria Helen Dorothy Florence Lucy Agnes Amelia Augusta Barbara "
    "Beatrice Bridget Constance Edith Ellen Ethel Evelyn Grace Hannah Henrietta Honor Jemima Judith Julia Katherine "
    "Lydia Mabel Matilda Maud Millicent Penelope Philippa Rachel Rebecca Rosamund Ruth Susanna Theodosia Ursula Violet",
}
SHORT: Final = (
    "William:Will/Bill/Wm John:Jack/Jon Thomas:Tom/Thos Henry:Harry/Hal Robert:Bob/Rob/Robt Edward:Ned/Ted/Edw "
    "Richard:Dick/Rich Charles:Chas/Charlie James:Jim/Jas Elizabeth:Eliza/Betty/Bess/Lizzie Mary:Polly/Molly "
    "Margaret:Peggy/Meg Catherine:Kate/Kitty/Katherine Anne:Ann/Nancy/Anna Joseph:Joe/Jos Samuel:Sam Sarah:Sally "
    "Francis:Frank Frances:Fanny"
)
AREAS: Final = "SW NW SE BS LS M B NE EX OX CB YO NR GL CT DN PL EH CF LL"
TOWNS, HOUSES = 300, 40


@dataclass(frozen=True, slots=True)
class Person:
    """One person, or what one record says of one."""

    given: str
    surname: str
    born: tuple[int, int, int] | None
    postcode: str
    sex: str


def write_historical(folder: Path, *, people: int = 4_500, seed: int = 1) -> tuple[Path, Path]:
    """Write `historical.csv` (column `person`) and `historical.toml` for so many and their kin; returns their paths."""
    made = _Made(Random(seed))
    everybody = [one for _ in range(people) for one in made.household()]
    rows = [
        (number, said)
        for number, person in enumerate(everybody)
        for said in (made.with_gaps(person), made.with_gaps(made.copied(person)))
    ]
    made.chance.shuffle(rows)
    records, mapping = folder / "historical.csv", folder / "historical.toml"
    mapping.write_text(MAPPING, encoding="utf-8")
    with records.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "person", "given", "surname", "dob", "postcode", "sex"])
        for place, (number, said) in enumerate(rows):
            born = "{:04}-{:02}-{:02}".format(*said.born) if said.born else ""
            writer.writerow([place, number, said.given, said.surname, born, said.postcode, said.sex])
    return records, mapping


class _Made:
    """Draws people, their kin and the copies of their records."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        book = name_book()
        self._words, self._surnames = book.words, book.family["english"]
        self._given = {sex: (names.split(), _steep(len(names.split()), 0.6, 1.1)) for sex, names in GIVEN.items()}
        self._short = {name: forms.split("/") for name, forms in (entry.split(":") for entry in SHORT.split())}
        self._areas = AREAS.split()
        self._towns = [[self._postcode() for _ in range(HOUSES)] for _ in range(TOWNS)]
        self._town = _steep(TOWNS, 2.0, 1.0)

    def household(self) -> list[Person]:
        """A person, and one time in eight somebody of the same surname."""
        chance = self.chance
        sex = "M" if chance.random() < 0.8 else "F"
        year = chance.randint(1600, 1880) if chance.random() < 0.5 else chance.randint(1780, 1880)
        first_of_january = chance.random() < 0.15
        born = (year, 1, 1) if first_of_january else (year, chance.randint(1, 12), chance.randint(1, 28))
        home = chance.choice(chance.choices(self._towns, cum_weights=self._town)[0])
        person = Person(self._given_name(sex), self._surname(), born, home, sex)
        if chance.random() >= 0.12:
            return [person]
        later = (year + chance.choice((-28, -2, 2, 3, 25)), chance.randint(1, 12), chance.randint(1, 28))
        theirs = self._given_name(sex) if chance.random() < 0.6 else person.given
        where = home if chance.random() < 0.6 else self._postcode()
        return [person, Person(theirs, person.surname, later, where, sex)]

    def copied(self, person: Person) -> Person:
        """What another source says: every field may be shortened, misread, exchanged or another."""
        given, surname = self._given_as_copied(person), person.surname
        match self._which(0.12, 0.03, 0.03):
            case 0:
                surname = self._slip(surname)
            case 1:
                surname = self._surname()
            case 2:
                given, surname = surname, given
        return replace(
            person, given=given, surname=surname, born=self._born_as_copied(person), postcode=self._home(person)
        )

    def with_gaps(self, person: Person) -> Person:
        """The same with its date, its home, or both not known, each a fifth of the time."""
        born = None if self.chance.random() < 0.21 else person.born
        return replace(person, born=born, postcode="" if self.chance.random() < 0.21 else person.postcode)

    def _given_as_copied(self, person: Person) -> str:
        if person.given in self._short and self.chance.random() < 0.15:
            return self.chance.choice(self._short[person.given])
        match self._which(0.12, 0.035, 0.015, 0.02):
            case 0:
                return self._slip(person.given)
            case 1:
                return self._given_name(person.sex)
            case 2:
                return person.given[0]
            case 3:
                return ""
        return person.given

    def _born_as_copied(self, person: Person) -> tuple[int, int, int] | None:
        assert person.born is not None
        year, month, day = person.born
        match self._which(0.04, 0.03, 0.03, 0.02):
            case 0:
                year += self.chance.choice((-10, -1, 1, 3, 10))
            case 1:
                month = day = 1
            case 2:
                day = self.chance.randint(1, 28)
            case 3 if day <= 12:
                month, day = day, month
        return year, month, day

    def _home(self, person: Person) -> str:
        match self._which(0.10, 0.12):
            case 0:
                return self._slip(person.postcode).upper()
            case 1:
                return self._postcode()
        return person.postcode

    def _which(self, *shares: float) -> int:
        """Which of these happens, each with its share; their number if none does."""
        return self.chance.choices(range(len(shares) + 1), [*shares, 1 - sum(shares)])[0]

    def _slip(self, text: str) -> str:
        if len(text) < 3:
            return text
        at, letter = self.chance.randrange(1, len(text)), self.chance.choice(string.ascii_lowercase)
        return self.chance.choice(
            (
                text[:at] + letter + text[at + 1 :],
                text[:at] + text[at + 1 :],
                text[:at] + letter + text[at:],
                text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :],
            )
        )

    def _given_name(self, sex: str) -> str:
        names, cumulative = self._given[sex]
        return self.chance.choices(names, cum_weights=cumulative)[0]

    def _surname(self) -> str:
        return self._words[int(self._surnames(np.array([self.chance.random()]))[0])]

    def _postcode(self) -> str:
        end = "".join(self.chance.choices("ABDEFGHJLN", k=2))
        return f"{self.chance.choice(self._areas)}{self.chance.randint(1, 15)} {self.chance.randint(1, 9)}{end}"


def _steep(count: int, shift: float, slope: float) -> list[float]:
    """Cumulative weights of ranks, as Zipf and Mandelbrot say."""
    return list(np.cumsum(1.0 / (np.arange(1, count + 1) + shift) ** slope))
