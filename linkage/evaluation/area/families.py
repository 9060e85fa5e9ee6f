"""The people of a made-up area, as they truly are: families, homes, schools; nothing of what agencies make of them.

Figures, and where they come from.  Family size: ONS *Families and households* (about 44 % of families have one child,
41 % two).  Multiple births: ONS *Birth characteristics* (14 in 1,000 maternities).  Lone parents 22 % and step-families
about 10 % of families: ONS, rounded; more lone parents where deprivation is higher.  Looked after: 70 in 10,000 (DfE
*Children looked after*), one in eleven of them unaccompanied and seeking asylum.  Adoptions: ten times the national
rate (about 3,000 a year), so that a small area has some.  Moves: about a tenth of households a year (English Housing
Survey; more among private tenants, hence among the
deprived).  Neighbourhoods of some 350 children have a deprivation
decile and a mix of naming customs that clusters by postcode district and again by neighbourhood (an assumption in size,
not in kind).  Need, which drives what agencies record, is latent, skewed and higher in deprived neighbourhoods; it
is never
written anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from linkage.evaluation.area import identifiers
from linkage.evaluation.area.names import CANARY, CUSTOMS, MINORITY, SHARES, NameBook, name_book

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Days = npt.NDArray[np.datetime64]
Rng = np.random.Generator

WINDOW: Final = 730  # days of history that agencies hold items for
INWARD: Final = "ABDEFGHJLNPQRSTUWXYZ"  # inward codes never use C I K M O V
STREETS: Final = """
    Mill Bridge Station Church Park Albert Victoria Chapel Moor Quarry Canal Foundry Orchard Beech Hawthorn Windsor
    Cavendish Alma Sefton Grange Priory Weavers Tanners Heron Larch Bramble Ferry Market Tower Abbey Castle Rowan
""".split()  # noqa: SIM905
WAYS: Final = "Street Road Lane Avenue Close Terrace Grove Drive Court Way Crescent Gardens".split()  # noqa: SIM905

CHILD, MOTHER, FATHER, STEP, CARER = range(5)
ROLE_NAMES: Final = ("child", "parent", "parent", "parent", "carer")
COUPLE, LONE_MOTHER, LONE_FATHER, STEP_FATHER, STEP_MOTHER, KINSHIP = range(6)
NO_SHIELD, SHIELD_ADDRESS, SHIELD_FULL = range(3)


@dataclass(slots=True)
class Homes:
    """Addresses, by index: a flat has a parent UPRN, a communal home (refuge, residential, hostel) one for all."""

    hood: Ints
    postcode: Ints  # into `postcodes`
    number: Ints
    flat: Ints  # 0: a house
    uprn: Longs
    parent_uprn: Longs  # 0: none
    communal: Flags
    postcodes: list[str]
    streets: list[str]  # by postcode


@dataclass(slots=True)
class People:
    """One entry a person.  Adoptees have two: the child they were, and the child they are."""

    family: Ints
    role: Ints
    sex: Ints
    born: Days  # expected date, if unborn
    custom: Ints
    given: Ints
    middle: Ints  # -1: none
    surname: Ints
    surname2: Ints  # -1: none
    joint: Ints  # 0 none, 1 hyphen, 2 space
    home: Ints
    earlier: Ints  # home before, -1: none known
    moved_on: Days
    known_as: Ints  # -1: none
    former: Ints  # former surname, -1: none
    looked_after: Flags
    unaccompanied: Flags
    unborn: Flags
    unnamed: Flags  # born days ago, not yet registered
    shield: Ints
    twins: Ints  # group, -1: none
    severed: Ints  # on the new identity: index of the old one, -1: none
    old_life: Flags  # the identity from before an adoption order
    father: Ints  # index, -1: unknown
    mother: Ints
    nhs: Longs
    nhs_before: Longs  # superseded; 0: none

    def __len__(self) -> int:
        return len(self.family)


@dataclass(slots=True)
class Area:
    """Everybody and everything true about one area on the day `on`."""

    on: np.datetime64
    book: NameBook
    people: People
    homes: Homes
    children: int  # the first so many people are children, old identities included
    structure: Ints  # by family
    need: npt.NDArray[np.float64]  # by family; latent, never written
    decile: Ints  # by neighbourhood, 1 is most deprived
    hood: Ints  # by family


def make_area(children: int, rng: Rng, on: date, *, twins: float = 1.0, adoptions: float = 1.0) -> Area:
    """An area with `children` born children (and a few unborn), their parents and carers.

    `twins` and `adoptions` multiply how common those are: a harder area for linkage.
    """
    book = name_book()
    today = np.datetime64(on, "D")
    kids = _births(children, rng, today, twins)
    families = int(kids["family"].max()) + 1
    hoods = max(6, children // 350)
    decile = np.clip(np.ceil(rng.beta(0.9, 1.2, hoods) * 10), 1, 10).astype(np.int32)
    district = np.arange(hoods) // 8
    hood = rng.choice(hoods, families, p=_normal(rng.gamma(6.0, 1.0, hoods))).astype(np.int32)
    custom = _customs(hood, district, hoods, rng)
    poor = (11 - decile[hood]) / 10
    need = np.clip(rng.gamma(0.7, 0.16, families) * (0.35 + 1.3 * poor), 0.0, 1.0)
    structure = _structures(poor, need, rng)
    homes, home, earlier, moved_on, apart = _homes(hood, hoods, district, need, structure, rng, today)
    people = _people(kids, book, custom, structure, home, earlier, moved_on, apart, need, adoptions, rng, today)
    area = Area(
        on=today, book=book, people=people, homes=homes, children=int((people.role == CHILD).sum()),
        structure=structure, need=need, decile=decile, hood=hood,
    )  # fmt: skip
    _shields(area, rng)
    _canaries(area)
    return area


def _normal(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total: float = weights.sum()
    return weights / total


def _births(children: int, rng: Rng, today: np.datetime64, twins: float) -> dict[str, Any]:
    """Children by family in order of birth: exactly `children` born, and the unborn that come with their families."""
    families = children + 40
    size = rng.choice([1, 2, 3, 4, 5, 6], families, p=[0.44, 0.39, 0.12, 0.035, 0.01, 0.005])
    family = np.repeat(np.arange(families), size)
    first = np.repeat(rng.uniform(0, 18.0, families), size)
    gap = 1.1 + rng.gamma(2.2, 0.75, len(family))
    order = np.arange(len(family)) - np.repeat(np.cumsum(size) - size, size)
    gap[order == 0] = 0.0
    spent = np.cumsum(gap)
    since = spent - np.repeat(spent[np.cumsum(size) - size], size)
    age = first - since  # negative: to come
    multiple = np.where(rng.random(len(family)) < 0.0143 * twins, 2, 1)
    multiple[rng.random(len(family)) < 0.0003 * twins] = 3
    keep = (age > -0.35) & ((age >= 0) | (rng.random(len(age)) < 0.45))
    family, age, multiple = family[keep], age[keep], multiple[keep]
    if len(age) > 12:  # however small, an area has the rare
        multiple[[3, 7]], multiple[11] = 2, 3
    multiple[age < 0] = 1
    group = np.repeat(np.arange(len(age)), multiple)
    family, age, twin = family[group], age[group], multiple[group] > 1
    born = age >= 0
    last = int(np.searchsorted(np.cumsum(born), children))  # the last child that counts
    cut = slice(0, last + 1)
    family, age, twin, group, born = family[cut], age[cut], twin[cut], group[cut], born[cut]
    _, family = np.unique(family, return_inverse=True)
    counts = np.bincount(group)
    twin &= counts[group] > 1
    days = np.rint(age * 365.2425).astype(np.int64)
    return {
        "family": family.astype(np.int32), "born": today - days.astype("timedelta64[D]"), "unborn": ~born,
        "twins": np.where(twin, group, -1).astype(np.int32), "age": age,
    }  # fmt: skip


def _customs(hood: Ints, district: Longs, hoods: int, rng: Rng) -> Ints:
    """A custom for each family: customs cluster by district and, within it, by neighbourhood."""
    pull = 1.1 * rng.normal(size=(int(district.max()) + 1, len(CUSTOMS)))[district] + 0.9 * rng.normal(
        size=(hoods, len(CUSTOMS))
    )
    pull[:, ~MINORITY] *= 0.2
    weights = np.asarray(SHARES) * np.exp(pull)
    return _choices(weights[hood], rng)


def _choices(weights: npt.NDArray[np.float64], rng: Rng) -> Ints:
    """A column for each row, drawn by the weights in it."""
    cumulative = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    drawn = (rng.random(len(weights))[:, None] > cumulative).sum(axis=1)
    chosen: Ints = np.minimum(drawn, weights.shape[1] - 1).astype(np.int32)
    return chosen


def _structures(poor: npt.NDArray[np.float64], need: npt.NDArray[np.float64], rng: Rng) -> Ints:
    weights = np.stack(
        [0.95 - 0.45 * poor, 0.06 + 0.22 * poor + 0.25 * need, 0.025 + 0 * poor, 0.045 + 0.05 * poor, 0.015 + 0 * poor,
         0.006 + 0.05 * need],
        axis=1,
    )  # fmt: skip
    structure = _choices(weights, rng)
    if len(structure) > 20:
        structure[[13, 14]], structure[[15, 16]], structure[17] = STEP_FATHER, KINSHIP, STEP_MOTHER
    return structure


def _homes(
    hood: Ints,
    hoods: int,
    district: Longs,
    need: npt.NDArray[np.float64],
    structure: Ints,
    rng: Rng,
    today: np.datetime64,
) -> tuple[Homes, Ints, Ints, Days, Ints]:
    """Homes, and for each family its home now, the one before, when it moved, and where the absent parent lives.

    Four families with children share a postcode (some 15 addresses, of which 28 % have children: ONS).
    """
    families = len(hood)
    moved = rng.random(families) < np.clip(0.30 + 0.55 * need, 0, 0.9)
    moved_on = today - np.rint(rng.exponential(850, families)).astype("timedelta64[D]") - np.timedelta64(5, "D")
    same_hood = rng.random(families) < 0.45
    hood_before = np.where(same_hood, hood, rng.integers(0, hoods, families)).astype(np.int32)
    hood_apart = np.where(rng.random(families) < 0.4, hood, rng.integers(0, hoods, families)).astype(np.int32)
    split = np.isin(structure, (LONE_MOTHER, LONE_FATHER, STEP_FATHER, STEP_MOTHER, KINSHIP))
    # three stacked blocks of homes: now, before, apart; then the communal ones
    communal = max(6, families // 1500)
    all_hoods = np.concatenate([hood, hood_before[moved], hood_apart[split], rng.integers(0, hoods, communal)])
    count = len(all_hoods)
    by_hood = np.bincount(all_hoods, minlength=hoods)
    codes = np.maximum(1, by_hood // 5)
    start = np.cumsum(codes) - codes
    postcode = (start[all_hoods] + np.floor(rng.random(count) * codes[all_hoods])).astype(np.int32)
    is_flat = rng.random(count) < 0.16
    number = rng.integers(1, 140, count)
    flat = np.where(is_flat, rng.integers(1, 25, count), 0)
    block = postcode.astype(np.int64) * 4 + number % 4
    uprn = 999_000_000_000 + rng.permutation(count * 3)[:count].astype(np.int64) * 7 + 11
    parent = np.where(is_flat, 998_000_000_000 + block * 13, 0)
    streets = rng.integers(0, len(STREETS) * len(WAYS), int(codes.sum()))
    postcodes = _postcodes(codes, district, rng)
    now = np.arange(families, dtype=np.int32)
    before = np.full(families, -1, np.int32)
    before[moved] = families + np.arange(int(moved.sum()))
    apart = np.full(families, -1, np.int32)
    apart[split] = families + int(moved.sum()) + np.arange(int(split.sum()))
    is_communal = np.zeros(count, bool)
    is_communal[count - communal :] = True
    number = np.where(is_flat, number % 4 * 2 + 1, number)
    homes = Homes(
        hood=all_hoods.astype(np.int32), postcode=postcode, number=number.astype(np.int32), flat=flat.astype(np.int32),
        uprn=uprn, parent_uprn=parent, communal=is_communal, postcodes=postcodes,
        streets=[f"{STREETS[s // len(WAYS)]} {WAYS[s % len(WAYS)]}" for s in streets.tolist()],
    )  # fmt: skip
    return homes, now, before, np.where(moved, moved_on, np.datetime64("NaT")), apart


def _postcodes(codes: Longs, district: Longs, rng: Rng) -> list[str]:
    """Postcodes NX1 .. NX99, an area that does not exist; neighbourhoods follow one another sector by sector."""
    made: list[str] = []
    place = -1
    unit = 0
    order = rng.permutation(400)
    last_district = -1
    for count, of_district in zip(codes.tolist(), district.tolist(), strict=True):
        if of_district != last_district:  # a new district: its own outward code
            place, unit, last_district = (place // 10 + 1) * 10, 0, of_district
        elif unit > 200:
            place, unit = place + 1, 0
        for _ in range(count):
            if unit == 400:
                place, unit = place + 1, 0
            letters = int(order[unit])
            made.append(f"NX{place // 10 + 1} {place % 10}{INWARD[letters // 20]}{INWARD[letters % 20]}")
            unit += 1
    return made


def _people(
    kids: dict[str, Any], book: NameBook, custom: Ints, structure: Ints, home: Ints, earlier: Ints, moved_on: Days,
    apart: Ints, need: npt.NDArray[np.float64], adoptions: float, rng: Rng, today: np.datetime64,
) -> People:  # fmt: skip
    families = len(custom)
    family: Ints = kids["family"]
    adopted, birth_family = _adoptees(kids, families, structure, adoptions, rng)
    ghosts = len(adopted)
    born: Days = np.concatenate([kids["born"], kids["born"][adopted]])
    child_family = np.concatenate([family, birth_family]).astype(np.int32)
    children = len(child_family)
    oldest = np.full(families, today)
    np.minimum.at(oldest, child_family, born)
    adult_family, adult_role, adult_sex, adult_born = _grown_ups(oldest, structure, rng)
    adults = len(adult_family)
    kin = structure == KINSHIP
    mother_of, father_of, step_of = (np.full(families, -1, np.int32) for _ in range(3))
    places = children + np.arange(adults, dtype=np.int32)
    for into, role in ((mother_of, MOTHER), (father_of, FATHER), (step_of, STEP)):
        into[adult_family[adult_role == role]] = places[adult_role == role]

    total = children + adults
    sex = np.concatenate([_child_sex(kids, adopted, rng), adult_sex]).astype(np.int32)
    own_custom = custom[np.concatenate([child_family, adult_family])].copy()
    mixed = (rng.random(total) < 0.12) & (np.arange(total) >= children)
    own_custom[mixed] = np.where(rng.random(int(mixed.sum())) < 0.7, 0, rng.permutation(own_custom)[: int(mixed.sum())])
    where = home[np.concatenate([child_family, adult_family])].copy()
    before = earlier[np.concatenate([child_family, adult_family])].copy()
    moved = moved_on[np.concatenate([child_family, adult_family])].copy()
    split_away = np.where(np.isin(structure, (LONE_FATHER, STEP_MOTHER, KINSHIP)), MOTHER, FATHER)
    lives_apart = np.zeros(total, bool)
    lives_apart[children:] = (apart[adult_family] >= 0) & (
        (adult_role == split_away[adult_family]) | (kin[adult_family] & (adult_role <= FATHER) & (adult_role > CHILD))
    )
    where[lives_apart] = apart[np.concatenate([child_family, adult_family])][lives_apart]
    before[lives_apart] = -1
    all_family = np.concatenate([child_family, adult_family])
    nhs = identifiers.nhs_numbers(total + total // 40 + 20, int(rng.integers(0, 10_000)))
    spare = nhs[total:]
    people = People(
        family=all_family, role=np.concatenate([np.zeros(children, np.int32), adult_role]), sex=sex,
        born=np.concatenate([born, adult_born]), custom=own_custom.astype(np.int32),
        given=np.zeros(total, np.int32), middle=np.full(total, -1, np.int32), surname=np.zeros(total, np.int32),
        surname2=np.full(total, -1, np.int32), joint=np.zeros(total, np.int32), home=where, earlier=before,
        moved_on=moved, known_as=np.full(total, -1, np.int32), former=np.full(total, -1, np.int32),
        looked_after=np.zeros(total, bool), unaccompanied=np.zeros(total, bool),
        unborn=_padded(np.concatenate([kids["unborn"], np.zeros(ghosts, bool)]), total), unnamed=np.zeros(total, bool),
        shield=np.zeros(total, np.int32), twins=np.full(total, -1, np.int32), severed=np.full(total, -1, np.int32),
        old_life=np.zeros(total, bool), father=np.full(total, -1, np.int32), mother=np.full(total, -1, np.int32),
        nhs=nhs[:total].copy(), nhs_before=np.zeros(total, np.int64),
    )  # fmt: skip
    people.twins[: len(family)] = kids["twins"]
    people.mother[:children] = mother_of[child_family]
    people.father[:children] = father_of[child_family]
    # in a step-family, the younger children may be the step-father's own
    late = np.zeros(total, bool)
    late[:children] = (structure[child_family] == STEP_FATHER) & (
        born > oldest[child_family] + np.timedelta64(900, "D")
    )
    late &= rng.random(total) < 0.5
    people.father[late] = step_of[all_family[late]]
    age = (today - people.born) / np.timedelta64(365, "D")
    people.unnamed = (age >= 0) & (age < 0.06) & (people.role == CHILD)
    people.severed[adopted] = len(family) + np.arange(ghosts)
    people.old_life[len(family) : children] = True
    _surnames(people, book, mother_of, father_of, structure, rng)
    _given_names(people, book, rng)
    _look_after(people, need, age, rng, today)
    superseded = np.flatnonzero((rng.random(total) < 0.012) & ~people.old_life)[: len(spare)]
    people.nhs_before[superseded] = spare[: len(superseded)]
    return people


def _grown_ups(oldest: Days, structure: Ints, rng: Rng) -> tuple[Ints, Ints, Ints, Days]:
    """Parents, step-parents and carers: family, role, sex and birth, old enough for the oldest child."""
    families = len(structure)
    away = np.isin(structure, (LONE_MOTHER, STEP_FATHER))
    has_father = ~away | (rng.random(families) < 0.8)
    stepped = np.isin(structure, (STEP_FATHER, STEP_MOTHER))
    kin = structure == KINSHIP
    blocks = [
        (MOTHER, np.arange(families)), (FATHER, np.flatnonzero(has_father)), (STEP, np.flatnonzero(stepped)),
        (CARER, np.flatnonzero(kin)),
    ]  # fmt: skip
    adult_family = np.concatenate([who for _, who in blocks]).astype(np.int32)
    adult_role = np.concatenate([np.full(len(who), role) for role, who in blocks]).astype(np.int32)
    adults = len(adult_family)
    adult_sex = (adult_role == MOTHER).astype(np.int32)
    step_or_kin = adult_role >= STEP
    adult_sex[step_or_kin] = rng.random(int(step_or_kin.sum())) < 0.6
    stepping = adult_role == STEP
    adult_sex[stepping] = structure[adult_family[stepping]] == STEP_MOTHER
    years = np.clip(rng.normal(28.5, 5.4, adults), 16.5, 44) + np.where(
        adult_role == FATHER, rng.gamma(2, 1.4, adults), 0
    )
    years += np.where(adult_role == CARER, rng.normal(25, 4, adults).clip(17, 40), 0)
    adult_born = oldest[adult_family] - np.rint(years * 365.2425).astype("timedelta64[D]")
    return adult_family, adult_role, adult_sex, adult_born


def _padded(flags: Flags, total: int) -> Flags:
    return np.concatenate([flags, np.zeros(total - len(flags), bool)])


def _child_sex(kids: dict[str, Any], adopted: Longs, rng: Rng) -> Ints:
    """Half and half; a third of twins are identical, so two thirds are of one sex (Weinberg)."""
    sex = (rng.random(len(kids["family"])) < 0.487).astype(np.int32)
    twins = kids["twins"]
    if (twins >= 0).any():
        same = rng.random(int(twins.max()) + 1) < 0.34
        first = np.zeros(int(twins.max()) + 1, np.int32)
        first[twins[twins >= 0]] = sex[twins >= 0]
        use = (twins >= 0) & same[twins]
        sex[use] = first[twins[use]]
    return np.concatenate([sex, sex[adopted]]).astype(np.int32)


def _adoptees(kids: dict[str, Any], families: int, structure: Ints, adoptions: float, rng: Rng) -> tuple[Longs, Longs]:
    """Children adopted within the window, and the family that each was born into: another one."""
    age = kids["age"]
    fit = (age > 1.5) & (age < 8) & (kids["twins"] < 0) & (structure[kids["family"]] == COUPLE)
    fit &= kids["family"] > 30  # clear of the planted families
    chosen = np.sort(rng.permutation(np.flatnonzero(fit))[: round(max(4, len(age) // 1000) * adoptions)])
    lone = np.flatnonzero(structure == LONE_MOTHER)
    return chosen, rng.choice(lone if len(lone) else np.arange(families), len(chosen))


def _surnames(people: People, book: NameBook, mother_of: Ints, father_of: Ints, structure: Ints, rng: Rng) -> None:
    adults = people.role != CHILD
    draws = rng.random(len(people))
    for number, name in enumerate(CUSTOMS):
        of = adults & (people.custom == number)
        people.surname[of] = book.family[name](draws[of])
        if f"{name}_mother" in book.family:
            use = of & (people.sex == 1) & (rng.random(len(people)) < 0.7)
            people.surname[use] = book.family[f"{name}_mother"](draws[use])
    sikh = adults & (people.custom == CUSTOMS.index("sikh"))
    plain = sikh & (rng.random(len(people)) < 0.45)
    singh, kaur = book.at["Singh"], book.at["Kaur"]
    people.surname[plain] = np.where(people.sex == 1, kaur, singh)[plain]
    iberian = people.custom == CUSTOMS.index("iberian")
    double = adults & iberian
    people.surname2[double] = book.family["iberian"](rng.random(int(double.sum())))
    people.joint[double] = 2
    # most English wives, and Polish ones in their own form, bear the husband's name; the one before is a former name
    married = np.isin(structure, (COUPLE, LONE_MOTHER, STEP_MOTHER)) & (rng.random(len(structure)) < 0.58)
    mothers, fathers = mother_of, father_of
    takes = married & (fathers >= 0) & (mothers >= 0)
    takes &= np.isin(
        people.custom[mothers], [CUSTOMS.index(c) for c in ("english", "welsh", "irish", "polish", "nigerian", "hindu")]
    )
    takers = mothers[takes]
    known = rng.random(len(takers)) < 0.5
    people.former[takers] = np.where(known, people.surname[takers], -1)
    people.surname[takers] = people.surname[fathers[takes]]
    people.surname2[takers] = -1
    people.joint[takers] = 0
    _children_surnames(people, book, structure, rng)
    women = np.flatnonzero(people.sex == 1)
    people.surname[women] = book.feminine[people.surname[women]]


def _children_surnames(people: People, book: NameBook, structure: Ints, rng: Rng) -> None:
    """The father's surname, or the mother's, or both; siblings mostly alike."""
    singh, kaur = book.at["Singh"], book.at["Kaur"]
    kids = np.flatnonzero(people.role == CHILD)
    has_father = people.father[kids] >= 0
    mother, father = people.mother[kids], people.father[kids]
    by_mother = ~has_father
    apart = np.isin(structure[people.family[kids]], (LONE_MOTHER, STEP_FATHER))
    family_draw = rng.random(len(structure))[people.family[kids]]  # siblings go together
    by_mother |= apart & (family_draw < 0.38)
    barrelled = has_father & ~by_mother & (family_draw > 0.94) & (people.custom[kids] <= 2)
    barrelled &= people.surname[mother] != people.surname[father]
    custom = people.custom[np.where(by_mother, mother, father)]
    people.custom[kids] = custom
    surname = np.where(by_mother, people.surname[mother], people.surname[father])
    people.surname[kids] = surname
    people.surname2[kids] = np.where(barrelled, people.surname[father], -1)
    people.surname[kids] = np.where(barrelled, people.surname[mother], people.surname[kids])
    people.joint[kids] = barrelled
    spanish = custom == CUSTOMS.index("iberian")
    people.surname2[kids[spanish]] = people.surname[mother[spanish]]
    people.joint[kids[spanish]] = 2
    # a Somali child's third name is the father's second: his given name, drawn below, stands between
    sikhs = kids[custom == CUSTOMS.index("sikh")]
    named = np.isin(people.surname[sikhs], (singh, kaur))
    people.surname[sikhs[named]] = np.where(people.sex[sikhs[named]] == 1, kaur, singh)
    people.middle[sikhs[~named]] = np.where(people.sex[sikhs[~named]] == 1, kaur, singh)
    south = kids[np.isin(custom, [CUSTOMS.index("pakistani"), CUSTOMS.index("bangladeshi")])]
    girls = south[(people.sex[south] == 1) & (rng.random(len(south)) < 0.16)]
    people.surname[girls] = book.at["Begum"]


def _given_names(people: People, book: NameBook, rng: Rng) -> None:
    """Given names by custom, sex and generation; siblings never share one, twins often share an initial."""
    adult = people.role != CHILD
    todo = np.ones(len(people), bool)
    for attempt in range(6):
        draws = rng.random(len(people))
        for number, custom in enumerate(CUSTOMS):
            for sex in (0, 1):
                of = todo & (people.custom == number) & (people.sex == sex)
                for grown, key in ((False, custom), (True, custom + "_adult")):
                    use = of & (adult == grown)
                    people.given[use] = book.given[key][sex](draws[use])
        if attempt == 0:
            _same_initials(people, book, rng)
        both = people.family.astype(np.int64) * len(book.words) + people.given
        kids = np.flatnonzero(~adult)
        order = kids[np.argsort(both[kids], kind="stable")]
        repeats = order[1:][both[order[1:]] == both[order[:-1]]]
        todo = np.zeros(len(people), bool)
        todo[repeats] = True
        if not len(repeats):
            break
    second = (people.middle < 0) & (rng.random(len(people)) < 0.55)
    for number, custom in enumerate(CUSTOMS):
        for sex in (0, 1):
            of = second & (people.custom == number) & (people.sex == sex)
            people.middle[of] = book.given[custom][sex](rng.random(int(of.sum())))
    somali = np.flatnonzero((people.custom == CUSTOMS.index("somali")) & ~adult & (people.father >= 0))
    people.middle[somali] = people.given[people.father[somali]]
    forms = book.known_as[people.given]
    pick = forms[np.arange(len(people)), (rng.random(len(people)) < 0.4).astype(int)]
    people.known_as = np.where(rng.random(len(people)) < 0.35, pick, -1).astype(np.int32)
    # an adopted child mostly keeps the given name (adopters are asked to), and takes all else from the new family
    new = np.flatnonzero(people.severed >= 0)
    keeps = new[rng.random(len(new)) < 0.7]
    people.given[people.severed[keeps]] = people.given[keeps]


def _same_initials(people: People, book: NameBook, rng: Rng) -> None:
    """Give two twin pairs in five names with one initial, when a few draws find one."""
    twins = np.flatnonzero(people.twins >= 0)
    order = twins[np.argsort(people.twins[twins], kind="stable")]
    follows = np.flatnonzero(people.twins[order[1:]] == people.twins[order[:-1]])
    for place in follows.tolist():
        one, other = int(order[place]), int(order[place + 1])
        if rng.random() > 0.4:
            continue
        draw = book.given[CUSTOMS[people.custom[other]]][people.sex[other]]
        found = draw(rng.random(60))
        fitting = found[(book.initial[found] == book.initial[people.given[one]]) & (found != people.given[one])]
        if len(fitting):
            people.given[other] = fitting[0]


def _look_after(
    people: People, need: npt.NDArray[np.float64], age: npt.NDArray[np.float64], rng: Rng, today: np.datetime64
) -> None:
    """Some seventy in 10,000 children live away: placed with a household elsewhere in the area.

    Their home becomes that of another family (a foster carer's), the birth family's home the earlier one.
    """
    kids = np.flatnonzero((people.role == CHILD) & ~people.old_life & (people.severed < 0) & (age >= 0))
    weight = need[people.family[kids]] ** 1.5 + 1e-6
    count = max(3, round(len(kids) * 0.0070))
    chosen = rng.choice(kids, count, replace=False, p=weight / weight.sum())
    chosen = chosen[people.twins[chosen] < 0]
    people.looked_after[chosen] = True
    people.earlier[chosen] = people.home[chosen]
    families = int(people.family.max()) + 1
    people.home[chosen] = rng.integers(0, families, len(chosen))
    placed = rng.integers(20, 900, len(chosen)).astype("timedelta64[D]")
    people.moved_on[chosen] = today - placed
    teens = chosen[age[chosen] > 13]
    alone = teens[: max(1, len(chosen) // 11)]
    people.unaccompanied[alone] = True
    people.born[alone] = people.born[alone].astype("datetime64[Y]").astype("datetime64[D]")  # assigned: 1 January


def _shields(area: Area, rng: Rng) -> None:
    """Families that fled: mother and children in a refuge (communal), shielded; a quarter of them in full.

    Old identities and placements keep their address from view as well.
    """
    people = area.people
    families = len(area.structure)
    sought = np.isin(area.structure, (LONE_MOTHER,)) & (np.arange(families) > 30)
    sought &= np.bincount(people.family[(people.role == CHILD) & ~people.unborn], minlength=families)[:families] > 0
    taken = np.unique(people.family[(people.severed >= 0) | people.old_life])
    sought[taken] = False
    fled = rng.permutation(np.flatnonzero(sought))[: max(6, round(families * 0.0025))]
    level = np.where(np.arange(len(fled)) % 4 == 3, SHIELD_FULL, SHIELD_ADDRESS).astype(np.int32)
    by_family = np.zeros(families, np.int32)
    by_family[fled] = level
    refuge = np.flatnonzero(area.homes.communal)
    into = np.zeros(families, np.int32)
    into[fled] = rng.choice(refuge, len(fled))
    member = (by_family[people.family] > 0) & np.isin(people.role, (CHILD, MOTHER)) & ~people.looked_after
    people.shield[member] = by_family[people.family[member]]
    people.earlier[member] = people.home[member]
    people.home[member] = into[people.family[member]]
    people.moved_on[member] = area.on - np.timedelta64(60, "D")
    placed = people.looked_after & (people.shield == NO_SHIELD)
    people.shield[placed] = SHIELD_ADDRESS


def _canaries(area: Area) -> None:
    """Family 0 and family 1 get words nobody bears as their names, so that a leak can be searched for."""
    people, at = area.people, area.book.at
    for family in (0, 1):
        members = np.flatnonzero((people.family == family) & ~people.old_life)
        people.surname[members] = at[CANARY[2 + family]]
        people.surname2[members] = -1
        people.joint[members] = 0
        people.custom[members] = 0
        people.former[members] = people.known_as[members] = -1
        first = members[people.role[members] == CHILD][:1]
        people.given[first] = at[CANARY[family]]
