"""What the weight of a filter says about the length of a name.

The attacker makes encodings of their own, under a key of their own, and learns how likely each popcount is for each
number of bigrams; then reads the number off the popcounts in the vault, and guesses the commonest name of that length.
Source: Schnell, Bachteler and Reiher 2009 (weight follows length); clkhash issue 41 (it leaks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from linkage.evaluation.attack.bench import Bench, fresh_keys, wire
from linkage.evaluation.attack.frequency import FIELDS, WHAT, public_table
from linkage.evaluation.attack.population import Floats, Ints, People, population
from linkage.evaluation.attack.results import AttackResult
from linkage.records import FILTER_BITS

SMOOTHING: Final = 3.0  # popcounts to either side over which what was learnt is spread
LONGEST: Final = 24  # bigrams; longer names count as this


def length(bench: Bench) -> Iterator[AttackResult]:
    """For each name filter, and for all of one name together: number of bigrams, and name, from the popcount."""
    target = bench.target()
    own = population(len(target), seed=bench.setting.seed + 1)
    learnt = wire(own, fresh_keys(bench.setting.seed, "the attacker's"), bench.setting.profile)
    for field in FIELDS:
        names = [name for name in target.filters if name.split("_")[0] == field]
        truth, mine = grams(target.truth, field), grams(own, field)
        table = public_table(field, "fitted")
        of_word = np.zeros(len(target.truth.words), np.int64)
        of_word[table.words] = _gram_counts([target.truth.words[word] for word in table.words.tolist()])
        commonest = np.full(LONGEST + 1, -1, np.int64)
        for word in reversed(table.words.tolist()):
            commonest[of_word[word]] = word
        likelihoods = []
        for name in names:
            counts = popcounts(target.wire, name)
            likelihoods.append(_likelihood(popcounts(learnt, name), mine)[:, np.maximum(counts, 0)])
            leak = information(counts, truth)
            yield bench.judge_values(
                target, _likeliest([likelihoods[-1]], mine), truth, attack="length",
                case=f"{name}: bigrams", what="number of bigrams", knowledge="popcounts; own encodings to learn from",
                note=f"{leak:.3f} bits of {entropy(truth):.2f}",
            )  # fmt: skip
        claims = _likeliest(likelihoods, mine)
        yield bench.judge_values(
            target, claims, truth, attack="length", case=f"{field}, all filters: bigrams", what="number of bigrams",
            knowledge="popcounts of all filters of the name; own encodings to learn from",
        )  # fmt: skip
        surest = np.zeros(LONGEST + 1)
        np.maximum.at(surest, of_word[table.words], table.shares)
        prior = np.bincount(mine, minlength=LONGEST + 1).astype(float)
        named = _likeliest(likelihoods, None, surest / np.maximum(prior / prior.sum(), 1e-9) * prior)
        column = target.truth.surname if field == "family" else target.truth.given
        yield bench.judge_values(
            target, commonest[named], column, attack="length", case=f"{field}, all filters: name", what=WHAT[field],
            knowledge="popcounts of all filters of the name; own encodings; public table of names",
        )  # fmt: skip


def popcounts(table: pa.Table, name: str) -> Ints:
    """The weight column of a filter; -1 where it is missing."""
    made: Ints = table.column(f"{name}_n").fill_null(-1).to_numpy().astype(np.int64)
    return made


def grams(people: People, field: str) -> Ints:
    """The number of distinct bigrams of each person's name, with its ends."""
    column = people.surname if field == "family" else people.given
    borne, index = np.unique(column, return_inverse=True)
    return _gram_counts([people.words[word] for word in borne.tolist()])[index]


def _gram_counts(words: Sequence[str]) -> Ints:
    return np.array([min(LONGEST, len({f"_{w}_"[i : i + 2] for i in range(len(w) + 1)})) for w in words], np.int64)


def information(counts: Ints, truth: Ints) -> float:
    """Mutual information of popcount and number of bigrams, in bits, less its bias (Miller and Madow 1955)."""
    present = counts >= 0
    joint = np.zeros((int(counts.max()) + 1, int(truth.max()) + 1))
    np.add.at(joint, (counts[present], truth[present]), 1)
    total = joint.sum()
    share = joint / total
    outer = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    cells = share > 0
    plain = float((share[cells] * np.log2(share[cells] / outer[cells])).sum())
    bias = (cells.sum() - (share.sum(axis=1) > 0).sum() - (share.sum(axis=0) > 0).sum() + 1) / (2 * total * np.log(2))
    return max(0.0, plain - float(bias))


def entropy(values: Ints) -> float:
    """In bits."""
    share = np.bincount(values) / len(values)
    return float(-(share[share > 0] * np.log2(share[share > 0])).sum())


def _likelihood(counts: Ints, truth: Ints) -> Floats:
    """Number of bigrams x popcount: log of how likely the popcount is, smoothed."""
    made = np.zeros((LONGEST + 1, FILTER_BITS + 1))
    present = counts >= 0
    np.add.at(made, (truth[present], counts[present]), 1)
    reach = np.arange(-10, 11)
    kernel = np.exp(-0.5 * (reach / SMOOTHING) ** 2)
    smooth = np.apply_along_axis(lambda row: np.convolve(row, kernel / kernel.sum(), "same"), 1, made)
    smooth += 1e-3 * made.sum(axis=0) / max(1.0, made.sum()) + 1e-9
    return np.asarray(np.log(smooth / smooth.sum(axis=1, keepdims=True)))


def _likeliest(likelihoods: list[Floats], learnt: Ints | None, prior: Floats | None = None) -> Ints:
    """The likeliest number of bigrams of each record, by Bayes over all the filters given."""
    if prior is None:
        assert learnt is not None
        prior = np.bincount(learnt, minlength=LONGEST + 1).astype(float)
    score = np.log(np.maximum(prior, 1e-12))[:, None] + sum(likelihoods)
    return np.asarray(score.argmax(axis=0), np.int64)
