"""Two graphs of the same people under different keys, laid over one another: seeds, then extension.

Seeds come from what a key does not change: how a value's similarities to all others are spread, how many bear it, how
many bits are set.  Extension goes round in three steps.  Values that are matched serve as anchors: two values that are
as similar to the same anchors are the same value.  Groups (one date of birth, one postcode, one family at a postcode)
are compared by their members, each counted but for what it says itself.  What a record's fields, groups and features
say is added up as evidence, with room for a field that differs by mistake and for people only one side holds.

How much each feature counts is learned, not assumed: the attacker encodes two overlapping parts of the register under
two keys of its own and sees how much a key and a missing person change (`Learned`).

Sources: Vidanage, Christen, Ranbaduge and Schnell, CIKM 2020 (graph of similarities, features, one-to-one matching);
seeded graph matching by common neighbours; the message passing and its calibration are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from linkage.evaluation.attack.graph_encodings import Field, Ints, Side, Singles

Floats = npt.NDArray[np.float64]

ROUNDS: Final = 12
ANCHORS: Final = 1_200  # most certain values of a field that others are compared with
TRUST: Final = 0.6  # evidence of anchors and of groups is not independent: each counts this much
WRONG: Final = 0.04  # share of people whose field differs by mistake: no field speaks against a pair more than this
CAP: Final = 15.0  # nats that one source of evidence can count for
SETTLED: Final = 0.003  # share of claims that may still change when a run ends early
HIDES: Final[Mapping[str, tuple[str, ...]]] = {
    "family_name_p": ("postcode", "family_name", "postcode_family_given1"),
    "given_name_p": ("postcode", "postcode_given_family1", "postcode_family_given1"),
    "postcode_given_family1": ("postcode", "given_name_p", "postcode_family_given1"),
    "postcode_family_given1": ("postcode", "family_name_p", "given_name_p", "postcode_given_family1"),
    "dob_given": ("dob", "dob_family", "dob_sector"),
    "dob_family": ("dob", "dob_given", "dob_sector"),
    "dob_sector": ("dob", "dob_given", "dob_family"),
}
"""Groups that lie within or across others: what those say is left out where these are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Covariance of a feature's noise (between two keys and two samples) and of the feature among people."""

    noise: Mapping[str, Floats]
    spread: Mapping[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """For each record of the victim the claimed record of the attacker's, -1 none; and the margin in nats."""

    claims: Ints
    margin: Singles
    rounds: int


def match_graphs(victim: Side, own: Side, learned: Learned, *, overlap: float, rounds: int = ROUNDS) -> Matching:
    """Claims, one to one: pairs that are each other's best, whatever the margin.

    `overlap` is the share of the victim's records that the attacker believes to hold.  The order of records on either
    side changes nothing but how ties fall.
    """
    state = _State(victim, own, learned, overlap)
    before = np.full(victim.size, -1, np.int64)
    for done in range(1, rounds + 1):
        state.compare_groups()
        state.compare_values(share=min(1.0, 0.15 + 0.15 * done))
        matching = _mutual(state.evidence(), done)
        changed = float((matching.claims != before).mean())
        before = matching.claims
        if done >= 5 and changed < SETTLED:
            break
    return matching


def learn(pairs: Iterable[tuple[Side, Side, Ints, Ints]]) -> Learned:
    """From simulated attacks: two sides, and the rows of each that are the same people."""
    noises: dict[str, list[Floats]] = {}
    spreads: dict[str, list[Floats]] = {}
    for one, other, left, right in pairs:
        for name, features in one.features.items():
            _keep(noises, spreads, f"record/{name}", features[left], other.features[name][right])
        for name, of_one in one.fields.items():
            of_other = other.fields[name]
            places = _value_pairs(of_one.index[left], of_other.index[right])
            _keep(noises, spreads, f"value/{name}", of_one.features[places[0]], of_other.features[places[1]])
    return Learned(
        noise={name: np.asarray(sum(found) / len(found)) for name, found in noises.items()},
        spread={name: np.asarray(sum(found) / len(found)) for name, found in spreads.items()},
    )


def _keep(
    noises: dict[str, list[Floats]], spreads: dict[str, list[Floats]], name: str, one: Singles, other: Singles
) -> None:
    whole = ~(np.isnan(one).any(axis=1) | np.isnan(other).any(axis=1))
    if whole.sum() < 3:
        return
    width = one.shape[1]
    ridge = 1e-6 * np.eye(width)
    noises.setdefault(name, []).append(np.cov((one - other)[whole].T).reshape(width, width) + ridge)
    spreads.setdefault(name, []).append(np.cov(np.vstack([one[whole], other[whole]]).T).reshape(width, width) + ridge)


def _value_pairs(left: Ints, right: Ints) -> tuple[Ints, Ints]:
    both = (left >= 0) & (right >= 0)
    pairs = np.unique(np.stack([left[both], right[both]]), axis=1)
    return pairs[0], pairs[1]


@dataclass(slots=True)
class _State:
    """Evidence so far, in nats: by pairs of values, by pairs of groups, by pairs of records."""

    victim: Side
    own: Side
    learned: Learned
    overlap: float
    records: Singles = field(init=False)
    values: dict[str, Singles] = field(init=False)
    groups: dict[str, Singles] = field(init=False)  # group pairs
    shares: dict[str, Singles] = field(init=False)  # what each record added to its group's

    def __post_init__(self) -> None:
        self.records = np.zeros((self.victim.size, self.own.size), np.float32)
        for name, mine in self.victim.features.items():
            self.records += self._likelihood(f"record/{name}", mine, self.own.features[name])
        if self.victim.birth_year is not None and self.own.birth_year is not None:
            self.records += _same_category(self.victim.birth_year, self.own.birth_year)
        if self.victim.sex is not None and self.own.sex is not None:
            self.records += _same_category(self.victim.sex, self.own.sex)
        self.values = {
            name: self._likelihood(f"value/{name}", mine.features, self.own.fields[name].features)
            for name, mine in self.victim.fields.items()
        }
        self.groups, self.shares = {}, {}

    def _likelihood(self, name: str, mine: Singles, theirs: Singles) -> Singles:
        """Log of how much likelier two feature vectors are of the same than of any two; 0 where one is missing."""
        if name not in self.learned.noise:
            return np.zeros((len(mine), len(theirs)), np.float32)
        noise, spread = self.learned.noise[name], self.learned.spread[name]
        away = spread + noise / 2
        shift = np.nanmean(mine, axis=0) - np.nanmean(theirs, axis=0)
        centre = np.nanmean(theirs, axis=0)
        sharp = np.linalg.cholesky(np.linalg.inv(noise))
        blunt = np.linalg.cholesky(np.linalg.inv(away))
        one, other = (mine - shift - centre) @ sharp, (theirs - centre) @ sharp
        apart = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * one @ other.T
        rare = (((mine - shift - centre) @ blunt) ** 2).sum(axis=1)[:, None]
        room = np.linalg.slogdet(away)[1] - np.linalg.slogdet(noise)[1]
        made = np.nan_to_num(np.asarray(0.5 * (rare - apart + room), np.float32), nan=0.0)
        return _forgiving(made)

    def evidence(self, without: tuple[str, ...] = ()) -> Singles:
        """Records x records: all that is known, but for the fields and groups left out."""
        total = self.records.copy()
        for name in {**self.values, **self.groups}:
            if name in without:
                continue
            total += self._of_field(name)
        return total

    def _of_field(self, name: str) -> Singles:
        """What values and groups of one name say of each pair of records; 0 where either has none."""
        if name not in self.values:
            mine, theirs = self.victim.groups[name], self.own.groups[name]
            said = self.groups[name][mine] - self.shares[name]
        else:
            mine, theirs = self.victim.fields[name].index, self.own.fields[name].index
            said = self.values[name][mine]
            if name in self.groups:
                groups = self.groups[name][self.victim.groups[name]] - self.shares[name]
                columns = _group_of_value(self.own.fields[name], self.own.groups[name])
                said = said + np.clip(groups, -CAP, CAP)[:, columns]
        made: Singles = _forgiving(said)[:, theirs]
        made[mine < 0] = 0
        made[:, theirs < 0] = 0
        return made

    def compare_groups(self) -> None:
        """Do two groups hold the same people?  Each member adds how likely it is among the other's members."""
        groups, shares = {}, {}
        for name, mine in self.victim.groups.items():
            theirs = self.own.groups[name]
            odds = np.exp(np.clip(self.evidence((name, *HIDES.get(name, ()))), -30, 30))
            odds /= np.maximum(odds.mean(axis=1, keepdims=True), 1.0)  # one person can be only one other
            among = _summed(odds, theirs, axis=1) / np.maximum(np.bincount(theirs[theirs >= 0]), 1)
            added = (TRUST * np.log1p(self.overlap * (among - 1))).astype(np.float32)
            added[mine < 0] = 0
            groups[name] = _summed(added, mine, axis=0)
            shares[name] = added
        self.groups, self.shares = groups, shares

    def compare_values(self, share: float) -> None:
        """Are two values as similar to the same anchors?  Anchors are the surest `share` of values matched so far."""
        for name, mine in self.victim.fields.items():
            score = self.values[name]
            if name in self.groups:
                score = score + np.clip(self._by_value(name), -CAP, 2 * CAP)
            self.values[name] = _against_anchors(mine, self.own.fields[name], score, share)

    def _by_value(self, name: str) -> Singles:
        """The evidence of groups, by the filter's values (a token and its filter part people alike)."""
        mine, theirs = self.victim.fields[name], self.own.fields[name]
        rows = _group_of_value(mine, self.victim.groups[name])
        columns = _group_of_value(theirs, self.own.groups[name])
        made: Singles = self.groups[name][rows][:, columns]
        return made


def _against_anchors(mine: Field, theirs: Field, score: Singles, share: float) -> Singles:
    rows = np.exp(score - score.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    columns = np.exp(score - score.max(axis=0, keepdims=True))
    columns /= columns.sum(axis=0, keepdims=True)
    sure = rows * columns
    best = sure.argmax(axis=1)
    mutual = np.flatnonzero(sure.argmax(axis=0)[best] == np.arange(len(best)))
    order = mutual[np.argsort(-sure[mutual, best[mutual]], kind="stable")]
    kept = order[: min(ANCHORS, max(20, int(len(order) * share)))]
    there = best[kept]
    weight = np.sqrt(sure[kept, there])
    here = mine.alike[:, kept] - mine.alike.mean()
    hence = theirs.alike[:, there] - theirs.alike.mean()
    x, y = here[kept], hence[there]
    pairs = np.outer(weight, weight)
    np.fill_diagonal(pairs, 0)
    # how much of a similarity on the attacker's side is to be expected on the other: less, the more anchors are wrong
    slope = max(0.0, float((pairs * x * y).sum() / max(float((pairs * y * y).sum()), 1e-9)))
    noise = float((pairs * (x - slope * y) ** 2).sum() / max(float(pairs.sum()), 1e-9)) + 1e-6
    together = np.asarray((here * weight) @ hence.T, np.float32)
    alone = (hence * hence) @ weight
    independent = min(len(kept), 400) / max(1, len(kept))  # 512 bits carry no more
    made = (slope * together - slope**2 / 2 * alone[None]) * (independent * TRUST / noise)
    clipped: Singles = np.clip(made, -CAP, CAP).astype(np.float32)
    return clipped


def _mutual(evidence: Singles, done: int) -> Matching:
    best = evidence.argmax(axis=1)
    back = evidence.argmax(axis=0)
    rows = np.arange(len(best))
    claims = np.where(back[best] == rows, best, -1).astype(np.int64)
    if evidence.shape[1] < 2:
        return Matching(claims=claims, margin=np.zeros(len(best), np.float32), rounds=done)
    second = np.partition(evidence, -2, axis=1)[:, -2]
    return Matching(claims=claims, margin=(evidence[rows, best] - second).astype(np.float32), rounds=done)


def _forgiving(evidence: Singles) -> Singles:
    """The same with room for a mistake: nothing speaks against a pair more than mistakes are rare."""
    made: Singles = np.clip(evidence, np.float32(np.log(WRONG)), np.float32(CAP))
    return made


def _same_category(mine: Ints, theirs: Ints) -> Singles:
    """Evidence of a category in clear, by how often two people share one; none where it is missing."""
    _, counts = np.unique(theirs[theirs >= 0], return_counts=True)
    chance = float(((counts / max(1, counts.sum())) ** 2).sum()) or 1.0
    same, other = np.float32(np.log((1 - WRONG) / chance)), np.float32(np.log(WRONG))
    made = np.where(mine[:, None] == theirs[None], same, other)
    made[mine < 0] = 0
    made[:, theirs < 0] = 0
    return made


def _summed(values: Singles, index: Ints, *, axis: int) -> Singles:
    """Sums by group of rows (axis 0) or columns (axis 1); what is in no group is left out."""
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= 0]
    starts = np.searchsorted(index[order], np.arange(int(index.max(initial=-1)) + 1))
    taken = values[order] if axis == 0 else values[:, order]
    if not len(starts):
        return np.zeros((0, values.shape[1]) if axis == 0 else (values.shape[0], 0), np.float32)
    made: Singles = np.add.reduceat(taken, starts, axis=axis)
    return made


def _group_of_value(of_field: Field, groups: Ints) -> Ints:
    made = np.zeros(of_field.values, np.int64)
    known = np.flatnonzero((of_field.index >= 0) & (groups >= 0))
    made[of_field.index[known]] = groups[known]
    return made
