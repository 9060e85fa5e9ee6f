"""Clusters: the best links first, and no rule broken on the way; held against brute force."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from linkage.matching.persons import Edge, Rules, changes, cluster, keep_ids

RECORDS = range(8)
pairs = st.tuples(st.sampled_from(RECORDS), st.sampled_from(RECORDS)).filter(lambda pair: pair[0] < pair[1])


def edge(left: int, right: int, weight: float, tier: int = 2) -> Edge:
    return Edge(left=left, right=right, strength=(tier, -weight))


def others(chosen: list[tuple[int, int]]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for left, right in chosen:
        found.setdefault(left, set()).add(right)
        found.setdefault(right, set()).add(left)
    return found


rules = st.builds(
    lambda source, numbers, apart, held: Rules(
        source=source,
        numbers={record: {"nhs_number": frozenset({number})} for record, number in numbers.items()},
        apart=others(apart),
        held=others(held),
    ),
    st.dictionaries(st.sampled_from(RECORDS), st.integers(0, 3)),
    st.dictionaries(st.sampled_from(RECORDS), st.integers(0, 2)),
    st.lists(pairs, max_size=3),
    st.lists(pairs, max_size=3),
)
edges = st.lists(
    st.builds(edge, st.sampled_from(range(4)), st.sampled_from(range(4, 8)), st.integers(1, 4)), max_size=14
)


def broken(members: frozenset[int], rules: Rules) -> bool:
    """The rules, literally: over all pairs of a cluster."""
    for one, other in combinations(sorted(members), 2):
        if one in rules.source and rules.source.get(one) == rules.source.get(other):
            return True
        mine, theirs = rules.numbers.get(one), rules.numbers.get(other)
        if mine and theirs and mine["nhs_number"].isdisjoint(theirs["nhs_number"]):
            return True
        if other in rules.apart.get(one, ()) or other in rules.held.get(one, ()):
            return True
    return False


@given(edges, rules)
def test_no_cluster_breaks_a_rule_not_even_through_a_third_record(found: list[Edge], bound: Rules) -> None:
    assert not any(broken(members, bound) for members in cluster(found, bound).clusters())


@given(st.data(), edges, rules)
def test_the_order_of_the_edges_does_not_matter(data: st.DataObject, found: list[Edge], bound: Rules) -> None:
    shuffled = data.draw(st.permutations(found))
    assert set(cluster(found, bound).clusters()) == set(cluster(shuffled, bound).clusters())


@given(edges)
def test_without_rules_clusters_are_connected_components(found: list[Edge]) -> None:
    reach = {record: {record} for record in RECORDS}
    for _ in RECORDS:
        for one in found:
            reach[one.left] = reach[one.right] = reach[one.left] | reach[one.right]
            for record in reach[one.left]:
                reach[record] = reach[one.left]
    touched = {end for one in found for end in (one.left, one.right)}
    assert set(cluster(found, Rules()).clusters()) == {frozenset(reach[record]) for record in touched}


def test_the_better_link_wins_a_record_that_fits_two_of_one_flow() -> None:
    bound = Rules(source={1: 1, 2: 1, 3: 2})
    assert cluster([edge(1, 3, 9), edge(2, 3, 8)], bound).of(3) == {1, 3}


def test_two_that_fit_equally_well_are_both_left_to_a_person() -> None:
    partition = cluster([edge(1, 3, 9), edge(2, 3, 9)], Rules(source={1: 1, 2: 1, 3: 2}))
    assert partition.of(3) == {3}
    assert len(partition.ties) == 2


def test_an_identifier_comes_before_any_weight() -> None:
    bound = Rules(source={1: 1, 2: 1, 3: 2})
    assert cluster([edge(1, 3, 40), edge(2, 3, 1, tier=1)], bound).of(3) == {2, 3}


def test_a_persons_hand_joins_what_the_model_may_not_and_never_what_a_person_set_apart() -> None:
    by_hand = edge(1, 2, 0, tier=0)
    assert cluster([by_hand], Rules(held={1: {2}, 2: {1}})).of(1) == {1, 2}
    assert cluster([by_hand], Rules(apart={1: {2}, 2: {1}})).of(1) == {1}


def key(ref: str) -> tuple[str, str, str]:
    return ("a", "f", ref)


def test_a_person_keeps_the_id_it_shares_most_records_with_and_each_id_is_kept_once() -> None:
    previous = {key("1"): "old-b", key("2"): "old-b", key("3"): "old-a", key("4"): "old-a"}
    groups = [[key("1"), key("2"), key("3")], [key("4")], [key("5")]]
    assert keep_ids(groups, previous, iter(["new"]).__next__) == ["old-b", "old-a", "new"]


def test_of_two_ids_with_as_many_records_the_lower_stays() -> None:
    previous = {key("1"): "b", key("2"): "a"}
    assert keep_ids([[key("1"), key("2")]], previous, iter([]).__next__) == ["a"]


@given(st.dictionaries(st.sampled_from("123456"), st.sampled_from("abc")))
def test_an_unchanged_partition_keeps_all_its_ids(assigned: dict[str, str]) -> None:
    previous = {key(ref): person for ref, person in assigned.items()}
    groups = [[k for k, owner in previous.items() if owner == person] for person in sorted(set(assigned.values()))]
    assert keep_ids(groups, previous, iter([]).__next__) == sorted(set(assigned.values()))


def test_merges_and_splits_are_told() -> None:
    before = {key("1"): "a", key("2"): "b", key("3"): "c", key("4"): "c"}
    after = {key("1"): "a", key("2"): "a", key("3"): "c", key("4"): "d", key("5"): "d"}
    assert changes(before, after) == ([(("a", "b"), ("a",))], [(("c",), ("c", "d"))])
