"""What an asker is told is found by sets of clauses: it is what the literal tests say, clause by clause."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from agreements import VOCABULARY, Mode
from agreements.explain.asker import reasons
from agreements.explain.near import Inquiry, Nearness
from agreements.explain.sieve import Sifted
from agreements.reference import Question
from tests.agreements.estates import estate, requests
from tests.agreements.worlds import world
from tests.sizes import LONG

WORLDS = 1_200 if LONG else 600


def test_reasons_found_by_sets_are_those_of_the_literal_tests() -> None:
    told: Counter[str] = Counter()
    for seed in range(WORLDS):
        w, other = world(seed), world(Random(seed).randrange(WORLDS))
        sources = sorted({party for document in w.documents for party in getattr(document, "parties", ())})
        for request in (w.request, replace(w.request, basis=other.request.basis, purpose=other.request.purpose)):
            for source in {w.facts.source, Random(seed).choice(sources or [w.facts.source])}:
                told.update(_alike(Question(w.snapshot, VOCABULARY, request, None, source, w.at)))
    assert sum(told.values()) > 4 * WORLDS and len(told) >= 12, told


@pytest.mark.parametrize("agencies", [12, 50])
def test_reasons_in_an_estate_are_those_of_the_literal_tests(agencies: int) -> None:
    snapshot = estate(200, agencies)
    told: Counter[str] = Counter()
    for one in requests(snapshot, 25):
        told.update(_alike(Question(snapshot, VOCABULARY, one.request, None, one.facts.source, one.at)))
    assert sum(told.values()) > 100


def _alike(q: Question) -> list[str]:
    """The codes told, the same by both, as is everything they rest on."""
    literal, sifted = Inquiry(q), Sifted(q)
    assert _everything(sifted) == _everything(literal)
    due = reasons(literal, "the source", "its desk")
    assert reasons(sifted, "the source", "its desk") == due
    return [one.code for one in due]


def _everything(found: Nearness) -> list[object]:
    return [
        (found.standing, found.covered_otherwise, found.basis_closed),
        *(
            (
                category,
                found.owned(category),
                found.listed(category),
                found.covering(category),
                found.ended(category),
                *(found.nearest(category, above) for above in (Mode.NONE, Mode.EXISTENCE, Mode.SUMMARY)),
            )
            for category in found.q.request.asked
        ),
    ]
