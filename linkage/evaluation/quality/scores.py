"""Weights of pairs and the truth, to precision, recall and F1: at the shipped threshold, the best, and all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt

from linkage.evaluation.quality.labelled import Labelled
from linkage.matching.bands import MATCH_BAR
from linkage.matching.persons import Edge, Partition, Rules, cluster

STRONG: Final = 64.0  # bits of weight that an identifier with an agreeing field counts for
SWEPT: Final = tuple(float(weight) for weight in range(-6, 25))
"""Thresholds of a sweep, in bits of match weight."""

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Numbers = Mapping[int, Mapping[str, frozenset[int]]]
"""Record -> scheme -> its strong identifiers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Pairwise quality at one threshold (a probability)."""

    precision: float
    recall: float
    f1: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """`shipped`: persons formed at the shipped threshold, best links first; `best` and `one_to_one`: single pairs.

    `best` picks its threshold by the labels, and so does `one_to_one`, after each record kept only its best partner in
    each other data set.
    """

    shipped: Score
    best: Score
    one_to_one: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One threshold of a sweep (bits of match weight): single pairs at or above it, and persons formed of them."""

    weight: float
    pairs: Score
    persons: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Pairs of records (by place in `Labelled.records`) with a weight each, identifiers counted in."""

    left: Longs
    right: Longs
    weight: Floats
    numbers: Numbers  # of each record that has any, by place


def scores(labelled: Labelled, compared: Compared) -> Scores:
    """The three scores of `--json`."""
    true = true_of(labelled, compared)
    order = np.lexsort((compared.right, compared.left, -compared.weight))
    alone = _one_to_one(labelled, compared, order)
    total = labelled.true_pairs
    return Scores(
        shipped=score_of_persons(labelled, clustered(labelled, compared).clusters()),
        best=_best(compared.weight[order], true[order], total),
        one_to_one=_best(compared.weight[order][alone], true[order][alone], total),
    )


def clustered(labelled: Labelled, compared: Compared, *, bar: float | None = None) -> Partition:
    """Persons, best links first: no two records of one flow, no two numbers of one kind.

    `bar` is the least weight, by default that of the shipped threshold.
    """
    bar = weight_of(MATCH_BAR) if bar is None else bar
    return cluster((edge for edge in _edges(compared) if -edge.strength[1] >= bar), _rules(labelled, compared))


def sweep(labelled: Labelled, compared: Compared) -> list[Point]:
    """Quality at each threshold of SWEPT, lowest first."""
    true = true_of(labelled, compared)
    total = labelled.true_pairs
    partition = Partition(_rules(labelled, compared))
    points: list[Point] = []
    edges = sorted(_edges(compared), key=lambda edge: edge.strength)
    grouped = iter([(-strength[1], list(group)) for strength, group in groupby(edges, key=lambda edge: edge.strength)])
    waiting = next(grouped, None)
    for weight in reversed(SWEPT):
        while waiting is not None and waiting[0] >= weight:
            partition.add(waiting[1])
            waiting = next(grouped, None)
        above = compared.weight >= weight
        threshold = probability_of(weight)
        pairs = _score(int(true[above].sum()), int(above.sum()), total, threshold)
        persons = score_of_persons(labelled, partition.clusters(), threshold=threshold)
        points.append(Point(weight=weight, pairs=pairs, persons=persons))
    return points[::-1]


def score_of_persons(labelled: Labelled, groups: Iterable[Iterable[int]], *, threshold: float = MATCH_BAR) -> Score:
    """Every two records of one group count as a pair said to be one person."""
    said = right = 0
    persons = labelled.persons
    for group in groups:
        members = Counter([persons[place] for place in group])
        said += _pairs_of(members.total())
        right += sum(map(_pairs_of, members.values()))
    return _score(right, said, labelled.true_pairs, threshold)


def true_of(labelled: Labelled, compared: Compared) -> Bools:
    """Whether each compared pair is of one person."""
    persons = np.array(labelled.persons)
    return np.asarray(persons[compared.left] == persons[compared.right], np.bool_)


def weight_of(probability: float) -> float:
    """log2 of the odds."""
    return float(np.log2(probability / (1 - probability)))


def probability_of(weight: float) -> float:
    """The probability whose odds have this log2."""
    return float(1 / (1 + 2.0 ** -min(weight, 50.0)))


def spread(numbers: Numbers, partition: Partition, *, most: int) -> list[tuple[str, int]]:
    """The numbers (scheme, number) that more persons than `most` hold."""
    holders: dict[tuple[str, int], set[int]] = {}
    for rec, schemes in numbers.items():
        for scheme, tokens in schemes.items():
            for token in tokens:
                holders.setdefault((scheme, token), set()).add(min(partition.of(rec)))
    return [number for number, persons in holders.items() if len(persons) > most]


def _rules(labelled: Labelled, compared: Compared) -> Rules:
    return Rules(
        source={place: source for place, source in enumerate(labelled.sources) if source is not None},
        numbers=compared.numbers,
    )


def _edges(compared: Compared) -> Iterable[Edge]:
    columns = (compared.left.tolist(), compared.right.tolist(), compared.weight.tolist())
    for left, right, weight in zip(*columns, strict=True):
        yield Edge(left=left, right=right, strength=(1, -round(weight, 6)))


def _best(weights: Floats, true: Bools, total: int) -> Score:
    """The best F1 over all thresholds; weights come best first."""
    if not len(weights):
        return _score(0, 0, total, MATCH_BAR)
    right = np.cumsum(true)
    said = np.arange(1, len(weights) + 1)
    last = np.append(weights[1:] < weights[:-1], True)  # a threshold takes all pairs of one weight, or none
    f1 = np.where(last, 2 * right / (said + total), 0.0)
    place = int(np.argmax(f1))
    return _score(int(right[place]), int(said[place]), total, probability_of(float(weights[place])))


def _one_to_one(labelled: Labelled, compared: Compared, order: Longs) -> Longs:
    """Places in `order` that stay when each record takes only its best free partner in each other data set."""
    flows = labelled.flows
    taken: set[tuple[int, int]] = set()
    kept = []
    columns = (compared.left[order].tolist(), compared.right[order].tolist())
    for place, (left, right) in enumerate(zip(*columns, strict=True)):
        mine, theirs = (left, flows[right]), (right, flows[left])
        if mine not in taken and theirs not in taken:
            taken |= {mine, theirs}
            kept.append(place)
    return np.array(kept, np.int64)


def _score(right: int, said: int, total: int, threshold: float) -> Score:
    precision = right / said if said else 1.0
    recall = right / total if total else 1.0
    f1 = 2 * right / (said + total) if said + total else 1.0
    return Score(precision=round(precision, 6), recall=round(recall, 6), f1=round(f1, 6), threshold=round(threshold, 6))


def _pairs_of(count: int) -> int:
    return count * (count - 1) // 2
