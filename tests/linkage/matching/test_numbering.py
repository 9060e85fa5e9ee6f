"""Sorting, telling apart and moving by arrays is what plain Python does one by one."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linkage.matching.arrays import Places, aligned, maybe_among, order_of
from linkage.matching.holders import _aliases
from linkage.matching.identifiers import least_of_aliases
from linkage.matching.numbering import REF_LENGTH, Before, Ends, Numbered, name_digests, numbered
from linkage.matching.texts import texts_at
from linkage.matching.workspace import open_workspace
from tests.linkage.matching.test_incremental import Night, later, nights, table

numbers = st.lists(st.one_of(st.integers(-4, 4), st.integers(-(2**63), 2**63 - 1)), max_size=40)
CONNECTION = open_workspace(threads=1)
quick = settings(deadline=None, max_examples=60)


@quick
@given(numbers)
def test_order_is_that_of_a_stable_sort(values: list[int]) -> None:
    assert order_of(np.array(values, np.int64)).tolist() == sorted(range(len(values)), key=values.__getitem__)
    bits = np.array(values, np.int64).view(np.uint64)
    assert order_of(bits).tolist() == np.argsort(bits, kind="stable").tolist()


@quick
@given(numbers, numbers)
def test_whatever_is_among_a_few_may_be(few: list[int], many: list[int]) -> None:
    maybe = maybe_among(np.array(few, np.int64), np.array(many, np.int64)).tolist()
    assert all(told or value not in few for told, value in zip(maybe, many, strict=True))


@quick
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda pair: pair[0] != pair[1]), max_size=9))
def test_chains_of_numbers_are_named_as_by_the_plain_rule(pairs: list[tuple[int, int]]) -> None:
    current, old = (np.array([pair[n] for pair in pairs], np.int64) for n in (0, 1))
    aliases, least = _aliases(current, old)
    assert dict(zip(aliases.tolist(), least.tolist(), strict=True)) == least_of_aliases(pairs)


@quick
@given(st.lists(st.sampled_from(["", "a", "bé", "cc", "dddddddd", "eeeeeeee"]), min_size=1, max_size=8), st.data())
def test_texts_are_moved_whatever_their_length(texts: list[str], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=9))
    held = pa.array(["before", *texts], pa.string())[1:]
    assert texts_at(held, np.array(places, np.int64)).to_pylist() == [texts[place] for place in places]


refs = st.one_of(st.text("ab", min_size=REF_LENGTH, max_size=REF_LENGTH), st.text("abé", max_size=9))


@quick
@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from(["f", "g"]), refs), max_size=12), st.integers(1, 4))
def test_a_name_has_one_digest_wherever_it_stands_and_no_other_has_it(
    names: list[tuple[str, str, str]], size: int
) -> None:
    pieces = [names[start : start + size] for start in range(0, len(names), size)]
    columns = [pa.chunked_array([[name[n] for name in piece] for piece in pieces], pa.string()) for n in range(3)]
    first, second = name_digests(*columns)
    told = list(zip(first.tolist(), second.tolist(), strict=True))
    assert len(set(told)) == len(set(names)) == len(set(zip(told, names, strict=True)))


def known_as(found: Numbered, homes: Places) -> Before:
    """What a run keeps of its numbers."""
    nowhere = np.zeros(len(homes), np.int64)
    ends = Ends(a=homes, b=np.full(len(homes), -1, np.int32), home=nowhere, lived=np.ones(len(homes), np.bool_))
    return Before(
        sources=found.sources, name=found.name, source=found.source, rec=found.rec, digest=found.digest, ends=ends,
        altered=np.zeros(0, np.int64),
    )  # fmt: skip


def same(one: Numbered, other: Numbered) -> bool:
    columns = ((found.source, found.rec, found.digest, found.place, found.first, *found.name) for found in (one, other))
    return one.sources == other.sources and all(map(np.array_equal, *columns))


@settings(deadline=None, max_examples=5, suppress_health_check=list(HealthCheck))
@given(st.data(), nights, st.randoms())
def test_what_is_merged_into_an_earlier_order_is_numbered_as_by_sorting(
    data: st.DataObject, first: Night, chance: random.Random
) -> None:
    """Whatever the earlier run is said to have been: its rows in another order, its names not theirs, nothing."""
    night = data.draw(later(first))
    if not night:
        return
    with open_workspace(threads=1) as db:
        before, tonight = numbered(db, table(first, "guarded-3"), "guarded-3", ()), table(night, "guarded-3")
        sorted_anew = numbered(db, tonight, "guarded-3", ())
        said = known_as(before, before.rec)
        shuffled = np.array(chance.sample(range(before.records), before.records))
        lies = (
            said,
            replace(said, rec=shuffled.astype(np.int32)[said.rec]),
            replace(said, name=(said.name[0], said.name[1][shuffled])),
            replace(said, name=(said.name[0][shuffled], said.name[1][shuffled])),
            replace(said, source=said.source[::-1].copy()),
            replace(said, rec=said.rec[:1]),
        )
        for lie in lies:
            merged = numbered(db, tonight, "guarded-3", (), lie)
            assert same(merged, sorted_anew)
            assert np.array_equal(merged.placed_as(lie, *sorted_anew.name), np.arange(sorted_anew.records)), (
                "households find their records"
            )


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=60), st.lists(st.integers(0, 40), max_size=60))
def test_numbers_are_found_in_any_order_wherever_they_are(new: list[int], old: list[int]) -> None:
    many, few = (np.array(held, np.uint64) for held in (old, new))
    found = aligned(few, many)
    assert [(n in old) for n in new] == (found >= 0).tolist()
    assert (many[found[found >= 0]] == few[found >= 0]).all()
