"""Disclosure control: what is published gives no small figure away, by oracles that read what is published alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from itertools import product
from random import Random
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from agreements import Item
from agreements.statistics import (
    BadCatalogue,
    Child,
    Counted,
    Protected,
    Quarter,
    Terms,
    Withheld,
    audit,
    protect,
    shipped,
    tabulate,
    too_alike,
)
from agreements.statistics.catalogue import read_catalogue
from agreements.statistics.suppression import Published, exposed, passes, primary_only, rounded, with_totals
from agreements.statistics.writing import as_csv, as_json, figures_of, published_of
from tests.sizes import LONG

TABLES: Final = 1_000 if LONG else 30
SHAPES: Final = ((3, 4), (5, 4), (6, 5), (2, 6), (3, 3, 2), (4, 3, 2), (2, 2, 2))
LENIENT: Final = Terms(most_hidden=100)
"""Nothing withheld for being of little use: so that whatever can be published is attacked."""


def a_table(seed: int) -> np.ndarray[Any, Any]:
    """Skewed counts: a few large cells, many small and empty ones, as of children's services."""
    draw = np.random.default_rng(seed)
    shape = SHAPES[seed % len(SHAPES)]
    chance = draw.gamma(0.7, 1.0, size=shape)
    for axis, size in enumerate(shape):
        weights = draw.dirichlet(np.full(size, 0.8))
        chance = chance * weights.reshape([size if one == axis else 1 for one in range(len(shape))])
    many = int(draw.choice([300, 1_000, 4_000, 20_000]))
    return draw.multinomial(many, (chance / chance.sum()).ravel()).reshape(shape).astype(np.int64)


# --- What a stranger can tell: two oracles that know nothing of how it was made ---------------------------------------


class Stranger:
    """True counts as unknowns, whole and not negative, each within half a rounding of what is, or may be, published."""

    def __init__(self, figures: Sequence[Any], rounding: int) -> None:
        self.figures = np.array(figures, dtype=object)
        self.shape = tuple(size - 1 for size in self.figures.shape)
        self.cells = list(product(*map(range, self.shape)))
        number, rows, lower, upper = len(self.cells), [], [], []
        below, above = rounding // 2, (rounding + 1) // 2 - 1
        for at in range(number):  # count - rounding * steps
            row = np.zeros(2 * number)
            row[at], row[number + at] = 1, -rounding
            rows.append(row)
            lower.append(-below)
            upper.append(above)
        for place in product(*(range(size + 1) for size in self.shape)):
            shown = self.figures[place]
            if shown == "c":
                continue
            rows.append(np.concatenate([np.zeros(number), rounding * self.weights(place)]))
            lower.append(0 if shown == "z" else shown)
            upper.append(0 if shown == "z" else shown)
        self.number = number
        self.constraint = LinearConstraint(np.array(rows), np.array(lower, dtype=float), np.array(upper, dtype=float))

    def weights(self, place: Sequence[int]) -> Any:
        """Which cells a figure adds up."""
        return np.array(
            [
                all(index in (of, size) for of, index, size in zip(cell, place, self.shape, strict=True))
                for cell in self.cells
            ],
            dtype=float,
        )

    def reach(self, small: Sequence[tuple[int, ...]], threshold: int) -> set[tuple[tuple[int, ...], str]]:
        """Which of some figures may be at most 1, and which at least the threshold, in some true table that publishes
        exactly this.  A table that is found answers for every figure that it answers for."""
        weights = {place: self.weights(place) for place in small}
        found: set[tuple[tuple[int, ...], str]] = set()
        for place, side in product(small, ("nobody", "many")):
            if (place, side) in found:
                continue
            row = np.concatenate([weights[place], np.zeros(self.number)])[None, :]
            least, most = (0, 1) if side == "nobody" else (threshold, np.inf)
            left = sum(weights[one] for one in small if (one, side) not in found)
            result = milp(
                np.concatenate([left if side == "nobody" else -left, np.zeros(self.number)]),
                integrality=np.ones(2 * self.number), bounds=Bounds(0, 1e5),
                constraints=[self.constraint, LinearConstraint(row, [least], [most])], options={"mip_rel_gap": 0.5},
            )  # fmt: skip
            if result.x is None:
                continue
            for one in small:
                value = round(float(weights[one] @ result.x[: self.number]))
                found |= {(one, "nobody")} if value <= 1 else {(one, "many")} if value >= threshold else set()
        return found

    def hidden(self) -> list[tuple[int, ...]]:
        return [place for place in product(*(range(size + 1) for size in self.shape)) if self.figures[place] == "c"]


def every_table(figures: Any, most: int, rounding: int = 5) -> Iterator[dict[tuple[int, ...], int]]:
    """Every table of steps up to `most` that publishes exactly these figures, by trying them all."""
    held = np.array(figures, dtype=object)
    shape = tuple(size - 1 for size in held.shape)
    cells = list(product(*map(range, shape)))
    lines = [
        (int(held[place]) // rounding, [c for c in cells if all(i in (o, s) for o, i, s in zip(c, place, shape, strict=True))])
        for place in product(*(range(size + 1) for size in shape))
        if held[place] != "c" and any(index == size for index, size in zip(place, shape, strict=True))
    ]  # fmt: skip

    def rest(at: int, table: dict[tuple[int, ...], int]) -> Iterator[dict[tuple[int, ...], int]]:
        for total, members in lines:
            so_far = [table[cell] for cell in members if cell in table]
            if sum(so_far) > total or (len(so_far) == len(members) and sum(so_far) != total):
                return
        if at == len(cells):
            yield dict(table)
            return
        cell = cells[at]
        for value in range(most + 1) if held[cell] == "c" else (int(held[cell]) // rounding,):
            table[cell] = value
            yield from rest(at + 1, table)
        del table[cell]

    return rest(0, {})


def test_properties_of_many_random_tables_no_figure_can_be_worked_out() -> None:
    published = withheld = 0
    for seed in range(TABLES):
        counts = a_table(seed)
        made = protect(counts, LENIENT)
        if isinstance(made, Withheld):
            withheld += 1
            continue
        published += 1
        true = with_totals(counts)
        stranger = Stranger(figures_of(made.published), 5)
        assert set(stranger.hidden()) >= {tuple(map(int, place)) for place in np.argwhere(true < 10)}, seed
        small = [place for place in stranger.hidden() if true[place] < 10]
        assert stranger.reach(small, 10) == set(product(small, ("nobody", "many"))), seed
    assert published >= 0.9 * TABLES, (published, withheld)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(10, 60), min_size=9, max_size=9), st.lists(st.integers(0, 9), max_size=4), st.randoms())
def test_properties_the_audit_tells_exactly_what_trying_every_table_tells(
    large: list[int], small: list[int], draw: Random
) -> None:
    shape = draw.choice([(2, 3), (3, 3), (2, 2, 2)])
    cells = (large + large)[: int(np.prod(shape))]
    for value, at in zip(small, draw.sample(range(len(cells)), len(small)), strict=True):
        cells[at] = value
    table = primary_only(np.array(cells, dtype=np.int64).reshape(shape), LENIENT)
    figures = figures_of(table)
    most = 9
    found = list(every_table(figures, most))
    assert found
    cut_short = any(most in one.values() for one in found)
    for place, interval in audit(table).items():
        values = {
            sum(v for cell, v in one.items() if all(i in (o, s) for o, i, s in zip(cell, place, shape, strict=True)))
            for one in found
        }
        assert interval.lowest == max(0, 5 * min(values) - 2)
        if not cut_short:
            assert interval.highest == 5 * max(values) + 2
        else:
            assert interval.highest is None or interval.highest >= 5 * max(values) + 2


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6))
def test_properties_what_is_published_is_the_same_every_time_and_passes_its_own_audit(seed: int) -> None:
    counts = a_table(seed)
    made, again = protect(counts, LENIENT), protect(counts.copy(), LENIENT)
    if isinstance(made, Withheld):
        assert made == again
        return
    assert isinstance(again, Protected)
    assert made.published == again.published
    found = audit(made.published)
    assert all(found[figure].spans(LENIENT) for figure in made.small)
    assert not any(exposed(interval, LENIENT) for interval in found.values())
    figures = made.published.figures
    shown = np.where(figures > 0, figures, 0)
    assert np.array_equal(rounded(shown, 5), shown)
    assert published_of(figures_of(made.published), LENIENT) == made.published
    cells = tuple(slice(0, size) for size in counts.shape)
    if (figures >= 0).all():
        assert np.array_equal(with_totals(figures[cells]), figures), "totals are sums of rounded cells"


def test_hiding_small_figures_alone_gives_many_of_them_away() -> None:
    given_away = 0
    for seed in range(16):
        counts = a_table(seed)
        table = primary_only(counts, LENIENT)
        given_away += any(exposed(interval, LENIENT) for interval in audit(table).values())
    assert given_away >= 8, "or the control of the test above controls nothing"


def test_totals_that_other_tables_tell_are_taken_into_account() -> None:
    counts = np.array([[400, 4, 300], [350, 60, 300], [500, 70, 250]])
    alone = protect(counts, Terms())
    linked = protect(counts, Terms(), known=[(0,), (1,)])
    assert isinstance(alone, Protected)
    assert isinstance(linked, Protected)
    known = {(row, 3): int(rounded(counts, 5).sum(axis=1)[row]) for row in range(3)}
    assert passes(linked.published, linked.small, known=known)
    # A small total that another table would tell can't be protected here: the table is withheld.
    few = np.array([[400, 300], [3, 2]])
    assert isinstance(protect(few, LENIENT, known=[(0,)]), Withheld)


def test_a_cell_in_which_there_can_be_nobody_says_so_and_hides_nobody() -> None:
    counts = np.array([[0, 200, 40], [90, 150, 60]])
    impossible = np.array([[True, False, False], [False, False, False]])
    made = protect(counts, Terms(), impossible=impossible)
    assert isinstance(made, Protected)
    assert made.published.shown((0, 0)) == "z"
    assert made.small == ()
    with pytest.raises(ValueError, match="in which there can be nobody"):
        protect(counts + 1, Terms(), impossible=impossible)


def test_nobody_is_hidden_like_any_small_number() -> None:
    made = protect(np.array([[120, 0, 30], [80, 40, 25], [60, 50, 20]]), Terms())
    assert isinstance(made, Protected)
    assert made.published.shown((0, 1)) == "c"
    assert made.small == ((0, 1),)


def test_few_children_and_tables_of_hidden_cells_are_withheld_whole() -> None:
    assert protect(np.array([[40, 30], [20, 9]]), Terms()) == Withheld("few_children")
    assert protect(np.array([[300, 3], [2, 4]]), Terms()) == Withheld("too_much_hidden")


@pytest.mark.parametrize(
    "lax", [{"threshold": 4}, {"rounding": 1}, {"minimum_population": 9}, {"most_hidden": 101}, {"rounding": 3}]
)
def test_terms_that_protect_nobody_are_refused(lax: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(lax))):
        Terms(**lax)


def test_of_two_agreements_the_stricter_terms_hold() -> None:
    one = Terms.agreed({"threshold": 20})
    other = Terms.agreed({"rounding": 10, "minimum_population": 500})
    both = Terms(threshold=20, rounding=10, minimum_population=500)
    assert one.stricter(other) == other.stricter(one) == both
    assert Terms.agreed({"threshold": 300}).minimum_population == 300


@pytest.mark.parametrize("rounding", [5, 10])
@pytest.mark.parametrize("threshold", [5, 10, 25])
def test_properties_hold_under_every_terms(threshold: int, rounding: int) -> None:
    terms = Terms(threshold=threshold, rounding=rounding, most_hidden=100)
    for seed in range(0, 20, 5):
        counts = a_table(seed)
        made = protect(counts, terms)
        if isinstance(made, Withheld):
            continue
        stranger = Stranger(figures_of(made.published), rounding)
        assert stranger.reach(made.small, threshold) == set(product(made.small, ("nobody", "many")))


# --- The ledger --------------------------------------------------------------------------------------------------------


def a_release(children: int, *, period: str = "2026-Q3", **changes: Any) -> Counted:
    known: dict[str, Any] = {
        "release": "one", "period": period, "dimensions": ("age",), "counts": np.array([children - 100, 100]),
        "members": frozenset(map(str, range(children))),
    }  # fmt: skip
    return Counted(**(known | changes))


@settings(deadline=None, max_examples=100)
@given(st.integers(200, 300), st.integers(0, 30), st.integers(0, 30))
def test_properties_a_release_is_refused_exactly_if_few_children_tell_it_from_another(
    children: int, left: int, joined: int
) -> None:
    before = a_release(children, period="2026-Q2")
    members = frozenset(map(str, range(left, children + joined)))
    now = a_release(children, members=members, release="two")
    assert (too_alike(now, [before], threshold=10) is not None) == (1 <= left + joined < 10)


def test_one_child_more_changes_no_published_figure_because_nothing_is_published() -> None:
    """Scenario 18: the pair of questions that differ by one child.  Rounding alone would have told."""
    told = 0
    for seed in range(7):
        counts = a_table(seed)
        more = counts.copy()
        more[tuple(Random(seed).choice([tuple(map(int, cell)) for cell in np.argwhere(counts >= 0)]))] += 1
        one, two = (protect(table, LENIENT) for table in (counts, more))
        if isinstance(one, Protected) and isinstance(two, Protected):
            told += one.published != two.published
        members = frozenset(map(str, range(int(counts.sum()))))
        first = Counted(release="a", period="2026-Q2", dimensions=("x",), counts=counts, members=members)
        second = replace(first, release="b", period="2026-Q3", counts=more, members=members | {"new"})
        refused = too_alike(second, [first], threshold=10)
        assert refused is not None
        assert (refused.release, refused.by) == ("a", "population")
    assert told, "without the ledger a figure would have jumped"


def test_of_one_quarter_no_two_tables_give_the_same_total_a_few_children_apart() -> None:
    first = a_release(400, dimensions=("age", "need"), counts=np.array([[150, 150], [60, 40]]))
    moved = a_release(400, dimensions=("sen", "age"), counts=np.array([[200, 70], [103, 27]]), release="two")
    refused = too_alike(moved, [first], threshold=10)
    assert refused is not None
    assert refused.by == "cell"
    later = replace(moved, period="2026-Q4")
    assert too_alike(later, [first], threshold=10) is None, "between two quarters children change"


def test_a_nested_population_may_not_leave_a_few_children_over_in_any_cell_of_both() -> None:
    everybody = a_release(400, counts=np.array([300, 100]))
    some = frozenset(map(str, range(360)))
    assert too_alike(a_release(400, counts=np.array([280, 80]), members=some), [everybody], threshold=10) is None
    assert too_alike(a_release(400, counts=np.array([265, 95]), members=some), [everybody], threshold=10) is not None


# --- Tables --------------------------------------------------------------------------------------------------------------


def an_item(category: str, code: str, on: date, **changes: Any) -> Item:
    system = {"education.attendance": "attendance_band", "social_care.child_protection": "cp_category"}.get(
        category, ""
    )
    known: dict[str, Any] = {"code_system": system, "recorded_on": on}
    return Item(category=category, code=code, occurred_on=on, **(known | changes))


def a_child(*items: Item, **changes: Any) -> Child:
    known: dict[str, Any] = {"birth_year": 2016, "sex": "F", "items": items}
    return Child(**(known | changes))


LAST: Final = Quarter.parse("2026-Q3").last_day
ROLL: Final = an_item("education.attendance", "PERSISTENT", date(2026, 5, 22))


def test_a_child_is_counted_once_where_the_quarter_ends() -> None:
    table = shipped().tables["attendance-by-age"]
    later = an_item("education.attendance", "SEVERE", date(2026, 10, 2))
    earlier = an_item("education.attendance", "ABOVE_90", date(2026, 2, 2))
    assert table.cell(a_child(ROLL, earlier, later), LAST) == (2, 1)
    counted = tabulate(table, {"a": a_child(ROLL), "b": a_child(ROLL, birth_year=2020), "c": a_child(later)}, LAST)
    assert (int(counted.counts.sum()), counted.members) == (2, {"a", "b"})


@pytest.mark.parametrize("born", [None, 2008, 2027])
def test_only_children_whose_year_of_birth_is_known_are_counted(born: int | None) -> None:
    assert shipped().tables["attendance-by-age"].cell(a_child(ROLL, birth_year=born), LAST) is None


def test_a_category_that_tells_nothing_of_a_child_is_its_own_level() -> None:
    table = shipped().tables["protection-by-age"]
    plan = an_item("social_care.child_protection", "NEG", date(2026, 6, 12))
    assert [level.code for level in table.dimensions[1].levels] == ["plan", "not_now"]
    assert (table.cell(a_child(ROLL, plan), LAST), table.cell(a_child(ROLL), LAST)) == ((2, 0), (2, 1))


def test_the_shipped_tables_tell_each_other_only_the_totals_they_are_protected_against() -> None:
    tables = shipped().tables
    assert {table.id for table in shipped().asked()} == tables.keys() - {
        "absence-by-age-half", "protection-by-age-half", "missing-by-age-half",
    }  # fmt: skip
    assert tables["sectors-by-age"].known == ((0,), (1,))
    assert tables["need-and-sen"].known == ((),)
    assert [one.id for one in shipped().attempts(tables["attendance-by-age"])] == [
        "attendance-by-age", "absence-by-age-half",
    ]  # fmt: skip


CATALOGUE: Final = """
id = "t@1"
[basis]
art6 = "public_task"
[dimensions.area]
label = "Area"
kind = "area"
categories = ["education.enrolment"]
levels = [{code = "n", label = "North", of = ["123456"]}, {code = "s", label = "Elsewhere", otherwise = true}]
[dimensions.age]
label = "Age"
kind = "age"
levels = [{code = "a", label = "0 to 9", from = 0, to = 9}, {code = "b", label = "10 to 17", from = 10, to = 17}]
[dimensions.plan]
label = "Plan"
kind = "status"
categories = ["social_care.child_protection"]
levels = [{code = "plan", label = "Plan", of = ["PLAN"]}, {code = "no", label = "No", otherwise = true}]
[tables.by-area]
title = "By area and age"
base = ["education.enrolment"]
dimensions = ["area", "age"]
"""


def test_an_area_is_a_group_of_schools_and_a_shielded_childs_is_not_told() -> None:
    table = read_catalogue(CATALOGUE).tables["by-area"]
    here = an_item("education.enrolment", "ENROLLED", date(2025, 9, 2), number=123456.0)
    assert table.cell(a_child(here), LAST) == (0, 1)
    assert table.cell(a_child(here, shielded=True), LAST) == (1, 1)
    assert table.cell(a_child(replace(here, number=654321.0)), LAST) == (1, 1)


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ('kind = "area"', 'kind = "postcode"', "dimensions.area.kind"),
        ('dimensions = ["area", "age"]', 'dimensions = ["area", "ages"]', "tables.by-area.dimensions"),
        ('base = ["education.enrolment"]', 'base = ["police.custody"]', "tables.by-area.base"),
        ('of = ["PLAN"]', 'of = ["SOON"]', "dimensions.plan"),
        ("from = 10", "from = 9", "dimensions.age.levels"),
        ('title = "By', 'note = "x"\ntitle = "By', "tables.by-area: note is not read"),
        ('title = "By', 'coarser = "other"\ntitle = "By', "tables.by-area.coarser"),
        ('id = "t@1"', "", "id: it is nowhere in the catalogue"),
        ('art6 = "public_task"', 'art6 = "public_interest"', "basis.art6: a term is not in the vocabulary; write"),
        ('art6 = "public_task"', 'art6 = "public_task"\ngateway = ["ca2004-s12"]', "basis.gateway: a term is not in"),
        ('art6 = "public_task"', 'art6 = "public_task"\ncondition = ["dpa18-sch1-19"]', "basis.condition: a term is"),
        ('art6 = "public_task"', 'art6 = "public_task"\nart9 = "2(g)"', "basis: art9 is not read"),
        ('title = "By', 'impossible = [{age = "99"}]\ntitle = "By', "impossible: age has no such level"),
        ("[basis]", "[basis", "not TOML"),
        ("otherwise = true}]\n[dimensions.age]", "of = []}]\n[dimensions.age]", "dimensions.area.levels"),
    ],
)
def test_a_catalogue_that_can_not_be_used_is_refused_with_its_place(before: str, after: str, place: str) -> None:
    assert before in CATALOGUE
    with pytest.raises(BadCatalogue, match=place.replace(".", r"\.")):
        read_catalogue(CATALOGUE.replace(before, after, 1))


def test_a_small_area_never_stands_with_a_rare_category() -> None:
    small = CATALOGUE.replace('kind = "area"', 'kind = "area"\nsmall = true')
    assert read_catalogue(small)
    with pytest.raises(BadCatalogue, match=r"a small area never stands with social_care\.child_protection"):
        read_catalogue(small.replace('["area", "age"]', '["area", "plan"]'))


def test_two_tables_that_tell_the_same_twice_are_refused() -> None:
    twice = CATALOGUE + '[tables.again]\ntitle = "T"\nbase = ["education.enrolment"]\ndimensions = ["age"]\n'
    with pytest.raises(BadCatalogue, match="tells all of it again"):
        read_catalogue(twice)


def test_a_written_table_says_its_rules_and_not_how_many_figures_are_hidden() -> None:
    table = shipped().tables["attendance-by-age"]
    counts = np.array([[900, 40, 3, 12], [1400, 100, 22, 30], [1500, 160, 31, 20], [800, 120, 25, 14]])
    made = protect(counts, Terms(), impossible=table.impossible, known=table.known)
    assert isinstance(made, Protected)
    quarter = Quarter.parse("2026-Q3")
    written = as_json(table, quarter, figures_of(made.published), Terms())
    assert written["rows"][2] == {"age": "0-4", "attendance": "severe", "children": "c"}
    assert written["symbols"].keys() == {"c"}
    assert len(written["rows"]) == 25
    assert "3" not in {str(row["children"]) for row in written["rows"]}
    text = as_csv(table, quarter, figures_of(made.published), Terms())
    assert "0 to 4,Severe absence,c\r\n" in text
    assert "Totals are sums of rounded figures" in text
    assert isinstance(made.published, Published)


def test_a_quarter_ends_on_its_last_day() -> None:
    ends = [str(Quarter.parse(f"2026-Q{number}").last_day) for number in (1, 2, 3, 4)]
    assert ends == ["2026-03-31", "2026-06-30", "2026-09-30", "2026-12-31"]
    for wrong in ("2026", "2026-Q5", "1999-Q1", "2026-q1"):
        with pytest.raises(ValueError, match="quarter"):
            Quarter.parse(wrong)
