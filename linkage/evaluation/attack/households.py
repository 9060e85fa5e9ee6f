"""Who lives together, told by birth years and sexes alone: the household laid over a register of households.

Household tokens and family edges say which records are one home; birth year and sex lie beside them in clear.  A home
is then known by its members' years and sexes, as a person is by fingerprints: no filter, no token of a name and no key
but the vault's is needed.  Homes are matched whole, and less one member on either side (who was born or died, moved,
or is written down wrongly); of what fits, the home whose members are rarest counts, if by a margin.

Assumptions, beside those of `population`.  Nearly a quarter of families have one parent, in seven of eight the mother
(ONS, *Families and households*); a mother was 28.5 years old at the first birth (sd 6; ONS, *Birth characteristics*), a
father 2.5 years older (sd 4); one family in twelve has another adult.  Every member is a record.  A home is in the
register whole or not at all, which favours the attacker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from linkage.evaluation.attack.bench import Bench
from linkage.evaluation.attack.equality import mixed
from linkage.evaluation.attack.population import LAST_DAY, MISSING, SEXES, Flags, Floats, Ints, People, Rng, population
from linkage.evaluation.attack.results import AttackResult
from linkage.records import told_year

LONELY: Final = 4.0  # bits against a home for each member that only one side has
MARGIN: Final = 1.0  # bits between the best and the second-best home
LARGEST: Final = 64  # homes of one key: more tell nobody apart
LAST_YEAR: Final = int(str(LAST_DAY)[:4])
Keys = tuple[Ints, Ints, Floats, Ints]
"""Home, key, bits of the members in the key, and how many members are not in it."""
Read = Literal["nothing", "members", "children", "told", "exact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What of a home's members is read.

    `nothing`: not who lives together either.  `members`: who is a child and who is not; `children`: their years and
    sexes as well; `told`: all that an agency sends, a year or for those long grown up a decade; `exact`: every year.
    """

    name: str
    read: Read
    knowledge: str


_KNOWS: Final = "register of households with years of birth and sexes; "
VIEWS: Final = (
    View(name="disk alone", read="nothing", knowledge=_KNOWS + "all that is stored, and no key of the vault"),
    View(name="vault opened", read="told", knowledge=_KNOWS + "all that is stored, in clear"),
    View(name="were all years told", read="exact", knowledge=_KNOWS + "the year of every adult too"),
    View(name="were no adult's year told", read="children", knowledge=_KNOWS + "of adults how many there are"),
    View(name="were no year and sex told", read="members", knowledge=_KNOWS + "how many children and adults"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """A row a person: the home, who it is (truth), birth year (-1: missing), sex, and whether a child."""

    home: Ints
    person: Ints
    year: Ints
    sex: Ints
    child: Flags

    def __len__(self) -> int:
        return len(self.home)

    @property
    def homes(self) -> int:
        """One more than the largest home."""
        return int(self.home.max()) + 1

    def where(self, rows: Flags) -> Members:
        """The rows asked for."""
        return Members(**{name: getattr(self, name)[rows] for name in self.__slots__})

    def kinds(self, read: Read) -> Ints:
        """What is read of each, as a number; missing years are a kind of their own."""
        made = self.year
        if read == "told":
            known = made >= 0
            made = np.where(known, _told(np.where(known, made, LAST_YEAR)), MISSING)
        kind = (made + 1) * len(SEXES) + self.sex
        if read == "members":
            return self.child.astype(np.int64)
        return np.where(self.child, kind, 0) if read == "children" else kind


def households(bench: Bench) -> Iterator[AttackResult]:
    """Every view at every overlap."""
    setting = bench.setting
    rng = np.random.default_rng([setting.seed, 17])
    truth = lived(bench.population(), rng)
    strangers = lived(population(setting.children, seed=setting.seed + 7_919), rng)
    for overlap in setting.overlaps:
        known = register(truth, strangers, overlap=overlap, errors=setting.errors, rng=rng)
        for view in VIEWS:
            claims = np.full(len(truth), MISSING) if view.read == "nothing" else match(truth, known, view.read)
            yield _judged(bench, truth, known, overlap, view, claims)


def _judged(bench: Bench, truth: Members, known: Members, overlap: float, view: View, claims: Ints) -> AttackResult:
    children = np.flatnonzero(truth.child)
    made = children[claims[children] >= 0]
    alone = truth.where(truth.child).kinds("members" if view.read in ("nothing", "members") else "exact")
    return AttackResult(
        attack="households", case=view.name, profile=bench.setting.profile, knowledge=view.knowledge, what="child",
        children=len(children), population=len(children), overlap=overlap, errors=bench.setting.errors,
        seed=bench.setting.seed, claimed=len(made),
        right=int((known.person[claims[made]] == truth.person[made]).sum()),
        trivial=len(np.unique(alone)) / len(children) * overlap,
        note="outside the vault is no year of birth, and of a family only who was shown together"
        if view.read == "nothing" else "",
    )  # fmt: skip


# --- Homes -----------------------------------------------------------------------------------------------------------


def lived(people: People, rng: Rng) -> Members:
    """Children with the adults of their homes."""
    _, family = np.unique(people.family, return_inverse=True)
    homes, year = int(family.max()) + 1, people.born // 10_000
    first = np.full(homes, LAST_YEAR)
    np.minimum.at(first, family, year)
    lone = rng.random(homes) < 0.23
    mother = ~lone | (rng.random(homes) < 0.87)
    father = ~lone | ~mother
    born_mother = first - np.clip(np.round(rng.normal(28.5, 6, homes)), 15, 45).astype(np.int64)
    born_father = born_mother - np.round(rng.normal(2.5, 4, homes)).astype(np.int64)
    other = rng.random(homes) < 1 / 12
    of_other = LAST_YEAR - np.where(rng.random(homes) < 0.6, rng.integers(18, 26, homes), rng.integers(55, 85, homes))
    adults = [
        (np.flatnonzero(there), born[there], sex[there])
        for there, born, sex in (
            (mother, born_mother, np.ones(homes, np.int64)),
            (father, born_father, np.zeros(homes, np.int64)),
            (other, of_other, rng.integers(0, 2, homes)),
        )
    ]
    home = np.concatenate([family, *(one for one, _, _ in adults)])
    person = np.concatenate([people.person, int(people.person.max()) + 1 + np.arange(len(home) - len(people))])
    return Members(
        home=home, person=person, year=np.concatenate([year, *(born for _, born, _ in adults)]),
        sex=np.concatenate([people.sex, *(sex for _, _, sex in adults)]), child=np.arange(len(home)) < len(people),
    )  # fmt: skip


def register(truth: Members, strangers: Members, *, overlap: float, errors: bool, rng: Rng) -> Members:
    """The share `overlap` of the homes, and strangers' up to the same number, under other numbers.

    Errors: of 100 members 6 are written down elsewhere, 1 has a year one off, 2 have none, half a one another sex.
    """
    chosen = rng.permutation(truth.homes)
    kept = np.zeros(truth.homes, np.bool_)
    kept[chosen[: round(overlap * truth.homes)]] = True
    others = strangers.where(strangers.home < truth.homes - int(kept.sum()))
    mine = truth.where(kept[truth.home])
    both = Members(
        home=np.concatenate([mine.home, others.home + truth.homes]),
        person=np.concatenate([mine.person, np.full(len(others), MISSING)]),
        **{name: np.concatenate([getattr(mine, name), getattr(others, name)]) for name in ("year", "sex", "child")},
    )
    home, year, sex = both.home.copy(), both.year.copy(), both.sex.copy()
    if errors:
        gone = rng.random(len(both)) < 0.06
        home[gone] = rng.integers(0, both.homes, int(gone.sum()))
        year += np.where(rng.random(len(both)) < 0.01, rng.choice([-1, 1], len(both)), 0)
        year[rng.random(len(both)) < 0.02] = MISSING
        sex = np.where(rng.random(len(both)) < 0.005, 1 - sex, sex)
    return replace(both, home=rng.permutation(both.homes)[home], year=year, sex=sex)


def _told(years: Ints) -> Ints:
    used, which = np.unique(years, return_inverse=True)
    made: Ints = np.array([told_year(year, LAST_YEAR) for year in used.tolist()], np.int64)[which]
    return made


# --- Matching --------------------------------------------------------------------------------------------------------


def match(mine: Members, theirs: Members, read: Read) -> Ints:
    """A row of `theirs` for each row of `mine`, -1 for no claim."""
    kinds = mine.kinds(read), theirs.kinds(read)
    _, numbered = np.unique(np.concatenate(kinds), return_inverse=True)
    here, there = numbered[: len(mine)], numbered[len(mine) :]
    share = np.maximum(np.bincount(there, minlength=int(numbered.max()) + 1), 1) / len(theirs)
    bits = -np.log2(share)
    homes = _best(_keys(mine.home, here, bits), _keys(theirs.home, there, bits), mine.homes)
    return _members(mine.home, here, theirs.home, there, homes)


def _keys(home: Ints, kind: Ints, bits: Floats) -> Keys:
    """What each home is known by: all its members, and all but one."""
    digest = mixed(kind.astype(np.uint64))
    whole, weight = np.zeros(int(home.max()) + 1, np.uint64), np.zeros(int(home.max()) + 1)
    np.add.at(whole, home, digest)
    np.add.at(weight, home, bits[kind])
    there = np.unique(home)
    less = whole[home] - digest
    some = less != 0  # without its only member a home is known by nothing
    return (
        np.concatenate([there, home[some]]),
        np.concatenate([whole[there], less[some]]).view(np.int64),
        np.concatenate([weight[there], weight[home[some]] - bits[kind[some]]]),
        np.repeat([0, 1], [len(there), int(some.sum())]),
    )


def _best(mine: Keys, theirs: Keys, homes: int) -> Ints:
    """For each home of mine the one of theirs that fits best, if by a margin; else -1."""
    order = np.argsort(theirs[1], kind="stable")
    keys = theirs[1][order]
    begin, end = np.searchsorted(keys, mine[1], "left"), np.searchsorted(keys, mine[1], "right")
    size = end - begin
    rows = np.flatnonzero(size <= LARGEST)
    row = np.repeat(rows, size[rows])
    within = np.arange(len(row)) - np.repeat(np.cumsum(size[rows]) - size[rows], size[rows])
    other = order[begin[row] + within]
    left, right = mine[0][row], theirs[0][other]
    score = mine[2][row] - LONELY * (mine[3][row] + theirs[3][other])
    order = np.lexsort((-score, right, left))
    left, right, score = left[order], right[order], score[order]
    first = np.r_[True, (left[1:] != left[:-1]) | (right[1:] != right[:-1])][: len(left)]
    left, right, score = left[first], right[first], score[first]
    order = np.lexsort((-score, left))
    left, right, score = left[order], right[order], score[order]
    begins = np.flatnonzero(np.r_[True, left[1:] != left[:-1]][: len(left)])
    second = np.full(len(begins), -np.inf)
    more = begins + 1 < np.r_[begins[1:], len(left)]
    second[more] = score[begins[more] + 1]
    sure = score[begins] - second >= MARGIN
    found = np.full(homes, MISSING, np.int64)
    found[left[begins[sure]]] = right[begins[sure]]
    return found


def _members(home: Ints, kind: Ints, other_home: Ints, other_kind: Ints, homes: Ints) -> Ints:
    """Rows of matched homes that are the only ones of their kind in both."""
    width = int(max(kind.max(), other_kind.max())) + 1
    claims = np.full(len(home), MISSING, np.int64)
    rows = np.flatnonzero(homes[home] >= 0)
    here, there = homes[home[rows]] * width + kind[rows], other_home * width + other_kind
    used, index, count = np.unique(here, return_index=True, return_counts=True)
    keys, at, many = np.unique(there, return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(keys, used), len(keys) - 1)
    good = (count == 1) & (keys[place] == used) & (many[place] == 1)
    claims[rows[index[good]]] = at[place[good]]
    return claims
