"""A night draws the family network where anything is new, and comes to what drawing all of it comes to.

The people are few, of few homes and with small limits, so that households cross the cap, somebody has too many
relatives, and every night something that acts at a distance happens to somebody.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.matching import kin as drawing
from linkage.matching.facts import KINDS, Facts, facts_of
from linkage.matching.kin import CONFLICTS_BY_NUMBER, EDGES, UNDRAWN, EarlierKin, Kin, Rows, kin
from linkage.matching.numbering import Ends
from linkage.records import IDENTIFIERS, RELATIONSHIP_TYPES

EXAMPLES = int(os.environ.get("INCREMENTAL_EXAMPLES", "3"))
SOURCES = (("council", "education"), ("icb", "health"))
TIES = [kind for kind in RELATIONSHIP_TYPES if kind != "household"]
DAYS = (None, date(2020, 1, 1), date(2024, 1, 1))

record = st.integers(0, 11)  # of which the first two thirds may be held
row = st.tuples(
    st.sampled_from([0, 1]), record, st.one_of(st.integers(0, 3), record.map(lambda n: 100 + n)), st.sampled_from(TIES),
    st.booleans(), st.sampled_from(DAYS), st.sampled_from(DAYS),
)  # fmt: skip
"""Source, who, where they live or (from 100) who the other is, as what, verified, from, to."""
facts = st.tuples(st.sampled_from([None, 1980, 2000, 2015]), st.sampled_from(["F", "M", None]))


@dataclass(frozen=True)
class Night:
    """Records that are held: the person of each and what its row says; statements; records that are severed."""

    held: dict[int, tuple[int, tuple[int | None, str | None]]]
    rows: tuple[Any, ...]
    severed: tuple[tuple[int, int], ...]

    @property
    def records(self) -> list[int]:
        return sorted(self.held)

    def person(self) -> Any:
        """By record its person, by the least record of each."""
        order: dict[int, int] = {}
        return np.array([order.setdefault(self.held[one][0], len(order)) for one in self.records], np.int64)

    def ends(self) -> Ends:
        place = {one: n for n, one in enumerate(self.records)}
        lived = np.array([row[2] < 100 for row in self.rows], np.bool_)
        return Ends(
            a=np.array([place.get(row[1], -1) for row in self.rows], np.int32),
            b=np.array([place.get(row[2] - 100, -1) if row[2] >= 100 else -1 for row in self.rows], np.int32),
            home=np.array([row[2] if row[2] < 100 else 0 for row in self.rows], np.int64),
            lived=lived,
        )

    def relationships(self) -> pa.Table:
        return pa.table({
            "agency": pa.array([SOURCES[row[0]][0] for row in self.rows], pa.string()),
            "flow": pa.array([SOURCES[row[0]][1] for row in self.rows], pa.string()),
            "type": pa.array(["household" if row[2] < 100 else row[3] for row in self.rows], pa.string()),
            "verified": pa.array([row[4] for row in self.rows], pa.bool_()),
            "valid_from": pa.array([row[5] for row in self.rows], pa.date32()),
            "valid_to": pa.array([row[6] for row in self.rows], pa.date32()),
        })  # fmt: skip

    def facts(self) -> Facts:
        said = [self.held[one][1] for one in self.records]
        kinds = pa.table({"birth_year": pa.array([year for year, _ in said], pa.int32()),
                          "sex": pa.array([sex for _, sex in said], pa.string())})  # fmt: skip
        return Facts(kinds=kinds, of=np.arange(len(said), dtype=np.int32))

    def drawn(self, earlier: EarlierKin | None = None) -> Kin:
        person, place = self.person(), {one: n for n, one in enumerate(self.records)}
        apart = [(int(person[place[a]]), int(person[place[b]])) for a, b in self.severed if a in place and b in place]
        rows = Rows(record=np.arange(len(person)), facts=self.facts())
        return kin(person, SOURCES, self.relationships(), self.ends(), rows, apart, earlier, threads=1)


held = st.dictionaries(st.integers(0, 9), st.tuples(st.integers(0, 7), facts), min_size=1)
severs = st.lists(st.tuples(record, record), max_size=2).map(tuple)
nights = st.builds(Night, held, st.lists(row, max_size=24).map(tuple), severs)


@st.composite
def later(draw: st.DrawFn, before: Night) -> Night:
    """Another night: a few records and statements are other ones, gone or new, in the order that they had."""
    people = dict(before.held) | draw(
        st.dictionaries(st.integers(0, 9), st.tuples(st.integers(0, 7), facts), max_size=2)
    )
    for gone in draw(st.lists(st.sampled_from(sorted(people)), max_size=1)):
        if len(people) > 1:
            del people[gone]
    dropped = draw(st.sets(st.integers(0, max(0, len(before.rows) - 1)), max_size=3))
    rows = [one for n, one in enumerate(before.rows) if n not in dropped] + draw(st.lists(row, max_size=3))
    return Night(people, tuple(rows), draw(st.sampled_from([before.severed, before.severed, ()]) | severs))


def earlier(before: Night, kept: Kin, now: Night) -> EarlierKin:
    place = {one: n for n, one in enumerate(now.records)}
    carried, at = [], 0
    for one in now.rows:
        there = one in before.rows[at:]
        carried.append(before.rows.index(one, at) if there else -1)
        at = carried[-1] + 1 if there else at
    changed = [place[one] for one in now.records if before.held.get(one, (0, None))[1] != now.held[one][1]]
    return EarlierKin(
        kept=kept.kept(), person=before.person(), ends=before.ends(),
        now=np.array([place.get(one, -1) for one in before.records], np.int64),
        carried=np.array(carried, np.int64), changed=np.array(changed, np.int64),
    )  # fmt: skip


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.data(), nights)
def test_property_a_night_draws_what_drawing_everything_draws(data: st.DataObject, first: Night) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "HOUSEHOLD_CAP", 3)
        patch.setattr(drawing, "LIMITS", dict.fromkeys(RELATIONSHIP_TYPES, (2, 2)) | {"household": (4, 4)})
        before, kept = first, first.drawn()
        for _ in range(3):
            now = data.draw(later(before))
            found, whole = now.drawn(earlier(before, kept, now)), now.drawn()
            assert found.findings == whole.findings
            for name, schema in (("edges", EDGES), ("conflicts", CONFLICTS_BY_NUMBER), ("undrawn", UNDRAWN)):
                assert getattr(found, name).schema == schema
                assert getattr(found, name).to_pylist() == getattr(whole, name).to_pylist(), name
            before, kept = now, found


def test_of_a_night_that_says_nothing_new_nobody_is_drawn_anew() -> None:
    night = Night(
        {n: (n, (2015, "F")) for n in range(8)}, tuple((0, n, n // 2, "carer", True, None, None) for n in range(8)), ()
    )
    whole = night.drawn()
    again = night.drawn(earlier(night, whole, night))
    assert (whole.drawn, again.drawn) == (8, 0)
    assert again.edges.equals(whole.edges)
    assert whole.edges.num_rows == 4


said = st.lists(st.tuples(st.sampled_from([None, 2010, 2015]), st.sampled_from(["F", None]), st.booleans(),
                          st.one_of(st.none(), st.integers(0, 9))), max_size=8)  # fmt: skip


def persons(rows: list[Any]) -> pa.Table:
    columns: dict[str, Any] = {
        name: pa.nulls(len(rows), KINDS.field(name).type) for name in KINDS.names[2:] if name != "numbered"
    }
    columns |= {"birth_year": pa.array([one[0] for one in rows], pa.int32()), "sex": pa.array([one[1] for one in rows], pa.string()),
                "q_no_postcode": pa.array([one[2] for one in rows], pa.bool_())}  # fmt: skip
    columns |= {f"id_{name}": pa.nulls(len(rows), pa.int64()) for name in IDENTIFIERS}
    return pa.table(columns | {"id_upn": pa.array([one[3] for one in rows], pa.int64())})


@settings(deadline=None, max_examples=EXAMPLES)
@given(said, said, st.sets(st.integers(0, 7)))
def test_property_what_rows_say_is_taken_over_as_if_it_were_read(before: Any, new: Any, gone: set[int]) -> None:
    stay = [n for n in range(len(before)) if n not in gone]
    rows = [before[n] for n in stay] + new
    carried = np.array([*stay, *([-1] * len(new))], np.int64)
    found, whole = facts_of(persons(rows), carried, facts_of(persons(before))), facts_of(persons(rows))
    assert found.kinds.equals(whole.kinds)
    assert found.of.tolist() == whole.of.tolist()
    read = [
        tuple(found.kinds[name][n].as_py() for name in ("birth_year", "sex", "q_no_postcode", "numbered"))
        for n in found.of
    ]
    assert read == [(year, sex, flag, number is not None) for year, sex, flag, number in rows]


def test_a_sever_in_force_is_drawn_anew_where_it_cuts_and_nowhere_else() -> None:
    """Of two homes of three, two children of one are severed: of the other nobody is read again, night after night."""
    night = Night(
        {n: (n, (2015, "F")) for n in range(6)},
        tuple((0, n, 100 + n // 3 * 3, "sibling", True, None, None) for n in (1, 2, 4, 5)),
        ((1, 2),),
    )
    whole = night.drawn()
    again = night.drawn(earlier(night, whole, night))
    assert sum(whole.edges["cut"].to_pylist()) == 2
    assert (whole.drawn, again.drawn) == (6, 3)
    assert again.edges.equals(whole.edges)
