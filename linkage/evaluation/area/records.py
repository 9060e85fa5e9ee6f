"""From people as they are to rows as agencies hold them: who is known where, and what got lost or bent on the way."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from linkage.evaluation.area import identifiers
from linkage.evaluation.area.agencies import Flow
from linkage.evaluation.area.families import (
    CARER,
    CHILD,
    FATHER,
    MOTHER,
    NO_SHIELD,
    ROLE_NAMES,
    STEP,
    Area,
    Flags,
    Ints,
    Longs,
    Rng,
)
from linkage.evaluation.area.names import CUSTOMS, MINORITY

SHIELD_NAMES: Final = ("none", "address", "full")
OWN_SCRIPT: Final = 0.08  # of names of customs with another script, in flows that can hold it (an assumption)
_NOWHERE: Final = "ZZ99 3VZ"  # no fixed abode
_NEAR: Final = {
    "a": "sqe", "b": "vn", "c": "xks", "d": "sf", "e": "rai", "f": "dg", "g": "fh", "h": "gj", "i": "eyo", "j": "hk",
    "k": "jlc", "l": "k", "m": "n", "n": "m", "o": "pia", "p": "o", "q": "w", "r": "te", "s": "az", "t": "ry",
    "u": "io",
    "v": "bf", "w": "e", "x": "z", "y": "ti", "z": "sx",
}  # fmt: skip


Chance = Callable[..., Flags]
"""Whether something befalls each row, at a rate; worse for those whom errors befall more, unless `fair`."""


@dataclass(slots=True)
class Numbers:
    """What schools and the police have given out: by person, with null where nothing was."""

    school: Ints  # establishment, 0: none
    upn: pa.Array
    former_upn: pa.Array
    uln: pa.Array
    pnc: pa.Array
    cro: pa.Array
    suspects: Flags


@dataclass(slots=True)
class Rows:
    """One flow's persons: row n is about person `who[n]`; `again` marks a second record of one person."""

    flow: Flow
    who: Longs
    again: Flags
    home: Ints  # where the flow thinks they live
    local_id: pa.Array
    table: pa.Table  # columns by canonical name, as text, dates as date32


def give_numbers(area: Area, rng: Rng) -> Numbers:
    """Schools, UPNs (some temporary, a few given twice to twins), ULNs from 14, and numbers of arrests."""
    people = area.people
    total = len(people)
    age = (area.on - people.born).astype(np.int64) / 365.2425
    hood = area.homes.hood[people.home].astype(np.int64)
    child = people.role == CHILD
    pupil = child & (age >= 4.2)
    primary, secondary = 2001 + hood // 2, 4001 + hood // 8
    school = np.where(pupil, np.where(age < 11.5, primary, secondary), 0)
    year = people.born.astype("datetime64[Y]").astype(np.int64) + 1970 + 5
    group = np.flatnonzero(pupil)
    key = primary[group] * 10_000 + year[group]
    order = group[np.argsort(key, kind="stable")]
    sorted_key = np.sort(key, kind="stable")
    starts = np.flatnonzero(np.r_[True, sorted_key[1:] != sorted_key[:-1]])
    serial = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    serials = np.zeros(total, np.int64)
    serials[order] = serial % 1000
    temporary = pupil & (rng.random(total) < np.where(MINORITY[people.custom], 0.05, 0.015))
    once = pupil & ~temporary & (rng.random(total) < 0.025)
    upn = identifiers.upns(primary, year, serials, temporary=temporary)
    former = identifiers.upns(primary + 1, year, serials, temporary=np.ones(total, bool))
    upn = pc.if_else(pa.array(pupil), upn, pa.scalar(None, pa.string()))
    upn = upn.take(pa.array(_shared_by_twins(people.twins, pupil, rng)))
    former = pc.if_else(pa.array(once), former, pa.scalar(None, pa.string()))
    ulns = np.zeros(total, np.int64)
    older = np.flatnonzero(child & (age >= 14))
    ulns[older] = identifiers.ulns(len(older), int(rng.integers(0, 1000)))
    arrest = (
        0.35 * area.need[people.family] * np.where(child, (age > 10) * 0.5, 1.0) * np.where(people.sex == 0, 1.2, 0.5)
    )
    suspects = (rng.random(total) < arrest) & ~people.unborn
    return Numbers(
        school=school.astype(np.int32), upn=upn, former_upn=former,
        uln=pc.if_else(pa.array(ulns > 0), pa.array(ulns).cast(pa.string()), pa.scalar(None, pa.string())),
        pnc=_arrests(suspects, area, rng, cro=False), cro=_arrests(suspects, area, rng, cro=True), suspects=suspects,
    )  # fmt: skip


def _shared_by_twins(twins: Ints, pupil: Flags, rng: Rng) -> Longs:
    """Whose UPN each person has: their own, but for a few second twins (and at least one) who bear the first's."""
    own = np.arange(len(twins))
    places = np.flatnonzero((twins >= 0) & pupil)
    order = places[np.argsort(twins[places], kind="stable")]
    second = np.flatnonzero(twins[order[1:]] == twins[order[:-1]])
    if len(second):
        chosen = second[(rng.random(len(second)) < 0.02) | (np.arange(len(second)) == len(second) - 1)]
        own[order[chosen + 1]] = order[chosen]
    return own


def _arrests(suspects: Flags, area: Area, rng: Rng, *, cro: bool) -> pa.Array:
    places = np.flatnonzero(suspects)
    serials = (5_000_000 if not cro else 500_000) + np.arange(len(places)) * 7 % (4_900_000 if not cro else 490_000)
    years = int(str(area.on)[:4]) - rng.integers(0, 3, len(places))
    texts = identifiers.cro_numbers(years, serials) if cro else identifiers.pnc_ids(years, serials)
    out = np.full(len(suspects), None, object)
    out[places] = texts
    if cro:
        out[places[rng.random(len(places)) < 0.5]] = None
    return pa.array(out, pa.string())


def known_to(flow: Flow, area: Area, rng: Rng, suspects: Flags) -> Longs:
    """Whom a flow knows, as indices of people in no telling order."""
    people = area.people
    draw, family_draw = rng.random(len(people)), rng.random(len(area.structure))[people.family]
    if flow.flow in ("health", "education"):
        odds = _universal(flow, area)
    else:
        odds = _targeted(flow, area, family_draw, suspects)
    if flow.flow not in ("health", "social_care"):
        odds[people.unnamed] = 0.0
    canary = people.family <= 1
    if flow.flow in ("education", "health", "social_care", "police"):
        odds[canary & (odds > 0)] = 1.0
        odds[canary & ~people.unborn & (flow.flow in ("social_care", "police"))] = 1.0
    return rng.permutation(np.flatnonzero(draw < odds))


def _age(area: Area) -> npt.NDArray[np.float64]:
    age: npt.NDArray[np.float64] = (area.on - area.people.born).astype(np.int64) / 365.2425
    return age


def _resident(area: Area) -> Flags:
    """Those who live where the family's eldest child does."""
    eldest = np.searchsorted(area.people.family[: area.children - int(area.people.old_life.sum())], area.people.family)
    resident: Flags = area.people.home == area.people.home[eldest]
    return resident


def _universal(flow: Flow, area: Area) -> npt.NDArray[np.float64]:
    """Nearly every child, and most parents: 92 % of pupils are at state schools (DfE); GPs know nearly all."""
    people, age = area.people, _age(area)
    child, odds = people.role == CHILD, np.zeros(len(people))
    if flow.flow == "health":
        odds[child & ~people.unborn] = 0.985
        for role, share in ((MOTHER, 0.97), (FATHER, 0.86), (STEP, 0.88), (CARER, 0.88)):
            odds[people.role == role] = share
    else:
        odds[child & (age >= 4.2)] = 0.925
        odds[child & (age >= 3) & (age < 4.2)] = 0.55
        odds[people.old_life & (age < 6)] = 0.0
        odds[people.role == MOTHER] = 0.93
        fathers = people.role == FATHER
        odds[fathers] = np.where(_resident(area), 0.72, 0.3)[fathers]
        odds[people.role >= STEP] = 0.75
        schooled = np.zeros(len(area.structure), bool)
        schooled[people.family[child & (age >= 3)]] = True
        odds[~child & ~schooled[people.family]] = 0.0
    odds[people.unaccompanied] = 0.95
    return odds


def _targeted(flow: Flow, area: Area, family_draw: npt.NDArray[np.float64], suspects: Flags) -> npt.NDArray[np.float64]:
    """Families by need: about a tenth of children are referred within two years (DfE, *Children in need*)."""
    people, need = area.people, area.need[area.people.family]
    child, mother = people.role == CHILD, people.role == MOTHER
    if flow.flow == "social_care":
        known = family_draw < 0.95 * (1 - np.exp(-1.25 * need))
        odds = np.where(known, np.where(child, 0.88, np.where(mother, 0.85, 0.55)), 0.0)
        odds[people.looked_after | people.old_life | (people.shield > NO_SHIELD)] = 1.0
        odds[people.severed >= 0] = 0.35
        odds[people.unborn] = np.where(need > 0.08, 0.5, 0.02)[people.unborn]
        return odds
    if flow.flow == "early_help":
        known = family_draw < np.clip(2.0 * need * np.exp(-2.2 * need), 0, 0.6) * 0.75
        odds = np.where(known, np.where(child, 0.85, np.where(mother, 0.9, 0.45)), 0.0)
    elif flow.flow == "police":
        known = family_draw < 0.05 + 0.9 * (1 - np.exp(-1.6 * need))
        odds = np.where(known, np.where(child, 0.45, 0.6), np.where(child, 0.004, 0.035))
        odds[suspects] = 1.0
        odds[people.shield > NO_SHIELD] = 0.8
    else:
        poor = (10 - area.decile[area.hood])[people.family]
        tenant = family_draw < 0.04 + 0.04 * poor + 0.25 * need
        odds = np.where(tenant & _resident(area), np.where(child, 0.93, 0.97), 0.0)
        odds[people.shield > NO_SHIELD] = 0.0
    if flow.flow != "police":
        odds[people.old_life] = 0.0
    odds[people.unborn] = 0.0
    return odds


def write_rows(flow: Flow, area: Area, numbers: Numbers, who: Longs, rng: Rng, blank: float) -> Rows:
    """What the flow's system says of these people, with its errors."""
    again = np.zeros(len(who), bool)
    if flow.duplicates:
        second = who[rng.random(len(who)) < 0.02]
        again = np.r_[again, np.ones(len(second), bool)]
        who = np.r_[who, second]
    people, faults, count = area.people, flow.errors, len(who)
    child = people.role[who] == CHILD
    worse = _worse(area, who)
    local_id = _local_ids(flow, count, rng)

    def some(rate: float | npt.NDArray[np.float64], *, fair: bool = False) -> Flags:
        return rng.random(count) < rate * (1.0 if fair else worse)

    given, family_text, known_as = _names(flow, area, who, some, rng)
    dates, quality = _birth_dates(flow, area, who, some, rng, blank)
    home, postcode = _addresses(flow, area, who, some, rng, blank)
    nhs, superseded = _nhs_numbers(flow, area, who, some, rng)
    index = pa.array(who)
    nothing = pa.nulls(count, pa.string())
    has_upn = pa.array(some(faults.upn_held, fair=True) & child)
    severed = _severance(flow, area, who)
    columns = {
        "local_id": local_id,
        "local_nominal": pc.binary_join_element_wise("NX", local_id, "") if flow.flow == "police" else nothing,
        "person_role": pa.array(np.array(ROLE_NAMES, object)[people.role[who]]),
        "given_name": given,
        "known_as": known_as,
        "family_name": family_text,
        "former_family_name": _former(flow, area, who, some),
        "date_of_birth": dates,
        "dob_quality": quality,
        "sex": _sexes(flow, area, who, some),
        "postcode": postcode,
        "uprn": _uprns(flow, area, home, some),
        "nhs_number": nhs,
        "superseded_nhs_number": superseded,
        "upn": pc.if_else(has_upn, numbers.upn.take(index), nothing),
        "former_upn": pc.if_else(has_upn, numbers.former_upn.take(index), nothing),
        "uln": pc.if_else(pa.array(some(0.8, fair=True)), numbers.uln.take(index), nothing),
        "pnc_id": numbers.pnc.take(index),
        "cro": numbers.cro.take(index),
        "shield": pa.array(np.array(SHIELD_NAMES, object)[people.shield[who]]) if flow.shields else nothing,
        "sever_ref": severed,
        "valid_from": pa.array(people.moved_on[who], pa.date32())
        if flow.flow == "housing"
        else pa.nulls(count, pa.date32()),
    }
    return Rows(flow=flow, who=who, again=again, home=home, local_id=local_id, table=pa.table(columns))


def _worse(area: Area, who: Longs) -> npt.NDArray[np.float64]:
    """How much likelier an error is for this person: the multipliers of `agencies`."""
    people = area.people
    recent = (area.on - people.moved_on[who]).astype(np.float64) < 730
    worse = np.where(MINORITY[people.custom[who]], 1.6, 1.0) * np.where(recent & (people.earlier[who] >= 0), 1.4, 1.0)
    worse *= np.where(people.looked_after[who], 1.7, 1.0)
    return worse * np.where(area.decile[area.hood[people.family[who]]] <= 2, 1.2, 1.0) / 1.2


def _local_ids(flow: Flow, count: int, rng: Rng) -> pa.Array:
    width = max(6, len(str(count * 3)))
    numbers = 10 ** (width - 1) + rng.permutation(count * 3)[:count]
    return pc.binary_join_element_wise(flow.id_prefix, pa.array(numbers).cast(pa.string()), "")


def _names(flow: Flow, area: Area, who: Longs, some: Chance, rng: Rng) -> tuple[pa.Array, pa.Array, pa.Array]:
    people, book, faults = area.people, area.book, flow.errors
    count = len(who)
    given, family, second, joint = (
        column[who].copy() for column in (people.given, people.surname, people.surname2, people.joint)
    )
    custom = people.custom[who]
    sikh, somali, chinese = (custom == CUSTOMS.index(name) for name in ("sikh", "somali", "chinese"))
    middle = people.middle[who]
    turn = np.array([word in ("Singh", "Kaur") for word in book.words])
    clan = sikh & (middle >= 0) & turn[np.maximum(middle, 0)] & some(0.15)
    family[clan] = middle[clan]
    patronym = somali & (middle >= 0) & some(0.12)
    family[patronym] = middle[patronym]
    former = (people.former[who] >= 0) & some(faults.former)
    family[former] = people.former[who][former]
    known = (people.known_as[who] >= 0) & some(faults.known_as)
    given[known] = people.known_as[who][known]
    for column in (given, family):
        other = book.variant[column][np.arange(count), rng.integers(0, 2, count)]
        use = (other >= 0) & some(faults.variant)
        column[use] = other[use]
    other_way = joint > 0
    change = other_way & some(faults.reordered)
    kind = rng.random(count)
    halved, tail, spaced, turned = (
        change & (kind >= low) & (kind < high) for low, high in ((0, 0.35), (0.35, 0.55), (0.55, 0.8), (0.8, 1))
    )
    family[tail] = second[tail]
    second[halved | tail] = -1
    joint[spaced] = 3 - joint[spaced]
    family[turned], second[turned] = second[turned], family[turned]
    swapped = some(np.where(chinese, 0.05, faults.swapped)) & (second < 0)
    given[swapped], family[swapped] = family[swapped], given[swapped]
    words = _word_array(flow, book.words)
    first = words.take(pa.array(given))
    last = words.take(pa.array(family))
    both = pa.array(second >= 0)
    joiner = pa.array(["-", "-", " ", "-"]).take(pa.array(joint))
    tail_text = words.take(pa.array(np.maximum(second, 0)))
    last = pc.if_else(both, pc.binary_join_element_wise(last, tail_text, joiner), last)
    first = _misspelt(first, some(faults.given_typo), rng)
    last = _misspelt(last, some(faults.family_typo), rng)
    if not flow.capitals:
        plain = np.where(second < 0, family, -1)
        first, last = _in_own_script(area, custom, given, plain, (first, last), rng.spawn(1)[0])
    unnamed = people.unnamed[who] & (flow.flow in ("health", "social_care"))
    nobody = np.full(count, None, object)
    nobody[unnamed], nobody[people.unborn[who]] = "Baby", "Unborn"
    first = pc.coalesce(pa.array(nobody, pa.string()), first)
    alias = np.where(known, -1, people.known_as[who])
    known_as = pc.if_else(
        pa.array((alias >= 0) & ("known_as" in flow.columns)), words.take(pa.array(np.maximum(alias, 0))),
        pa.scalar(None, pa.string()),
    )  # fmt: skip
    return first, last, known_as


def _former(flow: Flow, area: Area, who: Longs, some: Chance) -> pa.Array:
    former = area.people.former[who]
    told = (former >= 0) & some(0.5) & ("former_family_name" in flow.columns)
    return pc.if_else(
        pa.array(told),
        _word_array(flow, area.book.words).take(pa.array(np.maximum(former, 0))),
        pa.scalar(None, pa.string()),
    )


def _in_own_script(
    area: Area, custom: Ints, given: Ints, family: Ints, texts: tuple[pa.Array, pa.Array], rng: Rng
) -> tuple[pa.Array, pa.Array]:
    """Some names as their bearers write them: both or neither, and only those whose form is known."""
    chosen = rng.random(len(custom)) < OWN_SCRIPT
    for name, forms in area.book.native.items():
        native = pa.array(forms, pa.string())
        mine = pa.array(chosen & (custom == CUSTOMS.index(name)) & (family >= 0))
        both = [native.take(pa.array(np.maximum(column, 0))) for column in (given, family)]
        use = pc.and_(mine, pc.and_(pc.is_valid(both[0]), pc.is_valid(both[1])))
        texts = (pc.if_else(use, both[0], texts[0]), pc.if_else(use, both[1], texts[1]))
    return texts


_WORDS: dict[bool, pa.Array] = {}


def _word_array(flow: Flow, words: list[str]) -> pa.Array:
    """The words as this flow writes them: as they are, or in capitals without accents."""
    made = _WORDS.get(flow.capitals)
    if made is None or len(made) != len(words):
        made = pa.array([_plain(word).upper() for word in words] if flow.capitals else words)
        _WORDS[flow.capitals] = made
    return made


def _plain(word: str) -> str:
    if word.isascii():
        return word
    return unicodedata.normalize("NFKD", word.replace("ł", "l").replace("Ł", "L")).encode("ascii", "ignore").decode()


def _misspelt(texts: pa.Array, rows: Flags, rng: Rng) -> pa.Array:
    """One slip of the finger in each of these rows: a near key, a letter lost, doubled or swapped with the next."""
    places = np.flatnonzero(rows)
    if not len(places):
        return texts
    draws = rng.random((len(places), 3))
    mask = pa.array(rows)
    bent = [_slip(text, *draw) for text, draw in zip(texts.filter(mask).to_pylist(), draws.tolist(), strict=True)]
    return pc.replace_with_mask(texts, mask, pa.array(bent, pa.string()))


def _slip(text: str, kind: float, where: float, which: float) -> str:
    place = min(int(where * len(text)), len(text) - 1)
    letter = text[place]
    if kind < 0.40:
        near = _NEAR.get(letter.lower(), "e")
        new = near[int(which * len(near))]
        return text[:place] + (new.upper() if letter.isupper() else new) + text[place + 1 :]
    if kind < 0.65 and len(text) > 3:
        return text[:place] + text[place + 1 :]
    if kind < 0.85 and place + 1 < len(text):
        return text[:place] + text[place + 1] + letter + text[place + 2 :]
    return text[:place] + letter + text[place:]


def _birth_dates(flow: Flow, area: Area, who: Longs, some: Chance, rng: Rng, blank: float) -> tuple[pa.Array, pa.Array]:
    """Dates of birth as held, and whether each is known in full or a default."""
    people, faults = area.people, flow.errors
    born = people.born[who].copy()
    quality = np.full(len(who), "full", object)
    _bend_dates(born, some, faults.dob_digit, faults.dob_swapped, area.on, rng)
    default = some(faults.dob_default) & ~people.unborn[who]
    year = born.astype("datetime64[Y]")
    born[default] = year[default].astype("datetime64[D]")
    default |= people.unaccompanied[who]
    quality[default] = "default"
    missing = some(np.where(people.role[who] == CHILD, faults.dob_missing, faults.adult_dob_missing))
    missing |= people.unborn[who] | (rng.random(len(who)) < blank)
    return pa.array(born, pa.date32(), mask=missing), pa.array(quality, pa.string())


def _bend_dates(
    born: npt.NDArray[np.datetime64], some: Chance, digit: float, swapped: float, on: np.datetime64, rng: Rng
) -> None:
    count = len(born)
    off = some(digit)
    kind, sign = rng.random(count), np.where(rng.random(count) < 0.5, -1, 1)
    month = born.astype("datetime64[M]")
    day = (born - month.astype("datetime64[D]")).astype(np.int64)
    bent = born + sign.astype("timedelta64[D]")
    by_month = (month + sign.astype("timedelta64[M]")).astype("datetime64[D]") + np.minimum(day, 27).astype(
        "timedelta64[D]"
    )
    by_year = (month + (12 * sign).astype("timedelta64[M]")).astype("datetime64[D]") + np.minimum(day, 27).astype(
        "timedelta64[D]"
    )
    bent = np.where(kind < 0.6, bent, np.where(kind < 0.8, by_month, by_year))
    off &= bent <= on
    born[off] = bent[off]
    year = born.astype("datetime64[Y]")
    months = (born.astype("datetime64[M]") - year.astype("datetime64[M]")).astype(np.int64)
    days = (born - born.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64)
    other = (year.astype("datetime64[M]") + days.astype("timedelta64[M]")).astype("datetime64[D]") + months.astype(
        "timedelta64[D]"
    )
    turn = some(swapped) & (days < 12) & ~off & (other <= on)
    born[turn] = other[turn]


def _addresses(flow: Flow, area: Area, who: Longs, some: Chance, rng: Rng, blank: float) -> tuple[Ints, pa.Array]:
    """The home this flow thinks they live in, and its postcode."""
    people, faults, count = area.people, flow.errors, len(who)
    years = (area.on - people.moved_on[who]).astype(np.float64) / 365.0
    rate = np.where(
        people.earlier[who] >= 0, faults.stale * 0.5 ** (np.clip(np.nan_to_num(years, nan=99.0), 0, 99) / 2), 0.0
    )
    # one parent tells the school or not, for all of them: outdated together by household
    together = rng.random(len(area.structure))[people.family[who]]
    own = rng.random(count)
    stale = np.where(rng.random(count) < 0.7, together, own) < rate * _worse(area, who)
    # who is not told of a flight still has the home before; whoever is told keeps the place safe
    stale |= (people.shield[who] > NO_SHIELD) & ~people.looked_after[who] & (not flow.shields)
    stale &= people.earlier[who] >= 0
    home = np.where(stale, people.earlier[who], people.home[who]).astype(np.int32)
    homeless = people.unaccompanied[who] & (rng.random(count) < 0.15)
    codes = pa.array(area.homes.postcodes).take(pa.array(area.homes.postcode[home]))
    wrong = some(faults.postcode_typo)
    places = np.flatnonzero(wrong)
    draws = rng.random((len(places), 2))
    mask = pa.array(wrong)
    bent = [_mistyped(code, *draw) for code, draw in zip(codes.filter(mask).to_pylist(), draws.tolist(), strict=True)]
    codes = pc.replace_with_mask(codes, mask, pa.array(bent, pa.string()))
    codes = pc.if_else(pa.array(homeless), _NOWHERE, codes)
    missing = some(faults.postcode_missing) | (rng.random(count) < blank)
    return home, pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), codes)


def _mistyped(code: str, which: float, letter: float) -> str:
    """Another last letter or another sector: still a postcode in shape."""
    if which < 0.6:
        return code[:-1] + "ABDEFGHJLNPQRSTUWXYZ"[int(letter * 20)]
    return code[:-3] + str(int(letter * 10)) + code[-2:]


def _nhs_numbers(flow: Flow, area: Area, who: Longs, some: Chance, rng: Rng) -> tuple[pa.Array, pa.Array]:
    people, faults = area.people, flow.errors
    numbers, before = people.nhs[who].copy(), people.nhs_before[who]
    held = (rng.random(len(who)) < faults.nhs_held) & ~people.unborn[who]
    outdated = (before > 0) & some(faults.nhs_superseded, fair=True)
    numbers[outdated] = before[outdated]
    bad = some(faults.nhs_bad)
    numbers[bad] = identifiers.broken_nhs_numbers(numbers[bad])
    told = (before > 0) & ~outdated & held
    none = pa.scalar(None, pa.string())
    return (
        pc.if_else(pa.array(held), pa.array(numbers).cast(pa.string()), none),
        pc.if_else(pa.array(told), pa.array(before).cast(pa.string()), none),
    )


def _sexes(flow: Flow, area: Area, who: Longs, some: Chance) -> pa.Array:
    sexes = np.array(["M", "F"], object)[area.people.sex[who] ^ some(flow.errors.sex_wrong)]
    sexes[some(flow.errors.sex_missing) | area.people.unborn[who]] = None
    return pa.array(sexes, pa.string())


def _uprns(flow: Flow, area: Area, home: Ints, some: Chance) -> pa.Array:
    """The home's own UPRN, or for some flats the block's."""
    homes = area.homes
    block = (homes.parent_uprn[home] > 0) & some(0.3, fair=True)
    uprn = pa.array(np.where(block, homes.parent_uprn[home], homes.uprn[home])).cast(pa.string())
    return pc.if_else(pa.array(some(flow.errors.uprn_held, fair=True)), uprn, pa.scalar(None, pa.string()))


def _severance(flow: Flow, area: Area, who: Longs) -> pa.Array:
    """The same reference on the two rows that must never be joined, where the flow holds both and knows it."""
    people = area.people
    refs = np.full(len(who), None, object)
    if "sever_ref" in flow.columns:
        place = {int(person): row for row, person in enumerate(who.tolist()) if people.old_life[person]}
        for row in np.flatnonzero(people.severed[who] >= 0).tolist():
            old = int(people.severed[who[row]])
            if old in place:
                refs[row] = refs[place[old]] = f"{flow.flow[:2].upper()}-SEV-{old:07d}"
    return pa.array(refs, pa.string())
