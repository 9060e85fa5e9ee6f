"""A later night compares only what differs, and finds what a run over everything finds; both find what plain SQL does.

The people are few and made of few values, so that blocks cross the cap, numbers are shared, superseded and spread, and
records tie: every night something that acts at a distance happens to somebody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linkage.matching import blocking
from linkage.matching.keeping import FREQUENCIES, KEPT, PAIRS, SETTINGS
from linkage.matching.link import CLUSTERS, Carried, Linkage, Run, link
from linkage.matching.model import default_model
from linkage.matching.overrides import Overrides, RecordKey
from linkage.matching.persons import changes, keep_ids
from linkage.matching.workspace import open_workspace
from linkage.records import FILTER_WORDS, FILTERS, IDENTIFIERS, PROFILES, TOKENS, Profile

SOURCES = (("council", "education"), ("council", "social_care"), ("icb", "health"), ("police", "police"))
REPEATS = frozenset({("police", "police")})
CAP = 6
EXAMPLES = int(os.environ.get("INCREMENTAL_EXAMPLES", "2"))
MODELS = {profile: default_model(profile) for profile in PROFILES}

small = st.integers(0, 3)
maybe = st.one_of(st.none(), small)


@dataclass(frozen=True)
class Row:
    """One row of one record, by small numbers: equal numbers are equal values."""

    given: int | None
    family: int | None
    born: int | None
    home: int | None
    sex: str | None
    numbers: tuple[int | None, ...]  # by IDENTIFIERS


Record = tuple[Row, ...]
Night = dict[RecordKey, Record]

rows = st.builds(
    Row,
    st.one_of(st.none(), st.integers(0, 5)),
    st.one_of(st.none(), small),
    st.one_of(st.none(), small),
    maybe,
    st.sampled_from(["F", "M", None]),
    st.tuples(*[st.one_of(st.none(), st.none(), st.integers(0, 9)) for _ in IDENTIFIERS]),
)
records = st.lists(rows, min_size=1, max_size=2).map(tuple)
keys = st.tuples(st.sampled_from(SOURCES), st.integers(0, 9)).map(lambda key: (*key[0], f"r{key[1]}"))
nights = st.dictionaries(keys, records, min_size=4, max_size=16)
pairs_of_keys = st.frozensets(st.tuples(keys, keys).filter(lambda pair: pair[0] != pair[1]), max_size=2)
overrides = st.builds(Overrides, must_link=pairs_of_keys, must_not_link=pairs_of_keys, sever=pairs_of_keys)
homes = st.dictionaries(keys, st.frozensets(small, min_size=1, max_size=2), max_size=10)


@st.composite
def later(draw: st.DrawFn, before: Night) -> Night:
    """Another night: some withdrawn, some changed in one row, some new."""
    chosen = draw(st.lists(st.sampled_from(sorted(before)), max_size=4, unique=True)) if before else []
    after = dict(before)
    for key in chosen:
        what = draw(st.sampled_from(["withdrawn", "changed", "number", "another row"]))
        if what == "withdrawn":
            del after[key]
        elif what == "changed":
            after[key] = (replace(before[key][0], home=draw(maybe), family=draw(maybe)), *before[key][1:])
        elif what == "number":
            after[key] = (replace(before[key][0], numbers=draw(rows).numbers), *before[key][1:])
        else:
            after[key] = (*before[key], draw(rows))
    return after | draw(st.dictionaries(keys, records, max_size=4))


def bits(*parts: object) -> Any:
    """A filter: like parts give like filters, and other parts others."""
    return np.random.default_rng([hash(part) % 2**32 for part in parts]).integers(
        -(2**63), 2**63, FILTER_WORDS, np.int64
    )


def filter_of(kind: str, value: int | None, salt: tuple[object, ...]) -> Any:
    """A name's filter: 0 and 1 are spelled alike, 2 and 3 a little."""
    if value is None or None in salt:
        return None
    words = bits(len(kind), *salt, value // 2).copy()
    words[: value % 2] ^= bits(9, value)[: value % 2]
    return words


def table(night: Night, profile: Profile) -> pa.Table:
    """The rows of a night as the broker holds them."""
    made: list[dict[str, Any]] = []
    for (agency, flow, ref), held in night.items():
        for row in held:
            values = {"given": row.given, "family": row.family, "dob": row.born, "postcode": row.home}
            salts = {"d": (1, row.born), "p": (2, row.home)}
            line: dict[str, Any] = {
                "agency": agency,
                "flow": flow,
                "record_ref": ref,
                "sever_ref": None,
                "sex": row.sex,
            }
            line["birth_year"] = None if row.born is None else 2010 + row.born
            for name in FILTERS[profile]:
                stem, _, salt = name.partition("_")
                words = filter_of(stem, values[stem], salts[salt] if salt else (0,))
                line |= {f"{name}_w{n}": None if words is None else int(words[n]) for n in range(FILTER_WORDS)}
                line[f"{name}_n"] = None if words is None else int(np.bitwise_count(words.view(np.uint64)).sum())
            for name in TOKENS[profile]:
                line[f"t_{name}"] = token(name, row)
            line |= {f"id_{name}": number for name, number in zip(IDENTIFIERS, row.numbers, strict=True)}
            made.append(line)
    integers = {f"{name}_n": pa.int32() for name in FILTERS[profile]} | {"birth_year": pa.int32()}
    names = (
        list(made[0])
        if made
        else list(table({SOURCES[0] + ("x",): (Row(0, 0, 0, 0, None, (None,) * 8),)}, profile).column_names)
    )
    texts = {"agency", "flow", "record_ref", "sever_ref", "sex"}
    return pa.table(
        {
            name: pa.array(
                [line[name] for line in made], pa.string() if name in texts else integers.get(name, pa.int64())
            )
            for name in names
        }
    )


def token(name: str, row: Row) -> int | None:
    """A token: of the parts that its name names; soundexes put names 0 and 1 together."""
    given, family = (None if value is None else value // 2 for value in (row.given, row.family))
    known: dict[str, tuple[int | None, ...]] = {
        "given_name_d": (row.given, row.born), "given_name_p": (row.given, row.home),
        "family_name_d": (row.family, row.born), "family_name_p": (row.family, row.home),
        "given_name": (row.given,), "family_name": (row.family,), "dob": (row.born,), "postcode": (row.home,),
        "dob_given": (row.born, given), "dob_family": (row.born, family), "postcode_given": (row.home, given),
        "postcode_family": (row.home, family), "postcode_given_family1": (row.home, given),
        "postcode_family_given1": (row.home, family), "dob_sector": (row.born, row.home), "soundex_pair": (given, family),
    }  # fmt: skip
    parts = known.get(name, (row.born, row.family, len(name)))
    return None if None in parts else int(sum((n + 1) * 100 ** (k + 1) for k, n in enumerate(parts) if n is not None))


def households(held: dict[RecordKey, frozenset[int]]) -> pa.Table:
    """Household rows of the wire."""
    listed = [(*key, home) for key, tokens in held.items() for home in sorted(tokens)]
    columns = list(zip(*listed, strict=True)) or [()] * 4
    return pa.table({
        "agency": pa.array(columns[0], pa.string()), "flow": pa.array(columns[1], pa.string()),
        "ref_a": pa.array(columns[2], pa.string()), "type": pa.array(["household"] * len(listed), pa.string()),
        "household": pa.array(columns[3], pa.int64()),
    })  # fmt: skip


def lines(night: Night) -> list[Any]:
    """The rows of a night in order, as what tells them apart."""
    return [(key, row) for key, held in night.items() for row in held]


def homes_in(held: dict[RecordKey, frozenset[int]]) -> list[Any]:
    return [(key, home) for key, tokens in held.items() for home in sorted(tokens)]


def found_again(before: list[Any], now: list[Any]) -> Any:
    """By row of `now` a row of `before` that is it, none twice and in order, or -1."""
    places, at = [], 0
    for line in now:
        there = line in before[at:]
        places.append(before.index(line, at) if there else -1)
        at = places[-1] + 1 if there else at
    return np.array(places, np.int64)


def lies(truth: Any) -> list[Any]:
    """What rows are wrongly said to have been."""
    return [truth[::-1].copy(), truth[:-1], np.arange(1, len(truth) + 1), np.zeros(len(truth), np.int64)]


def linked(night: Night, profile: Profile, *, new_id: Callable[[], str], **options: Any) -> Linkage:
    return link(table(night, profile), duplicates=REPEATS, model=MODELS[profile], new_id=new_id, block_cap=CAP, threads=1,
                **options)  # fmt: skip


def names(prefix: str) -> Callable[[], str]:
    return iter([f"{prefix}{n}" for n in range(1000)]).__next__


def partition(linkage: Linkage) -> frozenset[frozenset[RecordKey]]:
    people: dict[str, set[RecordKey]] = {}
    for row in linkage.clusters.to_pylist():
        people.setdefault(row["person_id"], set()).add((row["agency"], row["flow"], row["record_ref"]))
    return frozenset(map(frozenset, people.values()))


def ids_last(previous: pa.Table, after: Linkage) -> None:
    """Ids are those that `keep_ids` gives, and what became of persons is what `changes` says."""
    before, now = (
        {(row["agency"], row["flow"], row["record_ref"]): row["person_id"] for row in clusters.to_pylist()}
        for clusters in (previous, after.clusters)
    )
    people: dict[str, list[RecordKey]] = {}
    for key, person_id in now.items():
        people.setdefault(person_id, []).append(key)
    for person_id, kept in zip(people, keep_ids(list(people.values()), before, str), strict=True):
        assert person_id == kept or (not kept and person_id not in before.values())
    merges, splits = changes(before, now)
    told = [(event.kind, event.before, event.after) for event in after.report.events]
    assert told == [("merge", *move) for move in merges] + [("split", *move) for move in splits]


def said(found: pa.Table) -> list[str]:
    """Rows of pairs or reviews, whichever side is left, in one order."""
    listed = []
    for row in found.to_pylist():
        ends = sorted(tuple(row.pop(f"{name}_{side}") for name in CLUSTERS.names[:3]) for side in "lr")
        listed.append(repr((ends, {name: round(v, 9) if isinstance(v, float) else v for name, v in row.items()})))
    return sorted(listed)


quick = settings(
    deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                                                         HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
@quick
@given(st.data(), nights, overrides, overrides, homes, homes)
def test_a_later_night_finds_what_a_run_over_everything_finds(
    profile: Profile, data: st.DataObject, first: Night, hand: Overrides, hand_later: Overrides,
    lived: dict[RecordKey, frozenset[int]], lives: dict[RecordKey, frozenset[int]],
) -> None:  # fmt: skip
    before = linked(first, profile, new_id=names("a"), overrides=hand, households=households(lived))
    frozen = {name: before.kept[name] for name in (FREQUENCIES, SETTINGS)}
    kept, previous, night, last, homed = before.kept, before.clusters, first, first, homes_in(lived)
    for n in range(2):
        night = data.draw(later(night))
        if not night:
            return
        options = {"overrides": hand_later, "households": households(lives), "previous": previous}
        delta = linked(night, profile, new_id=names(f"b{n}-"), kept=kept, **options)
        whole = linked(night, profile, new_id=names(f"b{n}-"), kept=frozen, **options)
        told = Carried(
            persons=found_again(lines(last), lines(night)), relationships=found_again(homed, homes_in(lives))
        )
        wrong = data.draw(st.sampled_from(lies(told.persons))), data.draw(st.sampled_from(lies(told.relationships)))
        for carried in (told, Carried(persons=wrong[0], relationships=wrong[1])):
            sent = linked(night, profile, new_id=names(f"b{n}-"), kept=kept, carried=carried, **options)
            assert sent.clusters.equals(delta.clusters)
            assert sent.pairs.equals(delta.pairs)
            assert sent.reviews.equals(delta.reviews)
            assert replace(sent.report, compared=0) == replace(delta.report, compared=0)
            assert all(sent.kept[name].equals(delta.kept[name]) for name in KEPT)
        assert delta.clusters.equals(whole.clusters)
        assert delta.pairs.equals(whole.pairs)
        assert delta.reviews.equals(whole.reviews)
        for name in ("over_shared", "capped_blocks", "events", "persons", "severed_meetings"):
            assert getattr(delta.report, name) == getattr(whole.report, name)
        assert delta.kept[PAIRS].equals(whole.kept[PAIRS])
        assert all(delta.kept[name].equals(whole.kept[name]) for name in KEPT)
        assert delta.report.severed_meetings == 0
        ids_last(previous, delta)
        kept, previous, last, homed = delta.kept, delta.clusters, night, homes_in(lives)


@quick
@given(nights, overrides, homes)
def test_a_run_finds_what_plain_sql_and_the_plain_algorithm_find(
    first: Night, hand: Overrides, lived: dict[RecordKey, frozenset[int]]
) -> None:
    profile = PROFILES[0]
    found = linked(first, profile, new_id=names("a"), overrides=hand, households=households(lived))
    with pytest.MonkeyPatch.context() as patch, open_workspace(threads=1) as db:
        patch.setattr(blocking, "BLOCK_CAP", CAP)
        run = Run(db, table(first, profile), REPEATS, hand, households(lived))
        plain = run.finish(MODELS[profile], None, names("a"))
    assert partition(found) == partition(plain)
    assert said(found.pairs) == said(plain.pairs)
    assert said(found.reviews) == said(plain.reviews)
    for name in ("records", "rows", "candidate_pairs", "match_pairs", "possible_pairs", "reviews", "persons",
                 "capped_blocks", "over_shared", "severed_meetings"):  # fmt: skip
        assert getattr(found.report, name) == getattr(plain.report, name), name


def test_what_was_kept_in_part_or_under_another_version_is_not_used() -> None:
    row = Row(0, 0, 0, 0, "F", (1, *[None] * (len(IDENTIFIERS) - 1)))
    first: Night = {(*source, f"r{n}"): (replace(row, given=n),) for source in SOURCES[:3] for n in range(3)}
    night = first | {(*SOURCES[0], "r9"): (replace(row, family=2),)}
    before = linked(first, PROFILES[0], new_id=names("a"))
    whole = linked(night, PROFILES[0], new_id=names("b"), previous=before.clusters)
    carried = Carried(persons=found_again(lines(first), lines(night)), relationships=np.zeros(0, np.int64))
    versions = before.kept[SETTINGS]["digest"].to_pylist()
    other = before.kept[SETTINGS].set_column(2, "digest", pa.array(["another", *versions[1:]], pa.string()))
    for kept in (
        *({name: table for name, table in before.kept.items() if name != gone} for gone in KEPT),
        dict(before.kept) | {SETTINGS: other},
        {},
    ):
        found = linked(night, PROFILES[0], new_id=names("b"), previous=before.clusters, kept=kept, carried=carried)
        assert found.clusters.equals(whole.clusters)
        assert found.pairs.equals(whole.pairs)
        assert all(found.kept[name].equals(whole.kept[name]) for name in KEPT)
        assert found.report.compared == len(night)
    quick_one = linked(
        night, PROFILES[0], new_id=names("b"), previous=before.clusters, kept=before.kept, carried=carried
    )
    assert quick_one.report.compared < len(night)
    assert quick_one.clusters.equals(whole.clusters)
