"""Learning from known pairs: some children's encodings are known with their names; what do they say of the rest?

By lookup: an encoding that equals a known one stands for the same value.  By likeness (dice; the share of bits that are
the same where a pad is on them): bigrams of the known name whose filter is nearest under the same salt are the guess
for an unknown one, if it is near enough.  The share of children known is that of the setting's words (20 to 80 %).
Sources: PLOS ONE 2022, PMC9499274, and its kind (bigrams predicted from known pairs on unsalted filters).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from linkage.evaluation.attack.bench import Bench, Target
from linkage.evaluation.attack.frequency import FIELDS, WHAT
from linkage.evaluation.attack.population import MISSING, Flags, Ints
from linkage.evaluation.attack.results import AttackResult

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

SHARES: Final = (0.2, 0.4, 0.6, 0.8)
NEAR: Final = 0.56  # dice: 99.9 % of unlike surnames are further apart (linkage.md 2)
NEAR_BITS: Final = 0.58  # the same of the share of bits that are the same


def known_pairs(bench: Bench) -> Iterator[AttackResult]:
    """Per share known: names exactly, dates and postcodes exactly, and bigrams."""
    target = bench.target()
    order = np.random.default_rng([bench.setting.seed, 5]).permutation(len(target))
    for share in SHARES:
        known = np.zeros(len(target), bool)
        known[order[: round(share * len(target))]] = True
        knowledge = f"{100 * share:.0f} % of the children, each with their encodings"
        for field in FIELDS:
            truth = target.truth.surname if field == "family" else target.truth.given
            names = [name for name in target.filters if name.split("_")[0] == field]
            claims, nearest = _by_likeness(target, names, known, truth)
            yield _judged(
                bench, target, known, claims, truth, WHAT[field], knowledge, f"{field} name, {100 * share:.0f} %"
            )
            yield _bigrams(bench, target, known, nearest, truth, knowledge, f"{field} bigrams, {100 * share:.0f} %")
        for name, truth in (("dob", target.truth.born), ("postcode", target.truth.postcode)):
            if name in target.tokens:
                claims = _looked_up(target.token(name), known, truth)
                what = "date of birth" if name == "dob" else "postcode"
                yield _judged(bench, target, known, claims, truth, what, knowledge, f"{what}, {100 * share:.0f} %")


def _looked_up(codes: Ints, known: Flags, truth: Ints) -> Ints:
    value = np.full(int(codes.max(initial=-1)) + 2, MISSING, np.int64)
    rows = np.flatnonzero(known & (codes >= 0))
    value[codes[rows]] = truth[rows]
    return value[codes]


def _by_likeness(target: Target, names: list[str], known: Flags, truth: Ints) -> tuple[Ints, Ints]:
    """The value of an equal known filter (-1: none), and of the nearest known one that is near (-1: none)."""
    exact = np.full(len(target), MISSING, np.int64)
    nearest = np.full(len(target), MISSING, np.int64)
    best = np.zeros(len(target))
    for name in names:
        codes = target.encoding(name)
        found = _looked_up(codes, known, truth)
        exact = np.where(exact < 0, found, exact)
        words, present = target.words(name)
        salt = {"d": "dob", "p": "postcode"}.get(name.partition("_")[2], "")
        groups = target.token(salt) if salt in target.tokens else np.zeros(len(target), np.int64)
        order = np.argsort(groups, kind="stable")
        bounds = np.flatnonzero(np.diff(groups[order])) + 1
        for rows in np.split(order, bounds):
            seen = rows[known[rows] & present[rows]]
            open_ = rows[~known[rows] & present[rows]]
            if not len(seen) or not len(open_) or groups[rows[0]] < 0:
                continue
            for start in range(0, len(open_), 256):
                part = open_[start : start + 256]
                alike = (_same_bits if salt else _dice)(words[part], words[seen])
                top = alike.argmax(axis=1)
                value = alike[np.arange(len(part)), top]
                better = value > np.maximum(best[part], NEAR_BITS if salt else NEAR)
                nearest[part[better]] = truth[seen[top[better]]]
                best[part[better]] = value[better]
    return exact, nearest


def _dice(some: Words, others: Words) -> Floats:
    common = np.zeros((len(some), len(others)), np.int64)
    for at in range(some.shape[1]):
        common += np.bitwise_count(some[:, at][:, None] & others[:, at][None, :])
    weights = [np.bitwise_count(side).sum(axis=1, dtype=np.int64) for side in (some, others)]
    return np.asarray(2 * common / np.maximum(1, weights[0][:, None] + weights[1][None, :]))


def _same_bits(some: Words, others: Words) -> Floats:
    apart = np.zeros((len(some), len(others)), np.int64)
    for at in range(some.shape[1]):
        apart += np.bitwise_count(some[:, at][:, None] ^ others[:, at][None, :])
    return np.asarray(1 - apart / (64 * some.shape[1]))


def _judged(
    bench: Bench, target: Target, known: Flags, claims: Ints, truth: Ints, what: str, knowledge: str, case: str
) -> AttackResult:
    rest = ~known & (truth >= 0)
    made = rest & (claims >= 0)
    commonest = np.bincount(np.unique(truth[rest], return_inverse=True)[1]).max() if rest.any() else 0
    return AttackResult(
        attack="known_pairs", case=case, profile=bench.setting.profile, knowledge=knowledge, what=what,
        children=len(target), population=int(rest.sum()), overlap=None, errors=None, seed=bench.setting.seed,
        claimed=int(made.sum()), right=int((claims[made] == truth[made]).sum()),
        trivial=float(commonest) / max(1, int(rest.sum())),
    )  # fmt: skip


def _bigrams(
    bench: Bench, target: Target, known: Flags, claims: Ints, truth: Ints, knowledge: str, case: str
) -> AttackResult:
    """Bigrams claimed and right, over all that unknown names have: the share is recall.  Blind: the commonest ones."""
    words = target.truth.words
    sets = {
        word: frozenset(f"_{words[word]}_"[i : i + 2] for i in range(len(words[word]) + 1))
        for word in set(truth.tolist())
    }
    rest = np.flatnonzero(~known).tolist()
    total = sum(len(sets[int(truth[row])]) for row in rest)
    claimed = right = 0
    seen: dict[str, int] = {}
    for word in truth[known].tolist():
        for gram in sets[word]:
            seen[gram] = seen.get(gram, 0) + 1
    size = round(total / max(1, len(rest)))
    blind = frozenset(sorted(seen, key=lambda gram: -seen[gram])[:size])
    by_chance = 0
    for row in rest:
        mine = sets[int(truth[row])]
        by_chance += len(mine & blind)
        if claims[row] >= 0:
            guess = sets[int(claims[row])]
            claimed += len(guess)
            right += len(guess & mine)
    return AttackResult(
        attack="known_pairs", case=case, profile=bench.setting.profile, knowledge=knowledge, what="bigram",
        children=len(target), population=total, overlap=None, errors=None, seed=bench.setting.seed, claimed=claimed,
        right=right, trivial=by_chance / max(1, total), note=f"precision {right / max(1, claimed):.2f}",
    )  # fmt: skip
