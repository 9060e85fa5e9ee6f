"""Households: who lives together, told by birth years and sexes."""

from __future__ import annotations

import numpy as np

from broker.store.tables import metadata
from linkage.evaluation.attack.households import Members, households, match
from linkage.evaluation.attack.population import MISSING
from tests.linkage.evaluation.attack.benches import a_bench, case

READ = {"birth_year", "born", "sex", "household", "person_a", "person_b", "uprn"}
OF_SEARCHES = {"search.household"}  # ids of those of a household who were typed in a search, and nothing of them


def test_decades_of_grown_ups_take_half_of_what_all_years_give_away_and_years_sealed_would_take_all() -> None:
    results = list(households(a_bench(children=5_000)))
    all_years, told, unsaid, sealed, disk = (
        case(results, name).share
        for name in (
            "were all years told", "vault opened", "were no adult's year told", "were no year and sex told",
            "disk alone",
        )
    )  # fmt: skip
    assert all_years > 0.4  # the attack works where it should
    assert told < 0.75 * all_years
    assert unsaid < 0.75 * told
    assert sealed < 0.001
    assert disk == 0


def test_outside_the_vault_nothing_says_when_anybody_was_born_or_who_lives_together_but_of_those_searched() -> None:
    columns = {f"{table.name}.{column.name}" for table in metadata.tables.values() for column in table.columns}
    assert len(columns) > 100
    assert {name for name in columns if name.partition(".")[2] in READ} == OF_SEARCHES


def homes(*members: tuple[int, int, int]) -> Members:
    """Members as (home, year, sex); all children."""
    home, year, sex = (np.array(column, np.int64) for column in zip(*members, strict=True))
    return Members(home=home, person=np.arange(len(home)), year=year, sex=sex, child=np.ones(len(home), np.bool_))


def test_a_home_is_found_though_one_of_it_is_missing_or_wrong_and_no_twin_of_a_kind_is_named() -> None:
    mine = homes((0, 2010, 0), (0, 2012, 1), (0, 2015, 0), (1, 2011, 1), (1, 2013, 1), (1, 2013, 1))
    theirs = homes(
        (5, 2010, 0), (5, 2012, 1), (5, 2016, 0), (3, 2011, 1), (3, 2013, 1), (3, 2013, 1), (7, 2001, 0), (7, 2002, 0)
    )
    assert match(mine, theirs, "exact").tolist() == [0, 1, MISSING, 3, MISSING, MISSING]


def test_of_two_homes_that_fit_alike_neither_is_named() -> None:
    mine = homes((0, 2010, 0), (0, 2012, 1))
    theirs = homes((0, 2010, 0), (0, 2012, 1), (1, 2012, 1), (1, 2010, 0), (2, 2005, 0))
    assert (match(mine, theirs, "exact") == MISSING).all()
