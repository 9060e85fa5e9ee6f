"""The bench an attack stands on: encodings without their key, a register without its truth, and a judge with both.

`Target` is what the vault holds.  `Bench` makes populations, encodes them with the encoder agencies use under a key it
throws away, and shuffles; whoever attacks gets arrays in and hands claims back, which `Bench` alone can score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from linkage.agency.encode import encode_people
from linkage.agency.keys import LinkageKeys
from linkage.evaluation.attack.population import MISSING, SEXES, Curve, Ints, People, population, register
from linkage.evaluation.attack.results import AttackResult
from linkage.records import FILTER_WORDS, FILTERS, TOKENS, Profile, filter_columns

PARTNERSHIP: Final = "nowhere"
EPOCH: Final = "2026-1"
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Wire columns of a population, as one who holds the vault key reads them; rows in random order.

    Columns: every filter, token and identifier of the profile, `birth_year` and `sex`.  `truth` is for the judge.
    """

    profile: Profile
    wire: pa.Table
    truth: People = field(repr=False)  # row for row; attacks must not read it

    def __len__(self) -> int:
        return int(self.wire.num_rows)

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters of the profile."""
        return FILTERS[self.profile]

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the profile."""
        return TOKENS[self.profile]

    def words(self, name: str) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], np.ndarray[Any, np.dtype[np.bool_]]]:
        """A filter as rows x 8 words (zero where missing), and where it is present."""
        columns = [self.wire.column(column) for column in filter_columns(name)[:-1]]
        made = np.empty((len(self), FILTER_WORDS), np.uint64)
        for at, column in enumerate(columns):
            made[:, at] = column.fill_null(0).to_numpy().view(np.uint64)
        return made, ~columns[0].is_null().to_numpy()

    def token(self, name: str) -> Ints:
        """A token column as small integers by equality: equal tokens, equal numbers; -1 is missing."""
        return coded(self.wire.column(f"t_{name}"))

    def encoding(self, name: str) -> Ints:
        """A filter column as small integers by equality, -1 missing: which rows have the same 512 bits."""
        words, present = self.words(name)
        mixed = np.zeros(len(self), np.uint64)
        for at in range(FILTER_WORDS):  # odd multipliers: a collision of two filters is as likely as of two hashes
            mixed = (mixed ^ words[:, at]) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(at + 1)
            mixed ^= mixed >> np.uint64(29)
        _, index = np.unique(mixed, return_inverse=True)
        return np.where(present, index, MISSING).astype(np.int64)

    @cached_property
    def birth_year(self) -> Ints:
        """In clear on the wire; -1 missing."""
        made: Ints = self.wire.column("birth_year").fill_null(MISSING).to_numpy().astype(np.int64)
        return made

    @cached_property
    def sex(self) -> Ints:
        """In clear on the wire, as an index into SEXES."""
        return coded(self.wire.column("sex"), SEXES)


def coded(column: pa.ChunkedArray, order: Sequence[str] | None = None) -> Ints:
    """A column as small integers by equality, -1 missing; `order` fixes which number a value gets."""
    if order is not None:
        at = {value: place for place, value in enumerate(order)}
        return np.array([at.get(value, MISSING) for value in column.to_pylist()], np.int64)
    missing = column.is_null().to_numpy()
    _, index = np.unique(column.fill_null(0).to_numpy(), return_inverse=True)
    return np.where(missing, MISSING, index).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one run is asked for."""

    profile: Profile
    children: int
    overlaps: tuple[float, ...]
    errors: bool
    seed: int


class Bench:
    """Populations, encodings, registers and the judge of one setting; each is made once and kept."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._kept: dict[tuple[object, ...], Any] = {}

    def population(self, children: int | None = None, **how: Any) -> People:
        """See `population.population`; by default as many children as the setting asks for."""
        count = self.setting.children if children is None else children
        return self._once(
            ("people", count, *sorted(how.items())), lambda: population(count, seed=self.setting.seed, **how)
        )

    def target(self, children: int | None = None, **how: Any) -> Target:
        """The population (`how` as for `population`), encoded under a fresh key."""
        count = self.setting.children if children is None else children
        return self._once(("target", count, *sorted(how.items())), lambda: self.encoded(self.population(count, **how)))

    def encoded(self, people: People) -> Target:
        """These people under a key that only the seed knows."""
        keys = fresh_keys(self.setting.seed, "the agencies'")
        return Target(profile=self.setting.profile, wire=wire(people, keys, self.setting.profile), truth=people)

    def register(
        self, target: Target, overlap: float, *, errors: bool | None = None, curve: Curve = "fitted"
    ) -> People:
        """The attacker's register about a target; `person` and `family` are blanked, as they are the truth."""
        return blinded(self._register(target, overlap, errors, curve))

    def _register(self, target: Target, overlap: float, errors: bool | None, curve: Curve) -> People:
        wrong = self.setting.errors if errors is None else errors
        key = ("register", id(target.truth), overlap, wrong, curve)
        return self._once(
            key, lambda: register(target.truth, overlap=overlap, errors=wrong, seed=self.setting.seed, curve=curve)
        )

    def acquaintances(self, target: Target, overlap: float, count: int) -> tuple[Ints, Ints]:
        """Rows of the target and of the register of so many children whom the attacker knows to begin with."""
        known = self._register(target, overlap, None, "fitted")
        _, rows, others = np.intersect1d(target.truth.person, known.person, return_indices=True)
        chosen = np.random.default_rng([self.setting.seed, 3]).permutation(len(rows))[:count]
        return rows[chosen].astype(np.int64), others[chosen].astype(np.int64)

    def judge(
        self,
        target: Target,
        overlap: float,
        claims: Ints,
        *,
        attack: str,
        case: str,
        knowledge: str,
        errors: bool | None = None,
        curve: Curve = "fitted",
        clear: bool = False,
        note: str = "",
    ) -> AttackResult:
        """Score a row of the register claimed for each row of the target (-1: no claim), as `register` gave it.

        `clear`: the attacker reads birth year and sex, which a blind guess then uses too.
        """
        known = self._register(target, overlap, errors, curve)
        made = claims >= 0
        right = known.person[claims[made]] == target.truth.person[made]
        return AttackResult(
            attack=attack, case=case, profile=self.setting.profile, knowledge=knowledge, what="child",
            children=len(np.unique(target.truth.person)), population=len(target), overlap=overlap,
            errors=self.setting.errors if errors is None else errors, seed=self.setting.seed,
            claimed=int(made.sum()), right=int(right.sum()), trivial=_blind(target, clear=clear) * overlap,
            note=note,
        )  # fmt: skip

    def judge_values(
        self,
        target: Target,
        claims: Ints,
        truth: Ints,
        *,
        attack: str,
        case: str,
        knowledge: str,
        what: str,
        overlap: float | None = None,
        note: str = "",
    ) -> AttackResult:
        """Score a value claimed for each row (-1: no claim) beside the true ones; the blind guess is the commonest."""
        made = claims >= 0
        commonest = np.bincount(truth[truth >= 0]).max() if (truth >= 0).any() else 0
        return AttackResult(
            attack=attack, case=case, profile=self.setting.profile, knowledge=knowledge, what=what,
            children=len(np.unique(target.truth.person)), population=len(target), overlap=overlap,
            errors=None if overlap is None else self.setting.errors, seed=self.setting.seed, claimed=int(made.sum()),
            right=int((claims[made] == truth[made]).sum()), trivial=float(commonest) / max(1, len(target)), note=note,
        )  # fmt: skip

    def _once(self, key: tuple[object, ...], make: Callable[[], Made]) -> Made:
        if key not in self._kept:
            self._kept[key] = make()
        made: Made = self._kept[key]
        return made


def _blind(target: Target, *, clear: bool) -> float:
    """What picking anybody gets right, or anybody of the same birth year and sex, if these are read."""
    if not clear:
        return 1 / max(1, len(target))
    kinds = np.unique(target.birth_year * len(SEXES) + target.sex)
    return len(kinds) / max(1, len(target))


def fresh_keys(seed: int, whose: str) -> LinkageKeys:
    """Keys that nobody else has; the same for the same seed and holder, so that a run can be repeated."""
    rng = np.random.default_rng([seed, *whose.encode()])
    return LinkageKeys(rng.bytes(32), partnership=PARTNERSHIP, epoch=EPOCH)


def wire(people: People, keys: LinkageKeys, profile: Profile) -> pa.Table:
    """What lies in the vault about these people: their encodings, birth year and sex; row for row."""
    made = encode_people(people.clear(), keys, profile)
    years = pa.array((people.born // 10_000).astype(np.int32), mask=people.born == MISSING)
    sexes = pa.array(np.array(SEXES, object)[people.sex], pa.string())
    return made.append_column("birth_year", years).append_column("sex", sexes)


def blinded(people: People) -> People:
    """The same rows without who is who."""
    nobody = np.full(len(people), MISSING)
    return people.with_columns({"person": nobody, "family": nobody})


Attack = Callable[[Bench], Iterator[AttackResult]]
