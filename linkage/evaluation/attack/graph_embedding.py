"""The graph attack as published: one weighted graph a side, an embedding of its nodes, alignment, bipartite match.

The weight of an edge is the mean dice over the fields that two records can be compared in; only the top decile is kept.
Nodes are embedded by factorising the point-wise mutual information of a random step (what node2vec does by sampling);
the two embeddings are turned onto one another by Procrustes, first on the nodes whose degrees and profiles agree best,
then on whatever matches best so far; the last match is one to one, by optimal transport.

Sources: Vidanage, Christen, Ranbaduge and Schnell, CIKM 2020; Schaefer, Armknecht and Heng, ACSAC 2024; Qiu et al.,
WSDM 2018 (factorisation); Cuturi, NIPS 2013 (optimal transport).  Written from the papers, not from published code.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from linkage.evaluation.attack.graph_encodings import SALTS, Encodings, Ints, Singles, Words, bits_of

KEPT: Final = 0.10  # share of edges that are kept
WIDTH: Final = 128  # dimensions of the embedding
TURNS: Final = 40  # of alignment
BLOCK: Final = 1_024
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
SHARP: Final = 0.02  # temperature of the optimal transport
SCALINGS: Final = 60


def match_embeddings(vault: Encodings, own: Encodings, *, seed: int) -> Ints:
    """For each record of the vault one of `own`, one to one; -1 where the smaller side has run out."""
    graphs = [mean_dice(side) for side in (vault, own)]
    nodes = [_node_features(graph) for graph in graphs]
    one, other = (_embedding(_top_decile(graph), np.random.default_rng([seed, 17])) for graph in graphs)
    del graphs
    return _one_to_one(_aligned(one, other, -_distance(*nodes)))


def mean_dice(encodings: Encodings) -> Singles:
    """Dice of any two records, meant over the filters that can be compared; 0 where none can, and with oneself.

    A salted filter is compared under the same salt alone.
    """
    size = len(encodings)
    total, fields = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    for name, of_all in encodings.filters.items():
        salt = SALTS.get(name[-2:])
        if salt is None:
            present = of_all.index >= 0
            known = np.flatnonzero(present)
            values = _dice(of_all.words)
            for start in range(0, len(known), BLOCK):
                rows = known[start : start + BLOCK]
                total[np.ix_(rows, known)] += values[of_all.index[rows]][:, of_all.index[known]]
            fields += np.outer(present, present).astype(np.float32)
        elif salt in encodings.tokens:
            for members in _groups(np.where(of_all.index >= 0, encodings.tokens[salt], -1)):
                where = np.ix_(members, members)
                total[where] += _dice(of_all.words[of_all.index[members]])
                fields[where] += 1
    np.divide(total, fields, out=total, where=fields > 0)
    np.fill_diagonal(total, 0)
    return total


def _dice(words: Words) -> Singles:
    bits = bits_of(words).astype(np.float32)
    count = bits.sum(axis=1)
    made: Singles = 2 * (bits @ bits.T) / np.maximum(count[:, None] + count[None], 1)
    return made


def _groups(index: Ints) -> list[Ints]:
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= 0]
    cuts = np.flatnonzero(np.diff(index[order])) + 1
    return [members for members in np.split(order, cuts) if len(members) > 1]


def _node_features(graph: Singles) -> Singles:
    """Profile of each node's similarities, and the mean profile of its nearest; ranks, so that scales don't matter."""
    quantiles = np.quantile(graph, QUANTILES, axis=1).T
    nearest = np.argpartition(-graph, min(10, len(graph) - 1), axis=1)[:, :10]
    features = np.hstack([quantiles, graph.mean(axis=1, keepdims=True), quantiles[nearest].mean(axis=1)])
    ranks = features.argsort(axis=0).argsort(axis=0) / max(1, len(graph) - 1)
    return ranks.astype(np.float32)


def _distance(one: Singles, other: Singles) -> Singles:
    made = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * one @ other.T
    return np.asarray(made, np.float32)


def _top_decile(graph: Singles) -> Singles:
    """The graph with its weakest edges cut, down to KEPT of them; the weight left is what stands above the cut."""
    upper = graph[np.triu_indices(len(graph), 1)]
    cut = np.quantile(upper[:: max(1, len(upper) // 2_000_000)], 1 - KEPT)
    return np.asarray(np.maximum(graph - np.float32(cut), 0), np.float32)


def _embedding(graph: Singles, rng: np.random.Generator) -> Singles:
    degree = graph.sum(axis=1) + 1e-6
    information = graph * np.float32(degree.sum()) / degree[:, None] / degree[None]
    np.log1p(information, out=information)
    width = min(WIDTH, len(graph) - 1)
    basis = rng.standard_normal((len(graph), width + 16)).astype(np.float32)
    for _ in range(6):  # subspace iteration: the matrix is symmetric
        basis, _ = np.linalg.qr(information @ basis)
    small: npt.NDArray[np.float32] = basis.T @ information @ basis
    values, vectors = np.linalg.eigh((small + small.T) / 2)
    top = np.argsort(-np.abs(values))[:width]
    made = (basis @ vectors[:, top]) * np.sqrt(np.abs(values[top]))
    return _unit(made.astype(np.float32))


def _unit(rows: Singles) -> Singles:
    made: Singles = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return made


def _aligned(one: Singles, other: Singles, likeness: Singles) -> Singles:
    """Similarity of any two nodes once `other` is turned onto `one`; `likeness` finds the nodes to begin with."""
    for turn in range(TURNS):
        best, back = likeness.argmax(axis=1), likeness.argmax(axis=0)
        mutual = np.flatnonzero(back[best] == np.arange(len(best)))
        sure = mutual[np.argsort(-likeness[mutual, best[mutual]], kind="stable")]
        kept = sure[: max(WIDTH // 2, int(len(sure) * min(1.0, 0.2 + 0.8 * turn / TURNS)))]
        left, _, right = np.linalg.svd(other[best[kept]].T @ one[kept])
        likeness = np.asarray(one @ (other @ (left @ right)).T, np.float32)
    return likeness


def _one_to_one(likeness: Singles) -> Ints:
    """Optimal transport, rounded: the surest pairs first, nobody twice."""
    plan = likeness - likeness.max(axis=1, keepdims=True)
    np.exp(plan / np.float32(SHARP), out=plan)
    for _ in range(SCALINGS):
        plan /= np.maximum(plan.sum(axis=1, keepdims=True), 1e-12)
        plan /= np.maximum(plan.sum(axis=0, keepdims=True), 1e-12)
    claims = np.full(len(plan), -1, np.int64)
    free = np.ones(plan.shape[1], bool)
    best = np.argsort(-plan, axis=1)[:, :50]
    rows = np.repeat(np.arange(len(plan)), best.shape[1])
    weights = np.take_along_axis(plan, best, 1).ravel()
    for at in np.argsort(-weights, kind="stable").tolist():
        row, column = int(rows[at]), int(best.flat[at])
        if claims[row] < 0 and free[column]:
            claims[row], free[column] = column, False
    return claims
