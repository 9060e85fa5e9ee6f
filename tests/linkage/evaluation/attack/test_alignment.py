"""Ranks and components."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.evaluation.attack.alignment import aligned, aligned_within, bold, components, posterior_by_count, table_of
from linkage.evaluation.attack.population import NameTable

CODES = st.lists(st.lists(st.integers(-1, 6), min_size=12, max_size=12), min_size=1, max_size=3)


def chained_slowly(columns: list[list[int]], rows: int) -> list[int]:
    """The oracle: the least row that can be reached, one step at a time."""
    label = list(range(rows))
    changed = True
    while changed:
        changed = False
        for codes in columns:
            for a in range(rows):
                for b in range(rows):
                    if codes[a] == codes[b] >= 0 and label[a] > label[b]:
                        label[a], changed = label[b], True
    return label


@settings(deadline=None)  # a busy machine is no failure
@given(CODES)
def test_components_are_those_of_the_slow_oracle(columns: list[list[int]]) -> None:
    assert components([np.array(codes) for codes in columns], 12).tolist() == chained_slowly(columns, 12)


def test_a_long_chain_is_one_component() -> None:
    rows = 5_000
    left = np.arange(rows) // 2
    right = (np.arange(rows) + 1) // 2
    assert set(components([left, right], rows).tolist()) == {0}


def test_the_commonest_code_is_read_as_the_commonest_name() -> None:
    table = NameTable(words=np.array([30, 10, 20]), shares=np.array([0.5, 0.3, 0.2]))
    codes = np.array([4, 4, 4, 1, 1, 0, -1])
    assert aligned(codes, table).tolist() == [30, 30, 30, 10, 10, 20, -1]


def test_groups_are_read_each_by_its_own_table() -> None:
    tables = [NameTable(words=np.array([word]), shares=np.ones(1)) for word in (5, 6)]
    groups, codes = np.array([0, 1, 0, 1, -1]), np.array([9, 9, 9, 8, 9])
    assert aligned_within(groups, codes, tables).tolist()[:1] == [5]
    assert aligned_within(groups, codes, tables)[4] == -1


def test_a_repeated_code_in_a_small_group_is_claimed_only_when_likelier_right_than_wrong() -> None:
    table = NameTable(words=np.array([3, 4]), shares=np.array([0.6, 0.3]))
    likely = posterior_by_count(table.shares, 3)
    assert likely[1] < likely[2] < likely[3]
    even = NameTable(words=np.arange(1_000), shares=np.full(1_000, 0.001))
    groups = np.zeros(4, np.int64)
    assert set(bold(groups, np.array([1, 1, 1, 1]), even).tolist()) == {-1}
    assert set(bold(groups, np.array([1, 1, 1, 1]), table).tolist()) == {3}


def test_a_table_counts_what_is_there_and_leaves_out_what_is_missing() -> None:
    table = table_of(np.array([7, 7, 2, -1]))
    assert table.words.tolist() == [7, 2]
    assert table.shares.tolist() == [2 / 3, 1 / 3]
