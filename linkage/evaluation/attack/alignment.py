"""Ranking what is hidden beside what is public: the step all frequency attacks share.

An attacker who knows how often each name is borne orders encodings by how often they occur, and names by how often they
are borne, and reads one beside the other (Christen, Schnell, Vatsalan and Ranbaduge, PAKDD 2017).  Below the head the
ranks tie and the reading is a lottery; all ranks are claimed all the same, as a claim costs the attacker nothing here:
so a share is the most this rule can win, and its precision says how little it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from linkage.evaluation.attack.population import MISSING, Floats, Ints, NameTable

CONFIDENT: Final = 0.5  # the bold rule claims only what is likelier right than wrong


def in_rank_order(counts: Ints | Floats) -> Ints:
    """Indices by count or share, largest first; ties in their own order, which tells nothing."""
    made: Ints = np.argsort(-counts, kind="stable")
    return made


def aligned(codes: Ints, table: NameTable) -> Ints:
    """For each row the word whose rank its code has; -1 for a missing code or one past the end of the table.

    >>> table = NameTable(words=np.array([7, 9]), shares=np.array([0.6, 0.4]))
    >>> aligned(np.array([0, 1, 1, -1, 1, 0, 2]), table).tolist()
    [9, 7, 7, -1, 7, 9, -1]
    """
    present = codes >= 0
    if not present.any():
        return np.full(len(codes), MISSING, np.int64)
    counts = np.bincount(codes[present])
    order = in_rank_order(counts)
    order = order[counts[order] > 0][: len(table.words)]
    word_of = np.full(len(counts) + 1, MISSING, np.int64)  # the last serves missing
    word_of[order] = table.words[: len(order)]
    return np.asarray(word_of[codes], np.int64)


def aligned_within(groups: Ints, codes: Ints, tables: Sequence[NameTable]) -> Ints:
    """The same in each group on its own: `tables[group]` for rows of that group; a missing group claims nothing."""
    claims = np.full(len(codes), MISSING, np.int64)
    for group, table in enumerate(tables):
        rows = np.flatnonzero(groups == group)
        if len(rows):
            _, local = np.unique(codes[rows], return_inverse=True)
            claims[rows] = aligned(np.where(codes[rows] < 0, MISSING, local), table)
    return claims


def posterior_by_count(shares: Floats, most: int) -> Floats:
    """How likely the commonest name is the one, when a code occurs c times in a small group, for c = 0 .. most.

    By Bayes: a name of share p shows c times in a group in proportion to about p ** c.
    """
    made = np.zeros(most + 1)
    for count in range(1, most + 1):
        weights = (shares / shares[0]) ** count
        made[count] = 1.0 / weights.sum()
    return made


def bold(groups: Ints, codes: Ints, table: NameTable) -> Ints:
    """The commonest word for each code that occurs so often within its group that this is likelier right than wrong."""
    present = (codes >= 0) & (groups >= 0)
    claims = np.full(len(codes), MISSING, np.int64)
    if not present.any():
        return claims
    mixed = groups[present] * (int(codes.max()) + 1) + codes[present]
    _, index, counts = np.unique(mixed, return_inverse=True, return_counts=True)
    likely = posterior_by_count(table.shares, int(min(counts.max(), 200)))
    sure = likely[np.minimum(counts, len(likely) - 1)] >= CONFIDENT
    claims[present] = np.where(sure[index], table.words[0], MISSING)
    return claims


def components(columns: Sequence[Ints], rows: int) -> Ints:
    """The connected component of each row, where rows that share a code in any column are connected.  Codes may be -1.

    >>> components([np.array([0, 0, 1, -1]), np.array([5, 6, 6, -1])], 4).tolist()
    [0, 0, 0, 3]
    """
    label = np.arange(rows)
    while True:
        before = label.copy()
        for codes in columns:
            present = codes >= 0
            if not present.any():
                continue
            least = np.full(int(codes.max()) + 1, rows, np.int64)
            np.minimum.at(least, codes[present], label[present])
            reached = least[codes[present]]
            roots = label[present]
            np.minimum.at(label, roots, reached)  # hang the whole old component under the smaller label
            label[present] = np.minimum(label[present], reached)
        while True:
            higher = label[label]
            if np.array_equal(higher, label):
                break
            label = higher
        if np.array_equal(before, label):
            return label


def table_of(values: Ints) -> NameTable:
    """The frequency table of a column, as an attacker makes it from a register; -1 is left out."""
    words, counts = np.unique(values[values >= 0], return_counts=True)
    order = in_rank_order(counts)
    total = max(1, int(counts.sum()))
    return NameTable(words=words[order].astype(np.int64), shares=counts[order] / total)
